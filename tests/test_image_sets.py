"""Runs on a folder of images: it may be moved and spelt in any way, and is known by what is in it."""

import io
import json
import shutil
import zipfile
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, launch, open_run, opening, reproduce, sample, settings, text
from jaxgan import features
from jaxgan.data import draw_step, load
from jaxgan.runs import read_config
from jaxgan.steps import game as game_of
from jaxgan.training import train
from jaxgan.types import Batch
from tests.test_measuring import tool
from tests.test_training import TINY, run_here
from tests.tiny import tiny

pytestmark = pytest.mark.usefixtures("own_cache", "quick_compilation")
CLASSES = ("2", "10", "cat", "dog")  # as people count: "2" is number 0
CONDITIONAL = ("conditional", *TINY, "--steps", 2, "--log-every", 1, "--n-critic", 1,
               "--penalty", "none", "--dataset", "folder", "--num-classes", 4)
MEASURED = ("--metrics", "pr", "--features", "raw", "--num", 8)


def paint(folder, names=CLASSES, size=8):
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 3)):
        for name in names:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, own_cache, quick_compilation):
    """A folder of images, and a run on it, which was given its relative path."""
    place = tmp_path_factory.mktemp("trained")
    paint(place / "images")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        assert run_here(*CONDITIONAL, "--folder", "images", "--image-size", 8, "--run-dir", "run") == 0
    return place


@pytest.fixture
def moved(trained, tmp_path, monkeypatch):
    """The same in another place: the run, and the images in a folder of another name."""
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "images", tmp_path / "pictures")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def resume(place, folder, *flags):
    return run_here(*CONDITIONAL, "--folder", folder, "--image-size", 8, "--run-dir", place / "run",
                    "--resume", "auto", "--steps", 3, *flags)


def repaint(place):
    """Changes one pixel of an image for training."""
    path = place / "pictures" / "train" / "dog" / "0.png"
    pixels = np.array(Image.open(path))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)


def change_settings(place, *without, **changes):
    content = json.loads((place / "run" / "config.json").read_text())
    content["settings"] = {name: value for name, value in (content["settings"] | changes).items()
                           if name not in without}
    (place / "run" / "config.json").write_text(json.dumps(content))


def test_the_classes_and_the_digest_of_the_images_are_kept(trained):
    recorded = read_config(trained / "run")["settings"]
    assert recorded["class_names"] == list(CLASSES)
    assert recorded["data_sha256"] == load(f"folder:{trained / 'images'}", image_size=8).digest


@pytest.mark.parametrize(("asked", "number"), [("dog", 3), ("10", 1), ("2", 0), ("3", 3)])
def test_a_class_is_drawn_by_its_name_or_else_its_number(trained, tmp_path, asked, number):
    drawn = []
    for flags in (("--label", asked, "--num", 4), ("--grid-by-class", "--columns", 1)):
        assert tool(sample, trained / "run", "--out", tmp_path / "samples.npy", *flags) == 0
        drawn.append(np.load(tmp_path / "samples.npy"))
    np.testing.assert_allclose(drawn[0][number], drawn[1][number], atol=1e-6)


@pytest.mark.parametrize(("asked", "message"), [
    ("dgo", "label must be in [0, 4); got dgo, which is no class's name either: did you mean dog?"),
    ("4", "label must be in [0, 4); got 4"), ("-1", "label must be in [0, 4); got -1")])
def test_classes_that_there_are_not(trained, asked, message, capsys):
    assert tool(sample, trained / "run", f"--label={asked}") == 2
    assert message in capsys.readouterr().err


def test_a_run_that_names_no_classes_has_their_numbers(moved, capsys):
    change_settings(moved, "class_names")
    assert tool(sample, moved / "run", "--out", "a.npy", "--label", "3") == 0
    for names in (["a"], "abcd", 3):
        change_settings(moved, class_names=names)
        assert tool(sample, moved / "run", "--label", "dog") == 2
        assert "label must be in [0, 4); got dog" in capsys.readouterr().err


