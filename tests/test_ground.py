"""The ground: found under tilt, clutter, roofs and at any scale; refused where there is none."""

import numpy as np
import pytest
from cloud_kit import carried, move, yard
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.bev.ground import find_ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError


def off(cloud_from_level: np.ndarray, level_from_cloud: np.ndarray) -> tuple[float, float]:
    """Degrees of tilt, and height, that a levelling leaves."""
    left = level_from_cloud @ cloud_from_level
    return float(np.degrees(np.arccos(min(1.0, left[2, 2])))), abs(float(left[2, 3]))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.floats(-180, 180), st.floats(0, 20), st.floats(0, 360))
def test_any_tilt_of_a_sensor_is_undone(seed: int, yaw: float, tilt: float, towards: float) -> None:
    moved = move(yaw, tilt, towards, (5, -3, -1.8))
    cloud = carried(yard(np.random.default_rng(seed)), moved)
    ground = find_ground(cloud)
    tilted, height = off(moved, ground.level_from_cloud)
    assert tilted < 0.2
    assert height < 0.05
    assert ground.agreeing > 0.5


@pytest.mark.parametrize("scale", [0.01, 1.0, 50.0])
def test_scale_does_not_matter(scale: float) -> None:
    cloud = yard(np.random.default_rng(0))
    tilted = move(tilt=10)
    scaled = np.diag([scale, scale, scale, 1]) @ tilted
    level = find_ground(carried(cloud, scaled)).level_from_cloud
    assert level[:3, :3] @ tilted[:3, :3] @ [0, 0, 1] == pytest.approx([0, 0, 1], abs=0.01)


def test_the_floor_of_a_hall_is_found_and_not_its_roof() -> None:
    moved = move(tilt=6, towards=30, shift=(0, 0, -1.2))
    cloud = carried(yard(np.random.default_rng(1), size=20, roof=7.0), moved)
    tilted, height = off(moved, find_ground(cloud).level_from_cloud)
    assert tilted < 0.3
    assert height < 0.05


def test_points_under_a_ceiling_are_told_from_it() -> None:
    cloud = yard(np.random.default_rng(1), size=20, roof=7.0)
    assert find_ground(cloud).ceiling == pytest.approx(7.0, abs=0.2)
    assert find_ground(yard(np.random.default_rng(1), size=20)).ceiling == np.inf


def test_a_roof_seen_from_above_is_no_ceiling() -> None:
    random = np.random.default_rng(2)
    ground = np.column_stack([random.uniform(-50, 50, (60_000, 2)), random.normal(0, 0.02, 60_000)])
    under = np.abs(ground[:, :2]).max(axis=1) < 30
    ground[under, 2] += 11.0
    assert find_ground(PointCloud.of(ground)).ceiling == np.inf


def test_reflections_below_the_floor_do_not_count() -> None:
    random = np.random.default_rng(2)
    cloud = yard(random)
    below = np.column_stack([random.uniform(-30, 30, (1500, 2)), random.uniform(-5, -1, 1500)])
    both = PointCloud.of(np.concatenate([cloud.coordinates, below]))
    tilted, height = off(np.eye(4), find_ground(both).level_from_cloud)
    assert tilted < 0.3
    assert height < 0.05


def test_the_same_ground_is_found_again() -> None:
    cloud = yard(np.random.default_rng(3))
    first, second = find_ground(cloud), find_ground(cloud)
    np.testing.assert_array_equal(first.level_from_cloud, second.level_from_cloud)


def test_a_ball_has_no_ground() -> None:
    directions = np.random.default_rng(4).normal(size=(20_000, 3))
    ball = 10 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    with pytest.raises(InputError, match="No ground was found"):
        find_ground(PointCloud.of(ball))


def test_a_wall_seen_from_above_has_no_ground() -> None:
    random = np.random.default_rng(5)
    wall = np.column_stack([np.zeros(5000), np.zeros(5000), random.uniform(0, 5, 5000)])
    with pytest.raises(InputError, match="vertical line"):
        find_ground(PointCloud.of(wall))
