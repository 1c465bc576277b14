"""Poses and what is known between them: a pose graph, as g2o's text and optimised by gtsam."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial.transform import Rotation

from gim_sfm.bev.drives.trajectories import Poses, tell_numbers
from gim_sfm.bev.loops.information import Information, about_origin
from gim_sfm.errors import RegistrationError, SettingsError
from gim_sfm.files import write_text

DOUBTED_FROM = 3.0
"""Length of a whitened error from which loops count less and less (Cauchy); 6 numbers have some 2.4."""

LEFT_OUT = -1
"""Group of scans that cannot be used."""

FIRST_KNOWN = 1e-6
"""Standard deviation of the pose that the others are told from."""


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """What is known between two poses.

    Attributes:
        source: Number of one.
        target: Number of the other.
        target_from_source: 4x4, rigid.
        information: As in `gim_sfm.bev.loops.information`.
        is_loop: Whether it may be wrong altogether.
    """

    source: int
    target: int
    target_from_source: Float64[np.ndarray, "4 4"]
    information: Information
    is_loop: bool


@dataclass(frozen=True, slots=True, eq=False)
class PoseGraph:
    """Poses with edges between them.

    Attributes:
        world_from_scan: 4x4 each, rigid, as far as they are known so far; not numbers for those left out.
        edges: What is known between them.
        groups: Number of the group of each: poses of different groups are joined by no edge, and their
            worlds have nothing to do with each other. Less than 0 for scans left out: they cannot be used.
    """

    world_from_scan: Poses
    edges: Sequence[Edge]
    groups: Int64[np.ndarray, " n"]

    @property
    def used(self) -> Int64[np.ndarray, " m"]:
        """Numbers of the scans that are not left out."""
        return np.flatnonzero(self.groups >= 0)


def join(count: int, edges: Sequence[Edge], left_out: Collection[int] = ()) -> PoseGraph:
    """Poses that follow from edges, by loops only where nothing else leads on; worlds are first poses.

    Args:
        count: How many.
        edges: What is known between them.
        left_out: Numbers of those without a pose, which no edge leads to.
    """
    ends = np.array([(edge.target, edge.source) for edge in edges], np.int64).reshape(-1, 2)
    weights = np.array([1.0 + edge.is_loop for edge in edges])
    links = minimum_spanning_tree(coo_array((weights, (ends[:, 0], ends[:, 1])), shape=(count, count)))
    groups = connected_components(links, directed=False)[1]
    between = {(edge.target, edge.source): edge.target_from_source for edge in reversed(edges)}
    between |= {(source, target): np.linalg.inv(moved) for (target, source), moved in between.items()}
    poses = np.tile(np.eye(4), (count, 1, 1))
    for first in np.unique(groups, return_index=True)[1]:
        order, before = breadth_first_order(links, first, directed=False)
        for place in order[1:]:
            poses[place] = poses[before[place]] @ between[before[place], place]
    kept = ~np.isin(np.arange(count), list(left_out))
    poses[~kept] = np.nan
    numbered = np.full(count, LEFT_OUT)
    numbered[kept] = np.unique(groups[kept], return_inverse=True)[1]
    return PoseGraph(poses, edges, numbered)


def write_g2o(path: Path, graph: PoseGraph) -> None:
    """Writes a graph as g2o does, in one step.

    Its errors are (x, y, z, qx, qy, qz) of the measured pose's inverse times the estimated one: the vector of
    the unit quaternion is half the turn, so that information about turns is four times ours. An edge `a b`
    is the pose of b in the frame of a.
    """
    vertices = (f"VERTEX_SE3:QUAT {number} {_pose(graph.world_from_scan[number])}\n" for number in graph.used)
    halves = np.diag([1.0, 1, 1, 2, 2, 2])
    upper = np.triu_indices(6)
    edges = (
        f"EDGE_SE3:QUAT {edge.target} {edge.source} {_pose(edge.target_from_source)} "
        + tell_numbers((halves @ edge.information @ halves)[upper])
        + "\n"
        for edge in graph.edges
    )
    write_text(path, "".join((*vertices, *edges)))


def _pose(pose: Float64[np.ndarray, "4 4"]) -> str:
    turn = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return tell_numbers((*pose[:3, 3], *turn))


def optimise(graph: PoseGraph, stations: Float64[np.ndarray, "n 3"]) -> Poses:
    """The poses that agree best with all edges, loops counting the less the more they disagree.

    First all edges count in full, to come near however far odometry has drifted, then loops are doubted.

    Args:
        graph: All in one group; the first pose stays.
        stations: Where each scan was taken from, in its frame: turns are about there while optimising, since
            about a zero far away they would be moves of kilometres.

    Returns:
        Of all; not numbers for those left out.

    Raises:
        RegistrationError: The poses fall into several groups.
        SettingsError: gtsam is not installed.
    """
    groups = int(graph.groups.max()) + 1
    if groups > 1:
        raise RegistrationError(
            f"The scans fall into {groups} groups with nothing known between them; no trajectory joins them.",
            remedy="Give the poses of the scans by odometry with --poses, or only scans that follow on.",
        )
    gtsam = load_gtsam()
    graph = move_frames(graph, stations)
    values = gtsam.Values()
    for number in graph.used:
        values.insert(int(number), gtsam.Pose3(graph.world_from_scan[number]))
    for doubted in (False, True):
        factors = _factors(gtsam, graph, doubted)
        values = gtsam.LevenbergMarquardtOptimizer(factors, values).optimize()
    poses = np.full(graph.world_from_scan.shape, np.nan)
    poses[graph.used] = [values.atPose3(int(number)).matrix() for number in graph.used]
    return move_frames(replace(graph, world_from_scan=poses), -stations).world_from_scan


def move_frames(graph: PoseGraph, stations: Float64[np.ndarray, "n 3"]) -> PoseGraph:
    """The same graph with the zero of each scan's frame moved to a point of it, all directions kept."""
    shifts = np.tile(np.eye(4), (len(stations), 1, 1))
    shifts[:, :3, 3] = stations
    edges = [
        replace(
            edge,
            target_from_source=np.linalg.inv(shifts[edge.target])
            @ edge.target_from_source
            @ shifts[edge.source],
            information=about_origin(edge.information, -stations[edge.source]),
        )
        for edge in graph.edges
    ]
    return PoseGraph(graph.world_from_scan @ shifts, edges, graph.groups)


