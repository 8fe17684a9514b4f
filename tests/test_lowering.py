"""Whole training steps, lowered for the accelerators that aren't here: that nothing in them is for a CPU
alone, and that the precision asked for is the one of the products. More it doesn't show.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import commands, opening
from jaxgan.steps import game as game_of
from jaxgan.training import example_batch
from jaxgan.types import Batch

PLATFORMS = ("cuda", "rocm", "tpu")
# Small networks, and of data that aren't here the shape of a sample.
TINY = {
    "adversarial_flow": ({"width": 8, "heads": 1, "depth": 1}, None),
    "arrays": ({"width": 4, "file": "points.npy"}, None),
    "autoencoder": ({"width": "4,4", "groups": 2, "critic_width": 4}, None),
    "cifar10": ({"width": 4}, (8, 8, 3)),
    "conditional": ({"width": 4}, None),
    "cyclegan": ({"width": 4, "blocks": 1, "image_size": 16}, None),
    "detection": ({"width": 4}, None),
    "digits": ({"width": 4}, None),
    "gat": ({"width": 16, "depth": 2, "outputs": 2, "classes": 10}, None),
    "drifting": ({"width": 4, "space": "pixels"}, None),
    "gaussians": ({"width": 4}, None),
    "images": ({"preset": "paper", "width": 4, "model": "dcgan"}, (8, 8, 3)),
    "inpainting": ({"width": 4}, None),
    "mnist": ({"width": 4}, (28, 28, 1)),
    "multitask": ({"width": 4}, None),
    "pix2pix": ({"width": 4}, None),
    "r3gan": ({"width": "8,8", "classes": 10, "image_size": 8, "augment": "ada"}, None),
    "stacked_mnist": ({"width": 4}, (28, 28, 3)),
    "stylegan2": ({"width": 8, "base": 32, "w_size": 8, "image_size": 8, "augment": "ada"}, None),
    "text": ({"width": 4, "length": 8}, None),
    "wasserstein": ({"width": 4, "pair": "2,4"}, None),
}


def lowered(name, precision):
    """The texts of the program of a default step, by platform."""
    experiment = opening.load(name)
    changes, shape = TINY[name]
    config = experiment.configure(**changes, precision=precision, batch_size=8)
    if shape is None:
        config = experiment.settle(config) if experiment.settle else config
        source = experiment.make_source(config)
        example, shape = example_batch(source, 8), source.sample_shape
    else:
        example = Batch(jnp.zeros((8, *shape)))
    game = game_of(experiment.make_game(config, shape))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(game.init, key, example)
    batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((config.schedule.n_critic, *x.shape), x.dtype),
                           example)
    traced = jax.jit(game.step).trace(state, batches, key)
    return {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in PLATFORMS}


def products(text):
    """The types of the operands of products and convolutions."""
    return {kind for line in text.splitlines() if "stablehlo.dot_general" in line
            or "stablehlo.convolution" in line for kind in re.findall(r"x(bf16|f32|f64)>", line.split(
                ":")[-1].split("->")[0])}


def test_every_experiment_is_here():
    assert TINY.keys() == {*commands.experiments()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [
    name if name == "gaussians" else pytest.param(name, marks=pytest.mark.slow) for name in TINY])
def test_steps_are_lowered_for_accelerators(name, precision, tmp_path, monkeypatch):
    """Without a call to the host, and with products in the precision asked for."""
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32))
    for platform, text in lowered(name, precision).items():
        assert "callback" not in text, platform
        assert "bf16" in products(text) if precision == "bfloat16" else products(text) == {"f32"}
