"""How many members fit the memory of a device: by XLA's counts of the compiled programs, before anything trains."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from csbp_jax import data, learner
from csbp_jax.config import Config, ConfigError, lacks_memory
from csbp_jax.runtime import seals
from csbp_jax.training import run_json
from csbp_jax.training.compiled_group import CompiledGroup

FILE = "chunks.json"
"""Stores the choices, in the folder of an experiment."""
SHARE = 0.8
"""Share of a device's memory that members may take. XLA's counts leave out what is in flight, and fragments."""


class Fit(NamedTuple):
    """How many members train at once, and why.

    Attributes:
      chunk: the most members that train at once.
      members: for how many it was checked; fewer than ``chunk`` where an experiment has fewer.
      default: the chunk where memory does not limit it.
      needed: bytes that ``members`` need on each device; None if they cannot even be compiled for it.
      limit: bytes that they may take on each device.
    """

    chunk: int
    members: int
    default: int
    needed: int | None
    limit: int

    @property
    def fits(self) -> bool:
        """Whether the members need no more than they may take."""
        return self.needed is not None and self.needed <= self.limit

    def line(self) -> str:
        """Say which chunk was chosen in place of the default, or that none fits; empty if it is the default."""
        needed = "too much" if self.needed is None else f"{self.needed / 1e9:.3g} GB"
        limit = f"{self.limit / 1e9:.3g} GB, {100 * SHARE:.0f} % of a device's memory"
        if not self.fits:
            return (
                f"note: the fewest runs that can train at once, {self.members}, may run out of memory: they need "
                f"{needed} of {limit}; give a smaller batch_size or eval_batch_size, or see docs/scale.md#memory"
            )
        if self.chunk < self.default:
            return (
                f"note: at most {self.chunk} runs train at once, as {self.default} would not fit the memory; "
                f"{self.members} need {needed} of {limit}; --chunk (chunk=) sets another number"
            )
        return ""


def limit() -> int | None:
    """Return the bytes that members may take on each device of this process; None on a CPU.

    None, too, if a device does not say how much memory it has.
    """
    if jax.default_backend() == "cpu":
        return None
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in jax.local_devices()]
    known = [of_device for of_device in limits if of_device]
    return int(SHARE * min(known)) if known else None


def fit(
    start: int, default: int, least: int, size: Callable[[int], int], needed: Callable[[int], int | None], limit: int
) -> Fit:
    """Halve a chunk until its members need at most ``limit`` bytes on each device.

    Args:
      start: the first chunk that is tried.
      default: the chunk of a device whose memory has no end.
      least: the smallest chunk, a member on each device.
      size: of a chunk, how many members then train at once.
      needed: of members that train at once, the bytes on each device; None if they do not even compile for it.
      limit: the most bytes on each device.
    """
    chunk = start
    choice = Fit(chunk, size(chunk), default, needed(size(chunk)), limit)
    while not choice.fits and choice.members > least:
        chunk = max(chunk // 2, least)
        if (members := size(chunk)) < choice.members:  # a smaller chunk may leave as many at once
            choice = Fit(chunk, members, default, needed(members), limit)
    return choice


def read(file: pathlib.Path) -> dict[str, Fit]:
    """Read the stored choices, by the names of their groups; none if the file is missing.

    Raises:
      ConfigError: it is damaged.
    """
    if not file.exists():
        return {}
    remedy = "delete it, and the number of runs that train at once is chosen again, which may change results"
    content = run_json.read_json(file, _are_fits, remedy)
    return {name: Fit(**fit) for name, fit in content.items()}


def write(file: pathlib.Path, fits: Mapping[str, Fit]) -> None:
    """Store choices."""
    seals.write_json(file, {name: fit._asdict() for name, fit in fits.items()})


def merge(file: pathlib.Path, others: Sequence[pathlib.Path]) -> None:
    """Store the choices of other files beside those of a file, which win.

    Raises:
      ConfigError: a file is damaged.
    """
    before = read(file)
    fits = dict(before)
    for other in others:
        fits = read(other) | fits
    if fits != before:
        write(file, fits)


def _are_fits(content: dict[str, Any]) -> bool:
    return all(map(_is_fit, content.values()))


def _is_fit(fit: Any) -> bool:
    numbers = dict.fromkeys(Fit._fields, int)
    if not isinstance(fit, dict) or fit.keys() != numbers.keys():
        return False
    of_any = {name: 1 if name == "needed" and value is None else value for name, value in fit.items()}
    return run_json.fits(of_any, numbers) and min(of_any.values()) > 0


@contextlib.contextmanager
def used_up_in_one_line() -> Iterator[None]:
    """Turn an error that says that memory is used up into one line that names the option.

    Raises:
      ConfigError: "out of memory (cause); ...".
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or not lacks_memory(error):
            raise
        cause = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ConfigError(
            f"out of memory ({cause}); train fewer runs at once, by a smaller --chunk (chunk=), or give a smaller "
            "batch_size or eval_batch_size, or see docs/scale.md#memory"
        ) from error


