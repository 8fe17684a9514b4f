"""The loop, the run's folder and the experiments, as a user meets them: in processes of their own."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import launch, opening, showing
from jaxgan import training
from jaxgan.data import Dataset, load, prefetch

LOOKS_AT_CURVES = True
ROOT = Path(__file__).resolve().parents[1]
TINY = ("--width", "8", "--batch-size", "8", "--n-critic", "2", "--log-every", "2", "--devices", "1",
        "--eval-every", "0")


_CACHE = tempfile.TemporaryDirectory()  # of compiled programs


def environment():
    """One device, as users mostly have it, and quick compilation."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    return os.environ | {"XLA_FLAGS": " ".join(flags), "XDG_CACHE_HOME": _CACHE.name}


def command(name, *flags):
    return [sys.executable, "-m", f"experiments.{name}", *map(str, flags)]


def run(name, *flags, status=0):
    done = subprocess.run(command(name, *flags), cwd=ROOT, env=environment(), capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def run_here(name, *flags):
    """The same in this process, which saves its start: the exit status."""
    experiment = opening.load(name)

    def train():
        launch.run(experiment, launch.parse(experiment, list(map(str, flags))))

    try:
        return launch.guarded(train)
    except SystemExit as stop:
        return stop.code


def other_threads():
    """All but the one that tqdm keeps."""
    return {thread for thread in threading.enumerate() if thread.name != "tqdm_monitor"}


def result(folder):
    return json.loads((folder / "result.json").read_text())


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A finished run of four steps."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run("digits", *TINY, "--steps", 4, "--sample-every", 2, "--run-dir", folder)
    return folder


def test_a_run_leaves_what_it_promises(digits):
    assert [row["step"] for row in rows(digits)] == [2, 4]
    assert sorted(path.name for path in (digits / "samples").iterdir()) == [
        "real.png", "step_00000002.png", "step_00000004.png"]
    with Image.open(digits / "samples" / "step_00000004.png") as image:
        assert image.size == (10 * 33 + 1, 10 * 33 + 1)  # 100 digits of 8x8, shown four times as large
    assert (digits / "curves.png").exists()
    assert list(digits.glob("events.out.tfevents.*"))
    config = json.loads((digits / "config.json").read_text())
    assert config["settings"]["experiment"] == "digits"
    assert config["settings"]["n_critic"] == 2
    assert config["versions"].keys() >= {"python", "jax", "jaxlib", "flax", "optax"}
    assert "experiments.digits" in " ".join(config["command"])
    outcome = result(digits)
    assert outcome["steps"] == 4
    assert outcome["iterations_per_second"] > 0
    assert outcome["duration_seconds"] > outcome["first_step_seconds"] > 0
    assert len(outcome["params_sha256"]) == 64
    assert outcome["final"].keys() >= {
        "critic/loss", "critic/penalty", "critic/wasserstein", "critic/gradient_norm",
        "critic/input_gradient_mean", "critic/input_gradient_std", "generator/loss",
        "generator/gradient_norm"}


def test_tensorboard_has_the_same_numbers(digits):
    from tensorboardX.proto import event_pb2

    # The record format: length (8 bytes), its checksum (4), the event, its checksum (4).
    seen = {}
    for path in digits.glob("events.out.tfevents.*"):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12:12 + length])
            for value in event.summary.value:
                seen[event.step, value.tag] = value
            data = data[16 + length:]
    last = rows(digits)[-1]
    assert seen[4, "critic/loss"].simple_value == pytest.approx(last["critic/loss"], rel=1e-6)
    assert seen[4, "samples"].image.width == 331


