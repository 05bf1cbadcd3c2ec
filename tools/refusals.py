"""Check the record of refusals, or write it: ``python -m tools.refusals [--write] [WORD ...]``.

``tests/data/refusals.json`` holds command lines, wrong and right, with their exit codes and what a refusal names: the
field, option or file that a user is to change. The words of messages are not recorded, so that they may change. A row:

    name    what is wrong, or right
    setup   steps that prepare the working directory: a fixture, whose files are copied, or tests/support/steps.py
    argv    the command, in words as of a shell; {tiny} stands for the options of the small runs
    code    exit code
    names   words that the message has, empty where nothing is refused; a field's option is as good as the field

A fixture is made once, by steps and commands of its own. With WORDs, only rows in whose name one of them occurs.
``--write`` records the code that a row gives and, where the message lacks what the row names, the first word of its
last line; both are to be read before they are committed. A new row may have any code and names before. All runs in
this process, in a temporary directory.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax

from csbp_jax.cli import main
from tests.support.steps import STEPS

RECORD = pathlib.Path(__file__).parent.parent / "tests" / "data" / "refusals.json"
SECONDS = 600
"""Longest time of a command."""


class Row(NamedTuple):
    name: str
    setup: list[list[Any]]
    argv: str
    code: int
    names: str


class Record(NamedTuple):
    tiny: str
    fixtures: dict[str, dict[str, Any]]
    rows: list[Row]


class Outcome(NamedTuple):
    """Exit code, or the type of an exception that came through; and what was printed to stderr."""

    code: int | str
    message: str


class TooLong(BaseException):
    """A command that does not end; not an OSError, which the command line would report as its own."""


class Runner:
    """Runs rows in directories of their own within a folder, which also keeps the fixtures."""

    def __init__(self, record: Record, folder: pathlib.Path):
        self.record, self.folder = record, folder

    def run(self, row: Row) -> Outcome:
        with tempfile.TemporaryDirectory(dir=self.folder) as directory, _within(directory):
            self._prepare(row.setup)
            return self._call(row.argv)

    def _prepare(self, setup: list[list[Any]]) -> None:
        for name, *arguments in setup:
            if name in self.record.fixtures:
                shutil.copytree(self._fixture(name), ".", symlinks=True, dirs_exist_ok=True)
            else:
                STEPS[name](*arguments)

    def _fixture(self, name: str) -> pathlib.Path:
        directory, fixture = self.folder / name, self.record.fixtures[name]
        if not directory.exists():
            directory.mkdir()
            with _within(directory):
                self._prepare(fixture["setup"])
                for argv in fixture["commands"]:
                    outcome = self._call(argv)
                    assert outcome.code == 0, f"fixture {name}: {outcome.message}"
        return directory

    def _call(self, argv: str) -> Outcome:
        def stop(*_: Any) -> None:
            raise TooLong

        errors = io.StringIO()
        handler = signal.signal(signal.SIGALRM, stop)
        signal.alarm(SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
                return Outcome(main.main(shlex.split(argv.replace("{tiny}", self.record.tiny))), errors.getvalue())
        except (Exception, SystemExit, TooLong) as error:
            return Outcome(type(error).__name__, "".join(traceback.format_exception_only(error)))
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def _within(directory: str | pathlib.Path) -> Iterator[None]:
    """Change to a directory, and put the environment back afterwards."""
    environment = dict(os.environ)
    for name in (name for name in environment if name.startswith("CSBP_")):  # of make, which runs the tests, too
        del os.environ[name]
    try:
        with contextlib.chdir(directory):
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)


def is_named(names: str, message: str) -> bool:
    """Return whether a message has all of the names; ``--model.time-steps`` is ``model.time_steps``, too."""

    def as_fields(text: str) -> str:
        return re.sub(r"--[a-z][\w.-]*", lambda match: "--" + match[0][2:].replace("-", "_"), text)

    words = [re.escape(word) for word in as_fields(names).split()]
    return bool(words) and all(re.search(rf"(?<![\w.]){word}(?!\w)", as_fields(message)) for word in words)


def difference(row: Row, outcome: Outcome) -> str:
    """Describe how an outcome differs from its row; empty if it does not."""
    if outcome.code != row.code:
        return f"code {outcome.code}, not {row.code}"
    if not outcome.code:
        return ""
    *_, last = outcome.message.splitlines() or [""]
    if not last.startswith("csbp_jax: "):
        return "does not end with the line of a refusal"
    refusal = "\n".join(line for line in outcome.message.splitlines() if line.startswith("csbp_jax: "))
    return "" if is_named(row.names, refusal) else f"does not name {row.names!r}"


def differing(record: Record, rows: Iterable[Row], folder: pathlib.Path) -> Iterator[tuple[Row, Outcome, str]]:
    """Run rows, and yield those that differ, with their outcome and how it differs."""
    runner = Runner(record, folder)
    for row in rows:
        outcome = runner.run(row)
        if how := difference(row, outcome):
            yield row, outcome, how


def load() -> Record:
    """Read the record."""
    content = json.loads(RECORD.read_text())
    return Record(content["tiny"], content["fixtures"], [Row(*row) for row in content["rows"]])


def dump(record: Record) -> str:
    """Format the record, a row per line."""
    fixtures = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in record.fixtures.items())
    rows = ",\n".join(map(json.dumps, record.rows))
    return f'{{"tiny": {json.dumps(record.tiny)},\n"fixtures": {{\n{fixtures}\n}},\n"rows": [\n{rows}\n]}}\n'


def rewritten(row: Row, outcome: Outcome) -> Row:
    """Return a row as ``--write`` records it; one that let an exception through stays as it was."""
    if isinstance(outcome.code, str):
        return row
    first = re.match(r"csbp_jax: ([^\s:,]+)", outcome.message.strip().rpartition("\n")[2])
    names = row.names if is_named(row.names, outcome.message) else first[1] if first else ""
    return row._replace(code=outcome.code, names=names if outcome.code else "")


def check(argv: list[str]) -> int:
    """Run the command; return 1 if rows differ, else 0."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # most of the time is code generation
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)  # as in the tests: some messages name multiples of their number
    words, record, changed = [word for word in argv if word != "--write"], load(), {}
    rows = [row for row in record.rows if not words or any(word in row.name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        for row, outcome, how in differing(record, rows, pathlib.Path(folder)):
            print(f"{row.name}: {how}\n    {row.argv}\n    {outcome.message.strip()}", flush=True)
            changed[row.name] = rewritten(row, outcome)
    print(f"{len(changed)} of {len(rows)} rows differ")
    if "--write" in argv:
        RECORD.write_text(dump(record._replace(rows=[changed.get(row.name, row) for row in record.rows])))
    return min(len(changed), 1)


if __name__ == "__main__":
    sys.exit(check(sys.argv[1:]))
