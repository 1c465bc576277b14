"""The verb `bev loops`: a folder of scans in, the places where the drive meets itself out, or none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
from jaxtyping import Float32

from gim_sfm import matchers
from gim_sfm.bev.drives.drive import MAP_LENGTH, Drive, open_drive
from gim_sfm.bev.drives.trajectories import Poses, Trajectory, write_kitti, write_tum
from gim_sfm.bev.loops.answers import ANSWER, GRAPH, PICTURE, draw_loops, tell_drive, write_answer
from gim_sfm.bev.loops.contradictions import find_contradicted
from gim_sfm.bev.loops.feature_memory import remembering
from gim_sfm.bev.loops.judging import Judge, Link, Refusal
from gim_sfm.bev.loops.odometry import Odometry, edge_of, odometry_of_poses, odometry_of_steps
from gim_sfm.bev.loops.place_recognition import Descriptor, choose_candidates
from gim_sfm.bev.loops.pose_graph import PoseGraph, join, load_gtsam, optimise, write_g2o
from gim_sfm.bev.topview import Channel
from gim_sfm.bev.view_matching import MATCHED, load_view_matcher
from gim_sfm.errors import InputError
from gim_sfm.progress import stage
from gim_sfm.recipe import MatcherKeywords, TopViewSettings, section_of
from gim_sfm.sfm.lineup import stores_key

JOURNAL = "loops.journal"

GAP = 1 / 2
"""Way in lengths of the scene, besides that of a local map, up to which places are neighbours and no loop."""

ALIKE = 1 / 8
"""Way, in lengths of the scene, of which one candidate is enough."""

FEWEST_PLACES = 2

CONTRADICTED = "It contradicts other loops nearby: with the way between them the circle does not close."

REGISTERED = "consecutive scans registered to each other"

DRIFT = 0.01
"""What odometry is trusted to; see `expect_of_odometry`."""


@dataclass(frozen=True, slots=True, eq=False)
class Loops:
    """What `bev loops` found.

    Attributes:
        links: The loops, by numbers of places.
        refused: Candidates that are none.
        places: What was looked at: scans, or local maps.
        unusable: Places that could not be read or show no ground.
        graph: Poses of the scans and all that is known between them.
        optimised: Poses after optimising; of length 0 where that was not asked for.
        folder: Where everything was written.
    """

    links: Sequence[Link]
    refused: Sequence[Refusal]
    places: int
    unusable: int
    graph: PoseGraph
    optimised: Poses
    folder: Path

    def __str__(self) -> str:
        groups = int(self.graph.groups.max()) + 1
        joined = "all joined" if groups == 1 else f"in {groups} groups with nothing known between them"
        lines = [
            f"{len(self.links)} loops among {self.places} places, {len(self.refused)} candidates refused, "
            f"{self.unusable} places unusable; {len(self.graph.groups)} scans, {joined}",
            f"Loops, graph, picture  {self.folder / ANSWER}, {GRAPH}, {PICTURE}",
        ]
        if len(self.optimised):
            lines.append(f"Trajectories           {self.folder}/trajectory_*_kitti.txt, trajectory_*_tum.txt")
        return "\n".join(lines)


def close_loops(
    scans: Path | str,
    *,
    poses: Path | str | None = None,
    output: Path | str = "loops",
    candidates: int = 5,
    map_length: float | None = None,
    gap: float | None = None,
    drift: float = DRIFT,
    optimised: bool = False,
    channels: Sequence[Channel] = MATCHED,
    turns: int | None = None,
    device: str = "auto",
    **settings: Unpack[MatcherKeywords],
) -> Loops:
    """Finds where a drive meets itself, whatever way it is driven the second time.

    With poses by odometry, local maps are compared, and the graph has an edge between each two consecutive
    scans as odometry tells it. Without, single scans are, and consecutive ones are registered to each other
    first: where that succeeds the graph has an edge, and where it does not the drive is interrupted.

    A run that was killed goes on where it stopped when it is started again.

    Args:
        scans: Folder of clouds of one format, taken one after the other in the natural order of their names.
        poses: world_from_scan of each, KITTI's or TUM's text or JSON by name; drift does no harm. None where
            they are not known.
        output: Folder for loops.json, loops.g2o, loops.png, and what a run goes on from.
        candidates: Earlier places that each place is registered to at most.
        map_length: Way of a local map in the unit of the clouds; None for a quarter of the scene of a scan.
        gap: Way between places up to which they are neighbours and no loop; None for half the scene of a
            scan, and the local map's.
        drift: Standard deviation of odometry after a way as long as the scene of a scan, as a share of that;
            of its direction, in radians.
        optimised: Whether to optimise the pose graph by gtsam and write trajectory_initial_*.txt and
            trajectory_optimised_*.txt, KITTI's and TUM's.
        channels: What of the top views is matched.
        turns: How many turns of the source are shown to the matcher; None for 1 where it does not mind
            turns, else 12.
        device: Where a network runs.
        **settings: See `gim_sfm.recipe.TopViewSettings`.

    Raises:
        InputError: The folder or the poses cannot be used, or fewer than two scans can.
        RegistrationError: Poses are to be optimised that nothing joins; the loops are written all the same.
        SettingsError: A setting that does not exist or does not fit, or small_gicp or gtsam is missing.
        OutputError: The folder cannot be written, or another run is using it.
    """
    chosen = section_of(TopViewSettings, settings)
    if optimised:
        load_gtsam()
    drive = open_drive(scans, poses, map_length=map_length)
    matcher = remembering(load_view_matcher(chosen, channels, turns, device))
    folder = Path(output)
    with Judge(
        drive,
        folder / JOURNAL,
        matcher,
        key=stores_key(matchers.find(chosen.matcher), chosen),
    ) as judge:
        descriptors, unusable = _describe(drive, judge)
        odometry = _follow(drive, judge, unusable, drift)
        apart = _gap(drive, gap, map_length)
        pairs = choose_candidates(
            descriptors, odometry.way, most=candidates, gap=apart, alike=ALIKE * drive.extent
        )
        verdicts = _judge(judge, pairs, "Registering candidates")
    links, refused = _sort_out(drive, verdicts, odometry, drift)
    graph = _join_all(drive, odometry, links)
    told = tell_drive(drive, odometry, unusable, graph, str(poses or REGISTERED))
    write_answer(folder / ANSWER, drive, links, refused, told)
    write_g2o(folder / GRAPH, graph)
    better = np.empty((0, 4, 4))
    draw_loops(folder / PICTURE, graph, better)
    if optimised:
        better = _optimise(folder, drive, graph)
        draw_loops(folder / PICTURE, graph, better)
    return Loops(links, refused, len(drive.places), len(unusable), graph, better, folder)


def _gap(drive: Drive, gap: float | None, map_length: float | None) -> float:
    mapped = (map_length or MAP_LENGTH * drive.extent) if len(drive.trajectory) else 0.0
    return GAP * drive.extent + mapped if gap is None else gap


def _describe(drive: Drive, judge: Judge) -> tuple[Float32[np.ndarray, "n d"], dict[int, str]]:
    """What each place looks like, zeros where it cannot be used, and why these cannot."""
    described: list[Descriptor] = []
    unusable: dict[int, str] = {}
    with stage("Describing places", len(drive.places), "place") as advance:
        for place in range(len(drive.places)):
            descriptor, reason = judge.describe(place)
            described.append(descriptor)
            if reason:
                unusable[place] = reason
            advance(1)
    if len(drive.places) - len(unusable) < FEWEST_PLACES:
        raise InputError(
            f"{len(drive.places) - len(unusable)} of {len(drive.places)} places can be used; loops need two.",
            remedy=" ".join(["Give more scans, or shorter local maps.", *list(unusable.values())[:1]]),
        )
    length = max(map(len, described))
    return np.array([each if len(each) else np.zeros(length, np.float32) for each in described]), unusable


def _follow(drive: Drive, judge: Judge, unusable: Mapping[int, str], drift: float) -> Odometry:
    """The way from scan to scan, by registering each to the one before where no poses were given."""
    if len(drive.trajectory):
        return odometry_of_poses(drive, drift)
    usable = [place for place in range(len(drive.places)) if place not in unusable]
    steps = _judge(judge, list(zip(usable[1:], usable[:-1], strict=True)), "Registering consecutive scans")
    return odometry_of_steps(drive, steps)


def _judge(judge: Judge, pairs: Sequence[tuple[int, int]], title: str) -> list[Link | Refusal]:
    verdicts: list[Link | Refusal] = []
    with stage(title, len(pairs), "pair") as advance:
        for source, target in pairs:
            verdicts.append(judge.judge(source, target))
            advance(1)
    return verdicts


def _sort_out(
    drive: Drive, verdicts: Sequence[Link | Refusal], odometry: Odometry, drift: float
) -> tuple[list[Link], list[Refusal]]:
    """Loops that nothing speaks against, and all others."""
    links = [verdict for verdict in verdicts if isinstance(verdict, Link)]
    against = find_contradicted(links, odometry, extent=drive.extent, drift=drift)
    believed = [link for link, doubted in zip(links, against, strict=True) if not doubted]
    refused = [verdict for verdict in verdicts if isinstance(verdict, Refusal)]
    refused += [
        Refusal(link.source, link.target, CONTRADICTED)
        for link, doubted in zip(links, against, strict=True)
        if doubted
    ]
    return believed, refused


def _join_all(drive: Drive, odometry: Odometry, links: Sequence[Link]) -> PoseGraph:
    """All edges, and poses by odometry, or by loops, too, where it is interrupted."""
    edges = [*odometry.graph.edges, *(edge_of(drive, link, is_loop=True) for link in links)]
    if len(drive.trajectory):
        return PoseGraph(odometry.graph.world_from_scan, edges, odometry.graph.groups)
    return join(len(drive.scans), edges)


def _optimise(folder: Path, drive: Drive, graph: PoseGraph) -> Poses:
    better = optimise(graph)
    times = drive.trajectory.timestamps if len(drive.trajectory) else np.arange(len(better), dtype=np.float64)
    for name, poses in (("initial", graph.world_from_scan), ("optimised", better)):
        write_kitti(folder / f"trajectory_{name}_kitti.txt", poses)
        write_tum(folder / f"trajectory_{name}_tum.txt", Trajectory(poses, times))
    return better
