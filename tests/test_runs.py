"""Runs' folders that were damaged, made by others, or are on odd disks; and what is printed of them."""

import errno
import fcntl
import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import commands, flags, launch, list, measuring, opening
from jaxgan import console, files, runs, training
from jaxgan.runs import Run, RunError, read_evaluations, read_logs, read_result, write_evaluation
from tests.test_training import run_here

LOOKS_AT_CURVES = True
SETTINGS = {"experiment": "digits", "seed": 3}
RESULT = {"steps": 2, "params_sha256": "0" * 64, "leaves_sha256": {"a": "0" * 64},
          "final": {"loss": 1.0},
          "evaluation": {}, "duration_seconds": 1.0, "iterations_per_second": None}
EVALUATION = {"step": 2, "params_sha256": "0" * 64, "protocol": {"name": "p"},
              "metrics": {"fd": {"value": 1.0, "floor": None}}}
PICTURE = np.zeros((4, 5, 3), np.uint8)


def write_all(folder, steps=2):
    """All that a run writes but checkpoints; it goes on from what is there."""
    run = Run(folder, SETTINGS, ("seed",))
    try:
        run.lock()
        run.start(0)
        for step in range(1, steps + 1):
            run.log(step, {"loss": step / 2}, {"a": "0" * 64})
            run.save_samples(step, PICTURE)
        run.save_real("text")
        run.finish(RESULT)
    finally:
        run.close()
    write_evaluation(folder, EVALUATION)


@pytest.fixture
def folder(tmp_path):
    write_all(tmp_path / "run")
    return tmp_path / "run"


# Links.

@pytest.mark.parametrize("name", [
    "lock", "config.json", "config.json.partial", "metrics.jsonl", "metrics.jsonl.partial",
    "digests.jsonl", "result.json", "result.json.partial", "curves.png", "curves.png.partial",
    "evaluation.json.lock", "evaluation.json.partial", "samples/real.txt", "samples/step_00000001.png",
    "samples/step_00000001.png.partial", "samples", "checkpoints", "events.out.tfevents.1"])
def test_nothing_is_written_or_deleted_behind_a_link(name, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "step_00000009.png").write_bytes(b"precious")
    precious = outside if name in ("samples", "checkpoints") else outside / "step_00000009.png"
    if name == "config.json":  # readable as what it is
        precious.write_bytes((folder / name).read_bytes())
    before = {path: path.read_bytes() for path in outside.iterdir()}
    files.remove(folder / name)
    (folder / name).symlink_to(precious)
    if name in ("lock", "samples", "checkpoints", "evaluation.json.lock"):
        with pytest.raises(RunError, match=str(folder / name)):
            write_all(folder)
    else:
        write_all(folder)
        assert not (folder / name).is_symlink()
    assert {path: path.read_bytes() for path in outside.iterdir()} == before


