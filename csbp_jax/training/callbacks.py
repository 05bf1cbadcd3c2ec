"""Callbacks: what a training calls after each epoch, a user's own and ours, and the training as they see it."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.data import DataSource
from csbp_jax.learner import State
from csbp_jax.reporting import plots_training
from csbp_jax.runtime import files, multihost
from csbp_jax.training import metrics_log
from csbp_jax.training.build import Splits, blamed
from csbp_jax.training.lifts import Lift
from csbp_jax.training.metrics_log import Row
from csbp_jax.training.plugins import Own

States = dict[str, dict[str, NDArray[Any]]]
"""State of each callback that has one: arrays of any shape, ``{NAME: {KEY: array}}``."""


class Trainer:
    """A training as its callbacks see it: of one run, or of the members of an experiment that train at once.

    Attributes:
      folder: of the run, or of the experiment.
      splits: its data, ``{"train", "validation", "test"}``.
      stopped: why the training ends after this epoch, or some members' does, if a callback has stopped it.
    """

    def __init__(
        self,
        lift: Lift,
        splits: Splits,
        folder: pathlib.Path,
        show: Callable[[str], None],
        check: Callable[[], None],
    ):
        """Show a run to its callbacks; ``check`` is called between batches of an evaluation, and may raise to stop."""
        self._lift, self._show, self._check = lift, show, check
        self.splits, self.folder = splits, folder
        self._state: State | None = None
        self.stopped: str | None = None
        self._ends = np.zeros(self._shape, bool)

    @property
    def config(self) -> Config:
        """The config of the run, with what its data determine; of members, what their configs have in common.

        What differs among them has another value there, see ``configs``.
        """
        return self._lift.config

    @property
    def configs(self) -> Sequence[Config]:
        """The config of each member; of a run, its own."""
        return self._lift.configs

    @property
    def count(self) -> int | None:
        """How many members there are, the first axis of all arrays; None for a run."""
        return self._lift.count

    @property
    def _shape(self) -> tuple[int, ...]:
        return () if self.count is None else (self.count,)

    @property
    def state(self) -> State | None:
        """The state after the last step (:class:`csbp_jax.learner.State`); of members, each array has a leading axis.

        The next step takes its memory: copy what you keep, and change nothing. A member that has stopped is as it was
        then. None in ``end`` of a run that was finished before.
        """
        if self._state is None:
            return None
        state: State = self._lift.without_copies(self._lift.of_members(self._state))
        return state

    def at(self, state: State | None) -> None:
        """Go on to another state; the loop calls this."""
        self._state = state

    def evaluate(self, source: str | DataSource, state: State | None = None) -> dict[str, Any]:
        """Return ``{"count", MEASURE, "loss"}`` over all examples of a source, without augmentation.

        Each is a number, and of members an array ``[K]``.

        All processes of a run evaluate together: each calls this with the same source.

        Args:
          source: the name of a split, or records of your own, such as a :class:`csbp_jax.data.source.ArraySource`.
          state: the state to evaluate, such as that of :func:`csbp_jax.learner.with_ema_weights`; by default the run's.

        Raises:
          ValueError: there is no such split, or no state.
        """
        if isinstance(source, str):
            if source not in self.splits:
                raise ValueError(f"evaluate: there is no split {source!r}; there are {', '.join(self.splits)}")
            source = self.splits[source]
        whole = self._state if state is None else self._lift.from_members(self._lift.with_copies(state))
        if whole is None:
            raise ValueError("evaluate: the run was finished before, so that its state is not in memory; pass a state")
        return self._lift.without_copies(self._lift.evaluate(whole, source, self._check))

    def stop(self, members: ArrayLike = True, *, why: str = "") -> None:
        """End the training after this epoch, as ``patience`` does: the run is tested, and is finished.

        Of several processes of a run, process 0 decides.

        Args:
          members: which members end, booleans ``[K]``; by default all.
          why: is shown, and of a run kept in ``result.json``.

        Raises:
          ValueError: ``members`` has another shape.
        """
        ends = np.broadcast_to(np.asarray(members, bool), self._shape)
        if not ends.any():
            return
        self._ends = self._ends | ends
        if self.stopped is None:
            self.stopped = why

    def show(self, line: str) -> None:
        """Print a line above the progress bar; of several processes, process 0 prints."""
        self._show(line)


class Callback(Protocol):
    """A function, or an object, that is called once after each epoch.

    It is called after validation and the selection of weights, before the epoch's row is written and its checkpoint
    saved, on every process of the run. An error that it raises ends the run, whose saved epochs stay.

    Beside ``__call__``, an object may have:

    - ``name``: letters, digits, ``_`` and ``-``; by default that of the function or class.
    - ``start(trainer)``: called before the first step, and after a resume; of an experiment, again for the next runs
      that train at once, with which it begins anew. One without ``start`` then gets back the state that it had first.
    - ``state() -> {KEY: array}`` and ``restore(state)``: what a checkpoint holds of it, as NumPy arrays. ``state`` is
      called after ``start`` and after each epoch; a resume calls ``restore`` after ``start``, with the state after the
      last whole epoch.
    - ``end(trainer, result)``: called with the content of ``result.json``, before that is written; also where the run
      is finished already.
    - ``close()``: called last, also after an error or a stop.
    """

    def __call__(self, trainer: Trainer, row: Row) -> Mapping[str, ArrayLike] | None:
        """Return metrics, numbers that join the epoch's row as ``NAME.KEY``, or None.

        Args:
          trainer: the training.
          row: of the epoch: means of the training metrics, the validation, and metrics of the callbacks before. Of
            members they are arrays ``[K]``, which are NaN where a member has stopped before, and the means of layers
            and taps have the names ``NAME.LAYER``.

        The metrics of members are numbers or arrays ``[K]``.
        """


class Callbacks:
    """The callbacks of a run, called in their order: those of its plugin file, then those that are given."""

    def __init__(self, given: Sequence[Callback], config: Config, own: Own = Own()):
        """Collect the callbacks of a run of a resolved config.

        Raises:
          TypeError: one cannot be called, or has ``state`` without ``restore``.
          ValueError: one has no proper name, or two have the same.
          ConfigError: any of these, or another error, of those of a plugin file.
        """
        self._own = own
        self._callbacks: dict[str, Callback] = {}
        with self._blamed():
            if own.callbacks is not None:
                of_plugin = own.callbacks(config)
                if not isinstance(of_plugin, Sequence):
                    raise TypeError(f"callbacks: returned {of_plugin!r}; expected is a list of callbacks")
                self._add(of_plugin)
        self._add(given)

    def _add(self, callbacks: Sequence[Callback]) -> None:
        for callback in callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks: {callback!r} cannot be called; a callback is called with (trainer, row)")
            name = _name(callback)
            if not re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]*", name):
                raise ValueError(
                    f"callbacks: {name!r} is no name, which has letters, digits, '_' and '-'; give {callback!r} an "
                    "attribute name"
                )
            if name in self._callbacks:
                raise ValueError(f"callbacks: two are called {name!r}; give one of them another attribute name")
            if hasattr(callback, "state") and not hasattr(callback, "restore"):
                raise TypeError(f"callbacks: {name} has state, but no method restore, which gets it back on a resume")
            self._callbacks[name] = callback

    def _blamed(self) -> contextlib.AbstractContextManager[None]:
        """Report errors by the line of the plugin file, if that has callbacks."""
        return blamed(self._own, ["callbacks"]) if self._own.callbacks else contextlib.nullcontext()

    def start(self, trainer: Trainer, stored: States, is_resumed: bool) -> None:
        """Start each, and give back the state that a checkpoint holds of it."""
        with self._blamed():
            for name, callback in self._callbacks.items():
                if hasattr(callback, "start"):
                    callback.start(trainer)
                if hasattr(callback, "restore") and name in stored:
                    callback.restore({key: array.copy() for key, array in stored[name].items()})
                elif hasattr(callback, "restore") and is_resumed:
                    trainer.show(f"callback {name}: begins anew, as the checkpoint holds no state of it")
        for name in stored.keys() - self._callbacks.keys():
            trainer.show(f"callback {name}: is not given, and the state that the checkpoint holds of it is dropped")

    def __call__(self, trainer: Trainer, row: Row) -> tuple[str | None, NDArray[np.bool_]]:
        """Call each after an epoch, and add its metrics to the row.

        Returns:
          ``(who, ends)``: who stopped the training, and why; and for which members, or whether for the run.
        """
        stopped = trainer.stopped = None
        trainer._ends = np.zeros(trainer._shape, bool)
        with self._blamed():
            for name, callback in self._callbacks.items():
                row |= _metrics(name, callback(trainer, row), trainer._shape)
                if trainer.stopped is not None and stopped is None:
                    stopped = f"{name}: {trainer.stopped}" if trainer.stopped else name
        if trainer.count is not None:
            return stopped, trainer._ends
        stopped = multihost.broadcast_from_host0(lambda: stopped)
        return stopped, np.asarray(stopped is not None)

    def states(self) -> States:
        """Return a copy of the state of each that has one."""
        return self._states(self._callbacks)

    def states_as_given(self) -> States:
        """Return a copy of the state of each that has one, but no ``start`` in which it would begin anew."""
        return self._states(name for name, callback in self._callbacks.items() if not hasattr(callback, "start"))

    def _states(self, names: Iterable[str]) -> States:
        states = {}
        with self._blamed():
            for name in names:
                callback = self._callbacks[name]
                if hasattr(callback, "state"):
                    states[name] = _arrays(name, callback.state())
        return {name: arrays for name, arrays in states.items() if arrays}

    def end(self, trainer: Trainer, result: dict[str, Any]) -> None:
        """Tell each that the run is tested, or was finished before."""
        with self._blamed():
            for callback in self._callbacks.values():
                if hasattr(callback, "end"):
                    callback.end(trainer, result)

    def close(self) -> None:
        """Close each, also if another fails to."""
        with contextlib.ExitStack() as stack:
            for callback in self._callbacks.values():
                if hasattr(callback, "close"):
                    stack.callback(callback.close)


class Figures:
    """Draws ``RUN/figures`` once the run is tested."""

    name = "figures"

    def __init__(self) -> None:
        self._is_training = False

    def start(self, trainer: Trainer) -> None:
        """Note that the run trains: where it was finished before, its figures are there."""
        self._is_training = True

    def __call__(self, trainer: Trainer, row: Row) -> None:
        """Do nothing after an epoch."""

    def end(self, trainer: Trainer, result: dict[str, Any]) -> None:
        """Draw the rows of the run.

        Raises:
          ConfigError: the folder of the figures is a link.
        """

        def draw() -> None:
            files.check_links(trainer.folder, "figures")
            plots_training.draw(trainer.folder, metrics_log.read_rows(trainer.folder / "metrics.jsonl"))

        if self._is_training:
            multihost.broadcast_from_host0(draw)


def _name(callback: Callback) -> str:
    """Return the name of a callback: its own, or that of its function or its class."""
    function = getattr(callback, "func", callback)  # of a functools.partial
    return str(getattr(callback, "name", "") or getattr(function, "__name__", type(callback).__name__))


def _metrics(name: str, returned: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what a callback has returned as metrics of a row, each of a shape.

    Raises:
      TypeError: these are no numbers by name, or of members no arrays of as many.
    """
    if returned is None:
        return {}
    of_members = f" or arrays of {shape[0]} numbers" if shape else ""
    expected = f'expected are numbers{of_members} by name, such as {{"loss": 0.5}}, or None'
    if not isinstance(returned, Mapping):
        raise TypeError(f"callback {name}: returned {returned!r}; {expected}")
    metrics: dict[str, Any] = {}
    for key, value in returned.items():
        if not isinstance(key, str) or not _is_numeric(value) or np.shape(value) not in ((), shape):
            raise TypeError(f"callback {name}: returned {value!r} as {key!r}; {expected}")
        metrics[f"{name}.{key}"] = np.broadcast_to(np.asarray(value, float), shape) if shape else float(value)
    return metrics


def _arrays(name: str, state: Any) -> dict[str, NDArray[Any]]:
    """Return a copy of the state of a callback as arrays.

    Raises:
      TypeError: it is no mapping from names to arrays of numbers.
    """
    if not isinstance(state, Mapping):
        raise TypeError(f"callback {name}: its state is {state!r}; expected are arrays by name, {{KEY: array}}")
    for key, value in state.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise TypeError(
                f"callback {name}: {key!r} is no name of an array of its state, which is a text without '/'"
            )
        if not _is_numeric(value):
            raise TypeError(f"callback {name}: {key} of its state is {value!r}; expected is an array of numbers")
    return {key: np.array(value) for key, value in state.items()}


def _is_numeric(value: Any) -> bool:
    """Return whether a value is a number, or an array of numbers or of booleans."""
    dtype = np.asarray(value).dtype
    return bool(jnp.issubdtype(dtype, np.number) or dtype == np.bool_)
