"""Entry point of ``csbp_jax`` and ``python -m csbp_jax``."""

import contextlib
import os
import sys


def run() -> None:
    """Run the command line and exit with its code."""
    sys.unraisablehook = _ignore_closed_event_loop
    try:
        from csbp_jax.cli.main import CLOSED_PIPE, main

        code = main()
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # short output reaches the pipe only now
            code = CLOSED_PIPE
    except KeyboardInterrupt:  # during imports
        code = 130
    if code:
        # An orderly shutdown would crash in the threads of an interrupted compilation, and print pages from those of a
        # failed save.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ignore_closed_event_loop(unraisable: "sys.UnraisableHookArgs") -> None:
    """Drop the errors of TensorStore's threads after a failed save, which main reports in one line."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    run()
