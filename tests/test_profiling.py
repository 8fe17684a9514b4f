"""Operations against hand-worked counts, and traces that other programs can open."""

import gzip
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks import flops
from benchmarks.networks_jaxgan import make_gan
from benchmarks.settings import SETTINGS
from jaxgan import Batch, init_state, profiling, train_step
from jaxgan.outlook import About, Outlook
from jaxgan.plans import Plan
from jaxgan.training import train
from tests.tiny import points, tiny

POINTS = np.asarray(points(40).samples)
SHORT = {"batch_size": 8, "n_critic": 2, "log_every": 4, "devices": 1}


def counted(function, *shapes):
    return profiling.operations(jax.make_jaxpr(function)(*map(jnp.ones, shapes)))


def test_products_and_convolutions_by_hand():
    assert counted(jnp.dot, (3, 5), (5, 7)) == (2 * 3 * 5 * 7,) * 2
    assert counted(jnp.matmul, (4, 3, 5), (4, 5, 7)) == (4 * 2 * 3 * 5 * 7,) * 2
    conv = partial(lax.conv_general_dilated, window_strides=(2, 2), padding="SAME",
                   dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert counted(conv, (2, 8, 8, 3), (5, 5, 3, 7)) == (2 * 2 * 4 * 4 * 7 * 5 * 5 * 3,) * 2
    grouped = partial(conv, feature_group_count=3)
    assert counted(grouped, (2, 8, 8, 6), (5, 5, 2, 9)) == (2 * 2 * 4 * 4 * 9 * 5 * 5 * 2,) * 2
    transposed = partial(lax.conv_transpose, strides=(2, 2), padding="SAME")
    assert counted(transposed, (2, 4, 4, 3), (4, 4, 3, 7)) == (2 * 2 * 4 * 4 * 3 * 4 * 4 * 7,) * 2


def test_loops_count_as_often_as_they_run_and_conditions_as_a_range():
    def often(x, y):
        return lax.scan(lambda carry, _: (jax.jit(jnp.dot)(carry, y), None), x, length=6)[0]

    def perhaps(x, y):
        return lax.cond(x[0, 0] > 0, lambda: x @ y, lambda: jax.checkpoint(lambda a: a @ y @ y)(x))

    once = 2 * 3 * 5 * 5
    assert counted(often, (3, 5), (5, 5)) == (6 * once, 6 * once)
    assert counted(perhaps, (3, 5), (5, 5)) == (once, 2 * once)


def test_an_iteration_has_as_many_as_are_counted_by_hand():
    """WGAN-GP's MLPs, penalty and all; see benchmarks/README.md."""
    setting = SETTINGS["toy_mlp"]
    gan = make_gan(setting)
    batches = Batch(jnp.zeros((setting.n_critic, setting.batch_size, 2)))
    state = jax.eval_shape(partial(init_state, gan), jax.random.key(0), Batch(batches.samples[0]))
    least, most = profiling.operations(jax.make_jaxpr(partial(train_step, gan))(
        state, batches, jax.random.key(0)))
    assert least == most
    assert 1 <= least / flops.iteration(setting) < 1.02  # some of what is traced is of no use


def test_a_trace_is_of_the_steps_asked_for(tmp_path, capsys):
    _, result = train(tiny(), POINTS, tmp_path / "run", steps=12, profile=2, **SHORT)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("profile")]
    assert len(said) == 1
    assert "2 steps in" in said[0]
    assert [*(tmp_path / "run" / "profile").rglob("*.xplane.pb")]
    trace, = (tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    _, plain = train(tiny(), POINTS, tmp_path / "plain", steps=12, **SHORT)
    assert result["params_sha256"] == plain["params_sha256"]
    assert not (tmp_path / "plain" / "profile").exists()
    assert result["operations_per_iteration"][0] > 0


def test_a_trace_that_never_began_is_told_of(tmp_path, capsys):
    train(tiny(), POINTS, tmp_path / "run", steps=1, profile=3, **SHORT)
    assert "there is no trace" in capsys.readouterr().err
    with pytest.raises(ValueError, match="profile must not be negative; got -1"):
        Plan(steps=1, profile=-1)


def test_the_pace_is_told_beside_a_known_peak(monkeypatch, capsys):
    outlook = Outlook(Plan(steps=100, batch_size=8), About())
    monkeypatch.setattr(profiling, "peaks", lambda device: {"bfloat16": 100e9})
    outlook(20, 10, 2.0, 4e9)
    assert "5 a second, 20 GFLOP/s, 20 % of the bfloat16 peak" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "peak"), [
    ("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("TPU v5p", 459e12), ("NVIDIA H100 80GB HBM3", 989e12),
    ("cpu", None)])
def test_peaks_are_known_by_kind(kind, peak):
    class Device:
        device_kind = kind

    assert profiling.peaks(Device()).get("bfloat16") == peak
