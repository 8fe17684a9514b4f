"""Files of arrays: found, shaped, scaled and undone, refused by a sentence, and never trusted."""

import io
import os
import pickle
import sys
import zipfile

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxgan import memory
from jaxgan.data import (
    DataNotFoundError,
    Dataset,
    Part,
    draw_step,
    in_memory,
    load,
    open_arrays,
    resident,
    streaming,
)
from jaxgan.data.arrays import stored_in
from jaxgan.data.scaling import Scaling, found, from_json

RANDOM = np.random.default_rng(0)


def save(folder, **arrays):
    """The same arrays in a .npz and an HDF5 file, and the first as .npy."""
    np.savez(folder / "a.npz", **arrays)
    with h5py.File(folder / "a.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype("S") if array.dtype.kind == "U" else array
    np.save(folder / "a.npy", next(iter(arrays.values())))
    return [folder / f"a.{suffix}" for suffix in ("npz", "h5", "npy")]


@pytest.mark.parametrize(("shape", "options", "kind", "sample_shape"), [
    ((), {}, "vectors", (1,)),
    ((7,), {}, "vectors", (7,)),
    ((40,), {"kind": "series"}, "series", (40, 1)),
    ((40, 3), {}, "series", (40, 3)),
    ((28, 20), {}, "images", (28, 20, 1)),
    ((28, 20), {"kind": "series"}, "series", (28, 20)),
    ((3, 40), {"channels": "first"}, "series", (40, 3)),
    ((8, 9, 3), {}, "images", (8, 9, 3)),
    ((3, 20, 30), {"channels": "first"}, "images", (20, 30, 3)),
    ((3, 20, 30), {"channels": "none"}, "volumes", (3, 20, 30, 1)),
    ((3, 8, 9), {"kind": "volumes"}, "volumes", (3, 8, 9, 1)),
    ((4, 8, 9, 2), {}, "volumes", (4, 8, 9, 2)),
    ((2, 4, 18, 19), {"channels": "first"}, "volumes", (4, 18, 19, 2)),
    ((4, 5, 6), {"kind": "vectors"}, "vectors", (120,)),
])
def test_what_a_shape_is_taken_for(tmp_path, shape, options, kind, sample_shape):
    data = RANDOM.normal(size=(20, *shape)).astype(np.float32)
    np.save(tmp_path / "x.npy", data)
    train, test = open_arrays(tmp_path / "x.npy", **options)
    assert (train.kind, train.sample_shape, len(train), len(test)) == (kind, sample_shape, 18, 2)
    expected = np.moveaxis(data, 1, -1) if options.get("channels") == "first" else data
    np.testing.assert_array_equal(train[np.array([3, 0])][0],
                                  expected[[3, 0]].reshape(2, *sample_shape))
    np.testing.assert_array_equal(test[:][0], expected[[9, 19]].reshape(2, *sample_shape))


@pytest.mark.parametrize(("shape", "options", "message"), [
    ((3, 20, 30), {}, "seem to have their channels first: give --channels first"),
    ((2, 3, 4, 5, 6), {}, "too many axes"),
    ((2, 3), {"kind": "volumes"}, "are no volumes: give another"),
    ((7,), {"kind": "images"}, r"samples of shape \[7\] are no images"),
    ((7,), {"kind": "sounds"}, "kind must be one of vectors, series"),
])
def test_shapes_that_are_refused(tmp_path, shape, options, message):
    np.save(tmp_path / "x.npy", np.ones((20, *shape)))
    with pytest.raises(ValueError, match=message):
        open_arrays(tmp_path / "x.npy", **options)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "int32", "uint32",
                                   "int64", "float16", "float32", "float64"])
