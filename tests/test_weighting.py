"""Weightings against values worked by hand, alone and inside the steps."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import keys, tasks, weighting
from jaxgan.gan import terms_of, uniform_labels
from jaxgan.networks import base_weights
from jaxgan.parallel import data_parallel
from jaxgan.steps import critic_step, generator_step, init_state, train_step
from jaxgan.tasks import Task
from jaxgan.terms import Term
from jaxgan.types import Batch
from jaxgan.weighting import ADVERSARIAL
from tests.test_tasks import BATCH, GAN, KEY, LABELS, begin
from tests.tiny import all_finite, assert_close, same, tiny

SCHEMES = {"fixed": weighting.fixed(), "uncertainty": weighting.uncertainty(),
           "gradnorm": weighting.gradnorm(), "ratio": weighting.ratio()}
BASE = {ADVERSARIAL: 1.0, "a": 0.5, "b": 2.0}


def mixed(**changes):
    """A GAN of three terms for the generator and two for the critic."""
    return tiny(**{**GAN.__dict__, "tasks": (
        tasks.classification(critic_weight=0.5, generator_weight=0.25),
        tasks.reconstruction(order=2, weight=0.75)), **changes})


def run(scheme, rounds, values, norms, base=BASE):
    """The weights after so many updates with the same values and norms."""
    state = scheme.init(base)
    step = jax.jit(scheme.update)
    for _ in range(rounds):
        state = step(state, values, norms)
    return {name: float(weight) for name, weight in scheme.weights(state, base).items()}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_begins_with_the_base_weights(name):
    assert run(SCHEMES[name], 0, None, None) == pytest.approx(BASE, rel=1e-6)


def test_uncertainty_by_hand():
    values = {ADVERSARIAL: -7.0, "a": 4.0, "b": 0.1}
    # s moves by rate (exp(-s) L - 1/2), that is by 0.1 (2 - 0.5) and 0.1 (0.2 - 0.5).
    expected = {ADVERSARIAL: 1.0, "a": 0.5 * math.exp(-0.15), "b": 2 * math.exp(0.03)}
    assert run(weighting.uncertainty(0.1), 1, values, {}) == pytest.approx(expected, rel=1e-5)
    at_rest = {ADVERSARIAL: 1.0, "a": 1 / 8, "b": 5.0}
    assert run(weighting.uncertainty(0.1), 500, values, {}) == pytest.approx(at_rest, rel=1e-4)


def test_gradnorm_by_hand():
    values = {ADVERSARIAL: 1.0, "a": 1.0, "b": 1.0}
    base = dict.fromkeys(values, 1.0)
    # The mean norm is 3: Adam's first step is the rate, whatever the slope; then the sum is 3 again.
    found = run(weighting.gradnorm(learning_rate=0.1), 1, values,
                {ADVERSARIAL: 1.0, "a": 2.0, "b": 6.0}, base)
    moved = {ADVERSARIAL: 1.1, "a": 1.1, "b": 0.9}
    assert found == pytest.approx({name: w * 3 / 3.1 for name, w in moved.items()}, rel=1e-4)


def test_gradnorm_evens_out_the_gradients():
    values, norms = dict.fromkeys(BASE, 1.0), {ADVERSARIAL: 1.0, "a": 2.0, "b": 4.0}
    found = run(weighting.gradnorm(learning_rate=0.003), 3000, values, norms)
    gradients = {name: found[name] * norms[name] for name in norms}
    assert sum(found.values()) == pytest.approx(3.5, rel=1e-4)
    assert gradients == pytest.approx(dict.fromkeys(BASE, 3.5 / (1 + 1 / 2 + 1 / 4)), rel=0.02)


def test_gradnorm_favours_what_has_fallen_less():
    """`a` has halved and `b` is as at first: their gradients go as r^alpha, r being 2/3 and 4/3."""
    scheme, norms = weighting.gradnorm(alpha=1.0, learning_rate=0.003), dict.fromkeys(BASE, 1.0)
    state, step = scheme.init(BASE), jax.jit(scheme.update)
    for index in range(3000):
        state = step(state, {ADVERSARIAL: -1.0, "a": 1.0 if index else 2.0, "b": 3.0}, norms)
    found = {name: float(weight) for name, weight in scheme.weights(state, BASE).items()}
    assert found["a"] / found[ADVERSARIAL] == pytest.approx(2 / 3, rel=0.03)
    assert found["b"] / found[ADVERSARIAL] == pytest.approx(4 / 3, rel=0.03)


def test_ratio_by_hand():
    norms = {ADVERSARIAL: 6.0, "a": 2.0, "b": 0.0}
    found = run(weighting.ratio(0.9), 1, {}, norms)
    assert found == pytest.approx({ADVERSARIAL: 1.0, "a": 0.5 * 3, "b": 2e4}, rel=1e-5)
    state = weighting.ratio(0.5).init(BASE)
    for whole in (4.0, 8.0):  # averages: 4 a = 0.25 * 4 + 0.5 * 8 = 5, with norms of 1: 0.75
        state = weighting.ratio(0.5).update(state, {}, {ADVERSARIAL: whole, "a": 1.0, "b": 1.0})
    assert float(weighting.ratio(0.5).weights(state, BASE)["b"]) == pytest.approx(2 * 5 / 0.75)


def test_only_shared_parameters_count():
    gradients = {"shared": jnp.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
                 "own": jnp.array([[0.0], [9.0], [0.0]])}
    np.testing.assert_allclose(weighting.shared_norms(gradients), [3.0, 1.0, 0.0])


@pytest.mark.parametrize("first", [0.0, -1e-7, 1e-38])
def test_gradnorm_of_a_loss_that_begins_at_nothing(first):
    """Such a loss is rounded, below 0 too, and may still rise."""
    scheme = weighting.gradnorm()
    state = scheme.init(BASE)
    for value in (first, -1e-7, 1.0, 1e3):
        state = scheme.update(state, dict.fromkeys(BASE, 1.0) | {"a": jnp.float32(value)},
                              dict.fromkeys(BASE, jnp.float32(1.0)))
    weights = scheme.weights(state, BASE)
    assert all_finite(weights)
    assert sum(weights.values()) == pytest.approx(3.5)


@pytest.mark.parametrize("name", ["gradnorm", "ratio"])
def test_terms_are_mixed_by_the_weights_and_measured_one_by_one(name):
    """Against the gradients of each term by itself: those of the steps with all other weights at 0."""
    gan = mixed(weighting=SCHEMES[name])
    state = begin(gan)
    # A state in which the weights are no longer the base weights.
    for _ in range(2):
        state, _ = generator_step(gan, state, BATCH, jax.random.fold_in(KEY, 1))
    weights = {term: float(w) for term, w in gan.weighting.weights(
        state.generator.weighting, base_weights(terms_of(gan, "generator"))).items()}
    after, metrics = jax.jit(functools.partial(generator_step, gan))(state, BATCH, KEY)

    def alone(term):
        """How far one SGD step of rate 1 on this term alone moves the parameters."""
        single = mixed(adversarial_weight=float(term == ADVERSARIAL), tasks=(
            tasks.classification(generator_weight=float(term == "class")),
            tasks.reconstruction(order=2, weight=float(term == "reconstruction"))))
        plain = state._replace(generator=state.generator._replace(weighting=()))
        moved, found = generator_step(single, plain, BATCH, KEY)
        assert_close(found["generator/loss"], metrics[f"generator/{term}"])
        return jax.tree.map(jnp.subtract, plain.generator.params, moved.generator.params)

    each = {term: alone(term) for term in (ADVERSARIAL, "class", "reconstruction")}
    expected = jax.tree.map(lambda *parts: sum(w * part for w, part in zip(
        weights.values(), parts, strict=True)), *(each[term] for term in weights))
    assert_close(jax.tree.map(jnp.subtract, state.generator.params, after.generator.params), expected,
                 atol=1e-5)
    for term, weight in weights.items():
        assert float(metrics[f"generator/{term}_weight"]) == pytest.approx(weight, rel=1e-6)
    assert float(metrics["generator/loss"]) == pytest.approx(
        sum(weights[term] * float(metrics[f"generator/{term}"]) for term in weights), rel=1e-5)
    norms = {term: optax.tree.norm(gradient) for term, gradient in each.items()}
    values = {term: metrics[f"generator/{term}"] for term in each}
    assert_close(after.generator.weighting,
                 gan.weighting.update(state.generator.weighting, values, norms), rtol=1e-4)


def test_a_network_of_one_term_has_no_state_of_weights():
    gan = tiny(weighting=weighting.gradnorm(), tasks=(tasks.reconstruction(),))
    state = begin(gan)
    assert jax.tree.leaves(state.critic.weighting) == []
    assert jax.tree.leaves(state.generator.weighting)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_devices_agree_on_the_weights(name):
    gan = mixed(weighting=SCHEMES[name])
    batches = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), BATCH)
    step = jax.jit(functools.partial(train_step, gan))
    mapped = data_parallel(functools.partial(train_step, gan), devices=jax.devices()[:4], batch_axis=1)
    one = four = begin(gan)
    for index in range(3):
        one, metrics = step(one, batches, jax.random.fold_in(KEY, index))
        four, metrics_of_four = mapped(four, batches, jax.random.fold_in(KEY, index))
    assert_close(one, four, rtol=1e-3, atol=1e-4)
    assert_close(metrics, metrics_of_four, rtol=1e-3, atol=1e-3)
    assert {"critic/adversarial", "critic/class_weight", "generator/class_weight",
            "generator/reconstruction_weight", "generator/adversarial_weight"} <= metrics.keys()
    assert all_finite(one)


def test_without_the_adversarial_term_only_the_tasks_are_learned():
    gan = mixed(adversarial_weight=0.0)
    state = begin(gan)
    after, metrics = critic_step(gan, state, BATCH, KEY)
    assert same(after.critic.params["score"], state.critic.params["score"])
    assert not same(after.critic.params["head"], state.critic.params["head"])
    assert float(metrics["critic/adversarial_weight"]) == 0.0
    assert float(metrics["critic/loss"]) == pytest.approx(0.5 * float(metrics["critic/class"]))
    half, _ = critic_step(mixed(adversarial_weight=0.5), state, BATCH, KEY)
    whole, _ = critic_step(mixed(), state, BATCH, KEY)
    moved = [jax.tree.map(jnp.subtract, state.critic.params["score"], found.critic.params["score"])
             for found in (half, whole)]
    assert_close(jax.tree.map(lambda x: 2 * x, moved[0]), moved[1], atol=1e-6)


def test_a_condition_of_the_generators_own():
    gan = mixed(generator_condition=lambda keys, condition: (condition + 1) % 3)
    state = begin(gan)
    assert same(critic_step(gan, state, BATCH, KEY), critic_step(mixed(), state, BATCH, KEY))
    # Only the reals keep the batch's condition, of which the generator's terms see the samples.
    found, metrics = generator_step(gan, state, BATCH, KEY)
    expected, theirs = generator_step(mixed(), state, BATCH._replace(condition=(LABELS + 1) % 3), KEY)
    assert same(found, expected)
    assert_close(metrics, theirs)


def test_the_critic_judges_fakes_for_what_they_were_drawn_for():
    """A critic that sees the condition, as all do that aren't AC-GANs."""
    batch = Batch(BATCH.samples, jnp.linspace(-1.0, 1.0, 8))
    gan = tiny(generator_condition=lambda keys, condition: 2 - condition)
    state = init_state(gan, KEY, batch)
    expected, _ = generator_step(tiny(), state, batch._replace(condition=2 - batch.condition), KEY)
    found, _ = generator_step(gan, state, batch, KEY)
    assert same(found, expected)
    assert not same(found, generator_step(tiny(), state, batch, KEY)[0])


