"""R3GAN's networks against an implementation in PyTorch that was written without a look at ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import R3GANCritic, R3GANGenerator
from jaxgan.models.published import from_published

torch = pytest.importorskip("torch")
r3gan_torch = pytest.importorskip("benchmarks.r3gan_torch")

WIDTHS, BLOCKS, CARDINALITIES = (12, 8, 8), (2, 1, 2), (3, 4, 2)
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _ours(num_classes):
    options = {"blocks": BLOCKS, "cardinality": CARDINALITIES, "num_classes": num_classes}
    return (R3GANGenerator((16, 16, 3), WIDTHS, class_size=5, **options),
            R3GANCritic(WIDTHS, **options))


def _theirs(num_classes):
    """PyTorch's networks with all parameters drawn at random, as kernels that start at 0 hide errors."""
    options = {"widths": WIDTHS, "blocks": BLOCKS, "cardinalities": CARDINALITIES,
               "num_classes": num_classes}
    torch.manual_seed(0)
    networks = (r3gan_torch.Generator(**options, latent_size=7, class_size=5),
                r3gan_torch.Critic(**options))
    for network in networks:
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=max(weight[0].numel(), 4) ** -0.5)
    return networks


def _taken(module, theirs, *inputs):
    shapes = jax.eval_shape(lambda key: module.init(key, *inputs, train=True), jax.random.key(0))
    state = {name: value.numpy() for name, value in theirs.state_dict().items()}
    return from_published(module, shapes, state)


def _assert_close(ours, theirs, name=""):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(), err_msg=name)


@pytest.mark.parametrize("num_classes", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_outputs_and_derivatives_of_both_orders_are_those_of_pytorch(num_classes):
    """Of R1, a gradient's norm: its derivatives by the critic's weights; and all of the generator's."""
    (generator, critic), (torch_generator, torch_critic) = _ours(num_classes), _theirs(num_classes)
    latents = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32)
    labels = np.array([3, 0, 2]) if num_classes else None
    one_hot = torch.eye(num_classes)[torch.from_numpy(labels)] if num_classes else None
    images = np.random.default_rng(2).normal(size=(3, 16, 16, 3)).astype(np.float32)
    generator_params = _taken(generator, torch_generator, latents, labels)
    critic_params = _taken(critic, torch_critic, images, labels)

    def scores(critic_params, images):
        return critic.apply(critic_params, images, labels, train=True)

    def generate(generator_params, latents):
        return generator.apply(generator_params, latents, labels, train=True)

    def r1(critic_params):
        return (jax.grad(lambda x: scores(critic_params, x).sum())(images) ** 2).sum()

    def adversarial(generator_params, latents):
        return jnp.sin(scores(critic_params, generate(generator_params, latents))).sum()

    torch_latents = torch.from_numpy(latents).requires_grad_()
    torch_images = torch.from_numpy(images).permute(0, 3, 1, 2).requires_grad_()
    fakes, torch_scores = torch_generator(torch_latents, one_hot), torch_critic(torch_images, one_hot)
    gradient, = torch.autograd.grad(torch_scores.sum(), torch_images, create_graph=True)
    critic_loss = (gradient ** 2).sum()
    critic_loss.backward()
    torch_critic_gradient = {name: weight.grad.clone() for name, weight
                             in torch_critic.named_parameters()}
    torch.sin(torch_critic(fakes, one_hot)).sum().backward()

    _assert_close(jax.jit(generate)(generator_params, latents),
                  fakes.detach().permute(0, 2, 3, 1).numpy(), "fakes")
    _assert_close(jax.jit(scores)(critic_params, images), torch_scores.detach().numpy(), "scores")
    loss, ours = jax.jit(jax.value_and_grad(r1))(critic_params)
    _assert_close(loss, critic_loss.item(), "R1")
    theirs = from_published(critic, critic_params, {name: value.numpy() for name, value
                                                    in torch_critic_gradient.items()})
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs),
                                   strict=True):
        _assert_close(leaf, other, f"of R1 by {path}")
    ours, by_latents = jax.jit(jax.grad(adversarial, (0, 1)))(generator_params, latents)
    theirs = from_published(generator, generator_params, {
        name: weight.grad.numpy() for name, weight in torch_generator.named_parameters()})
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs),
                                   strict=True):
        _assert_close(leaf, other, f"of the scores by {path}")
    _assert_close(by_latents, torch_latents.grad.numpy(), "of the scores by the latents")
