"""What a benchmark asks: pairs of images whose relation is known, and what had to be left out of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float64

from gim_sfm.types import Pair


@dataclass(frozen=True, slots=True, eq=False)
class PosedPair:
    """Two images whose relative pose is known.

    Attributes:
        identifier: `scene#name0#name1`, as in result files; the same for every method.
        images: Their files, relative to the set's root.
        overlaps: Share of each image that the other shows, in [0, 1]; not a number where unknown.
        intrinsics: Pinhole matrix of each image, 3x3, pixels of the file, first pixel's centre at (0, 0).
        second_from_first: 3x4, X1 = R X0 + t; the unit of t is the set's own.
    """

    identifier: str
    images: Pair
    overlaps: tuple[float, float]
    intrinsics: tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3 3"]]
    second_from_first: Float64[np.ndarray, "3 4"]


@dataclass(frozen=True, slots=True, eq=False)
class HomographyPair:
    """Two images of a plane, or from one place, related by a homography.

    Attributes:
        identifier: `scene#name0#name1`.
        images: Their files, relative to the set's root.
        sizes: (width, height) of each file.
        second_from_first: 3x3, in file pixels, first pixel's centre at (0, 0).
    """

    identifier: str
    images: Pair
    sizes: tuple[tuple[int, int], tuple[int, int]]
    second_from_first: Float64[np.ndarray, "3 3"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A pair that is left out.

    Attributes:
        source: The file, and the line where there are several, that asks for it.
        reason: What is wrong with it.
    """

    source: str
    reason: str


Asked = TypeVar("Asked", PosedPair, HomographyPair)


@dataclass(frozen=True, slots=True)
class PairSet(Generic[Asked]):
    """One set of a benchmark.

    Attributes:
        name: What result files call it.
        root: Folder of its images.
        pairs: In the order of their identifiers.
        skipped: What could not be used.
        image_size: Longest side in pixels at which its protocol shows images to a network; None where it
            leaves that to the matcher.
        published: Number of pairs in the published set; None where there is none.
    """

    name: str
    root: Path
    pairs: tuple[Asked, ...]
    skipped: tuple[Skipped, ...] = ()
    image_size: int | None = None
    published: int | None = None
