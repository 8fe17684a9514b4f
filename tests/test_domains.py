"""Images of two kinds: outlines, pairs and no pairs, folders of them, and runs that translate."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import cyclegan, domains, evaluate, pix2pix, sample
from experiments.settings import replace
from jaxgan.data import (
    DataNotFoundError,
    Dataset,
    draw_step,
    flipped,
    load,
    open_domains,
    outlines,
    resident,
    streaming,
    translating,
    windows,
)
from tests.test_measuring import stored, tool
from tests.test_training import run_here

pytestmark = pytest.mark.usefixtures("quick_compilation", "own_cache")
KEY = jax.random.key(4)
TINY = ("--width", "2", "--image-size", "8", "--batch-size", "4", "--steps", "2", "--log-every", "1",
        "--sample-every", "0", "--devices", "1", "--no-keep-programs", "--decay-steps", "2")


def numbered(count, first):
    """Images of one grey each, by which they are known."""
    images = np.broadcast_to(first + np.arange(count)[:, None, None, None], (count, 2, 3, 1))
    return Dataset("numbered", images.astype(np.uint8), np.zeros(count, np.int32), ("any",))


def drawn(source, count, step=0):
    """The greys of a step's samples, and of their condition."""
    batch = jax.jit(lambda arrays: draw_step(source, arrays, KEY, step, count, jnp.arange(count)))(
        source.arrays)
    return [np.rint((np.asarray(x)[:, 0, 0, 0] + 1) * 127.5).astype(int) for x in (
        batch.samples, batch.condition)]


# What is drawn.

def test_a_pair_is_enlarged_and_cut_at_one_place(monkeypatch):
    """By the flag: images that are their own partners stay so, and of others each kind has its place."""
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
    kinds = (Dataset("a", images, np.zeros(12, np.int32), ("any",)),) * 2
    monkeypatch.setattr(domains, "open_kinds", lambda *_, **__: kinds)
    config = replace(pix2pix.Config(), jitter=1.25)
    for paired in (True, False):
        source = domains.make_source(config, paired=paired)
        batch = draw_step(source, source.arrays, KEY, 0, 12, jnp.arange(12))
        assert batch.samples.shape == (12, 8, 8, 1)
        assert np.array_equal(batch.samples, batch.condition) == paired
    with pytest.raises(ValueError, match=r"jitter must be from 1 to 2, like 1\.1; got 0\.5"):
        domains.make_source(replace(config, jitter=0.5), paired=True)


def test_an_outline_is_what_is_bright_beside_something_dark():
    picture = np.array([[[0, 200, 200, 200, 0],
                         [0, 200, 128, 200, 0],
                         [0, 200, 200, 200, 127],
                         [0, 0, 0, 0, 0]]], np.uint8)[..., None]
    expected = np.array([[0, 1, 1, 1, 0], [0, 1, 0, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]) * 255
    np.testing.assert_array_equal(outlines(picture)[0, ..., 0], expected)
    np.testing.assert_array_equal(outlines(np.full((1, 3, 3, 1), 255, np.uint8))[0, ..., 0],
                                  [[255, 255, 255], [255, 0, 255], [255, 255, 255]])


def test_pairs_stay_together():
    source = translating(resident(numbered(7, 10)), resident(numbered(7, 100)), paired=True)
    samples, condition = drawn(source, 14)
    np.testing.assert_array_equal(samples, condition + 90)
    assert sorted(samples[:7]) == sorted(samples[7:]) == list(range(100, 107))
    assert (samples[:7] != samples[7:]).any()


def test_without_pairs_each_kind_comes_in_an_order_of_its_own():
    """Each of the 4 comes once in every four draws, each of the 6 once in every six."""
    source = translating(resident(numbered(4, 10)), resident(numbered(6, 100)), paired=False)
    samples, condition = drawn(source, 12)
    assert sorted(samples[:6]) == sorted(samples[6:]) == list(range(100, 106))
    for first in (0, 4, 8):
        assert sorted(condition[first:first + 4]) == list(range(10, 14))
    later = drawn(source, 12, step=1)
    assert (later[1] != condition).any()
    even = translating(resident(numbered(6, 10)), resident(numbered(6, 100)), paired=False)
    assert len({*np.subtract(*drawn(even, 6))}) > 1


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_streamed_batches_are_those_of_the_device(paired):
    kinds = numbered(5, 10), numbered(5 if paired else 8, 100)
    whole = translating(*map(resident, kinds), paired=paired)
    source = translating(*map(streaming, kinds), paired=paired)
    draws = [jax.jit(lambda arrays, step, of=of: draw_step(of, arrays, KEY, step, 4, jnp.arange(4)))
             for of in (whole, source)]
    start = 0
    for arrays, stop in windows(source, KEY, 4, 0, 6):
        for step in range(start, stop):
            jax.tree.map(np.testing.assert_array_equal, tuple(draws[1](arrays, step)),
                         tuple(draws[0](whole.arrays, step)))
        start = stop
    assert start == 6


def test_both_of_a_pair_are_mirrored_alike():
    images = np.random.default_rng(0).integers(0, 256, (9, 2, 4, 1), np.uint8)
    kind = Dataset("any", images, np.zeros(9, np.int32), ("any",))
    source = flipped(translating(resident(kind), resident(kind), paired=True))
    batch = draw_step(source, source.arrays, KEY, 0, 18, jnp.arange(18))
    np.testing.assert_array_equal(batch.samples, batch.condition)
    plain = draw_step(translating(resident(kind), resident(kind), paired=True), source.arrays, KEY, 0,
                      18, jnp.arange(18)).samples
    is_flipped = np.asarray((batch.samples != plain).any((1, 2, 3)))
    assert 2 < is_flipped.sum() < 16
    np.testing.assert_array_equal(batch.samples, np.where(
        is_flipped[:, None, None, None], plain[:, :, ::-1], plain))


def test_pairs_of_sets_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="as many images of one kind as of the other; got 3 and 4"):
        translating(resident(numbered(3, 0)), resident(numbered(4, 0)), paired=True)


