"""Errors with one-line messages, each with its own exit code on the command line."""

import contextlib
import difflib
import errno
import os
import re
import unicodedata
from collections.abc import Collection, Iterator

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of the user's share of it, that is full."""


class ConfigError(ValueError):
    """An invalid option, value or file. The message is one line: what is wrong, where, and what is allowed."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, or a run without a usable checkpoint."""


class WriteError(CheckpointError, OSError):
    """A file of a run that cannot be written; ``errno`` is that of the system."""


@contextlib.contextmanager
def writing(file: str | os.PathLike[str]) -> Iterator[None]:
    """Name a file where it cannot be written: by itself, an error of the disk does not.

    Raises:
      WriteError: the block raised an OSError.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        full = error.errno in FULL
        reason, remedy = error.strerror or str(error), "make room" if full else "give it a disk that can be written"
        failed = WriteError(f"{os.fspath(file)}: cannot be written ({reason}); {remedy}, and the same command resumes")
        failed.errno = error.errno
        raise failed from error


class Diverged(RuntimeError):
    """Training that has failed: a loss or gradient that was not finite in three steps in a row, or too large a loss."""


class Lost(RuntimeError):
    """A process of the same run that has ended too early."""


def escaped(text: str) -> str:
    r"""Return text with control characters escaped: in names from others, they could change what a terminal shows.

    Line breaks stay, and joiners, which some scripts need.

    >>> print(escaped("a\x1b[2J\u202e"))
    a\x1b[2J\u202e
    """
    controls = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} - {*"\n\u200c\u200d"}
    return "".join(ascii(c)[1:-1] if c in controls else c for c in text)


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, or its type's name if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is used up, that of a device or of the host."""
    return isinstance(error, MemoryError) or bool(re.search("RESOURCE_EXHAUSTED|(?i:out of memory)", str(error)))


def nearest(word: str, names: Collection[str], cutoff: float = 0.6) -> list[str]:
    """Return the names that end in a wrong word, or else those most similar to it, by themselves or by their last part.

    Args:
      word: what is no name.
      names: some with parts between dots, such as ``chaos.z0``.
      cutoff: the least similarity, from 0 to 1, of :func:`difflib.get_close_matches`.

    >>> nearest("z0", ["seed", "chaos.z0"]), nearest("sed", ["seed", "chaos.z0"]), nearest("decy", ["neuron.decay"])
    (['chaos.z0'], ['seed'], ['neuron.decay'])
    """
    last_parts = {name: name.rpartition(".")[2] for name in names}
    if equal := [name for name, part in last_parts.items() if part == word]:
        return equal
    if similar := difflib.get_close_matches(word, last_parts, n=3, cutoff=cutoff):
        return similar
    similar_parts = difflib.get_close_matches(word, dict.fromkeys(last_parts.values()), n=3, cutoff=cutoff)
    return [name for name, part in last_parts.items() if part in similar_parts]


MOST_LISTED = 40
"""Most names that a message lists where none is similar to a wrong one."""


def suggestion(word: str, names: Collection[str]) -> str:
    """Return the names nearest to a wrong word, or all of them, if they are few and none is similar.

    >>> suggestion("z0", ["seed", "chaos.z0"]), suggestion("runs", ["seed", "chaos.z0"])
    ('perhaps you meant chaos.z0', 'there are seed, chaos.z0')
    """
    if similar := nearest(word, names):
        return f"perhaps you meant {', '.join(similar)}"
    if len(names) <= MOST_LISTED:
        return f"there are {', '.join(names)}"
    return f"the nearest of {len(names)} are {', '.join(difflib.get_close_matches(word, list(names), n=3, cutoff=0))}"
