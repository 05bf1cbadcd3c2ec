"""Kernels, loops and bytes moved of an optimised XLA program, counted from its text, and the bytes by part of a step.

An instruction belongs to the part of a training step that its path names (Flax names the layers); a fusion of two parts
belongs to that of its last operation, and copies that XLA adds have no path.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Mapping

from benchmarks.tables import table

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
PATHS = {
    "chaos term": r"/tap",
    "neuron": r"/neuron",
    "norm": r"/norm",
    "convolutions": r"conv_general_dilated|/conv/|^convolution",
    "pooling": r"reduce.window|select.and.scatter|/pool",
    "dense layers": r"/dense/|readout|dot_general",
    "loss, metrics, other": r"jvp|argmax",
}
"""``{part of a training step: pattern of an instruction's path}``; the first that matches counts. The rest is the
optimiser."""
REST, COPIES = "optimiser, guard", "copies"
PARTS = (*PATHS, REST, COPIES)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation; ``value`` is the text between the brackets of a constant."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool
    value: str = ""


@dataclasses.dataclass(frozen=True)
class Work:
    """Counts of a program.

    kernels: starts, each pass of a loop included. loops: in the program's text. bytes: that kernels move, an estimate
    (:func:`work`). Copies of 16 bytes or fewer (flags and scalars) are not counted.
    """

    kernels: int = 0
    loops: int = 0
    bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.kernels + other.kernels, self.loops + other.loops, self.bytes + other.bytes)

    def times(self, n: int) -> "Work":
        """The work of a loop of n passes; its loops are counted once."""
        return Work(n * self.kernels, self.loops, n * self.bytes)


Computation = dict[str, Instruction]
Modules = dict[str, Computation]
Size = Callable[[str], int]
"""Bytes of a type as it is printed."""
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "send")
"""Opcodes of communication; on TPUs, ``send`` is a transfer between slices."""


def size(type_: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    total = 0
    for name, shape in re.findall(r"([a-z]\w*)\[([\d,]*)\]", type_):
        total += -(-_bits(name) * math.prod(map(int, filter(None, shape.split(",")))) // 8)
    return total


def hbm_size(type_: str) -> int:
    """Bytes in a TPU's main memory: arrays in another memory space are 0, and tiles are filled up.

    ``f32[8,64]{1,0:T(8,128)}`` has tiles of 8 rows and 128 lanes, so that 64 channels take the space of 128;
    ``S(1)`` is on-chip memory.
    """
    total = 0
    for name, shape, layout in re.findall(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", type_):
        if re.search(r"S\([1-9]", layout):
            continue
        sizes = [int(n) for n in shape.split(",") if n]
        order = re.match(r"\{([\d,]*)", layout)
        minor_first = [sizes[int(i)] for i in order[1].split(",") if i] if order else sizes[::-1]
        tile = re.search(r":T\(([\d,]+)\)", layout)
        for i, n in enumerate(reversed(tile[1].split(","))) if tile else ():
            if i < len(minor_first):
                minor_first[i] = -(-minor_first[i] // int(n)) * int(n)
        total += -(-_bits(name) * math.prod(minor_first) // 8)
    return total


def _bits(name: str) -> int:
    digits = re.search(r"\d+", name)
    return _BITS[name] if name in _BITS else int(digits[0]) if digits else 8


def work(text: str, nbytes: Size = size) -> Work:
    """Count the work of a module's entry, from the text of ``compiled.as_text()``.

    A kernel reads its operands and writes its results, each byte once. Of an operand that it only slices it reads the
    slices, and of a result that it updates in place it writes the slice. That is too much where it reads a part of an
    operand in another way, and too little where it reads one twice.

    Args:
      nbytes: bytes of a type: :func:`size`, or :func:`hbm_size` on a TPU.

    Raises:
      ValueError: the compiler does not know a loop's number of passes.
    """
    return sum((work for _, work in kernels(text, nbytes)), Work())


def kernels(text: str, nbytes: Size) -> list[tuple[Instruction, Work]]:
    """Return the instructions of a module's entry, each with its work."""
    modules, entry = computations(text)
    return [(i, _work(modules, modules[entry], i, nbytes)) for i in modules[entry].values()]


def part_of(path: str, name: str = "") -> str:
    """The part of a step to which an instruction belongs, by its path in the program, or else by its name."""
    named = (part for part, pattern in PATHS.items() if re.search(pattern, path or name))
    return next(named, REST if path else COPIES)


def parts_of(text: str) -> dict[str, str]:
    """``{instruction: part}`` of all instructions in the text of a compiled program."""
    modules, _ = computations(text)

    def path(instruction: Instruction) -> str:
        """Its own, or else that of the last instruction that it fuses."""
        own, *fused = (re.search(r'op_name="([^"]*)"', i.attributes) for i in inside(instruction, modules))
        return next((match[1] for match in (own, *reversed(fused)) if match), "")

    return {i.name: part_of(path(i), i.name) for module in modules.values() for i in module.values()}


def bytes_by_part(text: str, nbytes: Size = size) -> dict[str, int]:
    """Bytes that a program's kernels move, by part."""
    parts, total = parts_of(text), collections.Counter[str]()
    for instruction, work in kernels(text, nbytes):
        total[parts[instruction.name]] += work.bytes
    return dict(total)


def traffic(programs: Mapping[str, Mapping[str, int]]) -> str:
    """A table of the bytes that programs move, ``{program: {part: bytes}}``: percent by part."""
    rows = []
    for name, of_parts in programs.items():
        total = sum(of_parts.values())
        percents = [f"{100 * of_parts.get(part, 0) / total:.0f}" for part in PARTS]
        rows.append([name, f"{total / 1e9:.3g}", *percents])
    return table(["net", "GB", *PARTS], rows)


def inside(instruction: Instruction, modules: Modules) -> list[Instruction]:
    """The instruction and, of a fusion, those that it fuses."""
    if instruction.opcode != "fusion" or "calls=%" not in instruction.attributes:
        return [instruction]
    called = instruction.attributes.split("calls=%")[1].split(",")[0].split(" ")[0]
    return [instruction, *(nested for inner in modules[called].values() for nested in inside(inner, modules))]


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Return ``{kind: {"count", "bytes"}}`` of the collectives in the program's text; bytes are of the operands.

    One that is spread over several fusions, which have its channel in common, counts once.
    """
    counts: dict[str, dict[str, int]] = {}
    channels: set[tuple[str, str]] = set()
    for computation in computations(text)[0].values():
        for instruction in computation.values():
            kind = instruction.opcode.removesuffix("-start")
            channel = (kind, channel_of(instruction))
            if kind in COLLECTIVES and channel not in channels:
                channels |= {channel} if channel[1] else set()
                row = counts.setdefault(kind, {"count": 0, "bytes": 0})
                row["count"] += 1
                row["bytes"] += sum(size(computation[name].type) for name in instruction.operands)
    return counts


def count(text: str, opcode: str) -> int:
    """Count the instructions of a kind in the program's text, also those within fusions."""
    return sum(i.opcode == opcode for computation in computations(text)[0].values() for i in computation.values())


def channel_of(instruction: Instruction) -> str:
    """The number of a collective's channel; empty if it has none."""
    match = re.search(r"channel_id=(\d+)", instruction.attributes)
    return match[1] if match else ""


def computations(text: str) -> tuple[dict[str, dict[str, Instruction]], str]:
    """``{computation: {name: instruction}}`` and the entry's name."""
    modules: dict[str, dict[str, Instruction]] = {}
    entry = ""
    current: dict[str, Instruction] | None = None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = modules.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif current is not None and " = " in line:
            instruction = _instruction(line)
            current[instruction.name] = instruction
    return modules, entry


def _instruction(line: str) -> Instruction:
    left, right = line.strip().split(" = ", 1)
    type_, rest = _first(right)
    opcode, rest = rest.strip().split("(", 1)
    inside, attributes = _first("(" + rest)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    value = inside[1:-1] if opcode == "constant" else ""
    return Instruction(left.split("%")[-1].strip(), type_, opcode, operands, attributes, left.startswith("ROOT"), value)


def _first(text: str) -> tuple[str, str]:
    """The first word or bracketed group of a text, and the rest."""
    if not text.startswith("("):
        word, rest = text.split(" ", 1)
        return word, rest
    depth = 0
    for i, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0:
            return text[: i + 1], text[i + 1 :]
    raise ValueError(f"unbalanced: {text[:60]}")


def _elements(type_: str) -> list[str]:
    """The types of a tuple's elements."""
    elements, depth, start = [], 0, 1
    for i, letter in enumerate(type_):
        depth += (letter in "({[") - (letter in ")}]")
        if (depth == 1 and letter == ",") or depth == 0:
            elements.append(type_[start:i].strip())
            start = i + 1
    return elements


def _slice_read(result: str, original: str, nbytes: Size) -> int:
    """Bytes of a slice where its original lies, which may be another memory."""
    space = re.search(r"S\(\d+\)", original)
    return nbytes(re.sub(r"S\(\d+\)", "", result)) if not (space and nbytes is hbm_size) else 0


def _total(modules: Modules, name: str, nbytes: Size) -> Work:
    return sum((_work(modules, modules[name], i, nbytes) for i in modules[name].values()), Work())


def _work(modules: Modules, within: Computation, instruction: Instruction, nbytes: Size) -> Work:
    if instruction.opcode in _NO_KERNEL or instruction.opcode.endswith(("-done", "-update")):
        return Work()
    attributes = instruction.attributes
    called = re.findall(r"(?:calls|to_apply|body|condition|branch_computations)=\{?%?([\w.\-]+)", attributes)
    if instruction.opcode == "while":
        inner = sum((_total(modules, name, nbytes) for name in called), Work())
        return inner.times(_passes(modules, instruction)) + Work(loops=1)
    if instruction.opcode in ("call", "async-start"):
        return _total(modules, called[0], nbytes)
    if instruction.opcode == "conditional":
        listed = re.search(r"branch_computations=\{(.*?)\}", attributes)
        branches = re.findall(r"%([\w.\-]+)", listed[1] if listed else "")
        return max((_total(modules, name, nbytes) for name in branches), key=lambda work: work.bytes)
    if instruction.opcode == "fusion":
        return Work(1, 0, _fusion(modules[called[0]], nbytes))
    # A custom call's scratch memory is part of its type.
    type_ = re.sub(r"u8\[\d+\]", "", instruction.type) if instruction.opcode == "custom-call" else instruction.type
    written = nbytes(type_)
    if instruction.opcode == "dynamic-update-slice":
        return Work(1, 0, 2 * nbytes(within[instruction.operands[1]].type))
    if instruction.opcode.removesuffix("-start") in ("slice", "dynamic-slice"):
        # The type of a start names the original, the slice and a flag.
        result = _elements(instruction.type)[1] if instruction.opcode.endswith("-start") else instruction.type
        return Work(1, 0, nbytes(result) + _slice_read(result, within[instruction.operands[0]].type, nbytes))
    if instruction.opcode in ("copy-start", "send"):  # its type names the result, the original and a flag
        written -= nbytes(within[instruction.operands[0]].type)
    if instruction.opcode.startswith("copy") and size(within[instruction.operands[0]].type) <= 16:
        return Work()
    return Work(1, 0, written + sum(nbytes(within[name].type) for name in instruction.operands))


def _passes(modules: Modules, loop: Instruction) -> int:
    """The number of a loop's passes: XLA's, or the bound of its counter, which starts at 0 in JAX's counted loops."""
    known = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.attributes)
    if known:
        return int(known[1])
    condition = modules[re.findall(r"condition=%([\w.\-]+)", loop.attributes)[0]]
    test = next(instruction for instruction in condition.values() if instruction.root)
    if test.opcode == "compare" and "direction=LT" in test.attributes:
        bound = condition[test.operands[1]]
        if bound.opcode == "constant":
            return int(bound.value)
    raise ValueError(f"{loop.name}: the number of its passes is not known")


