"""What ``make wheel`` builds is the whole package, whichever way it is built, and works where there is nothing else."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile

import pytest

from csbp_jax.weights import shipped
from tests.support.checkout import ROOT, checkout, environment, make

NOTEBOOKS = {
    file.stem: ["".join(c["source"]) for c in json.loads(file.read_text())["cells"] if c["cell_type"] == "code"]
    for file in (ROOT / "examples" / "notebooks").glob("*.ipynb")
}
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

TRAINING_STEP = """
import jax
import optax
from csbp_jax import chaos, learner, losses, models, neurons, surrogate
from csbp_jax.config import Config, Model

config = Config(model=Model(name="dense", features=(8,), time_steps=2, input_shape=(4,), classes=3))
init, train_step, _ = learner.make(models.build(config.model), optax.adam(1.0), losses.build(config.loss), config)
batch = {"x": jax.numpy.ones((5, 1, 4)), "y": jax.numpy.zeros(5, int)}
print(jax.jit(train_step)(init(jax.random.key(0)), batch)[1]["loss"])
"""


def content(wheel):
    """Its files and what is in them."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(publish, tmp_path_factory):
    """A clone in which ``make wheel`` has run."""
    root = checkout(tmp_path_factory.mktemp("wheel") / "clone")
    done = make(root, "wheel", f"PUBLISH={publish}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return root


@pytest.fixture(scope="module")
def wheel(built):
    (found,) = (built / "dist").glob("csbp_jax-*.whl")
    return found


@pytest.mark.slow
def test_the_wheel_is_the_package_and_nothing_else(built, wheel):
    files = {path for path in (built / "csbp_jax").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    ours = {name: text for name, text in content(wheel).items() if ".dist-info/" not in name}
    assert ours == {path.relative_to(built).as_posix(): path.read_bytes() for path in files}
    assert {"csbp_jax/py.typed", "csbp_jax/data/digits.npz", "csbp_jax/export/nir_graph.py"} <= set(ours)
    assert {f"csbp_jax/weights/trained/{name}/model.safetensors" for name in shipped.NAMES} <= set(ours)


@pytest.mark.slow
def test_the_tree_gives_the_same_wheel_as_the_source_distribution(built, wheel, publish, tmp_path):
    """``make wheel`` builds the wheel from the source distribution."""
    line = [publish / "bin" / "python", "-m", "build", "--quiet", "--wheel", "--outdir", tmp_path, built]
    subprocess.run(line, check=True, capture_output=True)
    assert content(tmp_path / wheel.name) == content(wheel)
    (packed,) = (built / "dist").glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        top = {pathlib.PurePath(name).parts[1] for name in archive.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "csbp_jax"} <= top and "tests" not in top


@pytest.fixture(scope="module")
def base(wheel):
    with tempfile.TemporaryDirectory() as folder:
        yield environment(folder, wheel)


@pytest.fixture(scope="module")
def alone(wheel):
    with tempfile.TemporaryDirectory() as folder:
        yield environment(folder, f"{wheel}[train,nir]")


def run(line, folder):
    """In an empty folder, with nothing of this environment's."""
    settings = {"HOME": str(folder), "PATH": os.environ["PATH"], "COLUMNS": "120"}
    done = subprocess.run(line, cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_base_is_light_and_suffices_for_the_core(base, tmp_path):
    installed = json.loads(run([base / "pip", "list", "--format", "json"], tmp_path))
    assert len({package["name"] for package in installed} - {"pip", "setuptools", "csbp_jax"}) <= 32
    (own,) = (block for block in BLOCKS if "from csbp_jax import chaos" in block)
    run([base / "python", "-c", own], tmp_path)
    assert float(run([base / "python", "-c", TRAINING_STEP], tmp_path)) > 0
    done = subprocess.run([base / "csbp_jax", "train", "digits"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and re.fullmatch(
        r"csbp_jax: .*; pip install 'csbp_jax\[train\]'; of a clone: make setup, .*\n", done.stderr
    )


@pytest.mark.slow
def test_it_works_where_nothing_else_is(alone, tmp_path):
    place = run([alone / "python", "-c", "import csbp_jax; print(csbp_jax.__file__)"], tmp_path)
    assert place.startswith(str(alone.parent))
    usage = run([alone / "python", "-m", "csbp_jax", "--help"], tmp_path)
    assert "Exit codes" in usage and usage == run([alone / "csbp_jax", "--help"], tmp_path)
    line = [alone / "python", "-m", "csbp_jax", "train", "digits", "--epochs", "1", "--model.features", "8", "8"]
    assert "test accuracy" in run([*line, "--name", "one"], tmp_path)
    assert (tmp_path / "runs" / "one" / "figures" / "training.png").exists()
    for form in ("safetensors", "stablehlo", "nir"):
        run([alone / "csbp_jax", "export", "runs/one", "--to", form], tmp_path)


@pytest.mark.slow
def test_the_networks_that_ship_work_there(alone, tmp_path):
    drawings = ROOT / "examples" / "drawings"
    for name, file in (("digits", "3.png"), ("digits_events", "7.npz")):
        last = run([alone / "csbp_jax", "predict", name, drawings / file], tmp_path).splitlines()[-1]
        assert last.startswith(f"{drawings / file},{file[0]},")
    assert "99." in run([alone / "csbp_jax", "evaluate", "digits"], tmp_path)


@pytest.mark.slow
def test_the_python_of_the_readme_runs_there(alone, tmp_path):
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        run([alone / "python", "-c", block], tmp_path)


@pytest.mark.slow
def test_the_imports_of_the_notebooks_work_there(alone, tmp_path):
    code = "\n".join(cell for name, cells in NOTEBOOKS.items() if "torch" not in name for cell in cells)
    lines = re.findall(r"^(?:import|from) .+$", code, re.MULTILINE)
    assert any("from csbp_jax import chaos" in line for line in lines)
    run([alone / "python", "-c", "\n".join(lines)], tmp_path)


@pytest.mark.slow
def test_a_notebook_installs_a_wheel_beside_it(wheel, tmp_path):
    """In an environment with IPython alone, whose ``%pip`` its first cell calls."""
    programs = environment(tmp_path / "venv", "ipython")
    shutil.copy(wheel, tmp_path)
    cells = [*NOTEBOOKS["first_network"][:2], "print('trained by', csbp_jax.__file__)"]
    (tmp_path / "first.ipy").write_text("\n\n".join(cells))
    assert f"trained by {tmp_path / 'venv'}" in run([programs / "ipython", "first.ipy"], tmp_path)


@pytest.mark.slow
def test_every_module_can_be_imported_there(alone, tmp_path):
    """But for one, which the extra ``images`` is for."""
    script = (
        "import importlib, pkgutil, csbp_jax\n"
        "for module in pkgutil.walk_packages(csbp_jax.__path__, 'csbp_jax.'):\n"
        "    if not module.name.endswith(('__main__', 'fast_resize')): importlib.import_module(module.name)\n"
        "print('all')\n"
    )
    assert run([alone / "python", "-c", script], tmp_path) == "all\n"
