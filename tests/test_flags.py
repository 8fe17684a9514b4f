"""Schedules, optimisers, packs: what flags are turned into, against values worked out by hand."""

import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import evaluate, flags, gaussians, launch, measuring, opening, sample, settings
from jaxgan import penalties, tasks
from jaxgan.augment import packed
from jaxgan.evaluation import Protocol, Samples
from jaxgan.keys import example_keys
from jaxgan.models import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator
from jaxgan.networks import moving_average
from jaxgan.steps import critic_step, game, init_state
from jaxgan.types import Batch
from tests.test_experiments import tool
from tests.test_training import TINY, rows, run_here
from tests.tiny import Critic, measured, points, tiny

KEY = jax.random.key(7)


def make(**changes):
    """A small GAN by its settings."""
    return flags.make_gan(settings.replace(flags.Config(), **changes), MLPGenerator(hidden=(8,)),
                          MLPCritic(hidden=(8,)), 2)


def optimiser(network="critic", **changes):
    """A network's optimiser by its settings, with one update an iteration unless they say otherwise."""
    config = settings.replace(flags.Config(), **{"n_critic": 1, **changes})
    return flags.make_optimizer(config, network)


# Schedules.

@pytest.mark.parametrize(("shape", "shares"), [
    ("linear", (1.0, 0.75, 0.5, 0.0, 0.0)),
    ("cosine", (1.0, (1 + math.sqrt(0.5)) / 2, 0.5, 0.0, 0.0)),
    ("late", (1.0, 1.0, 1.0, 0.0, 0.0))])
@pytest.mark.parametrize(("first", "last"), [(0.4, 0.0), (0.06, 0.0006), (0.0, 3.0)])
def test_schedules_by_hand(shape, shares, first, last):
    schedule = jax.jit(flags.scheduled(first, last, 100, shape))
    for count, share in zip((0, 25, 50, 100, 1000), shares, strict=True):
        assert float(schedule(jnp.int32(count))) == pytest.approx(
            share * first + (1 - share) * last, rel=1e-5, abs=1e-7)


def test_a_cosine_to_zero_is_optaxs():
    ours, theirs = flags.scheduled(2e-3, 0.0, 70, "cosine"), optax.cosine_decay_schedule(2e-3, 70)
    counts = jnp.arange(100)
    np.testing.assert_allclose(jax.vmap(ours)(counts), jax.vmap(theirs)(counts), rtol=1e-5, atol=1e-9)


def test_a_late_schedule_stays_for_half_and_then_falls_evenly():
    schedule = flags.scheduled(0.4, 0.1, 100, "late")
    assert [float(schedule(count)) for count in (0, 49, 50, 60, 75, 99)] == pytest.approx(
        [0.4, 0.4, 0.4, 0.34, 0.25, 0.106])


@pytest.mark.parametrize("shape", ["linear", "cosine", "late"])
def test_schedules_that_stay_or_outlast_any_count(shape):
    assert flags.scheduled(0.3, 0.1, 0, shape)(50) == 0.3
    assert float(flags.scheduled(0.3, 0.1, 10**12, shape)(jnp.int32(5))) == pytest.approx(0.3)


def test_the_critics_rate_falls_by_its_own_updates():
    """Over two iterations of two updates each; Adam moves by the rate if the gradient stays."""
    optimizer = optimiser(learning_rate=0.1, decay_steps=2, decay="cosine", n_critic=2)
    state, moved = optimizer.init(np.float32(0)), []
    for _ in range(5):
        update, state = optimizer.update(np.float32(1), state)
        moved.append(-float(update))
    assert moved == pytest.approx([0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5)),
                                   0.0], rel=1e-4, abs=1e-7)


def test_rates_rise_then_fall_to_their_final_values_by_images():
    """Over 40 images in batches of 8, of one generator update each; two of them warm up."""
    optimizer = optimiser("generator", learning_rate=0.4, final_learning_rate=0.1, schedule_images=40,
                          batch_size=8, warmup_steps=2, n_critic=3)
    state, moved = optimizer.init(np.float32(0)), []
    for _ in range(7):
        update, state = optimizer.update(np.float32(1), state)
        moved.append(-float(update))
    assert moved == pytest.approx([0.2, 0.34, 0.28, 0.22, 0.16, 0.1, 0.1], rel=1e-4)
    critic = optimiser(learning_rate=0.6, warmup_steps=2, n_critic=3)  # over six of its updates
    update, _ = critic.update(np.float32(1), critic.init(np.float32(0)))
    assert -float(update) == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize(("moving", "betas"), [
    ({"beta1": 0.0, "final_beta2": 0.99}, ((0.0, 0.0), (0.9, 0.99))),
    ({"beta1": 0.5, "final_beta1": 0.1}, ((0.5, 0.1), (0.9, 0.9))),
    ({"beta1": 0.5, "final_beta1": 0.9, "final_beta2": 0.5}, ((0.5, 0.9), (0.9, 0.5)))])