@pytest.mark.slow
def test_a_moved_folder_is_the_same_data(moved, capsys):
    assert tool(evaluate, moved / "run", *MEASURED) == 2
    assert "images: there is no such folder: say where it is now" in capsys.readouterr().err
    assert tool(evaluate, moved / "run", *MEASURED, "--data-dir", moved / "pictures") == 0
    assert tool(reproduce, moved / "run", "--data-dir", "../pictures") == 0
    assert "identical" in capsys.readouterr().out
    assert resume(moved, "../pictures") == 0
    assert read_config(moved / "run")["settings"]["folder"] == "../pictures"
    assert tool(evaluate, moved / "run", *MEASURED) == 0
    first, *others = (entry["protocol_sha256"] for entry in json.loads(
        (moved / "run" / "evaluation.json").read_text())["evaluations"])
    assert set(others) <= {first}  # however the place was spelt


def test_a_changed_folder_is_refused_where_the_bits_depend_on_it(moved, capsys):
    repaint(moved)
    assert resume(moved, moved / "pictures") == 2
    assert f"{moved / 'run'} was trained on other data than these" in capsys.readouterr().err
    for command, flags in ((reproduce, ()), (evaluate, MEASURED)):
        assert tool(command, moved / "run", "--data-dir", moved / "pictures", *flags) == 2
        assert "was trained on other data than these: their SHA-256 was" in capsys.readouterr().err
    assert tool(sample, moved / "run", "--out", "a.png") == 0  # which needs no data


def test_a_run_that_does_not_say_which_images_goes_on_where_they_were(moved, monkeypatch, capsys):
    """As those of the first release."""
    monkeypatch.chdir(moved)
    change_settings(moved, "data_sha256", "class_names", folder="pictures")
    shutil.copytree(moved / "pictures", moved / "copy")
    assert resume(moved, "copy") == 2
    assert "was trained on the images in 'pictures', and doesn't say which" in capsys.readouterr().err
    assert resume(moved, moved / "elsewhere" / ".." / "pictures") == 0


@pytest.mark.parametrize("name", ["conditional", "images", "inpainting"])
def test_streamed_or_not_the_digest_is_the_same(trained, name):
    experiment = opening.load(name)
    config = {"folder": str(trained / "images"), "image_size": 8}
    config |= {} if name == "images" else {"dataset": "folder"}
    config |= {"num_classes": 4} if name == "conditional" else {}
    sources = [experiment.make_source(experiment.configure(**config, **options))
               for options in ({}, {"stream": True}, {"stream": True, "on_demand": True})]
    assert {source.digest for source in sources} == {
        load(f"folder:{trained / 'images'}", image_size=8).digest}
    assert {source.class_names for source in sources} == {CLASSES}


def train_images(*flags):
    """Two steps of a small network on the device that there seems to be: the exit status."""
    return run_here("images", *TINY, "--steps", 2, "--sample-every", 0, *flags)


@pytest.mark.slow
def test_what_is_left_open_is_settled_by_device_and_images(tmp_path, monkeypatch, capsys):
    """And recorded, so that it stays so on another device."""
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures", size=12)
    experiment, little = opening.load("images"), ("--folder", "pictures", "--run-dir", "run")
    laptop, paper = (settings.flat(experiment.configure(name)) for name in ("laptop", "paper"))
    wanted = laptop | {"image_size": 12, "width": 8, "n_critic": 2, "steps": 2}
    names = ("model", "latent_size", "critic_norm", "learning_rate", "ema_decay")
    assert train_images(*little) == 0
    recorded = read_config("run")["settings"]
    assert {name: recorded[name] for name in (*names, "image_size", "width", "n_critic", "steps")} == {
        name: wanted[name] for name in (*names, "image_size", "width", "n_critic", "steps")}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    settled = settings.flat(experiment.settle(experiment.configure(folder="pictures")))
    assert {name: settled[name] for name in names} == {name: paper[name] for name in names}
    assert (settled["image_size"], settled["steps"], settled["n_critic"]) == (12, 200_000, 5)
    assert train_images(*little, "--resume", "auto", "--steps", 3) == 0
    again = read_config("run")["settings"]
    assert {name: again[name] for name in names} == {name: wanted[name] for name in names}
    config = launch.parse(experiment, ["--config", "run"])
    assert settings.flat(experiment.settle(config)) == settings.flat(config)
    assert {name: settings.flat(config)[name] for name in names} == {
        name: wanted[name] for name in names}
    assert tool(reproduce, "run") == 0
    assert tool(sample, "run", "--out", "a.png") == 0
    chosen = experiment.settle(experiment.configure("paper", folder="pictures", model="dcgan"))
    assert chosen == experiment.configure("paper", folder="pictures", model="dcgan")
    for broken, message in (({"folder": ""}, "folder is missing"), ({"folder": "x"}, "no such folder")):
        with pytest.raises(ValueError, match=message):
            experiment.settle(experiment.configure(**broken))


