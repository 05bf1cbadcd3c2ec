"""A run's network over records, without training: whatever is asked of a pass."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import data
from csbp_jax.data.device import transform
from csbp_jax.evaluation.restore import RestoredRun
from csbp_jax.runtime import sharding
from csbp_jax.training.compiled import eval_keys

# measure(apply, variables, x [B, T or 1, ...], batch) to any tree of arrays; x as the network sees it.
Measure = Callable[..., Any]


class Unaugmented(data.DataSource):
    """A source's records, or some, one by one: so none is augmented, as those of the training part otherwise are."""

    def __init__(self, source: data.DataSource, rows: np.ndarray | None = None):
        self.source, self.classes, self.events = source, source.classes, source.events
        self.rows = np.arange(len(source)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.source[int(self.rows[i])]


def apply_batched(
    run: RestoredRun, events: bool, measure: Measure
) -> Callable[[Any], Iterator[tuple[np.ndarray, Any]]]:
    """``function(source)`` yields for each batch its mask (False where it is padded), and what is measured of it.

    Batches are those of training's evaluation: as large, split over all devices, with the same random numbers if
    ``data.encode`` draws some. One compilation for all sources whose records have one shape.

    Args:
      events: whether the source's records are frames of events (or features), else still pictures.
    """
    devices = sharding.data_parallel()
    whole = -(-run.config.eval_batch_size // jax.device_count()) * jax.device_count()
    variables = jax.device_put(run.variables, sharding.replicated(devices))
    _, prepare = transform.make(run.config, events)

    @jax.jit
    def step(variables, key, batch):
        return measure(run.apply, variables, prepare(key, batch)["x"], batch)

    def function(source):
        keys = eval_keys(run.config.seed, source, whole)
        for key, batch in zip(keys, data.eval_batches(source, whole), strict=True):
            yield batch["mask"], step(variables, key, sharding.shard_batch(batch, devices))

    return function


def apply_all(run: RestoredRun, events: bool, measure: Measure) -> Callable[[Any], Any]:
    """``function(source) -> tree`` on the host: of every record, a measure that gives ``[B, ...]``; see ``batches``."""
    measured = apply_batched(run, events, measure)

    def function(source):
        masks, parts = zip(*measured(source), strict=True)
        mask = np.concatenate(masks)
        return jax.tree.map(lambda *rows: np.concatenate([np.asarray(row) for row in rows])[mask], *parts)

    return function


def outcome(apply: Callable[..., Any], variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Any]:
    """A :data:`Measure`: how good an answer is.

    predicted: ``[B, T]``, the class of the largest logit averaged over the first t steps; the last is the answer.
    confidence, nll: ``[B]``, of softmax of the logits averaged over all steps: its largest probability, and minus the
    logarithm of the label's.
    among: ``[B]``, whether the label is among the five largest.
    rates: ``{layer: [B]}``, spikes a neuron and time step.
    """
    # The spikes themselves: a layer's own rate is a mean over a batch, which may be padded.
    layers = spiking_layers(apply, variables, x)
    logits, aux = apply(variables, x, inspect=layers)
    steps = jnp.arange(1, logits.shape[1] + 1, dtype=logits.dtype).reshape(1, -1, 1)
    mean = logits.mean(axis=1)  # as training's evaluation has it, to the last bit
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


def spiking_layers(apply: Callable[..., Any], variables: Any, x: jax.Array) -> tuple[str, ...]:
    """The spiking layers, in their order; nothing is computed."""
    return tuple(jax.eval_shape(apply, variables, x)[1].rates)


def top_classes(k: int) -> Measure:
    """A :data:`Measure`: the k most probable classes ``[B, k]`` and their probabilities."""

    def measure(apply, variables, x, batch):
        logits, _ = apply(variables, x)
        probability, classes = jax.lax.top_k(jax.nn.softmax(logits.mean(axis=1)), k)
        return {"classes": classes, "probability": probability}

    return measure


def network_input_shape(run: RestoredRun, events: bool, record: np.ndarray) -> tuple[int, ...]:
    """The shape ``[T or 1, ...]`` that the network sees of a record ``[T or 1, ...]``; nothing is computed."""
    _, prepare = transform.make(run.config, events)
    batch = {"x": jax.ShapeDtypeStruct((1, *record.shape), record.dtype)}
    return jax.eval_shape(functools.partial(prepare, jax.random.key(0)), batch)["x"].shape[1:]
