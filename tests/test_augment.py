"""Augmentations of images: each operation against a formula of its own, and what holds of all."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage, signal
from scipy.spatial.transform import Rotation

from jaxgan import GAN, critic_step, losses, penalties, sample
from jaxgan.augment import (
    ADA,
    DIFFAUGMENT,
    ada,
    adaptive,
    alike,
    chain,
    diffaugment,
    noise_levels,
    packed,
)
from jaxgan.augment.images import _BANDS
from jaxgan.augment.warping import SYM6
from jaxgan.keys import example_keys
from jaxgan.models import MLPCritic, MLPGenerator
from jaxgan.steps import init_state
from jaxgan.training import train
from jaxgan.types import Batch

KEYS = example_keys(jax.random.key(3), 6)
SIDE = 16
pytestmark = pytest.mark.usefixtures("quick_compilation")


def smooth(channels=3, height=SIDE, width=SIDE):
    """Waves that a pixel follows well, [6, height, width, channels]."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(len(KEYS), height, width, channels))
    waves = ndimage.gaussian_filter(noise, (0, 2.5, 2.5, 0), mode="mirror")
    return (waves / np.abs(waves).max()).astype(np.float32)


def rough(channels=3, height=SIDE, width=SIDE):
    shape = (len(KEYS), height, width, channels)
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def drawn(augmentation, state=()):
    return augmentation.draw(KEYS, jnp.int32(0), state)


def shown(augmentation, images):
    """What one operation makes of images, where it is on, and what was drawn for it."""
    draws = drawn(augmentation)
    return np.asarray(jax.jit(augmentation.show)(draws, images)), jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), draws)


# ADA, operation by operation.


def moved_by_scipy(image, forward):
    """An image moved by a matrix of (x, y, 1), counted from the centre, by cubic splines."""
    inverse = np.linalg.inv(forward)
    centre = (np.array(image.shape[:2]) - 1) / 2
    matrix = inverse[:2, :2][::-1, ::-1]  # SciPy counts rows first
    offset = inverse[:2, 2][::-1] + centre - matrix @ centre
    return np.stack([ndimage.affine_transform(image[..., c], matrix, offset, order=3, mode="mirror")
                     for c in range(image.shape[-1])], -1)


