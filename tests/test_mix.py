"""Mixup and CutMix: what is seen and what the label says are in the same proportion."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data import mix

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


def test_mixup_draws_from_beta(batch):
    x, y = jnp.zeros((4000, 1)), mix.probabilities(jnp.arange(4000) % 2, 2)
    for alpha in (0.2, 1.0):
        share = np.asarray(mix.mixup(jax.random.key(0), x, y, alpha)[1])[np.arange(4000), np.arange(4000) % 2]
        assert abs(share.mean() - 0.5) < 0.03
        # The variance of Beta(a, a).
        assert abs(share.var() * 4 * (2 * alpha + 1) - 1) < 0.1


@pytest.mark.parametrize("f", [mix.mixup, mix.cutmix])
def test_a_pure_function_of_the_key(batch, f):
    x, y = batch[0], mix.probabilities(batch[1], C)
    chex.assert_trees_all_equal(f(jax.random.key(0), x, y), f(jax.random.key(0), x, y))
    shares = np.asarray(f(jax.random.key(0), x, y)[1]).max(1)
    assert len(np.unique(shares)) > B / 4
    assert not np.array_equal(f(jax.random.key(0), x, y)[1], f(jax.random.key(1), x, y)[1])


def test_one_after_the_other_still_gives_probabilities(batch):
    x, p = mix.mixup(jax.random.key(0), batch[0], mix.probabilities(batch[1], C))
    _, p = mix.cutmix(jax.random.key(1), x, mix.probabilities(p, C))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert p.min() >= 0
