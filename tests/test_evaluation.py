"""Samples measured by protocols: the same numbers on any batch size and number of devices."""

import dataclasses
import functools
import json
import os
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import evaluation, losses, metrics
from jaxgan.data import Dataset, mixture
from jaxgan.evaluation import Extractor, Metric, Number, Protocol, Samples
from jaxgan.features import FeatureNetwork, Features, load_weights, raw
from jaxgan.gan import GAN, sample
from jaxgan.models import DCGANCritic, DCGANGenerator
from jaxgan.steps import init_state
from jaxgan.types import Batch
from tests.tiny import Linear, points, tiny

RNG = np.random.default_rng(0)
TRAIN, TEST = (Dataset("made_up", RNG.integers(0, 256, (count, 8, 8, 1), np.uint8),
                       RNG.integers(0, 3, count).astype(np.int32), ("a", "b", "c"))
               for count in (57, 23))
REAL, HELD_OUT = evaluation.of_dataset(TRAIN, "train"), evaluation.of_dataset(TEST, "test")


def network():
    """Its features are an image's mean and spread, its logits its first three pixels."""
    def apply(variables, images):
        values = images.reshape(len(images), -1).astype(jnp.float32) * variables["scale"]
        return Features(jnp.stack([values.mean(1), values.std(1)], 1), values[:, :3])

    return FeatureNetwork("classifier", "digest", apply, {"scale": jnp.float32(1 / 255)})


def counted(samples, calls):
    """The same samples, whose numbers are noted when several are taken."""
    return samples._replace(take=lambda rows: (len(rows) > 1 and calls.append(rows))
                            or samples.take(rows))


def fakes(count=None):
    images = np.random.default_rng(1).integers(0, 200, (100, 8, 8, 1), np.uint8)
    return Samples("fakes", count, lambda rows: images[rows])


def prepare(metrics, reals, held_out=None, protocol=None, of=None):
    """An evaluator of these metrics, "fd,kid", by the network above."""
    return evaluation.prepare(protocol or Protocol(), evaluation.chosen(metrics),
                              Extractor(of or network()), reals, held_out)


ALL = "fd,kid,is,pr,dc,mmd,copying,swd"
BRIGHT = Metric("bright", lambda seen: {
    "bright": (seen.fake.samples > seen.protocol.ddof).mean(), "bright_std": 0.5}, (
    Number("bright", "pixels that shine", True), Number("bright_std", "", False, deviation_of="bright")),
    samples=True)


@pytest.mark.parametrize(("batch_size", "devices"), [(57, 1), (10, 1), (10, 4)])
def test_features_are_the_same_on_any_batch_size_and_number_of_devices(batch_size, devices):
    expected = network().apply(network().variables, jnp.asarray(TRAIN.images[:51]))
    extractor = Extractor(network(), batch_size, jax.local_devices()[:devices])
    seen = extractor.observe(REAL, 51, keep=True)
    np.testing.assert_allclose(seen.features.pooled, expected.pooled, rtol=1e-6)
    np.testing.assert_allclose(seen.features.logits, expected.logits, rtol=1e-6)
    np.testing.assert_array_equal(seen.samples, TRAIN.images[:51])


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("jaxgan.evaluation.samples._BLOCK", 20)


def test_features_of_reals_are_kept_in_blocks(tmp_path, small_blocks):
    calls = []
    extractor = Extractor(network(), 20, jax.local_devices()[:1], tmp_path)
    first = extractor.observe(counted(REAL, calls), 50).features
    files = sorted(tmp_path.rglob("*.npz"))
    assert [file.name for file in files] == [
        "00000000_00000020.npz", "00000020_00000040.npz", "00000040_00000050.npz"]
    assert len(calls) == 3
    again = extractor.observe(counted(REAL, calls), 50).features
    assert len(calls) == 3
    np.testing.assert_array_equal(again.pooled, first.pooled)
    extractor.observe(HELD_OUT, 20)
    extractor.observe(fakes(), 20)  # these have no digest
    assert len({file.parent for file in tmp_path.rglob("*.npz")}) == 2


