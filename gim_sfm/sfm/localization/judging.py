"""Whether a pose is more than chance: what sees nothing of a model still agrees with some pose a little.

The inliers are weighed against what a random assignment of the same places to the same landmarks would give
(the a-contrario reasoning of Moisan and Stival, IJCV 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64
from scipy.spatial import cKDTree
from scipy.special import gammaln

from gim_sfm.sfm.colmap import to_colmap
from gim_sfm.sfm.localization.posing import MAX_ERROR, Posed
from gim_sfm.sfm.localization.views import View, are_focals_known, depths, projected

LEAST_EVIDENCE = 8.0
"""Decimal powers by which chance would have to be outdone."""

LARGEST_DEVIATION = 0.1
"""Standard deviation of the position over the distance of the landmarks beyond which it is not determined."""

APART = 0.02
"""Shares of the photo's longest side within which sightings count as one."""

LOOSEST = 2.0
"""Pixels of the network's input: matchers place keypoints to about half a pixel."""

FOCALS = (0.2, 10.0)
"""Focal lengths over the longest side: from a fish-eye's to a long telephoto lens."""

LARGEST_CHANGE = 2.0
"""Factor by which a focal length may depart from what EXIF says."""

RADII = (1.0, 2.0, 4.0, 8.0, MAX_ERROR)
"""Pixels of the network's input at which the inliers are weighed; the most telling one counts."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What speaks for a pose.

    Attributes:
        evidence: Negative decimal logarithm of how often chance would do as well.
        position_deviation: Standard deviation of the position in model units, in its least certain direction.
        turn_deviation: Of the orientation in degrees.
        distance: Median distance of the inliers, in model units.
        error: Their median reprojection error in pixels of the network's input.
    """

    evidence: float
    position_deviation: float
    turn_deviation: float
    distance: float
    error: float

    @property
    def is_close(self) -> bool:
        """Whether the inliers agree as closely as a matcher tells them; else lens and pose are at odds."""
        return self.error <= LOOSEST

    @property
    def is_evident(self) -> bool:
        """Whether chance is ruled out."""
        return self.evidence >= LEAST_EVIDENCE

    @property
    def is_determined(self) -> bool:
        """Whether the landmarks hold the pose in all directions."""
        return self.position_deviation <= LARGEST_DEVIATION * self.distance


@dataclass(frozen=True, slots=True, eq=False)
class _Spots:
    """Places of one view that lie apart from each other, each with the landmark that it is said to show.

    Attributes:
        places: (x, y) in COLMAP's pixels.
        projections: Where the landmarks fall.
        errors: From one to the other.
        pixel: File pixels to a pixel of the network's input.
        area: Of the photo in square pixels.
    """

    places: Float64[np.ndarray, "n 2"]
    projections: Float64[np.ndarray, "n 2"]
    errors: Float64[np.ndarray, " n"]
    pixel: float
    area: float


def judge(views: Sequence[View], posed: Posed) -> Verdict:
    """Weighs a pose."""
    near = [depths(view, posed.rig_from_world)[mask] for view, mask in zip(views, posed.inliers, strict=True)]
    misses = [
        error[mask] / view.pixel for view, error, mask in zip(views, posed.errors, posed.inliers, strict=True)
    ]
    spots = [
        _spots(view, camera, posed.rig_from_world, errors)
        for view, camera, errors in zip(views, posed.cameras, posed.errors, strict=True)
    ]
    sample = 3 if are_focals_known(views) else 4
    return Verdict(
        evidence=max(_evidence(spots, radius, sample) for radius in RADII) - float(np.log10(len(RADII))),
        position_deviation=_largest(posed.covariance[3:, 3:]) if _are_lenses(views, posed) else np.inf,
        turn_deviation=float(np.degrees(_largest(posed.covariance[:3, :3]))),
        distance=float(np.median(np.concatenate(near))),
        error=float(np.median(np.concatenate(misses))),
    )


def _are_lenses(views: Sequence[View], posed: Posed) -> bool:
    """Whether the focal lengths that were found are such as lenses have; others are runaways."""
    for view, camera in zip(views, posed.cameras, strict=True):
        focal = camera.mean_focal_length()
        share, change = focal / max(camera.width, camera.height), focal / view.camera.mean_focal_length()
        if view.focal == "unknown" and not FOCALS[0] <= share <= FOCALS[1]:
            return False
        if view.focal == "prior" and not 1 / LARGEST_CHANGE <= change <= LARGEST_CHANGE:
            return False
    return True


def _largest(covariance: Float64[np.ndarray, "3 3"]) -> float:
    if not np.isfinite(covariance).all():
        return np.inf
    return float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


def _spots(
    view: View, camera: pycolmap.Camera, pose: pycolmap.Rigid3d, errors: Float64[np.ndarray, " n"]
) -> _Spots:
    """Thins what a view sees: sightings in one spot share their fate, so they count as one."""
    size = view.camera.width, view.camera.height
    kept = _apart(view.sightings.places, APART * max(size))
    return _Spots(
        places=to_colmap(view.sightings.places[kept]),
        projections=projected(view, camera, pose)[kept],
        errors=errors[kept],
        pixel=view.pixel,
        area=float(size[0] * size[1]),
    )


def _apart(places: Float64[np.ndarray, "n 2"], distance: float) -> Bool[np.ndarray, " n"]:
    """Marks places, first come first served, so that no two are nearer to each other than this."""
    kept = np.ones(len(places), bool)
    if not len(places):
        return kept
    for index, near in enumerate(cKDTree(places).query_ball_point(places, distance, return_sorted=True)):
        if kept[index]:
            kept[[other for other in near if other > index]] = False
    return kept


def _evidence(views: Sequence[_Spots], radius: float, sample: int) -> float:
    """Decimal powers by which as many inliers within this radius outdo chance."""
    total = sum(len(spots.errors) for spots in views)
    inliers = sum(int((spots.errors <= radius * spots.pixel).sum()) for spots in views)
    if inliers <= sample:
        return -np.inf
    expected = sum(len(spots.errors) * _chance(spots, radius * spots.pixel) for spots in views)
    ways = np.log(max(1, total - sample)) + _choices(total, inliers) + _choices(inliers, sample)
    return float(-(ways + (inliers - sample) * np.log(min(1.0, expected / total))) / np.log(10))


def _chance(spots: _Spots, radius: float) -> float:
    """Share of the pairings of a place with another place's landmark that lie within the radius."""
    shown = spots.projections[np.isfinite(spots.projections).all(axis=1)]
    count = len(spots.errors)
    floor = np.pi * radius**2 / spots.area
    if not len(shown) or count < 2:
        return float(floor)
    near = cKDTree(spots.places).count_neighbors(cKDTree(shown), radius) - (spots.errors <= radius).sum()
    return float(max(near / (count * (count - 1)), floor))


def _choices(of: int, chosen: int) -> float:
    """Logarithm of the binomial coefficient."""
    return float(gammaln(of + 1) - gammaln(chosen + 1) - gammaln(of - chosen + 1))
