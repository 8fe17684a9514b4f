"""Losses, penalties, networks and updates against PyTorch, on the same weights and the same draws.

What is on PyTorch's side is written as its users write it, and from the articles: images are NCHW,
gradients of gradients are `autograd.grad(create_graph=True)`, nothing is taken from jaxgan but numbers.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import GAN, Batch, critic_step, generator_step, keys, losses, models, penalties
from jaxgan.gan import GANState, NetworkState
from tests.tiny import measured

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional

BATCH = 5
LATENT_SIZE = 6
pytestmark = pytest.mark.usefixtures("quick_compilation")


def _normal(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _to_torch(array):
    """A tensor of the array's numbers; images become NCHW."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.permute(0, 3, 1, 2).contiguous() if tensor.ndim == 4 else tensor


def _to_numpy(tensor):
    """An array of the tensor's numbers; images become NHWC."""
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()


def _assert_close(actual, expected, name="", least=0.0):
    """Asserts agreement to 1e-4 of the largest entry, or of `least` if that is more."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, name
    assert np.isfinite(expected).all(), name
    np.testing.assert_allclose(actual, expected, rtol=0, err_msg=name,
                               atol=1e-4 * max(np.abs(expected).max(), least))


# Losses.


def _cross_entropy(scores, target):
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))


def _squared_error(scores, target):
    return F.mse_loss(scores, torch.full_like(scores, target))


# One row a loss: the pair, then the critic's loss and the generator's, from (real, fake).
LOSSES = {
    "wasserstein": (
        losses.wasserstein(),
        lambda r, f: -(r.mean() - f.mean()),
        lambda r, f: -f.mean()),
    "minimax": (
        losses.minimax(),
        lambda r, f: _cross_entropy(r, 1.0) + _cross_entropy(f, 0.0),
        lambda r, f: -_cross_entropy(f, 0.0)),
    "minimax, smoothed": (
        losses.minimax(label_smoothing=0.1),
        lambda r, f: _cross_entropy(r, 0.9) + _cross_entropy(f, 0.0),
        lambda r, f: -_cross_entropy(f, 0.0)),
    "non_saturating": (
        losses.non_saturating(),
        lambda r, f: _cross_entropy(r, 1.0) + _cross_entropy(f, 0.0),
        lambda r, f: _cross_entropy(f, 1.0)),
    "non_saturating, smoothed": (
        losses.non_saturating(label_smoothing=0.25),
        lambda r, f: _cross_entropy(r, 0.75) + _cross_entropy(f, 0.0),
        lambda r, f: _cross_entropy(f, 1.0)),
    "least_squares": (
        losses.least_squares(),
        lambda r, f: (_squared_error(r, 1.0) + _squared_error(f, 0.0)) / 2,
        lambda r, f: _squared_error(f, 1.0) / 2),
    "least_squares, other targets": (
        losses.least_squares(real_target=0.9, fake_target=-1.0, generator_target=0.3),
        lambda r, f: (_squared_error(r, 0.9) + _squared_error(f, -1.0)) / 2,
        lambda r, f: _squared_error(f, 0.3) / 2),
    "hinge": (
        losses.hinge(),
        lambda r, f: F.relu(1.0 - r).mean() + F.relu(1.0 + f).mean(),
        lambda r, f: -f.mean()),
    "hinge, margin 0.5": (
        losses.hinge(margin=0.5),
        lambda r, f: F.relu(0.5 - r).mean() + F.relu(0.5 + f).mean(),
        lambda r, f: -f.mean()),
    "relativistic": (
        losses.relativistic(),
        lambda r, f: _cross_entropy(r - f, 1.0),
        lambda r, f: F.softplus(r - f).mean()),
    "relativistic_average": (
        losses.relativistic_average(),
        lambda r, f: _cross_entropy(r - f.mean(), 1.0) + _cross_entropy(f - r.mean(), 0.0),
        lambda r, f: _cross_entropy(f - r.mean(), 1.0) + _cross_entropy(r - f.mean(), 0.0)),
}


@pytest.mark.parametrize("spread", [1.0, 40.0])
@pytest.mark.parametrize("half", ["critic", "generator"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(name, half, spread):
    pair, *halves = LOSSES[name]
    scores = spread * _normal((2, 32), seed=1)
    value, gradients = jax.value_and_grad(getattr(pair, half), (0, 1))(*jnp.asarray(scores))

    real, fake = (_to_torch(part).requires_grad_() for part in scores)
    expected = halves[half == "generator"](real, fake)
    _assert_close(value, expected.detach())
    for gradient, other in zip(gradients, _gradients(expected, (real, fake)), strict=True):
        _assert_close(gradient, other)


def _gradients(value, tensors):
    return torch.autograd.grad(value, tensors, allow_unused=True, materialize_grads=True)


# Networks, in PyTorch.


class SameConv(nn.Conv2d):
    """A square convolution padded for "SAME": an odd number of zeros has one more below and right."""

    def forward(self, x):
        pads = []
        kernel, stride = self.kernel_size[0], self.stride[0]
        for size in x.shape[:1:-1]:
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _norm(norm, channels, rank=4):
    if norm == "batch":
        kind = nn.BatchNorm2d if rank == 4 else nn.BatchNorm1d
        return kind(channels, eps=1e-5, momentum=0.1)
    # One group: the mean and variance are over C, H and W, the scale and the bias by channel.
    return nn.GroupNorm(1, channels, eps=1e-5) if norm == "layer" else nn.Identity()


class MLPGenerator(nn.Module):
    def __init__(self, sizes, output):
        super().__init__()
        self.layers = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
        self.output = output

    def forward(self, z):
        for layer in self.layers[:-1]:
            z = F.relu(layer(z))
        return self.output(self.layers[-1](z))


class MLPCritic(nn.Module):
    def __init__(self, sizes, norm="none"):
        super().__init__()
        self.layers = nn.ModuleList(itertools.starmap(nn.Linear, itertools.pairwise(sizes)))
        self.norms = nn.ModuleList([nn.Identity(), *(_norm(norm, n, rank=2) for n in sizes[2:])])
        self.score = nn.Linear(sizes[-1], 1)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x)))
        return self.score(x).squeeze(1)


class DCGANGenerator(nn.Module):
    """Images of sizes[0], sizes[1], ..., with channels[0], channels[1], ... channels."""

    def __init__(self, sizes, channels, norm="none", output=torch.sigmoid):
        super().__init__()
        self.sizes, self.first, self.output = sizes, (*sizes[0], channels[0]), output
        self.dense = nn.Linear(LATENT_SIZE, math.prod(self.first))
        self.dense_norm = _norm(norm, math.prod(self.first), rank=2)
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, 5, stride=2, padding=1)
                                    for a, b in itertools.pairwise(channels))
        self.norms = nn.ModuleList(_norm(norm, n) for n in channels[1:-1])

    def forward(self, z):
        x = F.relu(self.dense_norm(self.dense(z)))
        x = x.reshape(-1, *self.first).permute(0, 3, 1, 2)
        for layer, norm, size in zip(self.layers[:-1], self.norms, self.sizes[1:-1], strict=True):
            x = F.relu(norm(self._crop(layer(x), size)))
        return self.output(self._crop(self.layers[-1](x), self.sizes[-1]))

    @staticmethod
    def _crop(x, size):
        # Of size n a layer makes 2 n + 1, as the convolution that it transposes pads 1 and 2 zeros.
        return x[:, :, :size[0], :size[1]]


class DCGANCritic(nn.Module):
    def __init__(self, channels, features, norm="none"):
        super().__init__()
        self.layers = nn.ModuleList(SameConv(a, b, 5, stride=2)
                                    for a, b in itertools.pairwise(channels))
        self.norms = nn.ModuleList([nn.Identity(), *(_norm(norm, n) for n in channels[2:])])
        self.score = nn.Linear(features, 1)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.2)
        return self.score(_flatten(x)).squeeze(1)


def _flatten(x):
    return x.permute(0, 2, 3, 1).flatten(1)  # the weights of the last layer are in this order


class Block(nn.Module):
    """A residual block; the shortcut's convolution is where the article's code has it."""

    def __init__(self, channels, features, resample, norm, first_bias=True):
        super().__init__()
        hidden = channels if resample == "down" else features
        self.resample = resample
        self.norm_1, self.norm_2 = _norm(norm, channels), _norm(norm, hidden)
        self.layer_1 = SameConv(channels, hidden, 3, bias=first_bias)
        self.layer_2 = SameConv(hidden, features, 3)
        self.shortcut = (nn.Identity() if resample == "none" and channels == features
                         else SameConv(channels, features, 1))

    def forward(self, x):
        y = F.relu(self.norm_1(x))
        if self.resample == "up":
            x, y = F.interpolate(x, scale_factor=2), F.interpolate(y, scale_factor=2)
        y = self.layer_2(F.relu(self.norm_2(self.layer_1(y))))
        x = self.shortcut(x)
        return F.avg_pool2d(x, 2) + F.avg_pool2d(y, 2) if self.resample == "down" else x + y


class Stem(nn.Module):
    def __init__(self, channels, features):
        super().__init__()
        self.layer_1 = SameConv(channels, features, 3)
        self.layer_2 = SameConv(features, features, 3)
        self.shortcut = SameConv(channels, features, 1)

    def forward(self, x):
        y = F.avg_pool2d(self.layer_2(F.relu(self.layer_1(x))), 2)
        return self.shortcut(F.avg_pool2d(x, 2)) + y


class ResNetGenerator(nn.Module):
    def __init__(self, size, channels, norm, output, first_bias=True):
        super().__init__()
        self.first, self.output = (*size, channels[0]), output
        self.dense = nn.Linear(LATENT_SIZE, math.prod(self.first))
        self.blocks = nn.ModuleList(Block(a, b, "up", norm, first_bias)
                                    for a, b in itertools.pairwise(channels[:-1]))
        self.norm = _norm(norm, channels[-2])
        self.last = SameConv(*channels[-2:], 3)

    def forward(self, z):
        x = self.dense(z).reshape(-1, *self.first).permute(0, 3, 1, 2)
        for block in self.blocks:
            x = block(x)
        return self.output(self.last(F.relu(self.norm(x))))


class ResNetCritic(nn.Module):
    """A stem, then one block per entry of `resamples`; features: None to take the mean."""

    def __init__(self, channels, stem, resamples, features=None, norm="none", first_bias=True):
        super().__init__()
        self.mean = features is None
        self.stem = Stem(*channels[:2]) if stem == "block" else SameConv(*channels[:2], 3)
        self.blocks = nn.ModuleList(
            Block(a, b, resample, norm, first_bias)
            for (a, b), resample in zip(itertools.pairwise(channels[1:]), resamples, strict=True))
        self.score = nn.Linear(features or channels[-1], 1)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.score(F.relu(x).mean((2, 3)) if self.mean else _flatten(x)).squeeze(1)


def _spectral(module):
    """Normalises all weights by one power iteration a call, which starts from `weight_u`."""
    for layer in list(module.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.utils.spectral_norm(layer)
    return module


# One row a network: jaxgan's, PyTorch's, an input's shape. Sizes and channels are worked out by hand.
NETWORKS = {
    "mlp generator": (
        models.MLPGenerator((3,), (8, 7)),
        lambda: MLPGenerator((LATENT_SIZE, 8, 7, 3), nn.Identity()), (LATENT_SIZE,)),
    "mlp generator, tanh": (
        models.MLPGenerator((3,), (8,), output="tanh"),
        lambda: MLPGenerator((LATENT_SIZE, 8, 3), torch.tanh), (LATENT_SIZE,)),
    "mlp": (
        models.MLPCritic((8, 7)),
        lambda: MLPCritic((2, 8, 7)), (2,)),
    "mlp, layer": (
        models.MLPCritic((8, 7), "layer"),
        lambda: MLPCritic((2, 8, 7), "layer"), (2,)),
    "mlp, batch": (
        models.MLPCritic((8, 7, 6), "batch"),
        lambda: MLPCritic((2, 8, 7, 6), "batch"), (2,)),
    "mlp, spectral": (
        models.MLPCritic((8, 7), "spectral"),
        lambda: _spectral(MLPCritic((2, 8, 7))), (2,)),
    "dcgan generator, 28x28": (
        models.DCGANGenerator((28, 28, 1), 2),
        lambda: DCGANGenerator([(4, 4), (7, 7), (14, 14), (28, 28)], (8, 4, 2, 1)), (LATENT_SIZE,)),
    "dcgan generator, 30x20, batch": (
        models.DCGANGenerator((30, 20, 2), 2, norm="batch", output="tanh"),
        lambda: DCGANGenerator([(4, 3), (8, 5), (15, 10), (30, 20)], (8, 4, 2, 2), "batch", torch.tanh),
        (LATENT_SIZE,)),
    "dcgan generator, 8x8, batch": (
        models.DCGANGenerator((8, 8, 3), 3, norm="batch", output="tanh"),
        lambda: DCGANGenerator([(2, 2), (4, 4), (8, 8)], (6, 3, 3), "batch", torch.tanh),
        (LATENT_SIZE,)),
    "dcgan, 28x28": (
        models.DCGANCritic(2),
        lambda: DCGANCritic((1, 2, 4, 8), 4 * 4 * 8), (28, 28, 1)),
    "dcgan, 8x8": (
        models.DCGANCritic(3),
        lambda: DCGANCritic((1, 3, 6), 2 * 2 * 6), (8, 8, 1)),
    "dcgan, 8x8, layer": (
        models.DCGANCritic(3, norm="layer"),
        lambda: DCGANCritic((3, 3, 6), 2 * 2 * 6, "layer"), (8, 8, 3)),
    "dcgan, 30x20, batch": (
        models.DCGANCritic(2, norm="batch"),
        lambda: DCGANCritic((2, 2, 4, 8), 4 * 3 * 8, "batch"), (30, 20, 2)),
    "dcgan, 8x8, spectral": (
        models.DCGANCritic(3, norm="spectral"),
        lambda: _spectral(DCGANCritic((1, 3, 6), 2 * 2 * 6)), (8, 8, 1)),
    "resnet generator, batch": (
        models.ResNetGenerator((8, 12, 3), (4, 4, 5)),
        lambda: ResNetGenerator((2, 3), (4, 4, 5, 3), "batch", torch.tanh), (LATENT_SIZE,)),
    "resnet generator, no first bias": (
        models.ResNetGenerator((4, 4, 1), (3, 4), "none", "sigmoid", first_bias=False),
        lambda: ResNetGenerator((2, 2), (3, 4, 1), "none", torch.sigmoid, first_bias=False),
        (LATENT_SIZE,)),
    "resnet": (
        models.ResNetCritic((4, 4, 4)),
        lambda: ResNetCritic((3, 4, 4, 4), "block", ("down", "none")), (8, 8, 3)),
    "resnet, flat, layer": (
        models.ResNetCritic((3, 4, 5), 2, "conv", "flatten", "layer", first_bias=False),
        lambda: ResNetCritic((2, 3, 4, 5), "conv", ("down", "down"), 2 * 1 * 5, "layer",
                             first_bias=False), (8, 4, 2)),
    "resnet, batch": (
        models.ResNetCritic((4, 5), 1, norm="batch"),
        lambda: ResNetCritic((3, 4, 5), "block", ("down",), norm="batch"), (8, 8, 3)),
    "resnet, spectral": (
        models.ResNetCritic((4, 4), 0, norm="spectral"),
        lambda: _spectral(ResNetCritic((3, 4, 4), "block", ("none",))), (4, 4, 3)),
}

# The children of a network by linen's names, and their tensors.
KINDS = {"Dense": nn.Linear, "Conv": nn.Conv2d, "ConvTranspose": nn.ConvTranspose2d,
         "BatchNorm": (nn.BatchNorm1d, nn.BatchNorm2d), "LayerNorm": nn.GroupNorm,
         "ResidualBlock": Block, "StemBlock": Stem}
TENSORS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
           "var": "running_var", "u": "weight_u"}


def _matched(tree, module):
    """Yields (name, array of linen's tree, tensor of the module) for all arrays of the tree."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        names = "/".join(key.key for key in path).split("/")
        *parents, last = (name for name in names if not name.startswith("SpectralNorm_"))
        if last == "sigma":
            continue  # of the call before, which the next one does not use
        layer = module
        for name in parents:
            if name != "kernel":
                layer = _child(layer, *name.split("_"))
        tensor = TENSORS[last]
        if last == "kernel" and hasattr(layer, "weight_orig"):
            tensor = "weight_orig"
        yield "/".join(names), leaf, getattr(layer, tensor)


def _child(module, kind, index):
    children = (part for child in module.children()
                for part in (child if isinstance(child, nn.ModuleList) else [child]))
    return [child for child in children if isinstance(child, KINDS[kind])][int(index)]


def _linen(tensor):
    """The tensor in linen's layout, [*kernel_size, in, out]; [*kernel_size, out, in] if transposed."""
    axes = {0: (), 1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}
    return tensor.permute(axes[tensor.ndim])


def _network(name):
    """jaxgan's network, numbers for it, and PyTorch's network with the same numbers."""
    module, make, shape = NETWORKS[name]
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name, noise = path[-1].key.split("/")[-1], rng.normal(size=leaf.shape)
        if name in ("scale", "var", "sigma"):
            noise = 1 + 0.3 * np.abs(noise)
        elif name == "kernel":
            noise *= math.sqrt(2 / math.prod(leaf.shape[:-1]))
        elif name != "u":
            noise *= 0.3
        return jnp.asarray(noise, jnp.float32)

    variables = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(
        partial(module.init, train=False), jax.random.key(0), jnp.zeros((BATCH, *shape))))
    other, tensors = make(), set()
    for leaf_name, leaf, tensor in itertools.chain.from_iterable(
            _matched(tree, other) for tree in variables.values()):
        assert tensor not in tensors, leaf_name
        tensors.add(tensor)
        _linen(tensor.data).copy_(torch.from_numpy(np.array(leaf)).reshape(_linen(tensor).shape))
    assert tensors >= set(other.parameters())
    return module, variables, other


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_passes_in_training(name):
    module, variables, other = _network(name)
    inputs = _normal((BATCH, *NETWORKS[name][2]), seed=1)
    outputs, stats = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))(
        variables, jnp.asarray(inputs))

    counts = {}
    for layer in other.modules():
        if isinstance(layer, KINDS["BatchNorm"]):
            layer.register_forward_hook(lambda layer, args, out: counts.update(
                {layer.running_var: out.numel() / out.shape[1]}))
    expected = other(_to_torch(inputs))
    _assert_close(outputs, _to_numpy(expected))
    assert expected.std() > 1e-2
    if not stats:
        return
    before = {name: np.asarray(leaf) for name, leaf, _ in _matched(variables["batch_stats"], other)}
    for name, leaf, tensor in _matched(stats["batch_stats"], other):
        new = tensor.numpy().reshape(leaf.shape)
        if tensor in counts:  # PyTorch averages the unbiased variance, linen the biased one
            new = 0.9 * before[name] + (new - 0.9 * before[name]) * (1 - 1 / counts[tensor])
        _assert_close(leaf, new, name)
        assert np.abs(np.subtract(leaf, before[name])).max() > 1e-2


