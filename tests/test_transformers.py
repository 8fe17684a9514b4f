"""Parts of transformers and the networks made of them: identities, counts, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import FlowCritic, FlowGenerator, GATCritic, GATGenerator
from jaxgan.models.gat import SIZES, as_outputs, last_output
from jaxgan.nn import transformers

KEY = jax.random.key(0)
LATENTS, LABELS = jax.random.normal(jax.random.key(1), (3, 8)), jnp.array([0, 2, 2])
SMALL = {"patch": 2, "depth": 2, "width": 16, "heads": 2}

# Of the published modules in latents of 32x32x4, patches of 2, 1000 classes.
# The generator's hold a patch embedding of 17 x width that is multiplied by zero, and that ours lacks.
PUBLISHED = {"S": (29_263_040, 32_556_160), "B": (116_558_144, 97_135_360),
             "L": (408_486_432, 314_904_544), "XL": (601_956_224, 459_252_544)}


def _count(network, inputs, labels):
    variables = jax.eval_shape(lambda key: network.init(key, inputs, labels, train=False), KEY)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_these_numbers_of_parameters(size):
    depth, width, heads = SIZES[size]
    how = {"patch": 2, "depth": depth, "width": width, "heads": heads, "num_classes": 1000}
    generator = _count(GATGenerator((32, 32, 4), **how), jnp.zeros((3, 64)), LABELS)
    critic = _count(GATCritic(**how), jnp.zeros((3, 4, 32, 32, 4)), LABELS)
    assert (generator + 17 * width, critic) == PUBLISHED[size]
    # With what is aligned with DINOv2-B's 768 features, published as well.
    aligned = _count(GATCritic(align=768, **how), jnp.zeros((3, 4, 32, 32, 4)), LABELS)
    assert aligned == {"S": 39_114_624, "B": 104_480_256, "L": 322_773_728, "XL": 467_383_872}[size]


def test_a_critic_says_where_its_tokens_point_if_asked():
    """A token of its own and one of each patch; its score is the one that it gives without."""
    images = jax.random.normal(KEY, (3, 2, 4, 6, 1))
    critic = GATCritic(align=5, align_width=8, **SMALL)
    variables = critic.init(KEY, images, train=False)
    scores, heads = critic.apply(variables, images, train=True)
    assert heads["tokens"].shape == (3, 1 + 2 * 3, 5)
    plain = {name: leaf for name, leaf in variables["params"].items() if not name.startswith("align")}
    np.testing.assert_array_equal(scores, GATCritic(**SMALL).apply(
        {"params": plain}, images, train=True))


def test_patches_are_cut_and_joined():
    images = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    patches = transformers.patched(images, 2)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].ravel())  # row 1, column 1
    np.testing.assert_array_equal(transformers.joined(patches, 4, 6, 2), images)
    with pytest.raises(ValueError, match="patches of 4x4 don't divide images of 4x6"):
        transformers.patched(images, 4)


def test_rotation_keeps_lengths_and_tells_distances_alone():
    """The product of a query and a key depends on how far they are apart, along each axis."""
    angles = transformers.axial_angles(4, 5, 8, before=1)
    query, key = jax.random.normal(KEY, (2, 8))
    turned = [np.asarray(transformers.rotated(jnp.tile(x, (1, 21, 1, 1)), angles)[0, :, 0])
              for x in (query, key)]
    np.testing.assert_allclose(np.linalg.norm(turned[0], axis=1), np.linalg.norm(query), rtol=1e-5)
    np.testing.assert_array_equal(turned[0][0], query)  # what stands before the grid doesn't turn
    grid = [x[1:].reshape(4, 5, 8) for x in turned]
    for down, across in ((0, 1), (1, 0), (2, 3)):
        products = [grid[0][row, column] @ grid[1][row + down, column + across]
                    for row in range(4 - down) for column in range(5 - across)]
        np.testing.assert_allclose(products, products[0], rtol=1e-4)
    assert abs(grid[0][0, 0] @ grid[1][1, 0] - grid[0][0, 0] @ grid[1][0, 1]) > 1e-3


def test_positions_by_hand():
    found = transformers.positions(2, 3, 8)
    column, row = 2, 1
    by_hand = [f(place * rate) for place in (column, row) for f in (np.sin, np.cos)
               for rate in (1, 0.01)]
    np.testing.assert_allclose(found[row * 3 + column], by_hand, rtol=1e-6)
    for function in (transformers.positions, transformers.axial_angles):
        with pytest.raises(ValueError, match="features that 4 divides; got 6"):
            function(2, 2, 6)


def test_norms_by_hand():
    x = jnp.array([[3.0, -4.0, 0.0, 0.0]])
    np.testing.assert_allclose(transformers.rms_norm(x), np.array(x) / 2.5, rtol=1e-5)
    np.testing.assert_allclose(transformers.rms_norm(x, jnp.arange(4.0)), [[0, -1.6, 0, 0]], rtol=1e-5)
    centred = np.array(x) + 0.25
    np.testing.assert_allclose(transformers.layer_norm(x), centred / np.std(x), rtol=1e-5)


@pytest.mark.usefixtures("quick_compilation")
def test_outputs_are_sums_and_their_average_of_w_follows_the_classes():
    network = GATGenerator((4, 4, 1), outputs=2, num_classes=3, **SMALL)
    variables = network.init(KEY, LATENTS, LABELS, train=False)
    made = network.apply(variables, LATENTS, LABELS, train=False)
    assert made.shape == (3, 2, 4, 4, 1)
    np.testing.assert_array_equal(last_output(made), made[:, 1])
    assert as_outputs(2, made[:, 1]).shape == made.shape
    changed = jax.tree.map(jnp.copy, variables)
    head = changed["params"]["stages"]["head"]  # the second head adds nothing now
    head |= {name: leaf.at[1].set(0.0) for name, leaf in head.items()}
    found = network.apply(changed, LATENTS, LABELS, train=False)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])

    _, state = network.apply(variables, LATENTS, LABELS, train=True, mutable=["batch_stats"])
    averages = state["batch_stats"]["w_average"]
    np.testing.assert_array_equal(averages[1], 0.0)  # nobody is of this class
    moved = {"params": variables["params"], **state}
    _, twice = network.apply(moved, LATENTS[1:], LABELS[1:], train=True, mutable=["batch_stats"])
    again = twice["batch_stats"]["w_average"]
    np.testing.assert_array_equal(again[0], averages[0])
    np.testing.assert_allclose(again[2], (1 + 0.995) * averages[2], rtol=1e-5)
    at_average = network.clone(truncation_psi=0.0).apply(moved, LATENTS, LABELS, train=False)
    np.testing.assert_allclose(at_average[1], at_average[2], rtol=1e-6)  # the class alone decides


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.02)])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_token_apart_is_one_among_the_others(normalised, dtype, tolerance):
    """Attention to all tokens in one array, of which the first doesn't turn."""
    x = jax.random.normal(KEY, (2, 7, 16), dtype)
    angles = transformers.axial_angles(2, 3, 8, before=1)
    attention = transformers.Attention(2, normalised, dtype)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(KEY, leaf.shape),
                          attention.init(KEY, x, angles))
    together = attention.apply(params, x, angles)
    apart = attention.apply(params, x[:, 1:], angles[1:], x[:, :1])
    assert together.dtype == dtype
    np.testing.assert_allclose(*(np.asarray(found, np.float32) for found in (
        jnp.concatenate(apart, 1), together)), atol=tolerance * np.abs(together).max())


