"""A full disk, simulated by a limit on the size of files: those who write raise errors of the same kind."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(most):
    """Let no file grow beyond ``most`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
