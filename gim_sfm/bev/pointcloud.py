"""Point clouds in metres, light enough for ten million points and exact enough for survey coordinates."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Num

ORIGIN_STEP = 1000.0
"""Metres that origins are multiples of; beside it float32 keeps 0.03 mm, and sensor frames keep theirs."""

_SAMPLE = 100_000


def no_intensity() -> Float32[np.ndarray, "0"]:
    """The intensities of a cloud that has none."""
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """Points of a scan, a map or a model.

    Attributes:
        points: (x, y, z) in metres, relative to the origin.
        origin: What to add to them, in metres.
        intensity: In the unit of the file it came from; of length 0 where the file has none.
    """

    points: Float32[np.ndarray, "n 3"]
    origin: Float64[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3))
    intensity: Float32[np.ndarray, " k"] = field(default_factory=no_intensity)

    @classmethod
    def of(
        cls, coordinates: Num[np.ndarray, "n 3"], intensity: Num[np.ndarray, " k"] | None = None
    ) -> "PointCloud":
        """The cloud of these coordinates, in float32 about an origin in their middle.

        The origin is their median, rounded to `ORIGIN_STEP`: zero for scans in a sensor's frame.

        Args:
            coordinates: (x, y, z) in metres; points that are not finite may be among them.
            intensity: One value a point, if there are any.
        """
        origin = _rounded_middle(coordinates)
        with np.errstate(over="ignore", invalid="ignore"):
            shifted = coordinates - origin if origin.any() else coordinates
            points = np.ascontiguousarray(shifted, np.float32)
        values = no_intensity() if intensity is None else np.ascontiguousarray(intensity, np.float32)
        return cls(points, origin, values)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def coordinates(self) -> Float64[np.ndarray, "n 3"]:
        """The points with the origin added, in metres."""
        shifted: Float64[np.ndarray, "n 3"] = self.points + self.origin
        return shifted

    def select(self, kept: Bool[np.ndarray, " n"] | Int[np.ndarray, " m"]) -> "PointCloud":
        """The points at these indices or where this mask is true."""
        intensity = self.intensity[kept] if self.intensity.size else self.intensity
        return PointCloud(self.points[kept], self.origin, intensity)

    def moved(self, target_from_source: Float[np.ndarray, "4 4"]) -> "PointCloud":
        """The cloud in another frame.

        The origin moves along, in float64, so that points lose nothing however far the frames lie apart.

        Args:
            target_from_source: A rigid or similarity transform, metres.
        """
        linear = np.asarray(target_from_source, np.float64)[:3, :3]
        shift = np.asarray(target_from_source, np.float64)[:3, 3]
        with np.errstate(over="ignore", invalid="ignore"):
            points = (self.points @ linear.T).astype(np.float32)
        return PointCloud(points, linear @ self.origin + shift, self.intensity)


def _rounded_middle(coordinates: Num[np.ndarray, "n 3"]) -> Float64[np.ndarray, "3"]:
    spread = coordinates[:: len(coordinates) // _SAMPLE + 1]
    for rows in (spread, coordinates):
        finite = rows[np.isfinite(rows).all(axis=1)]
        if len(finite):
            middle = np.median(finite.astype(np.float64), axis=0)
            return np.asarray(ORIGIN_STEP * np.round(middle / ORIGIN_STEP) + 0.0)
    return np.zeros(3)
