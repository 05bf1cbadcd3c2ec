"""A process of the command line that sends itself a signal: ``python -m tools.kill_itself NUMBER SIGNAL REPORT WORDS...``.

The signal comes at file operation NUMBER in the working directory; nothing of the program is replaced, as Python calls
an audit hook for each file that is opened, renamed or removed. REPORT then holds ``signal STAGE``, or if the process
ended before, ``end COUNT`` with the number of operations.
"""  # noqa: E501

import contextlib
import os
import pathlib
import runpy
import signal
import sys
import time

STAGES = ("nothing written yet", "set-up, compilation", "steps, saves", "figures, results")


def stage(folder: str | os.PathLike[str], since: float) -> str:
    """The last of STAGES of which a file below ``folder`` was written since a time."""
    reached = 0
    for directory, _, names in os.walk(folder):
        parts = pathlib.Path(directory).relative_to(folder).parts
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # renamed or deleted meanwhile
                if os.stat(os.path.join(directory, name)).st_mtime >= since:
                    begins = parts[:1] == ("cache",) or name.startswith(("lock", "config.json", "metrics.jsonl"))
                    saves = "checkpoints" in parts or "chunks" in parts
                    reached = max(reached, 2 if saves else 1 if begins else 3)
    return STAGES[reached]


def main(number: int, sent: signal.Signals, report: str, words: list[str]) -> None:
    """Run ``csbp_jax WORDS``."""
    began, folder = time.time(), os.getcwd()
    out = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)  # now, as the hook must open nothing
    count, sending = 0, False

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count, sending
        if sending or not event.startswith(("os.", "open", "shutil.")):
            return
        first = arguments[: 1 if event == "open" else 2]  # the second of open is a mode
        paths = [os.path.abspath(os.fsdecode(path)) for path in first if isinstance(path, str | bytes | os.PathLike)]
        if any(path.startswith(folder + os.sep) for path in paths):
            if count == number:
                sending = True
                os.write(out, f"signal {stage(folder, began)}".encode())
                os.kill(os.getpid(), sent)
            count += 1

    sys.addaudithook(hook)
    sys.argv = ["csbp_jax", *words]
    runpy.run_module("csbp_jax", run_name="__main__")
    if not sending:
        os.write(out, f"end {count}".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3], sys.argv[4:])
