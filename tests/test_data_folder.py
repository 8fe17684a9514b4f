"""A folder of images as a data set: what is read, what is left out, and what is said about it."""

import io
import os
import struct
import tarfile
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgan.data import DataNotFoundError, decoding, load, open_folder, splits, tree
from jaxgan.data.tree import open_tree

REAL = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpeg.tar.xz"


def colour(value, mode="RGB", size=(8, 8)):
    return Image.new(mode, size, value)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def load_pair(root, first, size=4):
    """Loads a folder that holds one picture for each split; returns the train one's pixels."""
    first_path = root / "train" / first
    save(root / "test" / "other.png", colour("red"))
    assert first_path.exists()
    data = load(f"folder:{root}", image_size=size)
    assert data.images.shape == (1, size, size, 3)
    return data.images[0]


def grey16():
    return Image.fromarray(np.full((8, 8), 0x8142, np.uint16))


def tiff(dtype):
    """A file of numbers of 32 bits."""
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 1_000_000).astype(dtype)).save(file, "TIFF")
    return file.getvalue()


def many(root, count=200):
    for i in range(count):
        save(root / f"{i:03}.png", colour((i, 0, 0), size=(2, 2)))


# Names, classes, splits

def test_a_flat_folder_has_one_class_and_keeps_the_order_of_the_paths(tmp_path):
    many(tmp_path)
    train, test = (load(f"folder:{tmp_path}", split, image_size=2) for split in ("train", "test"))
    for data in (train, test):
        values = data.images[:, 0, 0, 0].tolist()
        assert values == sorted(values)
        assert data.class_names == ("images",)
        assert not data.labels.any()
    both = train.images[:, 0, 0, 0].tolist() + test.images[:, 0, 0, 0].tolist()
    assert sorted(both) == list(range(200))
    assert 8 <= len(test) <= 36  # binomial, 200 draws of 1/10: four deviations


def test_a_file_stays_in_its_split_when_others_go(tmp_path):
    many(tmp_path)
    before = load(f"folder:{tmp_path}", "test", image_size=2).images[:, 0, 0, 0].tolist()
    for i in range(0, 200, 2):
        (tmp_path / f"{i:03}.png").unlink()
    after = load(f"folder:{tmp_path}", "test", image_size=2).images[:, 0, 0, 0].tolist()
    assert after == [value for value in before if value % 2]


def test_sub_folders_are_classes(tmp_path):
    for i, name in enumerate(["zebra", "ant", "bee"]):
        for j in range(20):
            save(tmp_path / name / "deeper" / f"{j}.png", colour((i, 0, 0)))
    data = load(f"folder:{tmp_path}", image_size=4)
    assert data.class_names == ("ant", "bee", "zebra")
    red = data.images[:, 0, 0, 0]
    np.testing.assert_array_equal(data.labels, np.array([2, 0, 1])[red])
    assert set(red) == {0, 1, 2}


def test_folders_named_train_and_test_are_the_splits(tmp_path):
    save(tmp_path / "train" / "cat" / "a.png", colour("red"))
    save(tmp_path / "train" / "dog" / "b.png", colour("lime"))
    save(tmp_path / "test" / "dog" / "c.png", colour("blue"))
    train, test = (load(f"folder:{tmp_path}", split, image_size=4) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.images[:, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0]]
    assert train.labels.tolist() == [0, 1]
    assert test.labels.tolist() == [1]


def test_folders_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match="there is no image file in the folder, none that ends"):
        load(f"folder:{tmp_path}", image_size=4)
    with pytest.raises(DataNotFoundError, match="there is no such folder"):
        load(f"folder:{tmp_path / 'elsewhere'}", image_size=4)
    save(tmp_path / "a.png", colour("red"))
    split = "train" if splits._held_out("a.png") else "test"
    with pytest.raises(DataNotFoundError, match=f"none of its 1 images falls into the split '{split}'"):
        load(f"folder:{tmp_path}", split, image_size=4)
    save(tmp_path / "cat" / "b.png", colour("red"))
    with pytest.raises(ValueError, match=r"a.png lies beside folders of images"):
        load(f"folder:{tmp_path}", image_size=4)


