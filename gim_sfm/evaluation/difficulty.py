"""Where a method gains: scores over bins of growing difficulty, the pairs of all sets pooled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from gim_sfm.errors import InputError
from gim_sfm.evaluation.contest import Contest
from gim_sfm.evaluation.statistics import Estimate, estimate_scores

VIEWS = "views.tsv"
"""Beside result files: a header line, then identifier, tab, angle between the true views in degrees."""

BINS = 10


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores of two methods in bins of difficulty, at the first threshold of their measure.

    Attributes:
        axis: What parts the bins.
        labels: Of the bins that hold a pair.
        pairs: Number of pairs in each.
        first: Score of the first method in each.
        second: Score of the second method in each.
        unknown: Pairs left out since theirs is not known.
    """

    axis: str
    labels: tuple[str, ...]
    pairs: tuple[int, ...]
    first: tuple[Estimate, ...]
    second: tuple[Estimate, ...]
    unknown: int


def score_by_overlap(contest: Contest) -> Curve:
    """Scores in ten bins of overlap, (0, 0.1] to (0.9, 1]; bins without a pair are left out."""
    overlaps = contest.pooled.overlaps
    inside = np.where(np.isnan(overlaps), 0.5, overlaps)
    bins = np.clip(np.ceil(inside * BINS - 1e-9).astype(np.int64) - 1, 0, BINS - 1)
    labels = [f"{low / BINS:.1f}-{(low + 1) / BINS:.1f}" for low in range(BINS)]
    return _score_bins(contest, "overlap of the two images", np.where(np.isnan(overlaps), -1, bins), labels)


def score_by_views(contest: Contest, views: Mapping[str, float]) -> Curve:
    """Scores in ten bins of the angle between the true views, as many pairs in each."""
    angles = np.array([views.get(name, np.nan) for name in contest.pooled.identifiers])
    return _score_quantiles(contest, "angle between the two true views, degrees", angles)


def score_by_matches(contest: Contest) -> Curve:
    """Scores in ten bins of the number of correct matches, as many pairs in each."""
    axis = "correct matches of the method that has fewer on the pair"
    return _score_quantiles(contest, axis, contest.pooled.matches)


def _score_quantiles(contest: Contest, axis: str, values: Float64[np.ndarray, " n"]) -> Curve:
    known = np.isfinite(values)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1))) if known.any() else np.zeros(1)
    last = max(len(edges) - 2, 0)
    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last)
    labels = [_span(values[known & (bins == each)]) for each in range(last + 1)]
    return _score_bins(contest, axis, np.where(known, bins, -1), labels)


def _span(values: Float64[np.ndarray, " n"]) -> str:
    if not len(values):
        return ""
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    return low if low == high else f"{low}-{high}"


def _score_bins(contest: Contest, axis: str, bins: Int64[np.ndarray, " n"], labels: Sequence[str]) -> Curve:
    """Bin -1 is for pairs that have none."""
    used = [each for each in range(len(labels)) if np.any(bins == each)]
    first, second = (
        estimate_scores(
            {f"{axis} {each}": errors[bins == each] for each in used},
            contest.measure.thresholds[:1],
            averaged=(),
        )
        for errors in (contest.pooled.first, contest.pooled.second)
    )
    return Curve(
        axis=axis,
        labels=tuple(labels[each] for each in used),
        pairs=tuple(int(np.count_nonzero(bins == each)) for each in used),
        first=tuple(auc for (auc,) in first.sets.values()),
        second=tuple(auc for (auc,) in second.sets.values()),
        unknown=int(np.count_nonzero(bins < 0)),
    )


def read_views(paths: Sequence[Path]) -> dict[str, float]:
    """Angles between the true views by identifier, from every views.tsv beside or below the paths.

    Args:
        paths: Result files, or folders of them.

    Returns:
        Degrees; nothing where there is no such file.

    Raises:
        InputError: A line is not an identifier, a tab and a number.
    """
    views: dict[str, float] = {}
    for path in paths:
        files = sorted(path.rglob(VIEWS)) if path.is_dir() else [path.with_name(VIEWS)]
        for file in files:
            if file.is_file():
                views |= _read_views(file)
    return views


def _read_views(path: Path) -> dict[str, float]:
    views = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], start=2):
        try:
            identifier, degrees = line.split("\t")
            views[identifier] = float(degrees)
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not an identifier, a tab and degrees.",
                remedy="Run the evaluation again, or remove this file: it is only drawn from.",
            ) from error
    return views