def test_uniform_labels():
    draw = uniform_labels(3)
    labels = np.asarray(draw(keys.example_keys(KEY, 3000), None))
    assert labels.dtype == np.int32
    assert np.abs(np.bincount(labels, minlength=3) - 1000).max() < 4 * math.sqrt(3000 * 2 / 9)
    gan = mixed(generator_condition=draw)
    one, _ = generator_step(gan, begin(gan), BATCH, KEY)
    step = data_parallel(functools.partial(generator_step, gan), devices=jax.devices()[:4], batch_axis=0)
    four, _ = step(begin(gan), BATCH, KEY)
    assert_close(one, four, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="num_classes must be at least 1; got 0"):
        uniform_labels(0)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: weighting.uncertainty(0.0), "learning_rate must be above 0; got 0.0"),
    (lambda: weighting.uncertainty(float("nan")), "learning_rate must be above 0; got nan"),
    (lambda: weighting.gradnorm(-1.0), "alpha must be a number from 0 on; got -1.0"),
    (lambda: weighting.gradnorm(learning_rate=-1.0), "learning_rate must be above 0; got -1.0"),
    (lambda: weighting.ratio(1.0), r"decay must be in \[0, 1\); got 1.0"),
    (lambda: mixed(adversarial_weight=-1.0), "adversarial_weight must be a number from 0 on; got -1.0"),
    (lambda: mixed(adversarial_weight=float("nan")), "adversarial_weight must be a number"),
    (lambda: init_state(mixed(adversarial_weight=0.0, weighting=weighting.ratio()), KEY, BATCH),
     "give it a weight above 0"),
    (lambda: mixed(tasks=(Task(Term(ADVERSARIAL, lambda view, state: 0.0)),)),
     "terms of the critic must have different names; 'adversarial' is there 2 times"),
])
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
