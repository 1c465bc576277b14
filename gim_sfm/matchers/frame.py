"""From a photo to a network's input and back: the only place where pixels are resized, padded, and undone."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from gim_sfm.errors import InputError
from gim_sfm.types import Photo

ENLARGE_TO = 1024
"""Side in pixels that small photos are enlarged to, near what ALIKED and DISK were trained on. Beyond it, the
same number of keypoints gave fewer good matches on photos of 1092 and 1063 pixels."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How the pixels of a network's input lie in the photo's file.

    Attributes:
        scale: Network pixels per file pixel in x and y.
        content: (width, height) of the input that shows the photo; padding lies around it.
        size: (width, height) of the file.
        offset: Pixels of padding left of and above the photo.
    """

    scale: tuple[float, float]
    content: tuple[int, int]
    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    def to_file(self, points: Float[np.ndarray, "*n 2"]) -> Float32[np.ndarray, "*n 2"]:
        """File pixels of points given in network pixels."""
        inside = np.asarray(points, np.float64) - self.offset
        return ((inside + 0.5) / self.scale - 0.5).astype(np.float32)

    def to_network(self, points: Float[np.ndarray, "*n 2"]) -> Float32[np.ndarray, "*n 2"]:
        """Network pixels of points given in file pixels."""
        inside = (np.asarray(points, np.float64) + 0.5) * self.scale - 0.5
        return (inside + self.offset).astype(np.float32)

    def shows(self, points: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """Which network points lie on the photo, not on the padding."""
        inside = points - np.array(self.offset)
        shown = (inside >= -0.5) & (inside < np.array(self.content) - 0.5)
        return np.asarray(shown[:, 0] & shown[:, 1])


def to_network(
    photo: Photo, longest: int, multiple: int, *, enlarge_to: int | None = None
) -> tuple[UInt8[np.ndarray, "height width 3"], Frame]:
    """Resize a photo to a longest side of `longest`, then pad it to whole multiples.

    The padding repeats the last row and column, so that it puts no edge into the picture.

    Args:
        photo: What was decoded.
        longest: Longest side of the resized photo in pixels.
        multiple: The sides of the result are whole multiples of this.
        enlarge_to: Smaller photos are enlarged to this longest side only, and not at all by 0; None for
            `longest`.

    Returns:
        The network's input and its place in the file.

    Raises:
        InputError: The photo has no pixels.
    """
    width, height = _sides(photo)
    side = max(width, height)
    factor = (longest if enlarge_to is None else min(longest, max(side, enlarge_to))) / side
    resized = photo.pixels
    if factor != 1:
        content = (max(1, round(width * factor)), max(1, round(height * factor)))
        # Area averaging is the only shrinking here that does not alias; enlarging has nothing to average.
        resized = cv2.resize(
            resized, content, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        )
    else:
        content = (width, height)
    scale = (content[0] / width / photo.reduction, content[1] / height / photo.reduction)
    right, below = -content[0] % multiple, -content[1] % multiple
    padded = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return padded, Frame(scale=scale, content=content, size=photo.size)


def fitted_size(size: tuple[int, int], longest: int, multiple: int) -> tuple[int, int]:
    """(width, height) to which `fit` brings a photo."""
    factor = min(1.0, longest / max(size))
    width, height = (max(multiple, round(side * factor) // multiple * multiple) for side in size)
    return width, height


def fit(photo: Photo, longest: int, multiple: int) -> tuple[Float32[np.ndarray, "height width 3"], Frame]:
    """Resize a photo so that it has whole multiples for sides, without padding, as GIM's networks take it.

    Photos are never enlarged. Shrinking averages areas; what is left to the whole multiples is interpolated
    linearly, which is all that the published pipeline does.

    Args:
        photo: What was decoded.
        longest: No side of the result is longer.
        multiple: The sides of the result are whole multiples of this.

    Returns:
        RGB in [0, 1] and its place in the file.

    Raises:
        InputError: The photo has no pixels.
    """
    width, height = _sides(photo)
    whole = fitted_size((width, height), longest, multiple)
    pixels: np.ndarray = photo.pixels.astype(np.float32) / np.float32(255)
    if whole != (width, height):
        shrink = cv2.INTER_AREA if longest < max(width, height) else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, whole, interpolation=shrink)
    scale = (whole[0] / width / photo.reduction, whole[1] / height / photo.reduction)
    return pixels, Frame(scale=scale, content=whole, size=photo.size)


def pad_to_aspect(
    pixels: Float32[np.ndarray, "height width 3"], frame: Frame, aspect: float
) -> tuple[Float32[np.ndarray, "padded_height padded_width 3"], Frame]:
    """Put a photo in the middle of a black canvas of this width to height, without resizing it.

    Args:
        pixels: From `fit`.
        frame: From `fit`.
        aspect: Width divided by height; sides are rounded down to whole pixels.

    Returns:
        The canvas and the photo's place in it.
    """
    height, width = pixels.shape[:2]
    canvas = max(width, int(height * aspect)), max(height, int(width / aspect))
    left, top = (canvas[0] - width) // 2, (canvas[1] - height) // 2
    right, below = canvas[0] - width - left, canvas[1] - height - top
    padded = cv2.copyMakeBorder(pixels, top, below, left, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    return padded, replace(frame, offset=(left, top))


def _sides(photo: Photo) -> tuple[int, int]:
    height, width = photo.pixels.shape[:2]
    if not width or not height:
        raise InputError("A photo has no pixels.", remedy="Take it out of the folder.")
    return width, height
