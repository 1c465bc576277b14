"""Maps: models with the photos and features they were made from, to localize against and to grow."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.errors import InputError, OutputError
from gim_sfm.groups import origin_of
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.known import read_model

logger = logging.getLogger(__name__)

IMAGES = "images"
"""Link to the photos' folder beside the model: COLMAP's programs and their followers look there."""

FEATURES = "features.h5"
RECIPE = "recipe.toml"
MODEL = Path("sparse", "0")


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A reconstruction as `reconstruct` and `extend` leave it.

    Attributes:
        folder: What they call OUT.
        model_folder: Where in it the model lies; its best one, unless another is named.
        model: The model.
        recipe: The settings it was made with.
        photos: Folder that the names of its photos refer to.
        features_key: What its features were made with.
    """

    folder: Path
    model_folder: Path
    model: pycolmap.Reconstruction
    recipe: Recipe
    photos: Path
    features_key: Mapping[str, Any]


def is_map(folder: Path) -> bool:
    """Whether a folder is a map, or one of the models in its sparse/."""
    return _find(folder) is not None


def open_map(folder: Path, photos: Path | None = None) -> Map:
    """Reads a map.

    Args:
        folder: OUT of `reconstruct`, or one of its models, as OUT/sparse/1.
        photos: Where its photos are, if they have moved.

    Raises:
        InputError: There is no model in it, or it is a model without the features it was made from.
    """
    found = _find(folder)
    if found is None:
        read_model(folder)  # whoever named no model at all is told so
        raise InputError(
            f"{folder} is a COLMAP model without the features it was made from.",
            remedy="Name the folder of its photos with --model-photos, so that they can be found anew.",
        )
    root, model = found
    origin = origin_of(root / FEATURES)
    assert origin is not None
    return Map(
        folder=root,
        model_folder=model,
        model=read_model(model),
        recipe=Recipe.load(root / RECIPE),
        photos=photos or root / IMAGES,
        features_key=origin.settings,
    )


def content_of(map: Map) -> str:
    """A digest of a map: equal for equal features and models."""
    summed = hashlib.blake2b(json.dumps(dict(map.features_key), sort_keys=True).encode(), digest_size=16)
    for path in sorted(map.model_folder.iterdir()):
        with path.open("rb") as file:
            summed.update(hashlib.file_digest(file, "blake2b").digest())
    return summed.hexdigest()


def link_photos(out: Path, photos: Path) -> None:
    """Puts a link to the photos beside their model, which makes OUT a data set as COLMAP's followers read it.

    Raises:
        OutputError: The link cannot be made.
    """
    link = out / IMAGES
    if link.exists() and link.samefile(photos):
        return
    if link.exists() and not link.is_symlink():
        logger.warning(
            "%s is in the way of a link to %s; programs may look for the photos there.", link, photos
        )
        return
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(photos.resolve(), target_is_directory=True)
    except OSError as error:
        raise OutputError(
            f"{link} cannot be made: {error.strerror}.",
            remedy="Name an output folder on a disk that has links.",
        ) from error


def _find(folder: Path) -> tuple[Path, Path] | None:
    """The map that this is or lies in, and the model that is meant."""
    near, sparse = folder.resolve(), MODEL.parent.name
    root, model = near, near / MODEL
    if near.name == sparse:
        root, model = near.parent, near / MODEL.name
    elif near.parent.name == sparse:
        root, model = near.parent.parent, near
    complete = model.is_dir() and all((root / part).exists() for part in (RECIPE, FEATURES))
    return (root, model) if complete else None


def same_features(map: Map, key: Mapping[str, Any]) -> bool:
    """Whether a map's features are those that a detector with this key would find."""
    return bool(dict(map.features_key) == json.loads(json.dumps(dict(key))))
