"""The convolutions and their derivatives against XLA's own, and the layers against Flax's."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxgan.nn import Conv, ConvTranspose, Dense, conv, conv_kernel_gradient, conv_transpose

TOLERANCE = 1e-5

# Most of the time goes into compiling, half of it into LLVM's optimisations.
quick_jit = functools.partial(jax.jit, compiler_options={
    "xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_close(actual, expected, tolerance=TOLERANCE):
    """Compares by norm, leaf by leaf: ||actual - expected|| <= tolerance ||expected||."""
    def check(a, b):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.linalg.norm(a - b) <= tolerance * max(np.linalg.norm(b), 1e-6)
    jax.tree.map(check, actual, expected)


# Oracles: `conv_general_dilated` and its own transposes.


def oracle_conv(x, kernel, *, strides, padding, groups=1):
    spatial = "HW"[:x.ndim - 2]
    dimensions = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions,
                                    feature_group_count=groups, precision="highest")


def oracle_conv_transpose(y, kernel, *, output_size, groups=1, **options):
    def forward(x):
        return oracle_conv(x, kernel, groups=groups, **options)
    shape = (y.shape[0], *output_size, kernel.shape[-2] * groups)
    return jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]


def oracle_conv_kernel_gradient(x, y, *, kernel_size, groups=1, **options):
    def forward(kernel):
        return oracle_conv(x, kernel, groups=groups, **options)
    shape = (*kernel_size, x.shape[-1] // groups, y.shape[-1])
    return jax.linear_transpose(forward, jax.ShapeDtypeStruct(shape, x.dtype))(y)[0]


OPERATIONS = {
    "conv": (conv, oracle_conv),
    "conv_transpose": (conv_transpose, oracle_conv_transpose),
    "conv_kernel_gradient": (conv_kernel_gradient, oracle_conv_kernel_gradient),
}


def case(name, x, kernel, y, **options):
    """Returns ours and the oracle, as functions of two operands, and the operands."""
    if name == "conv_transpose":
        options["output_size"] = x.shape[1:-1]
    if name == "conv_kernel_gradient":
        options["kernel_size"] = kernel.shape[:-2]
    operands = {"conv": (x, kernel), "conv_transpose": (y, kernel), "conv_kernel_gradient": (x, y)}
    ours, oracle = OPERATIONS[name]
    return (functools.partial(ours, **options), functools.partial(oracle, **options),
            operands[name])


@functools.partial(quick_jit, static_argnums=0)
def derivatives(function, a, b, tangents):
    """Returns the value and the first and second derivatives of `function` in every mode."""
    def score(a, b):
        return jnp.sum(jnp.sin(function(a, b)))

    def penalty(a, b):
        return jnp.sum(jax.grad(score)(a, b) ** 2)

    both = (0, 1)
    return {
        "value": function(a, b),
        "gradient": jax.grad(score, both)(a, b),
        "tangent": jax.jvp(function, (a, b), tangents)[1],
        "reverse over reverse": jax.grad(penalty, both)(a, b),
        "forward over reverse": jax.jvp(jax.grad(score, both), (a, b), tangents)[1],
    }


@st.composite
def geometries(draw):
    """Draws operand shapes and options; the telling values come first, as few examples are drawn."""
    def several(values, count):
        return tuple(draw(st.lists(st.sampled_from(values), min_size=count, max_size=count)))

    rank = draw(st.sampled_from([2, 1]))
    kernel_size, strides = several([3, 5, 2, 4, 1], rank), several([2, 1, 3], rank)
    spatial = tuple(map(sum, zip(kernel_size, several([3, 2, 1, 0, 4], rank), strict=True)))
    padding = draw(st.sampled_from(["SAME", "VALID", "pairs"]))
    if padding == "pairs":
        padding = tuple(zip(several([1, 2, 0], rank), several([2, 0, 1], rank), strict=True))
    groups, (in_group, out_group) = draw(st.sampled_from([2, 1])), several([2, 1], 2)
    x = jax.ShapeDtypeStruct((2, *spatial, groups * in_group), jnp.float32)
    kernel = jax.ShapeDtypeStruct((*kernel_size, in_group, groups * out_group), jnp.float32)
    return x, kernel, {"strides": strides, "padding": padding, "groups": groups}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=8, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.too_slow])
@given(geometry=geometries())
def test_agrees_with_xla_to_the_second_derivative(name, geometry):
    x, kernel, options = geometry
    y = jax.eval_shape(functools.partial(oracle_conv, **options), x, kernel)
    ours, oracle, (a, b) = case(name, *(normal(i, *like.shape) for i, like
                                        in enumerate((x, kernel, y))), **options)
    tangents = normal(3, *a.shape), normal(4, *b.shape)
    assert_close(derivatives(ours, a, b, tangents), derivatives(oracle, a, b, tangents))


@pytest.mark.parametrize("name", OPERATIONS)
def test_groups_of_several_channels_agree_with_xla_to_the_second_derivative(name):
    """A CPU computes them one after the other, by another way than small ones."""
    ours, oracle, (a, b) = case(name, normal(0, 2, 5, 4, 12), normal(1, 3, 3, 4, 15),
                                normal(2, 2, 5, 4, 15), strides=(1, 1), padding="SAME", groups=3)
    tangents = normal(3, *a.shape), normal(4, *b.shape)
    assert_close(derivatives(ours, a, b, tangents), derivatives(oracle, a, b, tangents))


def strided(name, groups=1):
    return case(name, normal(0, 2, 6, 5, 4), normal(1, 3, 2, 4 // groups, 6), normal(2, 2, 3, 3, 6),
                strides=(2, 2), padding="SAME", groups=groups)


@pytest.mark.parametrize("name", OPERATIONS)
def test_third_derivative(name):
    def third(function, a, b):
        def score(a):
            return jnp.sum(jnp.sin(function(a, b)))

        def slope(a):
            return jnp.sum(jax.grad(score)(a) ** 2)

        return jax.grad(lambda a: jnp.sum(jax.grad(slope)(a) ** 2))(a)

    ours, oracle, operands = strided(name)
    third = quick_jit(third, static_argnums=0)
    assert_close(third(ours, *operands), third(oracle, *operands))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [(1, None), (None, 2), (-1, 0)])
def test_vmap_is_a_loop(name, groups, axes):
    ours, _, operands = strided(name, groups)
    stacks = [jnp.stack([v, 2 * v, v + 1]) for v in operands]
    looped = [ours(*(v if axis is None else stack[i] for v, axis, stack
                     in zip(operands, axes, stacks, strict=True))) for i in range(3)]
    mapped = [v if axis is None else jnp.moveaxis(stack, 0, axis) for v, axis, stack
              in zip(operands, axes, stacks, strict=True)]
    assert_close(jax.vmap(ours, axes)(*mapped), jnp.stack(looped))


@pytest.mark.parametrize("axes", [(0, 0), (1, 2), (None, 0), (0, None)])
def test_dense_layers_of_several_networks_are_one_product(axes):
    """A batch of products, without a copy of what is multiplied."""
    x, kernel, y = normal(0, 4, 3), normal(1, 3, 5), normal(2, 4, 5)
    whole = {"strides": (), "padding": "VALID"}
    for function, operands in ((functools.partial(conv, **whole), (x, kernel)),
                               (functools.partial(conv_transpose, **whole), (y, kernel)),
                               (functools.partial(conv_kernel_gradient, kernel_size=(), **whole),
                                (x, y))):
        stacks = [jnp.stack([v, 2 * v, v + 1]) for v in operands]
        mapped = [v if axis is None else jnp.moveaxis(stack, 0, axis) for v, axis, stack
                  in zip(operands, axes, stacks, strict=True)]
        found = jax.vmap(function, axes)(*mapped)
        for i in range(3):
            alone = function(*(v if axis is None else stack[i] for v, axis, stack
                               in zip(operands, axes, stacks, strict=True)))
            assert_close(found[i], alone)
        if None not in axes:
            program = str(jax.make_jaxpr(jax.vmap(function, axes))(*mapped))
            assert "dot_general" in program
            assert "reshape" not in program


def penalty(kernels, x, convolve=conv):
    """A gradient penalty on a critic of two strided layers and one of stride 1."""
    def score(x):
        for kernel, stride in zip(kernels, (2, 2, 1), strict=True):
            x = jnp.tanh(convolve(x, kernel, strides=(stride, stride), padding="SAME"))
        return jnp.sum(x)
    slopes = jnp.sqrt(jnp.sum(jax.grad(score)(x) ** 2, axis=(1, 2, 3)))
    return jnp.mean((slopes - 1) ** 2)


KERNELS = [(5, 5, 2, 3), (5, 5, 3, 4), (3, 3, 4, 2)]


def critic():
    return [normal(i, *shape) / 5 for i, shape in enumerate(KERNELS)], normal(3, 8, 8, 8, 2)


def test_penalty_under_every_transformation():
    kernels, x = critic()
    expected = quick_jit(jax.grad(functools.partial(penalty, convolve=oracle_conv)))(kernels, x)
    gradient = jax.grad(penalty)
    assert_close(quick_jit(gradient)(kernels, x), expected)
    assert_close(quick_jit(jax.grad(jax.checkpoint(penalty)))(kernels, x), expected)

    _, scanned = quick_jit(lambda *a: lax.scan(lambda c, _: (c, gradient(*a)), 0, length=2))(
        kernels, x)
    assert_close(jax.tree.map(lambda g: g[1], scanned), expected)

    devices = jax.local_device_count()
    shards = x.reshape(devices, -1, *x.shape[1:])
    averaged = jax.pmap(lambda *a: lax.pmean(gradient(*a), "devices"), "devices",
                        in_axes=(None, 0), out_axes=None)(kernels, shards)
    assert_close(averaged, expected)


def test_eagerly_without_jit():
    ours, oracle, (x, kernel) = strided("conv")
    with jax.disable_jit():
        gradient = jax.grad(lambda x: jnp.sum(ours(x, kernel) ** 2))(x)
    assert_close(gradient, jax.grad(lambda x: jnp.sum(oracle(x, kernel) ** 2))(x))


def test_on_a_cpu_no_derivative_dilates():
    if jax.default_backend() != "cpu":
        pytest.skip("about the CPU's lowering")

    def compiled(convolve):
        gradient = jax.grad(functools.partial(penalty, convolve=convolve))
        return jax.jit(gradient).lower(*critic()).compile().as_text()

    assert re.search("[lr]hs_dilate", compiled(oracle_conv))
    assert not re.search("[lr]hs_dilate", compiled(conv))


def test_elsewhere_it_is_xlas_convolution():
    lowered = jax.jit(jax.grad(penalty)).trace(*critic()).lower(lowering_platforms=("tpu",))
    assert "lhs_dilate = [2, 2]" in lowered.as_text()
    assert "gather" not in lowered.as_text()


@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_are_flipped_right_before_the_convolution(groups):
    """Where a compiler looks for it, to take both as one or to undo the flip."""
    transposed = functools.partial(conv_transpose, strides=(2, 2), padding="SAME", groups=groups)
    text = jax.jit(transposed).trace(jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 4 // groups, 4))).lower(
        lowering_platforms=("tpu",)).as_text()
    flipped, = re.findall(r"(%\w+) = stablehlo.reverse", text)
    assert re.search(rf"stablehlo.convolution\(%\w+, {flipped}\)", text)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("strides", [(1,), (2,)])
def test_bfloat16_sums_in_float32(name, strides):
    many = 1024  # a sum of ones in bfloat16 ends at 256
    sizes = {"conv": (1, many, 1), "conv_transpose": (1, 1, many),
             "conv_kernel_gradient": (many, 1, 1)}
    batch, in_channels, out_channels = sizes[name]
    ones = functools.partial(jnp.ones, dtype=jnp.bfloat16)
    function, _, operands = case(name, ones((batch, 2, in_channels)),
                                 ones((2, in_channels, out_channels)),
                                 ones((batch, 1, out_channels)), strides=strides, padding="VALID")
    out = function(*operands)
    assert out.dtype == jnp.bfloat16
    assert np.all(np.asarray(out, np.float32) == (2 * many if name == "conv" else many))
    for platform in ("cpu", "cuda", "tpu"):
        text = jax.jit(function).trace(*operands).lower(lowering_platforms=(platform,)).as_text()
        results = re.findall(r"(?:dot_general|convolution)\b.*-> tensor<[0-9x]*x(\w+)>", text)
        # Others sum in float32 by themselves; a GPU would compute all of it in that if asked for it.
        assert results == ["f32" if platform == "cpu" else "bf16"]


def test_nan_stays_where_it_is():
    x = normal(0, 1, 9, 1).at[0, 0, 0].set(jnp.nan)
    y = conv(x, normal(1, 3, 1, 1), strides=(2,), padding="SAME")
    assert np.isnan(y).ravel().tolist() == [True, False, False, False, False]


def test_transposed_size():
    y, kernel = normal(0, 1, 4, 3, 2), normal(1, 5, 5, 1, 2)
    assert conv_transpose(y, kernel, strides=(2, 3), padding="SAME").shape == (1, 8, 9, 1)
    assert conv_transpose(y, kernel, strides=(2, 3), padding="VALID").shape == (1, 11, 11, 1)
    for size in ((7, 7), (8, 9)):
        x = conv_transpose(y, kernel, strides=(2, 3), padding="SAME", output_size=size)
        assert x.shape == (1, *size, 1)


X, KERNEL = np.zeros((2, 8, 8, 4), np.float32), np.zeros((3, 3, 4, 6), np.float32)
Y = np.zeros((2, 4, 4, 6), np.float32)
SAME = {"strides": (2, 2), "padding": "SAME"}


@pytest.mark.parametrize(("call", "error", "text"), [
    (lambda: conv(X[0], KERNEL, **SAME), ValueError, r"same rank.*got \(8, 8, 4\) and"),
    (lambda: conv(X, KERNEL.astype(np.float16), **SAME), TypeError, "float32 and float16: cast"),
    (lambda: conv(X.astype(int), KERNEL.astype(int), **SAME), TypeError, "floating dtype; got int"),
    (lambda: conv(X[..., :3], KERNEL, **SAME), ValueError, "x has 3 channels.* takes 4"),
    (lambda: conv(X, KERNEL, groups=4, **SAME), ValueError, "groups=4 must divide.* 6 output"),
    (lambda: conv(X, KERNEL, groups=0, **SAME), ValueError, "groups=0 must divide"),
    (lambda: conv(X, KERNEL, strides=2, padding="SAME"), ValueError, "2 positive.*got 2"),
    (lambda: conv(X, KERNEL, strides=(2,), padding="SAME"), ValueError, r"2 positive.*got \(2,\)"),
    (lambda: conv(X, KERNEL, strides=(0, 1), padding="SAME"), ValueError, r"positive.*\(0, 1\)"),
    (lambda: conv(X, KERNEL, strides=(1, 1), padding="same"), ValueError, "'SAME', .*got 'same'"),
    (lambda: conv(X, KERNEL, strides=(1, 1), padding=(1, 1)), ValueError, r"pairs.*got \(1, 1\)"),
    (lambda: conv(X[:, :2], KERNEL, strides=(1, 1), padding="VALID"), ValueError,
     r"\(3, 3\) does not fit an input of size \(2, 8\)"),
    (lambda: conv_transpose(Y[..., :5], KERNEL, **SAME), ValueError, "y has 5 channels.*takes 6"),
    (lambda: conv_transpose(Y, KERNEL, output_size=(9, 8), **SAME), ValueError,
     r"size \(9, 8\) gives \(5, 4\), not y's \(4, 4\)"),
    (lambda: conv_transpose(Y, KERNEL, output_size=(8,), **SAME), ValueError, r"\(8,\) needs one"),
    (lambda: conv_kernel_gradient(X, Y, kernel_size=3, **SAME), ValueError, "2 numbers.*got 3"),
    (lambda: conv_kernel_gradient(X, Y[:1], kernel_size=(3, 3), **SAME), ValueError,
     r"must have shape \(2, 4, 4, 'channels'\).*got \(1, 4, 4, 6\)"),
    (lambda: Conv(6, 3).init(jax.random.key(0), X), ValueError, "Conv: kernel_size must be 2.*got"),
])
def test_what_does_not_fit_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()


def assert_same_layer(ours, stock, x, **options):
    """Compares the shapes of the parameters, and the outputs for the same random ones."""
    like, variables = (jax.eval_shape(functools.partial(layer.init, **options), jax.random.key(0), x)
                       for layer in (ours, stock))
    assert like == variables
    variables = jax.tree.map(lambda v: normal(v.size, *v.shape), variables)
    assert_close(ours.apply(variables, x, **options), stock.apply(variables, x, **options))


LAYERS = [
    ((7, 8, 4), {"kernel_size": (5, 5), "strides": 2}),
    ((8, 8, 4), {"kernel_size": (4, 4), "strides": (2, 1), "use_bias": False}),
    ((7, 8, 4), {"kernel_size": (2, 3), "strides": (3, 2)}),
    ((9, 8, 4), {"kernel_size": (3, 3), "strides": (2, 3), "padding": "VALID"}),
    ((9, 4), {"kernel_size": (5,), "strides": (2,)}),
    ((9, 4), {"kernel_size": (5,)}),
]


@pytest.mark.parametrize(("shape", "options"), [
    *LAYERS, ((8, 8, 4), {"kernel_size": (3, 3), "strides": 2, "padding": ((1, 2), (0, 3))})])
def test_conv_is_flaxs(shape, options):
    flax_options = dict(options, strides=options.get("strides", 1))
    assert_same_layer(Conv(6, **options), nn.Conv(6, **flax_options), normal(0, 2, *shape))
    assert_same_layer(Conv(6, groups=2, **options),
                      nn.Conv(6, feature_group_count=2, **flax_options), normal(0, 2, *shape))


class Resampling(nn.Module):
    """A layer of Flax's, and what comes before or after it by itself."""
    kernel_size: tuple[int, ...]
    resample: str

    @nn.compact
    def __call__(self, x):
        axes = range(1, x.ndim - 1)
        for axis in axes if self.resample == "up" else ():
            x = jnp.repeat(x, 2, axis)
        x = nn.Conv(6, self.kernel_size, name="layer")(x)
        return x if self.resample == "up" else nn.avg_pool(x, *((2,) * len(axes),) * 2)