def needed(members: CompiledGroup, config: Config, count: int, seeds: int) -> int | None:
    """Return the bytes that ``count`` members need on each device while they train; None if too many to compile.

    These are the arguments, outputs and temporary arrays of an epoch's program (or a step's) or of the evaluation's,
    whichever needs more, less the outputs that take the memory of arguments; and beside them the data that stay on the
    device, the weights of the chosen epoch, and with ``patience`` the states as they were when members stopped.

    Args:
      members: compiled for their group.
      config: of one of them, resolved.
      count: how many train at once.
      seeds: the most different seeds that they have, each with batches of its own.
    """
    states, keys = state_shapes(members, config, count)
    share = members.mesh.shape["member"]
    selection, copy = (_bytes(tree) // share for tree in (learner.weights_of(states), states))
    beside = selection + (copy if members.config.patience else 0)
    try:
        needs = [
            _program_bytes(program, arguments) + _bytes(resident)
            for program, arguments, resident in programs(members, states, keys, min(seeds, count))
        ]
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if lacks_memory(error):  # XLA for TPUs plans the memory when it compiles
            return None
        raise
    return beside + max(needs)


def state_shapes(members: CompiledGroup, config: Config, count: int) -> tuple[Any, jax.Array]:
    """Return the shapes of the states of ``count`` members, and their keys."""
    keys = jnp.stack([jax.random.key(0)] * count)
    return members.shaped(jax.eval_shape(members.init, keys, members.hparams([config] * count))), keys


def programs(
    members: CompiledGroup, states: Any, keys: jax.Array, seeds: int
) -> list[tuple[Any, tuple[Any, ...], Any]]:
    """Return the programs of training and of evaluation, each with its arguments, and the data beside these.

    Args:
      members: compiled for their group.
      states: the shapes of their states, as :func:`state_shapes` returns them with ``keys``.
      keys: of the members.
      seeds: the number of different seeds, each with batches of its own.
    """
    count, size, steps = len(keys), members.config.batch_size, members.steps_per_epoch
    evaluations = len(data.eval_order(members.splits["validation"], members.eval_size, members.ends)[0])
    eval_keys = jax.eval_shape(lambda keys: jax.vmap(lambda key: jax.random.split(key, evaluations))(keys), keys)
    if resident := members.resident:
        split = P("member", None, "data")
        order = {
            "rows": _shape(members, (count, steps, size), np.int32, split),
            "y": _shape(members, (count, steps, size, *resident.y.shape[1:]), resident.y.dtype, split),
        }
        blocks = dict(resident.blocks)
        validation = blocks.pop("validation")
        return [
            (members.epoch, (states, order, resident.x), resident.blocks),
            (members.evaluation, (states, eval_keys, validation), (resident.x, blocks)),
        ]
    example = _longest_example(members)
    batch = {
        name: _shape(members, (seeds, size, *rows.shape[1:]), rows.dtype, P(None, "data"))
        for name, rows in example.items()
    }
    evaluated = {
        name: _shape(members, (members.eval_size, *rows.shape[1:]), rows.dtype, P("data"))
        for name, rows in {**example, "mask": np.ones(1, bool)}.items()
    }
    streams = jax.ShapeDtypeStruct((count,), jnp.zeros(0, int).dtype)
    of_batch = jax.ShapeDtypeStruct((count,), keys.dtype)
    return [
        (members.step, (states, streams, batch), ()),
        (members.eval_step, (states, of_batch, evaluated), ()),
    ]


def _longest_example(members: CompiledGroup) -> dict[str, NDArray[Any]]:
    """Return a padded batch of one training record, the longest."""
    source, first = members.original, np.zeros(1, int)
    longest = first if source.lengths is None else np.array([np.argmax(source.lengths)])
    return members.buckets.padded(source.take(longest, np.zeros((1, source.num_uniforms), np.float32)), longest, first)


def _shape(members: CompiledGroup, shape: Sequence[int], dtype: Any, spec: P) -> jax.ShapeDtypeStruct:
    """Return the shape of an array that :meth:`CompiledGroup.place` would place."""
    return jax.ShapeDtypeStruct(tuple(shape), jax.dtypes.canonicalize_dtype(dtype), sharding=members.sharding(spec))


def _program_bytes(program: Any, arguments: tuple[Any, ...]) -> int:
    """Return the bytes that a program takes on each device, by XLA's count once it is compiled."""
    analysis = program.lower(*arguments).compile().memory_analysis()
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(held + analysis.temp_size_in_bytes)


def _bytes(tree: Any) -> int:
    """Return the bytes of all arrays of a tree; of a key, those of its numbers."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
