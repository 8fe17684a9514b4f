"""The networks of Gulrajani et al. 2017 as a PyTorch user writes them, NCHW; and matrix products."""

import math
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.settings import WGANGP
from benchmarks.timing import best_rate


class DCGANGenerator(nn.Module):
    """A dense layer, then 5x5 transposed convolutions of stride 2, for 28x28 or 32x32 images."""

    def __init__(self, setting: WGANGP):
        super().__init__()
        height, _, channels = setting.sample_shape
        width, batch_norm = setting.width, setting.batch_norm
        self.small = -(-height // 8)
        self.crop = -(-height // 4)
        self.output = torch.sigmoid if setting.value_range == (0.0, 1.0) else torch.tanh
        self.dense = nn.Linear(setting.latent_size, self.small**2 * 4 * width)
        self.conv1 = nn.ConvTranspose2d(4 * width, 2 * width, 5, 2, padding=2, output_padding=1)
        self.conv2 = nn.ConvTranspose2d(2 * width, width, 5, 2, padding=2, output_padding=1)
        self.conv3 = nn.ConvTranspose2d(width, channels, 5, 2, padding=2, output_padding=1)
        self.norm0 = nn.BatchNorm1d(self.dense.out_features) if batch_norm else nn.Identity()
        self.norm1 = nn.BatchNorm2d(2 * width) if batch_norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents, [batch, latent_size], to images, [batch, channels, height, width]."""
        x = F.relu(self.norm0(self.dense(latents))).unflatten(1, (-1, self.small, self.small))
        x = F.relu(self.norm1(self.conv1(x)[:, :, :self.crop, :self.crop]))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.output(self.conv3(x))


class DCGANCritic(nn.Module):
    """5x5 convolutions of stride 2 with LeakyReLUs, then a dense layer."""

    def __init__(self, setting: WGANGP):
        super().__init__()
        height, _, channels = setting.sample_shape
        width = setting.width
        self.conv1 = nn.Conv2d(channels, width, 5, 2, padding=2)
        self.conv2 = nn.Conv2d(width, 2 * width, 5, 2, padding=2)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, 5, 2, padding=2)
        self.dense = nn.Linear((-(-height // 8))**2 * 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images, [batch, channels, height, width], to scores, [batch]."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.leaky_relu(conv(x), 0.2)
        return self.dense(x.flatten(1)).squeeze(1)


class ResidualBlock(nn.Module):
    """[BatchNorm, ReLU, 3x3 convolution] twice and a shortcut; "up" doubles, "down" halves the size."""

    def __init__(self, width: int, resample: str = "none", batch_norm: bool = False):
        super().__init__()
        self.resample = resample
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Identity() if resample == "none" else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images of features to images of features."""
        y = F.relu(self.norm1(x))
        if self.resample == "up":
            y = F.interpolate(y, scale_factor=2)
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        if self.resample == "up":
            return y + F.interpolate(self.shortcut(x), scale_factor=2)
        if self.resample == "down":
            return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return y + x


class ResNetGenerator(nn.Module):
    """A dense layer to 4x4, three blocks that double it, a 3x3 convolution, for 32x32 images."""

    def __init__(self, setting: WGANGP):
        super().__init__()
        width = setting.width
        self.small = setting.sample_shape[0] // 8
        self.dense = nn.Linear(setting.latent_size, self.small**2 * width)
        self.blocks = nn.Sequential(*(ResidualBlock(width, "up", batch_norm=True) for _ in range(3)))
        self.norm = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, setting.sample_shape[2], 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Maps latents, [batch, latent_size], to images, [batch, channels, height, width]."""
        x = self.dense(latents).unflatten(1, (-1, self.small, self.small))
        return torch.tanh(self.conv(F.relu(self.norm(self.blocks(x)))))


class ResNetCritic(nn.Module):
    """A block on the pixels that halves, one more that does, two that don't, mean, dense."""

    def __init__(self, setting: WGANGP):
        super().__init__()
        channels, width = setting.sample_shape[2], setting.width
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, width, 1)
        self.blocks = nn.Sequential(ResidualBlock(width, "down"), ResidualBlock(width),
                                    ResidualBlock(width))
        self.dense = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images, [batch, channels, height, width], to scores, [batch]."""
        y = F.avg_pool2d(self.conv2(F.relu(self.conv1(x))), 2)
        y = self.blocks(y + self.shortcut(F.avg_pool2d(x, 2)))
        return self.dense(F.relu(y).mean((2, 3))).squeeze(1)


def mlp(*sizes: int) -> nn.Sequential:
    """Dense layers with ReLUs between them."""
    layers = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def make_networks(setting: WGANGP) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic of a setting."""
    if setting.family == "dcgan":
        return DCGANGenerator(setting), DCGANCritic(setting)
    if setting.family == "resnet":
        return ResNetGenerator(setting), ResNetCritic(setting)
    hidden, dimensions = [setting.width] * 3, math.prod(setting.sample_shape)
    return (mlp(setting.latent_size, *hidden, dimensions),
            nn.Sequential(*mlp(dimensions, *hidden, 1), nn.Flatten(0)))


class MatrixProducts:
    """PyTorch's rate of matrix products."""

    device = "cuda" if torch.cuda.is_available() else "cpu"

    @torch.no_grad()
    def rate(self, precision: str, shapes: list[tuple[int, int, int]]) -> float:
        """The highest rate over the shapes (rows, inner, columns), in operations per second."""
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        return max(best_rate(partial(self._multiply, dtype, *shape), shape) for shape in shapes)

    def _multiply(self, dtype, rows: int, inner: int, columns: int, count: int) -> None:
        a, b = self._operands(dtype, rows, inner, columns)
        for _ in range(count):
            a @ b
        if self.device == "cuda":
            torch.cuda.synchronize()

    @staticmethod
    @lru_cache
    def _operands(dtype, rows: int, inner: int, columns: int) -> tuple[Tensor, Tensor]:
        device = MatrixProducts.device
        return (torch.randn(rows, inner, device=device).to(dtype),
                torch.randn(inner, columns, device=device).to(dtype))
