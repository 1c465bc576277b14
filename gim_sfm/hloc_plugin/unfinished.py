"""What killed runs of hloc leave in its files: photos and pairs that count as done and are not."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gim_sfm.files import replacing
from gim_sfm.hloc_plugin.presets import is_ours
from gim_sfm.hloc_plugin.reopening import changeable
from gim_sfm.store import feature_names, pair_key
from gim_sfm.types import Pair

_MATCHES = frozenset(("matches0", "matching_scores0"))
_POINTS = frozenset(("keypoints0", "keypoints1", "scores"))
_OTHER_SIDE = {"keypoints0": "keypoints1", "keypoints1": "keypoints0"}
_DENSE = "score"
"""What keypoints of dense matches have, which are complete without what extractors write."""

log = logging.getLogger(__name__)


def needed_of(conf: Mapping[str, Any] | None) -> frozenset[str]:
    """Datasets of every photo that an extractor is done with; hloc writes the size last."""
    ours = conf is not None and is_ours(conf)
    return frozenset(("keypoints", "descriptors", "scores", "image_size") if ours else ("image_size",))


def take_out_unextracted(path: Path, names: Iterable[str], needed: frozenset[str]) -> None:
    """Takes photos out of a features file that lack some of its datasets, so that they are extracted again.

    Args:
        path: A features file.
        names: Which photos are looked at.
        needed: What every photo must have.

    Raises:
        InputError: The file is damaged.
    """
    if not path.exists():
        return
    with changeable(path) as file:
        groups = {name: _datasets(file[name]) for name in names if name in file}
        unwritten = [name for name, parts in groups.items() if not parts >= needed and _DENSE not in parts]
        for name in unwritten:
            del file[name]
    _tell(path, len(unwritten), "photos")


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
    _tell(path, len(unwritten), "pairs")


def take_out_unsound(path: Path, pairs: Iterable[Pair], keypoints: Mapping[str, int], raw: Path) -> None:
    """Takes pairs that were not joined to the keypoints there are out of a file of dense matches.

    A pair may be there in either order, and under the keys of old, by which hloc takes it for done as well.

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
        found = _find_groups(file, pairs)
        unsound = {key: place for key, place in found.items() if not _is_sound(file[key], place, keypoints)}
        if unsound:
            with replacing(raw / "unfinished.h5") as kept, h5py.File(kept, "w") as target:
                for key, place in unsound.items():
                    _keep_points(file[key], place, target)
        for key in unsound:
            del file[key]
    _tell(path, len(unsound), "pairs")


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


@dataclass(frozen=True, slots=True)
class _Place:
    """A pair as it was asked for, and whether its group has it the other way round."""

    pair: Pair
    turned: bool

    @property
    def written(self) -> Pair:
        return (self.pair[1], self.pair[0]) if self.turned else self.pair


def _find_groups(file: h5py.File, pairs: Iterable[Pair]) -> dict[str, _Place]:
    present, found = set(pair_groups(file)), dict[str, _Place]()
    for pair in pairs:
        for place in (_Place(pair, False), _Place(pair, True)):
            key = pair_key(place.written)
            for name in {key, key.replace("/", "_")} & present - found.keys():
                found[name] = place
    return found


def _is_sound(group: h5py.Group, place: _Place, keypoints: Mapping[str, int]) -> bool:
    if not group.keys() >= _MATCHES or not keypoints.keys() >= set(place.pair):
        return False
    first, second = place.written
    matches0 = np.asarray(group["matches0"])
    largest = int(matches0.max()) if len(matches0) else -1
    return len(matches0) <= keypoints[first] and largest < keypoints[second]


def _keep_points(group: h5py.Group, place: _Place, file: h5py.File) -> None:
    key = pair_key(place.pair)
    if group.keys() >= _POINTS and key not in file:
        target = file.create_group(key)
        for name in sorted(_POINTS):
            group.copy(name, target, name=_OTHER_SIDE.get(name, name) if place.turned else name)


def _datasets(group: h5py.Group) -> set[str]:
    return {name for name, item in group.items() if isinstance(item, h5py.Dataset)}


def _tell(path: Path, count: int, what: str) -> None:
    if count:
        log.warning(
            "%s: a run before was killed; %d %s are not finished and are taken up again.", path, count, what
        )
