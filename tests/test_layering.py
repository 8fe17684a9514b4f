"""What the library's sources may import, call and print: read from their syntax trees, not run."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module, or a folder of them, imports only what stands before it. A new one has to be placed here.
ORDER = ("extras", "types", "parallel", "distances", "keys", "digests", "descriptions", "labels",
         "memory", "files", "losses", "terms", "penalties", "tasks", "augment", "regularisers",
         "weighting", "nn", "models", "data", "metrics", "features", "networks", "probing", "gan",
         "views", "loops", "steps", "codes", "critics", "cycles", "drifting", "styles", "transfer",
         "export", "evaluation", "checkpoints", "pictures", "runs", "console", "plans", "profiling",
         "outlook", "reporting", "loggers", "training", "lanes")
OUTSIDE = {"experiments", "tests", "conftest"}
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "import_module"}


def modules(root):
    """The syntax trees of `root`/jaxgan by module name, and the names relative imports start from."""
    trees = {}
    for path in sorted((root / "jaxgan").rglob("*.py")):
        package = ".".join(path.relative_to(root).parts[:-1])
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        trees[name] = (ast.parse(path.read_text()), package)
    return trees


def imports(tree, package):
    """The dotted names that a module imports, wherever in it: `from a import b` counts as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def calls(tree):
    """The last names of the functions that a module calls: print of jax.debug.print."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", getattr(node.func, "attr", None))


def import_breaches(root):
    for name, (tree, package) in modules(root).items():
        layer = name.partition(".")[2].partition(".")[0]
        if layer and layer not in ORDER:
            yield f"{name} has no place in ORDER"
            continue
        for target in imports(tree, package):
            top, _, rest = target.partition(".")
            if top in OUTSIDE | UNSAFE_MODULES:
                yield f"{name} imports {target}"
            elif top == "jaxgan" and layer:
                imported = rest.partition(".")[0]
                if imported not in ORDER:
                    yield f"{name} imports {target}, which has no place in ORDER"
                elif ORDER.index(imported) > ORDER.index(layer):
                    yield f"{name} imports {target}, which comes after it"


def call_breaches(root):
    for name, (tree, _) in modules(root).items():
        layer = name.partition(".")[2].partition(".")[0]
        silent = layer not in ORDER or ORDER.index(layer) < ORDER.index("runs")
        for called in calls(tree):
            if called in UNSAFE_CALLS or (silent and called == "print"):
                yield f"{name} calls {called}"
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and not (
                    isinstance(node.value, ast.Constant) and node.value.value is False):
                yield f"{name} allows pickles"
            if silent and isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr"):
                yield f"{name} uses {node.attr}"


def dependencies(root):
    """Which modules each module imports, below the level of ORDER as well."""
    trees = modules(root)
    return {name: {target if target in trees else target.rpartition(".")[0]
                   for target in imports(tree, package)} & trees.keys()
            for name, (tree, package) in trees.items()}


def test_imports_point_upwards():
    assert list(import_breaches(ROOT)) == []


def test_every_place_is_taken():
    assert {name.split(".")[1] for name in modules(ROOT) if name != "jaxgan"} == set(ORDER)


def test_no_module_imports_itself_by_way_of_others():
    order = list(graphlib.TopologicalSorter(dependencies(ROOT)).static_order())
    assert order.index("jaxgan.types") < order.index("jaxgan.gan") < order.index("jaxgan")


def test_nothing_is_evaluated_unpickled_or_printed():
    assert list(call_breaches(ROOT)) == []


@pytest.mark.parametrize(("module", "source", "breach"), [
    ("novel", "", "jaxgan.novel has no place in ORDER"),
    ("types", "from jaxgan import keys", "jaxgan.types imports jaxgan.keys, which comes after it"),
    ("gan", "import jaxgan.steps as s", "jaxgan.gan imports jaxgan.steps, which comes after it"),
    ("gan", "from .steps import f", "jaxgan.gan imports jaxgan.steps.f, which comes after it"),
    ("nn.layers", "def f():\n    from jaxgan.models.mlp import g",
     "jaxgan.nn.layers imports jaxgan.models.mlp.g, which comes after it"),
    ("nn.layers", "from .. import gan", "jaxgan.nn.layers imports jaxgan.gan, which comes after it"),
    ("gan", "from jaxgan import GAN", "jaxgan.gan imports jaxgan.GAN, which has no place in ORDER"),
    ("gan", "import jaxgan", "jaxgan.gan imports jaxgan, which has no place in ORDER"),
    ("training", "from experiments import launch", "jaxgan.training imports experiments.launch"),
    ("training", "import tests.conftest", "jaxgan.training imports tests.conftest"),
    ("runs", "import pickle", "jaxgan.runs imports pickle"),
    ("runs", "def f(x):\n    return eval(x)", "jaxgan.runs calls eval"),
    ("runs", "importlib.import_module(name)", "jaxgan.runs calls import_module"),
    ("data.folder", "np.load(path, allow_pickle=True)", "jaxgan.data.folder allows pickles"),
    ("pictures", "print(1)", "jaxgan.pictures calls print"),
    ("steps", "jax.debug.print('{}', x)", "jaxgan.steps calls print"),
    ("steps", "sys.stderr.write(x)", "jaxgan.steps uses stderr"),
])
def test_a_breach_is_found(tmp_path, module, source, breach):
    """The checks above can fail."""
    path = (tmp_path / "jaxgan" / module.replace(".", "/")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [*import_breaches(tmp_path), *call_breaches(tmp_path)] == [breach]


def test_what_is_allowed_is_no_breach(tmp_path):
    folder = tmp_path / "jaxgan"
    (folder / "nn").mkdir(parents=True)
    (folder / "__init__.py").write_text("from jaxgan.gan import GAN\nfrom jaxgan.types import Batch")
    (folder / "nn" / "layers.py").write_text("from jaxgan.nn import norms\nfrom jaxgan import types")
    (folder / "training.py").write_text("from jaxgan import keys, runs\nprint('done', file=sys.stderr)")
    (folder / "data.py").write_text("np.load(path, allow_pickle=False)\nre.compile(pattern)")
    assert [*import_breaches(tmp_path), *call_breaches(tmp_path)] == []


def loaded_by(*names):
    """Which top-level packages a fresh interpreter has loaded after importing these modules."""
    code = "import sys; [__import__(name) for name in sys.argv[1:]]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True,
                          timeout=120, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_the_library_loads_nothing_that_only_data_and_runs_need():
    loaded = loaded_by("jaxgan", "jaxgan.models", "jaxgan.metrics", "jaxgan.pictures", "jaxgan.runs")
    assert "jax" in loaded
    assert not loaded & {"tensorflow", "tensorflow_datasets", "matplotlib", "sklearn", "orbax",
                         "tensorboardX", "PIL", "tqdm", "tyro", "experiments", "tests"}
