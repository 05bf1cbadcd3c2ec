"""K runs at once: their states are one pytree with a leading axis of members, their steps one compiled function."""

import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from numpy.typing import NDArray

from csbp_jax import data, learner, models
from csbp_jax.config import Config, ConfigError
from csbp_jax.data.source import stack_batches
from csbp_jax.experiment.saves import CURVES, Saves
from csbp_jax.learner import Batch, State
from csbp_jax.runs.run import tested_columns
from csbp_jax.runtime import preemption, sharding
from csbp_jax.runtime.hardware import compiler_options, quick_options
from csbp_jax.training import build, progress
from csbp_jax.training.build import Splits
from csbp_jax.training.compiled import compile_run, eval_keys
from csbp_jax.training.plugins import Own
from csbp_jax.xla import gpu_convolution

MOST_RESIDENT = 2**28
"""Bytes of data, 256 MiB, up to which they stay on the devices."""

SHARDS_NO_CONVOLUTIONS = jax.__version_info__ < (0, 8)
"""Whether the ``shard_map`` of this JAX cannot batch the gradients of convolutions. Colab has such a one, 0.7.2."""


def member_mesh(data_parallel: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Return a mesh of devices, by default of all of this process, ``(member, data)``.

    ``data_parallel`` of them share each batch.
    """
    devices = jax.local_devices() if devices is None else devices
    shape = (len(devices) // data_parallel, data_parallel)
    return jax.make_mesh(shape, ("member", "data"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def scans(config: Config, own: Own = Own(), platform: str | None = None) -> bool:
    """Return whether the steps of an epoch are one scan: on a CPU, where a loop over convolutions is slow, if no layer
    of the network is one."""
    dense = config.model.name in ("dense", "recurrent") and config.model.max_delay is None and not own.model
    return dense or (platform or jax.default_backend()) != "cpu"


class Resident(NamedTuple):
    """Data that stay on the devices: all of training, and the batches of evaluation.

    x, y: of the training split, ``[N, ...]``. blocks: ``{split: batches [blocks, B, ...]}``.
    """

    x: jax.Array
    y: NDArray[Any]
    blocks: dict[str, Batch]


class Members:
    """The compiled functions of one compile group; the same for all that train at once.

    A member equals the run alone up to the order of sums; with ``data.encode`` rate, its evaluation draws other spikes
    than one whose devices round ``eval_batch_size`` to another size. One that turns non-finite leaves the others
    bit-identical. Members exchange nothing; a batch is split over the mesh's data axis.

    Where data fit on the devices and :func:`scans`, they stay there, and an epoch is one call; else each step is.

    Attributes:
      platform: for which the functions are traced: cpu, gpu or tpu.
      sharded: whether members are spread over the mesh. On a lone GPU or TPU they are not: a plain ``vmap`` does. A
        lone CPU counts as a mesh of one device, as the last bits of a sweep would be others without it.
    """

    def __init__(
        self,
        config: Config,
        splits: Splits,
        mesh: Mesh,
        own: Own = Own(),
        varying: Collection[str] = (),
        platform: str | None = None,
    ):
        """Compile for the group of a resolved config, whose members differ in the fields ``varying``, too.

        ``platform`` is that of the mesh's devices, unless the functions are only lowered for another one.
        """
        self.splits, self.mesh, self.varying = splits, mesh, frozenset(varying)
        self.platform = platform or mesh.devices.flat[0].platform
        self.sharded = mesh.size > 1 or (self.platform == "cpu" and not SHARDS_NO_CONVOLUTIONS)
        # A decay or smoothing of 0 would leave its stage out of the program, which all members share.
        self.config = config = build.with_others(config, {field: build.TRACED_BESIDE[field] for field in self.varying})
        self.steps_per_epoch = data.steps_per_epoch(splits["train"], config.batch_size, config.data.buckets)
        self.buckets = data.Buckets.of(splits["train"], config.batch_size, config.data.buckets)
        self.ends = self.buckets.ends.tolist()
        self.original = splits["train"].source if isinstance(splits["train"], data.Drawn) else splits["train"]
        run = compile_run(config, self.original, self.steps_per_epoch, own, platform=self.platform)

        def step(state: State, stream: jax.Array, batches: Batch) -> tuple[State, dict[str, Any]]:
            return run.pure_train_step(state, {name: rows[stream] for name, rows in batches.items()})

        def epoch(state: State, order: Batch, x: jax.Array) -> tuple[State, dict[str, Any]]:
            def of_rows(state: State, at: Batch) -> tuple[State, dict[str, Any]]:
                return run.pure_train_step(state, {"x": x[at["rows"]], "y": at["y"]})

            return jax.lax.scan(of_rows, state, order)

        def evaluation(state: State, keys: jax.Array, blocks: Batch) -> dict[str, jax.Array]:
            return jax.lax.map(lambda block: run.pure_eval_step(state, *block), (keys, blocks))

        self.init = jax.jit(self._over_members(run.pure_init, (0, 0)), compiler_options=quick_options())
        # States are trained in place; data are the same for all members, and stay.
        trained = functools.partial(jax.jit, donate_argnums=0, compiler_options=compiler_options())
        self.step = trained(self._over_members(step, (0, 0, None)))
        self.epoch = trained(self._over_members(epoch, (0, 0, None)))
        self.eval_step = jax.jit(self._over_members(run.pure_eval_step, (0, 0, None)))
        self.evaluation = jax.jit(self._over_members(evaluation, (0, 0, None)))
        self.freeze = jax.jit(self._over_members(_where, (0, 0, 0)))
        self.replace = jax.jit(self._over_members(_where, (0, 0, 0)), donate_argnums=2)
        self.resident = self._resident() if scans(config, own, self.platform) else None

    def _resident(self) -> "Resident | None":
        """Return the data on the devices.

        None if they are too large or of several lengths, or if training draws random numbers for them.
        """
        evaluated = {split: self.splits[split] for split in ("validation", "test")}
        if any(source.lengths is not None for source in (self.original, *evaluated.values())):
            return None
        examples = {source: data.example_batch(source).values() for source in (self.original, *evaluated.values())}
        size = sum(len(source) * sum(rows.nbytes for rows in example) for source, example in examples.items())
        if size > MOST_RESIDENT or self.original.num_uniforms:
            return None
        count = len(self.original)
        records = self.original.take(np.arange(count), np.zeros((count, 0), np.float32))
        blocks = {}
        for split in evaluated:
            batches = list(self._eval_batches(split))
            stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
            blocks[split] = self.shard_batch(stacked, axis=1)
        return Resident(self.place(records["x"], P()), records["y"], blocks)

    @property
    def eval_size(self) -> int:
        """Examples that are evaluated at once, which the devices of a batch divide."""
        return sharding.rounded_up(self.config.eval_batch_size, self.mesh.shape["data"])

    def _eval_batches(self, split: str) -> Iterator[dict[str, np.ndarray]]:
        source = data.Unaugmented(self.splits[split])
        readers = data.configured_readers(self.config)
        return data.eval_batches(source, self.eval_size, readers=readers, ends=self.ends)

    def _over_members(self, function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
        mapped = _vmap_or_call(function, axes)

        def over_members(*arguments: Any) -> Any:
            with gpu_convolution.each_member_alone(self.platform == "gpu"):
                return mapped(*arguments)

        if not self.sharded:
            return over_members
        # Under a plain vmap the partitioner would gather the members' weights; a shard_map keeps them in place.
        specs = tuple(P() if axis is None else P("member") for axis in axes)
        # What varies over members is not checked: the neuron's hand-written reverse pass does not declare it.
        sharded = jax.shard_map(
            over_members,
            mesh=self.mesh,
            in_specs=specs,
            out_specs=P("member"),
            axis_names={"member"},
            check_vma=False,
        )
        return self._refusing_convolutions(sharded) if SHARDS_NO_CONVOLUTIONS else sharded

    def _refusing_convolutions(self, mapped: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that says in a line what JAX before 0.8 refuses by an empty error."""

        def call(*arguments: Any) -> Any:
            try:
                return mapped(*arguments)
            except NotImplementedError as error:
                if str(error):
                    raise
                chunk = self.mesh.shape["member"]
                raise ConfigError(
                    f"JAX {jax.__version__} cannot train several members of a convolutional network on each of several "
                    f"devices; install JAX 0.8 or newer, or train one on each: --chunk {chunk} (chunk={chunk})"
                ) from error

        return call

    def hparams(self, configs: Sequence[Config]) -> dict[str, Any]:
        """Return members' traced values, stacked, with those in which members of this group differ."""
        read: dict[str, Callable[[Config], Any]] = {
            "neuron": lambda config: models.neuron(config.model.neuron),
            "weight_decay": lambda config: config.optimizer.weight_decay,
            "smoothing": lambda config: config.loss.smoothing,
        }
        names = set(map(learner.hyperparameter_name, self.varying))
        members = [
            learner.hyperparameters(config, self.steps_per_epoch) | {name: read[name](config) for name in names}
            for config in configs
        ]
        # As floats: a grid's 1 beside 0.5 would be another dtype, and another compilation.
        every = {"every": jnp.asarray([hparams["every"] for hparams in members])}
        stacked: dict[str, Any] = jax.tree.map(lambda *values: jnp.asarray(values, float), *members)
        return stacked | every

    def place(self, array: np.ndarray, spec: P) -> jax.Array:
        """Place an array on the devices, split over the axes of the mesh that a spec names."""
        return jax.device_put(array, self.sharding(spec))

    def sharding(self, spec: P) -> jax.sharding.Sharding:
        """Return the sharding of an array that :meth:`place` places."""
        if self.sharded:
            return NamedSharding(self.mesh, spec)
        return SingleDeviceSharding(self.mesh.devices.flat[0])

    def shard_batch(self, batch: Mapping[str, np.ndarray], axis: int) -> Batch:
        """Place a batch on the devices, with ``axis`` split over those that share it."""
        return {name: self.place(rows, P(*[None] * axis, "data")) for name, rows in batch.items()}

    def evaluate(self, states: Any, seeds: Sequence[int], split: str) -> dict[str, np.ndarray]:
        """Compute ``{MEASURE [K], loss [K]}`` over a split, each example once."""
        keys = jnp.stack([eval_keys(seed, self.splits[split], self.eval_size, self.ends) for seed in seeds])
        check = preemption.current().raise_if_requested
        if self.resident:
            check()
            sums = self.evaluation(states, keys, self.resident.blocks[split])
            of_batches = {name: values.swapaxes(0, 1).astype(float) for name, values in jax.device_get(sums).items()}
            measured = progress.measured(self.config, of_batches)
        else:

            def eval_step(number: int, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
                return self.eval_step(states, keys[:, number], self.shard_batch(batch, axis=0))

            measured = progress.evaluate(self.config, self._eval_batches(split), eval_step, check)
        return {name: values for name, values in measured.items() if name != "count"}


class _Batches:
    """The training batches of members: those of its seed for each.

    Args:
      seeds: of the members.
      records: the training records of each seed.
      step: the training steps that are done.
    """

    def __init__(self, members: Members, seeds: Sequence[int], records: Mapping[int, data.DataSource], step: int = 0):
        self.members, self.seeds, self.records = members, seeds, records
        self.of_member = jnp.asarray([list(records).index(seed) for seed in seeds])
        self.streams: list[Any] = []
        if not members.resident:
            readers = data.configured_readers(members.config)
            share = readers._replace(workers=-(-readers.workers // len(records)))
            size, most = members.config.batch_size, members.config.data.buckets
            self.streams = [
                data.train_batches(source, size, seed, step, readers=share, buckets=most)
                for seed, source in records.items()
            ]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()

    def train(self, states: State, epoch: int, steps: int | None = None) -> tuple[State, dict[str, Any]]:
        """Train an epoch, from 0 on: return the states after it, and the metrics of its steps, ``[steps, K]`` each.

        With ``steps``, only so many of them are trained.
        """
        members = self.members
        steps = members.steps_per_epoch if steps is None else steps
        if members.resident:
            preemption.current().raise_if_requested()
            order = self._order(members.resident.y, epoch)
            if steps < members.steps_per_epoch:
                order = {name: rows[:, :steps] for name, rows in order.items()}
            states, metrics = members.epoch(states, order, members.resident.x)
            return states, jax.tree.map(lambda values: np.swapaxes(values, 0, 1), jax.device_get(metrics))
        trained = []
        for batches in itertools.islice(zip(*self.streams, strict=True), steps):
            preemption.current().raise_if_requested()
            batch = stack_batches(batches, members.original.per_step)
            states, metrics = members.step(states, self.of_member, members.shard_batch(batch, axis=1))
            trained.append(metrics)
        return states, jax.tree.map(lambda *values: np.stack(values), *jax.device_get(trained))

    def _order(self, labels: NDArray[Any], epoch: int) -> Batch:
        """Return the rows and labels of an epoch's batches, ``[K, steps, B]``, in the order of the run alone."""
        steps, size = self.members.steps_per_epoch, self.members.config.batch_size
        of_seed = {}
        for seed, source in self.records.items():
            rows, y = (source.rows, source.y) if isinstance(source, data.Drawn) else (np.arange(len(labels)), labels)
            order = data.epoch_order(seed, epoch, len(source))[: steps * size].reshape(steps, size)
            of_seed[seed] = rows[order].astype(np.int32), y[order]
        stacked = (np.stack(values) for values in zip(*(of_seed[seed] for seed in self.seeds), strict=True))
        split = P("member", None, "data")
        return {name: self.members.place(values, split) for name, values in zip(("rows", "y"), stacked, strict=True)}


def timed_steps(members: Members, states: Any, seeds: Sequence[int], steps: int) -> tuple[Any, list[float]]:
    """Train the first steps of an epoch three times, and return the states and the seconds of each time.

    The first time compiles. There are no more steps than an epoch has.
    """
    seconds = []
    steps = min(steps, members.steps_per_epoch)
    batches = _Batches(members, seeds, dict.fromkeys(seeds, members.splits["train"]))
    with contextlib.closing(batches):
        for _ in range(3):
            began = time.perf_counter()
            states, _ = batches.train(states, 0, steps)
            jax.block_until_ready(states)
            seconds.append(time.perf_counter() - began)
    return states, seconds


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


def train(
    members: Members,
    configs: Sequence[Config],
    of_seed: Mapping[int, data.DataSource] | None = None,
    show: Callable[[int], None] = lambda epoch: None,
    save: Callable[[Any, NDArray[Any]], None] = lambda weights, epochs: None,
    saves: Saves | None = None,
) -> dict[str, Any]:
    """Train members, and return their measures: ``{name: [K]}``, and of each epoch ``{name: [K, epochs]}``.

    A member that has stopped early stays as it was, and its later epochs are NaN. So are accuracies and losses of a
    member that diverged, and those of the chosen epoch where validation selected none, and the means of an epoch
    without a finite step.

    Args:
      members: compiled for their group.
      configs: of the members; as many as a multiple of the mesh's member axis.
      of_seed: the training records of each seed; by default all of the split's.
      show: called with the number of ended epochs after each.
      save: called with the last weights, which are stacked, and their epochs.
      saves: where the training goes on from, and where it is saved after an epoch; by default nowhere.
    """
    config, seeds = members.config, [c.seed for c in configs]
    records = {seed: of_seed[seed] if of_seed else members.splits["train"] for seed in seeds}
    session = saves.restore(_shapes(members, configs)) if saves else None
    is_resumed = session is not None
    session = session or _beginning(members, configs)
    states, chosen, stood = session["state"], session["chosen"], session["progress"]
    ended, running, last = int(stood["epochs"]), np.array(stood["running"]), np.array(stood["last"])
    epochs = [{name: values[at] for name, values in _flat(session[CURVES]).items()} for at in range(ended)]
    # One program steps all members, stopped ones too: ``present`` has those as they were when they stopped.
    present: Any = jax.tree.map(jnp.copy, states) if is_resumed and config.patience else None
    del session  # it would keep its states in memory
    limits = [c.loss_limit for c in configs]
    health = progress.Health(limits, members.steps_per_epoch, stood["first"], stood["high_since"])
    health.diverged = np.array(stood["diverged"])
    batches = _Batches(members, seeds, records, ended * members.steps_per_epoch)
    with contextlib.closing(batches):
        for epoch in range(ended + 1, config.epochs + 1):
            states, metrics = batches.train(states, epoch - 1)
            stopped = states if present is None else present
            present = members.freeze(jnp.asarray(running), states, stopped) if config.patience else states
            validation = members.evaluate(present, seeds, "validation")
            chosen = progress.select(chosen, learner.weights_of(present), epoch, validation, members.replace)
            first_step = (epoch - 1) * members.steps_per_epoch + 1
            steps = zip(metrics["task_loss"], metrics["bad_steps"], strict=True)
            for step, (task_loss, bad_steps) in enumerate(steps, start=first_step):
                health.update(step, task_loss, bad_steps, running)
            row = _epoch_means(metrics) | {f"validation_{name}": values for name, values in validation.items()}
            if config.optimizer.ema:
                averaged = members.evaluate(learner.with_ema_weights(present), seeds, "validation")
                row |= {f"ema_validation_{name}": values for name, values in averaged.items()}
            epochs.append({k: v if running.all() else np.where(running, v, np.nan) for k, v in row.items()})
            last[running] = epoch
            running &= ~progress.is_over(config, epoch, chosen["epoch"])
            show(epoch if running.any() else config.epochs)
            if not running.any():
                break
            if saves and saves.is_due():
                stands = _progress(epoch, running, last, health)
                curves = {name: np.stack([row[name] for row in epochs]) for name in row}
                saves.save(epoch, {"state": present, "chosen": chosen, "progress": stands, CURVES: curves})
    save(learner.weights_of(present), last)
    # In the order of the last row: of those that were saved, the names are sorted.
    curves = {name: np.stack([row[name] for row in epochs], axis=1) for name in epochs[-1]}
    tested = progress.tested_weights(config, present, last, chosen)
    return _tested(members, tested, seeds, curves, health.diverged) | {"diverged": health.diverged} | curves


def _beginning(members: Members, configs: Sequence[Config]) -> dict[str, Any]:
    """Return what members train from at their start, in the form of a save: its parts by their names."""
    states = members.init(*_init_arguments(members, configs))
    weights = jax.tree.map(jnp.copy, learner.weights_of(states))  # as the step donates the states' own
    return _session(states, weights, members, configs)


def _shapes(members: Members, configs: Sequence[Config]) -> dict[str, Any]:
    """Return the shapes, dtypes and shardings of what members go on from, but for their curves."""
    sharding = members.sharding(P("member"))
    states = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(members.init, *_init_arguments(members, configs)),
    )
    session = _session(states, learner.weights_of(states), members, configs)
    return {name: part for name, part in session.items() if name != CURVES}


def _init_arguments(members: Members, configs: Sequence[Config]) -> tuple[jax.Array, dict[str, Any]]:
    return jnp.stack([jax.random.key(config.seed) for config in configs]), members.hparams(configs)


def _session(states: Any, weights: dict[str, Any], members: Members, configs: Sequence[Config]) -> dict[str, Any]:
    count = len(configs)
    health = progress.Health([config.loss_limit for config in configs], members.steps_per_epoch)
    return {
        "state": states,
        "chosen": progress.no_selection(weights, (count,)),
        "progress": _progress(0, np.ones(count, bool), np.zeros(count, int), health),
        CURVES: {},
    }


def _progress(
    epochs: int, running: NDArray[np.bool_], last: NDArray[Any], health: progress.Health
) -> dict[str, NDArray[Any]]:
    """Return where members stand: the ended epochs, who trains on, the last epoch of each, and its health."""
    of_health = {"first": health.first, "high_since": health.high_since, "diverged": health.diverged}
    return {"epochs": np.asarray(epochs), "running": running, "last": last} | jax.tree.map(np.array, of_health)


def _flat(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Return curves by their names: a checkpoint nests those of names with a slash."""
    leaves = jax.tree_util.tree_leaves_with_path(curves)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): values for path, values in leaves}


def _tested(
    members: Members,
    tested: Mapping[str, progress.Tested],
    seeds: Sequence[int],
    curves: Mapping[str, NDArray[Any]],
    diverged: NDArray[Any],
) -> dict[str, Any]:
    """Return the measures of each kind of weights (:func:`csbp_jax.training.progress.tested_weights`)."""
    of_kind = {}
    for kind, (weights, at, prefix) in tested.items():
        test = members.evaluate(weights, seeds, "test")
        values: dict[str, Any] = {"epoch": at}
        for name, value in test.items():
            of_epochs = curves[f"{prefix}{name}"]
            validation = np.take_along_axis(of_epochs, np.maximum(at, 1)[:, None] - 1, axis=1)[:, 0]
            values |= {f"test_{name}": value, f"validation_{name}": validation}
        of_kind[kind] = {name: np.where(diverged | (at == 0), np.nan, value) for name, value in values.items()}
    return {
        f"{kind}_{name}": of_kind[kind][name]
        for name in tested_columns([f"test_{name}" for name in test])
        for kind in of_kind
    }


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the new arrays of a member where the condition holds, else the old ones."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)


def _epoch_means(metrics: dict[str, Any]) -> dict[str, Any]:
    """Average metrics ``[steps, K]`` over the good steps, ``[K]`` each; those of a tap or layer as ``NAME.LAYER``.

    ``bad_steps`` is the longest row of non-finite ones.
    """
    bad_steps = metrics["bad_steps"]
    averaged = {name: values for name, values in metrics.items() if name != "bad_steps"}
    sums = progress.Sums(averaged, bad_steps.shape[1:])
    sums.add(averaged, bad_steps == 0)
    means = jax.tree_util.tree_leaves_with_path(sums.means())
    named = {jax.tree_util.keystr(path, simple=True, separator="."): values for path, values in means}
    return named | {"bad_steps": bad_steps.max(axis=0)}
