"""A stop requested at a chosen time."""

import gc
import signal

from csbp_jax.runtime.preemption import Stop


class After(Stop):
    """Requests a stop when a run has looked ``times`` times: once a step, a validation and a batch of one."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def poll(self):
        self.times -= 1
        return 42 if self.times < 0 else None


def send_within_collection(number):
    """Send this process a signal within a callback of the garbage collector, which loses what its handler raises."""

    def once(phase, info):
        gc.callbacks.remove(once)
        signal.raise_signal(number)

    gc.callbacks.append(once)
    gc.collect()
