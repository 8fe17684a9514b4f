"""States that hold more than floating-point numbers: counters, truths and random keys."""

import shutil
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Generator, Linear, points, same, tiny

from jaxgan import Game, Term, Value, data_parallel, game, init_state, run_steps, sample, train_steps
from jaxgan.checkpoints import CheckpointError, Checkpoints
from jaxgan.data import in_memory, mixture
from jaxgan.digests import leaf_digest, params_digest
from jaxgan.gan import judge
from jaxgan.steps import train_step
from jaxgan.training import Plan, train

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(5)
SOURCE = mixture("8gaussians")


def begun(gan):
    return jax.jit(partial(init_state, gan))(KEY, points(4))


def bits(tree):
    """The same tree, with the numbers of keys in their place."""
    return jax.tree.map(lambda x: np.asarray(
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x), tree)


class Counting(nn.Module):
    """Statistics of any dtype, which each call in training moves on."""

    dtype: Any
    features: int | None = None

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        is_key = self.dtype == "key"
        held = self.variable("own", "held", lambda: jax.random.key(7) if is_key
                             else jnp.ones((), self.dtype))
        if train:
            held.value = (jax.random.fold_in(held.value, 1) if is_key else ~held.value
                          if self.dtype is bool else held.value + jnp.ones((), self.dtype))
        out = nn.Dense(self.features or 1)(x)
        return out if self.features else out.squeeze(-1)


@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.bfloat16, "key"])
def test_statistics_of_any_dtype_are_averaged_or_copied(dtype):
    gan = tiny(generator=Counting(dtype, 2), critic=Counting(dtype), ema_decay=0.5)
    state = begun(gan)
    after, _ = jax.jit(partial(train_step, gan))(state, points(2, 4), KEY)
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]
    held, averaged = after.generator.stats["own"]["held"], after.ema["own"]["held"]
    if dtype == jnp.bfloat16:  # 1, then 2 of weight 1 - 2/11, rounded to eight bits
        assert averaged == jnp.bfloat16(1 * 2 / 11 + 2 * 9 / 11)
    else:
        assert same(bits(averaged), bits(held))
        assert not same(bits(held), bits(state.generator.stats["own"]["held"]))
    old, new = (x.params["Dense_0"]["kernel"] for x in (state.generator, after.generator))
    np.testing.assert_allclose(after.ema["params"]["Dense_0"]["kernel"], 2 / 11 * old + 9 / 11 * new,
                               rtol=1e-5)
    assert jnp.isfinite(sample(gan, after, KEY, 3)).all()
    assert jnp.isfinite(judge(gan, after, points(3).samples).scores).all()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.int32, bool, "key"])
def test_statistics_without_a_mean_on_several_devices(dtype):
    """Exact, where a mean of floating-point numbers would round."""
    gan = tiny(generator=Counting(dtype, 2), critic=Counting(dtype), ema_decay=0.5)
    state = begun(gan)
    if dtype is jnp.int32:
        held = {"own": {"held": jnp.int32(2**24 + 1)}}
        state = state._replace(critic=state.critic._replace(stats=held))
    one, _ = jax.jit(partial(train_step, gan))(state, points(2, 8), KEY)
    four, _ = data_parallel(partial(train_step, gan), devices=jax.devices()[:4], batch_axis=1)(
        state, points(2, 8), KEY)
    for a, b in ((one.critic.stats, four.critic.stats), (one.generator.stats, four.generator.stats),
                 (one.ema["own"], four.ema["own"])):
        assert same(bits(a), bits(b))


def noisy(seed):
    """Optimisers that keep a key, and a generator that does."""
    return tiny(
        critic_optimizer=optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(seed)),
                                     optax.sgd(1e-2)),
        generator_optimizer=optax.noisy_sgd(1e-2, key=jax.random.key(seed)),
        generator=Counting("key", 2), ema_decay=0.9)


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_optimisers_that_draw_resume_exactly(devices, tmp_path):
    """Their noise goes on where it was: a run that is interrupted comes to the same bits."""
    options = {"batch_size": 8, "n_critic": 2, "log_every": 4, "devices": devices}
    whole, result = train(noisy(1), SOURCE, tmp_path / "a", steps=4, checkpoint_every=2, **options)
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "00000004")
    (tmp_path / "a" / "result.json").unlink()
    resumed, again = train(noisy(1), SOURCE, tmp_path / "a", steps=4, resume="latest", **options)
    assert result["params_sha256"] == again["params_sha256"]
    assert same(bits(whole), bits(resumed))


