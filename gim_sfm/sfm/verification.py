"""Two-view geometry of matched pairs, estimated in the background while the next pairs are matched."""

import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pycolmap
from jaxtyping import Float32, Int32

from gim_sfm.sfm.colmap import Cameras, to_colmap
from gim_sfm.types import Pair

TRIALS = 20_000
INLIER_RATIO = 0.1
"""RANSAC goes on until a model that only this share of the matches supports would have been found."""


@dataclass(frozen=True, slots=True)
class VerifiedPair:
    """What is known of a pair after verification.

    Attributes:
        pair: The two photos.
        matches: Matches handed in.
        inliers: Matches that agree with one two-view geometry; 0 when the pair was refused.
        geometry: That geometry with its inlier matches, as COLMAP's database takes it.
    """

    pair: Pair
    matches: int
    inliers: int
    geometry: pycolmap.TwoViewGeometry


def verify_pair(
    pair: Pair,
    cameras: tuple[pycolmap.Camera, pycolmap.Camera],
    keypoints: tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "k 2"]],
    indices: Int32[np.ndarray, "m 2"],
    *,
    seed: int = 0,
    max_error: float = 4.0,
    min_inliers: int = 15,
) -> VerifiedPair:
    """Fits an essential or fundamental matrix and a homography to the matches of a pair.

    The random numbers depend on the seed and the two names only, so the order of pairs does not matter.

    Args:
        pair: Names of the two photos.
        cameras: Their cameras; the essential matrix is used where both focal lengths are known.
        keypoints: Their (x, y) in file pixels.
        indices: Matches.
        seed: Seed of RANSAC.
        max_error: Largest Sampson error of an inlier in pixels.
        min_inliers: Fewer than these, and the pair is refused.
    """
    options = pycolmap.TwoViewGeometryOptions(min_num_inliers=min_inliers)
    options.ransac.max_error = max_error
    options.ransac.max_num_trials = TRIALS
    options.ransac.min_inlier_ratio = INLIER_RATIO
    options.ransac.random_seed = zlib.crc32("\0".join((str(seed), *pair)).encode()) >> 1
    if len(indices) < min_inliers:
        return VerifiedPair(pair, len(indices), 0, pycolmap.TwoViewGeometry())
    geometry = pycolmap.estimate_two_view_geometry(
        cameras[0],
        to_colmap(keypoints[0]),
        cameras[1],
        to_colmap(keypoints[1]),
        np.ascontiguousarray(indices, np.uint32),
        options,
    )
    return VerifiedPair(pair, len(indices), len(geometry.inlier_matches), geometry)


class Verifier:
    """Verifies pairs in background threads as matching hands them in (COLMAP's estimator releases the GIL).

    Args:
        cameras: Camera of each photo.
        seed: Seed of RANSAC.
        threads: Pairs verified at the same time.
    """

    def __init__(self, cameras: Cameras, *, seed: int = 0, threads: int = 1) -> None:
        self._cameras: Mapping[str, pycolmap.Camera] = cameras
        self._seed = seed
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="verify")
        self._pending: dict[Pair, Future[VerifiedPair]] = {}

    def submit(
        self,
        pair: Pair,
        keypoints: tuple[Float32[np.ndarray, "n 2"], Float32[np.ndarray, "k 2"]],
        indices: Int32[np.ndarray, "m 2"],
    ) -> None:
        """Queues a pair; returns at once. A pair handed in twice counts once, with its last matches."""
        cameras = self._cameras[pair[0]], self._cameras[pair[1]]
        self._pending[pair] = self._pool.submit(
            verify_pair, pair, cameras, keypoints, indices, seed=self._seed
        )

    def results(self) -> list[VerifiedPair]:
        """Waits for all pairs handed in so far and returns them in the order of their names."""
        return [future.result() for _, future in sorted(self._pending.items(), key=lambda item: item[0])]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)


def parallax_degrees(database: Path, pairs: Iterable[Pair]) -> dict[Pair, float]:
    """Median triangulation angle of verified pairs; 0 where the photos differ by a rotation only.

    Args:
        database: COLMAP database.
        pairs: Pairs that stand in it as verified.
    """
    with pycolmap.Database.open(database) as opened:
        images = {image.name: image for image in opened.read_all_images()}
        return {pair: _parallax(opened, images[pair[0]], images[pair[1]]) for pair in pairs}


def _parallax(database: pycolmap.Database, image0: pycolmap.Image, image1: pycolmap.Image) -> float:
    geometry = database.read_two_view_geometry(image0.image_id, image1.image_id)
    views = [
        (
            database.read_camera(image.camera_id),
            database.read_keypoints(image.image_id)[:, :2].astype(np.float64),
        )
        for image in (image0, image1)
    ]
    posed = pycolmap.estimate_two_view_geometry_pose(*views[0], *views[1], geometry)
    return float(np.degrees(geometry.tri_angle)) if posed and geometry.tri_angle > 0 else 0.0
