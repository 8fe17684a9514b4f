"""The models: published sizes, one contract for all, norms and initialisers."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import count_parameters

from jaxgan import GAN, Batch, init_state, losses, penalties, train_step
from jaxgan.models import (
    DCGANCritic,
    DCGANGenerator,
    MLPCritic,
    MLPGenerator,
    ResidualBlock,
    ResNetCritic,
    ResNetGenerator,
    StyleGAN2Critic,
    StyleGAN2Generator,
    TextCritic,
    TextGenerator,
    resnet,
)
from jaxgan.models.resnet import mean_pool, upsample
from jaxgan.nn import Conv, ConvTranspose, convolutions
from jaxgan.nn.initializers import conv_init, conv_transpose_init, dense_init
from jaxgan.nn.norms import NORMS, RESIDUAL_NORMS, normalise, weight_layer

LATENT_SIZE = 6
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _init(module, shape):
    # This generator compiles ten times faster on a CPU than the default one, and many models are made.
    return jax.jit(lambda key: module.init(key, jnp.zeros(shape), None, train=False))(
        jax.random.key(0, impl="rbg"))


def _variables(module, shape):
    """Variables drawn without compiling the model's `init`, biases and scales not at 0 and 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, noise = path[-1].key.split("/")[-1], rng.normal(size=leaf.shape)
        if name in ("scale", "var", "sigma"):
            noise = 1 + 0.1 * np.abs(noise)
        elif name == "kernel":
            noise *= math.sqrt(2 / math.prod(leaf.shape[:-1]))
        elif name == "whitening":
            noise = np.eye(len(noise)) + 0.1 * noise
        elif name != "u":
            noise *= 0.1
        return jnp.asarray(noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(
        lambda key: module.init(key, jnp.zeros(shape), None, train=False), jax.random.key(0)))


