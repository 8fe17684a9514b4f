"""Data sets by name, whatever route their bytes come by, and the sources that draw from them."""

import gzip
import hashlib
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgan.data import (
    MIXTURES,
    DataNotFoundError,
    Dataset,
    catalogue,
    draw_step,
    flipped,
    in_memory,
    jittered,
    load,
    mixture,
    originals,
    pixels,
    prepared,
    resident,
)
from jaxgan.types import Batch

REAL = Path(__file__).parents[2] / "shared" / "data"
MNIST_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]

urlopen = urllib.request.urlopen


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(url, timeout=None):
        if not url.startswith("http://127.0.0.1:"):
            raise OSError("tests don't use the network")
        return urlopen(url, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def real_mnist(tmp_path):
    """Data folders with MNIST: prepared, and as original files."""
    if not (REAL / "mnist").is_dir() or not (REAL / "tfds").is_dir():
        pytest.skip(f"there is no MNIST in {REAL}")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "manual").symlink_to(REAL / "mnist")
    return REAL / "tfds", tmp_path


def random_images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def dataset(count=10, shape=(4, 4, 1), classes=2):
    labels = (np.arange(count) % classes).astype(np.int32)
    return Dataset("tiny", random_images(count, *shape), labels,
                   tuple(f"class{i}" for i in range(classes)))


def assert_same(first, second):
    assert first.name == second.name
    assert first.class_names == second.class_names
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)


# Dataset

def test_dataset_refuses_what_does_not_fit():
    images, labels = random_images(3, 4, 4, 1), np.zeros(3, np.int32)
    assert len(Dataset("x", images, labels, ("a",))) == 3
    for wrong, error, message in [
        ((images.astype(float), labels, ("a",)), TypeError, "got float64 and int32"),
        ((images, labels.astype(int), ("a",)), TypeError, "got uint8 and int64"),
        ((images[..., 0], labels, ("a",)), ValueError, r"got \(3, 4, 4\)"),
        ((images[:0], labels[:0], ("a",)), ValueError, r"none of them 0; got \(0, 4, 4, 1\)"),
        ((images, labels[:2], ("a",)), ValueError, r"shape \(3,\); got \(2,\)"),
        ((images, labels + 1, ("a",)), ValueError, r"in \[0, 1\), one per class name; got 1 to 1"),
        ((images, labels - 1, ("a",)), ValueError, "got -1 to -1"),
    ]:
        with pytest.raises(error, match=message):
            Dataset("x", *wrong)


# load: names and the digits

def test_importing_is_light():
    heavy = ["tensorflow_datasets", "sklearn", "PIL", "array_record"]
    code = f"import sys, jaxgan.data; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            check=True, cwd=Path(__file__).parents[1])
    assert result.stdout.strip() == "[]"


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.images.shape[1:] == (8, 8, 1)
    together = np.concatenate([train.images, test.images]).reshape(-1, 64)
    np.testing.assert_allclose(together * (16 / 255), np.rint(together * (16 / 255)), atol=0.04)
    rows = np.concatenate([np.rint(together * (16 / 255)),
                           np.concatenate([train.labels, test.labels])[:, None]], 1)
    expected = np.concatenate([values, labels[:, None]], 1)
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))
    assert {0, 255} <= set(together.ravel())
    every_fifth = expected[4::5]
    assert sorted(map(tuple, rows[1438:])) == sorted(map(tuple, every_fifth))


def test_image_size_resizes_and_keeps_the_order():
    small, large = load("digits", "test"), load("digits", "test", image_size=32)
    assert large.images.shape == (359, 32, 32, 1)
    np.testing.assert_array_equal(small.labels, large.labels)
    means = small.images.mean((1, 2, 3)), large.images.mean((1, 2, 3))
    assert np.corrcoef(*means)[0, 1] > 0.95
    assert_same(small, load("digits", "test", image_size=8))


