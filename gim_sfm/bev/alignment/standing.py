"""A cloud of any density and unknown scale made ready: upright, without clutter, one point a voxel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from gim_sfm.bev.ground import MOST_TILT, Ground, find_ground, measure_extent
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import CELLS_ACROSS, VOXELS_ACROSS, Prepared, prepare_at
from gim_sfm.bev.refinement import thin
from gim_sfm.bev.topview import CLEARANCE, round_length
from gim_sfm.errors import InputError

FLOOR = 2.0
"""Percentile of the heights that takes the place of the ground where none is to be seen."""

BULK = 85.0
"""Percentage of the points, nearest to their middle, that an extent is measured from."""

FARTHEST = 2.0
"""Distance from the middle, in extents, beyond which points are left out: what photos show behind a scene."""

VOXELS = 200
"""From one end of the scene to the other."""

NEIGHBOURS = 6
ALONE = 3.0
"""Distance to the sixth neighbour, in medians, from which a point is clutter."""

FEWEST = 100
"""Points that must be left."""

Points = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """A cloud made ready for `register_scaled`.

    Attributes:
        prepared: As for a registration of known scale, with cells and voxels of its own extent.
        points: Thinned, without clutter, levelled.
        structure: Those of them that do not lie on the ground.
        extent: Twice the distance from the middle of the structure within which most of it stands.
    """

    prepared: Prepared
    points: Points
    structure: Points
    extent: float


def stand(cloud: PointCloud, *, most_tilt: float = MOST_TILT, cell: float | None = None) -> Standing:
    """Levels a cloud by its ground, or takes z for up where no ground is to be seen, and thins it.

    Args:
        cloud: Cleaned points, z up to within `most_tilt`.
        most_tilt: Degrees between z and the normal of a plane that can be the ground.
        cell: Side of a cell of the top view; None for one that goes with the scene.

    Raises:
        InputError: Too few points stand out from the ground.
    """
    cloud = _without_background(cloud)
    ground = _ground_or_floor(cloud, most_tilt)
    side = cell or round_length(ground.extent / CELLS_ACROSS)
    prepared = prepare_at(cloud, ground, side, ground.extent / VOXELS_ACROSS)
    level = ground.level_from_cloud
    thinned = thin(cloud, _span(cloud.points.astype(np.float64)) / VOXELS).points
    points = _without_clutter(thinned @ level[:3, :3].T + level[:3, 3])
    structure = points[np.abs(points[:, 2]) > CLEARANCE * _span(points)]
    if len(structure) < FEWEST:
        raise InputError(
            f"Only {len(structure)} points stand out from the ground, which tells no place.",
            remedy=f"Give a cloud with {FEWEST} points or more on walls, trees and the like.",
        )
    return Standing(prepared, points, structure, _span(structure))


def crop(
    standing: Standing, low: Float64[np.ndarray, " 3"], high: Float64[np.ndarray, " 3"], voxel: float
) -> Points:
    """The levelled points of the cloud in a box, grown by a fifth, one a voxel."""
    margin, level = 0.2 * (high - low) + 4 * voxel, standing.prepared.ground.level_from_cloud
    points = standing.prepared.cloud.points @ level[:3, :3].T.astype(np.float32) + level[:3, 3].astype(
        np.float32
    )
    inside = ((points > low - margin) & (points < high + margin)).all(axis=1)
    if not inside.any():
        return np.empty((0, 3))
    return thin(PointCloud(points[inside]), voxel).points.astype(np.float64)


def _ground_or_floor(cloud: PointCloud, most_tilt: float) -> Ground:
    try:
        ground = find_ground(cloud)
        tilt = np.degrees(np.arccos(np.clip(ground.level_from_cloud[2, 2], -1, 1)))
        if tilt <= most_tilt:
            return ground
    except InputError:
        pass  # a facade seen from afar shows none: z is up then
    floor = np.eye(4)
    floor[2, 3] = -np.percentile(cloud.points[:, 2], FLOOR)
    return Ground(floor, measure_extent(cloud.points.astype(np.float64)), 0.0)


def _without_background(cloud: PointCloud) -> PointCloud:
    offset = cloud.points - np.median(cloud.points, axis=0)
    return cloud.select(np.linalg.norm(offset, axis=1) < FARTHEST * _span(cloud.points.astype(np.float64)))


def _span(points: Points) -> float:
    offset = points[:, :2] - np.median(points[:, :2], axis=0)
    return 2 * float(np.percentile(np.linalg.norm(offset, axis=1), BULK))


def _without_clutter(points: Points) -> Points:
    distances = np.asarray(cKDTree(points).query(points, NEIGHBOURS + 1)[0])[:, NEIGHBOURS]
    return np.asarray(points[distances < ALONE * np.median(distances)])
