"""Errors that nobody can catch, such as those in a library's own threads; Python prints them."""

import os
import sys
import types


def ignore_those_of_orbax() -> None:
    """Do not print what Orbax and TensorStore leave behind where a read or a save has failed; the failure is raised.

    Orbax closes its event loop at the first error. Each of TensorStore's threads that still works for it then reports
    that the loop is closed, and each coroutine that waited for them ends with an error of its own. All other errors are
    printed as before.
    """
    report = sys.unraisablehook

    def report_others(lost: "sys.UnraisableHookArgs") -> None:
        if not _is_left_by_orbax(lost):
            report(lost)

    sys.unraisablehook = report_others


def _is_left_by_orbax(lost: "sys.UnraisableHookArgs") -> bool:
    if isinstance(lost.object, types.CoroutineType):
        return f"{os.sep}orbax{os.sep}" in lost.object.cr_code.co_filename
    return str(lost.exc_value) == "Event loop is closed"
