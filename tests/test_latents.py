"""Autoencoders, files of latents, and runs on them, as a user meets them."""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import autoencoder, encode, evaluate, latents, launch, opening, sample, showing
from experiments.exploring import Asked, Explorer
from jaxgan.data import draw_step, load, pixels, resident, scale, streaming, windows
from jaxgan.data.latents import drawn, open_latents, scaled
from jaxgan.features import load_weights, save_weights
from jaxgan.gan import draw_latents, samples_and_heads
from jaxgan.models import Autoencoder, published
from jaxgan.models.published import autoencoder as read_published
from jaxgan.steps import init_state, train_step
from jaxgan.types import Batch
from tests.test_measuring import tool
from tests.test_training import ROOT, environment, run_here
from tests.test_training import run as command

pytestmark = pytest.mark.usefixtures("quick_compilation", "own_cache")
KEY = jax.random.key(3)
SMALL = ("--width", "8,8", "--groups", "4", "--critic-width", "4", "--batch-size", "8",
         "--devices", "1", "--log-every", "2", "--steps", "2", "--eval-every", "0")
OWN = '''"""A tiny GAN of latents, or of images."""
import dataclasses

from experiments import latents, launch, r3gan
from experiments.experiment import Experiment
from experiments.latents import Latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(r3gan.Config):
    """As R3GAN."""

    data: Latents = Latents(dataset="digits", image_size=32)


experiment = Experiment(Config, latents.make_source, r3gan.make_gan, latents.make_reference,
                        settle=latents.settle)
'''


@pytest.fixture(scope="module")
def stage(tmp_path_factory, own_cache):
    """A run of an autoencoder of digits."""
    folder = tmp_path_factory.mktemp("runs") / "stage"
    assert run_here("autoencoder", *SMALL, "--run-dir", folder) == 0
    return folder


@pytest.fixture(scope="module")
def file(stage):
    """The digits' moments."""
    path = stage.parent / "latents.npz"
    assert tool(encode, "--autoencoder", stage, "--dataset", "digits", "--out", path) == 0
    return path


@pytest.fixture(scope="module")
def own(stage):
    path = stage.parent / "own_latents.py"
    path.write_text(OWN)
    return path


def train(own, *flags):
    experiment = opening.load_file(own)
    words = ["--width", "8", "--batch-size", "8", "--log-every", "2", "--devices", "1", "--latent-size",
             "4", "--decay-steps", "2", "--eval-every", "0", *map(str, flags)]
    return launch.guarded(lambda: launch.run(experiment, launch.parse(experiment, words)))


@pytest.fixture(scope="module")
def run(own, stage, file):
    """A run on latents, measured once."""
    folder = stage.parent / "gan"
    assert train(own, "--file", file, "--autoencoder", stage, "--run-dir", folder, "--classes", 10,
                 "--steps", 2, "--eval-every", 2, "--features", "raw") == 0
    return folder


def said(capsys):
    return capsys.readouterr().err


# The networks, and how they are trained.

def test_sizes_are_halved_and_doubled():
    model = Autoencoder(3, (4, 8, 8), layers=2, latent_channels=5, groups=2, attention=True,
                        projections=True, remat=True)
    images, noise = jnp.ones((2, 8, 12, 3)), jnp.ones((2, 2, 3, 5))
    shapes = jax.eval_shape(lambda: model.init_with_output(KEY, noise, images, train=True))
    (made, heads), variables = shapes
    assert made.shape == images.shape
    assert {name: head.shape for name, head in heads.items()} == {
        "mean": (2, 2, 3, 5), "log_variance": (2, 2, 3, 5)}
    encoded = jax.eval_shape(lambda v: model.apply(v, images, method="encode"), variables)
    assert encoded.shape == (2, 2, 3, 10)


