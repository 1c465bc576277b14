"""Places recognised from above, from whatever side they are come upon.

The magnitude of a picture's Fourier transform does not change when the picture is moved, and turns with it
when it is turned. On rings about its middle a turn is a shift along the ring, which the magnitude of another
transform along the ring forgets in its turn. What is left describes the place whatever way the sensor looks
and whichever lane it is in: the idea of Reddy and Chatterji (1996), without the logarithm since scales are
equal; Fan et al. (2022, "FreSCo") compare spectra of scans, too. Rings about the sensor itself, as of Kim and
Kim (2018, "Scan Context"), forget turns but not the lane: on drawn drives in opposite lanes they had the
right place first in 5 of 10 cases, this in all.
"""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from gim_sfm.bev.ground import Ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.topview import Grid, project
from gim_sfm.errors import InputError

CELLS = 160
"""Cells of a side of the picture that is described; it is as wide as the scene is long."""

SPECTRUM = 256
"""Side of the spectrum; more than the picture's, so that it is smooth enough to be read between its cells."""

RINGS = 32
WAVES = (2, 40)
"""Waves over the picture on the innermost and the outermost ring: houses to kerbs."""

ANGLES = 60
"""Directions over half a circle, after which a spectrum repeats itself."""

HARMONICS = 20
LEAST_LIKENESS = 0.2
"""Of a candidate. Scans of streets, drawn and real, taken within 6 m of each other reached 0.4 and more,
within 10 m 0.3; of those of different places one in twenty exceeded 0.2, one in a thousand 0.3."""

CHANCE = np.pi / 4
"""Product of two descriptors of noise: its amplitudes are Rayleigh's, whose mean squared is that share of
their mean square."""

BLUR = 0.7
EDGE = 0.35
"""Outer part of the picture's radius over which it fades out: what lies there is seen from one side only."""

NOTHING = 1e-20
"""Added before dividing: an empty picture is described by zeros."""

Descriptor = Float32[np.ndarray, " d"]
Picture = Float32[np.ndarray, "side side"]


def describe_place(
    cloud: PointCloud, ground: Ground, extent: float, station: Float64[np.ndarray, "3"]
) -> Descriptor:
    """Describes a place by its density and heights; alike for clouds taken anywhere near, in any direction.

    Args:
        cloud: The points.
        ground: Their ground.
        extent: Side of the picture, the same for all clouds that are to be compared.
        station: Middle of the picture: where the sensor stood or near it, in the frame of the cloud.

    Returns:
        Of unit length.

    Raises:
        InputError: Nothing is seen there.
    """
    half = CELLS // 2
    level = ground.level_from_cloud.copy()
    level[:2, 3] -= (level[:3, :3] @ (station - cloud.origin) + level[:3, 3])[:2]
    centred = replace(ground, level_from_cloud=level)
    view = project(cloud, centred, Grid(extent / CELLS, (-half, half - 1), (CELLS, CELLS)))
    heights = np.sqrt(np.where(view.channels["density"] > 0, view.channels["max_height"], 0))
    halves = [_describe(np.log1p(view.channels["density"])), _describe(heights)]
    if not any(part.any() for part in halves):
        raise InputError(
            f"Nothing is seen within {extent / 2:.3g} of the middle of the place.",
            remedy="Leave the scan out, or check where its points lie.",
        )
    return np.asarray(np.concatenate(halves) / np.sqrt(2), np.float32)


def measure_likeness(
    one: Float32[np.ndarray, "... d"], other: Float32[np.ndarray, " d"]
) -> Float32[np.ndarray, " ..."]:
    """How alike descriptors are: 1 where they are equal, about 0 where nothing is common to the places."""
    return np.asarray((one @ other - CHANCE) / (1 - CHANCE))


def choose_candidates(
    descriptors: Float32[np.ndarray, "n d"],
    way: Float64[np.ndarray, " n"],
    *,
    most: int,
    gap: float,
    alike: float,
) -> list[tuple[int, int]]:
    """For each place the earlier ones that look like it, each from another stretch of the way.

    Args:
        descriptors: Of each place, in the order of the drive; zeros where there is none.
        way: Length of the way to each.
        most: How many for each at most.
        gap: Way between two that are no neighbours any more; of 0, all earlier ones are none.
        alike: Way within which only the one that looks most alike is taken.

    Returns:
        (later, earlier), for each the most alike first.
    """
    known = np.abs(descriptors).sum(axis=1) > 0
    pairs: list[tuple[int, int]] = []
    for later in np.flatnonzero(known):
        likeness = measure_likeness(descriptors, descriptors[later])
        likeness[~known | (way > way[later] - gap)] = -np.inf
        likeness[later:] = -np.inf
        for _ in range(most):
            earlier = int(likeness.argmax())
            if likeness[earlier] < LEAST_LIKENESS:
                break
            pairs.append((int(later), earlier))
            likeness[np.abs(way - way[earlier]) <= alike] = -np.inf
    return pairs


def _describe(picture: Picture) -> Descriptor:
    faded = cv2.GaussianBlur(picture.astype(np.float32) * _fading(), (0, 0), BLUR)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2(faded, (SPECTRUM, SPECTRUM)))).astype(np.float32)
    columns, rows = _rings()
    rings = np.asarray(cv2.remap(spectrum, columns, rows, cv2.INTER_LINEAR))
    rings = (rings - rings.mean(axis=1, keepdims=True)) / (rings.std(axis=1, keepdims=True) + NOTHING)
    harmonics = np.abs(np.fft.rfft(rings, axis=1))[:, 1:HARMONICS].astype(np.float32).ravel()
    described: Descriptor = harmonics / np.float32(np.linalg.norm(harmonics) + NOTHING)
    return described


@lru_cache(1)
def _fading() -> Picture:
    """1 in the middle, 0 from the rim on, smooth between."""
    rows, columns = np.mgrid[:CELLS, :CELLS] - (CELLS - 1) / 2
    inward = np.clip((1 - np.hypot(rows, columns) / (CELLS / 2)) / EDGE, 0, 1)
    return np.asarray(inward**2 * (3 - 2 * inward), np.float32)


@lru_cache(1)
def _rings() -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the spectrum on the rings, (RINGS, ANGLES) each."""
    radii = np.linspace(*WAVES, RINGS)[:, None] * SPECTRUM / CELLS
    angles = np.arange(ANGLES) * np.pi / ANGLES
    middle = SPECTRUM // 2
    columns, rows = middle + radii * np.cos(angles), middle + radii * np.sin(angles)
    return columns.astype(np.float32), rows.astype(np.float32)
