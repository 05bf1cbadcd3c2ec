"""The documentation: links have targets, all pages are in the nav, the site builds strictly."""

import html.parser
import re
import shutil
import subprocess

import pytest

from csbp_jax.cli.commands import COMMANDS
from tests.support.checkout import ROOT, checkout, make
from tests.support.matching import search

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CODE = re.compile(r"^```.*?^```|(?<=\n\n)(?: {4}[^\n]*\n|\n)+|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAV = set(re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
SOURCES = ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
GENERATED = {"index.md", "reference/commands.md", *(f"source/{name}.md" for name in SOURCES)}


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and the site form them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


def links(page):
    """Return a page's links to other files and to headings."""
    targets = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in targets if not re.match(r"[a-z]+:", link)]


def broken_links(page):
    """Yield the links of a page that have no target."""
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            yield f"{page.name}: {link}"


def test_links_and_anchors_have_targets():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "csbp_jax").rglob("*.md")]
    assert sum(len(links(page)) for page in pages) > 50
    assert [link for page in pages for link in broken_links(page)] == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# One `x`, [two](a.md)\n\n```\n# No heading\n```\n")
    (tmp_path / "a.md").write_text(
        "[](b.md) [](b.md#one-x-two) [](#here) ![](c.png) [](b.md#one) [](b.md#no-heading) [](https://x.y)\n"
        "[](#gone)\n\n## Here\n\n    code [](no.md)\n\n`[](no.md)`\n\n```\n[](no.md)\n```\n\n[](d.md)\n"
    )
    expected = ["c.png", "b.md#one", "b.md#no-heading", "#gone", "d.md"]
    assert list(broken_links(tmp_path / "a.md")) == [f"a.md: {link}" for link in expected]


def test_every_page_is_in_the_nav_and_every_plan_or_table_linked_from_a_page_that_is():
    """Add a page that this test misses to ``nav`` in mkdocs.yml, or link it."""
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    assert pages >= NAV - GENERATED and GENERATED <= NAV
    assert [page for page in pages - NAV if not page.startswith(("results/", "checks/"))] == []
    assert [page for page in pages - NAV if page.endswith("README.md")] == []
    listed = [docs / name for name in NAV - GENERATED]
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in listed for link in links(page)}
    # A table stands on the page beside it, too.
    rest = [page for page in sorted(pages - NAV) if not page.endswith("/table.md")]
    assert [page for page in rest if (docs / page).resolve() not in linked] == []


def test_lines_of_code_fit_into_a_page():
    """Code blocks of the site are 88 characters wide at 1280 pixels."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    lines = [
        (page.relative_to(ROOT).as_posix(), line)
        for page in pages
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) > 100
    assert [(page, line) for page, line in lines if len(line) > 88] == []


@pytest.fixture(scope="module")
def built(publish, tmp_path_factory):
    """Return a clone in which ``make docs`` has run."""
    root = checkout(tmp_path_factory.mktemp("site") / "clone")
    done = make(root, "docs", f"PUBLISH={publish}")
    assert done.returncode == 0, done.stderr[-3000:]
    return root


class Page(html.parser.HTMLParser):
    """The ids of a page, the targets of its links, and the files that it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets, self.loaded = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.targets |= {attrs[key] for key in ("href", "src") if attrs.get(key)}
        if attrs.get("src") or (tag == "link" and "stylesheet" in attrs.get("rel", "")):
            self.loaded.add(attrs.get("src") or attrs["href"])


