"""The commands under `gim-sfm bev`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from gim_sfm.cli_settings import Device, Flat, Verbose, given, start_log
from gim_sfm.recipe import MatcherSettings

bev_app = App(
    name="bev",
    help="Point clouds seen from above.",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)

Channel = Literal["density", "max_height", "height_range", "intensity"]


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


@bev_app.command
def register(
    source: Path,
    target: Path,
    *,
    output: Path = Path("registration"),
    channels: tuple[Channel, ...] = ("density",),
    turns: int | None = None,
    cell: float | None = None,
    device: Device = "auto",
    verbose: Verbose = False,
    matching: Annotated[MatcherSettings, Flat] = MatcherSettings(matcher="root-sift"),
) -> None:
    """Find where a point cloud lies in another one of the same scale, or refuse with the reason.

    Args:
        source: KITTI .bin, .npy, .npz, .ply, .pcd, .las, .laz, .xyz, or a COLMAP model's folder.
        target: Likewise.
        output: Folder for registration.json and the pictures.
        channels: What of the top views is matched.
        turns: Turns of the source shown to the matcher [1 where it does not mind turns, else 12].
        cell: Side of a cell in the unit of the clouds [goes with the smaller scene].
        device: Where a network runs.
        verbose: Tell more on the way.
    """
    from gim_sfm.bev.registering import register_clouds

    start_log(verbose)
    done = register_clouds(
        source,
        target,
        output=output,
        channels=channels,
        turns=turns,
        cell=cell,
        device=device,
        **given(matching),
    )
    print(done)
