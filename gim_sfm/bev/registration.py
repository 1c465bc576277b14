"""Registering point clouds through their top views: match, fit, lift, refine, verify; or refuse.

Top views are matched by any matcher. Moves of the plane that bring many matches together, and those that an
exhaustive search finds to bring most structure on structure, are lifted to space by the two levellings,
refined on the points, and judged by what both clouds saw: overlap of their structure, structure of one in
bare ground of the other, and whether the overlap stands out from that beside it. A move is believed only if
it leads all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from gim_sfm.bev.agreement import Agreement, measure_agreement, measure_meeting
from gim_sfm.bev.correlation import correlate_rigid
from gim_sfm.bev.ground import Ground
from gim_sfm.bev.planar import fit_moves
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import VOXELS_ACROSS, Prepared, prepare
from gim_sfm.bev.refinement import measure_rmse, refine
from gim_sfm.bev.topview import CLEARANCE
from gim_sfm.bev.view_matching import Places, ViewMatcher, match_views
from gim_sfm.errors import RegistrationError

FITTED_WITHIN = 4.0
"""Cells by which matched places may miss each other under one move."""

MATCHED_MOVES, SEARCHED_MOVES = 5, 6
"""Moves that are looked at, of those that matches tell and those that the search finds."""

FEWEST_PLACES = 50
"""On which something must stand, one a voxel."""

REACHES = (12.0, 8.0, 3.0)
"""Distance of partners in the refinements on large, middling and small voxels, in small ones."""

FINAL = 3
"""Moves that are refined on middling voxels; the best two of them are on small ones."""

RIVAL = 0.5
"""Weight, in that of the best move, from which another one is refined along with it."""

AGREEMENT_CELL = 1.5
"""Side of a cell in which clouds are compared, in voxels."""

MEETING = 5.0
"""Distance within which structure meets, in voxels."""

ANOTHER_PLACE = 7.5
"""Voxels between two results beyond which they are not the same."""

HOPELESS = 0.5
"""Share of the overlap that is needed below which no finer refinement is tried."""

SIGNIFICANT = 3.5
"""Standard deviations of the overlap by which it must be distinct."""

FEWEST_COMPARED = 150
"""Cells of structure that tell a place."""

LEAST_OVERLAP = 0.35
LEAST_CONSISTENT = 0.92
LEAST_DISTINCT = 0.06
LEAST_SUPPORT = 0.625
LEAST_LEAD = 0.2
"""What a registration must reach. Scans of streets 20 m apart had 0.48, 0.94, 0.12, 0.65, 0.5 or more, most
scans of halls 0.40, 0.96, 0.06, 0.63 and 0.2. Of other streets no overlap was distinct (0.04); of other halls
some were, with a support of no more than 0.61."""

Transform = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where one cloud lies in another.

    Attributes:
        target_from_source: 4x4, of full coordinates; rigid, or a similarity where the scale was not known.
        overlap: Share of the structure of the smaller cloud that lies on structure of the other.
        consistent: Of the structure where both have looked, the share that does not stand in bare ground.
        rmse: Root mean square distance of thinned points to their partners, in the unit of the clouds.
        inliers: Matches that agree with it.
        matches: Matches in all.
        confidence: 0 to 1: how far the move leads the next best one.
        source_places: The matches that agree, in the levelled frame of the source.
        target_places: And of the target.
    """

    target_from_source: Transform
    overlap: float
    consistent: float
    rmse: float
    inliers: int
    matches: int
    confidence: float
    source_places: Float64[np.ndarray, "n 2"]
    target_places: Float64[np.ndarray, "n 2"]


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    target_from_source: Transform
    agreement: Agreement
    meeting: float = 0.0

    @property
    def support(self) -> float:
        """Mean of what overlaps as seen from above and of what meets in space."""
        return (self.agreement.overlap + self.meeting) / 2

    @property
    def passes(self) -> bool:
        return (
            self.support >= LEAST_SUPPORT
            and self.agreement.overlap >= LEAST_OVERLAP
            and self.agreement.consistent >= LEAST_CONSISTENT
            and self.agreement.distinct >= max(LEAST_DISTINCT, SIGNIFICANT * self.agreement.noise)
            and self.agreement.compared >= FEWEST_COMPARED
        )


