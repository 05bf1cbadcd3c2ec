"""Kernels, loops and bytes of programs: of stored texts as XLA writes them for a GPU, and of compiled programs."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from benchmarks import h100, h100_page, hlo, tpu, tpu_page, tpu_programs
from benchmarks.h100 import PUBLISHED
from tests.support.checkout import ROOT

FUSIONS = """HloModule jit_f, is_scheduled=true

%fused_slice (param_0: f32[16,4,10]) -> (f32[16,10], bf16[16,4,10]) {
  %param_0 = f32[16,4,10]{2,1,0} parameter(0)
  %slice.1 = f32[16,1,10]{2,1,0} slice(%param_0), slice={[0:16], [0:1], [0:10]}
  %bitcast.1 = f32[16,10]{1,0} bitcast(%slice.1)
  %slice.2 = f32[16,1,10]{2,1,0} slice(%param_0), slice={[0:16], [1:2], [0:10]}
  %bitcast.2 = f32[16,10]{1,0} bitcast(%slice.2)
  %slice.3 = f32[16,1,10]{2,1,0} slice(%param_0), slice={[0:16], [1:2], [0:10]}
  %bitcast.3 = f32[16,10]{1,0} bitcast(%slice.3)
  %add.1 = f32[16,10]{1,0} add(%bitcast.1, %bitcast.2)
  %add.2 = f32[16,10]{1,0} add(%add.1, %bitcast.3)
  %constant.1 = bf16[] constant(1)
  %broadcast.1 = bf16[16,4,10]{2,1,0} broadcast(%constant.1), dimensions={}
  ROOT %tuple.1 = (f32[16,10]{1,0}, bf16[16,4,10]{2,1,0}) tuple(%add.2, %broadcast.1)
}

ENTRY %main (x: f32[16,4,10]) -> (f32[16,10], bf16[16,4,10], f32[1,1], f32[16,4,10], u8[64]) {
  %x = f32[16,4,10]{2,1,0} parameter(0), metadata={op_name="x"}
  %constant.2 = f32[1,1]{1,0} constant({{1}})
  %fusion.1 = (f32[16,10]{1,0}, /*index=1*/bf16[16,4,10]{2,1,0}) fusion(%x), kind=kLoop, calls=%fused_slice
  %get-tuple-element.1 = f32[16,10]{1,0} get-tuple-element(%fusion.1), index=0
  %get-tuple-element.2 = bf16[16,4,10]{2,1,0} get-tuple-element(%fusion.1), index=1
  %copy.1 = f32[1,1]{1,0} copy(%constant.2)
  %conv.1 = (f32[16,4,10]{2,1,0}, u8[64]{0}) custom-call(%x, %get-tuple-element.1), custom_call_target="__cudnn$conv"
  ROOT %tuple = (f32[16,10]{1,0}, f32[1,1]{1,0}) tuple(%get-tuple-element.1, %copy.1)
}
"""
LOOP = """HloModule jit_g

%update (param_0: f32[16,100,10], param_1: f32[16,100,10], param_2: s32[]) -> f32[16,100,10] {
  %param_0 = f32[16,100,10]{2,1,0} parameter(0)
  %param_1 = f32[16,100,10]{2,1,0} parameter(1)
  %param_2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  %row = f32[16,1,10]{2,1,0} dynamic-slice(%param_1, %zero, %param_2, %zero), dynamic_slice_sizes={16,1,10}
  ROOT %put = f32[16,100,10]{2,1,0} dynamic-update-slice(%param_0, %row, %zero, %param_2, %zero)
}

