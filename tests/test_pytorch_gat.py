"""The transformer GANs' networks against PyTorch's, which were written without a look at ours."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.models import FlowCritic, FlowGenerator, GATCritic, GATGenerator

torch = pytest.importorskip("torch")
gat_torch = pytest.importorskip("benchmarks.gat_torch")

pytestmark = pytest.mark.usefixtures("quick_compilation")
LABELS = np.array([2, 0, 2], np.int32)


def _randomised(network):
    """What starts at 0 or 1, or all alike, hides errors."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            fan_in = weight.numel() / len(weight) if weight.ndim > 1 else 4
            weight += 0.7 * torch.randn_like(weight) / fan_in**0.5
    return network


def _dense(layer):
    return {"kernel": layer.weight.T} | ({} if layer.bias is None else {"bias": layer.bias})


def _gat_block(block):
    attention = block.attention
    shared = {"attention": {"qkv": _dense(attention.qkv), "out": _dense(attention.output),
                            "q_norm": {"scale": attention.query_norm.scale},
                            "k_norm": {"scale": attention.key_norm.scale}},
              "mlp": {"in": _dense(block.feed_forward.inner), "out": _dense(block.feed_forward.outer)}}
    if hasattr(block, "modulation"):
        return shared | {"modulation": {"linear": _dense(block.modulation)}}
    return shared | {"norm_1": {"scale": block.norm1.scale}, "norm_2": {"scale": block.norm2.scale},
                     "scale_1": {"scale": block.layer_scale1}, "scale_2": {"scale": block.layer_scale2}}


def _stacked(trees):
    return jax.tree.map(lambda *leaves: [*leaves], *trees)


def _generator(network):
    outputs, blocks = len(network.output_heads), [_gat_block(block) for block in network.blocks]
    each = len(blocks) // outputs
    stages = [{"blocks": _stacked(blocks[k * each:(k + 1) * each]),
               "head_scale": {"linear": _dense(head.modulation)}, "head": _dense(head.linear)}
              for k, head in enumerate(network.output_heads)]
    return {"class_embedding": {"embedding": network.mapping.class_embedding.weight},
            "style_0": _dense(network.mapping.linear1), "style_1": _dense(network.mapping.linear2),
            "stages": jax.tree.map(lambda *leaves: [*leaves], *stages,
                                   is_leaf=lambda leaf: isinstance(leaf, list))}


def _critic(network):
    mapping = network.class_mapping
    return {"patches": _dense(network.patch_embedding), "cls": network.cls[None, None],
            "blocks": _stacked([_gat_block(block) for block in network.blocks]),
            "norm": {"scale": network.norm.scale}, "features": _dense(network.score),
            "class_embedding": {"embedding": mapping.embedding.weight},
            "class_0": _dense(mapping.linear1), "class_1": _dense(mapping.linear2)}


def _flow(network):
    found = {"class_embedding": {"embedding": network.class_embedding.weight},
             "patches": _dense(network.patch_embedding),
             "blocks": _stacked([{
                 "attention": {"qkv": _dense(block.attention.qkv),
                               "out": _dense(block.attention.output)},
                 "mlp": {"in": _dense(block.inner), "out": _dense(block.outer)},
                 "modulation": {"linear": _dense(block.modulation)}} for block in network.blocks])}
    if hasattr(network, "token"):
        return found | {"token": network.token[None, None], "score": _dense(network.score)}
    return found | {"last_modulation": {"linear": _dense(network.modulation)},
                    "last": _dense(network.linear)}


def _numpy(leaf):
    return (np.stack([_numpy(each) for each in leaf]) if isinstance(leaf, list)
            else leaf.detach().numpy())


