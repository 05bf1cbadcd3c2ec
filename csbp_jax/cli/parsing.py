"""tyro fills a command's dataclass from the words of a command line, and shows its help; it is called here alone.

It would print a box of many lines where a word is wrong. So that a mistake is one line, tyro leaves a word that it
cannot convert a text, and hands back those that it does not know; the values are then checked as those of a config are.
"""

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import re
from collections.abc import Sequence
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

from csbp_jax.cli.option_types import ARGUMENTS, OTHER_NAMES, ConfigFields, Listed
from csbp_jax.config import Chaos, Config, ConfigError, Data, Model, Optimizer, flatten, nearest
from csbp_jax.config.validation import allowed_range, check_value, check_values

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


def usage(kind: type[Any]) -> str:
    """Return the arguments of a command that have no name, such as ``RUN FILE ...``."""
    return " ".join(ARGUMENTS[field.type] for field in dataclasses.fields(kind) if field.type in ARGUMENTS)


def fill(defaults: Options, argv: Sequence[str], prog: str) -> Options:
    """Replace the values of a command's dataclass by those on the command line, and check them; or show help and exit.

    Raises:
      ConfigError: an unknown option, an invalid value, or a missing argument.
    """
    if any(word in HELP for word in argv):
        show_help(defaults, prog, show_all=HELP_ALL in argv)
    kind, output = type(defaults), io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            options, unknown = tyro.cli(
                kind, default=defaults, args=argv, prog=prog, registry=WORDS, return_unknown_args=True
            )
    except SystemExit:
        # An option has too few values. The box says which, in a paragraph below its title and a rule.
        lines = [line.strip() for line in output.getvalue().splitlines()]
        message = " ".join(itertools.takewhile(lambda line: line.strip("-"), lines[2:]))
        if unmatched := re.match(r"Error parsing (\S+): no type matching \{None\}\|\{(.*?)\} could be", message):
            raise ConfigError(f"{unmatched[1]}: it takes {unmatched[2]}, or None") from None
        raise ConfigError(f"{message.rstrip('.') or 'invalid options'}; {prog} {HELP_ALL} lists all options") from None
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
    """Leave a word that is no number, or none of the choices, a text, which the check of the value refuses."""
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
    similar = nearest(first, [name.removeprefix("--") for name in option_names(kind)], cutoff=0.85)
    hint = f"{prog} {HELP_ALL} lists all options"
    if similar:
        hint = f"perhaps you meant {', '.join(f'--{name}' for name in similar)}"
    what = "there is no such option" if words[0].startswith("-") else "not expected here"
    return f"{' '.join(words)}: {what}; {hint}"


def option_names(kind: type[Any]) -> list[str]:
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


def show_help(defaults: Any, prog: str, show_all: bool) -> NoReturn:
    """Print the options, of a config only the common ones unless all are asked for, and exit."""
    is_shortened = hasattr(defaults, "config") and not show_all
    registry = ConstructorRegistry()

    @registry.struct_rule
    def fields_with_ranges(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        texts, hints = _texts(info.type), get_type_hints(info.type, include_extras=True)
        shown = COMMON.get(info.type, hints) if is_shortened else hints
        specs = []
        for name, hint in hints.items():
            text, allowed = texts.get(name), allowed_range(hint)
            if text and allowed:
                text = f"{text.rstrip('.')}. Allowed: {allowed.words}."
            if name not in shown:
                hint = Suppress[hint]  # type: ignore[valid-type,misc]  # a type made here
            specs.append(StructFieldSpec(name, hint, getattr(info.default, name), text))
        return StructConstructorSpec(info.type, tuple(specs))

    with contextlib.suppress(SystemExit):
        tyro.cli(type(defaults), default=defaults, args=["--help"], prog=prog, registry=registry)
    if is_shortened:
        print(f"{prog} {HELP_ALL} lists all {len(option_names(type(defaults)))} options")
    raise SystemExit(0)


def _texts(kind: type[Any]) -> dict[str, str]:
    """Return the string below each field in the source of a dataclass and of those that it extends, as one line."""
    texts = {}
    for part in filter(dataclasses.is_dataclass, reversed(kind.__mro__)):
        (definition,) = ast.parse(inspect.getsource(part)).body
        for field, below in itertools.pairwise(ast.iter_child_nodes(definition)):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(below.value).replace("``", "").split())
    return texts
