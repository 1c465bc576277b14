"""New photos join an existing model: matched with it, registered, triangulated and adjusted."""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from gim_sfm.archive import exclusive
from gim_sfm.errors import GimSfmError, InputError, ReconstructionError
from gim_sfm.images import ImageFolder, PhotoHeader, mask_path, read_photo
from gim_sfm.matching import extract_features
from gim_sfm.recipe import ExtendSettings, ExtensionSettings, Recipe, digest, section_of
from gim_sfm.sfm.extension.conclusion import (
    ExtendResult,
    Outcome,
    plain_settings,
    publish_extension,
    read_finished,
)
from gim_sfm.sfm.extension.enlarging import enlarge_model
from gim_sfm.sfm.extension.ground import find_ground, refuse_other_networks, refuse_unsuitable
from gim_sfm.sfm.extension.growth import Registry, grow_database, read_keypoints, read_registry
from gim_sfm.sfm.extension.lenses import doubtful, tell_lenses, told_lenses
from gim_sfm.sfm.extension.new_cameras import cameras_for
from gim_sfm.sfm.extension.newcomers import Offered, choose_newcomers, find_offered
from gim_sfm.sfm.extension.partners import Partners, choose_partners
from gim_sfm.sfm.extension.workplace import Workplace, open_workplace
from gim_sfm.sfm.lineup import Lineup, assemble, rescue_settings
from gim_sfm.sfm.maps import FEATURES, Map, link_photos, refuse_missing
from gim_sfm.sfm.matched import MatchingJob
from gim_sfm.sfm.pairing import PairChoice
from gim_sfm.sfm.photo_links import drop_gathered, gather_photos, gathered_names, show_gathered
from gim_sfm.sfm.planning import read_headers
from gim_sfm.sfm.positions import Positions, Shared, put_to_work
from gim_sfm.sfm.report import RunFacts
from gim_sfm.sfm.stopwatch import Stopwatch
from gim_sfm.store import FeatureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """An extension as it is asked for.

    Attributes:
        ground: The map.
        place: Where the extension is made.
        settings: How.
        newcomers: New photos, and where they lie.
        folder: All photos, old and new.
        at_home: Whether the new photos lie where the map's own do.
        features: Features of all photos.
        strict: Raise on the first broken photo instead of leaving it out.
    """

    ground: Map
    place: Workplace
    settings: ExtensionSettings
    newcomers: Mapping[str, Path]
    folder: ImageFolder
    at_home: bool
    features: FeatureStore
    strict: bool

    @property
    def recipe(self) -> Recipe:
        """Settings of the map."""
        return self.ground.recipe

    @property
    def masks(self) -> Path | None:
        """Folder of masks; None where no new photo has one."""
        masks = self.recipe.matching.masks
        return masks if masks and any(mask_path(masks, name).exists() for name in self.newcomers) else None


def extend(
    photos: Path | str,
    model: Path | str,
    *,
    output: Path | str | None = None,
    model_photos: Path | str | None = None,
    recipe: Recipe | Path | str | None = None,
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[ExtendSettings],
) -> ExtendResult:
    """Adds new photos to an existing model without rebuilding it.

    New photos are matched with old ones, and with each other, by the matcher and the settings that the map
    was made with; registered, triangulated, refined and adjusted. Photos of the model keep their names, and
    its frame of reference stays. The model is replaced when the larger one is complete; the former one is
    kept in former/. Interrupted or killed, the same call goes on where it stopped.

    Args:
        photos: Folder with the new photos: that of the old ones, one within it, or another.
        model: OUT of `reconstruct`, or a COLMAP model made elsewhere.
        output: Folder for the larger map, if `model` itself is to stay as it is; needed for models made
            elsewhere, of which it becomes a map with features and points of its own.
        model_photos: Folder of the old photos: of a model made elsewhere, or if they have moved.
        recipe: Settings of the map that a model made elsewhere becomes, or a TOML file of them.
        device: auto, cpu, cuda or mps.
        strict: Raise on the first broken photo instead of leaving it out.
        **settings: See `gim_sfm.recipe.ExtensionSettings`.

    Raises:
        SettingsError: A setting that does not exist or does not fit.
        InputError: No model, no new photo, photos that are missing or cannot be told apart.
        OutputError: Something cannot be written, or `output` holds something else.
        WeightsError: The matcher's weights cannot be had.
        ReconstructionError: None of the new photos could join; the model is as it was.
    """
    chosen = section_of(ExtensionSettings, settings)
    watch = Stopwatch()
    with watch.stage("map"):
        ground = find_ground(
            Path(model),
            Path(output) if output is not None else None,
            Path(model_photos) if model_photos is not None else None,
            Recipe.load(Path(recipe)) if isinstance(recipe, Path | str) else recipe,
            device=device,
            strict=strict,
        )
        refuse_unsuitable(ground, chosen)
    with ExitStack() as stores:
        stores.enter_context(exclusive(ground.folder))
        place = open_workplace(ground.folder)
        key = ground.features_key
        features = stores.enter_context(FeatureStore.open(ground.folder / FEATURES, digest(key), key))
        offered = find_offered(Path(photos), ground.photos, place.known, ground.folder)
        newcomers = choose_newcomers(offered, ground.photos, place.known, _sameness(ground, features))
        finished = read_finished(ground.folder, offered.sources)
        if finished is not None:
            newcomers = _once_more(
                finished, offered, newcomers, alike=finished.settings == plain_settings(chosen)
            )
        if not newcomers:
            place.clear()
            return _nothing_new(ground, finished, Path(photos), chosen)
        try:
            with watch.stage("networks"):
                lineup, rescuer = _line_up(ground, device)
            folder = _put_together(ground, place, offered, newcomers)
            job = _Job(ground, place, chosen, newcomers, folder, offered.at_home, features, strict)
            return _join(job, lineup, rescuer, device, watch, stores)
        except GimSfmError as error:
            if not offered.at_home:
                drop_gathered(ground.folder, newcomers.keys() - place.known)
            if not isinstance(error, ReconstructionError):  # whose report lies in the draft
                place.clear()
            raise


