"""Conditions as planes by hand, and the generator that sees them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import ContextGenerator, DCGANCritic
from jaxgan.models.planes import beside, box_planes, class_planes

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_a_box_covers_pixels_by_their_part_in_it():
    (found,) = np.asarray(box_planes(jnp.array([[0.0, 0.125, 0.5, 0.625]]), (2, 4)))[..., 0]
    np.testing.assert_allclose(found, [[0.5, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]], atol=1e-6)


def test_classes_are_the_same_everywhere():
    planes = beside("here", partial(class_planes, num_classes=3), jnp.array([2, 0]), (2, 2))
    assert planes.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(planes[:, 1, 0], [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: box_planes(jnp.zeros((2, 3)), (4, 4)), r"shape \[batch, 4\]; got \(2, 3\)"),
    (lambda: box_planes(jnp.array([[0.0, 0.0, 1.0, 1.25]]), (4, 4)), r"got \[0.0, 0.0, 1.0, 1.25\]"),
    (lambda: box_planes(jnp.array([[0.5, 0.0, 0.25, 1.0]]), (4, 4)), "0 <= top <= bottom <= 1"),
    (lambda: class_planes(jnp.array([3]), 3), r"labels must be in \[0, 3\); got 3 to 3"),
    (lambda: beside("M", lambda c: c["mask"], None, (4, 4)),
     "M can.t make planes of the condition None"),
    (lambda: beside("M", lambda c: c, jnp.zeros((1, 2, 4, 1)), (4, 4)),
     r"planes must have shape .*4, 4"),
])
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_context_generator_sees_planes_and_latents():
    generator = ContextGenerator((7, 9, 2), lambda condition: condition, width=4, kernel_size=3)
    latents, planes = jnp.ones((2, 3)), jnp.ones((2, 7, 9, 1))
    variables = jax.jit(partial(generator.init, train=False))(jax.random.key(0), latents, planes)
    draw = jax.jit(partial(generator.apply, variables, train=False))
    images = draw(latents, planes)
    assert images.shape == (2, 7, 9, 2)
    assert ((images > 0) & (images < 1)).all()
    assert (draw(2 * latents, planes) != images).any()
    # One pixel is seen at once by what is drawn next to it.
    changed = np.asarray(draw(latents, planes.at[:, 3, 4].add(1.0)) != images)
    assert changed[:, 3, 4].all()


def test_a_critic_sees_planes_and_predicts_by_name():
    critic = DCGANCritic(4, kernel_size=3, heads=(("box", 4), ("size", 1)), planes=lambda c: c)
    images, planes = jnp.ones((2, 8, 8, 1)), jnp.zeros((2, 8, 8, 1))
    variables = jax.jit(partial(critic.init, train=False))(jax.random.key(0), images, planes)
    judge = jax.jit(partial(critic.apply, variables, train=False))
    scores, heads = judge(images, planes)
    assert {name: head.shape for name, head in heads.items()} == {"box": (2, 4), "size": (2, 1)}
    assert (judge(images, planes + 1)[0] != scores).all()