def rewrite(path, other, **changes):
    """Saves a block of features again, with some arrays changed; of None, without them."""
    arrays = {name: array for name, array in {**load_weights(path), **changes}.items()
              if array is not None}
    np.savez(path, **arrays)


def compressed(path, other):
    np.savez_compressed(path, **load_weights(path))


def pipe(path, other):
    path.unlink()
    os.mkfifo(path)


SPOILT = {
    "empty": lambda path, other: path.write_bytes(b""),
    "cut": lambda path, other: path.write_bytes(path.read_bytes()[:100]),
    "foreign": lambda path, other: path.write_bytes(b"hello"),
    "compressed": compressed,
    "another block": lambda path, other: path.write_bytes(other.read_bytes()),
    "other numbers": functools.partial(rewrite, pooled=np.zeros((20, 2), np.float32)),
    "fewer": functools.partial(rewrite, pooled=np.zeros((19, 2), np.float32)),
    "of another type": functools.partial(rewrite, pooled=np.zeros((20, 2))),
    "without logits": functools.partial(rewrite, logits=None),
    "without features": functools.partial(rewrite, pooled=None),
    "more arrays": functools.partial(rewrite, more=np.zeros(3)),
    "another digest": functools.partial(rewrite, digest=np.zeros(3)),
}
SILENT = {"without a digest, as by the first release": functools.partial(rewrite, digest=None),
          "pipe": pipe}


@pytest.mark.parametrize("spoil", [*SPOILT, *SILENT])
def test_a_spoilt_block_of_features_is_made_anew(tmp_path, small_blocks, spoil):
    calls = []
    extractor = Extractor(network(), 20, jax.local_devices()[:1], tmp_path)
    first = extractor.observe(REAL, 57).features
    files = sorted(tmp_path.rglob("*.npz"))
    (SPOILT | SILENT)[spoil](files[1], files[0])
    with (pytest.warns(UserWarning, match=rf"{files[1].name} are computed again \(") if spoil in SPOILT
          else nullcontext()):
        again = extractor.observe(counted(REAL, calls), 57).features
    assert [rows[0] for rows in calls] == [20]
    jax.tree.map(np.testing.assert_array_equal, again, first)
    extractor.observe(counted(REAL, calls), 57)  # it was repaired
    assert len(calls) == 1


def test_what_another_process_has_not_kept_is_made_by_all(tmp_path, small_blocks, monkeypatch):
    """As they do so together, one that has it must not leave the others waiting."""
    calls = []
    extractor = Extractor(network(), 20, jax.local_devices()[:1], tmp_path)
    extractor.observe(counted(REAL, calls), 20)
    extractor.observe(counted(REAL, calls), 20)
    assert len(calls) == 1
    monkeypatch.setattr("jaxgan.evaluation.samples.agreed", lambda is_missing: (1,))  # to another one
    extractor.observe(counted(REAL, calls), 20)
    assert len(calls) == 2


def test_an_interrupted_observation_leaves_what_it_has_done(tmp_path, small_blocks):
    calls, done = [], []
    extractor = Extractor(network(), 20, jax.local_devices()[:1], tmp_path)

    def interrupt(count):
        done.append(count)
        if len(done) == 2:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        extractor.observe(REAL, 57, progress=interrupt)
    extractor.observe(counted(REAL, calls), 57)
    assert [rows[0] for rows in calls] == [20, 40]


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    extractor = Extractor(network(), 20, None, tmp_path / "file")
    with pytest.warns(UserWarning, match="features can't be kept in"):
        seen = extractor.observe(REAL, 20)
    assert seen.features.pooled.shape == (20, 2)


