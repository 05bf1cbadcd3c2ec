"""K runs of a config and a grid, as few compilations as kinds of runs, and what they came to.

sweeps/NAME/config.json      the config, the grid, versions
sweeps/NAME/chunks/*.json    what each chunk of members came to; a stopped sweep does not do them again
sweeps/NAME/members.csv, epochs.csv, settings.csv, figures/
"""

import hashlib
import json
import pathlib

import jax

from csbp_jax.config import Config, ConfigError, from_json, to_json
from csbp_jax.reporting import plots, terminal
from csbp_jax.reporting.format import half_width, value_text
from csbp_jax.runtime import files
from csbp_jax.sweep import grid, tables
from csbp_jax.sweep.vectorised import VectorisedRuns, member_mesh, trace_step, train
from csbp_jax.training import build, run_dir
from csbp_jax.training.compiled import resolve
from csbp_jax.training.plugin_file import reload
from csbp_jax.training.plugins import Own, plugin_run_name

Setting = tables.Setting


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
    console: terminal.Console | None = None,
) -> list[Setting]:
    """Trains every member of the grid, or those that a stopped sweep has left, and tabulates them.

    Args:
      config: what the members have in common.
      axes: ``{field: values}``; a field of the config, or ``chaos.z0.TAP``. The members are all combinations.
      name: the sweep's folder under ``root``; by default the data set and a hash of config and grid.
      fresh: set an old sweep of this name aside and start anew.
      root: where sweeps are kept.
      data_dir: where prepared data sets are kept.
      chunk: members that train at once; by default one a device on CPU, where more gain nothing, else 32 a device.
      data_parallel: devices that share each batch; the others hold different members.
      own: parts of your own, in place of the config's. If they are not of a file, ``name`` must be given.
      console: where to show it; the terminal by default.

    Returns:
      The settings: members that differ in the seed alone, taken together.

    Raises:
      ConfigError: no such field, an impossible value, or the folder holds another sweep, or one that began otherwise.
    """
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    configs, points = grid.members(config, axes), [tables.plain(point) for point in grid.points(axes)]
    about = to_json(config) | {"grid": json.loads(json.dumps({field: list(values) for field, values in axes.items()}))}
    name = _name(config, own, about) if name is None else name
    # All kinds before anything is written: an error in the last would come after hours of the first.
    identities = [_checked(configs[group[0]], own, data_dir) for group in grid.compile_groups(configs, own)]
    identity = "\n".join(dict.fromkeys(identities))
    with run_dir.open_run(pathlib.Path(root), about, name, fresh, console, identity, own=own) as folder:
        results = _results(configs, own, folder, data_dir, chunk, _devices(data_parallel), console)
        rows = tables.member_rows(points, results)
        found = tables.settings(points, rows)
        tables.write_csv(folder / "members.csv", rows)
        tables.write_csv(folder / "epochs.csv", tables.epoch_rows(points, results))
        summary = [tables.flat(setting) for setting in found]
        tables.write_csv(folder / "settings.csv", summary)
        plots.draw_sweep(folder, [field for field in axes if field != "seed"], summary)
        _show(console, folder, found)
    return found


