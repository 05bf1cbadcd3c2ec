"""Seals: JSON objects that hold the SHA-256 of their own content, so that a reader notices damage and edits.

A seal is no signature: whoever can write a file can also seal it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from csbp_jax.runtime import files

KEY = "sha256"
"""The key of the seal. An object without it, such as one of an older version, is read as it is."""


class Changed(ValueError):
    """A sealed object differs from what was sealed."""


def digest(content: Any) -> str:
    """Return the SHA-256 of JSON content, whatever the order of its keys and its whitespace in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(content: dict[str, Any]) -> dict[str, Any]:
    """Return JSON content as a reader will see it (lists for tuples, text for keys), with its seal."""
    content = json.loads(json.dumps(content))
    return content | {KEY: digest(content)}


def line(content: dict[str, Any]) -> str:
    """Return a line of a JSON object with its seal, which is checked without writing the object again."""
    text = json.dumps(content, sort_keys=True)
    return f'{text[:-1]}, "{KEY}": "{digest(content)}"}}\n'


_LENGTH = len(', "sha256": ""}') + 64


def parse(text: bytes) -> dict[str, Any]:
    """Parse a JSON object, and return it without its seal.

    Raises:
      Changed: its content is not what was sealed.
      ValueError: it is not a JSON object.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    return _checked(content, text)


def parse_lines(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """Parse lines as :func:`parse`, at once: equal keys are then one object, which halves the memory."""
    contents = json.loads(b"[%s]" % b",".join(lines))
    return [_checked(content, text) for content, text in zip(contents, lines, strict=True)]


def _checked(content: Any, text: bytes) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    expected = content.pop(KEY, None)
    if expected is not None and hashlib.sha256(text[:-_LENGTH] + b"}").hexdigest() != expected != digest(content):
        raise Changed("its content is not what was sealed")
    return content


def write_json(file: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a JSON object with its seal, atomically."""
    files.write_json(file, seal(content))
