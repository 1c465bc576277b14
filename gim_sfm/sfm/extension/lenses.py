"""Whether new photos without EXIF data were taken with the camera of the map that their size suggests.

Crops, zooms and other phones give photos of the same size, and with a wrong focal length they come to lie far
off. So each photo is asked: its pose is found from the points of the map that it sees, with the camera of the
map and with a focal length of its own (for crops, a principal point, too), and the gain in fit is weighed
against what noise would give (a likelihood ratio; Wilks, Annals of Mathematical Statistics 1938, with the
robust cost of the adjustment).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float64
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from gim_sfm.images import PhotoHeader
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.cameras import NO_EXIF
from gim_sfm.sfm.colmap import Cameras, to_colmap
from gim_sfm.sfm.known import read_intrinsics
from gim_sfm.sfm.localization.landmarks import Sighting, Sightings, gather, landmarks_of
from gim_sfm.sfm.localization.posing import Posed, find_pose
from gim_sfm.sfm.localization.views import Focal, View
from gim_sfm.sfm.matched import Matched

FEWEST = 30
"""Sightings of the map without which a photo cannot tell; COLMAP wants as many to register one."""

SAME = 0.01
"""Share by which the focal length found may differ from the map's in a photo of the same camera; and share of
the longer side beyond which a principal point is elsewhere."""

CERTAIN = 4.0
"""Standard deviations by which a principal point must be elsewhere."""

FAR = 1e6
"""Pixels that stand for an error without bounds."""

GAIN = 20.0
"""Log-likelihood that a focal length of its own must gain; noise alone gains half a unit on average, and
errors that neighbouring keypoints share many times that."""


def doubtful(recipe: Recipe, headers: Mapping[str, PhotoHeader], cameras: Cameras, old: Cameras) -> list[str]:
    """Photos that have a camera of the map for their size alone: no word of a person, no EXIF.

    Args:
        recipe: Settings of the map.
        headers: Of the new photos.
        cameras: Their cameras.
        old: Those of the map.
    """
    chosen = recipe.camera
    if chosen.cameras != "exif" or chosen.camera_params is not None:
        return []
    told = read_intrinsics(chosen.intrinsics).keys() if chosen.intrinsics is not None else set()
    of_map = {camera.camera_id for camera in old.values()}
    return [
        name
        for name, header in sorted(headers.items())
        if header.camera_key.startswith(NO_EXIF) and name not in told and cameras[name].camera_id in of_map
    ]


def tell_lenses(
    model: pycolmap.Reconstruction,
    matched: Matched,
    cameras: Cameras,
    old: Cameras,
    doubted: Mapping[str, float],
    recipe: Recipe,
) -> dict[str, pycolmap.Camera]:
    """The cameras after each doubtful photo was asked: the map's, or one of its own.

    A photo that sees too little of the map to tell gets one of its own, too, that starts from the map's.

    Args:
        model: The map.
        matched: Verified pairs of new photos.
        cameras: Of all photos in them.
        old: Of all old photos.
        doubted: New photos that have a camera of the map for their size alone, with file pixels to a pixel
            of the network's input.
        recipe: Settings of the map; its seed draws the samples.
    """
    decided = dict(cameras)
    number = max(camera.camera_id for camera in (*cameras.values(), *old.values()))
    for name, pixel in sorted(doubted.items()):
        seen = _sightings(model, matched, name, pixel)
        own = _own_lens(seen, cameras[name], pixel, recipe.mapping.seed)
        if own is not None:
            number += 1
            own.camera_id = number
            decided[name] = own
    return decided


def told_lenses(database: Path, old: Cameras, doubted: Sequence[str]) -> list[str]:
    """Notes on photos that had a camera of the map for their size alone.

    Args:
        database: Holds the new photos with the cameras that were decided on.
        old: Cameras of the old photos.
        doubted: The photos.
    """
    with pycolmap.Database.open(database) as opened:
        chosen = {image.name: image.camera_id for image in opened.read_all_images() if image.name in doubted}
    of_map = {camera.camera_id for camera in old.values()}
    own = sorted(name for name, number in chosen.items() if number not in of_map)
    shared = len(doubted) - len(own)
    notes = []
    if shared:
        notes.append(
            f"{shared} new photos without EXIF data fit the camera of the map for their size and share it"
        )
    if own:
        notes.append(
            f"{len(own)} new photos without EXIF data have the size of old ones, but do not show that the "
            f"same lens took them; each got a camera of its own: {', '.join(own)}"
        )
    return notes


def _own_lens(seen: Sightings, shared: pycolmap.Camera, pixel: float, seed: int) -> pycolmap.Camera | None:
    """A camera of its own, that starts from the map's; None where the map's is as good."""
    by_map, freed = (_posed(seen, shared, pixel, focal, seed) for focal in ("known", "unknown"))
    if freed is None or len(seen) < FEWEST:
        own = pycolmap.Camera(shared.todict())
        own.has_prior_focal_length = False
        return own
    found = freed.cameras[0].mean_focal_length()
    if abs(found / shared.mean_focal_length() - 1) <= SAME or _gain(by_map, freed) <= GAIN:
        return None
    return _off_centre(seen, freed) or freed.cameras[0]


def _off_centre(seen: Sightings, freed: Posed) -> pycolmap.Camera | None:
    """The camera with another principal point, as a crop has it; None where that is not beyond doubt."""
    mask, camera = freed.inliers[0], pycolmap.Camera(freed.cameras[0].todict())
    columns = [6 + column for column in camera.principal_point_idxs()]
    if len(columns) != 2:
        return None
    start, places, xyz = freed.rig_from_world, to_colmap(seen.places[mask]), seen.xyz[mask]

    def residuals(values: Float64[np.ndarray, " p"]) -> Float64[np.ndarray, " 2m"]:
        camera.params = values[6:].tolist()
        turn = Rotation.from_rotvec(values[:3]).as_matrix()
        projected = camera.img_from_cam(xyz @ (turn @ start.rotation.matrix()).T + values[3:6])
        gaps = np.asarray(projected, np.float64) - places
        return np.asarray(np.nan_to_num(gaps, nan=FAR, posinf=FAR, neginf=-FAR).reshape(-1))

    spread = _spread(freed)
    first = np.concatenate([np.zeros(3), start.translation, camera.params])
    found = least_squares(residuals, first, loss="cauchy", f_scale=spread, x_scale="jac")
    slopes = np.asarray(found.jac, np.float64)
    deviation = spread * np.sqrt(np.diag(np.linalg.pinv(slopes.T @ slopes))[columns].max())
    shift = np.abs(found.x[columns] - first[columns]).max()
    gain = (np.log1p((residuals(first) / spread) ** 2) - np.log1p((residuals(found.x) / spread) ** 2)).sum()
    least = max(SAME * max(camera.width, camera.height), CERTAIN * deviation)
    if shift <= least or gain <= GAIN:
        return None
    camera.params = found.x[6:].tolist()
    return camera


def _posed(seen: Sightings, camera: pycolmap.Camera, pixel: float, focal: Focal, seed: int) -> Posed | None:
    return find_pose([View(seen, camera, pixel, focal)], seed=seed)


def _gain(by_map: Posed | None, freed: Posed) -> float:
    """By how much a focal length of its own is likelier, as a logarithm; errors follow Cauchy's law."""
    if by_map is None:
        return np.inf
    spread = _spread(freed)
    costs = [1.5 * np.log1p((np.minimum(row.errors[0], FAR) / spread) ** 2).sum() for row in (by_map, freed)]
    return float(costs[0] - costs[1])


def _spread(posed: Posed) -> float:
    """Median error of the inliers in pixels."""
    return max(float(np.median(posed.errors[0][posed.inliers[0]])), 1e-9)


def _sightings(model: pycolmap.Reconstruction, matched: Matched, name: str, pixel: float) -> Sightings:
    """What a new photo sees of the points of a model, by its verified matches."""
    images = {image.name: image for image in model.images.values() if image.has_pose}
    shown, seen = [], []
    for row in matched.verified:
        if name not in row.pair or not row.inliers:
            continue
        side = row.pair.index(name)
        image = images.get(row.pair[1 - side])
        if image is None:
            continue
        marks = landmarks_of(model, image)
        pairs = np.asarray(row.geometry.inlier_matches, np.int64)
        mine, theirs = pairs[:, side], pairs[:, 1 - side]
        known = np.isin(theirs, marks.keypoints)
        mine, theirs = mine[known], theirs[known]
        shown.append(marks)
        seen.append(
            Sighting(
                rows=np.searchsorted(marks.keypoints, theirs),
                places=matched.keypoints(name)[mine],
                keypoints=mine,
                scores=np.ones(len(mine), np.float32),
            )
        )
    return gather(shown, seen, pixel)
