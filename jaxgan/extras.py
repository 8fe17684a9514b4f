"""What is installed on request, `pip install 'jaxgan[train]'`, and what is said where it isn't."""

import importlib.util
import sys
from typing import NamedTuple


class _Package(NamedTuple):
    name: str
    extra: str


_PACKAGES = {
    "PIL": _Package("pillow", "data"), "sklearn": _Package("scikit-learn", "data"),
    "tensorflow_datasets": _Package("tensorflow-datasets", "data"),
    "array_record": _Package("array_record", "data"), "tqdm": _Package("tqdm", "train"),
    "matplotlib": _Package("matplotlib", "train"), "tensorboardX": _Package("tensorboardX", "train"),
    "tyro": _Package("tyro", "train"), "safetensors": _Package("safetensors", "evaluate"),
    "flatbuffers": _Package("flatbuffers", "evaluate"), "wandb": _Package("wandb", "wandb"),
    "av": _Package("av", "video"),
    "bokeh": _Package("bokeh", "report"), "jinja2": _Package("jinja2", "report"),
    "panel": _Package("panel", "explore"),
}  # by what is imported


class MissingExtra(ModuleNotFoundError):
    """A package isn't installed; the text says which, and how it is."""

    def __init__(self, module: str):
        package, extra = _PACKAGES[module]
        super().__init__(f"{package} isn't installed: pip install 'jaxgan[{extra}]', or 'jaxgan[all]' "
                         "for everything", name=module)


def needs(*modules: str) -> None:
    """Checks that modules which extras bring can be imported, without importing them.

    Raises:
        MissingExtra: the first that can't.
    """
    for module in modules:
        blocked = module in sys.modules and sys.modules[module] is None
        if blocked or importlib.util.find_spec(module) is None:
            raise MissingExtra(module)
