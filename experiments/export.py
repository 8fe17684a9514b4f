"""Writes a run's networks for use elsewhere: as programs that run without jaxgan, or as named arrays.

StableHLO programs run on processors, NVIDIA's and AMD's GPUs and TPUs, with a batch of any size;
`safetensors` and `npz` hold the numbers, which --init-from reads. A model card, README.md, is written
beside them.
"""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro

from jaxgan import __version__, console, files
from jaxgan.digests import params_digest
from jaxgan.export import ROLES, arrays, program
from jaxgan.features import save_weights
from jaxgan.gan import GAN
from jaxgan.runs import read_config, read_evaluations
from jaxgan.steps import game as game_of
from jaxgan.types import PyTree

from . import launch, measuring
from .commands import called
from .opening import OpenRun, exported_about, open_run, trained_shape

_LIKE = 2  # examples, of whose batch the shapes are taken


@dataclasses.dataclass(frozen=True)
class Options:
    """What to write, and where."""

    run_dir: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """The run's folder."""
    format: Literal["stablehlo", "safetensors", "npz"] = "stablehlo"
    """Programs, or arrays by name."""
    out: str = ""
    """The folder to write to; by default RUN_DIR/export."""
    checkpoint: str = "latest"
    """The checkpoint: latest, best or a step."""
    as_trained: bool = False
    """Write the generator as it was trained, not its average."""
    batch_size: int = 0
    """For programs: the only batch size that they take; 0: any."""
    experiment: str = ""
    """For a run of your own experiment: the Python file that holds it."""


def main(options: Options) -> None:
    """Writes the files.

    Raises:
        ValueError: the run's game has no such networks, or a file is there already.
    """
    run = open_run(options.run_dir, options.checkpoint, experiment=options.experiment)
    if options.batch_size < 0:
        raise ValueError(f"batch_size must not be negative; got {options.batch_size}")
    out = Path(options.out or Path(options.run_dir) / "export")
    if options.format == "stablehlo":
        written = _programs(options, run)
    elif options.batch_size:
        raise ValueError("batch_size is for programs: leave it out")
    else:
        if not all(hasattr(run.state, name) for name in ("generator", "critic", "ema")):
            raise ValueError(f"{options.run_dir} is of a game without a generator and a critic: its "
                             "checkpoint holds what it has")
        written = {}
    names = [*written, "README.md"] if written else [f"networks.{options.format}", "README.md"]
    for name in names:
        if (out / name).exists():
            raise ValueError(f"there is {out / name} already: name another folder with --out")
    launch.file_to_write(str(out)).mkdir(exist_ok=True)
    for name, data in written.items():
        with files.replacing(out / name) as file:
            file.write(data)
    if not written:
        about = exported_about(run.settings, int(run.state.step)) if options.format != "npz" else None
        save_weights(out / names[0], arrays(run.state, use_ema=not options.as_trained), about)
    files.write(out / "README.md", _card(options, run, names[:-1]))
    console.say(*(f"{out / name}: {(out / name).stat().st_size / 2**20:.2f} MiB" for name in names[:-1]),
                f"{out / 'README.md'}: what they are and how they are used")


def _programs(options: Options, run: OpenRun) -> dict[str, bytes]:
    """The programs by the names of their files."""
    if not isinstance(run.game, GAN):
        raise ValueError(f"{options.run_dir} is of a game of its own, of which no program is known: "
                         "take --format safetensors")
    samples, condition = _example(run)
    written = {}
    for role in ROLES:
        try:
            made = program(run.game, run.state, role, samples, condition,
                           batch=options.batch_size or None, use_ema=not options.as_trained)
        except ValueError:
            if options.batch_size:
                raise
            size = run.config.schedule.batch_size
            console.warn(f"warning: the {role} looks at a batch as a whole: its program takes {size} "
                         "examples, and no other number")
            made = program(run.game, run.state, role, samples, condition, batch=size,
                           use_ema=not options.as_trained)
        written[f"{role}.stablehlo"] = bytes(made.serialize())
    return written