def test_training_decodes_what_is_drawn_and_evaluation_the_mean():
    model, images = Autoencoder(1, (4, 4), groups=2), jnp.linspace(-1, 1, 32).reshape(2, 4, 4, 1)
    noise = jax.random.normal(KEY, (2, 2, 2, 4))
    variables = model.init(KEY, noise, images, train=False)
    mean, log_variance = np.split(model.apply(variables, images, method="encode"), 2, -1)
    for train, wanted in ((False, mean), (True, mean + np.exp(log_variance / 2) * noise)):
        found, _ = model.apply(variables, noise, images, train=train)
        np.testing.assert_allclose(found, model.apply(variables, wanted, method="decode"), atol=1e-5)


@pytest.mark.slow
def test_the_critic_waits_for_its_start():
    config = autoencoder.experiment.configure(width="4", groups=2, critic_width=4,
                                              adversarial_start=1)
    gan = autoencoder.make_gan(config, (8, 8, 1))
    images = jax.random.uniform(KEY, (1, 2, 8, 8, 1), minval=-1)
    batches = Batch(images, images)
    state = init_state(gan, KEY, jax.tree.map(lambda x: x[0], batches))
    step = jax.jit(lambda state: train_step(gan, state, batches, KEY)[0])
    first = step(state)
    assert all(map(np.array_equal, jax.tree.leaves(first.critic.params),
                   jax.tree.leaves(state.critic.params)))
    assert not all(map(np.array_equal, jax.tree.leaves(first.generator.params),
                       jax.tree.leaves(state.generator.params)))
    assert not all(map(np.array_equal, jax.tree.leaves(step(first).critic.params),
                       jax.tree.leaves(first.critic.params)))


def test_the_divergence_is_that_of_gaussians():
    """Of two numbers for four pixels: the KL divergences, by quadrature, over the pixels."""
    mean, log_variance = np.array([[[[0.5, -1.0]]]]), np.array([[[[0.3, -0.7]]]])
    x = np.linspace(-12, 12, 20_001)

    def density(mean, variance):
        return np.exp(-(x - mean) ** 2 / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    wanted = sum(np.sum(p * (np.log(p) - np.log(density(0, 1)))) * (x[1] - x[0]) for p in map(
        density, mean.ravel(), np.exp(log_variance).ravel()))
    view = SimpleNamespace(generator_heads={"mean": mean, "log_variance": log_variance},
                           fake=SimpleNamespace(samples=np.zeros((1, 2, 2, 1))))
    assert autoencoder.divergence(1.0).generator.value(view, ()) == pytest.approx(wanted / 4, rel=1e-4)


def test_errors_of_reconstructions():
    image = np.zeros((2, 8, 8, 1), np.uint8)
    found = np.stack([np.full((8, 8, 1), 51, np.uint8), np.full((8, 8, 1), 255, np.uint8)])
    seen = SimpleNamespace(fake=SimpleNamespace(samples=found, targets={"image": image}))
    assert autoencoder.RECONSTRUCTION.measure(seen) == pytest.approx({
        "reconstruction_mse": (0.04 + 1) / 2, "reconstruction_psnr": (-10 * np.log10(0.04) + 0) / 2})


@pytest.mark.slow
def test_a_run_reconstructs_a_folder_and_is_measured(stage, tmp_path):
    images = load("digits", "test").images[:3]
    (tmp_path / "in").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / "in" / f"{number}.png")
    assert tool(sample, stage, "--input", tmp_path / "in", "--out", tmp_path / "out") == 0
    codec = latents.open_codec(str(stage))
    means = codec.moments(np.asarray(scale(images, (-1, 1))))[..., :2]
    wanted = pixels(codec.images(means))
    for number, image in enumerate(wanted):
        found = np.asarray(Image.open(tmp_path / "out" / f"{number}.png"))
        assert np.abs(found.astype(int) - image[..., 0]).max() <= 1
    assert tool(evaluate, stage, "--metrics", "reconstruction") == 0
    numbers = json.loads((stage / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    assert numbers["reconstruction_psnr"]["value"] > 0
    assert numbers["reconstruction_mse"]["mean image"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["ratio", "uncertainty", "gradnorm"])
def test_the_losses_are_mixed_by_any_weighting(tmp_path, weighting):
    assert run_here("autoencoder", *SMALL, "--weighting", weighting, "--adversarial-start", 0,
                    "--log-every", 1, "--run-dir", tmp_path / "run") == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["generator/kl_weight"] != pytest.approx(1e-3)
    assert last["generator/reconstruction_weight"] != 1


@pytest.mark.parametrize(("flags", "message"), [
    (("--weighting", "ratio"), "with the weighting ratio the critic counts from the start: give "),
    (("--width", "8,8,8,8,8"), "the width 8,8,8,8,8 halves images 4 times, and 8x8 can't be: "),
    (("--width", "6,8"), "widths must be multiples of its 4 groups; got 6,8"),
    (("--adversarial-start", "-1"), "adversarial_start must be from 0 to 2147483647; got -1")])
def test_what_no_autoencoder_can_be_is_refused(tmp_path, capsys, flags, message):
    assert run_here("autoencoder", *SMALL, *flags, "--run-dir", tmp_path / "run") == 2
    assert message in said(capsys)


# Weights of others.

def in_layout(path, seed=0):
    """Writes numbers of our own in diffusers' layout; returns the network and its variables."""
    model = Autoencoder(1, (8, 8), 1, 2, 4, attention=True, projections=True)
    variables = model.init(jax.random.key(seed), jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 8, 8, 1)),
                           train=False)
    state = {}
    for where, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        name = published._diffusers("/".join(part.key for part in where))
        state[name] = np.transpose(leaf, {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim])
    save_weights(path, state)
    return model, variables


