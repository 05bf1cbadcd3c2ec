"""Mixup and CutMix: what is seen and what the label says are in the same proportion."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import mix

B, C = 64, 10


@pytest.fixture
def batch():
    """Example i is full of the number i + 1 and has label i mod 10."""
    x = jnp.broadcast_to(jnp.arange(1.0, B + 1).reshape(B, 1, 1, 1, 1), (B, 3, 12, 16, 2))
    return x, jnp.arange(B) % C


def partner(i):
    return (i - 1) % B


@pytest.mark.parametrize("f", [mix.mixup, mix.cutmix])
def test_labels_are_probabilities_in_the_proportion_of_what_is_seen(batch, f):
    x, y = batch
    out, p = jax.jit(f)(jax.random.key(0), x, mix.probabilities(y, C))
    chex.assert_shape([out, p], [x.shape, (B, C)])
    assert out.dtype == p.dtype == jnp.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    for i, (seen, label) in enumerate(zip(np.asarray(out), np.asarray(p), strict=True)):
        own = label[y[i]]
        np.testing.assert_allclose(label[y[partner(i)]], 1 - own, atol=1e-6)
        if f is mix.mixup:
            np.testing.assert_allclose(seen, own * (i + 1) + (1 - own) * (partner(i) + 1), rtol=1e-5)
        else:
            inside = seen == partner(i) + 1
            np.testing.assert_array_equal(seen, np.where(inside, partner(i) + 1, i + 1))
            np.testing.assert_allclose(1 - inside.mean(), own, atol=1e-6)
            plane = inside[0, :, :, 0]
            np.testing.assert_array_equal(inside, np.broadcast_to(plane[None, :, :, None], inside.shape))
            np.testing.assert_array_equal(plane, plane.any(1)[:, None] & plane.any(0)[None])
            for line in (plane.any(1), plane.any(0)):
                assert np.abs(np.diff(line.astype(int))).sum() <= 2


def test_proportions_are_uniform():
    y = jnp.arange(4000) % 2
    for f, x in ((mix.mixup, jnp.zeros((4000, 1))), (mix.cutmix, jnp.zeros((4000, 1, 96, 96, 1)))):
        p = np.asarray(jax.jit(f)(jax.random.key(0), x, mix.probabilities(y, 2))[1])
        share = np.sort(p[np.arange(4000), np.asarray(y)])
        if f is mix.mixup:
            np.testing.assert_allclose(share, np.linspace(0, 1, 4000), atol=0.03)
        else:  # rectangles are cut off at the edges, so more of the own picture stays
            assert np.all(share > np.linspace(0, 1, 4000) - 0.03) and share.mean() > 0.6


@pytest.mark.parametrize("f", [mix.mixup, mix.cutmix])
def test_a_pure_function_of_the_key(batch, f):
    x, y = batch[0], mix.probabilities(batch[1], C)
    f = jax.jit(f)
    out = f(jax.random.key(0), x, y)
    chex.assert_trees_all_equal(out, f(jax.random.key(0), x, y))
    assert len(np.unique(out[1].max(1))) > B / 4
    assert not np.array_equal(out[1], f(jax.random.key(1), x, y)[1])


def test_one_after_the_other_still_gives_probabilities(batch):
    x, p = mix.mixup(jax.random.key(0), batch[0], mix.probabilities(batch[1], C))
    _, p = mix.cutmix(jax.random.key(1), x, mix.probabilities(p, C))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert p.min() >= 0