def _normal(shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# The sizes of the networks of the WGAN-GP and StyleGAN2 articles, by their public code.


@pytest.mark.parametrize(("module", "shape", "parameters"), [
    (MLPGenerator(), (2,), 527_874),
    (MLPCritic(), (2,), 527_361),
    (DCGANGenerator((28, 28, 1)), (128,), 1_554_177),
    (DCGANCritic(), (28, 28, 1), 1_030_145),
    (DCGANGenerator((32, 32, 3), 128, norm="batch", output="tanh"), (128,), 5_179_907),
    (DCGANCritic(128), (32, 32, 3), 4_114_689),
    (ResNetGenerator(), (128,), 1_204_483),
    (ResNetCritic(), (32, 32, 3), 1_053_825),
    (ResNetGenerator((64, 64, 3), (512, 512, 256, 128, 64), first_bias=False), (128,), 8_540_483),
    (ResNetCritic((64, 128, 256, 512, 512), down_blocks=4, stem="conv", head="flatten",
                  norm="layer", first_bias=False), (64, 64, 3), 7_491_841),
    (StyleGAN2Generator((32, 32, 3), mapping_layers=2), (512,), 19_947_539),
    (StyleGAN2Critic(architecture="plain"), (32, 32, 3), 20_720_641),
])
def test_published_numbers_of_parameters(module, shape, parameters):
    assert count_parameters(module, shape) == parameters


# What holds of every model.

GENERATORS = {
    "mlp": (MLPGenerator(hidden=(8, 8)), (2,), -np.inf, np.inf),
    "mlp_images": (MLPGenerator((4, 3, 1), (8,), output="sigmoid"), (4, 3, 1), 0, 1),
    "dcgan_digits": (DCGANGenerator((8, 8, 1), 4), (8, 8, 1), 0, 1),
    "dcgan_mnist": (DCGANGenerator((28, 28, 1), 2), (28, 28, 1), 0, 1),
    "dcgan_batch": (DCGANGenerator((32, 32, 3), 2, norm="batch", output="tanh"), (32, 32, 3), -1, 1),
    "dcgan_odd": (DCGANGenerator((30, 20, 2), 2, output="tanh"), (30, 20, 2), -1, 1),
    "dcgan_one_stage": (DCGANGenerator((5, 7, 1), 2, stages=1), (5, 7, 1), 0, 1),
    "dcgan_series": (DCGANGenerator((20, 3), 2, axes=1, output="none"), (20, 3), -np.inf, np.inf),
    "dcgan_volumes": (DCGANGenerator((5, 8, 7, 1), 2, 1, 3, "batch", axes=3), (5, 8, 7, 1), 0, 1),
    "resnet": (ResNetGenerator((8, 8, 3), (4, 4)), (8, 8, 3), -1, 1),
    "resnet_long": (ResNetGenerator((8, 16, 2), (6, 4, 2), norm="none", output="sigmoid",
                                    first_bias=False), (8, 16, 2), 0, 1),
    "stylegan2": (StyleGAN2Generator((8, 8, 2), 64, w_size=5, mapping_layers=1, noise="constant",
                                     style_mixing=0.0), (8, 8, 2), -np.inf, np.inf),
    "text": (TextGenerator(6, 4, 8, 2, 3), (6, 4), 0, 1),
}

CRITICS = {
    "mlp": (lambda norm: MLPCritic((8, 8), norm), (2,)),
    "mlp_residual": (lambda norm: MLPCritic((8, 8), norm, activation="silu", residual=True), (2,)),
    "dcgan_digits": (lambda norm: DCGANCritic(4, norm=norm), (8, 8, 1)),
    "dcgan_odd": (lambda norm: DCGANCritic(2, norm=norm), (30, 20, 2)),
    "dcgan_series": (lambda norm: DCGANCritic(2, norm=norm, axes=1), (20, 3)),
    "dcgan_volumes": (lambda norm: DCGANCritic(2, 2, 3, norm, axes=3), (5, 8, 7, 1)),
    "resnet": (lambda norm: ResNetCritic((4, 4, 4), norm=norm), (8, 8, 3)),
    "resnet_flat": (lambda norm: ResNetCritic((2, 4), 1, "conv", "flatten", norm, False), (8, 4, 1)),
    "text": (lambda norm: TextCritic(8, 2, 3, norm), (6, 4)),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_makes_samples_in_its_range_and_has_gradients(name):
    module, shape, low, high = GENERATORS[name]
    variables = _variables(module, (3, LATENT_SIZE))
    stats = [collection for collection in variables if collection != "params"]

    def loss(params, latents):
        samples, _ = module.apply({**variables, "params": params}, latents, train=True,
                                  mutable=stats)
        return jnp.sum(samples * _normal(samples.shape, seed=2)), samples

    gradient, samples = jax.jit(jax.grad(loss, has_aux=True))(
        variables["params"], 5 * _normal((3, LATENT_SIZE)))
    assert samples.shape == (3, *shape)
    assert samples.dtype == jnp.float32
    assert low <= samples.min() < samples.max() <= high
    assert low == -np.inf or samples.min() < (low + high) / 2 < samples.max()
    for path, leaf in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.isfinite(leaf).all(), path
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0


def _critic(name, norm):
    """A critic, three samples and `scores(params, samples)` in training mode."""
    make, shape = CRITICS[name]
    module, samples = make(norm), _normal((3, *shape))
    variables = _variables(module, samples.shape)
    stats = [collection for collection in variables if collection != "params"]

    def scores(params, samples):
        return module.apply({**variables, "params": params}, samples, train=True, mutable=stats)[0]

    return variables["params"], samples, scores


@pytest.mark.parametrize(("name", "norm"), [
    (name, norm) for name in CRITICS
    for norm in (RESIDUAL_NORMS if name.startswith(("mlp_residual", "resnet", "text")) else NORMS)])
def test_a_critic_scores_each_sample_and_only_under_batch_norm_by_the_others(name, norm):
    params, samples, scores = _critic(name, norm)
    scores = jax.jit(scores)
    before, after = scores(params, samples), scores(params, samples.at[1:].multiply(3.0))
    assert before.shape == (3,)
    assert before.dtype == jnp.float32
    assert np.isfinite(before).all()
    assert np.abs(before[1:] - after[1:]).min() > 1e-4
    if norm == "batch":
        assert abs(before[0] - after[0]) > 1e-3
    else:
        np.testing.assert_allclose(before[0], after[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*GENERATORS, *CRITICS])
def test_layers_compute_in_bfloat16_and_all_else_stays_float32(name):
    """The outputs are those of float32, to what eight bits can tell, but not the same."""
    module, shape = (GENERATORS[name][0], (LATENT_SIZE,)) if name in GENERATORS else (
        CRITICS[name][0]("layer"), CRITICS[name][1])
    x, variables = _normal((3, *shape)), _variables(module, (3, *shape))
    stats = [collection for collection in variables if collection != "params"]

    def apply(dtype):
        return jax.jit(lambda x: module.clone(dtype=dtype).apply(
            variables, x, train=True, mutable=stats))(x)

    (exact, _), (rounded, new_stats) = apply(jnp.float32), apply(jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves((rounded, new_stats))} == {jnp.dtype("float32")}
    error = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.1


@pytest.mark.parametrize(("name", "norm"), [
    ("mlp", "none"), ("dcgan_digits", "layer"), ("resnet_flat", "layer"),
    ("dcgan_digits", "spectral"), ("mlp", "orthonormal"), ("dcgan_digits", "orthonormal"),
    ("mlp_residual", "layer"), ("resnet", "none"), ("text", "none")])
def test_a_critic_can_be_penalised(name, norm):
    params, samples, scores = _critic(name, norm)

    def penalty(params):
        gradient = jax.grad(lambda x: scores(params, x).sum())(samples)
        return jnp.mean((jnp.sqrt((gradient ** 2).sum(tuple(range(1, gradient.ndim)))) - 1) ** 2)

    gradient = jax.jit(jax.grad(penalty))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0


@pytest.mark.parametrize(("module", "shape"), [
    (DCGANGenerator((8, 8, 1), 2, norm="batch"), (4, LATENT_SIZE)),
    (ResNetGenerator((4, 4, 1), (4, 2)), (4, LATENT_SIZE)),
    (MLPCritic((4, 4), "batch"), (4, 2)),
    (DCGANCritic(2, norm="batch"), (4, 8, 8, 1)),
    (ResNetCritic((2, 2), norm="batch"), (4, 4, 4, 1)),
], ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "")
def test_batch_norm_over_devices_is_that_of_the_global_batch(module, shape):
    inputs, variables = _normal(shape), _variables(module, shape)

    def apply(module, x):
        return module.apply(variables, x, train=True, mutable=["batch_stats"])

    whole, stats = jax.jit(lambda x: apply(module, x))(inputs)
    halves = inputs.reshape(2, shape[0] // 2, *shape[1:])
    parts, parts_stats = jax.jit(jax.vmap(
        lambda x: apply(module.clone(axis_name="devices"), x), axis_name="devices"))(halves)
    np.testing.assert_allclose(parts.reshape(whole.shape), whole, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda part, all_: np.testing.assert_allclose(part[0], all_, rtol=1e-4, atol=1e-5),
                 parts_stats, stats)
    alone, _ = jax.jit(jax.vmap(lambda x: apply(module, x)))(halves)
    assert np.abs(alone.reshape(whole.shape) - whole).max() > 1e-3


@pytest.mark.parametrize(("activation", "function"), [
    (None, lambda x: np.maximum(x, 0)), ("leaky_relu", lambda x: np.maximum(x, 0.2 * x)),
    ("sort", np.sort)])
@pytest.mark.parametrize("residual", [False, True])
def test_hidden_layers_but_the_first_are_added_to_their_input_on_request(residual, activation, function):
    module, x = MLPCritic((6, 6, 6), activation=activation, residual=residual), _normal((5, 2))
    variables = _variables(module, x.shape)
    weights = [(np.asarray(layer["kernel"]), np.asarray(layer["bias"]))
               for _, layer in sorted(variables["params"].items())]
    hidden = np.asarray(x)
    for i, (kernel, bias) in enumerate(weights[:-1]):
        hidden = function(hidden @ kernel + bias) + (hidden if residual and i else 0)
    expected = (hidden @ weights[-1][0] + weights[-1][1]).squeeze(-1)
    np.testing.assert_allclose(module.apply(variables, x, train=False), expected, rtol=1e-5, atol=1e-6)


# Norms.


class Layer(nn.Module):
    """One weight layer, as a critic has it."""

    norm: str
    features: int = 5

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        return weight_layer(self.norm, nn.Dense(self.features, use_bias=False), x, train=train)


class Normalised(nn.Module):
    """One norm of activations, as a critic has it."""

    norm: str

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        return normalise(self.norm, x, train=train)


def _train(module, variables, x, times):
    @jax.jit
    def once(stats):
        return module.apply({**variables, "batch_stats": stats}, x, train=True,
                            mutable=["batch_stats"])[1]["batch_stats"]

    stats = variables["batch_stats"]
    for _ in range(times):
        stats = once(stats)
    return {**variables, "batch_stats": stats}


def test_spectral_norm_divides_by_the_largest_singular_value():
    module = Layer("spectral")
    variables = _variables(module, (7, 7))
    variables["params"]["Dense_0"]["kernel"] *= 6.0
    kernel = variables["params"]["Dense_0"]["kernel"]
    variables = _train(module, variables, jnp.eye(7), 100)
    effective = module.apply(variables, jnp.eye(7), train=False)
    singular = np.linalg.svd(effective, compute_uv=False)
    np.testing.assert_allclose(singular[0], 1.0, rtol=1e-4)
    np.testing.assert_allclose(effective, kernel / np.linalg.svd(kernel, compute_uv=False)[0],
                               rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CRITICS)
def test_spectral_norm_reaches_every_weight_of_a_critic(name):
    make, shape = CRITICS[name]
    module, samples = make("spectral"), _normal((2, *shape))
    variables = _train(module, _variables(module, samples.shape), samples, 200)
    kernels = [leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.ndim > 1]
    expected = [np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
                for kernel in kernels]
    estimated = [leaf for path, leaf
                 in jax.tree_util.tree_flatten_with_path(variables["batch_stats"])[0]
                 if path[-1].key.endswith("sigma")]
    np.testing.assert_allclose(sorted(np.stack(estimated)), sorted(expected), rtol=2e-2)


def test_spectral_norm_keeps_its_estimate_outside_training():
    module = Layer("spectral")
    variables = _variables(module, (7, 7))
    _, after = module.apply(variables, jnp.eye(7), train=False, mutable=["batch_stats"])
    _, trained = module.apply(variables, jnp.eye(7), train=True, mutable=["batch_stats"])
    before = jax.tree.leaves(variables["batch_stats"])
    assert all(jax.tree.map(np.array_equal, before, jax.tree.leaves(after)))
    assert not all(jax.tree.map(np.array_equal, before, jax.tree.leaves(trained)))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5, 2)])
