"""Made-up flags, configurations and images: a sentence and status 2, or it works; never a traceback."""

import io
import json
import string
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from experiments import digits, gaussians, launch, opening, sample, settings
from jaxgan.data import DataNotFoundError, load
from jaxgan.runs import RunError

MANY = hypothesis_settings(max_examples=80, deadline=None, derandomize=True,
                           suppress_health_check=list(HealthCheck))
TEXT = st.text(string.printable, max_size=12)
FIELDS = sorted(settings.flat(gaussians.Config()))
VALUES = st.one_of(st.integers(-10**6, 10**6).map(str), st.floats().map(str), TEXT,
                   st.sampled_from(["", "None", "nan", "-inf", "1e400", "adam", "hinge", "--", "0"]))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
                    max_leaves=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    assert launch.guarded(launch.run, digits.experiment, digits.experiment.configure(
        width=8, batch_size=4, n_critic=1, steps=1, run_dir=str(folder), devices=1)) == 0
    return folder


def parsed(arguments):
    """The status of parsing, and what came out if something did."""
    try:
        config = launch.parse(gaussians.experiment, arguments)
    except SystemExit as stop:
        return stop.code, None
    return 0, settings.replace(config, width=8)  # not a network as large as the memory


@pytest.mark.slow
@MANY
@given(st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), min_size=1, max_size=4))
def test_flags(flags):
    """All but the training, which would take its time with some of them."""
    arguments = [part for name, value in flags for part in (f"--{name.replace('_', '-')}", value)]
    status, config = parsed(arguments)
    assert status in (0, 2)  # 0 for --help
    if config is None:
        return

    def specify(config):
        source = gaussians.make_source(config)
        made = gaussians.make_game(config, source.sample_shape)
        assert made.networks if config.networks.drifting else made.latent_size > 0
        launch.plan(config)

    assert launch.guarded(specify, config) in (0, 2)


@pytest.mark.slow
@hypothesis_settings(MANY, max_examples=50)
@given(name=st.sampled_from([*sorted(settings.flat(digits.Config())),
                             "experiment", "sample_shape", "value_range", "num_classes", "condition"]),
       value=JSON)
@example(name="penalty", value="")
@example(name="loss", value="hinged")
def test_one_setting_of_a_configuration(run, tmp_path_factory, name, value):
    folder = tmp_path_factory.mktemp("config")
    content = json.loads((run / "config.json").read_text())
    content["settings"][name] = value
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "checkpoints").symlink_to(run / "checkpoints")
    start = time.monotonic()
    options = sample.Options(run_dir=str(folder), num=1, out=str(folder / "s.png"))
    assert launch.guarded(sample.main, options) in (0, 2)
    assert time.monotonic() - start < 60


@MANY
@given(st.one_of(JSON.map(json.dumps), JSON.map(lambda value: json.dumps({"settings": value})), TEXT,
                 st.binary(max_size=50).map(lambda data: data.decode("latin-1"))))
def test_any_file_for_a_configuration(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("config")
    (folder / "config.json").write_text(content)
    with pytest.raises((RunError, ValueError)):
        opening.read_run(str(folder))


def encoded(mode, kind):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind)
    return buffer.getvalue()


def opened(folder):
    """The shape of the images, or the sentence."""
    try:
        return load(f"folder:{folder}", "train", image_size=8).images.shape
    except (ValueError, DataNotFoundError) as error:
        return str(error)


WHOLE = [encoded("RGB", "PNG"), encoded("P", "PNG"), encoded("RGB", "JPEG"), encoded("CMYK", "JPEG"),
         encoded("L", "PNG"), encoded("1", "PNG"), encoded("RGBA", "PNG"), encoded("RGBA", "WEBP"),
         encoded("P", "GIF"), encoded("RGB", "BMP"), encoded("RGB", "TIFF"), encoded("L", "PPM")]


@MANY
@given(whole=st.sampled_from(WHOLE), cut=st.integers(0, 400),
       changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_images(tmp_path_factory, whole, cut, changes):
    """Cut off and changed: read as an image, or left out, or refused by a sentence."""
    folder = tmp_path_factory.mktemp("images")
    content = bytearray(whole[:len(whole) - cut] if cut < len(whole) else whole)
    for place, value in changes:
        if place < len(content):
            content[place] = value
    for split in ("train", "test"):
        (folder / split).mkdir()
        (folder / split / "a.png").write_bytes(content)
    start = time.monotonic()
    outcome = opened(folder)
    assert outcome == (1, 8, 8, 3) or "\n" not in outcome
    assert time.monotonic() - start < 10