@pytest.mark.parametrize(("name", "message"), [
    ("mnits", "unknown data set 'mnits': did you mean 'mnist'"),
    ("cifar-10", "did you mean 'cifar10'"),
    ("zzzz", "the simplest are 'digits', 'mnist'"),
    ("../mnist", "did you mean"),
    ("", "unknown data set ''"),
    ("8gaussians", r"drawn, not loaded: call mixture\('8gaussians'\)"),
])
def test_unknown_names_get_a_suggestion(name, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(name, data_dir=tmp_path)


def test_unknown_splits_and_sizes_are_refused():
    with pytest.raises(ValueError, match="split must be 'train' or 'test'; got 'all'"):
        load("digits", "all")
    with pytest.raises(ValueError, match="image_size must be at least 1; got 0"):
        load("digits", image_size=0)


# load: the real MNIST

@pytest.mark.parametrize(("split", "size"), [("train", 60000), ("test", 10000)])
def test_mnist_is_the_same_by_both_routes(real_mnist, split, size):
    first, second = (load("mnist", split, data_dir=folder) for folder in real_mnist)
    assert_same(first, second)
    assert first.images.shape == (size, 28, 28, 1)
    if split == "train":
        assert np.bincount(first.labels).tolist() == MNIST_COUNTS
        original = originals.parse_idx(REAL / "mnist" / "train-images-idx3-ubyte.gz", 3)
        assert {image.tobytes() for image in first.images} == {
            image.tobytes() for image in original}


def test_mnist_is_found_through_the_environment(real_mnist, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(real_mnist[1]))
    assert len(load("mnist", "test")) == 10000


def test_checksums_are_those_that_tensorflow_datasets_registers(tmp_path):
    import tensorflow_datasets as tfds

    for name, files in originals.FILES.items():
        registered = tfds.builder(name, data_dir=tmp_path).url_infos
        assert {file.url: (file.size, file.sha256) for file in files.values()} == {
            url: (info.size, info.checksum) for url, info in registered.items()}


# load: original files, tiny ones

def idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """A data folder with a "mnist" of 12 images and its "fashion_mnist", both registered."""
    manual = tmp_path / "downloads" / "manual"
    (manual / "fashion_mnist").mkdir(parents=True)
    contents = {}
    for seed, name in enumerate(["mnist", "fashion_mnist"]):
        images, labels = random_images(12, 28, 28, seed=seed), np.arange(12, dtype=np.uint8) % 10
        folder = manual if name == "mnist" else manual / name
        for filename, array in [("train-images-idx3-ubyte.gz", images),
                                ("train-labels-idx1-ubyte.gz", labels)]:
            data = gzip.compress(idx(array), mtime=0)
            (folder / filename).write_bytes(data)
            raw = hashlib.sha256(idx(array)).hexdigest() if name == "mnist" else None
            monkeypatch.setitem(originals.FILES[name], filename, originals.OriginalFile(
                f"http://127.0.0.1:9/{filename}", len(data), hashlib.sha256(data).hexdigest(),
                raw))
            contents[name, filename] = data
    return SimpleNamespace(data_dir=tmp_path, manual=manual, contents=contents)


def test_original_files_are_read_zipped_or_not(tiny_mnist):
    zipped = load("mnist", data_dir=tiny_mnist.data_dir)
    rows = {(image.tobytes(), int(label)) for image, label in
            zip(zipped.images, zipped.labels, strict=True)}
    assert rows == {(image.tobytes(), i % 10) for i, image in
                    enumerate(random_images(12, 28, 28, seed=0))}
    for path in tiny_mnist.manual.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert_same(zipped, load("mnist", data_dir=tiny_mnist.data_dir))


def test_sets_of_one_file_name_are_told_apart(tiny_mnist):
    fashion = load("fashion_mnist", data_dir=tiny_mnist.data_dir)
    assert fashion.class_names[9] == "Ankle boot"
    assert not (fashion.images == load("mnist", data_dir=tiny_mnist.data_dir).images).all()
    for path in (tiny_mnist.manual / "fashion_mnist").iterdir():
        path.unlink()
    with pytest.raises(DataNotFoundError, match=r"ubyte.gz is mnist's: put fashion_mnist's in"):
        load("fashion_mnist", data_dir=tiny_mnist.data_dir)
    (tiny_mnist.manual / "train-images-idx3-ubyte").write_bytes(b"what it is, no one can say")
    with pytest.raises(DataNotFoundError, match="no checksum is known for the decompressed"):
        load("fashion_mnist", data_dir=tiny_mnist.data_dir)


def test_a_changed_file_is_not_read(tiny_mnist):
    path = tiny_mnist.manual / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataNotFoundError, match="damaged or not mnist's: its sha256 is"):
        load("mnist", data_dir=tiny_mnist.data_dir)
    assert path.exists()


