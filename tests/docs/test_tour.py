"""The notebook: it runs from top to bottom anywhere, its outputs are stored, and what its text says of them is true."""

import ast
import http.server
import json
import pathlib
import re
import threading
from typing import Any

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest

from tests.support.matching import search
from tools import run_tour

ROOT = pathlib.Path(__file__).parents[2]
NOTEBOOK = nbformat.read(run_tour.TOUR, as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]
TEXT = " ".join(" ".join(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown").split())


def outputs(kind):
    """The stored outputs of a kind, as texts."""
    if kind == "text":
        return [out.text for cell in CODE for out in cell.outputs if out.output_type == "stream"]
    return [out.data[kind] for cell in CODE for out in cell.outputs if kind in out.get("data", {})]


def test_outputs_are_stored_and_small():
    nbformat.validate(NOTEBOOK)
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    assert len(outputs("image/png")) >= 4 and len(outputs("text")) == 3
    assert run_tour.TOUR.stat().st_size < 1_500_000
    assert [cell.id for cell in NOTEBOOK.cells] == [f"cell-{i:02}" for i in range(len(NOTEBOOK.cells))]


def test_outputs_hold_nothing_of_a_machine():
    """Neither paths, nor warnings, nor widgets, which need a kernel, nor times."""
    assert all(run_tour.without_machine(out) for cell in CODE for out in cell.outputs)
    assert {key for cell in CODE for out in cell.outputs for key in out.get("data", {})} == {"image/png", "text/plain"}
    assert all(text.startswith("<Figure size") for text in outputs("text/plain"))
    assert not re.search(r"/tmp|/root|/home|/Users|[A-Z]:\\|0x[0-9a-f]{6}", "".join(outputs("text")))
    assert set(NOTEBOOK.metadata) == {"kernelspec", "language_info"}
    assert all(set(cell.metadata) == set() for cell in NOTEBOOK.cells)


def test_its_lines_of_code_fit_into_a_page():
    """As those of the other pages of the site."""
    assert [line for cell in CODE for line in cell.source.splitlines() if len(line) > 88] == []


@jax.jit
def descent(a):
    """The path and the growth per step of descent in the term's well, from the formula alone."""

    def descend(y, _):
        s = jax.nn.sigmoid(y)
        return y - a * (s - 0.65), (y, jnp.log(jnp.abs(1 - a * s * (1 - s))))

    return jax.lax.scan(descend, jnp.asarray(0.1), length=5_000)[1]


def exponent_and_period(a):
    """Period 0 if none is up to 16."""
    path, growth = map(np.asarray, descent(a))
    last = path[-64:]
    periods = (n for n in range(1, 17) if np.abs(last[n:] - last[:-n]).max() < 1e-3)
    return growth[1000:].mean(), next(periods, 0)


def test_the_term_is_chaotic_where_the_text_says(x64):
    low, high = map(float, search(r"between about ([0-9.]+) and ([0-9.]+),", TEXT).groups())
    assert exponent_and_period(low - 0.1)[0] < 0 < exponent_and_period(low + 0.2)[0]
    assert exponent_and_period(high - 0.1)[0] > 0 > exponent_and_period(high + 0.2)[0]
    assert f"= {2 / (0.65 * 0.35):.2f}$ the fixed point" in TEXT
    assert f"the term alone flips at $z = {1 / (0.65 * 0.35):.2f}$" in TEXT


def test_the_table_of_cycles_is_that_of_the_formula(x64):
    (table,) = [text for text in outputs("text") if "term alone" in text]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]
    words = {0: "no cycle up to 16", 1: "at rest"}
    for z, alone, _ in rows:
        period = exponent_and_period(2 * float(z))[1]
        assert alone == words.get(period, f"cycle of {period}")
    assert [row[1].rpartition(" ")[2] for row in rows] == ["rest", "2", "2", "4", "8", "16", "16", "3"]


def test_the_growth_rates_support_the_reading():
    """Small without the term, and large with it and with drift, at a tenth of the flip."""
    (table,) = [text for text in outputs("text") if "z / flip" in text]
    rates = {tuple(line.split()[:2]): float(line.split()[-1]) for line in table.splitlines()[1:]}
    assert len(rates) == 5
    assert all(rates[name] > 10 * abs(rates["0", "CSBP"]) for name in (("0.1", "CSBP"), ("0.1", "drift")))


def test_the_text_says_which_chaos_the_control_excludes():
    """That of the term alone: training with drift is chaotic, too."""
    assert "not from chaos of the term's own" in TEXT and "not from chaos." not in TEXT


def test_results_of_studies_are_quoted():
    results = json.loads((ROOT / "docs/results/xor_tuned/tuned.json").read_text())["conditions"]
    for condition, share in (
        ("CSBP", search(r"CSBP solves ([0-9.]+) %", TEXT)[1]),
        ("plain backpropagation", search(r"plain backpropagation ([0-9.]+) %", TEXT)[1]),
        ("drift", search(r"drift ([0-9.]+) %", TEXT)[1]),
    ):
        assert f"{100 * results[condition]['share']:.1f}" == share


@pytest.fixture
def install(tmp_path, monkeypatch):
    """The functions of the first cell, in an empty directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("COLAB_JUPYTER_IP", raising=False)
    names: dict[str, Any] = {}
    code, _, rest = CODE[0].source.partition("\nif importlib.util.find_spec")
    assert rest.startswith('("csbp_jax") is None:') and '%pip install --quiet "{PACKAGE}"' in rest
    exec(code, names)
    return names


def test_it_installs_the_clone_that_it_lies_in(install, tmp_path):
    assert install["package"](ROOT / "experiments") == f"{ROOT}[train]"
    (tmp_path / "nvidia-smi").touch(0o755)
    assert install["package"](ROOT / "experiments") == f"{ROOT}[train,cuda12]"


def test_it_installs_a_wheel_beside_it(install, tmp_path):
    (tmp_path / "csbp_jax-0.1.0-py3-none-any.whl").touch()
    (tmp_path / "libtpu.py").touch()
    assert install["package"](tmp_path) == f"{tmp_path}/csbp_jax-0.1.0-py3-none-any.whl[train,tpu]"


def test_in_colab_it_installs_the_repository_that_it_was_opened_from(install, tmp_path, monkeypatch):
    """From what Colab's own server states of the session."""
    opened = "fileId=https%3A//github.com/someone/csbp_jax/blob/main/experiments/tour.ipynb"

    class Sessions(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/sessions" else 404)
            self.end_headers()
            self.wfile.write(json.dumps([{"path": opened}]).encode())

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Sessions) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
        monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
        assert install["package"](tmp_path) == "csbp_jax[train] @ git+https://github.com/someone/csbp_jax@main"
        server.shutdown()


def test_elsewhere_it_says_what_to_do(install, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"put a wheel .from `make wheel`. beside it"):
        install["package"](tmp_path)


def test_the_tour_uses_names_that_exist():
    """Its imports run, and each attribute of an imported module exists; the slow test runs all cells."""
    tree = ast.parse("\n".join(cell.source.replace("    %pip", "    pass  #") for cell in CODE))
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


MOVE_A_SLIDER = """
import time
controls["z0"].value = 5.0  # compiled, if the first figure did not do so
started = time.process_time()
controls["z0"].value = 6.0
print(f"redrawn in {time.process_time() - started:.3f} s")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by Jupyter itself
def test_the_tour_runs_anywhere_and_its_sliders_redraw_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    tour = nbformat.read(run_tour.TOUR, as_version=4)
    tour.cells.append(nbformat.v4.new_code_cell(MOVE_A_SLIDER))
    run_tour.run(tour, tmp_path)
    figures = [out for cell in tour.cells for out in cell.get("outputs", ()) if "image/png" in out.get("data", {})]
    assert len(figures) >= len(outputs("image/png"))
    assert float(search(r"redrawn in ([0-9.]+) s", tour.cells[-1].outputs[-1].text)[1]) < 1
    # Without a clone around it, and without a file left beside it.
    assert not [path for path in tmp_path.iterdir() if path.name != "data"]
