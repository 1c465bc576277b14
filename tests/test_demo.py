"""The demo's own pieces; the whole of it runs end to end where the weights are."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from gim_sfm import demo
from gim_sfm.demo import DemoResult, measure
from gim_sfm.download import fault
from gim_sfm.drawn_world import draw_world
from gim_sfm.drawn_world.cameras import orbit
from gim_sfm.errors import DownloadError, OutputError, SettingsError
from gim_sfm.geometry import Similarity
from gim_sfm.photo_sets import PHOTO_SETS, PhotoFile, PhotoSet, fetch_photo_set, find_photo_set


def poses(count: int = 8) -> dict[str, np.ndarray]:
    return {f"{index}.jpg": pose for index, pose in enumerate(orbit(count, np.random.default_rng(1)))}


def moved(truth: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same cameras in a world turned, shifted and three times as large."""
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    change = Similarity(3.0, turn, np.array([5.0, -2.0, 1.0]))
    return {name: change.move_pose(pose) for name, pose in truth.items()}


def test_perfect_poses_in_another_frame() -> None:
    accuracy = measure(moved(poses()), poses())
    assert max(accuracy.rotation_degrees + accuracy.position_share) < 1e-6
    assert min(accuracy.auc.values()) > 0.999


def test_errors_are_found_and_missing_photos_count() -> None:
    truth = poses()
    estimated = moved(truth)
    tilt = np.radians(2.0)
    rotation = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    estimated["3.jpg"] = rotation @ estimated["3.jpg"]
    accuracy = measure(estimated, truth)
    assert accuracy.rotation_degrees == pytest.approx((0.0, 2.0), abs=1e-4)
    assert accuracy.auc[1.0] == pytest.approx(21 / 28, abs=0.01)
    del estimated["3.jpg"]
    without = measure(estimated, truth)
    assert without.rotation_degrees[1] < 1e-4
    assert without.auc[5.0] == pytest.approx(21 / 28, abs=0.01)


def test_result_tells_what_matters(tmp_path: Path) -> None:
    result = DemoResult(
        photos=tmp_path / "photos",
        model=tmp_path / "sparse" / "0",
        report=tmp_path / "report.html",
        registered=8,
        total=9,
        seconds=12.3,
        accuracy=(measure(moved(poses()), poses()),),
    )
    text = str(result)
    assert "8 of 9 photos registered in 12 s" in text
    assert str(result.report) in text
    assert str(result.model) in text
    assert "0.000° median" in text
    assert "AUC 100.0 at 1°" in text


def test_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw() -> object:
        drawn.append(1)
        return draw_world(3, (48, 32))

    monkeypatch.setattr(demo, "draw_world", draw)
    folder = tmp_path / "photos"
    first = demo._drawn_photos(folder)
    again = demo._drawn_photos(folder)
    assert len(drawn) == 1
    assert sorted(first) == sorted(again) == ["view_00.jpg", "view_01.jpg", "view_02.jpg"]
    (folder / "view_01.jpg").unlink()
    demo._drawn_photos(folder)
    assert len(drawn) == 2
    assert (folder / "view_01.jpg").exists()


def test_never_among_photos_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "draw_world", lambda: draw_world(3, (48, 32)))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"holiday\.jpg"):
        demo._drawn_photos(tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "draw_world", lambda: draw_world(1, (48, 32)))
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        demo._drawn_photos(tmp_path / "taken" / "photos")


@pytest.mark.parametrize("name", PHOTO_SETS)
def test_every_row_is_pinned(name: str) -> None:
    chosen = find_photo_set(name)
    assert chosen.address.startswith("https://")
    assert re.search(r"/[0-9a-f]{40}/", chosen.address)
    assert chosen.licence
    assert len({file.name for file in chosen.files}) == len({file.sha256 for file in chosen.files})
    for file in chosen.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert 100_000 < file.size < 1_000_000
    assert chosen.size == sum(file.size for file in chosen.files)


def test_number_of_photos() -> None:
    assert {name: len(chosen.files) for name, chosen in PHOTO_SETS.items()} == {
        "sacre_coeur": 10,
        "saharov32": 32,
    }


def test_unknown_photo_set_tells_the_nearest() -> None:
    with pytest.raises(SettingsError, match="sacre_coeur"):
        find_photo_set("sacre-coeur")


@pytest.mark.data
def test_pinned_photos_are_the_ones_we_know(shared_data: Path) -> None:
    folder = shared_data / "photos" / "sacre_coeur" / "images"
    for file in PHOTO_SETS["sacre_coeur"].files:
        assert fault(folder / file.name, size=file.size, sha256=file.sha256) == ""


def test_fetching_skips_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"content")
    there = PhotoFile("a.jpg", 7, hashlib.sha256(b"content").hexdigest())
    nowhere = "http://127.0.0.1:9"  # nothing listens on the discard port
    assert fetch_photo_set(PhotoSet("", "", nowhere, (there,)), tmp_path) == tmp_path
    missing = PhotoFile("b.jpg", 7, "0" * 64)
    with pytest.raises(DownloadError, match=r"b\.jpg"):
        fetch_photo_set(PhotoSet("", "", nowhere, (there, missing)), tmp_path)
