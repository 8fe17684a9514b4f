"""The notebooks of docs/notebooks: stored without outputs, explained, and true from top to bottom."""

import base64
import io
import json
import os
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgan.data import load

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NAMES = "first_gan", "own_term_and_game", "open_a_run"
SECONDS = 300  # for a cell, on a machine that has other things to do
# What the tests themselves give to JAX: devices that nobody has, and programs that are quickly compiled.
OURS = "XLA_FLAGS", "NPROC", "JAX_TRACEBACK_IN_LOCATIONS_LIMIT"


def stored(name):
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells_of(name, kind):
    return ["".join(cell["source"]) for cell in stored(name)["cells"] if cell["cell_type"] == kind]


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_is_a_test_for_each():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_the_source_is_stored(name):
    notebook = stored(name)
    assert notebook["metadata"] == {"kernelspec": {
        "display_name": "Python 3", "language": "python", "name": "python3"}}
    for cell in notebook["cells"]:
        assert not cell["metadata"]
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_each_cell_is_explained_and_the_last_one_checks(name):
    cells = stored(name)["cells"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert all("markdown" in (one["cell_type"], other["cell_type"]) for one, other in pairwise(cells))
    assert re.search(r"^ *assert ", cells_of(name, "code")[-1], re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(cells_of(name, "markdown")))
    inside = [link.partition("#") for link in links if not link.startswith("https://")]
    assert inside
    for path, _, anchor in inside:
        assert (FOLDER / path).is_file()
        assert not anchor or anchor in anchors(FOLDER / path)


def executed(name, folder, then="None"):
    """A notebook's outputs, cell by cell, in a folder of its own; last what one more line gives."""
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which runs notebooks")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which reads notebooks")
    for package in ("ipykernel", "jaxgan_experiments"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}, which notebooks run with")
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({then}))"))
    env = {key: value for key, value in os.environ.items() if key not in OURS} | {
        "JAX_PLATFORMS": "cpu", "TMPDIR": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources).execute(env=env)
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def printed(outputs):
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def pictures(outputs):
    """The pictures of all cells, uint8 [height, width, 3]."""
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB"))
            for cell in outputs for output in cell if "image/png" in output.get("data", {})]


def tiles(picture):
    """The 8x8 images of a grid in which a pixel is four wide, from 0 to 1, [count, 8, 8]."""
    height, width = (size // 33 for size in picture.shape[:2])
    rows = picture[1:, 1:, 0].reshape(height, 33, width, 33).swapaxes(1, 2)
    return rows[:, :, 1:32:4, 1:32:4].reshape(-1, 8, 8) / 255


def alike(images, others):
    """The correlation of two sets' mean images."""
    return np.corrcoef(images.mean(0).ravel(), others.mean(0).ravel())[0, 1]


@pytest.mark.slow
def test_first_gan_draws_digits(tmp_path):
    outputs = executed("first_gan", tmp_path)
    real, curves, fake = pictures(outputs)
    digits = load("digits").images[..., 0] / 255
    np.testing.assert_allclose(tiles(real), digits[:36], atol=1e-6)
    drawn = tiles(fake)
    assert alike(drawn, digits) > 0.9
    assert 0.7 < drawn.std(0).mean() / digits.std(0).mean() < 1.2  # they differ as digits do
    held_out = load("digits", "test").images[..., 0] / 255
    near, floor = (np.median(np.square(some[:, None] - digits[None]).sum((2, 3)).min(1))
                   for some in (drawn, held_out))
    assert 0.5 * floor < near < 2 * floor  # 1.5 times; after 100 steps it's 2.4 times
    assert curves.std() > 10


@pytest.mark.slow
def test_a_term_moves_the_mean_as_far_as_two_forces_say(tmp_path):
    """By a search for the mean that costs least, without a formula for it."""
    then = '{"found": found.tolist(), "reached": [float(value) for value in reached]}'
    outputs = executed("own_term_and_game", tmp_path, then)
    found = json.loads(printed(outputs[-1]))
    slopes, means = np.linspace(-2, 2, 2001), np.linspace(-1, 3, 2001)
    distance = (slopes * (2 - means[:, None]) - 10 * np.maximum(np.abs(slopes) - 1, 0) ** 2).max(1)
    least = [means[np.argmin(distance + weight * means**2)] for weight in (0.2, 0.5, 1.0)]
    np.testing.assert_allclose(found["found"], least, rtol=0.05)
    psi = theta = 1.0
    for _ in range(50):
        psi -= 0.2 * (theta + 0.5 * psi)
        theta += 0.2 * psi
    np.testing.assert_allclose(found["reached"], [psi, theta], atol=1e-5)
    assert len(pictures(outputs)) == 2


@pytest.mark.slow
def test_a_run_is_opened_and_measured(tmp_path):
    outputs = executed("open_a_run", tmp_path)
    table = "".join(map(printed, outputs))
    numbers = {name: [*map(float, re.search(rf"raw {name} +([\d.]+) +([\d.]+)", table).groups())]
               for name in ("Frechet distance", "precision", "recall")}
    training, held_out = (load("digits", split).images[..., 0] / 255 for split in ("train", "test"))
    (mean, spread), (other_mean, other_spread) = (
        (some.mean(0), np.cov(some.T)) for some in (training.reshape(-1, 64), held_out.reshape(-1, 64)))
    roots = np.sqrt(np.linalg.eigvals(spread @ other_spread).real.clip(0)).sum()
    floor = np.square(mean - other_mean).sum() + np.trace(spread + other_spread) - 2 * roots
    distance, measured = numbers["Frechet distance"]
    assert measured == pytest.approx(floor, rel=1e-3)
    assert 0.8 * floor < distance < 3 * floor
    assert 0.2 < numbers["precision"][0] < numbers["precision"][1]
    assert numbers["recall"][0] > 0.5
    samples, walks, scores, judged, copies = pictures(outputs)
    for picture in (samples, walks, judged, copies):
        assert alike(tiles(picture), training) > 0.7
    assert scores.std() > 10
    rows = tiles(walks).reshape(3, 12, 64)
    steps = np.linalg.norm(np.diff(rows, axis=1), axis=-1)
    assert (steps.max(1) < 0.5 * np.linalg.norm(rows[:, -1] - rows[:, 0], axis=-1)).all()  # no jump
    below = np.abs(tiles(copies)[12:, None] - training[None]).max((2, 3)).min(1)
    assert (below < 1 / 255).all()  # training images
