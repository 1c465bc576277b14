"""From matched positions, free in every pair, to keypoints that repeat over all pairs of a photo.

Every strategy reads the pairs one by one, first to place the keypoints of each photo, then to tell which
keypoints a match joins. What stays in memory grows with the photos' area, not with the pairs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64

from gim_sfm.sfm.clusters import Anchored, Nearest, Sums, Tally, cluster
from gim_sfm.types import Correspondences, Matches, Pair

Strategy = Literal["anchored", "merged", "quantised", "coarse-grid"]

ReadCorrespondences = Callable[[], Iterable[tuple[Pair, Correspondences]]]
"""Gives the correspondences of all pairs, one pair at a time; called once per pass."""

Reach = Callable[[str], float]
"""A distance in file pixels, for each photo."""

Keep = Callable[[str, Float32[np.ndarray, "n 2"]], Bool[np.ndarray, " n"]]
"""Which of the keypoints of a photo may stay, e.g. those that no mask hides."""

CELLS_PER_RADIUS = 2


def all_stay(_name: str, keypoints: Float32[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """No mask hides anything."""
    return np.ones(len(keypoints), bool)


class Locator(Protocol):
    """Knows which keypoint of a photo a place belongs to."""

    def locate(self, points: Float[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        """Indices of the keypoints; -1 where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Tracks:
    """Keypoints of every photo, and how matched positions become matches between them.

    Attributes:
        keypoints: Per photo (x, y) in file pixels.
        locators: Per photo.
    """

    keypoints: Mapping[str, Float32[np.ndarray, "n 2"]]
    locators: Mapping[str, Locator]

    def matches(self, pair: Pair, found: Correspondences) -> Matches:
        """Matches between the keypoints of a pair, one to one: the best scored of both their keypoints."""
        if not len(found):
            return Matches(np.empty((0, 2), np.int32), np.empty(0, np.float32))
        first = self.locators[pair[0]].locate(found.points0)
        second = self.locators[pair[1]].locate(found.points1)
        kept = (first >= 0) & (second >= 0)
        return one_to_one(first[kept], second[kept], found.scores[kept])


