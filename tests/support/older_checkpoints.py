"""Checkpoints as older versions wrote them: their manifests do not name their run."""

from csbp_jax.training.checkpoint import manifest


def forget_run(checkpoints):
    """Remove what tells the run from the manifest of each checkpoint in a folder, and return what it was."""
    runs = []
    for folder in sorted(checkpoints.iterdir()):
        metadata = manifest.metadata(folder)
        runs.append(metadata.pop("run"))
        (folder / manifest.NAME).unlink()
        manifest.write_manifest(folder, metadata)
    return runs
