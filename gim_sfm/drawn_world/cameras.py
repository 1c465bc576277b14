"""Cameras of a drawn world, and the paths they take."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

Pose = Float64[np.ndarray, "3 4"]

UP = np.array([0.0, 0.0, 1.0])
UNDISTORTION_STEPS = 12


@dataclass(frozen=True, slots=True)
class DrawnCamera:
    """A pinhole with radial distortion, as COLMAP's RADIAL model has it.

    Attributes:
        size: (width, height) in pixels.
        focal: In pixels, the same in x and y.
        principal_point: (x, y) in pixels, first pixel's centre at (0, 0).
        distortion: k1, k2: a ray (x, y, 1) lands at (1 + k1 r^2 + k2 r^4) (x, y) times the focal length.
    """

    size: tuple[int, int]
    focal: float
    principal_point: tuple[float, float]
    distortion: tuple[float, float] = (0.0, 0.0)

    @property
    def intrinsics(self) -> Float64[np.ndarray, "3 3"]:
        """The pinhole matrix K; it leaves the distortion out."""
        x, y = self.principal_point
        return np.array([[self.focal, 0.0, x], [0.0, self.focal, y], [0.0, 0.0, 1.0]])

    def project(self, points: Float[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 2"]:
        """Pixels of points in the camera's frame that lie before it (z > 0)."""
        ideal: Float64[np.ndarray, "*batch 2"] = np.asarray(points[..., :2] / points[..., 2:], np.float64)
        squared = np.sum(ideal**2, axis=-1, keepdims=True)
        factor = 1.0 + self.distortion[0] * squared + self.distortion[1] * squared**2
        return np.asarray(ideal * factor * self.focal + self.principal_point, np.float64)

    def rays(self, samples: int = 1) -> Float32[np.ndarray, "height width 2"]:
        """(x, y) of the ray (x, y, 1) through every pixel's centre, or samples x samples of them a pixel."""
        width, height = self.size
        inside = (np.arange(samples) + 0.5) / samples - 0.5
        columns = (np.arange(width)[:, None] + inside).ravel() - self.principal_point[0]
        rows = (np.arange(height)[:, None] + inside).ravel() - self.principal_point[1]
        bent = np.empty((len(rows), len(columns), 2), np.float32)
        bent[..., 0] = columns / self.focal
        bent[..., 1] = rows[:, None] / self.focal
        return self._straighten(bent) if any(self.distortion) else bent

    def _straighten(self, bent: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w 2"]:
        """Undoes the distortion by Newton's method on the radius."""
        bent_radius = np.linalg.norm(bent, axis=-1)
        radius = bent_radius.copy()
        k1, k2 = (np.float32(value) for value in self.distortion)
        for _ in range(UNDISTORTION_STEPS):
            squared = radius * radius
            excess = radius * (1 + k1 * squared + k2 * squared * squared) - bent_radius
            radius -= excess / (1 + 3 * k1 * squared + 5 * k2 * squared * squared)
        ratio = np.divide(radius, bent_radius, out=np.ones_like(radius), where=bent_radius > 0)
        return np.asarray(bent * ratio[..., None], np.float32)


def central_camera(
    size: tuple[int, int],
    *,
    focal: float | None = None,
    principal_offset: tuple[float, float] = (0.0, 0.0),
    distortion: tuple[float, float] = (0.0, 0.0),
) -> DrawnCamera:
    """A camera whose principal point is the image's middle, plus an offset in pixels.

    Its focal length is, unless given, that of a 30 mm lens on film of 36 mm width.
    """
    middle = ((size[0] - 1) / 2, (size[1] - 1) / 2)
    return DrawnCamera(
        size=size,
        focal=max(size) * 30 / 36 if focal is None else focal,
        principal_point=(middle[0] + principal_offset[0], middle[1] + principal_offset[1]),
        distortion=distortion,
    )


def look_at(
    centre: Float64[np.ndarray, " 3"], target: Float64[np.ndarray, " 3"], roll_degrees: float = 0.0
) -> Pose:
    """cam_from_world of a camera (x right, y down, z ahead) that looks at a point; the world's z is up."""
    ahead = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(ahead, UP)
    right /= np.linalg.norm(right)
    level = np.stack([right, np.cross(ahead, right), ahead])
    roll = np.radians(roll_degrees)
    turn = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    rotation = turn @ level
    return np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1)


def orbit(
    count: int, rng: np.random.Generator, *, radius: float = 7.0, arc_degrees: float = 150.0
) -> list[Pose]:
    """Hand-held photos along an arc round the middle; height, distance, aim and roll vary.

    Args:
        count: How many.
        rng: Where the variation comes from.
        radius: Mean distance from the middle, metres.
        arc_degrees: Angle between the first and the last; from 360 on the photos close a circle.
    """
    closed = arc_degrees >= 360
    angles = np.radians(np.linspace(-arc_degrees / 2, arc_degrees / 2, count, endpoint=not closed) - 90)
    poses = []
    for index, angle in enumerate(angles):
        height = (1.5, 2.5, 1.9)[index % 3] + rng.uniform(-0.2, 0.2)
        distance = radius + rng.uniform(-0.5, 0.5)
        centre = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        target = np.array([*rng.uniform(-0.5, 0.5, 2), 1.6 + rng.uniform(-0.15, 0.15)])
        poses.append(look_at(centre, target, rng.uniform(-2, 2)))
    return poses
