"""Clouds kept as a header and records, one a point: PLY and PCD files, structured NumPy arrays."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num, Shaped

from gim_sfm.bev.formats.refusals import broken, cut_short
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

COORDINATES = ("x", "y", "z")
INTENSITIES = ("intensity", "scalar_intensity", "reflectance", "scalar_reflectance", "reflectivity")
"""Names, in lower case, under which intensity is found; the first that is there counts."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Attributes:
        name: In lower case.
        kind: Of one value, with its byte order.
        count: Values; only fields of one are coordinates or intensities.
    """

    name: str
    kind: np.dtype
    count: int = 1

    @property
    def size(self) -> int:
        """Bytes."""
        return self.kind.itemsize * self.count


@dataclass(frozen=True, slots=True)
class Layout:
    """How the records of a file lie.

    Attributes:
        fields: In the order of the file.
        rows: Records promised.
        start: Bytes before the first.
    """

    fields: tuple[Field, ...]
    rows: int
    start: int

    @property
    def record_size(self) -> int:
        """Bytes of a binary record."""
        return sum(field.size for field in self.fields)

    def offset(self, index: int) -> int:
        """Bytes of a record before this field."""
        return sum(field.size for field in self.fields[:index])

    def column(self, index: int) -> int:
        """Values of a record before this field."""
        return sum(field.count for field in self.fields[:index])


def chosen(path: Path, fields: Sequence[Field]) -> tuple[int, ...]:
    """Which fields are x, y, z and, if there is one, the intensity.

    Raises:
        InputError: A coordinate is missing or has several values.
    """
    names = [field.name for field in fields if field.count == 1]
    if not set(COORDINATES) <= set(names):
        raise InputError(
            f"{path} holds no coordinates x, y and z, but {', '.join(f.name for f in fields) or 'nothing'}",
            remedy="export the cloud with fields named x, y and z",
        )
    single = {field.name: index for index, field in reversed(list(enumerate(fields))) if field.count == 1}
    intensity = next((name for name in INTENSITIES if name in single), None)
    return tuple(single[name] for name in (*COORDINATES, *([intensity] if intensity else [])))


def cloud_of_columns(columns: Sequence[Num[np.ndarray, " n"]]) -> PointCloud:
    """The cloud of the columns x, y, z and, as a fourth, the intensity."""
    small = all(column.dtype.kind == "f" and column.dtype.itemsize <= 4 for column in columns[:3])
    coordinates = np.empty((len(columns[0]), 3), np.float32 if small else np.float64)
    for axis, column in enumerate(columns[:3]):
        coordinates[:, axis] = column
    return PointCloud.of(coordinates, columns[3] if len(columns) > 3 else None)


def read_binary(path: Path, layout: Layout) -> PointCloud:
    """Reads records that follow each other byte by byte.

    Raises:
        InputError: The file is cut short or has no coordinates.
    """
    picked = chosen(path, layout.fields)
    held = (path.stat().st_size - layout.start) // layout.record_size
    if held < layout.rows:
        raise cut_short(path, layout.rows, held)
    record = np.dtype(
        {
            "names": [str(index) for index in picked],
            "formats": [layout.fields[index].kind for index in picked],
            "offsets": [layout.offset(index) for index in picked],
            "itemsize": layout.record_size,
        }
    )
    records: Shaped[np.ndarray, " n"] = np.fromfile(path, record, layout.rows, offset=layout.start)
    return cloud_of_columns([records[str(index)] for index in picked])


def read_text(path: Path, layout: Layout, *, skipped: int = 0) -> PointCloud:
    """Reads records of one line each, values parted by blanks.

    Args:
        path: The file.
        layout: Its header.
        skipped: Lines between the header and the first record.

    Raises:
        InputError: The file is cut short, has no coordinates, or something in it is no number.
    """
    picked = chosen(path, layout.fields)
    table = read_table(
        path, [layout.column(i) for i in picked], layout.rows, start=layout.start, skipped=skipped
    )
    if len(table) < layout.rows:
        raise cut_short(path, layout.rows, len(table))
    return cloud_of_columns([*table.T])


def read_table(
    path: Path, columns: Sequence[int], rows: int | None = None, *, start: int = 0, skipped: int = 0
) -> Num[np.ndarray, "n k"]:
    """Reads columns of a text file, parted by blanks; '#' begins a comment.

    Args:
        path: The file.
        columns: Which.
        rows: At most so many rows; None: all.
        start: Bytes to pass over.
        skipped: Lines to pass over after them.

    Raises:
        InputError: Something in it is no number, or a line is too short.
    """
    if rows == 0:
        return np.empty((0, len(columns)))
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of files without a row, which are told from others here
        file.seek(start)
        text = io.TextIOWrapper(file, encoding="latin-1")
        try:
            return np.loadtxt(text, usecols=columns, max_rows=rows, skiprows=skipped, ndmin=2)
        except ValueError as error:
            raise broken(path, str(error)) from error
