"""An experiment: arms on cases, tuned over draws of settings and tested on fresh seeds, as one table of runs."""

import collections
import dataclasses
import functools
import itertools
import operator
import pathlib
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from csbp_jax import configs, ranges
from csbp_jax.config import Config, ConfigError
from csbp_jax.experiment import memory, price
from csbp_jax.experiment.fields import Fields, key
from csbp_jax.experiment.plan import Adapt, Arm, Cell, Plan, Tuned, settings_of
from csbp_jax.experiment.price import Price
from csbp_jax.experiment.store import Block
from csbp_jax.experiment.system import Adapted, Draw, System, Training
from csbp_jax.experiment.work import CHUNKS, Work, folder_of_shard
from csbp_jax.reporting import terminal
from csbp_jax.reporting.terminal import Console
from csbp_jax.runs import RunTable
from csbp_jax.runtime import files, multihost
from csbp_jax.training import run_dir, run_json

if TYPE_CHECKING:
    import pandas

    from csbp_jax.training.callbacks import Callback


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """Runs of several arms, on the same cases, tries and seeds.

    Attributes:
      base: a config or the name of one, its training with more than its fields (:class:`Training`), or a system of
        one's own.
      arms: changes of fields by name, which win over tuned values, or :class:`Arm`.
      cases: such as data sets, folds or speakers, each some fields; crossed with the arms, and never pooled silently.
      tuned: a grid, a list or a joint draw of fields, the same for all arms; a strength of 0 may be among its values.
      tries: settings of a joint draw. Every arm has as many.
      draws: how often the whole is repeated with independent draws of the settings, each on seeds of its own.
      seeds: of the tests. Those of draw n are these plus n times a power of ten.
      tuning_seeds: of the choice by validation, none of which tests.
      draw: ``draw(splits, seed, **options) -> (rows, labels)``, for a config: a seed's own training records and their
        labels. Its options are fields ``draw.NAME`` of a case or an arm.
      choose: the measure by whose mean a try is chosen, the larger the better; by default that of validation after the
        last epoch (accuracy, F1 or R2), or the first measure of a system of one's own.

    Raises:
      ValueError: arms have different numbers of tries, seeds test that also choose, or there are none; several draws
        have nothing to draw; or a field of a case is tuned, or an arm's.
      TypeError: arms, or the fields of one, are not named; or seeds are a number.
    """

    base: str | Config | Training | System
    arms: Mapping[str, Fields | Arm]
    _: dataclasses.KW_ONLY
    seeds: Sequence[int]
    cases: Mapping[str, Fields] = dataclasses.field(default_factory=lambda: {"": {}})
    tuned: Tuned | None = None
    tries: int = 1
    draws: int = 1
    tuning_seeds: Sequence[int] = ()
    draw: Draw | None = None
    choose: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.arms, Mapping):
            raise TypeError(f'arms: is {self.arms!r}, but must have names and fields: {{"plain": {{"chaos.z0": 0}}}}')
        for name, arm in self.arms.items():
            if not isinstance(arm, Mapping | Arm):
                raise TypeError(f'arms: {name} is {arm!r}, but must be fields, as {{"chaos.z0": 0}}, or an Arm')
        for name, seeds in (("seeds", self.seeds), ("tuning_seeds", self.tuning_seeds)):
            if not isinstance(seeds, Collection):
                raise TypeError(f"{name}: is {seeds!r}, but must be several, as range({seeds!r}) or [{seeds!r}]")
        if not len(self.seeds) or set(self.seeds) & set(self.tuning_seeds):
            raise ValueError("seeds: give some, and others than tuning_seeds, whose runs choose")
        ranges.require("Experiment", ranges.WHOLE_FROM_1, tries=self.tries, draws=self.draws)
        tuned = [self.tuned, *(arm.tuned for arm in self.arms.values() if isinstance(arm, Arm))]
        if self.draws > 1 and not any(map(callable, tuned)):
            raise ValueError("draws: several need a joint draw, tuned=function; a grid or list is the same in each")

    def run(
        self,
        folder: str | pathlib.Path,
        *,
        shard: tuple[int, int] | None = None,
        chunk: int | None = None,
        fresh: bool = False,
        weights: bool = False,
        known: "pandas.DataFrame | None" = None,
        merge: Sequence[str | pathlib.Path] = (),
        console: Console | None = None,
        callbacks: Sequence["Callback"] = (),
    ) -> RunTable:
        """Train what has no result yet, and return all runs as a table.

        FOLDER/config.json      the base, versions
        FOLDER/blocks/*.json    results, each of some seeds of one setting that trained together
        FOLDER/shards/*/chunks  what unfinished runs go on from, saved once a minute, between epochs
        FOLDER/chunks.json      how many runs train at once, where a GPU's or TPU's memory was asked
        FOLDER/runs.csv         the table, once all runs are finished; epochs.csv: their curves
        FOLDER/settings.json    the fields of every try of every arm, and the digests of both tables
        FOLDER/weights/*/       with ``weights``: the network of each run, which commands take as they take a run

        Killed anywhere, the same call goes on, and the files become the same to the byte. Other arms, cases and seeds
        may be added later: runs that are finished stay.

        Args:
          folder: of the experiment.
          shard: ``(i, n)``, the i-th of n tasks, from 0, which may share the folder at any times. The last one to end
            writes the table. By default the index and the number of the processes that a launcher has started (Slurm,
            MPI, a TPU slice), which exchange nothing, or ``(0, 1)`` without one.
          chunk: members that train at once. By default 32 per device, halved until they fit 80 % of its memory; on a
            CPU 24 of a dense network or one per device; and 1024 of a system of one's own.
          fresh: rename an old folder and start from scratch.
          weights: also save the weights of the last epoch of each run, for :meth:`csbp_jax.RunTable.weights`; of a
            config alone. Runs that are finished without have none.
          known: runs that are finished elsewhere, such as ``pandas.read_csv("runs.csv")`` (pandas before 3 reads all
            digits with ``float_precision="round_trip"``). A row is that of a run if its columns of fields, and its
            seed, are equal; it is taken over, without curves, and not trained. A field without a column counts as
            equal, and nothing says whether data and devices were the same.
          merge: folders of the same experiment whose finished runs are taken over, such as those of shards that had
            disks of their own. Weights stay there; the names of their folders fit into FOLDER/weights.
          console: where progress is shown; the terminal by default.
          callbacks: called after each epoch of the runs that train together, beside those of a plugin file
            (:class:`csbp_jax.training.callbacks.Callback`). What they return joins FOLDER/epochs.csv, and they may stop
            runs.

        Raises:
          TypeError: a callback is none.
          ValueError: there is no such shard, or two callbacks have one name, or a system of one's own has callbacks.
          ConfigError: a field or value is not possible, or the folder holds an experiment on another base, other data
            or own code, or another process runs this shard; or ``known`` has no seeds or no measures; or a folder of
            ``merge`` is none of this experiment; or memory is used up; or a launcher does not say which process this
            is, or has started several with ``fresh``.
        """
        console = terminal.make_console() if console is None else console
        shard = self._launched_shard(fresh, console) if shard is None else shard
        if not 0 <= shard[0] < shard[1]:
            raise ValueError(f"shard: {shard} is not possible; of n tasks, i is from 0 to n - 1")
        folder = pathlib.Path(folder)
        sources = [pathlib.Path(source) for source in merge]
        plan = self.plan(chunk)
        system = plan.system
        system.prepare(list(plan.settings.values()), int(self.seeds[0]))
        for source in sources:
            _check_same(source, system)
        opened = run_dir.open_run(
            folder.parent, system.content(), folder.name, fresh, console, own=system.own, wait=True
        )
        with opened:
            of_shard = folder_of_shard(folder, shard)
            for below in (of_shard.parent, of_shard, of_shard / CHUNKS):
                files.check_links(folder, str(below.relative_to(folder)))
            of_shard.mkdir(parents=True, exist_ok=True)
            (folder / run_json.BLOCKS).mkdir(exist_ok=True)
            memory.merge(folder / memory.FILE, [source / memory.FILE for source in sources])
            limit = memory.limit()
            if chunk is None and limit is not None:
                seeds = len({seed for cell in plan.cells for seed in (*cell.seeds, *cell.tuning_seeds)})
                with memory.used_up_in_one_line():
                    lines = system.fit(plan.largest, seeds, limit, folder / memory.FILE)
                for line in lines:
                    console.print(line, soft_wrap=True)
        with run_dir.locked(of_shard):
            work = Work(plan, self.choose, folder, console, weights, callbacks)
            if known is not None:
                work.add(known)
            for source in sources:
                work.merge(source)
            return work.run(shard)

    def price(self, folder: str | pathlib.Path = "experiments/new", *, chunk: int | None = None) -> Price:
        """Say what the experiment will cost, before anything is trained: hours, memory, and the width of intervals.

        It compiles the programs of each compile group, times ten training steps and an evaluation, and reads the
        results of finished experiments on the same base that lie beside ``folder``. The times are of this machine as
        busy as it is now, and all runs are counted, those that are finished too.

        Args:
          folder: where the experiment would be.
          chunk: as of :meth:`run`.

        Raises:
          ConfigError: as :meth:`run`, for what no field or value allows; or memory is used up.
        """
        began, plan = time.perf_counter(), self.plan(chunk)
        system = plan.system
        system.prepare(list(plan.settings.values()), int(self.seeds[0]))
        prepared = time.perf_counter() - began
        runs = sum(
            len(cell.seeds) + len(cell.tries) * len(cell.tuning_seeds) * (len(cell.tries) > 1) for cell in plan.cells
        )
        pairs = self.draws if self.draws > 1 else len(self.seeds)
        beside = price.results_beside(pathlib.Path(folder).parent, system.content())
        half_width, unit = price.half_width(beside, pairs)
        device = jax.local_devices()[0].device_kind
        if isinstance(system, Adapted):
            return Price(runs, device, None, None, half_width, unit, pairs)
        limit = memory.limit()
        with memory.used_up_in_one_line():
            if chunk is None and limit is not None:
                with tempfile.TemporaryDirectory() as of_choices:
                    system.fit(plan.largest, len(self.seeds), limit, pathlib.Path(of_choices) / memory.FILE)
            chunks = collections.Counter(plan.groups[blocks[0].key] for blocks in self._chunks(plan))
            seeds = list(map(operator.index, self.seeds))
            priced = [system.price(group, count, plan.sizes[group], seeds) for group, count in chunks.items()]
        of_groups, bytes_of_groups = zip(*priced, strict=True)
        known = [needed for needed in bytes_of_groups if needed is not None]
        seconds = price.total([(prepared, prepared), *of_groups])
        return Price(runs, device, seconds, max(known) if known else None, half_width, unit, pairs)

    def _chunks(self, plan: Plan) -> Iterator[Sequence[Block]]:
        """Yield all runs that are trained at once; of a cell with tries, the first stands for the chosen one."""
        for unit in plan.units():
            if isinstance(unit, Cell):
                yield from plan.chunks([Block(setting, unit.tuning_seeds) for setting in unit.tries])
                yield from plan.chunks([Block(unit.tries[0], unit.seeds)])
            else:
                yield unit

    def _launched_shard(self, fresh: bool, console: Console) -> tuple[int, int]:
        """Return the share of the runs of this process among those that a launcher has started, and say it.

        Raises:
          ConfigError: as :func:`csbp_jax.runtime.multihost.launched`; or each of several would start from scratch.
        """
        index, count = multihost.launched()
        if count > 1 and fresh:
            raise ConfigError(
                f"--fresh: each of the {count} processes would set aside what the others have begun; delete or rename "
                "the folder before, and leave it out"
            )
        if count > 1:
            console.print(
                f"shard {index} of {count}: the share of this process among the {count} that were started; --shard 0/1 "
                "(shard=(0, 1)) trains all runs",
                soft_wrap=True,
            )
        return index, count

    def plan(self, chunk: int | None = None) -> Plan:
        """Return what is trained; raises as :meth:`run` does for what no field or value allows."""
        system = self._system
        settings: dict[str, dict[str, Any]] = {}
        cells = []
        span = max(*self.seeds, *self.tuning_seeds, 0) - min(*self.seeds, *self.tuning_seeds, 2**32) + 1
        shift = 10 ** len(str(span - 1))
        for draw in range(self.draws):
            tests, tunes = (
                tuple(operator.index(seed) + draw * shift for seed in seeds)
                for seeds in (self.seeds, self.tuning_seeds)
            )
            for case, of_case in self.cases.items():
                for name, fields_of_tries in self._tries(draw, of_case).items():
                    canonical = [system.canonical(fields) for fields in fields_of_tries]
                    settings |= {key(fields): fields for fields in canonical}
                    cells.append(Cell(case, name, draw, tuple(map(key, canonical)), tunes, tests))
        return Plan(system, settings, cells, chunk)

    def _tries(self, draw: int, case: Fields) -> dict[str, list[dict[str, Any]]]:
        """Return the fields of each arm's tries on a case."""
        shared = settings_of(self.tuned, self.tries, np.random.default_rng(draw))
        tries: dict[str, list[dict[str, Any]]] = {}
        for number, (name, changes) in enumerate(self.arms.items()):
            arm = changes if isinstance(changes, Arm) else Arm(changes)
            own = settings_of(arm.tuned, self.tries, np.random.default_rng([draw, number + 1]))
            if not shared or not own:
                raise ValueError(f"tuned: arm {name} has no settings to try; give some")
            if callable(arm.tuned) and callable(self.tuned):
                pairs = list(zip(shared, own, strict=True))
            else:
                pairs = list(itertools.product(shared, own))
            if both := set(case) & {*arm.changes, *(field for pair in pairs for of_pair in pair for field in of_pair)}:
                raise ValueError(f"cases: {sorted(both)[0]} is also tuned, or of arm {name}, which would win over it")
            tries[name] = [{**case, **of_all, **of_arm, **arm.changes} for of_all, of_arm in pairs]
            if arm.adapt is not None:
                tries[name] = [self._adapted(fields, arm.adapt) for fields in tries[name]]
        counts = {name: len(fields) for name, fields in tries.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"arms: as many tries for each make a fair comparison; they have {counts}")
        if max(counts.values()) > 1 and not len(self.tuning_seeds):
            raise ValueError("tuning_seeds: give some, by which one of the tries is chosen")
        return tries

    def _adapted(self, fields: dict[str, Any], adapt: Adapt) -> dict[str, Any]:
        """Return the fields that a try has by its arm's ``adapt``."""
        system = self._system
        base = system.describe({})
        own = system.canonical({name: value for name, value in fields.items() if name in base})
        of_try = {**system.describe(own), **fields}
        adapted = adapt(dict(of_try), system.splits(own))
        return {n: value for n, value in adapted.items() if n in fields or n not in of_try or value != of_try[n]}

    @functools.cached_property
    def _system(self) -> Training | Adapted:
        if isinstance(self.base, str | Config):
            config = configs.load(self.base) if isinstance(self.base, str) else self.base
            return Training(config, draw=self.draw)
        if isinstance(self.base, Training):
            return dataclasses.replace(self.base, draw=self.draw or self.base.draw)
        return Adapted(self.base)


def _check_same(folder: pathlib.Path, system: Training | Adapted) -> None:
    """Check that a folder whose runs are to be merged has an experiment on the same base and own code.

    Raises:
      ConfigError: it has another, or none.
    """
    if not (folder / "config.json").exists() or not (folder / run_json.BLOCKS).exists():
        raise ConfigError(f"--merge: {folder}: there is no sweep or experiment; name its folder, such as sweeps/NAME")
    stored = run_json.read_config(folder, run_json.REPAIR)
    differing = run_json.config_differences(stored["config"], system.content())
    differing += run_json.differences(stored.get("own", {}) | {"file": ""}, system.own.metadata() | {"file": ""}, "own")
    if differing:
        raise ConfigError(
            f"--merge: {folder}: has another config or other code of your own; differing are {'; '.join(differing)}; "
            "merge folders of the same command alone"
        )
