"""What `experiments.inspect` says of folders and archives, and that what it suggests can be trained."""

import re
import shlex
import tarfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from experiments import inspect, launch, opening
from jaxgan.data import load
from jaxgan.data.survey import is_cut, suited, survey
from tests.test_experiments import tool

RNG = np.random.default_rng(0)


def paint(path, *shape, alpha=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = RNG.integers(0, 256, shape, np.uint8)
    if alpha is not None:
        values[..., 3] = alpha
    Image.fromarray(values).save(path, **options)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two classes, three kinds of images of three sizes, and two copies."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "pictures"
    for i in range(6):
        paint(root / "train" / "cat" / f"{i}.png", 20, 30, 3)
        paint(root / "train" / "dog" / f"{i}.png", 20, 30)
    paint(root / "test" / "dog" / "a.webp", 40, 60, 4, alpha=100, lossless=True)
    paint(root / "test" / "cat" / "b.jpg", 22, 30, 3)
    Image.open(root / "train" / "cat" / "0.png").save(root / "test" / "cat" / "copy.bmp")
    return root


def test_what_there_is_is_counted(pictures):
    seen = survey(pictures)
    headers = seen.headers.values()
    assert Counter(header.format for header in headers) == {"PNG": 12, "WEBP": 1, "JPEG": 1, "BMP": 1}
    assert Counter(header.size for header in headers) == {(20, 30): 13, (40, 60): 1, (22, 30): 1}
    assert Counter(header.mode for header in headers) == {"RGB": 8, "L": 6, "RGBA": 1}
    assert [file for file in seen.headers if seen.headers[file].is_transparent] == ["test/dog/a.webp"]
    assert seen.copies == [["test/cat/copy.bmp", "train/cat/0.png"]]
    assert not seen.broken
    assert seen.splits == {"train": {"cat": 6, "dog": 6}, "test": {"cat": 2, "dog": 1}}
    assert (seen.table, seen.problem) == (None, "")


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz"])
def test_it_is_printed_with_commands_and_a_picture(kind, pictures, capsys):
    path = pictures.name
    if kind != "folder":
        path = f"two words.{kind}"
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(pictures, "pictures")
    assert tool(inspect, path) == 0
    said = capsys.readouterr().out
    assert f"{path}: 15 images that can be read" in said
    for line in ("formats +PNG 12, ", "pixels +RGB 8, grey 6, RGBA 1", "sizes +20x30 13, ",
                 "train +12 in 2 classes: cat 6, dog 6", "test +3 in 2 classes: cat 2, dog 1",
                 r"copies +1; test/cat/copy\.bmp = train/cat/0\.png", r"can't be read +0\n"):
        assert re.search(line, said), line
    with Image.open("inspect.png") as picture:
        assert picture.size == (4 * 49 + 1, 4 * 33 + 1)  # 15 of 16 x 24, twice as large
    images, conditional = (shlex.split(line) for line in said.splitlines() if "python -m" in line)
    for words in (images, conditional):
        name = words[2].removeprefix("experiments.")
        config = launch.parse(opening.load(name), words[3:])
        assert (config.data.folder, config.data.image_size, config.data.colour) == (path, "16x24", "rgb")
        assert config.schedule.batch_size == 8
        assert opening.load(name).make_source(config).sample_shape == (16, 24, 3)
    assert conditional[-2:] == ["--conditions", "classes"]


@pytest.mark.parametrize(("words", "message"), [
    (("nowhere",), "nowhere: there is no such folder"), (("a.txt",), "a.txt is neither a folder"),
    (("pictures", "--out", "a.jpg"), "out must end in .png; got 'a.jpg'"),
    (("pictures", "--table", "x.csv"), "x.csv: the table can't be read")])
def test_a_mistake_makes_no_file(words, message, pictures, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("no pictures")
    before = sorted(tmp_path.iterdir())
    assert tool(inspect, *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_to_be_mended_is_said_and_no_command_suggested(pictures, capsys):
    (pictures / "labels.csv").write_text("file,label\nx.png,1\n")
    assert tool(inspect, "pictures") == 0
    said = capsys.readouterr().out
    assert "to be mended   labels.csv: 1 of its 1 files is not there, x.png" in said
    assert "python -m" not in said


@pytest.mark.parametrize(("name", "table", "said"), [
    ("t.csv", "file,age\n0.png,1\n1.png,2\n", "t.csv: 1 number (age)"),
    ("t.csv", "file,label\n0.png,x\n1.png,x\n", "t.csv: 1 class"),
    ("t.json", '{"labels": [["0.png", [1.0, 2.0]], ["1.png", [1.0, 3.0]]]}', "t.json: 2 numbers"),
])
def test_a_table_has_what_its_columns_are(name, table, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(table)
    for i in range(2):
        paint(tmp_path / "a" / f"{i}.png", 16, 16)
    assert tool(inspect, "a", "--table", name) == 0
    assert f" {said}\n" in capsys.readouterr().out


def test_a_table_is_described(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(40):
        paint(tmp_path / "a" / f"{i}.png", 16, 16)
    (tmp_path / "t.csv").write_text("file,label,age,size\n" + "".join(
        f"{i}.png,{'abc'[i % 3]},{i},1\n" for i in range(40)))
    assert tool(inspect, "a", "--table", "t.csv") == 0
    said = capsys.readouterr().out
    assert "t.csv: 3 classes and 2 numbers (age, size)" in said
    assert "--image-size 16 --fit crop --colour grey" in said
    assert "--table t.csv --conditions classes" in said


@pytest.mark.parametrize(("split", "part"), [("train", "training"), ("test", "held out")])
def test_nothing_is_trained_on_where_more_than_one_in_a_hundred_is_broken(split, part, pictures, capsys):
    (pictures / split / "cat" / "bad\x1b[2J.png").write_bytes(b"bad")
    assert tool(inspect, pictures.name) == 0
    said = capsys.readouterr().out
    named = f"{split}/cat/bad\\x1b[2J.png ({part}: cannot identify image file)"
    assert f"can't be read  1; {named}\n" in said
    assert "1 of the 16 images can't be read, which is more than 1 %: mend or remove" in said
    assert "python -m" not in said
    assert "\x1b" not in said
    with pytest.raises(ValueError, match=rf"1 of 16 .*\({part}: .*more than 1 %: mend"):
        load(f"folder:{pictures}", "train", image_size=16)


def test_fewer_are_said_to_be_left_out_and_a_command_is_suggested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(199):
        paint(tmp_path / "a" / ("train" if i else "test") / f"{i}.png", 16, 16)
    (tmp_path / "a" / "test" / "bad.png").write_bytes(b"bad")
    assert tool(inspect, "a") == 0
    said = capsys.readouterr().out
    assert "can't be read, left out  1; test/bad.png (held out: cannot identify image file)\n" in said
    assert "to be mended" not in said
    assert "python -m experiments.images" in said


@pytest.mark.parametrize(("bad", "others", "why"), [
    ([np.nan], "f4", "1 of its pixels is NaN or infinite"),
    ([1.0, np.inf], "f4", "1 of its pixels is NaN or infinite"),  # on its second page
    ([1.5], "u1", "its pixels are floating-point numbers, and others' are not")])
def test_numbers_that_are_not_trained_on_are_named(bad, others, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "train").mkdir(parents=True)
    for i in range(3):
        pages = [Image.fromarray(np.full((9, 9), i, "f4" if i == 1 else others)) for _ in bad]
        if i == 1:
            for page, value in zip(pages, bad, strict=True):
                page.putpixel((3, 2), value)
        pages[0].save(tmp_path / "a" / "train" / f"{i}.tif", save_all=True, append_images=pages[1:])
    assert tool(inspect, "a") == 0
    said = capsys.readouterr().out
    assert f"1; train/1.tif (training: {why})" in said
    assert "1 of the 3 images can't be read, which is more than 1 %" in said
    assert "python -m" not in said
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be read: train/1.tif"):
        load("folder:a", "train", colour="pages" if len(bad) > 1 else None)


def test_only_broken_images_have_no_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"bad")
    assert tool(inspect, "a") == 0
    assert "0 images that can be read" in capsys.readouterr().out
    assert not (tmp_path / "inspect.png").exists()


@pytest.mark.parametrize(("sizes", "expected"), [
    ({(32, 32): 9}, ((32, 32), "crop")), ({(28, 28): 9}, ((28, 28), "crop")),
    ({(48, 64): 9}, ((48, 64), "crop")), ({(300, 400): 9}, ((48, 64), "crop")),
    ({(480, 640): 5, (540, 600): 6}, ((56, 64), "crop")), ({(1000, 200): 9}, ((64, 16), "crop")),
    ({(64, 64): 5, (64, 20): 4}, ((64, 64), "pad")), ({(10, 10): 3}, ((8, 8), "crop")),
    ({(3, 3): 3}, ((8, 8), "crop")), ({(64, 64): 50, (64, 20): 2}, ((64, 64), "crop"))])
def test_the_size_that_is_suggested(sizes, expected):
    size = suited(sizes, 64)
    assert (size, "pad" if is_cut(sizes, size) else "crop") == expected


@pytest.mark.parametrize("count", [3, 4])
def test_bytes_on_pages_are_no_colours(count, tmp_path, monkeypatch):
    """The first one is shown, black; the others would make a colour of it, or lay it on white."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    first, *others = [Image.new("L", (40, 40), 50 * page) for page in range(count)]
    for i in range(4):
        first.save(tmp_path / "a" / f"{i}.tif", save_all=True, append_images=others)
    assert tool(inspect, "a") == 0
    with Image.open("inspect.png") as picture:
        assert {*np.unique(picture)} == {0, 128}  # with the border's


def test_deep_images_and_pages_are_shown_and_suggested(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    for i in range(4):
        layers = [Image.fromarray(RNG.integers(0, 60_000, (16, 24)).astype(np.uint16)) for _ in range(3)]
        layers[0].save(tmp_path / "a" / f"{i}.tif", save_all=True, append_images=layers[1:])
    assert tool(inspect, "a", "--out", "a.png") == 0
    said = capsys.readouterr().out
    assert "grey of 16 bits 4" in said
    assert "images in a file  3 4" in said
    assert "--image-size 16x24 --fit crop --colour pages" in said
    with Image.open(tmp_path / "a.png") as picture:
        shown = np.asarray(picture)
    assert shown.min() == 0
    assert shown.max() == 255


def test_files_of_arrays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = RNG.normal(5, 2, (40, 30, 20)).astype(np.float32)
    x[7] = x[3]
    np.savez("scans.npz", x=x, age=RNG.uniform(0, 90, 40), sex=np.array(["f", "m", "m", "m"] * 10),
             other=np.arange(7))
    assert tool(inspect, "scans.npz") == 0
    printed = capsys.readouterr().out
    for line in ("scans.npz: 4 arrays", "40 images of shape 30x20x1, from x; 4 held out",
                 f"float32, from {np.delete(x, range(9, 40, 10), 0).min():g} to ",
                 "1 of another sample", "1 number for each sample, from ", "2 classes: f 10, m 30"):
        assert line in printed
    assert "other" not in printed.split("train with:")[1]
    commands = re.findall(r"python -m experiments\.(\w+) (.*)", printed)
    assert [words.rpartition(" ")[2] for _, words in commands] == ["x", "age", "sex"]
    for name, words in commands:
        config = launch.parse(opening.load(name), shlex.split(words))
        config = opening.load(name).settle(config)
        assert config.conditions.condition_classes == (2 if words.endswith("sex") else None)
        assert config.conditions.condition_numbers == (1 if words.endswith("age") else None)
    assert np.asarray(Image.open("inspect.png")).std() > 5


def test_arrays_that_can_not_be_trained_on_are_described(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", a=np.ones((9, 2)), b=np.ones((9, 2, 3)))
    np.save("b.npy", np.full((9, 2), np.nan))
    for words, message in ((("a.npz",), "say which are the samples, --samples b for example"),
                           (("a.npz", "--samples", "a"), "all values of variable 0 are 1"),
                           (("b.npy",), "18 of 18 values are NaN or infinite")):
        assert tool(inspect, *words) == 0
        printed = capsys.readouterr().out
        assert "can't be trained on so: " in printed
        assert message in printed
    assert not (tmp_path / "inspect.png").exists()
    assert tool(inspect, "c.npy") == 2
    assert tool(inspect, "pictures", "--samples", "x") == 2
    assert "samples is for files of arrays" in capsys.readouterr().err
