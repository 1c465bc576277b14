"""What killed runs of hloc leave in its files: pairs that count as done and are not."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from gim_sfm.errors import InputError
from gim_sfm.files import replacing
from gim_sfm.store import feature_names, pair_key
from gim_sfm.types import Pair

_MATCHES = frozenset(("matches0", "matching_scores0"))
_POINTS = frozenset(("keypoints0", "keypoints1", "scores"))

log = logging.getLogger(__name__)


def take_out_unwritten(path: Path) -> None:
    """Takes pairs without matches out of a file of sparse matches, so that they are matched again.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return
    with changeable(path) as file:
        unwritten = [key for key in pair_groups(file) if not file[key].keys() >= _MATCHES]
        for key in unwritten:
            del file[key]
    _tell(path, len(unwritten))


def take_out_unsound(path: Path, pairs: Iterable[Pair], keypoints: Mapping[str, int], raw: Path) -> None:
    """Takes pairs that were not joined to the keypoints there are out of a file of dense matches.

    Args:
        path: The matches file.
        pairs: Which pairs are looked at.
        keypoints: Number of keypoints by photo.
        raw: Folder that takes the points of these pairs, so that they need not be matched again.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return
    with changeable(path) as file:
        unsound = [pair for pair in pairs if pair_key(pair) in file and not _is_sound(file, pair, keypoints)]
        if unsound:
            with replacing(raw / "unfinished.h5") as kept, h5py.File(kept, "w") as target:
                for key in map(pair_key, unsound):
                    if file[key].keys() >= _POINTS:
                        _copy_points(file[key], target.create_group(key))
        for key in map(pair_key, unsound):
            del file[key]
    _tell(path, len(unsound))


def counts_of(paths: Iterable[Path]) -> dict[str, int]:
    """Number of keypoints of every photo in these files."""
    counts: dict[str, int] = {}
    for path in paths:
        with h5py.File(path, "r") as file:
            counts |= {name: len(file[name]["keypoints"]) for name in feature_names(file)}
    return counts


def pair_groups(file: h5py.File) -> list[str]:
    """The groups of pairs, of two levels or, in old files, of one."""
    found = []
    for name, outer in file.items():
        inner = [f"{name}/{key}" for key, item in outer.items() if isinstance(item, h5py.Group)]
        found += inner or [name]
    return found


@contextmanager
def changeable(path: Path) -> Iterator[h5py.File]:
    """A matches file open for changes.

    Raises:
        InputError: It is damaged.
    """
    try:
        file = h5py.File(path, "r+")
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened; a killed run may have damaged it: {error}",
            remedy="Delete it and run again, or end the run that uses it.",
        ) from error
    with file:
        yield file


def _is_sound(file: h5py.File, pair: Pair, keypoints: Mapping[str, int]) -> bool:
    group = file[pair_key(pair)]
    if not group.keys() >= _MATCHES or not keypoints.keys() >= set(pair):
        return False
    matches0 = np.asarray(group["matches0"])
    largest = int(matches0.max()) if len(matches0) else -1
    return len(matches0) <= keypoints[pair[0]] and largest < keypoints[pair[1]]


def _copy_points(source: h5py.Group, target: h5py.Group) -> None:
    for name in sorted(_POINTS):
        source.copy(name, target)


def _tell(path: Path, count: int) -> None:
    if count:
        log.warning(
            "%s: a run before was killed; %d pairs are not finished and are taken up again.", path, count
        )
