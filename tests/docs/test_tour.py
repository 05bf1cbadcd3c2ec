"""The notebook runs from top to bottom, and what its text says of the map is true."""

import ast
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import nbclient
import nbformat
import pytest

from tests.support.matching import search

TOUR = pathlib.Path(__file__).parents[2] / "experiments" / "tour.ipynb"


def test_the_tour_has_no_stored_outputs():
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


def test_its_lines_of_code_fit_into_a_page():
    """As those of the other pages of the site."""
    cells = [cell.source for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert [line for cell in cells for line in cell.splitlines() if len(line) > 88] == []


def test_the_annealing_starts_in_chaos_and_ends_in_descent(x64):
    """The numbers in its text, recomputed from the formula alone."""
    text = " ".join(cell.source for cell in nbformat.read(TOUR, as_version=4).cells)
    text = " ".join(text.split())
    z0, beta = (float(search(rf"{name}=([0-9.]+)", text)[1]) for name in ("z0", "beta"))

    def exponent(a):
        def descend(y, _):
            s = jax.nn.sigmoid(y)
            return y - a * (s - 0.65), jnp.log(jnp.abs(1 - a * s * (1 - s)))

        return float(jax.lax.scan(descend, 0.1, length=20_000)[1][1000:].mean())

    stated = float(search(r"at \$a = 18\$ the exponent is ([0-9.]+[0-9])", text)[1])
    assert z0 == 18 and exponent(z0) == pytest.approx(stated, abs=0.01)
    step = int(search(r"from step (\d+) on", text)[1])
    assert z0 * beta**step < 2 / (0.65 * 0.35) < z0 * beta ** (step - 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by Jupyter itself
def test_outside_a_clone_the_tour_asks_for_the_source(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    hidden = nbformat.v4.new_code_cell("import importlib.util\nimportlib.util.find_spec = lambda name: None")
    tour.cells = [hidden, *(cell for cell in tour.cells if "SOURCE" in cell.source)]
    where = {"metadata": {"path": str(tmp_path)}}
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="SOURCE: this notebook is not in a clone"):
        nbclient.NotebookClient(tour, timeout=600, kernel_name="python3", resources=where).execute()


def test_the_tour_uses_names_that_exist():
    """Its imports run, and each attribute of an imported module exists; the slow test runs all cells."""
    cells = [cell.source for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    tree = ast.parse("\n".join(cell for cell in cells if "%pip" not in cell))
    imports: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(imports, []), "tour", "exec"), names)
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names
    }
    assert len(used) > 20
    assert [name for name in used if not hasattr(names[name[0]], name[1])] == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by Jupyter itself
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parent.parent))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(tour, timeout=600, kernel_name="python3", resources=where).execute()
    figures = [out for cell in tour.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(figures) >= 5
