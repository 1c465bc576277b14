"""HDF5 files that a killed process left marked as open, opened again.

hloc writes the newest layout of HDF5, whose first block tells that the file is open for writing; killed in
that moment, no program opens it again. What was complete when it was last written out is there all the same.
(HDF5 File Format Specification 3.0, section II.A, superblock version 3.)
"""

import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from gim_sfm.errors import InputError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_VERSION, _OFFSETS, _FLAGS = 8, 9, 11
_FIXED = 12
"""Bytes before the four addresses, which are followed by the checksum of all before it."""

_MIXES = ((4, 6, 8), (16, 19, 4))
_FINAL = (14, 11, 25, 16, 4, 14, 24)
_WORD = 0xFFFFFFFF

logger = logging.getLogger(__name__)


@contextmanager
def changeable(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file open for changes, one that a killed run left open too.

    Raises:
        InputError: It is damaged, or another run is writing it.
    """
    try:
        release(path)
        file = h5py.File(path, "r+")
        file.visititems(lambda *_: None)
    except (OSError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{path} cannot be opened; a killed run may have damaged it: {error}",
            remedy="Delete it and run again, or end the run that uses it.",
        ) from error
    with file:
        yield file


def release(path: Path) -> None:
    """Takes back the mark of a file that it is open for writing, if no process has it open any more.

    Raises:
        OSError: It cannot be read or written, or another process has it open.
    """
    block = _first_block(path)
    if not block or not block[_FLAGS] or _sealed(block[:-4]) != block:
        return
    with path.open("r+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as HDF5 itself does while it writes
        os.pwrite(file.fileno(), _sealed(block[:_FLAGS] + b"\0" + block[_FIXED:-4]), 0)
        logger.warning("%s was left open by a killed run; what was not written out is missing.", path)


def _first_block(path: Path) -> bytes:
    """The block that may have the mark; empty in files of older layouts or another kind."""
    with path.open("rb") as file:
        block = file.read(_FIXED)
        if len(block) < _FIXED or not block.startswith(_SIGNATURE) or block[_VERSION] < 3:
            return b""
        return block + file.read(4 * block[_OFFSETS] + 4)


def _sealed(block: bytes) -> bytes:
    return block + struct.pack("<I", checksum(block))


def checksum(data: bytes) -> int:
    """The checksum of HDF5's metadata: lookup3 of Bob Jenkins (2006, public domain), from seed 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _WORD
    padded = data + bytes(-len(data) % 12)
    words = list(struct.iter_unpack("<3I", padded))
    for place, (x, y, z) in enumerate(words):
        a, b, c = (a + x) & _WORD, (b + y) & _WORD, (c + z) & _WORD
        if place < len(words) - 1:
            a, b, c = _mixed(a, b, c)
    for turn in _FINAL:
        c = ((c ^ b) - _turned(b, turn)) & _WORD
        a, b, c = b, c, a
    return b


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for turns in _MIXES:
        for turn in turns:
            a = ((a - c) & _WORD) ^ _turned(c, turn)
            c = (c + b) & _WORD
            a, b, c = b, c, a
    return a, b, c


def _turned(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _WORD
