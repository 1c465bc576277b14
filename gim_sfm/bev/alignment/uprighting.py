"""Which way is up in a model of photos: from how the cameras were held, or from the plane they look down on.

People hold cameras level, landscape or portrait, and tilt them up and down far more than to the side. The
vertical is therefore what stands at right angles to all level axes of the images, and nearly so to the lines
of sight. Where no direction is like that for most cameras, as with a drone looking straight down, it is the
normal of the plane that holds most points, on the side of the cameras.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from gim_sfm.errors import InputError

ROLL, PITCH = 2.0, 15.0
"""Standard deviations in degrees of how far cameras are turned to the side and up or down."""

MOST_ROLL, MOST_PITCH = 10.0, 60.0
"""Degrees beyond which a camera does not agree with a direction."""

MOST_AGREEING = 0.6
"""Share of the cameras that must agree for their word to be taken."""

STEEP = 20.0
"""Degrees of pitch, at the median, from which cameras are taken to look down rather than up."""

SAMPLES = 400
ROUNDS = 10
FEWEST_POINTS = 20
NEAR_PLANE = 1 / 100
"""Distance from the plane, in extents of the points, within which one belongs to it."""

Direction = Float64[np.ndarray, " 3"]
Directions = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True, slots=True, eq=False)
class Up:
    """Which way is up.

    Attributes:
        direction: Unit vector.
        found_by: `cameras` or `plane`.
        agreeing: Share of the cameras that agree, or of the points on the plane.
    """

    direction: Direction
    found_by: Literal["cameras", "plane"]
    agreeing: float

    @property
    def upright_from_model(self) -> Float64[np.ndarray, "4 4"]:
        """The turn by the shortest way that makes `direction` the z axis."""
        moved = np.eye(4)
        moved[:3, :3] = _turn_upright(self.direction)
        return moved


def find_up(cam_from_world: Float64[np.ndarray, "n 3 4"], points: Float64[np.ndarray, "m 3"]) -> Up:
    """Finds the vertical of a model.

    Args:
        cam_from_world: Of all cameras, x right, y down in the image, z the line of sight.
        points: Of the model.

    Raises:
        InputError: The cameras disagree, and the points lie on no plane that all cameras are on one side of.
    """
    rotations = np.asarray(cam_from_world[:, :, :3], np.float64)
    centres = -np.einsum("nji,nj->ni", rotations, cam_from_world[:, :, 3])
    direction = _vertical(rotations)
    agrees = _agreeing(rotations, direction)
    if agrees.mean() >= MOST_AGREEING:
        sign = _sign(rotations[agrees], direction, centres, points)
        return Up(sign * direction, "cameras", float(agrees.mean()))
    return _up_of_plane(centres, points)


def _vertical(rotations: Float64[np.ndarray, "n 3 3"]) -> Direction:
    """The line, of no sign yet, that most cameras stand upright or lie on their side along."""
    random = np.random.default_rng(0)
    axes = rotations[:, :2].reshape(-1, 3)
    pairs = axes[random.integers(0, len(axes), (SAMPLES, 2))]
    crossed = np.cross(pairs[:, 0], pairs[:, 1])
    lengths = np.linalg.norm(crossed, axis=1)
    tried = np.concatenate([axes, crossed[lengths > 0.2] / lengths[lengths > 0.2, None]])
    direction = min(tried, key=lambda each: float(_cost(rotations, each)[0].sum()))
    for _ in range(ROUNDS):
        cost, held = _cost(rotations, direction)
        level = rotations[np.arange(len(rotations)), held]
        weights = 1 / (1 + cost) ** 2
        moments = (level * (weights / ROLL**2)[:, None]).T @ level
        moments += (rotations[:, 2] * (weights / PITCH**2)[:, None]).T @ rotations[:, 2]
        direction = np.linalg.eigh(moments)[1][:, 0]
    return np.asarray(direction)


def _cost(
    rotations: Float64[np.ndarray, "n 3 3"], direction: Direction
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Squared deviations of each camera, at most 18, and which of its axes is level: 0 for x, 1 for y."""
    roll, pitch = _angles(rotations, direction)
    held = np.abs(roll).argmin(axis=1)
    least = np.abs(roll).min(axis=1)
    cost = np.minimum((least / ROLL) ** 2, 9) + np.minimum((pitch / PITCH) ** 2, 9)
    return cost, held


