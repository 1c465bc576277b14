"""An HDF5 file that can be added to, is never found half written, and belongs to one digest of settings.

New groups go to a journal beside the file, which survives a kill, and at the same time to a draft: a copy of
the file that nobody reads. Publishing closes the draft and renames it over the file. A kill leaves the file
as last published and the journal; the draft is thrown away and drawn up again from these two.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from gim_sfm.errors import OutputError
from gim_sfm.groups import Arrays, Origin, index_of, origin_of, read_group, write_group, write_index
from gim_sfm.journal import Journal, Record, lock

Packed = tuple[str, Arrays]
"""Facts and arrays of one group."""

# Half the overhead per group of HDF5's oldest format; 1.10 and later read it.
_LIBRARY_BOUNDS = ("v110", "v110")
_QUEUED = 64
_RESERVE_BYTES = 48 * 2**20  # left free so that HDF5 can always flush its caches and close

log = logging.getLogger(__name__)


class Archive:
    """Groups of arrays by key, each with a line of facts; see the module's text for how they are kept.

    Args:
        path: The HDF5 file; its folder is made if missing.
        digest: Names the settings and weights that make the groups, in hexadecimal. A file of another digest
            is set aside under superseded/ beside it, and comes back when that digest is asked for again.
        settings: What the digest stands for, told when it changed.
        dataset_attributes: Scalar attributes by dataset name, given to the datasets of every new group.

    Raises:
        OutputError: The folder cannot be written, another run uses it, or the file is damaged or not ours.
    """

    def __init__(
        self,
        path: Path,
        digest: str,
        settings: Mapping[str, Any],
        dataset_attributes: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.path = path
        self._origin = Origin(digest, json.loads(json.dumps(settings)))
        self._attributes = dataset_attributes or {}
        self._failure: BaseException | None = None
        self._closed = False
        self._draft: h5py.File | None = None
        self._pending: dict[str, Future[None]] = {}
        self._changing = threading.Lock()
        self._reading = threading.RLock()
        make_folder(path.parent)
        self._journal = Journal(path.with_name(f"{path.name}.journal"))
        try:
            self._begin()
        except BaseException:
            self._journal.close()
            raise
        self._slots = threading.BoundedSemaphore(_QUEUED)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"writes {path.name}")

    def facts(self, key: str) -> str | None:
        """What was noted with a group; None where there is no such group."""
        self._settle(key)
        return self._facts.get(key)

    def keys(self) -> tuple[str, ...]:
        """The keys of all groups whose writing has finished."""
        with self._changing:
            return tuple(self._facts)

    def arrays(self, key: str) -> dict[str, np.ndarray]:
        """Reads a group.

        Raises:
            OutputError: It is not there.
        """
        self._settle(key)
        with self._reading:
            offset = self._offsets.get(key)
            if offset is not None:
                return dict(self._journal.read(offset).arrays)
            return self._published(key)

    def put(self, key: str, pack: Callable[[], Packed]) -> None:
        """Hands a group to the writing thread; waits only while that is far behind.

        Args:
            key: Where in the HDF5 file the group goes; an older one is replaced.
            pack: Gives facts and arrays; called in the writing thread.

        Raises:
            OutputError: An earlier group could not be written.
        """
        self._require_sound()
        self._slots.acquire()
        with self._changing:
            self._pending[key] = self._writer.submit(self._write, key, pack)

    def flush(self) -> None:
        """Returns when everything put so far is on the disk to stay.

        Raises:
            OutputError: Something could not be written.
        """
        self._writer.submit(self._guarded, self._journal.sync).result()

    def publish(self) -> None:
        """Brings the HDF5 file up to date.

        Raises:
            OutputError: Something could not be written; what was, is kept.
        """
        self._writer.submit(self._guarded, self._publish).result()

    def close(self) -> None:
        """Publishes and lets go of the files; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.publish()
        finally:
            self._writer.shutdown()
            self._close_published()
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except OutputError as failure:
            if error is None:
                raise
            if failure is not error:
                log.error("%s", failure)  # the block's own error says why; do not hide it behind this one

    def _begin(self) -> None:
        self._draft_path.unlink(missing_ok=True)
        self._main: h5py.File | None = None
        present, journaled = origin_of(self.path), self._journal_origin()
        if present and journaled and present.digest != journaled.digest:
            raise OutputError(
                f"{self._journal.path} does not belong to {self.path}",
                remedy="move one of the two files elsewhere",
            )
        former = present or journaled
        if former and former.digest != self._origin.digest:
            self._supersede(former)
        self._restore()
        self._load()

    def _journal_origin(self) -> Origin | None:
        if not self._journal.entries:
            return None
        return Origin(**json.loads(self._journal.entries[0].facts))

    def _load(self) -> None:
        self._facts = index_of(self.path)
        fresh = [entry for entry in self._journal.entries[1:] if self._facts.get(entry.key) != entry.facts]
        self._offsets = {entry.key: entry.offset for entry in fresh}
        self._facts |= {entry.key: entry.facts for entry in fresh}
        if not fresh:  # a kill fell between publishing and clearing
            self._journal.clear()

    def _supersede(self, former: Origin) -> None:
        wanted, self._origin = self._origin, former
        self._load()
        self._guarded(self._publish)
        self._origin = wanted
        aside = self._superseded_path(former.digest)
        if self.path.exists():
            make_folder(aside.parent)
            self.path.replace(aside)
            told = ", ".join(changes(former.settings, wanted.settings)) or "not told by its settings"
            log.warning("%s was made otherwise (%s); it is kept as %s", self.path, told, aside)

    def _restore(self) -> None:
        aside = self._superseded_path(self._origin.digest)
        if self.path.exists() or self._journal.entries or not aside.exists():
            return
        origin = origin_of(aside)
        if origin and origin.digest == self._origin.digest:
            aside.replace(self.path)
            log.info("%s was made with these settings before; it is taken up again", aside)

    def _superseded_path(self, digest: str) -> Path:
        return self.path.parent / "superseded" / f"{self.path.stem}-{digest[:12]}{self.path.suffix}"

    @property
    def _draft_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.draft")

    def _settle(self, key: str) -> None:
        with self._changing:
            pending = self._pending.get(key)
        if pending:
            pending.result()

    def _require_sound(self) -> None:
        if self._failure:
            raise self._failure

    def _guarded(self, action: Callable[[], None]) -> None:
        """Runs one step; after a failed one none runs, since the draft may lack what the index lists."""
        self._require_sound()
        try:
            action()
        except BaseException as error:
            self._failure = self._explained(error)
            self._discard_draft()
            raise self._failure from error

    def _explained(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError | RuntimeError):  # HDF5 raises either
            return error
        free = shutil.disk_usage(self.path.parent).free
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        return OutputError(
            f"{self.path} cannot be written: {reason} ({free / 2**20:.0f} MiB free)",
            remedy="make room and run the same command again: everything computed so far is kept",
        )

    def _write(self, key: str, pack: Callable[[], Packed]) -> None:
        try:
            self._guarded(lambda: self._add(key, *pack()))
        finally:
            self._slots.release()
            with self._changing:
                self._pending.pop(key, None)

    def _add(self, key: str, facts: str, arrays: Arrays) -> None:
        self._require_room(2 * sum(array.nbytes for array in arrays.values()))
        if self._journal.is_empty:
            self._journal.append(Record("", json.dumps(asdict(self._origin)), {}))
        offset = self._journal.append(Record(key, facts, arrays))
        draft = self._open_draft()
        with self._changing:
            self._offsets[key], self._facts[key] = offset, facts
        write_group(draft, key, arrays, self._attributes)

    def _open_draft(self) -> h5py.File:
        """The draft, begun from the published file and what the journal holds beyond it."""
        if self._draft is None:
            if self.path.exists():
                self._require_room(self.path.stat().st_size)
                shutil.copyfile(self.path, self._draft_path)
            self._draft = h5py.File(self._draft_path, "a", libver=_LIBRARY_BOUNDS, locking=False)
            for offset in self._offsets.values():
                record = self._journal.read(offset)
                self._require_room(2 * sum(array.nbytes for array in record.arrays.values()))
                write_group(self._draft, record.key, record.arrays, self._attributes)
        return self._draft

    def _require_room(self, needed: int) -> None:
        if shutil.disk_usage(self.path.parent).free < needed + _RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def _publish(self) -> None:
        if not self._offsets:
            return
        draft = self._open_draft()
        write_index(draft, self._origin, self._facts)
        draft.close()
        self._draft = None
        _sync(self._draft_path)
        with self._reading:
            self._close_published()
            self._draft_path.replace(self.path)
            _sync(self.path.parent)
            self._offsets = {}
            self._journal.clear()

    def _discard_draft(self) -> None:
        if self._draft is not None:
            with suppress(OSError, RuntimeError):  # closing flushes, which a full disk refuses
                self._draft.close()
            self._draft = None
        with suppress(OSError):
            self._draft_path.unlink(missing_ok=True)

    def _close_published(self) -> None:
        if self._main is not None:
            self._main.close()
            self._main = None

    def _published(self, key: str) -> dict[str, np.ndarray]:
        try:
            if self._main is None:
                self._main = h5py.File(self.path, "r", locking=False)
            return read_group(self._main[key])
        except (OSError, KeyError) as error:
            raise OutputError(
                f"{self.path} has no readable group {key}", remedy="move the file elsewhere and run again"
            ) from error


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Makes a folder if need be and keeps other runs out of it while the block runs.

    Raises:
        OutputError: It cannot be made, or another run is using it.
    """
    make_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def digest_of(settings: Mapping[str, Any]) -> str:
    """A digest, in hexadecimal, that is equal for equal settings whatever the order of their keys."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def changes(former: Mapping[str, Any], wanted: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The settings that differ, each as `name: former -> wanted`."""
    for name in sorted({*former, *wanted}):
        old, new = former.get(name), wanted.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changes(old, new, f"{within}{name}.")
        elif old != new:
            yield f"{within}{name}: {old!r} -> {new!r}"


def make_folder(folder: Path) -> None:
    """Makes a folder, and those it lies in, unless it is there.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the folder {folder} cannot be made: {error.strerror}", remedy="choose another output folder"
        ) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
