"""The verb: a folder of queries in, their poses in a model out."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import pycolmap

from gim_sfm import matchers
from gim_sfm.archive import make_folder
from gim_sfm.errors import GimSfmError, InputError, LocalizationError, SettingsError
from gim_sfm.files import write_text
from gim_sfm.images import ImageFolder, signature
from gim_sfm.journal import Journal, Record
from gim_sfm.pair_file import read_partners
from gim_sfm.progress import stage
from gim_sfm.recipe import LocalizationSettings, LocalizeSettings, MatchingSettings, digest, section_of
from gim_sfm.sfm.known import read_intrinsics
from gim_sfm.sfm.localization.answers import (
    MADE_FROM,
    AnswerFiles,
    Row,
    is_localized,
    read_rows,
    row_of,
    write_answers,
)
from gim_sfm.sfm.localization.localizer import Localizer
from gim_sfm.sfm.localization.moments import Moment, moments_of
from gim_sfm.sfm.localization.opening import prepare_map
from gim_sfm.sfm.localization.page import render_page
from gim_sfm.sfm.maps import Map, content_of
from gim_sfm.sfm.report import machine, versions
from gim_sfm.sfm.report_scene import draw_model

logger = logging.getLogger(__name__)

UNUSABLE = "nothing"
"""Made from: where a file could not be used, it is tried again by the next run."""


@dataclass(frozen=True, slots=True)
class LocalizeResult:
    """What came of the queries.

    Attributes:
        poses: Results in hloc's format, one line for each query that was localized.
        record: The same and all figures as JSON, with the reason for each that was not.
        page: All of it to look at.
        cam_from_world: Poses by query.
        failed: Reasons by query.
        seconds: Wall time of this run.
    """

    poses: Path
    record: Path
    page: Path
    cam_from_world: Mapping[str, pycolmap.Rigid3d]
    failed: Mapping[str, str]
    seconds: float

    def __str__(self) -> str:
        total = len(self.cam_from_world) + len(self.failed)
        return "\n".join(
            [
                f"{len(self.cam_from_world)} of {total} photos localized in {self.seconds:.0f} s",
                *(f"Not {name}: {reason}" for name, reason in self.failed.items()),
                f"Poses   {self.poses}",
                f"Record  {self.record}",
                f"Page    {self.page}",
            ]
        )


def localize(
    queries: Path | str,
    model: Path | str,
    output: Path | str,
    *,
    model_photos: Path | str | None = None,
    device: str = "auto",
    strict: bool = False,
    **settings: Unpack[LocalizeSettings],
) -> LocalizeResult:
    """Finds where photos were taken, in the frame of a model.

    Interrupted or killed, the same call goes on where it stopped; new queries join in. A photo that sees
    nothing of the model gets no pose, but the reason.

    Args:
        queries: Folder of photos, or one photo.
        model: OUT of `reconstruct`, or a COLMAP model.
        output: Name of the results: OUTPUT.txt in hloc's format, OUTPUT.json, and OUTPUT.html to look at.
        model_photos: Folder of the model's photos, for a model made elsewhere or where they have moved.
        device: auto, cpu, cuda or mps.
        strict: Raise on the first photo that cannot be read instead of telling it in the results.
        **settings: See `gim_sfm.recipe.LocalizationSettings`.

    Raises:
        SettingsError: A setting that does not exist or does not fit.
        InputError: Photos, model or lists that cannot be used.
        OutputError: Results cannot be written, or another run writes them.
        WeightsError: The matcher's weights cannot be had.
        LocalizationError: Not one of the photos could be localized; OUTPUT.json says why for each.
    """
    began = time.perf_counter()
    chosen = section_of(LocalizationSettings, settings)
    if (chosen.pairs == "file" and chosen.pairs_file is None) or (
        chosen.pairs_file is not None and chosen.pairs not in {"auto", "file"}
    ):
        raise SettingsError(
            f"--pairs {chosen.pairs} and {'a list' if chosen.pairs_file else 'no list'} do not go together.",
            remedy="Give --pairs-file LIST without --pairs, or --pairs without a list.",
        )
    folder, files = _queries(Path(queries)), AnswerFiles.of(Path(output))
    cameras = _given_cameras(chosen.intrinsics, folder.names) if chosen.intrinsics else {}
    moments = moments_of(folder.names, cameras, chosen.rig)
    read_rows(files)  # what is no answer of ours is refused before a map is made
    map, matching = prepare_map(
        model,
        chosen,
        model_photos=Path(model_photos) if model_photos else None,
        work=files.map,
        device=device,
    )
    task = _Task(folder, map, matching, chosen, device, strict)
    make_folder(files.poses.parent)
    with closing(Journal(files.journal)) as journal:
        rows = _answer(task, moments, files, journal)
        write_answers(files, rows, _facts(task))
        write_text(files.page, render_page(rows, _facts(task), draw_model(task.map.model), task.folder.root))
        journal.clear()
    return _result(files, rows, time.perf_counter() - began)


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What is to be done, checked as far as can be done without a network."""

    folder: ImageFolder
    map: Map
    matching: MatchingSettings
    settings: LocalizationSettings
    device: str
    strict: bool


