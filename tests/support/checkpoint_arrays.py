"""The arrays of a run's newest checkpoint, by Orbax alone."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from csbp_jax.training.checkpoint import layout


def arrays(folder):
    """``{path: (dtype, shape, bytes)}`` of all that the newest checkpoint in ``folder`` holds."""
    newest = list(layout.complete(folder.absolute()).values())[-1]
    with ocp.StandardCheckpointer() as orbax:
        shapes = orbax.metadata(newest).item_metadata.tree
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
        tree = orbax.restore(newest, like)
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    plain = {jax.tree_util.keystr(path, simple=True, separator="/"): _plain(leaf) for path, leaf in leaves}
    return {name: (str(leaf.dtype), leaf.shape, leaf.tobytes()) for name, leaf in plain.items()}


def _plain(leaf):
    key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if key else leaf)
