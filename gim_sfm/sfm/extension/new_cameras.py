"""Cameras of photos that join a map: those of old photos taken with the same camera, as they are by now."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pycolmap

from gim_sfm.images import PhotoHeader, read_header
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.colmap import Cameras, assign_cameras, group_cameras, parse_camera_params
from gim_sfm.sfm.known import read_intrinsics


def cameras_for(
    recipe: Recipe, headers: Mapping[str, PhotoHeader], old: Cameras, home: Path
) -> dict[str, pycolmap.Camera]:
    """The camera of each new photo.

    Photos share cameras by the same rule as in `reconstruct`. Where the cameras of the map that belong to
    photos of that kind are one, or all alike, new ones get it with all that is known of it by now; where they
    differ, or there is none, they get a new one. Where photos are of one kind for their size alone, they are
    asked later (`lenses`).

    Args:
        recipe: Settings of the map.
        headers: What the files of the new photos say of themselves.
        old: Camera of each old photo.
        home: Folder of the old photos.

    Raises:
        SettingsError: Known intrinsics are for photos of another size.
        InputError: An old photo cannot be read.
    """
    known = _known(recipe)
    keys = _keys(recipe, headers, known)
    owned = _owned(recipe, old, home, known) if recipe.camera.cameras != "image" or known else {}
    number = max((camera.camera_id for camera in old.values()), default=0)
    cameras: dict[str, pycolmap.Camera] = {}
    for name, key in sorted(keys.items()):
        if key not in owned:
            number += 1
            owned[key] = _new_camera(recipe, name, headers[name], known, number)
        cameras[name] = owned[key]
    return cameras


def _known(recipe: Recipe) -> Cameras:
    return read_intrinsics(recipe.camera.intrinsics) if recipe.camera.intrinsics is not None else {}


def _keys(recipe: Recipe, headers: Mapping[str, PhotoHeader], known: Cameras) -> dict[str, str]:
    """Photos with equal keys share a camera."""
    groups = group_cameras(headers, recipe.camera.cameras)
    return {
        name: f"known {known[name].camera_id}" if name in known else group for name, group in groups.items()
    }


def _owned(recipe: Recipe, old: Cameras, home: Path, known: Cameras) -> dict[str, pycolmap.Camera]:
    """The camera of the map that belongs to each key, where it is one; told by one photo of each camera."""
    first: dict[int, str] = {}
    for name, camera in sorted(old.items()):
        first.setdefault(camera.camera_id, name)
    headers = {name: read_header(home / name) for name in first.values()}
    claims: defaultdict[str, list[pycolmap.Camera]] = defaultdict(list)
    for name, key in _keys(recipe, headers, known).items():
        claims[key].append(old[name])
    return {key: cameras[0] for key, cameras in claims.items() if len(set(map(_lens, cameras))) == 1}


def _lens(camera: pycolmap.Camera) -> tuple[object, ...]:
    return camera.model_name, *camera.params.tolist()


def _new_camera(
    recipe: Recipe, name: str, header: PhotoHeader, known: Cameras, number: int
) -> pycolmap.Camera:
    chosen = recipe.camera
    assigned = assign_cameras(
        {name: header},
        grouping=chosen.cameras,
        model=chosen.camera_model,
        params=parse_camera_params(chosen.camera_params) if chosen.camera_params else (),
        known=known,
    )
    assigned[name].camera_id = number
    return assigned[name]