def test_published_weights_are_read_with_their_scale(tmp_path, monkeypatch):
    path = tmp_path / "vae.safetensors"
    _, variables = in_layout(path)
    monkeypatch.setattr(published.autoencoder, "__defaults__", (4,))  # groups, of such few channels
    codec = latents.open_codec(str(path))
    jax.tree.map(np.testing.assert_array_equal, codec.variables, variables)
    assert codec.published_scale is None
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.25}')
    assert latents.open_codec(str(path)).published_scale == 0.25
    with pytest.raises(ValueError, match="are multiples of 2; got 7x8"):
        codec.moments(np.zeros((1, 7, 8, 1), np.float32))
    with pytest.raises(ValueError, match=r"has latents of 2 channels; got 4: these are moments"):
        codec.images(np.zeros((1, 4, 4, 4), np.float32))


def test_another_layout_is_refused(tmp_path):
    arrays = {"encoder.down.0.block.0.norm1.weight": np.ones(4, np.float32)}
    path = tmp_path / "vae.safetensors"
    save_weights(path, arrays)
    with pytest.raises(ValueError, match=r"vae.safetensors: these weights aren't in the layout of "
                       r"diffusers' AutoencoderKL: they have no encoder.conv_in.weight, and have "):
        latents.open_codec(str(path))
    with pytest.raises(ValueError, match=r"layout of diffusers' AutoencoderKL"):
        read_published({})


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: state.pop("decoder.conv_out.bias"), "the weights have no decoder.conv_out.bias"),
    (lambda state: state.update({"decoder.extra.weight": np.ones(1)}), "have decoder.extra.weight, for"),
    (lambda state: state.update({"quant_conv.bias": np.ones(3)}), r"quant_conv.bias has the shape .3"),
    (lambda state: state.update({"quant_conv.bias": np.full(4, np.nan)}), "numbers that aren't finite")])
def test_weights_that_dont_fit_are_named(tmp_path, change, message):
    in_layout(path := tmp_path / "vae.safetensors")
    state = load_weights(path)
    change(state)
    with pytest.raises(ValueError, match=message):
        read_published(state, 4)


# Files of latents.

def made(tmp_path, name="latents.npy", shape=(20, 4, 6, 4), **arrays):
    values = np.random.default_rng(0).normal(2.0, 3.0, shape).astype(np.float32)
    if name.endswith(".npy"):
        np.save(tmp_path / name, values)
    else:
        np.savez(tmp_path / name, samples=values, **arrays)
    return tmp_path / name, values


