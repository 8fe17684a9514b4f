"""What a report shows of runs: curves, the samples' history, training images that are like samples."""

import base64
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import console, evaluation, files
from jaxgan.extras import MissingExtra
from jaxgan.metrics import pairs
from jaxgan.pictures import grid, load_png, panels
from jaxgan.runs import read_evaluations, saved_samples

from . import measuring
from .opening import open_run

_LARGE, _WIDEST = 2**18, 960  # bytes of a picture; of a larger one, pixels that are left
_FRAMES, _HISTORY_BYTES = 60, 2**21  # of the samples' history, at most
_TEXT_BYTES, _LETTERS = 2**22, 5000  # of samples of text: that are read, and shown of a step
_POINTS, _CURVE_POINTS = 20_000, 1000  # of all curves together, and of one
_PANELS, _LINES, _MARKED = 40, 12, 20  # panels; lines in one; points of a line that are marked
_OTHERS = "evaluations and other numbers"  # the group of panels of what the networks didn't log
_GREY = "#808080"  # of axes and text: it is seen on white and on black
_HEIGHT, _SIDE = 150, 64  # pixels of a panel's axes; of training images, at least
_LOOKED_AT, _SHOWN, _NEIGHBOURS = 100, 8, 5  # samples; of these, those shown; training images of each
# What may go wrong with data and checkpoints, and is said in a sentence.
_ERRORS = (ValueError, TypeError, OSError, MemoryError, MissingExtra, jax.errors.JaxRuntimeError)

Rows = Sequence[Mapping[str, Any]]


class Picture(NamedTuple):
    """A picture as a page holds it: its address, which is all of it, its size, and whether it shrank."""

    src: str
    width: int
    height: int
    is_shrunk: bool


class Frame(NamedTuple):
    """Samples of a step, or reals: a picture or a text."""

    step: int
    picture: Picture | None
    text: str


class History(NamedTuple):
    """The samples of a run.

    Attributes:
        frames: by their steps.
        total: how many there are in the run's folder.
        real: reals; None if there are none.
        notes: sentences about what isn't shown as it is.
    """

    frames: list[Frame]
    total: int
    real: Frame | None
    notes: list[str]


class Panel(NamedTuple):
    """Curves in one figure.

    Attributes:
        title: what it is called.
        item: Bokeh's JSON of it, with the place it belongs to.
        group: of several runs, what it and its neighbours are called; else "".
    """

    title: str
    item: dict[str, Any]
    group: str = ""


class Neighbours(NamedTuple):
    """Samples, and beside each the training images that are nearest to it.

    Attributes:
        samples: a picture of the samples, one below the other.
        training: of the training images, a row for each sample, the nearest first.
        said: what these are, in a sentence.
    """

    samples: Picture
    training: Picture
    said: str


def picture(pixels: np.ndarray, stored: int = 0) -> Picture:
    """Returns a picture for a page; a large one is made smaller.

    Args:
        pixels: uint8 [height, width, 3].
        stored: the bytes of its file, if it is in one.
    """
    from PIL import Image

    image, data = Image.fromarray(pixels), io.BytesIO()
    if stored <= _LARGE:
        image.save(data, "png")
    kind, is_shrunk = "png", max(stored, data.tell()) > _LARGE
    if is_shrunk:
        image.thumbnail((_WIDEST, 2 * _WIDEST))
        kind, data = "jpeg", io.BytesIO()
        image.save(data, kind, quality=85)
    return Picture(f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}", *image.size,
                   is_shrunk)


