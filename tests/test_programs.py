"""What is read from compiled programs' texts, against sums worked by hand, and a TPU's own compiler."""

import contextlib
import dataclasses
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks import predicted, run, scaling, tpu
from benchmarks.programs import BRANCHES, operations, total
from benchmarks.settings import NETWORKS, PRESETS, SETTINGS
from benchmarks.worker import Child

ROOT = Path(__file__).resolve().parents[1]


def _line(name, type_, what, cycles=0, more="", root=False):
    config = f', backend_config={{"window_config":{{}},"estimated_cycles":"{cycles}"}}' if cycles else ""
    return f"  {'ROOT ' if root else ''}%{name} = {type_} {what}{more}{config}"


def _computation(head, *lines):
    return "\n".join((f"{head} {{", *lines, "}", ""))


def _loop(name, length, *lines, start=0):
    """The computations of a loop over i = start, ..., length - 1; `lines` are in its body."""
    state = "(s32[], f32[8]{0:T(128)S(1)})"
    return "\n".join((
        _computation(f"%{name}_test (p: {state}) -> pred[]",
                     f"  %n = s32[]{{:T(128)}} constant({length})",
                     f"  %p = {state} parameter(0)", "  %i = s32[] get-tuple-element(%p), index=0",
                     "  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT"),
        _computation(f"%{name}_body (p: {state}) -> {state}", f"  %p = {state} parameter(0)",
                     "  %i = s32[]{:T(128)} get-tuple-element(%p), index=0",
                     "  %x = f32[8]{0:T(128)S(1)} get-tuple-element(%p), index=1",
                     "  %one = s32[]{:T(128)} constant(1)", "  %next = s32[] add(%i, %one)", *lines,
                     f"  ROOT %t = {state} tuple(%next, %x)"))), (
        f"  %{name}_start = s32[] constant({start})",
        f"  %{name}_init = {state} tuple(%{name}_start, %x)",
        f"  %{name} = {state} while(%{name}_init), condition=%{name}_test, body=%{name}_body")


PRODUCT = _computation(
    "%fused (a: f32[8,4], b: f32[4,2]) -> bf16[8,2]", "  %a = f32[8,4]{1,0} parameter(0)",
    "  %b = f32[4,2]{1,0} parameter(1)",
    "  %c = f32[8,2]{1,0} convolution(%a, %b), dim_labels=bf_io->bf",
    "  ROOT %r = bf16[8,2]{1,0} convert(%c)")
CONVERT = _computation("%only (a: f32[8]) -> bf16[8]", "  %a = f32[8]{0} parameter(0)",
                       "  %c = bf16[8]{0} convert(%a)", "  ROOT %r = bf16[8]{0} copy(%c)")
FUSION = _line("f", "bf16[8,2]{1,0:T(8,128)(2,1)}", "fusion(%a, %b), kind=kOutput, calls=%fused", 100,
               ', metadata={op_name="jit(f)/dot_general"}')


def test_loops_are_multiplied_by_their_lengths():
    inner, runs_inner = _loop("inner", 3, _line("c", "f32[8]{0}", "copy(%x)", 7))
    outer, runs_outer = _loop("outer", 7, *runs_inner, _line("k", "bf16[8]{0}", "convert(%x)", 11),
                              start=2)
    program = "\n".join((
        "HloModule m, is_scheduled=true", PRODUCT, CONVERT, inner, outer,
        _computation("ENTRY %main (x: f32[8]) -> f32[8]", "  %x = f32[8]{0} parameter(0)",
                     "  %a = f32[8,4]{1,0} parameter(1)", "  %b = f32[4,2]{1,0:S(1)} parameter(2)",
                     FUSION, _line("v", "bf16[8]{0:S(1)}", "fusion(%x), kind=kLoop, calls=%only", 5),
                     *runs_outer, "  ROOT %r = f32[8]{0} get-tuple-element(%outer), index=1")))
    done = {operation.name: operation for operation in operations(program)}
    assert {name: (o.kind, o.times, o.cycles, o.in_loop) for name, o in done.items() if o.cycles} == {
        "f": ("product", 1, 100, False), "v": ("convert", 1, 5, False),
        "k": ("convert", 5, 11, True), "c": ("move", 5 * 3, 7, True)}
    assert total(done.values(), lambda o: o.cycles) == 100 + 5 + 5 * 11 + 15 * 7
    # Tests of a loop's end run once more than its body; counters cost nothing that is estimated.
    assert [o.times for o in operations(program) if o.opcode == "compare"] == [6, 5 * 4]
    # A product reads 8x4 floats from the large memory, not the 4x2 in S(1), and writes 8x2 halves.
    assert (done["f"].bytes, done["f"].memory, done["f"].source) == (32, 128 + 32, "jit(f)/dot_general")
    assert (done["v"].bytes, done["v"].memory) == (16, 32)


