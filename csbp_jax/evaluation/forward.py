"""Forward passes of a restored run's network over a data source, without training."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data, learner
from csbp_jax.config import Loss
from csbp_jax.data.device import transform
from csbp_jax.data.source import pad
from csbp_jax.runs.restore import Apply, RestoredRun
from csbp_jax.runtime import sharding
from csbp_jax.training.compiled import eval_keys
from csbp_jax.xla.lengths import mean_over_time, valid, without_padding

Measure = Callable[[Apply, Any, jax.Array, dict[str, jax.Array]], Any]
"""``measure(apply, variables, x, batch)`` to any pytree of arrays; x ``[B, T or 1, ...]`` is the network's input."""

MAX_PADDED = 1000
"""Most examples of a batch that is larger than its source: the config of a run from others may have any."""


def spread(rows: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    """Return ``count`` of the rows at even distances, or all of them if there are no more."""
    count = len(rows) if count is None else min(count, len(rows))
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def apply_batched(
    run: RestoredRun, events: bool, measure: Measure, ends: Sequence[int] | None = None
) -> Callable[[data.DataSource], Iterator[tuple[NDArray[np.bool_], Any]]]:
    """Return ``function(source)``, which yields for each batch its mask (False where padded) and its measurements.

    Batches are those of evaluation during training: as large, split over all devices, with the same random numbers if
    ``data.encode`` draws some. One compilation for all sources whose records have the same shape; of records of
    several lengths, at most one for each quarter of ``model.time_steps`` and for the longest.

    Args:
      events: whether the source's records are frames of events (or features), else still inputs.
      ends: lengths to which batches are padded instead.
    """
    lengths = _ends(run) if ends is None else ends
    devices = sharding.data_parallel()
    variables = jax.device_put(run.variables, sharding.replicated(devices))
    _, prepare = transform.make(run.config, events)

    @jax.jit
    def step(variables: Any, key: jax.Array, batch: dict[str, jax.Array]) -> Any:
        return measure(run.apply, variables, prepare(key, batch)["x"], batch)

    def function(source: data.DataSource) -> Iterator[tuple[NDArray[np.bool_], Any]]:
        batch_size = _batch_size(run, source)
        keys = eval_keys(run.config.seed, source, batch_size, lengths)
        batches = data.eval_batches(source, batch_size, readers=data.configured_readers(run.config), ends=lengths)
        for number, batch in enumerate(batches):
            yield batch["mask"], step(variables, keys[number], sharding.shard_batch(batch, devices))

    return function


def _batch_size(run: RestoredRun, source: data.DataSource) -> int:
    size = min(run.config.eval_batch_size, max(len(source), MAX_PADDED))
    return sharding.rounded_up(size, jax.device_count())


def _ends(run: RestoredRun) -> list[int]:
    """Return the lengths to which batches are padded, the same for all sources, so that they share programs."""
    return [-(-quarter * run.config.model.time_steps // 4) for quarter in range(1, 5)]


def apply_all(run: RestoredRun, events: bool, measure: Measure) -> Callable[[data.DataSource], Any]:
    """Return ``function(source)``, the measurements ``[N, ...]`` of all records on the host, in the order of the data.

    Those with an axis of time, axis 1, are padded to the longest: masks with False, others with their last time step,
    so that a prediction stays what it was; see apply_batched.
    """
    batched = apply_batched(run, events, measure)

    def function(source: data.DataSource) -> Any:
        batches = [measured for _, measured in batched(source)]
        order, counted = data.eval_order(source, _batch_size(run, source), _ends(run))
        rows = np.flatnonzero(counted)[np.argsort(order[counted])]

        def joined(*parts: jax.Array) -> NDArray[Any]:
            longest = max(max(part.shape[1:2], default=0) for part in parts)
            mode: Literal["constant", "edge"] = "constant" if parts[0].dtype == bool else "edge"
            return np.concatenate([pad(np.asarray(part), longest, mode) for part in parts])[rows]

        return jax.tree.map(joined, *batches)

    return function


def outcome(apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """Measure predictions of classes and their quality, per example (a :data:`Measure`).

    predicted: ``[B, T]``, the class of the largest logit averaged over the first t steps; the last is the prediction.
    confidence, nll: ``[B]``, of softmax of the logits averaged over all steps: its largest probability, and minus the
    logarithm of the label's.
    among: ``[B]``, whether the label is among the five largest.
    rates: ``{layer: [B]}``, spikes per neuron per time step.

    Where labels are those of every time step, ``[B, T]``, all but the rates are of every time step, ``[B, T]``, and
    ``valid`` says which of them are no padding.
    """
    logits, rates = _outputs(apply, variables, x, batch)
    label = batch["y"][..., None]
    if label.ndim == 3:
        deciding, predicted, of_steps = logits, logits.argmax(axis=-1), {"valid": valid_steps(batch, logits)}
    else:
        counted = jnp.cumsum(valid_steps(batch, logits), axis=1, dtype=logits.dtype)[..., None]
        deciding = mean_over_time(logits, batch.get("lengths"))  # as in training's evaluation, to the last bit
        so_far = jnp.cumsum(without_padding(batch.get("lengths"), logits), axis=1) / counted
        predicted, of_steps = so_far.at[:, -1].set(deciding).argmax(axis=-1), {}
    log_probability = jax.nn.log_softmax(deciding)
    _, largest = jax.lax.top_k(deciding, min(5, deciding.shape[-1]))
    return {
        "predicted": predicted,
        "confidence": jnp.exp(log_probability.max(axis=-1)),
        "nll": -jnp.take_along_axis(log_probability, label, axis=-1)[..., 0],
        "among": (largest == label).any(axis=-1),
        "label": batch["y"],
        "rates": rates,
    } | of_steps


def numbers(per_step: bool) -> Measure:
    """Return a :data:`Measure` of the outputs for labels (logits) or values, ``[B, K]``, beside their targets.

    With ``per_step``, both are of every time step, ``[B, T, K]``, of which those ``valid`` are no padding.
    """

    def measure(apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Any]:
        outputs, rates = _outputs(apply, variables, x, batch)
        of_steps = {"valid": valid_steps(batch, outputs)} if per_step else {}
        outputs = outputs if per_step else mean_over_time(outputs, batch.get("lengths"))
        return {"output": outputs, "target": batch["y"], "rates": rates} | of_steps

    return measure


def _outputs(
    apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the outputs ``[B, T, C]``, and the rates of layers ``{layer: [B]}``."""
    # The spikes themselves: a layer's own rate is a mean over a batch, which may be padded.
    lengths = learner.lengths_of(batch)
    logits, aux = apply(variables, x, inspect=spiking_layers(apply, variables, x, **lengths), **lengths)
    rates = {
        layer: jnp.mean(s, range(1, s.ndim), dtype=jnp.float32, where=valid(batch.get("lengths"), s))
        for layer, s in aux.spikes.items()
    }
    return logits, rates


def valid_steps(batch: dict[str, jax.Array], h: jax.Array) -> jax.Array:
    """Return which time steps of ``h [B, T, ...]`` are no padding, ``[B, T]`` bool."""
    where = valid(batch.get("lengths"), h)
    return jnp.ones(h.shape[:2], bool) if where is None else where.reshape(h.shape[:2])


def spiking_layers(apply: Apply, variables: Any, x: jax.Array, **lengths: jax.Array) -> tuple[str, ...]:
    """Return the names of the spiking layers, in their order, without computing anything."""
    return tuple(jax.eval_shape(apply, variables, x, **lengths)[1].rates)


def predictions(loss: Loss, top: int = 1) -> Measure:
    """Return a :data:`Measure` of the answers for a task, ``[B, K]``, or of every time step ``[B, T, K]``.

    Of classes, the ``top`` most probable ``classes`` and their ``probability``; else ``values``, of labels their
    probabilities.
    """

    def measure(apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        outputs, _ = apply(variables, x, **learner.lengths_of(batch))
        outputs = outputs if loss.per == "step" else mean_over_time(outputs, batch.get("lengths"))
        if loss.task == "class":
            probability, classes = jax.lax.top_k(jax.nn.softmax(outputs), top)
            return {"classes": classes, "probability": probability}
        return {"values": jax.nn.sigmoid(outputs) if loss.task == "labels" else outputs}

    return measure
