"""Text in figures: fallback fonts for Chinese, Japanese and Korean, and escapes for what no installed font can draw."""

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence

from csbp_jax.config import ConfigError

_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC",
    "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAexGothic", "IPAGothic",
    "NanumGothic", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic",
    "Arial Unicode MS",
)  # fmt: skip
"""Families with CJK glyphs: free ones, then those of macOS and Windows."""


@contextlib.contextmanager
def with_fallbacks() -> Iterator[None]:
    """Let text of figures that are made and saved here fall back on installed CJK fonts.

    Settings are matplotlib's own, whatever a ``matplotlibrc`` says: one in the working directory may be of a stranger.
    """
    try:
        if os.path.exists("matplotlibrc") and not os.path.isfile("matplotlibrc"):
            raise ValueError("is not a regular file")
        from matplotlib import rc_context, rcParamsDefault
    except ValueError as error:  # matplotlib reads it when it is imported
        raise ConfigError(f"matplotlibrc: {error}; remove it, or change to another directory") from None
    with rc_context(rcParamsDefault | {"font.family": _families()}):
        yield


def printable(text: str) -> str:
    r"""Return text that a figure shows as it is: without mathematics, and with escapes for characters without a glyph.

    >>> printable("a$b"), printable("\ue000")
    ('a\\$b', '\\ue000')
    """
    glyphs = _glyphs(tuple(_families()))
    return "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode() for c in text).replace("$", r"\$")


def class_labels(names: Sequence[str], longest: int = 20) -> list[str]:
    """Return labels for an axis of classes: the names, shortened if long, or ``#3`` for a name without glyphs.

    >>> class_labels(["cat", "\ue000", "the first of two long names"])
    ['cat', '#1', 'the first …long names']
    """
    glyphs = _glyphs(tuple(_families()))
    half = longest // 2
    short = [name if len(name) <= longest else f"{name[:half]}…{name[-half:]}" for name in names]
    return [printable(name) if glyphs.issuperset(map(ord, name)) else f"#{i}" for i, name in enumerate(short)]


def _families() -> list[str]:
    """Return the default families and those fallbacks that are installed: matplotlib logs each that is not."""
    from matplotlib import font_manager, rcParamsDefault

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [*rcParamsDefault["font.family"], *(name for name in _FALLBACKS if name in installed)]


@functools.cache
def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """Return the characters for which these fonts have a glyph, without those of control."""
    from matplotlib import font_manager

    files = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in families]
    codes = frozenset().union(*(font_manager.get_font(file).get_charmap() for file in files))
    return frozenset(code for code in codes if chr(code).isprintable())
