"""Models that would be no help, refused with the reason."""

from gim_sfm import matchers
from gim_sfm.errors import ReconstructionError
from gim_sfm.recipe import Recipe
from gim_sfm.sfm.track_quality import TrackFigures

ENOUGH_LINKED = 4
"""Photos linked by verified pairs of which a model must hold more than two."""


def refuse_collapsed(tracks: TrackFigures, recipe: Recipe) -> None:
    """Matches that join no third photo would give a model of two photos, and no word why.

    Raises:
        ReconstructionError: They are of that kind.
    """
    if matchers.find(recipe.matching.matcher).joining is None or recipe.mapping.poses is not None:
        return  # known poses triangulate tracks of two photos, too
    if not tracks.collapsed:
        return
    raise ReconstructionError(
        f"The matches of different pairs hardly share keypoints: {tracks}.",
        remedy="Join them in another way (--tracks anchored or merged), or use a sparse matcher.",
    )


def refuse_two_of_many(registered: int, tracks: TrackFigures, recipe: Recipe) -> None:
    """Two photos of many that verified pairs link are no result, but a sign.

    Raises:
        ReconstructionError: It came to that.
    """
    if registered > 2 or tracks.linked < ENOUGH_LINKED or recipe.mapping.poses is not None:
        return
    raise ReconstructionError(
        f"Only {registered} photos came into a model, though verified pairs link {tracks.linked}. "
        f"Their matches hang together in {tracks}; the strongest pair has "
        f"{tracks.best_pair} verified matches.",
        remedy="Try more seeds (--tries 5), another matcher or --rescue, or photos in between.",
    )