@pytest.mark.slow
def test_every_page_is_built_and_its_links_have_targets(built):
    site = built / "site"
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert {name.removesuffix("README.md").removesuffix(".md") for name in NAV} <= {
        path.relative_to(site)
        .as_posix()
        .removesuffix("index.html" if path.parent != site else "")
        .removesuffix(".html")
        for path in pages
    }
    for path, page in pages.items():
        for target in page.targets:
            name, _, anchor = target.partition("#")
            # The theme's page for what a server does not find has links of a server.
            if re.match(r"[a-z]+:", target) or path.name == "404.html":
                continue
            other = (path.parent / name).resolve() if name else path
            assert other.exists(), f"{path}: {target}"
            assert not anchor or anchor in pages[other].ids or anchor.startswith("__"), f"{path}: {target}"
    assert '<span class="kn">import' in (site / "source" / "csbp_jax" / "models" / "precision.py.html").read_text()
    assert "chaos" in (site / "source" / "examples" / "notebooks" / "ablation.ipynb.html").read_text()
    assert "make train" in re.sub("<[^>]+>", "", (site / "index.html").read_text())
    plan = ROOT / "docs" / "results" / "arms" / "plan.md"
    assert (site / "results" / "arms" / "plan.md.txt").read_text("utf-8-sig") == plan.read_text()
    assert not (site / "results" / "arms" / "plan.html").exists()


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere_but_the_scripts_of_formulas_and_of_the_search(built):
    site = built / "site"
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    formulas = {path.relative_to(site).as_posix() for path, text in pages.items() if 'class="arithmatex"' in text}
    assert {"idea.html", "source/examples/notebooks/ablation.ipynb.html"} <= formulas
    loaded = {file for text in pages.values() for file in Page(text).loaded if re.match("([a-z]+:)?//", file)}
    assert {file.split("/")[-1] for file in loaded} == {"tex-chtml.js", "shim"}


@pytest.mark.slow
def test_the_reference_is_made_from_the_docstrings(built):
    site = built / "site" / "reference"
    page = (site / "chaos.html").read_text()
    for text in ("csbp_jax.chaos.term", "csbp_jax.neurons.lif.lif", "csbp_jax.neurons.Neuron"):
        assert f'id="{text}"' in page
    assert "pre-activation or membrane" in page and "&gt;&gt;&gt;" in page
    for path in site.glob("*.html"):
        text = path.read_text()
        assert "::: " not in text and ":func:" not in text, path
    commands = (site / "commands.html").read_text()
    for name in COMMANDS:
        assert f">csbp_jax {name}<" in commands
    for text in ("--weights-of", "the epoch chosen by validation", "Exit codes", "safetensors, npz, stablehlo, nir"):
        assert text in commands


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("docs/lab.md", "[gone](gone.md)\n", "gone.md"),
        ("docs/lab.md", "[gone](../csbp_jax/gone.py)\n", "gone.py"),
        ("README.md", "[gone](docs/data.md#gone)\n", "#gone"),
        ("docs/new.md", "# New\n", "new.md"),
        ("docs/reference/data.md", "::: csbp_jax.gone\n", "csbp_jax.gone"),
    ],
)
def test_a_mistake_in_a_page_fails_the_build(publish, tmp_path, file, content, message):
    root = checkout(tmp_path / "clone")
    with (root / file).open("a") as page:
        page.write(f"\n{content}")
    done = make(root, "docs", f"PUBLISH={publish}")
    assert done.returncode and message in done.stdout + done.stderr


def browse(url, tmp_path, *options):
    """Return the HTML of a page after its scripts have run, in a browser without a network."""
    assert CHROMIUM
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=10000"]
    line += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}", *options, url]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout


def measure(built, page, width, script, tmp_path):
    """Return the words that ``script`` makes of a page in a frame of this width: it sees ``page`` and ``root``."""
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<iframe width="{width}" height="800" style="border:0" src="{built}/site/{page}.html"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  document.title = ({script}).join(" ") }}</script>""")
    text = browse(frame.as_uri(), tmp_path, "--allow-file-access-from-files", "--window-size=1400,900")
    return search("<title>([^<]*)</title>", text)[1].split()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize(
    "page", ["index", "start", "data", "reference/chaos", "results/xor/index", "source/ARCHITECTURE"]
)
def test_no_page_is_wider_than_a_phone(built, page, tmp_path):
    script = '[root.clientWidth, root.scrollWidth, page.querySelectorAll("nav").length]'
    inner, content, navs = map(int, measure(built, page, 390, script, tmp_path))
    assert 370 <= inner <= 390 and content <= inner and navs > 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("page", ["index", "start", "lab", "results/exponents/index"])
def test_code_needs_no_scroll_bar_at_1280_pixels(built, page, tmp_path):
    blocks = '[...page.querySelectorAll(".md-content pre > code")]'
    script = f"[{blocks}.length, {blocks}.filter((code) => code.scrollWidth > code.clientWidth).length]"
    count, too_wide = map(int, measure(built, page, 1280, script, tmp_path))
    assert count and not too_wide
