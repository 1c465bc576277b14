"""What a drawn world is made of: textured rectangles, balls and upright cylinders, and rays to meet them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from gim_sfm.drawn_world.textures import Texture

NEAR = 0.05
"""Nothing nearer than this (metres) is hit."""

Field = Float32[np.ndarray, "*grid"]
Vector = Float64[np.ndarray, " 3"]


@dataclass(frozen=True, slots=True)
class Rays:
    """Origins and directions by component; a component that is the same for all rays is a plain number.

    Cameras have origin 0 and directions (x, y, 1), so that the distance along a ray is the depth; the sun has
    origins (x, y, 0) and the direction (0, 0, 1).
    """

    origin: tuple[Field | float, Field | float, Field | float]
    direction: tuple[Field | float, Field | float, Field | float]

    def window(self, rows: slice, columns: slice) -> "Rays":
        """The rays of a part of the grid."""

        def cut(part: Field | float) -> Field | float:
            return part if isinstance(part, float) else part[rows, columns]

        return Rays(
            (cut(self.origin[0]), cut(self.origin[1]), cut(self.origin[2])),
            (cut(self.direction[0]), cut(self.direction[1]), cut(self.direction[2])),
        )


@dataclass(frozen=True, slots=True)
class Hit:
    """Where rays meet one surface: distance along the ray, infinite for a miss; place in the texture."""

    distance: Field
    u: Field
    v: Field


def _dot(vector: Vector, parts: Sequence[Field | float]) -> Field:
    x, y, z = (np.float32(value) for value in vector)
    return np.asarray(parts[0] * x + parts[1] * y + parts[2] * z, np.float32)


def _inner(first: Sequence[Field | float], second: Sequence[Field | float]) -> Field:
    return np.asarray(first[0] * second[0] + first[1] * second[1] + first[2] * second[2], np.float32)


def _moved(parts: Sequence[Field | float], by: Vector) -> list[Field]:
    return [
        np.asarray(part - value, np.float32) for part, value in zip(parts, by.astype(np.float32), strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A flat, one-sided surface.

    Attributes:
        corner: Where the texture begins (top left as seen from the front), metres.
        right: Edge along the texture's rows, metres.
        down: Edge along the texture's columns, metres; down x right points to the front.
        texture: Its colours.
    """

    corner: Vector
    right: Vector
    down: Vector
    texture: Texture

    @property
    def texels_per_metre(self) -> float:
        """How fine the texture is."""
        return float(self.texture.shape[1] / np.linalg.norm(self.right))

    def outline(self) -> Float64[np.ndarray, "n 3"]:
        """Points on it, the corners and edges among them, between which it is all but straight."""
        steps = np.linspace(0, 1, 5)
        return np.array([self.corner + a * self.right + b * self.down for a in steps for b in steps])

    def faces(self, place: Vector) -> bool:
        """Whether any of it can be seen from a place."""
        return bool(np.cross(self.down, self.right) @ (place - self.corner) > 0)

    def normals(
        self,
        u: Float[np.ndarray, " n"],  # noqa: ARG002
        v: Float[np.ndarray, " n"],  # noqa: ARG002
    ) -> Float32[np.ndarray, "k 3"]:
        """Outward directions in the world; one row for all places."""
        normal = np.cross(self.down, self.right)
        return np.asarray(normal / np.linalg.norm(normal), np.float32)[None]

    def intersect(self, rays: Rays, rotation: Float64[np.ndarray, "3 3"], shift: Vector) -> Hit:
        """Where rays given in a frame meet it; frame_from_world is (rotation, shift)."""
        corner = rotation @ self.corner + shift
        right, down = rotation @ self.right, rotation @ self.down
        normal = np.cross(down, right)
        along, across = right / (right @ right), down / (down @ down)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            facing = _dot(normal, rays.direction)
            start = _moved(rays.origin, corner)
            distance: Field = -_dot(normal, start) / facing
            u: Field = _dot(along, start) + distance * _dot(along, rays.direction)
            v: Field = _dot(across, start) + distance * _dot(across, rays.direction)
            inside = (np.abs(u - 0.5) <= 0.5) & (np.abs(v - 0.5) <= 0.5) & (distance > NEAR) & (facing < 0)
        return Hit(np.where(inside, distance, np.float32(np.inf)), u, v)


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball; the texture's columns are its longitudes, its rows the latitudes from the top down."""

    centre: Vector
    radius: float
    texture: Texture

    @property
    def texels_per_metre(self) -> float:
        """How fine the texture is at the equator."""
        return float(self.texture.shape[1] / (2 * np.pi * self.radius))

    def outline(self) -> Float64[np.ndarray, "n 3"]:
        """Corners of its bounding box."""
        return np.asarray(self.centre + self.radius * _cube_corners(), np.float64)

    def faces(self, place: Vector) -> bool:
        """Whether any of it can be seen from a place."""
        return bool(np.linalg.norm(place - self.centre) > self.radius)

    def normals(self, u: Float[np.ndarray, " n"], v: Float[np.ndarray, " n"]) -> Float32[np.ndarray, "n 3"]:
        """Outward directions in the world."""
        longitude, polar = u * np.float32(2 * np.pi), v * np.float32(np.pi)
        ring = np.sin(polar)
        return np.stack([ring * np.cos(longitude), ring * np.sin(longitude), np.cos(polar)], -1)

    def intersect(self, rays: Rays, rotation: Float64[np.ndarray, "3 3"], shift: Vector) -> Hit:
        """Where rays given in a frame meet it first; frame_from_world is (rotation, shift)."""
        centre = rotation @ self.centre + shift
        offset = _moved(rays.origin, centre)
        distance = _first_root(
            _inner(rays.direction, rays.direction),
            _inner(offset, rays.direction),
            _inner(offset, offset) - np.float32(self.radius**2),
        )
        with np.errstate(invalid="ignore"):
            place = [a + distance * b for a, b in zip(offset, rays.direction, strict=True)]
            x, y, z = (_dot(row, place) for row in rotation.T)
            u = np.arctan2(y, x) / np.float32(2 * np.pi) % 1.0
            v = np.arccos(np.clip(z / np.float32(self.radius), -1, 1)) / np.float32(np.pi)
        return Hit(distance, u, v)


