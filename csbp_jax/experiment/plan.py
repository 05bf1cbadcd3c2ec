"""The plan of an experiment: cells with their tries and seeds, cut into chunks that train at once."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from csbp_jax.experiment.fields import Fields
from csbp_jax.experiment.store import Block
from csbp_jax.experiment.system import Adapted, Training

Tuned = Mapping[str, Sequence[Any]] | Sequence[Fields] | Callable[[np.random.Generator], Fields]
"""A grid ``{field: values}``, of which all combinations are tried; or the tries, ``[fields, ...]``; or a joint draw,
``tuned(generator) -> fields``."""


Adapt = Callable[[dict[str, Any], Any], Fields]


@dataclasses.dataclass(frozen=True)
class Arm:
    """Changes of an arm, and what it alone tunes.

    Attributes:
      changes: fields that win over tuned values.
      tuned: what this arm tunes beside what all arms do.
      adapt: ``adapt(fields, splits) -> fields``, for units: from flips to z0, say. It sees all fields of a try, also
        those of the config, and its data.
    """

    changes: Fields = dataclasses.field(default_factory=dict)
    tuned: Tuned | None = None
    adapt: Adapt | None = None


class Cell(NamedTuple):
    """An arm on a case in a draw of settings.

    tries: keys of the settings that it tries, in :attr:`Plan.settings`; the seeds ``tuning_seeds`` choose one of them,
    ``seeds`` test it. A single one is not tuned.
    """

    case: str
    arm: str
    draw: int
    tries: tuple[str, ...]
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """All that an experiment trains.

    Attributes:
      system: trains it.
      settings: the canonical fields of each setting, by their key.
      cells: of the experiment.
      chunk: members that train at once; by default the system's.
    """

    system: Training | Adapted
    settings: Mapping[str, dict[str, Any]]
    cells: Sequence[Cell]
    chunk: int | None = None

    def notes(self) -> Iterator[str]:
        """Yield a line if arms have different numbers of different settings, and one for each two arms that are equal.

        An arm has fewer settings than tries where, say, its strength is off in several.
        """
        counts = {cell.arm: len(set(cell.tries)) for cell in self.cells}
        if len(set(counts.values())) > 1:
            text = ", ".join(f"{arm} {count}" for arm, count in counts.items())
            yield f"note: different settings among the tries: {text}; a fair comparison gives each arm as many"
        tries_of_arms: dict[str, list[tuple[str, ...]]] = {}
        for cell in self.cells:
            tries_of_arms.setdefault(cell.arm, []).append(cell.tries)
        for (first, tries), (second, others) in itertools.combinations(tries_of_arms.items(), 2):
            if tries == others:
                yield f"note: arms {first} and {second} have the same fields, and so the same runs"

    def units(self) -> list[Cell | tuple[Block, ...]]:
        """Return what shards are dealt: a chunk of runs that train at once, or a cell with its choice and its tests.

        Cells of one compile group follow each other, as the program of the last one alone is kept.
        """
        order = {group: number for number, group in enumerate(self.sizes)}
        direct = [Block(cell.tries[0], cell.seeds) for cell in self.cells if len(cell.tries) == 1]
        tuned = [cell for cell in self.cells if len(cell.tries) > 1]
        tuned.sort(key=lambda cell: max(order[self.groups[setting]] for setting in cell.tries))
        return [*self.chunks(direct), *tuned]

    def chunks(self, blocks: Sequence[Block]) -> list[tuple[Block, ...]]:
        """Cut blocks into chunks, by which neither a stop nor the number of shards changes who trains together."""
        chunks: list[list[Block]] = []
        for group, size in self.sizes.items():
            room = 0
            for block in dict.fromkeys(block for block in blocks if self.groups[block.key] == group):
                for first in range(0, len(block.seeds), size):
                    piece = block._replace(seeds=block.seeds[first : first + size])
                    if len(piece.seeds) > room:
                        chunks.append([])
                        room = size
                    chunks[-1].append(piece)
                    room -= len(piece.seeds)
        return [tuple(chunk) for chunk in chunks]

    @functools.cached_property
    def groups(self) -> dict[str, Any]:
        """The compile group of each setting."""
        return {setting: self.system.group(fields) for setting, fields in self.settings.items()}

    @functools.cached_property
    def sizes(self) -> dict[Any, int]:
        """How many members of each group train at once: as many in all of its chunks, so that one compilation serves
        them."""
        return {group: self.system.size(group, self.chunk, most) for group, most in self.largest.items()}

    @functools.cached_property
    def largest(self) -> dict[Any, int]:
        """The most members of each group that could train at once."""
        tests, largest = dict.fromkeys(self.groups.values(), 0), dict.fromkeys(self.groups.values(), 0)
        for cell in self.cells:
            of_tries = [self.groups[setting] for setting in cell.tries]
            for group in of_tries:
                if len(of_tries) == 1:
                    tests[group] += len(cell.seeds)
                tuning = of_tries.count(group) * len(cell.tuning_seeds) if len(of_tries) > 1 else 0
                largest[group] = max(largest[group], tuning, tests[group], len(cell.seeds))
        return largest


def settings_of(tuned: Tuned | None, tries: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    """Return the fields of each try, of which only a draw takes the number ``tries``."""
    if tuned is None:
        return [{}]
    if callable(tuned):
        return [dict(tuned(generator)) for _ in range(tries)]
    if isinstance(tuned, Mapping):
        return [dict(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())]
    return [dict(fields) for fields in tuned]
