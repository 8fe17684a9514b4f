"""An experiment as a value: its settings, and what they are turned into."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.data import Source
from jaxgan.evaluation import nearest
from jaxgan.gan import GAN
from jaxgan.loops import Game
from jaxgan.training import Picture

from . import commands, settings
from .flags import Config
from .measuring import Reference

AsLines = Callable[[np.ndarray], list[str]]  # samples of text -> a line each


def _written_in() -> Path:
    """The file of the module in which an experiment is made."""
    file = sys._getframe(2).f_globals.get("__file__")  # 1 is the __init__ that asks
    if file is None:
        raise ValueError("an experiment has the name of its file: write it in one")
    return Path(file).resolve()


def _docstring() -> str:
    """What that module says of itself."""
    return sys._getframe(2).f_globals.get("__doc__") or ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a script trains; its name is that of the file it is written in.

    Attributes:
        Config: the class of its configurations, groups of settings with defaults.
        make_source: configuration -> the data.
        make_game: (configuration, shape of a sample) -> the GAN, or a game of one's own.
        make_reference: configuration -> what samples are measured against.
        backwards: None, or of runs that translate both ways, (configuration, shape of a sample) ->
            what translates samples back: (state, samples) -> the source's.
        picture: None for a grid of samples of images, or (configuration, what is trained, source,
            reference) -> the picture of a state.
        make_text: None, or a run's settings -> what turns samples of text into a line each.
        settle: None, or configuration -> the same with what is left open, None, taken from the data.
        presets: named settings to start from; the first are the defaults of `Config`.
        preset_by: the setting whose value names the preset where none is asked for; "" for none.
        file: where it is written.
        about: what it is, for --help; by default what its file begins with.

    Raises:
        TypeError: a setting is of a type that can't be kept in a run's folder.
        ValueError: two settings have one name, or the first preset is not the default.
    """

    Config: type[Config]
    make_source: Callable[[Any], Source]
    make_game: Callable[[Any, tuple[int, ...]], GAN | Game]
    make_reference: Callable[[Any], Reference]
    _: dataclasses.KW_ONLY
    backwards: Callable[[Any, tuple[int, ...]], Callable[[Any, Any], Any]] | None = None
    picture: Callable[[Any, Any, Source, Reference], Picture] | None = None
    make_text: Callable[[Mapping[str, Any]], AsLines] | None = None
    settle: Callable[[Any], Any] | None = None
    presets: Mapping[str, Config] = dataclasses.field(default_factory=dict)
    preset_by: str = ""
    file: Path = dataclasses.field(default_factory=_written_in)
    about: str = dataclasses.field(default_factory=_docstring)

    def __post_init__(self):
        default = self.Config()
        settings.check(default)
        for name in ("make_source", "make_game", "make_reference"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} of an experiment must be a function; got "
                                f"{getattr(self, name)!r}")
        for name, preset in list(self.presets.items())[:1]:
            if preset != default:
                raise ValueError(f"the first preset, {name}, must be the default settings")

    @property
    def name(self) -> str:
        """What the experiment is called."""
        return self.file.stem

    @property
    def is_own(self) -> bool:
        """Whether it is a user's own, written in a file outside of this package."""
        return self.file.parent != commands.PACKAGE

    @property
    def command(self) -> str:
        """What starts it."""
        return f"python {self.file.name}" if self.is_own else commands.called(self.name)

    def recorded(self) -> dict[str, str]:
        """What a run's settings hold of it: its name; of a user's own, its file and digest too."""
        if not self.is_own:
            return {"experiment": self.name}
        return {"experiment": self.name, "experiment_file": str(self.file),
                "experiment_sha256": hashlib.sha256(self.file.read_bytes()).hexdigest()}

    def configure(self, preset: str = "", **changes: Any) -> Config:
        """Returns a configuration: a preset, by default what `preset_by` names, with other settings.

        Raises:
            ValueError: there is no preset, or no setting, of such a name.
        """
        if preset and preset not in self.presets:
            raise ValueError(f"{self.name} has no preset {preset!r}"
                             + (f": {nearest(preset, self.presets)}" if self.presets else ""))
        named = self.presets.get(preset or changes.get(self.preset_by, ""), self.Config())
        return settings.replace(named, **changes)
