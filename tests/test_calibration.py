"""Self-calibration on exact worlds: it finds what is off, leaves alone what is right or unknown."""

from dataclasses import dataclass

import numpy as np
import pycolmap
import pytest

from gim_sfm.sfm import jackknife
from gim_sfm.sfm.calibration import LOSS_SCALE, MIN_PHOTOS, Freedom, _jackknife, adjusted, calibrate

SIZE = (1024, 768)
FOCAL = 1000.0


@dataclass(frozen=True)
class World:
    """A model that took the principal point to be central, and the true poses."""

    model: pycolmap.Reconstruction
    poses: dict[int, pycolmap.Rigid3d]


def looking(position, target, roll=0.0) -> pycolmap.Rigid3d:
    """The pose of a camera at a position that looks at a target."""
    forward = np.asarray(target, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation
    return pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), -rotation @ position)


def motion(kind: str, photos: int, random: np.random.Generator) -> list[pycolmap.Rigid3d]:
    """Camera poses: all round, an arc, a straight line with one orientation, or straight ahead."""
    steps = np.linspace(-1, 1, photos)
    if kind == "round":
        spots = random.normal(size=(photos, 3)) * [4, 1.5, 1.5] + [0, 0, -9]
        return [looking(spot, random.normal(size=3) * 0.7, random.normal() * 0.5) for spot in spots]
    if kind == "arc":
        return [looking([9 * np.sin(step), 0, -9 * np.cos(step)], [0, 0, 0]) for step in steps]
    if kind == "sideways":
        return [pycolmap.Rigid3d(pycolmap.Rotation3d(), [-4 * step, 0, 9]) for step in steps]
    return [pycolmap.Rigid3d(pycolmap.Rotation3d(), [0.02 * step, 0, 9 + 4 * step]) for step in steps]


def world(
    kind="round",
    photos=10,
    shift=(0.0, 0.0),
    second_shift=None,
    noise=0.5,
    k2=0.0,
    seed=0,
    cameras=1,
    points=500,
    flat=False,
) -> World:
    """Photos of random points by cameras whose principal points are off their middle by a shift in pixels."""
    random = np.random.default_rng(seed)
    spread = [3, 2, 0.02 if flat else 2]
    xyz = random.uniform(-1, 1, (points, 3)) * spread
    poses = motion(kind, photos, random)
    true = []
    for x, y in (shift, shift if second_shift is None else second_shift):
        true.append(pycolmap.Camera.create_from_model_name(1, "RADIAL", FOCAL, *SIZE))
        true[-1].params = [FOCAL, SIZE[0] / 2 + x, SIZE[1] / 2 + y, -0.05, k2]
    model = pycolmap.Reconstruction()
    for number in range(1, cameras + 1):
        camera = pycolmap.Camera.create_from_model_name(number, "SIMPLE_RADIAL", FOCAL, *SIZE)
        camera.params = [FOCAL, SIZE[0] / 2, SIZE[1] / 2, -0.05]
        model.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in range(points)]
    for number, pose in enumerate(poses, start=1):
        camera_id = (number - 1) % cameras + 1
        pixels = true[min(camera_id, 2) - 1].img_from_cam(pose * xyz)
        seen = np.flatnonzero((np.abs(pixels / SIZE - 0.5) < 0.5).all(1) & (random.random(points) < 0.6))
        heavy = random.standard_t(4, (len(seen), 2)) / np.sqrt(2)
        image = pycolmap.Image(
            name=f"{number:03}.jpg",
            keypoints=pixels[seen] + noise * heavy,
            camera_id=camera_id,
            image_id=number,
        )
        model.add_image_with_trivial_frame(image, pose)
        for row, point in enumerate(seen):
            tracks[point].add_element(number, row)
    for place, track in zip(xyz, tracks, strict=True):
        if track.length() >= 3:
            model.add_point3D(place, track)
    return World(model, dict(enumerate(poses, start=1)))


