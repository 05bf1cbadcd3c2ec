"""Output of a run on the terminal: progress bars, lines and tables."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from rich import console as rich_console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

__all__ = [
    "Console",
    "gradient_share",
    "is_live",
    "make_console",
    "print_result",
    "print_table",
    "progress",
    "progress_line",
    "stages",
]


class Console(rich_console.Console):
    """Console whose closed pipe is an exception like any other, not an exit with code 1."""

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
    # In 80 columns, the text leaves no room for a bar, and needs two lines.
    bars = [BarColumn(bar_width=16)] if console.width >= 106 else []
    text = TextColumn("{task.description}", table_column=Column(no_wrap=False))
    columns = (text, *bars, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not is_live(console)) as bar:
        task = bar.add_task("compiling", total=total, completed=done)
        yield lambda step, text: bar.update(task, completed=step, description=text)


@contextlib.contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar per stage, or a line per stage without a terminal; yields ``show(stage, done, total)``."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not is_live(console)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
                if not is_live(console):
                    console.print(stage, soft_wrap=True)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def progress_line(row: dict[str, Any], epochs: int) -> str:
    """Format a row of metrics as one line; a flip ratio above 1 (past the flip) is marked with "!"."""
    text = f"epoch {row['epoch']}/{epochs} step {row['step']}"
    if "task_loss" in row:
        text += f" task {row['task_loss']:.3g} chaos {row['chaos_loss']:.3g} z {sum(row['z'].values()):.3g}"
        text += f" acc {row['accuracy']:.1%} {row['examples_per_second']:.0f} examples/s"
    if (ratio := row.get("flip_ratio")) is not None:
        text += f" flip {ratio:.2g}" + "!" * (ratio > 1)
    return text + (f" val {row['validation_accuracy']:.1%}" if "validation_accuracy" in row else "")


def gradient_share(norms: dict[str, float]) -> str:
    """Format the norm of the chaos gradient relative to that of the task gradient, at step 0."""
    if not norms["chaos"]:
        return "no chaos term: plain backpropagation"
    return (
        f"at step 0 the chaos term's gradient has {norms['chaos'] / norms['task']:.0%} of the task gradient's norm "
        f"({norms['chaos']:.3g} of {norms['task']:.3g})"
    )


def print_result(
    console: Console, run: pathlib.Path, result: dict[str, Any], checkpoints: str | os.PathLike[str]
) -> None:
    """Print the accuracies per kind of weights, the training time, and the paths of the run's files."""
    table = Table(title=f"{run.name}: {result['seconds']:.0f} s of training", title_justify="left")
    table.add_column("weights of")
    for heading in ("epoch", "validation accuracy", "test accuracy", "examples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, key in (("last epoch", "last"), ("validation-chosen", "chosen"), ("moving average", "ema")):
        if key not in result:
            continue
        accuracies = result[key]
        table.add_row(
            label,
            str(accuracies["epoch"]),
            f"{accuracies['validation_accuracy']:.2%}",
            f"{accuracies['test_accuracy']:.2%}",
            str(accuracies["test_count"]),
        )
    console.print(table)
    if result.get("stopped_early"):
        console.print(f"stopped early: no epoch after {result['chosen']['epoch']} was better in validation")
    for label, path in (
        ("figures", run / "figures"),
        ("metrics", run / "metrics.jsonl"),
        ("config", run / "config.json"),
        ("checkpoints", checkpoints),
    ):
        console.print(f"{label:12} {path}", soft_wrap=True)


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]], words: int = 1) -> None:
    """Print a table: the first ``words`` columns are text, folded on a narrow terminal; the others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(columns):
        if number < words:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
