"""Rows of a page's tables that quote a longer table, in fewer rows and columns."""

import re


def body(text: str) -> list[list[str]]:
    """Return the cells of all tables' rows, without their heads."""
    lines = [line.strip() for line in text.splitlines()]
    rows = [line for line, after in zip(lines, [*lines[1:], ""], strict=True) if not re.match(r"\|\s*---", after)]
    return [[cell.strip() for cell in row[1:-1].split("|")] for row in rows if re.match(r"\|(?!\s*---)", row)]


def quoted(page: str, table: str, key: int = 1) -> list[list[str]]:
    """Return the rows of ``page`` whose first ``key`` cells begin a row of ``table``, after a check of the others."""
    known: dict[tuple[str, ...], set[str]] = {}
    for row in body(table):
        known.setdefault(tuple(row[:key]), {""}).update(row[key:])
    rows = [row for row in body(page) if tuple(row[:key]) in known]
    assert [row for row in rows if not known[tuple(row[:key])].issuperset(row[key:])] == []
    return rows
