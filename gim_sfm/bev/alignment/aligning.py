"""The verb `bev align`: a COLMAP model of any scale and direction put onto a cloud or another model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.alignment.scaled_registration import register_scaled
from gim_sfm.bev.alignment.standing import stand
from gim_sfm.bev.alignment.uprighting import Up, find_up
from gim_sfm.bev.checks import check_positive, clear_output, naming, open_output
from gim_sfm.bev.cloud_formats import load_cloud
from gim_sfm.bev.pointcloud import PointCloud
from gim_sfm.bev.registering import SHOWN, Sights, draw_registration, tell_registration, write_answer
from gim_sfm.bev.registration import Registration
from gim_sfm.bev.topview import Channel
from gim_sfm.bev.view_matching import MATCHED, demand_channels, load_view_matcher
from gim_sfm.errors import OutputError, RegistrationError
from gim_sfm.recipe import MatcherKeywords, TopViewSettings, section_of
from gim_sfm.sfm.placing import read_shape, refuse_overlap, write_moved

ANSWER = "alignment.json"
MODEL = "model"

SLOPE = 8.0
"""Degrees by which the ground of a model may be tilted against the vertical that its cameras tell."""

SIGHT = 0.03
"""Length of the line that shows where a camera looks, in lengths of the scene."""

UPRIGHT_ALREADY = np.eye(4)

Transform = Float64[np.ndarray, "4 4"]
Poses = Float64[np.ndarray, "n 3 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """What `bev align` found.

    Attributes:
        world_from_model: 4x4: scale R in the upper left, in the frame of the cloud or of the other model.
        up: How the model's vertical was found.
        registration: Of the upright model and the upright target.
        folder: alignment.json and the pictures.
    """

    world_from_model: Transform
    up: Up
    registration: Registration
    folder: Path

    @property
    def scale(self) -> float:
        """Lengths of the world in one of the model."""
        return float(np.cbrt(np.linalg.det(self.world_from_model[:3, :3])))

    @property
    def model(self) -> Path:
        """Folder of the moved model."""
        return self.folder / MODEL

    def __str__(self) -> str:
        rows = ("  ".join(f"{value:12.6f}" for value in row) for row in self.world_from_model)
        found = self.registration
        return "\n".join(
            [
                "world_from_model",
                *rows,
                f"scale {self.scale:.6g}, {100 * found.overlap:.0f} % of the structure overlaps, rmse "
                f"{found.rmse:.3g}, confidence {found.confidence:.2f}; the vertical is that of "
                f"{100 * self.up.agreeing:.0f} % of the {WITNESSES[self.up.found_by]}",
                f"Model  {self.model}",
                f"Answer and pictures  {self.folder}",
            ]
        )


WITNESSES = {"cameras": "cameras", "plane": "points, which lie on one plane"}


def align_model(
    model: Path | str,
    cloud: Path | str,
    *,
    output: Path | str = "alignment",
    channels: Sequence[Channel] = MATCHED,
    turns: int | None = None,
    device: str = "auto",
    **settings: Unpack[MatcherKeywords],
) -> Alignment:
    """Puts a COLMAP model onto a point cloud or another model.

    Args:
        model: Its folder; any scale, any direction; it stays as it is.
        cloud: Any file that `load_cloud` reads, z up; or the folder of another model, whose cameras tell its
            vertical.
        output: Folder for the moved model (`model`), alignment.json, view.html and pictures.
        channels: What of the top views is matched, beside the search at all scales.
        turns: How many turns of the model are shown to the matcher; None for 1 where it does not mind turns,
            else 12.
        device: Where a network runs.
        **settings: See `gim_sfm.recipe.TopViewSettings`.

    Raises:
        RegistrationError: The two do not agree in any way, or in several; alignment.json says so, too.
        InputError: The model or the cloud cannot be used, or shows no vertical.
        SettingsError: A setting that does not exist or does not fit, or small_gicp is missing.
        OutputError: The folder cannot be written, or its `model` overlaps with the model or the cloud, or is
            none of this verb's.
    """
    chosen = section_of(TopViewSettings, settings)
    check_positive(turns=turns)
    folder = Path(output)
    _check_output(folder, (Path(model), Path(cloud)))
    source, up, poses = _upright(Path(model))
    target, upright_from_world = _target(Path(cloud))
    matcher = load_view_matcher(chosen, channels, turns, device)
    clear_output(folder, (MODEL, *SHOWN, ANSWER))
    with naming(Path(model)):
        one = stand(source, most_tilt=SLOPE)
        demand_channels(one.prepared.view, channels)
    with naming(Path(cloud)):
        other = stand(target)
        demand_channels(other.prepared.view, channels)
    asked: dict[str, object] = {
        "model": str(model),
        "cloud": str(cloud),
        "up": up.direction.tolist(),
        "up_found_by": up.found_by,
    }
    try:
        found = register_scaled(one, other, matcher)
    except RegistrationError as error:
        write_answer(folder / ANSWER, {**asked, "refused": error.message})
        raise
    moved = np.linalg.inv(upright_from_world) @ found.target_from_source @ up.upright_from_model
    aligned = Alignment(moved, up, found, folder)
    write_answer(folder / ANSWER, {**asked, "unfinished": f"{MODEL} is being written"})
    write_moved(Path(model), moved, aligned.model)
    title = f"{Path(model).name} on {Path(cloud).name}"
    sights = draw_sights(poses, up, SIGHT * one.prepared.ground.extent)
    draw_registration(found, one.prepared, other.prepared, folder, title, sights)
    write_answer(folder / ANSWER, {**asked, **_answer(aligned)})
    return aligned


def _check_output(folder: Path, read: Sequence[Path]) -> None:
    """Sees to it that replacing `model` in a folder costs nobody anything but a former answer.

    Raises:
        OutputError: It would, or the folder cannot be written.
    """
    moved = folder / MODEL
    for path in read:
        refuse_overlap(moved, path)
    if moved.exists() and not (folder / ANSWER).exists():
        raise OutputError(
            f"{moved} would be replaced, and no {ANSWER} beside it tells that it is a former answer.",
            remedy="Name another output folder, or move it elsewhere.",
        )
    open_output(folder)


def draw_sights(poses: Poses, up: Up, length: float) -> Sights:
    """Lines from the cameras of a model ahead, in its upright frame."""
    centres = -np.einsum("nji,nj->ni", poses[:, :, :3], poses[:, :, 3])
    ends = np.stack([centres, centres + length * poses[:, 2, :3]], axis=1)
    return np.asarray(ends @ up.upright_from_model[:3, :3].T)


def _upright(model: Path) -> tuple[PointCloud, Up, Poses]:
    """A model's points turned upright, and its cameras as they are.

    `load_cloud` comes first: it tells what is wrong with a file.
    """
    points = load_cloud(model)
    shape = read_shape(model)
    with naming(model):
        up = find_up(shape.cam_from_world, shape.points)
    return points.moved(up.upright_from_model), up, shape.cam_from_world


def _target(cloud: Path) -> tuple[PointCloud, Transform]:
    if not cloud.is_dir():
        return load_cloud(cloud), UPRIGHT_ALREADY
    points, up, _ = _upright(cloud)
    return points, up.upright_from_model


def _answer(aligned: Alignment) -> dict[str, object]:
    moved, scale = aligned.world_from_model, aligned.scale
    figures = tell_registration(aligned.registration)
    del figures["target_from_source"], figures["scale"]
    return {
        "world_from_model": moved.tolist(),
        "scale": scale,
        "rotation": (moved[:3, :3] / scale).tolist(),
        "translation": moved[:3, 3].tolist(),
        "up_agreeing": aligned.up.agreeing,
        **figures,
    }
