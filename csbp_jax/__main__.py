"""Entry point of ``csbp_jax`` and ``python -m csbp_jax``."""

import contextlib
import io
import os
import sys

from csbp_jax.config.extras import Missing


def run() -> None:
    """Run the command line and exit with its code."""
    if sys.platform == "win32":  # no file locks, signals or private folders as they are needed here
        sys.exit("csbp_jax: runs on Linux and macOS; on Windows use WSL2 (learn.microsoft.com/windows/wsl)")
    _prepare_output()
    try:
        from csbp_jax.cli.main import main, report_os_error
        from csbp_jax.runtime import lost_errors

        lost_errors.ignore_those_of_orbax()
        code = main()
        try:
            sys.stdout.flush()
        except OSError as error:  # short output reaches a closed pipe or a full disk only now
            code = code or report_os_error(error)
    except Missing as error:  # of what the command line itself imports
        print(f"csbp_jax: {error}; of a clone: make setup, then .venv/bin/csbp_jax", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:  # during imports
        code = 130
    if code:
        # An orderly shutdown would crash in the threads of an interrupted compilation, and print pages from those of a
        # failed save.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


def _prepare_output() -> None:
    """Open what the shell has closed (``>&-``), and print names of files that are not UTF-8 as the bytes they are."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # else the next file gets its number, and what compiled code prints
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")


if __name__ == "__main__":
    run()
