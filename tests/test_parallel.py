"""A step over several devices is the step on one, up to the order of floating-point sums."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Generator, Linear, points, tiny

from benchmarks.collectives import all_reduces
from experiments import launch, opening
from jaxgan import (
    GAN,
    data_parallel,
    game,
    init_state,
    keys,
    losses,
    memory,
    networks,
    parallel,
    penalties,
    run_steps,
    sample,
    training,
)
from jaxgan.augment import instance_noise
from jaxgan.data import Dataset, in_memory, mixture, resident
from jaxgan.gan import draw_latents
from jaxgan.lanes import train_seeds
from jaxgan.models.gat import GATCritic, GATGenerator, as_outputs, last_output
from jaxgan.nn.norms import normalise, weight_layer
from jaxgan.runs import read_logs
from jaxgan.steps import critic_step, generator_step, train_step
from jaxgan.terms import lazy
from jaxgan.training import Plan, train
from jaxgan.types import Batch
from tests.faults import processes

KEY = jax.random.key(21)
ITERATIONS, N_CRITIC, BATCH_SIZE = 4, 2, 16


class Smooth(nn.Module):
    """A critic without kinks, where a rounding error could tip a sample to the other side."""

    norm: str
    axis_name: str | None = None

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        x = samples.reshape(samples.shape[0], -1)
        if condition is not None:
            x = jnp.concatenate([x, jax.nn.one_hot(condition, 3)], 1)
        x = weight_layer(self.norm, nn.Dense(8), x, train=train)
        x = nn.softplus(normalise(self.norm, x, train=train, axis_name=self.axis_name))
        return weight_layer(self.norm, nn.Dense(1), x, train=train).squeeze(-1)


class Painter(nn.Module):
    """A generator of images [2, 2, 1], one kind a class."""

    @nn.compact
    def __call__(self, latents, condition, *, train):
        x = jnp.concatenate([latents, jax.nn.one_hot(condition, 3)], 1)
        return nn.tanh(nn.Dense(4)(x)).reshape(-1, 2, 2, 1)


def made_images():
    """Ten labelled images: an epoch ends in the middle of an iteration."""
    rng = np.random.default_rng(0)
    return Dataset("made", rng.integers(0, 256, (10, 2, 2, 1)).astype(np.uint8),
                   np.arange(10, dtype=np.int32) % 3, ("a", "b", "c"))


POINTS, IMAGES = mixture("8gaussians"), resident(made_images(), dequantize=True, labels=True)
CASES = {
    "no norm": (POINTS, tiny(
        penalty=penalties.gradient_penalty(0.3), ema_decay=0.9,
        augment=instance_noise(optax.linear_schedule(0.5, 0.0, 10)))),
    "layer norm, batch norm": (POINTS, tiny(
        penalty=penalties.dragan(0.3), critic=Smooth("layer"), generator=Generator(norm=True),
        ema_decay=0.9)),
    "batch norm": (POINTS, tiny(
        penalty=None, critic=Smooth("batch"), generator=Generator(norm=True),
        loss=losses.relativistic_average(), generator_optimizer=optax.sgd(1.0))),
    "spectral norm, images": (IMAGES, tiny(
        penalty=None, critic=Smooth("spectral"), generator=Painter(), generator_batches=2)),
    "orthonormal": (POINTS, tiny(penalty=None, critic=Smooth("orthonormal"))),
    "lazy, accumulated, clipped": (POINTS, tiny(
        penalty=lazy(penalties.gradient_penalty(0.3), 2), accumulate=2, ema_decay=0.9,
        augment=instance_noise(0.1),
        critic_optimizer=optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1, 0.5)))),
    "gat": (in_memory(np.random.default_rng(1).uniform(-1, 1, (10, 4, 4, 1)).astype(np.float32)), GAN(
        generator=GATGenerator((4, 4, 1), 2, 2, 8, 2, outputs=2), critic=GATCritic(2, 2, 8, 2),
        latent_size=3, loss=losses.relativistic(), penalty=penalties.combine(
            penalties.r1(0.1, finite_difference=0.1), penalties.r2(0.1, finite_difference=0.1)),
        generator_optimizer=optax.sgd(0.05), critic_optimizer=optax.sgd(0.05), ema_decay=0.9,
        lift=partial(as_outputs, 2), lower=last_output)),
}


def close(a, b, tolerance=2e-6):
    """Asserts that every array of two trees differs by at most that part of its largest value."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.float64(x), np.float64(y)
        assert x.shape == y.shape, path
        error, size = np.abs(x - y).max(), np.abs(y).max()
        assert error <= tolerance * max(size, 0.1), (jax.tree_util.keystr(path), error, size)


