"""The JSON files of runs and experiments: read with a check of their seals, and of the types of what is read."""

import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any

from csbp_jax.config import Config, ConfigError, Mark, as_current, check, fields_marked, flatten, from_json
from csbp_jax.reporting import measures
from csbp_jax.runtime import files, seals

EDITABLE = frozenset(fields_marked(Mark.EDITABLE))
"""Fields of a config that may change when a run goes on."""

BLOCKS = "blocks"
"""Folder of an experiment's results."""

SCHEMA = 1
"""Of ``config.json``, the names and meanings of its fields; raised where these change."""

RESTART = "start from scratch with FRESH=1 (--fresh)"
REPAIR = "restore it from a copy, or train again"
"""Remedies for a damaged ``config.json``, of commands that train and of those that only read a run."""


def read_json(
    file: pathlib.Path,
    is_valid: Callable[[dict[str, Any]], bool],
    remedy: str,
    most: int = files.SMALL,
) -> dict[str, Any]:
    """Read a JSON object, without its seal.

    Args:
      file: the file.
      is_valid: whether the content has all keys that are read from it, with values of the right types.
      remedy: what to do about a damaged file.
      most: bytes that it may have.

    Raises:
      ConfigError: the file cannot be read, is not a regular one or too large, or was changed after it was written.
    """
    text = files.read_bytes(file, most)
    try:
        content = seals.parse(text)
    except seals.Changed:
        raise ConfigError(
            f"{file}: was damaged or edited, its {seals.KEY} differs; {remedy}; "
            f"or, if you edited it, delete its {seals.KEY}"
        ) from None
    except ValueError:
        content = {}
    if not (content and is_valid(content)):
        raise ConfigError(f"{file}: cannot be read; {remedy}")
    return content


def read_config(run: pathlib.Path, remedy: str = RESTART) -> dict[str, Any]:
    """Read the ``config.json`` of a run or an experiment, its options as this version has them.

    Raises:
      ConfigError: the file cannot be read, was changed after it was written, has another schema, or has a value other
        than the default for an option that this version no longer has.
    """
    file = run / "config.json"
    content = read_json(file, _is_config, remedy)
    if content.get("schema") != SCHEMA:
        raise ConfigError(
            f"{file}: its schema is {content.get('schema')!r}, and this version of csbp_jax reads {SCHEMA}; use the "
            "version that wrote it"
        )
    try:
        return content | {"config": as_current(content["config"])}
    except ConfigError as error:
        raise ConfigError(
            f"{file}: from another version of csbp_jax ({error}); use the version that wrote it"
        ) from None


def read_run(folder: pathlib.Path, of_experiment: str) -> dict[str, Any]:
    """Read the ``config.json`` of a single run, for a command that only reads it.

    Args:
      folder: of the run.
      of_experiment: what follows "is an experiment, " in the refusal of one, such as a sweep.

    Raises:
      ConfigError: it is not a run's directory, it is an experiment, or as :func:`read_config`.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such directory; name that of a run, such as runs/NAME")
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: this is not a run's directory, it has no config.json; name one such as runs/NAME")
    content = read_config(folder, REPAIR)
    if (folder / BLOCKS).exists():
        finished = (folder / "runs.csv").exists()
        again = "and not finished; repeat the command that began it, which goes on"
        raise ConfigError(f"{folder}: is an experiment, {of_experiment if finished else again}")
    return content


def read_result(run: pathlib.Path) -> dict[str, Any]:
    """Read the ``result.json`` of a finished run.

    Raises:
      ConfigError: the file cannot be read, or was changed after it was written.
    """
    remedy = "delete it, and the command that trained the run tests it again"
    return read_json(run / "result.json", _is_result, remedy)


def parse_config(file: pathlib.Path, content: Any, alone: bool = True) -> Config:
    """Return the config that a ``config.json`` holds.

    Args:
      file: for messages.
      content: the config, as JSON.
      alone: it is that of a run, and not what the runs of an experiment have in common, which need not be possible.

    Raises:
      ConfigError: it has other fields than this version, or a value that this version does not allow.
    """
    try:
        config = from_json(content)
        return check(config) if alone else config
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{file}: from another version of csbp_jax ({reason}); use the version that trained it"
        ) from None


def identity(content: dict[str, Any]) -> dict[str, Any]:
    """Return what tells a run from others: fields of its config, fingerprint of its data, hash of its own code.

    Args:
      content: of its ``config.json``.
    """
    fields = {name: value for name, value in flatten(content["config"]).items() if name not in EDITABLE}
    own = {f"own.{name}": value for name, value in content.get("own", {}).items() if name != "file"}
    return fields | own | {name: content[name] for name in ("data",) if name in content}


def config_differences(stored: dict[str, Any], current: dict[str, Any], but: Collection[str] = ()) -> list[str]:
    """List the fields in which a config differs from that of a ``config.json``, with both values.

    Args:
      stored: the config of the file.
      current: the config, as JSON.
      but: fields that are left out.
    """
    before, now = ({k: v for k, v in flatten(config).items() if k not in but} for config in (stored, current))
    return differences(before, now)


def differences(stored: Any, current: Any, prefix: str = "") -> list[str]:
    """List the fields in which two JSON values differ, with both values."""
    if isinstance(stored, dict) and isinstance(current, dict):
        return [
            line
            for key in sorted({*stored, *current})
            for line in differences(stored.get(key), current.get(key), f"{prefix}.{key}".lstrip("."))
        ]
    return [] if stored == current else [f"{prefix} ({stored!r} there, {current!r} here)"]


def fits(value: Any, form: Any) -> bool:
    """Return whether a JSON value has a form: a type, ``[form]`` for each item, or ``{key: form}``, keys that it has.

    ``float`` is any number, ``str`` a text that can be printed; integers, which JSON does not limit, have 64 bits.
    """
    if isinstance(form, dict):
        return isinstance(value, dict) and all(
            key in value and fits(value[key], of_key) for key, of_key in form.items()
        )
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(item, form[0]) for item in value)
    if not isinstance(value, int | float if form is float else form):
        return False
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    try:
        return form is not str or os.fsencode(value) is not None
    except UnicodeEncodeError:  # a surrogate, which JSON can have, and names of folders not
        return False


def _is_config(content: dict[str, Any]) -> bool:
    own, versions = content.get("own", {}), content.get("versions", {})
    of_file = {"file": str, "sha256": str} if isinstance(own, dict) and own.keys() & {"file", "sha256"} else {}
    about = [content.get("data", ""), content.get("python", ""), *(versions.values() if fits(versions, dict) else [3])]
    names = fits(content.get("classes", []), [str]) and fits(about, [str])
    if not (names and fits(content, {"config": {"seed": int}})):
        return False
    # A system of one's own has no epochs.
    return fits(content["config"].get("epochs", 1), int) and (own == {} or fits(own, {"parts": [str], **of_file}))


def _is_result(content: dict[str, Any]) -> bool:
    if not fits(content, {"seconds": float, "gradient_norms": dict, "last": dict}):
        return False
    name = measures.primary(content["last"])
    tested = {"epoch": int, f"test_{name}": float, f"validation_{name}": float, "test_count": int}
    kinds = dict.fromkeys(["last", "chosen", *(["ema"] if "ema" in content else [])], tested)
    return fits(content, kinds) and all(
        fits(list(content[kind].values()), [float])
        and (0 <= content[kind][f"test_{name}"] <= 1 or not measures.MEASURES[name].share)
        for kind in kinds
    )
