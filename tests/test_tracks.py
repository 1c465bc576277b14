from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.sfm.tracks import CoarseGrid, Tracks, anchored, coarse_grid, merged, one_to_one, quantised
from gim_sfm.types import Correspondences, Pair

Found = dict[Pair, Correspondences]
Join = Callable[[Callable[[], Iterable[tuple[Pair, Correspondences]]]], Tracks]

SCORES = np.ones(40, np.float32)
GRID = np.stack(np.meshgrid(np.arange(8), np.arange(5)), -1).reshape(-1, 2) * 30.0 + 20.0
TRUTH = {name: (GRID + offset).astype(np.float32) for name, offset in [("a", 0), ("b", 7), ("c", 13)]}
PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]


def scene(noise: float, seed: int = 0) -> Found:
    """Forty points seen by three photos, each pair placing them a little differently."""
    random = np.random.default_rng(seed)

    def seen(name: str) -> np.ndarray:
        return (TRUTH[name] + random.normal(0, noise, (40, 2))).astype(np.float32)

    return {(x, y): Correspondences(seen(x), seen(y), SCORES) for x, y in PAIRS}


def join_merged(read: Callable[[], Iterable[tuple[Pair, Correspondences]]]) -> Tracks:
    return merged(read, radius=lambda _name: 3.0)


def join_anchored(read: Callable[[], Iterable[tuple[Pair, Correspondences]]]) -> Tracks:
    return anchored(
        read, anchors=lambda name: TRUTH[name][:20], snap=lambda _name: 2.0, radius=lambda _name: 3.0
    )


def join_coarse(read: Callable[[], Iterable[tuple[Pair, Correspondences]]]) -> Tracks:
    return coarse_grid(read, grid=lambda _name: CoarseGrid((0.0, 0.0), (8.0, 8.0)))


JOINS: dict[str, Join] = {
    "merged": join_merged,
    "anchored": join_anchored,
    "quantised": quantised,
    "coarse-grid": join_coarse,
}


def as_places(tracks: Tracks, found: Found) -> dict[Pair, set[tuple[float, ...]]]:
    """Matches as places, so that the numbering of keypoints does not matter."""
    places = {}
    for pair, correspondences in found.items():
        indices = tracks.matches(pair, correspondences).indices
        rows = np.hstack([tracks.keypoints[pair[0]][indices[:, 0]], tracks.keypoints[pair[1]][indices[:, 1]]])
        places[pair] = {tuple(row) for row in rows.tolist()}
    return places


@pytest.mark.parametrize("join", [join_merged, join_anchored])
def test_points_of_all_pairs_become_one_keypoint(join: Join) -> None:
    found = scene(noise=0.3)
    tracks = join(found.items)
    for name, positions in tracks.keypoints.items():
        assert len(positions) == 40
        distance = np.linalg.norm(positions[:, None] - TRUTH[name][None], axis=2).min(axis=1)
        assert distance.max() < 1.0
    assert all(len(tracks.matches(pair, seen)) == 40 for pair, seen in found.items())


@pytest.mark.parametrize("join", [join_merged, join_anchored])
def test_tracks_close_over_three_photos(join: Join) -> None:
    found = scene(noise=0.3)
    tracks = join(found.items)
    forward = {pair: dict(tracks.matches(pair, seen).indices.tolist()) for pair, seen in found.items()}
    assert all(
        forward["b", "c"][middle] == forward["a", "c"][start] for start, middle in forward["a", "b"].items()
    )


@pytest.mark.parametrize("name", JOINS)
@given(seed=st.integers(0, 2**16), noise=st.floats(0.1, 6), order=st.permutations(PAIRS))
@settings(max_examples=25, deadline=None)
def test_joining_does_not_depend_on_the_order_of_pairs(
    name: str, seed: int, noise: float, order: list[Pair]
) -> None:
    found = scene(noise, seed)
    one = JOINS[name](found.items)
    other = JOINS[name](lambda: [(pair, found[pair]) for pair in order])
    for photo in one.keypoints:
        np.testing.assert_array_equal(one.keypoints[photo], other.keypoints[photo])
    assert as_places(one, found) == as_places(other, found)


@pytest.mark.parametrize("name", JOINS)
def test_joining_does_not_depend_on_which_photo_comes_first(name: str) -> None:
    found = scene(noise=2.0)
    turned = {
        (second, first): Correspondences(seen.points1, seen.points0, seen.scores)
        for (first, second), seen in found.items()
    }
    one, other = JOINS[name](found.items), JOINS[name](turned.items)
    for photo in one.keypoints:
        np.testing.assert_array_equal(one.keypoints[photo], other.keypoints[photo])


def test_anchors_keep_their_numbers_and_places() -> None:
    tracks = join_anchored(scene(noise=0.5).items)
    for name, keypoints in tracks.keypoints.items():
        np.testing.assert_array_equal(keypoints[:20], TRUTH[name][:20])


def test_two_matches_that_fall_on_one_keypoint_leave_the_better_one() -> None:
    pair = Correspondences(
        np.array([[10, 10], [10.5, 10]], np.float32),
        np.array([[50, 50], [90, 90]], np.float32),
        np.array([0.2, 0.9], np.float32),
    )
    tracks = join_merged(lambda: [(("a", "b"), pair)])
    found = tracks.matches(("a", "b"), pair)
    assert len(found) == 1
    np.testing.assert_allclose(tracks.keypoints["b"][found.indices[0, 1]], [90, 90], atol=1e-3)


