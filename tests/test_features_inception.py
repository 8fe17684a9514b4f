"""The Inception network of FID: shapes and numbers against tables, loops and PyTorch."""

import math
import sys
import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files
from flax.traverse_util import flatten_dict

from experiments import convert_inception
from jaxgan.digests import params_digest
from jaxgan.features import InceptionV3, WeightsError, inception, load_inception, save_weights
from jaxgan.features.inception import from_pytorch, preprocess, resize_bilinear_tf1

FILE = "pt_inception-2015-12-05-6726825d.pth"


# The layers, from the articles and the port: name, output and input channels, kernel.


def _layers():
    for name, out, inputs, *kernel in (
            ("1a_3x3", 32, 3, 3, 3), ("2a_3x3", 32, 32, 3, 3), ("2b_3x3", 64, 32, 3, 3),
            ("3b_1x1", 80, 64, 1, 1), ("4a_3x3", 192, 80, 3, 3)):
        yield f"Conv2d_{name}", (out, inputs, *kernel)
    for block, i, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        yield from _block(block, {
            "branch1x1": (64, i, 1, 1), "branch5x5_1": (48, i, 1, 1), "branch5x5_2": (64, 48, 5, 5),
            "branch3x3dbl_1": (64, i, 1, 1), "branch3x3dbl_2": (96, 64, 3, 3),
            "branch3x3dbl_3": (96, 96, 3, 3), "branch_pool": (pool, i, 1, 1)})
    yield from _block("6a", {
        "branch3x3": (384, 288, 3, 3), "branch3x3dbl_1": (64, 288, 1, 1),
        "branch3x3dbl_2": (96, 64, 3, 3), "branch3x3dbl_3": (96, 96, 3, 3)})
    for block, c in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield from _block(block, {
            "branch1x1": (192, 768, 1, 1), "branch7x7_1": (c, 768, 1, 1), "branch7x7_2": (c, c, 1, 7),
            "branch7x7_3": (192, c, 7, 1), "branch7x7dbl_1": (c, 768, 1, 1),
            "branch7x7dbl_2": (c, c, 7, 1), "branch7x7dbl_3": (c, c, 1, 7),
            "branch7x7dbl_4": (c, c, 7, 1), "branch7x7dbl_5": (192, c, 1, 7),
            "branch_pool": (192, 768, 1, 1)})
    yield from _block("7a", {
        "branch3x3_1": (192, 768, 1, 1), "branch3x3_2": (320, 192, 3, 3),
        "branch7x7x3_1": (192, 768, 1, 1), "branch7x7x3_2": (192, 192, 1, 7),
        "branch7x7x3_3": (192, 192, 7, 1), "branch7x7x3_4": (192, 192, 3, 3)})
    for block, i in (("7b", 1280), ("7c", 2048)):
        yield from _block(block, {
            "branch1x1": (320, i, 1, 1), "branch3x3_1": (384, i, 1, 1),
            "branch3x3_2a": (384, 384, 1, 3), "branch3x3_2b": (384, 384, 3, 1),
            "branch3x3dbl_1": (448, i, 1, 1), "branch3x3dbl_2": (384, 448, 3, 3),
            "branch3x3dbl_3a": (384, 384, 1, 3), "branch3x3dbl_3b": (384, 384, 3, 1),
            "branch_pool": (192, i, 1, 1)})


def _block(block, layers):
    return ((f"Mixed_{block}.{name}", shape) for name, shape in layers.items())


LAYERS = dict(_layers())


@pytest.fixture(scope="module")
def state():
    """A PyTorch state dict of random weights and statistics that keep activations of order one."""
    def uniform(name, low, high, *shape):
        values = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
        return low + (high - low) * values

    state = {}
    for name, shape in LAYERS.items():
        bound = math.sqrt(6 / math.prod(shape[1:]))
        state[f"{name}.conv.weight"] = uniform(f"{name}.conv", -bound, bound, *shape)
        for part, low, high in (("weight", 0.5, 1.5), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5),
                                ("running_var", 0.5, 1.5)):
            state[f"{name}.bn.{part}"] = uniform(f"{name}.bn.{part}", low, high, shape[0])
        state[f"{name}.bn.num_batches_tracked"] = np.array(0)
    state["fc.weight"] = uniform("fc.weight", -0.05, 0.05, 1008, 2048)
    state["fc.bias"] = uniform("fc.bias", -1, 1, 1008)
    return state


# Shapes.


