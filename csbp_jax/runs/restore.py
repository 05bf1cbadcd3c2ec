"""Restoration of a run from its folder: its config, its network and its trained weights."""

import functools
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax import config as configuration
from csbp_jax import learner
from csbp_jax.config import Config, ConfigError
from csbp_jax.data import DataSource
from csbp_jax.models.base import Network
from csbp_jax.models.taps import Aux
from csbp_jax.runs import hub, published
from csbp_jax.runs.published import WEIGHTS_LABELS
from csbp_jax.runs.run import WeightsOf
from csbp_jax.training import build, run_json
from csbp_jax.training.checkpoint import checkpoint, location
from csbp_jax.training.plugin_file import reload
from csbp_jax.training.plugins import Own
from csbp_jax.weights import shipped

__all__ = ["WEIGHTS_LABELS", "Apply", "RestoredRun", "WeightsOf", "load", "load_data", "restore"]

Apply = Callable[..., tuple[jax.Array, Aux]]
"""The ``apply`` function of a network; see :func:`load`."""


class RestoredRun(NamedTuple):
    """Network of a run with the weights of one epoch, and the run's metadata."""

    folder: pathlib.Path
    """The run's folder, where results are written; ``hub/USER/NAME`` for a network on the hub, and ``shipped/NAME`` for
    one that ships with the package."""
    config: Config
    """The complete config: fields that the data determine (input shape, classes) are filled in."""
    apply: Apply
    variables: dict[str, Any]
    weights_of: WeightsOf
    epoch: int
    """The epoch of the weights, from 1."""
    data: str
    """``run_dir.fingerprint_digest`` of the data when the run began; empty if the folder does not record it."""
    classes: list[str]
    """Names of the classes, in the order of their labels; empty if the folder does not record them."""
    own: Own = Own()
    neuron: Any = None
    """The network's neuron, or the module of its neurons; None if the network is no ``models.base.Network``, for such a
    module need not take another neuron."""


def load(
    run: str | os.PathLike[str], weights_of: WeightsOf = "last", *, trust: bool = False, own: Own | None = None
) -> tuple[Apply, dict[str, Any], Config]:
    """Load the network of a run, one on the hub, or one that ships: ``(apply, variables, config)``.

    ``apply(variables, x)`` returns ``(logits [B, T, C], aux)`` for the network's input ``x [B, T or 1, ...]`` (float32;
    normalised and encoded like the run's data, images in [0, 1] before that). Norms use their running statistics. It
    can be jitted, and also takes ``inspect=("layer", ...)``; see :class:`csbp_jax.models.base.Network` and
    :class:`csbp_jax.models.taps.Aux`. (A module of the user's own that takes no ``inspect`` is called without it, and
    gives no spikes.) It raises a ValueError for a time step of another shape, or of a dtype that is not floating. T is
    that of the run's data; it may be another, for longer or shorter sequences, unless parameters belong to numbered
    time steps (norms ``tebn`` and ``bntt``, neurons ``psn`` and ``masked_psn``).

    Args:
      run: the folder of a run, or of a published network (runs/published.py); ``hf://USER/NAME`` or
        ``hf://USER/NAME@REVISION``, a published network on the Hugging Face hub; or, where there is no such directory,
        the name of a network that ships with the package, one of ``csbp_jax.weights.shipped.NAMES``. A published
        network has the weights of one epoch, and "last" takes them whichever it is.
      weights_of: "last" for the newest checkpoint, "chosen" for the epoch chosen by validation so far, or "ema" for the
        moving average of the weights at the newest checkpoint.
      trust: execute ``RUN/experiment.py``, the user's code, if the run has such a file. It runs with all your
        permissions: never trust a run of unknown origin.
      own: plugin functions, in place of that file.

    Raises:
      ConfigError: ``run`` is not a run's directory, has no checkpoint, or cannot be read by this version; or it is not
        on the hub, or cannot be downloaded.
    """
    restored = restore(os.fspath(run), weights_of, trust=trust, own=own)
    return _with_input_check(restored.apply, restored.config.model), restored.variables, restored.config


def _with_input_check(apply: Apply, model: configuration.Model) -> Apply:
    """Return ``apply`` that refuses an input of another shape or dtype in one line."""
    expected = f"[B, {model.time_steps} or 1, {', '.join(map(str, model.input_shape))}]"

    @functools.wraps(apply)
    def checked(variables: Any, x: jax.typing.ArrayLike, *arguments: Any, **options: Any) -> tuple[jax.Array, Aux]:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"apply: x is {x.dtype}, but must be float32 {expected}, scaled and normalised as the run's data are "
                "(images: 0 to 1, x / 255 of bytes)"
            )
        if x.ndim != len(model.input_shape) + 2 or x.shape[2:] != model.input_shape:
            remedy = "; add the time axis: x[:, None]" if x.shape[1:] == model.input_shape else ""
            raise ValueError(f"apply: x has shape {x.shape}, but must be {expected}{remedy}")
        return apply(variables, x, *arguments, **options)

    return checked


