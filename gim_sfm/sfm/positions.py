"""Matched positions of pairs, whatever kind of matcher they come from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from gim_sfm.carrying import AnchoredSource, Courier, PhotoSource, Source, pixel_of
from gim_sfm.images import ImageFolder, keep_unmasked, mask_path, read_mask
from gim_sfm.matchers.contract import Matcher, SemiDenseMatcher, SparseMatcher
from gim_sfm.matchers.frame import fitted_size
from gim_sfm.matching import MatchingOutcome, extract_features, match_pairs
from gim_sfm.recipe import digest
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.tracks import CoarseGrid, Tracks, anchored, coarse_grid, merged, quantised
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Matches, Pair

SNAP = 1.5
"""Pixels of the network's input within which a carried keypoint counts as a keypoint of its partner."""

MERGED_WITHIN = 3.0
"""Pixels of the network's input within which other points become one keypoint."""


Keypoints = Callable[[str], Float32[np.ndarray, "n 2"]]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all matchers of a run share.

    Attributes:
        out: Output folder, which takes their stores.
        folder: The photos.
        features: Keypoints that repeat.
        key: What these depend on.
        masks: Folder of masks; keypoints on black are dropped.
        strict: Raise on the first photo that cannot be read instead of leaving its pairs out.
    """

    out: Path
    folder: ImageFolder
    features: FeatureStore
    key: Mapping[str, object]
    masks: Path | None
    strict: bool


@dataclass(frozen=True)
class Positions:
    """A matcher at work on the photos of a folder.

    Attributes:
        lineup: The matcher.
        folder: The photos.
        features: Takes what its own detector finds, if it has one.
        matches: Takes its results.
        anchors: Keypoints that repeat, for its matches to join.
        sizes: (width, height) of every photo.
        masks: Folder of masks; keypoints on black are dropped.
        strict: Raise on the first photo that cannot be read instead of leaving its pairs out.
    """

    lineup: Lineup
    folder: ImageFolder
    features: FeatureStore
    matches: MatchStore
    anchors: FeatureStore
    sizes: Mapping[str, tuple[int, int]]
    masks: Path | None = None
    strict: bool = False

    def match(self, pairs: Sequence[Pair]) -> MatchingOutcome:
        """Matches the pairs that are not stored yet; those of broken photos are left out."""
        broken = self._extract({name for pair in pairs for name in pair})
        whole = [pair for pair in pairs if not broken & set(pair)]
        outcome = match_pairs(
            whole,
            self._matcher(),
            self._source(),
            self.matches,
            batch=self.lineup.batch,
            strict=self.strict,
        )
        return replace(outcome, broken={**dict.fromkeys(broken, ""), **outcome.broken})

    def read(self, pair: Pair) -> Correspondences:
        """The positions of a pair; of its keypoints, where these are what its matches shall join."""
        found = self.matches.read(pair)
        if isinstance(found, Matches):
            points = self.features.read(pair[0]).keypoints, self.features.read(pair[1]).keypoints
            first, second = found.indices.T
            return Correspondences(points[0][first], points[1][second], found.scores)
        return found

    def join(self, pairs: Sequence[Pair]) -> Tracks:
        """Keypoints that repeat over the pairs."""
        match self.lineup.joining:
            case "merged":
                return merged(lambda: self._all(pairs), radius=self._radius, keep=self._keep)
            case "quantised":
                return quantised(lambda: self._all(pairs), keep=self._keep)
            case "coarse-grid":
                return coarse_grid(lambda: self._all(pairs), grid=self._grid, keep=self._keep)
            case _:
                return self.join_to(lambda name: self.anchors.read(name).keypoints, pairs)

    def join_to(self, keypoints: Keypoints, pairs: Sequence[Pair]) -> Tracks:
        """Keypoints that repeat over the pairs, these ones first."""
        return anchored(
            lambda: self._all(pairs),
            anchors=keypoints,
            snap=lambda name: self._snap * self.pixel(name),
            radius=self._radius,
            keep=self._keep,
        )

    def pixel(self, name: str) -> float:
        """File pixels to a pixel of the network's input; 1 where the photo is not shrunk."""
        return pixel_of(self.sizes[name], self.lineup.longest)

    def _all(self, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, Correspondences]]:
        for pair in pairs:
            yield pair, self.read(pair)

    def _extract(self, names: set[str]) -> set[str]:
        """Finds what a matcher with a detector of its own needs; the photos that broke."""
        matcher = self.lineup.matcher
        if not isinstance(matcher, SparseMatcher | SemiDenseMatcher):
            return set()
        outcome = extract_features(
            self.folder,
            sorted(names),
            matcher.detector,
            self.features,
            longest=self.lineup.longest,
            masks=self.masks,
            batch=self.lineup.batch,
            strict=self.strict,
        )
        return set(outcome.broken)

    def _matcher(self) -> Matcher | Courier:
        matcher = self.lineup.matcher
        if isinstance(matcher, SparseMatcher) or not self.lineup.carries:
            return matcher
        return Courier(matcher)

    def _source(self) -> Source:
        finds = isinstance(self.lineup.matcher, SparseMatcher | SemiDenseMatcher)
        seen = self.features if finds else PhotoSource(self.folder, self.lineup.decoded)
        return AnchoredSource(seen, self.anchors, self.lineup.longest) if self.lineup.carries else seen

    @property
    def _snap(self) -> float:
        """Pixels of the network's input within which a position is a keypoint's, as the joining has it."""
        reach = {"merged": MERGED_WITHIN, "coarse-grid": self.lineup.row.grid / 2}
        return reach.get(self.lineup.joining or "", SNAP)

    def _radius(self, name: str) -> float:
        return MERGED_WITHIN * self.pixel(name)

    def _grid(self, name: str) -> CoarseGrid:
        size, cell = self.sizes[name], self.lineup.row.grid
        seen = fitted_size(size, self.lineup.longest, cell)
        x, y = size[0] / seen[0], size[1] / seen[1]
        return CoarseGrid(origin=((x - 1) / 2, (y - 1) / 2), side=(cell * x, cell * y))

    def _keep(self, name: str, keypoints: Float32[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        if self.masks is None:
            return np.ones(len(keypoints), bool)
        return keep_unmasked(keypoints, read_mask(mask_path(self.masks, name), self.sizes[name]))


def put_to_work(
    lineup: Lineup,
    shared: Shared,
    sizes: Mapping[str, tuple[int, int]],
    stores: ExitStack,
    *,
    prefix: str = "",
) -> Positions:
    """A matcher with its stores; keypoints of its own only where it works on others than the shared ones.

    Args:
        lineup: The matcher.
        shared: What it shares with others.
        sizes: (width, height) of every photo.
        stores: Closes what is opened here.
        prefix: Begins the names of its stores.

    Raises:
        OutputError: A store cannot be opened.
    """
    key, own = lineup.matches_key, shared.features
    if isinstance(lineup.matcher, SparseMatcher | SemiDenseMatcher) and key != shared.key:
        path = shared.out / f"{prefix}own_features.h5"
        own = stores.enter_context(FeatureStore.open(path, digest(key), key))
    matches = stores.enter_context(MatchStore.open(shared.out / f"{prefix}matches.h5", digest(key), key))
    return Positions(
        lineup=lineup,
        folder=shared.folder,
        features=own,
        matches=matches,
        anchors=shared.features,
        sizes=sizes,
        masks=shared.masks,
        strict=shared.strict,
    )
