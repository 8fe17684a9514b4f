"""Calls that can't be meant: one sentence each, which names what was given and what to give."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Critic, Generator, points, tiny

from jaxgan import (
    Term,
    Value,
    critic_step,
    game,
    generator_step,
    init_state,
    judge,
    keys,
    losses,
    network_state,
    penalties,
    run_steps,
    sample,
    tasks,
    train_step,
    train_steps,
    update,
)
from jaxgan.augment import instance_noise
from jaxgan.data import in_memory
from jaxgan.training import Plan, early_stopping, train
from jaxgan.types import Batch
from jaxgan.weighting import gradnorm

KEY = jax.random.key(0)
POINTS = np.zeros((40, 2), np.float32)
SOURCE = in_memory(POINTS)


@pytest.mark.parametrize(("field", "value", "message"), [
    ("generator", Generator, r"a linen module; got the class Generator itself: make one, Generator\("),
    ("generator", lambda latents: latents, "a linen module"),
    ("critic", Critic, "a linen module; got the class Critic itself"),
    ("critic", "dcgan", "a linen module; got 'dcgan'"),
    ("latent_size", 2.5, "a whole number, or None; got 2.5"),
    ("latent_size", "128", "a whole number, or None; got '128'"),
    ("loss", losses.wasserstein, r"got the function wasserstein itself: call it, wasserstein\("),
    ("loss", "hinge", r"one of jaxgan.losses, wasserstein\(\) for example; got 'hinge'"),
    ("penalty", penalties.gradient_penalty, "got the function gradient_penalty itself: call it"),
    ("penalty", 10.0, r"None or one of jaxgan.penalties, gradient_penalty\(\) for example; got 10.0"),
    ("tasks", tasks.classification(), r"a tuple of Tasks, \(one,\) if there is one; got Task"),
    ("tasks", (tasks.classification,), "a tuple of Tasks"),
    ("critic_terms", penalties.r1(name="other"), r"a tuple of Terms, \(one,\) if there is one"),
    ("critic_terms", (tasks.classification(),), "a tuple of Terms"),
    ("generator_terms", (Term("own", 3.0),), "value of the term own must be a function; got 3.0"),
    ("generator_terms", (Term("own", max, report="x"),), "report of the term own must be a function"),
    ("critic_optimizer", optax.adam, "got the function adam itself: call it"),
    ("generator_optimizer", 1e-3, r"an optax transformation, optax.adam\(1e-4\) for example; got 0.001"),
    ("weighting", gradnorm, "got the function gradnorm itself"),
    ("weighting", "gradnorm", r"one of jaxgan.weighting, fixed\(\) for example; got 'gradnorm'"),
    ("augment", instance_noise, "got the function instance_noise itself"),
    ("generator_condition", 3, "None or a function; got 3"),
    ("ema_decay", "0.9", "a number, a schedule, or None; got '0.9'"),
    ("generator_batches", 1.5, "a whole number; got 1.5"),
])
def test_fields_of_a_gan(field, value, message):
    with pytest.raises(TypeError, match=message):
        tiny(**{field: value})


def test_numbers_of_numpy_are_numbers():
    tiny(latent_size=np.int64(3), ema_decay=np.float32(0.9), generator_batches=np.int32(1))
    assert dataclasses.replace(tiny(), tasks=[]).tasks == []


class Returns(nn.Module):
    """A network that returns its outputs in some way."""

    how: str
    features: int | None = None

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        y = nn.Dense(self.features or 1)(x)
        y = y if self.features else y.squeeze(-1)
        return {"list": [y], "dict": {"y": y}, "none": None, "three": (y, {}, {}),
                "heads in a list": (y, [y]), "integers": y.astype(jnp.int32)}[self.how]


@pytest.mark.parametrize("how", ["list", "dict", "none", "three", "heads in a list", "integers"])
def test_what_networks_return(how):
    for network in ("critic", "generator"):
        gan = tiny(**{network: Returns(how, 2 if network == "generator" else None)}, penalty=None)
        with pytest.raises((TypeError, ValueError), match=rf"the {network}('s (scores|samples))? m"):
            jax.eval_shape(partial(init_state, gan), KEY, points(4))


@pytest.mark.parametrize(("value", "message"), [
    (lambda view, state: None, "the value of the term own must be a scalar, or a Value; got None"),
    (lambda view, state: "small", "a scalar, or a Value; got 'small'"),
    (lambda view, state: (1.0, {}), "a scalar, or a Value"),
    (lambda view, state: Value(None, {"a": "b"}), "what the term own gives must be numbers; got 'b'"),
])
def test_what_terms_give(value, message):
    gan = tiny(critic_terms=(Term("own", value, 0.0),))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(init_state, gan), KEY, points(4))


@pytest.mark.parametrize("reported", [[1.0], None, {"a": "b"}, {"a": np.ones(3)}, {3: 1.0}])
def test_what_terms_report(reported):
    term = Term("own", lambda view, state: Value(None, {}), 0.0, report=lambda observed: reported)
    network = network_state({"params": {"w": jnp.ones(())}}, optax.sgd(1.0), (term,))
    with pytest.raises(TypeError, match="the report of the term own must give scalars by name; got"):
        update(network, optax.sgd(1.0), (term,), lambda params: (None, {}), name="own")


@pytest.mark.parametrize("key", [np.zeros(2, np.uint32), 0, None])
def test_keys(key):
    state = jax.eval_shape(partial(init_state, tiny()), KEY, points(4))
    for call in (lambda: init_state(tiny(), key, points(4)), lambda: keys.stream(key, "data"),
                 lambda: sample(tiny(), state, key, 3), lambda: keys.per_example(key, 3),
                 lambda: critic_step(tiny(), state, points(4), key),
                 lambda: train_step(tiny(), state, points(1, 4), key),
                 lambda: run_steps(game(tiny()), state, SOURCE.arrays, key, 1, source=SOURCE,
                                   batches_per_step=1, batch_size=4)):
        with pytest.raises(TypeError, match=r"key must be a typed key, jax.random.key\(seed\); got"):
            call()


def test_steps_and_samples():
    gan, one = tiny(), {"batch_size": 4}
    state = jax.jit(partial(init_state, gan))(KEY, points(4))
    for call, message in (
            (lambda: init_state(gan, KEY, POINTS), "the example must be a Batch"),
            (lambda: critic_step(gan, state, POINTS, KEY), "what a step is given must be a Batch"),
            (lambda: generator_step(gan, state, POINTS, KEY), "what a step is given must be a Batch"),
            (lambda: train_step(gan, state, POINTS, KEY), "what a step is given must be a Batch"),
            (lambda: train_steps(gan, state, (), KEY, 1, source=POINTS, n_critic=1, **one),
             r"source must be a Source, jaxgan.data.in_memory\(arrays\) for example; got ndarray"),
            (lambda: run_steps(gan, state, (), KEY, 1, source=SOURCE, batches_per_step=1, **one),
             r"game must be a Game; of a GAN it is jaxgan.game\(gan\); got GAN"),
            (lambda: game(Generator()), "what is trained must be a GAN or a Game; got "),
            (lambda: sample(gan, state, KEY, 3.5), "num_samples must be a whole number; got 3.5"),
            (lambda: judge(gan, state, [1.0]), r"a batch must be arrays, \[batch, ...\]; got \[1.0\]"),
            (lambda: network_state({"params": {}}, "sgd"), "an optax transformation")):
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match=r"train_step \[n_critic, batch, ...\]"):
        train_step(gan, state, points(4), KEY)


PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"game": Generator()}, "what is trained must be a GAN or a Game"),
    ({"source": "images"}, "got the path 'images': open it by a function of jaxgan.data"),
    ({"source": Batch(POINTS, np.array(["a"] * 40))}, "a condition must be numbers; got <U1: number"),
    ({"source": np.array(["a"] * 40)}, "samples must be numbers; got <U1"),
    ({"run": None}, "run must be a folder, or a Run"),
    ({"run": Plan(steps=1, batch_size=8)}, "run must be a folder, or a Run; a plan is plan="),
    ({"plan": {"steps": 1}}, r"plan must be a Plan, Plan\(steps=500\) for example; got \{'steps': 1\}"),
    ({"callbacks": early_stopping("x", 1)}, "callbacks must be a list of functions; got <function"),
    ({"callbacks": "early"}, "callbacks must be a list of functions; got 'early'"),
    ({"callbacks": [3]}, r"callbacks must be a list of functions; got \[3\]"),
    ({"evaluate": {"a": 1.0}}, "evaluate must be None or a function"),
    ({"initial": {}}, "initial must be None or a function"),
    ({"picture": PICTURE}, "picture must be None or a function; got ndarray"),
    ({"real": PICTURE / 255}, r"real must be a picture, uint8 .* got float64\[8, 8, 3\]"),
    ({"real": PICTURE[..., 0]}, r"got uint8\[8, 8\]"),
    ({"picture": lambda state: PICTURE / 255}, r"what picture returns must be a picture, uint8"),
])
def test_arguments_of_train(arguments, message, tmp_path):
    given = {"game": tiny(), "source": SOURCE, "run": tmp_path / "run",
             "plan": Plan(steps=1, batch_size=8)} | arguments
    with pytest.raises(TypeError, match=message):
        train(given.pop("game"), given.pop("source"), given.pop("run"), given.pop("plan"), **given)


@pytest.mark.parametrize("resume", ["newest", 1.5, True])
def test_what_to_resume_from(resume, tmp_path):
    with pytest.raises(ValueError, match="resume must be auto, latest or a step; got"):
        train(tiny(), SOURCE, tmp_path / "run", steps=1, batch_size=8, resume=resume)