def test_what_is_left_open_goes_with_what_is_given(tmp_path):
    paint(tmp_path / "pictures", size=8)
    experiment = opening.load("images")

    def settled(**given):
        return settings.flat(experiment.settle(experiment.configure(
            folder=str(tmp_path / "pictures"), **given)))

    own = settled()
    assert [own[name] for name in ("loss", "penalty", "n_critic", "generator_norm", "kernel_size")] == [
        "relativistic", "r1_r2", 1, "none", 4]
    wgan = settled(loss="wasserstein")
    assert [wgan[name] for name in ("penalty", "penalty_weight", "n_critic", "beta2")] == [
        "gradient_penalty", 10.0, 2, 0.9]
    assert (wgan["generator_norm"], wgan["kernel_size"]) == (None, None)  # batch and 5
    hinge = settled(loss="hinge", penalty="r1", penalty_weight=0.5)
    assert [hinge[name] for name in ("loss", "penalty", "penalty_weight")] == ["hinge", "r1", 0.5]
    resnet = settled(model="resnet")
    assert (resnet["generator_norm"], resnet["kernel_size"]) == (None, None)


@pytest.mark.slow
@pytest.mark.slow
def test_a_run_that_was_begun_before_grey_images_stayed_grey(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / split / f"{i}.png")
    flags = ("--folder", "pictures", "--run-dir", "run")
    assert train_images(*flags, "--colour", "rgb") == 0
    change_settings(tmp_path, "colour", "fit", "transparency", "data_range", "table")
    assert tool(evaluate, "run", *MEASURED) == 0
    assert tool(reproduce, "run") == 0
    assert "identical" in capsys.readouterr().out
    assert train_images(*flags, "--resume", "auto", "--steps", 3, "--colour", "grey") == 2
    assert "colour is 'rgb' there and 'grey' here" in capsys.readouterr().err
    assert train_images(*flags, "--resume", "auto", "--steps", 3) == 0
    assert open_run("run").settings["sample_shape"] == [8, 8, 3]


@pytest.mark.slow
def test_a_run_that_was_begun_before_there_was_a_choice_of_kernels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures", size=12)
    flags = ("--folder", "pictures", "--run-dir", "run", "--model", "dcgan", "--image-size", 12)
    assert train_images("--preset", "paper", *flags) == 0  # with neither
    change_settings(tmp_path, "kernel_size", "generator_norm")
    assert train_images(*flags, "--resume", "auto", "--steps", 3) == 0
    assert open_run("run").config.networks.kernel_size is None


def test_a_run_without_its_settings_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures", size=12)
    assert train_images("--folder", "pictures", "--run-dir", "run") == 0
    change_settings(tmp_path, "width", "model")
    with pytest.raises(ValueError, match="model, width must be known by now: choose a preset"):
        open_run("run")


@pytest.mark.parametrize(("model", "shape"), [
    ("dcgan", (48, 64, 1)), ("dcgan", (24, 40, 6)), ("dcgan", (28, 28, 2)),
    ("resnet", (32, 64, 4)), ("resnet", (64, 16, 3)), ("resnet", (28, 28, 2))])
