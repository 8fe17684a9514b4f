"""Compiles training steps for TPUs, on any machine, and tells what their compiler expects of them.

    python -m benchmarks.tpu --networks mnist_dcgan toy_mlp --slices v5e:2x4

Nothing is run: these are a compiler's estimates. README.md says what is estimated and how.
"""

import argparse
import dataclasses
import datetime
import gzip
import hashlib
import json
import math
import os
import re
import shlex
import sys
import time
from collections import Counter
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import flops
from benchmarks.collectives import AllReduce
from benchmarks.links import LINKS, communication
from benchmarks.programs import BRANCHES, Operation, operations, total
from benchmarks.run import positive, say, show_number, show_table
from benchmarks.settings import LANES, NETWORKS, PRESETS, SETTINGS, WGAN_GP, Setting
from benchmarks.timing import Unavailable
from benchmarks.worker import Child, Failed, carried_out, write

# What libtpu needs to know where there is no TPU, and that it isn't alone on the machine.
ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-8",
               "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
               "TPU_MIN_LOG_LEVEL": "3", "TPU_STDERR_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu",
               "XLA_FLAGS": ""}
ALL = SETTINGS | PRESETS
COLUMNS = {"jaxgan": "jaxgan", "remat": "jaxgan --remat", "products": 'jaxgan remat="products"',
           "flax": "stock Flax"}
SPREAD = "spread"  # the column of transformers on slices
TITLES = COLUMNS | {SPREAD: "jaxgan --remat --shard state"}
REMAT: dict[str, bool | str] = {"remat": True, "products": "products", SPREAD: True}
TRANSFORMERS = ("gat_s2", "gat_b2", "gat_xl2")
# What not every network has.
IN_COLUMN = {"flax": (*WGAN_GP, "tiny"), "products": TRANSFORMERS,
             "remat": ("cifar_resnet", "r3gan", "r3gan_cifar10", "stylegan2", "resnet64", *TRANSFORMERS)}
PRECISIONS = ("float32", "bfloat16")
MOST = 5  # operations that a table shows
PRODUCT = 4096  # rows and columns of the matrices whose product is compiled for each chip


class Chip(NamedTuple):
    """What a compiler's cycles are held against.

    Attributes:
        peak: published operations per second, of bfloat16 products.
        memory: bytes of its large memory.
        per_cycle: operations that its matrix units do in a cycle.
        one: the topology of a single chip.
        options: of the topology, that make one device of a chip.
        units: what `per_cycle` is made of.
    """

    peak: float
    memory: float
    per_cycle: int
    one: str
    options: dict[str, str]
    units: str

    @property
    def clock(self) -> float:
        """Cycles a second at which the units reach the published peak."""
        return self.peak / self.per_cycle


CHIPS = {
    "v5e": Chip(197e12, 16e9, 2 * 4 * 128**2, "1x1", {}, "4 units of 128x128"),
    "v4": Chip(275e12, 32e9, 2 * 8 * 128**2, "1x1x1", {"chip_config_name": "megacore"},
               "2 cores of 4 units of 128x128, which are one device"),
    "v5p": Chip(459e12, 95e9, 2 * 8 * 128**2, "1x1x1", {},
                "2 cores of 4 units of 128x128, which are one device"),
    "v6e": Chip(918e12, 32e9, 2 * 2 * 2 * 256**2, "1x1", {},
                "2 units of 256x256, twice a cycle: the compiler expects more of them than once"),
}
SOURCES = ("Peaks, memories and matrix units: Cloud TPU documentation, pages v4, v5e, v5p, v6e. Clocks: "
           "that peak divided by what the units do in a cycle.")


class Estimate(NamedTuple):
    """What the compiler expects of an iteration. A pair is of conditionals' cheapest branches and of
    their dearest; what has one number is of the dearest.

    Attributes:
        operations: floating-point operations that the iteration needs.
        by_hand: whether `flops.py` counts these, or `counted` in what the step was traced to.
        peak: bytes of a chip's large memory: arguments, results and what comes between.
        seconds: to compile.
        cycles: of a chip.
        memory: bytes to and from that memory.
        host: how often something is exchanged with the host.
        kinds: cycles by kind of operation.
        loop: the same of what is in loops, the critic's updates; empty if there is no loop.
        top: the dearest operations, those of one kind and source together: cycles, how many run, kind
            and source.
        exchanged: collectives: how often, bytes each time, whether overlapped, opcode and source.
    """

    operations: float
    by_hand: bool
    peak: int
    seconds: float
    cycles: tuple[float, float]
    memory: tuple[float, float]
    host: tuple[float, float]
    kinds: dict[str, float]
    loop: dict[str, float]
    top: list[tuple[float, float, str, str]]
    exchanged: list[tuple[int, int, bool, str, str]]