@dataclass(frozen=True, slots=True)
class Cylinder:
    """An upright round wall without lids; `foot` is the middle of its base."""

    foot: Vector
    radius: float
    height: float
    texture: Texture

    @property
    def texels_per_metre(self) -> float:
        """How fine the texture is."""
        return float(self.texture.shape[1] / (2 * np.pi * self.radius))

    def outline(self) -> Float64[np.ndarray, "n 3"]:
        """Corners of its bounding box."""
        half = np.array([self.radius, self.radius, self.height / 2])
        return np.asarray(self.foot + [0, 0, self.height / 2] + half * _cube_corners(), np.float64)

    def faces(self, place: Vector) -> bool:
        """Whether any of it can be seen from a place."""
        return bool(np.linalg.norm((place - self.foot)[:2]) > self.radius)

    def normals(
        self,
        u: Float[np.ndarray, " n"],
        v: Float[np.ndarray, " n"],  # noqa: ARG002
    ) -> Float32[np.ndarray, "n 3"]:
        """Outward directions in the world."""
        longitude = u * np.float32(2 * np.pi)
        return np.stack([np.cos(longitude), np.sin(longitude), np.zeros_like(u)], -1)

    def intersect(self, rays: Rays, rotation: Float64[np.ndarray, "3 3"], shift: Vector) -> Hit:
        """Where rays given in a frame meet its outside; frame_from_world is (rotation, shift)."""
        foot = rotation @ self.foot + shift
        offset = _moved(rays.origin, foot)
        start = [_dot(row, offset) for row in rotation.T]
        course = [_dot(row, rays.direction) for row in rotation.T]
        distance = _first_root(
            course[0] * course[0] + course[1] * course[1],
            start[0] * course[0] + start[1] * course[1],
            start[0] * start[0] + start[1] * start[1] - np.float32(self.radius**2),
        )
        with np.errstate(invalid="ignore"):
            x, y, z = (a + distance * b for a, b in zip(start, course, strict=True))
            v = 1 - z / np.float32(self.height)
            distance = np.where(np.abs(v - 0.5) <= 0.5, distance, np.float32(np.inf))
            u = np.arctan2(y, x) / np.float32(2 * np.pi) % 1.0
        return Hit(distance, u, v)


Surface = Rectangle | Sphere | Cylinder


def _cube_corners() -> Float64[np.ndarray, "8 3"]:
    return np.stack(np.meshgrid([-1.0, 1.0], [-1.0, 1.0], [-1.0, 1.0]), -1).reshape(-1, 3)


def _first_root(squared: Field, half: Field, rest: Field) -> Field:
    """Smaller root of squared t^2 + 2 half t + rest, infinite where there is none ahead."""
    with np.errstate(invalid="ignore"):
        root = (-half - np.sqrt(half * half - squared * rest)) / squared
        return np.asarray(np.where(root > NEAR, root, np.float32(np.inf)), np.float32)