# Penalties.


def _input_gradient_norms(critic, samples):
    samples = samples.detach().requires_grad_()
    gradient, = torch.autograd.grad(critic(samples).sum(), samples, create_graph=True)
    return gradient.flatten(1).norm(2, dim=1)


def _interpolates(real, fake, sample_keys):
    weight = _to_torch(keys.uniform(sample_keys)).reshape(-1, *(1,) * (real.ndim - 1))
    return weight * real + (1 - weight) * fake


def _noisy(real, sample_keys):
    shape = _to_numpy(real).shape
    return real + 0.3 * _to_torch(keys.normal(sample_keys, shape[1:]))


def _fold_in(sample_keys, index):
    return jax.vmap(jax.random.fold_in, (0, None))(sample_keys, index)


# One row a penalty: jaxgan's, then the norms and the value in PyTorch.
PENALTIES = {
    "gradient_penalty": (
        penalties.gradient_penalty(),
        lambda norms, real, fake, draws: norms(_interpolates(real, fake, draws)),
        lambda n: 10.0 * ((n - 1) ** 2).mean()),
    "gradient_penalty, one-sided": (
        penalties.gradient_penalty(one_sided=True),
        lambda norms, real, fake, draws: norms(_interpolates(real, fake, draws)),
        lambda n: 10.0 * (F.relu(n - 1) ** 2).mean()),
    "zero_centered": (
        penalties.zero_centered(2.0),
        lambda norms, real, fake, draws: norms(_interpolates(real, fake, draws)),
        lambda n: 2.0 * (n ** 2).mean()),
    "r1": (
        penalties.r1(4.0),
        lambda norms, real, fake, draws: norms(real),
        lambda n: 2.0 * (n ** 2).mean()),
    "r2": (
        penalties.r2(),
        lambda norms, real, fake, draws: norms(fake),
        lambda n: 5.0 * (n ** 2).mean()),
    "dragan": (
        penalties.dragan(5.0, noise=0.3, target=0.5),
        lambda norms, real, fake, draws: norms(_noisy(real, draws)),
        lambda n: 5.0 * ((n - 0.5) ** 2).mean()),
    "combine": (
        penalties.combine(penalties.r1(3.0), penalties.gradient_penalty(7.0), penalties.r2(1.0)),
        lambda norms, real, fake, draws: torch.cat([
            norms(real), norms(_interpolates(real, fake, _fold_in(draws, 1))), norms(fake)]),
        lambda n: (1.5 * (n[:BATCH] ** 2).mean() + 7.0 * ((n[BATCH:-BATCH] - 1) ** 2).mean()
                   + 0.5 * (n[-BATCH:] ** 2).mean())),
}


