"""Run the plan of docs/results/network_chaos/plan.md: are the membranes and spikes of networks chaotic?

    python -m experiments.network_chaos [--data-dir data] [--seeds 5] [--out docs/results/network_chaos]

Each preset is an experiment of its own in ``runs/network_chaos``. Finished runs are not repeated.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas
from matplotlib.figure import Figure
from numpy.typing import NDArray

from csbp_jax import Experiment, learner, models
from csbp_jax.configs import load
from csbp_jax.experiment import Training
from csbp_jax.instruments import network_exponents
from csbp_jax.reporting.plots import PALETTE, empty_figure
from csbp_jax.training.callbacks import Trainer
from csbp_jax.training.compiled import compile_run
from experiments import study
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.network_chaos"
STRENGTHS = {"digits": 10.0, "digits_sequential": 3.0, "fsdd": 0.3}
"""The strength of the chaos term of each preset, in the arm that has one."""
EPOCHS = (1, 3, 10)
"""After which the exponents are measured, beside the start and the last epoch."""
RECORDS, STEPS_OF_PICTURE, WARMUP = 8, 100, 10
"""Sequences, the time steps of one that is a picture, and the time steps that are not counted."""
DELTAS = {"small": 1e-6, "large": 1.0}
"""Sizes of the real differences."""
MEASURES = ("tangent", *DELTAS)


class Exponents:
    """A callback that measures the exponents of the networks of all members."""

    name = "network"

    def start(self, trainer: Trainer) -> None:
        """Measure the initial weights."""
        self.initial = self.measured(trainer)

    def __call__(self, trainer: Trainer, row: Mapping[str, Any]) -> dict[str, Any]:
        """Measure after some epochs, and after the first return the measures of the start, too."""
        measured: dict[str, Any] = {}
        if row["epoch"] == 1:
            measured |= {f"start_{name}": values for name, values in self.initial.items()}
        if row["epoch"] in (*EPOCHS, trainer.config.epochs):
            measured |= self.measured(trainer)
        return measured

    def measured(self, trainer: Trainer) -> dict[str, NDArray[Any]]:
        """Return the exponents of each member, ``{measure: [K]}``: means over the sequences."""
        x, state = sequences(trainer), trainer.state
        assert state is not None
        network, variables = models.build(trainer.config.model), learner.weights_of(state)
        rows = []
        for member in range(len(trainer.configs)):
            of_member = jax.tree.map(lambda leaf, at=member: leaf[at], variables)
            of = network_exponents(network, x, of_member, deltas=tuple(DELTAS.values()), warmup=WARMUP)
            growth = np.mean(of.finite_size.exponents, axis=0)
            rows.append([np.mean(of.tangent.exponents), *growth])
        return dict(zip(MEASURES, np.transpose(rows), strict=True))


def sequences(trainer: Trainer) -> NDArray[Any]:
    """Return validation records ``[RECORDS, T, ...]`` as the network gets them."""
    source = trainer.splits["validation"]
    rows = np.linspace(0, len(source) - 1, RECORDS).astype(int)
    batch = source.take(rows, np.zeros((len(rows), source.num_uniforms), np.float32))
    run = compile_run(trainer.configs[0], trainer.splits["train"], 1)
    x = np.asarray(run.prepare_eval(jax.random.key(0), jax.tree.map(jnp.asarray, batch))["x"])
    return np.repeat(x, STEPS_OF_PICTURE, axis=1) if x.shape[1] == 1 else x


def experiment(preset: str, data_dir: str, seeds: int) -> Experiment:
    """Both arms of a preset."""
    arms = {"CSBP": {"chaos.z0": STRENGTHS[preset]}, "plain": {"chaos.z0": 0.0}}
    return Experiment(Training(load(preset), data_dir=data_dir), arms, seeds=range(seeds))


def summary(runs: pandas.DataFrame, curves: pandas.DataFrame) -> Content:
    """Return ``{arm: {"test": accuracies, "epochs": {epoch: {measure: values}}}}``, of seeds in order.

    Args:
      runs: the table of runs.
      curves: their epochs.
    """
    content: Content = {}
    for arm, of_arm in curves.groupby("arm"):
        of_epochs: Content = {}
        first = of_arm[of_arm["epoch"] == 1].sort_values("seed")
        of_epochs["0"] = {name: first[f"network.start_{name}"].tolist() for name in MEASURES}
        measured = of_arm[of_arm["network.tangent"].notna()]
        for epoch, rows in measured.groupby("epoch"):
            in_order = rows.sort_values("seed")
            of_epochs[str(epoch)] = {name: in_order[f"network.{name}"].tolist() for name in MEASURES}
        tests = runs[runs["arm"] == arm].sort_values("seed")["last_test_accuracy"]
        content[str(arm)] = {"test": tests.tolist(), "epochs": of_epochs}
    return content


def cell(values: Sequence[float]) -> str:
    """Format a mean with its interval, such as ``-0.11 [-0.12, -0.10]``."""
    mean, low, high = student_dict(np.asarray(values)).values()
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def page(content: Content) -> str:
    """Return a row for each preset, arm and time, and the differences after the last epoch, in Markdown."""
    rows, differences = [], []
    for preset, arms in content["presets"].items():
        for arm, of_arm in arms.items():
            for epoch, measures in of_arm["epochs"].items():
                rows.append([f"`{preset}`", arm, epoch, *(cell(measures[name]) for name in MEASURES)])
        last = max(arms["CSBP"]["epochs"], key=int)
        csbp, plain = (arms[arm]["epochs"][last] for arm in ("CSBP", "plain"))
        differences.append([f"`{preset}`", *(cell(np.subtract(csbp[name], plain[name])) for name in MEASURES)])
    head = ["preset", "arm", "epoch", "tangent", "small difference", "large difference"]
    return "\n".join(
        [
            study.table(head, rows),
            "",
            "CSBP less plain after the last epoch, paired by seeds:",
            "",
            study.table(["preset", *head[3:]], differences),
        ]
    )


def draw(content: Content) -> Figure:
    """Draw the growth of a large difference over the epochs of each preset: the mean, and each seed."""
    figure = empty_figure(11, 3.6)
    all_axes = figure.subplots(1, len(content["presets"]), squeeze=False)[0]
    for axes, (preset, arms) in zip(all_axes, content["presets"].items(), strict=True):
        for color, (arm, of_arm) in zip(PALETTE, arms.items(), strict=False):
            epochs = [int(epoch) for epoch in of_arm["epochs"]]
            values = np.array([of_epoch["large"] for of_epoch in of_arm["epochs"].values()])
            axes.plot(epochs, values, ".", color=color, alpha=0.5)
            axes.plot(epochs, values.mean(axis=1), "-", color=color, label=arm)
        axes.axhline(0, color="black", lw=0.8)
        axes.set(title=preset, xlabel="epoch", xscale="symlog")
    all_axes[0].set_ylabel("growth of a large difference\n(nats per time step)")
    all_axes[0].legend()
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all presets, writing the results of those that are finished after each."""
    parser = study.make_parser(__doc__, "network_chaos", data_dir=True, seeds=5)
    options = parser.parse_args(arguments)
    packages = ("jax", "flax", "optax", "numpy")
    content: Content = {"presets": {}} | study.provenance(f"python -m {MODULE} --seeds {options.seeds}", packages)
    with study.one_line_errors(parser):
        for preset in STRENGTHS:
            folder = study.WORK / "network_chaos" / preset
            table = experiment(preset, options.data_dir, options.seeds).run(folder, callbacks=[Exponents()])
            content["presets"][preset] = summary(table.frame, pandas.read_csv(folder / "epochs.csv"))
            study.write(options.out, "network_chaos", content, page(content))
            study.save_figure(draw(content), options.out, "network_chaos")


if __name__ == "__main__":
    study.run(main)
