import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gim_sfm.errors import InputError
from gim_sfm.evaluation.league import build_league
from gim_sfm.evaluation.results import COLUMNS, CORNERS, POSE, Measure, Results, write_results
from gim_sfm.evaluation.scoring import score
from gim_sfm.evaluation.zeb_sets import ZEB_SETS
from gim_sfm.geometry import auc


def draw(
    method: str,
    name: str,
    *,
    pairs: int = 30,
    worse: float = 1.0,
    measure: Measure = POSE,
    version: str = "v1",
) -> Results:
    """The same pairs for every method of a set; errors `worse` times as large."""
    generator = np.random.default_rng([*name.encode()])
    errors = worse * generator.gamma(1, 4, pairs)
    errors[: pairs // 10] = np.inf
    columns = {column: generator.uniform(0, 1, pairs) for column in COLUMNS[measure.mark]}
    columns |= dict.fromkeys(measure.error_columns, errors)
    identifiers = tuple(f"scene#{index:05}#x" for index in range(pairs))
    return Results(measure, method, name, version, identifiers, np.full((pairs, 2), 0.5), columns)


def row(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return line.removeprefix(start).split()


def test_all_twelve_sets_make_the_table_of_the_paper() -> None:
    league = build_league([draw("mine", each.name, pairs=each.pairs // 40) for each in ZEB_SETS])
    text = str(league)
    assert max(map(len, text.splitlines())) <= 130
    heads = next(line for line in text.splitlines() if "mean" in line).split()
    assert heads == ["mean", "rank", *(each.short for each in ZEB_SETS)]
    told = ["53.3", "61.8", "53.8", "76.7", "82.7", "43.2", "36.7", "53.2", "26.6", "60.7", "33.8", "45.4"]
    cells = row(text, "GIM_RoMa ")
    assert [cells[0], *cells[2:]] == [*told, "64.3"]
    assert all(cell.endswith("*") for cell in row(text, "> mine v1"))
    assert "129 of 5165 pairs: not comparable" in text
    assert len(row(text, "  ±")) == 13


def test_scores_are_those_of_the_errors() -> None:
    results = draw("mine", "own_set")
    (table,) = build_league([results]).tables
    entry = table.entries[0]
    found = entry.scores["own_set"]
    assert [each.value for each in found.auc] == auc(results.errors, POSE.thresholds)
    assert found.below[0] == np.mean(results.errors < 5)
    assert (found.pairs, found.failures, found.published_pairs) == (30, 3, None)
    assert entry.mean == found.auc
    assert entry.rank == 1.0


def test_few_sets_cut_the_published_rows() -> None:
    league = build_league([draw("mine", name, pairs=50) for name in ("GTA-SfM", "GL3D")])
    text = str(league)
    assert row(text, "GIM_RoMa ") == ["63.1", "1.5", "61.8", "64.3"]
    assert row(text, "GIM_DKM 100h ") == ["62.5", "1.5", "63.3", "61.6"]
    assert "2 of 12 sets" in text
    assert "over the 2 sets shown" in text


def test_ranks_count_ours_among_the_published(shared_data: Path) -> None:
    folder = shared_data / "zeb" / "dumps"
    if not folder.is_dir():
        pytest.skip("the published result files are not there")
    league = score(sorted(folder.glob("*lightglue*")))
    text = str(league)
    assert row(text, "> gim_lightglue 100h") == ["61.9", "9.0", "61.9"]
    assert row(text, "GIM_LoFTR 50h") == ["62.6", "8.0", "62.6"]
    assert "52 of 2131 pairs without an estimate" in text


def test_other_sets_stand_alone() -> None:
    league = build_league(
        [draw("mine", "GL3D"), draw("mine", "own_set"), draw("mine", "walls", measure=CORNERS)]
    )
    assert [(table.benchmark, table.sets) for table in league.tables] == [
        ("ZEB", ("GL3D",)),
        ("", ("own_set",)),
        ("", ("walls",)),
    ]
    assert [len(table.published) for table in league.tables] == [16, 0, 0]


def test_homographies_show_three_thresholds() -> None:
    results = [draw("mine", name, measure=CORNERS) for name in ("illumination", "viewpoint")]
    text = str(build_league(results))
    assert "AUC@3/5/10 px of homography corners" in text
    areas = [auc(each.errors, CORNERS.thresholds) for each in results]
    cells = row(text, "> mine v1")
    assert cells[4:] == [f"{100 * area:.1f}" for each in areas for area in each]
    assert cells[:3] == [f"{100 * area:.1f}" for area in np.mean(areas, axis=0)]


def test_sets_not_shared_are_not_averaged() -> None:
    league = build_league([draw("a", "one"), draw("a", "two"), draw("b", "one", worse=2)])
    (table,) = league.tables
    assert table.common == ("one",)
    assert table.entries[0].mean == table.entries[0].scores["one"].auc
    assert "over the 1 set that all of ours have: one." in str(league)
    (table,) = build_league([draw("a", "GL3D"), draw("b", "KITTI")]).tables
    assert table.common == table.duels == table.entries[0].mean == ()
    assert table.published[0].rank is None


def test_every_method_meets_the_best() -> None:
    league = build_league(
        [
            draw("bad", "one", worse=3, pairs=200),
            draw("good", "one", pairs=200),
            draw("good", "one", version="v2", worse=1.5),
        ]
    )
    duels = league.tables[0].duels
    assert [(duel.best, duel.other) for duel in duels] == [("good v1", "bad v1"), ("good v1", "good v2")]
    assert duels[0].comparison.mean.high < 0
    assert duels[0].comparison.mean.p < 0.01
    assert "one: 170 pairs only of good v2 or only of good v1; not counted." in str(league)


def test_long_names_and_many_sets_stay_within_the_page() -> None:
    names = [f"a_set_with_quite_a_name_{index}" for index in range(9)]
    text = str(build_league([draw("a_method_whose_name_goes_on_and_on", name) for name in names]))
    assert max(map(len, text.splitlines())) <= 130
    assert all(name in text for name in names)


def test_everything_is_in_the_json(tmp_path: Path) -> None:
    results = [draw(name, "one", worse=worse) for name, worse in (("a", 1.0), ("b", 2.0))]
    for each in results:
        write_results(tmp_path / "results", each)
    score([str(tmp_path / "results")], json=tmp_path / "league.json")
    (table,) = json.loads((tmp_path / "league.json").read_text(encoding="utf-8"))["tables"]
    method = table["methods"][0]
    assert method["sets"]["one"]["auc"]["10"]["value"] == auc(results[0].errors, [10.0])[0]
    assert method["sets"]["one"]["below"]["20"] == np.mean(results[0].errors < 20)
    assert (method["sets"]["one"]["pairs"], method["sets"]["one"]["failures"]) == (30, 3)
    assert method["mean"]["5"]["low"] < method["mean"]["5"]["value"] < method["mean"]["5"]["high"]
    duel = table["paired"][0]
    assert (duel["method"], duel["against"]) == ("b v1", "a v1")
    assert duel["mean"]["value"] < 0 < duel["mean"]["p"]
    assert (
        build_league([draw("a", "GL3D"), draw("b", "KITTI")]).to_json()["tables"][0]["methods"][0]["mean"]
        == {}
    )


@pytest.mark.parametrize("files", [[], ["missing"]])
def test_nothing_to_score_is_an_error(tmp_path: Path, files: Sequence[str]) -> None:
    with pytest.raises(InputError):
        score([tmp_path / each for each in files])


def test_scoring_loads_nothing_heavy() -> None:
    code = (
        "import sys; from gim_sfm.evaluation.scoring import score; "
        "print({'torch', 'cv2', 'pycolmap', 'matplotlib'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "set()"
