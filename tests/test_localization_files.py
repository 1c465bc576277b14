"""Answers of localization on disk: formats, going on after a kill, and what is computed anew."""

import json
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from localization_kit import LEFT_OUT, Place

import gim_sfm
from gim_sfm import cli
from gim_sfm.errors import InputError, OutputError
from gim_sfm.images import read_photo
from gim_sfm.journal import Journal
from gim_sfm.matchers.sift import RootSiftDetector
from gim_sfm.sfm.known import read_intrinsics, read_model, read_poses
from gim_sfm.sfm.localization import localizer, localizing
from gim_sfm.sfm.localization.answers import AnswerFiles, read_hloc_poses, write_answers
from gim_sfm.sfm.localization.localizer import Localization, Localizer
from gim_sfm.types import Features, Photo


@pytest.fixture
def queries(mapped_place: Place, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mapped_place.queries, tmp_path / "queries"))


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of photos that a detector was given, call by call."""
    counts: list[int] = []
    original = RootSiftDetector.extract

    def counted(self: RootSiftDetector, photos: Sequence[Photo]) -> list[Features]:
        counts.append(len(photos))
        return original(self, photos)

    monkeypatch.setattr(RootSiftDetector, "extract", counted)
    return counts


def record_of(output: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(output.with_name(output.name + ".json").read_text(encoding="utf-8"))
    return record


# Formats


def some_row(pose: pycolmap.Rigid3d) -> dict[str, Any]:
    return {
        "model": "PINHOLE",
        "width": 640,
        "height": 426,
        "params": [533.0, 533.0, 320.0, 213.0],
        "cam_from_world": pose.matrix().tolist(),
    }


def test_poses_go_through_hlocs_format_and_back(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    names = ["a.jpg", "db/my  photo 1.jpg", "Größe.png", "1 2 3 4 5 6 7.png"]
    poses = {
        name: pycolmap.Rigid3d(pycolmap.Rotation3d(random.normal(0, 2, 3)), random.normal(0, 1e4, 3))
        for name in names
    }
    rows: dict[str, Any] = {name: some_row(pose) for name, pose in poses.items()}
    rows["lost.jpg"] = {"reason": "It sees nothing.", "remedy": "None."}
    files = AnswerFiles.of(tmp_path / "out")
    write_answers(files, rows, {})
    read = read_hloc_poses(files.poses)
    assert list(read) == names
    known = read_poses(files.record)
    for name, pose in poses.items():
        np.testing.assert_allclose(read[name].matrix(), pose.matrix(), rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(known[name].cam_from_world.matrix(), pose.matrix(), rtol=1e-12, atol=1e-12)
        assert known[name].camera.params.tolist() == [533, 533, 320, 213]
    first = files.poses.read_text(encoding="utf-8").splitlines()[0].split()
    quat = poses["a.jpg"].rotation.quat
    np.testing.assert_allclose(np.array(first[1:5], float), quat[[3, 0, 1, 2]], rtol=1e-9)  # w first


@pytest.mark.parametrize("line", ["a.jpg 1 0 0 0 1 2", "a.jpg 1 0 0 0 1 2 x", "1 0 0 0 1 2 3"])
def test_lines_that_hold_no_pose_are_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text(f"\nb.jpg 1 0 0 0 1 2 3\n{line}\n")
    with pytest.raises(InputError, match=r"poses\.txt, line 3: .* is no pose"):
        read_hloc_poses(tmp_path / "poses.txt")
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        read_hloc_poses(tmp_path / "none.txt")


@pytest.mark.parametrize("ending", ["", ".txt", ".json", ".html"])
def test_an_output_may_be_named_by_any_of_its_files(ending: str) -> None:
    files = AnswerFiles.of(Path("out", f"poses.v1{ending}"))
    assert (files.poses, files.record) == (Path("out", "poses.v1.txt"), Path("out", "poses.v1.json"))


def test_hlocs_list_of_queries_is_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "# a comment\n\nmy photo 1.jpg SIMPLE_RADIAL 640 480 500 320 240 -0.01\r\n"
        "q/B.jpg PINHOLE 64 48 50 51 3e1 24\n",
        encoding="utf-8",
    )
    cameras = read_intrinsics(path)
    assert cameras["my photo 1.jpg"].params.tolist() == [500, 320, 240, -0.01]
    assert (cameras["q/B.jpg"].model_name, cameras["q/B.jpg"].width) == ("PINHOLE", 64)
    assert cameras["q/B.jpg"].params.tolist() == [50, 51, 30, 24]


@pytest.mark.parametrize(
    "line",
    ["a.jpg PINHOLE 640 480", "a.jpg 640 480 500 320 240", "a.jpg PINHOLE 640 480 500 x 320 240", "a.jpg"],
)
def test_lines_that_give_no_intrinsics_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# first\nb.jpg SIMPLE_PINHOLE 640 480 500 320 240\n{line}\n")
    with pytest.raises(InputError, match=r"list\.txt, line 3|of a\.jpg in .*list\.txt"):
        read_intrinsics(path)


def test_answers_are_poses_to_reconstruct_with(mapped_place: Place, queries: Path, tmp_path: Path) -> None:
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    result = gim_sfm.reconstruct(
        queries, tmp_path / "out", poses=tmp_path / "poses.json", matcher="root-sift", max_keypoints=1024
    )
    found = {name: view.cam_from_world.matrix() for name, view in read_poses(result.model).items()}
    for name, pose in read_hloc_poses(tmp_path / "poses.txt").items():
        np.testing.assert_allclose(found[name], pose.matrix(), atol=1e-9)


# Going on


def test_a_second_run_looks_at_no_photo(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    before = (tmp_path / "poses.txt").read_text()
    assert sum(extracted) == 3

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("networks are loaded")

    monkeypatch.setattr(localizing, "Localizer", fail)
    again = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert (tmp_path / "poses.txt").read_text() == before
    assert again.cam_from_world.keys() == first.cam_from_world.keys()
    assert not (tmp_path / "poses.journal").exists()


def test_killed_in_the_middle_the_rows_so_far_are_kept(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gim_sfm.localize(queries, mapped_place.map, tmp_path / "whole")
    extracted.clear()
    original = Localizer.localize

    def killed(self: Localizer, photo: Path, **keywords: Any) -> Localization:
        if Path(photo).name == LEFT_OUT[2]:
            raise KeyboardInterrupt
        return original(self, photo, **keywords)

    monkeypatch.setattr(Localizer, "localize", killed)
    with pytest.raises(KeyboardInterrupt):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert sum(extracted) == 2
    assert not (tmp_path / "poses.json").exists()
    with (tmp_path / "poses.journal").open("ab") as journal:
        journal.write(b"gimj torn")
    monkeypatch.setattr(Localizer, "localize", original)
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert sum(extracted) == 3
    assert (tmp_path / "poses.txt").read_text() == (tmp_path / "whole.txt").read_text()
    assert result.cam_from_world.keys() == whole.cam_from_world.keys()
    assert not (tmp_path / "poses.journal").exists()


def test_only_what_is_new_or_has_changed_is_computed(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int]
) -> None:
    def run(**settings: Any) -> int:
        extracted.clear()
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", **settings)
        return sum(extracted)

    aside = (queries / LEFT_OUT[0]).rename(tmp_path / "later.jpg")
    assert run() == 2
    aside.rename(queries / LEFT_OUT[0])
    assert run() == 1
    shutil.copy(queries / LEFT_OUT[1], queries / LEFT_OUT[0])
    assert run() == 1
    images = record_of(tmp_path / "poses")["images"]
    assert images[LEFT_OUT[0]]["cam_from_world"] == images[LEFT_OUT[1]]["cam_from_world"]
    assert run(pairs="retrieval", neighbours=3) == 3
    assert run(pairs="retrieval", neighbours=3) == 0
    (queries / LEFT_OUT[2]).unlink()
    assert run(pairs="retrieval", neighbours=3) == 0
    assert set(read_hloc_poses(tmp_path / "poses.txt")) == set(LEFT_OUT[:2])


def test_a_query_that_could_not_be_read_is_tried_again(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, *, longest: int | None = None) -> Photo:
        if path.name == LEFT_OUT[0]:
            raise InputError(f"{path} cannot be read (the disk is away).", remedy="Look after the disk.")
        return read_photo(path, longest=longest)

    with monkeypatch.context() as patched:
        patched.setattr(localizer, "read_photo", failing)
        result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert "the disk is away" in result.failed[LEFT_OUT[0]]
    extracted.clear()
    assert not gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses").failed
    assert sum(extracted) == 1


def test_what_is_known_of_one_query_changes_only_its_answer(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int]
) -> None:
    listed, pairs = tmp_path / "list.txt", tmp_path / "pairs.txt"
    pairs.write_text("".join(f"{query} view_0{number}.jpg\n" for query in LEFT_OUT for number in (2, 4, 5)))
    settings: Any = {"pairs": "file", "pairs_file": pairs, "intrinsics": listed}
    listed.write_text(f"{LEFT_OUT[0]} SIMPLE_PINHOLE 640 426 533.3 320 213\n")
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", **settings)
    extracted.clear()
    listed.write_text(f"{LEFT_OUT[0]} SIMPLE_PINHOLE 640 426 533.4 320 213\n")
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", **settings)
    assert sum(extracted) == 1
    pairs.write_text(pairs.read_text() + f"{LEFT_OUT[1]} view_00.jpg\n")
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", **settings)
    assert sum(extracted) == 2


def test_a_changed_model_changes_all_answers(
    mapped_place: Place, queries: Path, tmp_path: Path, extracted: list[int]
) -> None:
    out = Path(shutil.copytree(mapped_place.map, tmp_path / "map", symlinks=True))
    before = gim_sfm.localize(queries, out, tmp_path / "poses").cam_from_world
    extracted.clear()
    model = read_model(out / "sparse" / "0")
    model.transform(pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.zeros(3)))
    model.write(out / "sparse" / "0")
    after = gim_sfm.localize(queries, out, tmp_path / "poses").cam_from_world
    assert sum(extracted) == 3
    for name, pose in after.items():
        np.testing.assert_allclose(pose.translation, 2 * before[name].translation, rtol=1e-3)


def test_a_run_beside_another_is_refused(mapped_place: Place, queries: Path, tmp_path: Path) -> None:
    held = Journal(tmp_path / "poses.journal")
    with pytest.raises(OutputError, match="another run"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    held.close()


def test_the_order_of_the_queries_does_not_matter(mapped_place: Place, queries: Path, tmp_path: Path) -> None:
    together = gim_sfm.localize(queries, mapped_place.map, tmp_path / "together").cam_from_world
    for name in reversed(LEFT_OUT):
        alone = gim_sfm.localize(queries / name, mapped_place.map, tmp_path / name).cam_from_world
        assert (alone[name].matrix() == together[name].matrix()).all()


# Outputs that are in the way


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".json", '{"view.jpg": {"K": 1}}'),
        (".json", '{"images": {"view.jpg": {}}}'),
        (".json", "[1, 2]"),
        (".json", "no json"),
        (".txt", "view_01.jpg view_02.jpg\n"),
    ],
)
def test_files_of_others_are_not_written_over(
    ending: str, text: str, mapped_place: Place, queries: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"poses{ending}"
    path.write_text(text)
    for model in (mapped_place.map, tmp_path / "none"):  # told before the model is read, or a map made of it
        with pytest.raises(OutputError, match=r"is there already, and holds no poses"):
            gim_sfm.localize(queries, model, tmp_path / "poses")
    assert path.read_text() == text


def test_an_output_that_cannot_be_written_is_told(mapped_place: Place, queries: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file(/sub)? cannot be made"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "file" / "sub" / "poses")


# The command


@pytest.fixture
def _no_handlers_left() -> Iterator[None]:
    """The command line logs to the stderr of its moment, which is gone when the test is over."""
    yield
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gim-sfm", "localize", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


@pytest.mark.usefixtures("_no_handlers_left")
def test_the_command_tells_what_came_of_the_queries(
    mapped_place: Place,
    queries: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "new" / "poses"
    (queries / "broken.jpg").write_bytes(b"no photo")
    asked = (queries, "--model", mapped_place.map, "--output", output)
    assert run_command(monkeypatch, *asked) == 0
    told = capsys.readouterr().out
    assert "3 of 4 photos localized" in told
    assert "Not broken.jpg" in told
    assert str(output.with_suffix(".txt")) in told
    assert run_command(monkeypatch, *asked, "--strict") == 1
    assert "broken.jpg" in capsys.readouterr().err
    (tmp_path / "others").mkdir()
    for name in LEFT_OUT:
        (queries / name).rename(tmp_path / "others" / name)
    assert run_command(monkeypatch, *asked) == 1
    told_error = capsys.readouterr().err
    assert "None of 1 photos could be localized" in told_error
    assert "Traceback" not in told_error
    assert record_of(output)["images"] == {}
    assert run_command(monkeypatch, queries, "--model", tmp_path, "--output", output) == 1
    assert run_command(monkeypatch, *asked, "--neighbours", "0") == 2
