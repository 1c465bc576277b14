"""The cameras and points of a report's page: a view to turn, one from above and one from the side."""

import base64
import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pycolmap
from jaxtyping import Bool, Float64, UInt8
from PIL import Image

from gim_sfm.sfm.report_elements import encode_jpeg

DRAWN_POINTS = 12_000
STAGE = (16, 20, 27)
"""Behind the points; the same as in the page's style."""

MARKED, QUIET = "#ff8a4c", "#7f93ad"
"""Of cameras; the same as in the page's style. Where none is marked, none steps back."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the three-dimensional views show, in world units.

    Attributes:
        names: Registered photos.
        cam_from_world: Their poses, x_cam = R x_world + t.
        half_fields: Half width and half height of their images at distance 1.
        points: Points of the model.
        colours: Their colours, RGB; all black where COLMAP has none.
        marked: Photos that are to stand out from the others.
    """

    names: tuple[str, ...]
    cam_from_world: Float64[np.ndarray, "n 3 4"]
    half_fields: Float64[np.ndarray, "n 2"]
    points: Float64[np.ndarray, "m 3"]
    colours: UInt8[np.ndarray, "m 3"]
    marked: Bool[np.ndarray, " n"]


NOTHING_TO_DRAW = Drawing(
    (),
    np.zeros((0, 3, 4)),
    np.zeros((0, 2)),
    np.zeros((0, 3)),
    np.zeros((0, 3), np.uint8),
    np.zeros(0, np.bool_),
)


