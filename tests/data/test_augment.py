"""Augmentations of event frames: exact where pixels move whole, by a plain loop where they are rotated or sheared."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from csbp_jax.data.device import augment

EACH = ["flip", "crop", "roll", "rotate", "shear", "nda", "cutout", "event_drop"]
KEYS = jax.random.split(jax.random.key(7), 200)


def frames(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).poisson(2.0, shape), jnp.float32)


@pytest.fixture
def x():
    """One example, ``[T, H, W, C]``, not square."""
    return frames(3, 16, 14, 2)


def many(f, x):
    """What f makes of x under many keys."""
    return np.asarray(jax.jit(jax.vmap(f, (0, None)))(KEYS, x))


def shifted(x, down, right):
    """``out[y, x] = in[y + down, x + right]``, zeros from outside."""
    wide = np.pad(x, ((0, 0), (9, 9), (9, 9), (0, 0)))
    return wide[:, 9 + down :, 9 + right :][:, : x.shape[1], : x.shape[2]]


def warped(x, matrix):
    """Nearest pixel of ``matrix @ (y, x)`` about the centre, one by one."""
    out, (height, width) = np.zeros_like(x), x.shape[1:3]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for place in np.ndindex(height, width):
        row, column = np.floor(matrix @ (place - centre) + centre + 0.5).astype(int)
        if 0 <= row < height and 0 <= column < width:
            out[:, place[0], place[1]] = x[:, row, column]
    return out


@pytest.mark.parametrize("name", EACH)
def test_each_example_has_its_own_key(name):
    f = jax.jit(augment.per_example(getattr(augment, name)))
    batch = jnp.tile(frames(1, 3, 16, 16, 2), (64, 1, 1, 1, 1))
    out = f(jax.random.key(0), batch)
    chex.assert_equal_shape([out, batch])
    assert out.dtype == jnp.float32
    chex.assert_trees_all_equal(out, f(jax.random.key(0), batch))
    assert len(np.unique(np.asarray(out).reshape(64, -1), axis=0)) > 1
    assert not np.array_equal(out, f(jax.random.key(1), batch))
    one = jax.jit(getattr(augment, name))(jax.random.split(jax.random.key(0), 64)[5], batch[5])
    chex.assert_trees_all_equal(out[5], one)


@pytest.mark.parametrize("name", [*EACH[:-1], "batch_crop_flip"])
def test_counts_stay_counts_and_all_frames_move_alike(name):
    f = getattr(augment, name)
    f = jax.jit(f if name == "batch_crop_flip" else augment.per_example(f))
    batch = jnp.tile(frames(8, 1, 16, 16, 2), (1, 4, 1, 1, 1))
    out = np.asarray(f(jax.random.key(0), batch))
    assert set(np.unique(out)) <= {0, *np.unique(batch)}
    np.testing.assert_array_equal(out, np.broadcast_to(out[:, :1], out.shape))


@pytest.mark.parametrize("name", [*EACH, "batch_crop_flip"])
def test_nothing_depends_on_how_a_batch_is_split_over_devices(name):
    f = getattr(augment, name)
    f = jax.jit(f if name == "batch_crop_flip" else augment.per_example(f))
    batch = frames(16, 2, 16, 16, 2)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(batch, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    assert len(split.sharding.device_set) == 8
    np.testing.assert_array_equal(f(jax.random.key(3), batch), f(jax.random.key(3), split))


def test_flip_is_exact_and_even(x):
    out = many(augment.flip, x)
    mirrored = (out == np.asarray(x)[:, :, ::-1]).all((1, 2, 3, 4))
    assert np.all(mirrored | (out == np.asarray(x)).all((1, 2, 3, 4)))
    assert abs(mirrored.mean() - 0.5) < 5 * math.sqrt(0.25 / len(KEYS))


def test_crop_takes_every_window_of_the_padded_frame(x):
    windows = {(down, right): shifted(x, down, right) for down in range(-4, 5) for right in range(-4, 5)}
    found = [[at for at, w in windows.items() if np.array_equal(o, w)] for o in many(augment.crop, x)]
    assert all(len(at) == 1 for at in found)
    assert {at[0][0] for at in found} == {at[0][1] for at in found} == set(range(-4, 5))


def test_roll_goes_round_by_up_to_five_pixels(x):
    rolls = {(i, j): np.roll(x, (i, j), (1, 2)) for i in range(-5, 6) for j in range(-5, 6)}
    found = [[at for at, r in rolls.items() if np.array_equal(o, r)] for o in many(augment.roll, x)]
    assert all(len(at) == 1 for at in found)
    assert {at[0][0] for at in found} == {at[0][1] for at in found} == set(range(-5, 6))


@pytest.mark.parametrize("angle", [-90.0, -17.0, 0.0, 13.7, 30.0, 200.0])
def test_rotated_as_a_plain_loop(x, angle):
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    np.testing.assert_array_equal(augment.rotated(x, angle), warped(np.asarray(x), np.array([[c, s], [-s, c]])))


@pytest.mark.parametrize("size", [7, 16])
def test_quarter_turns_are_exact(size):
    square = frames(2, size, size, 2)
    for turns in range(-2, 5):
        np.testing.assert_array_equal(augment.rotated(square, 90.0 * turns), np.rot90(square, turns, (1, 2)))


@pytest.mark.parametrize("angle", [-30.0, -9.0, 0.0, 21.5])
def test_sheared_as_a_plain_loop(x, angle):
    expected = warped(np.asarray(x), np.array([[1, 0], [math.tan(math.radians(angle)), 1]]))
    np.testing.assert_array_equal(augment.sheared(x, angle), expected)


@pytest.mark.parametrize(("name", "moved"), [("rotate", augment.rotated), ("shear", augment.sheared)])
def test_angles_are_uniform_to_thirty_degrees(x, name, moved):
    def angle(key):
        return jax.random.uniform(key, minval=-30.0, maxval=30.0)

    np.testing.assert_array_equal(many(getattr(augment, name), x), many(lambda k, x: moved(x, angle(k)), x))


def test_nda_is_one_of_three_equally_often(x):
    keys = [jax.random.split(key)[1] for key in KEYS[:60]]
    kinds = {name: jax.jit(getattr(augment, name)) for name in ("roll", "rotate", "shear")}
    counts = dict.fromkeys(kinds, 0)
    for key, out in zip(keys, many(augment.nda, x), strict=False):
        matches = [name for name, f in kinds.items() if np.array_equal(out, f(key, x))]
        assert matches
        counts[matches[0]] += 1
    assert min(counts.values()) > 20 - 4 * math.sqrt(60 * 2 / 9)


def test_cutout_is_a_square_of_zeros_about_any_pixel():
    out = many(augment.cutout, jnp.ones((1, 48, 48, 1)))[:, 0, :, :, 0]
    touched_edge = 0
    for frame in out:
        rows, columns = np.flatnonzero((frame == 0).any(1)), np.flatnonzero((frame == 0).any(0))
        assert not frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        assert 8 <= len(rows) <= 16 and 8 <= len(columns) <= 16
        touched_edge += len(rows) < 16
    assert 0 < touched_edge < len(out)


def test_a_batch_crop_is_one_window_and_one_side_for_all():
    batch = frames(3, 2, 16, 16, 2)
    windows = [shifted(np.asarray(batch.reshape(6, 16, 16, 2)), i, j) for i in range(-4, 5) for j in range(-4, 5)]
    seen = set()
    for out in np.asarray(jax.vmap(augment.batch_crop_flip, (0, None))(KEYS[:40], batch)):
        out = out.reshape(6, 16, 16, 2)
        match = [(k, side) for k, w in enumerate(windows) for side in (1, -1) if np.array_equal(out, w[:, :, ::side])]
        assert len(match) == 1
        seen |= set(match)
    assert {side for _, side in seen} == {1, -1} and len({k for k, _ in seen}) > 10


def test_chosen_frames_keep_their_order_and_are_those_of_the_batch():
    batch = jnp.tile(jnp.arange(16.0).reshape(1, 16, 1), (4, 1, 700))
    chosen = np.asarray(jax.vmap(lambda key: augment.choose_frames(key, batch, 12))(KEYS))
    assert chosen.shape == (200, 4, 12, 700)
    np.testing.assert_array_equal(chosen, np.broadcast_to(chosen[:, :1, :, :1], chosen.shape))
    order = chosen[:, 0, :, 0]
    assert np.all(np.diff(order, axis=1) > 0)
    shares = np.bincount(order.astype(int).ravel(), minlength=16) / 200
    np.testing.assert_array_less(np.abs(shares - 0.75), 5 * math.sqrt(0.75 * 0.25 / 200))
    np.testing.assert_array_equal(augment.choose_frames(KEYS[0], batch, 16), batch)


def test_event_drop_is_one_of_four_by_its_law():
    steps, size, count = 10, 20, 40
    x = jnp.full((steps, size, size, 1), float(count))
    kinds = {"nothing": 0, "period": 0, "area": 0, "alone": 0}
    ratios = set()
    out = many(augment.event_drop, x)[..., 0]
    assert set(np.unique(out)) == set(range(count + 1))
    for kept in out / count:
        by_frame = kept.mean((1, 2))
        if np.all(kept == 1):
            kinds["nothing"] += 1
        elif np.all(by_frame[:1] == by_frame) and set(np.unique(kept)) == {0, 1}:
            kinds["area"] += 1
            rows, columns = (kept[0] == 0).any(1), (kept[0] == 0).any(0)
            np.testing.assert_array_equal(kept, np.broadcast_to(~(rows[:, None] & columns)[None], kept.shape))
            assert 1 <= rows.sum() <= 5 and 1 <= columns.sum() <= 5
        elif np.any(by_frame == 0) or np.any(by_frame == 1):
            kinds["period"] += 1
            lost = np.flatnonzero(by_frame < 1)
            assert np.all(np.diff(lost) == 1) and np.all(by_frame[lost[1:-1]] == 0)
            dropped = steps * (1 - by_frame.mean())  # whole tenths of 10 frames, unless the recording ended before
            assert lost[-1] == steps - 1 or abs(dropped - round(dropped)) < 0.05
        else:
            kinds["alone"] += 1
            p = round(float(kept.mean()), 1)
            ratios.add(p)
            n = kept.size * count
            assert abs(kept.mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
            assert abs(kept.var() / (p * (1 - p) / count) - 1) < 5 * math.sqrt(2 / kept.size) + 1 / count
    assert min(kinds.values()) > 50 - 4 * math.sqrt(200 * 3 / 16), kinds
    assert ratios == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}


def test_thinning_is_binomial():
    x = jnp.broadcast_to(jnp.array([0.0, 1, 2, 7, 50]).reshape(1, 1, 1, 5), (1, 50, 400, 5))
    kept = np.asarray(augment.thinned(jax.random.key(0), x, jnp.full((1, 50, 400, 1), 0.3)))
    for i, n in enumerate((0, 1, 2, 7, 50)):
        expected = [math.comb(n, k) * 0.3**k * 0.7 ** (n - k) for k in range(n + 1)]
        shares = np.bincount(kept[..., i].astype(int).ravel(), minlength=n + 1) / 20_000
        np.testing.assert_array_less(np.abs(shares - expected), 5 * np.sqrt(np.array(expected) / 20_000) + 1e-3)
    np.testing.assert_array_equal(augment.thinned(jax.random.key(0), x, jnp.ones((1, 50, 400, 1))), x)
