"""The HTML report: self-contained, its text escaped, and in a real browser no wider than a phone."""

import html
import html.parser
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from csbp_jax.cli import main
from csbp_jax.evaluation import html_report
from csbp_jax.runs import RunTable
from csbp_jax.training import run_json
from tests.support.run_copies import edited

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    root = tmp_path_factory.mktemp("reported")
    return [
        edited(trained, root / f"{'long-name-' * 6}{z0}-{seed}", accuracy=0.9 + seed / 100, seed=seed, chaos__z0=[z0])
        for z0 in (0.0, 30.0)
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def experiment(trained, tmp_path_factory):
    """The files of an experiment, with invented accuracies."""
    folder = tmp_path_factory.mktemp("experiments") / "ablation"
    (folder / "blocks").mkdir(parents=True)
    shutil.copy(trained / "config.json", folder)
    shutil.copytree(trained / "figures", folder / "figures")
    random = np.random.default_rng(0)
    head = ["case", "arm", "draw", "try", "role", "seed", "chaos.z0", "last_test_accuracy", "diverged"]
    arms = ("CSBP", 3.0), ("plain", 0.0), ("drift", 3.0)
    rows = [["", arm, 0, 0, "test", seed, z0, random.random(), False] for arm, z0 in arms for seed in range(4)]
    pd.DataFrame(rows, columns=head).to_csv(folder / "runs.csv", index=False)
    for arm, z0 in arms:
        of_arm = [row for row in rows if row[1] == arm]
        measures = {"last_test_accuracy": [row[-2] for row in of_arm], "diverged": [False] * 4}
        block = {"fields": {"chaos.z0": z0, "arm": arm}, "seeds": [0, 1, 2, 3], "measures": measures, "how": {}}
        (folder / "blocks" / f"{arm}.json").write_text(json.dumps(block))
    cells = [{"case": "", "arm": arm, "draw": 0, "tries": [{"chaos.z0": z0, "arm": arm}]} for arm, z0 in arms]
    (folder / "settings.json").write_text(json.dumps({"cells": cells}))
    return folder


@pytest.fixture(scope="module")
def pages(runs, experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {"one": [runs[0]], "four": runs, "experiment": [experiment]}
    return {name: html_report.write(folders, folder / f"{name}.html").read_text() for name, folders in made.items()}


class Tags(html.parser.HTMLParser):
    """All tags of a page, and the nesting depth at its end."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.depth = [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.depth += tag not in ("meta", "img")

    def handle_endtag(self, tag):
        self.depth -= 1


def check_self_contained(text):
    tags = Tags(text)
    assert tags.depth == 0 and not {tag for tag, _ in tags.tags} & {"script", "link", "iframe", "object"}
    sources = [attrs["src"] for tag, attrs in tags.tags if tag == "img"]
    assert sources and all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "http://" not in text and "https://" not in text
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in tags.tags


@pytest.mark.parametrize("name", ["one", "four", "experiment"])
def test_a_page_is_self_contained(pages, name):
    check_self_contained(pages[name])


def test_content_of_the_pages(pages, runs):
    text = html.unescape(pages["four"])
    for word in ("chaos.z0", "optimizer.lr", "91.00%", "orbax-checkpoint", "seed 1,", "pairs", runs[3].name):
        assert word in text
    # No line ends within an interval.
    assert re.search(r"\[\S+,\N{NO-BREAK SPACE}\S+\]", text) and not re.search(r"\[\S+, \S+\]", text)
    assert len(re.findall("<img ", pages["four"])) == 4 * len(list(runs[0].glob("figures/*.png"))) + 2
    assert "Last test accuracy of 4 runs, a point for each, pairs joined" in text
    assert "Comparison" not in pages["one"]


def test_the_page_of_an_experiment(experiment, pages, tmp_path, capsys):
    text = html.unescape(pages["experiment"])
    words = "Experiment ablation", "CSBP - plain", "drift - plain", "of 12 runs", "Last test accuracy, paired", "Runs"
    for word in words:
        assert word in text
    answers = RunTable.read(experiment).contrast(["CSBP", "drift"], "plain").lines()
    for answer in answers:
        assert text.index(html_report._unbroken(f"Last epoch: {answer}.")) < text.index("<img")
    plan = text[text.index("<summary>Plan</summary>") : text.index("<summary>Runs</summary>")]
    assert [words in plan for words in ("0 to 3", "chaos.z0 3.0", "chaos.z0 0.0", "CSBP", "drift")] == 5 * [True]
    file = str(tmp_path / "page.html")
    assert main.main(["report", str(experiment), "--control", "drift", "--margin", "50", "--out", file]) == 0
    assert "plain - drift" in pathlib.Path(file).read_text()
    assert main.main(["report", str(experiment)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{experiment / 'report.html'}"


def test_the_plan_of_a_tuned_experiment_has_its_tries_and_seeds():
    columns = ["case", "arm", "draw", "try", "role", "seed", "optimizer.lr", "last_test_accuracy"]
    tunes = [["", "plain", draw, n, "tune", 100 + 10 * draw, 0.1 * n, 0.5] for draw in (0, 1) for n in range(3)]
    tests = [
        ["", "plain", draw, 2 - draw, "test", seed, 0.1 * (2 - draw), 0.5] for draw in (0, 1) for seed in (0, 1, 5)
    ]
    table = RunTable(pd.DataFrame(tunes + tests, columns=columns), ("optimizer.lr",), ("last_test_accuracy",))
    (caption, head, rows) = html_report._plan(table)
    assert caption == "Plan" and rows == [["plain", 3, "100, 110", 2, "0 to 1, 5", "optimizer.lr 0.2 or 0.1"]]
    assert len(head) == 6


def test_figures_come_before_tables_that_of_training_first_under_one_heading(runs, pages):
    for page in pages.values():
        assert page.index("<img") < page.index("<table")
    alts = re.findall('alt="([^"]*)"', pages["one"])
    assert alts[0] == "training" and set(alts) == {"training", "rates"} and pages["one"].count("<h") == 3  # html, head
    assert re.findall('alt="([^"]*)"', pages["four"])[:2] == ["comparison", "curves"]


@pytest.mark.full
def test_each_set_of_runs_has_a_page_of_its_own(runs):
    written = {html_report.write(runs[:count]).name for count in (1, 2, 3)}
    assert len(written) == 3 and "report.html" in written and html_report.write(runs[:2]).name in written


def test_a_run_that_is_not_finished_has_the_figures_so_far(trained, runs, tmp_path, refused):
    half, rows = edited(trained, tmp_path / "half"), (trained / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "result.json").unlink()
    shutil.rmtree(half / "figures")
    ends = [number for number, row in enumerate(rows) if '"epoch"' in row and '"kind": "epoch"' in row]
    for count, images in ((ends[0] + 1, 2), (1, 0)):
        (half / "metrics.jsonl").write_text("".join(rows[:count]))
        page = html_report.write(half, tmp_path / "half.html").read_text()
        assert f"not finished: {images // 2} of 2 epochs" in page and page.count("<img") == images
    text = html_report.write([*runs[:2], half]).read_text()
    assert "of 2 runs" in text and "not finished: 0 of 2" in text
    assert "half: is not finished" in refused("report", runs[0], "--control", half)


def test_a_page_has_the_accuracy_of_averaged_weights(trained, pages, tmp_path):
    run = edited(trained, tmp_path / "run")
    result = run_json.read_result(run)
    (run / "result.json").write_text(json.dumps(result | {"ema": result["last"] | {"test_accuracy": 0.1234}}))
    assert "<td>moving average</td><td>12.34%</td>" in html_report.write(run).read_text()
    assert "moving average" not in pages["one"]


def test_a_figure_of_another_epoch_than_the_result_says_so(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "figures" / "evaluation-test-last.png").write_bytes((run / "figures" / "rates.png").read_bytes())
    for epoch, is_older in ((1, True), (2, False)):
        (run / "evaluation-test-last.json").write_text(json.dumps({"weights_of": "last", "epoch": epoch}))
        assert ("This is of epoch 1, before the run went on" in html_report.write(run).read_text()) == is_older


def test_a_page_compares_with_the_control_and_margin_of_its_command(runs, tmp_path, capsys):
    file = tmp_path / "page.html"
    for words, title, verdict in (
        ((runs[2], "--control", runs[0]), "chaos.z0 30.0 - chaos.z0 0.0", ""),
        ((*runs, "--control", runs[3], "--margin", "50"), "chaos.z0 0.0 - chaos.z0 30.0", "not decided"),
    ):
        assert main.main(["report", *map(str, words), "--out", str(file)]) == 0
        assert title in file.read_text() and verdict in file.read_text()


def test_a_link_out_of_the_run_is_not_embedded(trained, tmp_path):
    (tmp_path / "key.png").write_text("secret")
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / name, ignore=shutil.ignore_patterns("figures"))
    (tmp_path / "a" / "figures").mkdir()
    (tmp_path / "a" / "figures" / "1.png").symlink_to(tmp_path / "key.png")
    (tmp_path / "b" / "figures").symlink_to(tmp_path)
    for name in ("a", "b"):
        assert "<img" not in html_report.write(tmp_path / name).read_text()


def test_text_is_escaped_and_so_is_a_path_that_is_not_utf8(trained, tmp_path):
    run = edited(trained, tmp_path / "<b>&", data__dir="<script>alert(1)</script>caf\udce9")
    text = html_report.write([run]).read_text()
    assert (run / "report.html").exists() and "<script" not in text and "<b>" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;caf\udce9" in text and "Run &lt;b&gt;&amp;" in text


def browser_layouts(pages, folder, *options):
    """Measure the layout of pages ``(text, width)`` in a browser, in frames because windows have a minimum width."""
    file = folder / "frames.html"
    frames = "".join(
        f"""<iframe width="{width}" height="800" style="border:0" srcdoc="{html.escape(text)}"></iframe>"""
        for text, width in pages
    )
    file.write_text(f"""{frames}
<script>onload = () => {{
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, root = page.documentElement;
    return {{
      inner: root.clientWidth, scroll: root.scrollWidth, images: [...page.images].map(i => i.naturalWidth),
      paper: page.defaultView.getComputedStyle(page.body).backgroundColor,
      tables: [...page.querySelectorAll(".scroll")].map(t => t.scrollWidth - t.clientWidth),
      // Right end of a table's second and third column, where those are accuracies.
      ends: [...page.querySelectorAll("table")].filter(t => /^(last|chosen)/.test(t.rows[0].cells[1].textContent))
        .map(t => [1, 2].map(i => t.rows[0].cells[i].getBoundingClientRect().right)),
      names: [...page.querySelectorAll("td:first-child")].map(cell => cell.getBoundingClientRect().width) }};
  }}));
}}</script>""")
    line = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", *options]
    done = subprocess.run([*line, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60)
    title = re.search("<title>(.*)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    return json.loads(html.unescape(title[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
@pytest.mark.parametrize("name", ["four", "experiment"])
def test_layout_in_a_browser(pages, name, tmp_path):
    text = pages[name]
    without_scrolling = text.replace("overflow-x: auto", "")
    narrow, wide, overflowing = browser_layouts([(text, 390), (text, 1200), (without_scrolling, 390)], tmp_path)
    for width, layout in ((390, narrow), (1200, wide)):
        assert layout["inner"] >= width - 20 and layout["scroll"] <= layout["inner"]
        assert layout["images"] and min(layout["images"]) > 100 and layout["paper"] == "rgb(255, 255, 255)"
    assert max(narrow["tables"]) > 0  # wider than the phone, and it scrolls by itself
    # Before that, without scrolling, names and both accuracies are in sight.
    assert len(narrow["ends"]) == {"four": 3, "experiment": 1}[name] and min(narrow["names"]) > 60
    assert max(max(ends) for ends in narrow["ends"]) <= narrow["inner"]
    assert overflowing["scroll"] > overflowing["inner"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_dark_colour_scheme(pages, tmp_path):
    (layout,) = browser_layouts([(pages["one"], 390)], tmp_path, "--blink-settings=preferredColorScheme=0")
    assert layout["paper"] == "rgb(22, 24, 27)"