def test_latents_are_read_from_either_order_of_axes(tmp_path):
    path, values = made(tmp_path)
    np.save(tmp_path / "first.npy", np.moveaxis(values, -1, 1))
    for found in (open_latents(path, 4), open_latents(tmp_path / "first.npy", 4)):
        assert (found.is_moments, found.train.sample_shape, found.about) == (False, (4, 6, 4), {})
        is_test = np.isin(np.arange(20), (9, 19))
        np.testing.assert_array_equal(found.train[:][0], values[~is_test])
        np.testing.assert_array_equal(found.test[:][0], values[is_test])
        assert found.deviation == pytest.approx(values[~is_test].std(), rel=1e-5)


@pytest.mark.parametrize(("shape", "found"), [
    ((4, 8, 8), (8, 8, 4)), ((8, 4, 4), (4, 4, 8)), ((4, 4, 8), (4, 4, 8)), ((4, 4, 4), (4, 4, 4))])
def test_of_both_orders_of_axes_that_with_square_latents_is_meant(tmp_path, shape, found):
    values = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    opened = open_latents(tmp_path / "a.npy", 4)
    assert (opened.train.sample_shape, opened.is_moments) == (found, found[-1] == 8)
    np.savez(tmp_path / "ours.npz", samples=values, about=np.array("{}"))  # as `encode` writes them
    assert open_latents(tmp_path / "ours.npz", 4).train.sample_shape == shape


def test_moments_are_deviations_or_logarithms_of_variances(tmp_path):
    """The second half decides, and the deviation is that of what is drawn."""
    path, mean = made(tmp_path, shape=(20, 4, 4, 2))
    deviations = np.random.default_rng(1).uniform(0.5, 2, mean.shape).astype(np.float32)
    both = np.concatenate([mean, deviations], -1)
    np.save(path, both)
    np.save(tmp_path / "logs.npy", np.concatenate([mean, 2 * np.log(deviations)], -1))
    for each in (path, tmp_path / "logs.npy"):
        found = open_latents(each, 2)
        assert found.is_moments
        rows = np.setdiff1d(np.arange(20), (9, 19))
        np.testing.assert_allclose(found.train[:][0], both[rows], rtol=1e-5)
        draws = mean[rows] + deviations[rows] * np.random.default_rng(2).normal(size=(4000, *mean[
            rows].shape))
        assert found.deviation == pytest.approx(draws.std(), rel=1e-3)


def test_classes_come_from_the_file_or_from_dataset_json(tmp_path):
    path, _ = made(tmp_path, "own.npz", labels=np.arange(20) % 3,
                   class_names=np.array(["ant", "bee", "cat"]), held_out=np.arange(20) >= 18)
    found = open_latents(path, 4)
    assert found.train.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(found.train.labels, np.arange(18) % 3)
    assert len(found.test) == 2
    path, _ = made(tmp_path, "own.npz", labels=1 + np.arange(20) % 2,
                   class_names=np.array(["ant", "bee", "cat"]))
    found = open_latents(path, 4).train  # no ants
    assert [found.class_names[label] for label in found.labels[:2]] == ["bee", "cat"]
    path, _ = made(tmp_path)
    assert open_latents(path, 4).train.class_names == ()
    rows = [[f"00000/img{i}.npy", i % 4] for i in range(20)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": rows}))
    found = open_latents(path, 4)
    assert found.train.class_names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(found.test.labels, [1, 3])  # of rows 9 and 19


@pytest.mark.parametrize(("shape", "dtype", "message"), [
    ((20, 5, 6, 3), np.float32, r"shape \[count, height, width, 4\], or 8 channels of moments; got "
                                r"float32\[20, 5, 6, 3\]"),
    ((20, 24, 4), np.float32, r"got float32\[20, 24, 4\]"),
    ((20, 4, 6, 4), np.uint8, r"floating-point numbers of shape .* got uint8"),
    ((1, 4, 6, 4), np.float32, "at least two latents are needed; got 1")])
def test_what_is_no_latents_of_a_decoder_is_refused(tmp_path, shape, dtype, message):
    np.save(tmp_path / "latents.npy", np.ones(shape, dtype))
    with pytest.raises(ValueError, match=message):
        open_latents(tmp_path / "latents.npy", 4)


def test_damaged_latents_are_refused(tmp_path):
    path, values = made(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["a.npy", 1], ["b.npy", 0]]}))
    with pytest.raises(ValueError, match="has 2 values, and there are 20 samples"):
        open_latents(path, 4)
    (tmp_path / "dataset.json").unlink()
    values[3, 1, 2, 0] = np.nan
    np.save(path, values)
    with pytest.raises(ValueError, match=r"1 of 1920 values are NaN or infinite, the first at .3, 1, 2"):
        open_latents(path, 4)
    np.save(path, np.ones_like(values))
    with pytest.raises(ValueError, match="all latents are the same"):
        open_latents(path, 4)
    path, _ = made(tmp_path, "own.npz", held_out=np.ones(20, bool))
    with pytest.raises(ValueError, match="held_out must be a truth for each of its 20 samples, and fal"):
        open_latents(path, 4)
    path, _ = made(tmp_path, "own.npz", labels=np.arange(20.0) % 3)
    with pytest.raises(ValueError, match="labels must be whole numbers or words; got float64"):
        open_latents(path, 4)
    path, _ = made(tmp_path, "own.npz", labels=np.arange(20) % 3, class_names=np.array(["ant", "bee"]))
    with pytest.raises(ValueError, match="labels must be a number for each of its 20 samples, below"):
        open_latents(path, 4)


