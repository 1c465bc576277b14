"""The commands under `gim-sfm bev`."""

from pathlib import Path

from cyclopts import App

from gim_sfm.cli_settings import Verbose, start_log

bev_app = App(name="bev", help="Point clouds seen from above.")


@bev_app.command
def project(cloud: Path, out: Path, *, cell: float | None = None, verbose: Verbose = False) -> None:
    """Level a point cloud by its ground and write its top view as pictures.

    Args:
        cloud: KITTI .bin, .npy, .npz, .ply, .pcd, .las, .laz, .xyz, or a COLMAP model's folder.
        out: Folder for the pictures and view.json.
        cell: Side of a cell in the unit of the cloud [goes with the scene].
        verbose: Tell more on the way.
    """
    from gim_sfm.bev.projection import project_cloud

    start_log(verbose)
    print(project_cloud(cloud, out, cell=cell))
