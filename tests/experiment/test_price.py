"""The price of an experiment: its arithmetic, the width of its intervals, and that it holds the time it then takes."""

import dataclasses
import time

import numpy as np
import pytest
from scipy import stats

from csbp_jax import configs
from csbp_jax.cli import main
from csbp_jax.config import ConfigError
from csbp_jax.experiment import Experiment, memory, price
from csbp_jax.experiment.price import Load, Price, Times
from csbp_jax.reporting.terminal import Console
from tests.support.small_runs import SMALL

TIMES = Times(compilation=(10, 20), step=(0.1, 0.2), validation=(1, 2), test=(3, 6))
ARMS = {"CSBP": {"chaos.z0": 3.0}, "plain": {"chaos.z0": 0.0}}
QUIET = Console(quiet=True)


def test_seconds_are_those_of_compilation_steps_and_evaluations():
    load = Load(chunks=3, epochs=(4, 5), steps=20, evaluations=1, tests=2)
    low, high = price.seconds(TIMES, load)
    assert low == pytest.approx(10 + 3 * (4 * (20 * 0.1 + 1) + 2 * 3))
    assert high == pytest.approx(20 + 3 * (5 * (20 * 0.2 + 2) + 2 * 6))
    less, more = price.MARGINS
    assert price.total([(low, high), (1, 2)]) == pytest.approx((less * (low + 1), more * (high + 2)))


@pytest.fixture
def priced(monkeypatch):
    """Times that are given, in place of those of the machine; what a group trains is recorded."""
    loads = []

    def seconds(times, load):
        loads.append(load)
        return 1.0, 2.0

    monkeypatch.setattr(price, "measure", lambda *arguments: TIMES)
    monkeypatch.setattr(price, "seconds", seconds)
    monkeypatch.setattr(memory, "needed", lambda *arguments: 7 * 10**9)
    return loads


def test_all_runs_of_an_experiment_are_priced(priced, tmp_path):
    config = dataclasses.replace(SMALL, epochs=6, patience=2)
    tuned = {"optimizer.lr": [0.1, 0.2, 0.3]}
    experiment = Experiment(config, ARMS, tuned=tuned, tuning_seeds=range(10, 14), seeds=range(2))
    cost = experiment.price(tmp_path / "new", chunk=8)
    assert cost.runs == 2 * (3 * 4 + 2) and cost.pairs == 2 and cost.memory == 7 * 10**9
    # 12 tuning runs of an arm are two chunks, and its tests another; both arms share one group.
    assert [load.chunks for load in priced] == [6]
    assert {(load.epochs, load.evaluations, load.tests) for load in priced} == {((3, 6), 1, 2)}
    assert not list(tmp_path.iterdir())


def test_a_sweep_is_priced_and_not_trained(priced, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["sweep", "digits", "--grid", "chaos.z0=0,3 seed=0:4", "--price"]) == 0
    out = capsys.readouterr().out
    assert " for 8 runs on this machine (cpu)" in out and "memory   7 GB of a device" in out
    assert "interval not known: no finished results of the same config lie beside it" in out
    assert not list(tmp_path.iterdir())


def test_the_interval_to_expect_is_that_of_stored_results(tmp_path, priced):
    stored = Experiment(OfNumbers(), {"a": {"up": 1}, "b": {"up": 0}}, seeds=range(8))
    table = stored.run(tmp_path / "stored", console=QUIET)
    row = table.contrast("b", "a")["a"]
    ours = Experiment(OfNumbers(), {"a": {"up": 1}, "c": {"up": 3}}, seeds=range(20)).price(tmp_path / "new")
    assert ours.seconds is None and ours.memory is None and ours.pairs == 20
    of_mean = stats.t.ppf(0.975, 19) * row["sd"] / np.sqrt(20)
    low, high = (np.sqrt(7 / stats.chi2.ppf(share, 7)) * of_mean for share in (0.975, 0.025))
    assert ours.half_width == pytest.approx((low, high))
    assert "time     not known" in str(ours) and "points around a difference of two arms, over 20 pairs" in str(ours)
    assert Experiment(OfNumbers(scale=2), {"a": {}}, seeds=[0, 1]).price(tmp_path / "new").half_width is None
    single = Experiment(OfNumbers(), {"a": {}}, seeds=[0]).price(tmp_path / "new")
    assert "interval not known: one pair has none" in str(single)


def test_a_damaged_neighbour_tells_nothing(tmp_path):
    experiment = Experiment(OfNumbers(), {"a": {"up": 1}, "b": {"up": 0}}, seeds=range(8))
    experiment.run(tmp_path / "stored", console=QUIET)
    (tmp_path / "stored" / "runs.csv").write_text("case,arm\n")
    assert experiment.price(tmp_path / "new").half_width is None
    (tmp_path / "stored" / "config.json").write_text("{")
    assert experiment.price(tmp_path / "new").half_width is None


def test_a_price_says_its_units():
    cost = Price(3, "cpu", (42.4, 9000), 4 * 10**8, (0.5, 1.25), " points", 8)
    assert str(cost).splitlines() == [
        "time     42 s to 2.5 h for 3 runs on this machine (cpu)",
        "memory   0.4 GB of a device, as counted in the compiled programs",
        "interval ±0.5 to ±1.2 points around a difference of two arms, over 8 pairs",
    ]


def test_an_impossible_experiment_has_no_price(tmp_path):
    with pytest.raises(ConfigError, match="decay"):
        Experiment(SMALL, {"a": {"model.neuron.decay": 7.0}}, seeds=[0]).price(tmp_path / "new")


@dataclasses.dataclass(frozen=True)
class OfNumbers:
    """A system whose accuracies are numbers of its seeds."""

    scale: float = 1.0

    def group(self, fields):
        return ()

    def train(self, group, fields, seeds):
        up = [of.get("up", 0) for of in fields]
        noise = [np.random.default_rng([seed, int(u)]).normal() for seed, u in zip(seeds, up, strict=True)]
        return {"accuracy": 0.5 + (np.array(up) + np.array(noise)) / 100}


DIGITS = configs.load("digits")
DENSE = DIGITS.replace(
    epochs=10, **{"model.name": "dense", "model.features": (32, 32), "chaos.taps": ("fc1.membrane",)}
)
EXPERIMENTS = {
    "digits": (DIGITS.replace(epochs=5), 2),
    "dense digits": (DENSE, 6),
    "digits as events": (configs.load("digits_events").replace(epochs=2), 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_price_holds_the_time_that_an_experiment_takes(name, tmp_path):
    config, seeds = EXPERIMENTS[name]
    cost = Experiment(config, ARMS, seeds=range(seeds)).price(tmp_path / "new")
    assert cost.seconds is not None and cost.memory
    low, high = cost.seconds
    began = time.perf_counter()
    Experiment(config, ARMS, seeds=range(seeds)).run(tmp_path / "new", console=QUIET)
    assert low < time.perf_counter() - began < high
