"""Training of all members of a grid, with one compilation per compile group, and tables of their results.

A sweep writes these files:

sweeps/NAME/config.json      the config, the grid, versions
sweeps/NAME/chunks/*.json    results of each chunk of members; a resumed sweep does not train them again
sweeps/NAME/shards/I-of-N/   chunks of one process of several, see run_shard
sweeps/NAME/members.csv, epochs.csv, settings.csv, figures/
"""

import contextlib
import functools
import hashlib
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from csbp_jax.config import Config, ConfigError, to_json
from csbp_jax.reporting import plots_sweep, terminal
from csbp_jax.reporting.format import fields_text, value_text
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime import files, sharding
from csbp_jax.sweep import chunks, grid, tables
from csbp_jax.sweep.tables import Setting
from csbp_jax.sweep.vectorised import VectorisedRuns, member_mesh, trace_step, train
from csbp_jax.training import build, run_dir
from csbp_jax.training.compiled import Splits, resolve
from csbp_jax.training.health import failed_layers
from csbp_jax.training.plugins import Own, plugin_run_name

Load = Callable[[Config], tuple[Splits, str]]
"""``load(config) -> (splits, fingerprint)``, as :func:`csbp_jax.training.build.load_data`."""


class Comparison(NamedTuple):
    """How the settings of a sweep are compared.

    control: ``{field: value}``: each setting is compared with the one that is equal but for these fields; by default,
    with the one that trains without a chaos term (``chaos.z0`` 0) and is otherwise equal.
    margin: largest difference without importance, in percentage points; None for no verdicts.
    """

    control: Mapping[str, Any] | None = None
    margin: float | None = None


def run(
    config: Config,
    axes: grid.Axes,
    *,
    name: str | None = None,
    fresh: bool = False,
    root: str | pathlib.Path = "sweeps",
    data_dir: str | pathlib.Path = "data",
    chunk: int | None = None,
    data_parallel: int = 1,
    own: Own = Own(),
    comparison: Comparison = Comparison(),
    console: Console | None = None,
) -> list[Setting]:
    """Train all members of a grid that have no result yet, and tabulate the results of all.

    Args:
      config: the fields that the members have in common.
      axes: ``{field: values}``; a field of the config, or ``chaos.z0.TAP``. The members are all combinations.
      name: the sweep's folder under ``root``; by default the data set and a hash of config and grid.
      fresh: rename an old sweep of this name and start from scratch.
      root: directory of all sweeps.
      data_dir: directory of prepared data sets.
      chunk: number of members that train at once; by default one per device on CPU, and 32 per device elsewhere. No
        more than the largest number of members that share a compilation.
      data_parallel: number of devices that share each batch; other devices train other members.
      own: plugin functions, in place of the config's parts. If they are not from a file, ``name`` is required.
      comparison: how the settings are compared; it does not change what is trained.
      console: where progress is shown; the terminal by default.

    Returns:
      The settings, each of which pools the members that differ only in their seed.

    Raises:
      ConfigError: a field does not exist, a value or the name is impossible, the grid lacks the named control, or the
        folder or a shard in it holds another sweep, or one of other data or own code, or one that was started with
        other chunks or devices, or another process trains it or a shard of it, also if ``fresh``.
    """
    console = make_console() if console is None else console
    load = _loader(own, data_dir)
    prepared = _prepare(config, axes, name, own, chunk, data_parallel, load)
    configs, points = prepared.configs, [tables.plain(point) for point in grid.points(axes)]
    controls = grid.controls([configs[group[0]] for group in tables.grouped(points).values()], comparison.control)
    if not fresh:
        chunks.check_shards(pathlib.Path(root) / prepared.name, prepared.content(own))
    opened = (prepared.metadata, prepared.name, fresh, console, prepared.fingerprint)
    with run_dir.open_run(pathlib.Path(root), *opened, own=own) as folder:
        with contextlib.ExitStack() as locks:
            for shard in chunks.shard_folders(folder):  # refuses while one is being trained
                locks.enter_context(run_dir.locked(shard))
            _train_missing(prepared, own, folder, load, console, grid.Shard(0, 1))
        results = chunks.read_results(folder, len(configs))
        rows = tables.member_rows(points, results)
        settings = tables.settings(points, rows, controls, comparison.margin)
        tables.write_csv(folder / "members.csv", rows)
        tables.write_csv(folder / "epochs.csv", tables.epoch_rows(points, results))
        summary = [tables.flat(setting) for setting in settings]
        tables.write_csv(folder / "settings.csv", summary)
        fields = [field for field in grid.fields(axes) if field != "seed"]
        plots_sweep.draw_sweep(folder, fields, summary, comparison.margin)
        _print_settings(console, folder, settings, comparison)
        if line := _failed_layers_line(configs, results):
            console.print(line, soft_wrap=True)
    return settings


