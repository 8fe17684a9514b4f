"""Penalties in closed form: of a linear critic, w . x, and of a quadratic one, |x|^2 / 2."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import measured, seen, view

from jaxgan import keys, penalties

KEY = jax.random.key(0)
SHAPES = {"points": (2,), "sequences": (5, 3), "images": (4, 4, 3), "volumes": (2, 3, 2, 2)}
PENALTIES = {
    "gradient_penalty": penalties.gradient_penalty(),
    "zero_centered": penalties.zero_centered(),
    "r1": penalties.r1(),
    "r2": penalties.r2(),
    "dragan": penalties.dragan(),
    "differences": penalties.r1(finite_difference=0.01),
    "combined": penalties.combine(penalties.r1(), penalties.gradient_penalty()),
}


@pytest.fixture(params=PENALTIES)
def penalty(request):
    return PENALTIES[request.param]


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


def draw(shape, count=6):
    return tuple(jax.random.normal(jax.random.key(i), (count, *shape)) for i in (1, 2))


def linear(weights):
    return lambda x: x.reshape(x.shape[0], -1) @ weights.ravel()


def quadratic(x):
    return 0.5 * jnp.square(x).reshape(x.shape[0], -1).sum(1)


def flat_norms(x):
    return np.linalg.norm(np.asarray(x, np.float64).reshape(len(x), -1), axis=1)


# Of a linear critic every norm is |w|, whatever the points: the penalty as a function of |w|.
LINEAR = [
    ("gradient_penalty", penalties.gradient_penalty(), lambda w: 10 * (w - 1)**2),
    ("gradient_penalty", penalties.gradient_penalty(0.1, target=2.5), lambda w: 0.1 * (w - 2.5)**2),
    ("one_sided", penalties.gradient_penalty(10.0, one_sided=True), lambda w: 10 * max(w - 1, 0)**2),
    ("zero_centered", penalties.zero_centered(3.0), lambda w: 3 * w**2),
    ("r1", penalties.r1(5.0), lambda w: 2.5 * w**2),
    ("r2", penalties.r2(5.0), lambda w: 2.5 * w**2),
    ("dragan", penalties.dragan(7.0), lambda w: 7 * (w - 1)**2),
    ("dragan", penalties.dragan(7.0, target=0.0), lambda w: 7 * w**2),
    ("r1 + r2", penalties.combine(penalties.r1(5.0), penalties.r2(3.0)), lambda w: 4 * w**2),
]


@pytest.mark.parametrize(("name", "penalty", "expected"), LINEAR)
def test_linear_critic(name, penalty, expected):
    direction = jax.random.normal(KEY, (4, 4, 3))
    unit = direction / jnp.linalg.norm(direction)
    samples = draw((4, 4, 3))

    @jax.jit
    def value_norms_slope(norm):
        def value(norm):
            return measured(penalty, linear(norm * unit), *samples, KEY)
        # The critic learns from this derivative, which is of the second order.
        slope, out = jax.grad(lambda norm: (value(norm).value, value(norm)), has_aux=True)(norm)
        return *out, slope

    for norm in (0.4, 3.0):
        value, norms, slope = value_norms_slope(norm)
        assert value.shape == ()
        np.testing.assert_allclose(value, expected(norm), rtol=1e-5)
        np.testing.assert_allclose(norms, norm, rtol=1e-5)
        assert norms.shape == (12 if name == "r1 + r2" else 6,)
        numeric = (expected(norm + 1e-6) - expected(norm - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-6)


def test_quadratic_critic(shape):
    """Its gradient at x is x, so that the norms tell where a penalty was taken."""
    real, fake = draw(shape)
    r, f = flat_norms(real), flat_norms(fake)
    points = flat_norms(penalties.interpolate(real, fake, KEY))
    noisy = flat_norms(penalties.add_noise(real, KEY, 0.5))
    expected = (
        (penalties.r1(3.0), r, 1.5 * np.mean(r**2)),
        (penalties.r2(3.0), f, 1.5 * np.mean(f**2)),
        (penalties.zero_centered(3.0), points, 3 * np.mean(points**2)),
        (penalties.gradient_penalty(3.0), points, 3 * np.mean((points - 1)**2)),
        (penalties.gradient_penalty(3.0, 2.0, True), points, 3 * np.mean(np.maximum(points - 2, 0)**2)),
        (penalties.dragan(3.0), noisy, 3 * np.mean((noisy - 1)**2)),
    )
    outs = jax.jit(lambda *args: [measured(penalty, quadratic, *args) for penalty, *_ in expected])(
        real, fake, KEY)
    for out, (_, norms, value) in zip(outs, expected, strict=True):
        np.testing.assert_allclose(out.norms, norms, rtol=1e-5)
        np.testing.assert_allclose(out.value, value, rtol=1e-5)


@pytest.mark.parametrize(("make", "which"), [(penalties.r1, 0), (penalties.r2, 1)])
def test_differences_of_a_quadratic_critic(make, which, shape):
    """(|x + e n|^2 - |x|^2) / 2e = x . n + e |n|^2 / 2, and its mean square is |x|^2 and more by e^2."""
    step, sets, keys_of = 0.01, draw(shape), jax.random.split(KEY, 6)
    term = make(3.0, finite_difference=step)
    found, norms = measured(term, quadratic, *sets, keys_of)
    x = np.asarray(sets[which], np.float64).reshape(6, -1)
    noise = (np.asarray(penalties.add_noise(sets[which], keys_of, step), np.float64).reshape(6, -1)
             - x) / step
    quotients = (x * noise).sum(1) + step * np.square(noise).sum(1) / 2
    np.testing.assert_allclose(norms, np.abs(quotients), atol=2e-3)
    np.testing.assert_allclose(found, 1.5 * np.square(quotients).mean(), rtol=2e-3)
    exact, _ = measured(make(3.0), quadratic, *sets, KEY)
    often = [measured(term, quadratic, *sets, jax.random.split(key, 6))[0]
             for key in jax.random.split(jax.random.key(7), 300)]
    assert np.mean(often) == pytest.approx(float(exact), abs=4 * float(np.std(often)) / 300**0.5)


def test_differences_need_a_step():
    for step in (0.0, -0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite_difference must be positive; got"):
            penalties.r1(finite_difference=step)


def test_norms_are_one_for_each_sample():
    samples = jnp.array([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(penalties.gradient_norms(quadratic, samples), [5.0, 0.0, 1.0])


def test_zero_gradient_has_a_finite_derivative(penalty):
    """The plain root of 0 would make it NaN."""
    samples = jnp.zeros((4, 3))

    def value(weights):
        return measured(penalty, lambda x: x @ weights, samples, samples, KEY).value

    slope = jax.jit(jax.grad(value))(jnp.zeros(3))
    np.testing.assert_array_equal(slope, 0.0)


def test_some_zero_gradients_leave_the_others_exact():
    samples = jnp.array([[0.0, 0.0], [3.0, 4.0]])

    def value(scale):
        return penalties.gradient_norms(lambda x: scale * quadratic(x), samples).sum()

    np.testing.assert_allclose(jax.value_and_grad(value)(2.0), (10.0, 5.0), rtol=1e-6)


def test_one_weight_a_sample(shape):
    real, fake = draw(shape)
    points = penalties.interpolate(real, fake, KEY)
    weights = np.asarray((points - fake) / (real - fake)).reshape(6, -1)
    np.testing.assert_allclose(weights, np.repeat(weights[:, :1], weights.shape[1], 1), atol=1e-3)
    assert len(np.unique(weights[:, 0].round(3))) == 6


def test_weights_are_uniform():
    ones = jnp.ones((4000, 1))
    weights = np.sort(penalties.interpolate(ones, 0 * ones, KEY)[:, 0])
    assert weights[0] >= 0
    assert weights[-1] < 1
    assert abs(weights - (np.arange(4000) + 0.5) / 4000).max() < 0.04  # Kolmogorov-Smirnov, p < 1e-5


def test_one_sided_spares_the_flat():
    two_sided, one_sided = (
        measured(penalties.gradient_penalty(one_sided=side), linear(jnp.array([0.5])), *draw((1,)),
                 KEY).value
        for side in (False, True))
    assert float(two_sided) == pytest.approx(2.5)
    assert one_sided == 0


def test_combine_of_one_is_that_one(penalty):
    assert penalties.combine(penalty) is penalty


def test_combine_sums_and_draws_apart():
    gp = penalties.gradient_penalty()
    real, fake = draw((3,))
    both = measured(penalties.combine(gp, gp), quadratic, real, fake, KEY)
    first, second = both.norms[:6], both.norms[6:]
    assert not np.isclose(first, second).any()
    np.testing.assert_allclose(
        both.value, 10 * (np.mean((first - 1)**2) + np.mean((second - 1)**2)), rtol=1e-5)


def test_one_key_or_one_a_sample(penalty):
    real, fake = draw((2, 2, 3))
    penalty = jax.jit(functools.partial(measured, penalty, quadratic))
    whole = penalty(real, fake, KEY)
    each = penalty(real, fake, keys.example_keys(KEY, 6))
    np.testing.assert_allclose(whole.norms, each.norms, rtol=1e-6)
    # A part of the batch with its keys sees what it saw in the whole batch.
    part = penalty(real[2:4], fake[2:4], keys.example_keys(KEY, 6)[2:4])
    np.testing.assert_allclose(part.norms, whole.norms.reshape(-1, 6)[:, 2:4].ravel(), rtol=1e-6)


def test_float32_inside_for_a_critic_in_bfloat16(penalty):
    weights = jnp.full(3, 2.0, jnp.bfloat16)
    seen = []

    def critic(x):
        seen.append(x.dtype)
        return x.astype(jnp.bfloat16) @ weights

    real, fake = (x.astype(jnp.bfloat16) for x in draw((3,)))
    out = measured(penalty, critic, real, fake, KEY)
    assert set(seen) == {jnp.dtype(jnp.float32)}
    assert out.value.dtype == out.norms.dtype == jnp.float32
    if penalty is not PENALTIES["differences"]:  # it differs scores, which are in bfloat16
        np.testing.assert_allclose(out.norms, np.sqrt(12), rtol=1e-6)  # in bfloat16 it would be 3.46875


def test_weights_out_of_range():
    for make in (penalties.gradient_penalty, penalties.zero_centered, penalties.r1, penalties.r2,
                 penalties.dragan):
        for weight in (-1.0, float("nan")):
            with pytest.raises(ValueError, match=f"weight must not be negative; got {weight}"):
                make(weight)


def test_errors_name_the_value_and_the_remedy(penalty):
    real, fake = draw((3,))
    with pytest.raises(ValueError, match=r"one score per sample, shape \(6,\); got \(6, 1\): squeeze"):
        measured(penalty, lambda x: x[:, :1], real, fake, KEY)
    with pytest.raises(TypeError, match="must be floating point; got uint8: scale the pixels first"):
        measured(penalty, quadratic, real.astype(jnp.uint8), fake.astype(jnp.uint8), KEY)


def test_interpolate_errors():
    real, fake = draw((3,))
    with pytest.raises(ValueError, match=r"the same shape; got \(6, 3\) and \(4, 3\)"):
        penalties.interpolate(real, fake[:4], KEY)
    with pytest.raises(TypeError, match="fake must be floating point; got int32"):
        penalties.interpolate(real, fake.astype(jnp.int32), KEY)
    with pytest.raises(ValueError, match=r"one key or one per example, shape \(6,\); got shape \(5,\)"):
        penalties.interpolate(real, fake, jax.random.split(KEY, 5))


def test_combine_of_none():
    with pytest.raises(ValueError, match="at least one penalty; leave the GAN's penalty None instead"):
        penalties.combine()


def test_noise_has_the_given_deviation():
    samples = jnp.full((500, 4, 4), 7.0)
    noise = np.asarray(penalties.add_noise(samples, KEY, 0.3) - samples)
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * noise.size)
    assert abs(np.corrcoef(noise.reshape(500, 16).T) - np.eye(16)).max() < 0.25  # not one a sample
    np.testing.assert_array_equal(penalties.add_noise(samples, KEY, 0.0), samples)
    assert penalties.add_noise(samples.astype(jnp.bfloat16), KEY, 0.3).dtype == jnp.bfloat16


def path_lengths(scales, mean, **options):
    """The term's value where an image is the sum of two styles, each scaled, and its y, [batch, ...]."""
    def generate(latents, condition, kind, method):
        if method == "map":
            return jnp.stack([latents, latents], 1), {}
        return (latents * scales[None, :, None]).sum(1).reshape(-1, 32, 16, 2), {}

    latents, images = jnp.ones((6, 1024)), jnp.zeros((6, 32, 16, 2))
    of = view(seen(images), seen(images), latents=latents, generate=generate)
    return penalties.path_length(**options).value(of, mean), keys.normal(of.keys("path"), (32, 16, 2))


