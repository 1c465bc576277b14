"""Registering clouds of which one has no known scale, as points of photos: more candidates, other evidence.

Candidates are the moves that matches of the top views agree on, and those that a search over all turns,
scales and shifts of the structure gives (`correlation`): the sparse and uneven points of photos have few
corners that a matcher finds. Each is lifted, refined with its scale, and judged by how far its points lie on
the other cloud's surfaces, and no longer do when it is moved a little (`evidence`).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree

from gim_sfm.bev.agreement import Agreement, measure_agreement
from gim_sfm.bev.alignment.evidence import Evidence, measure_evidence
from gim_sfm.bev.alignment.similarity import Surface, refine_similarity
from gim_sfm.bev.alignment.standing import Standing, crop
from gim_sfm.bev.correlation import Move, correlate
from gim_sfm.bev.planar import fit_moves
from gim_sfm.bev.preparation import VOXELS_ACROSS, Prepared
from gim_sfm.bev.registration import (
    AGREEMENT_CELL,
    FITTED_WITHIN,
    LEAST_CONSISTENT,
    MATCHED_MOVES,
    Registration,
    Transform,
    agreeing_places,
    of_full_coordinates,
)
from gim_sfm.bev.topview import CLEARANCE
from gim_sfm.bev.view_matching import Places, ViewMatcher, match_views
from gim_sfm.errors import RegistrationError
from gim_sfm.threads import processors

SEARCHED = 24
"""Moves that the search gives, of each of its ranges of scale."""

FINAL = 6
"""Moves that are refined to the end."""

QUICK_POINTS = 1000
EXACT_POINTS = 4000
"""Points of the source with which a move is tried, and refined to the end."""

QUICK = (0.06, 0.03)
EXACT = (0.03, 0.015, 0.008)
"""Reaches of the refinements, in extents of the smaller cloud."""

EXACT_ROUNDS = 20
"""Searches for partners at each of the latter: facades lean back slowly."""

ON_SURFACE = 0.01
"""Distance, in the same, within which a point lies on a surface."""

FINE_VOXELS = 300
"""Of the target, from one end of the source to the other, in the last refinement."""

LEAST_WEIGHT = 0.8
"""Evidence, in nats a point, that a registration must reach. Scans of streets, thinned as photos would, had
0.56 on other streets and 1.2 on their neighbours; models of photos 0.2 on other scenes, 1.1 on their own."""

RIVAL = 0.6
"""Evidence of another move, in that of the best one, from which it is not clear which one is right."""

ANOTHER_PLACE = 0.05
"""Median distance, in extents of the smaller cloud, from which two moves are not the same."""

FARTHEST_SCALE = 10.0
"""Ratio of the extents that matches may ask for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both clouds, and what is the same for all candidates."""

    source: Standing
    target: Standing
    quick: Float64[np.ndarray, "n 3"]
    exact: Float64[np.ndarray, "n 3"]
    structure: Float64[np.ndarray, "n 3"]
    surface: Surface
    above: cKDTree
    footprint: cKDTree


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    level_from_level: Transform
    evidence: Evidence


def register_scaled(
    source: Standing,
    target: Standing,
    matcher: ViewMatcher,
) -> Registration:
    """Finds where a cloud of unknown scale lies in another one.

    Args:
        source: From `stand`.
        target: Likewise.
        matcher: For the top views.

    Returns:
        `target_from_source` is a similarity. `overlap` is the share of the source's structure that lies on
        the target's surfaces, of what lies where the target has been seen.

    Raises:
        RegistrationError: There is no move that the clouds agree with, or more than one; says which.
    """
    places = match_views(matcher, source.prepared.view, target.prepared.view)
    pair = _pair(source, target)
    moves = _matched_moves(places, source, target) + correlate(
        source.structure[:, :2],
        target.structure[:, :2],
        source_extent=source.extent,
        target_extent=target.extent,
        most=SEARCHED,
    )
    with ThreadPoolExecutor(processors()) as threads:
        tried = list(threads.map(lambda move: _try(move, pair), moves))
        first = sorted(tried, key=lambda each: -each.evidence.weight)[:FINAL]
        final = sorted(
            threads.map(lambda each: _finish(each, pair), first), key=lambda each: -each.evidence.weight
        )
    others = [each for each in final[1:] if _apart(each, final[0], pair) > ANOTHER_PLACE]
    agreement = _agreement(final[0], pair)
    _believe(final[0], others, agreement)
    return _tell(final[0], others, agreement, places, pair)


def _pair(source: Standing, target: Standing) -> _Pair:
    random = np.random.default_rng(0)
    footprint = np.unique(np.rint(target.points[:, :2] / _near(target)), axis=0) * _near(target)
    return _Pair(
        source,
        target,
        _some(source.points, QUICK_POINTS, random),
        _some(source.points, EXACT_POINTS, random),
        _some(source.structure, EXACT_POINTS, random),
        Surface.of(target.points),
        cKDTree(target.points[:, :2]),
        cKDTree(footprint),
    )


def _near(target: Standing) -> float:
    return target.extent / 60


def _some(
    points: Float64[np.ndarray, "n 3"], most: int, random: np.random.Generator
) -> Float64[np.ndarray, "m 3"]:
    return points if len(points) <= most else points[random.permutation(len(points))[:most]]


def _matched_moves(places: tuple[Places, Places], source: Standing, target: Standing) -> list[Move]:
    within = FITTED_WITHIN * target.prepared.view.grid.cell
    fits = fit_moves(*places, within=within, scaled=True, most=MATCHED_MOVES)
    ratio = target.extent / source.extent
    return [fit.target_from_source for fit in fits if 1 / FARTHEST_SCALE < fit.scale / ratio < FARTHEST_SCALE]


def _try(move: Move, pair: _Pair) -> _Candidate:
    """A move of the plane lifted to space and roughly refined."""
    lifted = np.eye(4)
    lifted[:2, :2], lifted[:2, 3] = move[:2, :2], move[:2, 2]
    lifted[2, 2] = np.hypot(*move[:2, 0])
    lifted[2, 3] = _height(lifted, pair)
    reaches = [reach * _extent(lifted, pair) for reach in QUICK]
    return _judge(
        refine_similarity(pair.quick, pair.surface, lifted, reaches=reaches), pair, pair.surface.tree
    )


def _height(lifted: Transform, pair: _Pair) -> float:
    """The shift upwards on which most pairs of points above each other agree."""
    moved = pair.quick @ lifted[:3, :3].T + lifted[:3, 3]
    step = ON_SURFACE * _extent(lifted, pair)
    distances, rows = pair.above.query(moved[:, :2], 8, distance_upper_bound=3 * step)
    there = np.isfinite(distances)
    if not there.any():
        return 0.0
    differences = (pair.target.points[np.where(there, rows, 0), 2] - moved[:, 2:])[there]
    lowest = float(differences.min())
    votes = np.bincount(((differences - lowest) / step).astype(np.int64) + 1, minlength=3)
    smooth = np.convolve(votes, (0.5, 1, 0.5), "same")
    return lowest + (int(smooth.argmax()) - 0.5) * step


def _finish(candidate: _Candidate, pair: _Pair) -> _Candidate:
    """The same refined to the end, on the target as finely as the source needs it."""
    move = candidate.level_from_level
    extent = _extent(move, pair)
    around = pair.exact @ move[:3, :3].T + move[:3, 3]
    fine = crop(pair.target, around.min(axis=0), around.max(axis=0), extent / FINE_VOXELS)
    surface = Surface.of(fine) if len(fine) > len(pair.quick) else pair.surface
    reaches = [reach * extent for reach in EXACT]
    moved = refine_similarity(pair.exact, surface, move, reaches=reaches, rounds=EXACT_ROUNDS)
    return _judge(moved, pair, surface.tree)


def _judge(move: Transform, pair: _Pair, tree: cKDTree) -> _Candidate:
    within = ON_SURFACE * _extent(move, pair)
    near = 1.5 * _near(pair.target)
    return _Candidate(
        move, measure_evidence(pair.structure, tree, pair.footprint, move, within=within, near=near)
    )


def _scale(move: Transform) -> float:
    return float(np.cbrt(np.linalg.det(move[:3, :3])))


def _extent(move: Transform, pair: _Pair) -> float:
    """Of the smaller cloud, in the unit of the target."""
    return min(_scale(move) * pair.source.extent, pair.target.extent)


def _apart(one: _Candidate, other: _Candidate, pair: _Pair) -> float:
    difference = one.level_from_level - other.level_from_level
    moved = pair.quick @ difference[:3, :3].T + difference[:3, 3]
    return float(np.median(np.linalg.norm(moved, axis=1))) / _extent(one.level_from_level, pair)


def _agreement(best: _Candidate, pair: _Pair) -> Agreement:
    extent = _extent(best.level_from_level, pair)
    return measure_agreement(
        pair.source.prepared.level_points,
        pair.target.prepared.level_points,
        best.level_from_level,
        cell=AGREEMENT_CELL * extent / VOXELS_ACROSS,
        clearance=extent * CLEARANCE,
    )


def _believe(best: _Candidate, others: Sequence[_Candidate], agreement: Agreement) -> None:
    found = best.evidence
    if found.weight < LEAST_WEIGHT or agreement.consistent < LEAST_CONSISTENT:
        raise RegistrationError(
            f"The clouds do not agree at any scale. Laid on each other as well as can be, "
            f"{100 * found.agreeing:.0f} % of the source's structure lies on the target, "
            f"{100 * found.by_chance:.0f} % would a little aside ({found.weight:.2f} nats a point; "
            f"{LEAST_WEIGHT:g} are needed), and {100 * agreement.consistent:.1f} % is consistent "
            f"({100 * LEAST_CONSISTENT:.0f} % are needed).",
            remedy="Check that the clouds show the same place and that z points up in both.",
        )
    rivals = [each for each in others if each.evidence.weight > RIVAL * found.weight]
    if rivals:
        raise RegistrationError(
            f"The clouds fit together in {1 + len(rivals)} ways, as along a corridor that looks alike.",
            remedy="Give larger clouds, with something in them that is there only once.",
        )


def _tell(
    best: _Candidate,
    others: Sequence[_Candidate],
    agreement: Agreement,
    places: tuple[Places, Places],
    pair: _Pair,
) -> Registration:
    move, source, target = best.level_from_level, pair.source.prepared, pair.target.prepared
    within = ON_SURFACE * _extent(move, pair)
    distances = np.asarray(pair.surface.tree.query(pair.exact @ move[:3, :3].T + move[:3, 3])[0])
    inliers = agreeing_places(places, move, within=FITTED_WITHIN * target.view.grid.cell)
    near = distances[distances < 3 * within]
    return Registration(
        target_from_source=_in_full(move, source, target),
        overlap=best.evidence.agreeing,
        consistent=agreement.consistent,
        rmse=float(np.sqrt(np.mean(near**2))),
        inliers=int(inliers.sum()),
        matches=len(inliers),
        confidence=1 - max((each.evidence.weight for each in others), default=0.0) / best.evidence.weight,
        source_places=places[0][inliers],
        target_places=places[1][inliers],
    )


def _in_full(move: Transform, source: Prepared, target: Prepared) -> Transform:
    relative = np.linalg.inv(target.ground.level_from_cloud) @ move @ source.ground.level_from_cloud
    return of_full_coordinates(relative, source.cloud, target.cloud)
