"""R3GAN as an experiment: the article's networks by its presets, runs, devices, and what is refused."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import count_parameters

from experiments import launch, open_run, r3gan
from jaxgan import GAN, losses, penalties, train_step
from jaxgan.models import R3GANCritic, R3GANGenerator
from jaxgan.parallel import data_parallel
from jaxgan.steps import init_state
from jaxgan.types import Batch
from tests.test_training import run_here

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(("preset", "size", "generator", "critic"), [
    ("cifar10", 32, 20_781_952, 21_280_512), ("ffhq64", 64, 22_429_824, 22_381_440),
    ("ffhq256", 256, 23_057_952, 23_009_568), ("imagenet32", 32, 82_914_304, 86_548_992),
    ("imagenet64", 64, 103_570_432, 107_205_120)])
def test_presets_have_the_articles_networks_and_schedules(preset, size, generator, critic):
    config = launch.parse(r3gan.experiment, ["--preset", preset])
    gan = r3gan.make_gan(config, (size, size, 3))
    assert count_parameters(gan.generator, (64,)) == generator
    assert count_parameters(gan.critic, (size, size, 3)) == critic
    images = 200e6 if preset.startswith("imagenet") else 20e6
    half = round(images / config.schedule.batch_size / 2)
    loss, optimiser = config.loss, config.optimiser
    middle = gan.penalty.weight(jnp.int32(half))
    assert float(middle) == pytest.approx(0.55 * loss.penalty_weight, rel=1e-3)
    assert float(gan.ema_decay(jnp.int32(half))) == pytest.approx(
        0.5 ** (2 * config.schedule.batch_size / optimiser.final_ema_half_life), rel=1e-4)
    draws = gan.augment.draw(jax.random.split(jax.random.key(0), 2000), jnp.int32(half), ())
    assert float(draws["scale_on"].mean()) == pytest.approx(loss.final_augment_p / 2, abs=0.04)
    assert float(draws["hue_on"].mean()) == pytest.approx(loss.final_augment_p / 4, abs=0.04)


def test_one_width_is_that_of_all_stages():
    for size, stages in ((28, 3), (32, 4), (8, 2), (6, 1)):
        config = r3gan.experiment.configure(width=16)
        assert r3gan.make_gan(config, (size, size, 1)).critic.widths == (16,) * stages


def test_blocks_start_as_the_identity_scaled_as_fixup_scales_them():
    """By the deviation of 100 kernels' numbers and more; five blocks a network."""
    generator = R3GANGenerator((8, 8, 1), (32, 32), blocks=(2, 3))
    params = generator.init(jax.random.key(0), jnp.zeros((1, 64)), train=True)["params"]
    gain = math.sqrt(2 / 1.04) * 5 ** -0.25
    for block in (value for name, value in params.items() if name.startswith("stage")):
        for layer, fan_in in (("Conv_0", 32), ("Conv_1", 9 * 16)):  # four groups of 64 / 4 channels
            deviation = float(block[layer]["kernel"].std())
            assert deviation == pytest.approx(gain / math.sqrt(fan_in), rel=0.1)
        assert not block["Conv_2"]["kernel"].any()


def test_bfloat16_is_inside_and_float32_outside_and_next_to_4x4():
    options = {"widths": (8, 8), "blocks": 1, "cardinality": 2}
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    for module, inputs in ((R3GANCritic(**options), images),
                           (R3GANGenerator((8, 8, 1), **options), images[:, 0, :, 0])):
        variables = jax.tree.map(lambda leaf: leaf + 0.1,
                                 module.init(jax.random.key(1), inputs, train=True))
        dtypes = {}

        def watch(call, arguments, keywords, context, dtypes=dtypes):
            output = call(*arguments, **keywords)
            dtypes[context.module.name] = output.dtype
            return output

        with nn.intercept_methods(watch):
            rounded = module.clone(dtype=jnp.bfloat16).apply(variables, inputs, train=True)
        exact = module.apply(variables, inputs, train=True)
        assert dtypes["stage_0_block_0"] == rounded.dtype == jnp.float32
        assert dtypes["stage_1_block_0"] == jnp.bfloat16
        assert 1e-5 < np.abs(rounded - exact).max() / np.abs(exact).max() < 0.1


