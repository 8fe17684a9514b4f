"""What a run costs its device: traces of some steps, operations a second, memory."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxgan import console
from jaxgan.types import Device

# Dense peaks, operations a second, by what a device's kind begins with. NVIDIA's data sheets of the SXM
# cards (which print twice as much, with sparsity), as glennklockwood.com/garden/processors quotes them
# for A100 and H100; the H200 has the H100's chip. Cloud TPU's documentation.
_H100 = {"float32": 67e12, "tf32": 494.5e12, "bfloat16": 989e12}
PEAKS = {"NVIDIA A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
         "NVIDIA H100 80GB HBM3": _H100, "NVIDIA H200": _H100,
         "TPU v4": {"bfloat16": 275e12}, "TPU v5 lite": {"bfloat16": 197e12},
         "TPU v5": {"bfloat16": 459e12}, "TPU v6 lite": {"bfloat16": 918e12}}
_Shape = tuple[int, ...]


class Operations(NamedTuple):
    """Floating-point operations of products of matrices and of convolutions, two for each weight used.

    Attributes:
        least: where a condition decides, of what takes the fewest.
        most: of what takes the most.
    """

    least: float
    most: float


def operations(jaxpr: Any) -> Operations:
    """Counts the operations of what a function was traced to.

    Loops of a known length are counted as often as they run, others once. Of a transposed convolution
    the zeros between its inputs are left out. Products that nothing uses are counted, too, which
    compilers leave out: in WGAN-GP's MLPs 2 %.

    Args:
        jaxpr: `jax.make_jaxpr(function)(*arguments)`, or `jax.jit(function).trace(*arguments).jaxpr`.
    """
    least = most = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name in _PRODUCTS:
            shapes = [variable.aval.shape for variable in (*equation.invars, *equation.outvars)]
            own = 2.0 * _PRODUCTS[name](*shapes, params)
            parts = [Operations(own, own)]
        elif name == "cond":
            branches = [operations(branch) for branch in params["branches"]]
            parts = [Operations(min(branch.least for branch in branches),
                                max(branch.most for branch in branches))]
        else:
            times = params["length"] if name == "scan" else 1
            parts = [Operations(times * part.least, times * part.most)
                     for part in map(operations, _inside(params))]
        least += sum(part.least for part in parts)
        most += sum(part.most for part in parts)
    return Operations(least, most)


def _inside(params: dict[str, Any]) -> Iterator[Any]:
    """What an equation calls."""
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(one, "eqns") or hasattr(getattr(one, "jaxpr", None), "eqns"):
                yield one


def _dot(a: _Shape, b: _Shape, out: _Shape, params: dict[str, Any]) -> float:
    (contracted, _), _ = params["dimension_numbers"]
    return math.prod(out) * math.prod(a[axis] for axis in contracted)


def _xla_conv(x: _Shape, kernel: _Shape, out: _Shape, params: dict[str, Any]) -> float:
    channels = kernel[params["dimension_numbers"].rhs_spec[0]]
    return math.prod(out) * math.prod(kernel) / channels / math.prod(params["lhs_dilation"])


# Multiplications of these, by the shapes of their operands and of what comes out. The last three are
# `jaxgan.nn.convolutions`, a convolution and its two gradients: a kernel is used once at every output.
_PRODUCTS = {
    "dot_general": _dot,
    "conv_general_dilated": _xla_conv,
    "conv": lambda x, kernel, y, params: math.prod(y) * math.prod(kernel[:-1]),
    "conv_transpose": lambda y, kernel, x, params: math.prod(y) * math.prod(kernel[:-1]),
    "conv_kernel_gradient": lambda x, y, kernel, params: math.prod(y) * math.prod(kernel[:-1])}


def peaks(device: Device) -> dict[str, float]:
    """A device's published peaks by precision, operations a second, as far as they are known."""
    kinds = [kind for kind in PEAKS if device.device_kind.startswith(kind)]
    return PEAKS[max(kinds, key=len)] if kinds else {}


def pace(least: float, device: Device) -> str:
    """So many operations a second in words, with their share of what a device could do."""
    known = peaks(device).get("bfloat16")
    share = f", {100 * least / known:.2g} % of the bfloat16 peak" if known else ""
    return f"{least / 1e9:.3g} GFLOP/s{share}"


def peak_memory() -> int | None:
    """The most bytes of a device's memory that this process has used; None where nothing tells."""
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [value for value in found if value]
    return max(known) if known else None


class Trace:
    """A trace of some steps, which TensorBoard and Perfetto open.

    Args:
        folder: where.
        steps: how many; 0 for no trace.
    """

    def __init__(self, folder: Path, steps: int):
        self._folder, self._asked, self._left, self._is_on = folder, steps, steps, False

    def begin(self, most: int) -> int:
        """Begins, unless it has; returns how many steps are to be done at most."""
        if self._left and not self._is_on:
            self._is_on = True
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
        return min(most, self._left) if self._is_on else most

    def count(self, steps: int) -> None:
        """Counts steps that were done, and ends with the last that was asked for."""
        if self._is_on:
            self._left -= steps
            if not self._left:
                self._end()

    def close(self) -> None:
        """Ends, if the run is over before all steps were traced."""
        if self._is_on:
            self._end()
        elif self._left:
            console.warn("warning: there is no trace: it begins after the first step, which compiles, "
                         "and no other followed")
        self._left = 0

    def _end(self) -> None:
        self._is_on = False
        jax.profiler.stop_trace()
        steps = console.counted(self._asked - self._left, "step")
        console.warn(f"profile   {steps} in {self._folder}: tensorboard --logdir {self._folder}, or "
                     f"perfetto_trace.json.gz there in ui.perfetto.dev")
