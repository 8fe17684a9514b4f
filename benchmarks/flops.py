"""Floating-point operations of an iteration of WGAN-GP or GAT, counted by hand from the architecture.

Only convolutions, dense layers and attention's products are counted: a multiplication and an addition
for each weight, at every position of the output, padding included. README.md derives the formulas.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.settings import GAT, WGANGP, Setting


class Layer(NamedTuple):
    """A convolution, a dense layer or an attention.

    Attributes:
        name: of which layer.
        flops: of its forward pass, for one sample.
        on_input: whether the network's input is its input, so that training the network alone needs
            no gradient there.
    """

    name: str
    flops: int
    on_input: bool = False


def dense(name: str, inputs: int, outputs: int, on_input: bool = False) -> Layer:
    """A dense layer, 2 inputs outputs operations."""
    return Layer(name, 2 * inputs * outputs, on_input)


def conv(name: str, size: int, kernel: int, channels: int, features: int,
         on_input: bool = False) -> Layer:
    """A convolution with square outputs of `size` and square kernels.

    2 size^2 kernel^2 channels features operations. A transposed convolution is the convolution that
    it is the input gradient of: `size` and `features` are of its input, `channels` of its output.
    """
    return Layer(name, 2 * size**2 * kernel**2 * channels * features, on_input)


def attention(name: str, tokens: int, width: int) -> Layer:
    """Each query with each key, and each weight with each value, 4 tokens^2 width operations."""
    return Layer(name, 4 * tokens**2 * width)


def networks(setting: WGANGP | GAT) -> tuple[list[Layer], list[Layer]]:
    """The layers of a setting's generator and critic."""
    if isinstance(setting, GAT):
        return _gat(setting)
    return {"dcgan": _dcgan, "resnet": _resnet, "mlp": _mlp}[setting.family](setting)


def forward(layers: Sequence[Layer]) -> int:
    """Operations of a forward pass of one sample."""
    return sum(layer.flops for layer in layers)


def critic_update(generator: Sequence[Layer], critic: Sequence[Layer]) -> int:
    """Operations of a critic update per sample of its batch: G + 10 D - 2 D_input."""
    on_input = forward([layer for layer in critic if layer.on_input])
    fake = forward(generator)
    scores = 2 * (3 * forward(critic) - on_input)  # real and fake: forward and both gradients
    penalty = 4 * forward(critic)  # forward, input gradient, and twice again to differentiate that
    return fake + scores + penalty


def generator_update(generator: Sequence[Layer], critic: Sequence[Layer]) -> int:
    """Operations of a generator update per sample of its batch: 3 G - G_input + 2 D."""
    on_input = forward([layer for layer in generator if layer.on_input])
    return 3 * forward(generator) - on_input + 2 * forward(critic)


def iteration(setting: Setting) -> int | None:
    """Operations of n_critic critic updates and a generator update; None but for WGAN-GP and GAT."""
    if isinstance(setting, GAT):
        return setting.batch_size * gat_iteration(*networks(setting))
    if not isinstance(setting, WGANGP):
        return None
    layers = networks(setting)
    return setting.batch_size * (setting.n_critic * critic_update(*layers)
                                 + setting.generator_batches * generator_update(*layers))


def gat_iteration(generator: Sequence[Layer], critic: Sequence[Layer]) -> int:
    """Operations of GAT's two updates per sample: 4 G - G_input + 15 D - 4 D_input.

    The critic learns from reals, fakes, and both with the noise of finite differences; the generator
    from fakes beside reals.
    """
    on_input = forward([layer for layer in critic if layer.on_input])
    critic_scores = 4 * (3 * forward(critic) - on_input)
    return (forward(generator) + critic_scores
            + generator_update(generator, critic) + forward(critic))


def _mlp(setting: WGANGP) -> tuple[list[Layer], list[Layer]]:
    def layers(inputs: int, outputs: int) -> list[Layer]:
        sizes = [inputs, *[setting.width] * 3, outputs]
        return [dense(f"dense {i}", sizes[i], sizes[i + 1], on_input=i == 0) for i in range(4)]

    dimensions = math.prod(setting.sample_shape)
    return layers(setting.latent_size, dimensions), layers(dimensions, 1)


def _dcgan(setting: WGANGP) -> tuple[list[Layer], list[Layer]]:
    size, _, channels = setting.sample_shape
    sizes = [size, -(-size // 2), -(-size // 4), -(-size // 8)]
    widths = [channels, setting.width, 2 * setting.width, 4 * setting.width]
    # Each stage of the generator is the transpose of the critic's.
    stages = [conv(f"conv {i}", sizes[i + 1], 5, widths[i], widths[i + 1]) for i in range(3)]
    small = sizes[3] ** 2 * widths[3]
    generator = [dense("dense", setting.latent_size, small, on_input=True), *reversed(stages)]
    return generator, [stages[0]._replace(on_input=True), *stages[1:], dense("dense", small, 1)]


def _resnet(setting: WGANGP) -> tuple[list[Layer], list[Layer]]:
    size, _, channels = setting.sample_shape
    width, small = setting.width, size // 8
    generator = [dense("dense", setting.latent_size, small**2 * width, on_input=True)]
    for stage in range(3):
        before, after = small << stage, small << (stage + 1)
        generator += [conv(f"up {stage}, conv {i}", after, 3, width, width) for i in range(2)]
        generator.append(conv(f"up {stage}, shortcut", before, 1, width, width))
    generator.append(conv("conv", size, 3, width, channels))

    critic = [conv("stem, conv 0", size, 3, channels, width, on_input=True),
              conv("stem, conv 1", size, 3, width, width),
              conv("stem, shortcut", size // 2, 1, channels, width, on_input=True)]
    critic += [conv(f"down, conv {i}", size // 2, 3, width, width) for i in range(2)]
    critic.append(conv("down, shortcut", size // 4, 1, width, width))
    critic += [conv(f"block {block}, conv {i}", size // 4, 3, width, width)
               for block in range(2) for i in range(2)]
    return generator, [*critic, dense("dense", width, 1)]


def _gat(setting: GAT) -> tuple[list[Layer], list[Layer]]:
    size, _, channels = setting.sample_shape
    width, patch = setting.width, setting.patch**2 * channels
    hidden, tokens = int(2 / 3 * (4 * width)), (size // setting.patch) ** 2

    def block(i: int, tokens: int) -> list[Layer]:
        return [*(dense(f"block {i}, {name}", tokens * inputs, outputs) for name, inputs, outputs in (
            ("qkv", width, 3 * width), ("out", width, width), ("in", width, 2 * hidden),
            ("mlp out", hidden, width))), attention(f"block {i}, attention", tokens, width)]

    generator = [dense("style 0", setting.class_size + setting.latent_size, width, on_input=True),
                 dense("style 1", width, width)]
    for i in range(setting.depth):
        generator += [dense(f"block {i}, modulation", width, 4 * width), *block(i, tokens)]
    for i in range(setting.outputs):
        generator += [dense(f"head {i}, scale", width, width), dense(f"head {i}", tokens * width, patch)]

    table = setting.class_width
    critic = [dense("patches", tokens * setting.outputs * patch, width, on_input=True)]
    for i in range(setting.depth):
        critic += block(i, tokens + 1)  # its own token too
    return generator, [*critic, dense("features", width, table), dense("class 0", table, table),
                       dense("class 1", table, table)]