def test_lengths_come_from_the_compiler_or_from_what_an_outer_loop_keeps():
    state = "(s32[], s32[], s32[])"
    compared = _computation("%less (a: s32[], b: s32[]) -> pred[]", "  %a = s32[] parameter(0)",
                            "  %b = s32[] parameter(1)",
                            "  ROOT %r = pred[] compare(%b, %a), direction=GT")
    program = "\n".join((
        "HloModule m", compared,
        _computation(f"%test (p: {state}) -> pred[]", f"  %p = {state} parameter(0)",
                     "  %i = s32[] get-tuple-element(%p), index=0",
                     "  %n = s32[] get-tuple-element(%p), index=2",
                     "  ROOT %r = pred[] fusion(%n, %i), kind=kLoop, calls=%less"),
        _computation(f"%body (p: {state}) -> {state}", f"  %p = {state} parameter(0)",
                     "  %i = s32[] get-tuple-element(%p), index=0",
                     "  %step = s32[] get-tuple-element(%p), index=1",
                     "  %n = s32[] get-tuple-element(%p), index=2", "  %j = s32[] subtract(%i, %step)",
                     _line("e", "f32[2]{0}", "exponential(%x)", 10),
                     f"  ROOT %t = {state} tuple(%j, %step, %n)"),
        _computation("ENTRY %main (x: f32[2]) -> s32[]", "  %i = s32[] constant(9)",
                     "  %two = s32[] constant(2)", "  %n = s32[] constant(-1)",
                     "  %kept = s32[] copy(%n)", f"  %t = {state} tuple(%i, %two, %kept)",
                     f"  %w = {state} while(%t), condition=%test, body=%body",
                     f"  %u = {state} while(%w), condition=%test, body=%body, backend_config="
                     '{"known_trip_count":{"n":"4"}}',
                     "  ROOT %r = s32[] get-tuple-element(%w), index=0")))
    # 9, 7, 5, 3, 1 are above -1; what the second starts with isn't known, but the compiler says 4.
    assert [o.times for o in operations(program) if o.name == "e"] == [5, 4]
    unknown = program.replace("known_trip_count", "unknown")
    assert [o.times for o in operations(unknown) if o.name == "e"] == [5, None]
    with pytest.raises(ValueError, match="e is in a loop whose length isn't known"):
        total(operations(unknown), lambda o: o.cycles)
    assert total(operations(unknown), lambda o: o.kind == "host") == 0
    assert total(operations(unknown, unknown=1), lambda o: o.cycles) == 10 * (5 + 1)


def test_lengths_that_change_are_not_known():
    """The inner loop starts where the outer one is: in its first trip that would be 2 steps to go."""
    inner, runs = _loop("inner", 2, _line("c", "f32[8]{0}", "copy(%x)", 7))
    outer, runs_outer = _loop("outer", 2, *(line.replace("%inner_start, ", "%i, ") for line in runs))
    program = "\n".join(("HloModule m", inner, outer, _computation(
        "ENTRY %main (x: f32[8]) -> f32[8]", "  %x = f32[8]{0} parameter(0)", *runs_outer,
        "  ROOT %r = f32[8]{0} get-tuple-element(%outer), index=1")))
    assert [o.times for o in operations(program) if o.name == "c"] == [None]


