"""The main job: a folder of photos in, a COLMAP model and a report out."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import pycolmap

from gim_sfm import matchers
from gim_sfm.archive import exclusive
from gim_sfm.errors import InputError, ReconstructionError, SettingsError
from gim_sfm.images import ImageFolder, PhotoHeader
from gim_sfm.matching import extract_features
from gim_sfm.pair_file import write_pairs
from gim_sfm.recipe import Recipe, ReconstructSettings, digest
from gim_sfm.sfm.cameras import assumed_cameras, cameras_of
from gim_sfm.sfm.given import GivenFiles
from gim_sfm.sfm.lineup import Lineup, assemble, choose_joining, rescue_settings
from gim_sfm.sfm.maps import DATABASE, FEATURES, MODEL, RECIPE, link_photos, refuse_to_shrink
from gim_sfm.sfm.matched import DatabaseFigures, MatchingJob, build_database
from gim_sfm.sfm.modelling import Modelled, build_and_publish
from gim_sfm.sfm.pairing import Collection, PairChoice, choose_pairs
from gim_sfm.sfm.planning import Plan, measure_speed, plan_pairs, read_headers
from gim_sfm.sfm.positions import Shared, put_to_work
from gim_sfm.sfm.refusals import refuse_collapsed, refuse_two_of_many
from gim_sfm.sfm.report import PairFigures, RunFacts, build_report, write_report
from gim_sfm.sfm.stopwatch import Stopwatch
from gim_sfm.sfm.verification import parallax_degrees
from gim_sfm.store import FeatureStore
from gim_sfm.types import Pair

logger = logging.getLogger(__name__)

BEST_PAIRS = 3
"""Verified pairs of an unregistered photo that are looked at for parallax."""


@dataclass(frozen=True, slots=True)
class ReconstructResult:
    """What came of a reconstruction.

    Attributes:
        model: Folder of the best model, as COLMAP writes it.
        report: The page to look at; report.json lies beside it.
        registered: Photos in the best model.
        photos: Photos there were, the broken ones too.
        points: 3D points.
        reprojection_error: Mean, in pixels.
        seconds: Wall time of this run.
        notes: What was picked, skipped or relaxed on the way.
    """

    model: Path
    report: Path
    registered: int
    photos: int
    points: int
    reprojection_error: float
    seconds: float
    notes: tuple[str, ...]

    def read_model(self) -> pycolmap.Reconstruction:
        """The best model."""
        return pycolmap.Reconstruction(self.model)

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.registered} of {self.photos} photos registered, {self.points} points, "
                f"mean reprojection error {self.reprojection_error:.2f} px, in {self.seconds:.0f} s",
                *self.notes,
                f"Model   {self.model}",
                f"Report  {self.report}",
            ]
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """The inputs of a run, checked as far as can be done without a network."""

    folder: ImageFolder
    out: Path
    recipe: Recipe
    device: str
    strict: bool
    given: GivenFiles | None


def reconstruct(
    photos: Path | str,
    out: Path | str,
    *,
    recipe: Recipe | Path | str | None = None,
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[ReconstructSettings],
) -> ReconstructResult:
    """Reconstructs cameras and points from a folder of photos.

    Interrupted or killed, the same call goes on where it stopped. New photos in the folder join in; changed
    settings or photos recompute what depends on them. A model that `extend` has made larger is kept in
    former/ before it is replaced, and only a folder with all its photos replaces it.

    Args:
        photos: Folder of photos; subfolders are read too.
        out: Folder for recipe.toml, images (a link), features.h5, pairs.txt, matches.h5, database.db, tries/,
            sparse/ (best model first), report.json and report.html.
        recipe: Settings, or a TOML file of them; `settings` win over it.
        device: auto, cpu, cuda or mps.
        strict: Raise on the first broken photo instead of leaving it out.
        **settings: See the sections in `gim_sfm.recipe`.

    Raises:
        SettingsError: A setting that does not exist or does not fit.
        InputError: Fewer than two readable photos, or other input that cannot be used.
        OutputError: `out` cannot be written, belongs to something else, or holds a larger model.
        WeightsError: The matcher's weights cannot be had.
        ReconstructionError: No model came of the photos; report.html says why for each of them.
    """
    job = _prepare(photos, out, recipe, device, strict, settings)
    watch = Stopwatch()
    with watch.stage("networks"):
        lineup = _line_up(job)
        helper = rescue_settings(job.recipe.matching)
        rescuer = assemble(helper, device, beside=lineup) if helper else None
    with ExitStack() as stores:
        stores.enter_context(exclusive(job.out))
        key = lineup.features_key
        features = stores.enter_context(FeatureStore.open(job.out / FEATURES, digest(key), key))
        job.recipe.write(job.out / RECIPE)
        link_photos(job.out, job.folder.root)
        broken, notes = _extract(job, lineup, features, watch)
        headers = {name: head for name, head in read_headers(job.folder)[0].items() if name not in broken}
        choice = _choose(job, headers, features, watch)
        shared = Shared(job.out, job.folder, features, key, job.recipe.matching.masks, job.strict)
        sizes = {name: header.size for name, header in headers.items()}
        first = put_to_work(lineup, shared, sizes, stores)
        if job.given:
            job.given.take_matches(choice.pairs, first)
        second = put_to_work(rescuer, shared, sizes, stores, prefix="rescue_") if rescuer else None
        matching = MatchingJob.of(
            choice.pairs,
            (first, second),
            cameras_of(job.recipe, headers),
            headers,
            seed=job.recipe.mapping.seed,
        )
        database = build_database(job.out / DATABASE, matching, watch)
        facts = RunFacts(
            names=job.folder.names,
            keypoints={},
            pairs=(),
            broken=broken,
            recipe=job.recipe.model_dump(mode="json"),
            device=job.device,
            notes=(*notes, choice.told, *assumed_cameras(job.recipe, headers)),
        )
        return _model(job, matching, database, facts, watch)


def _model(
    job: _Job, matching: MatchingJob, database: DatabaseFigures, facts: RunFacts, watch: Stopwatch
) -> ReconstructResult:
    """Maps the database; what stays out is given to the second matcher, once, and mapped again."""
    known = _with_database(facts, database)
    try:
        refuse_collapsed(database.tracks, job.recipe)
        modelled = build_and_publish(job.folder.root, job.out, job.recipe, database, watch)
        lost = _left_out(modelled, matching)
        if lost and _may_rescue(job, matching, database):
            logger.info("%d photos are not in the model; asking %s.", len(lost), job.recipe.matching.rescue)
            modelled, database = _map_again(job, matching, modelled, lost, watch)
            known = _with_database(facts, database)
        refuse_two_of_many(modelled.best.num_reg_images(), database.tracks, job.recipe)
    except ReconstructionError as error:
        page = _report(job, known, None, watch)
        raise ReconstructionError(
            error.message, remedy=f"{error.remedy} {page} tells it photo by photo."
        ) from error
    return _result(job, replace(known, notes=(*known.notes, *modelled.notes)), modelled, watch)


def _map_again(
    job: _Job, matching: MatchingJob, before: Modelled, lost: set[str], watch: Stopwatch
) -> tuple[Modelled, DatabaseFigures]:
    """The model after the second matcher was asked about lost photos; the former one if that was better."""
    path = job.out / DATABASE
    database = build_database(path, matching, watch, lost=lost)
    with suppress(ReconstructionError):
        modelled = build_and_publish(job.folder.root, job.out, job.recipe, database, watch)
        if modelled.best.num_reg_images() >= before.best.num_reg_images():
            return modelled, database
    logger.info("Without gain; going back to the model before.")
    database = build_database(path, matching, watch, lost=(), in_vain=lost)
    return build_and_publish(job.folder.root, job.out, job.recipe, database, watch), database


def _may_rescue(job: _Job, matching: MatchingJob, database: DatabaseFigures) -> bool:
    """Whether photos may get a second chance; there is but one, and none where poses are known."""
    had = database.lost or database.in_vain
    return matching.rescue is not None and not had and job.recipe.mapping.poses is None


def _with_database(facts: RunFacts, database: DatabaseFigures) -> RunFacts:
    notes = [f"Matches hang together in {database.tracks}"]
    if database.rescued:
        second = facts.recipe["matching"]["rescue"]
        notes.append(f"{second} was asked about weakly linked photos: {len(database.rescued)} pairs stronger")
    return replace(
        facts,
        keypoints=database.keypoints,
        pairs=database.pairs,
        tracks=database.tracks,
        notes=(*facts.notes, *notes),
    )


def _left_out(modelled: Modelled, matching: MatchingJob) -> set[str]:
    registered = {image.name for image in modelled.best.images.values() if image.has_pose}
    return set(matching.cameras) - registered


def _prepare(
    photos: Path | str,
    out: Path | str,
    recipe: Recipe | Path | str | None,
    device: str,
    strict: bool,
    settings: Mapping[str, object],
) -> _Job:
    base = recipe if isinstance(recipe, Recipe) else Recipe.load(Path(recipe)) if recipe else Recipe()
    chosen = base.with_settings(settings)
    row = matchers.find(chosen.matching.matcher)
    choose_joining(row, chosen.matching.tracks)
    rescue_settings(chosen.matching)
    folder = ImageFolder.scan(Path(photos))
    if len(folder.names) < 2:
        raise InputError(
            f"{folder.root} holds one photo only, {folder.names[0]}.", remedy="Put two or more photos there."
        )
    if Path(out).resolve() == folder.root.resolve():
        raise SettingsError(
            f"{out} is the folder of the photos, too.", remedy="Name another folder for the output."
        )
    refuse_to_shrink(Path(out), folder.root, folder.names)
    given = GivenFiles.of(chosen, Path(out))
    return _Job(folder, Path(out), chosen, device, strict, given)


def _line_up(job: _Job) -> Lineup:
    matching = job.recipe.matching
    return job.given.line_up(matching) if job.given else assemble(matching, job.device)


def _extract(
    job: _Job, lineup: Lineup, features: FeatureStore, watch: Stopwatch
) -> tuple[Mapping[str, str], list[str]]:
    with watch.stage("extraction"):
        outcome = (
            job.given.take_features(job.folder, features, strict=job.strict)
            if job.given
            else extract_features(
                job.folder,
                job.folder.names,
                lineup.detector,
                features,
                longest=lineup.detected,
                masks=job.recipe.matching.masks,
                batch=lineup.batch,
                strict=job.strict,
            )
        )
    watch.note_inside("extraction", outcome.seconds_in_network)
    usable = len(job.folder.names) - len(outcome.broken)
    if usable < 2:
        raise InputError(
            f"Only {usable} of {len(job.folder.names)} photos in {job.folder.root} can be read: "
            + "; ".join(outcome.broken.values()),
            remedy="Replace the broken files.",
        )
    notes = [f"Left out: {reason}" for reason in outcome.broken.values()]
    if outcome.unmasked:
        notes.append(f"{len(outcome.unmasked)} photos have no mask, first of them {outcome.unmasked[0]}")
    return outcome.broken, notes


def _choose(
    job: _Job, headers: Mapping[str, PhotoHeader], features: FeatureStore, watch: Stopwatch
) -> PairChoice:
    with watch.stage("pairs"):
        collection = Collection(
            tuple(headers), headers, features, job.recipe.mapping.poses, job.recipe.mapping.seed
        )
        choice = (
            job.given.choose(features, headers) if job.given else choose_pairs(job.recipe.pairing, collection)
        )
        write_pairs(job.out / "pairs.txt", choice.pairs)
    logger.info(choice.told)
    return choice


def _named(recipe: Recipe) -> str:
    chosen, given = recipe.matching, recipe.given.features
    helped = f", {chosen.rescue} for weakly linked photos on top" if chosen.rescue else ""
    return (f"none, features from {given}" if given else chosen.matcher) + helped


def _report(job: _Job, facts: RunFacts, model: pycolmap.Reconstruction | None, watch: Stopwatch) -> Path:
    pairs = with_parallax(job.out / DATABASE, facts, model)
    timed = replace(facts, pairs=pairs, timings=watch.stages, network_seconds=watch.inside)
    return write_report(job.out, build_report(timed, model), model, job.folder.root)


def with_parallax(
    database: Path, facts: RunFacts, model: pycolmap.Reconstruction | None
) -> tuple[PairFigures, ...]:
    """Adds the parallax of the best pairs of photos that were not registered; it may be the reason."""
    seen = {image.name for image in model.images.values() if image.has_pose} if model else set()
    wanted: set[Pair] = set()
    for name in set(facts.keypoints) - seen:
        verified = [pair for pair in facts.pairs if name in pair.names and pair.inliers]
        best = sorted(verified, key=lambda pair: -pair.inliers)[:BEST_PAIRS]
        wanted.update(pair.names for pair in best)
    angles = parallax_degrees(database, wanted)
    return tuple(replace(pair, angle_degrees=angles.get(pair.names)) for pair in facts.pairs)


def _result(job: _Job, facts: RunFacts, modelled: Modelled, watch: Stopwatch) -> ReconstructResult:
    told = replace(facts, models=modelled.models, calibration=modelled.calibration)
    model = modelled.best
    page = _report(job, told, model, watch)
    return ReconstructResult(
        model=job.out / MODEL,
        report=page,
        registered=model.num_reg_images(),
        photos=len(job.folder.names),
        points=model.num_points3D(),
        reprojection_error=model.compute_mean_reprojection_error(),
        seconds=watch.total,
        notes=tuple(told.notes),
    )


def plan(
    photos: Path | str,
    out: Path | str,
    *,
    recipe: Recipe | Path | str | None = None,
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[ReconstructSettings],
) -> Plan:
    """What `reconstruct` would do with the same arguments, and about how long it would take. Writes nothing.

    Raises:
        SettingsError: A setting that does not exist or does not fit.
        InputError: Fewer than two readable photos, or with `strict` a broken one.
        OutputError: `out` holds a larger model.
        WeightsError: The matcher's weights cannot be had.
    """
    job = _prepare(photos, out, recipe, device, strict, settings)
    headers, broken = read_headers(job.folder)
    if len(headers) < 2 or (strict and broken):
        raise InputError(
            f"{len(broken)} of {len(job.folder.names)} photos cannot be read: " + "; ".join(broken.values()),
            remedy="Replace the broken files.",
        )
    if job.given:
        method, pairs = f"given by {job.given.matches}", len(job.given.pairs_of(headers)[0])
        each_photo = each_pair = 0.0
    else:
        method, pairs = plan_pairs(job.recipe.pairing, headers)
        each_photo, each_pair = measure_speed(_line_up(job), job.folder, list(headers))
    return Plan(
        photos=len(headers),
        broken=broken,
        cameras=len({camera.camera_id for camera in cameras_of(job.recipe, headers).values()}),
        matcher=_named(job.recipe),
        method=method,
        pairs=pairs,
        extraction_seconds=each_photo * len(headers),
        matching_seconds=each_pair * pairs,
    )
