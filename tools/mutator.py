"""Mutants of Python code for ``tools/mutants.py``: copies of a statement with one fault each.

An operator, a constant, a comparison, a condition, an argument or a function is another one, or the statement is gone.
Annotations, texts, messages of errors and checks of types stay as they are.
"""

import ast
import copy
import pathlib
import re
from typing import NamedTuple


class Mutant(NamedTuple):
    """A changed statement; ``function`` is the qualified name of its function in ``file``, empty at the top."""

    file: str
    line: int
    function: str
    kind: str
    original: str
    mutated: str
    last: int = 0
    """The last line that it replaces."""
    span: tuple[int, int] = (0, 0)
    """The lines that a test executes: its own, those of the function of a default, or any if it runs on import."""

    def key(self):
        """Return what it is known by, also where the code has moved."""
        return self.function, self.original, self.mutated


OPERATORS = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr},
}
OPPOSITES = {
    **{ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In},
}
BOUNDARIES = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
PAIRS = ("maximum minimum", "max min", "sum mean", "any all", "ones zeros", "ones_like zeros_like", "argmax argmin")
FUNCTIONS = {name: other for a, b in map(str.split, PAIRS) for name, other in ((a, b), (b, a))}
DROPPED = {"dtype", "keepdims", "axis", "reverse", "where", "precision"}
NO_FAULT = re.compile(r"Error$|^(warn|isinstance|cast|print|TypeVar|TYPE_CHECKING|strict)$")
NO_NUMBER = re.compile(r"^[bf]?['\"]|^[\[{]|,\)$|path|folder|root|dir", re.IGNORECASE)  # "/" of paths, "+" of lists


def changes(node):
    """Yield ``(kind, replacement)`` of an expression."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            if not any(NO_NUMBER.search(ast.unparse(x)) for x in (left, right)):
                yield "operator", ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.UnaryOp(ast.USub() | ast.Not() as op, operand):
            yield "negation" if isinstance(op, ast.Not) else "sign", operand
        case ast.BoolOp(op, values):
            yield "and, or", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.Compare(left, [op], [right]):
            yield "comparison", ast.Compare(left, [OPPOSITES[type(op)]()], [right])
            if type(op) in BOUNDARIES and any(type(getattr(x, "value", 0.0)) is int for x in (left, right)):
                yield "boundary", ast.Compare(left, [BOUNDARIES[type(op)]()], [right])
        case ast.IfExp(test, body, orelse) if not isinstance(test, ast.Compare):
            yield "condition", ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.Constant(bool(value)):
            yield "constant", ast.Constant(not value)
        case ast.Constant(int(value)):
            yield "constant", ast.Constant(value + 1 if value < 8 else 2 * value)
        case ast.Constant(float(value)):
            yield "constant", ast.Constant(2 * value or 1.0)
        case ast.Call(ast.Attribute(value, name) as function, arguments, keywords):
            if name in FUNCTIONS:
                yield "function", ast.Call(ast.Attribute(value, FUNCTIONS[name], function.ctx), arguments, keywords)
            if name == "stop_gradient":
                yield "function", arguments[0]
            for keyword in keywords:
                if keyword.arg in DROPPED:
                    yield "argument", ast.Call(function, arguments, [k for k in keywords if k is not keyword])


def expressions(node):
    """Yield the expressions in a node that may hold a fault, with the node itself."""
    named = getattr(node, "func", node)
    name = getattr(named, "attr", getattr(named, "id", getattr(named, "arg", None)))
    if isinstance(node, ast.JoinedStr | ast.Raise) or NO_FAULT.search(name or ""):
        return
    yield node
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and field not in ("annotation", "returns"):
                yield from expressions(child)


def droppable(node, in_if):
    """Whether the program may go on without a statement, so that only a test can miss it."""
    match node:
        case ast.Expr(ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Assign([ast.Attribute() | ast.Subscript()]):
            return True
        case ast.Assign([ast.Name(name)], value):
            return any(isinstance(x, ast.Name) and x.id == name for x in ast.walk(value))
    return isinstance(node, ast.Return | ast.Continue) and in_if


def variants(node, head, in_if):
    """Yield ``(kind, text)`` of each mutant of a statement, whose head has no other statements in it."""
    if droppable(node, in_if):
        yield "statement", "pass"
    if isinstance(node, ast.If) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield "condition", text_of(ast.If(ast.UnaryOp(ast.Not(), node.test), head.body, []))
    for target in expressions(head):
        for kind, replacement in changes(target):
            # A deep copy that takes the replacement for a copy of the target.
            text = text_of(copy.deepcopy(head, {id(target): replacement}))
            yield "default" if isinstance(node, ast.FunctionDef) else kind, text


def text_of(head):
    return ast.unparse(ast.fix_missing_locations(head)).removesuffix("\n    pass")


def mutants(body, file, function="", inside=False, in_if=False):
    """Yield the mutants of each statement as a list; ``inside``: of a function, which does not run on import."""
    for node in body:
        if isinstance(node, ast.If) and NO_FAULT.search(ast.unparse(node.test)):
            continue
        is_function, parts = isinstance(node, ast.FunctionDef), [getattr(node, "body", [])]
        name = f"{function}.{node.name}".lstrip(".") if is_function or isinstance(node, ast.ClassDef) else function
        head, last = copy.copy(node), node.end_lineno
        if parts[0]:
            vars(head).update({"body": [ast.Pass()], "orelse": [], "decorator_list": []})
            first = parts[0][0]
            last = min([first.lineno, *(d.lineno for d in getattr(first, "decorator_list", []))]) - 1
        is_declared = last < node.lineno  # on a line with its body
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Try | ast.Match) and not is_declared:
            text, own = text_of(head), (node.lineno, node.end_lineno if is_function else last)
            span = own if inside or is_function else (1, 10**9)
            pairs = dict.fromkeys(pair for pair in variants(node, head, in_if) if pair[1] != text)
            if pairs:
                yield [Mutant(file, node.lineno, name, *(kind, text, mutated), last, span) for kind, mutated in pairs]
        parts += [getattr(node, "orelse", []), getattr(node, "finalbody", [])]
        for part in (*parts, *(handler.body for handler in getattr(node, "handlers", []))):
            yield from mutants(part, file, name, inside or is_function, isinstance(node, ast.If))


def mutants_of(root, path):
    """Return the mutants of a file or a directory, a list per statement; of equal statements those of the first."""
    files = sorted((root / path).glob("*.py")) if (root / path).is_dir() else [root / path]
    lists: dict[tuple, list[Mutant]] = {}
    for file in files:
        name = str(file.relative_to(root))
        for of_statement in mutants(ast.parse(file.read_text()).body, name):
            lists.setdefault((name, *of_statement[0].key()[:2]), of_statement)
    return list(lists.values())


def mutate(mutant, root):
    """Write a mutant's file below a directory, in place of the original."""
    file = pathlib.Path(root, mutant.file)
    text = file.read_text().splitlines(keepends=True)
    first = text[mutant.line - 1].lstrip()
    indent = text[mutant.line - 1][: -len(first)] + "el" * first.startswith("elif ")
    text[mutant.line - 1 : mutant.last] = [indent + mutant.mutated + "\n"]
    file.write_text("".join(text))