@pytest.mark.slow
def test_one_seed_gives_one_digest_however_it_is_run(digits, tmp_path):
    """Interrupted after two steps and resumed, logged and sampled at other steps: the same bits."""
    flags = (*TINY, "--run-dir", tmp_path / "run", "--log-every", 1, "--sample-every", 0)
    run("digits", *flags, "--steps", 2)
    run("digits", *flags, "--steps", 4, "--resume", "latest")
    assert result(tmp_path / "run")["params_sha256"] == result(digits)["params_sha256"]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4]
    assert rows(tmp_path / "run")[3] == rows(digits)[1]
    # Going back to step 2 drops what came after it, and comes to the same end.
    run("digits", *flags, "--steps", 4, "--resume", 2)
    assert result(tmp_path / "run")["params_sha256"] == result(digits)["params_sha256"]
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_streamed_images_give_the_same_digest(devices, tmp_path, monkeypatch, capsys):
    """Begun on the device and resumed in windows of two steps, on one device and on two."""
    monkeypatch.setattr(prefetch, "_BYTES", 2 * 16 * (8 * 8 + 8 + 12))
    flags = (*TINY, "--devices", devices, "--checkpoint-every", 1, "--keep", 4)
    assert run_here("digits", *flags, "--steps", 4, "--run-dir", tmp_path / "resident") == 0
    threads = other_threads()
    shutil.copytree(tmp_path / "resident", tmp_path / "run")
    assert run_here("digits", *flags, "--steps", 4, "--stream", "--resume", 1,
                    "--run-dir", tmp_path / "run") == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["stream"] is True
    assert result(tmp_path / "run")["params_sha256"] == result(tmp_path / "resident")["params_sha256"]
    assert rows(tmp_path / "run") == rows(tmp_path / "resident")
    deadline = time.monotonic() + 10  # TensorBoard's thread takes its time
    while other_threads() - threads:  # those of before may have ended by now
        assert time.monotonic() < deadline, other_threads() - threads
        time.sleep(0.1)


def test_images_that_can_no_longer_be_read_stop_a_run(tmp_path, monkeypatch, capsys):
    whole, asked = load("digits"), []

    class Failing(Dataset):
        def __getitem__(self, index):
            asked.append(index)
            if len(asked) == 5:  # the first are for their shape and the picture of real ones
                raise ValueError("the images are gone")
            return super().__getitem__(index)

    failing = Failing(whole.name, whole.images, whole.labels, whole.class_names)
    monkeypatch.setattr("experiments.digits.load", lambda name: failing)
    monkeypatch.setattr(prefetch, "_BYTES", 0)
    threads = other_threads()
    assert run_here("digits", *TINY, "--steps", 4, "--stream", "--checkpoint-every", 1,
                    "--run-dir", tmp_path / "run") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: the images are gone"
    assert [row["step"] for row in rows(tmp_path / "run")] == [2]
    deadline = time.monotonic() + 10  # TensorBoard's thread takes its time
    while other_threads() - threads:  # those of before may have ended by now
        assert time.monotonic() < deadline, other_threads() - threads
        time.sleep(0.1)


def test_what_compiling_took_is_given_back_before_the_first_step(tmp_path, monkeypatch):
    """Once, right after the steps' program was compiled, which is the one that they take."""
    done, real = [], training.release

    def compiled(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration" and "run_steps" in fun_name:
            done.append("compiled")

    def release():
        done.append("given back")
        real()

    monkeypatch.setattr(training, "release", release)
    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        assert run_here("digits", *TINY, "--steps", 4, "--no-keep-programs", "--run-dir",
                        tmp_path / "run") == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)
    assert done == ["compiled", "given back"]


@pytest.mark.slow
def test_another_seed_gives_another_digest(digits, tmp_path):
    run("digits", *TINY, "--steps", 4, "--seed", 1, "--run-dir", tmp_path / "run")
    assert result(tmp_path / "run")["params_sha256"] != result(digits)["params_sha256"]


def test_resuming_a_finished_run_changes_nothing(digits):
    before = result(digits)
    run("digits", *TINY, "--steps", 4, "--sample-every", 2, "--run-dir", digits, "--resume", "auto")
    assert result(digits) == before
    assert [row["step"] for row in rows(digits)] == [2, 4]


@pytest.mark.slow
def test_another_runs_result_is_not_taken_for_this_ones(digits, tmp_path, capsys):
    """Nor is one that is damaged: it is written anew, from the checkpoint, and said."""
    shutil.copytree(digits, tmp_path / "run")
    for content in (json.dumps(result(digits) | {"params_sha256": "0" * 64}), "{}"):
        (tmp_path / "run" / "result.json").write_text(content)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert run_here("digits", *TINY, "--steps", 4, "--sample-every", 2, "--run-dir",
                            tmp_path / "run", "--resume", "auto") == 0
        printed = capsys.readouterr()
        assert printed.err.count("it is written anew") == 1
        assert result(digits)["params_sha256"][:12] in printed.out
        for name in ("params_sha256", "leaves_sha256", "final", "steps"):
            assert result(tmp_path / "run")[name] == result(digits)[name]


