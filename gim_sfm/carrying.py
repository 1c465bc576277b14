"""What matchers are given to look at, and keypoints that go along with what they find.

Dense and semi-dense matches lie elsewhere in every pair. A `Courier` carries the keypoints of both photos
with them: along the warp where the matcher gives one, between the matches where it gives only these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32

from gim_sfm.images import ImageFolder, read_photo, signature
from gim_sfm.matchers.contract import DenseMatcher, SemiDenseMatcher, WarpMatcher
from gim_sfm.store import FeatureStore
from gim_sfm.types import Correspondences, Features, Photo
from gim_sfm.warps import Carrier, Scattered, carry_anchors, round_trip

ROUND_TRIP = 3.0
"""Pixels of the network's input, or nodes of its warp, by which the way there and back may miss."""

CERTAIN = 0.05
"""Certainty below which a keypoint counts as not seen; GIM's sampling begins to trust a warp here."""

REACH = 32.0
"""Pixels of the network's input beyond which a match says nothing about a keypoint."""

DEPARTURE = 3.0
"""Pixels of the network's input by which the matches round a keypoint may depart from one affine map."""


class Source(Protocol):
    """Where a matcher's inputs come from: a `FeatureStore`, `PhotoSource` or `AnchoredSource`."""

    def read(self, name: str) -> Any:
        """What the matcher looks at: the photo or the features of this name."""
        ...

    def content(self, name: str) -> str:
        """A digest of what `read` gives."""
        ...


@dataclass(frozen=True, slots=True)
class PhotoSource:
    """The photos of a folder, for matchers that see both photos at once.

    Attributes:
        folder: The photos.
        longest: As in `read_photo`.
    """

    folder: ImageFolder
    longest: int | None = None

    def read(self, name: str) -> Photo:
        """Decodes a photo."""
        return read_photo(self.folder.path(name), longest=self.longest)

    def content(self, name: str) -> str:
        """The digest of the photo's file."""
        return signature(self.folder.path(name)).digest


def pixel_of(size: tuple[int, int], longest: int) -> float:
    """File pixels to a pixel of a network's input of this longest side; 1 where the photo is not shrunk."""
    return max(1.0, max(size) / longest)


@dataclass(frozen=True, slots=True)
class Anchored:
    """What a matcher looks at, with the keypoints that shall go along.

    Attributes:
        seen: The photo, or its features.
        anchors: (x, y) in file pixels.
        pixel: File pixels to a pixel of the network's input.
    """

    seen: Photo | Features
    anchors: Float32[np.ndarray, "n 2"]
    pixel: float


@dataclass(frozen=True, slots=True)
class AnchoredSource:
    """A source with keypoints, for a `Courier`.

    Attributes:
        source: What the matcher looks at.
        anchors: The keypoints.
        longest: Longest side in pixels of the network's input.
    """

    source: Source
    anchors: FeatureStore
    longest: int

    def read(self, name: str) -> Anchored:
        """What the matcher looks at, and the keypoints."""
        seen = self.source.read(name)
        return Anchored(seen, self.anchors.read(name).keypoints, pixel_of(seen.size, self.longest))

    def content(self, name: str) -> str:
        """A digest of both."""
        return f"{self.source.content(name)}+{self.anchors.content(name)}"


@dataclass(frozen=True, slots=True)
class Courier:
    """A matcher that gives positions, carrying keypoints along.

    Attributes:
        matcher: The matcher.
    """

    matcher: SemiDenseMatcher | DenseMatcher | WarpMatcher

    def look(self, pairs: Sequence[tuple[Anchored, Anchored]]) -> Sequence[Any]:
        """What the network finds in each pair."""
        seen: list[Any] = [(first.seen, second.seen) for first, second in pairs]
        if isinstance(self.matcher, WarpMatcher):
            return self.matcher.matcher.warp(seen)
        return self.matcher.matcher.correspond(seen)

    def carry(self, pair: tuple[Anchored, Anchored], found: Any) -> Correspondences:
        """The keypoints of both photos that hold on the way there and back, in file pixels."""
        first, second = pair
        there, back, pixels = _ways(pair, found)
        carried = carry_anchors(
            there,
            back,
            first.anchors,
            second.anchors,
            tolerances=(ROUND_TRIP * pixels[0], ROUND_TRIP * pixels[1]),
            certain=CERTAIN,
        )
        return carried.select(_shown(first, carried.points0) & _shown(second, carried.points1))

    def bring(
        self, pair: tuple[Anchored, Anchored], found: Any
    ) -> tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
        """Where the second photo's keypoints are in the first (file pixels), and how certain (0: unseen)."""
        first, second = pair
        there, back, pixels = _ways(pair, found)
        places, certainty = round_trip(back, there, second.anchors, ROUND_TRIP * pixels[1], CERTAIN)
        return places, np.where(_shown(first, places), certainty, np.float32(0))


def _ways(pair: tuple[Anchored, Anchored], found: Any) -> tuple[Carrier, Carrier, tuple[float, float]]:
    """The way from the first photo to the second, the way back, and the pixels that tolerances go by."""
    first, second = pair
    if isinstance(found, Correspondences):
        there = _between(found.points0, found.points1, found.scores, first.pixel, second.pixel)
        back = _between(found.points1, found.points0, found.scores, second.pixel, first.pixel)
        return there, back, (first.pixel, second.pixel)
    there, back = found
    return there, back, (max(there.step), max(back.step))


def _shown(anchored: Anchored, points: Float32[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Which places lie on the photo."""
    return np.asarray(np.all((points >= -0.5) & (points < np.array(anchored.seen.size) - 0.5), axis=1))


def _between(
    points: Float32[np.ndarray, "m 2"],
    places: Float32[np.ndarray, "m 2"],
    scores: Float32[np.ndarray, " m"],
    pixel: float,
    pixel_there: float,
) -> Scattered:
    return Scattered(points, places, scores, reach=REACH * pixel, tolerance=DEPARTURE * pixel_there)
