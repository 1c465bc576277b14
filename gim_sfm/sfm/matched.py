"""From pairs to a verified COLMAP database: matching, tracks of semi-dense matches, two-view geometry."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from gim_sfm.files import write_text
from gim_sfm.matchers.contract import Matcher, SparseMatcher
from gim_sfm.matching import match_pairs
from gim_sfm.sfm.colmap import Cameras, write_database
from gim_sfm.sfm.report import PairFigures
from gim_sfm.sfm.stopwatch import Stopwatch
from gim_sfm.sfm.tracks import merge
from gim_sfm.sfm.verification import VerifiedPair, Verifier
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Matches, Pair

MERGE_RADIUS = 4.0
"""File pixels within which semi-dense points of different pairs become one keypoint."""

Keypoints = Callable[[str], Float32[np.ndarray, "n 2"]]
Indices = Callable[[Pair], Matches]


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What stands in a database.

    Attributes:
        inputs: Digest of all that went into it.
        keypoints: Number of keypoints by photo.
        pairs: Matches and inliers of every pair that was compared.
    """

    inputs: str
    keypoints: Mapping[str, int]
    pairs: tuple[PairFigures, ...]


@dataclass(frozen=True, slots=True)
class MatchingJob:
    """What is to be matched, with what.

    Attributes:
        pairs: The pairs.
        matcher: The network.
        features: Features of all photos in the pairs.
        matches: Takes the matches.
        cameras: Camera of every photo that goes into the database.
        gps: Latitude, longitude and altitude of photos that carry them.
        seed: Seed of the verification.
        inputs: Digest of all of this.
    """

    pairs: Sequence[Pair]
    matcher: Matcher
    features: FeatureStore
    matches: MatchStore
    cameras: Cameras
    gps: Mapping[str, tuple[float, float, float]]
    seed: int
    inputs: str


def build_database(path: Path, job: MatchingJob, watch: Stopwatch) -> DatabaseFigures:
    """Matches and verifies the pairs and writes the database, unless it holds just that already.

    Args:
        path: The database; its figures stand beside it in a .json file.
        job: What goes into it.
        watch: Is told where the time went.

    Raises:
        OutputError: Something cannot be written; matches made so far are kept.
    """
    figures_path = path.with_suffix(".json")
    figures = _read_figures(figures_path)
    if figures is not None and figures.inputs == job.inputs and path.exists():
        return figures
    figures_path.unlink(missing_ok=True)
    stages = _match_sparse if isinstance(job.matcher, SparseMatcher) else _match_and_merge
    keypoints, indices, verified = stages(job, watch)
    with watch.stage("database"):
        write_database(
            path,
            job.cameras,
            ((name, keypoints(name)) for name in job.cameras),
            ((pair, indices(pair).indices) for pair in job.pairs),
            ((row.pair, row.geometry) for row in verified),
            gps=job.gps,
        )
        figures = DatabaseFigures(
            job.inputs,
            {name: len(keypoints(name)) for name in job.cameras},
            tuple(PairFigures(row.pair, row.matches, row.inliers) for row in verified),
        )
        write_text(figures_path, json.dumps(asdict(figures)))
    return figures


def _match_sparse(job: MatchingJob, watch: Stopwatch) -> tuple[Keypoints, Indices, list[VerifiedPair]]:
    """Keypoints are the stored ones; verification runs beside matching."""
    keypoints = cache(lambda name: job.features.read(name).keypoints)
    with watch.stage("matching"), Verifier(job.cameras, seed=job.seed) as verifier:

        def verify(pair: Pair, found: Matches | Correspondences) -> None:
            assert isinstance(found, Matches)
            verifier.submit(pair, (keypoints(pair[0]), keypoints(pair[1])), found.indices)

        outcome = match_pairs(job.pairs, job.matcher, job.features, job.matches, on_pair=verify)
        watch.note_inside("matching", outcome.seconds_in_network)
        verified = verifier.results()

    def indices(pair: Pair) -> Matches:
        found = job.matches.read(pair)
        assert isinstance(found, Matches)
        return found

    return keypoints, indices, verified


def _match_and_merge(job: MatchingJob, watch: Stopwatch) -> tuple[Keypoints, Indices, list[VerifiedPair]]:
    """Keypoints are made from the matched positions of all pairs, so verification comes after."""
    with watch.stage("matching"):
        outcome = match_pairs(job.pairs, job.matcher, job.features, job.matches)
        watch.note_inside("matching", outcome.seconds_in_network)
    with watch.stage("tracks"):

        def correspondences(pair: Pair) -> Correspondences:
            found = job.matches.read(pair)
            assert isinstance(found, Correspondences)
            return found

        merged = merge(lambda: ((pair, correspondences(pair)) for pair in job.pairs), radius=MERGE_RADIUS)
    none = np.zeros((0, 2), np.float32)
    with watch.stage("verification"), Verifier(job.cameras, seed=job.seed, threads=2) as verifier:
        for pair, found in merged.matches.items():
            verifier.submit(pair, (merged.keypoints[pair[0]], merged.keypoints[pair[1]]), found.indices)
        verified = verifier.results()
    return lambda name: merged.keypoints.get(name, none), merged.matches.__getitem__, verified


def _read_figures(path: Path) -> DatabaseFigures | None:
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    pairs = tuple(PairFigures(**{**row, "names": tuple(row["names"])}) for row in record["pairs"])
    return DatabaseFigures(record["inputs"], record["keypoints"], pairs)
