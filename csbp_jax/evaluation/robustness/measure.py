"""Outcomes of a network under each perturbation: which examples it still classifies correctly."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.config import Config
from csbp_jax.data.device import transform
from csbp_jax.evaluation import forward
from csbp_jax.evaluation.robustness import battery, pgd, spike_faults, square, weight_errors
from csbp_jax.reporting.terminal import Show
from csbp_jax.runs.restore import Apply, RestoredRun
from csbp_jax.runtime import preemption, sharding

Batch = dict[str, jax.Array]

ATTACK_EXAMPLES = 200
"""Examples that attacks take of a split by default, as an attack costs hundreds of forward passes."""


COMPILING = 5000
"""Forward passes that take about as long as compiling a perturbation of a small network on a CPU; for the time left."""


class Plan(NamedTuple):
    """The measurement, the same for all runs.

    names: of perturbations, in the order of tables. examples: how many, spread evenly over the split; None for all,
    and for attacks :data:`ATTACK_EXAMPLES`. queries: of the square attack. seed: of all random numbers.
    """

    names: tuple[str, ...] = tuple(battery.PERTURBATIONS)
    examples: int | None = None
    queries: int = 500
    seed: int = 0
    split: str = "test"


class Outcome(NamedTuple):
    """Which examples are correct under a perturbation.

    correct: ``[severities, variants, examples]``. variants: their names. rows: ``[examples]``, numbers of the examples
    in the split.
    """

    correct: NDArray[np.bool_]
    variants: tuple[str, ...]
    rows: NDArray[np.int64]


class Measured(NamedTuple):
    """Outcomes by perturbation, "clean" first, and the reasons why others were left out."""

    outcomes: dict[str, Outcome]
    skipped: dict[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """Compiled functions of a network, for any weights of it; compiled at their first call.

    Batches are ``{"x", "y", "index"}``: float32 inputs (pictures: brightness in [0, 1]), labels, and the numbers of the
    examples in their split, from which their random numbers follow. ``key`` is that of ``data.encode`` rate.

    neuron: of the network, whose surrogate the attacker replaces; None if the network takes no other.
    events: whether inputs are frames of events, else still inputs.
    levels: largest number of spikes of a neuron per time step.
    """

    config: Config
    apply: Apply
    neuron: Any
    events: bool
    levels: int = 1

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, variables: Any, key: jax.Array, batch: Batch) -> jax.Array:
        """Return whether the predictions are the labels, ``[B]``."""
        return self._logits(self.apply, variables, key, batch["index"], batch["x"]).argmax(axis=-1) == batch["y"]

    @functools.partial(jax.jit, static_argnums=0)
    def predict_with_faults(
        self, variables: Any, key: jax.Array, batch: Batch, fault_key: jax.Array, lost: float, added: float
    ) -> jax.Array:
        """Return whether the predictions are the labels, ``[B]``, with faulty spikes; see spike_faults.py."""
        keys = _example_keys(fault_key, batch["index"])
        apply, _ = spike_faults.with_faults(self.apply, keys, lost, added, self.levels)
        return self._logits(apply, variables, key, batch["index"], batch["x"]).argmax(axis=-1) == batch["y"]

    @functools.partial(jax.jit, static_argnums=0)
    def resists_pgd(
        self, variables: Any, key: jax.Array, batch: Batch, attack_key: jax.Array, eps: float, weights: jax.Array
    ) -> jax.Array:
        """Return whether PGD fails, ``[B]``.

        weights: of the attacker's surrogates, see :func:`pgd.chosen`; without an effect if these do not fit.
        """
        replaced = pgd.with_surrogate(self.neuron, pgd.chosen(weights))
        options = {} if replaced is None else {"neuron": replaced}
        logits = functools.partial(self._logits, self.apply, variables, key, batch["index"], **options)
        return ~pgd.attack(logits, _example_keys(attack_key, batch["index"]), batch["x"], batch["y"], eps)[1]

    @functools.partial(jax.jit, static_argnums=0)
    def resists_square(
        self, variables: Any, key: jax.Array, batch: Batch, attack_key: jax.Array, eps: float, side: jax.Array
    ) -> jax.Array:
        """Return whether the square attack fails, ``[B]``."""
        logits = functools.partial(self._logits, self.apply, variables, key, batch["index"])
        keys = _example_keys(attack_key, batch["index"])
        return ~square.attack(logits, keys, batch["x"], batch["y"], eps, side)[2]

    @functools.cached_property
    def surrogates(self) -> tuple[str, ...]:
        """The attacker's surrogates, or "own" alone if the network's gradient cannot be replaced."""
        replaceable = pgd.with_surrogate(self.neuron, pgd.SURROGATES["triangle 1"]) is not None
        return tuple(pgd.SURROGATES) if replaceable else ("own",)

    def takes_faults(self, variables: Any, x: NDArray[Any]) -> bool:
        """Return whether faults reach all spiking layers (:func:`spike_faults.reachable`), for inputs such as x."""
        key, index = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros(len(x), jnp.uint32)))
        return spike_faults.reachable(self.apply, variables, jax.eval_shape(self._inputs, key, index, x))

    def _inputs(self, key: jax.Array, index: jax.Array, x: jax.Array) -> jax.Array:
        _, prepare = transform.make(self.config, self.events)
        if self.config.data.encode != "rate":
            return prepare(key, {"x": x})["x"]
        one_by_one: Callable[..., jax.Array] = jax.vmap(lambda key, x: prepare(key, {"x": x[None]})["x"][0])
        return one_by_one(_example_keys(key, index), x)

    def _logits(
        self, apply: Any, variables: Any, key: jax.Array, index: jax.Array, x: jax.Array, **options: Any
    ) -> jax.Array:
        logits: jax.Array = apply(variables, self._inputs(key, index, x), **options)[0]
        return logits.mean(axis=1)


def _example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Return a key for each example ``[B]``, from its number in the split."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


@functools.partial(jax.jit, static_argnums=0)
def _corrupt(name: str, key: jax.Array, batch: Batch, severity: float) -> Batch:
    keys = _example_keys(key, batch["index"])
    return batch | {"x": jax.vmap(battery.CORRUPTIONS[name], (0, 0, None))(keys, batch["x"], severity)}


def programs_of(run: RestoredRun, events: bool) -> Programs:
    """Return the programs of a run's network; they serve all runs with the same network and data."""
    neuron = run.config.model.neuron
    levels = 1 if run.own.neuron else neuron.most_spikes
    return Programs(run.config, run.apply, run.neuron, events, levels)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with its weights, and the split whose examples it classifies.

    name: in lines of progress.
    """

    name: str
    programs: Programs
    variables: Any
    source: data.DataSource


def measure(subject: Subject, plan: Plan, show: Show) -> Measured:
    """Measure a network, clean and under each perturbation that fits it.

    Under an attack, an example that is misclassified without one counts as misclassified.
    """
    rows = forward.spread(np.arange(len(subject.source)), plan.examples)
    targets = forward.spread(rows, ATTACK_EXAMPLES if plan.examples is None else plan.examples)
    skipped = _obstacles(subject, rows, plan)
    names = [name for name in plan.names if name not in skipped]
    attacks = [name for name in names if battery.PERTURBATIONS[name].kind == "attack"]
    others = [name for name in names if name not in attacks]
    parts = [(rows, ["clean", *others]), *([(targets, attacks)] if attacks else [])]
    total, done = sum(_passes(subject, part, plan) for part in parts), 0

    def advance(passes: int) -> None:
        nonlocal done
        done += passes
        show(f"{subject.name}: clean and {len(names)} perturbations", done, total)

    advance(0)
    outcomes = _outcomes(subject, *parts[0], plan, advance)
    if attacks:
        clean = outcomes["clean"].correct[..., np.isin(rows, targets)]
        for name, outcome in _outcomes(subject, targets, attacks, plan, advance).items():
            outcomes[name] = outcome._replace(correct=outcome.correct & clean)
    return Measured(outcomes, skipped)


def _obstacles(subject: Subject, rows: NDArray[np.int64], plan: Plan) -> dict[str, str]:
    """Return the reasons why perturbations do not fit, by perturbation; the first batch shows what inputs look like."""
    programs, config = subject.programs, subject.programs.config
    x = next(data.eval_batches(data.Unaugmented(subject.source, rows), _batch_size(len(rows), config)))["x"]
    reasons = {name: battery.obstacle(name, config, x, programs.events) for name in plan.names}
    faults = [name for name in plan.names if battery.PERTURBATIONS[name].kind == "spikes"]
    if faults and not programs.takes_faults(subject.variables, x):
        reasons |= dict.fromkeys(faults, "its layers are not those of csbp_jax.models.layers")
    return {name: reason for name, reason in reasons.items() if reason}


def _batch_size(examples: int, config: Config) -> int:
    """Return the size of the fewest equal batches that are no larger than those of evaluation."""
    size = -(-examples // -(-examples // config.eval_batch_size))
    return sharding.rounded_up(size, jax.device_count())


def _outcomes(
    subject: Subject, rows: NDArray[np.int64], names: Sequence[str], plan: Plan, advance: Callable[[int], None]
) -> dict[str, Outcome]:
    devices = sharding.data_parallel()
    variables = jax.device_put(subject.variables, sharding.replicated(devices))
    size = _batch_size(len(rows), subject.programs.config)
    readers = data.configured_readers(subject.programs.config)
    batches = data.eval_batches(data.Unaugmented(subject.source, rows), size, readers=readers)
    cases = [case for name in names for case in _cases(subject.programs, name, plan)]
    correct: dict[_Case, list[NDArray[np.bool_]]] = {case: [] for case in cases}
    compiled: set[str] = set()
    encode_key = battery.key(plan.seed, "encode")
    for number, batch in enumerate(batches):
        index = rows[np.minimum(number * size + np.arange(size), len(rows) - 1)].astype(np.uint32)
        x = jnp.asarray(batch["x"])
        x = x.astype(jnp.float32) if subject.programs.events else transform.brightness(x)
        on_devices = sharding.shard_batch({"x": np.asarray(x), "y": batch["y"], "index": index}, devices)
        for case in cases:
            preemption.current().raise_if_requested()
            outcome = _correct(subject.programs, variables, encode_key, on_devices, case)
            correct[case].append(np.asarray(outcome)[batch["mask"]])
            advance(int(batch["mask"].sum()) * case.passes + COMPILING * (case.name not in compiled))
            compiled.add(case.name)
    outcomes = {}
    for name in names:
        variants = _variants(subject.programs, name)
        rows_of_name = np.array([np.concatenate(correct[case]) for case in cases if case.name == name])
        outcomes[name] = Outcome(rows_of_name.reshape(-1, len(variants), len(rows)), variants, rows)
    return outcomes


def _variants(programs: Programs, name: str) -> tuple[str, ...]:
    if name == "clean":
        return ("",)
    return programs.surrogates if name == "pgd" else battery.PERTURBATIONS[name].variants


def _cases(programs: Programs, name: str, plan: Plan) -> list["_Case"]:
    """Return the cases of a perturbation, all variants of a severity before those of the next."""
    severities = (0.0,) if name == "clean" else battery.PERTURBATIONS[name].severities
    numbers = range(len(_variants(programs, name)))
    return [_Case(name, float(severity), number, plan) for severity in severities for number in numbers]


class _Case(NamedTuple):
    """A perturbation at one severity, and the number of its variant."""

    name: str
    severity: float
    variant: int
    plan: Plan

    @property
    def passes(self) -> int:
        """Forward passes of an example, the reverse pass of a gradient counted as two."""
        return {"pgd": 3 * (pgd.STEPS + 1), "square": self.plan.queries}.get(self.name, 1)


def _passes(subject: Subject, part: tuple[NDArray[np.int64], Sequence[str]], plan: Plan) -> int:
    """Return the forward passes of examples under perturbations, with what compiling is worth."""
    rows, names = part
    return COMPILING * len(names) + len(rows) * sum(
        case.passes for name in names for case in _cases(subject.programs, name, plan)
    )


def _correct(programs: Programs, variables: Any, encode_key: jax.Array, batch: Batch, case: _Case) -> Any:
    """Return which examples of a batch are correct, ``[B]``."""
    key, severity = battery.key(case.plan.seed, case.name, case.variant), case.severity
    match case.name:
        case "clean":
            return programs.predict(variables, encode_key, batch)
        case "lost_spikes":
            return programs.predict_with_faults(variables, encode_key, batch, key, severity, 0.0)
        case "added_spikes":
            return programs.predict_with_faults(variables, encode_key, batch, key, 0.0, severity)
        case "weight_noise":
            params = weight_errors.with_noise(key, variables["params"], severity)
            return programs.predict(variables | {"params": params}, encode_key, batch)
        case "weight_bits":
            params = weight_errors.rounded(variables["params"], severity)
            return programs.predict(variables | {"params": params}, encode_key, batch)
        case "pgd":
            weights = np.eye(len(pgd.SURROGATES), dtype=np.float32)[case.variant]
            return programs.resists_pgd(variables, encode_key, batch, key, severity / 255, weights)
        case "square":
            side = square.sides(case.plan.queries, *batch["x"].shape[2:4])
            return programs.resists_square(variables, encode_key, batch, key, severity / 255, side)
        case _:
            return programs.predict(variables, encode_key, _corrupt(case.name, key, batch, severity))
