"""Whole training steps, lowered for the accelerators that aren't here."""

import jax
import jax.numpy as jnp
import pytest

from experiments import opening
from jaxgan.loops import Game
from jaxgan.steps import game as game_of
from jaxgan.types import Batch

pytestmark = pytest.mark.slow
TINY = {"r3gan": {"width": "8,8", "classes": 10, "augment": "ada"},
        "stylegan2": {"width": 8, "base": 32, "w_size": 8, "augment": "ada"},
        "pix2pix": {"width": 4}, "cyclegan": {"width": 4, "blocks": 1, "image_size": 16}}


def _lowered(name, platform, **changes):
    """The text of the program of a default step, in bfloat16, of tiny networks."""
    experiment = opening.load(name)
    config = experiment.configure(precision="bfloat16", **TINY[name], **changes)
    size = 16 if name in ("cyclegan", "pix2pix") else 8
    images = jax.ShapeDtypeStruct((4, size, size, 1), jnp.float32)
    condition = (images if size == 16 else
                 jax.ShapeDtypeStruct((4,), jnp.int32) if TINY[name].get("classes") else None)
    game: Game = game_of(experiment.make_game(config, (size, size, 1)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(game.init, key, Batch(images, condition))
    batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
                           Batch(images, condition))
    traced = jax.jit(game.step).trace(state, batches, key)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", TINY)
def test_steps_are_lowered_for_accelerators(name, platform):
    """Convolutions come out as such, in bfloat16, without a callback to the host."""
    text = _lowered(name, platform)
    assert "stablehlo.convolution" in text
    assert "bf16" in text
    assert "callback" not in text
