"""A photo-like world with known cameras, drawn by this package itself: for the demo and for tests.

The place (`scene`), the cameras and their path (`cameras`) and the light (`rendering`) know nothing of each
other, so that videos and range scans can be taken of the same place.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from PIL import Image

from gim_sfm.drawn_world.cameras import DrawnCamera, Pose, central_camera, orbit
from gim_sfm.drawn_world.rendering import all_pyramids, depth_map, expose, render, shine
from gim_sfm.drawn_world.scene import Scene, courtyard, crate
from gim_sfm.drawn_world.surfaces import Surface
from gim_sfm.files import replacing, write_text

JPEG_QUALITY = 93
FILM_WIDTH_MM = 36.0
EXIF_SECTION, EXIF_MAKE, EXIF_MODEL, EXIF_FOCAL, EXIF_FOCAL_35MM = 0x8769, 0x010F, 0x0110, 0x920A, 0xA405


@dataclass(frozen=True, slots=True)
class DrawnPhoto:
    """One photo and all that is true of it.

    Attributes:
        pixels: RGB.
        camera: Its lens and size.
        cam_from_world: 3x4, x_cam = R x_world + t, metres.
        movers: What stood in the scene for this photo only.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    camera: DrawnCamera
    cam_from_world: Pose
    movers: tuple[Surface, ...] = ()


