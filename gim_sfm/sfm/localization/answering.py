"""Rows of queries: taken from earlier runs where they still hold, else found and kept one by one."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gim_sfm import matchers
from gim_sfm.errors import GimSfmError, InputError, LocalizationError
from gim_sfm.images import ImageFolder, Signature
from gim_sfm.journal import Journal, Record
from gim_sfm.progress import stage
from gim_sfm.recipe import LocalizationSettings, MatchingSettings, digest
from gim_sfm.sfm.localization.answers import MADE_FROM, AnswerFiles, Row, read_rows, row_of
from gim_sfm.sfm.localization.localized import Localization
from gim_sfm.sfm.localization.localizer import Localizer
from gim_sfm.sfm.localization.moments import Moment
from gim_sfm.sfm.localization.queries import sign, signed, unreadable
from gim_sfm.sfm.maps import Map, content_of

logger = logging.getLogger(__name__)

UNUSABLE = "nothing"
"""Made from: where a file could not be used, it is tried again by the next run."""

UNREAD: Row = {MADE_FROM: UNUSABLE}
"""Part of the row of a photo that could not be used."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What is to be done, checked as far as can be done without a network.

    Attributes:
        folder: The queries.
        map: Where they are sought.
        matching: The matcher.
        settings: How photos of the map are chosen.
        lists: Photos of the map by query, where a list names them.
        device: Where the networks run.
        strict: Whether the first photo that cannot be read ends the run.
    """

    folder: ImageFolder
    map: Map
    matching: MatchingSettings
    settings: LocalizationSettings
    lists: Mapping[str, Sequence[str]] | None
    device: str
    strict: bool


def answer_queries(
    task: Task, moments: Sequence[Moment], files: AnswerFiles, journal: Journal
) -> dict[str, Row]:
    """Rows of all queries; those that earlier runs made from the same things are taken as they are.

    Args:
        task: What is to be done.
        moments: The queries, those together that share a pose.
        files: Where the rows of earlier runs are.
        journal: Gets each row as soon as it is known.

    Raises:
        InputError: A photo cannot be used, and the task is strict.
        WeightsError: The matcher's weights cannot be had.
    """
    known = {**read_rows(files)}
    known |= {entry.key: json.loads(entry.facts) for entry in journal.entries}
    base = _digest_of(task)
    todo = [moment for moment in moments if not _is_answered(moment, task, base, known)]
    total, left = len(task.folder.names), sum(len(moment.names) for moment in todo)
    with stage("Localizing", total, "photo", done=total - left) as advance:
        if todo:
            with Localizer(
                task.map, task.matching, task.settings, device=task.device, lists=task.lists
            ) as localizer:
                for moment in todo:
                    for name, row in _answer_anew(localizer, moment, task, base, known).items():
                        known[name] = row
                        journal.append(Record(name, json.dumps(row), {}))
                        advance(1)
    return {name: known[name] for name in task.folder.names}


def _is_answered(moment: Moment, task: Task, base: str, known: dict[str, Row]) -> bool:
    """Whether the rows of a moment are made from what is there now; photos without a row are not read."""
    rows = {name: known.get(name, {}) for name in moment.names}
    if any(row.get(MADE_FROM, UNUSABLE) == UNUSABLE for row in rows.values()):
        return False
    try:
        signatures = {name: sign(task.folder.path(name), row) for name, row in rows.items()}
    except InputError:
        return False  # why, is told when its turn comes
    made_from = digest(base, *_content(moment, task.lists, signatures))
    if any(row[MADE_FROM] != made_from for row in rows.values()):
        return False
    known.update({name: signed(name, row, signatures) for name, row in rows.items()})
    return True


def _answer_anew(
    localizer: Localizer, moment: Moment, task: Task, base: str, known: Mapping[str, Row]
) -> dict[str, Row]:
    """Rows of a moment with all that they are made from."""
    signatures, broken = {}, {}
    for name in moment.names:
        try:
            signatures[name] = sign(task.folder.path(name), known.get(name, {}))
        except InputError as error:
            if task.strict:
                raise
            broken[name] = error
    made_from = digest(base, *_content(moment, task.lists, signatures))
    rows = _localize(localizer, moment, task, broken)
    return {name: {MADE_FROM: made_from, **signed(name, row, signatures)} for name, row in rows.items()}


def _localize(
    localizer: Localizer, moment: Moment, task: Task, broken: Mapping[str, InputError]
) -> dict[str, Row]:
    """Rows of the photos of a moment; a broken one costs those of its rig nothing but what it saw."""
    rows = {name: _failed(name, error, UNREAD) for name, error in broken.items()}
    rest = moment.without(broken)
    if not rest.names:
        return rows
    try:
        answers = _ask(localizer, rest, task.folder)
    except LocalizationError as error:
        more = {"compared_with": list(error.partners)}
        return rows | {name: _failed(name, error, more) for name in rest.names}
    except InputError as error:
        if task.strict:
            raise
        found = unreadable(task.folder, rest.names)
        if found and len(rest.names) > 1:
            return _localize(localizer, moment, task, {**broken, **found})
        return rows | {name: _failed(name, error, UNREAD) for name in rest.names}
    return rows | {answer.name: row_of(answer) for answer in answers}


def _ask(localizer: Localizer, moment: Moment, folder: ImageFolder) -> list[Localization]:
    if moment.cams_from_rig:
        photos = {name: folder.path(name) for name in moment.names}
        return localizer.localize_rig(photos, moment.cams_from_rig, moment.cameras)
    (name,) = moment.names
    return [localizer.localize(folder.path(name), name=name, camera=moment.cameras.get(name))]


def _failed(name: str, error: GimSfmError, more: Row) -> Row:
    logger.info("%s: %s", name, error.message)
    return {"reason": error.message, "remedy": error.remedy, **more}


def _digest_of(task: Task) -> str:
    """What all answers go by."""
    settings = task.settings.model_dump(mode="json", exclude={"pairs_file", "intrinsics", "rig", "batch"})
    weights = matchers.weights_digest(task.matching.matcher, task.matching.weights)
    return digest(content_of(task.map), task.matching.model_dump(mode="json"), settings, weights)


def _content(
    moment: Moment, lists: Mapping[str, Sequence[str]] | None, signatures: Mapping[str, Signature]
) -> Iterator[object]:
    """What the answers of one moment go by besides."""
    for name in moment.names:
        content, camera = name in signatures and signatures[name].digest, moment.cameras.get(name)
        yield name, content, camera and camera.todict(), lists and lists[name]
        if name in moment.cams_from_rig:
            yield moment.cams_from_rig[name].matrix().tolist()
