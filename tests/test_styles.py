"""Styles: what is drawn by them, and found for given images; StyleGAN2 as an experiment."""

import dataclasses
import math
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import TINY, count_parameters

from experiments import import_weights, launch, open_run, project, sample, stylegan2, styling
from jaxgan import keys, styles
from jaxgan.data import load
from jaxgan.features import load_pytorch, save_weights
from jaxgan.features.network import raw
from jaxgan.gan import GANState, draw_latents, generate
from jaxgan.networks import network_state
from jaxgan.pictures import load_png, save_png
from tests import torch_files
from tests.test_training import run_here

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = {"base": 32, "width": 8, "w_size": 5, "latent_size": 6, "mapping_layers": 1}
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def made():
    """A GAN with tiny networks of random numbers, and its state."""
    gan = stylegan2.make_gan(stylegan2.experiment.configure(**SMALL), (8, 8, 1))
    shapes = jax.eval_shape(lambda key: gan.generator.init(key, jnp.zeros((1, 6)), train=False), KEY)
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.default_rng(0)
    variables = structure.unflatten([jnp.float32(random.normal(size=leaf.shape)) for leaf in leaves])
    network = network_state(variables, optax.identity())
    return gan, GANState(jnp.int32(0), network, network, None)


def _flags(**changes):
    return styling.Flags(**changes)


# What is drawn.


def test_samples_are_those_of_their_styles(made):
    gan, state = made
    latents = draw_latents(gan, KEY, 3)
    ws = styles.styles(gan, state, latents)
    assert ws.shape == (3, 4, 5)
    np.testing.assert_allclose(styles.synthesise(gan, state, ws), generate(gan, state, latents),
                               rtol=1e-4, atol=1e-5)


def test_truncation_to_the_average_leaves_one_sample(made):
    gan, state = made
    latents = draw_latents(gan, KEY, 3)
    none = styling.settled(gan, _flags(truncation=0.0))
    half = styling.settled(gan, _flags(truncation=0.5, truncation_cutoff=1))
    images = np.asarray(generate(none, state, latents))
    np.testing.assert_allclose(images, np.broadcast_to(images[:1], images.shape), rtol=1e-4, atol=1e-5)
    full, moved = styles.styles(gan, state, latents), styles.styles(half, state, latents)
    average = state.generator.variables["batch_stats"]["w_avg"]
    np.testing.assert_allclose(moved[:, 0], (full[:, 0] + average[None]) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(moved[:, 1:], full[:, 1:])


@pytest.mark.parametrize("noise", ["stored", "random", "none"])
def test_noise_is_the_same_or_new_or_none(made, noise):
    gan, state = made
    flags = _flags(noise=noise)
    gan = styling.settled(gan, flags)
    latents = jnp.repeat(draw_latents(gan, KEY, 1), 2, axis=0)
    images = np.asarray(styling.draw(gan, flags, state, styling.single(flags, KEY, latents, None)))
    assert (np.abs(images[0] - images[1]).max() > 1e-2) == (noise == "random")
    stored = np.asarray(generate(made[0], state, latents))
    assert (np.abs(images[0] - stored[0]).max() < 1e-4) == (noise == "stored")


def test_rows_go_straight_from_style_to_style(made):
    gan, state = made
    flags = _flags(between="styles")
    blend = styling.rows_between(gan, flags, KEY, 2, 3, None)
    start, end = (styles.styles(gan, state, draw_latents(gan, keys.stream(KEY, name), 2))
                  for name in ("latents", "ends"))
    expected = np.stack([start, (start + end) / 2, end], 1).reshape(6, 4, 5)
    np.testing.assert_allclose(styling.draw(gan, flags, state, blend),
                               styles.synthesise(gan, state, jnp.asarray(expected)), rtol=1e-3,
                               atol=1e-4)


def test_mixed_samples_have_the_rows_styles_first(made):
    gan, state = made
    flags = _flags(mix=3)
    ws = styles.styles(gan, state, draw_latents(gan, keys.stream(KEY, "latents"), 5))
    rows, columns = ws[:2], ws[2:]
    mixed = np.array([[[*row[:3], *column[3:]] for column in columns] for row in rows])
    expected = np.asarray(styles.synthesise(gan, state, jnp.asarray(mixed.reshape(-1, 4, 5))))
    draw = partial(styling.draw, gan, flags, state)
    found = np.asarray(draw(styling.mixed(gan, flags, KEY, 2, 3, None, bordered=False)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    bordered = np.asarray(draw(styling.mixed(gan, flags, KEY, 2, 3, None, bordered=True)))
    bordered = bordered.reshape(3, 4, 8, 8, 1)
    np.testing.assert_allclose(bordered[1:, 1:].reshape(-1, 8, 8, 1), expected, rtol=1e-3, atol=1e-4)
    own = np.asarray(styles.synthesise(gan, state, ws))
    np.testing.assert_allclose(bordered[1:, 0], own[:2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bordered[0, 1:], own[2:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"mix": 4}, "mix must be a layer from 1 to 3; got 4"),
    ({"mix": 0}, "mix must be a layer from 1 to 3; got 0"),
    ({"truncation_cutoff": 2}, "truncation-cutoff goes with --truncation"),
    ({"truncation": float("nan")}, "truncation must be a finite number; got nan"),
    ({"truncation": 0.5, "truncation_cutoff": 0}, "truncation-cutoff must be at least 1; got 0")])
def test_styles_that_cannot_be_used_so_are_refused(made, changes, message):
    gan, state = made
    flags = _flags(**changes)
    with pytest.raises(ValueError, match=message):
        styling.draw(styling.settled(gan, flags), flags, state,
                     styling.mixed(gan, flags, KEY, 1, 1, None, bordered=False))


def test_noise_is_drawn_where_the_run_had_the_stored_one_and_refused_where_it_had_none(made):
    gan, _ = made
    for noise in ("constant", "none"):
        other = dataclasses.replace(gan, generator=gan.generator.clone(noise=noise))
        if noise == "none":
            with pytest.raises(ValueError, match="this run's generator has no noise"):
                styling.settled(other, _flags(noise="random"))
        else:
            assert styling.settled(other, _flags(noise="random")).generator.noise == "random"


def test_a_generator_without_styles_is_refused():
    assert styling.settled(TINY, _flags()) is TINY
    with pytest.raises(ValueError, match="truncation is for generators that have styles"):
        styling.settled(TINY, _flags(truncation=0.5))
    with pytest.raises(ValueError, match="Generator has no styles"):
        styles.styles(TINY, None, jnp.zeros((1, 3)))


# What is found.


def test_the_styles_of_a_sample_are_found(made):
    """Of one that the generator made, of a style far from the average."""
    gan, state = made
    gan = dataclasses.replace(gan, generator=gan.generator.clone(noise="none"))
    ws = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 1, 5)), (1, 4, 5))
    target = styles.synthesise(gan, state, ws)
    distance = partial(project.distance, None, (-1.0, 1.0))
    found = jax.jit(partial(styles.project, gan, state, distance=distance, steps=300, latents=200))(
        target, key=KEY)
    assert found.ws.shape == (1, 4, 5)
    np.testing.assert_array_equal(found.ws, jnp.broadcast_to(found.ws[:, :1], found.ws.shape))
    assert found.distances.shape == (1, 300)
    assert found.distances[0, -1] < 1e-6 < 1 < found.distances[0, 0]
    np.testing.assert_allclose(found.ws[:, 0], ws[:, 0], rtol=1e-3, atol=1e-3)


