"""Images in zip and tar files: the same as in a folder, and what hostile archives come to."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import threading
import time
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from jaxgan.data import DataNotFoundError, load, open_folder, tree

KINDS = {"zip": None, "tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}
RANDOM = ("zip", "tar")  # in which a file is found without reading the others


def png(value=0, size=(8, 8), mode="L"):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return file.getvalue()


def zipped(path, files):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, data in files:
            archive.writestr(name, data)
    return path


def tarred(path, files, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def packed(kind, folder, files):
    path = folder / f"pictures.{kind}"
    return zipped(path, files) if kind == "zip" else tarred(path, files, KINDS[kind])


def pictures(count=20, prefix=""):
    """Two classes in either split; the value of an image is its number."""
    return [(f"{prefix}{split}/{name}/{i}.png", png(10 * i + part))
            for part, split in enumerate(("train", "test")) for name in ("cat", "dog")
            for i in range(count)]


def opened(path, files):
    """The same images, unpacked."""
    for name, data in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


@pytest.mark.parametrize("prefix", ["", "pictures/", "./a/b/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_the_folder_that_it_holds(kind, prefix, tmp_path):
    folder = opened(tmp_path / "open", pictures())
    path = packed(kind, tmp_path, [*reversed(pictures(prefix=prefix)), (f"{prefix}notes.txt", b"no")])
    for split in ("train", "test", "all"):
        there, here = (load(f"folder:{place}", split) for place in (folder, path))
        assert (there.digest, there.class_names) == (here.digest, here.class_names)
        np.testing.assert_array_equal(there.images, here.images)


@pytest.mark.parametrize("kind", RANDOM)
def test_on_demand_images_come_from_the_archive_and_from_several_threads(kind, tmp_path):
    path = packed(kind, tmp_path, pictures())
    whole, files = load(f"folder:{path}"), open_folder(path)
    assert files.digest == whole.digest
    index = np.random.default_rng(0).integers(0, len(whole), (16, 30))
    with ThreadPoolExecutor(8) as pool:
        for rows, (images, labels) in zip(index, pool.map(files.__getitem__, index), strict=True):
            np.testing.assert_array_equal(images, whole.images[rows])
            np.testing.assert_array_equal(labels, whole.labels[rows])


def test_a_compressed_tar_is_not_read_anew_for_every_image(tmp_path):
    path = packed("tar.gz", tmp_path, pictures())
    with pytest.raises(ValueError, match=r"on demand, each look .*: make it a zip file or a plain tar"):
        open_folder(path)


def test_of_a_compressed_tar_only_a_few_files_are_in_memory(tmp_path, monkeypatch):
    path = packed("tar.gz", tmp_path, pictures())
    monkeypatch.setattr(tree, "_BATCH_BYTES", 300)
    opened = tree.open_tree(path, lambda name: True)
    sizes = [sum(len(opener().read()) for _, opener in batch) for batch in opened.batches(opened.names)]
    assert len(sizes) > 10
    assert max(sizes) < 300 + len(png())
    assert load(f"folder:{path}").digest == load(
        f"folder:{packed('zip', tmp_path, pictures())}").digest


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_files_with_one_name_the_last_counts(kind, tmp_path):
    files = [("train/a.png", png(1)), ("train/a.png", png(2)), ("test/b.png", png(3))]
    assert load(f"folder:{packed(kind, tmp_path, files)}").images[:, 0, 0, 0].tolist() == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_only_names(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["/train/a.png", "../../train/b.png", "train/../c.png", "train/.hidden.png",
             "__MACOSX/train/._a.png", "test/d.png", "train/ü" + "x" * 200 + ".png"]
    path = packed(kind, tmp_path, [(name, png(i)) for i, name in enumerate(names)])
    assert load(f"folder:{path}").images[:, 0, 0, 0].tolist() == [0, 1, 2, 6]
    assert sorted(tmp_path.iterdir()) == [path]


def test_backslashes_separate_in_zip_files(tmp_path):
    path = zipped(tmp_path / "a.zip", [(r"train\cat\a.png", png()), (r"test\cat\b.png", png())])
    assert load(f"folder:{path}").class_names == ("cat",)


@pytest.mark.parametrize("how", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_kind_of_tar(how, tmp_path):
    folder = "train/" + "c" * 90 + "/" + "d" * 60
    path = tarred(tmp_path / "a.tar", [(f"{folder}/{i}.png", png(i)) for i in range(3)]
                  + [("test/x.png", png())], format=how)
    assert load(f"folder:{path}", "all").images.shape == (4, 8, 8, 1)
    assert tree.open_tree(path, lambda name: True).names == [
        "test/x.png", *(f"{folder}/{i}.png" for i in range(3))]


def test_links_devices_and_folders_in_a_tar_are_left_out(tmp_path):
    path = tarred(tmp_path / "a.tar", [("train/a.png", png(1)), ("test/b.png", png(2))])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
                     tarfile.DIRTYPE):
            member = tarfile.TarInfo(f"train/x{kind.decode()}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    assert len(load(f"folder:{path}", "all")) == 2


def test_a_link_in_a_zip_file_is_left_out(tmp_path):
    path = zipped(tmp_path / "a.zip", [("train/a.png", png(1)), ("test/b.png", png(2))])
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("train/x.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert len(load(f"folder:{path}", "all")) == 2


# What can't be read.

def among_many(bad, kind="zip"):
    return [(f"train/{i:03}.png", png(i % 200)) for i in range(150)] + [("test/x.png", png()), bad]


def skipped(path, message):
    """Loads an archive with one bad image among many."""
    with pytest.warns(UserWarning, match=f"1 of 151 images cannot be read: train/bad.png .*{message}"):
        assert len(load(f"folder:{path}")) == 150


def edited(path, mark, at, new):
    """Changes bytes behind the last place of a mark."""
    data = bytearray(path.read_bytes())
    place = data.rindex(mark) + at
    data[place:place + len(new)] = new
    path.write_bytes(data)
    return path


def test_an_encrypted_image_is_named(tmp_path):
    path = zipped(tmp_path / "a.zip", among_many(("train/bad.png", png())))
    central = path.read_bytes().rindex(b"train/bad.png") - 46
    edited(path, path.read_bytes()[central:central + 46], 8, b"\x01\0")
    skipped(path, "encrypted: give a zip file without a password")


@pytest.mark.parametrize("declared", [10, 100_000])
def test_a_zip_file_that_lies_about_a_size_is_read_no_further(declared, tmp_path):
    path = zipped(tmp_path / "a.zip", among_many(("train/bad.png", png() + bytes(5000))))
    central = path.read_bytes().rindex(b"train/bad.png") - 46
    edited(path, path.read_bytes()[central:central + 46], 24, struct.pack("<I", declared))
    skipped(path, "damaged in the zip file")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_too_many_bytes_is_not_read(kind, tmp_path, monkeypatch):
    path = packed(kind, tmp_path, among_many(("train/bad.png", png() + bytes(5000))))
    monkeypatch.setattr(tree, "MOST_BYTES", 4000)
    skipped(path, "bytes are too many")


def test_a_method_without_a_bound_is_not_unpacked(tmp_path):
    path = zipped(tmp_path / "a.zip", among_many(("train/bad.png", png()))[:-1])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("train/bad.png", bytes(2**20))
    skipped(path, "compressed in a way that isn't read")


def test_a_bomb_of_pixels_in_an_archive_is_left_out(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))))
    skipped(zipped(tmp_path / "a.zip", among_many(("train/bad.png", bomb))), "pixels")


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_archive_is_one_sentence(kind, left, tmp_path):
    """Never fewer images than there were, without a word; a tar is cut between two files, too."""
    path = packed(kind, tmp_path, pictures())
    data = path.read_bytes()
    place = int(len(data.rstrip(b"\0")) * left)
    for end in (place, place // 512 * 512):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=(
                rf"{path} is damaged, or isn't read \(.*\): fetch|neither|is empty")) as caught:
            load(f"folder:{path}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04", bytes(1024), b"\x1f\x8b" + bytes(9),
                                  gzip.compress(b"no", mtime=0), bz2.compress(bytes(5)), b"BZh9",
                                  b"\xfd7zXZ\0\0"])
def test_what_is_no_archive_is_said_to_be_none(data, tmp_path):
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(ValueError, match=(
            r"neither a folder nor|is damaged, or isn't read|no image file|is empty: ")) as caught:
        load(f"folder:{tmp_path / 'a.zip'}")
    assert "\n" not in str(caught.value)


def test_an_archive_without_images_or_that_is_not_there(tmp_path):
    with pytest.raises(DataNotFoundError, match="there is no image file"):
        load(f"folder:{zipped(tmp_path / 'a.zip', [('notes.txt', b'no')])}")
    with pytest.raises(DataNotFoundError, match="there is no such folder: say where it is now"):
        load(f"folder:{tmp_path / 'b.zip'}")


def changed_header(data, at, new):
    """A tar file whose first header is changed, with the right sum."""
    header = bytearray(data[:512])
    header[at:at + len(new)] = new
    if at != 148:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(("at", "new", "message"), [
    (124, b"-0000000001\0", "is no number of bytes"), (124, b"\xff" + b"\xff" * 11, "is no number of"),
    (124, b"77777777777\0", "ends without"), (124, b"00000001750\0", "no header at byte 1536"),
    (148, b"1", "neither a folder nor")])
def test_headers_that_lie(at, new, message, tmp_path):
    path = tarred(tmp_path / "a.tar", [("train/a.png", png()), ("test/b.png", png())])
    path.write_bytes(changed_header(path.read_bytes(), at, new))
    start = time.monotonic()
    with pytest.raises(ValueError, match=message):
        load(f"folder:{path}")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("pax", [False, True])
def test_a_file_with_holes_is_named(pax, tmp_path):
    record = ("x", b"31 GNU.sparse.name=train/a.png\n")
    data = tarred(tmp_path / "b.tar", [record] * pax + [("train/a.png", png())]).read_bytes()
    (tmp_path / "a.tar").write_bytes(changed_header(data, 156, b"x" if pax else b"S"))
    with pytest.raises(ValueError, match=r"\(train/a.png is stored with holes: make .* without --spars"):
        load(f"folder:{tmp_path / 'a.tar'}")


def test_xz_takes_bounded_memory(tmp_path):
    """By its header, the first block wants a dictionary of 4 GiB."""
    path = packed("tar.xz", tmp_path, pictures())
    data = bytearray(path.read_bytes())
    end = 12 + 4 * (data[12] + 1)  # of the block's header, which its sum ends
    assert data[14:16] == b"\x21\x01"  # LZMA2, of one byte
    data[16] = 40
    data[end - 4:end] = zlib.crc32(data[12:end - 4]).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"xz takes more than 256 MiB of memory .*: pack it with xz -9"):
        load(f"folder:{path}")


def test_xz_of_several_streams(tmp_path):
    path = packed("tar", tmp_path, pictures())
    data = path.read_bytes()
    parts = [lzma.compress(data[:5000]), bytes(8), lzma.compress(data[5000:]), bytes(2**21)]
    (tmp_path / "a.tar.xz").write_bytes(b"".join(parts))
    assert load(f"folder:{tmp_path / 'a.tar.xz'}").digest == load(f"folder:{path}").digest


@pytest.mark.parametrize(("kind", "text"), [
    (b"x", b"30 path=a\n"), (b"x", b"0 path=a\n"), (b"x", b"14 size=-5000\n"), (b"x", b"12 size=1e9\n")])
def test_pax_records_that_lie(kind, text, tmp_path):
    data = tarred(tmp_path / "b.tar", [("x", text), ("train/a.png", png())]).read_bytes()
    (tmp_path / "a.tar").write_bytes(changed_header(data, 156, kind))
    with pytest.raises(ValueError, match="is damaged, or isn't read"):
        load(f"folder:{tmp_path / 'a.tar'}")


def test_a_name_without_end_is_not_read(tmp_path):
    data = tarred(tmp_path / "b.tar", [("x", b""), ("train/a.png", png())]).read_bytes()
    for kind in (b"L", b"x"):
        lying = changed_header(changed_header(data, 156, kind), 124, b"%011o\0" % 2**33)
        (tmp_path / "a.tar").write_bytes(lying)
        with pytest.raises(ValueError, match="a name of 8589934592 bytes is too long"):
            load(f"folder:{tmp_path / 'a.tar'}")


def test_a_header_of_many_records_is_read_at_once(tmp_path):
    text = b"5 a=\n" * 200_000
    data = tarred(tmp_path / "b.tar", [("x", text), ("train/a.png", png()), ("test/b.png", png())])
    (tmp_path / "a.tar").write_bytes(changed_header(data.read_bytes(), 156, b"x"))
    start = time.monotonic()
    assert len(load(f"folder:{tmp_path / 'a.tar'}")) == 1
    assert time.monotonic() - start < 5


def outcome(path):
    """The size of the images, or the sentence."""
    try:
        return load(f"folder:{path}", "all", image_size=4).images.shape[1:3]
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_any_changed_archive_is_read_or_refused_by_a_sentence(kind, tmp_path):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(packed(kind, tmp_path, pictures(1)).read_bytes(), np.uint8)
    where = np.flatnonzero(whole) if kind == "tar" else np.arange(len(whole))  # which is mostly zeros
    for _ in range(30):
        data = whole.copy()
        data[rng.choice(where, 3)] = rng.integers(0, 256, 3)
        (tmp_path / "a").write_bytes(data.tobytes()[:rng.choice([len(data), rng.integers(len(data))])])
        found = outcome(tmp_path / "a")
        assert found == (4, 4) or "\n" not in found


def test_so_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "_MOST_FILES", 10)
    with pytest.raises(ValueError, match="it holds more than 10 files"):
        load(f"folder:{packed('tar', tmp_path, pictures())}")
    monkeypatch.setattr(tree, "_MOST_NAMES", 1000)
    with pytest.raises(ValueError, match=r"a directory of \d+ bytes is too long"):
        load(f"folder:{packed('zip', tmp_path, pictures())}")


def test_archives_leave_nothing_open(tmp_path):
    """A file that is dropped without being closed is a warning, and so an error here."""
    for kind in KINDS:
        load(f"folder:{packed(kind, tmp_path, pictures(2))}")
    assert threading.active_count() < 20
