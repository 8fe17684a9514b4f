"""Text: corpora and their sequences, the networks, the metric, and runs as a user meets them."""

import json
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from experiments import evaluate, opening, sample, text
from jaxgan import evaluation
from jaxgan.data import (
    Corpus,
    DataNotFoundError,
    decode,
    draw_step,
    embedded_text,
    encode,
    markov,
    read_text,
    sequences,
)
from jaxgan.evaluation import tokens
from jaxgan.features import raw
from jaxgan.models import TextCritic, TextGenerator
from jaxgan.runs import Run
from tests.test_measuring import tool
from tests.test_training import result, rows, run_here

pytestmark = pytest.mark.usefixtures("own_cache")
KEY = jax.random.key(3)
TINY = ("--width", 8, "--blocks", 1, "--length", 8, "--batch-size", 8, "--n-critic", 2, "--devices", 1,
        "--latent-size", 4, "--log-every", 1, "--no-keep-programs")
SENTENCES = "The cat sat on the mat; the dog ate the rest. " * 12


# The corpus.


def test_characters_are_numbered_by_frequency_and_then_by_code_point():
    corpus = encode("banana\nbc", 10)
    assert corpus.vocabulary == "abn\nc"  # a: 3; b and n: 2; \n and c: 1
    assert corpus.tokens.tolist() == [1, 0, 2, 0, 2, 0, 3, 1, 4]
    assert corpus.tokens.dtype == np.uint8
    assert decode(corpus.tokens[None], corpus.vocabulary) == ["banana\nbc"]


def test_the_rarest_characters_become_one():
    corpus = encode("aaaa bbb cc d é 😀", 4)
    assert corpus.vocabulary == " ab�"
    assert decode(corpus.tokens[None], corpus.vocabulary) == ["aaaa bbb �� � � �"]
    assert encode("aaaa bb", 3).vocabulary == "ab "  # nothing is left over
    assert encode("aabb�", 9).vocabulary == "ab�"  # one that is in the text is the same one
    assert encode("��a", 2).tokens.tolist() == [1, 1, 0]


def test_what_stands_in_a_text_is_found_wherever_it_begins():
    corpus = encode("abracadabra 😀!", 20)
    number = {char: token for token, char in enumerate(corpus.vocabulary)}
    sought = {"abra": True, "cada": True, "a 😀!": True, "raab": False, "!abr": False, "aaaa": False}
    tokens = np.array([[number[char] for char in each] for each in sought])
    assert corpus.holds(tokens).tolist() == list(sought.values())
    assert corpus.part("train").holds(tokens).tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize(("distinct", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_tokens_are_as_small_as_the_vocabulary_lets_them_be(distinct, dtype):
    written = "".join(map(chr, range(0x4E00, 0x4E00 + distinct)))
    corpus = encode(written, 1000)
    assert corpus.tokens.dtype == dtype
    assert corpus.vocabulary == written
    assert decode(corpus.tokens[None], corpus.vocabulary) == [written]


def test_the_last_tenth_is_held_out_and_digests_tell_texts_apart():
    corpus = encode("ab" * 50 + "cab" * 3, 9)  # 109 characters
    train, test = corpus.part("train"), corpus.part("test")
    assert (len(train.tokens), len(test.tokens)) == (99, 10)
    np.testing.assert_array_equal(np.append(train.tokens, test.tokens), corpus.tokens)
    assert train.vocabulary == test.vocabulary == corpus.vocabulary
    digests = {of.digest for of in (corpus, train, test, Corpus(corpus.tokens, "xyz"))}
    assert len(digests) == 4
    assert encode("ab" * 50 + "cab" * 3, 9).digest == corpus.digest
    with pytest.raises(ValueError, match="split must be 'train' or 'test'; got 'valid'"):
        corpus.part("valid")


def test_a_file_is_read_as_utf8_and_the_embedded_text_is_clean(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffäß\r\nx\n".encode())
    assert read_text(tmp_path / "a.txt") == "äß\nx\n"
    embedded = embedded_text()
    assert len(embedded) > 200_000
    assert embedded == " ".join(embedded.split())
    for gone in ("***", "===", "~~~", "+--", "---"):
        assert gone not in embedded
    assert "assignment" in embedded


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda folder: read_text(folder / "no.txt"), DataNotFoundError, "there is no text file "),
    (lambda folder: read_text(folder), ValueError, "can't be read .*: give the path of a text file"),
    (lambda folder: read_text("/dev/zero"), ValueError, "can't be read .not a regular file"),
    (lambda folder: read_text(folder / "latin.txt"), ValueError, r"is not UTF-8 \(byte 1\): convert it"),
    (lambda folder: encode("", 9), ValueError, "the text is empty: give one"),
    (lambda folder: encode("aaa", 9), ValueError, "no other character than 'a': give one of at least"),
    (lambda folder: encode("ab", 1), ValueError, "max_vocabulary must be at least 2; got 1"),
    (lambda folder: sequences(encode("ab", 2), 3), ValueError,
     "the text has 2 characters, fewer than the 3 of a sequence: give a longer one"),
    (lambda folder: sequences(encode("ab", 2), 0), ValueError, "length must be at least 1; got 0"),
    (lambda folder: markov(encode("abc", 3), 2), ValueError, r"order must be in \[1, 2\].*; got 3"),
], ids=range(10))
def test_what_is_refused(call, error, message, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"a\xe4b")
    with pytest.raises(error, match=message):
        call(tmp_path)


