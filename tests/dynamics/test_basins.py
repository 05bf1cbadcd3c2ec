"""Uncertainty exponent and basin entropies of grids whose boundary has a known dimension."""

import numpy as np
import pytest

from csbp_jax import dynamics


def half_plane(size, normal=(0.0, 1.0), at=0.5):
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")
    return (normal[0] * x + normal[1] * y > at).astype(int)


def cantor(levels):
    """Stripes whose boundary is the middle-third Cantor set: the parity of the level at which a point is removed."""
    digits = np.array([np.base_repr(n, 3).zfill(levels) for n in range(3**levels)])
    level = np.array([row.find("1") if "1" in row else levels for row in digits])
    return np.broadcast_to(level % 2, (3**levels, 3**levels))


def newton(size):
    """Roots of z**3 - 1 that Newton's method reaches from a square around 0."""
    axis = np.linspace(-1, 1, size)
    z = axis[None] + 1j * axis[:, None] + 1e-9
    for _ in range(60):
        z = z - (z**3 - 1) / (3 * z**2)
    return np.argmin(np.abs(z[..., None] - np.exp(2j * np.pi * np.arange(3) / 3)), axis=-1)


def test_a_straight_boundary_has_the_exponent_1():
    measured = dynamics.uncertainty_exponent(half_plane(128))
    assert measured.alpha == pytest.approx(1, abs=1e-9) and measured.points == 96**2
    # Each side of the line is uncertain over as many columns as the offset.
    assert measured.fractions == tuple(2 * d / 96 for d in measured.offsets) and measured.offsets == (1, 2, 4, 8, 16)
    # The rows are copies of each other, so a jackknife that left out single points would say next to nothing.
    assert 0.001 < measured.stderr < 0.1
    slanted = dynamics.uncertainty_exponent(half_plane(128, (0.3, 1.0), 0.65))
    assert slanted.alpha == pytest.approx(1, abs=0.05)


def test_the_cantor_set_has_its_dimension():
    """alpha = 1 - log 2 / log 3 for the stripes, which are the Cantor set times a line."""
    expected = 1 - np.log(2) / np.log(3)
    measured = dynamics.uncertainty_exponent(cantor(6), (1, 3, 9, 27))
    assert measured.alpha == pytest.approx(expected, abs=0.04)
    assert abs(measured.alpha - expected) < 3 * measured.stderr < 0.3


def test_newtons_method_has_a_fractal_boundary_between_three_basins():
    """Its boundary has a dimension of about 1.4, and all its points border all three basins."""
    labels = newton(400)
    measured = dynamics.uncertainty_exponent(labels)
    assert 0.5 < measured.alpha < 0.75 and measured.stderr < 0.1
    assert dynamics.basin_entropy(labels).boundary_entropy > np.log(2)
    assert dynamics.basin_entropy(half_plane(400, (0.3, 1.0))).boundary_entropy < np.log(2)


def test_random_labels_have_the_exponent_0_and_the_entropy_of_a_coin():
    labels = np.random.default_rng(0).integers(0, 2, (160, 160))
    measured = dynamics.uncertainty_exponent(labels)
    assert abs(measured.alpha) < 4 * measured.stderr < 0.02
    np.testing.assert_allclose(measured.fractions, 1 - 0.5**4, atol=0.02)
    entropy = dynamics.basin_entropy(labels, box=20)
    assert entropy.entropy == entropy.boundary_entropy == pytest.approx(np.log(2) - 1 / 800, abs=2e-3)
    assert entropy.boundary_share == 1 and entropy.boxes == 64


def test_entropies_of_boxes_that_are_known():
    labels = np.zeros((7, 9), int)
    labels[0, 4] = labels[1, 5] = 1  # a box of 4 x 4 with 2 of 16, beside one without; the rest fills no box
    labels[6, 8] = 7
    p = 2 / 16
    box = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert tuple(dynamics.basin_entropy(labels, box=4)) == pytest.approx((box / 2, box, 0.5, 2))
    assert tuple(dynamics.basin_entropy(np.full((64, 64), 6))) == pytest.approx((0, np.nan, 0, 144), nan_ok=True)


def test_a_boundary_in_one_block_has_no_standard_error():
    labels = np.zeros((128, 128), int)
    labels[20, 20] = 1
    measured = dynamics.uncertainty_exponent(labels, (1, 2))
    assert measured.alpha == pytest.approx(0) and np.isnan(measured.stderr)
