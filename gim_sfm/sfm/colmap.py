"""The one door to COLMAP's cameras and database; the half pixel between the two conventions lives here only.

COLMAP puts the origin of an image at the corner of its first pixel, this package at that pixel's centre.
Camera parameters given as a COLMAP model with its parameter list are COLMAP's and pass through as they are.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pycolmap
from jaxtyping import Float32, Float64, Int32

from gim_sfm.errors import SettingsError
from gim_sfm.files import replacing
from gim_sfm.images import PhotoHeader
from gim_sfm.recipe import nearest
from gim_sfm.types import Pair

HALF_PIXEL = 0.5
GUESSED_FOCAL = 1.2
"""Focal length over the longer side where nothing is known (COLMAP's guess: a view of about 45 degrees)."""

Grouping = Literal["exif", "single", "folder", "image"]
Position = tuple[float, float, float | None]
Cameras = Mapping[str, pycolmap.Camera]
"""Camera of each photo; photos with the same camera_id share one camera."""


GROUP_KEYS: Mapping[Grouping, Callable[[str, PhotoHeader], str]] = {
    "exif": lambda _, header: header.camera_key,
    "single": lambda *_: "",
    "folder": lambda name, _: str(PurePosixPath(name).parent),
    "image": lambda name, _: name,
}


def to_colmap(points: Float32[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Moves (x, y) from this package's origin, the first pixel's centre, to COLMAP's, its corner."""
    return points.astype(np.float64) + HALF_PIXEL


def from_colmap(points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Moves (x, y) from COLMAP's origin to this package's."""
    return np.asarray(points, np.float64) - HALF_PIXEL


def group_cameras(headers: Mapping[str, PhotoHeader], grouping: Grouping) -> dict[str, str]:
    """Names the camera of each photo; photos of different sizes never share one.

    Args:
        headers: What the photo files say of themselves, by name.
        grouping: exif (equal make, model, focal length and size), single, folder, or image (one each).
    """
    key_of = GROUP_KEYS[grouping]
    return {
        name: f"{key_of(name, header)}|{header.size[0]}x{header.size[1]}"
        for name, header in sorted(headers.items())
    }


def check_camera_model(model: str) -> str:
    """Returns the name of a COLMAP camera model as COLMAP spells it.

    Raises:
        SettingsError: No such model; the nearest name is told.
    """
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model.upper() in known:
        return model.upper()
    raise SettingsError(
        f"Unknown camera model {model!r}.{nearest(model.upper(), known)}",
        remedy=f"Use one of: {', '.join(known)}.",
    )


def parse_camera_params(text: str) -> tuple[float, ...]:
    """Reads comma separated camera parameters.

    Raises:
        SettingsError: Something in the list is no number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"camera_params = {text!r} is no list of numbers.", remedy="Write them as 1200,640,480,0.01."
        ) from error


def make_camera(
    size: tuple[int, int],
    model: str,
    *,
    focal: float | None = None,
    params: Sequence[float] = (),
    camera_id: int = 1,
) -> pycolmap.Camera:
    """A COLMAP camera of known, measured or guessed focal length and central principal point.

    Args:
        size: (width, height) in pixels.
        model: COLMAP camera model.
        focal: Focal length in pixels; 1.2 times the longer side is guessed where there is none.
        params: All parameters of the model in COLMAP's order and convention, if known.
        camera_id: Number of the camera in the database.

    Raises:
        SettingsError: Unknown model, or a parameter list of the wrong length.
    """
    name = check_camera_model(model)
    camera = pycolmap.Camera.create_from_model_name(
        camera_id, name, focal or GUESSED_FOCAL * max(size), *size
    )
    camera.has_prior_focal_length = bool(params) or focal is not None
    if params:
        _check_length(params, camera)
        camera.params = list(params)
    return camera


def _check_length(params: Sequence[float], camera: pycolmap.Camera) -> None:
    if len(params) != len(camera.params):
        raise SettingsError(
            f"{camera.model_name} has {len(camera.params)} parameters, {len(params)} were given.",
            remedy=f"Give {camera.params_info}, in pixels where they are lengths.",
        )


def assign_cameras(
    headers: Mapping[str, PhotoHeader],
    *,
    grouping: Grouping = "exif",
    model: str = "SIMPLE_RADIAL",
    params: Sequence[float] = (),
    known: Cameras | None = None,
) -> dict[str, pycolmap.Camera]:
    """The camera of each photo, numbered from 1 in the order of the sorted names.

    Args:
        headers: What the photo files say of themselves, by name.
        grouping: Which photos share a camera; ignored for photos in `known`.
        model: COLMAP camera model.
        params: Parameters of every camera, if known.
        known: Known intrinsics by photo; photos of equal camera_id there share a camera here.

    Raises:
        SettingsError: Unknown model or wrong parameters, or known intrinsics of another image size.
    """
    known = known or {}
    groups = group_cameras(headers, grouping)
    cameras: dict[str, pycolmap.Camera] = {}
    assigned: dict[str, pycolmap.Camera] = {}
    for name, header in sorted(headers.items()):
        key = f"known {known[name].camera_id}" if name in known else groups[name]
        if key not in cameras:
            number = len(cameras) + 1
            cameras[key] = (
                _numbered(known[name], number)
                if name in known
                else make_camera(header.size, model, focal=header.focal_px, params=params, camera_id=number)
            )
        _check_size(name, header, cameras[key])
        assigned[name] = cameras[key]
    return assigned


def _numbered(camera: pycolmap.Camera, camera_id: int) -> pycolmap.Camera:
    return pycolmap.Camera(
        camera_id=camera_id,
        model=camera.model,
        width=camera.width,
        height=camera.height,
        params=camera.params,
        has_prior_focal_length=True,
    )


def _check_size(name: str, header: PhotoHeader, camera: pycolmap.Camera) -> None:
    if (camera.width, camera.height) != header.size:
        raise SettingsError(
            f"{name} is {header.size[0]}x{header.size[1]} pixels, but its known intrinsics are for "
            f"{camera.width}x{camera.height}.",
            remedy="Give intrinsics for the photos as they are, or scale the photos.",
        )


def write_database(
    path: Path,
    cameras: Cameras,
    keypoints: Iterable[tuple[str, Float32[np.ndarray, "n 2"]]],
    matches: Iterable[tuple[Pair, Int32[np.ndarray, "m 2"]]],
    geometries: Iterable[tuple[Pair, pycolmap.TwoViewGeometry]],
    *,
    gps: Mapping[str, Position | None] | None = None,
) -> None:
    """Writes a COLMAP database in one step: a reader finds the whole of it or what was there before.

    Args:
        path: The database file; replaced if it exists.
        cameras: Camera of each photo. Only these photos are written, numbered from 1 by sorted name;
            keypoints and pairs of others are passed over.
        keypoints: (name, (x, y) in file pixels, first pixel's centre at 0).
        matches: (pair, indices into the keypoints of its two photos).
        geometries: (pair, verified geometry); those without inliers are left out, as COLMAP does.
        gps: (latitude, longitude in degrees, altitude in metres) of photos that carry them; like COLMAP's own
            import, a position without altitude is not written.
    """
    with replacing(path) as temporary:
        with pycolmap.Database.open(temporary) as database, pycolmap.DatabaseTransaction(database):
            image_ids = write_images(database, cameras)
            _write_features(database, image_ids, keypoints)
            write_pairs(database, image_ids, matches, geometries)
            write_positions(database, cameras, image_ids, gps or {})
        for leftover in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)


def write_images(
    database: pycolmap.Database, cameras: Cameras, *, known: Collection[int] = (), start: int = 1
) -> dict[str, int]:
    """Writes photos with their cameras, and rigs and frames of their own.

    Args:
        database: Takes them.
        cameras: Camera of each photo.
        known: Cameras that stand in the database already.
        start: Number of the first photo; they follow by sorted name.

    Returns:
        The number of each photo.
    """
    distinct = {camera.camera_id: camera for camera in cameras.values() if camera.camera_id not in known}
    for camera_id, camera in sorted(distinct.items()):
        database.write_camera(camera, use_camera_id=True)
        rig = pycolmap.Rig(rig_id=camera_id)
        rig.add_ref_sensor(camera.sensor_id)
        database.write_rig(rig, use_rig_id=True)
    image_ids: dict[str, int] = {}
    for image_id, (name, camera) in enumerate(sorted(cameras.items()), start=start):
        image = pycolmap.Image(name=name, camera_id=camera.camera_id, image_id=image_id)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=image_id, rig_id=camera.camera_id)
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)
        image_ids[name] = image_id
    return image_ids