def test_the_numbers_are_the_metrics_of_the_features():
    protocol = Protocol(subset_size=15, subsets=3)
    evaluator = prepare(ALL, REAL, HELD_OUT, protocol)
    assert (evaluator.protocol.num_real, evaluator.protocol.num_fake) == (57, 23)
    assert evaluator.protocol.dataset_digest == TRAIN.digest
    values = evaluator(fakes())
    real, fake, other = (np.asarray(network().apply(network().variables, jnp.asarray(images)).pooled)
                         for images in (TRAIN.images, fakes().take(np.arange(23)), TEST.images))
    assert values["classifier/fd"] == pytest.approx(
        metrics.frechet_distance(metrics.moments(real), metrics.moments(fake)), rel=1e-5)
    assert evaluator.floor["classifier/fd"] == pytest.approx(
        metrics.frechet_distance(metrics.moments(real), metrics.moments(other)), rel=1e-5)
    assert values["classifier/precision"] == metrics.precision_recall(real, fake)[0]
    assert values["swd"] > 0
    assert values.keys() - evaluator.floor.keys() == {
        "classifier/copying", "classifier/copying_z", "classifier/nearest_ratio"}
    assert evaluator.other.count == 23


def test_reals_against_themselves_are_perfect():
    evaluator = prepare("fd,pr,swd", REAL, protocol=Protocol(num_fake=57))
    values = evaluator(REAL)
    assert values["classifier/fd"] == pytest.approx(0, abs=1e-9)
    assert values["swd"] == 0
    assert values["classifier/precision"] == values["classifier/recall"] == 1
    assert evaluator.floor == {}


def test_accuracy_is_how_often_the_class_asked_for_is_seen():
    """The logits of the network above are an image's first three pixels."""
    images = np.zeros((6, 8, 8, 1), np.uint8)
    images[np.arange(6), 0, [0, 1, 2, 0, 0, 2]] = 255
    asked = Samples("asked", 6, lambda rows: images[rows], targets=lambda rows: {"label": rows % 3})
    evaluator = prepare("accuracy", REAL, protocol=Protocol(num_fake=6))
    found = evaluator(asked)
    assert found == {"classifier/accuracy": pytest.approx(5 / 6), "classifier/accuracy_0": 1.0,
                     "classifier/accuracy_1": 0.5, "classifier/accuracy_2": 1.0}
    with pytest.raises(ValueError, match="samples with their label, which isn't known of fakes: leave"):
        evaluator(fakes())


def test_images_of_a_state_are_those_of_sample_on_any_number_of_devices():
    gan = GAN(DCGANGenerator((8, 8, 1), 4, kernel_size=3), DCGANCritic(4, kernel_size=3), 3,
              losses.wasserstein(), optax.sgd(0.1), optax.sgd(0.1), ema_decay=0.9)
    state = jax.jit(functools.partial(init_state, gan))(jax.random.key(0),
                                                        Batch(jnp.zeros((2, 8, 8, 1))))
    state = state._replace(ema=jax.tree.map(lambda x: 3 * x, state.ema))
    key = jax.random.key(5)
    for averaged in (True, False):
        expected = np.rint(255 * sample(gan, state, key, 20, use_ema=averaged))
        for devices in (1, 4):
            draw = evaluation.sampler(gan, key, evaluation.presented((8, 8, 1), (0.0, 1.0)),
                                      averaged=averaged,
                                      devices=jax.local_devices()[:devices])
            found = draw(state).take(np.arange(4, 20))
            assert found.dtype == np.uint8
            assert np.abs(found - expected[4:]).max() <= 1


def test_points_are_measured_as_they_are():
    gan = tiny(generator=Linear(2))
    state = jax.jit(functools.partial(init_state, gan))(jax.random.key(0), points(2))
    draw = evaluation.sampler(gan, jax.random.key(1), lambda x: x)
    samples = draw(state).take(np.arange(8))
    np.testing.assert_allclose(samples, sample(gan, state, jax.random.key(1), 8), rtol=1e-5, atol=1e-6)
    source = mixture("8gaussians")
    reals = [evaluation.of_source(source, "8gaussians", jax.random.key(i)) for i in (0, 1)]
    evaluator = prepare("swd,mmd", *reals, Protocol(num_real=50, num_fake=40), raw())
    assert evaluator(draw(state)).keys() == {"swd", "raw/mmd"}
    assert evaluator.floor["swd"] < evaluator(draw(state))["swd"]


