"""Mapping on exact worlds: every kind of mapper, seeds, resuming, known poses."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from gim_sfm.errors import ReconstructionError
from gim_sfm.files import mend_folder, replacing_folder
from gim_sfm.recipe import MappingSettings
from gim_sfm.sfm import mapping
from gim_sfm.sfm.known import KnownView
from gim_sfm.sfm.mapping import build_models, publish, quiet, triangulate


def world(folder: Path, photos: int = 6, points: int = 150, noise: float = 0.3) -> pycolmap.Reconstruction:
    """A synthetic world and its database, with blank photos beside it."""
    pycolmap.set_random_seed(1)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=photos, num_points3D=points)
    with pycolmap.Database.open(folder / "database.db") as database:
        truth = pycolmap.synthesize_dataset(options, database)
        pycolmap.synthesize_noise(pycolmap.SyntheticNoiseOptions(point2D_stddev=noise), truth, database)
    for image in truth.images.values():
        path = folder / "photos" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (1024, 768), (200, 100, 50)).save(path)
    return truth


def build(folder: Path, inputs: str = "a", **settings):
    return build_models(
        folder / "database.db", folder / "photos", folder, MappingSettings(**settings), inputs=inputs
    )


def pose_errors(model: pycolmap.Reconstruction, truth: pycolmap.Reconstruction) -> list[float]:
    """Rotation errors in degrees after alignment."""
    compared = pycolmap.compare_reconstructions(model, truth, alignment_error="proj_center")
    assert compared is not None
    return [error.rotation_error_deg for error in compared["errors"]]


@pytest.mark.parametrize("mapper", ["incremental", "global", "hierarchical"])
def test_every_mapper_registers_all_photos(tmp_path: Path, mapper):
    truth = world(tmp_path)
    (attempt,) = build(tmp_path, mapper=mapper)
    best = attempt.components[0]
    assert best.photos == 6
    assert best.folder == tmp_path / "tries" / "seed-0" / "0"
    assert max(pose_errors(pycolmap.Reconstruction(best.folder), truth)) < 0.5
    assert attempt.relaxation == ""


@pytest.mark.parametrize("photos", [2, 3])
def test_very_small_sets_give_a_model(tmp_path: Path, photos):
    world(tmp_path, photos)
    (attempt,) = build(tmp_path)
    assert attempt.components[0].photos == photos


def test_progress_counts_photos(tmp_path: Path):
    world(tmp_path)
    counts: list[int] = []
    build_models(
        tmp_path / "database.db",
        tmp_path / "photos",
        tmp_path,
        MappingSettings(),
        inputs="a",
        advance=counts.append,
    )
    assert sum(counts) == 6


def test_finished_attempts_are_kept_and_others_are_not(tmp_path: Path, monkeypatch):
    world(tmp_path)
    first = build(tmp_path, tries=2)
    ran: list[int] = []
    mapper = mapping.MAPPERS["incremental"]

    def counted(job, out):
        ran.append(job.seed)
        return mapper(job, out)

    monkeypatch.setattr(mapping, "MAPPERS", {"incremental": counted})
    assert build(tmp_path, tries=2) == first
    assert ran == []
    build(tmp_path, tries=3)
    assert ran == [2]
    build(tmp_path, inputs="b")
    assert ran == [2, 0]


def test_same_seed_gives_the_same_model(tmp_path: Path):
    world(tmp_path, photos=8, points=400)
    folder = build(tmp_path)[0].components[0].folder
    before = {path.name: path.read_bytes() for path in folder.glob("*.bin")}
    (folder.parent / mapping.PROVENANCE).unlink()
    build(tmp_path)
    assert {path.name: path.read_bytes() for path in folder.glob("*.bin")} == before


def test_attempts_are_ranked(tmp_path: Path):
    world(tmp_path, noise=0.8)
    ranks = [mapping._rank(attempt.components[0]) for attempt in build(tmp_path, tries=3)]
    assert ranks == sorted(ranks)


def test_an_interrupted_attempt_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    world(tmp_path)

    def stopped(job, out):
        (out / "0").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(mapping, "MAPPERS", {"incremental": stopped})
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert list((tmp_path / "tries").iterdir()) == []


def test_photos_that_do_not_overlap_are_an_error(tmp_path: Path):
    world(tmp_path, photos=3)
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        database.clear_two_view_geometries()
    with pytest.raises(ReconstructionError, match="start a model"):
        build(tmp_path)


def test_low_parallax_is_mapped_with_lowered_thresholds_and_told(tmp_path: Path):
    truth = far_world(tmp_path)
    (attempt,) = build(tmp_path)
    assert attempt.components[0].photos == truth.num_reg_images()
    assert attempt.relaxation


def far_world(folder: Path) -> pycolmap.Reconstruction:
    """Three photos whose views of a deep scene are less than three degrees apart."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-3, 3, (300, 2)), rng.uniform(8, 30, 300)])
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_RADIAL", 1000.0, 1024, 768)
    (folder / "photos").mkdir()
    truth = pycolmap.Reconstruction()
    truth.add_camera_with_trivial_rig(camera)
    for number, shift in enumerate((0.0, 0.2, 0.4), start=1):
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([shift, 0, 0]))
        pixels = camera.img_from_cam(pose * points)
        image = pycolmap.Image(name=f"{number}.png", keypoints=pixels, camera_id=1, image_id=number)
        truth.add_image_with_trivial_frame(image, pose)
    for row, point in enumerate(points):
        track = pycolmap.Track()
        for number in (1, 2, 3):
            track.add_element(number, row)
        truth.add_point3D(point, track)
    write_world(folder, truth)
    return truth


