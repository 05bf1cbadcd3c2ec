"""The trainings of the plan as maps at fixed strength, with what is observed of them and their equivalent copies."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from csbp_jax import configs, data, learner
from csbp_jax.config import Chaos, Optimizer, replaced
from csbp_jax.instruments import training_map
from csbp_jax.training.build import resolve
from experiments import one_neuron
from experiments.cbp import net as cbp
from experiments.study import to_float64
from experiments.xor import net as xor
from experiments.xor.net import Params

Step = Callable[[Any, jax.Array], Any]

CHAOS, KICKS = xor.Kind(), cbp.Kind()


@dataclasses.dataclass(frozen=True, eq=False)  # hashed as an object, for compilation
class System:
    """A map of a state and a key, and what is observed.

    start: ``start(seed, strength, noise) -> state``; ``noise`` is a pytree of the sizes of the noise, tensor by tensor,
    or None. observe: the observables of a state, ``[observables]``, called ``names``. dynamical_leaves: of a state, a
    pytree of bools. function: number of the state's truth table, or None. push: the term's push of each tensor, or
    None. copies: permutations of the observables that make equivalent states, the identity first.
    """

    step: Step
    start: Callable[[Any, Any, Any], Any]
    observe: Callable[[Any], jax.Array]
    names: tuple[str, ...]
    dynamical_leaves: Callable[[Any], Any]
    function: Callable[[Any], jax.Array] | None = None
    push: Callable[[Any], Params] | None = None
    copies: tuple[NDArray[np.intp], ...] = ()


def only_first(state: Any) -> Any:
    """The mask of a state whose first element is dynamical, and nothing else."""
    first, *others = state
    return (jax.tree.map(lambda _: True, first), *(jax.tree.map(lambda _: False, other) for other in others))


# --- one neuron ---------------------------------------------------------------------------------------------------


def _neuron_term(weights: one_neuron.Weights, z: Any) -> one_neuron.Weights:
    loss = functools.partial(one_neuron.loss, time_steps=1, threshold=jnp.inf)
    return jax.grad(lambda weights: loss(weights, z)[0])(weights)


def _neuron_step(substeps: int, state: Any, _: jax.Array) -> Any:
    """A step of the neuron's training, the term's gradient taken in sub-steps."""
    weights, z = state
    task, _ = one_neuron.update(weights, 0.0, one_neuron.LR, time_steps=20)
    moved = weights
    for _substep in range(substeps):
        push = _neuron_term(moved, z)
        moved = jax.tree.map(lambda p, g: p - one_neuron.LR / substeps * g, moved, push)
    return jax.tree.map(lambda t, m, p: t + m - p, task, moved, weights), z


def _neuron_start(seed: Any, strength: Any, _: Any) -> Any:
    h = jax.random.uniform(jax.random.key(seed), (), float, -6.0, 4.0)
    return (h, h), jnp.asarray(strength, float)


def _neuron_observe(state: Any) -> jax.Array:
    weights, _ = state
    return jnp.stack([weights[0], one_neuron.loss(weights, 0.0, time_steps=20)[1]])


@functools.cache
def neuron(substeps: int = 1) -> System:
    """One neuron that learns to be silent, ``T = 20``."""
    step = functools.partial(_neuron_step, substeps)
    return System(step, _neuron_start, _neuron_observe, ("w", "squared rate"), only_first)


# --- XOR nets -----------------------------------------------------------------------------------------------------


def _net_start(default: Any, draw: Callable[[Any], Params], seed: Any, strength: Any, noise: Any) -> Any:
    """The parameters of a seed, the default setting at a strength, and the sizes of the noise, 0 without any."""
    setting = type(default)(*(jnp.asarray(value, float) for value in default._replace(z0=strength)))
    params = to_float64(draw(seed))
    sizes = noise or dict.fromkeys(params, 0.0)
    return params, setting, {name: jnp.asarray(sizes[name], float) for name in params}


def _noise(params: Params, sizes: Params, key: jax.Array) -> Params:
    keys = dict(zip(sorted(params), jax.random.split(key, len(params)), strict=True))
    return {n: sizes[n] * jax.random.normal(keys[n], p.shape, p.dtype) for n, p in params.items()}


def _xor_push(kind: xor.Kind, state: Any) -> Params:
    params, setting, _ = state
    return xor.term_gradient(params, setting, kind, setting.z0, setting.lr)


def _xor_step(kind: xor.Kind, noisy: bool, state: Any, key: jax.Array) -> Any:
    """A step of the spiking net: gradients of the task and, unless the kind is alone, the term, and noise."""
    params, setting, sizes = state
    gradient = jax.grad(xor.task_loss, has_aux=True)(params, setting)[0]
    if not kind.alone:
        gradient = jax.tree.map(jnp.add, gradient, _xor_push(kind, state))
    if noisy:
        gradient = jax.tree.map(jnp.add, gradient, _noise(params, sizes, key))
    return jax.tree.map(lambda p, g: p - setting.lr * g, params, gradient), setting, sizes


def _flat(params: Params) -> jax.Array:
    return jnp.concatenate([params[name].ravel() for name in _TENSORS])


def _xor_observe(state: Any) -> jax.Array:
    params, setting, _ = state
    loss, _ = xor.task_loss(params, setting)
    return jnp.concatenate([_flat(params), loss[None], xor.forward(params, setting)[0]])


def _table(outputs: jax.Array) -> jax.Array:
    """The truth table of four outputs, as a number whose lowest bit is that of the input (0, 0)."""
    return jnp.sum(outputs << jnp.arange(4)).astype(jnp.uint8)


_TENSORS = {"w1": (2, 2), "b1": (2,), "w2": (2, 1), "b2": (1,)}


def _names(outputs: str) -> tuple[str, ...]:
    weights = [f"{name}{list(i)}" for name, shape in _TENSORS.items() for i in np.ndindex(*shape)]
    return (*weights, "loss", *(f"{outputs} {a}{b}" for a, b in itertools.product((0, 1), repeat=2)))


def _copies() -> tuple[NDArray[np.intp], ...]:
    """Permutations of the observables under the exchange of the hidden neurons and of the inputs."""
    count = itertools.count()
    index = {name: np.array([next(count) for _ in np.ndindex(*s)]).reshape(s) for name, s in _TENSORS.items()}
    loss, outputs = next(count), np.array([next(count) for _ in range(4)]).reshape(2, 2)
    permutations = []
    for inputs, hidden in itertools.product(([0, 1], [1, 0]), repeat=2):
        weights = [index["w1"][inputs][:, hidden], index["b1"][hidden], index["w2"][hidden], index["b2"]]
        moved = outputs if inputs == [0, 1] else outputs.T
        permutations.append(np.concatenate([*(w.ravel() for w in weights), [loss], moved.ravel()]))
    return tuple(permutations)


@functools.cache
def spiking_xor(kind: xor.Kind = CHAOS, noisy: bool = False) -> System:
    """The spiking XOR net at a learning rate of 0.5."""
    step = functools.partial(_xor_step, kind, noisy)
    push = functools.partial(_xor_push, kind)
    start = functools.partial(_net_start, xor.Setting(lr=0.5), xor.uniform)
    return System(
        step,
        start,
        _xor_observe,
        _names("rate"),
        only_first,
        lambda state: _table(xor.forward(state[0], state[1])[0] > 0.5),
        push,
        _copies(),
    )


def _cbp_push(kind: cbp.Kind, state: Any) -> Params:
    params, setting, _ = state
    return cbp.kicks(params, cbp.inputs(params), setting.z0, kind)


def _cbp_step(kind: cbp.Kind, noisy: bool, state: Any, key: jax.Array) -> Any:
    """A step of CBP's net: descent, kicks unless the kind has none, and noise."""
    params, setting, sizes = state
    moved, kicks = cbp.step(params, setting, setting.z0, kind)
    moved = jax.tree.map(jnp.add, moved, kicks)
    if noisy:
        moved = jax.tree.map(jnp.add, moved, _noise(params, sizes, key))
    return moved, setting, sizes


