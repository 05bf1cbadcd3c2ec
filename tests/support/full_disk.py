"""A disk that takes no more, by a limit on the size of files: a write then fails as on a full one, by another errno."""

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
