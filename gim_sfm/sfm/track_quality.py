"""Whether matches hang together as tracks: the figures COLMAP's mapper stands or falls with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gim_sfm.types import Pair

APART = 10.0
"""Pixels over which the points of a track may spread in one photo; COLMAP's global mapper drops others."""

COLLAPSED = 0.02
"""Share of tracks seen by three photos below which matches of different pairs evidently do not meet."""


@dataclass(frozen=True, slots=True)
class TrackFigures:
    """Tracks as the verified matches of all pairs draw them, before anything is triangulated.

    Attributes:
        tracks: How many there are.
        mean_length: Photos that see one, on average.
        of_three: Share that three or more photos see.
        conflicting: Share whose points in one photo spread over more than `APART` pixels.
        best_pair: Verified matches of the strongest pair; COLMAP wants 100 to begin a model.
        linked: Photos that verified pairs link into one group.
    """

    tracks: int
    mean_length: float
    of_three: float
    conflicting: float
    best_pair: int
    linked: int

    def __str__(self) -> str:
        return (
            f"{self.tracks} tracks of {self.mean_length:.2f} photos on average, {100 * self.of_three:.0f} % "
            f"in three or more; {100 * self.conflicting:.1f} % spread over {APART:.0f} px in one photo"
        )

    @property
    def collapsed(self) -> bool:
        """Whether the mapper cannot get beyond two photos: nearly no track reaches a third."""
        return self.linked > 2 and self.of_three < COLLAPSED


def measure_tracks(
    keypoints: Mapping[str, Float32[np.ndarray, "n 2"]],
    matches: Iterable[tuple[Pair, Int32[np.ndarray, "m 2"]]],
) -> TrackFigures:
    """Follows the verified matches of all pairs from keypoint to keypoint.

    Args:
        keypoints: Per photo (x, y) in file pixels.
        matches: Verified matches of every pair.
    """
    names = list(keypoints)
    first = dict(zip(names, np.cumsum([0, *map(len, keypoints.values())])[:-1].tolist(), strict=True))
    verified = [(pair, found) for pair, found in matches if len(found)]
    ends = _ends(first, verified)
    if not len(ends):
        return TrackFigures(0, 0.0, 0.0, 0.0, 0, 0)
    photo = np.repeat(np.arange(len(names)), [len(points) for points in keypoints.values()])
    places = np.concatenate(list(keypoints.values()))
    used, ends = np.unique(ends, return_inverse=True)
    links = ends.reshape(-1, 2).T
    size = len(used)
    _, track = connected_components(coo_array((np.ones(links.shape[1]), (links[0], links[1])), (size, size)))
    lengths, conflicting = _measure(track.astype(np.int64), photo[used], places[used])
    return TrackFigures(
        tracks=len(lengths),
        mean_length=float(lengths.mean()),
        of_three=float((lengths >= 3).mean()),
        conflicting=float(conflicting.mean()),
        best_pair=max(len(found) for _, found in verified),
        linked=int(np.bincount(group_linked(names, [pair for pair, _ in verified])).max()),
    )


def _ends(
    first: Mapping[str, int], verified: Sequence[tuple[Pair, Int32[np.ndarray, "m 2"]]]
) -> Int64[np.ndarray, " n"]:
    """Both ends of every match, numbered over the keypoints of all photos, in turn."""
    rows = [np.asarray(found, np.int64) + np.array([first[a], first[b]]) for (a, b), found in verified]
    return np.concatenate(rows).reshape(-1) if rows else np.zeros(0, np.int64)


def _measure(
    track: Int64[np.ndarray, " n"], photo: Int64[np.ndarray, " n"], places: Float32[np.ndarray, "n 2"]
) -> tuple[np.ndarray, np.ndarray]:
    """Photos of each track, and whether its points in one of them lie too far apart."""
    order = np.lexsort((photo, track))
    track, photo, places = track[order], photo[order], places[order]
    fresh = np.concatenate([[True], (track[1:] != track[:-1]) | (photo[1:] != photo[:-1])])
    begins = np.flatnonzero(fresh)
    extent = np.maximum.reduceat(places, begins) - np.minimum.reduceat(places, begins)
    apart = np.linalg.norm(extent, axis=1) > APART
    return np.bincount(track[begins]), np.bincount(track[begins], apart) > 0


def group_linked(names: Sequence[str], pairs: Sequence[Pair]) -> Int64[np.ndarray, " n"]:
    """The number of the group that each photo is in, where pairs link photos."""
    place = {name: index for index, name in enumerate(names)}
    rows = np.array([(place[a], place[b]) for a, b in pairs], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(rows)), tuple(rows.T)), (len(names), len(names)))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
