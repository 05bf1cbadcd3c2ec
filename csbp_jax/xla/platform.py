"""The platform of a program, and the choice of a form by it.

Within ``with traced_for("tpu"):``, or ``"cpu"`` or ``"gpu"``, what is traced is for that platform; with None, which is
the default, for any of them. JAX's caches tell these programs apart.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax

Result = TypeVar("Result")

traced_for: Any = jax.make_user_context(None)


def by_platform(*operands: Any, default: Callable[..., Result], **forms: Callable[..., Result]) -> Result:
    """Compute ``form(*operands)`` with the form of the platform, a keyword ``cpu``, ``gpu`` or ``tpu``, or the default.

    Where the platform is known, its form alone is traced. Elsewhere all are, and JAX takes one of them when it lowers
    the program (``lax.platform_dependent``).
    """
    if traced_for.value is not None or not forms:
        return forms.get(traced_for.value, default)(*operands)
    if "gpu" in forms:
        forms["cuda"] = forms["rocm"] = forms.pop("gpu")
    return lax.platform_dependent(*operands, default=default, **forms)
