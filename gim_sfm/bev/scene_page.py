"""A scene of clouds and lines to turn and look at: one HTML file, for a browser without a network."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from gim_sfm.bev.scene_style import FRAGMENT_SHADER, LOOKS, SCRIPT, VERTEX_SHADER
from gim_sfm.files import write_text
from gim_sfm.sfm.report_style import STYLE

MOST_POINTS = 400_000
"""Of one layer."""

MOST_IN_ALL = 480_000
"""Points of a page, shared by its layers: eight bytes each, a third more as text, stay below 6 MB."""

BULK = (1.0, 99.0)
"""Percentiles between which the points lie that the page is fitted to; a few are far out in any cloud."""

STEPS = 65_535

Colour = tuple[int, int, int]
Transform = Float[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, eq=False)
class PointLayer:
    """Points to show.

    Attributes:
        name: In the legend; another one for each layer.
        points: In a frame of their own, which `states` move; about an origin nearby where they lie far out.
        colour: RGB in the legend, and of the points where `colours` is empty.
        colours: RGB point by point, or of length 0.
    """

    name: str
    points: Float[np.ndarray, "n 3"]
    colour: Colour
    colours: UInt8[np.ndarray, "m 3"] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class LineLayer:
    """Straight lines to show: a path, edges of a graph, outlines of cameras.

    Attributes:
        name: In the legend; another one for each layer.
        lines: Beginnings and ends.
        colour: RGB.
    """

    name: str
    lines: Float[np.ndarray, "n 2 3"]
    colour: Colour


Layer = PointLayer | LineLayer


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that heads the page: `value`, and below it what that is."""

    value: str
    what: str


def write_scene(
    path: Path,
    layers: Sequence[Layer],
    *,
    title: str,
    facts: Sequence[Fact] = (),
    states: Mapping[str, Mapping[str, Transform]] | None = None,
    ground: float = 0.0,
    unit: str = "",
) -> None:
    """Writes a page on which clouds and lines can be turned, moved and hidden.

    Args:
        path: Of the HTML file; replaced in one step.
        layers: What is shown. Of large clouds an even sample.
        title: Heading.
        facts: Figures beside it.
        states: Where layers lie, world_from_layer by layer name, for each state that can be chosen, "after"
            and "before" say; the first is shown at first. Layers that a state does not name stay put.
        ground: Height of the grid in the world, whose z points up.
        unit: Of lengths; empty where it is not known.

    Raises:
        OSError: The file cannot be written.
    """
    write_text(path, render_scene(layers, title, facts, states or {"": {}}, ground, unit))


def render_scene(
    layers: Sequence[Layer],
    title: str,
    facts: Sequence[Fact],
    states: Mapping[str, Mapping[str, Transform]],
    ground: float,
    unit: str,
) -> str:
    """The page as text; see `write_scene`. Names are escaped: they can be anything."""
    share = MOST_IN_ALL // max(1, sum(isinstance(layer, PointLayer) for layer in layers))
    scene = {
        "layers": [_pack(layer, min(MOST_POINTS, share)) for layer in layers],
        "states": {
            state: {name: np.asarray(move, np.float64).tolist() for name, move in moves.items()}
            for state, moves in states.items()
        },
        "heights": _heights(layers, next(iter(states.values()))),
        "ground": ground,
        "unit": unit,
    }
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    text = json.dumps(scene).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{LOOKS}</style></head>\n<body><main>\n"
        f"{_header(title, facts)}{STAGE}</main>\n"
        f'<script type="application/json" id="scene">{text}</script>\n'
        f'<script type="x-shader/x-vertex" id="vertex">{VERTEX_SHADER}</script>\n'
        f'<script type="x-shader/x-fragment" id="fragment">{FRAGMENT_SHADER}</script>\n'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


STAGE = """<nav><div id="layers"></div><div id="states" class="choice"></div>
<div id="colours" class="choice"></div><div id="others"></div></nav>
<div class="stage"><canvas id="orbit" tabindex="0"></canvas><div id="bar"></div><div id="grid"></div>
<div id="heights" hidden><span>high</span><span>low</span></div>
<p id="trouble" hidden>This browser shows no WebGL, which the scene needs: switch on hardware acceleration in
its settings, or open the file in another browser.</p></div>
<figcaption>Drag to turn, right button or shift to move, wheel or two fingers to zoom.</figcaption>
"""


def _header(title: str, facts: Sequence[Fact]) -> str:
    cards = "".join(
        f'<div class="figure"><b>{escape(fact.value)}</b><span>{escape(fact.what)}</span></div>'
        for fact in facts
    )
    return f'<header><div><h1>{escape(title)}</h1></div><div class="figures">{cards}</div></header>\n'


def _places(layer: Layer) -> Float[np.ndarray, "n 3"]:
    return layer.points if isinstance(layer, PointLayer) else layer.lines.reshape(-1, 3)


def _pack(layer: Layer, most: int) -> dict[str, object]:
    """A layer as JSON: its places on 65 536 steps a side, padded to 8 bytes each, as drivers want them."""
    places, colours = _places(layer), np.zeros((0, 3), np.uint8)
    if isinstance(layer, PointLayer):
        kept = _sample(len(places), most)
        places, colours = places[kept], layer.colours[kept] if len(layer.colours) else colours
    low, high = (places.min(axis=0), places.max(axis=0)) if len(places) else (np.zeros(3), np.zeros(3))
    step = float((high - low).max()) / STEPS or 1.0
    padded = np.zeros((len(places), 4), "<u2")
    padded[:, :3] = np.rint((places - low) / step)
    return {
        "name": layer.name,
        "lines": isinstance(layer, LineLayer),
        "colour": layer.colour,
        "count": len(places),
        "low": low.astype(np.float64).tolist(),
        "step": step,
        "places": _encode(padded),
        "paint": _encode(np.column_stack([colours, np.zeros(len(colours), np.uint8)])),
        "box": _box(places, (0.0, 100.0) if isinstance(layer, LineLayer) else BULK).tolist(),
    }


def _sample(count: int, most: int) -> np.ndarray:
    """Numbers of the points shown, drawn at random: every k-th would follow the rings of a scanner."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _box(places: Float[np.ndarray, "n 3"], bulk: tuple[float, float]) -> Float[np.ndarray, "k 3"]:
    """The eight corners of the box that holds most places; none of nothing."""
    if not len(places):
        return np.zeros((0, 3))
    ends = np.percentile(places, bulk, axis=0)
    return np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def _heights(layers: Sequence[Layer], moves: Mapping[str, Transform]) -> list[float]:
    """Heights in the world between which the colours run."""
    found = [np.zeros(0)]
    for layer in layers:
        move = np.asarray(moves.get(layer.name, np.eye(4)), np.float64)
        if isinstance(layer, PointLayer):
            found.append(layer.points[_sample(len(layer.points), 50_000)] @ move[2, :3] + move[2, 3])
    heights = np.concatenate(found)
    low, high = np.percentile(heights, BULK) if len(heights) else (0.0, 1.0)
    return [float(low), float(max(high, low + 1e-9))]


def _encode(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
