"""A script of test_pipeline.py, run in several processes: writes the rows of each batch that its devices hold.

The devices of the processes alternate in the mesh, as they may in that of a TPU slice.
"""

import functools
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from csbp_jax import data
from csbp_jax.config import Config
from csbp_jax.runtime import sharding


def main(port, processes, process, out):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)
    try:
        parts = data.load(Config())
        devices = Mesh(np.array(jax.devices()).reshape(processes, -1).T.ravel(), ("data",))
        rows_of = functools.partial(sharding.rows_of, jax.local_devices(), devices)
        train = data.train_batches(parts["train"], 32, seed=3, start_step=37, rows=rows_of(32))
        batches = [sharding.shard_batch(next(train), devices) for _ in range(5)]
        batches += [
            sharding.shard_batch(batch, devices) for batch in data.eval_batches(parts["test"], 100, rows=rows_of(100))
        ]
        rows: dict[str, Any] = {}
        for step, batch in enumerate(batches):
            total = jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(devices))(batch["x"])
            rows[f"{step}/sum"] = np.asarray(total)
            for key, value in batch.items():
                for shard in value.addressable_shards:
                    rows[f"{step}/{key}/{shard.index[0].start or 0}"] = np.asarray(shard.data)
        np.savez(out, **rows)
    finally:
        jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
