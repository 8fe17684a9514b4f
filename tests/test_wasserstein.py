"""The experiment that measures critics against known truths."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import compare, evaluate, launch, measuring, sample, wasserstein
from jaxgan.critics import CriticState
from jaxgan.data import DataNotFoundError
from jaxgan.networks import NetworkState
from tests.test_experiments import tool

SHORT = ("--steps", "4", "--decay-steps", "4", "--eval-every", "2", "--batch-size", "16", "--width", "8",
         "--pair", "8,2")


configured = wasserstein.experiment.configure


@pytest.fixture
def published(tmp_path):
    """A folder with one pair and what two solvers are said to have made of it."""
    folder = tmp_path / "data" / "w1_benchmark"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(5)
    np.savez(folder / "funnels.npz", centers_8_2=draw.uniform(-2, 2, (2, 8)).astype(np.float32),
             bias_8_2=np.zeros(2, np.float32))
    (folder / "published.csv").write_text("dim,funnels,method,cos,l2,cost\n8,2,wgan-gp,0.5,0.75,1.25\n"
                                          "8,4,wgan-gp,0.1,0.1,0.1\n8,2,true,1.0,0.0,2.5\n")
    return folder.parent


def test_the_optimal_critic_has_the_truths_numbers(published):
    config = configured(preset="funnels", pair="8,2", width=2, data_dir=str(published))
    funnels = wasserstein.open_pair(config).funnels
    variables = {"params": {"centres": jnp.asarray(funnels.centres),
                            "heights": jnp.asarray(funnels.heights),
                            "log_temperature": jnp.log(0.01)}}
    state = CriticState(jnp.int32(0), NetworkState(variables["params"], {}, ()), variables)
    found = wasserstein.make_judge(config)(state)
    assert found["cos"] == pytest.approx(1, abs=0.01)
    assert found["l2"] == pytest.approx(0, abs=0.01)
    assert found["norm"] == pytest.approx(1, abs=0.01)
    assert found["cost"] == pytest.approx(found["true"], rel=0.03)
    turned = {"params": variables["params"] | {"centres": -2 * jnp.asarray(funnels.centres)}}
    assert wasserstein.make_judge(config)(state._replace(average=turned))["l2"] > 0.1


@pytest.mark.parametrize("method", [
    method if method == "smooth" else pytest.param(method, marks=pytest.mark.slow)
    for method in wasserstein.METHODS])
def test_every_method_trains_and_is_scored(method, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert launch.start(wasserstein.experiment, ("--method", method, "--run-dir", "run", *SHORT)) == 0
    printed = capsys.readouterr()
    assert "look at   tensorboard --logdir run\n" in printed.err  # there is no picture
    assert "the learning rate falls" not in printed.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"cos", "l2", "cost", "true"} <= result["evaluation"].keys()
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["method"] == method
    assert "8 dimensions, 2 funnels, made (seed 0)" in printed.out
    assert method in printed.out


def test_published_numbers_stand_beside_and_are_measured_again(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ("--run-dir", "run", "--data-dir", str(published), *SHORT)
    assert launch.start(wasserstein.experiment, arguments) == 0
    first = capsys.readouterr().out
    assert "8 dimensions, 2 funnels; the distance is" in first
    row = next(line for line in first.splitlines() if line.startswith("wgan-gp (published)"))
    true = json.loads((tmp_path / "run" / "result.json").read_text())["evaluation"]["true"]
    assert row.split()[2:] == ["0.500", "0.750", "1.250", f"{125 / true:.0f}", "%"]
    assert first.count("(published)") == 2
    assert tool(evaluate, "run") == 0
    table = capsys.readouterr().out.splitlines()
    assert table[-len(first.splitlines()[-4:]):] == first.splitlines()[-4:]
    assert len(json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"]) == 1


def test_widths_follow_the_dimensions():
    assert wasserstein.make_critic(configured(pair="16,4")).hidden == (128,) * 3
    assert wasserstein.make_critic(configured(pair="128,4")).hidden == (512,) * 3
    assert wasserstein.make_critic(configured("gradient_penalty", pair="128,4")).hidden == (256,) * 2
    assert wasserstein.make_critic(configured("clip", pair="2,4", width=7)).hidden == (7, 7)


@pytest.mark.parametrize("pair", ["16", "16,", "0,4", "16,5000", "a,b", "16,4,4"])
def test_a_pair_is_two_numbers(pair):
    with pytest.raises(ValueError, match="pair must be dimensions and funnels like 16,64"):
        wasserstein.pair(configured(pair=pair))


def test_what_is_not_published_is_made(published):
    there = wasserstein.open_pair(configured(pair="8,2", data_dir=str(published)))
    assert (there.funnels.heights == 0).all()
    assert not there.is_made
    with pytest.warns(UserWarning, match="no published pair 8,4 in .*: one is made, with --f"):
        made = wasserstein.open_pair(configured(pair="8,4", data_dir=str(published)))
    assert made.funnels.centres.shape == (4, 8)
    assert made.is_made
    assert made.published == {}
    with pytest.raises(DataNotFoundError):
        wasserstein.read_funnels(published / "none.npz", 8, 2)


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_and_is_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole, parts = (("--method", "orthonormal", *SHORT, "--run-dir", name)
                    for name in ("whole", "parts"))
    assert launch.start(wasserstein.experiment, whole) == 0
    assert launch.start(wasserstein.experiment, (*parts, "--steps", "2")) == 0
    assert launch.start(wasserstein.experiment, (*parts, "--resume", "latest")) == 0
    digests = [json.loads((tmp_path / name / "result.json").read_text())["params_sha256"]
               for name in ("whole", "parts")]
    assert digests[0] == digests[1]
    capsys.readouterr()
    assert tool(compare, "whole", "parts") == 0
    assert "cosine of the critic's gradient" in capsys.readouterr().out
    assert tool(sample, "whole") == 2
    assert "this run has no samples: a critic alone is measured by" in capsys.readouterr().err
    assert tool(evaluate, "whole", "--num", "9") == 2
    assert "num is for samples, which a critic alone has none of" in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "message"), [
    ({"preset": "orthonormal", "method": "funnels"}, "method funnels goes with critic_norm none; got"),
    ({"preset": "spectral", "critic_norm": "orthonormal"}, "method spectral goes with critic_norm"),
    ({"preset": "funnels", "depth": 7}, "method funnels goes with depth 1; got 7"),
    ({"preset": "funnels", "precision": "bfloat16"}, "goes with precision float32; got bfloat16"),
    ({"preset": "smooth", "method": "clip"}, "method clip goes with penalty none; got one_sided"),
    ({"pack": 2}, "pack is for GANs; got 2"),
    ({"remat": True}, "remat is for residual networks"),
    ({"generator_beta1": 0.5}, "generator_beta1 is for GANs"),
])
def test_what_a_method_has_no_use_for_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        wasserstein.make_game(configured(**changes), ((16,), (16,)))


def test_an_estimate_is_best_at_neither_end():
    """The nearest to the truth is."""
    reference = wasserstein.make_reference(configured(pair="8,2"))
    assert measuring.is_better_higher(reference, "cos")
    assert not measuring.is_better_higher(reference, "l2")
    with pytest.raises(ValueError, match="best_metric can't be cost, which is best at neither"):
        launch.plan(configured(pair="8,2", best_metric="cost"), reference)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "dim,funnels,method,cos,l2,cost\n8,2,x,1,2,y\n",
                                  "dim,funnels,method,cos,l2,cost\nz,2,x,1,2,3\n"])
def test_a_damaged_table_is_named_before_anything_is_trained(text, published):
    (published / "w1_benchmark" / "published.csv").write_text(text)
    with pytest.raises(ValueError, match=r"line 2 of .*published\.csv must have dim"):
        wasserstein.make_reference(configured(pair="8,2", data_dir=str(published)))
