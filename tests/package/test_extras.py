"""What is installed alone works alone, and all else names the extra to install."""

import functools
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest

from csbp_jax.config import extras
from tests.support.checkout import ROOT
from tests.support.matching import search

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = "from csbp_jax import chaos, controls, dynamics, learner, losses, models, neurons, surrogate"
ALL = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / "csbp_jax").rglob("*.py"))
WITHOUT = f"""
import importlib, sys
sys.modules |= dict.fromkeys({[module for modules in extras.MODULES.values() for module in modules]})
{CORE}
for name in {[".".join(path.parts).removesuffix(".__init__") for path in ALL if path.name != "__main__"]}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(type(error).__name__, str(error).partition("; ")[2])
"""


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_core_needs_no_extra_and_all_else_names_it():
    lines = run(WITHOUT)
    assert len(lines) > 100 and set(lines) == {"Missing pip install 'csbp_jax[train]'"}


def test_the_chaos_term_loads_nothing_else_of_the_package():
    code = "import sys, csbp_jax.chaos; print(*(name for name in sys.modules if name.startswith('csbp_jax')))"
    assert run(code) == ["csbp_jax csbp_jax.ranges csbp_jax.chaos"]


packages_distributions = functools.cache(metadata.packages_distributions)


@pytest.mark.parametrize("extra", extras.MODULES)
def test_an_extra_installs_the_modules_of_the_table(extra):
    names = {search(r"^[\w-]+", line)[0].lower() for line in PROJECT["optional-dependencies"][extra]}
    distributions = packages_distributions()
    for module in extras.MODULES[extra]:
        # A package that is not installed here has the name of its module.
        assert names & {name.lower() for name in distributions.get(module, [module])}, module


def test_all_is_all_but_accelerators_and_development():
    inner = search(r"^csbp_jax\[(.+)\]$", PROJECT["optional-dependencies"]["all"][0])[1].split(",")
    assert {*inner, "train"} == set(extras.MODULES)
    assert set(PROJECT["optional-dependencies"]) == {*extras.MODULES, "all", "cuda12", "cuda13", "tpu", "dev"}
