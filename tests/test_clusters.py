import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from gim_sfm.sfm.clusters import Cells, Nearest, Tally, cluster, heaviest


def random_points(count: int, seed: int, extent: float = 100.0) -> np.ndarray:
    return (np.random.default_rng(seed).random((count, 2)) * extent).astype(np.float32)


@given(
    keypoints=st.integers(0, 300),
    asked=st.integers(0, 200),
    radius=st.floats(0.05, 30),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_the_nearest_keypoint_is_found_as_by_a_tree(
    keypoints: int, asked: int, radius: float, seed: int
) -> None:
    points = random_points(keypoints, seed)
    places = random_points(asked, seed + 1, 160.0) - np.float32(30)
    found = Nearest(points, radius).locate(places)
    if not keypoints or not asked:
        assert (found == -1).all()
        return
    distance, _ = cKDTree(points.astype(np.float64)).query(places)
    clear = np.abs(distance - radius) > 1e-6
    assert ((found >= 0) == (distance <= radius))[clear].all()
    hit = found >= 0
    reached = np.linalg.norm(points[found[hit]].astype(np.float64) - places[hit], axis=1)
    np.testing.assert_allclose(reached, distance[hit], atol=1e-6)


def test_keypoints_on_one_spot_do_not_confuse_the_search() -> None:
    points = np.full((50, 2), 7, np.float32)
    assert Nearest(points, 1.0).locate(np.array([[7.5, 7]], np.float32)).tolist() == [0]


@given(count=st.integers(1, 400), seed=st.integers(0, 2**16), parts=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_a_tally_adds_up_the_same_in_any_order(count: int, seed: int, parts: int) -> None:
    points = random_points(count, seed)
    weights = np.random.default_rng(seed).random(count)
    whole, pieces = Tally(3.0), Tally(3.0)
    whole.add(points, weights)
    for part in reversed(np.array_split(np.arange(count), parts)):
        pieces.add(points[part], weights[part])
    one, other = whole.cells(), pieces.cells()
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(one.centre, other.centre)


def test_a_tally_gives_weighted_means() -> None:
    tally = Tally(10.0)
    tally.add(np.array([[11.0, 3.0], [14.0, 6.0], [-5.0, -5.0]]), np.array([0.25, 0.75, 1.0]))
    cells = tally.cells()
    np.testing.assert_allclose(cells.centre, [[-5, -5], [13.25, 5.25]], atol=1e-3)
    np.testing.assert_allclose(cells.weight, [1, 1], atol=1e-3)


def one_by_one(cells: Cells, radius: float) -> list[int]:
    """The greedy rule that `heaviest` stands for."""
    chosen: list[int] = []
    for index in np.lexsort((np.arange(len(cells.weight)), -cells.weight)):
        near = np.linalg.norm(cells.centre[chosen] - cells.centre[index], axis=1) <= radius
        if not near.any():
            chosen.append(int(index))
    return sorted(chosen)


@given(count=st.integers(1, 120), seed=st.integers(0, 2**16), radius=st.floats(0.5, 40))
@settings(max_examples=60, deadline=None)
def test_the_heaviest_are_those_of_the_greedy_rule(count: int, seed: int, radius: float) -> None:
    weights = np.random.default_rng(seed).integers(1, 6, count).astype(np.float64)
    cells = Cells(weights, random_points(count, seed).astype(np.float64))
    assert heaviest(cells, radius).tolist() == one_by_one(cells, radius)


def test_clusters_stand_at_the_mean_of_their_points() -> None:
    cells = Cells(np.array([2.0, 1.0, 1.0]), np.array([[0.0, 0.0], [1.5, 0.0], [50.0, 50.0]]))
    np.testing.assert_allclose(cluster(cells, 3.0), [[0.5, 0], [50, 50]])
