import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gim_sfm.errors import InputError
from gim_sfm.evaluation.hpatches import LARGE, PUBLISHED, read_hpatches

HOMOGRAPHY = "1.1 0.02 5\n-0.01 0.95 -3\n1e-4 0 1\n"


def write_sequence(root: Path, name: str, suffix: str = ".ppm", last: int = 6) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for number in range(1, last + 1):
        Image.new("RGB", (20 + number, 10)).save(folder / f"{number}{suffix}")
    for number in range(2, last + 1):
        (folder / f"H_1_{number}").write_text(HOMOGRAPHY, encoding="utf-8")
    return folder


def test_sequences_become_two_sets(tmp_path: Path) -> None:
    write_sequence(tmp_path, "v_wall", ".png")
    write_sequence(tmp_path, "i_dome")
    light, view = read_hpatches(tmp_path)
    assert (light.name, view.name) == ("HPatches-i", "HPatches-v")
    assert (light.published, view.published) == (52 * 5, 56 * 5)
    assert (light.skipped, view.skipped) == ((), ())
    assert [pair.identifier for pair in light.pairs] == [f"i_dome#1.ppm#{k}.ppm" for k in range(2, 7)]
    pair = view.pairs[1]
    assert pair.images == ("v_wall/1.png", "v_wall/3.png")
    assert pair.sizes == ((21, 10), (23, 10))
    assert np.allclose(pair.second_from_first, [[1.1, 0.02, 5], [-0.01, 0.95, -3], [1e-4, 0, 1]])


def test_the_large_sequences_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_sequence(tmp_path, "i_dc")
    write_sequence(tmp_path, "i_dome")
    with caplog.at_level(logging.INFO):
        (kept,) = read_hpatches(tmp_path)
    assert {pair.identifier[:6] for pair in kept.pairs} == {"i_dome"}
    assert kept.skipped == ()
    assert "i_dc" in caplog.text
    (whole,) = read_hpatches(tmp_path, skip_large=False)
    assert len(whole.pairs) == 10
    assert whole.published == 57 * 5


def test_the_published_counts_are_those_of_the_literature() -> None:
    assert sum(PUBLISHED.values()) - sum(map(len, LARGE.values())) == 108


def test_other_sequences_make_a_set_of_their_own(tmp_path: Path) -> None:
    write_sequence(tmp_path, "graffiti", ".jpg", last=4)
    (other,) = read_hpatches(tmp_path, strict=True)
    assert (other.name, len(other.pairs), other.published) == ("HPatches-other", 3, None)


def test_bad_pairs_are_skipped_and_named(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path, "i_dome")
    (folder / "H_1_2").unlink()
    (folder / "3.ppm").unlink()
    (folder / "H_1_4").write_text("1 2 3", encoding="utf-8")
    (folder / "5.ppm").write_bytes(b"no photo")
    (only,) = read_hpatches(tmp_path)
    assert [pair.images[1] for pair in only.pairs] == ["i_dome/6.ppm"]
    reasons = {Path(each.source).name: each.reason for each in only.skipped}
    assert "cannot be read" in reasons["H_1_2"]
    assert reasons["H_1_3"] == "image 3 is not there"
    assert "3 numbers given" in reasons["H_1_4"]
    assert "5.ppm" in reasons["H_1_5"]


@pytest.mark.parametrize(
    "text", ["1 0 0 0 1 0 0 0", "0 0 0 0 0 0 0 0 0", "1 0 0 0 1 0 0 0 nan", "a b c d e f g h i"]
)
def test_a_bad_homography_is_refused_when_strict(tmp_path: Path, text: str) -> None:
    folder = write_sequence(tmp_path, "v_wall")
    (folder / "H_1_5").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="H_1_5"):
        read_hpatches(tmp_path, strict=True)


def test_a_sequence_of_bad_pairs_only_is_refused(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path, "v_wall")
    (folder / "1.ppm").unlink()
    with pytest.raises(InputError, match="image 1 is not there"):
        read_hpatches(tmp_path)


def test_a_folder_without_sequences_is_refused(tmp_path: Path) -> None:
    (tmp_path / "i_empty").mkdir()
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="holds no sequence"):
            read_hpatches(root)
