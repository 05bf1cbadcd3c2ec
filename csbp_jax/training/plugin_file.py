"""The Python file of a user's own parts: run, found again in a run's folder, and its errors told by their line.

It defines ``config``, a :class:`csbp_jax.config.Config`, whose fields the command line still may change, and any of the
functions of :class:`csbp_jax.training.plugins.Own`.
"""

import importlib.abc
import importlib.util
import os
import pathlib
import sys
import traceback
from typing import Any

from csbp_jax.config import Config, ConfigError, Diverged
from csbp_jax.training.plugins import COPY, PARTS, Own, in_parentheses, sha256

_MODULE = "csbp_jax_own_"


def is_plugin_file(word: str) -> bool:
    """Whether a word on the command line is a file of one's own, and not the name of a config."""
    return word.endswith(".py")


def load_file(file: str | pathlib.Path) -> tuple[Config, Own]:
    """Runs a user's file, and gives what it defines.

    Raises:
      ConfigError: it is not there, fails (tells its line) or has no ``config``.
    """
    path = pathlib.Path(file)
    try:
        code = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name a Python file that defines config"
        ) from None
    return _run(code, str(path), str(path.absolute()))


def reload(folder: pathlib.Path, about: dict[str, Any], trust: bool, own: Own | None) -> Own:
    """The own parts of a run, from the copy in its folder, or as given.

    Args:
      about: what ``config.json`` says of them.
      trust: run the copy.
      own: the parts themselves, in place of the copy.

    Raises:
      ConfigError: they are not to be had, for a reason that is told.
    """
    parts, copy = about.get("parts", []), folder / COPY
    if own is not None and list(own.parts) != parts:
        told = "own parts" if parts else "no own parts"
        raise ConfigError(
            f"{folder}: has {told}{in_parentheses(parts)}, but given are{in_parentheses(own.parts) or ' none'}"
        )
    if own is not None or not parts:
        return own or Own()
    if "sha256" not in about:
        raise ConfigError(
            f"{folder}: was made from Python with own parts{in_parentheses(parts)}; pass them as own=Own(...)"
        )
    if not copy.exists():
        raise ConfigError(
            f"{copy}: missing, and the run's own parts{in_parentheses(parts)} with it; copy it back there"
        )
    code = copy.read_bytes()
    if sha256(code) != about["sha256"]:
        raise ConfigError(f"{copy}: is not the file that the run began with, its sha256 differs; copy that back there")
    if not trust:
        raise ConfigError(
            f"{folder}: reading it runs the code of {copy}, which may do anything that you may; "
            "if you trust it, give --trust (from Python: trust=True)"
        )
    return _run(code, str(copy), about["file"])[1]


def error_line(error: BaseException) -> str | None:
    """``FILE:LINE: in FUNCTION: KIND: message`` of an error that came up in a user's file, in one line; else None.

    With CSBP_TRACEBACK=1 in the environment the whole traceback is printed too.
    """
    frames = plugin_frames(error)
    if isinstance(error, ConfigError | Diverged) or not (frames or isinstance(error, SyntaxError)):
        return None
    if os.environ.get("CSBP_TRACEBACK") == "1":
        traceback.print_exception(error)
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frame, line = frames[-1]
    code = frame.f_code
    where = "" if code.co_name == "<module>" else f" in {code.co_name}:"
    message = " ".join(str(error).split())
    message = message if len(message) <= 400 else f"{message[:400]} ..."
    return f"{code.co_filename}:{line}:{where} {type(error).__name__}: {message}"


def plugin_frames(error: BaseException) -> list[tuple[Any, int]]:
    """The frames of a user's file in an error's traceback, with their lines, the innermost last."""
    found = traceback.walk_tb(error.__traceback__)
    return [(frame, line) for frame, line in found if frame.f_globals.get("__name__", "").startswith(_MODULE)]


def defined_in_plugin(thing: Any) -> bool:
    """Whether a function or class was defined in a user's file, which no other process can import."""
    return str(getattr(thing, "__module__", "")).startswith(_MODULE)


class _Loader(importlib.abc.SourceLoader):
    """Runs the very bytes that were hashed; writes no byte code."""

    def __init__(self, code: bytes, shown: str):
        self.code, self.shown = code, shown

    def get_data(self, path: str | bytes) -> bytes:
        return self.code

    def get_filename(self, fullname: str) -> str:
        return self.shown


def _run(code, shown, file):
    """``(config, Own)`` of a file's text; ``file`` is what it finds in ``__file__``, ``shown`` what messages say."""
    loader = _Loader(code, shown)
    spec = importlib.util.spec_from_loader(f"{_MODULE}{sha256(code)[:16]}", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = file
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = error_line(error)
        raise ConfigError(line or f"{shown}: {type(error).__name__}: {error}") from None
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        found = "defines no config" if config is None else f"config is a {type(config).__name__}"
        raise ConfigError(f"{shown}: {found}; write config = Config(...), from csbp_jax.config")
    parts = {part: getattr(module, part, None) for part in PARTS}
    for part, thing in parts.items():
        if isinstance(thing, type(sys)):  # from csbp_jax import data
            parts[part] = None
        elif thing is not None and not callable(thing):
            raise ConfigError(f"{shown}: {part} is a {type(thing).__name__}; write it as a function, see docs/own.md")
    return config, Own(**parts, file=shown, code=code)
