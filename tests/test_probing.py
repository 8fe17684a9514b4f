"""What networks do with a batch: found out by trying, and refused where nothing good can come of it."""

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Critic, Generator, Linear, points, same, tiny

from jaxgan import critic_step, data_parallel, generator_step, init_state, losses
from jaxgan.memory import check_fits
from jaxgan.models import DCGANCritic, MLPCritic, ResNetCritic
from jaxgan.probing import looks_across
from jaxgan.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = jax.random.key(1)


def begun(gan, batch):
    return jax.jit(partial(init_state, gan))(KEY, batch)


def discrimination(x):
    """Salimans et al. 2016, section 3.2: how close the others are."""
    distances = jnp.abs(x[:, None] - x[None]).sum(-1)
    return jnp.exp(-distances).sum(1, keepdims=True)


def deviation(x):
    """Karras et al. 2018, section 3: of groups of at most four."""
    group = min(4, len(x))
    spread = jnp.sqrt(x.reshape(group, -1, x.shape[-1]).var(0) + 1e-8).mean(-1, keepdims=True)
    return jnp.tile(spread, (group, 1))


def groups_of_eight(x):
    return jnp.repeat(x.reshape(-1, 8, x.shape[-1]).std(1), 8, axis=0)


def centred(x):
    return (x - x.mean(0, keepdims=True)) / (x.std(0, keepdims=True) + 1e-3)


ACROSS = {"discrimination": discrimination, "deviation": deviation, "groups of eight": groups_of_eight,
          "centred": centred, "neighbours": lambda x: x * jnp.roll(x, 1, axis=0),
          "ranks": lambda x: x.argsort(0).astype(jnp.float32)}
ALONE = {"itself": lambda x: x, "layer norm": lambda x: x - x.mean(-1, keepdims=True),
         "softmax": nn.softmax}


class Branched(nn.Module):
    """Scores by a branch that may look across the batch, and may start at zero."""

    branch: str
    starts_at_zero: bool = False

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        x = nn.tanh(nn.Dense(4)(x))
        kind = nn.initializers.zeros if self.starts_at_zero else nn.initializers.lecun_normal()
        branch = nn.Dense(1, kernel_init=kind)((ACROSS | ALONE)[self.branch](x))
        return (nn.Dense(1)(x) + branch).squeeze(-1)


@pytest.mark.parametrize("starts_at_zero", [False, True])
@pytest.mark.parametrize("branch", ACROSS | ALONE)
def test_a_critic_that_looks_across_the_batch_is_found_out(branch, starts_at_zero):
    critic = Branched(branch, starts_at_zero)
    expected = branch in ACROSS
    assert looks_across(critic, jnp.zeros((16, 2)), None) == expected
    found = []
    named = dataclasses.replace(critic, name="traced")
    jax.eval_shape(lambda x: found.append(looks_across(named, x, None)), jnp.zeros((16, 2)))
    assert found == [expected]


def test_models_look_at_each_sample_by_itself():
    images, labels = jnp.zeros((5, 8, 8, 1)), jnp.arange(5) % 3
    for norm in ("none", "layer", "spectral", "orthonormal", "batch"):
        assert looks_across(DCGANCritic(4, norm=norm), images, None) == (norm == "batch")
    assert not looks_across(DCGANCritic(4, conditioning="projection", num_classes=3), images, labels)
    assert not looks_across(ResNetCritic((4, 4), dtype=jnp.bfloat16), images, None)
    assert not looks_across(MLPCritic([4]), jnp.zeros((3, 2)), None)  # a list can't be hashed


