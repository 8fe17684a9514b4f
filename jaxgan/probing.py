"""What a network does with a batch, found out by trying: on small batches, with random parameters.

What a module calls its layers and its variables says nothing about that, and what it starts with may
hide it (a branch that starts at zero). The trials are of concrete numbers, on the processor, even where
a step is being traced; each is made once for a module and its inputs' shapes.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.memory import check_fits
from jaxgan.networks import is_inexact
from jaxgan.nn.random import module_rngs
from jaxgan.types import Array, PyTree, batch_size

_COUNT = 4  # samples in a trial
_COMPILED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def looks_across(module: nn.Module, inputs: PyTree, condition: PyTree) -> bool:
    """Whether what a module gives for a sample, in training, depends on the batch's other samples.

    Args:
        module: called as `module(inputs, condition, train=True)`.
        inputs: arrays [batch, ...], of which only shapes and dtypes matter.
        condition: likewise.
    """
    return _on_few(_looks_across, module, inputs, condition)


def check_single(module: nn.Module, inputs: PyTree, condition: PyTree) -> None:
    """Raises ValueError for a module that can't learn all of its parameters from a batch of one.

    Arguments as for `looks_across`.
    """
    if numb := _on_few(_numb, module, inputs, condition):
        raise ValueError(
            f"a batch of one sample teaches {type(module).__name__} nothing about {numb}: it normalises "
            "over the batch, which leaves nothing of what comes before; raise the batch size, on "
            "several devices that of each")


def check_call(next_fun: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
    """For `flax.linen.intercept_methods`: raises ValueError for what a module can't do with a batch.

    That is batch normalisation of one number, which makes 0 of each channel, so that the layers before
    it never learn; and outputs that are larger than the memory.
    """
    module = context.module
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
        x, running = args[0], kwargs.get("use_running_average", args[1] if len(args) > 1 else None)
        axes = (module.axis,) if isinstance(module.axis, int) else module.axis
        count = x.size // math.prod(x.shape[axis] for axis in axes)
        if module.axis_name is not None and not module.is_initializing():
            count *= (lax.axis_size(module.axis_name) if module.axis_index_groups is None
                      else len(module.axis_index_groups[0]))
        if count == 1 and not (module.use_running_average if running is None else running):
            raise ValueError(
                f"the batch normalisation {'/'.join(module.path)} is over one sample, which makes 0 of "
                "it, so that no layer before it learns: raise the batch size"
                + ("" if module.axis_name else ", on several devices that of each, or give the module a "
                                               "field axis_name, which the steps set"))
    outputs = next_fun(*args, **kwargs)
    check_fits(f"the outputs of {type(module).__name__} {'/'.join(module.path)} take",
               [leaf for leaf in jax.tree.leaves(outputs) if isinstance(leaf, jax.Array)],
               "the batch size or the width")
    return outputs


def _on_few(trial: Callable, module: nn.Module, inputs: PyTree, condition: PyTree) -> Any:
    """A trial on a few samples; on as many as there are of a module that doesn't take so few."""
    leaves, structure = jax.tree.flatten((inputs, condition))
    kinds = tuple((tuple(leaf.shape[1:]), jnp.dtype(leaf.dtype)) for leaf in leaves)
    try:
        hash(module)
    except TypeError:  # a field that is an array or a list
        trial = trial.__wrapped__
    try:
        return trial(module, structure, kinds, _COUNT)
    except Exception:  # whatever a module of one's own raises
        return trial(module, structure, kinds, batch_size(inputs))


@lru_cache
def _looks_across(module: nn.Module, structure: Any, kinds: tuple, count: int) -> bool:
    def first(variables: PyTree, *given: PyTree) -> list[Array]:
        judgement = jax.tree.leaves(_applied(module, variables, *given))
        return [leaf[0].astype(jnp.float32) for leaf in judgement]

    # One sample among others, and among copies of itself: what is far and what is no distance at all.
    others = _drawn(kinds, count)
    copies = [np.repeat(leaf[:1], count, axis=0) for leaf in others]
    among_others, among_copies = _tried(module, first, *map(structure.unflatten, (others, copies)))
    return not all(np.allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max(initial=0.0), equal_nan=True)
                   for a, b in zip(among_others, among_copies, strict=True))


