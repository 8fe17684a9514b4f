"""Every kind of term in a tiny GAN: on one device and on two, by hand, and what can't be one."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Linear, all_finite, assert_close, points, same, tiny

from jaxgan import (
    WithHeads,
    critic_step,
    data_parallel,
    generate,
    generator_step,
    init_state,
    judge,
    keys,
    losses,
    penalties,
    sample,
    tasks,
    train_step,
    weighting,
)
from jaxgan import nn as layers
from jaxgan.augment import Augmentation, chain, instance_noise, packed
from jaxgan.evaluation import critic_diagnostics
from jaxgan.nn.random import module_rngs
from jaxgan.tasks import Task
from jaxgan.terms import ADVERSARIAL, Term, Value, lazy, lazy_adam
from jaxgan.types import Batch

KEY = jax.random.key(17)
COUNT = 8


class Maker(nn.Module):
    """Latents and a code to points in the plane, and how far apart they are to be."""

    norm: bool = False
    noise: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, latents, condition, *, train):
        x = nn.Dense(5)(jnp.concatenate([latents, condition["code"]], axis=-1))
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        x = layers.GaussianNoise(self.noise)(nn.softplus(x), train=train and self.noise > 0)
        return WithHeads(nn.Dense(2)(x), {"spread": nn.Dense(1)(x)})


class Styled(nn.Module):
    """Latents and a code to two styles, and styles to points in the plane."""

    def setup(self):
        self.mapping, self.synthesis = nn.Dense(4), nn.Dense(2)
        self.noise = layers.GaussianNoise(0.3)

    def __call__(self, latents, condition, *, train):
        return self.synthesise(self.map(latents, condition, train=train), train=train)

    def map(self, latents, condition, *, train):
        ws = self.mapping(jnp.concatenate([latents, condition["code"]], axis=-1))
        return self.noise(ws, train=train).reshape(-1, 2, 2)

    def synthesise(self, ws, condition=None, *, train):
        return self.synthesis(nn.softplus(self.noise(ws.reshape(-1, 4), train=train)))


class Judge(nn.Module):
    """Scores, and a head for every task."""

    norm: bool = False
    drop: str = ""
    axis_name: str | None = None

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        del condition
        x = nn.Dense(6)(samples)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, axis_name=self.axis_name)(x)
        x = nn.softplus(x)
        if self.drop == "by example":
            x = layers.Dropout(0.5)(x, train=train)
        if self.drop == "by device":
            x = nn.Dropout(0.5)(x, deterministic=not train)
        return nn.Dense(1)(x).squeeze(-1), {
            "class": nn.Dense(3)(x), "box": nn.Dense(4)(x), "features": x, "code": nn.Dense(2)(x)}


def make(**changes):
    return tiny(**{"generator": Maker(), "critic": Judge(), "penalty": None} | changes)


def example(seed=1, *lead):
    """A batch whose condition has something for every task; the mask's sum differs from half to half."""
    draw = np.random.default_rng(seed)
    corner, size = draw.uniform(size=(2, *lead, COUNT, 2))
    mask = np.float32(draw.uniform(size=(*lead, COUNT, 2)) < 0.3)
    mask[..., :COUNT // 2, :] = 1.0
    return jax.tree.map(jnp.asarray, Batch(
        np.float32(draw.normal(1.0, 1.0, (*lead, COUNT, 2))),
        {"label": np.int32(draw.integers(0, 3, (*lead, COUNT))), "mask": mask,
         "box": np.float32(np.concatenate([corner, corner + size], -1)),
         "code": np.float32(draw.normal(size=(*lead, COUNT, 2)))}))


_BEGUN = {}  # by the number of the GAN, which is kept: to compile each beginning once


def begin(gan, batch=None):
    if batch is not None:
        return jax.jit(partial(init_state, gan))(KEY, batch)
    if id(gan) not in _BEGUN:
        _BEGUN[id(gan)] = gan, jax.jit(partial(init_state, gan))(KEY, example())
    return _BEGUN[id(gan)][1]


def following(every=1):
    """Noise that grows as the critic gets surer of its reals, as adaptive augmentation does."""
    def observe(view, state):
        return Value(None, {"sign": jnp.sign(view.real.scores).mean(), "scale": state["scale"]})

    def follow(state, observed):
        return {"scale": jnp.clip(state["scale"] + 0.1 * (observed["sign"] - 0.3), 0.0, 1.0)}

    return Augmentation(
        lambda keys, step, state: (keys, state["scale"]),
        lambda draws, samples: penalties.add_noise(samples, *draws),
        Term("sureness", observe, 0.0, lambda: {"scale": jnp.float32(0.2)}, follow, every))


@jax.custom_vjp
def fed(scores, state):
    """The scores; the state's cotangent is the sum of theirs."""
    del state
    return scores


fed.defvjp(lambda scores, state: (scores, None), lambda _, cotangent: (cotangent, cotangent.sum()))


def tracked(weight=0.5):
    """A term whose state is a moving sum of its gradient by the fakes' scores."""
    return Term("tracked", lambda view, state: jnp.square(fed(view.fake.scores, state)).mean(), weight,
                lambda: jnp.float32(1.0), absorb=lambda state, cotangent: 0.5 * state + cotangent)


def mean_of(name="mean", weight=1.0, **changes):
    """The square of the mean score of all reals, which it counts and averages."""
    def value(view, state):
        mean = view.mean(view.real.scores.mean())
        return Value(jnp.square(mean - state["average"]), {"level": mean})

    return Term(name, value, weight, lambda: {"average": jnp.float32(0.0), "times": jnp.int32(0)},
                lambda state, observed: {"average": 0.9 * state["average"] + 0.1 * observed["level"],
                                         "times": state["times"] + 1})._replace(**changes)


def on(network, *terms, **changes):
    return make(**{f"{network}_terms": terms} | changes)


def in_label(condition):
    return condition["label"]


SCHEDULE = optax.linear_schedule(1.0, 0.2, 3)
CASES = {
    "gradient penalty": make(penalty=penalties.gradient_penalty(SCHEDULE)),
    "one-sided, zero-centred": on(
        "critic", penalties.zero_centered(0.3, name="zero"),
        penalty=penalties.gradient_penalty(5.0, 0.1, True)),
    "r1 + r2": make(penalty=penalties.combine(penalties.r1(0.5), penalties.r2(0.3))),
    "lazy r1, dragan": on("critic", penalties.dragan(0.3, name="dragan"),
                          penalty=lazy(penalties.r1(SCHEDULE), 2)),
    "classification, localisation": make(tasks=(
        tasks.classification(label=in_label, fake_weight=0.5, critic_weight=SCHEDULE,
                             sample_weight=lambda condition: condition["mask"][:, 0]),
        tasks.localisation(box=lambda condition: condition["box"]))),
    "reconstruction, features": make(tasks=(
        tasks.reconstruction(mask=lambda condition: condition["mask"], weight=0.7),
        tasks.feature_matching(weight=0.3))),
    "information": make(
        tasks=(tasks.mutual_information(code=lambda condition: condition["code"], weight=0.2),),
        generator_condition=lambda keys_, condition: condition | {"code": keys.normal(keys_, (2,))}),
    "instance noise": make(augment=instance_noise(SCHEDULE), penalty=penalties.gradient_penalty(0.5)),
    "packs": make(augment=chain([instance_noise(0.1), packed(2)]),
                  penalty=penalties.gradient_penalty(0.5)),
    "following noise": make(augment=following(), penalty=penalties.r1(0.5)),
    "lazy following noise": make(augment=following(every=3)),
    "path length": on("generator", penalties.path_length(0.5, 0.3), generator=Styled()),
    "fed by the backward pass": on("critic", tracked(), mean_of()),
    "of the generator": on(
        "generator",
        Term("spread", lambda view, state: jnp.square(view.generator_heads["spread"] - 1.0).mean(), 0.2),
        Term("again", lambda view, state: jnp.square(view.generate(
            jax.tree.map(lambda z: 0.5 * z, view.latents), view.fake.condition).output).mean(), 0.1),
        lazy(tracked(0.1)._replace(absorb=None), 2), ema_decay=0.5),
    "relativistic average": on("critic", lazy(mean_of(), 3), loss=losses.relativistic_average()),
    "batch norm": make(generator=Maker(norm=True), critic=Judge(norm=True),
                       loss=losses.non_saturating(), tasks=(tasks.feature_matching(),),
                       generator_optimizer=optax.sgd(1.0)),
    "dropout": on("critic", Term("again", lambda view, state: jnp.square(view.judge(
        view.fake.shown, view.fake.condition).scores).mean(), 0.1), critic=Judge(drop="by example"),
        generator=Maker(noise=0.3), penalty=penalties.gradient_penalty(0.5)),
    "uncertainty": make(weighting=weighting.uncertainty(0.1), tasks=(
        tasks.classification(label=in_label), tasks.feature_matching())),
}


def trained(gan, devices, steps=4, start=begin):
    """The state and the metrics of each step."""
    step = partial(train_step, gan)
    step = (jax.jit(step) if devices == 1
            else data_parallel(step, devices=jax.devices()[:devices], batch_axis=1))
    state, history = start(gan), []
    for index in range(steps):
        state, metrics = step(state, example(index, 2), jax.random.fold_in(KEY, index))
        history.append(metrics)
    return state, history


# Those that take longest.
SLOW = {"batch norm", "uncertainty", "relativistic average", "of the generator", "lazy following noise",
        "classification, localisation", "packs", "path length", "dropout",
        "fed by the backward pass", "following noise", "reconstruction, features",
        "one-sided, zero-centred", "lazy r1, dragan", "information", "instance noise"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
                                  for name in CASES])
