"""Resizing against PyTorch's ``interpolate``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import resize


@pytest.mark.parametrize("method", ["nearest", "bilinear", "antialias"])
@pytest.mark.parametrize("size", ["128to48", "34to20", "11x7to16x5"])
def test_as_pytorch(reference, method, size):
    arrays = reference("resize")
    x, expected = arrays[f"{size}.x"], arrays[f"{size}.{method}"]
    # Two examples of two frames and two polarities, all different, so that no axis is taken for another.
    scale = jnp.arange(1.0, 9.0).reshape(2, 2, 1, 1, 2)
    batch = x.astype(np.float32)[None, None, :, :, None] * scale
    found = jax.jit(resize.METHODS[method], static_argnums=1)(batch, expected.shape)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected[None, None, :, :, None] * scale, rtol=1e-4, atol=1e-6)
    if method == "nearest":
        assert set(np.unique(found)) <= set(np.unique(batch))
