"""The command line: runs a command, prints errors as one line, and returns an exit code."""

import contextlib
import errno
import inspect
import os
import re
import select
import shutil
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import IO

from csbp_jax import __version__
from csbp_jax.cli.commands import COMMANDS
from csbp_jax.cli.parsing import HELP
from csbp_jax.cli.parsing import usage as arguments
from csbp_jax.cli.run_commands import call
from csbp_jax.config import FULL, CheckpointError, ConfigError, Diverged, Lost, escaped, lacks_memory, suggestion
from csbp_jax.runtime import compilation_cache
from csbp_jax.runtime.preemption import Stopped, on_signals
from csbp_jax.training.plugin_file import error_line

CLOSED_PIPE = 141
"""Exit code where the reader of the output has gone: 128 and SIGPIPE's number, as of other programs."""

_LONG = {
    "train": "resumes",
    "sweep": "resumes",
    "best": "resumes",
    "robustness": "begins again",
    "lr": "begins again",
    "track": "continues",
    "tensorboard": "rewrites all events",
}
"""Commands that take long, and what the same command does after a stop."""

_EXIT_CODES = """\
Exit codes: 0 done, 2 wrong option, value or file, 3 diverged, 4 checkpoint unusable or a file of a run not written, 5
another process of the run has ended, 42 stopped by SIGTERM (the same command resumes), 130 interrupted by Ctrl-C
(likewise); docs/running.md."""

_DATA_SETS = (
    "DATASET is digits, which needs no download, or one of csbp_jax list presets: data sets, and presets of them."
)


def usage() -> str:
    """List commands, exit codes and data sets, within the width of the terminal."""
    lines = [
        "usage: csbp_jax COMMAND ...",
        "       csbp_jax --version",
        "",
        "Commands; csbp_jax COMMAND --help lists the options of one:",
    ]
    for name, (options, _) in COMMANDS.items():
        summary = inspect.cleandoc(options.__doc__ or "").partition("\n")[0]
        lines += [f"  csbp_jax {name} {arguments(options)}", _wrapped(summary, "      ")]
    lines += ["", _wrapped(_EXIT_CODES), "", _wrapped(_DATA_SETS)]
    return "\n".join(lines)


def _wrapped(text: str, indent: str = "") -> str:
    """Break a text at the width of the terminal (``COLUMNS``, or 80), at most 120."""
    width = min(shutil.get_terminal_size().columns, 120)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; errors are printed as one line."""
    argv = sys.argv[1:] if argv is None else argv
    command = argv[0] if argv else ""
    try:
        if not argv or command in HELP:
            print(usage())
        elif command == "--version":
            print("csbp_jax", __version__)
        elif command in COMMANDS:
            compilation_cache.enable(os.environ, lambda message: print("csbp_jax:", message, file=sys.stderr))
            kind, run = COMMANDS[command]
            with on_signals() if command in _LONG else contextlib.nullcontext():
                if isinstance(run, str):
                    call(command, kind, run, argv[1:])
                else:
                    run(argv[1:])
        else:
            raise ConfigError(f"there is no command {command!r}; {suggestion(command, COMMANDS)} (csbp_jax --help)")
    except Diverged as error:
        return _fail(error, 3)
    except Lost as error:
        return _fail(error, 5)
    except CheckpointError as error:
        return _fail(error, 4)
    except Stopped as stopped:
        done = f" after step {stopped.step}, and all is saved" if stopped.step else ""
        return _fail(f"stopped{done}; the same command {_LONG.get(command, 'can be run again')}", stopped.code)
    except OSError as error:
        return report_os_error(error)
    except ConfigError as error:
        return _fail(error, 2)
    except SystemExit as stop:
        if stop.code:
            raise
        return 0  # --help
    except Exception as error:
        if line := error_line(error):
            return _fail(line, 2)
        if line := _lack(error):
            if os.environ.get("CSBP_TRACEBACK") == "1":
                traceback.print_exception(error)
            return _fail(line, 2)
        raise
    except KeyboardInterrupt:
        return _fail(f"interrupted; the same command {_LONG.get(command, 'can be run again')}", 130)
    return 0


def _lack(error: Exception) -> str | None:
    """Describe an error by what the machine lacks, memory or a device, in one line; None for other errors."""
    cause = str(error).strip().partition("\n")[0][:200] or type(error).__name__
    if "DNN library initialization failed" in cause:
        return (
            f"cuDNN cannot start ({cause}); another process may hold the GPU's memory, see docs/scale.md#memory, or "
            "cuDNN may be older than the one that JAX needs"
        )
    if isinstance(error, OverflowError) or lacks_memory(error):
        return (
            f"out of memory ({cause}); give a smaller batch_size or eval_batch_size, for a sweep a smaller --chunk, or "
            "see docs/scale.md#memory"
        )
    # JAX reads its variables of the environment in two ways, each with a message of its own.
    if match := re.search("invalid .* for environment '?(\\w+)|Invalid value .* for JAX flag (\\w+)", cause):
        variable = (match[1] or match[2]).upper()
        return f"{variable}: {cause}; unset it, or give it another value"
    if "jax" not in sys.modules:
        return None
    from csbp_jax.runtime import hardware

    return hardware.start_problem(error)


def report_os_error(error: OSError) -> int:
    """Print an error of the operating system as one line, but for a closed output, and return its exit code."""
    if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):
        return CLOSED_PIPE
    if line := error_line(error):
        return _fail(line, 2)
    if error.errno == errno.ENOENT and not os.stat(os.curdir).st_nlink:
        return _fail("the working directory was deleted; change to one that exists", 2)
    full = error.errno in FULL
    return _fail(f"{error}; make room, and the same command resumes" if full else error, 4 if full else 2)


def _is_closed(stream: IO[str]) -> bool:
    """Return whether the reader of a pipe has gone, as ``head`` does."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _fail(message: object, code: int) -> int:
    # One line: names of files may contain line breaks, and what a terminal takes for commands.
    line = "\\n".join(escaped(str(message)).splitlines())
    line = line if len(line) <= 2000 else f"{line[:1400]} ... {line[-600:]}"  # what to do is said last
    with contextlib.suppress(OSError):  # the log may be on the disk that is full
        print("csbp_jax:", line, file=sys.stderr)
    return code
