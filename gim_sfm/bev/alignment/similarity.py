"""The last step of a registration at unknown scale: points laid on surfaces by turn, shift and scale.

Partners are looked for both ways. From the source alone the scale would shrink, for a small cloud finds
partners everywhere; the target's points would not find theirs then.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

NEIGHBOURS = 12
"""Points that a normal is fitted to."""

SLIDING = 0.1
"""What a step along a surface costs, in what one off it costs, both squared; 1 where there is no surface."""

ROUNDS = 6
"""Searches for partners at one reach, unless more are asked for."""

FEWEST_PARTNERS = 20
SETTLED = 1e-4
"""Step, in reaches, radians and shares of the scale, below which nothing is left to do."""

STIFFNESS = 1e-9
"""Of what no residual tells, as the turn about the axis of a column: such a step is not made."""

Points = Float64[np.ndarray, "n 3"]
Transform = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Points to be laid on.

    Attributes:
        points: One a voxel.
        normals: Unit vectors.
        flatness: 0 to 1: how far the neighbourhood is a plane.
        tree: Search tree of the points.
    """

    points: Points
    normals: Points
    flatness: Float64[np.ndarray, " n"]
    tree: cKDTree

    @classmethod
    def of(cls, points: Float[np.ndarray, "n 3"]) -> "Surface":
        """Fits normals to points, `NEIGHBOURS` of them at least."""
        exact = np.asarray(points, np.float64)
        tree = cKDTree(exact)
        around = exact[tree.query(exact, NEIGHBOURS)[1]]
        around = around - around.mean(axis=1, keepdims=True)
        spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
        flatness = np.clip(1 - spread[:, 0] / np.maximum(spread[:, 1], np.finfo(float).tiny), 0, 1)
        return cls(exact, axes[:, :, 0], flatness, tree)


@dataclass(frozen=True, slots=True, eq=False)
class _Partners:
    """Points of the source as they lie now, those of the target they belong to, and what they count."""

    moved: Points
    rows: Int64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"]


def refine_similarity(
    source: Points,
    target: Surface,
    target_from_source: Transform,
    *,
    reaches: Sequence[float],
    rounds: int = ROUNDS,
) -> Transform:
    """Moves a similarity to where points fit best nearby: iterated closest points with a scale.

    Args:
        source: Points, one a voxel.
        target: What they are laid on.
        target_from_source: Where to begin; scale R in the upper left.
        reaches: How far partners may be away, in the target's unit, one after the other.
        rounds: Searches for partners at each of them at most; fewer where the points have settled.

    Returns:
        target_from_source; where fewer than 20 partners are left, as far as it came.
    """
    found = np.array(target_from_source, np.float64)
    for reach in reaches:
        for _ in range(rounds):
            partners = _find_partners(source @ found[:3, :3].T + found[:3, 3], target, reach)
            if len(partners.rows) < FEWEST_PARTNERS:
                return found
            step, middle = _solve(partners, target)
            found = _as_transform(step, middle) @ found
            if np.abs(step[[0, 1, 2, 6]]).max() < SETTLED and np.abs(step[3:6]).max() < SETTLED * reach:
                break
    return found


def _find_partners(moved: Points, target: Surface, reach: float) -> _Partners:
    """Both ways; the target's points together count no more than the source's."""
    distances, rows = map(np.asarray, target.tree.query(moved, distance_upper_bound=reach))
    near = np.isfinite(distances)
    low, high = moved.min(axis=0) - reach, moved.max(axis=0) + reach
    (inside,) = np.nonzero(((target.points > low) & (target.points < high)).all(axis=1))
    inside = inside[:: 1 + len(inside) // (2 * len(moved))]
    back, of_source = map(np.asarray, cKDTree(moved).query(target.points[inside], distance_upper_bound=reach))
    seen = np.isfinite(back)
    share = min(1.0, near.sum() / max(int(seen.sum()), 1))
    return _Partners(
        np.concatenate([moved[near], moved[of_source[seen]]]),
        np.concatenate([rows[near], inside[seen]]),
        np.concatenate([_taper(distances[near] / reach), share * _taper(back[seen] / reach)]),
    )


def _taper(distances: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return np.asarray((1 - distances**2) ** 2)


def _solve(
    partners: _Partners, target: Surface
) -> tuple[Float64[np.ndarray, " 7"], Float64[np.ndarray, " 3"]]:
    """The least squares step (turn, shift, logarithm of the scale) about the middle of the points."""
    middle = np.average(partners.moved, axis=0, weights=partners.weights + np.finfo(float).tiny)
    x, y, z = (partners.moved - middle).T
    slopes = np.zeros((len(x), 3, 7))
    slopes[:, 0, 1], slopes[:, 0, 2] = z, -y
    slopes[:, 1, 0], slopes[:, 1, 2] = -z, x
    slopes[:, 2, 0], slopes[:, 2, 1] = y, -x
    slopes[:, :, 3:6] = np.eye(3)
    slopes[:, :, 6] = partners.moved - middle
    rest = target.points[partners.rows] - partners.moved
    normals, flatness = target.normals[partners.rows], target.flatness[partners.rows]
    sliding = SLIDING + (1 - SLIDING) * (1 - flatness)
    metric = (1 - sliding)[:, None, None] * normals[:, :, None] * normals[:, None, :]
    metric += sliding[:, None, None] * np.eye(3)
    weighted = np.einsum("n,nij,njk->nik", partners.weights, metric, slopes, optimize=True)
    normal = np.einsum("nia,nib->ab", weighted, slopes, optimize=True)
    wanted = np.einsum("nia,ni->a", weighted, rest, optimize=True)
    return np.linalg.lstsq(normal, wanted, rcond=STIFFNESS)[0], middle


def _as_transform(step: Float64[np.ndarray, " 7"], middle: Float64[np.ndarray, " 3"]) -> Transform:
    moved = np.eye(4)
    moved[:3, :3] = np.exp(step[6]) * Rotation.from_rotvec(step[:3]).as_matrix()
    moved[:3, 3] = middle + step[3:6] - moved[:3, :3] @ middle
    return moved
