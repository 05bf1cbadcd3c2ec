"""K runs at once: their states are one pytree with a leading axis of members, their step one compiled function."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from csbp_jax import data, learner, models
from csbp_jax.config import Config
from csbp_jax.runtime.hardware import compiler_options
from csbp_jax.sweep import grid
from csbp_jax.training import compiled
from csbp_jax.training.monitor import BAD_STEPS_STOP
from csbp_jax.training.plugins import Own


def member_mesh(data_parallel: int = 1) -> Mesh:
    """All devices, as (member, data): ``data_parallel`` of them share each batch."""
    shape = (jax.device_count() // data_parallel, data_parallel)
    return jax.make_mesh(shape, ("member", "data"), axis_types=(AxisType.Auto,) * 2)


class VectorisedRuns:
    """The compiled functions of runs of one kind; the same for each chunk of them.

    A member equals the run alone up to the order of sums. One that turns non-finite leaves the others bit-identical.
    Across members there is no communication; a batch is split over the mesh's data axis.
    """

    def __init__(self, members: Sequence[Config], parts: dict[str, Any], devices: Mesh, own: Own = Own()):
        """``members``: all of the kind, with what their models leave to the data; a chunk's cannot tell what varies."""
        config = members[0]
        self.config, self.parts, self.devices = config, parts, devices
        self.traces_neuron = len({m.model.neuron for m in members}) > 1 and grid.traces_neuron(config, own)
        self.steps_per_epoch = len(parts["train"]) // config.batch_size
        run = compiled.functions(config, parts["train"], self.steps_per_epoch, own)
        self.init = jax.jit(self._over_members(run.init, (0, 0)))
        step = self._over_members(functools.partial(_step, run), (0, 0, None))
        self.step = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
        self.eval_step = jax.jit(self._over_members(run.eval_step, (0, 0, None)))
        self.choose = jax.jit(self._over_members(update_selection, (0, 0, 0, 0, None)), donate_argnums=1)

    def _over_members(self, function: Callable, axes: tuple[int | None, ...]) -> Callable:
        # Under a plain vmap the partitioner would gather the members' weights; a shard_map keeps each at home.
        specs = tuple(P() if axis is None else P("member") for axis in axes)
        # What varies over members is not checked: the neuron's hand-written reverse pass does not say it of constants.
        return jax.shard_map(
            _each(function, axes),
            mesh=self.devices,
            in_specs=specs,
            out_specs=P("member"),
            axis_names={"member"},
            check_vma=False,
        )

    def hparams(self, configs: Sequence[Config]) -> dict[str, Any]:
        """Members' traced values, stacked; with a neuron if members of this kind differ in it."""
        each = [learner.hyperparameters(config, self.steps_per_epoch) for config in configs]
        if self.traces_neuron:
            each = [h | {"neuron": models.neuron(c.model.neuron)} for h, c in zip(each, configs, strict=True)]
        # As floats: a grid's 1 beside 0.5 would be another dtype, and another compilation.
        every = {"every": jnp.asarray([h["every"] for h in each])}
        return jax.tree.map(lambda *values: jnp.asarray(values, float), *each) | every

    def place(self, batch: dict[str, np.ndarray], axis: int) -> dict[str, jax.Array]:
        """To the devices, with ``axis`` split over those that share a batch."""
        split = NamedSharding(self.devices, P(*[None] * axis, "data"))
        return {name: jax.device_put(rows, split) for name, rows in batch.items()}


def trace_step(config: Config, parts: dict[str, Any], own: Own = Own()) -> None:
    """Traces a training step of a (resolved) config on shapes; nothing is computed.

    Raises:
      ConfigError: such as that its network has no such tap.
    """
    source, size = parts["train"], config.batch_size
    run = compiled.functions(config, source, len(source) // size, own)
    record = data.example_batch(source)
    batch = {name: jax.ShapeDtypeStruct((size, *rows.shape[1:]), rows.dtype) for name, rows in record.items()}
    jax.eval_shape(run.train_step, jax.eval_shape(run.init, jax.random.key(0)), batch)


def _each(function, axes):
    """``vmap``; of one member the function itself, whose weights XLA on CPU would transpose, as a batch of one."""

    def call(*arguments):
        leaves = jax.tree.leaves([a for a, axis in zip(arguments, axes, strict=True) if axis == 0])
        if len(leaves[0]) > 1:
            return jax.vmap(function, in_axes=axes)(*arguments)
        alone = (
            a if axis is None else jax.tree.map(lambda leaf: leaf[0], a)
            for a, axis in zip(arguments, axes, strict=True)
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*alone))

    return call


