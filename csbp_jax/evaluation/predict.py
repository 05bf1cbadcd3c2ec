"""A run's answers to files: for each the most probable classes."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from csbp_jax import data
from csbp_jax.config import ConfigError
from csbp_jax.data.user import arrays, prediction_inputs
from csbp_jax.evaluation import forward, restore
from csbp_jax.training import build


class Answer(NamedTuple):
    file: str
    labels: list[str]
    """The most probable classes, by name where the data tell their names; empty if the file could not be read."""
    probabilities: list[float]
    """Theirs: softmax of the logits averaged over time."""
    problem: str
    """Why the file could not be read, in one line; else empty."""


class _Held(data.DataSource):
    """Records in memory, as a source."""

    def __init__(self, records, classes):
        self.records, self.classes = records, classes

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return {"x": self.records[i], "y": np.int32(0)}


def predict(
    run: str | pathlib.Path,
    paths: Iterable[str | pathlib.Path],
    *,
    which: restore.WeightsOf = "last",
    top: int = 1,
    trust: bool = False,
    data_dir: str | pathlib.Path = "data",
) -> list[Answer]:
    """The answer to each file, in their order; a file that cannot be read does not stop the others.

    Args:
      run: the run's folder.
      paths: files of the kind that the run was trained on, see :mod:`csbp_jax.data.user.prediction_inputs`.
      which: the weights of the "last" epoch, those that validation "chosen", or their moving average, "ema".
      top: so many classes a file.
      trust: run the run's own code, if it has some (:func:`csbp_jax.evaluation.restore.load`).
      data_dir: where prepared data sets are kept; they tell the names of classes where the run's folder does not.

    Raises:
      ConfigError: no such run, or more classes are asked for than there are.
    """
    named = [pathlib.Path(path) for path in paths]
    opened = restore.restore(run, which, trust=trust)
    if not 1 <= top <= opened.config.model.classes:
        raise ConfigError(f"--top: {top} is not possible; allowed are 1 to {opened.config.model.classes}")
    if not named:
        return []
    size = min(len(named), opened.config.eval_batch_size)
    opened = opened._replace(config=dataclasses.replace(opened.config, eval_batch_size=size))
    names, read, events = _known(opened, named, data_dir)
    measure = forward.apply_all(opened, events, forward.top_classes(top))
    answers: dict[int, Answer] = {}
    for numbers, records in _groups(opened, events, read, named, answers, size):
        told = measure(_Held(records, len(names)))
        for i, classes, probabilities in zip(numbers, told["classes"], told["probability"], strict=True):
            answers[i] = Answer(str(named[i]), [names[c] for c in classes], probabilities.tolist(), "")
    return [answers[i] for i in range(len(named))]


def _known(run, paths, data_dir):
    """The classes' names, how files are read, and whether records are frames of events."""
    if not run.own.data:
        return run.classes or data.classes(run.config, data_dir), *prediction_inputs.reader(run.config, paths)
    parts, _ = build.load_data(run.config, run.own, data_dir)
    names = build.class_names(run.config, run.own, parts, data_dir)
    return names, arrays.reader(parts["train"]), parts["train"].events


def _groups(run, events, read, paths, answers, size) -> Iterator[tuple[list[int], list[Any]]]:
    """Numbers and records of up to ``size`` files whose records are alike; what cannot be read is answered here."""
    waiting: dict[Any, tuple[list[int], list[Any]]] = {}
    for i, path in enumerate(paths):
        try:
            record = read(path)
            _check_fit(run, events, record, path)
        except (ConfigError, OSError) as error:
            answers[i] = Answer(str(path), [], [], " ".join(str(error).split()))
            continue
        numbers, records = waiting.setdefault((record.shape, record.dtype), ([], []))
        numbers.append(i)
        records.append(record)
        if len(records) == size:
            yield waiting.pop((record.shape, record.dtype))
    yield from waiting.values()


def _check_fit(run, events, record, path):
    """Traces what has not this shape yet; nothing is computed."""
    shape, wanted = forward.network_input_shape(run, events, record), run.config.model.input_shape
    if shape[1:] != wanted:
        seen, takes = ("x".join(map(str, numbers)) for numbers in (shape[1:], wanted))
        raise ConfigError(f"{path}: is {seen} to the network, which takes {takes}")
    try:
        jax.eval_shape(run.apply, run.variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def table(answers: list[Answer]) -> str:
    """As CSV: ``file,label,probability``, then ``label_2,probability_2`` ...; what could not be read is left out."""
    good = [answer for answer in answers if not answer.problem]
    most = max((len(answer.labels) for answer in good), default=1)
    endings = ["", *(f"_{k}" for k in range(2, most + 1))]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", *(f"{column}{ending}" for ending in endings for column in ("label", "probability"))])
    for answer in good:
        pairs = zip(answer.labels, answer.probabilities, strict=True)
        rows.writerow([answer.file, *(cell for label, p in pairs for cell in (label, f"{p:.6g}"))])
    return text.getvalue()
