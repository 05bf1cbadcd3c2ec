"""Output of a run on the terminal: progress bars, lines and tables."""

import contextlib
import datetime
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from csbp_jax.config import Chaos, escaped
from csbp_jax.reporting import measures

Show = Callable[[str, int, int], None]
"""Progress callback ``show(stage, done, total)`` of :func:`stages`; a total of 0 is unknown."""


class Console(rich_console.Console):
    """Console that escapes control characters, and whose closed pipe is an exception like any other."""

    def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
        """Make a text of what is printed: names in it may be from others."""
        return super().render_str(escaped(text), *arguments, **options)

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that rich has caught."""
        raise


def make_console() -> Console:
    """Make the console of the terminal, which prints text as it is, without markup or highlighting."""
    return Console(highlight=False, markup=False)


def is_live(console: Console) -> bool:
    """Return whether the console can draw a progress bar; otherwise, each epoch is a plain line."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def progress(console: Console, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """Show a live progress bar on a terminal, and nothing elsewhere; yields ``show(steps done, text)``."""
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True))
    columns = (text, BarColumn(bar_width=16), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not is_live(console)) as bar:
        task = bar.add_task("compiling", total=total, completed=done)
        yield lambda step, text: bar.update(task, completed=step, description=text)


@contextlib.contextmanager
def logged_progress(console: Console, total: int) -> Iterator[Callable[[int, str, bool], None]]:
    """Show a live progress bar as :func:`progress`, or lines without a terminal; yields ``show(done, text, is_usual)``.

    ``is_usual``: whether the time since the call before tells how long the rest will take; not if it was spent
    compiling.
    """
    lines = _Lines(console)
    with progress(console, total, 0) as bar:

        def show(done: int, text: str, is_usual: bool) -> None:
            if is_live(console):
                bar(done, text)  # rich measures from the end of the first step on
            else:
                lines.show("", text, done, total, is_usual)

        yield show


@contextlib.contextmanager
def stages(console: Console) -> Iterator[Show]:
    """Show a progress bar per stage, or lines without a terminal; yields ``show(stage, done, total)``.

    A stage with a total of 0 is of unknown length: its bar shows how long it has lasted, and ends when another begins.
    A stage that goes back, such as a second reading of the same records, begins again.
    """
    if not is_live(console):
        lines = _Lines(console)
        yield lambda stage, done, total: lines.show(stage, stage, done, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), _TimeColumn(compact=True))
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def end_unknown() -> None:
            for task in bar.tasks:
                if task.total is None:
                    bar.update(task.id, completed=1, total=1)

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                end_unknown()
                tasks[stage] = bar.add_task(stage, total=total or None)
            elif done < bar.tasks[tasks[stage]].completed:
                bar.reset(tasks[stage])
            bar.update(tasks[stage], completed=done, total=total or None)

        yield show
        end_unknown()


class _TimeColumn(TimeRemainingColumn):
    """Time left; of a stage of unknown length, the time so far."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else TimeElapsedColumn().render(task)


FIRST_SECONDS, LOG_SECONDS = 5.0, 30.0
"""Seconds between the first lines of progress in a log, and the most; once the time left is known, they double."""


class _Lines:
    """Progress as lines of a log: one when a stage begins, some while it lasts, and one when it ends."""

    def __init__(self, console: Console):
        self._console = console
        self._stage: str | None = None
        self._done = 0
        self._before = 0.0  # the time of the last call
        self._due, self._wait = 0.0, FIRST_SECONDS
        self._seconds, self._measured = 0.0, 0  # a part of the stage, and how long it took

    def show(self, stage: str, text: str, done: int, total: int, is_usual: bool = True) -> None:
        """Print ``text`` with the share that is done and the time left, if it is due.

        ``is_usual`` is as in :func:`logged_progress`.
        """
        now, before, former = time.monotonic(), self._before, self._done
        self._before, self._done = now, done
        if stage != self._stage or done < former:
            self._stage, self._wait = stage, FIRST_SECONDS
            self._seconds, self._measured = 0.0, 0
        else:
            if is_usual:
                self._seconds += now - before
                self._measured += done - former
            ends = former < done == total
            if now < self._due and not ends:
                return
        self._due = now + self._wait
        if self._measured:
            self._wait = min(2 * self._wait, LOG_SECONDS)
        if total and done:
            text += f", {done / total:.0%}"
        if done < total and self._measured:
            seconds = self._seconds * (total - done) / self._measured
            text += f", about {datetime.timedelta(seconds=round(seconds))} left"
        self._console.print(text, soft_wrap=True)


def progress_line(row: dict[str, Any], epochs: int) -> str:
    """Format a row of metrics as one line: of an epoch, which stays, or of a step, beside the bar.

    z is that of each tap, or from the lowest to the highest; ``ex/s`` counts training examples per second.
    """
    text, name = f"epoch {row['epoch']}/{epochs}", (measures.names(row, "validation_") or measures.names(row, ""))[0]
    measure = measures.MEASURES[name]
    if f"validation_{name}" not in row:
        return f"{text} {measure.short} {measure.text(row[name], 1)} task {row['task_loss']:.3g}"
    text += f" val {measure.text(row[f'validation_{name}'], 1)}"
    if "task_loss" not in row:  # no step of the epoch was finite
        return text
    strengths = sorted(row["z"].values()) or [0.0]
    z = " to ".join(dict.fromkeys(f"{end:.3g}" for end in (strengths[0], strengths[-1])))
    return (
        f"{text} {measure.short} {measure.text(row[name], 1)} task {row['task_loss']:.3g} "
        f"chaos {row['chaos_loss']:.3g} z {z} {row['examples_per_second']:.0f} ex/s"
    )


