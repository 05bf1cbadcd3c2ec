"""Errors with one-line messages, each with its own exit code on the command line."""

import difflib
from collections.abc import Collection


class ConfigError(ValueError):
    """An invalid option, value or file. The message is one line: what is wrong, where, and what is allowed."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, or a run without a usable checkpoint."""


class Diverged(RuntimeError):
    """Training that has failed: a loss or gradient that was not finite in three steps in a row, or too large a loss."""


class Lost(RuntimeError):
    """A process of the same run that has ended too early."""


def suggestion(word: str, names: Collection[str]) -> str:
    """Return the names nearest to a wrong word, ``"perhaps you meant ..."``, or all of them, ``"there are ..."``.

    >>> suggestion("z0", ["seed", "chaos.z0"])
    'perhaps you meant chaos.z0'
    """
    last_part = [name for name in names if name.rpartition(".")[2] == word]
    nearest = last_part or difflib.get_close_matches(word, list(names), n=3)
    return f"perhaps you meant {', '.join(nearest)}" if nearest else f"there are {', '.join(names)}"
