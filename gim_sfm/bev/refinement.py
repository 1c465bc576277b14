"""The last decimetres of a registration: GICP (small_gicp) on thinned clouds."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy.spatial import cKDTree

from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import SettingsError

THREADS = 1
"""More of them sum in another order each time, and the same clouds would not always give the same answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Thinned:
    """A cloud thinned to one point a voxel, ready for GICP.

    Attributes:
        points: Relative to the cloud's origin.
        prepared: The same with covariances, as small_gicp holds it.
        tree: Its search tree.
    """

    points: Float32[np.ndarray, "n 3"]
    prepared: Any
    tree: Any


@dataclass(frozen=True, slots=True, eq=False)
class Stiffness:
    """What half the sum of squared distances gains by a shift and then a turn in the frame of the source.

    The turned pose is the pose times the transform of both; turns in radians.

    Attributes:
        planes: Hessian of the distances to the planes of the partners.
        points: Hessian of the distances to the partners themselves.
        variance: Of the distances to the planes; infinite where there are next to no partners.
    """

    planes: Float64[np.ndarray, "6 6"]
    points: Float64[np.ndarray, "6 6"]
    variance: float


def thin(cloud: PointCloud, voxel: float) -> Thinned:
    """Thins a cloud and prepares it.

    Args:
        cloud: The points.
        voxel: Side of a voxel, in the unit of the cloud.

    Raises:
        SettingsError: small_gicp is not installed.
    """
    prepared, tree = _gicp().preprocess_points(
        cloud.points.astype(np.float64), downsampling_resolution=voxel, num_threads=THREADS
    )
    return Thinned(prepared.points()[:, :3].astype(np.float32), prepared, tree)


def refine(
    source: Thinned, target: Thinned, target_from_source: Float64[np.ndarray, "4 4"], *, within: float
) -> Float64[np.ndarray, "4 4"]:
    """Moves a registration to where the two clouds fit best nearby.

    Args:
        source: Thinned points.
        target: Thinned points.
        target_from_source: Where to begin.
        within: Distance of partners at most.
    """
    moved: Float64[np.ndarray, "4 4"] = (
        _gicp()
        .align(
            target.prepared,
            source.prepared,
            target.tree,
            init_T_target_source=target_from_source,
            registration_type="GICP",
            max_correspondence_distance=within,
            num_threads=THREADS,
        )
        .T_target_source
    )
    return moved


def measure_stiffness(
    source: Thinned, target: Thinned, target_from_source: Float64[np.ndarray, "4 4"], *, within: float
) -> Stiffness:
    """How firmly the planes of their partners hold points.

    GICP's own Hessian holds them within their planes, too, which is its regularisation: it would call a
    corridor well known along its length.

    Args:
        source: Thinned points.
        target: Thinned points.
        target_from_source: Where they fit.
        within: Distance of partners at most.
    """
    turn = target_from_source[:3, :3]
    moved = source.points @ turn.T + target_from_source[:3, 3]
    found = cKDTree(target.points).query(moved, distance_upper_bound=within)
    distances, partners = np.asarray(found[0]), np.asarray(found[1])
    near = np.isfinite(distances)
    if np.count_nonzero(near) <= 6:
        return Stiffness(np.zeros((6, 6)), np.zeros((6, 6)), np.inf)
    normals = target.prepared.normals()[partners[near], :3]
    missed = np.einsum("ni,ni->n", normals, target.points[partners[near]] - moved[near])
    held = [_slopes(source.points[near], along) for along in (normals @ turn, *np.eye(3))]
    return Stiffness(
        held[0].T @ held[0],
        sum((each.T @ each for each in held[1:]), np.zeros((6, 6))),
        float(missed @ missed / (len(missed) - 6)),
    )


def _slopes(
    points: Float32[np.ndarray, "n 3"], along: Float64[np.ndarray, "... 3"]
) -> Float64[np.ndarray, "n 6"]:
    """Derivatives of the places of points along directions by a shift and a turn of them all."""
    directions = np.broadcast_to(along, points.shape)
    return np.concatenate([directions, np.cross(points, directions)], axis=1)


def measure_rmse(
    source: Thinned, target: Thinned, target_from_source: Float64[np.ndarray, "4 4"], *, within: float
) -> float:
    """Root mean square distance of the points that have a partner; infinite where none has."""
    moved = source.points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    distances = np.asarray(cKDTree(target.points).query(moved, distance_upper_bound=within)[0])
    near = distances[np.isfinite(distances)]
    return float(np.sqrt(np.mean(near**2))) if len(near) else np.inf


def _gicp() -> Any:
    try:
        return import_module("small_gicp")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "Registering clouds needs small_gicp, which is not installed.",
            remedy="pip install 'gim_sfm[bev]'",
        ) from error
