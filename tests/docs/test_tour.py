"""The notebook is run from top to bottom, as it is kept."""

import pathlib
import re

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import pytest

TOUR = pathlib.Path(__file__).parents[2] / "experiments" / "tour.ipynb"


def test_the_tour_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


def test_the_annealing_starts_in_chaos_and_ends_in_descent(x64):
    """As its text says, by the formula alone."""
    text = TOUR.read_text()
    z0, beta = (float(re.search(rf"{name}=([0-9.]+)", text)[1]) for name in ("z0", "beta"))

    def exponent(a):
        def push(y, _):
            s = jax.nn.sigmoid(y)
            return y - a * (s - 0.65), jnp.log(jnp.abs(1 - a * s * (1 - s)))

        return float(jax.lax.scan(push, 0.1, length=20_000)[1][1000:].mean())

    told = float(re.search(r"at \$a = 18\$ the exponent is ([0-9.]+)", text)[1])
    assert z0 == 18 and exponent(z0) == pytest.approx(told, abs=0.01)
    step = int(re.search(r"from step (\d+) on", text)[1])
    assert z0 * beta**step < 2 / (0.65 * 0.35) < z0 * beta ** (step - 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_alone_the_tour_asks_where_the_package_is(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    tour.cells = [cell for cell in tour.cells if "SOURCE" in cell.source]
    where = {"metadata": {"path": str(tmp_path)}}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="SOURCE: there is no clone around this notebook"):
        nbclient.NotebookClient(tour, timeout=600, kernel_name="python3", resources=where).execute()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parent.parent))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(tour, timeout=600, kernel_name="python3", resources=where).execute()
    figures = [out for cell in tour.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(figures) >= 5
