"""Experiments as values: flags in groups, presets, configurations read back, runs opened, own files."""

import contextlib
import dataclasses
import errno
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import (
    commands,
    conditions,
    domains,
    evaluate,
    flags,
    image_sets,
    latents,
    launch,
    list,
    measuring,
    open_run,
    opening,
    reproduce,
    sample,
    settings,
    supervision,
)
from experiments.experiment import Experiment
from jaxgan import keys
from jaxgan.runs import RunError
from tests.test_measuring import tool
from tests.test_training import TINY, environment, result, run_here

ROOT = Path(__file__).resolve().parents[1]
FIRST = json.loads(Path(__file__).with_name("first_release.json").read_text())
COMMON = FIRST.pop("common")  # flag -> [default, whether it only reports or may differ]
LITTLE = (*TINY, "--steps", 2, "--sample-every", 0, "--log-every", 1)
# The example of the documents.
OWN, = (code for code in re.findall(
    r"^```python\n(.*?)^```", (ROOT / "experiments" / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if "Experiment(" in code)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert run_here("digits", *TINY, "--steps", 2, "--seed", 3, "--sample-every", 0, "--run-dir",
                    folder) == 0
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The file of a user's own experiment, and a run of it."""
    folder = tmp_path_factory.mktemp("own")
    file, run = folder / "mlp_digits.py", folder / "run"
    file.write_text(OWN)
    done = subprocess.run([sys.executable, file.name, *map(str, (*LITTLE, "--run-dir", run))],
                          cwd=folder, env=environment() | {"PYTHONPATH": str(ROOT)}, text=True,
                          timeout=300, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return file, run


def changed(run, tmp_path, **changes):
    """A run's folder with another configuration and the same checkpoints."""
    content = json.loads((run / "config.json").read_text())
    content["settings"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(content))
    if not (tmp_path / "checkpoints").exists():
        (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
    return tmp_path


# Flags.

def flag(name, value):
    word = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{word}" if value else f"--no-{word}"]
    return [f"--{word}", str(value)]


@pytest.mark.parametrize("name", FIRST)
def test_each_flag_of_the_first_release_parses_and_has_its_default(name):
    """By the same name, and still deciding, or not, what a run computes."""
    experiment, first = opening.load(name), COMMON | FIRST[name]
    values = {flag: default for flag, (default, _) in first.items()}
    # Whose defaults are the device's by now, or others.
    then = {"digits": "dcgan", "images": "paper", "gaussians": "paper", "stacked_mnist": "paper"}
    preset = ["--preset", then[name]] if name in then else []
    default = launch.parse(experiment, preset)
    assert values.items() <= settings.flat(default).items()
    assert launch.parse(experiment, []) == experiment.Config()
    assert launch.parse(experiment, [*preset, *(part for item in values.items()
                                                for part in flag(*item))]) == default
    new = settings.flat(default).keys() - first.keys()
    later = {"decay": "linear", "pack": 1, "penalty_every": 1, "augment": "none",
             "augment_images": 500_000.0, "accumulate": 1, "top_k_decay": 0.99, "top_k_steps": 500,
             "log_to": ""}
    later |= {"model": "dcgan"} if name == "digits" else {}
    assert later.items() <= settings.flat(default).items()
    assert {settings.flat(default)[flag] for flag in new - later.keys()} == {None, 0}  # as if none
    deciding = {flag for flag, (_, aside) in first.items() if not aside}
    assert settings.identity(default) - new == deciding - {"folder"}  # the images decide, not the place


def test_every_script_is_found():
    later = ("adversarial_flow", "arrays", "autoencoder", "cyclegan", "drifting", "gat", "pix2pix",
             "r3gan", "stylegan2", "wasserstein")
    assert commands.experiments() == tuple(sorted((*FIRST, *later)))
    for name in commands.experiments():
        experiment = opening.load(name)
        assert (experiment.name, experiment.is_own) == (name, False)
        assert experiment.command == f"python -m experiments.{name}"


def test_help_shows_groups(capsys):
    assert run_here("text", "--help") == 0
    shown = capsys.readouterr().out
    for group in ("networks", "loss", "optimiser", "schedule", "data", "run", "evaluation", "cluster"):
        assert f" {group} options " in shown
    assert "--preset {" in shown
    assert "--config FILE" in shown
    assert shown.startswith("usage: python -m experiments.text ")
    assert "WGAN-GP that writes text" in shown


def documented():
    """The commands of the documents, without what stands for something else."""
    for path in ("README.md", "experiments/README.md", "docs/evaluation.md", "docs/scaling.md"):
        text = re.sub(r"\\\n\s*", "", (ROOT / path).read_text())
        for name, rest in re.findall(r"python -m experiments\.(\w+)([^\n`#|&]*)", text):
            words = re.sub(r"\b(SEED|N|H)\b", "1", rest)
            if name in FIRST and not re.search(r"\b[A-Z]{3,}\b|\.\.\.|\$|--config",
                                               words.replace("DIR", "dir")):
                yield name, words.split(";")[0]


@pytest.mark.parametrize(("name", "words"), sorted({*documented()}))
def test_the_commands_of_the_documents_parse(name, words):
    launch.parse(opening.load(name), shlex.split(words))


def test_choices_are_those_of_the_registries(capsys):
    assert run_here("digits", "--loss", "wasserstien") == 2
    shown = capsys.readouterr().err
    assert all(name in shown for name in flags.LOSSES)


def test_each_network_may_have_an_optimiser_of_its_own():
    """One step of Adam moves each parameter by the learning rate."""
    def moved(**changes):
        made = {name: flags.make_optimizer(settings.replace(
                    flags.Config(), learning_rate=0.1, **changes), name)
                for name in ("generator", "critic")}
        return {name: float(optimizer.update(np.float32(1), optimizer.init(np.float32(0)))[0])
                for name, optimizer in made.items()}

    assert moved() == pytest.approx({"generator": -0.1, "critic": -0.1})
    assert moved(critic_learning_rate=0.4) == pytest.approx({"generator": -0.1, "critic": -0.4})
    config = settings.replace(flags.Config(), generator_beta1=0.25, critic_beta2=0.5)
    moments = {}
    for name in ("generator", "critic"):
        made = flags.make_optimizer(config, name)
        state = made.update(np.float32(1), made.init(np.float32(0)))[1][0]
        moments[name] = float(state.mu), float(state.nu)
    assert moments["generator"] == pytest.approx((0.75, 0.1))
    assert moments["critic"] == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(("words", "message"), [
    (("--critic-learning-rate", "0"), "critic_learning_rate must be above 0; got 0.0"),
    (("--config", "nowhere.json"), "there is no file nowhere.json: give a run's"),
])
def test_bad_flags_get_one_sentence(words, message, tmp_path, capsys):
    assert run_here("digits", *TINY, "--run-dir", tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("error", "message"), [
    (MemoryError(), "error: not enough memory (MemoryError()): lower the batch size or the width"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore"),
     "error: not enough memory (RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.): lower"),
    (OverflowError("Python int too large to convert to C long"), "error: a number is too large (Python"),
    (OSError(errno.EROFS, "Read-only file system", "a/b.png.partial"),
     "error: a/b.png can't be written (Read-only file system): name another place with --out"),
])
def test_what_cant_be_is_one_sentence(error, message, capsys):
    def fail():
        raise error

    assert launch.guarded(fail) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_a_command_that_is_ended_is_to_be_repeated_and_only_a_training_resumed(monkeypatch, capsys):
    def ended(*_):
        raise supervision.Terminated(signal.SIGTERM)

    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.x", "--resume", "latest", "a b"])
    assert launch.guarded(ended) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped; go on with: python -m experiments.x 'a b'\n"
    monkeypatch.setattr(launch, "run", ended)
    assert launch.guarded(launch.run) == 128 + signal.SIGTERM
    assert capsys.readouterr().err.endswith("experiments.x 'a b' --resume auto\n")
    monkeypatch.setattr(sys, "orig_argv", ["/a/python", "/a/bin/jaxgan", "x", "--steps", "5"])
    assert launch.guarded(launch.run) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "stopped; go on with: jaxgan x --steps 5 --resume auto\n"


# Presets and defaults.

def test_a_preset_is_a_start_that_flags_change():
    text = opening.load("text")
    paper = launch.parse(text, ["--preset", "paper"])
    assert (paper.networks.width, paper.schedule.n_critic, paper.optimiser.decay_steps) == (512, 10, 0)
    assert launch.parse(text, ["--preset=paper", "--width", "32"]) == settings.replace(paper, width=32)
    assert launch.parse(text, ["--preset", "laptop"]) == text.Config()
    with pytest.raises(ValueError, match="text has no preset 'papr': did you mean paper"):
        text.configure("papr")
    with pytest.raises(ValueError, match="unknown setting 'widht': did you mean width"):
        text.configure(widht=3)


def test_the_settings_of_cifar10_come_with_the_model():
    """As the public code has them: reference values of Gulrajani et al. 2017."""
    cifar10 = opening.load("cifar10")

    def chosen(*words):
        config = launch.parse(cifar10, words)
        return (config.networks.model, config.optimiser.learning_rate, config.optimiser.beta1,
                config.optimiser.decay_steps, config.schedule.steps)

    resnet, dcgan = ("resnet", 2e-4, 0.0, 100_000, 100_000), ("dcgan", 1e-4, 0.5, 0, 200_000)
    assert chosen() == chosen("--model", "resnet") == chosen("--preset", "resnet") == resnet
    assert chosen("--model", "dcgan") == chosen("--preset", "dcgan") == dcgan
    assert chosen("--model", "dcgan", "--steps", "5") == (*dcgan[:4], 5)
    assert chosen("--preset", "resnet", "--model", "dcgan") == ("dcgan", *resnet[1:])
    assert cifar10.configure(model="dcgan") == launch.parse(cifar10, ["--model", "dcgan"])


def test_digits_that_were_begun_by_convolutions_go_on_with_them(run, tmp_path):
    """Whether they said so, or were begun when nothing else was there; new ones are of dense layers."""
    experiment = opening.load("digits")
    there = changed(run, tmp_path, model="dcgan", width=48)
    resumed = ["--run-dir", str(there), "--resume", "latest"]

    def networks(*words):
        networks = launch.parse(experiment, [*words]).networks
        return networks.model, networks.width

    assert networks() == ("mlp", 384)
    assert networks(*resumed) == ("dcgan", 48)
    content = json.loads((there / "config.json").read_text())
    del content["settings"]["model"]
    (there / "config.json").write_text(json.dumps(content))
    assert networks(*resumed) == networks("--model", "dcgan") == ("dcgan", 48)
    assert networks(*resumed, "--width", "8") == ("dcgan", 8)
    assert networks("--run-dir", str(run), "--resume", "latest") == ("mlp", 384)


def test_one_experiments_defaults_are_no_others():
    """No class of settings has defaults from another script."""
    shared = {module.__name__ for module in (
        conditions, domains, flags, measuring, image_sets, latents)}
    for name in commands.experiments():
        experiment = opening.load(name)
        assert experiment.Config.__mro__[1:] == (flags.Config, object)
        for group in settings.groups(experiment.Config()).values():
            for cls in type(group).__mro__[:-1]:
                if cls.__module__ in shared | {f"experiments.{name}"}:
                    continue
                inherited = {attribute: getattr(cls, attribute) for attribute in cls.__annotations__
                             if hasattr(cls, attribute)}
                assert set(inherited.values()) <= {0, None}, f"{name} inherits {inherited}"


def test_settings_that_cannot_be_kept_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Group:
        width: int = 1

    @dataclasses.dataclass(frozen=True)
    class Odd:
        path: Path = Path()

    @dataclasses.dataclass(frozen=True)
    class Config:
        first: Group = Group()
        second: object = Group()

    parts = (None, None, None)
    with pytest.raises(ValueError, match="two groups of Config have a setting 'width': rename one"):
        Experiment(Config, *parts)
    Config.__init__.__defaults__ = (Group(), Odd())
    with pytest.raises(TypeError, match="the setting 'path' must be a bool, int, float, str or Literal"):
        Experiment(Config, *parts)
    Config.__init__.__defaults__ = (Group(), 3)
    with pytest.raises(TypeError, match="second of Config must be a dataclass of settings; got 3"):
        Experiment(Config, *parts)


# Configurations.

def test_a_configuration_is_read_and_changed_by_flags(run, tmp_path, capsys):
    """What is trained is taken from it; where it ran, and how it reported, is not."""
    digits = opening.load("digits")
    for path in (run / "config.json", run):
        config = launch.parse(digits, ["--config", str(path), "--width", "16"])
        assert (config.networks.width, config.schedule.seed, config.schedule.steps) == (16, 3, 2)
        assert config.run == digits.Config().run
        assert config.evaluation == digits.Config().evaluation
    assert run_here("mnist", "--config", run / "config.json") == 2
    assert "is of the experiment 'digits', not of 'mnist'" in capsys.readouterr().err
    assert run_here("text", "--config", run, "--preset", "paper") == 2
    assert "give --config or --preset, not both" in capsys.readouterr().err
    assert run_here("digits", "--config", run, "--sample-every", 0, "--devices", 1, "--eval-every", 0,
                    "--run-dir", tmp_path / "again") == 0
    assert result(tmp_path / "again")["params_sha256"] == result(run)["params_sha256"]


def test_a_configuration_of_the_first_release_opens(run, tmp_path):
    """It has no format, and not the settings that came later."""
    content = json.loads((run / "config.json").read_text())
    assert content.pop("format") == 2
    new = content["settings"].keys() - COMMON.keys() - FIRST["digits"].keys()
    assert {name for name in new if name.startswith(("generator", "critic"))} == {
        f"{network}_{name}" for network in ("generator", "critic")
        for name in ("learning_rate", "beta1", "beta2")}
    for name in new - {"experiment", "sample_shape", "value_range", "num_classes", "condition"}:
        del content["settings"][name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    as_then = settings.replace(opening.read_run(run)[1], rmsprop_eps="inside", model="dcgan")
    assert opening.read_run(tmp_path)[1] == as_then
    del content["settings"]["stream"]  # which reports
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert opening.read_run(tmp_path)[1] == as_then
    del content["settings"]["loss"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"config\.json lacks loss"):
        opening.read_run(tmp_path)


@pytest.mark.parametrize("number", [3, 0, "2", None, [1]])
def test_a_configuration_of_another_format_is_refused(number, run, tmp_path):
    content = json.loads((run / "config.json").read_text()) | {"format": number}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"this version of jaxgan reads those up to 2: use the version"):
        opening.read_run(tmp_path)


@pytest.mark.parametrize("name", ["../../x", "os", "cli", "settings", "evaluate", "__init__", 3, None,
                                  ["digits"], {"digits": 1}, "digits.py", "", "experiments.digits"])
def test_a_configuration_cannot_name_another_module(name, run, tmp_path, monkeypatch):
    monkeypatch.setattr(opening.importlib, "import_module", lambda name: pytest.fail(f"imports {name}"))
    changed(run, tmp_path, experiment=name)
    with pytest.raises(ValueError, match="which isn't one of adversarial_flow, arrays, autoencoder, "):
        opening.read_run(tmp_path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"width": "8"}, "width in .*config.json must be a int; got '8'"),
    ({"width": True}, "width in .* must be a int; got True"),
    ({"loss": "hinged"}, "loss in .* must be one of wasserstein, .*; got 'hinged'"),
    ({"critic_beta1": "x"}, "critic_beta1 in .* must be a float or None; got 'x'"),
    ({"remat": 1}, "remat in .* must be a bool; got 1"),
    ({"penalty_weight": None}, "penalty_weight in .* must be a float; got None"),
])
def test_settings_of_another_type_are_refused(changes, message, run, tmp_path):
    with pytest.raises(ValueError, match=message):
        opening.read_run(changed(run, tmp_path, **changes))


# Open runs.

def test_a_run_is_opened_sampled_and_looked_into(run):
    opened = open_run(run)
    from jaxgan import sample as draw

    samples = draw(opened.game, opened.state, jax.random.key(0), 5)
    assert samples.shape == (5, 8, 8, 1)
    assert int(opened.state.step) == 2
    assert opened.config.networks.width == 8
    assert opened.settings["sample_shape"] == [8, 8, 1]
    assert opened.reference.reals("test").count == 359
    assert open_run(str(run), 2).state.step == opened.state.step
    assert open_run(run, None).state is None
    with pytest.raises(ValueError, match="checkpoint must be latest, best or a step; got 'worst'"):
        open_run(run, "worst")


# A user's own experiment.

def test_an_own_file_trains_and_its_run_is_opened_when_the_file_is_named(own, tmp_path, capsys):
    file, run = own
    recorded = json.loads((run / "config.json").read_text())["settings"]
    assert recorded["experiment"] == "mlp_digits"
    assert recorded["experiment_file"] == str(file)
    assert len(recorded["experiment_sha256"]) == 64
    assert tool(sample, run, "--experiment", file, "--num", 4, "--out", tmp_path / "s.npy") == 0
    assert np.load(tmp_path / "s.npy").shape == (4, 8, 8, 1)
    assert tool(evaluate, run, "--experiment", file, "--metrics", "swd", "--features", "raw") == 0
    assert tool(reproduce, run, "--experiment", file) == 0
    assert "warning" not in capsys.readouterr().err
    assert tool(list, run.parent) == 0
    assert re.search(r"run +mlp_digits +0 ", capsys.readouterr().out)


@pytest.mark.slow
def test_an_own_file_may_hold_a_game(tmp_path, capsys):
    """docs/games.md's: trained, resumed, sampled, evaluated, reproduced, and started from."""
    text = (ROOT / "docs" / "games.md").read_text()
    game, = re.findall(r"^## BiGAN.*?^```python\n(.*?)^state, result = ", text, re.MULTILINE | re.DOTALL)
    rest, = re.findall(r"^## A game with flags.*?^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    file, run = tmp_path / "bigan.py", tmp_path / "run"
    file.write_text(f"import dataclasses\n{game}\n{rest}")
    experiment = opening.load_file(file)
    little = ("--steps", 4, "--batch-size", 32, "--devices", 1, "--log-every", 1, "--eval-every", 2,
              "--best-metric", "swd", "--run-dir", run)

    def trained(*arguments):
        return launch.guarded(launch.start, experiment, [*map(str, (*little, *arguments))])

    assert trained("--steps", 2) == 0
    assert trained("--resume", "latest") == 0
    assert [row["step"] for row in open_rows(run)] == [1, 2, 3, 4]
    assert tool(sample, run, "--experiment", file, "--num", 130, "--out", tmp_path / "s.npy") == 0
    drawn = np.load(tmp_path / "s.npy")
    opened = open_run(run, "latest", experiment=file)
    key = keys.stream(jax.random.key(0), "latents")
    np.testing.assert_allclose(drawn, opened.game.sample(opened.state, key, 130), rtol=1e-5, atol=1e-6)
    assert tool(evaluate, run, "--experiment", file, "--num", 50, "--checkpoint", "best") == 0
    assert tool(reproduce, run, "--experiment", file) == 0
    assert tool(sample, run, "--experiment", file, "--interpolate", "--out", tmp_path / "i.npy") == 2
    assert "interpolate is for GANs whose latents are vectors" in capsys.readouterr().err
    assert trained("--run-dir", tmp_path / "one", "--init-from", run, "--init-networks", "encoder") == 0
    assert trained("--run-dir", tmp_path / "two", "--init-from", run, "--init-networks", "ema") == 2
    assert "has no network 'ema': choose from critic, encoder, generator" in capsys.readouterr().err
    assert trained("--run-dir", tmp_path / "three", "--fakes-at-once") == 2
    assert "fakes_at_once is for GANs" in capsys.readouterr().err


def open_rows(run):
    """A run's logged steps."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("words", "message"), [
    ((), "is of a user's own experiment, 'mlp_digits': give its file with --experiment (it was '"),
    (("--experiment", "other.py"), "'mlp_digits', and other.py is another one's file"),
    (("--experiment", "mlp_digits.py"), "there is no Python file"),
])
def test_nothing_is_imported_that_was_not_named(own, words, message, capsys, monkeypatch):
    monkeypatch.setattr(opening.importlib.util, "spec_from_file_location",
                        lambda *_: pytest.fail("imports a file"))
    assert tool(sample, own[1], *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_changed_file_is_warned_of_and_named_by_reproduce(own, tmp_path, capsys):
    file, run = tmp_path / "mlp_digits.py", own[1]
    file.write_text(OWN + "# changed\n")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert tool(sample, run, "--experiment", file, "--num", 1, "--out", tmp_path / "s.npy") == 0
    assert f"warning: {file} was changed since {run} was trained with it" in capsys.readouterr().err
    edited = opening.load_file(file)
    config = launch.parse(edited, [*map(str, (*LITTLE, "--run-dir", run, "--resume", "latest"))])
    with pytest.warns(UserWarning, match=f"{file} was changed since {run} was begun with it"):
        launch.run(edited, config)
    other = tmp_path / "other" / "mlp_digits.py"
    other.parent.mkdir()
    other.write_text(OWN.replace(",) * 2", ",) * 3"))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert tool(reproduce, run, "--experiment", other) == 1
    printed = capsys.readouterr().out
    assert "different: first at step 1" in printed
    assert "environment: experiment_sha256 was " in printed


def test_a_project_experiments_run_needs_no_file(own, run, capsys):
    assert tool(sample, run, "--experiment", own[0]) == 2
    assert "is of this project's experiment 'digits': leave --experiment out" in capsys.readouterr().err


def test_an_own_file_may_not_have_the_name_of_a_script(tmp_path, capsys):
    (tmp_path / "digits.py").write_text(OWN)
    experiment = opening.load_file(tmp_path / "digits.py")
    assert launch.guarded(launch.run, experiment, experiment.configure(run_dir=str(tmp_path / "r"))) == 2
    assert "has the name of this project's experiment digits: rename the file" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "message"), [
    ("", "holds no experiment: it has to say experiment = Experiment"),
    ("experiment = 3\n", "holds no experiment"),
    (OWN.replace('if __name__ == "__main__":\n    ', ""), "trains when it is imported: put launch.main"),
])
def test_files_that_hold_no_experiment_are_refused(content, message, tmp_path):
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(ValueError, match=message):
        opening.load_file(tmp_path / "mine.py")


def test_an_own_files_command_is_its_own(own, monkeypatch):
    """As a script: its name in the help, its folder for a run."""
    experiment = opening.load_file(own[0])
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        launch.parse(experiment, ["--help"])
    assert shown.getvalue().startswith("usage: python mlp_digits.py ")
    assert "Digits drawn by multilayer perceptrons." in shown.getvalue()
