"""Parsing of command lines and of make's variables, with errors of one line.

Each command is a dataclass: its fields are the options, their annotations (option_types.py) say what a word must be.
tyro fills it with the words, and then its values are checked as those of a config are.
"""

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import Suppress
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from csbp_jax import configs
from csbp_jax.cli.option_types import ARGUMENTS, OTHER_NAMES, ConfigFields, DataDir, Listed, expand_path
from csbp_jax.config import (
    NETWORK_OPTIONS,
    Chaos,
    Config,
    ConfigError,
    Data,
    Model,
    Optimizer,
    check,
    flatten,
    nearest,
    replaced,
)
from csbp_jax.config.validation import allowed_range, check_value, check_values
from csbp_jax.runtime import private
from csbp_jax.training import plugin_file, run_json
from csbp_jax.training.plugins import Own

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

HELP_ALL = "--help-all"
HELP = ("-h", "--help", HELP_ALL)
COMMON = {
    Config: ("seed", "epochs", "batch_size", "patience", "data", "model", "chaos", "optimizer"),
    Data: ("dir",),
    Model: ("name", "time_steps"),
    Chaos: ("z0", "taps"),
    Optimizer: ("lr",),
}
"""Fields of the config that help shows; the others are shown by ``--help-all``."""

Options = TypeVar("Options", bound="DataclassInstance")


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
        _show_help(kind(config=Config()), f"csbp_jax {command} DATASET|FILE.py", show_all=argv[0] == HELP_ALL)
    if not argv or argv[0].startswith("-"):
        raise ConfigError(f"DATASET: missing; write csbp_jax {command} DATASET, such as digits (csbp_jax list)")
    config, own = _base(command, argv[0])
    options = _parse(kind(config=config), argv[1:], f"csbp_jax {command} {argv[0]}")
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
    return _parse(kind(), argv, f"csbp_jax {command}")


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
    return flatten(_parse(OnConfig(config=config), [f"--{field}={word}"], "csbp_jax sweep").config)[field]


def parse(config: Config, argv: Sequence[str], prog: str) -> Config:
    """Override fields of a config by the options in ``argv``.

    Raises:
      ConfigError: an unknown option or an invalid value; the message is one line with the allowed values.
    """
    return check(_parse(OnConfig(config=config), argv, prog).config)


def _parse(defaults: Options, argv: Sequence[str], prog: str) -> Options:
    """Replace the values of a command's dataclass by those on the command line, and check them; or show help and exit.

    Raises:
      ConfigError: an unknown option, an invalid value, or a missing argument.
    """
    if any(word in HELP for word in argv):
        _show_help(defaults, prog, show_all=HELP_ALL in argv)
    kind, output = type(defaults), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            options, unknown = tyro.cli(
                kind, default=defaults, args=argv, prog=prog, registry=WORDS, return_unknown_args=True
            )
    except SystemExit:
        # Below a title and a rule, tyro says which option has too few values.
        _, _, *lines = [line.strip() for line in output.getvalue().splitlines()]
        message = " ".join(itertools.takewhile(lambda line: line.strip("-"), lines)).rstrip(".")
        raise ConfigError(f"{message}; {prog} {HELP_ALL} lists all options") from None
    if unknown:
        raise ConfigError(_unknown(unknown, kind, prog))
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name)
        if field.type in ARGUMENTS and value in ("", ()) and field.type != Listed:
            raise ConfigError(f"{_label(field)}: missing; write {prog} {usage(kind)}")
        options = dataclasses.replace(options, **{field.name: _checked(value, _label(field), field.type)})
    return options


WORDS = ConstructorRegistry()
"""How tyro reads the words of a command line, other than by its own rules."""


