"""A courtyard to take photos of: paved ground, four facades with windows and pillars, a monument, clutter."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from gim_sfm.drawn_world import textures
from gim_sfm.drawn_world.cameras import UP, Pose
from gim_sfm.drawn_world.surfaces import Cylinder, Rectangle, Sphere, Surface, Vector
from gim_sfm.drawn_world.textures import Texture

HALF_WIDTH = 11.0
"""The facades stand this far from the middle, metres."""

FINE, MIDDLE, COARSE = 230.0, 150.0, 100.0
"""Texels per metre of what is near, halfway and far."""

SUN_DIRECTION = np.array([0.52, -0.38, 0.76])


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands still.

    Attributes:
        surfaces: All of it.
        sun_from_world: Frame with z along the sunlight.
    """

    surfaces: tuple[Surface, ...]
    sun_from_world: Pose


@lru_cache(maxsize=1)
def courtyard(seed: int = 0) -> Scene:
    """The drawn world's place. Metres, z up, the ground at 0, the monument in the middle."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    surfaces: list[Surface] = [_ground(rng)]
    for side in range(4):
        surfaces += _facade(rng, side)
    surfaces += _arcade(rng)
    surfaces += _monument(rng)
    surfaces += _clutter(rng)
    return Scene(tuple(surfaces), _sun_frame())


def _sun_frame() -> Pose:
    ahead = -SUN_DIRECTION / np.linalg.norm(SUN_DIRECTION)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.concatenate([np.stack([right, np.cross(ahead, right), ahead]), [[0.0], [0.0], [40.0]]], axis=1)


def _shape(width: float, height: float, density: float) -> tuple[int, int]:
    """(rows, columns) of a texture for a face of that many metres."""
    return max(16, round(height * density)), max(16, round(width * density))


def _ground(rng: np.random.Generator) -> Rectangle:
    side = 2 * HALF_WIDTH
    texture = textures.masonry(
        rng, _shape(side, side, COARSE), textures.GRANITE, block=(0.34 * COARSE, 0.26 * COARSE), waviness=0.3
    )
    textures.ring_ornament(rng, texture, [radius * COARSE for radius in (2.2, 2.6, 3.3, 3.5, 4.6, 4.8)])
    return Rectangle(
        corner=np.array([-HALF_WIDTH, HALF_WIDTH, 0.0]),
        right=np.array([side, 0.0, 0.0]),
        down=np.array([0.0, -side, 0.0]),
        texture=texture,
    )


def _facade(rng: np.random.Generator, side: int) -> list[Surface]:
    """One wall of the courtyard; `side` counts quarter turns from the far wall."""
    width, height = 2 * HALF_WIDTH, 5.6 + 0.5 * side
    shape = _shape(width, height, COARSE)
    wall = (
        textures.masonry(rng, shape, textures.SANDSTONE, block=(0.9 * COARSE, 0.42 * COARSE), waviness=0.02),
        textures.plaster(rng, shape, textures.CREAM),
        textures.masonry(rng, shape, textures.BRICK, block=(0.42 * COARSE, 0.16 * COARSE), waviness=0.04),
        textures.masonry(rng, shape, textures.GRANITE, block=(0.7 * COARSE, 0.5 * COARSE), waviness=0.22),
    )[side]
    for place in np.linspace(0.03, 0.97, 7):
        sheet = textures.poster(rng, _shape(rng.uniform(0.8, 1.5), rng.uniform(1.0, 1.7), COARSE))
        textures.paste(wall, sheet, (place, rng.uniform(0.72, 0.9)))
    back = Rectangle(
        corner=np.array([-HALF_WIDTH, HALF_WIDTH, height]),
        right=np.array([width, 0.0, 0.0]),
        down=np.array([0.0, 0.0, -height]),
        texture=wall,
    )
    surfaces: list[Surface] = [back]
    for x in np.linspace(-HALF_WIDTH + 2.2, HALF_WIDTH - 2.2, 6):
        for z in (2.3, 4.2):
            low = (x - rng.uniform(0.5, 0.75), HALF_WIDTH - rng.uniform(0.1, 0.3), z)
            high = (x + rng.uniform(0.5, 0.75), HALF_WIDTH, z + rng.uniform(1.1, 1.4))
            surfaces += _box(rng, low, high, density=MIDDLE, kind="window", faces=ON_FACADE)
    for x in np.linspace(-HALF_WIDTH + 0.4, HALF_WIDTH - 0.4, 7):
        low, high = (x - 0.25, HALF_WIDTH - 0.35, 0.0), (x + 0.25, HALF_WIDTH, height)
        surfaces += _box(rng, low, high, density=COARSE, kind="stone", faces=ON_FACADE)
    low, high = (-HALF_WIDTH, HALF_WIDTH - 0.55, height - 0.3), (HALF_WIDTH, HALF_WIDTH, height)
    surfaces += _box(rng, low, high, density=COARSE, kind="stone", faces=((1, -1),))
    return [_turned(surface, side) for surface in surfaces]


def _turned(surface: Surface, quarters: int) -> Surface:
    """A rectangle turned about the courtyard's middle."""
    assert isinstance(surface, Rectangle)
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return Rectangle(turn @ surface.corner, turn @ surface.right, turn @ surface.down, surface.texture)


