"""The networks in Flax's stock layers, and WGAN-GP as a plain jitted loop."""

import math
import time
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.networks_jaxgan import configure, device_memory
from benchmarks.settings import WGANGP, Setting
from benchmarks.timing import Unavailable

BatchNorm = partial(nn.BatchNorm, momentum=0.9)


class DCGANGenerator(nn.Module):
    """A dense layer, then 5x5 transposed convolutions of stride 2, for 28x28 or 32x32 images."""

    setting: WGANGP

    @nn.compact
    def __call__(self, latents, train=True):
        """Maps latents, [batch, latent_size], to images, [batch, height, width, channels]."""
        height, _, channels = self.setting.sample_shape
        width, small, crop = self.setting.width, -(-height // 8), -(-height // 4)
        norm = (partial(BatchNorm, use_running_average=not train) if self.setting.batch_norm
                else lambda: lambda x: x)
        x = nn.relu(norm()(nn.Dense(small**2 * 4 * width)(latents)))
        x = nn.ConvTranspose(2 * width, (5, 5), (2, 2))(x.reshape(-1, small, small, 4 * width))
        x = nn.relu(norm()(x[:, :crop, :crop]))
        x = nn.relu(norm()(nn.ConvTranspose(width, (5, 5), (2, 2))(x)))
        x = nn.ConvTranspose(channels, (5, 5), (2, 2))(x)
        return nn.sigmoid(x) if self.setting.value_range == (0.0, 1.0) else jnp.tanh(x)


class DCGANCritic(nn.Module):
    """5x5 convolutions of stride 2 with LeakyReLUs, then a dense layer."""

    setting: WGANGP

    @nn.compact
    def __call__(self, x):
        """Maps images, [batch, height, width, channels], to scores, [batch]."""
        for factor in (1, 2, 4):
            x = nn.leaky_relu(nn.Conv(factor * self.setting.width, (5, 5), (2, 2))(x), 0.2)
        return nn.Dense(1)(x.reshape(len(x), -1)).squeeze(1)


class ResidualBlock(nn.Module):
    """[BatchNorm, ReLU, 3x3 convolution] twice and a shortcut; "up" doubles, "down" halves the size."""

    width: int
    resample: str = "none"
    batch_norm: bool = False

    @nn.compact
    def __call__(self, x, train=True):
        """Maps images of features to images of features."""
        norm = (partial(BatchNorm, use_running_average=not train) if self.batch_norm
                else lambda: lambda x: x)
        y = nn.relu(norm()(x))
        y = nn.Conv(self.width, (3, 3))(upsample(y) if self.resample == "up" else y)
        y = nn.Conv(self.width, (3, 3))(nn.relu(norm()(y)))
        if self.resample == "up":
            return y + upsample(nn.Conv(self.width, (1, 1))(x))
        if self.resample == "down":
            return mean_pool(y) + nn.Conv(self.width, (1, 1))(mean_pool(x))
        return y + x


class ResNetGenerator(nn.Module):
    """A dense layer to 4x4, three blocks that double it, a 3x3 convolution, for 32x32 images."""

    setting: WGANGP

    @nn.compact
    def __call__(self, latents, train=True):
        """Maps latents, [batch, latent_size], to images, [batch, height, width, channels]."""
        height, _, channels = self.setting.sample_shape
        width, small = self.setting.width, height // 8
        x = nn.Dense(small**2 * width)(latents).reshape(-1, small, small, width)
        for _ in range(3):
            x = ResidualBlock(width, "up", batch_norm=True)(x, train)
        x = nn.relu(BatchNorm(use_running_average=not train)(x))
        return jnp.tanh(nn.Conv(channels, (3, 3))(x))


class ResNetCritic(nn.Module):
    """A block on the pixels that halves, one more that does, two that don't, mean, dense."""

    setting: WGANGP

    @nn.compact
    def __call__(self, x):
        """Maps images, [batch, height, width, channels], to scores, [batch]."""
        width = self.setting.width
        y = nn.Conv(width, (3, 3))(nn.relu(nn.Conv(width, (3, 3))(x)))
        x = mean_pool(y) + nn.Conv(width, (1, 1))(mean_pool(x))
        for resample in ("down", "none", "none"):
            x = ResidualBlock(width, resample)(x)
        return nn.Dense(1)(nn.relu(x).mean((1, 2))).squeeze(1)


class MLP(nn.Module):
    """Dense layers with ReLUs between them."""

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x, train=True):
        """Maps [batch, inputs] to [batch, outputs], or to [batch] if there is one output."""
        *hidden, outputs = self.sizes
        for width in hidden:
            x = nn.relu(nn.Dense(width)(x))
        x = nn.Dense(outputs)(x)
        return x if outputs > 1 else x.squeeze(1)


def upsample(x):
    """Doubles height and width by repeating pixels."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def mean_pool(x):
    """Halves height and width by the mean of 2x2 pixels."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def make_networks(setting: WGANGP) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic of a setting."""
    if setting.family == "dcgan":
        return DCGANGenerator(setting), DCGANCritic(setting)
    if setting.family == "resnet":
        return ResNetGenerator(setting), ResNetCritic(setting)
    hidden = (setting.width,) * 3
    return MLP((*hidden, math.prod(setting.sample_shape))), MLP((*hidden, 1))


