"""A matcher under test: its settings, its name in results, and its network, loaded when it is needed."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gim_sfm import matchers
from gim_sfm.errors import SettingsError, WeightsError
from gim_sfm.evaluation.benchmark import PairSet
from gim_sfm.files import write_text
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
        weights: Digest of its weights.
    """

    settings: MatcherSettings
    device: str
    version: str
    weights: str

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

    def longest(self, pair_set: PairSet[Any], largest: int) -> int:
        """Longest side in pixels at which it is shown the images of a set.

        That of the user; else that of the set's protocol, which enlarges nothing, unless the network works at
        sizes of its own; else the matcher's.

        Args:
            pair_set: The set.
            largest: Longest side of its images in pixels.
        """
        if self.settings.image_size or pair_set.image_size is None or self.row.finest > 1:
            return self.settings.image_size or self.row.image_size
        return min(pair_set.image_size, largest)

    @property
    def number_format(self) -> str:
        """What its networks compute in, e.g. bfloat16."""
        from gim_sfm.matchers.precision import resolve_precision

        device = matchers.resolve_device(self.device)
        return str(resolve_precision(self.settings.precision, device)).removeprefix("torch.")

    def key(self, longest: int) -> dict[str, Any]:
        """What its matches depend on besides the images; fetches missing weights."""
        return stores_key(self.row, self._at(longest))

    def load(self, longest: int) -> Matcher:
        """Its network, for images of this longest side; the last one loaded is kept."""
        return _load(self._at(longest), self.device, self.weights)

    def take_home(self, out: Path) -> Path:
        """Its folder below `out`.

        Raises:
            SettingsError: The folder is that of the same label with other weights or settings.
        """
        home = out / self.label
        identity = self.key(self.settings.image_size or 0)
        del identity["version"]
        note = home / "contender.json"
        if note.exists() and (former := json.loads(note.read_text(encoding="utf-8"))) != identity:
            changed = ", ".join(name for name in identity if former.get(name) != identity[name])
            raise SettingsError(
                f"{home} holds results of the same label, made with other {changed}.",
                remedy="Tell the two apart by --label, or name another folder for the results.",
            )
        write_text(note, json.dumps(identity))
        return home

    def _at(self, longest: int) -> MatcherSettings:
        return self.settings.model_copy(update={"image_size": longest})


def enter(settings: MatcherSettings, device: str, label: str | None = None) -> Contender:
    """Puts a matcher to the test; fetches missing weights.

    Args:
        settings: Which, and how.
        device: Where it shall compute.
        label: Version to be shown in results; None to tell from weights and settings.

    Raises:
        SettingsError: There is no such matcher or device.
        WeightsError: The weights cannot be had.
    """
    matchers.find(settings.matcher)
    matchers.resolve_device(device)
    if settings.weights and not settings.weights.exists():
        raise WeightsError(
            f"There is no {settings.weights}.", remedy="Name a weight file, or a folder of them."
        )
    weights = matchers.weights_digest(settings.matcher, settings.weights)
    return Contender(settings, device, label or _version(settings, weights), weights)


def _version(settings: MatcherSettings, weights: str) -> str:
    """What tells a matcher from its released form, in a word."""
    own = settings.weights if settings.weights and settings.weights.is_file() else None
    parts = [
        f"{own.stem}-{weights[:6]}" if own else "",
        f"{settings.image_size}px" if settings.image_size else "",
        f"{settings.max_keypoints}kp" if settings.max_keypoints else "",
        settings.precision if settings.precision != "auto" else "",
    ]
    return "-".join("-".join(filter(None, parts)).split()) or RELEASED


@lru_cache(1)
def _load(settings: MatcherSettings, device: str, weights: str) -> Matcher:
    del weights  # a file may be replaced by another under the same name
    return load_matcher(matchers.find(settings.matcher), settings, device)
