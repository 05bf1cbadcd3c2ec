"""Which rows of a table `make test` runs."""

import pytest


def full(rows):
    """Return rows of a table that only `make test-all` runs; a tuple is a row of several arguments."""
    return [pytest.param(*(row if isinstance(row, tuple) else [row]), marks=pytest.mark.full) for row in rows]


def full_but(kept, rows):
    """Return the rows of a table of one argument, of which `make test` runs those in ``kept``."""
    return [row if row in kept else pytest.param(row, marks=pytest.mark.full) for row in rows]
