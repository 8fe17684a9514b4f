"""The classifier: what it learns, its features, its file, and what it refuses."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import classifier, launch, measuring
from jaxgan.data import Dataset, load
from jaxgan.features import load_classifier, save_classifier, train_classifier
from jaxgan.features.classifier import _augmented, accuracy, default_epochs, predict
from jaxgan.models import Classifier


@pytest.fixture(scope="module")
def digits():
    return load("digits"), load("digits", "test")


@pytest.fixture(scope="module")
def trained(digits):
    return train_classifier(*digits, epochs=12)


def cut(dataset, count):
    return Dataset(dataset.name, dataset.images[:count], dataset.labels[:count], dataset.class_names)


def test_it_learns_and_says_what(trained, digits):
    training, test = digits
    assert trained.about == {
        "dataset": "digits", "dataset_digest": training.digest, "class_names": list("0123456789"),
        "image_shape": [8, 8, 1], "test_accuracy": trained.about["test_accuracy"], "seed": 0,
        "epochs": 12, "width": 16}
    assert trained.about["test_accuracy"] >= 0.97
    few = predict(trained.network, test.images[:20])
    assert accuracy(trained.network, cut(test, 20)) == sum(map(int, few == test.labels[:20])) / 20
    np.testing.assert_array_equal(predict(trained.network, test.images, batch_size=100),
                                  predict(trained.network, test.images))


def test_features_are_what_the_last_layer_sees(trained, digits):
    network = trained.network
    features = network.apply(network.variables, digits[1].images[:30])
    assert (features.pooled.shape, features.logits.shape) == ((30, 128), (30, 10))
    assert features.pooled.dtype == features.logits.dtype == jnp.float32
    assert (features.pooled >= 0).all()
    last = network.variables["Dense_1"]
    np.testing.assert_allclose(features.logits, np.asarray(features.pooled) @ last["kernel"]
                               + last["bias"], rtol=1e-4, atol=1e-4)
    assert network.name == "classifier"


@pytest.mark.parametrize("shape", [(8, 8, 1), (9, 13, 3), (32, 32, 3)])
def test_images_of_any_size_are_classified_one_by_one(shape):
    model = Classifier(5, width=2, features=6)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, *shape)), jnp.float32)
    params = model.init(jax.random.key(0), images)
    features, logits = model.apply(params, images)
    assert (features.shape, logits.shape) == ((3, 6), (3, 5))
    np.testing.assert_allclose(model.apply(params, images[1:2])[1], logits[1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"Classifier takes images .* got \(8, 8\)"):
        model.init(jax.random.key(0), images[0, :8, :8, 0])


def test_the_seed_decides_the_weights_and_progress_is_told(digits):
    training, test, told = cut(digits[0], 300), cut(digits[1], 50), []
    first, again, other = (train_classifier(
        training, test, seed=seed, epochs=2, width=2,
        progress=lambda epoch, loss: told.append((epoch, loss))).network.digest for seed in (3, 3, 4))
    assert first == again != other
    assert [epoch for epoch, _ in told] == [1, 2] * 3
    assert told[:2] == told[2:4]
    assert abs(told[0][1] - np.log(10)) < 1  # chance, to begin with


def test_images_are_shifted_and_only_those_in_colour_flipped():
    image = np.zeros((28, 28, 1), np.uint8)
    image[10, 12] = 255
    out = np.asarray(_augmented(jnp.asarray(np.stack([image] * 500)), jax.random.key(0)))
    assert (out.sum(axis=(1, 2, 3)) == 1).all()
    _, rows, columns, _ = np.nonzero(out)
    assert {*zip(rows, columns, strict=True)} == {(y, x) for y in range(8, 13) for x in range(10, 15)}
    colour = np.repeat(image, 3, axis=2)
    out = np.asarray(_augmented(jnp.asarray(np.stack([colour] * 500)), jax.random.key(0)))
    _, rows, columns = np.nonzero(out.sum(axis=3) == 3)
    assert {*columns} == {*range(10, 15), *range(13, 18)}
    assert 0.4 < (columns >= 15).mean() / (6 / 10) / 0.5 < 1.6  # of the mirrored, three in five
    small = np.random.default_rng(0).integers(0, 256, (2, 27, 27, 3), np.uint8)
    np.testing.assert_allclose(_augmented(jnp.asarray(small), jax.random.key(0)), small / 255, rtol=1e-6)


@pytest.fixture
def saved(trained, tmp_path):
    save_classifier(tmp_path / "new" / "digits.npz", trained)
    return tmp_path / "new" / "digits.npz"


def test_a_saved_classifier_is_the_same(trained, saved, digits):
    loaded = load_classifier(saved)
    assert loaded.about == trained.about
    assert loaded.network.digest == trained.network.digest
    np.testing.assert_array_equal(predict(loaded.network, digits[1].images),
                                  predict(trained.network, digits[1].images))


def test_a_failed_save_leaves_the_earlier_file(trained, saved, monkeypatch):
    before = saved.read_bytes()

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_classifier(saved, trained)
    assert [path.read_bytes() for path in saved.parent.iterdir()] == [before]


def test_damage_is_found(trained, saved):
    good, rng, refusals = saved.read_bytes(), np.random.default_rng(0), []
    for place in (*range(60), *rng.integers(0, len(good), 60), *range(len(good) - 60, len(good))):
        damaged = bytearray(good)
        damaged[place] ^= 1 << rng.integers(8)
        saved.write_bytes(damaged)
        try:
            loaded = load_classifier(saved)
        except ValueError as error:
            refusals.append(str(error))
        else:  # a bit that means nothing, of a time in the archive say
            assert loaded.about == trained.about
            assert loaded.network.digest == trained.network.digest
    assert len(refusals) > 60
    assert all("is no classifier, or damaged" in refusal for refusal in refusals)
    for part in (good[:0], good[:1000], good[:-1]):
        saved.write_bytes(part)
        with pytest.raises(ValueError, match="delete it and train another"):
            load_classifier(saved)


def change_about(arrays, **changes):
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | changes))


@pytest.mark.parametrize("change", [
    lambda arrays: arrays.pop("about"),
    lambda arrays: arrays.update(about=np.array("[1]")),
    lambda arrays: arrays.update(about=np.array("{")),
    lambda arrays: arrays.update({"Dense_1/bias": arrays["Dense_1/bias"] + 1}),
    lambda arrays: arrays.update({"Dense_1/bias": np.array([None])}),  # a pickle
    lambda arrays: change_about(arrays, width=8),
    lambda arrays: change_about(arrays, width=10**12),
    lambda arrays: change_about(arrays, width="16"),
    lambda arrays: change_about(arrays, class_names=["a"]),
    lambda arrays: change_about(arrays, image_shape=[8, 8, 3]),
    lambda arrays: change_about(arrays, image_shape=[10**9, 10**9, 1]),
    lambda arrays: change_about(arrays, image_shape=None),
])
def test_another_file_is_refused(saved, change):
    with np.load(saved) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(saved, **arrays)
    with pytest.raises(ValueError, match=r"digits\.npz is no classifier, or damaged"):
        load_classifier(saved)


def test_a_missing_file_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_classifier(tmp_path / "none.npz")


def test_errors(digits):
    training, test = digits
    one = dataclasses.replace(training, labels=np.zeros(len(training), np.int32), class_names=("0",))
    for arguments, message in (((one, test), "digits has a single class: a classifier needs two"),
                               ((cut(training, 127), test), "digits has 127 images: .* at least 128")):
        with pytest.raises(ValueError, match=message):
            train_classifier(*arguments)
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        train_classifier(training, test, epochs=0)


def test_epochs_by_default(digits):
    assert default_epochs(digits[0]) == 40
    assert default_epochs(Dataset("long", np.zeros((1_000_000, 1, 1, 1), np.uint8),
                                  np.zeros(1_000_000, np.int32), ("any",))) == 1


def test_the_digest_of_a_data_set_is_of_shape_images_and_labels():
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1)
    labels = np.array([0, 1], np.int32)

    def digest(images, labels, names=("a", "b")):
        return Dataset("any", images, labels, names).digest

    expected = hashlib.sha256(b"(2, 3, 4, 1)\n" + bytes(range(24))
                              + b"\x00\x00\x00\x00\x01\x00\x00\x00").hexdigest()
    assert digest(images, labels) == digest(images, labels, ("c", "d")) == expected
    assert digest(np.asfortranarray(images), labels) == expected
    changed = images.copy()
    changed[1, 2, 3, 0] ^= 1
    assert len({expected, digest(changed, labels), digest(images, labels[::-1]),
                digest(images.reshape(2, 4, 3, 1), labels)}) == 4


def test_the_command_trains_keeps_and_is_not_asked_twice(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(launch, "keep_programs", lambda: None)
    assert launch.guarded(classifier.main, classifier.Options("digits", epochs=1)) == 0
    path = measuring.classifier_path(digits[0])
    assert path.parent == tmp_path / "jaxgan" / "classifiers"
    kept = load_classifier(path)
    printed = capsys.readouterr().out
    assert f"{path}: test accuracy {100 * kept.about['test_accuracy']:.2f} % on digits" in printed
    with monkeypatch.context() as patched:
        patched.setattr(measuring, "train_classifier", None)
        assert measuring.obtain_classifier(*digits).network.digest == kept.network.digest
    monkeypatch.setattr(measuring, "train_classifier", lambda *datasets: kept)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is damaged, so that another is trained"):
        measuring.obtain_classifier(*digits)
    assert load_classifier(path).network.digest == kept.network.digest
    save_classifier(path, kept._replace(about=kept.about | {"dataset_digest": "another set's"}))
    measuring.obtain_classifier(*digits)
    assert load_classifier(path).about == kept.about
    with pytest.raises(ValueError, match=r"out must end in \.npz; got 'weights\.bin'"):
        classifier.main(classifier.Options("digits", out="weights.bin"))
