"""Batches of a random-access source: a pure function of (seed, step), without other state."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
from absl import flags
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError
from csbp_jax.data.buckets import MOST, Buckets
from csbp_jax.data.source import Batch, DataSource

_STEPS = 1_000_000_000  # practically endless; grain needs a length
_ORDER, _UNIFORMS = 0, 1  # two independent streams of random numbers


class Readers(NamedTuple):
    """How many read a batch at once: processes (``workers``) and threads in each."""

    workers: int = 0
    threads: int = 1


def configured_readers(config: Config) -> Readers:
    """Return the readers that a config asks for."""
    return Readers(config.data.workers, config.data.threads)


_ONE_THREAD = Readers()


def train_batches(
    source: DataSource,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    *,
    rows: NDArray[np.intp] | None = None,
    readers: Readers = _ONE_THREAD,
    buckets: int = MOST,
) -> Iterator[Batch]:
    """Iterate endlessly over batches ``{"x": [B, T or 1, ...], "y": [B, ...]}`` from ``start_step`` on, without replay.

    Each epoch visits the records in a new order; the remainder that does not fill a batch is dropped, and differs from
    epoch to epoch. Where records have lengths of their own, a batch is of one bucket (:class:`Buckets`), padded to the
    bucket's length at the end of time, and has ``lengths [B]``; each bucket drops its remainder.

    Args:
      source: the records.
      batch_size: B.
      seed: of order and augmentation.
      start_step: number of batches to skip.
      rows: which rows of each batch to read; all by default. One of several processes reads those of its devices,
        ``rows_of`` in csbp_jax/runtime/sharding.py.
      readers: how many read at once, which does not change the batches.
      buckets: most lengths to which batches are padded.

    Raises:
      ConfigError: the source has fewer records than a batch, or a batch has none.
    """
    if not 1 <= batch_size <= len(source):
        raise ConfigError(f"batch_size: {batch_size} is not possible; allowed are 1 to {len(source)}, all records")
    of_source = Buckets.of(source, batch_size, buckets)
    read = _ReadBatch(source, of_source, batch_size, seed, np.arange(batch_size) if rows is None else rows)
    batches = _read_ahead(grain.MapDataset.range(start_step, _STEPS).map(read), readers.threads)
    if readers.workers:
        if not flags.FLAGS.is_parsed():  # grain 0.2.18 reads one of its flags when it starts workers
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(num_workers=readers.workers, per_worker_buffer_size=2)
        batches = batches.mp_prefetch(options, worker_init_fn=_end_with_reader)
    return iter(batches)


def _read_ahead(batches: "grain.MapDataset[Batch]", threads: int) -> "grain.IterDataset[Batch]":
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2, threads)))


def _end_with_reader(worker: int, workers: int) -> None:
    """Make a worker end with its reader, and not before: Ctrl-C and many launchers signal all processes."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A reader that is killed cannot end its workers, so they watch it.
    threading.Thread(target=_exit_after, args=(multiprocessing.parent_process(),), daemon=True).start()


def _exit_after(reader: "multiprocessing.process.BaseProcess") -> None:
    reader.join()
    os._exit(1)


class _ReadBatch:
    """Reader of some rows of the batch of a step; a class, since worker processes receive it pickled."""

    def __init__(self, source: DataSource, buckets: Buckets, batch_size: int, seed: int, rows: NDArray[np.intp]):
        self.source, self.buckets, self.batch_size, self.seed, self.rows = source, buckets, batch_size, seed, rows
        self.steps = buckets.steps(batch_size)
        self._epoch: tuple[int, NDArray[np.int64]] = -1, np.zeros((0, 0), np.int64)

    def __call__(self, step: int) -> Batch:
        epoch, position = divmod(int(step), self.steps)
        of_epoch = self._epoch
        if of_epoch[0] != epoch:  # read and set at once, as threads share this
            order = epoch_order(self.seed, epoch, len(self.source))
            self._epoch = of_epoch = epoch, self.buckets.batches(order, self.batch_size)
        indices = of_epoch[1][position]
        # Drawn for the full batch, so that a row's numbers do not depend on the number of processes.
        random = np.random.default_rng([_UNIFORMS, self.seed, step])
        uniforms = random.random((self.batch_size, self.source.num_uniforms), np.float32)
        return self.buckets.padded(self.source.take(indices[self.rows], uniforms[self.rows]), indices, self.rows)


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """Return the order in which an epoch, from 0 on, visits n records; the same array for the same arguments."""
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(n)


def eval_batches(
    source: DataSource,
    batch_size: int,
    *,
    rows: NDArray[np.intp] | None = None,
    readers: Readers = _ONE_THREAD,
    ends: Sequence[int] = (),
) -> Iterator[Batch]:
    """Iterate once over all records, in :func:`eval_order`; ``mask [B]`` is False where a batch repeats a record.

    All processes take the same number of steps, each with ``rows`` of its own, as in :func:`train_batches`. The threads
    of ``readers`` read ahead; there are no workers, which would take seconds to start. ``ends`` are lengths to which
    batches are padded, where records have lengths of their own.

    Raises:
      ConfigError: a batch has no records.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size} is not possible; allowed are 1 and more")
    rows = np.arange(batch_size) if rows is None else rows
    buckets = Buckets.of(source, batch_size, MOST, ends)
    order, mask = buckets.evaluated(batch_size)

    def read(step: int) -> Batch:
        batch = source.take(order[step][rows], np.zeros((len(rows), source.num_uniforms), np.float32))
        return buckets.padded(batch, order[step], rows) | {"mask": mask[step][rows]}

    return iter(_read_ahead(grain.MapDataset.range(len(order)).map(read), readers.threads))


def eval_order(
    source: DataSource, batch_size: int, ends: Sequence[int] = ()
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the records of each batch of evaluation, ``[steps, B]``, and where they count.

    Each record counts once: in the order of the data or, where records have lengths of their own, of their buckets. A
    last batch is filled with its last record, which does not count again.
    """
    return Buckets.of(source, batch_size, MOST, ends).evaluated(batch_size)
