"""Camera poses compared with the truth: angles, pairwise errors, areas under the recall curve, alignment.

A pose is the upper 3x4 part [R | t] of cam_from_world, x_cam = R x_world + t. Every function marked "batched"
takes any leading axes. Angles are in degrees, lengths in the unit of the poses handed in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, repeat
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import ArrayLike

from gim_sfm.errors import InputError
from gim_sfm.types import Pair

Rotations = Float64[np.ndarray, "*batch 3 3"]
Poses = Float64[np.ndarray, "*batch 3 4"]
Vectors = Float64[np.ndarray, "*batch 3"]
Angles = Float64[np.ndarray, "*batch"]

NO_BASELINE = 1e-9
"""A translation shorter than this has no direction."""

COLLINEAR = 1e-9
"""Points whose variance across a line is below this share of that along it leave the roll open."""


def rotation_angle_degrees(rotation: Rotations) -> Angles:
    """Angle of a rotation, batched; exact for tiny angles and for half turns alike.

    Args:
        rotation: Rotation matrices, (..., 3, 3).

    Returns:
        Degrees in [0, 180], (...).
    """
    axis = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    twice_cosine = np.trace(rotation, axis1=-2, axis2=-1) - 1.0
    angle: Angles = np.degrees(np.arctan2(np.linalg.norm(axis, axis=-1), twice_cosine))
    return angle


def direction_angle_degrees(first: Vectors, second: Vectors) -> Angles:
    """Angle between two directions, batched.

    Two vectors without length agree (0 degrees); one with and one without a direction are opposed (180).

    Args:
        first: Vectors of any length, (..., 3).
        second: Vectors of any length, (..., 3).

    Returns:
        Degrees in [0, 180], (...).
    """
    lengths = np.linalg.norm(first, axis=-1), np.linalg.norm(second, axis=-1)
    still = lengths[0] < NO_BASELINE, lengths[1] < NO_BASELINE
    sine = np.linalg.norm(np.cross(first, second), axis=-1)
    angle = np.degrees(np.arctan2(sine, np.sum(first * second, axis=-1)))
    return np.where(still[0] & still[1], 0.0, np.where(still[0] | still[1], 180.0, angle))


def invert(target_from_source: Poses) -> Poses:
    """source_from_target of rigid transforms, batched."""
    rotation = np.swapaxes(target_from_source[..., :3], -1, -2)
    return np.concatenate([rotation, -rotation @ target_from_source[..., 3:]], axis=-1)


def compose(c_from_b: Poses, b_from_a: Poses) -> Poses:
    """c_from_a of rigid transforms, batched."""
    rotation = c_from_b[..., :3] @ b_from_a[..., :3]
    return np.concatenate([rotation, c_from_b[..., :3] @ b_from_a[..., 3:] + c_from_b[..., 3:]], axis=-1)


def relative_pose(first_from_world: Poses, second_from_world: Poses) -> Poses:
    """second_from_first of two cameras, batched."""
    return compose(second_from_world, invert(first_from_world))


def camera_centres(cam_from_world: Poses) -> Vectors:
    """Where the cameras stand in the world, batched: (..., 3)."""
    centres: Vectors = invert(cam_from_world)[..., 3]
    return centres


@dataclass(frozen=True, slots=True)
class PoseErrors:
    """Errors of relative poses.

    Attributes:
        rotation: Angle between the two rotations, degrees.
        translation: Angle between the two baselines, degrees: the scale of a relative pose cannot be known.
    """

    rotation: Angles
    translation: Angles

    @property
    def worst(self) -> Angles:
        """The larger of the two, which is what recall curves of relative poses count."""
        worst: Angles = np.maximum(self.rotation, self.translation)
        return worst


def relative_pose_error(estimated: Poses, truth: Poses) -> PoseErrors:
    """Errors of second_from_first against the truth, batched.

    Where neither pose has a baseline the translation is right (0 degrees); where one has, wrong (180).

    Args:
        estimated: Relative poses, (..., 3, 4), translation up to scale.
        truth: Relative poses, (..., 3, 4).

    Returns:
        Errors in degrees, each (...).
    """
    difference = estimated[..., :3] @ np.swapaxes(truth[..., :3], -1, -2)
    return PoseErrors(
        rotation=rotation_angle_degrees(difference),
        translation=direction_angle_degrees(estimated[..., 3], truth[..., 3]),
    )


@dataclass(frozen=True, slots=True)
class PairErrors(PoseErrors):
    """Errors of the relative poses of named pairs; infinite where an image has no pose."""

    pairs: tuple[Pair, ...]


def pairwise_pose_errors(
    estimated: Mapping[str, ArrayLike],
    truth: Mapping[str, ArrayLike],
) -> PairErrors:
    """Relative pose errors over all pairs of the images whose truth is known.

    Needs no alignment of the two worlds. An image that was not registered fails in every pair it is part of.

    Args:
        estimated: cam_from_world (3x4) by image name, in any world frame and scale; other names are ignored.
        truth: cam_from_world (3x4) by image name.

    Returns:
        One entry for each unordered pair, names sorted, errors in degrees.

    Raises:
        InputError: Fewer than two images have a true pose.
    """
    names = sorted(truth)
    if len(names) < 2:
        raise InputError(
            f"Pairs need two images with a true pose, {len(names)} given.",
            remedy="Hand in the true poses of at least two images.",
        )
    pairs = tuple(combinations(names, 2))
    first, second = np.triu_indices(len(names), k=1)
    unknown = np.full((3, 4), np.nan)
    guess = np.stack([np.asarray(estimated.get(name, unknown), dtype=np.float64) for name in names])
    target = np.stack([np.asarray(truth[name], dtype=np.float64) for name in names])
    found = np.isfinite(guess).sum(axis=(1, 2)) == 12
    both = found[first] & found[second]
    errors = relative_pose_error(
        relative_pose(guess[first[both]], guess[second[both]]),
        relative_pose(target[first[both]], target[second[both]]),
    )
    rotation, translation = np.full((2, len(pairs)), np.inf)
    rotation[both], translation[both] = errors.rotation, errors.translation
    return PairErrors(rotation=rotation, translation=translation, pairs=pairs)


def auc(errors: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Area under the recall curve up to each threshold, as a share of the perfect area.

    Recall is the polyline through (0, 0) and (e_k, k / n) of the sorted errors, level from the last error
    below the threshold on, without binning: the measure of SuperGlue (Sarlin et al., CVPR 2020), used since
    by LoFTR, LightGlue and GIM. Summed by parts, its trapezoids below T come to
    (sum of T - e over the errors below T + half the largest of them) / (n T).

    Args:
        errors: One error a pair; infinite or not a number for a failure.
        thresholds: Where the curve is cut, in the unit of the errors.

    Returns:
        One number in [0, 1] a threshold.

    Raises:
        InputError: There are no errors, or a threshold is not positive.
    """
    values = np.asarray(errors, dtype=np.float64).ravel()
    if values.size == 0 or min(thresholds, default=1.0) <= 0:
        raise InputError(
            f"No recall curve from {values.size} errors cut at {list(thresholds)}.",
            remedy="Hand in at least one error and thresholds above zero.",
        )
    return [_area(values, threshold) for threshold in thresholds]


