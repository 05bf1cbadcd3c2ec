"""Functions of the training of a config: pure ones, and the same functions compiled over all devices."""

import dataclasses
import functools
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from numpy.typing import NDArray

from csbp_jax import data, learner, weights
from csbp_jax.config import Config, ConfigError, Mark, fields_marked, flatten
from csbp_jax.data import DataSource
from csbp_jax.data.device import transform
from csbp_jax.data.source import stack
from csbp_jax.learner import Batch, Recipe, State, calibration, optimizer
from csbp_jax.runtime import sharding
from csbp_jax.runtime.hardware import compiler_options, flops, quick_options
from csbp_jax.training import build, progress
from csbp_jax.training.plugins import Own
from csbp_jax.xla.platform import traced_for

Result = TypeVar("Result")


class _shared(functools.cached_property[Result]):
    """A cached property that all runs of the same programs share; it does not keep the data of the first alive."""

    def __get__(self, run: Any, owner: Any = None) -> Any:
        if self.attrname not in run.programs:
            # With an initial rate, examples of the source are constants in the program.
            needs_data = run.config.model.init_rate is not None
            run.programs[self.attrname] = self.func(run if needs_data else dataclasses.replace(run, source=()))
        return run.programs[self.attrname]


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledRun:
    """Functions of one resolved config, pure and compiled.

    The ``pure_`` methods are meant for a caller's own jit, vmap or jvp, and take batches as the source returns them.
    The other functions are compiled over the mesh at their first call, and take batches from ``shard_batch``.

    Attributes:
      recipe: the static part of a training step.
      own: the user's functions in it.
      source: the training data.
      mesh: devices with one axis, ``data``, over which batches are split.
      prepare, prepare_eval: map a source's batch to the network's input (data/device/transform.py).
      prepare_unmixed: replaces ``prepare`` in the last ``data.mix_off_epochs`` epochs, if there are any.
      platform: for which the functions are traced: cpu, gpu or tpu.
      programs: the compiled functions, which runs of other seeds and strengths share.
    """

    recipe: Recipe
    own: Own
    source: DataSource
    mesh: Mesh
    prepare: transform.Transform
    prepare_eval: transform.Transform
    prepare_unmixed: transform.Transform | None
    platform: str
    programs: dict[str, Any]

    @property
    def config(self) -> Config:
        """The resolved config."""
        return self.recipe.config

    @property
    def steps_per_epoch(self) -> int:
        """Training steps per epoch."""
        return self.recipe.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Training steps of all epochs."""
        return self.config.epochs * self.steps_per_epoch

    def batches(
        self, seed: int, start: int = 0, readers: data.Readers | None = None
    ) -> Generator[dict[str, np.ndarray], None, None]:
        """Iterate endlessly over this process's share of each training batch, from step ``start`` on.

        ``readers`` replace those of the config, whose processes are worth their start only for many batches.
        """
        readers = data.configured_readers(self.config) if readers is None else readers
        size, buckets = self.config.batch_size, self.config.data.buckets
        rows = self._rows(size)
        yield from data.train_batches(self.source, size, seed, start, rows=rows, readers=readers, buckets=buckets)

    @functools.cached_property
    def buckets(self) -> data.Buckets:
        """The lengths to which training batches are padded."""
        return data.Buckets.of(self.source, self.config.batch_size, self.config.data.buckets)

    def pure_init(self, key: jax.Array, hparams: dict[str, Any] | None = None) -> State:
        """Return the initial state (:func:`csbp_jax.learner.init`), with the rates of ``model.init_rate``."""
        with traced_for(self.platform):
            state = learner.init(self._recipe_at(hparams or {}), key, hparams)
        if self.config.model.init_rate is None:
            return state
        examples = self.prepare_eval(jax.random.key(0), jax.tree.map(jnp.asarray, self._spread_examples))
        return self._traced(learner.calibrate, state, examples["x"], examples.get("lengths"))

    def pure_train_step(self, state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
        """Return ``(new state, metrics)`` (:func:`csbp_jax.learner.train_step`)."""
        return self._traced(learner.train_step, self._gather_weights(state), self._prepared(state, batch))

    def pure_eval_step(self, state: State, key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return sums over a batch (:func:`csbp_jax.learner.eval_step`); ``key`` is for a random encoding."""
        return self._traced(learner.eval_step, self._gather_weights(state), self.prepare_eval(key, batch))

    def pure_gradients(self, state: State, batch: Batch) -> dict[str, Any]:
        """Return gradients of the task loss and of the chaos term (:func:`csbp_jax.learner.gradients`)."""
        return self._traced(learner.gradients, self._gather_weights(state), self._prepared(state, batch))

    def init(self, key: jax.Array, hparams: dict[str, Any] | None = None) -> State:
        """Return the initial state, laid out over the mesh."""
        return self._init(key, learner.hyperparameters(self.config, self.steps_per_epoch) | (hparams or {}))

    @_shared
    def _init(self) -> jax.stages.Wrapped:
        return jax.jit(self.pure_init, out_shardings=self._state_shardings, compiler_options=quick_options())

    @_shared
    def train_step(self) -> jax.stages.Wrapped:
        """``train_step(state, batch) -> (state, metrics)``; reuses (donates) the memory of the old state."""
        return jax.jit(
            self._over_mesh(self.pure_train_step),
            donate_argnums=0,
            out_shardings=(self._state_shardings, self._replicated),
            compiler_options=compiler_options(self.platform),
        )

    @_shared
    def state_shapes(self) -> State:
        """Shapes, dtypes and shardings of a state, as a checkpoint is read into."""
        hparams = learner.hyperparameters(self.config, self.steps_per_epoch)
        return self._init.trace(jax.random.key(0), hparams).out_info

    @_shared
    def gradient_norms(self) -> Callable[[State, Batch], dict[str, jax.Array]]:
        """``gradient_norms(state, batch)``: norms of the gradients of the task loss and of the chaos term."""
        return jax.jit(
            lambda state, batch: learner.gradient_norms(self.pure_gradients(state, batch)),
            out_shardings=self._replicated,
            compiler_options=quick_options(),
        )

    def flops(self, state: State, batch: Batch) -> float:
        """Count the operations of a training step over all devices (:func:`csbp_jax.runtime.hardware.flops`)."""
        # On one device: XLA counts only once what each device does in a shard_map.
        mesh = sharding.data_mesh(jax.local_devices()[:1])
        recipe = _recipe(self.config, self.own, self.steps_per_epoch, mesh)  # the optimiser's gathers name their mesh
        alone = dataclasses.replace(self, recipe=recipe, mesh=mesh, programs={})
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (state, batch))
        return flops(alone.train_step, *shapes)

    def evaluate(self, state: State, source: DataSource, check: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Evaluate a state on each example of a source once, and return ``{count, MEASURE, loss}``.

        The measures are those of the task (:func:`csbp_jax.learner.measures.measures`).

        Nothing is augmented: a source that draws random numbers is read record by record.
        Batches have ``eval_batch_size`` examples, rounded up to a multiple of the number of devices; see
        :func:`eval_keys`.

        Args:
          check: called before each batch; may raise an exception to stop the evaluation.
        """
        source = data.Unaugmented(source)
        batch_size = sharding.rounded_up(self.config.eval_batch_size, self.mesh.size)
        ends = self.buckets.ends.tolist()
        keys = eval_keys(self.config.seed, source, batch_size, ends)
        readers = data.configured_readers(self.config)
        rows = self._rows(batch_size)
        batches = data.eval_batches(source, batch_size, rows=rows, readers=readers, ends=ends)

        def eval_step(number: int, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
            return self._eval_step(state, keys[number], self.shard_batch(batch))

        measured = progress.evaluate(self.config, batches, eval_step, check)
        return {name: int(value) if name == "count" else float(value) for name, value in measured.items()}

    def shard_batch(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """Split a batch on the host over the mesh."""
        return sharding.shard_batch(batch, self.mesh)

    def replicate(self, array: jax.Array) -> jax.Array:
        """Copy the whole array to each device, so that any process can read it."""
        return array if array.is_fully_replicated else _gathered(array, self.mesh)

    def trace(self) -> dict[str, Any]:
        """Trace a training step and an evaluation on shapes, and return the shapes of the step's metrics.

        Raises:
          ConfigError: an own function fails, the network has other logits than the data need, or no such tap.
        """
        config, first = self.config, np.zeros(1, int)
        example = self.buckets.padded(data.example_batch(self.source), first, first)
        types = {k: jax.dtypes.canonicalize_dtype(v.dtype) for k, v in example.items()}
        batch = {k: jax.ShapeDtypeStruct((config.batch_size, *v.shape[1:]), types[k]) for k, v in example.items()}
        mask = jax.ShapeDtypeStruct((config.batch_size,), bool)

        def logits(state: State, batch: Batch) -> jax.Array:
            x, lengths = self.prepare_eval(jax.random.key(0), batch)["x"], learner.lengths_of(batch)
            output: jax.Array
            output, _ = self._traced(lambda r, s: r.model.apply(learner.weights_of(s), x, False, **lengths), state)
            return output

        with build.blamed(self.own):
            state = self.state_shapes
            metrics: dict[str, Any] = jax.eval_shape(self.train_step, state, batch)[1]
            jax.eval_shape(self.pure_eval_step, state, jax.random.key(0), batch | {"mask": mask})
            shape = jax.eval_shape(logits, state, batch).shape
        steps = batch["x"].shape[1] if "lengths" in batch else config.model.time_steps
        if shape[1:] != (steps, config.model.classes):
            expected = f"[B, T, C] of {steps} time steps and {config.model.classes} classes"
            raise ConfigError(f"{self.own.label}: model gives logits {shape}; expected are {expected}")
        return metrics

    def _traced(self, function: Callable[..., Result], state: State, *arguments: Any) -> Result:
        """Call a function of the recipe, traced for the platform."""
        with traced_for(self.platform):
            return function(self._recipe_at(state.hparams), state, *arguments)

    def _recipe_at(self, hparams: dict[str, Any]) -> Recipe:
        """Return the recipe, with own functions called with the traced values if any takes them."""
        if not self.own.with_hparams:
            return self.recipe
        defaults = learner.hyperparameters(self.config, self.steps_per_epoch)
        values = learner.complete_hyperparameters(hparams, defaults)
        return _recipe(self.config, self.own, self.steps_per_epoch, self.mesh, values)

    def _rows(self, batch_size: int) -> NDArray[np.intp]:
        """Return the rows of a batch that this process reads."""
        return sharding.rows_of(self.mesh.local_devices, self.mesh, batch_size)

    @_shared
    def _eval_step(self) -> Callable[..., dict[str, jax.Array]]:
        return jax.jit(
            self._over_mesh(self.pure_eval_step), out_shardings=self._replicated, compiler_options=quick_options()
        )

    @_shared
    def _replicated(self) -> jax.sharding.NamedSharding:
        return sharding.replicated(self.mesh)

    @_shared
    def _state_shardings(self) -> Any:
        if self.config.layout == "data":
            return self._replicated  # also for a state with a neuron or a forcing among its hyperparameters
        return sharding.shardings(self.config.layout, jax.eval_shape(self.pure_init, jax.random.key(0)), self.mesh)

    @functools.cached_property
    def _spread_examples(self) -> dict[str, np.ndarray]:
        """Training examples at even distances, so that neither seed nor process changes which they are.

        One by one, as a source augments only batches.
        """
        indices = np.linspace(0, len(self.source) - 1, min(calibration.EXAMPLES, len(self.source))).astype(int)
        lengths = {} if self.buckets.lengths is None else {"lengths": self.buckets.lengths[indices]}
        return stack([self.source[int(i)] for i in indices], self.buckets.per_step) | lengths

    def _over_mesh(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Run a function with the mesh as JAX's own, so that the network can lay its activations out on each device."""

        @functools.wraps(function)
        def over_mesh(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return function(*arguments)

        return over_mesh

    def _gather_weights(self, state: State) -> State:
        # Left to itself, the partitioner would split the products over channels and send activations.
        if self.config.layout != "fsdp":
            return state
        return dataclasses.replace(state, params=_gathered(state.params, self.mesh))

    def _prepared(self, state: State, batch: Batch) -> Batch:
        # Independent of the network's own random stream (dropout), which also starts from (key, step).
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        if self.prepare_unmixed is None:
            return self.prepare(key, batch)
        mixing = state.step < (self.config.epochs - self.config.data.mix_off_epochs) * self.steps_per_epoch
        return jax.lax.cond(mixing, self.prepare, self.prepare_unmixed, key, batch)


def compile_run(
    config: Config,
    source: DataSource,
    steps_per_epoch: int,
    own: Own = Own(),
    mesh: Mesh | None = None,
    platform: str | None = None,
) -> CompiledRun:
    """Build the functions of a resolved config, for training data ``source``.

    ``mesh`` has one axis, ``data``, and spans all devices by default; ``platform`` is that of its devices, unless the
    programs are to be lowered for others.

    Raises:
      ConfigError: a plugin, or an option of the data, does not fit the config.
    """
    mesh = sharding.data_parallel() if mesh is None else mesh
    platform = platform or mesh.devices.flat[0].platform
    recipe = _recipe(config, own, steps_per_epoch, mesh)
    unmixed = transform.make_unmixed(config, source.events) if config.data.mix_off_epochs else None
    of_source = id(source) if config.model.init_rate is not None else source.events
    kind = jnp.result_type(float), platform
    of_own = own if own.parts else Own()  # callbacks are in no program
    programs = _programs(with_programs_of(config, own), steps_per_epoch, of_own, mesh, kind, of_source)
    transforms = transform.make(config, source.events)
    return CompiledRun(recipe, own, source, mesh, *transforms, unmixed, platform, programs)


def with_programs_of(config: Config, own: Own = Own()) -> Config:
    """Return a config that is equal for two configs whose training has the same programs."""
    if set(own.parts) - {"data"}:
        return build.without_traced(config, own)  # own functions may read any other field
    defaults, without = flatten(Config()), fields_marked(Mark.NO_PROGRAM)
    if config.optimizer.schedule == "constant" and not config.data.mix_off_epochs:
        without = (*without, "epochs")
    return build.with_others(build.without_traced(config, own), {field: defaults[field] for field in without})


@functools.lru_cache(maxsize=8)
def _programs(*_: Hashable) -> dict[str, Any]:
    return {}


def _recipe(
    config: Config, own: Own, steps_per_epoch: int, mesh: Mesh, hparams: dict[str, Any] | None = None
) -> Recipe:
    recipe = build.build_recipe(config, own, steps_per_epoch, hparams)
    if config.layout == "data":
        return recipe
    # Whole gradients before the optimiser, for the same reason as whole weights before the step.
    tx = optimizer.with_gathered_gradients(recipe.tx, functools.partial(_gathered, mesh=mesh))
    return dataclasses.replace(recipe, tx=tx)


def _gathered(tree: Any, mesh: Mesh) -> Any:
    return jax.lax.with_sharding_constraint(tree, sharding.replicated(mesh))


def initial_state(run: CompiledRun, plan: weights.Plan | None, show: Callable[[str], None]) -> State:
    """Return the initial state of a run: weights drawn from its seed, or those of a file.

    Raises:
      ConfigError: the file does not fit the network.
    """
    variables = weights.apply(plan, run.config.model, show) if plan else {}
    state = run.init(jax.random.key(run.config.seed))
    shardings = {key: jax.tree.map(lambda leaf: leaf.sharding, getattr(state, key)) for key in variables}
    loaded = jax.device_put(variables, shardings)
    averages = {"ema": jax.tree.map(jnp.copy, loaded)} if loaded and state.ema else {}
    return dataclasses.replace(state, **loaded, **averages)


def eval_keys(seed: int, source: DataSource, batch_size: int, ends: Sequence[int] = ()) -> jax.Array:
    """Return a key for each evaluation step over the source (:func:`csbp_jax.data.eval_batches`).

    The spikes that ``data.encode`` rate draws for an example depend on its batch and its row there, and so on the size
    of a batch.
    """
    return jax.random.split(jax.random.key(seed), len(data.eval_order(source, batch_size, ends)[0]))