def test_optimisers_that_draw_do_so_by_their_key():
    batches = points(2, 4)
    states = [begun(noisy(seed)) for seed in (1, 2)]
    step = jax.jit(partial(train_step, noisy(1)))
    a, b = (step(state, batches, KEY)[0] for state in states)
    assert not same(a.critic.params, b.critic.params)
    assert not same(a.generator.params, b.generator.params)


class State(NamedTuple):
    step: jax.Array
    key: jax.Array
    place: dict


def wander(key):
    """A game whose state holds a key: a random walk."""
    def step(state, batches, key, *, axis_name=None):
        own, drawn = jax.random.split(state.key)
        moved = {"x": state.place["x"] + jax.random.normal(drawn)}
        return State(state.step + 1, own, moved), {"walk/x": moved["x"]}

    return Game(lambda _, example: State(jnp.int32(0), key, {"x": jnp.zeros(())}), step,
                lambda state: {"walk": state.place})


def test_games_and_terms_may_keep_keys(tmp_path):
    walk = wander(jax.random.key(3, impl="rbg"))
    train(walk, SOURCE, tmp_path / "walk", steps=2, batch_size=8)
    state, _ = train(walk, SOURCE, tmp_path / "walk", steps=4, batch_size=8, resume="auto")
    key, place = jax.random.key(3, impl="rbg"), 0.0
    for _ in range(4):
        key, drawn = jax.random.split(key)
        place += jax.random.normal(drawn)
    np.testing.assert_allclose(state.place["x"], place, rtol=1e-5)


def test_terms_may_keep_keys():
    def term(name, every):
        return Term(name, lambda view, state: Value(None, {name: jax.random.normal(state)}), 0.0,
                    lambda: jax.random.key(4), lambda state, observed: jax.random.fold_in(state, 0),
                    every)

    gan = tiny(critic_terms=(term("always", 1), term("lazy", 2)))
    state = begun(gan)
    state, _ = jax.jit(partial(train_steps, gan, source=SOURCE, n_critic=1, batch_size=4))(
        state, SOURCE.arrays, KEY, 3)
    once = jax.random.fold_in(jax.random.key(4), 0)
    twice = jax.random.fold_in(once, 0)
    assert same(bits(state.critic.terms["lazy"].state), bits(twice))
    assert same(bits(state.critic.terms["always"]), bits(jax.random.fold_in(twice, 0)))


def test_checkpoints_of_keys(tmp_path):
    """The same key comes back, of its own kind, with a template and without one."""
    kinds = {impl: jax.random.split(jax.random.key(2, impl=impl), 3)
             for impl in ("threefry2x32", "rbg", "unsafe_rbg")}
    saved = Checkpoints(tmp_path / "checkpoints")
    saved.save(1, {"keys": kinds, "x": jnp.ones(2)})
    saved.wait()
    template = jax.eval_shape(lambda: {"keys": kinds, "x": jnp.ones(2)})
    for restored in (saved.restore(template), saved.load()):
        for impl, key in kinds.items():
            back = restored["keys"][impl]
            assert back.dtype == key.dtype
            np.testing.assert_array_equal(jax.random.normal(back[1]), jax.random.normal(key[1]))
    other = {"keys": kinds | {"rbg": kinds["unsafe_rbg"]}, "x": jnp.ones(2)}
    with pytest.raises(CheckpointError, match=r"\['rbg'\] is key<rbg>\[3\] there and key<urbg>\[3\]"):
        saved.restore(other)
    saved.close()


def test_digests_tell_keys_apart():
    threefry, rbg = jax.random.key(1), jax.random.key(1, impl="rbg")
    for digest in (leaf_digest, params_digest):
        digests = [digest(key) for key in (threefry, jax.random.key(2), rbg, jax.random.key_data(rbg))]
        assert len({*digests}) == 4
        assert digest(jax.random.key(1)) == digest(threefry)


def test_many_iterations_by_either_name():
    gan, source = tiny(generator=Generator(norm=True), critic=Linear()), in_memory(points(10))
    state = begun(gan)
    options = {"source": source, "batch_size": 4}
    mine, theirs = (jax.jit(partial(function, **options))(state, source.arrays, KEY, 2)
                    for function, options in (
        (partial(train_steps, gan), options | {"n_critic": 2}),
        (partial(run_steps, game(gan)), options | {"batches_per_step": 2})))
    assert same(mine, theirs)
    assert Plan(steps=1, n_critic=5, batch_size=8) == Plan(steps=1, batches_per_step=5, batch_size=8)
    with pytest.raises(ValueError, match="n_critic is 5 and batches_per_step 2, its other name"):
        Plan(steps=1, n_critic=5, batches_per_step=2)
    with pytest.raises(ValueError, match="batches_per_step must be at least 1; got 0"):
        Plan(steps=1, n_critic=0)
