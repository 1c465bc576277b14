"""Files both ways: what hloc reads of ours, and what we read of hloc's and go on from."""

import json
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
from hloc_kit import (
    photo_names,
    read_keypoints,
    read_matches,
    require_hloc,
    write_dense_features,
    write_features,
    write_matches,
)

import gim_sfm
from gim_sfm import matchers
from gim_sfm.errors import InputError, SettingsError
from gim_sfm.images import read_photo
from gim_sfm.matchers.contract import SparseMatcher
from gim_sfm.store import feature_names, matched_pairs, read_features, read_pair
from gim_sfm.types import Features, Pair

NAMES = ("drawn/0.png", "b-1.png", "c.png")


def some_keypoints(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 400, (count, 2))


def pairs_of(file: Path, names: tuple[str, ...] = NAMES) -> tuple[list[Pair], int]:
    with h5py.File(file) as opened:
        return matched_pairs(opened, names)


# What we read of hloc's


def test_features_in_half_precision_and_nested_groups(tmp_path):
    points = {name: some_keypoints(20 + place) for place, name in enumerate(NAMES)}
    write_features(tmp_path / "f.h5", points)
    with h5py.File(tmp_path / "f.h5") as file:
        assert feature_names(file) == sorted(NAMES)
        for name, expected in points.items():
            found = read_features(file, name)
            np.testing.assert_array_equal(found.keypoints, expected.astype(np.float16).astype(np.float32))
            assert found.keypoints.dtype == np.float32
            assert found.descriptors.shape == (len(expected), 8)
            assert found.size == (640, 480)


def test_dense_features_have_keypoints_only(tmp_path):
    write_dense_features(tmp_path / "f.h5", {NAMES[0]: some_keypoints(7), NAMES[1]: some_keypoints(0)})
    with h5py.File(tmp_path / "f.h5") as file:
        found, none = (read_features(file, name, (640, 480)) for name in NAMES[:2])
        with pytest.raises(InputError, match="descriptors, image_size"):
            read_features(file, NAMES[0])
    assert found.keypoints.shape == (7, 2)
    assert found.descriptors.shape == (7, 0)
    assert found.scores.tolist() == [1] * 7
    assert found.size == (640, 480)
    assert none.keypoints.shape == (0, 2)


@pytest.mark.parametrize("separator", ["/", "_"])
@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("scores", [True, False])
def test_pairs_of_every_layout_are_found_and_read(tmp_path, separator, kind, scores):
    indices = np.array([[0, 3], [2, 1], [5, 0]])
    given = {(NAMES[1], NAMES[0]): indices, (NAMES[2], "gone.png"): indices}
    counts = dict.fromkeys((*NAMES, "gone.png"), 6)
    write_matches(tmp_path / "m.h5", given, counts, separator=separator, kind=kind, scores=scores)
    pairs, others = pairs_of(tmp_path / "m.h5")
    assert pairs == [(NAMES[1], NAMES[0])] == [("b-1.png", "drawn/0.png")]
    assert others == 1
    with h5py.File(tmp_path / "m.h5") as file:
        found = read_pair(file, (NAMES[0], NAMES[1]))
    assert found.indices.tolist() == [[0, 5], [1, 2], [3, 0]]
    assert found.scores.tolist() == [0.75 if scores else 1] * 3


def test_a_pair_both_ways_counts_once(tmp_path):
    given = {(NAMES[0], NAMES[2]): np.array([[0, 1]]), (NAMES[2], NAMES[0]): np.array([[1, 0]])}
    write_matches(tmp_path / "m.h5", given, dict.fromkeys(NAMES, 3))
    assert pairs_of(tmp_path / "m.h5") == ([("c.png", "drawn/0.png")], 0)


def test_an_old_key_that_can_be_read_in_two_ways_is_refused(tmp_path):
    write_matches(tmp_path / "m.h5", {("a", "b_c"): np.array([[0, 1]])}, {"a": 2}, separator="_")
    assert pairs_of(tmp_path / "m.h5", ("a", "b_c", "c")) == ([("a", "b_c")], 0)
    with pytest.raises(InputError, match="a_b_c"):
        pairs_of(tmp_path / "m.h5", ("a", "b_c", "a_b", "c"))