# The penalised networks, and what their scores are multiplied by for norms on both sides of 1.
PENALISED = {"mlp": 1.0, "dcgan, 28x28": 1.0, "dcgan, 8x8": 1.2,
             "dcgan, 8x8, layer": 1.0, "resnet": 10.0, "resnet, flat, layer": 0.85}


@pytest.fixture(scope="module", params=PENALISED)
def critic(request):
    """jaxgan's scores(params, samples), compiled once; parameters; PyTorch's network and its scores;
    reals and fakes."""
    (module, variables, other), factor = _network(request.param), PENALISED[request.param]
    shape = NETWORKS[request.param][2]
    scores = jax.jit(lambda params, x: factor * module.apply({"params": params}, x, train=True))
    return (scores, variables["params"], other, lambda x: factor * other(x),
            _normal((BATCH, *shape), seed=1), 1 + 2 * _normal((BATCH, *shape), seed=2))


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_and_their_gradients(critic, name):
    scores, params, other, other_scores, real, fake = critic
    penalty, norms_of, value_of = PENALTIES[name]
    key = jax.random.key(7)

    def value_and_norms(params):
        return measured(penalty, partial(scores, params), jnp.asarray(real), jnp.asarray(fake), key)

    (value, norms), gradient = jax.value_and_grad(value_and_norms, has_aux=True)(params)
    expected_norms = norms_of(partial(_input_gradient_norms, other_scores),
                              _to_torch(real), _to_torch(fake), keys.example_keys(key, BATCH))
    expected = value_of(expected_norms)
    _assert_close(norms, expected_norms.detach())
    _assert_close(value, expected.detach())
    assert value > 1e-2
    assert "one-sided" not in name or norms.min() < 1 < norms.max()
    _assert_gradients_close(gradient, other, expected)