def history(folder: str | Path, frames: int = _FRAMES) -> History:
    """Returns a run's samples, evenly thinned to so many frames and to a number of bytes.

    The last ones are always among them.
    """
    place, paths, read, notes = Path(folder) / "samples", saved_samples(folder), {}, {}
    steps = sorted(paths)

    def shown(count: int) -> tuple[list[Frame], int]:
        """So many of the frames, without those that can't be read, and their bytes."""
        chosen = [steps[-1 - back] for back in _evenly(len(steps), count)[::-1]]
        for step in chosen:
            if step not in read:
                read[step] = _frame(paths[step], step, notes)
        found = [frame for frame in map(read.get, chosen) if frame]
        return found, sum(len(frame.picture.src if frame.picture else frame.text) for frame in found)

    found, size = shown(1)
    count = min(frames, len(steps), _HISTORY_BYTES // max(1, size))
    while count > 1:
        found, size = shown(count)
        if size <= _HISTORY_BYTES:
            break
        count = min(count - 1, count * _HISTORY_BYTES // size)
    reals = [path for path in (place / "real.png", place / "real.txt") if path.exists()]
    real = _frame(reals[0], 0, notes) if reals else None
    if any(frame and frame.picture and frame.picture.is_shrunk for frame in (*found, real)):
        notes["shrunk"] = f"The pictures are smaller than those in {place}."
    return History(found, len(steps), real, [*notes.values()])


def _evenly(total: int, count: int) -> list[int]:
    """So many of the numbers below a total, 0 first, as evenly spread as can be."""
    return sorted({round(place) for place in np.linspace(0, total - 1, count)}) if total else []


def _frame(path: Path, step: int, notes: dict[str, str]) -> Frame | None:
    """Samples in a file; None, and a note, if they can't be read."""
    try:
        if path.suffix == ".png":
            return Frame(step, picture(load_png(path), path.stat().st_size), "")
        text = files.read(path, _TEXT_BYTES).decode(errors="replace")
    except (OSError, ValueError) as error:
        notes[path.name] = f"{path} is left out: it can't be read ({files.reason(error)})."
        return None
    lines = "\n".join(map(console.printable, text.splitlines()))
    return Frame(step, None, lines if len(lines) <= _LETTERS else f"{lines[:_LETTERS]} ...")


class _Line(NamedTuple):
    """A curve: the number of its colour, its name, its points (step, value, deviation), its floor."""

    colour: int
    name: str
    points: list[tuple[int, float, float]]
    floor: float | None


def curves(runs: Mapping[str, Rows], floor: Mapping[str, float]) -> tuple[list[Panel], list[str]]:
    """Returns panels of curves, and sentences about what they leave out.

    Those of one run are grouped as in its `curves.png`; of several each number has a panel in such a
    group, and each run a line in it.

    Args:
        runs: what was logged, by the runs' names.
        floor: numbers of held-out reals, which are dashed lines.
    """
    total, runs, notes = len(runs), dict([*runs.items()][:_LINES]), []
    if total > _LINES:
        notes.append(f"The curves are those of the first {_LINES} of {total} runs.")
    names = [name for rows in runs.values() for row in rows for name in row if name != "step"]
    grouped, group_of = panels(names), {}
    if len(runs) > 1:
        group_of = {name: _OTHERS if group[0].startswith(title) else title  # for a metric is no kind
                    for title, group in grouped.items() for name in group}
        grouped = {name: [name] for name in group_of}
    most = max(50, min(_CURVE_POINTS, _POINTS // max(1, len(runs) * len({*names}))))
    if any(len(rows) > most for rows in runs.values()):
        notes.append(f"Of each curve {most} points at most are shown, evenly spread.")
    found = []
    for title, group in [*grouped.items()][:_PANELS]:
        lines = [_Line(colour, run if len(runs) > 1 else name, _points(rows, name, most),
                       floor.get(name))
                 for colour, (name, (run, rows)) in enumerate(itertools.product(group, runs.items()))]
        lines = [line for line in lines if line.points]
        if len(lines) > _LINES:
            notes.append(f"Of the {len(lines)} curves of {title} the first {_LINES} are shown.")
        found.append(Panel(_capital(title) if len(group) > 1 else group[0],
                           _drawn(lines[:_LINES], f"curves-{len(found)}"),
                           _capital(group_of.get(title, ""))))
    if len(grouped) > _PANELS:
        notes.append(f"Of {len(grouped)} panels the first {_PANELS} are shown.")
    return found, notes


def _capital(title: str) -> str:
    """A title with a capital."""
    return title[:1].upper() + title[1:]


def _points(rows: Rows, name: str, most: int) -> list[tuple[int, float, float]]:
    """The points (step, value, deviation) of a number, thinned."""
    logged = [row for row in rows if name in row]
    return [(row["step"], float(row[name]), float(row.get(f"{name}_std", 0)))
            for row in (logged[place] for place in _evenly(len(logged), min(most, len(logged))))]


def _drawn(lines: Sequence[_Line], place: str) -> dict[str, Any]:
    """A figure of lines as Bokeh's JSON; names are its legend's and its tooltips', shown as they are."""
    from bokeh.embed import json_item
    from bokeh.models import NumeralTickFormatter
    from bokeh.palettes import Category20_20
    from bokeh.plotting import figure

    clear = {f"{part}_fill_alpha": 0 for part in ("background", "border")}
    plot = figure(frame_height=_HEIGHT, sizing_mode="stretch_width", tools="", toolbar_location=None,
                  min_border=4, outline_line_color=None, x_axis_label="step",
                  x_range=(0, 1.03 * max(line.points[-1][0] for line in lines) or 1), **clear)
    colours = [*Category20_20[::2], *Category20_20[1::2]]  # the strong ones first
    for line in lines:
        colour = colours[line.colour % len(colours)]
        steps, values, spreads = (list(column) for column in zip(*line.points, strict=True))
        if any(spreads):
            low, high = (np.array(values) + sign * np.array(spreads) for sign in (-1, 1))
            plot.varea(steps, low.tolist(), high.tolist(), color=colour, alpha=0.2)
        plot.line(steps, values, color=colour, line_width=1.8, legend_label=line.name)
        if len(steps) <= _MARKED:
            plot.scatter(steps, values, color=colour, size=5)
        if line.floor is not None:
            plot.line([0, steps[-1]], [line.floor] * 2, color=colour, line_dash="dashed",
                      legend_label="held-out reals")
    plot.add_tools(_tooltip(plot, lines))
    legend = plot.legend[0]
    legend.visible = len(legend.items) > 1  # else the panel's title says it
    plot.add_layout(legend, "above")
    legend.update(background_fill_alpha=0, border_line_alpha=0, padding=0, margin=0, spacing=0,
                  label_text_color=_GREY, label_text_font_size="12px", label_height=18, glyph_height=18,
                  location="left", click_policy="hide")
    for axis in plot.axis:
        axis.update(axis_label_text_color=_GREY, axis_label_text_font_style="normal",
                    axis_line_color=_GREY, major_label_text_color=_GREY, major_tick_line_color=_GREY,
                    minor_tick_line_color=None)
    plot.xaxis.formatter = NumeralTickFormatter(format="0,0")
    for lines_ in plot.grid:
        lines_.update(grid_line_color=_GREY, grid_line_alpha=0.25)
    return json_item(plot, place)


def _tooltip(plot: Any, lines: Sequence[_Line]) -> Any:
    """One tooltip of all lines at the step below the mouse, where a line that isn't seen is met."""
    from bokeh.models import ColumnDataSource, HoverTool

    told = [{step: f"{value:.5g}" for step, value, _ in line.points} for line in lines]
    steps = sorted(set().union(*told))
    texts = {f"line{place}": [known.get(step, "-") for step in steps]
             for place, known in enumerate(told)}
    height = next((value for line in lines for _, value, _ in line.points if math.isfinite(value)), 0.0)
    unseen = plot.line("step", "height", color=_GREY, alpha=0, source=ColumnDataSource(
        {"step": steps, "height": [height] * len(steps), **texts}))
    return HoverTool(renderers=[unseen], mode="vline", point_policy="follow_mouse", tooltips=[
        ("step", "@step{0,0}"),
        *((line.name, f"@{text}") for line, text in zip(lines, texts, strict=True))])


def nearest(folder: str | Path, *, experiment: str = "", data_dir: str = "") -> Neighbours | str:
    """Returns samples of a run's last checkpoint, and the training images that are nearest to them.

    Distances are those of the metric `copying`: between features, of the network that the run's last
    evaluation used. If something that this needs isn't there, returns the sentence that says so; of
    samples that are no images, "".
    """
    try:
        return _nearest(folder, experiment, data_dir)
    except _ERRORS as error:
        return f"The nearest training images are left out: {files.reason(error)}."


def _nearest(folder: str | Path, experiment: str, data_dir: str) -> Neighbours | str:
    run = open_run(folder, experiment=experiment, data_dir=data_dir)
    reference, settings = run.reference, run.settings
    if len(settings["sample_shape"]) != 3 or not reference.metrics:
        return ""
    known = [found["protocol"] for found in read_evaluations(folder) if found["protocol"]]
    features = str(known[-1].get("features", "")) if known else ""
    protocol = measuring.make_protocol("default", reference, features=features, num_fake=_LOOKED_AT)
    evaluator = measuring.make_evaluator(reference, protocol, "fd", settings)
    samples = measuring.make_sampler(run.game, evaluator.protocol, reference, settings)(run.state)
    count = min(_LOOKED_AT, samples.count or _LOOKED_AT)
    seen = evaluation.SampleSet(count, evaluator.extractor.observe(samples, count, keep=True))
    fakes, training = pairs.centred(seen.pooled, evaluator.real.pooled)
    with jax.enable_x64(True):
        squares = np.asarray(pairs.squared_distances(jnp.asarray(fakes), jnp.asarray(training)))
    shown = squares.min(axis=1).argsort(kind="stable")[:_SHOWN]
    order = squares[shown].argsort(axis=1, kind="stable")[:, :_NEIGHBOURS]
    images = reference.reals("train").take(order.ravel())
    enlarge = -(-_SIDE // max(images.shape[1:3]))
    return Neighbours(
        picture(grid(seen.samples[shown], 1, enlarge=enlarge)),
        picture(grid(images, order.shape[1], enlarge=enlarge)),
        f"Of {count} samples of step {int(run.state.step)} the {len(shown)} that are nearest to a "
        f"training image, the nearest first; to the right of each its {order.shape[1]} nearest training "
        f"images of {evaluator.real.count}, by the features {evaluator.protocol.features}.")
