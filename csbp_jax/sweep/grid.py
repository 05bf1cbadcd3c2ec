"""The configs of a grid's members, and which of them share a compilation."""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from csbp_jax.config import Config, ConfigError, check, flatten, replaced, suggestion
from csbp_jax.reporting.pairs import plain_control
from csbp_jax.sweep.tables import plain
from csbp_jax.training.build import TRACED
from csbp_jax.training.plugins import Own

MAX_VALUES = 100_000
"""Most values of a range FIRST:END in a grid."""

Axes = Mapping[str, Sequence[Any]]
"""``{field: values}``; of fields that vary together, ``{"FIELD FIELD ...": tuples of their values}``."""


class Shard(NamedTuple):
    """One share of a sweep's chunks, which are dealt out in turn: its number, from 0, and the number of shares."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"


_NEURON = {"model.neuron.decay": 0.5, "model.neuron.threshold": 1.0, "model.neuron.surrogate_param": 1.0}

# Fields that members of a sweep cannot vary or use: the only allowed value, and why.
_IMPOSSIBLE = {
    "weights": ("", "whose members start from drawn weights; leave it out"),
    "layout": ("data", "whose devices hold members; leave it at data"),
    "patience": (0, "whose members train in step; leave it at 0"),
}


def words(text: str) -> dict[str, list[str]]:
    """Parse ``"chaos.z0=0,1,3 seed=0:16"`` to ``{"chaos.z0": ["0", "1", "3"], "seed": ["0", ..., "15"]}``.

    Raises:
      ConfigError: a word is not FIELD=VALUE,VALUE,... or a field is given twice.
    """
    axes: dict[str, list[str]] = {}
    for word in text.split():
        field, equals, values = word.partition("=")
        listed = [word for value in values.split(",") for word in _range(value)]
        if not field or not equals or "" in listed:
            raise ConfigError(f"GRID: {word!r} is not possible; write FIELD=VALUE,VALUE or FIELD=FIRST:END (--grid)")
        if field in axes:
            raise ConfigError(f"GRID: {field} is given twice; give all its values at once (--grid)")
        axes[field] = listed
    if not axes:
        raise ConfigError('GRID: empty; write e.g. GRID="chaos.z0=0,1,3 seed=0:8" (--grid)')
    return axes


def control_words(config: Config, text: str) -> dict[str, str]:
    """Parse ``"chaos.term=drift chaos.z0=3"`` to ``{"chaos.term": "drift", "chaos.z0": "3"}``.

    Raises:
      ConfigError: a word is not FIELD=VALUE, a field does not exist, is given twice, or is the seed.
    """
    fields: dict[str, str] = {}
    for word in text.split():
        field, _, value = word.partition("=")
        if not field or not value or "," in value:
            raise ConfigError(f"--control: {word!r} is not possible; write FIELD=VALUE, one value of each field")
        if field not in (known := _fields(config)):
            raise ConfigError(f"--control: there is no field {field}; {suggestion(field, known)}")
        if field == "seed" or field in fields:
            reason = "members are paired by their seeds" if field == "seed" else "it is given twice"
            raise ConfigError(f"--control: {word!r} is not possible, {reason}; leave it out")
        fields[field] = value
    return fields


def shard(text: str) -> Shard:
    """Parse ``"2/8"``: the third of eight shards, which are numbered from 0.

    Raises:
      ConfigError: not INDEX/COUNT with an index below the count.
    """
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--shard: {text!r} is not possible; write INDEX/COUNT, the index from 0 to COUNT - 1")
    return Shard(int(match[1]), int(match[2]))


def _range(value: str) -> list[str]:
    first, colon, end = value.partition(":")
    if colon and re.fullmatch("[0-9]{1,18}", first) and re.fullmatch("[0-9]{1,18}", end):
        if int(end) - int(first) > MAX_VALUES:
            raise ConfigError(f"GRID: {value} has more than {MAX_VALUES:,} values; give fewer (--grid)")
        return [str(n) for n in range(int(first), int(end))] or [""]
    return [value]


def members(config: Config, axes: Axes) -> list[Config]:
    """Return the config of each point of the grid, the last axis fastest.

    A field is one of the config; ``chaos.z0.TAP`` is the strength at one of several taps.

    Raises:
      ConfigError: a field does not exist, a value is impossible, or two members are the same run.
    """
    for field in fields(axes):
        check_field(config, field)
    grid_points = points(axes)
    configs = [check(at(config, point)) for point in grid_points]
    for member in configs:
        for field, (possible, reason) in _IMPOSSIBLE.items():
            if (value := flatten(member)[field]) != possible:
                raise ConfigError(f"{field}: {value} is not possible in a sweep, {reason}")
    # Duplicates would count as independent members, and narrow the interval.
    first: dict[Config, Mapping[str, Any]] = {}
    for member, point in zip(configs, grid_points, strict=True):
        if (duplicate := first.setdefault(member, point)) is not point:
            pair = (" ".join(f"{k}={v}" for k, v in plain(p).items()) for p in (duplicate, point))
            raise ConfigError(f"GRID: {' and '.join(pair)} are the same run; give each value once (--grid)")
    return configs


def controls(configs: Sequence[Config], control: Mapping[str, Any] | None = None) -> list[int | None]:
    """Return the number of each setting's control, None where it has none.

    Args:
      configs: one of each setting's members, of the same seed.
      control: ``{field: value}``: a setting's control is the one that is equal but for these fields. By default, it is
        the one that trains without a chaos term and is otherwise equal.

    Raises:
      ConfigError: ``control`` is given, and no setting has such a control.
    """
    if control is None:
        fields = [flatten(config) for config in configs]
        return [plain_control(number, fields) for number in range(len(fields))]
    numbers = {config: number for number, config in enumerate(configs)}
    wanted = [numbers.get(at(config, control)) for config in configs]
    compared = [None if other == number else other for number, other in enumerate(wanted)]
    if all(other is None for other in compared):
        words = " ".join(f"{k}={v}" for k, v in plain(control).items())
        raise ConfigError(f"--control: {words}: the grid has no such setting beside another; add it to --grid")
    return compared


def check_field(config: Config, field: str) -> None:
    """Raise ConfigError for a field that a grid cannot vary."""
    if field not in (known := _fields(config)):
        raise ConfigError(f"GRID: there is no field {field}; {suggestion(field, known)} (--grid)")
    if field == "deterministic":
        raise ConfigError("GRID: deterministic is the same for all members, as they share a process (--deterministic)")


def _fields(config: Config) -> list[str]:
    return [*flatten(config), *(f"chaos.z0.{tap}" for tap in config.chaos.taps)]


def fields(axes: Axes) -> list[str]:
    """Return the fields that the members of a grid may differ in."""
    return [field for together in axes for field in together.split()]


def points(axes: Axes) -> list[dict[str, Any]]:
    """Return ``{field: value}`` of each member.

    >>> points({"optimizer.lr chaos.z0": [(0.1, 3), (0.2, 0)], "seed": [7]})
    [{'optimizer.lr': 0.1, 'chaos.z0': 3, 'seed': 7}, {'optimizer.lr': 0.2, 'chaos.z0': 0, 'seed': 7}]
    """
    columns = [
        values if len(together.split()) > 1 else [(value,) for value in values] for together, values in axes.items()
    ]
    rows = itertools.product(*columns)
    return [dict(zip(fields(axes), itertools.chain(*row), strict=True)) for row in rows]


def at(config: Config, point: Mapping[str, Any]) -> Config:
    """Return the config at a point, not checked; ``chaos.z0.TAP`` replaces one of several strengths.

    Raises:
      ConfigError: there are more strengths than taps.
    """
    for field, value in point.items():
        value = tuple(value) if isinstance(value, list) else value  # JSON has lists for tuples
        if isinstance(flatten(config).get(field), tuple) and not isinstance(value, tuple):
            value = (value,)
        tap = field.removeprefix("chaos.z0.")
        if tap != field:
            z0 = config.chaos.z0 if len(config.chaos.z0) > 1 else config.chaos.z0 * len(config.chaos.taps)
            if len(z0) != len(config.chaos.taps):
                check(config)  # refuses it
            strengths = dict(zip(config.chaos.taps, z0, strict=True)) | {tap: value}
            config = replaced(config, "chaos.z0", tuple(strengths.values()))
        else:
            config = replaced(config, field, value)
    return config


def compile_group(config: Config, own: Own = Own()) -> Config:
    """Return the compile group of a config: equal for two configs that can train in one compilation."""
    # Traced in the state: members that differ in nothing else share one compilation.
    for field, value in TRACED.items():
        config = replaced(config, field, value)
    if traces_neuron(config, own):
        for field, value in _NEURON.items():
            config = replaced(config, field, value)
    return config


def traces_neuron(config: Config, own: Own = Own()) -> bool:
    """Return whether the neuron's constants can be traced.

    Not if it has parameters of its own, nor with tdBN or MS-ResNet, which take the threshold when the network is built,
    nor with a user's own parts, which may read the neuron from their config.
    """
    model, neuron = config.model, config.model.neuron
    built_with_threshold = model.norm == "tdbn" or model.name in ("ms_resnet18", "ms_resnet34")
    return not own.plugins and neuron.learn == "none" and "psn" not in neuron.name and not built_with_threshold


def compile_groups(configs: Sequence[Config], own: Own = Own()) -> list[list[int]]:
    """Return the members' numbers, grouped by compilation."""
    groups: dict[Config, list[int]] = {}
    for number, config in enumerate(configs):
        groups.setdefault(compile_group(config, own), []).append(number)
    return list(groups.values())
