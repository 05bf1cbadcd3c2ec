"""The Python file of a user's plugins: run, reloaded from a run directory; its errors name file and line.

It defines ``config``, a :class:`csbp_jax.config.Config`, whose fields the command line can still override, and any of
the functions of :class:`csbp_jax.training.plugins.Own`.
"""

import difflib
import hashlib
import os
import pathlib
import sys
import traceback
import types
from typing import Any

from csbp_jax.config import Config, ConfigError, Diverged
from csbp_jax.runtime import files
from csbp_jax.training.plugins import COPY, PLUGINS, Own, in_parentheses

_MODULE = "csbp_jax_own_"


def load_file(file: str | pathlib.Path) -> tuple[Config, Own]:
    """Run a plugin file and return what it defines.

    Raises:
      ConfigError: it does not exist, is no regular file of at most 64 MiB, fails (the message names the line) or
        defines no ``config``.
    """
    path = pathlib.Path(file)
    return _run(files.read_bytes(path), str(path), str(path.absolute()))


def reload(folder: pathlib.Path, metadata: dict[str, Any], trust: bool, own: Own | None) -> Own:
    """Return the plugins of a run, from the copy of their file in its directory, or as passed.

    Args:
      folder: the run directory.
      metadata: what ``config.json`` stores of them.
      trust: run the copy.
      own: the plugins, in place of the copy.

    Raises:
      ConfigError: they are not available, for the reason in the message.
    """
    names, copy = metadata.get("parts", []), folder / COPY
    if own is not None and list(own.parts) != names:
        expected = "own parts" if names else "no own parts"
        raise ConfigError(
            f"{folder}: has {expected}{in_parentheses(names)}, but given are{in_parentheses(own.parts) or ' none'}"
        )
    if own is not None or not names:
        return own or Own()
    if "sha256" not in metadata:
        raise ConfigError(
            f"{folder}: was made from Python with own parts{in_parentheses(names)}; pass them there as own=Own(...), "
            "for commands read own parts only from a run that was made from their file (docs/own.md)"
        )
    code = files.read_bytes(copy)
    if hashlib.sha256(code).hexdigest() != metadata["sha256"]:
        raise ConfigError(f"{copy}: is not the file that the run began with, its sha256 differs; put that one back")
    if not trust:
        raise ConfigError(
            f"{folder}: reading it runs the code of {copy}, which may do anything that you may; "
            "if you trust it, give --trust (from Python: trust=True)"
        )
    return _run(code, str(copy), metadata["file"])[1]


def error_line(error: BaseException) -> str | None:
    """Format an error raised in a plugin file as ``FILE:LINE: in FUNCTION: KIND: message``; None for other errors.

    With CSBP_TRACEBACK=1 in the environment, the whole traceback is printed as well.
    """
    every = traceback.walk_tb(error.__traceback__)
    frames = [(frame, line) for frame, line in every if frame.f_globals.get("__name__", "").startswith(_MODULE)]
    if isinstance(error, SyntaxError) and error.filename:  # null bytes, as UTF-16 has, are at no line of a file
        position, message = f"{error.filename}:{error.lineno}:", error.msg
    elif frames and not isinstance(error, ConfigError | Diverged):
        frame, line = frames[-1]
        code, message = frame.f_code, " ".join(str(error).split())
        position = f"{code.co_filename}:{line}:" + (f" in {code.co_name}:" if code.co_name != "<module>" else "")
    else:
        return None
    if os.environ.get("CSBP_TRACEBACK") == "1":
        traceback.print_exception(error)
    return f"{position} {type(error).__name__}: {message if len(message) <= 400 else f'{message[:400]} ...'}"


def defined_in_plugin(thing: object) -> bool:
    """Return whether a function or class was defined in a plugin file, which no other process can import."""
    return str(getattr(thing, "__module__", "")).startswith(_MODULE)


def _run(code: bytes, filename: str, file: str) -> tuple[Config, Own]:
    """Run the content of a plugin file; ``file`` is its ``__file__``, ``filename`` its name in messages."""
    module = types.ModuleType(f"{_MODULE}{hashlib.sha256(code).hexdigest()[:16]}")
    module.__file__ = file
    sys.modules[module.__name__] = module  # dataclasses look up their module
    try:
        exec(compile(code, filename, "exec", dont_inherit=True), module.__dict__)  # exactly the bytes that were hashed
    except (Exception, SystemExit) as error:
        line = error_line(error)
        raise ConfigError(line or f"{filename}: {type(error).__name__}: {error}") from None
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        actual = "defines no config" if config is None else f"config is a {type(config).__name__}"
        raise ConfigError(f"{filename}: {actual}; write config = Config(...), from csbp_jax.config")
    for name, value in vars(module).items():
        near = difflib.get_close_matches(name, PLUGINS, 1, 0.8)
        if near and name not in PLUGINS and getattr(value, "__module__", "") == module.__name__:
            raise ConfigError(f"{filename}: {name} is not used; perhaps you meant {near[0]} (docs/own.md)")
    plugins = {name: getattr(module, name, None) for name in PLUGINS}
    # Modules come from lines such as: from csbp_jax import data
    plugins = {name: value for name, value in plugins.items() if not isinstance(value, types.ModuleType)}
    for name, value in plugins.items():
        if value is not None and not callable(value):
            raise ConfigError(
                f"{filename}: {name} is a {type(value).__name__}; write it as a function, see docs/own.md"
            )
    return config, Own(**plugins, file=filename, code=code)
