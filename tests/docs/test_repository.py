"""The address of the public repository is written in one place, from which badges and installs of notebooks follow."""

import ast
import re
import shutil
import tomllib
from typing import Any

import nbformat
import pytest

from tools import notebooks, set_repository
from tools.set_repository import ROOT


def check(root):
    """Check what the notebooks and README.md say against the project's URL, which is returned."""
    url = tomllib.loads((root / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")
    for name, file in notebooks.FILES.items():
        title, install = nbformat.read(root / file.relative_to(ROOT), as_version=4).cells[:2]
        badges = [line for line in title.source.splitlines() if "colab.research" in line]
        assert badges == ([set_repository.badge(url, name)] if url else [])
        assert len(re.findall("^PACKAGE = .*", install.source, re.M)) == 1
        assert (f'PACKAGE = "csbp_jax[train] @ git+{url}"' in install.source) == bool(url)
    links = [line for line in (root / "README.md").read_text().splitlines() if "colab.research" in line]
    assert len(links) == bool(url) and all(f"[on Colab]({set_repository.in_colab(url)})" in line for line in links)
    return url


def test_all_follows_from_the_address():
    check(ROOT)


def test_an_address_is_written_and_replaced(tmp_path):
    (tmp_path / "examples" / "notebooks").mkdir(parents=True)
    for path in (ROOT / "pyproject.toml", ROOT / "README.md", *notebooks.FILES.values()):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    for url in ("https://github.com/someone/csbp_jax", "https://github.com/another/csbp.jax"):
        set_repository.write(tmp_path, url)
        assert check(tmp_path) == url
        assert "https://colab.research.google.com/github/" + url[19:] in set_repository.badge(url, "own")
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
    lines = ["# Title\n", "\n", set_repository.badge("https://github.com/a/b", "own") + "\n", "\n", "Text"]
    assert names["cell_as_markdown"]({"cell_type": "markdown", "source": lines}) == "# Title\n\n\nText"
