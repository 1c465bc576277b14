"""From pairs to a verified COLMAP database: matching, tracks of dense matches, two-view geometry, rescue."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float32

from gim_sfm.files import write_text
from gim_sfm.images import PhotoHeader, mask_path, signature
from gim_sfm.matchers.contract import SparseMatcher
from gim_sfm.matching import match_pairs
from gim_sfm.recipe import digest
from gim_sfm.sfm.colmap import Cameras, write_database
from gim_sfm.sfm.positions import Positions
from gim_sfm.sfm.report import PairFigures
from gim_sfm.sfm.rescue import pairs_to_rescue, weakly_linked
from gim_sfm.sfm.stopwatch import Stopwatch
from gim_sfm.sfm.track_quality import TrackFigures, measure_tracks
from gim_sfm.sfm.verification import VerifiedPair, Verifier
from gim_sfm.types import Correspondences, Matches, Pair

Keypoints = Callable[[str], Float32[np.ndarray, "n 2"]]
Indices = Callable[[Pair], Matches]

NO_KEYPOINTS = np.zeros((0, 2), np.float32)


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What stands in a database.

    Attributes:
        inputs: Digest of all that went into it.
        keypoints: Number of keypoints by photo.
        pairs: Matches and inliers of every pair that was compared.
        tracks: How the verified matches hang together.
        rescued: Pairs that the second matcher made stronger.
        lost: Photos that it was asked about because they did not come into a model.
        in_vain: Photos that it was asked about for that reason, but the model was no better for it.
    """

    inputs: str
    keypoints: Mapping[str, int]
    pairs: tuple[PairFigures, ...]
    tracks: TrackFigures
    rescued: tuple[Pair, ...] = ()
    lost: tuple[str, ...] = ()
    in_vain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MatchingJob:
    """What is to be matched, with what.

    Attributes:
        pairs: The pairs.
        first: The matcher at work.
        rescue: A second matcher at work, where there is one.
        cameras: Camera of every photo that goes into the database.
        gps: Latitude, longitude and altitude of photos that carry them.
        seed: Seed of the verification.
        inputs: Digest of all of this.
        settled: Keypoints by photo that a model holds already: they keep their places and numbers, and others
            may come after them.
    """

    pairs: Sequence[Pair]
    first: Positions
    rescue: Positions | None
    cameras: Cameras
    gps: Mapping[str, tuple[float, float, float]]
    seed: int
    inputs: str
    settled: Mapping[str, Float32[np.ndarray, "n 2"]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        matchers: tuple[Positions, Positions | None],
        cameras: Cameras,
        headers: Mapping[str, PhotoHeader],
        *,
        seed: int,
        settled: Mapping[str, Float32[np.ndarray, "n 2"]] | None = None,
    ) -> Self:
        """A job with its digest.

        Args:
            pairs: The pairs.
            matchers: The matchers at work, the second one for rescue.
            cameras: Camera of every photo that goes into the database.
            headers: Of the photos whose masks and positions count.
            seed: Seed of the verification.
            settled: As in the attribute.
        """
        first, rescue = matchers
        inputs = digest(
            first.lineup.matches_key,
            first.lineup.joining,
            rescue and rescue.lineup.matches_key,
            {name: first.anchors.content(name) for name in cameras},
            _masks_content(first.masks, headers),
            pairs,
            {name: camera.todict() for name, camera in cameras.items()},
            seed,
        )
        gps = {
            name: (header.gps[0], header.gps[1], header.gps[2] or 0.0)
            for name, header in headers.items()
            if header.gps is not None
        }
        return cls(pairs, first, rescue, cameras, gps, seed, inputs, settled or {})


def _masks_content(masks: Path | None, names: Iterable[str]) -> dict[str, str]:
    """Digests of the masks there are; they hide keypoints that are made after matching."""
    paths = {name: mask_path(masks, name) for name in names} if masks else {}
    return {name: signature(path).digest for name, path in paths.items() if path.exists()}


