"""The example of docs/critics.md: it runs, and comes to the known distance."""

import re
from pathlib import Path

import jax
import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "critics.md").read_text()


@pytest.mark.slow
def test_the_distance_of_two_clouds_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    found = {}
    with jax.numpy_rank_promotion("allow"):  # as it is outside of the tests
        exec(compile(code, "docs/critics.md", "exec"), found)
    assert found["distance"] == pytest.approx(2.0, abs=0.1)  # equal clouds, moved by 2