%body (arg: (s32[], f32[16,100,10], f32[16,100,10])) -> (s32[], f32[16,100,10], f32[16,100,10]) {
  %arg = (s32[], f32[16,100,10]{2,1,0}, f32[16,100,10]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %to = f32[16,100,10]{2,1,0} get-tuple-element(%arg), index=1
  %from = f32[16,100,10]{2,1,0} get-tuple-element(%arg), index=2
  %fusion.2 = f32[16,100,10]{2,1,0} fusion(%to, %from, %i), kind=kLoop, calls=%update
  ROOT %next = (s32[], f32[16,100,10]{2,1,0}, f32[16,100,10]{2,1,0}) tuple(%i, %fusion.2, %from)
}

%condition (arg: (s32[], f32[16,100,10], f32[16,100,10])) -> pred[] {
  %arg = (s32[], f32[16,100,10]{2,1,0}, f32[16,100,10]{2,1,0}) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: (s32[], f32[16,100,10], f32[16,100,10])) -> (s32[], f32[16,100,10], f32[16,100,10]) {
  %a = (s32[], f32[16,100,10]{2,1,0}, f32[16,100,10]{2,1,0}) parameter(0)
  ROOT %while = (s32[], f32[16,100,10]{2,1,0}, f32[16,100,10]{2,1,0}) while(%a), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"99"}}
}
"""


def test_slices_are_read_once_and_scratch_and_scalars_are_not_counted():
    row, sequence = 16 * 10 * 4, 16 * 4 * 10 * 4
    fusion = 2 * row + row + sequence // 2
    convolution = sequence + row + sequence
    assert hlo.work(FUSIONS) == hlo.Work(kernels=2, loops=0, bytes=fusion + convolution)


def test_a_loop_counts_a_kernel_for_every_pass_that_updates_in_place():
    row = 16 * 10 * 4
    assert hlo.work(LOOP) == hlo.Work(kernels=99, loops=1, bytes=99 * (row + row + 4))
    with pytest.raises(ValueError, match="while: the number of its passes is not known"):
        hlo.work(LOOP.replace("known_trip_count", "unknown"))


def test_compiled_programs():
    """On CPU, too, an elementwise function of a large array is a kernel, and a loop over rows a kernel per row."""
    x = jnp.zeros((64, 1000))
    once = hlo.work(jax.jit(lambda x: jnp.sin(x) * 2 + x).lower(x).compile().as_text() or "")
    assert once == hlo.Work(kernels=1, loops=0, bytes=2 * x.nbytes)

    def rows(x):
        return jax.lax.fori_loop(0, 64, lambda i, x: x.at[i].set(jnp.sin(x[i])), x)

    looped = hlo.work(jax.jit(rows, donate_argnums=0).lower(x).compile().as_text() or "")
    assert looped.loops == 1 and looped.kernels >= 64
    assert 2 * x.nbytes <= looped.bytes < 4 * x.nbytes


@pytest.mark.parametrize(
    ("type_", "size"),
    [("f32[2,3]{1,0}", 24), ("pred[5]", 5), ("(bf16[2], s32[])", 8), ("f8e4m3fn[4]", 4), ("token[]", 0)],
)
def test_bytes_of_a_type(type_, size):
    assert hlo.size(type_) == size


def test_the_page_is_made_of_its_numbers():
    content = json.loads((PUBLISHED / "h100.json").read_text())
    assert h100_page.page(content) == (PUBLISHED / "h100.md").read_text()


def test_a_page_needs_no_version_before():
    content = json.loads((PUBLISHED / "h100.json").read_text())
    net = next(iter(content["steps"]))
    del content["before"][net]["XLA"]
    rows = h100_page.page(content).splitlines()
    (row,) = [line for line in rows if line.startswith(f"| {net} | as it is: unrolled |")]
    assert row.count("|  |") == 2
    del content["before"], content["before_commit"]
    text = h100_page.page(content)
    assert "T = 4, batch 32.\n" in text and "Before: at" not in text


@pytest.mark.parametrize(("command", "message"), [(h100, "neuron, steps, pooling"), (tpu, "a program")])
def test_a_page_of_nothing_says_what_to_compile(command, message, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--only", "--out", str(tmp_path / "new")])
    with pytest.raises(SystemExit, match=f"no page before {message}"):
        command.main()


def test_the_numbers_support_the_claims_of_the_pages():
    """A loop over single steps moves over twice the least bytes, and starts far more kernels."""
    neuron = json.loads((PUBLISHED / "h100.json").read_text())["neuron"]["float32"]
    for T, forms in neuron.items():
        least = h100_page.total(forms["XLA"], "least_bytes")
        if T != "T=4":
            assert h100_page.total(forms["a step a pass"], "bytes") > 2 * least
            assert h100_page.total(forms["XLA"], "kernels") * 10 < h100_page.total(forms["a step a pass"], "kernels")


def test_max_pooling_needs_no_scatter_and_is_as_lean_if_deterministic():
    pooling = json.loads((PUBLISHED / "h100.json").read_text())["pooling"]
    for name, forms in pooling.items():
        scatters = {form: rows["default"]["scatters"] for form, rows in forms.items()}
        assert scatters["ours"] == scatters["XLA's"] - 1 == ("SEW" in name)  # that is of the loss
        assert forms["ours"]["deterministic"]["GB"] == pytest.approx(forms["ours"]["default"]["GB"], rel=1e-3)
        assert forms["XLA's"]["deterministic"]["sorts"] == forms["ours"]["deterministic"]["sorts"] + 1
        if "SEW" not in name:
            assert forms["ours"]["default"]["GB"] < forms["XLA's"]["default"]["GB"] / 3


PATHS = {
    "jit(step)/jvp(VGG)/VGG.body/conv1/conv1.tensors/conv/cond/branch_0_fun/conv_general_dilated": "convolutions",
    "jit(step)/transpose(jvp(VGG))/VGG.body/conv1/conv1.tensors/norm/norm.affine/reduce_sum": "norm",
    "jit(step)/transpose(jvp(VGG))/VGG.body/conv6/neuron/while/body/closed_call/mul": "neuron",
    "jit(step)/jvp(VGG)/VGG.body/reduce_window_sum": "pooling",
    "jit(step)/transpose(jvp(VGG))/VGG.body/readout/dense/dot_general": "dense layers",
    "jit(step)/jvp(jit(take_along_axis))/gather": "loss, metrics, other",
    "jit(step)/jit(_where)/select_n": "optimiser, guard",
}


@pytest.mark.parametrize("path", PATHS)
def test_an_instruction_belongs_to_the_part_that_its_path_names(path):
    assert hlo.part_of(path) == PATHS[path]


def test_an_instruction_without_a_path_is_a_copy_or_what_its_name_says():
    """XLA gives none to the kernels' gradients by Eigen, up to a fifth of a step."""
    text = """HloModule step

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  %a = f32[8]{0} sine(%p), metadata={op_name="jit(step)/conv1/norm/mul"}
  ROOT %b = f32[8]{0} copy(%a)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %convolution-window-dilated.2 = f32[8]{0} convolution(%x, %x), window={size=4x4}
  %copy.1 = f32[8]{0} copy(%convolution-window-dilated.2)
  %fusion.1 = f32[8]{0} fusion(%copy.1), kind=kLoop, calls=%fused
  ROOT %fusion.2 = f32[8]{0} fusion(%fusion.1), kind=kLoop, calls=%fused, metadata={op_name="jit(step)/select_n"}
}
"""
    parts = {"convolution-window-dilated.2": "convolutions", "copy.1": hlo.COPIES, "fusion.1": "norm"}
    assert hlo.parts_of(text).items() >= (parts | {"fusion.2": hlo.REST}).items()


