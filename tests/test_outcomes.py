import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gim_sfm.evaluation.benchmark import HomographyPair, PosedPair
from gim_sfm.evaluation.estimators import ESTIMATORS, Estimate, HomographyEstimate
from gim_sfm.evaluation.outcomes import (
    CORNER_COLUMNS,
    POSE_COLUMNS,
    corner_outcome,
    corner_scale,
    move_points,
    pose_outcome,
    squared_epipolar_distances,
)
from gim_sfm.geometry import invert
from gim_sfm.types import Correspondences

COUNT = 80
INTRINSICS = (
    np.array([[700.0, 0.0, 320.0], [0.0, 650.0, 240.0], [0.0, 0.0, 1.0]]),
    np.array([[900.0, 0.0, 400.0], [0.0, 880.0, 300.0], [0.0, 0.0, 1.0]]),
)


def pose(axis_angle: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    return np.column_stack([cv2.Rodrigues(np.array(axis_angle))[0], np.array(shift)])


TRUTH = pose((0.1, -0.2, 0.05), (1.5, 0.3, -0.4))


def pair_of(truth: np.ndarray, intrinsics: tuple[np.ndarray, np.ndarray] = INTRINSICS) -> PosedPair:
    return PosedPair("s#a#b", ("a.png", "b.png"), (math.nan, math.nan), intrinsics, truth)


def matches(points0: np.ndarray, points1: np.ndarray) -> Correspondences:
    scores = np.ones(len(points0), dtype=np.float32)
    return Correspondences(points0.astype(np.float32), points1.astype(np.float32), scores)


def exact_matches(truth: np.ndarray = TRUTH) -> Correspondences:
    random = np.random.default_rng(0)
    world = np.column_stack([random.uniform(-2, 2, (COUNT, 2)), random.uniform(4, 8, COUNT)])
    seen0, seen1 = world @ INTRINSICS[0].T, (world @ truth[:, :3].T + truth[:, 3]) @ INTRINSICS[1].T
    return matches(seen0[:, :2] / seen0[:, 2:], seen1[:, :2] / seen1[:, 2:])


def unit(second_from_first: np.ndarray, inliers: np.ndarray | None = None) -> Estimate:
    shift = second_from_first[:, 3]
    estimate = np.column_stack([second_from_first[:, :3], shift / np.linalg.norm(shift)])
    return Estimate(estimate, np.ones(COUNT, dtype=bool) if inliers is None else inliers)


def turned(degrees: float) -> np.ndarray:
    axis = np.array([0.3, 0.5, -0.2])
    turn = cv2.Rodrigues(np.radians(degrees) * axis / np.linalg.norm(axis))[0]
    return np.column_stack([turn @ TRUTH[:, :3], TRUTH[:, 3]])


def test_the_truth_has_no_error_and_exact_matches_are_all_correct() -> None:
    outcome = pose_outcome(pair_of(TRUTH), exact_matches(), unit(TRUTH))
    assert tuple(outcome) == POSE_COLUMNS
    assert outcome["R_errs"] == pytest.approx(0.0, abs=1e-5)
    assert outcome["t_errs"] == pytest.approx(0.0, abs=1e-5)
    assert outcome["t_errs2"] == pytest.approx(0.0, abs=1e-9)
    assert outcome["Bef.Prec"] == outcome["Aft.Prec"] == 1.0
    assert outcome["Bef.Num"] == outcome["Aft.Num"] == COUNT


@given(degrees=st.floats(0.01, 179.0))
def test_the_rotation_error_is_the_angle_turned(degrees: float) -> None:
    outcome = pose_outcome(pair_of(TRUTH), exact_matches(), unit(turned(degrees)))
    assert outcome["R_errs"] == pytest.approx(degrees, abs=1e-4)


def test_swapping_the_images_keeps_the_rotation_error() -> None:
    there = pose_outcome(pair_of(TRUTH), exact_matches(), unit(turned(7.0)))
    found = exact_matches()
    back = pose_outcome(
        pair_of(invert(TRUTH), INTRINSICS[::-1]),
        matches(found.points1, found.points0),
        unit(invert(turned(7.0))),
    )
    assert back["R_errs"] == pytest.approx(there["R_errs"])
    assert back["Bef.Prec"] == 1.0


@given(scale=st.floats(1e-3, 1e3))
def test_the_unit_of_the_truth_leaves_the_angles_alone(scale: float) -> None:
    scaled = np.column_stack([TRUTH[:, :3], scale * TRUTH[:, 3]])
    estimate = unit(pose((0.1, -0.2, 0.0), (1.0, 0.5, 0.2)))
    first = pose_outcome(pair_of(TRUTH), exact_matches(), estimate)
    second = pose_outcome(pair_of(scaled), exact_matches(), estimate)
    assert second["t_errs"] == pytest.approx(first["t_errs"])
    assert second["t_errs2"] == pytest.approx(scale * first["t_errs2"])
    assert second["Bef.Num"] == first["Bef.Num"]


def test_the_sign_of_the_baseline_shows_in_the_second_error_alone() -> None:
    estimate = unit(pose((0.1, -0.2, 0.05), (1.5, 0.0, -0.4)))
    flipped = unit(np.column_stack([estimate.second_from_first[:, :3], -estimate.second_from_first[:, 3]]))
    first, second = (pose_outcome(pair_of(TRUTH), exact_matches(), each) for each in (estimate, flipped))
    assert 0 < first["t_errs"] < 90
    assert second["t_errs"] == pytest.approx(first["t_errs"])
    assert second["t_errs2"] > first["t_errs2"] + 1.0


def test_without_a_pose_the_errors_are_infinite_and_nothing_is_left() -> None:
    outcome = pose_outcome(pair_of(TRUTH), exact_matches(), None)
    assert [outcome[name] for name in POSE_COLUMNS[:3]] == [math.inf] * 3
    assert (outcome["Bef.Prec"], outcome["Bef.Num"]) == (1.0, COUNT)
    assert (outcome["Aft.Prec"], outcome["Aft.Num"]) == (0.0, 0.0)


def test_without_matches_the_precision_is_zero() -> None:
    outcome = pose_outcome(pair_of(TRUTH), matches(np.zeros((0, 2)), np.zeros((0, 2))), None)
    assert [outcome[name] for name in POSE_COLUMNS[3:]] == [0.0] * 4


def test_without_a_true_baseline_its_angle_is_not_a_number() -> None:
    still = np.column_stack([TRUTH[:, :3], np.zeros(3)])
    outcome = pose_outcome(pair_of(still), exact_matches(), unit(TRUTH))
    assert math.isnan(outcome["t_errs"])
    assert outcome["t_errs2"] == 0.0
    assert outcome["R_errs"] == pytest.approx(0.0, abs=1e-5)
    assert outcome["Bef.Num"] == 0.0


def test_precision_counts_the_matches_before_and_after() -> None:
    found = exact_matches()
    found.points1[:20, 1] += 200.0
    found.points0[20] = np.nan
    inliers = np.zeros(COUNT, dtype=bool)
    inliers[10:40] = True
    outcome = pose_outcome(pair_of(TRUTH), found, unit(TRUTH, inliers))
    assert (outcome["Bef.Prec"], outcome["Bef.Num"]) == (pytest.approx(59 / 80), 59.0)
    assert (outcome["Aft.Prec"], outcome["Aft.Num"]) == (pytest.approx(19 / 30), 19.0)


def test_the_epipolar_distance_is_that_of_the_fundamental_matrix() -> None:
    same = (INTRINSICS[0], INTRINSICS[0])
    focal = np.diag([700.0, 700.0, 1.0])
    found = exact_matches()
    found.points1[:] += np.random.default_rng(1).normal(size=(COUNT, 2)).astype(np.float32)
    square = (focal, focal)
    x, y, z = TRUTH[:, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ TRUTH[:, :3]
    fundamental = np.linalg.inv(focal).T @ essential @ np.linalg.inv(focal)
    ones = np.ones((COUNT, 1))
    homogeneous0, homogeneous1 = np.hstack([found.points0, ones]), np.hstack([found.points1, ones])
    lines1, lines0 = homogeneous0 @ fundamental.T, homogeneous1 @ fundamental
    product = np.sum(homogeneous1 * lines1, axis=1) ** 2
    pixels = product / (lines1[:, :2] ** 2).sum(axis=1) + product / (lines0[:, :2] ** 2).sum(axis=1)
    distances = squared_epipolar_distances(found, pair_of(TRUTH, square))
    np.testing.assert_allclose(distances, pixels / 700.0**2, rtol=1e-6)
    assert not np.allclose(distances, squared_epipolar_distances(found, pair_of(TRUTH, same)))


def test_an_estimate_from_the_matches_themselves_is_nearly_the_truth() -> None:
    found = exact_matches()
    estimate = ESTIMATORS["poselib"].estimate(found.points0, found.points1, INTRINSICS, 1.0, 0)
    outcome = pose_outcome(pair_of(TRUTH), found, estimate)
    assert max(outcome["R_errs"], outcome["t_errs"]) < 0.01


SHIFT = np.array([[1.0, 0.0, 30.0], [0.0, 1.0, -20.0], [0.0, 0.0, 1.0]])
PLANE = HomographyPair("v#1#2", ("v/1.png", "v/2.png"), ((800, 600), (1280, 960)), SHIFT)


def moved_by(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]]) @ SHIFT


