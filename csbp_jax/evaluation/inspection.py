"""Inspection of a run's network: spikes, membranes, firing rates, synaptic operations and their energy."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data, learner
from csbp_jax.config import ConfigError, Neuron
from csbp_jax.evaluation import forward, synaptic_ops
from csbp_jax.evaluation.outputs import output_folder
from csbp_jax.models.attention import thresholds_of
from csbp_jax.reporting import plots_inspection, terminal
from csbp_jax.reporting.format import energy
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runs import restore
from csbp_jax.runtime import files
from csbp_jax.training import build
from csbp_jax.xla.lengths import mean_over_time

_SYNOPS = ("acs", "macs", "dense")


def inspect(
    run: str | pathlib.Path | restore.RestoredRun,
    *,
    layers: tuple[str, ...] = (),
    examples: int = 100,
    example: int = 0,
    split: str = "test",
    data_dir: str | pathlib.Path = "data",
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure a run's network on examples spread evenly over one split of its data, without augmentation.

    Prints tables, draws figures in ``RUN/figures/inspect`` and writes the numbers to ``RUN/inspect.json``; for a
    run that cannot be written, in ``evaluation/RUN``.

    Args:
      run: the run's folder, for the weights of the last epoch; or a run restored with others (``restore.restore``).
      layers: which spiking layers; all by default. Synaptic operations are those of the whole network in any case.
      examples: how many. Rates, shares and counts are over all of them.
      example: number of the one whose raster and membranes are drawn; it is among them.
      split: "test", "validation" or "train".

    Returns:
      The content of the file: for each layer ``neurons``, ``rate`` (spikes per neuron per time step), the shares of
      neurons that were ``silent`` or ``always_firing`` in all examples, ``spikes_per_example``; for each synapse the
      effective ``acs`` and ``macs`` and all (``dense``) connections per example (csbp_jax/evaluation/synaptic_ops.py);
      their sums; ``energy_nj``, nanojoules per example; and the ``example`` that is drawn.

    Raises:
      ConfigError: no such run, example or layer, its data are missing or have other classes, or the network is a
        module of the user's own that cannot be inspected.
    """
    restored = restore.restore(run)
    splits, _ = restore.load_data(restored, data_dir)
    rows = _rows(len(splits[split]), examples, example)
    folder = output_folder(restored.folder, "figures", "figures/inspect")
    source = data.Unaugmented(splits[split], rows)
    size = min(len(rows), restored.config.eval_batch_size)
    smaller = restored._replace(config=dataclasses.replace(restored.config, eval_batch_size=size))
    neuron = None if restored.own.neuron or restored.own.model else restored.config.model.neuron
    # Of one length, so that the example that is drawn is the first.
    ends = [] if source.lengths is None else [int(source.lengths.max())]
    measure = _measure(layers, neuron.most_spikes if neuron else 1)
    measured, synapses, drawn = _gather(forward.apply_batched(smaller, source.events, measure, ends)(source))
    first: dict[str, Any] = {"number": example}
    if (restored.config.loss.task, restored.config.loss.per) == ("class", "example"):
        names = build.class_names(restored.config, splits, data_dir)
        first |= {"class": names[drawn["label"]], "predicted": names[drawn["predicted"]]}
    result: dict[str, Any] = {
        "run": restored.folder.resolve().name,
        "split": split,
        "weights_of": restored.weights_of,
        "epoch": restored.epoch,
        "examples": len(rows),
        **_summary(measured, synapses),
        "example": first,
    }
    plots_inspection.draw(folder / "figures" / "inspect", result, drawn["x"], measured, _drawn(neuron, measured))
    files.write_json(folder / "inspect.json", result)
    _print(console or make_console(), folder, result, measured)
    return result


def _rows(count: int, examples: int, first: int) -> NDArray[np.intp]:
    """Return the numbers of examples that are spread over all, in which the first one replaces the nearest to it."""
    if not 0 <= first < count:
        raise ConfigError(f"--example: {first} is not possible; allowed are 0 to {count - 1}")
    rows = forward.spread(np.arange(count), examples)
    return np.insert(np.delete(rows, abs(rows - first).argmin()), 0, first)


def _drawn(neuron: Neuron | None, layers: Iterable[str]) -> dict[str, Neuron | None]:
    """Return the neuron of each layer whose resets the figure of membranes draws; others have resets of their own."""
    known = neuron if neuron is not None and neuron.name in ("lif", "cuba") else None
    return {
        layer: known and dataclasses.replace(known, threshold=known.threshold * thresholds_of(layer))
        for layer in layers
    }


