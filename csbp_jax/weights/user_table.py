"""Tables of names that users write for files whose names are not those of published code."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from jax.tree_util import tree_leaves_with_path

from csbp_jax.config import ConfigError, suggestion
from csbp_jax.runtime import files
from csbp_jax.weights import matching
from csbp_jax.weights.names import Table

UserTable = Mapping[str, str | None]
"""Modules of the file for those of the network, ``{"conv1/conv": "features.0"}``, and ``None`` for modules or keys of
the file that are not read, ``{"aux_head": None}``."""


def read(file: str | os.PathLike[str]) -> UserTable:
    """Read a table from a JSON file, ``{"conv1/conv": "features.0", "aux_head": null}``.

    Raises:
      ConfigError: it cannot be read, is no regular file, or is not an object of strings and nulls.
    """
    with files.readable(file, "write it as JSON", (ValueError, RecursionError), "not JSON"):
        table = files.read_json(pathlib.Path(file))
    if not isinstance(table, dict) or not all(isinstance(value, str | None) for value in table.values()):
        raise ConfigError(f'{file}: not a table of names, such as {{"conv1/conv": "features.0", "aux_head": null}}')
    return table


def merged(base: Table | None, user: UserTable, shapes: Any) -> Table:
    """Return a published table, if there is one, with the user's names in place of its own.

    Args:
      base: the published table.
      user: the user's table; without ``base``, it names all modules, and their order stays.
      shapes: the network's variables, as ``jax.eval_shape`` gives them.

    Raises:
      ConfigError: the table names a module that the network does not have.
    """
    leaves = [matching.name_of(path) for path, _ in tree_leaves_with_path(shapes)]
    known = dict.fromkeys([*(base.names if base else ()), *(leaf.rpartition("/")[0] for leaf in leaves), *leaves])
    for module, name in user.items():
        if name is not None and module not in known:
            raise ConfigError(
                f"table of names: {module!r} is no module of the network; {suggestion(module, list(known))}"
            )
        if name is None and module in known:
            raise ConfigError(
                f"table of names: {module!r} is a module of the network, and needs a name; null is for modules of the "
                "file that are not read"
            )
    names = {module: name for module, name in user.items() if name is not None}
    unread = [module for module in user if module not in names]
    published = Table("", {}) if base is None else base
    return published._replace(
        source=f"{base.source}, changed by your table" if base else "your table",
        names=published.names | names,
        unused="|".join([published.unused, *(rf"^{re.escape(module)}(\.|$)" for module in unread)]),
    )
