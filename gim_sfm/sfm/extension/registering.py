"""Photos find their place in a model whose own photos and cameras stay where they are.

COLMAP's incremental mapper registers, triangulates and adjusts locally (Schönberger and Frahm,
Structure-from-Motion Revisited, CVPR 2016). It begins from the model, so the keypoints of old photos are the
model's, moved by refinement or not, and cameras are as calibrated; the database tells what matches what.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from gim_sfm.progress import Advance
from gim_sfm.sfm.calibration import put_back
from gim_sfm.sfm.mapping import RELAXATIONS, Job, incremental_options, quiet

logger = logging.getLogger(__name__)

MIN_MATCHES = 15
"""Verified matches below which a pair is not looked at, as in `reconstruct`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Tools:
    """COLMAP's mapper at work on a model, and how it is to work."""

    mapper: pycolmap.IncrementalMapper
    options: pycolmap.IncrementalPipelineOptions

    def register(self, number: int) -> bool:
        """Registers a photo with its points, and adjusts its neighbourhood."""
        options, triangulation = self.options.get_mapper(), self.options.get_triangulation()
        if not self.mapper.register_next_image(options, number):
            return False
        self.mapper.triangulate_image(triangulation, number)
        self.mapper.iterative_local_refinement(
            self.options.ba_local_max_refinements,
            self.options.ba_local_max_refinement_change,
            options,
            self.options.get_local_bundle_adjustment(),
            triangulation,
            number,
        )
        return True


def register_photos(
    model: pycolmap.Reconstruction, database: Path, photos: Path, *, seed: int, advance: Advance
) -> pycolmap.Reconstruction:
    """Registers every photo of a database that a model can place, best seen first.

    Poses and cameras of the model stay exactly as they are; its points gain observations and may move.

    Args:
        model: A model made from this database before it grew; not changed.
        database: Holds its photos under the same numbers, new ones and their verified pairs.
        photos: Folder of all photos.
        seed: Seed of everything random.
        advance: Called with 1 for every photo registered.

    Returns:
        The larger model.
    """
    grown = with_keypoints(model, database)
    constant = frozenset(grown.cameras)
    options = incremental_options(Job(database, photos, seed, advance, constant), RELAXATIONS[0])
    options.fix_existing_frames = True
    with quiet(), pycolmap.Database.open(database) as opened:
        cache = pycolmap.DatabaseCache.create(
            opened, pycolmap.DatabaseCacheOptions(min_num_matches=MIN_MATCHES)
        )
        mapper = pycolmap.IncrementalMapper(cache)
        mapper.begin_reconstruction(grown)
        _register_all(_Tools(mapper, options), advance)
        mapper.end_reconstruction(False)
    put_back(grown, model)
    return grown


def _register_all(tools: _Tools, advance: Advance) -> None:
    """Tries the photos in the order of what they see of the model, anew after each that was placed."""
    while True:
        waiting = tools.mapper.find_next_images(tools.options.get_mapper(), structure_less=False)
        if not any(tools.register(number) for number in waiting):
            return
        advance(1)


def with_keypoints(model: pycolmap.Reconstruction, database: Path) -> pycolmap.Reconstruction:
    """A copy of a model that also holds the keypoints that its photos have got in the database since."""
    with pycolmap.Database.open(database) as opened:
        more = {
            number: opened.read_keypoints(number)[image.num_points2D() :, :2]
            for number, image in model.images.items()
            if opened.num_keypoints_for_image(number) > image.num_points2D()
        }
    if not more:
        return pycolmap.Reconstruction(model)
    copy = pycolmap.Reconstruction()
    for _, camera in sorted(model.cameras.items()):
        copy.add_camera_with_trivial_rig(camera)
    for number, image in sorted(model.images.items()):
        places = [point.xy for point in image.points2D] + list(more.get(number, ()))
        fresh = pycolmap.Image(
            name=image.name,
            camera_id=image.camera_id,
            image_id=number,
            points2D=[pycolmap.Point2D(place) for place in places],
        )
        copy.add_image_with_trivial_frame(fresh, image.cam_from_world())
    for number, point in sorted(model.points3D.items()):
        copy.add_point3D_with_id(number, point)
    return copy
