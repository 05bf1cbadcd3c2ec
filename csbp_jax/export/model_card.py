"""Model cards, the README.md of a network on the Hugging Face hub: what it is, and what was measured of it."""

import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jinja2

from csbp_jax import __version__
from csbp_jax.learner.measures import PRIMARY
from csbp_jax.reporting import measures
from csbp_jax.reporting.format import energy
from csbp_jax.reporting.statistics import wilson
from csbp_jax.runs import Run
from csbp_jax.runs.published import CONFIG, WEIGHTS_LABELS
from csbp_jax.runs.restore import RestoredRun
from csbp_jax.runtime import files
from csbp_jax.training.plugins import COPY


def card(run: RestoredRun, source: pathlib.Path, repository: str, client: Any) -> str:
    """Return the card of a network.

    Measures are those of the run's ``result.json``; synaptic operations and energy are those of its ``inspect.json``,
    if that is of the same weights. What these files do not have is not on the card.

    Args:
      source: the run's folder.
      repository: ``USER/NAME``.
      client: the module huggingface_hub.

    Raises:
      ConfigError: the run's files cannot be read.
    """
    result = Run.read(source).result or {}
    name, data = repository.partition("/")[2], "own" if run.own.data else run.config.data.name
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("csbp_jax.export", ""),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return templates.get_template("model_card.md.jinja").render(
        metadata=_metadata(run, result, name, data, client),
        name=name,
        repository=repository,
        run=run,
        config=run.config,
        data=data,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(run.variables["params"])),
        training=_training(run),
        labels=WEIGHTS_LABELS,
        result=result,
        measure=measures.MEASURES[PRIMARY[run.config.loss.task]].label,
        measured=list(_measured(result, run.config.loss.per == "example")) if result else [],
        energy=_energy(run, source),
        file=CONFIG,
        code=COPY,
        version=__version__,
    )


def _metadata(run: RestoredRun, result: dict[str, Any], name: str, data: str, client: Any) -> str:
    tasks = {
        **dict.fromkeys(("shd", "ssc", "fsdd"), "audio-classification"),
        **dict.fromkeys(("own", "watch", "omniglot_strokes"), None),
    }
    task = tasks.get(data, "image-classification") if run.config.loss.task == "class" else None
    measured = result.get(run.weights_of, {})
    evaluations = [
        client.EvalResult(
            task_type=task or "other",
            dataset_type=data,
            dataset_name=data,
            dataset_split="test",
            metric_type=measure,
            metric_value=measured[f"test_{measure}"],
            metric_name=f"test {measures.MEASURES[measure].label}, n = {measured['test_count']}",
        )
        for measure in measures.names(measured)
    ]
    return client.ModelCardData(
        library_name="csbp_jax",
        tags=["csbp_jax", "jax", "flax", "spiking-neural-network"],
        pipeline_tag=task,
        model_name=name,
        eval_results=evaluations or None,
    ).to_yaml()


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


def _measured(result: dict[str, Any], independent: bool) -> Iterator[dict[str, str]]:
    """Yield the cells of each kind of weights by column; with intervals if examples are ``independent``."""
    tested = measures.names(result["last"])
    for kind, label in WEIGHTS_LABELS.items():
        if numbers := result.get(kind):
            texts = {
                split: {
                    measures.words(f"{split}_{name}"): measures.of(name).text(numbers[f"{split}_{name}"])
                    for name in tested
                }
                for split in ("test", "validation")
            }
            row = {"weights": label, "epoch": str(numbers["epoch"]), **texts["test"]}
            if independent and "accuracy" in tested:
                low, high = wilson(round(numbers["test_accuracy"] * numbers["test_count"]), numbers["test_count"])
                row["95 % interval"] = f"{low:.2%} to {high:.2%}"
            yield row | {"test loss": f"{numbers['test_loss']:.4g}"} | texts["validation"]


def _energy(run: RestoredRun, source: pathlib.Path) -> str:
    """Return two lines, or nothing if the weights were not inspected, or by another version."""
    try:
        measured = files.read_json(source / "inspect.json")
        lines = (
            f"Synaptic operations per example, mean of {measured['examples']} of the {measured['split']} split: "
            f"{measured['acs']:,.0f} accumulates, {measured['macs']:,.0f} multiply-accumulates.\n"
            f"Energy, estimated from these at {measured['ac_pj']} and {measured['mac_pj']} pJ (45 nm), without memory "
            f"access: {energy(measured['energy_nj'])}."
        )
        return lines if (measured["weights_of"], measured["epoch"]) == (run.weights_of, run.epoch) else ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
