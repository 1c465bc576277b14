"""The main job shown on photos whose cameras are known: drawn by this package, or fetched from the net."""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np

from gim_sfm.drawn_world import draw_world
from gim_sfm.errors import OutputError
from gim_sfm.geometry import (
    AbsoluteErrors,
    aligned_pose_errors,
    auc,
    camera_centres,
    pairwise_pose_errors,
    read_ground_truth,
)
from gim_sfm.photo_sets import fetch_photo_set, find_photo_set
from gim_sfm.recipe import ReconstructSettings

log = logging.getLogger(__name__)

AUC_DEGREES = (1.0, 3.0, 5.0)

Poses = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far estimated cameras are from the truth.

    Attributes:
        rotation_degrees: Median and largest angle between the camera rotations, after alignment.
        position_share: Median and largest distance between camera centres after alignment, as a share of the
            largest distance between two true centres.
        auc: Area under the recall curve of the relative poses of all pairs, by threshold in degrees; photos
            that were not registered count as failures.
    """

    rotation_degrees: tuple[float, float]
    position_share: tuple[float, float]
    auc: dict[float, float]

    def __str__(self) -> str:
        rotation, position = self.rotation_degrees, self.position_share
        areas = ", ".join(f"{100 * area:.1f} at {degrees:g}°" for degrees, area in self.auc.items())
        return (
            f"Rotation error   {rotation[0]:.3f}° median, {rotation[1]:.3f}° at most\n"
            f"Position error   {100 * position[0]:.3f} % of the cameras' spread median, "
            f"{100 * position[1]:.3f} % at most\n"
            f"Relative poses   AUC {areas}"
        )


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo did and found.

    Attributes:
        photos: Folder of the photos.
        model: Folder of the COLMAP model.
        report: The page to look at.
        registered: Photos in the model.
        total: Photos there are.
        seconds: Wall time of the reconstruction, without drawing or fetching the photos.
        accuracy: Errors against the truth; none for photo sets, whose truth is not known.
    """

    photos: Path
    model: Path
    report: Path
    registered: int
    total: int
    seconds: float
    accuracy: tuple[Accuracy, ...]

    def __str__(self) -> str:
        head = f"{self.registered} of {self.total} photos registered in {self.seconds:.0f} s"
        places = (
            f"Photos           {self.photos}\nCOLMAP model     {self.model}\nReport           {self.report}"
        )
        return "\n".join([head, *(str(row) for row in self.accuracy), places])


def run_demo(
    out: Path | str,
    *,
    photos: str | None = None,
    device: str = "auto",
    **settings: Unpack[ReconstructSettings],
) -> DemoResult:
    """Draws a scene with known cameras, or fetches a public photo set, and reconstructs it.

    Run again, it goes on where it stopped.

    Args:
        out: Folder for `photos`, `ground_truth.json` and `reconstruction`.
        photos: Name of a set in PHOTO_SETS to use instead of the drawn scene, in a subfolder of its name.
        device: Where the networks run.
        **settings: As for `reconstruct`.

    Returns:
        The result; printed, it tells the errors and where the report lies.

    Raises:
        SettingsError: No photo set has that name.
        DownloadError: The photo set cannot be fetched.
        OutputError: The folder cannot be written.
        ReconstructionError: No model came of the photos.
    """
    from gim_sfm.sfm.known import read_poses
    from gim_sfm.sfm.reconstruction import reconstruct

    base = Path(out) / photos if photos else Path(out)
    folder, made = base / "photos", base / "reconstruction"
    names, truth = _prepare(folder, photos)
    started = time.perf_counter()
    result = reconstruct(folder, made, device=device, **settings)
    seconds = time.perf_counter() - started
    model = made / "sparse" / "0"
    estimated = {name: view.cam_from_world.matrix() for name, view in read_poses(model).items()}
    return DemoResult(
        photos=folder,
        model=model,
        report=result.report,
        registered=len(estimated),
        total=len(names),
        seconds=seconds,
        accuracy=(measure(estimated, truth),) if truth else (),
    )


def _prepare(folder: Path, photos: str | None) -> tuple[Collection[str], Poses]:
    """Puts the photos in place; their names, and their true poses where they are known."""
    if photos is None:
        truth = _drawn_photos(folder)
        return truth.keys(), truth
    chosen = find_photo_set(photos)
    log.info("%s. Licence: %s.", chosen.title, chosen.licence)
    fetch_photo_set(chosen, folder)
    return [file.name for file in chosen.files], {}


def measure(estimated: Poses, truth: Poses) -> Accuracy:
    """Compares poses with the truth.

    Args:
        estimated: cam_from_world (3x4) by photo, in any frame and scale.
        truth: cam_from_world (3x4) by photo.

    Raises:
        InputError: Too few photos were registered to lay the two worlds over each other.
    """
    errors = aligned_pose_errors(estimated, truth)
    areas = auc(pairwise_pose_errors(estimated, truth).worst, AUC_DEGREES)
    return Accuracy(
        rotation_degrees=(float(np.median(errors.rotation)), float(errors.rotation.max())),
        position_share=_position_share(errors, truth),
        auc=dict(zip(AUC_DEGREES, areas, strict=True)),
    )


def _position_share(errors: AbsoluteErrors, truth: Poses) -> tuple[float, float]:
    centres = camera_centres(np.stack(list(truth.values())))
    spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1).max()
    return float(np.median(errors.position) / spread), float(errors.position.max() / spread)


def _drawn_photos(folder: Path) -> Poses:
    """Draws the photos, unless they lie there already, and gives their true poses."""
    truth = folder.parent / "ground_truth.json"
    if not _complete(folder, truth):
        world = draw_world()
        _refuse_strangers(folder, world.photos)
        try:
            world.write(folder)
        except OSError as error:
            raise OutputError(
                f"The demo's photos cannot be written to {folder}: {error.strerror or error}.",
                remedy="Free space there, or choose another folder.",
            ) from error
    return dict(read_ground_truth(truth).cam_from_world)


def _complete(folder: Path, truth: Path) -> bool:
    """Whether an earlier run drew everything; it wrote the truth last."""
    return truth.exists() and all((folder / name).exists() for name in read_ground_truth(truth).sizes)


def _refuse_strangers(folder: Path, names: Collection[str]) -> None:
    """A person's own photos must not get mixed up with drawn ones."""
    strangers = sorted(path.name for path in folder.glob("[!.]*") if path.name not in names)
    if strangers:
        raise OutputError(
            f"{folder} holds files that the demo did not make, e.g. {strangers[0]}.",
            remedy="Choose an empty folder for the demo; `gim-sfm reconstruct` takes photos of your own.",
        )