def test_bytes_are_those_of_the_kernels_of_a_program():
    def convolved(x):
        with jax.named_scope("conv"):
            return jnp.sin(x)

    program = jax.jit(lambda x: convolved(x) * 2 if x.shape else x).lower(jnp.ones(1024)).compile()
    total = hlo.bytes_by_part(program.as_text() or "")
    assert sum(total.values()) == 2 * 4 * 1024


TPU = """HloModule m, is_scheduled=true

%fused (p: bf16[32,4,64], q: f32[64]) -> bf16[32,4,64] {
  %p = bf16[32,4,64]{2,0,1:T(8,128)(2,1)} parameter(0)
  %q = f32[64]{0:T(128)S(1)} parameter(1)
  ROOT %r = bf16[32,4,64]{2,0,1:T(8,128)(2,1)S(1)} add(%p, %q)
}

ENTRY %main (a: bf16[32,4,64], b: f32[64]) -> f32[64] {
  %a = bf16[32,4,64]{2,0,1:T(8,128)(2,1)} parameter(0)
  %b = f32[64]{0:T(128)} parameter(1)
  %start = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)}) copy-start(%b)
  %done = f32[64]{0:T(128)S(1)} copy-done(%start)
  %f = bf16[32,4,64]{2,0,1:T(8,128)(2,1)S(1)} fusion(%a, %done), kind=kLoop, calls=%fused
  ROOT %all-reduce = f32[64]{0:T(128)} all-reduce(%done), to_apply=%sum
}
"""