class Compiler:
    """A TPU's compiler; for a process of its own, with `ENVIRONMENT`.

    Args:
        keep: a folder in which compiled programs are kept, and looked for; "" for none.
        only_kept: whether what isn't there is left out rather than compiled.

    Raises:
        Unavailable: libtpu isn't installed.
    """

    def __init__(self, keep: str = "", only_kept: bool = False):
        import jax

        try:
            import libtpu  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise Unavailable("libtpu is not installed: pip install -r "
                              "benchmarks/requirements-tpu.txt") from None
        jax.config.update("jax_enable_compilation_cache", False)
        self.keep, self.only_kept = Path(keep) if keep else None, only_kept

    def versions(self) -> dict[str, str]:
        """Of the packages that make a program what it is."""
        return {name: version(name) for name in ("jax", "jaxlib", "libtpu", "flax")}

    def product(self, topology: str) -> float:
        """Operations that a chip does in a cycle of a large product of bfloat16, as estimated."""
        import jax
        import jax.numpy as jnp

        matrix = jax.ShapeDtypeStruct((PRODUCT, PRODUCT), jnp.bfloat16)
        text = self._compiled(self.on_one(jnp.dot, topology).trace(matrix, matrix), topology)["text"]
        return 2 * PRODUCT**3 / total(operations(text), lambda operation: operation.cycles)

    def estimate(self, setting: Setting, column: str, precision: str, topology: str,
                 parallel: bool = False) -> Estimate:
        """Compiles an iteration.

        Args:
            setting: what to train; its batch size is each chip's.
            column: of `TITLES`.
            precision: "float32" or "bfloat16".
            topology: for which chips, as "v5e:2x4".
            parallel: by `data_parallel`, over all of them; else for one.

        Raises:
            Unavailable: the column has no such network, or it isn't kept.
            ValueError: there is no such topology, or a loop's length isn't known.
        """
        if column == "flax":
            traced, count = _stock(setting, self, topology), None
        else:
            traced, count = _jaxgan(setting, precision, self, topology, parallel, column)
        made = self._compiled(traced, topology)
        by_hand = flops.iteration(setting)
        return Estimate(count() if by_hand is None and count else by_hand or 0.0, by_hand is not None,
                        peak=made["peak"], seconds=made["seconds"], **read(made["text"]))

    def lanes(self, name: str, count: int, topology: str) -> tuple[float, float]:
        """Cycles of an iteration of one run of `settings.LANES`, and of so many in one program.

        Where the numbers of a batch's examples are drawn again until they are in the data set
        (`jaxgan.data.order`), which no one can know, it is counted as once.
        """
        import jax

        from benchmarks.lanes import make
        from jaxgan import run_steps
        from jaxgan.lanes import Lane, Together, alike
        from jaxgan.training import example_batch, initial_state

        trained, source, plan = make(name)
        state = initial_state(trained, 0, example_batch(source, plan.batch_size))
        states, keys = (state,) * count, jax.random.split(jax.random.key(0), count)
        one = partial(run_steps, trained, num_steps=1, source=source, batch_size=plan.batch_size,
                      batches_per_step=plan.batches_per_step)
        together = Together(trained, source, [
            Lane(str(lane), trained, "", plan) for lane in range(count)], None)
        common = alike(states), None
        low, high = (
            total(operations(self._compiled(traced, topology)["text"], unknown=1), _cycles)
            for traced in (
                self.on_one(one, topology, donate_argnums=0).trace(state, source.arrays, keys[0]),
                self.on_one(lambda states, arrays, keys: together.steps(
                    common, states, arrays, keys, 1, {}), topology, donate_argnums=0).trace(
                        states, source.arrays, keys)))
        return low, high

    def devices(self, topology: str) -> list:
        """The chips of a topology, all of one host, which is how `data_parallel` maps all of them."""
        from jax.experimental import topologies

        chip, _, shape = topology.partition(":")
        sizes = [int(size) for size in shape.split("x")]
        return list(topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **CHIPS[chip].options,
            chips_per_host_bounds=[*sizes, 1, 1][:3]).devices)

    def on_one(self, function, topology: str, **options):
        """The function, jitted for one chip of a topology, with these options of `jax.jit`."""
        import jax
        from jax.sharding import SingleDeviceSharding

        where = SingleDeviceSharding(self.devices(topology)[0])
        return jax.jit(function, in_shardings=where, out_shardings=where, **options)

    def _compiled(self, traced, topology: str) -> dict[str, Any]:
        """The text of the compiled program, its peak of memory and its seconds; kept if wished."""
        lowered = traced.lower(lowering_platforms=("tpu",))
        named = "\n".join([topology, *self.versions().values(), lowered.as_text()])
        path = None
        if self.keep is not None:
            self.keep.mkdir(parents=True, exist_ok=True)
            path = self.keep / (hashlib.sha256(named.encode()).hexdigest()[:32] + ".json.gz")
            if path.exists():
                return json.loads(gzip.decompress(path.read_bytes()))
        if self.only_kept:
            raise Unavailable("not compiled yet")
        started = time.perf_counter()
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        made = {"text": compiled.as_text(), "seconds": time.perf_counter() - started,
                "peak": memory.argument_size_in_bytes + memory.output_size_in_bytes
                - memory.alias_size_in_bytes + memory.temp_size_in_bytes}
        if path is not None:
            partial_path = path.with_suffix(".partial")
            partial_path.write_bytes(gzip.compress(json.dumps(made).encode()))
            os.replace(partial_path, path)
        return made


