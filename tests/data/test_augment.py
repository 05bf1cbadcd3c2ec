"""Augmentations of event frames: exact where pixels are moved, a plain loop where they are rotated or sheared."""

import math

import chex
import jax
import numpy as np
import pytest

from csbp_jax.data.device import augment

MOVING = ("flip", "crop", "roll", "rotate", "shear", "nda", "cutout")
KEYS = jax.random.split(jax.random.key(7), 200)
STEPS, HEIGHT, WIDTH = 10, 20, 22
LEVELS = 3 * (np.arange(STEPS, dtype=np.float32) % 4).reshape(-1, 1, 1, 1)
# One example [T, H, W, C], not square, without zeros; all frames are the first one plus a number.
X = np.random.default_rng(0).integers(1, 4, (1, HEIGHT, WIDTH, 1)).astype(np.float32) + LEVELS
SMALL = X[:, :12, :13]


@jax.jit
def over_keys(keys, x):
    """Apply every augmentation that moves pixels to one example under many keys; compiled once, as one program."""
    return {name: jax.vmap(getattr(augment, name), (0, None))(keys, x) for name in MOVING}


@pytest.fixture(scope="module")
def outputs():
    return jax.tree.map(np.asarray, over_keys(KEYS, X))


event_drop = jax.jit(jax.vmap(augment.event_drop, (0, None)))


@pytest.fixture(scope="module")
def dropped():
    """What EventDrop leaves of 10 events in every pixel."""
    return np.asarray(event_drop(KEYS, np.full_like(SMALL, 10)))


def shifted(x, down, right):
    """Return ``out[y, x] = in[y + down, x + right]``, zeros from outside."""
    wide = np.pad(x, ((0, 0), (9, 9), (9, 9), (0, 0)))
    return wide[:, 9 + down :, 9 + right :][:, : x.shape[1], : x.shape[2]]


def warped(x, matrix):
    """Take the nearest pixel of ``matrix @ (y, x)`` about the centre, in a loop over pixels."""
    out, (height, width) = np.zeros_like(x), x.shape[1:3]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for pixel in np.ndindex(height, width):
        row, column = np.floor(matrix @ (pixel - centre) + centre + 0.5).astype(int)
        if 0 <= row < height and 0 <= column < width:
            out[:, pixel[0], pixel[1]] = x[:, row, column]
    return out


def rotation(angle):
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[c, s], [-s, c]])


def shearing(angle):
    return np.array([[1, 0], [math.tan(math.radians(angle)), 1]])


@pytest.mark.parametrize("name", MOVING)
def test_counts_stay_counts_and_all_frames_move_together(outputs, name):
    out = outputs[name]
    assert out.dtype == np.float32 and out.shape == (len(KEYS), *X.shape)
    assert set(np.unique(out)) <= {0, *np.unique(X)}
    np.testing.assert_array_equal(out, np.where(out[:, :1] > 0, out[:, :1] + LEVELS, 0))