def test_reals_and_fakes_are_batches_of_their_own_for_it():
    """Seen from outside: the mean score of reals is what the critic says of the reals alone."""
    gan = tiny(critic=Branched("centred"), penalty=None)
    state = begun(gan, points(8))
    reals = points(8, seed=4)
    _, metrics = jax.jit(partial(critic_step, gan))(state, reals, KEY)
    scores = gan.critic.apply(state.critic.variables, reals.samples, train=True)
    np.testing.assert_allclose(metrics["critic/real_score"], scores.mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("branch", ["deviation", "discrimination"])
def test_its_input_gradient_is_penalised_only_if_that_is_meant(branch):
    gan = tiny(critic=Branched(branch, starts_at_zero=True))
    with pytest.raises(ValueError, match=r"scores depend on the other samples .*\(across_batch=True\)"):
        begun(gan, points(16))
    meant = dataclasses.replace(gan, across_batch=True)
    state = begun(meant, points(16))
    _, metrics = jax.jit(partial(critic_step, meant))(state, points(16), KEY)
    assert jnp.isfinite(metrics["critic/penalty"])


def test_the_penalty_of_a_critic_that_is_not_so_needs_no_word():
    gan = tiny(critic=Branched("layer norm"))
    for across in (False, True):
        begun(dataclasses.replace(gan, across_batch=across), points(4))


# Batches of one.

class Own(nn.Module):
    """A module with a normalisation of its own, in a branch of it."""

    features: int | None = None

    @nn.compact
    def __call__(self, x, condition=None, *, train):
        x = nn.Dense(4)(x) + centred(nn.Dense(4, name="lost")(x))
        x = nn.Dense(self.features or 1)(x)
        return x if self.features else x.squeeze(-1)


class Pixels(nn.Module):
    """Batch normalisation over `size` x `size` places."""

    size: int

    @nn.compact
    def __call__(self, latents, condition=None, *, train):
        x = nn.Dense(self.size**2 * 3)(latents).reshape(-1, self.size, self.size, 3)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(2)(x.reshape(len(x), -1))


REFUSED = {
    "generator": {"generator": Generator(norm=True)},
    "critic": {"critic": Critic(norm=True), "penalty": None, "loss": losses.hinge()},
    "one place": {"generator": Pixels(1)},
    "a norm of one's own": {"generator": Own(2)},
    "a critic's own": {"critic": Own(), "penalty": None},
}


@pytest.mark.parametrize("case", REFUSED)
def test_normalisation_over_a_batch_of_one_is_refused(case):
    gan = tiny(**REFUSED[case])
    with pytest.raises(ValueError, match=r"raise the batch size, on several devices that of each"):
        jax.eval_shape(partial(init_state, gan), KEY, points(1))
    jax.eval_shape(partial(init_state, gan), KEY, points(2))


def test_one_sample_is_enough_where_it_has_several_places_or_no_norm():
    for gan in (tiny(generator=Pixels(2)), tiny(), tiny(critic=MLPCritic((4, 4), "layer"))):
        state = begun(gan, points(1))
        moved, _ = jax.jit(partial(generator_step, gan))(state, points(1), KEY)
        first = state.generator.params["Dense_0"]["kernel"]
        assert not same(first, moved.generator.params["Dense_0"]["kernel"])


def test_devices_that_hold_a_sample_each():
    """Over one sample in all, or each over its own, it is refused; over all devices' it is not."""
    for norm, place in ((Generator(norm=True), True), (Pixels(1), False), (Own(2), False)):
        gan = tiny(generator=norm)
        state = begun(gan, points(2))
        step = data_parallel(partial(generator_step, gan), devices=jax.devices()[:2])
        if place:
            moved, _ = step(state, points(2), KEY)
            assert not same(state.generator.params["Dense_0"]["kernel"],
                            moved.generator.params["Dense_0"]["kernel"])
        else:
            with pytest.raises(ValueError, match="raise the batch size"):
                step(state, points(2), KEY)


# Memory.

def test_what_cannot_fit_is_refused_before_it_is_made():
    with pytest.raises(ValueError, match=r"these take 4e\+12 GB, and there are .* memory: lower it"):
        check_fits("these take", jax.ShapeDtypeStruct((10**12, 10**9), jnp.float32), "it")
    wide = tiny(critic=MLPCritic((2**22, 2**22)))
    with pytest.raises(ValueError, match=r"the critic's parameters take 7.037e\+04 GB"):
        jax.jit(partial(init_state, wide))(KEY, points(4))
    huge = Batch(jax.ShapeDtypeStruct((2**40, 2), jnp.float32))
    with pytest.raises(ValueError, match=r"the outputs of Dense Dense_0 take .*: lower the batch"):
        jax.eval_shape(partial(init_state, tiny(critic=Linear())), KEY, huge)