def _paint(rng: np.random.Generator, shape: tuple[int, int], density: float, kind: str) -> Texture:
    """A texture of a kind; `mixed` picks one."""
    if kind == "mixed":
        kind = str(rng.choice(["poster", "wood", "mosaic", "brick"], p=[0.5, 0.2, 0.15, 0.15]))
    if kind == "window":
        return textures.window(rng, shape)
    if kind == "poster":
        return textures.poster(rng, shape)
    if kind == "wood":
        return textures.planks(rng, shape, textures.OAK, 0.14 * density)
    if kind == "mosaic":
        return textures.mosaic(rng, shape, 0.035 * density)
    if kind == "brick":
        return textures.masonry(
            rng, shape, textures.BRICK, block=(0.24 * density, 0.1 * density), waviness=0.05
        )
    return textures.masonry(
        rng, shape, textures.SANDSTONE, block=(0.5 * density, 0.3 * density), waviness=0.05
    )


ALL_SIDES = ((0, 1), (0, -1), (1, 1), (1, -1), (2, 1))
"""Faces of a box that can be seen: the axis and the sign of its outward direction."""

ON_FACADE = ((0, 1), (0, -1), (1, -1), (2, 1))
"""The same for a box against the far wall."""


def _box(
    rng: np.random.Generator,
    low: Iterable[float],
    high: Iterable[float],
    *,
    density: float,
    kind: str,
    turn_degrees: float = 0.0,
    faces: Iterable[tuple[int, int]] = ALL_SIDES,
) -> list[Surface]:
    """Sides and top of a box, turned about its own upright axis; each face has a texture of its own."""
    low, high = np.array(list(low)), np.array(list(high))
    middle, half = (low + high) / 2, (high - low) / 2
    angle = np.radians(turn_degrees)
    axes = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    return [_box_face(rng, middle, half, axes=axes, face=face, density=density, kind=kind) for face in faces]


def _box_face(
    rng: np.random.Generator,
    middle: Vector,
    half: Vector,
    *,
    axes: Float64[np.ndarray, "3 3"],
    face: tuple[int, int],
    density: float,
    kind: str,
) -> Rectangle:
    axis, sign = face
    front = sign * axes[axis]
    down = -axes[2] if axis != 2 else -axes[1]
    right = np.cross(front, down)
    extent_right = 2 * float(np.abs(axes @ right) @ half)
    extent_down = 2 * float(np.abs(axes @ down) @ half)
    corner = middle + front * half[axis] - right * extent_right / 2 - down * extent_down / 2
    texture = _paint(rng, _shape(extent_right, extent_down, density), density, kind)
    return Rectangle(corner, right * extent_right, down * extent_down, texture)