def test_every_type_is_scaled_and_undone(tmp_path, dtype):
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        data = RANDOM.integers(limits.min // 2, limits.max // 2, (30, 5)).astype(dtype)
    else:
        data = RANDOM.normal(0, 20, (30, 5)).clip(0 if dtype == "bool" else None).astype(dtype)
    data[0], data[1] = data.min(), data.max()
    np.save(tmp_path / "x.npy", data)
    train, _ = open_arrays(tmp_path / "x.npy", by_channel=False)
    here, streamed = (drawn(make(train)) for make in (resident, streaming))
    np.testing.assert_array_equal(here, streamed)
    assert here.dtype == np.float32
    low, high = (0, 255) if dtype == "uint8" else (float(data.min()), float(data.max()))
    known = (np.sort(train[:][0].astype(float), axis=0) - low) / (high - low) * 2 - 1
    np.testing.assert_allclose(np.sort(here, axis=0), known, atol=1e-6)
    undone = np.sort(train.scaling.to_data(here), axis=0)
    assert undone.dtype == data.dtype
    precision = {1: 0, 2: 0 if dtype != "float16" else 1e-3}.get(data.dtype.itemsize, 1e-6)
    np.testing.assert_allclose(undone.astype(float), np.sort(train[:][0].astype(float), axis=0), rtol=0,
                               atol=precision * (high - low))


def drawn(source):
    """The first epoch of a source."""
    rows = np.arange(source.size, dtype=np.uint32)
    arrays = jax.device_put(source.arrays if source.window is None else
                            source.window(jax.random.key(0), np.zeros_like(rows), rows, Part()))
    return np.asarray(draw_step(source, arrays, jax.random.key(0), 0, source.size, rows).samples)


def test_each_variable_has_its_own_range_or_all_one(tmp_path):
    data = np.array([[0, 10], [5, 30], [10, 20]] * 10)
    np.save(tmp_path / "x.npy", data)
    train, test = open_arrays(tmp_path / "x.npy")
    assert train.scaling == Scaling((0.0, 10.0), (10.0, 30.0), "int64") == test.scaling
    np.testing.assert_allclose(train.scaling.to_float(data[:3]), [[-1, -1], [0, 1], [1, 0]])
    one, _ = open_arrays(tmp_path / "x.npy", by_channel=False)
    assert (one.scaling.low, one.scaling.high) == ((0.0,), (30.0,))
    given, _ = open_arrays(tmp_path / "x.npy", value_range=(-10, 40))
    np.testing.assert_allclose(given.scaling.to_float(np.array([-10, 15, 40])), [-1, 0, 1])


@given(st.integers(-2**40, 2**40), st.integers(1, 2**40), st.sampled_from(["int64", "uint64", "int8"]))
@settings(max_examples=50, deadline=None)
def test_numbers_beyond_a_type_become_its_ends(low, width, dtype):
    scaling, limits = Scaling((float(low),), (float(low + width),), dtype), np.iinfo(dtype)
    found = scaling.to_data(np.array([-np.inf, -1, 1, np.inf, np.nan]))
    assert found[0] == found[4] == limits.min
    assert found[3] == limits.max
    for value, exact in zip(found[1:3], (low, low + width), strict=True):
        assert abs(int(value) - min(max(exact, limits.min), limits.max)) <= 1 + width * 2**-40


def test_conditions_are_classes_or_numbers(tmp_path):
    count = 30
    arrays = {"x": RANDOM.normal(size=(count, 4)), "label": np.arange(count) % 3,
              "from_one": np.arange(count) % 2 + 1, "word": np.array(["cat", "ant", "bee"] * 10),
              "angle": RANDOM.normal(size=count), "box": RANDOM.uniform(size=(count, 4))}
    for path in save(tmp_path, **arrays)[:2]:
        train, test = open_arrays(path, condition="label")
        assert train.class_names == ("0", "1", "2")
        np.testing.assert_array_equal(test.labels, [9 % 3, 19 % 3, 29 % 3])
        train, _ = open_arrays(path, condition="word")
        assert train.class_names == ("ant", "bee", "cat")
        np.testing.assert_array_equal(train.labels[:3], [2, 0, 1])
        assert open_arrays(path, condition="from_one").train.class_names == ("1", "2")
        train, _ = open_arrays(path, condition="box")
        assert (train.numbers.shape, train.class_names) == ((27, 4), ())
        source = resident(train, numbers=True)
        assert source.numbers == train.number_scaling
        batch = draw_step(source, source.arrays, jax.random.key(1), 0, 27, jnp.arange(27))
        # A sample keeps what belongs to it.
        rows = [int(np.abs(train[:][0] - sample).sum(1).argmin()) for sample in
                train.scaling.to_data(batch.samples)]
        np.testing.assert_allclose(batch.condition, train.number_scaling.to_float(train.numbers[rows]),
                                   atol=1e-6)
        assert open_arrays(path, condition="angle").train.numbers.shape == (27, 1)
    np.save(tmp_path / "names.npy", arrays["word"])
    assert open_arrays(tmp_path / "a.npy", condition=str(tmp_path / "names.npy")).train.class_names == (
        "ant", "bee", "cat")


@pytest.mark.parametrize(("arrays", "options", "message"), [
    ({"x": np.ones((9, 2)), "y": np.ones(9)}, {"samples": "z"}, "no array 'z' in .*, which has x"),
    ({"a": np.ones((9, 2)), "b": np.ones(9)}, {}, "has the arrays a .9, 2. of float64, b .* say which"),
    ({"x": np.ones((9, 2))}, {}, "all values of variable 0 are 1: there is nothing to learn"),
    ({"x": np.full((9, 2), 7)}, {"by_channel": False}, "all values are 7"),
    ({"x": np.r_[np.eye(9), [[np.nan] * 4 + [np.inf] * 5]]}, {"value_range": (0, 1)},
     r"9 of 90 values are NaN or infinite, the first at \[9, 0\]"),
    ({"x": np.r_[[[np.nan] * 4 + [np.inf] * 5], np.eye(9)]}, {},
     r"9 of 90 values are NaN or infinite, the first at \[0, 0\]"),
    ({"x": np.ones((1, 2))}, {}, "at least two samples"),
    ({"x": np.ones((9, 0))}, {}, "at least two samples"),
    ({"x": np.ones(())}, {}, "at least two samples"),
    ({"x": np.array([["a"], ["b"]] * 5)}, {}, "samples must be numbers"),
    ({"x": np.ones((9, 2)) * 1j}, {}, "samples must be numbers"),
    ({"x": RANDOM.normal(size=(9, 2)), "y": np.arange(8)}, {"condition": "y", "samples": "x"},
     "y has 8 values, and there are 9 samples"),
    ({"x": RANDOM.normal(size=(9, 2)), "y": np.ones((9, 2, 2))}, {"condition": "y", "samples": "x"},
     "must be a class for each sample"),
    ({"x": RANDOM.normal(size=(900, 2)), "y": np.arange(900)}, {"condition": "y", "samples": "x"},
     "900 different values for 900 samples, too many"),
    ({"x": RANDOM.normal(size=(9, 2)), "y": np.ones(9)}, {"condition": "y", "samples": "x"},
     "all values of channel 0|all values are 1"),
    ({"x": RANDOM.normal(size=(9, 2)), "y": np.ones((9, 2))}, {"weights": "y", "samples": "x"},
     "one weight for each"),
    ({"x": RANDOM.normal(size=(9, 2))}, {"value_range": (3, 3)}, "must be above the lowest; got 3 to 3"),
])
def test_what_can_not_be_trained_on_is_refused(tmp_path, arrays, options, message):
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        open_arrays(path, **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(DataNotFoundError, match="there is no file"):
        open_arrays(tmp_path / "nothing.npy")
    (tmp_path / "a.mat").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must end in .npy, .npz, .h5, .hdf5"):
        open_arrays(tmp_path / "a.mat")
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(DataNotFoundError, match="there is no file"):
        open_arrays(tmp_path / "pipe.npy")


class Evil:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_nothing_is_unpickled(tmp_path):
    evil = np.array([Evil(tmp_path / "mark")], object)
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=evil)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(ValueError, match=r"can't be read \((it holds Python objects|the magic)"):
            open_arrays(tmp_path / name)
    assert not (tmp_path / "mark").exists()


def header(shape, dtype="<f4"):
    """A .npy file's beginning, without what it promises."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_what_files_declare_is_checked_before_memory_is_taken(tmp_path):
    (tmp_path / "a.npy").write_bytes(header((2**40, 2**20)))
    (tmp_path / "b.npy").write_bytes(header((10**30, 2)))
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((4, 4)) + bytes(2**24))  # more than it says
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header((2**40, 2**20)))
    for name in "abcd":
        path = next(tmp_path.glob(f"{name}.*"))
        with pytest.raises(ValueError, match=f"{path.name} can't be read|takes .* GB"):
            open_arrays(path)


@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_damaged_files_are_one_sentence(tmp_path, suffix):
    path = next(path for path in save(tmp_path, x=RANDOM.normal(size=(30, 5)))
                if path.suffix == f".{suffix}")
    whole = path.read_bytes()
    for cut in (0, 5, 60, 200, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=path.name) as caught:
            open_arrays(path).train[:]
        assert "\n" not in str(caught.value)


def test_hdf5_leads_nowhere_else(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.eye(20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["own"] = np.eye(20)
        file["outside"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        file["soft"] = h5py.SoftLink("/own")
        file.create_dataset("raw", (20, 20), "f8", external=[(str(tmp_path / "secret.h5"), 0, 3200)])
        layout = h5py.VirtualLayout((20, 20), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (20, 20))
        file.create_virtual_dataset("virtual", layout)
        file["group/within"] = np.eye(20)
        file["group/back"] = file["group"]  # a hard link to what it is in
    assert {name for name in stored_in(tmp_path / "a.h5") if not name.count("back")} == {
        "own", "group/within"}


def test_large_files_stay_on_disk(tmp_path):
    """A file of 8 GB with holes is opened, but for its values, in no memory to speak of."""
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(header((2**21, 1000), "<u4"))
        file.truncate(file.tell() + 2**21 * 4000)
    array = stored_in(tmp_path / "x.npy")[""]
    assert array.shape == (2**21, 1000)
    assert array.open()[np.array([0, 2**20])].sum() == 0


def test_arrays_in_memory_of_any_integers():
    source = in_memory(np.array([[100, 300], [200, 200]] * 4, np.uint16))
    assert source.scaling == Scaling((100.0,), (300.0,), "uint16")
    assert sorted(np.unique(drawn(source))) == [-1, 0, 1]
    assert in_memory(np.zeros((4, 2), np.uint8)).scaling is None
    pair = in_memory({"a": np.arange(8, dtype=np.int16), "b": np.ones((8, 2), np.float32)})
    assert pair.scaling is None
    with pytest.raises(TypeError, match="samples must be numbers"):
        in_memory(np.array(["a", "b"]))
    with pytest.raises(ValueError, match="all values are 3"):
        in_memory(np.full((4, 2), 3))


def test_images_of_sixteen_bits_and_of_floats():
    for dtype in ("uint16", "float32"):
        images = RANDOM.uniform(500, 4000, (10, 4, 6, 1)).astype(dtype)
        scaling = found(images)
        dataset = Dataset("own", images, np.zeros(10, np.int32), ("all",), scaling=scaling)
        source = resident(dataset)
        undone = np.sort(scaling.to_data(drawn(source)), axis=0)
        np.testing.assert_allclose(undone, np.sort(images, axis=0), rtol=1e-5, atol=0)
        with pytest.raises(ValueError, match="without dequantize"):
            resident(dataset, value_range=(0.0, 1.0))
        with pytest.raises(TypeError, match="images must be uint8"):
            Dataset("own", images, np.zeros(10, np.int32), ("all",))


@pytest.mark.parametrize("value", [{}, {"low": 1, "high": 2, "dtype": "f4"}, {"low": [0], "high": [1]},
                                   {"low": [0], "high": [1], "dtype": "O"}, [1], "x",
                                   {"low": ["a"], "high": [1], "dtype": "u1"},
                                   {"low": [10**400], "high": [1], "dtype": "u1"}])
def test_scalings_from_files_are_checked(value):
    with pytest.raises(ValueError, match=r".+"):
        from_json(value)
    assert from_json({"low": [0], "high": [2.5], "dtype": "uint16"}) == Scaling((0.0,), (2.5,), "uint16")


def test_the_order_of_bytes_does_not_matter(tmp_path):
    """As astronomers' files have them."""
    data = RANDOM.integers(0, 4000, (20, 6))
    found = []
    for order in "<>":
        np.save(tmp_path / "x.npy", data.astype(f"{order}i2"))
        train, _ = open_arrays(tmp_path / "x.npy")
        found.append((train.scaling, train.digest, drawn(resident(train)).tolist()))
    assert found[0] == found[1]
    assert found[0][0].dtype == "int16"


def test_more_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", RANDOM.normal(size=(20, 6)))
    train, _ = open_arrays(tmp_path / "x.npy")
    monkeypatch.setattr(memory, "available", lambda: 800)
    with pytest.raises(ValueError, match=r"18 samples take 8.64e-07 GB, and there are .*stream them"):
        resident(train)
    assert streaming(train).size == 18


def test_a_folder_of_more_than_the_memory_is_refused(tmp_path, monkeypatch):
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(memory, "available", lambda: 300)
    with pytest.raises(ValueError, match=r"its 3 images take 5.76e-07 GB, .* or read them on demand"):
        load(f"folder:{tmp_path}", "all", image_size=8)


def test_what_is_missing_for_hdf5_is_named(tmp_path, monkeypatch):
    path = save(tmp_path, x=RANDOM.normal(size=(30, 5)))[1]
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataNotFoundError, match="is HDF5, which needs h5py: pip install h5py"):
        open_arrays(path)