def test_what_is_missing_is_said_in_one_sentence(tmp_path):
    with pytest.raises(DataNotFoundError) as caught:
        load("mnist", data_dir=tmp_path)
    text = str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)
    assert isinstance(caught.value, ValueError)
    for part in (f"no prepared directory {tmp_path / 'mnist'}", "no original file",
                 "train-images-idx3-ubyte.gz failed: tests don't use the network",
                 "Prepare it with TensorFlow Datasets", "put the original files into",
                 "or use 'digits'"):
        assert part in text
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("data", "message"), [
    (b"", "begins with , not 00 00 08 03"),
    (b"\0\0\x0b\3" + bytes(12), "begins with 00 00 0b 03"),
    (idx(np.zeros(5, np.uint8)), "uint8 numbers of rank 3"),
    (idx(np.zeros((2, 3, 4), np.uint8))[:-1], r"shape \(2, 3, 4\), 40 bytes in all.* holds 39"),
    (idx(np.zeros((2, 3, 4), np.uint8)) + b"\0", "holds 41"),
    (idx(np.zeros((2, 3, 4), np.uint8))[:9], "truncated or damaged"),
    (b"\0\0\x08\3" + b"\xff" * 12 + bytes(40), "truncated or damaged"),
    (gzip.compress(b"\0\0\x08\3" + b"\xff" * 12 + bytes(40), mtime=0), "truncated or damaged"),
    (gzip.compress(idx(random_images(2, 3, 4)), mtime=0)[:-9], "damaged"),
    (gzip.compress(idx(random_images(2, 3, 4)) + bytes(2**29), mtime=0), "holds more than 268435456"),
    (gzip.compress(idx(random_images(2, 3, 4)), mtime=0)
     + gzip.compress(bytes(2**29), mtime=0), "holds more than 268435456"),
    (gzip.compress(idx(random_images(2, 3, 4)), mtime=0)[:12], "damaged"),
    (b"\x1f\x8b", "damaged"),
])
def test_damaged_idx_files_are_refused_before_memory_is_taken(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        originals.parse_idx(path, 3)


@pytest.mark.parametrize("parse", [partial(originals.parse_idx, rank=3),
                                   partial(originals.parse_cifar10, split="train")])
def test_only_files_are_parsed(tmp_path, parse):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(ValueError, match=rf"{name} is damaged \(.*not a regular file"):
            parse(tmp_path / name)


def test_archives_that_inflate_are_refused(tmp_path):
    """A member before those that are wanted, and one whose header alone would be as long."""
    path = tmp_path / "archive"
    for kind in (tarfile.REGTYPE, tarfile.XHDTYPE):
        info = tarfile.TarInfo("zeros")
        info.type, info.size = kind, 2**29
        with gzip.open(path, "wb", 1) as file:
            file.write(info.tobuf(tarfile.USTAR_FORMAT))
            for _ in range(2**8):
                file.write(bytes(2**21))
        with pytest.raises(ValueError, match="holds more than 268435456 bytes"):
            originals.parse_cifar10(path, "train")


def test_a_flipped_bit_in_a_zipped_idx_file_is_noticed(tmp_path):
    path, data = tmp_path / "file", bytearray(gzip.compress(idx(random_images(9, 8, 8)), 0, mtime=0))
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.*fetch it again"):
        originals.parse_idx(path, 3)


def cifar_archive(path, counts, label=7, prefix="cifar-10-batches-bin/"):
    with tarfile.open(path, "w:gz") as archive:
        for name, count in counts.items():
            records = random_images(count, 3073)
            records[:, 0] = label
            records[0, 1:] = np.repeat([10, 20, 30], 1024)
            records[0, 1 + 1024 + 32 * 5 + 6] = 99  # green, row 5, column 6
            info = tarfile.TarInfo(prefix + name)
            info.size = records.size
            archive.addfile(info, io.BytesIO(records.tobytes()))


TRAIN_FILES = {f"data_batch_{i}.bin": 4 for i in range(1, 6)}


def test_cifar10_binary_is_read_by_planes(tmp_path):
    path = tmp_path / "archive"
    cifar_archive(path, {"readme.html": 1, **TRAIN_FILES, "test_batch.bin": 4})
    images, labels = originals.parse_cifar10(path, "train", per_file=4)
    assert images.shape == (20, 32, 32, 3)
    assert labels.tolist() == [7] * 20
    assert images[0, 0, 0].tolist() == [10, 20, 30]
    assert images[0, 5, 6].tolist() == [10, 99, 30]
    assert originals.parse_cifar10(path, "test", per_file=4)[0].shape == (4, 32, 32, 3)


@pytest.mark.parametrize(("counts", "label", "message"), [
    (TRAIN_FILES | {"data_batch_2.bin": 3}, 7, "data_batch_2.bin must be 12292 bytes.*got 9219"),
    ({"data_batch_1.bin": 4}, 7, "lacks cifar-10-batches-bin/data_batch_2.bin, "),
    (TRAIN_FILES, 10, r"labels must be in \[0, 10\); got 10"),
])
def test_wrong_cifar10_archives_are_refused(tmp_path, counts, label, message):
    path = tmp_path / "archive"
    cifar_archive(path, counts, label)
    with pytest.raises(ValueError, match=message):
        originals.parse_cifar10(path, "train", per_file=4)


def test_damaged_cifar10_archives_are_refused(tmp_path):
    path = tmp_path / "archive"
    cifar_archive(path, TRAIN_FILES)
    whole = path.read_bytes()
    for data in (b"", b"no archive", whole[:len(whole) // 2], whole[:3000] + b"x" + whole[3001:]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|lacks"):
            originals.parse_cifar10(path, "train", per_file=4)


def test_cifar10_loads_from_its_archive(tmp_path, monkeypatch):
    path = tmp_path / "downloads" / "manual" / "cifar-10-binary.tar.gz"
    path.parent.mkdir(parents=True)
    cifar_archive(path, TRAIN_FILES)
    data = path.read_bytes()
    monkeypatch.setitem(originals.FILES["cifar10"], path.name, originals.OriginalFile(
        "http://127.0.0.1:9/", len(data), hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr(originals, "parse_cifar10",
                        partial(originals.parse_cifar10, per_file=4))
    train = load("cifar10", data_dir=tmp_path)
    assert train.images.shape == (20, 32, 32, 3)
    assert train.class_names[7] == "horse"


def test_pickled_cifar10_is_refused_by_name(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "cifar-10-python.tar.gz").write_bytes(b"never opened")
    with pytest.raises(DataNotFoundError, match=r"holds pickles, .*cifar-10-binary.tar.gz"):
        load("cifar10", data_dir=tmp_path)


# load: downloads, from this very machine only

@pytest.fixture
def server():
    """Serves the bytes of its `files`, by path, on a free local port."""
    files = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data, length = files[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", files=files)
        server.shutdown()
        thread.join()


def serve(server, tiny_mnist, monkeypatch, change=lambda data: (data, len(data))):
    for filename, file in list(originals.FILES["mnist"].items()):
        if not filename.startswith("train"):
            continue
        server.files[f"/{filename}"] = change(tiny_mnist.contents["mnist", filename])
        monkeypatch.setitem(originals.FILES["mnist"], filename,
                            file._replace(url=f"{server.url}/{filename}"))


def test_missing_files_are_downloaded_once(server, tiny_mnist, monkeypatch, tmp_path):
    serve(server, tiny_mnist, monkeypatch)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert_same(load("mnist", data_dir=fresh), load("mnist", data_dir=tiny_mnist.data_dir))
    assert sorted(path.name for path in (fresh / "downloads" / "manual" / "mnist").iterdir()) == [
        "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]
    server.files.clear()
    assert len(load("mnist", data_dir=fresh)) == 12


@pytest.mark.parametrize("change", [
    lambda data: (data[:-1] + b"x", len(data)),
    lambda data: (data + b"more", len(data) + 4),
    lambda data: (data[:50], 50),
    lambda data: (data[:50], len(data)),
], ids=["changed", "longer", "shorter", "broken off"])
def test_wrong_downloads_leave_nothing_behind(server, tiny_mnist, monkeypatch, tmp_path, change):
    (tmp_path / "fresh").mkdir()
    serve(server, tiny_mnist, monkeypatch, change)
    with pytest.raises(DataNotFoundError, match=r"downloading .* failed: (got|the connection)"):
        load("mnist", data_dir=tmp_path / "fresh")
    assert not [path for path in (tmp_path / "fresh").rglob("*") if path.is_file()]


def test_a_closed_port_fails_at_once(tiny_mnist):
    (tiny_mnist.data_dir / "fresh").mkdir()
    start = time.monotonic()
    with pytest.raises(DataNotFoundError, match=r"downloading http://127.0.0.1:9/.* failed: .*"):
        load("mnist", data_dir=tiny_mnist.data_dir / "fresh")
    assert time.monotonic() - start < 5


def test_a_misspelt_folder_is_not_made(server, tiny_mnist, monkeypatch, tmp_path):
    serve(server, tiny_mnist, monkeypatch)
    with pytest.raises(DataNotFoundError, match=r"there is no folder .*dtaa to look for mnist in: if"):
        load("mnist", data_dir=tmp_path / "dtaa")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "dtaa"))
    with pytest.raises(DataNotFoundError, match=r"there is no folder .*dtaa to look for mnist in: if"):
        load("mnist")
    assert not (tmp_path / "dtaa").exists()


def test_a_silent_network_fails_in_time(monkeypatch, tmp_path):
    answered = threading.Event()
    monkeypatch.setattr(originals, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: answered.wait())
    with pytest.raises(DataNotFoundError, match=r"failed: no answer within 0.2 s"):
        load("mnist", data_dir=tmp_path)
    answered.set()


# load: directories that TensorFlow Datasets prepared

def encode(image, form="PNG"):
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, form)
    return file.getvalue()


def prepare(folder, files, labels, *, shape=(None, None, 3), form="array_record", features=None):
    """Writes what TensorFlow Datasets does, but by itself."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_generated_pb2

    folder.mkdir(parents=True)
    features = features or {"image": tfds.features.Image(shape=shape),
                            "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    tfds.features.FeaturesDict(features).save_config(os.fspath(folder))
    name = folder.parent.name
    (folder / "dataset_info.json").write_text(json.dumps({
        "name": name, "version": folder.name, "fileFormat": form,
        "splits": [{"name": "train", "shardLengths": [str(len(files))], "numBytes": "1",
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}]}))
    writer = array_record_module.ArrayRecordWriter(
        str(folder / f"{name}-train.{form}-00000-of-00001"), "group_size:1")
    for file, label in zip(files, labels, strict=True):
        example = tf_example_generated_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(file)
        example.features.feature["label"].int64_list.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()
    return folder


@pytest.mark.parametrize("shape", [(9, 7, 1), (9, 7, 3)])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_prepared_images_are_decoded_as_pillow_does(tmp_path, shape, form):
    ramp = np.cumsum(random_images(30, *shape) // 16, 1).astype(np.uint8)  # uses all PNG filters
    files = [encode(image, form) for image in ramp]
    prepare(tmp_path / "pets" / "1.0.0", files, np.arange(30) % 2, shape=shape)
    pets = load("pets", data_dir=tmp_path)
    expected = {(np.asarray(Image.open(io.BytesIO(file))).tobytes(), i % 2)
                for i, file in enumerate(files)}
    assert {(image.tobytes(), int(label)) for image, label in
            zip(pets.images, pets.labels, strict=True)} == expected
    assert pets.images.shape == (30, *shape)
    assert pets.class_names == ("cat", "dog")


def png_with_filters(image):
    """Encodes an image with row r stored by filter type r % 5, worked out byte by byte."""
    height, width, channels = image.shape
    previous, lines = np.zeros(width * channels, int), []
    for r in range(height):
        row = image[r].reshape(-1).astype(int)
        left = np.r_[np.zeros(channels, int), row[:-channels]]
        corner = np.r_[np.zeros(channels, int), previous[:-channels]]
        guess = left + previous - corner
        distances = np.abs(guess - np.stack([left, previous, corner]))
        paeth = np.choose(distances.argmin(0), [left, previous, corner])
        predicted = [0, left, previous, (left + previous) // 2, paeth][r % 5]
        lines.append(bytes([r % 5]) + ((row - predicted) % 256).astype(np.uint8).tobytes())
        previous = row
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    compressed = prepared.zlib.compress(b"".join(lines))
    return b"".join((b"\x89PNG\r\n\x1a\n", prepared._chunk(b"IHDR", header),
                     prepared._chunk(b"IDAT", compressed[:20]),
                     prepared._chunk(b"IDAT", compressed[20:]), prepared._chunk(b"IEND", b"")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("first", range(5))
def test_all_png_filters_are_undone_in_every_row(channels, first):
    images = random_images(5, 9, 6, channels)
    files = [png_with_filters(np.roll(image, first, 0)) for image in images]
    for file, image in zip(files, images, strict=True):
        opened = np.asarray(Image.open(io.BytesIO(file))).reshape(image.shape)
        np.testing.assert_array_equal(opened, np.roll(image, first, 0))
    np.testing.assert_array_equal(list(prepared.decode(files, channels)), np.roll(images, first, 1))


def test_first_rows_relative_to_the_one_above_stay_in_their_image():
    image = random_images(2, 5, 4, 1)
    files = []
    for picture in image:  # the first row is stored by "up": relative to a row of zeros
        lines = b"".join(bytes([2 if r == 0 else 0]) + picture[r].tobytes() for r in range(5))
        header = struct.pack(">IIBBBBB", 4, 5, 8, 0, 0, 0, 0)
        files.append(b"".join((b"\x89PNG\r\n\x1a\n", prepared._chunk(b"IHDR", header),
                               prepared._chunk(b"IDAT", prepared.zlib.compress(lines)),
                               prepared._chunk(b"IEND", b""))))
    np.testing.assert_array_equal(list(prepared.decode(files, 1)), image)


def test_prepared_images_have_the_channels_that_were_declared(tmp_path):
    files = [encode(random_images(1, 4, 4, channels)[0]) for channels in (3, 1)]
    prepare(tmp_path / "pets" / "1.0.0", files, [0, 1])
    assert load("pets", data_dir=tmp_path).images.shape == (2, 4, 4, 3)
    deep = io.BytesIO()
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(deep, "PNG")
    prepare(tmp_path / "scans" / "1.0.0", [deep.getvalue()], [0], shape=(4, 4, 1))
    with pytest.raises(TypeError, match="images must be uint8 and labels int32; got uint16"):
        load("scans", data_dir=tmp_path)


def test_prepared_images_of_many_sizes_need_an_image_size(tmp_path):
    files = [encode(random_images(1, 8 + i, 10, 3)[0]) for i in range(4)]
    prepare(tmp_path / "pets" / "1.0.0", files, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"differ in shape.*give an image_size"):
        load("pets", data_dir=tmp_path)
    assert load("pets", data_dir=tmp_path, image_size=6).images.shape == (4, 6, 6, 3)


def test_the_newest_prepared_version_is_read(tmp_path):
    for version, count in [("1.9.0", 3), ("1.10.0", 5), ("1.2.0", 4)]:
        files = [encode(image) for image in random_images(count, 4, 4, 3)]
        prepare(tmp_path / "pets" / version, files, [0] * count)
    (tmp_path / "pets" / "incomplete.XYZ_1.11.0").mkdir()
    assert len(load("pets", data_dir=tmp_path)) == 5


def test_configurations_are_named_where_there_are_several(tmp_path):
    file = encode(random_images(1, 4, 4, 3)[0])
    prepare(tmp_path / "pets" / "small" / "1.0.0", [file], [0])
    assert prepared.find("pets", tmp_path) == tmp_path / "pets" / "small" / "1.0.0"
    prepare(tmp_path / "pets" / "large" / "1.0.0", [file], [0])
    with pytest.raises(ValueError, match="name one of pets/large, pets/small"):
        load("pets", data_dir=tmp_path)
    assert prepared.find("pets/small", tmp_path) == tmp_path / "pets" / "small" / "1.0.0"


def test_prepared_sets_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    file = encode(random_images(1, 4, 4, 3)[0])
    prepare(tmp_path / "pets" / "1.0.0", [file], [0])
    with pytest.raises(ValueError, match="pets has no split 'test'; it has train"):
        load("pets", "test", data_dir=tmp_path)
    prepare(tmp_path / "texts" / "1.0.0", [file], [0], features={
        "image": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["a"])})
    with pytest.raises(ValueError, match="texts must have an 'image' and a class 'label'; it has"):
        load("texts", data_dir=tmp_path)
    monkeypatch.setattr(prepared, "_has_tensorflow", lambda: False)
    prepare(tmp_path / "mnist" / "3.0.1", [file], [0], form="tfrecord")
    with pytest.raises(DataNotFoundError, match="tfrecord format, which needs TensorFlow"):
        load("mnist", data_dir=tmp_path)
    with pytest.raises(DataNotFoundError, match="preparing it needs TensorFlow"):
        load("cats_vs_dogs", data_dir=tmp_path)


def test_damaged_prepared_sets_are_refused(tmp_path):
    files = [encode(image) for image in random_images(40, 16, 16, 3)]
    folder = prepare(tmp_path / "pets" / "1.0.0", files, [0] * 40)
    path = next(folder.glob("*array_record*"))
    whole = path.read_bytes()
    middle = len(whole) // 2
    for data in (whole[:middle], whole[:middle] + bytes(50) + whole[middle + 50:], b""):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="damaged"):
            load("pets", data_dir=tmp_path)


def test_records_that_inflate_are_refused(tmp_path):
    folder = prepare(tmp_path / "pets" / "1.0.0", [bytes(2**24)] * 4, [0] * 4)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2**18
    with pytest.raises(ValueError, match=r"1.0.0 is damaged \(its \d+ bytes decompress to 67\d{6}"):
        load("pets", data_dir=tmp_path)
    with next(folder.glob("*array_record*")).open("wb") as file:
        file.truncate(2**40)  # zeros without end
    with pytest.raises(ValueError, match="it is no array_record file"):
        load("pets", data_dir=tmp_path)


def test_records_longer_than_a_block_are_read(tmp_path):
    """Of all lengths up to more than 64 KiB, so that headers lie everywhere across the blocks."""
    images = [encode(random_images(1, side, 40, 3, seed=side)[0]) for side in range(10, 1000, 23)]
    assert len(images[-1]) > 2**16
    prepare(tmp_path / "pets" / "1.0.0", images, [0] * len(images))
    assert len(load("pets", data_dir=tmp_path, image_size=4)) == len(images)


def test_other_formats_are_read_through_tensorflow(monkeypatch, tmp_path):
    files = [encode(image) for image in random_images(6, 4, 4, 3)]
    prepare(tmp_path / "pets" / "1.0.0", files, np.arange(6) % 2)
    birds = prepare(tmp_path / "birds" / "1.0.0", files, np.arange(6) % 2, form="tfrecord")
    records = list(prepared._array_records(birds / "birds-train.tfrecord-00000-of-00001"))
    dataset = SimpleNamespace(as_numpy_iterator=lambda: iter(records))
    monkeypatch.setattr(prepared, "_has_tensorflow", lambda: True)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(
        data=SimpleNamespace(TFRecordDataset=lambda path: dataset)))
    pets, birds = load("pets", data_dir=tmp_path), load("birds", data_dir=tmp_path)
    np.testing.assert_array_equal(pets.images, birds.images)
    np.testing.assert_array_equal(pets.labels, birds.labels)


def change_json(path, change):
    """Writes what a function makes of a JSON file's value."""
    value = json.loads(path.read_text())
    path.write_text(json.dumps(change(value) or value))


def entry(kind, key="image"):
    """The change of a feature's kind, or that of all of them."""
    def change(value):
        (value["featuresDict"]["features"][key] if key else value)["pythonClassName"] = kind
        if not key:
            del value["featuresDict"]
    return change


@pytest.mark.parametrize("change", [
    entry("payload.Image"), entry("payload.ClassLabel", "label"), entry("payload.X", None),
    lambda value: {"pythonClassName": "payload.X", "jsonFeature": {"json": "{}"}},
    lambda value: {"type": "payload.X", "content": {}},
], ids=["image", "label", "all", "json", "legacy"])
def test_nothing_that_a_prepared_set_names_is_imported(tmp_path, monkeypatch, change):
    folder = prepare(tmp_path / "pets" / "1.0.0", [encode(random_images(1, 4, 4, 3)[0])], [0])
    (tmp_path / "payload.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change_json(folder / "features.json", change)
    with pytest.raises(ValueError, match=r"features\.json"):
        load("pets", data_dir=tmp_path)
    assert "payload" not in sys.modules


def test_features_that_are_not_needed_are_not_looked_at(tmp_path):
    folder = prepare(tmp_path / "pets" / "1.0.0", [encode(random_images(1, 4, 4, 3)[0])], [0])
    change_json(folder / "features.json", lambda value: value["featuresDict"]["features"].update(
        id={"pythonClassName": "payload.Text"}))
    assert load("pets", data_dir=tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "xx", "[" * 100_000, "\xff",
                                  '{"featuresDict": 3, "splits": 3, "name": "pets"}',
                                  '{"featuresDict": {"features": []}, "splits": [3], "name": "pets"}'],
                         ids=lambda text: text[:20])
def test_damaged_descriptions_are_named(tmp_path, name, text):
    folder = prepare(tmp_path / "pets" / "1.0.0", [encode(random_images(1, 4, 4, 3)[0])], [0])
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name} is damaged|it has '' in \S+features.json") as caught:
        load("pets", data_dir=tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("name", "change", "message"), [
    ("dataset_info.json", lambda value: value.update(name="../pets"), "dataset_info.json is damaged"),
    ("dataset_info.json", lambda value: value["splits"][0].update(filepathTemplate="../{DATASET}"),
     "dataset_info.json is damaged"),
    ("dataset_info.json", lambda value: value["splits"][0].update(filepathTemplate="{DATASET.x}"),
     "dataset_info.json is damaged"),
    ("dataset_info.json", lambda value: value["splits"][0].update(shardLengths=["2"]),
     "doesn't hold 2 records"),
    ("dataset_info.json", lambda value: value["splits"][0].update(shardLengths=["-1"]),
     "dataset_info.json is damaged"),
    ("dataset_info.json", lambda value: value.update(fileFormat="parquet"), "parquet format, which is"),
    ("features.json", lambda value: value["featuresDict"]["features"]["label"]["classLabel"].update(
        numClasses="1000000000000"), "features.json is damaged"),
    ("features.json", lambda value: value["featuresDict"]["features"]["label"]["classLabel"].update(
        numClasses="3"), "label.labels.txt is damaged: it names 2 classes, not 3"),
    ("features.json", lambda value: value["featuresDict"]["features"]["image"]["image"]["shape"].update(
        dimensions=["4", "4", "2"]), "features.json is damaged"),
])
def test_descriptions_that_lead_elsewhere_are_refused(tmp_path, name, change, message):
    folder = prepare(tmp_path / "pets" / "1.0.0", [encode(random_images(1, 4, 4, 3)[0])], [0])
    change_json(folder / name, change)
    with pytest.raises(ValueError, match=message):
        load("pets", data_dir=tmp_path)


def png_header(width, height, data=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", prepared._chunk(b"IHDR", header),
                     prepared._chunk(b"IDAT", zlib.compress(data)), prepared._chunk(b"IEND", b"")))


@pytest.mark.parametrize("file", [
    png_header(60_000, 60_000), png_header(10_000, 10_000), png_header(0, 4),
    png_header(4, 4, bytes(2**24)), png_header(4, 4, bytes(51)), b"", b"\x89PNG", encode(
        random_images(1, 4, 4, 3)[0])[:-30],
], ids=["bomb", "many pixels", "no pixels", "inflates", "short", "empty", "cut", "truncated"])
def test_damaged_prepared_images_are_refused(tmp_path, file):
    prepare(tmp_path / "pets" / "1.0.0", [file], [0])
    with pytest.raises(ValueError, match=r"1.0.0 is damaged \(.+\): prepare it again"):
        load("pets", data_dir=tmp_path)


# Sources

@pytest.mark.parametrize(("value_range", "expected"), [
    ((-1.0, 1.0), lambda x: x / 127.5 - 1), ((0, 1), lambda x: x / 255)])
def test_pixels_are_scaled_to_the_range_and_back(value_range, expected):
    everything = Dataset("all", np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1),
                         np.zeros(1, np.int32), ("a",))
    source = resident(everything, value_range=value_range)
    batch = jax.jit(source.draw)(source.arrays, jax.random.key(0), jnp.zeros(1, jnp.uint32),
                                 jnp.zeros(1, jnp.uint32))
    assert batch.samples.dtype == jnp.float32
    assert batch.condition is None
    np.testing.assert_allclose(batch.samples.ravel(), expected(np.arange(256.0)), atol=2e-7)
    assert (batch.samples.min(), batch.samples.max()) == value_range
    np.testing.assert_array_equal(pixels(batch.samples, value_range), everything.images)


def test_pixels_are_clipped_and_rounded():
    samples = jnp.asarray([-2.0, -1.0, 0.0, 0.0039, 0.0040, 1.0, 9.0, jnp.nan, -jnp.inf, jnp.inf])
    assert pixels(samples, (0, 1)).tolist() == [0, 0, 0, 1, 1, 255, 255, 0, 0, 255]
    assert pixels(jnp.asarray([-1.0, 0.0, 1.0])).tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match=r"must be \(-1, 1\) or \(0, 1\); got \(0, 255\)"):
        pixels(samples, (0, 255))