def classes_in(root, *folders):
    """Two images of either class in each of the folders; their red says where they are."""
    for red, split in enumerate(folders):
        for blue, name in enumerate(("cat", "dog")):
            for i in range(2):
                save(root / split / name / f"{i}.png", colour((9 * red, 0, 9 * blue)))


def reds(data):
    return (data.images[:, 0, 0, 0] // 9).tolist()


@pytest.mark.parametrize(("folders", "test"), [
    (("train", "val"), 1), (("train", "valid"), 1), (("train", "validation"), 1), (("Train", "Test"), 1),
    (("training", "testing"), 1), (("train", "test", "val"), 1), (("TRAIN", "Validation", "test"), 2),
    (("training_set", "test_set"), 1), (("train2017", "val2017"), 1),
    (("train-images", "test-images"), 1),
])
def test_splits_under_other_names_are_splits(tmp_path, folders, test):
    classes_in(tmp_path, *folders)
    train, held_out = (load(f"folder:{tmp_path}", split, image_size=8) for split in ("train", "test"))
    assert train.class_names == held_out.class_names == ("cat", "dog")
    assert (reds(train), reds(held_out)) == ([0] * 4, [test] * 4)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert len(load(f"folder:{tmp_path}", "all", image_size=8)) == 4 * len(folders)


def test_of_a_training_folder_alone_a_tenth_is_held_out(tmp_path):
    for name in ("cat", "dog"):
        many(tmp_path / "train" / name, 100)
    train, test = (load(f"folder:{tmp_path}", split, image_size=2) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog")
    assert len(train) + len(test) == 200
    assert 4 <= len(test) <= 40


@pytest.mark.parametrize(("folders", "message"), [
    (("train", "Train"), "can't be told which .*: there are Train, train; let it hold"),
    (("train", "val", "valid"), "there are train, val, valid; let it hold"),
    (("train", "test", "extra"), "there are extra, test, train; let it hold"),
    (("train", "unlabelled"), "there are train, unlabelled; let it hold"),
    (("val", "test"), "there are folders for test and val in it, none for train"),
    (("test",), "there are folders for test in it, none for train"),
    (("data/train", "data/test"), "its folders data hold splits, test, train: give the folder"),
    (("cat/train", "cat/val", "dog/train"), "its folders cat, dog hold splits, train, val: give"),
])
def test_what_can_not_be_told_is_refused_with_what_was_found(tmp_path, folders, message):
    classes_in(tmp_path, *folders)
    with pytest.raises(ValueError, match=message):
        load(f"folder:{tmp_path}", image_size=8)


def test_a_class_may_be_called_like_a_split(tmp_path):
    for name in ("train", "plane", "test drive"):
        many(tmp_path / name, 20)
    assert load(f"folder:{tmp_path}", image_size=2).class_names == ("plane", "test drive", "train")


def test_images_for_training_may_be_in_classes_and_others_not(tmp_path):
    classes_in(tmp_path, "train")
    many(tmp_path / "test", 3)
    train = load(f"folder:{tmp_path}", image_size=2)
    assert (len(train), train.class_names) == (4, ("cat", "dog"))
    with pytest.raises(DataNotFoundError, match=r"test/000.png lies in no class folder, as the images"):
        load(f"folder:{tmp_path}", "test", image_size=2)
    whole = load(f"folder:{tmp_path}", "all", image_size=2)
    assert (len(whole), whole.class_names) == (7, ("images",))


def test_numbered_classes_are_sorted_as_people_count(tmp_path):
    names = ["1", "2", "10", "a2b", "a10b", "b", "c01", "c1"]
    for i, name in enumerate(names):
        for j in range(9):
            save(tmp_path / name / f"{j}.png", colour((i, 0, 0)))
    data = load(f"folder:{tmp_path}", image_size=2)
    assert data.class_names == tuple(names)
    np.testing.assert_array_equal(data.labels, data.images[:, 0, 0, 0])


def test_images_of_one_size_need_no_other(tmp_path):
    classes_in(tmp_path, "train", "test")
    assert load(f"folder:{tmp_path}").images.shape == (4, 8, 8, 3)
    save(tmp_path / "test" / "cat" / "x.png", colour("red", size=(8, 9)))
    with pytest.raises(ValueError, match=rf"{tmp_path} needs an image_size.* but 8x8, 9x8"):
        load(f"folder:{tmp_path}")


# Files

@pytest.mark.parametrize(("form", "suffix"), [
    ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("PPM", ".ppm"),
    ("GIF", ".png"), ("WEBP", ".jpg"), ("TIFF", ".jpeg"), ("BMP", ".gif")])
def test_other_formats_are_read_whatever_their_name(tmp_path, form, suffix):
    options = {"lossless": True} if form == "WEBP" else {}
    save(tmp_path / "train" / f"a{suffix}", colour((200, 100, 50)), format=form, **options)
    assert (load_pair(tmp_path, f"a{suffix}") == [200, 100, 50]).all()


@pytest.mark.parametrize(("image", "form", "expected"), [
    (grey16(), "TIFF", 0x81), (grey16(), "PPM", 0x81), (colour(77, "L"), "GIF", 77),
    (colour((10, 20, 30, 0), "RGBA"), "WEBP", 255), (colour((10, 20, 30, 0), "RGBA"), "TIFF", 255),
    (colour(0, "1"), "PPM", 0),
])
def test_other_formats_become_rgb_too(tmp_path, image, form, expected):
    save(tmp_path / "train" / "a.png", image, format=form)
    np.testing.assert_allclose(load_pair(tmp_path, "a.png"), expected, atol=1)


def test_of_several_images_in_a_file_the_first_is_read(tmp_path):
    frames = [colour(name) for name in ("red", "lime", "blue")]
    for form in ("GIF", "TIFF"):
        save(tmp_path / "train" / "a.png", frames[0], format=form, save_all=True,
             append_images=frames[1:])
        assert (load_pair(tmp_path, "a.png") == [255, 0, 0]).all()


@pytest.mark.parametrize(("data", "message"), [
    (b"\0\0\0\x20ftypavif" + bytes(99), "AVIF, which isn't read: convert it"),
    (b"\0\0\0\x18ftypheic" + bytes(99), "HEIC, which isn't"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL, which isn't"),
    (b"\xff\n" + bytes(99), "JPEG XL, which isn't"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000, which isn't"), (b"GIF8", "cannot identify image file"),
    (tiff(np.float32), "floating-point numbers"), (tiff(np.int32), "numbers of more than 16 bits"),
], ids=["AVIF", "HEIC", "JPEG XL", "JPEG XL too", "JPEG 2000", "cut", "floats", "32 bits"])
def test_what_is_not_read_is_named(tmp_path, data, message):
    many(tmp_path / "train", 3)
    many(tmp_path / "test", 1)
    (tmp_path / "train" / "a.png").write_bytes(data)
    with pytest.raises(ValueError, match=rf"1 of 5 images cannot be read: train/a.png \(.*{message}"):
        load(f"folder:{tmp_path}", image_size=2)


def test_what_does_not_end_like_an_image_is_ignored(tmp_path):
    save(tmp_path / "train" / "a.PNG", colour("red"), format="PNG")
    for name in ("notes.txt", ".DS_Store", "._a.png", "Thumbs.db", "list"):
        (tmp_path / "train" / name).write_bytes(b"no image")
    save(tmp_path / "train" / ".cache" / "b.png", colour("blue"))
    assert load_pair(tmp_path, "a.PNG")[0, 0].tolist() == [255, 0, 0]


def test_the_content_decides_not_the_name(tmp_path):
    save(tmp_path / "train" / "a.png", colour((200, 100, 50)), format="JPEG")
    np.testing.assert_allclose(load_pair(tmp_path, "a.png")[0, 0], [200, 100, 50], atol=2)


def test_broken_files_are_named_once_and_skipped(tmp_path):
    many(tmp_path / "train", 300)
    many(tmp_path / "test", 1)
    whole = (tmp_path / "train" / "150.png").read_bytes()
    (tmp_path / "train" / "100.png").write_bytes(whole[:-30])
    (tmp_path / "train" / "x.jpg").write_bytes(b"")
    (tmp_path / "train" / "y.webp").write_bytes(b"RIFF")
    with pytest.warns(UserWarning, match=r"3 of 302 images cannot be read") as caught:
        data = load(f"folder:{tmp_path}", image_size=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for name in ("100.png (", "x.jpg (cannot identify image file", "y.webp ("):
        assert f"train/{name}" in str(caught[0].message)
    assert len(data) == 299
    assert 100 not in data.images[:256, 0, 0, 0]


def test_on_demand_the_examples_are_the_same(tmp_path):
    for name in ("ant", "bee"):
        many(tmp_path / "train" / name, 150)
    many(tmp_path / "test" / "bee", 1)
    (tmp_path / "train" / "ant" / "100.png").write_bytes(b"bad")
    with pytest.warns(UserWarning, match="1 of 300 images cannot be read"):
        whole = load(f"folder:{tmp_path}", image_size=2)
    with pytest.warns(UserWarning, match="1 of 300 images cannot be read") as caught:
        files = open_folder(tmp_path, image_size=2)
    assert caught[0].filename == __file__
    assert (len(files), files.class_names) == (len(whole), whole.class_names) == (299, ("ant", "bee"))
    assert files.digest == whole.digest
    assert open_folder(tmp_path, "test", image_size=2).digest == load(
        f"folder:{tmp_path}", "test", image_size=2).digest
    index = np.array([298, 0, 100, 101, 0])
    for one, other in zip(files[index], whole[index], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert len(open_folder(tmp_path, "test", image_size=2)) == 1
    (tmp_path / "train" / "bee" / "007.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 299 .*train/bee/007.png \(not a file\); they could be"):
        files[np.arange(299)]


def test_on_demand_the_same_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match="there is no such folder"):
        open_folder(tmp_path / "elsewhere", image_size=4)
    with pytest.raises(ValueError, match=r"split must be .*'all'; got 'val'"):
        open_folder(tmp_path, "val", image_size=4)
    with pytest.raises(ValueError, match="image_size must be at least 1; got 0"):
        open_folder(tmp_path, image_size=0)


@pytest.mark.parametrize("kind", [load, open_folder])
def test_more_than_one_percent_of_both_splits_broken_is_refused_before_training(kind, tmp_path):
    many(tmp_path / "train", 100)
    many(tmp_path / "test", 1)
    (tmp_path / "train" / "bad1.png").write_bytes(b"bad")
    (tmp_path / "test" / "bad2.png").write_bytes(b"bad")
    place = f"folder:{tmp_path}" if kind is load else tmp_path
    with pytest.raises(ValueError, match=(
            r"2 of 103 .*: test/bad2.png \(held out: cannot .*\), train/bad1.png \(training: cannot .*\)"
            "; more than 1 %: mend or remove them")):
        kind(place, image_size=2)
    (tmp_path / "test" / "bad2.png").unlink()
    with pytest.warns(UserWarning, match=r"1 of 101 .*bad1.png .*; left out of training"):
        assert len(kind(place, image_size=2)) == 100


@pytest.mark.parametrize("kind", [load, open_folder])
def test_what_can_be_trained_on_is_not_refused_when_it_is_held_out(kind, tmp_path):
    many(tmp_path / "train", 150)
    many(tmp_path / "test", 2)
    place = f"folder:{tmp_path}" if kind is load else tmp_path
    whole = kind(place, image_size=2)
    (tmp_path / "test" / "001.png").write_bytes(b"bad")
    again = kind(place, image_size=2)  # silently: nothing is left out of it
    assert (len(again), again.digest) == (150, whole.digest)
    with pytest.warns(UserWarning, match=r"1 of 2 .*test/001.png .*; left out of the held-out images"):
        assert len(kind(place, "test", image_size=2)) == 1
    (tmp_path / "test" / "000.png").unlink()
    with pytest.raises(DataNotFoundError, match=r"1 of 1 .*test/001.png .* no other one .*'test'"):
        kind(place, "test", image_size=2)


def test_at_most_twenty_files_are_named(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02}.png").write_bytes(b"bad")
    with pytest.raises(ValueError, match=r"images cannot be read: 0.*, \.\.\.; more than") as caught:
        load(f"folder:{tmp_path}", image_size=2)
    assert str(caught.value).count("cannot identify") == 20


def rgb_png(width, height, depth, data):
    def chunk(kind, data):
        return (struct.pack(">I4s", len(data), kind) + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header),
                     chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")))


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the one, refuses the other
def test_too_many_pixels_count_as_broken(tmp_path, side):
    many(tmp_path / "train", 150)
    many(tmp_path / "test", 1)
    (tmp_path / "train" / "bomb.png").write_bytes(rgb_png(side, side, 8, bytes(1000)))
    with pytest.warns(UserWarning, match=r"1 of 151 .* train/bomb.png \(.*pixels.*\); left out of tr"):
        data = load(f"folder:{tmp_path}", image_size=2)
    assert len(data) == 150


def test_few_pixels_are_decoded_at_once(tmp_path, monkeypatch):
    """Many large images at a time would take all memory; one that is larger than allowed goes alone."""
    for i in range(20):
        save(tmp_path / f"{i}.png", colour((i, 0, 0), size=(10 + i, 10)))
    formed, lock, held, most = decoding._formed, threading.Lock(), [], []

    def watched(image, form):
        with lock:
            held.append(image.width * image.height)
            most.append((sum(held), len(held)))
        time.sleep(0.001)
        pixels = formed(image, form)
        with lock:
            held.remove(image.width * image.height)
        return pixels

    monkeypatch.setattr(decoding, "_formed", watched)
    for room, at_once, alone in ((500, 500, False), (100, 290, True)):
        monkeypatch.setattr(decoding, "_pixels", decoding._Room(room))
        most.clear()
        found = load(f"folder:{tmp_path}", "all", image_size=2).images[:, 0, 0, 0]
        assert sorted(found) == [*range(20)]
        assert max(pixels for pixels, _ in most) <= at_once
        assert (max(count for _, count in most) == 1) == alone


def test_large_files_are_read_like_small_ones(tmp_path, monkeypatch):
    classes_in(tmp_path, "train", "test")
    before = load(f"folder:{tmp_path}", image_size=4)
    monkeypatch.setattr(decoding, "_SMALL", 1)
    assert load(f"folder:{tmp_path}", image_size=4).digest == before.digest
    monkeypatch.setattr(tree, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="bytes are too many"):
        load(f"folder:{tmp_path}", image_size=4)


def test_a_tile_that_is_larger_than_its_image_counts(tmp_path):
    many(tmp_path / "train", 150)
    many(tmp_path / "test", 1)
    data = tiff(np.uint8)
    for strip, tile in ((278, 322), (279, 323)):  # its height and length become a tile's sides
        at, = (at for at in range(8, len(data)) if data[at:].startswith(struct.pack("<H", strip))
               and data[at + 4:at + 8] == struct.pack("<I", 1))
        data = data[:at] + struct.pack("<HHII", tile, 4, 1, 16_000) + data[at + 12:]
    (tmp_path / "train" / "bomb.tif").write_bytes(data)
    with pytest.warns(UserWarning, match=r"bomb.tif \(16000 x 16000 pixels are too many"):
        load(f"folder:{tmp_path}", image_size=2)


def test_links_are_followed_but_never_in_circles(tmp_path):
    many(tmp_path / "outside", 20)
    save(tmp_path / "root" / "own" / "a.png", colour("red"))
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "root" / "own" / "loop").symlink_to(tmp_path / "root", target_is_directory=True)
    (tmp_path / "outside" / "self").symlink_to(tmp_path / "outside", target_is_directory=True)
    found = open_tree(tmp_path / "root", lambda name: name.endswith(".png")).names
    assert found == [*(f"linked/{i:03}.png" for i in range(20)), "own/a.png"]
    assert load(f"folder:{tmp_path / 'root'}", image_size=2).class_names == ("linked", "own")


def test_links_and_pipes_that_lead_nowhere_count_as_broken(tmp_path):
    many(tmp_path / "train", 250)
    many(tmp_path / "test", 1)
    (tmp_path / "train" / "gone.png").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "train" / "pipe.png")
    with pytest.warns(UserWarning, match=r"gone.png \(not a file\), train/pipe.png \(not a file\)"):
        load(f"folder:{tmp_path}", image_size=2)


# Pixels

def test_the_centre_is_cropped_and_resized_without_aliasing(tmp_path):
    values = np.zeros((40, 120, 3), np.uint8)
    values[:, :40], values[:, 80:] = 255, 255  # the sides, which the crop leaves out
    values[:, 40:80:2] = [200, 100, 50]  # stripes of one pixel, finer than the result
    save(tmp_path / "train" / "a.png", Image.fromarray(values))
    pixels = load_pair(tmp_path, "a.png", size=10)
    np.testing.assert_allclose(pixels[:, 2:-2], np.broadcast_to([100, 50, 25], (10, 6, 3)), atol=6)
    assert pixels[..., 2].max() < 80


def test_small_images_are_enlarged(tmp_path):
    save(tmp_path / "train" / "a.png", colour((9, 8, 7), size=(2, 3)))
    assert (load_pair(tmp_path, "a.png", size=16) == [9, 8, 7]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation):
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4, :4], upright[:4, 4:], upright[4:, :4] = [250, 0, 0], [0, 250, 0], [0, 0, 250]
    # What a camera stores for each value of the tag: the inverse of the turn it asks for.
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
              5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1),
              8: np.rot90(upright, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / "train" / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_pair(tmp_path, "a.png", size=8), upright)


def with_transparent_colour():
    image = colour(0, "P")
    image.putpalette([10, 20, 30] + [0] * 765)
    return image


@pytest.mark.parametrize(("image", "options", "expected"), [
    (colour((10, 200, 30)), {}, [10, 200, 30]),
    (colour(77, "L"), {}, [77, 77, 77]),
    (colour(1, "1"), {}, [255, 255, 255]),
    (grey16(), {}, [0x81] * 3),
    (with_transparent_colour(), {}, [10, 20, 30]),
    (with_transparent_colour(), {"transparency": 0}, [255, 255, 255]),
    (colour((10, 200, 30, 0), "RGBA"), {}, [255, 255, 255]),
    (colour((0, 100, 200, 128), "RGBA"), {}, [127, 177, 227]),
    (colour((40, 0), "LA"), {}, [255, 255, 255]),
    (colour((10, 20, 30)), {"transparency": (10, 20, 30)}, [255, 255, 255]),
    (colour(9, "L"), {"transparency": 9}, [255, 255, 255]),
], ids=["RGB", "grey", "bit", "16 bit", "palette", "transparent index", "transparent",
        "translucent", "transparent grey", "transparent colour", "transparent grey value"])
def test_every_kind_of_png_becomes_rgb(tmp_path, image, options, expected):
    save(tmp_path / "train" / "a.png", image, **options)
    np.testing.assert_allclose(load_pair(tmp_path, "a.png"),
                               np.broadcast_to(expected, (4, 4, 3)), atol=1)


@pytest.mark.parametrize(("image", "expected"), [
    (colour(77, "L"), [77, 77, 77]),
    (colour((0, 255, 255, 0), "CMYK"), [255, 0, 0]),
    (colour((0, 0, 0, 255), "CMYK"), [0, 0, 0]),
    (colour((10, 200, 30)), [10, 200, 30]),
], ids=["grey", "CMYK", "CMYK black", "RGB"])
def test_every_kind_of_jpeg_becomes_rgb(tmp_path, image, expected):
    save(tmp_path / "train" / "a.jpg", image, quality=100, subsampling=0)
    np.testing.assert_allclose(load_pair(tmp_path, "a.jpg"),
                               np.broadcast_to(expected, (4, 4, 3)), atol=3)


def test_of_sixteen_bits_the_upper_eight_are_kept(tmp_path):
    line = b"\0" + struct.pack(">3H", 0x1122, 0x8142, 0xFFFF) * 4
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.png").write_bytes(rgb_png(4, 4, 16, line * 4))
    assert (load_pair(tmp_path, "a.png") == [0x11, 0x81, 0xFF]).all()


def test_damaged_metadata_are_not_worth_a_warning(tmp_path):
    save(tmp_path / "train" / "a.jpg", colour("red"), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pair(tmp_path, "a.jpg")


@pytest.mark.skipif(not REAL.is_file(), reason=f"there is no {REAL}")
def test_real_photographs_are_read(tmp_path):
    with tarfile.open(REAL) as archive:
        members, wanted = iter(archive), {}
        while len(wanted) < 300:
            member = next(members)
            if member.isfile():
                wanted[member.name] = archive.extractfile(member).read()
    for name, data in wanted.items():
        path = tmp_path / "train" / Path(name).name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    save(tmp_path / "test" / "a.png", colour("red"))
    data = load(f"folder:{tmp_path}", image_size=32)
    assert data.images.shape == (len(list((tmp_path / "train").iterdir())), 32, 32, 3)
    first = sorted((tmp_path / "train").iterdir())[0]
    np.testing.assert_array_equal(data.images[0], np.asarray(Image.open(first)))
