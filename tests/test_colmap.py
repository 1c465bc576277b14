"""COLMAP's side of the house: cameras, the half pixel, and the database."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.images import PhotoHeader
from gim_sfm.sfm.colmap import (
    assign_cameras,
    from_colmap,
    group_cameras,
    make_camera,
    parse_camera_params,
    to_colmap,
    write_database,
)
from gim_sfm.sfm.known import read_intrinsics, read_poses
from gim_sfm.sfm.verification import Verifier, verify_pair

MODELS = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
KEYPOINTS = np.array([[0.0, 0.0], [10.5, 20.25]], np.float32)


def header(size=(640, 480), focal=None, key="", gps=None):
    return PhotoHeader(size=size, focal_px=focal, camera_key=key, gps=gps)


def test_first_pixel_centre_is_half_a_pixel_from_the_corner():
    assert to_colmap(KEYPOINTS).tolist() == [[0.5, 0.5], [11.0, 20.75]]
    assert from_colmap(to_colmap(KEYPOINTS)).tolist() == KEYPOINTS.tolist()


@given(
    st.dictionaries(
        st.sampled_from(["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"]),
        st.tuples(st.sampled_from([(640, 480), (480, 640), (64, 48)]), st.sampled_from(["", "canon"])),
    ),
    st.sampled_from(["exif", "single", "folder", "image"]),
)
def test_photos_of_different_sizes_never_share_a_camera(photos, grouping):
    headers = {name: header(size, key=key) for name, (size, key) in photos.items()}
    groups = group_cameras(headers, grouping)
    assert set(groups) == set(headers)
    for name in headers:
        for other in headers:
            if groups[name] == groups[other]:
                assert headers[name].size == headers[other].size


def test_grouping_follows_its_name():
    headers = {"a/1.jpg": header(key="x"), "a/2.jpg": header(key="y"), "b/1.jpg": header(key="x")}
    counts = {
        grouping: len(set(group_cameras(headers, grouping).values()))
        for grouping in ("exif", "single", "folder", "image")
    }
    assert counts == {"exif": 2, "single": 1, "folder": 2, "image": 3}


@pytest.mark.parametrize("model", MODELS)
def test_every_camera_model_can_be_made(model):
    camera = make_camera((640, 480), model.lower())
    assert camera.model_name == model
    assert not camera.has_prior_focal_length
    assert make_camera((640, 480), model, params=list(camera.params)).has_prior_focal_length


def test_focal_length_is_taken_from_exif_or_guessed():
    assert make_camera((640, 480), "PINHOLE", focal=900.0).params.tolist() == [900, 900, 320, 240]
    assert make_camera((640, 480), "PINHOLE", focal=900.0).has_prior_focal_length
    assert make_camera((640, 480), "PINHOLE").params[0] == pytest.approx(768)


def test_wrong_model_names_the_near_miss_and_wrong_length_the_parameters():
    with pytest.raises(SettingsError, match="SIMPLE_RADIAL"):
        make_camera((640, 480), "SIMPLE_RADIA")
    with pytest.raises(SettingsError, match="fx, fy, cx, cy, k1, k2, p1, p2"):
        make_camera((640, 480), "OPENCV", params=[1.0, 2.0])
    with pytest.raises(SettingsError, match="no list of numbers"):
        parse_camera_params("1,2,x")
    assert parse_camera_params("1, 2.5") == (1.0, 2.5)


def test_known_intrinsics_are_kept_and_their_size_checked():
    known = {"b.jpg": make_camera((640, 480), "PINHOLE", params=[600, 601, 320, 240], camera_id=9)}
    cameras = assign_cameras({"a.jpg": header(), "b.jpg": header()}, known=known)
    assert cameras["b.jpg"].params.tolist() == [600, 601, 320, 240]
    assert cameras["b.jpg"].has_prior_focal_length
    assert {cameras["a.jpg"].camera_id, cameras["b.jpg"].camera_id} == {1, 2}
    with pytest.raises(SettingsError, match=r"b\.jpg is 64x48"):
        assign_cameras({"b.jpg": header((64, 48))}, known=known)


def test_intrinsics_from_json_and_from_a_model_folder(tmp_path: Path):
    entries = {
        "a.jpg": {"K": [[600, 0, 319.5], [0, 600, 239.5], [0, 0, 1]], "width": 640, "height": 480},
        "b.jpg": {"model": "SIMPLE_RADIAL", "width": 64, "height": 48, "params": [60, 32, 24, 0.1]},
        "c.jpg": {"model": "SIMPLE_RADIAL", "width": 64, "height": 48, "params": [60, 32, 24, 0.1]},
    }
    (tmp_path / "k.json").write_text(json.dumps(entries))
    known = read_intrinsics(tmp_path / "k.json")
    assert known["a.jpg"].params.tolist() == [600, 600, 320, 240]
    assert known["b.jpg"].camera_id == known["c.jpg"].camera_id != known["a.jpg"].camera_id
    world = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions(num_points3D=20))
    (tmp_path / "model").mkdir()
    world.write_text(tmp_path / "model")
    assert read_intrinsics(tmp_path / "model").keys() == {image.name for image in world.images.values()}
    assert len(read_poses(tmp_path / "model")) == world.num_reg_images()


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"a.jpg": {"width": 3}}', '{"a.jpg": {"width": 3, "height": 3, "K": [1]}}']
)
def test_broken_intrinsics_name_the_file(tmp_path: Path, text):
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(InputError, match=r"k\.json"):
        read_intrinsics(tmp_path / "k.json")


def test_missing_pose_names_the_photo(tmp_path: Path):
    entry = {"model": "SIMPLE_RADIAL", "width": 64, "height": 48, "params": [60, 32, 24, 0.1]}
    (tmp_path / "k.json").write_text(json.dumps({"a.jpg": entry}))
    with pytest.raises(InputError, match=r"a\.jpg"):
        read_poses(tmp_path / "k.json")


def some_database(path: Path) -> None:
    headers = {
        "b.jpg": header(gps=(47.0, 8.0, 400.0)),
        "sub folder/ä.jpg": header((480, 640), focal=500.0, gps=(47.0, 8.0, None)),
        "a.jpg": header(),
    }
    pair = ("a.jpg", "b.jpg")
    indices = np.array([[0, 1], [1, 0]], np.int32)
    write_database(
        path,
        assign_cameras(headers),
        [(name, KEYPOINTS) for name in (*headers, "gone.jpg")],
        [(pair, indices), (("a.jpg", "gone.jpg"), indices)],
        [(pair, pycolmap.TwoViewGeometry(config=3, inlier_matches=indices.astype(np.uint32)))],
        gps={name: entry.gps for name, entry in headers.items()},
    )


def test_database_holds_what_was_given_and_nothing_else(tmp_path: Path):
    some_database(tmp_path / "database.db")
    with pycolmap.Database.open(tmp_path / "database.db") as database:
        images = database.read_all_images()
        assert [image.name for image in images] == ["a.jpg", "b.jpg", "sub folder/ä.jpg"]
        assert database.num_cameras() == database.num_rigs() == 2
        assert database.num_frames() == 3
        assert [frame.image_ids.__class__ and frame.frame_id for frame in database.read_all_frames()] == [
            1,
            2,
            3,
        ]
        assert database.read_keypoints(1)[:, :2].tolist() == [[0.5, 0.5], [11.0, 20.75]]
        assert database.read_matches(1, 2).tolist() == [[0, 1], [1, 0]]
        assert database.num_matched_image_pairs() == database.num_verified_image_pairs() == 1
        (prior,) = database.read_all_pose_priors()
        assert prior.position.tolist() == [47.0, 8.0, 400.0]
        assert prior.corr_data_id.id == 2
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]


def test_database_has_the_rows_that_colmap_itself_writes(tmp_path: Path):
    """Rigs, frames and their data as pycolmap.import_images makes them."""
    import sqlite3

    from PIL import Image

    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    pycolmap.Database.open(tmp_path / "theirs.db").close()
    pycolmap.import_images(tmp_path / "theirs.db", tmp_path, pycolmap.CameraMode.SINGLE, ["a.png", "b.png"])
    write_database(
        tmp_path / "ours.db",
        assign_cameras({"a.png": header((64, 48)), "b.png": header((64, 48))}),
        [],
        [],
        [],
    )

    def rows(name):
        with sqlite3.connect(tmp_path / name) as connection:
            tables = ("cameras", "rigs", "rig_sensors", "frames", "frame_data", "images")
            return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables}

    assert rows("ours.db") == rows("theirs.db")


def test_failed_write_leaves_the_old_database(tmp_path: Path):
    path = tmp_path / "database.db"
    some_database(path)
    before = path.read_bytes()

    def interrupted():
        yield "a.jpg", KEYPOINTS
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_database(path, assign_cameras({"a.jpg": header()}), interrupted(), [], [])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["database.db"]


def two_views():
    """Matches of an exact pair with a third of wrong ones, in this package's pixels."""
    world = pycolmap.synthesize_dataset(
        pycolmap.SyntheticDatasetOptions(num_rigs=1, num_frames_per_rig=2, num_points3D=200)
    )
    first, second = (world.images[number] for number in sorted(world.reg_image_ids()))
    shared = {point.point3D_id: row for row, point in enumerate(second.points2D) if point.has_point3D()}
    good = [(row, shared[p.point3D_id]) for row, p in enumerate(first.points2D) if p.point3D_id in shared]
    bad = [(row, good[(index * 7 + 3) % len(good)][1]) for index, (row, _) in enumerate(good[::3])]
    keypoints = tuple(
        from_colmap(np.array([p.xy for p in image.points2D])).astype(np.float32) for image in (first, second)
    )
    camera = next(iter(world.cameras.values()))
    return (first.name, second.name), camera, keypoints, np.array(good + bad, np.int32), len(good)


