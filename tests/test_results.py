import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gim_sfm.errors import InputError
from gim_sfm.evaluation.results import (
    COLUMNS,
    CORNERS,
    POSE,
    Measure,
    Results,
    find_results,
    read_results,
    write_results,
)
from gim_sfm.evaluation.zeb_sets import ZEB_BY_NAME, ZEB_SETS, image_stem

HEADER = "identifiers covisible0 covisible1 R_errs t_errs t_errs2 Bef.Prec Bef.Num Aft.Prec Aft.Num"
LINE = "a#0#1 0.5 0.25 1.5 2.5 0.125 0.75 300 1.0 200"
NAME = "[T] some_method          ETH3DI v1.txt"

numbers = st.floats(0, 1e300) | st.just(np.inf)


def draw_results(measure: Measure, rows: list[list[float]], name: str = "b#1#2") -> Results:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    names = COLUMNS[measure.mark]
    return Results(
        measure=measure,
        method="some_method",
        set="ETH3DI",
        version="v1",
        identifiers=tuple(f"{name}{index:04}" for index in range(len(rows))),
        overlaps=table[:, :2],
        columns={column: table[:, 2 + place] for place, column in enumerate(names)},
    )


def assert_same(first: Results, second: Results) -> None:
    assert (first.measure, first.method, first.set, first.version, first.identifiers) == (
        second.measure,
        second.method,
        second.set,
        second.version,
        second.identifiers,
    )
    np.testing.assert_array_equal(first.overlaps, second.overlaps)
    assert first.columns.keys() == second.columns.keys()
    for name, column in first.columns.items():
        np.testing.assert_array_equal(column, second.columns[name])


def write_lines(folder: Path, *lines: str, name: str = NAME) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@given(
    st.lists(st.lists(numbers | st.just(np.nan), min_size=9, max_size=9), min_size=1, max_size=9),
)
def test_poses_are_read_back_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[float]]
) -> None:
    results = draw_results(POSE, rows)
    path = write_results(tmp_path_factory.mktemp("results"), results)
    assert_same(read_results(path), results)


def test_corners_are_read_back(tmp_path: Path) -> None:
    results = draw_results(CORNERS, [[np.nan, np.nan, 0.1, 0.5, 30, 1, 7], [1, 1, np.inf, 0, 0, 0, 0]])
    path = write_results(tmp_path, results)
    assert path.name == "[H] some_method          ETH3DI v1.txt"
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    assert first == "identifiers covisible0 covisible1 corner_errs Bef.Prec Bef.Num Aft.Prec Aft.Num"
    assert second == "b#1#20000 nan nan 0.1 0.5 30 1.0 7"
    assert_same(read_results(path), results)
    np.testing.assert_array_equal(read_results(path).errors, [0.1, np.inf])


def test_a_file_looks_as_the_authors_write_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path, HEADER, LINE)
    results = read_results(path)
    assert (results.method, results.set, results.version) == ("some_method", "ETH3DI", "v1")
    np.testing.assert_array_equal(results.errors, [2.5])
    assert write_results(tmp_path / "again", results).read_bytes() == path.read_bytes()


def test_lines_are_sorted_by_identifier(tmp_path: Path) -> None:
    results = draw_results(POSE, [[0.5] * 9, [0.25] * 9])
    turned = replace(results, identifiers=("z", "a"))
    back = read_results(write_results(tmp_path, turned))
    assert back.identifiers == ("a", "z")
    np.testing.assert_array_equal(back.errors, [0.25, 0.5])


def test_of_a_repeated_pair_the_first_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_lines(tmp_path, HEADER, LINE.replace("a#", "b#"), LINE, LINE.replace("2.5", "9.5"), LINE)
    with caplog.at_level(logging.WARNING):
        results = read_results(path)
    assert results.identifiers == ("a#0#1", "b#0#1")
    np.testing.assert_array_equal(results.errors, [2.5, 2.5])
    assert "2 lines repeat" in caplog.text


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        ((HEADER.replace("R_errs", "R"), LINE), 1, "header"),
        ((HEADER, LINE, LINE + " 3"), 3, "10 columns are needed, it has 11"),
        ((HEADER, LINE, ""), 3, "it has 0"),
        ((HEADER, LINE, LINE.replace("2.5", "two")), 3, "'two' is not a number"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, lines: tuple[str, ...], line: int, what: str) -> None:
    path = write_lines(tmp_path, *lines)
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert f"line {line}" in caught.value.message
    assert what in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize("lines", [(), (HEADER,)])
def test_a_file_without_pairs_is_refused(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="no pair"):
        read_results(write_lines(tmp_path, *lines))


@pytest.mark.parametrize(
    "name", ["[X] a b c.txt", "[T] a b.txt", "results.txt", "[T] a b c d.txt", "[T] a b c.csv"]
)
def test_a_misnamed_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not named"):
        read_results(write_lines(tmp_path, HEADER, LINE, name=name))


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / NAME)


@pytest.mark.parametrize(
    "wrong",
    [{"method": "two words"}, {"method": ""}, {"set": "a/b"}, {"version": "\t"}, {"identifiers": ("a b",)}],
)
def test_names_that_part_columns_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    results = draw_results(POSE, [[0.5] * 9])
    with pytest.raises(InputError, match="cannot carry"):
        write_results(tmp_path, replace(results, **wrong))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_folders_are_searched_and_a_file_counts_once(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a", HEADER, LINE)
    write_lines(tmp_path / "b", HEADER, LINE, name="[T] other GL3D v1.txt")
    write_lines(tmp_path / "b", "notes", name="readme.txt")
    assert [each.method for each in find_results([tmp_path, first])] == ["some_method", "other"]


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No result file"):
        find_results([tmp_path])


def test_two_files_of_the_same_run_are_refused(tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / folder, HEADER, LINE) for folder in "ab"]
    with pytest.raises(InputError) as caught:
        find_results([tmp_path])
    assert all(str(path) in caught.value.message for path in paths)


def test_the_authors_files_are_written_back_byte_for_byte(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "zeb" / "dumps"
    if not folder.is_dir():
        pytest.skip("the published result files are not there")
    results = find_results([folder])
    assert len(results) == 3
    for each in results:
        path = write_results(tmp_path, each)
        assert path.read_bytes() == (folder / path.name).read_bytes()
        known = ZEB_BY_NAME[each.set]
        assert len(each) == known.pairs
        scene, name0, name1 = each.identifiers[-1].split("#")
        assert known.identifier(scene, name0, name1) == each.identifiers[-1]


def test_identifiers_follow_the_published_ones() -> None:
    sets = {each.short: each for each in ZEB_SETS}
    assert len(sets) == 12
    assert sum(each.pairs for each in ZEB_SETS) == 45916
    assert sets["ETO"].identifier("courtyard", "DSC_1.JPG", "DSC_2") == "courtyard#DSC_1.JPG#DSC_2.JPG"
    assert sets["MUL"].identifier("urban", "img1_0", "img2_0") == "urban#img/img1_0.png#img/img2_0.png"
    assert sets["SCE"].identifier("10", "1025", "7125") == "10#1025.jpg#7125.jpg"
    assert sets["KIT"].identifier("s", "000005.png", "000006.png") == "s#000005.png#000006.png"
    assert sets["GL3"].identifier("0", "06.jpg", "08.jpg") == "0#06#08"
    assert image_stem("a.b/c.0.JPG") == "a.b/c.0"
    assert image_stem("c.0") == "c.0"
