"""The page on data: its Python runs as written, but for the number of epochs, on the CSV that it describes."""

import pathlib
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.full
def test_the_python_of_the_page_runs(tmp_path, monkeypatch, no_figures):
    rng, rows = np.random.default_rng(0), []
    for recording in range(60):
        count = rng.integers(20, 41)
        state = rng.choice(["good", "worn"])
        vibration = rng.normal(0, 1 + 2 * (state == "worn"), count)
        columns = {"recording": recording, "time": np.arange(count), "state": state}
        rows.append(pd.DataFrame(columns | {"vibration": vibration, "current": rng.normal(size=count)}))
    pd.concat(rows).to_csv(tmp_path / "pump.csv", index=False)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    names: dict[str, Any] = {}
    exec(code.replace("epochs=20", "epochs=2"), names)
    assert names["state"] in ("good", "worn") and "test_r2" in names["result"]["last"]