def read(text: str) -> dict[str, Any]:
    """What a compiled program's text says, by the names of an `Estimate`'s fields.

    Raises:
        ValueError: the text isn't a program's, or a loop's length isn't known.
    """
    done = [operations(text, branch) for branch in BRANCHES]

    def pair(value) -> tuple[float, float]:
        low, high = (total(each, value) for each in done)
        return low, high

    kinds, loop, cycles, runs = Counter(), Counter(), Counter(), Counter()
    for operation in done[1]:
        cost, times = total([operation], _cycles), total([operation], lambda of: of.cycles > 0)
        kinds[operation.kind] += cost
        if operation.in_loop:
            loop[operation.kind] += cost
        where = operation.kind, operation.source or operation.name
        cycles[where] += cost
        runs[where] += times
    return {"cycles": pair(_cycles), "memory": pair(lambda of: of.memory),
            "host": pair(lambda of: of.kind == "host"), "kinds": dict(kinds), "loop": dict(loop),
            "top": [(cost, runs[where], *where) for where, cost in cycles.most_common(MOST)],
            "exchanged": [(int(total([of], lambda _: 1)), of.bytes, of.overlapped, of.opcode, of.source)
                          for of in done[1] if of.kind == "collective"]}


def _cycles(operation: Operation) -> int:
    return operation.cycles


def _jaxgan(setting: Setting, precision: str, compiler: Compiler, topology: str, parallel: bool,
            column: str):
    """Traces `train_step` as a column has it; returns it and a function that counts operations of one
    without `remat`.
    """
    import jax
    import jax.numpy as jnp

    from benchmarks.networks_jaxgan import make_game
    from jaxgan import GAN, Batch, data_parallel, game
    from jaxgan.parallel import spread

    made = make_game(setting, precision)
    trained = made
    if remat := REMAT.get(column, False):
        assert isinstance(made, GAN)
        trained = dataclasses.replace(made, generator=made.generator.clone(remat=remat),
                                      critic=made.critic.clone(remat=remat))
    steps = game(trained)
    devices = compiler.devices(topology) if parallel else [None]
    shape = (setting.n_critic, setting.batch_size * len(devices), *setting.sample_shape)
    condition = {"classes": jax.ShapeDtypeStruct(shape[:2], jnp.int32),
                 "images": jax.ShapeDtypeStruct(shape, jnp.float32)}
    asked = {"pix2pix": "images", "cyclegan": "images", "transformers": "classes"}.get(
            setting.family, getattr(setting, "condition", ""))
    batches = Batch(jax.ShapeDtypeStruct(shape, jnp.float32), condition.get(asked))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batches)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(steps.init, key, batch)
    if parallel:
        shard = "state" if column == SPREAD else None
        step = jax.jit(data_parallel(steps.step, devices=devices, batch_axis=1, shard=shard),
                       donate_argnums=0)
        if shard:
            state = jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
                                 state, spread(state, devices))
    else:
        step = compiler.on_one(steps.step, topology, donate_argnums=0)
    return (step.trace(state, batches, key),
            lambda: counted(game(made).step, state, batches, key) / len(devices))


