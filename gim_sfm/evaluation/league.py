"""Methods side by side: scores with their uncertainty, the published ones, and what may be told apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gim_sfm.errors import InputError
from gim_sfm.evaluation.published import PUBLISHED_SCORES, PublishedScores
from gim_sfm.evaluation.results import POSE, Measure, Results
from gim_sfm.evaluation.statistics import (
    Difference,
    Estimate,
    PairedComparison,
    compare_scores,
    estimate_scores,
    have_shared_pairs,
    rank,
    share_pairs,
)
from gim_sfm.evaluation.zeb_sets import ZEB_BY_NAME, ZEB_SETS, paper_order


@dataclass(frozen=True, slots=True)
class SetScore:
    """One method on one set.

    Attributes:
        pairs: Number of pairs scored.
        published_pairs: Number of pairs in the published set; None where there is none.
        failures: Pairs without any estimate.
        below: Share of pairs with an error below each threshold.
        auc: At each threshold, as a share of the perfect area.
    """

    pairs: int
    published_pairs: int | None
    failures: int
    below: tuple[float, ...]
    auc: tuple[Estimate, ...]

    @property
    def comparable(self) -> bool:
        """Whether all published pairs, as far as their number tells, are scored."""
        return self.published_pairs in (None, self.pairs)


@dataclass(frozen=True, slots=True)
class Entry:
    """One of our methods.

    Attributes:
        name: Method and version.
        scores: By name of the set.
        mean: Of the table's common sets at each threshold; empty where there is none.
        rank: Mean of its ranks on the common sets; None where there is none.
    """

    name: str
    scores: Mapping[str, SetScore]
    mean: tuple[Estimate, ...]
    rank: float | None


@dataclass(frozen=True, slots=True)
class PublishedEntry:
    """One published method on the sets of a table.

    Attributes:
        name: As printed.
        auc: At the first threshold, by name of the set, as a share of the perfect area.
        mean: Over the common sets, likewise; that of the README where all twelve are in; None where there is
            no common set.
        rank: Mean of its ranks on the common sets; None where there is none.
    """

    name: str
    auc: Mapping[str, float]
    mean: float | None
    rank: float | None


@dataclass(frozen=True, slots=True)
class Duel:
    """The best of our methods and another one on the pairs that both have.

    Attributes:
        best: Name of the best.
        other: Name of the other.
        comparison: Other less best.
    """

    best: str
    other: str
    comparison: PairedComparison


@dataclass(frozen=True, slots=True)
class Table:
    """Methods whose scores belong beside each other.

    Attributes:
        measure: What they are scored by.
        benchmark: "ZEB", or "" for other sets.
        sets: Columns.
        common: Sets that all of our methods have: means and ranks are over these.
        entries: Our methods.
        published: Published methods; none for other sets than ZEB's.
        duels: Each of our methods against the best of them.
    """

    measure: Measure
    benchmark: str
    sets: tuple[str, ...]
    common: tuple[str, ...]
    entries: tuple[Entry, ...]
    published: tuple[PublishedEntry, ...]
    duels: tuple[Duel, ...]


@dataclass(frozen=True, slots=True)
class League:
    """The result of scoring: tables of ZEB's sets, of other sets with known poses, and of homographies.

    Attributes:
        tables: Those of the three that have a set.
    """

    tables: tuple[Table, ...]

    def __str__(self) -> str:
        from gim_sfm.evaluation.league_text import write_league

        return write_league(self)

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision, as shares of 1, ready for json.dumps."""
        return {"tables": [_table_row(table) for table in self.tables]}


Methods = Mapping[str, Mapping[str, Results]]
"""Results by name of the method and name of the set."""


def build_league(results: Sequence[Results], *, published: bool = True) -> League:
    """Scores methods and sets them beside each other.

    Args:
        results: Of one or more methods on one or more sets; each method, version and set once.
        published: Whether they are by the protocol of the published figures, which may then stand beside.

    Returns:
        The league; published methods are in it as far as their sets are.

    Raises:
        InputError: There are no results, or a method, version and set come twice.
    """
    if not results:
        raise InputError("There are no results to score.", remedy="Give result files, or folders of them.")
    groups: dict[tuple[Measure, str], dict[str, dict[str, Results]]] = {}
    for each in sorted(results, key=_place):
        methods = groups.setdefault((each.measure, _benchmark(each)), {})
        sets = methods.setdefault(f"{each.method} {each.version}", {})
        if each.set in sets:
            raise InputError(
                f"There are two results of {each.method} {each.version} on {each.set}.",
                remedy="Give each method another version, or take one of the results away.",
            )
        sets[each.set] = each
    return League(tuple(_build_table(*key, methods, published) for key, methods in groups.items()))


def _benchmark(results: Results) -> str:
    return "ZEB" if results.measure == POSE and results.set in ZEB_BY_NAME else ""


def _place(results: Results) -> tuple[bool, bool, int, str]:
    """Poses before corners, ZEB before others, its sets in the order of the paper."""
    known = bool(_benchmark(results))
    return results.measure != POSE, not known, *(paper_order(results.set) if known else (0, results.set))


def _build_table(measure: Measure, benchmark: str, methods: Methods, comparable: bool) -> Table:
    named = {name for sets in methods.values() for name in sets}
    sets = sorted(named, key=paper_order if benchmark else None)
    common = [name for name in sets if all(name in results for results in methods.values())]
    published = PUBLISHED_SCORES if comparable and benchmark else ()
    entries = {name: _build_entry(name, results, measure, common) for name, results in methods.items()}
    ranks = _mean_ranks(list(entries.values()), published, common)
    return Table(
        measure=measure,
        benchmark=benchmark,
        sets=tuple(sets),
        common=tuple(common),
        entries=tuple(_ranked(entry, ranks) for entry in entries.values()),
        published=tuple(_publish(each, sets, common, ranks.get(each.method)) for each in published),
        duels=_build_duels(measure, list(entries.values()), methods, common),
    )


