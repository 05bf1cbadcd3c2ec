"""From a random-access source to batches. The stream is a pure function of (seed, step): nothing else is kept.

A source has ``len(source)``, ``source[i] -> {"x": [T or 1, ...], "y": []}`` and the number of its ``classes``.
"""

from collections.abc import Iterator

import grain
import numpy as np

# As good as endless; grain's own endless repetition cannot be sliced for every batch size.
_EPOCHS = 1_000_000_000


def train_batches(source, batch_size: int, seed: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches ``{"x": [B, T or 1, ...], "y": [B]}`` from ``start_step`` on, without replay.

    Each epoch is a new order of all records; the remainder that fills no batch is dropped, another one each epoch.
    """
    whole = len(source) // batch_size * batch_size
    batches = grain.MapDataset.source(source).shuffle(seed=seed)[:whole].repeat(_EPOCHS).batch(batch_size)[start_step:]
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)))


def eval_batches(source, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Every record once; the last batch is padded by its last record. ``mask [B]`` is False on the padding."""
    for start in range(0, len(source), batch_size):
        records = [source[min(i, len(source) - 1)] for i in range(start, start + batch_size)]
        yield {
            "x": np.stack([record["x"] for record in records]),
            "y": np.stack([record["y"] for record in records]),
            "mask": np.arange(start, start + batch_size) < len(source),
        }
