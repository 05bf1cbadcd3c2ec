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
    if code == 130:
        # An interrupted compilation still has threads that would crash an orderly shutdown.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)
    sys.exit(code)


if __name__ == "__main__":
    run()
