"""Photos that have just been registered are refined and adjusted, at a cost that goes by their number."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pycolmap

from gim_sfm.recipe import Recipe
from gim_sfm.sfm.calibration import (
    MAX_ERROR,
    MIN_ANGLE,
    CameraCalibration,
    Freedom,
    adjusted,
    calibrate,
    enlarge,
    put_back,
    robust_options,
)
from gim_sfm.sfm.modelling import wants_refinement
from gim_sfm.sfm.refinement import Refinement, Share, read_view, refine_keypoints

logger = logging.getLogger(__name__)

LEAST_SEEN = 15
"""Points that a photo must see after adjustment to stay in the model; as many as verify a pair."""

NEIGHBOURS_EACH = 4
"""Old photos for each new one that take part when new cameras are calibrated."""


@dataclass(frozen=True, slots=True, eq=False)
class Grown:
    """A model with its newcomers.

    Attributes:
        before: The model before.
        model: The model now.
    """

    before: pycolmap.Reconstruction
    model: pycolmap.Reconstruction

    @property
    def newcomers(self) -> list[int]:
        """Numbers of the photos that were not posed before."""
        return sorted(set(self.model.reg_image_ids()) - set(self.before.reg_image_ids()))

    def points_of(self, numbers: Collection[int]) -> set[int]:
        """The points that some photos see."""
        images = (self.model.images[number] for number in numbers)
        return {point.point3D_id for image in images for point in image.get_observation_points2D()}

    def is_old(self, image: int, index: int) -> bool:
        """Whether an observation stood in the model before."""
        if image not in self.before.images:
            return False
        former = self.before.images[image]
        return bool(index < former.num_points2D() and former.points2D[index].has_point3D())


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """An adjusted model.

    Attributes:
        model: It.
        calibration: What self-calibration did.
        dropped: Names of photos that were registered, but do not fit after all.
    """

    model: pycolmap.Reconstruction
    calibration: tuple[CameraCalibration, ...] = ()
    dropped: tuple[str, ...] = field(default=())


Settle = Callable[[Grown, frozenset[int], Recipe], Settled]
"""Adjusts a model; the cameras named are known and stay as they are."""


def refine_newcomers(grown: Grown, photos: Path, recipe: Recipe) -> Refinement | None:
    """Places the observations that came with new photos to sub-pixels, in place.

    Those that the model had stay, and serve as references.

    Returns:
        What came of it; None where the settings want no refinement.
    """
    if not wants_refinement(recipe):
        return None
    share = Share(grown.points_of(grown.newcomers), grown.is_old)
    return refine_keypoints(grown.model, lambda name: read_view(photos / name), share)


def settle_newcomers(grown: Grown, known: frozenset[int], recipe: Recipe) -> Settled:
    """Adjusts new photos, their cameras and the points they see; old photos and cameras stay to the bit.

    New cameras are calibrated among the new photos and their nearest neighbours.
    """
    model = grown.model
    constant = known | frozenset(grown.before.cameras)
    calibration = _calibrate_new(grown, constant, recipe)
    for row in calibration:
        camera = model.cameras[row.camera_id]
        enlarge(camera, row.model_after)
        camera.params = list(row.after)
    _adjust_newcomers(grown, constant)  # which leaves principal points where they are
    put_back(model, grown.before)
    manager = pycolmap.ObservationManager(model)
    manager.filter_points3D_in_images(MAX_ERROR, MIN_ANGLE, set(grown.newcomers))
    dropped = _drop_unseeing(grown)
    model.update_point_3d_errors()
    return Settled(model, calibration, dropped)


def settle_everything(grown: Grown, known: frozenset[int], recipe: Recipe) -> Settled:
    """Adjusts and calibrates all photos and cameras, as after a reconstruction."""
    dropped = _drop_unseeing(grown)
    if recipe.calibration.self_calibration == "off":
        model = adjusted(grown.model, Freedom(known))
        pycolmap.ObservationManager(model).filter_all_points3D(MAX_ERROR, MIN_ANGLE)
        model.update_point_3d_errors()
        return Settled(model, (), dropped)
    done = calibrate(grown.model, fixed=known, seed=recipe.mapping.seed)
    return Settled(done.model, done.cameras, dropped)


def _adjust_newcomers(grown: Grown, constant: frozenset[int]) -> None:
    """Robust adjustment of the new photos and what they see; others are held, as far as they see it too."""
    config = pycolmap.BundleAdjustmentConfig()
    for number in grown.newcomers:
        config.add_image(number)
    for number in grown.points_of(grown.newcomers):
        config.add_variable_point(number)
    for number in constant & frozenset(grown.model.cameras):
        config.set_constant_cam_intrinsics(number)
    pycolmap.create_default_bundle_adjuster(robust_options(), config, grown.model).solve()


def _calibrate_new(grown: Grown, constant: frozenset[int], recipe: Recipe) -> tuple[CameraCalibration, ...]:
    """What the new photos determine of their own cameras."""
    if recipe.calibration.self_calibration == "off" or not frozenset(grown.model.cameras) - constant:
        return ()
    part = _surroundings(grown)
    done = calibrate(part, fixed=constant, seed=recipe.mapping.seed)
    return tuple(row for row in done.cameras if row.camera_id not in constant)


def _surroundings(grown: Grown) -> pycolmap.Reconstruction:
    """The new photos, and the old ones that share most points with them."""
    shared: dict[int, int] = {}
    for number in grown.points_of(grown.newcomers):
        for element in grown.model.points3D[number].track.elements:
            shared[element.image_id] = shared.get(element.image_id, 0) + 1
    newcomers = set(grown.newcomers)
    old = sorted(shared.keys() - newcomers, key=lambda number: (-shared[number], number))
    kept = newcomers.union(old[: NEIGHBOURS_EACH * len(newcomers)])
    part = pycolmap.Reconstruction(grown.model)
    for number in set(part.reg_image_ids()) - kept:
        part.deregister_frame(part.images[number].frame_id)
    return part


def _drop_unseeing(grown: Grown) -> tuple[str, ...]:
    """Takes out new photos that see next to nothing of the model any more."""
    images = [grown.model.images[number] for number in grown.newcomers]
    unseeing = [image for image in images if image.num_points3D < LEAST_SEEN]
    for image in unseeing:
        grown.model.deregister_frame(image.frame_id)
    return tuple(sorted(image.name for image in unseeing))