@dataclass(frozen=True, slots=True)
class DrawnWorld:
    """Photos of a drawn place, by name."""

    scene: Scene
    photos: dict[str, DrawnPhoto]

    @property
    def images(self) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        """RGB pixels by name."""
        return {name: photo.pixels for name, photo in self.photos.items()}

    @property
    def cameras(self) -> dict[str, DrawnCamera]:
        """Lens and size by name."""
        return {name: photo.camera for name, photo in self.photos.items()}

    @property
    def cam_from_world(self) -> dict[str, Float64[np.ndarray, "3 4"]]:
        """True poses by name."""
        return {name: photo.cam_from_world for name, photo in self.photos.items()}

    def depth(self, name: str) -> Float32[np.ndarray, "height width"]:
        """True depth (z in the camera's frame, metres) at every pixel's centre; infinite in the sky."""
        photo = self.photos[name]
        return depth_map(self.scene.surfaces + photo.movers, photo.camera, photo.cam_from_world)

    def ground_truth(self) -> dict[str, Any]:
        """JSON-like values: `images.<name>` with width, height, K, cam_from_world and distortion."""
        return {
            "note": "Drawn by gim_sfm. K in pixels, first pixel's centre at (0, 0); cam_from_world is [R|t], "
            "metres; distortion is k1, k2 of COLMAP's RADIAL model.",
            "images": {name: _truth(photo) for name, photo in self.photos.items()},
        }

    def write(self, folder: Path, *, exif: bool = True) -> Path:
        """Writes the photos as JPEGs, and ground_truth.json beside the folder's photos.

        Args:
            folder: For the photos; made where absent.
            exif: Whether the JPEGs tell the make, model and focal length, as a camera's do.

        Returns:
            Path of ground_truth.json, which lies in the folder's parent so that the folder holds photos only.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, photo in self.photos.items():
            _write_jpeg(folder / name, photo, exif)
        truth = folder.parent / "ground_truth.json"
        write_text(truth, json.dumps(self.ground_truth(), indent=1) + "\n")
        return truth


def draw_world(
    n_views: int = 12,
    size: tuple[int, int] = (960, 640),
    seed: int = 0,
    *,
    arc_degrees: float = 150.0,
    n_cameras: int = 1,
    principal_offset: tuple[float, float] = (0.0, 0.0),
    distortion: tuple[float, float] = (0.0, 0.0),
    exposure_stops: float = 0.3,
    noise: float = 1.5,
    n_movers: int = 0,
) -> DrawnWorld:
    """Draws photos of a courtyard from an arc round its middle.

    The same arguments give the same photos.

    Args:
        n_views: Number of photos.
        size: (width, height) of the first camera's photos.
        seed: Of the place, the path and the grain.
        arc_degrees: Angle between the first and the last photo; from 360 on they close a circle.
        n_cameras: Cameras used in turn; the second is smaller, the third upright, the fourth both, and so on.
        principal_offset: Of every camera's principal point from its image's middle, pixels.
        distortion: k1, k2 of every camera.
        exposure_stops: Standard deviation of the exposure from photo to photo.
        noise: Standard deviation of the grain at middle grey, in grey levels.
        n_movers: Crates that stand elsewhere in every photo.

    Returns:
        The photos, named view_00.jpg and so on, with their truth.
    """
    scene = courtyard(seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
    poses = orbit(n_views, rng, arc_degrees=arc_degrees)
    cameras = [
        central_camera(_size_of(index, size), principal_offset=principal_offset, distortion=distortion)
        for index in range(n_cameras)
    ]
    stops = rng.normal(0, exposure_stops, n_views)
    movers = _movers(seed, n_movers, n_views)
    sunlight = shine(scene.surfaces, scene.sun_from_world)
    pyramids = all_pyramids(scene.surfaces)

    def take(index: int) -> DrawnPhoto:
        camera = cameras[index % n_cameras]
        surfaces = scene.surfaces + movers[index]
        mipmaps = pyramids + all_pyramids(movers[index])
        light = render(surfaces, mipmaps, sunlight, camera, poses[index])
        grain = np.random.default_rng(np.random.SeedSequence([seed, 3, index]))
        pixels = expose(light, camera, grain, stops=float(stops[index]), noise=noise)
        return DrawnPhoto(pixels, camera, poses[index], movers[index])

    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        photos = list(pool.map(take, range(n_views)))
    digits = max(2, len(str(n_views - 1)))
    return DrawnWorld(scene, {f"view_{index:0{digits}}.jpg": photo for index, photo in enumerate(photos)})


def _size_of(index: int, size: tuple[int, int]) -> tuple[int, int]:
    """Size of the photos of one of several cameras: every second is smaller; two level, two upright."""
    shrink = (1.0, 0.8)[index % 2]
    width, height = (round(side * shrink) for side in size)
    return (width, height) if index // 2 % 2 == 0 else (height, width)


def _movers(seed: int, count: int, views: int) -> list[tuple[Surface, ...]]:
    """For each photo the same crates at other places, between the monument and the cameras."""
    chosen = []
    for view in range(views):
        places = np.random.default_rng(np.random.SeedSequence([seed, 4, view]))
        surfaces: list[Surface] = []
        for mover in range(count):
            angle, distance = places.uniform(-np.pi, 0), places.uniform(3.0, 4.6)
            middle = np.array([distance * np.cos(angle), distance * np.sin(angle), 0.0])
            surfaces += crate(np.random.default_rng(np.random.SeedSequence([seed, 5, mover])), middle)
        chosen.append(tuple(surfaces))
    return chosen


def _truth(photo: DrawnPhoto) -> dict[str, Any]:
    return {
        "width": photo.camera.size[0],
        "height": photo.camera.size[1],
        "K": photo.camera.intrinsics.tolist(),
        "cam_from_world": photo.cam_from_world.tolist(),
        "distortion": list(photo.camera.distortion),
    }


def _write_jpeg(path: Path, photo: DrawnPhoto, exif: bool) -> None:
    told = Image.Exif()
    if exif:
        film_focal = photo.camera.focal / max(photo.camera.size) * FILM_WIDTH_MM
        told[EXIF_MAKE], told[EXIF_MODEL] = "gim_sfm", f"drawn {photo.camera.size[0]}x{photo.camera.size[1]}"
        told.get_ifd(EXIF_SECTION).update({EXIF_FOCAL: film_focal, EXIF_FOCAL_35MM: round(film_focal)})
    with replacing(path) as temporary:
        Image.fromarray(photo.pixels).save(temporary, "JPEG", quality=JPEG_QUALITY, exif=told)
