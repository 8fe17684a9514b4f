"""Detection: canvases measured with a ruler, metrics by hand, a detector, and the experiment's parts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats
from scipy.special import softmax
from sklearn.metrics import average_precision_score, precision_recall_curve

from experiments import detection, measuring
from jaxgan import evaluation, tasks
from jaxgan.data import Dataset, canvases, draw_step, load, pixels
from jaxgan.evaluation import Extractor, Protocol, Samples, evaluator
from jaxgan.features import (
    FeatureNetwork,
    Features,
    TrainedDetector,
    detect,
    load_detector,
    raw,
    save_classifier,
    save_detector,
    train_detector,
)
from jaxgan.features.classifier import TrainedClassifier, network_of
from jaxgan.metrics import average_precision, detection_scores, mean_average_precision, mean_iou
from jaxgan.models import Classifier
from jaxgan.models.planes import check_boxes
from jaxgan.pictures import load_png, outlined
from jaxgan.steps import init_state
from tests.test_training import TINY, rows, run_here
from tests.tiny import seen, value

KEY = jax.random.key(5)


def made(images, labels=None, classes=3):
    images = np.asarray(images, np.uint8)
    labels = np.arange(len(images)) % classes if labels is None else labels
    return Dataset("made", images, np.asarray(labels, np.int32), tuple(map(str, range(classes))))


def draw(source, count, key=KEY):
    return jax.jit(lambda arrays, key: draw_step(source, arrays, key, 0, count, jnp.arange(count)))(
        source.arrays, key)


# Canvases


def test_a_bright_image_covers_the_pixels_whose_centres_are_in_its_box():
    source = canvases(made(np.full((2, 4, 6, 1), 255)), 16, smallest=3, largest=12)
    batch = draw(source, 2000)
    top, left, bottom, right = 16 * np.asarray(batch.condition["box"])[:, :, None].transpose(1, 0, 2)
    centre = np.arange(16) + 0.5
    inside = ((top < centre) & (centre < bottom))[:, :, None] & ((left < centre) & (centre < right)
                                                                 )[:, None]
    np.testing.assert_allclose(batch.samples[..., 0], inside, atol=1e-5)
    check_boxes("canvases", batch.condition["box"])  # wholly inside

    height, width = (bottom - top)[:, 0], (right - left)[:, 0]
    np.testing.assert_allclose(height / width, 4 / 6, rtol=1e-4)
    assert stats.kstest(width, stats.uniform(3, 9).cdf).pvalue > 1e-3
    for start, size in ((top, height), (left, width)):
        assert stats.kstest(start[:, 0] / (16 - size), "uniform").pvalue > 1e-3


def test_ink_is_carried_to_the_box_and_enlarging_is_linear_interpolation():
    """By SciPy, with the place that the box says."""
    image = np.random.default_rng(0).integers(0, 64, (8, 8))  # up to 63: no ink
    image[2:5, 1:7] += 150
    image[2, 1] = 64  # still ink
    batch = draw(canvases(made(image[None, :, :, None]), 24, smallest=16, largest=16), 20)
    for canvas, box in zip(batch.samples, 24 * np.asarray(batch.condition["box"]), strict=True):
        np.testing.assert_allclose(box[2:] - box[:2], [6, 12], rtol=1e-5)
        start = box[:2] - [4, 2]
        at = (np.arange(24)[:, None] + 0.5 - start) / 2  # [pixel, axis], in the image's pixels
        inside = ((at > 0) & (at < 8)).T
        expected = ndimage.map_coordinates(image / 255, np.meshgrid(*(at - 0.5).T, indexing="ij"),
                                           order=1, mode="nearest")
        np.testing.assert_allclose(canvas[..., 0], expected * inside[0][:, None] * inside[1], atol=1e-4)


def test_shrinking_averages():
    board = 255 * (np.indices((16, 16)).sum(0) % 2)
    batch = draw(canvases(made(board[None, :, :, None]), 8, smallest=4, largest=4), 50)
    seen = np.asarray(batch.samples)
    assert 0.15 < seen[seen > 0].min() < 0.5 < seen.max() < 0.85


def test_images_are_drawn_alike_with_their_labels():
    values = np.arange(100, 130)
    batch = draw(canvases(made(np.full((30, 4, 4, 1), values[:, None, None, None])), 6, smallest=4,
                          largest=5), 6000)
    index = pixels(batch.samples, (0, 1)).max(axis=(1, 2, 3)).astype(int) - 100
    assert stats.chisquare(np.bincount(index, minlength=30)).pvalue > 1e-3
    np.testing.assert_array_equal(batch.condition["label"], index % 3)
    # Which image, how large and where are independent.
    box = np.asarray(batch.condition["box"])
    size = 6 * (box[:, 2] - box[:, 0])
    drawn = np.stack([index, size, *(box[:, :2] * 6 / (6 - size[:, None])).T])
    assert np.abs(np.triu(stats.spearmanr(drawn, axis=1).statistic, 1)).max() < 0.06


def test_a_canvas_depends_on_key_and_position_alone():
    source = canvases(load("digits"), 16)
    whole = draw(source, 24)
    assert (draw(source, 24, jax.random.key(6)).samples != whole.samples).any()

    @jax.jit
    def part(step, first):  # the part of one of four devices in a step of 24
        return draw_step(source, source.arrays, KEY, step, 24, first + jnp.arange(6))

    parts = [part(0, first) for first in range(0, 24, 6)]
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), joined, whole)
    assert (part(1, 0).samples != whole.samples[:6]).any()


def test_few_canvases_are_labelled():
    """Half of those drawn are of the few, with weight 2; which ones these are depends on the key."""
    source = canvases(load("digits"), 16, labelled=3)
    batch, other = draw(source, 400), draw(source, 400, jax.random.key(6))
    weights = np.asarray(batch.condition["weight"])
    assert set(weights) == {0, 2}
    assert 170 <= (weights == 2).sum() <= 230  # binomial: 3 standard deviations
    few = np.unique(batch.samples[weights == 2], axis=0, return_index=True)[1]
    assert len(few) == 3
    for name in ("label", "box"):
        assert len(np.unique(np.asarray(batch.condition[name])[weights == 2], axis=0)) <= 3
    assert len(np.unique(batch.samples[weights == 0], axis=0)) == (weights == 0).sum()
    again = np.unique(np.asarray(other.samples)[np.asarray(other.condition["weight"]) == 2], axis=0)
    assert len(again) == 3
    assert not (again[:, None] == batch.samples[weights == 2][few][None]).all((2, 3, 4)).any()
    counts = stats.chisquare(np.unique(batch.samples[weights == 2], axis=0, return_counts=True)[1])
    assert counts.pvalue > 1e-3


def test_the_experiments_critic_learns_from_the_labelled_alone():
    gan = detection.make_gan(detection.experiment.configure(width=2, labelled=3), (16, 16, 1))
    heads = {"class": jnp.zeros((2, 10)), "box": jnp.array([BOX[0]] * 2, jnp.float32)}
    condition = {"label": jnp.array([1, 2]), "box": heads["box"] / 2, "weight": jnp.zeros(2)}
    classification, localisation = gan.tasks
    of = seen(condition=condition, **heads)
    for task in (classification, localisation):
        assert float(value(task.critic, of, of)) == 0
    assert float(value(classification.generator, of, of)) == pytest.approx(np.log(10), rel=1e-6)
    source = detection.make_source(detection.experiment.configure(labelled=3))
    assert 0 in draw(source, 20).condition["weight"]
    reals = detection.make_reference(detection.experiment.configure(labelled=3)).reals("test")
    assert (reals.targets(np.arange(100))["weight"] == 1).all()


def test_ranges_shapes_and_no_end():
    colour = made(np.random.default_rng(1).integers(0, 256, (5, 8, 6, 3)))
    low, high = canvases(colour, 12), canvases(colour, 12, value_range=(-1, 1))
    assert (low.size, low.sample_shape, low.num_classes) == (None, (12, 12, 3), 3)
    assert (low.value_range, high.value_range) == ((0, 1), (-1, 1))
    a, b = draw(low, 200), draw(high, 200)
    assert (a.samples.min(), b.samples.min(), b.samples.dtype) == (0, -1, jnp.float32)
    assert a.samples.max() <= 1
    np.testing.assert_allclose(b.samples, 2 * a.samples - 1, atol=1e-6)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), a.condition) == {
        "label": ((200,), jnp.int32), "box": ((200, 4), jnp.float32), "weight": ((200,), jnp.float32)}
    assert (a.condition["weight"] == 1).all()
    sides = 12 * np.asarray(a.condition["box"])[:, 2] - 12 * np.asarray(a.condition["box"])[:, 0]
    assert 6 <= sides.min() < 6.5  # of the image's 8 pixels, by default 6 to 12
    assert 11.5 < sides.max() <= 12


@pytest.mark.parametrize(("size", "options", "message"), [
    (8, {}, "canvas_size must be at least 12, the largest image's; got 8: give a larger canvas"),
    (16, {"smallest": 9, "largest": 6}, "0 < smallest <= largest; got 9 and 6"),
    (16, {"smallest": 0}, "0 < smallest <= largest; got 0 and 12"),
    (16, {"labelled": -1}, "labelled must be 0 for all, or a number of canvases; got -1"),
    (16, {"value_range": (0, 2)}, r"value_range must be \(-1, 1\) or \(0, 1\); got \(0, 2\)"),
])
def test_canvases_refuse(size, options, message):
    with pytest.raises(ValueError, match=message):
        canvases(made(np.full((2, 8, 8, 1), 255)), size, **options)


def test_blank_images_are_refused():
    images = np.full((3, 8, 8, 1), 255)
    images[1] = 63
    with pytest.raises(ValueError, match="made has no object in image 1, of which no pixel is above 63"):
        canvases(made(images), 16)


# Metrics


def test_iou_by_counting_cells():
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 12, (2, 300, 4))
    cells = np.zeros((2, 300, 12, 12), bool)
    for which, row in np.ndindex(2, 300):
        top, left, bottom, right = corners[which, row]
        cells[which, row, top:bottom, left:right] = True
    shared, either = (op(*cells).sum(axis=(1, 2)) for op in (np.logical_and, np.logical_or))
    expected = shared / np.maximum(either, 1)
    assert 0 < expected.mean() < 1
    assert mean_iou(*corners) == pytest.approx(expected.mean(), rel=1e-12)
    assert mean_iou(*corners / 12) == pytest.approx(
        float(tasks.iou(*map(jnp.asarray, corners / 12)).mean()), rel=1e-5)
    assert mean_iou(corners[0, :1] * 0, corners[1, :1] * 0) == 0.0


@pytest.mark.parametrize(("scores", "hits", "positives", "expected"), [
    ([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0], 3, (1 + 2 / 3) / 3),
    ([0.6, 0.9, 0.7, 0.8], [1, 0, 1, 0], 2, 1 / 2),  # precisions 0, 0, 1/3, 2/4: the best is 1/2
    ([0.9, 0.8, 0.7], [0, 1, 1], 2, 2 / 3),
    ([0.5, 0.5], [1, 0], 1, 1 / 2),  # together, whichever stands first
    ([0.5, 0.5], [0, 1], 1, 1 / 2),
    ([3.0, -8.0], [1, 1], 2, 1.0),
    ([0.9], [0], 1, 0.0),
    ([], [], 4, 0.0),
])
def test_average_precision_by_hand(scores, hits, positives, expected):
    assert average_precision(scores, np.array(hits, bool), positives) == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [1, 8], ids=["ties", "no ties"])
def test_average_precision_is_the_area_under_scikit_learns_curve(decimals):
    generator = np.random.default_rng(decimals)
    scores, hits = np.round(generator.uniform(size=200), decimals), generator.uniform(size=200) < 0.3
    positives = hits.sum() + 17  # found by none
    share = hits.sum() / positives
    precision, recall, _ = precision_recall_curve(hits, scores)  # from the highest recall down
    best = np.maximum.accumulate(precision)[:-1]
    found = average_precision(scores, hits, positives)
    assert found == pytest.approx(-(np.diff(recall) * best).sum() * share, rel=1e-12)
    assert found > average_precision_score(hits, scores) * share  # which doesn't interpolate
    order = generator.permutation(200)
    assert average_precision(scores[order], hits[order], positives) == pytest.approx(found, rel=1e-12)
    assert average_precision(np.exp(5 * scores), hits, positives) == pytest.approx(found, rel=1e-12)


def test_mean_average_precision_by_hand():
    boxes = np.tile([0.0, 0.0, 1.0, 1.0], (4, 1))
    halves, labels = boxes * [1, 1, 0.5, 1], np.array([0, 0, 2, 2])  # no image is of class 1
    perfect = np.eye(3)[labels]
    assert mean_average_precision(perfect, boxes, labels, boxes) == 1.0
    assert mean_average_precision(perfect, halves, labels, boxes) == 1.0  # an IoU of exactly 1/2
    assert mean_average_precision(perfect, halves, labels, boxes, threshold=0.51) == 0.0
    # Class 0: the detection of score 0.9 is in an image of class 2; class 2 misses a box.
    scores = np.array([[0.8, 0, 0.1], [0.3, 0, 0.2], [0.9, 0, 0.7], [0.1, 0, 0.6]])
    predicted = boxes.copy()
    predicted[2] = 0.0
    assert mean_average_precision(scores, predicted, labels, boxes) == pytest.approx(
        (2 / 3 + 1 / 2 * 1 / 2) / 2)


def test_scores_of_a_network():
    """Logits become comparable between images as probabilities."""
    logits = np.array([[9.0, 10.0], [8.0, 0.0], [5.0, 1.0]], np.float32)
    labels, boxes = np.array([1, 0, 0]), np.tile([0.2, 0.2, 0.6, 0.6], (3, 1))
    predicted = boxes + np.array([[0.0], [0.0], [0.4]])  # the last is elsewhere
    found = detection_scores(logits, predicted, labels, boxes)
    assert found == {"iou": pytest.approx(2 / 3), "accuracy": 1.0, "ap": pytest.approx((1 + 1 / 2) / 2)}
    assert found["ap"] == mean_average_precision(softmax(logits, axis=1), predicted, labels, boxes)
    assert detection_scores(logits[:, ::-1], predicted, labels, boxes)["accuracy"] == 0.0


ONE, BOX = np.zeros((1, 2)), np.array([[0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: mean_iou(BOX, BOX[:, :3]), ValueError, r"\[count, 4\]; got \(1, 4\) and \(1, 3\)"),
    (lambda: mean_iou(BOX * np.nan, BOX), ValueError, "predicted must be finite"),
    (lambda: average_precision([0.5], [1], 1), TypeError, "hits must be booleans; got int64"),
    (lambda: average_precision([0.5], [[True]], 1), ValueError, r"must be \[count\]; got \(1,\) and"),
    (lambda: average_precision([np.nan], [True], 1), ValueError, "scores must be finite"),
    (lambda: average_precision([], np.zeros(0, bool), 0), ValueError, "must be at least 1; got 0"),
    (lambda: average_precision([1.0, 1.0], [True, True], 1), ValueError, "2 hits of 1 objects"),
    (lambda: mean_average_precision(ONE, BOX, np.zeros(1), BOX), TypeError, "integers; got float64"),
    (lambda: mean_average_precision(ONE, BOX, np.array([2]), BOX), ValueError, r"in \[0, 2\); they"),
    (lambda: mean_average_precision(ONE, BOX, np.zeros((1, 1), int), BOX), ValueError, r"must be \[1\]"),
    (lambda: mean_average_precision(ONE, BOX, np.array([0]), BOX, threshold=0), ValueError, "got 0"),
    (lambda: mean_average_precision(ONE, BOX[[0, 0]], np.array([0]), BOX[[0, 0]]), ValueError,
     "a box for each label; got 2 and 1"),
])
def test_metrics_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()


# The detector


@pytest.fixture(scope="module")
def bars():
    """Bars that stand and bars that lie."""
    images = np.zeros((2, 8, 8, 1))
    images[0, :, 2:5] = images[1, 3:6] = 255
    return made(images, classes=2)


@pytest.fixture(scope="module")
def trained(bars):
    told = []
    source = canvases(bars, 12, value_range=(-1, 1), smallest=6, largest=10)
    found = train_detector(source, source, updates=300, width=2,
                           progress=lambda done, loss: told.append((done, loss)))
    assert [done for done, _ in told] == [100, 200, 300]
    assert told[-1][1] < told[0][1]
    return found


@pytest.mark.slow
def test_it_learns_what_and_where(trained, bars):
    about = trained.about
    assert about["accuracy"] > 0.98
    assert about["iou"] > 0.6
    assert about == {"num_classes": 2, "sample_shape": [12, 12, 1], "seed": 0, "updates": 300,
                     "width": 2, **{name: about[name] for name in ("iou", "ap", "accuracy")}}
    batch = draw(canvases(bars, 12, smallest=6, largest=10), 700)
    logits, boxes = detect(trained.network, pixels(batch.samples, (0, 1)))
    assert (logits.shape, boxes.shape) == ((700, 2), (700, 4))
    assert (logits.argmax(1) == batch.condition["label"]).mean() > 0.98
    assert mean_iou(boxes, batch.condition["box"]) == pytest.approx(about["iou"], abs=0.03)


def test_a_detector_comes_back_whole_or_not_at_all(trained, tmp_path):
    path = tmp_path / "kept" / "detector.npz"
    save_detector(path, trained)
    back = load_detector(path)
    assert back.about == trained.about
    assert (back.network.name, back.network.digest) == ("detector", trained.network.digest)
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 1), dtype=np.uint8)
    for ours, theirs in zip(detect(back.network, images), detect(trained.network, images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="is no detector, or damaged"):
        load_detector(path)
    model = Classifier(2, width=2)
    params = model.init(KEY, jnp.zeros((1, 12, 12, 1)))["params"]
    save_classifier(path, TrainedClassifier(network_of("classifier", model, params), {
        "class_names": ["a", "b"], "width": 2}))
    with pytest.raises(ValueError, match=r"is no detector, or damaged .*: delete it and train another"):
        load_detector(path)
    with pytest.raises(FileNotFoundError):
        load_detector(tmp_path / "none.npz")


@pytest.mark.parametrize("updates", [0, 150])
def test_updates_come_by_the_hundred(bars, updates):
    source = canvases(bars, 12)
    with pytest.raises(ValueError, match=f"must be a multiple of 100; got {updates}"):
        train_detector(source, source, updates=updates)


# The experiment


def everything_is(label):
    """A detector that sees one class and the whole canvas."""
    def apply(variables, images):
        logits = 5 * jax.nn.one_hot(jnp.full(len(images), label), 10)
        return Features(images, jnp.concatenate([logits, jnp.tile(BOX, (len(images), 1))], axis=1))

    return TrainedDetector(FeatureNetwork("detector", "", apply, {}), {})


def areas(boxes):
    return (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)


@pytest.fixture
def run(tmp_path, monkeypatch, quick_compilation):
    monkeypatch.setattr(detection, "obtain_detector", lambda data: everything_is(3))
    monkeypatch.setattr(evaluator, "_ENDLESS_COUNT", 100)  # reals, which no metric looks at here
    assert run_here("detection", *TINY, "--steps", 2, "--eval-every", 2, "--eval-metrics", "agreement",
                    "--sample-every", 0, "--run-dir", tmp_path / "run") == 0
    return tmp_path / "run"


@pytest.mark.slow
def test_a_run_compares_what_is_seen_with_what_was_requested(run):
    """Requests are those of the held-out canvases, whose own numbers stand beside."""
    (found,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    reals = detection.make_reference(detection.Config()).reals("test")
    targets = reals.targets(np.arange(2000))
    expected = {"iou": areas(targets["box"]).mean(), "accuracy": (targets["label"] == 3).mean()}
    for name, wanted in expected.items():
        numbers = found["metrics"][f"agreement/{name}"]
        assert numbers["value"] == numbers["floor"] == pytest.approx(wanted, rel=1e-5)
    assert {"agreement/ap", "detection/iou", "detection/ap", "detection/accuracy", "critic/box",
            "generator/box", "critic/class", "generator/class"} <= rows(run)[-1].keys()
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert settings["condition"] == {"label": [[], "int32"], "box": [[4], "float32"],
                                     "weight": [[], "float32"]}
    assert settings["sample_shape"] == [16, 16, 1]
    shown = load_png(run / "samples" / "step_00000002.png")[1:65, 1:65]  # the first real, and its box
    assert_shows(shown, reals.take(np.arange(1))[0])


def assert_shows(cell, real):
    """Asserts that all but the green box is a grey image, four times as large."""
    green = (cell == detection._WANTED).all(-1)
    assert green.any()
    np.testing.assert_array_equal(cell[~green], real.repeat(4, 0).repeat(4, 1).repeat(3, 2)[~green])


@pytest.fixture(scope="module")
def judged(quick_compilation):
    """A GAN, its reference, and a state whose critic says class 3 and the whole canvas."""
    config = detection.experiment.configure(width=2)
    gan, reference = detection.make_gan(config, (16, 16, 1)), detection.make_reference(config)
    batch = draw(detection.make_source(config), 2)
    state = jax.jit(lambda key: init_state(gan, key, batch))(KEY)
    params = jax.tree.map(jnp.copy, state.critic.params)
    for name, bias in (("class", jax.nn.one_hot(3, 10)), ("box", jnp.array(BOX[0], jnp.float32))):
        params[name] = {"kernel": 0 * params[name]["kernel"], "bias": bias}
    return gan, reference, state._replace(critic=state.critic._replace(params=params))


def test_the_critic_is_judged_on_held_out_reals(judged):
    gan, reference, state = judged
    targets = reference.reals("test").targets(np.arange(1000))
    found = reference.judge.make(gan)(state)
    assert found.keys() == {"detection/iou", "detection/ap", "detection/accuracy"}
    assert found.keys() == {number.name for number in reference.judge.numbers}
    assert all(measuring.is_better_higher(reference, name) for name in found)
    title = measuring.find(reference, "detection/accuracy").title
    assert title == "critic on held-out reals: accuracy"  # not that of a network called detection
    assert found["detection/iou"] == pytest.approx(areas(targets["box"]).mean(), rel=1e-5)
    assert found["detection/accuracy"] == (targets["label"] == 3).mean()


def test_the_picture_shows_requests_above_what_was_drawn_for_them(judged):
    gan, reference, state = judged
    picture = detection.make_picture(detection.Config(), gan, None, reference, columns=3, pairs=2)(state)
    assert picture.shape == (4 * 65 + 1, 3 * 65 + 1, 3)
    cells = picture[1:, 1:].reshape(4, 65, 3, 65, 3).swapaxes(1, 2)[:, :, :64, :64]
    green, orange = ((cells == colour).all(-1) for colour in (detection._WANTED, detection._READ))
    boxes = reference.requests("test").condition(np.arange(6))["box"].reshape(2, 3, 4)
    for row, column in np.ndindex(4, 3):
        shown = np.argwhere(green[row, column])
        top, left, bottom, right = np.rint(64 * boxes[row // 2, column])
        if row % 2 == 0:
            assert (*shown.min(0), *(shown.max(0) + 1)) == (top, left, bottom, right)
        else:  # the critic's box, the whole canvas, lies on top
            assert orange[row, column][[0, -1]].all()
            assert orange[row, column][:, [0, -1]].all()
    assert not orange[::2].any()
    reals = reference.reals("test").take(np.arange(6)).reshape(2, 3, 16, 16, 1)
    for row, column in np.ndindex(2, 3):
        assert_shows(cells[2 * row, column], reals[row, column])


def test_outlines_by_hand():
    drawn = outlined(np.full((1, 4, 6, 1), 7, np.uint8), np.array([[0.25, 0.5, 1.0, 1.0]]), (1, 2, 3))
    marked = (drawn[0] == (1, 2, 3)).all(-1)
    np.testing.assert_array_equal(marked, [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 1],
                                           [0, 0, 0, 1, 1, 1]])
    assert (drawn[0][~marked] == 7).all()
    outside = outlined(np.zeros((1, 4, 4, 3), np.uint8), np.array([[-2.0, 3.0, 5.0, -1.0]]), (9, 9, 9))
    assert (outside[0, :, 3] == 9).all()
    assert (outside[0, :, :3] == 0).all()


def test_a_request_is_its_box_in_the_plane_of_its_class():
    request = {"label": jnp.array([2]), "box": jnp.array([[0.0, 0.5, 0.5, 1.0]])}
    planes = detection.request_planes(request, (2, 4))
    np.testing.assert_array_equal(planes[0, ..., 2], [[0, 0, 1, 1], [0, 0, 0, 0]])
    assert planes.shape == (1, 2, 4, 10)
    assert planes.sum() == 2


def test_the_detector_is_trained_once_and_kept(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def train(*sources, progress):
        calls.append(sources)
        progress(100, 0.5)
        return trained

    monkeypatch.setattr(detection.features, "train_detector", train)
    first, again = (detection.obtain_detector(detection.Config().data) for _ in range(2))
    (sources,) = calls
    assert [source.sample_shape for source in sources] == [(16, 16, 1)] * 2
    assert [len(source.arrays["labels"]) for source in sources] == [1438, 359]
    assert again.network.digest == first.network.digest
    assert f"IoU {trained.about['iou']:.3f}" in capsys.readouterr().err
    (kept,) = (measuring.cache_folder() / "detectors").iterdir()
    assert kept.name == f"{load('digits').digest[:16]}_16.npz"


def test_agreement_needs_requests(monkeypatch):
    monkeypatch.setattr(detection, "obtain_detector", lambda data: everything_is(3))
    agreement = detection.make_agreement(detection.Config().data)
    images = Samples("images", 2, lambda rows: np.zeros((len(rows), 16, 16, 1), np.uint8))
    measure = evaluation.prepare(Protocol(), (agreement,), Extractor(raw()), images, images)
    assert measure.floor == {}
    with pytest.raises(ValueError, match="'agreement' compares samples with their label, which isn't"):
        measure(images)
