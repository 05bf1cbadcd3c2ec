"""Comparison of numbers in JSON."""

import json

import pytest


def about(content):
    """Equal to JSON whose numbers differ by rounding alone: of sums in another order."""
    if isinstance(content, dict):
        return {name: about(value) for name, value in content.items()}
    if isinstance(content, list):
        return [about(value) for value in content]
    return pytest.approx(content, rel=1e-12, abs=1e-15) if isinstance(content, float) else content


def stored(content):
    """The content as JSON has it, equal to others as :func:`about` says."""
    return about(json.loads(json.dumps(content)))