class Resampled(nn.Module):
    kernel_size: tuple[int, ...]
    resample: str

    @nn.compact
    def __call__(self, x):
        return Conv(6, self.kernel_size, resample=self.resample, name="layer")(x)


@pytest.mark.parametrize("resample", ["up", "down"])
@pytest.mark.parametrize(("shape", "kernel_size"), [
    ((6, 8, 3), (3, 3)), pytest.param((6, 4, 3), (1, 5), marks=pytest.mark.slow), ((8, 3), (3,))])
def test_resampling_by_the_convolution_is_the_same_in_one(resample, shape, kernel_size):
    """Value and gradients; the borders, where padding is repeated or averaged, too."""
    x = normal(0, 2, *shape)
    assert_same_layer(Resampled(kernel_size, resample), Resampling(kernel_size, resample), x)
    ours, stock = (layer(kernel_size, resample) for layer in (Resampled, Resampling))
    variables = stock.init(jax.random.key(0), x)

    def penalty(layer, variables):
        gradient = jax.grad(lambda x: jnp.sum(jnp.sin(layer.apply(variables, x))))(x)
        return jnp.sum(gradient**2)

    assert_close(*(jax.grad(functools.partial(penalty, layer))(variables) for layer in (ours, stock)))


@pytest.mark.parametrize(("options", "shape", "text"), [
    ({"resample": "double"}, (4, 4), "must be 'none', 'up' or 'down'; got 'double'"),
    ({"resample": "up", "strides": 2}, (4, 4), "takes stride 1, .*; got 2,"),
    ({"resample": "up", "groups": 2}, (4, 4), "one group; .* and 2"),
    ({"resample": "down", "kernel_size": (2, 2)}, (4, 4), r"odd size .* \(2, 2\)"),
    ({"resample": "down", "padding": "VALID"}, (4, 4), "'VALID'"),
    ({"resample": "down"}, (4, 5), r"halves even sizes; got \(4, 5\)")])
