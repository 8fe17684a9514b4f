"""Files as `torch.save` writes them, made without PyTorch: pickles of stand-ins with its names."""

import collections
import io
import pickle
import sys
import types
import zipfile

STORAGES = {"float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage",
            "bfloat16": "BFloat16Storage", "int64": "LongStorage", "int32": "IntStorage",
            "uint8": "ByteStorage", "bool": "BoolStorage"}


class Storage:
    def __init__(self, array, key, count=None, kind=None):
        self.array, self.key, self.kind = array, key, kind or STORAGES[array.dtype.name]
        self.count = array.size if count is None else count


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Parameter(Tensor):
    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_parameter, (
            Tensor(*self.arguments[:4]), True, collections.OrderedDict())


def tensors(arrays):
    """One storage a tensor, numbered, in the order of the arrays."""
    return collections.OrderedDict(
        (name, Tensor(Storage(array, str(number)), 0, array.shape,
                      tuple(stride // array.itemsize for stride in array.strides)))
        for number, (name, array) in enumerate(arrays.items()))


def install(monkeypatch):
    """Puts the names where pickle looks for them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda: None).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def dump(stream, state, protocol, *more):
    """Pickles a state, and returns its storages by key."""
    storages = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            storages[value.key] = value
            kind = getattr(sys.modules["torch"], value.kind)
            return ("storage", kind, value.key, "cpu", value.count, *more)

    Pickler(stream, protocol).dump(state)
    return storages


def zipped(state, protocol=2, byteorder="little", compression=zipfile.ZIP_STORED):
    file, pickled = io.BytesIO(), io.BytesIO()
    storages = dump(pickled, state, protocol)
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, storage in storages.items():
            array = storage.array.byteswap() if byteorder == "big" else storage.array
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def legacy(state, protocol=2):
    file = io.BytesIO()
    sizes = {"protocol_version": 1001, "little_endian": True,
             "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for value in (0x1950A86A20F9469CFC6C, 1001, sizes):
        pickle.dump(value, file, 2)
    storages = dump(file, state, protocol, None)
    pickle.dump(sorted(storages), file, 2)
    for key in sorted(storages):
        file.write(storages[key].count.to_bytes(8, "little") + storages[key].array.tobytes())
    return file.getvalue()
