"""Script that runs NIR graphs in snnTorch or norse, for a Python with torch, snntorch, norse and nirtorch.

python nir_in_peers.py LIBRARY FOLDER: for each FOLDER/NAME.nir and the NAME.npz beside it (``x [T, ...]`` and the
spikes ``[T, ...]`` of some nodes), prints as JSON ``{"name": NAME, "different": ..., "of": ..., "spikes": ...}``.
"""

import json
import pathlib
import sys
import warnings

import nir
import numpy as np
import torch


def read(library, graph):
    if library == "snntorch":
        from snntorch.import_nir import import_from_nir

        return import_from_nir(graph)
    import norse.torch

    return norse.torch.from_nir(graph, ignore_warnings=True, dt=float(graph.metadata["dt"]))


def run(network, x, layers):
    """Return ``{layer: [T, ...]}`` of one example, without a batch axis.

    Both libraries flatten from the axis that NIR counts first.
    """
    outputs: dict[str, list[np.ndarray]] = {layer: [] for layer in layers}

    def recorder(layer):
        def hook(module, arguments, out):
            outputs[layer].append((out[0] if isinstance(out, tuple) else out).numpy())

        return hook

    for name, module in network.named_modules():
        if name.split(".")[-1] in outputs:
            module.register_forward_hook(recorder(name.split(".")[-1]))
    state = None
    with torch.no_grad():
        for x_t in torch.from_numpy(x):
            out = network(x_t) if state is None else network(x_t, state)
            state = out[1] if isinstance(out, tuple) else None
    return {layer: np.stack(rows) for layer, rows in outputs.items()}


def main(library, folder):
    for file in sorted(pathlib.Path(folder).glob("*.nir")):
        with np.load(file.with_suffix(".npz")) as arrays:
            expected = dict(arrays)
        actual = run(read(library, nir.read(file)), expected.pop("x"), expected)
        different = sum(int((actual[layer] != spikes).sum()) for layer, spikes in expected.items())
        counts = {"of": sum(s.size for s in expected.values()), "spikes": int(sum(s.sum() for s in expected.values()))}
        print(json.dumps({"name": file.stem, "different": different, **counts}))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
