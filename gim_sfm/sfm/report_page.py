"""report.html: one file with everything in it, for a browser without a network."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from gim_sfm.sfm.report_elements import (
    Row,
    assemble_page,
    read_thumbnails,
    render_bars,
    render_circumstances,
    render_header,
    render_settings,
    render_table,
    write_count,
    write_duration,
    write_number,
    write_parameters,
)
from gim_sfm.sfm.report_scene import Drawing, render_scene

DRAWN_PAIRS = 20_000


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
        render_scene(drawing, marked="the photos that joined", others="those that were there"),
        _photo_table(report["photos"], photos),
        f'<div class="columns">{_track_chart(summary)}{_pair_matrix(report)}</div>',
        _cameras(report),
        _models(report["models"]),
        f'<div class="columns">{_timings(report)}{render_circumstances(report)}</div>',
        render_settings(report["recipe"]),
    ]
    return assemble_page(title, body)


def _header(title: str, report: Row) -> str:
    summary = report["summary"]
    error, ratio, tracks = summary["reprojection_error"], summary["inlier_ratio"], report.get("tracks")
    figures = [
        (write_count(summary["points"]), "points"),
        (write_number(summary["mean_track_length"], 2), "photos see a point on average"),
        (f"{write_number(error['mean'], 2)} px" if error else "-", "mean reprojection error"),
        (f"{summary['verified_pairs']} / {summary['pairs']}", "pairs verified"),
        (f"{100 * tracks['of_three']:.0f} %" if tracks else "-", "of matched tracks reach three photos"),
        (f"{100 * ratio['median']:.0f} %" if ratio else "-", "inliers of a verified pair, median"),
        (write_duration(summary["seconds"]), "wall time"),
    ]
    complete = summary["registered"] == summary["total"]
    return render_header(title, map(str, report["notes"]), figures, complete=complete)


def _photo_table(rows: Sequence[Row], photos: Path) -> str:
    """All photos, those with something wrong first."""
    ordered = sorted(rows, key=lambda row: bool(row["registered"]))
    thumbnails = read_thumbnails((str(row["name"]) for row in ordered), photos)
    heads = (
        '<th></th><th>Photo</th><th>State</th><th class="n">Keypoints</th><th class="n">Pairs verified</th>'
        '<th class="n">Matches</th><th class="n">Verified</th><th class="n">Inliers</th>'
        '<th class="n">Observations</th><th class="n">Error, px</th><th class="n">Camera</th>'
    )
    body = "".join(_photo_row(row, thumbnails.get(str(row["name"]), "")) for row in ordered)
    return f"<section><h2>Photos</h2>{render_table(heads, body)}</section>"


def _photo_row(row: Row, thumbnail: str) -> str:
    picture = f'<img alt="" src="{thumbnail}">' if thumbnail else "<i></i>"
    tone = "good" if row["registered"] else "bad"
    ratio = row["inlier_ratio"]
    numbers = [
        write_count(row["keypoints"]),
        f"{row['verified_pairs']} / {row['pairs']}",
        write_count(row["matches"]),
        write_count(row["inliers"]),
        "-" if ratio is None else f"{100 * ratio:.0f} %",
        write_count(row["observations"]),
        write_number(row["reprojection_error"], 2),
        "-" if row["camera_id"] is None else str(row["camera_id"]),
    ]
    why = f'<p class="soft">{escape(str(row["reason"]))}</p>' if row["reason"] else ""
    return (
        f'<tr><td class="thumb">{picture}</td><td class="name">{escape(str(row["name"]))}</td>'
        f'<td class="{"why" if why else ""}"><span class="badge {tone}">{escape(str(row["status"]))}</span>'
        f"{why}</td>" + "".join(f'<td class="n">{number}</td>' for number in numbers) + "</tr>"
    )


def _track_chart(summary: Row) -> str:
    counts = {int(length): int(count) for length, count in summary["track_lengths"].items()}
    if not counts:
        return ""
    longest = 16
    bars = {str(length): counts.get(length, 0) for length in range(2, min(longest, max(counts)) + 1)}
    if (rest := sum(count for length, count in counts.items() if length > longest)) > 0:
        bars[f">{longest}"] = rest
    return f"<section><h2>Photos that see a point</h2>{render_bars(bars)}</section>"


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
        f"<td><code>{escape(write_parameters(row['params']))}</code></td></tr>"
        for row in report["cameras"]
    )
    if not rows:
        return ""
    heads = (
        '<th class="n">Camera</th><th>Model</th><th class="n">Size</th><th class="n">Photos</th>'
        "<th>Parameters</th>"
    )
    return (
        f"<section><h2>Cameras</h2>{render_table(heads, rows)}{_calibration(report['calibration'])}</section>"
    )


def _calibration(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    told = "".join(
        f'<tr><td class="n">{escape(str(row.get("camera_id", "")))}</td>'
        f"<td>{escape(str(row.get('verdict', '')))}</td>"
        f"<td><code>{escape(write_parameters(row.get('before')))}</code></td>"
        f"<td><code>{escape(write_parameters(row.get('after')))}</code></td></tr>"
        for row in rows
    )
    heads = '<th class="n">Camera</th><th>Self-calibration</th><th>Before</th><th>After</th>'
    return f'<div style="margin-top:14px">{render_table(heads, told)}</div>'


def _models(rows: Sequence[Row]) -> str:
    if len(rows) < 2:
        return ""
    body = "".join(
        f"<tr><td><code>{escape(str(row['folder']))}</code>{' <b>best</b>' if row['best'] else ''}</td>"
        f'<td class="n">{row["seed"]}</td><td class="n">{row["registered"]}</td>'
        f'<td class="n">{write_count(row["points"])}</td>'
        f'<td class="n">{write_number(row["reprojection_error"], 3)}</td></tr>'
        for row in rows
    )
    heads = (
        '<th>Model</th><th class="n">Seed</th><th class="n">Photos</th><th class="n">Points</th>'
        '<th class="n">Error, px</th>'
    )
    return f"<section><h2>Models</h2>{render_table(heads, body)}</section>"


def _timings(report: Row) -> str:
    timings: Mapping[str, float] = report["timings_s"]
    if not timings:
        return ""
    inside: Mapping[str, float] = report["network_s"]
    text = {
        stage: write_duration(seconds)
        + (f" ({write_duration(inside[stage])} in it)" if stage in inside else "")
        for stage, seconds in timings.items()
    }
    note = '<figcaption>"in it": inside networks and pycolmap.</figcaption>' if inside else ""
    return f"<section><h2>Time</h2>{render_bars(timings, text)}{note}</section>"
