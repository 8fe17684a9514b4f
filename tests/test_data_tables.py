"""Tables beside images, dataset.json and CSV files, and what is said of those that don't fit."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxgan.data import DataNotFoundError, load, open_folder

FILES = [f"0000{i // 4}/img{i:08}.png" for i in range(8)]


def png(value):
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def folder(root, table=None, name="dataset.json", files=FILES):
    for i, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(png(i))
    if table is not None:
        (root / name).write_text(table if isinstance(table, str) else json.dumps(table))
    return root


def styled(labels):
    return {"labels": [[file, label] for file, label in zip(FILES, labels, strict=True)]}


def lines(*rows):
    return "\n".join(rows) + "\n"


def test_classes_of_a_json_file_take_the_folders_place(tmp_path):
    data = load(f"folder:{folder(tmp_path, styled([3, 10, 3, 2, 2, 2, 10, 3]))}", "all")
    assert data.class_names == ("2", "3", "10")
    assert data.labels.tolist() == [1, 2, 1, 0, 0, 0, 2, 1]
    assert data.images[:, 0, 0, 0].tolist() == [*range(8)]
    assert data.numbers is None


def test_vectors_of_a_json_file_are_numbers(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    root = folder(tmp_path, styled([[float(x) for x in vector] for vector in vectors]))
    data = load(f"folder:{root}", "all")
    np.testing.assert_array_equal(data.numbers, vectors)
    assert data.class_names == ("images",)
    files = open_folder(root)
    assert files.digest == load(f"folder:{root}").digest
    np.testing.assert_array_equal(files.numbers, vectors[files[np.arange(len(files))][0][:, 0, 0, 0]])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_table_in_an_archive(kind, tmp_path):
    root, path = folder(tmp_path / "open", styled([1, 0] * 4)), tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in root.rglob("*.*"):
                archive.write(file, file.relative_to(root))
    else:
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as archive:
            archive.add(root, ".")
    there, here = load(f"folder:{root}", "all"), load(f"folder:{path}", "all")
    assert (there.digest, there.class_names) == (here.digest, here.class_names) == (
        here.digest, ("0", "1"))


def test_a_csv_file_gives_classes_and_numbers_by_its_header(tmp_path):
    table = lines("Age,filename,Label,height", *(
        f"{i},./{file},{'cat' if i % 3 else 'dog, old'},{i / 2}".replace("dog, old", '"dog, old"')
        for i, file in reversed([*enumerate(FILES)])))
    data = load(f"folder:{folder(tmp_path, table, 'labels.csv')}", "all")
    assert data.class_names == ("cat", "dog, old")
    assert data.labels.tolist() == [1, 0, 0, 1, 0, 0, 1, 0]
    np.testing.assert_array_equal(data.numbers, [[i, i / 2] for i in range(8)])


def test_without_labels_the_folders_stay_classes(tmp_path):
    table = lines("file,x", *(f"{file},{i}" for i, file in enumerate(FILES)))
    data = load(f"folder:{folder(tmp_path, table, 'labels.csv')}", "all")
    assert data.class_names == ("00000", "00001")
    assert data.numbers.shape == (8, 1)


def test_a_table_elsewhere_is_named_and_goes_first(tmp_path):
    root = folder(tmp_path / "images", styled([0] * 8))
    (tmp_path / "mine.csv").write_text(lines("file,label", *(f"{file},{i}" for i, file in
                                                             enumerate(FILES))))
    assert len(load(f"folder:{root}", "all", table=tmp_path / "mine.csv").class_names) == 8
    (root / "labels.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match=r"there are dataset.json and labels.csv beside the images: "):
        load(f"folder:{root}", "all")
    with pytest.raises(DataNotFoundError, match=r"none.csv: the table can't be read \(No such file"):
        load(f"folder:{root}", table="none.csv")
    with pytest.raises(ValueError, match="images: the table can't be read"):
        load(f"folder:{root}", table=root)


def test_splits_stay_folders_and_classes_are_those_of_both(tmp_path):
    files = ["train/a.png", "train/sub/b.png", "test/c.png"]
    table = lines("file,label", *(f"{file},{name}" for file, name in zip(files, "xyz", strict=True)))
    root = folder(tmp_path, table, "labels.csv", files)
    train, test = (load(f"folder:{root}", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("x", "y", "z")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [2])


def test_images_that_cannot_be_read_take_their_rows_along(tmp_path):
    files = [f"train/{i:03}.png" for i in range(150)] + ["test/x.png"]
    table = lines("file,x", *(f"{file},{i}" for i, file in enumerate(files)))
    root = folder(tmp_path, table, "labels.csv", files)
    (root / files[7]).write_bytes(b"bad")
    with pytest.warns(UserWarning, match="1 of 150 images cannot be read"):
        data = load(f"folder:{root}")
    assert data.numbers[:, 0].tolist() == [i for i in range(150) if i != 7]


def test_a_dataset_json_without_labels_is_none(tmp_path):
    for content in ({"labels": None}, {"labels": []}, {}):
        assert load(f"folder:{folder(tmp_path, content)}", "all").class_names == ("00000", "00001")


@pytest.mark.parametrize(("name", "table", "message"), [
    ("dataset.json", {"labels": [["x.png", 1]] + styled([1] * 8)["labels"]},
     "dataset.json: 1 of its 9 files is not there, x.png: bring"),
    ("dataset.json", {"labels": styled([1] * 8)["labels"][:3]},
     "5 of 8 images have no row, 00000/img00000003.png, .*, ...: add them, or take the images out"),
    ("dataset.json", {"labels": styled([1] * 8)["labels"] * 2}, "it has two rows for 00000/img00000000"),
    ("dataset.json", styled([1] * 7 + [[1.0]]), "some of its labels are numbers and others lists"),
    ("dataset.json", styled([[1, 2]] * 7 + [[1]]), "differ in length: some have 1 numbers, others 2"),
    ("dataset.json", styled([1] * 7 + [True]), r"must be a list of pairs .*; got \[.00001/img"),
    ("dataset.json", styled([1] * 7 + [[]]), "must be a list of pairs"),
    ("dataset.json", styled([1] * 7 + [1.5]), "must be a list of pairs"),
    ("dataset.json", styled([[1.0]] * 7 + [[1e300]]), "must be a list of pairs"),
    ("dataset.json", styled([[1.0]] * 7 + [[float("nan")]]), "must be a list of pairs"),
    ("dataset.json", {"labels": "abc"}, "must be a list of pairs .*; got 'abc'"),
    ("dataset.json", "no", "dataset.json: it is no JSON"),
    ("dataset.json", "[" * 100_000, "dataset.json: it is no JSON .*nested too deeply"),
    ("labels.csv", "file,label\na.png,1\n", "labels.csv: 1 of its 1 files is not there, a.png"),
    ("labels.csv", "name,label\na.png,1\n", "must name a column 'file', and .*; got 'name, label'"),
    ("labels.csv", "file;age\na.png;1,5\n", "labels.csv: .* by ';', 'file;age': save it with commas"),
    ("labels.csv", '"Label"\t"File"\r\n1\ta.png\n', r"are separated by '\\t', '\"Label\"\\t\"File\"'"),
    ("labels.csv", "file\na.png\n", "no column besides 'file': add 'label', or numbers"),
    ("labels.csv", "file,label\n", "labels.csv: it has no rows"),
    ("labels.csv", "", "its first line must name a column 'file'"),
    ("labels.csv", "file,label\na.png,1\na.png,2\n", "two rows for a.png: leave one"),
    ("labels.csv", "file,label\na.png\n", "line 2 has 1 values, the first one has 2"),
    ("labels.csv", "file,label\na.png, \n", "line 2 has no label: give one"),
    ("labels.csv", "file,age\na.png,old\n", "'age' in line 2 must be a number; got 'old': leave the"),
    ("labels.csv", "file,age\na.png,nan\n", "'age' in line 2 must be a number; got 'nan'"),
    ("labels.csv", "file,age\na.png,1e300\n", "'age' in line 2 must be a number"),
    ("labels.csv", 'file,age\n"a.png,1\n', "labels.csv: it is no CSV in UTF-8"),
    ("labels.csv", "file,age\n" + "a" * 200_000 + ",1\n", "it is no CSV in UTF-8 .*field larger than"),
])
def test_tables_that_do_not_fit_are_one_sentence(name, table, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        load(f"folder:{folder(tmp_path, table, name)}", "all")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["dataset.json", "labels.csv"])
def test_tables_that_are_no_text(name, tmp_path):
    (folder(tmp_path) / name).write_bytes(b"file,label\n\xff\xfe\x00,1\n")
    with pytest.raises(ValueError, match=f"{name}: it is no (JSON|CSV) in UTF-8"):
        load(f"folder:{tmp_path}", "all")
