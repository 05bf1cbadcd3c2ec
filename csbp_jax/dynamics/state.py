"""States as vectors of what feeds back, and summaries of growth; shared by the instruments."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

Step = Callable[[Any, Any], Any]


def mask_of(state, fed_back):
    """A bool for each leaf, as a hashable tuple."""
    if fed_back is None:
        return tuple(jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in jax.tree.leaves(state))
    return tuple(jax.tree.leaves(fed_back))


def strongly_typed(state):
    """Without weak types, which the first step would make strong at the price of a second compilation."""
    return jax.tree.map(
        lambda leaf: leaf.astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, state
    )


def select(state, mask):
    """The leaves that feed back."""
    return [leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True) if chosen]


def join(x, state, mask):
    """``state`` with the leaves that feed back taken from the vector ``x``."""
    values = iter(ravel_pytree(select(state, mask))[1](x))
    leaves = [next(values) if chosen else leaf for leaf, chosen in zip(jax.tree.leaves(state), mask, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


@functools.partial(jax.jit, static_argnames="step")
def step_all(step, states, batch):
    """A step of many runs on one batch."""
    return jax.vmap(lambda state: step(state, batch))(states)


def recorded(push, read, state, batches, every, warmup):
    """What ``read(state) -> (state, told)`` tells after each ``every`` pushes, past the warm-up."""
    history = []
    for done, batch in enumerate(batches, start=1):
        state = push(state, batch)
        if done % every == 0:
            state, told = read(state)
            if done > warmup:
                history.append(told)
    return history


def follow(push, read, state, batches, every, warmup):
    """The summary of the growth, a step, that ``read(state) -> (state, growth)`` tells."""
    return summary([growth / every for growth in recorded(push, read, state, batches, every, warmup)])


def log(x):
    """Of what may be 0."""
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def summary(history):
    """Mean over chunks, its standard error, and all chunks; ``[chunks, ...]``."""
    if len(history) < 2:
        raise ValueError(
            f"{len(history) or 'no'} chunk is left to count, and a standard error needs two: give at least "
            "warmup + 2 every batches"
        )
    history = jnp.asarray(np.stack(jax.device_get(history)))  # jnp.stack would compile one operand a chunk
    return history.mean(axis=0), standard_error(history), history


def standard_error(history):
    """Of the mean of a correlated series ``[chunks, ...]``, by the means of about ``sqrt(chunks)`` blocks.

    Blocks no longer than the series' memory are still correlated. As of a first-order autoregression, the variance
    of their mean is ``(1 + r) / (1 - r)`` times as large, with r the correlation of neighbours, corrected for its bias
    (Kendall 1954). On an AR(1) series this is right to within some 20 %, and rather too large than too small.
    """
    blocks = max(2, int(len(history) ** 0.5))
    means = history[: len(history) // blocks * blocks].reshape(blocks, -1, *history.shape[1:]).mean(axis=1)
    apart = means - means.mean(axis=0, keepdims=True)
    total = (apart**2).sum(axis=0)
    r = (apart[1:] * apart[:-1]).sum(axis=0) / jnp.where(total > 0, total, 1.0)
    r = jnp.clip(r + (1 + 3 * r) / blocks, 0.0, 0.97)  # of anticorrelated blocks: none
    return means.std(axis=0, ddof=1) * ((1 + r) / (1 - r) / blocks) ** 0.5
