"""One of two processes that sum over all their devices, where process 0 is late. Run by test_multihost.py."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from csbp_jax.runtime import multihost, sharding
from csbp_jax.runtime.preemption import Stop

SECONDS = 45  # gloo connects for at most 30


def main(how, late):
    def wait():
        time.sleep(SECONDS * multihost.is_host0())

    with multihost.connected(how, Stop()):
        mesh = sharding.data_parallel()
        ones = sharding.shard_batch(np.ones(jax.local_device_count(), np.float32), mesh)
        if late == "in loading":
            multihost.host0_first(wait)
        else:
            wait()
        print(float(jax.jit(jnp.sum, out_shardings=sharding.replicated(mesh))(ones)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
