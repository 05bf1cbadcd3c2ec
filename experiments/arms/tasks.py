"""The tasks: records, network and steps of the studies of few labels (docs/results/few_labels), at commit 87d0b5bf."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs, data
from csbp_jax.config import Chaos, Config, Data, Model, Neuron, Optimizer
from csbp_jax.experiment import Training
from csbp_jax.training.plugins import Own
from experiments import study
from experiments.nmnist.training import FRAME, WINDOW, recordings

TAP = "fc1.membrane"
POOL, VALIDATION, TEST = 1000, 30, 200
"""Samples of a class of spike times."""
SPOKEN_POOL, SPOKEN_FRAMES = 1000, 4
"""Recordings of spoken digits from which a run draws its own, and frames that are added up to one time step."""
NMNIST_ENDS = (500, 600)
"""Recordings of N-MNIST, in an order drawn once, from which a run draws its own; the end of those for validation."""
UNITS, DIMENSIONS, HARMONICS = 32, 2, 100

Labelled = tuple[NDArray[Any], NDArray[Any]]
"""Inputs ``[N, T, ...]``, T = 1 for still pictures, and labels ``[N]``."""
Arrays = dict[str, Labelled]


class Task(NamedTuple):
    """A data set, and how it is used.

    load: ``load(data_dir) -> {split: (x, y)}``. shape: of an input at a time step. labels: training examples of each
    class, of which a share ``wrong`` gets the label of another. seeds: test seeds of a draw. draws: of settings.
    """

    load: Callable[[pathlib.Path], Arrays]
    shape: tuple[int, ...]
    time_steps: int
    decay: float = 0.25
    labels: int = 20
    wrong: float = 0.0
    batch_size: int = 20
    epochs: int = 30
    seeds: int = 48
    draws: int = 12
    cut: tuple[float, float] | None = None

    @property
    def config(self) -> Config:
        """Plain backpropagation on the task, with the tap of the term."""
        return Config(
            epochs=self.epochs,
            batch_size=self.batch_size,
            eval_batch_size=500,
            data=Data(name="arms"),
            model=Model(
                "dense", self.shape, 10, time_steps=self.time_steps, features=(128, 128), neuron=Neuron(self.decay)
            ),
            chaos=Chaos(z0=(0.0,), beta=1.0, taps=(TAP,), cut=self.cut, reduce="neuron"),
            optimizer=Optimizer("sgd", lr=0.1, momentum=0.9),
        )

    def training(self, data_dir: str, **own: Any) -> Training:
        """The training of the task as a system, with a seed's own examples; ``own``: further parts (``Own``)."""
        return Training(
            self.config,
            Own(data=lambda config, folder: self.load(folder), **own),
            data_dir=data_dir,
            draw=functools.partial(draw, labels=self.labels, wrong=self.wrong),
        )


def draw(splits: Mapping[str, Any], seed: int, labels: int, wrong: float) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Draw a seed's examples, ``labels`` of each class, of which a share ``wrong`` gets another class."""
    y = splits["train"].source.y
    of_rows, of_labels = (np.random.default_rng([seed, stream]) for stream in range(2))
    rows = np.concatenate([of_rows.choice(np.flatnonzero(y == c), labels, replace=False) for c in range(10)])
    drawn = y[rows].astype(np.int32)
    changed = of_labels.choice(len(rows), round(wrong * len(rows)), replace=False)
    drawn[changed] = (drawn[changed] + of_labels.integers(1, 10, len(changed))) % 10
    return rows, drawn


# --- records ------------------------------------------------------------------------------------------------------


def records(name: str, data_dir: pathlib.Path) -> Arrays:
    """All records of a data set, in the form of its preset."""
    splits = data.load(configs.load(name).replace("data.augment", ()), data_dir)
    return {split: study.all_records(source) for split, source in splits.items()}


