"""Whether two clouds tell the same where both have looked: structure on structure, nothing in the way.

Both are laid on one grid, seen from above. Structure of one that falls on structure of the other agrees with
it; structure that falls where the other saw bare ground contradicts it. Clouds of different places contradict
each other however they are laid: there is always a wall in somebody's street. And where they do not, for they
hardly meet or fill everything, they agree as well a few cells aside: only the right place stands out.
"""

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.spatial import cKDTree

AGAINST = 5
"""Cells that agree for one that contradicts."""

ASIDE = 4
"""Cells between a place and those beside it which it must stand out from."""

AROUND = [
    (row, column)
    for row, column in product(range(-ASIDE, ASIDE + 1), repeat=2)
    if round(np.hypot(row, column)) == ASIDE
]
"""Steps in all directions, about that long."""

MOST_MEASURED = 6000
"""Points with which it is measured what meets."""

Cells = Bool[np.ndarray, "height width"]
LevelPoints = Float32[np.ndarray, "n 3"]

FEWEST_POINTS = 2
"""Points above the ground that make a cell structure."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two clouds agree.

    Attributes:
        overlap: Share of the structure of the cloud that has less of it which lies on structure of the other.
        consistent: Of the structure that lies where the other has looked, the share that agrees.
        distinct: Overlap less the greatest one four cells aside, in any direction; near 0 where the scene
            looks alike along a line, as in a tunnel, or where the clouds are of different places.
        compared: Cells of structure that the overlap is a share of.
        weight: Cells that agree, of both clouds together, less five times those that contradict.
    """

    overlap: float
    consistent: float
    distinct: float
    compared: int
    weight: int

    @property
    def noise(self) -> float:
        """Standard deviation of the overlap of as many cells that agree at random."""
        return float(np.sqrt(self.overlap * (1 - self.overlap) / max(self.compared, 1)))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A cloud on the grid: structure, and structure or a cell beside it, and bare ground."""

    structure: Cells
    near: Cells
    bare: Cells

    @property
    def count(self) -> int:
        """Cells of structure."""
        return int(np.count_nonzero(self.structure))


def measure_agreement(
    source: LevelPoints,
    target: LevelPoints,
    target_from_source: Float64[np.ndarray, "4 4"],
    *,
    cell: float,
    clearance: float,
) -> Agreement:
    """Lays a levelled cloud on another one and counts where they agree and where they contradict.

    Args:
        source: Points with the ground at height 0, of the smaller scene; what lies beside it does not count.
        target: Likewise.
        target_from_source: Between the two levelled frames.
        cell: Side of a cell, in the unit of the points; a few times the distance between points.
        clearance: Height over the ground from which points are structure.
    """
    moved = source @ target_from_source[:3, :3].T.astype(np.float32)
    moved += target_from_source[:3, 3].astype(np.float32)
    low, high = _box(moved, (ASIDE + 1) * cell)
    size = np.ceil((high - low) / cell).astype(int) + 1
    both = moved, target[_inside(target, low, high)]
    first, second = (_look(points, low, size, cell, clearance) for points in both)
    agree = [int((one.structure & other.near).sum()) for one, other in ((first, second), (second, first))]
    against = int((first.structure & second.bare).sum() + (second.structure & first.bare).sum())
    smaller, larger = (first, second) if first.count <= second.count else (second, first)
    overlap = _overlap(smaller, larger, (0, 0))
    return Agreement(
        overlap=overlap,
        consistent=sum(agree) / max(sum(agree) + against, 1),
        distinct=overlap - max(_overlap(smaller, larger, aside) for aside in AROUND),
        compared=smaller.count,
        weight=sum(agree) - AGAINST * against,
    )


def measure_meeting(
    source: LevelPoints,
    target: LevelPoints,
    target_from_source: Float64[np.ndarray, "4 4"],
    *,
    within: float,
    clearance: float,
) -> float:
    """Lays a levelled cloud on another one and tells how much of their structure meets in space.

    Seen from above, rooms of all kinds lie well on each other; what stands in them does not.

    Args:
        source: Points with the ground at height 0.
        target: Likewise.
        target_from_source: Between the two levelled frames.
        within: Distance of partners at most.
        clearance: Height over the ground from which points are structure.

    Returns:
        Share of the structure of one, where the other has looked, that has structure of the other beside it;
        the smaller one of the two shares, 0 where neither has looked at the other.
    """
    moved = source @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    clouds = moved, target[_inside(target, *_box(moved, within))].astype(np.float64)
    structures = [cloud[cloud[:, 2] > clearance] for cloud in clouds]
    shares = []
    for one, other, whole in ((*structures, clouds[1]), (*structures[::-1], clouds[0])):
        some = one[:: len(one) // MOST_MEASURED + 1]
        looked = _has_near(some[:, :2], whole[:, :2], within)
        met = _has_near(some[looked], other, within)
        shares.append(float(met.mean()) if len(met) else 0.0)
    return min(shares)


def _has_near(
    points: Float64[np.ndarray, "n d"], others: Float64[np.ndarray, "m d"], within: float
) -> Bool[np.ndarray, " n"]:
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    return np.isfinite(cKDTree(others).query(points, distance_upper_bound=within)[0])


def _overlap(one: _Seen, other: _Seen, aside: tuple[int, int]) -> float:
    """Share of the structure of one, moved aside by whole cells, that lies on structure of the other."""
    agreeing = np.count_nonzero(np.roll(one.structure, aside, axis=(0, 1)) & other.near)
    return float(agreeing / max(one.count, 1))


def _box(points: LevelPoints, margin: float) -> tuple[np.ndarray, np.ndarray]:
    return points[:, :2].min(axis=0) - margin, points[:, :2].max(axis=0) + margin


def _inside(points: LevelPoints, low: np.ndarray, high: np.ndarray) -> Bool[np.ndarray, " n"]:
    return np.asarray(((points[:, :2] > low) & (points[:, :2] < high)).all(axis=1))


def _look(points: LevelPoints, low: np.ndarray, size: np.ndarray, cell: float, clearance: float) -> _Seen:
    columns, rows = ((points[:, :2] - low) / cell).astype(np.int64).T
    cells, shape = rows * size[0] + columns, (size[1], size[0])
    above = np.bincount(cells[points[:, 2] > clearance], minlength=size[0] * size[1]).reshape(shape)
    on = np.bincount(cells[np.abs(points[:, 2]) < clearance], minlength=size[0] * size[1]).reshape(shape)
    near = cv2.dilate((above > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return _Seen(above >= FEWEST_POINTS, near, (on > 0) & ~near)