def best(
    folder: str | pathlib.Path,
    seeds: int = 10,
    *,
    trust: bool = False,
    data_dir: str | pathlib.Path = "data",
    console: terminal.Console | None = None,
) -> Setting:
    """The setting that validation picks, trained anew on fresh seeds, so that its picking does not flatter it.

    The sweep of those seeds is kept in the folder's ``best-seeds-FIRST-LAST``. ``trust``: as
    :func:`csbp_jax.evaluation.restore.load` has it. Fewer than 10 seeds are possible, and make a wide interval.

    Raises:
      ConfigError: there is no folder, it holds no finished sweep, or in every setting a member diverged.
    """
    folder = pathlib.Path(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: there is no sweep; name its folder, such as sweeps/NAME")
    content = run_dir.read_json(folder / "config.json", "config")
    about = content["config"]
    if "grid" not in about or not (folder / "members.csv").exists():
        raise ConfigError(f"{folder}: no finished sweep; run it, or go on with it, by csbp_jax sweep")
    own, axes = reload(folder, content.get("own", {}), trust, None), about.pop("grid")
    config, given = from_json(about), grid.points(axes)
    points = [tables.plain(point) for point in given]
    rows = tables.member_rows(points, _done(folder, len(points)))
    found = tables.best(tables.settings(points, rows))
    if found is None:
        raise ConfigError(f"{folder}: members of every setting diverged; try smaller optimizer.lr or chaos.z0")
    first = 1 + max(member.seed for member in grid.members(config, axes))
    point = next(g for g, p in zip(given, points, strict=True) if found.point.items() <= p.items())
    fresh = {field: [value] for field, value in point.items()} | {"seed": range(first, first + seeds)}
    name = f"best-seeds-{first}-{first + seeds - 1}"
    return run(config, fresh, name=name, root=folder, data_dir=data_dir, own=own, console=console)[0]


def _checked(config, own, data_dir):
    """What tells whether the data of a kind are the same; raises what its training would."""
    parts, identity = build.load_data(config, own, data_dir)
    trace_step(resolve(config, parts), parts, own)
    return identity


def _results(configs, own, folder, data_dir, chunk, devices, console):
    """What each member came to; what an earlier try has done is read, the rest trained."""
    (folder / "chunks").mkdir(exist_ok=True)
    done, size = _done(folder, len(configs)), _chunk(chunk, devices)
    kinds = grid.compile_groups(configs, own)
    left = [[n for n in group if done[n] is None] for group in kinds]
    how = _how(size, devices)
    if any(left):
        _check_alike(folder, how)
    total = sum(configs[n].epochs for group in left for n in group)
    console.print(f"{folder}: {len(configs)} members in {len(left)} compilations, {sum(map(len, left))} to train")
    with terminal.progress(console, max(total, 1), 0) as show:
        shown = 0
        for group, rest in zip(kinds, left, strict=True):
            if not rest:
                continue
            parts, _ = build.load_data(configs[group[0]], own, data_dir)
            resolved = {n: resolve(configs[n], parts) for n in group}
            together = VectorisedRuns(list(resolved.values()), parts, devices, own)
            for members in (rest[i : i + size] for i in range(0, len(rest), size)):
                # Every chunk has the same size, so that there is one compilation.
                padded = members + [members[-1]] * (size - len(members))

                def tell(epoch, members=members, shown=shown):
                    show(shown + epoch * len(members), f"members {members[0]} to {members[-1]}, epoch {epoch}")

                results = train(together, [resolved[n] for n in padded], tell)[: len(members)]
                content = {"members": members, "results": results, "how": how}
                files.write_json(folder / "chunks" / f"{members[0]:06}.json", content)
                shown += len(members) * resolved[members[0]].epochs
    return _done(folder, len(configs))


def _how(size, devices):
    """What the order of sums depends on, in which members trained otherwise differ."""
    member, share = devices.shape["member"], devices.shape["data"]
    return {"members a device": size // member, "devices a batch": share, "device": jax.devices()[0].device_kind}


def _check_alike(folder, here):
    for file in (folder / "chunks").glob("*.json"):
        there = run_dir.read_json(file).get("how", here)
        for key, value in here.items():
            if there[key] != value:
                raise ConfigError(
                    f"{folder}: {key}: {there[key]} in members that are finished, {value} here, which rounds otherwise "
                    "and in a chaotic run shows; go on as it began (--chunk, --data-parallel, the same machine), or "
                    "start anew with FRESH=1 (--fresh)"
                )


def _done(folder, count):
    """Each member's result, None where there is none yet."""
    results = [None] * count
    for file in sorted((folder / "chunks").glob("*.json")):
        content = run_dir.read_json(file, "members", "results")
        for number, result in zip(content["members"], content["results"], strict=True):
            results[number] = result
    return results


def _chunk(chunk, devices):
    """Members at once: a multiple of the devices that hold different ones."""
    share = devices.shape["member"]
    wanted = chunk or share * (1 if jax.default_backend() == "cpu" else 32)
    return -(-wanted // share) * share


def _devices(data_parallel):
    if data_parallel < 1 or jax.device_count() % data_parallel:
        raise ConfigError(f"--data-parallel: {data_parallel} does not divide the {jax.device_count()} devices")
    return member_mesh(data_parallel)


def _show(console, folder, found):
    """The settings as a table, or as one line where there is but one."""
    fields, rows = list(found[0].point), []
    for setting in found:
        cells = [half_width(i) for i in setting.accuracies.values()][:2] or ["diverged", "diverged"]
        point = [value_text(value) for value in setting.point.values()]
        rows.append([*point, str(setting.members), str(setting.diverged), *cells])
    columns = [*tables.headings(fields), "members", "diverged", "chosen epoch", "last epoch"]
    title = f"{folder}: test accuracy (%), mean and half the 95 % interval over seeds"
    terminal.print_table(console, title, columns, rows, words=len(fields))


def _name(config, own, about):
    named = plugin_run_name(config, own).rpartition("-")[0]
    content = json.dumps(about, sort_keys=True).encode() + own.code
    return f"{named}-sweep-{hashlib.sha256(content).hexdigest()[:8]}"
