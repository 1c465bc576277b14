"""The pose of a camera, or of a rig of cameras, from the landmarks it sees (perspective-n-point).

COLMAP's LO-RANSAC finds the pose (from three points, from four where the focal length is unknown) and its
least squares refine it. What is here narrows the inliers to what the photo's own noise allows, and tells how
certain the pose is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64

from gim_sfm.sfm.colmap import to_colmap
from gim_sfm.sfm.localization.covariance import covariance_of
from gim_sfm.sfm.localization.views import View, are_focals_known, projected

TRIALS = 10_000
MAX_ERROR = 12.0
"""Pixels of the network's input within which a sighting may support a pose; COLMAP's own figure."""

NARROWEST = 1.0
"""Pixels of the network's input below which inliers are not narrowed: keypoints are no better than that."""

SPREAD = 4.0
"""Inliers within so many standard deviations, as the median tells them, are kept."""

EFFICIENT = 2.385
"""Scale of a Cauchy loss, in standard deviations, that loses 5 % of the precision of plain least squares."""

ROUNDS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Posed:
    """A pose, and what speaks for it.

    Attributes:
        rig_from_world: The pose of the rig; of the camera where it is alone.
        cameras: Intrinsics of each view, with the focal length that was found.
        inliers: Which sightings of each view agree with the pose.
        errors: Of all sightings of each view, in file pixels; infinite behind the camera.
        covariance: Of a small turn (rotation vector, radians) and shift (model units) that follow the pose,
            in the frame of the rig, in this order.
    """

    rig_from_world: pycolmap.Rigid3d
    cameras: tuple[pycolmap.Camera, ...]
    inliers: tuple[Bool[np.ndarray, " _"], ...]
    errors: tuple[Float64[np.ndarray, " _"], ...]
    covariance: Float64[np.ndarray, "6 6"]


def find_pose(views: Sequence[View], *, seed: int) -> Posed | None:
    """The pose that most sightings agree with.

    Args:
        views: A single camera, or all cameras of a rig at one moment; a rig's focal lengths are known.
        seed: Of RANSAC.

    Returns:
        None where the sightings agree with none.
    """
    cameras = tuple(pycolmap.Camera(view.camera.todict()) for view in views)
    found = _estimate(views, cameras, seed)
    limits, scale = [MAX_ERROR * view.pixel for view in views], max(view.pixel for view in views)
    for _ in range(ROUNDS):
        if found is None:
            return None
        inliers = _within(_errors(views, cameras, found), limits)
        found = _refine(views, cameras, found, inliers, scale)
        if found is not None:
            limits, scale = _tolerances(views, _errors(views, cameras, found))
    if found is None:
        return None
    errors = _errors(views, cameras, found)
    inliers = _within(errors, limits)
    if _count(inliers) < _least(views):
        return None
    return Posed(
        rig_from_world=found,
        cameras=cameras,
        inliers=tuple(inliers),
        errors=tuple(errors),
        covariance=covariance_of(views, cameras, found, inliers),
    )


def _least(views: Sequence[View]) -> int:
    return 3 if are_focals_known(views) else 4


def _estimate(
    views: Sequence[View], cameras: Sequence[pycolmap.Camera], seed: int
) -> pycolmap.Rigid3d | None:
    if sum(len(view.sightings) for view in views) < _least(views):
        return None
    ransac = pycolmap.RANSACOptions(
        max_error=MAX_ERROR * max(view.pixel for view in views), max_num_trials=TRIALS, random_seed=seed
    )
    if len(views) == 1:
        options = pycolmap.AbsolutePoseEstimationOptions(
            ransac=ransac, estimate_focal_length=views[0].focal == "unknown"
        )
        sightings = views[0].sightings
        found = pycolmap.estimate_absolute_pose(
            to_colmap(sightings.places), sightings.xyz, cameras[0], options
        )
        return None if found is None else views[0].cam_from_rig.inverse() * found["cam_from_world"]
    found = pycolmap.estimate_generalized_absolute_pose(*_stacked(views, cameras), ransac)
    return None if found is None else found["rig_from_world"]


def _refine(
    views: Sequence[View],
    cameras: Sequence[pycolmap.Camera],
    start: pycolmap.Rigid3d,
    inliers: Sequence[Bool[np.ndarray, " _"]],
    scale: float,
) -> pycolmap.Rigid3d | None:
    """Robust least squares over the inliers; a focal length that is not known is changed in its camera."""
    if _count(inliers) < _least(views):
        return None
    options = pycolmap.AbsolutePoseRefinementOptions(
        refine_focal_length=not are_focals_known(views), loss_function_scale=scale
    )
    if len(views) == 1:
        sightings = views[0].sightings
        found = pycolmap.refine_absolute_pose(
            views[0].cam_from_rig * start,
            to_colmap(sightings.places),
            sightings.xyz,
            inliers[0],
            cameras[0],
            options,
        )
        return None if found is None else views[0].cam_from_rig.inverse() * found["cam_from_world"]
    places, xyz, indices, cams_from_rig, all_cameras = _stacked(views, cameras)
    found = pycolmap.refine_generalized_absolute_pose(
        start, places, xyz, np.concatenate(inliers), indices, cams_from_rig, all_cameras, options
    )
    return None if found is None else found["rig_from_world"]


def _stacked(
    views: Sequence[View], cameras: Sequence[pycolmap.Camera]
) -> tuple[np.ndarray, np.ndarray, list[int], list[pycolmap.Rigid3d], list[pycolmap.Camera]]:
    return (
        np.concatenate([to_colmap(view.sightings.places) for view in views]),
        np.concatenate([view.sightings.xyz for view in views]),
        [index for index, view in enumerate(views) for _ in range(len(view.sightings))],
        [view.cam_from_rig for view in views],
        list(cameras),
    )


def _within(
    errors: Sequence[Float64[np.ndarray, " _"]], limits: Sequence[float]
) -> list[Bool[np.ndarray, " _"]]:
    return [error <= limit for error, limit in zip(errors, limits, strict=True)]


def _count(inliers: Sequence[Bool[np.ndarray, " _"]]) -> int:
    return sum(int(mask.sum()) for mask in inliers)


def _tolerances(
    views: Sequence[View], errors: Sequence[Float64[np.ndarray, " _"]]
) -> tuple[list[float], float]:
    """Largest error of an inlier of each view, and scale of the loss, by how far the sightings scatter."""
    spreads = [_spread(view, error) for view, error in zip(views, errors, strict=True)]
    limits = [
        float(np.clip(SPREAD * spread, NARROWEST * view.pixel, MAX_ERROR * view.pixel))
        for view, spread in zip(views, spreads, strict=True)
    ]
    return limits, max(1.0, EFFICIENT * max(spreads))


def _spread(view: View, errors: Float64[np.ndarray, " n"]) -> float:
    """Standard deviation in x and y of the sightings that may support the pose, in file pixels."""
    near = errors[errors <= MAX_ERROR * view.pixel]
    return float(np.median(near) / np.sqrt(2 * np.log(2))) if len(near) else 0.0  # of a Rayleigh distribution


def _errors(
    views: Sequence[View], cameras: Sequence[pycolmap.Camera], rig_from_world: pycolmap.Rigid3d
) -> list[Float64[np.ndarray, " _"]]:
    return [
        np.linalg.norm(projected(view, camera, rig_from_world) - to_colmap(view.sightings.places), axis=1)
        for view, camera in zip(views, cameras, strict=True)
    ]
