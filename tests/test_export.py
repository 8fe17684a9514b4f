"""Networks to take along: programs that only jax runs, arrays that a run starts from, and the card."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Linear, points, tiny

from experiments import (
    digits,
    evaluate,
    export,
    flags,
    gaussians,
    launch,
    open_run,
    sample,
    settings,
)
from experiments.opening import exported_about
from jaxgan import Batch, generate, init_state, judge
from jaxgan.export import PLATFORMS, arrays, program
from jaxgan.features import load_weights, save_weights
from jaxgan.gan import draw_latents
from jaxgan.runs import read_evaluations
from tests.test_measuring import tool
from tests.test_training import TINY, run_here

KEY = jax.random.key(3)
ROOT = Path(__file__).resolve().parents[1]
ALONE = """
import sys
sys.modules |= dict.fromkeys(("jaxgan", "flax", "optax"))  # None: they can't be imported
import jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.save(sys.argv[3], program.call(np.load(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def convolutional():
    """A DCGAN wide enough for the processor's own convolutions, and its state."""
    gan = digits.make_gan(digits.experiment.configure("dcgan", width=32), (8, 8, 1))
    images = jnp.zeros((4, 8, 8, 1))
    return gan, jax.jit(partial(init_state, gan))(KEY, Batch(images)), images


def test_a_program_takes_batches_of_any_size_where_there_is_only_jax(convolutional, tmp_path):
    gan, state, images = convolutional
    made = program(gan, state, "generator", images)
    assert made.platforms == PLATFORMS
    (tmp_path / "program").write_bytes(made.serialize())
    for count in (1, 5):
        latents = draw_latents(gan, KEY, count)
        np.save(tmp_path / "latents.npy", latents)
        subprocess.run([sys.executable, "-c", ALONE, *(tmp_path / name for name in (
            "program", "latents.npy", "samples.npy"))], check=True, timeout=120)
        np.testing.assert_allclose(np.load(tmp_path / "samples.npy"), generate(gan, state, latents),
                                   atol=1e-5)


def test_a_critics_program_says_what_judge_does(convolutional):
    gan, state, images = convolutional
    found = jax.export.deserialize(program(gan, state, "critic", images).serialize()).call(
        samples := generate(gan, state, draw_latents(gan, KEY, 3)))
    assert found.keys() == {"scores"}
    np.testing.assert_allclose(found["scores"], judge(gan, state, samples).scores, atol=1e-5)


class Paired(nn.Module):
    """A critic that looks at the batch in pairs, in Python."""

    @nn.compact
    def __call__(self, samples, condition=None, *, train):
        means = jnp.stack([samples[2 * i:2 * i + 2].mean() for i in range(samples.shape[0] // 2)])
        return nn.Dense(1)(samples).squeeze(-1) + means.repeat(2)


def test_a_network_that_depends_on_the_size_of_the_batch_needs_one():
    gan = tiny(generator=Linear(2), critic=Paired(), penalty=None)
    batch = points(4)
    state = init_state(gan, KEY, batch)
    with pytest.raises(ValueError, match="the critic computes otherwise for other sizes of a batch"):
        program(gan, state, "critic", batch.samples)
    found = program(gan, state, "critic", batch.samples, batch=4).call(batch.samples)
    np.testing.assert_allclose(found["scores"], judge(gan, state, batch.samples).scores, rtol=1e-6)
    with pytest.raises(ValueError, match="role must be generator or critic; got 'judge'"):
        program(gan, state, "judge", batch.samples)


def test_a_condition_is_the_second_argument():
    gan = tiny(penalty=None)
    batch = Batch(points(4).samples, jnp.arange(4.0))
    state = init_state(gan, KEY, batch)
    latents, condition = draw_latents(gan, KEY, 3), jnp.array([1.0, 2.0, 5.0])
    found = program(gan, state, "generator", *batch).call(latents, condition)
    np.testing.assert_allclose(found, generate(gan, state, latents, condition), rtol=1e-5)


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with an average, of two steps."""
    folder = tmp_path_factory.mktemp("export") / "run"
    assert run_here("gaussians", *TINY, "--ema-decay", 0.5, "--steps", 2, "--run-dir", folder) == 0
    return folder


def test_a_run_becomes_programs_and_a_card(run, tmp_path, capsys):
    assert tool(export, run, "--out", tmp_path / "out") == 0
    assert "out/generator.stablehlo: 0." in capsys.readouterr().out
    opened = open_run(run)
    latents = draw_latents(opened.game, KEY, 3)
    for folder, use_ema, words in ((tmp_path / "out", True, ()),
                                   (tmp_path / "trained", False, ("--as-trained", "--batch-size", 3))):
        if words:
            assert tool(export, run, "--out", folder, *words) == 0
        made = jax.export.deserialize(bytearray((folder / "generator.stablehlo").read_bytes()))
        np.testing.assert_allclose(made.call(latents), generate(
            opened.game, opened.state, latents, use_ema=use_ema), atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# gaussians, step 2\n")
    assert "the generator's average" in card
    assert 'open("generator.stablehlo", "rb")' in card
    assert "- Licence of the data:" in card


@pytest.mark.parametrize("kind", ["safetensors", "npz"])
def test_a_run_starts_from_exported_arrays(run, kind, tmp_path):
    """As from the run itself, but for the average, which is the generator there."""
    assert tool(export, run, "--out", tmp_path / "out", "--format", kind) == 0
    file = tmp_path / "out" / f"networks.{kind}"
    opened = open_run(run)
    assert load_weights(file).keys() == arrays(opened.state).keys()
    config = gaussians.experiment.configure(width=opened.config.networks.width)
    started = launch.initial_weights(settings.replace(config, init_from=str(file)))(opened.state)
    jax.tree.map(np.testing.assert_array_equal, started.critic.params, opened.state.critic.params)
    jax.tree.map(np.testing.assert_array_equal, started.generator.params, opened.state.ema["params"])
    alone = launch.initial_weights(settings.replace(config, init_from=str(file), init_networks="critic"))
    jax.tree.map(np.testing.assert_array_equal, alone(opened.state).generator.params,
                 opened.state.generator.params)


def test_a_file_stands_for_its_run(run, tmp_path, capsys):
    """The same samples and numbers, with nothing else there; --as-trained other samples."""
    for name, words in (("averaged", ()), ("trained", ("--as-trained",))):
        assert tool(export, run, "--out", tmp_path / name, "--format", "safetensors", *words) == 0
        file = tmp_path / name / "networks.safetensors"
        opened, there = open_run(file), open_run(run)
        assert opened.config == there.config
        assert int(opened.state.step) == 2
        latents = draw_latents(there.game, KEY, 5)
        np.testing.assert_array_equal(
            generate(opened.game, opened.state, latents),
            generate(there.game, there.state, latents, use_ema=name == "averaged"))
        samples = generate(there.game, there.state, latents)
        jax.tree.map(np.testing.assert_array_equal, judge(opened.game, opened.state, samples),
                     judge(there.game, there.state, samples))
    assert tool(sample, file, "--num", "3", "--out", tmp_path / "a.npy") == 0
    assert np.load(tmp_path / "a.npy").shape == (3, 2)
    assert tool(sample, file, "--num", "3") == 0
    assert (tmp_path / "trained" / "drawn" / "step_00000002.png").exists()
    assert tool(evaluate, file, "--metrics", "swd", "--num", "50") == 0
    found, = read_evaluations(tmp_path / "trained")
    assert found["step"] == 2
    assert tool(sample, file, "--checkpoint", "best") == 2
    assert "holds one state; got the checkpoint 'best': leave it out" in capsys.readouterr().err


def test_a_run_whose_critic_scores_packs_is_opened(tmp_path):
    assert run_here("gaussians", *TINY, "--pack", 4, "--steps", 1, "--run-dir", tmp_path / "packs") == 0
    assert int(open_run(tmp_path / "packs").state.step) == 1


def test_a_file_that_isnt_a_runs_is_refused(run, tmp_path):
    save_weights(tmp_path / "a.safetensors", {"generator/params/a": np.ones(3)})
    save_weights(tmp_path / "b.safetensors", {"generator/params/a": np.ones(3)}, {"jaxgan": "[1"})
    (tmp_path / "c.safetensors").write_bytes(b"nothing of the kind")
    settings = open_run(run, None).settings
    save_weights(tmp_path / "d.safetensors", {"generator/params/a": np.ones(3)},
                 exported_about(settings, 1))
    save_weights(tmp_path / "e.safetensors", {"generator/params/a": np.ones(3)},
                 exported_about(settings | {"experiment": "os"}, 1))
    for name, message in (("a", "doesn't say which experiment its networks are of"),
                          ("b", "doesn't say which experiment"), ("c", "doesn't say which experiment"),
                          ("d", "the weights for the generator fit nowhere"),
                          ("e", "is of the experiment 'os', which isn't one of"),
                          ("f", r"there is no file .*f.safetensors: name one that")):
        with pytest.raises(ValueError, match=message):
            open_run(tmp_path / f"{name}.safetensors")
    with pytest.raises(ValueError, match=r"texts are for .safetensors files; got 'a.npz'"):
        save_weights(tmp_path / "a.npz", {"a": np.ones(3)}, {"about": "it"})


@pytest.mark.parametrize(("words", "message"), [
    (("--batch-size", "-1"), "batch_size must not be negative; got -1"),
    (("--format", "npz", "--batch-size", "4"), "batch_size is for programs: leave it out"),
    (("--out", "no/where"), "there is no folder .*no to write where to")])
def test_a_mistake_writes_nothing(run, words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tool(export, run, *words) == 2
    assert message.partition(".*")[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert not (run / "export").exists()


def test_nothing_is_written_over(run, tmp_path, capsys):
    out = tmp_path / "out"
    assert tool(export, run, "--out", out, "--format", "npz") == 0
    before = (out / "networks.npz").read_bytes()
    assert tool(export, run, "--out", out, "--format", "npz") == 2
    assert "networks.npz already: name another folder with --out" in capsys.readouterr().err
    assert (out / "networks.npz").read_bytes() == before


def test_files_that_hold_no_networks_are_refused(tmp_path):
    save_weights(tmp_path / "a.npz", {"kernel": np.ones(3)})
    for name, message in (("a.npz", r"a\.npz has no kernel/params/\.\.\.: name a file that"),
                          ("b.npz", r"there is no file .*b\.npz: name one that")):
        with pytest.raises(ValueError, match=message):
            launch.initial_weights(settings.replace(flags.Config(), init_from=str(tmp_path / name)))


def test_the_documents_example_runs():
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "exporting.md").read_text(), re.DOTALL)
    exec(compile(code, "docs/exporting.md", "exec"), {})
