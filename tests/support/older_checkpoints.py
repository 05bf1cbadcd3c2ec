"""Checkpoints as other versions wrote them."""

from csbp_jax.training.checkpoint import manifest


def forget_run(checkpoints):
    """Remove what tells the run from the manifest of each checkpoint in a folder, and return what it was."""
    return change_metadata(checkpoints, lambda metadata: metadata.pop("run"))


def forget_array(checkpoints, name):
    """Remove an array, which this version has, from the manifest of each checkpoint in a folder."""
    change_metadata(checkpoints, lambda metadata: metadata["arrays"].pop(name))


def change_metadata(checkpoints, change):
    """Change what the manifest of each checkpoint is about, and return what the changes returned."""
    returned = []
    for folder in sorted(checkpoints.iterdir()):
        metadata = manifest.metadata(folder)
        returned.append(change(metadata))
        (folder / manifest.NAME).unlink()
        manifest.write_manifest(folder, metadata)
    return returned
