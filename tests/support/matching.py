"""Searches whose match is asserted."""

import re


def search(pattern: str, text: str | None, flags: int = 0) -> re.Match[str]:
    """Return the first match of ``pattern`` in ``text``; without one the test fails."""
    assert text is not None
    match = re.search(pattern, text, flags)
    assert match, f"no match of {pattern!r} in {text[-2000:]!r}"
    return match
