"""Starts the command line as several processes of one run, on ports of this machine alone."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(words, processes=2, devices=2, **environment):
    """``csbp_jax train WORDS`` as so many processes with so many devices each; only one: without the others' option."""
    port = free_port()
    running = []
    for process in range(processes):
        line = [sys.executable, "-m", "csbp_jax", "train", *words]
        if processes > 1:
            line += ["--distributed", f"127.0.0.1:{port},{processes},{process}"]
        settings = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), **environment}
        running.append(subprocess.Popen(line, cwd=ROOT, env=settings, stdout=-1, stderr=-1, text=True))
    return running


def finish(running, timeout=240):
    """Exit codes, stdouts and stderrs; none outlives the timeout."""
    try:
        reported = [process.communicate(timeout=timeout) for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], [out for out, _ in reported], [err for _, err in reported]
