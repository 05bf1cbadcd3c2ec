"""Firing rates of the layers of 12-layer networks at their initial weights, without a norm, with one, and calibrated.

    python -m experiments.initial_rates [--seeds 3] [--data-dir data] [--out docs/results/initial_rates]

All else is default. ``model.init_rate`` measures rates on training examples; here they are of test examples. Batch norm
takes the statistics of these, as in training.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Config, Model
from csbp_jax.training import compiled
from experiments import study
from experiments.study import Content

DATA_SETS = {"digits": "digits", "CIFAR-10": "cifar10_small"}
NETWORKS: dict[str, Mapping[str, Any]] = {
    "12 dense layers of 128": {"name": "dense", "features": (128,) * 12},
    "12 convolutions of 16 channels": {"name": "small_conv", "features": (16,) * 12},
}
CONDITIONS: dict[str, Mapping[str, Any]] = {
    "no norm": {"norm": "none"},
    "no norm, init_rate 0.2": {"norm": "none", "init_rate": 0.2},
    "batch norm": {},
}
BAND = (0.02, 0.5)
# Holds where networks without a norm leave the band, and no others do.
SAID = (
    "Without a norm, firing dies out within a few layers. Batch norm, which every network has by default, keeps it in "
    "the\nband; so does `model.init_rate` without a norm. "
)
EXAMPLES = 500


def network(preset: str, fields: Mapping[str, Any]) -> Config:
    """A default network on the data of a preset, without augmentation and without a chaos term."""
    config = configs.load(preset)
    model = Model(input_shape=config.model.input_shape, **fields)
    plain = dataclasses.replace(config.data, augment=())
    return dataclasses.replace(config, data=plain, model=model, chaos=Chaos())


def rates(config: Config, data_dir: str, seeds: int) -> Iterator[list[float]]:
    """Rates of all layers, in their order, for each seed."""
    splits = data.load(config, data_dir)
    run = compiled.compile_run(compiled.resolve(config, splits), splits["train"], 1)
    indices = np.linspace(0, len(splits["test"]) - 1, min(EXAMPLES, len(splits["test"]))).astype(int)
    batch = splits["test"].take(indices, np.zeros((len(indices), splits["test"].num_uniforms), np.float32))
    x = run.prepare_eval(jax.random.key(0), jax.tree.map(jnp.asarray, batch))["x"]

    @jax.jit
    def layer_rates(state: learner.State) -> jax.Array:
        (_, aux), _ = run.recipe.model.apply(learner.weights_of(state), x, True, mutable=["batch_stats"])
        return jnp.stack(list(aux.rates.values()))

    for seed in range(seeds):
        yield layer_rates(run.init(jax.random.key(seed))).tolist()


def page(content: Content) -> str:
    """The text of README.md."""
    rows, said = [], SAID
    for row in content["rows"]:
        values = np.array(row["rates"])
        inside = bool(((values >= BAND[0]) & (values <= BAND[1])).all())
        if inside != (row["condition"] != "no norm"):
            said = ""
        first, last = values[:, 0].mean(), values[:, -1].mean()
        figures = [f"{100 * value:.1f}" for value in (first, last, values.min(), values.max())]
        rows.append([row["data"], row["network"], row["condition"], *figures, "yes" if inside else "no"])
    head = [
        "data",
        "network",
        "weights",
        "first layer (%)",
        "last layer (%)",
        "lowest (%)",
        "highest (%)",
        "in the band",
    ]
    return f"""# Firing rates at the initial weights

{study.table(head, rows)}

Spikes per neuron per time step of each layer, of the test split of digits and of {EXAMPLES} test pictures of CIFAR-10;
means over {content["seeds"]} seeds, lowest and highest over all layers and seeds. Neurons, time steps and inputs are
the defaults (decay 0.25, threshold 1, T = 4, brightness in [0, 1]). The band is 2 % to 50 % in every layer.

{said}The CIFAR-10 pictures of the published numbers were once re-encoded as JPEG.

Made by `{content["command"]}`; `initial_rates.json` holds all rates, the versions and the machine.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = study.make_parser(__doc__, "initial_rates", data_dir=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    content: Content = {"seeds": options.seeds, "rows": []}
    with study.one_line_errors(parser):
        for data_set, preset in DATA_SETS.items():
            for name, fields in NETWORKS.items():
                for condition, changes in CONDITIONS.items():
                    measured = list(rates(network(preset, {**fields, **changes}), options.data_dir, options.seeds))
                    print(data_set, name, condition, np.round(measured[0], 3), flush=True)
                    row = {"data": data_set, "network": name, "condition": condition, "rates": measured}
                    content["rows"].append(row)
    command = f"python -m experiments.initial_rates --seeds {options.seeds}"
    content |= study.provenance(command, ("jax", "flax", "numpy"))
    options.out.mkdir(parents=True, exist_ok=True)
    study.write_json(options.out / "initial_rates.json", content)
    (options.out / "README.md").write_text(page(content))


if __name__ == "__main__":
    study.run(main)
