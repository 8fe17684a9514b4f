"""`experiments.arrays`: files of each kind are trained on, and drawn in their own units."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, measuring, open_run, sample, settings
from experiments.arrays import experiment
from jaxgan.data import draw_step, open_arrays
from tests.test_experiments import tool
from tests.test_training import run_here

pytestmark = pytest.mark.usefixtures("quick_compilation", "own_cache")
RANDOM = np.random.default_rng(0)
LITTLE = ("--steps", 1, "--batch-size", 4, "--n-critic", 1, "--devices", 1, "--eval-every", 0,
          "--width", 4, "--units", 8, "--latent-size", 4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each kind; the vectors' is for classes, the series' for numbers."""
    folder = tmp_path_factory.mktemp("arrays")
    np.savez(folder / "vectors.npz", samples=RANDOM.normal([1000, 0.01], [50, 0.001], (40, 2)),
             kind=np.array(["low", "high"] * 20))
    np.savez(folder / "series.npz", x=RANDOM.normal(20, 3, (40, 9, 2)).astype(np.float32),
             both=RANDOM.uniform(0, 10, (40, 2)).astype(np.float32))
    np.save(folder / "images.npy", RANDOM.integers(100, 4000, (40, 9, 18)).astype(np.uint16))
    np.save(folder / "volumes.npy", RANDOM.integers(-1000, 1000, (40, 2, 5, 8, 8)).astype(np.int16))
    for file, *flags in (
            ("vectors.npz", "--conditions", "kind", "--conditioning", "classes", "--balance", "classes"),
            ("series.npz", "--conditions", "both"), ("images.npy",),
            ("volumes.npy", "--data-range", "-2000,2000", "--channels", "first")):
        assert run_here("arrays", "--file", folder / file, "--run-dir", folder / file.partition(".")[0],
                        *LITTLE, *flags) == 0
    return folder


@pytest.mark.parametrize(("kind", "shape", "dtype", "low", "high"), [
    ("vectors", (2,), "float64", -np.inf, np.inf), ("volumes", (2, 5, 8, 8), "int16", -2000, 2000),
    pytest.param("series", (9, 2), "float32", -np.inf, np.inf, marks=pytest.mark.slow),
    pytest.param("images", (9, 18), "uint16", 100, 4000, marks=pytest.mark.slow)])
def test_samples_have_units_and_axes_of_the_file(runs, tmp_path, kind, shape, dtype, low, high):
    assert tool(sample, runs / kind, "--num", 7, "--out", tmp_path / "s.npy") == 0
    samples = np.load(tmp_path / "s.npy")
    assert samples.shape == (7, *shape)
    assert samples.dtype == dtype
    assert (samples >= low).all()
    assert (samples <= high).all()
    scaling = open_run(runs / kind, None).settings["scaling"]
    least, most = np.array(scaling["low"]), np.array(scaling["high"])
    # What an untrained network draws is about 0, where the middle of the file's range is.
    mean = samples.mean(tuple(range(samples.ndim - 1)))
    assert (np.abs(mean - (least + most) / 2) < (most - least) / 2).all()


def test_vectors_as_a_table(runs, tmp_path, capsys):
    for name in ("s.npy", "s.csv"):
        assert tool(sample, runs / "vectors", "--num", 5, "--out", tmp_path / name) == 0
    table = np.loadtxt(tmp_path / "s.csv", delimiter=",")
    np.testing.assert_allclose(table, np.load(tmp_path / "s.npy"), rtol=1e-7)
    assert tool(sample, runs / "series", "--out", tmp_path / "s.csv") == 2
    assert "out must end in .png, .npy or .npz for" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_one_held_out_sample_is_no_floor(tmp_path, capsys):
    np.save(tmp_path / "few.npy", RANDOM.normal(size=(10, 3)))
    assert run_here("arrays", "--file", tmp_path / "few.npy", "--run-dir", tmp_path / "run", *LITTLE,
                    "--eval-every", 1) == 0
    assert "one sample alone: there will be no numbers of held-out reals" in capsys.readouterr().err


def test_pictures_are_shown_in_training_and_afterwards(runs):
    for kind in ("vectors", "series", "images", "volumes"):
        assert tool(sample, runs / kind, "--num", 5) == 0
        drawn, = (runs / kind / "drawn").iterdir()
        for picture in (drawn, *(runs / kind / "samples").glob("*.png")):
            pixels = np.asarray(Image.open(picture))
            assert pixels.ndim == 3
            assert pixels.std() > 5  # there is something on it
        assert tool(sample, runs / kind, "--num", 5) == 0  # beside the one before, not over it
        assert len(list((runs / kind / "drawn").iterdir())) == 2


