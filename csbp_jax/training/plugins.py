"""Plugins: functions of a user's own that replace parts of a run, without a change of the package; see docs/own.md."""

import dataclasses
import functools
import hashlib
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from csbp_jax.config import Config, ConfigError, run_name

COPY = "experiment.py"
"""Name of the plugin file's copy in a run directory."""

PARTS = ("data", "neuron", "model", "loss", "term", "control")
"""Functions that replace a part of the package, and without which a run cannot be read."""
PLUGINS = (*PARTS, "callbacks")
"""Functions that a plugin file may define."""


@dataclasses.dataclass(frozen=True)
class Own:
    """Functions that build what is not of the package. Each is called again for each config.

    What one reads beside its config, such as a global variable, is compiled in at its first call for a config: define
    the function again after a change.

    One that names a parameter ``hparams`` gets the traced values there (:func:`csbp_jax.learner.hyperparameters`), and
    is called within each trace; ``data`` cannot.

    Attributes:
      data: ``data(config, data_dir) -> {"train": split, "test": split}``, and ``"validation"`` unless it is to be held
        out of train. A split is a pair ``(x [N, T or 1, ...], y [N])``, or a source (csbp_jax/data/source.py).
      neuron: ``neuron(config) -> neuron``, called as ``neuron(x [B, T, ...], state=None) -> (spikes, state)``.
      model: ``model(config, neuron) -> Linen module``, called as in csbp_jax/models/base.py.
      loss: ``loss(config) -> loss(logits [B, T, C], labels, where=None) -> mean``.
      term: ``term(config) -> term(h, target, scale, *, cut, reduce) -> scalar``, in place of ``chaos.term``.
      control: ``control(config, tx) -> tx``, an optax transformation made of the optimiser's. Its update gets
        ``value`` (the loss), ``step`` and ``key``, and is computed for a learning rate of 1.
      callbacks: ``callbacks(config) -> list`` of what is called after each epoch of a run, or of the members of a sweep
        that train at once (:class:`csbp_jax.training.callbacks.Callback`). It changes no program, and the config has
        all its fields; in those that differ among members it has other values than any of them.
      file, code: path and content of the plugin file, if they come from one.
    """

    data: Callable[..., Any] | None = None
    neuron: Callable[..., Any] | None = None
    model: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    term: Callable[..., Any] | None = None
    control: Callable[..., Any] | None = None
    callbacks: Callable[[Config], Sequence[Any]] | None = None
    file: str = ""
    code: bytes = b""

    @property
    def plugins(self) -> tuple[str, ...]:
        """Names of the functions that are given."""
        return tuple(name for name in PLUGINS if getattr(self, name) is not None)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of those that a run depends on, all but ``callbacks``."""
        return tuple(name for name in PARTS if getattr(self, name) is not None)

    @functools.cached_property
    def with_hparams(self) -> tuple[str, ...]:
        """Names of those that take the traced values."""
        return tuple(name for name in self.parts if "hparams" in inspect.signature(getattr(self, name)).parameters)

    @property
    def shares(self) -> bool:
        """Whether runs that differ in traced values share a compilation: no function but ``data`` may read them."""
        return set(self.parts) <= {"data", *self.with_hparams}

    @property
    def label(self) -> str:
        """Prefix of messages: the file, or ``own``."""
        return self.file or "own"

    def metadata(self) -> dict[str, Any]:
        """Return what ``config.json`` stores."""
        if not self.plugins or not (self.parts or self.code):
            return {}
        file = (
            {"file": os.path.abspath(self.file), "sha256": hashlib.sha256(self.code).hexdigest()} if self.code else {}
        )
        return {"parts": list(self.parts), **file}


def plugin_run_name(config: Config, own: Own) -> str:
    """Return the name of a run: that of :func:`csbp_jax.config.run_name`, or the plugin file and a hash of both.

    Raises:
      ConfigError: the plugins come from no file, so that the name could not distinguish them from others.
    """
    if own.parts and not own.code:
        raise ConfigError(
            f"NAME: missing; a run with own parts{in_parentheses(own.parts)} that are in no file needs a name"
        )
    if not own.code:
        return run_name(config)
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", pathlib.Path(own.file).stem).lstrip(".-") or "own"
    return f"{stem}-{hashlib.sha256(run_name(config).encode() + own.code).hexdigest()[:8]}"


def in_parentheses(names: Sequence[str]) -> str:
    """Format names as `` (data, loss)``, or as nothing."""
    return f" ({', '.join(names)})" if names else ""
