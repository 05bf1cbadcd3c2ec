"""The commands that train many runs: a grid, and the best setting of one on fresh seeds.

Both are experiments (``csbp_jax.experiment``), shown as ``compare`` shows runs.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from csbp_jax.cli import option_types as option
from csbp_jax.cli.options import OnData, read, read_field, read_paths, set_deterministic
from csbp_jax.config import Config, ConfigError, Mark, fields_marked, to_json
from csbp_jax.reporting.format import fields_text
from csbp_jax.runtime import files
from csbp_jax.training import run_dir, run_json
from csbp_jax.training.plugins import plugin_run_name

if TYPE_CHECKING:
    from csbp_jax.evaluation.compare import Comparison
    from csbp_jax.experiment import Experiment, Training
    from csbp_jax.runs import RunTable

MAX_VALUES = 100_000
"""Most values of a range FIRST:END in a grid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep(OnData):
    """Train all runs of a grid, many at once where that is faster, and compare them; a stopped sweep resumes."""

    grid: option.Grid = None
    """e.g. "chaos.z0=0,1,3,10 seed=0:16"; any fields; chaos.z0.TAP for one of several taps"""
    control: Annotated[str | None, arg(metavar="FIELD=VALUE")] = None
    """e.g. "chaos.term=drift": the control of a setting is the one that is equal but for these fields; by default
    chaos.z0=0"""
    margin: option.Margin = None
    chunk: option.Chunk = None
    data_parallel: option.DataParallel = 1
    name: option.Name = None
    """name of the sweep; by default the data set and a hash of its config and grid"""
    shard: Annotated[str | None, arg(metavar="INDEX/COUNT")] = None
    """train one of COUNT shares of the runs, for several machines; INDEX from 0; by default the number of this process
    among those that Slurm, MPI or a TPU slice has started. The last to end shows the tables"""
    merge: option.Folders = ()
    """folders of the same sweep whose finished runs are taken over, from machines that had disks of their own"""
    fresh: option.Flag = False
    """rename an old sweep of this name and start from scratch"""
    price: option.Flag = False
    """train nothing, and say what it would cost: hours on this machine, memory, and the width of intervals to expect"""
    sweeps: option.Path = "sweeps"
    """directory of all sweeps"""


def sweep(argv: Sequence[str]) -> None:
    """Run ``csbp_jax sweep``."""
    options, config, own = read("sweep", Sweep, argv)
    if not options.grid:
        raise ConfigError('--grid: missing; write e.g. --grid "chaos.z0=0,1,3,10 seed=0:16" (make: GRID=...)')
    set_deterministic(config.deterministic)
    grid = parse_grid(config, options.grid)
    control = parse_control(config, options.control) if options.control else {}
    shard = parse_shard(options.shard) if options.shard is not None else None
    from csbp_jax.experiment import Training

    base = Training(config, own, options.data_dir, options.data_parallel)
    if (name := options.name) is None:
        stem = plugin_run_name(config, own).rpartition("-")[0]
        content = json.dumps(to_json(config) | {"grid": grid}, sort_keys=True).encode() + own.code
        name = f"{stem}-sweep-{hashlib.sha256(content).hexdigest()[:8]}"
    run_dir.check_name(name)
    experiment = of_grid(base, grid)
    pairs = controls(base, experiment, control) if control else None
    folder = pathlib.Path(options.sweeps) / name
    if options.price:
        print(experiment.price(folder, chunk=options.chunk))
        return
    table = experiment.run(folder, shard=shard, chunk=options.chunk, fresh=options.fresh, merge=options.merge)
    if _is_complete(experiment, table):
        from csbp_jax.evaluation import compare

        compared = compare.comparison(table, pairs or compare.controls(table), options.margin)
        _show(compared, folder)


def _is_complete(experiment: "Experiment", table: "RunTable") -> bool:
    """Return whether a table has all runs of an experiment without tuning, and not those of some shards alone."""
    return len(table.frame) == len(experiment.cases) * len(experiment.arms) * len(experiment.seeds)


def _show(compared: "Comparison", folder: pathlib.Path) -> None:
    """Show a comparison and write it, one process at a time: the last shards may end together."""
    from csbp_jax.evaluation import compare

    with run_dir.locked(folder, wait=True):
        compare.show(compared, folder)


