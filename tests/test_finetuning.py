"""The commands and names of docs/finetuning.md."""

import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import open_run
from jaxgan.models import DCGANCritic, R3GANCritic, ResNetCritic
from jaxgan.transfer import check_matches, matches
from tests.test_training import run_here

TEXT = (Path(__file__).parents[1] / "docs" / "finetuning.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^    python -m experiments\.(.*)$", TEXT, re.M)]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["dcgan", "resnet", "r3gan"])
def test_a_run_starts_from_another_but_for_what_is_frozen(network, tmp_path, monkeypatch, capsys):
    """By the document's commands; the networks that it doesn't name there by their own patterns."""
    frozen = {"dcgan": "critic/Conv_0,critic/Conv_1", "resnet": "critic/Conv_0,critic/ResidualBlock_0",
              "r3gan": "critic/from_image,critic/stage_1_block_*"}[network]
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for folder in ("many", "few"):
        (tmp_path / folder).mkdir()
        for index in range(8):
            Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(
                tmp_path / folder / f"{index}.png")
    tiny = ("--width", "8", "--batch-size", "4", "--n-critic", "1", "--steps", "2",
            "--sample-every", "0", "--eval-every", "0", "--devices", "1")
    model = () if network == "r3gan" else ("--model", network)
    for name, *words in COMMANDS:
        words = [word.replace("~", str(tmp_path)).replace("32", "16") for word in words]
        words = [frozen if word.startswith("critic/") else word for word in words]
        script, dataset = (("r3gan", ("--dataset", "folder")) if network == "r3gan" else (name, ()))
        assert run_here(script, *words, *tiny, *model, *dataset) == 0, capsys.readouterr().err
    many, few = (open_run(f"runs/{name}").state for name in ("many", "few"))
    moved = []
    for role in ("critic", "generator"):
        before, after = (getattr(state, role).params for state in (many, few))
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after),
                                strict=True):
            stays = any(matches(path, pattern, role) for pattern in frozen.split(","))
            assert np.array_equal(x, y) or not stays, path
            assert np.abs(x - y).max() < 0.1, path  # it would be more of weights that are drawn anew
            moved.append(not np.array_equal(x, y))
    assert np.mean(moved) > 0.5


@pytest.mark.parametrize(("row", "critic"), [
    ("DCGAN", DCGANCritic(2)), ("ResNet (`cifar10`", ResNetCritic((2,) * 4)),
    ("ResNet (`images`)", ResNetCritic((2, 2, 2), 2, "conv", "flatten", attention=(8,))),
    ("R3GAN", R3GANCritic((16, 8), blocks=1))])
def test_the_names_of_layers_are_the_networks(row, critic):
    """And together they are all of it that comes before the end."""
    line, = (line for line in TEXT.splitlines() if line.startswith(f"| {row}"))
    patterns = re.findall(r"`(critic/[^`]*)`", line)
    params = jax.eval_shape(lambda: critic.init(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))["params"]
    check_matches(patterns, {"critic": params})
    left = {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params)
            if not any(matches(path, pattern, "critic") for pattern in patterns)}
    assert left <= {"ResidualBlock_1", "stage_0_block_0", "basis", "features"}