def test_adams_decays_change_as_pytorchs_do_when_they_are_set(moving, betas):
    """PyTorch corrects the first steps by the decay of the day, as optax does."""
    torch = pytest.importorskip("torch")
    gradients = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    theirs, ours = torch.zeros(3, requires_grad=True), jnp.zeros(3)
    other = torch.optim.Adam([theirs], lr=1e-2, betas=(betas[0][0], betas[1][0]), eps=1e-8)
    optimizer = optimiser(learning_rate=1e-2, final_learning_rate=1e-2, beta2=0.9, decay="cosine",
                          decay_steps=8, **moving)
    state = optimizer.init(ours)
    for count, gradient in enumerate(gradients):
        share = 0.5 * (1 + math.cos(math.pi * min(count / 8, 1)))
        other.param_groups[0]["betas"] = tuple(last + (first - last) * share for first, last in betas)
        theirs.grad = torch.from_numpy(gradient.copy())
        other.step()
        updates, state = jax.jit(optimizer.update)(jnp.asarray(gradient), state)
        ours = optax.apply_updates(ours, updates)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4)


def test_the_average_forgets_half_in_its_half_life():
    """From 0 to 40 images over 10 iterations of 8; and at most a quarter of the images seen."""
    decay = make(ema_half_life=0.0, final_ema_half_life=40.0, schedule_images=80, batch_size=8).ema_decay
    np.testing.assert_allclose([decay(jnp.int32(i)) for i in (0, 5, 10, 99)],
                               [0.0, 2 ** (-8 / 20), 2 ** (-8 / 40), 2 ** (-8 / 40)], rtol=1e-5)
    decay = make(ema_half_life=40.0, ema_ramp=0.25, batch_size=8).ema_decay
    np.testing.assert_allclose([decay(jnp.int32(i)) for i in (0, 4, 20, 99)],
                               [0.0, 0.5, 2 ** (-8 / 40), 2 ** (-8 / 40)], rtol=1e-5)
    average = moving_average({"w": jnp.array([1.0])}, {"w": jnp.array([3.0])}, decay, jnp.int32(4))
    np.testing.assert_allclose(average["w"], [2.0], rtol=1e-6)


@pytest.mark.parametrize("penalty", ["gradient_penalty", "r1", "r1_r2"])
@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_the_penaltys_weight_falls_by_iterations(penalty, decay):
    gan = make(penalty=penalty, penalty_weight=4.0, final_penalty_weight=1.0, decay=decay,
               decay_steps=20, n_critic=3)
    batch = points(8)
    state = init_state(gan, KEY, batch)
    step = jax.jit(lambda state: critic_step(gan, state, batch, KEY)[1]["critic/penalty"])
    found = np.array([step(state._replace(step=jnp.int32(i))) for i in (0, 10, 20, 50)])
    np.testing.assert_allclose(found / found[-1], [4.0, 2.5, 1.0, 1.0], rtol=1e-5)
    # At its end it is what a penalty of that weight is from the start.
    fixed = make(penalty=penalty, penalty_weight=1.0)
    np.testing.assert_allclose(found[-1], critic_step(fixed, state, batch, KEY)[1]["critic/penalty"],
                               rtol=1e-5)


def test_a_fixed_weight_of_both_penalties_is_as_before():
    real, fake = points(8).samples, points(8, seed=4).samples
    critic = Critic()
    variables = critic.init(KEY, real, train=False)
    found, before = (measured(term, lambda x: critic.apply(variables, x, train=False), real, fake, KEY)
                     for term in (flags.PENALTIES["r1_r2"](0.3),
                                  penalties.combine(penalties.r1(0.3), penalties.r2(0.3))))
    assert found.value == before.value
    assert flags.PENALTIES["r1_r2"](0.3).weight == 1.0


