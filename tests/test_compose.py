"""The examples of docs/compose.md: they run, are short, and do what the text says."""

import re
import tempfile
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import assert_close, same

IMPORT = re.compile("(import|from) ")
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


def translation(found):
    assert found["error"] < 0.5 * found["of_mean"]
    first, second = found["images"], found["others"]
    assert np.abs(first - second).mean() > 1e-3  # dropout
    np.testing.assert_array_equal(found["again"], first)  # a function of the key


def grown(found):
    first, second = found["first"], found["second"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = found["initial"](found["init_state_of"](found["grown"], found["large"]))
    told = " ".join(str(warning.message) for warning in caught)
    for name in ("block16", "image16"):
        assert f"{name}']['kernel'] is absent there" in told
    assert "image8']['kernel'] is" in told
    for name in ("block4", "block8"):  # taken, bit for bit, and frozen
        assert same(start.generator.params[name], first.generator.params[name])
        assert same(second.generator.params[name], first.generator.params[name])
    assert same(start.critic.params["block8"], first.critic.params["block8"])
    assert not same(second.critic.params["block8"], first.critic.params["block8"])
    assert not same(second.generator.params["image16"], start.generator.params["image16"])


def number(found):
    assert found["missed"] < 0.35 * found["by_chance"]


def nnx_module(found):
    before, after = found["before"].generator, found["state"].generator
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), before.variables, after.variables)
    assert moved["params"]["out"]["kernel"] > 0
    assert moved["batch_stats"]["norm"]["mean"] > 0
    assert found["points"].shape == (8, 2)


def in_parts(found):
    assert_close(found["in_parts"], found["at_once"], 1e-5, 1e-7)
    start = found["critic"].init(jax.random.key(1), found["sets"][:, 0], train=False)["params"]
    assert not same(start, found["in_parts"])


def accumulated(found):
    assert_close(found["whole"], found["halves"], rtol=1e-5, atol=1e-7)
    start = found["critic"].init(jax.random.key(1), found["real"], train=False)["params"]
    assert same(found["first"], start)


def double(found):
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(
        (found["state"].critic, found["state"].generator)) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert dtypes == {"float64"}
    norms, slope = np.asarray(found["norms"]), np.asarray(found["slope"])
    assert norms.dtype == slope.dtype == np.float64
    assert (np.abs(slope) <= norms * (1 + 1e-6)).all()
    assert len(np.unique(slope.round(6))) > 10  # no difference of rounded scores
    assert np.isfinite(list(found["result"]["final"].values())).all()


def seeds(found):
    assert [*found["done"]] == ["seed_0", "seed_1", "seed_2"]
    assert len({*found["losses"]}) == 3
    assert " +- " in found["said"]


CHECKS = (radius, heads, series, optimisers, distance, translation, grown, number, nnx_module,
          in_parts, accumulated, double, seeds)


@pytest.mark.filterwarnings("ignore:.*left as it was drawn:UserWarning",
                            "ignore:.*absent here. left out:UserWarning")
@pytest.mark.parametrize(("title", "check"), [
    pytest.param(title, check, marks=[pytest.mark.slow] * (check in (translation, grown, heads, seeds)))
    for title, check in zip(EXAMPLES, CHECKS, strict=True)])
def test_example(title, check, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = EXAMPLES[title]
    assert len([line for line in code.splitlines() if line.strip() and not IMPORT.match(line)]) <= 60
    found = {"init_state_of": initial_state_of}
    with jax.numpy_rank_promotion("allow"):  # as it is outside of the tests
        exec(compile(code, f"docs/compose.md: {title}", "exec"), found)
        check(found)


def initial_state_of(gan, samples):
    """The state that training on these samples starts from, before `initial`."""
    from jaxgan import Batch, game
    from jaxgan.training import initial_state

    return initial_state(game(gan), 0, Batch(jnp.asarray(samples[:32])))