def test_a_hard_link_of_the_lock_keeps_its_content(folder, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (folder / "lock").unlink()
    os.link(tmp_path / "precious", folder / "lock")
    write_all(folder)
    assert (tmp_path / "precious").read_text() == "precious"


# Files that are no files, or not as they were written.

@pytest.mark.parametrize("name", ["config.json", "result.json", "evaluation.json", "metrics.jsonl",
                                  "lock"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_refused_at_once(name, make, folder):
    (folder / name).unlink()
    make(folder / name)
    read = {"config.json": runs.read_config, "result.json": read_result, "lock": write_all,
            "evaluation.json": read_evaluations, "metrics.jsonl": read_logs}[name]
    with pytest.raises(RunError):
        read(folder)


@pytest.mark.parametrize("content", [
    b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"9" * 5000, b"{}", b"[]", b"", b"\xff\xfe{",
    b"null"])
@pytest.mark.parametrize(("name", "read"), [
    ("config.json", runs.read_config), ("result.json", read_result),
    ("evaluation.json", read_evaluations)])
def test_any_content_is_one_sentence_that_names_the_file(name, read, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} (can't be read|is not a run's)") as raised:
        read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("odd", [None, True, -1, 10**400, "x", [], {"a": []}])
@pytest.mark.parametrize("field", ["steps", "params_sha256", "leaves_sha256", "final",
                                   "duration_seconds"])
def test_a_result_with_an_odd_field_is_refused(field, odd, folder):
    if odd == {"params_sha256": "x", "duration_seconds": -1}.get(field, ()):
        pytest.skip("as it may be")
    (folder / "result.json").write_text(json.dumps(RESULT | {field: odd}))
    with pytest.raises(RunError, match=r"result\.json can't be read"):
        read_result(folder)


def test_files_larger_than_they_can_be_are_not_read(folder):
    for name in ("config.json", "result.json", "evaluation.json", "metrics.jsonl"):
        os.truncate(folder / name, 2**40)  # sparse
    for read in (runs.read_config, read_result, read_evaluations, read_logs):
        with pytest.raises(RunError, match=r"larger than"):
            read(folder)


@pytest.mark.parametrize("line", [
    b"\xff", b"{", b'{"step": 2.5}', b'{"step": true}', b'{"step": -1}', b'{"loss": 1.0}', b"[2]", b"",
    b'{"step": 2, "loss": [1]}', b'{"step": 2, "loss": ' + b"9" * 5000 + b"}", b"[" * 100_000])
def test_a_damaged_line_of_a_log_takes_no_other_with_it(line, folder):
    write_all(folder, steps=4)
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((lines[0], line, *lines[2:], b'{"step": 5, "lo')))  # and one that is cut
    with pytest.warns(UserWarning, match=r"metrics\.jsonl: damaged lines are left out: 2$") as warned:
        rows, _ = read_logs(folder)
    assert len(warned) == 1
    assert [row["step"] for row in rows] == [1, 3, 4]
    run = Run(folder, SETTINGS, ("seed",))
    with pytest.warns(UserWarning, match="damaged lines"):
        run.start(3)  # keeps what it can
    run.close()
    assert [json.loads(row)["step"] for row in path.read_text().splitlines()] == [1, 3]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_damaged_picture_does_not_end_a_run(content, folder):
    (folder / "samples" / "step_00000001.png").write_bytes(content)
    run = Run(folder, SETTINGS, ("seed",))
    with pytest.warns(UserWarning, match=r"step_00000001\.png can't be read"):
        run.start(2)
    run.close()


# Disks.

@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_without_locks_a_run_goes_on_and_says_so(name, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(fcntl, "flock", flock)
    run = Run(tmp_path / "run", SETTINGS, ())
    with pytest.warns(UserWarning, match="is on a file system without locks") as warned:
        run.lock()
    run.close()
    assert len(warned) == 1


@pytest.mark.parametrize(("number", "message"), [
    (errno.EWOULDBLOCK, "is being written to by process"), (errno.EIO, "can't be written to")])
def test_a_lock_that_is_not_had_is_an_error(number, message, folder, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RunError, match=message):
        Run(folder, SETTINGS, ()).lock()


def test_a_quota_on_tensorboards_file_does_not_end_a_run(tmp_path, monkeypatch):
    """Nor does the run wait for what will never be written."""
    from tensorboardX.record_writer import RecordWriter

    run = Run(tmp_path, SETTINGS, ())
    run.lock()
    run.start(0)

    def fails(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(RecordWriter, "write", fails)
    with pytest.warns(UserWarning, match="TensorBoard's file .* can't be written .*quota"):
        run.log(1, {"loss": 1.0}, {})
    for step in range(2, 100):  # said once
        run.log(step, {"loss": 1.0}, {})
    run.finish(RESULT)
    run.close()
    assert len(run.metrics()) == 99
    assert read_result(tmp_path) == RESULT


def test_evaluations_at_once_lose_nothing(folder):
    def evaluate(number):
        for metric in "ab":
            write_evaluation(folder, EVALUATION | {"protocol": {"seed": number}, "metrics": {
                metric: {"value": float(number)}}})

    threads = [threading.Thread(target=evaluate, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_evaluations(folder)
    assert len(found) == 9
    assert all({*one["metrics"]} == {"a", "b"} for one in found if "seed" in one["protocol"])


@pytest.mark.parametrize("home", ["/proc/nohome", None])
def test_without_a_home_nothing_is_kept_and_it_is_said_once(home, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    else:
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    measuring._without_cache.cache_clear()
    with pytest.warns(UserWarning, match="nothing is kept between commands .*XDG_CACHE_HOME"):
        assert measuring.cache_folder() is None
    assert measuring.kept_path("classifiers", "a") is None  # said once
    made = type("Made", (), {"about": 1})
    assert measuring.obtain(None, None, made, None, str).about == 1


def test_damaged_programs_are_kept_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("warnings.showwarning", launch._shower())
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with warnings.catch_warnings():
            launch.keep_programs()
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

            def compiled():
                jax.clear_caches()
                assert jax.jit(lambda x: x * 3 + 1)(2.0) == 7
                assert jax.jit(lambda x: x - 3)(2.0) == -1
                return {path for path in tmp_path.glob("*-cache") if path.stat().st_size > 100}

            whole = compiled()
            assert len(whole) >= 2
            for path in whole:
                os.truncate(path, 100)
            assert compiled() == whole
            assert capsys.readouterr().err.count("was damaged; it is compiled and kept anew") == 1
            assert compiled() == whole
            assert capsys.readouterr().err == ""
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
        compilation_cache.reset_cache()


# What is printed.

HOSTILE = "a\x1b]0;owned\x07\x1b[31mred\nerror: fake\u202e\ud800\x9b"


def test_nothing_printed_moves_the_cursor_or_makes_a_line(capsys):
    console.say(HOSTILE, "good")
    console.warn(HOSTILE)
    printed = capsys.readouterr()
    spelt = r"a\x1b]0;owned\x07\x1b[31mred\nerror: fake\u202e\ud800\x9b"
    assert printed.out == f"{spelt}\ngood\n"
    assert printed.err == f"{spelt}\n"
    assert console.aligned([("\n", "b"), ("cde", "f")]) == [r"\n   b", "cde  f"]


def test_list_escapes_what_is_there_and_passes_over_what_is_odd(folder, capsys):
    hostile = folder.parent / "b\x1b[2J\n"
    write_all(hostile)
    config = json.loads((hostile / "config.json").read_text())
    config["settings"]["loss"] = HOSTILE
    (hostile / "config.json").write_text(json.dumps(config))
    (folder / "result.json").write_text('{"final": []}')
    for name, content in (("c", "["), ("d", '{"settings": {}, "format": "\\u001b[31m"}')):
        (folder.parent / name).mkdir()
        (folder.parent / name / "config.json").write_text(content)
    (folder.parent / "e").mkdir()
    os.mkfifo(folder.parent / "e" / "config.json")
    assert launch.guarded(list.main, list.Options(str(folder.parent))) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 3  # with the head
    assert len(printed.err.splitlines()) == 4
    for text in (printed.out, printed.err):
        assert "\x1b" not in text
    assert launch.guarded(list.main, list.Options("no\x1b\nwhere")) == 2
    assert capsys.readouterr().err == "error: there is no folder no\\x1b\\nwhere\n"


def test_list_says_how_far_a_run_has_come(folder, capsys):
    def listed():
        assert launch.guarded(list.main, list.Options(str(folder.parent))) == 0
        return capsys.readouterr().out.splitlines()[1].split()[5:]

    config = json.loads((folder / "config.json").read_text())
    config["settings"]["steps"] = 3000
    (folder / "config.json").write_text(json.dumps(config))
    assert listed()[0] == str(RESULT["steps"])
    (folder / "result.json").unlink()
    assert listed() == [str(read_logs(folder)[0][-1]["step"]), "of", "3000"]
    (folder / "checkpoints" / "00001200").mkdir(parents=True)
    assert listed() == ["1200", "of", "3000"]
    (folder / "metrics.jsonl").unlink()
    os.mkfifo(folder / "metrics.jsonl")
    assert listed() == ["1200", "of", "3000"]


@pytest.mark.parametrize("stream", [None, "closed", "full"])
def test_a_stream_that_is_gone_ends_nothing(stream, monkeypatch):
    with Path("/dev/full").open("w") as full:
        if stream == "closed":
            full.close()
        monkeypatch.setattr(sys, "stdout", full if stream else None)
        monkeypatch.setattr(sys, "stderr", full if stream else None)
        console.say("a" * 10_000)
        console.warn("a" * 10_000)
        assert not console.ERRORS.isatty()
        with console.Bar(3) as bar:
            bar.update(1)
        monkeypatch.undo()
        if stream == "full":
            os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())


def test_help_on_a_narrow_terminal_comes_soon(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")
    start = time.monotonic()
    assert run_here("gaussians", "--help") == 0
    assert time.monotonic() - start < 30  # it was minutes
    assert "--width" in capsys.readouterr().out


# Signals.

def test_signals_are_one_request_but_for_a_second_ctrl_c():
    with training.signals() as received:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert received[0] == signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with training.signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received[0] == signal.SIGINT


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with training.signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_early_stopping_takes_nan_for_no_improvement():
    def stops(values, **options):
        rows = [{"step": step, "fd": value} for step, value in enumerate(values)]
        moment = training.Moment("evaluation", len(rows), None, rows[-1], rows)
        return training.early_stopping("fd", 2, **options)(moment)

    nan = float("nan")
    for highest in (False, True):
        assert not stops([nan, 3.0, nan], highest=highest)
        assert stops([nan, 3.0, nan, nan], highest=highest)
        assert stops([nan, nan, nan], highest=highest)


# Settings.

@pytest.mark.parametrize("name", commands.experiments())
def test_sizes_are_looked_at_at_the_door(name):
    experiment = opening.load(name)
    known = flags._SIZES.keys() & flags.settings.flat(experiment.Config()).keys()
    assert "width" in known
    flags.check_sizes(experiment.Config())
    for setting in known:
        for value in (-1, 2**31, 2**63, *([0, 10**9] if setting == "width" else [])):
            with pytest.raises(ValueError, match=f"{setting} must be from .* got {value}"):
                flags.check_sizes(experiment.configure(**{setting: value}))


@pytest.mark.parametrize(("changes", "name"), [
    ({"value_range": None}, "value_range"), ({"value_range": [1, 0]}, "value_range"),
    ({"value_range": [0, float("nan")]}, "value_range"), ({"num_classes": "x"}, "num_classes"),
    ({"condition": [[1]]}, "condition"), ({"condition": [[2**40], "float32"]}, "condition"),
    ({"condition": {"a": [[], "object"]}}, "condition"),
    ({"sample_shape": [2**19] * 3}, "sample_shape")])
def test_a_description_of_data_that_cannot_be_is_refused(changes, name, folder):
    config = json.loads((folder / "config.json").read_text())
    good = {"sample_shape": [8, 8, 1], "value_range": [0.0, 1.0], "num_classes": 10, "condition": None}
    for settings in (good | changes, {key: value for key, value in good.items() if key != name}):
        config["settings"] = {"experiment": "digits"} | settings
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=rf"{name} in .*config\.json must be"):
            opening.read_run(folder)