def test_rows_have_keys_of_their_own_and_are_the_same_when_split_over_devices(outputs):
    """Both at once, since every comparison costs a compilation: 8 devices, 25 rows each."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = jax.device_put(np.broadcast_to(X, (len(KEYS), *X.shape)), split)
    assert len(batch.sharding.device_set) == 8
    names = ("flip", "crop", "cutout")

    @jax.jit
    def sharded(key, batch):
        return {name: augment.per_example(getattr(augment, name))(key, batch) for name in names}

    out = sharded(jax.random.key(7), batch)  # KEYS are split from this one
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, out), {name: outputs[name] for name in names})


def test_flip_is_exact_and_even(outputs):
    out = outputs["flip"]
    mirrored = (out == X[:, :, ::-1]).all((1, 2, 3, 4))
    assert np.all(mirrored | (out == X).all((1, 2, 3, 4)))
    assert abs(mirrored.mean() - 0.5) < 5 * math.sqrt(0.25 / len(KEYS))


@pytest.mark.parametrize(
    ("name", "most", "moved"), [("crop", 4, shifted), ("roll", 5, lambda x, *by: np.roll(x, by, (1, 2)))]
)
def test_a_crop_takes_every_window_of_the_padded_frame_and_a_roll_is_cyclic(outputs, name, most, moved):
    ways = range(-most, most + 1)
    windows = {(down, right): moved(X, down, right) for down in ways for right in ways}
    matches = [[at for at, w in windows.items() if np.array_equal(out, w)] for out in outputs[name]]
    assert all(len(at) == 1 for at in matches)
    assert {at[0][0] for at in matches} == {at[0][1] for at in matches} == set(ways)


@pytest.mark.parametrize(
    ("function", "matrix", "angles"),
    [
        (augment.rotated, rotation, (-90.0, -17.0, 0.0, 13.7, 30.0, 200.0)),
        (augment.sheared, shearing, (-30.0, -9.0, 0.0, 21.5)),
    ],
)
def test_rotation_and_shear_agree_with_a_plain_loop(function, matrix, angles):
    function = jax.jit(function)
    for angle in angles:
        np.testing.assert_array_equal(function(X[:3], angle), warped(X[:3], matrix(angle)), err_msg=str(angle))


@pytest.mark.parametrize("name, matrix", [("rotate", rotation), ("shear", shearing)])
def test_angles_are_uniform_to_thirty_degrees(outputs, name, matrix):
    angles = jax.vmap(lambda key: jax.random.uniform(key, minval=-30.0, maxval=30.0))(KEYS[:6])
    for out, angle in zip(outputs[name], np.asarray(angles), strict=False):
        np.testing.assert_array_equal(out, warped(X, matrix(angle)))


def test_nda_is_one_of_three_equally_often(outputs):
    expected = over_keys(jax.vmap(lambda key: jax.random.split(key)[1])(KEYS), X)
    counts = dict.fromkeys(("roll", "rotate", "shear"), 0)
    for i, out in enumerate(outputs["nda"]):
        matches = [name for name in counts if np.array_equal(out, expected[name][i])]
        assert matches
        counts[matches[0]] += 1
    assert min(counts.values()) > len(KEYS) / 3 - 4 * math.sqrt(len(KEYS) * 2 / 9)


def test_cutout_is_a_square_of_zeros_around_any_pixel(outputs):
    side, touched_edge = HEIGHT // 3, 0
    for frame in outputs["cutout"][:, 0, :, :, 0]:
        rows, columns = np.flatnonzero((frame == 0).any(1)), np.flatnonzero((frame == 0).any(0))
        assert not frame[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].any()
        assert side // 2 <= len(rows) <= side and side // 2 <= len(columns) <= side
        touched_edge += len(rows) < side
    assert 0 < touched_edge < len(KEYS)


def test_a_batch_crop_is_one_window_and_one_side_for_the_batch():
    batch = np.random.default_rng(0).poisson(2.0, (3, 2, 16, 16, 2)).astype(np.float32)
    windows = [shifted(batch.reshape(6, 16, 16, 2), i, j) for i in range(-4, 5) for j in range(-4, 5)]
    seen = set()
    for out in np.asarray(jax.jit(jax.vmap(augment.batch_crop_flip, (0, None)))(KEYS[:40], batch)):
        out = out.reshape(6, 16, 16, 2)
        match = [(k, side) for k, w in enumerate(windows) for side in (1, -1) if np.array_equal(out, w[:, :, ::side])]
        assert len(match) == 1
        seen |= set(match)
    assert {side for _, side in seen} == {1, -1} and len({k for k, _ in seen}) > 10


def test_chosen_frames_keep_their_order_and_are_those_of_the_batch():
    batch = np.tile(np.arange(16.0, dtype=np.float32).reshape(1, 16, 1), (4, 1, 7))
    chosen = np.asarray(
        jax.jit(jax.vmap(lambda key, batch: augment.choose_frames(key, batch, 12), (0, None)))(KEYS, batch)
    )
    assert chosen.shape == (200, 4, 12, 7)
    np.testing.assert_array_equal(chosen, np.broadcast_to(chosen[:, :1, :, :1], chosen.shape))
    order = chosen[:, 0, :, 0]
    assert np.all(np.diff(order, axis=1) > 0)
    frequencies = np.bincount(order.astype(int).ravel(), minlength=16) / 200
    np.testing.assert_array_less(np.abs(frequencies - 0.75), 5 * math.sqrt(0.75 * 0.25 / 200))
    np.testing.assert_array_equal(
        jax.jit(lambda key, batch: augment.choose_frames(key, batch, 16))(KEYS[0], batch), batch
    )


def test_event_drop_is_one_of_four_by_its_law(dropped):
    count = 10
    kinds = {"nothing": 0, "period": 0, "area": 0, "singly": 0}
    ratios = set()
    out = dropped[..., 0]
    assert out.dtype == np.float32 and set(np.unique(out)) == set(range(count + 1))
    for fraction in out / count:
        by_frame = fraction.mean((1, 2))
        if np.all(fraction == 1):
            kinds["nothing"] += 1
        elif np.all(by_frame[:1] == by_frame) and set(np.unique(fraction)) == {0, 1}:
            kinds["area"] += 1
            rows, columns = (fraction[0] == 0).any(1), (fraction[0] == 0).any(0)
            np.testing.assert_array_equal(fraction, np.broadcast_to(~(rows[:, None] & columns)[None], fraction.shape))
            assert 1 <= rows.sum() <= 3 and 1 <= columns.sum() <= 3
        elif np.any(by_frame == 0) or np.any(by_frame == 1):
            kinds["period"] += 1
            lost = np.flatnonzero(by_frame < 1)
            assert np.all(np.diff(lost) == 1) and np.all(by_frame[lost[1:-1]] == 0)
            length = STEPS * (1 - by_frame.mean())  # whole tenths of 10 frames, unless the recording ended before
            assert lost[-1] == STEPS - 1 or abs(length - round(length)) < 0.05
        else:
            kinds["singly"] += 1
            p = round(float(fraction.mean()), 1)
            ratios.add(p)
            n = fraction.size * count
            assert abs(fraction.mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
            assert abs(fraction.var() / (p * (1 - p) / count) - 1) < 5 * math.sqrt(2 / fraction.size) + 1 / count
    assert min(kinds.values()) > 50 - 4 * math.sqrt(200 * 3 / 16), kinds
    assert ratios == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}


@pytest.mark.parametrize("value", [0.5, -0.5])
def test_event_drop_keeps_what_it_does_not_drop_of_frames_that_are_no_counts(value):
    out = np.asarray(event_drop(KEYS, np.full_like(SMALL, value)))
    assert set(np.unique(out)) == {0, value}
    untouched = (out == value).all((1, 2, 3, 4)).sum()
    assert abs(untouched - 50) < 4 * math.sqrt(200 * 3 / 16)  # one of four changes is none


def test_thinning_is_binomial_and_keeps_or_drops_a_part_of_an_event_as_a_whole():
    thinned, key = jax.jit(augment.thinned), jax.random.key(0)
    x = np.broadcast_to(np.array([0, 1, 2, 7, 20, 0.5, 1.5, 2.7], np.float32), (1, 50, 200, 8))
    np.testing.assert_array_equal(thinned(key, x, np.ones((1, 50, 200, 1), np.float32)), x)
    out = np.asarray(thinned(key, x, np.full((1, 50, 200, 1), 0.3, np.float32)))
    for i, n in enumerate((0, 1, 2, 7, 20)):
        expected = [math.comb(n, k) * 0.3**k * 0.7 ** (n - k) for k in range(n + 1)]
        frequencies = np.bincount(out[..., i].astype(int).ravel(), minlength=n + 1) / 10_000
        np.testing.assert_array_less(np.abs(frequencies - expected), 5 * np.sqrt(np.array(expected) / 10_000) + 1e-3)
    assert set(np.unique(out[..., 6])) == {0, 0.5, 1, 1.5}
    np.testing.assert_allclose(out.mean((0, 1, 2))[5:], 0.3 * x[0, 0, 0, 5:], atol=0.04)  # 5 standard errors
