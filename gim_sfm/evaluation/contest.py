"""Two methods on the pairs that both have: read from result files, joined, and pooled over the sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from gim_sfm.errors import InputError
from gim_sfm.evaluation.results import Measure, Results, find_results
from gim_sfm.evaluation.statistics import SharedPairs, share_pairs
from gim_sfm.evaluation.zeb_sets import paper_order


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """Two methods on the same pairs.

    Attributes:
        names: Of the first and the second.
        measure: What their errors are.
        sets: Shared pairs, set by set: those of ZEB in the order of the paper, then others by name.
        only_first: Sets that only the first has; not counted.
        only_second: Sets that only the second has; not counted.
        pooled: The pairs of all sets together.
    """

    names: tuple[str, str]
    measure: Measure
    sets: tuple[SharedPairs, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    pooled: "PooledPairs"


@dataclass(frozen=True, slots=True, eq=False)
class PooledPairs:
    """Shared pairs of all sets, one behind the other.

    Attributes:
        sets: Set of each pair.
        identifiers: Of each pair.
        first: Errors of the first method, (n,).
        second: Errors of the second method, (n,).
        overlaps: Smaller of each pair's two overlaps, (n,); not a number where unknown.
        matches: Number of correct matches of the method that has fewer, (n,).
    """

    sets: tuple[str, ...]
    identifiers: tuple[str, ...]
    first: Float64[np.ndarray, " n"]
    second: Float64[np.ndarray, " n"]
    overlaps: Float64[np.ndarray, " n"]
    matches: Float64[np.ndarray, " n"]


Sets = Mapping[str, Results]
"""Results of one method by name of the set."""


def join(first: Path, second: Path) -> Contest:
    """Reads the results of two methods and joins them by identifier.

    Args:
        first: Result file, or folder with result files of one method.
        second: Likewise.

    Returns:
        What both have.

    Raises:
        InputError: A file cannot be used, a folder holds several methods or both kinds of errors, or the two
            share no set or no pair of a shared set.
    """
    sides = [_read_method(path) for path in (first, second)]
    if first.resolve() == second.resolve():
        raise InputError(f"{first} was given twice.", remedy="Give the results of two methods.")
    measures = [next(iter(side.values())).measure for side in sides]
    shared = sorted(sides[0].keys() & sides[1].keys(), key=paper_order)
    if not shared or measures[0] != measures[1]:
        had = [", ".join(f"{each} ({measures[i].unit})" for each in side) for i, side in enumerate(sides)]
        raise InputError(
            f"{first} and {second} share no set: {had[0]}; {had[1]}.",
            remedy="Give result files of both methods on the same sets.",
        )
    pairs = [share_pairs(sides[0][name], sides[1][name]) for name in shared]
    return Contest(
        names=_tell_apart(sides, (first, second)),
        measure=measures[0],
        sets=tuple(pairs),
        only_first=tuple(sorted(sides[0].keys() - sides[1].keys(), key=paper_order)),
        only_second=tuple(sorted(sides[1].keys() - sides[0].keys(), key=paper_order)),
        pooled=_pool(pairs, *sides),
    )


def _read_method(path: Path) -> Sets:
    results = find_results([path])
    kinds = sorted({f"{each.method} {each.version} ({each.measure.unit})" for each in results})
    if len(kinds) > 1:
        raise InputError(
            f"{path} holds {len(kinds)} methods: {', '.join(kinds)}.",
            remedy="Give one result file, or a folder with those of one method and estimator.",
        )
    return {each.set: each for each in results}


def _tell_apart(sides: Sequence[Sets], paths: tuple[Path, Path]) -> tuple[str, str]:
    """Method and version; with the path where these are the same."""
    results = [next(iter(side.values())) for side in sides]
    first, second = (f"{each.method} {each.version}" for each in results)
    return (first, second) if first != second else (f"{first} ({paths[0]})", f"{second} ({paths[1]})")


def _pool(pairs: Sequence[SharedPairs], first: Sets, second: Sets) -> PooledPairs:
    return PooledPairs(
        sets=tuple(each.set for each in pairs for _ in each.identifiers),
        identifiers=tuple(name for each in pairs for name in each.identifiers),
        first=np.concatenate([each.first for each in pairs]),
        second=np.concatenate([each.second for each in pairs]),
        overlaps=np.concatenate([_overlaps(each, first[each.set], second[each.set]) for each in pairs]),
        matches=np.concatenate([_matches(each, first[each.set], second[each.set]) for each in pairs]),
    )


def _overlaps(pairs: SharedPairs, first: Results, second: Results) -> Float64[np.ndarray, " n"]:
    told, other = (each.overlaps[rows].min(1) for each, rows in zip((first, second), pairs.rows, strict=True))
    return np.asarray(np.where(np.isnan(told), other, told))


def _matches(pairs: SharedPairs, first: Results, second: Results) -> Float64[np.ndarray, " n"]:
    counts = (each.columns["Bef.Num"][rows] for each, rows in zip((first, second), pairs.rows, strict=True))
    return np.asarray(np.fmin(*counts))