def register(
    source: PointCloud,
    target: PointCloud,
    matcher: ViewMatcher,
    *,
    cell: float | None = None,
) -> Registration:
    """Finds where a cloud lies in another one of the same scale.

    Args:
        source: Cleaned points, z up to within 20 degrees.
        target: Likewise.
        matcher: For the top views.
        cell: Side of a cell; None for one that goes with the smaller scene.

    Raises:
        RegistrationError: There is no move that both clouds agree with, or more than one; says which.
        InputError: A cloud shows no ground.
    """
    return register_prepared(*prepare(source, target, cell=cell), matcher)


def register_prepared(one: Prepared, other: Prepared, matcher: ViewMatcher) -> Registration:
    """As `register`, of a source and a target from `prepare`."""
    if one.ground.extent > other.ground.extent:
        return _inverted(register_prepared(other, one, matcher))
    places = match_views(matcher, one.view, other.view)
    candidates = _weigh(_propose(places, one, other), one, other)
    candidates[0] = _measured(candidates[0], one, other)
    best = _believed(candidates)
    return _tell(best, candidates, places, one, other)


def _inverted(found: Registration) -> Registration:
    return replace(
        found,
        target_from_source=np.linalg.inv(found.target_from_source),
        source_places=found.target_places,
        target_places=found.source_places,
    )


def lift(move: Float64[np.ndarray, "3 3"], source: Ground, target: Ground) -> Transform:
    """target_from_source in space of a move of the levelled planes; of points relative to the origins."""
    planar = np.eye(4)
    planar[:2, :2], planar[:2, 3] = move[:2, :2], move[:2, 2]
    return np.asarray(np.linalg.inv(target.level_from_cloud) @ planar @ source.level_from_cloud)


def _propose(places: tuple[Places, Places], source: Prepared, target: Prepared) -> list[Transform]:
    """Moves that matches agree on, and those that bring most structure on structure.

    Raises:
        RegistrationError: A cloud has hardly any structure.
    """
    outlines = source.outline, target.outline
    fewest = min(len(outline) for outline in outlines)
    if fewest < FEWEST_PLACES:
        raise RegistrationError(
            f"Bare ground tells no place: something stands on no more than {fewest} voxels of a cloud.",
            remedy="Give clouds with walls, trees, furniture or the like.",
        )
    fits = fit_moves(*places, within=FITTED_WITHIN * target.view.grid.cell, most=MATCHED_MOVES)
    moves = [fit.target_from_source for fit in fits]
    moves += correlate_rigid(*outlines, extent=VOXELS_ACROSS * source.voxel, most=SEARCHED_MOVES)
    return [lift(move, source.ground, target.ground) for move in moves]


def _weigh(moves: Sequence[Transform], source: Prepared, target: Prepared) -> list[_Candidate]:
    """The moves that are really different, refined step by step as far as they promise; the best first."""
    candidates = _different([_refined(move, source, target, 0) for move in moves], source)
    for step, most in ((1, FINAL), (2, 2)):
        best = candidates[0].agreement
        if best.overlap < HOPELESS * LEAST_OVERLAP or best.weight <= 0:
            break
        near = [each for each in candidates[:most] if each.agreement.weight >= RIVAL * best.weight]
        finer = [_refined(each.target_from_source, source, target, step) for each in near]
        candidates = _different(finer + candidates[len(near) :], source)
    return candidates


def _refined(move: Transform, source: Prepared, target: Prepared, step: int) -> _Candidate:
    within = REACHES[step] * source.voxel
    return _judge(refine(source.clouds[step], target.clouds[step], move, within=within), source, target)


def _judge(target_from_source: Transform, source: Prepared, target: Prepared) -> _Candidate:
    agreement = measure_agreement(
        source.level_points,
        target.level_points,
        _between_levels(target_from_source, source, target),
        cell=AGREEMENT_CELL * source.voxel,
        clearance=CLEARANCE * VOXELS_ACROSS * source.voxel,
    )
    return _Candidate(target_from_source, agreement)


def _measured(candidate: _Candidate, source: Prepared, target: Prepared) -> _Candidate:
    meeting = measure_meeting(
        source.level_points,
        target.level_points,
        _between_levels(candidate.target_from_source, source, target),
        within=MEETING * source.voxel,
        clearance=CLEARANCE * VOXELS_ACROSS * source.voxel,
    )
    return replace(candidate, meeting=meeting)