def test_resampling_that_a_layer_cant_do_is_refused(options, shape, text):
    layer = Conv(6, **{"kernel_size": (3, 3)} | options)
    with pytest.raises(ValueError, match=text):
        layer.init(jax.random.key(0), jnp.ones((1, *shape, 4)))


@pytest.mark.parametrize(("shape", "options"), LAYERS)
def test_conv_transpose_is_flaxs(shape, options):
    strides = options.get("strides", 1)
    if isinstance(strides, int):
        strides = (strides,) * len(options["kernel_size"])
    stock = nn.ConvTranspose(6, transpose_kernel=True, **dict(options, strides=strides))
    assert_same_layer(ConvTranspose(6, **options), stock, normal(0, 2, *shape))


def test_conv_transpose_by_groups():
    layer = ConvTranspose(6, (3,), strides=2, groups=2, use_bias=False)
    y, kernel = normal(0, 2, 5, 4), normal(1, 3, 3, 4)
    variables = {"params": {"kernel": kernel}}
    halves = [ConvTranspose(3, (3,), strides=2, use_bias=False).apply(
        {"params": {"kernel": kernel[..., half]}}, y[..., half])
        for half in (slice(0, 2), slice(2, 4))]
    assert_close(layer.apply(variables, y), jnp.concatenate(halves, axis=-1))


