"""A matcher of the registry as a torch module that follows hloc from device to device."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gim_sfm import matchers
from gim_sfm.errors import SettingsError
from gim_sfm.matchers import MatcherRow
from gim_sfm.matchers.contract import Matcher

MOST_KEYPOINTS = 32767
"""hloc writes the index of a match as a signed number of 16 bits."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What of a model conf makes the network; see `gim_sfm.matchers.load`."""

    matcher: str
    weights: Path | None
    precision: str
    max_keypoints: int
    image_size: int


class Network(nn.Module):
    """Loads a matcher at once, and again if hloc moves it to another device than the usual one.

    Args:
        conf: hloc's model conf, with `matcher` and what else `gim_sfm.matchers.load` takes.
        kinds: What the stage can use.

    Raises:
        SettingsError: The matcher is none of these, or has more keypoints than hloc's files can number.
        WeightsError: The weights cannot be had.
    """

    place: Tensor

    def __init__(self, conf: Mapping[str, Any], *kinds: str) -> None:
        super().__init__()
        self.row = matchers.find(conf["matcher"])
        _require_kind(self.row, kinds)
        self.settings = _settings(conf, self.row)
        # hloc moves parameters and buffers only; the matcher, which is no module, goes where this one goes.
        self.register_buffer("place", torch.empty(0), persistent=False)
        load(self.settings, "cuda" if torch.cuda.is_available() else "cpu")

    def matcher(self) -> Matcher:
        """The matcher, on the device where hloc wants it."""
        return load(self.settings, self.place.device.type)


@lru_cache(1)
def load(settings: NetworkSettings, device: str) -> Matcher:
    """Loads a matcher; the last one stays, since hloc takes detector and matcher one after the other."""
    return matchers.load(
        settings.matcher,
        weights=settings.weights,
        device=device,
        precision=settings.precision,
        max_keypoints=settings.max_keypoints,
        image_size=settings.image_size,
    )


def _settings(conf: Mapping[str, Any], row: MatcherRow) -> NetworkSettings:
    asked = conf.get("max_keypoints") or row.max_keypoints
    if asked > MOST_KEYPOINTS:
        raise SettingsError(
            f"max_keypoints = {asked} of {row.name}: hloc numbers matches to {MOST_KEYPOINTS} only.",
            remedy=f"Ask for {MOST_KEYPOINTS} keypoints at most.",
        )
    return NetworkSettings(
        matcher=row.name,
        weights=Path(conf["weights"]) if conf.get("weights") else None,
        precision=conf.get("precision") or "auto",
        max_keypoints=asked,
        image_size=conf.get("image_size") or row.image_size,
    )


def _require_kind(row: MatcherRow, kinds: tuple[str, ...]) -> None:
    if row.kind not in kinds:
        stages = "match_dense" if "sparse" in kinds else "extract_features and match_features"
        raise SettingsError(
            f"{row.name} is a {row.kind} matcher; this stage of hloc takes {' and '.join(kinds)} ones.",
            remedy=f"Use it with {stages}, or another matcher.",
        )