@lru_cache
def _numb(module: nn.Module, structure: Any, kinds: tuple, count: int) -> str:
    """A parameter that has a gradient in a batch of several, but none in a batch of one; "" if none."""
    def gradients(variables: PyTree, *given: PyTree) -> PyTree:
        def total(params: PyTree) -> Array:
            outputs = jax.tree.leaves(_applied(module, variables | {"params": params}, *given))
            return jnp.stack([(jnp.sin(jnp.arange(1.0, leaf.size + 1)).reshape(leaf.shape) * leaf).sum()
                              for leaf in outputs if is_inexact(leaf)]).sum()

        return jax.tree.map(lambda x: jnp.abs(x).max(), jax.grad(total)(variables["params"]))

    several = _drawn(kinds, count)
    together, = _tried(module, gradients, structure.unflatten(several))
    single = _tried(module, gradients, *(  # each of them, as one alone may be where a ReLU is 0
        structure.unflatten([leaf[i:i + 1] for leaf in several]) for i in range(count)))
    largest = jax.tree.map(lambda *alone: np.stack(alone).max(), *single)
    return next((jax.tree_util.keystr(path) for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(together), jax.tree.leaves(largest), strict=True)
        if a > 0 and not b > 1e-6 * a), "")


def _applied(module: nn.Module, variables: PyTree, inputs: PyTree, condition: PyTree) -> PyTree:
    """What a module gives in training."""
    rngs: Any = module_rngs(jax.random.key(0), batch_size(inputs))
    return module.apply(variables, inputs, condition, train=True, rngs=rngs,
                        mutable=[kind for kind in variables if kind != "params"])[0]


def _tried(module: nn.Module, function: Callable, *given: tuple[PyTree, PyTree]) -> list[PyTree]:
    """What a function of variables, inputs and condition gives for these, on the host."""
    random = np.random.default_rng(1)

    def others(*given: PyTree) -> PyTree:
        variables = module.init(jax.random.key(0), *given, train=False)
        return {kind: values for kind, values in variables.items() if kind != "params"}

    def run(function: Callable, *calls: tuple) -> list[PyTree]:  # compiled, concrete even in a trace
        compiled = jax.jit(function).lower(*calls[0]).compile(_COMPILED)
        return [compiled(*arguments) for arguments in calls]

    with jax.default_device(_processor()):
        shapes = jax.eval_shape(partial(module.init, train=False), jax.random.key(0), *given[0])
        variables = {"params": jax.tree.map(partial(_weights, random), shapes.get("params", {}))}
        if shapes.keys() > {"params"}:
            variables |= jax.tree.map(partial(_moved, random), run(others, given[0])[0])
        return jax.tree.map(np.asarray, run(function, *((variables, *each) for each in given)))


def _processor() -> Any:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # jax was told to leave it alone
        return jax.local_devices()[0]


def _drawn(kinds: tuple, count: int) -> list[np.ndarray]:
    """Samples in [0, 1), which suit most networks; integers, labels for instance, are 0."""
    random = np.random.default_rng(0)
    return [random.uniform(size=(count, *shape)).astype(dtype) if jnp.issubdtype(dtype, jnp.inexact)
            else np.zeros((count, *shape), dtype) for shape, dtype in kinds]


def _weights(random: np.random.Generator, like: Any) -> np.ndarray:
    """Parameters none of which is 0: kernels that keep their inputs' size, and numbers around 1."""
    if len(like.shape) < 2:
        return random.uniform(0.5, 1.5, like.shape).astype(like.dtype)
    scale = math.sqrt(2 / max(1, math.prod(like.shape[:-1])))
    return random.normal(0.0, scale, like.shape).astype(like.dtype)


def _moved(random: np.random.Generator, leaf: Array) -> Array | np.ndarray:
    """A statistic that isn't 0."""
    if not is_inexact(leaf):
        return leaf
    return np.asarray(leaf) + random.uniform(0.1, 0.5, leaf.shape).astype(leaf.dtype)
