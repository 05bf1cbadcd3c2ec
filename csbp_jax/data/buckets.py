"""Buckets of records of similar length, which are padded to one length at the end of time, so that programs are few."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config, ConfigError, Data
from csbp_jax.data.source import Array, Batch, DataSource, pad

MOST = Data.buckets
"""Most buckets by default."""

_ANY_LENGTH = ("flip", "crop", "roll", "rotate", "shear", "nda", "cutout", "batch_crop_flip")
"""Augmentations that do not look across time."""


class Buckets(NamedTuple):
    """To what length each record is padded: the smallest of a few that is not below its own.

    lengths: time steps of each record, ``[N]``; None if all have as many, which are one bucket without padding.
    ends: the lengths of padded batches, ascending.
    per_step: whether targets have a time axis, and are padded as well.
    """

    lengths: Array | None
    ends: NDArray[np.int64]
    bucket_of: NDArray[np.intp]
    per_step: bool

    @classmethod
    def of(cls, source: DataSource, batch_size: int, most: int, ends: Sequence[int] = ()) -> "Buckets":
        """Choose at most ``most`` lengths by quantiles of a source's, or among ``ends``, such as those of training.

        A bucket with fewer records than a batch is merged with the next longer one, the longest with the one below.
        """
        lengths = source.lengths
        if lengths is None or not len(lengths):
            return cls(None, np.zeros(1, np.int64), np.zeros(len(source), np.intp), False)
        proposed = np.quantile(lengths, np.arange(1, most + 1) / most, method="inverted_cdf") if not len(ends) else ends
        proposed = np.union1d(proposed, lengths.max()).astype(np.int64)
        chosen, waiting = list[int](), 0
        for end, count in zip(proposed, np.bincount(np.searchsorted(proposed, lengths)), strict=False):
            waiting += int(count)
            if waiting >= batch_size:
                chosen, waiting = [*chosen, int(end)], 0
        if waiting:
            chosen[-1:] = [int(lengths.max())]
        # One time step would be that of a still input.
        chosen_ends = np.maximum(np.array(chosen, np.int64), 2)
        return cls(lengths, chosen_ends, np.searchsorted(chosen_ends, lengths), source.per_step)

    def steps(self, batch_size: int) -> int:
        """Return the number of batches of an epoch of training, the same for every epoch."""
        return int((np.bincount(self.bucket_of) // batch_size).sum())

    def batches(self, order: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
        """Return the records of each batch, ``[steps, B]``, as they fill up when records come in an order ``[N]``."""
        positions = []
        for bucket in range(len(self.ends)):
            of_bucket = np.flatnonzero(self.bucket_of[order] == bucket)
            positions.append(of_bucket[: len(of_bucket) // batch_size * batch_size].reshape(-1, batch_size))
        filled = np.concatenate(positions)
        return order[filled[np.argsort(filled[:, -1])]]

    def evaluated(self, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the records of each batch of evaluation, ``[steps, B]``, and where each counts for the first time."""
        order, mask = [np.zeros((0, batch_size), np.int64)], [np.zeros((0, batch_size), bool)]
        for bucket in range(len(self.ends)):
            of_bucket = np.flatnonzero(self.bucket_of == bucket)
            rows = np.arange(-(-len(of_bucket) // batch_size) * batch_size).reshape(-1, batch_size)
            order.append(of_bucket[np.minimum(rows, len(of_bucket) - 1)])
            mask.append(rows < len(of_bucket))
        return np.concatenate(order), np.concatenate(mask)

    def padded(self, batch: Batch, indices: NDArray[np.int64], rows: NDArray[np.intp]) -> Batch:
        """Pad the rows of a batch that were read to the length of its bucket, and add their ``lengths``."""
        if self.lengths is None:
            return batch
        end = int(self.ends[self.bucket_of[indices[0]]])
        timed = ("x", "y") if self.per_step else ("x",)
        batch = batch | {name: pad(batch[name], end) for name in timed}
        return batch | {"lengths": self.lengths[indices[rows]].astype(np.int32)}

    def describe(self) -> str:
        """Return one line on the lengths and what padding costs; empty if all are equal."""
        if self.lengths is None:
            return ""
        share = 1 - self.lengths.sum() / self.ends[self.bucket_of].sum()
        count = f"{len(self.ends)} bucket{'s' * (len(self.ends) > 1)}"
        return f"lengths {self.lengths.min()} to {self.lengths.max()} in {count}: {share:.0%} padding"


def steps_per_epoch(source: DataSource, batch_size: int, most: int = MOST) -> int:
    """Return the number of training batches of an epoch."""
    return Buckets.of(source, batch_size, most).steps(batch_size)


def check_lengths(lengths: Array, config: Config, name: str) -> None:
    """Check the lengths of records, and options that look at a record as a whole, where padding would count."""
    steps, data = config.model.time_steps, config.data
    if not 1 <= lengths.min() <= lengths.max() <= steps:
        raise ConfigError(
            f"{name}: has records of {lengths.min()} to {lengths.max()} time steps; expected are 1 to "
            f"model.time_steps ({steps})"
        )
    wrong = [f"data.augment: {augmentation}" for augmentation in data.augment if augmentation not in _ANY_LENGTH]
    wrong += [f"data.frames: {data.frames}"] * (data.frames is not None)
    if wrong and np.ptp(lengths):
        raise ConfigError(f"{wrong[0]} is not possible for {name}, records of several lengths; leave it out")
