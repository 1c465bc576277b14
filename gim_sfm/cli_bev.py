"""The commands under `gim-sfm bev`."""

import math
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter, validators

from gim_sfm.cli_settings import Device, Flat, Verbose, given, start_log
from gim_sfm.recipe import TopViewSettings

bev_app = App(
    name="bev",
    help="Point clouds seen from above.",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)

FINITE = validators.Number(lt=math.inf)
Length = Annotated[float | None, Parameter(validator=[validators.Number(gt=0), FINITE])]
Gap = Annotated[float | None, Parameter(validator=[validators.Number(gte=0), FINITE])]
Turns = Annotated[int | None, Parameter(validator=validators.Number(gte=1))]
Channel = Literal["density", "max_height", "height_range", "intensity"]


@bev_app.command
def project(
    cloud: Path,
    out: Path,
    *,
    cell: Length = None,
    poses: Path | None = None,
    map_length: Length = None,
    verbose: Verbose = False,
) -> None:
    """Level a point cloud by its ground and write its top view as pictures.

    Args:
        cloud: KITTI .bin, .npy, .npz, .ply, .pcd, .las, .laz, .xyz, or a COLMAP model's folder; with --poses,
            the folder of the scans of a drive.
        out: Folder for the pictures and view.json; with --poses, for one such folder a local map.
        cell: Side of a cell in the unit of the cloud [goes with the scene].
        poses: world_from_scan of the scans of a drive: KITTI's or TUM's text, or JSON by file name.
        map_length: Way of a local map in the unit of the clouds [a quarter of the scene of a scan].
        verbose: Tell more on the way.
    """
    from gim_sfm.bev.projection import project_cloud

    start_log(verbose)
    if poses is None and map_length is None:
        print(project_cloud(cloud, out, cell=cell))
        return
    from gim_sfm.bev.drives.drive_projection import project_drive

    print(project_drive(cloud, out, poses=poses, map_length=map_length, cell=cell))


@bev_app.command
def register(
    source: Path,
    target: Path,
    *,
    output: Path = Path("registration"),
    scale: Literal["known", "unknown"] = "known",
    channels: tuple[Channel, ...] = ("density", "max_height", "height_range"),
    turns: Turns = None,
    cell: Length = None,
    device: Device = "auto",
    verbose: Verbose = False,
    matching: Annotated[TopViewSettings, Flat] = TopViewSettings(),
) -> None:
    """Find where a point cloud lies in another one, or refuse with the reason.

    Args:
        source: KITTI .bin, .npy, .npz, .ply, .pcd, .las, .laz, .xyz, or a COLMAP model's folder.
        target: Likewise.
        output: Folder for registration.json and the pictures.
        scale: Whether both clouds have the same unit; unknown for points of photos.
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
        scale=scale,
        channels=channels,
        turns=turns,
        cell=cell,
        device=device,
        **given(matching),
    )
    print(done)


@bev_app.command
def align(
    model: Path,
    cloud: Path,
    *,
    output: Path = Path("alignment"),
    channels: tuple[Channel, ...] = ("density", "max_height", "height_range"),
    turns: Turns = None,
    device: Device = "auto",
    verbose: Verbose = False,
    matching: Annotated[TopViewSettings, Flat] = TopViewSettings(),
) -> None:
    """Put a COLMAP model of any scale and direction onto a point cloud or another model, or refuse.

    Args:
        model: A COLMAP model's folder, often sparse/0; it stays as it is.
        cloud: A point cloud with z up, in metres for instance, or another model's folder.
        output: Folder for the moved model, alignment.json and the pictures.
        channels: What of the top views is matched, beside the search at all scales.
        turns: Turns of the model shown to the matcher [1 where it does not mind turns, else 12].
        device: Where a network runs.
        verbose: Tell more on the way.
    """
    from gim_sfm.bev.alignment.aligning import align_model

    start_log(verbose)
    print(
        align_model(
            model, cloud, output=output, channels=channels, turns=turns, device=device, **given(matching)
        )
    )


@bev_app.command
def loops(
    scans: Path,
    *,
    poses: Path | None = None,
    output: Path = Path("loops"),
    candidates: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 5,
    map_length: Length = None,
    gap: Gap = None,
    drift: Annotated[float, Parameter(validator=[validators.Number(gt=0), FINITE])] = 0.01,
    optimise: Annotated[bool, Parameter(negative="")] = False,
    channels: tuple[Channel, ...] = ("density", "max_height", "height_range"),
    turns: Turns = None,
    device: Device = "auto",
    verbose: Verbose = False,
    matching: Annotated[TopViewSettings, Flat] = TopViewSettings(),
) -> None:
    """Find where a drive meets itself; every place that is not sure is refused, with the reason.

    Args:
        scans: Folder of clouds of one format, taken one after the other in the order of their names.
        poses: world_from_scan by odometry: KITTI's or TUM's text, or JSON by file name [consecutive scans are
            registered to each other].
        output: Folder for loops.json, loops.g2o, loops.png; a run that was killed goes on from there.
        candidates: Earlier places that each place is registered to at most.
        map_length: With --poses, way of a local map in the unit of the clouds [a quarter of a scan's scene].
        gap: Way up to which places are neighbours and no loop [half a scan's scene, and the local map's].
        drift: What odometry errs by on a way as long as a scan's scene, as a share of it, and in radians.
        optimise: Optimise the pose graph by gtsam, and write the trajectories as KITTI and TUM do.
        channels: What of the top views is matched.
        turns: Turns of the source shown to the matcher [1 where it does not mind turns, else 12].
        device: Where a network runs.
        verbose: Tell more on the way.
    """
    from gim_sfm.bev.loops.closing import close_loops

    start_log(verbose)
    done = close_loops(
        scans,
        poses=poses,
        output=output,
        candidates=candidates,
        map_length=map_length,
        gap=gap,
        drift=drift,
        optimised=optimise,
        channels=channels,
        turns=turns,
        device=device,
        **given(matching),
    )
    print(done)
