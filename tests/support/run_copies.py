"""Copies of a run with other numbers and other fields of its config."""

import json
import shutil

from csbp_jax.training import run_json


def edited(run, folder, *, accuracy=None, **fields):
    """A copy of a run; fields are named with ``__`` for dots. The chosen epoch has half the accuracy of the last."""
    copy = shutil.copytree(run, folder)
    content, result = run_json.read_config(copy), run_json.read_result(copy)
    for name, value in fields.items():
        *path, last = name.split("__")
        fields_at = content["config"]
        for key in path:
            fields_at = fields_at[key]
        fields_at[last] = value
    if accuracy is not None:
        result["last"]["test_accuracy"], result["chosen"]["test_accuracy"] = accuracy, accuracy / 2
    (copy / "config.json").write_text(json.dumps(content))
    (copy / "result.json").write_text(json.dumps(result))
    return copy
