"""Numbers as a condition: through generators and critics, and read back from samples."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.features import train_reader
from jaxgan.models import (
    DCGANCritic,
    DCGANGenerator,
    MLPCritic,
    MLPGenerator,
    ResNetCritic,
    ResNetGenerator,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
NUMBERS = jnp.array([[0.5, -1.0], [0.0, 0.25], [1.0, 1.0]])
GENERATORS = {
    "mlp": MLPGenerator((4,), (8,), num_numbers=2),
    "dcgan": DCGANGenerator((8, 8, 1), 2, num_numbers=2),
    "series": DCGANGenerator((12, 1), 2, num_numbers=2, axes=1),
    "resnet": ResNetGenerator((8, 8, 1), (2, 2), num_numbers=2),
}
CRITICS = {
    "mlp": (partial(MLPCritic, (8,)), (4,)),
    "dcgan": (partial(DCGANCritic, 2), (8, 8, 1)),
    "volumes": (partial(DCGANCritic, 2, 1, 3, axes=3), (4, 4, 4, 1)),
    "resnet": (partial(ResNetCritic, (2, 2)), (8, 8, 1)),
}


def applied(module, inputs, condition, **variables):
    variables = variables or jax.jit(partial(module.init, train=False))(
        jax.random.key(0), inputs, condition)
    return variables, jax.jit(partial(module.apply, train=False))(variables, inputs, condition)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_sample_follows_its_own_numbers(name):
    latents = jnp.ones((3, 5))
    variables, samples = applied(GENERATORS[name], latents, NUMBERS)
    _, others = applied(GENERATORS[name], latents, NUMBERS.at[1, 0].add(0.5), **variables)
    differs = np.asarray(samples != others).reshape(3, -1).any(axis=1)
    np.testing.assert_array_equal(differs, [False, True, False])


@pytest.mark.parametrize("conditioning", ["projection", "concatenation"])
@pytest.mark.parametrize("name", CRITICS)
def test_a_score_follows_its_own_numbers(name, conditioning):
    make, shape = CRITICS[name]
    critic = make(conditioning=conditioning, num_numbers=2)
    samples = jax.random.normal(jax.random.key(1), (3, *shape))
    variables, scores = applied(critic, samples, NUMBERS)
    assert scores.shape == (3,)
    _, others = applied(critic, samples, NUMBERS.at[1, 0].add(0.5), **variables)
    np.testing.assert_array_equal(np.asarray(scores != others), [False, True, False])
    slope = jax.jit(jax.grad(lambda numbers: critic.apply(
        variables, samples, numbers, train=False).sum()))(NUMBERS)
    assert np.isfinite(slope).all()
    assert (slope != 0).any()


def test_projection_is_an_inner_product():
    """D(x, c) - D(x, c') is linear in what the last hidden layer makes of x: here, x itself."""
    critic = MLPCritic((), conditioning="projection", num_numbers=2)
    samples = jax.random.normal(jax.random.key(1), (3, 4))
    variables, _ = applied(critic, samples, NUMBERS)
    score = partial(critic.apply, variables, train=False)
    difference = score(samples, NUMBERS) - score(samples, NUMBERS[::-1])
    doubled = score(2 * samples, NUMBERS) - score(2 * samples, NUMBERS[::-1])
    np.testing.assert_allclose(doubled, 2 * difference, rtol=1e-4, atol=1e-6)


def test_classes_beside_samples_are_a_plane_for_each():
    critic = MLPCritic((), conditioning="concatenation", num_classes=3)
    samples, labels = jnp.ones((3, 4)), jnp.array([0, 2, 1])
    variables, scores = applied(critic, samples, labels)
    kernel = np.asarray(variables["params"]["Dense_0"]["kernel"])[:, 0]
    np.testing.assert_allclose(scores, kernel[:4].sum() + kernel[4:][labels], rtol=1e-5)


@pytest.mark.parametrize(("module", "inputs", "condition", "message"), [
    (GENERATORS["mlp"], (3, 5), None, r"of 2 numbers takes them as condition, float \[3, 2\]; got None"),
    (GENERATORS["mlp"], (3, 5), jnp.ones((3, 1)), r"got \(3, 1\)"),
    (MLPGenerator(num_numbers=2, num_classes=3), (3, 5), NUMBERS, "classes or numbers, not both"),
    (MLPCritic((4,), num_numbers=2), (3, 4), NUMBERS, "conditioning 'none' does not go with 2 numbers"),
    (MLPCritic((4,), conditioning="projection"), (3, 4), NUMBERS, "does not go with 0 classes"),
    (MLPCritic((4,), conditioning="classes", num_numbers=2), (3, 4), NUMBERS, "'classes' does not go"),
    (MLPCritic((4,), conditioning="planes"), (3, 4), NUMBERS, "conditioning must be one of"),
    (MLPCritic((4,), conditioning="projection", num_numbers=3), (3, 4), NUMBERS, r"got \(3, 2\)"),
])
def test_other_conditions_are_refused(module, inputs, condition, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(module.init, train=False), jax.random.key(0), jnp.ones(inputs), condition)


def test_whole_numbers_are_no_numbers():
    with pytest.raises(TypeError, match="must be floating point; got int32"):
        jax.eval_shape(partial(GENERATORS["mlp"].init, train=False), jax.random.key(0), jnp.ones((3, 5)),
                       jnp.ones((3, 2), jnp.int32))


@pytest.mark.parametrize("shape", [
    (6,), (8, 8, 1), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((8, 1), (8, 8, 8, 1)))])
def test_numbers_and_classes_are_read_from_samples(shape):
    """The sign of a sample's mean is its class, the mean itself a number."""
    rng = np.random.default_rng(0)
    means = rng.uniform(-1, 1, 400).astype(np.float32)
    samples = (means.reshape(-1, *[1] * len(shape)) + 0.1 * rng.normal(size=(400, *shape))
               ).astype(np.float32)
    numbers = train_reader(samples[:300], means[:300, None], updates=300)
    assert numbers.error(samples[300:], means[300:, None]) < 0.04  # of a range of 2
    classes = train_reader(samples[:300], (means[:300] > 0).astype(np.int32), 2, updates=300)
    assert classes.error(samples[300:], means[300:] > 0) < 0.06
    # Half are wrong of a reader that is asked for the opposite, by the definition of the error.
    assert classes.error(samples[300:], means[300:] <= 0) > 0.94
