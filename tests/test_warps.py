from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.sfm.tracks import anchored
from gim_sfm.types import Correspondences
from gim_sfm.warps import Scattered, Warp, carry_anchors

TURN = np.array([[0.9, 0.1], [-0.08, 1.05]])
SHIFT = np.array([12.0, -7.0])


def there(points: np.ndarray) -> np.ndarray:
    return points @ TURN.T + SHIFT


def back(points: np.ndarray) -> np.ndarray:
    return (points - SHIFT) @ np.linalg.inv(TURN).T


def grid_warp(move: object, size: tuple[int, int], step: float, origin: float) -> Warp:
    """An exact map sampled on a grid."""
    assert callable(move)
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    nodes = np.stack([columns, rows], -1) * step + origin
    places = move(nodes.reshape(-1, 2)).reshape(nodes.shape).astype(np.float32)
    return Warp(places, np.ones(places.shape[:2], np.float32), (origin, origin), (step, step))


@given(
    points=st.lists(st.tuples(st.floats(2, 300), st.floats(2, 200)), min_size=1, max_size=20),
    step=st.floats(0.3, 9),
)
@settings(max_examples=50, deadline=None)
def test_an_affine_warp_is_exact_between_its_nodes(points: list[tuple[float, float]], step: float) -> None:
    size = int(310 / step) + 3, int(210 / step) + 3
    warp = grid_warp(there, size, step, 1.0)
    places, certainty = warp.carry(np.array(points))
    np.testing.assert_allclose(places, there(np.array(points)), atol=2e-3)
    assert (certainty > 0.999).all()


def test_beyond_the_grid_nothing_is_certain() -> None:
    warp = grid_warp(there, (10, 10), 2.0, 0.0)
    _, certainty = warp.carry(np.array([[-5.0, 3.0], [3.0, 30.0], [9.0, 9.0]]))
    assert certainty.tolist() == [0, 0, 1]


def test_a_warp_of_one_node_can_be_asked() -> None:
    places, _ = grid_warp(there, (1, 1), 2.0, 0.0).carry(np.zeros((1, 2)))
    np.testing.assert_allclose(places, SHIFT[None], atol=1e-5)


def test_anchored_tracks_of_an_exact_warp_are_exact() -> None:
    random = np.random.default_rng(0)
    world = random.random((200, 2)) * [280, 180] + 10
    seen = {"a": world[:150], "b": there(world[50:])}
    anchors = {name: points.astype(np.float32) for name, points in seen.items()}
    warps = grid_warp(there, (330, 230), 1.0, 0.0), grid_warp(back, (400, 300), 1.0, -40.0)
    found = carry_anchors(*warps, anchors["a"], anchors["b"], tolerances=(1.0, 1.0), certain=0.1)
    assert len(found) == len(anchors["a"]) + len(anchors["b"])
    np.testing.assert_allclose(found.points1, there(found.points0), atol=1e-2)
    tracks = anchored(
        lambda: [(("a", "b"), found)],
        anchors=anchors.__getitem__,
        snap=lambda _name: 0.05,
        radius=lambda _name: 0.1,
    )
    indices = tracks.matches(("a", "b"), found).indices
    assert len(indices) == len(world), "every point of the world is one track"
    ends = tracks.keypoints["a"][indices[:, 0]], tracks.keypoints["b"][indices[:, 1]]
    np.testing.assert_allclose(ends[1], there(ends[0]), atol=2e-2)
    both = (indices < [150, 150]).all(axis=1)
    assert both.sum() == 100, "points that are anchors in both photos join these"


@dataclass
class Wrong:
    """A way that leads elsewhere."""

    certainty: float

    def carry(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(points), 2), np.float32), np.full(len(points), self.certainty, np.float32)


@pytest.mark.parametrize("certainty", [0.0, 1.0])
def test_a_way_back_that_leads_elsewhere_keeps_nothing(certainty: float) -> None:
    warp = grid_warp(there, (330, 230), 1.0, 0.0)
    points = np.random.default_rng(0).random((30, 2)).astype(np.float32) * 100 + 50
    found = carry_anchors(warp, Wrong(certainty), points, points, tolerances=(2, 2), certain=0.1)
    assert len(found) == 0


def scattered(noise: float, outliers: float) -> tuple[Scattered, Scattered]:
    random = np.random.default_rng(0)
    points = (random.random((2000, 2)) * [600, 400]).astype(np.float32)
    places = (there(points) + random.normal(0, noise, points.shape)).astype(np.float32)
    wrong = random.random(len(points)) < outliers
    places[wrong] += random.normal(0, 60, (int(wrong.sum()), 2)).astype(np.float32)
    scores = np.ones(len(points), np.float32)
    return (
        Scattered(points, places, scores, reach=60, tolerance=4),
        Scattered(places, points, scores, reach=60, tolerance=4),
    )


def test_keypoints_between_scattered_matches_go_along_with_them() -> None:
    ways = scattered(noise=0.0, outliers=0.0)
    anchors = (np.random.default_rng(1).random((300, 2)) * [500, 300] + 50).astype(np.float32)
    found = carry_anchors(*ways, anchors, anchors[:0], tolerances=(2, 2), certain=0.1)
    assert len(found) == 300
    np.testing.assert_allclose(found.points1, there(found.points0), atol=1e-2)


def test_wrong_matches_do_not_lead_keypoints_astray() -> None:
    ways = scattered(noise=1.0, outliers=0.2)
    anchors = (np.random.default_rng(1).random((300, 2)) * [500, 300] + 50).astype(np.float32)
    found = carry_anchors(*ways, anchors, there(anchors).astype(np.float32), tolerances=(3, 3), certain=0.1)
    assert len(found) > 300
    missed = np.linalg.norm(there(found.points0) - found.points1, axis=1)
    assert np.median(missed) < 1.0
    assert np.percentile(missed, 95) < 3.0


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_few_matches_carry_nothing_and_break_nothing(count: int) -> None:
    points = np.arange(2 * count, dtype=np.float32).reshape(-1, 2)
    way = Scattered(points, points, np.ones(count, np.float32), reach=10, tolerance=2)
    places, certainty = way.carry(np.array([[100.0, 100.0]]))
    assert places.shape == (1, 2)
    assert certainty.tolist() == [0]


def test_carried_keypoints_come_with_scores() -> None:
    ways = scattered(noise=0.5, outliers=0.0)
    anchors = np.array([[100, 100]], np.float32)
    found = carry_anchors(*ways, anchors, anchors, tolerances=(3, 3), certain=0.1)
    assert isinstance(found, Correspondences)
    assert found.scores.tolist() == pytest.approx([1, 1])


def test_places_that_are_no_numbers_are_not_seen() -> None:
    warp = grid_warp(there, (10, 10), 2.0, 0.0)
    _, certainty = warp.carry(np.array([[np.nan, 3.0], [np.inf, 3.0], [3.0, 3.0]]))
    assert certainty.tolist() == [0, 0, 1]
