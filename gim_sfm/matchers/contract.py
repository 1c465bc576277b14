"""What a matcher is. Every network of this package enters the pipeline through one of these shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gim_sfm.types import Correspondences, Features, Matches, Photo

PhotoPair = tuple[Photo, Photo]
FeaturePair = tuple[Features, Features]


class Detector(Protocol):
    """Finds and describes keypoints; runs once per photo."""

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        """Features of each photo, in file pixels, strongest first."""
        ...


class FeatureMatcher(Protocol):
    """Matches keypoints by their descriptors; runs once per pair."""

    def match(self, pairs: Sequence[FeaturePair]) -> list[Matches]:
        """Index pairs into the two keypoint lists of each pair."""
        ...


class FeatureCorresponder(Protocol):
    """Matches stored features but moves the points while doing so (semi-dense)."""

    def correspond(self, pairs: Sequence[FeaturePair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        ...


class PhotoCorresponder(Protocol):
    """Matches two photos directly (dense); has no keypoints of its own."""

    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        ...


@dataclass(frozen=True, slots=True)
class SparseMatcher:
    """A detector and what matches its keypoints."""

    detector: Detector
    matcher: FeatureMatcher


@dataclass(frozen=True, slots=True)
class SemiDenseMatcher:
    """A detector whose matches are refined pair by pair."""

    detector: Detector
    matcher: FeatureCorresponder


@dataclass(frozen=True, slots=True)
class DenseMatcher:
    """A network that sees both photos at once."""

    matcher: PhotoCorresponder


Matcher = SparseMatcher | SemiDenseMatcher | DenseMatcher