@pytest.mark.parametrize(("names", "message"), [
    ("is", "'is' needs a feature network that classifies, and raw does not: leave it out, or choose"),
    ("accuracy", "'accuracy' needs a feature network that classifies"),
    ("copying", "needs a held-out split, which made_up train doesn't have: leave it out"),
])
def test_a_metric_that_lacks_something_is_refused_before_anything_is_observed(names, message):
    def progress(done):
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        evaluation.prepare(Protocol(), evaluation.chosen(names), Extractor(raw()), REAL,
                           progress=progress)


# Few samples.


@pytest.mark.filterwarnings("ignore:.*rank-deficient")
@pytest.mark.parametrize("name", [name for name, metric in evaluation.METRICS.items() if metric.fewest])
def test_a_metric_is_left_out_where_it_could_not_be_measured_and_not_before(name):
    needed = evaluation.METRICS[name].fewest(Protocol())

    def measured(real, fake, **changes):
        metric = evaluation.METRICS[name]._replace(**changes)
        return evaluation.prepare(Protocol(num_real=real, num_fake=fake, subsets=2), (metric,),
                                  Extractor(network()), REAL)(fakes())

    assert measured(needed.real, needed.fake)
    for real, fake in ((needed.real - 1, needed.fake), (needed.real, needed.fake - 1)):
        if real and fake:
            with pytest.raises(ValueError, match=rf"reals: {real}, samples: {fake}\): {name} \("):
                measured(real, fake)
            with pytest.raises(ValueError, match=r"."):  # what the metric itself says
                measured(real, fake, fewest=None)


def test_what_is_left_of_the_metrics_is_measured():
    with pytest.warns(UserWarning, match=r"^left out, for there are too few \(reals: 57, samples: 3\): "
                      r"pr \(precision, recall\) needs 4 of each, since its k is 3$"):
        evaluator = prepare("pr,kid,swd", REAL, HELD_OUT, Protocol(num_fake=3, subsets=2))
    assert evaluator(fakes()).keys() == {"classifier/kd", "classifier/kd_std", "swd"}
    few = HELD_OUT._replace(count=3)
    evaluator = prepare("pr,swd", REAL, few, Protocol(num_fake=20))
    assert evaluator.floor.keys() == {"swd"}
    assert evaluator(fakes()).keys() == {"classifier/precision", "classifier/recall", "swd"}


# Metrics as records.


def measured_by(metric):
    """The numbers that a metric of the library gives, on data that it is for."""
    if metric.name == "ngrams":
        reals = Samples("text", 9, lambda rows: (rows[:, None] + np.arange(6)).astype(np.int32))
        return prepare(metric.name, reals, reals, of=raw())(reals)
    images = np.random.default_rng(2).integers(0, 256, (23, 32, 32, 1), np.uint8)
    mask = np.zeros((23, 32, 32, 1))
    mask[:, 8:24, 8:24] = 1
    targets = {"label": np.arange(23) % 3, "image": images[::-1], "mask": mask}
    fake = Samples("fake", 23, lambda rows: images[rows],
                   targets=lambda rows: {name: of[rows] for name, of in targets.items()})
    return prepare(metric.name, fake, fake, Protocol(subsets=2))(fake)


@pytest.mark.parametrize("metric", evaluation.METRICS.values(), ids=lambda metric: metric.name)
def test_every_number_of_a_metric_has_a_title_and_a_direction(metric):
    values = measured_by(metric)
    assert values
    found = [evaluation.find(name, [metric]) for name in values]
    assert [number.name for number in found] == [*values]
    titles = [number.title for number in found]
    assert len({*titles}) == len(titles)
    assert all(title and "*" not in title and "_" not in title for title in titles)
    directions = {type(number.higher_is_better) for number in found}  # of copying the middle is best
    assert directions == {type(None) if metric.name == "copying" else bool}
    assert {number.deviation_of for number in found} - {""} <= values.keys()
    for number in metric.numbers:  # nothing is listed that isn't given
        assert any(evaluation.find(name, [metric._replace(numbers=(number,))]) for name in values)
    others = [other for other in evaluation.METRICS.values() if other is not metric]
    assert not any(evaluation.find(name, others) for name in values)


