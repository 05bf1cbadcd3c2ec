"""What happens inside a run's network: spikes, membranes, rates, synaptic operations and their energy."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from csbp_jax.config import ConfigError
from csbp_jax.evaluation import forward, restore, synaptic_ops
from csbp_jax.reporting import plots_inspection, terminal
from csbp_jax.training import build, run_dir


def inspect(
    run: str | pathlib.Path,
    *,
    layers: tuple[str, ...] = (),
    examples: int = 100,
    split: str = "test",
    which: restore.WeightsOf = "last",
    trust: bool = False,
    data_dir: str | pathlib.Path = "data",
    console: terminal.Console | None = None,
) -> dict[str, Any]:
    """Shows a network at work on examples that lie evenly over a part of its data, none of them augmented.

    Figures are drawn in ``RUN/figures/inspect``, the numbers written to ``RUN/inspect.json``.

    Args:
      run: the run's folder.
      layers: which spiking layers; all by default. Operations are those of the whole network in any case.
      examples: how many; of all of them come rates, shares and counts, of the first raster and membranes.
      split: "test", "validation" or "train".
      which: the weights of the "last" epoch, those that validation "chosen", or their moving average, "ema".
      trust: run the run's own code, if it has some (:func:`csbp_jax.evaluation.restore.load`).

    Returns:
      What the file holds: of each layer ``neurons``, ``rate`` (spikes a neuron and time step), the shares of neurons
      that were ``silent`` or ``always_firing`` in all examples, ``spikes_per_example``; of each synapse the effective
      ``acs`` and ``macs`` and all (``dense``) connections per example (csbp_jax/evaluation/synaptic_ops.py); their
      sums; and ``energy_nj``, nanojoules per example.

    Raises:
      ConfigError: no such run, part or layer, or its data are not there.
    """
    console = terminal.Console(highlight=False, markup=False) if console is None else console
    if split not in ("test", "validation", "train"):
        raise ConfigError(f"--split: {split!r} is not possible; allowed are test, validation, train")
    opened = restore.restore(run, which, trust=trust)
    records = build.load_data(opened.config, opened.own, data_dir)[0][split]
    rows = np.unique(np.linspace(0, len(records) - 1, examples).round().astype(int))
    source = forward.Unaugmented(records, rows)
    size = min(len(rows), opened.config.eval_batch_size)
    smaller = opened._replace(config=dataclasses.replace(opened.config, eval_batch_size=size))
    seen, synapses = _gather(forward.apply_batched(smaller, source.events, _measure(layers))(source))
    about = {"run": opened.folder.name, "split": split, "weights_of": which, "epoch": opened.epoch}
    result = about | {"examples": len(rows)} | _summary(seen, synapses)
    neuron = None if opened.own.neuron or opened.own.model else opened.config.model.neuron
    plots_inspection.draw(opened.folder / "figures" / "inspect", result, seen, neuron)
    run_dir.write_json(opened.folder / "inspect.json", result)
    _show(console, opened.folder, result)
    return result


def _measure(layers):
    """Sums on the device: of a large network, spikes of all examples would not fit."""

    def measure(apply, variables, x, batch):
        named = layers or forward.spiking_layers(apply, variables, x)
        (_, aux), counts = synaptic_ops.count_operations(apply, variables, x, inspect=named)
        fired = {layer: aux.spikes[layer].sum(1, dtype=jnp.int32) for layer in named}
        return {
            "by_neuron": {
                layer: jnp.einsum("b,b...->...", batch["mask"].astype(n.dtype), n) for layer, n in fired.items()
            },
            "by_example": {layer: n.reshape(len(n), -1).sum(1) for layer, n in fired.items()},
            "spikes": {layer: aux.spikes[layer][0] for layer in named},
            "membranes": {layer: aux.membranes[layer][0] for layer in named},
            "counts": counts,
        }

    return measure


def _gather(batches):
    """Of all batches: what is known of each layer, and the operations of each synapse, an example."""
    seen: dict[str, dict[str, Any]] = {}
    synapses: dict[str, dict[str, float]] = {}
    examples = 0
    for mask, told in batches:
        examples += mask.sum()
        for layer in told["by_neuron"]:
            flat = {key: np.asarray(told[key][layer]) for key in ("spikes", "membranes")}
            first = {key: rows.reshape(len(rows), -1) for key, rows in flat.items()}
            about = seen.setdefault(layer, first | {"by_neuron": 0, "by_example": np.zeros(0, int)})
            about["by_neuron"] = about["by_neuron"] + np.asarray(told["by_neuron"][layer], np.int64).ravel()
            about["by_example"] = np.append(about["by_example"], np.asarray(told["by_example"][layer])[mask])
        for name, count in told["counts"].items():
            done, spiking = np.asarray(count.operations, np.int64)[mask], np.asarray(count.spiking)[mask]
            about = synapses.setdefault(name, {"acs": 0, "macs": 0, "dense": int(count.dense) * done.shape[1]})
            about["acs"] += int(done[spiking].sum())
            about["macs"] += int(done[~spiking].sum())
    for about in seen.values():
        about["rates"] = about["by_neuron"] / (examples * len(about["spikes"]))
    for about in synapses.values():
        about |= {kind: float(about[kind] / examples) for kind in ("acs", "macs")}
    return seen, synapses


def _summary(seen, synapses):
    layers = {}
    for layer, about in seen.items():
        rates, spikes = about["rates"], about["by_example"]
        layers[layer] = {
            "neurons": len(rates),
            "rate": float(rates.mean()),
            "silent": float((rates == 0).mean()),
            "always_firing": float((rates == 1).mean()),
            "spikes_per_example": {"mean": float(spikes.mean()), "min": int(spikes.min()), "max": int(spikes.max())},
        }
    total = {kind: sum(about[kind] for about in synapses.values()) for kind in ("acs", "macs", "dense")}
    energy = synaptic_ops.energy_pj(total["macs"], total["acs"]) / 1000
    unit = {"mac_pj": synaptic_ops.MAC_PJ, "ac_pj": synaptic_ops.AC_PJ}
    return {"layers": layers, "synapses": synapses, **total, "energy_nj": energy, **unit}


def _show(console, folder, result):
    where = f"{result['examples']} examples of the {result['split']} part"
    console.print(f"{result['run']}: {where}, {restore.WEIGHTS_LABELS[result['weights_of']]} ({result['epoch']})")
    rows = [
        [
            layer,
            str(about["neurons"]),
            f"{about['rate']:.4f}",
            f"{about['silent']:.1%}",
            f"{about['always_firing']:.1%}",
            f"{about['spikes_per_example']['mean']:.1f}",
        ]
        for layer, about in result["layers"].items()
    ]
    columns = ["layer", "neurons", "rate", "silent", "always firing", "spikes an example"]
    terminal.print_table(console, "neurons", columns, rows)
    lines = {**result["synapses"], "all": {kind: result[kind] for kind in ("acs", "macs", "dense")}}
    rows = [[name, *(f"{about[kind]:,.0f}" for kind in ("acs", "macs", "dense"))] for name, about in lines.items()]
    terminal.print_table(console, "operations an example", ["synapse", "AC", "MAC", "dense"], rows)
    prices = f"at {result['mac_pj']} pJ a MAC and {result['ac_pj']} pJ an AC (45 nm)"
    console.print(f"energy       {result['energy_nj']:,.4g} nJ an example, {prices}", soft_wrap=True)
    console.print(f"numbers      {folder / 'inspect.json'}", soft_wrap=True)
    console.print(f"figures      {folder / 'figures' / 'inspect'}", soft_wrap=True)
