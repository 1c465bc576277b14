"""Points of all pairs of a photo, gathered into cells and clusters, in memory bounded by the photo's area."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy.spatial import cKDTree

COMPACT_ABOVE = 1 << 15
"""Rows that wait before they are summed."""

_WEIGHT, _SHARE = 1 << 16, 1 << 16
"""Fixed-point ones of a weight and of a place in a cell: whole numbers add up the same in any order."""

_SIDE = 1 << 31

SQUARES = 16
"""Most squares of a grid for each keypoint in it, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Cells:
    """What lies in the occupied cells of a photo, in the order of their places.

    Attributes:
        weight: Summed weights.
        centre: Weighted mean (x, y).
    """

    weight: Float64[np.ndarray, " k"]
    centre: Float64[np.ndarray, "k 2"]

    def merged(self, labels: Int64[np.ndarray, " k"]) -> "Cells":
        """Cells of one label thrown together, in the order of the labels."""
        weight = np.bincount(labels, self.weight)
        sums = [np.bincount(labels, self.weight * self.centre[:, axis]) for axis in (0, 1)]
        return Cells(weight, np.column_stack(sums) / np.maximum(weight, 1e-12)[:, None])


class Sums:
    """Adds up rows of whole numbers by key; exact, so their order does not matter.

    Args:
        columns: Numbers to a row.
    """

    def __init__(self, columns: int) -> None:
        self._rows = [(np.zeros(0, np.int64), np.zeros((0, columns), np.int64))]
        self._waiting = 0

    def add(self, keys: Int64[np.ndarray, " n"], rows: Int64[np.ndarray, "n c"]) -> None:
        """Counts rows in."""
        self._rows.append((keys, rows))
        self._waiting += len(keys)
        if self._waiting > max(COMPACT_ABOVE, len(self._rows[0][0])):
            self.result()

    def result(self) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, "k c"]]:
        """Every key once, in order, and the sum of its rows."""
        keys = np.concatenate([keys for keys, _ in self._rows])
        rows = np.concatenate([rows for _, rows in self._rows])
        order = np.argsort(keys)
        ordered = keys[order]
        begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
        summed = np.add.reduceat(rows[order], begins, axis=0) if len(begins) else rows
        self._rows, self._waiting = [(ordered[begins], summed)], 0
        return self._rows[0]