def train(together: VectorisedRuns, configs: Sequence[Config], show: Callable[[int], None]) -> list[dict[str, Any]]:
    """Trains members and returns what each of them came to: ``{epochs: [...], last, chosen, bad_steps}``.

    Args:
      together: compiled for their kind.
      configs: of the members; as many as a multiple of the mesh's member axis.
      show: told the steps done, after each epoch.
    """
    config, parts, steps = together.config, together.parts, together.steps_per_epoch
    seeds = sorted({c.seed for c in configs})
    which = jnp.asarray([seeds.index(c.seed) for c in configs])
    keys = jnp.stack([jax.random.key(c.seed) for c in configs])
    states = together.init(keys, together.hparams(configs))
    readers = {"workers": config.data.workers, "threads": config.data.threads}
    streams = [data.train_batches(parts["train"], config.batch_size, seed, **readers) for seed in seeds]
    chosen, epochs = _no_choice(states), []
    for epoch in range(1, config.epochs + 1):
        measured: list[Any] = []
        for batches in itertools.islice(zip(*streams, strict=True), steps):
            batch = {name: np.stack([one[name] for one in batches]) for name in batches[0]}
            states, metrics = together.step(states, which, together.place(batch, axis=1))
            measured.append(metrics)
        validation = evaluate(together, states, configs, "validation")
        reasons = (validation[name].astype(np.float32) for name in ("accuracy", "loss"))
        chosen = together.choose(states, chosen, *reasons, jnp.int32(epoch))
        means = _means(measured) | {f"validation_{name}": values for name, values in validation.items()}
        if config.optimizer.ema:
            averages = evaluate(together, learner.with_ema_weights(states), configs, "validation")
            means |= {f"ema_validation_{name}": values for name, values in averages.items()}
        epochs.append(means)
        show(epoch * steps)
    last = evaluate(together, states, configs, "test")
    best = evaluate(together, states.replace(**chosen["weights"]), configs, "test")
    ends = {"last": last, "chosen": best, "epoch": jax.device_get(chosen["epoch"])}
    if config.optimizer.ema:
        ends["ema"] = evaluate(together, learner.with_ema_weights(states), configs, "test")
    return [_result(k, epochs, ends) for k in range(len(configs))]


def evaluate(together: VectorisedRuns, states: Any, configs: Sequence[Config], part: str) -> dict[str, np.ndarray]:
    """``{accuracy [K], loss [K]}`` over a part, each example once."""
    source, share = together.parts[part], together.devices.shape["data"]
    size = -(-together.config.eval_batch_size // share) * share
    keys = jnp.stack([compiled.eval_keys(c.seed, source, size) for c in configs])
    sums = [
        together.eval_step(states, keys[:, number], together.place(batch, axis=0))
        for number, batch in enumerate(data.eval_batches(source, size))
    ]
    total = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=float), *jax.device_get(sums))
    return {"accuracy": total["correct"] / total["count"], "loss": total["loss"] / total["count"]}


def _step(run, state, which, batches):
    return run.train_step(state, {name: rows[which] for name, rows in batches.items()})


def _means(steps):
    """Of an epoch's metrics, ``[K]`` each; what a bad step measured is no number and counts for nothing but itself."""
    steps = jax.tree.map(lambda *values: np.stack(values), *jax.device_get(steps))
    bad = steps.pop("bad_steps")
    count = np.maximum((bad == 0).sum(axis=0), 1)
    means = jax.tree.map(lambda values: np.where(bad == 0, values, 0).sum(axis=0) / count, steps)
    return means | {"bad_steps": bad.max(axis=0)}


def _no_choice(states):
    weights = jax.tree.map(jnp.copy, {"params": states.params, "batch_stats": states.batch_stats})
    members = states.step.shape
    return {
        "weights": weights,
        "accuracy": jnp.full(members, -1.0, jnp.float32),
        "loss": jnp.full(members, jnp.inf, jnp.float32),
        "epoch": jnp.zeros(members, jnp.int32),
    }


def update_selection(
    state: learner.State, chosen: dict[str, Any], accuracy: jax.Array, loss: jax.Array, epoch: jax.Array
) -> dict[str, Any]:
    """Of a member: the weights chosen so far, or its own if these validated better, as ``choice.rank`` has it."""
    finite, before = jnp.isfinite(loss), jnp.isfinite(chosen["loss"])
    better = (accuracy > chosen["accuracy"]) | ((accuracy == chosen["accuracy"]) & (loss < chosen["loss"]))
    better = jnp.where(finite == before, better, finite)
    new = {
        "weights": {"params": state.params, "batch_stats": state.batch_stats},
        "accuracy": accuracy,
        "loss": loss,
        "epoch": epoch,
    }
    return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, chosen)


def _result(k, epochs, ends):
    rows: list[dict[str, Any]] = [jax.tree.map(lambda values: values[k].item(), epoch) for epoch in epochs]
    bad = max(row["bad_steps"] for row in rows)

    def part(name, epoch, prefix=""):
        found = ends[name]
        return {
            "epoch": epoch,
            "validation_accuracy": rows[epoch - 1][f"{prefix}validation_accuracy"],
            "test_accuracy": found["accuracy"][k].item(),
            "test_loss": found["loss"][k].item(),
        }

    chosen = int(ends["epoch"][k])
    return {
        "diverged": bad >= BAD_STEPS_STOP,
        "epochs": rows,
        "last": part("last", len(rows)),
        "chosen": part("chosen", chosen) if chosen else None,
    } | ({"ema": part("ema", len(rows), "ema_")} if "ema" in ends else {})