STAGES = {
    "Conv2d_1a_3x3": ((299, 299, 3), (149, 149, 32)), "Conv2d_2a_3x3": ((149, 149, 32), (147, 147, 32)),
    "Conv2d_2b_3x3": ((147, 147, 32), (147, 147, 64)), "Conv2d_3b_1x1": ((73, 73, 64), (73, 73, 80)),
    "Conv2d_4a_3x3": ((73, 73, 80), (71, 71, 192)), "Mixed_5b": ((35, 35, 192), (35, 35, 256)),
    "Mixed_5c": ((35, 35, 256), (35, 35, 288)), "Mixed_5d": ((35, 35, 288), (35, 35, 288)),
    "Mixed_6a": ((35, 35, 288), (17, 17, 768)), "Mixed_6b": ((17, 17, 768), (17, 17, 768)),
    "Mixed_6c": ((17, 17, 768), (17, 17, 768)), "Mixed_6d": ((17, 17, 768), (17, 17, 768)),
    "Mixed_6e": ((17, 17, 768), (17, 17, 768)), "Mixed_7a": ((17, 17, 768), (8, 8, 1280)),
    "Mixed_7b": ((8, 8, 1280), (8, 8, 2048)), "Mixed_7c": ((8, 8, 2048), (8, 8, 2048)),
    "fc": ((2048,), (1008,))}


def test_shapes_of_the_stages():
    seen = {}

    def record(call, arguments, options, context):
        output = call(*arguments, **options)
        if len(context.module.path) == 1:
            seen[context.module.name] = (arguments[0].shape[1:], output.shape[1:])
        return output

    with nn.intercept_methods(record):
        jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((2, 299, 299, 3)))
    assert seen == STAGES


def test_number_of_parameters():
    # Of each layer the kernel and BatchNorm's scale and bias; statistics are as many as the latter.
    kernels = sum(map(math.prod, LAYERS.values()))
    channels = sum(shape[0] for shape in LAYERS.values())
    variables = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))
    counts = {collection: sum(leaf.size for leaf in jax.tree.leaves(leaves))
              for collection, leaves in variables.items()}
    assert counts == {"params": kernels + 2 * channels + 2048 * 1008 + 1008,
                      "batch_stats": 2 * channels}
    assert counts["params"] == 23_850_960


# The input.


def _resized(images, size):
    """TensorFlow 1's resize, pixel by pixel, in float32."""
    scale = [np.float32(old) / np.float32(new) for old, new in zip(images.shape[1:3], size, strict=True)]
    result = np.empty((len(images), *size, images.shape[3]), np.float32)
    for row in range(size[0]):
        y = np.float32(row) * scale[0]
        top = int(y)
        bottom = min(top + 1, images.shape[1] - 1)
        for column in range(size[1]):
            x = np.float32(column) * scale[1]
            left = int(x)
            right = min(left + 1, images.shape[2] - 1)
            corners = images.astype(np.float32)
            upper = corners[:, top, left] + (corners[:, top, right] - corners[:, top, left]) * (x - left)
            lower = corners[:, bottom, left] + (
                corners[:, bottom, right] - corners[:, bottom, left]) * (x - left)
            result[:, row, column] = upper + (lower - upper) * (y - top)
    return result


def test_resize_by_hand():
    # Four pixels of two: at 0, 1/2, 1 and 3/2, where the last one has no neighbour to the right.
    image = jnp.array([[0, 10], [20, 50]], jnp.uint8).reshape(1, 2, 2, 1)
    expected = [[0, 5, 10, 10], [10, 20, 30, 30], [20, 35, 50, 50], [20, 35, 50, 50]]
    np.testing.assert_array_equal(resize_bilinear_tf1(image, (4, 4))[0, :, :, 0], expected)
    # Two pixels of three: at 0 and 3/2.
    image = jnp.array([0.0, 4.0, 10.0]).reshape(1, 1, 3, 1)
    np.testing.assert_array_equal(resize_bilinear_tf1(image, (1, 2))[0, 0, :, 0], [0, 7])


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (1, 28, 17, 1), (1, 70, 61, 2), (1, 1, 1, 3)])
def test_resize_is_tensorflows(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = jax.jit(resize_bilinear_tf1, static_argnums=1)(images, (61, 75))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _resized(images, (61, 75)), rtol=0, atol=1e-4)


def test_preprocessing():
    pixels = jnp.array([0, 128, 255], jnp.uint8)
    for value, expected in zip(pixels, (-1.0, 0.0, 127 / 128), strict=True):
        found = preprocess(jnp.full((1, 5, 7, 3), value))
        np.testing.assert_array_equal(found, np.full((1, 299, 299, 3), expected, np.float32))
    grey = jnp.arange(64, dtype=jnp.uint8).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(preprocess(grey), preprocess(jnp.repeat(grey, 3, axis=-1)))