@pytest.mark.parametrize(("changes", "message"), [
    ({"decay": "cosine"}, "decay_steps is 0, .* give --decay-steps, or --decay linear$"),
    ({"decay": "late"}, "decay_steps is 0, .* give --decay-steps, or --decay linear$"),
    ({"final_penalty_weight": 1.0}, "decay_steps is 0, .* or --final-penalty-weight None$"),
    ({"decay": "cosine", "final_penalty_weight": 1.0}, "--decay linear --final-penalty-weight None$"),
    ({"final_penalty_weight": -1.0, "decay_steps": 9}, "final_penalty_weight must not be negative; got"),
    ({"final_penalty_weight": math.nan, "decay_steps": 9}, "final_penalty_weight must not be negative"),
    ({"final_learning_rate": 1e-5}, "decay_steps is 0, .* or --final-learning-rate 0$"),
    ({"final_beta2": 0.99}, "decay_steps is 0, .* or --final-beta2 None$"),
    ({"final_beta1": 0.9, "decay_steps": 9, "optimizer": "rmsprop"}, "final_beta1 is for adam; the opt"),
    ({"final_beta2": 1.0, "decay_steps": 9}, r"final_beta2 must be in \[0, 1\); got 1.0"),
    ({"final_beta2": 0.9, "decay_steps": 9, "optimizer": "rmsprop"}, "final_beta2 is for adam; the opt"),
    ({"decay_steps": 9, "schedule_images": 90}, "decay_steps is 9 and schedule_images 90, which say"),
    ({"ema_decay": 0.9, "ema_half_life": 90.0}, "ema_decay and ema_half_life say the same: give one"),
    ({"ema_ramp": 0.1}, "ema_ramp limits a half-life: give --ema-half-life"),
    ({"ema_half_life": -1.0}, "ema_half_life must not be negative; got -1"),
    ({"warmup_steps": -1}, "warmup_steps must not be negative; got -1"),
    ({"augment_p": 0.5}, "augment_p is for --augment diffaugment or ada; got 0.5"),
    ({"augment": "ada", "augment_p": 1.5}, r"augment_p must be in \[0, 1\]; got 1.5"),
    ({"augment": "ada", "augment_operations": "xflip,hue=much"}, "cutout=0.5; got 'hue=much'"),
    ({"augment": "diffaugment", "augment_operations": "xflip"}, "no operation 'xflip': choose from"),
    ({"augment": "ada", "final_augment_p": 0.5}, "decay_steps is 0, .* or --final-augment-p None$"),
    ({"augment": "ada", "augment_images": 0.0}, "augment_images must be above 0; got 0.0"),
    ({"augment": "ada", "augment_images": 9e5, "augment_p": 0.2},
     "augment_images is for --augment ada .* got 900000 for ada with a fixed one"),
    ({"augment": "ada", "augment_images": 9e5, "final_augment_p": 0.2, "decay_steps": 9}, "a fixed one"),
    ({"augment": "diffaugment", "augment_images": 9e5}, "follows the critic; .* for diffaugment"),
    ({"pack": 0}, "pack must be at least 1; got 0"),
    ({"top_k": 0.0}, "top_k must be above 0 and at most 1; got 0.0"),
    ({"top_k": 0.5, "top_k_steps": 0}, "top_k_steps must be above 0 and at most 2147483647; got 0"),
    ({"top_k_decay": 0.9}, "top_k_decay is for --top-k; got 0.9 without it"),
    ({"top_k": 0.5, "loss": "relativistic"}, "top_k is for losses whose generator takes each fake"),
])
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_the_share_of_fakes_by_its_flags():
    share = make(top_k=0.3, top_k_decay=0.5, top_k_steps=10).loss.share
    assert [float(share(jnp.int32(step))) for step in (0, 10, 99)] == pytest.approx([1.0, 0.5, 0.3])
    assert make().loss.share is None


# Augmentation.

def test_what_a_task_compares_images_with_does_not_move_along():
    config = settings.replace(flags.Config(), augment="ada")
    parts = (config, MLPGenerator((8, 8, 1), (8,)), MLPCritic((8,), heads=(("class", 3),)), 2)
    flags.make_gan(*parts, tasks=(tasks.classification(),))
    with pytest.raises(ValueError, match="augment would move images away from what reconstruction comp"):
        flags.make_gan(*parts, tasks=(tasks.reconstruction(),))


@pytest.mark.parametrize(("name", "shape"), [
    ("gaussians", (2,)), ("text", (8, 20)), ("wasserstein", ((2,), (2,))), ("arrays", (4,)),
    ("arrays", (16, 2)), ("arrays", (8, 8, 8, 1))])
def test_what_is_no_image_is_not_augmented(name, shape):
    experiment = opening.load(name)
    trained = game(experiment.make_game(experiment.configure(augment="ada"), shape))
    samples = (tuple(jnp.zeros((4, *each)) for each in shape) if name == "wasserstein"
               else jnp.zeros((4, *shape)))
    with pytest.raises(ValueError, match=r"are for images, .*; got .*: leave the augmentation out"):
        jax.eval_shape(trained.init, KEY, Batch(samples))


