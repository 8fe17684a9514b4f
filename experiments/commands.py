"""The scripts of this folder by their names: `jaxgan NAME`, as the installed package runs them.

Nothing is imported at first but what comes with Python: so help comes at once, and what isn't installed
can be said.
"""

import argparse
import ast
import difflib
import os
import re
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

PACKAGE = Path(__file__).resolve().parent
_IS_INSTALLED = __package__ == "jaxgan_experiments"  # as the folder is called there
_HOLDS_EXPERIMENT = re.compile(r"^experiment = Experiment\(", re.MULTILINE)
_STARTS = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
_NAMED = re.compile(r"(?:python -m )?\bexperiments\.(\w+)")
SHELLS = "bash", "zsh"


def called(name: str) -> str:
    """The command of a script."""
    return f"jaxgan {name}" if _IS_INSTALLED else f"python -m experiments.{name}"


def spoken(text: str) -> str:
    """A text that names scripts as in the repository, with what they are called here."""
    return _NAMED.sub(r"jaxgan \1", text) if _IS_INSTALLED else text


def experiments() -> tuple[str, ...]:
    """The experiments: the scripts that hold one."""
    return tuple(name for name, text in _scripts().items() if _HOLDS_EXPERIMENT.search(text))


def tools() -> tuple[str, ...]:
    """The other scripts, which train nothing."""
    return tuple(name for name, text in _scripts().items() if not _HOLDS_EXPERIMENT.search(text))


def _scripts() -> dict[str, str]:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("*.py"))}
    return {name: text for name, text in texts.items() if _STARTS.search(text)}


def main() -> None:
    """Does what `jaxgan` is asked for on the command line, and exits with its status."""
    try:
        with until_nobody_reads():
            _main()
            sys.stdout.flush()
    except KeyboardInterrupt:  # before a script has begun, which sees to it by itself
        _refuse("interrupted", 130)


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """Ends the process where what it prints goes to a pipe that is closed, as by `| head`."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _refuse(sentence: str, status: int = 2) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(status)


def _main() -> None:
    first, *words = sys.argv[1:] or ["--help"]
    known = (*experiments(), *tools())
    if first in ("--help", "-h"):
        print(_help())
    elif first == "--version":
        from jaxgan import __version__
        print(f"jaxgan {__version__}")
    elif first == "completion" or (name := first.replace("-", "_")) in known:
        from jaxgan.extras import MissingExtra, needs
        try:
            needs("tyro", "tqdm")
            _complete(words) if first == "completion" else _run(name, words)
        except MissingExtra as error:
            _refuse(f"error: {error}")
    else:
        close = difflib.get_close_matches(first, known, 1)
        _refuse(f"error: there is no command {first!r}: "
                + (f"did you mean {close[0]}?" if close else "jaxgan --help lists them"))


def _run(name: str, words: Sequence[str]) -> None:
    """Runs a script with these words, as Python does with -m."""
    sys.argv = [called(name), *words]
    runpy.run_module(f"{__package__}.{name}", run_name="__main__", alter_sys=True)


def _help() -> str:
    texts = _scripts()
    width = max(map(len, texts))

    def listed(names: Sequence[str]) -> list[str]:
        about = {name: (ast.get_docstring(ast.parse(texts[name])) or "").partition("\n")[0]
                 for name in names}
        return [f"  {name:{width}}  {spoken(line)}" for name, line in about.items()]

    return "\n".join((
        "usage: jaxgan COMMAND [options]", "", "jaxgan COMMAND --help lists a command's options.", "",
        "experiments, which train:", *listed(experiments()), "", "tools:", *listed(tools()), "",
        f"  {'completion':{width}}  Prints what completes commands and options: for bash or zsh.",
        f"  {'--version':{width}}  Prints the version."))


def _complete(words: Sequence[str]) -> None:
    """Prints a shell's completions of all scripts and their options, which tyro writes."""
    parser = argparse.ArgumentParser("jaxgan completion", description=(
        "Prints completions of commands and options. For bash: jaxgan completion bash > ~/.jaxgan.bash, "
        "and the line source ~/.jaxgan.bash in ~/.bashrc. For zsh: jaxgan completion zsh > _jaxgan in a "
        "folder of $fpath."))
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(words).shell
    from . import launch
    launch.complete(shell)
