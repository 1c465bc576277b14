"""How far the photos of a map moved when it was adjusted, and the way back into its frame of reference."""

from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Float64

from gim_sfm.errors import InputError
from gim_sfm.geometry import Similarity, camera_centres, rotation_angle_degrees, umeyama

ROUNDS = 10
OUTLYING = 3.0
"""Median distances beyond which a camera or point has no say in the alignment."""

MOST_POINTS = 5000


@dataclass(frozen=True, slots=True)
class Displacement:
    """The largest moves among the photos of a map.

    Attributes:
        shift: Of a camera centre, in the unit of the model.
        share: The same, over the diagonal of the box round all camera centres.
        turn: Of a camera, in degrees.
    """

    shift: float
    share: float
    turn: float

    def __str__(self) -> str:
        if self.shift == 0 and self.turn == 0:
            return "Old photos stayed exactly where they were"
        return (
            f"Old photos moved by {self.shift:.3g} model units at most ({100 * self.share:.2g} % of the "
            f"cameras' extent) and turned by {self.turn:.2g} degrees at most"
        )


def align_back(model: pycolmap.Reconstruction, before: pycolmap.Reconstruction) -> None:
    """Moves a model, in place, to where its former cameras and points lie best on what they were.

    Cameras on a line, or nearly, leave a turn about it to their noise; points settle it.
    """
    numbers = before.reg_image_ids()
    shared = sorted(set(model.points3D) & set(before.points3D))
    chosen = shared[:: max(1, len(shared) // MOST_POINTS)]
    now, then = (
        np.concatenate(
            [
                camera_centres(_poses(part, numbers)),
                np.array([part.points3D[number].xyz for number in chosen]).reshape(-1, 3),
            ]
        )
        for part in (model, before)
    )
    back = _robust_similarity(now, then)
    model.transform(pycolmap.Sim3d(np.column_stack([back.scale * back.rotation, back.translation])))


def measure_displacement(model: pycolmap.Reconstruction, before: pycolmap.Reconstruction) -> Displacement:
    """How far the photos of a model are from where they were."""
    numbers = before.reg_image_ids()
    now, then = _poses(model, numbers), _poses(before, numbers)
    centres = camera_centres(then)
    shift = float(np.linalg.norm(camera_centres(now) - centres, axis=1).max())
    extent = float(np.linalg.norm(np.ptp(centres, axis=0)))
    turned = not np.array_equal(now[:, :, :3], then[:, :, :3])
    angles = rotation_angle_degrees(now[:, :, :3] @ np.swapaxes(then[:, :, :3], -1, -2))
    return Displacement(shift, shift / extent if extent > 0 else 0.0, float(angles.max()) if turned else 0.0)


def _robust_similarity(source: Float64[np.ndarray, "n 3"], target: Float64[np.ndarray, "n 3"]) -> Similarity:
    """The similarity that most points agree with: those far off are left out, round by round."""
    kept = np.ones(len(source), bool)
    found = umeyama(source, target)
    for _ in range(ROUNDS):
        distances = np.linalg.norm(found.apply(source) - target, axis=1)
        chosen = distances <= OUTLYING * np.median(distances)
        if np.array_equal(chosen, kept):
            break
        try:
            found, kept = umeyama(source[chosen], target[chosen]), chosen
        except InputError:
            break
    return found


def _poses(model: pycolmap.Reconstruction, numbers: list[int]) -> Float64[np.ndarray, "n 3 4"]:
    return np.stack([model.images[number].cam_from_world().matrix() for number in numbers])
