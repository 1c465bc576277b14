"""A matcher put to a benchmark: exact truth, resuming, bad images, other estimators, and the command."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from zeb_kit import pair_line, write_photo_set

import gim_sfm
from gim_sfm import cli, matchers
from gim_sfm.drawn_world import DrawnWorld
from gim_sfm.errors import InputError, SettingsError, WeightsError
from gim_sfm.evaluation.results import read_results
from gim_sfm.geometry import read_ground_truth, relative_pose
from gim_sfm.matchers import MATCHERS, MatcherRow
from gim_sfm.matchers.contract import DenseMatcher, PhotoPair
from gim_sfm.matchers.sift import NearestNeighbourMatcher, RootSiftDetector
from gim_sfm.types import Correspondences

SMALL: Any = {"matcher": "root-sift", "max_keypoints": 1500}


@pytest.fixture(scope="module")
def benchmark(drawn_world: DrawnWorld, drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small sets of the drawn courtyard; do not change what is in it."""
    root = tmp_path_factory.mktemp("benchmark")
    names = sorted(drawn_world.photos)
    write_photo_set(root / "gtasfm", drawn_photos, list(combinations(names[:4], 2)))
    write_photo_set(root / "yard", drawn_photos, list(combinations(names[4:7], 2)), separator="_")
    return root


