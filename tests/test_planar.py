"""Moves of a plane from matches: found among wrong ones, told from the runner-up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.bev.planar import fit_moves


def turned(points: np.ndarray, degrees: float, shift: tuple[float, float], scale: float = 1.0) -> np.ndarray:
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return scale * points @ np.array([[cosine, -sine], [sine, cosine]]).T + shift


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(-180, 180),
    st.floats(-80, 80),
    st.floats(-80, 80),
    st.floats(0.1, 10),
    st.booleans(),
)
def test_the_move_is_found_among_wrong_matches(seed, degrees, x, y, scale, scaled) -> None:
    random = np.random.default_rng(seed)
    factor = scale if scaled else 1.0
    source = random.uniform(-40, 40, (60, 2))
    target = turned(source, degrees, (x, y), factor) + random.normal(0, 0.1 * factor, (60, 2))
    target[:40] = random.uniform(-40, 40, (40, 2)) * factor
    best = fit_moves(source, target, within=0.5 * factor, scaled=scaled)[0]
    assert best.inliers[40:].sum() >= 18
    assert best.scale == pytest.approx(factor, rel=0.02)
    expected = turned(source[40:], degrees, (x, y), factor)
    assert np.abs(best.apply(source[40:]) - expected).max() < 0.6 * factor


def test_the_runner_up_is_another_move() -> None:
    random = np.random.default_rng(0)
    source = random.uniform(-40, 40, (50, 2))
    target = source + np.array([5, 0])
    target[:20] = turned(source[:20], 90, (0, 0))
    best, second = fit_moves(source, target, within=0.5)
    assert best.inliers.sum() >= 30
    assert second.inliers.sum() >= 20
    assert not np.allclose(best.target_from_source, second.target_from_source)


def test_many_matches_are_sampled_alike_every_time() -> None:
    random = np.random.default_rng(1)
    source = random.uniform(-40, 40, (2000, 2))
    target = turned(source, 30, (3, 4))
    target[:1400] = random.uniform(-40, 40, (1400, 2))
    first, again = (fit_moves(source, target, within=0.5)[0] for _ in range(2))
    np.testing.assert_array_equal(first.target_from_source, again.target_from_source)
    assert first.inliers.sum() >= 600


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_matches_give_no_move(count: int) -> None:
    assert fit_moves(np.zeros((count, 2)), np.zeros((count, 2)), within=1.0) == []


def test_matches_at_one_place_give_no_move() -> None:
    assert fit_moves(np.zeros((9, 2)), np.ones((9, 2)), within=1.0) == []
    assert fit_moves(np.zeros((9, 2)), np.ones((9, 2)), within=1.0, scaled=True) == []
