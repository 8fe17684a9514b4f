"""Training as a PyTorch user writes it: eager, autograd, Adam; a class for each kind of GAN.

`torch.compile` has no double backward, which the gradient penalty needs: where it is asked for, the
generator and the critic's scores are compiled, and the penalty's critic stays eager. The networks that
are not WGAN-GP's are measured without it.
"""

import abc
import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from benchmarks import gat_torch, r3gan_torch, settings, stylegan2_torch, translation_torch
from benchmarks.networks_torch import make_networks
from benchmarks.settings import Setting
from benchmarks.timing import Unavailable


class Loop(abc.ABC):
    """What all of them share: devices, precision, data, clocks.

    Args:
        setting: what to train.
        precision: "float32", "tf32", or "bfloat16" for autocast.
    """

    def __init__(self, setting: Setting, precision: str = "float32"):
        self.setting = setting
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        self.autocast = torch.autocast(self.device, dtype=torch.bfloat16,
                                       enabled=precision == "bfloat16")
        torch.manual_seed(0)
        self.generator, self.critic = (net.to(self.device) for net in self.make_networks())
        self.sampled = self.generator
        self.generator_optimizer, self.critic_optimizer = self.make_optimizers()
        self.data = self.make_data()
        self.step = 0

    @abc.abstractmethod
    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """The generator and the critic."""

    def make_optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """The generator's and the critic's."""
        betas = (self.setting.beta1, self.setting.beta2)
        generator, critic = (torch.optim.Adam(net.parameters(), self.setting.learning_rate, betas)
                             for net in (self.generator, self.critic))
        return generator, critic

    def make_data(self) -> Tensor:
        """Noise, uint8 [examples, channels, height, width], on the device."""
        return self._noise(self.setting.examples)

    @abc.abstractmethod
    def iterate(self) -> None:
        """One iteration: the critic's updates and the generator's."""

    def inputs(self, count: int) -> Tensor:
        """What the generator makes samples of: latents, [count, latent_size]."""
        return torch.randn(count, self.setting.latent_size, device=self.device)

    def draw(self) -> Tensor:
        """A batch of samples in the range of their values."""
        return self._scaled(self._drawn(self.data))

    def build(self) -> dict[str, float]:
        """Runs one iteration; returns its seconds, with the compilation if there is any."""
        started = time.perf_counter()
        self.advance(1)
        return {"compile": time.perf_counter() - started}

    def advance(self, count: int) -> None:
        """Runs `count` iterations and waits for them."""
        for _ in range(count):
            self.iterate()
            self.step += 1
        self._wait()

    @torch.no_grad()
    def sample(self, count: int) -> None:
        """Draws `count` batches of samples and waits for them."""
        self.sampled.eval()
        for _ in range(count):
            with self.autocast:
                self.generate(self.inputs(self.setting.sampling_batch))
        self._wait()
        self.sampled.train()

    def generate(self, inputs: Tensor) -> Tensor:
        """Samples, drawn outside of training."""
        return self.sampled(inputs)

    def device_memory(self) -> int:
        """The device's peak, in bytes; 0 where it isn't known."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0

    def _noise(self, count: int) -> Tensor:
        height, width, channels = self.setting.sample_shape
        return torch.randint(256, (count, channels, height, width), dtype=torch.uint8).to(self.device)

    def _drawn(self, data: Tensor) -> Tensor:
        return data[torch.randint(len(data), (self.setting.batch_size,), device=self.device)].float()

    def _scaled(self, samples: Tensor) -> Tensor:
        low, high = self.setting.value_range
        return samples / 255 * (high - low) + low

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


class WGANGP(Loop):
    """Gulrajani et al. 2017 (arXiv 1704.00028).

    Args:
        setting: what to train.
        precision: "float32", "tf32", or "bfloat16" for autocast.
        compiled: whether to use `torch.compile`.
    """

    setting: settings.WGANGP

    def __init__(self, setting: Setting, precision: str = "float32", compiled: bool = False):
        super().__init__(setting, precision)
        self.generated, self.score = self.generator, self.critic
        if compiled:
            torch._dynamo.config.recompile_limit = 64  # two networks, each with and without gradients
            self.generated, self.score = torch.compile(self.generator), torch.compile(self.critic)
        self.schedules = [] if not self.setting.decay_steps else [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, self.setting.decay_steps)
            for optimizer in (self.generator_optimizer, self.critic_optimizer)]

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """See `Loop`."""
        return make_networks(self.setting)

    def make_data(self) -> Tensor:
        """The images, or the centres of 25 Gaussians."""
        if self.setting.family != "mlp":
            return super().make_data()
        ticks = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0], device=self.device) / 2.828
        return torch.cartesian_prod(ticks, ticks)

    def draw(self) -> Tensor:
        """See `Loop`."""
        samples = self._drawn(self.data)
        if self.setting.family == "mlp":
            return samples + 0.05 / 2.828 * torch.randn_like(samples)
        if self.setting.dequantize:
            return 2 * (samples / 256 - 0.5) + torch.rand_like(samples) / 128
        return self._scaled(samples)

    def generate(self, inputs: Tensor) -> Tensor:
        """See `Loop`."""
        return self.generated(inputs)

    def iterate(self) -> None:
        """See `Loop`."""
        setting = self.setting
        self.critic.requires_grad_(True)
        for _ in range(setting.n_critic):
            real = self.draw()
            with self.autocast:
                with torch.no_grad():
                    fake = self.generated(self.inputs(setting.batch_size)).float()
                loss = self.score(fake).float().mean() - self.score(real).float().mean()
                loss = loss + setting.penalty_weight * self._penalty(real, fake)
            minimize(self.critic_optimizer, loss)

        self.critic.requires_grad_(False)
        with self.autocast:
            latents = self.inputs(setting.generator_batches * setting.batch_size)
            loss = -self.score(self.generated(latents)).float().mean()
        minimize(self.generator_optimizer, loss)
        for schedule in self.schedules:
            schedule.step()

    def _penalty(self, real: Tensor, fake: Tensor) -> Tensor:
        weights = torch.rand(len(real), *[1] * (real.ndim - 1), device=self.device)
        samples = (fake + weights * (real - fake)).requires_grad_(True)
        gradient, = torch.autograd.grad(self.critic(samples).sum(), samples, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


class R3GAN(Loop):
    """Huang et al. 2024 (arXiv 2501.05441): pairs of scores, R1 and R2 in every update, an average.

    As in the authors' code the penalties are of the scores that the loss is of.
    """

    setting: settings.R3GAN

    def __init__(self, setting: Setting, precision: str = "float32"):
        super().__init__(setting, precision)
        self.sampled = copy.deepcopy(self.generator)

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """See `Loop`."""
        setting = self.setting
        widths, cardinalities = ([int(number) for number in numbers.split(",")]
                                 for numbers in (setting.width, setting.cardinality))
        shape = {"widths": widths, "blocks": [setting.blocks] * len(widths),
                 "cardinalities": cardinalities, "expansion": setting.expansion,
                 "channels": setting.sample_shape[2]}
        return (r3gan_torch.Generator(**shape, latent_size=setting.latent_size),
                r3gan_torch.Critic(**shape))

    def iterate(self) -> None:
        """See `Loop`."""
        setting, now = self.setting, self._scheduled(self.step)
        for optimizer in (self.generator_optimizer, self.critic_optimizer):
            optimizer.param_groups[0].update(
                lr=now(setting.learning_rate, setting.final_learning_rate),
                betas=(setting.beta1, now(setting.beta2, setting.final_beta2)))

        real = self.draw().requires_grad_(True)
        self.critic.requires_grad_(True)
        with self.autocast:
            with torch.no_grad():
                fake = self.generator(self.inputs(setting.batch_size)).float()
            fake.requires_grad_(True)
            real_scores, fake_scores = self.critic(real).float(), self.critic(fake).float()
            loss = F.softplus(fake_scores - real_scores).mean()
            gamma = now(setting.penalty_weight, setting.final_penalty_weight)
            loss = loss + gamma / 2 * (steepness(real_scores, real) + steepness(fake_scores, fake))
        minimize(self.critic_optimizer, loss)

        self.critic.requires_grad_(False)
        with self.autocast:
            with torch.no_grad():
                real_scores = self.critic(real).float()
            fake_scores = self.critic(self.generator(self.inputs(setting.batch_size))).float()
            loss = F.softplus(real_scores - fake_scores).mean()
        minimize(self.generator_optimizer, loss)
        now = self._scheduled(self.step + 1)
        average(self.sampled, self.generator, setting.batch_size,
                now(setting.ema_half_life, setting.final_ema_half_life))

    def _scheduled(self, step: int) -> Callable[[float, float], float]:
        """Returns first value, last value -> the one after so many iterations."""
        share = 0.5 + 0.5 * math.cos(math.pi * min(step / self.setting.decay_steps, 1.0))
        return lambda first, last: last + (first - last) * share


class StyleGAN2(Loop):
    """Karras et al. 2020 (arXiv 1912.04958): R1 and path lengths now and then, mixed styles, an average.

    Each regularisation is part of the update in which it is due, R1 of the scores that the loss is of;
    Adam is corrected for it (appendix B there).
    """

    setting: settings.StyleGAN2

    def __init__(self, setting: Setting, precision: str = "float32"):
        super().__init__(setting, precision)
        self.sampled = copy.deepcopy(self.generator)
        self.mean_length = torch.zeros((), device=self.device)
        self.noise = {"random": "random", "constant": "const"}[self.setting.noise]

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """See `Loop`."""
        setting = self.setting
        size, _, channels = setting.sample_shape
        shape = {"base": setting.base, "widest": setting.width, "channels": channels}
        return (stylegan2_torch.Generator(
            size, **shape, mapping_layers=setting.mapping_layers, latent_size=setting.latent_size,
            style_size=setting.w_size), stylegan2_torch.Discriminator(
            size, **shape, group_size=setting.group_size))

    def make_optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """See `Loop`."""
        def adam(network: nn.Module, every: int) -> torch.optim.Optimizer:
            share, setting = every / (every + 1), self.setting
            return torch.optim.Adam(network.parameters(), share * setting.learning_rate,
                                    (setting.beta1**share, setting.beta2**share))

        return (adam(self.generator, self.setting.path_every),
                adam(self.critic, self.setting.penalty_every))

    def iterate(self) -> None:
        """See `Loop`."""
        setting = self.setting
        is_due = self.step % setting.penalty_every == 0
        real = self.draw().requires_grad_(is_due)
        self.critic.requires_grad_(True)
        with self.autocast:
            with torch.no_grad():
                fake = self._images(self._styles(self.inputs(setting.batch_size))).float()
            real_scores, fake_scores = self.critic(real).float(), self.critic(fake).float()
            loss = F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()
            if is_due:
                weight = setting.penalty_every * setting.penalty_weight / 2
                loss = loss + weight * steepness(real_scores, real)
        minimize(self.critic_optimizer, loss)

        self.critic.requires_grad_(False)
        with self.autocast:
            latents = self.inputs(setting.batch_size)
            loss = F.softplus(-self.critic(self._images(self._styles(latents))).float()).mean()
            if self.step % setting.path_every == 0:
                lengths = self._path_lengths(latents[::2])
                weight = setting.path_every * setting.path_weight
                loss = loss + weight * (lengths - self.mean_length).square().mean()
                self.mean_length.lerp_(lengths.detach().mean(), 0.01)
        minimize(self.generator_optimizer, loss)
        average(self.sampled, self.generator, setting.batch_size, setting.ema_half_life)

    def _styles(self, latents: Tensor) -> Tensor:
        mapping = self.generator.mapping
        ws = mapping(latents)
        if torch.rand(()) >= self.setting.style_mixing:
            return ws
        first = int(torch.randint(1, mapping.num_ws, ()))
        others = mapping(torch.randn_like(latents), update_mean=False)
        return torch.cat([ws[:, :first], others[:, first:]], 1)

    def _images(self, ws: Tensor) -> Tensor:
        return self.generator.synthesis(ws, self.noise)

    def _path_lengths(self, latents: Tensor) -> Tensor:
        ws = self._styles(latents)
        images = self._images(ws).float()
        noise = torch.randn_like(images) / math.sqrt(images[0, 0].numel())
        gradient, = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        return gradient.float().square().sum(2).mean(1).sqrt()


class Pix2Pix(Loop):
    """Isola et al. 2017 (arXiv 1611.07004); both updates are of one translation, as in its code."""

    setting: settings.Pix2Pix

    def __init__(self, setting: Setting, precision: str = "float32"):
        super().__init__(setting, precision)
        self.partners = self._noise(setting.examples)
        self.translated = self._scaled(self._noise(setting.sampling_batch).float())
        self.schedules = [fall(optimizer, self.setting.decay_steps)
                          for optimizer in (self.generator_optimizer, self.critic_optimizer)]

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """See `Loop`."""
        setting, channels = self.setting, self.setting.sample_shape[2]
        return (translation_torch.UNet(channels, channels, setting.width, setting.stages),
                translation_torch.PatchCritic(2 * channels, setting.width, setting.halvings))

    def inputs(self, count: int) -> Tensor:
        """Images to translate, [count, channels, height, width]: always the same."""
        return self.translated[:count]

    def draw_pair(self) -> tuple[Tensor, Tensor]:
        """Images to translate and their partners."""
        index = torch.randint(len(self.data), (self.setting.batch_size,), device=self.device)
        source, target = (self._scaled(data[index].float()) for data in (self.data, self.partners))
        return source, target

    def iterate(self) -> None:
        """See `Loop`."""
        source, real = self.draw_pair()
        self.critic.requires_grad_(True)
        with self.autocast:
            fake = self.generator(source).float()
            real_scores, fake_scores = (self.critic(torch.cat([images, source], 1)).float()
                                        for images in (real, fake.detach()))
            loss = F.softplus(-real_scores).mean() + F.softplus(fake_scores).mean()
        minimize(self.critic_optimizer, loss)

        self.critic.requires_grad_(False)
        with self.autocast:
            loss = F.softplus(-self.critic(torch.cat([fake, source], 1)).float()).mean()
            loss = loss + self.setting.l1_weight * F.l1_loss(fake, real)
        minimize(self.generator_optimizer, loss)
        for schedule in self.schedules:
            schedule.step()


class CycleGAN(Loop):
    """Zhu et al. 2017 (arXiv 1703.10593); both updates are of the same translations, as in its code."""

    setting: settings.CycleGAN
    generator: nn.ModuleDict
    critic: nn.ModuleDict

    def __init__(self, setting: Setting, precision: str = "float32"):
        super().__init__(setting, precision)
        self.targets = self._noise(setting.examples)
        self.translated = self._scaled(self._noise(setting.sampling_batch).float())
        self.histories = {domain: History(self.setting.history_size) for domain in self.critic}
        self.schedules = [fall(optimizer, self.setting.decay_steps)
                          for optimizer in (self.generator_optimizer, self.critic_optimizer)]

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """A generator into each of the two domains, and the critic of each."""
        setting, channels, domains = self.setting, self.setting.sample_shape[2], ("source", "target")
        generators = {domain: translation_torch.ResNet(channels, channels, setting.width, setting.blocks)
                      for domain in domains}
        critics = {domain: translation_torch.PatchCritic(channels, setting.width, setting.halvings)
                   for domain in domains}
        return nn.ModuleDict(generators), nn.ModuleDict(critics)

    def inputs(self, count: int) -> Tensor:
        """Images to translate, [count, channels, height, width]: always the same."""
        return self.translated[:count]

    def generate(self, inputs: Tensor) -> Tensor:
        """See `Loop`."""
        return self.generator["target"](inputs)

    def draw_pair(self) -> tuple[Tensor, Tensor]:
        """Images of the source and of the target, which have nothing to do with each other."""
        return self.draw(), self._scaled(self._drawn(self.targets))

    def iterate(self) -> None:
        """See `Loop`."""
        source, target = self.draw_pair()
        self.critic.requires_grad_(True)
        with self.autocast:
            fake_source = self.generator["source"](target).float()
            fake_target = self.generator["target"](source).float()
            loss = (self._critic_loss("source", source, fake_source)
                    + self._critic_loss("target", target, fake_target))
        minimize(self.critic_optimizer, loss)

        self.critic.requires_grad_(False)
        with self.autocast:
            loss = (self._generator_loss("source", source, fake_source, fake_target)
                    + self._generator_loss("target", target, fake_target, fake_source))
        minimize(self.generator_optimizer, loss)
        for schedule in self.schedules:
            schedule.step()

    def _critic_loss(self, domain: str, real: Tensor, fake: Tensor) -> Tensor:
        critic = self.critic[domain]
        real_scores = critic(real).float()
        fake_scores = critic(self.histories[domain].shown(fake.detach())).float()
        return (real_scores - 1).square().mean() / 2 + fake_scores.square().mean() / 2

    def _generator_loss(self, domain: str, real: Tensor, fake: Tensor, translated: Tensor) -> Tensor:
        """Of the generator into a domain; `translated` is what the other one made of `real`."""
        setting, generator = self.setting, self.generator[domain]
        scores = self.critic[domain](fake).float()
        loss = setting.adversarial_weight * (1 - scores).square().mean() / 2
        loss = loss + setting.cycle_weight * F.l1_loss(generator(translated).float(), real)
        if setting.identity_weight:
            loss = loss + setting.identity_weight * F.l1_loss(generator(real).float(), real)
        return loss


class GAT(Loop):
    """GAT, 2025 (arXiv 2509.24935): several outputs with noise, R1 and R2 by differences, an average.

    The differences are from the scores that the loss is of.
    """

    setting: settings.Transformers

    def __init__(self, setting: Setting, precision: str = "float32"):
        super().__init__(setting, precision)
        self.sampled = copy.deepcopy(self.generator)
        place = torch.linspace(0.0, 1.0, self.setting.outputs, device=self.device)
        self.levels = 1.01 - 0.125 ** (1.0 - place)

    def make_networks(self) -> tuple[nn.Module, nn.Module]:
        """See `Loop`."""
        setting = self.setting
        size, _, channels = setting.sample_shape
        shape = (size, channels, setting.patch, setting.depth, setting.width, setting.heads,
                 setting.classes)
        networks = (gat_torch.Generator(*shape, setting.latent_size, setting.outputs),
                    gat_torch.Critic(*shape, setting.outputs, setting.class_width))
        for network in networks:
            for module in network.modules():
                if isinstance(module, gat_torch.Attention):
                    module.fused = True
        return networks

    def draw_labels(self, count: int) -> Tensor:
        """Classes, int64 [count]."""
        return torch.randint(self.setting.classes, (count,), device=self.device)

    def generate(self, inputs: Tensor) -> Tensor:
        """See `Loop`."""
        return self.sampled(inputs, self.draw_labels(len(inputs)))[:, -1]

    def iterate(self) -> None:
        """See `Loop`."""
        setting = self.setting
        real = self.draw()[:, None].expand(-1, setting.outputs, -1, -1, -1)
        labels = self.draw_labels(setting.batch_size)
        self.critic.requires_grad_(True)
        with self.autocast:
            with torch.no_grad():
                fake = self.generator(self.inputs(setting.batch_size), labels).float()
            real_scores, real_slope = self._judged(real, labels)
            fake_scores, fake_slope = self._judged(fake, labels)
            loss = F.softplus(fake_scores - real_scores).mean()
            loss = loss + setting.penalty_weight / 2 * (real_slope + fake_slope)
        minimize(self.critic_optimizer, loss, setting.max_gradient_norm)

        self.critic.requires_grad_(False)
        with self.autocast:
            with torch.no_grad():
                real_scores = self.critic(self._shown(real), labels).float()
            fake = self.generator(self.inputs(setting.batch_size), labels)
            fake_scores = self.critic(self._shown(fake), labels).float()
            loss = F.softplus(real_scores - fake_scores).mean()
        minimize(self.generator_optimizer, loss, setting.max_gradient_norm)
        average(self.sampled, self.generator, setting.batch_size,
                setting.batch_size * math.log(0.5) / math.log(setting.ema_decay))

    def _judged(self, samples: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Scores, and the mean square of their slopes along random directions."""
        step, noises = self.setting.finite_difference, self._noises(samples)
        scores = self.critic(self._shown(samples, noises), labels).float()
        moved = samples + step * torch.randn_like(samples)
        there = self.critic(self._shown(moved, noises), labels).float()
        return scores, ((there - scores) / step).square().mean()

    def _shown(self, samples: Tensor, noises: Tensor | None = None) -> Tensor:
        """Each output with a noise of its level."""
        noises = self._noises(samples) if noises is None else noises
        return (1 - self.levels)[:, None, None, None] * samples + noises

    def _noises(self, samples: Tensor) -> Tensor:
        """One chain: from the last output on, each has what the next one's has, and more."""
        noise, noises, level = torch.zeros_like(samples[:, 0]), [], self.levels.new_zeros(())
        for higher in self.levels.flip(0):
            kept = (1 - higher) / (1 - level)
            added = (higher**2 - (kept * level)**2).sqrt()
            noise, level = kept * noise + added * torch.randn_like(noise), higher
            noises.append(noise)
        return torch.stack(noises[::-1], 1)


