"""Learning-rate range test (Smith 2017, arXiv:1506.01186): a short run whose rate rises exponentially.

The loss falls where rates are large enough, and rises where they are too large. The rate is traced, so that the run has
one compilation; schedule and warm-up are left out, all else is the config's, its chaos term too.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from csbp_jax import data, weights
from csbp_jax.config import Config, ConfigError
from csbp_jax.reporting import plots_training
from csbp_jax.reporting.terminal import Console, make_console
from csbp_jax.runtime import files, preemption
from csbp_jax.training.build import load
from csbp_jax.training.compiled import CompiledRun, compile_run, initial_state
from csbp_jax.training.plugins import Own, plugin_run_name

_MEMORY = 0.9  # of the smoothed loss, a step
_WORSE = 4.0  # times the lowest smoothed loss: the run ends


MAX_STEPS = 1_000_000
"""Most steps of a run with a rising rate."""


@dataclasses.dataclass(frozen=True)
class RateRange:
    """``steps`` learning rates from ``low`` to ``high``, evenly in their logarithm.

    Raises:
      ConfigError: not 0 < low < high, or not 10 to ``MAX_STEPS`` steps.
    """

    low: float = 1e-5
    high: float = 10.0
    steps: int = 100

    def __post_init__(self) -> None:
        low, high, steps = self.low, self.high, self.steps
        if not (0 < low < high < math.inf and 10 <= steps <= MAX_STEPS):
            raise ConfigError(
                f"--low, --high, --steps: {low}, {high}, {steps}; give 0 < low < high and 10 to {MAX_STEPS:,} steps"
            )


def find(
    config: Config,
    *,
    rates: RateRange = RateRange(),
    out: str | pathlib.Path | None = None,
    data_dir: str | pathlib.Path = "data",
    own: Own = Own(),
    console: Console | None = None,
) -> dict[str, Any]:
    """Train for one step at each rate, or until the loss has blown up, and suggest a learning rate.

    Args:
      config: what would be trained; its ``optimizer.lr`` is not used.
      rates: the learning rates, one per step.
      out: where ``lr.json`` and ``lr.png`` are written; by default ``lr/NAME``, with the name of the run.
      data_dir: directory of prepared data sets.
      own: parts of your own, as ``train`` takes them.
      console: where progress is shown; the terminal by default.

    Returns:
      What ``lr.json`` holds: ``rates`` and the task ``losses`` of the batches before their steps, ``smoothed`` losses,
      and of :func:`suggest` ``suggested`` and ``steepest``.

    Raises:
      ConfigError: a value is impossible, the directory cannot be written, the first step is
        not finite, or no rate lowered the loss.
    """
    console = make_console() if console is None else console
    folder = pathlib.Path("lr") / plugin_run_name(config, own) if out is None else pathlib.Path(out)
    values = np.geomspace(rates.low, rates.high, rates.steps)
    flat = config.replace(**{"optimizer.schedule": "constant", "optimizer.warmup_epochs": 0})
    flat, splits, _, plan = load(flat, own, data_dir)
    steps = data.steps_per_epoch(splits["train"], flat.batch_size, flat.data.buckets)
    run = compile_run(flat, splits["train"], steps, own)
    run.trace()
    if problem := files.write_problem(folder):
        raise ConfigError(f"{folder}: cannot be written ({problem}); give another directory (--out)")
    losses = _losses(run, plan, values, functools.partial(console.print, soft_wrap=True))
    used = values[: len(losses)]
    result = {"rates": used.tolist(), "losses": losses} | suggest(used, losses)
    files.write_json(folder / "lr.json", result)
    plots_training.draw_lr_finder(folder / "lr.png", result)
    reach = "" if len(losses) < rates.steps else f", where the loss had not blown up at {rates.high:.2g}"
    console.print(
        f"try --optimizer.lr {result['suggested']:.2g} (the config has {config.optimizer.lr:g}); the loss falls "
        f"fastest at {result['steepest']:.2g}{reach}",
        soft_wrap=True,
    )
    console.print(f"figure {folder / 'lr.png'}", soft_wrap=True)
    return result


def suggest(rates: np.ndarray, losses: list[float]) -> dict[str, Any]:
    """Suggest a learning rate from the loss over rising rates: ``{smoothed, suggested, steepest}``.

    smoothed: running mean of the losses with memory 0.9, without the bias of its start. steepest: the rate where it
    falls fastest in the logarithm of the rate, up to its minimum. suggested: that one or a tenth of the rate at the
    minimum, whichever is smaller; both are usual.

    Raises:
      ConfigError: there are no losses, or the minimum is at the start.

    >>> rates = 10.0 ** np.linspace(-4, 1, 101)
    >>> result = suggest(rates, [min(1, 1 / (300 * r)) + r for r in rates])
    >>> 0.005 < result["suggested"] < 0.02 and result["suggested"] <= result["steepest"] < 0.06
    True
    """
    if not losses:
        raise ConfigError(
            "no learning rate can be suggested: the loss or its gradient is not finite at the first step, before any "
            "rate has an effect; try a smaller chaos.z0"
        )
    means = np.array(list(smooth(losses)))
    lowest = int(means.argmin())
    if lowest < 2:
        raise ConfigError(f"--low: no rate from {rates[0]:.2g} to {rates[-1]:.2g} lowered the loss; give a lower one")
    slopes = np.gradient(means[: lowest + 1], np.log(rates[: lowest + 1]))
    steepest = float(rates[int(slopes.argmin())])
    return {"smoothed": means.tolist(), "suggested": min(float(rates[lowest] / 10), steepest), "steepest": steepest}


def smooth(losses: Iterable[float]) -> Iterator[float]:
    """Yield the bias-corrected running mean at each loss: ``m / (1 - b**n)``, ``m <- b m + (1 - b) loss``, b = 0.9."""
    mean = 0.0
    for n, loss in enumerate(losses, start=1):
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        yield mean / (1 - _MEMORY**n)


def _losses(run: CompiledRun, plan: weights.Plan | None, rates: np.ndarray, show: Callable[[str], None]) -> list[float]:
    """Return the task loss of each step's batch, until it is not finite or the smoothed loss has blown up."""
    losses: list[float] = []
    means, lowest = smooth(losses), math.inf  # of losses as they are appended
    with contextlib.closing(run.batches(run.config.seed)) as host_batches:
        state = initial_state(run, plan, show)
        for batch, rate in zip(map(run.shard_batch, host_batches), rates, strict=False):
            preemption.current().raise_if_requested()
            lr = jax.device_put(np.asarray(rate, state.hparams["lr"].dtype), state.step.sharding)
            state = dataclasses.replace(state, hparams=state.hparams | {"lr": lr})
            state, metrics = run.train_step(state, batch)
            if metrics["bad_steps"] > 0:
                break
            losses.append(float(metrics["task_loss"]))
            mean = next(means)
            lowest = min(lowest, mean)
            if len(losses) >= 10 and mean > _WORSE * lowest:
                break
    return losses
