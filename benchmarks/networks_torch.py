"""The networks and a WGAN-GP iteration as a PyTorch user writes them: NCHW, eager, autograd.

`torch.compile` has no double backward, which the gradient penalty needs: where it is asked for, the
generator and the critic's scores are compiled, and the penalty's critic stays eager.
"""

import math
import time
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.settings import Setting
from benchmarks.timing import best_rate


class DCGANGenerator(nn.Module):
    """A dense layer, then 5x5 transposed convolutions of stride 2, for 28x28 or 32x32 images."""

    def __init__(self, setting: Setting):
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

    def __init__(self, setting: Setting):
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

    def __init__(self, setting: Setting):
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

    def __init__(self, setting: Setting):
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


def make_networks(setting: Setting) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic of a setting."""
    if setting.family == "dcgan":
        return DCGANGenerator(setting), DCGANCritic(setting)
    if setting.family == "resnet":
        return ResNetGenerator(setting), ResNetCritic(setting)
    hidden, dimensions = [setting.width] * 3, math.prod(setting.sample_shape)
    return (mlp(setting.latent_size, *hidden, dimensions),
            nn.Sequential(*mlp(dimensions, *hidden, 1), nn.Flatten(0)))


class Training:
    """WGAN-GP in PyTorch.

    Args:
        setting: what to train.
        precision: "float32", "tf32", or "bfloat16" for autocast.
        compiled: whether to use `torch.compile`.
    """

    def __init__(self, setting: Setting, precision: str = "float32", compiled: bool = False):
        self.setting = setting
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.autocast = torch.autocast(self.device, dtype=torch.bfloat16,
                                       enabled=precision == "bfloat16")
        torch.manual_seed(0)
        self.generator, self.critic = (net.to(self.device) for net in make_networks(setting))
        self.generate, self.score = self.generator, self.critic
        if compiled:
            torch._dynamo.config.recompile_limit = 64  # two networks, each with and without gradients
            self.generate, self.score = torch.compile(self.generator), torch.compile(self.critic)
        betas = (setting.beta1, setting.beta2)
        self.optimizers = [torch.optim.Adam(net.parameters(), setting.learning_rate, betas)
                           for net in (self.generator, self.critic)]
        self.schedules = [] if not setting.decay_steps else [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, setting.decay_steps)
            for optimizer in self.optimizers]
        self.data = self._make_data()

    def build(self) -> dict[str, float]:
        """Runs one iteration; returns its seconds, with the compilation if there is any."""
        started = time.perf_counter()
        self.advance(1)
        return {"compile": time.perf_counter() - started}

    def advance(self, count: int) -> None:
        """Runs `count` iterations and waits for them."""
        for _ in range(count):
            self._iterate()
        self._wait()

    @torch.no_grad()
    def sample(self, count: int) -> None:
        """Draws `count` batches of samples and waits for them."""
        self.generator.eval()
        for _ in range(count):
            with self.autocast:
                self.generate(self._latents(self.setting.sampling_batch))
        self._wait()
        self.generator.train()

    def device_memory(self) -> int:
        """The device's peak, in bytes; 0 where it isn't known."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0

    def _iterate(self) -> None:
        setting = self.setting
        generator_optimizer, critic_optimizer = self.optimizers
        self.critic.requires_grad_(True)
        for _ in range(setting.n_critic):
            real = self._draw(setting.batch_size)
            with self.autocast:
                with torch.no_grad():
                    fake = self.generate(self._latents(setting.batch_size)).float()
                loss = self.score(fake).float().mean() - self.score(real).float().mean()
                loss = loss + setting.penalty_weight * self._penalty(real, fake)
            critic_optimizer.zero_grad()
            loss.backward()
            critic_optimizer.step()

        self.critic.requires_grad_(False)
        with self.autocast:
            latents = self._latents(setting.generator_batches * setting.batch_size)
            loss = -self.score(self.generate(latents)).float().mean()
        generator_optimizer.zero_grad()
        loss.backward()
        generator_optimizer.step()
        for schedule in self.schedules:
            schedule.step()

    def _penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        weights = torch.rand(len(real), *[1] * (real.ndim - 1), device=self.device)
        samples = (fake + weights * (real - fake)).requires_grad_(True)
        gradient, = torch.autograd.grad(self.critic(samples).sum(), samples, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def _make_data(self) -> Tensor:
        if self.setting.family == "mlp":  # the centres of 25 Gaussians
            ticks = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0], device=self.device) / 2.828
            return torch.cartesian_prod(ticks, ticks)
        height, width, channels = self.setting.sample_shape
        return torch.randint(256, (self.setting.examples, channels, height, width),
                             dtype=torch.uint8).to(self.device)

    def _draw(self, count: int) -> Tensor:
        samples = self.data[torch.randint(len(self.data), (count,), device=self.device)].float()
        if self.setting.family == "mlp":
            return samples + 0.05 / 2.828 * torch.randn_like(samples)
        if self.setting.dequantize:
            return 2 * (samples / 256 - 0.5) + torch.rand_like(samples) / 128
        low, high = self.setting.value_range
        return samples / 255 * (high - low) + low

    def _latents(self, count: int) -> Tensor:
        return torch.randn(count, self.setting.latent_size, device=self.device)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


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
