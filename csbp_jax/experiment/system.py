"""Systems that an experiment trains: the training of a config, or one of the user's own."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.config import Config, ConfigError, flatten, to_json
from csbp_jax.experiment import fields as of_fields
from csbp_jax.experiment import memory, price
from csbp_jax.experiment.chunk import Called, train
from csbp_jax.experiment.fields import Fields
from csbp_jax.experiment.saves import Saves
from csbp_jax.learner import measures
from csbp_jax.runs import published
from csbp_jax.runs.reading import COLUMNS
from csbp_jax.runs.run import plain
from csbp_jax.runtime import files, seals, sharding
from csbp_jax.training import build, run_json
from csbp_jax.training.build import Splits, resolve
from csbp_jax.training.callbacks import Callbacks
from csbp_jax.training.compiled import compile_run
from csbp_jax.training.compiled_group import CompiledGroup, member_mesh, scans
from csbp_jax.training.lifts import OneMember, Together
from csbp_jax.training.plugins import COPY, Own
from csbp_jax.training.run_dir import fingerprint_digest

Measures = Mapping[str, Any]
"""``{name: array [K, ...]}``; the first is what a contrast compares by default, those with more axes are curves."""
Draw = Callable[..., tuple[Any, Any]]
"""``draw(splits, seed, **options) -> (rows [n], labels [n])``: a seed's own training records, and their labels."""

MARK = {"experiment": True}
"""Stored beside the base in ``config.json``."""
DRAW = "draw."
"""What the names of the options of :data:`Draw` begin with, among the fields of a case or an arm."""
CHUNK, CHUNK_OF_CPU, CHUNK_OF_SYSTEM = 32, 24, 1024
"""Members that train at once by default: per device; on a CPU where an epoch is one scan (else one per device); and of
a system of one's own."""


class System(Protocol):
    """A system of one's own, such as a small network with a rule of its own."""

    def group(self, fields: Fields, /) -> Hashable:
        """Return what fields must have in common to share a compilation."""
        ...

    def train(self, group: Any, fields: Sequence[Fields], seeds: Sequence[int], /) -> Measures:
        """Train K runs of one group at once.

        Args:
          group: of their fields.
          fields: of each run.
          seeds: of each run.
        """
        ...


