"""Weights in the layout of the authors' code, as variables of the networks here."""

import re
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.models.autoencoder import Autoencoder, factor
from jaxgan.models.r3gan import R3GANCritic, R3GANGenerator, stages
from jaxgan.models.stylegan2 import StyleGAN2Critic, StyleGAN2Generator
from jaxgan.types import PyTree

Rename = Callable[[str], str]  # a variable's path, "stage_0_block_0/Conv_0/kernel" -> its name there


def from_published(model: nn.Module, variables: PyTree, state: Mapping[str, np.ndarray]) -> PyTree:
    """Returns a network's variables, taken from a state dictionary of the authors' PyTorch code.

    The `state_dict()` of R3GAN's or StyleGAN2's `Generator` or `Discriminator`. The filters in it are
    left out; StyleGAN2's average style and noise maps are variables here, too.

    Args:
        model: an `R3GANGenerator`, `R3GANCritic`, `StyleGAN2Generator` or `StyleGAN2Critic`; for an
            `Autoencoder`, see `autoencoder`.
        variables: what its `init` returns, `{"params": ..., other collections}`, of which only paths and
            shapes are used.
        state: arrays by name, as `jaxgan.features.weights.load_pytorch` reads them.

    Raises:
        TypeError: there is no published layout for this model.
        ValueError: an array is missing, has another shape, isn't finite, or is left over; the first one
            is named.
    """
    name_of = _rename(model)
    left = {name for name in state if not re.search(_FILTERS, name)}

    def take(path: tuple, leaf: jax.Array) -> jax.Array:
        here = "/".join(part.key for part in path[1:])
        there = name_of(here)
        if there not in state:
            raise ValueError(f"the weights have no {there}, which {type(model).__name__} needs for "
                             f"{here}: they are of another network or layout")
        array = _turned(here, np.asarray(state[there]))
        if array.shape != leaf.shape:
            raise ValueError(f"{there} has the shape {list(np.shape(state[there]))}, which makes "
                             f"{list(array.shape)}; {type(model).__name__} has {list(leaf.shape)} at "
                             f"{here}: choose the settings that the weights were trained with")
        if not np.isfinite(array).all():
            raise ValueError(f"{there} holds numbers that aren't finite: the training had diverged; "
                             "take earlier weights")
        left.discard(there)
        return jnp.array(array, leaf.dtype)  # a copy: PyTorch may go on training its own

    taken = jax.tree_util.tree_map_with_path(take, variables)
    if left:
        raise ValueError(f"the weights have {min(left)}, for which {type(model).__name__} has no place: "
                         "choose the settings that they were trained with")
    return taken


def autoencoder(state: Mapping[str, np.ndarray], groups: int = 32) -> tuple[Autoencoder, PyTree]:
    """Returns an autoencoder and its variables, taken from a state of diffusers' `AutoencoderKL`.

    Its sizes are those of the arrays. The names of attention that older versions of diffusers wrote are
    understood as well.

    Args:
        state: arrays by name, as `jaxgan.features.load_weights` reads them.
        groups: of the normalisation, which arrays don't say; all published ones have 32.

    Raises:
        ValueError: it is in another layout, or an array is missing, isn't finite or left over.
    """
    state = {_newer(name): array for name, array in state.items()}
    needed = ("encoder.conv_in.weight", "encoder.conv_out.weight", "decoder.conv_in.weight",
              "decoder.conv_out.weight", "encoder.down_blocks.0.resnets.0.conv1.weight")
    if lost := [name for name in needed if np.ndim(state.get(name, 0)) != 4]:
        named = f", and have {min(state)}" if state else ""
        raise ValueError("these weights aren't in the layout of diffusers' AutoencoderKL: they have no "
                         f"{lost[0]}{named}; save its encoder and decoder by save_pretrained")

    def sizes(pattern: str) -> dict[int, int]:
        """The first axis of arrays by the number in their name."""
        return {int(found[1]): len(array) for name, array in state.items()
                if (found := re.fullmatch(pattern, name))}

    by_level = sizes(r"encoder\.down_blocks\.(\d+)\.resnets\.0\.conv1\.weight")
    if len(by_level) > _MOST_LEVELS:
        raise ValueError(f"these weights have {len(by_level)} levels, more than any AutoencoderKL")
    model = Autoencoder(
        len(state["decoder.conv_out.weight"]), tuple(size for _, size in sorted(by_level.items())),
        len(sizes(r"encoder\.down_blocks\.0\.resnets\.(\d+)\.conv1\.weight")),
        len(state["encoder.conv_out.weight"]) // 2, groups,
        attention="encoder.mid_block.attentions.0.to_q.weight" in state,
        projections="quant_conv.weight" in state)
    side = factor(model.widths)
    shapes = jax.eval_shape(lambda: model.init(
        jax.random.key(0), jnp.zeros((1, 1, 1, model.latent_channels)),
        jnp.zeros((1, side, side, model.channels)), train=False))
    return model, from_published(model, shapes, state)


