"""Checkpoints: what is kept, what comes back, what is refused."""

import json
import random
import shutil
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxgan.checkpoints import CheckpointError, Checkpoints, DamagedError


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


def saved_steps(checkpoints, *steps, **options):
    saved = checkpoints(**options)
    for step in steps:
        saved.save(step, state(step + 0.5))
    saved.wait()
    return saved


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_restores_what_was_saved_by_step_or_latest(checkpoints):
    saved_steps(checkpoints, 1, 2)
    again = checkpoints()
    np.testing.assert_array_equal(again.restore(state(0))["params"]["kernel"], np.full((2, 3), 2.5))
    np.testing.assert_array_equal(again.restore(state(0), 1)["params"]["kernel"], np.full((2, 3), 1.5))


def test_a_state_may_be_overwritten_once_it_is_saved(checkpoints):
    saved = checkpoints()
    mine = {"kernel": np.ones(100_000, np.float32)}
    saved.save(1, mine)
    mine["kernel"][:] = 2.0
    saved.wait()
    np.testing.assert_array_equal(saved.restore(mine)["kernel"], 1.0)


def test_keeps_the_last_and_the_best(checkpoints):
    saved = checkpoints(keep=2, best_metric="loss")
    for step, loss in enumerate([3.0, 1.0, 2.0, 5.0, 4.0], start=1):
        saved.save(step, state(step), {"loss": loss})
    saved.wait()
    assert saved.steps() == [2, 4, 5]
    assert saved.best_step() == 2
    saved.save(6, state(6), {}, unscored=True)  # an interruption, where nothing was scored
    saved.wait()
    assert saved.steps() == [2, 5, 6]
    assert saved.best_step() == 2


@pytest.mark.parametrize("highest", [False, True])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_never_the_best_and_it_is_said_once(odd, highest, checkpoints):
    saved = checkpoints(keep=1, best_metric="loss", highest=highest)
    with pytest.warns(UserWarning, match=f"loss is {odd} at step 1: such a step is never best"):
        saved.save(1, state(1), {"loss": odd})
    assert saved.best_step() is None
    for step, loss in enumerate([2.0, odd, 2.0], start=2):
        saved.save(step, state(step), {"loss": loss})
    saved.wait()
    assert saved.steps() == [2, 4]
    assert saved.best_step() == 2


def test_a_checkpoint_that_was_moved_and_linked_back_goes_when_it_is_its_turn(checkpoints, tmp_path):
    """Its link does: what it points to is somebody's, whether it is there or not."""
    saved = saved_steps(checkpoints, 1, 2, keep=2)
    for name, place in (("00000001", tmp_path / "other"), ("00000003", tmp_path / "unmounted"),
                        ("unfinished_00000004", tmp_path / "precious")):
        if name == "00000001":
            (saved.folder / name).rename(place)
        (saved.folder / name).symlink_to(place)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("precious")
    np.testing.assert_array_equal(saved.restore(state(0), 1)["params"]["kernel"], np.full((2, 3), 1.5))
    saved.discard_unfinished()
    saved_steps(checkpoints, 3, 4, keep=2)
    assert saved.steps() == [3, 4]
    assert not any(path.is_symlink() for path in saved.folder.iterdir())
    assert (tmp_path / "other" / "manifest.json").exists()
    assert (tmp_path / "precious" / "file").read_text() == "precious"


