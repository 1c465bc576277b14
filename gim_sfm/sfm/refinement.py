"""Sub-pixel refinement: every track is laid over one of its own views, and the model's keypoints move there.

A network sees a photo at reduced size and puts its keypoints half a pixel off, in each photo another way.
Cameras and points of the first model tell how a small patch round a point looks from every other photo; Lucas
and Kanade's alignment (inverse compositional: Baker and Matthews, IJCV 2004) then finds each patch to a tenth
of a pixel. What is common to a whole track only shifts its point, so the view that serves as reference needs
no refinement itself.
"""

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from scipy.spatial import cKDTree

from gim_sfm.images import read_photo
from gim_sfm.matchers.frame import Frame, to_network
from gim_sfm.sfm.colmap import from_colmap, to_colmap

logger = logging.getLogger(__name__)

Points = Float64[np.ndarray, "n 2"]
Grey = UInt8[np.ndarray, "height width"]

LONGEST = 1600
"""Longest side in pixels at which patches are compared; about half again what the networks see."""

RADIUS = 5
BLUR = 0.7
"""Standard deviation in pixels: without it the slope between two pixels says nothing beyond them."""

ITERATIONS = 10
SETTLED = 0.02
"""Steps shorter than this, in pixels, end the search."""

FARTHEST = 3.0
LEAST_AGREEMENT = 0.8
"""Correlation below which two patches do not show the same thing."""

STEEPEST = 0.15
"""Least cosine between a surface's normal and a line of sight for the surface to be believed."""

FLATTEST = 0.3
"""Most thickness over width of the neighbourhood of a point for its surface to be believed."""

REFERENCE_LEAD = 2.0
"""More than two cosines can differ by."""

LARGEST_ZOOM = 4.0
NEIGHBOURS = 10
CACHED_PHOTOS = 128


@dataclass(frozen=True, slots=True)
class View:
    """A photo as it is compared: grey, slightly blurred, at its working size."""

    pixels: Grey
    frame: Frame


@dataclass(frozen=True, slots=True)
class Refinement:
    """What refinement did to a model.

    Attributes:
        compared: Observations other than the reference of their track.
        moved: Of these, how many were found again; the rest lost their 3D point.
        shift: Median distance moved, in file pixels.
    """

    compared: int
    moved: int
    shift: float


@dataclass(frozen=True, slots=True)
class _Tracks:
    """Observations to compare, one a row, with the reference of their track.

    Attributes:
        point: Row of the point in `xyz`.
        reference: Image id and keypoint index.
        other: Image id and keypoint index.
    """

    xyz: Float64[np.ndarray, "points 3"]
    normals: Float64[np.ndarray, "points 3"]
    point: Int64[np.ndarray, " n"]
    reference: Int64[np.ndarray, "n 2"]
    other: Int64[np.ndarray, "n 2"]