def _angles(
    rotations: Float64[np.ndarray, "n 3 3"], direction: Direction
) -> tuple[Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """Degrees of the images' axes x and y, and of the line of sight, over the horizon."""
    heights = np.degrees(np.arcsin(np.clip(rotations @ direction, -1, 1)))
    return heights[:, :2], heights[:, 2]


def _agreeing(rotations: Float64[np.ndarray, "n 3 3"], direction: Direction) -> np.ndarray:
    roll, pitch = _angles(rotations, direction)
    return np.asarray((np.abs(roll).min(axis=1) < MOST_ROLL) & (np.abs(pitch) < MOST_PITCH))


def _sign(
    rotations: Float64[np.ndarray, "n 3 3"], direction: Direction, centres: Directions, points: Directions
) -> float:
    """1 where up is along the direction, else -1; of portraits nobody knows which side was up."""
    roll, pitch = _angles(rotations, direction)
    landscape = np.abs(roll[:, 0]) < np.abs(roll[:, 1])
    if 2 * landscape.sum() >= len(rotations):
        return 1.0 if np.median(roll[landscape, 1]) < 0 else -1.0
    if abs(np.median(pitch)) > STEEP:
        return 1.0 if np.median(pitch) < 0 else -1.0
    low, high = np.percentile(points @ direction, [2, 98])
    stand = float(np.median(centres @ direction))
    return 1.0 if high - stand > stand - low else -1.0


def _up_of_plane(centres: Directions, points: Directions) -> Up:
    """The normal of the plane with most points that has the cameras on one side."""
    if len(points) < FEWEST_POINTS:
        raise _no_up(0.0)
    random = np.random.default_rng(0)
    middle = np.median(points, axis=0)
    near = NEAR_PLANE * 2 * float(np.percentile(np.linalg.norm(points - middle, axis=1), 85))
    corners = points[random.integers(0, len(points), (SAMPLES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    kept = lengths > 0
    normals = normals[kept] / lengths[kept, None]
    offsets = np.sum(normals * corners[kept, 0], axis=1)
    sides = (centres @ normals.T - offsets > 0).mean(axis=0)
    counts = (np.abs(points @ normals.T - offsets) < near).sum(axis=0)
    counts = np.where(np.abs(sides - 0.5) > 0.45, counts, 0)
    best = int(counts.argmax())
    share = float(counts[best] / len(points))
    if share < 0.2:
        raise _no_up(share)
    own = points[np.abs(points @ normals[best] - offsets[best]) < near]
    normal = np.linalg.eigh(np.cov(own.T))[1][:, 0]
    towards = normal @ (np.median(centres, axis=0) - own.mean(axis=0))
    return Up(normal * np.sign(towards), "plane", share)


def _no_up(share: float) -> InputError:
    return InputError(
        "Which way is up in the model is not clear: its cameras are not held alike, and the plane with most "
        f"points, the cameras on one side, holds only {100 * share:.0f} % of them.",
        remedy="Turn the model upright first (colmap model_orientation_aligner), or add photos held level.",
    )


def _turn_upright(direction: Direction) -> Float64[np.ndarray, "3 3"]:
    up = np.array([0.0, 0, 1])
    if direction @ up < -1 + 1e-9:
        return np.diag([1.0, -1, -1])
    axis = np.cross(direction, up)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.asarray(np.eye(3) + cross + cross @ cross / (1 + direction @ up))