def test_bytes_to_and_from_memory_count_where_they_are():
    fast = "{0:T(128)S(1)}"
    program = "\n".join(("HloModule m", _computation(
        "ENTRY %main (x: f32[100]) -> f32[100]", "  %x = f32[100]{0:T(128)} parameter(0)",
        f"  %s = (f32[100]{fast}, f32[100]{{0}}, u32[]{{:S(2)}}) copy-start(%x)",
        f"  %d = f32[100]{fast} copy-done(%s)",  # reads 400
        f"  %p = ((f32[100]{{0}}), f32[10]{fast}, s32[]{{:S(2)}}) slice-start(%x), slice={{[0:10]}}",
        f"  %q = f32[10]{fast} slice-done(%p)",  # reads 40
        f"  %e = f32[100]{fast} exponential(%d)",  # nothing
        "  %f = f32[5]{0} dynamic-slice(%x, %i)",  # reads and writes 20
        "  ROOT %r = f32[100]{0} add(%e, %x)")))  # reads 400, writes 400
    assert {o.name: o.memory for o in operations(program)} == {
        "s": 0, "d": 400, "p": 0, "q": 40, "e": 0, "f": 40, "r": 800}


def test_of_branches_the_cheapest_or_the_dearest_counts():
    branches = [_computation(f"%{name} (x: f32[4]) -> f32[4]", "  %x = f32[4]{0} parameter(0)", *lines,
                             "  ROOT %r = f32[4]{0} bitcast(%x)") for name, lines in {
        "lazy": (_line("l", "f32[4]{0}", "copy(%x)", 3),),
        "due": (_line("d1", "f32[4]{0}", "exponential(%x)", 40),
                _line("d2", "f32[4]{0}", "copy(%x)", 2)),
        "nested": ("  %q = pred[] constant(true)",
                   "  %c = f32[4]{0} conditional(%q, %x, %x), true_computation=%due, "
                   "false_computation=%lazy"),
        "sums": (_line("s", "f32[4]{0}", "all-reduce(%x), to_apply=%add"),),
        "still": ()}.items()]
    program = "\n".join((
        "HloModule m", *branches,
        _computation("ENTRY %main (x: f32[4], i: s32[]) -> f32[4]", "  %x = f32[4]{0} parameter(0)",
                     "  %i = s32[] parameter(1)",
                     "  %a = f32[4]{0} conditional(%i, %x, %x, %x), branch_computations={%still, %lazy, "
                     "%nested}",
                     "  %b = f32[4]{0} conditional(%i, %x, %x), branch_computations={%sums, %still}",
                     _line("e", "f32[4]{0}", "exponential(%b)", 1000, root=True))))
    cheapest, dearest = (operations(program, branch) for branch in BRANCHES)
    assert [total(done, lambda o: o.cycles) for done in (cheapest, dearest)] == [1000, 1042]
    assert [[o.name for o in done if o.kind == "collective"] for done in (cheapest, dearest)] == [
        [], ["s"]]


def test_exchanges_with_chips_and_with_the_host():
    async_all = _computation("%all (x: f32[4]) -> f32[8]", "  %x = f32[4]{0} parameter(0)",
                             "  ROOT %g = f32[8]{0} all-gather(%x), dimensions={0}")
    fused = _computation("%scatter (x: f32[8]) -> f32[4]", "  %x = f32[8]{0} parameter(0)",
                         _line("r", "f32[4]{0}", "reduce-scatter(%x), to_apply=%add", 8, root=True))
    program = "\n".join((
        "HloModule m", async_all, fused,
        _computation(
            "ENTRY %main (x: f32[4]) -> f32[4]", "  %x = f32[4]{0} parameter(0)",
            "  %s = f32[4]{0} all-reduce-start(%x), to_apply=%add",
            "  %d = f32[4]{0} all-reduce-done(%s)",
            "  %b = ((f32[4]{0}), f32[8]{0}, u32[]) async-start(%x), calls=%all",
            "  %y = f32[8]{0} async-done(%b)",
            _line("f", "f32[4]{0}", "fusion(%y), kind=kCustom, calls=%scatter", 9),
            "  %h = (f32[4]{0:S(5)}, f32[4]{0}, u32[]) copy-start(%x)",
            "  %o = token[] outfeed(%x, %t), outfeed_config=\"\"",
            '  %p = f32[4]{0} custom-call(%x), custom_call_target="xla_python_cpu_callback"',
            "  %n = (f32[4]{0}, u32[], token[]) send(%x, %t), channel_id=1, is_host_transfer=true",
            "  %m = token[] send-done(%n), channel_id=1, is_host_transfer=true",
            "  ROOT %r = f32[4]{0} copy(%x)")))
    done = operations(program)
    assert {o.name: (o.bytes, o.overlapped) for o in done if o.kind == "collective"} == {
        "d": (16, True), "g": (32, True), "r": (16, False)}
    assert [o.name for o in done if o.kind == "host"] == ["h", "o", "p", "n"]
    assert total(done, lambda o: o.cycles) == 9
    with pytest.raises(ValueError, match="no ENTRY"):
        operations("HloModule m")


