"""Errors with one-line messages, each with its own exit code on the command line."""


class ConfigError(ValueError):
    """An invalid option, value or file. The message is one line: what is wrong, where, and what is allowed."""


class CheckpointError(ConfigError):
    """A checkpoint that cannot be written, or a run without a usable checkpoint."""


class Diverged(RuntimeError):
    """A loss or gradient that was not finite for three steps in a row."""


class Lost(RuntimeError):
    """A process of the same run that has ended too early."""
