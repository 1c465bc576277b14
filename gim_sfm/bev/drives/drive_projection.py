"""`bev project --poses`: the scans of a drive in, top views of its local maps out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gim_sfm.bev.drives.accumulation import accumulate
from gim_sfm.bev.drives.drive import Drive, open_drive
from gim_sfm.bev.ground import find_ground
from gim_sfm.bev.projection import write_view
from gim_sfm.bev.topview import choose_grid, project
from gim_sfm.errors import SettingsError
from gim_sfm.progress import stage


@dataclass(frozen=True, slots=True, eq=False)
class DriveProjection:
    """What `bev project --poses` made.

    Attributes:
        drive: Its places are the local maps.
        folders: Of each, with its pictures and view.json.
    """

    drive: Drive
    folders: Sequence[Path]

    def __str__(self) -> str:
        return (
            f"{len(self.folders)} local maps of {len(self.drive.scans)} scans\n"
            f"Top views  {self.folders[0]} to {self.folders[-1].name}"
        )


def project_drive(
    scans: Path | str,
    out: Path | str,
    *,
    poses: Path | str | None,
    map_length: float | None = None,
    cell: float | None = None,
) -> DriveProjection:
    """Accumulates the scans of a drive into local maps and writes each as seen from above.

    Each map is in the frame of its reference scan, the one in the middle of its way.

    Args:
        scans: Folder of clouds of one format, in the natural order of their names.
        out: Folder for one folder a local map, 0000 and on, each as `project_cloud` writes it; view.json also
            has the name of the reference scan, the names of all, those left out as they cannot be used, and
            world_from_reference.
        poses: world_from_scan of each: KITTI's or TUM's text, or JSON by file name.
        map_length: Way of a local map, in the unit of the clouds; None for a quarter of the scene of a scan.
        cell: Side of a cell; None for one that goes with the scene of a scan.

    Raises:
        InputError: The poses or all scans of a local map cannot be used, or one shows no ground.
        SettingsError: There are no poses.
        OutputError: The folder cannot be written.
    """
    if poses is None:
        raise SettingsError(
            "Local maps cannot be made without the poses of the scans.", remedy="Name their file by --poses."
        )
    drive = open_drive(scans, poses, map_length=map_length)
    side = cell or drive.cell
    folders: list[Path] = []
    with stage("Accumulating local maps", len(drive.places), "map") as advance:
        for place in range(len(drive.places)):
            folders.append(Path(out) / f"{place:04d}")
            _project(drive, place, side, folders[-1])
            advance(1)
    return DriveProjection(drive, folders)


def _project(drive: Drive, place: int, side: float, folder: Path) -> None:
    local_map, poses = drive.places[place], drive.trajectory.world_from_scan
    accumulated = accumulate(local_map, drive.scans, poses, voxel=side / 2)
    cloud, left_out = accumulated.cloud, accumulated.left_out
    ground = find_ground(cloud)
    write_view(
        project(cloud, ground, choose_grid(cloud, ground, cell=side)),
        folder,
        origin_of_points=cloud.origin.tolist(),
        told={
            "reference": drive.name(place),
            "scans": [drive.scans[scan].name for scan in local_map.members if scan not in left_out],
            "left_out": {drive.scans[scan].name: reason for scan, reason in left_out.items()},
            "world_from_reference": poses[local_map.reference].tolist(),
        },
    )
