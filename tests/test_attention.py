"""Self-attention, against PyTorch's and differences, and where the ResNets have it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar10, conditional, images, settings
from jaxgan.models import ResNetCritic, ResNetGenerator
from jaxgan.nn import SelfAttention
from tests.test_training import TINY, run_here
from tests.tiny import all_finite

KEY = jax.random.key(2)
SHAPE = (2, 4, 6, 16)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def normal(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def layer():
    """Its parameters with a gamma of 0.7, and images."""
    x = normal(SHAPE)
    params = SelfAttention().init(KEY, x, False)["params"]
    assert params["gamma"] == 0
    assert {name: value["kernel"].shape[2:] for name, value in params.items() if name != "gamma"} == {
        "Conv_0": (16, 2), "Conv_1": (16, 2), "Conv_2": (16, 8), "Conv_3": (8, 16)}
    np.testing.assert_array_equal(SelfAttention().apply({"params": params}, x, False), x)
    return params | {"gamma": jnp.float32(0.7)}, x


def apply(params, x, **fields):
    layer = SelfAttention(**fields)
    return jax.jit(lambda params, x: layer.apply({"params": params}, x, False))(params, x)


def in_torch(torch, params, x):
    """The same by PyTorch's convolutions, pooling and attention."""
    functional = torch.nn.functional
    kernels = [torch.tensor(np.asarray(params[f"Conv_{i}"]["kernel"])).permute(3, 2, 0, 1)
               for i in range(4)]
    images = x.permute(0, 3, 1, 2)
    queries, keys, values = (functional.conv2d(images, kernel) for kernel in kernels[:3])
    keys, values = (functional.max_pool2d(each, 2).flatten(2).mT for each in (keys, values))
    mixture = functional.scaled_dot_product_attention(queries.flatten(2).mT, keys, values, scale=1.0)
    added = functional.conv2d(mixture.mT.unflatten(2, SHAPE[1:3]), kernels[3])
    return x + float(params["gamma"]) * added.permute(0, 2, 3, 1)


def test_it_is_pytorchs_attention_up_to_the_second_derivative(layer):
    """That is of the gradient penalty |d sum(sin y) / dx|^2 by x."""
    torch = pytest.importorskip("torch")
    params, x = layer

    def penalty(x):
        return jnp.square(jax.grad(lambda x: jnp.sin(apply(params, x)).sum())(x)).sum()

    theirs = torch.tensor(np.asarray(x), requires_grad=True)
    y = in_torch(torch, params, theirs)
    np.testing.assert_allclose(apply(params, x), y.detach(), rtol=1e-5, atol=1e-5)
    gradient, = torch.autograd.grad(y.sin().sum(), theirs, create_graph=True)
    second, = torch.autograd.grad(gradient.square().sum(), theirs)
    np.testing.assert_allclose(jax.jit(jax.grad(penalty))(x), second, rtol=1e-3, atol=1e-3)