def grey(x: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Pictures ``[N, 1, side, side, 1]`` in [0, 1], means over channels and blocks of pixels."""
    x = x.mean(axis=-1, keepdims=True, dtype=np.float32) / (255 if x.dtype == np.uint8 else 1)
    block = x.shape[2] // side
    return x.reshape(len(x), 1, side, block, side, block, 1).mean(axis=(3, 5)).astype(np.float32)


def summed(x: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Frames of counts ``[N, T, side, side, channels]``, sums over blocks of pixels."""
    count, steps, height, width, channels = x.shape
    blocks = (count, steps, side, height // side, side, width // side, channels)
    return x.astype(np.float32).reshape(blocks).sum(axis=(3, 5))


def digits(data_dir: pathlib.Path) -> Arrays:
    return {split: (grey(x, 8), y) for split, (x, y) in records("digits", data_dir).items()}


def cifar10(data_dir: pathlib.Path) -> Arrays:
    """Pictures in grey; 1000 for validation, drawn once from the last tenth of the training split."""
    arrays = {split: (grey(x, 16), y) for split, (x, y) in records("cifar10_small", data_dir).items()}
    x, y = arrays["train"]
    pool = len(y) - len(y) // 10
    chosen = pool + np.random.default_rng(0).choice(len(y) // 10, 1000, replace=False)
    return arrays | {"train": (x[:pool], y[:pool]), "validation": (x[chosen], y[chosen])}


def digits_events(data_dir: pathlib.Path) -> Arrays:
    return {split: (summed(x, 8), y) for split, (x, y) in records("digits_events", data_dir).items()}


def nmnist(data_dir: pathlib.Path) -> Arrays:
    """The 1,100 recordings of docs/results/nmnist: counts in the central window."""
    x, y = recordings(str(data_dir))
    edge = (FRAME - WINDOW) // 2
    x = summed(x[:, :, edge : edge + WINDOW, edge : edge + WINDOW], 8)
    parts = np.split(np.random.default_rng(0).permutation(len(y)), NMNIST_ENDS)
    return {split: (x[part], y[part]) for split, part in zip(("train", "validation", "test"), parts, strict=True)}


def spoken(data_dir: pathlib.Path) -> Arrays:
    """Recordings of spoken digits as sums of four frames each, ``[N, 10, 64]``, with more of them for the test."""
    arrays = {
        split: (x.astype(np.float32).reshape(len(x), -1, SPOKEN_FRAMES, x.shape[-1]).sum(axis=2), y)
        for split, (x, y) in records("fsdd", data_dir).items()
    }
    (x, y), (test_x, test_y) = arrays["train"], arrays["test"]
    pool, left = np.split(np.random.default_rng(0).permutation(len(y)), [SPOKEN_POOL])
    test = np.concatenate([test_x, x[left]]), np.concatenate([test_y, y[left]])
    return {"train": (x[pool], y[pool]), "validation": arrays["validation"], "test": test}


def spike_times(data_dir: pathlib.Path) -> Arrays:
    """Each unit spikes once, at a time on a smooth manifold of its class (Zenke and Vogels, Neural Computation 2021).

    For class c, unit u and a sample with coordinates p in [0, 1]^2, drawn uniformly,

        f_cu(p) = prod_d sum_{k=1}^{100} a_cudk / k sin(2 pi (k p_d + b_cudk)),     a, b uniform in [0, 1]
        t_cu(p) = (f_cu(p) - min f_cu) / (max f_cu - min f_cu)                      over the samples
    """
    del data_dir
    generator, samples, steps = np.random.default_rng(0), POOL + VALIDATION + TEST, 10
    k = np.arange(1, HARMONICS + 1)
    times = []
    for _ in range(10):
        coordinates = generator.random((samples, DIMENSIONS, 1))
        amplitudes, phases = generator.random((2, DIMENSIONS, HARMONICS, UNITS))
        # Phases are complex factors, so that the sum over harmonics is a product of matrices.
        waves = np.exp(2j * np.pi * k * coordinates).swapaxes(0, 1)
        f = (waves @ (amplitudes / k[:, None] * np.exp(2j * np.pi * phases))).imag.prod(axis=0)
        times.append((f - f.min(axis=0)) / np.ptp(f, axis=0))
    at = np.minimum((steps * np.stack(times, axis=1)).astype(int), steps - 1).reshape(-1, 1, UNITS)
    x, y = (at == np.arange(steps)[:, None]).astype(np.float32), np.tile(np.arange(10, dtype=np.int32), samples)
    parts = [range(0, 10 * POOL), range(10 * POOL, 10 * (POOL + VALIDATION)), range(10 * (POOL + VALIDATION), len(y))]
    return {split: (x[part], y[part]) for split, part in zip(("train", "validation", "test"), parts, strict=True)}


TASKS = {
    "digits": Task(digits, (8, 8, 1), 4),
    "N-MNIST": Task(nmnist, (8, 8, 2), 5),
    "CIFAR-10, grey, 16x16": Task(
        cifar10, (16, 16, 1), 4, labels=100, batch_size=50, epochs=20, seeds=24, cut=(-10.0, 9.9)
    ),
    "digits as events": Task(digits_events, (8, 8, 2), 10, decay=0.5),
    "digits, wrong labels": Task(digits, (8, 8, 1), 4, wrong=0.2),
    "spoken digits": Task(spoken, (64,), 10, decay=0.9**4, draws=8),
    "spike times": Task(spike_times, (UNITS,), 10, decay=0.9, draws=8),
}
"""In the order in which they are run; their names are those of the old numbers (``experiments.forest.FEW``)."""
