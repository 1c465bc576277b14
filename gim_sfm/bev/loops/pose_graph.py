"""Poses and what is known between them: a pose graph, as g2o's text and optimised by gtsam."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.spatial.transform import Rotation

from gim_sfm.bev.drives.trajectories import Poses
from gim_sfm.bev.loops.information import Information
from gim_sfm.errors import RegistrationError, SettingsError
from gim_sfm.files import write_text

DOUBTED_FROM = 3.0
"""Length of a whitened error from which loops count less and less (Cauchy); 6 numbers have some 2.4."""

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
        world_from_scan: 4x4 each, rigid, as far as they are known so far.
        edges: What is known between them.
        groups: Number of the group of each: poses of different groups are joined by no edge, and their
            worlds have nothing to do with each other.
    """

    world_from_scan: Poses
    edges: Sequence[Edge]
    groups: Int64[np.ndarray, " n"]


def join(count: int, edges: Sequence[Edge]) -> PoseGraph:
    """Poses that follow from edges, by loops only where nothing else leads on; worlds are first poses."""
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
    return PoseGraph(poses, edges, groups.astype(np.int64))


def write_g2o(path: Path, graph: PoseGraph) -> None:
    """Writes a graph as g2o does, in one step.

    Its errors are (x, y, z, qx, qy, qz) of the measured pose's inverse times the estimated one: the vector of
    the unit quaternion is half the turn, so that information about turns is four times ours. An edge `a b`
    is the pose of b in the frame of a.
    """
    vertices = (
        f"VERTEX_SE3:QUAT {number} {_pose(pose)}\n" for number, pose in enumerate(graph.world_from_scan)
    )
    halves = np.diag([1.0, 1, 1, 2, 2, 2])
    upper = np.triu_indices(6)
    edges = (
        f"EDGE_SE3:QUAT {edge.target} {edge.source} {_pose(edge.target_from_source)} "
        + " ".join(f"{value:.9g}" for value in (halves @ edge.information @ halves)[upper])
        + "\n"
        for edge in graph.edges
    )
    write_text(path, "".join((*vertices, *edges)))


def _pose(pose: Float64[np.ndarray, "4 4"]) -> str:
    turn = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return " ".join(f"{value:.9g}" for value in (*pose[:3, 3], *turn))


def optimise(graph: PoseGraph) -> Poses:
    """The poses that agree best with all edges, loops counting the less the more they disagree.

    First all edges count in full, to come near however far odometry has drifted, then loops are doubted.

    Args:
        graph: All in one group; the first pose stays.

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
    values = gtsam.Values()
    for number, pose in enumerate(graph.world_from_scan):
        values.insert(number, gtsam.Pose3(pose))
    for doubted in (False, True):
        factors = _factors(gtsam, graph, doubted)
        values = gtsam.LevenbergMarquardtOptimizer(factors, values).optimize()
    return np.array([values.atPose3(number).matrix() for number in range(len(graph.world_from_scan))])


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
    first = gtsam.Pose3(graph.world_from_scan[0])
    factors.add(gtsam.PriorFactorPose3(0, first, gtsam.noiseModel.Isotropic.Sigma(6, FIRST_KNOWN)))
    order = [3, 4, 5, 0, 1, 2]
    for edge in graph.edges:
        noise = gtsam.noiseModel.Gaussian.Information(edge.information[np.ix_(order, order)])
        if edge.is_loop and doubted:
            doubt = gtsam.noiseModel.mEstimator.Cauchy.Create(DOUBTED_FROM)
            noise = gtsam.noiseModel.Robust.Create(doubt, noise)
        measured = gtsam.Pose3(edge.target_from_source)
        factors.add(gtsam.BetweenFactorPose3(edge.target, edge.source, measured, noise))
    return factors