def test_noise_maps_have_nothing_in_common_with_their_shifts():
    """Maps of one value, chequered ones, and such that are of one value when halved."""
    ones = jnp.ones((16, 16))
    chequered = jnp.asarray(np.where(np.indices((16, 16)).sum(0) % 2, 1.0, -1.0), jnp.float32)
    assert float(styles.in_common(ones)) == 4  # two sizes, two axes, each 1
    assert float(styles.in_common(chequered)) == 2  # -1 squared, along both; means are 0
    assert float(styles.in_common(3 * ones[:8, :8])) == 2 * 81
    random = jax.random.normal(KEY, (64, 64))
    assert float(styles.in_common(random)) < 0.05


def test_the_distance_is_by_the_targets_spread():
    targets = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 1)), jnp.float32)
    mean = jnp.broadcast_to(targets.mean((1, 2, 3), keepdims=True), targets.shape)
    np.testing.assert_allclose(project.distance(None, (-1, 1), mean, targets), [1, 1], rtol=1e-5)
    network = dataclasses.replace(raw(), see=raw().apply)
    unit = (targets + 1) / 2
    np.testing.assert_allclose(
        project.distance(network, (-1, 1), jnp.full_like(targets, -1.0), targets),
        jnp.square(unit).mean((1, 2, 3)) / unit.var((1, 2, 3)) + 1, rtol=1e-5)


