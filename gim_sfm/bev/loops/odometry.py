"""What is known of a drive from one scan to the next: told by its poses, or by registering the scans."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from gim_sfm.bev.drives.drive import Drive
from gim_sfm.bev.drives.trajectories import Poses, measure_travel
from gim_sfm.bev.loops.information import expect_of_odometry
from gim_sfm.bev.loops.judging import Link, Refusal
from gim_sfm.bev.loops.pose_graph import Edge, PoseGraph, join

Places = Float64[np.ndarray, "n 3"]

REFUSED_STEP = 1 / 4
"""Way, in lengths of the scene, that counts for two consecutive scans that do not register to each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Odometry:
    """The way of a drive.

    Attributes:
        graph: Poses of all scans, with an edge between consecutive ones.
        world_from_place: Poses of the places.
        groups: Number of the group of each place: within one, poses are of one world.
        way: Length of the way to each place.
        interrupted: Consecutive places that do not register to each other.
        stations: Where places were taken from, each in its frame.
    """

    graph: PoseGraph
    world_from_place: Poses
    groups: Int64[np.ndarray, " n"]
    way: Float64[np.ndarray, " n"]
    interrupted: Sequence[Refusal]
    stations: Places


def odometry_of_poses(drive: Drive, drift: float, stations: Places) -> Odometry:
    """As the poses of a drive tell it; see `expect_of_odometry` for the drift."""
    poses = drive.trajectory.world_from_scan
    travel = measure_travel(poses)
    edges = [
        Edge(
            scan,
            scan - 1,
            np.linalg.inv(poses[scan - 1]) @ poses[scan],
            expect_of_odometry(float(travel[scan] - travel[scan - 1]), drive.extent, drift),
            is_loop=False,
        )
        for scan in range(1, len(poses))
    ]
    references = [place.reference for place in drive.places]
    graph = PoseGraph(poses, edges, np.zeros(len(poses), np.int64))
    return Odometry(graph, poses[references], graph.groups[references], travel[references], [], stations)


def odometry_of_steps(
    drive: Drive, steps: Sequence[Link | Refusal], unusable: Collection[int], stations: Places
) -> Odometry:
    """As consecutive scans tell it, each being a place of its own.

    Args:
        drive: Without poses.
        steps: Of every usable scan to the usable one before.
        unusable: Numbers of the others.
        stations: Where scans were taken from, each in its frame: between them ways are measured.
    """
    edges = [edge_of(drive, step, is_loop=False) for step in steps if isinstance(step, Link)]
    graph = join(len(drive.scans), edges, unusable)
    lengths = np.zeros(len(drive.scans))
    for step in steps:
        if isinstance(step, Refusal):
            lengths[step.source] = REFUSED_STEP * drive.extent
        else:
            there = move_points(step.target_from_source, stations[step.source])
            lengths[step.source] = np.linalg.norm(there - stations[step.target])
    interrupted = [step for step in steps if isinstance(step, Refusal)]
    return Odometry(graph, graph.world_from_scan, graph.groups, np.cumsum(lengths), interrupted, stations)


def stations_of_scans(drive: Drive, odometry: Odometry) -> Places:
    """Where scans were taken from, each in its frame: at its zero where poses were given."""
    return np.zeros((len(drive.scans), 3)) if len(drive.trajectory) else odometry.stations


def move_points(
    transforms: Float64[np.ndarray, "*n 4 4"], points: Float64[np.ndarray, "*n 3"]
) -> Float64[np.ndarray, "*n 3"]:
    """Each point moved by a transform of its own."""
    return np.asarray(np.einsum("...ij,...j->...i", transforms[..., :3, :3], points) + transforms[..., :3, 3])


def edge_of(drive: Drive, link: Link, *, is_loop: bool) -> Edge:
    """An edge between the reference scans of two places."""
    source, target = (drive.places[place].reference for place in (link.source, link.target))
    return Edge(source, target, link.target_from_source, link.information, is_loop)
