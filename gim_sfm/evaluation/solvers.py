"""The programs that find relative poses and homographies among matches that hold wrong ones.

A skew in the intrinsics is ignored, as in the protocols of the field.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import poselib
from jaxtyping import Float, Float64

from gim_sfm.errors import ResourceError

Points = Float[np.ndarray, "m 2"]
Intrinsics = tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3 3"]]
Model = tuple[np.ndarray, np.ndarray]
"""What was found, a pose [R | t] with |t| = 1 or a homography, and the mask of the matches it rests on."""

FEWEST_FOR_POSE = 5
FEWEST_FOR_HOMOGRAPHY = 4
CONFIDENCE = 0.99999
MOST_ITERATIONS = 10_000

FARTHEST = 1e9
"""Baselines beyond which a point does not speak for a pose; in effect, none is."""

OFFICIAL_FARTHEST = 50.0

_POSELIB_OPTIONS = {"success_prob": CONFIDENCE, "max_iterations": MOST_ITERATIONS}


def solve_as_zeb(
    points0: Points, points1: Points, intrinsics: Intrinsics, pixels: float, seed: int
) -> Model | None:
    """Relative pose by the protocol of ZEB, call by call.

    Single precision, and the five-point RANSAC of OpenCV with its 1000 iterations and own fixed seed. Three
    slips that the published numbers contain are kept:

    - The threshold is divided by the mean of fx0, fy1, fx0, fy1.
    - The distance of 1e9 meant for recoverPose reaches another parameter, so that points farther than 50
      baselines do not count as in front: scenes without nearer inliers get no pose.
    - Each candidate is judged only by points that lay in front for those before it. Several candidates come
      of exactly five matches alone; of these, the first is thus kept, or none.
    """
    del seed
    first, second = (np.asarray(matrix, dtype=np.float32) for matrix in intrinsics)
    rays = _on_image_plane(points0, first), _on_image_plane(points1, second)
    threshold = pixels / float(np.mean([first[0, 0], second[1, 1], first[0, 0], second[1, 1]]))
    essentials, mask = cv2.findEssentialMat(
        *rays, np.eye(3), threshold=threshold, prob=CONFIDENCE, method=cv2.RANSAC
    )
    return None if essentials is None else _most_in_front(essentials, mask, rays, OFFICIAL_FARTHEST)


def _most_in_front(
    essentials: np.ndarray, mask: np.ndarray, rays: tuple[Points, Points], farthest: float
) -> Model | None:
    """The pose of the 3x3 essential matrices, one below the other, that puts most points in front."""
    best, most = None, 0
    for essential in essentials.reshape(-1, 3, 3):
        count, rotation, translation, _, _ = cv2.recoverPose(
            essential, *rays, np.eye(3), distanceThresh=farthest, mask=mask
        )
        if count > most:  # recoverPose has narrowed the mask in place
            best, most = (np.hstack([rotation, translation]), mask.ravel() > 0), count
    return best


def _on_image_plane(points: Points, intrinsics: Float[np.ndarray, "3 3"]) -> Points:
    scaled: Points = (points - intrinsics[:2, 2]) / intrinsics.diagonal()[:2]
    return scaled


def solve_with_poselib(
    points0: Points, points1: Points, intrinsics: Intrinsics, pixels: float, seed: int
) -> Model | None:
    """Relative pose by PoseLib's LO-RANSAC with a bundle adjustment of every new best pose (Larsson)."""
    cameras = [_pinhole(matrix) for matrix in intrinsics]
    options = {**_POSELIB_OPTIONS, "max_epipolar_error": pixels, "seed": seed}
    pose, told = poselib.estimate_relative_pose(points0, points1, *cameras, options, {})
    found = _unit_pose(pose) if told["num_inliers"] >= FEWEST_FOR_POSE else None
    return None if found is None else (found, np.array(told["inliers"], dtype=bool))


def _pinhole(intrinsics: Float64[np.ndarray, "3 3"]) -> dict[str, Any]:
    focal, centre = intrinsics.diagonal()[:2], intrinsics[:2, 2]
    return {"model": "PINHOLE", "width": 0, "height": 0, "params": [*focal, *centre]}


def _polish(model: Model, points0: Points, points1: Points, intrinsics: Intrinsics, pixels: float) -> Model:
    """Brings the inliers nearest to their epipolar lines, with the loss that PoseLib itself ends with."""
    matrix, inliers = model
    start = poselib.CameraPose()
    start.R, start.t = matrix[:, :3], matrix[:, 3]
    cameras = [_pinhole(each) for each in intrinsics]
    loss = {"loss_type": "CAUCHY", "loss_scale": pixels / 2.0}
    pose, _ = poselib.refine_relative_pose(points0[inliers], points1[inliers], start, *cameras, loss)
    polished = _unit_pose(pose)
    return model if polished is None else (polished, inliers)


