"""Local maxima of score maps: where the detectors of this package find their keypoints."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

FARTHEST_SUMMIT = 0.7
"""From a maximum in x and y, in pixels; past half a pixel the next one ought to be the maximum."""


@dataclass(frozen=True, slots=True)
class Maxima:
    """Strict local maxima of a batch of score maps: photo by photo, strongest first.

    Attributes:
        photo: Which map of the batch, (n,).
        x: Column, (n,).
        y: Row, (n,).
        windows: The scores around each, row by row, (n, window * window).
    """

    photo: Tensor
    x: Tensor
    y: Tensor
    windows: Tensor

    @property
    def places(self) -> Tensor:
        """(x, y) as whole pixels, (n, 2)."""
        return torch.stack([self.x, self.y], dim=1)

    @property
    def peaks(self) -> Tensor:
        """The scores at the maxima, (n,)."""
        return self.windows[:, self.windows.shape[1] // 2]

    def select(self, kept: Tensor) -> "Maxima":
        """Those at these places or where this mask is true."""
        return Maxima(self.photo[kept], self.x[kept], self.y[kept], self.windows[kept])

    def strongest(self, most: int) -> "Maxima":
        """At most this many of each photo."""
        return self.select(_rank(self.photo) < most)


def find_maxima(scores: Tensor, contents: Tensor, radius: int, *, above: float) -> Maxima:
    """Pixels whose score is larger than every other in the window around them.

    Args:
        scores: (batch, height, width).
        contents: (width, height) of the part of each map that shows the photo, (batch, 2). Maxima keep
            `radius` pixels away from its border.
        radius: Of the square window.
        above: Only maxima above this score.
    """
    height, width = scores.shape[1:]
    candidates = (scores == window_maximum(scores, radius)) & (scores > above)
    photo, y, x = torch.nonzero(candidates, as_tuple=True)
    right, below = (contents[photo] - radius).T
    inner = (x >= radius) & (y >= radius) & (x < right) & (y < below)
    photo, y, x = photo[inner], y[inner], x[inner]
    around = window_steps(radius, width, scores.device)
    windows = scores.reshape(-1)[((photo * height + y) * width + x)[:, None] + around]
    found = Maxima(photo, x, y, windows)
    found = found.select((windows == found.peaks[:, None]).sum(dim=1) == 1)
    # Stable sorts, so that equal scores keep their raster order on every device.
    found = found.select(torch.argsort(found.peaks, descending=True, stable=True))
    return found.select(torch.argsort(found.photo, stable=True))


def window_maximum(scores: Tensor, radius: int) -> Tensor:
    """The largest score in the window around each pixel; pooling a single channel is far slower."""
    for dim, padding in ((1, (0, 0, radius, radius)), (2, (radius, radius))):
        padded = functional.pad(scores, padding, value=-torch.inf)
        size = scores.shape[dim]
        scores = padded.narrow(dim, 0, size)
        for shift in range(1, 2 * radius + 1):
            scores = torch.maximum(scores, padded.narrow(dim, shift, size))
    return scores


def window_steps(radius: int, width: int, device: torch.device) -> Tensor:
    """What to add to a pixel's place in a flattened map to visit its window, row by row."""
    step = torch.arange(-radius, radius + 1, device=device)
    return (step[:, None] * width + step[None, :]).flatten()


def summit(windows: Tensor) -> Tensor:
    """Where a parabola through the 3x3 values around each maximum peaks, as (x, y) from the centre, (n, 2).

    Args:
        windows: Values around each maximum, row by row, (n, window * window).
    """
    side = math.isqrt(windows.shape[1])
    near = windows.reshape(-1, side, side)[:, side // 2 - 1 : side // 2 + 2, side // 2 - 1 : side // 2 + 2]
    centre, left, right, above, below = (
        near[:, 1, 1],
        near[:, 1, 0],
        near[:, 1, 2],
        near[:, 0, 1],
        near[:, 2, 1],
    )
    slope_x, slope_y = (right - left) / 2, (below - above) / 2
    bend_x, bend_y = left + right - 2 * centre, above + below - 2 * centre
    twist = (near[:, 2, 2] + near[:, 0, 0] - near[:, 2, 0] - near[:, 0, 2]) / 4
    # Negative for a saddle, which the corners of a window can feign; each axis by itself always has a summit.
    area = bend_x * bend_y - twist.square()
    twist = torch.where(area > 0, twist, 0.0)
    area = torch.where(area > 0, area, bend_x * bend_y)
    x = (twist * slope_y - bend_y * slope_x) / area
    y = (twist * slope_x - bend_x * slope_y) / area
    return torch.stack([x, y], dim=1).clamp(-FARTHEST_SUMMIT, FARTHEST_SUMMIT)


def _rank(photo: Tensor) -> Tensor:
    """The place of each entry among those of its photo; photos come one after the other."""
    counts = torch.bincount(photo) if len(photo) else photo
    starts = counts.cumsum(0) - counts
    return torch.arange(len(photo), device=photo.device) - starts[photo]
