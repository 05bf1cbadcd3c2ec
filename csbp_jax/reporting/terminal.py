"""What a run shows on the terminal: the progress bar, lines and tables."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def is_live(console: Console) -> bool:
    """Whether a bar can be drawn; if not, each epoch is a plain line."""
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def progress(console: Console, total: int, done: int) -> Iterator[Callable[[int, str], None]]:
    """A live bar on a terminal, nothing elsewhere; yields ``show(steps done, text)``."""
    # 80 columns hold the words alone.
    bars = [BarColumn(bar_width=16)] if console.width >= 96 else []
    columns = (TextColumn("{task.description}"), *bars, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not is_live(console)) as bar:
        task = bar.add_task("compiling", total=total, completed=done)
        yield lambda step, text: bar.update(task, completed=step, description=text)


@contextlib.contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of a preparation; yields ``show(stage, done, total)``. Elsewhere, a line as each begins."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not is_live(console)) as bar:
        tasks: dict[str, Any] = {}

        def show(stage, done, total):
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage)
                if not is_live(console):
                    console.print(stage, soft_wrap=True)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def progress_line(row: dict[str, Any], epochs: int) -> str:
    """One line on the terminal for a row of metrics; a flip ratio above 1, past the flip, is marked with a "!"."""
    text = f"epoch {row['epoch']}/{epochs} step {row['step']}"
    if "task_loss" in row:
        text += f" task {row['task_loss']:.3g} chaos {row['chaos_loss']:.3g} z {sum(row['z'].values()):.3g}"
        text += f" acc {row['accuracy']:.1%} {row['examples_per_second']:.0f}/s"
    if (ratio := row.get("flip_ratio")) is not None:
        text += f" flip {ratio:.2g}" + "!" * (ratio > 1)
    return text + (f" val {row['validation_accuracy']:.1%}" if "validation_accuracy" in row else "")


def gradient_share(norms: dict[str, float]) -> str:
    """How much the chaos term weighs at the start, in words."""
    if not norms["chaos"]:
        return "no chaos term: plain backpropagation"
    return (
        f"at step 0 the chaos term's gradient has {norms['chaos'] / norms['task']:.0%} of the task gradient's norm "
        f"({norms['chaos']:.3g} of {norms['task']:.3g})"
    )


def print_result(console: Console, run: pathlib.Path, result: dict[str, Any], checkpoints: Any) -> None:
    """Accuracy of the last and of the validation-chosen epoch, time, and where things are."""
    table = Table(title=f"{run.name}: {result['seconds']:.0f} s of training", title_justify="left")
    table.add_column("weights of")
    for heading in ("epoch", "validation accuracy", "test accuracy", "examples"):
        table.add_column(heading, justify="right", no_wrap=True)
    for label, key in (("last epoch", "last"), ("validation-chosen", "chosen"), ("moving average", "ema")):
        if key not in result:
            continue
        part = result[key]
        table.add_row(
            label,
            str(part["epoch"]),
            f"{part['validation_accuracy']:.2%}",
            f"{part['test_accuracy']:.2%}",
            str(part["test_count"]),
        )
    console.print(table)
    if result.get("stopped_early"):
        console.print(f"stopped early: no epoch after {result['chosen']['epoch']} was better in validation")
    for label, place in (
        ("figures", run / "figures"),
        ("metrics", run / "metrics.jsonl"),
        ("config", run / "config.json"),
        ("checkpoints", checkpoints),
    ):
        console.print(f"{label:12} {place}", soft_wrap=True)


def print_table(console: Console, title: str, columns: list[str], rows: list[list[str]], words: int = 1) -> None:
    """A table whose first ``words`` columns are text, broken where the terminal is narrow, and the others numbers."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(columns):
        if number < words:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
