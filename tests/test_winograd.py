"""Winograd's minimal filtering against XLA's own convolutions."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_convolutions import assert_close, case, derivatives, normal, oracle_conv, quick_jit

from jaxgan.nn import conv, winograd
from jaxgan.nn.geometry import Geometry

NAMES = ("conv", "conv_transpose", "conv_kernel_gradient")


@st.composite
def convolutions(draw):
    """Draws what can be computed: strides below the kernel's size, which is at most three times them."""
    rank = draw(st.sampled_from([2, 1]))
    sizes = draw(st.lists(st.sampled_from([(5, 2), (3, 1), (4, 2), (3, 2), (2, 1), (7, 3), (5, 3)]),
                          min_size=rank, max_size=rank))
    kernel_size, strides = zip(*sizes, strict=True)
    spatial = [k + draw(st.integers(0, 6)) for k in kernel_size]
    padding = draw(st.sampled_from(["SAME", "VALID", "pairs"]))
    if padding == "pairs":
        padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in sizes)
    return spatial, kernel_size, strides, padding


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.too_slow])
@given(convolution=convolutions())
def test_agrees_with_xla(name, convolution):
    spatial, kernel_size, strides, padding = convolution
    x, kernel = normal(0, 2, *spatial, 3), normal(1, *kernel_size, 3, 4)
    like = jax.eval_shape(functools.partial(oracle_conv, strides=strides, padding=padding), x, kernel)
    output_size = like.shape[1:-1]
    assume(min(output_size) > 0)
    _, oracle, operands = case(name, x, kernel, normal(2, *like.shape), strides=strides, padding=padding)
    if padding == "SAME":
        totals = [max((m - 1) * s + k - n, 0) for n, k, s, m
                  in zip(spatial, kernel_size, strides, output_size, strict=True)]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    if padding == "VALID":
        padding = ((0, 0),) * len(strides)
    geometry = Geometry(tuple(spatial), kernel_size, output_size, strides, padding, groups=1)
    ours = quick_jit(functools.partial(getattr(winograd, name), geometry=geometry))
    assert_close(ours(*operands), oracle(*operands))


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (3, 1)])
def test_a_cpu_computes_wide_layers_with_fewer_products(kernel, stride):
    """To the second derivative, with an odd number of outputs."""
    shapes = (6, 9, 6, 32), (kernel, kernel, 32, 33)
    options = {"strides": (stride, stride), "padding": "SAME"}
    if jax.default_backend() == "cpu":
        compiled = jax.jit(functools.partial(conv, **options)).lower(
            *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile().as_text()
        dots = re.findall(r"= f32\[([\d,]+)\]\S* dot\(", compiled)
        if stride == 1:
            assert "16,90,33" in dots  # one for all points
        else:
            assert len(dots) == 16  # one for each
    a, b, *tangents = (normal(i, *shape) for i, shape in enumerate(2 * shapes))
    b /= np.sqrt(b[..., 0].size)  # so that outputs, of which sines are taken, are about 1
    ours, oracle = (functools.partial(f, **options) for f in (conv, oracle_conv))
    assert_close(derivatives(ours, a, b, tuple(tangents)), derivatives(oracle, a, b, tuple(tangents)))


@pytest.mark.parametrize(("batch", "parts"), [(6, 3), (7, 7), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_a_batch_in_parts_gives_what_it_gives_whole(name, batch, parts, monkeypatch):
    x, kernel, y = normal(0, batch, 5, 4, 3), normal(1, 3, 3, 3, 8), normal(2, batch, 5, 4, 8)
    operands = {"conv": (x, kernel), "conv_transpose": (y, kernel), "conv_kernel_gradient": (x, y)}[name]
    geometry = Geometry((5, 4), (3, 3), (5, 4), (1, 1), ((1, 1), (1, 1)), groups=1)
    function = functools.partial(getattr(winograd, name), geometry=geometry)
    whole = jax.jit(function)(*operands)
    monkeypatch.setattr(winograd, "_AT_ONCE", batch // parts * 16 * 3 * 2 * 8)  # two or one at a time
    program = jax.jit(functools.partial(function))
    assert ("while" in program.lower(*operands).as_text()) == (parts > 1)
    assert_close(program(*operands), whole)


SUITABLE = Geometry((14, 14), (5, 5), (7, 7), (2, 2), ((1, 2), (1, 2)), groups=1)


@pytest.mark.parametrize(("changes", "batch", "channels", "suits"), [
    ({}, 64, 64, True),
    ({}, 64, 16, False),  # the sums would cost more than the products that they save
    ({}, 1, 64, False),
    ({"groups": 2}, 64, 64, False),
    ({"kernel_size": (7, 7)}, 64, 64, False),  # four taps a phase
    ({"kernel_size": (2, 2)}, 64, 64, False),  # one tap a phase: nothing to save
    ({"padding": ((-1, 2), (1, 2))}, 64, 64, False),
    ({"output_size": (1, 1)}, 64, 64, False),  # half of each tile would be for nothing
    ({"kernel_size": (), "strides": (), "padding": (), "output_size": ()}, 64, 64, False),
])
def test_what_it_is_chosen_for(changes, batch, channels, suits):
    assert winograd.suits(SUITABLE._replace(**changes), batch, channels) == suits


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_loses_little_more_than_plain_products(name):
    """Both compute in bfloat16 what float64 knows, from the same rounded operands."""
    x, kernel, y = (normal(i, *shape).astype(jnp.bfloat16) for i, shape in enumerate(
        [(8, 14, 14, 48), (5, 5, 48, 40), (8, 7, 7, 40)]))
    _, oracle, operands = case(name, x, kernel, y, strides=(2, 2), padding="SAME")
    exact = np.asarray(oracle(*(operand.astype(jnp.float32) for operand in operands)), np.float64)

    def error(values):
        return np.linalg.norm(np.asarray(values, np.float64) - exact) / np.linalg.norm(exact)

    ours = error(quick_jit(functools.partial(getattr(winograd, name), geometry=SUITABLE))(*operands))
    rounding = error(exact.astype(jnp.bfloat16))
    assert ours < 3 * rounding
