"""R3GAN's networks in PyTorch (Huang et al. 2024, arXiv 2501.05441, section 3, configuration E), NCHW.

Written from the paper, under the names that the published state dictionaries have (hence the capitals).
Widths, numbers of blocks and cardinalities are given from 4x4 upwards, to the generator and the critic
alike; n of them make images of 4 * 2^(n-1) pixels. No layer normalises, and no convolution has a bias,
which is the activation's.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2 / (1 + SLOPE**2))


def _preset(*stages: tuple[int, int], **more: int) -> dict:
    """Two blocks at each stage, whose (width, cardinality) are given from 4x4 upwards."""
    widths, cardinalities = zip(*stages, strict=True)
    return {"widths": widths, "blocks": (2,) * len(widths), "cardinalities": cardinalities, **more}


# The published settings, for `Generator(**preset)` and `Critic(**preset)`. CIFAR-10 is trained with its
# labels there: `num_classes=10`.
PRESETS = {
    "cifar10": _preset(*[(768, 96)] * 4),
    "ffhq64": _preset(*[(768, 96)] * 4, (384, 48)),
    "ffhq256": _preset(*[(768, 96)] * 4, (384, 48), (192, 24), (96, 12)),
    "imagenet32": _preset(*[(1536, 96)] * 4, num_classes=1000),
    "imagenet64": _preset(*[(1536, 96)] * 5, num_classes=1000),
}


def _initialize(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draws weights, [out, in, ...], from N(0, gain^2 / fan in) (He et al. 2015, arXiv 1502.01852)."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    return layer


class Convolution(nn.Module):
    """A convolution of stride 1 that keeps the size, without a bias."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 1, groups: int = 1,
                 gain: float = 1.0):
        super().__init__()
        self.Layer = _initialize(nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2,
                                           groups=groups, bias=False), gain)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, inputs, height, width] to [batch, outputs, height, width]."""
        return self.Layer(x)


class BiasedActivation(nn.Module):
    """A bias for each channel, which starts at 0, then a LeakyReLU."""

    def __init__(self, width: int):
        super().__init__()
        self.Bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, width, height, width] to the same shape."""
        return F.leaky_relu(x + self.Bias.view(1, -1, 1, 1), SLOPE)


class ResidualBlock(nn.Module):
    """x + 1x1(activation(grouped 3x3(activation(1x1(x))))), wider inside by a factor of `expansion`.

    It starts as the identity, as in Fixup (Zhang et al. 2019, arXiv 1901.09321): of the m = 3 layers the
    last is 0, the others are scaled by depth^(-1/(2m-2)); `depth` is the network's number of blocks.
    """

    def __init__(self, width: int, cardinality: int, expansion: int, depth: int):
        super().__init__()
        wide, gain = expansion * width, ACTIVATION_GAIN * depth**(-1 / 4)
        self.LinearLayer1 = Convolution(width, wide, gain=gain)
        self.LinearLayer2 = Convolution(wide, wide, 3, groups=cardinality, gain=gain)
        self.LinearLayer3 = Convolution(wide, width, gain=0.0)
        self.NonLinearity1 = BiasedActivation(wide)
        self.NonLinearity2 = BiasedActivation(wide)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, width, height, width] to the same shape."""
        y = self.NonLinearity1(self.LinearLayer1(x))
        y = self.NonLinearity2(self.LinearLayer2(y))
        return x + self.LinearLayer3(y)


def _blocks(width: int, count: int, cardinality: int, expansion: int, depth: int) -> list[nn.Module]:
    return [ResidualBlock(width, cardinality, expansion, depth) for _ in range(count)]


class Resampler(nn.Module):
    """Halves or doubles images with the filter [1, 2, 1].

    The filter interpolates: convolved with [1, 1] it is [1, 3, 3, 1], which has its centre between two
    pixels. The kernel is the outer product of that with itself, normalised. Images are 0 outside.
    """

    def __init__(self, up: bool):
        super().__init__()
        self.up = up
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("Kernel", torch.outer(taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] to images of twice, or half, the height and width."""
        channels = x.shape[1]
        kernel = self.Kernel.to(x.dtype).expand(channels, 1, 4, 4)
        if self.up:  # each output sees a quarter of the kernel
            return F.conv_transpose2d(x, 4 * kernel, stride=2, padding=1, groups=channels)
        return F.conv2d(x, kernel, stride=2, padding=1, groups=channels)


