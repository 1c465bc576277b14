"""How sure a score is: bootstrap intervals, paired tests, and ranks.

Pairs are the unit that is drawn: a score speaks for the kind of pairs its set holds, and two methods are
compared on the same pairs, which cancels what makes a pair hard for both. Everything is drawn from generators
seeded by the name of the set, so that a figure does not depend on which other sets are looked at.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from gim_sfm.errors import InputError
from gim_sfm.evaluation.results import Results
from gim_sfm.geometry import auc

RESAMPLES = 2000
"""Enough for the ends of a 95 % interval to stand still to a few hundredths of its width."""

PERMUTATIONS = 9999
"""p can then be told down to 1 in 10 000."""

SEED = 3407
"""That of the published evaluation."""

COVERED = (2.5, 97.5)
"""Percentiles between which an interval lies."""

CELLS = 1 << 18
"""Numbers drawn at a time: they stay in the processor's cache."""

TIE = 1e-12
"""Differences closer than this are equal."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        value: The number from all pairs.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """First less second, with how likely a difference as large is where both methods are equally good.

    Attributes:
        p: Two-sided, by sign-flip permutation; never 0.
    """

    p: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0 and p is below 5 %."""
        return self.p < 0.05 and not self.low <= 0.0 <= self.high


@dataclass(frozen=True, slots=True, eq=False)
class SharedPairs:
    """Errors of two methods on the pairs of a set that both have.

    Attributes:
        set: Name of the set.
        identifiers: The shared pairs, sorted.
        first: Errors of the first method, (n,).
        second: Errors of the second method, (n,).
        rows: Where they stand in the results of the first and of the second, (n,) each.
        only_first: Number of pairs that only the first has.
        only_second: Number of pairs that only the second has.
    """

    set: str
    identifiers: tuple[str, ...]
    first: Float64[np.ndarray, " n"]
    second: Float64[np.ndarray, " n"]
    rows: tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]
    only_first: int
    only_second: int