def gradient_share(norms: dict[str, float]) -> str:
    """Format the norm of the chaos gradient relative to that of the task gradient, at step 0."""
    if not norms["chaos"]:
        return "no chaos term: plain backpropagation"
    if not norms["task"]:
        return f"at step 0 the task gradient is 0, and the norm of the chaos gradient {norms['chaos']:.3g}"
    # As measured of the presets, docs/training.md.
    usual = "usual: 0.3 to 3; CIFAR-10 0.01"
    return f"chaos gradient {norms['chaos'] / norms['task']:.2g} x task gradient at step 0 ({usual})"


MOST_LEFT, LEFT = 0.1, 0.04
"""Shares of z0 in the last epoch: above the first the term has not faded, the second is what the advice leaves."""


def unfaded(chaos: Chaos, epochs: int, steps: int) -> str | None:
    """Return a line on a term that does not fade, with the beta that lets it fade; None if it fades, or is off.

    Args:
      chaos: of the config.
      epochs: of the run, at least 1.
      steps: of the whole run.
    """
    unit, times = chaos.anneal, (epochs if chaos.anneal == "epoch" else steps) - 1
    share = chaos.beta**times
    if share <= MOST_LEFT or steps == 1 or not any(chaos.z0):
        return None
    changes = {}
    if times == 0:  # z is the same throughout a single epoch
        changes["chaos.anneal"], times = "step", steps - 1
    # Of 1 - beta two digits, so that the power comes out near what is meant.
    beta = round(1 - float(f"{1 - LEFT ** (1 / times):.2g}"), 12)
    changes["chaos.beta"] = str(beta)
    fields = " and ".join(f"{name} {value}" for name, value in changes.items())
    options = " ".join(f"--{name} {value}" for name, value in changes.items())
    left = f"z is still {share:.0%} of z0 in the last {unit}"
    return f"{left}; {fields} would leave {beta**times:.0%} ({options})"


def print_result(
    console: Console,
    run: pathlib.Path,
    result: dict[str, Any],
    checkpoints: str | os.PathLike[str],
    options: str | None,
) -> None:
    """Print the training time, a table with a row per measure and a column per kind of weights, and the run's files.

    ``options``: of commands on the run, such as --trust; None if it has parts that commands do not have.
    """
    columns = [f"{split}_{name}" for name in measures.names(result["last"]) for split in ("validation", "test")]
    labels = {"last": "last epoch", "chosen": "validation-chosen", "ema": "moving average"}
    kinds = [kind for kind in labels if result.get(kind)]
    rows = [
        ["epoch", *(str(result[kind]["epoch"]) for kind in kinds)],
        *(
            [measures.words(column), *(measures.of(column).text(result[kind][column]) for kind in kinds)]
            for column in columns
        ),
        ["test examples", *(str(result[kind]["test_count"]) for kind in kinds)],
    ]
    headings = ["weights of", *(labels[kind] for kind in kinds)]
    print_table(console, f"{run.name}: {result['seconds']:.0f} s of training", headings, rows)
    if "stopped" in result:
        console.print(f"stopped by callback {result['stopped']}", soft_wrap=True)
    elif result.get("stopped_early"):
        console.print(f"stopped early: no epoch after {result['chosen']['epoch']} was better in validation")
    for label, path in (
        ("figures", run / "figures"),
        ("metrics", run / "metrics.jsonl"),
        ("config", run / "config.json"),
        ("checkpoints", checkpoints),
        *([] if options is None else [("next", f"{_program()} evaluate {shlex.quote(str(run))}{options}")]),
    ):
        console.print(f"{label:12} {path}", soft_wrap=True)
    if options is not None and result.get("gradient_norms", {}).get("chaos"):
        line = f"the same with --chaos.z0 0 trains without the term; then {_program()} compare RUN RUN"
        console.print(f"{'control':12} {line}", soft_wrap=True)


def _program() -> str:
    """Return what a user types for this program, whose environment need not be active."""
    beside = pathlib.Path(sys.executable).with_name("csbp_jax")
    return "csbp_jax" if shutil.which("csbp_jax") else os.path.relpath(beside)


def print_table(
    console: Console,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text_columns: int = 1,
    last_text_columns: int = 0,
) -> None:
    """Print a table: its first ``text_columns`` and its last ``last_text_columns`` columns are text, folded on a narrow
    terminal, the first one only if it would take more than half of it; the others are numbers. Control characters are
    escaped."""
    console.print(escaped(title), soft_wrap=True, style="italic")  # rich would break it at the width of the table
    table = Table()
    for number, heading in enumerate(headings):
        if number < text_columns or number >= len(headings) - last_text_columns:
            is_narrow = number == 0 and all(len(row[0]) <= console.width // 2 for row in rows)
            table.add_column(heading, overflow="fold", no_wrap=is_narrow)
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
