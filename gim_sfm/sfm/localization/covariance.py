"""How certain a pose is."""

from collections.abc import Sequence

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64

from gim_sfm.sfm.colmap import to_colmap
from gim_sfm.sfm.localization.views import View, are_focals_known, depths, projected

STEP = 1e-5
"""Of the numeric derivatives: radians, and shares of the landmarks' distance and of the focal length."""


def covariance_of(
    views: Sequence[View],
    cameras: Sequence[pycolmap.Camera],
    pose: pycolmap.Rigid3d,
    inliers: Sequence[Bool[np.ndarray, " _"]],
) -> Float64[np.ndarray, "6 6"]:
    """Of the least squares, by the scatter of the inliers; a focal length that was sought counts, too."""
    depth = float(
        np.median(
            np.concatenate([depths(view, pose)[mask] for view, mask in zip(views, inliers, strict=True)])
        )
    )
    moves = [*(STEP * np.eye(6)[:3]), *(STEP * depth * np.eye(6)[3:])]
    columns = []
    for move in moves:
        ahead, behind = (_moved(pose, sign * move) for sign in (1, -1))
        there = _inlier_places(views, cameras, ahead, inliers)
        columns.append((there - _inlier_places(views, cameras, behind, inliers)) / (2 * np.abs(move).max()))
    if not are_focals_known(views):
        longer, shorter = ([_zoomed(camera, 1 + sign * STEP) for camera in cameras] for sign in (1, -1))
        there = _inlier_places(views, longer, pose, inliers)
        columns.append((there - _inlier_places(views, shorter, pose, inliers)) / (2 * STEP))
    slopes = np.column_stack(columns)
    measured = np.concatenate(
        [
            to_colmap(view.sightings.places)[mask].reshape(-1)
            for view, mask in zip(views, inliers, strict=True)
        ]
    )
    residuals = _inlier_places(views, cameras, pose, inliers) - measured
    variance = residuals @ residuals / max(1, len(residuals) - len(columns))
    try:
        inverse = np.linalg.inv(slopes.T @ slopes)
    except np.linalg.LinAlgError:
        return np.full((6, 6), np.inf)
    return np.asarray(variance * inverse[:6, :6])


def _inlier_places(
    views: Sequence[View],
    cameras: Sequence[pycolmap.Camera],
    pose: pycolmap.Rigid3d,
    inliers: Sequence[Bool[np.ndarray, " _"]],
) -> Float64[np.ndarray, " 2m"]:
    return np.concatenate(
        [
            projected(view, camera, pose)[mask].reshape(-1)
            for view, camera, mask in zip(views, cameras, inliers, strict=True)
        ]
    )


def _moved(pose: pycolmap.Rigid3d, move: Float64[np.ndarray, " 6"]) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(pycolmap.Rotation3d(move[:3]), move[3:]) * pose


def _zoomed(camera: pycolmap.Camera, factor: float) -> pycolmap.Camera:
    zoomed = pycolmap.Camera(camera.todict())
    lengths = set(camera.focal_length_idxs())
    zoomed.params = [
        value * factor if index in lengths else value for index, value in enumerate(camera.params)
    ]
    return zoomed
