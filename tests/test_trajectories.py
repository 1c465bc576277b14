"""Poses on disk, scans in their order, and local maps made of both."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cloud_kit import move, yard
from scipy.spatial import cKDTree

import gim_sfm
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.bev.drives.accumulation import LocalMap, accumulate, list_scans, plan_local_maps, thin_out
from gim_sfm.bev.drives.trajectories import (
    Trajectory,
    measure_travel,
    read_trajectory,
    write_kitti,
    write_tum,
)
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError, SettingsError

NAMES = [f"{number}.ply" for number in range(5)]


@pytest.fixture
def trajectory() -> Trajectory:
    poses = [move(yaw=25 * n, tilt=3 * n, shift=(7.5 * n, -2.0 * n, 0.1)) for n in range(5)]
    return Trajectory(np.array(poses), 1.5e9 + np.arange(5) * 0.1)


def test_kitti_and_tum_round_trip(tmp_path: Path, trajectory: Trajectory) -> None:
    write_kitti(tmp_path / "kitti.txt", trajectory.world_from_scan)
    write_tum(tmp_path / "tum.txt", trajectory)
    for name, times in (("kitti", np.arange(5.0)), ("tum", trajectory.timestamps)):
        read = read_trajectory(tmp_path / f"{name}.txt", NAMES)
        np.testing.assert_allclose(read.world_from_scan, trajectory.world_from_scan, atol=1e-7)
        np.testing.assert_allclose(read.timestamps, times, atol=1e-6, rtol=0)


def test_survey_coordinates_are_written_in_full(tmp_path: Path) -> None:
    poses = np.array([move(yaw=33, shift=(431_300.123456789, 5_411_203.987654321, 310.1))])
    times = np.array([1_700_000_000.1234567])
    write_kitti(tmp_path / "kitti.txt", poses)
    write_tum(tmp_path / "tum.txt", Trajectory(poses, times))
    for name in ("kitti", "tum"):
        read = read_trajectory(tmp_path / f"{name}.txt", NAMES[:1])
        np.testing.assert_array_equal(read.world_from_scan[:, :3, 3], poses[:, :3, 3])
        np.testing.assert_allclose(read.world_from_scan, poses, atol=1e-14)
    assert read.timestamps == times


def test_tum_quaternions_have_the_real_part_last_and_remarks_are_skipped(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    (tmp_path / "tum.txt").write_text(f"# timestamp tx ty tz qx qy qz qw\n\n12.5 1 2 3 0 0 {half} {half}\n")
    read = read_trajectory(tmp_path / "tum.txt", NAMES[:1])
    expected = move(yaw=90, shift=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(read.world_from_scan[0], expected, atol=1e-9)
    assert read.timestamps.tolist() == [12.5]


def test_json_gives_poses_by_name(tmp_path: Path, trajectory: Trajectory) -> None:
    poses = {name: pose.tolist() for name, pose in zip(NAMES, trajectory.world_from_scan, strict=True)}
    (tmp_path / "poses.json").write_text(json.dumps({"world_from_scan": poses}))
    read = read_trajectory(tmp_path / "poses.json", NAMES[3:0:-1])
    np.testing.assert_allclose(read.world_from_scan, trajectory.world_from_scan[3:0:-1], atol=1e-9)
    with pytest.raises(InputError, match=r"5 of 6 scans; other\.ply"):
        read_trajectory(tmp_path / "poses.json", [*NAMES, "other.ply"])


def test_as_many_poses_as_scans(tmp_path: Path, trajectory: Trajectory) -> None:
    write_kitti(tmp_path / "poses.txt", trajectory.world_from_scan)
    with pytest.raises(InputError, match="5 poses for 4 scans"):
        read_trajectory(tmp_path / "poses.txt", NAMES[:4])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1 nan", "not finite"),
        ("1 0 0 0 0 1 0 0 0 0 1", "11 numbers"),
        ("0 1 2 3 0 0 0 1", "8 numbers"),
        ("1 0 0 0 0 1 0 0 0 0 one 0", "one"),
        ("1 0 0 0 0 1.1 0 0 0 0 1 0", "not rigid"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0", "not rigid"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "poses.txt").write_text(f"1 0 0 0 0 1 0 0 0 0 1 0\n{line}\n")
    with pytest.raises(InputError, match=rf"poses\.txt, line 2.*{told}"):
        read_trajectory(tmp_path / "poses.txt", NAMES[:2])


@pytest.mark.parametrize("text", ["", "# nothing\n", "0 1 2 3 0 0 0.5 0.5\n", "\x00\xff"])
def test_a_file_without_usable_poses_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "poses.txt").write_text(text, encoding="latin1")
    with pytest.raises(InputError, match=r"poses\.txt"):
        read_trajectory(tmp_path / "poses.txt", NAMES[:1])


def test_scans_are_listed_as_numbers_count(tmp_path: Path) -> None:
    for name in ("scan10.ply", "scan9.PLY", "scan1.ply", "poses.txt", ".hidden.bin"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in list_scans(tmp_path)] == ["scan1.ply", "scan9.PLY", "scan10.ply"]
    (tmp_path / "map.pcd").write_bytes(b"x")
    with pytest.raises(InputError, match="several formats"):
        list_scans(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no point cloud"):
        list_scans(tmp_path / "empty")


def test_local_maps_cover_the_drive_and_overlap() -> None:
    poses = np.array([move(shift=(0.7 * n, 0, 0)) for n in range(200)])
    maps = plan_local_maps(poses, 20.0)
    assert set(np.concatenate([each.members for each in maps]).tolist()) == set(range(200))
    for before, after in pairwise(maps):
        shared = np.intersect1d(before.members, after.members)
        assert len(shared) >= 0.45 * len(before.members)
    for each in maps:
        span = measure_travel(poses[each.members])[-1]
        assert 18 < span <= 20
        middle = poses[each.members][:, 0, 3].mean()
        assert abs(poses[each.reference][0, 3] - middle) < 1.0


def test_standing_still_adds_no_scans() -> None:
    ways = [*range(10), *([10] * 500), *range(11, 20)]
    maps = plan_local_maps(np.array([move(shift=(way, 0, 0)) for way in ways]), 20.0)
    assert len(maps) == 1
    assert len(maps[0].members) <= 21


def test_accumulated_scans_are_the_scene_in_the_frame_of_the_reference(tmp_path: Path) -> None:
    scene = yard(np.random.default_rng(3), points=9000)
    poses = np.array([move(yaw=40 * n, tilt=4, shift=(3.0 * n, n, 1.5)) for n in range(3)])
    for number, pose in enumerate(poses):
        part = scene.select(np.arange(number, len(scene), 3))
        write_cloud(tmp_path / f"{number}.ply", part.moved(np.linalg.inv(pose)))
    found = accumulate(LocalMap(1, np.arange(3)), list_scans(tmp_path), poses, voxel=1e-3).cloud
    expected = scene.moved(np.linalg.inv(poses[1])).coordinates
    assert len(found) == pytest.approx(len(scene), rel=0.01)
    assert cKDTree(found.coordinates).query(expected)[0].max() < 2e-3
    assert cKDTree(expected).query(found.coordinates)[0].max() < 1e-4
    assert len(found.intensity) == len(found)


def test_a_local_map_of_broken_scans_is_none(tmp_path: Path) -> None:
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes(b"ply")
    with pytest.raises(InputError, match=r"0\.ply"):
        accumulate(LocalMap(0, np.arange(2)), list_scans(tmp_path), np.array([np.eye(4)] * 2), voxel=0.1)


def test_thinned_clouds_keep_one_point_of_every_voxel() -> None:
    random = np.random.default_rng(0)
    cloud = PointCloud.of(random.uniform(-5, 5, (20_000, 3)), np.arange(20_000))
    thinned = thin_out(cloud, 1.0)
    assert len(thinned) == 1000
    assert len(np.unique(np.floor(thinned.points), axis=0)) == 1000
    rows = thinned.intensity.astype(int)
    np.testing.assert_array_equal(cloud.points[rows], thinned.points)


def test_local_maps_of_a_drive_are_projected(tmp_path: Path) -> None:
    scene = yard(np.random.default_rng(4))
    poses = np.array([move(yaw=10 * n, shift=(4.0 * n, 0, 1.5)) for n in range(6)])
    (tmp_path / "scans").mkdir()
    for number, pose in enumerate(poses):
        write_cloud(tmp_path / "scans" / f"{number}.ply", scene.moved(np.linalg.inv(pose)))
    write_kitti(tmp_path / "poses.txt", poses)
    made = gim_sfm.project_drive(
        tmp_path / "scans", tmp_path / "out", poses=tmp_path / "poses.txt", map_length=9.0
    )
    told = [json.loads((folder / "view.json").read_text()) for folder in made.folders]
    assert [folder.name for folder in made.folders] == ["0000", "0001", "0002", "0003"]
    assert {name for each in told for name in each["scans"]} == {f"{number}.ply" for number in range(6)}
    for each in told:
        pose = poses[int(Path(each["reference"]).stem)]
        np.testing.assert_allclose(each["world_from_reference"], pose, atol=1e-6)
    assert (tmp_path / "out" / "0001" / "density.png").is_file()
    (tmp_path / "scans" / "1.ply").write_bytes(b"ply")
    gim_sfm.project_drive(
        tmp_path / "scans", tmp_path / "again", poses=tmp_path / "poses.txt", map_length=9.0
    )
    again = [
        json.loads((folder / "view.json").read_text()) for folder in sorted((tmp_path / "again").iterdir())
    ]
    for before, after in zip(told, again, strict=True):
        assert after["scans"] == [name for name in before["scans"] if name != "1.ply"]
        assert list(after["left_out"]) == ["1.ply"] * ("1.ply" in before["scans"])
    with pytest.raises(SettingsError, match="poses"):
        gim_sfm.project_drive(tmp_path / "scans", tmp_path / "out", poses=None)
