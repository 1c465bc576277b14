"""What travels between the rooms: plain arrays in frozen dataclasses.

Pixels are (x, y) of the image file as it lies on disk, the first pixel's centre at (0, 0).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, Float32, Int32, UInt8

Pair = tuple[str, str]
"""Two image names; the order in which they are matched."""


@dataclass(frozen=True, slots=True)
class Photo:
    """Decoded pixels of one photo, possibly read at a reduced scale.

    Attributes:
        pixels: RGB, as decoded.
        size: (width, height) of the file on disk.
        reduction: Each decoded pixel covers this many file pixels in x and y (1 when read in full).
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    size: tuple[int, int]
    reduction: int = 1


@dataclass(frozen=True, slots=True)
class Features:
    """Local features of one photo, strongest first.

    Attributes:
        keypoints: (x, y) in file pixels.
        scores: Detection scores.
        descriptors: One row a keypoint. In half precision as they are stored, so that a resumed run sees
            exactly what the first one saw.
        scales: Size of the described region against the detector's finest one; ones where it has none.
        size: (width, height) of the file.
    """

    keypoints: Float32[np.ndarray, "n 2"]
    scores: Float32[np.ndarray, " n"]
    descriptors: Float16[np.ndarray, "n d"]
    scales: Float32[np.ndarray, " n"]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.keypoints)

    def select(self, kept: np.ndarray) -> "Features":
        """The features at these indices or where this mask is true."""
        return Features(
            self.keypoints[kept], self.scores[kept], self.descriptors[kept], self.scales[kept], self.size
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """Matched keypoints of a pair: row (i, j) joins keypoint i of the first photo and j of the second."""

    indices: Int32[np.ndarray, "m 2"]
    scores: Float32[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, slots=True)
class Correspondences:
    """Matched positions of a pair, free of any keypoint list: what dense and semi-dense matchers give."""

    points0: Float32[np.ndarray, "m 2"]
    points1: Float32[np.ndarray, "m 2"]
    scores: Float32[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, kept: np.ndarray) -> "Correspondences":
        """Those at these indices or where this mask is true."""
        return Correspondences(self.points0[kept], self.points1[kept], self.scores[kept])
