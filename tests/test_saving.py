"""Where samples go: read back by NumPy, Pillow and PyAV, drawn in parts."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from experiments import saving

GREY = {"sample_shape": [4, 6, 1], "value_range": [-1.0, 1.0]}
COLOUR = {"sample_shape": [4, 6, 3], "value_range": [0.0, 1.0]}
BYTES = np.random.default_rng(0).integers(256, size=(7, 4, 6, 3), dtype=np.uint8)


def _parts(samples, sizes=(3, 3, 1)):
    yield from np.split(samples, np.cumsum(sizes)[:-1])


def test_arrays_are_written_part_by_part(tmp_path):
    samples, labels = (BYTES / 255).astype(np.float32), np.arange(7, dtype=np.int32) % 3
    saving.save(tmp_path / "a.npy", _parts(samples), 7, COLOUR)
    saving.save(tmp_path / "a.npz", _parts(samples), 7, COLOUR, condition=labels)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), BYTES)
    with np.load(tmp_path / "a.npz") as arrays:
        assert sorted(arrays) == ["labels", "samples"]
        np.testing.assert_array_equal(arrays["samples"], BYTES)
        np.testing.assert_array_equal(arrays["labels"], labels)
    numbers = {"sample_shape": [2], "value_range": [-9.0, 9.0]}
    points = np.arange(14, dtype=np.float32).reshape(7, 2)
    saving.save(tmp_path / "a.csv", _parts(points), 7, numbers)
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "a.csv", delimiter=","), points)
    saving.save(tmp_path / "b.npz", _parts(points), 7, numbers, condition=points[:, :1])
    with np.load(tmp_path / "b.npz") as arrays:
        np.testing.assert_array_equal(arrays["condition"], points[:, :1])
    saving.save(tmp_path / "a.txt", _parts(points), 7, numbers,
                as_lines=lambda part: map(str, part[:, 0]))
    assert (tmp_path / "a.txt").read_text().split() == [str(value) for value in points[:, 0]]


def test_a_file_is_whole_or_what_it_was(tmp_path):
    def broken():
        yield np.zeros((3, 4, 6, 1), np.float32)
        raise OSError("no space left on device")

    (tmp_path / "a.npy").write_text("before")
    with pytest.raises(OSError, match="no space"):
        saving.save(tmp_path / "a.npy", broken(), 7, GREY)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert (tmp_path / "a.npy").read_text() == "before"


@pytest.mark.parametrize(("settings", "mode"), [(GREY, "L"), (COLOUR, "RGB")])
def test_a_folder_gets_each_image_as_it_is(tmp_path, settings, mode):
    low, high = settings["value_range"]
    images = BYTES[..., :settings["sample_shape"][2]]
    samples = (images / 255 * (high - low) + low).astype(np.float32)
    saving.save(tmp_path / "each", _parts(samples), 7, settings)
    paths = sorted((tmp_path / "each").iterdir())
    assert [path.name for path in paths] == [f"{index:06}.png" for index in range(7)]
    for path, image in zip(paths, images, strict=True):
        with Image.open(path) as found:
            assert found.mode == mode
            np.testing.assert_array_equal(np.asarray(found).reshape(image.shape), image)


def test_an_animation_goes_there_and_back(tmp_path):
    """Two ways of four frames, each of one grey; the second way is the first one backwards."""
    greys = np.array([0, 80, 160, 240, 240, 160, 80, 0])
    samples = np.broadcast_to((greys / 255).astype(np.float32)[:, None, None, None], (8, 40, 40, 1))
    settings = {"sample_shape": [40, 40, 1], "value_range": [0.0, 1.0]}
    for name in ("a.gif", *["a.mp4"] * _has_av()):
        saving.save(tmp_path / name, _parts(samples, (5, 3)), 8, settings, frames=4, rate=10)
        frames = _frames(tmp_path / name)
        found = [(frame[20, 20, 0], frame[20, 60, 0]) for frame in frames]
        expected = [(0, 240), (80, 160), (160, 80), (240, 0), (160, 80), (80, 160)]
        assert np.abs(np.array(found, int) - expected).max() <= 6, name


def _has_av():
    with contextlib.suppress(ModuleNotFoundError):
        import av  # noqa: F401
        return True
    return False


def _frames(path):
    if path.suffix == ".mp4":
        import av

        with av.open(path) as container:
            assert container.streams.video[0].average_rate == 10
            return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with Image.open(path) as image:
        assert image.info["duration"] == 100
        frames = []
        for frame in range(image.n_frames):
            image.seek(frame)
            frames.append(np.asarray(image.convert("RGB")))
        return frames


def test_what_cant_be_is_said_before_anything_is_drawn(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").touch()
    for name, shape, is_text, message in (
            ("a.csv", (4, 4, 1), False, "out must end in .png, .npy, .npz, .gif or .mp4 for samples of "
                                        "this run, or be a folder for single pictures"),
            ("a.gif", (4,), False, r"must end in .png, .npy, .npz or .csv for"),
            ("a.png", (9, 9), True, r"must end in .txt, .npy or .npz for"),
            ("each", (4,), False, "must end in"),
            ("a.png", (2, 2, 2, 2, 1), False, "there are no pictures"),
            ("full", (4, 4, 1), False, "no empty folder: name another one")):
        with pytest.raises(ValueError, match=message):
            saving.check(tmp_path / name, shape, is_text=is_text)
    saving.check(tmp_path / "each", (4, 4, 1), is_text=False)
