"""Signs that training has failed: a task loss far above its start, and layers that never or always fire.

What counts as divergence is in ``progress.py``; here are the rows and lines that tell of it.
What a run must remember across a resume is in its rows of ``metrics.jsonl``.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from csbp_jax.config import Diverged
from csbp_jax.training.metrics_log import Row
from csbp_jax.training.progress import Health

ALWAYS = 0.999
"""A layer with a larger share than this of the spikes that it can have, averaged over an epoch, always fires."""

_FIRST, _HIGH, _NORMAL = "first", "loss_high", "loss_normal"  # kinds of rows
_HINTS = {
    "never_fires": "try a lower model.neuron.threshold, a larger model.neuron.decay, a norm (model.norm) or, without "
    "one, model.init_rate; a wider surrogate (model.neuron.surrogate_param), loss.firing, or a smaller optimizer.lr",
    "always_fires": "try a smaller optimizer.lr or chaos.z0, or a higher model.neuron.threshold",
}


def health_of(rows: Iterable[Row], factor: float, steps_per_epoch: int) -> Health:
    """Return the health of a run that the rows written so far tell of.

    A run from before these rows existed takes its next step for the first.
    """
    first, high_since = np.nan, 0
    for row in rows:
        if row["kind"] == _FIRST:
            first = row["task_loss"]
        elif row["kind"] in (_HIGH, _NORMAL):
            high_since = row["step"] if row["kind"] == _HIGH else 0
    return Health(factor, steps_per_epoch, first, high_since)


class LossWatch:
    """The rows and lines that tell of the task loss of a run (:class:`csbp_jax.training.progress.Health`)."""

    def __init__(self, factor: float, health: Health, rows: Iterable[Row]):
        """Continue from the rows written so far, and the health after them."""
        self._factor = factor
        self._had_first, self._high_since = not np.isnan(health.first), int(health.high_since)
        self._was_high = any(row["kind"] in (_HIGH, _NORMAL) for row in rows)

    def rows(self, step: int, loss: float, bad_steps: int, health: Health) -> Iterator[tuple[Row, str]]:
        """Yield the rows to write after a step, each with a line to print, which may be empty.

        Args:
          step: its number, from 1 on.
          loss: its task loss.
          bad_steps: the number of non-finite steps in a row that it ends.
          health: after it.

        Raises:
          Diverged: the loss has been above its limit for too many steps in a row, or these were not finite.
        """
        if bad_steps:
            if health.diverged:
                raise Diverged(f"loss or gradient was not finite at steps {step - bad_steps + 1} to {step}")
            return
        first, limit = float(health.first), float(health.limit)
        if not self._had_first:
            self._had_first = True
            yield {"kind": _FIRST, "step": step, "task_loss": loss}, ""
        high_since = int(health.high_since)
        if bool(high_since) != bool(self._high_since):
            line = f"step {step}: the task loss is {loss:.3g}, above {limit:.3g}; it began at {first:.3g}"
            yield (
                {"kind": _HIGH if high_since else _NORMAL, "step": step, "task_loss": loss},
                ("" if self._was_high else f"{line}. The run ends if this lasts {health.steps_to_stop} steps"),
            )
            self._was_high = True
        self._high_since = high_since
        if health.diverged:
            raise Diverged(
                f"the task loss was above {limit:.3g} at steps {high_since} to {step}; it began at {first:.3g} "
                f"(loss_limit {self._factor:g})"
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
