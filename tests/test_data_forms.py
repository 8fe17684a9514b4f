"""Images as they are: what folders of grey, deep, transparent, many-channelled or oblong ones become."""

import numpy as np
import pytest
from PIL import Image

from jaxgan.data import load, open_folder
from jaxgan.data.scaling import BYTES, Scaling

RNG = np.random.default_rng(0)


def save(path, values, kind=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, kind, **options)


def bytes_of(*shape):
    return RNG.integers(0, 256, shape).astype(np.uint8)


def folder(root, first, second=None, suffix=".png", **options):
    """One image to train on, and one held out."""
    save(root / "train" / f"a{suffix}", first, **options)
    save(root / "test" / f"b{suffix}", first if second is None else second, **options)
    return root


def read(root, split="train", **wish):
    """The image of a split; on demand it is the same."""
    data, files = load(f"folder:{root}", split, **wish), open_folder(root, split, **wish)
    for name in ("digest", "scaling", "class_names"):
        assert getattr(files, name) == getattr(data, name)
    np.testing.assert_array_equal(files[np.array([0])][0], data.images)
    return data.images[0], data.scaling


# Colours.

def test_grey_images_stay_grey(tmp_path):
    values = bytes_of(5, 7)
    image, scaling = read(folder(tmp_path, values))
    np.testing.assert_array_equal(image, values[..., None])
    assert scaling == BYTES
    image, _ = read(tmp_path, colour="rgb")
    np.testing.assert_array_equal(image, np.repeat(values[..., None], 3, axis=2))


@pytest.mark.parametrize("other", [
    "RGB", "P", "LA", "RGBA"])
def test_one_image_that_is_not_grey_makes_all_rgb(other, tmp_path):
    """Whichever split it is in."""
    values = bytes_of(5, 7)
    image, _ = read(folder(tmp_path, values, Image.new(other, (7, 5))))
    np.testing.assert_array_equal(image, np.repeat(values[..., None], 3, axis=2))


def test_colours_become_grey_by_their_luma(tmp_path):
    """ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B."""
    values = bytes_of(5, 7, 3)
    image, _ = read(folder(tmp_path, values), colour="grey")
    np.testing.assert_allclose(image[..., 0], values @ [0.299, 0.587, 0.114], atol=1)


# Transparency.

def test_what_becomes_of_transparency(tmp_path):
    values = bytes_of(5, 7, 4)
    colours, alpha = values[..., :3].astype(float), values[..., 3:] / 255
    folder(tmp_path, values)
    expected = {"white": colours * alpha + 255 * (1 - alpha), "black": colours * alpha, "drop": colours,
                "keep": values, None: colours * alpha + 255 * (1 - alpha)}
    for transparency, wanted in expected.items():
        image, _ = read(tmp_path, transparency=transparency)
        np.testing.assert_allclose(image, wanted, atol=1)
    np.testing.assert_array_equal(read(tmp_path, colour="rgba")[0], values)
    image, _ = read(tmp_path, colour="grey", transparency="black")
    np.testing.assert_allclose(image[..., 0], expected["black"] @ [0.299, 0.587, 0.114], atol=1.5)


def test_opaque_images_have_a_full_fourth_channel(tmp_path):
    values = bytes_of(5, 7, 3)
    image, _ = read(folder(tmp_path, values), colour="rgba")
    np.testing.assert_array_equal(image, np.concatenate([values, np.full((5, 7, 1), 255)], axis=2))


def test_choices_that_do_not_go_together(tmp_path):
    for wish, message in (
            ({"colour": "rgb", "transparency": "keep"}, "which colour rgb has not: choose"),
            ({"colour": "rgba", "transparency": "white"}, "colour rgba keeps the transparency"),
            ({"colour": "blue"}, "colour must be one of grey, rgb, rgba, pages; got 'blue'"),
            ({"fit": "trim"}, "fit must be one of crop, pad, stretch; got 'trim'"),
            ({"image_size": (4, 0)}, "image_size must be at least 1"),
            ({"data_range": (3, 3)}, "folder:.*highest value must be above the lowest")):
        with pytest.raises(ValueError, match=message):
            load(f"folder:{folder(tmp_path, bytes_of(5, 7))}", **wish)
    with pytest.raises(ValueError, match="colour is for images of one's own, folder:PATH, and not"):
        load("digits", colour="rgb")


