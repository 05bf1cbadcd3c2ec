"""Is the released experiment chaotic, and how strong must the term be? Runs the plan of docs/results/release/plan.md.

    python -m experiments.release [--part cnn7|small] [--data-dir data] [--out docs/results/release]

What is measured is kept in ``release.json`` and not measured again. MNIST must have been prepared (make data).
"""

import argparse
import dataclasses
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, data, dynamics, lab, learner, meter, models
from csbp_jax.config import Chaos, Data, Optimizer, replaced
from csbp_jax.figures import PALETTE, blank
from csbp_jax.program import resolve
from csbp_jax.report import write_json
from experiments.machine import about

STEPS, WARMUP, FEW, DELTA = 300, 100, 20, 1e-2
RATIOS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0, 10.0, 15.0, 25.0)
SCALES = (1.0, 10.0)


def released():
    """The released config, on the recordings that are at hand."""
    config = configs.load("cifar10_dvs_tebn_cnn7")
    frames = Data(name="digits_events", bins="time", size=(48, 48), resize="antialias")
    return dataclasses.replace(config, batch_size=8, data=frames)


def small(dataset):
    """A small net of ours under the released optimiser; z in units of the flip."""
    return dataclasses.replace(
        configs.load(dataset),
        batch_size=16,
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.9, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("conv1.membrane",), unit="flip"),
    )


def prepared(config, data_dir):
    """``(config, batch, steps an epoch)``."""
    parts = data.load(config, data_dir)
    config = resolve(config, parts)
    return config, lab.batches(config, parts["train"], 1)[0], len(parts["train"]) // config.batch_size


def steps(batch, count=STEPS):
    return itertools.repeat(batch, count)


def measure_cnn7(content, save, data_dir):
    """Part 1, quantity by quantity."""
    given, batch, steps_per_epoch = prepared(released(), data_dir)
    for name, config in (("as released", given), ("z = 0", replaced(given, "chaos.z0", (0.0,)))):
        found, run = content.setdefault("cnn7", {}).setdefault(name, {}), lab.make(config, batch, steps_per_epoch)
        start = run.start(0, True)
        later, step = start, jax.jit(run.step)
        for _ in range(FEW):
            later = step(later, batch)
        places = {"start": start, f"after {FEW} steps": later}
        for (when, state), part in itertools.product(places.items(), meter.PARTS):
            ratios = found.setdefault("flip_ratio", {}).setdefault(when, {})
            if part not in ratios:
                ratios[part] = run.flip_ratio(part, state, batch)
                save(f"{name}, flip ratio {when}, {part}")
        if "tangent" not in found:
            every = dynamics.lyapunov(run.step, start, steps(batch), 1, fed_back=learner.fed_back(start), warmup=WARMUP)
            found["tangent"] = told(every)
            save(f"{name}, tangent exponent")
        if "finite" not in found:
            options = {"fed_back": lab.signed(start), "warmup": WARMUP}
            size = dynamics.finite_size(run.step, start, steps(batch), jnp.array([DELTA]), **options)
            found["finite"] = {"delta": DELTA} | told(size)
            save(f"{name}, exponent at distance {DELTA:g}")


def told(summary):
    """Exponent, its standard error and the local ones; None where a number is not finite."""
    exponent, stderr, local = (np.asarray(part, float)[..., 0].tolist() for part in summary)
    kept = {"exponent": exponent, "stderr": stderr} if np.isfinite(exponent) else {"exponent": None, "stderr": None}
    return kept | {"local": [value if np.isfinite(value) else None for value in local]}


def measure_small(content, save, data_dir):
    """Part 2: exponents over flip ratios."""
    for dataset, scale in itertools.product(("digits", "mnist"), SCALES):
        found = content.setdefault("small", {}).setdefault(f"{dataset}, k = {scale:g}", {})
        if "exponents" in found:
            continue
        given, batch, steps_per_epoch = prepared(replaced(small(dataset), "chaos.scale", scale), data_dir)
        unit = lab.in_plain_units(given, batch, steps_per_epoch)
        run = lab.make(unit, batch, steps_per_epoch)
        start, tap = run.start(0, True), given.chaos.taps[0]
        one = float(start.hparams["z0"][tap])
        summaries = []
        for ratio in RATIOS:
            z0 = {tap: jnp.asarray(ratio * one, start.hparams["z0"][tap].dtype)}
            state = dataclasses.replace(start, hparams=start.hparams | {"z0": z0})
            fed_back = learner.fed_back(state)
            summaries.append(dynamics.lyapunov(run.step, state, steps(batch), 1, fed_back=fed_back, warmup=WARMUP))
        found |= {
            "ratios": list(RATIOS),
            "z_mean": [ratio * one for ratio in RATIOS],
            "elements": elements(unit, batch),
            "channels": unit.model.features[0],
            "exponents": [float(s[0][0]) for s in summaries],
            "stderr": [float(s[1][0]) for s in summaries],
        }
        save(f"{dataset}, k = {scale:g}")


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


def page(content):
    """Both parts in Markdown."""
    rows = []
    if "cnn7" in content:
        rows += [
            "| CNN7 | flip ratio of the term | of the task | of both | exponent (nats a step) | at distance 1e-2 |"
        ]
        rows += ["|---|---|---|---|---|---|"]
        for name, found in content["cnn7"].items():
            for when, ratios in found["flip_ratio"].items():
                ratio = [f"{ratios[part]:.3g}" for part in ("chaos", "task", "both")]
                cells = [told_exponent(found.get(key)) if when == "start" else "" for key in ("tangent", "finite")]
                rows.append(f"| {name}, {when} | {' | '.join(ratio + cells)} |")
        rows += [""]
    if "small" in content:
        rows += ["| net, from which z on it is chaotic | z, mean | z, neuron | z, sum | flip ratio | exponent there |"]
        rows += ["|---|---|---|---|---|---|"]
        for name, found in content["small"].items():
            i = smallest(found)
            if i is None:
                rows.append(f"| {name} | none up to {found['z_mean'][-1]:.3g} | | | {found['ratios'][-1]:g} | |")
                continue
            z = found["z_mean"][i]
            cells = [f"{z:.3g}", f"{z / found['channels']:.3g}", f"{z / found['elements']:.3g}"]
            cells += [f"{found['ratios'][i]:g}", f"{found['exponents'][i]:.3f} ± {found['stderr'][i]:.3f}"]
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def told_exponent(found):
    if found is None:
        return "not run"
    return "not finite" if found["exponent"] is None else f"{found['exponent']:+.4f} ± {found['stderr']:.4f}"


def draw(content, out):
    """Exponents over flip ratios."""
    figure = blank(6, 4)
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
    axes.set_xscale("symlog", linthresh=0.25)
    axes.set_xlim(left=-0.05)
    axes.set(xlabel="flip ratio of the term at the start", ylabel="largest exponent (nats a step), 2 standard errors")
    axes.legend(fontsize="small")
    for kind in ("png", "pdf"):
        figure.savefig(out / f"small.{kind}", dpi=120)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--part", choices=("cnn7", "small"))
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/release"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "release.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    content |= {
        **about(),
    }

    def save(what):
        write_json(file, content)
        print(f"measured: {what}", flush=True)

    for part, measure in (("small", measure_small), ("cnn7", measure_cnn7)):
        if options.part in (None, part):
            measure(content, save, options.data_dir)
    if "small" in content:
        draw(content, options.out)
    (options.out / "table.md").write_text(page(content) + "\n")
    print(page(content))


if __name__ == "__main__":
    main()