def _measure(layers: tuple[str, ...], levels: int) -> forward.Measure:
    """Return a measure that sums on the device, since spikes of all examples would not fit for a large network."""

    def measure(apply: restore.Apply, variables: Any, x: jax.Array, batch: dict[str, jax.Array]) -> dict[str, Any]:
        lengths = learner.lengths_of(batch)
        names = layers or forward.spiking_layers(apply, variables, x, **lengths)
        (logits, aux), synops = synaptic_ops.count_synops(apply, variables, x, levels=levels, inspect=names, **lengths)
        missing = [layer for layer in names if layer not in aux.spikes]
        if missing or not names:
            raise ConfigError(
                f"inspect: the network does not give spikes of {', '.join(missing) or 'any layer'}; it needs to be a "
                "csbp_jax.models.base.Network with spiking layers (docs/own.md)"
            )
        fired = {layer: aux.spikes[layer].sum(1, dtype=jnp.int32) for layer in names}
        steps = {layer: (aux.spikes[layer] != 0).sum(1, dtype=jnp.int32) for layer in names}

        def over_examples(counts: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return {layer: jnp.einsum("b,b...->...", batch["mask"].astype(n.dtype), n) for layer, n in counts.items()}

        predicted = mean_over_time(logits, **lengths)[0].argmax()
        return {
            "by_neuron": over_examples(fired),
            "steps_by_neuron": over_examples(steps),
            "by_example": {layer: n.reshape(len(n), -1).sum(1) for layer, n in fired.items()},
            "valid": forward.valid_steps(batch, logits),
            "spikes": {layer: aux.spikes[layer][0] for layer in names},
            "membranes": {layer: u[0] for layer, u in aux.membranes.items()},
            "synops": synops,
            "example": {"x": x[0], "label": batch["y"][0], "predicted": predicted},
        }

    return measure


def _gather(
    batches: Iterable[tuple[NDArray[np.bool_], Any]],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, float]], dict[str, Any]]:
    """Combine all batches: measurements of each layer, mean SynOps per example of each synapse, the first example."""
    layers: dict[str, dict[str, Any]] = {}
    first_example: dict[str, Any] = {}
    synapses: dict[str, dict[str, float]] = {}
    examples = steps = 0
    for mask, measured in batches:
        steps_of = np.asarray(measured["valid"])
        examples, steps = examples + mask.sum(), steps + steps_of[mask].sum()
        first_example = first_example or jax.device_get(measured["example"])
        for layer in measured["by_neuron"]:
            if layer not in layers:
                traces = {key: measured[key][layer] for key in ("spikes", "membranes") if layer in measured[key]}
                layers[layer] = {
                    "by_neuron": 0,
                    "steps_by_neuron": 0,
                    "by_example": np.zeros(0, int),
                    "shape": traces["spikes"].shape[1:],
                    **{key: np.asarray(x).reshape(len(x), -1)[: steps_of[0].sum()] for key, x in traces.items()},
                }
            row = layers[layer]
            for key in ("by_neuron", "steps_by_neuron"):
                row[key] = row[key] + np.asarray(measured[key][layer], np.int64).ravel()
            row["by_example"] = np.append(row["by_example"], np.asarray(measured["by_example"][layer])[mask])
        for name, synops in measured["synops"].items():
            effective, spiking = synops.effective[mask], np.asarray(synops.spiking)[mask]
            counts = synapses.setdefault(name, {"acs": 0, "macs": 0, "dense": 0})
            counts["dense"] += int(np.broadcast_to(synops.dense, synops.spiking.shape)[mask].sum())
            counts["acs"] += int(effective[spiking].sum())
            counts["macs"] += int(effective[~spiking].sum())
    for row in layers.values():
        row["rates"] = row["by_neuron"] / steps
        row["always"] = row["steps_by_neuron"] == steps
    for counts in synapses.values():
        of_one = {kind: float(count / examples) for kind, count in counts.items()}
        counts |= of_one | {"dense": round(of_one["dense"])}
    return layers, synapses, first_example


def _summary(measured: dict[str, dict[str, Any]], synapses: dict[str, dict[str, float]]) -> dict[str, Any]:
    layers = {
        layer: {
            "neurons": len(row["rates"]),
            "rate": float(row["rates"].mean()),
            "silent": float((row["rates"] == 0).mean()),
            "always_firing": float(row["always"].mean()),
            "spikes_per_example": {
                "mean": float(row["by_example"].mean()),
                "min": int(row["by_example"].min()),
                "max": int(row["by_example"].max()),
            },
        }
        for layer, row in measured.items()
    }
    total = {kind: sum(counts[kind] for counts in synapses.values()) for kind in _SYNOPS}
    return {
        "layers": layers,
        "synapses": synapses,
        **total,
        "energy_nj": synaptic_ops.energy_pj(total["macs"], total["acs"]) / 1000,
        "mac_pj": synaptic_ops.MAC_PJ,
        "ac_pj": synaptic_ops.AC_PJ,
    }


def _print(console: Console, folder: pathlib.Path, result: dict[str, Any], measured: dict[str, Any]) -> None:
    examples = f"{result['examples']} examples of the {result['split']} split"
    epoch = f"{restore.WEIGHTS_LABELS[result['weights_of']]} ({result['epoch']})"
    console.print(f"{result['run']}: {examples}, {epoch}", soft_wrap=True)
    rows = [
        [
            layer,
            str(row["neurons"]),
            f"{row['rate']:.4f}",
            f"{row['silent']:.1%}",
            f"{row['always_firing']:.1%}",
            f"{row['spikes_per_example']['mean']:.1f}",
        ]
        for layer, row in result["layers"].items()
    ]
    columns = ["layer", "neurons", "rate", "silent", "always firing", "spikes per example"]
    terminal.print_table(console, "neurons", columns, rows)
    lines = {**result["synapses"], "all": {kind: result[kind] for kind in _SYNOPS}}
    rows = [[name, *(f"{counts[kind]:,.0f}" for kind in _SYNOPS)] for name, counts in lines.items()]
    terminal.print_table(console, "synaptic operations per example", ["synapse", "AC", "MAC", "dense"], rows)
    if result["macs"]:
        console.print(
            "MAC          an input of the synapse is not -1, 0 or 1, such as grey values and the averages or sums of "
            "spikes",
            soft_wrap=True,
        )
    costs = f"at {result['mac_pj']} pJ per MAC and {result['ac_pj']} pJ per AC (45 nm)"
    console.print(f"energy       {energy(result['energy_nj'])} per example, {costs}", soft_wrap=True)
    if untraced := [layer for layer, row in measured.items() if "membranes" not in row]:
        names = ", ".join(untraced)
        console.print(f"membranes    not of {names}, whose neuron has no method trace (docs/own.md)", soft_wrap=True)
    console.print(f"numbers      {folder / 'inspect.json'}", soft_wrap=True)
    console.print(f"figures      {folder / 'figures' / 'inspect'}", soft_wrap=True)
