"""Files that a person got by other means: recognised, and copied into the cache under their row's name."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gim_sfm.errors import InputError, WeightsError
from gim_sfm.matchers.weights.cache import (
    EVIDENCE_TOLD,
    Evidence,
    cache_folder,
    checksum,
    evidence_for,
    forget_note,
    own_cache,
    parameters_flaw,
    published_flaw,
    remedy,
    write_note,
)
from gim_sfm.matchers.weights.checkpoints import is_safetensors, layout_of, load_state_dict
from gim_sfm.matchers.weights.table import WEIGHTS, WeightFile


@dataclass(frozen=True, slots=True)
class Adopted:
    """A file that is in the cache now.

    Attributes:
        row: What it was recognised as.
        path: Where it is now.
        evidence: By what it was recognised.
    """

    row: WeightFile
    path: Path
    evidence: Evidence

    @property
    def told(self) -> str:
        """By what it was recognised, in words."""
        return EVIDENCE_TOLD[self.evidence]


def adopt(path: Path, row: WeightFile | None = None) -> Adopted:
    """Copies a file into the cache under its row's name, once it is recognised; runs nothing in it.

    Recognised by a published checksum, else, where none is published, by its parameters. These tell the
    network, but not which of its trainings a file is: that the file's name tells, or the caller.

    Args:
        path: The file; it stays where it is.
        row: What it is said to be; None to find out.

    Raises:
        InputError: There is no such file.
        WeightsError: It is not recognised, or not as what it is said to be; or the cache cannot be written.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.", remedy="Name the weight file that you have.")
    published = next((other for other in WEIGHTS.values() if _is_published(other, path)), None)
    if row and published and published is not row:
        raise WeightsError(
            f"{path} is not {row.id}: it is the published {published.name}.",
            remedy=f"Leave --as out, or say --as {published.id}. {remedy(row)}",
        )
    recognised = published or _recognised(path, row)
    return Adopted(recognised, _copy(path, recognised), evidence_for(recognised))


def _is_published(row: WeightFile, path: Path) -> bool:
    return row.has_checksum and not published_flaw(row, path)


def _recognised(path: Path, said: WeightFile | None) -> WeightFile:
    """The row that the file's parameters and name, or the caller, make it."""
    layout = layout_of(load_state_dict(path))
    fitting = [row for row in WEIGHTS.values() if row.layout == layout]
    if said is not None:
        return _as_said(path, said, fitting)
    named = [row for row in fitting if path.stem.lower() in {Path(name).stem.lower() for name in row.names}]
    if named:
        return _as_said(path, named[0], fitting)
    unpublished = [row for row in fitting if not row.has_checksum]
    if not unpublished:
        raise _not_recognised(path, fitting)
    choice = " or ".join(f"--as {row.id}" for row in unpublished)
    raise WeightsError(
        f"{path} has the parameters of {_listed(fitting)}; which training of that network it is, its name "
        "does not tell.",
        remedy=f"Say it: `gim-sfm weights add {path} {choice}`. "
        f"To use a training of your own, name the file instead: --weights {path}",
    )


def _as_said(path: Path, row: WeightFile, fitting: Sequence[WeightFile]) -> WeightFile:
    if row.has_checksum:
        raise WeightsError(
            f"{path} is not the published {row.name}: it {published_flaw(row, path)}.",
            remedy=f"If it is damaged, get it anew: {remedy(row)} "
            f"If it is a training of your own, name the file instead: --weights {path}",
        )
    if wrong := parameters_flaw(row, path):
        known = f" Its parameters are those of {_listed(fitting)}." if fitting else ""
        raise WeightsError(f"{path} is not {row.id}: it {wrong}.{known}", remedy=remedy(row))
    return row


def _not_recognised(path: Path, fitting: Sequence[WeightFile]) -> WeightsError:
    if not fitting:
        return WeightsError(
            f"{path} holds weights of no network that is known here.",
            remedy=f"Known are: {', '.join(WEIGHTS)}.",
        )
    flaws = "; ".join(f"as {row.id} it {published_flaw(row, path)}" for row in fitting)
    return WeightsError(
        f"{path} has the parameters of {_listed(fitting)}, but is not the published file: {flaws}.",
        remedy=f"If it is a training of your own, name the file where it is used: --weights {path}. "
        "If it should be the published file, it is damaged: get it anew.",
    )


def _listed(rows: Sequence[WeightFile]) -> str:
    return " and ".join(row.id for row in rows)


def _copy(path: Path, row: WeightFile) -> Path:
    with own_cache(row) as cache:
        place = cache / (row.names[-1] if is_safetensors(path) else row.name)
        if place.exists() and place.samefile(path):
            if not row.has_checksum:
                write_note(place)
            return place
        with tempfile.TemporaryDirectory(dir=cache, prefix=".adding-") as scratch:
            copy = Path(scratch) / place.name
            shutil.copyfile(path, copy)
            if checksum(copy) != checksum(path):
                raise WeightsError(
                    f"{path} changed while it was copied to {cache_folder()}.",
                    remedy="Try again once nothing writes to it, and check the disk.",
                )
            if not row.has_checksum:
                forget_note(place)
            copy.replace(place)
        if not row.has_checksum:
            write_note(place)
        return place
