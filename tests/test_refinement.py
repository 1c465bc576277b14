from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from gim_sfm.matchers.frame import Frame
from gim_sfm.sfm.refinement import View, align_patches, read_view, refine_keypoints

SIZE = (320, 240)


def texture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(size[1], size[0]))
    blurred = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (1.5, 3, 6))
    return np.clip(128 + 45 * blurred / blurred.std(), 0, 255).astype(np.uint8)


def grid_of(size: tuple[int, int], step: int, margin: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(margin, size[0] - margin, step), np.arange(margin, size[1] - margin, step))
    return np.stack([x, y], axis=-1).reshape(-1, 2).astype(np.float64)


def test_patches_are_found_to_a_fraction_of_a_pixel_in_another_light() -> None:
    reference = texture(0)
    warp = np.array([[1.1, 0.15, -9.7], [-0.1, 0.95, 14.3]])
    other = cv2.warpAffine(reference, warp, SIZE, flags=cv2.INTER_CUBIC)
    other = np.clip(0.6 * other.astype(np.float64) + 30, 0, 255).astype(np.uint8)
    centres = grid_of(SIZE, 20, 50)
    truth = centres @ warp[:, :2].T + warp[:, 2]
    starts = truth + np.random.default_rng(1).uniform(-1.2, 1.2, truth.shape)
    warps = np.broadcast_to(warp[:, :2], (len(centres), 2, 2))
    aligned = align_patches(reference, other, centres, starts, warps)
    errors = np.linalg.norm(aligned.positions - truth, axis=1)[aligned.found]
    assert aligned.found.mean() > 0.95
    assert np.median(errors) < 0.03
    assert np.quantile(errors, 0.95) < 0.1


def test_patches_that_are_not_there_are_not_found() -> None:
    centres = grid_of(SIZE, 20, 40)
    warps = np.broadcast_to(np.eye(2), (len(centres), 2, 2))
    assert align_patches(texture(0), texture(1), centres, centres, warps).found.mean() < 0.06
    assert not align_patches(
        texture(0), np.full((240, 320), 90, np.uint8), centres, centres, warps
    ).found.any()


@pytest.mark.parametrize("corner", [(0, 0), (319, 239), (3, 120)])
def test_patches_beyond_the_border_are_not_found(corner: tuple[int, int]) -> None:
    place = np.array([corner], np.float64)
    assert not align_patches(texture(0), texture(0), place, place, np.eye(2)[None]).found.any()


def test_patches_seen_at_another_size_by_far_are_not_trusted() -> None:
    place = np.array([[160.0, 120.0]])
    assert align_patches(texture(0), texture(0), place, place, np.eye(2)[None]).found.all()
    assert not align_patches(texture(0), texture(0), place, place, 0.1 * np.eye(2)[None]).found.any()


def plane_model(noise: float) -> tuple[pycolmap.Reconstruction, dict[str, View], dict[str, np.ndarray]]:
    """Three photos of a textured plane, compared at half their size, with noisy keypoints."""
    generator = np.random.default_rng(3)
    board = texture(2, (640, 480))
    board_from_plane = np.array([[100.0, 0, 320], [0, 100, 240], [0, 0, 1]])
    places = grid_of((640, 480), 40, 160) * 0.01 - [3.2, 2.4]
    points = np.column_stack([places, np.zeros(len(places))])
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=640, height=480, params=[800, 320, 240, 0.0], camera_id=1
    )
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(camera)
    views, truth = {}, {}
    for number, yaw in enumerate((-20, 0, 20), 1):
        rotation = Rotation.from_euler("y", yaw, degrees=True).as_matrix()
        pose = np.column_stack([rotation, [0, 0, 6.0]])
        seen = points @ rotation.T + [0, 0, 6]
        truth[f"{number}.jpg"] = 800 * seen[:, :2] / seen[:, 2:] + [319.5, 239.5]
        file_from_plane = np.array([[800, 0, 319.5], [0, 800, 239.5], [0, 0, 1]]) @ pose[:, [0, 1, 3]]
        half = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
        pixels = cv2.warpPerspective(board, half @ file_from_plane @ np.linalg.inv(board_from_plane), SIZE)
        views[f"{number}.jpg"] = View(pixels, Frame((0.5, 0.5), SIZE, (640, 480)))
        image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
        shifted = truth[f"{number}.jpg"] + generator.normal(size=(len(points), 2)) * noise + 0.5
        image.points2D = [pycolmap.Point2D(place) for place in shifted]
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    for row, xyz in enumerate(points):
        model.add_point3D(xyz, pycolmap.Track([pycolmap.TrackElement(number, row) for number in (1, 2, 3)]))
    return model, views, truth


def keypoints(model: pycolmap.Reconstruction, name: str) -> np.ndarray:
    image = model.find_image_with_name(name)
    assert image is not None
    return np.array([point.xy for point in image.points2D]) - 0.5


def spread(model: pycolmap.Reconstruction, truth: dict[str, np.ndarray]) -> np.ndarray:
    """How far the offsets of a track's keypoints differ from that of its reference (the middle photo)."""
    offsets = {name: keypoints(model, name) - places for name, places in truth.items()}
    return np.linalg.norm([offsets[name] - offsets["2.jpg"] for name in ("1.jpg", "3.jpg")], axis=-1)


def test_the_tracks_of_a_model_are_laid_over_each_other() -> None:
    model, views, truth = plane_model(noise=0.6)
    before = spread(model, truth)
    done = refine_keypoints(model, views.__getitem__)
    after = spread(model, truth)
    assert np.median(before) > 0.7
    assert np.median(after) < 0.15
    assert done.compared == 2 * model.num_points3D()
    assert done.moved > 0.9 * done.compared
    assert 0.4 < done.shift < 1.5
    assert model.num_points3D() == 32


def test_observations_that_show_something_else_leave_their_point() -> None:
    model, views, _ = plane_model(noise=0.1)
    views["3.jpg"] = View(texture(9), views["3.jpg"].frame)
    done = refine_keypoints(model, views.__getitem__)
    third, first = model.find_image_with_name("3.jpg"), model.find_image_with_name("1.jpg")
    assert third is not None and first is not None
    assert done.moved < 0.6 * done.compared
    assert third.num_points3D < 0.2 * 32
    assert first.num_points3D > 0.9 * 32


def test_a_model_without_points_is_left_as_it_is() -> None:
    done = refine_keypoints(pycolmap.Reconstruction(), {}.__getitem__)
    assert (done.compared, done.moved, done.shift) == (0, 0, 0.0)


def test_views_are_never_larger_than_their_file(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), texture(0))
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(texture(0), (3200, 2400)))
    assert read_view(tmp_path / "small.png").pixels.shape == (240, 320)
    large = read_view(tmp_path / "large.png")
    assert large.pixels.shape == (1200, 1600)
    assert large.frame.scale == (0.5, 0.5)