def test_on_a_tpu_tiles_are_filled_up_and_on_chip_memory_costs_nothing():
    vector, activations = 128 * 4, 32 * 4 * 128 * 2
    assert hlo.work(TPU, hlo.hbm_size) == hlo.Work(kernels=3, bytes=vector + activations + vector)
    assert hlo.collectives(TPU) == {"all-reduce": {"count": 1, "bytes": 64 * 4}}


OVERLAPPED = """HloModule m, is_scheduled=true

%begin (p: bf16[64], x: bf16[8,8]) -> bf16[64] {
  %p = bf16[64]{0} parameter(0)
  %x = bf16[8,8]{1,0} parameter(1)
  %c = bf16[8,8]{1,0} convolution(%x, %x), dim_labels=bf_io->bf
  ROOT %r = bf16[64]{0} all-reduce(%p), channel_id=7, to_apply=%sum
}

%end (q: bf16[64]) -> bf16[64] {
  %q = bf16[64]{0} parameter(0)
  ROOT %s = bf16[64]{0} all-reduce(%q), channel_id=7, to_apply=%sum
}

ENTRY %main (a: bf16[64], b: f32[16], x: bf16[8,8]) -> f32[16] {
  %a = bf16[64]{0} parameter(0)
  %b = f32[16]{0} parameter(1)
  %x = bf16[8,8]{1,0} parameter(2)
  %f = bf16[64]{0} fusion(%a, %x), kind=kCustom, calls=%begin
  %g = bf16[64]{0} fusion(%f), kind=kCustom, calls=%end
  ROOT %last = f32[16]{0} all-reduce(%b), channel_id=8, to_apply=%sum
}
"""


def test_a_collective_that_is_spread_over_fusions_counts_once_and_as_overlapped():
    assert hlo.collectives(OVERLAPPED) == {"all-reduce": {"count": 2, "bytes": 64 * 2 + 16 * 4}}
    assert tpu_programs.overlapped(OVERLAPPED) == {"count": 1, "bytes": 64 * 2}
    assert tpu_programs.overlapped(TPU) == {"count": 0, "bytes": 0}


def test_overlap_costs_bytes_and_memory():
    programs = json.loads((PUBLISHED / "tpu.json").read_text())["programs"]
    for name in ("v5e 2x2", "v5p 2x2x1"):
        overlapping, default = (
            programs[f"{net}, {name}, data"] for net in ("SEW-ResNet-34 with overlap asked for", "SEW-ResNet-34")
        )
        assert overlapping["overlapped"]["bytes"] > overlapping["collectives"]["all-reduce"]["bytes"] / 2
        assert overlapping["bytes"] > default["bytes"] and overlapping["temporaries"] > default["temporaries"]


NEURONS = """HloModule m, is_scheduled=true

%forward (p: bf16[32,4,64]) -> bf16[32,4,64] {
  %p = bf16[32,4,64]{2,0,1} parameter(0)
  ROOT %r = bf16[32,4,64]{2,0,1} negate(%p), metadata={op_name="jit(step)/jvp(Net)/conv1/neuron/gt"}
}

%product (p: bf16[32,4,64], k: bf16[64,64]) -> bf16[32,4,64] {
  %p = bf16[32,4,64]{2,0,1} parameter(0)
  %k = bf16[64,64]{1,0} parameter(1)
  ROOT %c = bf16[32,4,64]{2,0,1} convolution(%p, %k), dim_labels=b0f_io->b0f
}

%reverse (p: bf16[32,4,64], k: bf16[64,64]) -> bf16[32,4,64] {
  %p = bf16[32,4,64]{2,0,1} parameter(0)
  %k = bf16[64,64]{1,0} parameter(1)
  %n = bf16[32,4,64]{2,0,1} negate(%p), metadata={op_name="jit(step)/jvp(Net)/conv1/neuron/gt"}
  %m = bf16[32,4,64]{2,0,1} negate(%n), metadata={op_name="jit(step)/transpose(jvp(Net))/conv1/neuron/mul"}
  ROOT %c = bf16[32,4,64]{2,0,1} fusion(%m, %k), kind=kOutput, calls=%product
}

%other (p: bf16[32,4,64]) -> bf16[32,4,64] {
  %p = bf16[32,4,64]{2,0,1} parameter(0)
  ROOT %r = bf16[32,4,64]{2,0,1} negate(%p), metadata={op_name="jit(step)/jvp(Net)/conv1/norm/gt"}
}

ENTRY %main (a: bf16[32,4,64], k: bf16[64,64]) -> bf16[32,4,64] {
  %a = bf16[32,4,64]{2,0,1} parameter(0)
  %k = bf16[64,64]{1,0} parameter(1)
  %f = bf16[32,4,64]{2,0,1} fusion(%a), kind=kLoop, calls=%forward
  %o = bf16[32,4,64]{2,0,1} fusion(%f), kind=kLoop, calls=%other
  ROOT %r = bf16[32,4,64]{2,0,1} fusion(%o, %k), kind=kOutput, calls=%reverse
}
"""


