"""A camera with the landmarks that it sees, and where a pose puts them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pycolmap
from jaxtyping import Float64

from gim_sfm.sfm.localization.landmarks import Sightings

Focal = Literal["known", "prior", "unknown"]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One camera with what it sees.

    Attributes:
        sightings: What it sees.
        camera: Its intrinsics as far as they are known.
        pixel: File pixels to a pixel of the network's input.
        focal: Whether its focal length is known, a guess to be refined, or to be found with the pose.
        cam_from_rig: Where it sits in its rig.
    """

    sightings: Sightings
    camera: pycolmap.Camera
    pixel: float
    focal: Focal = "known"
    cam_from_rig: pycolmap.Rigid3d = field(default_factory=pycolmap.Rigid3d)


def are_focals_known(views: Sequence[View]) -> bool:
    """Whether the pose is all that is sought."""
    return all(view.focal == "known" for view in views)


def projected(
    view: View, camera: pycolmap.Camera, rig_from_world: pycolmap.Rigid3d
) -> Float64[np.ndarray, "n 2"]:
    """Where the landmarks fall, in COLMAP's pixels; infinitely far off where they are behind the camera."""
    pose = (view.cam_from_rig * rig_from_world).matrix()
    inside = view.sightings.xyz @ pose[:, :3].T + pose[:, 3]
    places = np.full((len(inside), 2), np.inf)
    ahead = inside[:, 2] > 1e-9 * np.abs(inside).max(axis=1, initial=0)
    if ahead.any():
        places[ahead] = camera.img_from_cam(inside[ahead])
    return np.where(np.isfinite(places), places, np.inf)


def depths(view: View, pose: pycolmap.Rigid3d) -> Float64[np.ndarray, " n"]:
    """How far the landmarks are in front of a camera."""
    matrix = (view.cam_from_rig * pose).matrix()
    return np.asarray(view.sightings.xyz @ matrix[2, :3] + matrix[2, 3])
