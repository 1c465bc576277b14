import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gim_sfm.errors import InputError
from gim_sfm.geometry import (
    Similarity,
    aligned_pose_errors,
    auc,
    camera_centres,
    compose,
    direction_angle_degrees,
    invert,
    pairwise_pose_errors,
    read_ground_truth,
    relative_pose,
    relative_pose_error,
    rotation_angle_degrees,
    umeyama,
)

seeds = st.integers(0, 2**32 - 1)
errors_lists = st.lists(st.floats(0, 180), min_size=1, max_size=40)


def random_poses(seed: int, count: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rotations = Rotation.random(count, rng=generator).as_matrix()
    return np.concatenate([rotations, generator.normal(size=(count, 3, 1))], axis=-1)


def random_similarity(seed: int) -> Similarity:
    generator = np.random.default_rng(seed)
    rotation = Rotation.random(rng=generator).as_matrix()
    return Similarity(float(np.exp(generator.normal())), rotation, generator.normal(size=3) * 10)


def named(poses: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{index:02}.jpg": pose for index, pose in enumerate(poses)}


@given(seeds, st.floats(0, 180))
def test_rotation_angle_is_the_angle_turned(seed: int, degrees: float) -> None:
    axis = np.random.default_rng(seed).normal(size=3)
    rotation = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(degrees)).as_matrix()
    assert rotation_angle_degrees(rotation) == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize("degrees", [1e-7, 180.0 - 1e-7])
def test_rotation_angle_keeps_its_digits_at_both_ends(degrees: float) -> None:
    rotation = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    assert abs(rotation_angle_degrees(rotation) - degrees) < 1e-13 * 180


def test_direction_angle_of_known_vectors() -> None:
    first = np.array([[1.0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]])
    second = np.array([[3.0, 0, 0], [0, 5, 0], [-1, 0, 0], [0, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(direction_angle_degrees(first, second), [0, 90, 180, 0, 180])


@given(seeds)
def test_relative_pose_carries_points_between_cameras(seed: int) -> None:
    first, second = random_poses(seed, 2)
    point = np.random.default_rng(seed).normal(size=3)
    second_from_first = relative_pose(first, second)
    in_first = first[:, :3] @ point + first[:, 3]
    in_second = second[:, :3] @ point + second[:, 3]
    np.testing.assert_allclose(second_from_first[:, :3] @ in_first + second_from_first[:, 3], in_second)


@given(seeds)
def test_inverse_undoes_and_centre_maps_to_zero(seed: int) -> None:
    poses = random_poses(seed, 3)
    identity = np.broadcast_to(np.eye(3, 4), poses.shape)
    np.testing.assert_allclose(compose(invert(poses), poses), identity, atol=1e-12)
    centres = camera_centres(poses)
    np.testing.assert_allclose(
        np.einsum("nij,nj->ni", poses[..., :3], centres) + poses[..., 3], 0, atol=1e-12
    )


@given(seeds, st.floats(1e-3, 179), st.floats(1e-3, 179))
def test_relative_pose_error_finds_the_disturbance(seed: int, turned: float, tilted: float) -> None:
    generator = np.random.default_rng(seed)
    truth = random_poses(seed, 1)[0]
    axis = generator.normal(size=3)
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.radians(turned)).as_matrix()
    across = np.cross(truth[:, 3], generator.normal(size=3))
    tilt = Rotation.from_rotvec(across / np.linalg.norm(across) * np.radians(tilted)).as_matrix()
    baseline = tilt @ truth[:, 3] * generator.uniform(0.1, 10)
    errors = relative_pose_error(np.column_stack([turn @ truth[:, :3], baseline]), truth)
    assert errors.rotation == pytest.approx(turned, abs=1e-6)
    assert errors.translation == pytest.approx(tilted, abs=1e-6)
    assert errors.worst == max(errors.rotation, errors.translation)


@given(seeds, st.floats(0.0, 0.3))
def test_pairwise_errors_ignore_the_choice_of_world(seed: int, noise: float) -> None:
    truth = random_poses(seed, 5)
    guess = truth + noise * np.concatenate([np.zeros((5, 3, 3)), random_poses(seed + 1, 5)[..., 3:]], axis=-1)
    moved = random_similarity(seed).move_pose(guess)
    before = pairwise_pose_errors(named(guess), named(truth))
    after = pairwise_pose_errors(named(moved), named(truth))
    np.testing.assert_allclose(after.worst, before.worst, atol=1e-5)
    swapped = pairwise_pose_errors(named(truth), named(guess))
    np.testing.assert_allclose(swapped.worst, before.worst, atol=1e-5)


def test_pairwise_errors_agree_with_one_pair_at_a_time() -> None:
    truth, guess = named(random_poses(1, 4)), named(random_poses(2, 4))
    errors = pairwise_pose_errors(guess, truth)
    assert len(errors.pairs) == 6
    for index, (a, b) in enumerate(errors.pairs):
        one = relative_pose_error(relative_pose(guess[a], guess[b]), relative_pose(truth[a], truth[b]))
        assert (errors.rotation[index], errors.translation[index]) == (one.rotation, one.translation)


def test_missing_images_fail_in_all_their_pairs() -> None:
    truth = named(random_poses(3, 4))
    guess = {name: pose for name, pose in truth.items() if name != "02.jpg"} | {"stranger.jpg": np.eye(3, 4)}
    errors = pairwise_pose_errors(guess, truth)
    lost = np.array(["02.jpg" in pair for pair in errors.pairs])
    assert np.isinf(errors.worst[lost]).all()
    assert errors.worst[~lost].max() < 1e-5
    assert auc(errors.worst, [1.0]) == pytest.approx([0.5], abs=1e-5)
    assert np.isinf(pairwise_pose_errors({}, truth).worst).all()


def test_pairs_need_two_true_poses() -> None:
    with pytest.raises(InputError, match="1 given"):
        pairwise_pose_errors({}, {"a.jpg": np.eye(3, 4)})


def test_auc_of_one_error_in_closed_form() -> None:
    # recall rises linearly to 1 at e and stays: the area is T - e / 2
    assert auc([0.5], [1, 2]) == pytest.approx([0.75, 0.875])
    assert auc([0.5, np.inf, np.nan], [1]) == pytest.approx([0.25])
    assert auc([2.0, 5.0], [1]) == [0.0]
    assert auc([0.0, 0.0], [1, 5, 20]) == [1.0, 1.0, 1.0]


def test_auc_of_many_even_errors_nears_the_integral() -> None:
    assert auc(np.linspace(0, 2, 20001), [1, 2]) == pytest.approx([0.25, 0.5], abs=1e-3)


@given(errors_lists, st.floats(0.1, 90), st.randoms())
def test_auc_is_a_share_and_knows_no_order(errors: list[float], threshold: float, random: object) -> None:
    (area,) = auc(errors, [threshold])
    assert 0.0 <= area <= 1.0
    shuffled = list(errors)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert auc(shuffled, [threshold]) == [area]
    assert auc([2 * error for error in errors], [2 * threshold]) == pytest.approx([area])


@given(errors_lists, st.floats(0.1, 90))
def test_auc_falls_with_every_failure(errors: list[float], threshold: float) -> None:
    (area,) = auc(errors, [threshold])
    (with_failure,) = auc([*errors, np.inf], [threshold])
    assert with_failure == pytest.approx(area * len(errors) / (len(errors) + 1))


@pytest.mark.parametrize(("errors", "thresholds"), [([], [1.0]), ([1.0], [0.0]), ([1.0], [5.0, -1.0])])
def test_auc_refuses_what_has_no_curve(errors: list[float], thresholds: list[float]) -> None:
    with pytest.raises(InputError):
        auc(errors, thresholds)


@given(seeds, st.integers(4, 30))
def test_umeyama_recovers_a_similarity_and_its_inverse(seed: int, count: int) -> None:
    truth = random_similarity(seed)
    source = np.random.default_rng(seed).normal(size=(count, 3)) + 5
    found = umeyama(source, truth.apply(source))
    assert found.scale == pytest.approx(truth.scale)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-6)
    np.testing.assert_allclose(found.apply(source), truth.apply(source), atol=1e-6)
    np.testing.assert_allclose(found.invert().apply(found.apply(source)), source, atol=1e-9)


def test_umeyama_of_points_in_a_plane_is_no_mirror() -> None:
    truth = random_similarity(4)
    source = np.random.default_rng(4).normal(size=(12, 3)) * [1, 1, 0]
    found = umeyama(source, truth.apply(source))
    assert np.linalg.det(found.rotation) == pytest.approx(1)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-9)
    mirrored = umeyama(np.random.default_rng(5).normal(size=(12, 3)), source * [1, 1, -1])
    assert np.linalg.det(mirrored.rotation) == pytest.approx(1)


@given(seeds)
def test_umeyama_is_the_best_nearby(seed: int) -> None:
    generator = np.random.default_rng(seed)
    source, target = generator.normal(size=(2, 8, 3))
    found = umeyama(source, target)
    nudge = Rotation.from_rotvec(generator.normal(size=3) * 0.05).as_matrix()
    centre = target.mean(axis=0)
    other = Similarity(
        found.scale * float(np.exp(generator.normal() * 0.05)),
        nudge @ found.rotation,
        nudge @ (found.translation - centre) + centre + generator.normal(size=3) * 0.05,
    )
    residual = [np.sum((guess.apply(source) - target) ** 2) for guess in (found, other)]
    assert residual[0] <= residual[1] + 1e-9


@pytest.mark.parametrize(
    "points", [np.zeros((0, 3)), np.eye(3)[:2], np.outer(np.arange(9.0), [1, 2, 3]), np.ones((5, 3))]
)
def test_umeyama_refuses_points_on_a_line(points: np.ndarray) -> None:
    with pytest.raises(InputError, match="on one line"):
        umeyama(points, points)


@given(seeds)
def test_a_moved_pose_sees_the_moved_points(seed: int) -> None:
    target_from_source = random_similarity(seed)
    pose = random_poses(seed, 1)[0]
    point = np.random.default_rng(seed).normal(size=3)
    moved = target_from_source.move_pose(pose)
    seen = moved[:, :3] @ target_from_source.apply(point) + moved[:, 3]
    np.testing.assert_allclose(seen, target_from_source.scale * (pose[:, :3] @ point + pose[:, 3]), atol=1e-9)


@given(seeds)
def test_aligned_errors_vanish_for_the_same_cameras_in_another_world(seed: int) -> None:
    truth = random_poses(seed, 6)
    errors = aligned_pose_errors(named(random_similarity(seed).move_pose(truth)), named(truth[:5]))
    assert errors.names == tuple(sorted(named(truth[:5])))
    assert errors.position.max() < 1e-6
    assert errors.rotation.max() < 1e-4


def test_aligned_errors_are_in_the_unit_of_the_truth() -> None:
    truth = random_poses(7, 200)
    guess = truth.copy()
    turn = Rotation.from_euler("z", 3, degrees=True).as_matrix()
    guess[0] = turn @ guess[0]
    guess[1, :, 3] += guess[1, :, :3] @ [0.5, 0, 0]
    errors = aligned_pose_errors(named(random_similarity(7).move_pose(guess)), named(truth))
    assert errors.rotation[0] == pytest.approx(3, abs=0.1)
    assert errors.position[1] == pytest.approx(0.5, abs=0.01)
    assert np.median(errors.position) < 0.01


def test_ground_truth_is_read_back(tmp_path: Path) -> None:
    pose = random_poses(8, 1)[0]
    entry = {
        "width": 640,
        "height": 480,
        "K": np.diag([500, 500, 1]).tolist(),
        "cam_from_world": pose.tolist(),
    }
    path = tmp_path / "ground_truth.json"
    path.write_text(json.dumps({"note": "drawn", "images": {"a b/ä.jpg": entry}}), encoding="utf-8")
    truth = read_ground_truth(path)
    assert truth.sizes == {"a b/ä.jpg": (640, 480)}
    np.testing.assert_array_equal(truth.cam_from_world["a b/ä.jpg"], pose)
    np.testing.assert_array_equal(truth.intrinsics["a b/ä.jpg"], np.diag([500, 500, 1]))


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"images": 3}', '{"images": {"a": {"width": 1}}}', '{"images": {"a": null}}'],
)
def test_ground_truth_that_is_none_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ground_truth.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"ground_truth\.json"):
        read_ground_truth(path)


def test_ground_truth_of_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    entry = {"width": 6, "height": 4, "K": np.eye(3).tolist(), "cam_from_world": np.eye(3).tolist()}
    path = tmp_path / "ground_truth.json"
    path.write_text(json.dumps({"images": {"a.jpg": entry}}), encoding="utf-8")
    with pytest.raises(InputError, match=r"ground_truth\.json"):
        read_ground_truth(path)
    with pytest.raises(InputError, match=r"missing\.json"):
        read_ground_truth(tmp_path / "missing.json")
