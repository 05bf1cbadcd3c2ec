"""Surrogate gradients: a Heaviside step in the forward pass, a bounded bump as its derivative in the reverse pass.

The step is strict, ``H(0) = 0``; for a neuron, its ``at_threshold`` decides. Functions are named after their formula,
not after a paper: "SuperSpike" alone stands for four formulas. With ``x = u - threshold``:

    ===================  ===================================  =============================================
    function             ``ds/dx``                            used in
    ===================  ===================================  =============================================
    ``triangle(w)``      ``max(0, w - |x|) / w**2``           CSBP, TET, TEBN (Wang et al. 2024)
    ``rectangle(w)``     ``1/w if |x| < w/2 else 0``          STBP, tdBN (Wu et al. 2018)
    ``sigmoid(k)``       ``k s(kx) s(-kx)``                   Zenke & Ganguli 2018, SpikingJelly
    ``arctan(a)``        ``(a/2) / (1 + (pi a x / 2)**2)``    PLIF, SEW-ResNet (Fang et al. 2021)
    ``fast_sigmoid(k)``  ``1 / (1 + k|x|)**2``                snnTorch, spyx
    ``erf(a)``           ``a / sqrt(pi) exp(-(a x)**2)``      SpikingJelly
    ``piecewise_exp(a)`` ``(a/2) exp(-a|x|)``                 SpikingJelly
    ===================  ===================================  =============================================

Widths and slopes are above 0; each function raises a ValueError for a number of Python or NumPy that is not.
"""

from __future__ import annotations  # help() shows ArrayLike, not what it stands for

import dataclasses
import difflib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from csbp_jax import ranges

__all__ = ["Surrogate", "arctan", "erf", "fast_sigmoid", "piecewise_exp", "rectangle", "sigmoid", "triangle"]


if not TYPE_CHECKING:  # to which every name would exist

    def __getattr__(name: str) -> Any:
        """Name the function that is nearest to one that does not exist, such as that of another library."""
        similar = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else f"; it has {', '.join(__all__)}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


@functools.partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["formula"])
@dataclasses.dataclass(frozen=True, repr=False)
class Surrogate:
    """Spike function whose derivative is ``formula(x, *params)``.

    A pytree: ``formula`` is static (a module-level function, so that it hashes), ``params`` are leaves, so that
    a width can be traced, swept under ``vmap`` and carried in a state. A custom surrogate is
    ``Surrogate(my_formula, (my_width,))``.

    >>> spike = triangle(1.0)
    >>> [float(spike(u)) for u in (-0.5, 0.0, 0.5)]
    [0.0, 0.0, 1.0]
    >>> float(jax.grad(spike)(0.25))
    0.75
    """

    formula: Callable[..., jax.Array]
    params: tuple[ArrayLike, ...]

    def __repr__(self) -> str:
        return f"{self.formula.__name__.removeprefix('_')}({', '.join(map(str, self.params))})"

    def derivative(self, x: ArrayLike) -> jax.Array:
        """Evaluate the surrogate ``ds/dx`` in x's dtype; computed in float32 or wider, so that it stays finite."""
        x = jnp.asarray(x, jnp.result_type(x, float))
        wide = jnp.promote_types(x.dtype, jnp.float32)
        params = (jnp.asarray(p, wide) for p in self.params)
        return self.formula(x.astype(wide), *params).astype(x.dtype)

    def __call__(self, u: ArrayLike) -> jax.Array:
        """Evaluate ``H(u)``, 0 or 1 in u's dtype, with the gradient ``derivative(u)``."""
        return _spike(jnp.asarray(u), self)


@jax.custom_vjp
def _spike(u: jax.Array, surrogate: Surrogate) -> jax.Array:
    return (u > 0).astype(u.dtype)


def _spike_backward(residual: tuple[jax.Array, Surrogate], cotangent: jax.Array) -> tuple[jax.Array, Surrogate]:
    u, surrogate = residual
    return cotangent * surrogate.derivative(u), jax.tree.map(jnp.zeros_like, surrogate)


# The comparison is repeated: a rule that called _spike would put a custom_vjp inside the gradient,
# and the tangent map of a training step (a jvp through that gradient) would fail.
_spike.defvjp(lambda u, surrogate: ((u > 0).astype(u.dtype), (u, surrogate)), _spike_backward)


def _triangle(x: jax.Array, width: jax.Array) -> jax.Array:
    return jnp.maximum(width - jnp.abs(x), 0) / width**2


def _rectangle(x: jax.Array, width: jax.Array) -> jax.Array:
    return (jnp.abs(x) < width / 2).astype(x.dtype) / width


def _sigmoid(x: jax.Array, slope: jax.Array) -> jax.Array:
    return slope * jax.nn.sigmoid(slope * x) * jax.nn.sigmoid(-slope * x)


def _arctan(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return alpha / 2 / (1 + (jnp.pi / 2 * alpha * x) ** 2)


def _fast_sigmoid(x: jax.Array, slope: jax.Array) -> jax.Array:
    return 1 / (1 + slope * jnp.abs(x)) ** 2


def _erf(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return alpha / jnp.sqrt(jnp.pi) * jnp.exp(-((alpha * x) ** 2))


def _piecewise_exp(x: jax.Array, alpha: jax.Array) -> jax.Array:
    return alpha / 2 * jnp.exp(-alpha * jnp.abs(x))


def _with_parameter(formula: Callable[..., jax.Array], **parameter: ArrayLike) -> Surrogate:
    ranges.require(formula.__name__.removeprefix("_"), ranges.ABOVE_0, **parameter)
    return Surrogate(formula, tuple(parameter.values()))


def triangle(width: ArrayLike = 1.0) -> Surrogate:
    """Triangle ``max(0, w - |x|) / w**2``: area 1, support ``2w``. CSBP uses ``w = 1``."""
    return _with_parameter(_triangle, width=width)


def rectangle(width: ArrayLike = 1.0) -> Surrogate:
    """Rectangle ``1/w`` where ``|x| < w/2``: area 1, support ``w``."""
    return _with_parameter(_rectangle, width=width)


def sigmoid(slope: ArrayLike = 4.0) -> Surrogate:
    """Logistic derivative ``k s(kx) s(-kx)``, ``s`` the logistic function: area 1, peak ``k/4``."""
    return _with_parameter(_sigmoid, slope=slope)


def arctan(alpha: ArrayLike = 2.0) -> Surrogate:
    """Derivative of an arctangent, ``(a/2) / (1 + (pi a x / 2)**2)``: area 1, peak ``a/2``."""
    return _with_parameter(_arctan, alpha=alpha)


def fast_sigmoid(slope: ArrayLike = 25.0) -> Surrogate:
    """Derivative of a fast sigmoid, ``1 / (1 + k|x|)**2``: peak 1, area ``2/k``."""
    return _with_parameter(_fast_sigmoid, slope=slope)


def erf(alpha: ArrayLike = 2.0) -> Surrogate:
    """Derivative of an error function, ``a / sqrt(pi) exp(-(a x)**2)``: area 1."""
    return _with_parameter(_erf, alpha=alpha)


def piecewise_exp(alpha: ArrayLike = 1.0) -> Surrogate:
    """Two-sided exponential ``(a/2) exp(-a|x|)``: area 1, peak ``a/2``."""
    return _with_parameter(_piecewise_exp, alpha=alpha)