@pytest.mark.parametrize("patch", [1, 2])
def test_a_token_stands_apart_where_the_others_fill_matrix_units(patch):
    """256 tokens and one: none of the program's arrays has 257."""
    critic = GATCritic(**{**SMALL, "patch": patch})

    def program(images):
        variables = jax.eval_shape(lambda: critic.init(KEY, images, train=False))
        return str(jax.make_jaxpr(lambda v: critic.apply(v, images, train=False))(variables))

    images = jnp.zeros((2, 16 * patch, 16 * patch, 1))
    assert "256,256]" in program(images)
    assert "257" not in program(images)
    assert "65,65]" in program(images[:, :8 * patch, :8 * patch])


@pytest.mark.parametrize(("tokens", "shape"), [(65, "[195,4]"), (256, "[3,256,4]")])
def test_tokens_are_in_rows_unless_they_fill_matrix_units(tokens, shape):
    layer = transformers.Dense(4)
    x = jnp.zeros((3, tokens, 8))
    params = jax.eval_shape(layer.init, KEY, x)
    product, = (line for line in str(jax.make_jaxpr(layer.apply)(params, x)).splitlines()
                if "dot_general[" in line)
    assert f":f32{shape} = dot_general[" in product


@pytest.mark.parametrize("tokens", [256, 300])
@pytest.mark.parametrize("dtype", [None, jnp.float32, jnp.bfloat16])
def test_dense_is_that_of_flax(dtype, tokens):
    """Its values, gradients, and second derivatives, also of mapped layers."""
    x = jax.random.normal(KEY, (5, tokens, 8))
    layers = [transformers.Dense(4, dtype), nn.Dense(4, dtype=dtype)]
    params = layers[0].init(KEY, x)
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(KEY, leaf.shape), params)
    values, gradients, second = [], [], []
    for layer in layers:
        def loss(params, x, layer=layer):
            return jnp.square(layer.apply(params, x).astype(jnp.float32)).mean()
        values.append(layer.apply(params, x))
        gradients.append(jax.grad(loss)(params, x))
        second.append(jax.grad(lambda x, loss=loss: jnp.square(jax.vmap(
            jax.grad(loss), (None, 0))(params, x)["params"]["bias"]).sum())(x))
    np.testing.assert_array_equal(*values)
    assert values[0].dtype == (dtype or jnp.float32)
    tolerance = 0.02 if dtype == jnp.bfloat16 else 1e-5
    for found in (gradients, second):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max())), *found)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("make", [lambda **how: GATCritic(num_classes=3, table=8, **how),
                                  lambda **how: FlowCritic(num_classes=3, **how)])
