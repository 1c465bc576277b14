"""New photos join an existing model of the drawn world: accuracy, frame of reference, resuming, refusals."""

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

import gim_sfm
from gim_sfm.drawn_world import DrawnWorld, draw_world
from gim_sfm.errors import InputError, OutputError, ReconstructionError, SettingsError
from gim_sfm.geometry import camera_centres, rotation_angle_degrees, umeyama
from gim_sfm.images import read_header
from gim_sfm.recipe import ExtensionSettings, Recipe
from gim_sfm.sfm.adoption import adopt_model
from gim_sfm.sfm.calibration import adjust_points
from gim_sfm.sfm.colmap import make_camera
from gim_sfm.sfm.extension.copying import copy_map
from gim_sfm.sfm.extension.frames import align_back, measure_displacement
from gim_sfm.sfm.extension.lenses import doubtful
from gim_sfm.sfm.extension.new_cameras import cameras_for
from gim_sfm.sfm.extension.partners import promising
from gim_sfm.sfm.known import read_poses
from gim_sfm.sfm.maps import open_map
from gim_sfm.sfm.refinement import Share, read_view, refine_keypoints
from gim_sfm.sfm.report import ADVICE

FAST = {"matcher": "root-sift", "max_keypoints": 2048}
LATER = ("view_03.jpg", "view_07.jpg")

pytestmark = pytest.mark.usefixtures("one_thread")


def poses(out: Path) -> dict[str, np.ndarray]:
    return {name: view.cam_from_world.matrix() for name, view in read_poses(out / "sparse" / "0").items()}


def cameras(out: Path) -> dict[int, list[float]]:
    model = pycolmap.Reconstruction(out / "sparse" / "0")
    return {number: list(camera.params) for number, camera in model.cameras.items()}


