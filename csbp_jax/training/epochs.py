"""The loop over epochs that trains one run, and K runs of one compile group at once.

All of it is written for arrays of a shape: ``()`` for one run, ``[K]`` for members. What differs is in a *lift* (how
the functions of a run are compiled, and where their arrays lie), a *feed* (what a step is called with) and a *record*
(where the measured numbers go).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import learner
from csbp_jax.config import Config
from csbp_jax.data import DataSource
from csbp_jax.learner import State
from csbp_jax.runtime.preemption import Stop, Stopped
from csbp_jax.training import progress
from csbp_jax.training.callbacks import Callbacks, States, Trainer
from csbp_jax.training.lifts import Lift
from csbp_jax.training.progress import Health, Sums

Row = dict[str, Any]


class Feed(Protocol):
    """Gives the training steps their batches (feeds.py).

    Attributes:
      steps_per_call: the training steps of one call; an epoch is a whole number of calls.
    """

    steps_per_call: int

    def __call__(self, state: State) -> tuple[State, dict[str, Any]]:
        """Dispatch the next steps; return the state after them, and their metrics, each of the lift's shape.

        Those of several steps have the steps as one more, last axis. The memory of the old state is reused.
        """
        ...


class Record(Protocol):
    """Where numbers go: :class:`csbp_jax.training.log.Log` of one run, and the curves of members."""

    def step(self, step: int, metrics: dict[str, Any], health: Health) -> None:
        """Take the metrics of a step, with the health after it.

        Raises:
          Diverged: a run that has diverged ends here; of members, their others train on.
        """
        ...

    def row(self, epoch: int, step: int, measured: Mapping[str, Any], running: NDArray[np.bool_]) -> Row:
        """Return the row of an epoch.

        Args:
          epoch: its number, from 1 on.
          step: the last one of it.
          measured: the means over its good steps, nested as the metrics, and then its validations.
          running: who has trained in it.
        """
        ...

    def end_epoch(self, row: Row) -> None:
        """Keep the row of an epoch, to which callbacks may have added; ``stopped`` says which has ended a training."""
        ...


class Saves(Protocol):
    """When and where a session is saved."""

    def after_epoch(self, session: "Session") -> None:
        """Save the session after an epoch, if it is time to."""
        ...

    def before_stop(self, session: "Session") -> None:
        """Save the session before a requested stop; it may be within an epoch."""
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Session:
    """All that a training goes on from, and the content of a checkpoint.

    state: of the training step; of a member that has stopped, as it was then. chosen: the weights of the best
    validation epoch, with its number and validation. progress: ``{"epochs": ended epochs, "stopped": whether a callback
    has stopped it, "count": good steps since, "sums": their metrics}``. callbacks: the state of the
    callbacks after the last epoch.
    """

    state: State
    chosen: dict[str, Any]
    progress: dict[str, Any]
    callbacks: States = dataclasses.field(default_factory=dict)

    @classmethod
    def fresh(cls, state: State, metrics: Mapping[str, Any], shape: tuple[int, ...] = ()) -> "Session":
        """Return the session at the start of a training; shapes of the state and of a step's metrics suffice."""
        stands = {"epochs": np.zeros(shape, int), "stopped": np.zeros(shape, bool)}
        chosen = progress.no_selection(learner.weights_of(state), shape)
        return cls(state, chosen, stands | Sums(metrics, shape).progress())

    def with_own_weights(self) -> "Session":
        """Return a session whose selection has copies of the state's weights, since a step reuses their memory."""
        copies: dict[str, Any] = jax.tree.map(jnp.copy, learner.weights_of(self.state))
        return dataclasses.replace(self, chosen=self.chosen | copies)

    @property
    def position(self) -> tuple[int, int]:
        """The training steps that are done, and the epochs that have ended, with their validation."""
        return int(np.max(np.asarray(self.state.step))), int(np.max(self.progress["epochs"]))

    @property
    def is_stopped(self) -> bool:
        """Whether a callback has stopped all of it."""
        return bool(np.all(self.progress["stopped"]))

    def is_over(self, config: Config) -> NDArray[np.bool_]:
        """Return who has trained enough; decided by what a checkpoint holds, so that a resume decides the same."""
        epochs, chosen = np.asarray(self.progress["epochs"]), np.asarray(self.chosen["epoch"])
        return np.asarray(self.progress["stopped"]) | progress.is_over(config, epochs, chosen)

    def is_within_epoch(self, steps_per_epoch: int) -> NDArray[np.bool_]:
        """Return who has done steps of an epoch whose validation has not ended."""
        return np.asarray(self.state.step) > np.asarray(self.progress["epochs"]) * steps_per_epoch

    def running(self, config: Config, steps_per_epoch: int) -> NDArray[np.bool_]:
        """Return who trains on.

        Whoever was stopped within an epoch ends it, even if it goes on with fewer epochs or less patience.
        """
        return np.asarray(~self.is_over(config) | self.is_within_epoch(steps_per_epoch))