@pytest.fixture
def own(benchmark: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(benchmark, tmp_path / "own")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many images and pairs went through root-sift."""
    counts = {"images": 0, "pairs": 0}
    extract, match = RootSiftDetector.extract, NearestNeighbourMatcher.match

    def extracting(self: Any, photos: Any) -> Any:
        counts["images"] += len(photos)
        return extract(self, photos)

    def matching(self: Any, pairs: Any) -> Any:
        counts["pairs"] += len(pairs)
        return match(self, pairs)

    monkeypatch.setattr(RootSiftDetector, "extract", extracting)
    monkeypatch.setattr(NearestNeighbourMatcher, "match", matching)
    return counts


def errors(folder: Path) -> dict[str, dict[str, float]]:
    found = [read_results(path) for path in sorted(folder.glob("*.txt"))]
    return {each.set: dict(zip(each.identifiers, each.errors.tolist(), strict=True)) for each in found}


def test_a_good_matcher_scores_high_where_the_truth_is_exact(benchmark, tmp_path, counted) -> None:
    trial = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **SMALL)
    found = errors(trial.folder)
    assert {name: len(pairs) for name, pairs in found.items()} == {"GTA-SfM": 6, "yard": 3}
    assert np.median([error for pairs in found.values() for error in pairs.values()]) < 0.5
    assert counted == {"images": 7, "pairs": 9}
    assert trial.folder == tmp_path / "root-sift-1500kp" / "official"
    told = str(trial)
    assert "GIM_DKM" in told
    assert "6 of 5029 pairs" in told
    assert "yard" in told
    record = json.loads((trial.folder / "trial.json").read_text())
    assert {name: facts["pairs"] for name, facts in record["sets"].items()} == {"GTA-SfM": 6, "yard": 3}
    assert record["sets"]["yard"]["made_by"]["matcher"]["max_keypoints"] == 1500
    assert not list(tmp_path.rglob("features*"))


def test_views_tell_how_far_the_cameras_turn(benchmark, drawn_world, tmp_path) -> None:
    trial = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=["yard"], **SMALL)
    head, *lines = (trial.folder / "views.tsv").read_text().splitlines()
    assert head == "identifier\tdegrees"
    names = sorted(drawn_world.photos)[4:7]
    angle = {line.split("\t")[0]: float(line.split("\t")[1]) for line in lines}
    near, far = (angle[f"drawn#{names[0]}#{other}"] for other in names[1:])
    assert 3 < near < far < 90


def test_another_estimator_matches_nothing_again(benchmark, tmp_path, counted) -> None:
    official = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **SMALL)
    modern = gim_sfm.evaluate_zeb(
        benchmark, out=tmp_path, estimator="poselib", thresholds=[1.0, 2.0], seeds=2, **SMALL
    )
    assert counted == {"images": 7, "pairs": 9}
    assert modern.folder == official.folder.parent / "poselib"
    (sweep,) = modern.sweep
    assert {(run.pixels, run.seed) for run in sweep.means} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    means = {
        pixels: np.mean([sweep.means[run] for run in sweep.means if run.pixels == pixels])
        for pixels in (1, 2)
    }
    assert sweep.best.pixels == max(means, key=lambda pixels: means[pixels])
    assert "best of these thresholds" in str(modern)
    assert errors(modern.folder).keys() == errors(official.folder).keys()


def test_the_same_command_again_computes_nothing(benchmark, tmp_path, counted, monkeypatch) -> None:
    first = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **SMALL)
    counted.update(images=0, pairs=0)
    monkeypatch.setattr(cv2, "findEssentialMat", None)
    again = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **SMALL)
    assert counted == {"images": 0, "pairs": 0}
    assert str(again) == str(first)


def test_interrupted_it_goes_on_and_ends_alike(benchmark, tmp_path, counted, monkeypatch) -> None:
    whole = gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "whole", **SMALL)
    counted.update(images=0, pairs=0)
    match = NearestNeighbourMatcher.match

    def failing(self: Any, pairs: Any) -> Any:
        if counted["pairs"] == 4:
            raise KeyboardInterrupt
        return match(self, pairs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(NearestNeighbourMatcher, "match", failing)
        gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "cut", **SMALL)
    cut = gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "cut", **SMALL)
    assert counted == {"images": 7, "pairs": 9}
    assert errors(cut.folder) == errors(whole.folder)


KILLED = """
import os, signal, sys
import gim_sfm
from gim_sfm import cli, matchers
from gim_sfm.store import MatchStore
write, done = MatchStore.write, []
def killing(self, *arguments):
    write(self, *arguments)
    self.flush()
    done.append(1)
    if len(done) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
MatchStore.write = killing
gim_sfm.evaluate_zeb(sys.argv[1], out=sys.argv[2], matcher="root-sift", max_keypoints=1500)
"""


def test_killed_it_goes_on_and_ends_alike(benchmark, tmp_path, counted) -> None:
    whole = gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "whole", **SMALL)
    counted.update(images=0, pairs=0)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(benchmark), str(tmp_path / "cut")],
        check=False,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == -signal.SIGKILL
    cut = gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "cut", **SMALL)
    assert counted == {"images": 3, "pairs": 5}
    assert errors(cut.folder) == errors(whole.folder)


def test_a_changed_image_is_matched_anew_and_a_touched_one_is_not(own, tmp_path, counted) -> None:
    gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **SMALL)
    counted.update(images=0, pairs=0)
    first, second, *_ = sorted((own / "gtasfm").glob("*.png"))
    os.utime(first)
    gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **SMALL)
    assert counted["pairs"] == 0
    cv2.imwrite(str(second), cv2.GaussianBlur(cv2.imread(str(second)), (3, 3), 0))
    gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **SMALL)
    assert counted == {"images": 4, "pairs": 3}


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_pairs_of_a_broken_image_are_skipped_and_counted_or_refused(own, tmp_path, content) -> None:
    broken = min((own / "gtasfm").glob("*.png"))
    broken.write_bytes(content)
    with pytest.raises(InputError, match=broken.name):
        gim_sfm.evaluate_zeb(own, out=tmp_path / "out", strict=True, **SMALL)
    trial = gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **SMALL)
    (facts,) = (facts for facts in trial.sets if facts.name == "GTA-SfM")
    assert (facts.pairs, len(facts.skipped)) == (3, 3)
    assert broken.name in facts.skipped[0].reason
    assert "3 pairs skipped" in str(trial)


def test_a_set_whose_images_are_all_broken_is_told_and_refused_alone(own, tmp_path) -> None:
    for path in (own / "yard").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match="No pair is left"):
        gim_sfm.evaluate_zeb(own, out=tmp_path / "out", sets=["yard"], **SMALL)
    trial = gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **SMALL)
    assert "yard: 3 pairs skipped" in str(trial)
    assert errors(trial.folder).keys() == {"GTA-SfM"}


def test_methods_of_one_folder_stand_in_one_table(benchmark, tmp_path) -> None:
    gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=["yard"], **SMALL)
    other = gim_sfm.evaluate_zeb(
        benchmark, out=tmp_path, sets=["yard"], matcher="root-sift", max_keypoints=100, label="few"
    )
    assert other.folder == tmp_path / "root-sift-few" / "official"
    assert "root-sift few" in str(other)
    assert "root-sift 1500kp" in str(other)


def test_results_of_both_estimators_can_be_scored_together_and_compared_one_by_one(
    benchmark, tmp_path
) -> None:
    official = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=["yard"], **SMALL)
    modern = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=["yard"], estimator="magsac", **SMALL)
    told = str(gim_sfm.score([tmp_path]))
    assert "> root-sift 1500kp " in told
    assert "> root-sift 1500kp-magsac " in told
    assert "1500kp-magsac" in str(gim_sfm.compare(official.folder, modern.folder, tmp_path / "page"))
    with pytest.raises(InputError, match="holds 2 methods"):
        gim_sfm.compare(tmp_path / "root-sift-1500kp", modern.folder, tmp_path / "page")


@pytest.mark.parametrize("estimator", ["official", "poselib"])
def test_sets_may_be_run_in_turns(benchmark, tmp_path, estimator) -> None:
    for name in ("yard", "GTA"):
        trial = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=[name], estimator=estimator, **SMALL)
    assert errors(trial.folder).keys() == {"GTA-SfM", "yard"}
    assert len((trial.folder / "views.tsv").read_text().splitlines()) == 1 + 9
    assert json.loads((trial.folder / "trial.json").read_text())["sets"].keys() == {"GTA-SfM", "yard"}


def test_a_label_belongs_to_one_matcher_with_one_set_of_settings(benchmark, tmp_path, monkeypatch) -> None:
    few: Any = {"sets": ["yard"], "matcher": "root-sift", "label": "mine"}
    gim_sfm.evaluate_zeb(benchmark, out=tmp_path, max_keypoints=100, **few)
    with pytest.raises(SettingsError, match="other max_keypoints"):
        gim_sfm.evaluate_zeb(benchmark, out=tmp_path, max_keypoints=200, **few)
    monkeypatch.setattr(matchers, "weights_digest", lambda *_: "abcdef0123")
    with pytest.raises(SettingsError, match="other weights"):
        gim_sfm.evaluate_zeb(benchmark, out=tmp_path, max_keypoints=100, **few)


def test_weights_replaced_under_the_same_name_are_loaded_anew(benchmark, tmp_path, monkeypatch) -> None:
    built = []

    def building(setup: Any) -> Any:
        built.append(setup)
        return MATCHERS["root-sift"].build(setup)

    row = MatcherRow("trained", "sparse", "", "", (), 600, 300, building)
    monkeypatch.setitem(MATCHERS, "trained", row)
    file = tmp_path / "last.ckpt"
    file.write_bytes(b"")
    for digest in ("111111aa", "222222bb"):
        monkeypatch.setattr(matchers, "weights_digest", lambda *_, digest=digest: digest)
        trial = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, sets=["yard"], matcher="trained", weights=file)
    assert len(built) == 2
    assert trial.folder.parent.name == "trained-last-222222"
    assert "> trained last-111111 " in str(trial)


def test_weights_that_are_not_there_are_refused(benchmark, tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.ckpt"):
        gim_sfm.evaluate_zeb(benchmark, out=tmp_path, matcher="root-sift", weights=tmp_path / "gone.ckpt")


def test_only_rivals_on_the_same_images_and_pairs_stand_in_the_table(own, tmp_path) -> None:
    few: Any = {"sets": ["yard"], "matcher": "root-sift"}
    other = gim_sfm.evaluate_zeb(own, out=tmp_path / "out", max_keypoints=200, **few)
    shutil.copytree(other.folder, tmp_path / "out" / "copy" / "official")
    told = str(gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **few))
    assert "> root-sift 200kp" in told
    assert "root-sift-200kp is not in the table: it holds root-sift 200kp once more" in told
    gim_sfm.evaluate_zeb(own, out=tmp_path / "out", sets=["GTA"], matcher="root-sift", label="elsewhere")
    path = min((own / "yard").glob("*.txt"))
    path.write_text(path.read_text().replace(" 0.5 0.5 ", " 0.4 0.4 "))
    told = str(gim_sfm.evaluate_zeb(own, out=tmp_path / "out", **few))
    assert "> root-sift 200kp" not in told
    assert "root-sift-200kp is not in the table: images or pairs of yard were others" in told
    assert "root-sift-elsewhere is not in the table: it was not put to yard" in told


def test_damaged_notes_and_results_of_others_do_no_harm(benchmark, tmp_path) -> None:
    few: Any = {"sets": ["yard"], "matcher": "root-sift"}
    other = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, max_keypoints=200, **few)
    first = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **few)
    (path,) = other.folder.glob("*.txt")
    path.write_text("damaged\nonce")
    (tmp_path / "root-sift" / "predictions" / "yard" / "images.json").write_text("{")
    (first.folder / "trial.json").write_text("[]")
    (first.folder / "views.tsv").write_text("identifier\nwrong")
    again = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, **few)
    assert again.sets[0].matched == 0
    assert "root-sift-200kp is not in the table" in str(again)


def test_modern_estimators_do_not_stand_beside_the_published_rows(benchmark, tmp_path) -> None:
    few: Any = {"sets": ["GTA"], "matcher": "root-sift"}
    assert "GIM_DKM" not in str(gim_sfm.evaluate_zeb(benchmark, out=tmp_path, estimator="usac", **few))
    told = str(gim_sfm.evaluate_zeb(benchmark, out=tmp_path, image_size=500, **few))
    assert "GIM_DKM" in told
    assert "500 pixels at most, not as the published" in told


class Centres:
    """Sees both images at once; gives four matches, one less than a pose needs."""

    def __init__(self) -> None:
        self.sizes: set[tuple[int, ...]] = set()

    def correspond(self, pairs: Sequence[PhotoPair]) -> list[Correspondences]:
        self.sizes |= {photo.pixels.shape for pair in pairs for photo in pair}
        points = np.array([[1, 1], [1, 9], [9, 1], [9, 9]], np.float32)
        return [Correspondences(points, points, np.ones(4, np.float32)) for _ in pairs]


def test_dense_matchers_see_the_images_and_too_few_matches_are_failures(
    benchmark, tmp_path, monkeypatch
) -> None:
    matcher = Centres()
    row = MatcherRow("centres", "dense", "", "", (), 512, 4, lambda _setup: DenseMatcher(matcher))
    monkeypatch.setitem(MATCHERS, "centres", row)
    trial = gim_sfm.evaluate_zeb(benchmark, out=tmp_path, matcher="centres")
    assert matcher.sizes == {(426, 640, 3)}
    assert all(np.isinf(error) for pairs in errors(trial.folder).values() for error in pairs.values())


def test_the_protocol_says_at_what_size_published_sets_are_shown(benchmark, tmp_path, monkeypatch) -> None:
    seen = []
    build = MATCHERS["root-sift"].build

    def building(setup: Any) -> Any:
        seen.append(setup.image_size)
        return build(setup)

    row = MatcherRow("own-size", "sparse", "", "", (), 600, 900, building)
    monkeypatch.setitem(MATCHERS, "own-size", row)
    gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "a", matcher="own-size")
    gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "b", matcher="own-size", image_size=320)
    assert seen == [640, 600, 320]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"matcher": "root-shift"}, "root-sift"),
        ({"estimator": "posselib"}, "poselib"),
        ({"thresholds": [1.0]}, "one threshold"),
        ({"estimator": "usac", "thresholds": [-1.0]}, "greater than 0"),
        ({"label": "two words"}, "label"),
        ({"label": "a/b"}, "label"),
        ({"estimator": "usac", "thresholds": [np.inf]}, "finite"),
        ({"seeds": 0}, "seeds"),
        ({"masks": "folder"}, "masks"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(benchmark, tmp_path, wrong, told) -> None:
    with pytest.raises(SettingsError, match=told):
        gim_sfm.evaluate_zeb(benchmark, out=tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_a_list_of_pairs_with_photos_in_folders(drawn_world, drawn_photos, tmp_path) -> None:
    truth = read_ground_truth(drawn_photos.parent / "ground_truth.json")
    names = sorted(drawn_world.photos)[:3]
    shutil.copytree(drawn_photos, tmp_path / "images" / "scene1")
    lines = []
    for first, second in combinations(names, 2):
        pose = relative_pose(truth.cam_from_world[first], truth.cam_from_world[second])
        paths = (f"scene1/{first}", f"scene1/{second}")
        lines.append(pair_line(paths, (truth.intrinsics[first], truth.intrinsics[second]), pose, overlap=0))
    (tmp_path / "list.txt").write_text("".join([*lines, lines[0].replace(names[0], "gone.jpg")]))
    trial = gim_sfm.evaluate_pairs(tmp_path / "list.txt", tmp_path / "images", out=tmp_path / "out", **SMALL)
    (found,) = errors(trial.folder).values()
    assert len(found) == 3
    assert np.median(list(found.values())) < 0.5
    assert "1 pair skipped" in str(trial)
    assert "gone.jpg" in str(trial)


def test_homographies(drawn_photos, tmp_path) -> None:
    photo = cv2.imread(str(min(drawn_photos.glob("*.jpg"))))
    scenes = tmp_path / "hpatches"
    for scene, degrees in (("i_wall", 0), ("v_wall", 6)):
        (scenes / scene).mkdir(parents=True)
        cv2.imwrite(str(scenes / scene / "1.ppm"), photo)
        for number in range(2, 7):
            turn = cv2.getRotationMatrix2D((320, 213), degrees * (number - 1), 1)
            matrix = np.vstack([turn, [1e-5 * degrees, 0, 1]])
            warped = cv2.warpPerspective(photo, matrix, (640, 426))
            cv2.imwrite(
                str(scenes / scene / f"{number}.ppm"), cv2.convertScaleAbs(warped, alpha=1 - 0.1 * number)
            )
            np.savetxt(scenes / scene / f"H_1_{number}", matrix)
    trial = gim_sfm.evaluate_homography(scenes, out=tmp_path / "out", thresholds=[3.0], seeds=1, **SMALL)
    found = errors(trial.folder)
    assert {name: len(pairs) for name, pairs in found.items()} == {"HPatches-i": 5, "HPatches-v": 5}
    assert max(error for pairs in found.values() for error in pairs.values()) < 1.0


def test_the_commands(benchmark, tmp_path, monkeypatch, capsys) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["gim-sfm", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
        return capsys.readouterr().out

    out = tmp_path / "out"
    few = ["--matcher", "root-sift", "--max-keypoints"]
    told = run("zeb", benchmark, *few, 1000, "--out", out, "--sets", "yard", "GTA")
    assert "root-sift 1000kp" in told
    run("zeb", benchmark, *few, 60, "--out", out, "--label", "few", "--sets", "yard", "GTA")
    files = sorted((out / "root-sift-1000kp" / "official").glob("*.txt"))
    assert len(files) == 2
    told = run("score", *files, "--json", tmp_path / "scores.json")
    assert "root-sift 1000kp" in told
    assert json.loads((tmp_path / "scores.json").read_text())["tables"]
    told = run("compare", out / "root-sift-1000kp", out / "root-sift-few", "--out", tmp_path / "page")
    assert "root-sift" in told
    assert (tmp_path / "page" / "comparison.html").exists()
    assert len(list((tmp_path / "page").glob("*.png"))) >= 4
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)
