"""`experiments.explore`: what it draws is what `sample` draws; its page is for this machine alone."""

import asyncio
import contextlib
import html
import http.client
import json
import logging
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from PIL import Image

from experiments import explore, exploring, export, launch, opening, sample
from experiments.exploring import Asked, Explorer
from jaxgan import gan as gans
from jaxgan import keys, runs, styles
from jaxgan.checkpoints import Checkpoints
from jaxgan.data import load
from jaxgan.steps import game as game_of
from jaxgan.training import example_batch
from tests.test_experiments import changed, tool
from tests.test_training import environment

panel = pytest.importorskip("panel", reason="needs Panel, of the extra `explore`")
from experiments import explore_page  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--width", "8", "--batch-size", "8")
EVIL = "<img src=/evil onerror=alert(1)>"


def described(name, *flags):
    """A run as `open_run` gives it, without a folder and a state; and its data."""
    experiment = opening.load(name)
    config = launch.parse(experiment, [*map(str, flags), "--eval-every", "0"])
    config = experiment.settle(config) if experiment.settle else config
    source, reference = experiment.make_source(config), experiment.make_reference(config)
    settings = json.loads(json.dumps(launch.record(experiment, config, source, reference)))
    game = experiment.make_game(config, source.sample_shape)
    return opening.OpenRun(experiment, config, settings, game, reference, None), source


def untrained(folder, name, *flags, steps=(5,)):
    """A run's folder as training leaves it, with numbers at random: quicker than training."""
    (_, config, settings, game, *_), source = described(name, *flags)
    state = jax.eval_shape(game_of(game).init, jax.random.key(0), example_batch(source, 2))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"format": runs.FORMAT, "settings": settings}))
    checkpoints = Checkpoints(folder / "checkpoints", best_metric=config.run.best_metric or None)
    for step in steps:
        made = jax.tree_util.tree_map_with_path(partial(at_random, np.random.default_rng(step)), state)
        checkpoints.save(step, made._replace(step=np.int32(step)), {"critic/wasserstein": -float(step)})
    checkpoints.close()
    return folder


def at_random(random, path, leaf):
    """Numbers for a leaf of a state; variances are 1."""
    if not np.issubdtype(leaf.dtype, np.floating):
        return np.zeros(leaf.shape, leaf.dtype)
    is_variance = getattr(path[-1], "key", "") == "var"
    return np.ones(leaf.shape, leaf.dtype) if is_variance else random.uniform(
        -0.4, 0.4, leaf.shape).astype(leaf.dtype)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of several kinds by name, each made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("runs"), {}
    random = np.random.default_rng(0)
    np.savez(root / "spectra.npz", x=random.normal(size=(40, 16)).astype(np.float32),
             pose=random.uniform((-4, 10), (-2, 20), (40, 2)).astype(np.float32))
    flags = {
        "digits": ("digits", *SMALL, "--best-metric", "critic/wasserstein"),
        "classes": ("conditional", *SMALL),
        "points": ("gaussians", *SMALL),
        "styles": ("stylegan2", *SMALL, "--base", 64, "--w-size", 8, "--latent-size", 8),
        "text": ("text", *SMALL, "--blocks", 1),
        "series": ("arrays", "--file", root / "spectra.npz", "--samples", "x", "--conditions", "pose",
                   "--kind", "series", *SMALL),
        "vectors": ("arrays", "--file", root / "spectra.npz", "--samples", "x", "--units", 8,
                    "--batch-size", 8),
        "packs": ("digits", *SMALL, "--pack", 2),
    }

    def folder(name):
        if name not in made:
            steps = (5, 7) if name == "digits" else (5,)
            made[name] = untrained(root / name, *flags[name], steps=steps)
        return str(made[name])

    return folder


@pytest.fixture(scope="module")
def explorers(folders):
    made = {}

    def explorer(name):
        if name not in made:
            made[name] = Explorer(folders(name))
        return made[name]

    return explorer


def drawn_by_command(command, out):
    """What the command that the page shows draws, into a file of this name."""
    *start, run = shlex.split(command)[:4]
    assert start == ["python", "-m", "experiments.sample"]
    assert tool(sample, run, *shlex.split(command)[4:], "--out", out) == 0
    if out.suffix == ".npy":
        return np.load(out)
    return out.read_text().splitlines() if out.suffix == ".txt" else np.asarray(Image.open(out))


# What is drawn.

