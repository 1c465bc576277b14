"""The verb `bev project`: a cloud in, its top view out, as pictures and as numbers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from gim_sfm.bev.checks import check_positive, clear_output, naming, open_output, writing
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.ground import find_ground
from gim_sfm.bev.topview import CHANNELS, Channel, TopView, choose_grid, project
from gim_sfm.files import replacing, write_text

VIEW = "view.json"
BRIGHTEST = 99.0
"""Percentile of the occupied cells that is white in a picture of 8 bits."""

DEEPEST = 65535
EMPTY: Mapping[str, object] = MappingProxyType({})

Plane = Float32[np.ndarray, "height width"]


@dataclass(frozen=True, slots=True)
class Projection:
    """What `bev project` made.

    Attributes:
        view: The top view.
        folder: Its pictures, and view.json.
    """

    view: TopView
    folder: Path

    def __str__(self) -> str:
        grid = self.view.grid
        return (
            f"{grid.size[0]} x {grid.size[1]} cells of {grid.cell:g}, "
            f"{np.count_nonzero(self.view.seen)} of them seen, {', '.join(self.view.channels)}"
            f"{f', a ceiling from {self.view.ceiling:.3g} on left out' * (self.view.ceiling < np.inf)}\n"
            f"Top view  {self.folder}"
        )


def project_cloud(cloud: Path | str, out: Path | str, *, cell: float | None = None) -> Projection:
    """Finds the ground of a cloud, levels it, and writes it as seen from above.

    Args:
        cloud: Any file that `load_cloud` reads.
        out: Folder for CHANNEL.png (8 bits, to look at and to match), CHANNEL_16.png (16 bits, linear) and
            view.json: cell size, origin, level_from_cloud, and the value of a grey level of each picture.
        cell: Side of a cell in the unit of the cloud; None for one that goes with the scene.

    Raises:
        InputError: The cloud cannot be used, shows no ground, or has too many cells of that size.
        SettingsError: The cell has no size.
        OutputError: The folder cannot be written.
    """
    check_positive(cell=cell)
    folder = Path(out)
    open_output(folder)
    points = load_cloud(Path(cloud))
    _clear(folder)
    with naming(Path(cloud)):
        ground = find_ground(points)
        grid = choose_grid(points, ground, cell=cell)
    view = project(points, ground, grid)
    write_view(view, folder, origin_of_points=points.origin.tolist())
    return Projection(view, folder)


def _clear(folder: Path) -> None:
    """Removes a former view; pictures without view.json may be anybody's."""
    if (folder / VIEW).exists():
        clear_output(folder, [f"{channel}{kind}.png" for channel in CHANNELS for kind in ("", "_16")])
        clear_output(folder, [VIEW])


def write_view(
    view: TopView, folder: Path, *, origin_of_points: list[float], told: Mapping[str, object] = EMPTY
) -> None:
    """Writes the pictures of a view and what they mean, and what else is told; view.json comes last."""
    steps = {name: _write_linear(folder / f"{name}_16.png", plane) for name, plane in view.channels.items()}
    for name, plane in view.channels.items():
        write_png(folder / f"{name}.png", to_picture(name, plane))
    meaning = {
        **told,
        "cell": view.grid.cell,
        "size": view.grid.size,
        "origin": view.grid.origin,
        "axes": "x grows with the column, y falls with the row; origin is the middle of the first cell",
        "level_from_cloud": view.level_from_cloud.tolist(),
        "ceiling_left_out_from": view.ceiling if np.isfinite(view.ceiling) else None,
        "cloud_origin": origin_of_points,
        "value_of_a_grey_level_16": steps,
        "pictures_8": {name: TOLD[name] for name in view.channels},
    }
    with writing(folder):
        write_text(folder / VIEW, json.dumps(meaning, indent=1) + "\n")


def to_picture(channel: Channel, plane: Plane) -> UInt8[np.ndarray, "height width"]:
    """A plane in 8 bits: white at the 99th percentile of what is there, densities by their logarithm."""
    shown = SHOWN.get(channel, _linear)(plane)
    there = shown[shown > 0]
    white = np.percentile(there, BRIGHTEST) if there.size else 1.0
    return np.rint(255 * np.clip(shown / white, 0, 1)).astype(np.uint8)


def _linear(plane: Plane) -> Plane:
    return plane


SHOWN: Mapping[Channel, Callable[[Plane], Plane]] = {"density": np.log1p}
TOLD: Mapping[Channel, str] = {
    "density": "logarithm of one and the points above the ground",
    "max_height": "highest point over the ground",
    "height_range": "highest less lowest point",
    "intensity": "mean intensity",
}


def _write_linear(path: Path, plane: Plane) -> float:
    """Writes a plane in 16 bits; gives what a grey level is worth: 1 for counts, else the least that fits."""
    highest = float(plane.max(initial=0))
    whole = np.array_equal(plane, np.rint(plane)) and highest <= DEEPEST
    step = 1.0 if whole else highest / DEEPEST or 1.0
    write_png(path, np.rint(plane / step).astype(np.uint16))
    return step


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Writes a picture, grey or in OpenCV's order of colours, in one step.

    Raises:
        OutputError: It cannot be written.
    """
    with writing(path), replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
