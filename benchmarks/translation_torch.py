"""Networks that translate images, in PyTorch, NCHW, written from the papers' appendices.

The U-Net and the patch critic of Isola et al. 2017 (arXiv 1611.07004, appendix 6.1), the residual
generator of Zhu et al. 2017 (arXiv 1703.10593, appendix 7.2). Each image is normalised by itself: what
batch normalisation is for the batches of one that both are trained with.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


def _norm(width: int) -> nn.Module:
    return nn.InstanceNorm2d(width, affine=True)


class UNet(nn.Module):
    """C64-C128-C256-C512-... halve an image, and as many transposed convolutions double it again.

    Each of these sees, beside what comes from below, what went into the halving that it undoes. The
    first halving and the last are not normalised, and dropout is left out, which draws in no one order.
    """

    def __init__(self, channels: int, outputs: int, width: int, stages: int):
        super().__init__()
        widths = [width * min(2**stage, 8) for stage in range(stages)]
        self.down = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2, 1, bias=False)
            for before, after in zip([channels, *widths], widths, strict=False))
        self.down_norms = nn.ModuleList(_norm(after) for after in widths[1:-1])
        inputs = [widths[-1], *(2 * after for after in widths[-2::-1])]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=index == stages - 1)
            for index, (before, after) in enumerate(
                zip(inputs, [*widths[-2::-1], outputs], strict=True)))
        self.up_norms = nn.ModuleList(_norm(after) for after in widths[-2::-1])

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] to [batch, outputs, height, width]."""
        x, seen = self.down[0](x), []
        for convolution, norm in zip(list(self.down)[1:], [*self.down_norms, nn.Identity()],
                                     strict=True):
            seen.append(x)
            x = norm(convolution(F.leaky_relu(x, SLOPE)))
        for convolution, norm in zip(self.up, self.up_norms, strict=False):
            x = torch.cat([norm(convolution(F.relu(x))), seen.pop()], 1)
        return torch.tanh(self.up[-1](F.relu(x)))


class Residual(nn.Module):
    """x + norm(3x3(relu(norm(3x3(x))))), with reflected borders."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, bias=False) for _ in range(2))
        self.first_norm, self.second_norm = _norm(width), _norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, width, height, width] to the same shape."""
        inner = F.relu(self.first_norm(self.first(F.pad(x, (1, 1, 1, 1), "reflect"))))
        return x + self.second_norm(self.second(F.pad(inner, (1, 1, 1, 1), "reflect")))


class ResNet(nn.Module):
    """c7s1-64, d128, d256, so many R256, u128, u64, c7s1-3."""

    def __init__(self, channels: int, outputs: int, width: int, blocks: int):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(channels, width, 7, bias=False), _norm(width)
        self.down = nn.ModuleList(nn.Conv2d(k * width, 2 * k * width, 3, 2, 1, bias=False)
                                  for k in (1, 2))
        self.down_norms = nn.ModuleList(_norm(2 * k * width) for k in (1, 2))
        self.blocks = nn.ModuleList(Residual(4 * width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * k * width, k * width, 3, 2, 1, 1, bias=False)
                                for k in (2, 1))
        self.up_norms = nn.ModuleList(_norm(k * width) for k in (2, 1))
        self.last = nn.Conv2d(width, outputs, 7)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] to [batch, outputs, height, width]."""
        x = F.relu(self.first_norm(self.first(F.pad(x, (3, 3, 3, 3), "reflect"))))
        for convolution, norm in zip(self.down, self.down_norms, strict=True):
            x = F.relu(norm(convolution(x)))
        for block in self.blocks:
            x = block(x)
        for convolution, norm in zip(self.up, self.up_norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return torch.tanh(self.last(F.pad(x, (3, 3, 3, 3), "reflect")))


class PatchCritic(nn.Module):
    """C64-C128-C256-C512, the last of them and the scores' layer with stride 1: 70x70 for 3 halvings."""

    def __init__(self, channels: int, width: int, halvings: int):
        super().__init__()
        widths = [width * min(2**stage, 8) for stage in range(halvings + 1)]
        self.first = nn.Conv2d(channels, width, 4, 2, 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 4, 2 if index < halvings - 1 else 1, 1, bias=False)
            for index, (before, after) in enumerate(pairwise(widths)))
        self.norms = nn.ModuleList(_norm(after) for after in widths[1:])
        self.last = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [batch, channels, height, width] to scores, [batch, patches down, patches across]."""
        x = F.leaky_relu(self.first(x), SLOPE)
        for convolution, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(convolution(x)), SLOPE)
        return self.last(x).squeeze(1)