def test_two_devices_do_what_one_does(name):
    one, two = (trained(CASES[name], devices) for devices in (1, 2))
    first = begin(CASES[name])
    for network in ("critic", "generator"):
        before, after = (getattr(state, network) for state in (first, one[0]))
        assert float(optax.tree.norm(jax.tree.map(
            jnp.subtract, before.params, after.params))) > 1e-2
        assert not before.terms or not same(before.terms, after.terms)
    assert all_finite(one)
    assert_close(one, two, 1e-4, 2e-5)
    expected = {"gradient penalty": (), "following noise": {"sureness"}}.get(name)
    assert expected is None or expected in (one[0].critic.terms, set(one[0].critic.terms))


# Lazy terms.

def test_a_lazy_term_is_due_in_every_nth_update():
    """The others show its last metric, and leave its state; compared with one that is always due."""
    still = {"critic_optimizer": optax.sgd(0.0)}
    plain, seldom = (on("critic", mean_of(every=every, init=lambda: {
        "average": jnp.float32(0.3), "times": jnp.int32(0)}), **still) for every in (1, 3))
    steps = [jax.jit(partial(critic_step, gan)) for gan in (plain, seldom)]
    states, shown, expected = [begin(plain), begin(seldom)], [], None
    for index in range(7):
        batch, key = example(index), jax.random.fold_in(KEY, index)
        before = states[1].critic.terms["mean"]
        states[0] = begin(plain)._replace(step=states[1].step)
        states[0] = states[0]._replace(critic=states[0].critic._replace(
            terms={"mean": before.state}))
        (state, metrics), (states[1], found) = (
            step(state, batch, key) for step, state in zip(steps, states, strict=True))
        due, after = index % 3 == 0, states[1].critic.terms["mean"]
        expected = {name: metrics[name] for name in ("critic/mean", "critic/level")} if due else expected
        assert_close({name: found[name] for name in expected}, expected)
        assert_close(after.state, state.critic.terms["mean"] if due else before.state)
        adversarial = metrics["critic/loss"] - metrics["critic/mean"]
        np.testing.assert_allclose(found["critic/loss"],
                                   adversarial + (metrics["critic/mean"] if due else 0.0), rtol=1e-4,
                                   atol=1e-5)
        shown.append(float(found["critic/mean"]))
        assert after.count == index + 1
        assert after.state["times"] == index // 3 + 1
    assert shown[0] == shown[1] == shown[2] != shown[3] == shown[4] == shown[5] != shown[6]


