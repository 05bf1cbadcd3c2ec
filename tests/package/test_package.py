"""What a user installs and reads: requirements, versions, source that runs nothing it should not."""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
import warnings

import jax
import pytest
import tonic
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import csbp_jax
from csbp_jax.weights import shipped
from tests.support.checkout import ROOT, checkout, make
from tests.support.matching import search

PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
NEEDED = ("jax", "flax", "optax", "tensorflow-datasets", "tonic", "orbax-checkpoint", "chex", "pytest")


def pinned(file="requirements.txt"):
    """``{name: versions}``, of which each Python has one."""
    versions: dict[str, list[str]] = {}
    for line in (ROOT / file).read_text().splitlines():
        if match := re.match(r"([a-z0-9.-]+)==([^ ]+)( ; [^\\]*)? \\$", line):
            versions.setdefault(match[1], []).append(match[2])
        else:
            assert re.match(r"#|    --hash=sha256:[0-9a-f]{64}( \\)?$", line), line
    return versions


def ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    locked = ("train", "events", "images", "nir", "hub", "tensorboard", "dev")
    lines = [*project["dependencies"], *(line for extra in locked for line in extras[extra])]
    return [line for line in lines if not line.startswith("csbp_jax[")]


def test_requirements_pin_the_main_dependencies():
    assert set(NEEDED) <= set(pinned())


def check_ranges(requirements, versions):
    for text in requirements:
        requirement = Requirement(text)
        assert all(map(requirement.specifier.contains, versions[canonicalize_name(requirement.name)])), text


def test_the_pinned_set_is_within_the_ranges():
    check_ranges(ranges(), pinned())


@pytest.mark.parametrize("group", ["publish", "trackers"])
def test_so_are_the_sets_of_their_own_environments(group):
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"][group]
    check_ranges(requirements, pinned(f"requirements-{group}.txt"))


def test_the_trackers_share_the_versions_of_the_main_environment():
    main, trackers = pinned(), pinned("requirements-trackers.txt")
    shared = main.keys() & trackers.keys() - {"pillow"}
    assert len(shared) > 10 and {name: main[name] for name in shared} == {name: trackers[name] for name in shared}


def test_no_requirement_needs_a_c_compiler():
    """tonic names expelliarmus, which has no wheels for Python 3.12 and newer, and never imports it."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if line.startswith("expelliarmus") and "sys_platform == 'never'" not in line] == []
    assert "expelliarmus" not in "".join(file.read_text() for file in pathlib.Path(tonic.__file__).parent.rglob("*.py"))


def test_one_version():
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert f"## {csbp_jax.__version__} " in (ROOT / "CHANGELOG.md").read_text()
    cited = search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert csbp_jax.__version__ == cited[1]


@pytest.mark.full
def test_a_script_beside_the_clone_imports_the_package(tmp_path):
    """Python looks into the script's folder first, where the clone has the name of the package."""
    clone, venv, script = checkout(tmp_path / "csbp_jax"), tmp_path / "venv", tmp_path / "beside.py"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    packages = subprocess.run([venv / "bin" / "python", "-c", PACKAGES], check=True, capture_output=True, text=True)
    pathlib.Path(packages.stdout.strip(), "main.pth").write_text(sysconfig.get_path("purelib"))
    recipe = make(clone, "--dry-run", f"VENV={venv}", "setup").stdout.splitlines()
    (install,) = [line for line in recipe if "--editable" in line]
    # The package of the environment that is shared is left alone.
    subprocess.run([*shlex.split(install), "--ignore-installed"], cwd=clone, check=True)
    script.write_text("import csbp_jax\nprint(csbp_jax.__file__, csbp_jax.__version__)\n")
    done = subprocess.run([venv / "bin" / "python", "-E", script], cwd="/", capture_output=True, text=True)
    assert done.stdout == f"{clone}/csbp_jax/__init__.py {csbp_jax.__version__}\n", done.stderr


def test_jaxs_warning_on_tpu_hosts_is_no_error():
    """It comes while JAX is imported, and would end all tests."""
    warnings.warn("Transparent hugepages are not enabled. TPU runtime startup and shutdown time", stacklevel=1)


def test_tests_and_the_processes_that_they_start_compute_on_the_cpu():
    assert os.environ["JAX_PLATFORMS"] == jax.default_backend() == "cpu"


def test_every_file_of_the_package_is_packed():
    """As package data, if it is no Python; the slow tests look into the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packed = {file for pattern in settings["package-data"]["csbp_jax"] for file in (ROOT / "csbp_jax").glob(pattern)}
    files = {file for file in (ROOT / "csbp_jax").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in files if file.suffix != ".py"} == packed
    assert len([file for file in packed if file.name == "model.safetensors"]) == len(shipped.NAMES)
