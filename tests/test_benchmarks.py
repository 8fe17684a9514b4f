"""The benchmarks' counts against hand-worked ones and XLA's, and that the command writes its table."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks import (
    augmentations,
    critics,
    differences,
    flops,
    lanes,
    networks_jaxgan,
    networks_stock,
    run,
    tpu,
)
from benchmarks.collectives import AllReduce, all_reduces
from benchmarks.settings import (
    AUGMENTATIONS,
    CONSTRAINTS,
    CRITICS,
    LANES,
    NETWORKS,
    PRESETS,
    SETTINGS,
    WGAN_GP,
    Penalised,
)
from jaxgan import Batch, critic_step, game, init_state, keys, train_step
from jaxgan.models import GATCritic, GATGenerator, MLPCritic
from jaxgan.models.published import from_published

ROOT = Path(__file__).resolve().parents[1]

# Of the generator and of the critic.
PARAMETERS = {"mnist_dcgan": (1_554_177, 1_030_145), "cifar_dcgan": (5_179_907, 4_114_689),
              "cifar_resnet": (1_204_483, 1_053_825), "toy_mlp": (527_874, 527_361),
              "r3gan": (125_920, 121_888), "stylegan2": (263_987, 288_993),
              "pix2pix": (1_830_563, 43_729), "cyclegan": (990_022, 85_922),
              "gat": (1_180_136, 985_640)}

SMALL = {"r3gan": {"sample_shape": (4, 4, 3), "width": "8", "cardinality": "2"},
         "stylegan2": {"sample_shape": (8, 8, 3), "base": 64, "w_size": 9, "style_mixing": 0.0,
                       "noise": "constant"},
         "pix2pix": {"sample_shape": (8, 8, 3), "width": 4, "stages": 3, "halvings": 1},
         "gat": {"sample_shape": (4, 4, 3), "width": 16, "heads": 2, "patch": 2, "outputs": 2,
                 "class_width": 8, "max_gradient_norm": 0.0}}


def _counted_by_xla(function, *arguments):
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def test_operations_by_hand():
    # A 3x3 convolution, 16 -> 32 channels, 8x8 outputs: 8 * 8 outputs of 32 sums of 3 * 3 * 16 products.
    assert flops.conv("", 8, 3, 16, 32).flops == 589_824
    toy = SETTINGS["toy_mlp"]
    generator, critic = flops.networks(toy)
    assert flops.forward(generator) == 2 * (2 * 512 + 512 * 512 + 512 * 512 + 512 * 2) == 1_052_672
    assert flops.forward(critic) == 2 * (2 * 512 + 512 * 512 + 512 * 512 + 512) == 1_051_648
    # n = 5 updates of G + 10 D - 2 D_in, one of 3 G - G_in + 2 D, on 256 samples; D_in = G_in = 2,048.
    assert flops.critic_update(generator, critic) == 1_052_672 + 10 * 1_051_648 - 2 * 2_048
    assert flops.generator_update(generator, critic) == 3 * 1_052_672 - 2_048 + 2 * 1_051_648
    assert flops.iteration(toy) == 256 * (5 * 11_565_056 + 5_259_264) == 16_149_643_264
    mnist = flops.networks(SETTINGS["mnist_dcgan"])
    assert flops.forward(mnist[1]) == 2 * (
        14 * 14 * 64 * 25 + 7 * 7 * 128 * 25 * 64 + 4 * 4 * 256 * 25 * 128 + 4 * 4 * 256)


def test_operations_against_xla():
    # XLA leaves products with padding out, and counts biases and activations: hence VALID, and 3 %.
    layer = nn.Conv(32, (3, 3), padding="VALID", use_bias=False)
    x = jnp.zeros((2, 10, 10, 16))
    variables = layer.init(jax.random.key(0), x)
    assert _counted_by_xla(layer.apply, variables, x) == 2 * flops.conv("", 8, 3, 16, 32).flops

    setting = dataclasses.replace(SETTINGS["toy_mlp"], width=64, batch_size=32)
    gan, batch = networks_jaxgan.make_gan(setting), Batch(jnp.zeros((32, 2)))
    state = init_state(gan, jax.random.key(0), batch)
    generator, critic = flops.networks(setting)
    forward = _counted_by_xla(partial(gan.critic.apply, train=True), state.critic.variables,
                              batch.samples)
    assert 1 <= forward / (32 * flops.forward(critic)) < 1.03
    # The penalty's derivative too. Here the optimiser and the random draws come on top.
    update = _counted_by_xla(partial(critic_step, gan), state, batch, jax.random.key(0))
    assert 1 <= update / (32 * flops.critic_update(generator, critic)) < 1.06


@pytest.mark.parametrize("name", ["toy_mlp", "mnist_dcgan"])
def test_operations_of_what_is_traced_are_those_by_hand(name):
    """Where nothing is saved by other algorithms. Of random draws and averages none are products."""
    setting = dataclasses.replace(SETTINGS[name], batch_size=4)
    steps = game(networks_jaxgan.make_gan(setting))
    batches = Batch(jnp.zeros((setting.n_critic, 4, *setting.sample_shape)))
    state = jax.eval_shape(steps.init, jax.random.key(0), Batch(batches.samples[0]))
    found = tpu.counted(steps.step, state, batches, jax.random.key(0))
    assert found == pytest.approx(flops.iteration(setting), rel=0.01)


def test_of_what_is_traced_only_what_is_used_counts():
    x, product = jnp.ones((3, 3)), 2 * 3 * 3 * 3

    def scanned(x):
        def body(x, _):
            unused = x @ x @ x
            return x @ x, unused

        return jax.lax.scan(body, x, None, length=5)[0]

    assert tpu.counted(scanned, x) == 5 * product
    assert tpu.counted(lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, lambda x: x @ x, x), x) == product
    with pytest.raises(ValueError, match="products are in a loop whose length isn't known"):
        tpu.counted(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), x)
    # A counter is no product.
    assert tpu.counted(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x + 1, x) @ x,
                       x) == product


def test_operations_of_transformers_by_hand():
    setting = dataclasses.replace(PRESETS["gat_s2"], depth=4, width=48, class_width=40)
    # A block's 256 tokens: 3 + 1 + 2 * 128/48 + 128/48 times 48 x 48 weights, and twice 256 x 256 x 48.
    block = 2 * 256 * (4 * 48 * 48 + 3 * 128 * 48) + 2 * 2 * 256 * 256 * 48
    generator, critic = flops.networks(setting)
    assert flops.forward(generator) == 4 * block + 2 * (
        128 * 48 + 48 * 48 + 4 * 48 * 192 + 4 * 48 * 48 + 4 * 256 * 48 * 16)
    labels, latents = jnp.zeros(2, jnp.int32), jnp.zeros((2, 64))
    images = jnp.zeros((2, 4, 32, 32, 4))
    own_value = 4 * 2 * 257 * 48  # which stands apart, so that no product mixes it in
    for module, inputs, layers, apart in (
            (GATGenerator((32, 32, 4), 2, 4, 48, 3, num_classes=10), latents, generator, 0),
            (GATCritic(2, 4, 48, 3, num_classes=10, table=40), images, critic, own_value)):
        def apply(key, module=module, inputs=inputs):
            return module.init_with_output(key, inputs, labels, train=True)[0]

        assert tpu.counted(apply, jax.random.key(0)) == 2 * (flops.forward(layers) - apart)
    g, d = flops.forward(generator), flops.forward(critic)
    on_inputs = 2 * 128 * 48 + 4 * 2 * 256 * 64 * 48
    assert flops.gat_iteration(generator, critic) == 4 * g + 15 * d - on_inputs


def test_all_reduces_are_counted_as_often_as_they_run():
    loop = 'while(%t), condition=%c, body=%b, backend_config={"known_trip_count":{"n":"5"}}'
    program = "\n".join((
        "HloModule m",
        "%sum (x: f32[], y: f32[]) -> f32[] {", "  ROOT %s = f32[] add(%x, %y)", "}",
        "%b (p: (s32[], f32[4])) -> (s32[], f32[4]) {",
        "  %r = (f32[4]{0}, /*index=1*/bf16[2,3]{1,0}, f32[]) all-reduce(%g, %h, %i), to_apply=%sum, "
        'metadata={op_name="jit(f)/psum"}', "}",
        "%c (p: (s32[], f32[4])) -> pred[] {", "  ROOT %l = pred[] compare(%i, %n)", "}",
        "ENTRY %main (p: f32[4]) -> f32[4] {",
        f"  %w = (s32[], f32[4]) {loop}", "  ROOT %o = f32[4]{0} all-reduce(%q), to_apply=%sum", "}"))
    assert all_reduces(program) == [AllReduce(5, 3, 4 * 4 + 6 * 2 + 4, "jit(f)/psum"),
                                    AllReduce(1, 1, 16, "")]
    with pytest.raises(ValueError, match="length isn't known"):
        all_reduces(program.replace("known_trip_count", "unknown"))


@pytest.mark.parametrize("name", NETWORKS)
def test_jaxgan_networks_have_these_numbers_of_parameters(name):
    setting = SETTINGS[name]
    samples = jnp.zeros((4, *setting.sample_shape))
    condition = {"pix2pix": samples, "cyclegan": samples, "transformers": jnp.arange(4)}
    example = Batch(samples, condition.get(setting.family))
    state = jax.eval_shape(game(networks_jaxgan.make_game(setting)).init, jax.random.key(0), example)
    assert tuple(sum(x.size for x in jax.tree.leaves(network.params))
                 for network in (state.generator, state.critic)) == PARAMETERS[name]


@pytest.mark.parametrize("name", WGAN_GP)
def test_stock_networks_have_these_numbers_of_parameters(name):
    setting = SETTINGS[name]
    inputs = ((1, setting.latent_size), (1, *setting.sample_shape))
    shapes = [jax.eval_shape(partial(network.init, jax.random.key(0)), jnp.zeros(shape))["params"]
              for network, shape in zip(networks_stock.make_networks(setting), inputs, strict=True)]
    assert tuple(sum(x.size for x in jax.tree.leaves(params)) for params in shapes) == PARAMETERS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_pytorch_networks_have_these_numbers_of_parameters(name):
    pytest.importorskip("torch")
    from benchmarks import training_torch

    setting = dataclasses.replace(SETTINGS[name], examples=min(SETTINGS[name].examples, 8))
    loop = training_torch.training(setting)
    assert tuple(sum(p.numel() for p in network.parameters())
                 for network in (loop.generator, loop.critic)) == PARAMETERS[name]


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", ["r3gan", "pix2pix", "gat",
                                  pytest.param("stylegan2", marks=pytest.mark.slow)])
def test_an_iteration_is_pytorchs(name, monkeypatch):
    """Both networks' losses and gradients, of the same weights, samples and random numbers.

    The generator's come after the critic's update. All that is due now and then is due in the first.
    """
    torch = pytest.importorskip("torch")
    from benchmarks import training_torch
    from tests import test_pytorch_gat as transformers
    from tests import test_pytorch_translation as translation

    setting = dataclasses.replace(SETTINGS[name], **SMALL[name], batch_size=4, examples=4)
    mapped = {"pix2pix": (translation._unet, translation._critic),
              "gat": (transformers._generator, transformers._critic)}.get(name)
    loop = training_torch.training(setting)
    _stir(loop)
    random = np.random.default_rng(0)
    samples, images = random.uniform(-1, 1, (2, 4, *setting.sample_shape)).astype(np.float32)
    latents = random.normal(size=(4, 64)).astype(np.float32)
    labels = np.array([3, 0, 9, 3], np.int32)
    condition = {"pix2pix": images, "gat": labels}.get(name)

    gan = networks_jaxgan.make_gan(setting)
    if name != "pix2pix":
        gan = dataclasses.replace(gan, latent_size=None, prior=lambda keys: jnp.asarray(latents))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(
        partial(init_state, gan), jax.random.key(0), Batch(samples, condition)))
    changes = {}
    for i, role in enumerate(("generator", "critic")):
        network, module = getattr(state, role), getattr(loop, role)
        variables = (network.variables | {
            "params": translation._mapped(translation._numpy, mapped[i](module))}
                     if mapped else from_published(getattr(gan, role), network.variables, {
                         path: values.numpy() for path, values in module.state_dict().items()}))
        params = variables.pop("params")
        changes[role] = network._replace(params=params, stats=variables, opt_state=getattr(
            gan, f"{role}_optimizer").init(params))
    monkeypatch.setattr(keys, "normal", lambda keys, shape: jnp.ones((len(keys), *shape)))
    _, ours = jax.jit(partial(train_step, gan))(
        state._replace(**changes), jax.tree.map(lambda x: x[None], Batch(samples, condition)),
        jax.random.key(1))

    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    loop.inputs = lambda count: torch.from_numpy(latents)
    loop.draw_labels = lambda count: torch.from_numpy(labels).long()
    _assert_iteration(loop, ours, samples, images, monkeypatch)


def _stir(loop):
    """Changes a loop's networks: what starts at 0 hides errors."""
    import torch

    with torch.no_grad():
        for weight in (*loop.generator.parameters(), *loop.critic.parameters()):
            fan_in = weight.numel() / (len(weight) if weight.ndim else 1)
            weight += 0.5 * torch.randn_like(weight) / max(fan_in, 4) ** 0.5


