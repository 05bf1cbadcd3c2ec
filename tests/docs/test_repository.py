"""The address of the public repository is written in one place, from which the badge of the notebook follows."""

import ast
import json
import re
import shutil
import tomllib
from typing import Any

import nbformat
import pytest

from tools import set_repository
from tools.set_repository import ROOT

FILES = ("pyproject.toml", "README.md", "experiments/tour.ipynb")


def stated(root):
    """The project's URL, and lines on Colab in the notebook's first cell and in README.md."""
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"].get("urls", {})
    first = json.loads((root / "experiments" / "tour.ipynb").read_text())["cells"][0]["source"]
    cell = "".join(first).splitlines()
    readme = (root / "README.md").read_text().splitlines()
    return (
        urls.get("Repository"),
        [line for line in cell if "colab.research" in line],
        [line for line in readme if "colab.research" in line],
    )


def check(root):
    url, badges, links = stated(root)
    assert badges == ([set_repository.badge(url)] if url else [])
    assert len(links) == len(badges) and all(f"[on Colab]({set_repository.in_colab(url)})" in line for line in links)


def test_the_badge_follows_from_the_address():
    check(ROOT)


def test_an_address_is_written_and_replaced(tmp_path):
    (tmp_path / "experiments").mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    for url in ("https://github.com/someone/csbp_jax", "https://github.com/another/csbp.jax"):
        set_repository.write(tmp_path, url)
        assert stated(tmp_path)[0] == url
        check(tmp_path)
        assert "https://colab.research.google.com/github/" + url[19:] in set_repository.badge(url)
    nbformat.validate(nbformat.read(tmp_path / FILES[2], as_version=4))
    before, after = ((root / "pyproject.toml").read_text().splitlines() for root in (ROOT, tmp_path))
    assert [line for line in after if line not in before] == [
        line for line in ("[project.urls]", f'Repository = "{url}"') if line not in before
    ]


@pytest.mark.parametrize(
    "url", ["", "github.com/someone/csbp_jax", "https://gitlab.com/a/b", "https://github.com/a/b/"]
)
def test_other_addresses_are_refused(url, tmp_path):
    with pytest.raises(ValueError, match=r"write https://github.com/OWNER/NAME"):
        set_repository.write(tmp_path, url)


def test_the_site_shows_no_badge():
    """Its image would be loaded from elsewhere. MkDocs is in another environment, so only the function is run."""
    tree = ast.parse((ROOT / "tools" / "site.py").read_text())
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "cell_as_markdown"]
    names: dict[str, Any] = {"re": re}
    exec(compile(ast.Module([function], []), "site", "exec"), names)
    lines = ["# Title\n", "\n", set_repository.badge("https://github.com/a/b") + "\n", "\n", "Text"]
    assert names["cell_as_markdown"]({"cell_type": "markdown", "source": lines}) == "# Title\n\n\nText"