@pytest.mark.parametrize("name", JOINS)
def test_a_pair_without_matches_stays_empty(name: str) -> None:
    nothing = np.zeros((0, 2), np.float32)
    empty = Correspondences(nothing, nothing, SCORES[:0])
    tracks = JOINS[name](lambda: [(("a", "b"), empty)])
    assert len(tracks.matches(("a", "b"), empty)) == 0


def test_a_match_counts_only_where_it_is_the_best_of_both_its_keypoints() -> None:
    found = one_to_one(
        np.array([0, 0, 1, 2]), np.array([5, 6, 6, 7]), np.array([0.9, 0.8, 0.7, 0.1], np.float32)
    )
    assert found.indices.tolist() == [[0, 5], [2, 7]]


def hloc_keypoints(found: Found, name: str, cell: float, error: float) -> set[tuple[float, float]]:
    """The rule of hloc's aggregation, point by point."""
    bins: dict[tuple[float, ...], dict[tuple[float, ...], float]] = {}
    for pair, seen in found.items():
        if name not in pair:
            continue
        points = seen.points0 if pair[0] == name else seen.points1
        for point, score in zip(points, seen.scores.tolist(), strict=True):
            owner = tuple(np.round((point + 0.5) / cell) * cell - 0.5)
            finer = tuple(np.round((point + 0.5) / error) * error - 0.5)
            votes = bins.setdefault(owner, {})
            votes[finer] = votes.get(finer, 0.0) + score
    best = [max(votes, key=lambda place: votes[place]) for votes in bins.values()]
    return {(float(x), float(y)) for x, y in best}


@pytest.mark.parametrize(("cell", "error"), [(8, 2), (1, 1), (4, 4)])
def test_quantising_follows_hlocs_rule(cell: float, error: float) -> None:
    random = np.random.default_rng(1)

    def points() -> np.ndarray:
        return (random.random((800, 2)) * 120).astype(np.float32)

    found = {pair: Correspondences(points(), points(), random.random(800, np.float32)) for pair in PAIRS}
    tracks = quantised(found.items, cell=cell, error=error, most=100_000)
    for name in "abc":
        ours = {(float(x), float(y)) for x, y in tracks.keypoints[name]}
        assert ours == hloc_keypoints(found, name, cell, error)


def test_quantising_keeps_the_heaviest_keypoints() -> None:
    found = scene(noise=0.1)
    weights = np.linspace(0.1, 1, 40, dtype=np.float32)
    weighted = {pair: Correspondences(seen.points0, seen.points1, weights) for pair, seen in found.items()}
    tracks = quantised(weighted.items, most=10)
    distance = np.linalg.norm(tracks.keypoints["a"][:, None] - TRUTH["a"][None], axis=2)
    assert sorted(distance.argmin(axis=1).tolist()) == list(range(30, 40))


def test_cells_of_a_coarse_grid_lie_round_its_nodes() -> None:
    nodes = np.array([[8, 16], [11.9, 16], [12.1, 16]], np.float32)
    pair = Correspondences(nodes, nodes, np.ones(3, np.float32))
    tracks = join_coarse(lambda: [(("a", "b"), pair)])
    assert len(tracks.keypoints["a"]) == 2


@pytest.mark.parametrize("name", ["merged", "anchored", "quantised", "coarse-grid"])
def test_hidden_keypoints_join_nothing(name: str) -> None:
    found = scene(noise=0.1)

    def keep(photo: str, keypoints: np.ndarray) -> np.ndarray:
        return keypoints[:, 0] < (120 if photo == "a" else 1000)

    nothing = np.zeros((0, 2), np.float32)
    joins: dict[str, Join] = {
        "merged": lambda read: merged(read, radius=lambda _name: 3.0, keep=keep),
        "anchored": lambda read: anchored(
            read,
            anchors=lambda _name: nothing,
            snap=lambda _name: 2.0,
            radius=lambda _name: 3.0,
            keep=keep,
        ),
        "quantised": lambda read: quantised(read, keep=keep),
        "coarse-grid": lambda read: coarse_grid(
            read, grid=lambda _name: CoarseGrid((0.0, 0.0), (8.0, 8.0)), keep=keep
        ),
    }
    tracks = joins[name](found.items)
    assert 0 < len(tracks.keypoints["a"]) < 40
    assert tracks.keypoints["a"][:, 0].max() < 120
    matches = tracks.matches(("a", "b"), found["a", "b"])
    assert 0 < len(matches) <= len(tracks.keypoints["a"])


def test_a_coarse_grid_knows_where_its_nodes_lie() -> None:
    grid = CoarseGrid(origin=(1.5, 2.5), side=(12.0, 12.5))
    nodes = np.stack(np.meshgrid(np.arange(9), np.arange(7)), -1).reshape(-1, 2)
    points = (nodes * np.array(grid.side) + grid.origin).astype(np.float32)
    shifted = points + np.random.default_rng(0).uniform(-5.9, 5.9, points.shape).astype(np.float32)
    pair = Correspondences(points, shifted, np.ones(len(points), np.float32))
    tracks = coarse_grid(lambda: [(("a", "b"), pair)], grid=lambda _name: grid)
    assert len(tracks.keypoints["a"]) == len(nodes)
    np.testing.assert_allclose(tracks.keypoints["a"], points, atol=1e-3)
    np.testing.assert_allclose(tracks.keypoints["b"], shifted, atol=1e-3)
    indices = tracks.matches(("a", "b"), pair).indices
    np.testing.assert_array_equal(indices[:, 0], indices[:, 1])
