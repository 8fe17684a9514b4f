"""Predicts scaling over a TPU's slices from programs that its compiler makes for one."""

import argparse
import dataclasses

from benchmarks.collectives import AllReduce
from benchmarks.links import LINKS, NETWORKS, communication, show_links
from benchmarks.run import say, show_number, show_table
from benchmarks.settings import SETTINGS, Setting
from benchmarks.tpu import CHIPS, Estimate, described, open_compiler
from benchmarks.worker import Failed

DEVICES = (8, 64, 256, 512)
SLICES = {"v5e": "v5e:2x4", "v6e": "v6e:2x4"}  # the ones that are compiled for
_ICI = {chip: next(link for link in LINKS if link.name == f"TPU {chip} ICI") for chip in SLICES}


def predict(options: argparse.Namespace) -> list[str]:
    """Compiles; returns the report as lines of markdown.

    Raises:
        Failed: a program can't be compiled.
    """
    with open_compiler(options) as child:
        about = described(child)
    slices = " or ".join(SLICES[chip] for chip in options.chips)
    lines = [*about, "",
             "**There was no TPU: these are a compiler's estimates, and published bandwidths.** "
             f"Computing is what the compiler expects of a chip of {slices}, by "
             "`data_parallel(train_step)` in float32; one of a larger slice computes the same. "
             "All-reduces are predicted from the program's bytes, overlapped with nothing; more than "
             "256 chips are slices of 256. Efficiency is samples per second and chip, in percent of "
             "those of one chip alone with the article's batch."]
    for name in options.compiled:
        for chip in options.chips:
            lines += _scaled(SETTINGS[name], chip, options)
    links = [link for chip in options.chips for link in (_ICI[chip], NETWORKS[chip])]
    return [*lines, "", *show_table(*show_links(links))]


def _scaled(setting: Setting, chip: str, options: argparse.Namespace) -> list[str]:
    found: dict[tuple[int, bool], Estimate] = {}

    def estimate(batch: int, parallel: bool) -> Estimate:
        if (batch, parallel) not in found:
            topology = SLICES[chip] if parallel else f"{chip}:{CHIPS[chip].one}"
            say(f"compiling {setting.name}, batch {batch} a chip, {topology}")
            with open_compiler(options) as child:
                found[batch, parallel] = child.call(
                    "estimate", dataclasses.replace(setting, batch_size=batch), "jaxgan", "float32",
                    topology, parallel)
        return found[batch, parallel]

    def pace(batch: int, chips: int) -> tuple[float, float]:
        """Seconds of computing and of exchanging."""
        made = estimate(batch, parallel=chips > 1)
        seconds = made.cycles[1] / CHIPS[chip].clock
        return seconds, exchanging(made, chip, chips) if chips > 1 else 0.0

    lines, alone = [], setting.batch_size / sum(pace(setting.batch_size, 1))
    for title, batches in (
            (f"{setting.batch_size} samples on each chip", dict.fromkeys(DEVICES, setting.batch_size)),
            (f"{options.global_batch} samples over all chips",
             {chips: options.global_batch / chips for chips in DEVICES})):
        rows = []
        for chips, batch in batches.items():
            if batch != int(batch):
                rows.append([str(chips), "fewer than one" if batch < 1 else "not the same on each"])
                continue
            try:
                computing, exchanged = pace(int(batch), chips)
            except Failed as failure:
                rows.append([str(chips), show_number(batch), str(failure)])
                continue
            rate = batch / (computing + exchanged)
            rows.append([str(chips), show_number(batch), show_number(1e3 * computing),
                         show_number(1e3 * exchanged), f"{100 * rate / alone:.1f}",
                         show_number(rate * chips * setting.n_critic / 1e3)])
        lines += ["", f"## {setting.title}, {chip}, {title}", "",
                  *show_table(["chips", "samples a chip", "computing, ms", "all-reduces, ms",
                               "efficiency, %", "critic samples/s, thousands"], rows)]
    return lines


def exchanging(estimate: Estimate, chip: str, chips: int) -> float:
    """Seconds of an iteration's collectives over so many chips, in as few slices as hold them.

    Raises:
        Failed: there are others than all-reduces.
    """
    kinds = {opcode.removesuffix("-done") for *_, opcode, _ in estimate.exchanged}
    if kinds - {"all-reduce"}:
        raise Failed(f"only all-reduces are predicted; got {', '.join(sorted(kinds))}")
    slices = -(-chips // _ICI[chip].most)
    return communication([AllReduce(times, 1, size, source)
                          for times, size, _, _, source in estimate.exchanged],
                         _ICI[chip], chips // slices, slices, NETWORKS[chip])
