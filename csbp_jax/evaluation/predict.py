"""Predictions of a run for files: the most probable classes of each, probabilities of labels, or values."""

import csv
import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.config import ConfigError, one_line
from csbp_jax.data.device import transform
from csbp_jax.data.source import ArraySource
from csbp_jax.data.user import arrays, prediction_inputs
from csbp_jax.evaluation import forward
from csbp_jax.runs import restore
from csbp_jax.runtime.files import as_paths
from csbp_jax.training import build
from csbp_jax.training.plugins import Own


class Answer(NamedTuple):
    """Prediction for one file, or for one of its time steps."""

    file: str
    labels: list[str]
    """The most probable classes, by name if the names are known, or the names of all labels or values; empty if the
    file could not be read."""
    probabilities: list[float]
    """Of classes, their probabilities: softmax of the logits averaged over time."""
    problem: str
    """Why the file could not be read, in one line; else empty."""
    values: tuple[float, ...] = ()
    """Of labels, their probabilities; or the values."""
    step: int | None = None
    """The time step, from 0, of a run whose targets are of every time step."""


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
    """Predict classes, labels or values of files, in their order; one that cannot be read does not stop the others.

    There is an answer for each file, or for each of its time steps if targets are of every one (``loss.per`` step).

    Args:
      run: the run's folder.
      paths: files, or one, of the kind that the run was trained on, see
        :mod:`csbp_jax.data.user.prediction_inputs`.
      weights_of: weights of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
      top: number of classes.
      trust: execute the run's own code, if it has any (:func:`csbp_jax.runs.restore.load`).
      own: the run's own parts, if it was made from Python with some.
      data_dir: folder of prepared data sets, read for the names of classes if the run's folder lacks them.

    Raises:
      ConfigError: no such run, or ``top`` exceeds the number of classes.
    """
    files = as_paths(paths)
    restored = restore.restore(run, weights_of, trust=trust, own=own)
    loss = restored.config.loss
    most = restored.config.model.classes if loss.task == "class" else 1
    if not 1 <= top <= most:
        raise ConfigError(f"--top: {top} is not possible; allowed are 1 to {most}")
    if not files:
        return []
    size = min(len(files), restored.config.eval_batch_size)
    restored = restored._replace(config=dataclasses.replace(restored.config, eval_batch_size=size))
    names, read, events, several = _names_and_reader(restored, files, data_dir)
    measure = forward.apply_all(restored, events, forward.predictions(loss, top))
    answers: dict[int, list[Answer]] = {}
    for indices, records in _groups(restored, read, events, files, answers):
        # One time step beside longer sequences is a sequence, and no still input, which is repeated.
        still = len(records[0]) == 1 and not several()
        listed = len({len(record) for record in records}) > 1 or (len(records[0]) == 1 and not still)
        source = ArraySource(records if listed else np.stack(records), np.zeros(len(records), np.int32), len(names))
        measured = measure(source)
        for row, (i, record) in enumerate(zip(indices, records, strict=True)):
            of_file = jax.tree.map(lambda array, at=row: array[at], measured)
            time_steps = range(restored.config.model.time_steps if still else len(record))
            steps = time_steps if loss.per == "step" else [...]
            answers[i] = [_answer(str(files[i]), names, jax.tree.map(lambda a, t=t: a[t], of_file), t) for t in steps]
    return [answer for i in range(len(files)) for answer in answers[i]]


def _answer(file: str, names: list[str], measured: dict[str, NDArray[Any]], step: Any) -> Answer:
    number = None if step is ... else step
    if "classes" in measured:
        classes, probabilities = measured["classes"], measured["probability"].tolist()
        return Answer(file, [names[c] for c in classes], probabilities, "", step=number)
    return Answer(file, names, [], "", tuple(measured["values"].tolist()), number)


def _names_and_reader(
    run: restore.RestoredRun, files: list[pathlib.Path], data_dir: str | pathlib.Path
) -> tuple[list[str], prediction_inputs.Read, bool, Callable[[], bool]]:
    """Return the names of the classes, and what :func:`prediction_inputs.reader` does."""
    if not run.own.data:
        names = run.classes or data.classes(run.config, data_dir)
        return names, *prediction_inputs.reader(run.config, files, run.classes)
    parts, _ = restore.load_data(run, data_dir)
    names = build.class_names(run.config, parts, data_dir)
    return names, arrays.reader(parts["train"]), parts["train"].events, lambda: parts["train"].lengths is not None


def _groups(
    run: restore.RestoredRun,
    read: prediction_inputs.Read,
    events: bool,
    files: list[pathlib.Path],
    answers: dict[int, list[Answer]],
) -> Iterator[tuple[list[int], list[NDArray[Any]]]]:
    """Yield indices and records of files in batches of one dtype and of one shape, but for the length of sequences;
    answer the files that cannot be read."""
    waiting: dict[Any, tuple[list[int], list[NDArray[Any]]]] = {}
    for i, path in enumerate(files):
        try:
            if path.is_dir():
                raise ConfigError(f"{path}: is a folder; name its files ({path}/*)")
            record = read(path)
            _check_fit(run, events, record, path)
        except (ConfigError, OSError, MemoryError) as error:
            lack = f"{path}: needs more memory than this machine has; make it smaller"
            answers[i] = [Answer(str(path), [], [], lack if isinstance(error, MemoryError) else one_line(error))]
            continue
        kind = (len(record) > 1, record.shape[1:], record.dtype)
        indices, records = waiting.setdefault(kind, ([], []))
        indices.append(i)
        records.append(record)
        if len(records) == run.config.eval_batch_size:
            yield waiting.pop(kind)
    yield from waiting.values()


def _check_fit(run: restore.RestoredRun, events: bool, record: NDArray[Any], path: pathlib.Path) -> None:
    """Check that the network takes a record of this shape, by tracing it."""
    _, prepare = transform.make(run.config, events)
    batch = {"x": jax.ShapeDtypeStruct((1, *record.shape), jax.dtypes.canonicalize_dtype(record.dtype))}
    shape = jax.eval_shape(functools.partial(prepare, jax.random.key(0)), batch)["x"].shape
    if shape[2:] != run.config.model.input_shape:
        actual, needed = ("x".join(map(str, sizes)) for sizes in (shape[2:], run.config.model.input_shape))
        raise ConfigError(f"{path}: is an input of {actual}, but the network takes {needed}")
    try:
        jax.eval_shape(run.apply, run.variables, jax.ShapeDtypeStruct(shape, np.float32))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def table(answers: list[Answer]) -> str:
    """Format as CSV, without files that could not be read.

    Columns are ``file,label,probability,label_2,probability_2,...`` or, of labels and values, ``file`` and their names;
    with ``step`` after ``file`` if there is an answer for every time step.
    """
    readable = [answer for answer in answers if not answer.problem]
    most = max((len(answer.labels) for answer in readable), default=1)
    endings = ["", *(f"_{k}" for k in range(2, most + 1))]
    columns = [f"{column}{ending}" for ending in endings for column in ("label", "probability")]
    has_values, has_steps = any(answer.values for answer in readable), any(a.step is not None for a in readable)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["file", *["step"] * has_steps, *(readable[0].labels if has_values else columns)])
    for answer in readable:
        pairs = zip(answer.labels, answer.probabilities, strict=not has_values)
        cells = answer.values or [cell for pair in pairs for cell in pair]
        texts = [cell if isinstance(cell, str) else f"{cell:.6g}" for cell in cells]
        rows.writerow([answer.file, *[answer.step] * has_steps, *texts])
    return text.getvalue()
