"""Queries as files: which photos of a folder they are, and whether they changed since they were answered."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder, Signature, read_photo, signature
from gim_sfm.sfm.localization.answers import FILE, Row
from gim_sfm.sfm.maps import FEATURES, RECIPE

logger = logging.getLogger(__name__)


def find_queries(path: Path, maps: Collection[Path]) -> ImageFolder:
    """The photos of a folder without those of maps that lie in it; or one photo.

    Args:
        path: Folder, or photo.
        maps: Folders that are maps, or will be. Others are known by their files.

    Raises:
        InputError: No such folder, or no photo in it.
    """
    if path.is_file():
        return ImageFolder.of(path.parent, [path.name])
    named = {folder.resolve() for folder in maps}

    def is_of_map(folder: Path) -> bool:
        of_map = folder.resolve() in named or all((folder / part).exists() for part in (RECIPE, FEATURES))
        if of_map:
            logger.info("Photos in %s are a map's, no queries; they are passed over.", folder)
        return of_map

    return ImageFolder.scan(path, passes_over=is_of_map)


def sign(path: Path, row: Row) -> Signature:
    """Signs a query; one of the length and time of change that its row tells is not read again.

    Raises:
        InputError: The file cannot be read.
    """
    former = Signature(**row[FILE]) if FILE in row else None
    try:
        status = path.stat()
    except OSError:
        return signature(path)  # tells why not
    same = former and (former.bytes, former.mtime_ns) == (status.st_size, status.st_mtime_ns)
    return former if former and same else signature(path)


def signed(name: str, row: Row, signatures: Mapping[str, Signature]) -> Row:
    """The row with the signature of its photo, where the photo could be read."""
    return {**row, FILE: asdict(signatures[name])} if name in signatures else row


def unreadable(folder: ImageFolder, names: Collection[str]) -> dict[str, InputError]:
    """The photos that cannot be decoded, and why."""
    errors = {}
    for name in names:
        try:
            read_photo(folder.path(name), longest=1)
        except InputError as error:
            errors[name] = error
    return errors