# Sequences.


def draw(source, count, step=0):
    return jax.jit(lambda arrays: draw_step(source, arrays, KEY, step, count, jnp.arange(count)))(
        source.arrays).samples


def test_an_epoch_has_the_sequence_at_every_character_once():
    corpus = encode("the quick brown fox", 40)
    source = sequences(corpus, 4)
    assert (source.size, source.sample_shape, source.value_range) == (16, (4, 16), (0, 1))
    assert source.arrays["tokens"].dtype == jnp.uint8
    epochs = [draw(source, 16, step) for step in range(2)]
    assert epochs[0].dtype == jnp.float32
    np.testing.assert_array_equal(epochs[0].sum(-1), np.ones((16, 4)))
    read = [decode(tokens(epoch), corpus.vocabulary) for epoch in epochs]
    expected = sorted("the quick brown fox"[i:i + 4] for i in range(16))
    assert sorted(read[0]) == sorted(read[1]) == expected
    assert read[0] != read[1]
    np.testing.assert_array_equal(draw(source, 4, 1), epochs[0][4:8])


def test_a_chain_of_order_1_has_the_transitions_of_the_text():
    """In "aab" as a circle: a is followed by a and b alike, b by a."""
    corpus = encode("aab", 2)
    sampled = markov(corpus, 50, order=1)(np.arange(400))
    assert sampled.dtype == np.int32
    assert sampled[:, 0].mean() == pytest.approx(1 / 3, abs=0.08)
    after_a = sampled[:, 1:][sampled[:, :-1] == 0]
    assert after_a.mean() == pytest.approx(1 / 2, abs=0.03)
    assert (sampled[:, 1:][sampled[:, :-1] == 1] == 0).all()


def test_a_chain_of_order_3_writes_the_4_grams_of_the_text_alone_as_often():
    corpus = encode(SENTENCES, 90)
    sampled = markov(corpus, 20, seed=1)(np.arange(3000))
    circle = np.append(corpus.tokens, corpus.tokens[:3])
    seen = Counter(zip(*(circle[i:i + len(corpus.tokens)].tolist() for i in range(4)), strict=True))
    made = Counter(tuple(row[i:i + 4]) for row in sampled.tolist() for i in range(17))
    assert made.keys() == seen.keys()
    total = sum(seen.values())
    for gram, count in seen.items():
        assert made[gram] / (3000 * 17) == pytest.approx(count / total, rel=0.15)


def test_a_chains_sequences_depend_on_seed_and_number_alone():
    corpus = encode(SENTENCES, 90)
    whole = markov(corpus, 12)(np.arange(30))
    np.testing.assert_array_equal(markov(corpus, 12)(np.array([29, 3])), whole[[29, 3]])
    assert (markov(corpus, 12, seed=1)(np.arange(30)) != whole).any()
    assert len({row.tobytes() for row in whole}) > 25


