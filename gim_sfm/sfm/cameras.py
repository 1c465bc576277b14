"""Which photos share a camera, and what is known of it: the person's word, poses, EXIF, in this order."""

from collections import Counter
from collections.abc import Mapping

from gim_sfm.images import PhotoHeader
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.colmap import Cameras, assign_cameras, parse_camera_params
from gim_sfm.sfm.known import read_intrinsics, read_poses

NO_EXIF = "|||"
"""How the camera key of a photo begins that tells neither make, model nor focal length."""


def cameras_of(recipe: Recipe, headers: Mapping[str, PhotoHeader]) -> Cameras:
    """The camera of every photo: as the person gave it, or as the photos share it."""
    chosen = recipe.camera
    return assign_cameras(
        headers,
        grouping=chosen.cameras,
        model=chosen.camera_model,
        params=parse_camera_params(chosen.camera_params) if chosen.camera_params else (),
        known=_known_intrinsics(recipe, headers),
    )


def assumed_cameras(recipe: Recipe, headers: Mapping[str, PhotoHeader]) -> list[str]:
    """Tells of photos that share a camera for want of EXIF data."""
    unnamed = Counter(head.size for head in headers.values() if head.camera_key.startswith(NO_EXIF))
    shared = sum(count for count in unnamed.values() if count > 1)
    if recipe.camera.cameras != "exif" or recipe.camera.intrinsics or not shared:
        return []
    return [
        f"{shared} photos without EXIF data share a camera with those of their size; if several cameras took "
        "them, use --cameras image"
    ]


def _known_intrinsics(recipe: Recipe, headers: Mapping[str, PhotoHeader]) -> Cameras:
    """Of the photos there are: from the intrinsics given, else from the poses given."""
    known: Cameras = {}
    if recipe.camera.intrinsics is not None:
        known = read_intrinsics(recipe.camera.intrinsics)
    elif recipe.mapping.poses is not None:
        known = {name: view.camera for name, view in read_poses(recipe.mapping.poses).items()}
    return {name: camera for name, camera in known.items() if name in headers}
