"""Orthonormal weights against singular values, and critics that are 1-Lipschitz by them."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from scipy import stats
from tiny import assert_close, same

from jaxgan.models import DCGANCritic, MLPCritic, ResNetCritic, TextCritic
from jaxgan.nn import (
    Conv,
    ConvTranspose,
    Dense,
    Orthonormal,
    group_sort,
    maxmin,
    orthonormal_kernels,
)
from jaxgan.nn.activations import ACTIVATIONS
from jaxgan.nn.orthonormal import orthonormalised
from jaxgan.probing import looks_across

KEY = jax.random.key(5, impl="rbg")
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _singular(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def _of_rank(rank, *shape):
    return _normal(shape[0], rank) @ _normal(rank, shape[1], seed=1)


class Layer(nn.Module):
    """One orthonormal layer, as a critic has it."""

    layer: type
    options: tuple
    norm: type = Orthonormal

    @nn.compact
    def __call__(self, x, *, train):
        return self.norm(self.layer(**dict(self.options)))(x, update_stats=train)


def _layer(layer, **options):
    return Layer(layer, tuple(options.items()))


# The step.

@pytest.mark.parametrize("matrix", [
    _normal(12, 7), 100 * _normal(12, 7), 0.01 * _normal(12, 7), _normal(9, 9), _of_rank(3, 12, 7),
    np.zeros((6, 3), np.float32), np.sqrt(3) * np.eye(5, dtype=np.float32), np.ones((5, 1), np.float32),
    1e4 * np.eye(5, 3, dtype=np.float32)],
    ids=["random", "large", "small", "square", "rank 3", "zero", "root of 3", "column", "huge"])
def test_no_singular_value_is_above_1_and_all_of_full_rank_become_1(matrix):
    step = jax.jit(orthonormalised)
    whitening = jnp.eye(matrix.shape[1])
    for i in range(250):
        weights, whitening = step(matrix, whitening)
        if i < 20 or i % 50 == 49:
            assert np.isfinite(whitening).all()
            assert _singular(weights)[0] <= 1 + 1e-5
    rank = np.linalg.matrix_rank(matrix)
    np.testing.assert_allclose(_singular(weights)[:rank], 1, rtol=1e-5)
    if rank == matrix.shape[1]:  # the columns span what they did
        np.testing.assert_allclose(matrix @ np.linalg.pinv(matrix) @ weights, weights, atol=1e-4)


@pytest.mark.parametrize("whitening", [np.eye(4), 50 * _normal(4, 4), _of_rank(2, 4, 4)])
def test_no_singular_value_is_above_1_whatever_the_state_is(whitening):
    weights, _ = orthonormalised(_normal(9, 4), jnp.float32(whitening))
    assert _singular(weights)[0] <= 1 + 1e-5


def test_a_direction_that_the_kernel_nearly_lacks_holds_up_no_other():
    kernel, whitening = jnp.diag(jnp.array([1.0, 1e-6, 1.0, 1.0])), jnp.eye(4)
    step = jax.jit(orthonormalised)
    for _ in range(100):
        _, whitening = step(kernel, whitening)
    assert jnp.isfinite(whitening).all()
    kernel = kernel.at[2, 2].set(0.5)
    for _ in range(20):
        weights, whitening = step(kernel, whitening)
    values = np.linalg.svd(weights, compute_uv=False)
    np.testing.assert_allclose(values[:3], 1, rtol=1e-5)
    assert values[3] < 0.01
    for _ in range(60):  # the direction comes back
        weights, whitening = step(jnp.eye(4), whitening)
    np.testing.assert_allclose(np.linalg.svd(weights, compute_uv=False), 1, rtol=1e-5)


def test_kernels_stay_near_orthonormal_whatever_the_optimiser_does():
    first, second, third = (jnp.linalg.qr(_normal(*shape))[0] for shape in ((6, 4), (8, 3), (7, 5)))
    params = {"Dense_0": {"kernel": first, "bias": jnp.zeros(4)}, "Dense_2": {"kernel": third.T},
              "Conv_1": {"kernel": second.reshape(2, 2, 2, 3)}, "class": {"kernel": _normal(3, 3)}}
    plain, kept = optax.sgd(0.1), optax.chain(optax.sgd(0.1), orthonormal_kernels())
    state = kept.init(params)
    gradients = jax.tree.map(lambda x: jnp.sign(_normal(x.size, 1)).reshape(x.shape), params)
    updates, _ = kept.update(gradients, state, params)
    freely, _ = plain.update(gradients, plain.init(params), params)
    assert same(updates["class"], freely["class"])
    assert same(updates["Dense_0"]["bias"], freely["Dense_0"]["bias"])
    # Where a singular value was s, it is s (3 - s^2) / 2; the rest of the kernel is as it was moved to.
    moved = np.asarray(params["Dense_0"]["kernel"] + freely["Dense_0"]["kernel"])
    u, s, v = np.linalg.svd(moved, full_matrices=False)
    assert_close(params["Dense_0"]["kernel"] + updates["Dense_0"]["kernel"],
                 u @ np.diag(s * (3 - s**2) / 2) @ v, rtol=1e-4, atol=1e-5)
    for _ in range(200):
        updates, state = kept.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        gradients = jax.tree.map(lambda x: jnp.roll(x, 1), gradients)
    for layer, matrix in (("Dense_0", (6, 4)), ("Conv_1", (8, 3)), ("Dense_2", (5, 7))):
        values = np.linalg.svd(params[layer]["kernel"].reshape(matrix), compute_uv=False)
        np.testing.assert_allclose(values, 1, atol=0.25)
    with pytest.raises(ValueError, match="orthonormal_kernels needs the parameters"):
        kept.update(gradients, state)


def test_a_step_acts_on_the_singular_values_alone():
    """s becomes s (3 - s^2) / 2 between the same singular vectors; Z takes the same step."""
    left, _ = np.linalg.qr(_normal(6, 3))
    right, _ = np.linalg.qr(_normal(3, 3, seed=1))
    s = np.array([1.1, 0.8, 0.05])
    whitening = 0.5 * np.eye(3)
    weights, new = orthonormalised(jnp.float32(left @ np.diag(2 * s) @ right.T), jnp.float32(whitening))
    expected = left @ np.diag([0.9845, 0.944, 0.0749375]) @ right.T  # by hand
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(left @ np.diag(2 * s) @ right.T @ new, expected, atol=1e-6)


def test_the_step_is_differentiable_to_any_order():
    """It is a cubic in V: its derivatives are worked by hand."""
    v, h = (np.float64(0.3 * _normal(5, 3, seed=i)) for i in (0, 1))
    z = np.float64(np.eye(3) + 0.1 * _normal(3, 3, seed=2))

    def along(t):
        return orthonormalised(jnp.float32(v) + t * jnp.float32(h), jnp.float32(z))[0]

    def change(t):
        """The derivative of a sum of cubes along h, by a gradient."""
        return jnp.vdot(jax.grad(lambda v: (orthonormalised(v, jnp.float32(z))[0] ** 3).sum())(
            jnp.float32(v) + t * jnp.float32(h)), jnp.float32(h))

    @jax.jit
    def derivatives(t):
        one, two = jax.jacfwd(along), jax.jacfwd(jax.jacfwd(along))
        return one(t), two(t), jax.jacfwd(two)(t), change(t), jax.grad(change)(t)

    w, d = v @ z, h @ z
    first = 1.5 * d - 0.5 * (d @ w.T @ w + w @ d.T @ w + w @ w.T @ d)
    second = -(d @ d.T @ w + d @ w.T @ d + w @ d.T @ d)
    third = -3 * d @ d.T @ d
    x = 1.5 * w - 0.5 * w @ w.T @ w
    expected = (first, second, third, (3 * x ** 2 * first).sum(),
                (6 * x * first ** 2 + 3 * x ** 2 * second).sum())
    for found, by_hand in zip(derivatives(0.0), expected, strict=True):
        np.testing.assert_allclose(found, by_hand, rtol=1e-4, atol=1e-5)


def test_a_gradient_only_turns_orthonormal_columns():
    v, _ = np.linalg.qr(_normal(8, 3))
    gradient = jax.grad(lambda v: (orthonormalised(v, jnp.eye(3))[0] * _normal(8, 3, seed=1)).sum())(v)
    np.testing.assert_allclose(v.T @ gradient + gradient.T @ v, 0, atol=1e-5)
    assert np.abs(gradient).max() > 0.1


# Layers.

def _trained(module, x, steps=40):
    """Variables after Adam has moved the outputs for some steps."""
    variables = jax.jit(partial(module.init, train=False))(KEY, x)
    optimizer = optax.adam(1e-3)

    def step(carry, key):
        params, stats, opt_state = carry

        def loss(params):
            outputs, new = module.apply({"params": params, **stats}, x, train=True,
                                        mutable=["batch_stats"])
            return (outputs * jax.random.normal(key, outputs.shape)).mean(), new

        gradient, stats = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), stats, opt_state), None

    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    (trained, stats, _), _ = jax.jit(lambda carry: lax.scan(step, carry, jax.random.split(KEY, steps)))(
        (params, stats, optimizer.init(params)))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, trained)
    assert max(jax.tree.leaves(moved)) > 5e-3
    return {"params": trained, **stats}


def _matrix(module, variables, shape):
    """The matrix of a linear layer, by what it does with each unit vector."""
    units = jnp.eye(np.prod(shape)).reshape(-1, *shape)
    return np.asarray(module.apply(variables, units, train=False)).reshape(len(units), -1)


@pytest.mark.parametrize(("module", "shape"), [
    (_layer(Dense, features=12, use_bias=False), (20,)),
    (_layer(Dense, features=20, use_bias=False), (12,)),
    (_layer(nn.Dense, features=6, use_bias=False), (6,)),
    (_layer(Conv, features=5, kernel_size=(2, 3), strides=(2, 3), use_bias=False), (4, 6, 2)),
    (_layer(Conv, features=8, kernel_size=(2,), strides=2, use_bias=False, padding="VALID"), (8, 3)),
], ids=["narrow", "wide", "flax", "image", "series"])
def test_all_singular_values_are_1_and_stay_1_in_training(module, shape):
    variables = jax.jit(partial(module.init, train=False))(KEY, jnp.zeros((1, *shape)))
    np.testing.assert_allclose(_singular(_matrix(module, variables, shape)), 1, atol=1e-5)
    variables = _trained(module, _normal(16, *shape))
    np.testing.assert_allclose(_singular(_matrix(module, variables, shape)), 1, atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 4, 5])
def test_a_convolution_is_1_lipschitz_as_the_matrix_that_it_is(kernel_size, strides, padding):
    module = _layer(Conv, features=4, kernel_size=(kernel_size,) * 2, strides=strides, padding=padding,
                    use_bias=False)
    shape = (7, 6, 2)
    variables = jax.eval_shape(partial(module.init, train=False), KEY, jnp.zeros((1, *shape)))
    kernel, = jax.tree.leaves(variables["params"])
    for drawn, slope in ((_normal(*kernel.shape), 0.1), (np.ones(kernel.shape, np.float32), 0.4)):
        variables = {"params": jax.tree.map(lambda _, drawn=drawn: drawn, variables["params"]),
                     "batch_stats": jax.tree.map(lambda x: jnp.eye(len(x)), variables["batch_stats"])}
        for _ in range(8):
            _, stats = module.apply(variables, jnp.zeros((1, *shape)), train=True, mutable="batch_stats")
            variables |= stats
        largest = _singular(_matrix(module, variables, shape))[0]
        assert slope < largest <= 1 + 1e-5


def test_groups_keep_the_bound():
    module = _layer(Conv, features=6, kernel_size=(3,), groups=2, use_bias=False)
    variables = jax.jit(partial(module.init, train=False))(KEY, jnp.zeros((1, 9, 4)))
    assert 0.1 < _singular(_matrix(module, variables, (9, 4)))[0] <= 1 + 1e-5


def test_the_state_is_kept_in_training_only_and_a_bias_left_alone():
    module = _layer(Dense, features=4)
    x = _normal(3, 6)
    variables = module.init(KEY, x, train=False)
    variables["params"]["Dense_0"] = {"kernel": _normal(6, 4), "bias": jnp.arange(4.0)}
    outputs, after = module.apply(variables, x, train=False, mutable=["batch_stats"])
    _, trained = module.apply(variables, x, train=True, mutable=["batch_stats"])
    assert jax.tree.map(np.shape, variables["batch_stats"]) == {"Orthonormal_0": {"whitening": (4, 4)}}
    assert same(after["batch_stats"], variables["batch_stats"])
    weights, whitening = orthonormalised(_normal(6, 4), jnp.eye(4))
    assert_close(trained["batch_stats"], {"Orthonormal_0": {"whitening": whitening}})
    u, s, v = np.linalg.svd(np.asarray(weights, np.float64), full_matrices=False)
    for _ in range(6):  # further steps in evaluation
        s *= (3 - s**2) / 2
    np.testing.assert_allclose(outputs, x @ (u * s @ v) + np.arange(4.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [partial(ConvTranspose, 3, (2,)), partial(nn.Conv, 3, (2,))])
def test_other_layers_are_refused(layer):
    with pytest.raises(TypeError, match=r"only a Dense or Conv of jaxgan\.nn .*; got Conv"):
        Orthonormal(layer()).init(KEY, jnp.zeros((1, 4, 3)), update_stats=False)


# Activations.

def test_maxmin_and_group_sort_by_hand():
    x = jnp.array([[[3.0, -1.0, 2.0, 5.0, 4.0, -2.0]]])
    np.testing.assert_array_equal(maxmin(x)[0, 0], [5, 4, 2, 3, -1, -2])
    np.testing.assert_array_equal(group_sort(x, 2)[0, 0], [-1, 3, 2, 5, -2, 4])
    np.testing.assert_array_equal(group_sort(x, 3)[0, 0], [-1, 2, 3, -2, 4, 5])
    np.testing.assert_array_equal(group_sort(x)[0, 0], [-2, -1, 2, 3, 4, 5])
    np.testing.assert_array_equal(group_sort(x, 6), group_sort(x))


@pytest.mark.parametrize("name", ["maxmin", "sort"])
def test_sorting_keeps_the_norm_of_gradients(name):
    x, cotangent = jnp.array(_normal(5, 3, 8)), jnp.array(_normal(5, 3, 8, seed=1))
    outputs, pull = jax.vjp(ACTIVATIONS[name], x)
    np.testing.assert_array_equal(np.sort(outputs), np.sort(x))
    np.testing.assert_array_equal(np.sort(pull(cotangent)[0]), np.sort(cotangent))


@pytest.mark.parametrize("name", ["maxmin", "sort"])
def test_equal_channels_raise_no_gradient(name):
    pull = jax.vjp(ACTIVATIONS[name], jnp.ones(4))[1]
    assert _singular(jax.vmap(pull)(jnp.eye(4))[0])[0] <= 1 + 1e-6


def test_other_activations_by_hand():
    x = jnp.array([-2.0, 0.0, 3.0])
    for name, expected in {"relu": [0, 0, 3], "leaky_relu": [-0.4, 0, 3],
                           "silu": [-2 / (1 + np.exp(2)), 0, 3 / (1 + np.exp(-3))],
                           "softplus": np.log1p(np.exp([-2, 0, 3]))}.items():
        np.testing.assert_allclose(ACTIVATIONS[name](x), expected, rtol=1e-6)


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"maxmin takes .* multiple of 2; got 5: choose another width"):
        maxmin(jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"group_sort takes .* a multiple of 4; got 6"):
        group_sort(jnp.zeros((2, 6)), 4)
    with pytest.raises(ValueError, match="a multiple of 0; got 6"):
        group_sort(jnp.zeros((2, 6)), 0)


# Critics.

CRITICS = {
    "mlp": (MLPCritic((16, 8), "orthonormal"), (2,)),
    "mlp, sorted": (MLPCritic((8, 8), "orthonormal", activation="sort"), (3, 1)),
    "mlp, relu": (MLPCritic((8, 8), "orthonormal", activation="relu"), (2,)),
    "dcgan": (DCGANCritic(4, norm="orthonormal"), (8, 8, 1)),
    "dcgan, 4x4": (DCGANCritic(2, 1, 4, "orthonormal"), (9, 7, 2)),
    "dcgan, series": (DCGANCritic(2, norm="orthonormal", axes=1), (20, 3)),
}


def _drawn(critic, x, *condition):
    """Variables of a critic: kernels far from orthonormal, with the state that makes them so."""
    variables = jax.eval_shape(partial(critic.init, train=False), KEY, x, *condition)
    params = jax.tree.map(lambda leaf: _normal(*leaf.shape), variables["params"])
    layers = [name for name in sorted(params) if name.startswith(("Conv_", "Dense_"))]
    states = {}
    for i, name in enumerate(layers):
        kernel = params[name]["kernel"]
        matrix = np.float64(kernel.reshape(-1, kernel.shape[-1]))
        matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        inverse = np.linalg.inv(np.linalg.qr(matrix)[1])
        states[f"Orthonormal_{i}"] = {"whitening": jnp.float32(inverse)}
    assert jax.tree.map(np.shape, states) == jax.tree.map(np.shape, variables["batch_stats"])
    return {"params": params, "batch_stats": states}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CRITICS)
def test_critics_are_1_lipschitz(name, dtype):
    critic, shape = CRITICS[name]
    critic = critic.clone(dtype=jnp.dtype(dtype))
    x, y = _normal(64, *shape), _normal(64, *shape, seed=1)
    y[32:] = x[32:] + 0.3 * y[32:]
    variables = _drawn(critic, x)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradients_and_scores(x):
        scores = critic.apply(variables, x, train=False)
        return scores.sum(), scores

    (gradients, of_x), (_, of_y) = map(gradients_and_scores, (x, y))
    distances = np.linalg.norm((x - y).reshape(64, -1), axis=1)
    within, rounding = (1 + 1e-5, 1e-6) if dtype == "float32" else (1.01, 0.02)
    assert (np.abs(of_x - of_y) <= within * distances + rounding).all()
    slopes = np.linalg.norm(gradients.reshape(64, -1), axis=1)
    assert slopes.max() <= within
    assert slopes.max() > 0.02


def test_no_slope_is_lost_between_equal_widths():
    """By sorting and square matrices a gradient keeps its norm, at every point, in training too."""
    critic = MLPCritic((6, 6, 6), "orthonormal")
    x = _normal(50, 6)
    variables = _trained(critic, x)
    gradients = jax.jit(jax.grad(lambda x: critic.apply(variables, x, train=False).sum()))(x)
    np.testing.assert_allclose(np.linalg.norm(gradients, axis=1), 1, atol=1e-4)


def test_a_critic_finds_the_wasserstein_distance_from_below():
    rng = np.random.default_rng(3)
    real = rng.normal(size=(64, 1)).astype(np.float32)
    fake = np.float32(np.where(rng.random((64, 1)) < 0.5, -2, 1) + 0.3 * rng.normal(size=(64, 1)))
    expected = stats.wasserstein_distance(real.ravel(), fake.ravel())
    assert abs(real.mean() - fake.mean()) < 0.7 * expected  # no linear critic would do
    critic, both = MLPCritic((32, 32), "orthonormal"), jnp.concatenate([real, fake])
    variables = jax.jit(partial(critic.init, train=False))(KEY, both)
    optimizer = optax.adam(optax.linear_schedule(5e-3, 0.0, 400))

    def step(carry, _):
        params, kept, opt_state = carry

        def loss(params):
            scores, new = critic.apply({"params": params, **kept}, both, train=True,
                                       mutable=["batch_stats"])
            return scores[64:].mean() - scores[:64].mean(), new

        (value, kept), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return (optax.apply_updates(params, updates), kept, opt_state), -value

    start = variables["params"], {"batch_stats": variables["batch_stats"]}
    _, found = jax.jit(lambda carry: lax.scan(step, carry, length=400))(
        (*start, optimizer.init(start[0])))
    assert found.max() <= expected * (1 + 1e-5)
    assert found[-50:].mean() >= 0.95 * expected


def test_a_condition_leaves_the_score_1_lipschitz_in_the_sample():
    labels, x = jnp.arange(6) % 3, _normal(6, 8, 8, 1)
    for conditioning, heads in (("concatenation", ()), ("classes", (("box", 4),))):
        critic = DCGANCritic(4, norm="orthonormal", conditioning=conditioning, num_classes=3,
                             heads=heads)
        variables = _drawn(critic, x, labels)  # of two convolutions and the score, not of the heads

        def score(x, critic=critic, variables=variables):
            outputs = critic.apply(variables, x, labels, train=False)
            return (outputs[0] if isinstance(outputs, tuple) else outputs).sum()

        slopes = np.linalg.norm(jax.jit(jax.grad(score))(x).reshape(6, -1), axis=1)
        assert 0.02 < slopes.max() <= 1 + 1e-5


def test_such_critics_score_each_sample_by_itself():
    assert not looks_across(DCGANCritic(4, norm="orthonormal"), jnp.zeros((5, 8, 8, 1)), None)
    assert not looks_across(MLPCritic((4,), "orthonormal", activation="sort"), jnp.zeros((5, 2)), None)


@pytest.mark.parametrize(("critic", "shape", "text"), [
    (ResNetCritic((2, 2), norm="orthonormal"), (8, 8, 1), "'layer', 'spectral'; got 'orthonormal'"),
    (TextCritic(4, 1, norm="orthonormal"), (6, 4), "'layer', 'spectral'; got 'orthonormal'"),
    (MLPCritic((4, 4), "orthonormal", residual=True), (2,), "residual does not go with norm 'ortho"),
    (MLPCritic((4, 5), residual=True), (2,), r"one width; got \(4, 5\): leave residual out"),
    (MLPCritic((4,), activation="tanh"), (2,), "activation must be one of 'relu', .*; got 'tanh'"),
    (MLPCritic((4,), "orthonormal", activation="silu"), (2,), "slope is up to 1.1: choose 'maxmin'"),
    (MLPCritic((5,), "orthonormal"), (2,), "maxmin takes .* got 5: choose another width"),
    (MLPCritic((4,), "orthonormal", "projection", 3), (2,), "'projection' does not go with norm"),
])
def test_what_would_be_no_1_lipschitz_critic_is_refused(critic, shape, text):
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(partial(critic.init, train=False), KEY, jnp.zeros((3, *shape)),
                       jnp.zeros(3, jnp.int32))