def _arcade(rng: np.random.Generator) -> list[Surface]:
    """Free-standing columns with capitals before the facades."""
    surfaces: list[Surface] = []
    for angle in np.radians(np.arange(15, 375, 45)):
        foot = np.array([9.4 * np.cos(angle), 9.4 * np.sin(angle), 0.0])
        shape = _shape(2 * np.pi * 0.3, 3.6, MIDDLE)
        colour = tuple(np.array(textures.CREAM) * rng.uniform(0.7, 1.05, 3))
        surfaces.append(
            Cylinder(foot, 0.3, 3.6, textures.marble(rng, shape, (colour[0], colour[1], colour[2])))
        )
        for bottom, top, half in ((0.0, 0.3, 0.42), (3.6, 3.95, 0.45)):
            low, high = np.array([-half, -half, bottom]), np.array([half, half, top])
            surfaces += _box(
                rng, foot + low, foot + high, density=MIDDLE, kind="mosaic", turn_degrees=np.degrees(angle)
            )
    return surfaces


def _monument(rng: np.random.Generator) -> list[Surface]:
    surfaces = _box(rng, (-1.5, -1.5, 0), (1.5, 1.5, 0.32), density=FINE, kind="stone", turn_degrees=12)
    surfaces += _box(
        rng, (-1.05, -1.05, 0.32), (1.05, 1.05, 0.6), density=FINE, kind="mosaic", turn_degrees=12
    )
    surfaces += _box(
        rng, (-0.72, -0.72, 0.6), (0.72, 0.72, 1.75), density=FINE, kind="poster", turn_degrees=12
    )
    surfaces += _box(
        rng, (-0.82, -0.82, 1.75), (0.82, 0.82, 1.9), density=FINE, kind="stone", turn_degrees=12
    )
    drum = textures.mosaic(rng, _shape(2 * np.pi * 0.42, 0.8, FINE), 0.05 * FINE)
    surfaces.append(Cylinder(np.array([0, 0, 1.9]), 0.42, 0.8, drum))
    ball = textures.marble(rng, _shape(2 * np.pi * 0.6, np.pi * 0.6, FINE), (176, 150, 120))
    surfaces.append(Sphere(np.array([0, 0, 3.15]), 0.6, ball))
    return surfaces


def _clutter(rng: np.random.Generator) -> list[Surface]:
    """Crates, advertising columns and balls round the monument, none touching another."""
    surfaces: list[Surface] = []
    slots = np.radians(np.arange(11) * 360 / 11 + rng.uniform(0, 360))
    for index, angle in enumerate(slots):
        distance = rng.uniform(2.3, 3.9)
        middle = np.array([distance * np.cos(angle), distance * np.sin(angle), 0.0])
        if index % 4 == 1:
            height = rng.uniform(1.3, 2.1)
            sheet = textures.poster(rng, _shape(2 * np.pi * 0.36, height, FINE))
            surfaces.append(Cylinder(middle, 0.36, height, sheet))
            surfaces.append(_lid(rng, middle + height * UP, 0.36))
        elif index % 4 == 3:
            radius = rng.uniform(0.35, 0.5)
            shape = _shape(2 * np.pi * radius, np.pi * radius, FINE)
            surfaces.append(Sphere(middle + radius * UP, radius, textures.mosaic(rng, shape, 0.06 * FINE)))
        else:
            surfaces += crate(rng, middle)
    return surfaces


def _lid(rng: np.random.Generator, centre: Vector, radius: float) -> Sphere:
    """A dome that closes an advertising column."""
    texture = textures.marble(rng, _shape(2 * np.pi * radius, np.pi * radius, FINE), (120, 150, 130))
    return Sphere(centre, radius, texture)


def crate(rng: np.random.Generator, middle: Vector) -> list[Surface]:
    """A box of pictures and boards, sometimes with a smaller one on top, at a place on the ground."""
    half = np.array([*rng.uniform(0.32, 0.55, 2), 0.0])
    height = rng.uniform(0.7, 1.2)
    turn = rng.uniform(0, 90)
    surfaces = _box(
        rng, middle - half, middle + half + height * UP, density=FINE, kind="mixed", turn_degrees=turn
    )
    if rng.random() < 0.45:
        small, top = half * 0.6, height + rng.uniform(0.35, 0.6)
        low, high = middle - small + height * UP, middle + small + top * UP
        surfaces += _box(rng, low, high, density=FINE, kind="mixed", turn_degrees=turn + rng.uniform(15, 75))
    return surfaces
