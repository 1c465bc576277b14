"""Top views: values, places, moves, and files."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cloud_kit import carried, move, yard
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm.bev import topview
from gim_sfm.bev.cloud_formats import write_cloud
from gim_sfm.bev.ground import Ground, find_ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.projection import project_cloud
from gim_sfm.bev.topview import Grid, choose_grid, project, round_length
from gim_sfm.errors import InputError, OutputError

FLAT = Ground(np.eye(4), 60.0, 1.0)


def test_values_of_a_cell() -> None:
    points = np.array([[0.1, 0.1, 0.0], [0.4, 0.2, 2.0], [0.3, 0.3, 5.0], [1.2, 0.9, -0.1]], np.float32)
    cloud = PointCloud(points, intensity=np.array([1, 2, 6, 4], np.float32))
    view = project(cloud, FLAT, Grid(0.5, (0, 1), (3, 2)))
    np.testing.assert_array_equal(view.seen, [[0, 0, 1], [3, 0, 0]])
    np.testing.assert_array_equal(view.channels["density"], [[0, 0, 0], [2, 0, 0]])
    np.testing.assert_array_equal(view.channels["max_height"], [[0, 0, 0], [5, 0, 0]])
    np.testing.assert_array_equal(view.channels["height_range"], [[0, 0, 0], [5, 0, 0]])
    np.testing.assert_array_equal(view.channels["intensity"], [[0, 0, 4], [3, 0, 0]])


def test_places_of_pixels() -> None:
    grid = Grid(0.5, (-4, 7), (10, 8))
    assert grid.origin == (-1.75, 3.75)
    np.testing.assert_allclose(grid.to_level(np.array([[0.0, 0], [2, 4]])), [[-1.75, 3.75], [-0.75, 1.75]])


def test_a_point_lands_on_the_pixel_of_its_place() -> None:
    random = np.random.default_rng(0)
    grid = Grid(0.4, (-20, 15), (40, 30))
    for x, y in random.uniform(-5, 5, (20, 2)):
        view = project(PointCloud(np.array([[x, y, 1.0]], np.float32)), FLAT, grid)
        ((row, column),) = np.argwhere(view.seen)
        place = grid.to_level(np.array([[column, row]], np.float64))[0]
        assert np.abs(place - (x, y)).max() <= 0.2 + 1e-5


@settings(max_examples=20, deadline=None)
@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 3))
def test_the_view_of_a_moved_cloud_is_the_moved_view(columns: int, rows: int, quarters: int) -> None:
    """Exactly, for whole cells and quarter turns; the points lie off the edges of cells."""
    random = np.random.default_rng(1)
    places = (random.integers(-40, 40, (500, 2)) + random.uniform(0.2, 0.8, (500, 2))) * 0.5
    cloud = PointCloud(np.column_stack([places, random.uniform(0, 5, 500)]).astype(np.float32))
    moved = carried(cloud, move(yaw=90.0 * quarters, shift=(0.5 * columns, 0.5 * rows, 0)))
    square = Grid(0.5, (-40, 39), (80, 80))
    before = project(cloud, FLAT, square)
    after = project(moved, FLAT, Grid(0.5, (-40 + columns, 39 + rows), (80, 80)))
    for name, plane in before.channels.items():
        np.testing.assert_array_equal(np.rot90(plane, quarters), after.channels[name])


def test_parts_of_a_cloud_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = yard(np.random.default_rng(2), points=5000)
    grid = choose_grid(cloud, FLAT, cell=0.5)
    whole = project(cloud, FLAT, grid)
    monkeypatch.setattr(topview, "POINTS_AT_ONCE", 617)
    parts = project(cloud, FLAT, grid)
    for name, plane in whole.channels.items():
        np.testing.assert_allclose(plane, parts.channels[name], rtol=1e-6)


def test_the_grid_goes_with_the_scene_and_is_not_blown_up_by_its_outskirts() -> None:
    random = np.random.default_rng(3)
    cloud = yard(random)
    far = np.concatenate([cloud.coordinates, random.uniform(-500, 500, (30, 3))])
    grid = choose_grid(PointCloud.of(far), find_ground(cloud))
    assert 0.1 <= grid.cell <= 0.2
    assert all(200 < side < 900 for side in grid.size)


def test_too_many_cells_are_refused() -> None:
    with pytest.raises(InputError, match="larger cells"):
        choose_grid(yard(np.random.default_rng(4)), FLAT, cell=0.001)


@pytest.mark.parametrize(
    ("length", "rounded"), [(0.179, 0.2), (0.24, 0.25), (7.4, 8.0), (0.0096, 0.01), (1.0, 1.0)]
)
def test_round_lengths(length: float, rounded: float) -> None:
    assert round_length(length) == pytest.approx(rounded)


def test_project_writes_pictures_and_what_they_mean(tmp_path: Path) -> None:
    cloud = yard(np.random.default_rng(5)).moved(move(yaw=20, tilt=8))
    write_cloud(tmp_path / "scan.ply", cloud)
    told = str(project_cloud(tmp_path / "scan.ply", tmp_path / "out", cell=0.25))
    view = json.loads((tmp_path / "out" / "view.json").read_text())
    assert view["cell"] == 0.25
    assert f"{view['size'][0]} x {view['size'][1]} cells" in told
    heights = cv2.imread(str(tmp_path / "out" / "max_height_16.png"), cv2.IMREAD_UNCHANGED)
    assert heights.dtype == np.uint16
    assert heights.shape == (view["size"][1], view["size"][0])
    assert heights.max() * view["value_of_a_grey_level_16"]["max_height"] == pytest.approx(6.0, abs=0.2)
    density = cv2.imread(str(tmp_path / "out" / "density_16.png"), cv2.IMREAD_UNCHANGED)
    assert view["value_of_a_grey_level_16"]["density"] == 1.0
    assert density.sum() > 15_000
    shown = cv2.imread(str(tmp_path / "out" / "density.png"), cv2.IMREAD_UNCHANGED)
    assert shown.dtype == np.uint8
    assert shown.max() == 255
    assert len(list((tmp_path / "out").glob("*.png"))) == 8
    level = np.array(view["level_from_cloud"])
    assert (level @ move(yaw=20, tilt=8))[2] == pytest.approx([0, 0, 1, 0], abs=0.05)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_cloud(tmp_path / "scan.ply", yard(np.random.default_rng(6), points=4000))
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        project_cloud(tmp_path / "scan.ply", tmp_path / "out")


def test_real_scans_are_level(shared_data: Path, tmp_path: Path) -> None:
    told = project_cloud(shared_data / "lidar" / "kitti08_loop" / "000720.bin", tmp_path)
    assert told.view.level_from_cloud[2, 3] == pytest.approx(1.73, abs=0.15)
    assert told.view.grid.cell == pytest.approx(0.25, abs=0.06)