@pytest.mark.slow
def test_sample_and_list(digits, tmp_path):
    run("sample", digits, "--num", 6, "--out", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (3 * 33 + 1, 2 * 33 + 1)
    run("sample", digits, "--num", 5, "--out", tmp_path / "five.npy")
    run("sample", digits, "--num", 3, "--out", tmp_path / "three.npy")
    np.testing.assert_allclose(np.load(tmp_path / "five.npy")[:3], np.load(tmp_path / "three.npy"),
                               atol=1e-6)
    run("sample", digits, "--num", 2, "--interpolate", "--columns", 5, "--out", tmp_path / "path.png")
    with Image.open(tmp_path / "path.png") as image:
        assert image.size == (5 * 33 + 1, 2 * 33 + 1)
    run("sample", digits, "--num", 4, "--interpolate", "--columns", 3, "--out", tmp_path / "way.gif")
    with Image.open(tmp_path / "way.gif") as image:
        assert (image.size, image.n_frames) == ((2 * 33 + 1, 2 * 33 + 1), 2 * 3 - 2)
    run("sample", digits, "--num", 3, "--out", tmp_path / "each")
    with Image.open(tmp_path / "each" / "000002.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.load(tmp_path / "three.npy")[2, ..., 0])
    for flags, message in (
            (("--out", "way.gif"), "give --interpolate, and with --columns the number of frames"),
            (("--out", tmp_path / "each"), "no empty folder: name another one"),
            (("--frame-rate", 5), "frame-rate is for animations"),
            (("--interpolate", "--out", "a.gif", "--frame-rate", 0), "at least 1; got 0")):
        assert message in run("sample", digits, *flags, status=2).stderr
    table = run("list", digits.parent).stdout
    assert "digits" in table
    assert result(digits)["params_sha256"][:12] in table


@pytest.mark.parametrize(("flags", "message"), [
    (("--stepz", 3), "--steps"),
    (("--loss", "wasserstien"), "wasserstein"),
    (("--steps", 0), "steps must be at least 1; got 0"),
    (("--batch-size", -1), "batch_size must be at least 1; got -1"),
    (("--batch-size", 5000), "larger than the data set, which has 1438 examples"),
    (("--devices", 99), "devices is 99, but there are only"),
    (("--resume", "latest"), "there is nothing to resume"),
    (("--resume", "latst"), "resume must be auto, latest or a step; got 'latst'"),
    (("--critic-norm", "batch"), "not defined for a critic with batch normalisation"),
    (("--ema-decay", 1.5), "ema_decay must be in [0, 1); got 1.5"),
    (("--learning-rate", -1.0), "learning_rate must be above 0; got -1.0"),
    (("--penalty-weight", -1.0), "penalty_weight must not be negative; got -1.0"),
    (("--label-smoothing", 0.1), "label_smoothing is for the losses"),
    (("--critic-norm", "orthonormal", "--clip", 0.01), "clip does not go with critic_norm orthonormal"),
    (("--remat",), "remat is for residual networks"),
    (("--latent-size", 10**10), "latent_size must be from 1 to 1048576; got 10000000000"),
    (("--width", 10**9), "width must be from 1 to 16384; got 1000000000"),
    (("--best-metric", "los", "--steps", 1), "no metric is called 'los'"),
])
def test_bad_flags_get_one_sentence_and_status_2(flags, message, tmp_path, capsys):
    assert run_here("digits", *TINY, "--run-dir", tmp_path / "run", *flags) == 2
    printed = capsys.readouterr()
    assert message in printed.err + printed.out
    assert "--best-metric" in flags or not (tmp_path / "run").exists()  # found out at the first save


def test_a_folder_with_another_run_is_left_alone(digits, capsys):
    def contents():
        return {path: path.read_bytes() for path in digits.rglob("*") if path.is_file()}

    before = contents()
    assert run_here("digits", *TINY, "--steps", 4, "--loss", "hinge", "--run-dir", digits) == 2
    message = capsys.readouterr().err
    assert "loss is 'wasserstein' there and 'hinge' here" in message
    assert "choose another --run-dir" in message
    assert run_here("digits", *TINY, "--steps", 4, "--sample-every", 2, "--run-dir", digits) == 2
    assert "go on with --resume latest, or choose another --run-dir" in capsys.readouterr().err
    assert contents() == before


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("precious")
    assert run_here("digits", *TINY, "--steps", 2, "--run-dir", tmp_path) == 2
    assert "is not an empty folder nor a run's" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(("free", "message"), [(1_000, "[Errno 28] No space left on device: "),
                                               (1_050_000, "there is no room in ")])
def test_a_full_disk_stops_with_a_sentence(free, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    flags = (*TINY, "--steps", 2, "--resume", "auto", "--run-dir", tmp_path / "run")
    assert run_here("digits", *flags) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {message}")
    assert "free some space and go on" in error
    monkeypatch.undo()
    assert run_here("digits", *flags) == 0


def test_divergence_stops_and_names_step_and_metric(tmp_path, capsys):
    assert run_here("digits", *TINY, "--steps", 20, "--learning-rate", 1e30, "--checkpoint-every", 2,
                    "--run-dir", tmp_path / "run") == 2
    assert "is not finite at step" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [
    ("--loss", "minimax", "--penalty", "none", "--label-smoothing", 0.1),
    pytest.param(("--loss", "least_squares", "--penalty", "none", "--critic-norm", "batch"),
                 marks=pytest.mark.slow),
    ("--penalty", "none", "--clip", 0.01, "--optimizer", "rmsprop", "--learning-rate", 5e-5),
    pytest.param(("--loss", "hinge", "--penalty", "none", "--critic-norm", "spectral"),
                 marks=pytest.mark.slow),
    pytest.param(("--penalty", "none", "--critic-norm", "orthonormal"), marks=pytest.mark.slow),
    pytest.param(("--loss", "non_saturating", "--penalty", "dragan", "--critic-norm", "layer"),
                 marks=pytest.mark.slow),
    pytest.param(("--loss", "relativistic", "--penalty", "r1_r2", "--input-noise", 0.1,
                  "--input-noise-steps", 5), marks=pytest.mark.slow),
    ("--precision", "bfloat16", "--fakes-at-once"),
    pytest.param(("--loss", "non_saturating", "--penalty", "none", "--pack", 2, "--input-noise", 0.1),
                 marks=pytest.mark.slow),
], ids=["gan", "lsgan", "wgan", "sngan", "orthonormal", "dragan", "r3gan", "bfloat16", "pacgan"])
def test_the_families_are_one_command_each(flags, tmp_path, capsys):
    assert run_here("gaussians", "--preset", "paper", *TINY, "--steps", 2, "--run-dir", tmp_path / "run",
                    *flags) == 0, capsys.readouterr().err
    assert result(tmp_path / "run")["steps"] == 2


@pytest.mark.parametrize("name", ["cifar10", "conditional", "digits", "images", "mnist"])
def test_images_are_streamed_on_request(name, tmp_path, monkeypatch):
    module = importlib.import_module(f"experiments.{name}")
    options, ways, configure = {}, [{}, {"stream": True}], module.experiment.configure
    if name == "images":
        for i, split in enumerate(("train", "test")):
            (tmp_path / split).mkdir()
            Image.new("RGB", (64, 64), (i, 2, 3)).save(tmp_path / split / "a.png")
        options["folder"] = str(tmp_path)
        ways.append({"stream": True, "on_demand": True})
        with pytest.raises(ValueError, match="give --stream as well"):
            module.make_source(configure(**options, on_demand=True))
    else:
        monkeypatch.setattr(module, "load", lambda *_, **__: load("digits"), raising=False)
    kept, *streamed = (module.make_source(configure(**options, **way)) for way in ways)
    assert kept.window is None
    for source in streamed:
        assert source.window is not None
        assert source[2:6] == kept[2:6]
        np.testing.assert_array_equal(*(showing.real_picture(
            each, 0, {"value_range": each.value_range}) for each in (source, kept)))