def counted(function, *arguments: Any) -> float:
    """Operations of a function's products, of the dearest branches, without those that nothing uses.

    Raises:
        ValueError: some are in a loop whose length isn't known.
    """
    import jax
    from jax.extend.core import jaxprs_in_params
    from jax.interpreters import partial_eval

    from jaxgan import profiling

    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))

    def check(jaxpr) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name == "while" and profiling.operations(
                    equation.params["body_jaxpr"]).most:
                raise ValueError("products are in a loop whose length isn't known")
            for inner in jaxprs_in_params(equation.params):
                check(inner)

    check(used)
    return profiling.operations(used).most


def _stock(setting: Setting, compiler: Compiler, topology: str):
    """Traces the same iteration in Flax's stock layers."""
    import jax
    import jax.numpy as jnp

    from benchmarks.networks_stock import WGAN

    wgan = WGAN(setting)
    key = jax.eval_shape(lambda: jax.random.key(0))
    batches = jax.ShapeDtypeStruct((setting.n_critic, setting.batch_size, *setting.sample_shape),
                                   jnp.float32)
    return compiler.on_one(wgan.iterate, topology, donate_argnums=0).trace(
        jax.eval_shape(wgan.init, key), batches, key)


def open_compiler(options: argparse.Namespace, only_kept: bool | None = None) -> Child:
    """A `Compiler` in a process of its own, which keeps programs as the options say.

    Raises:
        Failed: libtpu isn't installed.
    """
    return Child("benchmarks.tpu:Compiler", str(options.keep.resolve()) if options.keep else "",
                 options.only_kept if only_kept is None else only_kept, timeout=options.timeout,
                 environment=ENVIRONMENT)


def described(compiler: Child) -> list[str]:
    """Lines of markdown: date, versions."""
    return [f"- Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            "- Versions: " + ", ".join(
                f"{name} {number}" for name, number in compiler.call("versions").items())]


def add_keeping(parser: argparse.ArgumentParser) -> None:
    """Gives a command the flags of where compiled programs are kept."""
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="keep compiled programs there, and take those that are there already")
    parser.add_argument("--only-kept", action="store_true",
                        help="leave out what isn't there yet, instead of compiling it")


