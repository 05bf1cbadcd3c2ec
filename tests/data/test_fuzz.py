"""Mutated files of each format: read, or refused in one line, within limits of memory and time."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import fuzz_readers
from tests.support.checkout import ROOT

COUNT = 500


@pytest.mark.parametrize("kind", fuzz_readers.KINDS)
def test_an_intact_file_is_read_and_some_mutated_ones_pass(kind, tmp_path):
    target = fuzz_readers.Target(kind, tmp_path)
    target.read(fuzz_readers.KINDS[kind][1](3, tmp_path))
    assert sum(count for name, count in target.counts.items() if name.endswith(" read")) >= 2, target.counts
    for seed in range(3):
        target.read(fuzz_readers.mutated(kind, seed, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", fuzz_readers.KINDS)
def test_many_mutated_files_within_limits_of_memory_and_time(kind, tmp_path):
    line = [sys.executable, "-m", "tests.support.fuzz_readers", str(tmp_path), kind, "0", str(COUNT)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    last = tmp_path / "last"
    assert process.returncode == 0, f"seed {last.read_text() if last.exists() else None}: {process.stderr[-4000:]}"
    result = json.loads(process.stdout.splitlines()[-1])
    assert not result["failures"], "\n".join(result["failures"][:3])
    assert any(name.endswith(" refused") for name in result["counts"]) and result["longest"] < fuzz_readers.SECONDS
