"""How measures are named and written: shares in percent, with differences in points, and others as numbers."""

from collections.abc import Collection
from typing import NamedTuple


class Measure(NamedTuple):
    """A measure as text.

    label: its name in tables. share: whether it is from 0 to 1, and written in percent. short: beside a progress bar.
    """

    label: str
    share: bool
    short: str

    @property
    def scale(self) -> int:
        """Factor from a value to what is written."""
        return 100 if self.share else 1

    @property
    def unit(self) -> str:
        """Text after its name in a table or at an axis."""
        return " (%)" * self.share

    def text(self, value: float, digits: int = 2) -> str:
        """Format a value: 93.10%, or 0.931 with ``digits`` + 1 of them significant."""
        return f"{value:.{digits}%}" if self.share else f"{value:.{digits + 1}g}"


MEASURES = {
    "accuracy": Measure("accuracy", True, "acc"),
    "f1": Measure("F1", True, "F1"),
    "r2": Measure("R2", False, "R2"),
    "mae": Measure("MAE", False, "MAE"),
}
"""By the last word of a column or of a key of a file, such as ``last_test_accuracy``; the main ones first."""


def of(column: str) -> Measure:
    """Return the measure that a column holds; one without a name if it is none of :data:`MEASURES`.

    >>> of("last_test_f1").label, of("loss").share, of("accuracy_of_words").unit
    ('F1', False, ' (%)')
    """
    if "accuracy" in column:  # also one of a user's own
        return MEASURES["accuracy"]
    return MEASURES.get(column.rpartition("_")[2], Measure("", False, ""))


def names(keys: Collection[str], prefix: str = "test_") -> list[str]:
    """Return which of :data:`MEASURES` are among some columns or keys.

    >>> names(["test_mae", "test_r2", "test_loss"])
    ['r2', 'mae']
    """
    return [name for name in MEASURES if f"{prefix}{name}" in keys]


def primary(keys: Collection[str], prefix: str = "test_") -> str:
    """Return the first of :func:`names`, by which epochs are chosen and arms compared, the larger the better.

    >>> primary(["test_r2", "test_loss"]), primary([])
    ('r2', 'accuracy')
    """
    return next(iter(names(keys, prefix)), "accuracy")


def words(column: str) -> str:
    """Return the name of a column in words.

    >>> words("last_test_r2"), words("validation_accuracy")
    ('last test R2', 'validation accuracy')
    """
    return " ".join(MEASURES[word].label if word in MEASURES else word for word in column.split("_"))
