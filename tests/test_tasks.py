"""Tasks against values worked by hand, alone and inside the steps."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import keys, losses, penalties, tasks
from jaxgan.gan import draw_latents, sample
from jaxgan.parallel import data_parallel
from jaxgan.steps import critic_step, generator_step, init_state, train_step
from jaxgan.tasks import Task
from jaxgan.terms import Term
from jaxgan.types import Batch
from tests.tiny import assert_close, same, seen, tiny, value


def number(term, real, fake):
    return float(value(term, real, fake))


def test_classification_by_hand():
    task = tasks.classification()
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    labels = jnp.array([0, 1])
    expected = (math.log(2) + math.log(10)) / 2
    nothing = seen(condition=labels, **{"class": jnp.full((2, 3), jnp.nan)})
    found = seen(condition=labels, **{"class": logits})
    assert number(task.critic, found, nothing) == pytest.approx(expected, rel=1e-6)  # reals only
    assert number(task.generator, nothing, found) == pytest.approx(expected, rel=1e-6)  # fakes only
    assert (task.critic.weight, task.generator.weight) == (1.0, 0.1)
    inside = tasks.classification(head="kind", label=lambda condition: condition["label"])
    found = value(inside.critic, seen(condition={"label": labels}, kind=logits), None)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_at_the_edges():
    assert float(tasks.cross_entropy(jnp.array([[200.0, -200.0]]), jnp.array([0]))) == 0.0
    assert float(tasks.cross_entropy(jnp.array([[200.0, -200.0]]), jnp.array([1]))) == 400.0
    for label in (3, -1):
        assert np.isnan(jax.jit(tasks.cross_entropy)(jnp.zeros((1, 3)), jnp.array([label])))
        with pytest.raises(ValueError, match=rf"labels must be in \[0, 3\); got {label} to {label}"):
            tasks.cross_entropy(jnp.zeros((1, 3)), jnp.array([label]))
    with pytest.raises(ValueError, match=r"logits must be \[batch, classes\]"):
        tasks.cross_entropy(jnp.zeros((2, 3)), jnp.array([1]))
    with pytest.raises(TypeError, match="labels must be integers; got float32"):
        tasks.cross_entropy(jnp.zeros((1, 3)), jnp.array([1.0]))


def test_what_the_critic_learns_from_by_hand():
    """Reals of weight 0 count for nothing, whatever their label; fakes may count beside the reals."""
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]))
    fake = seen(condition={"label": jnp.array([2, 2])}, **{"class": logits})
    some = {"head": "class", "label": lambda condition: condition["label"],
            "sample_weight": lambda condition: condition["weight"]}
    for unknown in (1, -1):
        real = seen(condition={"label": jnp.array([0, unknown]), "weight": jnp.array([2.0, 0.0])},
                    **{"class": logits})
        term = tasks.classification(**some).critic
        assert number(term, real, None) == pytest.approx(math.log(2), rel=1e-6)
        gradient = jax.jit(jax.grad(lambda x, real=real, term=term: value(
            term, real._replace(heads={"class": x}), None)))(logits)
        np.testing.assert_allclose(gradient, [[-0.5, 0.25, 0.25], [0, 0, 0]], atol=1e-6)
        both = value(tasks.classification(**some, fake_weight=0.5).critic, real, fake)
        assert float(both) == pytest.approx(math.log(2) + 0.5 * (math.log(4) - math.log(0.8)) / 2,
                                            rel=1e-6)
    boxes = jnp.array([[0.0, 0.0, 2.0, 2.0]] * 2)
    wanted = jnp.array([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 2.0, 2.0]])  # 1.5 - 1/7 + 2/9, and 0
    localisation = tasks.localisation(box=lambda condition: condition["box"], fake_weight=1.0,
                                      sample_weight=lambda condition: condition["weight"])
    real = seen(condition={"box": wanted, "weight": jnp.array([3.0, 1.0])}, box=boxes)
    fake = seen(condition={"box": wanted}, box=boxes)
    apart = 1.5 - 1 / 7 + 2 / 9
    assert number(localisation.critic, real, fake) == pytest.approx(1.5 * apart + 0.5 * apart, rel=1e-6)
    assert number(localisation.generator, real, fake) == pytest.approx(0.5 * apart, rel=1e-6)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(2,\); got \(2, 1\)"):
        tasks.cross_entropy(logits, jnp.array([0, 1]), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match="the weight of class must be a number from 0 on; got -1"):
        tasks.classification(fake_weight=-1.0)


# Boxes by their corners (top, left, bottom, right), their IoU and GIoU, worked by hand.
@pytest.mark.parametrize(("a", "b", "iou", "giou"), [
    ((0, 0, 2, 2), (0, 0, 2, 2), 1, 1),
    ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),  # hull 9, union 7
    ((0, 0, 1, 1), (0, 2, 1, 3), 0, -1 / 3),  # apart: hull 3, union 2
    ((0, 0, 1, 4), (0, 0, 1, 1), 1 / 4, 1 / 4),  # inside
    ((0, 0, 0, 0), (0, 0, 1, 1), 0, 0),  # empty
    ((1, 1, 0, 0), (0, 0, 1, 1), 0, 0),  # turned over: empty as well
])
def test_boxes_by_hand(a, b, iou, giou):
    a, b = (jnp.array([box], jnp.float32) for box in (a, b))
    assert float(tasks.iou(a, b)[0]) == pytest.approx(iou, abs=1e-6)
    assert float(tasks.generalised_iou(a, b)[0]) == pytest.approx(giou, abs=1e-6)
    assert float(tasks.generalised_iou(b, a)[0]) == pytest.approx(giou, abs=1e-6)
    gradient = jax.grad(lambda box: tasks.generalised_iou(box, b).sum())(a)
    assert np.isfinite(gradient).all()


def test_localisation_by_hand():
    task = tasks.localisation()
    predicted, wanted = jnp.array([[0.0, 0.0, 2.0, 2.0]]), jnp.array([[1.0, 1.0, 3.0, 3.0]])
    # Errors of 1 are where the smooth L1 passes from e^2 / 2 to e - 1/2: 1/2 either way.
    expected = 0.5 + 1 - (1 / 7 - 2 / 9)
    assert number(task.critic, seen(condition=wanted, box=predicted), None) == pytest.approx(expected)
    assert float(tasks.smooth_l1(jnp.array([0.5, 3.0]), jnp.zeros(2))) == pytest.approx(2.625 / 2)
    assert float(tasks.smooth_l1(jnp.array([0.5]), jnp.zeros(1), beta=0.1)) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="give them the same"):
        value(task.critic, seen(condition=wanted[0], box=predicted), None)


def test_reconstruction_by_hand():
    real = jnp.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    fake = jnp.array([[[1.0], [0.0]], [[0.0], [4.0]]])
    assert number(tasks.reconstruction().generator, seen(real), seen(fake)) == pytest.approx(5 / 4)
    squares = value(tasks.reconstruction(order=2).generator, seen(real), seen(fake))
    assert float(squares) == pytest.approx(13 / 4)
    mask = jnp.array([[[0.0], [1.0]], [[1.0], [1.0]]])
    masked = tasks.reconstruction(mask=lambda condition: condition["mask"])
    found = value(masked.generator, seen(real, {"mask": mask}), seen(fake, {"mask": mask}))
    assert float(found) == pytest.approx(5 / 3)
    nothing = value(masked.generator, seen(real, {"mask": 0 * mask}), seen(fake))
    assert float(nothing) == 0.0
    assert masked.critic is None
    with pytest.raises(ValueError, match="order must be 1 or 2; got 3"):
        tasks.reconstruction(order=3)


def test_feature_matching_by_hand():
    task = tasks.feature_matching()
    real, fake = seen(features=[[1.0, 2.0], [3.0, 4.0]]), seen(features=[[2.0, 0.0], [4.0, 0.0]])
    assert number(task.generator, real, fake) == pytest.approx((2 - 3) ** 2 + (3 - 0) ** 2)


def test_mutual_information_by_hand():
    task = tasks.mutual_information()
    discrete = seen(condition=jnp.array([1]), code=jnp.log(jnp.array([[0.25, 0.75]])))
    for term in (task.critic, task.generator):
        assert number(term, None, discrete) == pytest.approx(-math.log(0.75), rel=1e-6)
    continuous = seen(condition=jnp.array([[1.0, -1.0]]), code=[[0.0, 1.0]])
    assert number(task.critic, None, continuous) == pytest.approx((1 + 4) / 2)


class Judge(nn.Module):
    """Linear scores and a linear head."""

    classes: int = 3

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        return nn.Dense(1, name="score")(samples).squeeze(-1), {
            "class": nn.Dense(self.classes, name="head")(samples)}


class Drawer(nn.Module):
    """A linear generator, whose samples are shifted by their label."""

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        return nn.Dense(2)(latents) + condition[:, None].astype(jnp.float32)


GAN = tiny(generator=Drawer(), critic=Judge(), penalty=None, tasks=(tasks.classification(),),
           critic_optimizer=optax.sgd(1.0), generator_optimizer=optax.sgd(1.0))
LABELS = jnp.array([0, 1, 2, 1, 0, 2, 2, 1])
BATCH = Batch(jax.random.normal(jax.random.key(1), (8, 2)), LABELS)
KEY = jax.random.key(2)


def begin(gan=GAN):
    return jax.jit(functools.partial(init_state, gan))(jax.random.key(0), BATCH)


def test_the_critic_learns_the_sum_of_its_loss_and_the_weighted_terms():
    """One SGD step of rate 1 moves the head by minus the softmax regression's gradient, by hand."""
    gan = tiny(**{**GAN.__dict__, "tasks": (tasks.classification(critic_weight=0.5),)})
    state = begin(gan)
    after, metrics = critic_step(gan, state, BATCH, KEY)
    head = jax.tree.map(np.asarray, state.critic.params["head"])
    logits = np.asarray(BATCH.samples, np.float64) @ head["kernel"] + head["bias"]
    wrong = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[LABELS]
    moved = np.asarray(head["kernel"] - after.critic.params["head"]["kernel"])
    np.testing.assert_allclose(moved, 0.5 * np.asarray(BATCH.samples).T @ wrong / 8, atol=1e-6)
    # The score's weights move as without the task.
    plain, _ = critic_step(tiny(**{**GAN.__dict__, "tasks": ()}), state, BATCH, KEY)
    assert_close(after.critic.params["score"], plain.critic.params["score"])
    expected = (np.log(np.exp(logits).sum(1)) - logits[np.arange(8), LABELS]).mean()
    assert float(metrics["critic/class"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["critic/loss"]) == pytest.approx(
        0.5 * expected - float(metrics["critic/wasserstein"]), rel=1e-4)


def test_the_generator_learns_through_scores_heads_and_samples():
    """Against the gradient of the whole loss, written down anew."""
    gan = tiny(**{**GAN.__dict__, "tasks": (
        tasks.classification(generator_weight=0.3), tasks.reconstruction(order=2, weight=0.7))})
    state = begin(gan)
    after, metrics = generator_step(gan, state, BATCH, KEY)

    latents = draw_latents(gan, keys.example_keys(keys.stream(KEY, "latents"), 8), 8)

    def loss(params):
        fake = gan.generator.apply({"params": params}, latents, LABELS, train=True)
        scores, heads = gan.critic.apply(state.critic.variables, fake, LABELS, train=True)
        logits = jax.nn.log_softmax(heads["class"])
        crossed = -logits[jnp.arange(8), LABELS].mean()
        return -scores.mean() + 0.3 * crossed + 0.7 * jnp.square(BATCH.samples - fake).mean()

    value, gradients = jax.value_and_grad(loss)(state.generator.params)
    assert float(metrics["generator/loss"]) == pytest.approx(float(value), rel=1e-5)
    assert_close(jax.tree.map(lambda x, y: x - y, state.generator.params, after.generator.params),
                 gradients, atol=1e-5)
    assert same(after.critic, state.critic)


def test_a_penalty_is_of_the_scores_alone():
    gan = tiny(**{**GAN.__dict__, "penalty": penalties.gradient_penalty(10.0)})
    _, metrics = critic_step(gan, begin(gan), BATCH, KEY)
    weights = begin(gan).critic.params["score"]["kernel"]
    assert float(metrics["critic/penalty"]) == pytest.approx(
        10 * (float(jnp.linalg.norm(weights)) - 1) ** 2, rel=1e-4)


@pytest.mark.parametrize("gan", [GAN, tiny(**{**GAN.__dict__, "loss": losses.relativistic()})],
                         ids=["wasserstein", "relativistic"])
def test_devices_agree(gan):
    state = begin(gan)
    batches = jax.tree.map(lambda x: jnp.stack([x, x[::-1]]), BATCH)
    one, metrics = jax.jit(functools.partial(train_step, gan))(state, batches, KEY)
    step = data_parallel(functools.partial(train_step, gan), devices=jax.devices()[:4], batch_axis=1)
    four, metrics_of_four = step(state, batches, KEY)
    for found in (metrics, metrics_of_four):
        found["critic/input_gradient_std"] **= 2  # 0 for a linear critic, but for rounding
    assert_close((one, metrics), (four, metrics_of_four), rtol=1e-4, atol=1e-5)
    assert {"critic/class", "generator/class"} <= metrics.keys()


def test_samples_are_drawn_for_a_condition():
    state = begin()
    drawn = [sample(GAN, state, KEY, 8, jnp.full(8, label)) for label in (0, 2)]
    np.testing.assert_allclose(drawn[1] - drawn[0], 2.0, rtol=1e-5)


class Bare(nn.Module):
    """Scores alone."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        return nn.Dense(1)(samples).squeeze(-1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"critic": Bare()}, "term class can't be computed: there is no 'class'.* the critic "
                         r"returns no heads: have it return \(scores, heads\)"),
    ({"tasks": (tasks.classification(head="kind"),)}, "term kind can't be computed: "
                                                      "there is no 'kind'.* returns 'class'"),
    ({"tasks": (tasks.classification(label=lambda c: c["label"]),)},
     "the generator's term class can't be computed"),
    ({"tasks": (Task(Term("vector", lambda view, state: view.real.samples)),)},
     r"must give a scalar; got shape \(8, 2\): take the mean"),
    ({"tasks": (tasks.mutual_information(head="class", code=lambda c: c[:, None] * 1.0),)},
     "give them the same"),
])
def test_a_task_that_does_not_fit_is_refused_at_the_door(changes, message):
    with pytest.raises(ValueError, match=message):
        begin(tiny(**{**GAN.__dict__, **changes}))


def test_labels_out_of_range_are_refused_at_the_door():
    with pytest.raises(ValueError, match=r"class can't .*labels must be in \[0, 3\); got 0 to 3"):
        init_state(GAN, KEY, BATCH._replace(condition=LABELS.at[0].set(3)))


def test_names_and_weights_are_checked():
    with pytest.raises(ValueError, match="critic must have different names; 'class' is there 2 times"):
        tiny(tasks=(tasks.classification(), tasks.classification()))
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be a number from 0 on; got"):
            tasks.reconstruction(weight=weight)
