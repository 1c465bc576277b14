import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import gim_sfm.evaluation.sfm_scores as module
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.errors import GimSfmError, InputError, OutputError, ReconstructionError, SettingsError
from gim_sfm.evaluation.sfm_scores import SfmScores, evaluate_sfm, judge_poses, read_truth

SETTINGS = {"matcher": "root-sift", "max_keypoints": 1000, "self_calibration": "off"}


@pytest.fixture(scope="module")
def photos(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five of the drawn photos."""
    folder = tmp_path_factory.mktemp("scored") / "photos"
    folder.mkdir()
    for path in sorted(drawn_photos.iterdir())[:5]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def truth(drawn_photos: Path) -> Path:
    return drawn_photos.parent / "ground_truth.json"


@pytest.fixture(scope="module")
def scored(photos: Path, truth: Path, tmp_path_factory: pytest.TempPathFactory) -> SfmScores:
    return evaluate_sfm(photos, truth, tmp_path_factory.mktemp("out"), seeds=2, **SETTINGS)


@pytest.fixture
def seeds_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seeds that are really reconstructed."""
    real, seen = module.reconstruct, []

    def counting(*given, seed, **settings):
        seen.append(seed)
        return real(*given, seed=seed, **settings)

    monkeypatch.setattr(module, "reconstruct", counting)
    return seen


def again(scored: SfmScores, tmp_path: Path) -> Path:
    """A copy of the output, to go on from."""
    out = tmp_path / "out"
    shutil.copytree(scored.file.parent, out)
    return out


def test_every_seed_is_scored_against_the_true_cameras(scored: SfmScores) -> None:
    assert [each.seed for each in scored.seeds] == [0, 1]
    for each in scored.seeds:
        assert set(each.figures) == set(module.COLUMNS)
        assert each.figures["registered"] == 5
        assert 0.7 < each.figures["auc@5"] <= each.figures["auc@10"] < 1
        assert 0 < each.figures["reprojection_error"] < 2
        assert each.figures["track_length"] >= 2
    assert scored.worst["auc@1"] == min(each.figures["auc@1"] for each in scored.seeds)
    assert scored.worst["seconds"] == max(each.figures["seconds"] for each in scored.seeds)
    assert scored.median["points"] == np.mean([each.figures["points"] for each in scored.seeds])


def test_the_table_and_the_file_tell_everything(scored: SfmScores) -> None:
    assert "AUC@10" in str(scored)
    assert "In the truth, but no photo here, not counted: " in str(scored)
    assert len({len(line) for line in str(scored).splitlines()[1:6]}) == 1
    told = json.loads(scored.file.read_text())
    assert told["seeds"][1]["figures"] == dict(scored.seeds[1].figures)
    assert told["median"] == scored.median
    assert len(told["with_truth"]) == 5
    assert told["recipe"]["matching"]["matcher"] == "root-sift"


def test_only_missing_seeds_are_run(
    scored: SfmScores, photos: Path, truth: Path, seeds_run: list[int], tmp_path: Path
) -> None:
    out = again(scored, tmp_path)
    extended = evaluate_sfm(photos, truth, out, seeds=3, **SETTINGS)
    assert seeds_run == [2]
    assert extended.seeds[:2] == scored.seeds
    shorter = evaluate_sfm(photos, truth, out, seeds=1, **SETTINGS)
    assert shorter.seeds == scored.seeds[:1]
    assert seeds_run == [2]


def test_killed_between_seeds_what_is_done_stays(
    scored: SfmScores, photos: Path, truth: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = again(scored, tmp_path)

    def killed(*given, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "reconstruct", killed)
        evaluate_sfm(photos, truth, out, seeds=3, **SETTINGS)
    assert evaluate_sfm(photos, truth, out, seeds=2, **SETTINGS).seeds == scored.seeds


@pytest.mark.parametrize("changed", ["settings", "truth", "photo"])
def test_other_inputs_start_anew(
    scored: SfmScores,
    photos: Path,
    truth: Path,
    changed: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    out, settings = again(scored, tmp_path), dict(SETTINGS)
    if changed == "settings":
        settings["max_keypoints"] = 900
    if changed == "truth":
        told = json.loads(truth.read_text())
        next(iter(told["images"].values()))["cam_from_world"][0][3] += 1.0
        truth = tmp_path / "moved.json"
        truth.write_text(json.dumps(told))
    if changed == "photo":
        photos = shutil.copytree(photos, tmp_path / "photos")
        first = sorted(photos.iterdir())[0]
        first.write_bytes(first.read_bytes() + b"\0")

    def not_mapped(*given, **settings):
        raise ReconstructionError("Not asked for here.", remedy="")

    monkeypatch.setattr(module, "reconstruct", not_mapped)
    anew = evaluate_sfm(photos, truth, out, seeds=1, **settings)
    assert anew.seeds[0].failure == "Not asked for here."


def test_a_seed_without_a_model_counts_as_nothing_registered(
    scored: SfmScores, photos: Path, truth: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*given, **settings):
        raise ReconstructionError("No two photos hold together.", remedy="Take more.")

    monkeypatch.setattr(module, "reconstruct", fails)
    with_failure = evaluate_sfm(photos, truth, again(scored, tmp_path), seeds=3, **SETTINGS)
    lost = with_failure.seeds[2]
    assert lost.failure == "No two photos hold together."
    assert lost.figures["registered"] == 0
    assert lost.figures["auc@10"] == 0
    assert "points" not in lost.figures
    assert with_failure.worst["auc@10"] == 0
    assert with_failure.median["points"] == scored.median["points"]
    assert "Seed 2 gave no model: No two photos hold together." in str(with_failure)


def test_photos_that_hold_nothing_in_common_are_a_failure_of_every_seed(tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(noise.integers(256, size=(160, 240, 3), dtype=np.uint8)).save(
            tmp_path / "photos" / name
        )
    entry = {"width": 240, "height": 160, "K": np.eye(3).tolist()}
    poses = [np.eye(3, 4).tolist(), np.column_stack([np.eye(3), [1, 0, 0]]).tolist()]
    images = {
        name: {**entry, "cam_from_world": pose} for name, pose in zip(("a.png", "b.png"), poses, strict=True)
    }
    (tmp_path / "truth.json").write_text(json.dumps({"images": images}))
    found = evaluate_sfm(tmp_path / "photos", tmp_path / "truth.json", tmp_path / "out", seeds=1, **SETTINGS)
    assert found.worst["registered"] == 0
    assert found.seeds[0].failure


def test_seeds_start_where_asked_and_share_no_try(
    photos: Path, truth: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*given, **settings):
        raise ReconstructionError("Not mapped here.", remedy="")

    monkeypatch.setattr(module, "reconstruct", fails)
    found = evaluate_sfm(photos, truth, tmp_path, seeds=3, seed=7, tries=2, **SETTINGS)
    assert [each.seed for each in found.seeds] == [7, 9, 11]


def test_a_model_serves_as_truth(scored: SfmScores, photos: Path, tmp_path: Path) -> None:
    out = again(scored, tmp_path)
    model = shutil.copytree(out / "sparse" / "0", tmp_path / "model")
    itself = judge_poses(read_truth(model), read_truth(model))
    assert itself["auc@1"] == pytest.approx(1.0, abs=1e-4)
    assert itself["position_error"] == pytest.approx(0.0, abs=1e-6)
    found = evaluate_sfm(photos, model, tmp_path / "new", seeds=1, **SETTINGS)
    assert found.median["registered"] == 5
    assert found.median["auc@1"] > 0.8


def test_a_position_error_needs_cameras_off_one_line(drawn_world: DrawnWorld) -> None:
    poses = drawn_world.cam_from_world
    two = dict(list(poses.items())[:2])
    assert "position_error" not in judge_poses(two, poses)
    assert "position_error" in judge_poses(poses, poses)


def bad_json(tmp_path: Path) -> Path:
    path = tmp_path / "bad.json"
    path.write_text("{}")
    return path


def other_names(tmp_path: Path) -> Path:
    path = tmp_path / "other.json"
    entry = {"width": 1, "height": 1, "K": np.eye(3).tolist(), "cam_from_world": np.eye(3, 4).tolist()}
    path.write_text(json.dumps({"images": {"elsewhere.jpg": entry}}))
    return path


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (bad_json, "no ground truth"),
        (lambda folder: folder / "absent.json", "no ground truth"),
        (other_names, r"knows 0 of the 5 photos.*view.*elsewhere\.jpg"),
        (lambda folder: folder, "no COLMAP model"),
    ],
)
def test_a_truth_that_does_not_fit_is_refused(photos: Path, tmp_path: Path, make, told: str) -> None:
    with pytest.raises(InputError, match=told):
        evaluate_sfm(photos, make(tmp_path), tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_scores_of_something_else_are_not_overwritten(photos: Path, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "sfm_scores.json").write_text("[1]")
    with pytest.raises(OutputError, match="holds no scores"):
        evaluate_sfm(photos, truth, tmp_path, **SETTINGS)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"matcher": "root-shift"}, {"keypoints": 3}])
def test_wrong_settings_are_refused(photos: Path, truth: Path, tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(SettingsError) as refused:
        evaluate_sfm(photos, truth, tmp_path / "out", **(SETTINGS | wrong))
    assert isinstance(refused.value, GimSfmError)
    assert refused.value.remedy
