"""Part 2: the strength of the term at which small nets become chaotic."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, dynamics, learner, models
from csbp_jax.config import Chaos, Config, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments import study
from experiments.release.common import STEPS, WARMUP, prepared, steps
from experiments.study import Content

RATIOS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 25.0)
SCALES = (1.0, 10.0)
# Ratios that are measured again on the digits' nets, ten times as long.
WEAK, LONG = RATIOS[1:7], 10


def small(dataset: str) -> Config:
    """A small net under the released optimiser."""
    return dataclasses.replace(
        configs.load(dataset),
        batch_size=16,
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",)),
    )


def measure(content: Content, save: Callable[[str], None], data_dir: str) -> None:
    """Measure exponents over the flip ratios that are missing."""
    for dataset, scale in itertools.product(("digits", "mnist"), SCALES):
        name, config = f"{dataset}, k = {scale:g}", replaced(small(dataset), "chaos.scale", scale)
        known = content.setdefault("small", {}).setdefault(name, {"ratios": [], "exponents": [], "stderr": []})
        missing = [ratio for ratio in RATIOS if ratio not in known["ratios"]]
        if missing:
            content["small"][name] = known | merged(known, measured(config, missing, data_dir))
            save(name)
        if dataset == "digits" and "long" not in content["small"][name]:
            content["small"][name]["long"] = measured(config, WEAK, data_dir, LONG)
            save(f"{name}, long")


def measured(config: Config, ratios: Sequence[float], data_dir: str, longer: int = 1) -> Content:
    """Exponents of a net at each flip ratio, over ``longer`` times as many steps."""
    config, batch, steps_per_epoch = prepared(config, data_dir)
    unit = training_map.at_flip_ratio(config, 1.0, batch, steps_per_epoch)
    run = training_map.make(unit, batch, steps_per_epoch)
    start, tap = run.start(0, True), config.chaos.taps[0]
    flip = float(start.hparams["z0"][tap])
    summaries = []
    for ratio in ratios:
        z0 = {tap: jnp.asarray(ratio * flip, start.hparams["z0"][tap].dtype)}
        state = dataclasses.replace(start, hparams=start.hparams | {"z0": z0})
        options: dict[str, Any] = {"dynamical_leaves": learner.dynamical_leaves(state), "warmup": longer * WARMUP}
        summaries.append(dynamics.lyapunov(run.step, state, steps(batch, longer * STEPS), 1, **options))
    return {
        "ratios": list(ratios),
        "z_mean": [ratio * flip for ratio in ratios],
        "elements": elements(unit, batch),
        "channels": (unit.model.features or ())[0],
        "exponents": [float(s[0][0]) for s in summaries],
        "stderr": [float(s[1][0]) for s in summaries],
    }


def merged(known: Content, new: Content) -> Content:
    """Known and new results in the order of their ratios."""
    order = np.argsort(known["ratios"] + new["ratios"])
    lists = ("ratios", "z_mean", "exponents", "stderr")
    return new | {name: [(known.get(name, []) + new[name])[i] for i in order] for name in lists}


def elements(config: Config, batch: Mapping[str, Any]) -> int:
    """Number of elements of the tapped tensor."""
    model, sizes = models.build(config.model), list[int]()

    def size(tensor):
        sizes.append(tensor.size)
        return jnp.float32(0)

    jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), batch["x"], True, tap=size, taps=config.chaos.taps)
    )
    return sizes[0]


def smallest(result: Mapping[str, Any]) -> int | None:
    """Index of the smallest chaotic strength, or None.

    Chaotic: an exponent above four standard errors, and above that without the term by four of its standard errors.
    """
    floor = result["exponents"][0] + 4 * result["stderr"][0]
    for i, (value, error) in enumerate(zip(result["exponents"], result["stderr"], strict=True)):
        if i and value > max(4 * error, floor):
            return i
    return None


def rows(content: Content) -> list[str]:
    """Lines of the tables in Markdown."""
    head = ["net, from which z on it is chaotic", "z, mean", "z, neuron", "z, sum", "flip ratio", "exponent there"]
    body = []
    for name, result in content["small"].items():
        i = smallest(result)
        if i is None:
            body.append([name, f"none up to {result['z_mean'][-1]:.3g}", "", "", f"{result['ratios'][-1]:g}", ""])
            continue
        z = result["z_mean"][i]
        cells = [f"{z:.3g}", f"{z / result['channels']:.3g}", f"{z / result['elements']:.3g}"]
        cells += [f"{result['ratios'][i]:g}", f"{result['exponents'][i]:.3f} ± {result['stderr'][i]:.3f}"]
        body.append([name, *cells])
    lines = study.table(head, body).splitlines()
    longer = {name: result["long"] for name, result in content["small"].items() if "long" in result}
    if not longer:
        return lines
    ratios = next(iter(longer.values()))["ratios"]
    body = []
    for name, result in longer.items():
        pairs = zip(result["exponents"], result["stderr"], strict=True)
        body.append([name, *(f"{value:.3f} ± {error:.3f}" for value, error in pairs)])
    head = [f"exponent over {LONG} times as many steps, at flip ratio", *map(str, ratios)]
    return [*lines, "", *study.table(head, body).splitlines()]


def draw(content: Content, out: pathlib.Path) -> None:
    """Draw exponents over flip ratios."""
    figure = empty_figure(6, 4)
    axes = figure.subplots()
    for i, (name, result) in enumerate(content["small"].items()):
        spread = 2 * np.array(result["stderr"])
        style = {"fmt": ".-", "color": PALETTE[i], "label": name}
        axes.errorbar(result["ratios"], result["exponents"], yerr=spread, **style)
    axes.axhline(0, color="black", lw=0.8)
    axes.axvline(1, color="black", lw=0.8, ls=":")
    axes.set_xscale("symlog", linthresh=0.001)
    axes.set_xlim(left=-0.0002)
    axes.set_xlabel("flip ratio of the term at the start")
    axes.set_ylabel("largest exponent (nats per step),\n2 standard errors")
    axes.legend(fontsize="small")
    study.save_figure(figure, out, "small")
