"""Compiled functions of K runs at once: their states are one pytree with a leading axis of members."""

import functools
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
from csbp_jax.learner import Batch, State
from csbp_jax.runtime import sharding
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


class CompiledGroup:
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
        self.splits, self.mesh, self.own, self.varying = splits, mesh, own, frozenset(varying)
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
        self.where = jax.jit(self._over_members(_where, (0, 0, 0)))
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
            batches = list(self._eval_batches(self.splits[split]))
            stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
            blocks[split] = self.shard_batch(stacked, axis=1)
        return Resident(self.place(records["x"], P()), records["y"], blocks)

    @property
    def eval_size(self) -> int:
        """Examples that are evaluated at once, which the devices of a batch divide."""
        return sharding.rounded_up(self.config.eval_batch_size, self.mesh.shape["data"])

    def _eval_batches(self, source: data.DataSource) -> Iterator[dict[str, np.ndarray]]:
        readers = data.configured_readers(self.config)
        return data.eval_batches(data.Unaugmented(source), self.eval_size, readers=readers, ends=self.ends)

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

    def shaped(self, shapes: State) -> State:
        """Return the shapes of states with the sharding that they have."""
        sharding = self.sharding(P("member"))
        with_sharding: State = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
        )
        return with_sharding

    def evaluate(
        self, states: State, seeds: Sequence[int], source: data.DataSource, check: Callable[[], None] = lambda: None
    ) -> dict[str, np.ndarray]:
        """Compute ``{count, MEASURE, loss}``, ``[K]`` each, over a source, each example once.

        Args:
          states: of the members.
          seeds: of the members; for a random encoding.
          source: one of the splits, or another one.
          check: called before each batch; may raise an exception to stop the evaluation.
        """
        keys = jnp.stack([eval_keys(seed, source, self.eval_size, self.ends) for seed in seeds])
        resident = [split for split in self.resident.blocks if self.splits[split] is source] if self.resident else []
        if self.resident and resident:
            check()
            sums = self.evaluation(states, keys, self.resident.blocks[resident[0]])
            of_batches = {name: values.swapaxes(0, 1).astype(float) for name, values in jax.device_get(sums).items()}
            return progress.measured(self.config, of_batches)

        def eval_step(number: int, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
            return self.eval_step(states, keys[:, number], self.shard_batch(batch, axis=0))

        return progress.evaluate(self.config, self._eval_batches(source), eval_step, check)


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


def _where(condition: jax.Array, new: Any, old: Any) -> Any:
    """Return the new arrays of a member where the condition holds, else the old ones."""
    return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