def parsed(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options of a command that has these flags."""
    options = parser.parse_args(arguments)
    if options.only_kept and not options.keep:
        parser.error("--only-kept needs --keep")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Compiles what the command line asks for."""
    options = parsed(_parser(), arguments)
    return carried_out(lambda: measure(options), options.out)


class Row(NamedTuple):
    """A program that was compiled, and what came out, or why nothing did."""

    setting: Setting
    column: str
    precision: str
    topology: str
    result: Estimate | str

    @property
    def title(self) -> str:
        """What the tables call its column."""
        return f"{TITLES[self.column]} {self.precision}"


def measure(options: argparse.Namespace) -> None:
    """Compiles program after program, and writes the report after each."""
    products: dict[str, float | str] = {}
    with open_compiler(options, only_kept=False) as child:
        about = described(child)
        for chip in dict.fromkeys([*options.chips, *(of.partition(":")[0] for of in options.slices)]):
            products[chip] = child.call("product", f"{chip}:{CHIPS[chip].one}")
    head = ["# What a TPU's compiler expects", "",
            "Written by this command; README.md says what is estimated and how. **There was no TPU: "
            "these are a compiler's estimates, not measurements.**", "",
            "    " + shlex.join(["python", "-m", "benchmarks.tpu", *sys.argv[1:]]), "",
            *about, *_chips(products)]
    rows: list[Row] = []

    def save(lanes: list[list[str]]) -> None:
        write(options.out, [*head, *report(rows), *_together(options, lanes)])

    def attempt(name: str, column: str, precision: str, topology: str, parallel: bool) -> None:
        setting = ALL[name]
        if options.batch:
            setting = dataclasses.replace(setting, batch_size=options.batch)
        say(f"compiling {name}, {column}, {precision}, {topology}")
        try:
            with open_compiler(options) as child:
                result = child.call("estimate", setting, column, precision, topology, parallel)
        except Failed as failure:
            result = str(failure)
        rows.append(Row(setting, column, precision, topology, result))
        save([])

    for chip in options.chips:
        for name in options.networks:
            for column in options.columns:
                if name not in IN_COLUMN.get(column, ALL):
                    continue
                for precision in _precisions(name, column, options.precisions):
                    attempt(name, column, precision, f"{chip}:{CHIPS[chip].one}", False)
    for name in options.slice_networks if options.slices else ():
        column = SPREAD if name in TRANSFORMERS else "jaxgan"
        for topology in options.slices:
            attempt(name, column, _precisions(name, column, options.precisions)[0], topology, True)
    if options.lanes:
        lanes = [_several(name, options) for name in LANES]
        save(lanes)


def _precisions(name: str, column: str, asked: list[str]) -> list[str]:
    """In which a network is compiled: jaxgan's as asked for, others in float32, transformers in half."""
    if name in TRANSFORMERS:
        return ["bfloat16"]
    return asked if column == "jaxgan" else ["float32"]


def _several(name: str, options: argparse.Namespace) -> list[str]:
    """A row on several runs in one program."""
    chip = options.chips[0]
    say(f"compiling {options.lanes} {name} in one program")
    try:
        with open_compiler(options) as child:
            one, many = child.call("lanes", name, options.lanes, f"{chip}:{CHIPS[chip].one}")
    except Failed as failure:
        return [LANES[name], str(failure)]
    return [f"{options.lanes} {LANES[name]}", f"{one / 1e6:.3g}", f"{many / 1e6:.3g}",
            f"{many / one:.3g}", f"{options.lanes * one / many:.3g}"]


def _together(options: argparse.Namespace, rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    return ["", f"## Several runs in one program on one {options.chips[0]}", "",
            "`jaxgan.lanes` by `jax.vmap` (`--seeds`), beside one run; float32, batches drawn on the "
            "chip.", "",
            *show_table(["", "one run, Mcycles an iteration", "all, Mcycles", "time of all, of one's",
                         "samples a second of all, of one's"], rows)]


def report(rows: list[Row]) -> list[str]:
    """The tables, as lines of markdown."""
    lines = []
    for chip in CHIPS:
        alone = [row for row in rows if row.topology == f"{chip}:{CHIPS[chip].one}"]
        if alone:
            lines += _alone(chip, alone)
    slices = [row for row in rows if row.topology.partition(":")[2] != CHIPS[row.topology.partition(
        ":")[0]].one]
    if slices:
        lines += _slices(slices, rows)
    failed = [row for row in rows if isinstance(row.result, str)]
    if failed:
        lines += ["", "## Not compiled", "", *(
            f"- {row.setting.title}, {row.title}, {row.topology}: {row.result}" for row in failed)]
    return lines


def _chips(products: dict[str, float | str]) -> list[str]:
    rows = []
    for name, chip in CHIPS.items():
        if name in products:
            rows.append([name, f"{chip.peak / 1e12:.0f}", f"{chip.memory / 1e9:.0f}", chip.units,
                         f"{chip.per_cycle:,}", f"{chip.clock / 1e9:.2f}", f"{products[name]:,.0f}"])
    return ["", "## Chips", "", SOURCES + f" The last column is what the compiler's own estimate of a "
            f"product of {PRODUCT}x{PRODUCT} matrices comes to.", "",
            *show_table(["chip", "peak, TFLOP/s", "memory, GB", "matrix units", "operations a cycle",
                         "clock, GHz", "of the product, by the compiler"], rows)]


def _alone(chip: str, rows: list[Row]) -> list[str]:
    of = CHIPS[chip]
    main_rows, speeds, costs = [], [], []
    for row in rows:
        name = f"{row.setting.title}, batch {row.setting.batch_size}"
        result = row.result
        if isinstance(result, str):
            main_rows.append([name, row.title, "-"])
            continue
        needed = show_number(result.operations / 1e9) + ("" if result.by_hand else " (traced)")
        share, in_products = (100 * result.operations / max(1, cycles) / of.per_cycle for cycles in (
            result.cycles[1], result.kinds.get("product", 0)))
        within = result.loop or result.kinds
        main_rows.append([
            name, row.title, needed, _range(result.cycles, 1e6), _range(result.cycles, of.clock / 1e3),
            f"{share:.0f}", f"{in_products:.0f}", _range(result.memory, 1e6),
            show_number(result.peak / 1e6), f"{100 * result.peak / of.memory:.2g}",
            *(f"{100 * within.get(kind, 0) / max(1, sum(within.values())):.1f}"
              for kind in ("product", "convert", "move")),
            _range(result.host, 1)])
        for i, (cycles, times, kind, source) in enumerate(result.top):
            costs.append([f"{row.setting.title}, {row.title}" if i == 0 else "",
                          f"{100 * cycles / result.cycles[1]:.1f}", f"{times:.0f}", kind,
                          f"`{_short(source)}`" if source else "-"])
    for setting in dict.fromkeys(row.setting for row in rows):
        cycles = {(row.column, row.precision): row.result.cycles for row in rows
                  if row.setting == setting and not isinstance(row.result, str)}
        base = ("jaxgan", "float32")
        if base not in cycles:
            continue
        speeds.append([setting.title, *(_ratio(cycles.get(over), cycles.get(under)) for over, under in (
            (base, ("jaxgan", "bfloat16")), (("flax", "float32"), base),
            (("flax", "float32"), ("jaxgan", "bfloat16"))))])
    return ["", f"## One {chip}", "",
            "An iteration of `train_step`, its state donated. Operations are counted by hand "
            "(flops.py), or where it says so in what the step is traced to. A range is from all "
            "conditionals' cheapest branches to their dearest; shares are of the dearest.", "",
            *show_table(["network", "column", "GFLOP", "Mcycles", "ms", "of the peak, %",
                         "in products, %", "to and from memory, MB", "peak memory, MB",
                         "of the chip's, %", "products, % of the loop", "converts, %", "moves, %",
                         "with the host"], main_rows),
            "", f"### Speed on a {chip}", "", "Cycles by cycles: above 1 the first is the faster.", "",
            *show_table(["network", "bfloat16 over float32", "jaxgan over stock Flax, float32",
                         "jaxgan bfloat16 over stock Flax float32"], speeds),
            "", f"### What costs most on a {chip}", "",
            "Of an iteration's cycles; operations of one kind and from one place together.", "",
            *show_table(["network", "%", "runs", "kind", "from"], costs)]


def _slices(rows: list[Row], everything: list[Row]) -> list[str]:
    single = {(row.setting, row.column, row.precision, row.topology): row.result for row in everything}
    lines, sums = [], []
    for row in rows:
        result, chip = row.result, row.topology.partition(":")[0]
        name = f"{row.setting.title}, batch {row.setting.batch_size} a chip, {row.title}"
        if isinstance(result, str):
            lines.append([name, row.topology, "-"])
            continue
        alone = single.get((row.setting, row.column, row.precision, f"{chip}:{CHIPS[chip].one}"))
        count = sum(times for times, *_ in result.exchanged)
        overlapped = sum(times for times, _, overlapped, *_ in result.exchanged if overlapped)
        lines.append([
            name, row.topology, str(count), str(overlapped),
            f"{sum(times * size for times, size, *_ in result.exchanged) / 1e6:.3g}",
            _range(result.cycles, 1e6),
            f"{100 * result.operations / max(1, result.cycles[1]) / CHIPS[chip].per_cycle:.0f}",
            show_number(result.peak / 1e6),
            "-" if alone is None or isinstance(alone, str) else _ratio(result.cycles, alone.cycles),
            *_pace(row, result)])
        kinds: dict[tuple[str, str], list[float]] = {}
        for times, size, _, opcode, source in result.exchanged:
            whole = kinds.setdefault((opcode, _short(source)), [0, 0])
            whole[0] += times
            whole[1] += times * size
        for i, ((opcode, source), (times, size)) in enumerate(
                sorted(kinds.items(), key=lambda item: -item[1][1])[:MOST]):
            sums.append([f"{row.setting.title}, {row.topology}" if i == 0 else "", opcode,
                         f"{times:.0f}", f"{size / 1e6:.3g}", f"`{source}`" if source else "-"])
    return ["", "## Slices", "",
            "`data_parallel(train_step)` over all chips of a slice. Cycles are of what a chip computes: "
            "the compiler gives none for what the chips exchange. Overlapped is what has a start and "
            "an end with other work between. Exchanging is predicted as README.md says of scaling, from "
            "published bandwidths, where links.py has the link; samples are those of all chips per "
            "second of both, one after the other, with the dearest branches.", "",
            *show_table(["network", "slice", "collectives an iteration", "of them overlapped", "MB",
                         "Mcycles a chip", "of the peak, %", "peak memory, MB a chip",
                         "over one chip's", "computing, ms", "exchanging, ms",
                         "critic samples/s, thousands"], lines),
            "", "### What is exchanged", "",
            *show_table(["network", "operation", "times", "MB in all", "from"], sums)]


def _pace(row: Row, result: Estimate) -> list[str]:
    """Milliseconds of computing and of exchanging, and what comes of it; "-" where no link is known."""
    chip, _, shape = row.topology.partition(":")
    chips = math.prod(int(size) for size in shape.split("x"))
    computing = result.cycles[1] / CHIPS[chip].clock
    link = next((link for link in LINKS if link.name == f"TPU {chip} ICI"), None)
    # Of an all-reduce of as many bytes: what gathers makes all of them, what scatters a chip's part.
    share = {"all-reduce": 1.0, "all-gather": 0.5, "reduce-scatter": chips / 2}
    opcodes = [opcode.removesuffix("-done") for *_, opcode, _ in result.exchanged]
    if link is None or not share.keys() >= {*opcodes}:
        return [show_number(1e3 * computing), "-", "-"]
    exchanging = communication([
        AllReduce(times, 1, round(share[opcode] * size), source)
        for opcode, (times, size, _, _, source) in zip(opcodes, result.exchanged, strict=True)],
        link, chips)
    samples = chips * row.setting.batch_size * row.setting.n_critic / (computing + exchanging)
    return [show_number(1e3 * value) for value in (computing, exchanging)] + [show_number(samples / 1e3)]


def _range(pair: tuple[float, float], unit: float) -> str:
    low, high = (show_number(value / unit) for value in pair)
    return low if low == high else f"{low} to {high}"


def _ratio(over: tuple[float, float] | None, under: tuple[float, float] | None) -> str:
    if over is None or under is None:
        return "-"
    low, high = (f"{one / other:.2f}" for one, other in zip(over, under, strict=True))
    return low if low == high else f"{low} to {high}"


def _short(source: str) -> str:
    """The end of a path of functions, without those that say little."""
    parts = [part for part in source.split("/")
             if part not in ("closed_call", "body", "while", "jit(_fun)", "shard_map")]
    return "/".join(parts[-4:])


def _slice(text: str) -> str:
    """An argparse type: a chip that is known here, and a shape that its compiler may know."""
    chip, _, shape = text.partition(":")
    if chip not in CHIPS or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
        raise argparse.ArgumentTypeError(f"must be like v5e:2x4, of {', '.join(CHIPS)}; got {text}")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", choices=ALL,
                        default=[*NETWORKS, "resnet64", "text", "gat_b2"])
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=[*COLUMNS])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=[*PRECISIONS],
                        help="of jaxgan; the others are in float32, and transformers in bfloat16 alone")
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=["v5e"])
    parser.add_argument("--batch", type=positive(int),
                        help="samples in a critic update, instead of each network's own number")
    parser.add_argument("--slices", nargs="*", type=_slice, metavar="CHIP:SHAPE",
                        default=["v5e:2x4", "v5e:4x4", "v4:2x2x2", "v5p:2x2x2", "v6e:2x4"])
    parser.add_argument("--slice-networks", nargs="+", choices=ALL,
                        default=["toy_mlp", "cifar_resnet", "cifar_dcgan"],
                        help="which networks are compiled for slices")
    parser.add_argument("--lanes", type=int, default=8,
                        help="runs in one program, beside one; 0: none")
    parser.add_argument("--timeout", type=positive(float), default=3600.0,
                        help="seconds after which a program is given up")
    add_keeping(parser)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("TPU.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
