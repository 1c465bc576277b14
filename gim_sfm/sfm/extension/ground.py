"""The map that is to grow: one of ours, its copy, or what a model made elsewhere becomes."""

from pathlib import Path

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.recipe import ExtensionSettings, Recipe
from gim_sfm.sfm.adoption import adopt_model
from gim_sfm.sfm.extension.copying import copy_map
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.sfm.maps import MODEL, Map, is_map, open_map, same_features


def find_ground(
    model: Path,
    output: Path | None,
    photos: Path | None,
    recipe: Recipe | None,
    *,
    device: str,
    strict: bool,
) -> Map:
    """Opens, copies or makes the map that is to grow.

    Args:
        model: A map, or a COLMAP model made elsewhere.
        output: Folder for the larger map, where it is to be another one.
        photos: Folder of the old photos, where the map does not tell.
        recipe: Settings of the map that a model made elsewhere becomes.
        device: Where networks run.
        strict: Raise on the first broken photo instead of leaving it out.

    Raises:
        SettingsError: A model made elsewhere without `output`, a map with a recipe, or a lesser model of one.
        InputError: No model; or one made elsewhere without its photos.
        OutputError: The output holds something else.
    """
    if is_map(model):
        if recipe is not None:
            raise SettingsError(
                f"{model} is a map with settings of its own.",
                remedy="Leave out the recipe and the matcher's settings: they are for models made elsewhere.",
            )
        opened = open_map(model, photos)
        _refuse_lesser(opened)
        return opened if output is None or _is_folder_of(opened, output) else copy_map(opened, output)
    if photos is None:
        return open_map(model)  # which says what is missing
    if output is None:
        raise SettingsError(
            f"{model} is a model made elsewhere, and stays as it is.",
            remedy="Name a folder for the larger map with --output.",
        )
    return adopt_model(model, photos, output, recipe=recipe, device=device, strict=strict)


def refuse_unsuitable(ground: Map, settings: ExtensionSettings) -> None:
    """Refuses maps that cannot grow, or not in the way that was asked for.

    Raises:
        SettingsError: Poses that were given are to be adjusted.
        InputError: There is no detector for new photos.
    """
    if ground.recipe.mapping.poses is not None and settings.old_photos != "fixed":
        raise SettingsError(
            f"The poses of {ground.folder} were given, and are not to be adjusted.",
            remedy="Leave --old-photos at fixed.",
        )
    if ground.recipe.given.features is not None:
        raise InputError(
            f"{ground.folder} was made from features in a file, so nothing here finds any in new photos.",
            remedy="Run reconstruct on all photos, with a matcher or with files that hold the new ones.",
        )


def refuse_other_networks(ground: Map, lineup: Lineup) -> None:
    """Features of old and new photos must be of one kind.

    Raises:
        InputError: The same settings give other features than the map was made from.
    """
    if not same_features(ground, lineup.features_key):
        raise InputError(
            f"The features of {ground.folder} were found with other weights or settings: "
            f"{dict(ground.features_key)}; now they would be {dict(lineup.features_key)}.",
            remedy="Use the same weights, or run reconstruct again on all photos.",
        )


def _refuse_lesser(opened: Map) -> None:
    """Only the best model of a map grows: the database tells of all of them as one."""
    best = opened.folder / MODEL
    if opened.model_folder.resolve() != best.resolve():
        raise SettingsError(
            f"{opened.model_folder} is not the best model of {opened.folder}, and only that one can grow.",
            remedy=f"Name {opened.folder}, or hand a copy of the lesser model's folder to --model, with "
            "--model-photos and --output.",
        )


def _is_folder_of(opened: Map, output: Path) -> bool:
    return output.resolve() == opened.folder.resolve()
