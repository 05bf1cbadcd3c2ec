"""Augmentation of images on the host: its range, its frequencies, and that only the uniform numbers decide."""

import chex
import numpy as np
import pytest
from PIL import Image

from csbp_jax.config import ConfigError
from csbp_jax.data.images import augment, autoaugment
from csbp_jax.data.splits import stratified
from tests.support.formats import photo

X = np.stack([photo(seed, 32, 32) for seed in range(6)])
MEAN = np.array([120, 110, 100])
STEPS = {
    "crop": (2, augment.crop),
    "flip": (1, augment.flip),
    "cutout": (2, lambda x, u: augment.cutout(x, u, 16, MEAN[: x.shape[-1]])),
    "resized_crop": (augment.RESIZED_CROP_UNIFORMS, augment.resized_crop),
    "random_erasing": (augment.ERASING_UNIFORMS, lambda x, u: augment.random_erasing(x, u, MEAN[: x.shape[-1]])),
    "autoaugment": (autoaugment.UNIFORMS, lambda x, u: autoaugment.autoaugment(x, u, MEAN)),
    "randaugment": (3 * autoaugment.OPERATION_UNIFORMS, lambda x, u: autoaugment.randaugment(x, u, 9, MEAN)),
}


def uniforms(count, n):
    """The same numbers whichever tests ran before."""
    return np.random.default_rng([count, n]).random((count, n), np.float32)


@pytest.mark.parametrize("name", STEPS)
def test_rows_are_independent_and_the_input_is_unchanged(name):
    n, step = STEPS[name]
    before, u = X.copy(), uniforms(len(X), n)
    together = step(X, u)
    assert together.dtype == np.uint8 and together.shape == X.shape
    singly = np.concatenate([step(X[i : i + 1], u[i : i + 1]) for i in range(len(X))])
    np.testing.assert_array_equal(together, singly)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("u", [0.0, np.nextafter(np.float32(1), np.float32(0))])
def test_the_ends_of_the_unit_interval(name, u):
    n, step = STEPS[name]
    assert step(X, np.full((len(X), n), u, np.float32)).shape == X.shape


@pytest.mark.parametrize("name", ["crop", "flip", "cutout", "random_erasing", "autoaugment", "randaugment"])
def test_grey_images(name):
    n, step = STEPS[name]
    assert step(X[..., :1], uniforms(len(X), n)).shape == (len(X), 32, 32, 1)


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_is_a_window_of_the_padded_image(padding):
    u = uniforms(200, 2)
    x = X[np.arange(200) % len(X)]
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    cropped = augment.crop(x, u, padding)
    for i, (top, left) in enumerate(np.floor(u * (2 * padding + 1)).astype(int)):
        np.testing.assert_array_equal(cropped[i], padded[i, top : top + 32, left : left + 32])


def test_flip_mirrors_half_of_them():
    u = uniforms(4000, 1)
    x = np.random.default_rng(0).integers(0, 256, (4000, 2, 3, 1), np.uint8)
    flipped = augment.flip(x, u)
    turned = (flipped == x[:, :, ::-1]).all((1, 2, 3))
    assert abs(turned.mean() - 0.5) < 0.04
    np.testing.assert_array_equal(flipped[~turned], x[~turned])


def test_cutout_fills_a_square_cut_off_at_the_edges():
    u = uniforms(500, 2)
    x = np.zeros((500, 32, 32, 3), np.uint8)
    holes = augment.cutout(x, u, 16, MEAN)
    inside = (holes == MEAN).all(-1)
    assert (holes[~inside] == 0).all()
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    np.testing.assert_array_equal(inside.sum((1, 2)), heights * widths)
    assert heights.min() == widths.min() == 8 and heights.max() == widths.max() == 16


def test_random_erasing_fills_a_rectangle_of_the_published_law():
    x = np.zeros((3000, 50, 40, 1), np.uint8)
    erased = augment.random_erasing(x, uniforms(3000, augment.ERASING_UNIFORMS), MEAN[:1])
    inside = (erased == MEAN[:1]).all(-1)
    assert (erased[~inside] == 0).all()
    assert abs(inside.any((1, 2)).mean() - 0.25) < 0.03
    inside = inside[inside.any((1, 2))]
    heights, widths = inside.any(2).sum(1), inside.any(1).sum(1)
    np.testing.assert_array_equal(inside.sum((1, 2)), heights * widths)
    area, ratio = heights * widths / 2000, widths / heights
    assert 0.015 < area.min() < 0.03 and 0.30 < area.max() < 0.345  # rounded to pixels
    assert 0.25 < ratio.min() < 0.4 and 2.5 < ratio.max() < 4
    assert abs(np.mean(area < 0.177) - 0.5) < 0.06 and abs(np.mean(ratio < 1) - 0.5) < 0.06


def test_random_erasing_leaves_an_image_that_no_rectangle_fits():
    x = np.zeros((1, 1, 2000, 1), np.uint8)
    u = uniforms(1, augment.ERASING_UNIFORMS)
    u[:, 0] = 0  # which erases, where a rectangle fits
    assert (augment.random_erasing(x, u, MEAN[:1]) == 0).all()


