"""Photos of the drawn courtyard localized in a map of it: cameras, refusals, rigs, pairs, matchers."""

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
import pytest
from localization_kit import LEFT_OUT, MATCHER, Place, pose_error, true_pose, write_rig
from oracle_kit import Oracle, enlist
from PIL import Image

import gim_sfm
from gim_sfm.drawn_world import DrawnWorld, draw_world
from gim_sfm.errors import GimSfmError, InputError, LocalizationError, SettingsError
from gim_sfm.geometry import camera_centres, umeyama
from gim_sfm.images import read_header
from gim_sfm.matchers.contract import DenseMatcher, WarpMatcher
from gim_sfm.sfm.known import read_model, read_poses
from gim_sfm.sfm.localization import partners
from gim_sfm.sfm.localization.landmarks import landmarks_of
from gim_sfm.sfm.localization.localizer import Localizer
from gim_sfm.sfm.localization.localizing import LocalizeResult
from gim_sfm.sfm.localization.query_cameras import MapCameras, candidates
from gim_sfm.store import read_features

NEXT = LEFT_OUT[1]
FOCAL = 640 * 30 / 36


def rows_of(output: Path, kind: str = "images") -> dict[str, Any]:
    rows: dict[str, Any] = json.loads(output.with_name(output.name + ".json").read_text(encoding="utf-8"))[
        kind
    ]
    return rows


def assert_true(result: LocalizeResult, world: DrawnWorld, names: dict[str, str] | None = None) -> None:
    """Every query is within 0.1 degrees and half a percent of the distance."""
    assert not result.failed
    for name, pose in result.cam_from_world.items():
        degrees, share = pose_error(pose, world.cam_from_world[(names or {}).get(name, name)])
        assert degrees < 0.1, name
        assert share < 0.005, name


@pytest.fixture(scope="module")
def localizer(mapped_place: Place) -> Iterator[Localizer]:
    with gim_sfm.Localizer.open(mapped_place.map) as opened:
        yield opened


