import numpy as np

from gim_sfm.sfm.track_quality import measure_tracks

KEYPOINTS = {name: np.array([[10, 10], [40, 10], [45, 10]], np.float32) for name in "abcd"}


def rows(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int32).reshape(-1, 2)


def test_tracks_are_followed_over_photos() -> None:
    figures = measure_tracks(
        KEYPOINTS, [(("a", "b"), rows((0, 0), (1, 1))), (("b", "c"), rows((0, 0))), (("c", "d"), rows())]
    )
    assert (figures.tracks, figures.linked, figures.best_pair) == (2, 3, 2)
    assert figures.mean_length == 2.5
    assert figures.of_three == 0.5
    assert figures.conflicting == 0


def test_a_track_through_two_far_places_of_a_photo_is_a_conflict() -> None:
    figures = measure_tracks(
        KEYPOINTS, [(("a", "b"), rows((0, 0), (1, 1))), (("b", "c"), rows((0, 0), (1, 0)))]
    )
    assert figures.tracks == 1
    assert figures.conflicting == 1


def test_places_of_a_photo_that_lie_close_are_no_conflict() -> None:
    figures = measure_tracks(KEYPOINTS, [(("a", "b"), rows((1, 1), (2, 1)))])
    assert figures.conflicting == 0


def test_matches_that_reach_no_third_photo_are_a_collapse() -> None:
    pairs = [(("a", "b"), rows((0, 0))), (("b", "c"), rows((1, 1))), (("c", "d"), rows((2, 2)))]
    assert measure_tracks(KEYPOINTS, pairs).collapsed
    assert not measure_tracks(KEYPOINTS, pairs[:1]).collapsed, "two photos are all there are"


def test_no_matches_are_no_tracks() -> None:
    figures = measure_tracks(KEYPOINTS, [(("a", "b"), rows())])
    assert (figures.tracks, figures.linked) == (0, 0)
    assert not figures.collapsed
