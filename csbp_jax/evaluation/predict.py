"""Predictions of a run for files: the most probable classes of each."""

import csv
import dataclasses
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.config import ConfigError, one_line
from csbp_jax.data.source import ArraySource
from csbp_jax.data.user import arrays, prediction_inputs
from csbp_jax.evaluation import forward
from csbp_jax.runs import restore
from csbp_jax.runtime.files import as_paths
from csbp_jax.training import build
from csbp_jax.training.plugins import Own


class Answer(NamedTuple):
    """Prediction for one file."""

    file: str
    labels: list[str]
    """The most probable classes, by name if the names are known; empty if the file could not be read."""
    probabilities: list[float]
    """Their probabilities: softmax of the logits averaged over time."""
    problem: str
    """Why the file could not be read, in one line; else empty."""


def predict(
    run: str | pathlib.Path,
    paths: str | pathlib.Path | Iterable[str | pathlib.Path],
    *,
    weights_of: restore.WeightsOf = "last",
    top: int = 1,
    trust: bool = False,
    own: Own | None = None,
    data_dir: str | pathlib.Path = "data",
) -> list[Answer]:
    """Predict the classes of files, in their order; a file that cannot be read does not stop the others.

    Args:
      run: the run's folder.
      paths: files, or one, of the kind that the run was trained on, see
        :mod:`csbp_jax.data.user.prediction_inputs`.
      weights_of: weights of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
      top: number of classes per file.
      trust: execute the run's own code, if it has any (:func:`csbp_jax.runs.restore.load`).
      own: the run's own parts, if it was made from Python with some.
      data_dir: folder of prepared data sets, read for the names of classes if the run's folder lacks them.

    Raises:
      ConfigError: no such run, or ``top`` exceeds the number of classes.
    """
    files = as_paths(paths)
    restored = restore.restore(run, weights_of, trust=trust, own=own)
    if not 1 <= top <= restored.config.model.classes:
        raise ConfigError(f"--top: {top} is not possible; allowed are 1 to {restored.config.model.classes}")
    if not files:
        return []
    size = min(len(files), restored.config.eval_batch_size)
    restored = restored._replace(config=dataclasses.replace(restored.config, eval_batch_size=size))
    names, read, events = _names_and_reader(restored, files, data_dir)
    measure = forward.apply_all(restored, events, forward.top_classes(top))
    answers: dict[int, Answer] = {}
    for indices, records in _groups(restored, read, events, files, answers):
        source = ArraySource(np.stack(records), np.zeros(len(records), np.int32), len(names))
        measured = measure(source)
        for i, classes, probabilities in zip(indices, measured["classes"], measured["probability"], strict=True):
            answers[i] = Answer(str(files[i]), [names[c] for c in classes], probabilities.tolist(), "")
    return [answers[i] for i in range(len(files))]


def _names_and_reader(
    run: restore.RestoredRun, files: list[pathlib.Path], data_dir: str | pathlib.Path
) -> tuple[list[str], prediction_inputs.Read, bool]:
    """Return the names of the classes, the reader of files, and whether its records are frames of events."""
    if not run.own.data:
        names = run.classes or data.classes(run.config, data_dir)
        return names, *prediction_inputs.reader(run.config, files, run.classes)
    parts, _ = restore.load_data(run, data_dir)
    names = build.class_names(run.config, parts, data_dir)
    return names, arrays.reader(parts["train"]), parts["train"].events


def _groups(
    run: restore.RestoredRun,
    read: prediction_inputs.Read,
    events: bool,
    files: list[pathlib.Path],
    answers: dict[int, Answer],
) -> Iterator[tuple[list[int], list[NDArray[Any]]]]:
    """Yield indices and records of files in batches of one shape and dtype; answer the files that cannot be read."""
    waiting: dict[Any, tuple[list[int], list[NDArray[Any]]]] = {}
    for i, path in enumerate(files):
        try:
            if path.is_dir():
                raise ConfigError(f"{path}: is a folder; name its files ({path}/*)")
            record = read(path)
            _check_fit(run, events, record, path)
        except (ConfigError, OSError) as error:
            answers[i] = Answer(str(path), [], [], one_line(error))
            continue
        except MemoryError:
            answers[i] = Answer(str(path), [], [], f"{path}: needs more memory than this machine has; make it smaller")
            continue
        indices, records = waiting.setdefault((record.shape, record.dtype), ([], []))
        indices.append(i)
        records.append(record)
        if len(records) == run.config.eval_batch_size:
            yield waiting.pop((record.shape, record.dtype))
    yield from waiting.values()


def _check_fit(run: restore.RestoredRun, events: bool, record: NDArray[Any], path: pathlib.Path) -> None:
    """Check that the network takes a record of this shape, by tracing it."""
    shape, expected = forward.network_input_shape(run, events, record), run.config.model.input_shape
    if shape[1:] != expected:
        actual, needed = ("x".join(map(str, sizes)) for sizes in (shape[1:], expected))
        raise ConfigError(f"{path}: is an input of {actual}, but the network takes {needed}")
    try:
        jax.eval_shape(run.apply, run.variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def table(answers: list[Answer]) -> str:
    """Format as CSV ``file,label,probability,label_2,probability_2,...``, without files that could not be read."""
    readable = [answer for answer in answers if not answer.problem]
    most = max((len(answer.labels) for answer in readable), default=1)
    endings = ["", *(f"_{k}" for k in range(2, most + 1))]
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", *(f"{column}{ending}" for ending in endings for column in ("label", "probability"))])
    for answer in readable:
        pairs = zip(answer.labels, answer.probabilities, strict=True)
        rows.writerow([answer.file, *(cell for label, p in pairs for cell in (label, f"{p:.6g}"))])
    return text.getvalue()