@pytest.mark.parametrize("shrink", [1, 2, 3])
def test_path_lengths_of_a_linear_generator(shrink):
    """J^T y is y times the layer's scale, and the length the scales' root mean square times |y|.

    Their mean square being 12.5, and |y|^2 being about the 1024 numbers of 512 pixels, it is about 5.
    """
    @jax.jit
    def value_and_slope(scales):
        def loss(scales):
            value, y = path_lengths(scales, 2.0, shrink=shrink)
            return value.loss, (value, y)

        slope, seen = jax.grad(loss, has_aux=True)(scales)
        return *seen, slope

    value, y, slope = value_and_slope(jnp.array([3.0, 4.0]))
    size = flat_norms(y)[::shrink] / np.sqrt(512)
    lengths = np.sqrt(12.5) * size
    np.testing.assert_allclose(lengths, 5.0, rtol=0.1)
    np.testing.assert_allclose(value.observed["path_length"], lengths.mean(), rtol=1e-5)
    np.testing.assert_allclose(value.loss, np.square(lengths - 2.0).mean(), rtol=1e-4)
    by_length = (2 * (lengths - 2.0) * size).mean()  # and the length by a scale is scale / (2 root)
    np.testing.assert_allclose(slope, by_length * np.array([3.0, 4.0]) / (2 * np.sqrt(12.5)), rtol=1e-4)


