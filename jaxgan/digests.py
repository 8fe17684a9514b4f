"""SHA-256 digests of arrays, by which two runs are told apart."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from jaxgan.keys import on_host
from jaxgan.types import Array, PyTree


def leaf_digests(tree: PyTree) -> dict[str, str]:
    """Returns the SHA-256 of each leaf by its path: of its dtype, shape and bytes."""
    return {jax.tree_util.keystr(path): leaf_digest(leaf)
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def leaf_digest(leaf: Array | np.ndarray) -> str:
    """Returns the SHA-256 of an array's dtype, shape and bytes; of typed keys those of their numbers."""
    digest = hashlib.sha256(f"{leaf.dtype} {leaf.shape}\n".encode())
    digest.update(np.ascontiguousarray(on_host(leaf)).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def params_digest(*params: PyTree) -> str:
    """The SHA-256 of parameters: of each leaf's path, dtype, shape and bytes, in order of paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.ascontiguousarray(on_host(leaf)).tobytes())
    return digest.hexdigest()


def json_digest(value: Mapping) -> str:
    """Returns the SHA-256 of a JSON value, written in one way."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
