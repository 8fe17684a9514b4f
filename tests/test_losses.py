"""Losses against the papers' equations, written with log and sigmoid in float64 numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import data_parallel, generator_step, init_state, losses
from jaxgan.gan import draw_latents
from jaxgan.keys import stream
from tests.tiny import Linear, assert_close, points, tiny

REAL = np.array([1.5, -0.25, 3.0, 0.5])
FAKE = np.array([-1.25, 0.75, -2.5, 2.0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_sigmoid(x):
    return np.log(sigmoid(x))


def mean_minus(scores, others):
    return scores - np.mean(others)


# One row a loss: the pair, the critic's value and the generator's, from (real, fake).
TABLE = {
    "wasserstein": (
        losses.wasserstein(),
        lambda r, f: np.mean(f) - np.mean(r),
        lambda r, f: -np.mean(f)),
    "minimax": (
        losses.minimax(),
        lambda r, f: -np.mean(np.log(sigmoid(r))) - np.mean(np.log(1 - sigmoid(f))),
        lambda r, f: np.mean(np.log(1 - sigmoid(f)))),
    "minimax, smoothed": (
        losses.minimax(label_smoothing=0.1),
        lambda r, f: (-np.mean(0.9 * np.log(sigmoid(r)) + 0.1 * np.log(1 - sigmoid(r)))
                      - np.mean(np.log(1 - sigmoid(f)))),
        lambda r, f: np.mean(np.log(1 - sigmoid(f)))),
    "non_saturating": (
        losses.non_saturating(),
        lambda r, f: -np.mean(np.log(sigmoid(r))) - np.mean(np.log(1 - sigmoid(f))),
        lambda r, f: -np.mean(np.log(sigmoid(f)))),
    "non_saturating, smoothed": (
        losses.non_saturating(label_smoothing=0.25),
        lambda r, f: (-np.mean(0.75 * np.log(sigmoid(r)) + 0.25 * np.log(1 - sigmoid(r)))
                      - np.mean(np.log(1 - sigmoid(f)))),
        lambda r, f: -np.mean(np.log(sigmoid(f)))),
    "least_squares": (
        losses.least_squares(),
        lambda r, f: np.mean((r - 1)**2) / 2 + np.mean(f**2) / 2,
        lambda r, f: np.mean((f - 1)**2) / 2),
    "least_squares, Pearson": (
        losses.least_squares(real_target=1.0, fake_target=-1.0, generator_target=0.0),
        lambda r, f: np.mean((r - 1)**2) / 2 + np.mean((f + 1)**2) / 2,
        lambda r, f: np.mean(f**2) / 2),
    "hinge": (
        losses.hinge(),
        lambda r, f: -np.mean(np.minimum(0, -1 + r)) - np.mean(np.minimum(0, -1 - f)),
        lambda r, f: -np.mean(f)),
    "hinge, margin 2": (
        losses.hinge(margin=2.0),
        lambda r, f: np.mean(np.maximum(0, 2 - r)) + np.mean(np.maximum(0, 2 + f)),
        lambda r, f: -np.mean(f)),
    "relativistic": (
        losses.relativistic(),
        lambda r, f: -np.mean(log_sigmoid(r - f)),
        lambda r, f: -np.mean(log_sigmoid(f - r))),
    "relativistic_average": (
        losses.relativistic_average(),
        lambda r, f: (-np.mean(log_sigmoid(mean_minus(r, f)))
                      - np.mean(np.log(1 - sigmoid(mean_minus(f, r))))),
        lambda r, f: (-np.mean(log_sigmoid(mean_minus(f, r)))
                      - np.mean(np.log(1 - sigmoid(mean_minus(r, f)))))),
}
HALVES = ("critic", "generator")


@pytest.fixture(params=TABLE)
def row(request):
    return TABLE[request.param]


@pytest.fixture(params=HALVES)
def half(request, row):
    """One half of a loss and what it should be."""
    pair, *expected = row
    return getattr(pair, request.param), expected[HALVES.index(request.param)]


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_value_is_the_equation(half, transform):
    loss, expected = half
    value = transform(loss)(jnp.float32(REAL), jnp.float32(FAKE))
    assert value.shape == ()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected(REAL, FAKE), rtol=2e-6)


def test_gradient_is_the_equations(half):
    loss, expected = half
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))(jnp.float32(REAL), jnp.float32(FAKE))
    step = 1e-5 * np.eye(len(REAL))
    numeric_real = [(expected(REAL + e, FAKE) - expected(REAL - e, FAKE)) / 2e-5 for e in step]
    numeric_fake = [(expected(REAL, FAKE + e) - expected(REAL, FAKE - e)) / 2e-5 for e in step]
    np.testing.assert_allclose(gradients[0], numeric_real, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradients[1], numeric_fake, rtol=1e-5, atol=1e-7)


def test_halves_pull_in_opposite_directions(row):
    """Inside all margins and targets the critic parts real from fake, the generator lifts the fakes."""
    pair = row[0]
    scores = jnp.zeros(3) - 0.05, jnp.zeros(3) - 0.1
    real, fake = jax.grad(pair.critic, argnums=(0, 1))(*scores)
    assert (real < 0).all()
    # Least squares only pulls the fakes to their target, which is 0 in the paper's equation 9.
    assert (fake > 0).all() or pair is TABLE["least_squares"][0]
    real, fake = jax.grad(pair.generator, argnums=(0, 1))(*scores)
    assert (fake < 0).all()
    assert (real >= 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_large_scores_stay_finite(half, dtype):
    loss, _ = half
    real, fake = jnp.meshgrid(jnp.array([-100.0, 0.0, 100.0]), jnp.array([-100.0, 0.0, 100.0]))
    value_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    for r, f in zip(real.ravel(), fake.ravel(), strict=True):
        value, gradients = value_and_gradients(jnp.full(4, r, dtype), jnp.full(4, f, dtype))
        assert value.dtype == jnp.float32
        assert jnp.isfinite(value)
        assert all(jnp.isfinite(g).all() and g.dtype == dtype for g in gradients)


def test_sure_critic_silences_minimax_but_not_the_non_saturating_generator():
    scores = jnp.zeros(1), jnp.full(1, -100.0)
    assert jax.grad(losses.minimax().generator, argnums=1)(*scores) == 0
    assert jax.grad(losses.non_saturating().generator, argnums=1)(*scores) == -1


def test_worked_by_hand():
    log2 = float(np.log(2))
    zero = jnp.zeros(2)
    assert losses.wasserstein().critic(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])) == 2.5
    assert losses.wasserstein().generator(jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])) == -4
    assert losses.hinge().critic(jnp.array([0.5, 2.0]), jnp.array([-2.0, 0.0])) == 0.75
    assert losses.least_squares().critic(jnp.array([2.0]), jnp.array([1.0])) == 1
    for loss in (losses.minimax(), losses.non_saturating(0.3), losses.relativistic_average()):
        assert float(loss.critic(zero, zero)) == pytest.approx(2 * log2)
    assert float(losses.minimax().generator(zero, zero)) == pytest.approx(-log2)
    assert float(losses.relativistic().generator(zero, zero)) == pytest.approx(log2)


def test_label_smoothing_moves_only_the_critics_optimum_on_reals():
    # With target t the cross-entropy is least at the logit of t.
    best = jnp.full(1, np.log(0.9 / 0.1), jnp.float32)
    real, _ = jax.grad(losses.non_saturating(0.1).critic, argnums=(0, 1))(best, best)
    assert abs(float(real[0])) < 1e-6
    scores = jnp.float32(REAL), jnp.float32(FAKE)
    np.testing.assert_array_equal(
        jax.grad(losses.non_saturating(0.1).critic, argnums=1)(*scores),
        jax.grad(losses.non_saturating().critic, argnums=1)(*scores))


def test_only_the_average_compares_across_the_batch(row):
    pair = row[0]
    real, fake = jnp.float32(REAL), jnp.float32(FAKE)
    halves = [(pair.critic(real[i:i + 2], fake[i:i + 2]), pair.generator(real[i:i + 2], fake[i:i + 2]))
              for i in (0, 2)]
    same = np.allclose(np.mean(halves, 0), (pair.critic(real, fake), pair.generator(real, fake)))
    assert same != pair.across_batch


def test_relativistic_ignores_a_common_shift():
    for loss in (losses.relativistic(), losses.relativistic_average()):
        np.testing.assert_allclose(loss.critic(jnp.float32(REAL + 7), jnp.float32(FAKE + 7)),
                                   loss.critic(jnp.float32(REAL), jnp.float32(FAKE)), rtol=1e-6)


def test_half_precision_scores_are_averaged_in_float32(half):
    """A bfloat16 sum of 4096 ones would stop at 256."""
    loss, expected = half
    ones = np.ones(4096)
    value = loss(jnp.asarray(ones, jnp.bfloat16), jnp.asarray(-ones, jnp.bfloat16))
    np.testing.assert_allclose(value, expected(ones, -ones), rtol=1e-5)


def test_errors_name_the_value_and_the_remedy(half):
    loss, _ = half
    with pytest.raises(ValueError, match=r"real_scores must be one score per sample, shape \[batch\]; "
                                         r"got shape \(4, 1\): squeeze the other axes"):
        loss(jnp.ones((4, 1)), jnp.ones(4))
    with pytest.raises(ValueError, match=r"fake_scores must be .* got shape \(4, 1\)"):
        loss(jnp.ones(4), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        loss(jnp.float32(1), jnp.float32(1))
    with pytest.raises(ValueError, match="equally many; got 4 and 3"):
        loss(jnp.ones(4), jnp.ones(3))
    with pytest.raises(TypeError, match="real_scores must be floating point; got int32"):
        loss(jnp.ones(4, jnp.int32), jnp.ones(4))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_out_of_range(smoothing):
    for loss in (losses.minimax, losses.non_saturating):
        with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\); got {smoothing}"):
            loss(label_smoothing=smoothing)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan")])
def test_margin_out_of_range(margin):
    with pytest.raises(ValueError, match=f"margin must be above 0; got {margin}"):
        losses.hinge(margin=margin)


# Top-k.

EACH = {name: row for name, row in TABLE.items() if not name.startswith("relativistic")}


@pytest.mark.parametrize("name", EACH)
def test_the_highest_fakes_are_those_that_are_left(name):
    """Of four fakes 2, 0.75, -1.25 and -2.5 the two highest, 1.6 and 2.4 being rounded; one at least."""
    pair, _, expected = EACH[name]
    for share, fakes in ((0.4, [2.0, 0.75]), (0.6, [2.0, 0.75]), (0.01, [2.0]), (1.0, FAKE)):
        value, gradient = jax.value_and_grad(partial(losses.of_highest, pair.generator))(
            jnp.float32(FAKE), share)
        assert float(value) == pytest.approx(expected(REAL[:len(fakes)], np.array(fakes)), rel=2e-6)
        np.testing.assert_array_equal(gradient != 0, np.isin(FAKE, fakes))


def test_the_share_falls_by_epochs_to_the_smallest():
    share = jax.jit(losses.top_k(losses.hinge(), 10, 0.5, 0.2).share)
    assert [float(share(jnp.int32(step))) for step in (0, 9, 10, 25, 29, 30, 10**9)] == pytest.approx(
        [1.0, 1.0, 0.5, 0.25, 0.25, 0.2, 0.2])


def test_a_generator_learns_from_its_best_fakes_on_any_number_of_devices():
    """By the gradient of their scores' mean, which leaves a linear critic's weights for the bias."""
    gan = tiny(generator=Linear(2), critic=Linear(), penalty=None,
               loss=losses.top_k(losses.wasserstein(), 1, 0.5, 0.25))
    state = init_state(gan, jax.random.key(0), points(8))._replace(step=jnp.int32(1))
    key = jax.random.key(1)
    latents = np.float64(draw_latents(gan, stream(key, "latents"), 8))
    params = jax.tree.map(np.float64, state.generator.params["Dense_0"])
    w = np.float64(state.critic.params["Dense_0"]["kernel"][:, 0])
    best = np.argsort((latents @ params["kernel"] + params["bias"]) @ w)[4:]
    expected = {"kernel": params["kernel"] + 0.05 * np.outer(latents[best].mean(0), w),
                "bias": params["bias"] + 0.05 * w}
    for step in (jax.jit(partial(generator_step, gan)),
                 data_parallel(partial(generator_step, gan), devices=jax.devices()[:2])):
        found = step(state, points(8), key)[0].generator.params["Dense_0"]
        assert_close(found, expected, 1e-5, 1e-7)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: losses.top_k(losses.relativistic(), 1), "losses whose generator takes each fake by"),
    (lambda: losses.top_k(losses.relativistic_average(), 1), "choose another loss"),
    (lambda: losses.top_k(losses.hinge(), 1, decay=1.5), r"must be in \(0, 1\] .* got 1.5, "),
    (lambda: losses.top_k(losses.hinge(), 0), "steps at least 1; got 0.99, 0.5 and 0"),
])
def test_what_top_k_can_not_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