def steps(gan, source, **options):
    return partial(run_steps, game(gan, **options), source=source, batches_per_step=N_CRITIC,
                   batch_size=BATCH_SIZE)


@cache
def on_one_device(case):
    """The initial state, the state after several iterations under jit, and its metrics."""
    source, gan = CASES[case]
    example = Batch(jnp.zeros((2, *source.sample_shape)),
                    jnp.zeros(2, jnp.int32) if source is IMAGES else None)
    state = jax.jit(partial(init_state, gan))(KEY, example)
    return state, *jax.jit(steps(gan, source))(state, source.arrays, KEY, ITERATIONS)


@pytest.mark.parametrize(("case", "count"), [
    ("no norm", 8), ("orthonormal", 2),
    *(pytest.param("no norm", count, marks=pytest.mark.slow) for count in (1, 2, 4)),
    pytest.param("batch norm", 8, marks=pytest.mark.slow),
    pytest.param("layer norm, batch norm", 4, marks=pytest.mark.slow),
    pytest.param("spectral norm, images", 4, marks=pytest.mark.slow)])
def test_many_devices_do_what_one_does(case, count):
    """Data, latents, input noise and the penalty's points included."""
    state, expected, expected_metrics = on_one_device(case)
    for network in ("generator", "critic"):
        change = optax.tree.norm(jax.tree.map(jnp.subtract, *(
            getattr(s, network).params for s in (state, expected))))
        assert change > 0.02  # ten thousand times what is tolerated
    source, gan = CASES[case]
    devices = jax.devices()[:count]
    options = {"fakes_at_once": case == "layer norm, batch norm"}
    mapped = data_parallel(steps(gan, source, **options), devices=devices, batch_axis=None)
    done, metrics = mapped(state, source.arrays, KEY, ITERATIONS)
    close(done, expected)
    close(metrics, expected_metrics, 2e-5)
    assert all(leaf.sharding.device_set == set(devices) for leaf in jax.tree.leaves(done))


@pytest.mark.parametrize("large", [None, 16])
def test_one_all_reduce_a_network_update(large, monkeypatch):
    """Of gradients, statistics and metrics together; the critic's are in a loop that runs n times.
    Large arrays, here kernels, are not copied into one first: XLA joins them.
    """
    if large:
        monkeypatch.setattr(networks, "_LARGE", large)
    gan = tiny(critic_optimizer=optax.adam(0.1))
    step = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)
    arguments = init_state(gan, KEY, points(4)), points(3, 4), KEY
    reductions = all_reduces(jax.jit(step).lower(*arguments).compile().as_text())
    of_generator, of_critic = (
        sum(leaf.size >= (large or np.inf) for leaf in jax.tree.leaves(network.params))
        for network in (arguments[0].generator, arguments[0].critic))
    assert (of_generator, of_critic) == ((2, 1) if large else (0, 0))
    assert sorted((reduction.times, reduction.arrays) for reduction in reductions) == [
        (1, 1 + of_generator), (3, 1 + of_critic)]
    gradients = 4 * sum(leaf.size for leaf in jax.tree.leaves(arguments[0].critic.params))
    metrics = 4 * 8  # two losses, the penalty, three means of scores, two moments of norms
    assert max(reductions).bytes == gradients + metrics


# Against averages made by hand. Plain SGD: Adam would hide gradients that are n times too large.