def test_networks_for_images_of_any_shape(model, shape):
    experiment = opening.load("images")
    config = experiment.configure("paper", model=model, width=4, image_size=f"{shape[0]}x{shape[1]}")
    game = game_of(experiment.make_game(config, shape))
    batch = Batch(jax.ShapeDtypeStruct((2, *shape), np.float32))
    state = jax.eval_shape(game.init, jax.random.key(0), batch)
    drawn = jax.eval_shape(lambda state: game.sample(state, jax.random.key(0), 3, None), state)
    assert drawn.shape == (3, *shape)


def test_a_size_that_the_resnet_does_not_take(tmp_path):
    experiment = opening.load("images")
    config = experiment.configure("paper", image_size="50x70")
    with pytest.raises(ValueError, match="image_size 50x70 can't be halved down to between 4 and 8"):
        experiment.make_game(config, (50, 70, 3))


@pytest.mark.parametrize(("flags", "message"), [
    (("--image-size", "48by64"), "image_size must be a number like 64, or height and width like 48x64"),
    (("--image-size", "0x8"), "from 1 to 16384; got 0x8"), (("--image-size", "8x99999"), "got 8x99999"),
    (("--image-size", "-3"), "height and width like 48x64, from 1 to 16384; got -3"),
    (("--image-size", "0"), "height and width like 48x64, from 1 to 16384; got 0"),
    (("--data-range", "3"), "data_range must be two numbers with a comma between, like 0,4095; got '3'"),
    (("--colour", "rgb", "--transparency", "keep"), "which colour rgb has not"),
    (("--table", "none.csv"), "none.csv: the table can't be read"),
    (("--batch-size", "999"), "batch"),
    (("--model", "resnet", "--kernel-size", "4"), "kernel_size is 4, but the resnet"),
    (("--kernel-size", "0"), "kernel_size"),
])
def test_flags_that_do_not_fit_the_images(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "pictures", size=8)
    assert train_images("--folder", "pictures", "--run-dir", "run", *flags) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_oblong_grey_images_of_sixteen_bits_from_an_archive(tmp_path, monkeypatch, capsys):
    """They are trained on, drawn and measured, in the range of the data."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with zipfile.ZipFile("deep.zip", "w") as archive:
        for i in range(24):
            file = io.BytesIO()
            Image.fromarray(rng.integers(1000, 5000, (8, 12)).astype(np.uint16)).save(file, "PNG")
            archive.writestr(f"{'test' if i > 15 else 'train'}/{i}.png", file.getvalue())
    for run, flags in (("held", ()), ("lazy", ("--stream", "--on-demand"))):
        assert train_images("--folder", "deep.zip", "--run-dir", run, *flags) == 0
    held, lazy = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("held", "lazy"))
    assert held["params_sha256"] == lazy["params_sha256"]
    recorded = read_config("held")["settings"]
    assert (recorded["sample_shape"], recorded["image_size"]) == ([8, 12, 1], "8x12")
    assert recorded["scaling"]["dtype"] == "uint16"
    assert 1000 <= recorded["scaling"]["low"][0] < 1100
    assert tool(sample, "held", "--out", "a.npy", "--num", 3) == 0
    assert tool(sample, "held", "--out", "a.png", "--num", 3) == 0
    measured = ("--metrics", "swd", "--num", 8, "--features", "raw")
    assert tool(evaluate, "held", *measured) == 0
    assert tool(evaluate, "held", "--images", "deep.zip", *measured, "--out", "a.json") == 0
    reals = json.loads((tmp_path / "a.json").read_text())["metrics"]["swd"]
    assert reals["value"] == reals["floor"]  # the first eight of the archive are the held-out ones
    Image.new("RGB", (9, 8)).save(tmp_path / "colour.png")
    (tmp_path / "other" / "a").mkdir(parents=True)
    (tmp_path / "colour.png").rename(tmp_path / "other" / "a" / "x.png")
    assert tool(evaluate, "held", "--images", "other", *measured) == 2
    assert "are uint8 of shape (8, 12, 1), but they are to be compared with uint16 of (8, 12, 1)" in (
        capsys.readouterr().err)


def test_arrays_are_known_by_what_is_in_them(tmp_path):
    images = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
    plan = {"steps": 1, "batch_size": 4, "devices": 1}
    train(tiny(), images, tmp_path / "run", **plan)
    train(tiny(), images.copy(), tmp_path / "run", **plan | {"steps": 2}, resume="auto")
    with pytest.raises(ValueError, match="was trained on other data than these"):
        train(tiny(), images[::-1], tmp_path / "run", **plan | {"steps": 3}, resume="auto")


def test_a_text_is_found_where_it_is_now(tmp_path):
    (tmp_path / "old.txt").write_text("to be or not to be " * 20)
    config = text.experiment.configure(text_file=str(tmp_path / "old.txt"))
    settings = launch.record(text.experiment, config, text.make_source(config),
                             text.make_reference(config))
    (tmp_path / "config.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "old.txt").rename(tmp_path / "new.txt")
    run = open_run(tmp_path, None, data_dir=str(tmp_path / "new.txt"))
    assert run.reference.about()["text_sha256"] == settings["text_sha256"]


# Folders that are measured.

def test_two_folders_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "theirs"), paint(tmp_path / "ours", CLASSES[:2], size=12)
    command = (evaluate, "--images", "ours", "--dataset", "folder:theirs", "--features", "raw",
               "--metrics", "pr", "--num", 12, "--out", "numbers.json")
    assert tool(*command) == 0
    assert "precision" in capsys.readouterr().out
    assert tool(*command, "--image-size", 4) == 0
    found = json.loads((tmp_path / "numbers.json").read_text())["protocol"]
    assert found["dataset_digest"] == load("folder:theirs", image_size=4).digest
    Image.new("RGB", (9, 8)).save(tmp_path / "theirs" / "test" / "cat" / "x.png")
    assert tool(*command) == 2
    assert "folder:theirs needs an image_size" in capsys.readouterr().err
    assert tool(*command, "--image-size", 8) == 0
    assert tool(*command, "--image-size", "4x6") == 0
    found = json.loads((tmp_path / "numbers.json").read_text())["protocol"]
    assert found["dataset_digest"] == load("folder:theirs", image_size=(4, 6)).digest
    assert tool(evaluate, "run", "--image-size", 8) == 2
    assert "image_size goes with --images and --dataset" in capsys.readouterr().err


@pytest.fixture(scope="module")
def described(tmp_path_factory, own_cache):
    """A zip file of images with a table of classes and numbers, and a run for each."""
    place = tmp_path_factory.mktemp("described")
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(place / "a.zip", "w") as archive:
        rows = ["file,label,angle,light"]
        for i in range(40):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (8, 12), np.uint8)).save(file, "png")
            archive.writestr(f"{i}.png", file.getvalue())
            rows.append(f"{i}.png,{'cat' if i % 4 else 'dog'},{i * 9},{0.01 * i}")
        archive.writestr("labels.csv", "\n".join(rows))
    for conditions, *more in (("classes", "--balance", "classes"), ("numbers",)):
        assert run_here("images", *TINY, "--steps", 2, "--latent-size", 4, "--n-critic", 1, "--folder",
                        place / "a.zip", "--image-size", "8x12", "--conditions", conditions, *more,
                        "--run-dir", place / conditions) == 0
    return place


@pytest.mark.slow
def test_images_are_drawn_for_classes_and_for_numbers(described, tmp_path):
    out = tmp_path / "s.npy"
    for run, *words in (("classes", "--label", "dog"), ("numbers", "--condition", "90,0.3")):
        assert tool(sample, described / run, *words, "--num", 3, "--out", out) == 0
        samples = np.load(out)
        assert (samples.shape, samples.dtype) == ((3, 8, 12, 1), np.uint8)
    assert tool(sample, described / "numbers", "--label", "dog") == 2  # there are classes, but not here
    for run in ("classes", "numbers"):
        with Image.open(described / run / "samples" / "step_00000002.png") as picture:
            assert 0.5 < picture.width / picture.height < 2  # more columns than the two classes
    opened = open_run(described / "numbers", None)
    assert opened.settings["numbers"]["low"][1] == pytest.approx(0.0, abs=0.02)
    assert opened.config.conditions.condition_numbers == 2
    assert opened.game.critic.num_numbers == 2
    assert open_run(described / "classes", None).game.generator.num_classes == 2


def test_classes_are_drawn_equally_often(described):
    opened = open_run(described / "classes", None)
    source = opened.experiment.make_source(opened.config)
    drawn = draw_step(source, source.arrays, jax.random.key(0), 0, 3600, np.arange(3600))
    assert np.abs(np.bincount(drawn.condition) - 1800).max() < 100


def test_images_are_asked_for_the_numbers_of_held_out_ones(described):
    opened = open_run(described / "numbers", None)
    test = load(f"folder:{described / 'a.zip'}", "test", image_size=(8, 12))
    asked = opened.reference.requests("test").condition(np.arange(len(test)))
    low, high = (np.array(opened.settings["numbers"][end]) for end in ("low", "high"))
    np.testing.assert_allclose(asked, 2 * (test.numbers - low) / (high - low) - 1, atol=1e-5)


def test_images_drawn_for_numbers_are_evaluated(described, monkeypatch):
    monkeypatch.setattr(features, "train_reader", partial(features.train_reader, updates=100))
    assert tool(evaluate, described / "numbers", "--metrics", "condition,swd", "--num", 20) == 0
    found, = json.loads((described / "numbers" / "evaluation.json").read_text())["evaluations"]
    assert 0 < found["metrics"]["condition"]["floor"] < 1


@pytest.fixture
def unclassed(trained, tmp_path):
    """Its images, in no classes."""
    folder = tmp_path / "unclassed"
    folder.mkdir()
    for i, path in enumerate(2 * sorted((trained / "images").glob("*/*/*.png"))):
        shutil.copy(path, folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("name", ["r3gan", "stylegan2", "gat", "adversarial_flow", "drifting"])
def test_images_in_no_classes_are_measured_without_a_classifier(name, trained, unclassed):
    experiment = opening.load(name)

    def features(folder, classes):
        config = launch.parse(experiment, [
            "--dataset", "folder", "--folder", str(folder), "--image-size", "8", "--classes", classes])
        return experiment.make_reference(config).features()

    assert features(unclassed, "0") == "raw"
    assert features(trained / "images", "4") == features(trained / "images", "0") == "classifier"


def test_images_in_no_classes_drift_in_pixels(unclassed, tmp_path, capsys):
    words = ("drifting", "--dataset", "folder", "--folder", unclassed, "--image-size", 8, "--width", 8,
             "--latent-size", 4, "--batch-size", 8, "--steps", 2, "--eval-every", 2, "--eval-metrics",
             "pr", "--run-dir", tmp_path / "run")
    assert run_here(*words) == 2
    assert "unclassed are in no classes, which a classifier could learn: give --space pixels" in (
        capsys.readouterr().err)
    assert run_here(*words, "--space", "pixels") == 0
    measured = json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"][-1]
    assert {"raw/precision", "raw/recall"} <= measured["metrics"].keys()


def test_a_class_of_which_all_images_are_for_tests(tmp_path, capsys):
    paint(tmp_path / "images")
    shutil.rmtree(tmp_path / "images" / "train" / "cat")
    assert run_here("images", *TINY, "--folder", tmp_path / "images", "--image-size", 8, "--conditions",
                    "classes", "--run-dir", tmp_path / "run") == 2
    assert "there are no images of the class cat to train on" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "message"), [
    (("--conditions", "numbers"), "--conditions numbers is for images in a table that has them"),
    (("--conditions", "classes", "--condition-classes", "7"), "condition_classes is 7, but"),
    (("--conditioning", "projection"), "give --conditions, or leave it out"),
])
def test_conditions_that_images_do_not_have(trained, tmp_path, capsys, flags, message):
    assert run_here("images", *TINY, "--folder", trained / "images", "--image-size", 8, "--run-dir",
                    tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
