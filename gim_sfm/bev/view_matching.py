"""Top views as photos for a matcher, and its matches as places in the levelled frames."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from gim_sfm.bev.projection import to_picture
from gim_sfm.bev.topview import Channel, TopView
from gim_sfm.matchers.positions import PositionTeller, match_photos
from gim_sfm.types import Photo

SOFTNESS = 1.0
"""Standard deviation in cells of the blur: a wall of single cells has no stable corners."""

Picture = UInt8[np.ndarray, "height width"]
Places = Float64[np.ndarray, "n 2"]


def match_views(
    matcher: PositionTeller, source: TopView, target: TopView, channels: Sequence[Channel], turns: int
) -> tuple[Places, Places]:
    """Matches two top views.

    Args:
        matcher: Of any kind.
        source: One view.
        target: The other, with cells of the same size.
        channels: What is looked at, one after the other.
        turns: How many turns of the source, evenly over the circle, are shown to the matcher; 1 for one that
            does not mind.

    Returns:
        Matched places in the levelled frames of source and target, of all channels and turns together.
    """
    found: list[tuple[Places, Places]] = []
    for channel in channels:
        shown, seen = to_photo(source, channel).pixels, to_photo(target, channel)
        rotated = [turn_picture(shown, 360 * k / turns) for k in range(turns)]
        pairs = [(_photo(pixels), seen) for pixels, _ in rotated]
        for matches, (_, back) in zip(match_photos(matcher, pairs), rotated, strict=True):
            pixels = matches.points0 @ back[:, :2].T + back[:, 2]
            found.append((source.grid.to_level(pixels), target.grid.to_level(matches.points1)))
    places = [np.concatenate([each[side] for each in found]) for side in (0, 1)]
    return places[0], places[1]


def to_photo(view: TopView, channel: Channel) -> Photo:
    """A channel as a grey photo, slightly blurred."""
    picture = to_picture(channel, view.channels[channel])
    return _photo(cv2.GaussianBlur(np.repeat(picture[..., None], 3, axis=2), (0, 0), SOFTNESS))


def turn_picture(pixels: np.ndarray, degrees: float) -> tuple[np.ndarray, Float64[np.ndarray, "2 3"]]:
    """A picture turned about its middle, on a canvas that holds it, and the way back for pixels."""
    if degrees == 0:
        return pixels, np.eye(3)[:2]
    height, width = pixels.shape[:2]
    side = int(np.ceil(np.hypot(width, height)))
    there = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    there[:, 2] += (side - width) / 2, (side - height) / 2
    turned = cv2.warpAffine(pixels, there, (side, side))
    return turned, np.asarray(cv2.invertAffineTransform(there), np.float64)


def _photo(pixels: np.ndarray) -> Photo:
    return Photo(np.ascontiguousarray(pixels), (pixels.shape[1], pixels.shape[0]))
