"""The mixture that `experiments.multitask` trains: its tasks, its data, what its canvases are to be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import multitask
from jaxgan.data import draw_step
from jaxgan.gan import terms_of
from jaxgan.networks import base_weights
from jaxgan.steps import init_state
from jaxgan.training import example_batch
from tests.tiny import seen, value

CONFIG = multitask.experiment.configure(width=4)


@pytest.fixture(scope="module")
def batch():
    source = multitask.make_source(CONFIG)
    return jax.jit(lambda arrays: draw_step(source, arrays, jax.random.key(1), 0, 20, jnp.arange(20)))(
        source.arrays)


def test_the_condition_has_what_every_task_needs(batch):
    condition = batch.condition
    assert {name: value.shape for name, value in condition.items()} == {
        "label": (20,), "box": (20, 4), "weight": (20,), "image": (20, 16, 16, 1),
        "mask": (20, 16, 16, 1)}
    np.testing.assert_array_equal(condition["image"], batch.samples * (1 - condition["mask"]))
    found = multitask.targets(batch)
    np.testing.assert_allclose(found["image"], 255 * batch.samples, atol=0.5)
    assert {"label", "box", "mask"} < found.keys()


def test_terms_by_hand(batch):
    """Sure and right predictions and a perfect completion cost nothing; a wrong box 3/2 - 1/7 or so."""
    condition = batch.condition
    heads = {"class": 1e3 * jax.nn.one_hot(condition["label"], 10), "box": condition["box"]}
    right = seen(batch.samples, condition, **heads)
    classification, localisation, completion = multitask.make_tasks(CONFIG.tasks)
    for term in (classification.critic, classification.generator, localisation.critic,
                 localisation.generator, completion.generator):
        np.testing.assert_allclose(value(term, right, right), 0.0, atol=1e-6)
    missed = right._replace(heads={**heads, "class": 0 * heads["class"]},
                            samples=batch.samples + 0.5 * condition["mask"])
    assert float(value(classification.generator, right, missed)) == pytest.approx(np.log(10), rel=1e-5)
    assert float(value(completion.generator, right, missed)) == pytest.approx(0.5, rel=1e-5)
    # Half of each box: the IoU is 1/2, as is the generalised one, and a corner's error half the height.
    top, left, bottom, right_side = condition["box"].T
    half = jnp.stack([top, left, (top + bottom) / 2, right_side], axis=1)
    expected = np.square((bottom - top) / 2).mean() / 2 / 4 + 0.5
    found = value(localisation.critic, right._replace(heads={"box": half}), None)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize(("names", "critic", "generator"), [
    ("classification", {"class": 4.0}, {"class": 0.1}),
    ("inpainting, localisation", {"box": 4.0}, {"box": 0.1, "reconstruction": 10.0})])
def test_tasks_are_chosen_by_name(names, critic, generator):
    gan = multitask.make_gan(multitask.experiment.configure(width=4, tasks=names), (16, 16, 1))
    assert base_weights(terms_of(gan, "critic")) == {"adversarial": 1.0} | critic
    assert base_weights(terms_of(gan, "generator")) == {"adversarial": 1.0} | generator
    state = jax.eval_shape(partial(init_state, gan), jax.random.key(0),
                           example_batch(multitask.make_source(CONFIG), 4))
    assert {"class", "box"} < state.critic.params.keys()  # the same network, whatever it learns


@pytest.mark.parametrize(("names", "message"), [
    ("detection", "unknown task 'detection': choose from classification"),
    ("inpaintin", "unknown task 'inpaintin': did you mean inpainting"),
    (" ", "unknown task ' ': choose from")])
def test_unknown_tasks_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        multitask.make_tasks(multitask.experiment.configure(tasks=names).tasks)
