"""Dense matchers in the main job, by one that knows the drawn world's depth: joining, rescue, collapse."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from oracle_kit import Oracle, enlist

import gim_sfm
from gim_sfm import carrying
from gim_sfm.demo import measure
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.errors import InputError, ReconstructionError, SettingsError
from gim_sfm.matchers import MATCHERS
from gim_sfm.matchers.contract import DenseMatcher, WarpMatcher
from gim_sfm.sfm import reconstruction
from gim_sfm.sfm.known import read_poses
from gim_sfm.sfm.modelling import Modelled
from gim_sfm.types import Correspondences, Photo


@pytest.mark.parametrize(
    ("tracks", "position", "of_three"),
    [("anchored", 0.01, 0.5), ("merged", 0.03, 0.3), ("quantised", 0.03, 0.15)],
)
def test_dense_matches_register_all_photos(
    tracks: str,
    position: float,
    of_three: float,
    drawn_world: DrawnWorld,
    drawn_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enlist(monkeypatch, WarpMatcher(Oracle(drawn_world, drawn_photos)))
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", matcher="oracle", tracks=tracks)
    found = {name: view.cam_from_world.matrix() for name, view in read_poses(result.model).items()}
    accuracy = measure(found, drawn_world.cam_from_world)
    assert result.registered == 8
    assert accuracy.position_share[1] < position
    report = json.loads(result.report.with_suffix(".json").read_text())
    assert report["tracks"]["of_three"] > of_three
    assert any("Matches hang together" in note for note in report["notes"])


def test_a_second_run_asks_the_network_nothing(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(drawn_world, drawn_photos)
    enlist(monkeypatch, WarpMatcher(oracle))
    first = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", matcher="oracle")
    asked = len(oracle.asked)
    again = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", matcher="oracle")
    assert (asked, len(oracle.asked)) == (28, 28)
    assert again.points == first.points


def test_masked_matches_are_left_out(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(monkeypatch, WarpMatcher(Oracle(drawn_world, drawn_photos)))
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in drawn_world.photos:
        mask = np.full((426, 640), 255, np.uint8)
        mask[:, 320:] = 0
        cv2.imwrite(str(masks / f"{name}.png"), mask)
    settings = {"matcher": "oracle", "tracks": "merged", "masks": masks}
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    places = [point.xy[0] for image in result.read_model().images.values() for point in image.points2D]
    assert max(places) < 326, "merging may move a keypoint by no more than its radius"


def test_masks_that_come_later_take_effect(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(drawn_world, drawn_photos)
    enlist(monkeypatch, WarpMatcher(oracle))
    settings = {"matcher": "oracle", "tracks": "merged"}
    before = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    asked = len(oracle.asked)
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in drawn_world.photos:
        mask = np.full((426, 640), 255, np.uint8)
        mask[:, 420:] = 0
        cv2.imwrite(str(masks / f"{name}.png"), mask)
    after = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", masks=masks, **settings)
    assert after.points < before.points
    assert len(oracle.asked) == asked, "masks hide keypoints after matching"


def test_a_photo_that_breaks_meanwhile_costs_its_pairs_only(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = sorted(drawn_world.photos)
    for name in names:
        (photos / name).write_bytes((drawn_photos / name).read_bytes())
    oracle = Oracle(drawn_world, photos)
    enlist(monkeypatch, WarpMatcher(oracle))
    read = carrying.read_photo

    def broken(path: Path, **settings: int | None) -> Photo:
        if path.name == names[0]:
            raise InputError(f"{path} is cut off", remedy="copy it again")
        return read(path, **settings)

    monkeypatch.setattr(carrying, "read_photo", broken)
    result = gim_sfm.reconstruct(photos, tmp_path / "out", matcher="oracle")
    assert result.registered == 7
    with pytest.raises(InputError, match="cut off"):
        gim_sfm.reconstruct(photos, tmp_path / "strict", matcher="oracle", strict=True)


def test_photos_are_decoded_as_large_as_the_finest_input(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []
    read = carrying.read_photo

    def noted(path: Path, *, longest: int | None = None) -> Photo:
        seen.append(longest)
        return read(path, longest=longest)

    monkeypatch.setattr(carrying, "read_photo", noted)
    enlist(monkeypatch, WarpMatcher(Oracle(drawn_world, drawn_photos)))
    monkeypatch.setitem(MATCHERS, "oracle", replace(MATCHERS["oracle"], finest=1.5))
    gim_sfm.reconstruct(drawn_photos, tmp_path / "out", matcher="oracle")
    assert set(seen) == {960}


def test_a_blurred_photo_is_rescued_by_the_second_matcher(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    blurred = sorted(drawn_world.photos)[-1]
    for name in drawn_world.photos:
        pixels = cv2.imread(str(drawn_photos / name))
        assert pixels is not None
        cv2.imwrite(str(photos / name), cv2.GaussianBlur(pixels, (0, 0), 12) if name == blurred else pixels)
    oracle = Oracle(drawn_world, photos)
    enlist(monkeypatch, WarpMatcher(oracle))
    alone = gim_sfm.reconstruct(photos, tmp_path / "alone", matcher="root-sift")
    assert alone.registered == 7
    rescued = gim_sfm.reconstruct(photos, tmp_path / "rescued", matcher="root-sift", rescue="oracle")
    assert rescued.registered == 8
    assert 0 < len(oracle.asked) <= 10
    assert all(blurred in pair for pair in oracle.asked)
    found = {name: view.cam_from_world.matrix() for name, view in read_poses(rescued.model).items()}
    assert measure(found, drawn_world.cam_from_world).position_share[1] < 0.03
    asked = len(oracle.asked)
    again = gim_sfm.reconstruct(photos, tmp_path / "rescued", matcher="root-sift", rescue="oracle")
    assert (again.points, len(oracle.asked)) == (rescued.points, asked)


def test_a_second_chance_without_gain_leaves_the_model_as_it_was(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(drawn_world, drawn_photos)
    enlist(monkeypatch, WarpMatcher(oracle))
    settings = {"matcher": "root-sift", "rescue": "oracle"}
    name = sorted(drawn_world.photos)[0]
    build, built = reconstruction.build_and_publish, []

    def second_is_empty(*arguments: Any) -> Modelled:
        built.append(build(*arguments))
        return replace(built[-1], best=pycolmap.Reconstruction()) if len(built) == 2 else built[-1]

    monkeypatch.setattr(reconstruction, "_left_out", lambda _modelled, _matching: {name})
    monkeypatch.setattr(reconstruction, "build_and_publish", second_is_empty)
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    assert len(built) == 3
    assert result.points == built[0].best.num_points3D()
    record = json.loads((tmp_path / "out" / "database.json").read_text())
    assert (record["lost"], record["in_vain"]) == ([], [name])
    asked = len(oracle.asked)
    again = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    assert (again.points, len(oracle.asked), len(built)) == (result.points, asked, 4)


def test_known_poses_are_triangulated_from_dense_matches(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(monkeypatch, WarpMatcher(Oracle(drawn_world, drawn_photos)))
    first = gim_sfm.reconstruct(drawn_photos, tmp_path / "first", matcher="oracle")
    known = first.read_model()
    for image_id in sorted(known.reg_image_ids())[2:]:
        known.deregister_frame(known.images[image_id].frame_id)
    poses = tmp_path / "poses"
    poses.mkdir()
    known.write(poses)
    settings = {"matcher": "oracle", "poses": poses}
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    assert result.registered == 2
    assert result.points > 50


class Aimless:
    """Right matches, but at places that no two pairs share."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def correspond(self, pairs: Sequence[tuple[Photo, Photo]]) -> list[Correspondences]:
        return self.oracle.correspond(pairs)


def test_matches_that_share_no_keypoints_are_told_instead_of_two_photos(
    drawn_world: DrawnWorld, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in sorted(drawn_world.photos)[:4]:
        (photos / name).write_bytes((drawn_photos / name).read_bytes())
    enlist(monkeypatch, DenseMatcher(Aimless(Oracle(drawn_world, photos, samples=40))), "merged")
    with pytest.raises(ReconstructionError, match="hardly share keypoints") as told:
        gim_sfm.reconstruct(photos, tmp_path / "out", matcher="oracle")
    assert "--tracks" in told.value.remedy
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"matcher": "root-sift", "tracks": "merged"}, "do not suit"),
        ({"matcher": "oracle", "tracks": "coarse-grid"}, "do not suit"),
        ({"matcher": "root-sift", "rescue": "root-sift"}, "cannot rescue"),
        ({"matcher": "root-sift", "rescue": "nothing"}, "no matcher"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    settings: dict[str, str],
    message: str,
    drawn_world: DrawnWorld,
    drawn_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enlist(monkeypatch, WarpMatcher(Oracle(drawn_world, drawn_photos)))
    with pytest.raises(SettingsError, match=message):
        gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
