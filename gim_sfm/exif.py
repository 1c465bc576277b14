"""What EXIF tags say of camera and place; tags that are damaged or absurd say nothing."""

import math
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags

_FULL_FRAME_DIAGONAL_MM = math.hypot(36.0, 24.0)
_MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


def focal_pixels(tags: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    """The focal length in pixels of a photo of this (width, height); None where EXIF does not determine it.

    The 35 mm equivalent is taken over the diagonal of the film; without one, the sensor's resolution serves.
    """
    equivalent = _positive(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    focal = (
        equivalent * math.hypot(*size) / _FULL_FRAME_DIAGONAL_MM if equivalent else _from_sensor(tags, size)
    )
    # Some programs write nonsense; no lens of a photo camera is wider or longer than this.
    return focal if focal and 0.1 <= focal / max(size) <= 50 else None


def camera_key(tags: Mapping[int, Any], size: tuple[int, int]) -> str:
    """Make, model, focal length and size, of which EXIF may leave all but the size empty."""
    make, model = (_text(tags.get(tag)) for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    lens = _positive(tags.get(ExifTags.Base.FocalLength))
    focal = lens or _positive(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    return f"{make}|{model}|{f'{focal:g}mm' if focal else ''}|{size[0]}x{size[1]}"


def position(gps: Mapping[int, Any]) -> tuple[float, float, float | None] | None:
    """(latitude, longitude, altitude or None) in degrees and metres from the GPS tags; None without a fix."""
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef), "W")
    if latitude is None or longitude is None or abs(latitude) > 90 or abs(longitude) > 180:
        return None
    if latitude == 0 and longitude == 0:  # what devices write while they have no fix
        return None
    return latitude, longitude, _altitude(gps)


def _from_sensor(tags: Mapping[int, Any], size: tuple[int, int]) -> float | None:
    focal_mm = _positive(tags.get(ExifTags.Base.FocalLength))
    resolution = _positive(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit_mm = _MM_PER_RESOLUTION_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if not (focal_mm and resolution and unit_mm):
        return None
    width = _positive(tags.get(ExifTags.Base.ExifImageWidth)) or 0.0
    height = _positive(tags.get(ExifTags.Base.ExifImageHeight)) or 0.0
    shrunk_since_taken = max(size) / max(width, height) if width and height else 1.0
    return focal_mm * resolution / unit_mm * shrunk_since_taken


def _degrees(parts: Any, reference: object, negative: str) -> float | None:
    numbers = [_number(part) for part in parts] if isinstance(parts, tuple) else []
    if len(numbers) != 3 or None in numbers:
        return None
    degrees, minutes, seconds = (number or 0.0 for number in numbers)
    angle = degrees + minutes / 60 + seconds / 3600
    return -angle if _text(reference).upper() == negative else angle


def _altitude(gps: Mapping[int, Any]) -> float | None:
    metres = _number(gps.get(ExifTags.GPS.GPSAltitude))
    below_sea = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    return -metres if metres is not None and below_sea else metres


def _text(value: object) -> str:
    return str(value).strip("\0 ").replace("|", "/") if value else ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None
