"""Text by way of codes: the autoencoder's probabilities, the game, and runs as a user meets them."""

import itertools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import evaluate, sample
from jaxgan import GAN, Batch, keys
from jaxgan.codes import code_game
from jaxgan.data import decode, encode, in_memory
from jaxgan.loops import run_steps
from jaxgan.losses import relativistic_average, wasserstein
from jaxgan.models import CodeGenerator, MLPCritic, TextAutoencoder
from jaxgan.parallel import data_parallel
from jaxgan.penalties import gradient_penalty
from jaxgan.training import Plan, train
from tests.test_measuring import tool
from tests.test_text import SENTENCES
from tests.test_training import result, rows, run_here
from tests.tiny import assert_close, assert_goes_on_exactly

pytestmark = pytest.mark.usefixtures("own_cache", "quick_compilation")
KEY = jax.random.key(5)
TINY = ("--latent", "--width", 8, "--blocks", 1, "--length", 8, "--batch-size", 8, "--n-critic", 2,
        "--devices", 1, "--latent-size", 4, "--code-size", 6, "--log-every", 1, "--no-keep-programs")


def made(length=6, vocabulary=4, **options):
    """An autoencoder, and parameters none of which is 0."""
    module = TextAutoencoder(length, vocabulary, 5, 8, 2, 3, **options)
    variables = module.init(KEY, jnp.zeros((2, length, vocabulary)), train=False)
    leaves, structure = jax.tree.flatten(variables)
    random = np.random.default_rng(0)
    return module, structure.unflatten([
        random.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves])


def texts(*shape, vocabulary=4):
    return jax.nn.one_hot(jax.random.randint(KEY, shape, 0, vocabulary), vocabulary)


# The autoencoder.


def test_a_character_depends_on_the_code_and_on_the_characters_before_it():
    module, variables = made()
    logits = jax.jit(partial(module.apply, variables, train=False, method="decode"))
    text, code = texts(1, 6), jax.random.normal(KEY, (1, 5))
    before = np.asarray(logits(code, text)[0])
    for place in range(6):
        changed = np.asarray(logits(code, text.at[:, place:].set(jnp.roll(text[:, place:], 1, -1)))[0])
        np.testing.assert_array_equal(changed[:place + 1], before[:place + 1])
        assert (changed[place + 1:] != before[place + 1:]).any(-1).all()
    assert (np.asarray(logits(-code, text)[0]) != before).any(-1).all()


def test_texts_are_written_as_often_as_their_probability_says():
    """All 27 texts of three characters of three, at two temperatures, against p(x_1) p(x_2 | x_1) ..."""
    module, variables = made(3, 3)
    every = np.array(list(itertools.product(range(3), repeat=3)))
    codes = jnp.tile(jax.random.normal(KEY, (1, 5)), (27, 1))
    logits = module.apply(variables, codes, jax.nn.one_hot(every, 3), train=False, method="decode")
    count = 6000
    write = jax.jit(partial(module.apply, variables, method="write"))
    for temperature in (1.0, 0.5):
        likely = jax.nn.log_softmax(logits / temperature)
        expected = np.exp(np.take_along_axis(likely, every[..., None], 2).sum((1, 2)))
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        written = write(jnp.tile(codes[:1], (count, 1)), keys.example_keys(KEY, count), temperature
                        ).argmax(-1)
        found = np.bincount(written @ np.array([9, 3, 1]), minlength=27) / count
        assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / count)


def test_the_coldest_text_is_the_likeliest_character_each_time():
    module, variables = made()
    codes = jax.random.normal(KEY, (3, 5))
    written = module.apply(variables, codes, keys.example_keys(KEY, 3), 0.0, method="write")
    logits = module.apply(variables, codes, written, train=False, method="decode")
    np.testing.assert_array_equal(written, jax.nn.one_hot(logits.argmax(-1), 4))


def test_a_text_depends_on_its_own_code_and_key_alone():
    module, variables = made()
    codes, example_keys = jax.random.normal(KEY, (4, 5)), keys.example_keys(KEY, 4)
    together = module.apply(variables, codes, example_keys, method="write")
    alone = module.apply(variables, codes[2:3], example_keys[2:3], method="write")
    np.testing.assert_array_equal(together[2:3], alone)
    assert together.dtype == jnp.float32
    np.testing.assert_array_equal(together.sum(-1), np.ones((4, 6)))


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_codes_have_a_mean_square_of_1_in_float32(dtype):
    module, variables = made(dtype=dtype)
    codes = module.apply(variables, texts(7, 6), train=False, method="encode")
    generator = CodeGenerator(5, (8,), dtype=dtype)
    latents = jax.random.normal(KEY, (7, 3))
    other = generator.apply(generator.init(KEY, latents, train=False), latents, train=False)
    for each in (codes, other):
        assert (each.shape, each.dtype) == ((7, 5), jnp.float32)
        np.testing.assert_allclose(np.square(each).mean(-1), np.ones(7), rtol=1e-3)


