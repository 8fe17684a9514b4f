"""Labels that are no classes: NaN in compiled programs, and a sentence where they are known."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import GAN, Batch, generate, init_state, judge, sample
from jaxgan.data import Dataset, in_memory, resident, streaming
from jaxgan.labels import check_range, one_hot
from jaxgan.losses import hinge
from jaxgan.models import DCGANCritic, DCGANGenerator, ResNetCritic, ResNetGenerator
from jaxgan.models.planes import class_planes
from jaxgan.tasks import classification, cross_entropy
from jaxgan.training import NotFiniteError, train

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY, CLASSES, SHAPE = jax.random.key(0), 3, (8, 8, 1)
LATENTS, IMAGES = jnp.ones((4, 2)), jnp.ones((4, *SHAPE))
RIGHT, WRONG = jnp.array([0, 1, 2, 0]), (jnp.array([1, 2, 3, 1]), jnp.array([0, -1, 2, 0]))
PLANES = partial(class_planes, num_classes=CLASSES)
MODULES = {
    "latents": (DCGANGenerator(SHAPE, 2, num_classes=CLASSES), LATENTS),
    "batch normalisation": (DCGANGenerator(SHAPE, 2, num_classes=CLASSES, norm="batch"), LATENTS),
    "resnet": (ResNetGenerator(SHAPE, (2, 2), num_classes=CLASSES), LATENTS),
    "projection": (DCGANCritic(2, conditioning="projection", num_classes=CLASSES), IMAGES),
    "resnet, projection": (ResNetCritic((2, 2), conditioning="projection", num_classes=CLASSES), IMAGES),
    "planes": (DCGANCritic(2, planes=PLANES), IMAGES),
    "half precision": (DCGANCritic(2, planes=PLANES, dtype=jnp.bfloat16), IMAGES),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_label_out_of_range_makes_what_is_computed_of_it_nan(name):
    module, inputs = MODULES[name]
    variables = jax.jit(partial(module.init, train=False))(KEY, inputs, RIGHT)
    apply = jax.jit(partial(module.apply, train=False))
    assert jnp.isfinite(apply(variables, inputs, RIGHT)).all()
    for labels in WRONG:
        outputs = np.asarray(apply(variables, inputs, labels)).reshape(4, -1)
        wrong = np.asarray((labels < 0) | (labels >= CLASSES))
        assert np.isnan(outputs[wrong]).all()
        assert np.isfinite(outputs[~wrong]).all()
        with pytest.raises(ValueError, match=r"labels must be in \[0, 3\); got "):
            module.apply(variables, inputs, labels, train=False)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.uint32])
def test_one_hot(dtype):
    labels = jnp.array([0, 2, 3, 120], dtype)
    np.testing.assert_array_equal(one_hot(labels[:2], 3), np.eye(3)[[0, 2]])
    assert np.isnan(one_hot(labels[2:], 3)).all()
    of_many = one_hot(labels, 1000)  # more than a byte counts
    np.testing.assert_array_equal(of_many.argmax(1), labels)
    np.testing.assert_array_equal(of_many.sum(1), 1.0)
    loss = cross_entropy(jnp.zeros((4, 1000)), labels)
    np.testing.assert_allclose(loss, np.log(1000), rtol=1e-6)
    assert np.isnan(jax.jit(cross_entropy)(jnp.zeros((4, 3)), labels))


def test_labels_from_one_are_told_so():
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\); got 1 to 3: count them from 0"):
        check_range("m", np.array([1, 2, 3]), 3)


def gan(tasks=(), **changes):
    return GAN(**{"generator": DCGANGenerator(SHAPE, 2), "critic": DCGANCritic(2), "latent_size": 2,
                  "loss": hinge(), "generator_optimizer": optax.adam(1e-3),
                  "critic_optimizer": optax.adam(1e-3), "tasks": tasks} | changes)


GANS = {
    "generator": gan(generator=MODULES["latents"][0]),
    "projection": gan(critic=MODULES["projection"][0]),
    "planes": gan(critic=MODULES["planes"][0]),
    "classification": gan((classification(),),
                          critic=DCGANCritic(2, conditioning="classes", num_classes=CLASSES)),
}


def data(low, count=40):
    rng = np.random.default_rng(0)
    labels = (np.arange(count) % CLASSES).astype(np.int32)
    labels[-1] += low  # the last of all is the only one
    return rng.integers(0, 256, (count, *SHAPE)).astype(np.uint8), labels


@pytest.mark.parametrize("name", GANS)
@pytest.mark.parametrize("kind", ["arrays", "set"])
def test_training_refuses_labels_out_of_range_before_it_begins(name, kind, tmp_path):
    images, labels = data(3)
    source = (in_memory(Batch(images, labels)) if kind == "arrays" else
              resident(Dataset("own", images, labels, ("a", "b", "c", "d")), labels=True))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 3\); got "):
        train(GANS[name], source, tmp_path / "run", steps=2, batch_size=4, devices=1)
    assert not (tmp_path / "run").exists()


def test_what_comes_to_light_in_training_ends_it_with_a_word_on_labels(tmp_path):
    images, labels = data(3)
    labels[:] = labels % CLASSES
    labels[np.random.default_rng(1).permutation(40)[:20]] = CLASSES  # half of them, but few in a batch
    source = streaming(Dataset("own", images, labels, ("a", "b", "c", "d")), labels=True)
    with pytest.raises((ValueError, NotFiniteError), match=r"[Ll]abels"):
        train(GANS["projection"], source, tmp_path / "run", steps=20, batch_size=1, devices=1,
              log_every=5)


def test_what_is_drawn_or_judged_for_no_class_is_refused():
    conditional = gan(generator=MODULES["latents"][0], critic=MODULES["projection"][0])
    state = jax.jit(partial(init_state, conditional))(KEY, Batch(IMAGES, RIGHT))
    for call in (partial(sample, conditional, state, KEY, 4), partial(judge, conditional, state, IMAGES),
                 partial(generate, conditional, state, LATENTS)):
        for labels in WRONG:
            with pytest.raises(ValueError, match=r"labels must be in \[0, 3\)"):
                call(labels)


class Counts(nn.Module):
    """Takes any integers as a condition."""

    @nn.compact
    def __call__(self, x, condition, *, train):
        return nn.Dense(1)(x.reshape(len(x), -1)).squeeze(-1) + condition


def test_integers_that_are_no_labels_are_trained_on(tmp_path):
    images, labels = data(1000)
    _, result = train(gan(critic=Counts()), Batch(images, labels), tmp_path / "run", steps=1,
                      batch_size=4, devices=1)
    assert result["steps"] == 1
