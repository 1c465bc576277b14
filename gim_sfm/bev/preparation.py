"""Clouds made ready for registration: levelled, seen from above, and thinned at one resolution."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from gim_sfm.bev.ground import Ground, find_ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.refinement import Thinned, thin
from gim_sfm.bev.topview import CLEARANCE, TopView, choose_grid, project, round_length

CELLS_ACROSS = 240
"""Cells of a top view that is matched, from one end of the smaller scene to the other."""

VOXELS_ACROSS = 360
"""Small voxels from one end of the scene to the other."""

COARSER = (4.0, 2.0)
"""Small voxels in a large and in a middling one."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A cloud with all that registering it needs.

    Attributes:
        cloud: The points.
        ground: Their ground.
        view: They from above.
        clouds: One point a voxel, of large, middling and small voxels.
        voxel: Side of a small one.
        level_points: The last of them, below the ceiling, with the ground at height 0.
    """

    cloud: PointCloud
    ground: Ground
    view: TopView
    clouds: tuple[Thinned, Thinned, Thinned]
    voxel: float
    level_points: Float32[np.ndarray, "n 3"]

    @property
    def thinned(self) -> Thinned:
        """The cloud of small voxels."""
        return self.clouds[-1]

    @property
    def outline(self) -> Float64[np.ndarray, "m 2"]:
        """Where something stands on the ground, seen from above, one place a voxel."""
        standing = self.level_points[self.level_points[:, 2] > CLEARANCE * VOXELS_ACROSS * self.voxel]
        cells = np.unique(np.floor(standing[:, :2] / self.voxel), axis=0)
        return np.asarray((cells + 0.5) * self.voxel, np.float64)


def prepare(
    source: PointCloud, target: PointCloud, *, cell: float | None = None
) -> tuple[Prepared, Prepared]:
    """Levels, projects and thins two clouds at one resolution, that of the smaller scene."""
    grounds = find_ground(source), find_ground(target)
    extent = min(ground.extent for ground in grounds)
    side = cell or round_length(extent / CELLS_ACROSS)
    first, second = (
        prepare_at(cloud, ground, side, extent / VOXELS_ACROSS)
        for cloud, ground in zip((source, target), grounds, strict=True)
    )
    return first, second


def prepare_at(cloud: PointCloud, ground: Ground, cell: float, voxel: float) -> Prepared:
    """Levels, projects and thins a cloud at a resolution that all clouds it is registered to must share."""
    small = thin(cloud, voxel)
    large, middling = (thin(PointCloud(small.points), times * voxel) for times in COARSER)
    level = ground.level_from_cloud.astype(np.float32)
    level_points = small.points @ level[:3, :3].T + level[:3, 3]
    level_points = level_points[level_points[:, 2] < ground.ceiling]
    view = project(cloud, ground, choose_grid(cloud, ground, cell=cell))
    return Prepared(cloud, ground, view, (large, middling, small), voxel, level_points)