def test_latents_are_drawn_by_key_and_position(tmp_path):
    """Another one every epoch, the same whenever it is the same example; streamed ones too."""
    mean = np.broadcast_to(100 * np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1), (4, 20, 20, 1))
    np.savez(tmp_path / "own.npz", samples=np.concatenate([mean, np.full_like(mean, 2)], -1),
             held_out=np.arange(4) == 3)
    train = scaled(open_latents(tmp_path / "own.npz", 1).train, 0.5)

    def draw(source, step, key=KEY):
        (arrays, _), = windows(source, key, 3, step, step + 1)
        return np.asarray(jax.jit(lambda arrays: draw_step(source, arrays, key, step, 3, jnp.arange(3)))(
            arrays).samples)

    here, there = (drawn(make(train)) for make in (resident, streaming))
    assert here.sample_shape == (20, 20, 1)
    first, second = draw(here, 0), draw(here, 1)  # an epoch each
    np.testing.assert_array_equal(first, draw(here, 0))
    np.testing.assert_allclose(draw(there, 1), second, atol=1e-5)
    assert not np.array_equal(first, draw(here, 0, jax.random.key(4)))
    first, second = (found[found.mean((1, 2, 3)).argsort()] for found in (first, second))
    for row, (one, other) in enumerate(zip(first, second, strict=True)):
        noise = (one - 50 * row).ravel()  # standard normal: deviations of 2, times 0.5
        assert abs(noise.mean()) < 0.2
        assert abs(noise.std() - 1) < 0.15
        assert np.abs(one - other).max() > 0.5


# From images to latents.

def test_a_file_holds_what_the_encoder_makes_and_the_classes(stage, file):
    written = np.load(file)
    codec, parts = latents.open_codec(str(stage)), [load("digits", split) for split in ("train", "test")]
    images = np.concatenate([scale(part.images, (-1, 1)) for part in parts])
    mean, log_variance = np.split(np.asarray(codec.model.apply(
        codec.variables, images[:64], method="encode")), 2, -1)
    np.testing.assert_allclose(written["samples"][:64, ..., :2], mean, atol=1e-5)
    np.testing.assert_allclose(written["samples"][:64, ..., 2:], np.exp(log_variance / 2), rtol=1e-4)
    np.testing.assert_array_equal(written["labels"], np.concatenate([part.labels for part in parts]))
    np.testing.assert_array_equal(written["held_out"], np.arange(len(images)) >= len(parts[0]))
    assert "".join(written["class_names"]) == "0123456789"


