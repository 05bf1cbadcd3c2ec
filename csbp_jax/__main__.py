"""``python -m csbp_jax`` and the command ``csbp_jax``."""

import os
import sys


def run() -> None:
    """Runs the command line and leaves with its exit code."""
    sys.unraisablehook = _without_echoes
    try:
        from csbp_jax.cli.main import main

        code = main()
    except KeyboardInterrupt:  # while packages were imported
        code = 130
    if code:
        # An interrupted compilation has threads that would crash an orderly shutdown, a failed save some that would
        # print pages.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _without_echoes(unraisable):
    """After a failed save, which is told in one line, TensorStore's threads report each of its parts to nobody."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    run()