def test_directions():
    names = ("score", "precision", "recall", "density", "coverage", "accuracy", "accuracy_1")
    for name in (*(f"classifier/{name}" for name in names), "hole_psnr", "hole_ssim"):
        assert evaluation.find(name, evaluation.METRICS.values()).higher_is_better
    for name in ("classifier/fd", "raw/kd", "raw/mmd", "swd", "swd_16", "jsd_4", "hole_l1"):
        assert not evaluation.find(name, evaluation.METRICS.values()).higher_is_better


def test_a_metric_of_ones_own_is_chosen_made_ready_measured_and_described():
    made = []
    own = BRIGHT._replace(ready=lambda: made.append(1))
    asked = evaluation.chosen("bright,fd", [own])
    assert asked == (own, evaluation.METRICS["fd"])
    evaluator = evaluation.prepare(Protocol(), asked, Extractor(network()), REAL, HELD_OUT)
    assert made == [1]
    values = evaluator(fakes())
    assert values.keys() == {"bright", "bright_std", "classifier/fd"}
    assert values["bright"] == (fakes().take(np.arange(23)) > 1).mean()
    assert evaluator.floor["bright"] == (TEST.images > 1).mean()
    assert evaluation.find("bright", asked) == BRIGHT.numbers[0]
    assert evaluation.find("classifier/bright", asked) is None
    assert evaluation.find("bright", evaluation.METRICS.values()) is None


def test_a_number_that_a_record_does_not_list_is_refused():
    own = BRIGHT._replace(numbers=BRIGHT.numbers[:1])
    evaluator = evaluation.prepare(Protocol(), (own,), Extractor(network()), REAL, HELD_OUT)
    with pytest.raises(ValueError, match="'bright' gives 'bright_std', which its record doesn't list"):
        evaluator(fakes())


def test_a_metric_of_features_has_numbers_named_after_the_network():
    own = Metric("spread", lambda seen: {"spread": seen.fake.pooled.std()}, (
        Number("spread", "spread", False),), features=True)
    evaluator = evaluation.prepare(Protocol(), (own,), Extractor(network()), REAL, HELD_OUT)
    assert evaluator(fakes()).keys() == {"classifier/spread"}
    assert evaluation.find("classifier/spread", [own]).title == "classifier spread"
    assert evaluation.find("spread", [own]) is None


def test_more_samples_than_there_are_are_refused():
    with pytest.raises(ValueError, match="60 samples are asked for, but made_up train has 57"):
        prepare("swd", REAL, protocol=Protocol(num_real=60))
    with pytest.raises(ValueError, match="23 samples are asked for, but fakes has 5"):
        prepare("swd", REAL, HELD_OUT)(fakes(5))


def test_names_are_checked():
    assert [metric.name for metric in evaluation.chosen("fd, kid")] == ["fd", "kid"]
    with pytest.raises(ValueError, match=r"unknown metric 'kdi' for such samples: did you mean kid\?"):
        evaluation.chosen("kdi")
    with pytest.raises(ValueError, match=r"unknown metric 'brigth' .*: did you mean bright\?"):
        evaluation.chosen("brigth", [BRIGHT])
    with pytest.raises(ValueError, match="unknown metric 'bright' for such samples: choose from fd, "):
        evaluation.chosen("bright")
    with pytest.raises(ValueError, match="no metric is chosen"):
        evaluation.chosen(" ,")
    with pytest.raises(ValueError, match=r"unknown protocol 'mimicri': did you mean mimicry\?"):
        evaluation.preset("mimicri")


