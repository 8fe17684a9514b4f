"""The page of runs: what their folders hold, as one HTML file that needs nothing else.

Facts are gathered by pure functions, `pages/report.html` says where they stand, and `write` renders. All
that comes from a run's folder is escaped, by Jinja2 and, in JSON, by its filter `tojson`; and the page
forbids every script but its own two, and every address.
"""

import base64
import hashlib
import re
import shlex
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxgan import __version__, evaluation, files
from jaxgan.extras import MissingExtra, needs
from jaxgan.outlook import duration
from jaxgan.pictures import load_png, panels, save_bands, save_curves
from jaxgan.runs import changes_of, read_config, read_evaluations, read_logs, read_result

from . import comparing, figures, measuring, opening, settings
from .commands import called
from .flags import Config
from .measuring import Reference

PAGES = Path(__file__).with_name("pages")
_EVALUATIONS, _SIDE = 5, 8  # evaluations that are shown; runs whose samples stand side by side
_LETTERS = 2000  # of a setting


class Facts(NamedTuple):
    """What a run's folder says.

    Attributes:
        folder: as it was named.
        config: what `config.json` holds.
        settings: the settings in it.
        result: what `result.json` holds; None if the run isn't finished.
        rows: what was logged.
        evaluations: what `evaluation.json` holds, the newest last.
    """

    folder: str
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    result: Mapping[str, Any] | None
    rows: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]


class Evaluated(NamedTuple):
    """An evaluation to be shown: its step, its table or its lines, and by what it was measured."""

    step: int
    rows: list[tuple[str, ...]]
    lines: list[str]
    described: str
    protocol: Mapping[str, Any]


def read(folder: str | Path) -> Facts:
    """Reads a run's folder; RunError if it is none, or a file in it is damaged."""
    config = read_config(folder)
    changes_of(config, f"{folder}/config.json")
    return Facts(str(folder), config, config["settings"], read_result(folder), read_logs(folder)[0],
                 read_evaluations(folder))


def headline(facts: Facts) -> str:
    """What was trained, and how far, in two sentences."""
    values, result = facts.settings, facts.result
    named = ("folder", "file", "text_file", "dataset")
    data = next((f" on {values[name]}" for name in named if values.get(name)), "")
    reached = max((row["step"] for row in facts.rows), default=None)
    done = (f"It ran to its end, step {result['steps']}." if result else
            f"It hasn't ended: step {reached} of {values.get('steps')} is the last one that was logged."
            if reached is not None else "It hasn't logged anything yet.")
    parts = [f"{name} {values[name]}" for name in ("model", "loss", "penalty") if values.get(name)]
    return (f"The experiment {values.get('experiment')}{data}" + f" ({', '.join(parts)})" * bool(parts)
            + f", seed {values.get('seed')}, in batches of {values.get('batch_size')} samples of shape "
            f"{_shape(values.get('sample_shape'))}. {done}")


def _shape(shape: Any) -> str:
    """A shape as 8 x 8 x 1, or whatever is there in its place."""
    return " x ".join(map(str, shape)) if isinstance(shape, list) else str(shape)


