"""Reads the metrics of a run's steps: shows them, writes them, and stops a run that diverges."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from csbp_jax.config import Diverged
from csbp_jax.reporting import terminal
from csbp_jax.runtime import hardware

BAD_STEPS_STOP = 3


def empty_progress(metrics: Any) -> dict[str, Any]:
    """What a checkpoint holds of the rows to come, at the start of a run.

    Args:
      metrics: of a step, as ``train_step`` gives them (shapes suffice).

    Returns:
      ``{"epochs": ended ones, "count": good steps since, "sums": their metrics}``, as arrays.
    """
    sums = jax.tree.map(lambda _: np.zeros(()), {name: m for name, m in metrics.items() if name != "bad_steps"})
    return {"epochs": np.asarray(0), "count": np.asarray(0), "sums": sums}


class TrainingMonitor:
    """The place of a run: ``step`` and ``epochs`` (ended ones), and the means of the epoch that is not ended.

    ``flips`` takes the flip ratios measured before a step, ``{step: {part: ratio}}``.
    """

    def __init__(self, config, steps_per_epoch, step, progress, seconds, write, show, console):
        self.config, self.steps_per_epoch, self.step = config, steps_per_epoch, step
        self.epochs, self.count, self.sums = int(progress["epochs"]), int(progress["count"]), progress["sums"]
        self.write, self.show, self.console = write, show, console
        self.began = time.perf_counter() - seconds
        self.bad_steps, self.saved = 0, (step, self.epochs) if step else None
        self.flips: dict[int, dict[str, float | None]] = {}
        self._flip_ratio: dict[str, float | None] = {}  # the last one, shown till the next
        self._running, self._here, self._here_began, self._waited = None, 0, time.perf_counter(), 0.0
        self.newest_step: Callable[[], int | None] = lambda: None  # of the checkpoints
        self.utilisation = 0.0  # of the devices' arithmetic, by one step a second; 0: unknown

    def __call__(self, metrics: dict[str, Any]) -> None:
        """Is given a step's metrics when the step has begun, and reads those of the step before, while this one runs.

        Raises:
          Diverged: loss or gradient was not finite for three steps in a row.
        """
        self.catch_up()
        self._running = metrics

    def next(self, batches: Iterator[Any]) -> Any:
        """The next batch; the time that it takes is told as time spent waiting."""
        began = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - began
        return batch

    def catch_up(self) -> None:
        """Waits for the step that runs, and reads its metrics."""
        if self._running is not None:
            metrics, self._running = jax.tree.map(float, jax.device_get(self._running)), None
            self.step += 1
            self.bad_steps = int(metrics.pop("bad_steps"))
            if self.step in self.flips:
                ratios = self.flips.pop(self.step)
                self._flip_ratio = {"flip_ratio": ratios["both"]}
                self.write({"kind": "flip", "step": self.step, "seconds": self.seconds, "flip_ratio": ratios})
            if self.bad_steps:
                self._bad()
            else:
                self._good(metrics)

    def _good(self, metrics):
        self.count, self._here = self.count + 1, self._here + 1
        self.sums = jax.tree.map(lambda total, value: total + value, self.sums, metrics)
        if self.step % self.config.log_every == 0:
            row = self._row("train", metrics)
            self.write(row)
            self.show(self.step, terminal.progress_line(row | self._flip_ratio, self.config.epochs))

    def _bad(self):
        self.write({"kind": "bad", "step": self.step, "seconds": self.seconds, "bad_steps": self.bad_steps})
        self.console.print(f"step {self.step}: loss or gradient is not finite; the step is skipped", soft_wrap=True)
        if self.bad_steps == BAD_STEPS_STOP:
            newest = self.newest_step()
            good = "no checkpoint yet" if newest is None else f"the last good checkpoint is of step {newest}"
            raise Diverged(
                f"diverged: loss or gradient was not finite at steps {self.step - BAD_STEPS_STOP + 1} to "
                f"{self.step}; {good}. Try a smaller optimizer.lr or chaos.z0"
            )

    @property
    def left(self) -> int:
        """Steps to the end of the epoch."""
        return (self.epochs + 1) * self.steps_per_epoch - self.step

    def end_epoch(self, validation: dict[str, float], averages: dict[str, float]) -> None:
        """Writes the epoch's row, the means of its good steps and what validation says, of averaged weights too."""
        mean = jax.tree.map(lambda total: float(total / self.count), self.sums) if self.count else {}
        row = self._row("epoch", mean) | {f"validation_{k}": v for k, v in validation.items()}
        row |= {f"ema_validation_{k}": v for k, v in averages.items()}
        self.write(row)
        if not terminal.is_live(self.console):
            self.console.print(terminal.progress_line(row, self.config.epochs), soft_wrap=True)
        self.epochs, self.count, self.sums = self.epochs + 1, 0, jax.tree.map(np.zeros_like, self.sums)
        self._here, self._here_began, self._waited = 0, time.perf_counter(), 0.0

    def progress(self) -> dict[str, Any]:
        """For a checkpoint; as :func:`nothing_yet` has it."""
        return jax.tree.map(np.asarray, {"epochs": self.epochs, "count": self.count, "sums": self.sums})

    def _row(self, kind, metrics):
        passed = time.perf_counter() - self._here_began
        clock = {"seconds": self.seconds, "examples_per_second": self._here * self.config.batch_size / passed}
        clock |= {"waiting": self._waited / passed} | hardware.memory_stats()
        if self.utilisation:
            clock["utilisation"] = self.utilisation * self._here / passed
        place = {"kind": kind, "step": self.step, "epoch": -(-self.step // self.steps_per_epoch)}
        return place | clock | metrics

    @property
    def seconds(self):
        return time.perf_counter() - self.began
