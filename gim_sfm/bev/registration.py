"""Registering point clouds through their top views: match, fit, lift, refine, verify; or refuse.

Top views are matched by any matcher. Of the moves of the plane that bring many matches together, each is
lifted to space by the two levellings, refined on the points, and judged by what both clouds saw: overlap of
their structure, and structure of one in bare ground of the other. A move is believed only if it passes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from gim_sfm.bev.agreement import Agreement, measure_agreement
from gim_sfm.bev.ground import Ground, find_ground
from gim_sfm.bev.planar import PlanarFit, fit_moves
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.refinement import Thinned, measure_rmse, refine, thin
from gim_sfm.bev.topview import (
    CELLS_ACROSS,
    CLEARANCE,
    Channel,
    TopView,
    choose_grid,
    project,
    round_length,
)
from gim_sfm.bev.view_matching import match_views
from gim_sfm.errors import RegistrationError
from gim_sfm.matchers.positions import PositionTeller

FITTED_WITHIN = 4.0
"""Cells by which matched places may miss each other under one move."""

VOXELS_ACROSS = 360
"""Voxels of a thinned cloud from one end of the scene to the other."""

AGREEMENT_CELL = 1.5
"""Side of a cell in which clouds are compared, in voxels."""

CANDIDATES = 8
"""Moves that are looked at."""

PROMISING = 0.5
"""Share of the agreeing cells of the best move, before refinement, that makes another one worth refining."""

LEAST_OVERLAP = 0.45
LEAST_CONSISTENT = 0.95
"""What a registration must reach. Different places, laid on each other as well as can be, reached an overlap
of 0.4 or a consistency of 0.94, not both; scans of one place 20 metres apart 0.55 and 0.97."""

ANOTHER_PLACE = 10.0
"""Cells between two results beyond which they are not the same."""

Transform = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A cloud with all that registering it needs.

    Attributes:
        cloud: The points.
        ground: Their ground.
        view: They from above.
        thinned: One point a voxel.
        level_points: The thinned points with the ground at height 0.
    """

    cloud: PointCloud
    ground: Ground
    view: TopView
    thinned: Thinned
    level_points: Float32[np.ndarray, "n 3"]


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Where one cloud lies in another.

    Attributes:
        target_from_source: 4x4, rigid, of full coordinates.
        overlap: Share of the structure of the smaller cloud that lies on structure of the other.
        consistent: Of the structure where both have looked, the share that does not stand in bare ground.
        rmse: Root mean square distance of thinned points to their partners, in the unit of the clouds.
        inliers: Matches that agree with it.
        matches: Matches in all.
        confidence: 0 to 1: how far the best move leads the next one in cells that agree.
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
    fit: PlanarFit
    target_from_source: Transform
    agreement: Agreement

    @property
    def passes(self) -> bool:
        return self.agreement.overlap >= LEAST_OVERLAP and self.agreement.consistent >= LEAST_CONSISTENT


def register(
    source: PointCloud,
    target: PointCloud,
    matcher: PositionTeller,
    *,
    channels: Sequence[Channel] = ("density",),
    turns: int = 1,
    cell: float | None = None,
) -> Registration:
    """Finds where a cloud lies in another one of the same scale.

    Args:
        source: Cleaned points, z up to within 20 degrees.
        target: Likewise.
        matcher: For the top views.
        channels: What it looks at.
        turns: How many turns of the source it is shown; 1 for one that does not mind.
        cell: Side of a cell; None for one that goes with the smaller scene.

    Raises:
        RegistrationError: There is no move that both clouds agree with, or more than one; says which.
        InputError: A cloud shows no ground.
    """
    return register_prepared(*prepare(source, target, cell=cell), matcher, channels=channels, turns=turns)


def register_prepared(
    one: Prepared, other: Prepared, matcher: PositionTeller, *, channels: Sequence[Channel], turns: int
) -> Registration:
    """As `register`, of a source and a target from `prepare`."""
    places = match_views(matcher, one.view, other.view, channels, turns)
    within = FITTED_WITHIN * one.view.grid.cell
    fits = fit_moves(*places, within=within, most=CANDIDATES)
    if not fits:
        raise RegistrationError(
            f"The top views have nothing in common: {len(places[0])} matches, no two of which agree.",
            remedy="Check that the clouds show the same place, or try another --matcher.",
        )
    candidates = _weigh(fits, one, other)
    best = _believed(candidates, one)
    return _tell(best, candidates, places, one, other)


def prepare(
    source: PointCloud, target: PointCloud, *, cell: float | None = None
) -> tuple[Prepared, Prepared]:
    """Levels, projects and thins two clouds at one resolution, that of the smaller scene."""
    grounds = find_ground(source), find_ground(target)
    extent = min(ground.extent for ground in grounds)
    side = cell or round_length(extent / CELLS_ACROSS)
    first, second = (
        _prepare(cloud, ground, side, extent / VOXELS_ACROSS)
        for cloud, ground in zip((source, target), grounds, strict=True)
    )
    return first, second