def relative_errors(model: pycolmap.Reconstruction, poses: dict[int, pycolmap.Rigid3d]) -> np.ndarray:
    """Larger of rotation and direction error of each pair of photos, degrees."""
    errors = []
    for one in poses:
        for two in poses:
            if one < two:
                true = poses[two] * poses[one].inverse()
                found = model.images[two].cam_from_world() * model.images[one].cam_from_world().inverse()
                turn = np.degrees((true.rotation * found.rotation.inverse()).angle())
                cosine = true.translation @ found.translation
                cosine /= np.linalg.norm(true.translation) * np.linalg.norm(found.translation)
                errors.append(max(turn, np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    return np.array(errors)


def principal_point(model: pycolmap.Reconstruction, number: int = 1) -> np.ndarray:
    camera = model.cameras[number]
    return np.array([camera.principal_point_x - SIZE[0] / 2, camera.principal_point_y - SIZE[1] / 2])


@pytest.mark.parametrize(("kind", "photos"), [("round", 12), ("arc", 24)])
def test_a_shifted_principal_point_is_found_and_the_poses_with_it(kind, photos):
    made = world(kind, photos, shift=(40, -25))
    plain = np.median(relative_errors(adjusted(made.model, Freedom()), made.poses))
    done = calibrate(made.model)
    (camera,) = done.cameras
    assert camera.verdict.startswith("Freed:")
    assert np.abs(principal_point(done.model) - [40, -25]).max() < 10
    assert camera.held_out[1] < camera.held_out[0]
    assert camera.model_after == "SIMPLE_RADIAL"
    assert np.median(relative_errors(done.model, made.poses)) < 0.2 * plain


@pytest.mark.parametrize("kind", ["round", "arc", "sideways", "ahead"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_central_principal_point_is_left_alone(kind, flat):
    for photos in (5, 10):
        made = world(kind, photos, flat=flat, points=250)
        done = calibrate(made.model)
        assert done.cameras[0].verdict.startswith("Kept")
        assert principal_point(done.model).tolist() == [0, 0]
        assert done.cameras[0].model_after == "SIMPLE_RADIAL"


def test_a_shift_that_the_motion_cannot_tell_is_left_alone():
    """Sideways along a wall, a moved principal point looks like a turned camera."""
    done = calibrate(world("sideways", 12, shift=(8, -6), flat=True).model)
    assert done.cameras[0].verdict.startswith("Kept")
    assert done.cameras[0].principal_point is not None
    assert done.cameras[0].principal_point.deviation.max() > 8


def test_distortion_terms_are_added_where_they_are_needed():
    done = calibrate(world(photos=14, k2=0.1, noise=0.3, seed=1).model)
    assert done.cameras[0].model_after == "RADIAL"
    assert done.model.cameras[1].params[4] == pytest.approx(0.1, abs=0.04)


def test_given_intrinsics_and_few_photos_are_left_alone():
    made = world(photos=12, shift=(40, -25), cameras=3)
    done = calibrate(made.model, fixed=[1])
    assert done.cameras[0].verdict == "Kept: its intrinsics were given."
    assert done.model.cameras[1].params.tolist() == made.model.cameras[1].params.tolist()
    assert done.cameras[1].photos == 4 < MIN_PHOTOS
    assert "4 photos share it" in done.cameras[1].verdict
    assert principal_point(done.model, 2).tolist() == [0, 0]


def test_one_camera_is_freed_while_the_other_keeps_its_middle():
    """Camera 2 is central; only camera 1 has moved."""
    made = world(photos=20, shift=(40, -25), cameras=2, second_shift=(0, 0))
    done = calibrate(made.model)
    assert [camera.verdict.split(":")[0] for camera in done.cameras] == ["Freed", "Kept"]
    assert np.abs(principal_point(done.model, 1) - [40, -25]).max() < 6
    assert principal_point(done.model, 2).tolist() == [0, 0]


def test_the_given_model_is_not_changed_and_the_answer_repeats():
    made = world(shift=(40, -25))
    before = made.model.cameras[1].params.tolist(), made.model.num_points3D()
    first, second = calibrate(made.model), calibrate(made.model)
    assert (made.model.cameras[1].params.tolist(), made.model.num_points3D()) == before
    assert first.model.cameras[1].params.tolist() == second.model.cameras[1].params.tolist()
    assert [camera.verdict for camera in first.cameras] == [camera.verdict for camera in second.cameras]


def test_photos_without_shared_camera_cost_nothing():
    done = calibrate(world(photos=6, cameras=6).model)
    assert all("1 photos share it" in camera.verdict for camera in done.cameras)


def test_leaving_photos_out_in_one_linearisation_is_like_adjusting_again():
    made = world(photos=10, shift=(10, 5))
    fitted = adjusted(made.model, Freedom(principal_point=frozenset([1])))
    groups = [[1, 2], [5], [9, 10]]
    for group, answer in zip(groups, jackknife.leave_out(fitted, [1], groups, LOSS_SCALE), strict=True):
        rest = pycolmap.Reconstruction(fitted)
        for image_id in group:
            rest.deregister_frame(rest.images[image_id].frame_id)
        again = adjusted(rest, Freedom(principal_point=frozenset([1]))).cameras[1].params
        moved = np.abs(again - fitted.cameras[1].params)
        assert np.all(np.abs(answer[1] - again) < 0.25 * moved + [0.1, 0.1, 0.1, 1e-3])


def test_derivatives_predict_residuals():
    """A small change of camera and point moves the residuals as the linearised model says."""
    made = world(photos=5, points=40, noise=0.1)
    system = jackknife.linearise(made.model, [1])
    change = np.zeros(system.by_view.shape[1])
    change[:4] = [0.5, -0.3, 0.2, 0.001]
    moved = pycolmap.Reconstruction(made.model)
    moved.cameras[1].params = (moved.cameras[1].params + change[:4]).tolist()
    shift = np.array([1e-3, -2e-3, 1e-3])
    for number in moved.points3D:
        moved.points3D[number].xyz = moved.points3D[number].xyz + shift
    predicted = system.by_view @ change + (system.by_point @ shift).ravel()
    actual = jackknife.linearise(moved, [1]).residuals - system.residuals
    assert np.abs(predicted - actual).max() < 0.01 * np.abs(actual).max()


def test_hotelling_test_keeps_its_level():
    """Of shifts that are pure chance, as many are found convincing as the level says."""
    random = np.random.default_rng(0)
    chances = []
    for _ in range(2000):
        samples = random.normal(size=(10, 2)) @ [[1, 0.5], [0, 2]]
        left_out = (samples.sum(0) - samples) / 9
        chances.append(_jackknife(samples.mean(0), left_out).chance)
    assert np.mean(np.array(chances) < 0.05) == pytest.approx(0.05, abs=0.015)


def test_parameters_that_do_not_move_at_all_are_no_evidence():
    assert _jackknife(np.array([3.0, 3.0]), np.ones((8, 2))).chance == 1.0
    assert _jackknife(np.array([3.0, 3.0]), np.full((8, 2), np.nan)).chance == 1.0