def test_words_are_classes_and_numbers_in_their_own_units(runs, tmp_path, capsys):
    out = ("--out", tmp_path / "s.npy", "--num", 3)
    for label in ("low", "1"):
        assert tool(sample, runs / "vectors", "--label", label, *out) == 0
    assert tool(sample, runs / "vectors", "--label", "middle", *out) == 2
    assert tool(sample, runs / "vectors", "--condition", "1", *out) == 2
    assert "is no run for numbers" in capsys.readouterr().err
    drawn = []
    for words in ("1,9", "9,1"):
        assert tool(sample, runs / "series", "--condition", words, *out) == 0
        drawn.append(np.load(tmp_path / "s.npy"))
    assert (drawn[0] != drawn[1]).any()
    for words, message in (("1", "must be 2 finite numbers for this run; got '1'"),
                           ("1,x", "numbers like 0.3,1.2; got '1,x'"), ("1,nan", "2 finite numbers")):
        assert tool(sample, runs / "series", "--condition", words, *out) == 2
        assert message in capsys.readouterr().err
    assert tool(sample, runs / "series", "--condition", "1,50", *out) == 0
    assert "50 is not in " in capsys.readouterr().err


def test_classes_are_drawn_equally_often(tmp_path):
    np.savez(tmp_path / "few.npz", samples=RANDOM.normal(0, 1, (100, 2)),
             kind=np.repeat(["often", "seldom"], [90, 10]))
    opened = experiment.settle(settings.replace(
        experiment.Config(), file=str(tmp_path / "few.npz"), conditions="kind", balance="classes"))
    source = experiment.make_source(opened)
    drawn = draw_step(source, source.arrays, jax.random.key(0), 0, 100, np.arange(100))
    assert np.abs(np.bincount(drawn.condition) - 50).max() < 3


def test_samples_are_asked_for_the_numbers_of_held_out_ones(runs):
    opened = open_run(runs / "series", None)
    test = open_arrays(runs / "series.npz", condition="both").test
    asked = opened.reference.requests("test").condition(np.arange(len(test) + 1))
    low, high = test.number_scaling.low, test.number_scaling.high
    expected = 2 * (test.numbers - low) / (np.array(high) - low) - 1
    np.testing.assert_allclose(asked, np.r_[expected, expected[:1]], atol=1e-5)  # over and over


def test_conditions_are_evaluated(runs, monkeypatch, capsys):
    train = measuring.features.train_reader
    monkeypatch.setattr(measuring.features, "train_reader",
                        lambda *arguments, **options: train(*arguments, **options, updates=100))
    for kind, number in (("vectors", "samples read as another class"),
                         ("series", "error of the numbers read")):
        assert tool(evaluate, runs / kind, "--metrics", "condition,swd", "--num", 20) == 0
        printed = capsys.readouterr().out
        assert number in printed
        assert "4 held-out reals" in printed  # beside 20 samples
        found = json.loads((runs / kind / "evaluation.json").read_text())
        entry, = found.get("evaluations", [found])
        assert 0 <= entry["metrics"]["condition"]["value"] <= 1
        assert 0 <= entry["metrics"]["condition"]["floor"] <= 1


@pytest.mark.parametrize(("flags", "message"), [
    ((), "file is missing: give a .npy, .npz or HDF5 file with --file"),
    (("--file", "vectors.npz", "--conditions", "sort"), "no array 'sort' in "),
    (("--file", "vectors.npz", "--conditions", "kind", "--condition-classes", "3"),
     "condition_classes is 3, but the condition in "),
    (("--file", "vectors.npz", "--balance", "classes"), "--balance classes is for"),
    (("--file", "vectors.npz", "--units", "0"), "units must be from 1 to 16384; got 0"),
    (("--file", "series.npz", "--conditions", "both", "--conditioning", "classes"),
     "--conditioning classes is for"),
    (("--file", "vectors.npz", "--data-range", "0"),
     "data_range must be two numbers with a comma between, like 0,4095; got '0'"),
    (("--file", "images.npy", "--kind", "volumes"), "are no volumes"),
])
def test_flags_that_do_not_fit(runs, monkeypatch, tmp_path, capsys, flags, message):
    monkeypatch.chdir(runs)
    assert run_here("arrays", *LITTLE, "--run-dir", tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_that_was_moved_is_found_and_another_one_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "images", tmp_path / "run")
    moved, other = tmp_path / "moved.npy", tmp_path / "other.npy"
    shutil.copy(runs / "images.npy", moved)
    np.save(other, np.load(moved)[::-1])
    measured = ("--metrics", "swd", "--num", 4)
    assert tool(evaluate, tmp_path / "run", "--data-dir", moved, *measured) == 0
    assert tool(evaluate, tmp_path / "run", "--data-dir", other, *measured) == 2
    assert "the data are not what the run was trained on" in capsys.readouterr().err
    # A run goes on wherever the same data are.
    again = ("arrays", *LITTLE, "--steps", 2, "--run-dir", tmp_path / "run", "--resume", "auto",
             "--file")
    assert run_here(*again, other) == 2
    assert "was trained on other data than these" in capsys.readouterr().err
    assert run_here(*again, moved) == 0
