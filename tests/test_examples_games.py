"""The games of docs/games.md: they run, are short, learn what the text says, and train as GANs do."""

import re
import tempfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgan import evaluation
from jaxgan.evaluation import Extractor, Protocol
from jaxgan.features import raw
from jaxgan.training import Plan, train
from tests.tiny import assert_close, assert_goes_on_exactly

TEXT = (Path(__file__).parents[1] / "docs" / "games.md").read_text()
EXAMPLES = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```python\n(.*?)^```", TEXT,
                           re.MULTILINE | re.DOTALL))


def example(start):
    (title, code), = ((title, code) for title, code in EXAMPLES.items() if title.startswith(start))
    return title, code


def played(start, folder):
    """What an example's names stand for when it has run."""
    title, code = example(start)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    found = {}
    try:
        with jax.numpy_rank_promotion("allow"):  # as it is outside of the tests
            exec(compile(code, f"docs/games.md: {title}", "exec"), found)
    finally:
        tempfile.tempdir = before
    return found


def test_there_is_a_test_for_each_and_each_is_short():
    assert [title.split(":")[0] for title in EXAMPLES] == ["VAE-GAN", "BiGAN", "CycleGAN", "Drifting"]
    for code in EXAMPLES.values():
        assert len([line for line in code.splitlines() if line.strip()]) <= 60
        assert not re.search(r"import _|\._(?!replace\b)", code)


@pytest.mark.slow
def test_vae_gan_reconstructs(tmp_path):
    found = played("VAE-GAN", tmp_path)
    assert found["error"] < 0.4 * found["of_mean"]
    assert 0.1 < found["divergence"] < 50
    assert found["images"].shape == (16, 8, 8, 1)
    assert np.abs(found["images"]).max() <= 1


@pytest.fixture(scope="module")
def bigan(tmp_path_factory):
    return played("BiGAN", tmp_path_factory.mktemp("bigan"))


@pytest.mark.slow
def test_bigan_inverts_its_generator(bigan):
    assert bigan["error"] < 0.4 * bigan["of_mean"]
    random = bigan["sample"](bigan["state"], jax.random.key(1), len(bigan["points"]))
    away = np.square(random - bigan["points"]).sum(1).mean()
    assert bigan["error"] < 0.25 * away


@pytest.mark.slow
def test_an_interrupted_game_comes_to_the_same_bits(bigan, tmp_path):
    def run(name, **options):
        return train(bigan["game"], bigan["points"], tmp_path / name,
                     Plan(steps=6, batch_size=32, checkpoint_every=2, log_every=1, devices=1), **options)

    assert_goes_on_exactly(run, 4)


@pytest.mark.slow
def test_a_game_on_two_devices_is_close_to_one(bigan, tmp_path):
    states = [train(bigan["game"], bigan["points"], tmp_path / str(devices),
                    Plan(steps=3, batch_size=32, devices=devices))[0] for devices in (1, 2)]
    assert_close(*(state._replace(step=0) for state in states), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_game_is_sampled_and_evaluated(bigan, devices):
    key = jax.random.key(3)
    draw = evaluation.sampler(bigan["game"], key, lambda x: x, devices=jax.local_devices()[:devices])
    samples = draw(bigan["state"])
    expected = bigan["sample"](bigan["state"], key, 12)
    np.testing.assert_allclose(samples.take(np.arange(4, 12)), expected[4:], rtol=1e-5, atol=1e-6)
    points = bigan["points"]
    reals, others = (evaluation.Samples("points", len(half), lambda rows, half=half: half[rows])
                     for half in (points[:2000], points[2000:]))
    extractor = Extractor(raw(), devices=jax.local_devices()[:devices])
    evaluator = evaluation.prepare(Protocol(num_real=500, num_fake=500), evaluation.chosen("swd,mmd"),
                                   extractor, reals, others)
    found = evaluator(samples)
    start = evaluator(draw(jax.jit(bigan["init"])(jax.random.key(0), None)))
    assert evaluator.floor["swd"] < found["swd"] < 0.5 * start["swd"]
    assert found["raw/mmd"] < 0.5 * start["raw/mmd"]


def test_a_game_without_samples_is_refused(bigan):
    with pytest.raises(ValueError, match="this game has no `sample`"):
        evaluation.sampler(bigan["game"]._replace(sample=None), jax.random.key(0), lambda x: x)


@pytest.mark.slow
def test_cycle_gan_maps_domains_onto_each_other(tmp_path):
    found = played("CycleGAN", tmp_path)
    history = found["state"].history
    for real, into, fake, again, domain in zip(
            (found["x"], found["y"]), (found["y"], found["x"]), found["fakes"], found["back"],
            ("target", "source"), strict=True):
        fake, again, spread = np.asarray(fake), np.asarray(again), into.std(0)
        assert np.abs(again - real).mean() < 0.25 * real.std(0).mean()
        assert (np.abs(fake.mean(0) - into.mean(0)) < 0.5 * spread).all()
        assert (np.abs(np.log(fake.std(0) / spread)) < np.log(1.6)).all()
        assert history[domain].shape == (50, 2)
        near = np.abs(np.asarray(history[domain])[:, None] - fake).sum(-1).min(1)
        assert near.mean() < spread.mean()  # they were generated, if by earlier generators


@pytest.mark.slow
def test_drifting_learns_without_a_critic(tmp_path):
    found = played("Drifting", tmp_path)
    assert found["floor"] < found["after"] < 0.25 * found["before"]
    drift, reals, others = found["drift"], found["reals"], found["others"]
    still, moving = drift(reals, reals), drift(others + 0.3, reals)
    assert np.abs(still).max() < 1e-4 * np.abs(moving).max()
    assert np.abs(drift(others, reals)).mean() < 0.35 * np.abs(moving).mean()
