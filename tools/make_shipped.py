"""Train the networks that ship with the package: ``python -m tools.make_shipped [NAME ...] [--data-dir DIR]``.

For each NAME, a preset, this is ``csbp_jax train NAME`` with seed 0. The directory ``csbp_jax/weights/trained/NAME``
then holds the network as a published one (csbp_jax/runs/published.py), with the weights of its last epoch in float32,
the accuracy of that file on the validation and test splits, and a card that states all this, with the test accuracy of
the epoch that validation chose. Of the default names the data ship as well, and they take two minutes on two cores;
``cifar10_tiny`` needs CIFAR-10 and takes some ten. A run in ``--runs`` is resumed.
"""

import argparse
import pathlib
import tempfile

import jax

import csbp_jax
from csbp_jax import configs
from csbp_jax.evaluation.evaluate import evaluate_run
from csbp_jax.export import export
from csbp_jax.runs import published, restore
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
- Network: `{network}` with features {features}, {time_steps} time step{s}; {parameters:,} numbers in float32, as
  training left them.
- Input: {input}.
- Data: {data}

| split | examples | accuracy | negative log-likelihood (nats) | calibration error |
|---|---|---|---|---|
{rows}

Measured on this file. The epoch that validation chose, {chosen_epoch}, has a test accuracy of {chosen:.2%}.

This is one seed, to try the commands with; {study}.

Made by `{command}` at commit {commit}, with {versions}; {machine}.
"""
DIGITS = """\
the digits that ship with the package, with their split (`csbp_jax/data/DIGITS.md`, CC BY 4.0). The same writers
  occur in the training and test splits, so that digits by others are harder."""
COMPARED = "`docs/results/{}` compares CSBP with plain backpropagation"
WORDS = {
    "digits": {
        "summary": "A small convolutional spiking network that classifies 8x8 images of handwritten digits.",
        "input": "a grey 8x8 image, light digit on dark ground, brightness in [0, 1]",
        "data": DIGITS,
        "study": COMPARED.format("digits"),
    },
    "digits_events": {
        "summary": "A small convolutional spiking network that classifies recordings of digits by an event camera.",
        "input": "10 frames of 30 ms with counts of OFF and ON events, 16x16x2",
        "data": DIGITS,
        "study": COMPARED.format("digits_events"),
    },
    "cifar10_tiny": {
        "summary": "A small convolutional network of integer spiking neurons (0 to 4 spikes in its one time step) that "
        "classifies\n32x32 colour images: airplane, automobile, bird, cat, deer, dog, frog, horse, ship or truck.",
        "input": "an RGB 32x32 image, bytes / 255, normalised by the published means and deviations of CIFAR-10",
        "data": """\
the images of CIFAR-10, once re-encoded as JPEG and in another order; a tenth of the training split is the
  validation split. They are a little harder than the original: the numbers below are of these images, **and not to be
  quoted as results on CIFAR-10**. The images come without a stated licence, and none is part of this package.""",
        "study": "no other condition was trained, so that nothing is said about what the chaos term does",
    },
}


def make(name: str, root: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Train one network and write its directory."""
    config = configs.load(name)
    result = csbp_jax.train(config, name=name, root=root, data_dir=data_dir)
    run, folder = root / name, TRAINED / name
    folder.mkdir(parents=True, exist_ok=True)
    export(run, "safetensors", folder / published.WEIGHTS)
    content = run_json.read_config(run) | {"weights_of": "last", "epoch": result["last"]["epoch"]}
    seals.write_json(folder / published.CONFIG, content | {"producer": f"csbp_jax {csbp_jax.__version__}"})
    restored = restore.restore(folder)._replace(folder=root / "shipped" / name)
    splits = {split: evaluate_run(restored, split=split, data_dir=data_dir) for split in ("validation", "test")}
    numbers = {split: {key: measured[key] for key in NUMBERS} for split, measured in splits.items()}
    origin = provenance(f"python -m tools.make_shipped {name}", ("jax", "jaxlib", "flax", "optax", "numpy"))
    chosen = {key: result["chosen"][key] for key in ("epoch", "validation_accuracy", "test_accuracy")}
    accuracy = {"epoch": result["last"]["epoch"], "seed": config.seed, **numbers, "chosen": chosen}
    write_json(folder / "accuracy.json", accuracy | {"seconds": result["seconds"]} | origin)
    rows = [
        f"| {split} | {row['count']} | {row['accuracy']:.2%} | {row['nll']:.4f} | {row['ece']:.2%} |"
        for split, row in numbers.items()
    ]
    text = CARD.format(
        name=name,
        **WORDS[name],
        epochs=config.epochs,
        z0=config.chaos.z0[0],
        seed=config.seed,
        network=config.model.name,
        features=config.model.features,
        time_steps=config.model.time_steps,
        s="s" * (config.model.time_steps > 1),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(restored.variables)),
        rows="\n".join(rows),
        chosen_epoch=chosen["epoch"],
        chosen=chosen["test_accuracy"],
        command=origin["command"],
        commit=origin.get("commit", "unknown"),
        versions=", ".join(f"{package} {version}" for package, version in origin["versions"].items()),
        machine=origin["machine"],
    )
    (folder / "card.md").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"of {', '.join(WORDS)}")
    parser.add_argument("--data-dir", type=pathlib.Path, default=pathlib.Path("data"))
    parser.add_argument("--runs", type=pathlib.Path, help="where runs are kept and resumed; default: not kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for name in options.names:
            make(name, options.runs or pathlib.Path(directory), options.data_dir)


if __name__ == "__main__":
    main()
