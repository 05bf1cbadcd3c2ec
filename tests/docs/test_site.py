"""The documentation: no link leads nowhere, no page is left out, and the site is built from the files, strictly."""

import html.parser
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from tests.support.checkout import checkout

ROOT = pathlib.Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CODE = re.compile(r"^```.*?^```|(?<=\n\n)(?: {4}[^\n]*\n|\n)+|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAV = set(re.findall(r"^ +- .+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
GENERATED = {"index.md", "source/ARCHITECTURE.md", "source/SECURITY.md", "reference/commands.md"}


def anchors(page):
    """Of its headings, as GitHub and the site form them."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain}


def links(page):
    """Those to other files and to headings."""
    found = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def lost(page):
    """Links that lead nowhere."""
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            yield f"{page.name}: {link}"


def test_links_and_anchors_lead_somewhere():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "csbp_jax").rglob("*.md")]
    assert sum(len(links(page)) for page in pages) > 50
    assert [link for page in pages for link in lost(page)] == []


def test_lost_links_are_found(tmp_path):
    (tmp_path / "b.md").write_text("# One `x`, [two](a.md)\n\n```\n# No heading\n```\n")
    (tmp_path / "a.md").write_text(
        "[](b.md) [](b.md#one-x-two) [](#here) ![](c.png) [](b.md#one) [](b.md#no-heading) [](https://x.y)\n"
        "[](#gone)\n\n## Here\n\n    code [](no.md)\n\n`[](no.md)`\n\n```\n[](no.md)\n```\n\n[](d.md)\n"
    )
    expected = ["c.png", "b.md#one", "b.md#no-heading", "#gone", "d.md"]
    assert list(lost(tmp_path / "a.md")) == [f"a.md: {link}" for link in expected]


def test_every_page_is_in_the_nav():
    """A page that is missing here is to be added to ``nav`` of mkdocs.yml."""
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages == NAV - GENERATED and GENERATED <= NAV


def make(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "CSBP_"))}
    return subprocess.run(["make", "-C", folder, *arguments], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def built(publish, tmp_path_factory):
    """A clone in which ``make docs`` has run."""
    root = checkout(tmp_path_factory.mktemp("site") / "clone")
    done = make(root, "docs", f"PUBLISH={publish}")
    assert done.returncode == 0, done.stderr[-3000:]
    return root


class Ids(html.parser.HTMLParser):
    """Where a page leads to, and where in it others may lead."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[key] for key in ("id", "name") if attrs.get(key)}
        self.targets |= {attrs[key] for key in ("href", "src") if attrs.get(key)}


@pytest.mark.slow
def test_the_site_is_whole(built):
    site = built / "site"
    pages = {path: Ids(path.read_text()) for path in site.rglob("*.html")}
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
    assert '<span class="kn">import' in (site / "source" / "csbp_jax" / "precision.py.html").read_text()
    assert "tour" in (site / "source" / "experiments" / "tour.ipynb.html").read_text()
    assert "Two commands" in (site / "index.html").read_text()


@pytest.mark.slow
def test_the_reference_is_that_of_the_docstrings(built):
    site = built / "site" / "reference"
    page = (site / "chaos.html").read_text()
    for word in ('id="csbp_jax.chaos.term"', 'id="csbp_jax.neurons.lif"', "pre-activation or membrane", "&gt;&gt;&gt;"):
        assert word in page
    for path in site.glob("*.html"):
        text = path.read_text()
        assert "::: " not in text and ":func:" not in text, path
    assert "--weights-of EPOCH" in (site / "commands.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("docs/lab.md", "[gone](gone.md)\n", "gone.md"),
        ("docs/lab.md", "[gone](../csbp_jax/gone.py)\n", "gone.py"),
        ("README.md", "[gone](docs/data.md#gone)\n", "#gone"),
        ("docs/new.md", "# New\n", "new.md"),
        ("docs/reference/data.md", "::: csbp_jax.gone\n", "csbp_jax.gone"),
    ],
)
def test_what_is_wrong_fails_the_build(publish, tmp_path, file, content, told):
    root = checkout(tmp_path / "clone")
    with (root / file).open("a") as page:
        page.write(f"\n{content}")
    done = make(root, "docs", f"PUBLISH={publish}")
    assert done.returncode and told in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize(
    "page", ["index", "start", "data", "reference/chaos", "results/xor/index", "source/ARCHITECTURE"]
)
def test_no_page_is_wider_than_a_phone(built, page, tmp_path):
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<iframe width="390" height="800" style="border:0" src="{built}/site/{page}.html"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument, root = page.documentElement;
  document.title = [root.clientWidth, root.scrollWidth, page.querySelectorAll("nav").length].join(" ") }}</script>""")
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run(
        [*line, f"--user-data-dir={tmp_path / 'profile'}", frame.as_uri()], capture_output=True, text=True, timeout=60
    )
    told = re.search("<title>([0-9]+) ([0-9]+) ([0-9]+)</title>", done.stdout)
    assert told, done.stderr[-2000:]
    inner, wide, navs = map(int, told.groups())
    assert 370 <= inner <= 390 and wide <= inner and navs > 1
