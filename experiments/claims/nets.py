"""Nets of the study of generalisation, trained again for their weights.

All functions take the nets of many runs at once: the first axis of every leaf numbers the runs.
"""

import argparse
import functools
import json
import operator
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import learner
from csbp_jax.config import Config
from experiments import study
from experiments.claims import generalisation, runs
from experiments.claims.report import BASE
from experiments.study import Content

FILES = [study.RESULTS / "claims" / "generalisation.json", study.RESULTS / "claims_events" / "events.json"]
"""The studies of generalisation: their settings and runs, with arms of different names."""

Weights = dict[str, Any]
"""``{params, batch_stats}`` of ``learner.weights_of``."""


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Content]:
    """Parse a command line with ``--nets``; return also the content of that study, with the arms of all its files.

    Exits with usage and one line if a file is missing, or its nets were not of the default sizes: these are trained.
    """
    parser.add_argument("--nets", nargs="+", type=pathlib.Path, default=FILES)
    options = parser.parse_args(arguments)
    for file in options.nets:
        if not file.exists():
            parser.error(f"--nets: there is no file {file}")
    contents = [json.loads(file.read_text()) for file in options.nets]
    for file, content in zip(options.nets, contents, strict=True):
        sizes = {name: content.get(name) for name in ("network", "labels", "side", "epochs")}
        if changed := [f"--{name} {value}" for name, value in sizes.items() if value not in (None, "dense")]:
            parser.error(f"--nets: {file} was made with {' '.join(changed)}; give files of the default sizes")
    return options, contents[0] | {"arms": functools.reduce(operator.or_, [content["arms"] for content in contents])}


def other_files(files: Sequence[pathlib.Path]) -> list[str] | None:
    """The files, as a setting of a study of these nets; None for :data:`FILES`."""
    return None if list(files) == FILES else [str(file) for file in files]


def load_task(name: str, data_dir: str, **changed: int) -> runs.Task:
    """The task of a data set in the study of generalisation, with other numbers of ``labels`` or ``epochs``.

    Raises:
      ConfigError: its data are not in the data directory.
    """
    fields: dict[str, int | None] = dict.fromkeys(("side", "labels", "epochs", "seeds"))
    options = argparse.Namespace(network="dense", data_dir=data_dir, **(fields | changed))
    return generalisation.load_task(name, options)[0]


def setting_of(arm: Content, condition: str, base: str = BASE) -> tuple[str, int]:
    """The condition and the number of its setting in an arm of that study; ``base``: P at the other rate and width."""
    return ("P", arm["base"]) if condition == base else (condition, arm["chosen"][condition])


def stack(trees: Sequence[Any]) -> Any:
    """Join trees of equal shapes along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def train(task: runs.Task, kind: str, knobs: Sequence[runs.Knobs], draws: Sequence[runs.Draw]) -> Weights:
    """Train runs as ``runs.train`` does, all as one program; their weights after the last epoch."""
    floats = [{name: jnp.float32(value) for name, value in row.items()} for row in knobs]
    weights: Weights = _training(task.config, task.labels, kind)(
        stack(floats), stack(draws), jnp.asarray(task.train[0])
    )
    return weights


@functools.cache
def _training(config: Config, labels: int, kind: str) -> Any:
    task = runs.Task(config, labels, *[(np.empty(0), np.empty(0))] * 3)

    def train_run(knobs: runs.Knobs, drawn: runs.Draw, pictures: jax.Array) -> Weights:
        recipe = runs.make_recipe(task, kind, knobs)
        x, y = pictures[drawn.pictures], drawn.labels

        def step(state: learner.State, rows: jax.Array) -> tuple[learner.State, None]:
            return learner.train_step(recipe, state, {"x": x[rows], "y": y[rows]})[0], None

        state = runs.first_state(task, recipe, drawn.key, knobs)
        state, _ = jax.lax.scan(step, state, drawn.order.reshape(-1, config.batch_size))
        return learner.weights_of(state)

    return jax.jit(jax.vmap(train_run, in_axes=(0, 0, None)))
