"""Part 2: how strong the term must be before small nets are chaotic."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, dynamics, learner, models
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.reporting.plots import PALETTE, empty_figure
from experiments.release.common import STEPS, WARMUP, prepared, steps

RATIOS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 25.0)
SCALES = (1.0, 10.0)
# Of the digits' nets: the weakest ones again, ten times as long.
WEAK, LONG = RATIOS[1:7], 10


def small(dataset):
    """A small net of ours under the released optimiser; z in units of the flip."""
    return dataclasses.replace(
        configs.load(dataset),
        batch_size=16,
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",), unit="flip"),
    )


def measure(content, save, data_dir):
    """Exponents over flip ratios; those that are known are kept."""
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


def measured(config, ratios, data_dir, longer=1):
    """Of one net."""
    given, batch, steps_per_epoch = prepared(config, data_dir)
    unit = training_map.in_plain_units(given, batch, steps_per_epoch)
    run = training_map.make(unit, batch, steps_per_epoch)
    start, tap = run.start(0, True), given.chaos.taps[0]
    one = float(start.hparams["z0"][tap])
    summaries = []
    for ratio in ratios:
        z0 = {tap: jnp.asarray(ratio * one, start.hparams["z0"][tap].dtype)}
        state = dataclasses.replace(start, hparams=start.hparams | {"z0": z0})
        options = {"dynamical_leaves": learner.dynamical_leaves(state), "warmup": longer * WARMUP}
        summaries.append(dynamics.lyapunov(run.step, state, steps(batch, longer * STEPS), 1, **options))
    return {
        "ratios": list(ratios),
        "z_mean": [ratio * one for ratio in ratios],
        "elements": elements(unit, batch),
        "channels": unit.model.features[0],
        "exponents": [float(s[0][0]) for s in summaries],
        "stderr": [float(s[1][0]) for s in summaries],
    }


def merged(known, new):
    """Both, in the order of their ratios."""
    order = np.argsort(known["ratios"] + new["ratios"])
    lists = ("ratios", "z_mean", "exponents", "stderr")
    return new | {name: [(known.get(name, []) + new[name])[i] for i in order] for name in lists}


def elements(config, batch):
    """How many the tapped tensor has."""
    model, sizes = models.build(config.model), []

    def size(tensor):
        sizes.append(tensor.size)
        return jnp.float32(0)

    jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), batch["x"], True, tap=size, taps=config.chaos.taps)
    )
    return sizes[0]


def smallest(found):
    """Place of the smallest strength that is chaotic, None where none is."""
    floor = found["exponents"][0] + 4 * found["stderr"][0]
    for i, (value, error) in enumerate(zip(found["exponents"], found["stderr"], strict=True)):
        if i and value > max(4 * error, floor):
            return i
    return None


def rows(content):
    """In Markdown."""
    lines = ["| net, from which z on it is chaotic | z, mean | z, neuron | z, sum | flip ratio | exponent there |"]
    lines += ["|---" * 6 + "|"]
    for name, found in content["small"].items():
        i = smallest(found)
        if i is None:
            lines.append(f"| {name} | none up to {found['z_mean'][-1]:.3g} | | | {found['ratios'][-1]:g} | |")
            continue
        z = found["z_mean"][i]
        cells = [f"{z:.3g}", f"{z / found['channels']:.3g}", f"{z / found['elements']:.3g}"]
        cells += [f"{found['ratios'][i]:g}", f"{found['exponents'][i]:.3f} ± {found['stderr'][i]:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    longer = [(name, found["long"]) for name, found in content["small"].items() if "long" in found]
    if longer:
        ratios = longer[0][1]["ratios"]
        lines += ["", f"| exponent over {LONG} times as many steps, at flip ratio | {' | '.join(map(str, ratios))} |"]
        lines += ["|---" * (1 + len(ratios)) + "|"]
    for name, found in longer:
        pairs = zip(found["exponents"], found["stderr"], strict=True)
        lines.append(f"| {name} | {' | '.join(f'{value:.3f} ± {error:.3f}' for value, error in pairs)} |")
    return lines


def draw(content, out):
    """Exponents over flip ratios."""
    figure = empty_figure(6, 4)
    axes = figure.subplots()
    for i, (name, found) in enumerate(content["small"].items()):
        axes.errorbar(
            found["ratios"],
            found["exponents"],
            yerr=2 * np.array(found["stderr"]),
            fmt=".-",
            color=PALETTE[i],
            label=name,
        )
    axes.axhline(0, color="black", lw=0.8)
    axes.axvline(1, color="black", lw=0.8, ls=":")
    axes.set_xscale("symlog", linthresh=0.001)
    axes.set_xlim(left=-0.0002)
    axes.set(xlabel="flip ratio of the term at the start", ylabel="largest exponent (nats a step), 2 standard errors")
    axes.legend(fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"small.{kind}", dpi=120)
