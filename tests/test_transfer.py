"""Networks of another run: taken as copies, whole or in part."""

import warnings

import jax
import pytest

from jaxgan import game
from jaxgan.training import initial_state, train
from jaxgan.transfer import warm_start
from tests.tiny import Generator, Linear, points, same, tiny


def test_a_warm_started_run_leaves_the_other_ones_arrays_alone(tmp_path):
    """The loop gives its state's memory away, which was that of the weights that were taken."""
    samples = points(32).samples
    first, _ = train(tiny(), samples, tmp_path / "a", steps=1, batch_size=8, devices=1)
    before = jax.tree.map(lambda x: x.copy(), first.generator.variables)
    train(tiny(), samples, tmp_path / "b", steps=2, batch_size=8, devices=1,
          initial=warm_start({"generator": first.generator.variables}))
    assert same(first.generator.variables, before)


def test_what_fits_only_in_part_is_named():
    state = initial_state(game(tiny()), 0, points(4))
    other = initial_state(game(tiny(generator=Linear(2))), 0, points(4))
    with pytest.raises(ValueError, match=r"the weights for the generator fit nowhere"):
        warm_start({"generator": other.generator.variables})(state)
    normed = initial_state(game(tiny(generator=Generator(norm=True))), 0, points(4))
    with pytest.raises(ValueError, match="take those that fit with partial=True"):
        warm_start({"generator": normed.generator.variables})(state)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        taken = warm_start({"generator": normed.generator.variables}, partial=True)(state)
    assert same(taken.generator.params["Dense_0"], normed.generator.params["Dense_0"])
    assert all("absent here: left out" in str(warning.message) for warning in caught)
    assert caught