def take(names: Iterable[str], source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy2(source / name, folder / name)
    return folder


def errors(out: Path, world: DrawnWorld, new: Iterable[str]) -> tuple[float, float]:
    """Largest errors of new photos once the old ones lie over the truth: metres, degrees."""
    found, truth, new = poses(out), world.cam_from_world, tuple(new)
    old = sorted(found.keys() - set(new))
    truth_from_map = umeyama(
        *(camera_centres(np.stack([side[name] for name in old])) for side in (found, truth))
    )
    moved = truth_from_map.move_pose(np.stack([found[name] for name in new]))
    there = np.stack([truth[name] for name in new])
    turns = rotation_angle_degrees(moved[:, :, :3] @ np.swapaxes(there[:, :, :3], -1, -2))
    gaps = np.linalg.norm(camera_centres(moved) - camera_centres(there), axis=-1)
    return float(gaps.max()), float(turns.max())


@pytest.fixture(scope="module")
def old_photos(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [path.name for path in drawn_photos.iterdir() if path.name not in LATER]
    return take(names, drawn_photos, tmp_path_factory.mktemp("old") / "photos")


@pytest.fixture(scope="module")
def later(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return take(LATER, drawn_photos, tmp_path_factory.mktemp("later") / "photos")


@pytest.fixture(scope="module")
def small(old_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of six photos; do not change it."""
    out = tmp_path_factory.mktemp("small") / "out"
    gim_sfm.reconstruct(old_photos, out, **FAST)
    return out


@pytest.fixture
def out(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "out", symlinks=True))


@pytest.fixture(scope="module")
def grown(small: Path, later: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its extension, in a folder of its own."""
    out = tmp_path_factory.mktemp("grown") / "out"
    gim_sfm.extend(later, small, output=out)
    return out


def test_new_photos_find_their_place_and_old_ones_stay_to_the_bit(
    small: Path, grown: Path, drawn_world: DrawnWorld
) -> None:
    before, after = poses(small), poses(grown)
    assert after.keys() == {*before, *LATER}
    assert all(np.array_equal(after[name], pose) for name, pose in before.items())
    assert cameras(grown) == cameras(small)
    gap, turn = errors(grown, drawn_world, LATER)
    assert turn < 0.1
    assert gap < 0.01
    report = json.loads((grown / "report.json").read_text())
    assert report["summary"]["registered"] == 8
    assert any("exactly where they were" in note for note in report["notes"])


def test_the_larger_model_has_points_of_new_photos_and_observations_of_old_points(
    small: Path, grown: Path
) -> None:
    before = pycolmap.Reconstruction(small / "sparse" / "0")
    after = pycolmap.Reconstruction(grown / "sparse" / "0")
    new = next(image for image in after.images.values() if image.name == LATER[0])
    seen = {point.point3D_id for point in new.get_observation_points2D()}
    assert len(seen & set(before.points3D)) > 30
    assert len(seen - set(before.points3D)) > 30
    colours = np.array([after.points3D[number].color for number in seen - set(before.points3D)])
    assert (colours.max(axis=1) > 0).mean() > 0.9


def test_adjusted_photos_stay_in_the_former_frame_and_the_largest_shift_is_told(
    small: Path, later: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    result = gim_sfm.extend(later, small, output=tmp_path / "grown", old_photos="adjust")
    before, after = poses(small), poses(tmp_path / "grown")
    now, then = (np.stack([side[name] for name in sorted(before)]) for side in (after, before))
    shifts = np.linalg.norm(camera_centres(now) - camera_centres(then), axis=1)
    turns = rotation_angle_degrees(now[:, :, :3] @ np.swapaxes(then[:, :, :3], -1, -2))
    told = result.displacement
    extent = np.linalg.norm(np.ptp(camera_centres(then), axis=0))
    assert told.shift == pytest.approx(shifts.max(), rel=1e-6)
    assert told.turn == pytest.approx(turns.max(), abs=1e-6)
    assert told.share == pytest.approx(shifts.max() / extent, rel=1e-6)
    assert 0 < told.share < 0.01
    assert 0 < told.turn < 0.3
    assert errors(tmp_path / "grown", drawn_world, LATER)[1] < 0.1


def test_a_moved_model_is_brought_back(small: Path) -> None:
    before = pycolmap.Reconstruction(small / "sparse" / "0")
    moved = pycolmap.Reconstruction(before)
    moved.transform(pycolmap.Sim3d(np.array([[0, -3.0, 0, 1], [3, 0, 0, 2], [0, 0, 3, 3]])))
    align_back(moved, before)
    for number, image in before.images.items():
        np.testing.assert_allclose(
            moved.images[number].cam_from_world().matrix(), image.cam_from_world().matrix(), atol=1e-8
        )


def test_the_map_that_was_copied_stays_as_it_was(small: Path, grown: Path, later: Path) -> None:
    assert open_map(small).model.num_reg_images() == 6
    assert not (small / "former").exists()
    assert (small / "images").resolve() != (grown / "images").resolve()
    assert {path.name for path in (grown / "images").iterdir()} >= {*LATER, "view_00.jpg"}
    assert gim_sfm.extend(later, small, output=grown).joined == LATER  # the finished copy is taken as it is
    with pytest.raises(OutputError, match="something else"):
        gim_sfm.extend(later, small, output=later)


def test_in_place_the_former_model_is_kept_and_only_new_pairs_are_matched(
    out: Path, small: Path, later: Path
) -> None:
    result = gim_sfm.extend(later, out)
    assert result.model == out.resolve() / "sparse" / "0"
    kept = pycolmap.Reconstruction(result.former / "0")
    assert kept.num_points3D() == pycolmap.Reconstruction(small / "sparse" / "0").num_points3D()
    pairs = (out / "pairs.txt").read_text().splitlines()
    assert len(pairs) == 15 + 13
    assert not (out / "extension").exists()
    again = gim_sfm.extend(later, out)
    assert again == result


def test_the_old_folder_with_new_photos_in_it_and_a_folder_within_it(
    out: Path, old_photos: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(old_photos, tmp_path / "photos"))
    take(LATER[:1], drawn_photos, photos)
    assert gim_sfm.extend(photos, out, model_photos=photos).joined == LATER[:1]
    assert (out / "images").resolve() == photos.resolve()
    second = take(LATER[1:], drawn_photos, photos / "second")
    assert gim_sfm.extend(second, out).joined == (f"second/{LATER[1]}",)
    assert (out / "images").resolve() == photos.resolve()
    assert {path.name for path in (out / "former").iterdir()} == {"1", "2"}
    assert len(poses(out)) == 8


def test_photos_from_elsewhere_and_then_from_within_the_old_folder(
    out: Path, old_photos: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(old_photos, tmp_path / "photos"))
    shutil.rmtree(out / "images") if not (out / "images").is_symlink() else (out / "images").unlink()
    (out / "images").symlink_to(photos)
    elsewhere = take(LATER[:1], drawn_photos, tmp_path / "elsewhere" / "deep")
    assert gim_sfm.extend(elsewhere.parent, out).joined == (f"deep/{LATER[0]}",)
    assert (out / "images" / "deep" / LATER[0]).exists()
    second = take(LATER[1:], drawn_photos, photos / "second")
    assert gim_sfm.extend(second, out).joined == (f"second/{LATER[1]}",)
    gim_sfm.reconstruct(out / "images", out, **FAST)
    assert len(poses(out)) == 8


def test_reconstruct_takes_up_the_grown_folder(
    out: Path, old_photos: Path, drawn_photos: Path, later: Path, tmp_path: Path
) -> None:
    gim_sfm.extend(later, out)
    result = gim_sfm.reconstruct(drawn_photos, out, **FAST)
    assert result.registered == 8
    assert (out / "images").resolve() == drawn_photos.resolve()


def test_another_photo_of_the_same_name_is_refused(out: Path, drawn_photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    shutil.copy2(drawn_photos / LATER[0], folder / "view_00.jpg")
    with pytest.raises(InputError, match="different photos") as caught:
        gim_sfm.extend(folder, out)
    assert str(folder / "view_00.jpg") in caught.value.message
    assert "subfolder" in caught.value.remedy
    assert len(poses(out)) == 6


def test_nothing_new_and_unknown_models_are_refused(
    out: Path, old_photos: Path, later: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no new photo"):
        gim_sfm.extend(old_photos, out)
    with pytest.raises(InputError, match="no COLMAP model"):
        gim_sfm.extend(later, tmp_path)
    with pytest.raises(SettingsError, match="old_photo"):
        gim_sfm.extend(later, out, old_photo="fixed")
    with pytest.raises(SettingsError, match="settings of its own"):
        gim_sfm.extend(later, out, recipe=Recipe())
    shutil.move(str(old_photos), tmp_path / "moved")
    try:
        with pytest.raises(InputError, match="view_00"):
            gim_sfm.extend(later, out)
        assert gim_sfm.extend(later, out, model_photos=tmp_path / "moved").joined == LATER
    finally:
        shutil.move(str(tmp_path / "moved"), old_photos)


def test_photos_of_another_place_do_not_join(out: Path, drawn_photos: Path, tmp_path: Path) -> None:
    strangers = tmp_path / "strangers"
    draw_world(2, (640, 426), seed=77, arc_degrees=20).write(strangers / "photos")
    (strangers / "photos" / "view_00.jpg").rename(strangers / "photos" / "a.jpg")
    (strangers / "photos" / "view_01.jpg").rename(strangers / "photos" / "b.jpg")
    before = poses(out)
    with pytest.raises(ReconstructionError, match="None of the new photos") as caught:
        gim_sfm.extend(strangers / "photos", out)
    assert "a.jpg: " in caught.value.message
    after = poses(out)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert not (out / "former").exists()
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(before)
    take(LATER, drawn_photos, strangers / "photos")
    result = gim_sfm.extend(strangers / "photos", out)
    assert result.joined == LATER
    assert result.left_out.keys() == {"a.jpg", "b.jpg"}
    assert any("a.jpg did not join" in note for note in result.notes)


def test_broken_photos_are_told_and_a_folder_further_up_offers_nothing_twice(
    out: Path, old_photos: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(old_photos, tmp_path / "all" / "photos"))
    more = take(LATER, drawn_photos, tmp_path / "all" / "more")
    (more / "broken.jpg").write_bytes((drawn_photos / LATER[0]).read_bytes()[:5000])
    result = gim_sfm.extend(tmp_path / "all", out, model_photos=photos)
    assert result.joined == tuple(f"more/{name}" for name in LATER)
    assert result.left_out.keys() == {"more/broken.jpg"}
    assert result.left_out["more/broken.jpg"].startswith("unreadable file")
    assert gim_sfm.extend(tmp_path / "all", out) == result


@pytest.mark.parametrize(
    "place",
    [
        "extending.choose_partners",
        "growth.match_and_verify",
        "growth.write_figures",
        "enlarging.register_photos",
        "enlarging.measure_displacement",
        "conclusion.write_report",
        "workplace.publish",
    ],
)
def test_cut_off_anywhere_the_same_call_ends_with_the_same_result(
    place: str, out: Path, grown: Path, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(f"gim_sfm.sfm.extension.{place}", fail)
        with pytest.raises(KeyboardInterrupt):
            gim_sfm.extend(later, out)
    assert len(poses(out)) == 6
    result = gim_sfm.extend(later, out)
    assert result.joined == LATER
    mine, theirs = poses(out), poses(grown)
    assert mine.keys() == theirs.keys()
    for name, pose in mine.items():
        np.testing.assert_allclose(pose, theirs[name], atol=1e-12)
    with pycolmap.Database.open(out / "database.db") as database:
        assert database.num_images() == 8
        assert database.num_matched_image_pairs() == 28


def test_a_model_put_aside_by_a_killed_run_is_put_back(out: Path, later: Path) -> None:
    (out / "sparse").rename(out / ".sparse.old")
    assert gim_sfm.extend(later, out).joined == LATER


def foreign_model(world: DrawnWorld, names: Iterable[str], folder: Path) -> Path:
    """The truth as another program would hand it over: text, numbers of its own, no points."""
    model = pycolmap.Reconstruction()
    for index, name in enumerate(sorted(names)):
        photo = world.photos[name]
        row = world.ground_truth()["images"][name]
        if not model.cameras:
            params = [row["K"][0][0], row["K"][1][1], row["K"][0][2] + 0.5, row["K"][1][2] + 0.5]
            camera = pycolmap.Camera(
                camera_id=7, model="PINHOLE", width=row["width"], height=row["height"], params=params
            )
            model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=name, camera_id=7, image_id=90 - 10 * index)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(photo.cam_from_world))
    folder.mkdir(parents=True)
    model.write_text(folder)
    return folder


def test_models_made_elsewhere_become_maps_and_grow_in_their_own_frame(
    drawn_photos: Path, drawn_world: DrawnWorld, old_photos: Path, tmp_path: Path
) -> None:
    names = [path.name for path in old_photos.iterdir()]
    model, out = foreign_model(drawn_world, names, tmp_path / "model"), tmp_path / "out"
    recipe = Recipe().with_settings(FAST)
    made = adopt_model(model, drawn_photos, out, recipe=recipe)  # holds photos that the model has not
    given = {name: view.cam_from_world.matrix() for name, view in read_poses(model).items()}
    assert poses(out).keys() == given.keys()
    assert made.model.num_points3D() > 300
    result = gim_sfm.extend(drawn_photos, model, output=out, model_photos=drawn_photos, recipe=recipe)
    assert result.joined == LATER
    after = poses(out)
    for name, pose in given.items():
        np.testing.assert_allclose(after[name], pose, atol=1e-12)
    assert [*cameras(out).values()] == [*cameras_of_text(model)]
    for name in LATER:
        turn = rotation_angle_degrees(after[name][:, :3] @ drawn_world.cam_from_world[name][:, :3].T)
        gap = np.linalg.norm(
            camera_centres(after[name][None]) - camera_centres(drawn_world.cam_from_world[name][None])
        )
        assert turn < 0.1
        assert gap < 0.01
    assert adopt_model(model, drawn_photos, out, recipe=recipe).model.num_reg_images() == 8
    with pytest.raises(SettingsError, match="given"):
        gim_sfm.extend(drawn_photos, out, old_photos="adjust")


def cameras_of_text(model: Path) -> list[list[float]]:
    return [list(camera.params) for camera in pycolmap.Reconstruction(model).cameras.values()]


def test_models_made_elsewhere_need_their_photos_and_a_place(
    drawn_world: DrawnWorld, drawn_photos: Path, later: Path, small: Path, tmp_path: Path
) -> None:
    model = foreign_model(drawn_world, ["view_00.jpg", "view_01.jpg"], tmp_path / "model")
    with pytest.raises(InputError, match="view_00"):
        adopt_model(model, later, tmp_path / "out")
    with pytest.raises(InputError, match="without the features"):
        gim_sfm.extend(later, model)
    with pytest.raises(SettingsError, match="made elsewhere"):
        gim_sfm.extend(later, model, model_photos=drawn_photos)
    with pytest.raises(OutputError, match="holds a map"):
        adopt_model(model, drawn_photos, small, recipe=Recipe().with_settings(FAST))


def test_matches_without_keypoints_of_their_own_join_those_of_the_model(
    drawn_photos: Path, drawn_world: DrawnWorld, tmp_path: Path, xfeat_weights: str
) -> None:
    old = take([f"view_0{index}.jpg" for index in (0, 1, 3, 4)], drawn_photos, tmp_path / "old")
    new = take(["view_02.jpg"], drawn_photos, tmp_path / "new")
    out = tmp_path / "out"
    gim_sfm.reconstruct(old, out, matcher="xfeat-star", image_size=640, tracks="merged")
    before = pycolmap.Reconstruction(out / "sparse" / "0")
    gim_sfm.extend(new, out)
    after = pycolmap.Reconstruction(out / "sparse" / "0")
    more = 0
    for number, image in before.images.items():
        grown = after.images[number]
        more += grown.num_points2D() - image.num_points2D()
        for index, point in enumerate(image.points2D):
            assert not point.has_point3D() or np.array_equal(grown.points2D[index].xy, point.xy)
    assert more > 0
    seen = next(image for image in after.images.values() if image.name == "view_02.jpg")
    assert len({point.point3D_id for point in seen.get_observation_points2D()} & set(before.points3D)) > 5
    assert errors(out, drawn_world, ["view_02.jpg"])[1] < 0.5


def test_new_photos_share_the_one_camera_of_their_kind(drawn_photos: Path) -> None:
    headers = {name: read_header(drawn_photos / name) for name in LATER}
    camera = make_camera((640, 426), "SIMPLE_RADIAL", focal=500.0, camera_id=4)
    other = make_camera((640, 426), "SIMPLE_RADIAL", focal=600.0, camera_id=5)
    one, two = {"view_00.jpg": camera}, {"view_00.jpg": camera, "view_01.jpg": other}
    shared = cameras_for(Recipe(), headers, one, drawn_photos)
    assert {row.camera_id for row in shared.values()} == {4}
    assert shared[LATER[0]].params[0] == 500.0
    undecided = cameras_for(Recipe(), headers, two, drawn_photos)
    assert {row.camera_id for row in undecided.values()} == {6}
    alike = make_camera((640, 426), "SIMPLE_RADIAL", focal=500.0, camera_id=5)
    agreed = cameras_for(Recipe(), headers, two | {"view_01.jpg": alike}, drawn_photos)
    assert {row.camera_id for row in agreed.values()} == {4}
    alone = cameras_for(Recipe().with_settings({"cameras": "image"}), headers, two, drawn_photos)
    assert sorted(row.camera_id for row in alone.values()) == [6, 7]


def test_refinement_moves_what_is_not_settled_and_nothing_else(small: Path) -> None:
    model = pycolmap.Reconstruction(small / "sparse" / "0")
    before = {
        number: [np.array(point.xy) for point in image.points2D] for number, image in model.images.items()
    }
    share = Share(sorted(model.points3D)[::2], lambda image, _index: image != 2)
    done = refine_keypoints(model, lambda name: read_view(small / "images" / name), share)
    moved = {
        number: sum(
            not np.array_equal(point.xy, former)
            for point, former in zip(image.points2D, before[number], strict=True)
        )
        for number, image in model.images.items()
    }
    assert moved.pop(2) > 20
    assert set(moved.values()) == {0}
    assert done.compared < 2 * model.images[2].num_points3D


def test_points_are_adjusted_between_cameras_that_stay(small: Path) -> None:
    model = pycolmap.Reconstruction(small / "sparse" / "0")
    disturbed = pycolmap.Reconstruction(model)
    noise = np.random.default_rng(0)
    for point in disturbed.points3D.values():
        point.xyz = point.xyz + noise.normal(0, 0.005, 3)
    adjusted = adjust_points(disturbed)
    disturbed.update_point_3d_errors()
    assert disturbed.compute_mean_reprojection_error() > 0.3
    assert adjusted.compute_mean_reprojection_error() < 0.2
    for number, image in model.images.items():
        same = adjusted.images[number].cam_from_world().matrix()
        assert np.array_equal(same, image.cam_from_world().matrix())


def test_only_new_photos_choose_partners() -> None:
    counts = {(f"old{index}", "new"): 40 - index for index in range(30)}
    counts |= {("lonely", "old3"): 2, ("lonely", "new"): 1}
    chosen = promising(counts, ["new", "lonely"], best=5, minimum=4)
    assert sorted(pair for pair in chosen if "lonely" not in pair) == sorted(
        (f"old{index}", "new") for index in range(5)
    )
    assert [pair for pair in chosen if "lonely" in pair] == [("lonely", "old3")]


@pytest.fixture(scope="module")
def unnamed(drawn_world: DrawnWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of six photos without EXIF data; do not change it. All photos lie in `photos` beside it."""
    place = tmp_path_factory.mktemp("unnamed")
    drawn_world.write(place / "photos", exif=False)
    old = [path.name for path in (place / "photos").iterdir() if path.name not in LATER]
    gim_sfm.reconstruct(take(old, place / "photos", place / "old"), place / "out", **FAST)
    return place / "out"


def zoomed(source: Path, target: Path, factor: float, aside: float = 0.0) -> None:
    """What a lens of so many times the focal length would have taken, in the same size; or lies aside."""
    with Image.open(source) as photo:
        width, height = photo.size
        left, top = (width - width / factor) / 2, (height - height / factor) / 2
        right = left + aside * left
        box = (right, top, right + width / factor, top + height / factor)
        photo.resize(photo.size, Image.Resampling.LANCZOS, box).save(target, quality=95)


def test_a_photo_of_another_lens_gets_a_camera_of_its_own_and_the_right_pose(
    unnamed: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    new = take(LATER[:1], unnamed.parent / "photos", tmp_path / "new")
    zoomed(unnamed.parent / "photos" / LATER[1], new / LATER[1], 1.15)
    result = gim_sfm.extend(new, unnamed, output=tmp_path / "out")
    model = result.read_model()
    owners = {image.name: model.cameras[image.camera_id] for image in model.images.values()}
    assert owners[LATER[0]].camera_id == owners["view_00.jpg"].camera_id
    assert owners[LATER[1]].camera_id != owners["view_00.jpg"].camera_id
    assert owners[LATER[1]].mean_focal_length() == pytest.approx(
        1.15 * owners["view_00.jpg"].mean_focal_length(), rel=0.01
    )
    for name in LATER:
        gap, turn = errors(tmp_path / "out", drawn_world, [name])
        assert turn < 0.2
        assert gap < 0.03
    told = [note for note in result.notes if "without EXIF" in note]
    assert len(told) == 2
    assert LATER[1] in told[1]


def test_a_crop_aside_of_the_middle_comes_to_lie_right(
    unnamed: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    zoomed(unnamed.parent / "photos" / LATER[1], tmp_path / "new" / LATER[1], 1.3, aside=0.8)
    gim_sfm.extend(tmp_path / "new", unnamed, output=tmp_path / "out")
    gap, turn = errors(tmp_path / "out", drawn_world, LATER[1:])
    assert turn < 0.5
    assert gap < 0.05


def test_a_photo_that_cannot_tell_its_lens_does_not_get_that_of_the_map(
    unnamed: Path, drawn_world: DrawnWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gim_sfm.sfm.extension.lenses.FEWEST", 10**6)
    new = take(LATER[:1], unnamed.parent / "photos", tmp_path / "new")
    gim_sfm.extend(new, unnamed, output=tmp_path / "out")
    assert len(cameras(tmp_path / "out")) == 2
    assert errors(tmp_path / "out", drawn_world, LATER[:1])[0] < 0.05


def test_a_person_s_word_on_cameras_is_taken(drawn_photos: Path) -> None:
    headers = {name: replace(read_header(drawn_photos / name), camera_key="|||640x426") for name in LATER}
    camera = make_camera((640, 426), "SIMPLE_RADIAL", focal=500.0, camera_id=4)
    shared, old = dict.fromkeys(LATER, camera), {"view_00.jpg": camera}
    assert doubtful(Recipe(), headers, shared, old) == [*LATER]
    for setting in ({"cameras": "single"}, {"cameras": "folder"}, {"camera_params": "500,320,213,0"}):
        assert doubtful(Recipe().with_settings(setting), headers, shared, old) == []
    named = {name: read_header(drawn_photos / name) for name in LATER}
    assert doubtful(Recipe(), named, shared, old) == []


def path_model(noise: float) -> pycolmap.Reconstruction:
    """Twelve cameras on a straight path, but for noise, through points on both sides."""
    rng = np.random.default_rng(3)
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(make_camera((640, 480), "SIMPLE_PINHOLE", focal=500.0, camera_id=1))
    places = rng.uniform((-10, -4, 0), (10, 4, 60), (300, 3))
    for number in range(1, 13):
        image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
        centre = np.array([0, 0, 2.0 * number]) + rng.normal(0, 1e-2, 3)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pycolmap.Rotation3d(), -centre))
    disturbance = np.random.default_rng(4)
    for number in range(1, 13):
        pose = model.images[number].cam_from_world()
        shifted = pose.translation + disturbance.normal(0, noise, 3)
        frame = model.images[number].frame
        assert frame is not None
        frame.set_cam_from_world(1, pycolmap.Rigid3d(pose.rotation, shifted))
    for place in places:
        model.add_point3D(place + disturbance.normal(0, noise, 3), pycolmap.Track())
    return model


def test_a_path_that_is_nearly_straight_does_not_turn_about_itself() -> None:
    before, after = path_model(0.0), path_model(1e-2)
    align_back(after, before)
    moved = measure_displacement(after, before)
    assert 0 < moved.turn < 0.1
    assert moved.shift < 0.05


def test_only_the_best_model_of_a_map_grows(out: Path, later: Path, tmp_path: Path) -> None:
    shutil.copytree(out / "sparse" / "0", out / "sparse" / "1")
    for settings in ({}, {"output": tmp_path / "grown"}):
        with pytest.raises(SettingsError, match="not the best model"):
            gim_sfm.extend(later, out / "sparse" / "1", **settings)
    assert {path.name for path in (out / "sparse").iterdir()} == {"0", "1", "provenance.json"}
    assert gim_sfm.extend(later, out / "sparse" / "0").joined == LATER


def test_other_settings_give_photos_that_were_left_out_another_chance(
    out: Path, later: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    few = tmp_path / "few.txt"
    few.write_text("".join(f"view_0{index}.jpg {LATER[0]}\n" for index in (1, 2, 4, 5)))
    first = gim_sfm.extend(later, out, pairs="file", pairs_file=few)
    assert first.joined == LATER[:1]
    assert gim_sfm.extend(later, out, pairs="file", pairs_file=few) == first
    second = gim_sfm.extend(later, out)
    assert second.joined == LATER[1:]
    assert json.loads((out / "report.json").read_text())["summary"]["total"] == 8
    assert errors(out, drawn_world, LATER)[1] < 0.1
    assert len(cameras(out)) == 1
    assert gim_sfm.extend(later, out) == second
    with pytest.raises(InputError, match="other settings"):
        gim_sfm.extend(later, out, old_photos="adjust")


def test_cut_off_between_database_and_models_other_photos_may_come(
    out: Path, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("gim_sfm.sfm.extension.workplace.publish", fail)
        with pytest.raises(KeyboardInterrupt):
            gim_sfm.extend(take(LATER[:1], later, tmp_path / "first"), out)
    result = gim_sfm.extend(take(LATER[1:], later, tmp_path / "second"), out)
    assert result.joined == LATER[1:]
    assert len(poses(out)) == 7
    assert sorted(path.name for path in (out / "images").iterdir()) == sorted(poses(out))
    with pycolmap.Database.open(out / "database.db") as database:
        assert database.num_images() == 7
    assert gim_sfm.extend(tmp_path / "first", out).joined == LATER[:1]


def test_a_copy_of_a_grown_map_tells_nothing_of_what_it_has_not(grown: Path, tmp_path: Path) -> None:
    assert "extension" in json.loads((grown / "sparse" / "provenance.json").read_text())
    copy_map(open_map(grown), tmp_path / "copy")
    assert "extension" not in json.loads((tmp_path / "copy" / "sparse" / "provenance.json").read_text())


def test_a_map_without_a_record_can_be_copied_and_grow(out: Path, later: Path, tmp_path: Path) -> None:
    (out / "sparse" / "provenance.json").unlink()
    assert gim_sfm.extend(later, out, output=tmp_path / "grown").joined == LATER
    assert len(poses(out)) == 6


def test_tracks_are_those_of_the_larger_database(grown: Path, small: Path) -> None:
    before, after = (json.loads((out / "database.json").read_text())["tracks"] for out in (small, grown))
    assert (before["linked"], after["linked"]) == (6, 8)
    assert after["tracks"] > before["tracks"]
    assert json.loads((grown / "report.json").read_text())["tracks"] == after


@pytest.mark.parametrize("strict", [False, True])
def test_a_broken_photo_is_named_where_it_lies_and_leaves_nothing_behind(
    out: Path, drawn_photos: Path, tmp_path: Path, strict: bool
) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes((drawn_photos / LATER[0]).read_bytes()[:5000])
    with pytest.raises(InputError) as caught:
        gim_sfm.extend(folder, out, strict=strict)
    assert str(folder / "broken.jpg") in caught.value.message
    assert "gathered" not in caught.value.message
    assert not (out / "extension").exists()
    assert not (out / "gathered_images" / "broken.jpg").is_symlink()


def test_advice_names_no_setting_that_extend_has_not() -> None:
    for advice in ADVICE.values():
        for found in re.finditer(r"(\w+ )?--([a-z]+)", advice):
            assert found[1] == "reconstruct " or found[2] in ExtensionSettings.model_fields


def test_settings_are_all_keywords() -> None:
    assert set(ExtensionSettings.model_fields) == set(gim_sfm.recipe.ExtendSettings.__annotations__)
