"""Run the notebooks of examples/notebooks and store their outputs in them: ``python -m tools.notebooks [NAME ...]``.

Each runs in an empty directory outside the repository. Texts and figures are stored, warnings are not.
coming_from_snntorch needs torch, snntorch and spikingjelly too.
"""

import os
import pathlib
import sys
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).parent.parent
FILES = {file.stem: file for file in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))}


def run(name: str) -> nbformat.NotebookNode:
    """Return a notebook that has been run from its top to its end; raises CellExecutionError if a cell fails."""
    notebook = nbformat.read(FILES[name], as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or FILES:
        print(name, flush=True)
        notebook = run(name)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, FILES[name])