def test_an_epoch_draws_every_example_once():
    source = resident(dataset(10), labels=True)
    draw = jax.jit(partial(draw_step, source, examples_per_step=4, rows=jnp.arange(4)))
    batches = [draw(source.arrays, jax.random.key(0), step=step) for step in range(5)]
    samples = np.concatenate([batch.samples for batch in batches])
    labels = np.concatenate([batch.condition for batch in batches])
    assert labels.dtype == np.int32
    known = {image.tobytes(): label for image, label in
             zip(dataset(10).images, dataset(10).labels, strict=True)}
    drawn = [image.tobytes() for image in pixels(samples)]
    assert [known[image] for image in drawn] == labels.tolist()
    assert set(drawn[:10]) == set(drawn[10:]) == set(known)
    assert drawn[:10] != drawn[10:]


def test_arrays_are_not_constants_of_the_program():
    source = resident(dataset(500, (32, 32, 3)))
    lowered = jax.jit(source.draw).lower(source.arrays, jax.random.key(0),
                                         jnp.zeros(2, jnp.uint32), jnp.zeros(2, jnp.uint32))
    assert len(lowered.as_text()) < 500 * 32 * 32


@pytest.mark.parametrize("make", [
    lambda: resident(dataset(10), labels=True),
    lambda: resident(dataset(10), dequantize=True),
    lambda: mixture("8gaussians"),
    lambda: mixture("swissroll"),
], ids=["labels", "dequantize", "8gaussians", "swissroll"])
def test_devices_draw_together_what_one_would(make):
    source, key = make(), jax.random.key(5)

    def part(rows):
        return draw_step(source, source.arrays, key, 7, 16, rows)

    whole = jax.jit(part)(jnp.arange(16))
    devices = jax.local_device_count()
    devices = max(count for count in (1, 2, 4, 8) if count <= devices)
    parts = jax.pmap(part)(jnp.arange(16).reshape(devices, -1))
    for one, many in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        np.testing.assert_allclose(many.reshape(one.shape), one, rtol=1e-6, atol=1e-6)


