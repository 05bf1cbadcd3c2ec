"""What a study's data say of where they were made."""

import os
import platform
from importlib import metadata


def about() -> dict[str, object]:
    """``{versions, machine}``."""
    return {
        "versions": {package: metadata.version(package) for package in ("jax", "numpy", "scipy", "optax")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
    }
