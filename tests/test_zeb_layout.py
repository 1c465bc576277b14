"""The reader of ZEB's folders: each of the twelve layouts, other sets, and everything that can be wrong."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from zeb_kit import NAMES, bare, numbers, pair_line, write_pair

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.evaluation.zeb_layout import read_zeb
from gim_sfm.evaluation.zeb_sets import ZEB_SETS, ZebSet

K0 = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
K1 = np.array([[600.0, 0, 300], [0, 610, 200], [0, 0, 1]])
QUARTER = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])
PIXEL = bytes(cv2.imencode(".png", np.zeros((2, 3, 3), np.uint8))[1])

EXPECTED = {
    "GL3": "scene#00000012#00000034",
    "BLE": "scene#00000003#00000001",
    "ETI": "scene#DSC_0259.JPG#DSC_0271.JPG",
    "ETO": "scene#DSC_0304.JPG#DSC_0312.JPG",
    "KIT": "scene#000000.png#000005.png",
    "WEA": "scene#1418132416123456#1418132417123456",
    "SEA": "scene#1418756734123456#1418756735123456",
    "NIG": "scene#1418235223123456#1418235224123456",
    "MUL": "scene#img/img0001_0.png#img/img0009_0.png",
    "SCE": "scene#100.jpg#225.jpg",
    "ICL": "scene#12.jpg#340.jpg",
    "GTA": "scene#image_0#image_39",
}


def write_known(root: Path, row: ZebSet, line: str | None = None) -> Path:
    names = NAMES[row.short]
    text = line or pair_line(names, (K0, K1), QUARTER, 0.25)
    return write_pair(root / row.folder, "scene", row.separator, names, text, PIXEL)


@pytest.mark.parametrize("row", ZEB_SETS, ids=lambda row: row.short)
def test_each_of_the_twelve_layouts(row: ZebSet, tmp_path: Path) -> None:
    write_known(tmp_path, row)
    (found,) = read_zeb(tmp_path)
    (pair,) = found.pairs
    assert (found.name, found.published, found.image_size) == (row.name, row.pairs, row.image_size)
    assert pair.identifier == EXPECTED[row.short]
    assert pair.images == tuple(f"scene{row.separator}{bare(name)}.png" for name in NAMES[row.short])
    assert pair.overlaps == (0.25, 0.25)
    np.testing.assert_array_equal(pair.intrinsics, [K0, K1])
    np.testing.assert_array_equal(pair.second_from_first, QUARTER)
    assert not found.skipped


def test_all_sets_come_in_the_order_of_the_paper_and_by_any_of_their_names(tmp_path: Path, caplog) -> None:
    for row in reversed(ZEB_SETS):
        write_known(tmp_path, row)
    (tmp_path / "README.txt").write_text("not a pair")
    assert [found.name for found in read_zeb(tmp_path)] == [row.name for row in ZEB_SETS]
    assert not caplog.text
    asked = read_zeb(tmp_path, ["KIT", "gl3d", "GTA-SfM", "kit"])
    assert [found.name for found in asked] == ["GL3D", "KITTI", "GTA-SfM"]


def test_sets_that_are_not_there_are_told(tmp_path: Path, caplog) -> None:
    write_known(tmp_path, ZEB_SETS[0])
    assert len(read_zeb(tmp_path)) == 1
    assert "11 of ZEB's twelve sets are not there" in caplog.text
    assert "Multi-FoV" in caplog.text


def test_other_sets_are_known_by_their_folder_and_may_have_blanks_and_separators(tmp_path: Path) -> None:
    names = ("a-1_b.jpg", "a-2.jpg")
    write_pair(
        tmp_path / "my set", "old-town_2", "_", names, pair_line(names, (K0, K1), QUARTER, "nan"), PIXEL
    )
    (found,) = read_zeb(tmp_path)
    (pair,) = found.pairs
    assert (found.name, found.published, found.image_size) == ("my_set", None, None)
    assert pair.identifier == "old-town_2#a-1_b.jpg#a-2.jpg"
    assert pair.images == ("old-town_2_a-1_b.png", "old-town_2_a-2.png")
    assert np.isnan(pair.overlaps).all()


def test_a_set_itself_may_be_named(tmp_path: Path) -> None:
    write_known(tmp_path, ZEB_SETS[4])
    assert read_zeb(tmp_path / "kitti")[0].name == "KITTI"


def test_pairs_come_in_the_order_of_their_identifiers(tmp_path: Path) -> None:
    for names in (("b.jpg", "c.jpg"), ("a.jpg", "z.jpg"), ("a.jpg", "c.jpg")):
        write_pair(tmp_path / "x", "s", "-", names, pair_line(names, (K0, K1), QUARTER), PIXEL)
    (found,) = read_zeb(tmp_path)
    assert [pair.identifier for pair in found.pairs] == ["s#a.jpg#c.jpg", "s#a.jpg#z.jpg", "s#b.jpg#c.jpg"]


SINGULAR = np.diag([0.0, 500, 1])
MIRRORED = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 1]])
STRETCHED = np.array([[1.1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]])
PAIR = ("a.jpg", "b.jpg")
BAD = {
    "37 tokens": (" ".join(pair_line(PAIR, (K0, K1), QUARTER).split()[:-1]), "37 tokens"),
    "empty": ("", "0 tokens"),
    "word": (pair_line(PAIR, (K0, K1), QUARTER, "half"), "half"),
    "not finite": (pair_line(PAIR, (np.full((3, 3), np.nan), K1), QUARTER), "intrinsics"),
    "singular": (pair_line(PAIR, (K0, SINGULAR), QUARTER), "focal"),
    "mirrored": (pair_line(PAIR, (K0, K1), MIRRORED), "reflection"),
    "stretched": (pair_line(PAIR, (K0, K1), STRETCHED), "rotation"),
    "last row": (f"a.jpg b.jpg 0 0 {numbers(K0, K1, np.vstack([QUARTER, [0, 0, 1, 1]]))}", "last row"),
    "no image": (pair_line(("a.jpg", "gone.jpg"), (K0, K1), QUARTER), "gone.png is not there"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_pair_is_skipped_with_its_reason_or_refused(case: str, tmp_path: Path) -> None:
    line, reason = BAD[case]
    write_pair(
        tmp_path / "x", "s", "-", ("c.jpg", "d.jpg"), pair_line(("c.jpg", "d.jpg"), (K0, K1), QUARTER), PIXEL
    )
    names = ("a.jpg", "gone.jpg") if case == "no image" else PAIR
    bad = write_pair(tmp_path / "x", "s", "-", names, line)
    for name in PAIR:
        (tmp_path / "x" / f"s-{bare(name)}.png").write_bytes(PIXEL)
    (found,) = read_zeb(tmp_path)
    assert [pair.identifier for pair in found.pairs] == ["s#c.jpg#d.jpg"]
    (skipped,) = found.skipped
    assert skipped.source == str(bad)
    assert reason in skipped.reason
    with pytest.raises(InputError, match=bad.name):
        read_zeb(tmp_path, strict=True)


def test_the_same_pair_twice_counts_once(tmp_path: Path) -> None:
    line = pair_line(("a.jpg", "b.jpg"), (K0, K1), QUARTER)
    for separator in "-_":
        write_pair(tmp_path / "x", "s", separator, ("a.jpg", "b.jpg"), line, PIXEL)
    (found,) = read_zeb(tmp_path)
    assert len(found.pairs) == 1
    assert "once more" in found.skipped[0].reason


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")
    for folder in ("my set", "my_set"):
        write_pair(tmp_path / folder, "s", "-", names, pair_line(names, (K0, K1), QUARTER), PIXEL)
    with pytest.raises(InputError, match="both be called my_set"):
        read_zeb(tmp_path)


def test_pair_files_that_cannot_be_read_are_skipped(tmp_path: Path) -> None:
    write_known(tmp_path, ZEB_SETS[0])
    (tmp_path / "gl3d" / "s_a_b.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gl3d" / "s_c_d.txt").mkdir()
    (found,) = read_zeb(tmp_path)
    assert len(found.pairs) == 1
    assert len(found.skipped) == 2


def test_a_set_without_a_good_pair_is_refused(tmp_path: Path) -> None:
    write_known(tmp_path, ZEB_SETS[0], "too short")
    with pytest.raises(InputError, match="2 tokens"):
        read_zeb(tmp_path)


def test_sets_asked_for_must_exist(tmp_path: Path) -> None:
    write_known(tmp_path, ZEB_SETS[0])
    with pytest.raises(InputError, match="KITTI is not there"):
        read_zeb(tmp_path, ["KIT"])
    with pytest.raises(SettingsError, match=r"no set 'KITT'. Did you mean 'KIT'"):
        read_zeb(tmp_path, ["KITT"])


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        read_zeb(tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    with pytest.raises(InputError, match="holds no set"):
        read_zeb(tmp_path)
