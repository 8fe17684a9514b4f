"""A run's folder: configuration, metrics, samples, curves, result.

    config.json               every resolved setting, versions, devices, the command
    metrics.jsonl             one line a log point
    digests.jsonl             the parameters' digests there, to tell where two runs part
    events.out.tfevents.*     the same, and the samples, for TensorBoard
    samples/step_00001000.png a grid from the same latents each time; real.png once; .txt if text
    metrics.csv, wandb_id     of `jaxgan.loggers`, where these are asked for
    curves.png                the metrics over the steps
    checkpoints/              the last few states and the best one
    result.json               what came out
    report.txt                the same, to be read
    report.html               the same as a page, with curves and samples
    evaluation.json           numbers by their protocols
    lock                      held by the process that writes here, and free when it dies
    evaluation.json.lock      held while that file is read and written anew
"""

import errno
import fcntl
import json
import os
import platform
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from textwrap import indent
from types import MappingProxyType
from typing import IO, Any

import jax
import numpy as np

from jaxgan import files
from jaxgan.extras import needs
from jaxgan.pictures import load_png, save_curves, save_png

FORMAT = 2  # of config.json; the first one had no number
_LOCK = "lock"
_SHORT = 16  # digits of a digest in digests.jsonl
_JAX_SETTINGS = ("default_matmul_precision", "default_prng_impl", "enable_x64", "random_seed_offset",
                 "threefry_partitionable")
_OF_DATA = ("data_sha256", "folder", "text_file")  # which data a run was trained on, and where they were
_JSON_BYTES, _LOG_BYTES = 2**24, 2**30  # of a file and of a log; more is not read
_FLUSH_SECONDS = 10  # between what TensorBoard can see
_PATIENCE_SECONDS = 30  # with another process that writes an evaluation, which takes it milliseconds
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # Lustre by default, some NFS and FUSE


class RunError(ValueError):
    """A run folder that can't be used as asked."""