def _example(run: OpenRun) -> tuple[PyTree, PyTree]:
    """Shapes of a batch of samples and of their condition."""
    def like(shape: Any, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((_LIKE, *shape), dtype)

    shapes = trained_shape(run.settings)
    samples = tuple(map(like, shapes)) if any(isinstance(s, list) for s in shapes) else like(shapes)
    return samples, jax.tree.map(lambda leaf: like(*leaf), run.settings["condition"],
                                 is_leaf=lambda leaf: isinstance(leaf, list))


def _card(options: Options, run: OpenRun, names: list[str]) -> str:
    """The model card, Markdown."""
    settings, low_high = run.settings, run.settings["value_range"]
    sizes = {role: sum(leaf.size for leaf in jax.tree.leaves(getattr(run.state, role).params))
             for role in ROLES}
    evaluations = [found for found in read_evaluations(options.run_dir)
                   if found["step"] == int(run.state.step)]
    measured = (["    " + line for line in measuring.table(evaluations[-1], run.reference)]
                if evaluations else ["None of this step."])
    command = read_config(options.run_dir).get("command")
    changed = {name: value for name, value in settings.items() if name in (
        "dataset", "loss", "penalty", "batch_size", "steps", "seed", "classes", "num_classes")}
    networks = game_of(run.game).networks(run.state)
    lines = [
        f"# {settings['experiment']}, step {int(run.state.step)}", "",
        run.experiment.about.strip().partition("\n")[0], "",
        f"- Networks: {', '.join(f'{role} of {size:,} parameters' for role, size in sizes.items())}; "
        f"params_sha256 {params_digest(*networks.values())}"
        + (", the generator's average of which is here" if run.state.ema is not None
           and not options.as_trained else ""),
        f"- Samples: {settings['sample_shape']}, in [{low_high[0]:g}, {low_high[1]:g}]"
        + (f", decoded from latents of {settings['trained_shape']}, which the program makes: they are "
           f"times {settings['latent_scale']:g} what the decoder of {settings['autoencoder']} takes"
           if settings.get("trained_shape") else ""),
        f"- Data: {settings.get('dataset') or settings.get('folder') or settings['experiment']}"
        + (f", sha256 {settings['data_sha256']}" if settings.get("data_sha256") else ""),
        f"- Settings: {json.dumps(changed)}",
        *([f"- Command: `{shlex.join(map(str, command))}`"] if isinstance(command, list) else []),
        f"- Written by jaxgan {__version__}, {called('export')}",
        "- Licence of the weights:", "- Licence of the data:",
        "- Intended use, and uses that are not intended:", "",
        "## Numbers", "", *measured, "", "## Use", "",
        *_use(names, settings["condition"] is not None,
              isinstance(run.game, GAN) and run.game.latent_size is not None)]
    return "".join(f"{console.printable(line)}\n" for line in lines)


def _use(names: list[str], is_conditional: bool, has_vectors: bool) -> list[str]:
    if len(names) == 1:
        name = names[0]
        arrays_of = [f"`{name}` holds arrays by name, `generator/params/...` and `critic/params/...`. "
                     "An experiment with the same networks starts from them:", "",
                     f"    {called('NAME')} --init-from {name}"]
        drawn_of = ["", "It says which experiment they are of, so that samples can be drawn from it "
                    "alone; in Python `open_run` opens it:", "", f"    {called('sample')} {name}"]
        return arrays_of if name.endswith(".npz") else arrays_of + drawn_of
    made = ["latents = jax.random.normal(jax.random.key(0), (4, *generator.in_avals[0].shape[1:]))"]
    if is_conditional:
        made += ["asked = generator.in_avals[1]",
                 "condition = jnp.zeros((4, *asked.shape[1:]), asked.dtype)"]
    return ["jax and flatbuffers are needed, and no code of jaxgan:", "", "```python", "import jax",
            "import jax.numpy as jnp", "", "with open(\"generator.stablehlo\", \"rb\") as file:",
            "    generator = jax.export.deserialize(bytearray(file.read()))",
            "print(generator.in_avals)  # what it takes", *made * has_vectors,
            f"samples = generator.call(latents{', condition' * is_conditional})", "```", "",
            "`critic.stablehlo` maps samples to `{\"scores\": ...}` and what else the critic says."]


if __name__ == "__main__":
    launch.tool(main, Options)