def _cbp_observe(state: Any) -> jax.Array:
    params, _, _ = state
    loss, (_, logits) = cbp.loss(params)
    return jnp.concatenate([_flat(params), loss[None], logits[:, 0]])


@functools.cache
def cbp_xor(kind: cbp.Kind = KICKS, noisy: bool = False) -> System:
    """CBP's sigmoid XOR net at its learning rate of 0.2."""
    step = functools.partial(_cbp_step, kind, noisy)
    push = functools.partial(_cbp_push, kind)
    start = functools.partial(_net_start, cbp.Setting(), xor.uniform)
    return System(
        step,
        start,
        _cbp_observe,
        _names("logit"),
        only_first,
        lambda state: _table(cbp.inputs(state[0])[1][:, 0] > 0),
        push,
        _copies(),
    )


# --- digits -------------------------------------------------------------------------------------------------------


@functools.cache
def digits(term: str, plain: bool = False) -> System:
    """A dense net 64-16-10 on a fixed batch of 16 digits; the strength is in units of the term's flip at seed 0."""
    base = configs.load("digits")
    config = dataclasses.replace(
        base,
        batch_size=16,
        model=dataclasses.replace(base.model, name="dense", features=(16,), time_steps=4),
        optimizer=Optimizer(name="sgd", lr=0.1, momentum=0.0, schedule="constant"),
        chaos=Chaos(z0=(1.0,), taps=("fc1.membrane",), scale=1.0),
    )
    splits = data.load(config, "data")
    config = resolve(config, splits)
    batch = training_map.batches(config, splits["train"], 1)[0]
    per_epoch = len(splits["train"]) // config.batch_size
    config = replaced(training_map.at_flip_ratio(config, 1.0, batch, per_epoch), "chaos.term", term)
    run = training_map.make(replaced(config, "chaos.z0", (0.0,)) if plain else config, batch, per_epoch)
    probe = training_map.to_default_precision(batch)

    def start(seed: Any, strength: Any, _: Any) -> learner.State:
        state = run.start(seed, fixed=True)
        return training_map.strength(state)(state, jnp.asarray(strength, float))

    def observe(state: learner.State) -> jax.Array:
        read = run.readouts(state)
        loss = optax.softmax_cross_entropy_with_integer_labels(read["logits"], probe["y"]).mean()
        return jnp.concatenate([loss[None], read["logits"][0], jnp.linalg.norm(read["parameters"])[None]])

    names = ("loss", *(f"logit {digit}" for digit in range(10)), "norm of the parameters")
    return System(lambda state, _: run.step(state, probe), start, observe, names, learner.dynamical_leaves)
