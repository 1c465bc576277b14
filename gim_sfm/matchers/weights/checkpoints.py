"""Files of network parameters: read without running anything in them, freed of prefixes, told apart."""

import json
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from gim_sfm.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("model.", "matcher.")
"""What trainers put before the names of the network they train."""

_WRAPPERS = ("state_dict", "model", "extractor")
"""Keys under which checkpoints keep their weights."""

_UNUSED = ("encoder.net.fc.",)
"""The classifier of DKM's trunk: some files of DKM hold it, others do not, and nothing uses it."""

_LARGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

_CALL = re.compile(r"GLOBAL (\S+)")


def load_state_dict(path: Path) -> dict[str, "Tensor"]:
    """Reads the parameters of a checkpoint; nothing in the file is ever run.

    Args:
        path: A PyTorch or safetensors file; its content tells which, not its name. A checkpoint that keeps
            its weights under a key such as `state_dict` or `model` is unwrapped.

    Raises:
        WeightsError: The file is damaged, would run code, or holds no parameters.
    """
    content = _read_safetensors(path) if is_safetensors(path) else _read_pickled(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not _holds_only_tensors(content):
        raise WeightsError(
            f"{path} is no checkpoint of a network: it holds something other than named tensors.",
            remedy="Name a file of weights (a state dict, plain or under the key state_dict or model).",
        )
    return dict(content)


def strip_prefixes(
    state_dict: Mapping[str, "Tensor"], prefixes: Sequence[str] = PREFIXES
) -> dict[str, "Tensor"]:
    """Parameters under their network's own names: one leading prefix is taken off each name that has one.

    Networks that lie side by side in one file under names of their own (`superpoint.`) stay apart.

    Args:
        state_dict: Parameters as a file names them.
        prefixes: Of each name, the first that fits is taken off, once.

    Raises:
        WeightsError: Two parameters would end up under one name.
    """
    stripped: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        own = _strip(name, prefixes)
        if own in stripped:
            raise WeightsError(
                f"The weights name the parameter {own} twice, with and without a prefix.",
                remedy="Keep one network in a file, each of its parameters once.",
            )
        stripped[own] = value
    return stripped


def _strip(name: str, prefixes: Sequence[str]) -> str:
    prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
    return name.removeprefix(prefix)


def layout_of(state_dict: Mapping[str, "Tensor"]) -> str:
    """Digest of what parameters there are, not of their values: names without prefixes, shapes, formats.

    Returns:
        16 hexadecimal digits, the same for every training of one network.
    """
    return layout_digest(
        (name, tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in strip_prefixes(state_dict).items()
    )


def layout_digest(parameters: Iterable[tuple[str, tuple[int, ...], str]]) -> str:
    """The digest of (name, shape, number format) of each parameter, in any order."""
    lines = sorted(
        f"{name} {'x'.join(map(str, shape))} {form}"
        for name, shape, form in parameters
        if not name.startswith(_UNUSED)
    )
    return sha256("\n".join(lines).encode()).hexdigest()[:16]


def torn_record(path: Path) -> str:
    """The first record of an archive whose bytes do not fit their own checksum; empty where all fit.

    PyTorch's files are archives with a CRC of each tensor, which reading them does not compare. Files in
    older containers carry none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() or ""
    except zipfile.BadZipFile:
        return ""


def _holds_only_tensors(content: Mapping[Any, Any]) -> bool:
    from torch import Tensor

    return bool(content) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _read_pickled(path: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Detected pickle protocol"
            )  # said again by what follows
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except UnpicklingError as error:
        raise _unreadable(path, _refusal(str(error))) from error
    except MemoryError:
        raise
    except Exception as error:  # torch promises no kind of error for damaged bytes, and raises a dozen kinds
        raise _unreadable(path, f"{error}".partition("\n")[0] or type(error).__name__) from error


def _refusal(told: str) -> str:
    """Torch's words on a pickle, without its advice to load it all the same."""
    call = _CALL.search(told)
    return f"opening it would run {call[1]}, which is refused" if call else "it is no list of plain tensors"


def is_safetensors(path: Path) -> bool:
    """Whether a file begins with the length of a JSON header, and the header."""
    try:
        with path.open("rb") as stream:
            start = stream.read(9)
    except OSError:
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < _LARGEST_HEADER


def _read_safetensors(path: Path) -> dict[str, "Tensor"]:
    """The tensors of a file in Hugging Face's format: header length, JSON header, raw little-endian bytes."""
    try:
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        header.pop("__metadata__", None)
        return {name: _tensor(memoryview(content)[start:], entry) for name, entry in header.items()}
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _unreadable(path, f"its safetensors header does not fit its content ({error})") from error


def _tensor(content: memoryview, entry: Mapping[str, Any]) -> "Tensor":
    import torch

    forms = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
        "U8": torch.uint8,
        "BOOL": torch.bool,
    }
    begin, end = entry["data_offsets"]
    raw = bytearray(content[begin:end])
    if len(raw) != end - begin:
        raise ValueError("it ends too early")
    flat = torch.frombuffer(raw, dtype=forms[entry["dtype"]]) if raw else torch.empty(0)
    return flat.reshape(entry["shape"])


def _unreadable(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{path} cannot be read as network weights: {reason}",
        remedy="Fetch it again; if it comes from somebody else, ask for a plain state dict or safetensors.",
    )
