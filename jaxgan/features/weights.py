"""Weights in files: the project's own layout, and PyTorch's state dicts, read without running them.

A file is data here. Of the pickles inside PyTorch's files only the opcodes are decoded, and a small
interpreter builds dicts, tuples, numbers and descriptions of tensors from them, nothing else. No file
takes more time or memory than its length lets expect: archives are not compressed, and what is nested in
a pickle is neither hashed, compared nor shown, which takes for ever where its parts are shared.
"""

import io
import math
import os
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jaxgan import files
from jaxgan.extras import needs

_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files written before PyTorch 1.6
_DTYPES = {"torch.DoubleStorage": np.float64, "torch.FloatStorage": np.float32,
           "torch.HalfStorage": np.float16, "torch.BFloat16Storage": ml_dtypes.bfloat16,
           "torch.LongStorage": np.int64, "torch.IntStorage": np.int32,
           "torch.ByteStorage": np.uint8, "torch.BoolStorage": np.bool_}
MOST_BYTES = 2**32  # of a file
_MOST_OPCODES = 2**20  # of a pickle: state dicts have some forty for each tensor
_MOST_AXES = 64  # of an array, as in NumPy
_MOST_COPIES = 4  # of a storage's numbers, in the tensors that view it
_FUNCTIONS = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2",
              "torch._utils._rebuild_parameter"}


class WeightsError(ValueError):
    """A file of weights is missing, damaged, or of another kind."""


def save_weights(path: str | os.PathLike, flat: Mapping[str, np.ndarray],
                 about: Mapping[str, str] | None = None) -> None:
    """Writes arrays by name, whole or not at all.

    Args:
        path: a file whose name ends in .npz or .safetensors, which decides how it is written.
        flat: arrays by name, as `load_weights` returns them.
        about: texts by name, which a .safetensors file holds as well (`load_about`).

    Raises:
        WeightsError: the name ends otherwise, or there are texts for a .npz file.
    """
    path = Path(path)
    flat = {name: np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
            for name, array in flat.items()}
    write = _choose(path, {".npz": _write_npz,
                           ".safetensors": partial(_write_safetensors, about=about)})
    if about and path.suffix != ".safetensors":
        raise WeightsError(f"texts are for .safetensors files; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with unfinished.open("wb") as file:
            write(file, flat)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads what `save_weights` wrote.

    Raises:
        OSError: the file can't be read.
        WeightsError: its name ends neither in .npz nor in .safetensors, or it is damaged.
    """
    path = Path(path)
    read = _choose(path, {".npz": _read_npz, ".safetensors": _read_safetensors})
    data = files.read(path, MOST_BYTES)
    with _damage(f"{path} is damaged, or no {path.suffix} file"):
        return read(data)


def load_about(path: str | os.PathLike) -> dict[str, str]:
    """Reads the texts in a .safetensors file, {} if it has none.

    Raises:
        OSError: the file can't be read.
        WeightsError: it is damaged.
    """
    data = files.read(path, MOST_BYTES)
    with _damage(f"{path} is damaged, or no .safetensors file"):
        header = files.parse_json(data[8:8 + int.from_bytes(data[:8], "little")])
        return {name: str(text) for name, text in header.get("__metadata__", {}).items()}


def load_pytorch(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a state dict that `torch.save` wrote, in either of its formats.

    Nothing in the file is executed: of the names that it may refer to, only those of ordered dicts,
    tensors, parameters and storages are understood.

    Args:
        path: a file of PyTorch 1.6 or later (a zip archive), or of an earlier one (pickles, and the
            storages after them).

    Returns:
        The arrays by name, in the file's order; copies of their own.

    Raises:
        OSError: the file can't be read.
        WeightsError: it is damaged, or holds something else than tensors by name.
    """
    data = files.read(path, MOST_BYTES)
    with _damage(f"{path} is damaged, or no state dict saved by torch.save"):
        return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)


def _choose(path: Path, by_suffix: dict[str, Callable]) -> Callable:
    if path.suffix not in by_suffix:
        raise WeightsError(f"weights are in files that end in {' or '.join(by_suffix)}; "
                           f"got {path.name!r}")
    return by_suffix[path.suffix]


