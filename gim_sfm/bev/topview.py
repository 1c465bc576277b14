"""A levelled cloud seen from above: density, height and intensity on a grid.

Cells are square and their edges lie on whole multiples of the cell size, whatever the extent: moving a cloud
by whole cells moves its picture, and changes none of its values.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from gim_sfm.bev.ground import SUBSAMPLE, Ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

Channel = Literal["density", "max_height", "height_range", "intensity"]
CHANNELS: tuple[Channel, ...] = ("density", "max_height", "height_range", "intensity")

CELLS_ACROSS = 480
"""Cells from one end of a scene to the other, where the cell size is automatic."""

MOST_CELLS = 8192
"""Cells of a side beyond which a picture is refused."""

CLEARANCE = 1 / 240
"""Height over the ground, in lengths of the scene, below which points are ground or kerb: 0.3 m of 72 m."""

POINTS_AT_ONCE = 1 << 20

Plane = Float32[np.ndarray, "height width"]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the cells of a picture lie in the levelled frame.

    Attributes:
        cell: Side of a cell, in the unit of the cloud.
        corner: (x, y) of cell (0, 0), the upper left one, in whole cells.
        size: (width, height) in cells; x grows to the right and y upwards, as on a map.
    """

    cell: float
    corner: tuple[int, int]
    size: tuple[int, int]

    @property
    def origin(self) -> tuple[float, float]:
        """(x, y) of the middle of cell (0, 0) in the levelled frame."""
        return (self.corner[0] + 0.5) * self.cell, (self.corner[1] + 0.5) * self.cell

    def to_level(self, pixels: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Places in the levelled frame of pixels of the picture, the first cell's middle at (0, 0)."""
        return np.asarray(pixels, np.float64) * (self.cell, -self.cell) + self.origin

    def to_pixels(self, places: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Pixels of places in the levelled frame."""
        return (np.asarray(places, np.float64) - self.origin) / (self.cell, -self.cell)


@dataclass(frozen=True, slots=True, eq=False)
class TopView:
    """A cloud seen from above.

    Attributes:
        grid: Where the cells lie.
        level_from_cloud: 4x4, rigid: the ground at height 0, z up.
        channels: `density`, points above the ground in each cell; `max_height`, the highest of them over the
            ground; `height_range`, highest less lowest, over all points of the cell; `intensity`, mean of all
            its points, where the cloud has one. 0 in cells without a point.
        seen: Points of each cell, those on the ground included.
        ceiling: Height from which points are left out.
    """

    grid: Grid
    level_from_cloud: Float64[np.ndarray, "4 4"]
    channels: Mapping[Channel, Plane]
    seen: Plane
    ceiling: float = np.inf


def choose_grid(cloud: PointCloud, ground: Ground, *, cell: float | None = None) -> Grid:
    """The grid that holds a scene.

    Args:
        cloud: The points.
        ground: Their ground.
        cell: Side of a cell; None for one that goes with the scene.

    Raises:
        InputError: The scene has too many cells of that size.
    """
    side = cell or round_length(ground.extent / CELLS_ACROSS)
    step = max(1, len(cloud) // SUBSAMPLE)
    x, y, _ = _levelled(cloud.points[::step], ground.level_from_cloud)
    middle = np.array([np.median(x), np.median(y)])
    reach = np.percentile(np.maximum(np.abs(x - middle[0]), np.abs(y - middle[1])), 99)
    low, high = (np.floor((middle + sign * reach) / side).astype(int) for sign in (-1, 1))
    width, height = (high - low + 1).tolist()
    if max(width, height) > MOST_CELLS:
        raise InputError(
            f"The scene has {width} x {height} cells of {side:g}, more than {MOST_CELLS} a side.",
            remedy=f"Take larger cells, {max(width, height) / MOST_CELLS * side:.2g} or more.",
        )
    return Grid(side, (int(low[0]), int(high[1])), (width, height))


def round_length(length: float) -> float:
    """The next of 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(length))
    steps = np.array([1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10])
    return float(power * steps[np.abs(steps - length / power).argmin()])


def project(cloud: PointCloud, ground: Ground, grid: Grid) -> TopView:
    """Looks at a cloud from above.

    Args:
        cloud: The points.
        ground: Their ground.
        grid: The cells; points beyond are left out, and so is a ceiling, which would hide all else.
    """
    starts = range(0, len(cloud), POINTS_AT_ONCE)

    def tally(start: int) -> _Tally:
        part = slice(start, start + POINTS_AT_ONCE)
        return _count(cloud.points[part], cloud.intensity[part], ground, grid)

    with ThreadPoolExecutor(2) as threads:
        whole = _Tally.empty(grid)
        for each in threads.map(tally, starts):
            whole = whole.joined(each)
    return whole.show(grid, ground, len(cloud.intensity) > 0)


@dataclass(frozen=True, slots=True, eq=False)
class _Tally:
    """Sums over some of the points, cell by cell."""

    seen: Float64[np.ndarray, " cells"]
    above: Float64[np.ndarray, " cells"]
    brightness: Float64[np.ndarray, " cells"]
    highest: Float32[np.ndarray, " cells"]
    lowest: Float32[np.ndarray, " cells"]

    @classmethod
    def empty(cls, grid: Grid) -> "_Tally":
        count = grid.size[0] * grid.size[1]
        none = np.zeros(count)
        infinite = np.full(count, np.inf, np.float32)
        return cls(none, none, none, -infinite, infinite)

    def joined(self, other: "_Tally") -> "_Tally":
        return _Tally(
            self.seen + other.seen,
            self.above + other.above,
            self.brightness + other.brightness,
            np.maximum(self.highest, other.highest),
            np.minimum(self.lowest, other.lowest),
        )

    def show(self, grid: Grid, ground: Ground, bright: bool) -> TopView:
        shape = (grid.size[1], grid.size[0])
        occupied = self.seen > 0
        planes: dict[Channel, np.ndarray] = {
            "density": self.above,
            "max_height": np.where(occupied, np.maximum(self.highest, 0), 0),
            "height_range": np.subtract(
                self.highest, self.lowest, out=np.zeros_like(self.lowest), where=occupied
            ),
        }
        if bright:
            planes["intensity"] = self.brightness / np.maximum(self.seen, 1)
        return TopView(
            grid,
            ground.level_from_cloud,
            {name: plane.reshape(shape).astype(np.float32) for name, plane in planes.items()},
            self.seen.reshape(shape).astype(np.float32),
            ground.ceiling,
        )


def _count(
    points: Float32[np.ndarray, "n 3"],
    intensity: Float32[np.ndarray, " m"],
    ground: Ground,
    grid: Grid,
) -> _Tally:
    x, y, z = _levelled(points, ground.level_from_cloud)
    cells, inside = _cells(x, y, grid)
    inside &= z < ground.ceiling
    cells, z = cells[inside], z[inside]
    count = grid.size[0] * grid.size[1]
    highest = np.full(count, -np.inf, np.float32)
    lowest = np.full(count, np.inf, np.float32)
    np.maximum.at(highest, cells, z)
    np.minimum.at(lowest, cells, z)
    bright = np.bincount(cells, intensity[inside], count) if len(intensity) else np.zeros(count)
    return _Tally(
        seen=np.bincount(cells, minlength=count).astype(np.float64),
        above=np.bincount(cells[z > ground.extent * CLEARANCE], minlength=count).astype(np.float64),
        brightness=bright,
        highest=highest,
        lowest=lowest,
    )


def _levelled(
    points: Float32[np.ndarray, "n 3"], level_from_cloud: Float64[np.ndarray, "4 4"]
) -> tuple[Float32[np.ndarray, " n"], ...]:
    """x, y and z one by one, which is several times as fast as together."""
    rows = level_from_cloud[:3].astype(np.float32)
    return tuple(points @ row[:3] + row[3] for row in rows)


def _cells(
    x: Float32[np.ndarray, " n"], y: Float32[np.ndarray, " n"], grid: Grid
) -> tuple[Int64[np.ndarray, " n"], np.ndarray]:
    """Number of the cell of each point, row by row, and whether it is one of the grid's."""
    column = np.floor(x / np.float32(grid.cell)).astype(np.int64) - grid.corner[0]
    row = grid.corner[1] - np.floor(y / np.float32(grid.cell)).astype(np.int64)
    inside = (column >= 0) & (column < grid.size[0]) & (row >= 0) & (row < grid.size[1])
    return row * grid.size[0] + column, inside