def test_random_windows_follow_the_published_law():
    windows = np.array([augment.random_window(400, 500, u) for u in uniforms(4000, 22)])
    top, left, height, width = windows.T
    assert np.all((top >= 0) & (left >= 0) & (top + height <= 400) & (left + width <= 500))
    area, ratio = height * width / 200_000, width / height
    assert area.min() > 0.079 and ratio.min() > 0.74 and ratio.max() < 1.345
    # A square of more than 80 % of the area does not fit, so large areas are rarer: below that it is uniform.
    below = area[area < 0.6]
    assert abs(np.mean(below < 0.34) - 0.5) < 0.04
    assert abs(np.mean(np.log(ratio[area < 0.6]) < 0) - 0.5) < 0.04
    room = (400 - height)[height < 300], top[height < 300]
    assert abs(np.mean(room[1] / room[0]) - 0.5) < 0.02


def test_a_strip_gets_the_centre_after_ten_tries():
    assert augment.random_window(10, 1000, uniforms(1, 22)[0]) == (0, 493, 10, 13)
    assert augment.random_window(1000, 10, uniforms(1, 22)[0]) == (493, 0, 13, 10)


def test_centre_window_is_that_of_resize_256_and_crop_224():
    assert augment.centre_window(256, 256, (224, 224)) == (16, 16, 224, 224)
    assert augment.centre_window(512, 640, (224, 224)) == (32, 96, 448, 448)
    assert augment.centre_window(1, 1, (224, 224)) == (0, 0, 1, 1)


