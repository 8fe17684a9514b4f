"""Measures jaxgan beside Flax's stock layers and PyTorch, interleaved, and writes the tables.

    python -m benchmarks.run --networks mnist_dcgan toy_mlp --repeats 5 --seconds 5

README.md says what is measured and how.
"""

import argparse
import contextlib
import shlex
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import flops, machine
from benchmarks.settings import (
    AUGMENTATIONS,
    CONSTRAINTS,
    CRITICS,
    LANES,
    NETWORKS,
    PENALISED,
    SETTINGS,
    Setting,
)
from benchmarks.timing import Summary, summarise
from benchmarks.worker import Child, Failed, carried_out, write

TABLES = ("iterations", "products", "sampling", "dispatch", "reporting", "critics", "augmentations",
          "differences", "lanes")
# Products of the shapes that patches and kernels have in these networks, and a large square one.
SHAPES = [(6272, 1600, 128), (16384, 1152, 128), (2048, 3200, 256), (2048, 2048, 2048)]
DRAWS = 16  # of directions of finite differences
RATES = {"XLA": "benchmarks.networks_jaxgan:MatrixProducts",
         "PyTorch": "benchmarks.networks_torch:MatrixProducts"}


class Column(NamedTuple):
    """One way to train.

    Attributes:
        title: what the tables call it.
        target: its class, or a function that makes the object, as "module:name".
        precision: "float32", "tf32" or "bfloat16".
        arguments: what its constructor takes after setting and precision.
        note: a footnote.
    """

    title: str
    target: str
    precision: str
    arguments: tuple = ()
    note: str = ""


COLUMNS = {
    "jaxgan-float32": Column("jaxgan float32", "benchmarks.networks_jaxgan:Training", "float32"),
    "jaxgan-tf32": Column("jaxgan TF32", "benchmarks.networks_jaxgan:Training", "tf32"),
    "jaxgan-bfloat16": Column("jaxgan bfloat16", "benchmarks.networks_jaxgan:Training", "bfloat16"),
    "flax-float32": Column("stock Flax float32", "benchmarks.networks_stock:Training", "float32"),
    "torch-float32": Column("PyTorch eager float32", "benchmarks.training_torch:training", "float32"),
    "torch-tf32": Column("PyTorch eager TF32", "benchmarks.training_torch:training", "tf32"),
    "torch-bfloat16": Column("PyTorch bfloat16 autocast", "benchmarks.training_torch:training",
                             "bfloat16"),
    "torch-compile": Column("torch.compile float32", "benchmarks.training_torch:training", "float32",
                            (True,), "torch.compile has no double backward: the generator and the "
                            "scores of reals and fakes are compiled, the penalty's critic is eager"),
}
BASELINE = "torch-float32"
QUIET = 5.0  # percent of the processor that others may take


class Measured(NamedTuple):
    """What came out for one column of one network.

    Attributes:
        rates: iterations per second of each repeat.
        count: iterations of a repeat, a multiple of the setting's cycle.
        compile: seconds to compile; where nothing is compiled, of the first iteration.
        before: bytes of memory before that: imports, data and parameters.
        peak: the largest number of bytes of memory.
        device: the same of an accelerator's memory; 0 where there is none.
        sampling: samples per second of each repeat.
    """

    rates: list[float]
    count: int
    compile: float
    before: int
    peak: int
    device: int
    sampling: list[float]


class Network(NamedTuple):
    """What came out for one network.

    Attributes:
        setting: of which.
        columns: by the column's name; why not, where it could not be measured.
        products: operations per second of matrix products in each round, by library and precision.
        slow: the columns that were too slow for more than one iteration, or cycle.
        others: percent of the processors that others took meanwhile; None if not known.
    """

    setting: Setting
    columns: dict[str, Measured | str]
    products: dict[tuple[str, str], list[float]]
    slow: set[str]
    others: float | None


def main(arguments: list[str] | None = None) -> int:
    """Measures what the command line asks for."""
    options = _parser().parse_args(arguments)
    return carried_out(lambda: measure(options), options.out)


