"""Measures weak and strong scaling over devices, and predicts it for many more.

    python -m benchmarks.scaling --devices 1 2 4 8 --network mnist_dcgan
    python -m benchmarks.scaling --compiled cifar_resnet --keep FOLDER

Over the accelerators of this machine if it has several, else over forced host devices, which share
the processor's cores; or, compiled, for slices of a TPU that isn't there. README.md says what is
measured and how.
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import statistics
import sys
from functools import partial
from pathlib import Path

from benchmarks import flops, machine, predicted
from benchmarks.collectives import AllReduce
from benchmarks.links import LINKS, communication, show_links
from benchmarks.run import positive, say, show_spread, show_table
from benchmarks.settings import SETTINGS, WGAN_GP
from benchmarks.timing import summarise
from benchmarks.tpu import add_keeping, parsed
from benchmarks.worker import Child, Failed, carried_out, write_part

PREDICTED = (8, 64, 512)
_WAIT_EVERY = 8  # jax 0.10's processor collectives can block each other in longer queues


class Scaled:
    """`data_parallel(train_step)` over some of the devices; for a process of its own.

    Args:
        setting: what to train; its batch size is that of all devices together.
        devices: how many.
    """

    def __init__(self, setting, devices: int):
        import jax
        import jax.numpy as jnp

        from benchmarks.networks_jaxgan import configure, make_gan
        from jaxgan import Batch, data_parallel, game, train_step
        from jaxgan.training import initial_state

        configure("float32")
        self.jax, self.key = jax, jax.random.key(0)
        gan = make_gan(setting)
        self.step = data_parallel(partial(train_step, gan), devices=jax.local_devices()[:devices],
                                  batch_axis=1)
        shape = (setting.n_critic, setting.batch_size, *setting.sample_shape)
        self.batches = Batch(jax.random.uniform(self.key, shape))
        self.state = initial_state(game(gan), 0, Batch(jnp.zeros(shape[1:])))

    def build(self) -> list[AllReduce]:
        """Runs one iteration; returns the program's all-reduces."""
        from benchmarks.collectives import all_reduces

        self.advance(1)
        program = self.jax.jit(self.step).lower(self.state, self.batches, self.key).compile()
        return all_reduces(program.as_text())

    def advance(self, count: int) -> None:
        """Runs `count` iterations and waits for them."""
        for i in range(1, count + 1):
            self.state, _ = self.step(self.state, self.batches,
                                      self.jax.random.fold_in(self.key, i))
            if i % _WAIT_EVERY == 0 or i == count:
                self.jax.block_until_ready(self.state)


def main(arguments: list[str] | None = None) -> int:
    """Measures, or predicts, what the command line asks for, into its own part of the report."""
    options = parsed(_parser(), arguments)
    title, work = (("Scaling, by a TPU's compiler", predicted.predict) if options.compiled
                   else ("Scaling", measure))
    return carried_out(lambda: write_part(options.out, title, [
        "Written by this command; README.md says what is measured and how.", "",
        "    " + shlex.join(["python", "-m", "benchmarks.scaling", *sys.argv[1:]]), "",
        *work(options)]), options.out)


def measure(options: argparse.Namespace) -> list[str]:
    """Measures; returns the report as lines of markdown."""
    with Child("benchmarks.machine:Probe", timeout=options.timeout) as probe:
        devices = probe.call("devices")
    real = devices["platform"] != "cpu" and devices["count"] > 1
    counts = sorted({1, *(n for n in options.devices if not real or n <= devices["count"])})
    environment = {} if real else {
        "JAX_PLATFORMS": "cpu", "NPROC": "16", "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
        + f" --xla_force_host_platform_device_count={max(counts)}"}
    setting = SETTINGS[options.network]
    batch = options.batch or max(setting.batch_size, 64)
    for count in counts:
        if batch % count:
            raise Failed(f"batch {batch} does not divide over {count} devices: choose another --batch")
    runs = {("weak", n): batch * n for n in counts} | {("strong", n): batch for n in counts[1:]}

    rates: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    reductions: dict[int, list[AllReduce]] = {}
    with contextlib.ExitStack() as stack:
        children, iterations = {}, {}
        for (way, count), size in runs.items():
            say(f"building {way} scaling, {count} devices")
            child = stack.enter_context(Child(
                "benchmarks.scaling:Scaled", dataclasses.replace(setting, batch_size=size), count,
                timeout=options.timeout, environment=environment))
            found = child.call("build")
            if way == "weak":
                reductions[count] = found
            seconds = child.timed("advance", 1)[0]
            children[way, count] = child
            iterations[way, count] = max(1, round(options.seconds / seconds))
        for repeat in range(options.repeats):
            say(f"repeat {repeat + 1} of {options.repeats}")
            for run, child in children.items():
                rates[run].append(iterations[run] / child.timed("advance", iterations[run])[0])

    rates["strong", 1] = rates["weak", 1]
    lines = [*machine.describe(devices), "",
             f"{setting.title}, `data_parallel(train_step)`, n = {setting.n_critic}. "
             + ("Real devices." if real else
                f"{max(counts)} forced host devices that share the processor's cores: what would be "
                "perfect is the samples per second of one device, and what is missing is the cost of "
                "splitting the work, of more and smaller operations and of the all-reduces.")]
    lines += _measured("weak", batch, counts, rates, real)
    lines += _measured("strong", batch, counts, rates, real)
    most = max(counts)
    lines += _volume(reductions[most], most, setting.n_critic + 1)
    seconds = options.step_seconds or 1 / statistics.median(rates["weak", 1])
    operations = flops.iteration(dataclasses.replace(setting, batch_size=batch))
    lines += _predicted(reductions[most], batch, seconds, operations, options)
    return lines


