"""Poses from drawn sightings: their precision, what they tell of it, and what chance cannot do."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from localization_kit import (
    SIZE,
    Spread,
    drawn_pose,
    landmarks,
    lens,
    sightings,
    sightings_of,
    step_between,
)

from gim_sfm.errors import LocalizationError
from gim_sfm.sfm.localization.attempts import Attempt, covisible_groups, localize_alone, localize_rig
from gim_sfm.sfm.localization.judging import judge
from gim_sfm.sfm.localization.landmarks import Landmarks, Sighting, Sightings, gather
from gim_sfm.sfm.localization.posing import Posed, find_pose
from gim_sfm.sfm.localization.query_cameras import QueryCamera
from gim_sfm.sfm.localization.views import Focal, View

SEEDS = range(20)
KNOWN = (QueryCamera(lens(), "known", "given"),)
SOUGHT = (QueryCamera(lens(700), "unknown", "found with the pose"),)


def pose_of(view: View, seed: int = 0) -> Posed:
    posed = find_pose([view], seed=seed)
    assert posed is not None
    return posed


@pytest.mark.parametrize("focal", ["known", "prior", "unknown"])
def test_exact_sightings_give_the_exact_pose(focal: Focal) -> None:
    random = np.random.default_rng(1)
    true = drawn_pose(random)
    seen = sightings_of(random, true, Spread(noise=0.0))
    posed = pose_of(View(seen, lens(600 if focal == "known" else 640), 1.0, focal))
    np.testing.assert_allclose(step_between(posed.rig_from_world, true), 0, atol=5e-4)
    assert posed.cameras[0].focal_length == pytest.approx(600, rel=1e-4)
    assert all(mask.all() for mask in posed.inliers)


@pytest.mark.parametrize("focal", ["known", "unknown"])
@pytest.mark.parametrize("noise", [0.4, 2.5])
def test_the_covariance_is_that_of_many_trials(focal: Focal, noise: float) -> None:
    steps, told = [], []
    for seed in range(100):
        random = np.random.default_rng(seed)
        true = drawn_pose(random)
        seen = sightings_of(random, true, Spread(noise=noise, wrong=0.2))
        posed = pose_of(View(seen, lens(), 1.0, focal))
        steps.append(step_between(posed.rig_from_world, true))
        told.append(posed.covariance)
    whitened = [
        np.linalg.solve(np.linalg.cholesky(matrix), step) for matrix, step in zip(told, steps, strict=True)
    ]
    assert 1 / 1.3 < np.sqrt(np.mean(np.square(whitened))) < 1.3
    for part in (slice(0, 3), slice(3, 6)):  # turn, shift
        spread = np.sqrt(np.mean(np.square([step[part] for step in steps])))
        expected = np.sqrt(np.mean([np.diag(matrix)[part] for matrix in told]))
        assert 1 / 1.3 < spread / expected < 1.3


def test_a_focal_length_that_is_sought_makes_the_position_less_certain() -> None:
    random = np.random.default_rng(2)
    seen = sightings_of(random, drawn_pose(random))
    deviations = [
        judge([view], pose_of(view)).position_deviation
        for view in (View(seen, lens(), 1.0, "known"), View(seen, lens(), 1.0, "unknown"))
    ]
    assert deviations[1] > 1.5 * deviations[0]


def test_tolerances_go_by_the_pixels_of_the_network() -> None:
    random = np.random.default_rng(3)
    true = drawn_pose(random)
    seen = sightings_of(random, true, Spread(noise=4.0))
    coarse, fine = (pose_of(View(seen, lens(), pixel)) for pixel in (8.0, 0.5))
    assert coarse.inliers[0].mean() > 0.95
    assert fine.inliers[0].mean() < coarse.inliers[0].mean()


# What chance does


def anywhere(count: int) -> Callable[[np.random.Generator], Sightings]:
    def draw(random: np.random.Generator) -> Sightings:
        return sightings(random.uniform((0, 0), SIZE, (count, 2)), random.uniform(-3, 3, (count, 3)) + 8)

    return draw


def spots(random: np.random.Generator) -> Sightings:
    """Wrong matches as dense matchers make them: patches of the query, each matched to one of the map."""
    of = random.integers(0, 8, 120)
    places = random.uniform((40, 40), np.array(SIZE) - 40, (8, 2))[of] + random.normal(0, 5, (120, 2))
    xyz = random.uniform(-3, 3, (8, 3))[of] + random.normal(0, 0.05, (120, 3)) + 8
    return sightings(places, xyz)


def doubles(random: np.random.Generator) -> Sightings:
    """Landmarks that are doubles of each other, carried to one wrong place."""
    of = np.repeat(np.arange(40), 4)
    places = random.uniform((0, 0), SIZE, (40, 2))[of] + random.normal(0, 0.5, (160, 2))
    return sightings(places, random.uniform(-3, 3, (40, 3))[of] + random.normal(0, 0.01, (160, 3)) + 8)


def one_spot(random: np.random.Generator) -> Sightings:
    places = random.normal(0, 6, (100, 2)) + np.array([300, 200])
    return sightings(places, random.uniform(-3, 3, (100, 3)) + 8)


def one_keypoint_many_points(random: np.random.Generator) -> Sightings:
    of = np.repeat(np.arange(30), 5)
    drawn = anywhere(150)(random)
    return replace(drawn, places=drawn.places[of], keypoints=of)


@pytest.mark.parametrize("cameras", [KNOWN, SOUGHT], ids=["focal known", "focal sought"])
@pytest.mark.parametrize(
    "draw",
    [anywhere(8), anywhere(30), anywhere(300), spots, doubles, one_spot, one_keypoint_many_points],
    ids=["8", "30", "300", "spots", "doubles", "one spot", "one keypoint, many points"],
)
def test_wrong_sightings_are_never_evident(
    draw: Callable[[np.random.Generator], Sightings], cameras: tuple[QueryCamera, ...]
) -> None:
    for seed in SEEDS:
        seen = draw(np.random.default_rng(seed))
        with pytest.raises(LocalizationError, match=r"no more than chance|sees .* points"):
            localize_alone(seen, [landmarks(seen.points, seen.xyz)], cameras, 1.0, seed=seed)


@pytest.mark.parametrize(
    ("count", "wrong"), [(12, 0.0), (100, 0.5), (300, 0.75)], ids=["few", "half wrong", "most wrong"]
)
def test_true_sightings_are_evident(count: int, wrong: float) -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        true = drawn_pose(random)
        seen = sightings_of(random, true, Spread(count=count, wrong=wrong))
        attempt = localize_alone(seen, [landmarks(seen.points, seen.xyz)], KNOWN, 1.0, seed=seed)
        step = step_between(attempt.posed.rig_from_world, true)
        assert np.degrees(np.linalg.norm(step[:3])) < 1.0
        assert attempt.inliers >= 0.6 * (1 - wrong) * count


def test_too_few_sightings_are_told() -> None:
    random = np.random.default_rng(4)
    seen = sightings_of(random, drawn_pose(random), Spread(count=5))
    with pytest.raises(LocalizationError, match="sees 5 points"):
        localize_alone(seen, [landmarks(seen.points, seen.xyz)], KNOWN, 1.0, seed=0)


def test_landmarks_in_one_corner_do_not_determine_a_pose_of_unknown_focal_length() -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        corner = Spread(count=100, noise=4.0, depths=(9.9, 10.1), low=(60, 60), high=(140, 140))
        seen = sightings_of(random, drawn_pose(random), corner)
        with pytest.raises(LocalizationError, match=r"its position open|no more than chance"):
            localize_alone(seen, [landmarks(seen.points, seen.xyz)], SOUGHT, 1.0, seed=0)


def test_a_wall_seen_squarely_does_not_determine_a_focal_length() -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        true = drawn_pose(random)
        seen = sightings_of(random, true, Spread(count=200, depths=(10, 10), low=(60, 60), high=(300, 300)))
        marks = landmarks(seen.points, seen.xyz)
        with pytest.raises(LocalizationError) as told:
            localize_alone(seen, [marks], SOUGHT, 1.0, seed=0)
        assert "--intrinsics" in told.value.remedy
        known = localize_alone(seen, [marks], KNOWN, 1.0, seed=0)
        assert np.linalg.norm(step_between(known.posed.rig_from_world, true)[3:]) < 0.2


# Places that look alike


def halves(seen: Sightings, apart: tuple[float, float, float], wrong: int = 0) -> Sightings:
    """The same keypoints seen twice: at their landmarks, and at copies of these elsewhere.

    Args:
        seen: The one place.
        apart: Shift from the landmarks to their copies.
        wrong: Keypoints that have no true copy, so that the first place has more to say.
    """
    count = len(seen)
    copies = seen.xyz + apart
    copies[:wrong] = np.random.default_rng(9).uniform(-3, 3, (wrong, 3)) + apart
    return Sightings(
        places=np.concatenate([seen.places, seen.places]),
        keypoints=np.concatenate([seen.keypoints, seen.keypoints]),
        points=np.arange(2 * count),
        xyz=np.concatenate([seen.xyz, copies]),
        told_by=(np.arange(count), np.arange(count, 2 * count)),
    )


def shown_of(twice: Sightings) -> list[Landmarks]:
    return [landmarks(twice.points[rows], twice.xyz[rows]) for rows in twice.told_by]


def twin_places(wrong: int) -> tuple[Attempt, pycolmap.Rigid3d]:
    random = np.random.default_rng(5)
    true = drawn_pose(random)
    twice = halves(sightings_of(random, true), (30.0, 0.0, 0.0), wrong)
    return localize_alone(twice, shown_of(twice), KNOWN, 1.0, seed=0), true


def test_two_places_that_look_alike_are_refused() -> None:
    with pytest.raises(LocalizationError, match=r"Two places of the model look like it: 60 .* 60"):
        twin_places(wrong=0)


def test_a_place_that_is_clearly_better_is_believed() -> None:
    attempt, true = twin_places(wrong=30)
    assert np.linalg.norm(step_between(attempt.posed.rig_from_world, true)[3:]) < 0.05


def test_photos_that_share_landmarks_directly_or_by_others_are_one_place() -> None:
    def photo(first: int, last: int) -> Landmarks:
        return landmarks(np.arange(first, last), np.zeros((last - first, 3)))

    shown = [photo(0, 20), photo(100, 130), photo(30, 50), photo(10, 40), photo(128, 150)]
    assert covisible_groups(shown) == [[0, 2, 3], [1], [4]]


def test_what_several_photos_tell_of_one_landmark_is_one_sighting() -> None:
    shown = [landmarks(np.array([7, 8, 9]), np.eye(3)), landmarks(np.array([9, 7]), np.eye(3)[[2, 0]])]
    dense = [
        Sighting(
            np.array([0, 2]), np.array([[10, 10], [50, 50]], np.float32), np.full(2, -1), np.ones(2, "f4")
        ),
        Sighting(
            np.array([0, 1]),
            np.array([[52, 50], [90, 90]], np.float32),
            np.full(2, -1),
            np.full(2, 0.5, "f4"),
        ),
    ]
    told = gather(shown, dense, 1.0)
    assert told.points.tolist() == [7, 9]
    # weighed by the scores where the places are near, else the better one
    np.testing.assert_allclose(told.places, [[10, 10], [50 + 2 / 3, 50]])
    assert [rows.tolist() for rows in told.told_by] == [[0, 1], [1]]
    assert len(np.unique(told.keypoints)) == 2
    sparse = [
        replace(row, keypoints=np.array(numbers))
        for row, numbers in zip(dense, ([1, 2], [2, 3]), strict=True)
    ]
    assert gather(shown, sparse, 1.0).points.tolist() == [7, 9, 7]


# Rigs


def rig_views(random: np.random.Generator, rig_from_world: pycolmap.Rigid3d, counts: list[int]) -> list[View]:
    views = []
    for index, count in enumerate(counts):
        cam_from_rig = pycolmap.Rigid3d(
            pycolmap.Rotation3d(np.array([0, 2.0 * index, 0])), np.array([0.1 * index, 0, 0])
        )
        seen = sightings_of(random, cam_from_rig * rig_from_world, Spread(count=count, wrong=0.3))
        views.append(View(seen, lens(), 1.0, "known", cam_from_rig))
    return views


@pytest.mark.parametrize("counts", [[40, 40, 40], [40, 0, 40], [60, 0, 0], [7, 7, 7]])
def test_the_cameras_of_a_rig_share_a_pose(counts: list[int]) -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        true = drawn_pose(random)
        views = rig_views(random, true, counts)
        attempt = localize_rig(views, ["given"] * 3, seed=seed)
        step = step_between(attempt.posed.rig_from_world, true)
        assert np.degrees(np.linalg.norm(step[:3])) < 0.5
        assert np.linalg.norm(step[3:]) < 0.1


def test_a_rig_that_sees_nothing_has_no_pose() -> None:
    views = rig_views(np.random.default_rng(6), pycolmap.Rigid3d(), [0, 0])
    with pytest.raises(LocalizationError, match="sees 0 points"):
        localize_rig(views, ["given"] * 2, seed=0)


def test_a_rig_that_sees_another_place_has_no_pose() -> None:
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        views = [
            replace(view, sightings=anywhere(60)(random))
            for view in rig_views(random, pycolmap.Rigid3d(), [1, 1])
        ]
        with pytest.raises(LocalizationError, match="no more than chance"):
            localize_rig(views, ["given"] * 2, seed=seed)


def test_the_same_sightings_give_the_same_pose() -> None:
    random = np.random.default_rng(7)
    seen = sightings_of(random, drawn_pose(random), Spread(wrong=0.5))
    one, other = (pose_of(View(seen, lens(), 1.0, "unknown"), seed=3) for _ in range(2))
    assert (one.rig_from_world.matrix() == other.rig_from_world.matrix()).all()