def _assert_iteration(loop, ours, samples, images, monkeypatch):
    """That a PyTorch loop's losses and gradients, on these samples, are those of our metrics."""
    import torch

    from benchmarks import training_torch

    theirs, minimize = [], training_torch.minimize

    def record(optimizer, loss, *most):
        minimize(optimizer, loss, *most)
        gradients = [weight.grad.norm() for weight in optimizer.param_groups[0]["params"]
                     if weight.grad is not None]
        theirs.extend((loss.item(), torch.stack(gradients).norm().item()))

    def channels_first(images):
        return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())

    monkeypatch.setattr(training_torch, "minimize", record)
    loop.draw = lambda: channels_first(samples)
    loop.draw_pair = lambda: (channels_first(images), channels_first(samples))
    loop.iterate()
    ours = [ours[f"{role}/{what}"] for role in ("critic", "generator")
            for what in ("loss", "gradient_norm")]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)


@pytest.mark.usefixtures("quick_compilation")
def test_an_iteration_of_a_cyclegan_is_pytorchs(monkeypatch):
    """As above, of both generators and both critics; the history has room for all that is made."""
    pytest.importorskip("torch")
    from benchmarks import training_torch
    from tests import test_pytorch_translation as translation

    setting = dataclasses.replace(SETTINGS["cyclegan"], sample_shape=(16, 16, 3), width=2, blocks=1,
                                  halvings=1, batch_size=2, examples=2)
    loop = training_torch.training(setting)
    _stir(loop)
    samples, images = np.random.default_rng(0).uniform(-1, 1, (2, 2, 16, 16, 3)).astype(np.float32)
    made = networks_jaxgan.make_game(setting)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(
        made.init, jax.random.key(0), Batch(samples, images)))

    def with_weights(network, names, named, modules):
        params = {name: translation._mapped(translation._numpy, named(modules[into]))
                  for name, into in names.items()}
        assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, network.params)
        return network._replace(params=params)

    state = state._replace(
        generator=with_weights(state.generator, {"backward": "source", "forward": "target"},
                               translation._resnet, loop.generator),
        critic=with_weights(state.critic, {"source": "source", "target": "target"},
                            translation._critic, loop.critic))
    _, ours = jax.jit(made.step)(
        state, jax.tree.map(lambda x: x[None], Batch(samples, images)), jax.random.key(1))
    _assert_iteration(loop, ours, samples, images, monkeypatch)


