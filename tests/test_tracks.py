import numpy as np

from gim_sfm.sfm.tracks import merge
from gim_sfm.types import Correspondences

SCORES = np.ones(40, np.float32)


def scene(noise: float) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], Correspondences]]:
    """Forty points seen by three photos, each pair placing them a little differently."""
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(5)), -1).reshape(-1, 2) * 30.0 + 20.0
    truth = {name: (grid + offset).astype(np.float32) for name, offset in [("a", 0), ("b", 7), ("c", 13)]}

    def seen(name: str) -> np.ndarray:
        return (truth[name] + random.normal(0, noise, (40, 2))).astype(np.float32)

    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    return truth, {(x, y): Correspondences(seen(x), seen(y), SCORES) for x, y in pairs}


def test_points_of_all_pairs_become_one_keypoint_at_their_mean() -> None:
    truth, pairs = scene(noise=0.3)
    merged = merge(lambda: pairs.items(), radius=3)
    for name, positions in merged.keypoints.items():
        assert len(positions) == 40
        distance = np.linalg.norm(positions[:, None] - truth[name][None], axis=2).min(axis=1)
        assert distance.max() < 1.0
    assert all(len(matches) == 40 for matches in merged.matches.values())


def test_tracks_close_over_three_photos() -> None:
    _, pairs = scene(noise=0.3)
    matches = merge(lambda: pairs.items(), radius=3).matches
    forward = {pair: dict(found.indices.tolist()) for pair, found in matches.items()}
    assert all(
        forward["b", "c"][middle] == forward["a", "c"][start] for start, middle in forward["a", "b"].items()
    )


def test_merging_does_not_depend_on_the_order_of_pairs() -> None:
    _, pairs = scene(noise=0.3)
    one = merge(lambda: pairs.items(), radius=3)
    other = merge(lambda: reversed(list(pairs.items())), radius=3)
    for name in one.keypoints:
        np.testing.assert_allclose(
            np.sort(one.keypoints[name], axis=0), np.sort(other.keypoints[name], axis=0), atol=1e-4
        )


def test_two_matches_that_fall_on_one_keypoint_leave_the_better_one() -> None:
    pair = Correspondences(
        np.array([[10, 10], [10.5, 10]], np.float32),
        np.array([[50, 50], [90, 90]], np.float32),
        np.array([0.2, 0.9], np.float32),
    )
    merged = merge(lambda: [(("a", "b"), pair)], radius=3)
    (found,) = merged.matches.values()
    assert len(found) == 1
    np.testing.assert_allclose(merged.keypoints["b"][found.indices[0, 1]], [90, 90])


def test_a_pair_without_matches_stays_empty() -> None:
    empty = Correspondences(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), SCORES[:0])
    assert len(merge(lambda: [(("a", "b"), empty)], radius=3).matches["a", "b"]) == 0
