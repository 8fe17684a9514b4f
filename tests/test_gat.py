"""GAT as an experiment: the article's networks by its presets, truncation, devices, what is refused."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import count_parameters

from experiments import flags, gat, image_sets, launch, open_run, styling
from jaxgan import sample, train_step
from jaxgan.parallel import data_parallel
from jaxgan.steps import init_state
from jaxgan.types import Batch
from tests.test_training import run_here

pytestmark = pytest.mark.usefixtures("quick_compilation")
TINY = {"width": 8, "depth": 2, "heads": 1, "outputs": 2, "class_width": 8, "latent_size": 3,
        "classes": 3, "batch_size": 4, "ema_decay": 0.0}


def make(**changes):
    config = gat.experiment.configure(**TINY | changes)
    return dataclasses.replace(gat.make_gan(config, (8, 8, 1)), generator_optimizer=optax.sgd(0.01),
                               critic_optimizer=optax.sgd(0.01))


def batches(*shape):
    draw = np.random.default_rng(0)
    return Batch(jnp.asarray(draw.normal(size=(*shape, 8, 8, 1)), jnp.float32),
                 jnp.asarray(draw.integers(3, size=shape)))


@pytest.mark.parametrize(("size", "generator", "critic"), [  # less 17 x width, which is never used
    ("s2", 29_263_040 - 17 * 384, 32_556_160), ("xl2", 601_956_224 - 17 * 1152, 459_252_544)])
def test_presets_have_the_articles_networks(size, generator, critic):
    config = launch.parse(gat.experiment, ["--preset", size])
    gan = gat.make_gan(config, (32, 32, 4))
    assert count_parameters(gan.generator, (64,)) == generator
    assert count_parameters(gan.critic, (4, 32, 32, 4)) == critic
    assert config.optimiser.learning_rate == pytest.approx(2e-4 * 768 / gan.generator.width)
    draws = gan.augment.draw(jax.random.split(jax.random.key(0), 1000), jnp.int32(0), ())[0]
    assert float(draws["colour_on"].mean()) == pytest.approx(0.5, abs=0.06)
    assert bool(draws["cutout_on"].all())


def test_the_critic_sees_every_output_changed_alike():
    """Where outputs are alike only the levels of noise differ; the last one's is a hundredth."""
    gan = make(augment="diffaugment", augment_p=1.0, augment_operations="translation")
    real = gan.lift(batches(4).samples)
    draws = gan.augment.draw(jax.random.split(jax.random.key(0), 4), jnp.int32(0), ())
    shown = gan.augment.show(draws, 100.0 * real)  # beside which the noise is small
    np.testing.assert_allclose(shown[:, 0] / 0.115, shown[:, 1] / 0.99, atol=40)
    assert np.abs(shown[:, 1] - 99.0 * real[:, 1]).max() > 100  # moved


def test_truncation_leaves_one_sample_of_each_class():
    gan = make()
    state = jax.jit(partial(init_state, gan))(jax.random.key(0), batches(4))
    averages = jax.random.normal(jax.random.key(1), (3, 8))
    state = state._replace(generator=state.generator._replace(
        stats={"batch_stats": {"w_average": averages}}))
    labels = jnp.array([0, 1, 0, 1])

    def drawn(psi):
        chosen = styling.settled(gan, dataclasses.replace(styling.Flags(), truncation=psi))
        return np.asarray(sample(chosen, state, jax.random.key(2), 4, labels))

    none, half, whole = map(drawn, (0.0, 0.5, 1.0))
    assert none.shape == (4, 8, 8, 1)  # the last output
    np.testing.assert_array_equal(none[:2], none[2:])
    assert np.abs(none[0] - none[1]).max() > 0
    np.testing.assert_array_equal(whole, sample(gan, state, jax.random.key(2), 4, labels))
    assert 0 < np.abs(half[0] - half[2]).max() < np.abs(whole[0] - whole[2]).max()
    with pytest.raises(ValueError, match="truncation-cutoff is for generators that have styles"):
        styling.settled(gan, dataclasses.replace(styling.Flags(), truncation_cutoff=1))


def test_large_gradients_are_scaled_down():
    config = gat.experiment.configure(max_gradient_norm=2.0, learning_rate=0.1)
    made, plain = flags.make_optimizer(config, "critic"), optax.adam(0.1, 0.0, 0.99)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    state, expected = made.init(params), plain.init(params)
    for size in (5.0, 0.1):  # the norm of (3, 0, 4) times a fifth of it; of which 2 are left, or all
        gradient = {"a": jnp.array([3.0, 0.0]) * size / 5, "b": jnp.array([4.0]) * size / 5}
        update, state = made.update(gradient, state, params)
        left = jax.tree.map(lambda x, size=size: x * min(1.0, 2.0 / size), gradient)
        wanted, expected = plain.update(left, expected, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), update, wanted)


@pytest.mark.parametrize(("found", "remedy"), [(10, "--classes 10"), (1, "--classes 0")])
def test_another_number_of_classes_is_told(found, remedy):
    data = SimpleNamespace(classes=3, folder="photos", dataset="folder")
    with pytest.raises(ValueError, match=f"classes is 3, but photos has {found}: give {remedy}$"):
        image_sets.check_classes(data, SimpleNamespace(num_classes=found), "classes")


@pytest.mark.slow
def test_two_devices_do_what_one_does():
    gan = make(agreement=1.0)
    state = jax.jit(partial(init_state, gan))(jax.random.key(0), batches(4))
    alone, _ = jax.jit(partial(train_step, gan))(state, batches(1, 4), jax.random.key(1))
    mapped = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)
    both, _ = mapped(state, batches(1, 4), jax.random.key(1))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-6), both, alone)


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    flags = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", value)]
    flags = [*flags, "--classes", 10, "--eval-every", 0, "--devices", 1, "--checkpoint-every", 1]
    assert run_here("gat", *flags, "--steps", 2, "--run-dir", tmp_path / "whole") == 0
    assert run_here("gat", *flags, "--steps", 1, "--run-dir", tmp_path / "parts") == 0
    assert run_here("gat", *flags, "--steps", 2, "--run-dir", tmp_path / "parts",
                    "--resume", "latest") == 0
    whole, parts = (open_run(tmp_path / name).state for name in ("whole", "parts"))
    jax.tree.map(np.testing.assert_array_equal, whole.generator, parts.generator)


@pytest.mark.parametrize(("flags", "message"), [
    (("--patch", "3"), "patches must divide height and width; got 3 for 8x8"),
    (("--heads", "3"), "width must be a multiple of 4 times the heads, since the positions"),
    (("--outputs", "3"), "depth must be a multiple of the outputs; got 4 and 3"),
    (("--depth", "0"), "depth must be from 1 to 256; got 0"),
    (("--heads", "0"), "heads must be from 1 to 1024; got 0"),
    (("--outputs", "-4"), "outputs must be from 1 to 256; got -4"),
    (("--pack", "2"), "pack doesn't go with several outputs; got 2: leave it out"),
    (("--alignment", "-1"), "alignment must not be negative; got -1"),
    (("--agreement", "-1"), "agreement must not be negative; got -1"),
    (("--max-gradient-norm", "-1"), "max_gradient_norm must not be negative; got -1"),
    (("--classes", "3"), "classes is 3, but digits has 10: give --classes 10"),
    (("--preset", "s2"), "classes is 1000, but digits has 10"),
])
def test_what_cannot_be_is_refused(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_here("gat", *flags) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())
