"""Matched positions of pairs, whatever kind of matcher they come from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from gim_sfm.images import ImageFolder, keep_unmasked, mask_path, read_header, read_mask
from gim_sfm.matchers.contract import Matcher, SemiDenseMatcher, SparseMatcher, WarpMatcher
from gim_sfm.matching import (
    AnchoredSource,
    Courier,
    MatchingOutcome,
    PhotoSource,
    Source,
    extract_features,
    match_pairs,
)
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.tracks import Tracks, anchored, coarse_grid, merged, quantised
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Matches, Pair
from gim_sfm.warps import Scattered, carry_anchors

SNAP = 1.5
"""Pixels of the network's input within which a carried keypoint counts as a keypoint of its partner."""

MERGED_WITHIN = 3.0
"""Pixels of the network's input within which other points become one keypoint."""

REACH = 32.0
"""Pixels of the network's input beyond which a match says nothing about a keypoint."""

DEPARTURE = 3.0
"""Pixels of the network's input by which matches round a keypoint may depart from one affine map."""

CERTAIN = 0.05
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
        found = Correspondences(found.points0[kept], found.points1[kept], found.scores[kept])
        scattered = self.lineup.joining == "anchored" and not self.lineup.carries
        return self._carry(pair, found) if scattered else found

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
        if isinstance(matcher, WarpMatcher) and self.lineup.carries:
            return Courier(matcher.matcher)
        return matcher

    def _source(self) -> Source:
        if isinstance(self.lineup.matcher, SparseMatcher | SemiDenseMatcher):
            return self.features
        photos = PhotoSource(self.folder, self.lineup.longest)
        return AnchoredSource(photos, self.anchors) if self.lineup.carries else photos

    def _carry(self, pair: Pair, found: Correspondences) -> Correspondences:
        """The keypoints of both photos with their places among the matched positions."""
        pixels = self.pixel(pair[0]), self.pixel(pair[1])
        ends = found.points0, found.points1
        there, back = (
            Scattered(
                ends[side],
                ends[1 - side],
                found.scores,
                reach=REACH * pixels[side],
                tolerance=DEPARTURE * pixels[1 - side],
            )
            for side in (0, 1)
        )
        return carry_anchors(
            there,
            back,
            self.anchors.read(pair[0]).keypoints,
            self.anchors.read(pair[1]).keypoints,
            tolerances=(DEPARTURE * pixels[0], DEPARTURE * pixels[1]),
            certain=CERTAIN,
        )

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
