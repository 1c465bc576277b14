"""The verb: a folder of queries in, their poses in a model out."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import pycolmap

from gim_sfm.archive import make_folder
from gim_sfm.errors import InputError, LocalizationError, SettingsError
from gim_sfm.files import write_text
from gim_sfm.images import ImageFolder
from gim_sfm.journal import Journal
from gim_sfm.pair_file import read_partners
from gim_sfm.recipe import LocalizationSettings, LocalizeSettings, section_of
from gim_sfm.sfm.known import read_intrinsics
from gim_sfm.sfm.localization.answering import Task, answer_queries
from gim_sfm.sfm.localization.answers import (
    AnswerFiles,
    Row,
    is_localized,
    read_rows,
    write_answers,
)
from gim_sfm.sfm.localization.moments import moments_of
from gim_sfm.sfm.localization.opening import prepare_map
from gim_sfm.sfm.localization.page import render_page
from gim_sfm.sfm.localization.queries import find_queries
from gim_sfm.sfm.maps import Map
from gim_sfm.sfm.report import machine, versions
from gim_sfm.sfm.report_scene import draw_model

logger = logging.getLogger(__name__)


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
        queries: Folder of photos, or one photo. Photos of maps that lie in it are passed over.
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
    files = AnswerFiles.of(Path(output))
    files.refuse_inputs([chosen.intrinsics, chosen.pairs_file, chosen.rig])
    folder = find_queries(Path(queries), [files.map, Path(model)])
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
    lists = _lists(chosen.pairs_file, folder, map)
    task = Task(folder, map, matching, chosen, lists, device, strict)
    make_folder(files.poses.parent)
    with closing(Journal(files.journal)) as journal:
        rows = answer_queries(task, moments, files, journal)
        write_answers(files, rows, _facts(task))
        write_text(files.page, render_page(rows, _facts(task), draw_model(task.map.model), task.folder.root))
        journal.clear()
    return _result(files, rows, time.perf_counter() - began)


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


def _lists(path: Path | None, queries: ImageFolder, map: Map) -> dict[str, list[str]] | None:
    """Photos of the map by query, where a list names them."""
    if path is None:
        return None
    in_map = [image.name for image in map.model.images.values() if image.has_pose]
    return read_partners(path, queries.names, in_map)


def _facts(task: Task) -> dict[str, Any]:
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