@pytest.mark.parametrize(("name", "asked"), [
    ("digits", Asked(seed=7, count=9)),
    ("digits", Asked(seed=2**32 - 1, count=4, checkpoint="5")),
    ("digits", Asked(count=4, checkpoint="best", other_seed=3, share=1.0)),
    ("digits", Asked(seed=3, count=4, averaged=False)),
    ("classes", Asked(seed=1, count=16)),
    ("classes", Asked(seed=1, count=4, label=3)),
    pytest.param("styles", Asked(seed=2, count=4), marks=pytest.mark.slow),
    ("styles", Asked(seed=2, count=4, truncation=0.3)),
    ("text", Asked(seed=5, count=4)),
    ("series", Asked(seed=3, count=4)),
    ("series", Asked(seed=3, count=4, numbers=(-2.5, 12.0))),
    ("points", Asked(seed=4, count=400))])
def test_the_command_on_the_page_draws_the_same(name, asked, explorers, tmp_path):
    explorer = explorers(name)
    shown = explorer.draw(asked)
    command, = shown.commands
    if name == "text":
        assert drawn_by_command(command, tmp_path / "a.txt") == shown.lines
    elif name == "points":  # whose picture has reals beside
        np.testing.assert_array_equal(drawn_by_command(command, tmp_path / "a.npy"), shown.samples)
    else:
        np.testing.assert_array_equal(drawn_by_command(command, tmp_path / "a.png"), shown.picture)


def test_an_exported_file_is_shown_as_its_run(explorers, folders, tmp_path):
    assert tool(export, folders("digits"), "--format", "safetensors", "--out", tmp_path / "out") == 0
    explorer, asked = Explorer(str(tmp_path / "out" / "networks.safetensors")), Asked(count=4)
    assert (explorer.checkpoints(), explorer.controls.has_average) == (["latest"], False)
    shown = explorer.draw(asked)
    np.testing.assert_array_equal(shown.samples, explorers("digits").draw(asked).samples)
    assert len(shown.scores) == 4


def test_each_choice_draws_something_else(explorers):
    explorer, first = explorers("digits"), Asked(count=4)
    choices = (first, first._replace(seed=1), first._replace(averaged=False),
               first._replace(checkpoint="5"), first._replace(other_seed=1, share=0.5))
    samples = [explorer.draw(asked).samples.tobytes() for asked in choices]
    assert len({*samples}) == len(choices)
    assert explorer.draw(first).samples.tobytes() == samples[0]
    assert [explorer.draw(asked).step for asked in choices] == [7, 7, 7, 5, 7]


def test_as_trained_is_without_the_average(explorers):
    explorer = explorers("digits")
    shown = explorer.draw(Asked(seed=3, count=4, averaged=False))
    run = opening.open_run(explorer.run_dir)
    expected = gans.sample(run.game, run.state, keys.stream(keys.of_seed(3), "latents"), 4,
                           use_ema=False)
    np.testing.assert_allclose(shown.samples, expected, atol=1e-5)
    assert shown.commands[0].endswith(" --as-trained")


def test_between_two_seeds_latents_go_along_the_great_circle(explorers):
    explorer, share = explorers("digits"), 0.25
    run = opening.open_run(explorer.run_dir)
    a, b = (np.asarray(gans.draw_latents(run.game, keys.stream(keys.of_seed(seed), "latents"), 4),
                       np.float64) for seed in (1, 2))
    angle = np.arccos((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))[:, None]
    between = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    expected = gans.generate(run.game, run.state, between.astype(np.float32))
    shown = explorer.draw(Asked(seed=1, count=4, other_seed=2, share=share))
    np.testing.assert_allclose(shown.samples, expected, atol=1e-4)
    assert [re.search(r"--seed=(\d+)", command)[1] for command in shown.commands] == ["1", "2"]


@pytest.mark.slow
def test_between_two_seeds_styles_go_straight(explorers):
    explorer, share = explorers("styles"), 0.25
    run = opening.open_run(explorer.run_dir)
    a, b = (styles.styles(run.game, run.state, gans.draw_latents(
        run.game, keys.stream(keys.of_seed(seed), "latents"), 4)) for seed in (1, 2))
    expected = styles.synthesise(run.game, run.state, a + share * (b - a))
    shown = explorer.draw(Asked(seed=1, count=4, other_seed=2, share=share))
    np.testing.assert_allclose(shown.samples, expected, atol=1e-4)


def test_nothing_is_compiled_twice(explorers, caplog):
    """Seeds, shares, truncations and checkpoints are inputs of the programs, not parts of them."""
    explorer, first = explorers("styles"), Asked(count=9)
    for asked in (first, first._replace(other_seed=5, share=0.3)):
        explorer.draw(asked)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(np.float32(1))
        compiled = len(caplog.records)
        assert compiled  # it is seen if something is
        for asked in (first._replace(seed=8), first._replace(truncation=0.5),
                      first._replace(seed=8, other_seed=6, share=0.9, truncation=0.1)):
            explorer.draw(asked)
        assert len(caplog.records) == compiled


