"""Whether a run is finished or goes on: decided first, carried out once its checkpoint has been restored.

A checkpoint that cannot be restored, such as one of another version, must leave the run as it was.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from csbp_jax.config import Config, to_json
from csbp_jax.runtime import files, seals
from csbp_jax.training import progress, run_json
from csbp_jax.training.checkpoint import checkpoint


@dataclasses.dataclass(frozen=True)
class Decision:
    """What happens with a run whose folder is open. All of it is JSON, so that process 0 can tell the others.

    Attributes:
      result: the content of ``result.json`` if the run is finished; None if it goes on.
      outdated: why the ``result.json`` of a run that goes on is to be set aside; empty if it has none.
      differing: a description of each field of the config whose value is not that of ``config.json``.
    """

    result: dict[str, Any] | None
    outdated: str
    differing: list[str]


def decide(folder: pathlib.Path, store: str, config: Config) -> Decision:
    """Decide whether a run is finished or goes on, and change nothing.

    A run with a result goes on if ``epochs`` was raised since, unless it stopped early or a callback stopped it. It
    also does if the newest checkpoint is damaged but not the one before: then it repeats its last epochs, as the
    commands that read a run advise.

    Args:
      folder: of the run.
      store: directory or address of its checkpoints.
      config: with which it is to go on.

    Raises:
      ConfigError: ``config.json`` or ``result.json`` cannot be read.
      CheckpointError: the run would have to go on, but no checkpoint is intact.
    """
    differing = run_json.config_differences(run_json.read_config(folder)["config"], to_json(config))
    if not (folder / "result.json").exists():
        return Decision(None, "", differing)
    newest, damaged = checkpoint.newest_intact(store)
    if newest and damaged:
        return Decision(None, f"a checkpoint is damaged ({checkpoint.listed(damaged)})", differing)
    result = run_json.read_result(folder)
    trained = result["last"]["epoch"]
    if "stopped" in result or progress.is_over(config, trained, result["chosen"]["epoch"]):
        return Decision(result, "", differing)
    if newest is None:
        raise checkpoint.none_intact(store, damaged)
    return Decision(None, f"after {trained} of now {config.epochs} epochs", differing)


def carry_out(decision: Decision, folder: pathlib.Path, config: Config, show: Callable[[str], None]) -> None:
    """Set an outdated result aside, and write the values with which the run goes on into its ``config.json``.

    Raises:
      WriteError: the disk is full, or cannot be written.
    """
    if decision.outdated:
        old = files.set_aside(folder / "result.json")
        show(f"{folder}: was finished, but {decision.outdated}; its result is kept as {old.name}")
    if decision.differing:
        content = run_json.read_config(folder)
        schedule = config.optimizer.schedule
        is_longer = config.epochs > content["config"].get("epochs", config.epochs)
        note = ""
        if is_longer and schedule == "cosine":
            note = f"; the {schedule} schedule of the rate is now that of {config.epochs} epochs"
        seals.write_json(folder / "config.json", content | {"config": to_json(config)})
        show(f"{folder}: goes on with other values: {'; '.join(decision.differing)}{note}")


def say_finished(decision: Decision, folder: pathlib.Path, config: Config, show: Callable[[str], None]) -> None:
    """Say that a run is finished, and which values that were asked for have no effect."""
    assert decision.result is not None
    trained = decision.result["last"]["epoch"]
    of_epochs = f" after {trained} epochs, not {config.epochs}" if trained != config.epochs else ""
    show(f"{folder} is finished{of_epochs}; FRESH=1 (--fresh) starts from scratch")
    if decision.differing:
        show(f"{folder}: without effect, as it is finished: {'; '.join(decision.differing)}")
