"""StyleGAN2's networks: what they compute by other means, what they draw, what they keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import all_finite, assert_close

from jaxgan import GAN, data_parallel, init_state, losses, penalties, train_step
from jaxgan.models import StyleGAN2Critic, StyleGAN2Generator
from jaxgan.models.stylegan2 import modulated_conv, with_deviation
from jaxgan.nn.random import module_rngs
from jaxgan.nn.resampling import downsample, smooth, upsample
from jaxgan.terms import lazy
from jaxgan.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)
MAKER = StyleGAN2Generator((8, 8, 2), 64, 8, w_size=5, mapping_layers=1)


def _normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _variables(module, *inputs):
    """Drawn without compiling `init`; none of them is 0."""
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, train=False), KEY)
    leaves, structure = jax.tree.flatten(shapes)
    return structure.unflatten([_normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])


@partial(jax.jit, static_argnums=0)
def _quiet(module, variables, x, condition=None):
    return module.apply(variables, x, condition, train=False)


@partial(jax.jit, static_argnums=(0, 4))
def _in_training(module, variables, latents, rngs, method="__call__"):
    return module.apply(variables, latents, train=True, rngs=rngs, mutable=["batch_stats"],
                        method=method)


# Layers.


@pytest.mark.parametrize(("up", "demodulate"), [(False, False), (False, True), (True, True)])
def test_a_modulated_convolution_is_one_with_a_kernel_for_each_example(up, demodulate):
    x, kernel, style = _normal(2, 4, 6, 3), _normal(3, 3, 3, 5, seed=2), _normal(2, 3, seed=3)
    found = modulated_conv(x, kernel, style, up=up, demodulate=demodulate)
    assert found.shape == ((2, 8, 12, 5) if up else (2, 4, 6, 5))
    for example, factors, image in zip(np.asarray(x), np.asarray(style), found, strict=True):
        own = np.asarray(kernel) * factors[:, None]
        if demodulate:
            own /= np.linalg.norm(own.reshape(-1, 5), axis=0)
        size = np.array(example.shape[:2])
        outer = np.zeros((*((2 * size + 1) if up else (size + 2)), 5))
        for i, j in np.ndindex(*size):  # what each pixel adds around it
            for a, b in np.ndindex(3, 3):
                at = (2 * i + a, 2 * j + b) if up else (i + 2 - a, j + 2 - b)
                outer[at] += example[i, j] @ own[a, b]
        expected = 4 * smooth(jnp.float32(outer)[None], 1)[0] if up else outer[1:-1, 1:-1]
        np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-5)


def test_filtered_images_are_those_of_the_resampling():
    """Every second pixel; and pixels between zeros, four times as bright."""
    x = _normal(2, 4, 6, 3)
    np.testing.assert_allclose(smooth(x, 1)[:, ::2, ::2], downsample(x), rtol=1e-5, atol=1e-6)
    sparse = jnp.zeros((2, 9, 13, 3)).at[:, 1::2, 1::2].set(x)
    np.testing.assert_allclose(4 * smooth(sparse, 1), upsample(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("group_size", "used"), [(2, 2), (3, 3), (4, 3), (9, 6)])
def test_the_deviation_is_of_examples_in_a_row(group_size, used):
    x = _normal(6, 4, 4, 3)
    y = with_deviation(x, group_size)
    np.testing.assert_array_equal(y[..., :3], x)
    for index in range(6):
        group = np.asarray(x)[index // used * used:][:used]
        np.testing.assert_allclose(y[index, ..., 3], group.std(0).mean(), rtol=1e-4)


# Styles.


@pytest.mark.slow
def test_the_average_style_follows_the_batch_on_any_number_of_devices():
    """As the mean over the devices of what each of them keeps."""
    latents, module = _normal(8, 6), MAKER.clone(w_decay=0.75)
    variables = _variables(module, latents)
    w = module.apply(variables, latents, method="map")[:, 0]
    expected = 0.75 * variables["batch_stats"]["w_avg"] + 0.25 * w.mean(0)
    moved = jnp.stack([_in_training(module, variables, half, module_rngs(KEY, 4), "map")[1][
        "batch_stats"]["w_avg"] for half in (latents[:4], latents[4:])])
    assert np.abs(moved[0] - moved[1]).max() > 1e-3
    np.testing.assert_allclose(moved.mean(0), expected, rtol=1e-5, atol=1e-6)


def test_truncation_moves_the_first_styles_to_the_average():
    latents = _normal(3, 6)
    variables = _variables(MAKER, latents)
    average = np.asarray(variables["batch_stats"]["w_avg"])

    def styles(**changes):
        return np.asarray(MAKER.clone(**changes).apply(variables, latents, method="map"))

    ws, moved = styles(), styles(truncation_psi=0.25, truncation_cutoff=3)
    assert ws.shape == (3, 4, 5)
    np.testing.assert_array_equal(ws, np.repeat(ws[:, :1], 4, 1))
    np.testing.assert_allclose(moved[:, :3], average + 0.25 * (ws[:, :3] - average), rtol=1e-5,
                               atol=1e-6)
    np.testing.assert_array_equal(moved[:, 3:], ws[:, 3:])
    assert (styles(truncation_psi=0.0) == average).all()


def test_styles_are_mixed_from_a_random_layer_on():
    latents = _normal(400, 6)
    variables = _variables(MAKER, latents)
    unmixed, (mixed, _) = jax.tree.map(np.asarray, (
        MAKER.apply(variables, latents, method="map"),
        _in_training(MAKER, variables, latents, module_rngs(KEY, 400), "map")))
    own = np.isclose(mixed, unmixed, rtol=1e-3, atol=1e-5).all(-1).sum(1)
    counts = np.bincount(own, minlength=5)
    assert counts[0] == 0
    np.testing.assert_allclose(counts[1:] / 400, [0.3, 0.3, 0.3, 0.1], atol=0.08)  # 3.5 deviations
    for example in np.flatnonzero(own < 4)[:20]:  # one style before, another after
        first = own[example]
        assert (mixed[example, :first] == mixed[example, 0]).all()
        assert (mixed[example, first:] == mixed[example, first]).all()


@pytest.mark.slow
def test_what_is_drawn_is_drawn_by_example_and_only_in_training():
    latents = _normal(4, 6)
    variables = _variables(MAKER, latents)
    images, again, others = (
        _in_training(MAKER, variables, latents, module_rngs(jax.random.key(seed), 4))[0]
        for seed in (0, 0, 1))
    np.testing.assert_array_equal(again, images)
    assert np.abs(others - images).max() > 0.1
    parts = jax.jit(jax.vmap(lambda latents: _in_training(MAKER, variables, latents, module_rngs(
        KEY, 2, "devices"))[0], axis_name="devices"))(latents.reshape(2, 2, 6))
    np.testing.assert_allclose(parts.reshape(images.shape), images, rtol=1e-4, atol=1e-5)

    quiet = _quiet(MAKER, variables, latents)
    constant = MAKER.clone(noise="constant", style_mixing=0.0)
    np.testing.assert_allclose(_in_training(constant, variables, latents, {})[0], quiet, rtol=1e-5,
                               atol=1e-5)
    other = variables | {"noise": jax.tree.map(lambda x: -x, variables["noise"])}
    assert np.abs(_quiet(MAKER, other, latents) - quiet).max() > 0.1
    silent = MAKER.clone(noise="none")
    np.testing.assert_array_equal(*(_quiet(silent, each, latents) for each in (variables, other)))
    assert "noise" not in jax.eval_shape(partial(silent.init, train=False), KEY, latents)


def test_the_two_halves_are_the_whole():
    latents, labels = _normal(3, 6), jnp.array([2, 0, 1])
    module = MAKER.clone(num_classes=3)
    variables = _variables(module, latents, labels)
    ws = module.apply(variables, latents, labels, method="map")
    whole = _quiet(module, variables, latents, labels)
    halves = jax.jit(partial(module.apply, method="synthesise"))(variables, ws)
    np.testing.assert_allclose(halves, whole, rtol=1e-5, atol=1e-5)
    assert np.abs(_quiet(module, variables, latents, labels[::-1]) - whole)[::2].max() > 0.01
    with pytest.raises(ValueError, match=r"\[batch, 4, 5\]; got \(3, 2, 5\): take those of the method"):
        module.apply(variables, ws[:, :2], method="synthesise")


# Numbers.


@pytest.mark.parametrize("module", [MAKER, StyleGAN2Critic(64, 8)], ids=["generator", "critic"])
def test_bfloat16_inside_float32_outside(module):
    x = _normal(4, 6) if module is MAKER else _normal(4, 16, 16, 2)
    variables = _variables(module, x)
    exact, rounded = (_quiet(module.clone(dtype=dtype), variables, x) for dtype in (None, jnp.bfloat16))
    assert exact.dtype == rounded.dtype == jnp.float32
    assert 1e-5 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.1


def test_the_generator_computes_4x4_pixels_in_float32_and_all_others_in_bfloat16():
    latents = _normal(4, 6)
    module = MAKER.clone(dtype=jnp.bfloat16)
    _, found = module.apply(_variables(MAKER, latents), latents, train=False, capture_intermediates=True)
    dtypes = {tuple(name.key for name in path if hasattr(name, "key"))[1:]: leaf.dtype
              for path, leaf in jax.tree.leaves_with_path(found["intermediates"])}
    layers = {path[:2]: dtype for path, dtype in dtypes.items()
              if len(path) == 3 and path[1].startswith("conv")}
    assert layers == {("b4", "conv1"): jnp.float32, ("b8", "conv0"): jnp.bfloat16,
                      ("b8", "conv1"): jnp.bfloat16}


@pytest.mark.slow
@pytest.mark.parametrize("module", [MAKER, StyleGAN2Critic(64, 8)], ids=["generator", "critic"])
def test_remat_keeps_less_for_the_same_gradient(module):
    """With the noise, which is drawn again."""
    x = _normal(8, 6) if module is MAKER else _normal(8, 16, 16, 2)
    variables = _variables(module, x)

    def outputs(module, params):
        return module.apply(variables | {"params": params}, x, train=True, rngs=module_rngs(KEY, 8),
                            mutable=["batch_stats"])[0]

    kept, gradients = [], []
    for each in (module, module.clone(remat=True)):
        pullback = jax.eval_shape(lambda params, each=each: jax.vjp(
            partial(outputs, each), params)[1], variables["params"])
        kept.append(sum(leaf.size for leaf in jax.tree.leaves(pullback)))
        gradients.append(jax.jit(jax.grad(lambda params, each=each: jnp.sin(
            outputs(each, params)).sum()))(variables["params"]))
    assert kept[1] < 0.5 * kept[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-4 * np.abs(a).max()), *gradients)


@pytest.mark.slow
def test_two_devices_train_as_one_does():
    """With all that is drawn, the lazy terms and the average style, the groups of two."""
    gan = GAN(MAKER.clone(num_classes=3), StyleGAN2Critic(64, 8, group_size=2, num_classes=3,
                                                          mapping_layers=1),
              6, losses.non_saturating(), penalty=lazy(penalties.r1(0.1), 2), across_batch=True,
              generator_terms=(lazy(penalties.path_length(), 2),),
              generator_optimizer=optax.sgd(0.01), critic_optimizer=optax.sgd(0.01))
    batch = Batch(_normal(1, 8, 8, 8, 2), jnp.arange(8)[None] % 3)
    first = jax.jit(partial(init_state, gan))(KEY, jax.tree.map(lambda x: x[0], batch))
    found = []
    for step in (jax.jit(partial(train_step, gan)),
                 data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)):
        state = jax.tree.map(jnp.copy, first)
        for index in range(3):
            state, metrics = step(state, batch, jax.random.fold_in(KEY, index))
        found.append((state, metrics))
    assert_close(*found, 1e-3, 1e-4)
    generator, metrics = found[0][0].generator, found[0][1]
    assert all_finite(found[0])
    assert metrics["generator/path_length"] > 0
    assert np.abs(generator.stats["batch_stats"]["w_avg"]).max() > 0
    jax.tree.map(np.testing.assert_array_equal, generator.stats["noise"],
                 first.generator.stats["noise"])
