"""Starts the command line as several processes of one run, on ports of this machine alone."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys

from tests.support.checkout import ROOT


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_lines(lines, devices=2, cwd=ROOT, **environment):
    """Start a Python process for each list of arguments; each process has ``devices`` virtual devices."""
    settings = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    settings = {**os.environ, **settings, **environment}
    return [
        subprocess.Popen([sys.executable, *line], cwd=cwd, env=settings, stdout=-1, stderr=-1, text=True)
        for line in lines
    ]


def start(words, processes=2, devices=2, **environment):
    """``csbp_jax train WORDS`` as so many processes with so many devices each; only one: without the others' option."""
    how, line = f"127.0.0.1:{free_port()},{processes}", ["-m", "csbp_jax", "train", *words]
    lines = [[*line, "--distributed", f"{how},{process}"] for process in range(processes)]
    return start_lines(lines if processes > 1 else [line], devices, **environment)


def listening(pid):
    """``{(address, port)}`` at which a process listens, as /proc has them; nothing where there is none."""
    folder, links = pathlib.Path(f"/proc/{pid}"), []
    for link in folder.glob("fd/*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            links.append(os.readlink(link))
    rows = [row.split() for table in folder.glob("net/tcp*") for row in table.read_text().splitlines()[1:]]
    ends = [row[1].split(":") for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in links]
    return {(address, int(port, 16)) for address, port in ends}


def finish(running, timeout=240):
    """Exit codes, stdouts and stderrs; none outlives the timeout."""
    try:
        reported = [process.communicate(timeout=timeout) for process in running]
    finally:
        for process in running:
            process.kill()
    return [process.returncode for process in running], [out for out, _ in reported], [err for _, err in reported]
