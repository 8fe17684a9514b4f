"""Data sets read from the files that their authors publish: idx (MNIST) and CIFAR-10 binary."""

import gzip
import hashlib
import http.client
import io
import math
import os
import queue
import tarfile
import threading
import urllib.request
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgan.data.dataset import DataNotFoundError
from jaxgan.digests import file_digest
from jaxgan.files import open_regular

CONNECT_SECONDS = 10.0  # to connect, and again for each read from the connection
CHUNK = 1 << 20
_MOST_BYTES = 2**28  # of a file, also when it is decompressed; CIFAR-10 has 184 million


class OriginalFile(NamedTuple):
    """A published file, as TensorFlow Datasets registers it.

    Attributes:
        url: where it is downloaded from.
        size: its length in bytes.
        sha256: of the file as published.
        raw_sha256: of the file once decompressed, where that is known.
    """

    url: str
    size: int
    sha256: str
    raw_sha256: str | None = None


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"

FILES: dict[str, dict[str, OriginalFile]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": OriginalFile(
            _MNIST + "train-images-idx3-ubyte.gz", 9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        "train-labels-idx1-ubyte.gz": OriginalFile(
            _MNIST + "train-labels-idx1-ubyte.gz", 28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        "t10k-images-idx3-ubyte.gz": OriginalFile(
            _MNIST + "t10k-images-idx3-ubyte.gz", 1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        "t10k-labels-idx1-ubyte.gz": OriginalFile(
            _MNIST + "t10k-labels-idx1-ubyte.gz", 4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": OriginalFile(
            _FASHION + "train-images-idx3-ubyte.gz", 26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": OriginalFile(
            _FASHION + "train-labels-idx1-ubyte.gz", 29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": OriginalFile(
            _FASHION + "t10k-images-idx3-ubyte.gz", 4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": OriginalFile(
            _FASHION + "t10k-labels-idx1-ubyte.gz", 5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
    "cifar10": {
        "cifar-10-binary.tar.gz": OriginalFile(
            _CIFAR + "cifar-10-binary.tar.gz", 170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    },
}

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt",
                      "Sneaker", "Bag", "Ankle boot"),
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                "truck"),
}

_CIFAR_MEMBERS = {
    "train": tuple(f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("cifar-10-batches-bin/test_batch.bin",),
}


def read(name: str, split: str, data_dir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns images [N, H, W, C] and labels [N], uint8, in the order of the published files.

    The files are looked for in `downloads/manual/NAME` and `downloads/manual` under `data_dir`,
    accepted by their sha256 only, and downloaded to the former if absent.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10".
        split: "train" or "test".
        data_dir: the folder that TensorFlow Datasets calls by this name.

    Raises:
        DataNotFoundError: a file is neither there nor to be downloaded.
        ValueError: a file does not hold what its format promises.
    """
    if name == "cifar10":
        return parse_cifar10(obtain(name, "cifar-10-binary.tar.gz", data_dir), split)
    prefix = "train" if split == "train" else "t10k"
    images = parse_idx(obtain(name, f"{prefix}-images-idx3-ubyte.gz", data_dir), 3)
    labels = parse_idx(obtain(name, f"{prefix}-labels-idx1-ubyte.gz", data_dir), 1)
    return images[..., None], labels


def parse_idx(path: Path, rank: int) -> np.ndarray:
    """Returns the uint8 array of an idx file, gzipped or not.

    Source: the format's description beside the original MNIST files: two zero bytes, the element
    type (8 for uint8), the rank, the dimensions as big-endian 32-bit integers, the elements.

    Raises:
        ValueError: the file is damaged, of another type or rank, or not of the length it declares.
    """
    data = _contents(path)
    if data[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"{path} is not an idx file of uint8 numbers of rank {rank}: it begins with "
                         f"{data[:4].hex(' ')}, not 00 00 08 {rank:02x}")
    shape = tuple(int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(rank))
    start = 4 + 4 * rank
    if start + math.prod(shape) != len(data):
        raise ValueError(f"{path} is truncated or damaged: its header declares shape {shape}, "
                         f"{start + math.prod(shape)} bytes in all, but it holds {len(data)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def parse_cifar10(path: Path, split: str, *,
                  per_file: int = 10000) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images [N, 32, 32, 3] and labels [N], uint8, of CIFAR-10's binary version.

    Source: the CIFAR-10 page: files of `per_file` records, each one label byte and 3,072 pixel
    bytes, the planes red, green, blue, row by row.

    Raises:
        ValueError: the archive is damaged, lacks a file, or a file is not of the right length.
    """
    wanted, found = _CIFAR_MEMBERS[split], {}
    try:
        with tarfile.open(fileobj=io.BytesIO(_contents(path))) as archive:
            for member in archive:
                if member.name not in wanted:
                    continue
                file = archive.extractfile(member) if member.isfile() else None
                if file is None or member.size != per_file * 3073:
                    raise ValueError(f"{path}: {member.name} must be {per_file * 3073} bytes, "
                                     f"{per_file} records of 3073; got {member.size}")
                found[member.name] = file.read()
    except (OSError, tarfile.TarError) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error
    if missing := [member for member in wanted if member not in found]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is not CIFAR-10's binary version")
    records = np.frombuffer(b"".join(found[member] for member in wanted), np.uint8)
    records = records.reshape(-1, 3073)
    if (worst := int(records[:, 0].max())) > 9:
        raise ValueError(f"{path}: labels must be in [0, 10); got {worst}")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0]


def _contents(path: Path) -> bytes:
    """Returns what a file holds, decompressed if it is gzipped.

    Raises:
        ValueError: it is damaged, or holds more than any of these sets does.
    """
    try:
        with open_regular(path) as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if zipped else file as stream:
                data = stream.read(_MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path} is damaged (it holds more than {_MOST_BYTES} bytes): fetch it again")
    return data


def obtain(name: str, filename: str, data_dir: Path) -> Path:
    """Returns the path of the file, verified, after downloading it if need be.

    Raises:
        DataNotFoundError: it is neither there nor to be downloaded.
    """
    manual = data_dir / "downloads" / "manual"
    original, notes = FILES[name][filename], []
    for folder in (manual / name, manual):
        for path in (folder / filename, folder / filename.removesuffix(".gz")):
            if not path.is_file():
                continue
            if (problem := _problem(name, filename, path)) is None:
                return path
            notes.append(problem)
        for path in (folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py"):
            if name == "cifar10" and path.exists():
                notes.append(f"{path} holds pickles, which are not read because they can run "
                             "code: fetch the binary version, cifar-10-binary.tar.gz")
    try:
        return download(original, manual / name / filename)
    except OSError as error:
        notes = notes or [f"no original file {manual / filename}"]
        notes.append(f"downloading {original.url} failed: {error}")
        raise DataNotFoundError("; ".join(notes)) from error


def _problem(name: str, filename: str, path: Path) -> str | None:
    """Returns what is wrong with a file that should be `name`'s `filename`, None if nothing."""
    original = FILES[name][filename]
    raw = path.name != filename
    expected = original.raw_sha256 if raw else original.sha256
    if expected is None:
        return f"no checksum is known for the decompressed {path}: put {filename} there instead"
    size = path.stat().st_size
    if size > _MOST_BYTES:
        return f"{path} is damaged or not {name}'s: it has {size} bytes"
    digest = file_digest(path)
    if digest == expected:
        return None
    for other, files in FILES.items():
        if filename in files and digest in files[filename][2:]:
            return f"{path} is {other}'s: put {name}'s in {path.parent / name}"
    return (f"{path} is damaged or not {name}'s: its sha256 is {digest}, "
            f"the published file's {expected}")


def download(original: OriginalFile, path: Path) -> Path:
    """Downloads the file to `path`, where it appears only once it is whole and verified.

    Raises:
        OSError: there is no connection within `CONNECT_SECONDS`, it broke off, or what came is
            not the registered file.
    """
    with _connect(original.url) as response:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            size, digest = 0, hashlib.sha256()
            with open(partial, "wb") as file:
                while size <= original.size and (chunk := response.read(CHUNK)):
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
            if (size, digest.hexdigest()) != (original.size, original.sha256):
                raise OSError(f"got {size} bytes with sha256 {digest.hexdigest()}, the registered "
                              f"file has {original.size} with {original.sha256}")
            os.replace(partial, path)
        except http.client.HTTPException as error:
            raise OSError(f"the connection broke off ({error})") from error
        finally:
            partial.unlink(missing_ok=True)
    return path


def _connect(url: str):
    """Returns the open response; unlike urlopen's own timeout, this one bounds the name look-up."""
    results = queue.SimpleQueue()

    def connect():
        try:
            results.put(urllib.request.urlopen(url, timeout=CONNECT_SECONDS))
        except Exception as error:
            results.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        result = results.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s") from None
    if isinstance(result, Exception):
        raise result if isinstance(result, OSError) else OSError(str(result))
    return result