@dataclass(frozen=True, slots=True)
class Matched:
    """Keypoints, matches and geometry of all pairs that could be matched."""

    keypoints: Keypoints
    matches: Indices
    verified: Sequence[VerifiedPair]
    rescued: tuple[Pair, ...] = ()

    @property
    def figures(self) -> tuple[PairFigures, ...]:
        """Matches and inliers of every pair."""
        return tuple(PairFigures(row.pair, row.matches, row.inliers) for row in self.verified)


def build_database(
    path: Path,
    job: MatchingJob,
    watch: Stopwatch,
    *,
    lost: Collection[str] | None = None,
    in_vain: Collection[str] = (),
) -> DatabaseFigures:
    """Matches and verifies the pairs and writes the database, unless it holds just that already.

    Args:
        path: The database; its figures stand beside it in a .json file.
        job: What goes into it.
        watch: Is told where the time went.
        lost: Photos that did not come into a model and shall be rescued, besides the weakly linked ones;
            None for whatever an earlier run found lost.
        in_vain: Photos for which that was of no use; for the record.

    Raises:
        OutputError: Something cannot be written; matches made so far are kept.
    """
    figures_path = path.with_suffix(".json")
    figures = read_figures(figures_path)
    if figures is not None and path.exists() and _is_current(figures, job, lost):
        return figures
    lost = sorted(lost or ())
    figures_path.unlink(missing_ok=True)
    matched = match_and_verify(job, watch, lost)
    with watch.stage("database"):
        keypoints = {name: matched.keypoints(name) for name in job.cameras}
        write_database(
            path,
            job.cameras,
            keypoints.items(),
            ((row.pair, matched.matches(row.pair).indices) for row in matched.verified),
            ((row.pair, row.geometry) for row in matched.verified),
            gps=job.gps,
        )
        inliers = ((row.pair, row.geometry.inlier_matches.astype(np.int32)) for row in matched.verified)
        figures = DatabaseFigures(
            inputs=digest(job.inputs, lost),
            keypoints={name: len(points) for name, points in keypoints.items()},
            pairs=matched.figures,
            tracks=measure_tracks(keypoints, inliers),
            rescued=matched.rescued,
            lost=tuple(lost),
            in_vain=tuple(sorted(in_vain)),
        )
        write_figures(figures_path, figures)
    return figures


def match_and_verify(job: MatchingJob, watch: Stopwatch, lost: Collection[str] = ()) -> Matched:
    """Matches and verifies the pairs of a job; weakly linked photos, and lost ones, are rescued."""
    sparse = isinstance(job.first.lineup.matcher, SparseMatcher)
    matched = _match_sparse(job, watch) if sparse else _match_and_join(job, watch)
    return matched if job.rescue is None else _rescue(job, job.rescue, matched, lost, watch)


def _is_current(figures: DatabaseFigures, job: MatchingJob, lost: Collection[str] | None) -> bool:
    same = figures.inputs == digest(job.inputs, figures.lost)
    return same and (lost is None or set(lost) == set(figures.lost))


def _match_sparse(job: MatchingJob, watch: Stopwatch) -> Matched:
    """Keypoints are the stored ones; verification runs beside matching."""
    first = job.first
    keypoints = cache(lambda name: _settled_or_found(job, name))
    with watch.stage("matching"), Verifier(job.cameras, seed=job.seed) as verifier:

        def verify(pair: Pair, found: Matches | Correspondences) -> None:
            assert isinstance(found, Matches)
            verifier.submit(pair, (keypoints(pair[0]), keypoints(pair[1])), found.indices)

        outcome = match_pairs(
            job.pairs,
            first.lineup.matcher,
            first.anchors,
            first.matches,
            batch=first.lineup.batch,
            strict=first.strict,
            on_pair=verify,
        )
        watch.note_inside("matching", outcome.seconds_in_network)
        verified = verifier.results()

    def matches(pair: Pair) -> Matches:
        found = first.matches.read(pair)
        assert isinstance(found, Matches)
        return found

    return Matched(keypoints, matches, verified)