class Tally:
    """Sums the weights and places of points by the square cell they lie in.

    Args:
        side: Of a cell, in pixels.
    """

    def __init__(self, side: float) -> None:
        self._side = side
        self._sums = Sums(3)

    def add(self, points: Float[np.ndarray, "n 2"], weights: Float[np.ndarray, " n"]) -> None:
        """Counts points in; a point without weight still counts a little."""
        place = np.asarray(points, np.float64) / self._side
        cell = np.floor(place)
        weight = np.round(np.clip(weights, 0, 1 << 10) * _WEIGHT).astype(np.int64) + 1
        share = np.minimum(np.round((place - cell) * _SHARE), _SHARE - 1).astype(np.int64)
        columns = cell.astype(np.int64) + _SIDE // 2
        keys = columns[:, 1] * _SIDE + columns[:, 0]
        self._sums.add(keys, np.column_stack([weight, weight * share[:, 0], weight * share[:, 1]]))

    def cells(self) -> Cells:
        """The occupied cells so far."""
        keys, sums = self._sums.result()
        corner = np.column_stack([keys % _SIDE, keys // _SIDE]) - _SIDE // 2
        inside = sums[:, 1:] / sums[:, :1] / _SHARE
        return Cells(sums[:, 0] / _WEIGHT, (corner + inside) * self._side)


def cluster(cells: Cells, radius: float) -> Float64[np.ndarray, "k 2"]:
    """Centres of the clusters that the cells form.

    The heaviest cell begins a cluster and takes in those within `radius` of it, then the heaviest of the
    rest, and so on. A cluster stands at the weighted mean of its cells.
    """
    if not len(cells.weight):
        return np.zeros((0, 2))
    begins = cells.centre[heaviest(cells, radius)]
    return cells.merged(np.asarray(cKDTree(begins).query(cells.centre)[1], np.int64)).centre


def heaviest(cells: Cells, radius: float) -> Int64[np.ndarray, " k"]:
    """Indices of cells that no heavier one, itself chosen, comes nearer to than `radius`.

    All local maxima are chosen and their surroundings struck out, round by round, which ends where going
    through the cells one by one would.
    """
    count = len(cells.weight)
    place = np.empty(count, np.int64)
    place[np.lexsort((np.arange(count), -cells.weight))] = np.arange(count)
    near = cKDTree(cells.centre).query_pairs(radius, output_type="ndarray").astype(np.int64)
    lighter = place[near[:, 0]] > place[near[:, 1]]
    winner = np.where(lighter, near[:, 1], near[:, 0])
    loser = np.where(lighter, near[:, 0], near[:, 1])
    open_, chosen = np.ones(count, bool), np.zeros(count, bool)
    while open_.any():
        beaten = np.zeros(count, bool)
        beaten[loser] = True
        fresh = open_ & ~beaten
        chosen |= fresh
        open_ &= beaten
        struck = np.zeros(count, bool)
        struck[loser[fresh[winner]]] = True
        open_ &= ~struck
        alive = open_[winner] & open_[loser]
        winner, loser = winner[alive], loser[alive]
    return np.flatnonzero(chosen)


class Nearest:
    """Knows the keypoint nearest to a place.

    A grid of squares instead of a k-d tree: nothing beyond `radius` is ever asked for, which a grid answers
    in a third of the time.

    Args:
        points: The keypoints.
        radius: In pixels; farther ones do not count.
    """

    def __init__(self, points: Float32[np.ndarray, "n 2"], radius: float) -> None:
        self.points = points
        self._radius = radius
        low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(2), np.zeros(2))
        extent = np.asarray(high - low, np.float64) + 1e-3
        self._side = max(2 * radius, float(np.sqrt(extent.prod() / max(1, SQUARES * len(points)))))
        # a ring of empty squares all round, for places that lie off the grid
        self._origin = low - 1.5 * self._side
        self._shape = np.ceil(extent / self._side).astype(np.int64) + 4
        squares = self._squares(points)
        self._order = np.argsort(squares, kind="stable")
        self._places = points[self._order].astype(np.float64)
        self._begins = np.searchsorted(squares[self._order], np.arange(self._shape.prod() + 1)).astype(
            np.int32
        )

    def locate(self, points: Float[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        """Indices of the nearest keypoints, one of equally near ones; -1 where none is near enough."""
        points = np.asarray(points, np.float64)
        found = np.full(len(points), -1, np.int64)
        corner = self._squares(points - self._radius)
        rows = corner[:, None] + np.array([0, self._shape[0]])
        begins = self._begins[rows].reshape(-1)
        counts = self._begins[rows + 2].reshape(-1) - begins
        candidates = np.arange(counts.sum()) + np.repeat(begins - np.cumsum(counts) + counts, counts)
        asked = np.repeat(np.repeat(np.arange(len(points)), 2), counts)
        apart = points[asked] - self._places[candidates]
        distance = np.einsum("ij,ij->i", apart, apart)
        near = np.flatnonzero(distance <= self._radius**2)
        asked, candidates, distance = asked[near], candidates[near], distance[near]
        begins = np.flatnonzero(np.diff(asked, prepend=-1))
        if len(begins):
            least = np.minimum.reduceat(distance, begins)
            best = np.flatnonzero(distance == np.repeat(least, np.diff(begins, append=len(asked))))
            found[asked[best[::-1]]] = self._order[candidates[best[::-1]]]
        return found

    def _squares(self, points: Float[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        place = np.floor((points - self._origin) / self._side)
        column, row = np.clip(place, 0, self._shape - 3).astype(np.int64).T
        return np.asarray(row * self._shape[0] + column)


@dataclass(frozen=True, slots=True)
class Anchored:
    """Prefers the anchors of a photo to the clusters of what lies between, which are numbered after them.

    Attributes:
        anchors: The repeatable keypoints.
        clusters: The others.
    """

    anchors: Nearest
    clusters: Nearest

    def locate(self, points: Float[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        """Indices of the keypoints; -1 where none is near enough."""
        found = self.anchors.locate(points)
        free: Bool[np.ndarray, " n"] = found < 0
        between = self.clusters.locate(np.asarray(points)[free])
        found[free] = np.where(between < 0, -1, between + len(self.anchors.points))
        return found