@pytest.mark.parametrize(("loss", "expected"), [("non_saturating", 1.0), ("hinge", 1.0),
                                                ("relativistic", 0.0), ("wasserstein", 0.0),
                                                ("least_squares", 0.0)])
def test_where_a_loss_gives_scores_no_zero_the_augmentation_follows_their_differences(loss, expected):
    """All scores are above 0, and as many reals as not above their fakes."""
    term = make(loss=loss, augment="ada").augment.term
    view = SimpleNamespace(real=SimpleNamespace(scores=jnp.array([3.0, 1.0])),
                           fake=SimpleNamespace(scores=jnp.array([2.0, 2.0])), batch_size=2)
    assert float(term.value(view, term.init()).observed["ada_sign"]) == expected


def test_an_augmentations_flags_are_its_arguments():
    keys = example_keys(jax.random.key(0), 3000)
    gan = make(augment="ada", augment_p=0.2, final_augment_p=0.6, augment_operations="hue,noise=0.5",
               decay_steps=10)
    for step, probability in ((0, 0.2), (5, 0.4), (10, 0.6)):
        draws = gan.augment.draw(keys, jnp.int32(step), ())
        assert float(draws["hue_on"].mean()) == pytest.approx(probability, abs=0.04)
        assert float(draws["noise_on"].mean()) == pytest.approx(probability / 2, abs=0.04)
    assert set(draws) == {"keys", "hue", "hue_on", "noise", "noise_on"}
    assert make(augment="ada").augment.term.name == "ada"
    assert make(augment="diffaugment").augment.term is None
    white = jnp.ones((len(keys), 2, 2, 1))  # a generator's sigmoid says that images are in [0, 1]
    sigmoid = flags.make_gan(settings.replace(flags.Config(), augment="diffaugment", augment_operations=
                                              "cutout"), DCGANGenerator((8, 8, 1)), DCGANCritic(), 2)
    shown = sigmoid.augment.show(sigmoid.augment.draw(keys, jnp.int32(0), ()), white)
    assert set(np.unique(shown)) == {0.5, 1.0}


# RMSProp.

def first_step(gradient, **changes):
    """By how many learning rates the first update moves a parameter."""
    optimizer = optimiser(optimizer="rmsprop", beta2=0.99, learning_rate=1.0, **changes)
    return -float(optimizer.update(np.float32(gradient), optimizer.init(np.float32(0)))[0])


def test_rmsprops_first_step_by_hand():
    """The mean square is 0.01 g^2, its root 5e-8: small, as is 1e-8, and much smaller than 1e-4."""
    assert first_step(5e-7) == pytest.approx(5e-7 / (5e-8 + 1e-8), rel=1e-5)
    assert first_step(5e-7, rmsprop_eps="inside") == pytest.approx(
        5e-7 / math.sqrt(2.5e-15 + 1e-8), rel=1e-5)
    assert first_step(1.0) == pytest.approx(10.0, rel=1e-5)
    assert first_step(0.0) == 0.0


def test_rmsprop_is_pytorchs():
    torch = pytest.importorskip("torch")
    gradients = np.random.default_rng(0).normal(size=(20, 6)) * np.logspace(-9, 0, 6)
    theirs = torch.zeros(6, requires_grad=True)
    other = torch.optim.RMSprop([theirs], lr=1e-3, alpha=0.99, eps=1e-8)
    ours = jnp.zeros(6)
    optimizer = optimiser(optimizer="rmsprop", beta2=0.99, learning_rate=1e-3)
    state = optimizer.init(ours)
    for gradient in gradients.astype(np.float32):
        theirs.grad = torch.from_numpy(gradient.copy())
        other.step()
        updates, state = optimizer.update(jnp.asarray(gradient), state)
        ours = optax.apply_updates(ours, updates)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4)


# Packs.

