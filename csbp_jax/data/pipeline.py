"""From a random-access source to batches. The stream is a pure function of (seed, step): nothing else is kept."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from csbp_jax.config import ConfigError
from csbp_jax.data.source import Batch, DataSource

_STEPS = 1_000_000_000  # as good as endless


def train_batches(
    source: DataSource,
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

    Raises:
      ConfigError: the source has fewer records than a batch, or P does not divide B.
    """
    rows = _rows(batch_size, processes)
    if batch_size > len(source):
        raise ConfigError(f"batch_size: {batch_size} is not possible; allowed are at most {len(source)}, all records")
    read = _Read(source, batch_size, seed, process * rows, rows)
    batches = grain.MapDataset.range(start_step, _STEPS).map(read)
    batches = batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2, threads)))
    if workers:
        if not flags.FLAGS.is_parsed():  # grain 0.2.18 reads one of its flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, worker_init_fn=_stay)
    return iter(batches)


def _stay(worker: int, workers: int) -> None:
    """Lets a worker end with its reader, and not before: Ctrl-C and many launchers signal all processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A reader that is killed cannot end its workers.
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(reader):
    reader.join()
    os._exit(1)


class _Read:
    """A step to its rows of a batch; a class, since worker processes receive it pickled."""

    def __init__(self, source, batch_size, seed, first_row, rows):
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.rows = slice(first_row, first_row + rows)

    def __call__(self, step):
        steps_per_epoch = len(self.source) // self.batch_size
        epoch, place = divmod(int(step), steps_per_epoch)
        indices = _order(self.seed, epoch, len(self.source))[place * self.batch_size :][: self.batch_size]
        # Drawn for the whole batch, so that a row's numbers do not depend on how many processes share it.
        random = np.random.default_rng([_UNIFORMS, self.seed, step])
        uniforms = random.random((self.batch_size, self.source.num_uniforms), np.float32)
        return self.source.take(indices[self.rows], uniforms[self.rows])


# Two streams of random numbers with nothing in common.
_ORDER, _UNIFORMS = 0, 1


@functools.lru_cache(maxsize=2)
def _order(seed, epoch, n):
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(n)


def eval_batches(source: DataSource, batch_size: int, *, process: int = 0, processes: int = 1) -> Iterator[Batch]:
    """Every record once; the last batch is padded by the last record. ``mask [B]`` is False on the padding.

    All processes take the same number of steps; process p gets rows ``[p B/P, (p+1) B/P)`` of each batch.

    Raises:
      ConfigError: P does not divide B.
    """
    return _eval_batches(source, batch_size, process, _rows(batch_size, processes))


def _rows(batch_size, processes):
    if batch_size < 1 or batch_size % processes:
        raise ConfigError(
            f"batch_size: {batch_size} is not possible; allowed are multiples of {processes}, the number of processes"
        )
    return batch_size // processes


def _eval_batches(source, batch_size, process, rows):
    for start in range(0, len(source), batch_size):
        indices = start + process * rows + np.arange(rows)
        uniforms = np.zeros((rows, source.num_uniforms), np.float32)
        batch = source.take(np.minimum(indices, len(source) - 1), uniforms)
        yield batch | {"mask": indices < len(source)}