def test_a_program_of_this_machine():
    """XLA's own text: nested loops of 5 and 3 steps, in which a product is found as often."""
    def f(x):
        def inner(x, _):
            return jnp.tanh(x @ x), None

        def outer(x, _):
            return lax.scan(inner, x, None, length=3)[0] + 1, None
        return lax.scan(outer, x, None, length=5)[0]

    text = jax.jit(f).lower(jnp.ones((64, 64))).compile().as_text()
    assert [o.times for o in operations(text) if o.kind == "product"] == [15]
    # Where the compiler doesn't say how long the loops are, counting finds it.
    assert total(operations(text.replace("known_trip_count", "unknown")),
                 lambda o: o.kind == "product") == 15


def test_what_is_compiled_for_slices_and_as_default_exists():
    options = tpu._parser().parse_args([])
    assert {*options.networks, *options.slice_networks} <= {*SETTINGS, *PRESETS}
    assert {*NETWORKS} <= {*options.networks}
    assert {name for names in tpu.IN_COLUMN.values() for name in names} <= {*SETTINGS, *PRESETS}
    assert {slice_.partition(":")[0] for slice_ in options.slices} <= {*tpu.CHIPS}
    assert tpu._precisions("gat_b2", "remat", ["float32"]) == ["bfloat16"]
    assert tpu._precisions("toy_mlp", "flax", ["bfloat16"]) == ["float32"]
    # A v5e's units at its clock make its published peak; so do 1.05 GHz those of a v4.
    assert tpu.CHIPS["v5e"].clock == pytest.approx(1.5e9, rel=0.01)
    assert tpu.CHIPS["v4"].clock == pytest.approx(1.05e9, rel=0.01)


def test_what_a_program_costs_is_summed_by_kind_and_by_place():
    loop, runs = _loop("w", 3, _line("k", "bf16[8]{0}", "convert(%x)", 2, ', metadata={op_name="k"}'),
                       "  %g = f32[8]{0} all-reduce(%x), to_apply=%add")
    program = "\n".join(("HloModule m", PRODUCT, loop, _computation(
        "ENTRY %main (x: f32[8]) -> f32[8]", "  %x = f32[8]{0} parameter(0)", FUSION,
        FUSION.replace("%f =", "%f2 ="), *runs, _line("e", "f32[8]{0}", "exponential(%x)", 3),
        '  %o = token[] outfeed(%x, %t), outfeed_config=""',
        "  ROOT %r = f32[8]{0} get-tuple-element(%w), index=1")))
    found = tpu.read(program)
    assert found["cycles"] == (209, 209)
    assert {kind: cost for kind, cost in found["kinds"].items() if cost} == {
        "product": 200, "convert": 6, "other": 3}
    assert {kind: cost for kind, cost in found["loop"].items() if cost} == {"convert": 6}
    assert found["top"][:3] == [(200, 2, "product", "jit(f)/dot_general"), (6, 3, "convert", "k"),
                                (3, 1, "other", "e")]
    assert found["exchanged"] == [(3, 32, False, "all-reduce", "")]
    assert found["host"] == (1, 1)