def test_resize_of_a_window_is_that_of_the_cut_image():
    image = photo(0, 50, 70)
    cut = Image.fromarray(image[5:45, 10:60]).resize((24, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(augment.resize(image, (5, 10, 40, 50), (20, 24)), np.asarray(cut))
    np.testing.assert_array_equal(augment.resize(image, (0, 0, 50, 70), (50, 70)), image)


def test_integers_stay_below_their_bound():
    last = np.nextafter(np.float32(1), np.float32(0))
    assert all(augment.uniform_integers(last, n) == n - 1 for n in (1, 3, 9, 25, 1000, 9_000_000))
    counts = np.bincount(augment.uniform_integers(uniforms(90_000, 1)[:, 0], 9))
    assert counts.shape == (9,) and np.all(abs(counts - 10_000) < 500)


def pair(index, first, second):
    """Return uniforms for a pair of operations, of which those that are True happen, with positive sign."""
    chance = [0.0 if happens else 0.99 for happens in (first, second)]
    return np.array([[(index + 0.5) / 25, chance[0], 0.0, chance[1], 0.0]], np.float32)


def test_autoaugment_moves_and_fills():
    moved = autoaugment.autoaugment(X[:1], pair(1, False, True), MEAN)[0]  # translate_x at level 9: 14 pixels
    np.testing.assert_array_equal(moved[:, :18], X[0, :, 14:])
    assert np.all(moved[:, 18:] == MEAN)


def test_autoaugment_changes_colours():
    np.testing.assert_array_equal(autoaugment.autoaugment(X, np.repeat(pair(0, True, False), 6, 0), MEAN), 255 - X)
    np.testing.assert_array_equal(autoaugment.autoaugment(X, np.repeat(pair(5, False, True), 6, 0), MEAN), X & 0xF8)
    bright = autoaugment.autoaugment(X, np.repeat(pair(6, False, True), 6, 0), MEAN)
    np.testing.assert_allclose(bright, np.minimum(1.7 * X, 255), atol=1)


def operation(name, sign=1):
    """Return uniforms of one operation of RandAugment."""
    choice = (autoaugment._RANDAUGMENT.index(name) + 0.5) / len(autoaugment._RANDAUGMENT)
    return np.array([[choice, 0.2 if sign == 1 else 0.8]], np.float32)


def test_randaugment_has_the_operations_of_its_paper_and_strength_by_its_magnitude():
    assert set(autoaugment._RANDAUGMENT) == set(autoaugment._OPERATIONS) - {"invert"} | {"identity"}

    def changed(name, magnitude, sign=1):
        return autoaugment.randaugment(X[:1], operation(name, sign), magnitude, MEAN)[0]

    np.testing.assert_array_equal(changed("identity", 30), X[0])
    np.testing.assert_array_equal(changed("posterize", 30), X[0] & 0xF0)  # 8 - 4 bits
    np.testing.assert_array_equal(changed("posterize", 9), X[0] & 0xFE)  # 8 - round(1.2)
    threshold = 255 - 255 * 9 / 30
    np.testing.assert_array_equal(changed("solarize", 9), np.where(X[0] < threshold, X[0], 255 - X[0]))
    for magnitude, pixels in ((30, 14), (9, 4)):  # int(32 * 150 / 331 * magnitude / 30)
        np.testing.assert_array_equal(changed("translate_x", magnitude)[:, : 32 - pixels], X[0, :, pixels:])
        np.testing.assert_array_equal(changed("translate_x", magnitude, -1)[:, pixels:], X[0, :, : 32 - pixels])
    np.testing.assert_allclose(changed("brightness", 20), np.minimum(1.6 * X[0], 255), atol=1)
    np.testing.assert_allclose(changed("brightness", 20, -1), 0.4 * X[0], atol=1)
    for name in set(autoaugment._RANDAUGMENT) - {"identity", "autocontrast", "equalize"}:
        np.testing.assert_array_equal(changed(name, 0), X[0])


def test_the_operations_of_randaugment_follow_one_another():
    u = np.concatenate([operation("solarize"), operation("posterize")], axis=1)
    solarized = autoaugment.randaugment(X[:1], u[:, :2], 15, MEAN)
    expected = autoaugment.randaugment(solarized, u[:, 2:], 15, MEAN)
    np.testing.assert_array_equal(autoaugment.randaugment(X[:1], u, 15, MEAN), expected)
    assert (expected != solarized).any() and (expected != autoaugment.randaugment(X[:1], u[:, 2:], 15, MEAN)).any()


# Table 7 of Cubuk et al. 2019, in order: probability and level of two operations. Levels of operations that
# have none are published as well, without a meaning.
PUBLISHED = """
invert .1 7 contrast .2 6 | rotate .7 2 translate_x .3 9 | sharpness .8 1 sharpness .9 3
shear_y .5 8 translate_y .7 9 | autocontrast .5 8 equalize .9 2 | shear_y .2 7 posterize .3 7
color .4 3 brightness .6 7 | sharpness .3 9 brightness .7 9 | equalize .6 5 equalize .5 1
contrast .6 7 sharpness .6 5 | color .7 7 translate_x .5 8 | equalize .3 7 autocontrast .4 8
translate_y .4 3 sharpness .2 6 | brightness .9 6 color .2 8 | solarize .5 2 invert .0 3
equalize .2 0 autocontrast .6 0 | equalize .2 8 equalize .6 4 | color .9 9 equalize .6 6
autocontrast .8 4 solarize .2 8 | brightness .1 3 color .7 0 | solarize .4 5 autocontrast .9 3
translate_y .9 9 translate_y .7 9 | autocontrast .9 2 solarize .8 3 | equalize .8 8 invert .1 3
translate_y .7 9 autocontrast .9 1
"""


def test_autoaugment_has_the_published_policies():
    words = [policy.split() for policy in PUBLISHED.strip().replace("\n", "|").split("|")]
    published = [((a, float(p), int(k)), (b, float(q), int(m))) for a, p, k, b, q, m in words]
    without = ("autocontrast", "equalize", "invert")
    bare = [tuple((name, p, 0 if name in without else k) for name, p, k in policy) for policy in published]
    assert bare == list(autoaugment._POLICY)


@pytest.mark.parametrize("index, second, level", [(14, False, 2), (20, False, 5), (22, True, 3), (18, True, 8)])
def test_autoaugment_solarizes_from_a_threshold_that_falls_with_the_level(index, second, level):
    x = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    solarized = autoaugment.autoaugment(x, pair(index, not second, second), MEAN)
    threshold = 255 - 255 * level / 9  # torchvision's: level 0 leaves all but white, level 9 inverts all
    np.testing.assert_array_equal(solarized, np.where(x >= threshold, 255 - x, x))


def test_operations_happen_with_their_probabilities():
    changed = autoaugment.autoaugment(np.repeat(X[:1], 3000, 0), uniforms(3000, 5), MEAN) != X[0]
    # Mean over the 25 pairs of the chance that at least one of two operations happens; some hardly change an image.
    chances = [1 - (1 - p) * (1 - q) for (_, p, _), (_, q, _) in autoaugment._POLICY]
    assert 0.7 * np.mean(chances) < changed.any((1, 2, 3)).mean() <= np.mean(chances) + 0.03


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_stratified_takes_the_fraction_of_every_class(fraction):
    y = np.random.default_rng(0).permutation(np.repeat(np.arange(5), [2, 10, 99, 100, 1000]))
    train, validation = stratified(y, fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(y)))
    expected = [max(1, round(fraction * count)) for count in (2, 10, 99, 100, 1000)]
    np.testing.assert_array_equal(np.bincount(y[validation]), expected)
    chex.assert_trees_all_equal((train, validation), stratified(y, fraction))


def test_stratified_is_evenly_spaced_in_the_order_of_records():
    _, validation = stratified(np.zeros(1000, int), 0.1)
    np.testing.assert_array_equal(np.diff(validation), 10)


def test_a_class_with_a_single_record_stays_in_training():
    train, validation = stratified(np.array([0, 1, 1]), 0.5)
    assert 0 in train and len(validation) == 1
    for y in (np.arange(4), np.zeros(1)):
        with pytest.raises(ConfigError, match=r"data.validation: no record can be used .*; give two or more"):
            stratified(y, 0.5)
