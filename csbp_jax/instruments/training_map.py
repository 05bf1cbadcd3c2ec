"""The training of a config as a map, for the instruments of ``csbp_jax.dynamics``.

A training step is a map of parameters and moments (``learner.dynamical_leaves``), on given batches that repeat in their
order if there are fewer of them than steps: one batch is the map of that batch; an epoch's batches are the map of an
epoch; as many batches as steps are a random dynamical system, whose nearby runs share their batches. Nothing is
augmented. The factors of float32 products are rounded on no device, whatever ``JAX_DEFAULT_MATMUL_PRECISION`` is.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from csbp_jax import controls, data, learner, losses, models
from csbp_jax.config import Config, ConfigError, check, replaced
from csbp_jax.data import DataSource
from csbp_jax.data.device import transform
from csbp_jax.learner import Batch, Recipe, State, optimizer
from csbp_jax.neurons import integer
from csbp_jax.training import build, flip_meter
from csbp_jax.training.build import resolve
from csbp_jax.training.plugins import Own
from csbp_jax.xla.lengths import mean_over_time

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _in_full(function: _Function) -> _Function:
    """Return the function with products of unrounded float32 factors.

    By default GPUs and TPUs round them, by more than the small differences that instruments follow.
    """
    return jax.default_matmul_precision("highest")(function)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingMap:
    """The map of one recipe.

    Attributes:
      recipe: what is static in a step.
      probe: the batch of the read-outs.
      forcing: ``forcing(seed, fixed)`` of a start, for an optimiser with a force that has none of its own.
    """

    recipe: Recipe
    probe: Batch
    forcing: Callable[[int, bool], optax.Params] | None = None

    def start(self, seed: int, fixed: bool) -> State:
        """Return the first state of a seed, in the default precision.

        ``fixed`` holds z at its first value, and the learning rate at its peak: as it fell to 0, any map would come to
        rest. Rates of ``model.init_rate`` are measured on the probe.

        Raises:
          ConfigError: the config has ``weights``, but the weights of a start are drawn.
        """
        if weights := self.recipe.config.weights:
            raise ConfigError(f"weights: {weights} is not possible in a map, whose weights are drawn; leave it out")
        state: State = to_default_precision(self._init(jax.random.key(seed)))
        hparams, opt_state, config = state.hparams, state.opt_state, self.recipe.config.optimizer
        if fixed:
            hparams = hparams | {"beta": jnp.ones_like(hparams["beta"])}
        if config.schedule != "constant" or config.warmup_epochs:
            hparams = hparams | {"at_peak": jnp.array(fixed)}
            opt_state = optimizer.with_steps_taken(opt_state, self._peak) if fixed else opt_state
        if self.forcing is not None:
            hparams = hparams | {"forcing": self.forcing(seed, fixed)}
        return dataclasses.replace(state, hparams=hparams, opt_state=opt_state)

    # Stable function objects, not methods: dynamics compiles once per function object.

    @functools.cached_property
    def step(self) -> Callable[[State, Batch], State]:
        """``step(state, batch) -> state``."""
        recipe, peak = self.recipe, self._peak

        @_in_full
        def step(state: State, batch: Batch) -> State:
            after = learner.train_step(recipe, state, batch)[0]
            if "at_peak" not in state.hparams:
                return after
            count = jnp.where(state.hparams["at_peak"], peak, optimizer.steps_taken(after.opt_state, after.step))
            return dataclasses.replace(after, opt_state=optimizer.with_steps_taken(after.opt_state, count))

        return step

    @functools.cached_property
    def push(self) -> Callable[[State, Batch], optax.Params]:
        """``push(state, batch)``, the gradient of z times the term at the state; see :func:`push_obstacle`."""
        recipe = self.recipe
        return _in_full(lambda state, batch: learner.gradients(recipe, state, batch)["chaos"])

    @functools.cached_property
    def flip_ratio(self) -> flip_meter.Ratio:
        """``flip_ratio(part, state, batch)``; NaN where it is not defined.

        That is where the term's force is no gradient (:func:`push_obstacle`), or the optimiser no heavy ball
        (``optimizer.heavy_ball``).
        """
        if push_obstacle(self.recipe.config):
            return lambda part, state, batch: math.nan
        gradients = _in_full(functools.partial(learner.gradients, self.recipe))
        return flip_meter.make(gradients, self.recipe.config, self.recipe.steps_per_epoch)

    @functools.cached_property
    def readouts(self) -> Callable[[State], dict[str, jax.Array]]:
        """``readouts(state) -> {parameters, logits, spikes}`` on the probe batch; spikes are 0 or 1."""
        apply, probe, lengths = self.recipe.model.apply, self.probe, learner.lengths_of(self.probe)
        init_with_output = functools.partial(self.recipe.model.init_with_output, jax.random.key(0))
        layers = tuple(jax.eval_shape(lambda: init_with_output(probe["x"], True, **lengths))[0][1].rates)
        levels = self.recipe.config.model.neuron.most_spikes

        @_in_full
        def readouts(state: State) -> dict[str, jax.Array]:
            (logits, aux), _ = apply(
                learner.weights_of(state),
                probe["x"],
                True,
                inspect=layers,
                rngs={"dropout": state.key},
                mutable=["batch_stats"],
                **lengths,
            )
            spikes = [aux.spikes[layer] for layer in layers]
            if levels > 1:  # a squared distance counts spikes only if each has an entry of its own
                spikes = [integer.to_binary(of_layer, levels) for of_layer in spikes]
            return {
                "parameters": ravel_pytree(state.params)[0],
                "logits": mean_over_time(logits, **lengths),
                "spikes": jnp.concatenate([of_layer.astype(logits.dtype).ravel() for of_layer in spikes]),
            }

        return readouts

    @property
    def _peak(self) -> int:
        """The steps after which the schedule has its peak: those of the warm-up."""
        return self.recipe.config.optimizer.warmup_epochs * self.recipe.steps_per_epoch

    @functools.cached_property
    def _init(self) -> Callable[[jax.Array], State]:
        x, lengths = self.probe["x"], learner.lengths_of(self.probe)
        return jax.jit(lambda key: learner.calibrate(self.recipe, learner.init(self.recipe, key), x, **lengths))


def make(
    config: Config,
    probe: Batch,
    steps_per_epoch: int,
    control: Callable[[optax.GradientTransformation], optax.GradientTransformation] = lambda tx: tx,
) -> TrainingMap:
    """Make the map of a (resolved) config, in float64 where ``jax.enable_x64`` is on, else in float32.

    What ``model.precision`` rounds to bfloat16, it rounds in the map too: the step then jumps wherever a rounded weight
    does.

    Args:
      config: of the training.
      probe: the batch of the read-outs.
      steps_per_epoch: for its schedule and its annealing.
      control: from the optimiser to its replacement, such as a chain of a force of controls.py and it; a force without
        a forcing of its own is to be :func:`forced`.

    Raises:
      ConfigError: the optimiser is lion.
    """
    if config.optimizer.name == "lion":
        raise ConfigError("optimizer.name: lion is not possible in a map, as a sign has no tangent; take another")
    model = models.build(config.model)
    layers = build.ordered_layers(config, model)
    tx = control(optimizer.build(config.optimizer, config.epochs, steps_per_epoch, layers))
    recipe = learner.Recipe(model, tx, losses.build(config.loss), config, steps_per_epoch)
    return TrainingMap(recipe, probe)


def forced(run: TrainingMap, control_run: TrainingMap, batches: Sequence[Batch], steps: int) -> TrainingMap:
    """Make the map with a force as large as the term's pushes in another run from the same start.

    ``control_run`` is that run. The size is the root mean square of each tensor's push, at each of ``steps`` steps on
    the batches, with z held or annealed as in the forced run.

    Raises:
      ConfigError: the other run's pushes are not gradients (:func:`push_obstacle`), so their size is not known.
    """
    if reason := push_obstacle(control_run.recipe.config):
        raise ConfigError(reason)
    size = jax.jit(lambda state, batch: controls.tensor_rms(control_run.push(state, batch)))

    def forcing(seed: int, fixed: bool) -> optax.Params:
        state, step, sizes = control_run.start(seed, fixed), jax.jit(control_run.step), []
        for batch in repeated(batches, steps):
            sizes.append(size(state, batch))
            state = step(state, batch)
        return jax.tree.map(lambda *tensor_sizes: jnp.stack(tensor_sizes), *sizes)

    return dataclasses.replace(run, forcing=forcing)


def push_obstacle(config: Config) -> str:
    """Return why a step's pushes are not the gradient of z times the term at its weights; empty if they are."""
    chaos, radius = config.chaos, config.optimizer.sam_radius
    if not any(chaos.z0):
        return ""
    if chaos.substeps > 1:
        return f"chaos.substeps: {chaos.substeps} is not possible where pushes are measured; set it to 1"
    return f"optimizer.sam_radius: {radius} is not possible where pushes are measured; set it to 0" if radius else ""


