"""What the pages of reports are put together from: the shell, tables, bars, thumbnails, figures."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from gim_sfm.errors import GimSfmError
from gim_sfm.images import read_photo
from gim_sfm.sfm.report_style import SCRIPT, STYLE

THUMBNAILS = 300
"""More than these only make the page heavy."""

THUMBNAIL_WIDTH = 192
READING_THREADS = 4

Row = Mapping[str, Any]


def assemble_page(title: str, body: Iterable[str]) -> str:
    """A whole page that needs no network, and cannot use any.

    Args:
        title: Plain text.
        body: Its sections, HTML; empty ones are passed over.
    """
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main><script>{SCRIPT}</script></body></html>\n"
    )


def render_header(
    title: str, notes: Iterable[str], figures: Iterable[tuple[str, str]], *, complete: bool
) -> str:
    """The head of a page.

    Args:
        title: Plain text.
        notes: Sentences, plain text.
        figures: What to show large, and what it is; HTML.
        complete: Whether all is well.
    """
    cards = "".join(f'<div class="figure"><b>{value}</b><span>{what}</span></div>' for value, what in figures)
    told = "".join(f'<p class="soft">{escape(note)}</p>' for note in notes)
    return (
        f'<header><h1 class="{"good" if complete else "bad"}">{escape(title)}</h1>{told}'
        f'<div class="figures">{cards}</div></header>'
    )


def render_table(heads: str, body: str) -> str:
    """A table from its cells, HTML."""
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def render_bars(values: Mapping[str, float], text: Mapping[str, str] | None = None) -> str:
    """A bar chart lying on its side, one bar a row."""
    peak = max(values.values(), default=0) or 1
    step, left, room = 24, 150 if text else 44, 250
    parts = []
    for index, (label, value) in enumerate(values.items()):
        y = index * step
        width = room * value / peak
        told = text[label] if text else write_count(value)
        parts.append(
            f'<text x="{left - 8}" y="{y + 16}" text-anchor="end">{escape(label)}</text>'
            f'<rect class="bar" x="{left}" y="{y + 4}" width="{width:.1f}" height="{step - 8}" rx="2"/>'
            f'<text class="value" x="{left + width + 6:.1f}" y="{y + 16}">{escape(told)}</text>'
        )
    return (
        f'<svg width="100%" viewBox="0 0 {left + room + 90} {len(values) * step + 4}">{"".join(parts)}</svg>'
    )


def read_thumbnails(names: Iterable[str], photos: Path) -> dict[str, str]:
    """The first photos in small, as data addresses by name; empty where one cannot be read."""
    pictured = list(names)[:THUMBNAILS]
    with ThreadPoolExecutor(READING_THREADS) as pool:
        return dict(zip(pictured, pool.map(lambda name: _thumbnail(photos / name), pictured), strict=True))


def _thumbnail(path: Path) -> str:
    """The photo in small as a data address; empty where it cannot be read."""
    try:
        pixels = read_photo(path, longest=THUMBNAIL_WIDTH).pixels
    except GimSfmError:
        return ""
    picture = Image.fromarray(pixels)
    picture.thumbnail((THUMBNAIL_WIDTH, THUMBNAIL_WIDTH))
    return encode_jpeg(picture, 72)


def encode_jpeg(picture: Image.Image, quality: int) -> str:
    """A data address. Not PNG: where pycolmap was imported before zlib, compressing with zlib crashes."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def render_circumstances(report: Row) -> str:
    """The `machine` and the `versions` that a report names."""
    machine = report["machine"] | {"cores": f"{report['machine']['cores']} for this process"}
    rows = [*machine.items(), *report["versions"].items()]
    body = "".join(
        f"<tr><td>{escape(str(key))}</td><td>{escape(str(value))}</td></tr>" for key, value in rows
    )
    return f"<section><h2>Made with</h2><table>{body}</table></section>"


def render_settings(recipe: Row) -> str:
    """All settings, folded up."""
    if not recipe:
        return ""
    text = json.dumps(recipe, indent=2, ensure_ascii=False, default=str)
    return f"<section><details><summary>All settings</summary><pre>{escape(text)}</pre></details></section>"


def write_parameters(values: Any) -> str:
    """Camera parameters in short, named where their names are known."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {write_parameters(value)}" for name, value in values.items())
    if isinstance(values, Sequence) and not isinstance(values, str):
        return ", ".join(write_parameters(value) for value in values)
    return f"{values:.6g}" if isinstance(values, float) else str("" if values is None else values)


def write_count(value: float | None) -> str:
    """Whole numbers with thin gaps between thousands."""
    return "-" if value is None else f"{int(value):,}".replace(",", "\u202f")


def write_number(value: float | None, digits: int) -> str:
    """With so many digits past the point."""
    return "-" if value is None else f"{value:.{digits}f}"


def write_duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever tell it best."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
