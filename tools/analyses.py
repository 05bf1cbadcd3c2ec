"""Check the numbers of tests/data/analyses.json, or write them: contrasts of the committed runs of docs/results.

    python -m tools.analyses [--write]

Runs in, numbers out: so code that analyses runs can be replaced, in :mod:`tools.analyses_by`. The file is a list of
families of tests:

    study       folder of the study, relative to docs/results
    file        the file of its runs, relative to docs/results
    measure     what is compared, its unit, and over what the arrays run
    values      {name: selector} of arrays; see :func:`select`
    test        a key of TESTS; options: its arguments beside the arrays
    holm        of how many rows, from the first, p is corrected together
    rule        a key of VERDICTS; verdict: the word that it gives, as on the page
    numbers     names of the results
    rows        names of the arrays, then the results; --write adds those of a row that has none
"""

import argparse
import functools
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.analyses_by import TESTS, VERDICTS, holm

ROOT = pathlib.Path(__file__).parent.parent
FILE = ROOT / "tests" / "data" / "analyses.json"

PS = ("p", "holm", "equivalence", "tost")
"""Names of probabilities, which matter however small they are."""

Array = NDArray[np.float64]
Family = dict[str, Any]


# --- arrays -------------------------------------------------------------------------------------------------------


@functools.cache
def read(file: str) -> Any:
    """The content of a .json or .npz file, relative to docs/results."""
    path = ROOT / "docs" / "results" / file
    return dict(np.load(path)) if path.suffix == ".npz" else json.loads(path.read_text())


def select(selector: Any, file: str) -> Array:
    """An array of a results file, in float64, NaN for null.

    Args:
      selector: ``PATH > OPERATION > ...``, or a difference ``SELECTOR minus SELECTOR``, or a list of selectors, which
        are stacked. A path is keys divided by ``/``, where ``0:128`` is a range of a list or of numeric keys, and
        ``a;b`` both of two keys. It may begin with another file. Text is numbers divided by blanks, or digits; before a
        key ``hex`` it is bits.
    """
    if not isinstance(selector, str):
        return np.stack([select(item, file) for item in selector])
    if " minus " in selector:
        first, second = (select(side, file) for side in selector.split(" minus "))
        return first - second
    path, *operations = selector.split(" > ")
    if match := re.match(r"(\S+\.(?:json|npz))/", path):
        file, path = match[1], path[match.end() :]
    array = np.array(_walk(read(file), path.split("/")), float)
    for operation in operations:
        name, *numbers = operation.split()
        array = OPERATIONS[name](array, *map(float, numbers))
    return array


def _walk(value: Any, path: Sequence[str]) -> Any:
    if isinstance(value, str) and path[:1] == ["hex"]:
        value, path = [int(bit) for bit in f"{int(value, 16):0{4 * len(value)}b}"], path[1:]
    elif isinstance(value, str):
        value = [float(text) for text in (value.split() if " " in value else value)]
    if not path:
        return value
    key, *rest = path
    if ":" in key:
        first, last = (int(end) if end else None for end in key.split(":"))
        if not isinstance(value, dict):
            return [_walk(item, rest) for item in value[first:last]]
        keys = [k for k in sorted(map(int, value)) if (first or 0) <= k < (math.inf if last is None else last)]
        return [_walk(value[str(k)], rest) for k in keys]
    if ";" in key:
        return [_walk(value, [name, *rest]) for name in key.split(";")]
    return _walk(value[key] if isinstance(value, dict) else value[int(key)], rest)


