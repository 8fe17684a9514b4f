"""How much memory there is, and arrays that can't fit in it: refused before anything is compiled."""

import os
import resource

import jax
import numpy as np

from jaxgan.types import PyTree


def size_of(tree: PyTree) -> int:
    """Returns how many bytes arrays take, or would if they were of these shapes and dtypes."""
    return sum(int(np.prod([int(size) for size in leaf.shape], dtype=object)) * leaf.dtype.itemsize
               for leaf in jax.tree.leaves(tree))


def check_fits(what: str, tree: PyTree, remedy: str) -> None:
    """Raises ValueError for arrays that alone are larger than a device's memory.

    Args:
        what: they are, with their verb: "the networks take", say.
        tree: arrays, or their shapes and dtypes.
        remedy: what to lower.
    """
    needed, there = size_of(tree), available()
    if needed > there:
        raise ValueError(f"{what} {needed / 1e9:.4g} GB, and there are {there / 1e9:.4g} GB of memory: "
                         f"lower {remedy}")


def available() -> float:
    """Bytes of the first device's memory; a processor's is the machine's, or what a process may have."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)
