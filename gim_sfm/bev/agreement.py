"""Whether two clouds tell the same where both have looked: structure on structure, nothing in the way.

Both are laid on one grid, seen from above. Structure of one that falls on structure of the other agrees with
it; structure that falls where the other saw bare ground contradicts it. Clouds of different places contradict
each other however they are laid: there is always a wall in somebody's street.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

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
        cells: Cells that agree, of both clouds together.
    """

    overlap: float
    consistent: float
    cells: int


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A cloud on the grid: structure, and structure or a cell beside it, and bare ground."""

    structure: Cells
    near: Cells
    bare: Cells


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
        source: Points with the ground at height 0.
        target: Likewise.
        target_from_source: Between the two levelled frames.
        cell: Side of a cell, in the unit of the points; a few times the distance between points.
        clearance: Height over the ground from which points are structure.
    """
    moved = source @ target_from_source[:3, :3].T.astype(np.float32)
    moved += target_from_source[:3, 3].astype(np.float32)
    low = np.minimum(moved[:, :2].min(axis=0), target[:, :2].min(axis=0)) - cell
    high = np.maximum(moved[:, :2].max(axis=0), target[:, :2].max(axis=0)) + cell
    size = np.ceil((high - low) / cell).astype(int) + 1
    first, second = (_look(points, low, size, cell, clearance) for points in (moved, target))
    agree = [int((one.structure & other.near).sum()) for one, other in ((first, second), (second, first))]
    against = int((first.structure & second.bare).sum() + (second.structure & first.bare).sum())
    counts = [int(first.structure.sum()), int(second.structure.sum())]
    smaller = int(np.argmin(counts))
    return Agreement(
        overlap=agree[smaller] / max(counts[smaller], 1),
        consistent=sum(agree) / max(sum(agree) + against, 1),
        cells=sum(agree),
    )


def _look(points: LevelPoints, low: np.ndarray, size: np.ndarray, cell: float, clearance: float) -> _Seen:
    columns, rows = ((points[:, :2] - low) / cell).astype(np.int64).T
    cells, shape = rows * size[0] + columns, (size[1], size[0])
    above = np.bincount(cells[points[:, 2] > clearance], minlength=size[0] * size[1]).reshape(shape)
    on = np.bincount(cells[np.abs(points[:, 2]) < clearance], minlength=size[0] * size[1]).reshape(shape)
    near = cv2.dilate((above > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return _Seen(above >= FEWEST_POINTS, near, (on > 0) & ~near)
