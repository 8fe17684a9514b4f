"""The page of `experiments.explore`, by Panel, and its server, for this machine alone."""

import asyncio
import errno
import html
import io
import math
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, PrintfTickFormatter
from bokeh.plotting import figure
from bokeh.settings import settings as bokeh_settings
from panel.io.server import get_server
from PIL import Image
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler

from jaxgan import console, files, keys

from .exploring import ERRORS, Asked, Explorer, Shown

HOST = "127.0.0.1"
_BARS = 30  # of the histogram
_SAMPLES, _REALS = "#2f7d4f", "#e08a1e"
_ALL = -1  # the choice of all classes in turn
_HOW_TO_READ = ("A higher score means that the critic takes a sample more for a real one. Only the "
                "distance between the two groups says something: the more they overlap, the less the "
                "critic can tell them apart.")
_STYLE = """
:host { font-family: system-ui, sans-serif; }
p, h1, h2, pre { margin: 0; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; }
p { line-height: 1.4; overflow-wrap: anywhere; }
.error { background: #fdecea; border-left: 4px solid #b3261e; padding: 8px 12px; }
.quiet { color: #555; }
pre { background: #f3f4f6; border-radius: 6px; padding: 10px 12px; white-space: pre-wrap;
      overflow-wrap: anywhere; font-size: 0.85rem; }
pre + pre { margin-top: 6px; }
.word { display: inline-block; max-width: 100%; }
.lines { columns: 340px; }
.scores { display: grid; gap: 2px 6px; font-size: 0.7rem; font-variant-numeric: tabular-nums; }
"""
_PICTURE = "img { max-width: 100%; height: auto; }"
_PIXELS = "img { image-rendering: pixelated; }"  # of images, whose pixels are to be seen
# Panel's page, in which a telephone shows letters as large as elsewhere.
_TEMPLATE = """{% extends base %}
{% block postamble %}<meta name="viewport" content="width=device-width, initial-scale=1">{% endblock %}
{% block contents %}{{ embed(roots.page) }}{% endblock %}
"""


