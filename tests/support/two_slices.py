"""Prints the program of a training step that TPU's compiler makes for two slices of 2x2 v5e; nothing is run."""

import dataclasses
import os
import sys
from typing import Any

from benchmarks.tpu_programs import load, lower_step, mesh_of, optimise


def main(layout: Any) -> None:
    mesh = mesh_of("2 x v5e 2x2")
    config, _ = load("digits", mesh.size)
    model = dataclasses.replace(config.model, name="dense", features=(128, 128))
    chaos = dataclasses.replace(config.chaos, taps=("fc1.membrane",))
    config = dataclasses.replace(config, model=model, chaos=chaos, layout=layout)
    print(optimise(lower_step(config, 8, mesh), code=False, xla_options={}).text, flush=True)
    os._exit(0)  # XLA goes on


if __name__ == "__main__":
    main(sys.argv[1])