def test_dequantized_pixels_are_spread_over_their_step():
    source = resident(dataset(1, (64, 64, 3)), dequantize=True)
    rows = jnp.arange(20)
    draw = jax.jit(partial(draw_step, source, examples_per_step=20, rows=rows))
    batch = draw(source.arrays, jax.random.key(0), step=0)
    steps = np.asarray(batch.samples) * 128 + 128 - dataset(1, (64, 64, 3)).images
    assert steps.min() > -1e-4
    assert steps.max() < 1 + 1e-4
    assert abs(steps.mean() - 0.5) < 5 * (1 / 12 / steps.size) ** 0.5
    assert abs(steps.var() - 1 / 12) < 1e-3
    assert abs(np.corrcoef(steps[0].ravel(), steps[1].ravel())[0, 1]) < 0.05
    assert -1 <= batch.samples.min() <= batch.samples.max() <= 1


def test_wrong_sources_are_refused():
    with pytest.raises(ValueError, match=r"needs the value_range \(-1, 1\); got \(0, 1\)"):
        resident(dataset(), value_range=(0, 1), dequantize=True)
    with pytest.raises(ValueError, match=r"must be \(-1, 1\) or \(0, 1\); got \(0, 2\)"):
        resident(dataset(), value_range=(0, 2))
    with pytest.raises(ValueError, match="unknown mixture '8gausians': did you mean '8gaussians'"):
        mixture("8gausians")


