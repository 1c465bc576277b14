"""Scans of a drive: a folder of them, and local maps of those that were taken one after the other."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from gim_sfm.bev.cloud_formats import READERS, load_cloud
from gim_sfm.bev.drives.trajectories import Poses, measure_travel
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.errors import InputError
from gim_sfm.pairs import natural_key

log = logging.getLogger(__name__)

OVERLAP = 0.5
"""Share of a local map's way that the next one has, too, at least."""

STEPS = 30
"""Scans of a local map at most, evenly over its way: more tell nothing new, and standing tells none."""


@dataclass(frozen=True, slots=True, eq=False)
class LocalMap:
    """Scans that are looked at as one cloud.

    Attributes:
        reference: Number of the scan whose frame it has.
        members: Numbers of the scans.
    """

    reference: int
    members: Int64[np.ndarray, " n"]


@dataclass(frozen=True, slots=True, eq=False)
class Accumulated:
    """The points of a local map.

    Attributes:
        cloud: They.
        left_out: Why scans are not among them, by number.
    """

    cloud: PointCloud
    left_out: Mapping[int, str]


def list_scans(folder: Path | str) -> list[Path]:
    """The clouds of a folder in natural order: scan2 before scan10.

    Raises:
        InputError: There is no such folder, no cloud in it, or clouds of several formats.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", remedy="give the folder that holds the scans")
    scans = [path for path in folder.iterdir() if _is_scan(path)]
    suffixes = sorted({path.suffix.lower() for path in scans})
    if len(suffixes) != 1:
        found = f"clouds of several formats ({', '.join(suffixes)})" if suffixes else "no point cloud"
        raise InputError(
            f"{folder} holds {found}", remedy=f"give a folder of scans of one of {', '.join(READERS)}"
        )
    return sorted(scans, key=lambda path: natural_key(path.name))


def _is_scan(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in READERS and not path.name.startswith(".")


def plan_local_maps(world_from_scan: Poses, length: float) -> list[LocalMap]:
    """Cuts a drive into stretches of this length, each overlapping the next by half or more.

    Args:
        world_from_scan: Poses of the scans in the order of the drive.
        length: Way of each, in the unit of the poses.

    Returns:
        At least one; the reference is the scan nearest to the middle of the way.
    """
    travel = measure_travel(world_from_scan)
    rest = max(float(travel[-1]) - length, 0.0)
    count = int(np.ceil(rest / (length * (1 - OVERLAP)))) + 1
    maps: dict[tuple[int, ...], LocalMap] = {}
    for start in np.linspace(0, rest, count):
        (inside,) = np.nonzero((travel >= start) & (travel <= start + length))
        if not len(inside):
            continue
        members = inside[_spread(travel[inside], length / STEPS)]
        reference = int(members[np.abs(travel[members] - start - length / 2).argmin()])
        maps.setdefault(tuple(members.tolist()), LocalMap(reference, members))
    return list(maps.values())


def _spread(travel: Float64[np.ndarray, " n"], step: float) -> Int64[np.ndarray, " m"]:
    """The first of every step of the way."""
    return np.unique(((travel - travel[0]) / step).astype(np.int64), return_index=True)[1]


def accumulate(
    local_map: LocalMap, scans: Sequence[Path], world_from_scan: Poses, *, voxel: float
) -> Accumulated:
    """The points of a local map in the frame of its reference scan, one a voxel, the reference's own first.

    Scans that cannot be used are left out, and logged.

    Args:
        local_map: Which scans.
        scans: All files.
        world_from_scan: All poses.
        voxel: Side of a voxel, in the unit of the clouds.

    Raises:
        InputError: No scan can be used.
    """
    reference_from_world = np.linalg.inv(world_from_scan[local_map.reference])
    nearest_first = sorted(local_map.members.tolist(), key=lambda scan: abs(scan - local_map.reference))
    parts: list[PointCloud] = []
    broken: dict[int, InputError] = {}
    for scan in nearest_first:
        try:
            cloud = load_cloud(scans[scan])
        except InputError as error:
            log.warning("%s is left out of a local map: %s", scans[scan].name, error.message)
            broken[scan] = error
            continue
        parts.append(thin_out(cloud.moved(reference_from_world @ world_from_scan[scan]), voxel))
    if not parts:
        raise broken[nearest_first[0]]
    return Accumulated(_merge(parts, voxel), {scan: error.message for scan, error in broken.items()})


def _merge(parts: Sequence[PointCloud], voxel: float) -> PointCloud:
    bright = all(len(part.intensity) for part in parts)
    coordinates = np.concatenate([part.coordinates for part in parts])
    intensity = np.concatenate([part.intensity for part in parts]) if bright else None
    return thin_out(PointCloud.of(coordinates, intensity), voxel)


def thin_out(cloud: PointCloud, voxel: float) -> PointCloud:
    """The first point of every voxel, as it is; voxels lie on whole multiples of their side."""
    indices = np.floor(cloud.points / np.float32(voxel)).astype(np.int64)
    indices -= indices.min(axis=0)
    width, depth, _ = (indices.max(axis=0) + 1).tolist()
    keys = indices[:, 0] + width * (indices[:, 1] + depth * indices[:, 2])
    kept = np.unique(keys, return_index=True)[1]
    return cloud.select(kept)