class WGAN:
    """WGAN-GP as a function of its state, batches and a key, with its critic updates unrolled.

    Args:
        setting: what to train.

    Raises:
        Unavailable: it isn't WGAN-GP that is to be trained.
    """

    def __init__(self, setting: Setting):
        if not isinstance(setting, WGANGP):
            raise Unavailable("the networks of WGAN-GP alone are written in Flax's stock layers")
        self.setting = setting
        self.generator, self.critic = make_networks(setting)
        rate, updates = setting.learning_rate, setting.decay_steps
        self.optimizers = [
            optax.adam(optax.linear_schedule(rate, 0.0, count) if updates else rate,
                       b1=setting.beta1, b2=setting.beta2)
            for count in (updates, updates * setting.n_critic)]

    def init(self, key):
        """The first state: both networks' variables, both optimisers'."""
        generator = self.generator.init(key, self.latents(key, 1))
        critic = self.critic.init(key, jnp.zeros((1, *self.setting.sample_shape)))
        return (generator, critic, self.optimizers[0].init(generator["params"]),
                self.optimizers[1].init(critic["params"]))

    def iterate(self, state, batches, key):
        """n_critic critic updates, on a batch of samples each, and one generator update."""
        generator, critic, generator_adam, critic_adam = state
        setting = self.setting
        keys = jax.random.split(key, setting.n_critic + 1)

        def critic_loss(params, real, fake, key):
            def score(samples):
                return self.critic.apply({"params": params}, samples)

            weights = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1))
            gradients = jax.grad(lambda x: score(x).sum())(fake + weights * (real - fake))
            norms = jnp.sqrt(jnp.square(gradients).sum(range(1, real.ndim)) + 1e-12)
            penalty = jnp.square(norms - 1.0).mean()
            return score(fake).mean() - score(real).mean() + setting.penalty_weight * penalty

        def generator_loss(params, latents):
            fake, stats = self._generate({**generator, "params": params}, latents)
            return -self.critic.apply(critic, fake).mean(), stats

        for i in range(setting.n_critic):
            _, latent_key, penalty_key = jax.random.split(keys[i], 3)
            real = batches[i]
            fake, stats = self._generate(generator, self.latents(latent_key, len(real)))
            generator = {**generator, **stats}
            gradients = jax.grad(critic_loss)(critic["params"], real, fake, penalty_key)
            updates, critic_adam = self.optimizers[1].update(gradients, critic_adam)
            critic = {"params": optax.apply_updates(critic["params"], updates)}

        latents = self.latents(keys[-1], setting.generator_batches * setting.batch_size)
        gradients, stats = jax.grad(generator_loss, has_aux=True)(generator["params"], latents)
        updates, generator_adam = self.optimizers[0].update(gradients, generator_adam)
        generator = {"params": optax.apply_updates(generator["params"], updates), **stats}
        return generator, critic, generator_adam, critic_adam

    def latents(self, key, count):
        """Draws latents."""
        return jax.random.normal(key, (count, self.setting.latent_size))

    def _generate(self, variables, latents):
        return self.generator.apply(variables, latents, mutable=["batch_stats"])


class Training:
    """That iteration, jitted, with its batches drawn on the device, called in a Python loop.

    Args:
        setting: what to train.
        precision: "float32" or "tf32".

    Raises:
        Unavailable: it isn't WGAN-GP that is to be trained.
    """

    def __init__(self, setting: Setting, precision: str = "float32"):
        self.wgan = WGAN(setting)
        configure(precision)
        self.setting = setting
        self.key = jax.random.key(0)
        self.data = self._make_data()
        self.state = jax.jit(self.wgan.init)(self.key)
        self.iterate = jax.jit(self._iterate, donate_argnums=0)
        self.generate = jax.jit(lambda variables, latents: self.wgan.generator.apply(
            variables, latents, train=False))

    def build(self) -> dict[str, float]:
        """Compiles; returns its seconds."""
        started = time.perf_counter()
        self.compiled = self.iterate.lower(self.state, self.data, self.key).compile()
        return {"compile": time.perf_counter() - started}

    def advance(self, count: int) -> None:
        """Runs `count` iterations and waits for them."""
        for _ in range(count):
            self.key, key = jax.random.split(self.key)
            self.state = self.compiled(self.state, self.data, key)
        jax.block_until_ready(self.state)

    def sample(self, count: int) -> None:
        """Draws `count` batches of samples and waits for them."""
        for _ in range(count):
            self.key, key = jax.random.split(self.key)
            samples = self.generate(self.state[0], self.wgan.latents(key, self.setting.sampling_batch))
        jax.block_until_ready(samples)

    def device_memory(self) -> int:
        """The device's peak, in bytes; 0 where it isn't known."""
        return device_memory()

    def _iterate(self, state, data, key):
        keys = jax.random.split(key, self.setting.n_critic + 1)[:-1]
        batches = [self._draw(data, jax.random.split(key, 3)[0]) for key in keys]
        return self.wgan.iterate(state, batches, key)

    def _make_data(self):
        if self.setting.family == "mlp":  # the centres of 25 Gaussians
            ticks = jnp.array([-4.0, -2.0, 0.0, 2.0, 4.0]) / 2.828
            return jnp.stack(jnp.meshgrid(ticks, ticks), -1).reshape(-1, 2)
        return jnp.asarray(np.random.default_rng(0).integers(
            256, size=(self.setting.examples, *self.setting.sample_shape), dtype=np.uint8))

    def _draw(self, data, key):
        index_key, noise_key = jax.random.split(key)
        index = jax.random.randint(index_key, (self.setting.batch_size,), 0, len(data))
        samples = data[index].astype(jnp.float32)
        if self.setting.family == "mlp":
            return samples + 0.05 / 2.828 * jax.random.normal(noise_key, samples.shape)
        if self.setting.dequantize:
            return 2 * (samples / 256 - 0.5) + jax.random.uniform(noise_key, samples.shape) / 128
        low, high = self.setting.value_range
        return samples / 255 * (high - low) + low
