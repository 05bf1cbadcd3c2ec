"""The monitor of a run: reads the metrics of its steps, shows and writes them, and ends a run that has diverged."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax.config import Config
from csbp_jax.reporting import terminal
from csbp_jax.runtime import hardware
from csbp_jax.training.health import LayerWatch, LossWatch
from csbp_jax.training.metrics_log import Row
from csbp_jax.training.progress import Sums


def empty_progress(metrics: Any) -> dict[str, Any]:
    """Return the monitor's part of a checkpoint, at the start of a run.

    Args:
      metrics: of a step, as ``train_step`` returns them (shapes suffice).

    Returns:
      ``{"epochs": ended epochs, "count": good steps since, "sums": their metrics, "stopped": whether a callback has
      stopped the run}``, as arrays.
    """
    return {"epochs": np.asarray(0), "stopped": np.asarray(False)} | Sums(metrics).progress()


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Where a monitor writes.

    write: a row to ``metrics.jsonl``. show: ``show(step, text)``, the progress bar. print: a line to the terminal.
    """

    write: Callable[[dict[str, Any]], None]
    show: Callable[[int, str], None]
    print: Callable[[str], None]


@jax.jit
def _in_one_array(metrics: Any) -> jax.Array:
    """Stack the numbers of a step: one transfer takes half the time of the host that sixteen take."""
    return jnp.stack([jnp.asarray(number, float) for number in jax.tree.leaves(metrics)])


class TrainingMonitor:
    """Progress of a run: ``step``, ``epochs`` (ended ones), and the running means of the current epoch.

    It is one step behind: it waits for the metrics of a step only when the next one has been dispatched.
    """

    def __init__(
        self,
        config: Config,
        steps_per_epoch: int,
        metrics: Any,
        progress: dict[str, Any],
        started: tuple[int, Sequence[Row]],
        outputs: Outputs,
        seconds_per_step_at_peak: float = 0.0,
    ):
        """Continue from a checkpoint, or from the start.

        Args:
          config: of the run.
          steps_per_epoch: training steps per epoch.
          metrics: of a step (shapes suffice).
          progress: as :func:`empty_progress` returns it; a sum may be missing.
          started: the step that the run continues from, and the rows up to it, at least that of the start.
          outputs: where to write.
          seconds_per_step_at_peak: of a step, at the devices' peak FLOP/s, for the utilisation; 0 if unknown.
        """
        self.config, self.steps_per_epoch, self.outputs = config, steps_per_epoch, outputs
        self.epochs, self._sums = int(progress["epochs"]), Sums(metrics)
        self._sums.restore(progress)
        self.step, self.bad_steps = started[0], 0
        self._losses = LossWatch(config.loss_limit, started[1], steps_per_epoch)
        self._layers = LayerWatch(started[1], config.model.neuron.most_spikes)
        self._seconds_per_step_at_peak = seconds_per_step_at_peak
        self._start_time: float = time.perf_counter() - started[1][-1]["seconds"]
        self._dispatched: Any = None
        self._steps_in_interval, self._interval_start, self._waited = 0, time.perf_counter(), 0.0

    def __call__(self, metrics: dict[str, Any]) -> None:
        """Take the metrics of the step just dispatched, and read those of the step before.

        Raises:
          Diverged: loss or gradient was not finite for three steps in a row, or the task loss was above its limit for
            too many (health.py).
        """
        self.catch_up()
        self._dispatched = jax.tree.structure(metrics), _in_one_array(metrics)

    @property
    def failing_since(self) -> int | None:
        """First of the steps up to now that were skipped or had a loss above the limit; None after a good step."""
        first_skipped = [self.step - self.bad_steps + 1] if self.bad_steps else []
        first_high = [self._losses.high_since] if self._losses.high_since else []
        return min(first_skipped + first_high, default=None)

    def timed_next(self, batches: Iterator[Any]) -> Any:
        """Return the next batch; the time it takes is counted as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def catch_up(self) -> None:
        """Wait for the dispatched step, and read its metrics."""
        if self._dispatched is None:
            return
        structure, values = self._dispatched
        metrics, self._dispatched = jax.tree.unflatten(structure, jax.device_get(values).tolist()), None
        self.step += 1
        self.bad_steps = int(metrics.pop("bad_steps"))
        if self.bad_steps:
            self.outputs.write({"kind": "bad", "step": self.step, "seconds": self.seconds, "bad_steps": self.bad_steps})
            self.outputs.print(f"step {self.step}: loss or gradient is not finite; the step is skipped")
        else:
            self._steps_in_interval += 1
            self._sums.add(metrics)
            if self.step % self.config.log_every == 0:
                row = self._row("train", metrics)
                self.outputs.write(row)
                self.outputs.show(self.step, terminal.progress_line(row, self.config.epochs))
        self._report(self._losses.rows(self.step, metrics["task_loss"], self.bad_steps))

    @property
    def steps_left(self) -> int:
        """Steps to the end of the epoch."""
        return (self.epochs + 1) * self.steps_per_epoch - self.step

    def epoch_row(self, validation: dict[str, float], ema_validation: dict[str, float]) -> Row:
        """Return the epoch's row: the means of its good steps, and the validation of the weights and of their EMA."""
        means = jax.tree.map(float, self._sums.means()) if self._sums.count else {}
        row = self._row("epoch", means)
        row |= {f"validation_{name}": value for name, value in validation.items()}
        row |= {f"ema_validation_{name}": value for name, value in ema_validation.items()}
        return row

    def end_epoch(self, row: Row) -> None:
        """Write the epoch's row, and begin the next one."""
        self.outputs.write(row)
        self.outputs.print(terminal.progress_line(row, self.config.epochs))
        self._report(self._layers.rows(row["epoch"], row.get("rates", {})))
        self.epochs += 1
        self._sums.begin_epoch()
        self._steps_in_interval, self._interval_start, self._waited = 0, time.perf_counter(), 0.0

    def progress(self, stopped: bool = False) -> dict[str, Any]:
        """Return the monitor's part of a checkpoint; as :func:`empty_progress` returns it."""
        return {"epochs": np.asarray(self.epochs), "stopped": np.asarray(stopped)} | self._sums.progress()

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return time.perf_counter() - self._start_time

    def _row(self, kind: str, metrics: dict[str, Any]) -> dict[str, Any]:
        elapsed = time.perf_counter() - self._interval_start
        row: dict[str, Any] = {
            "kind": kind,
            "step": self.step,
            "epoch": -(-self.step // self.steps_per_epoch),
            "seconds": self.seconds,
            "examples_per_second": self._steps_in_interval * self.config.batch_size / elapsed,
            "waiting": self._waited / elapsed,
            **hardware.memory_stats(),
        }
        if self._seconds_per_step_at_peak:
            row["utilisation"] = self._seconds_per_step_at_peak * self._steps_in_interval / elapsed
        return row | metrics

    def _report(self, rows: Iterable[tuple[Row, str]]) -> None:
        for row, line in rows:
            self.outputs.write({"step": self.step, "seconds": self.seconds} | row)
            if line:
                self.outputs.print(line)
