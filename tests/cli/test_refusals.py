"""The record of refusals: command lines, wrong and right, still end as recorded; no option is left out of it."""

import subprocess
import sys
import time

import pytest

from csbp_jax.cli import options
from csbp_jax.cli.commands import COMMANDS
from csbp_jax.config import Config, flatten
from tests.support.checkout import ROOT
from tools import refusals

RECORD = refusals.load()


@pytest.mark.ci
@pytest.mark.parametrize("quarter", range(4))
def test_refusals_are_as_recorded(quarter, tmp_path):
    """All rows for which nothing is trained but the runs that they read."""
    quick = [row for row in RECORD.rows if row.code in (2, 4) or row.argv.startswith("data ")]
    first, last = (len(quick) * n // 4 for n in (quarter, quarter + 1))
    differing = refusals.differing(RECORD, quick[first:last], tmp_path)
    assert [(row.name, how, outcome.message) for row, outcome, how in differing] == []


@pytest.mark.slow
def test_all_refusals_are_as_recorded():
    done = subprocess.run([sys.executable, "-m", "tools.refusals"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_row_that_differs_is_reported_with_the_reason(tmp_path, monkeypatch):
    def fail(argv):
        raise AssertionError("not a refusal")

    monkeypatch.setitem(COMMANDS, "list", (COMMANDS["list"][0], fail))
    right = refusals.Row("epochs", [], "train digits --epochs 0", 2, "epochs")
    changed = {
        "code 2, not 4": right._replace(code=4),
        "does not name 'epochs lr'": right._replace(names="epochs lr"),
        "code 0, not 2": right._replace(argv="data digits --epochs 1"),
        "code AssertionError, not 2": right._replace(argv="list"),
    }
    differing = list(refusals.differing(RECORD, [right, *changed.values()], tmp_path))
    assert [how for _, _, how in differing] == list(changed)
    written = [refusals.rewritten(row, outcome) for row, outcome, _ in differing]
    assert written[:2] == [right, right] and written[3] == changed["code AssertionError, not 2"]
    assert (written[2].code, written[2].names) == (0, "")


def test_a_step_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(refusals, "SECONDS", 1)
    monkeypatch.setitem(COMMANDS, "list", (COMMANDS["list"][0], lambda argv: time.sleep(60)))
    outcome = refusals.Runner(RECORD, tmp_path).run(refusals.Row("", [], "list", 0, ""))
    assert outcome.code == "TooLong"


@pytest.mark.parametrize("names, message, named", [
    ("chaos.z0", "chaos.z0: (-1.0,) is not possible", True),
    ("z0", "chaos.z0: (-1.0,) is not possible", False),
    ("model.time_steps", "--model.time-steps: 'x' is not a whole number", True),
    ("epochs", "data.mix_off_epochs: 3 is too many", False),
    ("r1/config.json epochs", "r1/config.json: epochs: 0 is not possible", True),
    ("--name", "NAME: '../x' is not possible", False),
    ("", "epochs: 0 is not possible", False),
])  # fmt: skip
def test_a_message_names_a_field_by_itself_or_by_its_option(names, message, named):
    assert refusals.is_named(names, message) == named


def test_every_field_and_every_option_has_a_row():
    words: dict[str, set[str]] = {command: set() for command in COMMANDS}
    for row in RECORD.rows:
        command, *rest = row.argv.split() or [""]
        words.get(command, set()).update(word.partition("=")[0] for word in rest)
    fields = {f"--{name.replace('_', '-')}" for name in flatten(Config())}
    assert fields <= words["train"] | words["data"] | words["evaluate"]
    for command, (kind, _) in COMMANDS.items():
        assert {*options._names(kind)} - fields <= words[command], command
    assert len({row.name for row in RECORD.rows}) == len(RECORD.rows)
