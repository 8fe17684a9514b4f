"""Pictures, looked at pixel by pixel."""

import numpy as np
from PIL import Image

from jaxgan.pictures import grid, pairs, plane, save_curves, save_png


def test_grid_places_images_row_by_row():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.full((1, 2, 2, 1), 50, np.uint8)
    sheet = grid(images, columns=2, enlarge=3)
    assert sheet.shape == (2 * 7 + 1, 2 * 7 + 1, 3)
    assert (sheet[1:7, 1:7] == 0).all()
    assert (sheet[1:7, 8:14] == 50).all()
    assert (sheet[8:14, 1:7] == 100).all()
    assert (sheet[0] == 128).all()  # the border
    assert (sheet[8:14, 8:14] == 128).all()  # no fourth image


def test_grid_of_colours_and_of_odd_channels():
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(grid(image)[1:-1, 1:-1], image[0])
    two = image[..., :2]
    np.testing.assert_array_equal(grid(two)[1:-1, 1:-1], image[0][..., :1].repeat(3, -1))


def test_vectors_of_more_variables_than_are_drawn_say_so():
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    one, of_two, of_three = (pairs(None, vectors[:, :count], variables=1) for count in (1, 2, 3))
    assert (one != of_two).any()
    assert (of_two != of_three).any()
    assert (of_two[:100] != of_three[:100]).sum() == 0  # it is the line below


def test_png_comes_back_and_nothing_partial_stays(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_plane_shows_the_samples_where_they_are():
    blank = np.zeros((0, 2))
    slope = np.linspace(0, 1, 16)[:, None] + np.zeros((1, 16))
    def green(picture):
        picture = picture.astype(int)
        return (picture[..., 1] > picture[..., 0] + 40) & (picture[..., 1] > picture[..., 2] + 40)
    empty = plane(blank, blank, slope, (-3, 3))
    upper_left = plane(blank, np.array([[-1.5, 1.5]] * 9), slope, (-3, 3))
    rows, columns = np.nonzero(green(upper_left) & ~green(empty))
    assert rows.mean() < len(empty) / 2
    assert columns.mean() < len(empty) / 2


def test_curves_are_a_picture_and_no_rows_are_none(tmp_path):
    save_curves(tmp_path / "none.png", [])
    assert not (tmp_path / "none.png").exists()
    save_curves(tmp_path / "curves.png", [{"step": 1, "critic/loss": 2.0}, {"step": 2, "modes": 3.0}])
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (900, 300)  # two panels


def test_four_channels_are_colour_and_opacity_on_white():
    images = np.zeros((1, 32, 32, 4), np.uint8)
    images[..., 0] = 200
    images[0, :16, :, 3] = 255
    images[0, 16, :, 3] = 51  # a fifth
    shown = grid(images)[1:-1, 1:-1]
    assert (shown[:16] == [200, 0, 0]).all()
    assert (shown[16] == [244, 204, 204]).all()
    assert (shown[17:] == 255).all()