def _match_and_join(job: MatchingJob, watch: Stopwatch) -> Matched:
    """Keypoints are made from the matched positions of all pairs, so verification comes after."""
    with watch.stage("matching"):
        outcome = job.first.match(job.pairs)
        watch.note_inside("matching", outcome.seconds_in_network)
    with watch.stage("tracks"):
        pairs = [pair for pair in job.pairs if not outcome.broken.keys() & set(pair)]
        tracks = (
            job.first.join_to(lambda name: _begun(job, name), pairs) if job.settled else job.first.join(pairs)
        )

    def keypoints(name: str) -> Float32[np.ndarray, "n 2"]:
        return tracks.keypoints.get(name, NO_KEYPOINTS)

    @cache
    def matches(pair: Pair) -> Matches:
        return tracks.matches(pair, job.first.read(pair))

    return Matched(keypoints, matches, _verify(job, pairs, keypoints, matches, watch))


def _settled_or_found(job: MatchingJob, name: str) -> Float32[np.ndarray, "n 2"]:
    return job.settled[name] if name in job.settled else job.first.anchors.read(name).keypoints


def _begun(job: MatchingJob, name: str) -> Float32[np.ndarray, "n 2"]:
    """Keypoints that joined matches shall meet: those of a model, or a detector's where they go by these."""
    by_detector = name in job.settled or job.first.lineup.carries
    return _settled_or_found(job, name) if by_detector else NO_KEYPOINTS


def _rescue(
    job: MatchingJob, rescue: Positions, base: Matched, lost: Collection[str], watch: Stopwatch
) -> Matched:
    """Asks the second matcher about the photos that hang by a thread; keeps what makes a pair stronger."""
    weak = (weakly_linked(list(job.cameras), base.figures) | set(lost)) - job.settled.keys()
    pairs = pairs_to_rescue(base.figures, weak)
    with watch.stage("rescue"):
        outcome = rescue.match(pairs)
        watch.note_inside("rescue", outcome.seconds_in_network)
        pairs = [pair for pair in pairs if not outcome.broken.keys() & set(pair)]
        tracks = rescue.join_to(base.keypoints, pairs)

    def keypoints(name: str) -> Float32[np.ndarray, "n 2"]:
        return tracks.keypoints.get(name, base.keypoints(name))

    @cache
    def joined(pair: Pair) -> Matches:
        return _add(base.matches(pair), tracks.matches(pair, rescue.read(pair)))

    before = {row.pair: row for row in base.verified}
    after = _verify(job, pairs, keypoints, joined, watch)
    better = {row.pair: row for row in after if row.inliers > before[row.pair].inliers}

    def matches(pair: Pair) -> Matches:
        return joined(pair) if pair in better else base.matches(pair)

    verified = [better.get(row.pair, row) for row in base.verified]
    return Matched(keypoints, matches, verified, tuple(better))


def _verify(
    job: MatchingJob, pairs: Sequence[Pair], keypoints: Keypoints, matches: Indices, watch: Stopwatch
) -> list[VerifiedPair]:
    with watch.stage("verification"), Verifier(job.cameras, seed=job.seed, threads=2) as verifier:
        for pair in pairs:
            verifier.submit(pair, (keypoints(pair[0]), keypoints(pair[1])), matches(pair).indices)
        return verifier.results()


def _add(found: Matches, more: Matches) -> Matches:
    """Matches, and those of others that share no keypoint with them."""
    taken = [np.isin(more.indices[:, side], found.indices[:, side]) for side in (0, 1)]
    free = ~(taken[0] | taken[1])
    return Matches(
        np.concatenate([found.indices, more.indices[free]]), np.concatenate([found.scores, more.scores[free]])
    )


def write_figures(path: Path, figures: DatabaseFigures) -> None:
    """Writes the figures of a database in one step."""
    write_text(path, json.dumps(asdict(figures)))


def read_figures(path: Path) -> DatabaseFigures | None:
    """The figures of a database; None where there are none of this version."""
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if "in_vain" not in record:  # written by an earlier version
        return None
    pairs = tuple(PairFigures(**{**row, "names": tuple(row["names"])}) for row in record["pairs"])
    return DatabaseFigures(
        inputs=record["inputs"],
        keypoints=record["keypoints"],
        pairs=pairs,
        tracks=TrackFigures(**record["tracks"]),
        rescued=tuple((first, second) for first, second in record["rescued"]),
        lost=tuple(record["lost"]),
        in_vain=tuple(record["in_vain"]),
    )
