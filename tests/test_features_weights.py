"""Files of weights: what was written comes back, and of a damaged or hostile file one sentence."""

import collections
import copy
import io
import os
import pickle
import zipfile
from functools import partial

import ml_dtypes
import numpy as np
import pytest
import torch_files
from torch_files import Parameter, Storage, Tensor

from jaxgan.features import WeightsError, load_pytorch, load_weights, save_weights

FORMATS = [torch_files.zipped, torch_files.legacy]
BY_FORMAT = pytest.mark.parametrize("write", FORMATS, ids=["zip", "legacy"])
BY_SUFFIX = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.running_var": np.array([1.5, -2.0]),
    "a.num_batches_tracked": np.array(7),
    "half": np.array([0.5, 3.0], np.float16),
    "brain": np.array([0.5, 3.0], ml_dtypes.bfloat16),
    "ints": np.array([-1, 2**31 - 1], np.int32),
    "bytes": np.arange(3, dtype=np.uint8),
    "bools": np.array([True, False]),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture(autouse=True)
def names(monkeypatch):
    torch_files.install(monkeypatch)


@pytest.fixture
def load(tmp_path):
    def load(data, read=load_pytorch, suffix=".pth"):
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(data)
        return read(path)
    return load


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def one(storage=None, offset=0, shape=(2, 3), strides=(3, 1)):
    storage = storage or Storage(np.arange(6, dtype=np.float32), "0")
    return {"w": Tensor(storage, offset, shape, strides)}


@BY_FORMAT
@pytest.mark.parametrize("protocol", [2, 4])
def test_pytorch_file(load, write, protocol):
    state = torch_files.tensors(ARRAYS)
    state._metadata = collections.OrderedDict([("", {"version": 1}), ("a", {"version": 2})])
    found = load(write(state, protocol))
    assert_equal(found, ARRAYS)
    found["a.weight"][0] = 1  # a copy of its own, not the file's bytes


@BY_FORMAT
def test_many_tensors(load, write):
    """More than 256 objects take the long opcodes of the memo, and numbers of several lengths."""
    arrays = {f"layer{i}.weight": np.full((i, 2), i, np.float32) for i in range(1, 400)}
    assert_equal(load(write(torch_files.tensors(arrays))), arrays)


@BY_FORMAT
def test_views_of_one_storage(load, write):
    numbers = np.arange(12, dtype=np.float32)
    storage = Storage(numbers, "0")
    found = load(write({"transposed": Tensor(storage, 0, (4, 3), (1, 4)),
                        "column": Parameter(storage, 2, (3,), (4,)),
                        "last": Tensor(storage, 11, (), ())}))
    assert_equal(found, {"transposed": numbers.reshape(3, 4).T, "column": numbers[2::4],
                         "last": numbers[11]})


def test_big_endian(load):
    assert_equal(load(torch_files.zipped(torch_files.tensors(ARRAYS), byteorder="big")), ARRAYS)


@BY_FORMAT
@pytest.mark.parametrize("wrong", [
    {"offset": 1}, {"shape": (2, 4)}, {"strides": (4, 1)}, {"offset": -1}, {"shape": (-2, -3)},
    {"strides": (-3, 1)}, {"strides": (3,)}, {"shape": (2.0, 3)}, {"shape": (2**40, 2**40)},
    {"shape": (2**62, 4), "strides": (0, 0)}, {"offset": 2**70},
])
def test_a_view_stays_inside_its_storage(load, write, wrong):
    with pytest.raises(WeightsError, match=r"exceeds its storage of 6|no tensor has|where int belongs"):
        load(write(one(**wrong)))


@BY_FORMAT
@pytest.mark.parametrize("count", [5, 7, 2**50])
def test_a_storage_holds_what_its_header_says(load, write, count):
    with pytest.raises(WeightsError, match=r"storage (0 |of 5 elem)"):
        load(write(one(Storage(np.arange(6, dtype=np.float32), "0", count))))


@BY_FORMAT
def test_a_storage_has_one_type(load, write):
    numbers = np.arange(6, dtype=np.float32)
    with pytest.raises(WeightsError, match="storage of w is also another's"):
        load(write({**one(Storage(numbers, "0", kind="IntStorage")),
                    "v": Tensor(Storage(numbers, "0"), 0, (6,), (1,))}))


