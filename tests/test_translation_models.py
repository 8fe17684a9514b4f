"""Networks that translate images, and scores of patches wherever scores go."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import keys, losses, penalties
from jaxgan.gan import GAN, judge, sample
from jaxgan.models import PatchCritic, ResNetTranslator, UNetTranslator
from jaxgan.models.translation import dropout_seeds
from jaxgan.steps import generator_step, init_state, train_step
from jaxgan.tasks import reconstruction
from jaxgan.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(3)


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def seeds(count):
    return dropout_seeds(jax.random.split(KEY, count))


def sizes(module, *inputs):
    variables = jax.eval_shape(lambda: module.init(KEY, *inputs, train=True))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_numbers_of_parameters_that_public_implementations_print():
    """54.414 M and 2.769 M; of the residual generator 11.378 M, with biases for scales and biases."""
    rgb = jnp.zeros((1, 256, 256, 3))
    assert sizes(UNetTranslator((256, 256, 3)), jnp.zeros(1, jnp.uint32), rgb) == 54_413_955
    assert sizes(PatchCritic(planes=lambda image: image), rgb, rgb) == 2_768_705
    normalised = 64 + 128 + 256 + 18 * 256 + 128 + 64
    assert sizes(ResNetTranslator((256, 256, 3)), rgb) == 11_378_179 + normalised
    fewer = sizes(ResNetTranslator((252, 256, 3)), jnp.zeros((1, 252, 256, 3)))
    assert 11_378_179 + normalised - fewer == 3 * (2 * 9 * 256**2 + 4 * 256)  # 6 blocks below 256


@pytest.fixture(scope="module")
def unet():
    module = UNetTranslator((16, 24, 2), 2)
    given = images(3, 16, 24, 1)
    variables = jax.jit(lambda: module.init(KEY, seeds(3), given, train=True))()
    return module, variables, jax.jit(
        lambda seeds, given: module.apply(variables, seeds, given, train=False)), given


def test_the_u_net_drops_by_its_latents_in_evaluation_too_each_image_by_itself(unet):
    _, _, apply, given = unet
    made = apply(seeds(3), given)
    assert made.shape == (3, 16, 24, 2)
    assert np.abs(made).max() < 1
    np.testing.assert_array_equal(made, apply(seeds(3), given))
    other = apply(seeds(3)[::-1], given)
    assert (np.abs(other - made).max((1, 2, 3)) > 1e-3).tolist() == [True, False, True]
    changed = apply(seeds(3), np.concatenate([given[:1], images(2, 16, 24, 1, seed=1)]))
    np.testing.assert_allclose(changed[0], made[0], rtol=1e-5, atol=1e-6)


def test_without_dropout_the_latents_make_no_difference(unet):
    module, variables, _, given = unet
    still = module.clone(dropout=0.0)
    one, other = (still.apply(variables, seeds, given, train=True) for seeds in (
        np.zeros(3, np.uint32), np.arange(3, dtype=np.uint32)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("module", "given"), [
    (UNetTranslator((8, 8, 1), 2), (8, 8, 3)),
    *(pytest.param(module, given, marks=pytest.mark.slow) for module, given in (
        (ResNetTranslator((8, 12, 3), 2, 2), (8, 12, 3)),
        (ResNetTranslator((8, 8, 1), 2, 2, remat=True, dtype=jnp.bfloat16), (8, 8, 1)),
        (PatchCritic(2, 1, "spectral"), (8, 8, 1)), (PatchCritic(2, 1, "batch"), (8, 8, 1)))),
    (PatchCritic(2, 2), (16, 16, 3))])
def test_every_parameter_has_a_gradient_and_outputs_are_float32(module, given):
    inputs = (seeds(2), images(2, *given)) if isinstance(module, UNetTranslator) else (
        images(2, *given),)
    variables = jax.jit(lambda: module.init(KEY, *inputs, train=True))()
    stats = [kind for kind in variables if kind != "params"]

    def total(params):
        outputs, _ = module.apply({**variables, "params": params}, *inputs, train=True, mutable=stats)
        assert outputs.dtype == jnp.float32
        return (outputs * np.sin(np.arange(outputs.size)).reshape(outputs.shape)).sum()

    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize(("module", "given", "share"), [
    (UNetTranslator((32, 32, 1), 2, 3, dropout=0.5), (32, 32, 1), 0.7),
    (PatchCritic(2, 2), (32, 32, 1), 0.8),
    pytest.param(PatchCritic(2, 2, "spectral"), (32, 32, 1), 1.0, marks=pytest.mark.slow)])
def test_remat_keeps_less_for_the_same_gradient(module, given, share):
    """With the same parameters, the same dropout and the same statistics."""
    inputs = (seeds(4), images(4, *given)) if isinstance(module, UNetTranslator) else (
        images(4, *given),)
    again = module.clone(remat=True)
    variables, other = (jax.jit(lambda one=one: one.init(KEY, *inputs, train=True))()
                        for one in (module, again))
    jax.tree.map(np.testing.assert_array_equal, variables, other)
    stats = [kind for kind in variables if kind != "params"]
    kept, found = [], []
    for one in (module, again):
        def outputs(params, one=one):
            return one.apply({**variables, "params": params}, *inputs, train=True, mutable=stats)

        y, pullback, new = jax.vjp(outputs, variables["params"], has_aux=True)
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(pullback)))
        found.append((pullback(jnp.cos(y))[0], new))
    assert kept[1] < share * kept[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


@pytest.mark.parametrize(("halvings", "field"), [
    (1, 16), pytest.param(2, 34, marks=pytest.mark.slow), (3, 70)])
def test_a_score_sees_a_patch_and_no_more(halvings, field):
    """By the derivative of one score in the middle; the depth is what the image has room for."""
    side = field + 2 ** (halvings + 1)
    module, given = PatchCritic(2, norm="none"), images(1, side, side, 1)
    variables = jax.jit(lambda: module.init(KEY, given, train=True))()

    def middle(given):
        scores = module.apply(variables, given, train=True)
        return scores[0, scores.shape[1] // 2, scores.shape[2] // 2]

    gradient = np.abs(jax.jit(jax.grad(middle))(given))[0, :, :, 0] > 0
    assert gradient.any(1).sum() == gradient.any(0).sum() == field


@pytest.mark.parametrize(("module", "given", "message"), [
    (UNetTranslator((33, 32, 1)), (33, 32, 1), r"33x32 can be halved 0 times: choose multiples of 4\b"),
    (UNetTranslator((48, 64, 1), stages=5), (48, 64, 1), "48x64 can be halved 4 times: .* of 32"),
    (UNetTranslator((8, 8, 1), dropout=1.0), (8, 8, 1), r"dropout must be in \[0, 1\); got 1.0"),
    (UNetTranslator((8, 8, 1)), (4, 4, 1), r"planes must have shape \[batch, 8, 8, planes\]"),
    (ResNetTranslator((10, 8, 1)), (10, 8, 1), "multiples of 4, and at least 8; got 10x8"),
    (ResNetTranslator((8, 8, 1)), (12, 8, 1), "must be of 8x8, as its own; got 12x8"),
    (ResNetTranslator((8, 8, 1), blocks=0), (8, 8, 1), "blocks must be at least 1; got 0"),
    (PatchCritic(norm="orthonormal"), (8, 8, 1), "norm must be one of 'none', .*'instance'; got"),
    (PatchCritic(halvings=3), (16, 16, 1), "16x16 are too small for 3 halvings, which need 24"),
    (PatchCritic(), (4, 4, 1), "4x4 are too small for 1 halvings, which need 6"),
    (PatchCritic(halvings=0), (8, 8, 1), "halvings must be at least 1; got 0")])
def test_what_these_networks_can_not_be(module, given, message):
    given = jnp.zeros((1, *given))
    inputs = (jnp.zeros(1, jnp.uint32), given) if isinstance(module, UNetTranslator) else (given,)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: module.init(KEY, *inputs, train=True))


# Scores of patches.

REAL, FAKE = images(2, 3, 4, seed=1), images(2, 3, 4, seed=2)


@pytest.mark.parametrize("name", [
    "wasserstein", "minimax", "non_saturating", "least_squares", "hinge", "relativistic"])
def test_a_loss_of_patches_is_the_mean_of_the_patches_losses(name):
    loss = getattr(losses, name)()
    for half in (loss.critic, loss.generator):
        each = [half(REAL[:, i, j], FAKE[:, i, j]) for i in range(3) for j in range(4)]
        assert half(REAL, FAKE) == pytest.approx(np.mean(each), rel=1e-5)


def test_a_loss_of_patches_is_not_that_of_their_mean():
    loss = losses.least_squares()
    of_means = loss.critic(REAL.mean((1, 2)), FAKE.mean((1, 2)))
    assert float(loss.critic(REAL, FAKE)) > 1.1 * float(of_means)


def test_a_penalty_is_on_the_gradient_of_the_patches_mean():
    points = jnp.asarray(images(3, 4, 4))

    def patches(x):
        return jnp.stack([x**2, 3 * x], -1).reshape(3, 4, 8)

    expected = np.linalg.norm(((2 * points + 3) / 32).reshape(3, -1), axis=1)
    np.testing.assert_allclose(penalties.gradient_norms(patches, points), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"got \(3, 4\): squeeze the last axis, or .* of patches"):
        penalties.gradient_norms(lambda x: x[..., 0], points)


@pytest.fixture(scope="module")
def pix2pix():
    """A GAN of a U-Net and a critic of patches, its first state and a batch."""
    gan = GAN(UNetTranslator((8, 8, 1), 2), PatchCritic(2, planes=lambda image: image), None,
              losses.non_saturating(), optax.sgd(0.1), optax.sgd(0.1), prior=dropout_seeds,
              tasks=(reconstruction(weight=100.0),))
    batch = Batch(images(4, 8, 8, 1), images(4, 8, 8, 1, seed=5))
    return gan, jax.jit(lambda: init_state(gan, KEY, batch))(), batch


def test_a_step_of_patches_by_hand(pix2pix):
    gan, state, batch = pix2pix
    after, metrics = jax.jit(lambda state: train_step(
        gan, state, jax.tree.map(lambda x: x[None], batch), KEY))(state)
    scores = judge(gan, state, batch.samples, batch.condition).scores
    assert scores.shape == (4, 2, 2)
    assert metrics["critic/real_score"] == pytest.approx(float(scores.mean()), rel=1e-4)
    assert metrics["generator/reconstruction_weight"] == 100
    assert int(after.step) == 1


@pytest.mark.slow
def test_a_sample_depends_on_its_key_and_image_alone(pix2pix):
    gan, state, batch = pix2pix
    several = sample(gan, state, KEY, 4, batch.condition)
    np.testing.assert_allclose(sample(gan, state, KEY, 2, batch.condition[:2]), several[:2], atol=1e-6)
    other = sample(gan, state, jax.random.key(9), 4, batch.condition)
    assert np.abs(other - several).max() > 1e-4


def test_the_generators_loss_is_that_of_the_patches_and_the_distance(pix2pix):
    gan, state, batch = pix2pix
    _, metrics = jax.jit(lambda state: generator_step(gan, state, batch, KEY))(state)
    latents = dropout_seeds(keys.example_keys(keys.stream(KEY, "latents"), 4))
    fake = gan.generator.apply(state.generator.variables, latents, batch.condition, train=True)
    scores = judge(gan, state, fake, batch.condition).scores
    assert metrics["generator/adversarial"] == pytest.approx(
        float(np.log1p(np.exp(-scores)).mean()), rel=1e-3)
    assert metrics["generator/reconstruction"] == pytest.approx(
        float(np.abs(fake - batch.samples).mean()), rel=1e-4)
    norms = penalties.gradient_norms(
        lambda x: judge(gan, state, x, batch.condition).scores.mean((1, 2)), fake)
    assert metrics["critic/input_gradient_mean"] == pytest.approx(float(norms.mean()), rel=1e-3)
