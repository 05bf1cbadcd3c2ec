"""K runs at once: their states are one pytree with a leading axis of members, their step one compiled function."""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from csbp_jax import data, learner, models
from csbp_jax.config import Config
from csbp_jax.learner import Batch, State
from csbp_jax.runtime import preemption, sharding
from csbp_jax.runtime.hardware import compiler_options, run_once_options
from csbp_jax.sweep import grid
from csbp_jax.training import selection
from csbp_jax.training.compiled import Splits, compile_run, eval_keys
from csbp_jax.training.health import MemberLosses
from csbp_jax.training.monitor import BAD_STEPS_STOP
from csbp_jax.training.plugins import Own


def member_mesh(data_parallel: int = 1) -> Mesh:
    """Return a mesh of all devices, (member, data): ``data_parallel`` of them share each batch."""
    shape = (jax.device_count() // data_parallel, data_parallel)
    return jax.make_mesh(shape, ("member", "data"), axis_types=(AxisType.Auto,) * 2)


class VectorisedRuns:
    """The compiled functions of one compile group; the same for each chunk of its members.

    A member equals the run alone up to the order of sums; with ``data.encode`` rate, its evaluation draws other spikes
    than one whose devices round ``eval_batch_size`` to another size. One that turns non-finite leaves the others
    bit-identical. Members exchange nothing; a batch is split over the mesh's data axis.
    """

    def __init__(self, members: Sequence[Config], splits: Splits, mesh: Mesh, own: Own = Own()):
        """Compile for all ``members`` of the group, resolved; those of one chunk would not show what varies."""
        config = members[0]
        self.config, self.splits, self.mesh = config, splits, mesh
        self.traces_neuron = len({m.model.neuron for m in members}) > 1 and grid.traces_neuron(config, own)
        self.steps_per_epoch = len(splits["train"]) // config.batch_size
        run = compile_run(config, splits["train"], self.steps_per_epoch, own)

        def step(state: State, stream: jax.Array, batches: Batch) -> tuple[State, dict[str, Any]]:
            return run.pure_train_step(state, {name: rows[stream] for name, rows in batches.items()})

        self.init = jax.jit(self._over_members(run.pure_init, (0, 0)), compiler_options=run_once_options())
        self.step = jax.jit(
            self._over_members(step, (0, 0, None)), donate_argnums=0, compiler_options=compiler_options()
        )
        self.eval_step = jax.jit(self._over_members(run.pure_eval_step, (0, 0, None)))
        self.update_selection = jax.jit(self._over_members(update_selection, (0, 0, 0, 0, None)), donate_argnums=1)

    def _over_members(self, function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
        # Under a plain vmap the partitioner would gather the members' weights; a shard_map keeps them in place.
        specs = tuple(P() if axis is None else P("member") for axis in axes)
        # What varies over members is not checked: the neuron's hand-written reverse pass does not declare it.
        return jax.shard_map(
            _vmap_or_call(function, axes),
            mesh=self.mesh,
            in_specs=specs,
            out_specs=P("member"),
            axis_names={"member"},
            check_vma=False,
        )

    def hparams(self, configs: Sequence[Config]) -> dict[str, Any]:
        """Return members' traced values, stacked; with a neuron if members of this group differ in it."""
        members = [learner.hyperparameters(config, self.steps_per_epoch) for config in configs]
        if self.traces_neuron:
            members = [h | {"neuron": models.neuron(c.model.neuron)} for h, c in zip(members, configs, strict=True)]
        # As floats: a grid's 1 beside 0.5 would be another dtype, and another compilation.
        every = {"every": jnp.asarray([h["every"] for h in members])}
        stacked: dict[str, Any] = jax.tree.map(lambda *values: jnp.asarray(values, float), *members)
        return stacked | every

    def shard_batch(self, batch: Mapping[str, np.ndarray], axis: int) -> Batch:
        """Place a batch on the devices, with ``axis`` split over those that share it."""
        split = NamedSharding(self.mesh, P(*[None] * axis, "data"))
        return {name: jax.device_put(rows, split) for name, rows in batch.items()}


def trace_step(config: Config, splits: Splits, own: Own = Own()) -> None:
    """Trace a training step of a (resolved) config on shapes; nothing is computed.

    Raises:
      ConfigError: such as for a tap that its network does not have.
    """
    source, size = splits["train"], config.batch_size
    run = compile_run(config, source, len(source) // size, own)
    example = data.example_batch(source)
    batch = {name: jax.ShapeDtypeStruct((size, *rows.shape[1:]), rows.dtype) for name, rows in example.items()}
    jax.eval_shape(run.pure_train_step, jax.eval_shape(run.pure_init, jax.random.key(0)), batch)


def _vmap_or_call(function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
    """Return ``vmap`` of a function, called plainly on a batch of one, whose weights XLA on CPU would transpose."""

    def call(*arguments: Any) -> Any:
        leaves = jax.tree.leaves([a for a, axis in zip(arguments, axes, strict=True) if axis == 0])
        if len(leaves[0]) > 1:
            return jax.vmap(function, in_axes=axes)(*arguments)
        unbatched = (
            a if axis is None else jax.tree.map(lambda leaf: leaf[0], a)
            for a, axis in zip(arguments, axes, strict=True)
        )
        return jax.tree.map(lambda leaf: leaf[None], function(*unbatched))

    return call


def train(runs: VectorisedRuns, configs: Sequence[Config], show: Callable[[int], None]) -> list[dict[str, Any]]:
    """Train members, and return the results of each: ``{diverged, epochs: [...], last, chosen}``.

    ``chosen`` is None if validation selected no epoch. With ``optimizer.ema`` there is also ``ema``.

    Args:
      runs: compiled for their group.
      configs: of the members; as many as a multiple of the mesh's member axis.
      show: called with the number of ended epochs after each.
    """
    config, steps = runs.config, runs.steps_per_epoch
    seeds = sorted({c.seed for c in configs})
    stream_of_member = jnp.asarray([seeds.index(c.seed) for c in configs])
    states = runs.init(jnp.stack([jax.random.key(c.seed) for c in configs]), runs.hparams(configs))
    readers = data.configured_readers(config)
    share = readers._replace(workers=-(-readers.workers // len(seeds)))
    streams: list[Any] = [
        data.train_batches(runs.splits["train"], config.batch_size, seed, readers=share) for seed in seeds
    ]
    selected, epochs = _no_selection(states), []
    losses = MemberLosses((c.loss_limit for c in configs), steps)
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.close)
        for epoch in range(1, config.epochs + 1):
            steps_metrics: list[Any] = []
            for batches in itertools.islice(zip(*streams, strict=True), steps):
                preemption.current().raise_if_requested()
                batch = {name: np.stack([rows[name] for rows in batches]) for name in batches[0]}
                states, metrics = runs.step(states, stream_of_member, runs.shard_batch(batch, axis=1))
                steps_metrics.append(metrics)
            validation = evaluate(runs, states, configs, "validation")
            rank = (validation[name].astype(np.float32) for name in ("accuracy", "loss"))
            selected = runs.update_selection(states, selected, *rank, jnp.int32(epoch))
            measured = jax.tree.map(lambda *values: np.stack(values), *jax.device_get(steps_metrics))
            for task_loss, bad_steps in zip(measured["task_loss"], measured["bad_steps"], strict=True):
                losses.update(task_loss, bad_steps == 0)
            row = _epoch_means(measured) | {f"validation_{name}": values for name, values in validation.items()}
            if config.optimizer.ema:
                averaged = evaluate(runs, learner.with_ema_weights(states), configs, "validation")
                row |= {f"ema_validation_{name}": values for name, values in averaged.items()}
            epochs.append(row)
            show(epoch)
    tests = {
        "last": evaluate(runs, states, configs, "test"),
        "chosen": evaluate(runs, states.replace(**selected["weights"]), configs, "test"),
    }
    if config.optimizer.ema:
        tests["ema"] = evaluate(runs, learner.with_ema_weights(states), configs, "test")
    selected_epochs = jax.device_get(selected["epoch"])
    results = [_member_result(k, epochs, tests, int(selected_epochs[k])) for k in range(len(configs))]
    return [r | {"diverged": r["diverged"] or bool(d)} for r, d in zip(results, losses.diverged, strict=True)]


def evaluate(runs: VectorisedRuns, states: Any, configs: Sequence[Config], split: str) -> dict[str, np.ndarray]:
    """Compute ``{accuracy [K], loss [K]}`` over a split, each example once."""
    source = data.Unaugmented(runs.splits[split])
    size = sharding.rounded_up(runs.config.eval_batch_size, runs.mesh.shape["data"])
    keys = jnp.stack([eval_keys(c.seed, source, size) for c in configs])
    batches = data.eval_batches(source, size, readers=data.configured_readers(runs.config))
    sums = []
    for number, batch in enumerate(batches):
        preemption.current().raise_if_requested()
        sums.append(runs.eval_step(states, keys[:, number], runs.shard_batch(batch, axis=0)))
    total = jax.tree.map(lambda *batch_sums: np.sum(batch_sums, axis=0, dtype=float), *jax.device_get(sums))
    return {"accuracy": total["correct"] / total["count"], "loss": total["loss"] / total["count"]}


def update_selection(
    state: State, selected: dict[str, Any], accuracy: jax.Array, loss: jax.Array, epoch: jax.Array
) -> dict[str, Any]:
    """Return a member's selection after an epoch: its weights, if they validated better."""
    better = selection.is_better(accuracy, loss, selected["accuracy"], selected["loss"])
    new = {"weights": learner.weights_of(state), "accuracy": accuracy, "loss": loss, "epoch": epoch}
    updated: dict[str, Any] = jax.tree.map(lambda n, o: jnp.where(better, n, o), new, selected)
    return updated


def _no_selection(states: State) -> dict[str, Any]:
    members = states.step.shape
    return {
        "weights": jax.tree.map(jnp.copy, learner.weights_of(states)),
        "accuracy": jnp.full(members, selection.NO_EPOCH["accuracy"], jnp.float32),
        "loss": jnp.full(members, selection.NO_EPOCH["loss"], jnp.float32),
        "epoch": jnp.full(members, selection.NO_EPOCH["epoch"], jnp.int32),
    }


def _epoch_means(measured: dict[str, Any]) -> dict[str, Any]:
    """Average metrics ``[steps, K]`` over the finite steps, of which there are ``count``, to ``means``, ``[K]`` each.

    ``bad_steps`` is the longest row of bad ones.
    """
    bad = measured["bad_steps"]
    metrics = {name: values for name, values in measured.items() if name != "bad_steps"}
    count = (bad == 0).sum(axis=0)
    means = jax.tree.map(lambda values: np.where(bad == 0, values, 0).sum(axis=0) / np.maximum(count, 1), metrics)
    return {"means": means, "count": count, "bad_steps": bad.max(axis=0)}


def _member_result(
    k: int, epochs: list[dict[str, Any]], tests: dict[str, dict[str, np.ndarray]], selected_epoch: int
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for epoch in epochs:
        row = jax.tree.map(lambda values: values[k].item(), epoch)
        means, count = row.pop("means"), row.pop("count")
        rows.append((means if count else {}) | row)  # as in a run alone, whose epoch may have no finite step

    def report(kind: str, epoch: int, prefix: str = "") -> dict[str, Any]:
        return {
            "epoch": epoch,
            "validation_accuracy": rows[epoch - 1][f"{prefix}validation_accuracy"],
            "test_accuracy": tests[kind]["accuracy"][k].item(),
            "test_loss": tests[kind]["loss"][k].item(),
        }

    result = {
        "diverged": max(row["bad_steps"] for row in rows) >= BAD_STEPS_STOP,
        "epochs": rows,
        "last": report("last", len(rows)),
        "chosen": report("chosen", selected_epoch) if selected_epoch else None,
    }
    return result | ({"ema": report("ema", len(rows), "ema_")} if "ema" in tests else {})
