"""Clouds that are bare arrays: KITTI scans and NumPy files."""

import zlib
from pathlib import Path
from tokenize import TokenError
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Num, Shaped

from gim_sfm.bev.formats.records import Field, chosen, cloud_of_columns
from gim_sfm.bev.formats.refusals import broken
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import replacing

POINT_KEYS = ("points", "xyz", "arr_0")
"""Names of the points in an .npz file; the first that is there counts."""

_MODEL_FILES = ("cameras.bin", "frames.bin", "images.bin", "points3d.bin", "rigs.bin")
_NUMPY_ERRORS = (
    ValueError,
    EOFError,
    SyntaxError,
    TokenError,
    BadZipFile,
    zlib.error,
    AttributeError,
    TypeError,
)
_FAR_BEYOND = 1e9
_ROUNDING = 1e-3
_RINGS = 256
_SAMPLE = 50_000


def read_kitti(path: Path) -> PointCloud:
    """Reads float32 x, y, z, intensity, one point after the other and nothing else.

    Raises:
        InputError: The size of the file is no multiple of 16 bytes, or the values are no coordinates.
    """
    if path.name.lower() in _MODEL_FILES:
        raise InputError(f"{path} is part of a COLMAP model, no scan", remedy="give the folder it lies in")
    size = path.stat().st_size
    values = np.fromfile(path, "<f4", size // 4)
    if size % 16 or _has_rings(values):
        raise _no_multiple(path, size)
    records = values.reshape(-1, 4)
    if _share_absurd(records[:, :3]) > 0.05:
        raise broken(path, "its values are no float32 coordinates in metres")
    return cloud_of_columns([*records.T])


def read_npy(path: Path) -> PointCloud:
    """Reads an array of (n, 3) coordinates, of (n, 4) or more with intensity fourth, or of fields x, y, z.

    Raises:
        InputError: It has another shape, or does not hold numbers.
    """
    try:
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
    except _NUMPY_ERRORS as error:
        raise broken(path, "it is no complete .npy file of numbers") from error
    return _cloud_of_array(path, array)


def read_npz(path: Path) -> PointCloud:
    """Reads the array `points`, `xyz` or `arr_0` as from an .npy file, and `intensity` beside it.

    An array `origin` of three values is added to the points, as `write_npz` leaves it.

    Raises:
        InputError: It has none of these, or of another shape.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive)
            arrays = {name: archive[name] for name in (*POINT_KEYS, "intensity", "origin") if name in names}
    except _NUMPY_ERRORS as error:
        raise broken(path, "it is no complete .npz file of numbers") from error
    key = next((key for key in POINT_KEYS if key in arrays), None)
    if key is None:
        raise InputError(
            f"{path} holds {', '.join(names[:8]) or 'nothing'}, but none of {', '.join(POINT_KEYS)}",
            remedy=f"save the points under the name {POINT_KEYS[0]}",
        )
    cloud = _cloud_of_array(path, arrays[key])
    intensity = _intensity(path, arrays.get("intensity", cloud.intensity), len(cloud))
    origin = np.asarray(arrays.get("origin", np.zeros(3)), np.float64).reshape(3)
    return PointCloud(cloud.points, cloud.origin + origin, intensity)


def write_kitti(path: Path, cloud: PointCloud) -> None:
    """Writes a KITTI scan; where the cloud has no intensity, it is zero.

    Raises:
        OutputError: The coordinates are so large that float32 would move points by more than a millimetre.
    """
    records = np.zeros((len(cloud), 4), "<f4")
    records[:, :3] = cloud.coordinates if cloud.origin.any() else cloud.points
    if cloud.origin.any() and _rounding(records, cloud) > _ROUNDING:
        raise OutputError(
            f"the coordinates of the cloud are too large for {path}, whose float32 would round them",
            remedy="write .ply, .pcd or .npz, or move the cloud nearer to zero",
        )
    if cloud.intensity.size:
        records[:, 3] = cloud.intensity
    with replacing(path) as temporary:
        records.tofile(temporary)


def write_npz(path: Path, cloud: PointCloud) -> None:
    """Writes points, origin and intensity as they are in memory."""
    arrays = {"points": cloud.points, "origin": cloud.origin}
    if cloud.intensity.size:
        arrays["intensity"] = cloud.intensity
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes the first of them for allow_pickle


def _has_rings(values: Float32[np.ndarray, " n"]) -> bool:
    """Whether every fifth value is the number of a laser, as in nuScenes; what a size alone may not tell."""
    if len(values) % 5 or len(values) < 5:
        return False
    values = values[:_SAMPLE]
    rings = values[4::5]
    low, high = rings.min(), rings.max()  # NaN fails both comparisons
    whole = low >= 0 and 0 < high < _RINGS and not np.mod(rings, 1).any()
    return bool(whole and np.mod(values, 1).any())


def _no_multiple(path: Path, size: int) -> InputError:
    five = "points of five values, as in nuScenes, are not read: " if size % 20 == 0 else ""
    return InputError(
        f"{path} is no KITTI scan: {size} bytes are not points of four float32 (x, y, z, intensity)",
        remedy=f"{five}keep x, y, z and intensity, or save an .npy array with one row a point",
    )


def _share_absurd(coordinates: Float32[np.ndarray, "n 3"]) -> float:
    """The share in a sample that is farther than any place: bytes of something else, read as float32."""
    sample = coordinates[:: len(coordinates) // _SAMPLE + 1]
    finite = sample[np.isfinite(sample)]
    return float(np.mean(np.abs(finite) > _FAR_BEYOND)) if finite.size else 0.0


def _rounding(records: Float32[np.ndarray, "n 4"], cloud: PointCloud) -> float:
    with np.errstate(invalid="ignore"):
        off = np.abs(records[:, :3] - cloud.coordinates)
    return float(np.nanmax(off, initial=0.0))


def _cloud_of_array(path: Path, array: Shaped[np.ndarray, "..."]) -> PointCloud:
    if array.dtype.names:
        return _cloud_of_fields(path, array)
    if array.ndim != 2 or array.shape[1] < 3 or _lies_across(array):
        raise InputError(
            f"{path} holds an array of shape {array.shape}",
            remedy="save an array of shape (n, 3), or (n, 4) with intensity last",
        )
    _require_numbers(path, array)
    return cloud_of_columns([*array[:, :4].T])


def _cloud_of_fields(path: Path, array: Shaped[np.ndarray, "..."]) -> PointCloud:
    flat = array.reshape(-1)
    names = array.dtype.names or ()
    fields = [Field(name.lower(), flat[name].dtype, flat[name][:1].size or 1) for name in names]
    columns = [flat[names[index]] for index in chosen(path, fields)]
    for column in columns:
        _require_numbers(path, column)
    return cloud_of_columns(columns)


def _lies_across(array: Shaped[np.ndarray, "n k"]) -> bool:
    return array.shape[0] in (3, 4) and array.shape[1] > 16


def _require_numbers(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{path} holds values of type {array.dtype}", remedy="save the coordinates as float32 or float64"
        )


def _intensity(path: Path, values: Num[np.ndarray, "..."], points: int) -> Float32[np.ndarray, " k"]:
    flat = values.reshape(-1)
    if len(flat) not in (0, points):
        raise InputError(
            f"{path} holds {points} points, but {len(flat)} intensities", remedy="save one value a point"
        )
    _require_numbers(path, flat)
    return np.ascontiguousarray(flat, np.float32)