def _mean(array: Array, *sizes: float) -> Array:
    """The mean over the last axis, or the mean of those of groups of these sizes."""
    groups = np.split(array, np.cumsum(np.array(sizes, int))[:-1], axis=-1)
    return np.mean([group.mean(axis=-1) for group in groups], axis=0)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "mean": _mean,
    "columns": lambda array: array.mean(axis=tuple(range(array.ndim - 1))),
    "log": np.log,
    "times": lambda array, factor: array * factor,
    "plus": lambda array, number: array + number,
    "is": lambda array, number: (array == number).astype(float),
    "unlike": lambda pair: (pair[0] != pair[1]).astype(float),
    "flat": np.ravel,
    "rows": lambda array, length: array.reshape(-1, int(length)),
}


# --- numbers ------------------------------------------------------------------------------------------------------


def names_of(family: Family) -> list[tuple[str, ...]]:
    """The names of the arrays of each row."""
    return [tuple(cell for cell in row if cell in family["values"]) for row in family["rows"]]


def compute(family: Family, rows: int | None = None) -> tuple[list[list[Any]], str | None]:
    """The numbers of the first rows (all by default) of a family, and its verdict where all rows are computed.

    With fewer rows than those of which p is corrected, the corrected p are None.
    """
    arrays = {name: select(selector, family["file"]) for name, selector in family["values"].items()}
    test = functools.partial(TESTS[family["test"]], **family.get("options", {}))
    names = names_of(family)[:rows]
    compared = {of: {**test(*(arrays[name] for name in of))} for of in names}
    corrected = names[: family.get("holm", 0)] if rows is None else []
    for of, p in holm({of: compared[of]["p"] for of in corrected}).items():
        compared[of]["holm"] = p
    known = family.get("rule") in VERDICTS and rows is None
    word = VERDICTS[family["rule"]](compared, arrays) if known else None
    return [[numbers.get(name) for name in family["numbers"]] for numbers in compared.values()], word


def close(name: str, number: Any, stored: Any) -> bool:
    """Whether a number is the stored one to 1e-9 of it, or to 1e-13 if it is no p; whether a word is."""
    if isinstance(number, str) or number is None or stored is None:
        return bool(number == stored)
    return math.isclose(number, stored, rel_tol=1e-9, abs_tol=0 if name in PS else 1e-13)


def differences(family: Family, rows: int | None = None) -> Iterator[str]:
    """A line for each stored number of the first rows, and for the verdict, that :func:`compute` does not give."""
    computed, word = compute(family, rows)
    for of, row, numbers in zip(names_of(family), family["rows"], computed, strict=rows is None):
        for name, number, stored in zip(family["numbers"], numbers, row[len(of) :], strict=True):
            if not close(name, number, stored) and (rows is None or name != "holm"):
                yield f"{title(family)}: {name} of {' and '.join(of)} is {number}, and not {stored}"
    if rows is None and family.get("rule") in VERDICTS and word != family.get("verdict"):
        yield f"{title(family)}: the verdict is {word}, and not {family.get('verdict')}"


def title(family: Family) -> str:
    """The study of a family, what it compares and by which test."""
    return f"{family['file']}: {family['measure']}, {family['test']}"


def written(families: Sequence[Family]) -> str:
    """The text of the file: families with their numbers, to 12 digits, a row a line."""
    filled = []
    for family in families:
        if family["test"] not in TESTS:
            filled.append(family)
            continue
        rows, word = compute(family)
        rounded = [[float(f"{x:.12g}") if isinstance(x, float) else x for x in row] for row in rows]
        rows = [[*of, *row] for of, row in zip(names_of(family), rounded, strict=True)]
        filled.append(family | {"rows": rows} | ({"verdict": word} if word else {}))
    text = json.dumps(filled, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^][{}]*\]", lambda match: " ".join(match[0].split()), text) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the numbers of today's code into the file")
    options = parser.parse_args(arguments)
    families = json.loads(FILE.read_text())
    if options.write:
        FILE.write_text(written(families))
        return
    families = [family for family in families if family["test"] in TESTS]
    wrong = [line for family in families for line in differences(family)]
    print("\n".join(wrong) or f"{sum(len(family['rows']) for family in families)} tests give the numbers of the file")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