def _queries(path: Path) -> ImageFolder:
    return ImageFolder.of(path.parent, [path.name]) if path.is_file() else ImageFolder.scan(path)


def _given_cameras(path: Path, names: Sequence[str]) -> dict[str, pycolmap.Camera]:
    """The intrinsics of the queries; a file that gives none of theirs was written for other names."""
    cameras = read_intrinsics(path)
    missing = [name for name in names if name not in cameras]
    if len(missing) == len(names):
        raise InputError(
            f"{path} gives the intrinsics of none of the queries, as of {missing[0]}.",
            remedy="Write names as they are relative to the folder of queries.",
        )
    if missing:
        logger.warning(
            "%s does not give the intrinsics of %d queries, as of %s", path, len(missing), missing[0]
        )
    return cameras


def _answer(task: _Task, moments: Sequence[Moment], files: AnswerFiles, journal: Journal) -> dict[str, Row]:
    """Rows of all queries; those that earlier runs made from the same things are taken as they are."""
    lists = _lists(task)
    known = {**read_rows(files)}
    known |= {entry.key: json.loads(entry.facts) for entry in journal.entries}
    base = _digest_of(task)
    made_from = {row.names: digest(base, *_content(row, task.folder, lists)) for row in moments}
    todo = [
        moment
        for moment in moments
        if any(known.get(name, {}).get(MADE_FROM) != made_from[moment.names] for name in moment.names)
    ]
    total, done = len(task.folder.names), sum(len(moment.names) for moment in moments)
    done -= sum(len(moment.names) for moment in todo)
    with stage("Localizing", total, "photo", done=done) as advance:
        if todo:
            with Localizer(
                task.map, task.matching, task.settings, device=task.device, lists=lists
            ) as localizer:
                for moment in todo:
                    for name, row in _localize(localizer, moment, task).items():
                        known[name] = {MADE_FROM: made_from[moment.names], **row}
                        journal.append(Record(name, json.dumps(known[name]), {}))
                        advance(1)
    return {name: known[name] for name in task.folder.names}


def _localize(localizer: Localizer, moment: Moment, task: _Task) -> dict[str, Row]:
    """Rows of the photos of a moment."""
    try:
        if moment.cams_from_rig:
            photos = {name: task.folder.path(name) for name in moment.names}
            answers = localizer.localize_rig(photos, moment.cams_from_rig, moment.cameras)
        else:
            (name,) = moment.names
            answers = [localizer.localize(task.folder.path(name), name=name, camera=moment.cameras.get(name))]
    except LocalizationError as error:
        return _failed(moment, error, {"compared_with": list(error.partners)})
    except InputError as error:
        if task.strict:
            raise
        return _failed(moment, error, {MADE_FROM: UNUSABLE})
    return {answer.name: row_of(answer) for answer in answers}


def _failed(moment: Moment, error: GimSfmError, more: Row) -> dict[str, Row]:
    logger.info("%s: %s", ", ".join(moment.names), error.message)
    return {name: {"reason": error.message, "remedy": error.remedy, **more} for name in moment.names}


def _lists(task: _Task) -> dict[str, list[str]] | None:
    """Photos of the map by query, where a list names them."""
    if task.settings.pairs_file is None:
        return None
    in_map = [image.name for image in task.map.model.images.values() if image.has_pose]
    return read_partners(task.settings.pairs_file, task.folder.names, in_map)


def _digest_of(task: _Task) -> str:
    """What all answers go by."""
    settings = task.settings.model_dump(mode="json", exclude={"pairs_file", "intrinsics", "rig", "batch"})
    weights = matchers.weights_digest(task.matching.matcher, task.matching.weights)
    return digest(content_of(task.map), task.matching.model_dump(mode="json"), settings, weights)


def _content(
    moment: Moment, folder: ImageFolder, lists: Mapping[str, Sequence[str]] | None
) -> Iterator[object]:
    """What the answers of one moment go by besides."""
    for name in moment.names:
        path, camera = folder.path(name), moment.cameras.get(name)
        yield name, signature(path).digest, camera and camera.todict(), lists and lists[name]
        if name in moment.cams_from_rig:
            yield moment.cams_from_rig[name].matrix().tolist()


def _facts(task: _Task) -> dict[str, Any]:
    return {
        "map": str(task.map.folder),
        "matching": task.matching.model_dump(mode="json"),
        "settings": task.settings.model_dump(mode="json"),
        "versions": versions(),
        "machine": machine(task.device),
    }


def _result(files: AnswerFiles, rows: Mapping[str, Row], seconds: float) -> LocalizeResult:
    poses = {name: pycolmap.Rigid3d(row["cam_from_world"]) for name, row in rows.items() if is_localized(row)}
    failed = {name: str(row["reason"]) for name, row in rows.items() if not is_localized(row)}
    if not poses:
        name, reason = next(iter(failed.items()))
        raise LocalizationError(
            f"None of {len(rows)} photos could be localized. {name}: {reason}",
            remedy=f"{files.record} tells it of each.",
        )
    return LocalizeResult(files.poses, files.record, files.page, poses, failed, seconds)