def turn(angle):
    """Clockwise as images are drawn, with y downwards."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])


def shift(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


FORWARD = {
    "xint": lambda draws, i, size: shift(*np.round(draws["xint"][i] * size)),
    "scale": lambda draws, i, size: np.diag([draws["scale"][i]] * 2 + [1]),
    "aniso": lambda draws, i, size: np.diag([draws["aniso"][i], 1 / draws["aniso"][i], 1]),
    "rotate": lambda draws, i, size: turn(draws["rotate"][i].sum()),
    "xfrac": lambda draws, i, size: shift(*(draws["xfrac"][i] * size)),
}


@pytest.mark.parametrize("name", FORWARD)
def test_geometry_moves_images_as_splines_do(name):
    images = smooth(2, SIDE, 20)
    found, draws = shown(ada([name], probability=1.0), images)
    if name != "xint":
        assert np.abs(found - images).max() > 0.1
    for i, image in enumerate(images):
        expected = moved_by_scipy(image, FORWARD[name](draws, i, np.array([20, SIDE])))
        np.testing.assert_allclose(found[i], expected, atol=0.05)


def test_all_of_geometry_is_one_map_in_the_order_of_the_article():
    names, images = ["xint", "scale", "rotate", "aniso", "xfrac"], smooth(1)
    found, draws = shown(ada(names, probability=1.0), images)
    for i, image in enumerate(images):
        one = np.diag([draws["scale"][i]] * 2 + [1])
        stretched = np.diag([draws["aniso"][i], 1 / draws["aniso"][i], 1])
        forward = (shift(*draws["xfrac"][i] * SIDE) @ turn(draws["rotate"][i, 1]) @ stretched
                   @ turn(draws["rotate"][i, 0]) @ one @ shift(*np.round(draws["xint"][i] * SIDE)))
        np.testing.assert_allclose(found[i], moved_by_scipy(image, forward), atol=0.1)


def test_flips_and_quarter_turns_are_exact():
    images = rough()
    found, draws = shown(ada(["xflip"], probability=1.0), images)
    assert 0 < draws["xflip"].sum() < len(KEYS)
    for i, image in enumerate(images):
        np.testing.assert_array_equal(found[i], image[:, ::-1] if draws["xflip"][i] else image)
    found, draws = shown(ada(["rotate90"], probability=1.0), images)
    assert len(set(draws["rotate90"])) > 2
    for i, image in enumerate(images):
        np.testing.assert_array_equal(found[i], np.rot90(image, int(draws["rotate90"][i])))


def test_whole_pixels_are_moved_exactly_and_the_filter_is_orthonormal():
    images = rough(1)
    found, draws = shown(ada(["xint"], probability=1.0), images)
    for i, image in enumerate(images):
        x, y = np.round(draws["xint"][i] * SIDE).astype(int)
        np.testing.assert_allclose(found[i, 2:-2, 2:-2], np.roll(image, (y, x), (0, 1))[2:-2, 2:-2],
                                   atol=1e-5)
    overlaps = [2 * SYM6[2 * k:] @ SYM6[:len(SYM6) - 2 * k] for k in range(6)]
    np.testing.assert_allclose(overlaps, [1, 0, 0, 0, 0, 0], atol=1e-9)


GREY = np.ones(3) / math.sqrt(3)
COLOURS = {
    "brightness": lambda x, v: x + v,
    "contrast": lambda x, v: x * v,
    "lumaflip": lambda x, v: x - 2 * v * (x @ GREY)[..., None] * GREY,
    "hue": lambda x, v: x @ Rotation.from_rotvec(v * GREY).as_matrix().T,
    "saturation": lambda x, v: x.mean(-1, keepdims=True) + v * (x - x.mean(-1, keepdims=True)),
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_by_formula(name):
    images = rough()
    found, draws = shown(ada([name], probability=1.0), images)
    for i, image in enumerate(images):
        np.testing.assert_allclose(found[i], COLOURS[name](image, draws[name][i]), atol=1e-5)
    grey = rough(1)
    np.testing.assert_array_equal(shown(ada([name], probability=1.0), grey)[0], grey)


def test_colours_come_one_after_the_other():
    images = rough()
    found, draws = shown(ada(list(COLOURS), probability=1.0), images)
    for i, image in enumerate(images):
        for name, change in COLOURS.items():
            image = change(image, draws[name][i])
        np.testing.assert_allclose(found[i], image, atol=1e-4)


def test_filters_split_the_octaves_and_keep_the_power():
    """By the transform of what was filtered, far from the edges of one wave."""
    whole = np.zeros(_BANDS.shape[1])
    whole[len(whole) // 2] = 1
    np.testing.assert_allclose(_BANDS.sum(0), whole, atol=1e-12)
    for band, frequency in enumerate((math.pi / 32, math.pi / 5, 0.4 * math.pi, 0.9 * math.pi)):
        response = np.abs(signal.freqz(_BANDS[band], worN=[frequency])[1][0])
        assert response > 0.5, band
    wave = np.cos(0.4 * math.pi * np.arange(96))[None, :, None, None].repeat(len(KEYS), 0)
    found, draws = shown(ada(["imgfilter"], probability=1.0), wave.astype(np.float32))
    gains = np.ones((len(KEYS), 4))
    for band in range(4):
        amplified = np.ones_like(gains)
        amplified[:, band] = draws["imgfilter"][:, band]
        gains *= amplified / np.sqrt((np.array([10, 1, 1, 1]) / 13 * amplified**2).sum(1))[:, None]
    for i in range(len(KEYS)):
        _, response = signal.freqz(gains[i] @ _BANDS, worN=[0.4 * math.pi])
        # The other axis is constant: the lowest band's.
        expected = np.abs(response[0]) * (gains[i] @ _BANDS).sum() * wave[i]
        np.testing.assert_allclose(found[i, 25:-25], expected[25:-25], atol=1e-4)


def test_bands_are_those_of_a_tree_of_daubechies_wavelets():
    """Of four taps: |L(w)|^2 = cos(w/2)^4 (1 + 2 sin(w/2)^2), Daubechies 1988; H = 1 - L."""
    def low(w):
        return np.cos(w / 2) ** 4 * (1 + 2 * np.sin(w / 2) ** 2)

    w = np.linspace(0.0, np.pi, 50)
    expected = [low(w) * low(2 * w) * low(4 * w), low(w) * low(2 * w) * (1 - low(4 * w)),
                low(w) * (1 - low(2 * w)), 1 - low(w)]
    found = [np.abs(signal.freqz(band, worN=w)[1]) for band in _BANDS]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_groups_come_in_the_order_of_the_article():
    """All at once is one group after the other: an operation draws the same beside any others."""
    groups = (["xflip"], ["rotate90"], ["xint", "scale", "rotate", "aniso", "xfrac"], list(COLOURS),
              ["imgfilter"], ["noise"], ["cutout"])
    images = smooth()
    found, _ = shown(ada([name for group in groups for name in group], probability=1.0), images)
    for group in groups:
        images, _ = shown(ada(group, probability=1.0), images)
    np.testing.assert_allclose(found, images, atol=1e-4)


def test_noise_has_its_size_and_a_hole_its_place():
    images = np.zeros((len(KEYS), 40, 40, 1), np.float32)
    found, draws = shown(ada(["noise"], probability=1.0), images)
    np.testing.assert_allclose(found.std((1, 2, 3)), draws["noise"], rtol=0.1)
    found, draws = shown(ada(["cutout"], probability=1.0), images + 1)
    at = (np.arange(40) + 0.5) / 40
    for i in range(len(KEYS)):
        rows, columns = (np.abs(at - centre) < 0.25 for centre in draws["cutout"][i])
        np.testing.assert_array_equal(found[i, ..., 0] == 0, rows[:, None] & columns)


# DiffAugment.


def test_diffaugment_by_formula():
    images = rough(3, 16, 20)
    found, draws = shown(diffaugment(["colour"]), images)
    for i, image in enumerate(images):
        light, saturation, contrast = draws["colour"][i]
        x = image + light - 0.5
        x = x.mean(-1, keepdims=True) + (x - x.mean(-1, keepdims=True)) * 2 * saturation
        np.testing.assert_allclose(found[i], x.mean() + (x - x.mean()) * (contrast + 0.5), atol=1e-5)
    found, draws = shown(diffaugment(["translation"]), images)
    for i, image in enumerate(images):
        down, right = (math.floor(u * (2 * most + 1)) - most for u, most
                       in zip(draws["translation"][i], (2, 2), strict=True))
        expected = ndimage.shift(image, (down, right, 0), order=0, cval=0.0)
        np.testing.assert_array_equal(found[i], expected)
    found, draws = shown(diffaugment(["cutout"]), np.ones_like(images))
    for i in range(len(KEYS)):
        expected = np.ones((16, 20))
        (top, left), (rows, columns) = np.floor(draws["cutout"][i] * (17, 21)), np.ogrid[:16, :20]
        expected[(abs(rows - top + 0.5) < 4) & (abs(columns - left + 0.5) < 5)] = 0
        np.testing.assert_array_equal(found[i, ..., 0], expected)


# What holds of all.

EVERY = {"ada": lambda **options: ada(ADA, **options),
         "diffaugment": lambda **options: diffaugment(DIFFAUGMENT, **options)}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("channels", "value_range"), [(1, (-1.0, 1.0)), (3, (0.0, 1.0))])
def test_probability_0_is_the_identity_bit_for_bit(name, channels, value_range):
    images = rough(channels)
    found, _ = shown(EVERY[name](probability=0.0, value_range=value_range), images)
    np.testing.assert_array_equal(found.view(np.uint32), images.view(np.uint32))


@pytest.mark.parametrize("name", EVERY)
def test_another_range_is_the_same_in_other_units(name):
    images = rough()
    found, _ = shown(EVERY[name](probability=0.7), images)
    other, _ = shown(EVERY[name](probability=0.7, value_range=(0.0, 1.0)), (images + 1) / 2)
    np.testing.assert_allclose(2 * other - 1, found, atol=1e-4)


@pytest.mark.parametrize("augmentation", [ada(["scale", "hue"], probability=0.7),
                                          pytest.param(diffaugment(["colour", "translation"],
                                                                   probability=0.7),
                                                       marks=pytest.mark.slow)])
def test_it_is_differentiable_twice_and_by_example(augmentation):
    images = rough()
    draws = drawn(augmentation)

    def loss(images):
        return jnp.sin(augmentation.show(draws, images)).sum((1, 2, 3))

    def slope(images):
        return (jax.grad(lambda x: loss(x).sum())(images) ** 2).sum()

    direction = rough(3)[::-1]
    step = 1e-2
    exact = float((jax.jit(jax.grad(slope))(images) * direction).sum())
    after, before = (float(jax.jit(slope)(images + sign * step * direction)) for sign in (1, -1))
    assert exact == pytest.approx((after - before) / (2 * step), rel=2e-2)
    alone = augmentation.draw(KEYS[2:3], jnp.int32(0), ())
    np.testing.assert_allclose(augmentation.show(alone, images[2:3])[0],
                               augmentation.show(draws, images)[2], atol=1e-5)


def test_each_operation_has_draws_of_its_own_and_its_share_of_the_probability():
    keys = example_keys(jax.random.key(5), 4000)
    some = ada({"brightness": 1.0, "rotate": 1.0, "cutout": 0.5, "hue": 0.0}, probability=0.4)
    draws = some.draw(keys, jnp.int32(0), ())
    assert "hue" not in draws
    assert draws["brightness_on"].mean() == pytest.approx(0.4, abs=0.03)
    assert draws["cutout_on"].mean() == pytest.approx(0.2, abs=0.03)
    assert draws["rotate_on"].any(1).mean() == pytest.approx(0.4, abs=0.03)
    np.testing.assert_array_equal(draws["brightness"],
                                  ada(["brightness"], probability=0.4).draw(keys, 0, ())["brightness"])
    scheduled = ada(["noise"], probability=optax.linear_schedule(0.0, 1.0, 10))
    assert [bool(scheduled.draw(keys, jnp.int32(step), ())["noise_on"].all()) for step in (0, 10)] == [
        False, True]


def test_noise_levels_are_one_chain():
    """Outputs fade to 1 - t_k; t_k is the noise's deviation; each is a noisier version of the next."""
    levels, shown = [0.885, 0.76, 0.51, 0.01], noise_levels(4)
    keys = jax.random.split(jax.random.key(0), 20_000)
    found = np.asarray(shown.show(shown.draw(keys, jnp.int32(0), ()), jnp.ones((20_000, 4, 1))))[..., 0]
    noise = found - (1 - np.array(levels))
    np.testing.assert_allclose(noise.mean(0), 0, atol=4 * 0.885 / 20_000**0.5)
    np.testing.assert_allclose(noise.std(0), levels, rtol=0.03)
    kept = 1 - np.array(levels)
    added = noise[:, :-1] - kept[:-1] / kept[1:] * noise[:, 1:]  # independent of what was there before
    np.testing.assert_allclose([np.corrcoef(added[:, k], noise[:, k + 1])[0, 1] for k in range(3)], 0,
                               atol=0.03)
    assert abs(np.corrcoef(added[:, 0], added[:, 1])[0, 1]) < 0.03
    np.testing.assert_allclose(shown.quiet(jnp.ones((1, 4, 1)))[0, :, 0], 1 - np.array(levels),
                               rtol=1e-5)
    np.testing.assert_allclose(noise_levels(1).quiet(jnp.ones((1, 1, 1))), 0.99, rtol=1e-6)
    with pytest.raises(ValueError, match=r"samples of 4 outputs, .*; got \(1, 3, 1\)"):
        shown.quiet(jnp.ones((1, 3, 1)))
    with pytest.raises(ValueError, match="count must be at least 1; got 0"):
        noise_levels(0)