@pytest.mark.slow
def test_two_devices_do_what_one_does():
    options = {"widths": (8, 4), "blocks": 1, "cardinality": 2}
    gan = GAN(R3GANGenerator((8, 8, 1), **options), R3GANCritic(**options), 3, losses.relativistic(),
              optax.sgd(0.01), optax.sgd(0.01),
              penalty=penalties.combine(penalties.r1(1.0), penalties.r2(1.0)))
    rng = np.random.default_rng(0)
    batches = Batch(jnp.asarray(rng.normal(size=(1, 4, 8, 8, 1)), jnp.float32))
    state = init_state(gan, jax.random.key(0), jax.tree.map(lambda x: x[0], batches))
    alone, _ = jax.jit(partial(train_step, gan))(state, batches, jax.random.key(1))
    mapped = data_parallel(partial(train_step, gan), devices=jax.devices()[:2], batch_axis=1)
    both, _ = mapped(state, batches, jax.random.key(1))
    for (path, x), y, first in zip(jax.tree_util.tree_leaves_with_path(both), jax.tree.leaves(alone),
                                   jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2e-6, err_msg=str(path))
        assert np.shape(x) == np.shape(first)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["critic", "generator"])
def test_remat_changes_nothing_but_memory(role):
    """By the flag. A processor's compiler takes away the barriers between the two computations of a
    block, and finds them to be one: here it leaves them, as those of other devices do.
    """
    found = []
    for flag in ((), ("--remat",)):
        config = launch.parse(r3gan.experiment, ["--width", "16,16,16", "--blocks", "2", *flag])
        module = getattr(r3gan.make_gan(config, (32, 32, 3)), role)
        x = jax.random.normal(jax.random.key(0), (8, 32, 32, 3) if role == "critic" else (8, 64))
        variables = module.init(jax.random.key(1), x, train=True)
        moved = jax.tree.map(lambda leaf: leaf + 0.01, variables)  # blocks start as the identity
        compiled = jax.jit(jax.grad(lambda variables, module=module, x=x: jnp.sin(
            module.apply(variables, x, train=True)).sum())).lower(moved).compile(
                {"xla_disable_hlo_passes": "cse_barrier_expander"})
        found.append((compiled(moved), compiled.memory_analysis().temp_size_in_bytes))
    (gradients, memory), (same, less) = found
    jax.tree.map(lambda a, b: np.testing.assert_allclose(
        b, a, rtol=0, atol=1e-5 * np.abs(a).max()), gradients, same)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 0
    assert less < 0.8 * memory


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 10])
def test_a_run_is_opened_again(classes, tmp_path):
    flags = ("--width", "8", "--batch-size", "8", "--eval-every", "0", "--devices", "1", "--steps", "1")
    assert run_here("r3gan", *flags, "--classes", classes, "--run-dir", tmp_path / "run") == 0
    run = open_run(tmp_path / "run")
    assert run.game.generator.num_classes == classes
    assert run.state.step == 1


@pytest.mark.parametrize(("flags", "message"), [
    (("--width", "8,8,8,8,8"), "5 stages take images whose height and width are multiples of 16"),
    (("--width", "8,wide"), "width must be whole numbers with commas between, like 64,32"),
    (("--expansion", "0"), "expansion must be from 1 to 64; got 0"),
    (("--image-size", "16"), "image_size 16 is for a folder's images, and those of digits have a size"),
    (("--cardinality", "3"), "cardinality 3 does not divide the 128 channels inside a block of width"),
    (("--cardinality", "3,2,1"), "cardinality must be a positive number, or one for each of the 2"),
    (("--classes", "3"), "classes is 3, but digits has 10: give --classes 10"),
])
def test_networks_that_cannot_be_are_refused(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_here("r3gan", *flags) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())
