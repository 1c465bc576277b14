"""What `bev loops` writes of what it found: loops.json, loops.png."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.drives.drive import Drive
from gim_sfm.bev.loops.judging import Described, Link, Refusal
from gim_sfm.bev.loops.odometry import Odometry
from gim_sfm.bev.loops.pose_graph import PoseGraph
from gim_sfm.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANSWER, GRAPH, PICTURE, PAGE = "loops.json", "loops.g2o", "loops.png", "view.html"

CONVENTION = (
    "target_from_source maps points of the source's frame into the target's; information is of errors "
    "(x, y, z, turn about x, y, z) in the source's frame, radians: true pose = target_from_source * error; "
    "scans whose group is null cannot be used: the graph and the trajectories have no pose of them"
)

WAY, LOOP, OTHERS = "#0072b2", "#d55e00", "#bbbbbb"


def write_answer(
    path: Path,
    drive: Drive,
    loops: Sequence[Link],
    refused: Sequence[Refusal],
    told: Mapping[str, Any],
) -> None:
    """Writes the loops, and the candidates that were refused with the reason.

    Args:
        path: The JSON file.
        drive: Names the places.
        loops: Found.
        refused: Not.
        told: What else is worth knowing, first.
    """
    answer = {
        **told,
        "convention": CONVENTION,
        "loops": [_tell(drive, link) for link in loops],
        "refused": _reasons(drive, refused),
    }
    write_text(path, json.dumps(answer, indent=1) + "\n")


def tell_drive(
    drive: Drive, odometry: Odometry, described: Sequence[Described], graph: PoseGraph, source: str
) -> dict[str, Any]:
    """What a drive was made of, and where it is interrupted.

    Args:
        drive: The places.
        odometry: The way between them.
        described: The places, or why they could not be used.
        graph: Tells what is joined.
        source: Where the odometry is from.
    """
    return {
        "scans": [path.name for path in drive.scans],
        "odometry": source,
        "places": [
            {"reference": drive.name(number), "scans": [drive.scans[scan].name for scan in place.members]}
            for number, place in enumerate(drive.places)
        ],
        "extent": drive.extent,
        "cell": drive.cell,
        "unusable": {drive.name(place): each.reason for place, each in enumerate(described) if each.reason},
        "left_out": {name: reason for each in described for name, reason in each.left_out.items()},
        "interrupted": _reasons(drive, odometry.interrupted),
        "groups": [group if group >= 0 else None for group in graph.groups.tolist()],
    }


def _reasons(drive: Drive, refused: Sequence[Refusal]) -> list[dict[str, str]]:
    return [
        {"source": drive.name(each.source), "target": drive.name(each.target), "reason": each.reason}
        for each in refused
    ]


def _tell(drive: Drive, link: Link) -> dict[str, Any]:
    return {
        "source": drive.name(link.source),
        "target": drive.name(link.target),
        "target_from_source": link.target_from_source.tolist(),
        "overlap": link.overlap,
        "consistent": link.consistent,
        "rmse": link.rmse,
        "confidence": link.confidence,
        "information": link.information.tolist(),
    }


def draw_loops(path: Path, graph: PoseGraph, ways: Mapping[str, Float64[np.ndarray, "n 3"]]) -> None:
    """Draws the way from above with its loops, and the optimised one beside it where there is one.

    Where scans fall into several groups there is no one way: which scan met which is drawn instead.

    Args:
        path: The PNG file, written in one step.
        graph: Its edges are drawn.
        ways: By title, the places of the scans; not numbers for those that are left out.
    """
    from matplotlib.figure import Figure

    whole = graph.groups.max() == 0
    figure = Figure(figsize=(7 * len(ways), 6.5), layout="constrained")
    if whole:
        for number, (title, places) in enumerate(ways.items()):
            axes = figure.add_subplot(1, len(ways), number + 1)
            _draw_way(axes, places[:, :2], graph, title)
    else:
        _draw_meetings(figure.add_subplot(), graph)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_way(axes: "Axes", places: Float64[np.ndarray, "n 2"], graph: PoseGraph, title: str) -> None:
    axes.plot(*places[graph.used].T, "-", color=WAY, linewidth=1.2, marker=".", markersize=3)
    loops = [edge for edge in graph.edges if edge.is_loop]
    for edge in loops:
        axes.plot(*places[[edge.source, edge.target]].T, "-o", color=LOOP, linewidth=1, markersize=3)
    axes.plot(*places[graph.used[0]], "s", color="black", markersize=6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(f"{title}; {len(loops)} loops; begins at the square")


def _draw_meetings(axes: "Axes", graph: PoseGraph) -> None:
    count = len(graph.groups)
    for edge in graph.edges:
        colour = LOOP if edge.is_loop else OTHERS
        axes.plot(*sorted((edge.source, edge.target)), "o", color=colour, markersize=4)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(-0.5, count - 0.5), xlabel="scan", ylabel="scan")
    axes.set_aspect("equal")
    axes.set_title(f"scans that were registered to each other, in {graph.groups.max() + 1} groups")
