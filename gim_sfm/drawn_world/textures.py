"""Photo-like surfaces made of noise and drawing: stone, plaster, cobbles, wood, mosaics, posters.

Every texture is its own, so that no two places of a drawn world look alike.
"""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

Texture = UInt8[np.ndarray, "height width 3"]
Field = Float32[np.ndarray, "height width"]
Colour = tuple[float, float, float]

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ23456789&?"
SANDSTONE: Colour = (201, 178, 140)
BRICK: Colour = (164, 96, 74)
GRANITE: Colour = (150, 148, 145)
CREAM: Colour = (222, 208, 178)
OAK: Colour = (150, 108, 66)
HUES = (0, 7, 13, 19, 25, 32, 52, 78, 92, 102, 110, 172)
"""Degrees / 2 of the inks and glazes in use: earths, reds, greens and blues."""


def cloud_noise(
    rng: np.random.Generator, shape: tuple[int, int], coarsest: float, finest: float = 1.5
) -> Field:
    """Noise with equal contrast at every octave between two grain sizes.

    Args:
        rng: Where the randomness comes from.
        shape: (height, width).
        coarsest: Largest grain in texels.
        finest: Smallest grain in texels.

    Returns:
        Mean near 0, standard deviation near 1.
    """
    height, width = shape
    octaves = max(1, int(np.log2(coarsest / finest)) + 1)
    total = np.zeros((2, 2), np.float32)
    for octave in range(octaves):
        grain = coarsest / 2**octave
        grid = rng.standard_normal((int(height / grain) + 3, int(width / grain) + 3), dtype=np.float32)
        total = grid + cv2.resize(total, (grid.shape[1], grid.shape[0]), interpolation=cv2.INTER_CUBIC)
    smooth = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth / np.float32(0.8 * np.sqrt(octaves)), np.float32)


def masonry(
    rng: np.random.Generator,
    shape: tuple[int, int],
    colour: Colour,
    *,
    block: tuple[float, float],
    waviness: float = 0.0,
) -> Texture:
    """Blocks in staggered courses with joints: ashlar, bricks, and with much waviness cobbles.

    Args:
        rng: Where the randomness comes from.
        shape: (height, width) in texels.
        colour: Mean colour.
        block: (width, height) of a block in texels.
        waviness: How far joints stray from straight lines, as a share of the block's height.
    """
    height, width = shape
    stray = np.float32(waviness * block[1])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if waviness:
        y += stray * cloud_noise(rng, shape, 2.5 * block[1], block[1])
        x += stray * cloud_noise(rng, shape, 2.5 * block[1], block[1])
    row_position = y / np.float32(block[1]) + 2.0
    row = row_position.astype(np.int32)
    shifts = rng.uniform(0, 1, int(height / block[1]) + 8).astype(np.float32)
    column_position = x / np.float32(block[0]) + 2.0 + shifts[np.clip(row, 0, len(shifts) - 1)]
    column = column_position.astype(np.int32)
    tone = _per_block(rng, row, column)
    inset = np.minimum(
        _distance_to_edge(row_position - row) * np.float32(block[1]),
        _distance_to_edge(column_position - column) * np.float32(block[0]),
    )
    joint = np.clip(inset / np.float32(0.05 * block[1] + 0.8), 0, 1)
    grain = cloud_noise(rng, shape, block[1] * 1.5)
    light = (0.45 + 0.55 * joint) * (1.0 + 0.13 * tone + 0.11 * grain)
    return _tinted(light, colour, 0.06 * tone)


def _per_block(
    rng: np.random.Generator, row: Int32[np.ndarray, "h w"], column: Int32[np.ndarray, "h w"]
) -> Field:
    table = rng.standard_normal((int(row.max()) + 1, int(column.max()) + 1), dtype=np.float32)
    return np.asarray(table[np.maximum(row, 0), np.maximum(column, 0)], np.float32)


def _distance_to_edge(fraction: Field) -> Field:
    return np.asarray(0.5 - np.abs(fraction - np.float32(0.5)), np.float32)


def _tinted(light: Field, colour: Colour, warmth: Field | float = 0.0) -> Texture:
    """Grey levels times a colour; positive warmth is redder, negative bluer."""
    channels = [light * np.float32(colour[0]), light * np.float32(colour[1]), light * np.float32(colour[2])]
    channels[0] *= 1.0 + warmth
    channels[2] *= 1.0 - warmth
    return cv2.convertScaleAbs(cv2.merge([np.maximum(channel, 0) for channel in channels]))


