"""Drawn models of photos: cameras and sparse points of a known scene, as photos would give them."""

from pathlib import Path

import numpy as np
import pycolmap
from scipy.spatial.transform import Rotation

from gim_sfm.bev.pointcloud import PointCloud

LENS = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 500.0, 640, 480)


def similar(scale: float, turn: tuple[float, float, float], shift: tuple[float, float, float]) -> np.ndarray:
    """4x4: a scale, a turn (rotation vector, degrees), a shift."""
    moved = np.eye(4)
    moved[:3, :3] = scale * Rotation.from_rotvec(turn, degrees=True).as_matrix()
    moved[:3, 3] = shift
    return moved


def held(place: np.ndarray, towards: np.ndarray, *, roll: float = 0.0) -> np.ndarray:
    """cam_from_world, 3x4, of a camera at a place that looks at another one; roll in degrees."""
    sight = (towards - place) / np.linalg.norm(towards - place)
    aside = np.cross(sight, [0.0, 0, 1])
    aside = np.array([1.0, 0, 0]) if np.linalg.norm(aside) < 1e-9 else aside / np.linalg.norm(aside)
    upright = np.array([aside, np.cross(sight, aside), sight])
    rotation = Rotation.from_euler("z", roll, degrees=True).as_matrix() @ upright
    return np.column_stack([rotation, -rotation @ place])


def walk(random: np.random.Generator, count: int = 24, *, reach: float = 20.0) -> list[np.ndarray]:
    """Cameras held by a person who walks a circle and looks about."""
    poses = []
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        place = np.array([reach * np.cos(angle), reach * np.sin(angle), 1.6])
        towards = np.array([*random.uniform(-reach, reach, 2), random.uniform(0, 4)])
        poses.append(held(place, towards, roll=random.normal(0, 1.5)))
    return poses


def sparse(
    cloud: PointCloud, random: np.random.Generator, *, share: float = 0.1, noise: float = 0.05
) -> np.ndarray:
    """A few of the points, uneven as texture is, with noise, and a tenth of outliers among them."""
    points = cloud.coordinates
    patches = np.exp(random.normal(0, 1, 997))[np.floor(points / 4).astype(int) @ [73, 179, 31] % 997]
    points = points[random.random(len(points)) < share * patches]
    points = points + random.normal(0, noise, points.shape)
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([points, random.uniform(low - 2, high + 2, (len(points) // 10, 3))])


def model_of(
    points: np.ndarray, poses: list[np.ndarray], world_from_model: np.ndarray
) -> pycolmap.Reconstruction:
    """A model in a frame of its own; each point is seen by two cameras, about a pixel off."""
    random = np.random.default_rng(len(points))
    seen_by = np.array([random.choice(len(poses), 2, replace=False) for _ in points])
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(LENS)
    tracks = [pycolmap.Track() for _ in points]
    for index, pose in enumerate(poses):
        (rows,) = np.nonzero((seen_by == index).any(axis=1))
        pixels = _project(points[rows], pose) + random.normal(0, 1, (len(rows), 2))
        image = pycolmap.Image(name=f"{index:03}.jpg", camera_id=1, image_id=index + 1)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(pixel) for pixel in pixels])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
        for place, row in enumerate(rows):
            tracks[row].add_element(index + 1, place)
    for point, track in zip(points, tracks, strict=True):
        model.add_point3D(point, track, np.zeros(3, np.uint8))
    model.transform(pycolmap.Sim3d(np.linalg.inv(world_from_model)[:3]))
    return model


def _project(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Pixels of points; those behind the camera are seen where their mirror images are."""
    inside = points @ pose[:, :3].T + pose[:, 3]
    return inside[:, :2] / np.where(np.abs(inside[:, 2:]) < 0.1, 0.1, inside[:, 2:]) * 500.0 + (320, 240)


def write_model(folder: Path, model: pycolmap.Reconstruction) -> Path:
    """Writes a model; gives its folder."""
    folder.mkdir(parents=True)
    model.write(folder)
    return folder
