"""The example of docs/lab.md on rises."""

import pathlib
import re

import numpy as np
import pytest

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "lab.md").read_text()


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.?\d*", text)]


@pytest.mark.slow
def test_the_rises_of_the_page_are_those_of_its_python(tmp_path, monkeypatch, capsys):
    ((block, printed),) = re.findall(r"```python\n([^`]*annealed_rises[^`]*)```\n\n```\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs/lab.md", "exec"), {})
    # Rounding grows as differences do, so the largest rises differ a little between machines.
    np.testing.assert_allclose(numbers(capsys.readouterr().out), numbers(printed), rtol=0.05, atol=0.1)
    assert len(numbers(printed)) == 12