class Transition(nn.Module):
    """2x up or down, and a 1x1 convolution if the width changes, on the side where images are small."""

    def __init__(self, inputs: int, outputs: int, up: bool):
        super().__init__()
        self.up = up
        self.LinearLayer = nn.Identity() if inputs == outputs else Convolution(inputs, outputs)
        self.Resampler = Resampler(up)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, inputs, height, width] to [batch, outputs, ...], of twice or half the size."""
        return self.Resampler(self.LinearLayer(x)) if self.up else self.LinearLayer(self.Resampler(x))


class GenerativeBasis(nn.Module):
    """A learned 4x4 picture for each channel, times a number that is linear in the latents."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.Basis = nn.Parameter(torch.randn(width, 4, 4))
        self.LinearLayer = _initialize(nn.Linear(inputs, width, bias=False))

    def forward(self, z: Tensor) -> Tensor:
        """Maps [batch, inputs] to [batch, width, 4, 4]."""
        return self.Basis * self.LinearLayer(z)[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """Each channel's product with a learned 4x4 picture, then a linear layer."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.Basis = _initialize(nn.Conv2d(width, width, 4, groups=width, bias=False))
        self.LinearLayer = _initialize(nn.Linear(width, outputs, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, width, 4, 4] to [batch, outputs]."""
        return self.LinearLayer(self.Basis(x).flatten(1))


class Stage(nn.Module):
    """What happens at one resolution: the layers one after the other."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.Layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps what the stage before gives to what the next one takes."""
        return self.Layers(x)


class Generator(nn.Module):
    """R3GAN's generator.

    Args:
        widths: the channels of each stage, from 4x4 upwards.
        blocks: the residual blocks of each stage.
        cardinalities: the groups of each stage's 3x3 convolutions.
        expansion: how many times wider a block is inside.
        latent_size: the dimensions of z.
        channels: the images' channels.
        num_classes: 0 for a generator without labels.
        class_size: the dimensions of a label's embedding, which is concatenated to z.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], cardinalities: Sequence[int],
                 expansion: int = 2, latent_size: int = 64, channels: int = 3, num_classes: int = 0,
                 class_size: int = 64):
        super().__init__()
        inputs = latent_size + (class_size if num_classes else 0)
        transitions = [GenerativeBasis(inputs, widths[0]),
                       *(Transition(below, width, up=True) for below, width in pairwise(widths))]
        self.MainLayers = nn.Sequential(*(
            Stage(transition, *_blocks(width, count, groups, expansion, sum(blocks)))
            for transition, width, count, groups
            in zip(transitions, widths, blocks, cardinalities, strict=True)))
        self.AggregationLayer = Convolution(widths[-1], channels)
        self.EmbeddingLayer = _initialize(
            nn.Linear(num_classes, class_size, bias=False)) if num_classes else None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps z, [batch, latent size], and one-hot labels to images, [batch, channels, size, size]."""
        if self.EmbeddingLayer is not None:
            z = torch.cat([z, self.EmbeddingLayer(labels)], dim=1)
        return self.AggregationLayer(self.MainLayers(z))


class Critic(nn.Module):
    """R3GAN's critic: the generator's stages the other way round. Arguments as there.

    With labels its last layer gives a vector as long as the 4x4 stage is wide, and the score is that
    vector's product with the label's embedding (Miyato and Koyama 2018, arXiv 1802.05637).
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], cardinalities: Sequence[int],
                 expansion: int = 2, channels: int = 3, num_classes: int = 0):
        super().__init__()
        features = widths[0]
        transitions = [DiscriminativeBasis(features, features if num_classes else 1),
                       *(Transition(width, below, up=False) for below, width in pairwise(widths))]
        stages = [Stage(*_blocks(width, count, groups, expansion, sum(blocks)), transition)
                  for transition, width, count, groups
                  in zip(transitions, widths, blocks, cardinalities, strict=True)]
        self.ExtractionLayer = Convolution(channels, widths[-1])
        self.MainLayers = nn.Sequential(*reversed(stages))
        self.EmbeddingLayer = _initialize(
            nn.Linear(num_classes, features, bias=False), features**-0.5) if num_classes else None

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps images, [batch, channels, size, size], and one-hot labels to scores, [batch]."""
        x = self.MainLayers(self.ExtractionLayer(images))
        if self.EmbeddingLayer is not None:
            x = x * self.EmbeddingLayer(labels)
        return x.sum(1)
