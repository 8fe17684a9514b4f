"""Text by way of codes: an autoencoder of text and a GAN on its codes, trained together.

The adversarially regularised autoencoder, ARAE: Zhao et al. 2018 (arXiv 1706.04223). The GAN never sees
characters, which have no gradient; the decoder turns the codes that it makes into text.
"""

import math
from dataclasses import replace
from typing import NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.typing import ArrayLike

from jaxgan import keys
from jaxgan.gan import GAN, GANState, draw_latents, sampled_variables, terms_of
from jaxgan.loops import Game
from jaxgan.networks import NetworkState, See, moving_average, network_state, update
from jaxgan.steps import critic_step, init_state
from jaxgan.terms import Term, Value, View
from jaxgan.types import Array, Batch, Key, Metrics, PyTree, batch_size
from jaxgan.views import applied, generator_view


class CodeView(NamedTuple):
    """What the terms of autoencoder and generator see of an update.

    Attributes:
        step: the iteration, int32.
        losses: -log p of each character of the batch's text, [batch, length].
        codes: the view of the GAN on codes; its reals are those of the text.
    """

    step: Array
    losses: Array
    codes: View


def code_game(
    autoencoder: nn.Module,
    gan: GAN,
    *,
    code_noise: float | optax.Schedule = 0.0,
    encoder_weight: float | optax.Schedule = 1.0,
    temperature: ArrayLike = 1.0,
) -> Game:
    """Returns the game of an autoencoder and a GAN on its codes.

    With the encoder c(x), the decoder p(x | c), the generator g(z) and the critic f,

        min over c, p, g, max over f   E -log p(x | c(x) + e) + lambda (E f(c(x)) - E f(g(z)))

    Zhao et al. 2018 (arXiv 1706.04223), section 3 and algorithm 1, for the Wasserstein loss; with
    another loss the encoder maximises the critic's. The noise e ~ N(0, sigma^2 I) is the decoder's
    alone. On each batch of a step the critic is updated, and then autoencoder and generator, as one
    network.

    The state is a `GANState`, whose `generator` holds both, {"autoencoder": ..., "generator": ...}. The
    metrics are a GAN's, and `generator/reconstruction`, the mean of -log p of a character, and
    `generator/encoder`.

    Args:
        autoencoder: a module like `jaxgan.models.TextAutoencoder`.
        gan: of codes; its `generator_optimizer` is that of the autoencoder, too, and its `ema_decay`.
        code_noise: sigma, or a schedule, iteration -> sigma.
        encoder_weight: lambda of the encoder; the generator's is 1.
        temperature: at which text is written, see `TextAutoencoder.write`.

    Raises:
        ValueError: noise or temperature is negative, or the GAN's batches come in parts.
    """
    for name, value in (("code_noise", code_noise), ("temperature", temperature)):
        if isinstance(value, (int, float)) and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number from 0 on; got {value}")
    if gan.accumulate > 1:
        raise ValueError(f"accumulate is not for a GAN on codes; got {gan.accumulate}: set it to 1")
    judged = terms_of(gan, "critic")[0]

    def of_encoder(view: CodeView, state: PyTree) -> Array:
        seen = view.codes._replace(fake=lax.stop_gradient(view.codes.fake))
        return -cast("Array", cast("Value", judged.value(seen, state)).loss)

    def of_generator(term: Term) -> Term:
        return term._replace(value=lambda view, state: term.value(
            view.codes._replace(real=lax.stop_gradient(view.codes.real)), state))

    terms = (Term("reconstruction", lambda view, state: view.losses.mean()),
             Term("encoder", of_encoder, encoder_weight), *map(of_generator, terms_of(gan, "generator")))

    def coded(params: PyTree, inputs: Array, text: Array | None, axis_name: str | None, method: str
              ) -> Array:
        network = NetworkState(params["autoencoder"], {}, ())
        return applied(autoencoder, network, inputs, text, {}, axis_name, method)[0]

    def see_all(state: GANState, text: Array, key: Key, axis_name: str | None) -> See:
        drawn = keys.example_keys(keys.stream(key, "noise"), len(text), axis_name)
        sigma = code_noise(state.step) if callable(code_noise) else code_noise

        def see(params: PyTree) -> tuple[CodeView, PyTree]:
            codes = coded(params, text, None, axis_name, "encode")
            heard = codes + sigma * keys.normal(drawn, codes.shape[1:])
            logits = coded(params, heard, text, axis_name, "decode")
            view, _ = generator_view(gan, _on_codes(state), Batch(codes), keys.stream(key, "codes"),
                                     axis_name)(params["generator"])
            return CodeView(state.step, optax.softmax_cross_entropy(logits, text), view), {}

        return see

    def init(key: Key, example: Batch) -> GANState:
        started = autoencoder.init(keys.stream(key, "autoencoder"), example.samples, None, train=False)
        codes = jax.eval_shape(lambda: autoencoder.apply(started, example.samples, None, train=False,
                                                         method="encode"))
        alone = replace(gan, generator_optimizer=optax.identity())  # what it optimises is more
        of_codes = init_state(alone, key, Batch(jnp.zeros(codes.shape, codes.dtype)))
        variables = {"params": {"autoencoder": started["params"],
                                "generator": of_codes.generator.params}}
        return of_codes._replace(
            generator=network_state(variables, gan.generator_optimizer, terms, name="generator",
                                    weighting=gan.weighting),
            ema=None if gan.ema_decay is None else jax.tree.map(jnp.copy, variables))

    def step(state: GANState, batches: Batch, key: Key, *, axis_name: str | None = None
             ) -> tuple[GANState, Metrics]:
        def once(state: GANState, inputs: tuple[Array, Key]) -> tuple[GANState, Metrics]:
            text, key = inputs
            codes = coded(state.generator.params, text, None, axis_name, "encode")
            updated, metrics = critic_step(gan, _on_codes(state), Batch(codes),
                                           keys.stream(key, "critic_step"), axis_name=axis_name)
            state = state._replace(critic=updated.critic)
            network, more = update(
                state.generator, gan.generator_optimizer, terms,
                see_all(state, text, keys.stream(key, "generator_step"), axis_name),
                name="generator", axis_name=axis_name, weighting=gan.weighting)
            return state._replace(generator=network), metrics | more

        each = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size(batches)))
        state, metrics = lax.scan(once, state, (batches.samples, each))
        number = state.step + 1
        average = None if gan.ema_decay is None else moving_average(
            state.ema, state.generator, gan.ema_decay, number)
        return (state._replace(step=number, ema=average),
                jax.tree.map(lambda values: values[-1], metrics))

    def sample(state: GANState, key: Key, count: int, condition: PyTree | None = None) -> Array:
        example_keys = keys.per_example(key, count)
        params = sampled_variables(state)["params"]
        codes = gan.generator.apply({"params": params["generator"]},
                                    draw_latents(gan, example_keys, count), None, train=False)
        written = jax.vmap(lambda key: keys.stream(key, "text"))(example_keys)
        return cast("Array", autoencoder.apply({"params": params["autoencoder"]}, codes, written,
                                               temperature, method="write"))

    return Game(init, step, lambda state: {"generator": state.generator.params,
                                           "critic": state.critic.params}, sample)


def _on_codes(state: GANState) -> GANState:
    """The state of the GAN on codes."""
    return state._replace(generator=NetworkState(state.generator.params["generator"], {}, ()), ema=None)
