"""Train the networks that ship with the package: ``python -m tools.make_shipped [NAME ...]``.

For each NAME, a preset whose data ship as well, this is ``csbp_jax train NAME`` with seed 0. The directory
``csbp_jax/weights/trained/NAME`` then holds the network as a published one (csbp_jax/runs/published.py), with the
weights of its last epoch in float32, their accuracy on the validation and test splits, and a card that states all this.
About two minutes on two cores.
"""

import pathlib
import sys
import tempfile

import jax

import csbp_jax
from csbp_jax import configs
from csbp_jax.evaluation.evaluate import evaluate_run
from csbp_jax.export import export
from csbp_jax.runs import published
from csbp_jax.runtime import seals
from csbp_jax.runtime.files import write_json
from csbp_jax.training import run_json
from experiments.study import provenance

TRAINED = pathlib.Path(__file__).parent.parent / "csbp_jax" / "weights" / "trained"
NAMES = ("digits", "digits_events")
NUMBERS = ("count", "accuracy", "nll", "ece", "rates")

CARD = """\
# {name}

{summary}

- Training: `csbp_jax train {name}`: {epochs} epochs of CSBP with z0 = {z0}, seed {seed}. Weights of the
  last epoch.
- Network: `{network}` with features {features}, {time_steps} time steps; {parameters:,} numbers in float32, as training
  left them.
- Input: {input}.
- Data: the digits that ship with the package, with their split (`csbp_jax/data/DIGITS.md`, CC BY 4.0). The same writers
  occur in the training and test splits, so that digits by others are harder.

| split | examples | accuracy | negative log-likelihood (nats) | calibration error |
|---|---|---|---|---|
{rows}

This is one seed, to try the commands with; `docs/results/presets/{name}` compares CSBP with plain backpropagation.

Made by `{command}` at commit {commit}, with {versions}; {machine}.
"""
SUMMARY = {
    "digits": "A small convolutional spiking network that classifies 8x8 images of handwritten digits.",
    "digits_events": "A small convolutional spiking network that classifies recordings of digits by an event camera.",
}
INPUT = {
    "digits": "a grey 8x8 image, light digit on dark ground, brightness in [0, 1]",
    "digits_events": "10 frames of 30 ms with counts of OFF and ON events, 16x16x2",
}


def make(name: str, root: pathlib.Path) -> None:
    """Train one network and write its directory."""
    config = configs.load(name)
    result = csbp_jax.train(config, name=name, root=root)
    run, folder = root / name, TRAINED / name
    folder.mkdir(parents=True, exist_ok=True)
    export(run, "safetensors", folder / published.WEIGHTS)
    content = run_json.read_config(run) | {"weights_of": "last", "epoch": result["last"]["epoch"]}
    seals.write_json(folder / published.CONFIG, content | {"producer": f"csbp_jax {csbp_jax.__version__}"})
    splits = {split: evaluate_run(run, split=split) for split in ("validation", "test")}
    numbers = {split: {key: measured[key] for key in NUMBERS} for split, measured in splits.items()}
    origin = provenance(f"python -m tools.make_shipped {name}", ("jax", "jaxlib", "flax", "optax", "numpy"))
    accuracy = {"epoch": result["last"]["epoch"], "seed": config.seed, **numbers, "seconds": result["seconds"]}
    write_json(folder / "accuracy.json", accuracy | origin)
    _, variables, _ = csbp_jax.load(run)
    rows = [
        f"| {split} | {row['count']} | {row['accuracy']:.2%} | {row['nll']:.4f} | {row['ece']:.2%} |"
        for split, row in numbers.items()
    ]
    text = CARD.format(
        name=name,
        summary=SUMMARY[name],
        input=INPUT[name],
        epochs=config.epochs,
        z0=config.chaos.z0[0],
        seed=config.seed,
        network=config.model.name,
        features=config.model.features,
        time_steps=config.model.time_steps,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(variables)),
        rows="\n".join(rows),
        command=origin["command"],
        commit=origin.get("commit", "unknown"),
        versions=", ".join(f"{package} {version}" for package, version in origin["versions"].items()),
        machine=origin["machine"],
    )
    (folder / "card.md").write_text(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        for argument in sys.argv[1:] or NAMES:
            make(argument, pathlib.Path(directory))
