"""From matches to errors: an estimator at some thresholds and seeds, put to the pairs of a set."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from importlib.metadata import version as installed
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
from jaxtyping import Float64

from gim_sfm.archive import Archive, Packed
from gim_sfm.errors import SettingsError
from gim_sfm.evaluation.benchmark import Asked, HomographyPair, PairSet, PosedPair
from gim_sfm.evaluation.estimators import ESTIMATORS, HOMOGRAPHY_ESTIMATORS
from gim_sfm.evaluation.outcomes import (
    CORNER_COLUMNS,
    POSE_COLUMNS,
    corner_outcome,
    corner_scale,
    pose_outcome,
)
from gim_sfm.evaluation.predictions import Predictions
from gim_sfm.evaluation.results import CORNERS, POSE, Measure, Results
from gim_sfm.progress import stage
from gim_sfm.recipe import digest, nearest
from gim_sfm.store import pair_key
from gim_sfm.threads import ahead, processors
from gim_sfm.types import Correspondences

Columns = Mapping[str, float]
Row = TypeVar("Row")

JUDGING_VERSION = 1
"""Raised when the same matches would get other errors than before."""

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


@dataclass(frozen=True, slots=True)
class Judge(Generic[Asked]):
    """How the matches of a pair become its error.

    Attributes:
        estimator: Name of the estimator.
        measure: What is counted as error.
        columns: What is told of each pair.
        runs: Thresholds and seeds to go through.
        usual: Whether published figures are by the same protocol.
        judge: These columns of a pair.
    """

    estimator: str
    measure: Measure
    columns: tuple[str, ...]
    runs: tuple[Run, ...]
    usual: bool
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
    runs = _runs(pixels or row.pixels, seeds if row.seeded else 1)
    return Judge(estimator, POSE, POSE_COLUMNS, runs, estimator == "official", judge)


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

    runs = _runs(pixels or row.pixels, seeds if row.seeded else 1)
    return Judge(estimator, CORNERS, CORNER_COLUMNS, runs, estimator == "opencv", judge)


def judge_set(
    judge: Judge[Asked], pair_set: PairSet[Asked], predictions: Predictions, method: str, version: str
) -> dict[Run, Results]:
    """Errors of all pairs of a set, in every run; those judged before, from the same matches, are kept.

    Args:
        judge: The estimator.
        pair_set: The pairs.
        predictions: Their matches; what is judged lies beside them.
        method: Name in the results.
        version: Name in the results.

    Raises:
        OutputError: The folder cannot be written.
    """
    settings = {
        "matches": predictions.made_by,
        "estimator": judge.estimator,
        "runs": [[run.pixels, run.seed] for run in judge.runs],
        "solvers": [cv2.__version__, installed("poselib")],
        "version": JUDGING_VERSION,
    }
    path = predictions.folder / f"judged-{judge.estimator}.h5"
    with Archive(path, digest(settings), settings) as archive:
        _judge_missing(judge, pair_set, predictions, archive)
        errors = np.stack([archive.arrays(pair_key(pair.images))["errors"] for pair in pair_set.pairs])
    return {
        run: Results(
            measure=judge.measure,
            method=method,
            set=pair_set.name,
            version=version,
            identifiers=tuple(pair.identifier for pair in pair_set.pairs),
            overlaps=_overlaps(pair_set),
            columns=dict(zip(judge.columns, errors[:, place].T, strict=True)),
        )
        for place, run in enumerate(judge.runs)
    }


def _judge_missing(
    judge: Judge[Asked], pair_set: PairSet[Asked], predictions: Predictions, archive: Archive
) -> None:
    made_from = {pair.images: _made_from(pair, predictions) for pair in pair_set.pairs}
    todo = [pair for pair in pair_set.pairs if archive.facts(pair_key(pair.images)) != made_from[pair.images]]

    def errors(given: tuple[Asked, Correspondences]) -> Float64[np.ndarray, "runs columns"]:
        pair, found = given
        outcomes = [judge.judge(pair, found, run) for run in judge.runs]
        return np.array([[outcome[name] for name in judge.columns] for outcome in outcomes])

    total = len(pair_set.pairs)
    with stage(f"Estimating ({judge.estimator})", total, "pair", done=total - len(todo)) as advance:
        given = ((pair, predictions.read(pair.images)) for pair in todo)
        for pair, row in zip(todo, ahead(errors, given, processors(), _QUEUED), strict=True):
            pack = partial(_pack, made_from[pair.images], row)
            archive.put(pair_key(pair.images), pack)
            advance(1)


def _pack(made_from: str, errors: Float64[np.ndarray, "runs columns"]) -> Packed:
    return made_from, {"errors": errors}


def _made_from(pair: PosedPair | HomographyPair, predictions: Predictions) -> str:
    """A digest of the matches of a pair and of what is known of it."""
    known = [np.asarray(value).tolist() for value in astuple(pair)]
    return digest(known, [predictions.contents[name] for name in pair.images])


def _overlaps(pair_set: PairSet[Any]) -> Float64[np.ndarray, "n 2"]:
    unknown = (np.nan, np.nan)
    return np.array([getattr(pair, "overlaps", unknown) for pair in pair_set.pairs], dtype=np.float64)


def _find(name: str, table: Mapping[str, Row]) -> Row:
    if name in table:
        return table[name]
    raise SettingsError(
        f"There is no estimator {name!r}.{nearest(name, table)}", remedy=f"Use one of: {', '.join(table)}."
    )


def _runs(pixels: Sequence[float], seeds: int) -> tuple[Run, ...]:
    return tuple(Run(each, seed) for each in dict.fromkeys(pixels) for seed in range(seeds))
