"""Where the ground is, and which way is up: a cloud levelled so that its ground lies at height 0.

The lowest points of a coarse grid are ground wherever ground was seen, under a tilted sensor, too. A plane is
fitted to them that most of them agree with, and refined on all points near it. Indoors the ceiling is often
the larger plane, and all that is seen where things hide the floor: a plane is no ground if much lies below.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

MOST_TILT = 25.0
"""Degrees between the cloud's z axis and the normal of the ground: 20 of the sensor, and a slope."""

CELLS_ACROSS = 60
"""Cells of the coarse grid from one end of the scene to the other."""

NEAR_PLANE = 1 / 300
"""Distance from the plane, in lengths of the scene, within which a point belongs to it."""

FAR_BELOW = 1 / 40
"""Distance below a plane, in lengths of the scene, at which a point speaks against its being the ground."""

WEIGHT_BELOW = 3.0
"""How many points on a plane one far below it outweighs."""

LEAST_CEILING = 0.25
"""Share of the highest points of a coarse grid that lie on one level where there is a ceiling."""

MOST_ABOVE_CEILING = 0.1
"""Points above a ceiling for one on it."""

LEAST_UNDER = 0.2
"""Share of the cells of a ceiling that show something far below it; a roof seen from above hides all."""

SAMPLES = 1000
FEWEST_CELLS = 20
FEWEST_AGREEING = 0.1
"""Share of the lowest points that must lie on the ground for it to count as found."""

SUBSAMPLE = 300_000
"""Points looked at, drawn evenly over the file, to find the plane."""

