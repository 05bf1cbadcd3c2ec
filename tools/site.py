"""MkDocs hooks: README.md as the start page, and linked files that are no pages of docs/.

A link to a file outside docs/ leads to a generated page at source/PATH that shows the file. A link to a page that
mkdocs.yml excludes, a plan or a table, leads to its text in PATH.txt. A link without a target is left as it is, so that
a strict build reports it.
"""

import ast
import json
import pathlib
import posixpath
import re
from typing import Any

import griffe
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()[^)#:\s]+")
ROLE = re.compile(r":[a-z]+:(?=`)")
DOCTEST = re.compile(r"^ *>>> .*(?:\n *\S.*)*", re.MULTILINE)
WITH_LINKS = (".md", ".ipynb")
UTF_8 = "\ufeff"
"""Tells a browser the encoding of a text that no server announces."""
ALWAYS = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]


def is_text(path, config):
    """Return whether a file of the repository is a page that mkdocs.yml excludes, a plan or a table."""
    in_docs = path.startswith("docs/") and path.endswith(".md")
    return in_docs and config.exclude_docs.match_file(path.removeprefix("docs/"))


def site_path(path, config):
    """Return the path on the site of a file of the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        ending = ".txt" if is_text(path, config) else ""
        return path.removeprefix("docs/") + ending
    return f"source/{path}" if path.endswith(".md") else f"source/{path}.md"


def link_target(path, link):
    """Return the file that a link on the page ``path`` leads to, or None if it does not exist."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def as_markdown(path):
    """Return a file of the repository as Markdown: notebooks cell by cell, other files as a code block."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    if path.endswith(".ipynb"):
        return "\n\n".join(map(cell_as_markdown, json.loads(text)["cells"]))
    # Without the table of contents there is room for lines of 120 characters; a search is for pages.
    head = "---\nhide: [toc]\nsearch: {exclude: true}\n---\n"
    return f"{head}\n# {path}\n\n````{pathlib.Path(path).suffix[1:]}\n{text}\n````\n"


def cell_as_markdown(cell):
    text = "".join(cell["source"])
    text = re.sub(r"^\[!\[.*\n", "", text, flags=re.MULTILINE)  # a badge, whose image would be loaded from elsewhere
    return text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


def commands_as_markdown():
    """Return the page of the command line, read from its source: the site's environment cannot import the package."""
    files = {
        name: bindings(f"csbp_jax/cli/{name}.py")
        for name in ("main", "commands", "sweep_commands", "run_commands", "record_commands", "options", "option_types")
    }
    classes = {name: node for file in files.values() for name, node in file.items()}
    option_types = files["option_types"]
    table = option_types["ARGUMENTS"].value
    arguments = {key.id: value.value for key, value in zip(table.keys, table.values, strict=True)}
    exit_codes = ast.literal_eval(files["main"]["_EXIT_CODES"].value)
    text = f"# Commands\n\n`csbp_jax COMMAND --help` lists the options of a command.\n\n{exit_codes}\n"
    commands = files["commands"]["COMMANDS"].value
    for command, value in zip(commands.keys, commands.values, strict=True):
        name, kind = command.value, last_name(value.elts[0])
        fields = list(fields_of(classes, kind))
        words = [arguments.get(last_name(field.annotation)) for field, _ in fields]
        text += f"\n## csbp_jax {name}\n\n`csbp_jax {name} {' '.join(filter(None, words))}`\n\n"
        text += f"{ast.get_docstring(classes[kind])}\n\n| option | default | meaning |\n|---|---|---|\n"
        text += "".join(command_option(field, after, option_types) for field, after in fields)
    return re.sub(r"docs/(\w+\.md)", r"[docs/\1](../\1)", text)


def last_name(node):
    """Return the name that an expression ends with, with or without its module; nothing of another expression."""
    return getattr(node, "attr", getattr(node, "id", ""))


def fields_of(classes, name):
    """Yield the fields of a class and of those that it extends, each with the statement after it."""
    for base in classes[name].bases:
        yield from fields_of(classes, base.id)
    body = classes[name].body
    for field, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            yield field, after


def bindings(file) -> dict[str, Any]:
    """Return the top-level statements of a source file by the names that they bind."""
    return {name: node for node in ast.parse((ROOT / file).read_text()).body for name in names(node)}


def names(node):
    """Return the names that a top-level statement binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    bound = [getattr(target, "id", getattr(target, "name", None)) for target in targets]
    return [name for name in bound if name]


def command_option(field, after, aliases):
    """Return an option as a row of a table; its help is in its annotation or in the string after it."""
    label, alias = field.target.id, aliases.get(last_name(field.annotation))
    if label == "config":
        return "| `--FIELD VALUE` | | any field of the [config](data.md#csbp_jax.config.schema) |\n"
    annotation = alias.value if alias else field.annotation
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Positional":
        return ""  # it is in the line above the table
    keywords = {key.arg: key.value for node in ast.walk(annotation) for key in getattr(node, "keywords", [])}
    is_help = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    meaning = after.value.value if is_help else ast.literal_eval(keywords["help"])
    subscripts = [node for node in ast.walk(annotation) if isinstance(node, ast.Subscript)]
    choices = [ast.unparse(node.slice) for node in subscripts if ast.unparse(node.value) == "Literal"][:1]
    name = ast.literal_eval(keywords["name"]) if "name" in keywords else label
    default = ast.literal_eval(field.value)
    shown = "" if default in (None, False, "") else f"`{default}`"
    meaning = " ".join(meaning.split()) + "".join(f": {words.strip('()')}".replace("'", "") for words in choices)
    return f"| `--{name.replace('_', '-')}` | {shown} | {meaning} |\n"


def on_files(files, config):
    """Add the generated pages."""
    waiting = [*ALWAYS, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if is_text(path, config):
            text = UTF_8 + (ROOT / path).read_text()
            files.append(File.generated(config, site_path(path, config), content=text))
            continue
        if not path.startswith("docs/"):
            files.append(File.generated(config, site_path(path, config), content=as_markdown(path)))
        if path.endswith(WITH_LINKS):
            targets = [link_target(path, link) for link in LINK.findall(as_markdown(path))]
            others = [target for target in targets if target]
            waiting += [other for other in others if not other.startswith("docs/") or is_text(other, config)]
    files.append(File.generated(config, "reference/commands.md", content=commands_as_markdown()))
    config.extra["origins"] = {site_path(path, config): path for path in seen}
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links at the pages of their targets."""
    path = config.extra["origins"].get(page.file.src_uri, "")
    if not path.endswith(WITH_LINKS):
        return markdown

    def relink(match):
        target = link_target(path, match[0])
        if target is None:
            return match[0]
        return posixpath.relpath(site_path(target, config), posixpath.dirname(page.file.src_uri))

    return LINK.sub(relink, markdown)


class Docstrings(griffe.Extension):
    """Converter of docstrings from reStructuredText to Markdown: drops roles and makes examples code blocks."""

    def on_object(self, *, obj, **others):
        if obj.docstring:
            text = ROLE.sub("", obj.docstring.value.replace("::\n", ":\n"))
            obj.docstring.value = DOCTEST.sub(lambda match: f"```pycon\n{match[0]}\n```", text)
