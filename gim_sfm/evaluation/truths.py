"""Known cameras and homographies, read from numbers in text files, and refused where they cannot be true."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

MOST_SKEWED = 1e-3
"""Largest entry by which R^T R may miss the identity: published rotations have five or six digits."""

SINGULAR = 1e-12
"""A homography whose determinant is below this, its largest entry being one, cannot be undone."""


def read_intrinsics(numbers: Sequence[str]) -> Float64[np.ndarray, "3 3"]:
    """Pinhole matrix from nine numbers, row by row.

    Args:
        numbers: Nine tokens.

    Returns:
        3x3, in pixels.

    Raises:
        ValueError: Says why they are no pinhole matrix.
    """
    intrinsics = _read_matrix(numbers, 3, 3, "intrinsics")
    focal_lengths = intrinsics[0, 0], intrinsics[1, 1]
    if min(focal_lengths) <= 0:
        raise ValueError(
            f"the focal lengths of the intrinsics are {focal_lengths[0]:g} and {focal_lengths[1]:g}"
        )
    if intrinsics[1, 0] != 0 or not _ends_in(intrinsics, (0, 0, 1)):
        raise ValueError("the intrinsics are not of the form fx s cx, 0 fy cy, 0 0 1")
    return intrinsics


def read_pose(numbers: Sequence[str]) -> Float64[np.ndarray, "3 4"]:
    """Rigid transform from the sixteen numbers of a 4x4 matrix, row by row.

    The rotation is taken as it is written, not made orthonormal: results published on it were not either.

    Args:
        numbers: Sixteen tokens.

    Returns:
        [R | t], 3x4, in the unit of the file.

    Raises:
        ValueError: Says why they are no rigid transform.
    """
    pose = _read_matrix(numbers, 4, 4, "pose")
    rotation = pose[:3, :3]
    skew = np.abs(rotation.T @ rotation - np.eye(3)).max()
    if not _ends_in(pose, (0, 0, 0, 1)):
        raise ValueError("the last row of the pose is not 0 0 0 1")
    if skew > MOST_SKEWED:
        raise ValueError(f"the pose does not hold a rotation: R^T R misses the identity by {skew:.2g}")
    if np.linalg.det(rotation) < 0:
        raise ValueError("the pose holds a reflection, not a rotation")
    return pose[:3]


def read_homography(numbers: Sequence[str]) -> Float64[np.ndarray, "3 3"]:
    """Homography from nine numbers, row by row, in the scale they have.

    Args:
        numbers: Nine tokens.

    Returns:
        3x3.

    Raises:
        ValueError: Says why they are no homography.
    """
    homography = _read_matrix(numbers, 3, 3, "homography")
    largest = np.abs(homography).max()
    if largest == 0 or abs(np.linalg.det(homography / largest)) < SINGULAR:
        raise ValueError("the homography is singular")
    return homography


def _read_matrix(numbers: Sequence[str], rows: int, columns: int, what: str) -> Float64[np.ndarray, "r c"]:
    if len(numbers) != rows * columns:
        raise ValueError(f"{len(numbers)} numbers given for the {what}, not {rows * columns}")
    values = [_read_number(token, what) for token in numbers]
    return np.array(values, dtype=np.float64).reshape(rows, columns)


def _read_number(token: str, what: str) -> float:
    try:
        value = float(token)
    except ValueError:
        raise ValueError(f"{token[:40]!r} in the {what} is not a number") from None
    if not np.isfinite(value):
        raise ValueError(f"{token} in the {what} is not finite")
    return value


def _ends_in(matrix: Float64[np.ndarray, "r c"], row: Sequence[float]) -> bool:
    return bool(np.allclose(matrix[-1], row, rtol=0, atol=1e-6))
