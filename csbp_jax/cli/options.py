"""Options of the commands: what a command line and make's variables say, with the config of a preset, a file or a run.

Each command is a dataclass: its fields are the options, their annotations (option_types.py) say what a word must be.
"""

import dataclasses
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from csbp_jax import configs
from csbp_jax.cli.option_types import ConfigFields, DataDir, expand_path
from csbp_jax.cli.parsing import HELP, HELP_ALL, Options, fill, show_help
from csbp_jax.config import NETWORK_OPTIONS, Config, ConfigError, check, flatten, replaced
from csbp_jax.config.validation import check_value
from csbp_jax.runtime import private
from csbp_jax.training import plugin_file, run_json
from csbp_jax.training.plugins import Own


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnConfig:
    """The fields of a config as options."""

    config: ConfigFields


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnData(OnConfig):
    """Options of every command that takes a config."""

    data_dir: DataDir = "data"


DataOptions = TypeVar("DataOptions", bound=OnData)

Command = tuple[type[Any], str | Callable[[Sequence[str]], None]]
"""A command: a dataclass with its options, and the function that runs it, or the path of one that takes the options."""


def read(command: str, kind: type[DataOptions], argv: Sequence[str]) -> tuple[DataOptions, Config, Own]:
    """Parse a command on a data set: its options, the config, and the plugins of a file of the user's own.

    Args:
      command: its name.
      kind: its dataclass, an :class:`OnData`.
      argv: the data set, or a plugin file, which is run, and options; or ``--environment`` alone, for make's variables.

    Raises:
      ConfigError: an unknown data set or option, a file that fails, or an invalid value.
    """
    if list(argv) == ["--environment"]:
        argv = from_environment(command, os.environ)
    if argv and argv[0] in HELP:
        show_help(kind(config=Config()), f"csbp_jax {command} DATASET|FILE.py", show_all=argv[0] == HELP_ALL)
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"DATASET: missing; write csbp_jax {command} DATASET, such as digits (csbp_jax list)")
    config, own = _base(command, argv[0])
    options = fill(kind(config=config), argv[1:], f"csbp_jax {command} {argv[0]}")
    overridden = options.config
    if overridden.model.name != config.model.name and not own.model:
        overridden = _with_taps_of_the_network(_without_foreign_options(overridden, argv), argv)
    config = check(overridden)
    try:
        # Without a slash at the end or "./" at the beginning; "a/.." stays, for a may be a link.
        folder = str(pathlib.Path(expand_path(config.data.dir))) if config.data.dir else ""
    except ValueError as error:
        raise ConfigError(f"--data.dir: {error}") from None
    # Expanded as most shells would: the same directory gives the same config, and so the same run.
    expanded = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dir=folder),
        weights=os.path.expanduser(config.weights),
        weights_table=os.path.expanduser(config.weights_table),
    )
    return options, expanded, own


def _base(command: str, name: str) -> tuple[Config, Own]:
    """Return the config of a preset, of a file of the user's own, or of a run that is to go on, and own parts."""
    if name.endswith(".py"):
        return plugin_file.load_file(os.path.expanduser(name))
    folder = named_run(name) if command == "train" else None
    if folder is None:
        return configs.load(name), Own()
    content = run_json.read_run(folder, "which goes on by csbp_jax sweep")
    if own := content.get("own"):
        raise ConfigError(f"{folder}: has code of your own; train {own.get('file', 'its file')} --name {folder.name}")
    return run_json.parse_config(folder / "config.json", content["config"]), Own()


def named_run(word: str) -> pathlib.Path | None:
    """Return the folder of the run that a word names; None if it names none, or a preset too."""
    folder = pathlib.Path(word)
    return folder if (folder / "config.json").is_file() and not configs.known(word) else None


def is_given(option: str, argv: Sequence[str]) -> bool:
    """Return whether an option is among the arguments, as ``--option VALUE`` or ``--option=VALUE``.

    As in tyro, ``-`` and ``_`` are the same.
    """
    return option.replace("_", "-") in [word.partition("=")[0].replace("_", "-") for word in argv]


def _without_foreign_options(config: Config, argv: Sequence[str]) -> Config:
    """Leave out the options of a preset's network that the network named on the command line lacks, and print them.

    Those that are given on the command line stay, to be refused.
    """
    from csbp_jax import models  # late, see commands.py

    name, known = config.model.name, models.options_of(config.model.name)
    for option in NETWORK_OPTIONS:
        value = getattr(config.model, option)
        if value is not None and option not in known and not is_given(f"--model.{option}", argv):
            config = replaced(config, f"model.{option}", None)
            print(f"csbp_jax: model.{option}: {value} of {argv[0]} is left out; {name} has none", file=sys.stderr)
    return config