def _write_features(
    database: pycolmap.Database,
    image_ids: Mapping[str, int],
    keypoints: Iterable[tuple[str, Float32[np.ndarray, "n 2"]]],
) -> None:
    for name, points in keypoints:
        if name in image_ids:
            database.write_keypoints(image_ids[name], to_colmap(points).astype(np.float32))


def write_pairs(
    database: pycolmap.Database,
    image_ids: Mapping[str, int],
    matches: Iterable[tuple[Pair, Int32[np.ndarray, "m 2"]]],
    geometries: Iterable[tuple[Pair, pycolmap.TwoViewGeometry]],
) -> None:
    """Writes matches and verified geometries between photos that have a number, as `write_database` does."""
    for (name0, name1), indices in matches:
        if name0 in image_ids and name1 in image_ids:
            database.write_matches(image_ids[name0], image_ids[name1], indices.astype(np.uint32))
    for (name0, name1), geometry in geometries:
        if name0 in image_ids and name1 in image_ids and len(geometry.inlier_matches):
            database.write_two_view_geometry(image_ids[name0], image_ids[name1], geometry)


def write_positions(
    database: pycolmap.Database,
    cameras: Cameras,
    image_ids: Mapping[str, int],
    gps: Mapping[str, Position | None],
) -> None:
    """Writes the positions of photos that carry them, as `write_database` does."""
    for name, position in sorted(gps.items()):
        if name in image_ids and position is not None and position[2] is not None:
            data = pycolmap.data_t(cameras[name].sensor_id, image_ids[name])
            database.write_pose_prior(
                pycolmap.PosePrior(
                    corr_data_id=data,
                    position=np.asarray(position, np.float64),
                    coordinate_system=pycolmap.PosePriorCoordinateSystem.WGS84,
                )
            )