class Hostile:
    """Unpickled, it would call a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@BY_FORMAT
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_executed(load, write, protocol, tmp_path):
    hostile = Hostile(open, str(tmp_path / "made"), "w")
    for state in ({"w": hostile}, {**one(), "w2": [hostile]}, hostile):
        with pytest.raises(WeightsError, match=r"it refers to \w+\.open, which is refused"):
            load(write(state, protocol))
    assert not (tmp_path / "made").exists()


@BY_FORMAT
@pytest.mark.parametrize(("state", "message"), [
    ({"state_dict": one()}, "its entry 'state_dict' is no tensor"),
    ({**one(), "epoch": 3}, "its entry 'epoch' is no tensor"),
    ([1, 2], "it holds a list, not tensors by name"),
    ({3: one()["w"]}, "its entry 3 is no tensor"),
    ({"w": {1}}, "refers to (__builtin__|builtins).set"),
    ({"w": "x" * 10}, "its entry 'w' is no tensor"),
    (Hostile(collections.OrderedDict, [["w", 1]]), "it calls collections.OrderedDict with 1 arg"),
])
def test_what_else_is_no_state_dict(load, write, state, message):
    with pytest.raises(WeightsError, match=f"weights.pth is damaged, or no state dict.*{message}"):
        load(write(state))


@pytest.mark.parametrize("data", [
    b"", b"PK", b"PK\3\4" * 9, b"hello", b"\x80", b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(99),
    pickle.dumps({"w": 1}), pickle.dumps(0x1950A86A20F9469CFC6C, 2), b"(" * 99, b".", b"e.",
    b"I" + b"9" * 9999 + b"\n.", b"\x8d" + b"\xff" * 8, b"\x8b" + b"\xff" * 4,
], ids=lambda data: repr(data[:6]))
def test_foreign_files(load, data):
    with pytest.raises(WeightsError, match="is damaged, or no state dict saved by"):
        load(data)


def shared(depth, bottom=b"K\x01\x85"):
    """The opcodes of a tuple of two equal parts, that are such tuples: 2**depth numbers."""
    return bottom + b"q\x00" + b"h\x00\x86q\x00" * depth


NAMED = b"\x80\x02}X\x01\x00\x00\x00w"  # a dict, and the name of its entry
STORED = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01t"
REBUILT = b"ctorch._utils\n_rebuild_tensor_v2\n("


@BY_FORMAT
@pytest.mark.parametrize("pickled", [
    b"\x80\x02}" + shared(60) + b"K\x01s.",
    b"\x80\x02}(" + shared(60) + b"K\x01u.",
    NAMED + REBUILT + STORED + b"QK\x00" + shared(40) + b"K\x01\x85\x89NtRs.",
    NAMED + REBUILT + STORED + b"QK\x00K\x01\x85" + shared(40) + b"\x89NtRs.",
    NAMED + REBUILT + STORED + b"Q" + shared(40) + b"K\x01\x85K\x01\x85\x89NtRs.",
    NAMED + REBUILT + shared(40) + b"K\x00K\x01\x85K\x01\x85\x89NtRs.",
    NAMED + REBUILT + b"(X\x07\x00\x00\x00storage" + shared(40) + b"NNNtQK\x00))\x89NtRs.",
    NAMED + shared(40) + b"s.",
    b"\x80\x02" + shared(40) + b".",
    b"\x80\x02" + shared(40) + b"Q.",
    b"\x80\x02" + shared(40) + b"\x93.",
    b"\x80\x02" + shared(40) + b")R.",
    b"\x80\x02" + b"}" * 2**21 + b".",
    NAMED + REBUILT + STORED + b"QK\x00(" + b"K\x01" * 1000 + b"t(" + b"K\x00" * 1000 + b"t\x89NtRs.",
], ids=["key", "keys", "shape", "strides", "offset", "storage", "storage's type", "entry", "whole",
        "persistent", "name", "call", "opcodes", "axes"])
def test_no_pickle_takes_for_ever(load, write, pickled):
    """Each is of some hundred bytes, or a few million; hashed, compared or shown it would take 2**40
    steps and more."""
    if write is torch_files.legacy:
        whole = torch_files.legacy({})
        data = whole[:whole.index(b"\x80\x02}", 40)] + pickled  # in the place of the last but one
    else:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", pickled)
            archive.writestr("a/data/0", bytes(4))
        data = file.getvalue()
    with pytest.raises(WeightsError) as caught:
        load(data)
    assert len(str(caught.value)) < 600


def test_the_keys_of_storages_are_not_compared_if_they_are_nested(load):
    whole = torch_files.legacy(one())
    keys = whole.rindex(b"\x80\x02]")
    with pytest.raises(WeightsError, match="it has a tuple where str belongs"):
        load(whole[:keys] + b"\x80\x02](" + shared(60) + shared(60) + b"e.")


@BY_FORMAT
def test_many_tensors_do_not_share_one_storage(load, write):
    storage = Storage(np.zeros(1000, np.float32), "0")
    whole = Tensor(storage, 0, (1000,), (1,))
    assert len(load(write({"a": whole, "b": whole}))) == 2  # tied weights
    with pytest.raises(WeightsError, match="show their storages more than 4 times"):
        load(write({str(i): whole for i in range(5)}))


@BY_FORMAT
def test_long_names_are_cut_in_messages(load, write):
    with pytest.raises(WeightsError, match=r"its entry 'wwww") as caught:
        load(write({"w" * 10**6: 1}))
    assert len(str(caught.value)) < 600


def test_archives_of_another_kind(load):
    with pytest.raises(WeightsError, match="compressed, or larger"):
        load(torch_files.zipped(one(), compression=zipfile.ZIP_DEFLATED))
    for names in ([], ["a/data.pkl", "b/data.pkl"]):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, "x")
        with pytest.raises(WeightsError, match=f"there are {len(names)} data.pkl in it"):
            load(file.getvalue())


def flips(data):
    """The data with one byte changed: each of them, in two ways."""
    for position in range(len(data)):
        for mask in (0x01, 0xFF):
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1:]


SMALL = {name: ARRAYS[name] for name in ("a.weight", "a.num_batches_tracked")}


@BY_FORMAT
def test_truncated_files(load, write):
    data = write(torch_files.tensors(SMALL))
    for length in range(len(data)):
        with pytest.raises(WeightsError, match="is damaged"):
            load(data[:length])


def test_flipped_bytes_of_an_archive_do_not_pass(load):
    for damaged in flips(torch_files.zipped(torch_files.tensors(SMALL))):
        try:
            found = load(damaged)
        except WeightsError:
            continue
        assert_equal(found, SMALL)  # it was a date or the like


def test_flipped_bytes_of_a_legacy_file(load):
    """They have no checksum; nothing but an error in one sentence, or arrays, comes of them."""
    data, errors = torch_files.legacy(torch_files.tensors(SMALL)), 0
    for damaged in flips(data):
        try:
            found = load(damaged)
        except WeightsError:
            errors += 1
        else:
            assert sum(array.nbytes for array in found.values()) <= len(data)
    assert errors > len(data)  # more than half


@BY_SUFFIX
def test_own_files(tmp_path, suffix):
    path = tmp_path / "folder" / f"weights{suffix}"
    arrays = {"params/a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
              "params/b": np.float32(3), "count": np.array([1, 2])}
    save_weights(path, arrays)
    found = load_weights(path)
    assert_equal(dict(sorted(found.items())), dict(sorted(arrays.items())))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@BY_SUFFIX
def test_a_file_is_written_whole_or_not_at_all(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"weights{suffix}"
    save_weights(path, SMALL)

    def fail(*_):
        raise OSError("disk full")
    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, {"other": np.zeros(3)})
    assert load_weights(path).keys() == SMALL.keys()
    assert list(tmp_path.iterdir()) == [path]


@BY_SUFFIX
def test_damage_of_own_files(load, tmp_path, suffix):
    path = tmp_path / f"whole{suffix}"
    save_weights(path, {"w": np.arange(3.0)})
    data = path.read_bytes()
    read = partial(load, read=load_weights, suffix=suffix)
    for length in range(len(data)):
        with pytest.raises(WeightsError, match=f"weights{suffix} is damaged, or no {suffix} file"):
            read(data[:length])
    for damaged in flips(data):
        try:
            found = read(damaged)
        except WeightsError:
            continue
        if suffix == ".npz":  # which has checksums
            assert_equal(found, {"w": np.arange(3.0)})


def test_own_files_hold_no_pickles(tmp_path):
    np.savez(tmp_path / "weights.npz", w=np.array([{}], object))
    with pytest.raises(WeightsError, match=r"is damaged, or no \.npz file"):
        load_weights(tmp_path / "weights.npz")
    np.save(tmp_path / "weights.npy", np.zeros(3))
    (tmp_path / "weights.npy").rename(tmp_path / "weights.npz")
    with pytest.raises(WeightsError, match=r"is damaged, or no \.npz file"):
        load_weights(tmp_path / "weights.npz")


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def overlapping(member, count):
    """An archive whose entries all are the same bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w0.npy", member)
        first, = archive.infolist()
        for i in range(1, count):
            other = copy.copy(first)
            other.filename = f"w{i}.npy"
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True
    return file.getvalue()


