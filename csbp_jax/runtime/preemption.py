"""Stopping from outside: SIGTERM, which announces a preemption, and Ctrl-C."""

import contextlib
import os
import signal
from collections.abc import Iterator

CODES = {signal.SIGTERM: 42, signal.SIGINT: 130}
"""Exit codes of a process that stopped when told to, and whose command goes on where it stopped."""

_AGAIN = b"\ncsbp_jax: stopping after this step; Ctrl-C again stops at once (from the last checkpoint it goes on)\n"


class Stopped(BaseException):
    """It was told to stop; in training, after which step. No Exception, so that nothing takes it for a failure."""

    def __init__(self, code: int, step: int | None = None):
        super().__init__(code, step)
        self.code, self.step = code, step


class Stop:
    """Whether a process was told to stop, by which exit code. It stops at once, save within ``held``."""

    def __init__(self) -> None:
        self._code: int | None = None
        self._held = False

    @property
    def code(self) -> int | None:
        """The exit code to stop with; None till it is told."""
        return self._code

    def tell(self, code: int) -> None:
        """Tells it to stop; the first code counts.

        Raises:
          Stopped: outside ``held``.
        """
        self._code = self._code or code
        if not self._held:
            self.check()

    def check(self) -> None:
        """Raises Stopped if it was told to stop."""
        if self.code is not None:
            raise Stopped(self.code)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within, being told raises nothing; the work calls ``check`` where it can stop with nothing lost."""
        self._held = True
        try:
            yield
        finally:
            self._held = False


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """A Stop that SIGTERM and Ctrl-C tell, for the main thread. A second Ctrl-C ends the process, whatever it does.

    A signal that is ignored, as shells' background jobs ignore Ctrl-C, stays so.
    """
    stop = Stop()

    def handle(number, _frame):
        if number == signal.SIGINT:
            # The kernel itself then ends the process, also within a long compilation, where no Python runs.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if stop.code is None and stop._held:
                os.write(2, _AGAIN)  # print is not safe in a handler
        stop.tell(CODES[number])

    before = {number: signal.getsignal(number) for number in CODES}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
