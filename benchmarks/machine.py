"""What a measurement was made on and with."""

import datetime
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")


class Probe:
    """Asks the frameworks what they would run on; for a process of its own."""

    def devices(self) -> dict:
        """`platform`, `kind` and `count` of jax's devices, and the first one's `peaks` by precision."""
        import jax

        from jaxgan.profiling import peaks

        devices = jax.local_devices()
        return {"platform": devices[0].platform, "kind": devices[0].device_kind,
                "count": len(devices), "peaks": peaks(devices[0])}


def describe(devices: dict) -> list[str]:
    """Lines of markdown: date, machine, device, versions."""
    load = os.getloadavg()[0]
    device = "" if devices["platform"] == "cpu" else f"; {devices['count']} x {devices['kind']}"
    versions = ", ".join([f"Python {platform.python_version()}",
                          *(f"{name} {_version(name)}" for name in PACKAGES)])
    return [f"- Date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
            f"- Machine: {_processor()}, {_cores()} cores, {_memory():.0f} GiB, "
            f"{platform.system()} {platform.release()}{device}",
            f"- Load average at the start: {load:.2f}" + (
                " (not quiet: other work took part of the processor)" if load > 0.5 else ""),
            f"- Versions: {versions}"]


class Usage(NamedTuple):
    """Processor time: of everything on the machine, and of some processes.

    Attributes:
        wall: seconds that the processors together could have worked.
        busy: seconds that they did, for whomever; a host's other guests included.
        own: seconds that they did for the processes asked about.
    """

    wall: float
    busy: float
    own: float


def usage(processes: Iterable[int]) -> Usage | None:
    """Processor time until now; None where there is no /proc.

    Args:
        processes: the numbers of the processes whose time is `own`.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        with open("/proc/stat") as file:
            user, nice, system, idle, waiting, *rest = map(int, file.readline().split()[1:9])
        busy = user + nice + system + sum(rest)
        own = 0
        for process in processes:
            with open(f"/proc/{process}/stat") as file:
                own += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    except OSError:
        return None
    return Usage((busy + idle + waiting) / ticks, busy / ticks, own / ticks)


def others_percent(before: Usage | None, after: Usage | None) -> float | None:
    """The percentage of the processors that went to others between two points; None if not known."""
    if before is None or after is None or after.wall <= before.wall:
        return None
    wall, busy, own = (end - start for start, end in zip(before, after, strict=True))
    return max(0.0, 100 * (busy - own) / wall)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, value in lines.items()}
    flags = fields.get("flags", "").split()
    wanted = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', platform.machine())} ({', '.join([family, *wanted])})"


def _memory() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
