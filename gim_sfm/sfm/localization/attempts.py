"""Poses tried for what a query sees: by every camera it may have, by every place of the map it may show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from gim_sfm.errors import LocalizationError
from gim_sfm.sfm.localization.judging import LARGEST_DEVIATION, Verdict, judge
from gim_sfm.sfm.localization.landmarks import Landmarks, Sightings
from gim_sfm.sfm.localization.posing import Posed, find_pose
from gim_sfm.sfm.localization.query_cameras import GIVEN, QueryCamera
from gim_sfm.sfm.localization.views import View

LINKED = 5
"""Landmarks that two photos of the map share if they show one place."""

MARGIN, CHANCE = 0.1, 10.0
"""A less trustworthy camera must fit better by this much, in variances of an inlier for each of them, and by
this many variances in all."""

REFUTED, MISTAKEN = 1.0, 0.02
"""Intrinsics that were given are refuted by a focal length that fits better by so many variances for each
inlier, and differs by this share."""

FINEST = 0.1
"""Pixels of the network's input below which a better fit means nothing."""

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
    if cameras[0].told == GIVEN:
        _refuse_wrong_focal(best, best.views[0].sightings if best else sightings, cameras[0], pixel, seed)
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
    if not attempt.verdict.is_close:
        raise LocalizationError(
            f"{attempt.inliers} of {sightings} sightings agree with one pose but loosely, to "
            f"{attempt.verdict.error:.1f} pixels of what the matcher sees: its lens is another than assumed, "
            "or it is a picture of a picture.",
            remedy="Give its intrinsics (--intrinsics), or a photo that is not cropped.",
        )
    return attempt


def covisible_groups(shown: Sequence[Landmarks]) -> list[list[int]]:
    """Photos of the map that share landmarks, directly or by way of others, largest group first."""
    photos = np.repeat(np.arange(len(shown)), [len(marks) for marks in shown])
    _, points = np.unique(np.concatenate([marks.points for marks in shown]), return_inverse=True)
    shape = len(shown), int(points.max(initial=0)) + 1
    sees = csr_array((np.ones(len(points), np.int64), (photos, points)), shape)
    shared = (sees @ sees.T).tocoo()
    linked = shared.data >= LINKED
    links = coo_array((shared.data[linked], (shared.row[linked], shared.col[linked])), shared.shape)
    _, group = connected_components(links, directed=False)
    groups = [np.flatnonzero(group == number).tolist() for number in np.unique(group)]
    return sorted(groups, key=lambda members: (-len(members), members))


def _best_camera(
    sightings: Sightings, cameras: Sequence[QueryCamera], pixel: float, seed: int
) -> Attempt | None:
    best = None
    for camera in cameras:
        view = View(sightings, camera.camera, pixel, camera.focal)
        attempt = _attempt([view], [camera.told], seed)
        if attempt and (best is None or _outdoes(attempt, best)):
            best = attempt
    return best


def _outdoes(attempt: Attempt, best: Attempt) -> bool:
    """Whether a less trustworthy camera wins."""
    if attempt.verdict.is_determined and best.verdict.is_determined:
        return _gain(attempt, best) > max(MARGIN, CHANCE / attempt.inliers)
    return attempt.verdict.is_determined


def _gain(attempt: Attempt, best: Attempt) -> float:
    """By how much an attempt fits the same sightings better, in its variances for each of its inliers."""
    errors, inliers = attempt.posed.errors[0], attempt.posed.inliers[0]
    limit = min(float(each.posed.errors[0][each.posed.inliers[0]].max()) for each in (attempt, best))
    misfits = [np.square(np.minimum(each.posed.errors[0], limit)).sum() for each in (attempt, best)]
    finest = FINEST * attempt.views[0].pixel
    variance = max(float(np.square(errors[inliers]).mean()) / 2, finest**2)
    return float(misfits[1] - misfits[0]) / (variance * int(inliers.sum()))


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
    """Refuses intrinsics that were given where another focal length fits far better."""
    sought = _attempt([View(sightings, camera.camera, pixel, "unknown")], [camera.told], seed)
    if sought is None or not (sought.verdict.is_evident and sought.verdict.is_determined):
        return
    given, found = camera.camera.mean_focal_length(), sought.posed.cameras[0].mean_focal_length()
    refuted = best is None or _gain(sought, best) > max(REFUTED, CHANCE / sought.inliers)
    if refuted and abs(found / given - 1) > MISTAKEN:
        raise LocalizationError(
            f"Its focal length of {given:.0f} px ({camera.told}) does not fit what it sees; one of "
            f"{found:.0f} px fits {sought.inliers} sightings.",
            remedy="Correct its intrinsics, or leave them out.",
        )


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
