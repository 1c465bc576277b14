"""How a query photo is compared with photos of a map, whatever kind of matcher does it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from scipy.spatial import cKDTree

from gim_sfm.carrying import Anchored, Courier, pixel_of
from gim_sfm.images import ImageFolder, read_photo
from gim_sfm.matchers.batches import InBatches
from gim_sfm.matchers.contract import SemiDenseMatcher, SparseMatcher
from gim_sfm.retrieval import FeatureReader
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.localization.landmarks import Landmarks, Sighting
from gim_sfm.types import Features, Photo

SNAP = 1.5
"""Pixels of the network's input within which a keypoint is a landmark, where numbers do not tell."""

REMEMBERED_FEATURES, REMEMBERED_PHOTOS = 512, 32
"""Of the map: 350 MB at 2048 keypoints, and 100 MB at 1024 pixels."""

_NO_PLACES = np.empty((0, 2), np.float32)
_NO_ROWS = np.empty(0, np.int64)
_NOTHING = (_NO_ROWS, _NO_PLACES, _NO_ROWS, np.empty(0, np.float32))

LandmarkReader = Callable[[str], Landmarks]


class Viewer(Protocol):
    """Tells which landmarks a query sees."""

    def view(self, photo: Photo, features: Features | None, /) -> Any:
        """What a comparison needs of a query: `features` are what the map's detector finds on it."""
        ...

    def look(self, seen: Any, names: Sequence[str]) -> list[Sighting]:
        """The landmarks of each of these photos that the query sees."""
        ...


def viewer_for(
    lineup: Lineup, read: FeatureReader, photos: ImageFolder, landmarks: LandmarkReader, numbered: bool
) -> Viewer:
    """The viewer for a kind of matcher.

    Args:
        lineup: The matcher.
        read: Gives what its detector found on a photo of the map.
        photos: Those photos, for a matcher that looks at them.
        landmarks: Their landmarks.
        numbered: Whether landmarks bear the numbers of the stored keypoints.
    """
    if isinstance(lineup.matcher, SparseMatcher):
        return SparseViewer(lineup, read, landmarks, numbered)
    return DenseViewer(lineup, photos, landmarks)


class SparseViewer:
    """Matches keypoints of the query with the stored ones."""

    def __init__(
        self, lineup: Lineup, read: FeatureReader, landmarks: LandmarkReader, numbered: bool
    ) -> None:
        assert isinstance(lineup.matcher, SparseMatcher)
        self._match = InBatches(lineup.matcher.matcher.match, lineup.batch)
        self._longest, self._landmarks, self._numbered = lineup.longest, landmarks, numbered
        self._features = read

    def view(self, _photo: Photo, features: Features | None, /) -> Features:
        """The keypoints of a query."""
        assert features is not None
        return features

    def look(self, seen: Features, names: Sequence[str]) -> list[Sighting]:
        """Matches whose stored keypoint is a landmark."""
        filled = [name for name in names if len(seen) and len(self._features(name))]
        found = dict(zip(filled, self._match([(seen, self._features(name)) for name in filled]), strict=True))
        sightings = []
        for name in names:
            indices = found[name].indices if name in found else np.empty((0, 2), np.int32)
            scores = found[name].scores if name in found else np.empty(0, np.float32)
            rows = self._rows(name)[indices[:, 1]]
            marked, mine = rows >= 0, indices[:, 0].astype(np.int64)
            sightings.append(
                Sighting(rows[marked], seen.keypoints[mine[marked]], mine[marked], scores[marked])
            )
        return sightings

    def _rows(self, name: str) -> np.ndarray:
        """Row of the landmark that each stored keypoint is; -1 where it is none."""
        marks, features = self._landmarks(name), self._features(name)
        rows = np.full(len(features), -1, np.int64)
        if self._numbered:
            known = marks.keypoints < len(features)
            rows[marks.keypoints[known]] = np.flatnonzero(known)
        elif len(marks) and len(features):
            near = SNAP * pixel_of(features.size, self._longest)
            distance, row = cKDTree(marks.places).query(features.keypoints, distance_upper_bound=near)
            rows = np.where(np.isfinite(distance), row, -1)
        return rows


class DenseViewer:
    """Carries the landmarks of a photo into the query, along what the matcher finds between the two."""

    def __init__(self, lineup: Lineup, photos: ImageFolder, landmarks: LandmarkReader) -> None:
        assert not isinstance(lineup.matcher, SparseMatcher)
        self._lineup, self._landmarks = lineup, landmarks
        self._courier = Courier(lineup.matcher)
        self._look = InBatches(self._courier.look, lineup.batch)
        self._seen = lru_cache(REMEMBERED_PHOTOS)(
            lambda name: self._of(read_photo(photos.path(name), longest=lineup.decoded))
        )

    def view(self, photo: Photo, _features: Features | None, /) -> Photo | Features:
        """The query itself, or what a semi-dense matcher finds on it."""
        return self._of(photo)

    def look(self, seen: Photo | Features, names: Sequence[str]) -> list[Sighting]:
        """Landmarks that are carried there, and back to themselves."""
        if isinstance(seen, Features) and not len(seen):
            return [Sighting(*_NOTHING) for _ in names]
        query = self._anchored(seen, _NO_PLACES)
        pairs = [(query, self._anchored(self._seen(name), self._landmarks(name).places)) for name in names]
        sightings = []
        for pair, found in zip(pairs, self._look(pairs), strict=True):
            places, certainty = self._courier.bring(pair, found)
            rows = np.flatnonzero(certainty > 0)
            sightings.append(Sighting(rows, places[rows], np.full(len(rows), -1), certainty[rows]))
        return sightings

    def _of(self, photo: Photo) -> Photo | Features:
        matcher = self._lineup.matcher
        return matcher.detector.extract([photo])[0] if isinstance(matcher, SemiDenseMatcher) else photo

    def _anchored(self, seen: Photo | Features, anchors: np.ndarray) -> Anchored:
        return Anchored(seen, anchors, pixel_of(seen.size, self._lineup.longest))
