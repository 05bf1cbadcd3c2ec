"""Skeleton of a study: command line, resumed results, provenance, and the files that it writes.

A study is a module with a ``main(arguments=None)``. Its folder holds ``NAME.json`` (all numbers), ``table.md`` (made
from them) and figures as .png and .pdf. Finished work is read back from ``NAME.json`` and not done again.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from csbp_jax import configs, data
from csbp_jax.cli.options import parse
from csbp_jax.config import Config, ConfigError, Diverged, from_json, to_json
from csbp_jax.reporting import plots
from csbp_jax.runtime import files, hardware, preemption
from csbp_jax.training import run_dir

Content = dict[str, Any]
"""The content of a results file."""

RESULTS, CHECKS = pathlib.Path("docs/results"), pathlib.Path("docs/checks")
PRESETS = RESULTS / "presets"
WORK = pathlib.Path("runs")
"""Folders of experiments, from which a study makes its results."""
ORIGIN = ("command", "versions", "machine", "device", "commit")
"""The names of :func:`provenance`."""


# --- command line -------------------------------------------------------------------------------------------------


def make_parser(
    doc: str | None, out: str | pathlib.Path | None = None, *, data_dir: bool = False, **sizes: Any
) -> argparse.ArgumentParser:
    """A parser with ``--out`` and, if asked for, ``--data-dir``.

    Args:
      doc: docstring of the study, which ``--help`` prints.
      out: default of ``--out``; text is a folder below docs/results.
      sizes: options that are whole numbers from 1 on, such as ``seeds``, with their defaults.
    """
    parser = argparse.ArgumentParser(
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,  # it holds the command and what its options mean
        allow_abbrev=False,
    )
    if data_dir:
        parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / out if isinstance(out, str) else out)
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=positive, default=size)
    return parser


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not possible; allowed are whole numbers from 1 on")
    return int(text)


def make_dataset_parser(doc: str | None, **sizes: Any) -> argparse.ArgumentParser:
    """A parser of a study on the config of a data set: ``DATASET``, ``--data-dir``, ``--out`` and sizes."""
    parser = make_parser(doc, data_dir=True, **sizes)
    parser.add_argument("dataset", choices=configs.NAMES, metavar="DATASET")
    return parser


def parse_dataset(
    parser: argparse.ArgumentParser, module: str, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, list[str], Config]:
    """Parse ``DATASET [OPTIONS] [--FIELD VALUE ...]``; ``module`` names the command in messages.

    Returns the options, the remaining words (fields of the config), and the config with them.
    """
    options, fields = parser.parse_known_args(arguments)
    return options, fields, parse(configs.load(options.dataset), fields, module)


@contextlib.contextmanager
def one_line_errors(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Exit with usage and one line if a config is not possible or a run diverges."""
    try:
        yield
    except (ConfigError, Diverged) as error:
        parser.error(str(error))


def run(main: Callable[[], None]) -> None:
    """Run a study as a command, which SIGTERM and Ctrl-C end in one line, with the exit codes of ``csbp_jax``."""
    try:
        with preemption.on_signals():
            main()
    except preemption.Stopped as stopped:
        print("stopped; the same command goes on from the results that are stored", file=sys.stderr)
        sys.exit(stopped.code)


def float64() -> contextlib.AbstractContextManager[None]:
    """As ``hardware.float64``, but exits with one line on a TPU."""
    try:
        return hardware.float64()
    except ConfigError as error:
        raise SystemExit(str(error)) from None


# --- results ------------------------------------------------------------------------------------------------------


def resume(parser: argparse.ArgumentParser, file: pathlib.Path, settings: Content, empty: Content) -> Content:
    """Read the results of a file, or begin with ``settings | empty``; makes the folder.

    Exits with usage and one line if the file was made with other settings.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    content: Content = json.loads(file.read_text()) if file.exists() else settings | empty
    stored = {name: content.get(name) for name in settings}
    if config := stored.get("config"):
        stored["config"] = to_json(from_json(config))  # an older file lacks newer options
    if stored != settings:
        parser.error(f"{file}: made with other options; give another --out")
    return content


def check_data(parser: argparse.ArgumentParser, file: pathlib.Path, content: Content, name: str, mark: str) -> None:
    """Record the mark of a data set before results are measured on it; it changes when the data do.

    The content of a new file has an empty ``data_marks``. Exits with usage and one line if the file's results are of
    other data or, as in older files, nothing says of which.
    """
    if content.get("data_marks", {name: ""}).setdefault(name, mark) != mark:
        parser.error(f"{file}: of other data, or without a record of its data; give another --out")


def data_mark(config: Config, data_dir: str) -> str:
    """The digest of a config's data, as the folder of a run has it.

    Raises:
      ConfigError: as ``data.fingerprint``.
    """
    return run_dir.fingerprint_digest(data.fingerprint(config, data_dir))


def sign(content: Content, origin: Content) -> None:
    """Say in the content, or in its ``provenance``, that a call adds to it; ``later`` has those unlike the first."""
    record = content.get("provenance", content)
    first = {name: record[name] for name in ORIGIN if name in record}
    if not first:
        record |= origin
    elif origin not in (first, *record.get("later", [])):
        record["later"] = [*record.get("later", []), origin]


def write_json(file: pathlib.Path, content: Content) -> None:
    """Write results atomically, and make their folder; afterwards is a good time for a stop that a signal asked for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(file, content)
    preemption.current().raise_if_requested()