def read_view(path: Path) -> View:
    """Reads a photo for comparison, no larger than its file."""
    photo, frame = to_network(read_photo(path, longest=LONGEST), LONGEST, 1, enlarge_to=0)
    return View(cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (0, 0), BLUR), frame)


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of a model is refined.

    Attributes:
        points: Points whose observations are looked at; None for all.
        is_settled: Whether an observation, by image id and keypoint index, stays where it is; such ones serve
            as references before any others do.
    """

    points: Collection[int] | None = None
    is_settled: Callable[[int, int], bool] = lambda _image, _index: False


EVERYTHING = Share()


def refine_keypoints(
    model: pycolmap.Reconstruction, read: Callable[[str], View], share: Share = EVERYTHING
) -> Refinement:
    """Moves the keypoints of a model, in place, to where their track's reference patch is found.

    Observations whose patch is not found again are taken off their point. Poses, cameras and the points that
    remain stay as they are: adjust the bundle afterwards.

    Args:
        model: Registered photos with triangulated points.
        read: Gives a photo by its name.
        share: What of the model; the rest is neither looked at nor moved.

    Returns:
        How many observations moved, and how far.
    """
    cached = lru_cache(maxsize=CACHED_PHOTOS)(read)
    tracks = _tracks(model, share)
    moved = 0
    shifts = [np.zeros(0)]
    lost: list[tuple[int, int]] = []
    for rows in _by_photo_pair(tracks):
        found, positions, shift = _find_again(model, tracks, rows, cached)
        shifts.append(shift[found])
        moved += int(found.sum())
        image = model.images[int(tracks.other[rows[0], 0])]
        for index, position in zip(tracks.other[rows[found], 1], positions[found], strict=True):
            image.points2D[int(index)].xy = position
        lost += [(image.image_id, int(index)) for index in tracks.other[rows[~found], 1]]
    _take_off(model, lost)
    shift_of_all = np.concatenate(shifts)
    median = float(np.median(shift_of_all)) if moved else 0.0
    logger.info(
        "%d of %d observations refined, by %.2f pixels in the median", moved, len(tracks.point), median
    )
    return Refinement(len(tracks.point), moved, median)


def _tracks(model: pycolmap.Reconstruction, share: Share) -> _Tracks:
    chosen = sorted(model.points3D if share.points is None else share.points)
    points = [model.points3D[number] for number in chosen]
    xyz = np.array([point.xyz for point in points]).reshape(-1, 3)
    centres = {image.image_id: image.projection_center() for image in model.images.values() if image.has_pose}
    normals, thickness = _surfaces(xyz)
    rows: list[tuple[int, int, int, int, int]] = []
    for number, point in enumerate(points):
        elements = point.track.elements
        sights = np.array([centres[element.image_id] for element in elements]) - xyz[number]
        sights /= np.linalg.norm(sights, axis=1, keepdims=True)
        middle = sights.mean(axis=0)
        normals[number] *= 1.0 if normals[number] @ middle > 0 else -1.0
        if thickness[number] > FLATTEST or (sights @ normals[number]).min() < STEEPEST:
            normals[number] = middle / max(np.linalg.norm(middle), 1e-12)
        settled = np.array([share.is_settled(part.image_id, part.point2D_idx) for part in elements])
        best = int(np.argmax(sights @ middle + REFERENCE_LEAD * settled))
        reference = elements[best]
        rows += [
            (number, reference.image_id, reference.point2D_idx, element.image_id, element.point2D_idx)
            for place, element in enumerate(elements)
            if place != best and not settled[place]
        ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 5)
    return _Tracks(xyz, normals, table[:, 0], table[:, 1:3], table[:, 3:5])


def _surfaces(
    xyz: Float64[np.ndarray, "points 3"],
) -> tuple[Float64[np.ndarray, "points 3"], Float64[np.ndarray, " points"]]:
    """Normals of planes through the nearest points, and how thick the neighbourhood is for its width."""
    if len(xyz) < 3:
        return np.zeros_like(xyz), np.ones(len(xyz))
    _, near = cKDTree(xyz).query(xyz, k=min(NEIGHBOURS + 1, len(xyz)))
    offsets = xyz[near] - xyz[near].mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", offsets, offsets))
    return axes[:, :, 0].copy(), spread[:, 0] / np.maximum(spread[:, 1], 1e-12)


def _by_photo_pair(tracks: _Tracks) -> Iterator[Int64[np.ndarray, " rows"]]:
    order = np.lexsort((tracks.other[:, 0], tracks.reference[:, 0]))
    keys = np.stack([tracks.reference[order, 0], tracks.other[order, 0]], axis=1)
    cuts = np.flatnonzero(np.any(keys[1:] != keys[:-1], axis=1)) + 1
    return (rows for rows in np.split(order, cuts) if len(rows))


def _find_again(
    model: pycolmap.Reconstruction,
    tracks: _Tracks,
    rows: Int64[np.ndarray, " rows"],
    read: Callable[[str], View],
) -> tuple[Bool[np.ndarray, " rows"], Points, Float64[np.ndarray, " rows"]]:
    """Observations of one photo, references in another: found, where (COLMAP's pixels), how far moved."""
    reference = model.images[int(tracks.reference[rows[0], 0])]
    other = model.images[int(tracks.other[rows[0], 0])]
    here, there = read(reference.name), read(other.name)
    known = _keypoints(reference, tracks.reference[rows, 1])
    start = _keypoints(other, tracks.other[rows, 1])
    warps = _warps(
        reference, other, known, tracks.xyz[tracks.point[rows]], tracks.normals[tracks.point[rows]]
    )
    warps *= np.array(there.frame.scale)[:, None] / np.array(here.frame.scale)[None, :]
    aligned = align_patches(
        here.pixels, there.pixels, here.frame.to_network(known), there.frame.to_network(start), warps
    )
    position = there.frame.to_file(aligned.positions).astype(np.float64)
    return aligned.found, to_colmap(position), np.linalg.norm(position - start, axis=1)


def _keypoints(image: pycolmap.Image, indices: Int64[np.ndarray, " n"]) -> Points:
    return from_colmap(np.array([image.points2D[int(index)].xy for index in indices]))


def _warps(
    reference: pycolmap.Image,
    other: pycolmap.Image,
    known: Points,
    xyz: Float64[np.ndarray, "n 3"],
    normals: Float64[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n 2 2"]:
    """How file pixels of the other photo change with those of the reference, through each point's surface."""
    reference_from_world = reference.cam_from_world().matrix()
    other_from_world = other.cam_from_world().matrix()
    centre = reference.projection_center()
    cameras = reference.camera, other.camera
    assert cameras[0] is not None and cameras[1] is not None
    unproject, project = cameras[0].cam_from_img, cameras[1].img_from_cam

    def through_surface(offset: tuple[float, float]) -> Points:
        rays = unproject(to_colmap(known + np.array(offset)))
        sights = np.column_stack([rays, np.ones(len(rays))]) @ reference_from_world[:, :3]
        slant = np.sum(sights * normals, axis=1)
        depth = np.sum((xyz - centre) * normals, axis=1) / np.where(np.abs(slant) < 1e-9, 1e-9, slant)
        seen = (centre + depth[:, None] * sights) @ other_from_world[:, :3].T + other_from_world[:, 3]
        return np.asarray(project(seen), np.float64)

    along_x = through_surface((1.0, 0.0)) - through_surface((-1.0, 0.0))
    along_y = through_surface((0.0, 1.0)) - through_surface((0.0, -1.0))
    return np.stack([along_x, along_y], axis=-1) / 2.0


def _take_off(model: pycolmap.Reconstruction, observations: list[tuple[int, int]]) -> None:
    manager = pycolmap.ObservationManager(model)
    for image, index in observations:
        if model.images[image].points2D[index].has_point3D():
            manager.delete_observation(image, index)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Where patches were found.

    Attributes:
        positions: (x, y) in the other photo.
        found: Whether the search settled nearby on a patch that looks the same.
    """

    positions: Points
    found: Bool[np.ndarray, " n"]


def align_patches(
    reference: Grey,
    other: Grey,
    centres: Float[np.ndarray, "n 2"],
    starts: Float[np.ndarray, "n 2"],
    warps: Float64[np.ndarray, "n 2 2"],
) -> Alignment:
    """Finds patches of one photo in another to a fraction of a pixel, whatever their brightness and contrast.

    Args:
        reference: The photo the patches are cut from.
        other: The photo they are looked for in.
        centres: (x, y) of the patches.
        starts: (x, y) where the search starts, right to about two pixels.
        warps: How a step in the reference shows in the other photo.
    """
    ticks = np.arange(-RADIUS, RADIUS + 1, dtype=np.float64)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    weights = np.exp(-np.sum(grid**2, axis=1) / (2 * (0.6 * RADIUS) ** 2))
    weights /= weights.sum()
    places = centres[:, None] + grid
    template, contrast = _normalised(_sample(reference, places), weights)
    half = np.array([[0.5, 0.0], [0.0, 0.5]])
    slopes = np.stack(
        [_sample(reference, places + step) - _sample(reference, places - step) for step in half], axis=-1
    )
    slopes /= contrast[:, None, None]
    hessian = np.einsum("nki,nkj,k->nij", slopes, slopes, weights)
    solve = np.linalg.inv(hessian + 1e-6 * np.eye(2))
    offsets = np.einsum("nij,kj->nki", warps, grid)
    positions, steps = starts.astype(np.float64), np.full(len(starts), np.inf)
    active = np.arange(len(starts))
    for _ in range(ITERATIONS):
        patch, _ = _normalised(_sample(other, positions[active, None] + offsets[active]), weights)
        residual = (patch - template[active]) * weights
        update = np.einsum("nij,nkj,nk->ni", solve[active], slopes[active], residual)
        positions[active] -= np.einsum("nij,nj->ni", warps[active], update)
        steps[active] = np.linalg.norm(update, axis=1)
        away = np.linalg.norm(positions[active] - starts[active], axis=1) > 2 * FARTHEST
        active = active[(steps[active] > SETTLED) & ~away]
        if not len(active):
            break
    patch, _ = _normalised(_sample(other, positions[:, None] + offsets), weights)
    zoom = np.abs(np.linalg.det(warps))
    found = (
        (np.sum(patch * template * weights, axis=1) > LEAST_AGREEMENT)
        & (np.linalg.norm(positions - starts, axis=1) < FARTHEST)
        & (steps < 5 * SETTLED)
        & (zoom < LARGEST_ZOOM**2)
        & (zoom > LARGEST_ZOOM**-2)
        & _inside(reference, places)
        & _inside(other, positions[:, None] + offsets)
    )
    return Alignment(positions, found)


def _normalised(
    patches: Float64[np.ndarray, "n k"], weights: Float64[np.ndarray, " k"]
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, " n"]]:
    """Patches with mean zero and deviation one, and the deviation they had."""
    offset = patches - (patches @ weights)[:, None]
    contrast = np.sqrt(offset**2 @ weights) + 1e-3
    return offset / contrast[:, None], contrast


def _inside(image: Grey, places: Float64[np.ndarray, "n k 2"]) -> Bool[np.ndarray, " n"]:
    height, width = image.shape
    return np.asarray(np.all((places >= 0) & (places <= [width - 1, height - 1]), axis=(1, 2)))


def _sample(image: Grey, places: Float64[np.ndarray, "n k 2"]) -> Float64[np.ndarray, "n k"]:
    """Grey values between the pixels; beyond the border, those of the border."""
    height, width = image.shape
    x = np.clip(places[..., 0], 0, width - 1.001)
    y = np.clip(places[..., 1], 0, height - 1.001)
    left, top = x.astype(np.int64), y.astype(np.int64)
    right_share, low_share = x - left, y - top
    flat, corner = image.ravel(), top * width + left
    upper = flat[corner] * (1 - right_share) + flat[corner + 1] * right_share
    lower = flat[corner + width] * (1 - right_share) + flat[corner + width + 1] * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share)