def test_verification_finds_the_true_matches_whatever_the_order():
    pair, camera, keypoints, indices, good = two_views()
    other = (pair[1], pair[0])
    cameras = dict.fromkeys(pair, camera)
    swapped = (keypoints[1], keypoints[0])
    found = []
    for order in (1, -1):
        with Verifier(cameras, seed=3, threads=2) as verifier:
            work = [(pair, keypoints, indices), (other, swapped, indices[:, ::-1])][::order]
            for entry in work:
                verifier.submit(*entry)
            found.append(
                [(row.pair, row.matches, row.geometry.inlier_matches.tolist()) for row in verifier.results()]
            )
    assert found[0] == found[1]
    assert found[0][0][1] == len(indices)
    true = {tuple(row) for row in indices[:good].tolist()}
    assert len({tuple(row) for row in found[0][0][2]} & true) >= 0.99 * good


def test_too_few_matches_are_refused_not_failed():
    pair, camera, keypoints, indices, _ = two_views()
    for count in (0, 5):
        verdict = verify_pair(pair, (camera, camera), keypoints, indices[:count])
        assert (verdict.matches, verdict.inliers) == (count, 0)


def test_random_matches_are_refused():
    pair, camera, keypoints, indices, _ = two_views()
    shuffled = np.column_stack([indices[:, 0], np.random.default_rng(0).permutation(indices[:, 1])])
    assert verify_pair(pair, (camera, camera), keypoints, shuffled[:60].astype(np.int32)).inliers == 0
