"""The points of a COLMAP model: points3D.bin or points3D.txt of its folder.

Read here rather than by pycolmap, which takes a cut file for an endless one and fills the memory, and which
would read all cameras, photos and observations, too.
"""

import re
import struct
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, Num

from gim_sfm.bev.formats.records import read_table
from gim_sfm.bev.formats.refusals import broken, cut_short
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError

_COUNT = struct.Struct("<Q")
_POSITION_AT = 8
_TRACK_AT = 43
"""Behind the id (8 bytes), the position (24), the colour (3) and the error (8)."""
_OBSERVATION = 8
_SMALLEST = _TRACK_AT + _COUNT.size


def read_model_points(path: Path) -> PointCloud:
    """Reads the 3D points of a COLMAP model folder, in the model's own unit and frame, without intensity.

    Raises:
        InputError: The folder holds no such file, or it is damaged.
    """
    binary, text = path / "points3D.bin", path / "points3D.txt"
    if binary.exists():
        return PointCloud.of(_read_binary(binary))
    if text.exists():
        return PointCloud.of(_read_text(text))
    raise InputError(
        f"{path} holds no COLMAP model: neither points3D.bin nor points3D.txt is in it",
        remedy="give the folder in which they lie, often sparse/0, or one file with a point cloud",
    )


def _read_binary(path: Path) -> Float64[np.ndarray, "n 3"]:
    data = path.read_bytes()
    starts = _record_starts(path, data)
    positions = (starts + _POSITION_AT)[:, None] + np.arange(24)
    return np.frombuffer(data, np.uint8)[positions].view("<f8").astype(np.float64)


def _read_text(path: Path) -> Num[np.ndarray, "n 3"]:
    with path.open("rb") as file:
        told = re.search(rb"# Number of points: (\d+)", file.read(1000))
    positions = read_table(path, (1, 2, 3))
    if told and len(positions) < int(told[1]):
        raise cut_short(path, int(told[1]), len(positions))
    return positions


def _record_starts(path: Path, data: bytes) -> Int64[np.ndarray, " n"]:
    """Where each record begins; it takes a walk, since each tells only its own length."""
    if len(data) < _COUNT.size:
        raise broken(path, f"it has {len(data)} bytes")
    (count,) = _COUNT.unpack_from(data)
    if _COUNT.size + count * _SMALLEST > len(data):
        raise cut_short(path, count, (len(data) - _COUNT.size) // _SMALLEST)
    starts = np.empty(count, np.int64)
    at, last = _COUNT.size, len(data) - _SMALLEST
    for row in range(count):
        if at > last:
            raise cut_short(path, count, row)
        starts[row] = at
        at += _SMALLEST + _OBSERVATION * _COUNT.unpack_from(data, at + _TRACK_AT)[0]
    if at > len(data):
        raise cut_short(path, count, count - 1)
    return starts
