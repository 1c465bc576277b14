"""Writing files so that a reader never sees half of one."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block ends well, it takes its place in one step.

    A block that fails, or a process that is killed, leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file (UTF-8) in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`; when the block ends well, it takes its place.

    A block that fails leaves `folder` as it was, and so does a process that is killed, but for the instant
    between two renames: what that leaves, `mend_folder` puts right, here and wherever `folder` is opened.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mend_folder(folder)
    temporary = _beside(folder, "tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        with suppress(FileNotFoundError):
            folder.rename(put_aside(folder))
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        mend_folder(folder)


def mend_folder(folder: Path) -> None:
    """Ends what a run began that was cut off while it replaced a folder.

    If the folder is gone, the former one is put back; if its successor is there, the former one is removed.
    No other run may be at work on it.
    """
    former = put_aside(folder)
    if not former.exists():
        return
    if folder.exists():
        rubbish = _beside(folder, "tmp")
        shutil.rmtree(rubbish, ignore_errors=True)
        former.rename(rubbish)  # so that half of it, if this is cut off too, is never put back
        shutil.rmtree(rubbish, ignore_errors=True)
    else:
        former.rename(folder)
        logger.info("%s was put back; a run was cut off while replacing it.", folder)


def put_aside(folder: Path) -> Path:
    """Where `replacing_folder` has the former folder for an instant."""
    return _beside(folder, "old")


def _beside(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}.{end}")