def load_gtsam() -> Any:
    """The library.

    Raises:
        SettingsError: It is not installed.
    """
    try:
        return import_module("gtsam")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "Optimising a pose graph needs gtsam, which is not installed.",
            remedy="pip install 'gim_sfm[graph]'",
        ) from error


def _factors(gtsam: Any, graph: PoseGraph, doubted: bool) -> Any:
    """What gtsam has to meet: the turn comes first, and errors are in the second frame as ours."""
    factors = gtsam.NonlinearFactorGraph()
    first = int(graph.used[0])
    known = gtsam.Pose3(graph.world_from_scan[first])
    factors.add(gtsam.PriorFactorPose3(first, known, gtsam.noiseModel.Isotropic.Sigma(6, FIRST_KNOWN)))
    order = [3, 4, 5, 0, 1, 2]
    for edge in graph.edges:
        noise = gtsam.noiseModel.Gaussian.Information(edge.information[np.ix_(order, order)])
        if edge.is_loop and doubted:
            doubt = gtsam.noiseModel.mEstimator.Cauchy.Create(DOUBTED_FROM)
            noise = gtsam.noiseModel.Robust.Create(doubt, noise)
        measured = gtsam.Pose3(edge.target_from_source)
        factors.add(gtsam.BetweenFactorPose3(edge.target, edge.source, measured, noise))
    return factors