def write_world(folder: Path, truth: pycolmap.Reconstruction) -> None:
    from gim_sfm.sfm.colmap import from_colmap, write_database
    from gim_sfm.sfm.verification import verify_pair

    images = sorted(truth.images.values(), key=lambda image: image.name)
    points = {i.name: from_colmap(np.array([p.xy for p in i.points2D])).astype(np.float32) for i in images}
    indices = np.tile(np.arange(len(images[0].points2D), dtype=np.int32)[:, None], (1, 2))
    names = [image.name for image in images]
    pairs = [(a, b) for a in names for b in names if a < b]
    camera = truth.cameras[1]
    verified = [
        verify_pair(pair, (camera, camera), (points[pair[0]], points[pair[1]]), indices) for pair in pairs
    ]
    write_database(
        folder / "database.db",
        dict.fromkeys(names, camera),
        points.items(),
        [(pair, indices) for pair in pairs],
        [(row.pair, row.geometry) for row in verified],
    )


def test_known_poses_and_cameras_stay_exactly_as_given(tmp_path: Path):
    truth = world(tmp_path)
    views = {
        image.name: KnownView(truth.cameras[image.camera_id], image.cam_from_world())
        for image in truth.images.values()
    }
    left_out = sorted(views)[0]
    del views[left_out]
    out = tmp_path / "model"
    out.mkdir()
    model = triangulate(tmp_path / "database.db", tmp_path / "photos", views, out)
    assert model.num_points3D() > 100
    assert {image.name for image in model.images.values() if image.has_pose} == views.keys()
    for image in model.images.values():
        known = views[image.name]
        np.testing.assert_allclose(
            image.cam_from_world().matrix(), known.cam_from_world.matrix(), rtol=0, atol=1e-12
        )
        assert np.array_equal(model.cameras[image.camera_id].params, known.camera.params)


def test_poses_of_other_photos_are_an_error(tmp_path: Path):
    world(tmp_path)
    with pytest.raises(ReconstructionError, match="known pose"):
        triangulate(tmp_path / "database.db", tmp_path / "photos", {}, tmp_path)


def test_published_models_open_in_colmap_with_colours(tmp_path: Path):
    world(tmp_path)
    (attempt,) = build(tmp_path)
    models = [pycolmap.Reconstruction(part.folder) for part in attempt.components]
    for _ in range(2):
        publish(models, tmp_path / "photos", tmp_path / "sparse", {"seed": 0})
    published = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    assert published.num_reg_images() == 6
    colours = {tuple(point.color) for point in published.points3D.values()}
    assert colours == {(200, 100, 50)}
    assert sorted(path.name for path in (tmp_path / "sparse").iterdir()) == ["0", mapping.PROVENANCE]


def test_folder_is_replaced_only_when_the_block_ends_well(tmp_path: Path):
    folder = tmp_path / "sparse"
    with replacing_folder(folder) as temporary:
        (temporary / "one").touch()
    with pytest.raises(ZeroDivisionError), replacing_folder(folder) as temporary:
        (temporary / "two").touch()
        _ = 1 / 0
    assert [path.name for path in folder.iterdir()] == ["one"]
    with replacing_folder(folder) as temporary:
        (temporary / "three").touch()
    assert [path.name for path in folder.iterdir()] == ["three"]
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def cut_off_at(monkeypatch: pytest.MonkeyPatch, name: str, error: type[BaseException]) -> None:
    """Lets the rename of a folder of this name fail, after whatever came before it."""
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == name:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("name", ["sparse", ".sparse.tmp"])
def test_a_folder_stays_when_the_run_is_cut_off_between_its_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], name: str
):
    (tmp_path / "sparse" / "one").mkdir(parents=True)
    with monkeypatch.context() as patched:
        cut_off_at(patched, name, error)
        with pytest.raises(error), replacing_folder(tmp_path / "sparse") as temporary:
            (temporary / "two").touch()
    assert [path.name for path in (tmp_path / "sparse").iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_what_a_killed_run_put_aside_is_put_back_or_removed(tmp_path: Path):
    folder = tmp_path / "sparse"
    (tmp_path / ".sparse.old" / "one").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), replacing_folder(folder):
        _ = 1 / 0
    assert [path.name for path in folder.iterdir()] == ["one"], "put back before the block ran"
    (tmp_path / ".sparse.old" / "none").mkdir(parents=True)
    mend_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["one"]
    assert [path.name for path in tmp_path.iterdir()] == ["sparse"]


def test_log_level_is_given_back():
    pycolmap.logging.minloglevel = 1
    with quiet():
        assert pycolmap.logging.minloglevel == mapping.ERRORS_ONLY
    assert pycolmap.logging.minloglevel == 1
