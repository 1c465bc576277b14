"""What a person already knows of the cameras: intrinsics and poses, from a COLMAP model or a JSON file."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from gim_sfm.errors import InputError
from gim_sfm.sfm.colmap import HALF_PIXEL, make_camera

_LISTED = re.compile(
    r"(?P<name>.+?)\s+(?P<model>[A-Z][A-Z0-9_]+)\s+(?P<width>\d+)\s+(?P<height>\d+)"
    r"\s+(?P<params>\S+(?:\s+[-+.\deE]+)*)"
)


@dataclass(frozen=True, slots=True)
class KnownView:
    """Camera and pose of one photo.

    Attributes:
        camera: Its intrinsics; photos of equal camera_id share them.
        cam_from_world: Its pose.
    """

    camera: pycolmap.Camera
    cam_from_world: pycolmap.Rigid3d


def read_intrinsics(path: Path) -> dict[str, pycolmap.Camera]:
    """Reads known intrinsics by photo name.

    Args:
        path: A COLMAP model folder (text or binary), or a JSON file `{name: entry}` where an entry is either
            `{"model", "width", "height", "params"}` as COLMAP writes them, or `{"K", "width", "height"}` with
            the 3x3 calibration matrix in pixels, the first pixel's centre at (0, 0). `{"images": {}}` around
            it is fine. A file of suffix .txt is a list of queries as hloc has it, `name MODEL W H p1 p2 ...`
            a line.

    Raises:
        InputError: The file cannot be read or an entry is incomplete.
    """
    if path.is_dir():
        model = read_model(path)
        return {image.name: model.cameras[image.camera_id] for image in model.images.values()}
    if path.suffix == ".txt":
        return _shared_cameras(path, _read_list(path))
    return _shared_cameras(path, _read_entries(path))


def read_poses(path: Path) -> dict[str, KnownView]:
    """Reads known intrinsics and poses by photo name.

    Args:
        path: A COLMAP model folder, or a JSON file as for `read_intrinsics` whose entries also hold
            `cam_from_world` (3x4 or 4x4, x_cam = R X + t).

    Raises:
        InputError: The file cannot be read, or an entry is incomplete.
    """
    if path.is_dir():
        model = read_model(path)
        return {
            image.name: KnownView(model.cameras[image.camera_id], image.cam_from_world())
            for image in model.images.values()
            if image.has_pose
        }
    entries = _read_entries(path)
    cameras = _shared_cameras(path, entries)
    return {name: KnownView(cameras[name], _pose(path, name, entry)) for name, entry in entries.items()}


def read_model(path: Path) -> pycolmap.Reconstruction:
    """Reads a COLMAP model folder, text or binary.

    Raises:
        InputError: It holds no model.
    """
    try:
        return pycolmap.Reconstruction(path)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{path} holds no COLMAP model.", remedy="Give a folder with cameras, images and points3D files."
        ) from error


def _read_entries(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}).", remedy="Give a COLMAP model folder or a JSON file."
        ) from error
    entries = document.get("images", document) if isinstance(document, dict) else document
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{path} is not a table of photos.", remedy='Write {"photo.jpg": {...}, ...}.')
    return entries


def _read_list(path: Path) -> dict[str, dict[str, Any]]:
    """A list of queries with intrinsics; the model's name ends that of the photo, which may have blanks."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # names may hold other breaks of lines
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).", remedy="Give a text file in UTF-8.") from error
    entries: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LISTED.fullmatch(line.strip())
        if found is None:
            raise InputError(
                f"{path}, line {number}: {line!r} does not give a photo's intrinsics.",
                remedy="Write name MODEL WIDTH HEIGHT and the parameters of that COLMAP camera model.",
            )
        entries[found["name"]] = {
            "model": found["model"],
            "width": found["width"],
            "height": found["height"],
            "params": found["params"].split(),
        }
    return entries


def _shared_cameras(path: Path, entries: Mapping[str, Any]) -> dict[str, pycolmap.Camera]:
    numbers: dict[str, int] = {}
    cameras: dict[str, pycolmap.Camera] = {}
    for name, entry in sorted(entries.items()):
        said = json.dumps({key: entry.get(key) for key in ("model", "width", "height", "params", "K")})
        number = numbers.setdefault(said, len(numbers) + 1)
        cameras[name] = _camera(path, name, entry, number)
    return cameras


def _camera(path: Path, name: str, entry: Mapping[str, Any], camera_id: int) -> pycolmap.Camera:
    try:
        size = int(entry["width"]), int(entry["height"])
        if "K" in entry:
            matrix = np.asarray(entry["K"], np.float64).reshape(3, 3)
            model, params = "PINHOLE", [matrix[0, 0], matrix[1, 1], *(matrix[:2, 2] + HALF_PIXEL)]
        else:
            model, params = entry["model"], [float(value) for value in entry["params"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"The intrinsics of {name} in {path} are incomplete ({error}).",
            remedy="Give width, height, and either model and params or K.",
        ) from error
    return make_camera(size, model, params=params, camera_id=camera_id)


def _pose(path: Path, name: str, entry: Mapping[str, Any]) -> pycolmap.Rigid3d:
    try:
        return pycolmap.Rigid3d(np.asarray(entry["cam_from_world"], np.float64)[:3])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"The pose of {name} in {path} is missing or no 3x4 matrix.",
            remedy="Give cam_from_world as three rows of four numbers.",
        ) from error