def restore(
    run: "str | pathlib.Path | RestoredRun",
    weights_of: WeightsOf = "last",
    *,
    trust: bool = False,
    own: Own | None = None,
    data: str | None = None,
) -> RestoredRun:
    """Restore a run like :func:`load`, with its metadata; one that is restored already is returned as it is.

    ``data``: where its ``data.dir`` is now.

    Raises:
      ConfigError: see :func:`load`.
    """
    if isinstance(run, RestoredRun):
        return run
    if weights_of not in get_args(WeightsOf):
        raise ConfigError(f"weights_of: {weights_of!r} is not possible; allowed are {', '.join(get_args(WeightsOf))}")
    folder, output_folder = _locate(run)
    content = run_json.read_run(folder, "whose runs save no weights; train the setting (csbp_jax train)")
    config = run_json.parse_config(folder / "config.json", content["config"])
    is_published = (folder / published.WEIGHTS).is_file()
    if is_published:
        weights_of, epoch = published.published_weights(str(run), content, weights_of)
    elif weights_of == "ema" and not config.optimizer.ema:
        raise ConfigError(f"{folder}: has no moving average of its weights (optimizer.ema 0); take last or chosen")
    config = config.replace("data.dir", data) if data else config
    own = reload(folder, content.get("own", {}), trust, own)
    # The number of steps per epoch changes values in the state, but no shape, so 1 will do.
    recipe = build.build_recipe(config, own, steps_per_epoch=1)
    state = jax.eval_shape(lambda: learner.init(recipe, jax.random.key(config.seed)))
    if is_published:
        variables = published.read_variables(folder, learner.weights_of(state))
    else:
        variables, epoch = _from_checkpoint(
            folder,
            location.checkpoint_dir(folder, trust=trust),
            weights_of,
            learner.weights_of(state),
            run_json.identity(content),
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise ConfigError(f"{folder}: its weights are not finite ({name}); take other weights, or train again")
    classes = content.get("classes", [])
    return RestoredRun(
        folder=output_folder,
        config=config,
        apply=_apply_of(recipe.model),
        variables=variables,
        weights_of=weights_of,
        epoch=epoch,
        data=content.get("data", ""),
        classes=classes if len(classes) == config.model.classes else [],
        own=own,
        neuron=recipe.model.neuron if isinstance(recipe.model, Network) else None,
    )


def _apply_of(model: Any) -> Apply:
    """Return a network's ``apply``, which leaves out ``inspect`` if it is a user's own module that does not take it."""
    apply: Apply = model.apply
    parameters = inspect.signature(type(model).__call__).parameters.values()
    if any(p.name == "inspect" or p.kind == p.VAR_KEYWORD for p in parameters):
        return apply

    def without_inspect(*arguments: Any, **options: Any) -> tuple[jax.Array, Aux]:
        options.pop("inspect", None)
        return apply(*arguments, **options)

    return without_inspect


def load_data(run: RestoredRun, data_dir: str | pathlib.Path) -> tuple[dict[str, DataSource], str]:
    """Load the splits of a run's data and their fingerprint (:func:`csbp_jax.training.build.load_data`).

    Raises:
      ConfigError: they are not there or cannot be loaded, or their classes are not those that the run was trained on.
    """
    directory = run.config.data.dir
    if directory and not run.own.data and not pathlib.Path(directory).is_dir():
        raise ConfigError(
            f"{run.folder}: its data, {directory}, are not there; put them back, or say where they are (--data.dir NEW)"
        )
    splits, fingerprint = build.load_data(run.config, run.own, data_dir)
    count, now = run.config.model.classes, splits["train"].classes
    if now != count:
        raise ConfigError(f"{run.folder}: was trained on {count} classes, but its data have {now}; put them back")
    names, numbers = build.class_names(run.config, splits, data_dir), [str(label) for label in range(count)]
    # Numbers stand for names that are not known.
    if run.classes and numbers not in (run.classes, names) and names != run.classes:
        label = next(i for i in range(count) if names[i] != run.classes[i])
        raise ConfigError(
            f"{run.folder}: class {label} of its data is {names[label]!r}, but was {run.classes[label]!r} in training; "
            "put the data back"
        )
    return splits, fingerprint


def _from_checkpoint(
    folder: pathlib.Path,
    store: os.PathLike[str],
    weights_of: WeightsOf,
    shapes: dict[str, Any],
    identity: dict[str, Any],
) -> tuple[dict[str, Any], int]:
    """Return the variables of a run's newest checkpoint, of which nothing else is read, and their epoch."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # however they were sharded
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
    like: dict[str, Any] = {"chosen": weights | {"epoch": np.asarray(0)}}
    if weights_of != "chosen":
        like = {"state": {"ema": weights} if weights_of == "ema" else weights, "progress": {"epochs": np.asarray(0)}}
    tree = checkpoint.restore_newest(store, like, identity)
    if tree is None and (folder / "result.json").exists():
        raise ConfigError(f"{store}: the checkpoints of this finished run are missing; put them back, or train again")
    if tree is None:
        raise ConfigError(f"{folder}: has no checkpoint yet; train on until it saves one (checkpoint_every)")
    if weights_of == "chosen":
        return {name: tree["chosen"][name] for name in shapes}, int(tree["chosen"]["epoch"])
    state = tree["state"]
    return state["ema"] if weights_of == "ema" else state, int(tree["progress"]["epochs"])


def _locate(run: str | pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Return the folder of a run or published network, and that for what commands write about it."""
    if name := shipped.find(run):
        return shipped.folder(name), shipped.output_folder(name)
    if hub.is_address(run):
        address = hub.parse(run)
        return hub.download(address), hub.output_folder(address)
    return pathlib.Path(run), pathlib.Path(run)