def test_layer_norm_is_over_all_of_a_sample_with_a_scale_per_channel(shape):
    x = 100 + _normal(shape)
    module = Normalised("layer")
    variables = _variables(module, shape)
    variables["params"]["LayerNorm_0"]["bias"] *= 0
    variables["params"]["LayerNorm_0"]["scale"] = jnp.arange(1.0, shape[-1] + 1)
    axes = tuple(range(1, len(shape)))
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(axes, keepdims=True)) / np.sqrt(
        exact.var(axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(module.apply(variables, x, train=True),
                               expected * np.arange(1, shape[-1] + 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("norm", ["none", "spectral", "orthonormal"])
def test_other_norms_leave_activations_alone(norm):
    x = _normal((3, 4))
    np.testing.assert_array_equal(normalise(norm, x, train=True), x)


# Initialisers.


@pytest.mark.parametrize(("init", "shape", "variance"), [
    (dense_init(), (150, 250), 2 / 400),
    (dense_init(he=True), (150, 250), 2 / 150),
    (conv_init(), (3, 3, 60, 90), 4 / (60 * 9 + 90 * 9)),
    (conv_init(2), (5, 5, 40, 80), 4 / (40 * 25 + 80 * 25 / 4)),
    (conv_init(2, he=False), (5, 5, 40, 80), 2 / (40 * 25 + 80 * 25 / 4)),
    (conv_transpose_init(2), (5, 5, 40, 80), 4 / (80 * 25 / 4 + 40 * 25)),  # [*k, out, in]
    (conv_transpose_init(2, he=False), (5, 5, 40, 80), 2 / (80 * 25 / 4 + 40 * 25)),
    (conv_init(3), (7, 50, 100), 4 / (50 * 7 + 100 * 7 / 3)),
])
def test_initialisers_are_uniform_with_the_variance_of_the_formula(init, shape, variance):
    kernel = np.asarray(init(jax.random.key(3, impl="rbg"), shape, jnp.float32))
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel.std(), math.sqrt(variance), rtol=0.02)
    np.testing.assert_allclose(kernel.max(), math.sqrt(3 * variance), rtol=0.01)
    np.testing.assert_allclose(kernel.min(), -math.sqrt(3 * variance), rtol=0.01)


def test_activations_keep_their_size_through_strided_layers():
    # A he convolution from c to 4 c channels with stride 2 has fan_in = fan_out: variance 2 / fan_in.
    x = _normal((8, 16, 16, 16))
    down = Conv(64, (5, 5), strides=2, kernel_init=conv_init(2))
    y = down.apply(down.init(jax.random.key(4), x), x)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(y.std(), math.sqrt(2), rtol=0.1)
    up = ConvTranspose(4, (5, 5), strides=2, kernel_init=conv_transpose_init(2))
    y = up.apply(up.init(jax.random.key(5), x), x)[:, 2:-2, 2:-2]
    np.testing.assert_allclose(y.std(), math.sqrt(2), rtol=0.1)


def test_each_layer_has_the_initialiser_of_the_experiments():
    def limits(module, shape):
        return {path[-2].key if len(path) == 2 else f"{path[0].key}/{path[1].key}":
                float(jnp.abs(leaf).max())
                for path, leaf in jax.tree_util.tree_flatten_with_path(
                    _init(module, shape)["params"])[0] if path[-1].key == "kernel"}

    def check(found, **variances):
        expected = {name.replace("__", "/"): math.sqrt(3 * v) for name, v in variances.items()}
        assert found == pytest.approx(expected, rel=0.05)

    check(limits(MLPCritic((30, 40)), (1, 20)), Dense_0=2 / 20, Dense_1=2 / 30, Dense_2=2 / 41)
    check(limits(DCGANGenerator((8, 8, 3), 8), (1, 40)), Dense_0=2 / (40 + 64),
          ConvTranspose_0=4 / (16 * 25 / 4 + 8 * 25), ConvTranspose_1=4 / (8 * 25 / 4 + 3 * 25))
    check(limits(DCGANCritic(8), (1, 16, 16, 3)), Conv_0=4 / (3 * 25 + 8 * 25 / 4),
          Conv_1=4 / (8 * 25 + 16 * 25 / 4), Conv_2=4 / (16 * 25 + 32 * 25 / 4),
          Dense_0=2 / (4 * 32 + 1))
    check(limits(ResNetCritic((10, 20), 1, "conv", "flatten"), (1, 8, 8, 9)), Conv_0=2 / (9 * 19),
          ResidualBlock_0__Conv_0=4 / (9 * 20), ResidualBlock_0__Conv_1=4 / (9 * 30),
          ResidualBlock_0__Conv_2=2 / 30, Dense_0=2 / (16 * 20 + 1))
    check(limits(ResNetCritic((10, 10)), (1, 8, 8, 9)), StemBlock_0__Conv_0=4 / (9 * 19),
          StemBlock_0__Conv_1=4 / (9 * 20), StemBlock_0__Conv_2=2 / 19,
          ResidualBlock_0__Conv_0=4 / (9 * 20), ResidualBlock_0__Conv_1=4 / (9 * 20),
          ResidualBlock_0__Conv_2=2 / 20, Dense_0=2 / 11)
    check(limits(ResNetGenerator((8, 8, 9), (10, 20)), (1, 30)), Dense_0=2 / (30 + 160),
          ResidualBlock_0__Conv_0=4 / (9 * 30), ResidualBlock_0__Conv_1=4 / (9 * 40),
          ResidualBlock_0__Conv_2=2 / 30, Conv_0=2 / (9 * 29))
    check({"Conv_0": limits(ResNetGenerator((8, 8, 9), (10, 20), last_he=True), (1, 30))["Conv_0"]},
          Conv_0=4 / (9 * 29))


# Residual blocks.


def test_resampling():
    x = _normal((2, 4, 6, 3))
    np.testing.assert_array_equal(upsample(x), np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
    np.testing.assert_allclose(mean_pool(x), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean_pool(upsample(x)), x, rtol=1e-6)


@pytest.mark.parametrize(("resample", "expected"), [
    ("none", lambda x: x), ("up", upsample), ("down", mean_pool)])
def test_a_block_without_its_convolutions_is_its_shortcut(resample, expected):
    x = _normal((2, 4, 4, 3))
    block = ResidualBlock(3, resample)
    params = block.init(jax.random.key(0), x, False)["params"]
    params["Conv_1"]["kernel"] *= 0
    if resample == "none":
        assert "Conv_2" not in params
    else:
        params["Conv_2"]["kernel"] = jnp.eye(3).reshape(1, 1, 3, 3)
    y = block.apply({"params": params}, x, False)
    np.testing.assert_allclose(y, expected(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_resampling_in_convolutions_trains_as_resampling_beside_them_does(monkeypatch):
    """20 SGD steps of both ways; with the same parameters."""
    def trained():
        gan = GAN(generator=ResNetGenerator((8, 8, 3), (6, 6, 6)), critic=ResNetCritic((6, 6, 6)),
                  latent_size=4, loss=losses.wasserstein(), penalty=penalties.gradient_penalty(),
                  generator_optimizer=optax.sgd(1e-3), critic_optimizer=optax.sgd(1e-3))
        batches = Batch(_normal((2, 4, 8, 8, 3)))
        state = init_state(gan, jax.random.key(0), jax.tree.map(lambda x: x[0], batches))
        step = jax.jit(partial(train_step, gan))
        for i in range(20):
            state, _ = step(state, batches, jax.random.key(i))
        return state.generator.params, state.critic.params

    class Beside(Conv):
        @nn.compact
        def __call__(self, x):
            x = upsample(x) if self.resample == "up" else x
            x = self._apply(convolutions.conv, x, x.shape[-1], self.features)
            return mean_pool(x) if self.resample == "down" else x

    together = trained()
    Beside.__name__ = "Conv"  # parameters are called by it
    monkeypatch.setattr(resnet, "Conv", Beside)
    beside = trained()
    assert jax.tree.structure(together) == jax.tree.structure(beside)
    for ours, other in zip(together, beside, strict=True):  # some biases are but rounding: all at once
        difference = optax.tree.norm(jax.tree.map(jnp.subtract, ours, other))
        assert 0 < difference <= 1e-5 * optax.tree.norm(other)


@pytest.mark.slow
@pytest.mark.parametrize("network", [
    ResNetGenerator((16, 16, 3), (4, 4, 4), norm="batch"),
    ResNetCritic((4, 4, 4), down_blocks=2, stem="conv", norm="layer")], ids=["generator", "critic"])
def test_remat_keeps_less_for_the_same_gradient(network):
    x = _normal((2, 16, 16, 3)) if isinstance(network, ResNetCritic) else _normal((2, 5))
    variables = network.init(jax.random.key(0), x, train=False)
    again = network.clone(remat=True)
    same = again.init(jax.random.key(0), x, train=False)
    assert jax.tree.structure(same) == jax.tree.structure(variables)

    def scores(network, params):
        return network.apply(variables | {"params": params}, x, train=False)

    kept, gradients = [], []
    for module in (network, again):
        y, pullback = jax.vjp(partial(scores, module), variables["params"])
        kept.append(sum(leaf.nbytes for leaf in jax.tree.leaves(pullback)))
        gradients.append(pullback(jnp.ones_like(y))[0])
    assert kept[1] < 0.6 * kept[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *gradients)


# What is refused.


@pytest.mark.parametrize(("module", "shape", "text"), [
    (DCGANGenerator((8, 8, 1), 2, stages=3), (1, 4), "8x8 are too small for 3 stages.*fewer"),
    (DCGANGenerator((4, 28, 1), 2), (1, 4), "DCGANGenerator: images of 4x28 are too small"),
    (DCGANGenerator((28, 28), 2), (1, 4), r"must be \(height, width, channels\); got \(28, 28\)"),
    (DCGANGenerator((28, 28, 1), 2, axes=1), (1, 4), r"must be \(length, channels\); got \(28, 28, 1\)"),
    (DCGANGenerator((28, 28, 1), 2, axes=4), (1, 4), "axes must be 1 for series, .*; got 4"),
    (DCGANCritic(2, axes=3), (1, 8, 8, 1), r"depth, height, width, channels\]; got .*: its axes is 3"),
    (DCGANGenerator((28, 28, 1), 2), (4,), r"\[batch, latent_size\]; got \(4,\)"),
    (DCGANGenerator((28, 28, 1), 2, norm="layer"), (1, 4), "one of 'none', 'batch'; got 'layer'"),
    (DCGANGenerator((28, 28, 1), 2, output="relu"), (1, 4), "output must be one of 'tanh'"),
    (DCGANGenerator((28, 28, 1), 2, stages=0), (1, 4), "stages must be at least 1; got 0"),
    (DCGANCritic(2), (1, 28, 28), r"got \(1, 28, 28\): give grey images a channel axis"),
    (DCGANCritic(2, norm="group"), (1, 28, 28, 1), "'spectral', 'orthonormal'; got 'group'"),
    (DCGANCritic(2), (1, 4, 4, 1), "DCGANCritic: images of 4x4 are too small"),
    (MLPCritic((4,), "bacth"), (1, 2), "norm must be one of 'none', 'batch'.*got 'bacth'"),
    (ResNetGenerator((28, 28, 1), (2, 2, 2, 2)), (1, 4), "28x28 do not fit 3 blocks.*of 8; pad"),
    (ResNetGenerator((8, 8, 1), (2, 2), norm="spectral"), (1, 4), "got 'spectral'"),
    (ResNetCritic((2, 2)), (1, 10, 8, 1), "10x8 do not fit 2 blocks.*multiples of 4"),
    (ResNetCritic((2, 2), stem="pool"), (1, 8, 8, 1), "stem must be 'block' or 'conv'; got 'pool'"),
    (ResNetCritic((2, 2), head="max"), (1, 8, 8, 1), "head must be 'mean' or 'flatten'; got 'max'"),
    (ResNetCritic((2, 2), 2), (1, 8, 8, 1), "down_blocks must be from 0 to 1.*got 2"),
    (ResNetCritic((2, 2)), (1, 8, 8), "takes images of shape"),
    (StyleGAN2Generator((28, 28, 1)), (1, 4), "takes square images of 8, 16, .*; got 28x28: pad, crop"),
    (StyleGAN2Generator((16, 8, 1)), (1, 4), "takes square images of 8, 16, .*; got 16x8"),
    (StyleGAN2Generator((8, 8, 1), 4), (1, 4), "leave 0 channels at 8x8 pixels: choose a base of 8"),
    (StyleGAN2Generator((8, 8, 1), noise="fixed"), (1, 4), "one of 'random', .*; got 'fixed'"),
    (StyleGAN2Generator((8, 8, 1), style_mixing=90), (1, 4), r"a probability, in \[0, 1\]; got 90"),
    (StyleGAN2Generator((8, 8, 1), num_classes=3), (1, 4), "takes labels, .*got NoneType"),
    (StyleGAN2Critic(), (1, 4, 4, 1), "StyleGAN2Critic takes square images .*; got 4x4"),
    (StyleGAN2Critic(architecture="skip"), (1, 8, 8, 1), "one of 'residual', 'plain'; got 'skip'"),
    (StyleGAN2Critic(group_size=0), (1, 8, 8, 1), "group_size must be at least 1; got 0"),
])
def test_what_does_not_fit_is_refused_by_name(module, shape, text):
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(lambda key: module.init(key, jnp.zeros(shape), None, train=False),
                       jax.random.key(0))