@dataclass(frozen=True, slots=True)
class SetDifference:
    """How two methods differ on one set, as shares of the perfect area.

    Attributes:
        set: Name of the set.
        pairs: Number of pairs that both have.
        only_first: Number of pairs that only the first has; not counted.
        only_second: Number of pairs that only the second has; not counted.
        scores: Of the first and the second on the shared pairs.
        difference: First less second.
    """

    set: str
    pairs: int
    only_first: int
    only_second: int
    scores: tuple[float, float]
    difference: Difference


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two methods on the same pairs.

    Attributes:
        threshold: Where the recall curve is cut.
        sets: One by one.
        mean: Difference of the plain means over the sets.
    """

    threshold: float
    sets: tuple[SetDifference, ...]
    mean: Difference


def resample_scores(
    errors: Float64[np.ndarray, "methods n"],
    thresholds: Sequence[float],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Float64[np.ndarray, "methods thresholds resamples"]:
    """AUC of pairs drawn with replacement, n of n, the same draw for every method.

    Args:
        errors: Of each method on the same pairs; infinite for a failure.
        thresholds: Where the recall curve is cut.
        generator: Draws the pairs.
        resamples: How often.

    Returns:
        Exactly the AUC of each draw.
    """
    methods, size = errors.shape
    parts = [_parts(each, threshold) for each in errors for threshold in thresholds]
    ordered = [(gain, last, np.argsort(-last, kind="stable")) for gain, last in parts]
    blocks = []
    for rows in _blocks(resamples, size):
        counts = _counts(generator.integers(size, size=(rows, size)))
        blocks.append(
            [_weigh(counts, gain) + _largest(last, order, counts) / 2 for gain, last, order in ordered]
        )
    areas = np.concatenate(blocks, axis=1).reshape(methods, len(thresholds), resamples)
    return np.asarray(areas / (size * np.asarray(thresholds)[:, None]))


def _parts(
    errors: Float64[np.ndarray, "*methods n"], threshold: float
) -> tuple[Float64[np.ndarray, "*methods n"], Float64[np.ndarray, "*methods n"]]:
    """T - e, and e itself, where e is below T; else 0. See `geometry.auc`."""
    below = errors < threshold
    return np.where(below, threshold - errors, 0.0), np.where(below, errors, 0.0)


def _weigh(
    weights: Float64[np.ndarray, "rows n"], values: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " rows"]:
    """Weighted sum of each row. Not by BLAS: on a busy machine its threads wait for one another."""
    return np.asarray(np.einsum("rn,n->r", weights, values))


def _blocks(rows: int, columns: int) -> Iterator[int]:
    """Numbers of rows that add up to `rows`, few enough at a time for the cache."""
    step = max(1, CELLS // columns)
    for start in range(0, rows, step):
        yield min(step, rows - start)


def _counts(drawn: Int64[np.ndarray, "rows n"]) -> Float64[np.ndarray, "rows n"]:
    rows, size = drawn.shape
    places = drawn + size * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * size).reshape(rows, size).astype(np.float64)


def _largest(
    last: Float64[np.ndarray, " n"], order: Int64[np.ndarray, " n"], counts: Float64[np.ndarray, "rows n"]
) -> Float64[np.ndarray, " rows"]:
    """The largest entry that each row counts, looked for among ever more of the largest ones."""
    found = np.zeros(len(counts))
    open_rows = np.arange(len(counts))
    for start in range(0, len(last), 32):
        columns = order[start : start + 32]
        counted = counts[np.ix_(open_rows, columns)] > 0
        hit = counted.any(axis=1)
        found[open_rows[hit]] = last[columns[counted[hit].argmax(axis=1)]]
        open_rows = open_rows[~hit]
        if not len(open_rows):
            break
    return found


def flip_scores(
    first: Float64[np.ndarray, " n"],
    second: Float64[np.ndarray, " n"],
    threshold: float,
    generator: np.random.Generator,
    permutations: int = PERMUTATIONS,
) -> Float64[np.ndarray, " permutations"]:
    """Differences of AUC where a coin decides for each pair which method which error belongs to.

    Args:
        first: Errors of one method.
        second: Errors of the other on the same pairs.
        threshold: Where the recall curves are cut.
        generator: Tosses the coins.
        permutations: How often.

    Returns:
        Exactly the difference, first less second, of each toss.
    """
    gains, lasts = _parts(np.stack([first, second]), threshold)
    gap = gains[0] - gains[1]
    sure = lasts.min(axis=0).max()
    contested = np.flatnonzero(lasts.max(axis=0) > sure)
    blocks = []
    for rows in _blocks(permutations, len(first)):
        flipped = generator.integers(2, size=(rows, len(first)), dtype=np.uint8).astype(bool)
        total = gap.sum() - 2 * _weigh(flipped.astype(np.float64), gap)
        blocks.append(total + _largest_gap(lasts[:, contested], flipped[:, contested], sure) / 2)
    return np.concatenate(blocks) / (len(first) * threshold)


def _largest_gap(
    lasts: Float64[np.ndarray, "2 n"], flipped: Bool[np.ndarray, "rows n"], sure: float
) -> Float64[np.ndarray, " rows"]:
    """Difference of the largest errors below the threshold; either side has `sure`, however flipped."""
    first = np.where(flipped, lasts[1], lasts[0]).max(axis=1, initial=sure)
    second = np.where(flipped, lasts[0], lasts[1]).max(axis=1, initial=sure)
    return np.asarray(first - second)


@dataclass(frozen=True, slots=True)
class Scores:
    """AUC of one method, one estimate a threshold.

    Attributes:
        sets: Of each set by its name.
        mean: Plain mean over the sets that were asked for; empty where there is none.
    """

    sets: Mapping[str, tuple[Estimate, ...]]
    mean: tuple[Estimate, ...]


def estimate_scores(
    errors: Mapping[str, Float64[np.ndarray, " n"]],
    thresholds: Sequence[float],
    *,
    averaged: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Scores:
    """AUC of one method on each set and in the plain mean of the sets, with 95 % bootstrap intervals.

    Args:
        errors: Of each set by its name.
        thresholds: Where the recall curve is cut.
        averaged: Sets that make up the mean; None for all.
        resamples: Draws.
        seed: Of the generators.

    Returns:
        Estimates.

    Raises:
        InputError: A set has no pair.
    """
    values = {name: np.array(auc(each, thresholds)) for name, each in errors.items()}
    drawn = {
        name: resample_scores(each[None], thresholds, _generator(seed, name), resamples)[0]
        for name, each in errors.items()
    }
    names = list(errors if averaged is None else averaged)
    return Scores(
        sets={name: _estimates(values[name], drawn[name]) for name in errors},
        mean=_estimates(_mean(values, names), _mean(drawn, names)) if names else (),
    )


def _mean(
    arrays: Mapping[str, Float64[np.ndarray, "*shape"]], names: Iterable[str]
) -> Float64[np.ndarray, "*shape"]:
    return np.asarray(np.mean([arrays[name] for name in names], axis=0))


def _generator(seed: int, name: str, purpose: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, purpose, *name.encode()])


def _estimates(
    values: Float64[np.ndarray, " thresholds"], drawn: Float64[np.ndarray, "thresholds resamples"]
) -> tuple[Estimate, ...]:
    ends = np.percentile(drawn, COVERED, axis=1).T
    return tuple(
        Estimate(float(value), float(low), float(high))
        for value, (low, high) in zip(values, ends, strict=True)
    )


def have_shared_pairs(first: Results, second: Results) -> bool:
    """Whether two methods have a pair in common."""
    return not set(first.identifiers).isdisjoint(second.identifiers)


def share_pairs(first: Results, second: Results) -> SharedPairs:
    """The pairs of a set that two methods both have, by identifier.

    Raises:
        InputError: They share no pair.
    """
    shared, at_first, at_second = np.intersect1d(
        np.array(first.identifiers), np.array(second.identifiers), assume_unique=True, return_indices=True
    )
    if not len(shared):
        raise InputError(
            f"{first.method} {first.version} and {second.method} {second.version} share no pair of "
            f"{first.set}.",
            remedy="Run both on the same pairs; pairs are told apart by their identifiers.",
        )
    return SharedPairs(
        set=first.set,
        identifiers=tuple(shared.tolist()),
        first=first.errors[at_first],
        second=second.errors[at_second],
        rows=(at_first, at_second),
        only_first=len(first) - len(shared),
        only_second=len(second) - len(shared),
    )


def compare_scores(
    sets: Sequence[SharedPairs],
    threshold: float,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = SEED,
) -> PairedComparison:
    """Difference of AUC between two methods, set by set and in the plain mean of the sets.

    Intervals are from a paired bootstrap: both methods are scored on the same draw of pairs. p is from sign
    flips: were the methods equally good, each pair's two errors could as well be swapped. p counts the
    difference found among the tosses, (1 + k) / (1 + N), and so is never 0.

    Args:
        sets: Shared pairs of each set.
        threshold: Where the recall curve is cut.
        resamples: Draws.
        permutations: Tosses.
        seed: Of the generators.

    Returns:
        Differences, first less second, as shares of the perfect area.

    Raises:
        InputError: There is no set.
    """
    if not sets:
        raise InputError("The two share no set.", remedy="Give result files of the same sets.")
    scores = np.array(
        [[auc(errors, [threshold])[0] for errors in (each.first, each.second)] for each in sets]
    )
    values = scores[:, 0] - scores[:, 1]
    drawn = np.stack([_draw_difference(each, threshold, seed, resamples) for each in sets])
    tossed = np.stack([_toss_difference(each, threshold, seed, permutations) for each in sets])
    rows = tuple(
        SetDifference(
            set=each.set,
            pairs=len(each.identifiers),
            only_first=each.only_first,
            only_second=each.only_second,
            scores=(float(scores[row, 0]), float(scores[row, 1])),
            difference=_difference(values[row], drawn[row], tossed[row]),
        )
        for row, each in enumerate(sets)
    )
    return PairedComparison(threshold, rows, _difference(values.mean(), drawn.mean(0), tossed.mean(0)))


def _draw_difference(
    pairs: SharedPairs, threshold: float, seed: int, resamples: int
) -> Float64[np.ndarray, " resamples"]:
    both, generator = np.stack([pairs.first, pairs.second]), _generator(seed, pairs.set)
    scores = resample_scores(both, [threshold], generator, resamples)
    return np.asarray(scores[0, 0] - scores[1, 0])


def _toss_difference(
    pairs: SharedPairs, threshold: float, seed: int, permutations: int
) -> Float64[np.ndarray, " permutations"]:
    generator = _generator(seed, pairs.set, purpose=1)
    return flip_scores(pairs.first, pairs.second, threshold, generator, permutations)


def _difference(
    value: float, drawn: Float64[np.ndarray, " resamples"], tossed: Float64[np.ndarray, " permutations"]
) -> Difference:
    low, high = np.percentile(drawn, COVERED)
    reached = int(np.count_nonzero(np.abs(tossed) >= abs(value) - TIE))
    chances = 1 + len(tossed)
    return Difference(float(value), float(low), float(high), (1 + reached) / chances)


def rank(scores: Float64[np.ndarray, "methods sets"]) -> Float64[np.ndarray, "methods sets"]:
    """Rank of each method on each set: 1 is best, equals share the better rank (RANK of spreadsheets).

    Args:
        scores: Higher is better; not a number where a method has no score.

    Returns:
        Ranks; not a number where there is no score.
    """
    better = (scores[None] > scores[:, None]).sum(axis=1)
    return np.where(np.isnan(scores), np.nan, better + 1.0)
