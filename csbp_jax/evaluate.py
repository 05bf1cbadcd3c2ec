"""The accuracy of a PyTorch checkpoint's weights on a data set, without training."""

import functools
import pathlib

from csbp_jax import data, report
from csbp_jax.config import Config, ConfigError, check
from csbp_jax.program import begin, compile, resolve


def evaluate(
    config: Config, *, data_dir: str | pathlib.Path = "data", console: report.Console | None = None
) -> dict[str, dict[str, float]]:
    """``{"validation": {"count", "accuracy", "loss"}, "test": ...}`` of ``config.weights``; prints them too.

    Raises:
      ConfigError: a value is impossible, no weights are named, or they do not fit.
    """
    console = report.Console(highlight=False, markup=False) if console is None else console
    if not config.weights:
        raise ConfigError("weights: empty; name a PyTorch checkpoint (--weights FILE)")
    parts = data.load(check(config), data_dir)
    config = resolve(config, parts)
    program = compile(config, parts["train"], steps_per_epoch=1)
    state = begin(config, program, functools.partial(console.print, soft_wrap=True))
    results = {part: program.evaluate(state, parts[part]) for part in ("validation", "test")}
    for part, result in results.items():
        console.print(
            f"{part}: {result['accuracy']:.2%} of {result['count']}, loss {result['loss']:.4g}", soft_wrap=True
        )
    return results