class Run:
    """A folder that one run writes to, by its first process; nothing is written before `lock`.

    Args:
        folder: where; made by `lock` if it isn't there.
        settings: every resolved setting, to be found again in `config.json`; JSON values.
        identity: the names of the settings that must be the same when a folder is used again: those
            that decide what the run computes, not for how long or how often it reports.
        change: the names of those that may be others nevertheless, if the run goes on; "data" for what
            it is trained on.
        before: what settings of the identity stand for in runs, and in checkpoints, that lack them, as
            they were begun before there were such settings.

    Raises:
        RunError: the folder holds something else, or a run whose settings differ.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], identity: Iterable[str], *,
                 change: Iterable[str] = (), before: Mapping[str, Any] = MappingProxyType({})):
        self.folder, self.before = Path(folder), before
        self.identity = json.loads(json.dumps(  # as it is read back: tuples are lists
            {name: settings.get(name) for name in sorted({"experiment", *identity})}))
        config = read_config(self.folder) if self.config_path.exists() else None
        self.changes, self._moved = changes_of(config or {}, self.config_path), {}
        self.change = {*change}
        if config is not None:
            existing = {**before, **config["settings"]}
            differing = [f"{name} is {existing.get(name)!r} there and {value!r} here"
                         for name, value in self.identity.items()
                         if existing.get(name) != value and name not in self.change]
            if differing:
                raise RunError(f"{self.folder} holds a run with another configuration "
                               f"({'; '.join(differing)}): choose another --run-dir, or, if that is "
                               "meant, name it with --change")
            _check_jax(self.folder, config.get("jax_settings"))
            if "data" not in self.change:
                check_data(self.folder, existing, settings)
            self._moved = {name: [existing[name], settings[name]] for name in _OF_DATA
                           if name in existing and name in settings and existing[name] != settings[name]
                           and "data" in self.change}
        elif self.folder.exists() and not _is_unused(self.folder):
            raise RunError(f"{self.folder} is not an empty folder nor a run's: choose another --run-dir")
        self._config = json.loads(_json({"format": FORMAT, "settings": settings} | environment()))
        self._is_writing = False
        self._board: _Board | None = None
        self._lock_file: IO[str] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Every resolved setting, JSON values."""
        return self._config["settings"]

    @property
    def config_path(self) -> Path:
        """Where the configuration is."""
        return self.folder / "config.json"

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.folder / "checkpoints"

    def lock(self) -> None:
        """Claims the folder for this process until `close`, or until it dies.

        Raises:
            RunError: another process has it, or it can't be written to.
        """
        if jax.process_index() > 0:
            return
        for name in ("samples", "checkpoints"):
            if (self.folder / name).is_symlink():
                raise RunError(f"{self.folder / name} is a link, and a run writes into its own folder "
                               "alone: put the folder itself there, or choose another --run-dir")
        try:
            (self.folder / "samples").mkdir(parents=True, exist_ok=True)
            file = files.open_to_append(self.folder / _LOCK)
        except OSError as error:
            raise self._not_writable(error) from error
        try:
            is_ours = _lock(file, self.folder)
        except OSError as error:
            file.close()
            raise self._not_writable(error) from error
        if not is_ours:
            file.seek(0)
            holder = file.read(100).strip() or "another process"
            file.close()
            raise RunError(f"{self.folder} is being written to by {holder}: wait for it, or choose "
                           "another --run-dir")
        self._lock_file = file
        if os.fstat(file.fileno()).st_nlink == 1:  # else another file's content would be lost
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()

    def _not_writable(self, error: OSError) -> RunError:
        return RunError(f"{error.filename or self.folder} can't be written to ({files.reason(error)}): "
                        "choose another --run-dir")

    def start(self, step: int, changed: Mapping[str, list[Any]] = {}) -> None:
        """Opens the logs for what follows `step`, and drops what an earlier try logged beyond it.

        TensorBoard's file is written anew from the metrics and samples, as its writer's last lines are
        lost when a process is killed.

        Args:
            step: what the run goes on from, 0 if it begins.
            changed: what is another one from here on, name -> [before, after], for its history.

        Raises:
            RunError: the folder can't be written to.
        """
        if jax.process_index() > 0:
            return
        self._close_board()
        try:
            self.changes = [entry for entry in self.changes if entry["step"] < step]
            if changed or self._moved:
                self.changes.append({"step": step, "changed": {**changed, **self._moved}})
            files.write(self.config_path, _json(self._config | (
                {"changes": self.changes} if self.changes else {})))
            files.remove(self._result_path)  # until this run has its own
            files.remove(report_path(self.folder))
            files.remove(self.folder / "report.html")
            for path, is_value in ((self._metrics_path, _is_number), (self._digests_path, _is_text)):
                rows = [row for row in _rows(path, is_value) if row["step"] <= step]
                files.write(path, "".join(json.dumps(row) + "\n" for row in rows))
            saved = saved_samples(self.folder)
            for sampled_step in [later for later in saved if later > step]:
                files.remove(saved.pop(sampled_step))
            for path in self.folder.glob("events.out.tfevents.*"):
                files.remove(path)
        except OSError as error:
            raise self._not_writable(error) from error
        self._is_writing = True
        self._show(lambda: self._open_board(saved))

    def _open_board(self, saved: dict[int, Path]) -> None:
        self._board = _Board(self.folder)
        for row in self.metrics():
            self._board.add_numbers(row)
        for step, path in saved.items():
            try:
                samples = (files.read(path, _JSON_BYTES).decode() if path.suffix == ".txt"
                           else load_png(path))
            except (OSError, ValueError) as error:
                warnings.warn(f"{path} can't be read ({files.reason(error)}); TensorBoard is not shown "
                              "it", UserWarning, stacklevel=2)
                continue
            self._board.add_samples(step, samples)

    def log(self, step: int, metrics: dict[str, float], digests: dict[str, str]) -> None:
        """Appends a line of metrics, and one of the parameters' digests by leaf.

        Raises:
            OSError: the disk is full; as of the methods below.
        """
        if not self._is_writing:
            return
        self._check_room()
        _append(self._metrics_path, {"step": step, **metrics})
        _append(self._digests_path, {"step": step} | {
            name: digest[:_SHORT] for name, digest in digests.items()})
        self._show(lambda: self._board and self._board.add_numbers({"step": step, **metrics}))

    def _show(self, show: Callable[[], object]) -> None:
        """Shows TensorBoard something; if its file can't be written, the run goes on without."""
        try:
            show()
        except OSError as error:
            board, self._board = self._board, None
            if board is not None:
                with suppress(OSError):
                    board.close()
            warnings.warn(f"TensorBoard's file in {self.folder} can't be written "
                          f"({files.reason(error)}); the run goes on without it, and its next start "
                          "writes it anew", UserWarning, stacklevel=3)

    def save_real(self, samples: np.ndarray | str) -> None:
        """Saves real samples: a picture, uint8 [height, width, 3], or text."""
        self._save_samples("real", samples)

    def save_samples(self, step: int, samples: np.ndarray | str) -> None:
        """Saves samples: a picture, uint8 [height, width, 3], or text."""
        self._save_samples(f"step_{step:08d}", samples)
        self._show(lambda: self._board and self._board.add_samples(step, samples))

    def _save_samples(self, name: str, samples: np.ndarray | str) -> None:
        if not self._is_writing:
            return
        self._check_room()
        path = self.folder / "samples" / name
        if isinstance(samples, str):
            files.write(path.with_suffix(".txt"), samples)
        else:
            save_png(path.with_suffix(".png"), samples)

    def metrics(self) -> list[dict[str, float]]:
        """The logged lines, but for a last one cut by a crash and, with a warning, damaged ones."""
        return _rows(self._metrics_path, _is_number)

    def finish(self, result: dict[str, Any], floor: Mapping[str, float] = {}) -> None:
        """Writes `result.json` and `curves.png`, with the numbers of held-out reals beside."""
        if not self._is_writing:
            return
        save_curves(self.folder / "curves.png", self.metrics(), floor)
        files.write(self._result_path, _json(result))

    def close(self) -> None:
        """Closes the logs and lets go of the folder."""
        self._close_board()
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def _close_board(self) -> None:
        if self._board is not None:
            self._show(self._board.close)
        self._board, self._is_writing = None, False

    def _check_room(self) -> None:
        """A line or picture that is only half there is no use: a full disk is found before."""
        if shutil.disk_usage(self.folder).free < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))

    @property
    def _metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def _digests_path(self) -> Path:
        return self.folder / "digests.jsonl"

    @property
    def _result_path(self) -> Path:
        return self.folder / "result.json"


