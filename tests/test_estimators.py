from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.errors import ResourceError
from gim_sfm.evaluation.estimators import ESTIMATORS, HOMOGRAPHY_ESTIMATORS, Estimate
from gim_sfm.geometry import direction_angle_degrees, rotation_angle_degrees

MODERN = [name for name in ESTIMATORS if name != "official"]


@dataclass
class Scene:
    points0: np.ndarray
    points1: np.ndarray
    intrinsics: tuple[np.ndarray, np.ndarray]
    truth: np.ndarray
    wrong: int

    def estimate(self, name: str, pixels: float, seed: int = 0) -> Estimate | None:
        return ESTIMATORS[name].estimate(self.points0, self.points1, self.intrinsics, pixels, seed)


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    seen = points @ intrinsics.T
    return seen[:, :2] / seen[:, 2:]


def draw_scene(
    seed: int,
    count: int = 300,
    wrong: float = 0.3,
    noise: float = 0.2,
    focal: tuple[float, float, float, float] = (800.0, 780.0, 1000.0, 950.0),
    baseline: float = 1.0,
    depth: tuple[float, float] = (4.0, 9.0),
) -> Scene:
    random = np.random.default_rng(seed)
    across = random.uniform(-0.4, 0.4, (count, 2))
    far = random.uniform(*depth, count)
    world = np.column_stack([across * far[:, None], far])
    rotation = cv2.Rodrigues(random.uniform(-0.2, 0.2, 3))[0]
    direction = random.normal(size=3)
    shift = baseline * direction / np.linalg.norm(direction)
    intrinsics = pinhole(*focal[:2], 320, 240), pinhole(*focal[2:], 400, 300)
    points0 = project(world, intrinsics[0]) + noise * random.normal(size=(count, 2))
    points1 = project(world @ rotation.T + shift, intrinsics[1]) + noise * random.normal(size=(count, 2))
    lost = int(wrong * count)
    points1[:lost] = random.uniform(0, 800, (lost, 2))
    truth = np.column_stack([rotation, shift])
    return Scene(points0.astype(np.float32), points1.astype(np.float32), intrinsics, truth, lost)


def angles(estimate: Estimate, truth: np.ndarray) -> tuple[float, float]:
    pose = estimate.second_from_first
    rotation = rotation_angle_degrees(pose[:, :3] @ truth[:, :3].T)
    return float(rotation), float(direction_angle_degrees(pose[:, 3], truth[:, 3]))


def test_the_tables_name_their_rows_by_themselves() -> None:
    assert all(
        name == row.name for table in (ESTIMATORS, HOMOGRAPHY_ESTIMATORS) for name, row in table.items()
    )
    assert list(ESTIMATORS) == ["official", "poselib", "magsac", "usac"]
    assert list(HOMOGRAPHY_ESTIMATORS) == ["opencv", "magsac", "poselib"]
    assert ESTIMATORS["official"].pixels == (0.5,)
    assert not ESTIMATORS["official"].seeded


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_exact_matches_give_the_exact_pose(name: str, seed: int) -> None:
    scene = draw_scene(seed, wrong=0.0, noise=0.0)
    estimate = scene.estimate(name, 0.5)
    assert estimate is not None
    assert max(angles(estimate, scene.truth)) < 0.01
    assert np.linalg.norm(estimate.second_from_first[:, 3]) == pytest.approx(1.0)
    assert estimate.inliers.mean() > 0.99


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", range(3))
def test_wrong_matches_are_told_apart(name: str, seed: int) -> None:
    scene = draw_scene(seed)
    estimate = scene.estimate(name, 0.5 if name == "official" else 1.0)
    assert estimate is not None
    assert max(angles(estimate, scene.truth)) < 2.5
    assert estimate.inliers.dtype == bool
    assert estimate.inliers.shape == (300,)
    assert estimate.inliers[: scene.wrong].mean() < 0.1
    assert estimate.inliers[scene.wrong :].mean() > 0.7


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(MODERN), zoom=st.floats(0.3, 3.0))
def test_cameras_of_any_focal_length_serve(seed: int, name: str, zoom: float) -> None:
    scene = draw_scene(seed, wrong=0.1, noise=0.0, focal=(800.0, 800.0, 800.0 * zoom, 700.0 * zoom))
    estimate = scene.estimate(name, 1.0)
    assert estimate is not None
    assert max(angles(estimate, scene.truth)) < 1.0


