"""report.html: one file with everything in it, for a browser without a network."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from gim_sfm.errors import GimSfmError
from gim_sfm.images import read_photo
from gim_sfm.sfm.report_style import SCRIPT, STYLE

DRAWN_POINTS = 12_000
DRAWN_PAIRS = 20_000
THUMBNAILS = 300
"""More than these only make the page heavy."""

THUMBNAIL_WIDTH = 192
STAGE = (16, 20, 27)
"""Behind the points; the same as in the page's style."""

READING_THREADS = 4

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drawing:
    """What the three-dimensional views show, in world units.

    Attributes:
        names: Registered photos.
        cam_from_world: Their poses, x_cam = R x_world + t.
        half_fields: Half width and half height of their images at distance 1.
        points: Points of the model.
        colours: Their colours, RGB; all black where COLMAP has none.
    """

    names: tuple[str, ...]
    cam_from_world: Float64[np.ndarray, "n 3 4"]
    half_fields: Float64[np.ndarray, "n 2"]
    points: Float64[np.ndarray, "m 3"]
    colours: UInt8[np.ndarray, "m 3"]


NOTHING_TO_DRAW = Drawing(
    (), np.zeros((0, 3, 4)), np.zeros((0, 2)), np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
)


def render_page(report: Row, drawing: Drawing, photos: Path) -> str:
    """The report as one self-contained HTML page.

    Args:
        report: What `build_report` returned.
        drawing: What to show in three dimensions.
        photos: Folder of the photos, for thumbnails; photos that cannot be read get an empty frame.

    Returns:
        HTML text. Names are escaped: a photo's name can be anything.
    """
    summary = report["summary"]
    title = f"{summary['registered']} of {summary['total']} photos registered"
    body = [
        _header(title, report),
        _scene(drawing),
        _photo_table(report["photos"], photos),
        f'<div class="columns">{_track_chart(summary)}{_pair_matrix(report)}</div>',
        _cameras(report),
        _models(report["models"]),
        f'<div class="columns">{_timings(report)}{_circumstances(report)}</div>',
        _settings(report["recipe"]),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def _header(title: str, report: Row) -> str:
    summary = report["summary"]
    complete = summary["registered"] == summary["total"]
    error, ratio, tracks = summary["reprojection_error"], summary["inlier_ratio"], report.get("tracks")
    figures = [
        (_count(summary["points"]), "points"),
        (_number(summary["mean_track_length"], 2), "photos see a point on average"),
        (f"{_number(error['mean'], 2)} px" if error else "-", "mean reprojection error"),
        (f"{summary['verified_pairs']} / {summary['pairs']}", "pairs verified"),
        (f"{100 * tracks['of_three']:.0f} %" if tracks else "-", "of matched tracks reach three photos"),
        (f"{100 * ratio['median']:.0f} %" if ratio else "-", "inliers of a verified pair, median"),
        (_duration(summary["seconds"]), "wall time"),
    ]
    cards = "".join(f'<div class="figure"><b>{value}</b><span>{what}</span></div>' for value, what in figures)
    notes = "".join(f'<p class="soft">{escape(str(note))}</p>' for note in report["notes"])
    return (
        f'<header><h1 class="{"good" if complete else "bad"}">{escape(title)}</h1>{notes}'
        f'<div class="figures">{cards}</div></header>'
    )


def _scene(drawing: Drawing) -> str:
    if not drawing.names:
        return "<section><h2>Cameras and points</h2><p>No model came of these photos.</p></section>"
    points, pyramids = _levelled(drawing)
    colours = _readable(drawing.colours)
    data = {
        "names": drawing.names,
        "points": _packed(points.astype("<f4")),
        "colours": _packed(colours),
        "cameras": _packed(pyramids.astype("<f4")),
    }
    text = json.dumps(data).replace("<", "\\u003c")
    views = _plan(points, colours, pyramids, (0, 1), "From above") + _plan(
        points, colours, pyramids, (0, 2), "From the side"
    )
    return (
        '<section><h2>Cameras and points <span class="soft" id="orbit-name"></span></h2>'
        '<canvas id="orbit"></canvas><figcaption>Drag to turn, wheel to zoom, shift and drag to move; '
        f'point at a camera for its name.</figcaption><div class="views">{views}</div>'
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
    """Points (m, 3) and camera pyramids (n, 5, 3: eye and four corners), z up, most of them within +-1.

    Up is what photographers hold upwards on average.
    """
    rotation = drawing.cam_from_world[:, :, :3]
    centres = -np.einsum("nji,nj->ni", rotation, drawing.cam_from_world[:, :, 3])
    frame = _upright_frame(-rotation[:, 1].mean(0), rotation[:, 2].mean(0))
    everything = np.concatenate([centres, drawing.points]) @ frame.T
    low, high = np.percentile(everything, (4, 96), axis=0)
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
    points: np.ndarray, colours: np.ndarray, pyramids: np.ndarray, axes: tuple[int, int], title: str
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
    lines = "".join(_outline(corners) for corners in flat)
    return (
        f'<figure><svg viewBox="0 0 {side} {side}" role="img" aria-label="{title}">'
        f'<image href="{_jpeg(Image.fromarray(canvas), 90)}" width="{side}" height="{side}"/>'
        f'<g fill="none" stroke="#ff8a4c" stroke-width="1.2">{lines}</g></svg>'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _outline(corners: np.ndarray) -> str:
    eye, *rim = (f"{x:.1f} {y:.1f}" for x, y in corners)
    spokes = "".join(f"M{eye}L{corner}" for corner in rim)
    return f'<path d="{spokes}M{"L".join(rim)}Z"/>'


def _jpeg(picture: Image.Image, quality: int) -> str:
    """A data address. Not PNG: where pycolmap was imported before zlib, compressing with zlib crashes."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _photo_table(rows: Sequence[Row], photos: Path) -> str:
    """All photos, those with something wrong first."""
    ordered = sorted(rows, key=lambda row: bool(row["registered"]))
    pictured = [str(row["name"]) for row in ordered[:THUMBNAILS]]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        thumbnails = dict(
            zip(pictured, pool.map(lambda name: _thumbnail(photos / name), pictured), strict=True)
        )
    heads = (
        '<th></th><th>Photo</th><th>State</th><th class="n">Keypoints</th><th class="n">Pairs verified</th>'
        '<th class="n">Matches</th><th class="n">Verified</th><th class="n">Inliers</th>'
        '<th class="n">Observations</th><th class="n">Error, px</th><th class="n">Camera</th>'
    )
    body = "".join(_photo_row(row, thumbnails.get(str(row["name"]), "")) for row in ordered)
    return f"<section><h2>Photos</h2>{_table(heads, body)}</section>"


def _photo_row(row: Row, thumbnail: str) -> str:
    picture = f'<img alt="" src="{thumbnail}">' if thumbnail else "<i></i>"
    tone = "good" if row["registered"] else "bad"
    ratio = row["inlier_ratio"]
    numbers = [
        _count(row["keypoints"]),
        f"{row['verified_pairs']} / {row['pairs']}",
        _count(row["matches"]),
        _count(row["inliers"]),
        "-" if ratio is None else f"{100 * ratio:.0f} %",
        _count(row["observations"]),
        _number(row["reprojection_error"], 2),
        "-" if row["camera_id"] is None else str(row["camera_id"]),
    ]
    why = f'<p class="soft">{escape(str(row["reason"]))}</p>' if row["reason"] else ""
    return (
        f'<tr><td class="thumb">{picture}</td><td class="name">{escape(str(row["name"]))}</td>'
        f'<td class="{"why" if why else ""}"><span class="badge {tone}">{escape(str(row["status"]))}</span>'
        f"{why}</td>" + "".join(f'<td class="n">{number}</td>' for number in numbers) + "</tr>"
    )


def _thumbnail(path: Path) -> str:
    """The photo in small as a data address; empty where it cannot be read."""
    try:
        pixels = read_photo(path, longest=THUMBNAIL_WIDTH).pixels
    except GimSfmError:
        return ""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
    return _jpeg(picture, 72)


def _track_chart(summary: Row) -> str:
    counts = {int(length): int(count) for length, count in summary["track_lengths"].items()}
    if not counts:
        return ""
    longest = 16
    bars = {str(length): counts.get(length, 0) for length in range(2, min(longest, max(counts)) + 1)}
    if (rest := sum(count for length, count in counts.items() if length > longest)) > 0:
        bars[f">{longest}"] = rest
    return f"<section><h2>Photos that see a point</h2>{_bars(bars)}</section>"


def _bars(values: Mapping[str, float], text: Mapping[str, str] | None = None) -> str:
    """A bar chart lying on its side, one bar a row."""
    peak = max(values.values(), default=0) or 1
    step, left, room = 24, 150 if text else 44, 250
    parts = []
    for index, (label, value) in enumerate(values.items()):
        y = index * step
        width = room * value / peak
        told = text[label] if text else _count(value)
        parts.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{width:.1f}" height="{step - 8}" rx="2"/>'
            f'<text class="value" x="{left + width + 6:.1f}" y="{y + 16}">{escape(told)}</text>'
        )
    return (
        f'<svg width="100%" viewBox="0 0 {left + room + 90} {len(values) * step + 4}">{"".join(parts)}</svg>'
    )


def _pair_matrix(report: Row) -> str:
    """Verified matches between any two photos, darker for more."""
    names = [str(row["name"]) for row in report["photos"]]
    if len(names) < 2 or not report["pairs"]:
        return ""
    place = {name: index for index, name in enumerate(names)}
    cell = max(1.0, min(26.0, 400 / len(names)))
    pairs = sorted(report["pairs"], key=lambda pair: -int(pair["inliers"]))[:DRAWN_PAIRS]
    peak = np.log1p(max(int(pair["inliers"]) for pair in pairs)) or 1.0
    parts = []
    for pair in pairs:
        first, second = (str(name) for name in pair["names"])
        strength = float(np.log1p(pair["inliers"]) / peak)
        told = f"{first} - {second}: {pair['inliers']} of {pair['matches']} matches verified"
        kind = "cell" if pair["inliers"] else "empty"
        opacity = f' fill-opacity="{0.12 + 0.88 * strength**3:.2f}"' if pair["inliers"] else ""
        for row, column in ((place[first], place[second]), (place[second], place[first])):
            parts.append(
                f'<rect class="{kind}" x="{column * cell:.1f}" y="{row * cell:.1f}" width="{cell * 0.94:.2f}"'
                f' height="{cell * 0.94:.2f}"{opacity}><title>{escape(told)}</title></rect>'
            )
    side = cell * len(names)
    return (
        "<section><h2>Verified matches between photos</h2>"
        f'<svg viewBox="0 0 {side:.0f} {side:.0f}" style="width:100%;max-width:420px">{"".join(parts)}</svg>'
        "<figcaption>Rows and columns are the photos in the order of their names; point at a cell for its "
        "figures. Grey: compared, but not one geometry.</figcaption></section>"
    )


def _cameras(report: Row) -> str:
    rows = "".join(
        f'<tr><td class="n">{row["camera_id"]}</td><td>{escape(str(row["model"]))}</td>'
        f'<td class="n">{row["width"]} x {row["height"]}</td><td class="n">{row["photos"]}</td>'
        f"<td><code>{escape(_parameters(row['params']))}</code></td></tr>"
        for row in report["cameras"]
    )
    if not rows:
        return ""
    heads = (
        '<th class="n">Camera</th><th>Model</th><th class="n">Size</th><th class="n">Photos</th>'
        "<th>Parameters</th>"
    )
    return f"<section><h2>Cameras</h2>{_table(heads, rows)}{_calibration(report['calibration'])}</section>"


def _table(heads: str, body: str) -> str:
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _calibration(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    told = "".join(
        f'<tr><td class="n">{escape(str(row.get("camera_id", "")))}</td>'
        f"<td>{escape(str(row.get('verdict', '')))}</td>"
        f"<td><code>{escape(_parameters(row.get('before')))}</code></td>"
        f"<td><code>{escape(_parameters(row.get('after')))}</code></td></tr>"
        for row in rows
    )
    heads = '<th class="n">Camera</th><th>Self-calibration</th><th>Before</th><th>After</th>'
    return f'<div style="margin-top:14px">{_table(heads, told)}</div>'


def _parameters(values: Any) -> str:
    """Camera parameters in short, named where their names are known."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {_parameters(value)}" for name, value in values.items())
    if isinstance(values, Sequence) and not isinstance(values, str):
        return ", ".join(_parameters(value) for value in values)
    return f"{values:.6g}" if isinstance(values, float) else str("" if values is None else values)


def _models(rows: Sequence[Row]) -> str:
    if len(rows) < 2:
        return ""
    body = "".join(
        f"<tr><td><code>{escape(str(row['folder']))}</code>{' <b>best</b>' if row['best'] else ''}</td>"
        f'<td class="n">{row["seed"]}</td><td class="n">{row["registered"]}</td>'
        f'<td class="n">{_count(row["points"])}</td>'
        f'<td class="n">{_number(row["reprojection_error"], 3)}</td></tr>'
        for row in rows
    )
    heads = (
        '<th>Model</th><th class="n">Seed</th><th class="n">Photos</th><th class="n">Points</th>'
        '<th class="n">Error, px</th>'
    )
    return f"<section><h2>Models</h2>{_table(heads, body)}</section>"


def _timings(report: Row) -> str:
    timings: Mapping[str, float] = report["timings_s"]
    if not timings:
        return ""
    inside: Mapping[str, float] = report["network_s"]
    text = {
        stage: _duration(seconds) + (f" ({_duration(inside[stage])} in it)" if stage in inside else "")
        for stage, seconds in timings.items()
    }
    note = '<figcaption>"in it": inside networks and pycolmap.</figcaption>' if inside else ""
    return f"<section><h2>Time</h2>{_bars(timings, text)}{note}</section>"


def _circumstances(report: Row) -> str:
    machine = report["machine"] | {"cores": f"{report['machine']['cores']} for this process"}
    rows = [*machine.items(), *report["versions"].items()]
    body = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in rows
    )
    return f"<section><h2>Made with</h2><table>{body}</table></section>"


def _settings(recipe: Row) -> str:
    if not recipe:
        return ""
    text = json.dumps(recipe, indent=2, ensure_ascii=False, default=str)
    return f"<section><details><summary>All settings</summary><pre>{escape(text)}</pre></details></section>"


def _count(value: float | None) -> str:
    """Whole numbers with thin gaps between thousands."""
    return "-" if value is None else f"{int(value):,}".replace(",", "\u202f")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
