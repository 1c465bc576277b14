"""Self-calibration on exact worlds: it finds what is off, leaves alone what is right or unknown."""

from dataclasses import dataclass

import numpy as np
import pycolmap

SIZE = (1024, 768)
FOCAL = 1000.0


@dataclass(frozen=True)
class World:
    """A model that took the principal point to be central, and the true poses."""

    model: pycolmap.Reconstruction
    poses: dict[int, pycolmap.Rigid3d]


def looking(position, target, roll=0.0) -> pycolmap.Rigid3d:
    """The pose of a camera at a position that looks at a target."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation
    return pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), -rotation @ position)


def motion(kind: str, photos: int, random: np.random.Generator) -> list[pycolmap.Rigid3d]:
    """Camera poses: all round, an arc, a straight line with one orientation, or straight ahead."""
    steps = np.linspace(-1, 1, photos)
    if kind == "round":
        spots = random.normal(size=(photos, 3)) * [4, 1.5, 1.5] + [0, 0, -9]
        return [looking(spot, random.normal(size=3) * 0.7, random.normal() * 0.5) for spot in spots]
    if kind == "arc":
        return [looking([9 * np.sin(step), 0, -9 * np.cos(step)], [0, 0, 0]) for step in steps]
    if kind == "sideways":
        return [pycolmap.Rigid3d(pycolmap.Rotation3d(), [-4 * step, 0, 9]) for step in steps]
    return [pycolmap.Rigid3d(pycolmap.Rotation3d(), [0.02 * step, 0, 9 + 4 * step]) for step in steps]


def world(
    kind="round", photos=10, shift=(0.0, 0.0), noise=0.5, k2=0.0, seed=0, cameras=1, points=500, flat=False
) -> World:
    random = np.random.default_rng(seed)
    spread = [3, 2, 0.02 if flat else 2]
    xyz = random.uniform(-1, 1, (points, 3)) * spread
    poses = motion(kind, photos, random)
    true = pycolmap.Camera.create_from_model_name(1, "RADIAL", FOCAL, *SIZE)
    true.params = [FOCAL, SIZE[0] / 2 + shift[0], SIZE[1] / 2 + shift[1], -0.05, k2]
    model = pycolmap.Reconstruction()
    for number in range(1, cameras + 1):
        camera = pycolmap.Camera.create_from_model_name(number, "SIMPLE_RADIAL", FOCAL, *SIZE)
        camera.params = [FOCAL, SIZE[0] / 2, SIZE[1] / 2, -0.05]
        model.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in range(points)]
    for number, pose in enumerate(poses, start=1):
        pixels = true.img_from_cam(pose * xyz)
        seen = np.flatnonzero((np.abs(pixels / SIZE - 0.5) < 0.5).all(1) & (random.random(points) < 0.6))
        heavy = random.standard_t(4, (len(seen), 2)) / np.sqrt(2)
        image = pycolmap.Image(
            name=f"{number:03}.jpg",
            keypoints=pixels[seen] + noise * heavy,
            camera_id=(number - 1) % cameras + 1,
            image_id=number,
        )
        model.add_image_with_trivial_frame(image, pose)
        for row, point in enumerate(seen):
            tracks[point].add_element(number, row)
    for place, track in zip(xyz, tracks, strict=True):
        if track.length() >= 3:
            model.add_point3D(place, track)
    return World(model, dict(enumerate(poses, start=1)))


def relative_errors(model: pycolmap.Reconstruction, poses: dict[int, pycolmap.Rigid3d]) -> np.ndarray:
    """Larger of rotation and direction error of each pair of photos, degrees."""
    errors = []
    for one in poses:
        for two in poses:
            if one < two:
                true = poses[two] * poses[one].inverse()
                found = model.images[two].cam_from_world() * model.images[one].cam_from_world().inverse()
                turn = np.degrees((true.rotation * found.rotation.inverse()).angle())
                cosine = true.translation @ found.translation
                cosine /= np.linalg.norm(true.translation) * np.linalg.norm(found.translation)
                errors.append(max(turn, np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    return np.array(errors)
