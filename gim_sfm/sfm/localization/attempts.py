"""Poses tried for what a query sees: by every camera it may have, by every place of the map it may show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from gim_sfm.errors import LocalizationError
from gim_sfm.sfm.localization.judging import LARGEST_DEVIATION, Verdict, judge
from gim_sfm.sfm.localization.landmarks import Landmarks, Sightings
from gim_sfm.sfm.localization.posing import Posed, View, find_pose
from gim_sfm.sfm.localization.query_cameras import QueryCamera

LINKED = 5
"""Landmarks that two photos of the map share if they show one place."""

CLEARLY_MORE = 1.2
"""A less trustworthy camera must win this many times the inliers."""

EXPLAINED, CLOSE = 0.6, 1.0
"""Known intrinsics are doubted that explain a smaller share, or with a larger median error in pixels of the
network's input."""

FAR_MORE, MISTAKEN = 1.5, 0.05
"""Another focal length refutes them that explains so many times more as closely and differs by this share."""

RIVAL = 0.8
"""Share of the inliers with which another place of the map makes the answer doubtful."""

ASIDE = 0.2
"""Shares of the landmarks' distance by which another answer's position must differ to be another place."""

FEWEST = 6
"""Sightings without which no pose is tried."""

ELSEWHERE = (
    "It may show another place; else give its intrinsics (--intrinsics), try another matcher, or compare it "
    "with more photos (--neighbours)."
)


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A pose with what led to it.

    Attributes:
        views: What was seen, each with the camera that won.
        posed: The pose.
        verdict: What speaks for it.
        told: Where the intrinsics of each view come from.
    """

    views: tuple[View, ...]
    posed: Posed
    verdict: Verdict
    told: tuple[str, ...]

    @property
    def inliers(self) -> int:
        """Places of the query that agree with the pose."""
        return sum(
            len(np.unique(view.sightings.keypoints[mask]))
            for view, mask in zip(self.views, self.posed.inliers, strict=True)
        )


def localize_alone(
    sightings: Sightings,
    shown: Sequence[Landmarks],
    cameras: Sequence[QueryCamera],
    pixel: float,
    *,
    seed: int,
) -> Attempt:
    """The pose of one camera.

    Args:
        sightings: What it sees.
        shown: Landmarks of the photos of the map that it was compared with, in the order of `told_by`.
        cameras: What its intrinsics may be, the most trustworthy first.
        pixel: File pixels to a pixel of the network's input.
        seed: Of RANSAC.

    Raises:
        LocalizationError: There is none beyond doubt; says why.
    """
    best = _best_camera(sightings, cameras, pixel, seed)
    groups = covisible_groups(shown)
    if len(groups) > 1:
        parts = [_best_camera(_told_by(sightings, group), cameras, pixel, seed) for group in groups]
        places = sorted((part for part in parts if part), key=lambda part: -part.inliers)
        if places and (best is None or places[0].inliers > best.inliers):
            best = places[0]
        _refuse_rivals(best, places)
    if len(cameras) == 1:
        _refuse_wrong_focal(best, sightings, cameras[0], pixel, seed)
    return checked(best, len(sightings))


def localize_rig(views: Sequence[View], told: Sequence[str], *, seed: int) -> Attempt:
    """The pose of a rig of cameras; see `localize_alone`."""
    return checked(_attempt(views, told, seed), sum(len(view.sightings) for view in views))


def checked(attempt: Attempt | None, sightings: int) -> Attempt:
    """The attempt, if it is to be believed.

    Raises:
        LocalizationError: It is not.
    """
    if sightings < FEWEST:
        raise LocalizationError(
            f"It sees {sightings} points of the model.",
            remedy=ELSEWHERE,
        )
    if attempt is None or not attempt.verdict.is_evident:
        agreeing = attempt.inliers if attempt else 0
        raise LocalizationError(
            f"{agreeing} of {sightings} sightings agree with one pose, no more than chance would have it.",
            remedy=ELSEWHERE,
        )
    if not attempt.verdict.is_determined:
        raise LocalizationError(
            "What it sees leaves its position open by more than "
            f"{LARGEST_DEVIATION:.0%} of the distance, or its focal length wide open.",
            remedy="Give its intrinsics (--intrinsics), or take a photo that shows more of the place.",
        )
    return attempt


def covisible_groups(shown: Sequence[Landmarks]) -> list[list[int]]:
    """Photos of the map that share landmarks, directly or by way of others, largest group first."""
    groups: list[tuple[list[int], Int64[np.ndarray, " _"]]] = []
    for index, marks in enumerate(shown):
        members, points, apart = [index], marks.points, []
        for group in groups:
            if np.intersect1d(group[1], marks.points, assume_unique=False).size >= LINKED:
                members, points = members + group[0], np.union1d(points, group[1])
            else:
                apart.append(group)
        groups = [*apart, (members, points)]
    return sorted((sorted(members) for members, _ in groups), key=lambda group: (-len(group), group))


def _best_camera(
    sightings: Sightings, cameras: Sequence[QueryCamera], pixel: float, seed: int
) -> Attempt | None:
    best = None
    for camera in cameras:
        view = View(sightings, camera.camera, pixel, camera.focal)
        attempt = _attempt([view], [camera.told], seed)
        if attempt and (best is None or _is_better(attempt, best)):
            best = attempt
    return best


def _is_better(attempt: Attempt, best: Attempt) -> bool:
    """Whether a less trustworthy camera wins."""
    if attempt.verdict.is_determined and best.verdict.is_determined:
        return attempt.inliers > CLEARLY_MORE * best.inliers
    return attempt.verdict.is_determined


def _attempt(views: Sequence[View], told: Sequence[str], seed: int) -> Attempt | None:
    if sum(len(view.sightings) for view in views) < FEWEST:
        return None
    posed = find_pose(views, seed=seed)
    return None if posed is None else Attempt(tuple(views), posed, judge(views, posed), tuple(told))


def _told_by(sightings: Sightings, photos: Sequence[int]) -> Sightings:
    """What some photos of the map told."""
    rows = np.unique(np.concatenate([sightings.told_by[index] for index in photos]))
    return replace(
        sightings,
        places=sightings.places[rows],
        keypoints=sightings.keypoints[rows],
        points=sightings.points[rows],
        xyz=sightings.xyz[rows],
        told_by=tuple(
            np.searchsorted(rows, np.intersect1d(rows, told)) if index in photos else told[:0]
            for index, told in enumerate(sightings.told_by)
        ),
    )


def _refuse_wrong_focal(
    best: Attempt | None, sightings: Sightings, camera: QueryCamera, pixel: float, seed: int
) -> None:
    """Refuses intrinsics that are taken for known where another focal length explains far more."""
    places = len(np.unique(sightings.keypoints))
    if camera.focal != "known" or (best and _fits(best, places)):
        return
    sought = _attempt([View(sightings, camera.camera, pixel, "unknown")], [camera.told], seed)
    if sought is None or not (sought.verdict.is_evident and sought.verdict.is_determined):
        return
    given, found = camera.camera.mean_focal_length(), sought.posed.cameras[0].mean_focal_length()
    explained = _within(best, float(sought.posed.errors[0][sought.posed.inliers[0]].max())) if best else 0
    if sought.inliers > FAR_MORE * explained and abs(found / given - 1) > MISTAKEN:
        raise LocalizationError(
            f"Its focal length of {given:.0f} px ({camera.told}) fits {explained} of {places} sightings; "
            f"one of {found:.0f} px would fit {sought.inliers} as closely.",
            remedy="Correct its intrinsics, or leave them out.",
        )


def _fits(attempt: Attempt, places: int) -> bool:
    """Whether most places agree with a pose, and closely."""
    view, posed = attempt.views[0], attempt.posed
    error = float(np.median(posed.errors[0][posed.inliers[0]]))
    return attempt.inliers > EXPLAINED * places and error <= CLOSE * view.pixel


def _within(attempt: Attempt, error: float) -> int:
    """Places that a pose explains with no larger error."""
    return len(np.unique(attempt.views[0].sightings.keypoints[attempt.posed.errors[0] <= error]))


def _refuse_rivals(best: Attempt | None, places: Sequence[Attempt]) -> None:
    """Refuses a pose where another place of the map explains the photo nearly as well."""
    if best is None:
        return
    centre = best.posed.rig_from_world.inverse().translation
    for other in places:
        aside = np.linalg.norm(other.posed.rig_from_world.inverse().translation - centre)
        rivals = other.verdict.is_evident and other.inliers > RIVAL * best.inliers
        if rivals and aside > ASIDE * best.verdict.distance:
            raise LocalizationError(
                f"Two places of the model look like it: {best.inliers} sightings agree with one, "
                f"{other.inliers} with the other.",
                remedy="Name the photos to compare it with (--pairs file), or take one that shows more.",
            )
