"""A config of which functions that serve several runs cannot read what differs between these."""

import dataclasses
from collections.abc import Collection
from typing import Any


class ConfigView:
    """A config, or a section of it, without some of its fields: to read one of these raises an AttributeError.

    All else reads as in the config. A view is an instance of the config's class, and the functions of ``dataclasses``
    take it for one.

    Args:
      config: the config or section; it stays as it is.
      hidden: the paths of the hidden fields within it, such as ``chaos.z0``.
      prefix: the path of a section in the config, with a dot at its end.
    """

    __slots__ = ("__dict__", "_config", "_hidden", "_prefix")

    def __init__(self, config: Any, hidden: Collection[str], prefix: str = ""):
        for slot, of_view in {"_config": config, "_hidden": hidden, "_prefix": prefix}.items():
            object.__setattr__(self, slot, of_view)
        for name, value in vars(config).items():
            within = [path.removeprefix(f"{name}.") for path in hidden if path.startswith(f"{name}.")]
            if within:
                vars(self)[name] = ConfigView(value, within, f"{prefix}{name}.")
            elif name not in hidden:
                vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:
        """Return a method or property of the config: its fields are found before, but for the hidden ones."""
        if name in self._hidden:
            path = f"{self._prefix}{name}"
            raise AttributeError(f"{path}: runs that differ in it share this function; see hparams in docs/own.md")
        return getattr(self._config, name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __repr__(self) -> str:
        return repr(self._config)

    def __reduce__(self) -> Any:  # a copy is made as the view was
        return ConfigView, (self._config, self._hidden, self._prefix)

    @property  # type: ignore[misc]  # mypy: that of other objects can be set
    def __class__(self) -> Any:
        """The class of the config, for ``isinstance``."""
        return type(self._config)

    @property
    def __dataclass_fields__(self) -> Any:
        return self._config.__dataclass_fields__

    def replace(self, field: str = "", value: Any = None, /, **fields: Any) -> "ConfigView":
        """Return a view of the config with other values; see :meth:`csbp_jax.config.Config.replace`."""
        return ConfigView(self._config.replace(field, value, **fields), self._hidden)
