"""Lifts: one run by its own compiled functions, and members by those of their group."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.data import DataSource
from csbp_jax.learner import State
from csbp_jax.training import feeds
from csbp_jax.training.build import Splits
from csbp_jax.training.compiled import CompiledRun
from csbp_jax.training.compiled_group import CompiledGroup


class Lift(Protocol):
    """How the functions of a run are compiled, and where their arrays lie."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each number that is measured: ``()`` for one run, ``(K,)`` for members."""
        ...

    @property
    def config(self) -> Config:
        """The resolved config; of members, that of their group."""
        ...

    @property
    def configs(self) -> Sequence[Config]:
        """The resolved config of each member that is no copy, or of the run."""
        ...

    @property
    def count(self) -> int | None:
        """How many members are no copies, which fill up a chunk; None for a run."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        ...

    def without_copies(self, numbers: Any) -> Any:
        """Return numbers ``[K, ...]`` without those of the copies at their end."""
        ...

    def with_copies(self, numbers: Any) -> Any:
        """Return numbers of the members with those of the copies of the last one at their end."""
        ...

    def of_members(self, state: State) -> State:
        """Return a state whose arrays have the members as their first axis; of a run, the state."""
        ...

    def from_members(self, state: State) -> State:
        """Return the state that ``of_members`` has been made of."""
        ...

    def evaluate(self, state: State, source: DataSource, check: Callable[[], None]) -> dict[str, Any]:
        """Return ``{count, MEASURE, loss}`` over a source; ``check`` is called between batches, and may raise."""
        ...

    def where(self, which: NDArray[np.bool_], new: State, old: State) -> State:
        """Return the new state of each member where ``which`` holds, else its old one."""
        ...

    def replace(self, which: NDArray[np.bool_], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        """Return copies of the new weights where ``which`` holds, else the old ones, whose memory is reused."""
        ...


@dataclasses.dataclass(frozen=True)
class Alone:
    """One run, over the whole mesh of its compiled functions."""

    run: CompiledRun

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a number."""
        return ()

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.run.config

    @property
    def configs(self) -> Sequence[Config]:
        """The resolved config."""
        return [self.run.config]

    @property
    def count(self) -> None:
        """None: a run has no axis of members."""
        return

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.run.steps_per_epoch

    def without_copies(self, numbers: Any) -> Any:
        """Return the numbers."""
        return numbers

    def with_copies(self, numbers: Any) -> Any:
        """Return the numbers."""
        return numbers

    def of_members(self, state: State) -> State:
        """Return the state."""
        return state

    def from_members(self, state: State) -> State:
        """Return the state."""
        return state

    def evaluate(self, state: State, source: DataSource, check: Callable[[], None]) -> dict[str, Any]:
        """Return ``{count, MEASURE, loss}`` over all examples of a source."""
        return self.run.evaluate(state, source, check)

    def where(self, which: NDArray[np.bool_], new: State, old: State) -> State:
        """Return the new state if it is to replace the old one."""
        return new if which else old

    def replace(self, which: NDArray[np.bool_], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        """Return copies of the new weights if they are to replace the old ones."""
        copies: dict[str, Any] = jax.tree.map(jnp.copy, new)
        return copies if which else old


class Together:
    """K members of a compile group, whose arrays have a leading axis of members."""

    def __init__(self, group: CompiledGroup, configs: Sequence[Config], count: int | None = None):
        """Lift members of a group.

        Args:
          group: of the members.
          configs: of the members, as many as the mesh's member axis divides.
          count: how many of them are no copies; by default all.
        """
        self.group, self._configs, self.splits, self.own = group, configs, group.splits, group.own
        self.count: int = len(configs) if count is None else count
        self.seeds = [config.seed for config in configs]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(K,)``, with copies."""
        return (len(self._configs),)

    @property
    def configs(self) -> Sequence[Config]:
        """The resolved config of each member that is no copy."""
        return self._configs[: self.count]

    @property
    def config(self) -> Config:
        """The resolved config of the group."""
        return self.group.config

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.group.steps_per_epoch

    def without_copies(self, numbers: Any) -> Any:
        """Return arrays ``[K, ...]`` without the copies at their end."""
        if self.count == len(self._configs):
            return numbers
        return jax.tree.map(lambda leaf: _on_one_device(leaf)[: self.count], numbers)

    def with_copies(self, numbers: Any) -> Any:
        """Return arrays of the members with copies of the last one at their end."""
        if self.count == len(self._configs):
            return numbers
        rows = np.minimum(np.arange(len(self._configs)), self.count - 1)
        return jax.tree.map(lambda leaf: leaf[rows], numbers)

    def of_members(self, state: State) -> State:
        """Return the states."""
        return state

    def from_members(self, state: State) -> State:
        """Return the states, spread over the devices."""
        states: State = jax.device_put(state, self.group.sharding(P("member")))
        return states

    def feed(self, records: Mapping[int, DataSource], step: int) -> feeds.SeedStreams | feeds.ResidentEpochs:
        """Return the feed after a step, of the training records of each seed."""
        return feeds.of_members(self.group, self.seeds, records, step)

    def init(self) -> State:
        """Return the initial states."""
        states: State = self.group.init(*self._init_arguments())
        return states

    def shapes(self) -> State:
        """Return shapes, dtypes and shardings of the states, as a save is read into."""
        return self.group.shaped(jax.eval_shape(self.group.init, *self._init_arguments()))

    def _init_arguments(self) -> tuple[jax.Array, dict[str, Any]]:
        return jnp.stack([jax.random.key(seed) for seed in self.seeds]), self.group.hparams(self._configs)

    def evaluate(self, state: State, source: DataSource, check: Callable[[], None]) -> dict[str, Any]:
        """Return ``{count, MEASURE, loss}``, ``[K]`` each, over all examples of a source."""
        return self.group.evaluate(state, self.seeds, source, check)

    def where(self, which: NDArray[np.bool_], new: State, old: State) -> State:
        """Return the new states of some members, and the old ones of the others."""
        states: State = self.group.where(jnp.asarray(which), new, old)
        return states

    def replace(self, which: NDArray[np.bool_], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        """Return the new weights of some members, and the old ones of the others, whose memory is reused."""
        weights: dict[str, Any] = self.group.replace(which, new, old)
        return weights


def _on_one_device(array: Any) -> Any:
    """Copy an array to one device: a slice of one that is spread over several would be a program for all of them."""
    return jax.device_put(array, jax.local_devices()[0]) if isinstance(array, jax.Array) else array


class OneMember:
    """The only member of its chunk, by the compiled functions of a run; it has the results of that run to the byte.

    Its state is that of a run, and its numbers have an axis of members.
    """

    shape = (1,)
    count = 1

    def __init__(self, run: CompiledRun, splits: Splits):
        """Lift a run on the devices of this process."""
        self.run, self.splits, self.own = run, splits, run.own
        self.seeds = [run.config.seed]

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.run.config

    @property
    def configs(self) -> Sequence[Config]:
        """The resolved config."""
        return [self.run.config]

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.run.steps_per_epoch

    def without_copies(self, numbers: Any) -> Any:
        """Return the numbers."""
        return numbers

    def with_copies(self, numbers: Any) -> Any:
        """Return the numbers."""
        return numbers

    def of_members(self, state: State) -> State:
        """Return the state with an axis of members."""
        states: State = jax.tree.map(lambda leaf: leaf[None], state)
        return states

    def from_members(self, state: State) -> State:
        """Return the state without its axis of members."""
        of_run: State = jax.tree.map(lambda leaf: leaf[0], state)
        return of_run

    def feed(self, records: Mapping[int, DataSource], step: int) -> feeds.Stream:
        """Return the feed after a step; the records are those of the run."""
        return feeds.Stream(self.run.train_step, self.run.batches(self.config.seed, step), self.run.shard_batch)

    def init(self) -> State:
        """Return the initial state."""
        return self.run.init(jax.random.key(self.config.seed))

    def shapes(self) -> State:
        """Return shapes, dtypes and shardings of the state."""
        return self.run.state_shapes

    def evaluate(self, state: State, source: DataSource, check: Callable[[], None]) -> dict[str, Any]:
        """Return ``{count, MEASURE, loss}``, ``[1]`` each, over all examples of a source."""
        return {name: np.asarray([value]) for name, value in self.run.evaluate(state, source, check).items()}

    def where(self, which: NDArray[np.bool_], new: State, old: State) -> State:
        """Return the new state if it is to replace the old one."""
        return new if which[0] else old

    def replace(self, which: NDArray[np.bool_], new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
        """Return copies of the new weights if they are to replace the old ones."""
        copies: dict[str, Any] = jax.tree.map(jnp.copy, new)
        return copies if which[0] else old
