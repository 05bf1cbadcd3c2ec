"""Names of the package's functions and modules that the pages mention exist."""

import importlib
import pkgutil
import re

import csbp_jax
from csbp_jax.config import Config, flatten
from tests.support.checkout import ROOT

DOTTED = re.compile(r"`((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*)[`(]")
NOT_OURS = re.compile(r"jax\.|source\.|.*\.(json|csv|png|py)$")
"""Names of JAX, attributes of a user's source, files."""
MODULES = [module.name for module in pkgutil.walk_packages(csbp_jax.__path__, "csbp_jax.")]


def fields():
    """The config's fields and the groups that hold them, as on the command line."""
    names = list(flatten(Config()))
    return {name.rsplit(".", depth)[0] for name in names for depth in range(3)}


def exists(name):
    """Whether a dotted name ends in an attribute or a submodule of any module that its beginning may mean."""
    beginning, _, last = name.rpartition(".")
    modules = [module for module in ["csbp_jax", *MODULES] if f".{module}".endswith(f".{beginning}")]
    return any(f"{module}.{last}" in MODULES or hasattr(importlib.import_module(module), last) for module in modules)


def test_names_in_the_pages_exist():
    known = {module.rpartition(".")[2] for module in MODULES} | {"csbp_jax"}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    names = {
        (page.name, name)
        for page in pages
        for name in DOTTED.findall(re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL))
        if name.split(".")[-2] in known and name not in fields() and not NOT_OURS.match(name)
    }
    assert len(names) > 20
    assert [name for name in sorted(names) if not exists(name[1])] == []


def test_a_name_that_is_gone_is_found():
    assert exists("dynamics.lyapunov") and exists("csbp_jax.load") and exists("csbp_jax.export.export")
    assert not exists("dynamics.gone") and not exists("gone.lyapunov")


def test_modules_of_the_public_page_say_which_of_their_names_are_public():
    page = (ROOT / "docs" / "api.md").read_text()
    modules = re.findall("`(csbp_jax[a-z.]*)`", "".join(re.findall(r"^\| `.*?` \|", page, re.MULTILINE)))
    assert len(modules) == 14
    for module in map(importlib.import_module, modules):
        assert [name for name in module.__all__ if not hasattr(module, name)] == [], module
