"""A user's own parts of a run: nothing inside the package needs a change. docs/own.md is the how-to."""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from csbp_jax.config import Config, ConfigError, run_name

COPY = "experiment.py"
"""The file's name in the folder of a run."""

PARTS = ("data", "neuron", "model", "loss", "term", "control")


@dataclasses.dataclass(frozen=True)
class Own:
    """What a run is built of, where it is not of the package. Each is a function, called anew for each config.

    Attributes:
      data: ``data(config, data_dir) -> {"train": part, "test": part}``, and ``"validation"`` if that is not to be a
        share of train. A part is a pair ``(x [N, T or 1, ...], y [N])``, or a source (csbp_jax/data/pipeline.py).
      neuron: ``neuron(config) -> neuron``, called ``neuron(x [B, T, ...], membrane=None) -> (spikes, membrane)``.
      model: ``model(config, neuron) -> Linen module``, as csbp_jax/models/base.py is called.
      loss: ``loss(config) -> loss(logits [B, T, C], labels, where=None) -> mean``.
      term: ``term(config) -> term(h, target, scale, *, cut, reduce) -> scalar``, in place of ``chaos.term``.
      control: ``control(config, tx) -> tx``, optax, from the optimiser to what stands in its place. It is told ``step``
        and ``key``; its update is for a learning rate of 1.
      file, code: where they come from, if it was a file.
    """

    data: Callable[..., Any] | None = None
    neuron: Callable[..., Any] | None = None
    model: Callable[..., Any] | None = None
    loss: Callable[..., Any] | None = None
    term: Callable[..., Any] | None = None
    control: Callable[..., Any] | None = None
    file: str = ""
    code: bytes = b""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of those that there are."""
        return tuple(part for part in PARTS if getattr(self, part) is not None)

    @property
    def place(self) -> str:
        """What messages begin with."""
        return self.file or "own"

    def about(self) -> dict[str, Any]:
        """What ``config.json`` keeps."""
        told = {"file": os.path.abspath(self.file), "sha256": sha256(self.code)} if self.code else {}
        return {"parts": list(self.parts), **told} if self.parts else {}


def plugin_run_name(config: Config, own: Own) -> str:
    """A run's name: as ``run_name``, but after the file, and its hash is one of the file too.

    Raises:
      ConfigError: the parts come from no file, so that nothing tells them from others.
    """
    if own.parts and not own.code:
        raise ConfigError(
            f"NAME: missing; a run with own parts{in_parentheses(own.parts)} that are in no file needs a name"
        )
    if not own.code:
        return run_name(config)
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", pathlib.Path(own.file).stem).lstrip(".-") or "own"
    return f"{stem}-{hashlib.sha256(run_name(config).encode() + own.code).hexdigest()[:8]}"


def in_parentheses(parts: Sequence[str]) -> str:
    """`` (data, loss)``, or nothing."""
    return f" ({', '.join(parts)})" if parts else ""


def sha256(code: bytes) -> str:
    """Of a file's text."""
    return hashlib.sha256(code).hexdigest()
