"""Parts of a training step: their names, their own time, their bytes, and the page."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import step_parts

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
    assert step_parts.part_of(path) == PATHS[path]


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
    parts = {"convolution-window-dilated.2": "convolutions", "copy.1": step_parts.COPIES, "fusion.1": "norm"}
    assert step_parts.parts_of(text).items() >= (parts | {"fusion.2": step_parts.REST}).items()


def test_time_of_inner_events_is_theirs_alone():
    events = [("loop", 0.0, 10.0), ("a", 1.0, 4.0), ("b", 2.0, 3.0), ("a", 5.0, 6.0), ("after", 10.0, 11.0)]
    assert step_parts.own_times(events) == {"loop": [6.0], "a": [2.0, 1.0], "b": [1.0], "after": [1.0]}


def test_bytes_are_those_of_the_kernels_of_a_program():
    def convolved(x):
        with jax.named_scope("conv"):
            return jnp.sin(x)

    program = jax.jit(lambda x: convolved(x) * 2 if x.shape else x).lower(jnp.ones(1024)).compile()
    total = step_parts.bytes_by_part(program.as_text() or "")
    assert sum(total.values()) == 2 * 4 * 1024


def test_shares_of_a_step_add_up_and_the_largest_is_the_answer():
    limits = {"bytes": 1e9, "flops": 1e9}
    one = {"wall": 0.010, "cpu": 0.010, "parts": {"norm": 0.002, "convolutions": 0.005}, "bytes": {"norm": 10**6}}
    one |= {"dispatch": 0.001, "input": 0.002}
    both = one | {"wall": 0.005, "limits": limits, "exchange": [400.0, 150.0]}
    nets = {"a": {"1": one | {"limits": limits}, "2": [both]}}
    content = {"nets": nets, "command": "python -m x", "machine": "M"}
    row = step_parts.rows(content)["a"]
    assert sum(row.values()) == pytest.approx(1) and row[step_parts.WAITING] == pytest.approx(0.2)
    page = step_parts.page(content)
    assert "one core: a: convolutions 50 %.**" in page and "| a | 2.00 | 1.00 | 150-400 |" in page
    assert np.isclose(step_parts._at_copy(one | {"limits": limits}), 1.0)
