"""What became of one pair: errors of the estimate and precision of the matches, for a result file."""

import numpy as np
from jaxtyping import Bool, Float, Float64

from gim_sfm.evaluation.benchmark import HomographyPair, PosedPair
from gim_sfm.evaluation.estimators import Estimate, HomographyEstimate
from gim_sfm.geometry import NO_BASELINE, direction_angle_degrees
from gim_sfm.types import Correspondences

Points = Float[np.ndarray, "m 2"]
Distances = Float64[np.ndarray, " m"]

CORRECT_EPIPOLAR = 5e-4
"""Squared symmetric epipolar distance, in focal lengths, below which a match counts as correct."""

CORRECT_PIXELS = 3.0
"""Distance from where the true homography sends a point below which its match counts as correct."""

SHORT_SIDE = 480.0
"""Length of the shorter image side in whose pixels HPatches is evaluated."""

POSE_COLUMNS = ("R_errs", "t_errs", "t_errs2", "Bef.Prec", "Bef.Num", "Aft.Prec", "Aft.Num")
CORNER_COLUMNS = ("corner_errs", "Bef.Prec", "Bef.Num", "Aft.Prec", "Aft.Num")


def pose_outcome(pair: PosedPair, found: Correspondences, estimate: Estimate | None) -> dict[str, float]:
    """Errors of a relative pose and precision of the matches behind it, by the protocol of ZEB.

    Args:
        pair: The truth.
        found: The matches, in file pixels.
        estimate: What came of them, or None.

    Returns:
        `POSE_COLUMNS`: the angle of the rotation and of the baseline's axis in degrees (infinite without an
        estimate, the latter not a number without a true baseline), the distance between the true baseline and
        the estimated one at its length, and share and number of correct matches before and after estimation.
    """
    distances = squared_epipolar_distances(found, pair)
    return {
        **_pose_errors(pair.second_from_first, estimate),
        **_precisions(distances < CORRECT_EPIPOLAR, estimate),
    }


def corner_outcome(
    pair: HomographyPair,
    found: Correspondences,
    estimate: HomographyEstimate | None,
    short_side: float = SHORT_SIDE,
) -> dict[str, float]:
    """Corner error of a homography and precision of the matches behind it, by the protocol of HPatches.

    Args:
        pair: The truth.
        found: The matches, in file pixels.
        estimate: What came of them, in file pixels, or None.
        short_side: Lengths are in pixels of the second image shrunk until its shorter side has so many.

    Returns:
        `CORNER_COLUMNS`: mean distance of the four corners of the first image, moved by the estimated and by
        the true homography (infinite without an estimate), and share and number of matches within three such
        pixels of the truth before and after estimation.
    """
    scale = corner_scale(pair, short_side)
    distances = scale * _distances(move_points(found.points0, pair.second_from_first), found.points1)
    error = np.inf if estimate is None else scale * corner_error(pair, estimate.second_from_first)
    return {"corner_errs": error, **_precisions(distances < CORRECT_PIXELS, estimate)}


def corner_scale(pair: HomographyPair, short_side: float = SHORT_SIDE) -> float:
    """Pixels of the protocol in a pixel of the second file; an estimator's threshold is divided by it."""
    return short_side / min(pair.sizes[1])


def squared_epipolar_distances(found: Correspondences, pair: PosedPair) -> Distances:
    """Squared symmetric epipolar distance (p1' E p0)^2 (1/|E p0|^2 + 1/|E' p1|^2) under the true pose.

    Args:
        found: Matches in file pixels.
        pair: The truth.

    Returns:
        (m,), in units of the focal length; not a number where a point lies on an epipole or is not finite.
    """
    rays0 = _rays(found.points0, pair.intrinsics[0])
    rays1 = _rays(found.points1, pair.intrinsics[1])
    essential = _cross_product_matrix(pair.second_from_first[:, 3]) @ pair.second_from_first[:, :3]
    lines1, lines0 = rays0 @ essential.T, rays1 @ essential
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = 1.0 / np.sum(lines1[:, :2] ** 2, axis=1) + 1.0 / np.sum(lines0[:, :2] ** 2, axis=1)
        return np.asarray(np.sum(rays1 * lines1, axis=1) ** 2 * weight, dtype=np.float64)


def move_points(points: Points, homography: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "m 2"]:
    """Where a homography sends points; not finite where it sends them to infinity."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(moved[:, :2] / moved[:, 2:], dtype=np.float64)


def corner_error(pair: HomographyPair, second_from_first: Float64[np.ndarray, "3 3"]) -> float:
    """Mean distance in file pixels of the second image; infinite where a corner goes to infinity."""
    width, height = pair.sizes[0]
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)
    moved = (move_points(corners, matrix) for matrix in (second_from_first, pair.second_from_first))
    error = float(_distances(*moved).mean())
    return error if np.isfinite(error) else np.inf


def _pose_errors(truth: Float64[np.ndarray, "3 4"], estimate: Estimate | None) -> dict[str, float]:
    if estimate is None:
        return dict.fromkeys(POSE_COLUMNS[:3], np.inf)
    pose, baseline = estimate.second_from_first, truth[:, 3]
    length = float(np.linalg.norm(baseline))
    angle = float(direction_angle_degrees(pose[:, 3], baseline)) if length >= NO_BASELINE else np.nan
    return {
        "R_errs": _rotation_error(pose[:, :3], truth[:, :3]),
        "t_errs": min(angle, 180.0 - angle),
        "t_errs2": float(np.linalg.norm(length * pose[:, 3] - baseline)),
    }


def _rotation_error(estimated: Float64[np.ndarray, "3 3"], truth: Float64[np.ndarray, "3 3"]) -> float:
    """By the trace, as in published results: rounded true rotations make it differ from exact formulas."""
    cosine = (np.trace(estimated.T @ truth) - 1.0) / 2.0
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _precisions(
    correct: Bool[np.ndarray, " m"], estimate: Estimate | HomographyEstimate | None
) -> dict[str, float]:
    kept = correct[:0] if estimate is None else correct[estimate.inliers]
    return {
        "Bef.Prec": _share(correct),
        "Bef.Num": float(correct.sum()),
        "Aft.Prec": _share(kept),
        "Aft.Num": float(kept.sum()),
    }


def _share(correct: Bool[np.ndarray, " m"]) -> float:
    return float(correct.mean()) if correct.size else 0.0


def _rays(points: Points, intrinsics: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "m 3"]:
    scaled = (points - intrinsics[:2, 2]) / intrinsics.diagonal()[:2]
    return np.column_stack([scaled, np.ones(len(scaled))])


def _cross_product_matrix(vector: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    x, y, z = vector
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _distances(first: Points, second: Points) -> Distances:
    return np.asarray(np.linalg.norm(first - second, axis=1), dtype=np.float64)
