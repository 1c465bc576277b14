"""The plug-in for hloc, on a stand-in with its rules, and on hloc itself where it is installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import cv2
import h5py
import numpy as np
import pytest
import torch
from hloc_kit import photo_names, read_keypoints, read_matches, require_hloc, stand_in, write_features

from gim_sfm import hloc_plugin, matchers
from gim_sfm.errors import InputError, SettingsError
from gim_sfm.hloc_plugin import networks, presets, stages
from gim_sfm.hloc_plugin.conversion import photo_of
from gim_sfm.hloc_plugin.dense import DenseMatching
from gim_sfm.hloc_plugin.inputs import require_inputs
from gim_sfm.hloc_plugin.names import read_pair_names, require_usable_names
from gim_sfm.hloc_plugin.reopening import changeable, checksum
from gim_sfm.hloc_plugin.unfinished import pair_groups, take_out_unsound, take_out_unwritten
from gim_sfm.images import read_photo
from gim_sfm.matchers import MATCHERS
from gim_sfm.matchers.contract import DenseMatcher
from gim_sfm.types import Correspondences, Photo

STAGES = ("extract_features", "match_features", "match_dense")


@pytest.fixture
def hloc(tmp_path: Path) -> Iterator[None]:
    """The stand-in."""
    with stand_in(tmp_path / "site"):
        yield


@pytest.fixture
def kept_hloc() -> Iterator[None]:
    """Hloc itself, as it was before."""
    require_hloc()
    tables = {stage: import_module(f"hloc.{stage}").confs for stage in STAGES}
    before = {stage: dict(table) for stage, table in tables.items()}
    yield
    for stage, table in tables.items():
        table.clear()
        table.update(before[stage])


def tables() -> dict[str, dict]:
    return {stage: import_module(f"hloc.{stage}").confs for stage in STAGES}


def model_of(stage: str, name: str, **changed: object) -> torch.nn.Module:
    """A model as hloc's stages load it."""
    conf = tables()[stage][name]["model"]
    package = import_module("hloc.extractors" if stage == "extract_features" else "hloc.matchers")
    kind = import_module("hloc.utils.base_model").dynamic_load(package, conf["name"])
    return kind({**conf, **changed}).eval().to("cpu")


def image_of(photo: Photo) -> torch.Tensor:
    """A photo as hloc hands it to an extractor."""
    return torch.from_numpy(photo.pixels.astype(np.float32).transpose(2, 0, 1) / 255.0)[None]


# Tables


def check_tables() -> None:
    before = {stage: dict(table) for stage, table in tables().items()}
    hloc_plugin.register()
    for stage, table in tables().items():
        assert {name: table[name] for name in before[stage]} == before[stage]
        added = [conf for name, conf in table.items() if name not in before[stage]]
        kinds = ("semi-dense", "dense") if stage == "match_dense" else ("sparse",)
        assert [conf["model"]["matcher"] for conf in added] == [
            row.name for row in MATCHERS.values() if row.kind in kinds
        ]
        outputs = [conf["output"] for conf in table.values() if presets.is_ours(conf)]
        assert len(set(outputs)) == len(outputs)
        assert not set(outputs) & {conf["output"] for conf in before[stage].values()}
    once = {stage: dict(table) for stage, table in tables().items()}
    paths = [list(import_module(f"hloc.{kind}").__path__) for kind in ("extractors", "matchers")]
    hloc_plugin.register()
    assert once == {stage: dict(table) for stage, table in tables().items()}
    assert paths == [list(import_module(f"hloc.{kind}").__path__) for kind in ("extractors", "matchers")]


def test_every_matcher_joins_the_tables_once(hloc):
    check_tables()
    assert tables()["match_dense"]["loftr"]["model"]["name"] == "loftr", "hloc's own"
    assert tables()["match_dense"]["gim-sfm:loftr"]["model"]["matcher"] == "loftr"
    assert set(tables()["match_features"]) & set(tables()["extract_features"]) >= {"gim-lightglue"}


def test_every_matcher_joins_the_tables_of_hloc_itself(kept_hloc):
    check_tables()


def test_without_hloc_it_is_told_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("hloc.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hloc", None)
    with pytest.raises(SettingsError, match="pip install git"):
        hloc_plugin.register()


