"""A database grows: new photos, their pairs with old ones, and keypoints that these pairs add, come last.

Numbers of photos, cameras and keypoints that stand in it stay, so models made from it go on to fit.
"""

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float32

from gim_sfm.errors import InputError
from gim_sfm.files import replacing
from gim_sfm.recipe import digest
from gim_sfm.sfm.colmap import Cameras, from_colmap, to_colmap, write_images, write_pairs, write_positions
from gim_sfm.sfm.matched import (
    DatabaseFigures,
    Matched,
    MatchingJob,
    match_and_verify,
    read_figures,
    write_figures,
)
from gim_sfm.sfm.stopwatch import Stopwatch
from gim_sfm.sfm.track_quality import TrackFigures, measure_tracks
from gim_sfm.types import Pair

Keypoints = Mapping[str, Float32[np.ndarray, "n 2"]]


@dataclass(frozen=True, slots=True, eq=False)
class Registry:
    """Photos and cameras of a database and of the model made from it.

    Attributes:
        numbers: Number of each photo.
        cameras: Camera of each photo, as the model has it where it does.
        posed: Photos that stand in the model.
    """

    numbers: Mapping[str, int]
    cameras: Cameras
    posed: frozenset[str]


def read_registry(database: Path, model: pycolmap.Reconstruction, known: Collection[str]) -> Registry:
    """Reads what photos and cameras there are.

    Args:
        database: A database that the model was made from.
        model: The model.
        known: Photos to tell of.

    Raises:
        InputError: The model was not made from this database.
    """
    with pycolmap.Database.open(database) as opened:
        images = {image.name: image for image in opened.read_all_images()}
        cameras = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        for image in model.images.values():
            same = images.get(image.name)
            if same is None or same.image_id != image.image_id or same.camera_id != image.camera_id:
                raise _not_made_from(database, image.name)
            if opened.num_keypoints_for_image(image.image_id) < image.num_points2D():
                raise _not_made_from(database, image.name)
    cameras |= {number: _trusted(camera) for number, camera in model.cameras.items()}
    return Registry(
        numbers={name: images[name].image_id for name in known},
        cameras={name: cameras[images[name].camera_id] for name in known},
        posed=frozenset(image.name for image in model.images.values() if image.has_pose),
    )


def grow_database(
    base: Path,
    grown: Path,
    job: MatchingJob,
    registry: Registry,
    watch: Stopwatch,
    *,
    cameras: Callable[[Matched], Cameras],
) -> DatabaseFigures:
    """Matches and verifies pairs and writes a copy of a database that holds them, unless it is there already.

    Args:
        base: The database as it stands.
        grown: Takes the larger one; its figures come beside it.
        job: The new pairs; `settled` names the old photos in them.
        registry: Photos and cameras of the base.
        watch: Is told where the time went.
        cameras: Tells the cameras of all photos in the pairs once these are matched.

    Raises:
        InputError: The figures of the base are missing.
    """
    inputs = digest(job.inputs, sorted(registry.numbers.items()))
    figures = read_figures(grown.with_suffix(".json"))
    if grown.exists() and figures is not None and figures.inputs == inputs:
        return figures
    before = read_figures(base.with_suffix(".json"))
    if before is None:
        raise InputError(
            f"{base.with_suffix('.json')} is missing, or of an earlier version.",
            remedy="Run reconstruct again with the map's photos and folder; what is stored is used.",
        )
    grown.with_suffix(".json").unlink(missing_ok=True)
    matched = match_and_verify(job, watch)
    with watch.stage("cameras"):
        job = replace(job, cameras=cameras(matched))
    with watch.stage("database"), replacing(grown) as temporary:
        shutil.copyfile(base, temporary)
        counts = _add(temporary, matched, job, registry)
    new = {row.names for row in matched.figures}
    figures = replace(
        before,
        inputs=inputs,
        keypoints={**before.keypoints, **counts},
        pairs=(*(row for row in before.pairs if row.names not in new), *matched.figures),
        tracks=_measure_tracks(grown),
        rescued=(*before.rescued, *matched.rescued),
    )
    write_figures(grown.with_suffix(".json"), figures)
    return figures