@pytest.mark.parametrize("term", [penalties.r1(0.5), mean_of(init=lambda: {
    "average": jnp.float32(0.3), "times": jnp.int32(0)}, update=lambda state, observed: state)],
    ids=["part", "term"])
def test_lazy_leaves_the_mean_gradient(term):
    """The sum of the gradients over n updates, kept as momentum without decay, at a rate of 0."""
    summing = optax.chain(optax.trace(decay=1.0), optax.scale(0.0))
    sums = []
    for used in (term, lazy(term, 3)):
        gan = on("critic", used, critic_optimizer=summing)
        state, step = begin(gan), jax.jit(partial(critic_step, gan))
        for _ in range(6):
            state, metrics = step(state, example(), KEY)
        sums.append(state.critic.opt_state[0].trace)
        assert same(state.critic.params, begin(gan).critic.params)
        assert float(metrics["critic/loss"]) != 0
    assert_close(*sums, rtol=1e-4, atol=1e-5)


def test_lazy_multiplies_numbers_and_schedules():
    assert lazy(mean_of(weight=0.5), 4).weight == 2.0
    scheduled = lazy(mean_of(weight=lambda step: 0.5 + step), 4)
    assert scheduled.weight(3) == 14.0
    assert scheduled.every == 4
    assert lazy_adam(0.1, 0.0, 0.99, 16) == pytest.approx(
        {"learning_rate": 0.1 * 16 / 17, "b1": 0.0, "b2": 0.99 ** (16 / 17)})


# Weights.

def test_weights_follow_their_schedules():
    """That of a term, and that of a part, which the metric includes."""
    gan = on("critic", Term("one", lambda view, state: jnp.float32(3.0), lambda step: 0.5 * step),
             Term("part", lambda view, state: jnp.float32(2.0), lambda step: 1.0 / (1.0 + step),
                  part_of="one"), Term("unweighted", lambda view, state: jnp.float32(7.0), 0.0))
    state, step = begin(gan), jax.jit(partial(critic_step, gan))
    for number in (0, 3):
        _, metrics = step(state._replace(step=jnp.int32(number)), example(), KEY)
        part = 2.0 / (1 + number)
        found = {name: float(metrics[f"critic/{name}"]) for name in (
            "one", "one_weight", "part", "unweighted", "unweighted_weight", "adversarial_weight")}
        assert found == pytest.approx({"one": 3 + part, "one_weight": 0.5 * number, "part": part,
                                       "unweighted": 7.0, "unweighted_weight": 0.0,
                                       "adversarial_weight": 1.0})
        assert float(metrics["critic/loss"]) == pytest.approx(
            float(metrics["critic/adversarial"]) + 0.5 * number * (3 + part), rel=1e-5)
        np.testing.assert_allclose(metrics["critic/adversarial"], -metrics["critic/wasserstein"],
                                   rtol=1e-5)


def test_what_the_backward_pass_feeds_by_hand():
    """The cotangents of w s^2 / n, summed, are 2 w times the mean score."""
    gan = on("critic", tracked(0.5))
    state, expected = begin(gan), 1.0
    for index in range(2):
        state, metrics = critic_step(gan, state, example(), jax.random.fold_in(KEY, index))
        expected = 0.5 * expected + 2 * 0.5 * float(metrics["critic/fake_score"])
        assert float(state.critic.terms["tracked"]) == pytest.approx(expected, rel=1e-5)


def test_absorbed_before_it_is_updated():
    term = tracked(0.5)._replace(update=lambda state, observed: 10.0 * state)
    state, metrics = critic_step(on("critic", term), begin(on("critic", term)), example(), KEY)
    assert float(state.critic.terms["tracked"]) == pytest.approx(
        10 * (0.5 + float(metrics["critic/fake_score"])), rel=1e-5)


# What can't be.