@pytest.mark.parametrize("given", ["v5e", "v9:2x4", "v5e:0x4", "v5e:2", "v5e:axb", "v5e:2x4x"])
def test_slices_that_are_none_get_one_sentence(given, capsys):
    with pytest.raises(SystemExit):
        tpu.main(["--slices", given])
    assert f"must be like v5e:2x4, of v5e, v4, v5p, v6e; got {given}" in capsys.readouterr().err


def test_what_is_kept_needs_a_folder(capsys):
    with pytest.raises(SystemExit):
        tpu.main(["--only-kept"])
    assert capsys.readouterr().err.endswith("error: --only-kept needs --keep\n")


def test_the_report_has_ranges_and_says_why():
    estimate = tpu.Estimate(
        131_072e6, True, 1_600_000_000, 1.0, (1e6, 4e6), (2e6, 2e6), (0, 0),
        {"product": 3e6, "convert": 1e6}, {"product": 1e6, "convert": 1e6},
        [(3e6, 5, "product", "jit(f)/while/body/Conv_0")],
        [(6, 500_000, False, "all-reduce", "jit(f)/psum")])
    setting = SETTINGS["tiny"]
    half = estimate._replace(cycles=(5e5, 8e6))
    rows = [tpu.Row(setting, "jaxgan", "float32", "v5e:1x1", estimate),
            tpu.Row(setting, "jaxgan", "bfloat16", "v5e:1x1", half),
            tpu.Row(setting, "flax", "float32", "v5e:1x1", "took more than 9 s"),
            tpu.Row(setting, "jaxgan", "float32", "v5e:2x4", estimate)]
    text = "\n".join(tpu.report(rows))
    # 131,072 operations a cycle: 4 Mcycles are 2.66 ms at 1.503 GHz, and a quarter of the peak.
    assert ("| tiny MLP, batch 16 | jaxgan float32 | 131 | 1 to 4 | 0.665 to 2.66 | 25 | 33 | 2 | 1,600 "
            "| 10 | 50.0 | 50.0 | 0.0 | 0 |") in text
    assert "| tiny MLP | 2.00 to 0.50 | - | - |" in text
    assert "| tiny MLP, jaxgan float32 | 75.0 | 5 | product | `jit(f)/Conv_0` |" in text
    # 3 MB over eight chips of 200 GB/s: 2 * 7/8 * 3 / 200 ms, and 6 * 2 * 3 hops of a microsecond, are
    # 0.06225 ms; 8 * 5 * 16 samples in the time of both.
    assert ("| tiny MLP, batch 16 a chip, jaxgan float32 | v5e:2x4 | 6 | 0 | 3 | 1 to 4 | 25 | 1,600 "
            "| 1.00 | 2.66 | 0.0622 | 235 |" in text)
    assert "- tiny MLP, stock Flax float32, v5e:1x1: took more than 9 s" in text


@pytest.mark.parametrize(("opcode", "size"), [("all-gather", 500_000), ("reduce-scatter", 62_500)])
def test_gathering_and_scattering_take_half_of_an_all_reduce(opcode, size):
    """A gather makes all 500,000 bytes, a scatter a chip's part of them: 7/8 go over links."""
    estimate = tpu.Estimate(1e9, True, 10**9, 1.0, (4e6, 4e6), (0, 0), (0, 0), {"product": 4e6}, {}, [],
                            [(6, size, True, opcode, "")])
    row = tpu.Row(SETTINGS["tiny"], tpu.SPREAD, "bfloat16", "v5e:2x4", estimate)
    text = "\n".join(tpu.report([row]))
    # 6 * 7/8 * 0.5 MB / (200 GB/s) and 6 * 2 * 3 hops of a microsecond.
    assert "a chip, jaxgan --remat --shard state bfloat16 | v5e:2x4 | 6 | 6 |" in text
    assert "| - | 2.66 | 0.0491 |" in text


def test_the_command_loads_no_framework_and_says_what_is_missing(tmp_path):
    code = ("import sys; sys.modules['libtpu'] = None\nfrom benchmarks import tpu\n"
            "print({'flax', 'jax'} & {*sys.modules})\ntpu.Compiler()")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True,
                          check=False)
    assert done.stdout == "set()\n"
    assert "libtpu is not installed" in done.stderr.splitlines()[-1]


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """A TPU's compiler, which keeps what it compiles."""
    if find_spec("libtpu") is None:
        pytest.skip("needs a TPU's compiler: pip install -r benchmarks/requirements-tpu.txt")
    with Child("benchmarks.tpu:Compiler", str(tmp_path_factory.mktemp("programs")), timeout=300.0,
               environment=tpu.ENVIRONMENT) as child:
        yield child


