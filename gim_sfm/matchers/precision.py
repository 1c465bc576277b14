"""Which number format a network computes in."""

from typing import Any

import torch

from gim_sfm.errors import SettingsError

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def _processor_capabilities() -> dict[str, Any]:
    """What torch knows about this processor; nothing where torch is too old to tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    return dict(capabilities()) if capabilities else {}


def fastest_precision(device: torch.device) -> torch.dtype:
    """The fastest number format in which the networks here keep their accuracy on this device.

    It depends on the kind of device alone, never on a measurement, so that two runs on one machine agree.
    """
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu":
        capabilities = _processor_capabilities()
        if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of a setting.

    Args:
        name: `auto` or one of `PRECISIONS`.
        device: Where the network will run; `auto` takes the fastest accurate format there.

    Raises:
        SettingsError: The name is none of them.
    """
    if name == "auto":
        return fastest_precision(device)
    if name not in PRECISIONS:
        raise SettingsError(
            f"Unknown precision {name!r}.", remedy=f"Use one of auto, {', '.join(PRECISIONS)}."
        )
    return PRECISIONS[name]
