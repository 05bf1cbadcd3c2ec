"""Which key of a file belongs to which leaf of a network, or one line that says why they do not fit."""

import os
import re
from collections.abc import Mapping
from typing import Any

from jax.tree_util import keystr, tree_leaves_with_path

from csbp_jax import config as configuration
from csbp_jax.config import ConfigError
from csbp_jax.weights import names
from csbp_jax.weights.names import LEAVES, Table

_COUNTER = r"(^|\.)num_batches_tracked$"


def choose(path, config, tensors):
    """Of the network's published forms, the one whose modules are most alike to the file's."""
    if not (tables := names.of(config.name)):
        raise ConfigError(
            f"{path}: {config.name} was not published in PyTorch; networks that were: {', '.join(names.networks())} "
            "(csbp_jax.weights.load takes a table of your own)"
        )
    return max(tables, key=lambda table: _alike(table, tensors))


def fit(
    found: Mapping[str, tuple[int, ...]],
    shapes: Any,
    config: configuration.Model,
    table: Table,
    path: str | os.PathLike[str] = "checkpoint",
) -> dict[str, str]:
    """``{leaf here: key there}``, where every leaf has its key, every key its leaf, and all shapes agree.

    Args:
      found: shapes of the file, by key.
      shapes: the network's variables, as ``jax.eval_shape`` gives them.

    Raises:
      ConfigError: a key is missing or left over, or a shape differs.
    """
    leaves = {name_of(tree_path): leaf.shape for tree_path, leaf in tree_leaves_with_path(shapes)}
    keys = {name: _key(table.names, name, path) for name in leaves}
    missing = sorted(set(keys.values()) - set(found))
    if missing:
        raise ConfigError(f"{path}: lacks {_some(missing)} of {config.name} ({table.source}){_other(config, found)}")
    ignored = re.compile(f"{_COUNTER}|{table.unused}")
    over = sorted(key for key in set(found) - set(keys.values()) if not ignored.search(key))
    if over:
        mend = _left(over) or _other(config, found)
        raise ConfigError(f"{path}: has {_some(over)}, which {config.name} ({table.source}) has not{mend}")
    place = {module: i for i, module in enumerate(table.names)}
    for name, key in sorted(keys.items(), key=lambda item: place[item[0].rpartition("/")[0]]):
        want, got = _theirs(name, leaves[name]), tuple(n for n in found[key])
        if _bare(name, want) != _bare(name, got):
            raise ConfigError(f"{path}: {key} has shape {got}, but {name} wants {want}{_mend(name, want, got)}")
    return keys


def name_of(tree_path):
    """``conv1/norm/scale``, without the collection."""
    return keystr(tree_path, simple=True, separator="/").partition("/")[2]


def _key(table, name, path):
    module, _, leaf = name.rpartition("/")
    if name in table:
        return table[name]
    if module not in table:
        raise ConfigError(f"{path}: the table of names has no {module}, which the network has")
    return f"{table[module]}.{LEAVES[leaf]}"


def _alike(table, found):
    ours = {name.rpartition(".")[0] if here.endswith("/p") else name for here, name in table.names.items()}
    unused = re.compile(f"{_COUNTER}|{table.unused}")
    theirs = {key.rpartition(".")[0] for key in found if not unused.search(key)}
    return len(ours & theirs) / len(ours | theirs)


def _theirs(name, shape):
    """Shape there of a leaf here."""
    if not name.endswith("/kernel"):
        return tuple(shape)
    return tuple(shape[i] for i in (3, 2, 0, 1)) if len(shape) == 4 else tuple(reversed(shape))


def _bare(name, shape):
    """A neuron's w and TEBN's p have axes of one element there, here none."""
    return tuple(n for n in shape if n != 1) if name.rpartition("/")[2] in ("p", "w") else shape


def _some(keys):
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}"


def _other(config, found):
    """Which network the file may be of."""
    best = max(names.networks(), key=lambda network: max(_alike(table, found) for table in names.of(network)))
    alike = max(_alike(table, found) for table in names.of(best))
    return f"; it looks like --model.name {best}" if best != config.name and alike > 0.9 else ""


def _left(over):
    if all(key.endswith(".w") for key in over):
        return "; its neurons are PLIF: --model.neuron.learn layer"
    if all(key.endswith(".p") for key in over):
        return "; its norm is TEBN: --model.norm tebn"
    return ""


def _mend(name, want, got):
    layer, _, leaf = name.rpartition("/")
    if leaf == "p":
        return f"; --model.time-steps {max(got)}"
    if leaf == "w":
        return "; --model.neuron.learn layer"
    if layer == "readout/dense" and want[0] != got[0] and want[1:] == got[1:]:
        return "; --model.classes has to be the file's"
    if len(want) == 2 and want[0] == got[0]:
        return "; --model.input-shape (or --model.width) has to be the file's"
    if len(want) == 4 and want[1] != got[1] and want[0] == got[0]:
        return "; --model.input-shape has to have the file's channels"
    return "; perhaps --model.width is not the file's"
