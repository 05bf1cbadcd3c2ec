"""Seals: JSON objects that hold the SHA-256 of their own content, so that a reader notices damage and edits.

A seal is no signature: whoever can write a file can also seal it.
"""

import hashlib
import json
import os
import sys
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
# Equal keys are one object: a run may have a million rows.
_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: {sys.intern(key): value for key, value in pairs})


def parse(text: bytes) -> dict[str, Any]:
    """Parse a JSON object, and return it without its seal.

    Raises:
      Changed: its content is not what was sealed.
      ValueError: it is not a JSON object.
    """
    try:
        content = _DECODER.decode(text.decode())
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    expected = content.pop(KEY, None)
    of_line = hashlib.sha256(text.rstrip()[:-_LENGTH] + b"}").hexdigest()
    if expected not in (None, of_line) and expected != digest(content):
        raise Changed("its content is not what was sealed")
    return content


def write_json(file: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write a JSON object with its seal, atomically."""
    files.write_json(file, seal(content))
