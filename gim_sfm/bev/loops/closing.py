"""The verb `bev loops`: a folder of scans in, the places where the drive meets itself out, or none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np
from jaxtyping import Float32, Float64

from gim_sfm import matchers
from gim_sfm.bev.drives.drive import MAP_LENGTH, Drive, open_drive
from gim_sfm.bev.drives.trajectories import Poses, Trajectory, write_kitti, write_tum
from gim_sfm.bev.loops.answers import ANSWER, GRAPH, PAGE, PICTURE, draw_loops, tell_drive, write_answer
from gim_sfm.bev.loops.contradictions import find_contradicted
from gim_sfm.bev.loops.feature_memory import remembering
from gim_sfm.bev.loops.judging import Described, Judge, Link, Refusal
from gim_sfm.bev.loops.odometry import (
    Odometry,
    Places,
    edge_of,
    move_points,
    odometry_of_poses,
    odometry_of_steps,
    stations_of_scans,
)
from gim_sfm.bev.loops.page import gather_points, show_loops
from gim_sfm.bev.loops.place_recognition import choose_candidates
from gim_sfm.bev.loops.pose_graph import PoseGraph, join, load_gtsam, optimise, write_g2o
from gim_sfm.bev.topview import Channel
from gim_sfm.bev.view_matching import MATCHED, load_view_matcher
from gim_sfm.errors import InputError, SettingsError
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

TOLD, OPTIMISED = "by odometry and first edges", "optimised"

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
        optimised: Poses after optimising, not numbers for scans that cannot be used; of length 0 where that
            was not asked for.
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
            f"{self.unusable} places unusable; {len(self.graph.used)} scans, {joined}",
            f"Loops, graph, picture  {self.folder / ANSWER}, {GRAPH}, {PICTURE}, {PAGE}",
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
        output: Folder for loops.json, loops.g2o, loops.png, view.html, and what a run goes on from.
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
    _check_gap(gap)
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
        described = _describe(drive, judge)
        odometry = _follow(drive, judge, described, drift)
        apart = _gap(drive, gap, map_length)
        pairs = choose_candidates(
            _stack(described), odometry.way, most=candidates, gap=apart, alike=ALIKE * drive.extent
        )
        verdicts = _judge(judge, pairs, "Registering candidates")
    links, refused = _sort_out(drive, verdicts, odometry, drift)
    graph = _join_all(drive, odometry, links)
    told = tell_drive(drive, odometry, described, graph, str(poses or REGISTERED))
    write_answer(folder / ANSWER, drive, links, refused, told)
    write_g2o(folder / GRAPH, graph)
    usable = [place for place, each in enumerate(described) if not each.reason]
    points = gather_points(drive, usable)
    stations = stations_of_scans(drive, odometry)
    ways = {TOLD: move_points(graph.world_from_scan, stations)}
    _show(folder, drive, graph, ways, points)
    better = np.empty((0, 4, 4))
    if optimised:
        better = _optimise(folder, drive, graph, stations)
        ways |= {OPTIMISED: move_points(better, stations)}
        _show(folder, drive, replace(graph, world_from_scan=better), ways, points)
    return Loops(links, refused, len(drive.places), len(drive.places) - len(usable), graph, better, folder)


def _check_gap(gap: float | None) -> None:
    if gap is not None and not 0 <= gap < np.inf:
        raise SettingsError(
            f"Places cannot be neighbours up to a way of {gap:g}.",
            remedy="Give a gap of 0 or more, or none for one that goes with the scene.",
        )


def _show(
    folder: Path,
    drive: Drive,
    graph: PoseGraph,
    ways: dict[str, Places],
    points: dict[int, Float64[np.ndarray, "m 3"]],
) -> None:
    draw_loops(folder / PICTURE, graph, ways)
    show_loops(folder / PAGE, drive, graph, ways, points)


def _gap(drive: Drive, gap: float | None, map_length: float | None) -> float:
    mapped = (map_length or MAP_LENGTH * drive.extent) if len(drive.trajectory) else 0.0
    return GAP * drive.extent + mapped if gap is None else gap


def _describe(drive: Drive, judge: Judge) -> list[Described]:
    """What each place looks like, two of them at least."""
    described: list[Described] = []
    with stage("Describing places", len(drive.places), "place") as advance:
        for place in range(len(drive.places)):
            described.append(judge.describe(place))
            advance(1)
    reasons = [each.reason for each in described if each.reason]
    if len(described) - len(reasons) < FEWEST_PLACES:
        raise InputError(
            f"{len(described) - len(reasons)} of {len(described)} places can be used; loops need two.",
            remedy=" ".join(["Give more scans, or shorter local maps.", *reasons[:1]]),
        )
    return described


def _stack(described: Sequence[Described]) -> Float32[np.ndarray, "n d"]:
    """The descriptors, zeros where a place cannot be used."""
    stacked = np.zeros((len(described), max(len(each.descriptor) for each in described)), np.float32)
    for row, each in zip(stacked, described, strict=True):
        row[: len(each.descriptor)] = each.descriptor
    return stacked


def _follow(drive: Drive, judge: Judge, described: Sequence[Described], drift: float) -> Odometry:
    """The way from scan to scan, by registering each to the one before where no poses were given."""
    stations = np.array([each.station for each in described])
    if len(drive.trajectory):
        return odometry_of_poses(drive, drift, stations)
    unusable = [place for place, each in enumerate(described) if each.reason]
    usable = [place for place, each in enumerate(described) if not each.reason]
    steps = _judge(judge, list(zip(usable[1:], usable[:-1], strict=True)), "Registering consecutive scans")
    return odometry_of_steps(drive, steps, unusable, stations)


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
    return join(len(drive.scans), edges, np.flatnonzero(odometry.graph.groups < 0).tolist())


def _optimise(folder: Path, drive: Drive, graph: PoseGraph, stations: Places) -> Poses:
    better = optimise(graph, stations)
    times = drive.trajectory.timestamps if len(drive.trajectory) else np.arange(len(better), dtype=np.float64)
    used = graph.used
    for name, poses in (("initial", graph.world_from_scan), ("optimised", better)):
        write_kitti(folder / f"trajectory_{name}_kitti.txt", poses[used])
        write_tum(folder / f"trajectory_{name}_tum.txt", Trajectory(poses[used], times[used]))
    return better
