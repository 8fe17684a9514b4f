"""Pictures of samples of any shape, of boxes, of the critic's level sets, and curves over the steps."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan import files
from jaxgan.extras import needs

_PNG_BYTES, _PIXELS = 2**26, 2**26  # of a picture of samples; a larger one is not read
_COLUMNS = 4  # of panels, at most
_MARKED = 20  # points of a line, no more than which are marked
_FLOOR = {"linestyle": "--", "linewidth": 1}
_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2, "frameon": False,
          "fontsize": "small", "handlelength": 1.2, "columnspacing": 1}  # where the legend of a panel is
# The panels of what training logs, in their order: what is found in the names of their numbers, and what
# they are called.
_KINDS = {"/loss$": "losses", "wasserstein|overfitting": "Wasserstein estimates",
          "/gradient_norm": "norms of the parameters' gradients",
          "input_gradient": "the critic's gradient at its input", "penalty": "penalties",
          "_score$": "the critic's mean scores"}


def grid(images: np.ndarray, columns: int | None = None, *, enlarge: int | None = None) -> np.ndarray:
    """Lays images out in rows, with a border of one pixel between them.

    Args:
        images: uint8 [count, height, width, channels]; one channel is grey, three are RGB, four are RGB
            and opacity, shown on white; of any other number the first is shown.
        columns: images in a row; by default as square as can be.
        enlarge: how many pixels wide a pixel is shown; by default so that an image is at least 32.

    Returns:
        uint8 [grid height, grid width, 3].
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    enlarge = enlarge or max(1, -(-32 // max(height, width)))
    if channels == 4:
        opacity = images[..., 3:] / 255
        images = (images[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
    elif channels != 3:
        images = np.repeat(images[..., :1], 3, axis=-1)
    images = images.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    height, width = height * enlarge + 1, width * enlarge + 1
    sheet = np.full((rows * height + 1, columns * width + 1, 3), 128, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height + 1, index % columns * width + 1
        sheet[top:top + height - 1, left:left + width - 1] = image
    return sheet


def outlined(images: np.ndarray, boxes: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Returns images with a line of one pixel along the inside of a box in each.

    Args:
        images: uint8 [count, height, width, 1 or 3].
        boxes: corners (top, left, bottom, right), [count, 4], as fractions of height and width; what
            lies outside of the image is drawn along its edge.
        colour: RGB, 0 to 255.

    Returns:
        uint8 [count, height, width, 3].
    """
    drawn = np.broadcast_to(images, (*images.shape[:3], 3)).copy()
    size = np.array(images.shape[1:3])
    first = np.rint(np.asarray(boxes)[:, :2] * size).clip(0, size - 1).astype(int)
    last = np.rint(np.asarray(boxes)[:, 2:] * size - 1).clip(first, size - 1).astype(int)
    for image, (top, left), (bottom, right) in zip(drawn, first, last, strict=True):
        image[[top, bottom], left:right + 1] = colour
        image[top:bottom + 1, [left, right]] = colour
    return drawn


def save_png(path: Path, picture: np.ndarray) -> None:
    """Saves a picture, uint8 [height, width], or [height, width, 3 or 4], whole or not at all."""
    needs("PIL")
    from PIL import Image

    with files.replacing(path) as file:
        Image.fromarray(picture).save(file, format="png")


def load_png(path: Path) -> np.ndarray:
    """Loads a picture that `save_png` has saved.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, or too large.
    """
    needs("PIL")
    from PIL import Image

    data = io.BytesIO(files.read(path, _PNG_BYTES))
    try:
        with (warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
              Image.open(data, formats=("PNG",)) as image):
            if image.width * image.height > _PIXELS:
                raise ValueError(f"it has {image.width} x {image.height} pixels")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it is damaged ({files.reason(error)})") from error


def save_curves(path: Path, rows: list[dict[str, float]], floor: Mapping[str, float] = {}) -> None:
    """Plots all numbers over the steps: losses, scores and such in a panel each, metrics one by one.

    A number called like another one with _std behind is its standard deviation, and shaded.

    Args:
        path: the file; nothing is written if there are no numbers.
        rows: what was logged, a dict with "step" and numbers by name for each log point.
        floor: numbers of held-out reals, which are drawn as dashed lines beside those of that name.
    """
    series = {name: {row["step"]: row[name] for row in rows if name in row}
              for name in dict.fromkeys(name for row in rows for name in row) if name != "step"}
    shown = panels(series)
    if not shown:
        return
    figure, panel_axes = _panels(len(shown))
    for axes, names in zip(panel_axes, shown.values(), strict=True):
        for name in names:
            steps, values = [*series[name]], np.array([*series[name].values()])
            line, = axes.plot(steps, values, label=_verbatim(name), **_style(len(steps)))
            if f"{name}_std" in series:
                spreads = np.array([series[f"{name}_std"].get(step, 0) for step in steps])
                axes.fill_between(steps, values - spreads, values + spreads, alpha=0.2)
            if name in floor:
                axes.axhline(floor[name], color=line.get_color(), **_FLOOR)
        if floor.keys() & {*names}:
            axes.plot([], [], color="grey", label="held-out reals", **_FLOOR)
        axes.set(xlabel="step", xlim=(0, 1.03 * rows[-1]["step"] or 1))
        axes.legend(**_ABOVE)
    with files.replacing(path) as file:
        figure.savefig(file, dpi=100, format="png")


def save_bands(path: Path, groups: dict[str, list[dict[str, list[tuple[int, float]]]]],
               titles: dict[str, str], floor: Mapping[str, float] = {}) -> None:
    """Plots metrics over the steps, one panel each: per group of runs the mean and standard deviation.

    Args:
        path: the file.
        groups: by label, for each run the points (step, value) of each metric.
        titles: the metrics that have a panel, and what they are called.
        floor: numbers of held-out reals, which are drawn as dashed lines beside those of that name.
    """
    shown = [name for name in titles if any(run[name] for runs in groups.values() for run in runs)]
    figure, panel_axes = _panels(len(shown))
    lines = {}
    for axes, name in zip(panel_axes, shown, strict=True):
        for label, runs in groups.items():
            values: dict[int, list[float]] = {}
            for step, value in (point for run in runs for point in run[name]):
                values.setdefault(step, []).append(value)
            steps = sorted(values)
            means, spreads = (np.array([of(values[step]) for step in steps]) for of in (np.mean, np.std))
            lines[_verbatim(label)], = axes.plot(steps, means, **_style(len(steps)))
            axes.fill_between(steps, means - spreads, means + spreads, alpha=0.2)
        if name in floor:
            lines["held-out reals"] = axes.axhline(floor[name], color="grey", **_FLOOR)
        axes.set(xlabel="step", title=_verbatim(titles[name]))
    figure.legend([*lines.values()], [*lines], loc="outside lower center", fontsize="small")
    with files.replacing(path) as file:
        figure.savefig(file, dpi=100, format="png")


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns the names of numbers by what the panel is called that shows them, in the panels' order.

    A number called like another one with _std behind is its standard deviation, and is shown with it.
    """
    known, found = dict.fromkeys(names), {}
    for name in sorted(known, key=lambda name: _panel(name)[0]):
        if not (name.endswith("_std") and name.removesuffix("_std") in known):
            found.setdefault(_panel(name)[1], []).append(name)
    return found


def _panel(name: str) -> tuple[int, str]:
    """The place and the name of the panel that shows a number."""
    for place, (kind, title) in enumerate(_KINDS.items()):
        if re.search(kind, name):
            return place, title
    network = name.rpartition("/")[0]
    if network in ("critic", "generator"):
        return len(_KINDS), f"{network}, other"
    return len(_KINDS) + 1, re.sub(r"_(std|\d+)$", "", name)  # a metric's sizes, or classes


def _panels(count: int) -> tuple[Any, np.ndarray]:
    """A figure with so many panels in rows, and their axes."""
    needs("matplotlib")
    import matplotlib.figure

    rows = math.ceil(count / _COLUMNS)
    columns = math.ceil(count / rows)
    figure = matplotlib.figure.Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def _style(points: int) -> dict[str, Any]:
    """How a line of so many points is drawn: few of them are marked, so that a single one is seen."""
    return {"linewidth": 1, "marker": "o" if points <= _MARKED else None, "markersize": 4}


def _verbatim(text: str) -> str:
    """Text for matplotlib, which would read formulas between dollars."""
    return text.replace("$", r"\$")


def plane(real: np.ndarray, fake: np.ndarray, scores: np.ndarray | None,
          view: tuple[float, float]) -> np.ndarray:
    """Draws samples in the plane over the critic's level sets, as in figure 1 of WGAN-GP.

    Args:
        real: [count, 2].
        fake: [count, 2].
        scores: the critic's, [n, n], on an even grid over the view; rows are the second coordinate.
            None if there is none.
        view: the lowest and highest coordinate shown.

    Returns:
        uint8 [height, width, 3].
    """
    figure, canvas = _figure((5, 5))
    axes = figure.subplots()
    if scores is not None:
        ticks = np.linspace(*view, len(scores))
        axes.contourf(ticks, ticks, scores, levels=20, cmap="Greys_r", alpha=0.6)
        axes.contour(ticks, ticks, scores, levels=20, colors="black", linewidths=0.3)
    axes.plot(*real.T, "+", color="tab:orange", markersize=4, label="real")
    axes.plot(*fake.T, "*", color="tab:green", markersize=3, label="fake")
    axes.set(xlim=view, ylim=view, aspect="equal")
    axes.legend(loc="upper right", fontsize="small")
    return _drawn(canvas)


def slices(volumes: np.ndarray, columns: int = 8, rows: int = 12) -> np.ndarray:
    """Draws volumes, one a row, as slices from their front to their back.

    Args:
        volumes: uint8 [count, depth, height, width, channels].
        columns: slices of a volume, at most.
        rows: volumes, at most.

    Returns:
        uint8 [picture height, width, 3].
    """
    depth = volumes.shape[1]
    shown = np.unique(np.linspace(0, depth - 1, columns).round().astype(int))
    return grid(volumes[:rows, shown].reshape(-1, *volumes.shape[2:]), len(shown))


def series(samples: np.ndarray, columns: int = 4, rows: int = 4) -> np.ndarray:
    """Draws series, each in a panel of its own, a line for each channel; all panels have the same axes.

    Args:
        samples: [count, length, channels].
        columns: panels beside each other.
        rows: panels below each other, at most.

    Returns:
        uint8 [picture height, width, 3].
    """
    samples = samples[:rows * columns]
    figure, canvas = _figure((9, 1.5 * -(-len(samples) // columns) + 0.4))
    panels = figure.subplots(-(-len(samples) // columns), columns, squeeze=False, sharex=True,
                             sharey=True)
    for axes, sample in zip(panels.flat, samples, strict=False):
        axes.plot(sample, linewidth=0.8)
        axes.tick_params(labelsize="x-small")
    for axes in panels.flat[len(samples):]:
        axes.set_axis_off()
    return _drawn(canvas)


def pairs(real: np.ndarray | None, fake: np.ndarray, variables: int = 4) -> np.ndarray:
    """Draws vectors: each of the first variables against each other one, and its histogram.

    Where there are more of them, a line says so.
    The first and the last column of a histogram count what is beyond the reals, too.

    Args:
        real: [count, dimensions]; None to draw the others alone.
        fake: likewise.
        variables: how many of the dimensions, at most.

    Returns:
        uint8 [picture height, width, 3].
    """
    count = min(variables, fake.shape[1])
    sets = [(fake, "samples" if real is None else "fake", "tab:green", ".")]
    if real is not None:
        sets.insert(0, (real, "real", "tab:orange", "+"))
    figure, canvas = _figure((2.2 * count + 0.5, 2.2 * count + 0.5))
    for (row, column), axes in np.ndenumerate(figure.subplots(count, count, squeeze=False)):
        for samples, label, colour, mark in sets:
            if row == column:
                bins = np.histogram_bin_edges(sets[0][0][:, row].astype(np.float64), 30)
                axes.hist(samples[:, row].clip(bins[0], bins[-1]), bins, density=True, histtype="step",
                          color=colour, label=label)
            else:
                axes.plot(samples[:, column], samples[:, row], mark, color=colour, markersize=2,
                          label=label)
        axes.tick_params(labelsize="x-small")
        if row == count - 1:
            axes.set_xlabel(f"variable {column}", fontsize="small")
        if column == 0:
            axes.set_ylabel(f"variable {row}" if row else "density", fontsize="small")
    if count < fake.shape[1]:
        figure.supxlabel(f"the first {count} of {fake.shape[1]} variables", fontsize="small")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2,
                  fontsize="small", markerscale=3)
    return _drawn(canvas)


def _figure(inches: tuple[float, float]) -> tuple:
    needs("matplotlib")
    import matplotlib.figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = matplotlib.figure.Figure(figsize=inches, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _drawn(canvas) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
