"""The extras of pyproject.toml: which modules each installs, and the error that names it where one is missing."""

import importlib.util

from csbp_jax.config.errors import ConfigError

MODULES = {
    # Without those that Flax brings.
    "train": (
        *("filelock", "flatbuffers", "grain", "jinja2", "matplotlib", "pandas", "PIL", "safetensors"),
        *("tensorflow_datasets", "tyro"),
    ),
    "events": ("h5py", "tonic"),  # and aedat, but for Macs, where it is compiled
    "images": ("cykooz_resizer", "simplejpeg"),
    "nir": ("h5py", "nir"),
    "hub": ("huggingface_hub",),
    "gcs": ("gcsfs",),
    "tensorboard": ("tensorboardX",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


class Missing(ConfigError, ImportError):
    """Packages of an extra that are not installed."""


def need(extra: str, purpose: str, *modules: str) -> None:
    """Check that modules of an extra, by default all, are installed.

    Raises:
      Missing: they are not; names the extra to install.
    """
    missing = [module for module in modules or MODULES[extra] if importlib.util.find_spec(module) is None]
    if missing:
        names = f"the package{'s' * (len(missing) > 1)} {', '.join(missing)}"
        install = "aedat" if missing == ["aedat"] else f"'csbp_jax[{extra}]'"
        raise Missing(f"{purpose}: needs {names}; pip install {install}")
