"""The package as it is installed: its parts, its command, and what it says of missing extras."""

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from experiments import commands, opening
from jaxgan import extras, features, pictures
from jaxgan.data import load, open_folder
from tests.test_training import TINY

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
JAXGAN = Path(sys.executable).with_name("jaxgan")  # pip installs it there
EXTRAS = ("data", "train", "evaluate", "video", "wandb", "report", "explore")


def jaxgan(*words, cwd, status=0):
    """What the installed command prints, in a folder that is not the repository."""
    done = subprocess.run([JAXGAN, *map(str, words)], cwd=cwd, text=True, capture_output=True,
                          timeout=300)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_every_folder_of_the_library_is_in_the_package():
    folders = {".".join(path.parent.relative_to(ROOT).parts)
               for path in ROOT.glob("jaxgan/**/__init__.py")}
    assert {*PROJECT["tool"]["setuptools"]["packages"]} == folders | {"jaxgan_experiments"}


def test_requirements_are_the_package_with_all_extras():
    extra = PROJECT["project"]["optional-dependencies"]
    assert extra["all"] == [f"jaxgan[{','.join(EXTRAS)}]"]
    of_package = {*PROJECT["project"]["dependencies"]}.union(*(extra[name] for name in EXTRAS))
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert {line.partition("#")[0].strip() for line in lines} == of_package


@pytest.mark.parametrize("module", extras._PACKAGES)
def test_a_package_is_in_the_extra_that_is_named_for_it(module):
    package, extra = extras._PACKAGES[module]
    names = [re.split(r"[>=]", line)[0] for line in PROJECT["project"]["optional-dependencies"][extra]]
    assert package in names


def test_the_command_lists_all_scripts_by_what_they_are(tmp_path):
    said = jaxgan("--help", cwd=tmp_path)
    for name in ("digits", "stacked_mnist", "sample", "list", "completion"):
        assert re.search(rf"^  {name} +[A-Z]\w*", said, re.MULTILINE), name
    assert said.index("  digits") < said.index("tools:") < said.index("  sample")
    assert not re.search(r"^  (flags|launch|commands)", said, re.MULTILINE)
    assert "experiments." not in said
    assert jaxgan("--version", cwd=tmp_path) == f"jaxgan {metadata.version('jaxgan')}\n"


def test_the_command_trains_and_opens_runs_whatever_the_folder_holds(tmp_path):
    """A user's folder `experiments` is another one, and messages name the command that there is."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise SystemExit('mine')")
    said = jaxgan("gaussians", *TINY, "--steps", 2, "--run-dir", "run", cwd=tmp_path)
    said += (tmp_path / "run" / "report.txt").read_text()
    assert "jaxgan reproduce run" in said
    assert "python -m" not in said
    assert "gaussians" in jaxgan("list", ".", cwd=tmp_path)
    assert jaxgan("stacked-mnist", "--help", cwd=tmp_path).startswith("usage: jaxgan stacked_mnist")
    assert jaxgan("reproduce", "run", cwd=tmp_path).startswith("identical")


def test_a_command_s_help_names_the_others_as_they_are_called(tmp_path):
    said = " ".join(jaxgan("arrays", "--help", cwd=tmp_path).split())
    assert said.startswith("usage: jaxgan arrays")
    assert "so that `jaxgan sample RUN_DIR --out new.npy`" in said


@pytest.mark.parametrize(("words", "message"), [
    (["digit"], "error: there is no command 'digit': did you mean digits?\n"),
    (["flags"], "error: there is no command 'flags': jaxgan --help lists them\n"),
    (["completion", "csh"], "invalid choice: 'csh'")])
def test_a_command_that_isnt_there_is_said_in_a_sentence(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxgan", *words])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def completed(shell_file, line):
    """What bash offers at the end of a line."""
    words = shlex.split(line) + [""] * line.endswith(" ")
    script = f"""source {shell_file}
COMP_WORDS=({' '.join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}
$(complete -p jaxgan | sed -E 's/.*-F ([^ ]+).*/\\1/') jaxgan; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], text=True, capture_output=True, timeout=60)
    return done.stdout.split()


def test_bash_completes_commands_and_options(tmp_path):
    (tmp_path / "jaxgan.bash").write_text(jaxgan("completion", "bash", cwd=tmp_path))
    assert completed(tmp_path / "jaxgan.bash", "jaxgan stacked") == ["stacked_mnist"]
    assert "--n-critic" in completed(tmp_path / "jaxgan.bash", "jaxgan digits --n-")
    assert "--truncation" in completed(tmp_path / "jaxgan.bash", "jaxgan sample --tr")
    assert completed(tmp_path / "jaxgan.bash", "jaxgan digits --str") == ["--stream"]
    assert completed(tmp_path / "jaxgan.bash", "jaxgan compl") == ["completion"]


# What isn't installed.

BLOCKED = """
import sys
for name in sys.argv.pop(1).split(","): sys.modules[name] = None
"""


def without(modules, code, *words):
    """A fresh interpreter in which these modules can't be imported."""
    return subprocess.run([sys.executable, "-c", BLOCKED + code, modules, *words], text=True,
                          timeout=120, capture_output=True)


def test_the_library_needs_no_extra():
    modules = ["losses", "models", "runs", "data", "metrics", "features", "evaluation", "critics"]
    done = without(",".join((*extras._PACKAGES, "h5py", "orbax")),
                   f"import jaxgan, {', '.join(f'jaxgan.{name}' for name in modules)}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("digits", "--steps", "2"), ("completion", "bash")])
def test_a_command_without_its_extra_is_a_sentence(words):
    done = without("tyro", "from jaxgan_experiments.commands import main\nmain()", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("error: tyro isn't installed: pip install 'jaxgan[train]', or 'jaxgan[all]' "
                           "for everything\n")


def test_training_in_python_without_its_extra_is_a_sentence():
    done = without("tqdm", "import jaxgan.training")
    assert done.stderr.endswith("MissingExtra: tqdm isn't installed: pip install 'jaxgan[train]', or "
                                "'jaxgan[all]' for everything\n")
    assert "During handling" not in done.stderr


@pytest.mark.parametrize(("module", "use", "message"), [
    ("sklearn", lambda folder: load("digits"), r"scikit-learn isn't installed: .*\[data\]'"),
    ("PIL", lambda folder: load("digits", image_size=16), r"pillow isn't installed: .*\[data\]'"),
    ("PIL", open_folder, r"pillow isn't installed"),
    ("matplotlib", lambda folder: pictures.save_curves(folder / "a.png", [{"step": 1, "loss": 1.0}]),
     r"matplotlib .*\[train\]'"),
    ("safetensors", lambda folder: features.save_weights(folder / "a.safetensors", {"a": 1.0}),
     r"safetensors .*\[evaluate\]'"),
])
def test_what_needs_an_extra_names_it(module, use, message, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(extras.MissingExtra, match=message):
        use(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_of_the_other_copy_is_said_to_be(tmp_path):
    """In a clone the file says `experiments`, elsewhere `jaxgan_experiments`."""
    path = tmp_path / "mine.py"
    path.write_text("from jaxgan_experiments import digits\nexperiment = digits.experiment\n")
    with pytest.raises(ValueError, match=r"mine\.py imports jaxgan_experiments, which is another copy "
                                         "of experiments: import experiments there"):
        opening.load_file(path)
