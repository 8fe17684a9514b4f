"""Stacked images: what they are made of, how often, and by what they are decided."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from experiments import launch, measuring, settings, stacked_mnist
from jaxgan.data import Dataset, draw_step, load, pixels, stacked
from jaxgan.evaluation import Comparison, Observed, Protocol, SampleSet
from jaxgan.features import FeatureNetwork, Features, TrainedClassifier
from jaxgan.steps import init_state, train_step
from jaxgan.types import Batch
from tests.tiny import all_finite

KEY = jax.random.key(5)


def coded(classes=10, each=3):
    """A set whose image i has the value i in all its pixels; the class of image i is i % classes."""
    count = classes * each
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 4, 1))
    return Dataset("coded", np.ascontiguousarray(images), np.arange(count, dtype=np.int32) % classes,
                   tuple(map(str, range(classes))))


def draw(source, count, key=KEY) -> Batch:
    return jax.jit(lambda arrays, key: draw_step(source, arrays, key, 0, count, jnp.arange(count)))(
        source.arrays, key)


def test_channels_are_images_of_the_set_and_the_condition_is_their_labels_in_a_row():
    dataset = load("digits")
    batch = draw(stacked(dataset, labels=True), 50)
    assert batch.samples.shape == (50, 8, 8, 3)
    assert (batch.samples.dtype, batch.condition.dtype) == (jnp.float32, jnp.int32)
    known = {}
    for image, label in zip(dataset.images, dataset.labels, strict=True):
        known.setdefault(image.tobytes(), set()).add(int(label))
    for stack, mode in zip(pixels(batch.samples, (0, 1)), batch.condition, strict=True):
        for channel, digit in enumerate(f"{int(mode):03d}"):
            assert int(digit) in known[stack[..., channel].tobytes()]


def test_every_image_and_every_mode_is_as_likely_in_each_channel():
    source = stacked(coded(), labels=True)
    batch = draw(source, 60_000)
    images = pixels(batch.samples[:, 0, 0], (0, 1)).astype(int)  # [count, 3]
    for channel in range(3):
        assert stats.chisquare(np.bincount(images[:, channel], minlength=30)).pvalue > 1e-3
    modes = np.bincount(batch.condition, minlength=1000)
    assert len(modes) == source.num_classes == 1000
    assert stats.chisquare(modes).pvalue > 1e-3  # the channels are independent as well
    np.testing.assert_array_equal(batch.condition, images % 10 @ [100, 10, 1])


def test_modes_of_another_number_of_classes():
    source = stacked(coded(classes=3), labels=True)
    batch = draw(source, 40)
    labels = pixels(batch.samples[:, 0, 0], (0, 1)) % 3
    assert source.num_classes == 27
    np.testing.assert_array_equal(batch.condition, labels @ [9, 3, 1])


def test_a_stack_depends_on_key_and_position_alone():
    source, whole = stacked(coded()), draw(stacked(coded()), 24).samples
    assert (draw(source, 24, jax.random.key(6)).samples != whole).any()

    @jax.jit
    def part(step, first):  # the part of one of four devices in a step of 24
        return draw_step(source, source.arrays, KEY, step, 24, first + jnp.arange(6)).samples

    parts = [part(0, first) for first in range(0, 24, 6)]
    np.testing.assert_allclose(jnp.concatenate(parts), whole, rtol=1e-6)  # compiled, and not
    assert (part(1, 0) != whole[:6]).any()
    np.testing.assert_allclose(draw_step(source, source.arrays, KEY, 2, 8, jnp.arange(8)).samples,
                               whole[16:], rtol=1e-6)


def test_ranges_shape_and_no_end():
    low, high = stacked(coded()), stacked(coded(), value_range=(-1, 1))
    assert (low.size, low.sample_shape, low.value_range, low.window) == (None, (2, 4, 3), (0, 1), None)
    assert high.value_range == (-1, 1)
    np.testing.assert_allclose(draw(high, 9).samples, 2 * draw(low, 9).samples - 1, atol=1e-6)
    assert draw(low, 9).condition is None


def test_a_fixed_number_of_stacks():
    """Each comes once an epoch, in another order, and is as likely to be any as a new one."""
    source = stacked(coded(), labels=True, count=6)
    assert source.size == 6
    first, second, part = (draw_step(source, source.arrays, KEY, step, 6, jnp.arange(count))
                           for step, count in ((0, 6), (1, 6), (0, 2)))
    stacks = [[tuple(stack) for stack in pixels(batch.samples[:, 0, 0], (0, 1)).tolist()]
              for batch in (first, second)]
    assert len({*stacks[0]}) == 6
    assert sorted(stacks[0]) == sorted(stacks[1])
    assert stacks[0] != stacks[1]
    np.testing.assert_array_equal(part.samples, first.samples[:2])
    np.testing.assert_array_equal(first.condition, np.array(stacks[0]) % 10 @ [100, 10, 1])
    other = draw(stacked(coded(), labels=True, count=6), 6, jax.random.key(6))
    assert sorted(other.condition.tolist()) != sorted(first.condition.tolist())
    many = draw(stacked(coded(), labels=True, count=20_000), 20_000).condition
    assert stats.chisquare(np.bincount(many, minlength=1000)).pvalue > 1e-3


def test_errors():
    colour = Dataset("colour", np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int32), ("any",))
    with pytest.raises(ValueError, match="colour has images of 3 channels: only images of one can be"):
        stacked(colour)
    with pytest.raises(ValueError, match=r"value_range must be \(-1, 1\) or \(0, 1\); got \(0, 2\)"):
        stacked(coded(), value_range=(0, 2))
    with pytest.raises(ValueError, match="count must be at least 1, or None; got 0"):
        stacked(coded(), count=0)


@pytest.mark.slow
def test_the_preset_of_pacgan_is_published_and_runs(monkeypatch, quick_compilation):
    """128,000 stacks, 50 times; two images at once for the critic; one step with narrow networks."""
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    monkeypatch.setattr(stacked_mnist, "load", lambda *_, **__: Dataset(
        "made up", images, np.arange(20, dtype=np.int32) % 10, tuple("0123456789")))
    experiment = stacked_mnist.experiment
    config = launch.parse(experiment, ["--preset", "pacgan"])
    assert config.schedule.steps * config.schedule.batch_size == 50 * config.data.stacks
    small = settings.replace(config, width=2)
    source = experiment.make_source(small)
    assert (source.size, source.value_range) == (128_000, (-1, 1))
    gan = experiment.make_game(small, source.sample_shape)
    batch = draw(source, 4)
    state = jax.jit(partial(init_state, gan))(KEY, batch)
    assert state.critic.params["Conv_0"]["kernel"].shape == (5, 5, 2 * 3, 2)
    batches = jax.tree.map(lambda x: x[None], batch)
    state, metrics = jax.jit(partial(train_step, gan))(state, batches, KEY)
    assert state.step == 1
    assert all_finite(metrics)


def test_the_experiment_counts_the_modes_that_a_classifier_sees(monkeypatch):
    """Here one that reads the digit from the pixels."""
    network = FeatureNetwork("reader", "", lambda variables, images: Features(
        images, jax.nn.one_hot(images[:, 0, 0, 0] % 10, 10)), {})
    monkeypatch.setattr(stacked_mnist, "load", lambda *_, **__: coded())
    monkeypatch.setattr(measuring, "obtain_classifier",
                        lambda training, test: TrainedClassifier(network, {}))
    reference = stacked_mnist.make_reference(stacked_mnist.Config())
    modes, = reference.own
    modes.ready()
    batch = draw(stacked(coded(), labels=True), 700)
    counts = np.bincount(batch.condition)
    share = counts[counts > 0] / 700
    fakes = SampleSet(700, Observed(None, pixels(batch.samples, (0, 1))))
    assert modes.measure(Comparison(Protocol(), fakes, fakes, None)) == {
        "modes": len(share), "modes_kl": pytest.approx((share * np.log(1000 * share)).sum())}
    assert [number.name for number in modes.numbers] == ["modes", "modes_kl"]
    train, test = (reference.reals(split).take(np.arange(20)) for split in ("train", "test"))
    assert train.shape == (20, 2, 4, 3)
    assert (train != test).any()