def of_grid(base: "Training", grid: dict[str, list[Any]]) -> "Experiment":
    """Return the experiment of a grid: its arms, which are named by their fields, on its data."""
    from csbp_jax.experiment import Experiment

    of_data = fields_marked(Mark.CHOOSES_DATA)
    of_cases = {field: values for field, values in grid.items() if field in of_data}
    of_arms = {field: values for field, values in grid.items() if field not in (*of_data, "seed")}
    cases, arms = (
        {
            fields_text(point): point
            for point in (dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values()))
        }
        for axes in (of_cases, of_arms)
    )
    arms = arms if of_arms else {"all": {}}
    return Experiment(base, arms, cases=cases, seeds=grid.get("seed", [base.config.seed]))


def controls(base: "Training", experiment: "Experiment", control: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the arms that have another as control, equal but for the fields of ``control``, each with it.

    Raises:
      ConfigError: there is none.
    """
    from csbp_jax.experiment import Arm
    from csbp_jax.experiment.fields import key

    arms = {name: dict(changes) for name, changes in experiment.arms.items() if not isinstance(changes, Arm)}
    names = {key(base.canonical(fields)): name for name, fields in reversed(arms.items())}
    pairs = [(name, names.get(key(base.canonical(fields | control)), name)) for name, fields in arms.items()]
    if not (different := [(name, other) for name, other in pairs if name != other]):
        raise ConfigError(
            f"--control: {fields_text(control)}: the grid has no such setting beside another; add it to --grid"
        )
    return different


def parse_grid(config: Config, text: str, message: str = "GRID: {} (--grid)") -> dict[str, list[Any]]:
    """Parse ``"chaos.z0=0,1.5 seed=0:3"`` to ``{"chaos.z0": [(0.0,), (1.5,)], "seed": [0, 1, 2]}``.

    Raises:
      ConfigError: a word is not FIELD=VALUE,VALUE,..., or a field or a value is given twice, or is not possible; its
        text is ``message`` with the problem.
    """
    grid: dict[str, list[Any]] = {}

    def refuse(problem: object) -> ConfigError:
        return ConfigError(message.format(problem))

    for word in text.split():
        field, equals, values = word.partition("=")
        listed = [word for value in values.split(",") for word in _range(value, refuse)]
        if not field or not equals or "" in listed:
            raise refuse(f"{word!r} is not possible; write FIELD=VALUE,VALUE or FIELD=FIRST:END")
        if field in grid:
            raise refuse(f"{field} is given twice; give all its values at once")
        try:
            grid[field] = [_value(config, field, value) for value in listed]
        except ConfigError as error:
            raise refuse(error) from None
        for number, value in enumerate(grid[field]):
            if value in grid[field][:number]:  # equal runs would count as independent ones
                raise refuse(f"{field}={listed[number]} is given twice; give each value once")
    if not grid:
        raise refuse('empty; write e.g. "chaos.z0=0,1,3 seed=0:8"')
    return grid


def parse_control(config: Config, text: str) -> dict[str, Any]:
    """Parse ``"chaos.term=drift chaos.z0=3"`` to ``{"chaos.term": "drift", "chaos.z0": (3.0,)}``.

    Raises:
      ConfigError: as :func:`parse_grid`, a field has several values, or it is the seed.
    """
    grid = parse_grid(config, text, "--control: {}")
    if wrong := [field for field, values in grid.items() if field == "seed" or len(values) > 1]:
        raise ConfigError(f"--control: {wrong[0]} is not possible; give one value of each field, and not the seed")
    return {field: value for field, (value,) in grid.items()}


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``"2/8"``: the third of eight shards, which are numbered from 0.

    Raises:
      ConfigError: not INDEX/COUNT with an index below the count.
    """
    match = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--shard: {text!r} is not possible; write INDEX/COUNT, the index from 0 to COUNT - 1")
    return int(match[1]), int(match[2])


def _range(value: str, refuse: Callable[[object], ConfigError]) -> list[str]:
    first, colon, end = value.partition(":")
    if colon and re.fullmatch("[0-9]{1,18}", first) and re.fullmatch("[0-9]{1,18}", end):
        if int(end) - int(first) > MAX_VALUES:
            raise refuse(f"{value} has more than {MAX_VALUES:,} values; give fewer")
        return [str(n) for n in range(int(first), int(end))] or [""]
    return [value]


def _value(config: Config, field: str, word: str) -> Any:
    from csbp_jax.experiment.fields import check_field

    if field != "seed":
        check_field(config, field)
    if field.startswith("chaos.z0."):
        (value,) = read_field(config, "chaos.z0", word)
        return value
    return read_field(config, field, word)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """Train the best setting of a sweep with a chaos term, and the best without one, on fresh seeds."""

    sweep: option.SweepDir = ""
    seeds: option.Count = 10
    """number of fresh seeds; fewer give a wide interval"""
    margin: option.Margin = None
    chunk: option.Chunk = None
    data_parallel: option.DataParallel = 1
    trust: option.Trust = False
    data_dir: option.DataDir = "data"


def best(argv: Sequence[str]) -> None:
    """Run ``csbp_jax best``: the best arm with a term and its control on fresh seeds, as an experiment within a sweep.

    On the seeds of the sweep, the selection would bias its result. The control has no chaos term (``chaos.z0`` 0): of
    the sweep's arms without one it is the best in validation, so that both are tuned; if there is none, it is equal to
    the best arm with a term but for ``chaos.z0``.
    """
    options = read_paths("best", Best, argv)
    folder = pathlib.Path(options.sweep)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: there is no sweep; name its folder, such as sweeps/NAME")
    content = run_json.read_config(folder, run_json.REPAIR)
    set_deterministic(content["config"].get("deterministic", False))
    if not (folder / "settings.json").exists():
        raise ConfigError(f"{folder}: no finished sweep; run it, or go on with it, by csbp_jax sweep")
    from csbp_jax.evaluation import compare
    from csbp_jax.experiment import Experiment, Training
    from csbp_jax.experiment.system import MARK
    from csbp_jax.runs import RunTable
    from csbp_jax.training.plugin_file import reload

    own = reload(folder, content.get("own", {}), options.trust, None)
    fields = {name: value for name, value in content["config"].items() if name not in MARK}
    config, table = run_json.parse_config(folder / "config.json", fields, alone=False), RunTable.read(folder)
    arms = _best_and_control(folder, config, table)
    first = 1 + int(table.frame["seed"].max())
    name = f"best-seeds-{first}-{first + options.seeds - 1}{'-with-control' * (len(arms) > 1)}"
    files.check_links(folder, name)
    base = Training(config, own, options.data_dir, options.data_parallel)
    experiment = Experiment(base, arms, seeds=range(first, first + options.seeds))
    fresh = experiment.run(folder / name, chunk=options.chunk)
    if _is_complete(experiment, fresh):
        # The best and its control, if it has one.
        compared = compare.comparison(fresh, list(itertools.pairwise(arms)), options.margin)
        _show(compared, folder / name)


def _best_and_control(folder: pathlib.Path, config: Config, table: "RunTable") -> dict[str, dict[str, Any]]:
    """Return the fields of a sweep's best arm with a chaos term, and of its control; of the best where none has one.

    Raises:
      ConfigError: a run of every arm diverged, or the sweep has several data sets.
    """
    from csbp_jax.experiment.fields import at

    remedy = "repeat the command of the sweep, which writes it again"
    cells = run_json.read_json(folder / "settings.json", lambda content: isinstance(content.get("cells"), list), remedy)
    if len({cell["case"] for cell in cells["cells"]}) > 1:
        raise ConfigError(f"{folder}: has several data sets; sweep each by itself, so that one setting is the best")
    arms: dict[str, dict[str, Any]] = {cell["arm"]: cell["tries"][0] for cell in cells["cells"]}
    z0 = {name: at(config, fields).chaos.z0 for name, fields in arms.items()}
    settings = table.settings()
    finite = settings[settings["diverged"] == 0]
    validation = f"last_validation_{table.primary}_mean"
    ranked = list(finite.sort_values(validation, ascending=False, kind="stable")["arm"])
    if not ranked:
        raise ConfigError(f"{folder}: a run of every setting diverged; try smaller optimizer.lr or chaos.z0")
    plain = [name for name in arms if not any(z0[name])]
    tuned, with_term = [name for name in ranked if name in plain], [name for name in ranked if name not in plain]
    if not with_term:
        print("note: no setting has a chaos term (chaos.z0 above 0), or in each of them a run diverged; no control")
        return {tuned[0]: arms[tuned[0]]}
    chosen = with_term[0]
    # Without a term its other fields have no effect: settings that differ in them alone are one try.
    tries = {json.dumps({k: v for k, v in arms[name].items() if not k.startswith("chaos.")}) for name in plain}
    print(_tries_line(len(arms) - len(plain), len(tries) if tuned else 0))
    if tuned:
        return {chosen: arms[chosen], tuned[0]: arms[tuned[0]]}
    return {chosen: arms[chosen], f"{chosen}, without term": arms[chosen] | {"chaos.z0": (0.0,) * len(z0[chosen])}}


def _tries_line(with_term: int, without: int) -> str:
    if not without:
        return (
            "note: the sweep has no setting without a chaos term, or in each of them a run diverged, so the control "
            "is the best setting with chaos.z0 0, which was not tuned; a gain over it may be one of tuning"
        )
    tried = f"the best of {with_term} settings with the term, against the best of {without} without it"
    return tried if without >= with_term else f"{tried}; a fair comparison gives both as many tries"
