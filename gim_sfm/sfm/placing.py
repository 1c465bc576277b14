"""A model put into another frame: its cameras read, and the whole of it moved and written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float64

from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import replacing_folder
from gim_sfm.sfm.known import read_model


@dataclass(frozen=True, slots=True, eq=False)
class ModelShape:
    """Where the cameras and points of a model are.

    Attributes:
        cam_from_world: Of the photos that have a pose.
        points: All of them.
    """

    cam_from_world: Float64[np.ndarray, "n 3 4"]
    points: Float64[np.ndarray, "m 3"]


def read_shape(folder: Path) -> ModelShape:
    """Reads a COLMAP model.

    Raises:
        InputError: It holds no model, or one without cameras or points.
    """
    model = read_model(folder)
    poses = [image.cam_from_world().matrix() for image in model.images.values() if image.has_pose]
    points = [point.xyz for point in model.points3D.values()]
    if not poses or not points:
        raise InputError(
            f"The model {folder} has {len(poses)} photos with a pose and {len(points)} points.",
            remedy="Give a model with photos and points, often sparse/0.",
        )
    return ModelShape(np.array(poses, np.float64), np.array(points, np.float64))


def refuse_overlap(written: Path, read: Path) -> None:
    """Refuses to replace a folder where what is read would be lost or changed by it.

    Args:
        written: Folder that is to be replaced.
        read: A file, which the folder must not contain, or a folder, which it must not lie within either.

    Raises:
        OutputError: They overlap, by other names or links, too.
    """
    folder, kept = written.resolve(), read.resolve()
    if folder == kept:
        how = f"is {read} itself"
    elif kept.is_relative_to(folder):
        how = f"contains {read}"
    elif kept.is_dir() and folder.is_relative_to(kept):
        how = f"lies within {read}"
    else:
        return
    raise OutputError(
        f"{written}, which is to be written, {how}, which must stay as it is.",
        remedy="Name another output folder.",
    )


def write_moved(folder: Path, new_from_old: Float64[np.ndarray, "4 4"], moved: Path) -> None:
    """Writes a model in another frame; the one it was read from stays as it is.

    Args:
        folder: The model.
        new_from_old: A similarity.
        moved: Folder for the moved model; replaced in one step where it exists.

    Raises:
        InputError: There is no model.
        OutputError: The folder is, contains or lies within the model's own, or cannot be written.
    """
    refuse_overlap(moved, folder)
    model = read_model(folder)
    model.transform(pycolmap.Sim3d(new_from_old[:3]))
    try:
        with replacing_folder(moved) as temporary:
            model.write(temporary)
    except OSError as error:
        raise OutputError(
            f"{moved} cannot be written: {error.strerror}.", remedy="Free space, or name another folder."
        ) from error