def test_the_corner_error_is_in_pixels_of_the_second_image_at_480() -> None:
    found = matches(np.zeros((4, 2)), np.zeros((4, 2)))
    estimate = HomographyEstimate(moved_by(3.0, 4.0), np.ones(4, dtype=bool))
    assert corner_scale(PLANE) == 0.5
    assert corner_outcome(PLANE, found, estimate)["corner_errs"] == pytest.approx(2.5)
    assert corner_outcome(PLANE, found, estimate, short_side=960)["corner_errs"] == pytest.approx(5.0)
    assert tuple(corner_outcome(PLANE, found, estimate)) == CORNER_COLUMNS


def test_the_scale_of_a_homography_means_nothing() -> None:
    found = matches(np.zeros((4, 2)), np.zeros((4, 2)))
    estimate = HomographyEstimate(-3.0 * moved_by(3.0, 4.0), np.ones(4, dtype=bool))
    assert corner_outcome(PLANE, found, estimate)["corner_errs"] == pytest.approx(2.5)


def test_matches_count_as_correct_within_three_shrunk_pixels() -> None:
    points = np.array([[10.0, 20.0], [300.0, 400.0], [5.0, 5.0], [50.0, 60.0]])
    off = np.array([[5.9, 0.0], [0.0, 6.1], [0.0, 0.0], [np.nan, 0.0]])
    found = matches(points, move_points(points, SHIFT) + off)
    inliers = np.array([True, True, False, False])
    outcome = corner_outcome(PLANE, found, HomographyEstimate(SHIFT, inliers))
    assert outcome["corner_errs"] == 0.0
    assert (outcome["Bef.Prec"], outcome["Bef.Num"]) == (0.5, 2.0)
    assert (outcome["Aft.Prec"], outcome["Aft.Num"]) == (0.5, 1.0)


def test_no_homography_and_one_to_infinity_have_infinite_error() -> None:
    found = matches(np.zeros((4, 2)), np.zeros((4, 2)))
    beyond = HomographyEstimate(np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]]), np.ones(4, dtype=bool))
    assert corner_outcome(PLANE, found, None)["corner_errs"] == math.inf
    assert corner_outcome(PLANE, found, beyond)["corner_errs"] == math.inf
