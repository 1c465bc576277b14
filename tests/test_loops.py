"""Loops of a drive: places recognised, links with their information, false ones refused, graphs written."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_kit import carried, move, yard
from drive_kit import draw_city, drifting, drive_along, scan_city, standing
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from test_registration import off, street

import gim_sfm
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.bev.drives.trajectories import measure_travel, read_trajectory, write_kitti
from gim_sfm.bev.ground import find_ground
from gim_sfm.bev.loops import judging
from gim_sfm.bev.loops.contradictions import find_contradicted
from gim_sfm.bev.loops.information import about_origin, expect_of_odometry, measure_information
from gim_sfm.bev.loops.judging import Link
from gim_sfm.bev.loops.odometry import Odometry
from gim_sfm.bev.loops.place_recognition import (
    LEAST_LIKENESS,
    choose_candidates,
    describe_place,
    measure_likeness,
)
from gim_sfm.bev.loops.pose_graph import Edge, PoseGraph, join, load_gtsam, move_frames, optimise, write_g2o
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.refinement import measure_stiffness, thin
from gim_sfm.errors import InputError, RegistrationError, SettingsError


def small_move(error: np.ndarray) -> np.ndarray:
    """4x4 of (x, y, z, turn about x, y, z)."""
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = Rotation.from_rotvec(error[3:]).as_matrix(), error[:3]
    return moved


def describe(cloud: PointCloud) -> np.ndarray:
    return describe_place(cloud, find_ground(cloud), 100.0, np.zeros(3))


def test_a_place_is_alike_from_another_lane_and_direction_and_others_are_not() -> None:
    here = describe(street(1, 0))
    for moved in (move(yaw=180, shift=(4.0, 3.0, 0)), move(yaw=77, tilt=4, shift=(-5.0, 0, 1))):
        assert measure_likeness(here, describe(carried(street(1, 1), moved))) > 0.5
    for place in (2, 3, 4):
        assert measure_likeness(here, describe(street(place, 0))) < LEAST_LIKENESS
    assert measure_likeness(here, here) == pytest.approx(1, abs=1e-5)


def test_candidates_are_earlier_alike_no_neighbours_and_of_different_stretches() -> None:
    random = np.random.default_rng(0)
    places = random.uniform(0, 1, (3, 40)) ** 8
    rows = [0, 0, 1, 2, 2, 2, 0, 0]
    descriptors = np.array([places[row] for row in rows]) + random.uniform(0, 1e-3, (8, 40))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    descriptors[1] = 0
    way = np.array([0.0, 5, 30, 60, 65, 70, 100, 160])
    found = choose_candidates(descriptors.astype(np.float32), way, most=3, gap=50.0, alike=10.0)
    assert set(found) == {(6, 0), (7, 0), (7, 6)}
    assert choose_candidates(descriptors.astype(np.float32), way, most=1, gap=50.0, alike=10.0)[0] == (6, 0)


def test_without_a_gap_candidates_are_still_earlier_ones() -> None:
    descriptors = np.random.default_rng(0).uniform(0, 1, 40) ** 8 + np.zeros((4, 40))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    way = np.array([0.0, 0, 5, 9])
    found = choose_candidates(descriptors.astype(np.float32), way, most=9, gap=0.0, alike=0.0)
    assert len(found) == len({*found})
    assert all(earlier < later for later, earlier in found)
    assert {later for later, _ in found} == {1, 2, 3}


@pytest.mark.parametrize("gap", [-1.0, np.nan, np.inf])
def test_a_gap_below_nothing_is_refused(tmp_path: Path, gap: float) -> None:
    with pytest.raises(SettingsError, match="neighbours"):
        gim_sfm.close_loops(tmp_path, output=tmp_path / "out", gap=gap)


def test_a_place_is_described_about_its_station_wherever_its_zero_lies() -> None:
    here = street(1, 0)
    far = here.moved(move(yaw=90, shift=(4_210.0, 203.0, 90.0)))
    near = PointCloud.of(here.coordinates + np.array([300.0, 203.0, 0]))
    for cloud, station in ((far, (4_210.0, 203.0, 90.0)), (near, (300.0, 203.0, 0))):
        described = describe_place(cloud, find_ground(cloud), 100.0, np.array(station))
        assert measure_likeness(describe(here), described) > 0.8
    with pytest.raises(InputError, match="Nothing is seen"):
        describe(near)


@pytest.fixture(scope="module")
def fitted() -> tuple[Any, Any]:
    scene = yard(np.random.default_rng(0), points=8000)
    return thin(scene, 0.4), thin(carried(scene, move(yaw=3, shift=(0.2, 0.1, 0))), 0.4)


def plane_cost(source: Any, target: Any, start: np.ndarray, moved: np.ndarray, within: float) -> float:
    """Half the sum of squared distances to the planes of the partners that points have at the start."""
    here = source.points.astype(float)
    apart, partner = cKDTree(target.points).query(here @ start[:3, :3].T + start[:3, 3])
    errors = target.points[partner] - here @ moved[:3, :3].T - moved[:3, 3]
    along = np.sum(errors * target.prepared.normals()[partner, :3], axis=1)
    return float(0.5 * np.sum(along[apart < within] ** 2))


def test_the_stiffness_is_the_second_derivative_about_the_source(fitted) -> None:
    source, target = fitted
    pose = move(yaw=3, shift=(0.2, 0.1, 0))
    stiffness = measure_stiffness(source, target, pose, within=1.0)
    random, length = np.random.default_rng(1), 1e-2
    for _ in range(3):
        error = random.normal(0, 1, 6) * np.repeat([1, 0.05], 3)
        costs = [
            plane_cost(source, target, pose, pose @ small_move(sign * length * error), 1.0)
            for sign in (-1, 0, 1)
        ]
        measured = (costs[0] - 2 * costs[1] + costs[2]) / length**2
        assert error @ stiffness.planes @ error == pytest.approx(measured, rel=0.01)


def test_information_tells_the_direction_that_nothing_fixes() -> None:
    """Along a corridor of two straight walls."""

    def corridor(seed: int, *, turned: float = 0.0) -> PointCloud:
        random = np.random.default_rng(seed)
        along = random.uniform(-30, 30, (2, 6000))
        side = np.where(random.random(6000) < 0.5, -6.0, 6.0)
        ground = np.column_stack([along[0], random.uniform(-6, 6, 6000), np.zeros(6000)])
        walls = np.column_stack([along[1], side, random.uniform(0, 4, 6000)])
        both = np.concatenate([ground, walls]) + random.normal(0, 0.02, (12_000, 3))
        return carried(PointCloud.of(both), move(yaw=turned))

    thinned = [thin(corridor(seed, turned=90.0 * seed), 0.5) for seed in (0, 1)]
    found = measure_information(*thinned, move(yaw=90), within=1.5, voxel=0.5, extent=60.0)
    spread = np.sqrt(np.diag(np.linalg.inv(found)))
    np.testing.assert_allclose(found, found.T)
    assert spread[0] > 3 * spread[1]
    assert spread[1:3] == pytest.approx([0.5 / 8] * 2, rel=0.5)


def test_information_about_another_origin_weighs_equal_errors_equally() -> None:
    random = np.random.default_rng(0)
    root = random.normal(0, 1, (6, 6))
    information, origin = root @ root.T, np.array([400.0, -90.0, 3.0])
    shifted = np.eye(4)
    shifted[:3, 3] = origin
    error = 1e-6 * random.normal(0, 1, 6)
    relative = np.linalg.inv(shifted) @ small_move(error) @ shifted
    same = np.concatenate([relative[:3, 3], Rotation.from_matrix(relative[:3, :3]).as_rotvec()])
    there = about_origin(information, origin)
    assert error @ there @ error == pytest.approx(same @ information @ same, rel=1e-4)


def test_odometry_errs_as_much_however_many_steps_a_way_has() -> None:
    whole = np.linalg.inv(expect_of_odometry(60.0, 120.0, 0.01))
    steps = sum(np.linalg.inv(expect_of_odometry(6.0, 120.0, 0.01)) for _ in range(10))
    np.testing.assert_allclose(steps, whole)
    assert np.sqrt(np.diag(np.linalg.inv(expect_of_odometry(120.0, 120.0, 0.01)))) == pytest.approx(
        [1.2] * 3 + [0.01] * 3
    )


def graph_of(truth: np.ndarray, told: np.ndarray, loops: dict[tuple[int, int], np.ndarray]) -> PoseGraph:
    tight = np.diag([400.0] * 3 + [4e4] * 3)
    edges = [
        Edge(n, n - 1, np.linalg.inv(told[n - 1]) @ told[n], expect_of_odometry(4.0, 100.0, 0.02), False)
        for n in range(1, len(told))
    ]
    edges += [Edge(*pair, moved, tight, True) for pair, moved in loops.items()]
    return PoseGraph(told, edges, np.zeros(len(told), np.int64))


@pytest.fixture(scope="module")
def there_and_back() -> np.ndarray:
    """world_from_scan: 120 m and back on the other lane."""
    start, end = np.array([20.0, 0.0]), np.array([140.0, 0.0])
    return np.concatenate([drive_along(*ends, step=6.0, aside=1.75) for ends in ((start, end), (end, start))])


def true_loops(truth: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    count = len(truth)
    pairs = [(count - 1 - n, n) for n in range(0, count // 2 - 4, 3)]
    return {pair: np.linalg.inv(truth[pair[1]]) @ truth[pair[0]] for pair in pairs}


def test_g2o_reads_back_as_it_was(tmp_path: Path, there_and_back: np.ndarray) -> None:
    gtsam = pytest.importorskip("gtsam")
    graph = graph_of(there_and_back, there_and_back, true_loops(there_and_back))
    write_g2o(tmp_path / "graph.g2o", graph)
    lines = [line.split() for line in (tmp_path / "graph.g2o").read_text().splitlines()]
    assert [len(line) for line in lines] == [9] * len(there_and_back) + [31] * len(graph.edges)
    factors, values = gtsam.readG2o(str(tmp_path / "graph.g2o"), True)
    for number, pose in enumerate(there_and_back):
        np.testing.assert_allclose(values.atPose3(number).matrix(), pose, atol=1e-6)
    assert factors.size() == len(graph.edges)
    assert factors.error(values) == pytest.approx(0, abs=1e-6)


def test_errors_weigh_in_g2o_as_they_do_here(tmp_path: Path) -> None:
    """Its error: place and the vector of the quaternion of the measured pose's inverse times the true one."""
    random = np.random.default_rng(0)
    root = random.normal(0, 1, (6, 6))
    edge = Edge(1, 0, move(yaw=50, tilt=7, shift=(3.0, 2, 1)), root @ root.T, is_loop=True)
    write_g2o(tmp_path / "one.g2o", PoseGraph(np.tile(np.eye(4), (2, 1, 1)), [edge], np.zeros(2, np.int64)))
    numbers = (tmp_path / "one.g2o").read_text().splitlines()[-1].split()
    assert numbers[:3] == ["EDGE_SE3:QUAT", "0", "1"]
    values = np.array(numbers[3:], float)
    upper = np.zeros((6, 6))
    upper[np.triu_indices(6)] = values[7:]
    information = upper + np.triu(upper, 1).T
    measured = move(shift=tuple(values[:3]))
    measured[:3, :3] = Rotation.from_quat(values[3:7]).as_matrix()
    np.testing.assert_allclose(measured, edge.target_from_source, atol=1e-8)
    error = 1e-3 * random.normal(0, 1, 6)
    left = np.linalg.inv(measured) @ edge.target_from_source @ small_move(error)
    theirs = np.concatenate([left[:3, 3], Rotation.from_matrix(left[:3, :3]).as_quat()[:3]])
    assert theirs @ information @ theirs == pytest.approx(error @ edge.information @ error, rel=1e-4)