class Page:
    """One visitor's page: what is chosen on it, and what is shown of that.

    Args:
        explorer: the run.
        first: what is shown at first.
    """

    def __init__(self, explorer: Explorer, first: Asked):
        self.explorer, self._document = explorer, pn.state.curdoc
        self._is_busy = self._is_again = False
        self._make_controls(first)
        is_plotted = len(explorer.run.settings["sample_shape"]) < 3
        self.picture = pn.pane.PNG(None, alt_text="samples", sizing_mode="scale_width", margin=(0, 10),
                                   stylesheets=[_PICTURE, *[_PIXELS] * (not is_plotted)])
        self.lines, self.status, self.error, self.command, self.scores = (_text() for _ in range(5))
        self._to_copy = pn.widgets.TextInput(visible=False)
        self.copy = pn.widgets.Button(label="Copy", width=80)
        self.copy.js_on_click({"text": self._to_copy}, "navigator.clipboard.writeText(text.value)")
        self._bars = {name: ColumnDataSource({"left": [], "right": [], "top": []})
                      for name in ("samples", "reals")}
        self.histogram = pn.pane.Bokeh(self._histogram(), sizing_mode="stretch_width", height=240)
        self.each = pn.Card(self.scores, title="The score of each sample", collapsed=True,
                            sizing_mode="stretch_width", margin=(5, 10))
        try:
            self._show(explorer.draw(first))
        except ERRORS as error:  # a checkpoint that was there is gone, say
            self._refuse(error)

    def _make_controls(self, first: Asked) -> None:
        chosen, most = self.explorer.controls, keys.SEEDS - 1

        def seed(name: str, value: int) -> tuple[pn.widgets.IntInput, pn.widgets.Button]:
            number = pn.widgets.IntInput(label=name, value=value, start=0, end=most, width=170)
            another = pn.widgets.Button(label="Another", width=90, align="end")
            another.on_click(lambda _: setattr(number, "value", ((number.value or 0) + 1) % keys.SEEDS))
            return number, another

        self.seed, self.another = seed("Seed", first.seed)
        self.count = pn.widgets.Select(label="Samples", options=[*chosen.counts], value=first.count)
        self.label = pn.widgets.Select(label="Class", value=_ALL, options={
            "all, in turn": _ALL, **{_unlike(name): number for number, name in
                                     enumerate(chosen.classes)}}, visible=bool(chosen.classes))
        self.checkpoint = pn.widgets.Select(label="Checkpoint", value=first.checkpoint,
                                            options=self._checkpoints(first.checkpoint))
        self.generator = pn.widgets.RadioButtonGroup(
            label="Generator", options={"averaged": True, "as trained": False}, value=True,
            visible=chosen.has_average)
        self.truncation = pn.widgets.FloatSlider(
            label="Truncation (1: none)", start=0.0, end=1.0, step=0.05, value=1.0,
            visible=chosen.has_truncation)
        scaling = chosen.numbers
        self.has_numbers = _choice("Draw for these numbers", visible=scaling is not None)
        self.numbers = [
            pn.widgets.FloatSlider(label=f"Number {place}", start=low, end=high, step=(high - low) / 100,
                                   value=(low + high) / 2, visible=False,
                                   format=PrintfTickFormatter(format="%.6g"))
            for place, (low, high) in enumerate(zip(scaling.low, scaling.high, strict=True), 1)
        ] if scaling is not None else []
        self.joins = _choice("Go to another seed", visible=bool(chosen.between))
        self.other_seed, self.another_end = seed("Other seed", (first.seed + 1) % keys.SEEDS)
        self.share = pn.widgets.FloatSlider(label="Way to the other seed", start=0.0, end=1.0, step=0.02,
                                            value=0.0, visible=False)
        self._end = pn.Row(self.other_seed, self.another_end, visible=False)
        for widget in (self.seed, self.count, self.label, self.checkpoint, self.generator,
                       self.truncation, self.has_numbers, *self.numbers, self.joins, self.other_seed,
                       self.share):
            widget.param.watch(self._changed, "value")

    def _checkpoints(self, first: str) -> list[str]:
        try:
            found = self.explorer.checkpoints()
        except ERRORS:  # which is said where the samples would be
            found = []
        return found if first in found else [first, *found]

    def view(self) -> pn.Template:
        """What is shown."""
        heading = _text(f"<h1>{html.escape(console.printable(self.explorer.run_dir))}</h1>"
                        f"<p class='quiet'>{html.escape(self.explorer.run.experiment.name)}</p>")
        average = _text("<p>Generator</p>", visible=self.generator.visible, margin=(5, 10, 0, 10))
        chosen = pn.Column(
            heading, pn.Row(self.seed, self.another), self.count, self.label, self.checkpoint, average,
            self.generator, self.truncation, self.has_numbers, *self.numbers, self.joins, self._end,
            self.share, width=300, styles={"flex": "0 0 300px"})
        has_scores = self.explorer.controls.has_scores
        seen = pn.Column(self.status, self.error, self.picture, self.lines, min_width=280,
                         sizing_mode="stretch_width", styles={"flex": "3 1 300px", "max-width": "620px"})
        said = pn.Column(
            _text("<h2>The command that draws these samples</h2>"), self.command, self.copy,
            self._to_copy, _text(f"<h2>The critic's scores</h2><p>{_HOW_TO_READ}</p>",
                                 visible=has_scores),
            self.histogram, self.each, min_width=280, sizing_mode="stretch_width",
            styles={"flex": "2 1 300px", "max-width": "620px"})
        page = pn.Template(_TEMPLATE)
        page.add_panel("page", pn.FlexBox(chosen, seen, said, flex_wrap="wrap", gap="16px",
                                          align_items="flex-start", sizing_mode="stretch_width"))
        return page

    def asked(self) -> Asked:
        """What is chosen."""
        chosen = self.explorer.controls
        if None in (self.seed.value, self.other_seed.value):
            raise ValueError(f"a seed is missing: give a whole number from 0 to {keys.SEEDS - 1}")
        return Asked(
            seed=self.seed.value, count=self.count.value,
            label=self.label.value if chosen.classes and self.label.value != _ALL else None,
            numbers=(tuple(float(f"{slider.value:.6g}") for slider in self.numbers)
                     if self.has_numbers.value else None),
            checkpoint=self.checkpoint.value, averaged=self.generator.value,
            truncation=self.truncation.value,
            other_seed=self.other_seed.value if self.joins.value else None, share=self.share.value)

    async def _changed(self, _: Any) -> None:
        """Draws what is chosen; what changes meanwhile is drawn afterwards, once."""
        if self.joins.value and not self._end.visible and self.seed.value == self.other_seed.value:
            self.other_seed.value = ((self.seed.value or 0) + 1) % keys.SEEDS
        self._end.visible = self.share.visible = bool(self.joins.value)
        for slider in self.numbers:
            slider.visible = bool(self.has_numbers.value)
        self._is_again = True
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._is_again:
                self._is_again = False
                self.status.object = "<p class='quiet'>drawing ...</p>"
                try:
                    shown = await asyncio.to_thread(self.explorer.draw, self.asked())
                except ERRORS as error:
                    self._next(partial(self._refuse, error))
                else:
                    self._next(partial(self._show, shown))
        finally:
            self._is_busy = False

    def _next(self, change: Callable[[], None]) -> None:
        """Changes the page where nothing else does at the same time."""
        self._document.add_next_tick_callback(change)

    def _refuse(self, error: BaseException) -> None:
        """Says what is amiss, and shows nothing else."""
        self.error.object = f"<p class='error'>{html.escape(console.printable(str(error)))}</p>"
        self.error.visible, self.status.object = True, "<p class='quiet'>nothing is shown</p>"
        self._to_copy.value = ""
        for pane in (self.picture, self.lines, self.command, self.copy, self.histogram, self.each):
            pane.visible = False

    def _show(self, shown: Shown) -> None:
        has_scores = self.explorer.controls.has_scores
        self.error.object = f"<p>{html.escape(console.printable(shown.note))}</p>"
        self.error.visible = bool(shown.note)
        count = console.counted(len(shown.samples), "sample")
        self.status.object = f"<p class='quiet'>{count} of step {shown.step}</p>"
        if shown.picture is not None:
            self.picture.object = _png(shown.picture)
        self.picture.visible = shown.picture is not None
        if shown.lines is not None:
            self.lines.object = f"<pre class='lines'>{html.escape(chr(10).join(shown.lines))}</pre>"
        self.lines.visible = shown.lines is not None
        self._to_copy.value = "\n".join(shown.commands)
        self.command.object, self.command.visible = _told(shown.commands), True
        self.histogram.visible = has_scores and bool(len(shown.scores) or len(shown.real_scores))
        for name, bars in zip(self._bars, _bars(shown.scores, shown.real_scores), strict=True):
            self._bars[name].data = bars
        axes = shown.samples.ndim - 1
        self.each.visible = axes > 1 and 0 < len(shown.scores) == len(shown.samples)
        self.scores.object = _table(shown.scores, shown.lines, axes) if self.each.visible else ""

    def _histogram(self) -> figure:
        """The scores of samples and of reals, as parts of each group."""
        plot = figure(height=240, sizing_mode="stretch_width", toolbar_location=None, tools="",
                      x_axis_label="score", y_axis_label="percent of each group")
        for (name, source), colour, label in zip(
                self._bars.items(), (_SAMPLES, _REALS), ("samples", "training data"), strict=True):
            plot.quad(left="left", right="right", top="top", bottom=0, source=source, fill_color=colour,
                      fill_alpha=0.45, line_color=colour, legend_label=label, name=name)
        plot.y_range.start = 0
        plot.legend.orientation, plot.legend.border_line_color = "horizontal", None
        plot.add_layout(plot.legend[0], "above")
        return plot


