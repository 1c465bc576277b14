"""The verb `compare`: which of two methods is better, how sure that is, and where the difference lies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gim_sfm.evaluation.contest import Contest, join
from gim_sfm.evaluation.difficulty import (
    VIEWS,
    read_views,
    score_by_matches,
    score_by_overlap,
    score_by_views,
)
from gim_sfm.evaluation.league_text import EVIDENCE, short_name, unit, write_count, write_p
from gim_sfm.evaluation.statistics import (
    Difference,
    PairedComparison,
    Scores,
    compare_scores,
    estimate_scores,
)
from gim_sfm.files import write_text

if TYPE_CHECKING:
    from gim_sfm.evaluation.comparison_charts import Chart

PAGE = "comparison.html"


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """The result of comparing; printed, it is the verdict.

    Attributes:
        contest: Both methods on the pairs that both have.
        paired: Differences, first less second.
        scores: Of the first and the second on the shared pairs.
        page: The HTML page.
    """

    contest: Contest
    paired: PairedComparison
    scores: tuple[Scores, Scores]
    page: Path

    def __str__(self) -> str:
        verdict, sets = _verdict(self.contest, self.paired), _set_verdicts(self.contest, self.paired)
        return "\n".join([*verdict, "", *sets])


def compare(a: Path | str, b: Path | str, out: Path | str = "comparison") -> Comparison:
    """Compares two methods on the pairs that both have.

    Args:
        a: Result file, or folder with result files of one method.
        b: The same of another method.
        out: Folder for comparison.html and its pictures as PNG files.

    Returns:
        The comparison; printed, it is the verdict.

    Raises:
        InputError: A file cannot be used, a folder holds several methods, or they share no pairs.
    """
    paths = Path(a), Path(b)
    contest = join(*paths)
    first, second = (_score(contest, side) for side in (0, 1))
    paired = compare_scores(contest.sets, contest.measure.thresholds[0])
    comparison = Comparison(contest, paired, (first, second), Path(out) / PAGE)
    _write_page(comparison, read_views(paths))
    return comparison


def _score(contest: Contest, side: int) -> Scores:
    errors = {each.set: (each.first, each.second)[side] for each in contest.sets}
    return estimate_scores(errors, contest.measure.thresholds[:1])


def _write_page(comparison: Comparison, views: dict[str, float]) -> None:
    from gim_sfm.evaluation.comparison_page import render_page

    charts, remarks = _draw(comparison, views)
    verdict = _verdict(comparison.contest, comparison.paired)
    text = render_page(comparison.contest, comparison.paired, verdict, charts, remarks)
    write_text(comparison.page, text)
    for chart in charts:
        chart.write_png(comparison.page.parent)


def _draw(comparison: Comparison, views: dict[str, float]) -> tuple[list["Chart"], list[str]]:
    from gim_sfm.evaluation.comparison_charts import draw_curve, draw_recall, draw_scatter, draw_sets

    contest = comparison.contest
    charts = [draw_sets(contest, *comparison.scores), draw_recall(contest)]
    remarks = list(_remarks(contest))
    if np.isnan(contest.pooled.overlaps).all():
        remarks.append("Score over overlap: the result files do not tell the overlaps.")
    else:
        charts.append(draw_curve(contest, score_by_overlap(contest), "overlap", "Score over overlap"))
    if views.keys() & set(contest.pooled.identifiers):
        curve = score_by_views(contest, views)
        charts.append(draw_curve(contest, curve, "views", "Score over the change of view"))
    else:
        curve = score_by_matches(contest)
        charts.append(draw_curve(contest, curve, "matches", "Score over the number of correct matches"))
        remarks.append(
            f"Score over the change of view: no {VIEWS} with these pairs lies beside the result files; the "
            "number of correct matches stands in for difficulty."
        )
    return [*charts, draw_scatter(contest)], remarks


def _remarks(contest: Contest) -> Iterator[str]:
    for name, sets in zip(contest.names, (contest.only_first, contest.only_second), strict=True):
        if sets:
            yield f"Sets that only {name} has: {', '.join(sets)}."
    for each in contest.sets:
        if each.only_first or each.only_second:
            alone = zip(contest.names, (each.only_first, each.only_second), strict=True)
            told = (f"{write_count(count, 'pair')} only of {name}" for name, count in alone)
            yield f"{short_name(each.set)}: {', '.join(told)}; not counted."


def _verdict(contest: Contest, paired: PairedComparison) -> list[str]:
    """The claim, the evidence for it, and what was left out."""
    several = len(paired.sets) > 1
    over = f"over {len(paired.sets)} sets" if several else f"on {paired.sets[0].set}"
    area = f"AUC@{paired.threshold:g}{unit(contest.measure)}"
    return [
        _claim(contest, paired.mean, f"{'mean ' if several else ''}{area} {over}"),
        f"Difference, {contest.names[0]} less {contest.names[1]}, on the pairs that both have: "
        f"{_evidence(paired.mean)}.",
        *_remarks(contest),
    ]


def _claim(contest: Contest, difference: Difference, what: str) -> str:
    first, second = contest.names
    if not difference.told_apart:
        return f"No difference can be told between {first} and {second} by {what}."
    better, worse = (first, second) if difference.value > 0 else (second, first)
    return f"{better} is better than {worse} by {100 * abs(difference.value):.2f} points of {what}."


def _evidence(difference: Difference) -> str:
    value, low, high = (100 * each for each in (difference.value, difference.low, difference.high))
    return f"{value:+.2f} (95 % interval {low:+.2f} to {high:+.2f}, p = {write_p(difference)})"


def _set_verdicts(contest: Contest, paired: PairedComparison) -> Iterator[str]:
    width = max(len(short_name(each.set)) for each in paired.sets)
    for each in paired.sets:
        told = each.difference
        better = contest.names[0 if told.value > 0 else 1]
        yield (
            f"{short_name(each.set):<{width}}  {100 * each.scores[0]:5.1f} {100 * each.scores[1]:5.1f}  "
            f"{_evidence(told)}: {f'{better} is better' if told.told_apart else 'no difference can be told'}"
        )
    yield f"Intervals by paired bootstrap. {EVIDENCE[0].upper()}{EVIDENCE[1:]}"