def _fusion(inside: Computation, nbytes: Size) -> int:
    """Bytes that a fusion moves."""
    users: dict[str, list[Instruction]] = {name: [] for name in inside}
    for instruction in inside.values():
        for operand in instruction.operands:
            users[operand].append(instruction)
    root = next(instruction for instruction in inside.values() if instruction.root)
    results = [inside[name] for name in root.operands] if root.opcode == "tuple" else [root]
    sources = [_behind_views(inside, result) for result in results]
    updates = [source for source in sources if source.opcode == "dynamic-update-slice"]
    written = sum(
        nbytes(inside[source.operands[1]].type) if source in updates else nbytes(result.type)
        for result, source in zip(results, sources, strict=True)
    )
    parameters = [instruction for instruction in inside.values() if instruction.opcode == "parameter"]
    return written + sum(_read(parameter, users, updates, nbytes) for parameter in parameters)


def _behind_views(inside: Computation, instruction: Instruction) -> Instruction:
    """The instruction whose result a chain of views shows."""
    while instruction.opcode in _VIEWS:
        instruction = inside[instruction.operands[0]]
    return instruction


def _read(parameter: Instruction, users: dict[str, list[Instruction]], updates: list[Instruction], nbytes: Size) -> int:
    """Bytes of a parameter that are read: its slices, or all of it if some use needs all."""
    sliced, pairs = set(), [(parameter, user) for user in users[parameter.name]]
    while pairs:
        operand, user = pairs.pop()
        if user.opcode in _VIEWS:
            pairs += [(user, after) for after in users[user.name]]
        elif user.opcode in ("slice", "dynamic-slice", "gather") and user.operands[0] == operand.name:
            sliced.add((user.type, user.attributes.split("}")[0] if user.opcode == "slice" else user.operands))
        elif user not in updates or user.operands[0] != operand.name:
            return nbytes(parameter.type)
    return min(nbytes(parameter.type), sum(nbytes(type_) for type_, _ in sliced))
