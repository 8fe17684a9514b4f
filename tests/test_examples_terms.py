"""The examples of docs/terms.md and docs/shown.md: they run, are short, and do what the text says."""

import dataclasses
import re
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import Batch, evaluation, init_state, sample
from jaxgan.data import load
from jaxgan.evaluation import Extractor, Protocol
from jaxgan.features import raw
from jaxgan.networks import term_state
from jaxgan.training import train

pytestmark = pytest.mark.usefixtures("quick_compilation")
TEXT = {name: (Path(__file__).parents[1] / "docs" / f"{name}.md").read_text()
        for name in ("terms", "shown")}
EXAMPLES = {title: (name, code) for name, text in TEXT.items() for title, code in re.findall(
    r"^## (.*?)\n.*?^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)}
PATHS, CONSISTENT, FLOW, ADA, PACKS, DEPTHS = EXAMPLES


@cache
def run(title):
    """What the example leaves behind."""
    name, code = EXAMPLES[title]
    found = {}
    with jax.numpy_rank_promotion("allow"):  # as it is outside of the tests
        exec(compile(code, f"docs/{name}.md: {title}", "exec"), found)
    return found


@pytest.fixture(autouse=True)
def any_rank():
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_are_short_and_use_what_is_public(title):
    _, code = EXAMPLES[title]
    assert len(code.splitlines()) <= 60
    assert not re.search(r"import.*\b_|\.\b_(?!replace)", code)


def test_the_smallest_term():
    code, = re.findall(r"^```python\n(.*?)^```", TEXT["terms"].split("\n## ")[0],
                       re.MULTILINE | re.DOTALL)
    found = {}
    exec(code, found)
    jax.eval_shape(partial(init_state, found["gan"]), jax.random.key(0), Batch(jnp.zeros((4, 2))))


@pytest.mark.slow
def test_path_lengths_become_alike():
    found = run(PATHS)
    before, after = found["found"]["without"], found["found"]["with"]
    assert after["std"] ** 2 < 0.35 * before["std"] ** 2
    assert after["std/mean"] < 0.75 * before["std/mean"]
    term, = found["gan"].generator_terms
    metrics = found["result"]["final"]
    assert {"generator/path", "generator/path_weight"} <= metrics.keys()
    assert term_state(found["state"].generator, term) == pytest.approx(
        metrics["generator/path_length"], rel=0.3)


@pytest.mark.slow
def test_a_critic_becomes_consistent():
    before, after = (run(CONSISTENT)["found"][name] for name in ("without", "with"))
    for name, most in (("D(x)", 0.6), ("D(G(z))", 0.9), ("D(G(z'))", 0.6)):
        assert after[name] < most * before[name]
    assert after["G(z')"] > 1.2 * before["G(z')"]


@pytest.mark.slow
def test_the_transport_cost_makes_the_map_rise():
    """F^-1(Phi(z)); without it samples are as good, and the map is another."""
    apart = run(FLOW)["apart"]
    assert apart["with"]["map"] < 0.15
    assert apart["without"]["map"] > 0.5
    assert all(found["distribution"] < 0.1 for found in apart.values())


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(64, 2), (256, 1)])
def test_the_mean_of_what_flows_back(batch_size, devices, tmp_path):
    """d E[(sigmoid(D(x) - D(G(z))) D'(G(z)))^2], d being 1, of networks that stay as they are."""
    found = run(FLOW)
    gan = dataclasses.replace(found["make"](), generator_optimizer=optax.set_to_zero(), ema_decay=None,
                              critic_optimizer=optax.set_to_zero())
    state, _ = train(gan, found["points"], tmp_path, steps=60, batch_size=batch_size, devices=devices)
    critic = partial(gan.critic.apply, state.critic.variables, train=False)
    real, fake = found["points"], sample(gan, state, jax.random.key(5), len(found["points"]))
    slope = (critic(fake + 1e-2) - critic(fake - 1e-2)) / 2e-2
    expected = np.square(jax.nn.sigmoid(critic(real) - critic(fake)) * slope).mean()
    mean, = jax.tree.leaves(state.generator.terms)
    assert mean == pytest.approx(expected, rel=0.15)


