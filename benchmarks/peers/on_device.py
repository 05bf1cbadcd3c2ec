"""Time a training step with SpikingJelly's neurons on a GPU, or on the CPU where there is none.

    python -m benchmarks.peers.on_device FILE MODE KERNELS        in an environment with torch and SpikingJelly

FILE.json is the config and FILE.npz the batch and the weights, as benchmarks.device_parts writes them; MODE is eager or
compile; KERNELS is what computes SpikingJelly's neurons on a GPU, triton or torch. Prints a line of JSON for each
precision and layout.
"""

import itertools
import json
import os
import pathlib
import sys
import time

import numpy as np
import torch

from benchmarks.peers import LAYOUTS


def main() -> None:
    file, mode, kernels = pathlib.Path(sys.argv[1]), *sys.argv[2:]
    # SpikingJelly reads these as it is imported.
    os.environ.update({"SJ_LIF_CUDA_IMPLEMENTATION": kernels, "SJ_IF_CUDA_IMPLEMENTATION": kernels})
    from benchmarks.peers import in_spikingjelly

    config = json.loads(file.with_suffix(".json").read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = {name: config["optimizer"][name] for name in ("lr", "momentum")}
    for precision, layout in itertools.product(("float32", "bfloat16"), LAYOUTS):
        more = {"layout": layout, "device": device, "mode": "default" if mode == "compile" else None}
        more["precision"] = precision
        program = in_spikingjelly.step(model=config["model"], batch_file=str(file), **rate, **more)
        (step,), seconds = program.stages, list[float]()
        for _ in range(3):
            step()
        while len(seconds) < 3 or (sum(seconds) < 2 and len(seconds) < 200):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        row = {"library": f"SpikingJelly, {mode}", "layout": layout, "device": device, **in_spikingjelly.VERSIONS}
        row |= {"precision": precision, "batch": config["batch_size"], "kernels": kernels}
        row["program"] = "forward, backward and torch.optim.SGD"
        loss = float(program.check()["losses"][0])
        print(json.dumps(row | {"ms": 1e3 * float(np.median(seconds)), "loss": loss}), flush=True)


if __name__ == "__main__":
    main()