# The networks; what holds of every model is in test_models.py.


def count(module, shape):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((2, *shape)), None,
                                                   train=False))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def test_numbers_of_parameters_by_hand():
    """Of the paper's networks, and of small ones."""
    blocks = 5 * 2 * (5 * 512 * 512 + 512)
    assert count(TextGenerator(32, 96), (128,)) == 129 * 32 * 512 + blocks + 513 * 96 == 15_275_104
    assert count(TextCritic(), (32, 96)) == 97 * 512 + blocks + 32 * 512 + 1 == 13_178_369
    small = 2 * (3 * 4 * 4 + 4)
    assert count(TextGenerator(6, 7, 4, 1, 3), (2,)) == 3 * 24 + small + 5 * 7
    assert count(TextCritic(4, 1, 3), (6, 7)) == 8 * 4 + small + 24 + 1


def test_a_block_adds_three_tenths_of_its_branch():
    """With kernels of one tap that multiply by 2: x + 0.3 * 2 relu(2 relu(x))."""
    module = TextCritic(1, 1, 1)
    x = jnp.array([[[-1.0], [0.5], [2.0]]])
    params = jax.tree.map(jnp.zeros_like, module.init(KEY, x, train=False)["params"])
    params["Conv_0"]["kernel"] = jnp.ones((1, 1, 1))
    for name in ("Conv_0", "Conv_1"):
        params["TextBlock_0"][name]["kernel"] = jnp.full((1, 1, 1), 2.0)
    params["Dense_0"]["kernel"] = jnp.array([[1.0], [10.0], [100.0]])
    scores = module.apply({"params": params}, x, train=False)
    np.testing.assert_allclose(scores, [-1 + 10 * (0.5 + 0.6) + 100 * (2 + 2.4)], rtol=1e-6)


def test_samples_are_distributions_in_float32_and_shapes_are_checked():
    module = TextGenerator(6, 7, 4, 1, 3, dtype=jnp.bfloat16)
    latents = 20 * jax.random.normal(KEY, (3, 2))
    samples = module.apply(module.init(KEY, latents, train=False), latents, train=False)
    assert (samples.shape, samples.dtype) == ((3, 6, 7), jnp.float32)
    np.testing.assert_allclose(samples.sum(-1), np.ones((3, 6)), rtol=1e-6)
    with pytest.raises(ValueError, match=r"vocabulary\]; got \(2, 3\): give tokens as one-hot"):
        TextCritic(4).init(KEY, jnp.zeros((2, 3)), train=False)
    with pytest.raises(ValueError, match="TextGenerator: blocks must be at least 1; got 0"):
        TextGenerator(6, 7, 4, 0).init(KEY, latents, train=False)


