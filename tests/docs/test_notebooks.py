"""The notebooks: they run from top to bottom, their outputs are stored, and their first cell leaves a working JAX."""

import glob
import importlib.util
import pathlib
import re
import subprocess
import sys
import sysconfig
import types
from importlib import metadata

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from benchmarks import peers
from tests.support.checkout import environment
from tools import notebooks

NAMES = ["ablation", "coming_from_snntorch", "first_network", "own", "series", "strengths"]
PEERS = {*peers.REQUIREMENTS["snntorch"], *peers.REQUIREMENTS["spikingjelly"]}


def read(name):
    return nbformat.read(notebooks.FILES[name], as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(notebook):
    """All texts that are shown, in order."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "\n".join(output.get("text") or output.data.get("text/plain", "") for output in outputs)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored_and_hold_nothing_of_a_machine(name):
    """Neither paths, warnings, errors nor widgets, which need a kernel."""
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert {output.name for output in outputs if output.output_type == "stream"} <= {"stdout"}
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert kinds <= {"image/png", "text/plain", "text/html"}
    assert "image/png" in kinds or name == "coming_from_snntorch"
    assert not re.search(r"/(?:tmp|root|home|Users|work)\b|[A-Z]:\\|0x[0-9a-f]{6}|\.\./", texts(notebook))
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and not any(cell.metadata for cell in cells)
    assert notebooks.FILES[name].stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_it_is_short_and_opens_with_what_a_reader_has_at_its_end(name):
    notebook = read(name)
    title = notebook.cells[0].source
    assert re.match(r"# .+\n\n(?:\[!\[.+\n\n)?At the end .+\.\n", title) and len(title) < 600
    assert code(notebook)[0].source == code(read("own"))[0].source and notebook.cells[1] == code(notebook)[0]
    assert len(code(notebook)) <= 6
    assert [line for cell in code(notebook) for line in cell.source.splitlines() if len(line) > 88] == []


def test_the_numbers_are_those_of_snntorch_and_spikingjelly():
    printed = texts(read("coming_from_snntorch"))
    theirs, ours = re.findall(r"(?:snnTorch|csbp_jax): ([0-9.]+)% of 359", printed)
    differences = re.findall(r"largest difference.*: (\S+)$", printed, re.MULTILINE)
    assert theirs == ours and len(differences) == 3 and all(float(number) < 1e-4 for number in differences)


@pytest.fixture
def first_cell(monkeypatch, capsys):
    """Runs the first cell with other devices, packages and backend; returns what pip is to install and what is shown.

    changed: versions after the installation of packages of which this process has another one.
    """

    def run(devices=(), packages=("jax",), changed=(), backend="cpu"):
        pip: list[str] = []
        version = metadata.version
        loaded = types.SimpleNamespace(__version__=version("jax"), default_backend=lambda: backend)
        with monkeypatch.context() as patch:
            patch.setattr(glob, "glob", lambda pattern: [d for d in devices if pathlib.PurePath(d).match(pattern)])
            patch.setattr(importlib.util, "find_spec", lambda name: object() if name in packages else None)
            patch.setattr(metadata, "version", lambda name: "0" if pip and name in changed else version(name))
            patch.setitem(sys.modules, "jax", loaded)
            source, magics = re.subn('%pip install --quiet "(.*)"', r'pip.append(f"\1")', code(read("own"))[0].source)
            assert magics == 2
            try:
                exec(source, {"pip": pip})
            except SystemExit as stop:
                return pip, str(stop)
        return pip, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("devices", "packages", "extra"),
    [
        ([], [], ""),
        ([], ["jax_cuda13_plugin"], ""),
        (["/dev/nvidia0"], [], "cuda12"),
        (["/dev/nvidia0"], ["jax_cuda13_plugin"], "cuda13"),
        (["/dev/nvidiactl"], [], ""),
        (["/dev/accel0"], [], "tpu"),
        (["/dev/vfio/0"], [], "tpu"),
        (["/dev/vfio/vfio"], [], ""),
    ],
)
def test_where_jax_changes_so_does_its_plugin(first_cell, devices, packages, extra):
    wanted = ["../..[train]", *[f"jax[{extra}]"] * bool(extra)]
    assert first_cell(devices, packages, backend="gpu")[0] == wanted  # there was no JAX
    pip, line = first_cell(devices, [*packages, "jax"], changed=["jax"])
    assert pip == wanted and line == "Restart the session and run all cells again: jax changed"
    assert first_cell(devices, [*packages, "jax"], backend="gpu") == (wanted[:1], "")
    assert first_cell(devices, [*packages, "jax", "csbp_jax"], backend="gpu") == ([], "")


def test_a_wheel_beside_it_comes_first(first_cell):
    assert first_cell(["csbp_jax-0.1.0-py3-none-any.whl"])[0] == ["csbp_jax-0.1.0-py3-none-any.whl[train]"]


@pytest.mark.parametrize("name", ["numpy", "matplotlib", "pandas"])
def test_it_asks_for_a_restart_where_a_loaded_package_was_replaced(first_cell, name):
    importlib.import_module(name)
    assert first_cell(changed=[name])[1] == f"Restart the session and run all cells again: {name} changed"


@pytest.mark.parametrize(("devices", "extra"), [(["/dev/nvidia0"], "cuda12"), (["/dev/accel0"], "tpu")])
def test_it_never_takes_the_cpu_silently(first_cell, devices, extra):
    line = f"This machine has a GPU or TPU, but JAX uses the CPU: install jax[{extra}]\n"
    assert first_cell(devices)[1] == line
    assert first_cell(devices, backend="gpu")[1] == "" and first_cell()[1] == ""


@pytest.fixture(scope="session")
def with_peers(tmp_path_factory):
    """The Python of an environment that has the PyTorch libraries too."""
    folder = tmp_path_factory.mktemp("peers")
    programs = environment(folder, *PEERS)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    (packages / "main.pth").write_text(sysconfig.get_path("purelib"))
    return programs / "python"


DRAW = """
import importlib.util
test, aux = range(9), __import__("types").SimpleNamespace(spikes=["conv1", "conv2"])
def draw(example=0, layer="conv1"): print("drawn", example, layer)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised by Jupyter itself
def test_sliders_are_for_a_front_end_that_can_answer():
    _, request, sliders = code(read("first_network"))[-1].source.partition("request = ")
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for answers in (True, False):
            shown: list[dict] = []
            script = DRAW + request + sliders
            options = {"allow_stdin": answers, "stdin_hook": print, "output_hook": shown.append, "timeout": 300}
            assert client.execute_interactive(script, **options)["content"]["status"] == "ok"
            kinds = {kind for message in shown for kind in message["content"].get("data", {})}
            assert ("application/vnd.jupyter.widget-view+json" in kinds) == answers
            assert answers or "drawn 0 conv1" in str(shown)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, request):
    """In an empty directory, without a front end: where sliders would hang."""
    python = request.getfixturevalue("with_peers") if name == "coming_from_snntorch" else sys.executable
    script = f"from tools import notebooks; notebooks.run({name!r})"
    done = subprocess.run([python, "-c", script], cwd=notebooks.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
