"""The tutorial, docs/start.md: its commands run as written, and write the files that it names."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.checkout import checkout

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "start.md").read_text()
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
OUTPUTS = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[1:]  # the first is a listing of files
SHELL = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
COMMANDS = SHELL.splitlines()
WRITTEN = re.findall(r"`(runs/[^`]+)`", PROSE)


def test_the_page_covers_the_whole_workflow():
    words = " ".join(COMMANDS)
    for step in ("make setup", "make data", "make train", " evaluate ", " inspect ", " predict ", " compare "):
        assert step in words
    for step in ("--to safetensors", "--to stablehlo", "--to nir", " report ", "DIR=my-pictures", "DIR=my-events"):
        assert step in words
    assert len(WRITTEN) >= 10


@pytest.mark.slow
def test_every_command_of_the_page_works(tmp_path):
    root = checkout(tmp_path / "clone")
    programs = root / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, arguments in (("python", ""), ("csbp_jax", " -m csbp_jax")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (programs / name).chmod(0o755)
    (root / ".venv" / ".installed").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "CSBP_", "JAX_", "XLA_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "120", "JAX_PLATFORMS": "cpu"}
    outputs = []
    for command in COMMANDS:
        done = subprocess.run(command, shell=True, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        outputs.append(done.stdout + done.stderr)
    for path in WRITTEN:
        assert (root / path).exists(), path
    for run in ("pictures", "plain", "events"):
        assert json.loads((root / "runs" / run / "result.json").read_text())["last"]["test_accuracy"] > 0.9
    everything = "\n".join(outputs)
    records, _, answers = OUTPUTS
    assert records in everything
    for row in answers.splitlines():
        # The last digits of a probability depend on the machine.
        assert row.rpartition(",")[0] in everything