def test_a_history_keeps_what_there_is_room_for_and_then_shows_old_ones():
    torch = pytest.importorskip("torch")
    from benchmarks.training_torch import History

    torch.manual_seed(0)
    history, images = History(3), torch.arange(600.0).reshape(600, 1, 1, 1)
    assert torch.equal(history.shown(images[:3]), images[:3])
    shown = history.shown(images[3:]).flatten()
    is_new = shown == images[3:].flatten()
    assert 0.4 < is_new.float().mean() < 0.6
    assert (shown[~is_new] < images[3:].flatten()[~is_new]).all()
    assert len(shown[~is_new].unique()) == len(shown[~is_new])  # each is shown once as an old one


def test_lazy_terms_come_round_in_whole_cycles():
    assert SETTINGS["stylegan2"].cycle == 16
    counts, asked = {}, []

    class Column:
        def timed(self, method, count):
            asked.append(count)
            return 0.01 * count, None

    run._calibrate(counts, Column(), "column", 0.01, 1.0, 16)
    assert asked == [16]
    assert counts == {"column": 96}


def test_each_repeat_is_in_the_report_once_it_is_done(tmp_path, monkeypatch):
    """Whoever interrupts a long measurement keeps what is measured."""
    class Column(contextlib.AbstractContextManager):
        pid = os.getpid()

        def __init__(self, *arguments, **options):
            pass

        def __exit__(self, *_):
            pass

        def timed(self, method, count):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 6:  # after the first, one to calibrate, and three repeats
                raise KeyboardInterrupt
            return 0.5 * count, None

        def call(self, method, *arguments):
            return {"build": {"compile": 1.0}, "device_memory": 0, "devices": {
                "platform": "cpu", "kind": "cpu", "count": 1, "peaks": {}}}[method]

        def peak_memory(self):
            return 2**20

    monkeypatch.setattr(run, "Child", Column)
    out = tmp_path / "out.md"
    assert run.main(["--networks", "tiny", "--columns", "torch-float32", "--tables", "iterations",
                     "--repeats", "9", "--seconds", "1", "--out", str(out)]) == 130
    assert "| 2 [2, 2] | 0.5 | 1 [1, 1] |" in out.read_text()
    assert "| 3 x 2 |" in out.read_text()


