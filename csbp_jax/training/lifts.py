"""Lifts: one run by its own compiled functions, and members by those of their group."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax.config import Config
from csbp_jax.data import DataSource
from csbp_jax.learner import State
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

    def without_copies(self, arrays: Any) -> Any:
        """Return arrays ``[K, ...]`` without the copies at their end."""
        ...

    def with_copies(self, arrays: Any) -> Any:
        """Return arrays of the members with copies of the last one at their end."""
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

    def without_copies(self, arrays: Any) -> Any:
        """Return the arrays."""
        return arrays

    def with_copies(self, arrays: Any) -> Any:
        """Return the arrays."""
        return arrays

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
        self.group, self._configs = group, configs
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

    def without_copies(self, arrays: Any) -> Any:
        """Return arrays ``[K, ...]`` without the copies at their end."""
        if self.count == len(self._configs):
            return arrays
        return jax.tree.map(lambda leaf: leaf[: self.count], arrays)

    def with_copies(self, arrays: Any) -> Any:
        """Return arrays of the members with copies of the last one at their end."""
        if self.count == len(self._configs):
            return arrays
        rows = np.minimum(np.arange(len(self._configs)), self.count - 1)
        return jax.tree.map(lambda leaf: leaf[rows], arrays)

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