def test_dense_is_flaxs_to_the_second_derivative():
    x = normal(0, 3, 5)
    assert_same_layer(Dense(6), nn.Dense(6), x)
    assert_same_layer(Dense(6, use_bias=False), nn.Dense(6, use_bias=False), x)
    kernel, tangents = normal(1, 5, 6), (normal(2, 3, 5), normal(3, 5, 6))
    product = functools.partial(conv, strides=(), padding="SAME")
    assert_close(derivatives(product, x, kernel, tangents), derivatives(jnp.matmul, x, kernel, tangents))


def test_dense_in_bfloat16_sums_in_float32():
    """Of 4096 products of one, a bfloat16 sum would stop at 256."""
    ones = jnp.ones((1, 4096), jnp.bfloat16)
    assert conv(ones, ones.T, strides=(), padding="SAME") == 4096


def test_layers_under_spectral_norm():
    class Stock(nn.Module):
        layer: type

        @nn.compact
        def __call__(self, x, update_stats):
            return nn.SpectralNorm(self.layer(6, (3, 3), strides=(2, 2), name="layer"))(
                x, update_stats=update_stats)

    assert_same_layer(Stock(Conv), Stock(nn.Conv), normal(0, 2, 8, 8, 4), update_stats=False)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
@pytest.mark.parametrize(("dtype", "param_dtype", "expected"), [
    (None, "float32", "float32"), (None, "bfloat16", "bfloat16"), ("float32", "bfloat16", "float32"),
    ("bfloat16", "float32", "bfloat16")])
def test_layer_dtypes(layer, dtype, param_dtype, expected):
    layer = layer(6, (3,), dtype=dtype, param_dtype=param_dtype)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0),
                                  jax.ShapeDtypeStruct((2, 8, 4), jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(param_dtype)}
    assert y.dtype == expected