@contextmanager
def _damage(sentence: str):
    """Turns whatever goes wrong with bytes that are already read into one sentence."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{sentence}: {str(error)[:300]}") from error
    except Exception as error:  # damage meets every kind of check in zipfile, pickletools and numpy
        raise WeightsError(sentence) from error


def _write_npz(file: BinaryIO, flat: dict[str, np.ndarray]) -> None:
    np.savez(file, **flat)  # pyright: ignore[reportArgumentType]: no array is called allow_pickle


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    with _archive(data) as archive:
        return {name.removesuffix(".npy"): _read_npy(archive.read(name)) for name in archive.namelist()}


def _read_npy(data: bytes) -> np.ndarray:
    """Reads an array; its header's shape is compared with the length before memory is taken."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                   (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, _, dtype = read_header(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise WeightsError(f"an array of shape {shape} and type {dtype} doesn't fit its file")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False)


def _archive(data: bytes) -> zipfile.ZipFile:
    """Opens a zip archive whose members take no more than its own bytes."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    members = archive.infolist()
    # Stored members alone, none of them twice: all together they can't be larger than the file.
    if (any(member.compress_type != zipfile.ZIP_STORED for member in members)
            or sum(member.file_size for member in members) > len(data)):
        raise WeightsError("its members are compressed, or larger than the file")
    return archive


def _write_safetensors(file: BinaryIO, flat: dict[str, np.ndarray],
                       about: Mapping[str, str] | None) -> None:
    needs("safetensors")
    import safetensors.numpy

    file.write(safetensors.numpy.save(flat, dict(about or {}) or None))


def _read_safetensors(data: bytes) -> dict[str, np.ndarray]:
    needs("safetensors")
    import safetensors.numpy

    return safetensors.numpy.load(data)


class _Global(NamedTuple):
    name: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * self.dtype.itemsize


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with _archive(data) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"there are {len(pickles)} data.pkl in it")
        folder = pickles[0].removesuffix("data.pkl")

        def read(name: str) -> bytes:
            return archive.read(folder + name)

        tensors = _tensors(_interpret(io.BytesIO(read("data.pkl"))))
        storages = {key: _elements(storage, read(f"data/{key}"))
                    for key, storage in _storages(tensors).items()}
        if folder + "byteorder" in archive.namelist() and read("byteorder") != b"little":
            storages = {key: elements.byteswap() for key, elements in storages.items()}
    return _views(tensors, storages)


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _interpret(stream) != _MAGIC_NUMBER or _interpret(stream) != _PROTOCOL:
        raise WeightsError("it doesn't begin as one")
    _interpret(stream)  # the sizes of C types on the machine that wrote it
    tensors = _tensors(_interpret(stream))
    keys, known, storages, position = _interpret(stream), _storages(tensors), {}, stream.tell()
    if sorted(_of(str, key) for key in _of(list, keys)) != sorted(known):
        raise WeightsError("its storages are not those of its tensors")
    for key in keys:
        start, storage = position + 8, known[key]
        position = start + storage.size
        if int.from_bytes(data[start - 8:start], "little") != storage.count or position > len(data):
            raise WeightsError(f"the storage {key} is not of {storage.count} elements")
        storages[key] = _elements(storage, memoryview(data)[start:position])
    return _views(tensors, storages)


def _tensors(state: Any) -> dict[str, _Tensor]:
    """Returns the state dict if it is one."""
    if not isinstance(state, dict):
        raise WeightsError(f"it holds a {type(state).__name__.strip('_').lower()}, not tensors by name")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise WeightsError(f"its entry {name!r} is no tensor")
    return state


def _storages(tensors: dict[str, _Tensor]) -> dict[str, _Storage]:
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    for name, tensor in tensors.items():
        if tensor.storage != storages[tensor.storage.key]:
            raise WeightsError(f"the storage of {name} is also another's, of another type or size")
    return storages


def _elements(storage: _Storage, raw: bytes | memoryview) -> np.ndarray:
    if len(raw) != storage.size:
        raise WeightsError(f"the storage {storage.key} has {len(raw)} bytes, not {storage.size}")
    return np.frombuffer(raw, storage.dtype)


def _views(tensors: dict[str, _Tensor], storages: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns copies of what tensors show of their storages."""
    views = {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
    size = sum(view.nbytes for view in views.values())
    if size > _MOST_COPIES * sum(elements.nbytes for elements in storages.values()):
        raise WeightsError(f"its tensors show their storages more than {_MOST_COPIES} times")
    return {name: view.copy() for name, view in views.items()}


def _view(tensor: _Tensor, elements: np.ndarray) -> np.ndarray:
    """Returns what the tensor shows of its storage, after checking that it lies inside."""
    _, offset, shape, strides = tensor
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise WeightsError(f"no tensor has offset {offset}, shape {shape} and strides {strides}")
    if 0 in shape:
        return np.empty(shape, elements.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if last >= len(elements) or math.prod(shape) > len(elements):
        raise WeightsError(f"a tensor of offset {offset}, shape {shape} and strides {strides} exceeds "
                           f"its storage of {len(elements)} elements")
    steps = [stride * elements.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps)


def _interpret(stream: BinaryIO) -> Any:
    """Returns what one pickle describes, and leaves the stream behind it.

    Raises:
        WeightsError: it needs an opcode or a name that state dicts have no use for.
    """
    stack, outer, memo = [], [], {}

    def since_mark() -> list:
        nonlocal stack
        items, stack = stack, outer.pop()
        return items

    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count > _MOST_OPCODES:
            raise WeightsError(f"it has more than {_MOST_OPCODES} pickle opcodes")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case ("BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE"
                  | "SHORT_BINUNICODE"):
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                outer.append(stack)
                stack = []
            case "TUPLE":
                items = since_mark()
                stack.append(tuple(items))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "APPEND":
                _of(list, stack[-2]).append(stack.pop())
            case "APPENDS":
                items = since_mark()
                _of(list, stack[-1]).extend(items)
            case "SETITEM":
                key, value = stack[-2:]
                del stack[-2:]
                _of(dict, stack[-1])[_key(key)] = value
            case "SETITEMS":
                items = since_mark()
                _of(dict, stack[-1]).update(zip(map(_key, items[::2]), items[1::2], strict=True))
            case "BUILD":  # a state dict's attribute _metadata, which nothing here needs
                _of(dict, stack.pop())
                _of(dict, stack[-1])
            case "GLOBAL":
                stack.append(_global(_of(str, argument).replace(" ", ".")))
            case "STACK_GLOBAL":
                stack[-2:] = [_global(".".join(_of(str, part) for part in stack[-2:]))]
            case "REDUCE":
                arguments = _of(tuple, stack.pop())
                stack.append(_call(_of(_Global, stack.pop()).name, arguments))
            case "BINPERSID":
                stack.append(_storage(_of(tuple, stack.pop())))
            case name:
                raise WeightsError(f"it needs the pickle opcode {name}, which state dicts don't")
    raise WeightsError("it breaks off")


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise WeightsError(f"it has a {type(value).__name__} where {kind.__name__} belongs")
    return value


def _key(value: Any) -> str | int:
    """A dict's key. Nothing nested: one whose parts are shared takes for ever to hash."""
    return value if type(value) is int else _of(str, value)


def _numbers(value: Any) -> tuple[int, ...]:
    """A shape, or strides."""
    if len(_of(tuple, value)) > _MOST_AXES:
        raise WeightsError(f"it has a tensor of {len(value)} axes")
    return tuple(_of(int, number) for number in value)


def _global(name: str) -> _Global:
    if name not in _FUNCTIONS and name not in _DTYPES:
        raise WeightsError(f"it refers to {name}, which is refused: only tensors by name are read")
    return _Global(name)


def _call(name: str, arguments: tuple) -> Any:
    match name, arguments:
        case "collections.OrderedDict", ():
            return {}
        case "torch._utils._rebuild_tensor_v2", (storage, offset, shape, strides, *_):
            return _Tensor(_of(_Storage, storage), _of(int, offset), _numbers(shape), _numbers(strides))
        case "torch._utils._rebuild_parameter", (tensor, *_):
            return _of(_Tensor, tensor)
    raise WeightsError(f"it calls {name} with {len(arguments)} arguments")


def _storage(description: tuple) -> _Storage:
    match description:
        case ("storage", _Global(name), str(key), str(), int(count), *views) if (
                name in _DTYPES and key.isalnum() and count >= 0 and views in ([], [None])):
            return _Storage(key, np.dtype(_DTYPES[name]), count)
    raise WeightsError("one of its storages is described in an unknown way")