def measure(options: argparse.Namespace) -> None:
    """Measures network after network, and writes the report after each repeat."""
    with Child("benchmarks.machine:Probe", timeout=options.timeout) as probe:
        devices = probe.call("devices")
    names = options.columns or [name for name, column in COLUMNS.items()
                                if column.precision != "tf32" or devices["platform"] != "cpu"]
    head = ["# Benchmark results", "",
            "Written by this command; README.md says what is measured and how.", "",
            "    " + shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]), "",
            *machine.describe(devices)]
    networks: dict[str, Network] = {}
    others: dict[str, list[str]] = {}

    def save() -> None:
        write(options.out, [*head, *report([*networks.values()], names, devices,
                                           "sampling" in options.tables),
                            *(line for lines in others.values() for line in lines)])

    if {"iterations", "products", "sampling"} & {*options.tables}:
        for name in options.networks:
            for network in measure_network(SETTINGS[name], names, options):
                networks[name] = network
                save()
    for table, measured in (("dispatch", measure_dispatch), ("reporting", measure_reporting),
                            ("critics", measure_critics), ("augmentations", measure_augmentations),
                            ("differences", measure_differences)):
        if table in options.tables:
            others[table] = measured(options)
            save()
    if "lanes" in options.tables:
        for lines in measure_lanes(options):
            others["lanes"] = lines
            save()
    save()


def measure_network(setting: Setting, names: list[str], options: argparse.Namespace
                    ) -> Iterator[Network]:
    """Builds every column, then repeats them by turns; so too for sampling.

    Yields what is known so far after each repeat, and after sampling.

    Whatever is timed is a number of iterations that the setting's cycle divides, so that it holds as
    much of each lazy term as a whole run does, wherever in a cycle it begins.
    """
    columns: dict[str, Measured | str] = {}
    cycle = setting.cycle
    with contextlib.ExitStack() as stack:
        children: dict[str, Child] = {}
        first: dict[str, tuple[float, float, int]] = {}  # compilation, an iteration, memory before
        for name in names:
            column = COLUMNS[name]
            say(f"{setting.name}: building {column.title}")
            try:
                child = stack.enter_context(Child(column.target, setting, column.precision,
                                                  *column.arguments, timeout=options.timeout))
                before = child.peak_memory()
                built = child.call("build")["compile"]
                first[name] = built, child.timed("advance", cycle)[0] / cycle, before
                children[name] = child
            except Failed as failure:
                columns[name] = str(failure)
        rates = {name: [] for name in children}
        quickest = min((seconds for _, seconds, _ in first.values()), default=0.0)
        slow = {name for name, (_, seconds, _) in first.items() if name != BASELINE
                and cycle * seconds > 2 * options.seconds and seconds > 5 * quickest}
        counts = dict.fromkeys(children, cycle)
        for name in list(children):
            if name in slow:
                rates[name].append(1 / first[name][1])
            elif cycle * first[name][1] < 4 * options.seconds:  # often less from the second on
                _try(columns, children, name, _calibrate, counts, children[name], name,
                     first[name][1], options.seconds, cycle)

        products: dict[tuple[str, str], list[float]] = {}
        precisions = sorted({COLUMNS[name].precision for name in names}, reverse=True)
        libraries = _start_products(stack, precisions, options)
        processes = [child.pid for child in (*children.values(), *libraries.values())]
        before = machine.usage(processes)
        memory: dict[str, tuple[int, int]] = {}
        sampling: dict[str, list[float]] = {name: [] for name in children}

        def found() -> Network:
            return Network(setting, columns | {
                name: Measured(rates[name], counts[name], first[name][0], first[name][2], *memory[name],
                               sampling[name]) for name in children}, products, slow, others)

        for repeat in range(options.repeats):
            say(f"{setting.name}: repeat {repeat + 1} of {options.repeats}")
            order = [*children]
            shift = repeat % max(1, len(order))
            for name in order[shift:] + order[:shift]:
                if name not in slow:
                    _try(columns, children, name, lambda name=name: rates[name].append(
                        counts[name] / children[name].timed("advance", counts[name])[0]))
            for library, child in libraries.items():
                for precision in precisions:
                    products.setdefault((library, precision), []).append(
                        child.call("rate", precision, SHAPES))
            others = machine.others_percent(before, machine.usage(processes))
            for name in list(children):
                _try(columns, children, name, lambda name=name: memory.update({
                    name: (children[name].peak_memory(), children[name].call("device_memory"))}))
            yield found()
        if "sampling" in options.tables:
            _sample(setting, columns, children, sampling, options)
            yield found()