HOW = {"patch": 2, "depth": 4, "width": 16, "heads": 2}
THEIRS = (2, 4, 16, 2, 3)  # patch, depth, width, heads, classes
SINGLE = {**HOW, "patch": 1}  # of images of 16x16: as many tokens as make the critic's own stand apart
CASES = {
    "generator": (GATGenerator((4, 4, 2), outputs=2, num_classes=3, **HOW),
                  lambda: gat_torch.Generator(4, 2, *THEIRS, z_size=8, outputs=2), _generator, (8,)),
    "critic": (GATCritic(num_classes=3, table=12, **HOW),
               lambda: gat_torch.Critic(4, 2, *THEIRS, inputs=2, table=12), _critic, (2, 4, 4, 2)),
    "flow generator": (FlowGenerator((4, 4, 2), num_classes=3, **HOW),
                       lambda: gat_torch.FlowGenerator(4, 2, *THEIRS), _flow, (4, 4, 2)),
    "flow critic": (FlowCritic(num_classes=3, **HOW), lambda: gat_torch.FlowCritic(4, 2, *THEIRS),
                    _flow, (4, 4, 2)),
    "critic, 256 tokens and one": (
        GATCritic(num_classes=3, table=12, **SINGLE),
        lambda: gat_torch.Critic(16, 2, 1, *THEIRS[1:], inputs=2, table=12), _critic, (2, 16, 16, 2)),
    "flow critic, 256 tokens and one": (
        FlowCritic(num_classes=3, **SINGLE), lambda: gat_torch.FlowCritic(16, 2, 1, *THEIRS[1:]),
        _flow, (16, 16, 2)),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """Ours as a function of parameters and inputs, both; PyTorch's network; its weights by our names."""
    module, make, named, shape = CASES[request.param]
    network = _randomised(make())
    params = _named(named, network)
    inputs = np.random.default_rng(1).normal(size=(3, *shape)).astype(np.float32)
    drawn = jax.eval_shape(lambda: module.init(jax.random.key(0), inputs, LABELS, train=False))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, drawn["params"])
    rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), {
        kind: values for kind, values in drawn.items() if kind != "params"})

    def apply(params, inputs):
        return module.apply({"params": params, **rest}, inputs, LABELS, train=False)

    return apply, params, inputs, network, named


def _named(named, network):
    """A network's weights, as arrays, by our names."""
    return jax.tree.map(_numpy, named(network), is_leaf=lambda leaf: isinstance(leaf, list))


def _channels_first(x):
    return x if x.ndim < 4 else np.moveaxis(x, -1, -3)


def _theirs(network, inputs):
    network.zero_grad()
    given = torch.from_numpy(_channels_first(inputs).copy()).requires_grad_()
    return given, network(given, torch.from_numpy(LABELS).long())


def _assert_close(ours, theirs, scale=0.0):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * max(np.abs(theirs).max(), scale))


def _assert_gradients(found, network, named, given):
    by_params, by_inputs = found
    _assert_close(_channels_first(by_inputs), given.grad.numpy())
    slopes = copy.deepcopy(network)
    with torch.no_grad():
        for slope, weight in zip(slopes.parameters(), network.parameters(), strict=True):
            slope.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
        largest = max(slope.abs().max().item() for slope in slopes.parameters())
    jax.tree.map(lambda ours, theirs: _assert_close(ours, theirs, 0.01 * largest), by_params,
                 _named(named, slopes))


def test_outputs_and_derivatives_are_those_of_pytorch(case):
    apply, params, inputs, network, named = case

    def total(params, inputs):
        outputs = apply(params, inputs)
        return jnp.sin(outputs).sum(), outputs

    found, outputs = jax.jit(jax.grad(total, (0, 1), has_aux=True))(params, inputs)
    given, theirs = _theirs(network, inputs)
    _assert_close(_channels_first(outputs), theirs.detach().numpy())
    torch.sin(theirs).sum().backward()
    _assert_gradients(found, network, named, given)


def test_second_derivatives_are_those_of_pytorch(case):
    """Of a penalty on the gradient by the inputs, by the inputs and by the parameters."""
    apply, params, inputs, network, named = case

    def penalty(params, inputs):
        gradient = jax.grad(lambda inputs: jnp.sin(apply(params, inputs)).sum())(inputs)
        return jnp.square(gradient).sum()

    value, found = jax.jit(jax.value_and_grad(penalty, (0, 1)))(params, inputs)
    given, theirs = _theirs(network, inputs)
    gradient, = torch.autograd.grad(torch.sin(theirs).sum(), given, create_graph=True)
    (expected := gradient.square().sum()).backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-4)
    _assert_gradients(found, network, named, given)
