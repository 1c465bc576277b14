"""Models of photos put onto clouds: any scale and direction found, others refused, originals untouched."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from cloud_kit import move
from model_kit import held, model_of, similar, sparse, walk, write_model
from scipy.spatial import cKDTree
from test_registration import off, street

import gim_sfm
from gim_sfm.bev.alignment.aligning import draw_sights
from gim_sfm.bev.alignment.evidence import measure_evidence
from gim_sfm.bev.alignment.similarity import Surface, refine_similarity
from gim_sfm.bev.alignment.uprighting import Up, find_up
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.bev.correlation import correlate
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError, OutputError, RegistrationError
from gim_sfm.sfm.placing import read_shape, write_moved

PLACE = 12


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def near(found: np.ndarray, truth: np.ndarray, points: np.ndarray) -> tuple[float, float, float]:
    """Errors: scale in percent, turn in degrees, position of points in percent of the 100 m of a street."""
    scales = [np.cbrt(np.linalg.det(each[:3, :3])) for each in (found, truth)]
    turns = [
        each @ np.diag([*(1 / scale,) * 3, 1]) for each, scale in zip((found, truth), scales, strict=True)
    ]
    apart = points @ (found - truth)[:3, :3].T + (found - truth)[:3, 3]
    return 100 * abs(scales[0] / scales[1] - 1), off(*turns)[1], float(np.linalg.norm(apart, axis=1).mean())


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_cloud(tmp_path / "scan.ply", street(PLACE, 1))
    return tmp_path / "scan.ply"


@pytest.mark.parametrize(
    "truth",
    [
        similar(0.2, (100, 60, -20), (412, -55, 12)),
        similar(7.0, (-170, 20, 45), (-3, 8, 90)),
    ],
    ids=["large", "small"],
)
def test_a_model_of_any_scale_and_direction_finds_its_place(tmp_path: Path, scan: Path, truth) -> None:
    random = np.random.default_rng(5)
    original = model_of(sparse(street(PLACE, 2), random), walk(random), truth)
    folder = write_model(tmp_path / "sparse", original)
    before = digests(folder)
    aligned = gim_sfm.align_model(folder, scan, output=tmp_path / "out")
    points = np.array([point.xyz for point in original.points3D.values()])
    scale, turn, position = near(aligned.world_from_model, truth, points)
    assert scale < 0.3
    assert turn < 0.2
    assert position < 0.2
    assert aligned.scale == pytest.approx(np.cbrt(np.linalg.det(truth[:3, :3])), rel=0.003)
    assert digests(folder) == before
    answer = json.loads((tmp_path / "out" / "alignment.json").read_text())
    np.testing.assert_allclose(answer["world_from_model"], aligned.world_from_model)
    rebuilt = answer["scale"] * np.array(answer["rotation"])
    np.testing.assert_allclose(rebuilt, aligned.world_from_model[:3, :3])
    assert answer["up_found_by"] == "cameras"
    assert {"overlap", "rmse", "inliers", "confidence"} <= set(answer)
    moved = pycolmap.Reconstruction(aligned.model)
    for model in (original, moved):
        model.update_point_3d_errors()
    assert moved.compute_mean_reprojection_error() == pytest.approx(
        original.compute_mean_reprojection_error(), rel=1e-6
    )
    number = next(iter(original.images))
    centre = np.append(original.images[number].projection_center(), 1)
    np.testing.assert_allclose(
        moved.images[number].projection_center(), (aligned.world_from_model @ centre)[:3], atol=1e-9
    )


def test_a_model_of_another_street_is_refused(tmp_path: Path, scan: Path) -> None:
    random = np.random.default_rng(6)
    folder = write_model(
        tmp_path / "sparse",
        model_of(sparse(street(PLACE + 1, 2), random), walk(random), similar(3, (9, 9, 9), (1, 1, 1))),
    )
    former = drawn(tmp_path / "out/model").parent
    for name in ("alignment.json", "view.html", "matches.png", "overlay_after.png"):
        (former / name).write_text("of a former run")
    with pytest.raises(RegistrationError):
        gim_sfm.align_model(folder, scan, output=former)
    answer = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert "refused" in answer
    assert "world_from_model" not in answer
    assert [path.name for path in former.iterdir()] == ["alignment.json"]


def test_points_of_unknown_scale_are_registered_as_a_cloud(tmp_path: Path, scan: Path) -> None:
    random = np.random.default_rng(7)
    truth = move(yaw=130, shift=(20, -4, 1)) @ np.diag([4.0, 4, 4, 1])
    points = PointCloud.of(sparse(street(PLACE, 2), random)).moved(np.linalg.inv(truth))
    write_cloud(tmp_path / "points.ply", points)
    done = gim_sfm.register_clouds(
        tmp_path / "points.ply", scan, output=tmp_path / "out", scale="unknown", channels=("density",)
    )
    scale, turn, position = near(done.registration.target_from_source, truth, points.coordinates)
    assert (scale < 0.3, turn < 0.2, position < 0.2) == (True, True, True)
    answer = json.loads((tmp_path / "out" / "registration.json").read_text())
    assert answer["scale"] == pytest.approx(4, rel=0.003)


@pytest.mark.parametrize("roll", [0, 90, -90])
def test_cameras_tell_the_vertical_however_they_are_held(roll: int) -> None:
    random = np.random.default_rng(8)
    poses = np.array(
        [held(np.array([x, 0.0, 1.6]), np.array([7.0 * x - 60, 30.0, 6]), roll=roll) for x in range(20)]
    )
    points = random.uniform((-20, 20, -0.5), (20, 40, 20), (400, 3))
    up = find_up(poses, points)
    assert up.found_by == "cameras"
    assert up.direction[2] > np.cos(np.radians(1))
    assert up.agreeing == 1


def test_the_plane_below_tells_the_vertical_of_photos_taken_straight_down() -> None:
    random = np.random.default_rng(9)
    poses = np.array(
        [
            held(np.array([x, y, 60.0]), np.array([x + 0.1, y, 0.0]), roll=random.uniform(0, 360))
            for x in range(-20, 21, 8)
            for y in range(-20, 21, 8)
        ]
    )
    ground = np.column_stack([random.uniform(-40, 40, (800, 2)), random.normal(0, 0.02, 800)])
    houses = random.uniform((-30, -30, 0), (30, 30, 9), (500, 3))
    up = find_up(poses, np.concatenate([ground, houses]))
    assert up.found_by == "plane"
    assert up.direction[2] > np.cos(np.radians(1))


def test_no_vertical_is_made_up() -> None:
    random = np.random.default_rng(10)
    rotations = np.linalg.qr(random.normal(size=(30, 3, 3)))[0]
    rotations *= np.sign(np.linalg.det(rotations))[:, None, None]
    poses = np.concatenate([rotations, random.normal(size=(30, 3, 1))], axis=2)
    with pytest.raises(InputError, match="up"):
        find_up(poses, random.normal(size=(500, 3)))


def test_correlation_finds_turn_scale_and_shift() -> None:
    random = np.random.default_rng(11)
    places = random.uniform(-40, 40, (60, 2)).repeat(20, axis=0) + random.normal(0, 0.5, (1200, 2))
    truth = move(yaw=72, shift=(9, -5, 0))[np.ix_([0, 1, 3], [0, 1, 3])] @ np.diag([2.5, 2.5, 1])
    source = (places - truth[:2, 2]) @ np.linalg.inv(truth[:2, :2]).T
    found = correlate(source, places, source_extent=80 / 2.5, target_extent=80, most=3)
    apart = (source @ (found[0] - truth)[:2, :2].T) + (found[0] - truth)[:2, 2]
    assert np.median(np.linalg.norm(apart, axis=1)) < 4


def test_surfaces_draw_points_into_place_with_their_scale() -> None:
    surface, points = Surface.of(street(PLACE, 1).points[::4]), street(PLACE, 2).coordinates[::20]
    start = similar(1.03, (0.5, -0.4, 2), (0.5, -0.6, 0.3))
    found = refine_similarity(points, surface, start, reaches=(4, 2, 1))
    scale, turn, position = near(found, np.eye(4), points)
    assert (scale < 0.1, turn < 0.1, position < 0.1) == (True, True, True)


def test_evidence_tells_a_right_place_from_a_crowded_one() -> None:
    """Among points everywhere all points have neighbours, and still have them when they are nudged."""
    target, points = street(PLACE, 1).coordinates, street(PLACE, 2).coordinates[::20]
    points = points[points[:, 2] > 0.4]
    everywhere = np.stack(np.meshgrid(*(np.arange(-55, 56, 1.0),) * 2, np.arange(-9, 20, 1.0)), -1).reshape(
        -1, 3
    )
    right, crowded = (
        measure_evidence(points, cKDTree(cloud), cKDTree(cloud[:, :2]), np.eye(4), within=0.9, near=2)
        for cloud in (target, everywhere)
    )
    assert right.agreeing > 0.9
    assert right.nats > 0.8
    assert crowded.agreeing > 0.9
    assert crowded.nats < 0.1


def test_where_nothing_has_been_seen_nothing_is_told() -> None:
    target, points = street(PLACE, 1).coordinates, street(PLACE, 2).coordinates[::20]
    beyond = move(shift=(500, 0, 0))
    evidence = measure_evidence(points, cKDTree(target), cKDTree(target[:, :2]), beyond, within=0.9, near=2)
    assert (evidence.covered, evidence.weight) == (0, 0)


def test_a_model_is_not_written_over_itself(tmp_path: Path) -> None:
    random = np.random.default_rng(13)
    folder = write_model(tmp_path / "m", model_of(random.normal(size=(200, 3)), walk(random), np.eye(4)))
    for moved, how in ((folder, "itself"), (tmp_path, "contains"), (folder / "in", "within")):
        with pytest.raises(OutputError, match=how):
            write_moved(folder, np.eye(4), moved)
    write_moved(folder, similar(2, (0, 0, 90), (1, 2, 3)), tmp_path / "n")
    old, new = read_shape(folder).points, read_shape(tmp_path / "n").points
    np.testing.assert_allclose(
        np.sort(new, axis=0), np.sort(2 * old @ [[0, 1, 0], [-1, 0, 0], [0, 0, 1]] + (1, 2, 3), axis=0)
    )


def drawn(folder: Path) -> Path:
    random = np.random.default_rng(14)
    return write_model(folder, model_of(random.normal(size=(200, 3)), walk(random), np.eye(4)))


@pytest.mark.parametrize(
    ("model", "target", "output"),
    [
        ("al/model/0", "other", "al"),
        ("other", "al/model", "al"),
        ("other", "al/model/0", "al"),
        ("other", "al", "al/here"),
        ("link/0", "other", "al"),
    ],
)
def test_no_output_costs_the_model_or_the_target(
    tmp_path: Path, model: str, target: str, output: str
) -> None:
    folders = {tmp_path / name for name in (model, target) if not name.startswith("link")}
    if model.startswith("link"):
        folders.add(tmp_path / "al/model/0")
        (tmp_path / "link").symlink_to(tmp_path / "al/model")
    before = {folder: digests(drawn(folder)) for folder in folders}
    with pytest.raises(OutputError, match="must stay"):
        gim_sfm.align_model(tmp_path / model, tmp_path / target, output=tmp_path / output)
    assert {folder: digests(folder) for folder in folders} == before


def test_a_cloud_in_the_folder_to_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "out/model").mkdir(parents=True)
    scan = tmp_path / "out/model/scan.ply"
    write_cloud(scan, street(PLACE, 1, points=2000))
    with pytest.raises(OutputError, match="contains"):
        gim_sfm.align_model(drawn(tmp_path / "m"), scan, output=tmp_path / "out")
    assert scan.exists()


def test_a_model_that_no_alignment_wrote_is_not_replaced(tmp_path: Path, scan: Path) -> None:
    before = digests(drawn(tmp_path / "out/model"))
    with pytest.raises(OutputError, match="would be replaced"):
        gim_sfm.align_model(drawn(tmp_path / "m"), scan, output=tmp_path / "out")
    assert digests(tmp_path / "out/model") == before


def test_lines_show_where_cameras_look() -> None:
    up = Up(np.array([1.0, 0, 0]), "cameras", 1.0)
    pose = held(np.array([4.0, 5, 6]), np.array([4.0, 9, 6]))[None]
    turned = up.upright_from_model[:3, :3]
    np.testing.assert_allclose(draw_sights(pose, up, 2.0)[0] @ turned, [[4, 5, 6], [4, 7, 6]], atol=1e-12)