@pytest.mark.parametrize(("values", "message"), [
    ([np.nan, *range(19)], r"kind in .* can't be a condition: 1 of 20 values are NaN or infinite"),
    ([*range(19), np.inf], r"1 of 20 .*, the first at \[19, 0\]"),  # held out
    ([*range(19), 1e300], r"kind in .* can't be a condition: there are numbers beyond 3.4e\+38: scale"),
    ([2.0] * 20, r"kind in .* can't be a condition: all values are 2"),
])
def test_numbers_that_can_be_no_condition(tmp_path, values, message):
    np.savez(tmp_path / "a.npz", samples=RANDOM.normal(size=(20, 3)), kind=np.array(values, np.float64))
    with pytest.raises(ValueError, match=message):
        open_arrays(tmp_path / "a.npz", condition="kind")


def test_a_class_that_is_held_out_as_a_whole(tmp_path):
    np.savez(tmp_path / "a.npz", samples=RANDOM.normal(size=(40, 3)), digit=np.arange(40) % 10)
    with pytest.raises(ValueError, match="all samples of the class 9 are held out, as the last of"):
        open_arrays(tmp_path / "a.npz", condition="digit")


def test_samples_are_what_is_left_beside_conditions_and_weights(tmp_path):
    np.savez(tmp_path / "a.npz", measured=RANDOM.normal(size=(20, 3)), kind=np.arange(20) % 2,
             often=np.ones(20))
    with pytest.raises(ValueError, match="say which are the samples, --samples measured"):
        open_arrays(tmp_path / "a.npz", condition="kind")
    split = open_arrays(tmp_path / "a.npz", condition="kind", weights="often")
    assert split.train.sample_shape == (3,)


def test_a_range_that_no_number_holds(tmp_path):
    values = RANDOM.uniform(size=(20, 2))
    values[0, 1], values[1, 1] = -1.7e308, 1.7e308
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"variable 1 reach from -1.7e\+308 to 1.7e\+308, further"):
        open_arrays(tmp_path / "a.npy")


def test_a_folder_is_no_file_of_arrays(tmp_path):
    with pytest.raises(DataNotFoundError, match="is a folder: name the file in it"):
        open_arrays(tmp_path)
