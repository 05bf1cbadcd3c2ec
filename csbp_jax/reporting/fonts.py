"""Settings and text of figures: matplotlib's own settings, and escapes for characters that its font does not have."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence

from csbp_jax.config import ConfigError


@contextlib.contextmanager
def with_default_settings() -> Iterator[None]:
    """Make and save figures with matplotlib's own settings, whatever a ``matplotlibrc`` says.

    One in the working directory may be of a stranger.

    Raises:
      ConfigError: the one in the working directory cannot be read.
    """
    try:
        if os.path.exists("matplotlibrc") and not os.path.isfile("matplotlibrc"):
            raise ValueError("is not a regular file")
        from matplotlib import rc_context, rcParamsDefault
    except ValueError as error:  # matplotlib reads it when it is imported
        raise ConfigError(f"matplotlibrc: {error}; remove it, or change to another directory") from None
    with rc_context(rcParamsDefault):
        yield


def printable(text: str) -> str:
    r"""Return text that a figure shows as it is: without mathematics, and with escapes for characters without a glyph.

    >>> printable("a$b"), printable("\ue000")
    ('a\\$b', '\\ue000')
    """
    glyphs = _glyphs()
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode() for c in text).replace("$", r"\$")


def class_labels(names: Sequence[str], longest: int = 20) -> list[str]:
    """Return labels for an axis of classes: the names, shortened if long, or ``#3`` for a name without glyphs.

    >>> class_labels(["cat", "\ue000", "the first of two long names"])
    ['cat', '#1', 'the first …long names']
    """
    glyphs = _glyphs()
    half = longest // 2
    short = [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in names]
    return [printable(name) if glyphs.issuperset(map(ord, name)) else f"#{i}" for i, name in enumerate(short)]


@functools.cache
def _glyphs() -> frozenset[int]:
    """Return the characters for which matplotlib's font has a glyph, without those of control."""
    from matplotlib import font_manager, rcParamsDefault

    file = font_manager.findfont(font_manager.FontProperties(family=rcParamsDefault["font.family"]))
    return frozenset(code for code in font_manager.get_font(file).get_charmap() if chr(code).isprintable())
