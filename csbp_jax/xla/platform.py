"""The platform of a program, and the choice of a form by it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

_known: Any = jax.make_user_context(None)


def traced_for(platform: str | None) -> AbstractContextManager[None]:
    """Return a context within which programs are traced for ``cpu``, ``gpu`` or ``tpu``; None for any of them."""
    context: AbstractContextManager[None] = _known(platform)
    return context


def known() -> str | None:
    """Return the platform of :func:`traced_for`."""
    platform: str | None = _known.value
    return platform


def by_platform(*operands: Any, default: Callable[..., Any], **forms: Callable[..., Any]) -> Any:
    """Compute ``form(*operands)`` with the form of the platform, a keyword ``cpu``, ``gpu`` or ``tpu``, or the default.

    Where the platform is known, its form alone is traced. Elsewhere all are, and JAX takes one of them when it lowers
    the program (``lax.platform_dependent``).
    """
    if known() is not None or not forms:
        return forms.get(str(known()), default)(*operands)
    if "gpu" in forms:
        forms["cuda"] = forms["rocm"] = forms.pop("gpu")
    return lax.platform_dependent(*operands, default=default, **forms)