def growing(state, observed):
    return {**state, "more": observed}


@pytest.mark.parametrize(("make_gan", "message"), [
    (lambda: on("critic", mean_of(every=0)), "mean: every must be a whole number, at least 1; got 0"),
    (lambda: on("critic", lazy(mean_of(), 0)), "mean: every must be a whole number, at least 1; got 0"),
    (lambda: on("critic", mean_of(), mean_of()), "the terms of the critic must have different names; "
                                                 "'mean' is there 2 times"),
    (lambda: on("generator", mean_of(ADVERSARIAL)), "the terms of the generator must have different"),
    (lambda: on("critic", mean_of(part_of="advresarial")),
     "the term mean is part of 'advresarial', which is no term of the critic: choose from adversarial"),
    (lambda: on("critic", mean_of(part_of="penalty"), penalty=penalties.r1()),
     "the term mean is part of 'penalty', which is no term of the critic: choose from adversarial"),
    (lambda: on("critic", mean_of(weight=-1.0)), "the weight of mean must be a number from 0 on"),
    (lambda: on("critic", tracked()._replace(every=2)), "the term tracked is fed by the backward pass, "
                                                        "which has to come every time"),
    (lambda: on("critic", mean_of(every=2.5)), "mean: every must be a whole number, at least 1; got 2"),
    (lambda: lazy_adam(0.1, 0.0, 0.9, 0), "lazy_adam: every must be a whole number, at least 1; got 0"),
    (lambda: penalties.combine(lazy(penalties.r1(), 2), penalties.r2()),
     "combine adds penalties with fixed weights"),
    (lambda: penalties.path_length(decay=0.0, shrink=3), r"decay must be in \(0, 1\] .*; got 0.0 and 3"),
    (lambda: begin(on("generator", lazy(penalties.path_length(), 2))),
     'the generator\'s term path can\'t be computed: "Maker" object has no attribute "map"'),
    (lambda: packed(0), "size must be at least 1; got 0"),
    (lambda: chain([]), "chain needs at least one augmentation"),
    (lambda: chain([following(), following()]), "at most one augmentation of a chain may have a term"),
    (lambda: make(prior=lambda keys: keys), "latent_size is 3 and there is a prior: give one"),
    (lambda: make(latent_size=None), "latent_size is None and there is no prior: give one of the two"),
    (lambda: make(lift=lambda x: x), "lift and lower go together: give both, or none"),
])
def test_specifications_that_cannot_be(make_gan, message):
    with pytest.raises(ValueError, match=message):
        make_gan()


@pytest.mark.parametrize(("terms", "message"), [
    ((Term("vector", lambda view, state: view.real.scores),),
     r"the term vector must give a scalar; got shape \(8,\): take the mean"),
    ((Term("silent", lambda view, state: Value(None, {})),),
     "the term silent gives no loss: give it the weight 0, for it to observe"),
    ((lazy(Term("vector", lambda view, state: view.real.scores), 2),), "must give a scalar; got shape"),
    ((Term("headless", lambda view, state: view.real.heads["neck"].mean()),),
     "the critic's term headless can't be computed: there is no 'neck'.*'box', 'class'"),
    ((lazy(Term("headless", lambda view, state: view.real.heads["neck"].mean()), 2),),
     "the critic's term headless can't be computed: there is no 'neck'.*'box', 'class'"),
    ((Term("whole", lambda view, state: Value(None, {}), 0.0), mean_of(part_of="whole")),
     "part of"),
], ids=["vector", "silent", "lazy vector", "head", "lazy head", "part of an observer"])
def test_what_cannot_be_computed_is_refused_at_the_door(terms, message):
    with pytest.raises(ValueError, match=message):
        begin(on("critic", *terms))


@pytest.mark.parametrize(("gan", "message"), [
    (on("critic", mean_of(update=growing)), "the term mean changes its state from .* to .*: keep its"),
    (on("critic", lazy(mean_of(update=growing), 2)), "the term mean changes its state from .* to .*"),
    (on("critic", mean_of(update=lambda state, observed: jax.tree.map(lambda x: x[None], state))),
     r"the term mean changes its state from .*float32\[\].* to .*float32\[1\]"),
    (on("critic", lazy(mean_of(), 2), weighting=weighting.gradnorm()),
     "a weighting by gradients needs every term's gradient in every update; mean of the critic is lazy"),
    (on("critic", tracked(), weighting=weighting.ratio()),
     "a weighting by gradients .*; tracked of the critic is fed by the backward pass"),
    (on("critic", mean_of(weight=lambda step: 1.0), weighting=weighting.uncertainty()),
     "the weight of mean in the critic follows a schedule, which only"),
    (on("critic", tracked()._replace(init=lambda: jnp.int32(1))),
     "the state of the term tracked, which the backward pass feeds, must be of floating-point"),
], ids=["structure", "lazy structure", "shape", "lazy", "fed", "schedule", "integers"])
def test_updates_that_cannot_be(gan, message):
    with pytest.raises(ValueError, match=message):
        critic_step(gan, begin(gan), example(), KEY)


def test_a_state_of_other_terms_is_refused():
    state = begin(make())
    for gan in (on("critic", mean_of()), make(penalty=lazy(penalties.r1(), 2))):
        with pytest.raises(ValueError, match=r"the state of the critic lacks that of its term .*: make"):
            critic_step(gan, state, example(), KEY)