@pytest.mark.slow
def test_run_writes_its_tables(tmp_path):
    out = tmp_path / "RESULTS.md"
    subprocess.run([sys.executable, "-m", "benchmarks.run", "--networks", "tiny", "--columns",
                    "jaxgan-float32", "--tables", "iterations", "sampling", "--repeats", "2",
                    "--seconds", "0.05", "--out", str(out)],
                   cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    text = out.read_text()
    assert "python -m benchmarks.run --networks tiny" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| jaxgan float32")]
    relative, pace, sampling = rows
    assert relative[1].startswith("- (1)")  # PyTorch was not asked for, and a note says so
    assert "(1) PyTorch was not measured" in text
    assert float(pace[1].split()[0].replace(",", "")) > 0
    assert float(sampling[1].split()[0].replace(",", "")) > 0


def test_the_command_loads_no_framework():
    """Each column's process begins as it does, and measures the memory of its own framework alone."""
    code = "import sys, benchmarks.run; print({'flax', 'jax', 'torch'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, check=True,
                          capture_output=True).stdout == "set()\n"
    assert critics.MADE.keys() == CRITICS.keys()
    assert lanes.MADE.keys() == LANES.keys()
    assert augmentations.MADE.keys() == AUGMENTATIONS.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_critics_are_constrained_in_each_way(monkeypatch):
    small = partial(MLPCritic, (8, 8), activation="maxmin"), (16, 2)
    monkeypatch.setitem(critics.MADE, "small", small)
    timed = critics.Critics("small")
    assert all(timed.seconds(way, 3) > 0 for way in CONSTRAINTS)
    kernels = {way: np.asarray(timed.states[way].critic.params["Dense_1"]["kernel"])
               for way in CONSTRAINTS}
    stats = {way: "batch_stats" in timed.states[way].critic.variables for way in CONSTRAINTS}
    assert [way for way, has in stats.items() if has] == ["spectral", "orthonormal"]
    assert (kernels["penalty"] != kernels["none"]).any()
    assert np.abs(kernels["clip"]).max() <= 0.01 < np.abs(kernels["none"]).max()
    far = {way: np.abs(kernel.T @ kernel - np.eye(8)).max() for way, kernel in kernels.items()}
    assert far["orthonormal"] < 1e-4 < 1e-1 < far["none"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_a_critic_is_shown_images_changed_in_each_way():
    timed = augmentations.Augmentations(4, (4, 16, 16, 3))
    assert all(timed.seconds(way, 1) > 0 for way in AUGMENTATIONS)
    kernels = [np.asarray(state.critic.params["Conv_0"]["kernel"]) for state in timed.states.values()]
    assert all((kernel != kernels[0]).any() for kernel in kernels[1:])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_differences_are_near_the_gradient_in_more_draws_the_more(monkeypatch):
    small = Penalised(title="MLP", experiment="gaussians", preset="paper", changes=(("width", 16),),
                      shape=(2,), batch_size=64)
    monkeypatch.setitem(differences.PENALISED, "small", small)
    timed = differences.Differences("small")
    assert all(timed.seconds(way, 1) > 0 for way in differences.WAYS)
    apart = timed.apart(16)
    assert 0 < apart["error"] < 0.5
    assert 0 < apart["one"] < apart["many"] <= 1


@pytest.mark.slow
def test_several_runs_are_timed_beside_one():
    timed = lanes.Lanes("toy", 2)
    assert all(timed.seconds(way, 2) > 0 for way in ("one", "together"))
    states = [timed.lone, *timed.states]
    assert [int(state.step) for state in states] == [2, 2, 2]
    kernels = [np.asarray(state.critic.params["Dense_0"]["kernel"]) for state in states]
    np.testing.assert_allclose(kernels[1], kernels[0], atol=2e-4)  # of the same seed
    assert np.abs(kernels[2] - kernels[0]).max() > 1e-2


@pytest.mark.slow
def test_reporting_is_timed_between_checkpoints():
    from benchmarks.reporting import Reporting

    measured = Reporting({"width": 8, "batch_size": 8, "n_critic": 1, "checkpoint_every": 4,
                          "log_every": 2, "sample_every": 0}).measure(2)
    assert [len(measured["train"]), len(measured["bare"]), measured["period"]] == [2, 2, 4]
    assert min(measured["train"] + measured["bare"]) > 0
