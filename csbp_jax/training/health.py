"""Signs that training has failed: a task loss far above its start, and layers that never or always fire.

Steps that are not finite are skipped by ``learner/step.py``, and three in a row end the run in ``monitor.py``.

What a run must remember across a resume is in its rows of ``metrics.jsonl``.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from csbp_jax.config import Diverged
from csbp_jax.training.metrics_log import Row

HIGH_STEPS_STOP, HIGH_EPOCHS_STOP = 100, 3
"""A run stops after this many steps or epochs, whichever are fewer steps, in a row with a task loss above its limit."""
ALWAYS = 0.999
"""A layer with a larger share than this of the spikes that it can have, averaged over an epoch, always fires."""

_FIRST, _HIGH, _NORMAL = "first", "loss_high", "loss_normal"  # kinds of rows
_HINTS = {
    "never_fires": "try a lower model.neuron.threshold, a larger model.neuron.decay, a norm (model.norm) or, without "
    "one, model.init_rate; a wider surrogate (model.neuron.surrogate_param), loss.firing, or a smaller optimizer.lr",
    "always_fires": "try a smaller optimizer.lr or chaos.z0, or a higher model.neuron.threshold",
}


def loss_limit(factor: Any, first: Any) -> Any:
    """Return the largest task loss of a healthy step, ``factor * max(first, 1)``; infinite for a factor of 0.

    Args:
      factor: ``config.loss_limit``.
      first: task loss of the first step. Below 1, as of loaded weights, a thousand times it would not be divergence.
    """
    return np.where(np.asarray(factor) > 0, factor * np.maximum(first, 1.0), np.inf)


def steps_to_stop(steps_per_epoch: int) -> int:
    """Return how many steps in a row may have a task loss above the limit: 100, or those of three epochs if fewer."""
    return min(HIGH_STEPS_STOP, HIGH_EPOCHS_STOP * steps_per_epoch)


class LossWatch:
    """The task loss of a run, compared with its limit after each finite step; a skipped step changes nothing."""

    def __init__(self, factor: float, rows: Iterable[Row], steps_per_epoch: int):
        """Continue from the rows written so far.

        A run from before these rows existed takes its next step for the first.
        """
        self._factor, self._first, self._steps_to_stop = factor, np.nan, steps_to_stop(steps_per_epoch)
        self.high_since = 0
        """First step of the present stretch of steps above the limit; 0 if the loss is below it."""
        self.was_high = False
        for row in rows:
            if row["kind"] == _FIRST:
                self._first = row["task_loss"]
            elif row["kind"] in (_HIGH, _NORMAL):
                self.high_since, self.was_high = row["step"] if row["kind"] == _HIGH else 0, True

    def rows(self, step: int, loss: float) -> Iterator[tuple[Row, str]]:
        """Yield the rows to write after a step, each with a line to print, which may be empty.

        Raises:
          Diverged: the loss has been above its limit for :func:`steps_to_stop` in a row.
        """
        if np.isnan(self._first):
            self._first = loss
            yield {"kind": _FIRST, "step": step, "task_loss": loss}, ""
        limit = float(loss_limit(self._factor, self._first))
        if (loss > limit) != bool(self.high_since):
            self.high_since = step if loss > limit else 0
            line = f"step {step}: the task loss is {loss:.3g}, above {limit:.3g}; it began at {self._first:.3g}"
            yield (
                {"kind": _HIGH if self.high_since else _NORMAL, "step": step, "task_loss": loss},
                ("" if self.was_high else f"{line}. The run ends if this lasts {self._steps_to_stop} steps"),
            )
            self.was_high = True
        if self.high_since and step - self.high_since + 1 >= self._steps_to_stop:
            raise Diverged(
                f"the task loss was above {limit:.3g} at steps {self.high_since} to {step}; it began at "
                f"{self._first:.3g} (loss_limit {self._factor:g})"
            )


class LayerWatch:
    """Layers that never or always fire over an epoch, each named once in a run."""

    def __init__(self, rows: Iterable[Row], most: int = 1):
        """Continue from the rows written so far; a neuron has at most ``most`` spikes in a time step."""
        self._most = most
        self._named = {(row["kind"], layer) for row in rows if row["kind"] in _HINTS for layer in row["layers"]}

    def rows(self, epoch: int, rates: Mapping[str, float]) -> Iterator[tuple[Row, str]]:
        """Yield a row and a line for the layers of each symptom in an epoch that have not been named yet."""
        for symptom, hint in _HINTS.items():
            layers = [name for name in failed_layers(rates, self._most)[symptom] if (symptom, name) not in self._named]
            if layers:
                self._named |= {(symptom, name) for name in layers}
                verb = symptom.replace("_", " ") if len(layers) == 1 else symptom.replace("_fires", " fire")
                yield (
                    {"kind": symptom, "epoch": epoch, "layers": layers},
                    (f"epoch {epoch}: {', '.join(layers)} {verb}; {hint}"),
                )


def failed_layers(rates: Mapping[str, float], most: int = 1) -> dict[str, list[str]]:
    """Return the layers that never and always fire, ``{"never_fires": [...], "always_fires": [...]}``.

    Args:
      rates: spikes per neuron per time step of each layer, averaged over an epoch.
      most: spikes that a neuron can have in a time step.
    """
    return {
        "never_fires": [layer for layer, rate in rates.items() if rate == 0],
        "always_fires": [layer for layer, rate in rates.items() if ALWAYS < rate / most <= 1],
    }