def measure_dispatch(options: argparse.Namespace) -> list[str]:
    """Times one iteration a call against many, on a network so small that the difference shows."""
    ways = {"many": "`run_steps`, 500 iterations a call",
            "one": "`run_steps`, one iteration a call",
            "one_train_step": "`train_step` with given batches, one iteration a call"}
    count, seconds = 500, {way: [] for way in ways}
    setting = SETTINGS["tiny"]
    with Child("benchmarks.networks_jaxgan:Dispatches", setting, timeout=options.timeout) as child:
        for repeat in range(options.repeats + 1):
            say(f"dispatch: repeat {repeat} of {options.repeats}")
            for way in ways:
                elapsed = child.call("seconds", way, count)
                if repeat > 0:  # the first compiles
                    seconds[way].append(elapsed / count)
    rows = [[title, show_spread(summarise([1 / s for s in seconds[way]])),
             f"{1e6 * statistics.median(seconds[way]):.0f}",
             f"{1e6 * statistics.median(_differences(seconds[way], seconds['many'])):.0f}"]
            for way, title in ways.items()]
    return ["", "## Overhead of a dispatch", "",
            f"An MLP of width {setting.width}, batch {setting.batch_size}, n = {setting.n_critic}; "
            "calls are not waited for one by one. Median [quartiles] of "
            f"{options.repeats} repeats.", "",
            *show_table(["way", "iterations/s", "us/iteration", "more than many a call, us"], rows)]


def measure_reporting(options: argparse.Namespace) -> list[str]:
    """Times training with its logs, pictures and checkpoints against bare iterations."""
    say("logs, pictures and checkpoints")
    changes = dict(item.split("=") for item in options.reporting_settings)
    changes = {name: int(value) for name, value in changes.items()}
    # All segments are one call: it may take as long as so many calls.
    with Child("benchmarks.reporting:Reporting", changes,
               timeout=options.timeout * options.repeats) as child:
        result = child.call("measure", options.repeats)
    ratios = [100 * (train / bare - 1)
              for train, bare in zip(result["train"], result["bare"], strict=True)]
    whole = statistics.median(result["bare"]) * result["steps"] / result["period"]
    overhead, end = summarise(ratios), 100 * result["finish"] / whole
    rows = [[f"{result['period']} bare iterations, s", show_spread(summarise(result["bare"]))],
            ["the same in `training.train`, s", show_spread(summarise(result["train"]))],
            ["more, %", show_spread(overhead, sign=True)],
            [f"curves at the end of {result['steps']} iterations, %", f"{end:+.2f}"],
            ["**both: cost of reporting, % of a run**", f"**{overhead.median + end:.2f}**"]]
    return ["", "## Logs, pictures and checkpoints", "",
            "`experiments.digits --model dcgan`, beside bare `run_steps` in dispatches of "
            f"half a second, by turns; median [quartiles] of {options.repeats} pairs. Each holds one "
            "checkpoint, and the pictures and log points up to it.", "",
            *show_table(["", "value"], rows)]


def measure_critics(options: argparse.Namespace) -> list[str]:
    """Times an update of critics that are constrained in each way against an unconstrained one."""
    rows = {way: [title] for way, title in CONSTRAINTS.items()}
    for name in CRITICS:
        with Child("benchmarks.critics:Critics", name, timeout=options.timeout) as child:
            _add_beside_none(rows, child, f"critics: {name}", options)
    heads = [f"{title}: {unit}" for title in CRITICS.values()
             for unit in ("ms an update", "of an unconstrained one's")]
    return ["", "## Lipschitz constraints", "",
            "Updates of a critic alone on the same random numbers, Adam; median [quartiles] of "
            f"{options.repeats} repeats by turns.", "",
            *show_table(["constraint", *heads], [*rows.values()])]


def measure_augmentations(options: argparse.Namespace) -> list[str]:
    """Times an update of a critic whose images are changed in each way against one as they are."""
    rows = {way: [title] for way, title in AUGMENTATIONS.items()}
    with Child("benchmarks.augmentations:Augmentations", 32, (64, 32, 32, 3),
               timeout=options.timeout) as child:
        _add_beside_none(rows, child, "augmentations", options)
    return ["", "## Augmentations", "",
            "Updates of a critic alone with R1, which goes through the change: a DCGAN of 32 channels, "
            f"32x32x3, batch 64, Adam; median [quartiles] of {options.repeats} repeats by turns.", "",
            *show_table(["change", "ms an update", "of one without"], [*rows.values()])]


