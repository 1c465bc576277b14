"""A matcher under test: its settings, its name in results, and its network, loaded when it is needed."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gim_sfm import matchers
from gim_sfm.evaluation.benchmark import PairSet
from gim_sfm.matchers import MatcherRow
from gim_sfm.matchers.contract import Matcher
from gim_sfm.recipe import MatcherSettings
from gim_sfm.sfm.lineup import batch_size, load_matcher, stores_key

RELEASED = "released"
"""Version of a matcher with its own weights and settings."""


@dataclass(frozen=True)
class Contender:
    """A matcher under test.

    Attributes:
        settings: Which, and how it is run.
        device: Where it computes.
        version: Tells it from the same matcher with other weights or settings.
    """

    settings: MatcherSettings
    device: str
    version: str

    @property
    def method(self) -> str:
        """What result files call it."""
        return self.settings.matcher.replace(":", "-").replace("/", "-")

    @property
    def label(self) -> str:
        """Name of the folder of its results."""
        return self.method if self.version == RELEASED else f"{self.method}-{self.version}"

    @property
    def row(self) -> MatcherRow:
        """Its row of the table of matchers."""
        return matchers.find(self.settings.matcher)

    @property
    def batch(self) -> int:
        """Images or pairs it takes at once."""
        return batch_size(self.row, self.settings, self.device)

    def longest(self, pair_set: PairSet[Any]) -> int:
        """Longest side in pixels at which it is shown the images of a set.

        That of the user, else that of the set's protocol, unless the network has a working size of its own.
        """
        prescribed = None if self.row.finest > 1 else pair_set.image_size
        return self.settings.image_size or prescribed or self.row.image_size

    def key(self, longest: int) -> dict[str, Any]:
        """What its matches depend on besides the images; fetches missing weights."""
        return stores_key(self.row, self._at(longest))

    def load(self, longest: int) -> Matcher:
        """Its network, for images of this longest side; the last one loaded is kept."""
        return _load(self._at(longest), self.device)

    def _at(self, longest: int) -> MatcherSettings:
        return self.settings.model_copy(update={"image_size": longest})


def enter(settings: MatcherSettings, device: str, label: str | None = None) -> Contender:
    """Puts a matcher to the test.

    Args:
        settings: Which, and how.
        device: Where it shall compute.
        label: Version to be shown in results; None to tell from weights and settings.

    Raises:
        SettingsError: There is no such matcher or device.
    """
    matchers.find(settings.matcher)
    matchers.resolve_device(device)
    return Contender(settings, device, label or _version(settings))


def _version(settings: MatcherSettings) -> str:
    """What tells a matcher from its released form, in a word."""
    parts = [
        _weights_name(settings.weights),
        f"{settings.image_size}px" if settings.image_size else "",
        f"{settings.max_keypoints}kp" if settings.max_keypoints else "",
        settings.precision if settings.precision != "auto" else "",
    ]
    return "-".join("-".join(filter(None, parts)).split()) or RELEASED


def _weights_name(weights: Path | None) -> str:
    return weights.stem if weights and weights.is_file() else ""


@lru_cache(1)
def _load(settings: MatcherSettings, device: str) -> Matcher:
    return load_matcher(matchers.find(settings.matcher), settings, device)