def test_a_package_that_hloc_lacks_is_named(tmp_path):
    with stand_in(tmp_path):
        (tmp_path / "hloc" / "match_dense.py").write_text("import a_package_of_no_name\n")
        with pytest.raises(SettingsError, match="pip install a_package_of_no_name"):
            hloc_plugin.register()


# Models


def test_features_are_those_of_the_matcher_itself(hloc, drawn_photos):
    hloc_plugin.register()
    photo = read_photo(min(drawn_photos.glob("*.jpg")))
    model = model_of("extract_features", "root-sift", max_keypoints=300, image_size=320)
    found = model({"image": image_of(photo)})
    itself = matchers.load("root-sift", max_keypoints=300, image_size=320)
    expected = itself.detector.extract([photo])[0]
    assert found["keypoints"].dtype == torch.float64, "which as_half leaves alone"
    np.testing.assert_array_equal(found["keypoints"][0].numpy(), expected.keypoints)
    np.testing.assert_array_equal(found["descriptors"][0].numpy().T, expected.descriptors)
    np.testing.assert_array_equal(found["scores"][0].numpy(), expected.scores)
    assert model.detection_noise == 2, "file pixels to a pixel of 640 shrunk to 320"


def test_grey_photos_are_taken_as_colours(hloc):
    grey = torch.arange(256).reshape(1, 1, 16, 16) / 255
    assert (photo_of(grey).pixels == np.arange(256).reshape(16, 16, 1)).all()
    assert photo_of(grey).pixels.shape == (16, 16, 3)
    between = torch.tensor([[[[10.6, -0.3, 255.4]]]]) / 255  # what shrinking leaves
    assert photo_of(between).pixels[0, :, 0].tolist() == [11, 0, 255]