# The game.


def game(length=6, vocabulary=4, loss=None, optimizer=None, ema_decay=None, accumulate=1, **options):
    optimizer = optimizer or optax.adam(3e-3, b1=0.5, b2=0.9)
    gan = GAN(CodeGenerator(5, (16,)), MLPCritic((16,)), 3, loss or wasserstein(), optimizer, optimizer,
              penalty=gradient_penalty(10.0), ema_decay=ema_decay, accumulate=accumulate)
    return code_game(TextAutoencoder(length, vocabulary, 5, 16, 1, 3), gan, **options)


def started(game, length=6, vocabulary=4):
    return jax.jit(game.init)(KEY, Batch(jnp.zeros((2, length, vocabulary))))


def after(game, state, batches=None):
    return jax.jit(game.step)(state, Batch(texts(2, 8, 6) if batches is None else batches), KEY)


def test_each_part_follows_its_own_gradient():
    """With plain gradient descent, from one state: the encoder's term moves the encoder alone, and the
    noise what reconstructs. Which of them there are is a matter of the step here."""
    own = game(optimizer=optax.sgd(0.1), encoder_weight=lambda step: jnp.minimum(step, 1.0),
               code_noise=lambda step: jnp.where(step > 1, 1.0, 0.0))
    state, step = started(own), jax.jit(own.step)
    plain, regularised, noisy = (step(state._replace(step=jnp.int32(number)), Batch(texts(1, 8, 6)), KEY
                                      )[0].generator.params for number in range(3))
    assert_close(plain["generator"], regularised["generator"])
    assert_close(plain["generator"], noisy["generator"])
    for params, other, parts in ((regularised, plain, {"read", "encoder_0", "code"}),
                                 (noisy, regularised, {*plain["autoencoder"]})):
        for name, value in params["autoencoder"].items():
            apart = max(np.abs(a - b).max() for a, b in zip(
                *map(jax.tree.leaves, (value, other["autoencoder"][name])), strict=True))
            assert (apart > 1e-6) == (name in parts), name


def test_the_generator_moves_no_encoder():
    """Not even with a loss that compares its codes' scores with those of text."""
    found = []
    for loss in (wasserstein(), relativistic_average()):
        own = game(loss=loss, optimizer=optax.sgd(0.1), encoder_weight=0.0)
        found.append(after(own, started(own), texts(1, 8, 6))[0].generator.params["autoencoder"])
    assert_close(*found)


def test_the_encoder_loses_to_the_critic_what_the_critic_wins():
    """E f(c(x)) - E f(g(z)), where nothing moves: of which the generator has the second part."""
    own = game(optimizer=optax.set_to_zero())
    _, metrics = after(own, started(own), texts(1, 8, 6))
    assert float(metrics["generator/encoder"] - metrics["generator/adversarial"]) == pytest.approx(
        float(metrics["critic/real_score"]), abs=1e-5)


def test_two_devices_come_to_what_one_does():
    """With a loss that compares scores across the batch, too."""
    own = game(loss=relativistic_average(), optimizer=optax.sgd(0.1), ema_decay=0.9, code_noise=0.5)
    state, batches = started(own), Batch(texts(2, 8, 6))
    one, metrics = jax.jit(own.step)(state, batches, KEY)
    for shard in (None, "state"):
        two, others = data_parallel(own.step, devices=jax.devices()[:2], batch_axis=1, shard=shard)(
            state, batches, KEY)
        assert_close(one, two)
        assert_close(metrics, others)
    assert int(one.step) == 1


@pytest.mark.slow
def test_a_run_goes_on_exactly(tmp_path):
    def run(name, **options):
        return train(game(ema_decay=0.9, code_noise=0.3), np.asarray(texts(20, 6)), tmp_path / name,
                     Plan(steps=4, batches_per_step=2, batch_size=4, devices=1, log_every=2,
                          checkpoint_every=2), **options)

    assert_goes_on_exactly(run, 2)


