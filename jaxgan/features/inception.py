"""The Inception network that the Frechet Inception Distance and the Inception Score are defined by.

Szegedy et al. 2016 (arXiv 1512.00567), as the TensorFlow graph of 2015-12-05 has it: Heusel et al.
2017 (arXiv 1706.08500) and Salimans et al. 2016 (arXiv 1606.03498) scored with that graph, and other
weights, another resize or another padding give other numbers. Layers have the names of its PyTorch
port, the project pytorch-fid.
"""

import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgan import files
from jaxgan.digests import params_digest
from jaxgan.features.network import FeatureNetwork, Features
from jaxgan.features.weights import MOST_BYTES, WeightsError, load_pytorch, load_weights
from jaxgan.types import Array, PyTree

VARIABLE = "JAXGAN_INCEPTION"
SIZE = 299
CLASSES = 1008

_SOURCE = ("the file pt_inception-2015-12-05-6726825d.pth of the release fid_weights of "
           "https://github.com/mseitzer/pytorch-fid")
# Accelerators would multiply with ten bits or so, and a distance is the difference of large sums.
_PRECISION = jax.lax.Precision.HIGHEST
_TORCH_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
                "var": "running_var"}


def inception(path: str | os.PathLike | None = None) -> FeatureNetwork:
    """The Inception network of FID, with weights from a file.

    Its `apply` takes uint8 images [batch, height, width, channels] of 1 or 3 channels and any size;
    `pooled` are the 2048 features, `logits` those of 1008 classes without the bias, as Inception
    Scores are computed.

    Args:
        path: the weights: .pth or .pt as PyTorch saves them, .npz or .safetensors as
            `experiments.convert_inception` does; by default what $JAXGAN_INCEPTION says.

    Raises:
        WeightsError: there are no weights, or the file doesn't hold them, whole.
    """
    path = path or os.environ.get(VARIABLE)
    if not path:
        raise WeightsError(f"the Inception network needs weights: download {_SOURCE} and pass it with "
                           f"--inception, or set {VARIABLE} to it")
    variables = load_inception(path)
    return FeatureNetwork(
        "inception", params_digest(variables),
        lambda variables, images: _apply(variables, preprocess(images)),
        jax.tree.map(jnp.asarray, variables), "TensorFlow 1 bilinear to 299x299",
        see=lambda variables, images: _apply(variables, _normalised(255.0 * images)))


def load_inception(path: str | os.PathLike) -> PyTree:
    """Reads the network's variables from a file, as `inception` does, into NumPy arrays.

    Raises:
        WeightsError: the file isn't there, is damaged, or its arrays aren't the network's.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no file {path} with Inception's weights: {_SOURCE} has them")
    if path.suffix not in (".pth", ".pt", ".npz", ".safetensors"):
        raise WeightsError("Inception's weights are in a file that ends in .pth, .pt, .npz or "
                           f".safetensors; got {path.name!r}")
    if path.suffix in (".npz", ".safetensors"):
        flat = _matching(load_weights(path), _shapes(), path)
        return unflatten_dict({name: array.astype(np.float32) for name, array in flat.items()}, sep="/")
    # PyTorch's hub puts the first digits of a file's SHA-256 into its name.
    if digits := re.search(r"-([0-9a-f]{8})$", path.stem):
        digest = hashlib.sha256(files.read(path, MOST_BYTES)).hexdigest()
        if not digest.startswith(digits[1]):
            raise WeightsError(f"{path} is damaged: its SHA-256 begins with {digest[:8]}, not with "
                               f"{digits[1]}; download it again")
    return from_pytorch(load_pytorch(path), path)


def from_pytorch(state: Mapping[str, np.ndarray],
                 origin: str | os.PathLike = "the state dict") -> PyTree:
    """Turns a PyTorch state dict into the network's variables.

    Kernels are transposed, [out, in, height, width] to [height, width, in, out]. Counters of batches
    and an auxiliary classifier, which take no part in the features, are left out.

    Args:
        state: arrays by PyTorch's names: "Mixed_5b.branch1x1.conv.weight".
        origin: what errors call it.

    Raises:
        WeightsError: names or shapes are not the network's.
    """
    state = {name: array for name, array in state.items()
             if not name.endswith(".num_batches_tracked") and not name.startswith("AuxLogits.")}
    shapes = _shapes()
    expected = {_torch_name(name): tuple(shape[i] for i in _torch_axes(shape))
                for name, shape in shapes.items()}
    state = _matching(state, expected, origin)
    return unflatten_dict({
        name: np.ascontiguousarray(
            state[_torch_name(name)].transpose(np.argsort(_torch_axes(shape))), np.float32)
        for name, shape in shapes.items()}, sep="/")


def resize_bilinear_tf1(images: Array, size: tuple[int, int]) -> Array:
    """Resizes images as TensorFlow 1's ResizeBilinear does, by default settings.

    Pixel i of the result lies at i * (input size / output size), without half a pixel's shift and
    without antialiasing, in float32: the first row and column are the input's.

    Args:
        images: [batch, height, width, channels].
        size: height and width of the result.

    Returns:
        float32, [batch, *size, channels].
    """
    (top, bottom, down), (left, right, across) = (
        _neighbours(old, new) for old, new in zip(images.shape[1:3], size, strict=True))
    images = images.astype(jnp.float32)
    rows = _between(images[:, :, left], images[:, :, right], across.reshape(1, 1, -1, 1))
    return _between(rows[:, top], rows[:, bottom], down.reshape(1, -1, 1, 1))


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each new pixel's two old ones, and how far it is from the first to the second."""
    places = np.arange(new, dtype=np.float32) * (np.float32(old) / np.float32(new))
    lower = np.floor(places).astype(np.int32)
    return lower, np.minimum(lower + 1, old - 1), places - lower.astype(np.float32)


