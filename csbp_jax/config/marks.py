"""What the annotation of a field of the config says beside its type and its range.

In ``schema.py``, where all of them stand::

    lr: Annotated[float, FROM_0, Traced(0.0)] = 0.001
    log_every: Annotated[int, integers(1, MAX_EVERY), Mark.EDITABLE, Mark.NO_PROGRAM, Mark.NO_EFFECT] = 10

A field without marks is part of the compiled program, cannot change when a run goes on, and may be in any grid.
"""

import enum
from typing import Any, NamedTuple


class Mark(enum.Enum):
    """What holds for a field, whatever its value."""

    EDITABLE = "it may change when a run goes on"
    NO_PROGRAM = "no compiled program depends on it, unless a user's own function reads it"
    NO_EFFECT = "it changes no result"
    CHOOSES_DATA = "in a grid, each of its values has data of its own, which are compared each by itself"


class Traced(NamedTuple):
    """The value is an argument of the compiled programs, which runs that differ in it share.

    The step finds it in ``state.hparams``, which :func:`csbp_jax.learner.hyperparameters` returns.

    Attributes:
      stand_in: a possible value of the field's type. It stands for all values in the config that programs are found by.
      only_if_varied: it is traced only where members of an experiment differ in it, and else a constant.
    """

    stand_in: Any
    only_if_varied: bool = False


class FixedInExperiments(NamedTuple):
    """In an experiment, ``value`` is the only one that is possible; ``why`` ends the sentence that refuses others."""

    value: Any
    why: str


class NoSetting(NamedTuple):
    """The settings of an experiment cannot name the field; ``why`` ends the sentence that refuses it."""

    why: str