def measure_differences(options: argparse.Namespace) -> list[str]:
    """Times R1, exact and by finite differences, against updates without; and how far they are apart."""
    lines = []
    for name, chosen in PENALISED.items():
        rows: dict[str, list[str]] = {way: [] for way in ("none", "exact", "difference")}
        with Child("benchmarks.differences:Differences", name, timeout=options.timeout) as child:
            _add_beside_none(rows, child, f"differences: {name}", options)
            apart = child.call("apart", DRAWS)
        lines.append([f"{chosen.title}, batch {chosen.batch_size}", rows["none"][0],
                      *(rows[way][1] for way in ("exact", "difference")), f"{100 * apart['error']:.2g}",
                      f"{apart['one']:.2f}", f"{apart['many']:.2f}"])
    return ["", "## R1 by finite differences", "",
            "Updates of a critic alone on random samples, Adam; median [quartiles] of "
            f"{options.repeats} repeats by turns. The error is that of the difference over steps of "
            "0.01 beside the gradient's product with the same direction, root mean squares. The cosines "
            "are of the penalty's derivative by the parameters with that of R1 itself: of one draw of "
            f"directions, and of the mean of {DRAWS}; after ten updates.", "",
            *show_table(["critic", "without, ms an update", "R1, of one without",
                         "by differences, of one without", "error, %", "cosine, one draw",
                         f"cosine, {DRAWS} draws"], lines)]


def _add_beside_none(rows: dict[str, list[str]], child: Child, title: str, options: argparse.Namespace
                     ) -> None:
    """Times a child's ways by turns; adds the milliseconds of each, and its time beside "none"'s."""
    seconds: dict[str, list[float]] = {way: [] for way in rows}
    for way in rows:
        child.call("seconds", way, 1)  # compiles
    count = max(1, round(options.seconds / child.call("seconds", [*rows][-1], 1)))
    for repeat in range(options.repeats):
        say(f"{title}, repeat {repeat + 1} of {options.repeats}")
        for way, found in seconds.items():
            found.append(child.call("seconds", way, count) / count)
    for way, row in rows.items():
        ratios = [mine / free for mine, free in zip(seconds[way], seconds["none"], strict=True)]
        row += [f"{1e3 * statistics.median(seconds[way]):.2f}", show_spread(summarise(ratios))]


def measure_lanes(options: argparse.Namespace) -> Iterator[list[str]]:
    """Times several runs in one program against one run by itself; yields the table after each row."""
    rows = []
    for name, title in LANES.items():
        seconds: dict[str, list[float]] = {"one": [], "together": []}
        with Child("benchmarks.lanes:Lanes", name, options.lanes, timeout=options.timeout) as child:
            compile_seconds = {way: child.call("seconds", way, 1) for way in seconds}
            count = max(1, round(options.seconds / child.call("seconds", "together", 1)))
            for repeat in range(options.repeats):
                say(f"lanes: {name}, repeat {repeat + 1} of {options.repeats}")
                for way, found in seconds.items():
                    found.append(child.call("seconds", way, count) / count)
        pairs = [*zip(seconds["together"], seconds["one"], strict=True)]
        rows.append([f"{options.lanes} {title}", f"{1e3 * statistics.median(seconds['one']):.2f}",
                     show_spread(summarise([mine / lone for mine, lone in pairs])),
                     show_spread(summarise([options.lanes * lone / mine for mine, lone in pairs])),
                     f"{compile_seconds['one']:.1f}, {compile_seconds['together']:.1f}"])
        yield ["", "## Several runs in one program", "",
               "`jaxgan.lanes` by `jax.vmap`, beside one run by itself; median [quartiles] of "
               f"{options.repeats} repeats by turns.", "",
               *show_table(["", "one run, ms an iteration", "time of all, of one's",
                            "samples a second of all, of one's", "first call, s: one, all"], rows)]


