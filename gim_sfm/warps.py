"""Ways from the pixels of one photo to those of another, and how points follow them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.spatial import cKDTree

from gim_sfm.types import Correspondences


class Carrier(Protocol):
    """Knows where the points of one photo lie in another."""

    def carry(
        self, points: Float[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Places in the other photo, in its file pixels, and how certain each is (0: not seen there)."""
        ...


@dataclass(frozen=True, slots=True)
class Warp:
    """The places of a grid of pixels of one photo in another.

    Attributes:
        places: (x, y) in file pixels of the other photo, for each node of the grid.
        certainty: From 0 (not seen in the other photo) to 1.
        origin: (x, y) of the grid's first node in file pixels of its own photo.
        step: File pixels from node to node in x and y.
    """

    places: Float32[np.ndarray, "h w 2"]
    certainty: Float32[np.ndarray, "h w"]
    origin: tuple[float, float]
    step: tuple[float, float]

    def carry(
        self, points: Float[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Places and certainties between the nodes, bilinear; beyond the grid the certainty is 0."""
        height, width = self.certainty.shape
        nodes = (np.asarray(points, np.float64) - self.origin) / self.step
        last = np.array([width, height]) - 1
        inside = np.all((nodes >= -0.5) & (nodes <= last + 0.5), axis=1)
        nodes = np.clip(np.where(inside[:, None], nodes, 0), 0, last)
        low = np.minimum(nodes.astype(np.int64), np.maximum(last - 1, 0))
        high = np.minimum(low + 1, last)
        share = (nodes - low).astype(np.float32)
        places = np.zeros((len(nodes), 2), np.float32)
        certainty = np.zeros(len(nodes), np.float32)
        for column, weight_x in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
            for row, weight_y in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
                weight = weight_x * weight_y
                places += weight[:, None] * self.places[row, column]
                certainty += weight * self.certainty[row, column]
        return places, np.where(inside, certainty, np.float32(0))


NEIGHBOURS = 8
FEWEST = 4
"""Matched points around a place: how many it goes by, and how many it needs."""

_STIFFNESS = 0.05
"""Share of the pair's overall affine map in a local one; steadies places with neighbours on one side only."""


class Scattered:
    """A way known at scattered points; in between it is the affine map that fits the nearest of them.

    Args:
        points: Matched (x, y) in file pixels of the own photo.
        places: Their places in the other photo.
        scores: Of the matches.
        reach: File pixels beyond which a matched point says nothing about a place.
        tolerance: File pixels of the other photo by which neighbours may depart from one affine map.
    """

    def __init__(
        self,
        points: Float32[np.ndarray, "m 2"],
        places: Float32[np.ndarray, "m 2"],
        scores: Float32[np.ndarray, " m"],
        *,
        reach: float,
        tolerance: float,
    ) -> None:
        self._points, self._places = points.astype(np.float64), places.astype(np.float64)
        self._scores = scores.astype(np.float64)
        self._reach, self._tolerance = reach, tolerance
        if len(points) >= FEWEST:
            self._tree = cKDTree(self._points)
            self._overall = self._slope(self._points[None], self._places[None], self._scores[None] + 1e-6)

    def carry(
        self, points: Float[np.ndarray, "n 2"]
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Places by the local affine maps; certainty is the mean score of the neighbours that agree."""
        if len(self._points) < FEWEST or not len(points):
            return np.zeros((len(points), 2), np.float32), np.zeros(len(points), np.float32)
        distance, near = self._tree.query(points, min(NEIGHBOURS, len(self._points)))
        closeness = np.exp(-((2 * distance / self._reach) ** 2)) * (distance < self._reach)
        sources, targets = self._points[near], self._places[near]
        weights = closeness * self._scores[near]
        places, off = self._fit(points, sources, targets, weights + 1e-12)
        # once more without those that depart: they belong to another surface, or are wrong
        agreeing = off < np.maximum(self._tolerance, 1.5 * np.median(off, axis=1, keepdims=True))
        weights = weights * agreeing
        places, off = self._fit(points, sources, targets, weights + 1e-12)
        sound = (weights > 0) & (off < self._tolerance)
        certainty = (self._scores[near] * sound).sum(axis=1) / np.maximum(sound.sum(axis=1), 1)
        return places.astype(np.float32), np.where(sound.sum(axis=1) >= FEWEST, certainty, 0).astype(
            np.float32
        )

    def _fit(
        self, points: np.ndarray, sources: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where the weighted affine maps put the points, and how far off each neighbour is."""
        share = (weights / weights.sum(axis=1, keepdims=True))[..., None]
        middle, goal = (share * sources).sum(axis=1), (share * targets).sum(axis=1)
        slope = self._slope(sources - middle[:, None], targets - goal[:, None], weights, centred=True)
        places = goal + np.einsum("nij,nj->ni", slope, points - middle)
        told = goal[:, None] + np.einsum("nij,nkj->nki", slope, sources - middle[:, None])
        return places, np.linalg.norm(told - targets, axis=2)

    def _slope(
        self, sources: np.ndarray, targets: np.ndarray, weights: np.ndarray, *, centred: bool = False
    ) -> Float64[np.ndarray, "n 2 2"]:
        """Linear parts of the affine maps from n groups of k points to theirs."""
        if not centred:
            share = (weights / weights.sum(axis=1, keepdims=True))[..., None]
            sources = sources - (share * sources).sum(axis=1, keepdims=True)
            targets = targets - (share * targets).sum(axis=1, keepdims=True)
        spread = np.einsum("nk,nki,nkj->nij", weights, sources, sources)
        mixed = np.einsum("nk,nki,nkj->nij", weights, targets, sources)
        stiffness, prior = (_STIFFNESS, self._overall) if centred else (0.0, np.eye(2)[None])
        extent = np.trace(spread, axis1=1, axis2=2)[:, None, None]
        hold = (stiffness * extent + 1e-9) * np.eye(2)
        return np.asarray((mixed + prior @ hold) @ np.linalg.inv(spread + hold))


def carry_anchors(
    there: Carrier,
    back: Carrier,
    anchors0: Float32[np.ndarray, "n 2"],
    anchors1: Float32[np.ndarray, "m 2"],
    *,
    tolerances: tuple[float, float],
    certain: float,
) -> Correspondences:
    """Matches of the keypoints of both photos with the places to which they are carried.

    A keypoint is kept when the way there is certain and the way back from there leads to the keypoint again.

    Args:
        there: From the first photo to the second.
        back: From the second photo to the first.
        anchors0: Keypoints of the first photo, (x, y) in file pixels.
        anchors1: Keypoints of the second photo.
        tolerances: File pixels of the first and of the second photo by which the round trip may miss.
        certain: Smallest certainty.

    Returns:
        Those of the first photo with their places in the second, then those of the second.
    """
    places1, certainty0 = round_trip(there, back, anchors0, tolerances[0], certain)
    places0, certainty1 = round_trip(back, there, anchors1, tolerances[1], certain)
    kept0, kept1 = certainty0 > 0, certainty1 > 0
    return Correspondences(
        np.concatenate([anchors0[kept0], places0[kept1]]),
        np.concatenate([places1[kept0], anchors1[kept1]]),
        np.concatenate([certainty0[kept0], certainty1[kept1]]),
    )


def round_trip(
    there: Carrier, back: Carrier, points: Float32[np.ndarray, "n 2"], tolerance: float, certain: float
) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """Carries points there, and back to see whether they hold.

    Args:
        there: The way there.
        back: The way back.
        points: (x, y) in file pixels of their own photo.
        tolerance: File pixels of that photo by which the round trip may miss.
        certain: Smallest certainty.

    Returns:
        Places there, and their certainty: 0 where it is too small or the way back leads elsewhere.
    """
    places, certainty = there.carry(points)
    going = np.flatnonzero(certainty >= certain)
    returned, certainty_back = back.carry(places[going])
    missed = np.linalg.norm(returned - points[going], axis=1) > tolerance
    held = np.zeros_like(certainty)
    held[going] = np.where((certainty_back < certain) | missed, np.float32(0), certainty[going])
    return places, held