def test_outputs_are_changed_alike():
    """Each as it would be by itself, with the draws of all of them."""
    images = jax.random.normal(jax.random.key(0), (3, 2, 8, 8, 1))
    one = diffaugment(probability=0.7)
    both = alike(one)
    draws = both.draw(jax.random.split(jax.random.key(1), 3), jnp.int32(0), ())
    shown = both.show(draws, images)
    for k in range(2):
        np.testing.assert_allclose(shown[:, k], one.show(draws, images[:, k]), rtol=1e-6, atol=1e-6)


def test_an_adaptive_probability_by_hand():
    """Two updates of 8 reals each are 16 images of 160: a tenth up or down, never below 0."""
    term = adaptive(target=0.5, images=160, every=2)
    state, found = term.init(), []
    for signs in (1.0, 0.5, 0.5, 0.5, 0.25, 0.5, 0.5, 0.25, 1.0, 1.0):
        state = term.update(state, {"ada_sign": jnp.float32(signs), "batch": jnp.float32(8)})
        found.append(float(state["probability"]))
    np.testing.assert_allclose(found, [0, 0.1, 0.1, 0.1, 0.1, 0, 0, 0, 0, 0.1], atol=1e-6)


def test_the_patches_of_a_sample_count_as_one():
    """By their mean: of two samples one is above 0, and of their six patches four are."""
    scores = jnp.asarray([[1.0, 1.0, -9.0], [2.0, 1.0, -1.0]])[..., None]
    view = SimpleNamespace(real=SimpleNamespace(scores=scores), batch_size=2)
    term = adaptive()
    assert float(term.value(view, term.init()).observed["ada_sign"]) == 0.0