def test_kernels_of_neurons_are_those_that_hold_their_operations():
    activations, kernel = 32 * 4 * 64 * 2, 64 * 64 * 2
    expected = {"layers": 1, "forward": 1, "reverse": 1, "with a convolution": 1, "bytes": 4 * activations + kernel}
    assert tpu_programs.neuron_kernels(NEURONS) == expected


SLICES = """HloModule m, is_scheduled=true

%cut (p: f32[32,128]) -> f32[8,128] {
  %p = f32[32,128]{1,0:T(8,128)} parameter(0)
  ROOT %s = f32[8,128]{1,0:T(8,128)S(1)} slice(%p), slice={[8:16], [0:128]}
}

%more (arg: (s32[], f32[8,128])) -> pred[] {
  %arg = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %three), direction=LT, metadata={op_name="while/cond/lt"}
}

%pass (arg: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg = (s32[], f32[8,128]{1,0:T(8,128)}) parameter(0)
  %row = f32[8,128]{1,0:T(8,128)} get-tuple-element(%arg), index=1
  %negative = f32[8,128]{1,0:T(8,128)} negate(%row)
  ROOT %next = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%arg, %negative)
}

ENTRY %main (x: f32[32,128]) -> f32[8,128] {
  %x = f32[32,128]{1,0:T(8,128)} parameter(0)
  %a = ((f32[32,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:8], [0:128]}
  %b = ((f32[32,128]{1,0:T(8,128)}), f32[8,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) async-start(%x), calls=%cut
  %start = (s32[], f32[8,128]{1,0:T(8,128)}) tuple(%x)
  ROOT %loop = (s32[], f32[8,128]{1,0:T(8,128)}) while(%start), condition=%more, body=%pass
}
"""


def test_a_slice_is_read_where_its_original_lies_and_a_counter_bounds_a_loop():
    """Both slices go from main memory, 4 kB each, into on-chip memory; a pass of the loop reads and writes 4 kB."""
    row, test = 8 * 128 * 4, 4 + 4 + 1
    bytes_ = 2 * row + 3 * (2 * row + test)
    assert hlo.work(SLICES, hlo.hbm_size) == hlo.Work(kernels=2 + 3 * 2, loops=1, bytes=bytes_)
    with pytest.raises(ValueError, match="loop: the number of its passes is not known"):
        hlo.work(SLICES.replace("direction=LT", "direction=NE"), hlo.hbm_size)