def test_what_is_computed_again_is_the_same(make):
    images = jax.random.normal(KEY, (3, 4, 4, 2))
    network = make(**SMALL)
    variables = network.init(KEY, images, LABELS, train=False)
    variables = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), variables)

    def slope(network):
        def penalty(variables):
            gradient = jax.grad(
                lambda images: network.apply(variables, images, LABELS, train=True).sum())(images)
            return jnp.square(gradient).sum()

        return jax.jit(jax.grad(penalty))(variables)

    kept = slope(network)
    for remat in (True, "products"):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), kept,
                     slope(network.clone(remat=remat)))


def test_a_flow_starts_from_nothing_and_takes_its_own_shape():
    network = FlowGenerator((4, 4, 2), **SMALL)
    noise = jax.random.normal(KEY, (3, 4, 4, 2))
    variables = network.init(KEY, noise, train=False)
    np.testing.assert_array_equal(network.apply(variables, noise, train=False), jnp.zeros_like(noise))
    with pytest.raises(ValueError, match=r"latents of the samples' shape, \(4, 4, 2\); got \(8,\)"):
        network.init(KEY, LATENTS, train=False)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("kind", "inputs"), [
    (lambda **how: GATGenerator((4, 4, 2), outputs=2, **how), (8,)),
    (GATCritic, (2, 4, 4, 2)), (lambda **how: FlowGenerator((4, 4, 2), **how), (4, 4, 2)),
    (FlowCritic, (4, 4, 2))], ids=["gat-generator", "gat-critic", "generator", "critic"])
def test_a_program_takes_batches_of_any_size(kind, inputs, classes):
    network = kind(**SMALL, num_classes=classes)
    size = jax.export.symbolic_shape("batch")[0]
    labels = jax.ShapeDtypeStruct((size,), jnp.int32) if classes else None

    def outputs(inputs, labels):
        return network.init_with_output(KEY, inputs, labels, train=False)[0]

    made = jax.eval_shape(outputs, jax.ShapeDtypeStruct((size, *inputs), jnp.float32), labels)
    assert made.shape[0] == size


@pytest.mark.parametrize(("changes", "message"), [
    ({"patch": 3}, "patches must divide height and width; got 3 for 4x4"),
    ({"heads": 3}, "width must be a multiple of 4 times the heads.*got 16 and 3"),
    ({"outputs": 4}, "depth must be a multiple of the outputs; got 2 and 4"),
    ({"depth": 0}, "depth must be at least 1; got 0"),
    ({"remat": "all"}, "remat must be False, True or 'products'; got 'all'"),
    ({"num_classes": 3}, "takes labels, int .batch., as condition")])
def test_what_a_network_cant_be(changes, message):
    network = GATGenerator((4, 4, 1), **{**SMALL, "outputs": 2, **changes})
    with pytest.raises(ValueError, match=message):
        network.init(KEY, LATENTS, train=False)
