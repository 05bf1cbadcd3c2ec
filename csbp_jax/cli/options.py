"""Parsing of command lines and of make's variables, with errors of one line.

Each command is a dataclass: its fields are the options, their annotations (option_types.py) say how a word becomes a
value.
"""

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

import tyro
from tyro import _errors as tyro_errors  # documented as the way to handle errors, in spite of its name
from tyro.conf import Suppress
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from csbp_jax import configs
from csbp_jax.cli.option_types import ARGUMENTS, ConfigFields, DataDir, expand_path
from csbp_jax.config import NETWORK_OPTIONS, Config, ConfigError, check, flatten, nearest, replaced
from csbp_jax.config.validation import allowed_range, check_value
from csbp_jax.runtime import private
from csbp_jax.training import plugin_file, run_json
from csbp_jax.training.plugins import Own

HELP_ALL = "--help-all"
HELP = ("-h", "--help", HELP_ALL)
COMMON = (
    *("seed", "epochs", "batch_size", "patience", "data.dir", "model.name", "model.time_steps"),
    *("chaos.z0", "chaos.taps", "optimizer.lr"),
)
"""Fields of the config that help shows; the others are shown by ``--help-all``."""

Options = TypeVar("Options")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnData:
    """Options of every command that takes a config."""

    config: ConfigFields
    data_dir: DataDir = "data"


Command = tuple[type[Any], str | Callable[[Sequence[str]], None]]
"""A command: a dataclass with its options, and the function that runs it, or the path of one that takes the options."""


def read(command: str, kind: Callable[..., Options], argv: Sequence[str]) -> tuple[Options, Config, Own]:
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
        _parse(kind, kind(config=Config()), argv[:1], f"csbp_jax {command} DATASET|FILE.py")
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"DATASET: missing; write csbp_jax {command} DATASET, such as digits (csbp_jax list)")
    config, own = _base(command, argv[0])
    options = _parse(kind, kind(config=config), argv[1:], f"csbp_jax {command} {argv[0]}")
    overridden: Config = options.config  # type: ignore[attr-defined]  # a dataclass with this field, see above
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


def usage(kind: Any) -> str:
    """Return the arguments of a command that have no name, such as ``RUN FILE ...``."""
    return " ".join(ARGUMENTS[field.type] for field in dataclasses.fields(kind) if field.type in ARGUMENTS)


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
    options = _names(kind)
    for word in argv:
        # Checked first, because tyro would report a missing positional argument instead.
        if re.match("--?[a-zA-Z]", word) and word.partition("=")[0] not in (*options, *HELP):
            raise ConfigError(f"{word}: there is no such option; {command} takes {', '.join(options)}")
    parsed = _parse(kind, None, argv, f"csbp_jax {command}")
    if usage(kind).endswith(" ...") and () in vars(parsed).values():
        name = usage(kind).split()[-2].partition("|")[0]
        raise ConfigError(f"{name}: missing; write csbp_jax {command} {usage(kind)}")
    return parsed


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
        if word not in ("True", "False"):
            raise ConfigError(f"--{field}: {word!r} is not possible; allowed are True, False")
        return word == "True"
    # As one word, so that a value such as --help is not taken for an option.
    return flatten(_parse(Config, config, [f"--{field}={word}"], "csbp_jax sweep"))[field]


def parse(config: Config, argv: Sequence[str], prog: str) -> Config:
    """Override fields of a config by the options in ``argv``.

    Raises:
      ConfigError: an unknown option or an invalid value; the message is one line with the allowed values.
    """
    return check(_parse(Config, config, argv, prog))


