"""Makes a run of weights that the authors' code of R3GAN or StyleGAN2 has saved.

The files are state dictionaries, saved by torch.save(network.state_dict(), FILE) with that code, where
the published files are open. The run is as if it were at its start: it is sampled, projected on and
evaluated like any other, and training goes on from it with --init-from in a run of its own.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import tyro

from jaxgan import console
from jaxgan.checkpoints import Checkpoints
from jaxgan.features import WeightsError, load_pytorch, load_weights
from jaxgan.gan import GAN
from jaxgan.models.published import from_published
from jaxgan.networks import NetworkState
from jaxgan.steps import init_state
from jaxgan.types import Batch, PyTree

from . import flags, image_sets, launch, opening, settings
from .commands import called

_ADVICE = ("save the state dictionary with the authors' code, torch.save(network.state_dict(), FILE), "
           "and give that file")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which weights. All other flags are the experiment's: --preset and --run-dir for example."""

    experiment: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="EXPERIMENT")]
    """What they are of: r3gan or stylegan2."""
    generator: str
    """The generator's file, best that of the averaged one, called G_ema there."""
    critic: str = ""
    """The critic's file, called D there; it starts at random if there is none."""
    channels: int = 3
    """Of an image; height and width are those of --image-size."""


def main(options: Options, words: Sequence[str]) -> None:
    """Reads the weights and writes the run; the words are the experiment's flags."""
    if options.experiment not in ("r3gan", "stylegan2"):
        raise ValueError(f"there is no published layout for {options.experiment!r}: choose r3gan or "
                         "stylegan2")
    experiment = opening.load(options.experiment)
    config = launch.parse(experiment, words)
    config = settings.replace(config, run_dir=config.run.run_dir or f"runs/{experiment.name}")
    flags.check_sizes(config)
    shape = (*flags.as_size(config.data.image_size), options.channels)
    image_sets.check_folder(config.data, optional=True)
    classes = config.data.classes
    gan = cast("GAN", experiment.make_game(config, shape))
    batch = Batch(jnp.zeros((2, *shape)), jnp.zeros(2, jnp.int32) if classes else None)
    init, key = partial(init_state, gan), jax.random.key(config.schedule.seed)
    shapes = jax.eval_shape(init, key, batch)
    generator = _taken(gan.generator, shapes.generator.variables, options.generator)
    critic = options.critic and _taken(gan.critic, shapes.critic.variables, options.critic)
    run = launch.open_folder(experiment, config, {
        **experiment.recorded(), **settings.flat(config), "sample_shape": list(shape),
        "value_range": [-1.0, 1.0], "num_classes": classes,
        "condition": [[], "int32"] if classes else None})
    checkpoints = Checkpoints(run.checkpoints, configuration=run.identity)
    if checkpoints.steps():
        raise ValueError(f"{run.folder} holds a run already: choose another --run-dir")
    state = jax.jit(init)(key, batch)
    state = state._replace(generator=_with(state.generator, generator),
                           ema=None if state.ema is None else jax.tree.map(jnp.copy, generator))
    if critic:
        state = state._replace(critic=_with(state.critic, critic))
    try:
        run.lock()
        run.start(0)
        checkpoints.save(0, state)
        checkpoints.wait()
    finally:
        checkpoints.close()
        run.close()
    console.say(f"{run.folder}: a run of these weights; to see samples: {called('sample')} {run.folder}",
                f"to measure them: {called('evaluate')} {run.folder} --dataset folder:IMAGES")


def _taken(module: nn.Module, variables: PyTree, path: str) -> PyTree:
    """A network's variables from a file.

    Raises:
        WeightsError: it is no state dictionary, or damaged.
        ValueError: the weights are of another network; the first misfit is named.
    """
    if not Path(path).is_file():
        raise ValueError(f"there is no file {path}: give one that torch.save wrote")
    if path.endswith((".npz", ".safetensors")):
        state = load_weights(path)
    else:
        try:
            state = load_pytorch(path)
        except WeightsError as error:
            raise WeightsError(f"{error}; {_ADVICE}") from error
    try:
        return from_published(module, variables, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with(network: NetworkState, variables: PyTree) -> NetworkState:
    """A network with other variables."""
    stats = {name: value for name, value in variables.items() if name != "params"}
    return network._replace(params=variables["params"], stats=stats)


if __name__ == "__main__":
    launch.tool(main, Options, takes_rest=True)