def report(networks: list[Network], names: list[str], devices: dict, sampling: bool) -> list[str]:
    """The tables of what was measured for each network, as lines of markdown."""
    if not networks:
        return []
    notes = _Notes()
    lines = ["", "## Speed relative to PyTorch eager float32", "",
             "Iterations per second divided by PyTorch's in the same round; median [quartiles].", ""]
    if any((network.others or 0.0) >= QUIET for network in networks):
        lines += ["**Not a quiet machine, these ratios prove nothing**: PyTorch's threads lose far more "
                  "than their share to a neighbour, XLA's don't.", ""]
    rows = []
    for name in names:
        cells = [_ratio(network, name, notes) for network in networks]
        rows.append([COLUMNS[name].title + notes.mark(COLUMNS[name].note), *cells])
    lines += [*show_table(["", *(network.setting.title for network in networks)], rows)]
    for network in networks:
        lines += _network_table(network, names, devices, notes)
    if any(network.products for network in networks):
        lines += _products_table(networks)
    if sampling:
        rows = [[COLUMNS[name].title + notes.mark(COLUMNS[name].note),
                 *(_cell(network, name, lambda m: show_spread(summarise(m.sampling)), notes)
                   for network in networks)] for name in names]
        lines += ["", "## Sampling", "",
                  "Samples per second, " + ", ".join(
                      f"{network.setting.title} {network.setting.sampling_batch} at once"
                      for network in networks) + "; median [quartiles].", "",
                  *show_table(["", *(network.setting.title for network in networks)], rows)]
    return [*lines, *notes.lines()]


class _Notes:
    """Footnotes, numbered as they come up."""

    def __init__(self):
        self._texts: list[str] = []

    def mark(self, text: str) -> str:
        """The mark of a note; empty if its text is."""
        if not text:
            return ""
        if text not in self._texts:
            self._texts.append(text)
        return f" ({self._texts.index(text) + 1})"

    def lines(self) -> list[str]:
        """The notes."""
        return ["", *(f"({number}) {text}.\n" for number, text in enumerate(self._texts, 1))]


def _network_table(network: Network, names: list[str], devices: dict, notes: _Notes) -> list[str]:
    setting, operations = network.setting, flops.iteration(network.setting)
    on_device = devices["platform"] != "cpu"
    rows = []
    for name in names:
        column = COLUMNS[name]
        title = column.title + notes.mark(column.note)
        measured = network.columns[name]
        if isinstance(measured, str):
            rows.append([title, "-" + notes.mark(measured)])
            continue
        pace = summarise(measured.rates)
        slow = notes.mark("one repeat of as few iterations as can be: it takes too long for more") \
            if name in network.slow else ""
        best = max((statistics.median(values) for (_, precision), values in network.products.items()
                    if precision == column.precision), default=None)
        row = [title, show_spread(pace) + slow, f"{1 / pace.median:.3g}", _ratio(network, name, notes),
               "-" if best is None or operations is None else
               f"{100 * operations * pace.median / best:.0f}"]
        if on_device:
            peak = devices["peaks"].get(column.precision)
            row.append("-" if peak is None or operations is None else
                       f"{100 * operations * pace.median / peak:.1f}")
        row += [f"{measured.compile:.1f}", f"{measured.peak / 2**20:.0f}",
                f"{measured.before / 2**20:.0f}"]
        if on_device:
            row.append(f"{measured.device / 2**20:.0f}")
        rows.append([*row, f"{len(measured.rates)} x {measured.count}"])
    header = ["", "iterations/s", "s/iteration", "x PyTorch float32", "% of matrix rate",
              *(["% of card's peak"] if on_device else []), "compile, s", "peak MiB", "before, MiB",
              *(["device MiB"] if on_device else []), "repeats x iterations"]
    return ["", f"## {setting.title}", "",
            f"n = {setting.n_critic}, batch {setting.batch_size}, generator batch "
            f"{setting.generator_batches * setting.batch_size}, "
            + ("operations not counted" if operations is None else
               f"{operations / 1e9:.3g} GFLOP an iteration")
            + f".{_others(network)}", "", *show_table(header, rows)]


def _others(network: Network) -> str:
    if network.others is None:
        return ""
    quiet = "" if network.others < QUIET else ": not a quiet machine, these numbers prove nothing"
    return f" Other processes took {network.others:.0f} % of the processor{quiet}."


def _products_table(networks: list[Network]) -> list[str]:
    merged: dict[tuple[str, str], list[float]] = {}
    for network in networks:
        for key, values in network.products.items():
            merged.setdefault(key, []).extend(value / 1e9 for value in values)
    rows = [[library, precision, show_spread(summarise(values))]
            for (library, precision), values in merged.items()]
    return ["", "## Matrix products", "",
            "The highest rate of the shapes (rows, inner, columns) "
            + ", ".join(map(str, SHAPES)) + "; bfloat16 operands are summed in float32 (XLA also "
            "returns float32, PyTorch bfloat16). Median [quartiles] over all rounds.", "",
            *show_table(["library", "operands", "GFLOP/s"], rows)]


