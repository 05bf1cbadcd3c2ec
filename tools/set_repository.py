"""Write the address of the public repository to the files that state it: ``python -m tools.set_repository URL``.

URL is ``https://github.com/OWNER/NAME``. It becomes the project's URL in pyproject.toml. From it follow, in each of
examples/notebooks, the badge that opens it in Colab and what its first cell installs, and the link to Colab in
README.md.
"""

import pathlib
import re
import sys

import nbformat

ROOT = pathlib.Path(__file__).parent.parent
IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"


def in_colab(url: str, name: str = "first_network") -> str:
    """Return the address that opens a notebook in Colab."""
    colab = url.replace("https://github.com", "https://colab.research.google.com/github")
    return f"{colab}/blob/main/examples/notebooks/{name}.ipynb"


def badge(url: str, name: str) -> str:
    return f"[![Open in Colab]({IMAGE})]({in_colab(url, name)})"


def write(root: pathlib.Path, url: str) -> None:
    """Write the address to the files.

    Raises:
      ValueError: it is no address of a repository on GitHub, from which Colab could open a notebook.
    """
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise ValueError(f"{url!r} is not possible; write https://github.com/OWNER/NAME")
    project, readme = root / "pyproject.toml", root / "README.md"
    text = re.sub(r"\[project\.urls\]\n.*\n\n", "", project.read_text())
    urls = f'[project.urls]\nRepository = "{url}"\n\n'
    project.write_text(text.replace("[project.optional-dependencies]", f"{urls}[project.optional-dependencies]"))
    link = re.compile(r"\[on Colab\]\(.*?\)|on Colab")
    readme.write_text(link.sub(f"[on Colab]({in_colab(url)})", readme.read_text(), count=1))
    for file in (root / "examples" / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(file, as_version=4)
        title, install = notebook.cells[:2]
        plain = re.sub(r"\n\n\[!\[.*", "", title.source)
        title.source = plain.replace("\n", f"\n\n{badge(url, file.stem)}\n", 1)
        package = f'PACKAGE = "csbp_jax[train] @ git+{url}"'
        install.source = re.sub(
            r"^(# What pip installs).*\nPACKAGE = .*", rf"\1.\n{package}", install.source, flags=re.M
        )
        nbformat.write(notebook, file)


if __name__ == "__main__":
    write(ROOT, sys.argv[1])