def store(file: pathlib.Path, content: Content, command: str) -> None:
    """Write results to which something was just added by a call, with its provenance."""
    sign(content, provenance(command))
    write_json(file, content)


def read(parser: argparse.ArgumentParser, file: pathlib.Path, command: str) -> Content:
    """Read the results of another study, which ``command`` makes; exits with usage and one line if there are none."""
    if not file.exists():
        parser.error(f"{file}: there is no such file; run {command} first")
    return json.loads(file.read_text())


def command_of(
    parser: argparse.ArgumentParser, module: str, options: argparse.Namespace, fields: Sequence[str] = ()
) -> str:
    """The command of a study: its data set, if it has one, the options that differ from their defaults, and fields."""
    changed = {name: value for name, value in vars(options).items() if value != parser.get_default(name)}
    words = [changed.pop("dataset")] if "dataset" in changed else []
    for name, value in changed.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return f"{module} {shlex.join([*words, *fields])}".rstrip()


def provenance(command: str, packages: Sequence[str] = ("jax", "numpy", "scipy", "optax")) -> Content:
    """``{command, versions, machine, device}``, and ``commit`` where the code is in a git repository."""
    revision = _commit()
    return {
        "command": command,
        "versions": {package: metadata.version(package) for package in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "device": jax.devices()[0].device_kind,
        **({"commit": revision} if revision else {}),
    }


@functools.cache  # later commits are not of the code that runs
def _commit(folder: pathlib.Path = pathlib.Path(__file__).parent) -> str | None:
    """Hash of the checked-out commit, with ``-dirty`` if other files than results differ from it.

    A study that writes its results as it goes makes these differ itself.
    """
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        paths = (":/", *(f":(top,exclude){folder}" for folder in (RESULTS, CHECKS)))
        others = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *paths], capture_output=True)
    except OSError:  # git is not installed
        return None
    return None if head.returncode else head.stdout.strip() + "-dirty" * bool(others.returncode)


def write(folder: pathlib.Path, name: str, content: Content, page: str) -> None:
    """Write ``NAME.json`` and ``table.md`` into the folder, and print the table."""
    write_json(folder / f"{name}.json", content)
    (folder / "table.md").write_text(page + "\n")
    print(page)


def write_arrays(file: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed .npz file atomically."""
    with files.replacing(file) as temporary, open(temporary, "wb") as out:  # to a path, NumPy would add .npz
        np.savez_compressed(out, **arrays)


def save_figure(figure: Any, folder: pathlib.Path, name: str, dpi: int = 120) -> None:
    """Write ``NAME.png`` and ``NAME.pdf``, and make their folder."""
    plots.save(figure, folder / f"{name}.png", dpi=dpi)


def rule(verdict: str) -> str:
    """What pages call a plan's verdict on a claim: its rule is met or failed in these systems, the claim says more."""
    return {"confirmed": "met", "bounded": "met in part", "refuted": "failed"}.get(verdict, verdict)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


# --- data ---------------------------------------------------------------------------------------------------------


def all_records(source: data.DataSource) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """All records of a source as evaluation reads them: ``x [N, T or 1, ...]`` and labels ``[N]``."""
    batch = data.Unaugmented(source).take(np.arange(len(source)), np.zeros((len(source), 0), np.float32))
    return batch["x"], batch["y"].astype(np.int32)


# --- numbers ------------------------------------------------------------------------------------------------------


def finite_or_none(value: Any) -> float | None:
    """A number as JSON has it; None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None


def to_float64(tree: Any) -> Any:
    """Cast every leaf to float64; under :func:`float64` only."""
    return jax.tree.map(lambda leaf: leaf.astype(float), tree)


def changed_fields(setting: Any) -> Content:
    """Fields of a NamedTuple that differ from their defaults."""
    return {name: value for name, value in setting._asdict().items() if value != setting._field_defaults[name]}
