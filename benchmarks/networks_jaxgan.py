"""jaxgan's side: the experiments' own GANs, trained as `jaxgan.training` trains them."""

import dataclasses
import time
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.settings import WGANGP, CycleGAN, Pix2Pix, Setting, Transformers
from benchmarks.timing import best_rate
from experiments import opening
from jaxgan import GAN, Batch, game, generate, run_steps
from jaxgan.data import Source, mixture, resident, translating
from jaxgan.data.dataset import Dataset
from jaxgan.gan import draw_latents
from jaxgan.loops import Game
from jaxgan.memory import release
from jaxgan.training import example_batch, initial_state


def make_game(setting: Setting, precision: str = "float32", **changes: Any) -> GAN | Game:
    """What the setting's experiment specifies; its `--precision` is the column's.

    Args:
        setting: what to train.
        precision: "float32", "tf32" or "bfloat16".
        changes: other settings of the experiment.
    """
    experiment = opening.load(setting.experiment)
    config = experiment.configure(
        setting.preset, **setting.changes(), **changes,
        precision="bfloat16" if precision == "bfloat16" else "float32")
    made = experiment.make_game(config, setting.sample_shape)
    if isinstance(made, GAN):
        made = dataclasses.replace(made, generator_batches=setting.generator_batches)
    return made


def make_gan(setting: Setting, precision: str = "float32") -> GAN:
    """The same of a setting whose experiment has a GAN."""
    made = make_game(setting, precision)
    assert isinstance(made, GAN)
    return made


def make_source(setting: Setting) -> Source:
    """A source of the setting's shapes; images are noise, and those to be translated of two kinds."""
    if setting.family == "mlp":
        return mixture("25gaussians")
    if isinstance(setting, Pix2Pix | CycleGAN):
        return translating(_noise(setting, 1), _noise(setting, 0), paired=isinstance(setting, Pix2Pix))
    return _noise(setting, 0, dequantize=isinstance(setting, WGANGP) and setting.dequantize)


def _noise(setting: Setting, seed: int, **options) -> Source:
    images = np.random.default_rng(seed).integers(
        256, size=(setting.examples, *setting.sample_shape), dtype=np.uint8)
    classes = setting.classes if isinstance(setting, Transformers) else 1
    labels = np.arange(setting.examples, dtype=np.int32) % classes
    return resident(Dataset(setting.name, images, labels, ("noise",) * classes), labels=classes > 1,
                    value_range=setting.value_range, **options)


def configure(precision: str) -> None:
    """Sets what float32 products are made of on a GPU; compiles everything anew."""
    jax.config.update("jax_enable_compilation_cache", False)
    if jax.default_backend() != "cpu":
        jax.config.update("jax_default_matmul_precision",
                          "tensorfloat32" if precision == "tf32" else "highest")


class Training:
    """jaxgan's `run_steps`, many iterations a dispatch, with its state donated.

    Args:
        setting: what to train.
        precision: "float32", "tf32" or "bfloat16".
    """

    def __init__(self, setting: Setting, precision: str = "float32"):
        configure(precision)
        self.setting = setting
        self.made = make_game(setting, precision)
        trained, source = game(self.made), make_source(setting)
        self.key = jax.random.key(0)
        self.arrays = jax.device_put(source.arrays)
        self.state = initial_state(trained, 0, example_batch(source, setting.batch_size))
        self.steps = jax.jit(partial(run_steps, trained, source=source,
                                     batches_per_step=setting.n_critic,
                                     batch_size=setting.batch_size), donate_argnums=0)
        self.generate = jax.jit(self._generate)
        self.condition = example_batch(source, setting.sampling_batch).condition

    def build(self) -> dict[str, float]:
        """Compiles; returns its seconds."""
        started = time.perf_counter()
        self.compiled = self.steps.lower(self.state, self.arrays, self.key, jnp.int32(1)).compile()
        seconds = time.perf_counter() - started
        release()
        return {"compile": seconds}

    def advance(self, count: int) -> None:
        """Runs `count` iterations in one dispatch and waits for them."""
        self.state, _ = jax.block_until_ready(
            self.compiled(self.state, self.arrays, self.key, jnp.int32(count)))

    def sample(self, count: int) -> None:
        """Draws `count` batches of samples and waits for them."""
        for i in range(count):
            samples = self.generate(self.state, jax.random.fold_in(self.key, i), self.condition)
        jax.block_until_ready(samples)

    def device_memory(self) -> int:
        """The device's peak, in bytes; 0 where it isn't known."""
        return device_memory()

    def _generate(self, state: Any, key: jax.Array, condition: Any) -> jax.Array:
        made, count = self.made, self.setting.sampling_batch
        if not isinstance(made, GAN):
            return game(made).sample(state, key, count, condition)
        latents = (draw_latents(made, key, count) if made.latent_size is None else
                   jax.random.normal(key, (count, made.latent_size)))
        return generate(made, state, latents, condition)


class Dispatches:
    """What a call costs: one iteration a call, and many.

    Args:
        setting: what to train; a network so small that the overhead shows.
    """

    def __init__(self, setting: Setting):
        training = Training(setting)
        self.arrays, self.key, self.state = training.arrays, training.key, training.state
        self.steps = training.steps
        self.batches = Batch(jnp.zeros((setting.n_critic, setting.batch_size, *setting.sample_shape)))
        self.step = jax.jit(game(training.made).step, donate_argnums=0)

    def seconds(self, way: str, count: int) -> float:
        """Seconds of `count` iterations.

        Args:
            way: "many" for one call, "one" for a call each, "one_train_step" for a call of
                `train_step` each, with given batches; the calls of the latter two are waited for
                together.
            count: how many.
        """
        started = time.perf_counter()
        if way == "many":
            self.state, _ = self.steps(self.state, self.arrays, self.key, jnp.int32(count))
        elif way == "one":
            for _ in range(count):
                self.state, _ = self.steps(self.state, self.arrays, self.key, jnp.int32(1))
        else:
            for i in range(count):
                self.state, _ = self.step(self.state, self.batches, jax.random.fold_in(self.key, i))
        jax.block_until_ready(self.state)
        return time.perf_counter() - started


class MatrixProducts:
    """XLA's rate of matrix products, summed and returned in float32."""

    def __init__(self):
        self.product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))

    def rate(self, precision: str, shapes: list[tuple[int, int, int]]) -> float:
        """The highest rate over the shapes (rows, inner, columns), in operations per second."""
        configure(precision)
        dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
        return max(best_rate(partial(self._multiply, dtype, *shape), shape) for shape in shapes)

    def _multiply(self, dtype, rows: int, inner: int, columns: int, count: int) -> None:
        a, b = _operands(dtype, rows, inner, columns)
        for _ in range(count):
            product = self.product(a, b)
        jax.block_until_ready(product)


@lru_cache
def _operands(dtype, rows: int, inner: int, columns: int):
    return (jax.random.normal(jax.random.key(0), (rows, inner), dtype),
            jax.random.normal(jax.random.key(1), (inner, columns), dtype))


def device_memory() -> int:
    """The peak of the first device's memory, in bytes; 0 where it isn't known."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