# Weights of the authors' code, and runs.


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run of weights that PyTorch saved, and these."""
    torch = pytest.importorskip("torch")
    from benchmarks import stylegan2_torch

    folder = tmp_path_factory.mktemp("imported")
    torch.manual_seed(0)
    networks = {"g": stylegan2_torch.Generator(8, base=32, mapping_layers=1, latent_size=6,
                                               style_size=5),
                "d": stylegan2_torch.Discriminator(8, base=32)}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    words = [part for name, value in (SMALL | {"width": 512}).items()
             for part in (f"--{name.replace('_', '-')}", str(value))]
    import_weights.main(import_weights.Options(
        experiment="stylegan2", generator=str(folder / "g.pt"), critic=str(folder / "d.pt")),
        [*words, "--image-size", "8", "--run-dir", str(folder / "run")])
    return folder, networks, words


def test_weights_of_the_authors_make_a_run(imported, capsys):
    folder, networks, _ = imported
    torch = pytest.importorskip("torch")
    run = open_run(folder / "run")
    assert (run.experiment.name, int(run.state.step), run.settings["sample_shape"]) == (
        "stylegan2", 0, [8, 8, 3])
    latents = draw_latents(run.game, KEY, 2)
    with torch.no_grad():
        theirs = networks["g"].eval()(torch.from_numpy(np.array(latents)), None, 1.0, None, "const")
    np.testing.assert_allclose(generate(run.game, run.state, latents),
                               theirs.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    kernel = networks["d"].b4.out.weight.detach().numpy().T
    np.testing.assert_array_equal(run.state.critic.params["b4"]["out"]["kernel"], kernel)
    for changes, shape in (({"mix": 2}, (5, 8)), ({"truncation": 0.7}, (2, 2))):
        out = folder / "drawn.png"
        sample.main(sample.Options(run_dir=str(folder / "run"), num=4, columns=7, out=str(out),
                                   **changes))
        height, width, _ = load_png(out).shape
        assert width / height == pytest.approx(shape[1] / shape[0], rel=0.02)
    assert "samples of step 0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_of_images_is_projected(imported, capsys):
    folder, _, _ = imported
    random, images = np.random.default_rng(0), folder / "images"
    images.mkdir()
    for name in "ab":
        save_png(images / f"{name}.png", random.integers(0, 256, (8, 8, 3), np.uint8))
    project.main(project.Options(run_dir=str(folder / "run"), images=str(images), steps=2,
                                 features="none"))
    found = folder / "run" / "projected" / "1"
    assert np.load(found / "styles.npy").shape == (2, 4, 5)
    assert load_png(found / "picture.png").ndim == 3
    assert f"{found / 'styles.npy'}: the styles, [4, 5] for each image" in capsys.readouterr().out
    for out, message in ((found, "there is .*picture.png already: name another folder"),
                         (folder / "g.pt", "g.pt is a file: name a folder"),
                         (folder / "no" / "x", "there is no folder .*no to write x to")):
        with pytest.raises(ValueError, match=message):
            project.main(project.Options(run_dir=str(folder / "run"), images=str(images),
                                         out=str(out)))
    with pytest.raises(ValueError, match=r"no classifier for images of \(8, 8, 3\)"):
        project.main(project.Options(run_dir=str(folder / "run"), images=str(images),
                                     features="classifier"))
    with pytest.raises(ValueError, match=r"have images of \(8, 8, 1\), and it makes .* give --images"):
        project.main(project.Options(run_dir=str(folder / "run"), steps=2, features="none"))


def test_an_image_is_a_folder_of_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    for name in ("a.png", "b.png"):
        save_png(tmp_path / name, pixels + (name == "b.png"))
    np.testing.assert_array_equal(load(f"folder:{tmp_path / 'a.png'}", "all").images, pixels[None])


@pytest.mark.slow
def test_what_holds_no_published_weights_is_refused(imported, tmp_path, monkeypatch):
    folder, _, words = imported

    def refuse(message, *more, generator="g.pt", critic="", experiment="stylegan2"):
        options = import_weights.Options(experiment=experiment, generator=str(folder / generator),
                                         critic=critic and str(folder / critic))
        with pytest.raises(ValueError, match=message):
            import_weights.main(options, [*words, "--image-size", "8", "--run-dir",
                                          str(tmp_path / "run"), *more])
        assert not (tmp_path / "run").exists()

    refuse("no published layout for 'digits'", experiment="digits")
    refuse("d.pt: the weights have no .*, which StyleGAN2Generator needs", generator="d.pt")
    refuse("g.pt: the weights have no .*, which StyleGAN2Critic needs", critic="g.pt")
    refuse("has the shape .* choose the settings that the weights were trained with", "--w-size", "7")
    torch_files.install(monkeypatch)
    (folder / "module.pkl").write_bytes(pickle.dumps({"G_ema": torch_files.Storage}))
    refuse("save the state dictionary with the authors' code", generator="module.pkl")
    refuse("there is no file .*nothing.pt", generator="nothing.pt")
    state = load_pytorch(folder / "g.pt")
    save_weights(folder / "nan.npz", state | {"mapping.w_avg": np.full(5, np.nan)})
    refuse("mapping.w_avg holds numbers that aren't finite", generator="nan.npz")
    refuse("--dataset folder and --folder PATH go together", "--folder", str(folder))
    refuse("holds a run already", "--run-dir", str(folder / "run"))


@pytest.mark.parametrize(("preset", "size", "generator", "critic"), [
    ("cifar10", 32, 20_215_315, 23_089_664), ("ffhq256", 256, 24_767_458, 24_001_089),
    ("ffhq1024", 1024, 30_370_060, 29_012_513)])
def test_presets_have_the_articles_networks(preset, size, generator, critic):
    config = launch.parse(stylegan2.experiment, ["--preset", preset])
    gan = stylegan2.make_gan(config, (size, size, 3))
    assert count_parameters(gan.generator, (512,)) == generator
    assert count_parameters(gan.critic, (size, size, 3)) == critic


def test_the_automatic_preset_follows_the_size():
    """batch min(4096 / 256, 32); gamma 2e-4 256^2 / 16; half-life 16 * 10 / 32 thousand images."""
    config = launch.parse(stylegan2.experiment, ["--preset", "auto256"])
    assert (config.schedule.batch_size, config.optimiser.ema_half_life) == (16, 5000)
    assert config.loss.penalty_weight == pytest.approx(0.8192)
    assert (config.networks.mapping_layers, config.networks.base, config.optimiser.ema_ramp) == (
        2, 16384, 0.05)


@pytest.mark.parametrize("final_beta2", [None, 0.95])
def test_lazy_terms_change_adam_as_the_article_says(final_beta2):
    """The first two updates of numbers whose gradients are known."""
    config = stylegan2.experiment.configure(
        **SMALL, beta1=0.3, penalty_weight=2.0, final_beta2=final_beta2, decay_steps=10,
        final_learning_rate=2.5e-3)
    gan = stylegan2.make_gan(config, (8, 8, 1))
    assert (gan.penalty.every, gan.penalty.weight) == (16, 16.0)  # gamma / 2, 16 times
    assert [(term.every, term.weight) for term in gan.generator_terms] == [(4, 8.0)]
    for optimizer, every in ((gan.critic_optimizer, 16), (gan.generator_optimizer, 4)):
        share = every / (every + 1)
        betas = np.array([0.3, 0.99])**share
        state, moments = optimizer.init(jnp.zeros(())), np.zeros(2)
        for step, gradient in enumerate((0.5, -2.0)):
            if final_beta2 is not None:
                t = step / 10
                betas[1] = 0.99**share * (1 - t) + final_beta2**share * t
            updates, state = optimizer.update(jnp.float32(gradient), state)
            moments = betas * moments + (1 - betas) * [gradient, gradient**2]
            mean, square = moments / (1 - betas**(step + 1))
            assert float(updates) == pytest.approx(
                -2.5e-3 * share * mean / (math.sqrt(square) + 1e-8), rel=1e-4)


def test_a_penalty_that_is_not_there_cannot_be_lazy():
    for changes, message in (({"penalty": "none"}, "no penalty: give --penalty-every 1, or"),
                             ({"penalty_every": 0}, "penalty_every must be at least 1; got 0"),
                             ({"path_weight": -1.0}, "path_weight must not be negative; got -1"),
                             ({"path_every": 0}, "path_every must be at least 1; got 0")):
        with pytest.raises(ValueError, match=message):
            stylegan2.make_gan(stylegan2.experiment.configure(**SMALL, **changes), (8, 8, 1))
    with pytest.raises(ValueError, match="takes square images of 8, 16, 32"):
        stylegan2.make_gan(stylegan2.experiment.configure(**SMALL), (12, 12, 1)).generator.init(
            KEY, jnp.zeros((1, 6)), train=False)


@pytest.mark.slow
def test_a_run_for_classes_is_projected_and_mixed(tmp_path):
    words = [part for name, value in SMALL.items()
             for part in (f"--{name.replace('_', '-')}", str(value))]
    assert run_here("stylegan2", *words, "--classes", "10", "--steps", "2", "--batch-size", "8",
                    "--devices", "1", "--eval-every", "0", "--run-dir", tmp_path / "run") == 0
    project.main(project.Options(run_dir=str(tmp_path / "run"), steps=2, num=3, features="none"))
    assert np.load(tmp_path / "run/projected/1/styles.npy").shape == (3, 4, 5)
    sample.main(sample.Options(run_dir=str(tmp_path / "run"), mix=2, num=2, columns=3, label="7",
                               out=str(tmp_path / "mixed.npy")))
    assert np.load(tmp_path / "mixed.npy").shape == (6, 8, 8, 1)
    with pytest.raises(ValueError, match="say by --label of which one"):
        project.main(project.Options(run_dir=str(tmp_path / "run"), images=str(tmp_path), steps=2))
