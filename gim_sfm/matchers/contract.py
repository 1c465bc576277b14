"""What a matcher is. Every network of this package enters the pipeline through one of these shapes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gim_sfm.types import Correspondences, Features, Matches, Photo
from gim_sfm.warps import Warp

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


class Warper(PhotoCorresponder, Protocol):
    """Finds the place of every pixel of one photo in the other, both ways (dense)."""

    def warp(self, pairs: Sequence[PhotoPair]) -> list[tuple[Warp, Warp]]:
        """The way there, from the first photo to the second, and the way back."""
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
    """A network that sees both photos at once and gives matched positions."""

    matcher: PhotoCorresponder


@dataclass(frozen=True, slots=True)
class WarpMatcher:
    """A network that sees both photos at once and can carry any point from one to the other."""

    matcher: Warper


Matcher = SparseMatcher | SemiDenseMatcher | DenseMatcher | WarpMatcher