def test_noise_and_packs_are_chained():
    assert make().augment is None
    samples, keys = jnp.arange(8.0).reshape(4, 2), jax.random.split(KEY, 4)

    def shown(**changes):
        augment = make(**changes).augment
        return augment.show(augment.draw(keys, jnp.int32(0), ()), samples)

    np.testing.assert_array_equal(shown(pack=2), [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert shown(input_noise=0.1).shape == (4, 2)
    both = shown(input_noise=0.1, pack=2)
    assert both.shape == (2, 4)
    assert 0 < np.abs(both - shown(pack=2)).max() < 1


@pytest.mark.parametrize(("name", "words", "message"), [
    ("gaussians", ("--batch-size", 9, "--pack", 2),
     "batch_size 9 on 1 device can't be shown in packs of 2: choose a multiple of 2"),
    ("gaussians", ("--batch-size", 6, "--pack", 2, "--devices", 2),
     "batch_size 6 on 2 devices can't be shown in packs of 2: choose a multiple of 4"),
    ("conditional", ("--pack", 2), "pack is 2, but samples are drawn for a condition here"),
])
def test_packs_that_cannot_be(name, words, message, tmp_path, capsys):
    assert run_here(name, *TINY, "--run-dir", tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_with_packs_trains_is_measured_and_sampled(tmp_path, capsys):
    """Its picture shows the level sets of packs of one point."""
    folder = tmp_path / "run"
    assert run_here("gaussians", *TINY, "--pack", 2, "--n-critic", 1, "--steps", 2, "--eval-every", 2,
                    "--eval-metrics", "modes", "--run-dir", folder) == 0, capsys.readouterr().err
    assert rows(folder)[-1].keys() >= {"modes", "critic/overfitting", "critic/input_gradient_q50"}
    assert (folder / "samples" / "step_00000002.png").exists()
    assert tool(evaluate, folder, "--metrics", "modes") == 0
    assert tool(sample, folder, "--num", 3, "--out", tmp_path / "points.npy") == 0
    assert np.load(tmp_path / "points.npy").shape == (3, 2)


def test_diagnostics_are_of_whole_packs():
    gan = tiny(augment=packed(2))
    state = init_state(gan, KEY, points(4))

    def names(count):
        x = np.asarray(points(count).samples)
        reference = measuring.Reference(lambda split: Samples(split, count, lambda rows: x[rows]), "raw",
                                        "swd", "swd")
        return {*measuring.make_diagnostics(gan, Protocol(), reference, {"condition": None, "pack": 2,
                                                                         "value_range": (-3, 3)})(state)}

    assert "critic/train_wasserstein" in names(5)
    assert names(3) == names(5)


# Presets.

def test_gaussians_presets():
    """The default takes the steps over which its rate falls; more of them are fallen over, too."""
    gaussians = opening.load("gaussians")
    default = launch.parse(gaussians, [])
    assert default.schedule.steps == default.optimiser.decay_steps
    weight = gaussians.make_game(default, (2,)).penalty.weight
    assert [float(weight(step)) for step in (0, 50_000, 100_000)] == pytest.approx(
        [0.03, 0.01515, 0.0003])
    with pytest.warns(UserWarning, match="decay_steps is 200000, as steps is"):
        assert launch.parse(gaussians, ["--steps", "200000"]).optimiser.decay_steps == 200_000
    paper, laptop = (launch.parse(gaussians, ["--preset", name]) for name in ("paper", "laptop"))
    assert (paper.loss, paper.optimiser) == (flags.Loss(penalty_weight=0.1), flags.Optimiser())
    assert laptop == settings.replace(paper, width=128, learning_rate=5e-4, steps=4000)
    flag = ["--dataset", "swissroll"]
    roll = launch.parse(gaussians, flag)
    assert roll == launch.parse(gaussians, ["--preset", "swissroll"])
    assert (roll.loss.loss, roll.loss.penalty, roll.schedule.n_critic) == (
        "wasserstein", "gradient_penalty", 3)
    assert launch.parse(gaussians, ["--dataset", "8gaussians"]) == settings.replace(
        default, dataset="8gaussians")
    assert launch.parse(gaussians, [*flag, "--preset", "default"]) == settings.replace(
        default, dataset="swissroll")


def test_old_runs_had_no_final_weight():
    """Whatever weight the experiment of today ends with by default."""
    new = {"final_penalty_weight", "decay", "pack", "rmsprop_eps"}
    values = {name: value for name, value in settings.flat(gaussians.PRESETS["laptop"]).items()
              if name not in new}
    read = settings.read(gaussians.Config(), values, "old")
    assert read.loss.final_penalty_weight is None
    assert (read.optimiser.decay, read.loss.pack, read.optimiser.rmsprop_eps) == ("linear", 1, "inside")


def test_orthonormal_kernels_are_kept_so_behind_the_optimiser():
    params = {"Dense_0": {"kernel": 1.1 * np.eye(3, dtype=np.float32)}}
    for norm, moved in (("none", 0.0), ("orthonormal", 1.1 * (3 - 1.1**2) / 2 - 1.1)):
        optimizer = make(critic_norm=norm, penalty="none").critic_optimizer
        still = jax.tree.map(np.zeros_like, params)
        updates, _ = optimizer.update(still, optimizer.init(params), params)
        np.testing.assert_allclose(updates["Dense_0"]["kernel"], moved * np.eye(3), atol=1e-6)
