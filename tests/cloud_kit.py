"""Clouds of scenes that are known exactly."""

import numpy as np
from scipy.spatial.transform import Rotation

from gim_sfm.bev.pointcloud import PointCloud


def yard(
    random: np.random.Generator, *, points: int = 40_000, size: float = 60.0, roof: float | None = None
) -> PointCloud:
    """Flat ground at height 0 with boxes and walls on it, under a roof where its height is given."""
    share, half = points // 4, size / 2
    ground = np.column_stack([random.uniform(-half, half, (2 * share, 2)), random.normal(0, 0.02, 2 * share)])
    corners = random.uniform(-half, half, (12, 2))
    boxes = corners[random.integers(0, 12, share)] + random.uniform(-2, 2, (share, 2))
    tops = np.column_stack([boxes, random.uniform(0, 4, share)])
    along = random.uniform(-half, half, share)
    walls = np.column_stack([along, np.where(along > 0, size / 3, -size / 4), random.uniform(0, 6, share)])
    parts = [ground, tops, walls]
    if roof is not None:
        above = random.uniform(-half, half, (3 * share, 2))
        parts.append(np.column_stack([above, np.full(3 * share, roof)]))
    coordinates = np.concatenate(parts)
    return PointCloud.of(coordinates, random.uniform(0, 1, len(coordinates)))


def move(
    yaw: float = 0.0, tilt: float = 0.0, towards: float = 0.0, shift: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """4x4: a turn about z, then a tilt about a horizontal axis in this direction, degrees, then a shift."""
    axis = np.radians(tilt) * np.array([np.cos(np.radians(towards)), np.sin(np.radians(towards)), 0])
    moved = np.eye(4)
    moved[:3, :3] = (Rotation.from_rotvec(axis) * Rotation.from_euler("z", yaw, degrees=True)).as_matrix()
    moved[:3, 3] = shift
    return moved


def carried(cloud: PointCloud, moved: np.ndarray) -> PointCloud:
    """The moved cloud, with its origin where it was."""
    there = cloud.moved(moved)
    return PointCloud((there.points + there.origin).astype(np.float32), intensity=cloud.intensity)