def test_memory_is_read_off_the_report_of_buffers():
    report = """BufferAssignment:
allocation 0: size 100, parameter 0, shape |f32[25]| at ShapeIndex {}:
 value: <36 x.1 @0> (size=100,offset=0): f32[25]{0}
allocation 1: size 8, output shape is |(f32[2])|, maybe-live-out:
allocation 2: size 7, thread-local:
allocation 3: size 4, color 2, preallocated-temp:
allocation 4: size 3000, preallocated-temp:
allocation 5: size 5000, color 1, preallocated-temp:
allocation 6: size 6, constant:
"""
    assert tpu_programs.memory(report) == {"arguments": 100, "temporaries": 3000, "outputs": 8}


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[8,128]{1,0:T(8,128)}", 4096),
        ("f32[9,129]{1,0:T(8,128)}", 16 * 256 * 4),
        ("f32[9,129]{0,1:T(8,128)}", 136 * 128 * 4),
        ("f32[9,129]{1,0:T(8,128)S(1)}", 0),
        ("pred[3]{0:T(512)(128)(4,1)}", 512),
        ("f32[]", 4),
        ("f32[3,5]", 60),
        ("(f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)}, u32[]{:S(2)})", 512),
    ],
)
def test_bytes_in_the_main_memory_of_a_tpu(type_, size):
    assert hlo.hbm_size(type_) == size


def test_the_page_of_tpus_is_made_of_its_numbers():
    content = json.loads((PUBLISHED / "tpu.json").read_text())
    text = tpu_page.page(content)
    assert text == (PUBLISHED / "tpu.md").read_text()
    # The bytes are counted too high in some kernels and too low in others.
    assert "bound" not in text and "least possible" not in text


def test_the_text_on_tpus_is_true_of_its_numbers():
    programs = json.loads((PUBLISHED / "tpu.json").read_text())["programs"]
    text = tpu_page.page({"programs": programs, "versions": {}})
    prose = " ".join(text.split())
    collectives = programs["SEW-ResNet-50, 2 x v5e 2x2, data"]["collectives"]
    reduced, scattered = (collectives[name]["bytes"] for name in ("all-reduce", "reduce-scatter"))
    assert "nearly half of SEW-ResNet-50's bytes" in prose and 0.4 < reduced / (reduced + scattered) < 0.5

    def row(name):
        return next(line for line in text.splitlines() if line.startswith(f"| {name} | 32 |")).split(" | ")

    # A third of the operations is counted twice with remat.
    assert row("SEW-ResNet-34 with remat")[8] == "81" and "SEW-ResNet-34 with remat has 61 % of the peak" in prose
    (utilisation,) = re.findall(r"^\| `utilisation` \| (.*)", (ROOT / "docs" / "scale.md").read_text(), re.MULTILINE)
    assert "`--model.remat` computes again" in utilisation
    # On-chip memory, where the temporaries lie, is not counted.
    assert row("digits")[3] == "" and int(row("CNN7")[3]) > 100
    programs = {key: row for key, row in programs.items() if "remat" not in key}
    assert "has 61 %" not in tpu_page.page({"programs": programs, "versions": {}})


def compiled(compiler, out, *options):
    """The programs of a training step on the digits."""
    line = [sys.executable, "-m", "benchmarks.tpu", "--out", out, "--wheels", compiler, "--only", "digits", *options]
    done = subprocess.run(line, cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads((out / "tpu.json").read_text())["programs"]


@pytest.mark.slow
def test_a_training_step_compiles_for_several_slices_of_a_tpu(tpu_compiler, tmp_path):
    programs = compiled(tpu_compiler, tmp_path, "--layouts", "fsdp", "data", "--slices", "2 x v5e 2x2")
    assert programs["digits, 2 x v5e 2x2, data"]["collectives"]["all-gather"]["bytes"] < 1e5  # no activations
    program = programs["digits, 2 x v5e 2x2, fsdp"]
    assert program["flops"] > 1e8 and program["bytes"] > 1e5
    assert program["neuron"]["layers"] == 3 and program["neuron"]["forward"] >= 3 <= program["neuron"]["reverse"]
    assert program["collectives"]["all-gather"]["count"] > 0  # of parameters
    assert program["collectives"]["reduce-scatter"]["count"] > 0  # of gradients, within a slice


@pytest.mark.slow
def test_the_counts_are_those_of_a_program_that_is_compiled_to_the_end(tpu_compiler, tmp_path):
    options = ("--layouts", "data", "--slices", "v5e 2x2")
    counted, to_the_end = (
        compiled(tpu_compiler, tmp_path / str(len(more)), *options, *more)["digits, v5e 2x2, data"] | {"seconds": 0}
        for more in ([], ["--code"])
    )
    assert counted == to_the_end and counted["bytes"] > 1e5
