"""Pictures of samples of any shape, of boxes, of the critic's level sets, and curves over the steps."""

import io
import math
import warnings
from pathlib import Path

import numpy as np

from jaxgan import files

_PNG_BYTES, _PIXELS = 2**26, 2**26  # of a picture of samples; a larger one is not read


def grid(images: np.ndarray, columns: int | None = None, *, enlarge: int | None = None) -> np.ndarray:
    """Lays images out in rows, with a border of one pixel between them.

    Args:
        images: uint8 [count, height, width, channels]; one channel is grey, three are RGB, of any
            other number the first is shown.
        columns: images in a row; by default as square as can be.
        enlarge: how many pixels wide a pixel is shown; by default so that an image is at least 32.

    Returns:
        uint8 [grid height, grid width, 3].
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    enlarge = enlarge or max(1, -(-32 // max(height, width)))
    images = images if channels == 3 else np.repeat(images[..., :1], 3, axis=-1)
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
    """Saves a picture, uint8 [height, width, 3], whole or not at all."""
    from PIL import Image

    with files.replacing(path) as file:
        Image.fromarray(picture).save(file, format="png")


def load_png(path: Path) -> np.ndarray:
    """Loads a picture that `save_png` has saved.

    Raises:
        OSError: it can't be read.
        ValueError: it is damaged, or too large.
    """
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


def save_curves(path: Path, rows: list[dict[str, float]]) -> None:
    """Plots every metric over the steps, losses and scores of one kind in one panel."""
    import matplotlib.figure

    panels: dict[str, list[str]] = {}
    for name in sorted({name for row in rows for name in row} - {"step"}):
        kind = next((kind for kind in ("gradient", "score", "wasserstein", "penalty", "loss")
                     if kind in name), "other")
        panels.setdefault(kind, []).append(name)
    if not panels:
        return
    figure = matplotlib.figure.Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.values(),
                           strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), label=_verbatim(name), linewidth=1)
        axes.set_xlabel("step")
        axes.legend(fontsize="small")
    with files.replacing(path) as file:
        figure.savefig(file, dpi=100, format="png")


def save_bands(path: Path, groups: dict[str, list[dict[str, list[tuple[int, float]]]]],
               titles: dict[str, str]) -> None:
    """Plots metrics over the steps, one panel each: per group of runs the mean and standard deviation.

    Args:
        path: the file.
        groups: by label, for each run the points (step, value) of each metric.
        titles: the metrics that have a panel, and what they are called.
    """
    import matplotlib.figure

    shown = [name for name in titles if any(run[name] for runs in groups.values() for run in runs)]
    figure = matplotlib.figure.Figure(figsize=(5 * len(shown), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for label, runs in groups.items():
            values: dict[int, list[float]] = {}
            for step, value in (point for run in runs for point in run[name]):
                values.setdefault(step, []).append(value)
            steps = sorted(values)
            means, spreads = (np.array([of(values[step]) for step in steps]) for of in (np.mean, np.std))
            axes.plot(steps, means, label=_verbatim(label), linewidth=1)
            axes.fill_between(steps, means - spreads, means + spreads, alpha=0.2)
        axes.set(xlabel="step", title=_verbatim(titles[name]))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize="small")
    with files.replacing(path) as file:
        figure.savefig(file, dpi=100, format="png")


def _verbatim(text: str) -> str:
    """Text for matplotlib, which would read formulas between dollars."""
    return text.replace("$", r"\$")


def plane(real: np.ndarray, fake: np.ndarray, scores: np.ndarray,
          view: tuple[float, float]) -> np.ndarray:
    """Draws samples in the plane over the critic's level sets, as in figure 1 of WGAN-GP.

    Args:
        real: [count, 2].
        fake: [count, 2].
        scores: the critic's, [n, n], on an even grid over the view; rows are the second coordinate.
        view: the lowest and highest coordinate shown.

    Returns:
        uint8 [height, width, 3].
    """
    figure, canvas = _figure((5, 5))
    axes = figure.subplots()
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


def pairs(real: np.ndarray, fake: np.ndarray, variables: int = 4) -> np.ndarray:
    """Draws vectors: each of the first variables against each other one, and its histogram.

    The first and the last column of a histogram count what is beyond the reals, too.

    Args:
        real: [count, dimensions].
        fake: likewise.
        variables: how many of the dimensions, at most.

    Returns:
        uint8 [picture height, width, 3].
    """
    count = min(variables, real.shape[1])
    figure, canvas = _figure((2.2 * count + 0.5, 2.2 * count + 0.5))
    for (row, column), axes in np.ndenumerate(figure.subplots(count, count, squeeze=False)):
        for samples, label, colour, mark in ((real, "real", "tab:orange", "+"),
                                             (fake, "fake", "tab:green", ".")):
            if row == column:
                bins = np.histogram_bin_edges(real[:, row], 30)
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
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2,
                  fontsize="small", markerscale=3)
    return _drawn(canvas)


def _figure(inches: tuple[float, float]) -> tuple:
    import matplotlib.figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = matplotlib.figure.Figure(figsize=inches, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def _drawn(canvas) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