def repeated(batches: Sequence[Batch], steps: int) -> Iterable[Batch]:
    """Return the batches in the default precision, repeated in their order for ``steps`` steps."""
    return itertools.islice(itertools.cycle([to_default_precision(batch) for batch in batches]), steps)


def conditions(config: Config, substeps: int = 10) -> dict[str, Config]:
    """Return the config, without its term, and with each non-chaotic pull in the term's stead.

    Sub-steps are left out where the config allows none.
    """
    possible = config.optimizer.accumulate == config.optimizer.layer_decay == 1
    in_substeps = {f"{substeps} sub-steps": replaced(config, "chaos.substeps", substeps)} if possible else {}
    return {
        "as given": config,
        "z = 0": replaced(config, "chaos.z0", (0.0,)),
        "drift": replaced(config, "chaos.term", "drift"),
        "linear pull": replaced(config, "chaos.term", "linear"),
    } | in_substeps


def batches(config: Config, source: DataSource, count: int, seed: int = 0) -> list[Batch]:
    """Return the first batches of a run of this (resolved) config, as its network sees them, unaugmented.

    Sequences of unequal length are all padded to the longest, as batches that repeat need one shape.
    """
    prepare = transform.make(replaced(config, "data.augment", ()), source.events)[1]
    batches = data.train_batches(data.Unaugmented(source), config.batch_size, seed, buckets=1)
    stream = itertools.islice(batches, count)
    key = jax.random.key(seed)
    return [prepare(jax.random.fold_in(key, n), jax.tree.map(jnp.asarray, batch)) for n, batch in enumerate(stream)]


