"""Registration through top views: any turn and place found, other places and look-alikes refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloud_kit import carried, move
from hall_kit import SPINNING, Hall, Scanner, draw_empty_room, draw_hall, find_spots, scan_hall

import gim_sfm
from gim_sfm import matchers
from gim_sfm.bev.agreement import measure_agreement
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.bev.ground import Ground
from gim_sfm.bev.planar import fit_moves
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.registration import lift, register
from gim_sfm.bev.view_matching import ViewMatcher, turn_picture
from gim_sfm.errors import RegistrationError
from gim_sfm.matchers.positions import telling_positions


@pytest.fixture(scope="module")
def matcher() -> ViewMatcher:
    return ViewMatcher(telling_positions(matchers.load("root-sift")))


def street(place: int, scan: int, *, points: int = 60_000) -> PointCloud:
    """One of many scans of a place: flat ground, and houses, trees and cars on it."""
    laid, random = np.random.default_rng(place), np.random.default_rng([place, scan])
    ground = np.column_stack([random.uniform(-50, 50, (points, 2)), random.normal(0, 0.02, points)])
    parts = [ground]
    for _ in range(40):
        middle, size = laid.uniform(-45, 45, 2), laid.uniform(1, 7, 2)
        angle, height = laid.uniform(0, np.pi), laid.uniform(1.5, 8)
        count = int(60 * size.sum())
        side = random.integers(0, 2, count)
        edge = random.uniform(-1, 1, (count, 2))
        edge[np.arange(count), side] = np.sign(edge[np.arange(count), side])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        outline = middle + (edge * size / 2) @ turn.T
        walls = np.column_stack([outline, random.uniform(0, height, count)])
        parts.append(walls)
        inside = np.all(np.abs((ground[:, :2] - middle) @ turn) < size / 2, axis=1)
        ground[inside] = np.nan
    coordinates = np.concatenate(parts)
    coordinates = coordinates[np.isfinite(coordinates).all(axis=1)]
    return PointCloud.of(coordinates + random.normal(0, 0.01, coordinates.shape))


def off(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    left = np.linalg.inv(truth) @ found
    turn = np.degrees(np.arccos(np.clip((np.trace(left[:3, :3]) - 1) / 2, -1, 1)))
    return float(np.linalg.norm(left[:3, 3])), float(turn)


@pytest.mark.parametrize(("yaw", "tilt", "shift"), [(0, 0, 0), (77, 5, 12), (-160, 8, -20)])
def test_any_turn_tilt_and_shift_is_undone(matcher, yaw, tilt, shift) -> None:
    moved = move(yaw, tilt, 40, (shift, -shift / 2, 1.5))
    found = register(carried(street(1, 0), moved), street(1, 1), matcher)
    distance, turn = off(found.target_from_source, np.linalg.inv(moved))
    assert distance < 0.1
    assert turn < 0.2
    assert found.overlap > 0.9
    assert found.consistent > 0.99
    assert found.rmse < 0.5
    assert 0.3 < found.confidence <= 1


def test_origins_of_survey_coordinates_are_part_of_the_answer(matcher) -> None:
    far = move(yaw=30, shift=(412_345.0, 5_678_901.0, 120.0))
    found = register(street(1, 0), street(1, 1).moved(far), matcher)
    places = np.array([[10.0, 20, 0, 1], [-30, 5, 2, 1]])
    np.testing.assert_allclose(places @ found.target_from_source.T, places @ far.T, atol=0.15)


@pytest.mark.parametrize("others", [(2, 3), (4, 5), (6, 7)])
def test_other_places_are_refused(matcher, others) -> None:
    with pytest.raises(RegistrationError):
        register(street(others[0], 0), street(others[1], 1), matcher)


def test_a_yard_that_looks_alike_from_two_sides_is_refused(matcher) -> None:
    """Whatever stands there stands there once more, turned by half a circle."""

    def doubled(scan: int) -> PointCloud:
        half = street(8, scan)
        return PointCloud.of(np.concatenate([half.coordinates, carried(half, move(yaw=180)).coordinates]))

    with pytest.raises(RegistrationError, match="2 ways"):
        register(doubled(0), doubled(1), matcher)


def hall_scans(
    hall: Hall, seed: int, *, scanner: Scanner = SPINNING[32]
) -> tuple[tuple[PointCloud, PointCloud], np.ndarray]:
    """Two scans of a hall from places some metres apart, and where the second sees the first."""
    spots = find_spots(hall, seed, 2, apart=(2, 8))
    (one, world_from_one), (other, world_from_other) = (
        scan_hall(hall, spot, seed=seed + k, scanner=scanner, height=1.2, yaw=100 * k, tilt=6 * k)
        for k, spot in enumerate(spots)
    )
    return (one, other), np.linalg.inv(world_from_other) @ world_from_one


@pytest.mark.parametrize(
    ("seed", "size", "height"), [(29, (12, 9), 5.4), (27, (17, 12), 3.0), (3, (20, 14), 4)]
)
def test_halls_full_of_things_are_registered_under_their_ceilings(matcher, seed, size, height) -> None:
    clouds, truth = hall_scans(draw_hall(seed, size=size, height=height), seed)
    distance, turn = off(register(*clouds, matcher).target_from_source, truth)
    assert distance < 0.1
    assert turn < 0.5


def test_another_hall_is_refused(matcher) -> None:
    (one, _), _ = hall_scans(draw_hall(29, size=(14, 10), height=3), 1)
    (other, _), _ = hall_scans(draw_hall(30, size=(14, 10), height=3), 2)
    with pytest.raises(RegistrationError):
        register(one, other, matcher)


def test_an_empty_room_is_refused_for_it_fits_two_ways(matcher) -> None:
    clouds, _ = hall_scans(draw_empty_room(size=(14, 9), height=3), 4)
    with pytest.raises(RegistrationError, match="ways"):
        register(*clouds, matcher)


@pytest.mark.parametrize("degrees", [0.0, 22.5])
def test_a_street_that_looks_alike_all_along_is_refused(matcher, degrees: float) -> None:
    """Walls at three distances and nothing along them; each scan sees another stretch."""

    def stretch(middle: float, seed: int) -> PointCloud:
        random = np.random.default_rng(seed)
        along = middle + random.uniform(-35, 35, 30_000)
        across = random.choice([4.0, -6.0, -12.0], 30_000)
        walls = np.column_stack([along, across, random.uniform(0, 4, 30_000)])
        ground = np.column_stack([middle + random.uniform(-35, 35, 30_000), random.uniform(-12, 4, 30_000)])
        flat = np.column_stack([ground, np.zeros(30_000)])
        return carried(PointCloud.of(np.concatenate([walls, flat])), move(yaw=degrees))

    with pytest.raises(RegistrationError):
        register(stretch(0, 0), stretch(15, 1), matcher)


def test_a_handful_of_cells_tells_no_place(matcher) -> None:
    cloud = street(1, 0)
    few = cloud.select(np.random.default_rng(0).permutation(len(cloud))[:400])
    with pytest.raises(RegistrationError):
        register(few, street(1, 1), matcher)


def test_a_large_cloud_finds_its_place_on_a_small_one(matcher) -> None:
    """The smaller scene is looked for in the larger one, whichever is the source."""
    whole = street(1, 0)
    part = whole.select(np.abs(whole.points[:, :2] - (12, 8)).max(axis=1) < 22)
    moved = move(yaw=50, shift=(5, 3, 1))
    found = register(carried(whole, moved), part, matcher)
    distance, turn = off(found.target_from_source, np.linalg.inv(moved))
    assert distance < 0.1
    assert turn < 0.3


def test_the_same_clouds_give_the_same_answer(matcher) -> None:
    answers = [register(street(1, 0), street(1, 1), matcher).target_from_source for _ in range(2)]
    np.testing.assert_array_equal(*answers)


def test_a_fitted_move_lifted_to_space_is_the_move() -> None:
    random = np.random.default_rng(0)
    grounds = [Ground(move(tilt=angle, towards=50, shift=(0, 0, 1)), 60.0, 1.0) for angle in (4, 9)]
    planar = move(yaw=35, shift=(6, -2, 0))
    level = random.uniform(-30, 30, (40, 2))
    fit = fit_moves(level, level @ planar[:2, :2].T + planar[:2, 3], within=0.5)[0]
    lifted = lift(fit.target_from_source, *grounds)
    expected = np.linalg.inv(grounds[1].level_from_cloud) @ planar @ grounds[0].level_from_cloud
    np.testing.assert_allclose(lifted, expected, atol=1e-9)


def test_agreement_of_a_scene_with_itself_and_with_a_shifted_one() -> None:
    points = street(1, 0).points
    shifted = move(shift=(9.0, 4.0, 0))
    same, other = (
        measure_agreement(points, points, moved, cell=0.5, clearance=0.4) for moved in (np.eye(4), shifted)
    )
    assert (same.overlap, same.consistent) == (1.0, 1.0)
    assert other.overlap < 0.5
    assert other.consistent < 0.7


@pytest.mark.parametrize("degrees", [0, 30, 90, 211])
def test_pixels_come_back_from_a_turned_picture(degrees: int) -> None:
    picture = np.zeros((60, 90, 3), np.uint8)
    picture[12, 70] = 255
    turned, back = turn_picture(picture, degrees)
    row, column = np.unravel_index(turned[..., 0].argmax(), turned.shape[:2])
    assert back[:, :2] @ [column, row] + back[:, 2] == pytest.approx([70, 12], abs=0.8)


def test_the_verb_writes_the_answer_and_pictures_or_the_refusal(tmp_path: Path) -> None:
    for name, cloud in (("a", street(1, 0)), ("b", street(1, 1)), ("c", street(9, 0))):
        write_cloud(tmp_path / f"{name}.ply", cloud)
    done = gim_sfm.register_clouds(tmp_path / "a.ply", tmp_path / "b.ply", output=tmp_path / "out")
    answer: Any = json.loads((tmp_path / "out" / "registration.json").read_text())
    np.testing.assert_allclose(answer["target_from_source"], np.eye(4), atol=0.1)
    assert answer["overlap"] > 0.9
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "matches.png",
        "overlay_before.png",
        "overlay_after.png",
    }
    assert "consistent" in str(done)
    with pytest.raises(RegistrationError):
        gim_sfm.register_clouds(tmp_path / "a.ply", tmp_path / "c.ply", output=tmp_path / "out2")
    answer = json.loads((tmp_path / "out2" / "registration.json").read_text())
    assert "target_from_source" not in answer
    assert "refused" in answer


@pytest.mark.parametrize("folder", ["kitti08_loop", "kitti00"])
def test_real_scans(shared_data: Path, matcher, folder: str) -> None:
    from gim_sfm.bev.cloud_formats import load_cloud

    scans = shared_data / "lidar" / folder
    for pair in json.loads((scans / "ground_truth.json").read_text())["pairs"]:
        clouds = (load_cloud(scans / pair["source"]), load_cloud(scans / pair["target"]))
        if pair["target_from_source"] is None:
            with pytest.raises(RegistrationError):
                register(*clouds, matcher)
            continue
        found = register(*clouds, matcher)
        distance, turn = off(found.target_from_source, np.array(pair["target_from_source"]))
        assert distance < 0.1
        assert turn < 0.3
