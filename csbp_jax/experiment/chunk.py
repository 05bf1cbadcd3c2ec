"""The training of a chunk: K members of a compile group at once, from their start to their measures."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data, learner
from csbp_jax.config import Config
from csbp_jax.experiment.saves import CALLBACKS, CURVES, Saves
from csbp_jax.runs.run import tested_columns
from csbp_jax.runtime import preemption
from csbp_jax.training import epochs
from csbp_jax.training.callbacks import Callback, Callbacks, States, Trainer
from csbp_jax.training.epochs import Meter, Row, Session
from csbp_jax.training.lifts import OneMember, Together
from csbp_jax.training.progress import Health

NOT_MEASURED = ("kind", "epoch", "step", "stopped")
"""What a row has beside measures."""
VALIDATION = ("validation_", "ema_validation_")
"""What the names of validations in a row begin with."""


class Curves:
    """The record of members (:class:`csbp_jax.training.epochs.Record`): their measures after each epoch.

    Attributes:
      rows: of the epochs, ``{name: [K]}`` each; of a member that has stopped they are NaN.
    """

    def __init__(
        self, lift: Together | OneMember, rows: Sequence[Row], show: Callable[[int], None], say: Callable[[str], None]
    ):
        """Continue from rows; ``show`` is called with the number of ended epochs after each, ``say`` with a line."""
        self.rows, self._lift, self._show, self._say = list(rows), lift, show, say
        self._bad_steps, self._running = np.zeros(lift.shape, int), np.ones(lift.shape, bool)

    def step(self, step: int, metrics: dict[str, Any], health: Health) -> None:
        """Count the non-finite steps in a row. Who has diverged trains on, as its health tells it from the others."""
        self._bad_steps = np.maximum(self._bad_steps, metrics["bad_steps"].astype(int))

    def row(self, epoch: int, step: int, measured: Mapping[str, Any], running: NDArray[np.bool_]) -> Row:
        """Return ``{name: [K]}``: means of the epoch, those of a tap or layer as ``NAME.LAYER``, and validations.

        ``bad_steps`` is the longest row of non-finite ones.
        """
        validated = {name: values for name, values in measured.items() if name.startswith(VALIDATION)}
        means = _flat({name: values for name, values in measured.items() if name not in validated}, ".")
        validated = {name: values for name, values in validated.items() if not name.endswith("_count")}
        row = means | {"bad_steps": self._bad_steps} | validated
        self._running = running
        of_members = {name: self._lift.without_copies(self._masked(values)) for name, values in row.items()}
        return {"kind": "epoch", "epoch": epoch, "step": step} | of_members

    def _masked(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._running.all() else np.where(self._running, values, np.nan)

    def end_epoch(self, row: Row) -> None:
        """Keep a row, in which callbacks have no say on members that have stopped."""
        measured = {name: values for name, values in row.items() if name not in NOT_MEASURED}
        self.rows.append({name: self._masked(self._lift.with_copies(v)) for name, v in measured.items()})
        self._bad_steps = np.zeros_like(self._bad_steps)
        if stopped_by := row.get("stopped"):
            self._say(f"callback {stopped_by}; runs end after epoch {row['epoch']}")
        self._show(row["epoch"])

    def stacked(self, axis: int) -> dict[str, NDArray[Any]]:
        """Return the curves, ``{name: array}``, with the epochs as an axis of each.

        A measure that a callback did not return after an epoch is NaN there.
        """
        names = {name: None for row in reversed(self.rows) for name in row}
        missing = np.full(self._lift.shape, np.nan)
        return {name: np.stack([row.get(name, missing) for row in self.rows], axis=axis) for name in names}


class _Saved:
    """Saves of a chunk (:class:`csbp_jax.training.epochs.Saves`): of the runs that have not ended, once a minute."""

    def __init__(self, saves: Saves | None, config: Config, health: Health, curves: Curves):
        self._saves, self._config, self._health, self._curves = saves, config, health, curves

    def after_epoch(self, session: Session) -> None:
        if self._saves is None or session.is_over(self._config).all() or not self._saves.is_due():
            return
        stands = {name: session.progress[name] for name in ("epochs", "stopped")} | {"health": self._health.progress()}
        parts = {"state": session.state, "chosen": session.chosen, "progress": stands}
        parts |= {CALLBACKS: session.callbacks}
        _, ended = session.position
        self._saves.save(ended, parts | {CURVES: self._curves.stacked(axis=0)})

    def before_stop(self, session: Session) -> None:
        """Save nothing: a request may come anywhere within an epoch, and the last save is at most a minute old."""


@dataclasses.dataclass(frozen=True)
class Called:
    """The callbacks of members, beside those of a plugin file.

    given: the callbacks. states: with which some of them begin each chunk. count: how many members are no
    copies. folder: of the experiment. show: prints a line.
    """

    given: Sequence[Callback] = ()
    states: States = dataclasses.field(default_factory=dict)
    count: int | None = None
    folder: pathlib.Path = pathlib.Path()
    show: Callable[[str], None] = print


def train(
    lift: Together | OneMember,
    of_seed: Mapping[int, data.DataSource] | None = None,
    show: Callable[[int], None] = lambda epoch: None,
    save: Callable[[Any, NDArray[Any]], None] = lambda weights, epochs: None,
    saves: Saves | None = None,
    called: Called | None = None,
) -> dict[str, Any]:
    """Train members, and return their measures: ``{name: [K]}``, and of each epoch ``{name: [K, epochs]}``.

    A member that has stopped early stays as it was, and its later epochs are NaN. So are accuracies and losses of a
    member that diverged, and those of the chosen epoch where validation selected none, and the means of an epoch
    without a finite step.

    Args:
      lift: of the members.
      of_seed: the training records of each seed; by default all of the split's.
      show: called with the number of ended epochs after each.
      save: called with the last weights, which are stacked, and their epochs.
      saves: where the training goes on from, and where it is saved after an epoch; by default nowhere.
      called: the callbacks; by default none.
    """
    called, config, stop = called or Called(), lift.config, preemption.current()
    records = {seed: of_seed[seed] if of_seed else lift.splits["train"] for seed in lift.seeds}

    # Restore the last save, or begin.
    restored = _restored(lift, saves)
    session, health, rows = restored or _initial(lift)
    curves = Curves(lift, rows, show, called.show)
    step, _ = session.position
    trainer = Trainer(lift, lift.splits, called.folder, called.show, stop.raise_if_requested)
    with contextlib.ExitStack() as stack:
        callbacks = Callbacks(called.given, config, lift.own)
        stack.callback(callbacks.close)
        trainer.at(session.state)
        callbacks.start(trainer, session.callbacks if restored else called.states, is_resumed=restored is not None)
        feed = stack.enter_context(contextlib.closing(lift.feed(records, step)))
        session = epochs.train(
            lift,
            feed,
            session,
            validation=lift.splits["validation"],
            trainer=trainer,
            callbacks=callbacks,
            meter=Meter(session, {}, health, curves),
            record=curves,
            saves=_Saved(saves, config, health, curves),
            stop=stop,
        )
        show(config.epochs)
        save(learner.weights_of(lift.of_members(session.state)), session.progress["epochs"])
        of_epochs = curves.stacked(axis=1)
        result = _tested(lift, session, of_epochs, health.diverged) | {"diverged": health.diverged} | of_epochs
        trainer.at(session.state)
        callbacks.end(trainer, lift.without_copies(result))
        return result


Start = tuple[Session, Health, list[Row]]
"""What members go on from: their session, their health, and the rows of the epochs before."""


def _health(lift: Together | OneMember) -> Health:
    factors = [config.loss_limit for config in lift.configs]
    return Health(lift.with_copies(np.asarray(factors)), lift.steps_per_epoch)


def _initial(lift: Together | OneMember) -> Start:
    """Return the start of members."""
    return Session.fresh(lift.init(), {}, lift.shape).with_own_weights(), _health(lift), []


def _restored(lift: Together | OneMember, saves: Saves | None) -> Start | None:
    """Return where the last save stands; None if there is none."""
    if saves is None:
        return None
    fresh, health = Session.fresh(lift.shapes(), {}, lift.shape), _health(lift)
    stands = {name: fresh.progress[name] for name in ("epochs", "stopped")} | {"health": health.progress()}
    parts = saves.restore({"state": fresh.state, "chosen": fresh.chosen, "progress": stands})
    if parts is None:
        return None
    stored = dict(parts["progress"])
    health.restore(stored.pop("health"))
    session = Session(parts["state"], parts["chosen"], fresh.progress | stored, parts[CALLBACKS])
    of_epochs = _flat(parts[CURVES], "/")  # a checkpoint nests the curves of names with a slash
    rows = [{name: values[at] for name, values in of_epochs.items()} for at in range(session.position[1])]
    return session, health, rows


def _flat(nested: Mapping[str, Any], separator: str) -> dict[str, Any]:
    """Return nested arrays by their names, joined by a separator."""
    leaves = jax.tree_util.tree_leaves_with_path(nested)
    return {jax.tree_util.keystr(path, simple=True, separator=separator): values for path, values in leaves}


def _tested(
    lift: Together | OneMember, session: Session, curves: Mapping[str, NDArray[Any]], diverged: NDArray[Any]
) -> dict[str, Any]:
    """Return the measures of each kind of weights (:func:`csbp_jax.training.epochs.test`)."""
    of_kind = {}
    check = preemption.current().raise_if_requested
    tested = epochs.test(lift, session, lift.splits["test"], check)
    for kind, (at, prefix, numbers) in tested.items():
        values: dict[str, Any] = {"epoch": at}
        for name, value in numbers.items():
            if name != "count":
                of_epochs = curves[f"{prefix}{name}"]
                validation = np.take_along_axis(of_epochs, np.maximum(at, 1)[:, None] - 1, axis=1)[:, 0]
                values |= {f"test_{name}": value, f"validation_{name}": validation}
        of_kind[kind] = {name: np.where(diverged | (at == 0), np.nan, value) for name, value in values.items()}
    measured = [f"test_{name}" for name in numbers if name != "count"]
    return {f"{kind}_{name}": of_kind[kind][name] for name in tested_columns(measured) for kind in of_kind}
