"""The page on which a drive can be turned and looked at: its way, its loops, and what was seen."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64

from gim_sfm.bev.drives.accumulation import thin_out
from gim_sfm.bev.drives.drive import Drive
from gim_sfm.bev.loops.pose_graph import Edge, PoseGraph
from gim_sfm.bev.scene_page import Colour, Fact, Layer, LineLayer, PointLayer, write_scene

MOST_SHOWN = 24
"""Places whose points are shown, evenly over the drive."""

COARSE = 3.0
"""Voxels in a side of those of which one point is shown."""

LOW = 2.0
"""Percentile of the heights of points at which the grid lies."""

WAYS: Sequence[Colour] = ((0, 114, 178), (0, 158, 115))
LOOP: Colour = (213, 94, 0)
SEEN: Colour = (150, 150, 150)

Places = Float64[np.ndarray, "n 3"]


def gather_points(drive: Drive, usable: Sequence[int]) -> dict[int, Float64[np.ndarray, "m 3"]]:
    """Thinned points of some places, in their frames, by the number of the place.

    Raises:
        InputError: A place cannot be used.
    """
    chosen = np.unique(np.linspace(0, len(usable) - 1, MOST_SHOWN).astype(int))
    side = COARSE * drive.voxel
    return {usable[number]: thin_out(drive.load(usable[number]).cloud, side).coordinates for number in chosen}


def show_loops(
    path: Path,
    drive: Drive,
    graph: PoseGraph,
    ways: Mapping[str, Places],
    points: Mapping[int, Float64[np.ndarray, "m 3"]],
) -> None:
    """Writes the page; of scans in several groups it shows the largest one.

    Args:
        path: The HTML file, written in one step.
        drive: The places.
        graph: Poses, which the points are shown at, and edges.
        ways: By name, the places of the scans; loops are drawn between those of the last.
        points: See `gather_points`.
    """
    group = int(np.bincount(graph.groups[graph.used]).argmax())
    shown = graph.groups == group
    zero = next(iter(ways.values()))[np.flatnonzero(shown)[0]]
    seen = _place_points(drive, graph, shown, points, zero)
    steps, loops = (
        [edge for edge in graph.edges if edge.is_loop is looped and shown[edge.source]]
        for looped in (False, True)
    )
    layers: list[Layer] = [PointLayer("points seen", seen, SEEN)] * bool(len(seen))
    layers += [
        LineLayer(f"way {name}", _lines(steps, places - zero), colour)
        for (name, places), colour in zip(ways.items(), WAYS, strict=False)
    ]
    layers.append(LineLayer("loops", _lines(loops, list(ways.values())[-1] - zero), LOOP))
    facts = [Fact(f"{len(loops)}", "loops"), Fact(f"{int(shown.sum())} of {len(shown)}", "scans shown")]
    ground = float(np.percentile(seen[:, 2], LOW)) if len(seen) else 0.0
    write_scene(path, layers, title="Loops of a drive", facts=facts, ground=ground)


def _place_points(
    drive: Drive,
    graph: PoseGraph,
    shown: Bool[np.ndarray, " n"],
    points: Mapping[int, Float64[np.ndarray, "m 3"]],
    zero: Float64[np.ndarray, "3"],
) -> Float32[np.ndarray, "m 3"]:
    """The points of the places of one group in its world, about a zero nearby."""
    moved = [np.empty((0, 3), np.float32)]
    for place, here in points.items():
        scan = drive.places[place].reference
        if shown[scan]:
            pose = graph.world_from_scan[scan]
            moved.append((here @ pose[:3, :3].T + (pose[:3, 3] - zero)).astype(np.float32))
    return np.concatenate(moved)


def _lines(edges: Sequence[Edge], places: Places) -> Float64[np.ndarray, "m 2 3"]:
    ends = np.array([(edge.target, edge.source) for edge in edges], np.int64).reshape(-1, 2)
    return np.asarray(places[ends])