def _measure_tracks(database: Path) -> TrackFigures:
    """How all verified matches of a database hang together."""
    with pycolmap.Database.open(database) as opened:
        images = {image.image_id: image.name for image in opened.read_all_images()}
        keypoints = {
            name: from_colmap(opened.read_keypoints(number)[:, :2]).astype(np.float32)
            for number, name in images.items()
        }
        matches = [
            (
                _names(images, number),
                geometry.inlier_matches.astype(np.int32),
            )
            for number, geometry in zip(*opened.read_two_view_geometries(), strict=True)
        ]
    return measure_tracks(keypoints, matches)


def _names(images: Mapping[int, str], number: int) -> Pair:
    first, second = pycolmap.pair_id_to_image_pair(number)
    return images[first], images[second]


def read_keypoints(database: Path, numbers: Mapping[str, int], names: Collection[str]) -> Keypoints:
    """Keypoints of some photos as the database has them, in this package's pixels."""
    with pycolmap.Database.open(database) as opened:
        return {
            name: from_colmap(opened.read_keypoints(numbers[name])[:, :2]).astype(np.float32)
            for name in sorted(names)
        }


def _add(path: Path, matched: Matched, job: MatchingJob, registry: Registry) -> dict[str, int]:
    """Adds photos, keypoints and pairs; tells the number of keypoints of the photos that have others now."""
    points = {name: matched.keypoints(name) for name in job.cameras}
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        _update_cameras(database, registry)
        known = {camera.camera_id for camera in database.read_all_cameras()}
        numbers = {image.name: image.image_id for image in database.read_all_images()}
        new = {name: camera for name, camera in job.cameras.items() if name not in numbers}
        numbers |= write_images(database, new, known=known, start=max(numbers.values(), default=0) + 1)
        changed = _write_keypoints(database, numbers, points)
        rows = [row for row in matched.verified if not _stands(database, numbers, row.pair)]
        write_pairs(
            database,
            numbers,
            ((row.pair, matched.matches(row.pair).indices) for row in rows),
            ((row.pair, row.geometry) for row in rows),
        )
        positions = {name: place for name, place in job.gps.items() if name in new}
        write_positions(database, job.cameras, numbers, positions)
    return changed


def _update_cameras(database: pycolmap.Database, registry: Registry) -> None:
    """Cameras as the model has them by now."""
    for camera in {camera.camera_id: camera for camera in registry.cameras.values()}.values():
        database.update_camera(camera)


def _write_keypoints(
    database: pycolmap.Database, numbers: Mapping[str, int], points: Keypoints
) -> dict[str, int]:
    changed: dict[str, int] = {}
    for name, places in points.items():
        number, stored = numbers[name], to_colmap(places).astype(np.float32)
        if not database.exists_keypoints(number):
            database.write_keypoints(number, stored)
        elif database.num_keypoints_for_image(number) < len(places):
            former = database.read_keypoints(number)
            database.update_keypoints(number, np.concatenate([former[:, :2], stored[len(former) :]]))
        else:
            continue
        changed[name] = len(places)
    return changed


def _stands(database: pycolmap.Database, numbers: Mapping[str, int], pair: Pair) -> bool:
    return bool(database.exists_matches(numbers[pair[0]], numbers[pair[1]]))


def _trusted(camera: pycolmap.Camera) -> pycolmap.Camera:
    """The camera, as one whose focal length is known."""
    trusted = pycolmap.Camera(camera.todict())
    trusted.has_prior_focal_length = True
    return trusted


def _not_made_from(database: Path, name: str) -> InputError:
    return InputError(
        f"The model and {database} do not belong together: they disagree about {name}.",
        remedy="Run reconstruct again with the map's photos and folder; what is stored is used.",
    )
