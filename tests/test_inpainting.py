"""Masks, what is known of images, errors in the hole, and inpainting runs as a user meets them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from experiments import evaluate, inpainting
from jaxgan import evaluation, losses, tasks
from jaxgan.data import Dataset, draw_step, load, masked, mixture, resident, streaming, windows
from jaxgan.evaluation import Extractor, Protocol, Samples
from jaxgan.features import FeatureNetwork, Features
from jaxgan.gan import GAN
from jaxgan.metrics import hole_errors
from jaxgan.models import ContextGenerator, DCGANCritic
from jaxgan.models.planes import masked_planes, paste
from jaxgan.steps import init_state
from jaxgan.types import Batch
from tests.test_measuring import tool
from tests.test_training import TINY, rows, run_here
from tests.tiny import seen, value

pytestmark = pytest.mark.usefixtures("quick_compilation", "own_cache")

KEY = jax.random.key(5)
RNG = np.random.default_rng(0)


def images(count, height=8, width=8, channels=1):
    return np.random.default_rng(1).integers(0, 256, (count, height, width, channels), np.uint8)


def made_up(count=21, *shape):
    return Dataset("made_up", images(count, *shape), np.zeros(count, np.int32), ("any",))


def draw(source, count, key=KEY) -> Batch:
    return jax.jit(lambda arrays: draw_step(source, arrays, key, 0, count, jnp.arange(count)))(
        source.arrays)


def holes(kind, height, width, count):
    """Masks, [count, height, width]."""
    source = masked(resident(made_up(3, height, width)), kind)
    return np.asarray(draw(source, count).condition["mask"])[..., 0]


# What is drawn.

@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1)])
def test_the_image_is_kept_outside_of_the_hole_and_0_inside(value_range):
    plain = resident(made_up(21, 8, 12, 3), value_range=value_range)
    source = masked(plain, "boxes")
    batch, samples = draw(source, 30), draw(plain, 30).samples
    np.testing.assert_array_equal(batch.samples, samples)  # the same, in the same order
    image, mask = batch.condition["image"], batch.condition["mask"]
    assert batch.condition.keys() == {"image", "mask"}
    assert mask.shape == (30, 8, 12, 1)
    assert image.dtype == mask.dtype == jnp.float32
    np.testing.assert_array_equal(image, np.where(mask == 1, 0, samples))
    assert {*np.unique(mask)} == {0, 1}
    assert source._replace(draw=plain.draw) == plain


def test_the_centre_is_a_block_of_half_the_height_and_width():
    expected = np.zeros((8, 12))
    expected[2:6, 3:9] = 1
    for mask in holes("centre", 8, 12, 4):
        np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(holes("centre", 5, 5, 1)[0, 1:3, 1:3], 1)  # odd: rounded down
    assert holes("centre", 5, 5, 1).sum() == 4


def test_halves_are_four_and_equally_likely():
    masks, expected = holes("half", 6, 4, 400), np.zeros((4, 6, 4))
    expected[0, :3] = expected[1, 3:] = expected[2, :, :2] = expected[3, :, 2:] = 1
    which = (masks[:, None] == expected).all(axis=(2, 3))
    assert (which.sum(axis=1) == 1).all()
    assert stats.chisquare(which.sum(axis=0)).pvalue > 1e-3
    # Of an odd size, half is rounded down, and neither half reaches the middle row.
    assert not holes("half", 5, 5, 40)[:, 2, 2].any()


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (8, 8), (28, 28), (11, 32)])
def test_boxes_cover_a_quarter_to_a_half(size):
    covered = holes("boxes", *size, 600).mean(axis=(1, 2))
    assert covered.min() >= 0.25
    assert covered.max() <= 0.5
    assert covered.max() - covered.min() > 0.1 or min(size) < 6


def test_boxes_are_one_to_three_anywhere():
    from scipy.ndimage import label

    masks = holes("boxes", 28, 28, 600)
    assert {label(mask)[1] for mask in masks} == {1, 2, 3}  # connected pieces
    assert masks.mean(axis=0).min() > 0  # each pixel is in a hole now and then
    mirrored = masks.sum(axis=0)
    for axes in (0, 1):  # and no side is favoured
        first, second = np.array_split(mirrored, 2, axis=axes)
        assert stats.ttest_ind(first.ravel(), np.flip(second, axes).ravel()).statistic < 5


def test_a_hole_depends_on_key_and_position_alone():
    source = masked(resident(made_up()), "boxes")
    whole = draw(source, 24).condition["mask"]
    assert (draw(source, 24, jax.random.key(6)).condition["mask"] != whole).any()

    @jax.jit
    def part(step, first):  # the part of one of four devices in a step of 24
        return draw_step(source, source.arrays, KEY, step, 24, first + jnp.arange(6)).condition["mask"]

    np.testing.assert_array_equal(jnp.concatenate([part(0, first) for first in range(0, 24, 6)]), whole)
    assert (part(1, 0) != whole[:6]).any()
    one = masked(resident(made_up(1)), "boxes")  # of the same image, another one every epoch
    assert len({mask.tobytes() for mask in np.asarray(draw(one, 9).condition["mask"])}) > 5


def test_streamed_images_have_the_same_holes():
    here, there = (masked(make(made_up()), "boxes") for make in (resident, streaming))
    (arrays, _), = windows(there, KEY, 6, 2, 3)
    draws = [jax.jit(lambda arrays, source=source: draw_step(source, arrays, KEY, 2, 6, jnp.arange(6)))
             for source in (here, there)]
    jax.tree.map(np.testing.assert_array_equal, draws[0](here.arrays), draws[1](arrays))


@pytest.mark.parametrize(("own", "entries"), [({"label": 3}, {"label"}), (3, set()), (None, set())])
def test_entries_of_a_condition_are_kept(own, entries):
    plain = resident(made_up())
    source = masked(plain._replace(draw=lambda *of: plain.draw(*of)._replace(
        condition=jax.tree.map(lambda x: jnp.full(4, x), own))), "centre")
    found = draw(source, 4).condition
    assert found.keys() == {"image", "mask"} | entries
    assert all((found[name] == 3).all() for name in entries)


def test_a_mask_of_ones_own():
    def corner(key, height, width):
        return jnp.zeros((height, width)).at[0, 0].set(1)

    expected = np.zeros((8, 6))
    expected[0, 0] = 1
    np.testing.assert_array_equal(holes(corner, 8, 6, 2), np.stack([expected] * 2))


def test_masked_refuses():
    source = resident(made_up())
    with pytest.raises(ValueError, match="one of centre, boxes, half, or a function; got 'left'"):
        masked(source, "left")
    with pytest.raises(ValueError, match=r"images of at least 4x4 can be .*; got samples of shape \(2,"):
        masked(mixture("8gaussians"), "centre")
    with pytest.raises(ValueError, match=r"at least 4x4 can be masked; .* of shape \(3, 8, 1\)"):
        masked(resident(made_up(3, 3, 8)), "half")
    with pytest.raises(ValueError, match=r"height and width, shape \(8, 8\); got \(9, 9\)"):
        masked(source, lambda key, height, width: jnp.ones((9, 9)))


# What networks and losses make of it.

def condition(mask=(2, 8, 8, 1), image=(2, 8, 8, 1)):
    return {"image": jnp.full(image, 0.5), "mask": jnp.zeros(mask).at[:, 0].set(1)}


def test_planes_and_paste_by_hand():
    known = condition(image=(2, 8, 8, 3))
    planes = masked_planes(known)
    assert planes.shape == (2, 8, 8, 4)
    np.testing.assert_array_equal(planes[..., :3], known["image"])
    np.testing.assert_array_equal(planes[..., 3:], known["mask"])
    pasted = paste(known, jnp.full((2, 8, 8, 3), -0.25))
    assert (pasted[:, 0] == -0.25).all()
    assert (pasted[:, 1:] == 0.5).all()


def gan(**changes):
    return GAN(**{"generator": ContextGenerator((8, 8, 1), masked_planes, paste, 4, kernel_size=3),
                  "critic": DCGANCritic(4, kernel_size=3, planes=inpainting.hole), "latent_size": 3,
                  "loss": losses.wasserstein(), "generator_optimizer": optax.sgd(0.1),
                  "critic_optimizer": optax.sgd(0.1)} | changes)


@pytest.mark.parametrize(("changes", "known", "message"), [
    ({}, condition((2, 9, 9, 1)),
     r"masked_planes: the mask must have shape \(2, 8, 8, 1\), as the image; got \(2, 9, 9, 1\)"),
    ({}, condition((2, 8, 8, 3)), r"shape \(2, 8, 8, 1\), as the image; got \(2, 8, 8, 3\)"),
    ({}, condition((2, 9, 9, 1), (2, 9, 9, 1)), r"planes must have shape \[batch, 8, 8, planes\]"),
    ({}, condition(image=(2, 8, 8, 3)), r"paste: the known image must have the samples' shape, \(2, 8"),
    ({}, {"image": jnp.zeros((2, 8, 8, 1))}, "can't make planes of the condition .*KeyError: 'mask'"),
    ({"tasks": (tasks.reconstruction(mask=lambda known: known["mask"][:, :7]),)}, condition(),
     r"mask of reconstruction must have the samples' shape \(2, 8, 8, 1\), .*; got \(2, 7, 8, 1\)"),
    ({"tasks": (tasks.reconstruction(mask=lambda known: known["mask"][..., 0]),)}, condition(),
     r"mask of reconstruction must have the samples' shape .*; got \(2, 8, 8\)"),
], ids=["mask", "channels", "size", "image", "missing", "task size", "task rank"])
def test_what_does_not_fit_is_refused_before_a_step(changes, known, message):
    with pytest.raises(ValueError, match=message):
        init_state(gan(**changes), KEY, Batch(jnp.zeros((2, 8, 8, 1)), known))


# Errors in the hole.

def hole(count, height=8, width=8):
    mask = np.zeros((count, height, width, 1), np.float32)
    mask[:, height // 4:height // 2, 1:width // 2 + 2] = 1
    return mask


def test_a_shift_by_hand():
    """51 of 255 in the hole of the first image and 102 in that of the second."""
    mask, real = hole(2), np.full((2, 8, 8, 3), 100, np.uint8)
    real[:, 0] = 7
    fake = real.copy()
    fake[0][mask[0, ..., 0] == 1] += 51
    fake[1][mask[1, ..., 0] == 1] += 102
    found = hole_errors(real, fake, mask)
    assert found.l1 == pytest.approx((0.2 + 0.4) / 2)
    assert found.psnr == pytest.approx(-10 * (np.log10(0.04) + np.log10(0.16)) / 2)
    assert hole_errors(real, np.where(mask, fake, 255 - fake), mask)[:2] == found[:2]  # outside: nothing


def test_equal_holes():
    real = images(3)
    assert hole_errors(real, real, hole(3)) == pytest.approx((0, 100, 1))
    other = real.copy()
    other[:, -1, -1] ^= 255  # further from the hole than any window reaches
    assert hole_errors(images(3, 20, 20), images(3, 20, 20), hole(3, 20, 20)).ssim == pytest.approx(1)
    assert hole_errors(real, other, hole(3))[:2] == (0, 100)


def test_similarity_of_even_images_is_that_of_their_values():
    """Without any variance, (2 x y + C1) / (x^2 + y^2 + C1)."""
    real, fake = np.full((1, 8, 8, 1), 51, np.uint8), np.full((1, 8, 8, 1), 204, np.uint8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.04 + 0.64 + 1e-4)
    assert hole_errors(real, fake, hole(1)).ssim == pytest.approx(expected)


@pytest.mark.parametrize(("height", "width", "size"), [(8, 9, 7), (15, 20, 7), (16, 18, 11)])
def test_similarity_is_that_of_a_loop_over_windows(height, width, size):
    x, y = images(2, height, width, 3), RNG.integers(0, 256, (2, height, width, 3), np.uint8)
    y[0] = (x[0].astype(int) * 3 + y[0]) // 4  # one that is similar
    mask, radius = hole(2, height, width), size // 2
    offsets = np.arange(-radius, radius + 1)
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window = (window / window.sum()).ravel()
    found = []
    for image in range(2):
        a, b = (np.pad(of[image] / 255, ((radius, radius), (radius, radius), (0, 0)), mode="symmetric")
                for of in (x, y))
        for row, column in np.argwhere(mask[image, ..., 0]):
            for channel in range(3):
                p, q = (of[row:row + size, column:column + size, channel].ravel() for of in (a, b))
                p_mean, q_mean = window @ p, window @ q
                p_var, q_var = window @ (p - p_mean) ** 2, window @ (q - q_mean) ** 2
                both = window @ ((p - p_mean) * (q - q_mean))
                found.append((2 * p_mean * q_mean + 1e-4) * (2 * both + 9e-4)
                             / ((p_mean**2 + q_mean**2 + 1e-4) * (p_var + q_var + 9e-4)))
    assert hole_errors(x, y, mask).ssim == pytest.approx(np.mean(found), rel=1e-9)
    assert hole_errors(y, x, mask) == pytest.approx(hole_errors(x, y, mask))


def test_holes_of_different_sizes_count_alike_and_blocks_are_no_matter(monkeypatch):
    from jaxgan.metrics import inpainting as module

    real, fake, mask = images(5), RNG.integers(0, 256, (5, 8, 8, 1), np.uint8), hole(5)
    mask[1, :4] = 1
    mask[2, 0, 0] = 1
    alone = np.mean([hole_errors(*(of[i:i + 1] for of in (real, fake, mask))) for i in range(5)], axis=0)
    assert hole_errors(real, fake, mask) == pytest.approx(tuple(alone))
    monkeypatch.setattr(module, "_BLOCK", 2)
    assert hole_errors(real, fake, mask.astype(bool)) == pytest.approx(tuple(alone))


@pytest.mark.parametrize(("real", "fake", "mask", "error", "message"), [
    (images(2) / 255, images(2), hole(2), TypeError, "real must be uint8 images"),
    (images(2, 6, 8), images(2, 6, 8), hole(2, 6), ValueError, "at least 7x7 pixels; got"),
    (images(2), images(3), hole(2), ValueError, r"got \(2, 8, 8, 1\) and \(3, 8, 8, 1\)"),
    (images(2), images(2), hole(2, 9), ValueError, r"mask must have shape \(2, 8, 8, 1\).*; got \(2, 9"),
    (images(2), images(2), hole(2)[..., 0], ValueError, r"mask must have shape .*; got \(2, 8, 8\)"),
    (images(2), images(2), 255 * hole(2), ValueError, "0 elsewhere; got values from 0 to 255"),
    (images(2), images(2), hole(2) * [[[[1]]], [[[0]]]], ValueError, "that of image 1 has none"),
])
def test_hole_errors_refuse(real, fake, mask, error, message):
    with pytest.raises(error, match=message):
        hole_errors(real, fake, mask)


def test_evaluations_measure_holes_and_have_no_floor_for_them():
    """The reals have labels to compare with, but no holes."""
    network = FeatureNetwork("classifier", "", lambda variables, images: Features(
        images[:, 0, :2, 0] / 255, jnp.eye(3)[jnp.zeros(len(images), int)]), {})
    real, held_out = (evaluation.of_dataset(made_up(count), "split") for count in (21, 9))
    evaluator = evaluation.prepare(Protocol(), evaluation.chosen("inpainting,accuracy"),
                                   Extractor(network), real, held_out)
    original, mask = images(9), hole(9)
    completed = np.where(mask, 255 - original, original)
    targets = {"image": original, "mask": mask, "label": np.arange(9) % 3}
    fakes = Samples("completed", 9, lambda rows: completed[rows],
                    targets=lambda rows: {name: of[rows] for name, of in targets.items()})
    found, errors = evaluator(fakes), hole_errors(original, completed, mask)
    assert {name: found[f"hole_{name}"] for name in errors._fields} == pytest.approx(errors._asdict())
    assert found["classifier/accuracy"] == pytest.approx(1 / 3)
    assert evaluator.floor == {"classifier/accuracy": 1, "classifier/accuracy_0": 1}
    with pytest.raises(ValueError, match="'inpainting' compares samples with their image, which isn't"):
        evaluator(held_out)


# The experiment.

def test_the_mean_fill_by_hand():
    original, mask = np.zeros((1, 4, 4, 2), np.uint8), np.zeros((1, 4, 4, 1), np.float32)
    mask[0, 1:3, 1:3] = 1
    original[0, 0, :, 0], original[0, 1:3, 1:3] = 30, 255  # 120 over the 12 pixels that are known
    requests = Samples("", 1, None, targets=lambda rows: {"image": original[rows], "mask": mask[rows]})
    filled = inpainting.mean_filled(requests).take(np.array([0]))
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[0, 1:3, 1:3], np.broadcast_to([10, 0], (2, 2, 2)))
    np.testing.assert_array_equal(np.where(mask, 0, filled), np.where(mask, 0, original))


def test_requests_are_the_held_out_images():
    requests = inpainting.make_reference(inpainting.experiment.configure(mask="half")).requests("test")
    numbers = np.arange(requests.count)
    known, wanted, test = requests.condition(numbers), requests.targets(numbers), load("digits", "test")
    assert {*map(bytes, wanted["image"])} == {*map(bytes, test.images)}
    np.testing.assert_array_equal(requests.take(numbers), wanted["image"])
    np.testing.assert_array_equal(known["mask"], wanted["mask"])
    np.testing.assert_allclose(known["image"], (wanted["image"] / 127.5 - 1) * (1 - wanted["mask"]),
                               atol=1e-6)
    assert (wanted["mask"].mean(axis=(1, 2, 3)) == 0.5).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_cache):
    folder = tmp_path_factory.mktemp("runs") / "inpainting"
    assert run_here("inpainting", *TINY, "--mask", "centre", "--steps", 2, "--eval-every", 2,
                    "--eval-metrics", "inpainting,fd", "--features", "raw", "--ema-decay", 0,
                    "--run-dir", folder) == 0
    return folder


@pytest.mark.slow
def test_a_run_logs_its_terms_and_is_seen_beside_the_mean_fill(run, capsys):
    assert {"generator/reconstruction", "generator/adversarial", "critic/penalty", "hole_l1",
            "hole_psnr", "hole_ssim", "raw/fd"} <= rows(run)[-1].keys()
    capsys.readouterr()
    assert tool(evaluate, run, "--metrics", "inpainting,fd", "--features", "raw") == 0
    printed = capsys.readouterr().out
    assert "held-out reals  mean fill" in printed
    found = json.loads((run / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    assert found["hole_l1"]["floor"] is None
    assert found["raw/fd"]["floor"] > 0
    requests = inpainting.make_reference(inpainting.experiment.configure(mask="centre")).requests("test")
    wanted = requests.targets(np.arange(359))
    middle, border = wanted["image"][:, 2:6, 2:6] / 255, wanted["image"] * (1 - wanted["mask"])
    mean = np.rint(border.sum(axis=(1, 2, 3)) / 48)[:, None, None, None] / 255
    assert found["hole_l1"]["mean fill"] == pytest.approx(np.abs(middle - mean).mean(), rel=1e-5)


def test_the_picture_has_originals_masked_and_completed_above_each_other():
    config = inpainting.experiment.configure(width=4, mask="centre")
    reference = inpainting.make_reference(config)
    requests = reference.requests("test")
    made = inpainting.make_gan(config, (8, 8, 1))
    state = init_state(made, KEY, Batch(jnp.zeros((2, 8, 8, 1)), condition()))
    picture = inpainting.make_picture(config, made, inpainting.make_source(config), reference, columns=3,
                                      bands=2)(state)
    tiles = picture[1:, 1:, 0].reshape(6, 33, 3, 33)[:, :32, :, :32].swapaxes(1, 2)[..., ::4, ::4]
    original = requests.targets(np.arange(6))["image"][..., 0].reshape(2, 3, 8, 8)
    for band in range(2):
        first, left, completed = tiles[3 * band:3 * band + 3]
        np.testing.assert_array_equal(first, original[band])
        middle = np.zeros((8, 8), bool)
        middle[2:6, 2:6] = True
        np.testing.assert_array_equal(left, np.where(middle, 128, first))
        np.testing.assert_array_equal(completed[:, ~middle], first[:, ~middle])
        assert (completed[:, middle] != first[:, middle]).any()


def test_reconstruction_alone_leaves_the_critic_out():
    """The completed image depends on the critic through the adversarial loss only."""
    config = inpainting.experiment.configure(width=4, adversarial_weight=0.0, order=2)
    made = inpainting.make_gan(config, (8, 8, 1))
    assert made.adversarial_weight == 0
    weight = config.reconstruction.reconstruction_weight
    assert [task.generator.weight for task in made.tasks] == [weight]
    known = condition()
    real, fake = (seen(of, known) for of in (jnp.zeros((2, 8, 8, 1)), jnp.full((2, 8, 8, 1), 0.5)))
    assert value(made.tasks[0].generator, real, fake) == pytest.approx(0.25)


@pytest.mark.parametrize(("flags", "message"), [
    (("--dataset", "folder"), "--dataset folder and --folder PATH go together; got the data set folder"),
    (("--folder", "somewhere"), "go together; got the data set digits and the folder 'somewhere'"),
    (("--on-demand",), "give --stream and --dataset folder as well"),
    (("--order", 3), "order must be 1 or 2; got 3"),
    (("--reconstruction-weight", -1), "the weight of reconstruction must be a number from 0 on; got -1"),
])
def test_the_experiment_refuses(flags, message, tmp_path, capsys):
    assert run_here("inpainting", *TINY, "--run-dir", tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_of_images_streams(tmp_path):
    from PIL import Image

    for split, count in (("train", 9), ("test", 4)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.fromarray(images(i + 1, 20, 18, 3)[-1]).save(tmp_path / split / f"{i}.png")
    flags = ("--dataset", "folder", "--folder", tmp_path, "--image-size", 16, "--stream", "--on-demand",
             "--mask", "half", "--batch-size", 4, "--width", 4, "--ema-decay", 0)
    assert run_here("inpainting", *TINY, *flags, "--steps", 1, "--eval-every", 1, "--eval-metrics",
                    "inpainting", "--run-dir", tmp_path / "run") == 0
    report = (tmp_path / "run" / "report.txt").read_text()
    assert "4 samples (held-out reals: 4) against 9 reals" in report
