"""Robust estimation of relative poses and homographies from matches that hold wrong ones.

Every estimator drops points that are not finite, gives nothing where it finds nothing, and gives the same for
the same input and seed, whatever the number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from gim_sfm.evaluation.solvers import (
    ACCURATE,
    FEWEST_FOR_HOMOGRAPHY,
    FEWEST_FOR_POSE,
    MAGSAC,
    Intrinsics,
    Model,
    Points,
    solve_as_zeb,
    solve_homography_with_opencv,
    solve_homography_with_poselib,
    solve_with_poselib,
)

OFFICIAL_PIXELS = (0.5,)
"""The one inlier threshold of ZEB."""

POSE_PIXELS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Inlier thresholds between which a comparison may choose: methods differ in how precise their points are."""

HOMOGRAPHY_PIXELS = (0.5, 1.0, 1.5, 2.0, 3.0)

USUAL_HOMOGRAPHY_PIXELS = (3.0,)
"""OpenCV's default, and that of published evaluations."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A relative pose.

    Attributes:
        second_from_first: [R | t], 3x4, |t| = 1.
        inliers: The matches it rests on.
    """

    second_from_first: Float64[np.ndarray, "3 4"]
    inliers: Bool[np.ndarray, " m"]


@dataclass(frozen=True, slots=True, eq=False)
class HomographyEstimate:
    """A homography.

    Attributes:
        second_from_first: 3x3, in the unit of the points.
        inliers: The matches it rests on.
    """

    second_from_first: Float64[np.ndarray, "3 3"]
    inliers: Bool[np.ndarray, " m"]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to find a relative pose.

    Attributes:
        name: What settings and results call it.
        pixels: Inlier thresholds to try when asked for several.
        seeded: Whether the seed changes the result.
        solve: From five or more finite matches, intrinsics, a threshold in pixels and a seed.
    """

    name: str
    pixels: tuple[float, ...]
    seeded: bool
    solve: Callable[[Points, Points, Intrinsics, float, int], Model | None]

    def estimate(
        self, points0: Points, points1: Points, intrinsics: Intrinsics, pixels: float, seed: int
    ) -> Estimate | None:
        """Finds the relative pose that most matches agree with.

        Args:
            points0: Positions in the first image, pixels, (m, 2).
            points1: Their partners in the second.
            intrinsics: Pinhole matrix of each image.
            pixels: How far inliers may lie from their epipolar line, pixels.
            seed: Of the random samples.

        Returns:
            The pose, or None where there is none.

        Raises:
            ResourceError: The memory does not suffice for so many matches.
        """
        finite = _finite(points0, points1)
        if finite.sum() < FEWEST_FOR_POSE:
            return None
        model = self.solve(points0[finite], points1[finite], intrinsics, pixels, seed)
        return None if model is None else Estimate(model[0], _spread(model[1], finite))


@dataclass(frozen=True, slots=True)
class HomographyEstimator:
    """A way to find a homography.

    Attributes:
        name: What settings and results call it.
        pixels: Inlier thresholds to try when asked for several.
        seeded: Whether the seed changes the result.
        solve: From four or more finite matches, a threshold in pixels and a seed.
    """

    name: str
    pixels: tuple[float, ...]
    seeded: bool
    solve: Callable[[Points, Points, float, int], Model | None]

    def estimate(
        self, points0: Points, points1: Points, pixels: float, seed: int
    ) -> HomographyEstimate | None:
        """Finds the homography that most matches agree with.

        Args:
            points0: Positions in the first image, (m, 2).
            points1: Their partners in the second.
            pixels: How far inliers may lie from where the homography sends them, in the unit of the points.
            seed: Of the random samples.

        Returns:
            The homography, or None where there is none.

        Raises:
            ResourceError: The memory does not suffice for so many matches.
        """
        finite = _finite(points0, points1)
        if finite.sum() < FEWEST_FOR_HOMOGRAPHY:
            return None
        model = self.solve(points0[finite], points1[finite], pixels, seed)
        if model is None or not _is_invertible(model[0]):
            return None
        return HomographyEstimate(model[0], _spread(model[1], finite))


def _finite(points0: Points, points1: Points) -> Bool[np.ndarray, " m"]:
    finite: Bool[np.ndarray, " m"] = np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1)
    return finite


def _spread(inliers: Bool[np.ndarray, " n"], finite: Bool[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    spread = np.zeros(len(finite), dtype=bool)
    spread[finite] = inliers
    return spread


def _is_invertible(homography: Float64[np.ndarray, "3 3"]) -> bool:
    return bool(np.isfinite(homography).all()) and np.linalg.matrix_rank(homography) == 3


ESTIMATORS = {
    row.name: row
    for row in (
        Estimator("official", OFFICIAL_PIXELS, False, solve_as_zeb),
        Estimator("poselib", POSE_PIXELS, True, solve_with_poselib),
        Estimator("magsac", POSE_PIXELS, True, MAGSAC.solve_pose),
        Estimator("usac", POSE_PIXELS, True, ACCURATE.solve_pose),
    )
}

HOMOGRAPHY_ESTIMATORS = {
    row.name: row
    for row in (
        HomographyEstimator("opencv", USUAL_HOMOGRAPHY_PIXELS, False, solve_homography_with_opencv),
        HomographyEstimator("magsac", HOMOGRAPHY_PIXELS, True, MAGSAC.solve_homography),
        HomographyEstimator("poselib", HOMOGRAPHY_PIXELS, True, solve_homography_with_poselib),
    )
}
