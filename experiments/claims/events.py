"""Run the plans of docs/results/claims_events, claims_fsdd and claims_nmnist: few labels, on spikes.

    python -m experiments.claims.events [--data digits_events spike_timing] [--data-dir data]
        [--rest WD DO SAM RMP LS L N] [--labels N] [--epochs N] [--seeds N] [--out docs/results/claims_events]
    python -m experiments.claims.events --data fsdd --out docs/results/claims_fsdd
    python -m experiments.claims.events --data nmnist --out docs/results/claims_nmnist

--rest: conditions after P, C, D and S. Conditions, their settings, tuning and tests are those of
``experiments.claims.generalisation``. Finished runs are read from ``events.json`` and not trained again.
"""

import argparse
from collections.abc import Sequence

import numpy as np

from csbp_jax import configs
from csbp_jax import data as data_sets
from experiments import study
from experiments.claims import generalisation, runs, spike_timing
from experiments.claims.generalisation import DataSet
from experiments.nmnist.training import FRAME, WINDOW, recordings

MODULE = "python -m experiments.claims.events"
DATA_SETS = {
    "digits_events": DataSet(8, 20, 20, 30, 64, (0.0,), doubled=True),
    "spike_timing": DataSet(1, 20, 20, 30, 64, (0.0,), doubled=True),
    "fsdd": DataSet(1, 20, 20, 30, 64),
    "nmnist": DataSet(8, 20, 20, 30, 64),
}
REST = ("WD", "DO", "SAM", "RMP", "LS", "L", "N")
POOL, VALIDATION, TEST = 1000, 30, 200
"""Samples of a class of spike_timing."""
SPOKEN_POOL, SPOKEN_FRAMES = 1000, 4
"""Recordings of fsdd from which a run draws its own, and frames that are added up to one time step."""
NMNIST_ENDS = (500, 600)
"""Recordings of nmnist, in an order drawn once, from which a run draws its own; the end of those for validation."""


def load_task(name: str, options: argparse.Namespace) -> tuple[runs.Task, DataSet]:
    """Make a data set of the study, with its config."""
    changes = {field: getattr(options, field) for field in ("labels", "epochs", "seeds")}
    use = DATA_SETS[name]._replace(**{field: value for field, value in changes.items() if value is not None})
    load = {
        "digits_events": load_digits,
        "spike_timing": load_spike_timing,
        "fsdd": load_spoken,
        "nmnist": load_nmnist,
    }
    return load[name](use, options.data_dir), use


def load_digits(use: DataSet, data_dir: str) -> runs.Task:
    """The recordings of digits_events: counts of events ``[N, 10, side, side, 2]``, sums over blocks of pixels."""
    config = configs.load("digits_events")
    splits = data_sets.load(config, data_dir)
    T, (height, width, channels) = config.model.time_steps, config.model.input_shape
    shape = (-1, T, use.side, height // use.side, use.side, width // use.side, channels)

    def arrays(split: str) -> runs.Labelled:
        x, y = study.all_records(splits[split])
        return x.astype(np.float32).reshape(shape).sum(axis=(3, 5)), y

    config = generalisation.small_net(config, use, {"input_shape": (use.side, use.side, channels)})
    return runs.Task(config, use.labels, arrays("train"), arrays("validation"), arrays("test"))


def load_recordings(data_dir: str) -> runs.Task:
    """The task of the arm on recordings, as the plan has it."""
    return load_digits(DATA_SETS["digits_events"], data_dir)


def load_spike_timing(use: DataSet, data_dir: str) -> runs.Task:
    """The task of ``experiments.claims.spike_timing``, with membranes that remember for about as long as it lasts."""
    del data_dir
    x, y = spike_timing.draw(seed=0, samples=POOL + VALIDATION + TEST)
    ends = spike_timing.CLASSES * np.cumsum([POOL, VALIDATION])
    train, validation, test = zip(np.split(x, ends), np.split(y, ends), strict=True)
    model = {"input_shape": (spike_timing.UNITS,), "time_steps": spike_timing.TIME_STEPS, "neuron.decay": 0.9}
    return runs.Task(
        generalisation.small_net(configs.load("digits_events"), use, model), use.labels, train, validation, test
    )


def load_spoken(use: DataSet, data_dir: str) -> runs.Task:
    """The recordings of fsdd as sums of four frames each, ``[N, 10, 64]``, with more of them left for the test."""
    config = configs.load("fsdd")
    splits = data_sets.load(config, data_dir)

    def arrays(split: str) -> runs.Labelled:
        x, y = study.all_records(splits[split])
        frames = x.astype(np.float32)
        return frames.reshape(len(frames), -1, SPOKEN_FRAMES, frames.shape[-1]).sum(axis=2), y

    (x, y), (test_x, test_y) = arrays("train"), arrays("test")
    order = np.random.default_rng(0).permutation(len(y))
    pool, left = np.split(order, [SPOKEN_POOL])
    test = np.concatenate([test_x, x[left]]), np.concatenate([test_y, y[left]])
    model = {
        "time_steps": config.model.time_steps // SPOKEN_FRAMES,
        "neuron.decay": config.model.neuron.decay**SPOKEN_FRAMES,
    }
    return runs.Task(
        generalisation.small_net(config, use, model), use.labels, (x[pool], y[pool]), arrays("validation"), test
    )


def load_nmnist(use: DataSet, data_dir: str) -> runs.Task:
    """The 1,100 recordings of ``experiments.nmnist``: counts in the central window, sums over blocks of pixels."""
    x, y = recordings(data_dir)
    edge = (FRAME - WINDOW) // 2
    x = x[:, :, edge : edge + WINDOW, edge : edge + WINDOW].astype(np.float32)
    block = WINDOW // use.side
    x = x.reshape(*x.shape[:2], use.side, block, use.side, block, 2).sum(axis=(3, 5))
    order = np.random.default_rng(0).permutation(len(y))
    train, validation, test = ((x[part], y[part]) for part in np.split(order, NMNIST_ENDS))
    model = {"input_shape": (use.side, use.side, 2), "time_steps": x.shape[1]}
    return runs.Task(generalisation.small_net(configs.load("nmnist"), use, model), use.labels, train, validation, test)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "claims_events", data_dir=True)
    parser.add_argument("--data", nargs="+", choices=DATA_SETS, default=["digits_events", "spike_timing"])
    parser.add_argument("--rest", nargs="+", choices=REST, default=list(REST))
    for name in ("labels", "epochs", "seeds"):
        parser.add_argument(f"--{name}", type=int)
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in ("labels", "epochs", "seeds")}
    generalisation.run_study("events", MODULE, parser, options, settings, load_task, options.rest)


if __name__ == "__main__":
    study.run(main)