def test_indices_that_overflowed_are_refused(tmp_path):
    many = np.array([[0, 40000], [1, 5]])
    write_matches(tmp_path / "m.h5", {("a", "b"): many}, {"a": 2})
    with h5py.File(tmp_path / "m.h5") as file, pytest.raises(InputError, match="32767"):
        read_pair(file, ("a", "b"))


# Going on from such files


@pytest.fixture(scope="module")
def sift(drawn_photos: Path) -> tuple[dict[str, Features], dict[Pair, np.ndarray]]:
    """Features and matches of five drawn photos, not by way of any file of ours."""
    matcher = matchers.load("root-sift", max_keypoints=1500)
    assert isinstance(matcher, SparseMatcher)
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))[:5]
    found = matcher.detector.extract([read_photo(drawn_photos / name) for name in names])
    features = dict(zip(names, found, strict=True))
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    matches = matcher.matcher.match([(features[first], features[second]) for first, second in pairs])
    return features, {pair: found.indices for pair, found in zip(pairs, matches, strict=True)}


def photos_of(drawn_photos: Path, folder: Path, names: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes((drawn_photos / name).read_bytes())
    return folder


@pytest.fixture
def given(sift, drawn_photos: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Photos, and hloc's two files of them."""
    features, matches = sift
    size = next(iter(features.values())).size
    names = list(features)
    write_features(
        tmp_path / "f.h5", {name: row.keypoints for name, row in features.items()}, size=size, half=False
    )
    backwards = {(second, first): found[:, ::-1] for (first, second), found in matches.items()}
    write_matches(tmp_path / "m.h5", backwards, {name: len(row) for name, row in features.items()})
    return photos_of(drawn_photos, tmp_path / "photos", names), tmp_path / "f.h5", tmp_path / "m.h5"


def test_hloc_files_become_a_model_without_a_network(given, tmp_path, monkeypatch):
    photos, features, matches = given

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was asked for")

    monkeypatch.setattr(matchers, "load", refuse)
    out = tmp_path / "out"
    asked = {"features": features, "matches": matches, "matcher": "root-sift", "self_calibration": "off"}
    result = gim_sfm.reconstruct(photos, out, **asked)
    assert result.registered == 5
    assert result.reprojection_error < 1
    assert any("10 pairs of 5 photos taken from" in note for note in result.notes)
    places, _ = read_keypoints(out / "features.h5", sorted(photo_names(features))[0])
    np.testing.assert_array_equal(places, read_keypoints(features, sorted(photo_names(features))[0])[0])
    before = (out / "database.json").read_text()
    assert gim_sfm.reconstruct(photos, out, **asked).points == result.points
    assert (out / "database.json").read_text() == before
    with h5py.File(matches, "r+") as file:
        first = next(iter(file))
        del file[first]
    again = gim_sfm.reconstruct(photos, out, **asked)
    assert (out / "database.json").read_text() != before, "the matches are others now"
    assert any("9 pairs of 5 photos" in note for note in again.notes)
    with h5py.File(matches, "r+") as file:
        second = next(iter(file))
        group = file[second][next(iter(file[second]))]
        group["matches0"][...] = -1
    gim_sfm.reconstruct(photos, out, **asked)
    counts = [row["matches"] for row in json.loads((out / "database.json").read_text())["pairs"]]
    assert sorted(counts)[0] == 0 < sorted(counts)[1]


def test_photos_without_features_and_pairs_of_others_are_told(given, sift, drawn_photos, tmp_path):
    photos, features, matches = given
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))
    (photos / names[0]).unlink()
    photos_of(drawn_photos, photos, names[5:6])
    asked = {"features": features, "matches": matches, "matcher": "root-sift", "self_calibration": "off"}
    result = gim_sfm.reconstruct(photos, tmp_path / "out", **asked)
    told = " ".join(result.notes)
    assert "6 pairs of 5 photos taken from" in told
    assert "4 others" in told
    assert f"1 photos have no features in {features}: {names[5]}" in told
    assert (result.registered, result.photos) == (4, 5)
    with pytest.raises(InputError, match=names[5]):
        gim_sfm.reconstruct(photos, tmp_path / "strict", strict=True, **asked)


