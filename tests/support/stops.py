"""A stop requested at a chosen time."""

from csbp_jax.runtime.preemption import Stop


class After(Stop):
    """Requests a stop when a run has looked ``times`` times: once a step, a validation and a batch of one."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    @property
    def code(self):
        self.times -= 1
        return 42 if self.times < 0 else None
