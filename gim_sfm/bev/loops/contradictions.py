"""Loops that contradict each other: two of them and the ways between their ends go round in a circle.

Odometry is not to be trusted for long, but over the short ways between neighbouring loops it is: round the
circle one must come back to where one began. Of loops that do not, those go that more others contradict than
support (the idea of pairwise consistent measurements, Mangelson et al. 2018, with votes instead of cliques).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64

from gim_sfm.bev.loops.judging import Link
from gim_sfm.bev.loops.odometry import Odometry, move_points

TOLERANCE = 4.0
"""Standard deviations of odometry, and of a loop, by which a circle may miss its start."""

LOOP = 1 / 480
"""Standard deviation of a loop, in lengths of the scene, of which a turn errs as much at the scene's rim."""

NEAR = 1.0
"""Lengths of the scene between two loops, at both ends together, up to which they are compared."""


def find_contradicted(
    links: Sequence[Link], odometry: Odometry, *, extent: float, drift: float
) -> Bool[np.ndarray, " links"]:
    """Which loops are contradicted by at least as many others as agree with them, one after the other.

    Args:
        links: The loops.
        odometry: Poses of the places, and the way between them.
        extent: Length of the scene.
        drift: See `expect_of_odometry`.
    """
    votes = _compare(links, odometry, extent, drift)
    refused = np.zeros(len(links), bool)
    while True:
        against, balance = (votes < 0).sum(axis=1), votes.sum(axis=1)
        doubtful = ~refused & (against > 0) & (balance <= 0)
        if not doubtful.any():
            return refused
        worst = doubtful & (balance == balance[doubtful].min())
        refused |= worst
        votes[worst], votes[:, worst] = 0, 0


def _compare(
    links: Sequence[Link], odometry: Odometry, extent: float, drift: float
) -> Int64[np.ndarray, "links links"]:
    """1 where two loops agree, -1 where they contradict each other, 0 where odometry cannot tell."""
    votes = np.zeros((len(links), len(links)), np.int64)
    ends = np.array([(link.source, link.target) for link in links], np.int64).reshape(-1, 2)
    way, groups = odometry.way[ends], odometry.groups[ends]
    between = np.abs(way[:, None] - way).sum(axis=-1)
    told = (groups[:, None] == groups).all(axis=-1) & (between <= NEAR * extent)
    for row, column in np.argwhere(np.tril(told, -1)):
        lengths = float(between[row, column]) / extent
        agree = _close(links[row], links[column], odometry, lengths, extent, drift)
        votes[row, column] = votes[column, row] = 1 if agree else -1
    return votes


def _close(one: Link, other: Link, odometry: Odometry, lengths: float, extent: float, drift: float) -> bool:
    poses, start = odometry.world_from_place, odometry.stations[one.source]
    sources = np.linalg.inv(poses[other.source]) @ poses[one.source]
    targets = np.linalg.inv(poses[one.target]) @ poses[other.target]
    left = np.linalg.inv(one.target_from_source) @ targets @ other.target_from_source @ sources
    angle = np.arccos(np.clip((np.trace(left[:3, :3]) - 1) / 2, -1, 1))
    place = np.sqrt(2 * LOOP**2 * (1 + 4 * lengths**2) + drift**2 * lengths * (1 + lengths**2))
    turn = np.sqrt(8 * LOOP**2 + drift**2 * lengths)
    missed = float(np.linalg.norm(move_points(left, start) - start))
    return bool(missed <= TOLERANCE * place * extent and angle <= TOLERANCE * turn)
