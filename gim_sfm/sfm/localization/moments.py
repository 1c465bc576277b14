"""Queries by moments: each photo alone, or all that the cameras of a rig took at one time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from gim_sfm.errors import InputError


@dataclass(frozen=True, slots=True)
class Moment:
    """Photos that share one pose.

    Attributes:
        names: The photos.
        cams_from_rig: Where the camera of each sits in the rig; empty for a photo alone.
        cameras: Intrinsics of those whose camera is known.
    """

    names: tuple[str, ...]
    cams_from_rig: Mapping[str, pycolmap.Rigid3d]
    cameras: Mapping[str, pycolmap.Camera]

    def without(self, names: Collection[str]) -> "Moment":
        """The other photos of the moment."""
        left = tuple(name for name in self.names if name not in names)
        sits = {name: pose for name, pose in self.cams_from_rig.items() if name in left}
        return Moment(left, sits, _known(left, self.cameras))


def moments_of(
    names: Sequence[str], cameras: Mapping[str, pycolmap.Camera], rig: Path | None
) -> list[Moment]:
    """Puts the photos together that were taken at one time.

    Args:
        names: The photos.
        cameras: Known intrinsics by photo.
        rig: COLMAP's rig file; photos whose names are equal after the prefix of their camera belong together.

    Raises:
        InputError: The file cannot be read, lacks where a camera sits, or a photo is none of its cameras'.
    """
    if rig is None:
        return [Moment((name,), {}, _known([name], cameras)) for name in names]
    sensors = _read_rigs(rig)
    grouped: dict[tuple[int, str], dict[str, pycolmap.RigConfigCamera]] = {}
    for name in names:
        number, sensor = _sensor_of(name, sensors, rig)
        grouped.setdefault((number, name.removeprefix(sensor.image_prefix)), {})[name] = sensor
    return [
        Moment(
            tuple(members),
            {name: sensor.cam_from_rig or pycolmap.Rigid3d() for name, sensor in members.items()},
            {name: sensor.camera for name, sensor in members.items() if sensor.camera}
            | _known(list(members), cameras),
        )
        for members in grouped.values()
    ]


def _known(names: Sequence[str], cameras: Mapping[str, pycolmap.Camera]) -> dict[str, pycolmap.Camera]:
    return {name: cameras[name] for name in names if name in cameras}


def _read_rigs(path: Path) -> list[tuple[int, pycolmap.RigConfigCamera]]:
    """The cameras of all rigs of a file, each with the number of its rig."""
    try:
        rigs = pycolmap.read_rig_config(path)
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(
            f"{path} is no rig file ({str(error).splitlines()[0] if str(error) else 'unreadable'}).",
            remedy="Give a JSON file as COLMAP's rig_configurator takes it.",
        ) from error
    sensors = [(number, sensor) for number, rig in enumerate(rigs) for sensor in rig.cameras]
    for _, sensor in sensors:
        _refuse_unfit(sensor, path)
    return sensors


def _refuse_unfit(sensor: pycolmap.RigConfigCamera, path: Path) -> None:
    where = sensor.cam_from_rig
    if not sensor.ref_sensor and (where is None or not np.isclose(np.linalg.norm(where.rotation.quat), 1)):
        raise InputError(
            f"{path} does not tell where the camera of {sensor.image_prefix} sits in its rig.",
            remedy="Give cam_from_rig_rotation (w, x, y, z) and cam_from_rig_translation.",
        )
    if sensor.camera is not None and not _is_whole(sensor.camera):
        raise InputError(
            f"{path} gives no camera that COLMAP knows for {sensor.image_prefix}.",
            remedy="Give camera_model_name and the camera_params of that model, or neither.",
        )


def _is_whole(camera: pycolmap.Camera) -> bool:
    try:
        return bool(camera.verify_params())
    except ValueError:  # there is no such model
        return False


def _sensor_of(
    name: str, sensors: Sequence[tuple[int, pycolmap.RigConfigCamera]], path: Path
) -> tuple[int, pycolmap.RigConfigCamera]:
    fitting = [row for row in sensors if name.startswith(row[1].image_prefix)]
    if not fitting:
        raise InputError(
            f"{name} begins with no image_prefix of {path}.",
            remedy="Keep the photos of each camera in the folder that the rig file names.",
        )
    return max(fitting, key=lambda row: len(row[1].image_prefix))
