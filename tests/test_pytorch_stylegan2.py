"""StyleGAN2's networks against an implementation in PyTorch that was written without a look at ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import StyleGAN2Critic, StyleGAN2Generator
from jaxgan.models.published import from_published

torch = pytest.importorskip("torch")
stylegan2_torch = pytest.importorskip("benchmarks.stylegan2_torch")

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(0)


def _drawn(network):
    """All of a PyTorch network's numbers drawn at random, as what starts at 0 hides errors."""
    torch.manual_seed(0)
    for name, values in network.state_dict().items():
        if not name.endswith("resample_filter"):
            values += 0.3 * torch.randn(values.shape)
    return network


def _taken(module, shapes, arrays):
    return from_published(module, shapes, {name: value.detach().numpy() for name, value in arrays})


def _variables(module, theirs, *inputs):
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, train=False), KEY)
    return _taken(module, shapes, theirs.state_dict().items())


def _assert_close(ours, theirs):
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs),
                                   strict=True):
        np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-4 * max(np.abs(other).max(), 1e-3),
                                   err_msg=str(path))


def _gradient(network, shapes, module, loss):
    """By the parameters that have one, at which all others are 0."""
    network.zero_grad()
    loss.backward()
    return _taken(module, shapes, [(name, torch.zeros_like(value) if value.grad is None else value.grad)
                                   for name, value in network.named_parameters()])


def _channels_last(images):
    return images.detach().permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("num_classes", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_a_generator_and_its_derivatives_of_both_orders_are_those_of_pytorch(num_classes):
    """Of path lengths, norms of its derivatives by the styles."""
    theirs = _drawn(stylegan2_torch.Generator(
        8, num_classes, base=64, mapping_layers=2, latent_size=7, style_size=9, channels=2))
    ours = StyleGAN2Generator((8, 8, 2), 64, w_size=9, mapping_layers=2, num_classes=num_classes,
                              noise="constant", style_mixing=0.0)
    random = np.random.default_rng(1)
    latents = random.normal(size=(3, 7)).astype(np.float32)
    direction = random.normal(size=(3, 8, 8, 2)).astype(np.float32)
    labels = np.array([2, 0, 2]) if num_classes else None
    one_hot = torch.eye(num_classes)[torch.from_numpy(labels)] if num_classes else None
    variables = _variables(ours, theirs, latents, labels)
    stats = {kind: values for kind, values in variables.items() if kind != "params"}

    average = theirs.mapping.w_avg.clone()
    # In training, in which the average style moves; and outside, truncated.
    ws = theirs.mapping(torch.from_numpy(latents), one_hot)
    images = theirs.synthesis(ws, "const")
    by_ws, = torch.autograd.grad((images * torch.from_numpy(direction).permute(0, 3, 1, 2)).sum(), ws,
                                 create_graph=True)
    penalty = (by_ws.square().sum(-1).mean(1).sqrt() - 1).square().sum()
    gradient = _gradient(theirs, {"params": variables["params"]}, ours, penalty)

    def penalised(params):
        ws, moved = ours.apply(stats | {"params": params}, latents, labels, train=True, method="map",
                               mutable=["batch_stats"])

        def projected(ws):
            images = ours.apply(stats | {"params": params}, ws, train=True, method="synthesise")
            return (images * direction).sum(), images

        by_ws, images = jax.grad(projected, has_aux=True)(ws)
        lengths = jnp.sqrt(jnp.square(by_ws).sum(-1).mean(1))
        return jnp.square(lengths - 1.0).sum(), (ws, images, by_ws, moved)

    (our_penalty, seen), our_gradient = jax.jit(jax.value_and_grad(penalised, has_aux=True))(
        variables["params"])
    _assert_close(seen, (ws.detach().numpy(), _channels_last(images), by_ws.detach().numpy(),
                         {"batch_stats": {"w_avg": theirs.mapping.w_avg.numpy()}}))
    _assert_close((our_penalty, {"params": our_gradient}), (penalty.item(), gradient))

    theirs.load_state_dict(theirs.state_dict() | {"mapping.w_avg": average})
    theirs.eval()
    with torch.no_grad():
        images = theirs(torch.from_numpy(latents), one_hot, 0.6, 3, "const")
    truncated = ours.clone(truncation_psi=0.6, truncation_cutoff=3)
    _assert_close(truncated.apply(variables, latents, labels, train=False), _channels_last(images))


@pytest.mark.parametrize(("architecture", "num_classes"), [
    pytest.param("residual", 0, marks=pytest.mark.slow), ("residual", 3), ("plain", 0),
    pytest.param("plain", 3, marks=pytest.mark.slow)])
def test_a_critic_and_its_derivatives_of_both_orders_are_those_of_pytorch(architecture, num_classes):
    """Of R1, a gradient's norm. Where theirs takes every second example, ours takes two in a row."""
    theirs = _drawn(stylegan2_torch.Discriminator(
        16, num_classes, base=64, channels=2, group_size=2, mapping_layers=2,
        architecture={"residual": "resnet", "plain": "orig"}[architecture]))
    ours = StyleGAN2Critic(64, architecture=architecture, group_size=2, num_classes=num_classes,
                           mapping_layers=2)
    images = np.random.default_rng(2).normal(size=(4, 16, 16, 2)).astype(np.float32)
    labels = np.array([2, 0, 2, 1]) if num_classes else None
    one_hot = torch.eye(num_classes)[torch.from_numpy(labels)] if num_classes else None
    variables = _variables(ours, theirs, images, labels)

    order = [0, 2, 1, 3]
    torch_images = torch.from_numpy(images).permute(0, 3, 1, 2).requires_grad_()
    scores = theirs(torch_images[order], None if one_hot is None else one_hot[order])[order]
    by_images, = torch.autograd.grad(scores.sum(), torch_images, create_graph=True)
    penalty = by_images.square().sum() + torch.sin(scores).sum()
    gradient = _gradient(theirs, variables, ours, penalty)

    def penalised(variables):
        def total(images):
            scores = ours.apply(variables, images, labels, train=True)
            return scores.sum(), scores

        by_images, scores = jax.grad(total, has_aux=True)(images)
        return jnp.square(by_images).sum() + jnp.sin(scores).sum(), (scores, by_images)

    (our_penalty, seen), our_gradient = jax.jit(jax.value_and_grad(penalised, has_aux=True))(variables)
    _assert_close(seen, (scores.detach().numpy(), _channels_last(by_images)))
    _assert_close((our_penalty, our_gradient), (penalty.item(), gradient))


def test_weights_of_other_settings_are_refused():
    theirs = stylegan2_torch.Generator(8, base=64, mapping_layers=2, latent_size=7, style_size=9)
    for changes, text in (
            ({"noise": "none"}, "have synthesis.b4.conv1.noise_const, for which"),
            ({"mapping_layers": 3}, "have no mapping.fc2.bias, which .* mapping/fc2/bias"),
            ({"base": 32}, r"has the shape \[16, 4, 4\], which makes .* has \[4, 4, 8\] at")):
        ours = StyleGAN2Generator((8, 8, 3), **{"base": 64, "w_size": 9, "mapping_layers": 2} | changes)
        with pytest.raises(ValueError, match=text):
            _variables(ours, theirs, np.zeros((1, 7), np.float32))
