"""Model cards, the README.md of a network on the Hugging Face hub: what it is, and what was measured of it."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from csbp_jax import __version__
from csbp_jax.evaluation.published import CONFIG, WEIGHTS_LABELS
from csbp_jax.evaluation.restore import RestoredRun
from csbp_jax.reporting.intervals import wilson
from csbp_jax.runtime import files
from csbp_jax.training import run_json
from csbp_jax.training.plugins import COPY


def card(run: RestoredRun, source: pathlib.Path, repository: str, client: Any) -> str:
    """Return the card of a network.

    Accuracies are those of the run's ``result.json``; synaptic operations and energy are those of its ``inspect.json``,
    if that is of the same weights. What these files do not have is not on the card.

    Args:
      source: the run's folder.
      repository: ``USER/NAME``.
      client: the module huggingface_hub.

    Raises:
      ConfigError: ``result.json`` cannot be read.
    """
    result = run_json.read_result(source) if (source / "result.json").exists() else {}
    name, data = repository.partition("/")[2], _data(run)
    tasks = {**dict.fromkeys(("shd", "ssc", "fsdd"), "audio-classification"), "own": None}
    task = tasks.get(data, "image-classification")
    evaluations = []
    if run.weights_of in result:
        measured = result[run.weights_of]
        evaluations.append(
            client.EvalResult(
                task_type=task or "other",
                dataset_type=data,
                dataset_name=data,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=measured["test_accuracy"],
                metric_name=f"test accuracy, n = {measured['test_count']}",
            )
        )
    metadata = client.ModelCardData(
        library_name="csbp_jax",
        tags=["csbp_jax", "jax", "flax", "spiking-neural-network"],
        pipeline_tag=task,
        model_name=name,
        eval_results=evaluations or None,
    )
    lines = [*_description(run), "", "## Measured", "", *_accuracies(result, data), *_energy(run, source)]
    lines += ["", "Nothing else was measured.", "", "## Use", "", *_use(run, repository)]
    text = "\n".join(lines)
    return f"---\n{metadata.to_yaml()}\n---\n\n# {name}\n\n{text}\n"


def _data(run: RestoredRun) -> str:
    return "own" if run.own.data else run.config.data.name


def _description(run: RestoredRun) -> Iterator[str]:
    config, model = run.config, run.config.model
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"]))
    network = "with a network of its own" if run.own.model else f"`{model.name}`"
    data = "data of its own" if run.own.data else f"`{config.data.name}`"
    yield (
        f"A spiking neural network, {network}, {parameters:,} parameters, {model.time_steps} time steps, trained on "
        f"{data} with csbp_jax. Version {__version__} made this page."
    )
    yield ""
    yield f"- {_training(run)}"
    yield f"- In this repository: {WEIGHTS_LABELS[run.weights_of]} (epoch {run.epoch} of {config.epochs})."
    yield f"- Seed {config.seed}, one run."
    yield f"- All options are in `{CONFIG}`."
    if run.own.plugins:
        parts = ", ".join(run.own.plugins)
        yield f"- Code of its own ({parts}) is in `{COPY}`. It runs only with `trust=True`; read it first."


def _training(run: RestoredRun) -> str:
    chaos, epochs = run.config.chaos, f"{run.config.epochs} epochs"
    if not any(chaos.z0):
        return f"Training: backpropagation (z0 = 0), {epochs}."
    if chaos.term == "chaos" and chaos.substeps == 1 and not run.own.term:
        method = "chaotic spiking backpropagation"
    else:
        term = "a term of its own" if run.own.term else f"the term `{chaos.term}`"
        substeps = f" in {chaos.substeps} sub-steps" if chaos.substeps > 1 else ""
        method = f"backpropagation with {term}{substeps}"
    strengths, taps = ", ".join(f"{z0:g}" for z0 in chaos.z0), ", ".join(chaos.taps)
    return f"Training: {method}, z0 = {strengths} on {taps}, beta = {chaos.beta:g} per {chaos.anneal}, {epochs}."


def _accuracies(result: dict[str, Any], data: str) -> Iterator[str]:
    if not result:
        yield "The run is not finished; its test accuracy was not measured."
        return
    yield "| weights | epoch | test accuracy | 95 % interval | test loss | validation accuracy |"
    yield "|---|---|---|---|---|---|"
    for kind, label in WEIGHTS_LABELS.items():
        if kind in result:
            row = result[kind]
            low, high = wilson(round(row["test_accuracy"] * row["test_count"]), row["test_count"])
            accuracies = f"{row['test_accuracy']:.2%} | {low:.2%} to {high:.2%} | {row['test_loss']:.4g}"
            yield f"| {label} | {row['epoch']} | {accuracies} | {row['validation_accuracy']:.2%} |"
    yield ""
    yield f"Test split of `{data}`, {result['last']['test_count']:,} examples; Wilson intervals."


def _energy(run: RestoredRun, source: pathlib.Path) -> Iterator[str]:
    try:
        measured = files.read_json(source / "inspect.json")
        of_these_weights = (measured["weights_of"], measured["epoch"]) == (run.weights_of, run.epoch)
        lines = [
            f"Synaptic operations per example, mean of {measured['examples']} of the {measured['split']} split: "
            f"{measured['acs']:,.0f} accumulates, {measured['macs']:,.0f} multiply-accumulates.",
            f"Energy, estimated from these at {measured['ac_pj']} and {measured['mac_pj']} pJ (45 nm), without memory "
            f"access: {measured['energy_nj']:,.4g} nJ.",
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # not inspected, or by another version
        return
    if of_these_weights:
        yield from ("", *lines)


def _use(run: RestoredRun, repository: str) -> list[str]:
    model = run.config.model
    trust, option = (", trust=True", " --trust") if run.own.plugins else ("", "")
    shape = ", ".join(["B", f"{model.time_steps} or 1", *map(str, model.input_shape)])
    return [
        "```python",
        "import csbp_jax",
        "",
        f'apply, variables, config = csbp_jax.load("hf://{repository}"{trust})',
        f"logits, aux = apply(variables, x)  # x float32 [{shape}]",
        "```",
        "",
        "```sh",
        f"csbp_jax predict hf://{repository} FILE ...{option}",
        "```",
    ]
