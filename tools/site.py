"""Hooks of mkdocs. README.md is the first page, and a link to a file outside of docs/ leads to a page that shows it.

Such pages lie at source/PATH; nothing is copied or edited by hand. A link that leads nowhere stays as it is, so that a
strict build refuses it.
"""

import ast
import json
import pathlib
import posixpath
import re

import griffe
import latex2mathml.converter
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()[^)#:\s]+")
ROLE = re.compile(r":[a-z]+:(?=`)")
DOCTEST = re.compile(r"^ *>>> .*(?:\n *\S.*)*", re.MULTILINE)
TEXT = (".md", ".ipynb")
ALWAYS = ["README.md", "ARCHITECTURE.md", "SECURITY.md"]


def place(path):
    """Where a file of the repository is among the pages."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def meant(path, link):
    """The file that a link on the page ``path`` leads to; None if there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def shown(path):
    """A file as Markdown."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        return "\n\n".join(map(cell, json.loads(text)["cells"]))
    return f"# {path}\n\n````{pathlib.Path(path).suffix[1:]}\n{text}\n````\n"


def cell(content):
    """A cell of a notebook as Markdown, its formulae as MathML, which browsers know by themselves."""
    text = "".join(content["source"])
    if content["cell_type"] != "markdown":
        return f"```python\n{text}\n```"
    # Within a span, because Markdown takes a formula at the start of a line for a paragraph of its own.
    return re.sub(r"\$([^$]+)\$", lambda match: f"<span>{latex2mathml.converter.convert(match[1])}</span>", text)


def on_files(files, config):
    waiting = [*ALWAYS, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if not path.startswith("docs/"):
            files.append(File.generated(config, place(path), content=shown(path)))
        if path.endswith(TEXT):
            found = [meant(path, link) for link in LINK.findall(shown(path))]
            waiting += [target for target in found if target and not target.startswith("docs/")]
    usage = ast.get_docstring(ast.parse((ROOT / "csbp_jax/cli/main.py").read_text()))
    commands = f"---\nhide: [toc]\n---\n\n# Commands\n\n```text\n{usage}\n```\n"
    files.append(File.generated(config, "reference/commands.md", content=commands))
    config.extra["origins"] = {place(path): path for path in seen}
    return files


def on_page_markdown(markdown, page, config, files):
    path = config.extra["origins"].get(page.file.src_uri, "")
    if not path.endswith(TEXT):
        return markdown

    def led(match):
        target = meant(path, match[0])
        return posixpath.relpath(place(target), posixpath.dirname(page.file.src_uri)) if target else match[0]

    return LINK.sub(led, markdown)


class Docstrings(griffe.Extension):
    """Docstrings are reStructuredText in little: roles go, and examples are code."""

    def on_object(self, *, obj, **others):
        if obj.docstring:
            text = ROLE.sub("", obj.docstring.value.replace("::\n", ":\n"))
            obj.docstring.value = DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
