"""What is known of a query's camera: the person's word, the map's cameras, EXIF, in this order."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pycolmap

from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder, PhotoHeader, read_header
from gim_sfm.sfm.cameras import NO_EXIF
from gim_sfm.sfm.colmap import make_camera
from gim_sfm.sfm.localization.views import Focal

logger = logging.getLogger(__name__)

AGREEING = 1.02
"""Longest over shortest focal length of cameras that are one, though each photo of the map has its own."""

GIVEN = "given"
"""Where the intrinsics come from that the person gave."""


@dataclass(frozen=True, slots=True)
class QueryCamera:
    """Intrinsics that a query may have.

    Attributes:
        camera: They.
        focal: How far its focal length is known.
        told: Where they come from.
    """

    camera: pycolmap.Camera
    focal: Focal
    told: str


@dataclass(frozen=True, slots=True)
class MapCameras:
    """The cameras of a map, by what EXIF says of the photos they took."""

    by_key: Mapping[str, Sequence[pycolmap.Camera]]

    @classmethod
    def of(cls, model: pycolmap.Reconstruction, photos: ImageFolder) -> "MapCameras":
        """Reads the header of one photo of each camera; where photos are gone, nothing is known of theirs."""
        images = {image.camera_id: image.name for image in model.images.values() if image.has_pose}
        by_key: dict[str, list[pycolmap.Camera]] = {}
        for number in sorted(images):
            try:
                key = read_header(photos.path(images[number])).camera_key
            except InputError as error:
                logger.warning(
                    "Queries of the camera of %s are not told from others: %s", images[number], error.message
                )
                continue
            by_key.setdefault(key, []).append(model.cameras[number])
        return cls(by_key)


def candidates(header: PhotoHeader, given: pycolmap.Camera | None, known: MapCameras) -> list[QueryCamera]:
    """The cameras to try, the most trustworthy first.

    Args:
        header: Of the query.
        given: Its intrinsics, if the person gave them; without a size, for the photo as it is.
        known: The map's cameras.

    Raises:
        InputError: The intrinsics given are for another image size.
    """
    if given is not None:
        given = _sized(given, header)
        if (given.width, given.height) != header.size:
            raise InputError(
                f"The intrinsics are for {given.width}x{given.height} pixels, the photo has "
                f"{header.size[0]}x{header.size[1]}.",
                remedy="Give intrinsics for the photo as it is, or scale the photo.",
            )
        return [QueryCamera(given, "known", GIVEN)]
    guesses = _of_map(header, known)
    if header.focal_px is not None:
        camera = make_camera(header.size, "SIMPLE_RADIAL", focal=header.focal_px)
        guesses.append(QueryCamera(camera, "prior", "EXIF, refined"))
    camera = make_camera(header.size, "SIMPLE_RADIAL")
    return [*guesses, QueryCamera(camera, "unknown", "found with the pose")]


def _of_map(header: PhotoHeader, known: MapCameras) -> list[QueryCamera]:
    """The map's camera that took the query, as far as EXIF, or for want of it the size, tells."""
    shared = [
        camera
        for camera in known.by_key.get(header.camera_key, ())
        if (camera.width, camera.height) == header.size
    ]
    if not shared:
        return []
    source = "the map's, by its size" if header.camera_key.startswith(NO_EXIF) else "the map's, by EXIF"
    ordered = sorted(shared, key=lambda camera: float(camera.mean_focal_length()))
    middle = ordered[len(ordered) // 2]
    if ordered[-1].mean_focal_length() <= AGREEING * ordered[0].mean_focal_length():
        return [QueryCamera(middle, "known", source)]
    return [QueryCamera(middle, "prior", f"{source}, refined")]


def _sized(given: pycolmap.Camera, header: PhotoHeader) -> pycolmap.Camera:
    """The camera, with the photo's size where it has none: COLMAP's rig files give none."""
    if given.width or given.height:
        return given
    sized = pycolmap.Camera(given.todict())
    sized.width, sized.height = header.size
    return sized
