"""Several runs of one command: one for each seed, and for each combination of settings."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import tyro

from jaxgan import keys

from . import settings
from .flags import Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runs:
    """Several runs, each in a folder of its own in RUN_DIR."""

    seeds: str = ""
    """Train a run for each of these seeds, a list like 0,1,2,3, in RUN_DIR/seed_N."""
    sweep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Train a run for each of a setting's values, like learning_rate=1e-4,3e-4; given again, for each
    combination with another setting's."""
    sequential: bool = False
    """Train them one after the other, as is quicker on a processor and the default there."""
    together: bool = False
    """Train them in one program, as is the default on an accelerator that holds them all."""

    @property
    def are_asked(self) -> bool:
        """Whether there are several runs."""
        return bool(self.seeds or self.sweep or self.sequential or self.together)


class One(NamedTuple):
    """One of several runs.

    Attributes:
        name: of its folder.
        config: its settings.
        numbers: those that may differ within one program.
        others: its other swept settings, words for example; runs that differ in these are apart.
    """

    name: str
    config: Config
    numbers: dict[str, float]
    others: dict[str, Any]


def each(config: Config, runs: Runs) -> list[One]:
    """The runs that a command asks for.

    Raises:
        ValueError: a seed or a setting is amiss, or they don't go together.
    """
    if runs.sequential and runs.together:
        raise ValueError("give --sequential or --together, not both")
    if not runs.seeds and not runs.sweep:
        way = "sequential" if runs.sequential else "together"
        raise ValueError(f"{way} is for several runs: give --seeds 0,1,2,3, say, or --sweep")
    if config.cluster.distributed or config.cluster.coordinator:
        raise ValueError("several runs at once are for one process: leave out --seeds and --sweep, or "
                         "--distributed and --coordinator")
    seeds = _seeds(runs.seeds) if runs.seeds else []
    swept = dict(_swept(config, text) for text in runs.sweep)
    if len(swept) < len(runs.sweep):
        names = [text.partition("=")[0] for text in runs.sweep]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"sweep names {twice} twice: give all its values at once")
    found = []
    for values in itertools.product(*(zip(itertools.repeat(name), texts) for name, texts in swept.items()
                                      )):
        parsed = {name: settings.parsed(config, name, text) for name, text in values}
        numbers = {name: float(value) for name, value in parsed.items()
                   if type(value) is float and name not in settings.names(config.data)}
        others = {name: value for name, value in parsed.items() if name not in numbers}
        for name, value in others.items():
            if type(value) is int and not runs.sequential:
                raise ValueError(f"{name} is a whole number, which decides what is compiled: give "
                                 "--sequential as well, to train the runs one after the other")
        for seed in seeds or [config.schedule.seed]:
            named = [*(f"{name}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text)}" for name, text in values),
                     *[f"seed_{seed}"] * bool(seeds)]
            name = "_".join(named)
            found.append(One(name, settings.replace(
                config, **parsed, seed=seed, run_dir=f"{config.run.run_dir}/{name}"), numbers, others))
    names = [one.name for one in found]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two runs would have the folder {twice}: give each value once")
    return found


def grouped(runs: Sequence[One]) -> list[list[One]]:
    """The runs, those together that may be one program's."""
    groups: dict[str, list[One]] = {}
    for one in runs:
        groups.setdefault(repr(one.others), []).append(one)
    return [*groups.values()]


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise ValueError(f"seeds must be whole numbers with commas between, like 0,1,2,3; got {text!r}"
                         ) from None
    for seed in seeds:
        keys.check_seed(seed)
        if seeds.count(seed) > 1:
            raise ValueError(f"seeds holds {seed} twice, which would be the same run: give each once")
    return seeds


def _swept(config: Config, text: str) -> tuple[str, list[str]]:
    """The setting that --sweep names, and its values as they are written."""
    name, _, values = text.partition("=")
    if not values:
        raise ValueError(f"sweep must be a setting and its values, like learning_rate=1e-4,3e-4; got "
                         f"{text!r}")
    texts = values.split(",")
    for value in texts:
        settings.parsed(config, name, value)
    if name == "seed":
        raise ValueError("sweep is for other settings than the seed: give --seeds")
    if name not in settings.trained(config):
        raise ValueError(f"{name} doesn't decide what is trained, so that there is nothing to compare: "
                         "leave it out of --sweep")
    return name, texts
