"""From a command line, or from the variables of make, to a command's own options and a config."""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import tyro

from csbp_jax import configs
from csbp_jax.config import Config, ConfigError, check, flatten
from csbp_jax.training import plugin_file
from csbp_jax.training.plugins import Own

HELP = ("-h", "--help")


def read(command: str, argv: Sequence[str], known: Mapping[str, Any]) -> tuple[argparse.Namespace, Config, Own]:
    """The command's options, the config, and what a file of the user's own defines besides.

    Args:
      argv: the data set, or a file of one's own, which is run, and options; or ``--environment`` alone: as make hands
        them over.
      known: ``{option: default}``; one whose default is False takes no value.

    Raises:
      ConfigError: no such data set, a file that fails, an unknown option or an impossible value.
    """
    if argv == ["--environment"]:
        argv = from_environment(command, os.environ)
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"DATASET: missing; write csbp_jax {command} DATASET, one of {', '.join(configs.NAMES)}")
    options, fields = _options(argv[1:], known)
    config, parts = (
        plugin_file.load_file(os.path.expanduser(argv[0]))
        if plugin_file.is_plugin_file(argv[0])
        else (configs.load(argv[0]), Own())
    )
    config = parse(config, fields, f"csbp_jax {command} {argv[0]}")
    # As most shells would: the same folder gives the same config, and so the same run.
    own_folder = dataclasses.replace(config.data, dir=_path("--data.dir", config.data.dir))
    return options, dataclasses.replace(config, data=own_folder), parts


def read_paths(command: str, argv: Sequence[str], known: Mapping[str, Any]) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command that takes no config, and its other words, which are paths.

    Raises:
      ConfigError: an unknown option.
    """
    options, words = _options(argv, known)
    if unknown := [word for word in words if word.startswith("-")]:
        raise ConfigError(f"{unknown[0]}: there is no such option; {command} takes {', '.join([*known, '--data-dir'])}")
    return options, [_path(command, word) for word in words]


def one(command: str, place: str, words: Sequence[str]) -> str:
    """The folder that a command works on, called ``place`` in its help.

    Raises:
      ConfigError: there are none or several.
    """
    if len(words) != 1:
        told = f"{' '.join(words[1:])}: one {place} is enough" if words else f"{place}: missing"
        raise ConfigError(f"{told}; write csbp_jax {command} {place}, its folder")
    return words[0]


def _options(argv, known):
    """The command's options among the words, and the others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, default in {**known, "--data-dir": "data"}.items():
        parser.add_argument(option, default=default, action="store_true" if default is False else "store")
    try:
        options, words = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise ConfigError(error) from None
    for option, value in vars(options).items():
        if value == "":
            raise ConfigError(f"--{option.replace('_', '-')}: empty; give it a name")
        if option in ("from", "runs", "sweeps", "data_dir", "out", "checkpoints") and value:
            setattr(options, option, _path(f"--{option.replace('_', '-')}", value))
    return options, words


def _path(option, word):
    if option == "--checkpoints" and "://" in word:  # which may be an address; training says which
        return word
    if re.match(r"[a-z][a-z0-9+.-]+://", word):  # pathlib would make a folder "gs:" of it
        raise ConfigError(
            f"{option}: {word!r} is not possible, locks and renames need a file system; mount it, and give the folder "
            "(docs/scale.md)"
        )
    return os.path.expanduser(word)


def from_environment(command: str, environment: Mapping[str, str]) -> list[str]:
    """The arguments of a command as ``make`` hands them over: in variables, so that no shell reads them.

    ``CSBP_DATASET``, ``CSBP_DATA_DIR``, ``CSBP_DIR`` (a user's own class folders), ``CSBP_ARGS``, the latter split as a
    shell would; for train and sweep also ``CSBP_NAME`` and ``CSBP_FRESH`` (1 or 0), for sweep ``CSBP_GRID``, for data
    ``CSBP_FROM``.

    Raises:
      ConfigError: no such data set, an open quotation mark, or FRESH is neither.
    """
    dataset, fresh, args = (environment.get(f"CSBP_{key}", "") for key in ("DATASET", "FRESH", "ARGS"))
    if not plugin_file.is_plugin_file(dataset):
        configs.load(dataset)
    if fresh not in ("", "0", "1"):
        raise ConfigError(f"FRESH: {fresh!r} is not possible; allowed are 1 and 0")
    try:
        more = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"ARGS: {args!r} cannot be split into words: {str(error).lower()}") from None
    known = {"train": {"NAME": "--name"}, "sweep": {"NAME": "--name", "GRID": "--grid"}, "data": {"FROM": "--from"}}
    options = {**known.get(command, {}), "DATA_DIR": "--data-dir", "DIR": "--data.dir"}
    given = {option: environment.get(f"CSBP_{key}") for key, option in options.items()}
    words = [f"{option}={value}" for option, value in given.items() if value]
    return [dataset, *words, *(["--fresh"] if command != "data" and fresh == "1" else []), *more]


def read_field(config: Config, field: str, word: str) -> Any:
    """The value that a word on the command line gives a field.

    Raises:
      ConfigError: it is impossible.
    """
    # In one word, so that a value such as --help is none of the parser's options.
    return flatten(parse(config, [f"--{field}={word}"], "csbp_jax sweep"))[field]


def parse(config: Config, argv: Sequence[str], prog: str) -> Config:
    """The config with the overrides of ``argv``.

    Raises:
      ConfigError: an option is unknown or a value impossible; names it and what is allowed, in one line.
    """
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            config = tyro.cli(Config, default=config, args=argv, prog=prog, description="Options of a run.")
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_one_line(told.getvalue())) from None
    return check(config)


def _one_line(told):
    """From tyro's box (title, error, hints, with rules between): the error, and the hints' options."""
    parts = [[]]
    for line in re.sub(r"\x1b\[[0-9;]*m", "", told).splitlines():  # colours, on a terminal
        bare = line.strip(" │╰╯")
        if line.startswith("╭") or (len(bare) > 20 and set(bare) <= set("-─")):
            parts.append([])
        else:
            parts[-1].append(bare)
    _, error, *hints = [" ".join(" ".join(part).split()) for part in parts]
    # An option and the form of its value: {a,b}, {None}|{FLOAT}, INT, or [INT [INT ...]].
    form = r"--[a-z0-9.-]+ (?:\{[^}]*\}(?:\|\{[^}]*\})*|\[[A-Z]+ \[[A-Z]+ \.\.\.\]\]|[A-Z]+\b)"
    options = [option for hint in hints for option in re.findall(form, hint)]
    kind = "perhaps you meant" if "Perhaps" in "".join(hints) else "it is"
    mend = f"{kind} {', '.join(options)}" if options else "--help lists all options and what they take"
    return f"{error.split(' Got errors')[0].rstrip('.')}; {mend}"


def count(option: str, value: Any) -> int | None:
    """The positive whole number that an option was given, None if it was not.

    Raises:
      ConfigError: it was given something else.
    """
    if value is not None and not (str(value).isdecimal() and int(value) > 0):
        raise ConfigError(f"{option}: {value!r} is not possible; allowed is a positive whole number")
    return None if value is None else int(value)