# The experiment.


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """A text of one's own, with line breaks and a rare character."""
    path = tmp_path_factory.mktemp("texts") / "story.txt"
    path.write_text((SENTENCES + "\nÉ\n") * 20, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, story, quick_compilation, own_cache):
    """A finished run of two steps, with samples at each and one evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "text"
    assert run_here("text", *TINY, "--text-file", story, "--steps", 2, "--sample-every", 1,
                    "--eval-every", 2, "--run-dir", folder) == 0
    return folder


def test_a_run_leaves_text(run, story):
    files = {path.name for path in (run / "samples").iterdir()}
    assert files == {"real.txt", "step_00000001.txt", "step_00000002.txt"}
    written = story.read_text(encoding="utf-8").replace("\n", r"\n")
    reals = (run / "samples" / "real.txt").read_text(encoding="utf-8").splitlines()
    assert len(reals) == 100
    assert all(real in written for real in reals)
    vocabulary = json.loads((run / "config.json").read_text())["settings"]["vocabulary"]
    made = (run / "samples" / "step_00000002.txt").read_text(encoding="utf-8").splitlines()
    assert len(made) == 100
    assert {*"".join(made)} <= {*vocabulary, "\\", "n"}


def test_tensorboard_has_the_text_again_when_a_run_goes_on(run, tmp_path):
    from tensorboardX.proto import event_pb2

    saved = Run(tmp_path / "run", {"experiment": "any"}, ())
    saved.lock()
    saved.start(0)
    for step in (1, 2):
        saved.save_samples(step, f"été {step}\nb\n")
    saved.close()
    again = Run(tmp_path / "run", {"experiment": "any"}, ())
    again.lock()
    again.start(1)
    again.close()
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["step_00000001.txt"]
    (path,) = (tmp_path / "run").glob("events.out.tfevents.*")
    data, shown = path.read_bytes(), {}
    while data:
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12:12 + size])
        for value in event.summary.value:
            shown[event.step] = value.tensor.string_val[0].decode()
        data = data[16 + size:]
    assert shown == {1: "    été 1\n    b\n"}


def test_the_numbers_of_an_evaluation_are_those_of_scipy(run, story):
    (found,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert found["metrics"].keys() == {"jsd_1", "jsd_2", "jsd_3", "jsd_4", "in_training_text"}
    assert found["protocol"]["num_fake"] == 640
    assert found["protocol"]["num_real"] == 9983  # of 11,100 characters, 9,990 are for training
    experiment, config, settings = opening.read_run(run)
    reference = experiment.make_reference(config)
    real = reference.reals("train").take(np.arange(9983))
    corpus = text.open_corpus(config)
    windows = np.lib.stride_tricks.sliding_window_view(corpus.part("train").tokens, 8)
    np.testing.assert_array_equal(np.unique(real, axis=0), np.unique(windows, axis=0))
    for column, fake in {"floor": reference.reals("test").take(np.arange(640)),
                         "uniform": reference.baselines["uniform"]().take(np.arange(640)),
                         "4-gram sampler": markov(corpus.part("train"), 8)(np.arange(640))}.items():
        p, q = (np.bincount(of.ravel(), minlength=len(settings["vocabulary"])) for of in (real, fake))
        assert found["metrics"]["jsd_1"][column] == pytest.approx(jensenshannon(p, q, 2) ** 2, abs=1e-9)
        copied = np.mean([(windows == row).all(1).any() for row in fake])
        assert found["metrics"]["in_training_text"][column] == pytest.approx(copied)
    four = found["metrics"]["jsd_4"]
    assert four["4-gram sampler"] < 0.1 < four["uniform"]
    assert four["value"] > four["4-gram sampler"]
    assert rows(run)[-1]["jsd_4"] == four["value"]
    assert rows(run)[-1].keys() >= {"critic/overfitting", "critic/held_out_wasserstein"}


def test_samples_are_printed_or_saved_without_the_text(run, story, tmp_path, capsys):
    kept = story.rename(story.with_suffix(".gone"))
    try:
        assert tool(sample, run, "--num", 3) == 0
        printed = capsys.readouterr().out
        assert tool(sample, run, "--num", 3, "--out", tmp_path / "a.txt") == 0
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == printed
        assert printed.count("\n") == 3
        assert tool(sample, run, "--num", 3, "--out", tmp_path / "a.npy") == 0
        saved = np.load(tmp_path / "a.npy")
        assert (saved.shape[:2], saved.dtype) == ((3, 8), np.float32)
        vocabulary = json.loads((run / "config.json").read_text())["settings"]["vocabulary"]
        first = decode(saved.argmax(-1)[:1], vocabulary)[0]
        assert printed.splitlines()[0] == first.replace("\n", r"\n")
        capsys.readouterr()
        assert tool(sample, run, "--out", "a.png") == 2
        assert ("out must end in .txt, .npy or .npz for samples of this run; got 'a.png'"
                in capsys.readouterr().err)
        assert tool(evaluate, run) == 2
        assert "there is no text file" in capsys.readouterr().err
    finally:
        kept.rename(story)


def test_evaluate_gives_the_numbers_of_training_and_refuses_other_metrics(run, capsys):
    before = json.loads((run / "evaluation.json").read_text())
    assert tool(evaluate, run) == 0, capsys.readouterr().err
    assert "JSD of 4-grams (bits)" in capsys.readouterr().out
    (after,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert after["metrics"] == before["evaluations"][0]["metrics"]
    assert tool(evaluate, run, "--metrics", "fd,ngrams") == 2
    assert "the metric 'fd' is not for such samples: choose from ngrams" in capsys.readouterr().err


def test_another_text_is_refused(run, tmp_path, story, capsys):
    """To go on with, and to be measured against; the same text in another file is not another text."""
    flags = (*TINY, "--steps", 2, "--run-dir", run, "--resume", "latest")
    other = tmp_path / "other.txt"
    other.write_text(story.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    assert run_here("text", *flags, "--text-file", other) == 2
    assert "text_sha256 is " in capsys.readouterr().err
    other.write_bytes(story.read_bytes())
    digest = result(run)["params_sha256"]
    assert run_here("text", *flags, "--text-file", other, "--eval-every", 2) == 0
    assert result(run)["params_sha256"] == digest
    kept = story.read_bytes()
    try:
        story.write_bytes(kept[::-1].replace("É".encode()[::-1], b"E"))
        assert tool(evaluate, run) == 2
    finally:
        story.write_bytes(kept)
    message = capsys.readouterr().err
    assert "(its settings have another vocabulary and text_sha256): bring them back" in message


def test_a_run_shows_samples_while_it_trains_and_at_its_end(story, tmp_path, capsys):
    assert run_here("text", *TINY, "--text-file", story, "--steps", 2, "--sample-every", 1,
                    "--eval-every", 0, "--run-dir", tmp_path / "run") == 0
    printed = capsys.readouterr()
    lines = {step: (tmp_path / "run" / "samples" / f"step_0000000{step}.txt").read_text(
        encoding="utf-8").splitlines() for step in (1, 2)}
    assert f"step 1: {lines[1][0]}\n" in printed.err
    assert f"look at {tmp_path / 'run' / 'samples' / 'step_00000002.txt'}; " in printed.out


@pytest.mark.parametrize(("flags", "written", "message"), [
    (("--length", 500), "abc" * 100, "the text has 270 characters, fewer than the 500 of a sequence"),
    (("--max-vocabulary", 1), "abc", "max_vocabulary must be at least 2; got 1"),
    ((), "", "the text is empty"),
    ((), "\n\n\n", r"no other character than '\n'"),
    (("--batch-size", 64), "abc" * 10, "larger than the data set, which has 20 examples"),
    (("--stream",), "abc" * 10, "stream is for images; text draws its samples where it needs them"),
    (("--blocks", 0), "abc" * 10, "blocks must be from 1 to "),
])
def test_bad_flags_get_one_sentence_and_status_2(flags, written, message, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(written)
    assert run_here("text", *TINY, "--text-file", tmp_path / "a.txt", "--run-dir", tmp_path / "run",
                    *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_short_text_has_no_floor(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("abcabdabe" * 8)  # 72 characters, 7 of them held out
    assert run_here("text", *TINY, "--text-file", tmp_path / "a.txt", "--steps", 1, "--eval-every", 1,
                    "--run-dir", tmp_path / "run") == 0, capsys.readouterr().err
    (found,) = json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"]
    assert found["floor_count"] == 0
    assert found["metrics"]["jsd_4"]["floor"] is None


@pytest.mark.parametrize("samples", [np.zeros((9, 4, 4, 1), np.uint8), np.zeros((9, 2), np.float32)])
def test_n_grams_are_of_text(samples):
    fakes = evaluation.Samples("others", 9, lambda rows: samples[rows])
    evaluator = evaluation.prepare(evaluation.Protocol(num_fake=9), evaluation.chosen("ngrams"),
                                   evaluation.Extractor(raw()), fakes)
    with pytest.raises(ValueError, match="the metric 'ngrams' is for text: leave it out"):
        evaluator(fakes)


def test_reals_do_not_depend_on_a_seed_but_on_the_text():
    corpus = encode(SENTENCES, 90)
    first, second = (text.of_corpus(corpus, 5, "a").take(np.arange(9)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.int32
    digests = {text.of_corpus(of, length, "a").digest
               for of, length in ((corpus, 5), (corpus.part("train"), 5), (corpus, 6))}
    assert len(digests) == 3
