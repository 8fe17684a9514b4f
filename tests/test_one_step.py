"""Adversarial flow and drifting as experiments: what their settings make, runs, and what is refused."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import adversarial_flow, drifting, gaussians, launch, measuring, open_run, settings
from jaxgan import GAN, Game, keys
from jaxgan.models import FlowCritic
from jaxgan.parallel import data_parallel
from jaxgan.steps import init_state, train_step
from jaxgan.types import Batch
from tests.test_training import run_here
from tests.tiny import assert_close, points

pytestmark = pytest.mark.usefixtures("quick_compilation", "own_cache")
LITTLE = ("--steps", "2", "--batch-size", "8", "--devices", "1", "--eval-every", "0", "--sample-every",
          "0", "--log-every", "1")
SMALL = {"adversarial_flow": ("--width", "8", "--depth", "1", "--heads", "1"),
         "drifting": ("--width", "8", "--space", "pixels"),
         "gaussians": ("--preset", "drifting", "--width", "8")}


def weight(gan, network, name, step=0):
    """That of a term in an iteration; None if there is no such term."""
    terms = {term.name: term for term in getattr(gan, f"{network}_terms")}
    found = terms[name].weight if name in terms else None
    return float(found(step)) if callable(found) else found


def test_the_published_settings_of_adversarial_flow():
    config = launch.parse(adversarial_flow.experiment, ["--preset", "xl2"])
    gan = adversarial_flow.make_gan(config, (32, 32, 4))
    critic = gan.critic
    assert isinstance(critic, FlowCritic)
    assert (critic.depth, critic.width, critic.heads, critic.patch, critic.num_classes) == (
        28, 1152, 16, 2, 1000)
    weights = [weight(gan, "generator", "transport", step) for step in (0, 500_000, 1_000_000)]
    assert weights == pytest.approx([0.2, 0.1025, 0.005], rel=1e-4)
    assert weight(gan, "critic", "centring") == pytest.approx(0.01)
    assert weight(gan, "generator", "normalised") == 1
    assert gan.penalty.weight == 1
    assert gan.prior(jax.random.split(jax.random.key(0), 3)).shape == (3, 32, 32, 4)
    # AdamW: a step of no gradient takes off the weight's share alone.
    updates, _ = gan.generator_optimizer.update(
        jnp.zeros(()), gan.generator_optimizer.init(jnp.float32(3)), jnp.float32(3))
    assert float(updates) == pytest.approx(-1e-4 * 0.01 * 3)


def test_gaussians_take_the_terms_and_drift_by_presets():
    default, flow, drift = (gaussians.make_game(gaussians.experiment.configure(name), (2,))
                            for name in ("default", "flow", "drifting"))
    assert default.generator_terms == default.critic_terms == ()
    assert weight(flow, "generator", "transport", 20_000) == pytest.approx(0.005)
    assert isinstance(flow, GAN)
    assert isinstance(drift, Game)
    one = gaussians.make_game(gaussians.experiment.configure(transport_weight=0.5), (2,))
    assert (weight(one, "generator", "transport"), weight(one, "critic", "centring")) == (0.5, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transport_weight", "centring_weight", "weight_decay"])
def test_weights_may_be_numbers_of_a_program(name):
    """As those of several runs that are trained together."""
    config = gaussians.experiment.configure("flow", final_transport_weight=None)

    @jax.jit
    def metrics(number, key):
        gan = gaussians.make_game(settings.replace(config, **{name: number}), (2,))
        state = init_state(gan, key, points(4))
        return train_step(gan, state, points(1, 4), key)[1]

    found = [metrics(number, jax.random.key(0)) for number in (0.25, 0.5)]
    weight = f"{'critic' if name == 'centring_weight' else 'generator'}/{name}"
    if name != "weight_decay":
        assert [float(each[weight]) for each in found] == [0.25, 0.5]


@pytest.mark.slow
def test_adversarial_flow_on_two_devices_is_as_on_one():
    made = adversarial_flow.make_gan(adversarial_flow.experiment.configure(
        width=8, depth=1, heads=1, classes=10), (8, 8, 1))
    gan = dataclasses.replace(made, generator_optimizer=optax.sgd(0.01),
                              critic_optimizer=optax.sgd(0.01))
    images = jax.random.normal(jax.random.key(1), (1, 4, 8, 8, 1))
    batches = Batch(images, jnp.arange(4)[None])
    state = init_state(gan, jax.random.key(0), jax.tree.map(lambda x: x[0], batches))
    alone, both = state, state
    mapped = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)
    for i in range(2):
        alone, _ = jax.jit(partial(train_step, gan))(alone, batches, jax.random.key(i))
        both, _ = mapped(both, batches, jax.random.key(i))
    assert_close(both, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [
    pytest.param("adversarial_flow", marks=pytest.mark.slow), "drifting", "gaussians"])
def test_a_run_goes_on_and_is_opened(name, tmp_path):
    words = (*SMALL[name], *LITTLE)
    assert run_here(name, *words, "--run-dir", tmp_path / "whole") == 0
    assert run_here(name, *words, "--run-dir", tmp_path / "cut", "--steps", "1") == 0
    assert run_here(name, *words, "--run-dir", tmp_path / "cut", "--resume", "latest") == 0
    whole, cut = (open_run(tmp_path / which) for which in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, whole.state, cut.state)
    assert int(whole.state.step) == 2
    samples = launch.game_of(whole.game).sample(whole.state, keys.stream(jax.random.key(0), "x"), 3)
    assert samples.shape == ((3, 2) if name == "gaussians" else (3, 8, 8, 1))


def test_a_classifier_is_only_there_for_training(monkeypatch, tmp_path):
    """It is trained, or opened, where a step is compiled, and not to draw samples."""
    asked = []

    def make_network(*arguments):
        asked.append(arguments[0])
        return network

    network = measuring.features.random_projection((8, 8, 1), 16)
    network = measuring.features.FeatureNetwork("classifier", "", network.apply, network.variables,
                                                see=network.apply)
    monkeypatch.setattr(drifting.measuring, "make_network", make_network)
    assert run_here("drifting", "--width", "8", *LITTLE, "--run-dir", tmp_path / "run") == 0
    assert asked == ["classifier"]
    run = open_run(tmp_path / "run")
    run.game.sample(run.state, jax.random.key(0), 2)
    assert asked == ["classifier"]
    _, metrics = run.game.step(run.state, Batch(jnp.ones((1, 8, 8, 8, 1))), jax.random.key(0))
    assert np.isfinite(metrics["generator/drift"])
    assert asked == ["classifier"] * 2


@pytest.mark.parametrize(("name", "flags", "message"), [
    ("adversarial_flow", ("--transport-weight", "-1"), "transport_weight must not be negative; got -1"),
    ("adversarial_flow", ("--transport-weight", "inf"), "transport_weight must be at most 1e+30; got"),
    ("adversarial_flow", ("--decay-steps", "0", "--decay", "linear", "--final-learning-rate", "0",
                          "--final-penalty-weight", "None"),
     "decay_steps is 0, so that the transport's weight doesn't change: give --decay-steps, or"),
    ("adversarial_flow", ("--loss", "hinge", "--top-k", "0.5"), "leave top_k out"),
    ("drifting", ("--loss", "hinge"), "loss is not for drifting, which has no critic; got hinge: leave"),
    ("drifting", ("--critic-beta1", "0.1"), "critic_beta1 is not for drifting"),
    ("drifting", ("--accumulate", "2"), "accumulate is not for drifting"),
    ("drifting", ("--temperatures", "0.1,x"), "temperatures must be numbers with commas between"),
    ("drifting", ("--temperatures", "0"), "temperatures must be positive; got (0.0,)"),
    ("drifting", ("--temperatures", "0.1,nan"), "temperatures must be positive; got (0.1, nan)"),
    ("gaussians", ("--drifting",), "is not for drifting, which has no critic"),
    ("gaussians", ("--preset", "drifting", "--normalise"), "normalise are not for drifting"),
    ("gaussians", ("--temperatures", "0.1"), "temperatures is for --drifting; got 0.1 without it"),
    ("digits", ("--optimizer", "rmsprop", "--weight-decay", "0.1"), "weight_decay is for adam"),
    ("digits", ("--weight-decay", "-0.1"), "weight_decay must not be negative; got -0.1"),
])
def test_what_cannot_be_is_refused(name, flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_here(name, *flags) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("final", [None, 0.95])
def test_weight_decay_is_adamws(final):
    """Beside Adam's step, the learning rate: that times the parameter times the decay."""
    config = settings.replace(launch.flags.Config(), learning_rate=0.1, weight_decay=0.2,
                              final_beta2=final, decay_steps=10 if final else 0,
                              final_learning_rate=0.1 if final else 0.0)
    made = launch.flags.make_optimizer(config, "critic")
    update, _ = made.update(np.float32(1), made.init(np.float32(5)), np.float32(5))
    assert float(update) == pytest.approx(-0.1 - 0.1 * 0.2 * 5)


@pytest.mark.slow
def test_points_drift_onto_their_modes(tmp_path):
    assert run_here("gaussians", "--preset", "drifting", "--dataset", "8gaussians", "--steps", "1500",
                    "--decay-steps", "1500", "--eval-every", "1500", "--sample-every", "0", "--devices",
                    "1", "--run-dir", tmp_path) == 0
    found = json.loads((tmp_path / "evaluation.json").read_text())["evaluations"][-1]["metrics"]
    assert found["modes"]["value"] == 8
    assert found["high_quality"]["value"] > 0.3
    assert found["modes_kl"]["value"] < 0.1
