"""Generative adversarial networks in JAX and Flax, as pure functions."""

from jaxgan.gan import GAN, GANState, NetworkState, generate, init_state, sample
from jaxgan.parallel import data_parallel
from jaxgan.steps import critic_step, generator_step, train_step, train_steps
from jaxgan.types import Batch

__version__ = "0.1.0"

__all__ = ["GAN", "Batch", "GANState", "NetworkState", "critic_step", "data_parallel", "generate",
           "generator_step", "init_state", "sample", "train_step", "train_steps"]
