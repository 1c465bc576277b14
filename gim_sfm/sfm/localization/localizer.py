"""Where a photo was taken: what it sees of a map, a pose from that, and whether to believe it."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

import h5py
import pycolmap

from gim_sfm import matchers
from gim_sfm.carrying import pixel_of
from gim_sfm.errors import InputError, LocalizationError, SettingsError
from gim_sfm.images import ImageFolder, read_header, read_photo
from gim_sfm.matchers.contract import SparseMatcher
from gim_sfm.recipe import LocalizationSettings, LocalizeSettings, MatchingSettings, section_of
from gim_sfm.sfm.lineup import Lineup, assemble, choose_joining
from gim_sfm.sfm.localization.attempts import Attempt, localize_alone, localize_rig
from gim_sfm.sfm.localization.landmarks import Landmarks, gather, landmarks_of
from gim_sfm.sfm.localization.localized import Localization, Seen, answers_of
from gim_sfm.sfm.localization.opening import prepare_map
from gim_sfm.sfm.localization.partners import Alike, Covisible
from gim_sfm.sfm.localization.query_cameras import MapCameras, candidates
from gim_sfm.sfm.localization.viewing import REMEMBERED_FEATURES, viewer_for
from gim_sfm.sfm.localization.views import View
from gim_sfm.sfm.maps import FEATURES, Map, same_features
from gim_sfm.store import read_features
from gim_sfm.types import Features


class Localizer:
    """Finds where photos were taken; the map and the networks are read once.

    Args:
        map: Where they are sought.
        matching: The matcher; its keypoints must be those of the map, if it is a sparse one.
        settings: How photos of the map are chosen.
        device: auto, cpu, cuda or mps.
        lists: Photos of the map by query, where a list chooses them.

    Raises:
        SettingsError: A setting that does not fit.
        InputError: The map's features are of another kind than the matcher's.
        WeightsError: The matcher's weights cannot be had.
    """

    def __init__(
        self,
        map: Map,
        matching: MatchingSettings,
        settings: LocalizationSettings,
        *,
        device: str = "auto",
        lists: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._seed = settings.seed
        self._images = {image.name: image for image in map.model.images.values() if image.has_pose}
        many = settings.pairs == "auto" and len(self._images) > settings.neighbours
        by_looks = lists is None and (many or settings.pairs in {"retrieval", "covisible"})
        self._lineup = _assemble(map, matching, device, by_looks)
        self._file = h5py.File(map.folder / FEATURES, "r", locking=False)
        self._photos = ImageFolder.of(map.photos, self._images)
        self._cameras = cache(lambda: MapCameras.of(map.model, self._photos))
        self._landmarks = cache(lambda name: landmarks_of(map.model, self._images[name]))
        self._read = lru_cache(REMEMBERED_FEATURES)(lambda name: read_features(self._file, name))
        numbered = choose_joining(matchers.find(map.recipe.matching.matcher), map.recipe.matching.tracks) in (
            None,
            "anchored",
        )
        self._viewer = viewer_for(self._lineup, self._read, self._photos, self._landmarks, numbered)
        self._lists = lists
        self._ranked = self._rank(settings) if by_looks else None

    @classmethod
    def open(
        cls,
        model: Path | str,
        *,
        model_photos: Path | str | None = None,
        work: Path | str | None = None,
        device: str = "auto",
        **settings: Unpack[LocalizeSettings],
    ) -> Self:
        """Loads a map and a matcher; close it, or use it in a with block.

        Args:
            model: OUT of `reconstruct`, or a COLMAP model.
            model_photos: Folder of the model's photos, for a model made elsewhere or where they have moved.
            work: Folder for the map that is made where the model has no features of the matcher.
            device: auto, cpu, cuda or mps.
            **settings: See `gim_sfm.recipe.LocalizationSettings`; lists and rigs are for `gim_sfm.localize`.

        Raises:
            SettingsError: A setting that does not exist or does not fit.
            InputError: There is no model, or photos are needed and not there.
            WeightsError: The matcher's weights cannot be had.
        """
        chosen = section_of(LocalizationSettings, settings)
        if chosen.pairs == "file" or chosen.pairs_file or chosen.intrinsics or chosen.rig:
            raise SettingsError(
                "Lists of pairs, lists of intrinsics and rigs are for many queries.",
                remedy="Use gim_sfm.localize, or give the camera with each photo.",
            )
        map, matching = prepare_map(
            model,
            chosen,
            model_photos=Path(model_photos) if model_photos else None,
            work=Path(work) if work else None,
            device=device,
        )
        return cls(map, matching, chosen, device=device)

    def localize(
        self, photo: Path | str, *, name: str | None = None, camera: pycolmap.Camera | None = None
    ) -> Localization:
        """Localizes one photo.

        Args:
            photo: The file.
            name: What it is called in lists and results; the file's name if not given.
            camera: Its intrinsics, if known.

        Raises:
            InputError: The photo cannot be read.
            LocalizationError: It sees nothing of the map, or too little to be sure; says which.
        """
        seen = self._see(Path(photo), name or Path(photo).name)
        cameras = candidates(seen.header, camera, self._cameras())
        attempt = self._told_with_partners(
            [seen],
            lambda: localize_alone(seen.sightings, self._shown(seen), cameras, seen.pixel, seed=self._seed),
        )
        return answers_of([seen], attempt)[0]

    def localize_rig(
        self,
        photos: Mapping[str, Path],
        cams_from_rig: Mapping[str, pycolmap.Rigid3d],
        cameras: Mapping[str, pycolmap.Camera],
    ) -> list[Localization]:
        """Localizes photos that the cameras of a rig took at one moment, all by one pose of the rig.

        Args:
            photos: Files by name.
            cams_from_rig: Where the camera of each sits in the rig.
            cameras: Intrinsics by name, where they are known.

        Raises:
            InputError: A photo cannot be read, or the focal length of one is not known at all.
            LocalizationError: Together they see nothing of the map, or too little to be sure.
        """
        seen = [self._see(path, name) for name, path in photos.items()]
        views, told = [], []
        for row in seen:
            chosen = candidates(row.header, cameras.get(row.name), self._cameras())[0]
            if chosen.focal == "unknown":
                raise InputError(
                    f"The focal length of {row.name} is not known.",
                    remedy="Give the intrinsics of the rig's cameras, in its file or with --intrinsics.",
                )
            views.append(View(row.sightings, chosen.camera, row.pixel, chosen.focal, cams_from_rig[row.name]))
            told.append(chosen.told)
        attempt = self._told_with_partners(seen, lambda: localize_rig(views, told, seed=self._seed))
        return answers_of(seen, attempt)

    def close(self) -> None:
        """Lets go of the map's files."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _see(self, path: Path, name: str) -> Seen:
        header = read_header(path)
        photo = read_photo(path, longest=max(self._lineup.decoded, self._lineup.detected))
        needed = self._ranked is not None or isinstance(self._lineup.matcher, SparseMatcher)
        features = self._lineup.detector.extract([photo])[0] if needed else None
        partners = self._partners(name, features)
        found = self._viewer.look(self._viewer.view(photo, features), partners)
        pixel = pixel_of(photo.size, self._lineup.longest)
        sightings = gather([self._landmarks(partner) for partner in partners], found, pixel)
        return Seen(name, header, pixel, partners, sightings)

    def _shown(self, seen: Seen) -> list[Landmarks]:
        return [self._landmarks(partner) for partner in seen.partners]

    def _told_with_partners(self, seen: Sequence[Seen], attempt: Callable[[], Attempt]) -> Attempt:
        if not any(row.partners for row in seen):
            raise LocalizationError(
                f"No photo of the map is named for {', '.join(row.name for row in seen)}.",
                remedy="Add pairs of it to the list, or leave the choice to --pairs auto.",
            )
        try:
            return attempt()
        except LocalizationError as error:
            partners = sorted({partner for row in seen for partner in row.partners})
            raise LocalizationError(error.message, remedy=error.remedy, partners=partners) from error

    def _partners(self, name: str, features: Features | None) -> list[str]:
        """Photos of the map to compare a query with."""
        if self._lists is not None:
            return [other for other in self._lists.get(name, ()) if other in self._images]
        if self._ranked is None:
            return sorted(self._images)
        assert features is not None
        return self._ranked.choose(features)

    def _rank(self, settings: LocalizationSettings) -> Alike | Covisible:
        """What chooses photos of the map by what they show."""
        names = sorted(self._images)
        alike = Alike(names, self._read, settings.neighbours, self._seed)
        if settings.pairs == "covisible":
            return Covisible(alike, names, self._landmarks, settings.neighbours)
        return alike


def _assemble(map: Map, matching: MatchingSettings, device: str, by_looks: bool) -> Lineup:
    """The matcher; one without keypoints of its own chooses photos by those of the map.

    Raises:
        InputError: Keypoints of the map are needed, and are others than the matcher's.
    """
    sparse, made_with = matchers.find(matching.matcher).kind == "sparse", map.recipe.matching
    borrows = by_looks and not sparse and matching.matcher != made_with.matcher
    lineup = assemble(matching, device, beside=assemble(made_with, device) if borrows else None)
    if (sparse or by_looks) and not same_features(map, lineup.features_key):
        raise InputError(
            f"The features of {map.folder} were not made by {matching.matcher} with these settings.",
            remedy="Name the matcher and settings that made the map, or make a map with these.",
        )
    return lineup
