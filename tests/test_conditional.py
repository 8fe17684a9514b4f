"""Conditional networks by hand and by published sizes; conditional runs as a user meets them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import conditional, evaluate, sample
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator
from jaxgan.nn.norms import normalise
from tests.test_measuring import tool
from tests.test_training import TINY, rows, run_here
from tests.tiny import seen, value

pytestmark = pytest.mark.usefixtures("own_cache")
LATENTS, LABELS = jnp.zeros((2, 128)), jnp.zeros(2, jnp.int32)
IMAGES = jnp.zeros((2, 32, 32, 3))
CONFIGURE = conditional.experiment.configure
PROJECTION = ResNetCritic(conditioning="projection", num_classes=3)


def size(module, inputs, condition):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), inputs, condition, train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_published_sizes():
    """Of WGAN-GP's class-conditional ResNet: tables in the blocks' BatchNorms, and a head of classes."""
    assert size(ResNetGenerator(num_classes=10), LATENTS, LABELS) == 1_218_307
    assert size(ResNetCritic(conditioning="classes", num_classes=10), IMAGES, LABELS) == 1_055_115


def test_classes_enter_a_dcgan_with_the_latents():
    """One more input of the dense layer for each class."""
    plain, conditional = (DCGANGenerator((8, 8, 1), 4, num_classes=classes) for classes in (0, 3))
    assert size(conditional, LATENTS, LABELS) - size(plain, LATENTS, None) == 3 * (2 * 2 * 8)
    params = conditional.init(jax.random.key(0), LATENTS, LABELS, train=False)
    drawn = [conditional.apply(params, LATENTS, jnp.full(2, label), train=False) for label in (0, 1)]
    assert jnp.abs(drawn[0] - drawn[1]).max() > 1e-4


def test_batch_norm_of_classes_by_hand():
    import flax.linen as nn

    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x, labels):
            return normalise("batch", x, train=True, labels=labels, num_classes=2)

    x, labels = jax.random.normal(jax.random.key(0), (6, 2, 2, 3)) * 3 + 1, jnp.array([0, 1, 1, 0, 0, 1])
    variables = Norm().init(jax.random.key(0), x, labels)
    scales, biases = (variables["params"][f"Dense_{i}"]["kernel"] for i in (0, 1))
    assert (scales == 1).all()
    assert (biases == 0).all()
    params = {"Dense_0": {"kernel": scales.at[1].set(2.0)}, "Dense_1": {"kernel": biases.at[1].set(5.0)}}
    found, _ = Norm().apply({**variables, "params": params}, x, labels, mutable=["batch_stats"])
    whitened = (x - x.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(x.var((0, 1, 2), keepdims=True) + 1e-5)
    expected = np.where(np.asarray(labels == 1)[:, None, None, None], 2 * whitened + 5, whitened)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("critic", [DCGANCritic(4), ResNetCritic((4, 4))], ids=["dcgan", "resnet"])
def test_a_projection_is_the_inner_product_with_the_classs_embedding(critic):
    critic = critic.clone(conditioning="projection", num_classes=3)
    images = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
    variables = critic.init(jax.random.key(0), images, jnp.zeros(5, jnp.int32), train=False)
    params = variables["params"]
    zeroed = {**params, "embedding": {"kernel": jnp.zeros_like(params["embedding"]["kernel"])}}
    labels = jnp.array([0, 1, 2, 1, 0])

    def scores(params, labels):
        return critic.apply({"params": params}, images, labels, train=False)

    with_zeros = scores(zeroed, labels)
    np.testing.assert_allclose(with_zeros, scores(zeroed, labels[::-1]), rtol=1e-5, atol=1e-6)
    # One-hot embeddings show the features, and the embedding is linear in them.
    count = params["embedding"]["kernel"].shape[1]
    units = [{"kernel": jnp.zeros((3, count)).at[:, i].set(1.0)} for i in range(count)]
    features = np.stack([scores({**zeroed, "embedding": unit}, labels) - with_zeros
                         for unit in units], 1)
    expected = (features * np.asarray(params["embedding"]["kernel"])[labels]).sum(1)
    np.testing.assert_allclose(scores(params, labels) - with_zeros, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("critic", "condition", "error", "message"), [
    (DCGANCritic(4, conditioning="labels", num_classes=3), LABELS, ValueError, "must be one of 'none'"),
    (DCGANCritic(4, conditioning="classes"), LABELS, ValueError, "does not go with 0 classes"),
    (DCGANCritic(4, num_classes=3), LABELS, ValueError, "'none' does not go with 3 classes"),
    (PROJECTION, None, ValueError, "give the source labels=True"),
    (PROJECTION, jnp.zeros(2), TypeError, "must be integers"),
    (PROJECTION, jnp.zeros((2, 3), jnp.int32), ValueError,
     r"labels must have shape \(2,\); got \(2, 3\)"),
])
def test_critics_refuse(critic, condition, error, message):
    with pytest.raises(error, match=message):
        size(critic, IMAGES, condition)


def test_generators_refuse():
    with pytest.raises(ValueError, match="give the source labels=True"):
        size(DCGANGenerator((8, 8, 1), num_classes=3), LATENTS, None)
    with pytest.raises(ValueError, match="classes enter by batch normalisation; got norm 'none'"):
        size(ResNetGenerator(norm="none", num_classes=3), LATENTS, LABELS)


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_cache):
    folder = tmp_path_factory.mktemp("runs") / "conditional"
    assert run_here("conditional", *TINY, "--steps", 2, "--eval-every", 2, "--eval-metrics", "fd",
                    "--features", "raw", "--run-dir", folder) == 0
    return folder


def test_a_run_logs_its_task(run):
    assert {"critic/class", "generator/class", "raw/fd"} <= rows(run)[-1].keys()
    assert json.loads((run / "config.json").read_text())["settings"]["num_classes"] == 10


def test_samples_of_a_class(run, tmp_path):
    """Sample i is of its own latents; --label and --grid-by-class decide of which class it is."""
    drawn = {}
    for name, flags in {"in turn": ("--num", 12), "three": ("--num", 12, "--label", 3),
                        "grid": ("--grid-by-class", "--columns", 2)}.items():
        assert tool(sample, run, "--out", tmp_path / "samples.npy", *flags) == 0
        drawn[name] = np.load(tmp_path / "samples.npy")
    same = [np.allclose(a, b, atol=1e-6) for a, b in zip(drawn["in turn"], drawn["three"], strict=True)]
    assert same == [i == 3 for i in range(12)]
    assert drawn["grid"].shape == (20, 8, 8, 1)
    np.testing.assert_allclose(drawn["grid"][6:8], [drawn["three"][6], drawn["three"][7]], atol=1e-6)


@pytest.mark.parametrize(("flags", "message"), [
    (("--label", 10), "label must be in [0, 10); got 10"),
    (("--grid-by-class", "--interpolate"), "--grid-by-class goes neither with --interpolate"),
])
def test_sample_refuses(run, flags, message, capsys):
    assert tool(sample, run, *flags) == 2
    assert message in capsys.readouterr().err


def test_what_the_flags_say_is_what_is_trained():
    gan = conditional.make_gan(CONFIGURE(num_classes=3, critic_fake_weight=0.5, width=4,
                                         generator_labels="uniform"), (8, 8, 1))
    of = seen(condition=LABELS, **{"class": jnp.zeros((2, 3))})
    assert float(value(gan.tasks[0].critic, of, of)) == pytest.approx(1.5 * np.log(3))
    asked = gan.generator_condition(jax.random.split(jax.random.key(0), 50), None)
    assert set(np.asarray(asked)) == {0, 1, 2}


@pytest.mark.slow
def test_a_critic_that_sees_the_class_beside_the_image(tmp_path, capsys):
    """Its first kernel has as many channels more as there are classes."""
    def critic(conditioning):
        gan = conditional.make_gan(CONFIGURE(conditioning=conditioning, width=4), (8, 8, 1))
        return size(gan.critic, jnp.zeros((2, 8, 8, 1)), LABELS)

    assert critic("concatenation") - critic("classes") == 10 * 3 * 3 * 4 - 10 * (2 * 2 * 8 + 1)
    flags = ("conditional", *TINY, "--steps", 2, "--eval-every", 0, "--run-dir", tmp_path / "run",
             "--conditioning", "concatenation")
    assert run_here(*flags) == 0
    assert not [name for name in rows(tmp_path / "run")[-1] if "class" in name]
    assert run_here(*flags, "--model", "resnet") == 2
    assert "concatenation is for the dcgan" in capsys.readouterr().err
    assert run_here(*flags, "--critic-fake-weight", 1) == 2
    assert "critic_fake_weight is for --conditioning classes: leave it out" in capsys.readouterr().err


def test_accuracy_needs_a_classifier(run, capsys):
    assert tool(evaluate, run, "--metrics", "accuracy", "--features", "raw") == 2
    assert "needs a feature network that classifies" in capsys.readouterr().err


@pytest.mark.slow
def test_classes_of_a_folder(tmp_path, capsys):
    """Its sub-folders are the classes, and their number has to be said."""
    for i, name in enumerate(("round", "square", "flat")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for j in range(12):
            Image.new("RGB", (8, 8), (80 * i, 20 * j, 3)).save(tmp_path / "images" / name / f"{j}.png")
    flags = ("conditional", *TINY, "--steps", 2, "--eval-every", 0, "--run-dir", tmp_path / "run",
             "--dataset", "folder", "--folder", tmp_path / "images", "--image-size", 8)
    assert run_here(*flags) == 2
    assert f"{tmp_path}/images has 3: give --num-classes 3" in capsys.readouterr().err
    assert run_here(*flags, "--num-classes", 3) == 0
    assert tool(sample, tmp_path / "run", "--out", tmp_path / "samples.npy", "--grid-by-class",
                "--columns", 2) == 0
    assert np.load(tmp_path / "samples.npy").shape == (6, 8, 8, 3)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["value_range"] == [-1, 1]  # as the generator's tanh
