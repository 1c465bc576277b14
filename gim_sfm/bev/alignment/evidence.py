"""Whether points lie on surfaces because they belong there, or because surfaces are everywhere.

A small or flat cloud lies on surfaces wherever it is put, and unknown scale makes any cloud small. What tells
a right place is that the points leave the surfaces when they are moved a little.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

NUDGES = 12
"""Small moves that are tried."""

NUDGE_REACH = (4.0, 12.0)
"""Their shifts, in tolerances."""
NUDGE_TURN = 0.3
"""Their turn about the vertical at most, radians."""
NUDGE_SCALE = 0.15
"""Their scale at most, as a logarithm."""

HIGHEST_SHARE = 0.999
LEAST_CHANCE = 0.001

Points = Float64[np.ndarray, "n 3"]
Transform = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for a move.

    Attributes:
        agreeing: Share of the points that lie on the surfaces.
        by_chance: The same, at the mean, after small moves.
        covered: Share of all points that lie where the target has been seen at all.
    """

    agreeing: float
    by_chance: float
    covered: float

    @property
    def nats(self) -> float:
        """Kullback-Leibler divergence of agreeing from by_chance, of a point; 0 where chance does better."""
        seen = min(self.agreeing, HIGHEST_SHARE)
        chance = min(max(self.by_chance, LEAST_CHANCE), HIGHEST_SHARE)
        if seen <= chance:
            return 0.0
        return float(seen * np.log(seen / chance) + (1 - seen) * np.log((1 - seen) / (1 - chance)))

    @property
    def weight(self) -> float:
        """Of all points together, those where nothing has been seen counting nothing."""
        return self.nats * self.covered


def measure_evidence(
    source: Points,
    tree: cKDTree,
    footprint: cKDTree,
    target_from_source: Transform,
    *,
    within: float,
    near: float,
) -> Evidence:
    """Lays points on surfaces, and beside them.

    Args:
        source: Points, one a voxel, z up.
        tree: Of the target's points.
        footprint: Of the places (x, y) that the target has seen.
        target_from_source: A similarity.
        within: How far a point may be off the surface, in the target's unit.
        near: Distance from a place of the footprint within which all has been seen.
    """
    moved = source @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    covered = np.isfinite(footprint.query(moved[:, :2], distance_upper_bound=near)[0])
    if not covered.any():
        return Evidence(0.0, 1.0, 0.0)
    there = moved[covered]
    nudged = [_share(there @ move[:3, :3].T + move[:3, 3], tree, within) for move in _nudges(there, within)]
    return Evidence(_share(there, tree, within), float(np.mean(nudged)), float(covered.mean()))


def _share(points: Points, tree: cKDTree, within: float) -> float:
    return float(np.isfinite(tree.query(points, distance_upper_bound=within)[0]).mean())


def _nudges(points: Points, within: float) -> Sequence[Transform]:
    """Small moves about the middle of the points, the same ones every time."""
    random, middle = np.random.default_rng(0), points.mean(axis=0)
    moves = []
    for _ in range(NUDGES):
        turn = Rotation.from_euler("z", random.uniform(-NUDGE_TURN, NUDGE_TURN)).as_matrix()
        direction = random.normal(size=3) * (1, 1, 0.5)
        shift = direction * (random.uniform(*NUDGE_REACH) * within / np.linalg.norm(direction))
        move = np.eye(4)
        move[:3, :3] = np.exp(random.uniform(-NUDGE_SCALE, NUDGE_SCALE)) * turn
        move[:3, 3] = middle - move[:3, :3] @ middle + shift
        moves.append(move)
    return moves