class _Board:
    """TensorBoard's file. It is written here and now: in tensorboardX's own writer a thread does that,
    which dies of the first error, and then the queue before it takes nothing, and waits for ever.
    """

    def __init__(self, folder: Path):
        needs("tensorboardX")
        from tensorboardX.record_writer import RecordWriter

        self._flushed = time.monotonic()
        self._writer = RecordWriter(
            str(folder / f"events.out.tfevents.{time.time():.0f}.{platform.node()}"))
        self._add(0, file_version="brain.Event:2")

    def add_numbers(self, row: dict[str, Any]) -> None:
        from tensorboardX.summary import scalar

        for name, value in row.items():
            if name != "step":
                self._add(row["step"], summary=scalar(name, value))

    def add_samples(self, step: int, samples: np.ndarray | str) -> None:
        from tensorboardX.summary import image, text

        self._add(step, summary=(
            text("samples", indent(samples, " " * 4)) if isinstance(samples, str)  # verbatim Markdown
            else image("samples", samples, dataformats="HWC")))

    def _add(self, step: int, **content: Any) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue]: made when it is imported
        self._writer.write(event(wall_time=time.time(), step=step, **content).SerializeToString())
        if time.monotonic() > self._flushed + _FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()


def read_config(folder: str | Path) -> dict[str, Any]:
    """Reads a run's `config.json`.

    Args:
        folder: the run's, or the file itself.

    Raises:
        RunError: there is none, it isn't a run's, or a later version wrote it.
    """
    path = Path(folder)
    path = path if path.is_file() else path / "config.json"
    try:
        config = files.read_json(path, _JSON_BYTES)
    except FileNotFoundError:
        raise RunError(f"{folder} is not a run's folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({files.reason(error)})") from error
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise RunError(f"{path} is not a run's configuration: it has no settings")
    if config.get("format", 1) not in range(1, FORMAT + 1):
        raise RunError(f"{path} has the format {config['format']!r}, and this version of jaxgan reads "
                       f"those up to {FORMAT}: use the version that wrote it, or a later one")
    return config