# What is drawn.

def differences(view, state):
    """How far what is repeated is from what it repeats, and what is drawn anew from that."""
    seen = {}
    for kind, of in (("real", view.real), ("fake", view.fake)):
        shown = view.show(kind, of.samples)
        again = view.judge(of.shown, of.condition, kind=kind)
        for name, found, first in (("show", shown, of.shown), ("judge", again.scores, of.scores),
                                   ("heads", again.heads["class"], of.heads["class"]),
                                   ("other_show", view.show("other", of.samples), of.shown),
                                   ("other_judge", view.judge(of.shown, of.condition).scores,
                                    of.scores)):
            seen[f"{kind}_{name}"] = jnp.abs(found - first).max()
    made = view.generate(view.latents, view.fake.condition, "fake").output
    other = view.generate(view.latents, view.fake.condition).output
    return Value(None, seen | {"generate": jnp.abs(made - view.fake.samples).max(),
                               "other_generate": jnp.abs(other - view.fake.samples).max()})


@pytest.mark.parametrize("drop", ["by example", pytest.param("by device", marks=pytest.mark.slow)])
def test_what_was_drawn_is_repeated_by_its_kind(drop):
    term = Term("differences", differences, 0.0)
    gan = make(critic=Judge(drop=drop), generator=Maker(noise=0.3), augment=instance_noise(0.5),
               critic_terms=(term,), generator_terms=(term,))
    state = begin(gan)
    for name, step in (("critic", critic_step), ("generator", generator_step)):
        _, metrics = jax.jit(partial(step, gan))(state, example(), KEY)
        for kind in ("real_show", "fake_show", "real_judge", "fake_judge", "real_heads", "fake_heads",
                     "generate"):
            assert float(metrics[f"{name}/{kind}"]) < 1e-5, kind
        for kind in ("real_other_show", "fake_other_judge", "real_other_judge", "other_generate"):
            assert float(metrics[f"{name}/{kind}"]) > 1e-2, kind


@pytest.mark.slow
def test_stock_dropout_depends_on_the_devices_and_is_a_function_of_the_key():
    gan = make(critic=Judge(drop="by device"))
    one, again, two = (trained(gan, devices, 1) for devices in (1, 1, 2))
    assert same(one, again)
    assert abs(float(one[1][0]["critic/real_score"]) - float(two[1][0]["critic/real_score"])) > 1e-3


@pytest.mark.parametrize("drop", ["by example", "by device"])
def test_nothing_is_drawn_in_evaluation(drop):
    gan = make(critic=Judge(drop=drop), generator=Maker(noise=0.3), augment=instance_noise(0.5))
    state, batch = begin(gan), example()
    quiet = make()
    assert_close(judge(gan, state, *batch), judge(quiet, state, *batch))
    condition = jax.tree.map(lambda x: x[:3], batch.condition)
    assert_close(sample(gan, state, KEY, 3, condition), sample(quiet, state, KEY, 3, condition))


@pytest.mark.parametrize("layer", [layers.Dropout(0.4), layers.Dropout(0.4, over_positions=True),
                                   layers.GaussianNoise(0.4)], ids=["dropout", "channels", "noise"])
def test_layers_draw_by_example(layer):
    """The second of two devices draws what one device draws for the second half."""
    x = jax.random.normal(KEY, (8, 3, 3, 5))

    def apply(x, axis_name=None):
        return layer.apply({}, x, train=True, rngs=module_rngs(KEY, len(x), axis_name))

    whole = apply(x)
    halves = jax.vmap(partial(apply, axis_name="devices"), axis_name="devices")(
        x.reshape(2, 4, *x.shape[1:]))
    np.testing.assert_allclose(halves.reshape(x.shape), whole, rtol=1e-6)
    assert len({bytes(np.asarray(row != 0 if isinstance(layer, layers.Dropout) else row))
                for row in whole - x * isinstance(layer, layers.GaussianNoise)}) > 6
    np.testing.assert_array_equal(layer.apply({}, x, train=False), x)
    with pytest.raises(ValueError, match=r"draws by example in training: apply the module with rngs"):
        layer.apply({}, x, train=True)


class Drops(nn.Module):
    @nn.compact
    def __call__(self, x):
        return layers.Dropout(0.5)(x, train=True)


@pytest.mark.parametrize("lift", [
    nn.remat, nn.jit,
    partial(nn.vmap, variable_axes={}, split_rngs={"examples": True}, in_axes=1, out_axes=1),
], ids=["remat", "jit", "vmap"])
def test_layers_draw_by_example_in_lifted_modules(lift):
    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            return lift(Drops)()(x)

    x = jnp.ones((8, 5, 50))
    whole = Lifted().apply({}, x, rngs=module_rngs(KEY, 8))
    halves = jax.vmap(lambda x: Lifted().apply({}, x, rngs=module_rngs(KEY, 4, "devices")),
                      axis_name="devices")(x.reshape(2, 4, 5, 50))
    assert same(halves.reshape(x.shape), whole)
    assert 0.4 < float((whole == 0).mean()) < 0.6
    assert not same(whole[:, 0], whole[:, 1])