def _area(errors: Float64[np.ndarray, " n"], threshold: float) -> float:
    below = errors[errors < threshold]
    last = below.max(initial=0.0) / 2
    return fsum((*repeat(threshold, len(below)), *-below, last)) / (len(errors) * threshold)


@dataclass(frozen=True, slots=True)
class Similarity:
    """target_from_source with one scale: x_target = scale R x_source + t."""

    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, " 3"]

    def apply(self, points: Float[np.ndarray, "*batch 3"]) -> Vectors:
        """Points of the source, batched, in the target's frame."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation, dtype=np.float64)

    def move_pose(self, cam_from_source: Poses) -> Poses:
        """cam_from_target of cameras given in the source's frame, batched; lengths in the target's unit."""
        rotation = cam_from_source[..., :3] @ self.rotation.T
        centres = self.apply(camera_centres(cam_from_source))
        return np.concatenate([rotation, -rotation @ centres[..., None]], axis=-1)

    def invert(self) -> "Similarity":
        """source_from_target."""
        rotation = self.rotation.T
        return Similarity(1.0 / self.scale, rotation, -rotation @ self.translation / self.scale)


def umeyama(source: Float[np.ndarray, "n 3"], target: Float[np.ndarray, "n 3"]) -> Similarity:
    """Similarity that brings points nearest to their partners (Umeyama, TPAMI 1991).

    Minimises the mean of |target - (s R source + t)|^2 over scale, proper rotation and translation.

    Args:
        source: Points, one a row.
        target: Their partners, row by row.

    Returns:
        target_from_source.

    Raises:
        InputError: Fewer than three points, or points on one line, which leave the rotation open.
    """
    count = max(len(source), 1)
    mean = source.sum(axis=0) / count, target.sum(axis=0) / count
    offset = source - mean[0], target - mean[1]
    covariance = offset[1].T @ offset[0] / count
    left, spread, right = np.linalg.svd(covariance)
    if len(source) < 3 or not spread[1] > COLLINEAR * spread[0]:
        raise InputError(
            f"A similarity is not determined by these {len(source)} points: they lie on one line.",
            remedy="Hand in three or more points off one line, or compare relative poses instead.",
        )
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = float(np.sum(spread * signs) / (np.sum(offset[0] ** 2) / count))
    return Similarity(scale, rotation, mean[1] - scale * rotation @ mean[0])


@dataclass(frozen=True, slots=True)
class AbsoluteErrors:
    """Errors of camera poses once the estimated world is laid over the true one.

    Attributes:
        names: The images, sorted.
        position: Distance between the camera centres, in the unit of the truth.
        rotation: Angle between the camera rotations, degrees.
        truth_from_estimate: The alignment used.
    """

    names: tuple[str, ...]
    position: Float64[np.ndarray, " n"]
    rotation: Float64[np.ndarray, " n"]
    truth_from_estimate: Similarity


def aligned_pose_errors(estimated: Mapping[str, ArrayLike], truth: Mapping[str, ArrayLike]) -> AbsoluteErrors:
    """Errors of every camera that both sides know, after aligning the camera centres.

    Args:
        estimated: cam_from_world (3x4) by image name, in any world frame and scale.
        truth: cam_from_world (3x4) by image name.

    Returns:
        Errors of the shared images.

    Raises:
        InputError: The shared camera centres do not determine a similarity.
    """
    names = tuple(sorted(set(estimated) & set(truth)))
    guess = np.array([estimated[name] for name in names], dtype=np.float64).reshape(-1, 3, 4)
    target = np.array([truth[name] for name in names], dtype=np.float64).reshape(-1, 3, 4)
    truth_from_estimate = umeyama(camera_centres(guess), camera_centres(target))
    moved = truth_from_estimate.move_pose(guess)
    return AbsoluteErrors(
        names=names,
        position=np.linalg.norm(camera_centres(moved) - camera_centres(target), axis=-1),
        rotation=rotation_angle_degrees(moved[:, :, :3] @ np.swapaxes(target[:, :, :3], -1, -2)),
        truth_from_estimate=truth_from_estimate,
    )


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Known cameras of a photo folder, by image name.

    Attributes:
        sizes: (width, height) in pixels.
        intrinsics: Pinhole matrix, 3x3, pixels, first pixel's centre at (0, 0).
        cam_from_world: 3x4, x_cam = R x_world + t.
    """

    sizes: dict[str, tuple[int, int]]
    intrinsics: dict[str, Float64[np.ndarray, "3 3"]]
    cam_from_world: dict[str, Float64[np.ndarray, "3 4"]]


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads a ground_truth.json: `images.<name>` with width, height, K and cam_from_world.

    Raises:
        InputError: The file is missing, is no JSON, or lacks a key or a shape.
    """
    try:
        images: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["images"]
        return GroundTruth(
            sizes={name: (int(entry["width"]), int(entry["height"])) for name, entry in images.items()},
            intrinsics={name: _matrix(entry["K"], (3, 3)) for name, entry in images.items()},
            cam_from_world={name: _matrix(entry["cam_from_world"], (3, 4)) for name, entry in images.items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no ground truth that can be read: {type(error).__name__}: {error}",
            remedy="Give a JSON file: images.<name> with width, height, K (3x3) and cam_from_world (3x4).",
        ) from error


def _matrix(rows: object, shape: tuple[int, int]) -> Float64[np.ndarray, "rows columns"]:
    return np.asarray(rows, dtype=np.float64).reshape(shape)
