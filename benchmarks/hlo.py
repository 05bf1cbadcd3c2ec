"""What an optimised program of XLA does, read off its text: kernels, loops, and how many bytes they move at least."""

import dataclasses
import math
import re

_BITS = {"pred": 8, "token": 0}
_NO_KERNEL = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
}
_VIEWS = {"bitcast", "reshape"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool


@dataclasses.dataclass(frozen=True)
class Work:
    """kernels: started, each pass of a loop counted. loops: in the program's text. bytes: moved by the kernels.

    A copy of 16 bytes or fewer is counted nowhere: a flag or a scalar that is handed over.
    """

    kernels: int = 0
    loops: int = 0
    bytes: int = 0

    def __add__(self, other):
        return Work(self.kernels + other.kernels, self.loops + other.loops, self.bytes + other.bytes)

    def times(self, n):
        return Work(n * self.kernels, self.loops, n * self.bytes)


def work(text: str) -> Work:
    """Of the entry of a module's text, as ``compiled.as_text()`` gives it.

    A kernel reads what it is given and writes what it gives, each byte once; of what it only slices, it reads the
    slices, and where it updates a slice in place, it writes that slice. Caches aside, it can do no better.

    Raises:
      ValueError: a loop's number of passes is not known to the compiler.
    """
    modules, entry = computations(text)
    return _total(modules, entry)


def computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """``{computation: {name: instruction}}`` and the entry's name."""
    found: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = found.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and " = " in line:
            one = _instruction(line)
            current[one.name] = one
    return found, entry


def size(type_: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    total = 0
    for name, shape in re.findall(r"([a-z]\w*)\[([\d,]*)\]", type_):
        digits = re.search(r"\d+", name)
        bits = _BITS[name] if name in _BITS else int(digits[0]) if digits else 8
        total += -(-bits * math.prod(map(int, filter(None, shape.split(",")))) // 8)
    return total


def _instruction(line):
    left, right = line.strip().split(" = ", 1)
    type_, rest = _first(right)
    opcode, rest = rest.strip().split("(", 1)
    inside, attributes = _first("(" + rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(left.split("%")[-1].strip(), type_, opcode, operands, attributes, left.startswith("ROOT"))


def _first(text):
    """The first word or bracketed group of a text, and the rest."""
    if not text.startswith("("):
        return text.split(" ", 1)
    depth = 0
    for i, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    raise ValueError(f"unbalanced: {text[:60]}")


def _total(modules, name):
    return sum((_work(modules, modules[name], one) for one in modules[name].values()), Work())


def _work(modules, within, one):
    if one.opcode in _NO_KERNEL or one.opcode.endswith(("-done", "-update")):
        return Work()
    called = re.findall(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.\-]+)", one.attributes)
    if one.opcode == "while":
        passes = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', one.attributes)
        if not passes:
            raise ValueError(f"{one.name}: the number of its passes is not known")
        inner = sum((_total(modules, name) for name in called), Work())
        return inner.times(int(passes[1])) + Work(loops=1)
    if one.opcode in ("call", "async-start"):
        return _total(modules, called[0])
    if one.opcode == "conditional":
        branches = re.findall(r"%([\w.\-]+)", re.search(r"branch_computations=\{(.*?)\}", one.attributes)[1])
        return max((_total(modules, name) for name in branches), key=lambda work: work.bytes)
    if one.opcode == "fusion":
        return Work(1, 0, _fusion(modules[called[0]]))
    written = size(re.sub(r"u8\[\d+\]", "", one.type) if one.opcode == "custom-call" else one.type)  # without scratch
    if one.opcode == "dynamic-update-slice":
        return Work(1, 0, 2 * size(within[one.operands[1]].type))
    if one.opcode in ("slice", "dynamic-slice"):
        return Work(1, 0, 2 * written)
    if one.opcode.startswith("copy") and written <= 16:
        return Work()
    return Work(1, 0, written + sum(size(within[name].type) for name in one.operands))


def _fusion(inside):
    users: dict[str, list[Instruction]] = {name: [] for name in inside}
    for one in inside.values():
        for operand in one.operands:
            users[operand].append(one)
    root = next(one for one in inside.values() if one.root)
    results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    updates = [one for one in map(lambda one: _seen(inside, one), results) if one.opcode == "dynamic-update-slice"]
    written = sum(
        size(inside[_seen(inside, one).operands[1]].type) if _seen(inside, one) in updates else size(one.type)
        for one in results
    )
    read = sum(_read(one, users, updates) for one in inside.values() if one.opcode == "parameter")
    return written + read


def _seen(inside, one):
    while one.opcode in _VIEWS:
        one = inside[one.operands[0]]
    return one


def _read(one, users, updates):
    """Bytes of a parameter that are read: what is sliced of it, unless some use needs all."""
    sliced, whole, left = set(), False, [(one, user) for user in users[one.name]]
    while left:
        given, user = left.pop()
        if user.opcode in _VIEWS:
            left += [(user, after) for after in users[user.name]]
        elif user.opcode in ("slice", "dynamic-slice", "gather") and user.operands[0] == given.name:
            sliced.add((user.type, user.attributes.split("}")[0] if user.opcode == "slice" else user.operands))
        elif user in updates and user.operands[0] == given.name:
            continue
        else:
            whole = True
    return size(one.type) if whole else min(size(one.type), sum(size(type_) for type_, _ in sliced))