class Group(NamedTuple):
    """A compile group of a config: its placeholder config, and the options of the draw, which may change its size."""

    config: Config
    options: tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The training of a config as a system, with what ``csbp_jax.train`` takes beside it.

    Attributes:
      config: the fields that all runs have in common.
      own: plugin functions, in place of the config's parts.
      data_dir: directory of prepared data sets.
      data_parallel: devices that share each batch; the others hold different members.
      draw: gives each seed training records of its own (:data:`Draw`); by default all seeds have all of them.
    """

    config: Config
    own: Own = Own()
    data_dir: str | pathlib.Path = "data"
    data_parallel: int = 1
    draw: Draw | None = None
    _made: dict[str, tuple[Hashable, Any]] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _varying: dict[Group, frozenset[str]] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _digests: dict[Group, str] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _first: dict[Group, Config] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _fitting: dict[Group, int] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def choose(self) -> str:
        """The measure by which a try is chosen."""
        return f"last_validation_{measures.PRIMARY[self.config.loss.task]}"

    def content(self) -> dict[str, Any]:
        """Return what ``config.json`` stores; ``experiment`` keeps a single run out of the folder."""
        return to_json(self.config) | MARK

    def canonical(self, fields: Fields) -> dict[str, Any]:
        """Return the fields that differ from the config's, and the options of the draw.

        Raises:
          ConfigError: a field or its value is not possible, or an option is given without a draw.
        """
        options = {name: value for name, value in fields.items() if name.startswith(DRAW)}
        if options and self.draw is None:
            raise ConfigError(f"{next(iter(options))}: the experiment has no draw to take it; give one, draw=...")
        base = flatten(self.config)
        config = flatten(of_fields.at(self.config, {n: v for n, v in fields.items() if n not in options}))
        changed = {name: value for name, value in config.items() if value != base[name]}
        return {name: plain(value) for name, value in (changed | options).items()}

    def describe(self, fields: Fields) -> dict[str, Any]:
        """Return all fields of the config at canonical fields, with the options of the draw."""
        config = {name: plain(value) for name, value in flatten(self.config).items()}
        return {name: value for name, value in (config | dict(fields)).items() if name != "seed"}

    def work(self, fields: Fields) -> int:
        """Return the epochs of a run."""
        return int(fields.get("epochs", self.config.epochs))

    def most_spikes(self, fields: Fields) -> int:
        """Return how many spikes a neuron can have in a time step."""
        return self._config(fields).model.neuron.most_spikes

    def group(self, fields: Fields) -> Group:
        """Return the compile group of canonical fields."""
        return Group(of_fields.compile_group(self._config(fields), self.own), tuple(_options(fields).items()))

    def splits(self, fields: Fields) -> Splits:
        """Return the data at canonical fields, of which no seed has drawn yet."""
        return self._load(self._config(fields))[0]

    def prepare(self, settings: Sequence[Fields], seed: int) -> None:
        """Check all settings as their training would: an error in the last could appear after hours of training.

        Args:
          settings: all canonical fields of the experiment.
          seed: one of it.
        """
        if self.data_parallel < 1 or jax.local_device_count() % self.data_parallel:
            raise ConfigError(
                f"--data-parallel: {self.data_parallel} does not divide the {jax.local_device_count()} devices"
            )
        mesh = sharding.data_mesh(jax.local_devices()[:1])
        groups: dict[Group, list[Config]] = {}
        for fields in settings:
            groups.setdefault(self.group(fields), []).append(self._config(fields))
        for group, configs in groups.items():
            splits, fingerprint = self._load(configs[0])
            drawn = dict(splits) | {"train": self._records(splits, seed, group)}
            config = resolve(configs[0], drawn, self.data_parallel)
            steps = data.steps_per_epoch(drawn["train"], config.batch_size, config.data.buckets)
            compile_run(config, drawn["train"], steps, self.own, mesh).trace()
            Callbacks((), config, self.own).close()
            self._varying[group] = of_fields.varying(configs, self.own)
            self._digests[group] = fingerprint_digest(fingerprint)
            self._first[group] = dataclasses.replace(configs[0], seed=seed)

    def size(self, group: Group, chunk: int | None, largest: int) -> int:
        """Return how many members of a group train at once: a multiple of the devices that hold different ones.

        As few as need no more chunks for ``largest``, the most that there are: others would only be copies. Without a
        ``chunk``, as many as fit the devices' memory (:meth:`fit`), where that was asked for.
        """
        axis = jax.local_device_count() // self.data_parallel
        chunk = chunk or self._fitting.get(group) or self._default_chunk(group)
        chunks = -(-largest // chunk)
        return -(-largest // (chunks * axis)) * axis

    def _default_chunk(self, group: Group) -> int:
        """Return how many members train at once where nothing is known of the devices' memory."""
        axis = jax.local_device_count() // self.data_parallel
        if jax.default_backend() != "cpu":
            return CHUNK * axis
        return max(CHUNK_OF_CPU, axis) if scans(group.config, self.own) else axis

    def fit(self, largest: Mapping[Group, int], seeds: int, limit: int, file: pathlib.Path) -> list[str]:
        """Choose for each group as many members as fit the memory of the devices; return lines that say which.

        Results depend on how many train at once, so that a choice is made once, and stored: other processes, and later
        calls, read it. Groups must be prepared.

        Args:
          largest: of each group, the most members that there are.
          seeds: the most different seeds of members that train at once.
          limit: the bytes that members may take on each device.
          file: where choices are stored.

        Raises:
          ConfigError: the file is damaged.
        """
        stored = memory.read(file)
        fits: dict[str, memory.Fit] = {}
        for group, most in largest.items():
            name = self._name(group)
            before = stored.get(name)
            if before is not None and self.size(group, before.chunk, most) <= before.members:
                fits[name] = before
            else:  # the first time; or arms or seeds were added where fewer than a chunk were checked
                start = before.chunk if before else self._default_chunk(group)
                fits[name] = self._fit_group(group, most, seeds, limit, start)
            self._fitting[group] = fits[name].chunk
        if any(stored.get(name) != fit for name, fit in fits.items()):
            memory.write(file, stored | fits)
        return list(dict.fromkeys(line for fit in fits.values() if (line := fit.line())))

    def _fit_group(self, group: Group, largest: int, seeds: int, limit: int, start: int) -> memory.Fit:
        """Choose how many members of a group train at once, from a chunk to start with downwards."""
        members, config = self._first_members(group)
        return memory.fit(
            start,
            default=self._default_chunk(group),
            least=jax.local_device_count() // self.data_parallel,
            size=lambda chunk: self.size(group, chunk, largest),
            needed=lambda count: memory.needed(members, config, count, seeds),
            limit=limit,
        )

    def price(self, group: Group, chunks: int, count: int, seeds: Sequence[int]) -> tuple[price.Range, int | None]:
        """Return the least and the most seconds of a group's training, and the bytes that it needs on each device.

        Args:
          group: a prepared one.
          chunks: how often its members train.
          count: how many train at once.
          seeds: of these.
        """
        members, config = self._first_members(group)
        times = price.measure(members, config, count, seeds)
        needed = memory.needed(members, config, count, len(set(seeds)))
        return price.seconds(times, price.load(members, config, chunks)), needed

    def _first_members(self, group: Group) -> tuple[CompiledGroup, Config]:
        """Return the compiled functions of a prepared group, and the resolved config of one of its members."""
        first = self._first[group]
        splits, _ = self._load(first)
        drawn = dict(splits) | {"train": self._records(splits, first.seed, group)}
        config = resolve(first, drawn, self.data_parallel)
        return self._compiled(group, config, drawn), config

    def _name(self, group: Group) -> str:
        """Return a name of a group that is the same in all processes."""
        content = to_json(group.config), dict(group.options)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def how(self, group: Group) -> dict[str, Any]:
        """Return what runs that are stored depend on beside their fields and the versions of packages."""
        how = {
            "data": self._digests[group],
            "devices a batch": self.data_parallel,
            "device": jax.local_devices()[0].device_kind,
        }
        # Convolutions have other forms on a single one.
        return how | ({"one device": jax.local_device_count() == 1} if jax.default_backend() == "cpu" else {})

    def train(
        self,
        group: Group,
        fields: Sequence[Fields],
        seeds: Sequence[int],
        show: Callable[[int], None] = lambda epochs: None,
        folders: Sequence[pathlib.Path] = (),
        saves: Saves | None = None,
        called: Called | None = None,
    ) -> Measures:
        """Train members of one group.

        Args:
          group: of their fields.
          fields, seeds: of each.
          show: called with the number of ended epochs after each.
          folders: where the weights of the first members are saved, as runs/published.py describes.
          saves: where the training goes on from, and where it is saved after an epoch; by default nowhere.
          called: the callbacks; by default those of a plugin file.
        """
        configs = [dataclasses.replace(self._config(f), seed=seed) for f, seed in zip(fields, seeds, strict=True)]
        splits, _ = self._load(configs[0])
        records = {seed: self._records(splits, seed, group) for seed in dict.fromkeys(seeds)}
        drawn = dict(splits) | {"train": records[seeds[0]]}
        resolved = [resolve(config, drawn, self.data_parallel) for config in configs]
        counts = {len(of_seed) for of_seed in records.values()}
        if len(counts) > 1:
            raise ConfigError(
                f"draw: gives {' and '.join(map(str, sorted(counts)))} records for seeds that train at once; give all "
                "as many, as they have the same steps"
            )
        lift: Together | OneMember
        if self._is_like_a_run(group, len(configs)):
            mesh = sharding.data_mesh(jax.local_devices())
            steps = data.steps_per_epoch(drawn["train"], resolved[0].batch_size, resolved[0].data.buckets)
            lift = OneMember(compile_run(resolved[0], drawn["train"], steps, self.own, mesh), drawn)
        else:
            count = None if called is None else called.count
            lift = Together(self._compiled(group, resolved[0], drawn), resolved, count)

        def save(weights: Any, epochs: NDArray[Any]) -> None:
            for number, folder in enumerate(folders):
                content = {"schema": run_json.SCHEMA, "config": to_json(resolved[number]), "data": self._digests[group]}
                content |= {"weights_of": "last", "epoch": int(epochs[number])}
                content |= {"own": self.own.metadata()} if self.own.plugins else {}
                folder.mkdir(parents=True, exist_ok=True)
                if self.own.code:
                    files.write_bytes(folder / COPY, self.own.code)
                of_member = jax.tree.map(lambda leaf, at=number: leaf[at], weights)
                published.write_variables(of_member, {}, folder / published.WEIGHTS)
                seals.write_json(folder / published.CONFIG, content)

        return train(lift, records, show, save, saves, called)

    def _is_like_a_run(self, group: Group, count: int) -> bool:
        """Return whether members train by the programs of a run: one at a time, on all devices.

        Not where it would compile others: for each value of a field that the programs of a group take as an argument,
        and for each seed that draws its own records.
        """
        is_alone = count == 1 and jax.local_device_count() == self.data_parallel and jax.process_count() == 1
        return is_alone and not self._varying[group] and self.draw is None

    def _config(self, fields: Fields) -> Config:
        return of_fields.at(self.config, {n: v for n, v in fields.items() if not n.startswith(DRAW)})

    def _compiled(self, group: Group, config: Config, splits: Splits) -> CompiledGroup:
        """Return the compiled functions of a group, made from the resolved config and the data of a member."""
        # Seeds that train apart may draw other numbers of records, and then have other steps.
        key, mesh, varying = (group, len(splits["train"])), member_mesh(self.data_parallel), self._varying[group]
        return self._last("members", key, lambda: CompiledGroup(config, splits, mesh, self.own, varying))

    def _records(self, splits: Splits, seed: int, group: Group) -> data.DataSource:
        if self.draw is None:
            return splits["train"]
        if splits["train"].lengths is not None:
            raise ConfigError("draw: not possible of records of several lengths, as seeds would have other steps")
        rows, labels = self.draw(splits, seed, **dict(group.options))
        return data.Drawn(splits["train"], np.asarray(rows), np.asarray(labels))

    def _load(self, config: Config) -> tuple[Splits, str]:
        # A function of the user's own may read all but what is traced; others read these.
        group, model = of_fields.compile_group(config, self.own), config.model
        fields = (group,) if self.own.data else (config.data, model.time_steps, model.classes)
        traced = (*build.TRACED, *of_fields.traceable(config, self.own))
        return self._last("data", fields, lambda: build.load_data(config, self.own, self.data_dir, traced))

    def _last(self, kind: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what was made last of a kind if the key is the same: neither data nor programs of two groups stay."""
        if self._made.get(kind, (None,))[0] != key:
            self._made[kind] = (key, make())
        return self._made[kind][1]


def _options(fields: Fields) -> dict[str, Any]:
    return {name.removeprefix(DRAW): value for name, value in fields.items() if name.startswith(DRAW)}


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
    """A system of one's own, with the members of :class:`Training` that an experiment needs."""

    base: System

    own = Own()
    choose = ""

    def content(self) -> dict[str, Any]:
        """Return what ``config.json`` stores: the class, and its fields if it is a dataclass."""
        kind, fields = type(self.base), dict[str, Any]()
        if dataclasses.is_dataclass(kind):
            fields = {field.name: getattr(self.base, field.name) for field in dataclasses.fields(kind)}
        content = {"system": f"{kind.__module__}.{kind.__qualname__}", **fields, "seed": 0, **MARK}
        return json.loads(json.dumps(content, default=str))

    def canonical(self, fields: Fields) -> dict[str, Any]:
        """Return the fields with plain values.

        Raises:
          ConfigError: a field has the name of a column of the table, in which it would stand in that column's place.
        """
        if columns := [name for name in COLUMNS if name in fields]:
            raise ConfigError(f"{columns[0]}: a column of the table of runs has this name; give the field another one")
        return {name: plain(value) for name, value in fields.items()}

    def describe(self, fields: Fields) -> dict[str, Any]:
        """Return the fields."""
        return dict(fields)

    def work(self, fields: Fields) -> int:
        """Return the work of a run in units of a run."""
        return 1

    def most_spikes(self, fields: Fields) -> int:
        """Return how many spikes a neuron can have in a time step, should curves be named as firing rates."""
        return 1

    def group(self, fields: Fields) -> Hashable:
        """Return the compile group of fields."""
        return self.base.group(fields)

    def splits(self, fields: Fields) -> Splits:
        """Return no data: those of a system of one's own are its own."""
        return {}

    def prepare(self, settings: Sequence[Fields], seed: int) -> None:
        """Check nothing."""

    def size(self, group: Hashable, chunk: int | None, largest: int) -> int:
        """Return how many members train at once."""
        return -(-largest // -(-largest // (chunk or CHUNK_OF_SYSTEM)))

    def fit(self, largest: Mapping[Any, int], seeds: int, limit: int, file: pathlib.Path) -> list[str]:
        """Leave the number of members as it is, for the system alone knows their memory."""
        return []

    def how(self, group: Hashable) -> dict[str, Any]:
        """Return what stored runs depend on."""
        return {"device": jax.local_devices()[0].device_kind}

    def train(
        self,
        group: Any,
        fields: Sequence[Fields],
        seeds: Sequence[int],
        show: Callable[[int], None],
        folders: Sequence[pathlib.Path] = (),
        saves: Saves | None = None,
        called: Called | None = None,
    ) -> Measures:
        """Train members of one group, whose weights only the system has, and which it cannot save before their end.

        Raises:
          ValueError: there are callbacks, which only the training of a config calls.
        """
        if called is not None and called.given:
            raise ValueError("callbacks: a system of one's own calls none; only the training of a config does")
        measures = self.base.train(group, fields, seeds)
        show(1)
        return measures
