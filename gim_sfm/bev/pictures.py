"""Pictures of a registration: the top views with their matches, and one cloud over the other."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from gim_sfm.bev.projection import write_png
from gim_sfm.bev.topview import TopView
from gim_sfm.bev.view_matching import to_photo

Picture = UInt8[np.ndarray, "height width 3"]

SOURCE, TARGET = (0, 114, 178), (230, 159, 0)
"""RGB, told apart by colour-blind people, too."""

MOST_LINES = 60
LEAST_HEIGHT = 700
"""Pixels; small pictures are enlarged by a whole factor to be that high."""

MOST_PIXELS = 2000
PAPER = 250


def draw_matches(
    source: TopView,
    target: TopView,
    source_places: Float64[np.ndarray, "n 2"],
    target_places: Float64[np.ndarray, "n 2"],
) -> Picture:
    """Both densities side by side, matches as lines; at most 60 of them, evenly chosen."""
    pixels = [255 - to_photo(view, "density").pixels for view in (source, target)]
    times = _times(max(picture.shape[0] for picture in pixels))
    left, right = (_enlarge(picture, times) for picture in pixels)
    height = max(left.shape[0], right.shape[0])
    canvas = np.full((height, left.shape[1] + right.shape[1] + 8, 3), PAPER, np.uint8)
    canvas[: left.shape[0], : left.shape[1]] = left
    canvas[: right.shape[0], left.shape[1] + 8 :] = right
    step = max(1, len(source_places) // MOST_LINES)
    starts = (source.grid.to_pixels(source_places[::step]) + 0.5) * times - 0.5
    ends = (target.grid.to_pixels(target_places[::step]) + 0.5) * times - 0.5 + (left.shape[1] + 8, 0)
    for start, end in zip(np.rint(starts).astype(int), np.rint(ends).astype(int), strict=True):
        cv2.line(canvas, start.tolist(), end.tolist(), SOURCE, 1, cv2.LINE_AA)
        for point in (start, end):
            cv2.circle(canvas, point.tolist(), 3, TARGET, 1, cv2.LINE_AA)
    return canvas


def draw_overlay(
    source: Float32[np.ndarray, "n 3"], target: Float32[np.ndarray, "m 3"], cell: float
) -> Picture:
    """One cloud over the other, seen from above: source blue, target orange, both where they meet black.

    Args:
        source: Points in the levelled frame of the target.
        target: Points in it.
        cell: Side of a pixel; more where the picture would have over 2000 of them a side.
    """
    both = np.concatenate([source[:, :2], target[:, :2]])
    low, high = np.percentile(both, [0.2, 99.8], axis=0)
    side = max(cell, float((high - low).max()) / MOST_PIXELS)
    size = np.ceil((high - low) / side).astype(int) + 1
    covers = [_cover(points, low, size, side) for points in (source, target)]
    canvas = np.full((size[1], size[0], 3), 255.0)
    for cover, colour in zip(covers, (SOURCE, TARGET), strict=True):
        canvas *= 1 - cover[..., None] * (1 - np.array(colour) / 255)
    return _enlarge(np.ascontiguousarray(canvas[::-1].astype(np.uint8)), _times(int(size[1])))


def _times(height: int) -> int:
    return -(-LEAST_HEIGHT // height)


def _enlarge(picture: Picture, times: int) -> Picture:
    return np.asarray(cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST))


def _cover(
    points: Float32[np.ndarray, "n 3"], low: np.ndarray, size: np.ndarray, side: float
) -> Float64[np.ndarray, "height width"]:
    """How much of each pixel is covered, from 0 to 1: the more points the more."""
    columns, rows = np.floor((points[:, :2] - low) / side).astype(int).T
    inside = (columns >= 0) & (columns < size[0]) & (rows >= 0) & (rows < size[1])
    counts = np.bincount(rows[inside] * size[0] + columns[inside], minlength=int(size[0] * size[1]))
    return np.asarray(1 - np.exp(-counts.reshape(size[1], size[0]) / 1.5))


def write_picture(path: Path, picture: Picture) -> None:
    """Writes a picture as PNG.

    Raises:
        OutputError: It cannot be written.
    """
    write_png(path, np.ascontiguousarray(picture[..., ::-1]))
