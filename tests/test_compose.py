"""The examples of docs/compose.md: they run, are short, and do what the text says."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "compose.md").read_text()
EXAMPLES = dict(re.findall(r"^## (.*?)\n.*?^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


def radius(found):
    assert {"critic/radius", "generator/radius_weight"} <= found["metrics"].keys()
    assert float(found["far"]) > float(found["near"]) + 0.5


def heads(found):
    assert {"critic/class", "critic/class_weight", "critic/adversarial"} <= found["metrics"].keys()
    assert all(np.isfinite(value) for value in found["metrics"].values())


def series(found):
    assert found["series"].shape == (16, 32, 3)
    real = np.asarray(found["source"].draw((), jax.random.key(1), np.zeros(64, np.uint32),
                                           np.arange(64, dtype=np.uint32)).samples)
    np.testing.assert_allclose(real.sum(axis=-1), 0.0, atol=1e-5)  # three phases
    noise = found["sample"](found["gan"], jax.jit(found["init_state"], static_argnums=0)(
        found["gan"], jax.random.key(2), found["Batch"](real[:2])), jax.random.key(0), 16)
    assert np.square(found["series"].sum(-1)).mean() < 0.5 * np.square(noise.sum(-1)).mean()


def optimisers(found):
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(found["state"].critic.params)) <= 0.01
    assert "critic/penalty" not in found["metrics"]


def distance(found):
    assert abs(float(found["distance"])) == pytest.approx(5 + 25 / 20, abs=0.2)


@pytest.mark.parametrize(("title", "check"), list(zip(EXAMPLES, (
    radius, heads, series, optimisers, distance), strict=True)))
def test_example(title, check):
    code = EXAMPLES[title]
    assert len(code.splitlines()) < 40
    found = {}
    with jax.numpy_rank_promotion("allow"):  # as it is outside of the tests
        exec(compile(code, f"docs/compose.md: {title}", "exec"), found)
        check(found)
