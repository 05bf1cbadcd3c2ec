"""Compare test accuracy in bfloat16 with that in float32, by CSBP and by plain backpropagation, on paired seeds.

    python -m experiments.precision DATASET [--seeds 10] [--data-dir data] [--out FOLDER] [--FIELD VALUE ...]

--out is docs/results/precision by default, a FIELD any of the config. All runs of a seed share their initial weights
and the order of data. They are stored with those of experiments.accuracy, and finished ones are not repeated. Results
of other options or of more seeds are not replaced.

Also measures the share of spikes that bfloat16 changes in one layer of fixed weights and input spikes, and how much of
it comes from rounding the product and how much from rounding the current.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import chaos, neurons
from csbp_jax.config import Config, replaced
from csbp_jax.models import layers
from csbp_jax.models.taps import Probe
from experiments import study
from experiments.accuracy import cell, earlier, train_arms, write
from experiments.statistics import student_dict
from experiments.study import Content

MODULE = "experiments.precision"
ARMS = {"csbp": "CSBP", "bp": "plain backpropagation"}
CPU = """Run on a CPU, which emulates bfloat16: its rounding is that of the
format, but its time and memory do not represent an accelerator and are not reported."""
EPOCHS = {"last": "last epoch", "chosen": "epoch chosen by validation"}


def configs_of(csbp: Config) -> dict[str, Config]:
    """``{arm: config}``; those in float32 are the ones of experiments.accuracy."""
    arms = {"csbp": csbp, "bp": replaced(csbp, "chaos.z0", (0.0,))}
    return arms | {f"{arm}-bfloat16": replaced(c, "model.precision", "bfloat16") for arm, c in arms.items()}


def summary(results: Mapping[str, list[Content]]) -> Content:
    """Accuracies, their intervals and paired differences, for both arms and both choices of the epoch."""
    accuracy = {
        which: {arm: [run[which]["test_accuracy"] for run in runs] for arm, runs in results.items()} for which in EPOCHS
    }
    return {
        "accuracy": accuracy,
        "intervals": {
            which: {
                arm: {
                    "float32": student_dict(of[arm]),
                    "bfloat16": student_dict(of[f"{arm}-bfloat16"]),
                    "bfloat16 - float32": student_dict(np.subtract(of[f"{arm}-bfloat16"], of[arm])),
                }
                for arm in ARMS
            }
            for which, of in accuracy.items()
        },
    }


def changed_spikes(time_steps: int = 4) -> dict[str, float]:
    """Shares of spikes that differ from float32 in a layer of 3x3 convolution, norm and LIF, 64 to 64 channels, 8x8.

    A fifth of the input fires, independently; the weights are initial ones.
    """
    neuron, probe = neurons.LIF(decay=0.25), Probe(chaos.term)
    x = jax.random.bernoulli(jax.random.key(0), 0.2, (32, time_steps, 8, 8, 64)).astype(jnp.float32)
    current = layers.ConvNorm(64, name="layer")
    variables = current.init(jax.random.key(1), x, True, neuron, probe)

    def fired(product_dtype, current_dtype):
        layer = current.copy(dtype=product_dtype)
        (h, _), _ = layer.apply(variables, x, True, neuron, probe, mutable=["batch_stats"])
        return neuron(h.astype(current_dtype))[0] > 0

    wide, narrow = jnp.float32, jnp.bfloat16
    reference = fired(None, wide)
    return {
        "firing rate": float(reference.mean()),
        "product in bfloat16": float((fired(narrow, wide) != reference).mean()),
        "product and current in bfloat16": float((fired(narrow, narrow) != reference).mean()),
    }


def table(content: Content) -> str:
    """The intervals in Markdown."""
    rows = [
        [f"{name}, {epoch}", *(cell(values) for values in content["intervals"][which][arm].values())]
        for which, epoch in EPOCHS.items()
        for arm, name in ARMS.items()
    ]
    return study.table(["test accuracy (%)", "float32", "bfloat16", "bfloat16 - float32, paired"], rows)


def page(content: Content) -> str:
    """The text of README.md: the table and its provenance."""
    changed, device = content["changed_spikes"], content.get("device", "cpu")
    where = CPU if device == "cpu" else f"Run on {device}; time and memory are not reported."
    return f"""# {" ".join([content["dataset"], *content["fields"]])}: bfloat16 against float32

Does training in bfloat16 change test accuracy? The last column answers.

{table(content)}

Mean and 95 % interval (Student's t, not bounded at 100 %) over {content["seeds"]} paired seeds,
{content["test_count"]} test examples. {where}

In one convolutional layer with fixed weights and input, in which {changed["firing rate"]:.0%} of the neurons fire per
time step, a product in bfloat16 changes {changed["product in bfloat16"]:.3%} of the spikes; with the current in
bfloat16 too, as in the networks, {changed["product and current in bfloat16"]:.3%} change.

Made by `{content["command"]}`; `accuracy.json` holds the results of each seed, the versions and the machine.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_dataset_parser(__doc__, seeds=10)
    with study.one_line_errors(parser):
        options, fields, csbp = study.parse_dataset(parser, MODULE, arguments)
        out = options.out or study.RESULTS / "precision"
        earlier(parser, out / "accuracy.json", options, fields)
        results = train_arms(configs_of(csbp), options.seeds, options.data_dir)
    content = {"dataset": options.dataset, "fields": fields, "seeds": options.seeds} | summary(results)
    command = study.command_of(parser, f"python -m {MODULE}", options, fields)
    content |= study.provenance(command, ("jax", "flax", "optax", "numpy"))
    content |= {"test_count": results["csbp"][0]["last"]["test_count"], "changed_spikes": changed_spikes()}
    write(out, content, page(content), "README.md")
    print(table(content))


if __name__ == "__main__":
    study.run(main)