def _join(
    job: _Job, lineup: Lineup, rescuer: Lineup | None, device: str, watch: Stopwatch, stores: ExitStack
) -> ExtendResult:
    headers, broken, notes = _extract(job, lineup, watch)
    choice = _choose(job, headers, watch)
    registry = read_registry(job.place.base, job.ground.model, job.place.known)
    matching = _matching_job(job, choice, headers, registry, (lineup, rescuer), stores)
    fresh = {name: header for name, header in headers.items() if name not in registry.numbers}
    doubted = doubtful(job.recipe, fresh, matching.cameras, registry.cameras)
    figures = grow_database(
        job.place.base,
        job.place.grown,
        matching,
        registry,
        watch,
        cameras=lambda matched: tell_lenses(
            job.ground.model,
            matched,
            matching.cameras,
            registry.cameras,
            {name: matching.first.pixel(name) for name in doubted},
            job.recipe,
        ),
    )
    facts = RunFacts(
        names=job.folder.names,
        keypoints=figures.keypoints,
        pairs=figures.pairs,
        tracks=figures.tracks,
        broken=broken,
        recipe=job.recipe.model_dump(mode="json") | {"extension": plain_settings(job.settings)},
        device=device,
        notes=(*notes, choice.told, *told_lenses(job.place.grown, registry.cameras, doubted)),
    )
    enlarged = enlarge_model(
        job.ground.model,
        job.place.grown,
        job.folder.root,
        job.recipe,
        old_photos=job.settings.old_photos,
        watch=watch,
    )
    outcome = Outcome(job.place, job.folder.root, tuple(job.newcomers), enlarged, facts, figures.inputs)
    if not job.at_home and enlarged.names & job.newcomers.keys():
        show_gathered(job.ground.folder)
    return publish_extension(outcome, watch)


def _line_up(ground: Map, device: str) -> tuple[Lineup, Lineup | None]:
    """The map's own matchers."""
    lineup = assemble(ground.recipe.matching, device)
    refuse_other_networks(ground, lineup)
    helper = rescue_settings(ground.recipe.matching)
    return lineup, assemble(helper, device, beside=lineup) if helper else None


def _sameness(ground: Map, features: FeatureStore) -> Callable[[str, Path], bool]:
    """Tells whether a file is the one that a photo of the map was made from."""
    masks = ground.recipe.matching.masks

    def is_same(name: str, path: Path) -> bool:
        return name not in features or features.is_current(name, path, masks and mask_path(masks, name))

    return is_same


def _is_readable(path: Path) -> bool:
    try:
        read_photo(path)
    except InputError:
        return False
    return True


def _once_more(
    finished: ExtendResult, offered: Offered, newcomers: Mapping[str, Path], *, alike: bool
) -> dict[str, Path]:
    """Newcomers among photos that were offered before: with other settings, those that were left out then."""
    if newcomers.keys() <= finished.left_out.keys():
        newcomers = {name: path for name, path in newcomers.items() if _is_readable(path)}
    again = {} if alike else {name: offered.sources[name] for name in finished.left_out}
    return {**newcomers, **{name: path for name, path in again.items() if _is_readable(path)}}