def test_scores_without_a_zero_are_compared_with_those_of_fakes():
    """Three of four reals are above their fakes, wherever all scores are."""
    term = adaptive(relative=True)
    real, fake = jnp.array([3.0, 2.0, 4.0, 1.0]), jnp.array([1.0, 1.5, 5.0, 0.0])
    for by in (-9.0, 0.0, 9.0):
        view = SimpleNamespace(real=SimpleNamespace(scores=real + by),
                               fake=SimpleNamespace(scores=fake + by), batch_size=4)
        assert float(term.value(view, term.init()).observed["ada_sign"]) == 0.5


@pytest.mark.slow
def test_what_is_learned_has_not_been_changed(tmp_path):
    """Ramps on levels that hardly differ: shown ones are 0.16 apart, and those that are learned 0.05.

    Three in five are brighter or darker by 0.2, steeper or flatter, and moved.
    """
    random, ramp = np.random.default_rng(0), np.linspace(-1, 1, 8)
    level, slope = random.normal(-0.2, 0.05, (512, 1, 1, 1)), random.uniform(0.1, 0.5, (512, 1, 1, 1))
    images = np.rint((np.tile(level + slope * ramp[:, None], (1, 8, 1, 1)) + 1) * 127.5).astype(np.uint8)

    def levels_and_slopes(images):
        columns = np.asarray(images)[..., 0].mean(1)
        return columns.mean(1), columns @ ramp / np.square(ramp).sum()

    gan = GAN(MLPGenerator((8, 8, 1), (32, 32), "tanh"), MLPCritic((64, 64)), 8, losses.non_saturating(),
              optax.adam(1e-3, b1=0.0), optax.adam(1e-3, b1=0.0), penalty=penalties.r1(0.1),
              augment=ada(["brightness", "contrast", "xint"], probability=0.6), ema_decay=0.99)
    state, _ = train(gan, images, tmp_path / "run", steps=1500, batch_size=64, devices=1)
    found = levels_and_slopes(sample(gan, state, jax.random.key(1), 2000))
    for got, real in zip(found, levels_and_slopes(images / 127.5 - 1), strict=True):
        assert got.mean() == pytest.approx(real.mean(), abs=0.02)
        assert got.std() == pytest.approx(real.std(), abs=0.03)