def test_optimising_mends_drift_and_doubts_a_false_loop(there_and_back: np.ndarray) -> None:
    pytest.importorskip("gtsam")
    told = drifting(there_and_back, 0, turn=0.05)
    loops = true_loops(there_and_back)
    assert np.linalg.norm((told - there_and_back)[:, :3, 3], axis=1).max() > 5
    for false in ({}, {(30, 12): move(yaw=20, shift=(8.0, -5.0, 0))}):
        better = optimise(graph_of(there_and_back, told, {**loops, **false}), np.zeros((len(told), 3)))
        assert np.linalg.norm((better - there_and_back)[:, :3, 3], axis=1).max() < 3
        close = [off(np.linalg.inv(better[b]) @ better[a], moved)[0] for (a, b), moved in loops.items()]
        assert max(close) < 0.3
        np.testing.assert_allclose(better[0], told[0], atol=1e-4)


def test_optimising_is_the_same_in_frames_with_a_zero_far_away(there_and_back: np.ndarray) -> None:
    pytest.importorskip("gtsam")
    told = drifting(there_and_back, 0, turn=0.05)
    graph = graph_of(there_and_back, told, true_loops(there_and_back))
    near = np.zeros((len(told), 3))
    far = near + np.array([431_300.0, 5_411_203.0, 310.0])
    found = optimise(move_frames(graph, -far), far)
    shifts = np.array([move(shift=tuple(place)) for place in far])
    np.testing.assert_allclose((found @ shifts)[:, :3, 3], optimise(graph, near)[:, :3, 3], atol=0.02)