def _parse(kind: Callable[..., Options], default: Options | None, argv: Sequence[str], prog: str) -> Options:
    def refuse(event: tyro_errors.ParseErrorEvent) -> None:
        raise ConfigError(_message(event, kind, prog))

    is_help = any(word in HELP for word in argv)
    shortened = is_help and HELP_ALL not in argv and ConfigFields in [field.type for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a dataclass
    argv = ["--help"] if is_help else argv
    output = io.StringIO()
    defaults = {} if default is None else {"default": default}
    try:
        with tyro_errors.on_parse_error(refuse), contextlib.redirect_stderr(output):
            options: Options = tyro.cli(kind, args=argv, prog=prog, registry=_registry(shortened), **defaults)  # type: ignore[call-overload]  # kind is a dataclass
    except SystemExit as stop:
        if not stop.code:  # --help
            if shortened:
                print(f"{prog} {HELP_ALL} lists all {len(_names(kind))} options")
            raise
        # An event that this version of tyro does not describe.
        raise ConfigError(f"{' '.join(argv)}: invalid options; {prog} {HELP_ALL} lists all") from None
    for name, hint in get_type_hints(kind, include_extras=True).items() if kind is not Config else ():
        if allowed_range(hint):
            check_value(f"--{name.replace('_', '-')}", getattr(options, name), hint)
    return options


_IS_READ = object()  # marks a class that the rule below looks up among all rules, of which it is one
_SECTIONS = {hint: f"{name}." for name, hint in get_type_hints(Config).items() if dataclasses.is_dataclass(hint)}


def _registry(shortened: bool) -> ConstructorRegistry:
    """Return the rules to read a class as tyro does; the help of a field ends with its range, and may be left out."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def read(info: StructTypeInfo) -> StructConstructorSpec | None:
        if _IS_READ in info.markers:
            return None
        spec = ConstructorRegistry.get_struct_spec(dataclasses.replace(info, markers=(*info.markers, _IS_READ)))
        if not isinstance(spec, StructConstructorSpec):
            return None
        fields = [dataclasses.replace(field, helptext=functools.partial(_help, field)) for field in spec.fields]
        prefix = {Config: "", **_SECTIONS}.get(info.type)
        if shortened and prefix is not None:
            fields = [
                field
                if any(f"{name}.".startswith(f"{prefix}{field.name}.") for name in COMMON)
                else dataclasses.replace(field, type=Suppress[field.type])  # type: ignore[misc,name-defined]  # a type made here
                for field in fields
            ]
        return dataclasses.replace(spec, fields=tuple(fields))

    return registry


def _help(field: StructFieldSpec) -> str | None:
    text, allowed = field.helptext() if callable(field.helptext) else field.helptext, allowed_range(field.type)
    sentence = " ".join((text or "").replace("``", "").split())  # tyro keeps some of the source's line breaks
    return f"{sentence.rstrip('.')}. Allowed: {allowed.words}." if allowed else sentence or None


def _message(event: tyro_errors.ParseErrorEvent, kind: Any, prog: str) -> str:
    listing = f"{prog} {HELP_ALL} lists all options"
    match event:
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            return f"{_display_name(argument)}: {value!r} is not possible; allowed are {', '.join(choices)}"
        case tyro_errors.BadValue(argument=argument) if not argument.is_positional():
            return f"{_display_name(argument)}: a value is missing; it is {_form(argument)}"
        case tyro_errors.InstantiationFailure(argument=argument, message=message) if argument is not None:
            reason = " ".join(message.split(" Got errors")[0].split("\n\nGot errors")[0].split()).rstrip(".")
            if unmatched := re.match(r"no type matching .* could be instantiated from \[(.*)\]", reason):
                words = unmatched[1] and f"{unmatched[1].replace(chr(39), '').replace(', ', ' ')} is not possible"
                return f"{_display_name(argument)}: {words or 'a value is missing'}; it is {_form(argument)}"
            if converted := re.match("(?:invalid literal|could not)[^']*('.*')", reason, re.IGNORECASE):
                return f"{_display_name(argument)}: {converted[1]} is not possible; it is {_form(argument)}"
            # Messages of option_types.py say what to do.
            return f"{_display_name(argument)}: {reason}" + ("" if ";" in reason else f"; it is {_form(argument)}")
        case tyro_errors.MissingArgs(missing_arguments=missing):
            names = " ".join(str(item.arg.lowered.metavar) for item in missing)
            return f"{names}: missing; write {prog} {names}"
        case tyro_errors.UnrecognizedArgs(tokens=tokens):
            word = tokens[0].partition("=")[0].lstrip("-").replace("_", "-")
            similar = nearest(word, [name.removeprefix("--") for name in _names(kind)], cutoff=0.85)
            hint = f"perhaps you meant {', '.join(f'--{name}' for name in similar)}" if similar else listing
            what = "there is no such option" if tokens[0].startswith("-") else "not expected here"
            return f"{' '.join(tokens)}: {what}; {hint}"
    return f"invalid options; {listing}"


def _display_name(argument: Any) -> str:
    if argument.is_positional():
        return str(argument.lowered.metavar).strip("[]").removesuffix(" ...")
    return str(argument.display_name())


def _form(argument: Any) -> str:
    metavar = re.sub(r"^\{None\}\|\{(.*)\}$", r"\1 (or None)", argument.lowered.metavar)
    return f"{argument.lowered.name_or_flags[-1]} {metavar}"


def _names(kind: Any) -> list[str]:
    """List the options of a command, with the fields of the config if it has these; or those of the config alone."""
    names: list[str] = list(flatten(Config())) if kind is Config else []
    for field in () if kind is Config else dataclasses.fields(kind):
        if field.type == ConfigFields:
            names += flatten(Config())
        elif field.type not in ARGUMENTS:
            spelt = (getattr(extra, "name", None) for extra in get_args(field.type))  # by tyro.conf.arg
            names.append(next(filter(None, spelt), field.name))
    return [f"--{name.replace('_', '-')}" for name in names]


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
