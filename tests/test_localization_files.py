"""Answers of localization on disk: formats, going on after a kill, and what is computed anew."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from localization_kit import LEFT_OUT, Place, true_pose, write_rig

import gim_sfm
from gim_sfm import cli
from gim_sfm.errors import InputError, OutputError
from gim_sfm.images import Signature, read_photo, signature
from gim_sfm.journal import Journal
from gim_sfm.matchers.sift import RootSiftDetector
from gim_sfm.recipe import LocalizationSettings
from gim_sfm.sfm.known import read_intrinsics, read_model, read_poses
from gim_sfm.sfm.localization import answering, localizer, opening
from gim_sfm.sfm.localization import queries as querying
from gim_sfm.sfm.localization.answers import AnswerFiles, read_hloc_poses, write_answers
from gim_sfm.sfm.localization.localized import Localization
from gim_sfm.sfm.localization.localizer import Localizer
from gim_sfm.sfm.localization.opening import prepare_map
from gim_sfm.sfm.localization.queries import find_queries
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


@pytest.fixture
def read_in_full(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files that were read to sign them."""
    names: list[str] = []

    def told(path: Path) -> Signature:
        names.append(path.name)
        return signature(path)

    monkeypatch.setattr(querying, "signature", told)
    return names


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


@pytest.mark.parametrize(("scale", "is_pose"), [(1.0, True), (1.0005, True), (0.9, False), (0.0, False)])
def test_quaternions_are_of_length_1(scale: float, is_pose: bool, tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(f"a.jpg {0.6 * scale} 0 {-0.8 * scale} 0 1 2 3\n")
    if is_pose:
        np.testing.assert_allclose(read_hloc_poses(path)["a.jpg"].rotation.norm(), 1, atol=1e-9)
    else:
        with pytest.raises(InputError, match=r"poses\.txt, line 1: .* is no pose"):
            read_hloc_poses(path)


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    names = ["a\u2028b.jpg", "c\x0bd.jpg", "e.jpg"]
    path = tmp_path / "list.txt"
    for ending in (b"\n", b"\r\n"):
        path.write_bytes(b"".join(f"{name} 1 0 0 0 1 2 3".encode() + ending for name in names))
        assert list(read_hloc_poses(path)) == names
        path.write_bytes(b"".join(f"{name} PINHOLE 64 48 50 51 32 24".encode() + ending for name in names))
        assert sorted(read_intrinsics(path)) == names


@pytest.mark.parametrize("output", [".", "/", "..", "there/.."])
def test_an_output_needs_a_name(output: str, mapped_place: Place, queries: Path) -> None:
    with pytest.raises(OutputError, match="is a folder, not a name"):
        gim_sfm.localize(queries, mapped_place.map, output)


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

    monkeypatch.setattr(answering, "Localizer", fail)
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


def test_photos_are_read_in_their_turn_and_not_again(
    mapped_place: Place,
    queries: Path,
    tmp_path: Path,
    extracted: list[int],
    read_in_full: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Localizer, "localize", killed)
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert read_in_full == [LEFT_OUT[0]]
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    read_in_full.clear()
    extracted.clear()
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
    assert not read_in_full
    os.utime(queries / LEFT_OUT[1], (1e9, 1e9))
    for expected in ([LEFT_OUT[1]], []):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
        assert read_in_full == expected
        read_in_full.clear()
    gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", seed=1)
    assert not read_in_full  # though all are answered anew
    assert sum(extracted) == 3


# Queries that are none, or cannot be read


def test_photos_of_maps_among_the_queries_are_no_queries(
    mapped_place: Place, queries: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(mapped_place.map, queries / "out", symlinks=True)
    made = queries / "poses.map" / "images"
    made.mkdir(parents=True)
    shutil.copy(queries / LEFT_OUT[0], made / "view.jpg")
    with caplog.at_level(logging.INFO):
        result = gim_sfm.localize(queries, queries / "out" / "sparse" / "0", queries / "poses")
    assert set(result.cam_from_world) == set(LEFT_OUT)
    assert not result.failed
    for folder in (queries / "out", queries / "poses.map"):
        assert f"Photos in {folder} are a map's" in caplog.text


def test_what_a_map_links_to_may_be_queries(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "a" / "out"
    for folder in (photos, out):
        folder.mkdir(parents=True)
    for path in (photos / "a.jpg", out / "recipe.toml", out / "features.h5", tmp_path / "a" / "b.jpg"):
        path.touch()
    (out / "images").symlink_to(photos)
    assert find_queries(tmp_path, []).names == ("a/b.jpg", "photos/a.jpg")
    assert find_queries(tmp_path, [photos]).names == ("a/b.jpg",)
    for folder in (photos, out / "images"):
        assert find_queries(folder, [photos]).names == ("a.jpg",)


def test_a_link_to_nothing_costs_no_other_query(mapped_place: Place, queries: Path, tmp_path: Path) -> None:
    (queries / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    for _ in range(2):
        result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses")
        assert set(result.cam_from_world) == set(LEFT_OUT)
        assert "gone.jpg cannot be read" in result.failed["gone.jpg"]
    with pytest.raises(InputError, match=r"gone\.jpg cannot be read"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", strict=True)


@pytest.mark.parametrize("broken", ["cut", "gone"])
def test_a_broken_photo_costs_its_rig_no_other(
    broken: str, mapped_place: Place, queries: Path, tmp_path: Path
) -> None:
    for side, name in (("left", LEFT_OUT[0]), ("right", LEFT_OUT[2])):
        (queries / side).mkdir()
        (queries / name).rename(queries / side / "1.jpg")
    (queries / LEFT_OUT[1]).unlink()
    poses = [true_pose(mapped_place.world, name) for name in (LEFT_OUT[0], LEFT_OUT[2])]
    rig = write_rig(tmp_path / "rig.json", {"left/": None, "right/": poses[1] * poses[0].inverse()})
    hurt = queries / "right" / "1.jpg"
    whole = hurt.rename(tmp_path / "whole.jpg").read_bytes()
    if broken == "cut":
        hurt.write_bytes(whole[: len(whole) // 2])
    else:
        hurt.symlink_to(tmp_path / "nothing.jpg")
    result = gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=rig)
    assert set(result.cam_from_world) == {"left/1.jpg"}
    assert "right/1.jpg cannot be" in result.failed["right/1.jpg"]
    with pytest.raises(InputError, match=r"right/1\.jpg cannot be"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=rig, strict=True)
    hurt.unlink()
    hurt.write_bytes(whole)
    assert not gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", rig=rig).failed


def test_what_starts_a_whole_new_map_is_told(
    mapped_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(opening, "adopt_model", lambda *_, **__: None)
    prepare_map(mapped_place.map, LocalizationSettings(matcher="root-sift"), work=tmp_path / "work")
    assert not caplog.text
    settings = LocalizationSettings(max_keypoints=1024, precision="float32")
    prepare_map(mapped_place.map, settings, work=tmp_path / "work")
    assert "(max_keypoints: 2048 -> 1024, precision: 'auto' -> 'float32')" in caplog.text
    assert str(tmp_path / "work") in caplog.text


# Outputs that are in the way


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".json", '{"view.jpg": {"K": 1}}'),
        (".json", '{"images": {"view.jpg": {}}}'),
        (".json", "[1, 2]"),
        (".json", "no json"),
        (".json", '{"images": {"view.jpg": 3}, "failed": {}}'),
        (".json", '{"images": {}, "failed": {"view.jpg": {}}}'),
        (".json", '{"images": [], "failed": {}}'),
        (".txt", "view_01.jpg view_02.jpg\n"),
        (".txt", "view_01.jpg OPENCV 640 426 533 533 320 213 0 0 0 0\n"),
        (".txt", "view_01.jpg RADIAL 640 426 533 320 213 0.01 0\n"),
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


@pytest.mark.parametrize(
    ("setting", "name"), [("intrinsics", "poses.txt"), ("pairs_file", "poses.txt"), ("rig", "poses.json")]
)
def test_inputs_are_not_written_over(
    setting: str, name: str, mapped_place: Place, queries: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text('{"images": {}, "failed": {}}' if path.suffix == ".json" else "a.jpg 1 0 0 0 1 2 3\n")
    before = path.read_text()
    settings: Any = {setting: tmp_path / "." / name}
    with pytest.raises(OutputError, match=r"written over .*, which is an input"):
        gim_sfm.localize(queries, mapped_place.map, tmp_path / "poses", **settings)
    assert path.read_text() == before


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
