"""Stop requests from outside: SIGTERM, which announces a preemption, SIGHUP of a lost terminal, and Ctrl-C."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

CODES = {signal.SIGTERM: 42, signal.SIGHUP: 42, signal.SIGINT: 130}
"""Exit codes after a stop request; a session that ends (SIGHUP) is one. The same command resumes where it stopped."""

_AGAIN = b"\ncsbp_jax: stopping after this step; Ctrl-C again stops at once (and resumes from the last checkpoint)\n"


class Stopped(BaseException):
    """Raised when a stop request is honoured. It is not an ``Exception``, so that no handler takes it for a failure.

    Attributes:
      code: exit code of the process.
      step: the last training step that was done, if training was stopped.
    """

    def __init__(self, code: int, step: int | None = None):
        super().__init__(code, step)
        self.code, self.step = code, step


class Stop:
    """A request to stop. It raises :class:`Stopped` at once, except within :meth:`deferred`."""

    def __init__(self) -> None:
        self._code: int | None = None
        self._deferred = False

    def poll(self) -> int | None:
        """Return the exit code of the request, None if there is none. All processes of a run poll equally often."""
        return self._code

    def request(self, code: int) -> None:
        """Request a stop; the code of the first request counts.

        Raises:
          Stopped: outside ``deferred``.
        """
        self._code = self._code or code
        if not self._deferred:
            self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """Raise Stopped if a stop was requested."""
        if (code := self.poll()) is not None:
            raise Stopped(code)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer requests: within the block, only ``raise_if_requested`` raises, called where nothing would be lost."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False


_of_signals: list[Stop] = []


def current() -> Stop:
    """Return the Stop of the innermost :func:`on_signals`, or one that nothing requests if there is none.

    Loops call its ``raise_if_requested``: what a signal's handler raises is lost within a callback of Python's garbage
    collector, such as JAX has.
    """
    return _of_signals[-1] if _of_signals else Stop()


@contextlib.contextmanager
def on_signals() -> Iterator[Stop]:
    """Yield a Stop that SIGTERM, SIGHUP and Ctrl-C request; main thread only. A second Ctrl-C always ends the process.

    A signal that is ignored stays ignored: background jobs of a shell ignore Ctrl-C, and those of ``nohup`` SIGHUP.
    """
    stop, report_lost = Stop(), sys.unraisablehook

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            # From now on the kernel ends the process, even during a long compilation, when no Python code runs.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if stop.poll() is None and stop._deferred:
                os.write(2, _AGAIN)  # print is not safe in a signal handler
        stop.request(CODES[signal.Signals(number)])

    def report_unless_stopped(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, Stopped):  # the request is not lost
            report_lost(lost)

    before = {number: signal.getsignal(number) for number in CODES}
    _of_signals.append(stop)
    sys.unraisablehook = report_unless_stopped
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, handle)
        yield stop
    finally:
        _of_signals.pop()
        sys.unraisablehook = report_lost
        for number, handler in before.items():
            signal.signal(number, handler)