def run_shard(
    config: Config,
    axes: grid.Axes,
    shard: grid.Shard,
    *,
    name: str | None = None,
    fresh: bool = False,
    root: str | pathlib.Path = "sweeps",
    data_dir: str | pathlib.Path = "data",
    chunk: int | None = None,
    data_parallel: int = 1,
    own: Own = Own(),
    console: Console | None = None,
) -> pathlib.Path:
    """Train every ``shard.of``-th chunk of a sweep, into ``sweeps/NAME/shards/INDEX-of-COUNT``.

    Shards share nothing but the data, so that each may run on a machine of its own, at any time, and resumes alone.
    :func:`run` with the same arguments, but without ``fresh``, then reads the results of all shards, trains what they
    lack, and writes the tables, which do not depend on the number of shards.

    Args:
      shard: which of the shares. The others are those of :func:`run`.

    Returns:
      The shard's folder.

    Raises:
      ConfigError: as in :func:`run`, or members of another shard trained in other chunks.
    """
    console = make_console() if console is None else console
    load = _loader(own, data_dir)
    prepared = _prepare(config, axes, name, own, chunk, data_parallel, load)
    folder = pathlib.Path(root) / prepared.name
    chunks.check_folder(folder, prepared.content(own))
    files.check_links(folder, chunks.SHARDS, f"{chunks.SHARDS}/{shard}")
    if not fresh:
        chunks.check_shards(folder, prepared.content(own))
        chunks.check_dealt(folder, [members for _, members in prepared.chunks()])
    opened = (prepared.metadata, str(shard), fresh, console, prepared.fingerprint)
    with run_dir.open_run(folder / chunks.SHARDS, *opened, own=own) as shard_folder:
        _train_missing(prepared, own, shard_folder, load, console, shard)
    without = "--shard and --fresh" if fresh else "--shard"  # --fresh would set the shards aside
    console.print(
        f"shard {shard.number} of {shard.of} (0 to {shard.of - 1}) is finished; after all of them, the same "
        f"command without {without} writes the tables",
        soft_wrap=True,
    )
    return shard_folder


class _Prepared(NamedTuple):
    """A sweep that has been checked.

    groups: the numbers of its members, by compile group. metadata: ``config`` of its ``config.json``.
    """

    configs: list[Config]
    groups: list[list[int]]
    layout: "_Layout"
    metadata: dict[str, Any]
    name: str
    fingerprint: str

    def content(self, own: Own) -> dict[str, Any]:
        """Return what a ``config.json`` stores of this sweep."""
        data = run_dir.fingerprint_digest(self.fingerprint)
        return {"config": self.metadata, "data": data, "own": own.metadata()}

    def chunks(self) -> list[tuple[int, list[int]]]:
        """Return the members' numbers of each chunk, with the number of its compile group.

        These are chunks of all members, so that neither a stop nor the number of shards changes who trains together.
        """
        size = self.layout.size
        return [(g, group[i : i + size]) for g, group in enumerate(self.groups) for i in range(0, len(group), size)]


def _loader(own: Own, data_dir: str | pathlib.Path) -> Load:
    """Return ``load(config)``, which keeps the last data, so that those of a single compile group are loaded once."""
    return functools.lru_cache(maxsize=1)(lambda config: build.load_data(config, own, data_dir))