@pytest.fixture(scope="module")
def wrong(mapped_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that see nothing of the courtyard."""
    folder = tmp_path_factory.mktemp("wrong")
    random = np.random.default_rng(0)
    world = mapped_place.world
    sky = np.isinf(world.depth(NEXT))
    height = int(np.argmin(sky.all(axis=1)))
    pixels = {
        "noise.png": random.integers(0, 256, (426, 640, 3), np.uint8),
        "blank.png": np.full((426, 640, 3), 128, np.uint8),
        "sky.png": world.images[NEXT][: max(height, 60)][:, :300],
    }
    for name, values in pixels.items():
        Image.fromarray(values).save(folder / name)
    for seed in (7, 8):
        (photo,) = draw_world(1, (640, 426), seed=seed).images.values()
        Image.fromarray(photo).save(folder / f"elsewhere {seed}.jpg")
    return folder


def test_photos_are_localized_where_they_were_taken(mapped_place: Place, tmp_path: Path) -> None:
    result = gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses")
    assert result.cam_from_world.keys() == set(LEFT_OUT)
    assert_true(result, mapped_place.world)
    for name, row in rows_of(tmp_path / "poses").items():
        assert row["intrinsics"] == "the map's, by EXIF"
        assert row["inliers"] > 50
        centre, true = (
            camera_centres(np.array(pose))
            for pose in (row["cam_from_world"], mapped_place.world.cam_from_world[name])
        )
        assert np.linalg.norm(centre - true) < 5 * row["position_deviation"] + 0.01
        assert {photo["name"] for photo in row["photos"]} == {
            path.name for path in mapped_place.photos.iterdir()
        }
        assert sum(photo["inliers"] for photo in row["photos"]) >= row["inliers"]


def test_a_model_in_a_frame_of_its_own_is_laid_over_the_truth(mapped_place: Place, tmp_path: Path) -> None:
    made = gim_sfm.reconstruct(mapped_place.photos, tmp_path / "map", **MATCHER)
    result = gim_sfm.localize(mapped_place.queries, tmp_path / "map", tmp_path / "poses")
    true = mapped_place.world.cam_from_world
    mapped = {name: view.cam_from_world.matrix() for name, view in read_poses(made.model).items()}
    world_from_model = umeyama(
        *(camera_centres(np.stack([poses[name] for name in mapped])) for poses in (mapped, true))
    )
    assert not result.failed
    for name, pose in result.cam_from_world.items():
        degrees, share = pose_error(pycolmap.Rigid3d(world_from_model.move_pose(pose.matrix())), true[name])
        assert degrees < 0.1
        assert share < 0.005


# What is known of the camera


def photo_without_exif(place: Place, folder: Path) -> Path:
    Image.fromarray(place.world.images[NEXT]).save(folder / "plain.png")
    return folder / "plain.png"


def test_without_exif_the_focal_length_is_found_with_the_pose(
    mapped_place: Place, localizer: Localizer, tmp_path: Path
) -> None:
    answer = localizer.localize(photo_without_exif(mapped_place, tmp_path))
    assert answer.camera_told == "found with the pose"
    assert answer.camera.focal_length == pytest.approx(FOCAL, rel=0.02)
    degrees, share = pose_error(answer.cam_from_world, mapped_place.world.cam_from_world[NEXT])
    assert degrees < 0.2
    assert share < 0.02


def test_the_focal_length_of_exif_is_refined(
    mapped_place: Place, localizer: Localizer, tmp_path: Path
) -> None:
    told = Image.Exif()
    told[0x010F], told[0x0110] = "another", "camera"
    told.get_ifd(0x8769).update({0x920A: 28.0, 0xA405: 28})
    photo = tmp_path / "other.jpg"
    Image.fromarray(mapped_place.world.images[NEXT]).save(photo, quality=95, exif=told)
    prior = candidates(read_header(photo), None, MapCameras({}))[0]
    assert prior.camera.focal_length == pytest.approx(28 / 36 * 640, rel=0.01)
    answer = localizer.localize(photo)
    assert answer.camera_told == "EXIF, refined"
    assert answer.camera.focal_length == pytest.approx(FOCAL, rel=0.02)


def test_intrinsics_that_are_given_are_kept(
    mapped_place: Place, localizer: Localizer, tmp_path: Path
) -> None:
    photo = photo_without_exif(mapped_place, tmp_path)
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=426, params=[FOCAL, FOCAL, 320, 213])
    answer = localizer.localize(photo, camera=camera)
    assert answer.camera_told == "given"
    assert list(answer.camera.params) == [FOCAL, FOCAL, 320, 213]
    degrees, _ = pose_error(answer.cam_from_world, mapped_place.world.cam_from_world[NEXT])
    assert degrees < 0.1


def test_a_list_of_intrinsics_as_hloc_has_it(mapped_place: Place, tmp_path: Path) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    names = {"my photo.png": NEXT, "plain.png": LEFT_OUT[0]}
    for name, of in names.items():
        Image.fromarray(mapped_place.world.images[of]).save(queries / name)
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"# name model\n\nmy photo.png SIMPLE_PINHOLE 640 426 {FOCAL} 320 213\n"
        f"plain.png PINHOLE 640 426 {FOCAL} {FOCAL} 320 213\nmissing.png SIMPLE_PINHOLE 1 1 1 1 1\n"
    )
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", intrinsics=listed)
    assert_true(result, mapped_place.world, names)
    assert {row["intrinsics"] for row in rows_of(tmp_path / "poses").values()} == {"given"}


def test_intrinsics_of_other_names_are_refused(mapped_place: Place, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"queries/{NEXT} SIMPLE_PINHOLE 640 426 {FOCAL} 320 213\n")
    with pytest.raises(InputError, match=r"list\.txt gives the intrinsics of none of the queries"):
        gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses", intrinsics=listed)


def test_intrinsics_for_another_size_are_refused(mapped_place: Place, localizer: Localizer) -> None:
    camera = pycolmap.Camera(model="PINHOLE", width=1280, height=852, params=[1066, 1066, 640, 426])
    with pytest.raises(InputError, match="for 1280x852 pixels, the photo has 640x426"):
        localizer.localize(mapped_place.queries / NEXT, camera=camera)


@pytest.mark.parametrize("focal", [250.0, 430.0, 505.0, 560.0, 660.0, 2000.0])
@pytest.mark.parametrize("name", LEFT_OUT[:2])
def test_intrinsics_that_the_photo_refutes_are_refused(
    name: str, focal: float, mapped_place: Place, localizer: Localizer
) -> None:
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=426, params=[focal, focal, 320, 213])
    with pytest.raises(
        LocalizationError, match=rf"{focal:.0f} px \(given\) does not fit .* one of 53\d px fits"
    ):
        localizer.localize(mapped_place.queries / name, camera=camera)


# Photos that see nothing of the map


def test_wrong_photos_are_refused_with_the_reason(mapped_place: Place, wrong: Path, tmp_path: Path) -> None:
    queries = Path(shutil.copytree(wrong, tmp_path / "queries"))
    shutil.copy(mapped_place.queries / NEXT, queries / NEXT)
    (queries / "broken.jpg").write_bytes((queries / NEXT).read_bytes()[:3000])
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert set(result.cam_from_world) == {NEXT}
    assert set(result.failed) == {path.name for path in wrong.iterdir()} | {"broken.jpg"}
    failed = rows_of(tmp_path / "poses", "failed")
    assert all(
        "chance" in row["reason"] or "sees" in row["reason"]
        for name, row in failed.items()
        if name != "broken.jpg"
    )
    assert all(row["remedy"] for row in failed.values())
    assert "broken.jpg" in failed["broken.jpg"]["reason"]
    assert len(failed["noise.png"]["compared_with"]) == 5
    with pytest.raises(InputError, match=r"broken\.jpg"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "strict", strict=True)


def test_where_none_is_localized_the_files_tell_why(mapped_place: Place, wrong: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalizationError, match=r"None of 5 photos could be localized. blank\.png: "):
        gim_sfm.localize(wrong, mapped_place.map, tmp_path / "poses")
    assert len(rows_of(tmp_path / "poses", "failed")) == 5
    assert (tmp_path / "poses.txt").read_text() == ""


def test_a_refusal_names_the_photos_it_was_compared_with(
    mapped_place: Place, localizer: Localizer, wrong: Path
) -> None:
    with pytest.raises(LocalizationError) as told:
        localizer.localize(wrong / "noise.png")
    assert list(told.value.partners) == sorted(path.name for path in mapped_place.photos.iterdir())


# Rigs


@pytest.fixture
def rig(mapped_place: Place, tmp_path: Path) -> tuple[Path, Path]:
    """Folder of the photos that two cameras took at one moment, and where these sit."""
    queries = tmp_path / "queries"
    for prefix, name in (("left", LEFT_OUT[0]), ("right", LEFT_OUT[2])):
        (queries / prefix).mkdir(parents=True)
        shutil.copy(mapped_place.queries / name, queries / prefix / "0001.jpg")
    between = (
        true_pose(mapped_place.world, LEFT_OUT[2]) * true_pose(mapped_place.world, LEFT_OUT[0]).inverse()
    )
    return queries, write_rig(tmp_path / "rig.json", {"left/": None, "right/": between})


OF_RIG = {"left/0001.jpg": LEFT_OUT[0], "right/0001.jpg": LEFT_OUT[2]}


def test_the_cameras_of_a_rig_are_localized_together(
    mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path
) -> None:
    queries, file = rig
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=file)
    assert_true(result, mapped_place.world, OF_RIG)
    left, right = (result.cam_from_world[name] for name in OF_RIG)
    between = (
        true_pose(mapped_place.world, LEFT_OUT[2]) * true_pose(mapped_place.world, LEFT_OUT[0]).inverse()
    )
    np.testing.assert_allclose((right * left.inverse()).matrix(), between.matrix(), atol=1e-9)
    assert len({str(row["covariance"]) for row in rows_of(tmp_path / "poses").values()}) == 1


def test_a_camera_of_a_rig_may_see_nothing(
    mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path
) -> None:
    queries, file = rig
    Image.new("RGB", (640, 426), "grey").save(queries / "right" / "0001.jpg")
    camera = pycolmap.Camera(model="PINHOLE", width=640, height=426, params=[FOCAL, FOCAL, 320, 213])
    given = {name: camera.todict() for name in OF_RIG}
    known = {
        name: {"model": "PINHOLE", "width": 640, "height": 426, "params": list(camera.params)}
        for name in given
    }
    (tmp_path / "known.json").write_text(json.dumps(known))
    result = gim_sfm.localize(
        queries, mapped_place.map, tmp_path / "poses", rig=file, intrinsics=tmp_path / "known.json"
    )
    assert_true(result, mapped_place.world, OF_RIG)
    assert rows_of(tmp_path / "poses")["right/0001.jpg"]["inliers"] == 0


def test_the_rig_file_may_hold_the_intrinsics(
    mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path
) -> None:
    queries, _ = rig
    for name, of in OF_RIG.items():
        (queries / name).unlink()
        Image.fromarray(mapped_place.world.images[of]).save((queries / name).with_suffix(".png"))
    poses = [true_pose(mapped_place.world, name) for name in OF_RIG.values()]
    file = write_rig(
        tmp_path / "rig.json", {"left/": None, "right/": poses[1] * poses[0].inverse()}, focal=FOCAL
    )
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=file)
    assert_true(result, mapped_place.world, {name.replace("jpg", "png"): of for name, of in OF_RIG.items()})


def test_moments_are_told_apart(
    mapped_place: Place, rig: tuple[Path, Path], wrong: Path, tmp_path: Path
) -> None:
    queries, file = rig
    for side, seed in (("left", 7), ("right", 8)):
        with (
            Image.open(wrong / f"elsewhere {seed}.jpg") as photo,
            Image.open(queries / side / "0001.jpg") as mine,
        ):
            photo.save(queries / side / "0002.jpg", exif=mine.getexif())
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=file)
    assert set(result.cam_from_world) == set(OF_RIG)
    assert set(result.failed) == {"left/0002.jpg", "right/0002.jpg"}


def test_a_rig_needs_focal_lengths(mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path) -> None:
    queries, file = rig
    Image.fromarray(mapped_place.world.images[LEFT_OUT[2]]).save(queries / "right" / "0001.jpg")
    with pytest.raises(LocalizationError, match=r"focal length of right/0001\.jpg is not known"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=file)


def test_a_list_may_name_photos_for_one_camera_of_a_rig(
    mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path
) -> None:
    queries, file = rig
    listed = tmp_path / "list.txt"
    listed.write_text("left/0001.jpg view_00.jpg\nleft/0001.jpg view_02.jpg\n")
    result = gim_sfm.localize(
        queries, mapped_place.map, tmp_path / "poses", rig=file, pairs="file", pairs_file=listed
    )
    assert_true(result, mapped_place.world, OF_RIG)
    assert rows_of(tmp_path / "poses")["right/0001.jpg"]["photos"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", r"rig\.json is no rig file"),
        ("[]", r"left/0001\.jpg begins with no image_prefix of .*rig\.json"),
        (
            '[{"cameras": [{"image_prefix": "left/", "ref_sensor": true}]}]',
            r"right/0001\.jpg begins with no image_prefix",
        ),
        (
            '[{"cameras": [{"image_prefix": "left/", "ref_sensor": true}, {"image_prefix": "right/"}]}]',
            r"rig\.json does not tell where the camera of right/ sits",
        ),
        (
            '[{"cameras": [{"image_prefix": "left/", "ref_sensor": true, "camera_model_name": "PINHOLE",'
            ' "camera_params": [500]}]}]',
            r"rig\.json gives no camera that COLMAP knows for left/",
        ),
    ],
)
def test_rig_files_that_do_not_fit_are_refused(
    text: str, message: str, mapped_place: Place, rig: tuple[Path, Path], tmp_path: Path
) -> None:
    queries, file = rig
    file.write_text(text)
    with pytest.raises(InputError, match=message) as told:
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=file)
    assert told.value.remedy
    assert not (tmp_path / "poses.json").exists()


# Photos of the map to compare with


def partners_of(output: Path) -> dict[str, set[str]]:
    return {name: {photo["name"] for photo in row["photos"]} for name, row in rows_of(output).items()}


@pytest.mark.parametrize("pairs", ["retrieval", "covisible"])
def test_a_few_photos_of_the_map_are_chosen(pairs: Any, mapped_place: Place, tmp_path: Path) -> None:
    result = gim_sfm.localize(
        mapped_place.queries, mapped_place.map, tmp_path / "poses", pairs=pairs, neighbours=3
    )
    assert_true(result, mapped_place.world)
    chosen = partners_of(tmp_path / "poses")
    assert {len(partners) for partners in chosen.values()} == {3}
    assert {"view_02.jpg", "view_04.jpg"} <= chosen[NEXT]  # its neighbours on the path


def test_of_a_large_map_only_what_looks_alike_is_compared_cheaply(
    mapped_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partners, "CANDIDATES", 1)
    with h5py.File(mapped_place.map / "features.h5", locking=False) as file:
        names = sorted(path.name for path in mapped_place.photos.iterdir())
        alike = partners.Alike(names, lambda name: read_features(file, name), 3, seed=0)
        assert [alike.choose(read_features(file, name)) for name in names] == [[name] for name in names]


def test_covisible_photos_are_those_that_share_landmarks_with_the_first(
    mapped_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read_model(mapped_place.map / "sparse" / "0")
    points = {image.name: set(landmarks_of(model, image).points) for image in model.images.values()}
    shared = {name: len(points[name] & points["view_00.jpg"]) for name in points if name != "view_00.jpg"}
    most, least = max(shared, key=shared.__getitem__), min(shared, key=shared.__getitem__)
    monkeypatch.setattr(partners.Alike, "choose", lambda *_: ["view_00.jpg", least])
    for pairs, second in (("retrieval", least), ("covisible", most)):
        gim_sfm.localize(
            mapped_place.queries / LEFT_OUT[0], mapped_place.map, tmp_path / pairs, pairs=pairs, neighbours=2
        )
        assert partners_of(tmp_path / pairs) == {LEFT_OUT[0]: {"view_00.jpg", second}}


def test_exhaustive_pairs_are_all_photos_of_the_map(mapped_place: Place, tmp_path: Path) -> None:
    gim_sfm.localize(
        mapped_place.queries, mapped_place.map, tmp_path / "poses", pairs="exhaustive", neighbours=2
    )
    assert {len(partners) for partners in partners_of(tmp_path / "poses").values()} == {5}


def test_a_list_of_pairs_as_hloc_has_it(
    mapped_place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    for name in ("my photo.jpg", "forgotten.jpg", "view_02.jpg"):
        shutil.copy(mapped_place.queries / NEXT, queries / name)
    listed = tmp_path / "list.txt"
    listed.write_text(
        "# retrieved\nmy photo.jpg view_02.jpg\nmy photo.jpg view_04.jpg\nmy photo.jpg not_registered.jpg\n"
        "another_query.jpg view_04.jpg\nview_02.jpg view_02.jpg\nview_02.jpg view_00.jpg\n"
    )
    with caplog.at_level(logging.WARNING, logger="gim_sfm"):
        result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", pairs_file=listed)
    assert partners_of(tmp_path / "poses") == {
        "my photo.jpg": {"view_02.jpg", "view_04.jpg"},
        "view_02.jpg": {"view_02.jpg", "view_00.jpg"},
    }
    assert "No photo of the map is named for forgotten.jpg" in result.failed["forgotten.jpg"]
    assert f"2 lines name no query or no photo of the model, first {listed}, line 4" in caplog.text


@pytest.mark.parametrize(
    ("settings", "text", "error", "message"),
    [
        ({"pairs": "file"}, None, SettingsError, "--pairs file and no list do not go together"),
        ({"pairs": "retrieval"}, "a b\n", SettingsError, "--pairs retrieval and a list do not go together"),
        ({"pairs": "file"}, "a b\n", InputError, r"list\.txt names no query together with a photo"),
        ({"pairs": "file"}, "view_02.jpg view_01.jpg\n", InputError, r"list\.txt names no query together"),
    ],
)
def test_lists_that_do_not_fit_are_refused(
    settings: Any,
    text: str | None,
    error: type[GimSfmError],
    message: str,
    mapped_place: Place,
    tmp_path: Path,
) -> None:
    if text is not None:
        (tmp_path / "list.txt").write_text(text)
        settings = {**settings, "pairs_file": tmp_path / "list.txt"}
    with pytest.raises(error, match=message):
        gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses", **settings)


def test_a_list_that_cannot_be_read_is_named(mapped_place: Place, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        gim_sfm.localize(
            mapped_place.queries,
            mapped_place.map,
            tmp_path / "p",
            pairs="file",
            pairs_file=tmp_path / "none.txt",
        )


# Matchers and maps


def test_landmarks_lie_at_the_keypoints_they_were_made_of(mapped_place: Place) -> None:
    model = read_model(mapped_place.map / "sparse" / "0")
    image = next(iter(model.images.values()))
    marks = landmarks_of(model, image)
    with h5py.File(mapped_place.map / "features.h5", locking=False) as file:
        features = read_features(file, image.name)
    assert len(marks) == image.num_points3D
    np.testing.assert_allclose(marks.places, features.keypoints[marks.keypoints], atol=1e-3)
    projected = mapped_place.world.cameras[image.name].project(
        marks.xyz @ image.cam_from_world().matrix()[:, :3].T + image.cam_from_world().translation
    )
    assert np.median(np.linalg.norm(projected - marks.places, axis=1)) < 0.3


@pytest.mark.parametrize("kind", [WarpMatcher, DenseMatcher])
def test_a_dense_matcher_sees_the_landmarks_of_any_map(
    kind: type[WarpMatcher] | type[DenseMatcher],
    mapped_place: Place,
    drawn_photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    oracle = Oracle(mapped_place.world, drawn_photos)
    enlist(monkeypatch, kind(oracle))
    result = gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses", matcher="oracle")
    assert_true(result, mapped_place.world)
    assert set(oracle.asked) == {
        (query, path.name) for query in LEFT_OUT for path in mapped_place.photos.iterdir()
    }
    assert not (tmp_path / "poses.map").exists()
    for row in rows_of(tmp_path / "poses").values():
        assert row["inliers"] > 100
        assert row["reprojection_error_px"] < 1.5


def test_a_dense_matcher_needs_the_photos_of_the_map(
    mapped_place: Place, drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlist(monkeypatch, WarpMatcher(Oracle(mapped_place.world, drawn_photos)))
    (tmp_path / "moved").mkdir()
    with pytest.raises(
        InputError, match=r"oracle looks at the photos of the model, of which 5 .*moved/view_00\.jpg"
    ):
        gim_sfm.localize(
            mapped_place.queries,
            mapped_place.map,
            tmp_path / "poses",
            matcher="oracle",
            model_photos=tmp_path / "moved",
        )


def test_a_sparse_matcher_does_without_the_photos_of_the_map(mapped_place: Place, tmp_path: Path) -> None:
    result = gim_sfm.localize(
        mapped_place.queries, mapped_place.map, tmp_path / "poses", model_photos=tmp_path / "gone"
    )
    assert set(result.cam_from_world) == set(LEFT_OUT)
    # headers of the map's photos tell which camera is whose; without them EXIF's word is refined
    assert {row["intrinsics"] for row in rows_of(tmp_path / "poses").values()} == {"EXIF, refined"}


def test_another_sparse_matcher_makes_a_map_of_its_own_once(
    mapped_place: Place, xfeat_weights: str, tmp_path: Path
) -> None:
    settings: Any = {"matcher": "xfeat-lighterglue", "image_size": 640, "max_keypoints": 1024}
    result = gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses", **settings)
    assert not result.failed
    for name, pose in result.cam_from_world.items():
        degrees, share = pose_error(pose, mapped_place.world.cam_from_world[name])
        assert degrees < 0.3
        assert share < 0.01
    made = read_model(tmp_path / "poses.map" / "sparse" / "0")
    for image in made.images.values():
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), mapped_place.world.cam_from_world[image.name], atol=1e-6
        )
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "poses.map").rglob("*.h5")}
    shutil.copy(mapped_place.queries / NEXT, tmp_path / "again.jpg")
    gim_sfm.localize(tmp_path / "again.jpg", mapped_place.map, tmp_path / "poses", **settings)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "poses.map").rglob("*.h5")} == before


def test_a_semi_dense_matcher_sees_the_landmarks_of_any_map(
    mapped_place: Place, xfeat_weights: str, wrong: Path, tmp_path: Path
) -> None:
    queries = Path(shutil.copytree(mapped_place.queries, tmp_path / "queries"))
    shutil.copy(wrong / "elsewhere 7.jpg", queries / "elsewhere.jpg")
    result = gim_sfm.localize(
        queries, mapped_place.map, tmp_path / "poses", matcher="xfeat-star", image_size=640
    )
    assert set(result.failed) == {"elsewhere.jpg"}
    for name, pose in result.cam_from_world.items():
        degrees, share = pose_error(pose, mapped_place.world.cam_from_world[name])
        assert degrees < 0.5
        assert share < 0.02


@pytest.mark.parametrize("form", ["binary", "text"])
def test_a_colmap_model_made_elsewhere_will_do(form: str, mapped_place: Place, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    model = read_model(mapped_place.map / "sparse" / "0")
    if form == "text":
        for number in list(model.points3D):
            model.delete_point3D(number)  # poses alone will do
        model.write_text(elsewhere)
    else:
        model.write_binary(elsewhere)
    with pytest.raises(InputError, match="without the features it was made from") as told:
        gim_sfm.localize(mapped_place.queries, elsewhere, tmp_path / "poses", **MATCHER)
    assert "--model-photos" in told.value.remedy
    result = gim_sfm.localize(
        mapped_place.queries, elsewhere, tmp_path / "poses", model_photos=mapped_place.photos, **MATCHER
    )
    assert_true(result, mapped_place.world)


def test_what_is_no_map_is_told(mapped_place: Place, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no COLMAP model"):
        gim_sfm.localize(mapped_place.queries, tmp_path, tmp_path / "poses")
    empty = Path(shutil.copytree(mapped_place.map, tmp_path / "empty", symlinks=True))
    model = read_model(empty / "sparse" / "0")
    for number in list(model.points3D):
        model.delete_point3D(number)
    model.write(empty / "sparse" / "0")
    with pytest.raises(InputError, match="has no posed photo that shows points"):
        gim_sfm.localize(mapped_place.queries, empty, tmp_path / "poses")


def test_one_of_several_models_can_be_named(mapped_place: Place, tmp_path: Path) -> None:
    out = Path(shutil.copytree(mapped_place.map, tmp_path / "map", symlinks=True))
    model = read_model(out / "sparse" / "0")
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), np.array([100.0, 0, 0])))
    (out / "sparse" / "1").mkdir()
    model.write(out / "sparse" / "1")
    result = gim_sfm.localize(mapped_place.queries / NEXT, out / "sparse" / "1", tmp_path / "poses")
    (pose,) = result.cam_from_world.values()
    centre = pose.inverse().translation - (100, 0, 0)
    np.testing.assert_allclose(centre, true_pose(mapped_place.world, NEXT).inverse().translation, atol=0.04)


# The Python way


def test_the_localizer_gives_what_the_verb_writes(
    mapped_place: Place, localizer: Localizer, tmp_path: Path
) -> None:
    result = gim_sfm.localize(mapped_place.queries, mapped_place.map, tmp_path / "poses")
    for name in reversed(LEFT_OUT):
        answer = localizer.localize(mapped_place.queries / name)
        np.testing.assert_allclose(
            answer.cam_from_world.matrix(), result.cam_from_world[name].matrix(), atol=1e-12, rtol=0
        )
        assert rows_of(tmp_path / "poses")[name]["evidence"] == answer.evidence


def test_settings_of_many_queries_are_not_the_localizers(mapped_place: Place) -> None:
    with pytest.raises(SettingsError, match="are for many queries"):
        gim_sfm.Localizer.open(mapped_place.map, rig="rig.json")
    with pytest.raises(SettingsError, match="neighbors"):
        gim_sfm.Localizer.open(mapped_place.map, neighbors=3)  # type: ignore[call-arg]


def test_a_localizer_of_another_matcher_needs_a_folder(mapped_place: Place, xfeat_weights: str) -> None:
    with pytest.raises(InputError, match="has no features of xfeat-lighterglue") as told:
        gim_sfm.Localizer.open(mapped_place.map, matcher="xfeat-lighterglue")
    assert "work=" in told.value.remedy


@pytest.mark.parametrize("zoom", [1.06, 1.3])
def test_digital_zoom_is_seen_through_where_exif_tells_the_maps_camera(
    zoom: float, mapped_place: Place, localizer: Localizer, tmp_path: Path
) -> None:
    taken = Image.open(mapped_place.queries / NEXT)
    width, height = taken.size
    low = (1 - 1 / zoom) / 2
    box = (low * width, low * height, (1 - low) * width, (1 - low) * height)
    closer = taken.resize(taken.size, Image.Resampling.BICUBIC, box=box)
    closer.save(tmp_path / "zoomed.jpg", exif=taken.getexif(), quality=95)
    straight = localizer.localize(mapped_place.queries / NEXT)
    zoomed = localizer.localize(tmp_path / "zoomed.jpg")
    assert straight.camera_told == "the map's, by EXIF"
    assert zoomed.camera_told in {"EXIF, refined", "found with the pose"}
    assert zoomed.camera.mean_focal_length() == pytest.approx(zoom * FOCAL, rel=0.02)
    step = zoomed.cam_from_world.inverse().translation - straight.cam_from_world.inverse().translation
    assert np.linalg.norm(step) < 0.2  # metres; they stand some seven from what they see
