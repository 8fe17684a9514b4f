"""Checkpoints: what is kept, what comes back, what is refused."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.checkpoints import CheckpointError, Checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    opened = []

    def open_(**options):
        opened.append(Checkpoints(tmp_path / "checkpoints", **options))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def state(value, width=3):
    return {"params": {"kernel": jnp.full((2, width), value, jnp.float32)}, "step": jnp.int32(value)}


def test_restores_what_was_saved_by_step_or_latest(checkpoints):
    saved = checkpoints()
    for step in (1, 2):
        saved.save(step, state(step + 0.5))
    saved.wait()
    again = checkpoints()
    np.testing.assert_array_equal(again.restore(state(0))["params"]["kernel"], np.full((2, 3), 2.5))
    np.testing.assert_array_equal(again.restore(state(0), 1)["params"]["kernel"], np.full((2, 3), 1.5))


def test_keeps_the_last_and_the_best(checkpoints):
    saved = checkpoints(keep=2, best_metric="loss")
    for step, loss in enumerate([3.0, 1.0, 2.0, 5.0, 4.0], start=1):
        saved.save(step, state(step), {"loss": loss})
        saved.wait()
    assert saved.steps() == [2, 4, 5]
    assert saved.best_step() == 2


def test_a_full_disk_is_found_before_a_save_starts(checkpoints, monkeypatch):
    saved = checkpoints()
    saved.save(1, state(1.5))
    saved.wait()
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(CheckpointError, match=r"no room .* needs 1\.0 MB and 1\.0 MB are free; earlier"):
        saved.save(2, state(2.5))
    np.testing.assert_array_equal(saved.restore(state(0))["params"]["kernel"], np.full((2, 3), 1.5))


def test_only_the_run_itself_discards_what_was_left_unfinished(checkpoints, tmp_path):
    """Another reader must not take the save of a living run for rubbish."""
    saved = checkpoints()
    saved.save(1, state(1.0))
    saved.wait()
    unfinished = tmp_path / "checkpoints" / "00000002.orbax-checkpoint-tmp"
    unfinished.mkdir()
    reader = checkpoints()
    assert reader.steps() == [1]
    reader.restore(state(0))
    reader.close()
    assert unfinished.exists()
    reader.discard_unfinished()
    assert not unfinished.exists()
    assert reader.steps() == [1]


def test_asking_makes_no_folder(checkpoints, tmp_path):
    assert checkpoints().steps() == []
    assert not (tmp_path / "checkpoints").exists()


def test_saving_a_step_twice_keeps_the_first(checkpoints):
    saved = checkpoints()
    saved.save(1, state(1.0))
    saved.wait()
    saved.save(1, state(2.0))
    assert float(saved.restore(state(0))["params"]["kernel"][0, 0]) == 1.0


def test_another_architecture_is_refused_by_the_leaf(checkpoints):
    saved = checkpoints()
    saved.save(1, state(1.0))
    saved.wait()
    with pytest.raises(CheckpointError, match=r"\['params'\]\['kernel'\] is float32\[2, 3\] there and "
                                              r"float32\[2, 4\] here"):
        saved.restore(state(0, width=4))
    with pytest.raises(CheckpointError, match=r"\['bias'\] is absent there"):
        saved.restore(state(0) | {"bias": jnp.zeros(2)})


def test_missing_steps_and_metrics_are_named(checkpoints):
    saved = checkpoints(best_metric="los")
    with pytest.raises(CheckpointError, match="there is no checkpoint in"):
        saved.restore(state(0))
    with pytest.raises(CheckpointError, match="no metric is called 'los'; there are loss"):
        saved.save(1, state(1), {"loss": 1.0})
    saved.save(1, state(1), {"los": 1.0})
    saved.wait()
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 .* choose from 1"):
        saved.restore(state(0), 7)
    with pytest.raises(ValueError, match="keep must be at least 1; got 0"):
        checkpoints(keep=0)


def test_a_damaged_checkpoint_is_one_sentence(checkpoints, tmp_path):
    saved = checkpoints()
    saved.save(1, state(1.0))
    saved.wait()
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file() and "state" in path.parts:
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step 1 .* can't be read"):
        checkpoints().restore(state(0))