def _prepare(
    config: Config, axes: grid.Axes, name: str | None, own: Own, chunk: int | None, data_parallel: int, load: Load
) -> _Prepared:
    configs = grid.members(config, axes)
    metadata = to_json(config) | {
        "grid": json.loads(json.dumps({field: list(values) for field, values in axes.items()}))
    }
    name = _name(config, own, metadata) if name is None else name
    run_dir.check_name(name)  # open_run would check that of a shard alone
    groups = grid.compile_groups(configs, own)
    layout = _Layout(chunk, data_parallel, max(map(len, groups)))
    # Check all groups before anything is written: an error in the last would appear after hours of training.
    fingerprints = [_check_group(configs[group[0]], own, layout, load) for group in groups]
    return _Prepared(configs, groups, layout, metadata, name, "\n".join(dict.fromkeys(fingerprints)))


def _check_group(config: Config, own: Own, layout: "_Layout", load: Load) -> str:
    """Check a compile group as its training would, and return the fingerprint of its data."""
    splits, fingerprint = load(config)
    trace_step(resolve(config, splits, layout.mesh.shape["data"]), splits, own)
    return fingerprint


class _Layout:
    """Layout of members over devices, on which the order of summation depends.

    Attributes:
      size: number of members that train at once, a multiple of the number of devices that hold different members.
    """

    def __init__(self, chunk: int | None, data_parallel: int, largest_group: int):
        if data_parallel < 1 or jax.device_count() % data_parallel:
            raise ConfigError(f"--data-parallel: {data_parallel} does not divide the {jax.device_count()} devices")
        self.mesh: Mesh = member_mesh(data_parallel)
        axis = self.mesh.shape["member"]
        size = chunk or axis * (1 if jax.default_backend() == "cpu" else 32)
        # More than the largest compile group would only be copies.
        self.size = sharding.rounded_up(min(size, largest_group), axis)

    def as_json(self) -> dict[str, Any]:
        layout: dict[str, Any] = {
            "members a device": self.size // self.mesh.shape["member"],
            "devices a batch": self.mesh.shape["data"],
            "device": jax.devices()[0].device_kind,
        }
        if jax.default_backend() == "cpu":
            layout["one device"] = jax.device_count() == 1  # convolutions then have other forms
        return layout

    def check_unchanged(self, folder: pathlib.Path, count: int) -> None:
        """Raise ConfigError if finished members of the folder were trained with another layout, as far as they say."""
        now = self.as_json()
        for file in chunks.chunk_files(folder):
            before = chunks.read_chunk(file, count).get("how", now)
            for key, value in now.items():
                if before.get(key, value) != value:
                    raise ConfigError(
                        f"{folder}: {key}: {before[key]} in finished members, {value} now, which rounds otherwise "
                        "and shows in a chaotic run; go on as the sweep began (--chunk, --data-parallel, the same "
                        "machine, devices and version of csbp_jax), or start from scratch with FRESH=1 (--fresh)"
                    )


def _train_missing(
    prepared: _Prepared, own: Own, folder: pathlib.Path, load: Load, console: Console, shard: grid.Shard
) -> None:
    """Train the members of a shard's chunks that have no result yet."""
    configs, groups, layout = prepared.configs, prepared.groups, prepared.layout
    (folder / "chunks").mkdir(exist_ok=True)
    results = chunks.read_results(folder, len(configs))
    of_shard = prepared.chunks()[shard.number :: shard.of]
    left = [(g, [number for number in members if results[number] is None]) for g, members in of_shard]
    left = [(g, members) for g, members in left if members]
    if left:
        layout.check_unchanged(folder, len(configs))
    total = sum(configs[number].epochs for _, members in left for number in members)
    compilations = len({g for g, _ in of_shard})
    count, missing = (sum(len(members) for _, members in listed) for listed in (of_shard, left))
    groups_text = "1 compilation" if compilations == 1 else f"{compilations} compilations"
    console.print(f"{folder}: {count} members in {groups_text}, {missing} to train")
    with terminal.logged_progress(console, max(total, 1)) as show, chunks.writer(console.print) as write:
        done = 0
        for g, of_group in itertools.groupby(left, key=lambda item: item[0]):
            splits, _ = load(configs[groups[g][0]])
            resolved = {number: resolve(configs[number], splits, layout.mesh.shape["data"]) for number in groups[g]}
            runs = VectorisedRuns(list(resolved.values()), splits, layout.mesh, own)
            for _, members in of_group:
                # Every chunk has the same size, so that one compilation serves all.
                padded = members + [members[-1]] * (layout.size - len(members))

                names = f"members {members[0]} to {members[-1]}" if len(members) > 1 else f"member {members[0]}"
                text = f"{names}, epoch {{}} of {resolved[members[0]].epochs}"

                def show_epoch(epoch: int, text: str = text, count: int = len(members), done: int = done) -> None:
                    show(done + epoch * count, text.format(epoch))

                chunk_results = train(runs, [resolved[number] for number in padded], show_epoch)[: len(members)]
                content = {"members": members, "results": chunk_results, "how": layout.as_json()}
                write(folder / "chunks" / f"{members[0]:06}.json", content)
                done += len(members) * resolved[members[0]].epochs


