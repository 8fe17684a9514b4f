"""How much memory there is, and arrays that can't fit in it: refused before anything is compiled."""

import ctypes
import os
import resource
import sys

import jax
import numpy as np

from jaxgan.types import PyTree


def size_of(tree: PyTree, shardings: PyTree = None) -> int:
    """Returns how many bytes arrays take, or would if they were of these shapes and dtypes.

    Args:
        tree: arrays, or their shapes and dtypes.
        shardings: how each is spread over devices, for the bytes of one of them; None if they aren't.
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(tree)]
    if shardings is not None:
        shapes = [of.shard_shape(shape)
                  for of, shape in zip(jax.tree.leaves(shardings), shapes, strict=True)]
    return sum(int(np.prod([int(size) for size in shape], dtype=object)) * leaf.dtype.itemsize
               for shape, leaf in zip(shapes, jax.tree.leaves(tree), strict=True))


def check_fits(what: str, tree: PyTree, remedy: str, shardings: PyTree = None, other: str = "") -> None:
    """Raises ValueError for arrays that alone are larger than a device's memory.

    Args:
        what: they are, with their verb: "the networks take", say.
        tree: arrays, or their shapes and dtypes.
        remedy: what to lower.
        shardings: as for `size_of`.
        other: another remedy, from its comma on.
    """
    needed, there = size_of(tree, shardings), available()
    if needed > there:
        each = "" if shardings is None else " on each device"
        raise ValueError(f"{what} {needed / 1e9:.4g} GB{each}, and there are {there / 1e9:.4g} GB of "
                         f"memory: lower {remedy}{other}")


def available() -> float:
    """Bytes of the first device's memory; a processor's is the machine's, or what a process may have."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)


def release() -> None:
    """Gives the host's memory that was freed back to the system, as after compiling a large program.

    The C library of most Linux systems keeps it else, and a program that runs takes its own besides.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
