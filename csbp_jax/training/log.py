"""The log of a run: writes what is measured to ``metrics.jsonl``, and shows it in the terminal."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.reporting import terminal
from csbp_jax.runtime import hardware
from csbp_jax.training.feeds import Stream
from csbp_jax.training.health import LayerWatch, LossWatch
from csbp_jax.training.metrics_log import Row
from csbp_jax.training.progress import Health


class Log:
    """The record of a run (:class:`csbp_jax.training.epochs.Record`), and the time that it takes.

    Attributes:
      failing_since: the first of the steps up to now that were skipped or had a loss above the limit; None after a good
        step.
    """

    def __init__(
        self,
        config: Config,
        steps_per_epoch: int,
        health: Health,
        rows: Sequence[Row],
        feed: Stream,
        *,
        write: Callable[[Row], None],
        show: Callable[[int, str], None],
        print: Callable[[str], None],
        seconds_per_step_at_peak: float = 0.0,
    ):
        """Continue from the rows up to the session's step, at least that of the start.

        Args:
          config: of the run.
          steps_per_epoch: training steps per epoch.
          health: up to there.
          rows: up to there.
          feed: tells how long a step has waited for its batch.
          write: takes a row for ``metrics.jsonl``.
          show: ``show(step, text)``, the progress bar.
          print: prints a line to the terminal.
          seconds_per_step_at_peak: of a step, at the devices' peak FLOP/s, for the utilisation; 0 if unknown.
        """
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self._write, self._show, self._print, self._feed = write, show, print, feed
        self._losses = LossWatch(config.loss_limit, health, rows)
        self._layers = LayerWatch(rows, config.model.neuron.most_spikes)
        self._seconds_per_step_at_peak = seconds_per_step_at_peak
        self._start_time: float = time.perf_counter() - rows[-1]["seconds"]
        self.failing_since: int | None = int(health.high_since) or None
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._steps_in_interval, self._interval_start = 0, time.perf_counter()
        self._waited_before = self._feed.waited

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.perf_counter() - self._start_time

    def step(self, step: int, metrics: dict[str, Any], health: Health) -> None:
        """Write and show a step, if it is time to, or if something has gone wrong in it.

        Raises:
          Diverged: loss or gradient was not finite for three steps in a row, or the task loss was above its limit for
            too many (health.py).
        """
        bad_steps, task_loss = int(metrics["bad_steps"]), float(metrics["task_loss"])
        first_skipped = [step - bad_steps + 1] if bad_steps else []
        first_high = [int(health.high_since)] if health.high_since else []
        self.failing_since = min(first_skipped + first_high, default=None)
        if bad_steps:
            self._write({"kind": "bad", "step": step, "seconds": self.seconds, "bad_steps": bad_steps})
            self._print(f"step {step}: loss or gradient is not finite; the step is skipped")
        else:
            self._steps_in_interval += 1
            if step % self.config.log_every == 0:
                measured = {name: values for name, values in metrics.items() if name != "bad_steps"}
                row = self._row("train", -(-step // self.steps_per_epoch), step, measured)
                self._write(row)
                self._show(step, terminal.progress_line(row, self.config.epochs))
        self._report(step, self._losses.rows(step, task_loss, bad_steps, health))

    def row(self, epoch: int, step: int, measured: Mapping[str, Any], running: NDArray[np.bool_]) -> Row:
        """Return the row of an epoch: the means of its good steps, and the validations."""
        return self._row("epoch", epoch, step, measured)

    def end_epoch(self, row: Row) -> None:
        """Write and show the row of an epoch, and begin the next one."""
        self._write(row)
        self._print(terminal.progress_line(row, self.config.epochs))
        self._report(row["step"], self._layers.rows(row["epoch"], row.get("rates", {})))
        if stopped_by := row.get("stopped"):
            self._print(f"callback {stopped_by}; the training ends after epoch {row['epoch']}")
        self._begin_interval()

    def _row(self, kind: str, epoch: int, step: int, measured: Mapping[str, Any]) -> Row:
        elapsed = time.perf_counter() - self._interval_start
        row: dict[str, Any] = {
            "kind": kind,
            "step": step,
            "epoch": epoch,
            "seconds": self.seconds,
            "examples_per_second": self._steps_in_interval * self.config.batch_size / elapsed,
            "waiting": (self._feed.waited - self._waited_before) / elapsed,
            **hardware.memory_stats(),
        }
        if self._seconds_per_step_at_peak:
            row["utilisation"] = self._seconds_per_step_at_peak * self._steps_in_interval / elapsed
        return row | jax.tree.map(lambda number: np.asarray(number).item(), dict(measured))

    def _report(self, step: int, rows: Iterable[tuple[Row, str]]) -> None:
        for row, line in rows:
            self._write({"step": step, "seconds": self.seconds} | row)
            if line:
                self._print(line)
