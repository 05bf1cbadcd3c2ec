"""Profiler traces of training steps."""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from csbp_jax.config import ConfigError
from csbp_jax.runtime import files

State = TypeVar("State")
Step = Callable[[State, Any], tuple[State, Any]]


def parse_trace_steps(text: str) -> range:
    """Parse ``START:N`` as steps, counted from 1.

    Raises:
      ConfigError: it has another form.
    """
    match = re.fullmatch("([0-9]{1,18}):([0-9]{1,18})", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise ConfigError(f"--profile: {text!r} is not possible; write START:N, e.g. 20:5 for steps 20 to 24")
    return range(int(match[1]), int(match[1]) + int(match[2]))


@contextlib.contextmanager
def profiled(
    step: Step[State], left: range, steps: range, folder: pathlib.Path, show: Callable[[str], None]
) -> Iterator[Step[State]]:
    """Yield the training step, which writes a trace of the given ``steps`` to ``folder``.

    Args:
      step: ``(state, batch) -> (state, metrics)``.
      left: the steps that the run has left, counted from 1.
      steps: the steps to trace, counted from 1; may be empty.
      folder: directory of the trace.
      show: called with one line if the first of ``steps`` is not among those left, so that nothing is traced.
    """
    done = left.start - 1
    if steps and steps.start not in left:
        have = f"steps {left.start} to {left.stop - 1}" if left else "no steps"
        show(f"--profile: no trace is written: it would start at step {steps.start}, but the run has {have} left")
    with contextlib.ExitStack() as trace:

        def train_step(state: State, batch: Any) -> tuple[State, Any]:
            nonlocal done
            done += 1
            if done == steps.start:
                jax.block_until_ready(state)  # earlier steps may still be running
                files.check_links(folder.parent, folder.name)
                trace.enter_context(jax.profiler.trace(folder))
            state, metrics = step(state, batch)
            if done == steps.stop - 1:
                jax.block_until_ready(state)
                trace.close()
            return state, metrics

        yield train_step
