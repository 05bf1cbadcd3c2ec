"""A small config on the digits for tests of many runs, its console, and configs of a grid."""

import dataclasses
import functools
import io
import itertools

from csbp_jax import configs
from csbp_jax.config import Optimizer
from csbp_jax.experiment import fields
from csbp_jax.reporting.terminal import Console

DIGITS = configs.load("digits")
SMALL = dataclasses.replace(
    DIGITS,
    epochs=3,
    batch_size=320,
    eval_batch_size=360,
    model=dataclasses.replace(DIGITS.model, name="dense", features=(5, 4), time_steps=2),
    chaos=dataclasses.replace(DIGITS.chaos, taps=("fc1.membrane",), anneal="step"),
    optimizer=Optimizer(name="sgd", lr=0.05),
)
QUIET = functools.partial(Console, file=io.StringIO())


def of_grid(config, axes):
    """The configs of all combinations of fields, the last axis fastest; of "FIELD FIELD", values are pairs."""
    rows = itertools.product(*([(v if " " in axis else (v,)) for v in values] for axis, values in axes.items()))
    names = " ".join(axes).split()
    points = [dict(zip(names, itertools.chain(*row), strict=True)) for row in rows]
    return [
        dataclasses.replace(fields.at(config, {k: v for k, v in p.items() if k != "seed"}), seed=p.get("seed", 0))
        for p in points
    ]