def test_layers_in_a_scan_draw_apart():
    class Scanned(nn.Module):
        @nn.compact
        def __call__(self, x):
            class Body(nn.Module):
                @nn.compact
                def __call__(self, carry, _):
                    dropped = layers.Dropout(0.5)(carry, train=True)
                    return carry, dropped

            return nn.scan(Body, variable_axes={}, split_rngs={"examples": True}, length=3)()(x, None)[1]

    drawn = Scanned().apply({}, jnp.ones((4, 50)), rngs=module_rngs(KEY, 4))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.3 < float((drawn[a] == drawn[b]).mean()) < 0.7


def test_modules_and_calls_draw_apart():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            first, second = layers.Dropout(0.5), layers.Dropout(0.5)
            return first(x, train=True), first(x, train=True), second(x, train=True)

    drawn = Twice().apply({}, jnp.ones((4, 50)), rngs=module_rngs(KEY, 4))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.3 < float((drawn[a] == drawn[b]).mean()) < 0.7


def test_dropout_keeps_the_mean_and_drops_at_its_rate():
    x = jnp.full((200, 10, 10), 3.0)
    for rate, over_positions in ((0.2, False), (0.7, False), (0.3, True)):
        dropped = np.asarray(layers.Dropout(rate, over_positions).apply(
            {}, x, train=True, rngs=module_rngs(KEY, 200)))
        zero = dropped == 0
        draws = zero.size / (10 if over_positions else 1)
        assert abs(zero.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / draws)
        np.testing.assert_allclose(dropped[~zero], 3 / (1 - rate), rtol=1e-6)
        assert (zero == zero[:, :1]).all() == over_positions
    same_rate = layers.Dropout(0.0).apply({}, x, train=True)
    assert same(same_rate, x)
    for rate in (1.0, -0.1):
        with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\); got {rate}"):
            layers.Dropout(rate).apply({}, x, train=True, rngs=module_rngs(KEY, 200))


def test_gaussian_noise_has_its_scale():
    noise = np.asarray(layers.GaussianNoise(0.3).apply({}, jnp.full((400, 50), 2.0), train=True,
                                                       rngs=module_rngs(KEY, 400))) - 2.0
    assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(noise.size)
    assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * noise.size)


# Samples and latents that are pytrees.

class TreeMaker(nn.Module):
    """`{"z", "scale"}` to `{"plane", "line"}`."""

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        x = nn.softplus(nn.Dense(4)(latents["z"])) * latents["scale"][:, None]
        return {"plane": nn.Dense(2)(x), "line": nn.Dense(1)(x)}


