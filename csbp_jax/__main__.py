"""``python -m csbp_jax`` and the command ``csbp_jax``."""

import os
import sys


def run() -> None:
    """Runs the command line and leaves with its exit code."""
    try:
        from csbp_jax.cli import main

        code = main()
    except KeyboardInterrupt:  # while packages were imported
        code = 130
    if code:
        # An interrupted compilation has threads that would crash an orderly shutdown, a failed save some that would
        # print pages.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    run()
