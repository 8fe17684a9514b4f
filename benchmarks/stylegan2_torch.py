"""StyleGAN2's networks in PyTorch, NCHW (Karras et al. 2020, arXiv 1912.04958; ADA: arXiv 2006.06676).

Written from the papers, under the names that the published state dictionaries have. Learning rates
are equalised (Karras et al. 2018, arXiv 1710.10196, section 4.1): weights start as N(0, 1) and are
divided by the root of their fan in whenever they are used. Activations are LeakyReLUs of slope 0.2,
times sqrt(2). All in float32: the published code's half precision, with its clamps, is left out.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def width_at(size: int, base: int, widest: int = 512) -> int:
    """The channels of features of size x size pixels."""
    return min(base // size, widest)


def activate(x: Tensor) -> Tensor:
    """A LeakyReLU of x, of any shape, that about keeps its mean square."""
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def normalize(x: Tensor) -> Tensor:
    """Scales vectors, [batch, size], to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def resampling_filter() -> Tensor:
    """The filter [1, 3, 3, 1] for resampling, as a kernel, [4, 4], whose sum is 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    return torch.outer(taps, taps)


def smooth(x: Tensor, kernel: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Filters each channel of x, [batch, channels, height, width], with zeros around it."""
    channels = x.shape[1]
    kernel = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


def double(x: Tensor, kernel: Tensor) -> Tensor:
    """Doubles x, [batch, channels, height, width]: zeros in between, then 4 times the filter."""
    channels = x.shape[1]
    kernel = 4 * kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def modulated_convolution(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool = True,
                          up: bool = False) -> Tensor:
    """Convolves each example with a kernel of its own (1912.04958, section 2.2, equations 1 and 3).

    The kernel is weight * style, over the norm of that for each output channel. Style and norm are the
    same for all pixels, so they multiply what goes in and what comes out.

    Args:
        x: [batch, inputs, height, width].
        weight: [outputs, inputs, k, k].
        style: a factor for each input channel, [batch, inputs].
        demodulate: whether to divide by the norm.
        up: transposed, of stride 2 and without padding, instead of keeping the size.

    Returns:
        [batch, outputs, height, width], or [batch, outputs, 2 height + k - 2, 2 width + k - 2].
    """
    x = x * style[:, :, None, None]
    if up:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    else:
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    if demodulate:
        squares = style.square() @ weight.square().sum((2, 3)).T
        x = x * (squares + 1e-8).rsqrt()[:, :, None, None]
    return x