@WORDS.primitive_rule
def _number_or_word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Leave a word that is no number, or none of the choices, a text, which the check of the value refuses in one line.

    tyro itself would print a box of many lines.
    """
    if info.type in (int, float):
        metavar = info.type.__name__.upper()
    elif get_origin(info.type) is Literal:
        metavar = f"{{{','.join(get_args(info.type))}}}"
    else:
        return None

    def convert(words: list[str]) -> Any:
        if info.type in (int, float):
            with contextlib.suppress(ValueError):
                return info.type(words[0])
        return words[0]

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=convert,
        is_instance=lambda value: value is not None,
        str_from_instance=lambda value: [str(value)],
    )


def _checked(value: Any, label: str, hint: Any) -> Any:
    """Return the value of an option or argument, converted by the function in its annotation.

    Raises:
      ConfigError: it is not possible.
    """
    if isinstance(value, Config):
        check_values(value)
        return value
    for convert in filter(inspect.isfunction, get_args(hint)):
        try:
            if isinstance(value, tuple):
                value = tuple(convert(word) for word in value)
            elif value is not None:
                value = convert(value)
        except ValueError as error:
            raise ConfigError(f"{label}: {error}") from None
    check_value(label, value, hint)
    return value


def _unknown(words: list[str], kind: type[Any], prog: str) -> str:
    """Describe words for which a command has no option or argument."""
    first = words[0].partition("=")[0].lstrip("-").replace("_", "-")
    similar = nearest(first, [name.removeprefix("--") for name in _names(kind)], cutoff=0.85)
    hint = f"{prog} {HELP_ALL} lists all options"
    if similar:
        hint = f"perhaps you meant {', '.join(f'--{name}' for name in similar)}"
    what = "there is no such option" if words[0].startswith("-") else "not expected here"
    return f"{' '.join(words)}: {what}; {hint}"


def _names(kind: type[Any]) -> list[str]:
    """List the options of a command, and the fields of its config if it has one."""
    names = []
    for field in dataclasses.fields(kind):
        if field.type == ConfigFields:
            names += [f"--{name.replace('_', '-')}" for name in flatten(Config())]
        elif field.type not in ARGUMENTS:
            names.append(_label(field))
    return names


def _label(field: dataclasses.Field[Any]) -> str:
    """Return what help calls an option or an argument."""
    if field.type in ARGUMENTS:
        return ARGUMENTS[field.type].removesuffix(" ...")
    return f"--{OTHER_NAMES.get(field.name, field.name).replace('_', '-')}"


def _show_help(defaults: Any, prog: str, show_all: bool) -> NoReturn:
    """Print the options, of a config only the common ones unless all are asked for, and exit."""
    is_shortened = hasattr(defaults, "config") and not show_all
    registry = ConstructorRegistry()

    @registry.struct_rule
    def fields_with_ranges(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        texts, common = _texts(info.type), COMMON.get(info.type)
        specs = []
        for name, hint in get_type_hints(info.type, include_extras=True).items():
            text, allowed = texts.get(name), allowed_range(hint)
            if text and allowed:
                text = f"{text.rstrip('.')}. Allowed: {allowed.words}."
            is_hidden = is_shortened and common is not None and name not in common
            shown = Suppress[hint] if is_hidden else hint  # type: ignore[misc,valid-type]  # a type made here
            specs.append(StructFieldSpec(name, shown, getattr(info.default, name), text))
        return StructConstructorSpec(info.type, tuple(specs))

    with contextlib.suppress(SystemExit):
        tyro.cli(type(defaults), default=defaults, args=["--help"], prog=prog, registry=registry)
    if is_shortened:
        print(f"{prog} {HELP_ALL} lists all {len(_names(type(defaults)))} options")
    raise SystemExit(0)


def _texts(kind: type[Any]) -> dict[str, str]:
    """Return the string below each field in the source of a class, as one line."""
    (definition,) = ast.parse(inspect.getsource(kind)).body
    texts = {}
    for field, below in itertools.pairwise(ast.iter_child_nodes(definition)):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).replace("``", "").split())
    return texts


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
