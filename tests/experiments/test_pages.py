"""Committed pages of studies are made of their data, whose numbers follow from the runs that they hold."""

import json
import pathlib

import pytest

from experiments import (
    accuracy,
    curves,
    delays,
    dimension,
    few_labels,
    known_exponents,
    precision,
    series_tasks,
    speakers,
)
from experiments import exponents as exponents_study
from experiments.cbp import __main__ as cbp
from experiments.cbp import overshoot
from experiments.cbp import pages as cbp_pages
from experiments.ergodic import pages as ergodic
from experiments.nmnist import __main__ as nmnist
from experiments.parity import __main__ as parity
from experiments.xor import draws, escape, tuned
from tests.support.quotes import quoted
from tests.support.stored_numbers import stored

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "results"


def read(file):
    return json.loads((RESULTS / file).read_text())


def ended(page):
    """A page that a line end follows."""
    return lambda content: page(content) + "\n"


def table_of_curves(content):
    return curves.table(content["runs"])


TABLES = {
    "cbp/published/cbp.json": cbp_pages.page,
    "cbp/overshoot/overshoot.json": overshoot.page,
    "presets/cifar10_quick/curves.json": table_of_curves,
    "presets/cifar10_cnn7/curves.json": table_of_curves,
    "presets/cifar10_ilif/curves.json": table_of_curves,
    "delays/delays.json": delays.page,
    "dimension/dimension.json": dimension.page,
    "ergodic/ergodic.json": ergodic.page,
    **{f"exponents/{of}/exponents.json": exponents_study.page for of in ("dense_batch", "dense_epoch", "dense_stream")},
    "exponents/conv_batch/exponents.json": exponents_study.page,
    "presets/fsdd/curves.json": table_of_curves,
    "../checks/known_exponents/known_exponents.json": known_exponents.page,
    "nmnist/nmnist.json": nmnist.page,
    "series_tasks/series_tasks.json": series_tasks.page,
    "xor/escape/escape.json": escape.page,
    "xor/tuned/tuned.json": tuned.page,
}
PAGES = {
    "presets/digits/accuracy.json": (accuracy.page, "accuracy.md"),
    "presets/digits_events/accuracy.json": (accuracy.page, "accuracy.md"),
    "presets/fsdd_speakers/accuracy.json": (speakers.page, "accuracy.md"),
    "presets/mnist/accuracy.json": (accuracy.page, "accuracy.md"),
    "../checks/parity/parity.json": (parity.page, "README.md"),
    "precision/accuracy.json": (precision.page, "README.md"),
    "xor/tuned/draws.json": (draws.page, "draws.md"),
    **{file: (ended(page), "table.md") for file, page in TABLES.items()},
}


@pytest.mark.parametrize("file", PAGES)
def test_a_page_is_made_of_its_data(file):
    page, name = PAGES[file]
    assert (RESULTS / file).with_name(name).read_text() == page(read(file))


QUOTED = {
    "../checks/known_exponents": (4, 6),
    "basins": (2, 5),
    "bifurcations": (2, 6),
    "cbp/published": (2, 2),
    "delays": (2, 8),
    "dimension": (1, 5),
    "ergodic": (2, 12),
    "learning_rates": (2, 4),
    "nmnist": (2, 4),
    "released_code/streams": (2, 6),
    "replay_digits/flip": (2, 6),
    "series_tasks": (1, 5),
    "steering": (2, 4),
    "twins": (2, 6),
    "xor/tuned": (1, 6),
    "xor_phase": (2, 6),
}
"""Of a folder's table: how many cells begin a row, and how many rows its README, or that above it, has at least."""


@pytest.mark.parametrize("folder", QUOTED)
def test_a_readme_quotes_its_table(folder):
    (key, least), at = QUOTED[folder], RESULTS / folder
    readme = at / "README.md" if (at / "README.md").exists() else at.parent / "README.md"
    assert len(quoted(readme.read_text(), (at / "table.md").read_text(), key)) >= least


def test_the_page_of_few_labels_has_the_table_of_the_runs():
    assert few_labels.table() in (RESULTS / "few_labels" / "README.md").read_text()


def escapes_of(content):
    return {"groups": {name: {"compared": escape.compare(of["conditions"])} for name, of in content["groups"].items()}}


def folds_of(content):
    runs = {name: {int(seed): of[seed] for seed in of} for name, of in content["runs"].items()}
    return nmnist.summary(runs, tuple(content["sizes"]))


NUMBERS = {
    "cbp/published/cbp.json": cbp.compare,
    "cbp/overshoot/overshoot.json": overshoot.analyse,
    "nmnist/nmnist.json": folds_of,
    "xor/escape/escape.json": escapes_of,
    "xor/tuned/draws.json": lambda content: {"analysis": draws.analyse(content["draws"])},
    "xor/tuned/tuned.json": lambda content: tuned.compare(content["conditions"]),
}


def of_keys(content, like):
    """The part of JSON that has the keys of another: counts that only new files have are left out."""
    if isinstance(like, dict):
        return {name: of_keys(content[name], value) for name, value in like.items() if name in content}
    return content


@pytest.mark.parametrize(
    "file", [pytest.param(f, marks=pytest.mark.full) if f == "cbp/overshoot/overshoot.json" else f for f in NUMBERS]
)
def test_numbers_follow_from_the_runs(file):
    content, computed = read(file), json.loads(json.dumps(NUMBERS[file](read(file))))
    committed = of_keys(content, computed)
    assert of_keys(computed, committed) == stored(committed) and committed.keys() == computed.keys()