def test_a_full_disk_is_found_before_a_save_starts(checkpoints, monkeypatch):
    saved = saved_steps(checkpoints, 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with pytest.raises(CheckpointError, match=r"no room .* needs 1\.0 MB and 1\.0 MB are free; earlier"):
        saved.save(2, state(2.5))
    np.testing.assert_array_equal(saved.restore(state(0))["params"]["kernel"], np.full((2, 3), 1.5))


@pytest.mark.parametrize("layer", ["orbax, at once", "orbax, in the background", "the manifest"])
def test_an_error_while_writing_is_one_sentence_and_leaves_nothing(layer, checkpoints, monkeypatch):
    saved = saved_steps(checkpoints, 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if layer == "the manifest":
        monkeypatch.setattr("json.dump", full)
    else:
        name = "save" if layer == "orbax, at once" else "wait_until_finished"
        monkeypatch.setattr(ocp.StandardCheckpointer, name, full)
    with pytest.raises(CheckpointError, match=r"step 2 could not be saved .*No space left"):
        [saved.save(2, state(2.5)), saved.wait()]
    monkeypatch.undo()
    saved._checkpointer.wait_until_finished()
    saved.discard_unfinished()
    assert [path.name for path in saved.folder.iterdir()] == ["00000001"]
    saved.save(2, state(2.5))
    saved.wait()
    assert saved.steps() == [1, 2]


def test_only_the_run_itself_discards_what_was_left_unfinished(checkpoints, tmp_path):
    """Another reader must not take the save of a living run for rubbish."""
    saved_steps(checkpoints, 1)
    unfinished = tmp_path / "checkpoints" / "unfinished_00000002.orbax-checkpoint-tmp"
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


def test_a_save_that_would_do_nothing_is_an_error(checkpoints):
    saved = saved_steps(checkpoints, 1)
    with pytest.raises(CheckpointError, match=r"checkpoint of step 1 in .* already"):
        saved.save(1, state(2.0))
    assert float(saved.restore(state(0))["params"]["kernel"][0, 0]) == 1.5


def test_another_architecture_or_configuration_is_refused_by_name(checkpoints):
    saved = saved_steps(checkpoints, 1, configuration={"width": 3, "loss": "hinge"})
    with pytest.raises(CheckpointError, match=r"\['params'\]\['kernel'\] is float32\[2, 3\] there and "
                                              r"float32\[2, 4\] here"):
        saved.restore(state(0, width=4))
    with pytest.raises(CheckpointError, match=r"\['bias'\] is absent there"):
        saved.restore(state(0) | {"bias": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match=r"another configuration \(width is 3 there and 4 here\)"):
        checkpoints(configuration={"width": 4, "loss": "hinge"}).restore(state(0))
    checkpoints(configuration={"width": 3}).restore(state(0))  # the other one doesn't decide any more
    assert saved.steps() == [1]  # good, if for something else


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


def test_the_manifest_tells_what_is_there(checkpoints):
    saved = checkpoints(configuration={"seed": 3})
    saved.save(4, state(4.5), {"loss": 0.25}, retries=2)
    saved.wait()
    manifest = saved.manifest(4)
    assert (manifest["step"], manifest["retries"]) == (4, 2)
    assert manifest["metrics"] == {"loss": 0.25}
    assert manifest["configuration"] == {"seed": 3}
    assert {path: leaf[:2] for path, leaf in manifest["leaves"].items()} == {
        "['params']['kernel']": [[2, 3], "float32"], "['step']": [[], "int32"]}


def test_damage_anywhere_is_detected(checkpoints, tmp_path):
    """Flipped bits and cuts at random places of random files, and what else happens to folders."""
    saved = saved_steps(checkpoints, 1, 2)
    folder, pristine = tmp_path / "checkpoints" / "00000002", tmp_path / "pristine"
    shutil.copytree(folder, pristine)
    rng = random.Random(0)
    names = [path.relative_to(folder) for path in files_of(folder)]
    assert len(names) > 5

    def injure(number):
        path = folder / names[number % len(names)]
        content = bytearray(path.read_bytes())
        if not content:  # orbax's mark of success is empty
            return path.write_bytes(b"x")
        if number % 2:
            place = rng.randrange(len(content))
            content[place] ^= 1 << rng.randrange(8)
            return path.write_bytes(content)
        return path.write_bytes(content[:rng.randrange(len(content))])

    injuries = [lambda number=number: injure(number) for number in range(100)]
    injuries += [
        lambda: (folder / "manifest.json").unlink(),
        lambda: (folder / "_METADATA").unlink(),
        lambda: (folder / "foreign").write_bytes(b"foreign"),
        lambda: (folder / "link").symlink_to("/etc/passwd"),
        lambda: [shutil.rmtree(folder), folder.mkdir()],
        lambda: (folder / "manifest.json").write_text("[" * 100_000),
    ]
    for injury in injuries:
        injury()
        with pytest.raises(DamagedError, match=r"step 2 .* (is damaged|can.t be read)"):
            saved.restore(state(0), 2)
        shutil.rmtree(folder)
        shutil.copytree(pristine, folder)
    saved.restore(state(0), 2)  # whole again


def test_the_newest_good_one_is_found_and_bad_ones_are_moved_aside(checkpoints, tmp_path):
    saved = saved_steps(checkpoints, 1, 2, 3)
    for step in (2, 3):
        (tmp_path / "checkpoints" / f"{step:08d}" / "_METADATA").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged: _METADATA is not what was saved; moved to") as warned:
        found = saved.restore_newest(state(0))
    assert len(warned) == 2
    assert float(found["params"]["kernel"][0, 0]) == 1.5
    assert saved.steps() == [1]
    assert {path.name for path in saved.folder.iterdir()} == {
        "00000001", "damaged_00000002", "damaged_00000003"}
    saved.save(2, state(2.5))  # the step is free again
    saved.wait()
    shutil.rmtree(tmp_path / "checkpoints" / "00000001")
    (tmp_path / "checkpoints" / "00000002" / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="moved to damaged_00000002_1"):
        assert saved.restore_newest(state(0)) is None


@pytest.mark.parametrize("change", [
    {"files": {"../../../etc/passwd": [1, "0"]}}, {"files": []}, {"leaves": {"['step']": 3}},
    {"format": 2}, {"step": 7}])
def test_a_crafted_manifest_is_refused(change, checkpoints, tmp_path):
    """One that is consistent in itself, so that its own digest says nothing."""
    from jaxgan.digests import json_digest

    saved = saved_steps(checkpoints, 1)
    path = tmp_path / "checkpoints" / "00000001" / "manifest.json"
    body = json.loads(path.read_text())["manifest"] | change
    path.write_text(json.dumps({"sha256": json_digest(body), "manifest": body}))
    with pytest.raises(CheckpointError, match="is damaged"):
        saved.restore(state(0))


def test_arrays_larger_than_they_should_be_are_not_read(checkpoints, tmp_path):
    """Files and manifest agree, but what the files hold has another size."""
    from jaxgan.checkpoints import _files
    from jaxgan.digests import file_digest, json_digest

    saved = saved_steps(checkpoints, 1)
    folder = tmp_path / "checkpoints" / "00000001"
    content = json.loads((folder / "manifest.json").read_text())
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "other", {
            "params": {"kernel": np.zeros((2, 1000), np.float32)}, "step": np.int32(1)})
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "other", folder)
    body = content["manifest"] | {"files": {
        name: [path.stat().st_size, file_digest(path)] for name, path in _files(folder).items()}}
    (folder / "manifest.json").write_text(json.dumps({"sha256": json_digest(body), "manifest": body}))
    with pytest.raises(DamagedError, match=r"has shape \(2, 1000\), not \(2, 3\)"):
        saved.restore(state(0))


@pytest.mark.slow
def test_a_save_of_ten_million_parameters_blocks_for_less_than_a_sixth_of_a_second(checkpoints):
    """With Adam's moments that is 120 MB; the median of five, as the machine may be busy."""
    key = jax.random.key(0)
    large = {name: {str(i): jax.random.normal(key, (1_000_000,)) for i in range(10)}
             for name in ("params", "mu", "nu")}
    saved, seconds = checkpoints(), []
    for step in range(5):
        start = time.perf_counter()
        saved.save(step, large)
        seconds.append(time.perf_counter() - start)
        saved.wait()
    assert sorted(seconds)[2] < 0.15, seconds