def _print_settings(
    console: Console, folder: pathlib.Path, settings: Sequence[Setting], comparison: Comparison
) -> None:
    fields = list(settings[0].point)

    def print_table(title: str, settings: Sequence[Setting], columns: list[str], cells: list[list[str]]) -> None:
        headings, points = tables.headings(fields), [list(map(value_text, s.point.values())) for s in settings]
        texts, numbers = zip(headings, *points, strict=True), zip(columns, *cells, strict=True)
        # Widths without which a word or number would be broken, and borders.
        words = [max(len(word) for text in column for word in text.split() or [""]) for column in texts]
        lines = [max(len(line) for text in column for line in text.split("\n")) for column in numbers]
        if sum(width + 3 for width in [*words, *lines]) >= console.width:
            points, headings = [[fields_text(setting.point)] for setting in settings], ["setting"]
        rows = [[*point, *row] for point, row in zip(points, cells, strict=True)]
        terminal.print_table(console, title, [*headings, *columns], rows, text_columns=len(headings))

    title = f"{folder}: test accuracy (%), mean [95 % interval] over seeds"
    print_table(title, settings, *tables.accuracy_cells(settings))
    if compared := [setting for setting in settings if setting.differences]:
        replaced = {"chaos.z0": 0} if comparison.control is None else tables.plain(comparison.control)
        control = f"the control (equal but for {fields_text(replaced)})"
        title = f"difference from {control} in percentage points, paired over seeds [95 % interval]"
        print_table(title, compared, *tables.difference_cells(compared))
    for setting in settings:
        if setting.control is not None and not setting.differences:
            console.print(
                f"note: {fields_text(setting.point)}: no paired difference, it or its control diverged on every seed",
                soft_wrap=True,
            )
    if len(settings) > 1 and not any(setting.control for setting in settings):
        console.print(
            "note: no setting is another's control, equal but for chaos.z0 0, so no paired differences are given; "
            "--control names another",
            soft_wrap=True,
        )


def _failed_layers_line(configs: Sequence[Config], results: Sequence[Any]) -> str:
    """Name the members in which a layer never or always fired over an epoch; empty if there are none."""
    failed: dict[int, list[str]] = {}
    for number, (config, result) in enumerate(zip(configs, results, strict=True)):
        most = config.model.neuron.most_spikes
        layers = [failed_layers(epoch.get("rates", {}), most) for epoch in result["epochs"]]
        if names := list(dict.fromkeys(name for lists in layers for names in lists.values() for name in names)):
            failed[number] = names
    if not failed:
        return ""
    members, names = list(failed), list(dict.fromkeys(name for names in failed.values() for name in names))
    more = f" and {len(members) - 10} more" if len(members) > 10 else ""
    return (
        f"{len(members)} of {len(results)} members have a layer that never or always fires over an epoch "
        f"({', '.join(names)}); members {', '.join(map(str, members[:10]))}{more}; rates are in epochs.csv"
    )


def _name(config: Config, own: Own, metadata: dict[str, Any]) -> str:
    prefix = plugin_run_name(config, own).rpartition("-")[0]
    content = json.dumps(metadata, sort_keys=True).encode() + own.code
    return f"{prefix}-sweep-{hashlib.sha256(content).hexdigest()[:8]}"
