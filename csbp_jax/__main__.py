"""Entry point of ``csbp_jax`` and ``python -m csbp_jax``."""

import os
import sys


def run() -> None:
    """Run the command line and exit with its code."""
    sys.unraisablehook = _ignore_closed_event_loop
    try:
        from csbp_jax.cli.main import main

        code = main()
    except KeyboardInterrupt:  # during imports
        code = 130
    if code:
        # An orderly shutdown would crash in the threads of an interrupted compilation, and print pages from those of a
        # failed save.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ignore_closed_event_loop(unraisable: "sys.UnraisableHookArgs") -> None:
    """Drop the errors of TensorStore's threads after a failed save, which main reports in one line."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    run()
