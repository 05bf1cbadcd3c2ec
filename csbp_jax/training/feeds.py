"""Feeds: what a training step is called with. A feed belongs to one training, and goes through its data once."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from csbp_jax import data
from csbp_jax.data.source import stack_batches
from csbp_jax.learner import Batch, State
from csbp_jax.training.compiled_group import CompiledGroup, Resident

Metrics = dict[str, Any]
Step = Callable[[State, Batch], tuple[State, Metrics]]


class Stream:
    """A batch for each step of one run.

    Attributes:
      waited: seconds that were spent on waiting for batches.
    """

    steps_per_call = 1

    def __init__(
        self,
        step: Step,
        batches: Generator[dict[str, np.ndarray], None, None],
        shard_batch: Callable[[Mapping[str, np.ndarray]], Batch],
    ):
        """Feed a step from batches of the host, which ``shard_batch`` places on the devices."""
        self._step, self._batches, self._shard_batch, self.waited = step, batches, shard_batch, 0.0

    def __call__(self, state: State) -> tuple[State, Metrics]:
        """Dispatch a step."""
        began = time.perf_counter()
        batch = self._shard_batch(next(self._batches))
        self.waited += time.perf_counter() - began
        return self._step(state, batch)

    def close(self) -> None:
        """End what reads the batches."""
        self._batches.close()


class SeedStreams:
    """A batch for each seed and step, of which each member takes the one of its seed."""

    steps_per_call = 1

    def __init__(self, group: CompiledGroup, seeds: Sequence[int], records: Mapping[int, data.DataSource], step: int):
        """Begin the streams after a step.

        Args:
          group: of the members.
          seeds: of the members.
          records: the training records of each seed.
          step: the training steps that are done.
        """
        self._group = group
        self._of_member = jnp.asarray([list(records).index(seed) for seed in seeds])
        readers = data.configured_readers(group.config)
        share = readers._replace(workers=-(-readers.workers // len(records)))
        size, most = group.config.batch_size, group.config.data.buckets
        self._streams: list[Any] = [
            data.train_batches(source, size, seed, step, readers=share, buckets=most)
            for seed, source in records.items()
        ]

    def __call__(self, state: State) -> tuple[State, Metrics]:
        """Dispatch a step of all members."""
        batch = stack_batches([next(stream) for stream in self._streams], self._group.original.per_step)
        trained: tuple[State, Metrics] = self._group.step(
            state, self._of_member, self._group.shard_batch(batch, axis=1)
        )
        return trained

    def close(self) -> None:
        """End what reads for the streams."""
        for stream in self._streams:
            stream.close()


class ResidentEpochs:
    """Epochs of members whose data stay on the devices: one call takes their rows in the order of the run alone."""

    def __init__(
        self,
        group: CompiledGroup,
        resident: Resident,
        seeds: Sequence[int],
        records: Mapping[int, data.DataSource],
        step: int,
        steps_per_call: int | None = None,
    ):
        """Begin after a step, which must be a multiple of ``steps_per_call``, by default the steps of an epoch."""
        self._group, self._resident, self._seeds, self._records, self._at = group, resident, seeds, records, step
        self.steps_per_call = steps_per_call or group.steps_per_epoch

    def __call__(self, state: State) -> tuple[State, Metrics]:
        """Dispatch the steps of a call."""
        epoch, first = divmod(self._at, self._group.steps_per_epoch)
        self._at += self.steps_per_call
        order = self._order(epoch, slice(first, first + self.steps_per_call))
        trained: tuple[State, Metrics] = self._group.epoch(state, order, self._resident.x)
        return trained

    def close(self) -> None:
        """Close nothing."""

    def _order(self, epoch: int, steps: slice) -> Batch:
        """Return rows and labels of batches of an epoch, ``[K, steps, B]``."""
        labels, size, group = self._resident.y, self._group.config.batch_size, self._group
        of_seed = {}
        for seed, source in self._records.items():
            rows, y = (source.rows, source.y) if isinstance(source, data.Drawn) else (np.arange(len(labels)), labels)
            order = data.epoch_order(seed, epoch, len(source))[: group.steps_per_epoch * size].reshape(-1, size)[steps]
            of_seed[seed] = rows[order].astype(np.int32), y[order]
        stacked = (np.stack(values) for values in zip(*(of_seed[seed] for seed in self._seeds), strict=True))
        split = P("member", None, "data")
        return {name: group.place(values, split) for name, values in zip(("rows", "y"), stacked, strict=True)}


def of_members(
    group: CompiledGroup, seeds: Sequence[int], records: Mapping[int, data.DataSource], step: int
) -> SeedStreams | ResidentEpochs:
    """Return the feed of members: their data stay on the devices where they fit.

    Args:
      group: of the members.
      seeds: of the members.
      records: the training records of each seed.
      step: the training steps that are done.
    """
    if group.resident is None:
        return SeedStreams(group, seeds, records, step)
    return ResidentEpochs(group, group.resident, seeds, records, step)


def timed_steps(group: CompiledGroup, state: State, seeds: Sequence[int], steps: int) -> tuple[State, list[float]]:
    """Train the first steps of an epoch three times, and return the states and the seconds of each time.

    The first time compiles. There are no more steps than an epoch has.
    """
    seconds = []
    steps = min(steps, group.steps_per_epoch)
    records = dict.fromkeys(seeds, group.splits["train"])
    streams = SeedStreams(group, seeds, records, 0) if group.resident is None else None
    for _ in range(3):
        resident = group.resident and ResidentEpochs(group, group.resident, seeds, records, 0, steps)
        feed = resident or streams
        assert feed is not None
        began = time.perf_counter()
        for _ in range(steps // feed.steps_per_call):
            state, _ = feed(state)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
    if streams is not None:
        streams.close()
    return state, seconds
