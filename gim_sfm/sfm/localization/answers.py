"""Poses of queries on disk: hloc's results, and JSON with all that is known of each."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from jaxtyping import Float64

from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import write_text
from gim_sfm.sfm.localization.localized import Localization

Row = Mapping[str, Any]
"""JSON-like values of one query; `reason` stands in those that were not localized."""

MADE_FROM = "made_from"
"""Digest of all that a row goes by."""

FILE = "file"
"""Signature of the photo that a row is of."""

PAGE_TITLE = "photos localized"
"""Ends the title of the page, which is told from others by it."""

_NUMBERS = re.compile(r"\[\n([-+.,\de\s]+)\]")

KEPT_PLACES = 100
"""Places of inliers that a row keeps: enough to see what the photo was recognised by."""

UNIT_TOLERANCE = 1e-3
"""By how much the length of a quaternion that was written with few digits may differ from 1."""


@dataclass(frozen=True, slots=True)
class AnswerFiles:
    """Where answers are written.

    Attributes:
        poses: hloc's results, `name qw qx qy qz tx ty tz` a line, cam_from_world.
        record: JSON; `gim-sfm reconstruct --poses` reads it, too.
        page: HTML to look at.
        journal: Rows of a run that is not finished.
        map: Folder of a map that had to be made for the matcher.
    """

    poses: Path
    record: Path
    page: Path
    journal: Path
    map: Path

    @classmethod
    def of(cls, output: Path) -> "AnswerFiles":
        """The files of an output, named with or without .txt, .json or .html.

        Raises:
            OutputError: It has no name of its own, like . or /.
        """
        if output.name in {"", ".."}:
            raise OutputError(
                f"{output} is a folder, not a name of results.",
                remedy=f"Name them, for instance {output / 'poses'}.",
            )
        stem = output.with_suffix("") if output.suffix in {".txt", ".json", ".html"} else output
        ends = (".txt", ".json", ".html", ".journal", ".map")
        return cls(*(stem.with_name(stem.name + end) for end in ends))

    def refuse_inputs(self, inputs: Iterable[Path | None]) -> None:
        """What a run reads is not written over by it.

        Raises:
            OutputError: One of the files is an input.
        """
        given = {path.resolve() for path in inputs if path is not None}
        for path in (self.poses, self.record, self.page, self.journal):
            if path.resolve() in given:
                raise OutputError(
                    f"The results would be written over {path}, which is an input.",
                    remedy="Name another output.",
                )


def row_of(answer: Localization) -> dict[str, Any]:
    """A localized query; poses and intrinsics as `gim_sfm.sfm.known.read_poses` takes them."""
    return {
        "model": answer.camera.model_name,
        "width": answer.camera.width,
        "height": answer.camera.height,
        "params": list(answer.camera.params),
        "intrinsics": answer.camera_told,
        "cam_from_world": answer.cam_from_world.matrix().tolist(),
        "covariance": answer.covariance.tolist(),
        "position_deviation": answer.position_deviation,
        "turn_deviation_degrees": answer.turn_deviation,
        "sightings": answer.sightings,
        "inliers": answer.inliers,
        "reprojection_error_px": answer.reprojection_error if answer.inliers else None,
        "evidence": answer.evidence,
        "places": _thinned(answer.inlier_places).round().astype(int).tolist(),
        "photos": [
            {"name": row.name, "sightings": row.sightings, "inliers": row.inliers} for row in answer.partners
        ],
    }


def _thinned(places: Float64[np.ndarray, "k 2"]) -> Float64[np.ndarray, "n 2"]:
    """Every so many of them, so that what is dense stays dense."""
    return places[:: max(1, -(-len(places) // KEPT_PLACES))]


def is_localized(row: Row) -> bool:
    """Whether the query has a pose."""
    return "reason" not in row


def read_rows(files: AnswerFiles) -> dict[str, Row]:
    """The rows of an earlier run; none where there is none.

    Raises:
        OutputError: One of the files is there already and is none of ours.
    """
    if not files.record.exists():
        _refuse_foreign_poses(files.poses)
        _refuse_foreign_page(files.page)
        return {}
    try:
        record = json.loads(files.record.read_text(encoding="utf-8"))
        rows: dict[str, Row] = {**record["images"], **record["failed"]}
        whole = all("cam_from_world" in row for row in record["images"].values())
        whole &= all({"reason", "remedy"} <= row.keys() for row in record["failed"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(files.record) from error
    if not whole:
        raise _foreign(files.record)
    return rows


def _refuse_foreign_poses(path: Path) -> None:
    """A list of queries or pairs named by mistake is not written over; poses are."""
    if not path.exists():
        return
    try:
        read_hloc_poses(path)
    except InputError as error:
        raise _foreign(path) from error


def _refuse_foreign_page(path: Path) -> None:
    if path.exists() and PAGE_TITLE not in path.read_text(encoding="utf-8", errors="replace"):
        raise _foreign(path)


def _foreign(path: Path) -> OutputError:
    return OutputError(
        f"{path} is there already, and holds no poses of this command.",
        remedy="Move it away, or name another output.",
    )


def write_answers(files: AnswerFiles, rows: Mapping[str, Row], facts: Mapping[str, Any]) -> None:
    """Writes both files, each in one step."""
    localized = {name: row for name, row in rows.items() if is_localized(row)}
    failed = {name: row for name, row in rows.items() if not is_localized(row)}
    record = {**facts, "images": localized, "failed": failed}
    write_text(files.record, _in_rows(json.dumps(record, indent=1, ensure_ascii=False)) + "\n")
    poses = {name: np.array(row["cam_from_world"]) for name, row in localized.items()}
    write_text(files.poses, "".join(hloc_lines(poses)))


def _in_rows(text: str) -> str:
    """Indented JSON with the numbers of a list in one line: half as long."""
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text)


def hloc_lines(cam_from_world: Mapping[str, np.ndarray]) -> Iterable[str]:
    """Poses (3x4) as lines `name qw qx qy qz tx ty tz`."""
    for name, pose in cam_from_world.items():
        x, y, z, w = pycolmap.Rotation3d(pose[:, :3]).quat
        yield " ".join([name, *(f"{value:.12g}" for value in (w, x, y, z, *pose[:, 3]))]) + "\n"


def read_hloc_poses(path: Path) -> dict[str, pycolmap.Rigid3d]:
    """Reads results in hloc's format, those of `localize` or of hloc itself; names may have blanks.

    Returns:
        cam_from_world by photo.

    Raises:
        InputError: The file cannot be read, or a line holds no pose: a list of queries with their intrinsics
            ends in numbers, too, but not in a quaternion of length 1.
    """
    poses = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # names may hold other breaks of lines
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).", remedy="Give a text file.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            name, *values = line.rsplit(maxsplit=7)
            poses[name] = _pose_of(np.array(values, np.float64))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path}, line {number}: {line!r} is no pose.", remedy="Write name qw qx qy qz tx ty tz."
            ) from error
    return poses


def _pose_of(values: Float64[np.ndarray, " n"]) -> pycolmap.Rigid3d:
    """The pose qw qx qy qz tx ty tz."""
    w, x, y, z, *shift = values
    quat = np.array([x, y, z, w])
    length = np.linalg.norm(quat)
    if not abs(length - 1) < UNIT_TOLERANCE:
        raise ValueError("the quaternion is not of length 1")
    return pycolmap.Rigid3d(pycolmap.Rotation3d(quat / length), np.array(shift))