class Dense(nn.Module):
    """A linear layer, followed by an activation or not.

    With a `multiplier` weights and bias are stored divided by it, and are used times it, so that Adam's
    steps change what is used by that factor less.
    """

    def __init__(self, inputs: int, outputs: int, activation: bool = False, multiplier: float = 1.0,
                 bias: float = 0.0):
        super().__init__()
        self.activation = activation
        self.multiplier = multiplier
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, inputs] to [batch, outputs]."""
        scale = self.multiplier / math.sqrt(self.weight.shape[1])
        x = F.linear(x, self.weight * scale, self.bias * self.multiplier)
        return activate(x) if self.activation else x


class MappingNetwork(nn.Module):
    """From z and a label to w, with a running mean of w (Karras et al. 2019, arXiv 1812.04948; ADA).

    Args:
        latent_size: the dimensions of z; 0 for a mapping of labels alone.
        num_classes: 0 for a mapping without labels.
        style_size: the dimensions of w and of all in between.
        num_ws: how many times w is repeated; None for a mapping without repeats and running mean.
        layers: the number of dense layers.
        decay: of the running mean.
    """

    def __init__(self, latent_size: int, num_classes: int, style_size: int, num_ws: int | None,
                 layers: int = 8, decay: float = 0.995):
        super().__init__()
        self.latent_size, self.num_ws, self.layers, self.decay = latent_size, num_ws, layers, decay
        self.embed = Dense(num_classes, style_size) if num_classes else None
        inputs = latent_size + (style_size if num_classes else 0)
        for k in range(layers):
            layer = Dense(style_size if k else inputs, style_size, activation=True, multiplier=0.01)
            self.add_module(f"fc{k}", layer)
        if num_ws is not None:
            self.register_buffer("w_avg", torch.zeros(style_size))

    def forward(self, z: Tensor | None, labels: Tensor | None = None, truncation_psi: float = 1.0,
                truncation_cutoff: int | None = None, update_mean: bool = True) -> Tensor:
        """Maps z, [batch, latent size], and one-hot labels, [batch, classes], to w.

        In training mode the running mean moves towards the batch's, unless `update_mean` is False. The
        first `truncation_cutoff` repeats (None: all) are pulled to it: mean + psi (w - mean).

        Returns:
            [batch, num_ws, style size], or [batch, style size] where `num_ws` is None.
        """
        parts = [normalize(z)] if self.latent_size else []
        if self.embed is not None:
            parts.append(normalize(self.embed(labels)))
        x = torch.cat(parts, dim=1)
        for k in range(self.layers):
            x = self.get_submodule(f"fc{k}")(x)
        if self.num_ws is None:
            return x
        if self.training and update_mean:
            self.w_avg.copy_(torch.lerp(x.detach().float().mean(0), self.w_avg, self.decay))
        ws = x[:, None].expand(-1, self.num_ws, -1)
        if truncation_psi == 1:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([torch.lerp(self.w_avg, ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)


class SynthesisLayer(nn.Module):
    """A modulated 3x3 convolution, noise, bias, activation (1912.04958, section 2.2 and figure 2)."""

    def __init__(self, inputs: int, outputs: int, size: int, style_size: int, up: bool = False):
        super().__init__()
        self.up = up
        self.affine = Dense(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, x: Tensor, w: Tensor, noise: str | Tensor) -> Tensor:
        """Maps x, [batch, inputs, ...], and w, [batch, style size], to [batch, outputs, size, size].

        The noise is "random", "const" (the layer's own), "none", or values that broadcast with
        [batch, 1, size, size].
        """
        x = modulated_convolution(x, self.weight, self.affine(w), up=self.up)
        if self.up:
            x = smooth(x, 4 * self.resample_filter, padding=1)
        if isinstance(noise, Tensor):
            x = x + self.noise_strength * noise
        elif noise == "random":
            x = x + self.noise_strength * torch.randn_like(x[:, :1])
        elif noise == "const":
            x = x + self.noise_strength * self.noise_const
        elif noise != "none":
            raise ValueError(f'noise has to be "random", "const", "none" or a tensor, not {noise!r}')
        return activate(x + self.bias.view(1, -1, 1, 1))


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to an image, without demodulation."""

    def __init__(self, inputs: int, channels: int, style_size: int):
        super().__init__()
        self.affine = Dense(style_size, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps x, [batch, inputs, size, size], and w, [batch, style size], to [batch, channels, ...]."""
        style = self.affine(w) / math.sqrt(self.weight.shape[1])
        x = modulated_convolution(x, self.weight, style, demodulate=False)
        return x + self.bias.view(1, -1, 1, 1)


class SynthesisBlock(nn.Module):
    """At one size: two layers, the first of which doubles, and an image; at 4x4 a single layer."""

    def __init__(self, inputs: int, width: int, size: int, channels: int, style_size: int):
        super().__init__()
        self.register_buffer("resample_filter", resampling_filter())
        if size == 4:
            self.const = nn.Parameter(torch.randn(width, 4, 4))
            self.conv0 = None
        else:
            self.conv0 = SynthesisLayer(inputs, width, size, style_size, up=True)
        self.conv1 = SynthesisLayer(width, width, size, style_size)
        self.torgb = ToRGB(width, channels, style_size)

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor,
                noises: Sequence[str | Tensor]) -> tuple[Tensor, Tensor]:
        """Maps features and an image to those of twice the size.

        Args:
            x: [batch, inputs, size / 2, size / 2], or None at 4x4.
            image: [batch, channels, size / 2, size / 2], or None at 4x4.
            ws: for each layer and the image, [batch, 3 or 2, style size].
            noises: for each layer.
        """
        if self.conv0 is None:
            x = self.conv1(self.const.expand(len(ws), -1, -1, -1), ws[:, 0], noises[0])
            return x, self.torgb(x, ws[:, 1])
        x = self.conv0(x, ws[:, 0], noises[0])
        x = self.conv1(x, ws[:, 1], noises[1])
        return x, double(image, self.resample_filter) + self.torgb(x, ws[:, 2])


class SynthesisNetwork(nn.Module):
    """From w to an image, which is a sum over all sizes (1912.04958, section 4.1 and figure 7b)."""

    def __init__(self, resolution: int, base: int = 32768, widest: int = 512, channels: int = 3,
                 style_size: int = 512):
        super().__init__()
        self.sizes = [2**k for k in range(2, resolution.bit_length())]
        self.num_ws = 2 * len(self.sizes)
        for size in self.sizes:
            inputs, width = width_at(size // 2, base, widest), width_at(size, base, widest)
            self.add_module(f"b{size}", SynthesisBlock(inputs, width, size, channels, style_size))

    def forward(self, ws: Tensor, noise: str | Sequence[Tensor] = "random") -> Tensor:
        """Maps ws, [batch, num_ws, style size], to images, [batch, channels, resolution, resolution].

        A block's image and the next block's first layer share a w. The noise is "random", "const" (the
        layers' own), "none", or the values for each of the num_ws - 1 layers, from 4x4 upwards.
        """
        noises = [noise] * (self.num_ws - 1) if isinstance(noise, str) else noise
        x = image = None
        for k, size in enumerate(self.sizes):
            first = max(2 * k - 1, 0)
            block = self.get_submodule(f"b{size}")
            x, image = block(x, image, ws[:, first:2 * k + 2], noises[first:2 * k + 1])
        return image


class Generator(nn.Module):
    """StyleGAN2's generator.

    Args:
        resolution: the images' height and width, a power of 2, at least 4.
        num_classes: 0 for a generator without labels.
        base: features of r x r pixels have min(base / r, widest) channels.
        widest: see `base`.
        channels: the images' channels.
        mapping_layers: the number of dense layers from z to w.
        latent_size: the dimensions of z.
        style_size: the dimensions of w.
    """

    def __init__(self, resolution: int, num_classes: int = 0, base: int = 32768, widest: int = 512,
                 channels: int = 3, mapping_layers: int = 8, latent_size: int = 512,
                 style_size: int = 512):
        super().__init__()
        self.synthesis = SynthesisNetwork(resolution, base, widest, channels, style_size)
        self.mapping = MappingNetwork(latent_size, num_classes, style_size, self.synthesis.num_ws,
                                      mapping_layers)

    def forward(self, z: Tensor, labels: Tensor | None = None, truncation_psi: float = 1.0,
                truncation_cutoff: int | None = None,
                noise: str | Sequence[Tensor] = "random") -> Tensor:
        """Maps z, [batch, latent size], and one-hot labels to images, [batch, channels, size, size]."""
        return self.synthesis(self.mapping(z, labels, truncation_psi, truncation_cutoff), noise)


class Convolution(nn.Module):
    """A convolution, bias and activation; `linear` is without these two, `down` smooths and halves."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, down: bool = False,
                 linear: bool = False):
        super().__init__()
        self.down = down
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = None if linear else nn.Parameter(torch.zeros(outputs))
        self.register_buffer("resample_filter", resampling_filter())

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, inputs, height, width] to [batch, outputs, ...], of the same or half the size."""
        weight = self.weight / math.sqrt(self.weight[0].numel())
        padding = weight.shape[-1] // 2
        if not self.down:
            x = F.conv2d(x, weight, padding=padding)
        elif padding:
            x = F.conv2d(smooth(x, self.resample_filter, padding=padding + 1), weight, stride=2)
        else:  # a 1x1 convolution sees only the pixels that stay
            x = F.conv2d(smooth(x, self.resample_filter, padding=1, stride=2), weight)
        return x if self.bias is None else activate(x + self.bias.view(1, -1, 1, 1))


class DiscriminatorBlock(nn.Module):
    """Two convolutions, the second of which halves the size, with a skip connection if it is `residual`.

    The first block, whose `inputs` are 0, takes an image.
    """

    def __init__(self, inputs: int, width: int, outputs: int, channels: int, residual: bool):
        super().__init__()
        self.register_buffer("resample_filter", resampling_filter())
        self.fromrgb = None if inputs else Convolution(channels, width, 1)
        self.conv0 = Convolution(width, width, 3)
        self.conv1 = Convolution(width, outputs, 3, down=True)
        self.skip = Convolution(width, outputs, 1, down=True, linear=True) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps features or images, [batch, ..., size, size], to [batch, outputs, size / 2, size / 2]."""
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        y = self.conv1(self.conv0(x))
        return y if self.skip is None else (y + self.skip(x)) / math.sqrt(2)


def minibatch_deviation(x: Tensor, group_size: int) -> Tensor:
    """Appends a channel that says how much the examples of a group differ (1710.10196, section 3).

    It is the standard deviation over the group, averaged over channels and pixels. A batch of n
    examples has n / group_size groups, and example i is in group i modulo their number.

    Args:
        x: [batch, channels, height, width]; the batch is a multiple of the group's size, or smaller.
        group_size: examples in a group.

    Returns:
        [batch, channels + 1, height, width].
    """
    group_size = min(group_size, len(x))
    groups = x.unflatten(0, (group_size, -1))
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    channel = deviation.repeat(group_size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, channel], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """From 4x4 to a score, or to as many numbers as a label's embedding has."""

    def __init__(self, width: int, outputs: int, group_size: int):
        super().__init__()
        self.group_size = group_size
        self.conv = Convolution(width + 1, width, 3)
        self.fc = Dense(width * 4 * 4, width, activation=True)
        self.out = Dense(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, width, 4, 4] to [batch, outputs]."""
        x = self.conv(minibatch_deviation(x, self.group_size))
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """StyleGAN2's critic (1912.04958, section 4.1 and figure 7c).

    With labels, as in ADA, the score is the product of the last layer's vector with a mapped label, both
    as long as the 4x4 features are wide, over that length's root (Miyato and Koyama 2018, arXiv
    1802.05637).

    Args:
        resolution: the images' height and width, a power of 2, at least 8.
        num_classes: 0 for a critic without labels.
        base: features of r x r pixels have min(base / r, widest) channels.
        widest: see `base`.
        channels: the images' channels.
        architecture: "resnet", or "orig" for one without skip connections.
        group_size: for the standard deviation over the batch.
        mapping_layers: the number of dense layers that a label goes through.
    """

    def __init__(self, resolution: int, num_classes: int = 0, base: int = 32768, widest: int = 512,
                 channels: int = 3, architecture: str = "resnet", group_size: int = 4,
                 mapping_layers: int = 8):
        super().__init__()
        if architecture not in ("resnet", "orig"):
            raise ValueError(f'architecture has to be "resnet" or "orig", not {architecture!r}')
        self.sizes = [2**k for k in reversed(range(3, resolution.bit_length()))]
        for size in self.sizes:
            width, outputs = width_at(size, base, widest), width_at(size // 2, base, widest)
            inputs = 0 if size == resolution else width
            block = DiscriminatorBlock(inputs, width, outputs, channels, architecture == "resnet")
            self.add_module(f"b{size}", block)
        width = width_at(4, base, widest)
        self.b4 = DiscriminatorEpilogue(width, width if num_classes else 1, group_size)
        self.mapping = (MappingNetwork(0, num_classes, width, num_ws=None, layers=mapping_layers)
                        if num_classes else None)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Maps images, [batch, channels, size, size], and one-hot labels to scores, [batch]."""
        x = images
        for size in self.sizes:
            x = self.get_submodule(f"b{size}")(x)
        x = self.b4(x)
        if self.mapping is not None:
            x = x * self.mapping(None, labels) / math.sqrt(x.shape[1])
        return x.sum(1)
