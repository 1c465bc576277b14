"""LAS and LAZ files of survey scanners, through laspy."""

import struct
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int32, UInt16

from gim_sfm.bev.formats.refusals import broken, cut_short
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

_CHUNK = 2_000_000
_NEEDED = {".las": ("laspy",), ".laz": ("laspy", "lazrs")}

_HEADER = struct.Struct("<4s 21x B 68x H I I B H I")
_EXTENSION = struct.Struct("<Q I Q")
_EXTENSION_AT = 235
_RECORD_HEADER, _EXTENDED_RECORD_HEADER = 54, 60
_COMPRESSED = 0x80


def read_las(path: Path) -> PointCloud:
    """Reads coordinates and intensities of a LAS or LAZ file.

    Coordinates are the file's integers times its scale plus its offset, in float64. The format has a
    place for intensities whether a scanner told them or not: where all are zero, there are none.

    Raises:
        InputError: It cannot be read, is cut short, or laspy (for LAZ also lazrs) is not installed.
    """
    laspy = _modules(path)[0]
    _require_whole(path)
    with laspy.open(path) as file:
        header = file.header
        integers = np.empty((header.point_count, 3), np.int32)
        intensity = np.empty(header.point_count, np.uint16)
        held = _fill(file.chunk_iterator(_CHUNK), integers, intensity)
    if held < header.point_count:
        raise cut_short(path, header.point_count, held)
    coordinates = integers * np.asarray(header.scales) + np.asarray(header.offsets)
    return PointCloud.of(coordinates, intensity if intensity.any() else None)


def _modules(path: Path) -> list[ModuleType]:
    try:
        return [import_module(name) for name in _NEEDED[path.suffix.lower()]]
    except ImportError as error:
        raise InputError(
            f"{path} cannot be read: {error.name} is not installed",
            remedy="pip install 'gim_sfm[bev]'",
        ) from error


def _fill(
    chunks: Iterable[Any], integers: Int32[np.ndarray, "n 3"], intensity: UInt16[np.ndarray, " n"]
) -> int:
    held = 0
    for chunk in chunks:
        rows = slice(held, held + len(chunk))
        for axis, name in enumerate("XYZ"):
            integers[rows, axis] = chunk[name]
        intensity[rows] = chunk["intensity"]
        held += len(chunk)
    return held


def _require_whole(path: Path) -> None:
    """Compares what the header promises with the length of the file.

    laspy counts through whatever a damaged header says, and lazrs ends the whole program over a chunk table
    that is cut off.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(375)
        if start[:4] != b"LASF" or len(start) < 227:
            raise broken(path, "it does not begin with the header of a LAS file")
        _, minor, header_size, data_at, records, kind, record_size, points = _HEADER.unpack_from(start)
        extended_at, extended = 0, 0
        if minor >= 4 and len(start) == 375:
            extended_at, extended, points = _EXTENSION.unpack_from(start, _EXTENSION_AT)
        if header_size + records * _RECORD_HEADER > data_at or not record_size:
            raise broken(path, "its header contradicts itself")
        if not kind & _COMPRESSED and data_at + points * record_size > size:
            raise cut_short(path, points, max(0, size - data_at) // record_size)
        if extended_at + extended * _EXTENDED_RECORD_HEADER > size:
            raise broken(path, "it is cut short before the records that follow its points")
        if kind & _COMPRESSED and points:
            _require_chunk_table(path, file, data_at, size)


def _require_chunk_table(path: Path, file: BinaryIO, data_at: int, size: int) -> None:
    """A LAZ file ends with the table of its chunks; it tells where that is at the first or its own end."""
    table_at = _integer(file, "<q", data_at)
    if table_at == -1:
        table_at = _integer(file, "<q", size - 8)
    if not data_at + 8 < table_at <= size - 8:
        raise broken(path, "it is cut short: the table of its compressed chunks is not there")
    if not 0 < _integer(file, "<I", table_at + 4) <= table_at - data_at:
        raise broken(path, "the table of its compressed chunks is damaged")


def _integer(file: BinaryIO, kind: str, at: int) -> int:
    file.seek(max(0, at))
    read = file.read(struct.calcsize(kind))
    return int(struct.unpack(kind, read)[0]) if len(read) == struct.calcsize(kind) else 0
