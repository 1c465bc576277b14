"""Matched positions of pairs, whatever kind of matcher they come from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from gim_sfm.carrying import AnchoredSource, Courier, PhotoSource, Source
from gim_sfm.images import ImageFolder, keep_unmasked, mask_path, read_header, read_mask
from gim_sfm.matchers.contract import Matcher, SemiDenseMatcher, SparseMatcher
from gim_sfm.matching import MatchingOutcome, extract_features, match_pairs
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.tracks import Tracks, anchored, coarse_grid, merged, quantised
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Matches, Pair

SNAP = 1.5
"""Pixels of the network's input within which a carried keypoint counts as a keypoint of its partner."""

MERGED_WITHIN = 3.0
"""Pixels of the network's input within which other points become one keypoint."""

_MASKS_KEPT = 64

Keypoints = Callable[[str], Float32[np.ndarray, "n 2"]]


@dataclass(frozen=True)
class Positions:
    """A matcher at work on the photos of a folder.

    Attributes:
        lineup: The matcher.
        folder: The photos.
        features: Takes what its own detector finds, if it has one.
        matches: Takes its results.
        anchors: Keypoints that repeat, for its matches to join.
        masks: Folder of masks; matches on black are dropped.
    """

    lineup: Lineup
    folder: ImageFolder
    features: FeatureStore
    matches: MatchStore
    anchors: FeatureStore
    masks: Path | None = None

    def match(self, pairs: Sequence[Pair]) -> MatchingOutcome:
        """Matches the pairs that are not stored yet."""
        self._extract({name for pair in pairs for name in pair})
        return match_pairs(pairs, self._matcher(), self._source(), self.matches, batch=self.lineup.batch)

    def read(self, pair: Pair) -> Correspondences:
        """The positions of a pair; of its keypoints, where these are what its matches shall join."""
        found = self.matches.read(pair)
        if isinstance(found, Matches):
            points = self.features.read(pair[0]).keypoints, self.features.read(pair[1]).keypoints
            first, second = found.indices.T
            return Correspondences(points[0][first], points[1][second], found.scores)
        kept = self._unmasked(pair[0], found.points0) & self._unmasked(pair[1], found.points1)
        return Correspondences(found.points0[kept], found.points1[kept], found.scores[kept])

    def join(self, pairs: Sequence[Pair]) -> Tracks:
        """Keypoints that repeat over the pairs."""
        match self.lineup.joining:
            case "merged":
                return merged(lambda: self._all(pairs), radius=lambda name: MERGED_WITHIN * self.pixel(name))
            case "quantised":
                return quantised(lambda: self._all(pairs))
            case "coarse-grid":
                return coarse_grid(lambda: self._all(pairs), cell=self._grid)
            case _:
                return self.join_to(lambda name: self.anchors.read(name).keypoints, pairs)

    def join_to(self, keypoints: Keypoints, pairs: Sequence[Pair]) -> Tracks:
        """Keypoints that repeat over the pairs, these ones first."""
        return anchored(
            lambda: self._all(pairs),
            anchors=keypoints,
            snap=lambda name: SNAP * self.pixel(name),
            radius=lambda name: MERGED_WITHIN * self.pixel(name),
        )

    def pixel(self, name: str) -> float:
        """File pixels to a pixel of the network's input; 1 where the photo is not shrunk."""
        return max(1.0, max(self._size(name)) / self.lineup.longest)

    def _all(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Correspondences]]:
        for pair in pairs:
            yield pair, self.read(pair)

    def _extract(self, names: set[str]) -> None:
        matcher = self.lineup.matcher
        if isinstance(matcher, SparseMatcher | SemiDenseMatcher):
            extract_features(
                self.folder,
                sorted(names),
                matcher.detector,
                self.features,
                longest=self.lineup.longest,
                masks=self.masks,
                batch=self.lineup.batch,
            )

    def _matcher(self) -> Matcher | Courier:
        matcher = self.lineup.matcher
        if isinstance(matcher, SparseMatcher) or not self.lineup.carries:
            return matcher
        return Courier(matcher)

    def _source(self) -> Source:
        finds = isinstance(self.lineup.matcher, SparseMatcher | SemiDenseMatcher)
        seen = self.features if finds else PhotoSource(self.folder, self.lineup.longest)
        return AnchoredSource(seen, self.anchors, self.lineup.longest) if self.lineup.carries else seen

    def _grid(self, name: str) -> tuple[float, float]:
        side = self.lineup.row.grid * self.pixel(name)
        return side, side

    def _size(self, name: str) -> tuple[int, int]:
        return _photo_size(self.folder.path(name))

    def _unmasked(self, name: str, points: Float32[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        if self.masks is None:
            return np.ones(len(points), bool)
        return keep_unmasked(points, _mask(mask_path(self.masks, name), self._size(name)))


@lru_cache(maxsize=1 << 16)
def _photo_size(path: Path) -> tuple[int, int]:
    return read_header(path).size


@lru_cache(_MASKS_KEPT)
def _mask(path: Path, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    return read_mask(path, size)
