"""Where a photo was taken, and what speaks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64

from gim_sfm.images import PhotoHeader
from gim_sfm.sfm.localization.attempts import Attempt
from gim_sfm.sfm.localization.landmarks import Sightings


@dataclass(frozen=True, slots=True)
class Partner:
    """A photo of the map that a query was compared with.

    Attributes:
        name: Its name.
        sightings: Points of the model that the query sees by way of it.
        inliers: Those of them that agree with the pose.
    """

    name: str
    sightings: int
    inliers: int


@dataclass(frozen=True, slots=True, eq=False)
class Localization:
    """Where a photo was taken.

    Attributes:
        name: The photo.
        cam_from_world: Its pose in the frame of the map.
        camera: Its intrinsics, with the focal length as it was found where it was not known.
        camera_told: Where they come from.
        covariance: Of a small turn (rotation vector, radians) and shift (units of the model) that follow the
            pose in the camera's frame (in that of the rig for a camera of a rig), in this order.
        position_deviation: Standard deviation of the position, units of the model, in the worst direction; of
            the rig's position for a camera of a rig.
        turn_deviation: The same of the orientation, degrees.
        sightings: Places in the photo that show points of the model.
        inliers: Those that agree with the pose.
        inlier_places: Where they are in the photo, (x, y) in pixels of the file.
        reprojection_error: Median of the inliers in pixels of the file.
        evidence: Decimal powers by which the inliers outdo chance.
        partners: Photos of the map that it was compared with.
    """

    name: str
    cam_from_world: pycolmap.Rigid3d
    camera: pycolmap.Camera
    camera_told: str
    covariance: Float64[np.ndarray, "6 6"]
    position_deviation: float
    turn_deviation: float
    sightings: int
    inliers: int
    inlier_places: Float64[np.ndarray, "k 2"]
    reprojection_error: float
    evidence: float
    partners: tuple[Partner, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one photo sees of the map.

    Attributes:
        name: The photo.
        header: What its file says of itself.
        pixel: File pixels to a pixel of the network's input.
        partners: Photos of the map that it was compared with.
        sightings: What it sees by way of them.
    """

    name: str
    header: PhotoHeader
    pixel: float
    partners: Sequence[str]
    sightings: Sightings


def answers_of(seen: Sequence[Seen], attempt: Attempt) -> list[Localization]:
    """The answers for photos that share a pose."""
    rows = zip(
        seen,
        attempt.views,
        attempt.posed.cameras,
        attempt.posed.inliers,
        attempt.posed.errors,
        attempt.told,
        strict=True,
    )
    return [
        Localization(
            name=row.name,
            cam_from_world=view.cam_from_rig * attempt.posed.rig_from_world,
            camera=camera,
            camera_told=source,
            covariance=attempt.posed.covariance,
            position_deviation=attempt.verdict.position_deviation,
            turn_deviation=attempt.verdict.turn_deviation,
            sightings=len(np.unique(row.sightings.keypoints)),
            inliers=len(np.unique(view.sightings.keypoints[inliers])),
            inlier_places=_places(view.sightings, inliers),
            reprojection_error=float(np.median(errors[inliers])) if inliers.any() else np.nan,
            evidence=attempt.verdict.evidence,
            partners=_partners(row, view.sightings, inliers),
        )
        for row, view, camera, inliers, errors, source in rows
    ]


def _places(sightings: Sightings, inliers: Bool[np.ndarray, " n"]) -> Float64[np.ndarray, "k 2"]:
    """Places of the inliers, each once."""
    _, first = np.unique(sightings.keypoints[inliers], return_index=True)
    places: Float64[np.ndarray, "n 2"] = sightings.places[inliers]
    return places[first]


def _partners(seen: Seen, sightings: Sightings, inliers: Bool[np.ndarray, " n"]) -> tuple[Partner, ...]:
    return tuple(
        Partner(name, len(told), int(inliers[told].sum()))
        for name, told in zip(seen.partners, sightings.told_by, strict=True)
    )
