"""The best setting of a sweep and its control, trained again on fresh seeds."""

import pathlib
from typing import Any

from csbp_jax.config import ConfigError
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime import files
from csbp_jax.sweep import chunks, grid, tables
from csbp_jax.sweep.driver import Comparison, run
from csbp_jax.sweep.tables import Setting
from csbp_jax.training import run_json
from csbp_jax.training.plugin_file import reload
from csbp_jax.training.plugins import Own


def best(
    folder: str | pathlib.Path,
    seeds: int = 10,
    *,
    trust: bool = False,
    own: Own | None = None,
    data_dir: str | pathlib.Path = "data",
    margin: float | None = None,
    chunk: int | None = None,
    data_parallel: int = 1,
    console: Console | None = None,
) -> list[Setting]:
    """Retrain the setting of best validation accuracy and its control on fresh seeds; the first result is the best's.

    On the seeds of the sweep, the selection would bias its accuracy. The control has no chaos term (``chaos.z0`` 0): of
    the sweep's settings without one it is the best in validation, so that both are tuned; if there is none, it is equal
    to the best setting but for ``chaos.z0``. It trains on the same seeds; there is no control if the best setting
    itself has no chaos term. The new runs form a sweep in ``FOLDER/best-seeds-FIRST-LAST-with-control``
    (``FOLDER/best-seeds-FIRST-LAST`` without control). ``trust`` and ``own`` are as
    in :func:`csbp_jax.runs.restore.load`, ``margin`` as in :class:`Comparison`, ``chunk`` and ``data_parallel``
    as in :func:`csbp_jax.sweep.run`, whatever the sweep had. Fewer than 10 seeds are allowed, but give a wide interval.

    Raises:
      ConfigError: the folder does not exist, it holds no finished sweep, or in every setting a member diverged; or as
        in :func:`csbp_jax.sweep.run`.
    """
    folder = pathlib.Path(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: there is no sweep; name its folder, such as sweeps/NAME")
    content = run_json.read_config(folder, run_json.REPAIR)
    metadata = content["config"]
    if "grid" not in metadata or not (folder / "members.csv").exists():
        raise ConfigError(f"{folder}: no finished sweep; run it, or go on with it, by csbp_jax sweep")
    own, axes = reload(folder, content.get("own", {}), trust, own), metadata.pop("grid")
    config, grid_points = run_json.parse_base_config(folder / "config.json", metadata), grid.points(axes)
    points = [tables.plain(point) for point in grid_points]
    results = chunks.read_results(folder, len(points))
    if None in results:
        raise ConfigError(f"{folder}: not all members have a result; go on with the sweep by csbp_jax sweep")
    rows = tables.member_rows(points, results)
    settings = tables.settings(points, rows, [None] * len(tables.grouped(points)))
    selected = tables.best(settings)
    if selected is None:
        raise ConfigError(f"{folder}: members of every setting diverged; try smaller optimizer.lr or chaos.z0")

    def fields_of(setting: Setting) -> dict[str, Any]:
        point = next(g for g, p in zip(grid_points, points, strict=True) if setting.point.items() <= p.items())
        # All strengths at once: those of single taps would be axes of their own.
        fields = {field: value for field, value in point.items() if field != "seed" and "chaos.z0" not in field}
        return fields | {"chaos.z0": list(grid.at(config, point).chaos.z0)}

    console = make_console() if console is None else console
    first = 1 + max(member.seed for member in grid.members(config, axes))
    name = f"best-seeds-{first}-{first + seeds - 1}"
    chosen, control = fields_of(selected), None
    if any(chosen["chaos.z0"]):
        plain = [setting for setting in settings if not any(fields_of(setting)["chaos.z0"])]
        tuned = tables.best(plain)
        control = fields_of(tuned) if tuned else chosen | {"chaos.z0": [0.0] * len(chosen["chaos.z0"])}
        name += "-with-control"
        # Without a term its other fields have no effect: settings that differ in them alone are one try.
        tries = {tuple((k, v) for k, v in s.point.items() if not k.startswith("chaos.")) for s in plain}
        console.print(_tries_line(len(settings) - len(plain), len(tries) if tuned else 0), soft_wrap=True)
    else:
        console.print(
            "note: the best setting trains without a chaos term (chaos.z0 0), so it has no control", soft_wrap=True
        )
    files.check_links(folder, name)
    differing = control and {field: value for field, value in control.items() if value != chosen[field]}
    together = [tuple(point.values()) for point in (chosen, control) if point is not None]
    values = together if len(chosen) > 1 else [value for (value,) in together]
    return run(
        config,
        {" ".join(chosen): values, "seed": range(first, first + seeds)},
        name=name,
        root=folder,
        data_dir=data_dir,
        chunk=chunk,
        data_parallel=data_parallel,
        own=own,
        comparison=Comparison(differing, margin),
        console=console,
    )


def _tries_line(with_term: int, without: int) -> str:
    if not without:
        return (
            "note: the sweep has no setting without a chaos term, or in each of them a member diverged, so the control "
            "is the best setting with chaos.z0 0, which was not tuned; a gain over it may be one of tuning"
        )
    tried = f"the best of {with_term} settings with the term, against the best of {without} without it"
    return tried if without >= with_term else f"{tried}; a fair comparison gives both as many tries"