@pytest.mark.slow
def test_training_moves_it_and_shows_reals_and_fakes_alike():
    shown = ada(["xflip", "noise", "cutout"], probability=adaptive(target=-1.0, images=16, every=1))
    gan = GAN(MLPGenerator((8, 8, 1), (4,)), MLPCritic((4,)), 2, losses.non_saturating(),
              optax.adam(1e-3), optax.adam(1e-3), penalty=penalties.r1(1.0),
              augment=chain([shown, packed(2)]))
    batch = Batch(jnp.asarray(rough(1, 8, 8)[:4]))
    state = init_state(gan, jax.random.key(0), batch)
    step = jax.jit(lambda state, key: critic_step(gan, state, batch, key))
    state, metrics = step(state, jax.random.key(1))
    assert metrics["critic/ada_probability"] == 0.0
    assert np.isfinite(metrics["critic/penalty"])
    state, metrics = step(state, jax.random.key(2))
    assert metrics["critic/ada_probability"] == 0.25


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ada(["xflop"]), "there is no operation 'xflop': choose from xflip, rotate90"),
    (lambda: diffaugment({"colour": -1.0}), "the multiplier of colour must be from 0 on; got -1"),
    (lambda: ada(probability=1.5), r"probability must be in \[0, 1\]; got 1.5"),
    (lambda: ada(value_range=(1.0, 0.0)), "value_range must be"),
    (lambda: adaptive(target=2.0), r"a target in \[-1, 1\]"),
    (lambda: shown(ada(probability=0.5), rough()[:, 0]), r"are for images, .* got \(6, 16, 3\)"),
])
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