def _text(content: str = "", **options: Any) -> pn.pane.HTML:
    return pn.pane.HTML(content, stylesheets=[_STYLE], sizing_mode="stretch_width",
                        **{"margin": (5, 10)} | options)


def _choice(name: str, *, visible: bool) -> pn.widgets.CheckBoxGroup:
    """A box to tick, whose name can be clicked, too; its value is true then."""
    return pn.widgets.CheckBoxGroup(options=[name], value=[], visible=visible)


def _unlike(name: str) -> str:
    """The name of a class, not to be mistaken for the choice of all of them."""
    return f"{name} (class)" if name == "all, in turn" else name


def _png(picture: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(picture).save(file, format="PNG")
        return file.getvalue()


def _told(commands: tuple[str, ...]) -> str:
    """The commands as the page has them."""
    before = "<p>These two draw both ends of the way:</p>" if len(commands) > 1 else ""
    return before + "".join("<pre>" + " ".join(
        f"<span class='word'>{html.escape(console.printable(word))}</span>" for word in one.split(" "))
        + "</pre>" for one in commands)


def _bars(samples: np.ndarray, reals: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The bars of two histograms with the same edges, in percent; what isn't finite is left out."""
    groups = [np.asarray(scores, np.float64) for scores in (samples, reals)]
    groups = [scores[np.isfinite(scores)] for scores in groups]
    edges = np.histogram_bin_edges(np.concatenate(groups), _BARS)
    return [{"left": edges[:-1], "right": edges[1:],
             "top": 100 * np.histogram(scores, edges)[0] / max(len(scores), 1)} for scores in groups]


def _table(scores: np.ndarray, lines: list[str] | None, axes: int) -> str:
    """The score of each sample: of text before its line, of others where they are in the picture.

    Args:
        scores: [count].
        lines: the samples of text; None of others.
        axes: of a sample: 2 of series, 3 of images, 4 of volumes, each of which is a row of slices.
    """
    if lines is not None:
        return "<pre>" + "\n".join(f"{score:9.3f}  {html.escape(line)}"
                                   for score, line in zip(scores, lines, strict=True)) + "</pre>"
    columns = {2: 4, 4: 1}.get(axes, math.ceil(math.sqrt(len(scores))))
    cells = "".join(f"<span>{score:.2f}</span>" for score in scores)
    return (f"<p class='quiet'>In rows, as in the picture.</p><div class='scores' style="
            f"'grid-template-columns: repeat({columns}, minmax(0, 1fr))'>{cells}</div>")


class _Foreign(Matcher):
    """Requests that came by another name than the page's own address, or from another page."""

    def __init__(self, port: int):
        self.hosts = {f"{HOST}:{port}", *[HOST] * (port == 80)}  # which browsers leave out

    def match(self, request: Any) -> dict[str, Any] | None:
        origin = request.headers.get("Origin")
        is_ours = request.host in self.hosts and (
            origin is None or origin in {f"http://{host}" for host in self.hosts})
        return None if is_ours else {}


class _Refused(RequestHandler):
    """Answers what is foreign."""

    def prepare(self) -> None:
        self.set_status(403)
        self.finish(f"This page is for {HOST} alone.\n")

    def log_exception(self, *_: Any) -> None:
        """Says nothing on the terminal."""


def make_server(explorer: Explorer, first: Asked, port: int) -> Any:
    """Returns a server of pages, bound to the loopback alone and not started yet.

    Args:
        explorer: the run.
        first: what is shown at first.
        port: where; 0 for any free one.

    Raises:
        ValueError: the port can't be used.
    """
    bokeh_settings.resources = "server"  # whatever the environment says: no network
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind((HOST, port))
            port = probe.getsockname()[1]
        server = get_server(
            {"/": lambda: Page(explorer, first).view()}, port=port, address=HOST, location=False,
            websocket_origin=f"{HOST}:{port}", title=f"{explorer.run_dir} - jaxgan explore")
    except OSError as error:
        why = ("is taken" if error.errno == errno.EADDRINUSE else
               f"can't be used ({files.reason(error)})")
        raise ValueError(f"port {port} {why}: choose another with --port, or leave it out") from error
    server._tornado.default_router.rules.insert(0, Rule(_Foreign(port), _Refused))
    return server


def serve(explorer: Explorer, first: Asked, port: int, *, opens_browser: bool) -> None:
    """Shows pages until Ctrl-C; arguments and errors as of `make_server`."""
    before = signal.getsignal(signal.SIGINT)
    try:
        server = make_server(explorer, first, port)
        address = f"http://{HOST}:{server.port}/"
        console.say(f"{address} shows {explorer.run_dir}, until Ctrl-C")
        server.start()
        if opens_browser:
            server.io_loop.add_callback(server.show, "/")
        with suppress(KeyboardInterrupt):
            server.io_loop.start()  # which Panel stops at Ctrl-C
        server.stop(wait=False)
    finally:
        signal.signal(signal.SIGINT, before)
    console.say("the page is closed")
