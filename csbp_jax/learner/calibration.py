"""Initial weights scaled by data, so that every spiking layer of a network without norms fires at one rate.

Without a norm, firing dies out with depth. At a weight scale g, the current of a neuron with n inputs of rate p has a
standard deviation of about ``g sqrt(p)`` (weights of variance ``g**2 / n``), so the next rate is about
``F(p) = Q(threshold / (g sqrt(p)))``, Q the upper tail of the normal distribution. He's ``g = sqrt(2)`` takes a rate of
0.2 to 0.06, then to 0.002, then to 0. No g chosen beforehand prevents this for every input, since p = 0 is always a
stable fixed point of F, and since sparse inputs, leaks, pooling and borders of images change p.

So g is measured instead, layer by layer, from the first to the last (the idea is LSUV's: Mishkin & Matas, ICLR 2016,
which scales to unit variance). With the earlier layers fixed, the rate of a layer on given examples is 0 for g -> 0
and, for g -> infinity, about the share of neurons with a positive current, which is 1/2 where all neurons have input.
Bisection of log2 g finds a g at which the rate crosses the target. Afterwards *every* layer has the target rate on
these examples, whatever the depth, the neuron and the inputs, up to the last interval of the bisection; the rate on
other examples of the same distribution is the same up to the error of a mean over examples.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from csbp_jax.config import ConfigError
from csbp_jax.learner.objective import neuron_override
from csbp_jax.learner.recipe import Recipe
from csbp_jax.learner.state import State, weights_of

EXAMPLES = 32
"""Number of training examples that a run measures its initial rates on."""

_RANGE = 8.0  # log2 of the largest factor, and minus that of the smallest
_HALVINGS = 12  # the factor is then known to 0.3 %


def calibrate(recipe: Recipe, state: State, x: jax.Array, lengths: jax.Array | None = None) -> State:
    """Scale the weights of each spiking layer so that its rate on ``x`` is ``config.model.init_rate``.

    Unchanged if that is None. Where inputs are so sparse that a layer has less than twice this rate even at 256 times
    its weights, its rate becomes half of that one instead; a layer without any input is left unchanged.

    Args:
      state: the initial state.
      x: examples as the network sees them, ``[B, T or 1, ...]``.
      lengths: of sequences of unequal length, ``[B]``.

    Raises:
      ConfigError: a spiking layer has no synapse of its own to be scaled, or is called more than once; or the network
        gave no rates.
    """
    target = recipe.config.model.init_rate
    if target is None:
        return state
    names: list[str] = []

    def rates(params: Any) -> jax.Array:
        options = neuron_override(state) | ({} if lengths is None else {"lengths": lengths})
        _, aux = recipe.model.apply(weights_of(state) | {"params": params}, x, False, **options)
        names[:] = aux.rates  # in the order of the layers, which jit would change
        if not names:
            raise ConfigError(f"model.init_rate: {target}, but the network gave no rates; set it to None")
        for name in names:
            # One factor cannot set the rates of several calls.
            if getattr(aux, "names", ()).count(f"{name}.membrane_pre") > 1:
                raise ConfigError(
                    f"model.init_rate: not possible for this network; its spiking layer {name} is called more than once"
                )
        return jnp.stack(list(aux.rates.values()))

    jax.eval_shape(rates, state.params)
    synapses = {name: _synapse(state.params.get(name, {}), name) for name in names}

    def scaled(exponents: jax.Array) -> Any:
        params = dict(state.params)
        for name, exponent in zip(names, exponents, strict=True):
            synapse = params[name][synapses[name]]
            kernel = synapse["kernel"] * jnp.exp2(exponent).astype(synapse["kernel"].dtype)
            params[name] = {**params[name], synapses[name]: {**synapse, "kernel": kernel}}
        return params

    def visit(layer: jax.Array, exponents: jax.Array) -> jax.Array:
        def halve(i: jax.Array, bounds: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            low, high, largest = bounds
            exponent = jnp.where(i == 0, high, (low + high) / 2)  # first at the largest factor
            rate = rates(scaled(exponents.at[layer].set(exponent)))[layer].astype(largest.dtype)
            largest = jnp.where(i == 0, rate, largest)
            above = rate > jnp.minimum(target, largest / 2)
            return jnp.where(above, low, exponent), jnp.where(above, exponent, high), largest

        start = (jnp.float32(-_RANGE), jnp.float32(_RANGE), jnp.float32(0))
        low, high, largest = jax.lax.fori_loop(0, 1 + _HALVINGS, halve, start)
        return exponents.at[layer].set(jnp.where(largest > 0, (low + high) / 2, 0))

    params = scaled(jax.lax.fori_loop(0, len(names), visit, jnp.zeros(len(names), jnp.float32)))
    ema = state.ema | {"params": jax.tree.map(jnp.copy, params)} if state.ema else state.ema
    return dataclasses.replace(state, params=params, ema=ema)


def _synapse(params: Any, layer: str) -> str:
    names = [name for name in ("conv", "dense") if name in params]
    if len(names) != 1:
        raise ConfigError(
            f"model.init_rate: not possible for this network; its spiking layer {layer} has no synapse of its own"
        )
    return names[0]