def _nothing_new(
    ground: Map, finished: ExtendResult | None, photos: Path, settings: ExtensionSettings
) -> ExtendResult:
    """The result of the extension that these photos were part of, as it is complete.

    Raises:
        InputError: There was none, or it was made with other settings.
    """
    if finished is not None and finished.settings != plain_settings(settings):
        raise InputError(
            f"The photos of {photos} have joined {ground.folder} with other settings: "
            f"{dict(finished.settings)}.",
            remedy="Repeat these settings, or run reconstruct on all photos to adjust them together.",
        )
    if finished is None:
        raise InputError(
            f"{photos} holds no new photo: {ground.folder} knows all of them.",
            remedy="Name a folder with new photos.",
        )
    logger.info("The photos of %s have joined %s already.", photos, ground.folder)
    return finished


def _put_together(
    ground: Map, place: Workplace, offered: Offered, newcomers: Mapping[str, Path]
) -> ImageFolder:
    """One folder for old and new photos."""
    names = [image.name for image in ground.model.images.values()]
    refuse_missing(ground.photos, names, ground.folder)
    root = ground.photos.resolve()
    if offered.at_home:
        link_photos(ground.folder, root)
    else:
        old = {name: root / name for name in place.known if (root / name).exists()}
        drop_gathered(ground.folder, gathered_names(ground.folder) - old.keys() - newcomers.keys())
        root = gather_photos(ground.folder, {**old, **newcomers})
    return ImageFolder.of(root, place.known | newcomers.keys())


def _extract(
    job: _Job, lineup: Lineup, watch: Stopwatch
) -> tuple[dict[str, PhotoHeader], dict[str, str], list[str]]:
    """Features and headers of the new photos; broken ones are told."""
    with watch.stage("extraction"):
        try:
            outcome = extract_features(
                job.folder,
                sorted(job.newcomers),
                lineup.detector,
                job.features,
                longest=lineup.detected,
                masks=job.masks,
                batch=lineup.batch,
                strict=job.strict,
            )
        except InputError as error:
            raise InputError(_at_source(job, error.message), remedy=error.remedy) from error
    watch.note_inside("extraction", outcome.seconds_in_network)
    broken = {name: _at_source(job, reason) for name, reason in outcome.broken.items()}
    usable = [name for name in job.newcomers if name not in broken]
    if not usable:
        raise InputError(
            f"None of the {len(job.newcomers)} new photos can be read: {'; '.join(broken.values())}",
            remedy="Replace the broken files.",
        )
    headers, _ = read_headers(ImageFolder.of(job.folder.root, usable))
    notes = [f"Left out: {reason}" for reason in broken.values()]
    if outcome.unmasked:
        notes.append(f"{len(outcome.unmasked)} photos have no mask, first of them {outcome.unmasked[0]}")
    return headers, broken, notes


def _at_source(job: _Job, reason: str) -> str:
    """A message about a new photo that names the person's file, not the link to it."""
    for name, path in job.newcomers.items():
        reason = reason.replace(str(job.folder.root / name), str(path))
    return reason


def _choose(job: _Job, headers: Mapping[str, PhotoHeader], watch: Stopwatch) -> PairChoice:
    with watch.stage("pairs"):
        old = sorted(name for name in job.place.known - headers.keys() if name in job.features)
        choice = choose_partners(
            job.settings, Partners(old, sorted(headers), job.features, job.recipe.mapping.seed)
        )
    logger.info(choice.told)
    return choice


def _matching_job(
    job: _Job,
    choice: PairChoice,
    headers: Mapping[str, PhotoHeader],
    registry: Registry,
    lineups: tuple[Lineup, Lineup | None],
    stores: ExitStack,
) -> MatchingJob:
    partners = {name for pair in choice.pairs for name in pair} & registry.numbers.keys()
    old = {name: registry.cameras[name] for name in partners}
    cameras = cameras_for(job.recipe, headers, registry.cameras, job.folder.root) | old
    sizes = {name: (row.width, row.height) for name, row in cameras.items()}
    return MatchingJob.of(
        choice.pairs,
        _at_work(job, sizes, lineups, stores),
        cameras,
        headers,
        seed=job.recipe.mapping.seed,
        settled=read_keypoints(job.place.base, registry.numbers, partners),
    )


def _at_work(
    job: _Job, sizes: Mapping[str, tuple[int, int]], lineups: tuple[Lineup, Lineup | None], stores: ExitStack
) -> tuple[Positions, Positions | None]:
    key = lineups[0].features_key
    shared = Shared(job.ground.folder, job.folder, job.features, key, job.recipe.matching.masks, job.strict)
    first = put_to_work(lineups[0], shared, sizes, stores)
    if lineups[1] is None:
        return first, None
    return first, put_to_work(lineups[1], shared, sizes, stores, prefix="rescue_")
