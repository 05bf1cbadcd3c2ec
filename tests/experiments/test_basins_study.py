"""The study of basins: its plane, its labels, and its verdicts; on nets and grids that are known."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import basins
from experiments.xor.net import Kind, Setting, uniform

FOLDER = pathlib.Path(__file__).parents[2] / "docs" / "results" / "basins"
# Hidden neurons fire where an input is on, and where both are; the output where the first fires without the second.
XOR_NET = {
    "w1": jnp.array([[3.0, 3.0], [3.0, 3.0]]),
    "b1": jnp.array([-1.5, -4.5]),
    "w2": jnp.array([[3.0], [-6.0]]),
    "b2": jnp.array([-1.5]),
}


def test_labels_are_truth_tables():
    nets = [
        XOR_NET,
        XOR_NET | {"b2": jnp.array([-9.0])},  # silent
        XOR_NET | {"w1": -XOR_NET["w1"], "b1": jnp.array([1.5, -9.0])},
        XOR_NET | {"b1": jnp.array([jnp.inf, 0.0])},
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)
    labels = jax.jit(jax.vmap(lambda net: basins.label(net, Setting())))(stacked)
    np.testing.assert_array_equal(labels, [basins.XOR, 0, 0b0001, basins.NOT_FINITE])
    texts = [basins.label_text(value) for value in (6, 1, 10, 16)]
    assert texts == ["0110 (XOR)", "1000", "0101", "not finite"]


def test_the_plane_is_isometric_and_passes_the_start_of_seed_0():
    start = basins.plane()

    def vector(coordinates):
        params = start(jnp.asarray(coordinates))
        return np.concatenate([np.ravel(params[name]) for name in sorted(params)])

    origin = vector([0.0, 0.0])
    np.testing.assert_array_equal(origin, np.concatenate([np.ravel(uniform(0)[n]) for n in sorted(uniform(0))]))
    u, v = vector([1.0, 0.0]) - origin, vector([0.0, 1.0]) - origin
    np.testing.assert_allclose([u @ u, v @ v, u @ v], [1, 1, 0], atol=1e-6)


def test_a_condition_is_run_at_the_starts_of_its_grid():
    """Without a step, labels are those of the starts; the sub-steps have every second of them."""
    fine = basins.measure(basins.Condition(Kind(alone=True), 0.0), 32, 0)
    coarse = basins.measure(basins.Condition(Kind(alone=True), 0.0, 2), 32, 0)
    assert fine["labels"].shape == (32, 32) and len(np.unique(fine["labels"])) == 2
    np.testing.assert_array_equal(coarse["labels"], fine["labels"][::2, ::2])
    for name in ("checked", "moved"):
        np.testing.assert_array_equal(fine[name], coarse[name])
    assert fine["checked"].shape == (16, 16) and np.mean(fine["checked"] != fine["moved"]) < 0.02


def runs_of(grid):
    return {"labels": grid, "checked": grid[:2, :2], "moved": grid[:2, :2]}


@pytest.fixture
def summaries():
    """Halves for plain training and the controls, noise for the strong term."""
    smooth = np.repeat(np.array([0, 6], np.uint8), 48)[None].repeat(96, axis=0)
    noise = np.random.default_rng(0).choice(np.array([0, 6], np.uint8), (96, 96))
    grids = dict.fromkeys(basins.CONDITIONS, smooth) | {"strong CSBP": noise}
    grids["strong, 10 sub-steps"] = smooth[::2, ::2]
    return {name: basins.summary(runs_of(grid), basins.CONDITIONS[name].every) for name, grid in grids.items()}


def test_the_verdict_follows_from_the_exponents(summaries):
    assert summaries["plain"]["solved"]["share"] == 0.5 and summaries["plain"]["functions"] == 2
    exponents = [summaries["plain"][key]["alpha"] for key in ("alpha", "coarse_alpha")]
    np.testing.assert_allclose(exponents, 1, rtol=1e-9)
    assert summaries["strong, 10 sub-steps"]["alpha"] is None
    pairs = basins.compare(summaries)
    assert basins.verdicts(summaries, pairs) == [
        "strong CSBP: chaos makes basins more fractal",
        "CSBP: not shown that its basins are more fractal",
    ]
    content = {"conditions": summaries, "primary": pairs, "verdicts": basins.verdicts(summaries, pairs)}
    assert basins.page(json.loads(json.dumps(content))) == basins.page(content)
    summaries["strong, 10 sub-steps"] = summaries["strong CSBP"] | {"alpha": None}
    assert basins.verdicts(summaries, basins.compare(summaries))[0] == "strong CSBP: strength makes basins more fractal"


def test_a_verdict_waits_for_all_of_its_conditions(summaries):
    del summaries["strong, 10 sub-steps"], summaries["drift"]
    lines = basins.verdicts(summaries, basins.compare(summaries))
    assert [line.partition(": ")[2] for line in lines] == ["not decided, as a condition is missing"] * 2


def test_a_single_basin_is_no_missing_condition(summaries):
    constant = np.zeros((96, 96), np.uint8)
    summaries["strong CSBP"] = basins.summary(runs_of(constant), 1)
    line = basins.verdicts(summaries, basins.compare(summaries))[0]
    assert line == "strong CSBP: not shown that its basins are more fractal; without a boundary: strong CSBP"


def test_grids_that_do_not_divide_are_refused(capsys):
    with pytest.raises(SystemExit):
        basins.main(["--points", "100"])
    assert "--points: 100 is not possible; allowed are multiples of 32" in capsys.readouterr().err


def test_the_page_is_that_of_the_labels():
    content = json.loads((FOLDER / "basins.json").read_text())
    table = (FOLDER / "table.md").read_text()
    assert basins.page(content) + "\n" == table and table in (FOLDER / "README.md").read_text()
    assert set(content["conditions"]) <= set(basins.CONDITIONS)
    for name, result in content["conditions"].items():
        with np.load(FOLDER / f"{basins.file_stem(name)}.npz") as labels:
            measured = basins.summary(labels, basins.CONDITIONS[name].every)
        measured = json.loads(json.dumps(measured))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), measured, result)
    assert basins.compare(content["conditions"]) == content["primary"]
    assert basins.verdicts(content["conditions"], content["primary"]) == content["verdicts"]