def _ratio(network: Network, name: str, notes: _Notes) -> str:
    base, measured = network.columns.get(BASELINE, "PyTorch was not measured"), network.columns[name]
    if isinstance(measured, str):
        return "-" + notes.mark(measured)
    if isinstance(base, str):
        return "-" + notes.mark(base)
    if len(measured.rates) == len(base.rates):
        ratios = [rate / of for rate, of in zip(measured.rates, base.rates, strict=True)]
    else:
        ratios = [statistics.median(measured.rates) / statistics.median(base.rates)]
    return show_spread(summarise(ratios))


def _cell(network: Network, name: str, text, notes: _Notes) -> str:
    measured = network.columns[name]
    if isinstance(measured, str):
        return "-" + notes.mark(measured)
    return text(measured) if measured.sampling else "-"


def show_spread(summary: Summary, sign: bool = False) -> str:
    """A median and its quartiles; with their signs and two decimals if `sign`."""
    form = (lambda x: f"{x:+.2f}") if sign else show_number
    if summary.repeats < 2:
        return form(summary.median)
    return f"{form(summary.median)} [{form(summary.low)}, {form(summary.high)}]"


def show_number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show_table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """A table as lines of markdown; short rows are filled up."""
    rows = [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return ["| " + " | ".join(cells) + " |"
            for cells in [header, ["---"] * len(header), *rows]]


def _differences(values: list[float], base: list[float]) -> list[float]:
    return [value - other for value, other in zip(values, base, strict=True)]


def _calibrate(counts: dict[str, int], child: Child, name: str, seconds: float, aim: float,
               cycle: int) -> None:
    """Sets how many iterations, whole cycles, take about `aim` seconds, from the `seconds` of one."""
    previous = float("inf")
    while seconds < previous / 2:
        previous, count = seconds, cycle * max(1, int(aim / 4 / seconds / cycle))
        seconds = child.timed("advance", count)[0] / count
    counts[name] = cycle * max(1, round(aim / seconds / cycle))


def _sample(setting: Setting, columns: dict, children: dict[str, Child],
            sampling: dict[str, list[float]], options: argparse.Namespace) -> None:
    counts = {}
    for name in list(children):
        def prepare(name=name):
            children[name].call("sample", 1)  # compiles
            seconds = children[name].timed("sample", 1)[0]
            counts[name] = max(1, round(options.seconds / 4 / seconds))
        _try(columns, children, name, prepare)
    for repeat in range(options.repeats):
        say(f"{setting.name}: sampling, repeat {repeat + 1} of {options.repeats}")
        for name in list(children):
            _try(columns, children, name, lambda name=name: sampling[name].append(
                counts[name] * setting.sampling_batch
                / children[name].timed("sample", counts[name])[0]))


def _start_products(stack: contextlib.ExitStack, precisions: list[str],
                    options: argparse.Namespace) -> dict[str, Child]:
    libraries = {}
    for library, target in RATES.items() if "products" in options.tables else ():
        try:
            child = stack.enter_context(Child(target, timeout=options.timeout))
            for precision in precisions:
                child.call("rate", precision, SHAPES)  # compiles
        except Failed as failure:
            say(f"no matrix products of {library}: {failure}")
        else:
            libraries[library] = child
    return libraries


def _try(columns: dict[str, Any], children: dict[str, Child], name: str, function, *arguments) -> None:
    """Calls; if that fails, notes why and drops the column."""
    try:
        function(*arguments)
    except Failed as failure:
        columns[name] = str(failure)
        children.pop(name).close()


def say(text: str) -> None:
    """Says what is going on."""
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=SETTINGS, default=NETWORKS)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS,
                        help="by default all that the device has (TF32 on a GPU only)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES)
    parser.add_argument("--lanes", type=positive(int), default=8,
                        help="runs in one program, of the table of that name")
    parser.add_argument("--repeats", type=positive(int), default=5)
    parser.add_argument("--seconds", type=positive(float), default=5.0,
                        help="about how long a repeat lasts; at least one iteration")
    parser.add_argument("--timeout", type=positive(float), default=1200.0,
                        help="seconds after which a column is given up")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    parser.add_argument("--reporting-settings", nargs="*", default=[], metavar="NAME=INTEGER",
                        help="other settings of experiments.digits, for a quick test")
    return parser


def positive(kind):
    """An argparse type: a `kind` above 0."""

    def parse(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0; got {text}")
        return value
    return parse


if __name__ == "__main__":
    sys.exit(main())
