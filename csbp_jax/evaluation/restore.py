"""A run's folder, read back: its config, its network, and the weights that it learnt."""

import pathlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from csbp_jax import learner
from csbp_jax.config import Config, ConfigError, check, from_json
from csbp_jax.training import build, run_dir
from csbp_jax.training.checkpoint import checkpoint, location
from csbp_jax.training.loop import unsaved
from csbp_jax.training.plugin_file import reload
from csbp_jax.training.plugins import Own

WeightsOf = Literal["last", "chosen", "ema"]


WEIGHTS_LABELS = {
    "last": "weights of the last epoch",
    "chosen": "weights of the chosen epoch",
    "ema": "moving average of the weights at the last epoch",
}
"""For tables."""


class RestoredRun(NamedTuple):
    folder: pathlib.Path
    config: Config
    """Whole: what the model left to the data is filled in."""
    apply: Callable[..., Any]
    """The network's, see :func:`load`."""
    variables: dict[str, Any]
    which: WeightsOf
    epoch: int
    """Whose weights these are, from 1."""
    data: str
    """``run_folder.fingerprint`` of its data when it began; empty if it was not kept."""
    classes: list[str]
    """Their names, in the order of their labels; empty if they were not kept."""
    own: Own = Own()


def load(
    run: str | pathlib.Path, epoch: WeightsOf = "last", *, trust: bool = False, own: Own | None = None
) -> tuple[Callable[..., Any], dict[str, Any], Config]:
    """The network of a finished or stopped run, with its weights.

    ``apply(variables, x)`` gives ``(logits [B, T, C], aux)`` for ``x [B, T or 1, ...]`` as the network sees it
    (float32; normalised and encoded as the run's data are), normed by the running statistics; jittable. It also takes
    ``inspect=("layer", ...)``; see :class:`csbp_jax.models.base.Network` and :class:`csbp_jax.models.taps.Aux`.

    Args:
      run: the run's folder.
      epoch: "last", the newest checkpoint, "chosen", the epoch that validation chose up to there, or "ema", the moving
        average of the weights at the newest checkpoint.
      trust: run the file of the user's own parts, ``RUN/experiment.py``, if the run has some. It can do all that you
        may: never trust a run of which you do not know who made it.
      own: those parts, in place of the file.

    Raises:
      ConfigError: no run's folder, one without a checkpoint, or what this version cannot read; says which.
    """
    opened = restore(run, epoch, trust=trust, own=own)
    return opened.apply, opened.variables, opened.config


def restore(
    run: str | pathlib.Path, which: WeightsOf = "last", *, trust: bool = False, own: Own | None = None
) -> RestoredRun:
    """As :func:`load`, with all that is known of the run."""
    folder = pathlib.Path(run)
    if which not in get_args(WeightsOf):
        raise ConfigError(f"weights of: {which!r} is not possible; allowed are {', '.join(get_args(WeightsOf))}")
    content = _about(folder)
    config = _config(folder / "config.json", content["config"])
    if which == "ema" and not config.optimizer.ema:
        raise ConfigError(f"{folder}: has no moving average of its weights (optimizer.ema 0); take last or chosen")
    own = reload(folder, content.get("own", {}), trust, own)
    # The number of steps in an epoch changes values in the state, and no shape.
    model, tx, loss, term = build.build(config, own, steps_per_epoch=1)
    init, train_step, _ = learner.make(model, tx, loss, config, term=term)
    state = jax.eval_shape(init, jax.random.key(config.seed))
    like = unsaved(state, metric_shapes(config, train_step, state))
    tree = checkpoint.restore_newest(location.checkpoint_dir(folder), jax.tree.map(_here, like))
    if tree is None:
        raise ConfigError(f"{folder}: has no checkpoint yet; train on until it saves one (checkpoint_every)")
    epoch = int(tree["progress"]["epochs"])
    if which != "chosen":
        state = learner.with_ema_weights(tree["state"]) if which == "ema" else tree["state"]
        variables = {"params": state.params, "batch_stats": state.batch_stats}
    else:
        variables = {key: tree["chosen"][key] for key in ("params", "batch_stats")}
        epoch = int(tree["chosen"]["epoch"])
    return RestoredRun(
        folder, config, model.apply, variables, which, epoch, content.get("data", ""), _classes(content, config), own
    )


def _classes(content, config):
    names = content.get("classes", [])
    return names if len(names) == config.model.classes else []


def metric_shapes(config: Config, train_step: Callable, state: Any) -> Any:
    """The shapes of what a step measures."""
    x = jax.ShapeDtypeStruct((config.batch_size, 1, *config.model.input_shape), jnp.float32)
    return jax.eval_shape(train_step, state, {"x": x, "y": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32)})[1]


def _here(leaf):
    """What a device holds goes to the first one here, wherever it was; counts stay on the host."""
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)


def _about(folder):
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; name a run's, such as runs/NAME")
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: is no run's folder, it has no config.json; name one such as runs/NAME")
    content = run_dir.read_json(folder / "config.json", "config")
    if isinstance(content["config"], dict) and "grid" in content["config"]:
        raise ConfigError(f"{folder}: is a sweep, whose members keep no weights; train the setting (csbp_jax train)")
    return content


def _config(file, content):
    try:
        return check(from_json(content))
    except ConfigError as error:
        reason = str(error)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
    raise ConfigError(f"{file}: not of this version of csbp_jax ({reason}); use the one that trained it")
