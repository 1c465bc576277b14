import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gim_sfm.errors import InputError
from gim_sfm.evaluation.comparison import Comparison, compare
from gim_sfm.evaluation.comparison_page import farthest
from gim_sfm.evaluation.contest import join
from gim_sfm.evaluation.difficulty import read_views, score_by_matches, score_by_overlap, score_by_views
from gim_sfm.evaluation.results import COLUMNS, CORNERS, POSE, Measure, Results, write_results
from gim_sfm.geometry import auc

PAIRS = 60


def draw(
    method: str, name: str = "GL3D", *, worse: float = 1.0, measure: Measure = POSE, pairs: int = PAIRS
) -> Results:
    """Errors that all methods share, `worse` times as large."""
    generator = np.random.default_rng(1)
    errors = worse * generator.gamma(1, 3, pairs)
    errors[:3] = np.inf
    columns = {column: generator.integers(0, 50, pairs).astype(float) for column in COLUMNS[measure.mark]}
    columns |= dict.fromkeys(measure.error_columns, errors)
    identifiers = tuple(f"scene<b>#{index:03}$x$#{index}" for index in range(pairs))
    overlaps = np.repeat(generator.uniform(0, 1, (pairs, 1)), 2, axis=1)
    return Results(measure, method, name, "v1", identifiers, overlaps, columns)


def write(folder: Path, *results: Results) -> Path:
    for each in results:
        write_results(folder, each)
    return folder


def picture_names(comparison: Comparison) -> set[str]:
    return {path.stem for path in comparison.page.parent.glob("*.png")}


def test_the_better_method_is_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a", draw("good"), draw("good", "KITTI"))
    b = write(tmp_path / "b", draw("bad", worse=1.6), draw("bad", "KITTI", worse=1.6), draw("bad", "GTA-SfM"))
    comparison = compare(a, b, tmp_path / "out")
    told = str(comparison)
    assert told.startswith("good v1 is better than bad v1 by ")
    assert "points of mean AUC@5° over 2 sets" in told
    assert "Sets that only bad v1 has: GTA-SfM." in told
    assert [line[:3] for line in told.splitlines() if line.endswith("good v1 is better")] == ["GL3", "KIT"]
    assert picture_names(comparison) == {"sets", "recall", "overlap", "matches", "scatter"}
    page = comparison.page.read_text(encoding="utf-8")
    assert page.count('src="data:image/svg+xml;base64,') == 5
    assert not re.search(r"<script|https?://", page)
    assert "scene&lt;b&gt;#" in page
    assert "<b>#" not in page
    assert "stands in for difficulty" in page


def test_equal_methods_are_not_told_apart_and_named_by_their_folders(tmp_path: Path) -> None:
    comparison = compare(write(tmp_path / "a", draw("m")), write(tmp_path / "b", draw("m")), tmp_path / "out")
    told = str(comparison)
    assert told.startswith("No difference can be told between")
    assert all(str(tmp_path / side) in told for side in "ab")
    assert "p = 1.00" in told
    assert "There is no such pair." in comparison.page.read_text(encoding="utf-8")


def test_unknown_overlaps_and_known_views(tmp_path: Path) -> None:
    blind = [replace(draw(name), overlaps=np.full((PAIRS, 2), np.nan)) for name in ("a", "b")]
    a, b = (write(tmp_path / each.method, each) for each in blind)
    lines = [f"{name}\t{index}.5" for index, name in enumerate(blind[0].identifiers[:50])]
    (b / "views.tsv").write_text("\n".join(["identifier\tdegrees", *lines]) + "\n", encoding="utf-8")
    comparison = compare(a, b, tmp_path / "out")
    assert picture_names(comparison) == {"sets", "recall", "views", "scatter"}
    page = comparison.page.read_text(encoding="utf-8")
    assert "do not tell the overlaps" in page
    assert "not known: 10 pairs." in page


def test_corners_are_compared_in_pixels(tmp_path: Path) -> None:
    a = write(tmp_path / "a", draw("a", "walls", measure=CORNERS))
    b = write(tmp_path / "b", draw("b", "walls", measure=CORNERS, worse=1.5))
    assert "AUC@3 px on walls" in str(compare(a, b, tmp_path / "out"))


def test_many_pairs_are_drawn_as_cells(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, draw(name, pairs=2600)) for name in "ab")
    comparison = compare(a, b, tmp_path / "out")
    assert comparison.page.stat().st_size < 1_500_000


def test_pages_are_the_same_every_time(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, draw(name, worse=worse)) for name, worse in (("a", 1), ("b", 1.2)))
    pages = [compare(a, b, tmp_path / out).page.read_bytes() for out in ("first", "second")]
    assert pages[0] == pages[1]


def test_a_folder_of_several_methods_is_refused(tmp_path: Path) -> None:
    both = write(tmp_path / "both", draw("one"), draw("two"))
    with pytest.raises(InputError, match=r"2 methods: one v1 .*, two v1"):
        compare(both, both, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", [draw("b", "KITTI"), draw("b", measure=CORNERS)])
def test_methods_without_a_common_set_are_refused(tmp_path: Path, other: Results) -> None:
    with pytest.raises(InputError, match="share no set"):
        compare(write(tmp_path / "a", draw("a")), write(tmp_path / "b", other), tmp_path / "out")


def test_bins_hold_the_pairs_they_say(tmp_path: Path) -> None:
    first = draw("a")
    edges = first.overlaps.copy()
    edges[:6] = np.array([0.0, 0.1, 0.1000001, 0.3, 0.95, 1.0])[:, None]
    edges[6:] = 0.55
    contest = join(
        write(tmp_path / "a", replace(first, overlaps=edges)), write(tmp_path / "b", draw("b", worse=2))
    )
    curve = score_by_overlap(contest)
    assert curve.labels == ("0.0-0.1", "0.1-0.2", "0.2-0.3", "0.5-0.6", "0.9-1.0")
    assert curve.pairs == (2, 1, 1, PAIRS - 6, 2)
    assert curve.first[3].value == auc(first.errors[6:], [5.0])[0]
    assert curve.second[3].value == auc(2 * first.errors[6:], [5.0])[0]
    assert sum(score_by_matches(contest).pairs) == PAIRS
    one = score_by_views(contest, {first.identifiers[5]: 30.0})
    assert (one.labels, one.pairs, one.unknown) == (("30",), (1,), PAIRS - 1)


def test_the_pairs_with_the_largest_lead_come_first() -> None:
    better = np.array([1.0, 0.5, np.inf, 3.0, 2.0, 170.0])
    worse = np.array([4.0, np.inf, np.inf, 2.0, 900.0, np.inf])
    assert farthest(better, worse, 180.0) == [1, 4, 5, 0]


def test_a_broken_list_of_views_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "views.tsv").write_text("identifier\tdegrees\na\t3\nb 4\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"views\.tsv, line 3"):
        read_views([tmp_path])
    assert read_views([tmp_path / "sub" / "file.txt"]) == {}
