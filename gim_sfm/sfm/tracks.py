"""From matched positions, free in every pair, to keypoints that repeat over all pairs of a photo."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64
from scipy.spatial import cKDTree

from gim_sfm.types import Correspondences, Matches, Pair

ReadCorrespondences = Callable[[], Iterable[tuple[Pair, Correspondences]]]
"""Gives the correspondences of all pairs, one pair at a time; called once per pass."""


@dataclass(frozen=True, slots=True)
class MergedTracks:
    """Keypoints of every photo and the matches between them.

    Attributes:
        keypoints: Per photo (x, y) in file pixels.
        matches: Per pair, one to one.
    """

    keypoints: dict[str, Float32[np.ndarray, "n 2"]]
    matches: dict[Pair, Matches]


def merge(read: ReadCorrespondences, *, radius: float) -> MergedTracks:
    """Joins the points that all pairs place within `radius` pixels of each other into one keypoint.

    A keypoint stands at the score-weighted mean of its points, so it keeps sub-pixel precision.

    Args:
        read: Source of the correspondences; read twice, so that only positions stay in memory.
        radius: In file pixels. Below COLMAP's 10 px, beyond which it drops a track seen twice in one photo.
    """
    points: dict[str, list[np.ndarray]] = defaultdict(list)
    for (first, second), found in read():
        points[first].append(np.column_stack([found.points0, found.scores]))
        points[second].append(np.column_stack([found.points1, found.scores]))
    keypoints = {name: _cluster(np.concatenate(parts), radius) for name, parts in points.items()}
    trees = {name: cKDTree(positions) for name, positions in keypoints.items()}
    matches = {
        (first, second): _one_to_one(
            _nearest(trees[first], found.points0), _nearest(trees[second], found.points1), found.scores
        )
        for (first, second), found in read()
    }
    return MergedTracks(keypoints, matches)


def _cluster(weighted: np.ndarray, radius: float) -> Float32[np.ndarray, "k 2"]:
    """Centres of the clusters of (x, y, weight) rows."""
    if not len(weighted):
        return np.zeros((0, 2), np.float32)
    cells = np.unique(np.floor(weighted[:, :2] / radius).astype(np.int64), axis=0, return_inverse=True)[1]
    centres, support = _means(weighted, cells.reshape(-1))
    kept = _strongest(centres, support, radius)
    nearest = _nearest(cKDTree(centres[kept]), weighted[:, :2])
    return _means(weighted, nearest)[0].astype(np.float32)


def _means(
    weighted: np.ndarray, labels: Int64[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "k 2"], Float64[np.ndarray, " k"]]:
    weights = weighted[:, 2] + 1e-6
    total = np.bincount(labels, weights)
    sums = [np.bincount(labels, weights * weighted[:, axis]) for axis in (0, 1)]
    return np.column_stack(sums) / total[:, None], total


def _strongest(centres: np.ndarray, support: np.ndarray, radius: float) -> np.ndarray:
    """Indices of centres that no better supported, itself kept, centre comes closer to than `radius`."""
    neighbours = cKDTree(centres).query_ball_point(centres, radius)
    free = np.ones(len(centres), bool)
    kept = []
    for index in np.argsort(-support, kind="stable"):
        if free[index]:
            kept.append(index)
            free[neighbours[index]] = False
    return np.sort(np.array(kept))


def _nearest(tree: cKDTree, points: np.ndarray) -> Int64[np.ndarray, " n"]:
    return np.asarray(tree.query(points)[1], np.int64)


def _one_to_one(
    first: Int64[np.ndarray, " m"], second: Int64[np.ndarray, " m"], scores: Float32[np.ndarray, " m"]
) -> Matches:
    """The best scored match of each keypoint on either side."""
    order = np.argsort(-scores, kind="stable")
    indices: Int32[np.ndarray, "m 2"] = np.column_stack([first, second])[order].astype(np.int32)
    kept = np.ones(len(indices), bool)
    for side in (0, 1):
        kept &= np.isin(np.arange(len(indices)), np.unique(indices[:, side], return_index=True)[1])
    return Matches(indices[kept], scores[order][kept])
