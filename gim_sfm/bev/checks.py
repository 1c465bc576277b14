"""What the verbs of `bev` check before they work, so that nobody waits for a refusal that was certain."""

import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gim_sfm.errors import InputError, OutputError, SettingsError


def check_positive(**settings: float | None) -> None:
    """Refuses settings that are neither None nor a number above 0.

    Raises:
        SettingsError: One is 0, negative, infinite or not a number.
    """
    for name, value in settings.items():
        if value is not None and not 0 < value < math.inf:
            raise SettingsError(
                f"{name} is {value:g}, and must be more than 0.",
                remedy=f"Give another --{name.replace('_', '-')}, or leave it out.",
            )


def open_output(folder: Path) -> None:
    """Makes a folder for results where there is none, and tries to write there.

    Raises:
        OutputError: It cannot be made, or nothing can be written into it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def clear_output(folder: Path, former: Iterable[str]) -> None:
    """Removes what an earlier run of the same verb left, so that it cannot be taken for that of this one.

    Args:
        folder: For results.
        former: Names of files and folders in it; those that are not there do not matter.

    Raises:
        OutputError: One cannot be removed.
    """
    with writing(folder):
        for name in former:
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says which file or folder it was where the system refuses to write.

    Raises:
        OutputError: It does.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}.",
            remedy="Free space, or name another output folder.",
        ) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says which file it is about where a cloud cannot be used.

    Raises:
        InputError: It cannot; begins with the file.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error.message}", remedy=error.remedy) from error