def at_flip_ratio(config: Config, ratio: float, probe: Batch, steps_per_epoch: int) -> Config:
    """Return a (resolved) config with the z0, the same on all taps, at which the term's own flip ratio is ``ratio``.

    The ratio (flip_meter.py) is linear in z. It is measured at the start of the config's seed, on the probe, at the
    peak of the learning rate, with the term taken whole.

    Raises:
      ConfigError: the term has no positive curvature there, or the optimiser is no heavy ball.
    """
    if not config.chaos.taps:
        raise ConfigError("chaos.taps: empty, so that there is no term whose flip ratio could be measured")
    run = make(replaced(replaced(config, "chaos.z0", (1.0,)), "chaos.substeps", 1), probe, steps_per_epoch)
    measured = run.flip_ratio("chaos", run.start(config.seed, True), probe)
    if not measured > 0:
        raise ConfigError(
            "chaos.z0: the term has no flip at the first step; --optimizer.name sgd has one, Adam, layer decay and SAM "
            "have none"
        )
    return replaced(config, "chaos.z0", (ratio / measured,))


def flips_text(config: Config, ratio: float, data_dir: str | pathlib.Path, own: Own = Own()) -> str:
    """Say which z0 :func:`at_flip_ratio` gives for the first batch of the config's data.

    Raises:
      ConfigError: as there, the ratio is not above 0, or the config has parts of one's own besides data.
    """
    if not 0 < ratio < math.inf:
        raise ConfigError(f"--flips: {ratio} is not possible; allowed is above 0")
    if others := [part for part in own.parts if part != "data"]:
        raise ConfigError(f"--flips: not possible with {own.label}, whose {others[0]} the flip meter does not know")
    splits, _ = build.load_data(check(config), own, data_dir)
    config = resolve(config, splits)
    steps_per_epoch = data.steps_per_epoch(splits["train"], config.batch_size, config.data.buckets)
    (z0,) = at_flip_ratio(config, ratio, batches(config, splits["train"], 1)[0], steps_per_epoch).chaos.z0
    return f"chaos.z0 {z0:.4g}: the chaos term's flip ratio is {ratio:g} at the first step"


def strength(start: State) -> Callable[[State, jax.Array], State]:
    """Return ``f(state, factor)``, which sets z of all taps to ``factor`` times its value in ``start``."""
    base = start.hparams["z0"]
    return lambda state, factor: dataclasses.replace(
        state, hparams=state.hparams | {"z0": {tap: (z * factor).astype(z.dtype) for tap, z in base.items()}}
    )


def to_default_precision(tree: Any) -> Any:
    """Return the tree with its floating-point leaves in JAX's default precision; Flax makes parameters in float32."""

    def cast(leaf: jax.Array) -> jax.Array:
        return leaf.astype(jnp.result_type(float)) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, tree)