def _build_entry(name: str, sets: Mapping[str, Results], measure: Measure, common: Sequence[str]) -> Entry:
    estimates = estimate_scores(
        {key: each.errors for key, each in sets.items()}, measure.thresholds, averaged=common
    )
    scores = {key: _score_set(each, estimates.sets[key]) for key, each in sets.items()}
    return Entry(name, scores, estimates.mean, None)


def _score_set(results: Results, auc: tuple[Estimate, ...]) -> SetScore:
    errors = results.errors
    known = ZEB_BY_NAME.get(results.set) if _benchmark(results) else None
    return SetScore(
        pairs=len(results),
        published_pairs=known.pairs if known else None,
        failures=int(np.count_nonzero(~np.isfinite(errors))),
        below=tuple(float(np.mean(errors < threshold)) for threshold in results.measure.thresholds),
        auc=auc,
    )


def _mean_ranks(
    entries: Sequence[Entry], published: Sequence[PublishedScores], common: Sequence[str]
) -> dict[str, float]:
    """Mean rank by name, over published and our methods together; ours count as printed, to one decimal."""
    if not common:
        return {}
    scores = [[each.of_set(name) for name in common] for each in published]
    ours = [[100 * entry.scores[name].auc[0].value for name in common] for entry in entries]
    ranks = rank(np.array([*scores, *(np.round(ours, 1) if published else ours)]))
    names = [each.method for each in published] + [f"> {entry.name}" for entry in entries]
    return dict(zip(names, ranks.mean(axis=1).tolist(), strict=True))


def _ranked(entry: Entry, ranks: Mapping[str, float]) -> Entry:
    return Entry(entry.name, entry.scores, entry.mean, ranks.get(f"> {entry.name}"))


def _publish(
    scores: PublishedScores, sets: Sequence[str], common: Sequence[str], mean_rank: float | None
) -> PublishedEntry:
    auc = {name: scores.of_set(name) / 100 for name in sets}
    mean = float(np.mean([auc[name] for name in common])) if common else None
    complete = len(common) == len(ZEB_SETS)
    return PublishedEntry(scores.method, auc, scores.mean / 100 if complete else mean, mean_rank)


def _build_duels(
    measure: Measure, entries: Sequence[Entry], methods: Methods, common: Sequence[str]
) -> tuple[Duel, ...]:
    """Each method against the one with the best mean, if they share pairs of every common set."""
    if not common:
        return ()
    best = max(entries, key=lambda entry: entry.mean[0].value).name
    others = [entry.name for entry in entries if entry.name != best]
    return tuple(
        _build_duel(measure, best, other, methods, common)
        for other in others
        if all(have_shared_pairs(methods[other][name], methods[best][name]) for name in common)
    )


def _build_duel(measure: Measure, best: str, other: str, methods: Methods, common: Sequence[str]) -> Duel:
    shared = [share_pairs(methods[other][name], methods[best][name]) for name in common]
    return Duel(best, other, compare_scores(shared, measure.thresholds[0]))


def _table_row(table: Table) -> dict[str, Any]:
    names = [f"{threshold:g}" for threshold in table.measure.thresholds]
    return {
        "benchmark": table.benchmark,
        "errors": list(table.measure.error_columns),
        "unit": table.measure.unit,
        "thresholds": list(table.measure.thresholds),
        "sets": list(table.sets),
        "mean_over": list(table.common),
        "methods": [_entry_row(entry, names) for entry in table.entries],
        "published": [
            {"method": each.name, "auc": dict(each.auc), "mean": each.mean, "mean_rank": each.rank}
            for each in table.published
        ],
        "paired": [
            {"method": duel.other, "against": duel.best, **comparison_row(duel.comparison)}
            for duel in table.duels
        ],
    }


def _entry_row(entry: Entry, thresholds: Sequence[str]) -> dict[str, Any]:
    return {
        "method": entry.name,
        "mean": {each: _estimate_row(mean) for each, mean in zip(thresholds, entry.mean, strict=False)},
        "mean_rank": entry.rank,
        "sets": {name: _score_row(score, thresholds) for name, score in entry.scores.items()},
    }


def _score_row(score: SetScore, thresholds: Sequence[str]) -> dict[str, Any]:
    return {
        "pairs": score.pairs,
        "published_pairs": score.published_pairs,
        "failures": score.failures,
        "below": dict(zip(thresholds, score.below, strict=True)),
        "auc": {each: _estimate_row(auc) for each, auc in zip(thresholds, score.auc, strict=True)},
    }


def comparison_row(comparison: PairedComparison) -> dict[str, Any]:
    """A paired comparison, ready for json.dumps."""
    return {
        "threshold": comparison.threshold,
        "mean": _estimate_row(comparison.mean),
        "sets": {
            each.set: {
                "pairs": each.pairs,
                "only_first": each.only_first,
                "only_second": each.only_second,
                "auc": list(each.scores),
                **_estimate_row(each.difference),
            }
            for each in comparison.sets
        },
    }


def _estimate_row(estimate: Estimate) -> dict[str, float]:
    row = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    if isinstance(estimate, Difference):
        row["p"] = estimate.p
    return row