def test_a_step_compiles_for_a_tpu(compiler):
    """A tiny MLP: every critic update in a loop, nothing with the host, and twice the same."""
    setting = SETTINGS["tiny"]
    estimate = compiler.call("estimate", setting, "jaxgan", "float32", "v5e:1x1")
    low, high = estimate.cycles
    assert 0 < low == high == sum(estimate.kinds.values())
    # Five of six updates are in the loop, in which nothing is left to convert in float32.
    assert 0.5 < sum(estimate.loop.values()) / high < 1
    assert estimate.loop["product"] > 0.3 * sum(estimate.loop.values())
    assert estimate.loop.get("convert", 0) == 0
    assert estimate.host == (0, 0)
    assert estimate.by_hand
    assert estimate.exchanged == []
    assert compiler.call("estimate", setting, "jaxgan", "float32", "v5e:1x1") == estimate


def test_a_slice_sums_once_a_network_update(compiler):
    setting = dataclasses.replace(SETTINGS["tiny"], n_critic=3)
    estimate = compiler.call("estimate", setting, "jaxgan", "float32", "v5e:2x4", True)
    assert sorted(times for times, *_ in estimate.exchanged) == [1, 3]


def test_scaling_is_predicted_from_what_is_compiled(tmp_path, monkeypatch):
    """By hand: one million cycles for each sample, 4 MB an iteration, 200 GB/s and a microsecond a hop
    within 256 chips, 3.125 GB/s and 20 us between two such slices."""
    class Compiler(contextlib.AbstractContextManager):
        def __init__(self, *arguments, **options):
            pass

        def __exit__(self, *_):
            pass

        def call(self, method, *arguments):
            if method == "versions":
                return {"jax": "1"}
            setting, *_, parallel = arguments
            if setting.batch_size == 8:
                raise predicted.Failed("too dear")
            cycles = 1e6 * setting.batch_size
            return tpu.Estimate(1.0, True, 1, 1.0, (0, cycles), (0, 0), (0, 0), {}, {}, [],
                                [(2, 2_000_000, False, "all-reduce", "psum")] if parallel else [])

    monkeypatch.setattr(tpu, "Child", Compiler)
    out = tmp_path / "SCALING.md"
    out.write_text("# Scaling\n\nmeasured\n\n# Scaling, by a TPU's compiler\n\nold\n\n# Other\n\nkept\n")
    assert scaling.main(["--compiled", "toy_mlp", "--global-batch", "512", "--out", str(out)]) == 0
    text = out.read_text()
    assert text.startswith("# Scaling\n\nmeasured\n\n# Scaling, by a TPU's compiler\n\nWritten")
    assert text.endswith("# Other\n\nkept\n")
    assert "old" not in text
    second = tpu.CHIPS["v5e"].clock
    for chips, batch, exchanged in (
            (8, 256, 2 * (2 * 7 / 8 * 2e6 / 200e9 + 6e-6)),
            (512, 256, 2 * (2 * 255 / 256 * 2e6 / 200e9 + 16e-6)
             + 2 * (2 / 2 * 7813 / 3.125e9 + 2 * 20e-6)),
            (8, 64, 2 * (2 * 7 / 8 * 2e6 / 200e9 + 6e-6)),
            (256, 2, 2 * (2 * 255 / 256 * 2e6 / 200e9 + 16e-6))):
        computing = batch * 1e6 / second
        efficiency = 100 * computing / (computing + exchanged)
        row = next(line for line in text.splitlines() if line.startswith(f"| {chips} | {batch} |"))
        assert row.split(" | ")[2:5] == [
            run.show_number(1e3 * computing), run.show_number(1e3 * exchanged), f"{efficiency:.1f}"]
    assert "| 64 | 8 | too dear |" in text
