"""The networks that translate images against PyTorch's, which were written from the papers alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import PatchCritic, ResNetTranslator, UNetTranslator

torch = pytest.importorskip("torch")
translation_torch = pytest.importorskip("benchmarks.translation_torch")

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _randomised(network):
    torch.manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=max(weight[0].numel(), 4) ** -0.5)
    return network


def _numpy(weight):
    """PyTorch's layout turned into ours: [out, in, ...] of a convolution, of a transposed one that of
    the convolution it transposes.
    """
    if isinstance(weight, list):  # of each block
        return np.stack([_numpy(one) for one in weight])
    weight = weight.detach().numpy()
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def _named(convolutions, norms):
    """Our parameters by name, of layers in the order in which ours are called."""
    counts, found = {}, {}
    for layer in (*convolutions, *norms):
        kind = {"Conv2d": "Conv", "ConvTranspose2d": "ConvTranspose",
                "InstanceNorm2d": "InstanceNorm"}[type(layer).__name__]
        number = counts[kind] = counts.get(kind, -1) + 1
        weight = "scale" if kind == "InstanceNorm" else "kernel"
        found[f"{kind}_{number}"] = {weight: layer.weight} | (
            {} if layer.bias is None else {"bias": layer.bias})
    return found


def _unet(network):
    return _named([*network.down, *network.up], [*network.down_norms, *network.up_norms])


def _resnet(network):
    whole = _named([network.first, *network.down, network.last, *network.up],
                   [network.first_norm, *network.down_norms, *network.up_norms])
    blocks = [_named([block.first, block.second], [block.first_norm, block.second_norm])
              for block in network.blocks]
    return whole | {"blocks": jax.tree.map(lambda *weights: [*weights], *blocks)}


def _critic(network):
    return _named([network.first, *network.layers, network.last], network.norms)


CASES = {
    "unet": (UNetTranslator((16, 32, 2), 3, 3, dropout=0.0),
             lambda: translation_torch.UNet(3, 2, 3, 3), _unet, (2, 16, 32, 3)),
    "resnet": (ResNetTranslator((12, 16, 2), 3, 2),
               lambda: translation_torch.ResNet(3, 2, 3, 2), _resnet, (2, 12, 16, 3)),
    "critic": (PatchCritic(3, 2), lambda: translation_torch.PatchCritic(3, 3, 2), _critic,
               (2, 16, 24, 3)),
}


def _both(name):
    """Ours, of parameters and images; both; PyTorch's network, and its weights by our names."""
    module, make, named, shape = CASES[name]
    network = _randomised(make())
    images = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    params = _mapped(_numpy, named(network))

    def inputs(images):
        return (np.zeros(len(images), np.uint32), images) if name == "unet" else (images,)

    drawn = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs(images), train=False))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, drawn["params"])

    def apply(params, images):
        return module.apply({"params": params}, *inputs(images), train=True)

    return apply, params, images, network, named(network)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_derivatives_are_those_of_pytorch(name):
    apply, params, images, network, weights = _both(name)

    def total(params, images):
        outputs = apply(params, images)
        return np.sin(np.arange(outputs.size)).reshape(outputs.shape).ravel() @ outputs.ravel(), outputs

    (by_params, by_images), outputs = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, images)
    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
    results = network(theirs)
    results = results.permute(0, 2, 3, 1) if results.ndim == 4 else results
    factors = torch.from_numpy(np.sin(np.arange(outputs.size)).reshape(outputs.shape)).float()
    (factors * results).sum().backward()
    _assert_close(outputs, results.detach().numpy(), "outputs")
    _assert_gradients(by_params, by_images, weights, theirs)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives_are_those_of_pytorch(name):
    """Of a penalty on the gradient by the images, by the images and by the parameters."""
    apply, params, images, network, weights = _both(name)

    def penalty(params, images):
        gradient = jax.grad(lambda images: jnp.sin(apply(params, images)).sum())(images)
        return jnp.square(gradient).sum()

    value, (by_params, by_images) = jax.jit(jax.value_and_grad(penalty, (0, 1)))(params, images)
    theirs = torch.from_numpy(images.transpose(0, 3, 1, 2)).requires_grad_()
    gradient, = torch.autograd.grad(torch.sin(network(theirs)).sum(), theirs, create_graph=True)
    (expected := (gradient**2).sum()).backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    _assert_gradients(by_params, by_images, weights, theirs)


def _mapped(function, tree):
    """Over the weights, or lists of those of each block."""
    return jax.tree.map(function, tree, is_leaf=lambda leaf: isinstance(leaf, list))


def _gradient(weight):
    return [one.grad for one in weight] if isinstance(weight, list) else weight.grad


def _assert_gradients(by_params, by_images, weights, images):
    _assert_close(by_images, images.grad.permute(0, 2, 3, 1).numpy(), "by images")
    expected = jax.tree.leaves(_mapped(lambda weight: _numpy(_gradient(weight)), weights))
    for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(by_params), expected,
                                    strict=True):
        _assert_close(ours, theirs, str(path))


def _assert_close(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)