def _prepare(cloud: PointCloud, ground: Ground, cell: float, voxel: float) -> Prepared:
    view = project(cloud, ground, choose_grid(cloud, ground, cell=cell))
    thinned = thin(cloud, voxel)
    level = ground.level_from_cloud.astype(np.float32)
    return Prepared(cloud, ground, view, thinned, thinned.points @ level[:3, :3].T + level[:3, 3])


def lift(move: Float64[np.ndarray, "3 3"], source: Ground, target: Ground) -> Transform:
    """target_from_source in space of a move of the levelled planes; of points relative to the origins."""
    planar = np.eye(4)
    planar[:2, :2], planar[:2, 3] = move[:2, :2], move[:2, 2]
    return np.asarray(np.linalg.inv(target.level_from_cloud) @ planar @ source.level_from_cloud)


def _weigh(fits: Sequence[PlanarFit], source: Prepared, target: Prepared) -> list[_Candidate]:
    """All moves, the promising ones refined; the one with most agreeing cells first."""
    lifted = [lift(fit.target_from_source, source.ground, target.ground) for fit in fits]
    raw = [_judge(fit, moved, source, target) for fit, moved in zip(fits, lifted, strict=True)]
    most = max(each.agreement.cells for each in raw)
    weighed = [
        _refined(each, source, target) if each.agreement.cells >= PROMISING * most else each for each in raw
    ]
    return sorted(weighed, key=lambda each: -each.agreement.cells)


def _judge(fit: PlanarFit, target_from_source: Transform, source: Prepared, target: Prepared) -> _Candidate:
    source_from_level = np.linalg.inv(source.ground.level_from_cloud)
    extent = min(source.ground.extent, target.ground.extent)
    agreement = measure_agreement(
        source.level_points,
        target.level_points,
        target.ground.level_from_cloud @ target_from_source @ source_from_level,
        cell=AGREEMENT_CELL * extent / VOXELS_ACROSS,
        clearance=extent * CLEARANCE,
    )
    return _Candidate(fit, target_from_source, agreement)


def _refined(candidate: _Candidate, source: Prepared, target: Prepared) -> _Candidate:
    within = FITTED_WITHIN * source.view.grid.cell
    moved = refine(source.thinned, target.thinned, candidate.target_from_source, within=within)
    return _judge(candidate.fit, moved, source, target)


def _believed(candidates: Sequence[_Candidate], source: Prepared) -> _Candidate:
    """The one candidate that passes.

    Raises:
        RegistrationError: None does, or several that are not the same.
    """
    passing = [each for each in candidates if each.passes]
    if not passing:
        best = candidates[0].agreement
        overlap, consistent = (100 * value for value in (best.overlap, best.consistent))
        raise RegistrationError(
            f"The clouds do not agree. Laid on each other as well as can be, {overlap:.1f} % of the "
            f"structure overlaps and {consistent:.1f} % of it is consistent; {100 * LEAST_OVERLAP:.0f} and "
            f"{100 * LEAST_CONSISTENT:.0f} % are needed.",
            remedy="Check that the clouds show the same place; if they do, try another --matcher.",
        )
    far = ANOTHER_PLACE * source.view.grid.cell
    others = [each for each in passing[1:] if _apart(each, passing[0], source) > far]
    if others:
        raise RegistrationError(
            f"The clouds fit together in {1 + len(others)} ways, as along a corridor that looks alike.",
            remedy="Give larger clouds, several scans accumulated for instance.",
        )
    return passing[0]


def _apart(one: _Candidate, other: _Candidate, source: Prepared) -> float:
    """How far apart two results put the points, at the median."""
    points = source.thinned.points
    moves = (each.target_from_source for each in (one, other))
    first, second = (points @ move[:3, :3].T + move[:3, 3] for move in moves)
    return float(np.median(np.linalg.norm(first - second, axis=1)))


def _tell(
    best: _Candidate,
    candidates: Sequence[_Candidate],
    places: tuple[np.ndarray, np.ndarray],
    source: Prepared,
    target: Prepared,
) -> Registration:
    far = ANOTHER_PLACE * source.view.grid.cell
    next_cells = [each.agreement.cells for each in candidates if _apart(each, best, source) > far]
    rmse = measure_rmse(
        source.thinned, target.thinned, best.target_from_source, within=FITTED_WITHIN * source.view.grid.cell
    )
    inliers = best.fit.inliers
    return Registration(
        target_from_source=_of_full_coordinates(best.target_from_source, source.cloud, target.cloud),
        overlap=best.agreement.overlap,
        consistent=best.agreement.consistent,
        rmse=rmse,
        inliers=int(inliers.sum()),
        matches=len(inliers),
        confidence=1 - max(next_cells, default=0) / best.agreement.cells,
        source_places=places[0][inliers],
        target_places=places[1][inliers],
    )


def _of_full_coordinates(relative: Transform, source: PointCloud, target: PointCloud) -> Transform:
    moved = relative.copy()
    moved[:3, 3] += target.origin - relative[:3, :3] @ source.origin
    return moved
