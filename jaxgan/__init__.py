"""Generative adversarial networks in JAX and Flax, as pure functions."""

from jaxgan.gan import GAN, GANState, generate, judge, sample
from jaxgan.loops import Game, run_steps
from jaxgan.networks import NetworkState, network_state, update
from jaxgan.parallel import data_parallel
from jaxgan.steps import critic_step, game, generator_step, init_state, train_step, train_steps
from jaxgan.terms import Term, Value
from jaxgan.types import Batch, WithHeads

__version__ = "0.1.0"

__all__ = ["GAN", "Batch", "GANState", "Game", "NetworkState", "Term", "Value", "WithHeads",
           "critic_step", "data_parallel", "game", "generate", "generator_step", "init_state", "judge",
           "network_state", "run_steps", "sample", "train_step", "train_steps",
           "update"]