def test_only_inceptions_distance_is_called_fid():
    titles = {name: evaluation.find(name, evaluation.METRICS.values()).title for name in (
        "inception/fd", "inception/kd_std", "inception/score", "inception/recall", "classifier/fd",
        "random_projection/kd", "classifier/accuracy_3", "swd_16")}
    assert titles == {
        "inception/fd": "FID", "inception/kd_std": "KID, std", "inception/score": "Inception score",
        "inception/recall": "inception recall", "classifier/fd": "classifier Frechet distance",
        "random_projection/kd": "random projection kernel distance",
        "classifier/accuracy_3": "classifier accuracy, class 3",
        "swd_16": "sliced Wasserstein distance, size 16"}


def test_a_protocol_is_kept_as_json_and_its_digest_tells_it_from_others():
    protocol = evaluation.preset("torch_fidelity")
    stored = json.loads(json.dumps(protocol.as_json()))
    assert evaluation.protocol_from_json(stored) == protocol
    for field in dataclasses.fields(protocol):
        value = getattr(protocol, field.name)
        other = {"split": "test", "ddof": 0, "averaged": False}.get(
            field.name, value + ("x" if isinstance(value, str) else 1) if value is not None else 1)
        changed = dataclasses.replace(protocol, **{field.name: other})
        assert (changed.digest == protocol.digest) == (field.name == "name")
        assert len(evaluation.differences(protocol, changed)) == (field.name != "name")
    with pytest.raises(ValueError, match="not a protocol"):
        evaluation.protocol_from_json(stored | {"ddof": "1"})
    with pytest.raises(ValueError, match="not a protocol"):
        evaluation.protocol_from_json(stored | {"more": 1})


@pytest.mark.parametrize(("changes", "message"), [
    ({"ddof": 2}, "ddof must be 0 or 1; got 2"),
    ({"split": "valid"}, "split must be 'train' or 'test'; got 'valid'"),
    ({"splits": 0}, "splits must be at least 1; got 0"),
    ({"num_fake": -1}, "num_fake must not be negative; got -1"),
    ({"subset_size": 1}, "subset_size must be at least 2; got 1"),
])
def test_protocols_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**changes)


def test_the_published_protocols():
    """As the papers and their public code have them."""
    numbers = {name: (preset.features, preset.split, preset.num_real, preset.num_fake, preset.ddof,
                      preset.shuffle) for name, preset in evaluation.PRESETS.items()}
    assert numbers == {
        "default": ("classifier", "train", 0, 0, 1, None),
        "mimicry": ("inception", "train", 50_000, 50_000, 1, None),
        "ttur": ("inception", "train", 0, 50_000, 1, None),
        "compare_gan": ("inception", "test", 10_000, 10_000, 1, None),
        "r3gan": ("inception", "train", 0, 50_000, 0, None),
        "torch_fidelity": ("inception", "train", 0, 50_000, 1, 2020),
    }


def test_diagnostics_of_a_linear_critic():
    """D(x) = w x + b: scores are linear in the means, and the gradient is w everywhere."""
    gan = tiny(generator=Linear(2), critic=Linear())
    state = jax.jit(functools.partial(init_state, gan))(jax.random.key(0), points(2))
    weights = np.asarray(state.critic.params["Dense_0"]["kernel"])[:, 0]
    real, held_out = points(32, seed=1), points(32, seed=2)
    found = evaluation.critic_diagnostics(gan, state, real, held_out, jax.random.key(1))
    gap = (np.asarray(real.samples).mean(0) - np.asarray(held_out.samples).mean(0)) @ weights
    assert float(found["critic/overfitting"]) == pytest.approx(gap, abs=1e-5)
    difference = found["critic/train_wasserstein"] - found["critic/held_out_wasserstein"]
    assert float(difference) == pytest.approx(gap, abs=1e-5)
    for name in ("q05", "q50", "q95"):
        norm = float(found[f"critic/input_gradient_{name}"])
        assert norm == pytest.approx(np.linalg.norm(weights), rel=1e-5)
    with pytest.raises(ValueError, match="must have the same shape"):
        evaluation.critic_diagnostics(gan, state, real, points(3), jax.random.key(1))