def draw_model(model: pycolmap.Reconstruction | None, marked: Collection[str] = ()) -> Drawing:
    """The cameras and a share of the points.

    Args:
        model: The model, or None where there is none.
        marked: Names of photos that are to stand out.
    """
    if model is None or not model.reg_image_ids():
        return NOTHING_TO_DRAW
    images = sorted((model.images[key] for key in model.reg_image_ids()), key=lambda image: str(image.name))
    names = tuple(str(image.name) for image in images)
    poses = np.stack([image.cam_from_world().matrix() for image in images])
    points = [model.points3D[key] for key in sorted(model.points3D) if model.points3D[key].track.length() > 2]
    points = points or list(model.points3D.values())
    chosen = points[:: max(1, len(points) // DRAWN_POINTS)]
    return Drawing(
        names=names,
        cam_from_world=poses,
        half_fields=np.array([half_field(model.cameras[image.camera_id]) for image in images]),
        points=np.array([point.xyz for point in chosen]).reshape(-1, 3),
        colours=np.array([point.color for point in chosen], dtype=np.uint8).reshape(-1, 3),
        marked=np.array([name in marked for name in names]),
    )


def half_field(camera: pycolmap.Camera) -> tuple[float, float]:
    """Half the image's width and height at distance 1, for a pyramid to draw."""
    focal = (
        float(camera.mean_focal_length())
        if not camera.is_spherical()
        else max(camera.width, camera.height) / 2
    )
    return camera.width / 2 / focal, camera.height / 2 / focal


def render_scene(drawing: Drawing, *, marked: str = "", others: str = "") -> str:
    """The section of a page that shows cameras and points.

    Args:
        drawing: What to show.
        marked: What the marked photos are, HTML; told where there are any.
        others: What the others are.
    """
    if not drawing.names:
        return "<section><h2>Cameras and points</h2><p>No model came of these photos.</p></section>"
    points, pyramids = _levelled(drawing)
    colours = _readable(drawing.colours)
    data = {
        "names": drawing.names,
        "points": _packed(points.astype("<f4")),
        "colours": _packed(colours),
        "cameras": _packed(pyramids.astype("<f4")),
        "marked": drawing.marked.astype(int).tolist(),
    }
    text = json.dumps(data).replace("<", "\\u003c")
    views = "".join(
        _plan(points, colours, pyramids, drawing.marked, axes, title)
        for axes, title in (((0, 1), "From above"), ((0, 2), "From the side"))
    )
    legend = f'<i class="key"></i>{marked} <i class="key quiet"></i>{others}. ' if any(drawing.marked) else ""
    return (
        '<section><h2>Cameras and points <span class="soft" id="orbit-name"></span></h2>'
        '<canvas id="orbit"></canvas><figcaption>Drag to turn, wheel to zoom, shift and drag to move; '
        f'point at a camera for its name. {legend}</figcaption><div class="views">{views}</div>'
        f'<script type="application/json" id="scene">{text}</script></section>'
    )


def _readable(colours: np.ndarray) -> np.ndarray:
    """Point colours, lightened to stand out from the dark ground; grey where there are none."""
    if not colours.any():
        return np.full_like(colours, 170)
    return np.asarray(255 * (0.12 + 0.88 * (colours / 255) ** 0.6), np.uint8)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _levelled(drawing: Drawing) -> tuple[np.ndarray, np.ndarray]:
    """Points (m, 3) and camera pyramids (n, 5, 3: eye and four corners), z up, most of either within +-1.

    Up is what photographers hold upwards on average.
    """
    rotation = drawing.cam_from_world[:, :, :3]
    centres = -np.einsum("nji,nj->ni", rotation, drawing.cam_from_world[:, :, 3])
    frame = _upright_frame(-rotation[:, 1].mean(0), rotation[:, 2].mean(0))
    shown = [part @ frame.T for part in (centres, drawing.points) if len(part)]
    ranges = np.array([np.percentile(part, (4, 96), axis=0) for part in shown])
    low, high = ranges[:, 0].min(0), ranges[:, 1].max(0)
    middle, extent = (low + high) / 2, max(float(np.max(high - low)) / 2, 1e-9)
    size = 0.09 * extent
    rim = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = np.concatenate(
        [drawing.half_fields[:, None] * rim, np.ones((len(centres), 4, 1))], axis=2
    ) / np.linalg.norm(drawing.half_fields, axis=1).reshape(-1, 1, 1)
    pyramids = np.concatenate([np.zeros((len(centres), 1, 3)), corners * size], axis=1)
    pyramids = np.einsum("nkj,nji->nki", pyramids, rotation) + centres[:, None]
    return (drawing.points @ frame.T - middle) / extent, (pyramids @ frame.T - middle) / extent


def _upright_frame(up: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Rows: to the right, ahead, up."""
    length = np.linalg.norm(up)
    up = up / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    right = np.cross(ahead, up)
    if np.linalg.norm(right) < 1e-6:
        right = np.cross([1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0], up)
    right = right / np.linalg.norm(right)
    return np.stack([right, np.cross(up, right), up])


def _plan(
    points: np.ndarray,
    colours: np.ndarray,
    pyramids: np.ndarray,
    marked: Bool[np.ndarray, " n"],
    axes: tuple[int, int],
    title: str,
) -> str:
    """A flat view along one axis; the points as a picture, so that the page stays light."""
    side = 440
    limit = max(1.15, float(np.abs(pyramids[..., axes]).max()) * 1.04)
    canvas = np.full((side, side, 3), STAGE, np.uint8)
    cells = np.floor((points[:, axes] / limit * (1, -1) + 1) * side / 2).astype(int)
    inside = ((cells >= 0) & (cells < side)).all(1)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        columns, rows = np.minimum(cells[inside] + shift, side - 1).T
        canvas[rows, columns] = colours[inside]
    flat = (pyramids[..., axes] / limit * (1, -1) + 1) * side / 2
    bright = marked if marked.any() else ~marked
    lines = "".join(
        f'<g stroke="{stroke}">{"".join(map(_outline, flat[mask]))}</g>'
        for stroke, mask in ((QUIET, ~bright), (MARKED, bright))
    )
    return (
        f'<figure><svg viewBox="0 0 {side} {side}" role="img" aria-label="{title}">'
        f'<image href="{encode_jpeg(Image.fromarray(canvas), 90)}" width="{side}" height="{side}"/>'
        f'<g fill="none" stroke-width="1.2">{lines}</g></svg>'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _outline(corners: np.ndarray) -> str:
    eye, *rim = (f"{x:.1f} {y:.1f}" for x, y in corners)
    spokes = "".join(f"M{eye}L{corner}" for corner in rim)
    return f'<path d="{spokes}M{"L".join(rim)}Z"/>'