def _measured(way: str, batch: int, counts: list[int], rates: dict, real: bool) -> list[str]:
    size = f"{batch} samples a device" if way == "weak" else f"{batch} samples over all devices"
    rows, base = [], [rate * batch for rate in rates["weak", 1]]
    for count in counts:
        whole = batch * count if way == "weak" else batch
        samples = [rate * whole for rate in rates[way, count]]
        ideal = count if real else 1
        efficiency = [100 * got / (ideal * of) for got, of in zip(samples, base, strict=True)]
        rows.append([str(count), show_spread(summarise(rates[way, count])),
                     show_spread(summarise(samples)), show_spread(summarise(efficiency))])
    return ["", f"## {way.capitalize()} scaling", "",
            f"{size} in a critic update; median [quartiles]. Efficiency is samples per second, relative "
            "to " + ("one device's times their number." if real else "one device's."), "",
            *show_table(["devices", "iterations/s", "critic samples/s", "efficiency, %"], rows)]


def _volume(reductions: list[AllReduce], devices: int, updates: int) -> list[str]:
    rows = [[str(r.times), str(r.arrays), f"{r.bytes:,}", f"`{_short(r.source)}`"] for r in reductions]
    runs = sum(r.times for r in reductions)
    total = sum(r.times * r.bytes for r in reductions)
    return ["", "## Communication", "",
            f"All-reduces of the program compiled for {devices} devices. An iteration runs {runs} of "
            f"them for its {updates} network updates, of {total / 1e6:.3g} MB together; "
            f"{2 * (devices - 1) / devices * total / 1e6:.3g} MB leave each device of a ring of "
            f"{devices}.", "",
            *show_table(["times", "arrays, fused", "bytes each time", "from"], rows)]


def _predicted(reductions: list[AllReduce], batch: int, seconds: float, operations: int,
               options: argparse.Namespace) -> list[str]:
    fast = operations / (options.teraflops * 1e12)
    rows = []
    for link in LINKS:
        for devices in PREDICTED:
            if devices <= link.most:
                cost = communication(reductions, link, devices)
                rows.append([link.name, str(devices), f"{1e3 * cost:.3g}",
                             *(f"{100 * step / (step + cost):.1f}" for step in (seconds, fast)),
                             f"{1e3 * 9 * cost:.3g}"])
    given = "given" if options.step_seconds else "measured here on one device"
    return ["", "## Prediction", "",
            f"Weak scaling, {batch} samples a device. An iteration on N devices takes one device's time "
            "and that of its all-reduces, each 2 (N - 1) / N x bytes / bandwidth + 2 log2(N) hops, "
            f"overlapped with nothing. (a): {seconds:.3g} s an iteration, {given}. (b): {fast:.3g} s, "
            f"a device that sustains {options.teraflops:g} TFLOP/s. The last column is how long an "
            "iteration has to be for 90 %.", "",
            *show_table(["link", "devices", "all-reduces, ms", "efficiency (a), %",
                         "efficiency (b), %", "90 % from, ms"], rows), "",
            *show_table(*show_links(LINKS))]


def _short(source: str) -> str:
    """The end of a long path of functions."""
    parts = [part for part in source.split("/") if part not in ("closed_call", "eval_jaxpr")]
    return "/".join(parts[-4:])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", nargs="+", type=positive(int), default=[1, 2, 4, 8])
    parser.add_argument("--network", choices=[*WGAN_GP, "tiny"], default="mnist_dcgan")
    parser.add_argument("--batch", type=positive(int),
                        help="samples in a critic update: of each device (weak), of all (strong)")
    parser.add_argument("--repeats", type=positive(int), default=5)
    parser.add_argument("--seconds", type=positive(float), default=5.0,
                        help="about how long a repeat lasts; at least one iteration")
    parser.add_argument("--step-seconds", type=positive(float),
                        help="one device's seconds an iteration, measured elsewhere, to predict from")
    parser.add_argument("--teraflops", type=positive(float), default=100.0,
                        help="what a device sustains in prediction (b)")
    parser.add_argument("--compiled", nargs="+", choices=WGAN_GP, default=[],
                        help="predict from programs that a TPU's compiler makes of these networks, "
                        "instead of measuring")
    parser.add_argument("--chips", nargs="+", choices=predicted.SLICES, default=["v5e"],
                        help="compiled: for which")
    parser.add_argument("--global-batch", type=positive(int), default=512,
                        help="compiled: samples in a critic update, where all chips share them")
    add_keeping(parser)
    parser.add_argument("--timeout", type=positive(float), default=3600.0,
                        help="seconds after which a measurement, or a program, is given up")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("SCALING.md"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
