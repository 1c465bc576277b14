"""Top views as photos for a matcher, and its matches as places in the levelled frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64, UInt8

from gim_sfm import matchers
from gim_sfm.bev.checks import check_positive
from gim_sfm.bev.projection import to_picture
from gim_sfm.bev.topview import Channel, TopView
from gim_sfm.errors import InputError
from gim_sfm.matchers.positions import PositionTeller, match_photos, telling_positions
from gim_sfm.recipe import MatcherSettings
from gim_sfm.sfm.lineup import load_matcher
from gim_sfm.types import Photo

MATCHED: tuple[Channel, ...] = ("density", "max_height", "height_range")
"""Channels that are matched unless others are named."""

TURNS = 12
"""Turns of the source shown to a matcher that minds them: 30 degrees from one to the next."""

SOFTNESS = 1.0
"""Standard deviation in cells of the blur: a wall of single cells has no stable corners."""

Picture = UInt8[np.ndarray, "height width"]
Places = Float64[np.ndarray, "n 2"]


@dataclass(frozen=True, slots=True)
class ViewMatcher:
    """What matches top views.

    Attributes:
        matcher: Of any kind.
        channels: What it looks at, one after the other.
        turns: How many turns of the source, evenly over the circle, it sees; 1 for one that does not mind.
    """

    matcher: PositionTeller
    channels: tuple[Channel, ...] = MATCHED
    turns: int = 1


def load_view_matcher(
    settings: MatcherSettings, channels: Sequence[Channel], turns: int | None, device: str
) -> ViewMatcher:
    """Loads the matcher that settings name.

    Args:
        settings: Which, and how it is run.
        channels: What it looks at.
        turns: How many turns of the source it is shown; None for 1 where it does not mind turns, else 12.
        device: Where a network runs.

    Raises:
        SettingsError: There is no such matcher, or turns are fewer than one.
        WeightsError: Its weights cannot be had.
    """
    check_positive(turns=turns)
    row = matchers.find(settings.matcher)
    matcher = telling_positions(load_matcher(row, settings, device))
    return ViewMatcher(matcher, tuple(channels), turns or (1 if row.any_turn else TURNS))


def match_views(matcher: ViewMatcher, source: TopView, target: TopView) -> tuple[Places, Places]:
    """Matches two top views.

    Args:
        matcher: With its channels and turns.
        source: One view.
        target: The other, with cells of the same size.

    Returns:
        Matched places in the levelled frames of source and target, of all channels and turns together.

    Raises:
        InputError: A view lacks a channel.
    """
    for view in (source, target):
        demand_channels(view, matcher.channels)
    found: list[tuple[Places, Places]] = []
    for channel in matcher.channels:
        shown, seen = to_photo(source, channel).pixels, to_photo(target, channel)
        rotated = [turn_picture(shown, 360 * k / matcher.turns) for k in range(matcher.turns)]
        pairs = [(_photo(pixels), seen) for pixels, _ in rotated]
        for matches, (_, back) in zip(match_photos(matcher.matcher, pairs), rotated, strict=True):
            pixels = matches.points0 @ back[:, :2].T + back[:, 2]
            found.append((source.grid.to_level(pixels), target.grid.to_level(matches.points1)))
    places = [np.concatenate([each[side] for each in found]) for side in (0, 1)]
    return places[0], places[1]


def demand_channels(view: TopView, channels: Sequence[Channel]) -> None:
    """Refuses a view that cannot be matched by all of some channels.

    Raises:
        InputError: It lacks one.
    """
    for channel in channels:
        if channel not in view.channels:
            raise InputError(
                f"The cloud has no {channel}; its channels are {', '.join(view.channels)}.",
                remedy="Name channels by --channels that both clouds have.",
            )


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