class History:
    """Earlier translations, shown in place of half of the new ones (Shrivastava et al. 2017).

    Args:
        size: how many are kept; with none, the new ones are shown.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: list[Tensor] = []

    def shown(self, images: Tensor) -> Tensor:
        """What is shown for new images, [batch, channels, height, width], of which some are kept."""
        return torch.stack([self._shown(image) for image in images])

    def _shown(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image)
            return image
        if not self.size or torch.rand(()) < 0.5:
            return image
        index = int(torch.randint(self.size, ()))
        old, self.images[index] = self.images[index], image
        return old


def training(setting: Setting, precision: str = "float32", compiled: bool = False) -> Loop:
    """What trains a setting.

    Raises:
        Unavailable: `torch.compile` is asked of networks that are measured without it.
    """
    if isinstance(setting, settings.WGANGP):
        return WGANGP(setting, precision, compiled)
    if compiled:
        raise Unavailable("torch.compile is measured for the networks of WGAN-GP alone")
    return {"r3gan": R3GAN, "stylegan2": StyleGAN2, "pix2pix": Pix2Pix, "cyclegan": CycleGAN,
            "transformers": GAT}[setting.family](setting, precision)


def minimize(optimizer: torch.optim.Optimizer, loss: Tensor, most: float = 0.0) -> None:
    """An update by a loss's gradient, which is scaled down to a norm of `most` unless that is 0."""
    optimizer.zero_grad()
    loss.backward()
    if most:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], most)
    optimizer.step()


def fall(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Keeps the learning rate for half of the steps and then takes it linearly to zero."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(max(2 - 2 * step / steps, 0.0), 1.0))


def steepness(scores: Tensor, samples: Tensor) -> Tensor:
    """The mean square norm of the scores' gradient by the samples, to be differentiated again."""
    gradient, = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


@torch.no_grad()
def average(averaged: nn.Module, network: nn.Module, batch_size: int, half_life: float) -> None:
    """Moves an average, which forgets half of what it holds in `half_life` images, to a network."""
    def tensors(module: nn.Module) -> list[Tensor]:
        return [*module.parameters(), *module.buffers()]

    decay = 0.5 ** (batch_size / max(half_life, 1e-8))
    get_ema_multi_avg_fn(decay)(tensors(averaged), tensors(network), 0)