def changes_of(config: Mapping[str, Any], path: str | Path) -> list[dict[str, Any]]:
    """Returns what a run went on with in place of what it was begun with, by steps.

    Args:
        config: as `read_config` gives it; for each step at which something became another,
            `{"step": ..., "changed": {name: [before, after]}}` in its `changes`.
        path: the file's, for errors.

    Raises:
        RunError: its `changes` are not what a run writes.
    """
    changes = config.get("changes", [])
    if not (isinstance(changes, list) and all(
            isinstance(entry, dict) and type(entry.get("step")) is int and entry["step"] >= 0
            and isinstance(entry.get("changed"), dict)
            and all(isinstance(pair, list) and len(pair) == 2 for pair in entry["changed"].values())
            for entry in changes)):
        raise RunError(f"the changes in {path} must be a list of steps and of settings, each with its "
                       "value before and after")
    return sorted(changes, key=lambda entry: entry["step"])


def check_data(folder: str | Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compares the data of a run's settings with other ones; those that aren't known are not compared.

    Raises:
        RunError: the data differ.
    """
    digests = there.get("data_sha256"), here.get("data_sha256")
    if None not in digests and digests[0] != digests[1]:
        raise RunError("{} was trained on other data than these: their SHA-256 was {!s:.12}, and is "
                       "{!s:.12}; bring them back, or train anew".format(folder, *digests))


def read_result(folder: str | Path) -> dict[str, Any] | None:
    """Reads a run's `result.json`; None if the run isn't finished.

    Raises:
        RunError: the file is damaged, or none that a run writes.
    """
    path = Path(folder) / "result.json"
    try:
        result = files.read_json(path, _JSON_BYTES)
        if not isinstance(result, dict):
            raise ValueError("it is no table")
        for name, is_valid in _RESULT.items():
            if not is_valid(result.get(name)):
                raise ValueError(f"{name} is {result.get(name)!r:.80}")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({files.reason(error)}): delete it and finish the run "
                       "again with --resume latest") from error
    return result


def report_path(folder: str | Path) -> Path:
    """Where a finished run's numbers are, to be read."""
    return Path(folder) / "report.txt"


def write_report(folder: str | Path, lines: Iterable[str]) -> None:
    """Writes a finished run's `report.txt`; OSError if it can't be written."""
    files.write(report_path(folder), "".join(f"{line}\n" for line in lines))


def saved_samples(folder: str | Path) -> dict[int, Path]:
    """The files of a run's samples by step."""
    return {int(path.stem[5:]): path for path in sorted((Path(folder) / "samples").glob("step_*"))
            if path.suffix in (".png", ".txt") and path.stem[5:].isdecimal()}


def newest_samples(folder: str | Path) -> Path | None:
    """The file of a run's last samples; None if it has none."""
    saved = saved_samples(folder)
    return saved[max(saved)] if saved else None


def read_evaluations(folder: str | Path) -> list[dict[str, Any]]:
    """Reads a run's evaluations, the newest last; [] if there are none.

    Raises:
        RunError: the file is damaged.
    """
    path = Path(folder) / "evaluation.json"
    try:
        content = files.read_json(path, _JSON_BYTES)
        evaluations = content.get("evaluations") if isinstance(content, dict) else None
        if not isinstance(evaluations, list) or not all(map(_is_evaluation, evaluations)):
            raise ValueError("its evaluations lack protocol, step or metrics")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(f"{path} can't be read ({files.reason(error)}): delete it and evaluate "
                       "again") from error
    return evaluations


def write_evaluation(folder: str | Path, evaluation: dict[str, Any]) -> None:
    """Adds an evaluation to a run's `evaluation.json`, one process after the other.

    Its metrics join those of an earlier one of the same parameters, step and protocol.

    Args:
        folder: the run's.
        evaluation: `step`, `params_sha256`, `protocol`, `metrics` and more, JSON values.

    Raises:
        RunError: the file that is there is damaged, or another process keeps it for itself.
        OSError: it can't be written.
    """
    def is_same(found: dict[str, Any]) -> bool:
        return all(found.get(name) == evaluation[name] for name in ("step", "params_sha256", "protocol"))

    path = Path(folder) / "evaluation.json"
    with _alone(path):
        found = read_evaluations(folder)
        metrics = {name: value for old in filter(is_same, found)
                   for name, value in old["metrics"].items()}
        evaluation = evaluation | {"metrics": metrics | evaluation["metrics"]}
        kept = [old for old in found if not is_same(old)]
        files.write(path, _json({"evaluations": [*kept, evaluation]}))


def read_logs(folder: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads a run's logged metrics and digests; a damaged line is left out, with a warning."""
    return (_rows(Path(folder) / "metrics.jsonl", _is_number),
            _rows(Path(folder) / "digests.jsonl", _is_text))


def environment() -> dict[str, Any]:
    """What may decide the last bits of a result besides the settings, and the command."""
    return {
        "versions": {"python": platform.python_version()} | {
            name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")},
        "devices": [f"{device.platform} {device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "processor": processor(),
        "cores": cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "jax_settings": jax_settings(),
        "command": sys.orig_argv,
    }


def cores() -> int | None:
    """How many of the processor's cores this process may use, as far as that is known."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count()


def jax_settings() -> dict[str, Any]:
    """Those of jax's own settings that decide what a run computes."""
    return {name: getattr(jax.config, f"jax_{name}") for name in _JAX_SETTINGS}


def processor() -> str:
    """The type of the machine's processor: what is compiled for another may differ, or not run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described = sorted({line for line in lines
                            if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        described = [platform.processor()]
    return f"{platform.machine()}-{zlib.crc32(repr(described).encode()):08x}"


def _check_jax(folder: Path, there: Any) -> None:
    """Raises RunError for a run that was begun under other settings of jax; None: it doesn't say."""
    for name, value in jax_settings().items() if isinstance(there, dict) else ():
        if name in there and there[name] != value:
            raise RunError(f"{folder} was trained with {there[name]!r} for jax's setting jax_{name}, "
                           f"which is {value!r} here: set JAX_{name.upper()}={there[name]}, or choose "
                           "another --run-dir")


def _is_unused(folder: Path) -> bool:
    """Whether nothing is in it but what a run leaves that ended before its configuration was there."""
    return folder.is_dir() and all(
        path.name in (_LOCK, "config.json.partial") or (path.name == "samples" and path.is_dir()
        and not any(path.iterdir())) for path in folder.iterdir())


def _rows(path: Path, is_value: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """The good lines of a log; the others are left out, with a warning unless a crash has cut the last.

    Raises:
        RunError: it can't be read.
    """
    try:
        *lines, last = files.read(path, _LOG_BYTES).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{path} can't be read ({files.reason(error)})") from error
    rows, damaged = [], []
    for number, line in enumerate((*lines, last), 1):
        try:
            row = files.parse_json(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and _is_count(row.get("step")) and all(
                is_value(value) for name, value in row.items() if name != "step"):
            rows.append(row)
        elif number <= len(lines):
            damaged.append(str(number))
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        warnings.warn(f"{path}: damaged lines are left out: {', '.join(damaged[:3])}{more}", UserWarning,
                      stacklevel=3)
    return rows


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_all(is_value: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether something is a table of such values."""
    return lambda table: isinstance(table, dict) and all(map(is_value, table.values()))


_RESULT = {"steps": _is_count, "params_sha256": _is_text, "leaves_sha256": _is_all(_is_text),
           "final": _is_all(_is_number), "duration_seconds": _is_number,
           "evaluation": lambda value: value is None or _is_all(_is_number)(value),
           "iterations_per_second": lambda value: value is None or _is_number(value)}


def _is_evaluation(found: Any) -> bool:
    def is_measured(values: Any) -> bool:
        return (isinstance(values, dict) and _is_number(values.get("value"))
                and all(value is None or _is_number(value) for value in values.values()))

    return (isinstance(found, dict) and isinstance(found.get("protocol"), dict)
            and _is_count(found.get("step")) and _is_all(is_measured)(found.get("metrics")))


def _lock(file: IO[str], where: Path) -> bool:
    """Locks an open file for this process; False if another one has it.

    Raises:
        OSError: it can't be told.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        warnings.warn(f"{where} is on a file system without locks ({error.strerror}): see to it that no "
                      "other process writes there", UserWarning, stacklevel=3)
    return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process changes a file."""
    deadline, lock = time.monotonic() + _PATIENCE_SECONDS, path.with_name(path.name + ".lock")
    try:
        file = files.open_to_append(lock)
    except OSError as error:
        raise RunError(f"{lock} can't be written to ({files.reason(error)})") from error
    with file:
        while not _lock(file, path):
            if time.monotonic() > deadline:
                raise RunError(f"{path} has been kept by another process for {_PATIENCE_SECONDS} s: end "
                               "that, and evaluate again")
            time.sleep(0.05)
        yield


def _append(path: Path, row: dict[str, Any]) -> None:
    with files.open_to_append(path) as file:
        file.write(json.dumps(row) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
