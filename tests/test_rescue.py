from gim_sfm.sfm.report import PairFigures
from gim_sfm.sfm.rescue import PAIRS_EACH, pairs_to_rescue, weakly_linked


def pair(first: str, second: str, inliers: int, matches: int = 100) -> PairFigures:
    return PairFigures((first, second), matches, inliers)


def test_photos_linked_twice_need_no_rescue() -> None:
    assert weakly_linked("abc", [pair("a", "b", 50), pair("a", "c", 50), pair("b", "c", 50)]) == set()


def test_photos_linked_once_or_in_another_group_are_weak() -> None:
    pairs = [
        pair("a", "b", 50),
        pair("a", "c", 50),
        pair("b", "c", 50),
        pair("c", "d", 50),
        pair("d", "e", 20),
    ]
    assert weakly_linked("abcde", pairs) == {"d", "e"}


def test_two_photos_with_one_strong_pair_are_linked() -> None:
    assert weakly_linked("ab", [pair("a", "b", 50)]) == set()
    assert weakly_linked("ab", [pair("a", "b", 5)]) != set()


def test_the_most_promising_pairs_are_tried() -> None:
    pairs = [pair("lost", f"{index:02}", 0, index) for index in range(30)] + [pair("01", "02", 90)]
    chosen = pairs_to_rescue(pairs, {"lost"})
    assert chosen == [("lost", f"{index:02}") for index in range(30 - PAIRS_EACH, 30)]
