"""A run's network over records, without training: whatever is asked of each record's logits and firing rates."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import data, mesh
from csbp_jax.data import transform
from csbp_jax.program import eval_keys
from csbp_jax.runs import Run

# measure(logits [B, T, C], rates {layer: [B]}, batch) to any tree of arrays [B, ...].
Measure = Callable[[jax.Array, dict[str, jax.Array], dict[str, jax.Array]], Any]


class Plain:
    """A source record by record: none is augmented, as those of the training part otherwise are."""

    def __init__(self, source: Any):
        self.source, self.events = source, getattr(source, "events", False)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return self.source[i]


def over(run: Run, events: bool, measure: Measure) -> Callable[[Any], Any]:
    """``function(source) -> tree``: the measure of every record, ``[N, ...]`` on the host, in order.

    Batches are those of training's evaluation: as large, split over all devices, with the same random numbers if
    ``data.encode`` draws some. One compilation for all sources whose records have one shape.

    Args:
      events: whether the source's records are frames of events (or features), else still pictures.
    """
    devices = mesh.data_parallel()
    whole = -(-run.config.eval_batch_size // jax.device_count()) * jax.device_count()
    variables = jax.device_put(run.variables, mesh.everywhere(devices))
    _, prepare = transform.make(run.config, events)

    @jax.jit
    def step(variables, key, batch):
        logits, rates = _pass(run.apply, variables, prepare(key, batch)["x"])
        return measure(logits, rates, batch)

    def function(source):
        parts, masks = [], []
        keys = eval_keys(run.config.seed, source, whole)
        for key, batch in zip(keys, data.eval_batches(source, whole), strict=True):
            parts.append(step(variables, key, mesh.place(batch, devices)))
            masks.append(batch["mask"])
        mask = np.concatenate(masks)
        return jax.tree.map(lambda *rows: np.concatenate([np.asarray(row) for row in rows])[mask], *parts)

    return function


def _pass(apply, variables, x):
    """Logits, and the firing rate of each layer for each example: the layer's own is the mean over a padded batch."""
    layers = tuple(jax.eval_shape(apply, variables, x)[1].rates)
    logits, aux = apply(variables, x, inspect=layers)
    rates = {layer: jnp.mean(s, range(1, s.ndim), dtype=jnp.float32) for layer, s in aux.spikes.items()}
    return logits, rates


def outcome(logits: jax.Array, rates: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, Any]:
    """A :data:`Measure`: how good an answer is.

    predicted: ``[B, T]``, the class of the largest logit averaged over the first t steps; the last is the answer.
    confidence, nll: ``[B]``, of softmax of the logits averaged over all steps: its largest probability, and minus the
    logarithm of the label's.
    among: ``[B]``, whether the label is among the five largest.
    """
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
        "rates": rates,
    }


def best(k: int) -> Measure:
    """A :data:`Measure`: the k most probable classes ``[B, k]`` and their probabilities."""

    def measure(logits, rates, batch):
        probability, classes = jax.lax.top_k(jax.nn.softmax(logits.mean(axis=1)), k)
        return {"classes": classes, "probability": probability}

    return measure


def shape_of(run: Run, events: bool, record: np.ndarray) -> tuple[int, ...]:
    """The shape ``[T or 1, ...]`` that the network sees of a record ``[T or 1, ...]``; nothing is computed."""
    _, prepare = transform.make(run.config, events)
    batch = {"x": jax.ShapeDtypeStruct((1, *record.shape), record.dtype)}
    return jax.eval_shape(functools.partial(prepare, jax.random.key(0)), batch)["x"].shape[1:]