# The toy distributions

def points(name, count=100_000, steps=1):
    source = mixture(name)
    assert (source.size, source.arrays, source.sample_shape) == (None, (), (2,))
    draw = jax.jit(partial(draw_step, source, (), examples_per_step=count, rows=jnp.arange(count)))
    batches = [draw(jax.random.key(0), step=step).samples for step in range(steps)]
    return np.concatenate(batches).astype(float)


@pytest.mark.parametrize(("name", "count", "variance"), [
    # half the squared radius; the mean of the squares of {-4, -2, 0, 2, 4}; plus the noise's
    ("8gaussians", 8, (2.0 + 0.02**2) / 1.414**2),
    ("25gaussians", 25, (8.0 + 0.05**2) / 2.828**2),
])
def test_mixtures_have_the_moments_of_the_paper(name, count, variance):
    drawn, (centres, sigma) = points(name), MIXTURES[name]
    assert centres.shape == (count, 2)
    assert len(np.unique(np.round(centres, 4), axis=0)) == count
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), variance * np.eye(2), atol=0.02)
    offsets = drawn[:, None] - centres
    nearest = np.argmin((offsets**2).sum(-1), 1)
    shares = np.bincount(nearest, minlength=count) / len(drawn)
    np.testing.assert_allclose(shares, 1 / count, atol=5 * (1 / count / len(drawn)) ** 0.5)
    residuals = offsets[np.arange(len(drawn)), nearest]
    np.testing.assert_allclose(residuals.std(0), sigma, rtol=0.02)
    assert abs(np.corrcoef(residuals.T)[0, 1]) < 0.02


