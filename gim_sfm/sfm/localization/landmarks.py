"""Landmarks: the points of a model as its photos show them, and as a query photo sees them again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool, Float32, Float64, Int64

from gim_sfm.sfm.colmap import from_colmap

TOGETHER = 3.0
"""Pixels of the network's input within which places of one landmark, told by several photos, are averaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """The points of a model that one of its photos shows.

    Attributes:
        keypoints: Their index among the photo's keypoints.
        places: (x, y) in file pixels.
        points: Their number in the model.
        xyz: In the model's frame.
    """

    keypoints: Int64[np.ndarray, " n"]
    places: Float32[np.ndarray, "n 2"]
    points: Int64[np.ndarray, " n"]
    xyz: Float64[np.ndarray, "n 3"]

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """Landmarks of one photo of the map that a query sees.

    Attributes:
        rows: Which of the photo's landmarks.
        places: (x, y) in file pixels of the query.
        keypoints: Index among the query's keypoints; -1 where the matcher has none.
        scores: Of the matches.
    """

    rows: Int64[np.ndarray, " m"]
    places: Float32[np.ndarray, "m 2"]
    keypoints: Int64[np.ndarray, " m"]
    scores: Float32[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """All that a query sees of a model, each pair of place and point once.

    Attributes:
        places: (x, y) in file pixels of the query.
        keypoints: Rows of equal number are one place of the query.
        points: Number in the model.
        xyz: In the model's frame.
        told_by: Rows that each photo of the map told, in the order of the photos.
    """

    places: Float64[np.ndarray, "n 2"]
    keypoints: Int64[np.ndarray, " n"]
    points: Int64[np.ndarray, " n"]
    xyz: Float64[np.ndarray, "n 3"]
    told_by: tuple[Int64[np.ndarray, " _"], ...]

    def __len__(self) -> int:
        return len(self.points)


NOTHING_SEEN = Sightings(np.empty((0, 2)), np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 3)), ())


def landmarks_of(model: pycolmap.Reconstruction, image: pycolmap.Image) -> Landmarks:
    """The landmarks of a photo."""
    seen = image.get_observation_points2D()
    numbers = [point.point3D_id for point in seen]
    places = np.array([point.xy for point in seen], np.float64).reshape(-1, 2)
    known = model.points3D
    return Landmarks(
        keypoints=np.array(image.get_observation_point2D_idxs(), np.int64),
        places=from_colmap(places).astype(np.float32),
        points=np.array(numbers, np.int64),
        xyz=np.array([known[number].xyz for number in numbers], np.float64).reshape(-1, 3),
    )


def gather(shown: Sequence[Landmarks], seen: Sequence[Sighting], pixel: float) -> Sightings:
    """Joins what a query sees by way of several photos.

    Args:
        shown: Landmarks of each photo of the map.
        seen: What the query sees of them.
        pixel: File pixels of the query to a pixel of the network's input.
    """
    if not seen:
        return NOTHING_SEEN
    keypoints = np.concatenate([row.keypoints for row in seen])
    points = np.concatenate([marks.points[row.rows] for marks, row in zip(shown, seen, strict=True)])
    xyz = np.concatenate([marks.xyz[row.rows] for marks, row in zip(shown, seen, strict=True)])
    places = np.concatenate([row.places for row in seen]).astype(np.float64)
    scores = np.concatenate([row.scores for row in seen]).astype(np.float64)
    labels = np.column_stack([keypoints, points]) if (keypoints >= 0).all() else points[:, None]
    _, first, group = np.unique(labels, axis=0, return_index=True, return_inverse=True)
    ends, group = np.cumsum([len(row) for row in seen])[:-1], group.reshape(-1)
    averaged, near = _averaged(places, scores, group, TOGETHER * pixel)
    told = zip(np.split(group, ends), np.split(near, ends), strict=True)
    return Sightings(
        places=averaged,
        keypoints=_numbered(keypoints[first]),
        points=points[first],
        xyz=xyz[first],
        told_by=tuple(np.unique(part[together]) for part, together in told),
    )


def _numbered(keypoints: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    return np.where(keypoints >= 0, keypoints, -1 - np.arange(len(keypoints)))


def _averaged(
    places: Float64[np.ndarray, "m 2"],
    scores: Float64[np.ndarray, " m"],
    group: Int64[np.ndarray, " m"],
    reach: float,
) -> tuple[Float64[np.ndarray, "n 2"], Bool[np.ndarray, " m"]]:
    """One place for each group, the mean of those that lie near the best scored one, and which these are."""
    count = int(group.max(initial=-1)) + 1
    order = np.lexsort((scores, group))
    best = np.empty((count, 2))
    best[group[order]] = places[order]  # the last one written is the best scored
    near = np.linalg.norm(places - best[group], axis=1) <= reach
    weights = np.maximum(scores, 1e-6) * near
    total = np.bincount(group, weights, count)
    sums = [np.bincount(group, weights * places[:, axis], count) for axis in (0, 1)]
    return np.column_stack(sums) / total[:, None], near
