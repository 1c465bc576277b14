"""A file that grows record by record and that a kill leaves readable to the last whole record.

HDF5 files do not survive a process that dies while writing them; a journal does. A killed process loses at
most the record it was writing: the checksum tells a torn one, which is cut off on opening.
"""

import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gim_sfm.errors import OutputError

_PREFIX = struct.Struct("<4sIQI")  # mark, bytes of the head, bytes of the arrays, checksum of both
_MARK = b"gimj"
_SYNC_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """One entry.

    Attributes:
        key: What it is about.
        facts: A short text kept in memory while the arrays stay on disk.
        arrays: The arrays by name.
    """

    key: str
    facts: str
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as listed: where it begins, without its arrays."""

    key: str
    facts: str
    offset: int


class Journal:
    """An open journal; the process that has it open is the only one that can.

    Args:
        path: The file, begun if missing.

    Raises:
        OutputError: Another process has it open, or its folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open_locked(path)
        self.entries: list[Entry] = list(self._scan())
        self._synced = time.monotonic()

    @property
    def is_empty(self) -> bool:
        """Whether it holds no record."""
        return self._end == 0

    def append(self, record: Record) -> int:
        """Adds a record and returns its offset. A record that does not fit on the disk leaves no trace.

        Raises:
            OSError: The write failed.
        """
        head, arrays = _head(record), [np.ascontiguousarray(array) for array in record.arrays.values()]
        bodies = [array.reshape(-1).view(np.uint8).data for array in arrays if array.size]
        checksum = zlib.crc32(head)
        for body in bodies:
            checksum = zlib.crc32(body, checksum)
        prefix = _PREFIX.pack(_MARK, len(head), sum(map(len, bodies)), checksum)
        offset = self._end
        try:
            self._end += _write_all(self._descriptor, offset, [memoryview(prefix + head), *bodies])
        except OSError:
            os.ftruncate(self._descriptor, offset)
            raise
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self.sync()
        return offset

    def read(self, offset: int) -> Record:
        """The record that begins at this offset."""
        _, head_size, body_size, _ = _PREFIX.unpack(os.pread(self._descriptor, _PREFIX.size, offset))
        content = os.pread(self._descriptor, head_size + body_size, offset + _PREFIX.size)
        key, facts, kinds = json.loads(content[:head_size])
        return Record(key, facts, _arrays(content, head_size, kinds))

    def sync(self) -> None:
        """Has the disk keep everything appended so far even if the machine loses power."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def clear(self) -> None:
        """Drops every record."""
        os.ftruncate(self._descriptor, 0)
        self._end, self.entries = 0, []

    def close(self) -> None:
        """Lets go of the file, and removes it if it holds nothing."""
        if self.is_empty:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _scan(self) -> Iterator[Entry]:
        self._end, size = 0, os.fstat(self._descriptor).st_size
        while entry := self._entry_at(self._end, size):
            yield entry
        os.ftruncate(self._descriptor, self._end)

    def _entry_at(self, offset: int, size: int) -> Entry | None:
        prefix = os.pread(self._descriptor, _PREFIX.size, offset)
        if len(prefix) < _PREFIX.size:
            return None
        mark, head_size, body_size, checksum = _PREFIX.unpack(prefix)
        end = offset + _PREFIX.size + head_size + body_size
        if mark != _MARK or end > size:
            return None
        content = os.pread(self._descriptor, head_size + body_size, offset + _PREFIX.size)
        if zlib.crc32(content) != checksum:
            return None
        key, facts, _ = json.loads(content[:head_size])
        self._end = end
        return Entry(key, facts, offset)


def _head(record: Record) -> bytes:
    kinds = [(name, array.dtype.str, array.shape) for name, array in record.arrays.items()]
    return json.dumps([record.key, record.facts, kinds]).encode()


def _arrays(content: bytes, start: int, kinds: list[tuple[str, str, list[int]]]) -> dict[str, np.ndarray]:
    arrays = {}
    for name, kind, shape in kinds:
        count = int(np.prod(shape))
        array = np.frombuffer(content, np.dtype(kind), count, start).reshape(shape)
        arrays[name] = array.copy()
        start += array.nbytes
    return arrays


def _write_all(descriptor: int, offset: int, parts: list[memoryview]) -> int:
    total = 0
    for part in parts:
        rest = part
        while len(rest):
            written = os.pwrite(descriptor, rest, offset + total)
            total, rest = total + written, rest[written:]
    return total


def _open_locked(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror}", remedy="choose another output folder"
            ) from error
        try:
            lock(descriptor, path.parent)
        except OutputError:
            os.close(descriptor)
            raise
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its former holder removed it between our opening and our locking


def lock(descriptor: int, folder: Path) -> None:
    """Takes the lock of an open file or folder; it falls when the process ends, however it ends.

    Raises:
        OutputError: Another run holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"another run is using {folder}", remedy="wait until it ends or choose another output folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"nothing in {folder} can be locked: {error.strerror}",
            remedy="choose an output folder on a file system that knows locks, such as a local disk",
        ) from error