def test_scores_are_the_critic_s_of_the_samples_and_of_training_data(explorers):
    explorer = explorers("classes")
    shown = explorer.draw(Asked(seed=1, count=16, label=3))
    run = opening.open_run(explorer.run_dir)
    judgement = gans.judge(run.game, run.state, shown.samples, np.full(16, 3, np.int32))
    np.testing.assert_allclose(shown.scores, judgement.scores, atol=1e-5)
    assert shown.real_scores.shape == (100,)
    # Those of all of the data: each of the scores of reals is one of them.
    data = load("digits", "train")
    reals = gans.judge(run.game, run.state, data.images.astype(np.float32) / 255, data.labels).scores
    assert np.abs(shown.real_scores[:, None] - np.asarray(reals)).min(1).max() < 1e-5


@pytest.mark.slow
def test_a_critic_of_packs_scores_whole_ones(explorers):
    explorer = explorers("packs")
    assert len(explorer.draw(Asked(count=25)).scores) == 12
    shown = explorer.draw(Asked(count=1))
    assert len(shown.scores) == 0
    assert shown.note == "The critic scores 2 samples at once: draw at least as many to see scores."


# What there is to choose.

@pytest.mark.parametrize(("name", "flags", "expected"), [
    ("digits", (), {"classes": (), "numbers": None, "has_average": True, "has_truncation": False,
                    "between": "latents", "has_scores": True, "count": 64}),
    ("conditional", (), {"classes": tuple("0123456789"), "between": "latents"}),
    ("gaussians", ("--ema-decay", "0"), {"has_average": False, "count": 1000}),
    ("stylegan2", SMALL, {"has_truncation": True, "between": "styles"}),
    ("text", (), {"count": 25, "classes": ()})])
def test_what_does_not_apply_to_a_run_is_not_there(name, flags, expected):
    found = exploring.controls(described(name, *flags)[0], name)
    assert expected.items() <= found._asdict().items()


def test_numbers_are_those_of_the_data(explorers):
    numbers = explorers("series").controls.numbers
    assert -4 <= numbers.low[0] < numbers.high[0] <= -2
    assert 10 <= numbers.low[1] < numbers.high[1] <= 20
    page = explore_page.Page(explorers("series"), Asked(count=4))
    assert [(slider.start, slider.end) for slider in page.numbers] == [*zip(numbers.low, numbers.high,
                                                                           strict=True)]
    assert [widget.visible for widget in (page.has_numbers, page.label, page.truncation)] == [
        True, False, False]


@pytest.mark.parametrize(("names", "shown"), [
    (["cat", "dog"], ("cat", "dog")), (["a", "a"], ("a (0)", "a (1)")),
    (["", "\x1b[2J"], (" (0)", "\\x1b[2J")), ([3, None], ("3", "None")), (["one"], ("0", "1")),
    ("ab", ("0", "1"))])
def test_classes_have_names_that_can_be_told_apart(names, shown):
    assert exploring._class_names({"num_classes": 2, "class_names": names}) == shown


@pytest.mark.parametrize("names", [["1", "0", *"23456789"], ["a", "a", *"23456789"],
                                   ["-x", "a b", "c\nd", *"3456789"]])
def test_a_command_names_the_class_that_is_shown(names, folders, tmp_path):
    explorer = Explorer(str(changed(Path(folders("classes")), tmp_path, class_names=names)))
    for label in range(4):
        command, = explorer.commands(Asked(label=label))
        options = tyro.cli(sample.Options, args=shlex.split(command)[3:])
        assert sample.label_number(options.label, 10, names) == label


def test_checkpoints_are_those_that_are_there(explorers, folders):
    assert explorers("digits").checkpoints() == ["latest", "best", "7", "5"]
    assert Explorer(folders("points")).checkpoints() == ["latest", "5"]


# What is amiss.

@pytest.mark.parametrize(("name", "flags", "message"), [
    ("pix2pix", SMALL, "translates images, and this page is for samples of latents"),
    ("cyclegan", SMALL, "translates images, and this page is for samples of latents"),
    ("wasserstein", (), "has no samples to look at")])
def test_runs_that_have_no_samples_of_latents_are_refused(name, flags, message):
    with pytest.raises(ValueError, match=message):
        exploring.controls(described(name, *flags)[0], name)


