"""Mixup and CutMix: the label has the proportion that is visible."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import mix

B, C = 64, 10
# Example i is full of the number i + 1 and has label i mod 10.
X = np.broadcast_to(np.arange(1.0, B + 1, dtype=np.float32).reshape(B, 1, 1, 1, 1), (B, 3, 12, 16, 2))
Y = np.arange(B) % C
FUNCTIONS = {"mixup": jax.jit(mix.mixup), "cutmix": jax.jit(mix.cutmix)}


def partner(i):
    return (i - 1) % B


@pytest.fixture(scope="module")
def labels():
    return mix.probabilities(jnp.asarray(Y), C)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_labels_are_probabilities_in_the_visible_proportion(labels, name):
    out, p = FUNCTIONS[name](jax.random.key(0), X, labels)
    chex.assert_shape([out, p], [X.shape, (B, C)])
    assert out.dtype == p.dtype == jnp.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    for i, (x, label) in enumerate(zip(np.asarray(out), np.asarray(p), strict=True)):
        own = label[Y[i]]
        np.testing.assert_allclose(label[Y[partner(i)]], 1 - own, atol=1e-6)
        if name == "mixup":
            np.testing.assert_allclose(x, own * (i + 1) + (1 - own) * (partner(i) + 1), rtol=1e-5)
        else:
            inside = x == partner(i) + 1
            np.testing.assert_array_equal(x, np.where(inside, partner(i) + 1, i + 1))
            np.testing.assert_allclose(1 - inside.mean(), own, atol=1e-6)
            plane = inside[0, :, :, 0]
            np.testing.assert_array_equal(inside, np.broadcast_to(plane[None, :, :, None], inside.shape))
            np.testing.assert_array_equal(plane, plane.any(1)[:, None] & plane.any(0)[None])
            for line in (plane.any(1), plane.any(0)):
                assert np.abs(np.diff(line.astype(int))).sum() <= 2


def test_proportions_are_uniform(labels):
    keys = jax.random.split(jax.random.key(0), 40)
    for name, f in FUNCTIONS.items():
        p = np.concatenate([np.asarray(f(key, X, labels)[1])[np.arange(B), Y] for key in keys])
        proportions, uniform = np.sort(p), np.linspace(0, 1, len(p))
        if name == "mixup":
            np.testing.assert_allclose(proportions, uniform, atol=0.03)
        else:  # rectangles are cut off at the edges, so more of the example's own image stays
            assert np.all(proportions > uniform - 0.05) and proportions.mean() > 0.6
