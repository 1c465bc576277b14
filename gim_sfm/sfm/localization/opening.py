"""The map that queries are compared with: as it is, or made anew where matcher and model do not agree."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gim_sfm import matchers
from gim_sfm.archive import changes
from gim_sfm.errors import InputError
from gim_sfm.recipe import LocalizationSettings, MatchingSettings, NetworkSettings, Recipe
from gim_sfm.sfm.adoption import adopt_model
from gim_sfm.sfm.lineup import stores_key
from gim_sfm.sfm.maps import Map, is_map, open_map, same_features

logger = logging.getLogger(__name__)


def prepare_map(
    model: Path | str,
    settings: LocalizationSettings,
    *,
    model_photos: Path | None = None,
    work: Path | None = None,
    device: str = "auto",
) -> tuple[Map, MatchingSettings]:
    """Reads a map, and says with which matcher queries are compared with it.

    A COLMAP model made elsewhere, or a map whose keypoints are not those of a sparse matcher, is made a map
    of that matcher's first: features are found in its photos, and points triangulated from its poses.

    Args:
        model: OUT of `reconstruct`, or a COLMAP model.
        settings: The matcher that is asked for.
        model_photos: Folder of the model's photos, for a model made elsewhere or where they have moved.
        work: Where a map that has to be made is kept.
        device: Where the networks run.

    Raises:
        SettingsError: There is no such matcher.
        InputError: There is no model, or photos are needed and not there.
        WeightsError: The matcher's weights cannot be had.
    """
    if model_photos is not None and not is_map(Path(model)):
        matching = _matching(settings, MatchingSettings())
        return _made_anew(Path(model), model_photos, matching, work, device), matching
    map = open_map(Path(model), model_photos)
    _refuse_empty(map)
    matching = _matching(settings, map.recipe.matching)
    row = matchers.find(matching.matcher)
    if row.kind != "sparse":
        _refuse_missing(map, row.name)
    elif not same_features(map, key := stores_key(row, matching)):
        _warn_of_changes(map, key, work)
        return _made_anew(map.model_folder, map.photos, matching, work, device), matching
    return map, matching


def _refuse_empty(map: Map) -> None:
    if not any(image.has_pose and image.num_points3D for image in map.model.images.values()):
        raise InputError(
            f"The model {map.model_folder} has no posed photo that shows points.",
            remedy="Name a model with both, or make one with gim-sfm reconstruct.",
        )


def _refuse_missing(map: Map, matcher: str) -> None:
    names = sorted(image.name for image in map.model.images.values() if image.has_pose)
    missing = [name for name in names if not (map.photos / name).is_file()]
    if missing:
        raise InputError(
            f"{matcher} looks at the photos of the model, of which {len(missing)} are gone, "
            f"first {map.photos / missing[0]}.",
            remedy="Say where they are with --model-photos, or take a sparse matcher.",
        )


def _matching(settings: LocalizationSettings, made_with: MatchingSettings) -> MatchingSettings:
    """The matcher of a query: the one asked for, or the one that made the map."""
    asked = {name: getattr(settings, name) for name in NetworkSettings.model_fields}
    asked = {name: value for name, value in asked.items() if name in settings.model_fields_set}
    if settings.matcher is None or settings.matcher == made_with.matcher:
        return made_with.model_copy(update=asked)
    return MatchingSettings(matcher=settings.matcher, **asked)


def _warn_of_changes(map: Map, key: Mapping[str, Any], work: Path | None) -> None:
    """One setting that differs costs as much time as a reconstruction."""
    if work is not None:
        told = ", ".join(changes(map.features_key, key))
        logger.warning(
            "The features of %s were made otherwise (%s); a map with these settings is made in %s first.",
            map.folder,
            told,
            work,
        )


def _made_anew(model: Path, photos: Path, matching: MatchingSettings, work: Path | None, device: str) -> Map:
    if work is None:
        raise InputError(
            f"{model} has no features of {matching.matcher}.",
            remedy="Name a folder for a map with them (work=), or the matcher that made the model.",
        )
    return adopt_model(model, photos, work, recipe=Recipe(matching=matching), device=device)
