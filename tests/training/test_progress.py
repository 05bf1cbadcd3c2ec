"""Sums, health and selection: K members at once as each of them alone, and each as a loop over its steps says."""

import itertools

import jax
import numpy as np
import pytest

from csbp_jax.training import progress

MEMBERS, STEPS = 8, 500


def test_means_are_of_the_good_steps():
    generator = np.random.default_rng(0)
    good = generator.random((30, MEMBERS)) < 0.8
    good[:, 2] = False
    values = np.where(good, generator.normal(size=(30, MEMBERS)), np.nan).astype(np.float32)
    metrics = {"loss": values, "rates": {"fc1": 2 * values}}
    at_once = progress.Sums(metrics, (MEMBERS,))
    for step, is_good in enumerate(good):
        at_once.add(jax.tree.map(lambda rows, step=step: rows[step], metrics), is_good)
    np.testing.assert_array_equal(at_once.count, good.sum(axis=0))
    for member, means in enumerate(np.stack([at_once.means()["loss"], at_once.means()["rates"]["fc1"]], axis=1)):
        alone = progress.Sums(metrics)
        for loss, is_good in zip(values[:, member], good[:, member], strict=True):
            alone.add({"loss": loss, "rates": {"fc1": 2 * loss}}, is_good)
        counted = values[good[:, member], member].astype(float)
        if not len(counted):
            assert np.isnan(means).all() and alone.means() == {}
            continue
        mean = counted.mean()
        np.testing.assert_allclose(means, [mean, 2 * mean], rtol=1e-13)
        np.testing.assert_allclose([alone.means()["loss"], alone.means()["rates"]["fc1"]], means, rtol=1e-13)


def health_of(losses, bad_steps, factor, running=True):
    health = progress.Health(factor, 1000)
    for step, (loss, bad) in enumerate(zip(losses, bad_steps, strict=True), start=1):
        health.update(step, loss, bad, running)
    return health


@pytest.fixture(scope="module")
def trained():
    """Losses of members with stretches above their limits, and the lengths of their rows of skipped steps."""
    random = np.random.default_rng(0)
    stretches = [[(random.choice([1.0, 5000.0]), random.integers(90, 110)) for _ in range(6)] for _ in range(MEMBERS)]
    losses = np.array([list(itertools.chain(*([loss] * n for loss, n in of)))[:STEPS] for of in stretches])
    losses[:, 0] = 2.0
    skipped = random.random(losses.shape) < 0.02
    skipped[1, 5:8] = True
    bad_steps = np.zeros(losses.shape, int)
    for step in range(STEPS):
        bad_steps[:, step] = np.where(skipped[:, step], bad_steps[:, step - 1] + 1, 0)
    losses[skipped] = np.nan
    return losses, bad_steps, [1000.0] * 4 + [0.0, 4000.0, 10.0, 1000.0]


def test_a_member_has_diverged_where_the_run_alone_has(trained):
    losses, bad_steps, factors = trained
    together = health_of(losses.T, bad_steps.T, factors)
    for member, factor in enumerate(factors):
        alone = health_of(losses[member], bad_steps[member], factor)
        assert alone.diverged == together.diverged[member]
        assert (alone.first, alone.high_since) == (together.first[member], together.high_since[member])
    assert together.diverged[1] and 1 < together.diverged.sum() < MEMBERS


def test_a_member_that_has_stopped_cannot_diverge_any_more(trained):
    losses, bad_steps, factors = trained
    assert not health_of(losses.T, bad_steps.T, factors, running=np.zeros(MEMBERS, bool)).diverged.any()


def test_the_best_finite_validation_is_selected():
    """Until one is finite, the best of the others; of many members at once as of each alone."""
    random = np.random.default_rng(0)
    shape = (5, 200)
    losses = random.choice([0.5, 0.25], shape)
    failed = random.random(shape) < np.linspace(0.3, 1, shape[1])  # of the last members all are
    losses[failed] = random.choice([np.nan, np.inf], failed.sum())
    accuracies = random.random(shape).round(1)

    def replace(better, new, old):
        return {"params": np.where(better, new["params"], old["params"])}

    def selected(accuracies, losses):
        chosen = progress.no_selection({"params": np.zeros(losses[0].shape)}, losses[0].shape)
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), start=1):
            validation, weights = {"accuracy": accuracy, "loss": loss}, {"params": np.full(loss.shape, epoch)}
            chosen = progress.select(chosen, weights, epoch, validation, replace)
        assert np.array_equal(chosen["params"], chosen["epoch"])
        return chosen

    together = selected(accuracies, losses)
    for member in range(shape[1]):
        rows = list(zip(accuracies[:, member], losses[:, member], strict=True))
        finite = [row for row in rows if np.isfinite(row[1])]
        best = max(finite or rows, key=lambda row: (row[0], -row[1] if np.isfinite(row[1]) else 0))
        alone = selected(accuracies[:, member], losses[:, member])
        assert alone["epoch"] == together["epoch"][member] > 0
        assert alone["accuracy"] == best[0] and (not finite or alone["loss"] == best[1])
