from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gim_sfm.bev.cleaning import clean, find_strays
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError


def scan(rng: np.random.Generator, points: int = 5000, reach: float = 10.0) -> np.ndarray:
    """As a scanner sees a street: ranges with a long tail, the ground, some height."""
    angle, away = rng.uniform(0, 2 * np.pi, points), rng.exponential(reach, points)
    return np.stack([away * np.cos(angle), away * np.sin(angle), rng.uniform(-2, 5, points)], axis=1)


def poses() -> st.SearchStrategy[np.ndarray]:
    def pose(seed: int, far: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.random(rng=rng).as_matrix()
        matrix[:3, 3] = rng.uniform(-far, far, 3)
        return matrix

    return st.builds(pose, st.integers(0, 2**31), st.sampled_from([1.0, 100.0, 5e6]))


def test_scans_keep_their_frame_and_survey_coordinates_their_millimetres() -> None:
    rng = np.random.default_rng(0)
    near = rng.normal(0, 50, (2000, 3))
    assert not PointCloud.of(near).origin.any()
    survey = near * 100 + [5_123_456.789, 4_987_654.321, 300]
    cloud = PointCloud.of(survey)
    assert cloud.points.dtype == np.float32
    assert (cloud.origin % 1000 == 0).all()
    assert np.abs(cloud.coordinates - survey).max() < 1e-3


def test_points_not_finite_do_not_hide_where_the_others_are() -> None:
    coordinates = np.full((300_000, 3), np.nan)
    coordinates[7::3] = [4e6, 5e6, 0]
    assert PointCloud.of(coordinates).origin.tolist() == [4e6, 5e6, 0]
    coordinates[:] = np.nan
    coordinates[200_001] = [4e6, 5e6, 0]
    assert PointCloud.of(coordinates).origin.tolist() == [4e6, 5e6, 0]


@pytest.mark.parametrize("values", [np.empty((0, 3)), np.full((5, 3), np.nan), np.full((5, 3), 1e300)])
def test_hopeless_coordinates_make_a_cloud_without_a_warning(values: np.ndarray) -> None:
    assert len(PointCloud.of(values)) == len(values)


def test_select_takes_masks_and_indices_and_keeps_what_belongs_together() -> None:
    cloud = PointCloud.of(np.arange(12.0).reshape(4, 3), np.arange(4.0))
    assert cloud.select(np.array([3, 0])).intensity.tolist() == [3, 0]
    assert cloud.select(cloud.intensity > 1).points[:, 0].tolist() == [6, 9]
    assert PointCloud.of(cloud.points).select(np.array([1])).intensity.shape == (0,)


@settings(max_examples=25, deadline=None)
@given(poses(), poses())
def test_moves_compose_and_undo_each_other(first: np.ndarray, second: np.ndarray) -> None:
    cloud = PointCloud.of(
        np.random.default_rng(1).normal(0, 30, (50, 3)) + np.array([3e5, 0, 0]), np.arange(50)
    )
    twice, once = cloud.moved(first).moved(second), cloud.moved(second @ first)
    assert np.abs(twice.coordinates - once.coordinates).max() < 1e-4
    assert np.abs(cloud.moved(first).moved(np.linalg.inv(first)).coordinates - cloud.coordinates).max() < 1e-4
    assert np.array_equal(twice.intensity, cloud.intensity)


def test_a_move_is_the_matrix_applied_to_the_coordinates() -> None:
    cloud = PointCloud.of(np.random.default_rng(2).normal(0, 30, (50, 3)) + np.array([3e5, 4e6, 0]))
    target_from_source = np.eye(4)
    target_from_source[:3] = np.c_[2.5 * Rotation.from_euler("z", 70, degrees=True).as_matrix(), [1, -2e6, 3]]
    expected = cloud.coordinates @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    assert np.abs(cloud.moved(target_from_source).coordinates - expected).max() < 1e-3


def test_blanks_dropouts_and_strays_go_and_are_counted() -> None:
    rng = np.random.default_rng(3)
    good = scan(rng)
    bad = [[np.nan, 1, 2], [np.inf, 0, 0], [1, -np.inf, np.inf], *([[0, 0, 0]] * 7)]
    strays = [*rng.uniform(-1e5, 1e5, (20, 3)), *([[-9999, -9999, -9999]] * 300), [3e38, 3e38, -3e38]]
    dirty = np.concatenate([good, bad, strays])[rng.permutation(5331)]
    intensity = np.ones(len(dirty))
    intensity[np.flatnonzero(np.abs(dirty).max(axis=1) < 30)[:2]] = np.nan
    cleaned, cleaning = clean(PointCloud.of(dirty, intensity))
    assert (cleaning.read, cleaning.not_finite, cleaning.dropouts, cleaning.strays) == (5331, 3, 7, 321)
    assert cleaning.blank_intensities in (1, 2)
    assert len(cleaned) == cleaning.kept == len(good) == len(cleaned.intensity)
    assert "5000 of 5331" in str(cleaning)
    assert np.isfinite(cleaned.intensity).all()
    assert np.abs(cleaned.points).max() < 200


def test_a_single_point_at_zero_and_equal_points_stay() -> None:
    coordinates = np.concatenate([scan(np.random.default_rng(4), 200)] * 2 + [np.zeros((1, 3))])
    assert len(clean(PointCloud.of(coordinates))[0]) == 401


def test_missing_returns_are_found_beside_an_origin() -> None:
    survey = scan(np.random.default_rng(5)) + np.array([400_000, 5_000_000, 200])
    cleaning = clean(PointCloud.of(np.concatenate([survey, np.zeros((9, 3))])))[1]
    assert (cleaning.dropouts, cleaning.strays) == (9, 0)


def corridor(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform([0, -3, 0], [2000, 3, 4], (20_000, 3))


def corridor_with_a_long_stop(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([scan(rng, 50_000), rng.uniform([0, -3, 0], [2000, 3, 4], (1500, 3))])


def two_places(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([scan(rng, 30_000), scan(rng, 400) + np.array([3000, 0, 40])])


def sparse_survey(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform([0, 0, 0], [10_000, 8000, 300], (3000, 3)) + np.array([400_000, 5e6, 0])


def far_returns(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate([scan(rng, 5000), [[120, 0, 1], [-90, 60, 2], [0, -115, 20]]])


def model_of_an_object(rng: np.random.Generator) -> np.ndarray:
    return np.concatenate(
        [rng.normal(0, 0.01, (3000, 3)), rng.normal(0, 0.05, (200, 3)) + np.array([0, 0, 2])]
    )


@pytest.mark.parametrize(
    "draw",
    [corridor, corridor_with_a_long_stop, two_places, sparse_survey, far_returns, model_of_an_object],
)
def test_nothing_real_is_taken_for_astray(draw: object) -> None:
    points = draw(np.random.default_rng(6))  # type: ignore[operator]
    assert not find_strays(PointCloud.of(points).points).any()
    assert not find_strays(PointCloud.of(points).points * np.float32(0.001)).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.floats(2e3, 1e7), st.sampled_from([1e-3, 1.0, 30.0]))
def test_strays_are_found_at_any_scale(seed: int, count: int, far: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(count, 3))
    strays = far * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    points = (np.concatenate([strays, scan(rng)]) * scale).astype(np.float32)
    found = find_strays(points)
    assert found[:count].all()
    assert not found[count:].any()


def test_few_strays_far_apart_all_go() -> None:
    rng = np.random.default_rng(7)
    points = np.concatenate([scan(rng), rng.uniform(-1e5, 1e5, (40, 3))]).astype(np.float32)
    assert find_strays(points).sum() == 40


@pytest.mark.parametrize(
    ("coordinates", "reason"),
    [
        (np.full((500, 3), np.nan), "too few"),
        (np.zeros((500, 3)), "too few"),
        (np.random.default_rng(0).normal(size=(99, 3)), "too few"),
        (np.ones((500, 3)), "equal"),
        (np.linspace(-70, 90, 500)[:, None] * [[1.0, 0.3, -0.2]], "one line"),
        (np.empty((0, 3)), "too few"),
    ],
)
def test_clouds_without_extent_are_refused(coordinates: np.ndarray, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        clean(PointCloud.of(coordinates), name="scan.ply")
    assert "scan.ply" in caught.value.message
    assert caught.value.remedy


def test_a_plane_is_no_line() -> None:
    flat = np.random.default_rng(8).uniform([0, 0, 0], [50, 50, 0], (500, 3))
    assert len(clean(PointCloud.of(flat))[0]) == 500


@pytest.mark.data
def test_real_scans_lose_nothing(shared_data: Path) -> None:
    for scan_path in sorted((shared_data / "lidar").glob("*/000[01]*.bin"))[::6]:
        read = np.fromfile(scan_path, np.float32).reshape(-1, 4)
        cloud = load_cloud(scan_path)
        assert np.array_equal(cloud.points, read[:, :3])
        assert np.array_equal(cloud.intensity, read[:, 3])
        assert not cloud.origin.any()
