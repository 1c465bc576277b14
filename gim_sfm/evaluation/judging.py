"""From matches to errors: an estimator at some thresholds and seeds, put to the pairs of a set."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from gim_sfm.errors import SettingsError
from gim_sfm.evaluation.benchmark import Asked, HomographyPair, PairSet, PosedPair
from gim_sfm.evaluation.estimators import ESTIMATORS, HOMOGRAPHY_ESTIMATORS
from gim_sfm.evaluation.outcomes import corner_outcome, corner_scale, pose_outcome
from gim_sfm.evaluation.results import CORNERS, POSE, Measure, Results
from gim_sfm.progress import stage
from gim_sfm.recipe import nearest
from gim_sfm.types import Correspondences

Columns = Mapping[str, float]
Row = TypeVar("Row")

_QUEUED = 64


@dataclass(frozen=True, slots=True)
class Run:
    """One way through all pairs.

    Attributes:
        pixels: Inlier threshold, pixels.
        seed: Of the estimator.
    """

    pixels: float
    seed: int

    def __str__(self) -> str:
        return f"{self.pixels:g}px-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Judge(Generic[Asked]):
    """How the matches of a pair become its error.

    Attributes:
        estimator: Name of the estimator.
        measure: What is counted as error.
        runs: Thresholds and seeds to go through.
        judge: The columns of a pair's line in the results.
    """

    estimator: str
    measure: Measure
    runs: tuple[Run, ...]
    judge: Callable[[Asked, Correspondences, Run], Columns]


def pose_judge(estimator: str, pixels: Sequence[float] = (), seeds: int = 1) -> Judge[PosedPair]:
    """Judges by relative poses.

    Args:
        estimator: A name of `ESTIMATORS`.
        pixels: Inlier thresholds; none for the estimator's own.
        seeds: How many seeds to try, if the estimator knows chance.

    Raises:
        SettingsError: No such estimator, or a threshold for the official one.
    """
    row = _find(estimator, ESTIMATORS)

    def judge(pair: PosedPair, found: Correspondences, run: Run) -> Columns:
        estimate = row.estimate(found.points0, found.points1, pair.intrinsics, run.pixels, run.seed)
        return pose_outcome(pair, found, estimate)

    if estimator == "official" and pixels:
        raise SettingsError(
            "The official protocol has but one threshold, 0.5 pixels.",
            remedy="Leave --thresholds out, or name another --estimator.",
        )
    return Judge(estimator, POSE, _runs(pixels or row.pixels, seeds if row.seeded else 1), judge)


def corner_judge(estimator: str, pixels: Sequence[float] = (), seeds: int = 1) -> Judge[HomographyPair]:
    """Judges by homographies, in pixels of the second image shrunk to a shorter side of 480.

    Args:
        estimator: A name of `HOMOGRAPHY_ESTIMATORS`.
        pixels: Inlier thresholds in such pixels; none for the estimator's own.
        seeds: How many seeds to try, if the estimator knows chance.

    Raises:
        SettingsError: No such estimator.
    """
    row = _find(estimator, HOMOGRAPHY_ESTIMATORS)

    def judge(pair: HomographyPair, found: Correspondences, run: Run) -> Columns:
        pixels = run.pixels / corner_scale(pair)
        return corner_outcome(pair, found, row.estimate(found.points0, found.points1, pixels, run.seed))

    return Judge(estimator, CORNERS, _runs(pixels or row.pixels, seeds if row.seeded else 1), judge)


def judge_set(
    judge: Judge[Asked],
    run: Run,
    pair_set: PairSet[Asked],
    read: Callable[[Asked], Correspondences],
    method: str,
    version: str,
) -> Results:
    """Errors of all pairs of a set.

    Args:
        judge: The estimator.
        run: Its threshold and seed.
        pair_set: The pairs.
        read: Gives the matches of a pair.
        method: Name in the results.
        version: Name in the results.
    """

    def row(given: tuple[Asked, Correspondences]) -> Columns:
        return judge.judge(*given, run)

    rows = []
    with stage(f"Judging, {judge.estimator} {run}", len(pair_set.pairs), "pair") as advance:
        for columns in _in_threads(row, ((pair, read(pair)) for pair in pair_set.pairs)):
            rows.append(columns)
            advance(1)
    return Results(
        measure=judge.measure,
        method=method,
        set=pair_set.name,
        version=version,
        identifiers=tuple(pair.identifier for pair in pair_set.pairs),
        overlaps=_overlaps(pair_set),
        columns={name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]},
    )


def _overlaps(pair_set: PairSet[Any]) -> np.ndarray:
    unknown = (np.nan, np.nan)
    return np.array([getattr(pair, "overlaps", unknown) for pair in pair_set.pairs], dtype=np.float64)


def _find(name: str, table: Mapping[str, Row]) -> Row:
    if name in table:
        return table[name]
    raise SettingsError(
        f"There is no estimator {name!r}.{nearest(name, table)}", remedy=f"Use one of: {', '.join(table)}."
    )


def _runs(pixels: Sequence[float], seeds: int) -> tuple[Run, ...]:
    return tuple(Run(each, seed) for each in pixels for seed in range(seeds))


Given = TypeVar("Given")
Made = TypeVar("Made")


def _in_threads(make: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
    """Applies a function that lets go of the interpreter, in order, on all processors."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        waiting: deque[Future[Made]] = deque()
        for item in given:
            waiting.append(threads.submit(make, item))
            if len(waiting) > _QUEUED:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