def test_a_command_that_was_stopped_goes_on_and_writes_the_same_file(stage, file, monkeypatch, capsys):
    again = file.with_name("again.npz")
    words = ("--autoencoder", stage, "--dataset", "digits", "--out", again)
    encoded, moments = [], latents.Codec.moments

    def interrupted(self, images):
        if len(encoded) == 3:
            raise KeyboardInterrupt
        encoded.append(len(images))
        return moments(self, images)

    monkeypatch.setattr(latents.Codec, "moments", interrupted)
    assert tool(encode, *words) == 130
    assert not again.exists()
    begun = again.with_name("again.npz.begun")
    with open(begun, "ab") as torn:  # a row and a half of the next batch
        torn.write(bytes(4 * 4 * 4 * 4 * 3 // 2))
    assert tool(encode, *words, "--means") == 2
    assert "again.npz.begun was begun with other images, another autoencoder or other" in said(capsys)
    monkeypatch.setattr(latents.Codec, "moments", lambda self, images: (
        encoded.append(len(images)), moments(self, images))[1])
    assert tool(encode, *words) == 0
    assert sum(encoded) == 1797  # none twice
    assert again.read_bytes() == file.read_bytes()
    assert not begun.exists()
    assert tool(encode, *words) == 2
    assert "there is" in said(capsys)


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on_and_writes_the_same_file(stage, tmp_path):
    words = ["--autoencoder", str(stage), "--dataset", "digits", "--out"]

    def command(out, before=""):
        code = f"import sys; sys.argv[0] = 'encode'; {before}\nfrom experiments import encode\n" \
               "import tyro; encode.main(tyro.cli(encode.Options))"
        return subprocess.run([sys.executable, "-c", code, *words, str(out)], cwd=ROOT,
                              env=environment(), timeout=300, check=False).returncode

    kills = ("import os, signal; calls = []; "
             "os.fsync = lambda file: len(calls) == 9 and os.kill(os.getpid(), signal.SIGKILL) "
             "or calls.append(file)")
    assert command(tmp_path / "once.npz") == 0
    assert command(tmp_path / "twice.npz", kills) == -signal.SIGKILL
    assert (tmp_path / "twice.npz.begun").exists()
    assert command(tmp_path / "twice.npz") == 0
    assert (tmp_path / "twice.npz").read_bytes() == (tmp_path / "once.npz").read_bytes()


@pytest.mark.slow
def test_a_folder_of_other_images_is_refused(stage, tmp_path, capsys):
    for number in range(12):
        Image.fromarray(np.full((9, 8, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    words = ("--autoencoder", stage, "--folder", tmp_path, "--out", tmp_path / "latents.npz")
    assert tool(encode, *words) == 2
    assert "the images have 3 channels, and" in said(capsys)
    assert tool(encode, *words, "--colour", "grey") == 2
    assert "height and width are multiples of 2; got 9x8: give another --image-size" in said(capsys)
    assert tool(encode, *words, "--colour", "grey", "--image-size", 8, "--means") == 0
    written = np.load(tmp_path / "latents.npz")
    assert written["samples"].shape == (12, 4, 4, 2)
    assert "labels" not in written


# Runs on latents.

@pytest.mark.slow
def test_the_chain_is_three_commands(tmp_path):
    stage, file, gan = (tmp_path / name for name in ("stage", "latents.npz", "gan"))
    command("autoencoder", *SMALL, "--dataset", "digits", "--run-dir", stage)
    done = command("encode", "--autoencoder", stage, "--dataset", "digits", "--out", file)
    assert f"experiments.gat --file {file} --autoencoder {stage}" in done.stdout
    command("gat", "--file", file, "--autoencoder", stage, "--run-dir", gan, "--width", 16, "--depth", 2,
            "--outputs", 2, "--heads", 1, "--batch-size", 8, "--steps", 2, "--eval-every", 2,
            "--features", "raw", "--eval-metrics", "fd", "--classes", 10)
    command("sample", gan, "--num", 4, "--out", tmp_path / "drawn")
    assert [np.asarray(Image.open(path)).shape for path in sorted((tmp_path / "drawn").iterdir())] == [
        (8, 8)] * 4


def test_latents_are_shown_and_measured_as_images(own, stage, file, monkeypatch):
    """Reals are what the decoder makes of the means, and pictures have the images' size."""
    experiment = opening.load_file(own)
    monkeypatch.chdir(stage.parent)
    config = experiment.settle(experiment.configure(file=str(file), autoencoder=stage.name, classes=10))
    monkeypatch.undo()  # the decoder is found from any folder
    source, reference = experiment.make_source(config), experiment.make_reference(config)
    settings = launch.record(experiment, config, source, reference)
    assert (settings["sample_shape"], settings["trained_shape"]) == ([8, 8, 1], [4, 4, 2])
    assert settings["value_range"] == [-1, 1]
    samples = np.load(file)["samples"]
    assert source.sample_shape == (4, 4, 2)
    trained = reference.decoding.trained("train").take(np.arange(1438))
    np.testing.assert_allclose(trained, samples[:1438, ..., :2] * settings["latent_scale"], rtol=1e-4,
                               atol=1e-6)
    rows, codec = np.array([3, 0, 5]), latents.open_codec(str(stage))
    wanted = pixels(codec.model.apply(codec.variables, samples[1438 + rows][..., :2], method="decode"))
    reals = reference.reals("test")
    assert np.abs(reals.take(rows).astype(int) - wanted).max() <= 1
    np.testing.assert_array_equal(reals.targets(rows)["label"], load("digits", "test").labels[rows])
    picture = showing.real_picture(source, 0, settings, 9, reference.decoding.decode)
    assert picture.shape == (100, 100, 3)  # 3x3 of 8x8, four times as large


@pytest.mark.slow
def test_samples_of_latents_are_images(run, own, tmp_path):
    """What `sample` writes is what the decoder makes of the generator's latents over their scale."""
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert (settings["sample_shape"], settings["trained_shape"]) == ([8, 8, 1], [4, 4, 2])
    assert tool(sample, run, "--experiment", own, "--num", 10, "--out", tmp_path / "s.npz") == 0
    opened = opening.open_run(run, experiment=own)
    gan, labels = opened.game, np.arange(10, dtype=np.int32)
    key = jax.random.fold_in(jax.random.key(0), __import__("zlib").crc32(b"latents"))
    made, _ = samples_and_heads(gan.generator.apply(
        opened.state.ema, draw_latents(gan, key, 10), labels, train=False))
    codec = latents.open_codec(settings["autoencoder"])
    wanted = pixels(codec.model.apply(codec.variables, made / settings["latent_scale"], method="decode"))
    written = np.load(tmp_path / "s.npz")
    np.testing.assert_array_equal(written["labels"], labels)
    assert np.abs(written["samples"].astype(int) - wanted).max() <= 1
    for name in ("real.png", *(path.name for path in (run / "samples").glob("step_*.png"))):
        assert np.asarray(Image.open(run / "samples" / name)).shape[:2] == (331, 331)  # 10x10


@pytest.mark.slow
def test_a_run_on_latents_is_measured_on_images(run, own):
    assert tool(evaluate, run, "--experiment", own, "--features", "raw", "--metrics", "fd", "--num",
                80) == 0
    assert tool(evaluate, run, "--experiment", own, "--features", "raw", "--metrics", "fd", "--num", 80,
                "--dataset", "digits") == 0
    decoded, originals = json.loads((run / "evaluation.json").read_text())["evaluations"][-2:]
    assert "decoded latents.npz" in decoded["protocol"]["dataset"]
    assert originals["protocol"]["dataset"] == "digits train"
    values = [found["metrics"]["raw/fd"]["value"] for found in (decoded, originals)]
    assert values[0] != values[1]


@pytest.mark.slow
def test_a_run_on_latents_is_explored(run, own):
    explorer = Explorer(str(run), str(own))
    shown = explorer.draw(Asked(count=4))
    assert shown.samples.shape == (4, 8, 8, 1)
    assert len(shown.scores) == 4
    assert shown.note == ""


@pytest.mark.slow
def test_a_run_goes_on_wherever_its_data_are(run, own, file, tmp_path, capsys):
    for folder in (run, file):
        shutil.copytree(folder, tmp_path / "gan") if folder.is_dir() else shutil.copy(folder, tmp_path)
    stage = tmp_path / "stage"
    shutil.copytree(run.parent / "stage", stage)
    words = ("--run-dir", tmp_path / "gan", "--file", tmp_path / file.name, "--autoencoder", stage,
             "--classes", 10, "--steps", 4, "--resume", "latest")
    assert train(own, *words) == 0
    assert train(own, *words, "--latent-scale", 0.5) == 2
    assert "latent_scale" in said(capsys)
    assert run_here("autoencoder", *SMALL, "--steps", 3, "--resume", "latest", "--run-dir", stage) == 0
    words = (tmp_path / "gan", "--experiment", own, "--num", 2, "--out", tmp_path / "s.npy")
    assert tool(sample, *words) == 2
    assert f"{stage} is another autoencoder than the one of the digest" in said(capsys)
    assert tool(sample, *words, "--autoencoder", tmp_path / "gone") == 2
    assert "gone: name with --autoencoder the folder" in said(capsys)
    assert tool(sample, *words, "--autoencoder", run.parent / "stage") == 0


def test_a_run_on_images_has_no_autoencoder_to_be_named(stage):
    with pytest.raises(ValueError, match=r"autoencoder is for runs on latents, and .* is none"):
        opening.open_run(stage, autoencoder="somewhere")


@pytest.mark.parametrize(("words", "message"), [
    (("--file", "FILE"), "with --file give --autoencoder as well"),
    (("--autoencoder", "STAGE"), "autoencoder is for latents, and there are none: give them with"),
    (("--latent-scale", "0"), "latent_scale is for latents, and there are none: give them with"),
    (("--file", "FILE", "--autoencoder", "STAGE", "--flip"), "flip is for images, and"),
    (("--file", "FILE", "--autoencoder", "STAGE", "--folder", "x"), "folder is for images, and"),
    (("--file", "FILE", "--autoencoder", "STAGE", "--classes", "3"), "latents.npz has 10: give --"),
    (("--file", "FILE", "--autoencoder", "STAGE", "--latent-scale", "0"), "latent_scale must be above"),
    (("--file", "FILE", "--autoencoder", "nowhere"), "there is no autoencoder nowhere: name with"),
    (("--file", "nowhere.npz", "--autoencoder", "STAGE"), "there is no file nowhere.npz"),
    pytest.param(("--file", "FILE", "--autoencoder", "GAN"), "is a run of digits, which has no decoder",
                 marks=pytest.mark.slow)])
def test_what_no_run_on_latents_can_be_is_refused(own, stage, file, tmp_path, capsys, words, message):
    if "GAN" in words:
        assert run_here("digits", "--width", "4", "--batch-size", "4", "--steps", "1", "--devices", "1",
                        "--eval-every", "0", "--run-dir", tmp_path / "GAN") == 0
    known = {"FILE": file, "STAGE": stage, "GAN": tmp_path / "GAN"}
    assert train(own, *(known.get(word, word) for word in words), "--run-dir", tmp_path / "run") == 2
    assert message in said(capsys)


@pytest.mark.slow
def test_latents_of_another_autoencoder_or_scale_are_refused(own, stage, file, tmp_path, capsys,
                                                             monkeypatch):
    other = tmp_path / "other"
    assert run_here("autoencoder", *SMALL, "--seed", 1, "--run-dir", other) == 0
    assert train(own, "--file", file, "--autoencoder", other, "--run-dir", tmp_path / "run") == 2
    assert "latents.npz are of another autoencoder than" in said(capsys)
    in_layout(vae := tmp_path / "vae.safetensors")
    (tmp_path / "config.json").write_text('{"scaling_factor": 0.1}')
    monkeypatch.setattr(published.autoencoder, "__defaults__", (4,))
    values = np.random.default_rng(0).normal(size=(30, 4, 4, 2)).astype(np.float32)
    np.save(tmp_path / "theirs.npy", values)
    words = ("--file", tmp_path / "theirs.npy", "--autoencoder", vae, "--run-dir", tmp_path / "run",
             "--steps", 1)
    assert train(own, *words) == 2
    text = said(capsys)
    assert "theirs.npy have a standard deviation of " in text
    assert "decodes about 10: if they were multiplied by its scaling factor, 0.1, divide" in text
    np.save(tmp_path / "theirs.npy", 10 * values)
    assert train(own, *words) == 0