def chosen(facts: Facts, defaults: Config | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that differ from the defaults, and all others, by name.

    Without `defaults` these are those of this package's experiment, or, of a user's own, those that all
    experiments have in common.
    """
    default = settings.flat(defaults or comparing.config_of(facts.settings))
    differing = {name: value for name, value in facts.settings.items()
                 if name in default and name not in ("run_dir", "resume") and value != default[name]}
    return differing, {name: value for name, value in facts.settings.items() if name not in differing}


def changes(facts: Facts) -> list[str]:
    """What became another setting while the run went on, a line each."""
    return [f"from step {entry['step']} on: {name} {after!r} in place of {before!r}"
            for entry in changes_of(facts.config, facts.folder)
            for name, (before, after) in entry["changed"].items()]


def evaluated(facts: Facts, reference: Reference | None) -> list[Evaluated]:
    """The last evaluations, the newest first; the reference's own numbers have titles if it is given."""
    def number_of(name: str) -> evaluation.Number:
        found = (measuring.find(reference, name) if reference else
                 evaluation.find(name, evaluation.METRICS.values()))
        return found or evaluation.Number(name, name, None)

    shown = []
    for found in facts.evaluations[:-_EVALUATIONS - 1:-1]:
        protocol, described = found["protocol"], ""
        if protocol:
            try:
                evaluation.protocol_from_json(protocol)
                described = measuring.described(found)
            except ValueError:
                found = found | {"floor_count": 0}
                described = "measured by a protocol that this version doesn't know"
        judge = reference.judge if reference and not protocol else None
        lines = judge.table({name: values["value"] for name, values in found["metrics"].items()}
                            ) if judge and judge.table else []
        shown.append(Evaluated(found["step"], [] if lines else measuring.rows(found, number_of), lines,
                               described, protocol))
    return shown


def diagnostics(facts: Facts) -> list[tuple[str, str, str]]:
    """What was logged of the networks: name, last value, and how to read it.

    `pages/readings.json` says that, by what is found in a name; the first that is counts.
    """
    known = files.read_json(PAGES / "readings.json", 2**20)
    sentences = {name: next((known[found] for found in known if re.search(found, name)), None)
                 for group in panels(_logged([facts])).values() for name in group}
    last = {name: value for row in facts.rows for name, value in row.items()}
    return [(name, f"{last[name]:.5g}", sentence) for name, sentence in sentences.items() if sentence]


def _logged(runs: Iterable[Facts]) -> Iterator[str]:
    """The names of all that runs have logged."""
    return (name for facts in runs for row in facts.rows for name in row if name != "step")


def cost(facts: Facts) -> list[tuple[str, str]]:
    """What it took: the devices, the versions and the time, by what they are."""
    config, result = facts.config, facts.result or {}

    def said(name: str, form: str, factor: float = 1.0) -> str:
        value = result.get(name)
        return form.format(value * factor) if type(value) in (int, float) else ""

    seconds = result.get("duration_seconds")
    found = {
        "devices": config.get("devices"), "processes": config.get("processes"),
        "processor": config.get("processor"), "cores": config.get("cores"),
        "time": seconds and duration(seconds), "steps a second": said("iterations_per_second", "{:.4g}"),
        "first step, with compilation": said("first_step_seconds", "{:.3g} seconds"),
        "device memory, at most": said("peak_device_bytes", "{:.0f} MiB", 2**-20),
        "versions": config.get("versions")}
    return [(name, _plain(value)) for name, value in found.items() if value not in (None, "")]


def _plain(value: Any) -> str:
    """A JSON value to be read."""
    text = (", ".join(f"{name} {inner}" for name, inner in value.items()) if isinstance(value, dict) else
            ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} ..."


def origin(facts: Facts) -> dict[str, str]:
    """What it takes to train it again: commands and digests, by what they are."""
    command, file = facts.config.get("command"), facts.settings.get("experiment_file")
    own = ["--experiment", file] if isinstance(file, str) else []
    found = {
        "the command that trained it":
            shlex.join(map(str, command)) if isinstance(command, list) else "",
        "to train it again and compare every bit":
            f"{called('reproduce')} {shlex.join([facts.folder, *own])}",
        "data, SHA-256": facts.settings.get("data_sha256"),
        "the experiment's file, SHA-256": facts.settings.get("experiment_sha256"),
        "parameters, SHA-256": facts.result and facts.result["params_sha256"]}
    return {name: str(text) for name, text in found.items() if text}


def _opened(folder: str, experiment: str) -> tuple[Config | None, Reference | None]:
    """A run's defaults, and what it is measured against; None if this version can't open the run."""
    try:
        run = opening.open_run(folder, None, experiment=experiment)
    except ValueError:
        return None, None
    return run.experiment.Config(), run.reference


def _floor(facts: Facts) -> dict[str, float]:
    """The numbers of held-out reals in a run's last evaluation."""
    metrics = facts.evaluations[-1]["metrics"] if facts.evaluations else {}
    return {name: values["floor"] for name, values in metrics.items() if values.get("floor") is not None}


def _still(runs: Mapping[str, Facts], floor: Mapping[str, float]) -> figures.Picture | None:
    """The curves as a picture, for readers without scripts; that of the run's folder if there is one."""
    (_, first), *others = runs.items()
    titles = {name: name for group in panels(_logged(runs.values())).values() for name in group}
    if not titles:
        return None
    path = Path(first.folder) / "curves.png"
    try:
        with tempfile.TemporaryDirectory() as temporary:
            if others or not path.is_file():
                path = Path(temporary) / "curves.png"
            if others:
                save_bands(path, {name: [{title: [(row["step"], row[title]) for row in facts.rows
                                                  if title in row] for title in titles}]
                                  for name, facts in runs.items()}, titles, floor)
            elif not path.exists():
                save_curves(path, first.rows, floor)
            return figures.picture(load_png(path))
    except (ValueError, OSError):  # it is damaged, or would be too large
        return None


def _of_one(facts: Facts, defaults: Config | None, reference: Reference | None,
            neighbours: figures.Neighbours | str) -> dict[str, Any]:
    """What a page of one run shows besides."""
    differing, others = chosen(facts, defaults)
    is_unknown = defaults is None and "experiment_file" in facts.settings
    leaves = facts.result["leaves_sha256"] if facts.result else {}
    return {"of": "all experiments" if is_unknown else facts.settings.get("experiment"),
            "differing": differing, "others": others, "changes": changes(facts), "leaves": leaves,
            "history": figures.history(facts.folder), "evaluations": evaluated(facts, reference),
            "diagnostics": diagnostics(facts), "cost": cost(facts), "origin": origin(facts),
            "neighbours": neighbours}


def _of_several(runs: Mapping[str, Facts]) -> dict[str, Any]:
    """What a page of several runs shows besides: their table and their last samples."""
    heads, rows, compared = [], [], ""
    try:
        compared = comparing.compared([facts.folder for facts in runs.values()], logged=True)
        heads, rows = columns(compared)
    except ValueError as error:
        compared = str(error)
    return {"compared": compared, "heads": heads, "rows": rows,
            "last": {name: figures.history(facts.folder, 1) for name, facts in [*runs.items()][:_SIDE]},
            "chosen": {name: chosen(facts)[0] for name, facts in runs.items()}}


def columns(compared: comparing.Compared) -> tuple[list[str], list[tuple[str, ...]]]:
    """What the columns of runs beside each other are, a line each, and the table, named after the runs.

    A column is called by its run's folder; of runs that differ in their seeds alone, by what they are.
    """
    heads, names = [], []
    for label, members in compared.groups.items():
        name, what = ", ".join(run["folder"] for run in members), label
        if len(members) > 1:
            name, what = f"{label}, {len(members)} seeds", name
        names.append(name)
        heads.append(f"{name}: {what}, step {members[0]['step']}")
    first, *others = compared.rows
    return heads, [("", *names, *first[1 + len(names):]), *others]


def render(runs: Mapping[str, Facts], defaults: Config | None = None, reference: Reference | None = None,
           neighbours: figures.Neighbours | str = "") -> str:
    """Returns the page of runs as HTML.

    Args:
        runs: what their folders say, by what they are called; one or several.
        defaults: of one run: its experiment's; None as of `chosen`.
        reference: of one run: what it is measured against, and thus what its numbers are called.
        neighbours: of one run: training images that are like its samples, or why they aren't there.
    """
    import jinja2
    from bokeh.resources import Resources

    facts, *others = runs.values()
    floor = _floor(facts)
    curves, notes = figures.curves({name: facts.rows for name, facts in runs.items()}, floor)
    bokeh, texts = Resources("inline"), {
        name: files.read(PAGES / f"report.{name}", 2**20).decode() for name in ("js", "css")}
    bokeh.components = ["bokeh"]
    scripts = ["\n".join(bokeh.js_raw) if curves else "", texts["js"]]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    shown = _of_several(runs) if others else _of_one(facts, defaults, reference, neighbours)
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True)
    templates.policies["json.dumps_kwargs"] = {}  # Bokeh's order is to be kept
    return templates.get_template("report.html").render(
        shown, runs=runs, facts=facts, headlines={name: headline(facts) for name, facts in runs.items()},
        panels=curves, notes=notes, still=_still(runs, floor), scripts=scripts, hashes=hashes,
        style=texts["css"], version=__version__, called=called, plain=_plain, is_several=bool(others))