@jax.jit
def _in_one_array(metrics: Any) -> jax.Array:
    """Stack the numbers of a step: one transfer takes half the time of the host that sixteen take."""
    return jnp.stack([jnp.asarray(number, float) for number in jax.tree.leaves(metrics)])


class Meter:
    """Reads the metrics of steps; keeps the sums of the epoch, and the health.

    It is one call behind: it waits for the metrics of a call only when the next one has been dispatched.

    Attributes:
      step: the last step whose metrics were read.
      epoch: the number of the epoch that is being trained, from 1 on.
      running: who trains in it.
    """

    def __init__(self, session: Session, metrics: Mapping[str, Any], health: Health, record: Record):
        """Continue from a session.

        Args:
          session: where the training stands.
          metrics: of a step (their names suffice).
          health: up to there.
          record: is told of each step.
        """
        self.step, ended = session.position
        self.epoch = ended + 1
        self.running: NDArray[np.bool_] = np.ones(health.diverged.shape, bool)
        self.sums, self.health, self._record = Sums(metrics, health.diverged.shape), health, record
        self.sums.restore(session.progress)
        self._dispatched: Any = None

    def __call__(self, metrics: dict[str, Any]) -> None:
        """Take the metrics of the steps just dispatched, and read those of the call before."""
        self.catch_up()
        self._dispatched = jax.tree.structure(metrics), _in_one_array(metrics)

    def catch_up(self) -> None:
        """Wait for the dispatched steps, and read their metrics."""
        if self._dispatched is None:
            return
        (structure, array), self._dispatched = self._dispatched, None
        numbers = jax.device_get(array)  # [metrics, *shape], and of several steps [metrics, *shape, steps]
        if numbers[0].size == self.running.size:
            self._read(jax.tree.unflatten(structure, list(numbers.reshape(-1, *self.running.shape))))
            return
        for of_step in np.moveaxis(numbers, -1, 0):
            self._read(jax.tree.unflatten(structure, list(of_step)))

    def _read(self, metrics: dict[str, Any]) -> None:
        self.step += 1
        self.health.update(self.step, metrics["task_loss"], metrics["bad_steps"], self.running)
        self.sums.add(metrics, metrics["bad_steps"] == 0)
        self._record.step(self.step, metrics, self.health)

    def progress(self, epochs: Any, stopped: Any) -> dict[str, Any]:
        """Return where the training stands, as :class:`Session` has it."""
        return {"epochs": np.asarray(epochs), "stopped": np.asarray(stopped)} | self.sums.progress()


