"""HDF5 files of many small groups: fast to write and read, with an index and their origin in attributes."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gim_sfm.errors import OutputError

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Origin:
    """What made a file.

    Attributes:
        digest: Names settings and weights, in hexadecimal.
        settings: What the digest stands for.
    """

    digest: str
    settings: Mapping[str, Any]


def read_group(group: h5py.Group) -> dict[str, np.ndarray]:
    """Every dataset of an HDF5 group by name; h5py's upper layer would take several times as long."""
    opened = ((name, h5py.h5o.open(group.id, name)) for name in group.id)
    return {
        name.decode(): _read_dataset(item) for name, item in opened if isinstance(item, h5py.h5d.DatasetID)
    }


def _read_dataset(dataset: h5py.h5d.DatasetID) -> np.ndarray:
    array = np.empty(dataset.shape, dataset.dtype)
    if array.size:
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, array)
    return array


def write_group(
    file: h5py.File, path: str, arrays: Arrays, attributes: Mapping[str, Mapping[str, float]]
) -> None:
    """Writes a group of datasets, in the place of an older one; attributes are given by dataset."""
    group = _new_group(file, path.encode())
    for name, array in arrays.items():
        whole = np.ascontiguousarray(array)
        dataset = h5py.h5d.create(group, name.encode(), *_layout(whole.dtype, whole.shape))
        if whole.size:
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, whole)
        for attribute, value in attributes.get(name, {}).items():
            h5py.Dataset(dataset).attrs[attribute] = np.float32(value)


def _new_group(file: h5py.File, path: bytes) -> h5py.h5g.GroupID:
    try:
        return h5py.h5g.create(file.id, path, lcpl=_with_parents())
    except ValueError:  # there is one, to be replaced; asking first would double the time for every other
        file.id.unlink(path)
        return h5py.h5g.create(file.id, path, lcpl=_with_parents())


@cache
def _with_parents() -> h5py.h5p.PropLCID:
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    return links


@lru_cache(64)
def _layout(kind: np.dtype[Any], shape: tuple[int, ...]) -> tuple[h5py.h5t.TypeID, h5py.h5s.SpaceID]:
    return h5py.h5t.py_create(kind), h5py.h5s.create_simple(shape)


# What the file says of itself lies in attributes of its root: a dataset there would be taken for a photo's.
_DIGEST, _SETTINGS, _KEYS, _FACTS = "gim_sfm_digest", "gim_sfm_settings", "gim_sfm_keys", "gim_sfm_facts"


def write_index(file: h5py.File, origin: Origin, facts: Mapping[str, str]) -> None:
    """Notes in a file what made it and which groups it holds, so that nobody need visit them all."""
    file.attrs[_DIGEST] = origin.digest
    file.attrs[_SETTINGS] = json.dumps(origin.settings)
    file.attrs[_KEYS] = _squeezed(list(facts))
    file.attrs[_FACTS] = _squeezed(list(facts.values()))


def index_of(path: Path) -> dict[str, str]:
    """Keys and facts of a file's groups; empty where there is no file.

    Raises:
        OutputError: The file is damaged or not ours.
    """
    if not path.exists():
        return {}
    with _ours(path) as file:
        return dict(zip(_unsqueezed(file.attrs[_KEYS]), _unsqueezed(file.attrs[_FACTS]), strict=True))


def origin_of(path: Path) -> Origin | None:
    """What made a file; None where there is no file.

    Raises:
        OutputError: The file is damaged or not ours.
    """
    if not path.exists():
        return None
    with _ours(path) as file:
        return Origin(str(file.attrs[_DIGEST]), json.loads(file.attrs[_SETTINGS]))


@contextmanager
def _ours(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise OutputError(
            f"{path} is damaged or no HDF5 file: {error}", remedy="move it elsewhere and run again"
        ) from error
    with file:
        if _DIGEST not in file.attrs:
            raise OutputError(
                f"{path} does not say which settings made it, so nothing can be added to it",
                remedy="choose another output folder or move the file elsewhere",
            )
        yield file


def _squeezed(lines: Sequence[str]) -> np.ndarray:
    return np.frombuffer(zlib.compress(json.dumps(lines).encode(), 1), np.uint8)


def _unsqueezed(content: np.ndarray) -> list[str]:
    lines: list[str] = json.loads(zlib.decompress(content.tobytes()))
    return lines
