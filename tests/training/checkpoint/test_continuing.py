"""A run saved on eight devices of one process goes on in two processes: the same bits, then the same numbers."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from csbp_jax.training.checkpoint import checkpoint
from tests.support import processes, resume_in_process


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data", "fsdp"])
def test_a_run_saved_by_one_process_resumes_in_two(layout, tmp_path, x64):
    """20 steps on, in float64, to 1e-10."""
    run, state = resume_in_process.begin("fsdp")
    state = resume_in_process.go_on(run, state)
    with checkpoint.open_folder(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(resume_in_process.STEPS, state)
    saved = resume_in_process.arrays(run, state)
    after = resume_in_process.arrays(run, resume_in_process.go_on(run, state))

    script = pathlib.Path(__file__).parents[2] / "support" / "resume_in_process.py"
    settings = {"PYTHONPATH": ".", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "JAX_ENABLE_X64": "1"}
    port, running = processes.free_port(), []
    for process in range(2):
        line = [
            sys.executable,
            script,
            f"127.0.0.1:{port},2,{process}",
            layout,
            tmp_path / "checkpoints",
            tmp_path / "x",
        ]
        running.append(
            subprocess.Popen(line, cwd=processes.ROOT, env={**os.environ, **settings}, stdout=-1, stderr=-1, text=True)
        )
    codes, reported, errors = processes.finish(running, 200)
    assert codes == [0, 0], errors
    assert all(text.splitlines()[-1] == "{0, 1}" for text in reported)
    found = np.load(tmp_path / "x.npz")
    assert len(found) == 2 * len(saved) > 20
    for name, value in saved.items():
        assert value.dtype == found[f"restored{name}"].dtype
        assert value.tobytes() == found[f"restored{name}"].tobytes()
        np.testing.assert_allclose(found[f"after{name}"], after[name], rtol=1e-10, atol=1e-10)
    assert any(value.dtype == np.float64 and not np.array_equal(value, after[name]) for name, value in saved.items())
