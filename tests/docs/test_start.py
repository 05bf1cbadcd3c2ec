"""docs/start.md is the path of one who begins: its commands run as they stand there, and leave what it says."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.checkout import checkout

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "start.md").read_text()
PROSE, SHOWN = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL), re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"^    ((?:make|\.venv/bin/python) .*)$", PROSE, re.MULTILINE)
LEFT = re.findall(r"`(runs/[^`]+)`", PROSE)


def test_the_page_goes_all_the_way():
    words = " ".join(COMMANDS)
    for step in ("make setup", "make data", "make train", " evaluate ", " inspect ", " predict ", " compare "):
        assert step in words
    for step in ("--to safetensors", "--to stablehlo", "--to nir", " report ", "DIR=my-pictures", "DIR=my-events"):
        assert step in words
    assert len(LEFT) >= 10


@pytest.mark.slow
def test_every_command_of_the_page_works(tmp_path):
    root = checkout(tmp_path / "clone")
    python = root / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (root / ".venv" / ".installed").touch()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "CSBP_", "JAX_", "XLA_"))}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "COLUMNS": "120"}
    told = {}
    for command in COMMANDS:
        done = subprocess.run(command, shell=True, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"
        told[command] = done.stdout + done.stderr
    for path in LEFT:
        assert (root / path).exists(), path
    for run in ("pictures", "plain", "events"):
        assert json.loads((root / "runs" / run / "result.json").read_text())["last"]["test_accuracy"] > 0.9
    everything = "\n".join(told.values())
    records, _, answers = SHOWN
    assert records in everything
    for row in answers.splitlines():
        # The probability's last digits are the machine's.
        assert row.rpartition(",")[0] in everything
