"""PCD files of the Point Cloud Library: ASCII, binary and compressed binary."""

import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gim_sfm.bev.formats.lzf import decompress
from gim_sfm.bev.formats.records import Field, Layout, chosen, cloud_of_columns, read_binary, read_text
from gim_sfm.bev.formats.refusals import broken, cut_short
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.files import replacing

log = logging.getLogger(__name__)

_KINDS = {"F": "f", "I": "i", "U": "u"}
_SIZES = {"F": (4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}
_IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
_LONGEST_LINE = 10_000
_KEYS = (
    *("VERSION", "FIELDS", "COLUMNS", "SIZE", "TYPE", "COUNT", "WIDTH"),
    *("HEIGHT", "VIEWPOINT", "POINTS", "DATA"),
)


@dataclass(frozen=True, slots=True)
class _Header:
    words: Mapping[str, list[str]]
    end: int


def read_pcd(path: Path) -> PointCloud:
    """Reads x, y, z and, where there is one, the intensity of a PCD file.

    Fields may come in any order, size and type. The pixels of organised clouds that saw nothing come as
    points that are not finite. The viewpoint is not applied: points stay in the frame they are written in.

    Raises:
        InputError: It is no PCD file, lacks coordinates, or is cut short.
    """
    header = _read_header(path)
    layout = _layout(path, header)
    _tell_viewpoint(path, header)
    return _BODIES[header.words["DATA"][0]](path, layout)


def write_pcd(path: Path, cloud: PointCloud) -> None:
    """Writes a binary PCD file, with coordinates in double where the origin is not zero."""
    size = 8 if cloud.origin.any() else 4
    values = cloud.coordinates if cloud.origin.any() else cloud.points
    columns = [*values.T, *([cloud.intensity] if cloud.intensity.size else [])]
    names, sizes = ["x", "y", "z", "intensity"][: len(columns)], [size, size, size, 4][: len(columns)]
    records = np.empty(len(cloud), [(n, f"<f{s}") for n, s in zip(names, sizes, strict=True)])
    for name, column in zip(names, columns, strict=True):
        records[name] = column
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(names)}",
        f"SIZE {' '.join(map(str, sizes))}",
        f"TYPE {' '.join('F' for _ in names)}",
        f"COUNT {' '.join('1' for _ in names)}",
        f"WIDTH {len(cloud)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(cloud)}",
        "DATA binary\n",
    ]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(lines).encode("ascii"))
        records.tofile(file)


def _read_header(path: Path) -> _Header:
    words: dict[str, list[str]] = {}
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
            key, *values = line.decode("latin-1").split() or ["#"]
            if key.startswith("#"):
                continue
            if key not in _KEYS:
                raise broken(path, f"its header has the line {line.decode('latin-1').strip()[:60]!r}")
            words[key] = values
            if key == "DATA":
                return _Header(words, file.tell())
    raise broken(path, "its header has no line DATA")


def _layout(path: Path, header: _Header) -> Layout:
    names = header.words.get("FIELDS", header.words.get("COLUMNS", []))
    kinds, sizes = header.words.get("TYPE", []), header.words.get("SIZE", [])
    counts = header.words.get("COUNT", ["1"] * len(names))
    try:
        fields = tuple(_field(*words) for words in zip(names, kinds, sizes, counts, strict=True))
        rows = int(header.words["POINTS"][0]) if "POINTS" in header.words else _area(header)
        known = header.words["DATA"][0] in _BODIES
    except (KeyError, IndexError, ValueError) as error:
        raise broken(path, f"its header is incomplete or contradicts itself ({error})") from error
    if not known or rows < 0:
        raise broken(path, f"its header promises {rows} points, DATA {header.words['DATA'][0]}")
    return Layout(fields, rows, header.end)


def _field(name: str, kind: str, size: str, count: str) -> Field:
    if int(size) not in _SIZES.get(kind, ()) or int(count) < 0:
        raise ValueError(f"field {name} has TYPE {kind}, SIZE {size}, COUNT {count}")
    return Field(name.lower(), np.dtype(f"<{_KINDS[kind]}{int(size)}"), int(count))


def _area(header: _Header) -> int:
    return int(header.words["WIDTH"][0]) * int(header.words.get("HEIGHT", ["1"])[0])


def _tell_viewpoint(path: Path, header: _Header) -> None:
    words = header.words.get("VIEWPOINT", [])
    if words and tuple(map(float, words)) != _IDENTITY:
        log.warning("%s has the viewpoint %s, which is not applied to its points", path, " ".join(words))


def _read_compressed(path: Path, layout: Layout) -> PointCloud:
    """Reads fields that follow each other, each for all points, packed as one LZF stream."""
    picked = chosen(path, layout.fields)
    size = layout.rows * layout.record_size
    with path.open("rb") as file:
        file.seek(layout.start)
        data = _packed(path, file, layout)
    if not layout.rows:
        return cloud_of_columns([np.empty(0, np.float32)] * 3)
    unpacked = decompress(data, size)
    return cloud_of_columns(
        [
            np.frombuffer(unpacked, layout.fields[i].kind, layout.rows, layout.rows * layout.offset(i))
            for i in picked
        ]
    )


def _packed(path: Path, file: BinaryIO, layout: Layout) -> bytes:
    sizes = file.read(8)
    if len(sizes) < 8:
        raise cut_short(path, layout.rows, 0)
    packed, unpacked = struct.unpack("<II", sizes)
    if unpacked != layout.rows * layout.record_size:
        raise broken(
            path, f"{layout.rows} points of {layout.record_size} bytes do not come to {unpacked} bytes"
        )
    data = file.read(packed)
    if len(data) < packed:
        raise broken(path, f"it is cut short: {len(data)} of {packed} compressed bytes are there")
    return data


_BODIES: Mapping[str, Callable[[Path, Layout], PointCloud]] = {
    "ascii": read_text,
    "binary": read_binary,
    "binary_compressed": _read_compressed,
}