def train(
    lift: Lift,
    feed: Feed,
    session: Session,
    *,
    validation: DataSource,
    trainer: Trainer,
    callbacks: Callbacks,
    meter: Meter,
    record: Record,
    saves: Saves,
    stop: Stop,
) -> Session:
    """Train from a session to the last epoch.

    Args:
      lift: the compiled functions.
      feed: the batches, from the session's step on.
      session: where the training stands; its memory is reused.
      validation: the split by which weights are selected.
      trainer: the training as callbacks see it.
      callbacks: called after each epoch.
      meter: reads the metrics of the steps.
      record: keeps the row of each epoch.
      saves: saves the session.
      stop: may request a stop.

    Raises:
      Stopped: a stop was requested.
      Diverged: one run has diverged.
    """
    config, steps = lift.config, lift.steps_per_epoch
    state = session.state
    # One program steps all members, stopped ones too: ``kept`` has those as they were when they stopped.
    kept: State | None = None
    while (running := session.running(config, steps)).any():
        if kept is None and not running.all():
            kept = jax.tree.map(jnp.copy, session.state)
        meter.running = running
        trained = session.state
        try:
            # Train to the end of the epoch.
            for _ in range((meter.epoch * steps - meter.step) // feed.steps_per_call):
                if stop.poll() is not None:
                    break
                state, metrics = feed(state)
                meter(metrics)
            # The meter is a call behind, and a checkpoint counts every step that its state has done.
            meter.catch_up()
            trained = state if kept is None else lift.where(running, state, kept)
            stop.raise_if_requested()

            # Evaluate, and select the weights of the epoch where they are better.
            measured = meter.sums.means()
            validated = lift.evaluate(trained, validation, stop.raise_if_requested)
            measured |= {f"validation_{name}": values for name, values in validated.items()}
            if config.optimizer.ema:
                averaged = lift.evaluate(learner.with_ema_weights(trained), validation, stop.raise_if_requested)
                measured |= {f"ema_validation_{name}": values for name, values in averaged.items()}
            chosen = progress.select(session.chosen, learner.weights_of(trained), meter.epoch, validated, lift.replace)

            # Call the callbacks, which may add to the row, and stop the training.
            row = record.row(meter.epoch, meter.step, measured, running)
            trainer.at(trained)
            stopped_by, ends = callbacks(trainer, row)
            states = callbacks.states()
        except Stopped as stopped:
            # With what the callbacks had after the epoch before: they are called again when the epoch ends.
            stands = meter.progress(session.progress["epochs"], session.progress["stopped"])
            saves.before_stop(dataclasses.replace(session, state=trained, progress=stands))
            raise Stopped(stopped.code, meter.step) from None

        # Write the row, and save.
        if stopped_by:
            row["stopped"] = stopped_by
        record.end_epoch(row)
        epochs = np.where(running, meter.epoch, session.progress["epochs"])
        meter.sums.begin_epoch()
        stands = meter.progress(epochs, session.progress["stopped"] | lift.with_copies(ends))
        session = Session(trained, chosen, stands, states)
        meter.epoch += 1
        kept = None if kept is None else trained
        saves.after_epoch(session)
    return session


def test(
    lift: Lift, session: Session, source: DataSource, check: Callable[[], None]
) -> dict[str, tuple[NDArray[Any], str, dict[str, Any]]]:
    """Test each kind of weights: of the last epoch, of the chosen one, and their moving averages.

    Args:
      lift: the compiled functions.
      session: after the last epoch.
      source: the test split.
      check: called between batches; may raise to stop.

    Returns:
      ``{kind: (its epoch, the prefix of its validation in the row of that epoch, {count, MEASURE, loss})}``.
    """
    tested: dict[str, tuple[NDArray[Any], str, dict[str, Any]]] = {}
    weights = progress.tested_weights(lift.config, session.state, session.progress["epochs"], session.chosen)
    for kind, (state, epoch, prefix) in weights.items():
        at = np.asarray(epoch)
        # The chosen epoch may be the last.
        same = [of for of_epoch, of_prefix, of in tested.values() if of_prefix == prefix and (of_epoch == at).all()]
        tested[kind] = at, prefix, same[0] if same else lift.evaluate(state, source, check)
    return tested
