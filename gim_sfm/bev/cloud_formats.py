"""Point clouds on disk: one table of formats, read and written by their suffix."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from gim_sfm.bev.cleaning import clean
from gim_sfm.bev.formats.arrays import read_kitti, read_npy, read_npz, write_kitti, write_npz
from gim_sfm.bev.formats.las import read_las
from gim_sfm.bev.formats.model import read_model_points
from gim_sfm.bev.formats.pcd import read_pcd, write_pcd
from gim_sfm.bev.formats.ply import read_ply, write_ply
from gim_sfm.bev.formats.refusals import decoding
from gim_sfm.bev.formats.text import read_pts, read_xyz
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError, OutputError

log = logging.getLogger(__name__)

READERS: Mapping[str, Callable[[Path], PointCloud]] = {
    ".bin": read_kitti,
    ".las": read_las,
    ".laz": read_las,
    ".npy": read_npy,
    ".npz": read_npz,
    ".pcd": read_pcd,
    ".ply": read_ply,
    ".pts": read_pts,
    ".xyz": read_xyz,
    ".xyzn": read_xyz,
    ".xyzrgb": read_xyz,
}
"""What reads a file, by its suffix in lower case. A folder is taken for a COLMAP model."""

WRITERS: Mapping[str, Callable[[Path, PointCloud], None]] = {
    ".bin": write_kitti,
    ".npz": write_npz,
    ".pcd": write_pcd,
    ".ply": write_ply,
}
"""What writes a file, by its suffix in lower case."""


def load_cloud(path: Path | str) -> PointCloud:
    """Reads and cleans a cloud, and logs what was dropped.

    Args:
        path: As for `read_cloud`.

    Raises:
        InputError: It cannot be read, or too little of it is usable.
    """
    cloud, cleaning = clean(read_cloud(path), name=str(path))
    if cleaning.kept < cleaning.read or cleaning.blank_intensities:
        log.info("%s: %s", path, cleaning)
    return cloud


def read_cloud(path: Path | str) -> PointCloud:
    """Reads a cloud as it is, points that are not finite included.

    Args:
        path: A file with a suffix of `READERS`, in small or capital letters, or a COLMAP model folder.

    Raises:
        InputError: There is no such file, its format is not known, it is damaged, or it holds no point.
    """
    path = Path(path)
    with decoding(path):
        cloud = _reader(path)(path)
    if not len(cloud):
        raise InputError(f"{path} holds no point", remedy="check what wrote the file")
    return cloud


def write_cloud(path: Path | str, cloud: PointCloud) -> None:
    """Writes a cloud in the format that the suffix names, in one step.

    Args:
        path: A file with one of the suffixes of `WRITERS`.
        cloud: What to write.

    Raises:
        OutputError: The format is not written, cannot hold the cloud, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITERS:
        raise OutputError(
            f"clouds are not written as {suffix or 'a file without suffix'}: {path}",
            remedy=f"name a file with one of the suffixes {', '.join(WRITERS)}",
        )
    try:
        WRITERS[suffix](path, cloud)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="check the path, its permissions and the space left",
        ) from error


def _reader(path: Path) -> Callable[[Path], PointCloud]:
    if not path.exists():
        raise InputError(f"there is no file or folder {path}", remedy="check the path")
    if path.is_dir():
        return read_model_points
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError(
            f"{path} is of no known point-cloud format",
            remedy=f"convert it to one of {', '.join(READERS)}, or give a COLMAP model folder",
        )
    if not path.stat().st_size:
        raise InputError(f"{path} is empty (0 bytes)", remedy="copy the file again or export it anew")
    return READERS[suffix]