def test_the_mean_of_path_lengths_follows_them():
    term = penalties.path_length(decay=0.25)
    assert term.init() == 0.0
    assert term.update(jnp.float32(2.0), {"path_length": jnp.float32(4.0)}) == 2.5


def test_clip_weights_holds_the_limit():
    optimizer = optax.chain(optax.rmsprop(0.05), penalties.clip_weights(0.01))
    params = {"w": jnp.array([0.05, -0.004, 0.0]), "b": jnp.array(-0.009)}
    state = optimizer.init(params)
    for sign in (1.0, 1.0, -1.0, 1.0):
        gradients = jax.tree.map(lambda p, sign=sign: jnp.full_like(p, sign), params)
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert all((abs(p) <= 0.01 + 1e-8).all() for p in jax.tree.leaves(params))
        for values in params.values():  # the steps are long enough for all to hit it
            np.testing.assert_allclose(values, -0.01 * sign, rtol=1e-5)


def test_clip_weights_leaves_small_updates_alone():
    params = jnp.array([0.001, -0.002])
    clip = penalties.clip_weights(0.01)
    updates, _ = clip.update(jnp.array([0.003, 0.004]), clip.init(params), params)
    np.testing.assert_allclose(updates, [0.003, 0.004], rtol=1e-5)


def test_clip_weights_errors():
    clip = penalties.clip_weights()
    with pytest.raises(ValueError, match="clip_weights needs the parameters"):
        clip.update(jnp.ones(2), clip.init(jnp.ones(2)))
    for limit in (0.0, float("nan")):
        with pytest.raises(ValueError, match=f"limit must be above 0; got {limit}"):
            penalties.clip_weights(limit)
