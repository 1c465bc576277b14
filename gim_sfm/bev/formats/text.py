"""Text files with one point a line and no header to speak of."""

from pathlib import Path

from gim_sfm.bev.formats.records import cloud_of_columns, read_table
from gim_sfm.bev.formats.refusals import broken, cut_short
from gim_sfm.bev.pointcloud import PointCloud

_WITH_INTENSITY = (4, 7)
"""Columns of files whose fourth is the intensity: x y z i, x y z i r g b. Others have normals or colours."""


def read_xyz(path: Path) -> PointCloud:
    """Reads lines of x, y, z and more, parted by blanks; '#' begins a comment.

    Raises:
        InputError: A line has fewer values than the first, or something that is no number.
    """
    return cloud_of_columns([*read_table(path, _columns(path, skipped=0)).T])


def read_pts(path: Path) -> PointCloud:
    """As `read_xyz`, after a first line with the number of points.

    Raises:
        InputError: The first line is no number, or the file holds fewer points.
    """
    with path.open("rb") as file:
        first = file.readline(100).split()
    if len(first) != 1 or not first[0].isdigit():
        raise broken(path, "its first line is not the number of points")
    rows = int(first[0])
    table = read_table(path, _columns(path, skipped=1) if rows else (0, 1, 2), rows, skipped=1)
    if len(table) < rows:
        raise cut_short(path, rows, len(table))
    return cloud_of_columns([*table.T])


def _columns(path: Path, skipped: int) -> range:
    with path.open("rb") as file:
        lines = (line.split(b"#")[0].split() for line in list(file.readlines(100_000))[skipped:])
        width = next((len(values) for values in lines if values), 0)
    if width < 3:
        raise broken(path, f"its first line has {width} values instead of x, y and z")
    return range(4 if width in _WITH_INTENSITY else 3)