def shares(count, size):
    return [slice(i * size // count, (i + 1) * size // count) for i in range(count)]


def test_critic_update_is_the_average_of_the_devices_gradients():
    gan = tiny(penalty=None, loss=losses.non_saturating())
    batch = points(8)
    state = init_state(gan, KEY, batch)
    fake = gan.generator.apply(state.generator.variables, train=True,
                               latents=draw_latents(gan, keys.stream(KEY, "latents"), 8))

    @jax.jit
    @jax.grad
    def gradient(params, real, fake):
        real, fake = (gan.critic.apply({"params": params}, x, train=True) for x in (real, fake))
        return jnp.log1p(jnp.exp(-real)).mean() + jnp.log1p(jnp.exp(fake)).mean()

    parts = [gradient(state.critic.params, batch.samples[share], fake[share]) for share in shares(4, 8)]
    expected = jax.tree.map(lambda p, *g: np.float64(p) - 0.1 * np.mean(np.float64(g), 0),
                            state.critic.params, *parts)
    new, _ = data_parallel(partial(critic_step, gan), devices=jax.devices()[:4])(state, batch, KEY)
    close(new.critic.params, expected)
    close((new.generator, new.step), (state.generator, state.step), 0)


def test_generator_update_is_the_average_of_the_devices_gradients():
    gan = tiny(penalty=None)
    batch = points(8)
    state = init_state(gan, KEY, batch)
    latents = draw_latents(gan, keys.stream(KEY, "latents"), 8)

    @jax.jit
    @jax.grad
    def gradient(params, latents):
        fake = gan.generator.apply({"params": params}, latents, train=True)
        return -gan.critic.apply(state.critic.variables, fake, train=True).mean()

    parts = [gradient(state.generator.params, latents[share]) for share in shares(4, 8)]
    expected = jax.tree.map(lambda p, *g: np.float64(p) - 0.05 * np.mean(np.float64(g), 0),
                            state.generator.params, *parts)
    new, _ = data_parallel(partial(generator_step, gan), devices=jax.devices()[:4])(state, batch, KEY)
    close(new.generator.params, expected)
    close(new.critic, state.critic, 0)


def test_relativistic_average_compares_with_the_mean_over_all_devices():
    """One sample a device: what a device alone would compute is another loss altogether."""
    gan = tiny(generator=Linear(2), critic=Linear(), penalty=None, loss=losses.relativistic_average())
    batch = points(8)
    state = init_state(gan, KEY, batch)
    w, a, c = (np.float64(leaf) for leaf in (state.critic.params["Dense_0"]["kernel"][:, 0],
                                             state.generator.params["Dense_0"]["kernel"],
                                             state.generator.params["Dense_0"]["bias"]))
    real = np.float64(batch.samples)
    fake = np.float64(draw_latents(gan, keys.stream(KEY, "latents"), 8)) @ a + c
    logits = (fake.mean(0) - real) @ w, (fake - real.mean(0)) @ w
    first, second = (1 / (1 + np.exp(-x)) for x in logits)
    gradient = (np.mean(first[:, None] * (fake.mean(0) - real), 0)
                + np.mean(second[:, None] * (fake - real.mean(0)), 0))
    new, metrics = data_parallel(partial(critic_step, gan))(state, batch, KEY)
    close(new.critic.params["Dense_0"]["kernel"][:, 0], w - 0.1 * gradient)
    np.testing.assert_allclose(metrics["critic/loss"], sum(np.log1p(np.exp(x)).mean() for x in logits),
                               rtol=1e-5)
    np.testing.assert_allclose(metrics["critic/gradient_norm"], np.linalg.norm(gradient), rtol=1e-5)


# How a mapped step is called.

def test_batches_of_train_step_are_split_along_their_second_axis():
    gan = tiny(penalty=None)
    state = init_state(gan, KEY, points(8))
    batches = Batch(points(2, 8).samples, jnp.linspace(-1.0, 1.0, 16).reshape(2, 8))
    expected, expected_metrics = jax.jit(partial(train_step, gan))(state, batches, KEY)
    step = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)
    new, metrics = step(state, batches, KEY)
    close(new, expected)
    close(metrics, expected_metrics, 2e-5)


@pytest.mark.parametrize("donate", [False, True])
def test_state_has_no_device_axis_and_goes_round(donate):
    gan = tiny(generator=Generator(norm=True), ema_decay=0.9)
    first = init_state(gan, KEY, points(8))
    traces = []

    def counted(*args, **kwargs):
        traces.append(args)
        return generator_step(gan, *args, **kwargs)

    step = data_parallel(counted, devices=jax.devices()[:2], axis_name="replicas", donate=donate)
    second, _ = step(first, points(8), KEY)
    traced = len(traces)
    state, metrics = step(second, points(8), KEY)
    assert len(traces) == traced
    assert {leaf.is_deleted() for leaf in jax.tree.leaves(second)} == {donate}
    assert jax.eval_shape(lambda: second) == jax.eval_shape(lambda: state)
    assert {m.shape for m in metrics.values()} == {()}
    assert state.step == 2
    assert sample(gan, state, KEY, 5).shape == (5, 2)
    assert jax.tree.map(np.asarray, state).generator.params["Dense_0"]["bias"].shape == (8,)


@pytest.mark.parametrize(("batch_axis", "count", "batch", "shape"), [
    (0, 4, points(6), r"\(6, 2\)"),
    (0, 8, points(4), r"\(4, 2\)"),
    (1, 4, points(4, 6), r"\(4, 6, 2\)"),
    (1, 4, Batch(jnp.zeros((2, 4, 2)), jnp.zeros(2)), r"\(2,\)"),
])
def test_batches_that_do_not_divide(batch_axis, count, batch, shape):
    step = data_parallel(None, devices=jax.devices()[:count], batch_axis=batch_axis)
    message = (f"axis {batch_axis} of the batch must divide over {count} devices; got shape {shape}: "
               f"choose a multiple of {count} as batch size")
    with pytest.raises(ValueError, match=message):
        step(None, batch, KEY)


def test_a_drawn_batch_that_the_devices_do_not_divide_is_refused():
    step = data_parallel(partial(run_steps, game(tiny()), source=POINTS, batches_per_step=1,
                                 batch_size=6),
                         devices=jax.devices()[:4], batch_axis=None)
    state = init_state(tiny(), KEY, points(4))
    with pytest.raises(ValueError, match="batch_size must divide over 4 devices; got 6: choose a mult"):
        step(state, (), KEY, 1)


# The state spread over the devices.

@pytest.fixture
def every_array_is_cut(monkeypatch):
    """Those of the smallest networks, too."""
    monkeypatch.setattr(parallel, "_SMALL", 0)


def cut(state):
    """The arrays of which a device holds a part."""
    return [leaf for leaf in jax.tree.leaves(state) if not leaf.is_fully_replicated]


@pytest.mark.parametrize(("case", "count"), [
    ("no norm", 8), ("batch norm", 2),
    *(pytest.param(case, count, marks=pytest.mark.slow) for case, count in (
        ("no norm", 1), ("no norm", 2), ("no norm", 4), ("batch norm", 8), ("gat", 2), ("gat", 8),
        ("layer norm, batch norm", 4), ("spectral norm, images", 4), ("orthonormal", 8),
        ("lazy, accumulated, clipped", 4)))])
def test_a_spread_state_becomes_what_it_becomes_on_one_device(case, count, every_array_is_cut):
    """Of optimisers that look at all of a gradient, too."""
    state, expected, expected_metrics = on_one_device(case)
    source, gan = CASES[case]
    devices = jax.devices()[:count]
    step = data_parallel(steps(gan, source, fakes_at_once=case == "layer norm, batch norm"),
                         devices=devices, batch_axis=None, shard="state")
    done, metrics = step(state, source.arrays, KEY, ITERATIONS)
    close(done, expected, 1e-5)
    close(metrics, expected_metrics, 1e-4)
    assert all(leaf.sharding.device_set == set(devices) for leaf in jax.tree.leaves(done))
    assert bool(cut(done)) == (count > 1)
    for leaf in cut(done):
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // count}


def wide(width=256):
    """A GAN whose state is nearly all kernels, moments and averages of them."""
    class Wide(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x, condition=None, *, train):
            x = nn.softplus(nn.Dense(width)(nn.softplus(nn.Dense(width)(x))))
            return nn.Dense(self.features)(x).squeeze(-1) if self.features == 1 else (
                nn.Dense(self.features)(x))

    return tiny(generator=Wide(2), critic=Wide(1), penalty=None, ema_decay=0.9,
                generator_optimizer=optax.adam(1e-3), critic_optimizer=optax.adam(1e-3))


def test_each_of_eight_devices_holds_an_eighth_and_computes_one():
    gan = wide()
    state = jax.eval_shape(partial(init_state, gan), KEY, points(8))
    costs = {}
    for shard in (None, "state"):
        step = data_parallel(partial(train_step, gan), batch_axis=1, shard=shard)
        given = state if shard is None else jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            state, parallel.spread(state, jax.devices()))
        compiled = jax.jit(step, donate_argnums=0).lower(given, points(1, 64), KEY).compile()
        costs[shard] = compiled.cost_analysis()["flops"], compiled.memory_analysis()
    whole = memory.size_of(state)
    assert memory.size_of(state, parallel.spread(state, jax.devices())) < 1.2 * whole / 8
    assert costs[None][1].argument_size_in_bytes > whole
    assert costs["state"][1].argument_size_in_bytes < 1.2 * whole / 8 + points(1, 64).samples.nbytes
    assert costs["state"][0] < 1.1 * costs[None][0]
    networks = {name: memory.size_of(getattr(state, name).params) for name in ("generator", "critic")}
    gathered = sum(networks.values()) + max(networks.values())  # both, and a gradient
    extra = costs["state"][1].temp_size_in_bytes - costs[None][1].temp_size_in_bytes
    assert extra < gathered


