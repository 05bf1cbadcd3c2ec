"""Export of a run's network to other programs: its arrays, its function (StableHLO), its graph (NIR)."""

import json
import pathlib
from typing import Literal

from csbp_jax import __version__, data
from csbp_jax.config import extras, to_json
from csbp_jax.evaluation.outputs import check_file, output_folder
from csbp_jax.export import arrays, stablehlo
from csbp_jax.runs import restore
from csbp_jax.runtime import files
from csbp_jax.training.plugins import Own

Form = Literal["safetensors", "npz", "stablehlo", "nir"]
_WRITERS = {"safetensors": arrays.safetensors, "npz": arrays.npz, "stablehlo": stablehlo.write}


def export(
    run: str | pathlib.Path,
    to: Form = "safetensors",
    out: str | pathlib.Path | None = None,
    *,
    weights_of: restore.WeightsOf = "last",
    trust: bool = False,
    own: Own | None = None,
    data_dir: str | pathlib.Path = "data",
) -> pathlib.Path:
    """Write a run's network to a file, completely or not at all, and return its path.

    Args:
      run: the run's folder.
      to: "safetensors" or "npz", its arrays (:mod:`csbp_jax.export.arrays`); "stablehlo", its function
        (:mod:`csbp_jax.export.stablehlo`); "nir", its graph (:mod:`csbp_jax.export.nir_graph`).
      out: the file; by default ``RUN/export/WEIGHTS_OF.FORM``, or ``evaluation/RUN/export/WEIGHTS_OF.FORM`` for a run
        that cannot be written.
      weights_of: weights of the "last" epoch, of the epoch "chosen" by validation, or their moving average, "ema".
      trust: execute the run's own code, if it has any (:func:`csbp_jax.runs.restore.load`).
      own: the run's own parts, if it was made from Python with some.
      data_dir: folder of prepared data sets, read for the names of classes if the run's folder lacks them.

    Raises:
      ConfigError: no such run, the file cannot be written, or the network cannot be expressed in the form; names the
        layer.
    """
    if to == "nir":
        extras.need("nir", "--to nir")
        from csbp_jax.export import nir_graph
    write = nir_graph.write if to == "nir" else _WRITERS[to]
    restored = restore.restore(run, weights_of, trust=trust, own=own)
    name = f"{restored.weights_of}.{to}"  # of a published network, the weights that it has
    file = pathlib.Path(out) if out else output_folder(restored.folder, "export") / "export" / name
    check_file(file)
    texts = metadata(restored, data_dir)
    with files.replacing(file) as temporary:
        write(restored, texts, temporary)
    if to == "stablehlo":
        files.write_json(file.with_name(file.name + ".json"), texts)
    return file


def metadata(run: restore.RestoredRun, data_dir: str | pathlib.Path = "data") -> dict[str, str]:
    """Return what describes a network, as texts: version, run, epoch; config and names of classes as JSON."""
    return {
        "producer": f"csbp_jax {__version__}",
        "run": run.folder.resolve().name.encode(errors="backslashreplace").decode(),  # it may not be UTF-8
        "weights_of": run.weights_of,
        "epoch": str(run.epoch),
        "config": json.dumps(to_json(run.config)),
        "classes": json.dumps(run.classes or data.classes(run.config, data_dir)),
    }
