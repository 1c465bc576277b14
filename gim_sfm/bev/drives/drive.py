"""A drive: scans of a folder, looked at one by one or, where odometry is known, as local maps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.checks import naming
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.drives.accumulation import Accumulated, LocalMap, accumulate, list_scans, plan_local_maps
from gim_sfm.bev.drives.trajectories import Trajectory, read_trajectory
from gim_sfm.bev.ground import Ground, find_ground
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.preparation import CELLS_ACROSS, VOXELS_ACROSS, Prepared, prepare_at
from gim_sfm.bev.topview import Channel, round_length
from gim_sfm.bev.view_matching import demand_channels
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
        from_sensor: Whether scans are in the frame of the sensor, which stands at (0, 0); else they are in
            that of a map.
    """

    scans: Sequence[Path]
    trajectory: Trajectory
    places: Sequence[LocalMap]
    extent: float
    from_sensor: bool

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

    def load(self, place: int) -> Accumulated:
        """The points of a place, and which of its scans could not be used.

        Raises:
            InputError: None of its scans can be used.
        """
        local_map = self.places[place]
        if len(local_map.members) == 1:
            return Accumulated(load_cloud(self.scans[local_map.reference]), {})
        poses = self.trajectory.world_from_scan
        return accumulate(local_map, self.scans, poses, voxel=self.cell / 2)

    def find_station(self, cloud: PointCloud) -> Float64[np.ndarray, "3"]:
        """Where a cloud was taken from, in its frame: its zero, or the middle of its points in a map's."""
        if self.from_sensor and stands_at_zero(cloud, self.extent):
            return np.zeros(3)
        return np.asarray(np.median(cloud.points, axis=0) + cloud.origin, np.float64)

    def level(self, cloud: PointCloud) -> Ground:
        """The ground of a place, with the extent that all places have.

        Raises:
            InputError: It shows none.
        """
        return replace(find_ground(cloud), extent=self.extent)

    def prepare(self, place: int, channels: Sequence[Channel]) -> Prepared:
        """A place with what registering it needs, and no more: of its points, the thinned ones."""
        cloud = self.load(place).cloud
        whole = prepare_at(cloud, self.level(cloud), self.cell, self.voxel)
        with naming(self.scans[self.places[place].reference]):
            demand_channels(whole.view, channels)
        view = replace(whole.view, channels={name: whole.view.channels[name] for name in channels})
        return replace(whole, cloud=PointCloud(whole.thinned.points, cloud.origin), view=view)

    def sign(self, place: int) -> str:
        """A digest of the files of a place, by name, size and time, and of where they lie in it."""
        members = self.places[place].members
        files = [(self.scans[scan].name, *_stamp(self.scans[scan])) for scan in members]
        if len(members) == 1:
            return digest(files, self.extent, self.from_sensor)
        poses = self.trajectory.world_from_scan
        reference_from_scan = np.linalg.inv(poses[self.places[place].reference]) @ poses[members]
        return digest(files, self.extent, self.from_sensor, np.round(reference_from_scan, 9).tolist())


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
    extent, from_sensor = measure_scene(files)
    if poses is None:
        places = [LocalMap(scan, np.array([scan])) for scan in range(len(files))]
    else:
        places = plan_local_maps(trajectory.world_from_scan, map_length or MAP_LENGTH * extent)
    return Drive(tuple(files), trajectory, tuple(places), extent, from_sensor)


def measure_scene(scans: Sequence[Path]) -> tuple[float, bool]:
    """Length of the scene of a scan, the median of some, and whether most of these were taken from (0, 0).

    Raises:
        InputError: None of these can be used.
    """
    extents: list[float] = []
    at_zero: list[bool] = []
    broken: list[InputError] = []
    for index in np.unique(np.linspace(0, len(scans) - 1, SAMPLES).astype(int)):
        try:
            cloud = load_cloud(scans[index])
            extents.append(find_ground(cloud).extent)
            at_zero.append(stands_at_zero(cloud, extents[-1]))
        except InputError as error:
            log.warning("%s", error.message)
            broken.append(error)
    if not extents:
        raise broken[0]
    return float(np.median(extents)), bool(np.mean(at_zero) > 1 / 2)


def stands_at_zero(cloud: PointCloud, extent: float) -> bool:
    """Whether the zero of a cloud's frame lies amid a scene of this length, as a sensor does."""
    middle = np.median(cloud.points[:, :2], axis=0)
    return not cloud.origin.any() and float(np.hypot(*middle)) <= extent / 2


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
