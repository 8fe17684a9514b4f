"""What connects devices, and how long their all-reduces take by it."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.collectives import AllReduce


class Link(NamedTuple):
    """What connects devices.

    Attributes:
        name: of the link.
        bandwidth: bytes per second in one direction, per device.
        hop: seconds of latency per step of a reduction tree; assumed, nobody publishes it.
        most: the largest number of devices that it connects.
        source: where the bandwidth is from.
    """

    name: str
    bandwidth: float
    hop: float
    most: int
    source: str


LINKS = (
    Link("NVLink 4 (H100, one node)", 450e9, 2e-6, 8,
         "900 GB/s in both directions together, as third parties quote NVIDIA's H100 data sheet"),
    Link("InfiniBand NDR, a 400 Gb/s port per GPU", 50e9, 5e-6, 2**30,
         "400 Gb/s per port, NDR's nominal rate"),
    Link("TPU v4 ICI", 1.1e15 / 4096, 1e-6, 4096,
         "Cloud TPU documentation, v4: all-reduce bandwidth of 1.1 PB/s per pod of 4096 chips"),
    Link("TPU v5e ICI", 51.2e12 / 256, 1e-6, 256,
         "Cloud TPU documentation, v5e: all-reduce bandwidth of 51.2 TB/s per pod of 256 chips"),
    Link("TPU v6e ICI", 102.4e12 / 256, 1e-6, 256,
         "Cloud TPU documentation, v6e: all-reduce bandwidth of 102.4 TB/s per pod of 256 chips"),
)
# Between slices, whose chips are connected by the above: a data centre's network, for each chip.
NETWORKS = {
    "v5e": Link("TPU v5e DCN", 6.4e12 / 8 / 256, 20e-6, 2**30,
                "Cloud TPU documentation, v5e: data center network bandwidth of 6.4 Tb/s per pod"),
    "v6e": Link("TPU v6e DCN", 25.6e12 / 8 / 256, 20e-6, 2**30,
                "Cloud TPU documentation, v6e: data center network bandwidth of 25.6 Tb/s per pod"),
}


def communication(reductions: Iterable[AllReduce], link: Link, devices: int, slices: int = 1,
                  between: Link | None = None) -> float:
    """Seconds that an iteration's all-reduces take, none of them overlapped with anything.

    Each takes 2 (N - 1) / N x bytes / bandwidth, as in a ring, and 2 log2(N) hops of latency. Over
    several slices it does so within each, of N devices, and between the slices each device exchanges
    bytes / N with its counterparts, in the same way.

    Args:
        reductions: an iteration's.
        link: what connects the devices of a slice.
        devices: how many there are in a slice.
        slices: how many slices there are.
        between: what connects these.
    """
    reductions = [*reductions]
    seconds = _ring(reductions, link, devices)
    if slices > 1 and between is not None:
        seconds += _ring([of._replace(bytes=math.ceil(of.bytes / devices)) for of in reductions],
                         between, slices)
    return seconds


def _ring(reductions: list[AllReduce], link: Link, devices: int) -> float:
    hops = 2 * math.ceil(math.log2(devices))
    return sum(reduction.times * (2 * (devices - 1) / devices * reduction.bytes / link.bandwidth
                                  + hops * link.hop) for reduction in reductions)


def show_links(links: Iterable[Link]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a table of them."""
    return (["link", "GB/s a device, one way", "hop, us (assumed)", "source"],
            [[link.name, f"{link.bandwidth / 1e9:.3g}", f"{1e6 * link.hop:.0f}", link.source]
             for link in links])