# Folders.

def save(path, value=0, size=(8, 8), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if mode == "L" else (value, 0, 7)).save(path)


def pairs(root, count=30, **kinds):
    for i in range(count):
        save(root / "A" / f"{i}.png", i, **kinds.get("a", {}))
        save(root / "B" / f"{i}.png", 100 + i, **kinds.get("b", {}))
    return root


def test_partners_are_files_of_one_name_in_one_split(tmp_path):
    pairs(tmp_path)
    (tmp_path / "B" / "3.png").rename(tmp_path / "B" / "3.bmp")  # which says nothing of its content
    (train, train_b), (test, test_b) = (open_domains(tmp_path, split, paired=True)
                                        for split in ("train", "test"))
    for one, other in ((train, train_b), (test, test_b)):
        np.testing.assert_array_equal(one.images + 100, other.images)
    assert sorted([*train.images[:, 0, 0, 0], *test.images[:, 0, 0, 0]]) == list(range(30))
    assert 0 < len(test) < 10
    alone = load(f"folder:{tmp_path / 'A'}", "test")
    np.testing.assert_array_equal(alone.images, test.images)


@pytest.mark.parametrize("names", [("train/A", "train/B", "test/A", "test/B"), None])
def test_other_arrangements(names, tmp_path):
    """trainA and testA beside each other, or splits inside of A and B."""
    places = ({("train", "A"): "A/train", ("test", "A"): "A/test", ("train", "B"): "B/train",
               ("test", "B"): "B/test"} if names else
              {(split, kind): f"{split}{kind}" for split in ("train", "test") for kind in "AB"})
    for (split, kind), place in places.items():
        for i in range(3):
            save(tmp_path / place / f"{i}.png", i + 10 * (split == "test") + 100 * (kind == "B"))
    for split, first in (("train", 0), ("test", 10)):
        one, other = open_domains(tmp_path, split, paired=True)
        assert one.images[:, 0, 0, 0].tolist() == [first, first + 1, first + 2]
        np.testing.assert_array_equal(other.images, one.images + 100)
        assert len(open_domains(tmp_path, split, paired=False)[1]) == 3