def one_line(capsys):
    line, = capsys.readouterr().err.splitlines()
    return line


def test_errors_are_a_sentence(folders, tmp_path, capsys, monkeypatch):
    assert tool(explore, tmp_path / "nothing") == 2
    assert str(tmp_path / "nothing") in one_line(capsys)
    shutil.copytree(folders("points"), tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    assert tool(explore, tmp_path / "bare") == 2
    assert one_line(capsys) == f"error: there is no checkpoint in {tmp_path / 'bare'}"
    assert tool(explore, folders("points"), "--checkpoint", "3") == 2
    assert "step 3" in one_line(capsys)
    assert tool(explore, folders("points"), "--port", 2**16) == 2
    assert one_line(capsys) == "error: port must be from 0 to 65535; got 65536"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert tool(explore, folders("points"), "--no-browser", "--port", port) == 2
    assert one_line(capsys) == (f"error: port {port} is taken: choose another with --port, or leave it "
                                "out")
    monkeypatch.setitem(sys.modules, "panel", None)
    assert tool(explore, folders("points")) == 2
    assert one_line(capsys) == ("error: panel isn't installed: pip install 'jaxgan[explore]', or "
                                "'jaxgan[all]' for everything")


def test_without_the_data_samples_are_shown_nevertheless(folders, tmp_path):
    asked = Asked(count=4)
    other = changed(Path(folders("digits")), tmp_path, data_sha256="0" * 64)
    shown = Explorer(str(other)).draw(asked)
    assert "was trained on other data than these" in shown.note
    assert (len(shown.scores), len(shown.real_scores)) == (4, 0)
    shown = Explorer(folders("digits"), reals=False).draw(asked)
    assert shown.note == "The run's data weren't opened, as --no-reals asks."
    assert shown.picture is not None


@pytest.mark.parametrize("asked", [
    Asked(seed=-1), Asked(seed=2**32), Asked(count=5), Asked(label=0), Asked(numbers=(1.0,)),
    Asked(truncation=float("nan")), Asked(other_seed=-1, share=0.5), Asked(other_seed=1, share=1.5),
    Asked(checkpoint="../../x"), Asked(checkpoint="99")])
def test_what_a_page_can_not_ask_for_is_refused(asked, explorers):
    with pytest.raises(ValueError, match=r"."):
        explorers("digits").draw(asked)


def test_a_page_whose_checkpoint_is_gone_says_so(folders, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(folders("digits"), run)
    explorer = Explorer(str(run))
    explorer.draw(Asked(count=4, checkpoint="5"))
    shutil.rmtree(run / "checkpoints" / "00000005")
    page = explore_page.Page(explorer, Asked(count=4, checkpoint="5"))
    assert page.checkpoint.options == ["5", "latest", "best", "7"]
    assert "step 5" in page.error.object
    assert [page.picture.visible, page.command.visible] == [False, False]
    shutil.rmtree(run / "checkpoints")
    page = explore_page.Page(explorer, Asked(count=4))
    assert f"there is no checkpoint in {run}" in page.error.object


# The server.

@contextlib.contextmanager
def serving(explorer, first):
    """The server of a page in a thread of its own: its port."""
    ports, ends, ready = [], [], threading.Event()

    async def run():
        end = asyncio.Event()
        server = explore_page.make_server(explorer, first, 0)
        server.start()
        ports.append(server.port)
        ends.append((asyncio.get_running_loop(), end))
        ready.set()
        await end.wait()
        server.stop(wait=False)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield ports[0]
    finally:
        loop, end = ends[0]
        loop.call_soon_threadsafe(end.set)
        thread.join(30)


@pytest.fixture(scope="module")
def served(folders, tmp_path_factory):
    """A page of a run for classes, one of which has a name that is meant to be markup: its port."""
    run = changed(Path(folders("classes")), tmp_path_factory.mktemp("page"),
                  class_names=[EVIL, *"123456789"])
    with serving(Explorer(str(run)), Asked(count=4)) as port:
        yield port


def answer(port, path="/", **headers):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        with connection.getresponse() as response:
            return response.status, response.read().decode() if response.status != 101 else ""


UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13",
           "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}


def test_foreign_hosts_and_pages_are_refused(served):
    status, page = answer(served)
    assert status == 200
    token, = set(re.findall(r'"token":\s*"([^"]+)"', page))
    socket_of = {**UPGRADE, "Sec_WebSocket_Protocol": f"bokeh, {token}"}
    ours = f"http://127.0.0.1:{served}"
    assert answer(served, "/ws", **socket_of, Origin=ours)[0] == 101
    for path, headers in (("/", {}), ("/ws", socket_of), ("/static/js/bokeh.min.js", {})):
        for foreign in ({"Host": "evil.example"}, {"Host": f"evil.example:{served}", "Origin": ours},
                        {"Host": f"localhost:{served}"}, {"Origin": "http://evil.example"},
                        {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}):
            assert answer(served, path, **headers | foreign)[0] == 403, (path, foreign)


def test_the_page_is_at_the_loopback_s_one_address_alone(served):
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", served), 5):
        pass


def test_texts_of_a_run_are_no_markup(explorers, monkeypatch):
    page = explore_page.Page(explorers("text"), Asked(count=4))
    shown = explorers("text").draw(Asked(count=4))
    page._show(shown._replace(lines=[EVIL] * 4, note=EVIL, commands=(f"sample '{EVIL}'",)))
    for pane in (page.lines, page.scores, page.error, page.command):
        assert "<img" not in pane.object
        assert "&lt;img" in pane.object
    page._refuse(ValueError(EVIL + "\x1b"))
    assert html.escape(EVIL) + "\\x1b" in page.error.object
    assert not page.lines.visible
    monkeypatch.setattr(explorers("text"), "run_dir", EVIL)
    monkeypatch.setattr(Explorer, "checkpoints", lambda self: ["latest"])
    monkeypatch.setattr(Explorer, "draw", lambda self, asked: shown)
    assert EVIL not in str(explore_page.Page(explorers("text"), Asked(count=4)).view())


def test_ctrl_c_ends_it_with_a_line(folders):
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.explore", folders("points"), "--no-browser"], cwd=ROOT,
        env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        said = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ shows (.*), until Ctrl-C\n",
                            process.stdout.readline())
        assert said[2] == folders("points")
        port = int(said[1])
        assert answer(port)[0] == 200
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (rest, errors, process.returncode) == ("the page is closed\n", "", 0)


# The page in a browser.

@contextlib.contextmanager
def opened(browser, port, **size):
    """The page; that no other machine was asked for anything, and no error was said, is checked."""
    context = browser.new_context(viewport={"width": 1280, "height": 900} | size,
                                  permissions=["clipboard-read", "clipboard-write"])
    page, asked, said = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.on("console", lambda message: said.append(message.text)
            if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("4 samples of step 5").wait_for()
        yield page
        page.wait_for_timeout(200)
        assert said == []
        assert [url for url in asked if not re.match(
            rf"(http|ws)://127\.0\.0\.1:{port}/(?!evil)|data:|blob:", url)] == []
        assert any(url.startswith("ws:") for url in asked)
    finally:
        context.close()


def wait_for_another(page, before):
    """The picture, once it is another one than before."""
    picture = page.get_by_alt_text("samples")
    for _ in range(100):
        if (now := picture.get_attribute("src")) != before:
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture stays as it is")


def test_choices_change_what_is_seen(served, browser):
    with opened(browser, served) as page:
        picture = wait_for_another(page, None)
        assert picture.startswith("data:image/png;base64,")
        page.get_by_role("button", name="Another").first.click()
        first = picture = wait_for_another(page, picture)
        page.get_by_text("--seed=1").wait_for()
        page.get_by_role("button", name="Copy").click()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert re.fullmatch(r"python -m experiments\.sample .* --seed=1 --num=4", copied)
        page.get_by_label("Class").select_option(EVIL)
        picture = wait_for_another(page, picture)
        page.get_by_label("Class").select_option("3")
        picture = wait_for_another(page, picture)
        page.get_by_text("--label=3").wait_for()
        page.get_by_label("Class").select_option("all, in turn")
        assert wait_for_another(page, picture) == first
        page.get_by_text("Go to another seed").click()
        handle = page.locator(".noUi-handle:visible")
        handle.focus()
        page.keyboard.press("ArrowRight")
        picture = wait_for_another(page, first)
        page.keyboard.press("ArrowRight")
        picture = wait_for_another(page, picture)
        assert page.get_by_text("--seed=").count() == 2  # the ends
        page.keyboard.press("Home")
        assert wait_for_another(page, picture) == first
        page.get_by_role("button", name="as trained").click()
        wait_for_another(page, first)
        page.get_by_text("--as-trained").wait_for()
        page.get_by_label("Seed", exact=True).fill("")
        page.get_by_label("Seed", exact=True).press("Enter")
        page.get_by_text("a seed is missing").wait_for()


@pytest.mark.slow
def test_a_narrow_screen_holds_the_page(served, browser):
    with opened(browser, served, width=390) as page:
        wait_for_another(page, None)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate("window.innerWidth") == 390