def test_gtsam_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)
    with pytest.raises(SettingsError, match=r"pip install 'gim_sfm\[graph\]'"):
        load_gtsam()


def test_poses_follow_from_edges_and_what_nothing_joins_is_told() -> None:
    poses = [move(yaw=30 * n, shift=(2.0 * n, n, 0)) for n in range(5)]
    ends = [(1, 0), (2, 1), (4, 3), (2, 0)]
    wrong = move(shift=(50.0, 0, 0))
    edges = [
        Edge(
            a,
            b,
            wrong if (a, b) == (2, 0) else np.linalg.inv(poses[b]) @ poses[a],
            np.eye(6),
            (a, b) == (2, 0),
        )
        for a, b in ends
    ]
    graph = join(5, edges)
    assert graph.groups.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(graph.world_from_scan[2], poses[2], atol=1e-12)
    np.testing.assert_allclose(graph.world_from_scan[4], np.linalg.inv(poses[3]) @ poses[4], atol=1e-12)
    with pytest.raises(RegistrationError, match="2 groups"):
        optimise(graph, np.zeros((5, 3)))


def test_loops_that_contradict_the_others_are_found(there_and_back: np.ndarray) -> None:
    def links(loops: dict[tuple[int, int], np.ndarray]) -> list[Link]:
        return [Link(*pair, moved, np.eye(6), 1, 1, 0, 1) for pair, moved in loops.items()]

    told = drifting(there_and_back, 0)
    groups = np.zeros(len(told), np.int64)
    way = measure_travel(told)
    odometry = Odometry(PoseGraph(told, [], groups), told, groups, way, [], np.zeros((len(told), 3)))
    true = true_loops(there_and_back)
    assert not find_contradicted(links(true), odometry, extent=100.0, drift=0.01).any()
    false = {(35, 5): true[36, 3] @ move(shift=(-9.0, 0, 0))}
    found = find_contradicted(links({**true, **false}), odometry, extent=100.0, drift=0.01)
    assert found.tolist() == [False] * len(true) + [True]
    two = dict(list(true.items())[:1])
    assert find_contradicted(links({**two, **false}), odometry, extent=100.0, drift=0.01).all()
    apart = Odometry(
        odometry.graph, told, (np.arange(len(told)) > 35).astype(np.int64), way, [], odometry.stations
    )
    assert not find_contradicted(links({**two, **false}), apart, extent=100.0, drift=0.01).any()


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory, there_and_back: np.ndarray) -> Path:
    """A folder of scans, there and back; every other pose."""
    folder = tmp_path_factory.mktemp("drive")
    city = draw_city(5)
    for number, pose in enumerate(there_and_back[::2]):
        write_cloud(folder / f"{number}.ply", scan_city(city, pose, number))
    return folder