def _assert_gradients_close(tree, module, value):
    """Asserts that `tree` is the gradient of `value` with respect to the module's parameters."""
    names, leaves, tensors = zip(*_matched(tree, module), strict=True)
    gradients = [_linen(gradient).numpy() for gradient in _gradients(value, tensors)]
    assert max(np.abs(gradient).max() for gradient in gradients) > 1e-2
    for name, leaf, gradient in zip(names, leaves, gradients, strict=True):
        _assert_close(leaf, gradient, name)


# Updates.


def _remembered():
    """An optax transformation whose state is the last gradient."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda gradient, state, params: (gradient, gradient))


def _state(variables, optimizer):
    stats = {name: tree for name, tree in variables.items() if name != "params"}
    return NetworkState(variables["params"], stats, jax.jit(optimizer.init)(variables["params"]))


def _assert_updated_alike(before, after, module):
    """Asserts that two networks got the same gradient and moved alike, by at most about 1e-4."""
    gradient_of = {tensor: leaf for _, leaf, tensor in _matched(after.opt_state[0], module)}
    largest = max(tensor.grad.abs().max().item() for tensor in gradient_of)
    assert largest > 1e-2
    old = {name: leaf for name, leaf, _ in _matched(before.params, module)}
    for name, leaf, tensor in _matched(after.params, module):
        gradient = _linen(tensor.grad).numpy()
        # Of a bias that BatchNorm undoes the gradient is 0, but for rounding.
        _assert_close(gradient_of[tensor], gradient, name, least=1e-2 * largest)
        # Adam makes a step of any gradient but 0, of one that is only rounding too.
        certain = np.abs(gradient) > 1e-3 * largest
        moves = (np.where(certain, np.subtract(new, old[name]), 0.0)
                 for new in (leaf, _linen(tensor.detach()).numpy()))
        np.testing.assert_allclose(*moves, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("names", [
    ("dcgan generator, 28x28", "dcgan, 28x28"),
    ("dcgan generator, 8x8, batch", "dcgan, 8x8, layer"),
], ids=["mnist", "norms"])
def test_updates_of_wgan_gp(names):
    (module, variables, generator), (critic_module, critic_variables, critic) = map(_network, names)
    optimizer = optax.chain(_remembered(), optax.adam(1e-4, b1=0.5, b2=0.9))
    gan = GAN(generator=module, critic=critic_module, latent_size=LATENT_SIZE,
              loss=losses.wasserstein(), penalty=penalties.gradient_penalty(10.0),
              generator_optimizer=optimizer, critic_optimizer=optimizer)
    state = GANState(jnp.zeros((), jnp.int32), _state(variables, optimizer),
                     _state(critic_variables, optimizer), None)
    steps = [jax.jit(partial(step, gan)) for step in (critic_step, generator_step)]
    adam, critic_adam = (torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.9))
                         for network in (generator, critic))

    def draw_fake(key):
        sample_keys = keys.example_keys(keys.stream(key, "latents"), BATCH)
        return generator(_to_torch(keys.normal(sample_keys, (LATENT_SIZE,))))

    for seed in range(2):
        key, samples = jax.random.key(seed), 1 + _normal((BATCH, *NETWORKS[names[1]][2]), seed)
        before = state.critic
        state, metrics = steps[0](state, Batch(jnp.asarray(samples)), key)

        real, fake = _to_torch(samples), draw_fake(key).detach()
        wasserstein = critic(real).mean() - critic(fake).mean()
        norms = _input_gradient_norms(critic, _interpolates(
            real, fake, keys.example_keys(keys.stream(key, "penalty"), BATCH)))
        penalty = 10.0 * ((norms - 1) ** 2).mean()
        critic_adam.zero_grad()
        (penalty - wasserstein).backward()
        critic_adam.step()

        for name, value in (("loss", penalty - wasserstein), ("penalty", penalty),
                            ("wasserstein", wasserstein), ("input_gradient_mean", norms.mean())):
            _assert_close(metrics[f"critic/{name}"], value.detach(), name)
        _assert_updated_alike(before, state.critic, critic)

    before = state.generator
    state, metrics = steps[1](state, Batch(jnp.asarray(samples)), key)
    loss = -critic(draw_fake(key)).mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    _assert_close(metrics["generator/loss"], loss.detach())
    _assert_updated_alike(before, state.generator, generator)