def transcribed(
    scene: Scene, pixels: float = 0.5, mean_of: tuple[int, ...] = (0, 3, 0, 3)
) -> Estimate | None:
    """The protocol of ZEB written down once more, with the calls exactly as its authors write them."""
    K0, K1 = (matrix.astype(np.float32) for matrix in scene.intrinsics)
    if len(scene.points0) < 5:
        return None
    rays0 = (scene.points0 - K0[[0, 1], [2, 2]][None]) / K0[[0, 1], [0, 1]][None]
    rays1 = (scene.points1 - K1[[0, 1], [2, 2]][None]) / K1[[0, 1], [0, 1]][None]
    focal = [K0[0, 0], K0[1, 1], K1[0, 0], K1[1, 1]]
    threshold = pixels / float(np.mean([focal[index] for index in mean_of]))
    essentials, mask = cv2.findEssentialMat(
        rays0, rays1, np.eye(3), threshold=threshold, prob=0.99999, method=cv2.RANSAC
    )
    if essentials is None:
        return None
    best, kept = 0, None
    for essential in np.split(essentials, len(essentials) // 3):
        count, rotation, shift, _ = cv2.recoverPose(essential, rays0, rays1, np.eye(3), 1e9, mask=mask)
        if count > best:
            best, kept = count, Estimate(np.column_stack([rotation, shift[:, 0]]), mask.ravel() > 0)
    return kept


def same(first: Estimate | None, second: Estimate | None) -> bool:
    if first is None or second is None:
        return first is second
    equal = np.array_equal(first.second_from_first, second.second_from_first)
    return equal and np.array_equal(first.inliers, second.inliers)


@pytest.mark.parametrize("seed", range(4))
def test_the_official_estimator_is_the_authors_own(seed: int) -> None:
    scene = draw_scene(seed, count=120)
    assert same(scene.estimate("official", 0.5), transcribed(scene))


@pytest.mark.parametrize("count", [4, 5, 6])
def test_the_official_estimator_is_the_authors_own_at_few_matches(count: int) -> None:
    found = []
    for seed in range(40):
        scene = draw_scene(seed, count=count, wrong=0.0, noise=3.0)
        estimate = scene.estimate("official", 0.5)
        assert same(estimate, transcribed(scene))
        found.append(estimate is not None)
    assert any(found) == (count >= 5)


def test_the_official_threshold_counts_two_focal_lengths_twice() -> None:
    scene = draw_scene(1, count=120, noise=0.5, focal=(300.0, 1500.0, 1500.0, 300.0))
    estimate = scene.estimate("official", 0.5)
    assert same(estimate, transcribed(scene))
    assert not same(estimate, transcribed(scene, mean_of=(0, 1, 2, 3)))


def test_the_official_estimator_does_not_see_beyond_fifty_baselines() -> None:
    scene = draw_scene(2, wrong=0.0, noise=0.0, baseline=0.02)
    assert scene.estimate("official", 0.5) is None
    assert transcribed(scene) is None
    estimate = scene.estimate("magsac", 0.5)
    assert estimate is not None
    assert angles(estimate, scene.truth)[0] < 0.5


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_same_seed_gives_the_same_in_any_thread(name: str) -> None:
    scene = draw_scene(3, count=150, wrong=0.5, noise=0.8)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda _: scene.estimate(name, 1.0, 7), range(4)))
    assert found[0] is not None
    assert all(same(found[0], other) for other in found)
    others = [scene.estimate(name, 1.0, seed) for seed in range(3)]
    assert ESTIMATORS[name].seeded != all(same(others[0], other) for other in others)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_points_that_are_not_finite_are_passed_over(name: str) -> None:
    scene = draw_scene(4, count=120)
    clean = scene.estimate(name, 0.5)
    bad = np.array([[np.nan, 1.0], [np.inf, 2.0]], dtype=np.float32)
    fine = np.ones((2, 2), dtype=np.float32)
    estimate = ESTIMATORS[name].estimate(
        np.concatenate([bad[:1], scene.points0, fine[:1]]),
        np.concatenate([fine[:1], scene.points1, bad[1:]]),
        scene.intrinsics,
        0.5,
        0,
    )
    assert clean is not None
    assert estimate is not None
    assert np.array_equal(estimate.second_from_first, clean.second_from_first)
    assert np.array_equal(estimate.inliers, [False, *clean.inliers, False])


