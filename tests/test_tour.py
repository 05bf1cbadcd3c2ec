"""The notebook is run from top to bottom, as it is kept."""

import pathlib

import nbclient
import nbformat
import pytest

TOUR = pathlib.Path(__file__).parent.parent / "experiments" / "tour.ipynb"


def test_the_tour_is_kept_without_outputs():
    cells = [cell for cell in nbformat.read(TOUR, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_the_tour_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(TOUR.parent.parent))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(TOUR, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(tour, timeout=600, kernel_name="python3", resources=where).execute()
    figures = [out for cell in tour.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(figures) >= 5