def _newer(name: str) -> str:
    """The name of an array of diffusers, as its newer versions have it."""
    older = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    found = re.fullmatch(r"(.*\.attentions\.0\.)(\w+)(\.\w+)", name)
    return f"{found[1]}{older[found[2]]}{found[3]}" if found and found[2] in older else name


_MOST_LEVELS = 16  # of an autoencoder
_FILTERS = r"(Resampler\.Kernel|resample_filter)$"


def _turned(path: str, array: np.ndarray) -> np.ndarray:
    """An array of PyTorch's order of axes, [out, in, height, width], in ours."""
    if path.endswith("noise_const"):
        return array
    if path.endswith(("basis", "const")):  # [channels, (1,) height, width]
        return np.moveaxis(array.reshape(len(array), *array.shape[-2:]), 0, -1)
    if path.endswith("b4/fc/kernel"):  # of 4x4 positions, one channel after the other
        return np.transpose(array.reshape(len(array), -1, 4, 4), (2, 3, 1, 0)).reshape(-1, len(array))
    return np.transpose(array, (2, 3, 1, 0)) if array.ndim == 4 else array.T


def _rename(model: nn.Module) -> Rename:
    if isinstance(model, R3GANGenerator | R3GANCritic):
        return _r3gan(model)
    if isinstance(model, StyleGAN2Generator | StyleGAN2Critic):
        return lambda path: {"w_avg": "mapping.w_avg"}.get(path, path.replace("/", ".").replace(
            "kernel", "weight"))
    if isinstance(model, Autoencoder):
        return _diffusers
    raise TypeError(f"no published layout is known for {type(model).__name__}: there are those of "
                    "R3GAN's and StyleGAN2's networks, and of diffusers' AutoencoderKL")


def _diffusers(path: str) -> str:
    path = re.sub(r"_(\d+)[_/]", r".\1.", path).replace("/", ".")
    return re.sub(r"^\w+\.(?=(post_)?quant_conv)", "", re.sub(r"(kernel|scale)$", "weight", path))


def _r3gan(model: R3GANGenerator | R3GANCritic) -> Rename:
    blocks = [stage.blocks for stage in stages(model)]
    is_generator, last = isinstance(model, R3GANGenerator), len(blocks) - 1

    def at(stage: int, layer: int) -> str:
        """A layer of a stage; stages are counted as data flows there, from the smallest images here."""
        return f"MainLayers.{stage if is_generator else last - stage}.Layers.{layer}"

    def transition(stage: int) -> str:
        return at(stage, 0 if is_generator else blocks[stage])

    def rename(path: str) -> str:
        if found := re.fullmatch(r"stage_(\d+)_block_(\d+)/Conv_(\d)/(kernel|bias)", path):
            stage, block, layer = map(int, found.groups()[:3])
            part = f"LinearLayer{layer + 1}.Layer.weight" if found[4] == "kernel" else (
                f"NonLinearity{layer + 1}.Bias")
            return f"{at(stage, block + is_generator)}.{part}"
        if found := re.fullmatch(r"to_width_(\d+)/kernel", path):
            return f"{transition(int(found[1]))}.LinearLayer.Layer.weight"
        return {
            "basis": f"{transition(0)}.Basis" + ("" if is_generator else ".weight"),
            "basis_weights/kernel": f"{transition(0)}.LinearLayer.weight",
            "features/kernel": f"{transition(0)}.LinearLayer.weight",
            "from_image/kernel": "ExtractionLayer.Layer.weight",
            "to_image/kernel": "AggregationLayer.Layer.weight",
            "class_embedding/kernel": "EmbeddingLayer.weight",
        }[path]

    return rename
