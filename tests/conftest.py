"""Eight devices on one processor, strict ranks, and the real data where a checkout has it."""

import gc
import os
import shutil
import signal
from importlib.metadata import version
from pathlib import Path

# Before jax is imported. Tests run little of what they compile, so compile quickly; NPROC keeps jax
# 0.10's processor collectives from waiting for each other.
os.environ["XLA_FLAGS"] = " ".join((
    os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
    # Later ones stop at a flag that they don't know.
    "--xla_cpu_use_fusion_emitters=false" if version("jaxlib")[:4] in ("0.8.", "0.9.", "0.10") else ""))
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # programs don't say where they come from

import jax
import pytest

from experiments import page
from jaxgan import runs

jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(100_000, 50, 100)  # to look at all that tracing makes took a quarter of the time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup, too, where the runs in tests would ignore it


@pytest.fixture(scope="session", autouse=True)
def kept_programs(tmp_path_factory):
    """What one test has compiled the next ones read: in a folder of this process, as JAX locks none."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("programs")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """What one module has compiled is freed: a process may only map so many pieces of memory."""
    yield
    jax.clear_caches()
    jax.config.update("jax_enable_compilation_cache", True)  # which benchmarks turn off


@pytest.fixture(scope="module", autouse=True)
def no_curves(request):
    """A run's end draws its curves and its page, a second each: only for modules that look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "LOOKS_AT_CURVES", False):
            patch.setattr(runs, "save_curves", lambda *_, **__: None)
            patch.setattr(page, "write_beside", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """Where features and trained networks are kept, for one module."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def shared_data():
    """The folder with real data, beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder.parent.name}/{folder.name} beside the repository")
    return folder


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests whose time is nearly all XLA's, on programs that run once."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def browser():
    """Chromium without a window, which asks nobody for anything by itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=[
            "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync"])
        yield opened
        opened.close()