def _unit_pose(pose: Any) -> Float64[np.ndarray, "3 4"] | None:
    """[R | t] with |t| = 1 of a pose of PoseLib; None of one without a baseline."""
    length = np.linalg.norm(pose.t)
    if length == 0 or not np.isfinite(pose.Rt).all():
        return None
    return np.column_stack([pose.R, pose.t / length])


@dataclass(frozen=True, slots=True)
class Usac:
    """OpenCV's framework of robust estimators (Ivashechkin et al., ICCV 2021), set up in one of its ways."""

    score: int
    local_optimisation: int
    sample_size: int
    polisher: int

    def solve_pose(
        self, points0: Points, points1: Points, intrinsics: Intrinsics, pixels: float, seed: int
    ) -> Model | None:
        """Relative pose; OpenCV divides the threshold by the mean of fx0, fy0, fx1, fy1 itself.

        What it calls final polishing changes no essential matrix, so PoseLib polishes the pose.

        Raises:
            ResourceError: The memory does not suffice, which graph cuts come to at some 50 000 matches.
        """
        parameters = self._parameters(pixels, seed)
        try:
            essential, mask = cv2.findEssentialMat(points0, points1, *intrinsics, None, None, parameters)
        except cv2.error as error:  # how it says, too, that the points leave the matrix open
            _require_memory(error, len(points0))
            return None
        if essential is None or essential.shape != (3, 3) or not np.isfinite(essential).all():
            return None
        rays = _on_image_plane(points0, intrinsics[0]), _on_image_plane(points1, intrinsics[1])
        model = _most_in_front(essential, mask, rays, FARTHEST)
        return None if model is None else _polish(model, points0, points1, intrinsics, pixels)

    def solve_homography(self, points0: Points, points1: Points, pixels: float, seed: int) -> Model | None:
        """Homography, polished by OpenCV."""
        return _call_find_homography(points0, points1, self._parameters(pixels, seed))

    def _parameters(self, pixels: float, seed: int) -> cv2.UsacParams:
        parameters = cv2.UsacParams()
        parameters.threshold, parameters.randomGeneratorState = pixels, seed
        parameters.confidence, parameters.maxIterations = CONFIDENCE, MOST_ITERATIONS
        parameters.sampler, parameters.isParallel = cv2.SAMPLING_UNIFORM, False
        parameters.score, parameters.loMethod = self.score, self.local_optimisation
        parameters.loSampleSize, parameters.loIterations = self.sample_size, 10
        parameters.final_polisher, parameters.final_polisher_iterations = self.polisher, 10
        return parameters


def solve_homography_with_opencv(points0: Points, points1: Points, pixels: float, seed: int) -> Model | None:
    """Homography by OpenCV's classic RANSAC with 3000 iterations, as SuperGlue used it (CVPR 2020)."""
    del seed
    return _call_find_homography(points0, points1, cv2.RANSAC, pixels, maxIters=3000)


def _call_find_homography(points0: Points, points1: Points, *how: Any, **more: Any) -> Model | None:
    try:
        homography, mask = cv2.findHomography(points0, points1, *how, **more)
    except cv2.error as error:
        _require_memory(error, len(points0))
        return None
    return None if homography is None else (homography, mask.ravel() > 0)


def _require_memory(error: cv2.error, matches: int) -> None:
    if "bad_alloc" in str(error):
        raise ResourceError(
            f"OpenCV cannot hold what it needs for {matches} matches in memory.",
            remedy="Use the estimator poselib, which needs less, or fewer matches.",
        ) from error


def solve_homography_with_poselib(points0: Points, points1: Points, pixels: float, seed: int) -> Model | None:
    """Homography by PoseLib's LO-RANSAC."""
    options = {**_POSELIB_OPTIONS, "max_reproj_error": pixels, "seed": seed}
    homography, told = poselib.estimate_homography(points0, points1, options, {})
    if told["inlier_ratio"] == 0 or told["num_inliers"] < FEWEST_FOR_HOMOGRAPHY:
        return None
    return homography, np.array(told["inliers"], dtype=bool)


MAGSAC = Usac(cv2.SCORE_METHOD_MAGSAC, cv2.LOCAL_OPTIM_SIGMA, 20, cv2.COV_POLISHER)
"""Scores by MAGSAC++, which sums over thresholds up to the one given (Barath et al., CVPR 2020)."""

ACCURATE = Usac(cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_GC, 20, cv2.COV_POLISHER)
"""OpenCV's USAC_ACCURATE: local optimisation by graph cuts (GC-RANSAC, Barath and Matas, CVPR 2018)."""
