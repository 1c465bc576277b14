"""The main job on the drawn world: accuracy, resuming, new and replaced photos, bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pycolmap
import pytest

import gim_sfm
from gim_sfm.demo import measure
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.errors import InputError, OutputError, ReconstructionError, SettingsError
from gim_sfm.sfm.known import read_poses

pytestmark = pytest.mark.usefixtures("xfeat_weights")

FAST = {"matcher": "xfeat-lighterglue", "image_size": 640, "max_keypoints": 1024}


def poses(model: Path) -> dict[str, np.ndarray]:
    return {name: view.cam_from_world.matrix() for name, view in read_poses(model).items()}


@pytest.fixture(scope="module")
def finished(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    gim_sfm.reconstruct(drawn_photos, out, **FAST)
    return out


def copy_of(folder: Path, where: Path) -> Path:
    return Path(shutil.copytree(folder, where))


def test_the_default_matcher_finds_where_the_photos_were_taken(
    drawn_photos: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", max_keypoints=1024)
    accuracy = measure(poses(result.model), drawn_world.cam_from_world)
    assert result.registered == 8
    assert accuracy.rotation_degrees[1] < 0.3
    assert accuracy.position_share[1] < 0.005
    assert accuracy.auc[1.0] > 0.7


def test_the_fastest_matcher_is_coarser_but_finds_all_photos_too(
    finished: Path, drawn_world: DrawnWorld
) -> None:
    accuracy = measure(poses(finished / "sparse" / "0"), drawn_world.cam_from_world)
    assert len(poses(finished / "sparse" / "0")) == 8
    assert accuracy.rotation_degrees[1] < 2.0
    assert accuracy.auc[5.0] > 0.7


def test_the_output_is_what_colmap_and_people_expect(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} >= {
        "recipe.toml",
        "pairs.txt",
        "features.h5",
        "matches.h5",
        "database.db",
        "sparse",
        "report.json",
        "report.html",
    }
    model = pycolmap.Reconstruction(finished / "sparse" / "0")
    with pycolmap.Database.open(finished / "database.db") as database:
        assert database.num_images() == 8
        assert database.num_verified_image_pairs() >= 7
    report = json.loads((finished / "report.json").read_text())
    assert report["summary"]["registered"] == model.num_reg_images()
    assert sum(report["summary"]["track_lengths"].values()) == model.num_points3D()


def test_a_second_run_does_nothing_anew(finished: Path, drawn_photos: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*.h5")}
    started = time.perf_counter()
    result = gim_sfm.reconstruct(drawn_photos, finished, **FAST)
    assert result.registered == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize("stage", ["features.h5.journal", "matches.h5.journal", "database.db", "tries"])
def test_killed_in_any_stage_the_same_command_ends_with_the_same_result(
    stage: str, finished: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = [f"{key}={value!r}" for key, value in FAST.items()]
    code = f"import gim_sfm; gim_sfm.reconstruct({str(drawn_photos)!r}, {str(out)!r}, {', '.join(arguments)})"
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while run.poll() is None and not grown(out / stage):
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    gim_sfm.reconstruct(drawn_photos, out, **FAST)
    mine, theirs = poses(out / "sparse" / "0"), poses(finished / "sparse" / "0")
    assert mine.keys() == theirs.keys()
    for name, pose in mine.items():
        np.testing.assert_allclose(pose, theirs[name], atol=1e-9)


def grown(path: Path) -> bool:
    return path.exists() and (path.is_dir() or path.stat().st_size > 20_000)


def test_new_photos_join_and_only_they_are_computed(
    drawn_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = copy_of(drawn_photos, tmp_path / "photos")
    last = (photos / "view_07.jpg").rename(tmp_path / "later.jpg")
    out = tmp_path / "out"
    assert gim_sfm.reconstruct(photos, out, **FAST).photos == 7
    last.rename(photos / "view_07.jpg")
    extracted: list[int] = []
    from gim_sfm.matchers.xfeat import XFeatDetector

    original = XFeatDetector.extract

    def counted(self: XFeatDetector, given):
        extracted.append(len(given))
        return original(self, given)

    monkeypatch.setattr(XFeatDetector, "extract", counted)
    result = gim_sfm.reconstruct(photos, out, **FAST)
    assert result.registered == 8
    assert sum(extracted) == 1


def test_a_photo_replaced_under_its_name_is_computed_anew(drawn_photos: Path, tmp_path: Path) -> None:
    photos = copy_of(drawn_photos, tmp_path / "photos")
    gim_sfm.reconstruct(photos, tmp_path / "out", **FAST)
    shutil.copy(photos / "view_00.jpg", photos / "view_07.jpg")
    gim_sfm.reconstruct(photos, tmp_path / "out", **FAST)
    found = poses(tmp_path / "out" / "sparse" / "0")
    if "view_07.jpg" in found:
        np.testing.assert_allclose(found["view_00.jpg"], found["view_07.jpg"], atol=0.05)


def test_changed_settings_never_mix_and_lose_nothing(drawn_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    gim_sfm.reconstruct(drawn_photos, out, **FAST)
    first = poses(out / "sparse" / "0")
    gim_sfm.reconstruct(drawn_photos, out, **{**FAST, "max_keypoints": 512})
    report = json.loads((out / "report.json").read_text())
    assert max(photo["keypoints"] for photo in report["photos"]) <= 512
    gim_sfm.reconstruct(drawn_photos, out, **FAST)
    for name, pose in poses(out / "sparse" / "0").items():
        np.testing.assert_allclose(pose, first[name], atol=1e-9)


def test_a_broken_photo_is_left_out_and_named(drawn_photos: Path, tmp_path: Path) -> None:
    photos = copy_of(drawn_photos, tmp_path / "photos")
    (photos / "broken.jpg").write_bytes((photos / "view_00.jpg").read_bytes()[:2000])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("not a photo")
    result = gim_sfm.reconstruct(photos, tmp_path / "out", **FAST)
    assert (result.registered, result.photos) == (8, 10)
    rows = {row["name"]: row for row in json.loads((tmp_path / "out" / "report.json").read_text())["photos"]}
    assert rows["broken.jpg"]["status"] == rows["empty.jpg"]["status"] == "unreadable file"
    with pytest.raises(InputError, match=r"broken\.jpg|empty\.jpg"):
        gim_sfm.reconstruct(photos, tmp_path / "strict", strict=True, **FAST)


def test_photos_that_do_not_overlap_say_why_photo_by_photo(tmp_path: Path) -> None:
    from PIL import Image
    from skimage import data

    photos = tmp_path / "photos"
    photos.mkdir()
    for name, pixels in [("a b.png", data.astronaut()), ("ü.png", data.coffee()), ("c.png", data.chelsea())]:
        Image.fromarray(pixels).save(photos / name)
    with pytest.raises(ReconstructionError, match=r"report\.html"):
        gim_sfm.reconstruct(photos, tmp_path / "out", **FAST)
    rows = json.loads((tmp_path / "out" / "report.json").read_text())["photos"]
    assert {row["status"] for row in rows} <= {"few matches", "no verified pair"}


def test_known_poses_are_kept_and_only_points_are_made(
    drawn_photos: Path, drawn_world: DrawnWorld, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    gim_sfm.reconstruct(drawn_photos, out, poses=drawn_photos.parent / "ground_truth.json", **FAST)
    for name, pose in poses(out / "sparse" / "0").items():
        np.testing.assert_allclose(pose, drawn_world.cam_from_world[name], atol=1e-6)
    assert pycolmap.Reconstruction(out / "sparse" / "0").num_points3D() > 100


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_known_intrinsics_stay_as_given(
    mapper: str, drawn_photos: Path, finished: Path, tmp_path: Path
) -> None:
    out = copy_of(finished, tmp_path / "out")
    settings = {"camera_model": "PINHOLE", "camera_params": "560,560,320,213", "mapper": mapper}
    result = gim_sfm.reconstruct(drawn_photos, out, **settings, **FAST)
    (camera,) = result.read_model().cameras.values()
    assert camera.params.tolist() == [560, 560, 320, 213]


@pytest.mark.parametrize("mapper", ["global", "hierarchical"])
def test_other_mappers_register_all_photos_too(
    mapper: str, finished: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    out = copy_of(finished, tmp_path / "out")
    assert gim_sfm.reconstruct(drawn_photos, out, mapper=mapper, **FAST).registered == 8


def test_several_tries_keep_all_models_and_name_the_best(
    finished: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    out = copy_of(finished, tmp_path / "out")
    gim_sfm.reconstruct(drawn_photos, out, tries=2, **FAST)
    models = json.loads((out / "report.json").read_text())["models"]
    assert {row["seed"] for row in models} == {0, 1}
    assert [row["best"] for row in models].count(True) == 1
    assert all((out / row["folder"]).is_dir() for row in models)


def test_semi_dense_matches_become_tracks(drawn_photos: Path, tmp_path: Path) -> None:
    settings = {"matcher": "xfeat-star", "image_size": 640, "max_keypoints": 2048}
    result = gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)
    assert result.registered == 8


def test_the_plan_writes_nothing(drawn_photos: Path, tmp_path: Path) -> None:
    plan = gim_sfm.plan(drawn_photos, tmp_path / "out", **FAST)
    assert (plan.photos, plan.pairs, plan.cameras) == (8, 28, 1)
    assert plan.matching_seconds > 0
    assert not (tmp_path / "out").exists()


def test_masked_keypoints_are_dropped(drawn_photos: Path, tmp_path: Path) -> None:
    from PIL import Image

    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.full((426, 640), 255, np.uint8)
    mask[:, :320] = 0
    for photo in drawn_photos.iterdir():
        Image.fromarray(mask).save(masks / f"{photo.name}.png")
    gim_sfm.reconstruct(drawn_photos, tmp_path / "out", masks=masks, **FAST)
    with pycolmap.Database.open(tmp_path / "out" / "database.db") as database:
        points = np.concatenate([database.read_keypoints(index)[:, :2] for index in range(1, 9)])
    assert len(points) > 100
    assert points[:, 0].min() > 320


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"matcher": "aliked-lightglu"}, "aliked-lightglue"),
        ({"tries": 0}, "tries"),
        ({"trys": 2}, "tries"),
        ({"camera_model": "PINHOL", **FAST}, "PINHOLE"),
        ({"pairs": "file", **FAST}, "--pairs-file"),
        ({"device": "cuda", **FAST}, "cuda"),
    ],
)
def test_wrong_settings_name_the_near_miss_or_what_is_needed(
    settings: dict[str, object], error: str, drawn_photos: Path, tmp_path: Path
) -> None:
    if settings.get("device") == "cuda" and pytest.importorskip("torch").cuda.is_available():
        pytest.skip("this machine has what the test wants to miss")
    with pytest.raises(SettingsError, match=error):
        gim_sfm.reconstruct(drawn_photos, tmp_path / "out", **settings)


def test_too_few_photos_are_refused(drawn_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        gim_sfm.reconstruct(tmp_path / "nowhere", tmp_path / "out")
    one = tmp_path / "one"
    one.mkdir()
    with pytest.raises(InputError):
        gim_sfm.reconstruct(one, tmp_path / "out")
    shutil.copy(drawn_photos / "view_00.jpg", one / "only.jpg")
    with pytest.raises(InputError, match=r"only\.jpg"):
        gim_sfm.reconstruct(one, tmp_path / "out")


def test_a_store_of_another_program_is_not_touched(drawn_photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "features.h5").write_bytes(b"something else")
    with pytest.raises(OutputError, match=r"features\.h5"):
        gim_sfm.reconstruct(drawn_photos, out, **FAST)
    assert (out / "features.h5").read_bytes() == b"something else"