DEGENERATE = {
    "none": np.zeros((0, 4)),
    "four": np.arange(16.0).reshape(4, 4) ** 2,
    "all nan": np.full((30, 4), np.nan),
    "one point": np.tile([100.0, 120.0, 90.0, 130.0], (40, 1)),
    "a line": np.outer(np.arange(40.0), [5.0, 5.0, 4.0, 4.0]),
    "huge": np.arange(160.0).reshape(40, 4) ** 2 * 1e6,
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_matches_give_a_finite_pose_or_none(name: str, case: str) -> None:
    points = DEGENERATE[case].astype(np.float32)
    scene = draw_scene(0, count=10)
    estimate = ESTIMATORS[name].estimate(points[:, :2], points[:, 2:], scene.intrinsics, 1.0, 0)
    if case in ("none", "four", "all nan"):
        assert estimate is None
    if estimate is not None:
        assert np.isfinite(estimate.second_from_first).all()
        assert estimate.inliers.shape == (len(points),)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_pure_rotation_is_found_whatever_the_baseline(name: str) -> None:
    scene = draw_scene(5, wrong=0.2, noise=0.1, baseline=0.0)
    estimate = scene.estimate(name, 1.0)
    if estimate is not None:  # the official one sees no point nearer than fifty baselines
        rotation = rotation_angle_degrees(estimate.second_from_first[:, :3] @ scene.truth[:, :3].T)
        assert rotation < 3.0
    assert estimate is not None or name == "official"


def test_memory_that_does_not_suffice_is_no_failed_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise cv2.error("std::bad_alloc")

    scene = draw_scene(6, count=20)
    monkeypatch.setattr(cv2, "findEssentialMat", fail)
    monkeypatch.setattr(cv2, "findHomography", fail)
    with pytest.raises(ResourceError, match="20 matches"):
        scene.estimate("usac", 1.0)
    with pytest.raises(ResourceError, match="20 matches"):
        HOMOGRAPHY_ESTIMATORS["magsac"].estimate(scene.points0, scene.points1, 1.0, 0)


HOMOGRAPHY = np.array([[1.1, 0.05, 12.0], [-0.04, 0.95, -7.0], [1e-4, -5e-5, 1.0]])


def send(points: np.ndarray) -> np.ndarray:
    moved = points @ HOMOGRAPHY[:, :2].T + HOMOGRAPHY[:, 2]
    return moved[:, :2] / moved[:, 2:]


@pytest.mark.parametrize("name", HOMOGRAPHY_ESTIMATORS)
def test_a_homography_is_found_among_wrong_matches(name: str) -> None:
    random = np.random.default_rng(0)
    points0 = random.uniform(0, 600, (200, 2)).astype(np.float32)
    points1 = (send(points0) + 0.2 * random.normal(size=(200, 2))).astype(np.float32)
    points1[:60] = random.uniform(0, 600, (60, 2))
    points1[60] = np.nan
    first, second = (HOMOGRAPHY_ESTIMATORS[name].estimate(points0, points1, 2.0, 3) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.second_from_first, second.second_from_first)
    corners = np.array([[0.0, 0.0], [599.0, 0.0], [0.0, 599.0], [599.0, 599.0]])
    matrix = first.second_from_first
    moved = corners @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(moved[:, :2] / moved[:, 2:] - send(corners)).max() < 1.0
    assert first.inliers[:61].mean() < 0.1
    assert first.inliers[61:].mean() > 0.95


@pytest.mark.parametrize("name", HOMOGRAPHY_ESTIMATORS)
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_matches_give_no_homography(name: str, case: str) -> None:
    points = DEGENERATE[case].astype(np.float32)
    estimate = HOMOGRAPHY_ESTIMATORS[name].estimate(points[:, :2], points[:, 2:], 1.0, 0)
    if case in ("none", "all nan", "one point"):
        assert estimate is None
    if estimate is not None:
        assert np.isfinite(estimate.second_from_first).all()
        assert np.linalg.matrix_rank(estimate.second_from_first) == 3