def test_six_words_are_learnt_and_read_back():
    """The autoencoder gives each of them back, and most of what the GAN's codes say is one of them."""
    words = "kitten", "violin", "basket", "orchid", "summer", "zenith"
    corpus = encode("".join(words), 30)
    tokens = corpus.tokens.reshape(6, 6)
    text = jax.nn.one_hot(tokens, len(corpus.vocabulary))
    own = game(6, text.shape[-1], ema_decay=0.9, code_noise=0.3)
    source, state = in_memory(np.tile(text, (8, 1, 1))), started(own, 6, text.shape[-1])
    state, _ = jax.jit(lambda state, arrays: run_steps(
        own, state, arrays, KEY, 500, source=source, batches_per_step=2, batch_size=24))(
            state, source.arrays)
    module = TextAutoencoder(6, text.shape[-1], 5, 16, 1, 3)
    variables = {"params": state.ema["params"]["autoencoder"]}
    codes = module.apply(variables, text, train=False, method="encode")
    read = module.apply(variables, codes, keys.example_keys(KEY, 6), 0.0, method="write").argmax(-1)
    assert decode(read, corpus.vocabulary) == list(words)
    written = decode(jax.jit(lambda state: own.sample(state, KEY, 200).argmax(-1))(state),
                     corpus.vocabulary)
    assert sum(each in words for each in written) > 150
    assert {*words} <= {*written}


@pytest.mark.parametrize(("options", "message"), [
    ({"code_noise": -1.0}, "code_noise must be a number from 0 on; got -1.0"),
    ({"temperature": float("nan")}, "temperature must be a number from 0 on; got nan"),
    ({"accumulate": 2}, "accumulate is not for a GAN on codes; got 2: set it to 1")])
def test_what_a_game_on_codes_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        game(**options)


# The experiment.


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "story.txt"
    path.write_text(SENTENCES * 20, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, story, quick_compilation, own_cache):
    """A finished run of three steps, with one evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "text"
    assert run_here("text", *TINY, "--text-file", story, "--steps", 3, "--checkpoint-every", 2,
                    "--eval-every", 3, "--run-dir", folder) == 0
    return folder


def test_a_run_is_evaluated_sampled_and_gone_on_with(run, story, tmp_path, capsys):
    logged = rows(run)[-1]
    assert logged.keys() >= {"generator/reconstruction", "generator/encoder", "generator/adversarial",
                             "critic/wasserstein", "jsd_4", "in_training_text"}
    (before,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert tool(evaluate, run) == 0, capsys.readouterr().err
    (again,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert again["metrics"] == before["metrics"]
    assert "share that stands in the training text" in (run / "report.txt").read_text()
    assert again["metrics"]["in_training_text"]["floor"] == 1  # the text repeats itself
    capsys.readouterr()
    assert tool(sample, run, "--num", 4) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines] == [8] * 4
    assert {*"".join(lines)} <= {*SENTENCES}
    assert tool(sample, run, "--num", 4, "--interpolate") == 2
    assert "interpolate is for GANs whose latents are vectors" in capsys.readouterr().err
    other = tmp_path / "run"
    flags = (*TINY, "--text-file", story, "--run-dir", other, "--eval-every", 3)
    assert run_here("text", *flags, "--steps", 2) == 0
    assert run_here("text", *flags, "--steps", 3, "--decay-steps", 3, "--resume", "latest") == 2
    assert run_here("text", *flags, "--steps", 3, "--resume", "latest") == 0
    assert result(other)["params_sha256"] == result(run)["params_sha256"]


@pytest.mark.parametrize(("flags", "message"), [
    (("--no-latent",), "code_size is for --latent; got 6 without it"),
    (("--no-latent", "--code-size", "None", "--temperature", 0.5), "temperature is for --latent; got 0"),
    (("--code-size", 0), "code_size must be from 1 to 16384; got 0"),
    (("--code-noise", -1), "code_noise must be a number from 0 on; got -1"),
    (("--encoder-weight", -1), "encoder_weight must not be negative; got -1"),
    (("--accumulate", 2), "accumulate is not for a GAN on codes; got 2: set it to 1"),
    (("--fakes-at-once",), "fakes_at_once is for GANs, and this is a game of one's own: leave it out"),
    (("--augment", "ada"), "are for images"),
])
def test_bad_flags_get_one_sentence_and_status_2(flags, message, story, tmp_path, capsys):
    assert run_here("text", *TINY, "--text-file", story, "--run-dir", tmp_path / "run", *flags) == 2
    assert message in capsys.readouterr().err
