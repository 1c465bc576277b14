"""Where a cloud could lie in another one of any scale: their structure laid on each other, seen from above.

Turns and scales are tried one by one, all shifts at a time by Fourier transforms. What is compared is the
correlation coefficient of the cells that both have seen (masked normalised cross-correlation, Padfield,
IEEE TIP 2012), times the square root of their number: ever smaller clouds fit ever better. Sparse points of
photos, in which a matcher finds no corners, are enough for it.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np
from jaxtyping import Complex64, Float32, Float64
from scipy import fft

from gim_sfm.threads import processors

LEVELS = ((48, 0.35, 3.0), (96, 0.12, 0.5))
"""Cells across the target, and the extents of the source, in extents of the target, tried with them."""

RIGID_ACROSS, MOST_ACROSS = 96, 192
"""Cells across the smaller scene where the scale is known, and across the larger one at most."""

SCALED_ROOM, RIGID_ROOM = 3, 2
"""Side of the picture, in scenes of the target: it must hold both, side by side."""

TURN_STEP = 6.0
"""Degrees from one turn to the next."""
SCALE_STEP = 1.12
"""From one scale to the next."""

BLUR = 1.0
"""Standard deviation in cells."""
GROWN, CLOSED = 5, 9
"""Cells about a point that count as seen, and gaps that do, too."""

LEAST_SHARED = 0.5
"""Of the cells that one of the two has seen, the share that both must have."""
LEAST_VARIANCE = 0.02
"""Of the part that is compared, in that of the whole: a bare wall correlates with any other."""

SAME_PLACE = 0.03
"""Median distance, in extents of the source, between two answers below which they are one."""

Places = Float64[np.ndarray, "n 2"]
Plane = Float32[np.ndarray, "side side"]
Spectrum = Complex64[np.ndarray, "side half"]
Move = Float64[np.ndarray, "3 3"]


@dataclass(frozen=True, slots=True, eq=False)
class _Spectra:
    """What is needed of a picture: values, their squares, and what has been seen; each transformed."""

    values: Spectrum
    squares: Spectrum
    mask: Spectrum
    seen: float
    variance: float


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    score: float
    target_from_source: Move


def correlate(
    source: Places, target: Places, *, source_extent: float, target_extent: float, most: int
) -> list[Move]:
    """Moves of the plane, scale included, that bring structure on structure, the best first.

    Args:
        source: Where structure stands, levelled, one point a voxel.
        target: Likewise.
        source_extent: Length of the scene, in the unit of the source.
        target_extent: Likewise.
        most: How many moves of each of the two ranges of scale.

    Returns:
        target_from_source, 3x3, scale R in the upper left.
    """
    ratio = target_extent / source_extent
    found: list[Move] = []
    for across, low, high in LEVELS:
        scales = ratio * np.exp(np.arange(np.log(low), np.log(high), np.log(SCALE_STEP)))
        answers = _search(source, target, scales, target_extent / across, across, SCALED_ROOM)
        found += _distinct(answers, source, source_extent, most)
    return found


def correlate_rigid(source: Places, target: Places, *, extent: float, most: int) -> list[Move]:
    """As `correlate`, of clouds of one scale.

    Args:
        source: Where structure stands, levelled.
        target: Likewise.
        extent: Length of the smaller scene.
        most: How many moves.
    """
    reach = max(float(np.ptp(target, axis=0).max()), extent)
    across = int(np.clip(RIGID_ACROSS * reach / extent, RIGID_ACROSS, MOST_ACROSS))
    answers = _search(source, target, np.ones(1), reach / across, across, RIGID_ROOM)
    return _distinct(answers, source, extent, most)


def _search(
    source: Places, target: Places, scales: np.ndarray, cell: float, across: int, room: int
) -> list[_Answer]:
    side = fft.next_fast_len(room * across)
    middle = np.median(target, axis=0)
    seen = _transform(_count(target - middle, cell, side))
    centre = np.median(source, axis=0)

    def answer(tried: tuple[float, float]) -> _Answer:
        scale, degrees = tried
        turn = scale * _turn(degrees)
        shown = _transform(_count((source - centre) @ turn.T, cell, side))
        score, shift = _best_shift(shown, seen, side)
        move = np.eye(3)
        move[:2, :2], move[:2, 2] = turn, middle + cell * shift - turn @ centre
        return _Answer(score, move)

    with ThreadPoolExecutor(processors()) as threads:
        answers = list(threads.map(answer, product(scales, np.arange(0, 360, TURN_STEP))))
    return sorted(answers, key=lambda each: -each.score)


def _turn(degrees: float) -> Float64[np.ndarray, "2 2"]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def _count(places: Places, cell: float, side: int) -> Plane:
    """Points of each cell about the origin, which is the middle of the picture."""
    columns, rows = np.floor(places / cell + side / 2).astype(np.int64).T
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    cells = rows[inside] * side + columns[inside]
    return np.bincount(cells, minlength=side * side).reshape(side, side).astype(np.float32)


def _transform(count: Plane) -> _Spectra:
    mask = cv2.dilate((count > 0).astype(np.float32), np.ones((GROWN, GROWN)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((CLOSED, CLOSED)))
    values = cv2.GaussianBlur(np.log1p(count), (0, 0), BLUR) * mask
    squares = values * values
    seen = float(mask.sum())
    variance = float(squares.sum()) - float(values.sum()) ** 2 / max(seen, 1.0)
    return _Spectra(fft.rfft2(values), fft.rfft2(squares), fft.rfft2(mask), seen, variance)


def _best_shift(source: _Spectra, target: _Spectra, side: int) -> tuple[float, Float64[np.ndarray, " 2"]]:
    """The highest score of all shifts, and the shift in cells."""

    def slide(one: Spectrum, other: Spectrum) -> Plane:
        return np.asarray(fft.irfft2(np.conj(one) * other, (side, side)), np.float32)

    both = np.maximum(slide(source.mask, target.mask), 1)
    sum0, sum1 = slide(source.values, target.mask), slide(source.mask, target.values)
    product_ = slide(source.values, target.values) - sum0 * sum1 / both
    square0 = slide(source.squares, target.mask) - sum0**2 / both
    square1 = slide(source.mask, target.squares) - sum1**2 / both
    floor = LEAST_VARIANCE * min(source.variance, target.variance) + np.finfo(np.float32).tiny
    spread = np.sqrt(np.maximum(square0, floor)) * np.sqrt(np.maximum(square1, floor))
    enough = both > LEAST_SHARED * min(source.seen, target.seen)
    score = np.where(enough, product_ / spread * np.sqrt(both), -1)
    row, column = np.unravel_index(int(score.argmax()), score.shape)
    shift = [index - side if index > side / 2 else index for index in (int(column), int(row))]
    return float(score[row, column]), np.array(shift, np.float64)


def _distinct(answers: list[_Answer], source: Places, extent: float, most: int) -> list[Move]:
    """The best answers, without those that lie beside a better one."""
    some = source[:: 1 + len(source) // 200]
    kept: list[Move] = []
    laid: list[Places] = []
    for answer in answers:
        move = answer.target_from_source
        there = some @ move[:2, :2].T + move[:2, 2]
        near = SAME_PLACE * extent * float(np.hypot(*move[:2, 0]))
        if all(np.median(np.linalg.norm(there - other, axis=1)) > near for other in laid):
            kept.append(move)
            laid.append(there)
        if len(kept) == most:
            break
    return kept
