"""Run ``experiments/tour.ipynb`` and store its outputs in it: ``python -m tools.run_tour``.

It runs in an empty directory outside the repository. Stored are texts and figures; not stored are warnings, times, and
widgets, which need a running kernel.
"""

import os
import pathlib
import tempfile
from typing import Any

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parent.parent
TOUR = ROOT / "experiments" / "tour.ipynb"


def run(notebook: nbformat.NotebookNode, folder: str | os.PathLike[str]) -> None:
    """Run a notebook in a directory, with the package of this repository.

    A cell with a widget may block nbclient although the kernel has finished it (nbclient issue 312), so that a run in
    which a cell takes more than four minutes is repeated, twice at most.
    """
    resources = {"metadata": {"path": str(folder)}}
    for attempt in range(3):
        client = nbclient.NotebookClient(
            notebook, timeout=240, kernel_name="python3", resources=resources, record_timing=False
        )
        try:
            client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
            return
        except nbclient.exceptions.CellTimeoutError:
            if attempt == 2:
                raise


def merged(outputs: list[Any]) -> list[Any]:
    """Join texts that were printed one after the other; how they come apart depends on the speed of the machine."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def without_machine(output: Any) -> bool:
    """Return whether an output is to be stored: no warning, and no widget."""
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


if __name__ == "__main__":
    tour = nbformat.read(TOUR, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        run(tour, directory)
    for cell in tour.cells:
        if cell.cell_type == "code":
            cell.outputs = merged([output for output in cell.outputs if without_machine(output)])
    tour.metadata = {key: tour.metadata[key] for key in ("kernelspec", "language_info")}
    tour.metadata.language_info = {"name": "python"}
    nbformat.write(tour, TOUR)
