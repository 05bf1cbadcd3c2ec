"""Names that JAX keeps to itself are still there (csbp_jax/runtime/private.py).

Where one has moved with a new version, look it up in that version's source: whether JAX has started in
``jax/_src/xla_bridge.py``, other processes in ``jax/_src/clusters``, and the counts of a program in what
``jax.stages.Lowered.cost_analysis`` calls. Change that file alone. If there is none any more, a pod needs
``--distributed auto``, a late ``deterministic`` is not refused, and operations are not counted on GPUs.
"""

import itertools

import jax
import jax.numpy as jnp
import pytest
from jax._src.clusters import cloud_tpu_cluster

from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.runtime import private
from tests.support import processes


def test_whether_jax_has_started_is_known():
    jnp.ones(2).block_until_ready()
    assert private.backend_of_jax() == jax.default_backend()


@pytest.mark.parametrize("size", [3, 5])
def test_the_operations_of_a_program_are_counted(size):
    lowered = jax.jit(jnp.dot).lower(jnp.ones((size, size)), jnp.ones((size, size)))
    counts = private.counts_of_program(jax.local_devices(backend="cpu")[0], lowered.compiler_ir("hlo"))
    assert counts["flops"] == 2 * size**3 and counts == lowered.cost_analysis()


def test_processes_of_a_scheduler_are_found(monkeypatch):
    assert private.found_processes() == 1 and private.found_index() == (0, None)
    variables = {"JOB_ID": "7", "STEP_NODELIST": "node1,node2", "NTASKS": "2", "PROCID": "1", "LOCALID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert private.found_processes() == 2 and private.found_index() == (1, 0)


@pytest.fixture
def tpu_without_server(monkeypatch):
    """This process as one on a TPU VM whose metadata server does not answer."""
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{processes.free_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("TPU_SKIP_MDS_QUERY", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_does_not_answer_leaves_one_process_and_a_line(tpu_without_server, capsys):
    assert private.found_processes() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "csbp_jax: one process, as it is not known whether there are others (ConnectionError: " in line
    assert line.endswith("if there are, name them: --distributed HOST:PORT,n,i")


def test_a_tpu_whose_variables_name_one_worker_asks_no_server(tpu_without_server, monkeypatch, capsys):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    assert private.found_processes() == 1 and capsys.readouterr().err == ""
    for slices in (1, 2):
        monkeypatch.setenv("MEGASCALE_NUM_SLICES", str(slices))
        assert private.found_processes() == slices
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "worker0,worker1")
    assert private.found_processes() == 4
    monkeypatch.setenv("MEGASCALE_SLICE_ID", "1")
    with pytest.raises(ConfigError, match=r"--shard: this is one of several processes, but it is not known which"):
        private.found_index()
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    assert private.found_index() == (3, None)


def test_training_starts_on_a_tpu_without_a_server(tpu_without_server, monkeypatch, tmp_path, capsys):
    """Until it looks for the device: these words need none."""
    line = ["train", "digits", "--runs", str(tmp_path), "--require", "tpu"]
    for how, said in ({}, "one process, as it is not known"), ({"--distributed": "off"}, ""):
        assert main.main([*line, *itertools.chain(*how.items())]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert "--require: tpu, but JAX computes on cpu" in lines[-1]
        assert len(lines) == 1 + bool(said) and said in lines[0]