def _between(first: Array, second: Array, weight: np.ndarray) -> Array:
    return first + (second - first) * weight


def _apply(variables: PyTree, inputs: Array) -> Features:
    # Flax's type of `apply` allows for changed variables, which there are only with `mutable`.
    return cast("Features", InceptionV3().apply(variables, inputs))


def preprocess(images: Array) -> Array:
    """Turns images into the network's input: of 299 x 299 pixels, three channels, (x - 128) / 128.

    Args:
        images: uint8, [batch, height, width, 1 or 3].

    Returns:
        float32, [batch, 299, 299, 3], in [-1, 1).

    Raises:
        TypeError: the images aren't uint8.
        ValueError: they have another shape.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"images must be uint8; got {images.dtype}: make them pixels in [0, 255]")
    return _normalised(images)


def _normalised(images: Array) -> Array:
    """`preprocess` of images in [0, 255] of any type."""
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"images must be [batch, height, width, 1 or 3]; got {images.shape}")
    images = (resize_bilinear_tf1(images, (SIZE, SIZE)) - 128.0) / 128.0
    return jnp.broadcast_to(images, (*images.shape[:3], 3))


class InceptionV3(nn.Module):
    """The network behind its preprocessing, for inference: [batch, 299, 299, 3] -> Features.

    It departs from the paper's network where the graph of 2015 does: average pools don't count the
    padding, the last block has a maximum in place of an average, and there are 1008 classes.

    Attributes:
        bias: add the classifier's bias to the logits.
    """

    bias: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Features:
        """Returns 2048 pooled features and 1008 logits."""
        x = _Convolution(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = _Convolution(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = _Convolution(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = _halved(x)
        x = _Convolution(80, name="Conv2d_3b_1x1")(x)
        x = _Convolution(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = _halved(x)
        for name, width in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = _BlockA(width, name=f"Mixed_{name}")(x)  # 35 x 35
        x = _BlockB(name="Mixed_6a")(x)
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x = _BlockC(width, name=f"Mixed_{name}")(x)  # 17 x 17
        x = _BlockD(name="Mixed_7a")(x)
        x = _BlockE(_averaged, name="Mixed_7b")(x)  # 8 x 8
        x = _BlockE(_maximal, name="Mixed_7c")(x)
        pooled = x.mean(axis=(1, 2))
        return Features(pooled, _Classifier(self.bias, name="fc")(pooled))


class _Convolution(nn.Module):
    """A convolution without bias, BatchNorm and ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(self.features, self.kernel, self.stride, self.padding, use_bias=False,
                    precision=_PRECISION, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class _Classifier(nn.Module):
    bias: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], CLASSES))
        bias = self.param("bias", nn.initializers.zeros, (CLASSES,))
        logits = jnp.matmul(x, kernel, precision=_PRECISION)
        return logits + bias[None] if self.bias else logits