def test_positions_look_at_each_other_as_the_equations_say(layer):
    """By loops in NumPy, in float64."""
    params, x = jax.tree.map(np.float64, layer)
    f, g, h, out = (params[f"Conv_{i}"]["kernel"][0, 0] for i in (1, 0, 2, 3))
    found = np.asarray(apply(*layer))
    for image, ours in zip(x, found, strict=True):
        blocks = [image[i:i + 2, j:j + 2].reshape(4, -1) for i in (0, 2) for j in (0, 2, 4)]
        keys, values = (np.stack([(block @ kernel).max(0) for block in blocks]) for kernel in (f, h))
        for position in ((0, 0), (3, 1)):
            scores = np.exp(keys @ (image[position] @ g))
            expected = image[position] + 0.7 * (scores / scores.sum()) @ values @ out
            np.testing.assert_allclose(ours[position], expected, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_large_scores_stay_finite(layer):
    params, x = layer
    rounded = apply(params, x.astype(jnp.bfloat16), dtype=jnp.bfloat16)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_allclose(rounded.astype(jnp.float32), apply(params, x), rtol=0.05, atol=0.15)
    large = 1e4 * x.astype(jnp.bfloat16)
    gradient = jax.grad(lambda x: apply(params, x, dtype=jnp.bfloat16).astype(jnp.float32).sum())(large)
    assert all_finite((apply(params, large, dtype=jnp.bfloat16), gradient))


@pytest.mark.parametrize(("model", "shape", "heights"), [
    (ResNetGenerator((16, 8, 1), (4, 4, 4), attention=(8, 16)), (2, 5), {8, 16}),
    (ResNetCritic((4, 4, 4, 4), norm="spectral", attention=(16, 8)), (2, 32, 16, 1), {8, 16}),
    (ResNetCritic((4, 4), 1, "conv", norm="layer", attention=(8, 4)), (2, 8, 8, 1), {4, 8}),
], ids=["generator", "spectral critic", "layer critic"])
def test_networks_have_it_at_these_heights(model, shape, heights):
    """Once at each; at its start the network is what it is without."""
    x = normal(shape)
    variables = jax.eval_shape(lambda: model.init(KEY, x, train=False))
    names = {f"SelfAttention_{height}" for height in heights}
    assert names == {name for name in variables["params"] if name.startswith("SelfAttention")}
    assert ("SelfAttention_16" in variables.get("batch_stats", {})) == (model.norm == "spectral")
    bare = {kind: {name: value for name, value in values.items() if name not in names}
            for kind, values in variables.items()}
    without = model.clone(attention=())
    assert jax.tree.structure(jax.eval_shape(
        lambda: without.init(KEY, x, train=False))) == jax.tree.structure(bare)
    if model.norm == "layer":
        variables = jax.jit(lambda: model.init(KEY, x, train=False))()
        bare = {"params": {name: variables["params"][name] for name in bare["params"]}}
        np.testing.assert_array_equal(jax.jit(lambda v: model.apply(v, x, train=False))(variables),
                                      jax.jit(lambda v: without.apply(v, x, train=False))(bare))
    remat = jax.eval_shape(lambda: model.clone(remat=True).init(KEY, x, train=False))
    assert jax.tree.structure(remat) == jax.tree.structure(variables)


@pytest.mark.parametrize(("model", "shape", "message"), [
    (ResNetGenerator((32, 32, 3), attention=(4,)), (2, 5),
     "ResNetGenerator: attention must be at heights of .* a block, 8, 16, 32 here; got 4"),
    (ResNetCritic(attention=(16, 32)), (2, 32, 32, 3), "behind a block, 16, 8 here; got 32"),
    (ResNetCritic((4, 4), 1, "conv", attention=(14, 7)), (2, 14, 14, 3), "even .*; got 7x7"),
])
def test_other_heights_are_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(KEY, jnp.zeros(shape), train=False))


@pytest.mark.parametrize(("experiment", "changes"), [
    (cifar10, {}), (conditional, {"model": "resnet"}), (images, {"model": "resnet"})])
def test_experiments_with_a_resnet_take_it(experiment, changes):
    preset = {images: "paper"}.get(experiment, "")
    config = experiment.experiment.configure(preset, attention="16,8", **changes)
    gan = experiment.make_gan(config, (32, 32, 3))
    assert gan.generator.attention == gan.critic.attention == (16, 8)
    with pytest.raises(ValueError, match="attention is for the ResNet: leave it out, or choose --model"):
        experiment.make_gan(settings.replace(config, model="dcgan"), (32, 32, 3))
    with pytest.raises(ValueError, match=r"attention must be whole numbers .*; got 'much'"):
        experiment.make_gan(settings.replace(config, attention="much"), (32, 32, 3))


@pytest.mark.slow
def test_a_run_trains_with_it(tmp_path):
    assert run_here("conditional", *TINY, "--model", "resnet", "--width", 8, "--steps", 2,
                    "--eval-every", 0, "--attention", 4, "--critic-norm", "spectral", "--loss", "hinge",
                    "--penalty", "none", "--run-dir", tmp_path / "run") == 0