def test_a_second_matcher_helps_where_the_given_one_was_weak(given, tmp_path, xfeat_weights):
    photos, features, matches = given
    lost = sorted(path.name for path in photos.iterdir())[0]
    with h5py.File(matches, "r+") as file:
        for first, pairs in file.items():
            for second in pairs:
                if lost in (first, second):
                    pairs[second]["matches0"][...] = -1
    result = gim_sfm.reconstruct(
        photos,
        tmp_path / "out",
        features=features,
        matches=matches,
        matcher="root-sift",
        rescue="xfeat-star",
        self_calibration="off",
        refinement="off",
    )
    assert any("xfeat-star was asked about" in note for note in result.notes)
    assert result.registered == 5


def test_the_plan_counts_the_pairs_that_are_given(given, tmp_path):
    photos, features, matches = given
    told = str(gim_sfm.plan(photos, tmp_path / "out", features=features, matches=matches))
    assert "at most 10" in told
    assert f"features from {features}" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"matches": None}, "--features and --matches"),
        ({"masks": "masks"}, "--masks"),
        ({"pairs": "exhaustive"}, "--pairs"),
        ({"tracks": "merged", "matcher": "xfeat-star"}, "--tracks"),
    ],
)
def test_settings_that_given_files_leave_no_room_for(given, tmp_path, settings, told):
    photos, features, matches = given
    with pytest.raises(SettingsError, match=told):
        gim_sfm.reconstruct(
            photos, tmp_path / "out", **{"features": features, "matches": matches, **settings}
        )


def test_files_in_the_output_folder_are_not_overwritten(given, tmp_path):
    photos, features, matches = given
    with pytest.raises(SettingsError, match="output folder"):
        gim_sfm.reconstruct(photos, tmp_path, features=features, matches=matches)