def plaster(rng: np.random.Generator, shape: tuple[int, int], colour: Colour) -> Texture:
    """A stained rendered wall with cracks and patches where the plaster has come off."""
    stains = cloud_noise(rng, shape, max(shape) / 4)
    light = 1.0 + 0.07 * stains + 0.05 * cloud_noise(rng, shape, 12)
    fallen = cloud_noise(rng, shape, max(shape) / 6, 4) > 1.35
    light[fallen] *= 0.72
    texture = _tinted(light, colour, 0.03 * stains)
    for _ in range(max(4, shape[0] * shape[1] // 60_000)):
        _crack(rng, texture)
    return texture


def _crack(rng: np.random.Generator, texture: Texture) -> None:
    height, width = texture.shape[:2]
    start = rng.uniform((0, 0), (width, height))
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.6, 14))
    steps = np.stack([np.cos(heading), np.sin(heading)], 1) * rng.uniform(4, 14, (14, 1))
    path = np.round(start + np.cumsum(steps, 0)).astype(np.int32)
    shade = rng.uniform(40, 90)
    cv2.polylines(texture, [path], False, (shade, shade * 0.95, shade * 0.9), 1, cv2.LINE_AA)


def planks(rng: np.random.Generator, shape: tuple[int, int], colour: Colour, plank: float) -> Texture:
    """Boards side by side with grain, nails and gaps; `plank` is the width of a board in texels."""
    height, width = shape
    stretched = cloud_noise(rng, (max(2, height // 12), width), plank / 2)
    grain = cv2.resize(stretched, (width, height), interpolation=cv2.INTER_CUBIC)
    position = np.arange(width, dtype=np.float32) / np.float32(plank)
    board = position.astype(np.int32)
    tone = rng.standard_normal(board[-1] + 1).astype(np.float32)[board]
    gap = np.clip(_distance_to_edge(position - board) * plank / 1.6, 0.25, 1)
    light = gap[None] * (1.0 + 0.16 * tone[None] + 0.14 * grain + 0.05 * cloud_noise(rng, shape, 20))
    texture = _tinted(light.astype(np.float32), colour)
    for index in range(board[-1] + 1):
        for y in (0.06, 0.94):
            nail = (round((index + rng.uniform(0.3, 0.7)) * plank), round(height * y))
            cv2.circle(texture, nail, max(2, round(plank / 14)), (46, 40, 36), -1, cv2.LINE_AA)
    return texture


def marble(rng: np.random.Generator, shape: tuple[int, int], colour: Colour) -> Texture:
    """Veined stone, for round things that need detail everywhere."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    warp = cloud_noise(rng, shape, max(shape) / 3)
    veins = np.abs(np.sin((x * 0.7 + y) * (14.0 / max(shape)) + 2.4 * warp))
    light = 0.55 + 0.5 * veins**0.6 + 0.09 * cloud_noise(rng, shape, 30)
    return _tinted(light.astype(np.float32), colour, 0.05 * warp)


def mosaic(rng: np.random.Generator, shape: tuple[int, int], tile: float) -> Texture:
    """Small tiles whose colours form larger figures; `tile` is their side in texels."""
    height, width = shape
    rows, columns = int(height / tile) + 1, int(width / tile) + 1
    figures = cloud_noise(rng, (rows, columns), max(3.0, rows / 3), 1.2)
    palette = _palette(rng, 6)
    index = np.clip(((figures + 1.6) * 1.9).astype(np.int32), 0, len(palette) - 1)
    tiles = palette[index] * rng.uniform(0.75, 1.12, (rows, columns, 1))
    texture = cv2.resize(
        np.clip(tiles, 0, 255).astype(np.uint8), (round(columns * tile), round(rows * tile)), interpolation=0
    )[:height, :width]
    y, x = np.ogrid[:height, :width]
    joint = ((y % tile) < max(1.0, tile / 9)) | ((x % tile) < max(1.0, tile / 9))
    texture[joint] = (92, 88, 80)
    return np.ascontiguousarray(_weathered(rng, texture, 0.07))


def poster(rng: np.random.Generator, shape: tuple[int, int]) -> Texture:
    """A printed sheet: shapes in a few colours, a headline, lines of small print, a frame."""
    height, width = shape
    palette = _palette(rng, 5)
    texture = np.empty((height, width, 3), np.uint8)
    texture[:] = palette[0]
    for _ in range(int(rng.integers(9, 15))):
        _shape(rng, texture, palette[int(rng.integers(1, len(palette)))])
    for line in range(int(rng.integers(2, 4))):
        _text(
            rng, texture, (0.1 + 0.2 * line + rng.uniform(0, 0.06)) * height, height * rng.uniform(0.07, 0.13)
        )
    _small_print(rng, texture)
    cv2.rectangle(texture, (0, 0), (width - 1, height - 1), palette[1].tolist(), max(2, min(shape) // 40))
    return _weathered(rng, texture, 0.05)


def _palette(rng: np.random.Generator, count: int) -> Float32[np.ndarray, "count 3"]:
    """Colours spread over hue, alternately light and dark, none of them glaring."""
    hue = rng.choice(HUES, count, replace=False)
    saturation = rng.uniform(50, 150, count)
    value = np.where(np.arange(count) % 2 == 0, rng.uniform(185, 240, count), rng.uniform(55, 135, count))
    rows = np.stack([hue, saturation, value], 1).astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(rows, cv2.COLOR_HSV2RGB)[0], np.float32)


def _shape(rng: np.random.Generator, texture: Texture, colour: Float32[np.ndarray, " 3"]) -> None:
    height, width = texture.shape[:2]
    side = min(height, width)
    centre = rng.uniform((0, 0), (width, height))
    ink = colour.tolist()
    if rng.random() < 0.3:
        thickness = -1 if rng.random() < 0.6 else max(2, side // 30)
        cv2.circle(
            texture,
            centre.astype(int).tolist(),
            int(side * rng.uniform(0.06, 0.2)),
            ink,
            thickness,
            cv2.LINE_AA,
        )
        return
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * side * rng.uniform(0.08, 0.32, (len(angles), 1))
    cv2.fillPoly(texture, [np.round(centre + corners).astype(np.int32)], ink, cv2.LINE_AA)


def _text(rng: np.random.Generator, texture: Texture, baseline: float, size: float) -> None:
    width = texture.shape[1]
    scale = size / 22.0
    words = "".join(rng.choice(list(LETTERS + "  "), max(3, int(width / size * 1.15))))
    ink = (25, 22, 30) if rng.random() < 0.6 else (240, 238, 228)
    place = (round(rng.uniform(0.02, 0.1) * width), round(baseline + size))
    font = int(rng.choice([cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX]))
    cv2.putText(texture, words, place, font, scale, ink, max(1, round(scale * 2.2)), cv2.LINE_AA)


def _small_print(rng: np.random.Generator, texture: Texture) -> None:
    height, width = texture.shape[:2]
    size = max(9.0, height / 32)
    for line in range(5):
        y = height * 0.76 + line * size * 1.35
        if y + size < height * 0.97:
            words = "".join(rng.choice(list(LETTERS + "   "), max(3, int(width * 0.8 / (size * 0.8)))))
            place = (round(width * 0.06), round(y + size))
            cv2.putText(
                texture, words, place, cv2.FONT_HERSHEY_SIMPLEX, size / 24, (30, 28, 34), 1, cv2.LINE_AA
            )


def _weathered(rng: np.random.Generator, texture: Texture, strength: float) -> Texture:
    shape = texture.shape[:2]
    light = 1.0 + strength * cloud_noise(rng, shape, max(shape) / 3)
    return cv2.convertScaleAbs(texture.astype(np.float32) * light[..., None])


def window(rng: np.random.Generator, shape: tuple[int, int]) -> Texture:
    """Panes in a painted frame, with curtains or reflections behind the glass."""
    height, width = shape
    glass = _tinted(0.8 + 0.25 * cloud_noise(rng, shape, max(shape) / 2, 6), (84, 104, 122))
    curtain = int(width * rng.uniform(0.12, 0.4))
    glass[:, :curtain] = np.clip(glass[:, :curtain].astype(np.int32) + rng.integers(30, 90, 3), 0, 255)
    frame = _palette(rng, 3)[int(rng.integers(0, 3))].tolist()
    thickness = max(3, width // 14)
    cv2.rectangle(glass, (0, 0), (width - 1, height - 1), frame, 2 * thickness)
    for x in np.linspace(0, width, int(rng.integers(3, 5)))[1:-1]:
        cv2.line(glass, (round(x), 0), (round(x), height), frame, thickness)
    for y in np.linspace(0, height, int(rng.integers(3, 6)))[1:-1]:
        cv2.line(glass, (0, round(y)), (width, round(y)), frame, thickness)
    return _weathered(rng, glass, 0.05)


def paste(texture: Texture, sheet: Texture, place: tuple[float, float]) -> None:
    """Lays a sheet onto a texture, in place; `place` is its top left corner as a share of the free room."""
    height, width = (min(a, b) for a, b in zip(sheet.shape[:2], texture.shape[:2], strict=True))
    top = round(place[1] * (texture.shape[0] - height))
    left = round(place[0] * (texture.shape[1] - width))
    texture[top : top + height, left : left + width] = sheet[:height, :width]


def ring_ornament(rng: np.random.Generator, texture: Texture, radii: Sequence[float]) -> None:
    """Inlays concentric bands of coloured wedges round the middle of a texture, in place."""
    centre = np.array(texture.shape[1::-1]) / 2
    palette = _palette(rng, 7)
    for inner, outer in pairwise(radii):
        angles = np.cumsum(rng.uniform(4, 14, 90))
        for start, end in pairwise(np.radians(np.append(angles[angles < 355], 360.0))):
            ink = palette[int(rng.integers(len(palette)))] * rng.uniform(0.6, 0.9)
            arc = np.linspace(start, end - 0.012, 6)
            rim = np.stack([np.cos(arc), np.sin(arc)], 1)
            wedge = centre + np.concatenate([rim * inner, rim[::-1] * (outer - 0.03 * inner)])
            cv2.fillPoly(texture, [np.round(wedge).astype(np.int32)], ink.tolist(), cv2.LINE_AA)


def pyramid(texture: Texture) -> list[Texture]:
    """The texture and its halvings down to a few texels, for sampling at a distance."""
    levels = [texture]
    while min(levels[-1].shape[:2]) > 4:
        height, width = levels[-1].shape[:2]
        levels.append(
            cv2.resize(levels[-1], (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
        )
    return levels