class _BlockA(nn.Module):
    pool_width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return _joined(
            _single(x, "branch1x1", 64),
            _chain(x, "branch5x5", (48, 1, 1), (64, 5, 5)),
            _chain(x, "branch3x3dbl", (64, 1, 1), (96, 3, 3), (96, 3, 3)),
            _single(_averaged(x), "branch_pool", self.pool_width))


class _BlockB(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        double = _chain(x, "branch3x3dbl", (64, 1, 1), (96, 3, 3))
        return _joined(
            _Convolution(384, (3, 3), 2, "VALID", name="branch3x3")(x),
            _Convolution(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double),
            _halved(x))


class _BlockC(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.width
        return _joined(
            _single(x, "branch1x1", 192),
            _chain(x, "branch7x7", (c, 1, 1), (c, 1, 7), (192, 7, 1)),
            _chain(x, "branch7x7dbl", (c, 1, 1), (c, 7, 1), (c, 1, 7), (c, 7, 1), (192, 1, 7)),
            _single(_averaged(x), "branch_pool", 192))


class _BlockD(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _chain(x, "branch3x3", (192, 1, 1))
        double = _chain(x, "branch7x7x3", (192, 1, 1), (192, 1, 7), (192, 7, 1))
        return _joined(
            _Convolution(320, (3, 3), 2, "VALID", name="branch3x3_2")(single),
            _Convolution(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(double),
            _halved(x))


class _BlockE(nn.Module):
    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        single = _chain(x, "branch3x3", (384, 1, 1))
        double = _chain(x, "branch3x3dbl", (448, 1, 1), (384, 3, 3))
        return _joined(
            _single(x, "branch1x1", 320),
            _Convolution(384, (1, 3), name="branch3x3_2a")(single),
            _Convolution(384, (3, 1), name="branch3x3_2b")(single),
            _Convolution(384, (1, 3), name="branch3x3dbl_3a")(double),
            _Convolution(384, (3, 1), name="branch3x3dbl_3b")(double),
            _single(self.pool(x), "branch_pool", 192))


def _single(x: Array, name: str, features: int) -> Array:
    return _Convolution(features, name=name)(x)


def _chain(x: Array, name: str, *layers: tuple[int, int, int]) -> Array:
    """Convolutions of (features, height, width), called name_1, name_2 and so on."""
    for number, (features, height, width) in enumerate(layers, 1):
        x = _Convolution(features, (height, width), name=f"{name}_{number}")(x)
    return x


def _joined(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)


def _averaged(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def _maximal(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), padding="SAME")


def _halved(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (2, 2))


@functools.cache
def _shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every variable by its path, "params/Mixed_5b/branch1x1/conv/kernel"."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), image)
    leaves = cast("dict[str, jax.ShapeDtypeStruct]", flatten_dict(variables, sep="/"))
    return {name: leaf.shape for name, leaf in leaves.items()}


def _torch_name(name: str) -> str:
    """The name in PyTorch of a variable: Mixed_5b.branch1x1.conv.weight."""
    *modules, variable = name.split("/")[1:]
    return ".".join((*modules, _TORCH_NAMES[variable]))


def _torch_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of a variable in PyTorch's order."""
    return (3, 2, 0, 1) if len(shape) == 4 else tuple(range(len(shape)))[::-1]


def _matching(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]],
              origin: str | os.PathLike) -> Mapping[str, np.ndarray]:
    """Returns the arrays if they have these names and shapes."""
    wrong = [f"{name} of shape {arrays[name].shape}, not {shapes[name]}" for name in shapes
             if name in arrays and arrays[name].shape != shapes[name]]
    for title, names in (("lacks", [name for name in shapes if name not in arrays]),
                         ("has the unknown", [name for name in arrays if name not in shapes]),
                         ("has", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise WeightsError(f"{origin} isn't of the Inception network of FID: it {title} "
                               f"{', '.join(names[:3])}{more}")
    return arrays
