"""A GAN's networks to take along: as programs that jax runs by itself, or as named arrays."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from jaxgan.extras import needs
from jaxgan.gan import GAN, GANState, draw_latents, generate, judge, sampled_variables
from jaxgan.types import PyTree

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
ROLES = ("generator", "critic")


def program(gan: GAN, state: GANState, role: str, samples: PyTree, condition: PyTree = None, *,
            batch: int | None = None, use_ema: bool = True) -> jax.export.Exported:
    """A network with its numbers as StableHLO, in evaluation, for all of `PLATFORMS`.

    `.serialize()` gives bytes, which `jax.export.deserialize` reads where jax and flatbuffers are. The
    generator's program maps (latents, condition) to samples, in the networks' units, as
    `jaxgan.generate`; the critic's maps (samples, condition) to {"scores": ..., and each head}, as
    `jaxgan.judge`. Without a condition it isn't an argument.

    Args:
        gan: the specification.
        state: its state.
        role: "generator" or "critic".
        samples: a batch of them; only shapes and dtypes matter.
        condition: likewise; None for none.
        batch: None for any size of a batch, or the only one that the program takes.
        use_ema: False for the generator as trained, not its average.

    Raises:
        ValueError: `role` is neither, or the network depends on the size of the batch, of which none is
            given.
        MissingExtra: flatbuffers isn't installed, which programs are written with.
    """
    if role not in ROLES:
        raise ValueError(f"role must be generator or critic; got {role!r}")
    needs("flatbuffers")
    size = jax.export.symbolic_shape("batch")[0] if batch is None else batch

    def shapes(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), tree)

    if role == "generator":
        inputs = jax.eval_shape(lambda: draw_latents(gan, jax.random.key(0), 2))
        run = partial(_generated, gan, state, use_ema)
    else:
        inputs, run = samples, partial(_judged, gan, state)
    arguments = (inputs,) if condition is None else (inputs, condition)
    try:
        return jax.export.export(jax.jit(run), platforms=PLATFORMS)(*map(shapes, arguments))
    except (TypeError, jax.errors.InconclusiveDimensionOperation) as error:
        if batch is not None:
            raise
        raise ValueError(f"the {role} computes otherwise for other sizes of a batch: give one size"
                         ) from error


def _generated(gan: GAN, state: GANState, use_ema: bool, latents: PyTree, condition: PyTree = None
               ) -> PyTree:
    return generate(gan, state, latents, condition, use_ema=use_ema)


def _judged(gan: GAN, state: GANState, samples: PyTree, condition: PyTree = None) -> dict[str, Any]:
    scores, heads = judge(gan, state, samples, condition)
    return {"scores": scores, **heads}


def arrays(state: GANState, *, use_ema: bool = True) -> dict[str, np.ndarray]:
    """The networks' numbers by name, "generator/params/Conv_0/kernel": what `save_weights` takes.

    Args:
        state: a GAN's, or a game's with `generator` and `critic`.
        use_ema: False for the generator as trained, not its average.
    """
    networks = {"generator": sampled_variables(state, use_ema=use_ema), "critic": state.critic.variables}
    return {name: np.asarray(array) for name, array in flatten_dict(_plain(networks), sep="/").items()}


def _plain(tree: Any) -> Any:
    return {name: _plain(each) for name, each in tree.items()} if isinstance(tree, Mapping) else tree
