"""A drive: scans of a folder, looked at one by one or, where odometry is known, as local maps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.drives.accumulation import LocalMap, accumulate, list_scans, plan_local_maps
from gim_sfm.bev.drives.trajectories import Trajectory, read_trajectory
from gim_sfm.bev.ground import Ground, find_ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import CELLS_ACROSS, VOXELS_ACROSS, Prepared, prepare_at
from gim_sfm.bev.topview import Channel, round_length
from gim_sfm.errors import InputError, SettingsError
from gim_sfm.recipe import digest

log = logging.getLogger(__name__)

MAP_LENGTH = 1 / 4
"""Way of a local map in lengths of the scene of a scan."""

SAMPLES = 9
"""Scans, evenly over the drive, by which the scene is measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """Scans in the order in which they were taken.

    Attributes:
        scans: Their files.
        trajectory: Their poses; of length 0 where they are not known.
        places: What is looked at as one cloud each.
        extent: Length of the scene of a scan, in the unit of the clouds; the same for all, so that all have
            one resolution.
    """

    scans: Sequence[Path]
    trajectory: Trajectory
    places: Sequence[LocalMap]
    extent: float

    @property
    def cell(self) -> float:
        """Side of a cell of the top views."""
        return round_length(self.extent / CELLS_ACROSS)

    @property
    def voxel(self) -> float:
        """Side of a voxel of thinned clouds."""
        return self.extent / VOXELS_ACROSS

    def name(self, place: int) -> str:
        """File name of the scan that a place has its frame from."""
        return self.scans[self.places[place].reference].name

    def load(self, place: int) -> PointCloud:
        """The points of a place.

        Raises:
            InputError: One of its scans cannot be used.
        """
        local_map = self.places[place]
        if len(local_map.members) == 1:
            return load_cloud(self.scans[local_map.reference])
        poses = self.trajectory.world_from_scan
        return accumulate(local_map, self.scans, poses, voxel=self.cell / 2)

    def level(self, cloud: PointCloud) -> Ground:
        """The ground of a place, with the extent that all places have.

        Raises:
            InputError: It shows none.
        """
        return replace(find_ground(cloud), extent=self.extent)

    def prepare(self, place: int, channels: Sequence[Channel]) -> Prepared:
        """A place with what registering it needs, and no more: of its points, the thinned ones."""
        cloud = self.load(place)
        whole = prepare_at(cloud, self.level(cloud), self.cell, self.voxel)
        view = replace(whole.view, channels={name: whole.view.channels[name] for name in channels})
        return replace(whole, cloud=PointCloud(whole.thinned.points, cloud.origin), view=view)

    def sign(self, place: int) -> str:
        """A digest of the files of a place, by name, size and time, and of where they lie in it."""
        members = self.places[place].members
        files = [(self.scans[scan].name, *_stamp(self.scans[scan])) for scan in members]
        if len(members) == 1:
            return digest(files, self.extent)
        poses = self.trajectory.world_from_scan
        reference_from_scan = np.linalg.inv(poses[self.places[place].reference]) @ poses[members]
        return digest(files, self.extent, np.round(reference_from_scan, 9).tolist())


def open_drive(
    scans: Path | str, poses: Path | str | None = None, *, map_length: float | None = None
) -> Drive:
    """Lists the scans of a folder, reads their poses and cuts the drive into local maps.

    Args:
        scans: The folder.
        poses: As for `read_trajectory`; None where they are not known: each scan is a place of its own.
        map_length: Way of a local map, in the unit of the clouds; None for a quarter of the scene of a scan.

    Raises:
        InputError: The folder or the poses cannot be used, or no scan can.
        SettingsError: A length that is not positive, or one without poses.
    """
    files = list_scans(scans)
    if map_length is not None and (poses is None or not map_length > 0):
        raise SettingsError(
            f"Local maps of a length of {map_length:g} cannot be made.",
            remedy="Give a length over 0, and with it the poses of the scans.",
        )
    unknown = Trajectory(np.empty((0, 4, 4)), np.empty(0))
    trajectory = read_trajectory(poses, [path.name for path in files]) if poses is not None else unknown
    extent = measure_scene(files)
    if poses is None:
        places = [LocalMap(scan, np.array([scan])) for scan in range(len(files))]
    else:
        places = plan_local_maps(trajectory.world_from_scan, map_length or MAP_LENGTH * extent)
    return Drive(tuple(files), trajectory, tuple(places), extent)


def measure_scene(scans: Sequence[Path]) -> float:
    """Length of the scene of a scan: the median of some.

    Raises:
        InputError: None of these can be used.
    """
    extents: list[float] = []
    broken: list[InputError] = []
    for index in np.unique(np.linspace(0, len(scans) - 1, SAMPLES).astype(int)):
        try:
            extents.append(find_ground(load_cloud(scans[index])).extent)
        except InputError as error:
            log.warning("%s", error.message)
            broken.append(error)
    if not extents:
        raise broken[0]
    return float(np.median(extents))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