@pytest.mark.parametrize("paired", [True, False])
def test_what_is_held_out_was_not_trained_on(paired, tmp_path):
    """Of trainA and trainB a tenth, where there is no test; half a test is refused."""
    pairs(tmp_path, 40)
    for kind in "AB":
        (tmp_path / kind).rename(tmp_path / f"train{kind}")
    seen, held_out = (open_domains(tmp_path, split, paired=paired) for split in ("train", "test"))
    for trained, kept in zip(seen, held_out, strict=True):
        values = [{*images.images[:, 0, 0, 0].tolist()} for images in (trained, kept)]
        assert min(map(len, values)) > 0
        assert len(values[0]) + len(values[1]) == len(values[0] | values[1]) == 40  # none in both
    (tmp_path / "testA").mkdir()
    with pytest.raises(DataNotFoundError, match="of testA and testB there is testA alone"):
        open_domains(tmp_path, "test", paired=paired)


@pytest.mark.parametrize("paired", [True, False])
def test_what_can_not_be_evaluated_is_refused_before_training(paired, tmp_path):
    for place in ("trainA", "trainB", "testA", "testB"):
        for i in range(2):
            save(tmp_path / place / f"{i}.png", i)
    (tmp_path / "testB" / "0.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"testB: 1 of 2 images cannot be read: 0.png .*mend or remove"):
        open_domains(tmp_path, "train", paired=paired)


def test_both_kinds_are_read_in_the_same_colours_and_size(tmp_path):
    pairs(tmp_path, 12, b={"mode": "RGB"})
    one, other = open_domains(tmp_path, "train", paired=False, image_size=(4, 6))
    assert one.images.shape[1:] == other.images.shape[1:] == (4, 6, 3)
    assert {image.dtype for image in (one.images, other.images)} == {np.dtype(np.uint8)}


def test_what_is_no_folder_of_two_kinds(tmp_path):
    pairs(tmp_path / "alone", 4)
    save(tmp_path / "alone" / "A" / "x.png")
    save(tmp_path / "alone" / "B" / "y.png")
    with pytest.raises(ValueError, match=r"2 images have no partner of the same name: A/x\.png, B/y\."):
        open_domains(tmp_path / "alone", "train", paired=True)
    assert len(open_domains(tmp_path / "alone", "train", paired=False)) == 2
    save(tmp_path / "alone" / "A" / "y.bmp")
    save(tmp_path / "alone" / "A" / "y.png")
    with pytest.raises(ValueError, match=r"y\.bmp and y\.png are of one name: rename one"):
        open_domains(tmp_path / "alone", "train", paired=True)
    save(tmp_path / "one" / "A" / "x.png")
    with pytest.raises(DataNotFoundError, match=r"folders of images in it, A and B .*; there are A$"):
        open_domains(tmp_path / "one", "train", paired=True)
    with pytest.raises(DataNotFoundError, match=r"; there is none$"):
        open_domains(tmp_path / "none", "train", paired=False)
    (tmp_path / "one" / "B").mkdir()
    with pytest.raises(DataNotFoundError, match="there is no image file in the folder"):
        open_domains(tmp_path / "one", "train", paired=False)
    (tmp_path / "file.zip").write_bytes(b"")
    with pytest.raises(DataNotFoundError, match=r"file\.zip is a file: unpack it"):
        open_domains(tmp_path / "file.zip", "train", paired=False)
    pairs(tmp_path / "sizes", 4, b={"size": (6, 8)})
    with pytest.raises(ValueError, match="of A and B are of 8x8 and 6x8: give an image_size"):
        open_domains(tmp_path / "sizes", "train", paired=False)


# Runs.

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with pairs, and two runs of two steps: pix2pix on it, CycleGAN on the outlines."""
    root = tmp_path_factory.mktemp("translating")
    pairs(root / "data", b={"mode": "RGB"})
    assert run_here("pix2pix", *TINY, "--folder", root / "data", "--run-dir", root / "pix2pix",
                    "--eval-every", "0") == 0
    assert run_here("cyclegan", *TINY, "--blocks", "1", "--run-dir", root / "cyclegan", "--eval-every",
                    "2", "--eval-metrics", "translation") == 0
    return root


def settings(folder):
    return json.loads((folder / "config.json").read_text())["settings"]


@pytest.mark.slow
def test_runs_and_their_pictures(runs):
    found = settings(runs / "pix2pix")
    assert found["sample_shape"] == [8, 8, 3]
    assert found["condition"] == [[8, 8, 3], "float32"]
    assert len(found["source_sha256"]) == len(found["data_sha256"]) == 64
    with Image.open(runs / "cyclegan" / "samples" / "step_00000002.png") as picture:
        assert picture.size == (12 * 33 + 1, 6 * 33 + 1)
    held_out = len(open_domains(runs / "data", "test", paired=True)[0])
    with Image.open(runs / "pix2pix" / "samples" / "step_00000002.png") as picture:
        assert picture.size == (held_out * 33 + 1, 3 * 33 + 1)  # the image, its translation, its partner


@pytest.mark.slow
def test_evaluations_compare_with_the_partner_and_with_what_was_not_translated(runs, capsys):
    report, = stored(runs / "cyclegan")
    report = report["metrics"]
    test = load("digits", "test", image_size=8)
    lines = outlines(test.images)
    assert report["l1"]["untranslated"] == pytest.approx(
        np.abs(lines / 255 - test.images / 255).mean(), rel=1e-6)
    assert {"l1", "psnr", "ssim", "cycle_l1", "back_cycle_l1", "back_l1", "back_ssim"} <= report.keys()
    assert tool(evaluate, runs / "pix2pix", "--metrics", "translation") == 0
    assert "L1 to the partner" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backwards"), [("pix2pix", False), ("cyclegan", False),
                                                 ("cyclegan", True)])
def test_a_folder_is_translated_each_image_under_its_name(name, backwards, runs, tmp_path, capsys):
    save(tmp_path / "in" / "one.bmp", 200, (20, 10))
    save(tmp_path / "in" / "two.png", 30, (8, 8), "RGB")
    flags = ["--backwards"] * backwards
    assert tool(sample, runs / name, "--input", tmp_path / "in", "--out", tmp_path / "out", *flags) == 0
    assert "2 translations of step 2" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
    before = (tmp_path / "in" / "two.png").read_bytes()
    for out, text in (("in", "two.png already"), ("out", "one.png already"),
                      ("in/one.bmp", "is a file")):
        assert tool(sample, runs / name, "--input", tmp_path / "in", "--out", tmp_path / out,
                    *flags) == 2
        assert text in capsys.readouterr().err
    assert (tmp_path / "in" / "two.png").read_bytes() == before
    with Image.open(tmp_path / "out" / "one.png") as picture:
        assert (picture.size, picture.mode) == ((8, 8), "RGB" if name == "pix2pix" else "L")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags", "message"), [
    ("pix2pix", ("--backwards",), "translates one way alone: leave out --backwards"),
    ("cyclegan", ("--num", "5"), "num is not for the translation of a folder"),
    ("cyclegan", ("--input", "typo"), "there is no such folder")])
def test_what_can_not_be_translated(name, flags, message, runs, tmp_path, capsys):
    given = ("--input", runs / "data" / "A", "--out", tmp_path / "out")
    assert tool(sample, runs / name, *given, *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("module", "flags", "message"), [
    (pix2pix, ("--augment", "diffaugment"), "augment would move images away from what reconstruction"),
    pytest.param(pix2pix, ("--image-size", "9"), "9x9 can be halved 0 times", marks=pytest.mark.slow),
    (pix2pix, ("--dataset", "digits", "--folder", "x"), "dataset is digits and folder 'x': give one"),
    (pix2pix, ("--colour", "rgb"), "colour is for the images of a folder; got rgb"),
    pytest.param(cyclegan, ("--image-size", "10"), "multiples of 4, and at least 8; got 10x10",
                 marks=pytest.mark.slow),
    (cyclegan, ("--blocks", "0"), "blocks must be from 1 to 1024; got 0"),
    (cyclegan, ("--penalty", "r1"), "penalty is not for a CycleGAN; got r1: leave it out"),
    (cyclegan, ("--attention", "16,foo"), "attention is not for a CycleGAN; got 16,foo: leave it out"),
    (pix2pix, ("--attention", "8"), "attention is for the ResNet: leave it out"),
    (pix2pix, ("--top-k", "0.5", "--accumulate", "2"), "top_k compares the samples of a whole batch"),
    (cyclegan, ("--weighting", "ratio"), "weighting is not for a CycleGAN; got ratio")])
def test_settings_that_do_not_go_together(module, flags, message, tmp_path, capsys):
    name = module.__name__.rpartition(".")[2]
    assert run_here(name, *TINY, *flags, "--run-dir", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