@pytest.mark.parametrize("make", [
    lambda: np.savez_compressed, lambda: lambda file, w: file.write(overlapping(npy(w), 100)),
    lambda: lambda file, w: file.write(overlapping(npy(w)[:-8], 1)),
    lambda: lambda file, w: file.write(overlapping(npy(w).replace(b"(1000,)", b"(9**9,)"), 1)),
    lambda: lambda file, w: file.write(overlapping(npy(w).replace(b"(1000,)", b"(9999,)"), 1)),
], ids=["compressed", "overlapping", "cut", "no shape", "too large"])
def test_archives_that_take_more_than_their_length(tmp_path, make):
    path = tmp_path / "weights.npz"
    with path.open("wb") as file:
        make()(file, w=np.zeros(1000))
    with pytest.raises(WeightsError, match=r"is damaged, or no \.npz file"):
        load_weights(path)


@pytest.mark.parametrize(("read", "suffix"), [(load_weights, ".npz"), (load_weights, ".safetensors"),
                                              (load_pytorch, ".pth")])
def test_only_files_are_read(tmp_path, monkeypatch, read, suffix):
    path = tmp_path / f"weights{suffix}"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        read(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        read(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**33)  # takes no room
    with pytest.raises(OSError, match="larger than 4294967296 bytes"):
        read(path)


def test_other_suffixes(tmp_path):
    for call in (partial(save_weights, flat={}), load_weights):
        with pytest.raises(WeightsError, match=r"end in .npz or .safetensors; got 'weights.bin'"):
            call(tmp_path / "weights.bin")


def test_missing_files(tmp_path):
    for read in (load_pytorch, load_weights):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "weights.npz")


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_pytorch_itself(tmp_path, zipped, monkeypatch):
    monkeypatch.undo()  # the real names
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, (1, 7), bias=False), torch.nn.BatchNorm2d(4),
                                  torch.nn.Linear(4, 300))
    whole = torch.randn(4, 5)
    state = network.state_dict() | {
        "transposed": whole.T, "column": whole[1:, 2], "parameter": torch.nn.Parameter(torch.ones(2)),
        "half": whole.half(), "double": whole.double(), "int": whole.int(), "byte": whole.byte(),
        "bool": whole > 0, "long": whole.long(), "empty": torch.zeros(0, 2)}
    for value in (state, network.state_dict()):
        torch.save(value, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        assert_equal(load_pytorch(tmp_path / "w.pth"),
                     {name: tensor.detach().numpy() for name, tensor in value.items()})
    torch.save({"w": whole.bfloat16()}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(load_pytorch(tmp_path / "w.pth")["w"].astype(np.float32),
                                  whole.bfloat16().float().numpy())
    torch.save(network, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"it refers to torch.nn.modules.container.Sequential"):
        load_pytorch(tmp_path / "w.pth")