def shown(page: Path) -> Any:
    """The layers of a page."""
    text = page.read_text(encoding="utf-8").split('id="scene">')[1].split("</script>")[0]
    return json.loads(text)["layers"]


def wrong_by(answer: Any, truth: np.ndarray) -> list[tuple[float, float]]:
    """Metres and degrees that each loop of an answer is off."""
    errors = []
    for loop in answer["loops"]:
        source, target = (truth[int(Path(loop[end]).stem)] for end in ("source", "target"))
        errors.append(off(np.array(loop["target_from_source"]), np.linalg.inv(target) @ source))
    return errors


def test_a_drive_back_is_closed_by_odometry_and_a_second_run_goes_on(
    drive: Path, tmp_path: Path, there_and_back: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gtsam")
    truth = there_and_back[::2]
    told = drifting(truth, 1)
    write_kitti(tmp_path / "odometry.txt", told)
    asked = {
        "poses": tmp_path / "odometry.txt",
        "output": tmp_path / "out",
        "optimised": True,
        "candidates": 1,
    }
    found = gim_sfm.close_loops(drive, **asked)
    answer = json.loads((tmp_path / "out" / "loops.json").read_text())
    assert len(answer["loops"]) >= 3
    assert max(distance for distance, _ in wrong_by(answer, truth)) < 0.5
    assert max(turn for _, turn in wrong_by(answer, truth)) < 0.5
    before, after = (
        np.linalg.norm((poses - truth)[:, :3, 3], axis=1).max() for poses in (told, found.optimised)
    )
    assert after < 0.7 * before
    lines = (tmp_path / "out" / "loops.g2o").read_text().splitlines()
    assert len(lines) == len(told) + len(told) - 1 + len(answer["loops"])
    assert (tmp_path / "out" / "loops.png").is_file()
    layers = {layer["name"]: layer["count"] for layer in shown(tmp_path / "out" / "view.html")}
    assert layers.pop("points seen") > 10_000
    assert layers == {
        "way by odometry and first edges": 2 * (len(told) - 1),
        "way optimised": 2 * (len(told) - 1),
        "loops": 2 * len(answer["loops"]),
    }
    assert len((tmp_path / "out" / "trajectory_optimised_tum.txt").read_text().splitlines()) == len(told)
    monkeypatch.setattr(judging, "register_prepared", None)
    monkeypatch.setattr(judging, "describe_place", None)
    gim_sfm.close_loops(drive, **asked)
    assert json.loads((tmp_path / "out" / "loops.json").read_text()) == answer


def test_scans_alone_are_chained_and_closed_and_a_look_alike_is_refused(tmp_path: Path) -> None:
    """There and back past one place, then on to another one that begins as the first did."""
    (tmp_path / "scans").mkdir()
    city, other = draw_city(5), draw_city(6)
    ways = [
        standing(np.array([x, y]), np.array([ahead, 0]))
        for x, y, ahead in (
            (60.0, -1.75, 1.0),
            (68.0, -1.75, 1.0),
            (130.0, -1.75, 1.0),
            (69.0, 1.75, -1.0),
            (60.0, 1.75, -1.0),
        )
    ]
    near = np.hypot(*(other.ends.mean(axis=1) - (62.0, 0)).T) < 14
    kept = np.hypot(*(city.ends.mean(axis=1) - (62.0, 0)).T) < 14
    mixed = type(city)(
        np.concatenate([city.ends[kept], other.ends[~near]]),
        np.concatenate([city.heights[kept], other.heights[~near]]),
    )
    for number, pose in enumerate(ways):
        write_cloud(tmp_path / "scans" / f"{number}.ply", scan_city(city, pose, number))
    write_cloud(tmp_path / "scans" / "5.ply", scan_city(mixed, ways[0], 5))
    (tmp_path / "scans" / "6.ply").write_bytes((tmp_path / "scans" / "5.ply").read_bytes()[:300])
    found = gim_sfm.close_loops(tmp_path / "scans", output=tmp_path / "out", gap=20.0)
    answer = json.loads((tmp_path / "out" / "loops.json").read_text())
    assert list(answer["unusable"]) == ["6.ply"]
    loops = {(loop["source"], loop["target"]) for loop in answer["loops"]}
    assert {("3.ply", "1.ply"), ("4.ply", "0.ply")} <= loops
    assert not any("5.ply" in pair for pair in loops)
    assert max(distance for distance, _ in wrong_by(answer, np.array(ways))) < 0.3
    assert ("2.ply", "1.ply") in {(each["source"], each["target"]) for each in answer["interrupted"]}
    assert len({*found.graph.groups[[0, 1, 3, 4]].tolist()}) == 1
    assert "groups" in str(found)


@pytest.fixture(scope="module")
def few() -> list[tuple[np.ndarray, PointCloud]]:
    """world_from_scan and what is seen: two on the way there, and two on the way back."""
    city = draw_city(5)
    places = [(60.0, -1.75, 1.0), (68.0, -1.75, 1.0), (69.0, 1.75, -1.0), (60.0, 1.75, -1.0)]
    poses = [standing(np.array([x, y]), np.array([ahead, 0])) for x, y, ahead in places]
    return [(pose, scan_city(city, pose, number)) for number, pose in enumerate(poses)]


@pytest.mark.parametrize("shift", [(300.0, 203.0, 0), (431_300.0, 5_411_203.0, 310.0)])
def test_scans_in_the_frame_of_a_map_are_closed_as_those_in_the_sensors(few, tmp_path: Path, shift) -> None:
    truth = np.array([move(shift=shift) @ pose for pose, _ in few])
    for number, (_, scan) in enumerate(few):
        write_cloud(tmp_path / f"{number}.ply", scan.moved(truth[number]))
    found = gim_sfm.close_loops(tmp_path, output=tmp_path / "out", gap=7.0)
    assert {(3, 0), (2, 0)} <= {(loop.source, loop.target) for loop in found.links}
    for loop in found.links:
        at = truth[loop.source]
        assert off(np.linalg.inv(at) @ loop.target_from_source @ at, np.eye(4))[0] < 0.3
    assert found.graph.groups.tolist() == [0] * 4
    way = next(layer for layer in shown(tmp_path / "out" / "view.html") if layer["name"].startswith("way"))
    assert max(np.array(way["box"])[:, 0]) == pytest.approx(9, abs=4)


def test_a_scan_that_cannot_be_used_is_left_out_of_the_trajectory(few, tmp_path: Path) -> None:
    pytest.importorskip("gtsam")
    (tmp_path / "scans").mkdir()
    for name, (_, scan) in zip("0134", few, strict=True):
        write_cloud(tmp_path / "scans" / f"{name}.ply", scan)
    (tmp_path / "scans" / "2.ply").write_bytes(b"ply")
    found = gim_sfm.close_loops(tmp_path / "scans", output=tmp_path / "out", gap=7.0, optimised=True)
    answer = json.loads((tmp_path / "out" / "loops.json").read_text())
    assert answer["groups"] == [0, 0, None, 0, 0]
    assert list(answer["unusable"]) == ["2.ply"]
    assert np.isnan(found.optimised[2]).all()
    graph = [line.split() for line in (tmp_path / "out" / "loops.g2o").read_text().splitlines()]
    assert [row[1] for row in graph if row[0].startswith("VERTEX")] == ["0", "1", "3", "4"]
    read = read_trajectory(tmp_path / "out" / "trajectory_optimised_tum.txt", ["0", "1", "3", "4"])
    assert read.timestamps.tolist() == [0, 1, 3, 4]
    truth = [np.linalg.inv(few[0][0]) @ pose for pose, _ in few]
    np.testing.assert_allclose(read.world_from_scan, truth, atol=0.2)


def test_a_scan_that_cannot_be_used_does_not_take_its_local_map_along(few, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for number, (_, scan) in enumerate(few):
        write_cloud(tmp_path / "scans" / f"{number}.ply", scan)
    (tmp_path / "scans" / "1.ply").write_bytes(b"ply")
    write_kitti(tmp_path / "poses.txt", np.array([pose for pose, _ in few]))
    asked = {"poses": tmp_path / "poses.txt", "output": tmp_path / "out", "map_length": 9.0, "gap": 0.0}
    found = gim_sfm.close_loops(tmp_path / "scans", **asked)
    answer = json.loads((tmp_path / "out" / "loops.json").read_text())
    assert found.unusable == 0
    assert list(answer["left_out"]) == ["1.ply"]
    assert all(loop.target < loop.source for loop in found.links)


def test_loops_need_two_scans(tmp_path: Path) -> None:
    write_cloud(tmp_path / "only.ply", street(1, 0, points=5000))
    with pytest.raises(InputError, match="loops need two"):
        gim_sfm.close_loops(tmp_path, output=tmp_path / "out")
