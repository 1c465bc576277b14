"""Matchers of every kind as matchers that tell positions, free of any keypoint list."""

from collections.abc import Sequence
from dataclasses import dataclass

from gim_sfm.matchers.contract import (
    DenseMatcher,
    FeatureMatcher,
    FeaturePair,
    Matcher,
    SemiDenseMatcher,
    SparseMatcher,
    WarpMatcher,
)
from gim_sfm.types import Correspondences, Photo

PositionTeller = SemiDenseMatcher | DenseMatcher | WarpMatcher


@dataclass(frozen=True, slots=True)
class PositionMatcher:
    """Matches features, and tells positions instead of indices: features need not outlast the matching.

    Attributes:
        matcher: Gives the indices.
    """

    matcher: FeatureMatcher

    def correspond(self, pairs: Sequence[FeaturePair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        found = self.matcher.match(pairs)
        return [
            Correspondences(
                first.keypoints[matches.indices[:, 0]],
                second.keypoints[matches.indices[:, 1]],
                matches.scores,
            )
            for (first, second), matches in zip(pairs, found, strict=True)
        ]


def telling_positions(matcher: Matcher) -> PositionTeller:
    """The matcher itself, or a sparse one that tells positions instead of indices."""
    if isinstance(matcher, SparseMatcher):
        return SemiDenseMatcher(matcher.detector, PositionMatcher(matcher.matcher))
    return matcher


def match_photos(matcher: PositionTeller, pairs: Sequence[tuple[Photo, Photo]]) -> list[Correspondences]:
    """Matched positions of pairs of photos; the features of each photo are found once."""
    if not isinstance(matcher, SemiDenseMatcher):
        return [matcher.matcher.correspond([pair])[0] for pair in pairs]
    photos = list({id(photo): photo for pair in pairs for photo in pair}.values())
    features = {id(photo): matcher.detector.extract([photo])[0] for photo in photos}
    return [matcher.matcher.correspond([(features[id(a)], features[id(b)])])[0] for a, b in pairs]