def pair_data(found: list[dict], sizes: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
    """What hloc reads back from its files, in single precision."""
    data = {}
    for side, (features, size) in enumerate(zip(found, sizes, strict=True)):
        data |= {f"{name}{side}": value.float() for name, value in features.items()}
        data[f"image_size{side}"] = torch.tensor([size]).float()
        data[f"image{side}"] = torch.empty(1, 1, size[1], size[0])
    return data


def test_matches_are_those_of_the_matcher_itself(hloc, drawn_photos):
    hloc_plugin.register()
    photos = [read_photo(path) for path in sorted(drawn_photos.glob("*.jpg"))[:2]]
    asked = {"max_keypoints": 400, "image_size": 640}
    extractor = model_of("extract_features", "root-sift", **asked)
    data = pair_data([extractor({"image": image_of(photo)}) for photo in photos], [p.size for p in photos])
    found = model_of("match_features", "root-sift", **asked)(data)
    itself = matchers.load("root-sift", **asked)
    features = itself.detector.extract(photos)
    expected = itself.matcher.match([(features[0], features[1])])[0]
    matches0, scores0 = found["matches0"][0].numpy(), found["matching_scores0"][0].numpy()
    assert found["matches0"].shape == found["matching_scores0"].shape == (1, len(features[0]))
    rows = np.flatnonzero(matches0 != -1)
    order = np.argsort(expected.indices[:, 0])
    np.testing.assert_array_equal(np.stack([rows, matches0[rows]], 1), expected.indices[order])
    np.testing.assert_array_equal(scores0[rows], expected.scores[order])
    assert len(rows) > 50


@pytest.mark.parametrize("counts", [(0, 5), (5, 0), (0, 0)])
def test_a_photo_without_keypoints_has_no_matches(hloc, counts):
    hloc_plugin.register()
    found = [{"keypoints": torch.zeros(1, n, 2), "descriptors": torch.zeros(1, 128, n)} for n in counts]
    given = model_of("match_features", "root-sift")(pair_data(found, [(64, 48)] * 2))
    assert given["matches0"].tolist() == [[-1] * counts[0]]


def test_more_keypoints_than_hloc_can_number_are_refused(hloc):
    hloc_plugin.register()
    with pytest.raises(SettingsError, match="32767"):
        model_of("extract_features", "root-sift", max_keypoints=32768)
    many = {"keypoints": torch.zeros(1, 32768, 2), "descriptors": torch.zeros(1, 128, 32768)}
    with pytest.raises(InputError, match="32767"):
        model_of("match_features", "root-sift")(pair_data([many, many], [(64, 48)] * 2))


def test_a_matcher_of_another_stage_is_refused(hloc):
    hloc_plugin.register()
    with pytest.raises(SettingsError, match="match_dense"):
        model_of("extract_features", "root-sift", matcher="loftr")
    with pytest.raises(SettingsError, match="extract_features"):
        model_of("match_dense", "xfeat-star", matcher="root-sift")


def test_the_network_is_loaded_once_and_on_the_device_of_the_model(hloc, monkeypatch):
    hloc_plugin.register()
    loaded = []

    def load(name: str, *, device: str, **_: object) -> object:
        loaded.append((name, device))
        return object()

    monkeypatch.setattr(networks.matchers, "load", load)
    networks.load.cache_clear()
    try:
        model = model_of("extract_features", "root-sift")
        model.network.matcher()
        model_of("match_features", "root-sift").network.matcher()
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        assert loaded == [("root-sift", usual)] + [("root-sift", "cpu")] * (usual != "cpu")
        model.to("meta").network.matcher()
        assert loaded[-1] == ("root-sift", "meta")
    finally:
        networks.load.cache_clear()


# Dense matching: where points lie


class Blobs:
    """Finds the bright blobs of two photos and matches them by their height, to hundredths of a pixel."""

    def correspond(self, pairs: list[tuple[Photo, Photo]]) -> list[Correspondences]:
        return [Correspondences(_centres(a), _centres(b), np.ones(3, np.float32)) for a, b in pairs]


def _centres(photo: Photo) -> np.ndarray:
    assert photo.reduction == 1
    grey = photo.pixels[..., 0].astype(np.float64)
    count, labels = cv2.connectedComponents((grey > 4).astype(np.uint8))
    y, x = np.indices(grey.shape)
    rows = []
    for label in range(1, count):
        weight = grey * (labels == label)
        rows.append([weight.max(), (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
    return np.array(sorted(rows), np.float32)[:, 1:]


def draw_blobs(path: Path, size: tuple[int, int], places: np.ndarray, spread: float) -> None:
    y, x = np.indices(size[::-1])
    picture = np.zeros(size[::-1])
    for (across, down), height in zip(places, (120, 180, 250), strict=True):
        picture += height * np.exp(-((x - across) ** 2 + (y - down) ** 2) / 2 / spread**2)
    cv2.imwrite(str(path), np.round(picture).astype(np.uint8))


PLACES = np.array([[410.3, 300.7], [1500.0, 250.5], [2210.6, 1320.2]])


def blobs_placed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> list[np.ndarray]:
    """Through hloc's own preprocessing and back by its own formula, from a large and a small photo."""
    dense = import_module("hloc.match_dense")
    draw_blobs(folder / "large.png", (2999, 2001), PLACES, 16)
    draw_blobs(folder / "small.png", (751, 501), PLACES / 4, 5)
    monkeypatch.setattr(networks, "load", lambda *_: DenseMatcher(Blobs()))
    dataset = dense.ImagePairDataset(folder, dense.confs[name]["preprocessing"], [("large.png", "small.png")])
    image0, image1, scale0, scale1, *_ = dataset[0]
    assert max(image0.shape) == dense.confs[name]["preprocessing"]["resize_max"] < 2999
    assert image1.shape == (3, 501, 751), "small photos are left alone"
    found = model_of("match_dense", name)({"image0": image0[None], "image1": image1[None]})
    back = [
        dense.scale_keypoints(found[f"keypoints{side}"] + 0.5, scale) - 0.5
        for side, scale in enumerate((scale0, scale1))
    ]
    return [points.numpy() for points in back]


@pytest.mark.parametrize("name", ["xfeat-star", "gim-loftr", "gim-dkm"])
def test_dense_matches_come_back_where_they_were(kept_hloc, tmp_path, monkeypatch, name):
    hloc_plugin.register()
    large, small = blobs_placed(tmp_path, monkeypatch, name)
    np.testing.assert_allclose(large, PLACES, atol=0.05)
    np.testing.assert_allclose(small, PLACES / 4, atol=0.05)


class Turned:
    """Says which photo it was shown first."""

    def correspond(self, pairs: list[tuple[Photo, Photo]]) -> list[Correspondences]:
        ones = np.ones((1, 2), np.float32)
        return [Correspondences(a.size[0] * ones, b.size[0] * ones, ones[:, 0]) for a, b in pairs]


@pytest.mark.parametrize(("name", "seen_first"), [("gim-loftr", 32), ("gim-dkm", 16)])
def test_the_second_photo_of_hloc_is_the_one_on_a_grid(hloc, monkeypatch, name, seen_first):
    hloc_plugin.register()
    order = []

    class Noted(Turned):
        def correspond(self, pairs: list[tuple[Photo, Photo]]) -> list[Correspondences]:
            order.append(pairs[0][0].size[0])
            return super().correspond(pairs)

    monkeypatch.setattr(networks, "load", lambda *_: DenseMatcher(Noted()))
    found = model_of("match_dense", name)(
        {"image0": torch.zeros(1, 3, 8, 16), "image1": torch.zeros(1, 3, 8, 32)}
    )
    assert order == [seen_first]
    assert found["keypoints0"].tolist() == [[16, 16]]
    assert found["keypoints1"].tolist() == [[32, 32]]


# Names


def test_names_that_hloc_cannot_hold_are_refused(tmp_path):
    require_usable_names(tmp_path, ["a/b.png", "a-c.png"])
    with pytest.raises(InputError, match=r"a b\.png"):
        require_usable_names(tmp_path, ["c.png", "a b.png"])
    with pytest.raises(InputError, match=r"a-b\.png and a/b\.png"):
        require_usable_names(tmp_path, ["a/b.png", "a-b.png"])


def test_a_pair_list_with_blanks_in_names_is_refused(tmp_path):
    path = tmp_path / "pairs.txt"
    path.write_text("a b\n\nb c\n")
    assert read_pair_names(path) == {"a", "b", "c"}
    path.write_text("a b\na photo b\n")
    with pytest.raises(InputError, match="line 2"):
        read_pair_names(path)
    with pytest.raises(InputError, match="missing"):
        read_pair_names(tmp_path / "missing.txt")


# Command lines


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["gim_sfm.hloc_plugin", *map(str, arguments)])
    stages.main()


def test_an_unknown_stage_tells_the_stages(monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, "extract_faetures")
    assert ended.value.code == 2
    assert "match_dense" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, "--help")
    assert ended.value.code == 0
    assert "match_dense" in capsys.readouterr().out


def test_the_help_of_a_stage_has_our_names(hloc, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, "extract_features", "--help")
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert "--image_dir" in told
    assert "gim-lightglue" in told
    assert "xfeat-star" not in told


def test_a_stage_runs_with_a_conf_of_ours(hloc, monkeypatch, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    run_main(monkeypatch, "extract_features", "--image_dir", tmp_path / "photos", "--export_dir", tmp_path,
             "--conf", "gim-lightglue")  # fmt: skip
    assert "gim_sfm_detector" in (tmp_path / "feats-gim-sfm-gim-lightglue.told").read_text()


def test_names_are_looked_at_before_anything_runs(hloc, monkeypatch, tmp_path):
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    for name in ("a/b.png", "a-b.png"):
        (photos / name).touch()
    with pytest.raises(SystemExit, match=r"a-b\.png and a/b\.png"):
        run_main(monkeypatch, "extract_features", "--image_dir", photos, "--export_dir", tmp_path)
    assert not list(tmp_path.glob("*.told"))


def test_features_of_the_same_matcher_are_taken(hloc, monkeypatch, tmp_path):
    (tmp_path / "pairs.txt").write_text("a b\n")
    flags = ("--pairs", tmp_path / "pairs.txt", "--export_dir", tmp_path)
    with pytest.raises(SystemExit, match="extract_features first"):
        run_main(monkeypatch, "match_features", *flags, "--conf", "gim-lightglue")
    write_features(tmp_path / "feats-gim-sfm-gim-lightglue.h5", {"a": np.ones((2, 2))})
    with pytest.raises(SystemExit, match="no features of 1 photos of the pair list, first of them b"):
        run_main(monkeypatch, "match_features", *flags, "--conf", "gim-lightglue")
    write_features(tmp_path / "feats-gim-sfm-gim-lightglue.h5", {"b": np.ones((2, 2))})
    run_main(monkeypatch, "match_features", *flags, "--conf", "gim-lightglue")
    expected = "feats-gim-sfm-gim-lightglue_matches-gim-sfm-gim-lightglue_pairs"
    assert (tmp_path / "told").read_text() == expected
    write_features(tmp_path / "feats-sift.h5", {name: np.ones((2, 2)) for name in "ab"})
    run_main(monkeypatch, "match_features", *flags, "--conf", "NN")
    assert (tmp_path / "told").read_text() == "feats-sift_matches-NN_pairs"
    with pytest.raises(SystemExit, match="not features of gim-lightglue"):
        run_main(
            monkeypatch,
            "match_features",
            *flags,
            "--conf",
            "gim-lightglue",
            "--features",
            "feats-gim-sfm-root-sift",
        )


def run_and_fail(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run_main(monkeypatch, *arguments)
    return str(ended.value)


def test_what_a_stage_reads_is_looked_for_before_it_runs(hloc, monkeypatch, tmp_path):
    photos, pairs, gone = tmp_path / "photos", tmp_path / "pairs.txt", tmp_path / "gone"
    photos.mkdir()
    pairs.write_text("a b")
    out = ("--export_dir", tmp_path)
    for stage in ("extract_features", "match_dense"):
        told = run_and_fail(monkeypatch, stage, "--image_dir", gone, "--pairs", pairs, *out)
        assert f"--image_dir {gone} is no folder" in told
        assert "the folder of the photos" in told
    for stage in ("match_features", "match_dense"):
        told = run_and_fail(monkeypatch, stage, "--pairs", gone, "--image_dir", photos, *out)
        assert f"--pairs {gone}" in told
        assert "pairs_from" in told
    listed = ("--image_list", tmp_path / "*.list")
    assert "*.list" in run_and_fail(monkeypatch, "extract_features", "--image_dir", photos, *listed, *out)
    (tmp_path / "a.h5").touch()
    matching = ("match_features", "--pairs", pairs, "--conf", "NN")
    assert "a.h5 is damaged" in run_and_fail(monkeypatch, *matching, "--features", "a", *out)
    path = ("--features", tmp_path / "a.h5")
    assert "takes in Python only" in run_and_fail(monkeypatch, *matching, *path, *out)
    assert "feats-sift.h5 is no file" in run_and_fail(monkeypatch, *matching, *out), "which hloc would take"
    assert "--export_dir is missing" in run_and_fail(monkeypatch, *matching, "--features", "a")


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("reconstruction", ("image_dir", "pairs", "features", "matches")),
        ("triangulation", ("image_dir", "pairs", "features", "matches", "reference_sfm_model")),
        ("localize_sfm", ("reference_sfm", "queries", "features", "matches", "retrieval")),
        ("pairs_from_exhaustive", ("image_list", "features", "ref_list", "ref_features")),
        ("pairs_from_retrieval", ("descriptors", "query_list", "db_list", "db_model", "db_descriptors")),
        ("pairs_from_covisibility", ("model",)),
        ("pairs_from_poses", ("model",)),
    ],
)
def test_every_missing_file_is_named(tmp_path, stage, flags):
    gone = tmp_path / "gone"
    for flag in flags:
        with pytest.raises(InputError, match=f"--{flag} {gone}") as refused:
            require_inputs(stage, [f"--{flag}", str(gone), "--output", "pairs.txt"])
        assert refused.value.remedy
        assert "Errno" not in refused.value.message


def test_a_killed_extraction_is_taken_up(hloc, monkeypatch, tmp_path):
    photos, path = tmp_path / "photos", tmp_path / "f.h5"
    (photos / "a").mkdir(parents=True)
    names = ("a/1.png", "a/2.png", "b.png")
    for name in names:
        (photos / name).touch()
    write_features(path, {name: np.ones((30, 2)) for name in names})
    with h5py.File(path, "a", libver="latest") as file:
        del file["a/2.png/descriptors"], file["b.png/image_size"]
    kill_while_writing(path)
    with pytest.raises(OSError, match="already open for write"):
        h5py.File(path, "r")
    flags = ("--image_dir", photos, "--export_dir", tmp_path, "--feature_path", path)
    run_main(monkeypatch, "extract_features", *flags, "--conf", "gim-lightglue")
    assert photo_names(path) == {"a/1.png", "c.png"}, "a photo that is not asked for stays as it is"
    assert len(read_keypoints(path, "a/1.png")[0]) == 30
    run_main(monkeypatch, "extract_features", "--image_dir", photos, "--export_dir", tmp_path)
    assert not (tmp_path / "feats-sift.h5").exists()
    shutil.move(path, tmp_path / "feats-sift.h5")
    with h5py.File(tmp_path / "feats-sift.h5", "a") as file:
        del file["a/1.png/scores"]
        file["b.png/keypoints"] = np.zeros((1, 2))
    run_main(monkeypatch, "extract_features", "--image_dir", photos, "--export_dir", tmp_path)
    assert photo_names(tmp_path / "feats-sift.h5") == {"a/1.png", "c.png"}, "hloc's own may have no scores"


def kill_while_writing(path: Path) -> None:
    """Leaves the file as hloc does when it is killed in the middle of a photo or pair."""
    code = (
        "import h5py, os, signal, sys\n"
        "file = h5py.File(sys.argv[1], 'a', libver='latest')\n"
        "file['c.png/keypoints'] = [[0.0, 0.0]]\n"
        "file.flush()\n"
        "file['c.png/descriptors'] = [[0.0, 0.0]]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9


def test_a_file_that_is_being_written_is_not_taken_from_the_writer(tmp_path):
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.flush()
        with pytest.raises(InputError, match="end the run that uses it"), changeable(path):
            pass
        file["a"] = [1]
    with changeable(path) as file:
        assert list(file) == ["a"]


def test_the_checksum_is_that_of_the_format(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w", libver="latest"):
        pass
    block = (tmp_path / "f.h5").read_bytes()[:48]
    assert checksum(block[:44]) == int.from_bytes(block[44:], "little")


def test_dense_matches_go_to_files_of_their_own_matcher(hloc, monkeypatch, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "pairs.txt").write_text("a bb\na c")
    flags = ("--pairs", tmp_path / "pairs.txt", "--image_dir", tmp_path, "--export_dir", out)
    run_main(monkeypatch, "match_dense", *flags, "--conf", "xfeat-star")
    expected = ["feats_matches-gim-sfm-xfeat-star.h5", "matches-gim-sfm-xfeat-star_pairs.h5"]
    assert sorted(path.name for path in out.iterdir()) == expected
    run_main(monkeypatch, "match_dense", *flags, "--conf", "gim-dkm", "--matches", out / "m.h5")
    assert (out / "m.h5").exists()
    run_main(monkeypatch, "match_dense", *flags, "--conf", "loftr")
    assert (out / "matches-loftr_pairs.h5").exists(), "hloc's own as well"
    assert (out / "feats_matches-loftr.h5").exists()
    (tmp_path / "pairs.txt").write_text("a/b a-b")
    with pytest.raises(SystemExit, match="a-b and a/b"):
        run_main(monkeypatch, "match_dense", *flags, "--conf", "xfeat-star")


def test_pairs_that_were_not_written_are_matched_again(tmp_path):
    path = tmp_path / "m.h5"
    take_out_unwritten(path)
    with h5py.File(path, "w") as file:
        for key in ("a/b", "a_c"):
            file[f"{key}/matches0"], file[f"{key}/matching_scores0"] = [0], [1.0]
        file.create_group("a/d")
        file["b/c/matches0"] = [0]
    take_out_unwritten(path)
    with h5py.File(path) as file:
        assert sorted(file["a"]) == ["b"]
        assert "a_c" in file
        assert "c" not in file["b"]
    path.write_bytes(b"cut short")
    with pytest.raises(InputError, match=r"m\.h5"):
        take_out_unwritten(path)


# Dense matching that is killed

CONF = {"output": "m", "max_error": 2, "cell_size": 8}


def dense_run(folder: Path, module: ModuleType, pairs: list[tuple[str, str]]) -> tuple[Path, Path]:
    (folder / "pairs.txt").write_text("\n".join(" ".join(pair) for pair in pairs))
    matches, features = folder / "m.h5", folder / "f.h5"
    DenseMatching(module)(CONF, folder / "pairs.txt", folder, matches, features)
    return matches, features


def test_what_a_killed_run_matched_is_not_matched_again(hloc, tmp_path, monkeypatch):
    dense = import_module("hloc.match_dense")
    matched, original = [], dense.match_dense

    def match(conf: dict, pairs: list, *rest: object, **more: object) -> None:
        if matched == pairs_to_do[:2]:
            raise KeyboardInterrupt
        matched.extend(pairs)
        original(conf, pairs, *rest, **more)

    pairs_to_do = [("a", "bb"), ("a", "ccc"), ("bb", "ccc")]
    monkeypatch.setattr(dense, "match_dense", match)
    monkeypatch.setattr("gim_sfm.hloc_plugin.dense.PAIRS_TO_A_FILE", 1)
    with pytest.raises(KeyboardInterrupt):
        dense_run(tmp_path, dense, pairs_to_do)
    assert not (tmp_path / "m.h5").exists()
    matched.clear()
    matches, features = dense_run(tmp_path, dense, pairs_to_do)
    assert matched == [("bb", "ccc")]
    assert photo_names(features) == {"a", "bb", "ccc"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.h5", "m.h5", "pairs.txt", "site"]
    matched.clear()
    dense_run(tmp_path, dense, [*pairs_to_do, ("a", "dddd")])
    assert matched == [("a", "dddd")]
    assert photo_names(features) == {"a", "bb", "ccc", "dddd"}
    for pair in [*pairs_to_do, ("a", "dddd")]:
        assert len(read_matches(matches, *pair)[0]) == 1


def test_pairs_that_hloc_left_without_keypoints_are_taken_up(tmp_path):
    path, raw = tmp_path / "m.h5", tmp_path / "raw"
    with h5py.File(path, "w") as file:
        for key in ("a/b", "a/c", "a/d", "b/c"):
            for side in "01":
                file[f"{key}/keypoints{side}"] = np.full((2, 2), 7.0)
            file[f"{key}/scores"] = np.ones(2)
        for key, largest in (("a/b", 4), ("a/c", 99), ("a/d", 0)):
            file[f"{key}/matches0"], file[f"{key}/matching_scores0"] = [-1, largest], [0.0, 1.0]
        file.create_group("c/d")
    pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("c", "d")]
    take_out_unsound(path, pairs, {"a": 5, "b": 5, "c": 5}, raw)
    with h5py.File(path) as file:
        assert sorted(file["a"]) == ["b"], "c has no keypoint 99, d no keypoints at all"
        assert list(file["b"]) == []
    with h5py.File(raw / "unfinished.h5") as file:
        assert sorted(file["a"]) == ["c", "d"]
        assert sorted(file["b"]["c"]) == ["keypoints0", "keypoints1", "scores"]
        assert "c" not in file


@pytest.mark.parametrize("key", ["b/a-1", "a-1_b", "b_a-1"])
def test_pairs_without_keypoints_are_found_in_either_order_and_under_old_keys(tmp_path, key):
    path, raw, turned = tmp_path / "m.h5", tmp_path / "raw", key.startswith("b")
    with h5py.File(path, "w") as file:
        for side in (0, 1):
            file[f"{key}/keypoints{side}"] = np.full((2, 2), float(side))
        file[f"{key}/scores"] = np.ones(2)
        file[f"a-1_b{'/' if turned else '_'}c/matches0"] = [0]  # of another photo or pair
    take_out_unsound(path, [("a/1", "b")], {"a/1": 5, "b": 5}, raw)
    with h5py.File(path) as file:
        assert key not in file
        assert len(pair_groups(file)) == 1 + (key == "b/a-1")  # the empty group of b
    with h5py.File(raw / "unfinished.h5") as file:
        assert file["a-1/b/keypoints0"][0, 0] == turned
        assert file["a-1/b/keypoints1"][0, 0] != turned


def test_a_sound_pair_in_the_other_order_stays(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["b/a/matches0"], file["b/a/matching_scores0"] = [-1, -1, 7], [0.0, 0.0, 1.0]
    take_out_unsound(tmp_path / "m.h5", [("a", "b")], {"a": 8, "b": 3}, tmp_path / "raw")
    with h5py.File(tmp_path / "m.h5") as file:
        assert "b/a" in file


def some_dense_points(path: Path, pairs: list[tuple[str, str]]) -> None:
    with h5py.File(path, "a") as file:
        for first, second in pairs:
            generator = np.random.default_rng(ord(first) * 256 + ord(second))
            group = file.create_group(f"{first}/{second}")
            places = generator.uniform(0, 80, (60, 2)).astype(np.float32)
            group["keypoints0"] = places
            group["keypoints1"] = places + generator.normal(0, 0.3, (60, 2)).astype(np.float32)
            group["scores"] = generator.uniform(0.5, 1, 60).astype(np.float32)


def test_the_result_is_that_of_hloc_whether_killed_or_not(kept_hloc, tmp_path, monkeypatch):
    dense = import_module("hloc.match_dense")
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("c", "d")]
    monkeypatch.setattr(dense, "tqdm", lambda items, **_: items)

    def match(_conf: dict, pairs: list, _folder: Path, path: Path, existing_refs: object = ()) -> None:
        some_dense_points(path, pairs)

    monkeypatch.setattr(dense, "match_dense", match)
    monkeypatch.setattr(dense, "find_unique_new_pairs", lambda pairs, _path: sorted(pairs))
    (tmp_path / "pairs.txt").write_text("\n".join(" ".join(pair) for pair in pairs))
    theirs = tmp_path / "theirs_m.h5", tmp_path / "theirs_f.h5"
    for path in theirs[1:]:
        h5py.File(path, "w").close()
    dense.match_and_assign(CONF, tmp_path / "pairs.txt", tmp_path, *theirs, feature_paths_refs=[])
    original, calls = dense.aggregate_matches, []

    def killed(*arguments: object, **more: object) -> object:
        calls.append(1)
        found = original(*arguments, **more)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(dense, "aggregate_matches", killed)
    with pytest.raises(KeyboardInterrupt):
        dense_run(tmp_path, dense, pairs)
    ours = dense_run(tmp_path, dense, pairs)
    for name in "abcd":
        np.testing.assert_array_equal(read_keypoints(ours[1], name)[0], read_keypoints(theirs[1], name)[0])
    for pair in pairs:
        np.testing.assert_array_equal(read_matches(ours[0], *pair)[0], read_matches(theirs[0], *pair)[0])


# Hloc itself, from photos to poses


def run_hloc(stage: str, *arguments: object) -> str:
    # hloc's loaders warn of fewer cores than they have workers.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "gim_sfm.hloc_plugin", stage, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


def test_hloc_reconstructs_with_a_matcher_of_ours(kept_hloc, drawn_photos, tmp_path):
    pairs, name = tmp_path / "pairs.txt", "root-sift"
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))[:5]
    pairs.write_text("\n".join(f"{a} {b}" for i, a in enumerate(names) for b in names[i + 1 :]))
    run_hloc(
        "extract_features", "--image_dir", drawn_photos, "--export_dir", tmp_path, "--conf", name, "--as_half"
    )
    features = tmp_path / "feats-gim-sfm-root-sift.h5"
    photo = read_photo(drawn_photos / names[0])
    expected = matchers.load(name).detector.extract([photo])[0].keypoints
    places, uncertainty = read_keypoints(features, names[0])
    np.testing.assert_allclose(places, expected, atol=1e-4)  # float16 would be off by up to 0.25
    assert uncertainty == 1
    run_hloc("match_features", "--pairs", pairs, "--export_dir", tmp_path, "--conf", name)
    matches = tmp_path / "feats-gim-sfm-root-sift_matches-gim-sfm-root-sift_pairs.h5"
    files = ("--image_dir", drawn_photos, "--pairs", pairs, "--features", features, "--matches", matches)
    told = run_hloc("reconstruction", "--sfm_dir", tmp_path / "sfm", *files, "--camera_mode", "SINGLE")
    assert "num_reg_frames = 5" in told
    known = ("--reference_sfm_model", tmp_path / "sfm")
    told = run_hloc("triangulation", "--sfm_dir", tmp_path / "points", *known, *files)
    assert "num_points3D = 0" not in told


def test_hloc_matches_densely_with_a_matcher_of_ours(kept_hloc, drawn_photos, tmp_path, xfeat_weights):
    names = sorted(path.name for path in drawn_photos.glob("*.jpg"))[:3]
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(f"{a} {b}" for i, a in enumerate(names) for b in names[i + 1 :]))
    run_hloc(
        "match_dense",
        "--image_dir",
        drawn_photos,
        "--pairs",
        pairs,
        "--export_dir",
        tmp_path,
        "--conf",
        "xfeat-star",
    )
    matches = tmp_path / "matches-gim-sfm-xfeat-star_pairs.h5"
    assert photo_names(tmp_path / "feats_matches-gim-sfm-xfeat-star.h5") == set(names)
    assert len(read_matches(matches, names[1], names[0])[0]) > 100
