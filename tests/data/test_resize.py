"""Resizing agrees with PyTorch's ``interpolate``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import resize

SIZES = ("128to48", "34to20", "11x7to16x5")


@pytest.fixture(scope="module")
def cases(reference):
    """For every size: frames, and what each method makes of them here and in PyTorch; compiled as one program."""
    arrays = reference("resize")
    # Two examples of two frames and two polarities, all different, so that mixed-up axes would show.
    scale = np.arange(1.0, 9.0, dtype=np.float32).reshape(2, 2, 1, 1, 2)
    batches = {size: arrays[f"{size}.x"].astype(np.float32)[None, None, :, :, None] * scale for size in SIZES}
    expected = {
        (size, method): arrays[f"{size}.{method}"][None, None, :, :, None] * scale
        for size in SIZES
        for method in resize.METHODS
    }

    @jax.jit
    def resized(batches):
        return {
            size: {method: f(batches[size], expected[size, method].shape[2:4]) for method, f in resize.METHODS.items()}
            for size in SIZES
        }

    return batches, resized(batches), expected


@pytest.mark.parametrize("method", resize.METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_pytorch(cases, method, size):
    batches, resized, expected = cases
    out = resized[size][method]
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected[size, method], rtol=1e-4, atol=1e-6)
    if method == "nearest":
        assert set(np.unique(out)) <= set(np.unique(batches[size]))
