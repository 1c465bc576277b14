"""Maps: models with the photos and features they were made from, to localize against and to grow."""

import hashlib
import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.archive import exclusive
from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import mend_folder, put_aside, replacing_folder
from gim_sfm.groups import origin_of
from gim_sfm.images import is_photo_name
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.known import read_model
from gim_sfm.sfm.mapping import PROVENANCE

logger = logging.getLogger(__name__)

IMAGES = "images"
"""Link to the photos' folder beside the model: COLMAP's programs and their followers look there."""

FEATURES = "features.h5"
DATABASE = "database.db"
RECIPE = "recipe.toml"
SPARSE = "sparse"
MODEL = Path(SPARSE, "0")

FORMER = "former"
"""Models that were replaced by others of another run, numbered from 1."""

EXTENSION = "extension"
"""Part of the record of models that have grown."""

NAMED = 5
"""Photos that a message names of many."""


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
    """Whether a folder is a map, or one of the models in its sparse/.

    Models that a killed run left put aside are put back first, here and in `open_map`.
    """
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


def read_record(path: Path) -> dict[str, Any]:
    """What a run wrote down, as JSON; empty where it wrote nothing."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def read_provenance(root: Path) -> dict[str, Any]:
    """What the models of a map came from; empty where there are none."""
    return read_record(root / SPARSE / PROVENANCE)


def keep_former(root: Path) -> Path:
    """Copies the models of a map as they are now to former/, unless the copy is there, and tells where."""
    numbers = sorted(int(path.name) for path in (root / FORMER).glob("*") if path.name.isdecimal())
    last = root / FORMER / str(numbers[-1] if numbers else 0)
    if read_record(last / PROVENANCE) == read_provenance(root) != {}:
        return last
    kept = root / FORMER / str(int(last.name) + 1)
    with replacing_folder(kept) as temporary:
        shutil.copytree(root / SPARSE, temporary, dirs_exist_ok=True)
    return kept


def refuse_missing(photos: Path, names: Collection[str], model: Path) -> None:
    """The photos of a model must be at hand: new ones are laid over them, or features found in them.

    Raises:
        InputError: Some are not.
    """
    missing = sorted(name for name in names if not (is_photo_name(name) and (photos / name).is_file()))
    if missing:
        raise InputError(
            f"Photos of the model {model} are not in {photos}: {_some_of(missing)}.",
            remedy="Name the folder that the names in the model refer to with --model-photos.",
        )


def has_grown(root: Path) -> bool:
    """Whether photos joined the models of a folder after they were made; False where there are none."""
    return is_map(root) and EXTENSION in read_provenance(root)


def refuse_to_shrink(out: Path, photos: Path, names: Collection[str]) -> None:
    """Models that have grown are replaced only by models of all their photos.

    Args:
        out: Folder of the map, if there is one.
        photos: Folder of the photos that the new models are to be made from.
        names: These photos.

    Raises:
        OutputError: A photo of the models is not among them.
    """
    if not has_grown(out):
        return
    known = {name for row in read_provenance(out)["models"] for name in row["names"]}
    if missing := sorted(known - set(names)):
        raise OutputError(
            f"{out} holds a model that new photos have joined; {photos} lacks {len(missing)} of its photos: "
            f"{_some_of(missing)}.",
            remedy=f"Name {out / IMAGES}, which holds all of them, or another output folder.",
        )


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
    near = folder.resolve()
    root, model = near, near / MODEL
    if near.name == SPARSE:
        root, model = near.parent, near / MODEL.name
    elif near.parent.name == SPARSE:
        root, model = near.parent.parent, near
    _put_back(root / SPARSE)
    complete = model.is_dir() and all((root / part).exists() for part in (RECIPE, FEATURES))
    return (root, model) if complete else None


def _some_of(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _put_back(sparse: Path) -> None:
    """Ends what a killed run left undone; one that is still at work is not disturbed."""
    if put_aside(sparse).exists() and not sparse.exists():
        with exclusive(sparse.parent):
            mend_folder(sparse)


def same_features(map: Map, key: Mapping[str, Any]) -> bool:
    """Whether a map's features are those that a detector with this key would find."""
    return bool(dict(map.features_key) == json.loads(json.dumps(dict(key))))