class TreeJudge(nn.Module):
    """Linear, in all arrays."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        return (nn.Dense(1, name="plane")(samples["plane"])
                + nn.Dense(1, name="line")(samples["line"])).squeeze(-1)


def tree_prior(keys_):
    return {"z": keys.normal(keys_, (3,)),
            "scale": 1 + keys.uniform(jax.vmap(jax.random.fold_in, (0, None))(keys_, 1))}


TREE = tiny(generator=TreeMaker(), critic=TreeJudge(), latent_size=None, prior=tree_prior,
            augment=instance_noise(0.1), penalty=penalties.gradient_penalty(0.5), ema_decay=0.5)


def trees(seed=0, *lead):
    plane = points(*lead, COUNT, seed=seed).samples
    return Batch({"plane": plane, "line": plane[..., :1] + 1})


def test_samples_and_latents_may_be_trees():
    state, results = begin(TREE, trees()), []
    for devices in (1, 2):
        step = partial(train_step, TREE)
        step = jax.jit(step) if devices == 1 else data_parallel(step, devices=jax.devices()[:2],
                                                                batch_axis=1)
        results.append(step(state, trees(1, 2), KEY))
        results[-1][1]["critic/input_gradient_std"] **= 2  # 0 for a linear critic, but for rounding
    assert_close(*results, rtol=1e-4, atol=1e-5)
    drawn = sample(TREE, state, KEY, 5)
    assert jax.tree.map(jnp.shape, drawn) == {"plane": (5, 2), "line": (5, 1)}
    assert_close(sample(TREE, state, KEY, 3), jax.tree.map(lambda x: x[:3], drawn))
    latents = tree_prior(keys.example_keys(KEY, 5))
    assert_close(generate(TREE, state, latents), drawn)
    with pytest.raises(ValueError, match="latents must be like those of the prior"):
        generate(TREE, state, latents["z"])
    critic = jax.tree.map(np.asarray, state.critic.params)
    expected = sum(np.asarray(drawn[name]) @ critic[name]["kernel"] + critic[name]["bias"]
                   for name in ("plane", "line"))[:, 0]
    np.testing.assert_allclose(judge(TREE, state, drawn).scores, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"samples of shape .*, the data has .*: give the generator"):
        begin(TREE, points(COUNT))


def test_the_norm_of_a_penalty_is_over_all_arrays():
    state = begin(TREE, trees())
    _, metrics = critic_step(TREE, state, trees(1), KEY)
    norm = np.sqrt(sum(np.square(np.float64(state.critic.params[name]["kernel"])).sum()
                       for name in ("plane", "line")))
    np.testing.assert_allclose(metrics["critic/input_gradient_mean"], norm, rtol=1e-5)
    np.testing.assert_allclose(metrics["critic/penalty"], 0.5 * (norm - 1) ** 2, rtol=1e-4)
    real, fake = trees(1).samples, trees(2).samples
    between = penalties.interpolate(real, fake, KEY)
    weights = [np.asarray((between[name] - fake[name]) / (real[name] - fake[name]))[:, 0]
               for name in ("plane", "line")]
    np.testing.assert_allclose(*weights, rtol=1e-3, atol=1e-4)  # one for all arrays of a sample
    noise = jax.tree.map(jnp.subtract, penalties.add_noise(real, KEY, 1.0), real)
    assert not np.isclose(noise["plane"][:, :1], noise["line"]).any()


def test_a_generator_that_makes_more_than_the_data_has():
    """Samples with their sum beside them, which the critic sees of the data too."""
    class Summed(nn.Module):
        @nn.compact
        def __call__(self, latents, condition=None, *, train):
            return {"plane": nn.Dense(2)(latents), "line": nn.Dense(1)(latents)}

    gan = tiny(generator=Summed(), critic=TreeJudge(), ema_decay=0.5,
               lift=lambda x: {"plane": x, "line": x.sum(-1, keepdims=True)},
               lower=lambda made: made["plane"])
    state = begin(gan, points(COUNT))
    after, metrics = train_step(gan, state, points(2, COUNT), KEY)
    assert all_finite((after, metrics))
    critic = jax.tree.map(np.float64, state.critic.params)
    real = np.float64(points(COUNT).samples)
    expected = (real @ critic["plane"]["kernel"] + real.sum(1, keepdims=True) @ critic["line"]["kernel"]
                )[:, 0] + critic["plane"]["bias"] + critic["line"]["bias"]
    np.testing.assert_allclose(judge(gan, state, points(COUNT).samples).scores, expected, rtol=1e-4,
                               atol=1e-5)
    _, metrics = critic_step(gan, state, points(COUNT), KEY)
    np.testing.assert_allclose(metrics["critic/real_score"], expected.mean(), rtol=1e-4, atol=1e-5)
    assert sample(gan, after, KEY, 4).shape == (4, 2)
    found = critic_diagnostics(gan, after, points(COUNT), points(COUNT, seed=9), KEY)
    assert all_finite(found)
    bare = tiny(generator=Summed(), critic=TreeJudge())
    with pytest.raises(ValueError, match="give the generator that shape, or the GAN `lift` and `lower`"):
        begin(bare, points(COUNT))


# Packs.

def test_packs_by_hand():
    """Samples 0 and 1 are a pack, 2 and 3 the next; a penalty's norm is that of a whole pack."""
    gan = tiny(generator=Linear(2), critic=Linear(), augment=packed(2),
               penalty=penalties.gradient_penalty(2.0))
    batch = points(COUNT)
    state = begin(gan, batch)
    dense = jax.tree.map(np.float64, state.critic.params["Dense_0"])
    assert dense["kernel"].shape == (4, 1)
    real = np.float64(batch.samples).reshape(4, 4)
    scores = judge(gan, state, batch.samples).scores
    np.testing.assert_allclose(scores, (real @ dense["kernel"] + dense["bias"])[:, 0], rtol=1e-5)
    new, metrics = critic_step(gan, state, batch, KEY)
    norm = np.linalg.norm(dense["kernel"])
    np.testing.assert_allclose(metrics["critic/penalty"], 2 * (norm - 1) ** 2, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic/real_score"], scores.mean(), rtol=1e-5)
    after, _ = generator_step(gan, state, batch, KEY)
    kernel = dense["kernel"].reshape(2, 2).mean(0)  # what a sample's place in its pack matters, averaged
    np.testing.assert_allclose(after.generator.params["Dense_0"]["bias"],
                               np.float64(state.generator.params["Dense_0"]["bias"]) + 0.05 * 2 * kernel,
                               rtol=1e-4, atol=1e-6)
    assert not same(new.critic.params, state.critic.params)
    with pytest.raises(ValueError, match="packs of 2 need a multiple of 2 samples; got 3"):
        judge(gan, state, batch.samples[:3])


def stretched(keys, step, state):
    """An augmentation's draws: a factor for each example."""
    return jax.vmap(lambda key: jax.random.uniform(key, minval=1.0, maxval=3.0))(keys)


@pytest.mark.parametrize(("penalty", "of_real", "of_fake", "behind"), [
    (penalties.r1(2.0), 1, 0, 0), (penalties.r2(2.0), 0, 1, 0),
    (penalties.zero_centered(0.5), 0, 0, 0.5),
    (penalties.combine(penalties.r1(1.0), penalties.r2(3.0), penalties.zero_centered(0.5)),
     0.5, 1.5, 0.5)])
def test_penalties_at_samples_go_through_the_augmentation_others_start_behind_it(
        penalty, of_real, of_fake, behind):
    """Samples are stretched by the factor u they are scored with: the gradient is u w, behind it w."""
    gan = tiny(generator=Linear(2), critic=Linear(), penalty=penalty, augment=Augmentation(
        stretched, lambda factors, samples: factors[:, None] * samples))
    batch = points(COUNT)
    state = begin(gan, batch)
    square = np.sum(np.float64(state.critic.params["Dense_0"]["kernel"]) ** 2)
    of = {kind: np.mean(np.float64(stretched(keys.example_keys(
        keys.stream(KEY, f"{kind}_noise"), COUNT), 0, ())) ** 2) for kind in ("real", "fake")}
    _, metrics = critic_step(gan, state, batch, KEY)
    np.testing.assert_allclose(metrics["critic/penalty"], square * (
        of_real * of["real"] + of_fake * of["fake"] + behind), rtol=1e-5)


@pytest.mark.parametrize(("kind", "penalty"), [("real", penalties.r1), ("fake", penalties.r2)])
def test_differences_go_through_the_augmentation_from_the_scores_there_are(kind, penalty):
    """Of a linear critic a step n changes a score by u w n; it is asked once more, for these alone."""
    asked = []

    class Asked(Linear):
        def __call__(self, samples, condition=None, *, train):
            asked.append(len(samples))
            return super().__call__(samples, condition, train=train)

    gan = tiny(generator=Linear(2), critic=Asked(), penalty=penalty(2.0, finite_difference=0.5),
               augment=Augmentation(stretched, lambda factors, samples: factors[:, None] * samples))
    batch = points(COUNT)
    state = begin(gan, batch)
    asked.clear()
    _, metrics = critic_step(gan, state, batch, KEY)
    assert asked.count(COUNT) == 1
    kernel = np.float64(state.critic.params["Dense_0"]["kernel"])
    factors = stretched(keys.example_keys(keys.stream(KEY, f"{kind}_noise"), COUNT), 0, ())
    noise = penalties.add_noise(jnp.zeros((COUNT, 2)), keys.example_keys(
        keys.stream(KEY, "penalty"), COUNT), 1.0)
    slopes = np.float64(factors) * (np.float64(noise) @ kernel)[:, 0]
    np.testing.assert_allclose(metrics["critic/penalty"], np.mean(slopes**2), rtol=1e-4)


def test_a_penalty_at_samples_is_of_whole_packs():
    gan = tiny(generator=Linear(2), critic=Linear(), augment=packed(2), penalty=penalties.r1(2.0))
    state = begin(gan, points(COUNT))
    _, metrics = critic_step(gan, state, points(COUNT), KEY)
    np.testing.assert_allclose(metrics["critic/penalty"],
                               np.sum(np.square(state.critic.params["Dense_0"]["kernel"])), rtol=1e-5)


def test_images_and_conditions_are_packed():
    images = jnp.arange(4 * 2 * 2 * 3.0).reshape(4, 2, 2, 3)
    shown = packed(2).show((), images)
    assert shown.shape == (2, 2, 2, 6)
    np.testing.assert_array_equal(shown[1, ..., :3], images[2])
    np.testing.assert_array_equal(shown[1, ..., 3:], images[3])
    condition = packed(2).condition({"label": jnp.arange(4), "box": jnp.ones((4, 3)), "none": None})
    np.testing.assert_array_equal(condition["label"], [[0, 1], [2, 3]])
    assert condition["box"].shape == (2, 2, 3)


def test_a_chain_is_one_after_the_other():
    """Each draws from keys of its own."""
    chained = chain([instance_noise(0.5), packed(2)])
    x = jnp.zeros((4, 2))
    drawn = chained.draw(keys.example_keys(KEY, 4), jnp.int32(0), ())
    shown = chained.show(drawn, x)
    assert shown.shape == (2, 4)
    first = jax.vmap(jax.random.fold_in, (0, None))(keys.example_keys(KEY, 4), 0)
    np.testing.assert_allclose(shown, packed(2).quiet(penalties.add_noise(x, first, 0.5)), rtol=1e-6)
    assert chained.quiet(x).shape == (2, 4)
    assert chain([following(), packed(2)]).term.name == "sureness"


def test_noise_may_be_of_whole_packs():
    chained = chain([packed(2), instance_noise(0.5)])
    drawn = chained.draw(keys.example_keys(KEY, 40), jnp.int32(0), ())
    assert chained.show(drawn, jnp.zeros((40, 2))).std() == pytest.approx(0.5, rel=0.3)


def test_a_task_may_be_of_one_network_alone():
    term = Term("level", lambda view, state: jnp.square(view.real.scores).mean(), 0.5)
    gan = make(tasks=(Task(critic=term),))
    state = begin(gan)
    _, metrics = jax.jit(partial(train_step, gan))(state, example(0, 1), KEY)
    assert {"critic/level", "critic/level_weight", "critic/adversarial"} <= metrics.keys()
    assert not {"generator/level", "generator/adversarial"} & metrics.keys()


@cache
def observed_only():
    return on("critic", Term("watch", lambda view, state: Value(None, {"a": view.real.scores.mean(),
                                                                       "b": view.real.scores}), 0.0,
                             report=lambda observed: {"a": observed["a"], "apart/a": observed["a"]}))


def test_a_term_may_only_observe():
    """It trains nothing, and reports under its network's name or one of its own."""
    gan = observed_only()
    found, metrics = critic_step(gan, begin(gan), example(), KEY)
    plain, expected = critic_step(make(), begin(make()), example(), KEY)
    assert_close(found.critic.params, plain.critic.params)
    assert metrics.keys() == expected.keys() | {"critic/a", "apart/a"}
    np.testing.assert_allclose(metrics["apart/a"], metrics["critic/real_score"], rtol=1e-6)


def test_no_metric_takes_the_name_of_another():
    gan = tiny(critic_terms=(Term("fake_score", lambda view, state: view.fake.scores.mean(), 0.0),))
    state = init_state(gan, KEY, points(4))
    with pytest.raises(ValueError, match="two metrics are called 'critic/fake_score', the second one"):
        critic_step(gan, state, points(4), KEY)