def test_the_ring_has_the_radius_of_the_paper():
    np.testing.assert_allclose(np.linalg.norm(MIXTURES["8gaussians"].centres, axis=1), 2 / 1.414,
                               rtol=1e-6)
    assert MIXTURES["8gaussians"].sigma == pytest.approx(0.02 / 1.414)
    grid = MIXTURES["25gaussians"].centres * 2.828
    np.testing.assert_allclose(sorted(set(np.round(grid.ravel(), 3))), [-4, -2, 0, 2, 4],
                               atol=1e-3)


def test_the_swiss_roll_is_that_of_scikit_learn():
    from scipy.stats import ks_2samp
    from sklearn.datasets import make_swiss_roll

    drawn = points("swissroll", 20_000)
    expected = make_swiss_roll(20_000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5
    for angle in np.arange(0, np.pi, np.pi / 6):  # distributions seen from six sides, and radii
        direction = np.array([np.cos(angle), np.sin(angle)])
        assert ks_2samp(drawn @ direction, expected @ direction).pvalue > 1e-3
    radii = np.linalg.norm(drawn, axis=1), np.linalg.norm(expected, axis=1)
    assert ks_2samp(*radii).pvalue > 1e-3
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(expected.T), atol=0.02)


def test_samples_of_the_swiss_roll_are_about_its_curve():
    """Across it they are normal with deviation 0.25 / 7.5, whose mean absolute value is known."""
    from jaxgan.data.toy import swissroll_curve
    from jaxgan.metrics import curve_distance

    expected = 0.25 / 7.5 * np.sqrt(2 / np.pi)
    found = curve_distance(points("swissroll", 5000), swissroll_curve())
    assert found == pytest.approx(expected, rel=0.03)


