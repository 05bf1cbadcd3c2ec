"""From a random-access source to batches. The stream is a pure function of (seed, step): nothing else is kept.

A source has ``len(source)``, ``source[i] -> {"x": [T or 1, ...], "y": []}`` and the number of its ``classes``. One that
can do better than record by record has ``take(indices [b], uniforms [b, draws]) -> {"x": [b, T or 1, ...], "y": [b]}``
and says by ``draws`` how many random numbers a record needs; all randomness on the host comes from them.
"""

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

Batch = dict[str, np.ndarray]

# As good as endless; grain's own endless repetition cannot be sliced for every batch size.
_EPOCHS = 1_000_000_000


def train_batches(
    source: Any,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    *,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
    threads: int = 1,
) -> Iterator[Batch]:
    """Endless batches ``{"x": [B, T or 1, ...], "y": [B]}`` from ``start_step`` on, without replay.

    Each epoch is a new order of all records; the remainder that fills no batch is dropped, another one each epoch. With
    ``processes`` > 1, process p gets rows ``[p B/P, (p+1) B/P)`` of each batch; nothing depends on workers and threads.
    """
    rows = batch_size // processes
    whole = len(source) // batch_size * batch_size
    # Only numbers go through grain's chain; the records of a batch are read together, and by whoever shows them.
    order = grain.MapDataset.range(len(source)).shuffle(seed=seed)[:whole].repeat(_EPOCHS)
    indices = order.batch(rows, drop_remainder=True)[process::processes][start_step:]
    read = _Read(source, batch_size, seed, start_step, process * rows)
    batches = indices.map_with_index(read).to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2, threads))
    )
    if workers:
        if not flags.FLAGS.is_parsed():  # grain 0.2.18 reads one of its flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(batches)


class _Read:
    """Step and record indices to a batch; a class, since worker processes receive it pickled."""

    def __init__(self, source, batch_size, seed, start_step, first_row):
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.start_step, self.first_row = start_step, first_row

    def __call__(self, i, indices):
        # Drawn for the whole batch, so that a row's numbers do not depend on how many processes share it.
        random = np.random.Generator(np.random.Philox(key=[self.seed, self.start_step + i]))
        uniforms = random.random((self.batch_size, getattr(self.source, "draws", 0)), np.float32)
        return take(self.source, indices, uniforms[self.first_row :][: len(indices)])


def eval_batches(source: Any, batch_size: int, *, process: int = 0, processes: int = 1) -> Iterator[Batch]:
    """Every record once; the last batch is padded by the last record. ``mask [B]`` is False on the padding.

    All processes take the same number of steps; process p gets rows ``[p B/P, (p+1) B/P)`` of each batch.
    """
    rows = batch_size // processes
    for start in range(0, len(source), batch_size):
        indices = start + process * rows + np.arange(rows)
        uniforms = np.zeros((rows, getattr(source, "draws", 0)), np.float32)
        batch = take(source, np.minimum(indices, len(source) - 1), uniforms)
        yield batch | {"mask": indices < len(source)}


def take(source: Any, indices: np.ndarray, uniforms: np.ndarray) -> Batch:
    """The records of ``indices``, stacked."""
    if hasattr(source, "take"):
        return source.take(indices, uniforms)
    records = [source[int(i)] for i in indices]
    return {key: np.stack([record[key] for record in records]) for key in ("x", "y")}