Plane = Float64[np.ndarray, " 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The ground of a cloud.

    Attributes:
        level_from_cloud: 4x4, rigid, of points relative to the cloud's origin: ground at height 0, z up; x
            keeps its direction as far as it can, and the origin lies above (0, 0).
        extent: Length of the scene, in the unit of the cloud: twice the distance from its middle within
            which nine tenths of its places lie, seen from above.
        agreeing: Share of the lowest points of a coarse grid that lie on it.
        ceiling: Height from which points belong to a ceiling; infinite where there is none.
    """

    level_from_cloud: Float64[np.ndarray, "4 4"]
    extent: float
    agreeing: float
    ceiling: float = np.inf


def find_ground(cloud: PointCloud, *, seed: int = 0) -> Ground:
    """Finds the ground of a cloud whose z axis points up to within 20 degrees.

    Works at any scale: all lengths go by the extent of the scene.

    Args:
        cloud: Without stray points far away.
        seed: Of the samples.

    Raises:
        InputError: No plane near the horizontal is agreed on by enough of the lowest points.
    """
    step = max(1, len(cloud) // SUBSAMPLE)
    points = cloud.points[::step].astype(np.float64)
    extent = measure_extent(points)
    lowest = _lowest(points, extent / CELLS_ACROSS)
    near = extent * NEAR_PLANE
    plane, agreeing = _agreed_plane(lowest, extent, np.random.default_rng(seed))
    if agreeing < FEWEST_AGREEING:
        raise InputError(
            f"No ground was found: a plane within {MOST_TILT:g} degrees of the horizontal holds only "
            f"{100 * agreeing:.0f} % of the lowest points.",
            remedy="Turn the cloud so that its z axis points up, or cut away what lies below the ground.",
        )
    level = _levelling(_refined(plane, points, near))
    ceiling = _find_ceiling(points @ level[:3, :3].T + level[:3, 3], extent)
    return Ground(level, extent, agreeing, ceiling)


def measure_extent(points: Float64[np.ndarray, "n 3"]) -> float:
    """Length of a scene seen from above, without its thin outskirts; each place counts once.

    Sensors see what is near far more densely: points would speak for their neighbourhood alone.
    """
    length = _length(points)
    for _ in range(2):
        length = _length(_lowest(points, length / CELLS_ACROSS))
    return length


def _length(points: Float64[np.ndarray, "n 3"]) -> float:
    offset = points[:, :2] - np.median(points[:, :2], axis=0)
    return 2 * float(np.percentile(np.linalg.norm(offset, axis=1), 90))


def _lowest(points: Float64[np.ndarray, "n 3"], cell: float) -> Float64[np.ndarray, "cells 3"]:
    """The lowest point of every cell of a grid seen from above."""
    if not cell > 0:
        raise InputError(
            "The points lie above each other on one vertical line.", remedy="Give a cloud of a scene."
        )
    columns = np.floor(points[:, :2] / cell).astype(np.int64)
    columns -= columns.min(axis=0)
    keys = columns[:, 0] * (columns[:, 1].max() + 1) + columns[:, 1]
    order = np.lexsort((points[:, 2], keys))
    first = np.append(True, np.diff(keys[order]) > 0)
    lowest: Float64[np.ndarray, "cells 3"] = points[order[first]]
    return lowest


def _find_ceiling(level: Float64[np.ndarray, "n 3"], extent: float) -> float:
    """Height of the lower side of a ceiling: one level with many of the highest points, and few above it."""
    cell, thickness = extent / CELLS_ACROSS, 2 * extent * NEAR_PLANE
    lowest, upside_down = _lowest(level, cell), _lowest(level * (1, 1, -1), cell)
    tops = -upside_down[:, 2]
    heights = np.sort(tops[tops > extent * FAR_BELOW])
    if not len(heights):
        return np.inf
    above = len(heights) - np.searchsorted(heights, heights + thickness, side="right")
    on = np.arange(len(heights), 0, -1) - above
    best = int((on - above).argmax())
    if on[best] < LEAST_CEILING * len(upside_down) or above[best] > MOST_ABOVE_CEILING * on[best]:
        return np.inf
    is_ceiling = np.abs(tops - heights[best] - thickness / 2) <= thickness / 2
    under = lowest[is_ceiling, 2] < heights[best] - extent * FAR_BELOW
    return float(heights[best] - thickness / 2) if under.mean() >= LEAST_UNDER else np.inf


def _agreed_plane(
    lowest: Float64[np.ndarray, "n 3"], extent: float, random: np.random.Generator
) -> tuple[Plane, float]:
    """The plane that most of the lowest points agree with, few lying below it, and their share."""
    if len(lowest) < FEWEST_CELLS:
        return np.array([0.0, 0, 1, 0]), 0.0
    corners = lowest[random.integers(0, len(lowest), (SAMPLES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    upright = np.abs(normals[:, 2]) > np.cos(np.radians(MOST_TILT)) * lengths
    kept = upright & (lengths > 0)
    if not kept.any():
        return np.array([0.0, 0, 1, 0]), 0.0
    normals = normals[kept] / np.where(normals[kept, 2] < 0, -lengths[kept], lengths[kept])[:, None]
    planes = np.column_stack([normals, -np.sum(normals * corners[kept, 0], axis=1)])
    distances = lowest @ planes[:, :3].T + planes[:, 3]
    agreeing = (np.abs(distances) < extent * NEAR_PLANE).sum(axis=0)
    below = (distances < -extent * FAR_BELOW).sum(axis=0)
    enough = agreeing >= min(FEWEST_AGREEING * len(lowest), agreeing.max())
    best = int(np.where(enough, agreeing - WEIGHT_BELOW * below, -np.inf).argmax())
    return planes[best], float(agreeing[best] / len(lowest))


def _refined(plane: Plane, points: Float64[np.ndarray, "n 3"], near: float) -> Plane:
    """The plane through all points near it, the nearest counting most."""
    for width in (2 * near, near, near, near):
        distances = points @ plane[:3] + plane[3]
        weights = np.clip(1 - (distances / width) ** 2, 0, None) ** 2
        middle = weights @ points / weights.sum()
        offset = points - middle
        normal = np.linalg.eigh((offset * weights[:, None]).T @ offset)[1][:, 0]
        normal *= np.sign(normal @ plane[:3])
        plane = np.append(normal, -normal @ middle)
    return plane


def _levelling(plane: Plane) -> Float64[np.ndarray, "4 4"]:
    """The rigid transform that turns a plane's normal upright by the shortest way and puts it at height 0."""
    normal, up = plane[:3], np.array([0.0, 0, 1])
    axis = np.cross(normal, up)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    moved = np.eye(4)
    moved[:3, :3] = np.eye(3) + cross + cross @ cross / (1 + normal @ up)
    moved[2, 3] = plane[3]
    return moved