@pytest.mark.slow
def test_the_probability_follows_the_critic():
    found = run(ADA)["found"]
    few, many = found.values()
    assert few > 0.2
    assert many < 0.1


@pytest.mark.slow
def test_samples_fall_more_evenly_on_the_modes_with_packs():
    found = run(PACKS)["found"]
    assert len(found["alone"]) == 3
    assert np.mean(found["packs"]) < 0.6 * np.mean(found["alone"])


@pytest.mark.slow
def test_each_depth_is_shown_at_its_level():
    found = run(DEPTHS)
    gan, levels = found["gan"], np.array([0.885, 0.76, 0.51, 0.01])
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = gan.augment.draw(keys, jnp.int32(0), ())
    images = [np.full((2000, 8, 8, 1), value, np.float32) for value in (1.0, 2.0, -1.0, 3.0)]
    shown = np.moveaxis(np.asarray(gan.augment.show(drawn, np.stack(images, 1)))[..., 0], 1, -1)
    assert shown.shape == (2000, 8, 8, 4)
    np.testing.assert_allclose(shown.mean((0, 1, 2)), (1 - levels) * [1, 2, -1, 3], atol=0.015)
    np.testing.assert_allclose(shown.std((0, 1, 2)), levels, rtol=0.02)
    # Each level is a noisier version of the next: what it lacks there it adds.
    keeps = (1 - levels[:-1]) / (1 - levels[1:])
    covariances = np.cov(shown.reshape(-1, 4).T)
    np.testing.assert_allclose(np.diag(covariances, 1), keeps * levels[1:] ** 2, atol=0.01)
    state = found["state"]
    assert state.critic.params["Dense_0"]["kernel"].shape[0] == 8 * 8 * 4
    outputs = gan.generator.apply(state.ema, jax.random.normal(jax.random.key(1), (5, 16)), train=False)
    assert outputs.shape == (5, 4, 8, 8, 1)
    assert found["images"].shape == (64, 8, 8, 1)


class Stop(Exception):
    """In the middle of a run."""


def stop(moment):
    if moment.kind == "checkpoint" and moment.step == 6:
        raise Stop


@pytest.mark.slow
@pytest.mark.parametrize("title", [ADA, DEPTHS])
def test_interrupted_on_two_devices_sampled_and_evaluated(title, tmp_path):
    found = run(title)
    gan = dataclasses.replace(found["gan"], generator_optimizer=optax.sgd(0.002, momentum=0.5),
                              critic_optimizer=optax.sgd(0.002, momentum=0.5))
    go = partial(train, gan, load("digits").images, batch_size=32, steps=10, log_every=4,
                 checkpoint_every=6)
    state, result = go(tmp_path / "whole", devices=1)
    with pytest.raises(Stop):
        go(tmp_path / "cut", devices=1, callbacks=[stop])
    resumed, other = go(tmp_path / "cut", devices=1, resume="auto")
    assert other["params_sha256"] == result["params_sha256"]
    jax.tree.map(np.testing.assert_array_equal, resumed, state)
    on_two, _ = go(tmp_path / "two", devices=2)
    # A finite difference over 0.01 makes rounding a hundred times as large: 2e-6 in these parameters.
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *(
        [(network.params, network.terms) for network in (each.critic, each.generator)]
        for each in (on_two, state)))

    real = evaluation.of_dataset(load("digits"), "train")
    evaluator = evaluation.prepare(Protocol(num_real=200, num_fake=200), evaluation.chosen("swd,mmd"),
                                   Extractor(raw()), real)
    draw = evaluation.sampler(gan, jax.random.key(1), evaluation.presented((8, 8, 1), (-1.0, 1.0)),
                              devices=jax.local_devices()[:1])
    trained, untrained = (evaluator(draw(each)) for each in (found["state"], state))
    assert {"swd", "raw/mmd"} <= trained.keys()
    assert trained["swd"] < untrained["swd"]
    assert sample(gan, state, jax.random.key(2), 3).shape == (3, 8, 8, 1)
