"""Write the address of the public repository to the files that state it: ``python -m tools.set_repository URL``.

URL is ``https://github.com/OWNER/NAME``. It becomes the project's URL in pyproject.toml. From it follow the badge that
opens experiments/tour.ipynb in Colab, and the link to Colab in README.md.
"""

import pathlib
import re
import sys

import nbformat

ROOT = pathlib.Path(__file__).parent.parent
IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"


def in_colab(url: str) -> str:
    """Return the address that opens the notebook in Colab."""
    return f"{url.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/experiments/tour.ipynb"


def badge(url: str) -> str:
    return f"[![Open in Colab]({IMAGE})]({in_colab(url)})"


def write(root: pathlib.Path, url: str) -> None:
    """Write the address to the three files.

    Raises:
      ValueError: it is no address of a repository on GitHub, from which Colab could open a notebook.
    """
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise ValueError(f"{url!r} is not possible; write https://github.com/OWNER/NAME")
    project, readme, notebook = (root / name for name in ("pyproject.toml", "README.md", "experiments/tour.ipynb"))
    text = re.sub(r"\[project\.urls\]\n.*\n\n", "", project.read_text())
    urls = f'[project.urls]\nRepository = "{url}"\n\n'
    project.write_text(text.replace("[project.optional-dependencies]", f"{urls}[project.optional-dependencies]"))
    link = re.compile(r"\[on Colab\]\(.*?\)|on Colab")
    readme.write_text(link.sub(f"[on Colab]({in_colab(url)})", readme.read_text(), count=1))
    tour = nbformat.read(notebook, as_version=4)
    title, *lines = tour.cells[0].source.splitlines()
    rest = [line for line in lines if not line.startswith("[![")]
    tour.cells[0].source = "\n".join([title, "", badge(url), *rest[1 if len(rest) < len(lines) else 0 :]])
    nbformat.write(tour, notebook)


if __name__ == "__main__":
    write(ROOT, sys.argv[1])
