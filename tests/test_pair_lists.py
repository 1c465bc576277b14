import logging
import math
from pathlib import Path

import numpy as np
import pytest

from gim_sfm.errors import InputError
from gim_sfm.evaluation.pair_lists import read_pair_list
from gim_sfm.evaluation.truths import read_homography, read_intrinsics, read_pose

K0 = "1163.45 0. 653.626 0. 1164.79 481.6 0. 0. 1."
K1 = "900 0 320 0 910 240 0 0 1"
POSE = (
    "0.78593 -0.35128 0.50884 -1.51061 0.39215 0.91944 0.02904 -0.05367 "
    "-0.47805 0.17672 0.86037 0.056 0. 0. 0. 1."
)
GOOD = f"a.jpg b.jpg 0 0 {K0} {K1} {POSE}"


def write(folder: Path, *lines: str, name: str = "pairs.txt") -> Path:
    for image in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / image).touch()
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_line_is_read(tmp_path: Path) -> None:
    pairs = read_pair_list(write(tmp_path, GOOD, name="scannet test 15.txt"), tmp_path)
    (pair,) = pairs.pairs
    assert (pairs.name, pairs.root, pairs.skipped) == ("scannet_test_15", tmp_path, ())
    assert pair.identifier == "scannet_test_15#a.jpg#b.jpg"
    assert pair.images == ("a.jpg", "b.jpg")
    assert all(math.isnan(overlap) for overlap in pair.overlaps)
    assert pair.intrinsics[0][0].tolist() == [1163.45, 0.0, 653.626]
    assert pair.intrinsics[1][1].tolist() == [0.0, 910.0, 240.0]
    assert pair.second_from_first[:, 3].tolist() == [-1.51061, -0.05367, 0.056]
    assert pair.second_from_first[0, 0] == 0.78593


def test_the_rotations_may_be_missing(tmp_path: Path) -> None:
    short = f"a.jpg b.jpg {K0} {K1} {POSE}"
    (first,) = read_pair_list(write(tmp_path, short), tmp_path).pairs
    (second,) = read_pair_list(write(tmp_path, GOOD), tmp_path).pairs
    assert np.array_equal(first.second_from_first, second.second_from_first)
    assert np.array_equal(first.intrinsics[1], second.intrinsics[1])


def test_pairs_are_ordered_and_blank_lines_and_comments_passed_over(tmp_path: Path) -> None:
    lines = (GOOD.replace("a.jpg", "c.jpg", 1), "", "# a comment", GOOD)
    pairs = read_pair_list(write(tmp_path, *lines), tmp_path)
    assert [pair.images[0] for pair in pairs.pairs] == ["a.jpg", "c.jpg"]
    assert pairs.skipped == ()


def test_rotations_are_told_once_and_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = (GOOD.replace(" 0 0 ", " 3 0 ", 1), GOOD.replace("b.jpg 0 0 ", "c.jpg 1 2 ", 1))
    with caplog.at_level(logging.WARNING):
        turned = read_pair_list(write(tmp_path, *lines), tmp_path)
    (told,) = caplog.messages
    assert "2 pairs name a rotation" in told
    (upright,) = read_pair_list(write(tmp_path, GOOD), tmp_path).pairs
    assert np.array_equal(turned.pairs[0].second_from_first, upright.second_from_first)


REFLECTION = POSE.replace("0.78593 -0.35128 0.50884", "-0.78593 0.35128 -0.50884")
BAD = {
    "37 tokens, neither 38 nor 36": GOOD.removesuffix(" 1."),
    "'1.x' in the pose is not a number": GOOD.replace("-1.51061", "1.x"),
    "nan in the pose is not finite": GOOD.replace("-1.51061", "nan"),
    "inf in the intrinsics is not finite": GOOD.replace("1163.45", "inf"),
    "its image gone.jpg is not in": GOOD.replace("b.jpg", "gone.jpg"),
    "its image ../a.jpg lies outside": GOOD.replace("b.jpg", "../a.jpg"),
    "the focal lengths of the intrinsics are 0 and 910": GOOD.replace("900", "0"),
    "the focal lengths of the intrinsics are -900 and 910": GOOD.replace("900", "-900"),
    "not of the form fx s cx, 0 fy cy, 0 0 1": GOOD.replace("240 0 0 1", "240 0 0 2"),
    "R^T R misses the identity by": GOOD.replace("0.78593", "0.79593"),
    "the pose holds a reflection": GOOD.replace(POSE, REFLECTION),
    "the last row of the pose is not 0 0 0 1": GOOD.replace("0.056 0.", "0.056 0.5"),
    "'x' is not a number of quarter turns": GOOD.replace("b.jpg 0 0", "b.jpg 0 x"),
    "it repeats the pair a.jpg b.jpg": GOOD,
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_line_is_skipped_and_named(tmp_path: Path, reason: str) -> None:
    path = write(tmp_path, GOOD, BAD[reason])
    pairs = read_pair_list(path, tmp_path)
    (skipped,) = pairs.skipped
    assert len(pairs.pairs) == 1
    assert skipped.source == f"{path}:2"
    assert reason in skipped.reason


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_line_is_refused_when_strict(tmp_path: Path, reason: str) -> None:
    path = write(tmp_path, GOOD, BAD[reason])
    with pytest.raises(InputError) as caught:
        read_pair_list(path, tmp_path, strict=True)
    assert reason in caught.value.message
    assert f"{path}:2" in caught.value.message


def test_a_list_without_a_usable_line_is_refused_with_the_first_reasons(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jpg b.jpg", *[BAD["nan in the pose is not finite"]] * 5)
    with pytest.raises(InputError) as caught:
        read_pair_list(path, tmp_path)
    assert "2 tokens" in caught.value.message
    assert caught.value.message.count("nan in the pose is not finite") == 2
    with pytest.raises(InputError, match="it is empty"):
        read_pair_list(write(tmp_path, ""), tmp_path)


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_pair_list(tmp_path / "none.txt", tmp_path)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    path.write_bytes(path.read_bytes() + b"\xff\xfe\x00 \x81")
    assert len(read_pair_list(path, tmp_path).skipped) == 1


@pytest.mark.data
def test_the_scannet_pairs_of_superglue_are_read(shared_data: Path) -> None:
    folder = shared_data / "twoview" / "scannet15"
    pairs = read_pair_list(folder / "pairs_with_gt.txt", folder, strict=True)
    assert len(pairs.pairs) == 15


def test_numbers_become_matrices() -> None:
    assert read_intrinsics(K1.split())[0, 2] == 320.0
    assert read_pose(POSE.split()).shape == (3, 4)
    assert read_homography(list("105016002"))[2, 2] == 2.0


@pytest.mark.parametrize(
    "numbers, reason",
    [
        ("1 2 3", "3 numbers given"),
        ("0 0 0 0 0 0 0 0 0", "singular"),
        ("1 0 0 2 0 0 0 0 1", "singular"),
        ("1 0 0 0 1 0 0 0 inf", "inf in the homography"),
        ("1 0 0 0 one 0 0 0 1", "'one' in the homography"),
    ],
)
def test_numbers_that_are_no_homography_are_refused(numbers: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_homography(numbers.split())