def _with_taps_of_the_network(config: Config, argv: Sequence[str]) -> Config:
    """Tap the membrane of the first layer where the network named on the command line lacks taps of the preset's.

    A line says so. Taps that are given on the command line stay, to be refused.
    """
    from csbp_jax import models  # late, see commands.py

    if is_given("--chaos.taps", argv) or not config.chaos.taps:
        return config
    # Names do not depend on pixels and classes, which a preset for the user's own data does not know yet.
    shape = (224, 224, 3) if len(config.model.input_shape) in (0, 3) else config.model.input_shape
    known = models.tap_names(dataclasses.replace(config.model, input_shape=shape, classes=2))
    missing = [tap for tap in config.chaos.taps if tap not in known]
    membrane = next((name for name in known if name.endswith(".membrane")), None)
    if not missing or membrane is None:
        return config
    config = replaced(config, "chaos.taps", (membrane,))
    if not is_given("--chaos.z0", argv):
        config = replaced(config, "chaos.z0", config.chaos.z0[:1])
    lacks = f"{config.model.name} has no {', '.join(missing)}, on which the term acts in {argv[0]}"
    print(f"csbp_jax: chaos.taps: {lacks}; it acts on {membrane} instead", file=sys.stderr)
    return config


def read_paths(command: str, kind: type[Options], argv: Sequence[str]) -> Options:
    """Parse a command without a config, whose positional arguments are paths.

    Raises:
      ConfigError: an unknown option, an invalid value or a missing argument.
    """
    return fill(kind(), argv, f"csbp_jax {command}")


def set_deterministic(deterministic: bool) -> None:
    """Ask for deterministic kernels; must be called before JAX starts, which then reads XLA_FLAGS.

    Raises:
      ConfigError: JAX has started on a GPU, for an array that a file of the user's own makes.
    """
    flag = "--xla_gpu_deterministic_ops=true"
    if not deterministic or flag in os.environ.get("XLA_FLAGS", "").split():
        return
    if "jax" in sys.modules and private.backend_of_jax() == "gpu":
        raise ConfigError(
            "deterministic: too late, JAX has started already; make the arrays of your file within its functions, "
            f"or set XLA_FLAGS={flag} in the environment"
        )
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def read_field(config: Config, field: str, word: str) -> Any:
    """Parse the value of one field, which need not be possible with the other fields of the config.

    Raises:
      ConfigError: it is no value of the field.
    """
    if isinstance(flatten(config)[field], bool):  # on a command line a flag, which takes no value
        value = {"True": True, "False": False}.get(word, word)
        check_value(field, value, bool)
        return value
    # As one word, so that a value such as --help is not taken for an option.
    return flatten(fill(OnConfig(config=config), [f"--{field}={word}"], "csbp_jax sweep").config)[field]


def parse(config: Config, argv: Sequence[str], prog: str) -> Config:
    """Override fields of a config by the options in ``argv``.

    Raises:
      ConfigError: an unknown option or an invalid value; the message is one line with the allowed values.
    """
    return check(fill(OnConfig(config=config), argv, prog).config)


def from_environment(command: str, environment: Mapping[str, str]) -> list[str]:
    """Return the arguments of a command from the variables that ``make`` sets, so that no shell interprets them.

    ``CSBP_DATASET``, ``CSBP_DATA_DIR``, ``CSBP_DIR`` (the user's class folders), ``CSBP_ARGS``, which is split as by a
    shell; for train and sweep also ``CSBP_NAME`` and ``CSBP_FRESH`` (1 or 0), for sweep ``CSBP_GRID``, for data
    ``CSBP_FROM``.

    Raises:
      ConfigError: an open quotation mark, or another value of FRESH.
    """
    dataset, fresh, args = (environment.get(f"CSBP_{key}", "") for key in ("DATASET", "FRESH", "ARGS"))
    if fresh not in ("", "0", "1"):
        raise ConfigError(f"FRESH: {fresh!r} is not possible; allowed are 1 and 0")
    try:
        more = shlex.split(args)
    except ValueError as error:
        raise ConfigError(f"ARGS: {args!r} cannot be split into words: {str(error).lower()}") from None
    own = {"train": {"NAME": "--name"}, "sweep": {"NAME": "--name", "GRID": "--grid"}, "data": {"FROM": "--from"}}
    options = {**own.get(command, {}), "DATA_DIR": "--data-dir", "DIR": "--data.dir"}
    values = {option: environment.get(f"CSBP_{key}") for key, option in options.items()}
    words = [f"{option}={value}" for option, value in values.items() if value]
    return [dataset, *words, *(["--fresh"] if command != "data" and fresh == "1" else []), *more]
