"""The drawn world's pictures, depths and truth files agree with one another."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gim_sfm.drawn_world import DrawnWorld, draw_world
from gim_sfm.drawn_world.cameras import DrawnCamera, central_camera, look_at, orbit
from gim_sfm.drawn_world.rendering import camera_rays, cast
from gim_sfm.drawn_world.scene import courtyard
from gim_sfm.drawn_world.surfaces import Cylinder, Rectangle, Sphere, Surface
from gim_sfm.geometry import camera_centres, read_ground_truth

SIZE = (240, 160)
GREY = np.full((8, 8, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def world() -> DrawnWorld:
    return draw_world(4, SIZE, arc_degrees=50, distortion=(-0.08, 0.02), principal_offset=(6.0, -4.0))


def seen_again(
    world: DrawnWorld, first: str, second: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of one photo, where they land in another, and their depth there: as computed, and as drawn."""
    a, b = world.photos[first], world.photos[second]
    width, height = a.camera.size
    rays = a.camera.rays()
    depth = world.depth(first).astype(np.float64)
    keep = np.isfinite(depth)
    in_a = np.concatenate([rays, np.ones((height, width, 1))], -1)[keep] * depth[keep][:, None]
    in_world = (in_a - a.cam_from_world[:, 3]) @ a.cam_from_world[:, :3]
    in_b = in_world @ b.cam_from_world[:, :3].T + b.cam_from_world[:, 3]
    landed = b.camera.project(in_b)
    nearest = np.round(landed).astype(int)
    inside = (in_b[:, 2] > 0.1) & (nearest >= 0).all(1) & (nearest < b.camera.size).all(1)
    here = np.argwhere(keep)[inside][:, ::-1]
    x, y = nearest[inside].T
    return here, nearest[inside], in_b[inside, 2], world.depth(second)[y, x]


def test_neighbours_see_the_same_places(world: DrawnWorld) -> None:
    here, there, computed, drawn = seen_again(world, "view_01.jpg", "view_02.jpg")
    visible = np.abs(computed - drawn) < 0.03 * computed
    assert len(here) > 0.5 * SIZE[0] * SIZE[1]
    assert 0.5 < visible.mean() < 0.97  # the rest is hidden behind something
    assert (drawn[~visible] < computed[~visible]).mean() > 0.8
    first, second = (world.images[name].astype(float).mean(-1) for name in ("view_01.jpg", "view_02.jpg"))
    colours = [first[here[:, 1], here[:, 0]], second[there[:, 1], there[:, 0]]]
    assert np.corrcoef(colours[0][visible], colours[1][visible])[0, 1] > 0.7
    assert np.corrcoef(colours[0][visible], np.roll(colours[1][visible], 7))[0, 1] < 0.6


def test_first_and_last_still_overlap(world: DrawnWorld) -> None:
    here, _, computed, drawn = seen_again(world, "view_00.jpg", "view_03.jpg")
    visible = np.abs(computed - drawn) < 0.03 * computed
    assert visible.sum() > 0.1 * SIZE[0] * SIZE[1]
    assert len(here) > 0


def test_photos_are_rich_and_well_exposed(world: DrawnWorld) -> None:
    for pixels in world.images.values():
        assert pixels.shape == (SIZE[1], SIZE[0], 3)
        assert pixels.dtype == np.uint8
        assert 50 < pixels.mean() < 190
        assert pixels.std() > 30
        assert (pixels == 255).mean() < 0.05


def test_written_truth_reads_back(world: DrawnWorld, tmp_path: Path) -> None:
    truth = read_ground_truth(world.write(tmp_path / "photos"))
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == sorted(world.photos)
    for name, photo in world.photos.items():
        assert truth.sizes[name] == photo.camera.size
        np.testing.assert_allclose(truth.intrinsics[name], photo.camera.intrinsics)
        np.testing.assert_allclose(truth.cam_from_world[name], photo.cam_from_world)
        with Image.open(tmp_path / "photos" / name) as stored:
            assert stored.size == photo.camera.size
            assert np.abs(np.asarray(stored, float) - photo.pixels).mean() < 6
            focal = stored.getexif().get_ifd(0x8769)[0xA405] / 36 * max(stored.size)
        assert focal == pytest.approx(photo.camera.focal, rel=0.02)
    entry = json.loads((tmp_path / "ground_truth.json").read_text())["images"]["view_00.jpg"]
    assert entry["distortion"] == [-0.08, 0.02]


def test_without_exif(tmp_path: Path) -> None:
    draw_world(1, (60, 40)).write(tmp_path / "photos", exif=False)
    with Image.open(tmp_path / "photos" / "view_00.jpg") as stored:
        assert not stored.getexif()