def test_endless_sets_do_not_repeat():
    assert len(np.unique(points("8gaussians", 1000, steps=2), axis=0)) == 2000


def test_known_names_are_listed():
    assert catalogue.NAMES == ("digits", "mnist", "fashion_mnist", "cifar10")


def test_images_are_flipped_by_chance_and_by_position():
    images = np.arange(40 * 2 * 3, dtype=np.float32).reshape(40, 2, 3, 1)
    plain = in_memory(Batch(images, np.arange(40, dtype=np.int32) % 3))
    key, epochs, offsets = jax.random.key(0), jnp.zeros(40, jnp.uint32), jnp.arange(40, dtype=jnp.uint32)
    before = plain.draw(plain.arrays, key, epochs, offsets)
    source = flipped(plain)
    after = source.draw(source.arrays, key, epochs, offsets)
    is_flipped = (after.samples != before.samples).any((1, 2, 3))
    assert 10 < is_flipped.sum() < 30
    np.testing.assert_array_equal(after.samples, np.where(
        is_flipped[:, None, None, None], before.samples[:, :, ::-1], before.samples))
    np.testing.assert_array_equal(after.condition, before.condition)
    part = source.draw(source.arrays, key, epochs[7:9], offsets[7:9])
    np.testing.assert_array_equal(part.samples, after.samples[7:9])


def test_images_are_enlarged_and_cut_at_places_that_pairs_share():
    """A ramp of slope 4 has slope 3 when 12 pixels become 16, wherever it is cut."""
    rows, columns = np.mgrid[:12, :12].astype(np.float32)
    images = np.broadcast_to(np.stack([4 * rows, 4 * columns], -1), (40, 12, 12, 2))
    plain = in_memory(Batch(images, images + 100))
    source = jittered(plain, 16)
    where = jax.random.key(0), jnp.zeros(40, jnp.uint32), jnp.arange(40, dtype=jnp.uint32)
    batch = source.draw(source.arrays, *where)
    assert batch.samples.shape == images.shape
    inner = np.asarray(batch.samples)[:, 2:10, 2:10]
    np.testing.assert_allclose(np.diff(inner[..., 0], axis=1), 3, atol=1e-4)
    np.testing.assert_allclose(np.diff(inner[..., 1], axis=2), 3, atol=1e-4)
    places = np.rint((inner[:, 0, 0] - inner[:, 0, 0].min(0)) / 3)
    assert {*places.ravel()} == {0, 1, 2, 3, 4}
    np.testing.assert_allclose(batch.condition, batch.samples + 100, atol=1e-3)
    np.testing.assert_array_equal(jittered(plain, 12).draw(plain.arrays, *where).samples,
                                  plain.draw(plain.arrays, *where).samples)
    with pytest.raises(ValueError, match="give a size from 12x12 on; got 11x20"):
        jittered(plain, (11, 20))


def test_what_can_not_be_flipped():
    with pytest.raises(ValueError, match=r"only images, .* got samples of shape \(2,\)"):
        flipped(in_memory(np.zeros((4, 2), np.float32)))
    masks = in_memory(Batch(np.zeros((4, 2, 2, 1), np.float32), {"mask": np.zeros((4, 2, 2, 1))}))
    with pytest.raises(ValueError, match="masks or boxes of a condition would stay where they are"):
        flipped(masks).draw(masks.arrays, jax.random.key(0), jnp.zeros(2, jnp.uint32),
                            jnp.arange(2, dtype=jnp.uint32))