@dataclass(frozen=True, slots=True)
class CoarseGrid:
    """The grid on which a network matches, in the pixels of a photo's file.

    Attributes:
        origin: (x, y) of its first node.
        side: From node to node in x and y.
    """

    origin: tuple[float, float]
    side: tuple[float, float]

    def cells(self, points: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Columns and rows; the first cell, round the first node, goes from 0 to 1."""
        return (np.asarray(points, np.float64) - self.origin) / self.side + 0.5

    def places(self, cells: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """The way back."""
        return (cells - 0.5) * self.side + self.origin


def merged(read: ReadCorrespondences, *, radius: Reach, keep: Keep = all_stay) -> Tracks:
    """Joins the points that all pairs place within `radius` of each other into one keypoint.

    A keypoint stands at the score-weighted mean of its points, so it keeps sub-pixel precision.

    Args:
        read: Source of the correspondences.
        radius: File pixels, for a photo.
        keep: Says which keypoints may stay.
    """
    tallies: dict[str, Tally] = {}
    for name, points, scores in _sides(read):
        if name not in tallies:
            tallies[name] = Tally(radius(name) / CELLS_PER_RADIUS)
        tallies[name].add(points, scores)
    keypoints = {name: _clustered(name, tallies[name], radius, keep) for name in list(tallies)}
    return Tracks(keypoints, {name: Nearest(points, radius(name)) for name, points in keypoints.items()})


def anchored(
    read: ReadCorrespondences,
    *,
    anchors: Callable[[str], Float32[np.ndarray, "n 2"]],
    snap: Reach,
    radius: Reach,
    keep: Keep = all_stay,
) -> Tracks:
    """Puts points on the anchors of their photo, and merges those that lie on none.

    Keypoints 0 to n - 1 of a photo are its n anchors, so matches between anchors can join in.

    Args:
        read: Source of the correspondences; best those of `gim_sfm.warps.carry_anchors`.
        anchors: Repeatable keypoints of a photo, (x, y) in file pixels.
        snap: File pixels within which a point counts as the anchor itself, for a photo.
        radius: File pixels within which other points are merged, for a photo.
        keep: Says which of the other keypoints may stay.
    """
    fixed: dict[str, Nearest] = {}
    tallies: dict[str, Tally] = {}
    for name, points, scores in _sides(read):
        if name not in fixed:
            fixed[name] = Nearest(anchors(name), snap(name))
            tallies[name] = Tally(radius(name) / CELLS_PER_RADIUS)
        free = fixed[name].locate(points) < 0
        tallies[name].add(points[free], scores[free])
    keypoints, locators = {}, {}
    for name, nearest in fixed.items():
        between = _clustered(name, tallies[name], radius, keep)
        keypoints[name] = np.concatenate([nearest.points, between])
        locators[name] = Anchored(nearest, Nearest(between, radius(name)))
    return Tracks(keypoints, locators)


def quantised(
    read: ReadCorrespondences,
    *,
    cell: float = 8,
    error: float = 2,
    most: int = 8192,
    keep: Keep = all_stay,
) -> Tracks:
    """Rounds points to a grid, as hloc does: a cell is a keypoint and stands at its heaviest finer bin.

    Where hloc decides between equally heavy bins by the order of the pairs, the upper left one is taken.

    Args:
        read: Source of the correspondences.
        cell: Pixels to a side of a cell; at least `error`.
        error: Pixels to a side of a bin, and farthest point from its keypoint.
        most: Keypoints kept of each photo, the heaviest.
        keep: Says which keypoints may stay.
    """
    side = max(cell, error)
    votes: dict[str, Sums] = defaultdict(lambda: Sums(1))
    for name, points, scores in _sides(read):
        votes[name].add(*_bins(points, scores, side, error))
    elected = {name: _elected(*sums.result(), side, error, most) for name, sums in votes.items()}
    keypoints = {name: points[keep(name, points)] for name, points in elected.items()}
    return Tracks(keypoints, {name: Nearest(points, error) for name, points in keypoints.items()})


def coarse_grid(
    read: ReadCorrespondences, *, grid: Callable[[str], CoarseGrid], keep: Keep = all_stay
) -> Tracks:
    """Makes one keypoint of all points in a cell of the grid that the network matched on.

    It stands at the score-weighted mean of its points.

    Args:
        read: Source of the correspondences.
        grid: Of a photo. Its nodes, where the network places points, are the centres of the cells.
        keep: Says which keypoints may stay.
    """
    grids: dict[str, CoarseGrid] = {}
    tallies: dict[str, Tally] = defaultdict(lambda: Tally(1.0))
    for name, points, scores in _sides(read):
        if name not in grids:
            grids[name] = grid(name)
        tallies[name].add(grids[name].cells(points), scores)
    keypoints, locators = {}, {}
    for name, tally in tallies.items():
        centres = tally.cells().centre
        placed = _single(grids[name].places(centres))
        kept = keep(name, placed)
        keypoints[name] = placed[kept]
        locators[name] = _Cells(np.floor(centres[kept]).astype(np.int64), grids[name])
    return Tracks(keypoints, locators)


def one_to_one(
    first: Int64[np.ndarray, " m"], second: Int64[np.ndarray, " m"], scores: Float32[np.ndarray, " m"]
) -> Matches:
    """The matches that are the best scored of both their keypoints, in the order of the first."""
    worst_first = np.lexsort((second, first, -scores))[::-1]
    mutual = np.ones(len(scores), bool)
    for side in (first, second):
        best = np.zeros(side.max(initial=-1) + 1, np.int64)
        best[side[worst_first]] = worst_first  # of several, the last one stays
        mutual &= best[side] == np.arange(len(side))
    kept = np.flatnonzero(mutual)
    kept = kept[np.argsort(first[kept])]
    indices: Int32[np.ndarray, "m 2"] = np.column_stack([first[kept], second[kept]]).astype(np.int32)
    return Matches(indices, scores[kept])


def _sides(read: ReadCorrespondences) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """Photo, points and scores of either side of every pair."""
    for (first, second), found in read():
        yield first, found.points0, found.scores
        yield second, found.points1, found.scores


def _single(points: np.ndarray) -> Float32[np.ndarray, "n 2"]:
    return np.asarray(points, np.float32).reshape(-1, 2)


def _clustered(name: str, tally: Tally, radius: Reach, keep: Keep) -> Float32[np.ndarray, "n 2"]:
    points = _single(cluster(tally.cells(), radius(name)))
    return points[keep(name, points)]


@dataclass(frozen=True, slots=True)
class _Cells:
    """The occupied cells of a grid, in the order of their rows."""

    cells: Int64[np.ndarray, "k 2"]
    grid: CoarseGrid

    def locate(self, points: Float[np.ndarray, "n 2"]) -> Int64[np.ndarray, " n"]:
        known, keys = self._keys(self.cells), self._keys(np.floor(self.grid.cells(points)).astype(np.int64))
        if not len(known):
            return np.full(len(points), -1, np.int64)
        place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        return np.asarray(np.where(known[place] == keys, place, -1))

    @staticmethod
    def _keys(cells: Int64[np.ndarray, "k 2"]) -> Int64[np.ndarray, " k"]:
        return np.asarray(cells[:, 1] * (1 << 31) + cells[:, 0])


_PLACES, _BINS = 1 << 20, 1 << 7
"""Cells to a side of a photo, and bins to a side of a cell, that a key can tell apart."""

_VOTE = 1 << 30
"""Fixed-point one of a vote, so that the order of pairs does not matter."""


def _bins(
    points: np.ndarray, scores: np.ndarray, cell: float, error: float
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 1"]]:
    """The key of each point's cell and bin, and its vote."""
    shifted = points + np.float32(0.5)
    cells = np.round(shifted / cell).astype(np.int64)
    within = np.round(shifted / error).astype(np.int64) - _first_bin(cells, cell, error)
    keys = ((cells[:, 1] * _PLACES + cells[:, 0]) * _BINS + within[:, 1]) * _BINS + within[:, 0]
    return keys, np.round(np.asarray(scores, np.float64)[:, None] * _VOTE).astype(np.int64)


def _first_bin(cells: np.ndarray, cell: float, error: float) -> np.ndarray:
    """The bin at or before the first place that belongs to a cell."""
    return np.floor((cells - 0.5) * cell / error).astype(np.int64)


def _elected(
    keys: Int64[np.ndarray, " n"], sums: Int64[np.ndarray, "n 1"], cell: float, error: float, most: int
) -> Float32[np.ndarray, "k 2"]:
    """The places of the heaviest bin of each cell, heaviest first."""
    votes = sums[:, 0]
    owner = keys // _BINS**2
    begins = np.flatnonzero(np.diff(owner, prepend=-1))
    highest = np.repeat(np.maximum.reduceat(votes, begins), np.diff(begins, append=len(votes)))
    winners = np.flatnonzero(votes == highest)
    winners = winners[np.flatnonzero(np.diff(owner[winners], prepend=-1))]
    order = winners[np.argsort(-votes[winners], kind="stable")][:most]
    cells = np.column_stack([owner[order] % _PLACES, owner[order] // _PLACES])
    within = np.column_stack([keys[order] % _BINS, keys[order] // _BINS % _BINS])
    return _single((_first_bin(cells, cell, error) + within) * error - 0.5)
