"""Runs as a table: a row for each run, with what differs between them and what was measured."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from csbp_jax.reporting import measures, plots, plots_runs
from csbp_jax.reporting.format import fields_text, interval_text, short_texts
from csbp_jax.reporting.measures import Measure
from csbp_jax.reporting.statistics import AnyTest, Interval, mean_and_ends
from csbp_jax.runs import csv_file, reading
from csbp_jax.runs.contrast import Contrast, Over, contrast
from csbp_jax.runs.reading import COLUMNS, CURVES, TABLE
from csbp_jax.runs.run import Run, WeightsOf, plain, read_finished
from csbp_jax.runs.shown import Shown

if TYPE_CHECKING:
    from csbp_jax.reporting.plots_runs import Figure

TERM = "chaos."
"""What the names of a chaos term's fields start with."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RunTable(Shown):
    """Runs, and what can be said of them.

    frame: a row for each run: ``case`` (what is never pooled: data set, fold; "" for a single one), ``arm``, ``draw``
    and ``try`` of its settings, ``role`` ("tune" or "test"), ``seed``, then fields, then measures. A run that diverged
    has no measures (NaN) but ``diverged``. ``run`` is the folder of each run that has weights.
    fields: columns that are fields of the config; those that differ.
    measures: columns that were measured; the first is the one that contrasts use by default. Accuracies and F1 are
      shares.
    folder: of the experiment, from which the paths ``run`` start.
    shared: fields of the config that are the same in all runs, where they are known.
    shares: measures that are from 0 to 1, and written in percent; by default accuracies and F1, by their names.
    """

    frame: pd.DataFrame
    fields: tuple[str, ...]
    measures: tuple[str, ...]
    folder: pathlib.Path | None = None
    shared: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shares: tuple[str, ...] | None = None

    @classmethod
    def read(cls, runs: str | pathlib.Path | Sequence[str | pathlib.Path]) -> "RunTable":
        """Read folders of finished runs, of any configs, or the folder of a finished experiment.

        Runs of different data are cases. Arms are named by the fields in which runs of a case differ, but for the seed;
        single runs that differ in several fields are named by their folders.

        Args:
          runs: folders of runs, or that hold runs, or patterns such as ``"runs/*"``, of which matches with a config are
            read.

        Raises:
          ConfigError: there is no run, one is not finished, or two differ in nothing that can change a result; or the
            table of an experiment cannot be read.
        """
        if isinstance(runs, str | pathlib.Path) and (pathlib.Path(runs) / TABLE).exists():
            folder = pathlib.Path(runs)
            return cls(*reading.of_experiment(folder), folder, reading.shared_of_experiment(folder))
        return cls.of(read_finished(reading.matches(runs)))

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "RunTable":
        """Make the table of runs, of which those without a result have no measures.

        Raises:
          ConfigError: no runs, or two differ in nothing that can change a result.
        """
        return cls(*reading.of_runs(runs), shared=reading.shared_of_runs(runs))

    @classmethod
    def read_csv(
        cls,
        file: str | pathlib.Path,
        *,
        arm: str,
        seed: str,
        draw: str | None = None,
        shares: Sequence[str] | None = None,
    ) -> "RunTable":
        """Read a table of anybody's runs: a CSV file with a row for each run.

        The numbers are those of the file: nothing shows whether it was edited or runs were left out, as the sealed
        results of an experiment do (:meth:`read`). A table that ``csbp_jax`` has written keeps its cases, tries and
        roles.

        Args:
          file: comma-separated, with a first line of names. An empty cell or NaN is a run without this measure.
          arm: the column with the name of the method.
          seed: the column by which runs of two arms make a pair.
          draw: the column of what several seeds belong to, such as a draw of settings; by default none.
          shares: measures that are from 0 to 1, and compared in percentage points; by default those whose names are
            of accuracies and F1.

        Returns:
          The table; its measures are all other columns that hold numbers.

        Raises:
          ConfigError: the file cannot be read, lacks a column, or has two runs of the same arm and seed; or a share is
            not from 0 to 1.
        """
        frame, of_file = csv_file.read(pathlib.Path(file), arm=arm, seed=seed, draw=draw)
        table = cls(frame, (), of_file, shares=None if shares is None else tuple(shares))
        csv_file.check_shares(file, frame, [name for name in of_file if table.shown_as(name).share])
        return table

    def shown_as(self, measure: str) -> Measure:
        """Return how a measure is named and written."""
        by_name = measures.of(measure)
        return by_name if self.shares is None else by_name._replace(share=measure in self.shares)

    @property
    def primary(self) -> str:
        """Name of the measure by which the runs are compared: "accuracy", "f1" or "r2"."""
        return measures.primary(self.measures, "last_test_")

    @property
    def arms(self) -> list[str]:
        """Names of the arms, in the order of their first runs."""
        return list(dict.fromkeys(self.frame["arm"]))

    def of_arms(self) -> dict[str, dict[str, Any]]:
        """Return the fields of each arm's first run."""
        first = self.frame.drop_duplicates("arm")
        # With the column of arms: in pandas 2, to_dict("records") has no rows where there are no columns.
        rows = first[["arm", *self.fields]].to_dict("records")
        return {row["arm"]: {field: row[field] for field in self.fields} for row in rows}

    def where(self, **columns: Any) -> "RunTable":
        """Return the runs whose columns have these values: ``table.where(case="digits", **{"chaos.z0": 3.0})``."""
        rows = self.frame
        for name, value in columns.items():
            rows = rows[np.array([cell == value for cell in rows[name]], bool)]
        return dataclasses.replace(self, frame=rows)

    def settings(self) -> pd.DataFrame:
        """Summarise the runs of each setting: those that differ in the seed alone.

        Returns:
          A row for each, with columns ``case``, ``arm``, ``draw``, ``try``, ``role`` and the fields; ``n``, the number
          of runs that did not diverge, and ``diverged``, that of others; and of each measure ``MEASURE_mean``, with
          ``_low`` and ``_high``, the ends of its 95 % interval over the runs, by Student's t
          (:func:`csbp_jax.reporting.statistics.student_of_shares` of an accuracy). The number of an epoch, such as
          that of the best validation, has a mean alone.
        """
        keys = [*COLUMNS[:-1], *self.fields]
        rows = []
        for values, runs in self._finite().groupby(keys, sort=False, dropna=False):
            diverged = int(runs["diverged"].sum()) if "diverged" in runs else 0
            row = dict(zip(keys, values, strict=True)) | dict(runs.iloc[0][list(self.fields)])
            row |= {"n": len(runs) - diverged, "diverged": diverged}
            for measure in self._numbers():
                ends = mean_and_ends(runs[measure].dropna(), self.shown_as(measure).share)
                of_measure = dict(zip(Interval._fields, ends, strict=True))
                if measure.endswith("_epoch"):
                    of_measure = {"mean": of_measure["mean"]}
                row |= {f"{measure}_{end}": value for end, value in of_measure.items()}
            rows.append(row)
        return reading.with_fields(rows, self.fields)

    def _numbers(self) -> list[str]:
        return [measure for measure in self.measures if measure != "diverged"]

    def _finite(self) -> pd.DataFrame:
        """Return the runs, without the measures of those that diverged."""
        if "diverged" not in self.frame:
            return self.frame
        frame, numbers = self.frame.copy(), self._numbers()
        frame[numbers] = frame[numbers].astype(float).mask(frame["diverged"].astype(bool))
        return frame

    def best(self, arm: str, measure: str | None = None) -> dict[str, Any]:
        """Return the fields of an arm's best try: that of the best mean validation over its seeds.

        Args:
          arm: its runs of role "tune" are compared, but tries of which a run diverged.
          measure: another one, the larger the better; by default the first of validation, such as its accuracy.

        Raises:
          ValueError: the arm has no such runs, those of several cases (see :meth:`where`), or no measure of validation.
        """
        of_validation = f"validation_{self.primary}"
        measure = measure or next((name for name in self.measures if of_validation in name), "")
        if measure not in self.measures:
            raise ValueError(f"measure: {measure or of_validation} is none of {', '.join(self.measures)}")
        settings = self.where(arm=arm, role="tune").settings()
        finite = settings[settings["diverged"] == 0] if len(settings) else settings
        if not len(finite) or finite["case"].nunique() > 1:
            problem = "runs of several cases; select one (RunTable.where)" if len(finite) else "no tries that converged"
            raise ValueError(f"arm {arm}: has {problem}")
        row = finite.iloc[int(finite[f"{measure}_mean"].argmax())]
        return {field: plain(row[field]) for field in self.fields}

    def contrast(
        self,
        arm: str | Sequence[str],
        others: str | Sequence[str] | None = None,
        *,
        measure: str | None = None,
        over: Over | None = None,
        test: AnyTest = "t",
        margin: float | None = None,
        confidence: float = 0.95,
        overlap: float = 0.0,
    ) -> Contrast:
        """Compare arms with others by the mean difference of pairs: runs of the same case, draw and seed.

        Runs of role "test" count. Cases are compared each by itself.

        Args:
          arm: name of the arm, or of several.
          others: what it is compared with; by default all others. p is corrected over all differences of a case.
          measure: a column; by default the first measure.
          over: what a pair is: "seed"; "draw", of which seeds are averaged first, by default where there are several;
            or "case", of which all runs are averaged first, and which are then the pairs of a single difference.
          test: "t", "signed-rank" or "mcnemar" (of a measure that is 0 or 1), of
            :func:`csbp_jax.reporting.statistics.paired`; or "welch", where equal seeds of two arms have nothing in
            common, :func:`csbp_jax.reporting.statistics.welch`.
          margin: largest difference without importance, in the unit of the measure; of an accuracy or F1, in
            percentage points. With it, a difference may be shown to be "equal".
          confidence: of the intervals.
          overlap: test over training examples, of pairs that are folds of the same data; see ``paired``.

        Raises:
          ValueError: no such arm, measure or test, or several runs of an arm for one case, draw and seed.
        """
        arms = [arm] if isinstance(arm, str) else list(arm)
        rest = [name for name in self.arms if name not in arms] if others is None else others
        rest = [rest] if isinstance(rest, str) else list(rest)
        pairs = [(first, second) for first in arms for second in rest if first != second]
        return self.contrast_pairs(
            pairs, measure=measure, over=over, test=test, margin=margin, confidence=confidence, overlap=overlap
        )

    def contrast_pairs(
        self, pairs: Sequence[tuple[str, str]], *, measure: str | None = None, over: Over | None = None, **options: Any
    ) -> Contrast:
        """Compare the first arm of each pair with its second; options and errors are those of :meth:`contrast`."""
        runs, measure = self.where(role="test")._finite(), self._measure(measure)
        if unknown := {arm for pair in pairs for arm in pair} - set(runs["arm"]):
            raise ValueError(f"arm: {sorted(unknown)[0]!r} has no run of role test; arms are {', '.join(self.arms)}")
        over = over or ("draw" if runs["draw"].nunique() > 1 else "seed")
        compared = contrast(runs, pairs, measure, over=over, shown=self.shown_as(measure), **options)
        return dataclasses.replace(compared, notes=tuple(self._telling(runs, pairs)))

    def _telling(self, runs: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
        """Yield what the comparisons of a term with its control can tell, if the runs' terms are known."""
        known = {*self.fields, *self.shared}
        if not {"chaos.term", "chaos.substeps"} & set(self.fields) or "chaos.scale" not in known:
            return
        from csbp_jax.runs import telling  # late: reading and comparing other runs needs no JAX

        def of_arm(name: str) -> list[dict[str, Any]]:
            rows = runs.loc[runs["arm"] == name, list(self.fields)]
            return [{**self.shared, **{str(field): row[field] for field in row}} for row in rows.to_dict("records")]

        yield from telling.notes([(of_arm(arm), of_arm(other)) for arm, other in pairs])

    def _measure(self, name: str | None) -> str:
        """Return the name of a measure, by default of the first.

        Raises:
          ValueError: there is no such measure.
        """
        name = name or self.measures[0]
        if name not in self.measures:
            raise ValueError(f"measure: {name!r} is none of {', '.join(self.measures)}")
        return name

    def plot(self, measure: str | None = None, *, file: str | pathlib.Path | None = None) -> "Figure":
        """Draw a measure of each run of role "test": a point a seed, pairs joined, with means and 95 % intervals.

        Args:
          measure: a column; by default the first measure.
          file: where it is also written, with a suffix of Matplotlib's; ``.png`` also writes a PDF beside it.

        Raises:
          ValueError: there is no run of role "test", or no such measure.
        """
        measure = self._measure(measure)
        runs, shown = self.where(role="test")._finite(), self.shown_as(measure)
        if not len(runs):
            raise ValueError("no run of role test to draw")
        panels = {}
        for case, of_case in runs.groupby("case", sort=False):
            values = of_case.pivot_table(measure, ["draw", "seed"], "arm", sort=False)
            panels[str(case)] = values[[arm for arm in self.arms if arm in values]]
        figure = plots_runs.draw(panels, measures.words(measure) + shown.unit, shown.scale)
        if file is not None:
            plots.save(figure, pathlib.Path(file), self.caption(measure), dpi=150)
        return figure

    def caption(self, measure: str | None = None) -> str:
        """Return the caption of :meth:`plot`."""
        name, count = measures.words(measure or self.measures[0]), int((self.frame["role"] == "test").sum())
        return (
            f"{name[:1].upper()}{name[1:]} of {count} runs, a point for each, pairs joined; means with 95 % intervals."
        )

    def curves(self) -> pd.DataFrame:
        """Return the measures of each epoch, a row for each epoch of each run; no rows where none were recorded."""
        if self.folder or "run" not in self.frame:  # an experiment has its curves in one file, also beside weights
            file = self.folder and self.folder / CURVES
            curves = reading.read_csv(file) if file and file.exists() else pd.DataFrame(columns=[*COLUMNS, "epoch"])
            return curves.merge(self.frame[list(COLUMNS)])
        rows = []
        for _, run in self.frame.iterrows():
            of_run = dict(run[[*COLUMNS, *self.fields]])
            rows += [of_run | row for row in Run.read(run["run"]).rows() if row["kind"] == "epoch"]
        return pd.DataFrame(rows)

    def plot_curves(self, measure: str | None = None, *, file: str | pathlib.Path | None = None) -> "Figure | None":
        """Draw a measure of each epoch: the mean over the seeds of each arm, with its 95 % interval; runs as of plot.

        Args:
          measure: a column of :meth:`curves`; by default the validation accuracy, or what else the task has.
          file: as of :meth:`plot`.

        Returns:
          The figure, or None if the runs have recorded no curves, or all diverged.

        Raises:
          ValueError: the curves have no such measure.
        """
        curves, given = self.curves(), measure
        measure = given or f"validation_{self.primary}"
        if measure not in curves:
            known = [str(name) for name in curves if name not in (*COLUMNS, *self.fields, "kind", "epoch", "step")]
            if given and known:
                raise ValueError(f"measure: {given!r} is none of {', '.join(known)}")
            return None
        runs, shown = self.frame, self.shown_as(measure)
        finite = runs[~runs["diverged"].astype(bool)] if "diverged" in runs else runs
        tests = curves[curves["role"] == "test"].merge(finite[list(COLUMNS)])
        if not len(tests):
            return None
        figure = plots_runs.draw_curves(tests, measure, measures.words(measure) + shown.unit, shown.scale)
        if file is not None:
            plots.save(figure, pathlib.Path(file), self.curves_caption(measure), dpi=150)
        return figure

    def curves_caption(self, measure: str | None = None) -> str:
        """Return the caption of :meth:`plot_curves`."""
        name = measures.words(measure or f"validation_{self.primary}")
        return f"{name[:1].upper()}{name[1:]} of each epoch: means over seeds, with 95 % intervals."

    def weights(
        self, row: "Mapping[Any, Any] | pd.Series[Any]", weights_of: WeightsOf = "last", **options: Any
    ) -> dict[str, Any]:
        """Return the variables of a run, ``{"params": ..., "batch_stats": ...}`` (:func:`csbp_jax.load`).

        Args:
          row: of :attr:`frame`, such as ``table.frame.iloc[0]``.
          weights_of: of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
          options: ``trust`` and ``own`` of :func:`csbp_jax.load`, of a run with own code.

        Raises:
          ValueError: the run is an experiment's, which keeps no weights by default.
          ConfigError: they cannot be read, or an experiment's are those of another epoch.
        """
        if not isinstance(run := row.get("run"), str):
            raise ValueError("this experiment keeps no weights of the run; let it, in a new folder: run(weights=True)")
        from csbp_jax.runs import restore

        return restore.restore((self.folder or pathlib.Path()) / run, weights_of, **options).variables

    def to_csv(self, file: str | pathlib.Path | None = None) -> str | None:
        """Write a row for each run to a file, or return it as text."""
        return self.frame.to_csv(file, index=False)

    def heading(self) -> str:
        """Return how many runs, arms and seeds the table has."""
        counts = {name: self.frame[name].nunique() for name in ("case", "arm", "draw", "seed")}
        several = [f"{count} {name}s" for name, count in counts.items() if count > 1]
        tuning = int((self.frame["role"] == "tune").sum())
        note = f"; {tuning} are tries, which are not shown" if tuning and self._shown() is not self.frame else ""
        return f"{len(self.frame)} run{'s' * (len(self.frame) != 1)}{': ' * bool(several)}{', '.join(several)}{note}"

    def _shown(self) -> pd.DataFrame:
        """Return the runs of role "test", or all if there is none."""
        tests = self.frame["role"] == "test"
        return self.frame[tests] if tests.any() and not tests.all() else self.frame

    def cells(self) -> pd.DataFrame:
        """Return the settings that are tested, with their first two measures, as text."""
        settings = dataclasses.replace(self, frame=self._shown()).settings()
        if not len(settings):
            return settings
        columns = [name for name in COLUMNS[:-1] if name == "arm" or settings[name].nunique() > 1]
        cells = settings[columns].astype(str)
        if self.folder or "run" not in self.frame:  # arms of runs that were read have the names of their fields
            for field in self.fields:
                cells[field] = short_texts(list(settings[field]))
            of_fields = [fields_text(dict(row)) for _, row in settings[list(self.fields)].iterrows()]
            cells = cells.drop(columns="arm") if self.fields and list(settings["arm"]) == of_fields else cells
        cells["n"] = settings["n"].astype(str)
        for measure in self._numbers()[:2]:
            # The number of an epoch has a mean alone.
            ends = settings.reindex(columns=[f"{measure}_{end}" for end in Interval._fields]).to_numpy(float)
            texts = [interval_text(row, self.shown_as(measure).share) for row in ends]
            # A measure may also be missing because it is another task's.
            texts = [text or "diverged" * (n == 0) for text, n in zip(texts, settings["n"], strict=True)]
            cells[measures.words(measure) + self.shown_as(measure).unit] = texts
        if settings["diverged"].any():
            cells["diverged"] = settings["diverged"].astype(str)
        return cells


def plain_controls(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """Return for each arm the one that is equal but for its chaos term, which is off; None if there is none.

    Without a chaos term the other fields of :data:`TERM` have no effect, so these may differ; where several arms
    qualify, it is the first of those in which fewest differ.

    Args:
      arms: fields of each arm.
    """

    def is_plain(fields: Mapping[str, Any]) -> bool:
        return not np.any(fields.get("chaos.z0", 0))

    def differing(arm: str, other: str, prefix: str = "") -> int:
        names = {name for name in {*arms[arm], *arms[other]} if name.startswith(prefix)}
        return sum(arms[arm].get(name) != arms[other].get(name) for name in names)

    controls: dict[str, str | None] = {}
    for arm, fields in arms.items():
        equal = [
            name
            for name, others in arms.items()
            if name != arm and is_plain(others) and differing(arm, name) == differing(arm, name, TERM)
        ]
        controls[arm] = None if is_plain(fields) else min(equal, key=lambda name: differing(arm, name), default=None)
    return controls