def test_files_that_do_not_belong_together_are_refused(given, sift, tmp_path):
    photos, features, matches = given

    def run(**changed: Path) -> None:
        gim_sfm.reconstruct(photos, tmp_path / "out", **{"features": features, "matches": matches, **changed})

    few = {name: row.keypoints[:10] for name, row in sift[0].items()}
    write_features(tmp_path / "few.h5", few, size=next(iter(sift[0].values())).size)
    with pytest.raises(InputError, match="belong together"):
        run(features=tmp_path / "few.h5")
    write_features(tmp_path / "small.h5", few, size=(64, 48))
    with pytest.raises(InputError, match="64 x 48"):
        run(features=tmp_path / "small.h5")
    write_features(tmp_path / "others.h5", {"other.png": some_keypoints(5)})
    with pytest.raises(InputError, match=r"other\.png"):
        run(features=tmp_path / "others.h5")
    write_matches(tmp_path / "none.h5", {("x", "y"): np.array([[0, 0]])}, {"x": 2})
    with pytest.raises(InputError, match="no pair"):
        run(matches=tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(InputError, match=r"text\.h5"):
        run(matches=tmp_path / "text.h5")
    with pytest.raises(InputError, match=r"missing\.h5"):
        run(matches=tmp_path / "missing.h5")
    names = sorted(sift[0])
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        for name in ("keypoints0", "keypoints1"):
            file[f"{names[0]}/{names[1]}/{name}"] = np.zeros((3, 2), np.float32)
        file[f"{names[0]}/{names[1]}/scores"] = np.ones(3, np.float32)
    with pytest.raises(InputError, match="join no keypoints"):
        run(matches=tmp_path / "raw.h5")


# What hloc reads of ours


@pytest.fixture(scope="module")
def ours(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos and what reconstructing them leaves."""
    folder = tmp_path_factory.mktemp("ours")
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))[:5]
    photos = photos_of(drawn_photos, folder / "photos", names)
    settings = {"matcher": "root-sift", "max_keypoints": 1500, "self_calibration": "off"}
    gim_sfm.reconstruct(photos, folder / "out", cameras="single", **settings)
    return photos, folder / "out"


def test_our_files_are_what_hloc_reads(ours):
    photos, out = ours
    names = sorted(path.name for path in photos.iterdir())
    assert photo_names(out / "features.h5") == set(names)
    counts = {}
    for name in names:
        places, uncertainty = read_keypoints(out / "features.h5", name)
        assert (places.dtype, places.shape[1:], uncertainty) == (np.float32, (2,), 1)
        counts[name] = len(places)
    lines = (out / "pairs.txt").read_text().split("\n")
    for first, second in (line.split(" ") for line in lines if line):
        found, scores = read_matches(out / "matches.h5", second, first)
        assert len(found) == len(scores) > 0
        assert (found.max(axis=0) < (counts[second], counts[first])).all()


def test_hloc_reads_our_files_and_goes_on_from_them(ours, tmp_path):
    require_hloc()
    reading, parsers = import_module("hloc.utils.io"), import_module("hloc.utils.parsers")
    reconstruction, triangulation = (
        import_module("hloc.reconstruction"),
        import_module("hloc.triangulation"),
    )
    photos, out = ours
    features, matches = out / "features.h5", out / "matches.h5"
    names = sorted(path.name for path in photos.iterdir())
    assert sorted(reading.list_h5_names(features)) == names
    for name in names:
        theirs, uncertainty = reading.get_keypoints(features, name, return_uncertainty=True)
        np.testing.assert_array_equal(theirs, read_keypoints(features, name)[0])
        assert uncertainty == 1
    for first, others in parsers.parse_retrieval(out / "pairs.txt").items():
        for second in others:
            for pair in ((first, second), (second, first)):
                for found, expected in zip(
                    reading.get_matches(matches, *pair), read_matches(matches, *pair), strict=True
                ):
                    np.testing.assert_array_equal(found, expected)
    model = reconstruction.main(
        tmp_path / "sfm", photos, out / "pairs.txt", features, matches, camera_mode="SINGLE"
    )
    assert model.num_reg_images() == len(names)
    assert model.compute_mean_reprojection_error() < 1
    points = triangulation.main(
        tmp_path / "points",
        out / "sparse" / "0",
        photos,
        out / "pairs.txt",
        features,
        matches,
        estimate_two_view_geometries=True,
    )
    assert points.num_points3D() > 100
    assert _localized(ours, tmp_path) < 0.1


def _localized(ours: tuple[Path, Path], folder: Path) -> float:
    """Degrees between the pose that hloc finds for a photo of our model and the pose it has there."""
    photos, out = ours
    pycolmap, localize = import_module("pycolmap"), import_module("hloc.localize_sfm")
    model = import_module("hloc.triangulation").main(
        folder / "sift",
        out / "sparse" / "0",
        photos,
        out / "pairs.txt",
        out / "features.h5",
        out / "matches.h5",
        estimate_two_view_geometries=True,
    )
    query, *others = sorted(path.name for path in photos.iterdir())
    camera = next(iter(model.cameras.values()))
    numbers = " ".join(map(str, (camera.width, camera.height, *camera.params)))
    (folder / "queries.txt").write_text(f"{query} {camera.model_name} {numbers}\n")
    (folder / "retrieval.txt").write_text("\n".join(f"{query} {name}" for name in others))
    files = out / "features.h5", out / "matches.h5", folder / "poses.txt"
    localize.main(model, folder / "queries.txt", folder / "retrieval.txt", *files)
    words = files[2].read_text().split()
    w, x, y, z = map(float, words[1:5])
    found = pycolmap.Rotation3d(np.array([x, y, z, w]))
    truth = next(image for image in model.images.values() if image.name == query).cam_from_world().rotation
    return float(np.degrees(found.angle_to(truth)))
