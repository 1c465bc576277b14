"""The drawn courtyard as a map, and sightings of drawn landmarks, with their truth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pycolmap

import gim_sfm
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.geometry import camera_centres, rotation_angle_degrees
from gim_sfm.sfm.localization.landmarks import Landmarks, Sightings

MATCHER = {"matcher": "root-sift", "max_keypoints": 2048}
"""No networks, so that tests of the files do not wait for any."""

LEFT_OUT = ("view_01.jpg", "view_03.jpg", "view_06.jpg")
SIZE = (640, 480)


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """The drawn courtyard, mapped in the frame of its truth without some photos.

    Attributes:
        world: The truth.
        photos: Folder of the photos that are mapped.
        queries: Folder of those that are not.
        truth: Known poses of all.
        map: OUT of `reconstruct`.
    """

    world: DrawnWorld
    photos: Path
    queries: Path
    truth: Path
    map: Path


def map_courtyard(world: DrawnWorld, folder: Path) -> Place:
    """Maps all photos but those left out, with the true poses."""
    truth = world.write(folder / "photos")
    (folder / "queries").mkdir()
    for name in LEFT_OUT:
        (folder / "photos" / name).rename(folder / "queries" / name)
    gim_sfm.reconstruct(folder / "photos", folder / "map", poses=truth, **MATCHER)
    return Place(world, folder / "photos", folder / "queries", truth, folder / "map")


def pose_error(found: pycolmap.Rigid3d, true: np.ndarray) -> tuple[float, float]:
    """Degrees, and share of the distance from the middle of the courtyard."""
    matrix = found.matrix()
    degrees = rotation_angle_degrees(matrix[:, :3] @ true[:, :3].T)
    centre = camera_centres(true)
    return float(degrees), float(np.linalg.norm(camera_centres(matrix) - centre) / np.linalg.norm(centre))


def true_pose(world: DrawnWorld, name: str) -> pycolmap.Rigid3d:
    return pycolmap.Rigid3d(world.cam_from_world[name])


def write_rig(path: Path, sensors: Mapping[str, pycolmap.Rigid3d | None], focal: float | None = None) -> Path:
    """COLMAP's rig file: where the camera of each prefix sits; the first one is the reference."""
    rows = []
    for index, (prefix, cam_from_rig) in enumerate(sensors.items()):
        row: dict[str, object] = {"image_prefix": prefix}
        if index == 0:
            row["ref_sensor"] = True
        elif cam_from_rig is not None:
            x, y, z, w = cam_from_rig.rotation.quat
            row["cam_from_rig_rotation"] = [w, x, y, z]
            row["cam_from_rig_translation"] = list(cam_from_rig.translation)
        if focal is not None:
            row |= {"camera_model_name": "PINHOLE", "camera_params": [focal, focal, 320, 213]}
        rows.append(row)
    path.write_text(json.dumps([{"cameras": rows}]), encoding="utf-8")
    return path


# Drawn landmarks


def lens(focal: float = 600.0) -> pycolmap.Camera:
    return pycolmap.Camera(
        model="SIMPLE_RADIAL", width=SIZE[0], height=SIZE[1], params=[focal, SIZE[0] / 2, SIZE[1] / 2, 0.0]
    )


@dataclass(frozen=True, slots=True)
class Spread:
    """What a drawn camera sees.

    Attributes:
        count: Landmarks.
        noise: Of their places, pixels.
        wrong: Share whose place is anywhere.
        depths: Nearest and farthest.
        low: (x, y) of the part of the picture that they are in.
        high: Its other corner.
    """

    count: int = 60
    noise: float = 0.5
    wrong: float = 0.0
    depths: tuple[float, float] = (6.0, 10.0)
    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = field(default=SIZE)


def drawn_pose(random: np.random.Generator) -> pycolmap.Rigid3d:
    """A camera that looks somewhere."""
    return pycolmap.Rigid3d(pycolmap.Rotation3d(random.normal(0, 0.5, 3)), random.normal(0, 1, 3))


def sightings_of(
    random: np.random.Generator,
    cam_from_world: pycolmap.Rigid3d,
    spread: Spread = Spread(),
    *,
    focal: float = 600.0,
) -> Sightings:
    """Landmarks before a camera, and where it sees them."""
    true = random.uniform(spread.low, spread.high, (spread.count, 2))
    depth = random.uniform(*spread.depths, spread.count)
    inside = np.column_stack([(true - np.array(SIZE) / 2) / focal, np.ones(spread.count)]) * depth[:, None]
    xyz = (inside - cam_from_world.translation) @ cam_from_world.rotation.matrix()
    places = true + random.normal(0, spread.noise, true.shape)
    wrong = random.random(spread.count) < spread.wrong
    places[wrong] = random.uniform((0, 0), SIZE, (int(wrong.sum()), 2))
    return sightings(places - 0.5, xyz)


def sightings(places: np.ndarray, xyz: np.ndarray, photos: Sequence[np.ndarray] | None = None) -> Sightings:
    """Places (first pixel's centre at 0) of different landmarks, told by one photo unless rows of several."""
    rows = np.arange(len(places))
    told = (rows,) if photos is None else tuple(photos)
    return Sightings(np.asarray(places, np.float64), rows, rows.copy(), np.asarray(xyz, np.float64), told)


def landmarks(numbers: np.ndarray, xyz: np.ndarray) -> Landmarks:
    """Landmarks of a photo of the map; where it shows them does not matter."""
    rows = np.arange(len(numbers))
    return Landmarks(rows, np.zeros((len(rows), 2), np.float32), np.asarray(numbers), xyz)


def step_between(found: pycolmap.Rigid3d, true: pycolmap.Rigid3d) -> np.ndarray:
    """Small turn (rotation vector, radians) and shift that follow the true pose and give the found one."""
    move = found * true.inverse()
    quat = move.rotation.quat * np.sign(move.rotation.quat[3])
    return np.concatenate([2 * quat[:3], move.translation])
