"""Outcomes of a network under each perturbation: which examples it still classifies correctly."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from csbp_jax import data
from csbp_jax.config import Config
from csbp_jax.data.device import transform
from csbp_jax.evaluation import forward
from csbp_jax.evaluation.robustness import battery, pgd
from csbp_jax.evaluation.robustness.programs import Batch, Programs, Variables
from csbp_jax.reporting.terminal import Show
from csbp_jax.runtime import preemption, sharding

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


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network with its weights, and the split whose examples it classifies.

    name: in lines of progress.
    """

    name: str
    programs: Programs
    variables: Variables
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


def _correct(programs: Programs, variables: Variables, encode_key: jax.Array, batch: Batch, case: _Case) -> jax.Array:
    """Return which examples of a batch are correct, ``[B]``."""
    if case.name != "clean":
        key = battery.key(case.plan.seed, case.name, case.variant)
        network = battery.Network(programs, encode_key, case.variant, case.plan.queries)
        change = battery.PERTURBATIONS[case.name].change
        batch, variables = change(key, batch, variables, case.severity, network)
    return programs.predict(variables, encode_key, batch)
