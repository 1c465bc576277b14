"""What a stage of hloc reads, looked for before it starts: hloc itself ends in a traceback."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py

from gim_sfm.errors import InputError
from gim_sfm.hloc_plugin.reopening import release

PAIRS = "Make it with a stage pairs_from_..., or write two names a line."
FEATURES = "Run extract_features first, or name a file that it wrote."
MATCHES = "Run match_features or match_dense first, or name a file that they wrote."
NAMES = "Write one name a line, as from the folder of photos."


def require_inputs(stage: str, arguments: Sequence[str]) -> None:
    """Checks the files and folders that the flags of a stage name.

    Files that a killed run left marked as open for writing are made readable again.

    Raises:
        InputError: One is missing or of another kind.
    """
    table = _INPUTS.get(stage, {})
    parser = argparse.ArgumentParser(add_help=False)
    for flag in table:
        parser.add_argument(f"--{flag}", type=Path)
    for flag, path in vars(parser.parse_known_args(arguments)[0]).items():
        if path is not None:
            check, remedy = table[flag]
            check(path, f"--{flag} {path}", remedy)


def require_groups(path: Path, told: str, remedy: str) -> None:
    """Looks for an HDF5 file.

    Args:
        path: Where it should be.
        told: How a message calls it.
        remedy: What to do where it is missing.

    Raises:
        InputError: It is missing, damaged, of another kind, or being written by another run.
    """
    _require_file(path, told, remedy)
    try:
        release(path)
        h5py.File(path, "r").close()
    except OSError as error:
        raise InputError(f"{told} is damaged, in use, or no HDF5 file: {error}.", remedy=remedy) from error


def require_photos(path: Path, told: str, remedy: str) -> None:
    """Looks for a folder.

    Raises:
        InputError: It is missing.
    """
    if not path.is_dir():
        raise InputError(f"{told} is no folder.", remedy=remedy)


def _require_file(path: Path, told: str, remedy: str) -> None:
    if not path.is_file():
        raise InputError(f"{told} is no file.", remedy=remedy)


def _require_lists(path: Path, told: str, remedy: str) -> None:
    """A list, or a pattern of lists, which hloc takes too."""
    if not (path.name and any(path.parent.glob(path.name))):
        raise InputError(f"{told} is no file.", remedy=remedy)


def _require_model(path: Path, told: str, remedy: str) -> None:
    parts = ("cameras", "images", "points3D")
    if not any(all((path / f"{part}{end}").is_file() for part in parts) for end in (".bin", ".txt")):
        raise InputError(f"{told} holds no COLMAP model.", remedy=remedy)


Check = Callable[[Path, str, str], None]

_PHOTOS = (require_photos, "Name the folder of the photos.")
_PAIRS = (_require_file, PAIRS)
_FEATURES = (require_groups, FEATURES)
_MATCHES = (require_groups, MATCHES)
_LISTS = (_require_lists, NAMES)
_MODEL = (_require_model, "Name a folder with cameras, images and points3D files.")
_QUERIES = (_require_lists, "Write name MODEL WIDTH HEIGHT and the parameters of that camera model a line.")

_MAPPING: Mapping[str, tuple[Check, str]] = {
    "image_dir": _PHOTOS,
    "pairs": _PAIRS,
    "features": _FEATURES,
    "matches": _MATCHES,
}
_INPUTS: Mapping[str, Mapping[str, tuple[Check, str]]] = {
    "extract_features": {"image_dir": _PHOTOS, "image_list": _LISTS},
    "match_features": {"pairs": _PAIRS},
    "match_dense": {"image_dir": _PHOTOS, "pairs": _PAIRS},
    "reconstruction": _MAPPING,
    "triangulation": {**_MAPPING, "reference_sfm_model": _MODEL},
    "localize_sfm": {
        "reference_sfm": _MODEL,
        "queries": _QUERIES,
        "features": _FEATURES,
        "matches": _MATCHES,
        "retrieval": _PAIRS,
    },
    "pairs_from_exhaustive": {
        "image_list": _LISTS,
        "features": _FEATURES,
        "ref_list": _LISTS,
        "ref_features": _FEATURES,
    },
    "pairs_from_retrieval": {
        "descriptors": _FEATURES,
        "query_list": _LISTS,
        "db_list": _LISTS,
        "db_model": _MODEL,
        "db_descriptors": _FEATURES,
    },
    "pairs_from_covisibility": {"model": _MODEL},
    "pairs_from_poses": {"model": _MODEL},
}
"""Flags of every stage that name what it reads, how that is checked, and what to do where it is missing."""
