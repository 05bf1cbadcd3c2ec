"""Forward passes of a restored run's network over a data source, without training."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.data.device import transform
from csbp_jax.runs.restore import Apply, RestoredRun
from csbp_jax.runtime import sharding
from csbp_jax.training.compiled import eval_keys

Measure = Callable[[Apply, Any, jax.Array, dict[str, jax.Array]], Any]
"""``measure(apply, variables, x, batch)`` to any pytree of arrays; x ``[B, T or 1, ...]`` is the network's input."""

MAX_PADDED = 1000
"""Most examples of a batch that is larger than its source: the config of a run from others may have any."""


def spread(rows: NDArray[np.int64], count: int | None) -> NDArray[np.int64]:
    """Return ``count`` of the rows at even distances, or all of them if there are no more."""
    if count is None or count >= len(rows):
        return rows
    chosen: NDArray[np.int64] = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return chosen


def apply_batched(
    run: RestoredRun, events: bool, measure: Measure
) -> Callable[[data.DataSource], Iterator[tuple[NDArray[np.bool_], Any]]]:
    """Return ``function(source)``, which yields for each batch its mask (False where padded) and its measurements.

    Batches are those of evaluation during training: as large, split over all devices, with the same random numbers if
    ``data.encode`` draws some. One compilation for all sources whose records have the same shape.

    Args:
      events: whether the source's records are frames of events (or features), else still inputs.
    """
    devices = sharding.data_parallel()
    variables = jax.device_put(run.variables, sharding.replicated(devices))
    _, prepare = transform.make(run.config, events)

    @jax.jit
    def step(variables: Any, key: jax.Array, batch: dict[str, jax.Array]) -> Any:
        return measure(run.apply, variables, prepare(key, batch)["x"], batch)

    def function(source: data.DataSource) -> Iterator[tuple[NDArray[np.bool_], Any]]:
        size = min(run.config.eval_batch_size, max(len(source), MAX_PADDED))
        batch_size = sharding.rounded_up(size, jax.device_count())
        keys = eval_keys(run.config.seed, source, batch_size)
        batches = data.eval_batches(source, batch_size, readers=data.configured_readers(run.config))
        for number, batch in enumerate(batches):
            yield batch["mask"], step(variables, keys[number], sharding.shard_batch(batch, devices))

    return function


def apply_all(run: RestoredRun, events: bool, measure: Measure) -> Callable[[data.DataSource], Any]:
    """Return ``function(source)``, the measurements ``[B, ...]`` of all records on the host; see apply_batched."""
    batched = apply_batched(run, events, measure)

    def function(source: data.DataSource) -> Any:
        masks, batches = zip(*batched(source), strict=True)
        mask = np.concatenate(masks)
        return jax.tree.map(lambda *rows: np.concatenate([np.asarray(row) for row in rows])[mask], *batches)

    return function


def outcome(apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """Measure predictions and their quality, per example (a :data:`Measure`).

    predicted: ``[B, T]``, the class of the largest logit averaged over the first t steps; the last is the prediction.
    confidence, nll: ``[B]``, of softmax of the logits averaged over all steps: its largest probability, and minus the
    logarithm of the label's.
    among: ``[B]``, whether the label is among the five largest.
    rates: ``{layer: [B]}``, spikes per neuron per time step.
    """
    # The spikes themselves: a layer's own rate is a mean over a batch, which may be padded.
    layers = spiking_layers(apply, variables, x)
    logits, aux = apply(variables, x, inspect=layers)
    steps = jnp.arange(1, logits.shape[1] + 1, dtype=logits.dtype).reshape(1, -1, 1)
    mean = logits.mean(axis=1)  # as in evaluation during training, to the last bit
    so_far = (jnp.cumsum(logits, axis=1) / steps).at[:, -1].set(mean)
    log_probability = jax.nn.log_softmax(mean)
    label = batch["y"][:, None]
    _, largest = jax.lax.top_k(mean, min(5, mean.shape[-1]))
    return {
        "predicted": so_far.argmax(axis=-1),
        "confidence": jnp.exp(log_probability.max(axis=-1)),
        "nll": -jnp.take_along_axis(log_probability, label, axis=-1)[:, 0],
        "among": (largest == label).any(axis=-1),
        "label": batch["y"],
        "rates": {layer: jnp.mean(s, range(1, s.ndim), dtype=jnp.float32) for layer, s in aux.spikes.items()},
    }


def spiking_layers(apply: Apply, variables: Any, x: jax.Array) -> tuple[str, ...]:
    """Return the names of the spiking layers, in their order, without computing anything."""
    return tuple(jax.eval_shape(apply, variables, x)[1].rates)


def top_classes(k: int) -> Measure:
    """Return a :data:`Measure` of the k most probable classes ``[B, k]`` and their probabilities."""

    def measure(apply: Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        del batch
        logits, _ = apply(variables, x)
        probability, classes = jax.lax.top_k(jax.nn.softmax(logits.mean(axis=1)), k)
        return {"classes": classes, "probability": probability}

    return measure


def network_input_shape(run: RestoredRun, events: bool, record: NDArray[Any]) -> tuple[int, ...]:
    """Return the shape of the network's input ``[T or 1, ...]`` for a record ``[T or 1, ...]``, computing nothing."""
    _, prepare = transform.make(run.config, events)
    batch = {"x": jax.ShapeDtypeStruct((1, *record.shape), jax.dtypes.canonicalize_dtype(record.dtype))}
    x = jax.eval_shape(functools.partial(prepare, jax.random.key(0)), batch)["x"]
    return tuple(x.shape[1:])
