"""The page that `experiments.report` writes of runs: what it shows, what it escapes, how it behaves."""

import base64
import io
import json
import shutil
import statistics
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, figures, opening, page, report
from jaxgan import files, runs
from jaxgan.data import load
from jaxgan.extras import MissingExtra
from jaxgan.pictures import panels, save_png
from tests.test_experiments import tool
from tests.test_training import TINY, run_here

pytest.importorskip("bokeh", reason="needs Bokeh, of the extra `report`")
pytestmark = pytest.mark.usefixtures("own_cache")
HOSTILE = "</script><script>alert(1)</script><b id=x>$$y$$ @{z} {{ 7 * 7 }}"
LOOKS_AT_CURVES = True  # so that the picture for readers without scripts is there
RNG = np.random.default_rng(0)


class Page(HTMLParser):
    """A page's elements with their attributes and the text in them, in their order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.handle_data(" ")
        self.elements.append([tag, dict(attrs), ""])
        if tag not in ("meta", "img", "input"):
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        self.handle_data(" ")
        while self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for element in self._open:
            element[2] += data

    def all(self, tag, **attrs):
        return [(found, " ".join(text.split())) for name, found, text in self.elements
                if name == tag and attrs.items() <= found.items()]

    def text(self, tag="body", **attrs):
        return " ".join(text for _, text in self.all(tag, **attrs))


def written(*words, out):
    """The page that the command writes."""
    assert tool(report, *words, "--out", out) == 0
    return Page(out.read_text())


def pixels(src):
    """The picture in an address."""
    kind, _, data = src.partition(",")
    assert kind in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_cache):
    """A finished run of ten steps, evaluated by the pixels themselves: no classifier is trained."""
    folder = tmp_path_factory.mktemp("report") / "run"
    assert run_here("digits", *TINY, "--steps", 10, "--sample-every", 2, "--learning-rate", 3e-4,
                    "--run-dir", folder) == 0
    assert tool(evaluate, folder, "--features", "raw", "--metrics", "fd,pr",
                "--devices", 1) == 0
    return folder


@pytest.fixture
def copy(run, tmp_path):
    """The same, to be changed."""
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns("*.html")))


def change(path, do):
    value = json.loads(path.read_text())
    do(value)
    path.write_text(json.dumps(value))


# What it shows.

def test_a_run_s_page_needs_nothing_else_and_shows_what_is_in_the_folder(run, tmp_path):
    assert tool(report, run) == 0
    path = run / "report.html"
    assert path.stat().st_size < 5 * 2**20
    found = Page(path.read_text())
    for tag, attrs, _ in found.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in attrs), "handlers"
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert attrs.get(name, "data:").startswith("data:")
        if tag == "img":
            assert attrs["alt"]
    style = found.text("style")
    assert not any(word in style for word in ("@import", "url(", "http"))
    headings = [text for _, text in found.all("h2")]
    assert headings == ["What was trained", "Samples", "Evaluation", "Curves", "How to read them",
                        "Nearest training images", "Time and machine", "To reproduce it"]
    said = found.text("section", id="trained")
    differing, _, others = said.partition("All other settings")
    assert "of digits: width 8" in differing
    assert "learning_rate 0.0003" in differing
    assert "beta1 0.0" not in differing
    assert "beta1 0.0" in others
    saved = [np.asarray(Image.open(path)) for path in sorted((run / "samples").glob("step_*.png"))]
    shown = [attrs for attrs, _ in found.all("div", **{"class": "frame"})]
    assert [attrs["data-step"] for attrs in shown] == ["2", "4", "6", "8", "10"]
    assert [*map(len, ([a for a in shown if "hidden" in a], saved))] == [4, 5]
    sources = {attrs["alt"]: attrs["src"] for attrs, _ in found.all("img")}
    for step, picture in zip((2, 4, 6, 8, 10), saved, strict=True):
        np.testing.assert_array_equal(pixels(sources[f"Samples at step {step}"]), picture)
    np.testing.assert_array_equal(pixels(sources["Real samples of the data"]),
                                  np.asarray(Image.open(run / "samples" / "real.png")))
    values = runs.read_evaluations(run)[-1]["metrics"]["raw/fd"]
    rows = [text for _, text in found.all("tr")]
    assert f"raw Frechet distance {values['value']:.5g} {values['floor']:.5g} lower is better" in rows
    result = runs.read_result(run)
    origin = found.text("section", id="origin")
    for text in (result["params_sha256"], *result["leaves_sha256"].values(),
                 f"python -m experiments.reproduce {run}", runs.read_config(run)["command"][-1]):
        assert text in origin
    last = runs.read_logs(run)[0][-1]["critic/wasserstein"]
    assert f"critic/wasserstein {last:.5g} The mean score of reals" in found.text("dl")


def test_curves_are_those_that_were_logged_in_the_panels_of_the_picture(run):
    rows = runs.read_logs(run)[0]
    drawn, notes = figures.curves({"run": rows}, {})
    logged = {name for row in rows for name in row} - {"step"}
    assert drawn[0].title == "Losses"
    assert len(drawn) == len(panels(logged))
    assert notes == []
    text = json.dumps([panel.item for panel in drawn])
    for name in logged:
        assert json.dumps(name) in text
    assert str([row["critic/loss"] for row in rows]) in text


def test_a_run_has_one_colour_in_all_panels():
    logged = {"a": {"critic/loss": 1.0}, "b": {"critic/loss": 2.0, "swd": 3.0}, "c": {"swd": 4.0}}
    drawn, _ = figures.curves({run: [{"step": 1, **row}] for run, row in logged.items()}, {})

    blue, orange, green = "#1f77b4", "#ff7f0e", "#2ca02c"
    seen = [{colour for colour in (blue, orange, green) if colour in json.dumps(panel.item)}
            for panel in drawn]
    assert [(panel.group, panel.title) for panel in drawn] == [
        ("Losses", "critic/loss"), ("Evaluations and other numbers", "swd")]
    assert seen == [{blue, orange}, {orange, green}]


def test_the_nearest_training_images_are_those_by_the_pixels(run):
    found = figures.nearest(run)
    training = load("digits", "train").images[..., 0]
    samples, neighbours = pixels(found.samples.src), pixels(found.training.src)
    assert samples.shape == (8 * 65 + 1, 66, 3)
    assert neighbours.shape == (8 * 65 + 1, 5 * 65 + 1, 3)

    def tile(picture, row, column):
        top, left = 65 * row + 1, 65 * column + 1
        return picture[top:top + 64:8, left:left + 64:8, 0].astype(float)

    least = []
    for row in range(8):
        distances = np.sqrt(np.square(training - tile(samples, row, 0)).sum(axis=(1, 2)))
        shown = [np.sqrt(np.square(tile(neighbours, row, column) - tile(samples, row, 0)).sum())
                 for column in range(5)]
        np.testing.assert_allclose(shown, np.sort(distances)[:5])
        least.append(distances.min())
    assert least == sorted(least)
    assert "training images of 1438, by the features raw" in found.said


def test_data_that_are_others_are_a_sentence_and_all_else_is_there(copy, tmp_path):
    change(copy / "config.json", lambda config: config["settings"].update(data_sha256="0" * 64))
    found = written(copy, out=tmp_path / "a.html")
    said = found.text("section", id="neighbours")
    assert "The nearest training images are left out: the run was trained on other data" in said
    assert found.all("div", **{"class": "frame"})
    assert not written(copy, "--no-neighbours", out=tmp_path / "a.html").all("section", id="neighbours")


def test_several_runs_are_laid_over_each_other(run, copy, tmp_path):
    change(copy / "config.json", lambda config: config["settings"].update(seed=5))
    change(copy / "evaluation.json",
           lambda found: found["evaluations"][-1]["metrics"]["raw/fd"].update(value=99.5))
    found = written(run, copy, out=tmp_path / "a.html")
    values = [runs.read_evaluations(folder)[-1]["metrics"]["raw/fd"]["value"] for folder in (run, copy)]
    row = next(text for _, text in found.all("tr") if "Frechet" in text)
    assert f" {statistics.fmean(values):.4g} +- {statistics.stdev(values):.2g} " in row
    assert row.endswith(" lower is better")
    assert found.text("li").endswith(f"digits, 2 seeds: {run}, {copy}, step 10")
    columns = [text for attrs, text in found.all("th", scope="col")]
    assert columns == ["", "digits, 2 seeds", "held-out reals", ""]
    logged = {name for row in runs.read_logs(run)[0] for name in row} - {"step"}
    assert [text for _, text in found.all("h3", **{"class": "group"})] == [
        "Losses", "Wasserstein estimates", "Norms of the parameters' gradients",
        "The critic's gradient at its input", "Penalties", "The critic's mean scores"]
    assert {text for _, text in found.all("h4")} == logged
    curves = json.loads(found.text("script", id="curves"))
    assert len(curves) == len(logged)
    assert str(copy) in json.dumps(curves[0])
    captions = [text for _, text in found.all("figcaption")]
    assert captions == [f"{run}, step 10", f"{copy}, step 10"]
    assert not found.all("section", id="neighbours")


def test_columns_of_runs_that_are_no_seeds_are_called_by_their_folders(run, copy, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_still", lambda *_: None)
    change(copy / "config.json", lambda config: config["settings"].update(loss="hinge"))
    found = written(run, copy, out=tmp_path / "a.html")
    columns = [text for attrs, text in found.all("th", scope="col")]
    assert columns == ["", str(run), str(copy), "held-out reals", ""]
    assert [text for _, text in found.all("li")] == [
        f"{run}: loss wasserstein, step 10", f"{copy}: loss hinge, step 10"]
    ends = {text.split()[1]: text.split()[-3] for _, text in found.all("tr") if "better" in text}
    assert ends == {"Frechet": "lower", "precision": "higher", "recall": "higher"}


def test_the_folder_of_runs_by_one_command_stands_for_them(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_still", lambda *_: None)  # which takes long, and others look at it
    folder = tmp_path / "all"
    for seed in (0, 1):
        shutil.copytree(copy, folder / f"seed_{seed}")
        change(folder / f"seed_{seed}" / "config.json",
               lambda config, seed=seed: config["settings"].update(seed=seed))
    assert tool(report, folder) == 0
    assert "2 runs" in Page((folder / "report.html").read_text()).text("h1")


def test_a_users_own_experiment_is_reported_without_its_file(copy, tmp_path):
    change(copy / "config.json", lambda config: config["settings"].update(
        experiment="mine", experiment_file="/x y/mine.py", experiment_sha256="abc"))
    found = written(copy, out=tmp_path / "a.html")
    assert "differ from the defaults of all experiments: " in found.text("section", id="trained")
    assert "give its file with --experiment" in found.text("section", id="neighbours")
    origin = found.text("section", id="origin")
    assert f"python -m experiments.reproduce {copy} --experiment '/x y/mine.py'" in origin


def test_runs_by_other_protocols_have_no_table_but_a_sentence(run, copy, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_still", lambda *_: None)
    change(copy / "evaluation.json",
           lambda found: found["evaluations"][-1]["protocol"].update(num_fake=7))
    said = written(run, copy, out=tmp_path / "a.html").text("section", id="evaluations")
    assert "There is no table of these runs: " in said
    assert "were measured by different protocols" in said


# What is much, little or broken.

def pictures(folder, count, picture):
    (folder / "samples").mkdir(parents=True)
    for step in range(1, count + 1):
        save_png(folder / "samples" / f"step_{step:08d}.png", picture(step))


def test_a_long_history_is_thinned_evenly(tmp_path):
    pictures(tmp_path, 131, lambda step: np.full((4, 4, 3), step, np.uint8))
    found = figures.history(tmp_path)
    steps = [frame.step for frame in found.frames]
    assert (len(steps), steps[0], steps[-1], found.total) == (60, 1, 131, 131)
    assert {*np.diff(steps)} == {2, 3}
    assert [pixels(frame.picture.src)[0, 0, 0] for frame in found.frames] == steps


def test_large_pictures_stay_within_the_bytes_and_the_last_one_is_there(tmp_path, monkeypatch):
    pictures(tmp_path, 9, lambda step: RNG.integers(0, 256, (300, 1200, 3), np.uint8))
    monkeypatch.setattr(figures, "_HISTORY_BYTES", 1_000_000)
    found = figures.history(tmp_path)
    assert 1 < len(found.frames) < 9
    assert found.frames[-1].step == 9
    assert sum(len(frame.picture.src) for frame in found.frames) <= 1_000_000
    assert pixels(found.frames[-1].picture.src).shape == (240, 960, 3)
    assert found.notes == [f"The pictures are smaller than those in {tmp_path / 'samples'}."]
    monkeypatch.setattr(figures, "_HISTORY_BYTES", 1)
    assert [frame.step for frame in figures.history(tmp_path).frames] == [9]


def test_many_points_and_names_are_thinned_and_it_is_said(monkeypatch):
    rows = [{"step": step, "critic/loss": float(step)} for step in range(1, 5001)]
    _, notes = figures.curves({"run": rows}, {})
    assert notes == ["Of each curve 1000 points at most are shown, evenly spread."]
    monkeypatch.setattr(figures, "_PANELS", 3)
    row = {f"accuracy_{i}": 1.0 for i in range(30)} | {f"m{chr(97 + i)}": 1.0 for i in range(9)}
    drawn, notes = figures.curves({"run": [{"step": 1} | row]}, {})
    assert [panel.title for panel in drawn] == ["Accuracy", "ma", "mb"]
    assert notes == ["Of the 30 curves of accuracy the first 12 are shown.",
                     "Of 10 panels the first 3 are shown."]


def test_a_run_that_has_just_begun_is_reported(copy, tmp_path):
    for path in copy.iterdir():
        if path.name != "config.json":
            files.remove(path)
    (copy / "samples").mkdir()
    said = written(copy, out=tmp_path / "a.html").text()
    for text in ("It hasn't logged anything yet.", "There are no samples yet.",
                 "Nothing was logged yet.", "The run was not evaluated",
                 "The nearest training images are left out: there is no checkpoint"):
        assert text in said


def test_an_unfinished_run_is_said_to_be(copy, tmp_path):
    (copy / "result.json").unlink()
    (copy / "samples" / "step_00000004.png").write_bytes(b"\x89PNG broken")
    said = written(copy, "--no-neighbours", out=tmp_path / "a.html").text()
    assert "It hasn't ended: step 10 of 10 is the last one that was logged." in said
    assert f"{copy / 'samples' / 'step_00000004.png'} is left out: it can't be read" in said


@pytest.mark.parametrize(("words", "message"), [
    ((), "give the folders of the runs"), (("nowhere",), "nowhere is not a run's folder"),
    (("run", "--out", "a.txt"), "out must end in .html; got 'a.txt'"),
    (("run", "--out", "no/a.html"), "there is no folder no to write a.html to"),
    (("run", "run/samples"), "there are several folders: say with --out FILE.html"),
    (("run", "--out", "taken.html"), "taken.html can't be written")])
def test_a_mistake_is_a_sentence_and_leaves_no_file(words, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").symlink_to(run)
    (tmp_path / "taken.html").mkdir()
    (tmp_path / "taken.html" / "precious").touch()
    before = sorted(tmp_path.rglob("*"))
    assert tool(report, "--no-neighbours", *words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("module", ["bokeh", "jinja2"])
def test_without_its_extra_a_run_ends_well_and_the_command_says_what_to_install(
        module, copy, monkeypatch, capsys):
    reference = opening.open_run(copy, None).reference
    monkeypatch.setitem(sys.modules, module, None)
    page.write_beside(copy, reference)
    with pytest.raises(MissingExtra, match=r"isn't installed: pip install 'jaxgan\[report\]'"):
        page.write([copy], copy / "report.html")
    assert not any(copy.glob("report.html*"))
    monkeypatch.undo()
    page.write_beside(copy, reference)
    assert (copy / "report.html").exists()


def test_a_page_that_can_not_be_written_is_warned_of(copy):
    (copy / "report.html").mkdir()
    (copy / "report.html" / "precious").touch()
    with pytest.warns(UserWarning, match="report.html isn't written"):
        assert page.write_beside(copy, opening.open_run(copy, None).reference) is None


# What isn't trusted.

@pytest.fixture
def hostile(copy):
    """A run in whose files everything that may be text is hostile."""
    def of_config(config):
        config["settings"].update(
            {"dataset": HOSTILE, "seed": HOSTILE, HOSTILE: HOSTILE, "loss": "\ud800"})
        config.update({"command": [HOSTILE], "devices": [HOSTILE], "versions": {HOSTILE: HOSTILE}})

    change(copy / "config.json", of_config)
    change(copy / "result.json", lambda result: result["leaves_sha256"].update({HOSTILE: HOSTILE}))
    change(copy / "evaluation.json", lambda found: found["evaluations"][-1].update(
        floor_count=HOSTILE, protocol={HOSTILE: HOSTILE}, metrics={HOSTILE: {"value": 1, HOSTILE: 2}}))
    (copy / "metrics.jsonl").write_text("".join(json.dumps(
        {"step": step, HOSTILE: step / 7, "critic/loss": float("nan" if step == 2 else step)}) + "\n"
        for step in range(1, 4)))
    (copy / "samples" / "step_00000012.txt").write_bytes(HOSTILE.encode() + b"\n\xff\x00\x1b[2J")
    return copy


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_text_is_shown_as_text(hostile, tmp_path):
    found = written(hostile, out=tmp_path / "a.html")
    assert [attrs.get("type") for attrs, _ in found.all("script")] == ["application/json", None, None]
    assert not found.all("b")
    assert found.text().count(" ".join(HOSTILE.split())) >= 10
    assert HOSTILE in json.dumps(json.loads(found.text("script", id="curves")), ensure_ascii=False)
    assert "\x1b" not in (tmp_path / "a.html").read_text()
    policy, = (attrs["content"] for attrs, _ in found.all("meta")
               if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "unsafe-inline'; script-src 'sha256-" in policy


# In a browser.

@pytest.fixture
def visit(browser):
    """Opens a page: itself, and what went wrong or was asked for."""
    contexts = []

    def opened(path, width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        tab, amiss = context.new_page(), []
        tab.on("console", lambda message: amiss.append(message.text)
               if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: amiss.append(str(error)))
        tab.on("dialog", lambda dialog: (amiss.append(dialog.message), dialog.dismiss()))
        tab.on("request", lambda request: amiss.append(request.url)
               if not request.url.startswith(("file:", "data:")) else None)
        tab.goto(path.as_uri())
        return tab, amiss

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def html(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "run.html"
    page.write([run], out, neighbours=False)
    return out


@pytest.mark.parametrize("width", [390, 1280])
def test_the_slider_and_the_animation_change_the_picture(width, html, visit):
    tab, amiss = visit(html, width)
    tab.locator(".panel canvas").first.wait_for()  # through shadow roots
    assert tab.locator(".panel canvas").count() >= tab.locator(".panel").count() > 5
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    shown, slider = tab.locator(".frame:visible img"), tab.locator("input[type=range]")
    assert shown.count() == 1
    first = shown.get_attribute("src")
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    assert tab.locator("output").inner_text() == "8"
    assert shown.get_attribute("src") != first
    assert shown.get_attribute("alt") == "Samples at step 8"
    button = tab.get_by_role("button")
    button.click()
    assert button.inner_text() == "Pause"
    for step in ("10", "2", "4"):
        tab.wait_for_function("step => document.querySelector('output').textContent === step", arg=step)
    button.click()
    step = tab.locator("output").inner_text()
    tab.wait_for_timeout(500)
    assert tab.locator("output").inner_text() == step
    assert amiss == []


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_without_scripts_there_are_samples_and_the_curves_picture(width, scheme, html, visit):
    tab, amiss = visit(html, width, java_script_enabled=False, color_scheme=scheme)
    for alt in ("Samples at step 10", "Real samples of the data", "Curves of the logged numbers"):
        assert tab.get_by_alt_text(alt).is_visible()
    assert not tab.get_by_role("button").is_visible()
    assert tab.locator(".figures:visible").count() == 0
    tab.get_by_text("All other settings").click()
    assert tab.get_by_text("batch_size", exact=True).is_visible()
    assert amiss == []


@pytest.mark.filterwarnings("ignore:Glyph")
def test_hostile_text_does_nothing_in_a_browser(hostile, tmp_path, visit):
    page.write([hostile], tmp_path / "a.html", neighbours=False)
    tab, amiss = visit(tmp_path / "a.html", 390)
    tab.locator(".panel canvas").first.wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.locator("b").count() == 0
    place = tab.locator(".panel", has_text="alert(1)").locator("canvas").first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    for share in range(1, 10):
        tab.mouse.move(box["x"] + box["width"] * share / 10, box["y"] + box["height"] / 2)
        tab.wait_for_timeout(50)
    tip = tab.locator(".bk-tooltip-content")
    assert f"{HOSTILE}:\t0." in tip.first.inner_text()
    assert tab.locator("b").count() == 0
    assert amiss == []
