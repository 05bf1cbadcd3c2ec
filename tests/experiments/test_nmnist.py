"""The study of N-MNIST: its folds, augmentation, baseline, tests and verdicts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from csbp_jax.config import ConfigError
from csbp_jax.data.source import ArraySource
from experiments import study
from experiments.nmnist import __main__ as nmnist
from experiments.nmnist import training
from experiments.nmnist.training import Setting

LABELS = np.repeat(np.arange(10, dtype=np.int32), [105, 130, 107, 104, 119, 99, 104, 132, 89, 111])


def run(solved, validation=(0.5,)):
    return {"last": {"epoch": 1, "solved": solved}, "chosen": {"epoch": 1, "solved": solved}, "validation": validation}


def test_folds_are_equal_in_size_and_stratified():
    fold = training.folds(LABELS)
    assert np.bincount(fold).tolist() == [110] * 10
    for label in range(10):
        counts = np.bincount(fold[label == LABELS], minlength=10)
        assert np.ptp(counts) <= 1


def test_splits_of_a_fold_are_disjoint_and_test_every_recording_once():
    tested = []
    for fold in range(10):
        split = training.split(LABELS, fold)
        assert sorted(np.concatenate(list(split.values()))) == list(range(1100))
        assert (training.folds(LABELS)[split["test"]] == fold).all()
        assert set(LABELS[split["validation"]]) == set(range(10))
        tested += list(split["test"])
    assert sorted(tested) == list(range(1100))


def test_a_frame_is_its_window_of_2x2_pixels():
    x = jnp.arange(34 * 34, dtype=jnp.float32).reshape(1, 34, 34, 1)
    halved = training.centred(x)
    assert halved.shape == (1, 16, 16, 1)
    assert halved[0, 0, 0, 0] == x[0, 1:3, 1:3, 0].sum() and halved[0, -1, -1, 0] == x[0, 31:33, 31:33, 0].sum()


def augmented(x, seeds):
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    return np.asarray(jax.jit(jax.vmap(training.augmented, (0, None)))(keys, jnp.asarray(x, jnp.float32)))


def test_augmentation_without_change_is_a_window(monkeypatch):
    for name, value in {"SHIFT": 1, "ANGLE": 0.0, "SHEAR": 0.0, "SCALE": 0.0}.items():
        monkeypatch.setattr(training, name, value)
    x = np.random.default_rng(0).poisson(0.5, (2, 34, 34, 2))
    corners = [(top, left) for top in range(3) for left in range(3)]
    windows = [x[:, top : top + 32, left : left + 32].reshape(2, 16, 2, 16, 2, 2).sum((2, 4)) for top, left in corners]
    matches = [[(window == shifted).all() for window in windows] for shifted in augmented(x, 12)]
    assert (np.sum(matches, axis=1) == 1).all() and len(set(np.argmax(matches, axis=1))) > 3


def test_augmentation_keeps_the_centre_and_moves_the_edge(monkeypatch):
    monkeypatch.setattr(training, "SHIFT", 1)
    x = np.zeros((1, 34, 34, 2))
    x[:, 16:18, 16:18, 0], x[:, 16:18, 28:30, 1] = 1, 1
    images = augmented(x, 6)[:, 0]
    rows, columns = (np.array([np.mean(np.nonzero(image[..., 0])[axis]) for image in images]) for axis in (0, 1))
    assert np.abs(rows - 7.5).max() <= 1 and np.abs(columns - 7.5).max() <= 1
    edges = [np.mean(np.nonzero(image[..., 1])[0]) for image in images]
    assert np.ptp(edges) > 1  # 12 pixels from the centre, up to 12 degrees are 2.5 pixels


def test_recordings_are_taken_by_number_and_missing_ones_are_reported(monkeypatch, tmp_path):
    def prepared(numbers):
        ids = [f"Train/{number % 10}/{number:05}.bin" for number in numbers]
        frames = np.array(numbers, np.uint32).reshape(-1, 1, 1, 1, 1)
        np.save(tmp_path / "train.npy", frames)
        part = {"ids": ids, "rows": list(range(len(ids))), "labels": [number % 10 for number in numbers]}
        (tmp_path / "frames.json").write_text(json.dumps({"parts": {"train": part}}))
        source = ArraySource(frames, np.zeros(len(ids), np.int32), 10)
        source.path = tmp_path / "train.npy"  # type: ignore[attr-defined]  # as cached frames have
        monkeypatch.setattr(training.data, "load", lambda config, folder: {"train": source})

    numbers = [*range(60_200, 60_000, -1), *range(1200, 0, -1)]
    prepared(numbers)
    frames, y = training.recordings("data")
    assert frames.ravel().tolist() == [*range(1, 1001), *range(60_001, 60_101)]
    assert y.tolist() == [number % 10 for number in frames.ravel()]
    prepared([number for number in numbers if number != 17])
    with pytest.raises(ConfigError, match="1 of the 1,100 recordings are missing, the first is 00017"):
        training.recordings("data")


def test_ridge_regression_is_the_primal_solution():
    generator = np.random.default_rng(0)
    frames = generator.poisson(1.0, (len(LABELS), 1, 2, 2, 2)) + np.eye(10)[LABELS][:, :8].reshape(-1, 1, 2, 2, 2) * 2
    indices = training.split(LABELS, 3)
    x, y = frames.reshape(len(frames), -1), np.eye(10)[LABELS]
    mean, centre = x[indices["train"]].mean(0), y[indices["train"]].mean(0)
    a = x[indices["train"]] - mean
    weights = np.linalg.solve(a.T @ a + 50 * np.eye(8), a.T @ (y[indices["train"]] - centre))
    expected = ((x[indices["test"]] - mean) @ weights + centre).argmax(1) == LABELS[indices["test"]]
    np.testing.assert_array_equal(training.ridge(frames, LABELS, 3, 50.0), expected)


def test_recordings_of_all_folds_are_compared_and_differences_are_csbps():
    folds = {"CSBP": [run("1110"), run("1111")], "plain": [run("1100"), run("0011")], "drift": [run("1111")] * 2}
    rows = nmnist.mcnemar(folds, "last")
    assert (rows["plain"]["more"], rows["plain"]["less"], rows["plain"]["difference"]) == (3, 0, 3 / 8)
    assert (rows["drift"]["more"], rows["drift"]["less"], rows["drift"]["difference"]) == (0, 1, -1 / 8)
    assert rows["plain"]["p"] == pytest.approx(stats.binomtest(3, 3).pvalue)


@pytest.mark.parametrize(
    ("p", "p_recordings", "difference", "equivalence", "expected"),
    [
        (0.01, 0.02, 0.02, 0.9, "CSBP is better"),
        (0.01, 0.02, -0.02, 0.9, "CSBP is worse"),
        (0.01, 0.2, 0.02, 0.9, "not decided"),
        (0.5, 0.5, 0.0, 0.01, "equal"),
    ],
)
def test_verdicts_of_the_plan(p, p_recordings, difference, equivalence, expected):
    recordings = {"p_holm": p_recordings, "equivalence": equivalence}
    row = {"p_holm": p, "difference": difference, "equivalence": equivalence, "mcnemar": [recordings]}
    assert nmnist.verdict(row) == expected


def test_accuracy_of_a_fold_is_the_mean_over_its_seeds():
    seeds = {0: [run("11"), run("10")], 1: [run("10"), run("00")]}
    assert nmnist.fold_accuracies(seeds, "last").tolist() == [0.75, 0.25]


@pytest.fixture
def small(monkeypatch):
    """The system of a small network, trained for two epochs on 240 recordings of three time steps in three folds."""
    for name, value in {"EPOCHS": 2, "FEATURES": (2, 3), "TIME_STEPS": 3, "FOLDS": 3}.items():
        monkeypatch.setattr(training, name, value)
    y = np.tile(np.arange(10, dtype=np.int32), 6).repeat(4)
    frames = np.random.default_rng(0).poisson(0.5, (240, 3, 34, 34, 2)).astype(np.uint8)
    frames[np.arange(240), :, 3 * y] += 3
    monkeypatch.setattr(training, "recordings", lambda folder: (frames, y))
    return training.Folds("data")


@pytest.mark.full
def test_the_runs_of_the_study_are_those_of_its_experiment(small, tmp_path, monkeypatch):
    """Bits of every fold's recordings, from the table of epochs; pilots are read from the runs of the study."""
    monkeypatch.setattr(study, "WORK", tmp_path)
    monkeypatch.setattr(nmnist, "FOLDS", 3)
    conditions = {"CSBP": Setting(z0=3.0), "plain": Setting(), "drift": Setting("drift", 3.0)}
    monkeypatch.setattr(nmnist, "CONDITIONS", conditions)
    monkeypatch.setattr(nmnist, "PILOTS", {name: [setting] for name, setting in conditions.items()})
    nmnist.main(["--seeds", "1", "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "nmnist.json").read_text())
    monkeypatch.setattr(training, "train", None)  # all is finished
    table = nmnist.experiment(small, 1).run(tmp_path / "nmnist", chunk=1)
    runs = nmnist.runs_of(table)
    assert content["runs"] == {name: {"0": of[0]} for name, of in runs.items()}
    assert (tmp_path / "out" / "table.md").read_text() == nmnist.page(content) + "\n"
    assert {name: {seed: len(folds) for seed, folds in of.items()} for name, of in runs.items()} == {
        name: {0: 3} for name in conditions
    }
    for name in conditions:
        for fold, run in enumerate(runs[name][0]):
            assert (run["last"]["epoch"], len(run["validation"])) == (2, 2) and run["chosen"]["epoch"] in (1, 2)
            row = table.where(arm=name, case=f"fold {fold}").frame.iloc[0]
            assert nmnist.share(run["last"]) == pytest.approx(row["last_test_accuracy"])
            assert row["validation_accuracy"] == pytest.approx(np.mean(run["validation"]))
            indices = training.split(small.y, fold)["test"]
            assert len(run["last"]["solved"]) == len(run["chosen"]["solved"]) == len(indices)
    row = table.where(arm="plain", case="fold 0").frame.iloc[0]
    pilots = nmnist.pilots(small)["pilots"]
    assert pilots["plain"] == [{"setting": {}, "accuracy": row["validation_accuracy"], "loss": row["validation_loss"]}]


def test_pilots_choose_the_conditions():
    content = json.loads((nmnist.study.RESULTS / "nmnist" / "pilots.json").read_text())
    for name, rows in content["pilots"].items():
        settings = [nmnist.study.changed_fields(setting) for setting in nmnist.PILOTS[name]]
        assert [row["setting"] for row in rows] == settings
        best = max(rows, key=lambda row: (row["accuracy"], -row["loss"]))
        assert best["setting"] == nmnist.study.changed_fields(nmnist.CONDITIONS[name])
    assert max(content["ridge"], key=content["ridge"].get) == f"{nmnist.PENALTY:g}"