def test_a_spread_state_goes_round_and_is_sampled(every_array_is_cut):
    gan = tiny(generator=Generator(norm=True), ema_decay=0.9)
    state = init_state(gan, KEY, points(8))
    step = data_parallel(partial(generator_step, gan), devices=jax.devices()[:2], donate=True,
                         shard="state")
    first, _ = step(state, points(8), KEY)
    second, metrics = step(first, points(8), KEY)
    assert all(leaf.is_deleted() for leaf in cut(first))
    assert jax.eval_shape(lambda: second) == jax.eval_shape(lambda: state)
    assert {m.shape for m in metrics.values()} == {()}
    drawn = jax.jit(lambda state: sample(gan, state, KEY, 5))(second)
    np.testing.assert_allclose(drawn, sample(gan, jax.device_get(second), KEY, 5), atol=1e-6)


PLANNED = {"batch_size": 16, "n_critic": 2, "log_every": 2, "checkpoint_every": 4}
GENTLE = tiny(penalty=penalties.gradient_penalty(0.5), ema_decay=0.9, generator=Generator(norm=True))


@pytest.mark.parametrize(("before", "after"), [
    ({"devices": 8, "shard": "state"}, {"devices": 2}),
    pytest.param({"devices": 2}, {"devices": 8, "shard": "state"}, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_other_devices_and_the_other_way(before, after, every_array_is_cut, tmp_path):
    _, expected = train(GENTLE, POINTS, tmp_path / "one", steps=8, devices=1, **PLANNED)
    train(GENTLE, POINTS, tmp_path / "run", steps=4, **before, **PLANNED)
    state, result = train(GENTLE, POINTS, tmp_path / "run", steps=8, resume="latest", **after, **PLANNED)
    assert bool(cut(state)) == ("shard" in after)
    assert result["final"] == pytest.approx(expected["final"], abs=1e-4)
    logged, _ = read_logs(tmp_path / "run")
    for row, other in zip(logged, read_logs(tmp_path / "one")[0], strict=True):
        assert row == pytest.approx(other, abs=1e-4)


def test_the_first_state_is_made_spread_and_has_the_bits_that_it_has_on_one(every_array_is_cut):
    begin = partial(training.initial_state, game(GENTLE), 3, points(8))
    made = begin(parallel.spread(jax.eval_shape(begin), jax.devices()[:4]))
    assert cut(made)
    close(made, begin(), 0)


@pytest.mark.slow
def test_spread_runs_of_several_seeds_are_trained_one_after_the_other(every_array_is_cut, tmp_path):
    done = train_seeds(GENTLE, POINTS, tmp_path / "all", (0, 1), steps=2, devices=2, shard="state",
                       **PLANNED)
    _, expected = train(GENTLE, POINTS, tmp_path / "one", steps=2, seed=1, devices=2, **PLANNED)
    assert done["seed_1"][1]["final"] == pytest.approx(expected["final"], abs=1e-4)


@pytest.mark.slow
def test_the_flag_changes_nothing_but_where_the_state_is(tmp_path):
    """Where the data are, neither. Of Adam a few steps: it soon makes much of a rounding error."""
    experiment = opening.load("digits")
    for name, flags in (("spread", ("--shard", "state", "--stream")), ("whole", ())):
        assert launch.start(experiment, [
            "--width", "64", "--batch-size", "8", "--n-critic", "2", "--log-every", "1", "--steps", "3",
            "--devices", "2", "--run-dir", str(tmp_path / name), *flags]) == 0
    rows = [read_logs(tmp_path / name)[0] for name in ("spread", "whole")]
    for row, other in zip(*rows, strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_spread_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path):
    flags = (*processes.TINY, "--width", 64, "--steps", 40, "--checkpoint-every", 20, "--decay-steps",
             6000, "--shard", "state")
    last, status = processes.finish(processes.start("digits", *flags, "--run-dir", tmp_path / "a",
                                                    devices=2))
    assert status == 0, last
    running = processes.start("digits", *flags, "--steps", 10**6, "--run-dir", tmp_path / "b", devices=2)
    processes.wait_until((tmp_path / "b" / "checkpoints" / "00000020").exists, running)
    processes.kill(running)
    last, status = processes.finish(processes.start(
        "digits", *flags, "--run-dir", tmp_path / "b", "--resume", "20", devices=2))
    assert status == 0, last
    assert processes.result(tmp_path / "a")["leaves_sha256"] == processes.result(
        tmp_path / "b")["leaves_sha256"]
    assert processes.rows(tmp_path / "a") == processes.rows(tmp_path / "b")


@pytest.mark.parametrize(("how", "message"), [
    ({"shard": "moments"}, "shard must be state or None; got 'moments'"),
    ({"shard": "state", "batch_size": 6, "devices": 4},
     "batch_size 6 does not divide over 4 devices: choose a multiple, or --devices 1")])
def test_plans_that_can_not_be_spread(how, message):
    with pytest.raises(ValueError, match=message):
        Plan(steps=1, **how)


def test_batches_that_do_not_divide_over_those_that_share_them():
    step = data_parallel(partial(train_step, tiny()), devices=jax.devices()[:4], batch_axis=1,
                         shard="state")
    with pytest.raises(ValueError, match=r"axis 1 of the batch must divide over 4 devices; got shape"):
        step(None, points(4, 6), KEY)
    drawing = data_parallel(partial(run_steps, game(tiny()), source=POINTS, batches_per_step=1,
                                    batch_size=6), devices=jax.devices()[:4], batch_axis=None,
                            shard="state")
    with pytest.raises(ValueError, match="batch_size must divide over 4 devices; got 6: choose a mult"):
        drawing(init_state(tiny(), KEY, points(4)), (), KEY, 1)


def test_lanes_of_one_program_are_not_spread(tmp_path):
    with pytest.raises(ValueError, match="shard is for runs one after the other"):
        train_seeds(GENTLE, POINTS, tmp_path, (0, 1), together=True, steps=1, shard="state", **PLANNED)


def test_a_state_that_is_too_large_is_told_what_would_fit(tmp_path, monkeypatch):
    """Before anything is compiled or written."""
    for module in (memory, training):
        monkeypatch.setattr(module, "available", lambda: 1e8)
    with pytest.raises(ValueError, match=(
            r"the networks and their optimisers take 0\.4\d+ GB, and there are 0\.1 GB of memory: lower "
            r"the width, or give --shard state, with which each of 8 devices holds 0\.0\d+ GB and "
            "gathers a network where it is used")):
        train(wide(2**12), POINTS, tmp_path / "a", steps=1, **PLANNED)
    for how, each in (({}, ""), ({"shard": "state"}, " on each device")):
        with pytest.raises(ValueError, match=f"GB{each}, and there are 0.1 GB .*: lower the width$"):
            train(wide(2**12), POINTS, tmp_path / "a", steps=1, devices=2, **how, **PLANNED)
    assert not (tmp_path / "a").exists()
