"""OUTPUT.html: where each query was taken, what it was recognised by, or why it was not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pycolmap

from gim_sfm.sfm.localization.answers import PAGE_TITLE, Row, is_localized
from gim_sfm.sfm.report_elements import (
    assemble_page,
    read_thumbnails,
    render_circumstances,
    render_header,
    render_settings,
    render_table,
    write_count,
    write_number,
)
from gim_sfm.sfm.report_scene import Drawing, half_field, render_scene

NAMED = 5
"""Photos of the map that are named for each query."""

HEADS = (
    '<th></th><th>Photo</th><th>State</th><th class="n">Inliers</th><th class="n">Sightings</th>'
    '<th class="n">Error, px</th><th class="n">Position &plusmn;</th><th class="n">Turn &plusmn;</th>'
    "<th>Focal length</th><th>Recognised by</th>"
)
LEGEND = (
    "Sightings: places in the photo that show points of the model. Inliers: those that agree with its pose; "
    "some of them are the dots. Position, turn: standard deviations, in units of the model and in degrees. "
    "Recognised by: the photos of the model that told most of the inliers, with their number."
)


def render_page(rows: Mapping[str, Row], facts: Row, map: Drawing, photos: Path) -> str:
    """The answers as one self-contained HTML page.

    Args:
        rows: One for each query, as `answers` writes them.
        facts: `map`, `matching`, `settings`, `machine` and `versions`.
        map: The cameras and points of the model.
        photos: Folder of the queries, for thumbnails; those that cannot be read get an empty frame.

    Returns:
        HTML text. Names are escaped: a photo's name can be anything.
    """
    localized = {name: row for name, row in rows.items() if is_localized(row)}
    title = f"{len(localized)} of {len(rows)} {PAGE_TITLE}"
    note = f"In {facts['map']}, by {facts['matching']['matcher']}."
    body = [
        render_header(title, [note], _figures(localized, map), complete=len(localized) == len(rows)),
        render_scene(_with_queries(map, localized), marked="queries", others="photos of the model"),
        _table(rows, photos),
        render_circumstances(facts),
        render_settings({"matching": facts["matching"], "localization": facts["settings"]}),
    ]
    return assemble_page(title, body)


def _figures(localized: Mapping[str, Row], map: Drawing) -> list[tuple[str, str]]:
    def median(key: str) -> float | None:
        values = [row[key] for row in localized.values() if row[key] is not None]
        return float(np.median(values)) if values else None

    error = median("reprojection_error_px")
    return [
        (write_count(len(map.names)), "photos of the model"),
        (write_count(median("inliers")), "inliers of a query, median"),
        ("-" if error is None else f"{error:.2f} px", "reprojection error, median"),
        (_deviation(median("position_deviation")), "deviation of a position in units of the model, median"),
        (f"{_deviation(median('turn_deviation_degrees'))}&deg;", "deviation of an orientation, median"),
    ]


def _with_queries(map: Drawing, localized: Mapping[str, Row]) -> Drawing:
    """The map with the queries marked in it."""
    if not localized:
        return map
    return replace(
        map,
        names=(*map.names, *localized),
        cam_from_world=np.concatenate(
            [map.cam_from_world, [np.array(row["cam_from_world"]) for row in localized.values()]]
        ),
        half_fields=np.concatenate(
            [map.half_fields, [half_field(_camera(row)) for row in localized.values()]]
        ),
        marked=np.concatenate([map.marked, np.ones(len(localized), np.bool_)]),
    )


def _table(rows: Mapping[str, Row], photos: Path) -> str:
    """All queries, those that were not localized first."""
    ordered = sorted(rows, key=lambda name: is_localized(rows[name]))
    thumbnails = read_thumbnails(ordered, photos)
    body = "".join(_query(name, rows[name], thumbnails.get(name, "")) for name in ordered)
    return f"<section><h2>Photos</h2>{render_table(HEADS, body)}<figcaption>{LEGEND}</figcaption></section>"


def _query(name: str, row: Row, thumbnail: str) -> str:
    """One row of the table; one that was not localized tells why across all columns."""
    cells = _found(row) if is_localized(row) else _lost(row)
    picture = _picture(row, thumbnail)
    return f'<tr><td class="seen">{picture}</td><td class="name">{escape(name)}</td>{cells}</tr>'


def _found(row: Row) -> str:
    best = sorted(row["photos"], key=lambda photo: -photo["inliers"])[:NAMED]
    named = "<br>".join(
        f"{escape(photo['name'])} ({write_count(photo['inliers'])})" for photo in best if photo["inliers"]
    )
    numbers = [
        write_count(row["inliers"]),
        write_count(row["sightings"]),
        write_number(row["reprojection_error_px"], 2),
        _deviation(row["position_deviation"]),
        f"{_deviation(row['turn_deviation_degrees'])}&deg;",
    ]
    return (
        '<td><span class="badge good">localized</span></td>'
        + "".join(f'<td class="n">{number}</td>' for number in numbers)
        + f'<td class="list">{_focal(_camera(row))}<p class="soft">{escape(str(row["intrinsics"]))}</p></td>'
        f'<td class="list soft">{named}</td>'
    )


def _lost(row: Row) -> str:
    compared: Sequence[str] = row.get("compared_with", ())
    more = [f"and {len(compared) - NAMED} more"] if len(compared) > NAMED else []
    told = f"Compared with {', '.join([*compared[:NAMED], *more])}"
    partners = f'<p class="soft">{escape(told)}</p>' if compared else ""
    return (
        '<td><span class="badge bad">not localized</span></td><td class="why" colspan="7">'
        f'<p>{escape(str(row["reason"]))}</p><p class="soft">{escape(str(row["remedy"]))}</p>{partners}</td>'
    )


def _picture(row: Row, thumbnail: str) -> str:
    """The photo with its inliers as dots; an empty frame where there is no thumbnail."""
    places: Sequence[Sequence[int]] = row.get("places", ())
    if not thumbnail:
        return "<i></i>"
    if not places:
        return f'<img alt="" src="{thumbnail}">'
    width, height = row["width"], row["height"]
    dots = "".join(f"M{x} {y}h0" for x, y in places)
    return (
        f'<svg viewBox="0 0 {width} {height}"><image href="{thumbnail}" width="{width}" height="{height}"/>'
        f'<path stroke-width="{max(width, height) / 45:.1f}" d="{dots}"/></svg>'
    )


def _camera(row: Row) -> pycolmap.Camera:
    return pycolmap.Camera({key: row[key] for key in ("model", "width", "height", "params")})


def _focal(camera: pycolmap.Camera) -> str:
    return "-" if camera.is_spherical() else f"{camera.mean_focal_length():.0f} px"


def _deviation(value: float | None) -> str:
    """Two digits that count."""
    return "-" if value is None else f"{value:.2g}"
