"""Loggers: what they leave, read by Python's csv module and by Weights & Biases' own reader."""

import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import digits, launch
from jaxgan.loggers import csv_logger
from jaxgan.reporting import Moment

ROOT = Path(__file__).resolve().parents[1]


def _table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def _play(callback, rows):
    """Tells a logger of these log points, one after the other, and of what it doesn't log."""
    for count, row in enumerate(rows, 1):
        for kind in ("log", "checkpoint"):
            assert callback(Moment(kind, row["step"], None, {}, rows[:count])) is None


def test_csv_has_a_line_for_each_log_point_and_blanks_where_nothing_was_measured(tmp_path):
    rows = [{"step": 10, "loss": 0.1}, {"step": 20, "loss": float("inf"), "fd": 1 / 3},
            {"step": 30, "loss": 0.3}]
    _play(csv_logger(tmp_path), rows)
    assert _table(tmp_path) == [{"step": "10", "loss": "0.1", "fd": ""},
                                {"step": "20", "loss": "inf", "fd": repr(1 / 3)},
                                {"step": "30", "loss": "0.3", "fd": ""}]


def test_csv_follows_a_run_that_resumes_or_goes_back(tmp_path):
    rows = [{"step": step, "loss": step / 4} for step in (1, 2, 3, 4)]
    _play(csv_logger(tmp_path), rows)
    before = (tmp_path / "metrics.csv").read_bytes()
    again = csv_logger(tmp_path)  # from the second log point on
    for count in (3, 4):
        again(Moment("log", count, None, {}, rows[:count]))
    assert (tmp_path / "metrics.csv").read_bytes() == before
    again(Moment("log", 2, None, {}, [*rows[:1], {"step": 2, "loss": 9.0}]))
    assert [(row["step"], row["loss"]) for row in _table(tmp_path)] == [("1", "0.25"), ("2", "9.0")]


def test_an_unknown_logger_is_named():
    config = digits.Config()
    config = replace(config, run=replace(config.run, log_to="csv, tensorbord"))
    with pytest.raises(ValueError, match=r"log_to must be csv or wandb, .*; got 'tensorbord'"):
        launch.loggers(config, {})


_OFFLINE = """
import sys
from pathlib import Path
from PIL import Image
from jaxgan.loggers import wandb_logger
from jaxgan.reporting import Moment

folder = Path(sys.argv[1])
(folder / "samples").mkdir()
Image.new("RGB", (4, 4)).save(folder / "samples" / "step_00000020.png")
callback, rows = wandb_logger(folder, {"batch_size": 64}), []
for step, metrics in ((10, {"loss": 0.5}), (20, {"loss": 0.25, "fd": 8.0})):
    rows.append({"step": step, **metrics})
    callback(Moment("log", step, None, metrics, rows))
    callback(Moment("checkpoint", step, None, metrics, rows))
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb isn't installed")
def test_wandb_is_told_metrics_pictures_and_settings(tmp_path):
    subprocess.run([sys.executable, "-c", _OFFLINE, str(tmp_path)], check=True, timeout=120,
                   env=os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    path, = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert path.stem == f"run-{(tmp_path / 'wandb_id').read_text()}"
    assert len([*path.parent.glob("files/media/images/*.png")]) == 1
    done = subprocess.run([sys.executable, "-c", _READ, str(path)], check=True, capture_output=True,
                          text=True, timeout=60)
    config, *history = map(json.loads, done.stdout.splitlines())
    assert config["batch_size"] == 64
    assert [row["_step"] for row in history] == [10, 20]
    np.testing.assert_array_equal([row["loss"] for row in history], [0.5, 0.25])
    assert history[1]["fd"] == 8.0
    assert ["samples" in row or "samples/_type" in row for row in history] == [False, True]


_READ = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

data = open(sys.argv[1], "rb").read()  # LevelDB's log format, behind seven bytes
assert data[:4] == b":W&B"
records, place = [b""], 7
while place + 7 <= len(data):
    if 32768 - place % 32768 < 7:  # what is left of a block holds no header
        place += 32768 - place % 32768
        continue
    _, length, kind = struct.unpack_from("<IHB", data, place)
    records[-1] += data[place + 7:place + 7 + length]
    place += 7 + length
    if kind in (1, 4):  # a whole record, or the last part of one
        records.append(b"")
config, history = {}, []
for record in map(Record.FromString, records[:-1]):
    config |= {update.key: json.loads(update.value_json) for update in record.run.config.update}
    if record.HasField("history"):
        history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json)
                        for item in record.history.item})
print(*map(json.dumps, [config, *history]), sep="\\n")
"""


def test_the_documents_example_runs(tmp_path, monkeypatch):
    code, = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "logging.md").read_text(),
                       re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/guides/logging.md", "exec"), {})
    assert [row["step"] for row in _table(tmp_path / "runs" / "logged")] == ["10", "20"]