def test_several_cameras_and_movers() -> None:
    world = draw_world(4, (120, 80), n_cameras=4, n_movers=3, exposure_stops=0.0, noise=0.0)
    assert {camera.size for camera in world.cameras.values()} == {(120, 80), (96, 64), (80, 120), (64, 96)}
    still = draw_world(4, (120, 80), n_cameras=4, exposure_stops=0.0, noise=0.0)
    for name, photo in world.photos.items():
        assert photo.movers
        changed = (photo.pixels != still.images[name]).any(-1).mean()
        assert changed < 0.5
    assert any((world.images[name] != still.images[name]).any() for name in world.photos)


def test_full_circle_has_no_double_photo() -> None:
    centres = camera_centres(np.stack(orbit(8, np.random.default_rng(0), arc_degrees=360)))
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 100 * np.eye(8)
    assert gaps.min() > 3


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(8, 90),
    height=st.integers(8, 90),
    k1=st.floats(-0.12, 0.15),
    k2=st.floats(-0.02, 0.05),
    offset=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
)
def test_rays_and_project_are_inverse(
    width: int, height: int, k1: float, k2: float, offset: tuple[float, float]
) -> None:
    camera = central_camera((width, height), principal_offset=offset, distortion=(k1, k2))
    rays = camera.rays().astype(np.float64)
    pixels = camera.project(np.concatenate([rays, np.ones((height, width, 1))], -1))
    expected = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    np.testing.assert_allclose(pixels, expected, atol=2e-3)


def test_supersampled_rays_surround_the_pixel_centre() -> None:
    camera = DrawnCamera((6, 4), 10.0, (2.5, 1.5))
    fine = camera.rays(2)
    assert fine.shape == (8, 12, 2)
    np.testing.assert_allclose(fine.reshape(4, 2, 6, 2, 2).mean((1, 3)), camera.rays(), atol=1e-6)


LEVEL = look_at(np.array([0.0, -5.0, 0.0]), np.zeros(3))


@pytest.mark.parametrize(
    ("surface", "depth", "uv"),
    [
        (Sphere(np.zeros(3), 1.5, GREY), 3.5, (0.75, 0.5)),
        (Cylinder(np.array([0.0, 0.0, -1.0]), 2.0, 4.0, GREY), 3.0, (0.75, 0.75)),
        (
            Rectangle(np.array([-1.0, 0.5, 3.0]), np.array([4.0, 0, 0]), np.array([0, 0, -4.0]), GREY),
            5.5,
            (0.25, 0.75),
        ),
    ],
)
def test_central_ray_meets_each_shape(surface: Surface, depth: float, uv: tuple[float, float]) -> None:
    camera = DrawnCamera((3, 3), 1000.0, (1.0, 1.0))
    everywhere = [(slice(None), slice(None))]
    hits = cast([surface], camera_rays(camera), (3, 3), LEVEL, everywhere)
    assert hits.distance[1, 1] == pytest.approx(depth, abs=1e-4)
    assert (hits.u[1, 1], hits.v[1, 1]) == pytest.approx(uv, abs=1e-3)
    normal = surface.normals(hits.u[1, 1:2], hits.v[1, 1:2])[0]
    np.testing.assert_allclose(normal, (0, -1, 0), atol=5e-3)


def test_rectangles_are_seen_from_the_front_only() -> None:
    wall = Rectangle(np.array([-1.0, 0, 1.0]), np.array([2.0, 0, 0]), np.array([0, 0, -2.0]), GREY)
    behind = look_at(np.array([0.0, 5.0, 0.0]), np.zeros(3))
    camera = DrawnCamera((3, 3), 1000.0, (1.0, 1.0))
    assert wall.faces(np.array([0.0, -5.0, 0.0]))
    assert not wall.faces(np.array([0.0, 5.0, 0.0]))
    hits = cast([wall], camera_rays(camera), (3, 3), behind, [(slice(None), slice(None))])
    assert (hits.surface == -1).all()
    assert math.isinf(hits.distance[1, 1])


def test_same_seed_same_photos_other_seed_other_ones() -> None:
    first = draw_world(1, (120, 80), 3)
    courtyard.cache_clear()
    again, other = draw_world(1, (120, 80), 3), draw_world(1, (120, 80), 4)
    assert np.array_equal(first.images["view_00.jpg"], again.images["view_00.jpg"])
    assert not np.array_equal(first.images["view_00.jpg"], other.images["view_00.jpg"])