# Sizes.

def test_oblong_images_of_one_size_keep_it(tmp_path):
    assert read(folder(tmp_path, bytes_of(5, 7, 3)))[0].shape == (5, 7, 3)


def quarters(height, width):
    """Four even colours, on a frame: what a crop takes away first."""
    values = np.zeros((height, width, 3), np.uint8)
    values[:height // 2, :width // 2] = [250, 0, 0]
    values[:height // 2, width // 2:] = [0, 250, 0]
    values[height // 2:, :width // 2] = [0, 0, 250]
    return values


def test_three_ways_to_a_size(tmp_path):
    """From 24 x 96 to 8 x 16: the middle half, between bars, or all of it, pressed together."""
    values = quarters(24, 96)
    values[:, :24], values[:, 72:] = 99, 99
    folder(tmp_path, values)
    cropped, padded, stretched = (read(tmp_path, image_size=(8, 16), fit=fit)[0]
                                  for fit in ("crop", "pad", "stretch"))
    inner = np.ix_([1, 6], [2, 13])
    np.testing.assert_allclose(cropped[inner], quarters(2, 2), atol=6)
    assert not padded[:2].any()
    assert not padded[6:].any()
    np.testing.assert_allclose(padded[2:6, [0, 1, 14, 15]], 99, atol=12)
    np.testing.assert_allclose(stretched[:, [1, 14]], 99, atol=6)
    np.testing.assert_allclose(stretched[np.ix_([1, 6], [6, 9])], quarters(2, 2), atol=6)


def test_the_size_of_a_photograph_is_that_of_the_upright_one(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = bytes_of(5, 7, 3)
    image, _ = read(folder(tmp_path, values, exif=exif))
    np.testing.assert_array_equal(image, np.rot90(values, -1))


def test_transparent_pixels_lend_no_colour_to_their_neighbours(tmp_path):
    values = np.zeros((8, 8, 4), np.uint8)
    values[:, :3] = [200, 100, 50, 255]
    image, _ = read(folder(tmp_path, values), colour="rgba", image_size=4)
    solid = image[image[..., 3] > 60]
    assert solid[:, 3].min() < 200  # some are on the edge, where black would have halved the colour
    np.testing.assert_allclose(solid[:, :3], np.broadcast_to([200, 100, 50], (len(solid), 3)), atol=20)


# More than 8 bits.

def deep(*shape, low=100, high=60_000):
    return RNG.integers(low, high, shape).astype(np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_kept_and_their_range_is_that_of_all_splits(suffix, tmp_path):
    first, second = deep(5, 7), deep(5, 7)
    folder(tmp_path, first, second, suffix)
    both = np.stack([first, second])
    scaling = Scaling((float(both.min()),), (float(both.max()),), "uint16")
    for split, values in (("train", first), ("test", second)):
        image, found = read(tmp_path, split)
        assert (image.dtype, found) == (np.uint16, scaling)
        np.testing.assert_array_equal(image, values[..., None])
    assert read(tmp_path, data_range=(0.0, 65535.0))[1] == Scaling((0.0,), (65535.0,), "uint16")
    image, found = read(tmp_path, colour="rgb")
    assert (image.dtype, found) == (np.uint8, BYTES)
    np.testing.assert_array_equal(image, np.repeat((first >> 8)[..., None], 3, axis=2))


def test_beside_images_of_eight_bits_the_upper_eight_are_kept(tmp_path):
    first = deep(5, 7)
    image, scaling = read(folder(tmp_path, first, bytes_of(5, 7)))
    np.testing.assert_array_equal(image, (first >> 8)[..., None])
    assert scaling == BYTES


def test_sixteen_bits_are_resized_as_numbers(tmp_path):
    values = np.full((8, 8), 40_000, np.uint16)
    values[:, 4:] = 65_535
    image, _ = read(folder(tmp_path, values), image_size=4)
    assert image.dtype == np.uint16
    np.testing.assert_allclose(image[:, [0, 3], 0], np.broadcast_to([40_000, 65_535], (4, 2)), rtol=0.02)


def test_floating_point_numbers_are_kept(tmp_path):
    first, second = (RNG.normal(size=(5, 7)).astype(np.float32) for _ in range(2))
    image, scaling = read(folder(tmp_path, first, second, ".tif"))
    np.testing.assert_array_equal(image, first[..., None])
    both = np.stack([first, second])
    assert scaling == Scaling((float(both.min()),), (float(both.max()),), "float32")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_named_by_their_file(value, tmp_path):
    values = np.ones((5, 7), np.float32)
    values[2, 3] = value
    with pytest.raises(ValueError, match=r"a.tif \(training: 1 of its pixels is NaN or inf"):
        load(f"folder:{folder(tmp_path, values, values + 1, '.tif')}")


def test_images_that_are_all_one_value_are_refused(tmp_path):
    values = np.full((5, 7), 3, np.float32)
    with pytest.raises(ValueError, match=r"folder:.*: all values are 3: there is nothing to learn"):
        load(f"folder:{folder(tmp_path, values, suffix='.tif')}")


def test_floating_point_numbers_among_bytes_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a.tif \(training: its pixels are floating-point"):
        load(f"folder:{folder(tmp_path, np.ones((5, 7), np.float32), bytes_of(5, 7), '.tif')}")


# Pages.

def pages(values):
    first, *others = [Image.fromarray(page) for page in np.moveaxis(values, -1, 0)]
    return first, {"save_all": True, "append_images": others}


@pytest.mark.parametrize("make", [bytes_of, deep, lambda *shape: RNG.normal(size=shape).astype("f4")])
def test_pages_are_channels(make, tmp_path):
    first, second = make(5, 7, 6), make(5, 7, 6)
    for split, values in (("train", first), ("test", second)):
        image, options = pages(values)
        save(tmp_path / split / "a.tif", image, **options)
    image, scaling = read(tmp_path, colour="pages")
    np.testing.assert_array_equal(image, first)
    both = np.stack([first, second])
    ends = (both.min((0, 1, 2)), both.max((0, 1, 2)))
    assert scaling == (BYTES if first.dtype == np.uint8 else
                       Scaling(*(tuple(map(float, end)) for end in ends), str(first.dtype)))
    assert read(tmp_path)[0].shape == (5, 7, 1)  # else of several images the first


def test_another_number_of_pages_is_named(tmp_path):
    for name, count in (("a", 3), ("b", 3), ("c", 2)):
        image, options = pages(bytes_of(5, 7, count))
        save(tmp_path / "train" / f"{name}.tif", image, **options)
    save(tmp_path / "train" / "d.png", bytes_of(5, 7, 3))
    with pytest.raises(ValueError, match=r"c.tif \(it has 2 pages, and others have 3\), train/d.png"):
        load(f"folder:{tmp_path}", "all", colour="pages")
    image, options = pages(bytes_of(5, 7, 3))
    options["append_images"][1] = Image.fromarray(bytes_of(5, 7, 3))
    save(tmp_path / "train" / "c.tif", image, **options)
    with pytest.raises(ValueError, match=r"c.tif \(its page 2 is RGB, not grey\)"):
        load(f"folder:{tmp_path}", "all", colour="pages")
    options["append_images"][1] = Image.fromarray(bytes_of(4, 7))
    save(tmp_path / "train" / "c.tif", image, **options)
    with pytest.raises(ValueError, match=r"c.tif \(its pages differ in size: 5x7, 4x7\)"):
        load(f"folder:{tmp_path}", "all", colour="pages")


def test_named_sets_come_in_oblong_sizes_too():
    assert load("digits", "test", image_size=(8, 12)).images.shape == (359, 8, 12, 1)
