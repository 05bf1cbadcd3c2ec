"""Trained networks that ship with the package, by name; ``trained/README.md`` describes them.

Each is a published network (runs/published.py), with its measured accuracy in ``accuracy.json`` and a card.
``tools/make_shipped.py`` trains and writes them.
"""

import os
import pathlib

_TRAINED = pathlib.Path(__file__).parent / "trained"

NAMES = tuple(sorted(path.name for path in _TRAINED.iterdir() if path.is_dir()))


def find(run: str | os.PathLike[str]) -> str | None:
    """Return the name of the shipped network that ``run`` names, or None.

    A run's directory of that path (one with a ``config.json``) takes precedence.
    """
    name = os.fspath(run)
    return name if name in NAMES and not _is_run(name) else None


def notice(run: str | os.PathLike[str]) -> str | None:
    """Return a line that says which network is used, where ``run`` is the name of one that ships; None elsewhere."""
    name = os.fspath(run)
    if name not in NAMES:
        return None
    if _is_run(name):
        return f"{name}: the run in this directory, not the network that ships with csbp_jax"
    return f"{name}: the network that ships with csbp_jax (there is no run ./{name})"


def _is_run(path: str) -> bool:
    return os.path.exists(os.path.join(path, "config.json"))


def folder(name: str) -> pathlib.Path:
    """Return the directory of a shipped network, for reading."""
    return _TRAINED / name


def output_folder(name: str) -> pathlib.Path:
    """Return the directory for what commands write about a shipped network, ``shipped/NAME``."""
    return pathlib.Path("shipped", name)