def write(folders: Sequence[str | Path], out: Path, *, experiment: str = "", data_dir: str = "",
          neighbours: bool = True, reference: Reference | None = None) -> None:
    """Writes the page of runs.

    Args:
        folders: the runs'.
        out: the file.
        experiment: of runs of a user's own experiment: its file.
        data_dir: where the data are, if not where they were.
        neighbours: whether to look for the training images that are nearest to samples of a single run,
            for which its data and its last checkpoint are opened.
        reference: what a single run is measured against; None to open the run for it.

    Raises:
        MissingExtra: Bokeh or Jinja2 isn't installed.
        RunError: a folder isn't a run's, or a file in it is damaged.
        OSError: the file can't be written.
    """
    needs("bokeh", "jinja2")
    runs = {str(folder): read(folder) for folder in folders}
    beside: figures.Neighbours | str = ""
    defaults = None
    if len(runs) == 1:
        folder, = runs
        if reference is None:
            defaults, reference = _opened(folder, experiment)
        if neighbours:
            beside = figures.nearest(folder, experiment=experiment, data_dir=data_dir)
    text = render(runs, defaults, reference, beside)
    files.write(out, text.encode(errors="replace").decode())  # JSON may hold what UTF-8 can't


def write_beside(folder: str | Path, reference: Reference) -> None:
    """Writes the page of a run that has just ended into its folder, without nearest training images.

    What keeps the page from being made is no harm to the run: it is warned of, but for a missing extra.

    Args:
        folder: the run's.
        reference: what it is measured against.
    """
    out = Path(folder) / "report.html"
    try:
        write([folder], out, neighbours=False, reference=reference)
    except MissingExtra:
        return
    except (ValueError, OSError) as error:
        warnings.warn(f"{out} isn't written ({files.reason(error)})", UserWarning, stacklevel=2)