def _between_levels(target_from_source: Transform, source: Prepared, target: Prepared) -> Transform:
    source_from_level = np.linalg.inv(source.ground.level_from_cloud)
    return np.asarray(target.ground.level_from_cloud @ target_from_source @ source_from_level)


def _different(candidates: Sequence[_Candidate], source: Prepared) -> list[_Candidate]:
    """Those that lie apart from all better ones, the best first."""
    kept: list[_Candidate] = []
    for each in sorted(candidates, key=lambda each: -each.agreement.weight):
        if all(_apart(each, other, source) > ANOTHER_PLACE * source.voxel for other in kept):
            kept.append(each)
    return kept


def _apart(one: _Candidate, other: _Candidate, source: Prepared) -> float:
    """How far apart two results put the points, at the median."""
    points = source.clouds[0].points
    moves = (each.target_from_source for each in (one, other))
    first, second = (points @ move[:3, :3].T + move[:3, 3] for move in moves)
    return float(np.median(np.linalg.norm(first - second, axis=1)))


def _believed(candidates: Sequence[_Candidate]) -> _Candidate:
    """The first candidate, if it passes and leads the others.

    Raises:
        RegistrationError: It does not.
    """
    best = candidates[0]
    if not best.passes:
        found = best.agreement
        raise RegistrationError(
            "The clouds do not agree. Laid on each other as well as can be (what is needed in brackets), "
            f"{100 * found.overlap:.0f} % of the structure overlaps ({100 * LEAST_OVERLAP:.0f}), "
            f"{100 * found.distinct:.0f} % more than a little aside ({100 * LEAST_DISTINCT:.0f}); "
            f"{100 * found.consistent:.0f} % of it is consistent ({100 * LEAST_CONSISTENT:.0f}); "
            f"{100 * best.meeting:.0f} % meets in space, {200 * best.support:.0f} together with the overlap "
            f"({200 * LEAST_SUPPORT:.0f}); {found.compared} cells are compared ({FEWEST_COMPARED}).",
            remedy="Check that the clouds show the same place; if they do, try another --matcher.",
        )
    lead = _lead(candidates)
    if lead < LEAST_LEAD:
        raise RegistrationError(
            "The clouds fit together in 2 ways or more, as along a corridor that looks alike: the best one "
            f"leads the next by {100 * lead:.0f} %, and {100 * LEAST_LEAD:.0f} are needed.",
            remedy="Give larger clouds, several scans accumulated for instance.",
        )
    return best


def _lead(candidates: Sequence[_Candidate]) -> float:
    """How far the first one is ahead of the others: 0 not at all, 1 alone."""
    best, *others = (max(each.agreement.weight, 0) for each in candidates[:2])
    return 1 - max(others, default=0) / max(best, 1)


def _tell(
    best: _Candidate,
    candidates: Sequence[_Candidate],
    places: tuple[Places, Places],
    source: Prepared,
    target: Prepared,
) -> Registration:
    move = best.target_from_source
    within = FITTED_WITHIN * target.view.grid.cell
    inliers = agreeing_places(places, _between_levels(move, source, target), within=within)
    return Registration(
        target_from_source=of_full_coordinates(move, source.cloud, target.cloud),
        overlap=best.agreement.overlap,
        consistent=best.agreement.consistent,
        rmse=measure_rmse(source.thinned, target.thinned, move, within=REACHES[-1] * source.voxel),
        inliers=int(inliers.sum()),
        matches=len(inliers),
        confidence=_lead(candidates),
        source_places=places[0][inliers],
        target_places=places[1][inliers],
    )


def agreeing_places(
    places: tuple[Places, Places], level_from_level: Transform, *, within: float
) -> Bool[np.ndarray, " n"]:
    """Which matched places of levelled frames a move brings together."""
    moved = places[0] @ level_from_level[:2, :2].T + level_from_level[:2, 3]
    return np.asarray(np.linalg.norm(moved - places[1], axis=1) < within)


def of_full_coordinates(relative: Transform, source: PointCloud, target: PointCloud) -> Transform:
    """target_from_source of coordinates with their origins added, from that of points relative to them."""
    moved = relative.copy()
    moved[:3, 3] += target.origin - relative[:3, :3] @ source.origin
    return moved
