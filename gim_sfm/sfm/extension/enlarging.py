"""A model takes in the photos that its database has got since."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from gim_sfm.progress import stage
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.extension.frames import Displacement, align_back, measure_displacement
from gim_sfm.sfm.extension.registering import register_photos
from gim_sfm.sfm.extension.settling import (
    Grown,
    Settle,
    Settled,
    refine_newcomers,
    settle_everything,
    settle_newcomers,
)
from gim_sfm.sfm.mapping import quiet
from gim_sfm.sfm.modelling import known_cameras
from gim_sfm.sfm.stopwatch import Stopwatch

SETTLE: Mapping[str, Settle] = {"fixed": settle_newcomers, "adjust": settle_everything}
"""What becomes of the photos that were there before."""


@dataclass(frozen=True, slots=True, eq=False)
class Enlarged:
    """A larger model that is not published yet, and what is known of it.

    Attributes:
        settled: The model, adjusted and in its former frame.
        names: Photos that were not in it before.
        displacement: How far the others moved.
        notes: Sentences for people.
    """

    settled: Settled
    names: frozenset[str]
    displacement: Displacement
    notes: tuple[str, ...]


def enlarge_model(
    model: pycolmap.Reconstruction,
    database: Path,
    photos: Path,
    recipe: Recipe,
    *,
    old_photos: str,
    watch: Stopwatch,
) -> Enlarged:
    """Registers the photos of a database that a model lacks, refines and adjusts them.

    Args:
        model: A model made from this database before it grew; not changed.
        database: Has grown since.
        photos: Folder of all photos.
        recipe: Settings of the map.
        old_photos: Whether the photos of the model are fixed, or adjusted too.
        watch: Is told where the time went.
    """
    with pycolmap.Database.open(database) as opened:
        waiting = opened.num_images() - model.num_reg_images()
    with watch.stage("mapping", inside=True), stage("Registering", waiting, "photo") as advance:
        registered = register_photos(model, database, photos, seed=recipe.mapping.seed, advance=advance)
    grown = Grown(model, registered)
    notes: list[str] = []
    with watch.stage("refinement"):
        refined = refine_newcomers(grown, photos, recipe) if grown.newcomers else None
        if refined is not None:
            notes.append(
                f"Refinement moved {refined.moved} of {refined.compared} new observations by "
                f"{refined.shift:.2f} px (median); the others were taken off their points"
            )
    with watch.stage("calibration"), quiet():
        known = known_cameras(database, recipe)
        settled = SETTLE[old_photos](grown, known, recipe) if grown.newcomers else Settled(registered)
        if old_photos == "adjust" and grown.newcomers:
            align_back(settled.model, model)
    displacement = measure_displacement(settled.model, model)
    notes += [f"{name} was registered, but sees too little to stay" for name in settled.dropped]
    return Enlarged(settled, _added(settled.model, model), displacement, (*notes, str(displacement)))


def _added(model: pycolmap.Reconstruction, before: pycolmap.Reconstruction) -> frozenset[str]:
    numbers = set(model.reg_image_ids()) - set(before.reg_image_ids())
    return frozenset(model.images[number].name for number in numbers)
