"""The pickle of a PyTorch checkpoint, read as descriptions of its tensors.

A pickle is a program for a stack machine, in which a tensor is written as

    torch._utils._rebuild_tensor_v2(("storage", torch.FloatStorage, KEY, device, elements), offset, size, stride, ...)

Python's own machine imports and calls whatever the program names. This one implements the few operations that state
dicts need and treats names as text: those of tensors and dictionaries have a meaning, others are refused. It creates
only dictionaries, lists, tuples, numbers, text, and the descriptions below. Source: pickletools.py, torch/_utils.py.
"""

import os
import pickletools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from csbp_jax.config import ConfigError

DTYPES: dict[str, Any] = {
    "torch.DoubleStorage": np.float64,
    "torch.FloatStorage": np.float32,
    "torch.HalfStorage": np.float16,
    "torch.BFloat16Storage": jnp.bfloat16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ShortStorage": np.int16,
    "torch.CharStorage": np.int8,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
# Common beside weights (options, accuracies, milestones) and not needed: replaced by None.
_IGNORED = {
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
    "__builtin__.set",
    "__builtin__.dict",
    "torch.Size",
    "torch.device",
}
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_DICT = "collections.OrderedDict"
_KNOWN = {_TENSOR, _PARAMETER, _DICT, *DTYPES, *_IGNORED}
REMEDY = "from a copy you trust, PyTorch makes one: torch.save(model.state_dict(), 'new.pth')"


class Name(NamedTuple):
    """A name that the pickle imports."""

    full: str


class Storage(NamedTuple):
    """A storage as the pickle declares it.

    kind: a key of ``DTYPES``; key: the name of its bytes in the archive; elements: its declared length.
    """

    kind: str
    key: str
    elements: int


class Tensor(NamedTuple):
    """A tensor as the pickle declares it, not validated; offset and stride are in elements of the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def unpickle(data: bytes, path: str | os.PathLike[str]) -> Any:
    """Return the object of a pickle, with a :class:`Tensor` for each tensor.

    Raises:
      ConfigError: it refers to anything but tensors; names it.
      Exception: any kind, if its bytes are damaged.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            module, name = str(argument).split(" ", 1)
            stack.append(_name(module, name, path))
        elif opcode.name == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_name(module, name, path))
        elif opcode.name in _ARGUMENT:
            stack.append(argument)
        elif opcode.name in _CONSTANTS:
            stack.append(_CONSTANTS[opcode.name]())
        # Not PUT and GET, whose numbers can be chosen to have one hash: torch.save never writes them.
        elif opcode.name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        else:
            _combine(opcode.name, stack, marks)
    return stack.pop()


_ARGUMENT = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINSTRING", "SHORT_BINSTRING", "STRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}


def _name(module: str, name: str, path: str | os.PathLike[str]) -> Name:
    # join, not an f-string: a damaged file may have anything on the stack, whose text could be endless.
    full = ".".join((module, name))
    if full not in _KNOWN:
        raise ConfigError(
            f"{path}: refers to {full}, which is not a tensor; nothing was executed. If it is a model or another kind "
            f"of tensor: {REMEDY}"
        )
    return Name(full)


def _combine(operation: str, stack: list[Any], marks: list[int]) -> None:
    """Execute an operation on the top of the stack."""

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    match operation:
        case "PROTO" | "FRAME" | "STOP":
            pass
        case "MARK":
            marks.append(len(stack))
        case "TUPLE":
            stack.append(tuple(since_mark()))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack[-int(operation[-1]) :] = [tuple(stack[-int(operation[-1]) :])]
        case "APPEND" | "APPENDS":
            items = since_mark() if operation == "APPENDS" else [stack.pop()]
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        case "SETITEM" | "SETITEMS":
            items = since_mark() if operation == "SETITEMS" else [stack.pop(-2), stack.pop()]
            if isinstance(stack[-1], dict):
                _fill(stack[-1], zip(items[::2], items[1::2], strict=True))
        case "BUILD":
            stack.pop()  # attributes, such as the versions of a state dict's modules
        case "BINPERSID":
            _, kind, key, _, elements = stack.pop()
            # The unbound methods raise where a damaged file has another type, instead of converting it.
            stack.append(Storage(kind.full, str.__str__(key), int.__index__(elements)))
        case "REDUCE" | "NEWOBJ":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function.full, arguments))
        case _:
            raise ValueError(f"{operation} in its pickle")


def _fill(dictionary: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    # A nested tuple can take forever to hash, and so do integers that are chosen to have one hash.
    dictionary.update((key, value) for key, value in pairs if isinstance(key, str))


def _call(name: str, arguments: Any) -> Any:
    if name == _TENSOR:
        return Tensor(*arguments[:4])
    if name == _PARAMETER:
        return arguments[0]
    if name == _DICT:
        dictionary: dict[Any, Any] = {}
        if arguments:  # Python 2 writes a list for each dictionary; one list for many would fill the memory with copies
            _fill(dictionary, arguments[0])
            list.clear(arguments[0])
        return dictionary
    return None
