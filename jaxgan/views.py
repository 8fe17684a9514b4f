"""What the terms of a GAN see of an update: fakes, what the critic is shown, what it says of them."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import InvalidRngError
from jax import lax

from jaxgan import keys
from jaxgan.gan import (
    GAN,
    GANState,
    draw_latents,
    samples_and_heads,
    scores_across,
    scores_and_heads,
)
from jaxgan.networks import NetworkState, See, part_of, term_state
from jaxgan.nn.random import rngs_of
from jaxgan.parallel import share
from jaxgan.probing import check_call, check_single
from jaxgan.terms import Judgement, Seen, View
from jaxgan.types import Array, Batch, Key, PyTree, WithHeads, batch_size


class Fakes(NamedTuple):
    """What a generator has made in an update.

    Attributes:
        samples: [batch, ...].
        heads: what it returned besides, by name.
        latents: what they were made from.
    """

    samples: PyTree
    heads: dict[str, Array]
    latents: PyTree


class _Tools(NamedTuple):
    """What both networks' updates share: functions of the update's key."""

    gan: GAN
    state: GANState
    key: Key
    axis_name: str | None
    count: int  # samples on this device, in one part of its batch
    part: Array | int = 0  # which of `GAN.accumulate`

    def keys(self, name: str, count: int | None = None) -> Key:
        return keys.example_keys(keys.stream(self.key, name), self.count if count is None else count,
                                 self.axis_name, self.part, self.gan.accumulate)

    def rngs(self, name: str, count: int, *, by_device: bool = True) -> dict:
        device = keys.device_key(keys.stream(self.key, name), self.axis_name, self.part,
                                 self.gan.accumulate)
        return rngs_of(self.keys(name, count)) | ({"params": device} if by_device else {})

    def mean(self, tree: PyTree) -> PyTree:
        self.check_whole("a mean")
        return tree if self.axis_name is None else lax.pmean(tree, self.axis_name)

    def check_whole(self, what: str) -> None:
        if self.gan.accumulate > 1:
            raise ValueError(f"it takes {what} over the whole batch, which comes in "
                             f"{self.gan.accumulate} parts one after the other: set accumulate to 1")

    def gather(self, tree: PyTree) -> PyTree:
        self.check_whole("what is said of other samples")
        if self.axis_name is None:
            return tree
        return jax.tree.map(lambda x: lax.all_gather(x, self.axis_name, tiled=True), tree)

    def shower(self) -> Callable[[str, PyTree], PyTree]:
        """Returns `View.show`; the draws for reals and fakes are made once, outside of any `cond`."""
        augment = self.gan.augment
        if augment is None:
            return lambda kind, samples: samples
        augment_state = term_state(self.state.critic, augment.term) if augment.term else ()

        def draw(kind: str) -> PyTree:
            return augment.draw(self.keys(f"{kind}_noise"), self.state.step, augment_state)

        drawn = {kind: draw(kind) for kind in ("real", "fake")}
        return lambda kind, samples: augment.show(drawn[kind] if kind in drawn else draw(kind), samples)

    def judge(self, network: NetworkState, shown: PyTree, condition: PyTree, rngs: dict
              ) -> tuple[Judgement, PyTree]:
        """Scores, in float32 at least, in which losses and metrics average them, heads, statistics."""
        judgement, stats = applied(self.gan.critic, network, shown, condition, rngs, self.axis_name)
        scores, heads = scores_and_heads(judgement, shown)
        return Judgement(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), heads), stats

    def as_shown(self, condition: PyTree) -> PyTree:
        return self.gan.augment.condition(condition) if self.gan.augment else condition

    def judging(self, network: NetworkState) -> Callable[..., Judgement]:
        """Returns `View.judge`."""
        def judge(shown: PyTree, condition: PyTree = None, kind: str = "judge") -> Judgement:
            return self.judge(network, shown, self.as_shown(condition),
                              self.rngs(f"critic_{kind}", batch_size(shown)))[0]

        return judge

    def generate(self, network: NetworkState, latents: PyTree, condition: PyTree, kind: str,
                 method: str | None = None) -> tuple[WithHeads, PyTree]:
        generated, stats = applied(self.gan.generator, network, latents, condition, self.rngs(
            f"generator_{kind}", batch_size(latents)), self.axis_name, method)
        return samples_and_heads(generated), stats

    def generating(self, network: NetworkState) -> Callable[..., WithHeads]:
        """Returns `View.generate`."""
        return lambda latents, condition=None, kind="generate", method=None: self.generate(
            network, latents, condition, kind, method)[0]

    def view(self, real: Seen, fake: Seen, fakes: Fakes, critic: NetworkState, generator: NetworkState,
             show: Callable[[str, PyTree], PyTree]) -> View:
        parts = (1 if self.axis_name is None else lax.axis_size(self.axis_name)) * self.gan.accumulate
        return View(real, fake, fakes.latents, fakes.heads, self.state.step, parts * self.count,
                    self.judging(critic), show, self.generating(generator), self.keys, self.mean,
                    self.gather)


def make_fakes(gan: GAN, state: GANState, generator: NetworkState, batch: Batch, key: Key,
               axis_name: str | None, part: Array | int = 0) -> tuple[Fakes, PyTree]:
    """Returns one fake for each sample of the batch, and the generator's new statistics.

    Args:
        gan: the specification.
        state: its state.
        generator: its generator's.
        batch: what the fakes are drawn for.
        key: the update's.
        axis_name: the devices' axis; None on a single device.
        part: which of `GAN.accumulate` parts of an update's batch it is.
    """
    tools = _Tools(gan, state, key, axis_name, batch_size(batch.samples), part)
    latents = draw_latents(gan, tools.keys("latents"), tools.count)
    (samples, heads), stats = tools.generate(generator, latents, batch.condition, "fake")
    return Fakes(samples, heads, latents), stats


def critic_view(gan: GAN, state: GANState, batch: Batch, fakes: Fakes | None, key: Key,
                axis_name: str | None) -> See:
    """Returns the function from the critic's parameters to what its terms see, and its statistics.

    Where the batch comes in parts it takes the number of one, too, and fakes that aren't given are made
    with the part that they are for.
    """
    if gan.accumulate == 1:
        return _critic_view(gan, state, batch, fakes, key, axis_name)

    def see(params: PyTree, part: Array | int = 0) -> tuple[View, PyTree]:
        own, made = part_of((batch, fakes), part, gan.accumulate)
        return _critic_view(gan, state, own, made, key, axis_name, part)(params)

    return see


def _critic_view(gan: GAN, state: GANState, batch: Batch, fakes: Fakes | None, key: Key,
                 axis_name: str | None, part: Array | int = 0) -> See:
    tools = _Tools(gan, state, key, axis_name, batch_size(batch.samples), part)
    if fakes is None:
        fakes, _ = make_fakes(gan, state, state.generator, batch, key, axis_name, part)
    show, reals = tools.shower(), gan.lift(batch.samples) if gan.lift else batch.samples
    made, there = (jax.tree.map(jnp.shape, tree) for tree in (fakes.samples, reals))
    if made != there:
        raise ValueError(f"fakes must have the shape of the reals; got {made} and {there}: a step of "
                         "one network takes [batch, ...], train_step [n_critic, batch, ...]")
    real, fake = show("real", reals), show("fake", fakes.samples)

    shown_condition = tools.as_shown(batch.condition)
    apart = scores_across(gan, state.critic.stats, real, shown_condition)

    def see(params: PyTree) -> tuple[View, PyTree]:
        network = state.critic._replace(params=params)
        of_real, of_fake, stats = _judge_both(tools, network, real, fake, shown_condition, apart=apart)
        return tools.view(Seen(reals, real, batch.condition, *of_real),
                          Seen(fakes.samples, fake, batch.condition, *of_fake), fakes, network,
                          state.generator, show), stats

    return see


def generator_view(gan: GAN, state: GANState, batch: Batch, key: Key, axis_name: str | None) -> See:
    """Returns the function from the generator's parameters to what its terms see, and its statistics.

    Where the batch comes in parts it takes the number of one, too.
    """
    if gan.accumulate == 1:
        return _generator_view(gan, state, batch, key, axis_name)
    return lambda params, part=0: _generator_view(
        gan, state, part_of(batch, part, gan.accumulate), key, axis_name, part)(params)


def _generator_view(gan: GAN, state: GANState, batch: Batch, key: Key, axis_name: str | None,
                    part: Array | int = 0) -> See:
    tools = _Tools(gan, state, key, axis_name, batch_size(batch.samples), part)
    show, reals = tools.shower(), gan.lift(batch.samples) if gan.lift else batch.samples
    real, asked = show("real", reals), batch
    if gan.generator_condition is not None:
        asked = batch._replace(condition=gan.generator_condition(tools.keys("condition"),
                                                                 batch.condition))

    def see(params: PyTree) -> tuple[View, PyTree]:
        network = state.generator._replace(params=params)
        fakes, stats = make_fakes(gan, state, network, asked, key, axis_name, part)
        fake, judge = show("fake", fakes.samples), tools.judging(state.critic)
        # Most losses ignore the reals: no code is made for them then.
        return tools.view(Seen(reals, real, batch.condition, *judge(real, batch.condition, "real")),
                          Seen(fakes.samples, fake, asked.condition,
                               *judge(fake, asked.condition, "fake")),
                          fakes, state.critic, network, show), stats

    return see


def _judge_both(tools: _Tools, network: NetworkState, real: PyTree, fake: PyTree, shown: PyTree, *,
                apart: bool) -> tuple[Judgement, Judgement, PyTree]:
    """Judges reals and fakes, in one call unless they are kept apart, or by random numbers."""
    count = batch_size(real)
    if not apart:
        both, conditions = jax.tree.map(lambda *x: jnp.concatenate(x), (real, shown), (fake, shown))
        example_keys = jnp.concatenate([tools.keys(f"critic_{kind}", count)
                                        for kind in ("real", "fake")])
        try:
            judgement, stats = tools.judge(network, both, conditions, rngs_of(example_keys))
            return *(jax.tree.map(lambda x, half=half: jnp.split(x, 2)[half], judgement)
                     for half in (0, 1)), stats
        except InvalidRngError:  # a module draws from the device's key: one call could not be repeated
            pass
    of_real, stats = tools.judge(network, real, shown, tools.rngs("critic_real", count))
    of_fake, stats = tools.judge(network._replace(stats=stats), fake, shown,
                                 tools.rngs("critic_fake", count))
    return of_real, of_fake, stats


def applied(module: nn.Module, network: NetworkState, inputs: PyTree, condition: PyTree, rngs: dict,
            axis_name: str | None = None, method: str | None = None) -> tuple[PyTree, PyTree]:
    """Applies a module in training mode; returns its output and its new statistics.

    Args:
        module: called as `module(inputs, condition, train=True)`.
        network: its numbers.
        inputs: arrays [batch, ...].
        condition: likewise, or None.
        rngs: what it draws from, see `jaxgan.nn.random`.
        axis_name: the devices' axis, which it gets in its field of this name, if it has one.
        method: None, or which of the module's methods to call instead.
    """
    module = _on_axis(module, axis_name)
    with nn.intercept_methods(check_call):
        outputs, stats = module.apply(network.variables, *share((inputs, condition)), train=True,
                                      mutable=list(network.stats), rngs=rngs, method=method)
    if method is None and batch_size(inputs) == 1 and getattr(module, "axis_name", None) is None:
        check_single(module, inputs, condition)
    return share(outputs), stats


def _on_axis(module: nn.Module, axis_name: str | None) -> nn.Module:
    """The module with the devices' axis in its field `axis_name`, if it has one."""
    if axis_name is None or "axis_name" not in type(module).__dataclass_fields__:
        return module
    return module.clone(axis_name=axis_name)