@pytest.mark.parametrize(("images", "error", "message"), [
    (np.zeros((1, 8, 8, 3), np.float32), TypeError, "images must be uint8; got float32"),
    (np.zeros((1, 8, 8, 4), np.uint8), ValueError, r"1 or 3\]; got \(1, 8, 8, 4\)"),
    (np.zeros((8, 8, 3), np.uint8), ValueError, r"got \(8, 8, 3\)"),
])
def test_unfit_images(images, error, message):
    with pytest.raises(error, match=message):
        preprocess(images)


# The weights.


def test_conversion(state):
    variables = from_pytorch(state)
    np.testing.assert_array_equal(variables["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"],
                                  state["Mixed_6b.branch7x7_2.conv.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(variables["params"]["fc"]["kernel"], state["fc.weight"].T)
    for collection, ours, theirs in (("params", "scale", "weight"), ("params", "bias", "bias"),
                                     ("batch_stats", "mean", "running_mean"),
                                     ("batch_stats", "var", "running_var")):
        np.testing.assert_array_equal(variables[collection]["Conv2d_1a_3x3"]["bn"][ours],
                                      state[f"Conv2d_1a_3x3.bn.{theirs}"])


def test_what_is_no_part_of_the_features_is_ignored(state):
    without = {name: array for name, array in state.items() if "num_batches" not in name}
    assert len(flatten_dict(from_pytorch(without))) == len(without)
    from_pytorch(state | {"AuxLogits.conv0.conv.weight": np.zeros(3)})


@pytest.mark.parametrize(("change", "message"), [
    ({"fc.bias": None, "Mixed_5b.branch1x1.conv.weight": None},
     r"x.pth isn't .*: it lacks Mixed_5b.branch1x1.conv.weight, fc.bias$"),
    (dict.fromkeys([f"Conv2d_{name}.bn.weight" for name in ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1")]),
     r"it lacks Conv2d_1a_3x3.bn.weight, .*, Conv2d_2b_3x3.bn.weight and 1 more"),
    ({"layer.bias": np.zeros(3)}, r"it has the unknown layer.bias$"),
    ({"fc.weight": np.zeros((1000, 2048))},
     r"it has fc.weight of shape \(1000, 2048\), not \(1008, 2048\)"),
])
def test_other_weights(state, change, message):
    changed = {name: array for name, array in (state | change).items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        from_pytorch(changed, "x.pth")


def test_files_of_all_kinds_hold_the_same_network(state, tmp_path, monkeypatch, capsys):
    torch_files.install(monkeypatch)
    source = tmp_path / "inception.pth"
    source.write_bytes(torch_files.legacy(torch_files.tensors(state)))
    digest = params_digest(from_pytorch(state))
    for suffix in (".npz", ".safetensors"):
        out = tmp_path / f"inception{suffix}"
        convert_inception.main(convert_inception.Options(str(source), str(out)))
        assert capsys.readouterr().out == f"{out}: digest {digest}\n"
        monkeypatch.setenv("JAXGAN_INCEPTION", str(out))
        network = inception()
        assert (network.name, network.digest) == ("inception", digest)
        out.unlink()
    monkeypatch.setenv("JAXGAN_INCEPTION", "other.npz")
    seen = jax.eval_shape(inception(source).apply, network.variables,
                          jax.ShapeDtypeStruct((5, 28, 28, 1), jnp.uint8))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tuple(seen)) == (
        ((5, 2048), jnp.float32), ((5, 1008), jnp.float32))


def test_missing_and_damaged_files(tmp_path, monkeypatch):
    monkeypatch.delenv("JAXGAN_INCEPTION", raising=False)
    with pytest.raises(WeightsError, match=rf"{FILE} of the release fid_weights of https://github.com/mseitzer/"
                       "pytorch-fid and pass it with --inception, or set JAXGAN_INCEPTION to it"):
        inception()
    path = tmp_path / FILE
    with pytest.raises(WeightsError, match=f"there is no file {path} .*{FILE} of the release"):
        inception(path)
    path.write_bytes(b"abc")  # whose SHA-256 the standard gives as ba7816bf...
    with pytest.raises(WeightsError, match="its SHA-256 begins with ba7816bf, not with 6726825d"):
        inception(path)
    path.rename(tmp_path / "x-ba7816bf.pth")
    with pytest.raises(WeightsError, match=r"x-ba7816bf.pth is damaged, or no state dict"):
        inception(tmp_path / "x-ba7816bf.pth")
    save_weights(tmp_path / "x.npz", {"params/fc/bias": np.zeros(1008)})
    with pytest.raises(WeightsError, match=r"x.npz isn't .*: it lacks batch_stats/Conv2d_1a_3x3/bn/m"):
        load_inception(tmp_path / "x.npz")
    (tmp_path / "x.bin").write_bytes(b"abc")
    with pytest.raises(WeightsError, match=r"\.pth, \.pt, \.npz or \.safetensors; got 'x\.bin'"):
        inception(tmp_path / "x.bin")


# The numbers.


def _torch_inception(state, images):
    """The features and logits as PyTorch computes them, NCHW."""
    import torch
    F = torch.nn.functional
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}

    def layer(x, name, *, stride=1, same=True):
        kernel = tensors[f"{name}.conv.weight"]
        padding = [side // 2 for side in kernel.shape[2:]] if same else 0
        x = F.conv2d(x, kernel, stride=stride, padding=padding)
        weight, bias, mean, var = (tensors[f"{name}.bn.{part}"]
                                   for part in ("weight", "bias", "running_mean", "running_var"))
        return F.relu(F.batch_norm(x, mean, var, weight, bias, eps=1e-3))

    def valid(x, name, stride=1):
        return layer(x, name, stride=stride, same=False)

    def through(x, *names):
        for name in names:
            x = layer(x, name)
        return x

    def average(x):
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    x = valid(valid(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
    x = F.max_pool2d(layer(x, "Conv2d_2b_3x3"), 3, 2)
    x = F.max_pool2d(valid(layer(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
    for block in ("Mixed_5b.", "Mixed_5c.", "Mixed_5d."):
        x = torch.cat([
            layer(x, block + "branch1x1"),
            through(x, block + "branch5x5_1", block + "branch5x5_2"),
            through(x, *(f"{block}branch3x3dbl_{i}" for i in (1, 2, 3))),
            layer(average(x), block + "branch_pool")], 1)
    double = through(x, "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2")
    x = torch.cat([valid(x, "Mixed_6a.branch3x3", 2), valid(double, "Mixed_6a.branch3x3dbl_3", 2),
                   F.max_pool2d(x, 3, 2)], 1)
    for block in ("Mixed_6b.", "Mixed_6c.", "Mixed_6d.", "Mixed_6e."):
        x = torch.cat([
            layer(x, block + "branch1x1"),
            through(x, *(f"{block}branch7x7_{i}" for i in (1, 2, 3))),
            through(x, *(f"{block}branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
            layer(average(x), block + "branch_pool")], 1)
    double = through(x, *(f"Mixed_7a.branch7x7x3_{i}" for i in (1, 2, 3)))
    x = torch.cat([valid(layer(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", 2),
                   valid(double, "Mixed_7a.branch7x7x3_4", 2), F.max_pool2d(x, 3, 2)], 1)
    for block, pool in (("Mixed_7b.", average), ("Mixed_7c.", lambda x: F.max_pool2d(x, 3, 1, 1))):
        single = layer(x, block + "branch3x3_1")
        double = through(x, block + "branch3x3dbl_1", block + "branch3x3dbl_2")
        x = torch.cat([
            layer(x, block + "branch1x1"),
            layer(single, block + "branch3x3_2a"), layer(single, block + "branch3x3_2b"),
            layer(double, block + "branch3x3dbl_3a"), layer(double, block + "branch3x3dbl_3b"),
            layer(pool(x), block + "branch_pool")], 1)
    pooled = x.mean((2, 3))
    return pooled.numpy(), F.linear(pooled, tensors["fc.weight"], tensors["fc.bias"]).numpy()


def test_features_and_logits_are_pytorchs(state, tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    pooled, logits = _torch_inception(state, (_resized(images, (299, 299)) - 128) / 128)
    assert pooled.std() > 0.1  # neither died out nor all alike
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    for zipped in (True, False):
        torch.save(tensors, tmp_path / "inception.pth", _use_new_zipfile_serialization=zipped)
        network = inception(tmp_path / "inception.pth")
        assert network.digest == params_digest(from_pytorch(state))
    found = jax.jit(network.apply)(network.variables, images)
    biased = jax.jit(InceptionV3(bias=True).apply)(network.variables, preprocess(images))
    np.testing.assert_allclose(found.pooled, pooled, rtol=1e-4, atol=1e-4 * np.abs(pooled).max())
    for ours, theirs in ((found.logits, logits - state["fc.bias"]), (biased.logits, logits)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(logits).max())
    # What is differentiated gives the network the same inputs.
    monkeypatch.setattr(sys.modules[preprocess.__module__], "_apply", lambda variables, inputs: inputs)
    np.testing.assert_allclose(network.see({}, jnp.asarray(images / 255, jnp.float32)),
                               network.apply({}, jnp.asarray(images)), atol=1e-5)
