"""COLMAP models made elsewhere become maps: own features and points, their poses and cameras as they are."""

import json
import logging
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.archive import exclusive
from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import replacing_folder, write_text
from gim_sfm.images import read_header, signature
from gim_sfm.recipe import Recipe, digest
from gim_sfm.sfm.known import read_model
from gim_sfm.sfm.maps import Map, has_grown, is_map, open_map, read_record, refuse_missing
from gim_sfm.sfm.photo_links import gather_photos, show_gathered
from gim_sfm.sfm.reconstruction import reconstruct

logger = logging.getLogger(__name__)

ADOPTED = "adopted"
"""Copies of the foreign model, so that the map needs nothing beside itself."""

RECORD = "adoption.json"
"""Says what the map was made from; written when it is complete."""


def adopt_model(
    model: Path,
    photos: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    device: str = "auto",
    strict: bool = False,
) -> Map:
    """Makes a map of a COLMAP model: features are found in its photos, and points triangulated from them.

    Poses and cameras stay exactly as they are. Run again with the same model, photos and recipe, the map is
    taken as it is; interrupted, the same call goes on where it stopped.

    Args:
        model: COLMAP model, text or binary, with or without points.
        photos: Folder that the names of its photos refer to; other photos in it are passed over.
        out: Folder of the map, as `reconstruct` makes them.
        recipe: Settings; where it leaves the choice of pairs to us, pairs go by the model.
        device: auto, cpu, cuda or mps.
        strict: Raise on the first broken photo instead of leaving it out.

    Raises:
        InputError: There is no model, it has no poses, or photos of it are missing or of another size.
        OutputError: `out` holds another map, or cannot be written.
        ReconstructionError: No point could be triangulated.
    """
    foreign = read_model(model)
    names = _posed_photos(foreign, model)
    refuse_missing(photos, names, model)
    _refuse_other_sizes(foreign, model, photos)
    content = _content(model)
    recipe = _adapted(recipe or Recipe(), out.resolve() / ADOPTED / content, foreign)
    inputs = _inputs(content, recipe, photos, names)
    if read_record(out / RECORD).get("inputs") == inputs and is_map(out):
        logger.info("%s is the map of %s already.", out, model)
        return open_map(out)
    _refuse_others(out, model)
    with exclusive(out):
        linked = gather_photos(out, {name: photos / name for name in names})
        show_gathered(out)
        _keep_copy(foreign, out / ADOPTED / content)
    reconstruct(linked, out, recipe=recipe, device=device, strict=strict)
    write_text(out / RECORD, json.dumps({"inputs": inputs, "model": str(model.resolve())}))
    return open_map(out)


def _posed_photos(foreign: pycolmap.Reconstruction, model: Path) -> list[str]:
    names = sorted(image.name for image in foreign.images.values() if image.has_pose)
    if len(names) < 2:
        raise InputError(
            f"The model {model} has {len(names)} photos with a pose.",
            remedy="Give a model with two or more posed photos, often sparse/0.",
        )
    return names


def _refuse_other_sizes(foreign: pycolmap.Reconstruction, model: Path, photos: Path) -> None:
    """The cameras must be those of the photos, which shows before any network runs."""
    for number in sorted(foreign.reg_image_ids()):
        image = foreign.images[number]
        camera, size = foreign.cameras[image.camera_id], _size(photos / image.name)
        if size is not None and size != (camera.width, camera.height):
            raise InputError(
                f"{photos / image.name} is {size[0]}x{size[1]} pixels, but its camera in the model {model} "
                f"is for {camera.width}x{camera.height}.",
                remedy="Name the folder of the very photos that the model was made from, undistorted or "
                "shrunk as they were, with --model-photos.",
            )


def _size(photo: Path) -> tuple[int, int] | None:
    """Width and height; None for a broken photo, which is told of when features are looked for."""
    try:
        return read_header(photo).size
    except InputError:
        return None


def _content(model: Path) -> str:
    """A digest of the model's files."""
    files = sorted(path for path in model.iterdir() if path.suffix in (".bin", ".txt"))
    return digest([(path.name, signature(path).digest) for path in files])[:12]


def _adapted(recipe: Recipe, poses: Path, foreign: pycolmap.Reconstruction) -> Recipe:
    """The recipe that keeps the model's poses and cameras."""
    known: dict[str, Any] = {"poses": poses, "intrinsics": None, "camera_params": None}
    if recipe.pairing.pairs == "auto":
        known |= {"pairs": "covisible" if foreign.num_points3D() else "poses", "pairs_model": poses}
    return recipe.with_settings(known)


def _inputs(content: str, recipe: Recipe, photos: Path, names: Collection[str]) -> str:
    facts = {name: (photos / name).stat() for name in names}
    return digest(
        content,
        recipe.model_dump(mode="json"),
        str(photos.resolve()),
        {name: (fact.st_size, fact.st_mtime_ns) for name, fact in facts.items()},
    )


def _refuse_others(out: Path, model: Path) -> None:
    """A map that was made otherwise, or has grown since, is not thrown away."""
    if has_grown(out) or (is_map(out) and not (out / ADOPTED).exists()):
        raise OutputError(
            f"{out} holds a map that was not made of {model} with these settings, or has grown since.",
            remedy="Name another folder for the map.",
        )


def _keep_copy(foreign: pycolmap.Reconstruction, folder: Path) -> None:
    if folder.exists():
        return
    for former in folder.parent.glob("*"):
        shutil.rmtree(former)
    with replacing_folder(folder) as temporary:
        foreign.write(temporary)
