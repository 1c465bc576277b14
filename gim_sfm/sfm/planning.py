"""What a reconstruction would do, and about how long it would take, before it is begun."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from gim_sfm import pair_choice
from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder, PhotoHeader, read_header, read_photo
from gim_sfm.matchers.contract import DenseMatcher, SemiDenseMatcher, SparseMatcher, WarpMatcher
from gim_sfm.pair_file import from_file
from gim_sfm.recipe import PairingSettings
from gim_sfm.sfm.lineup import Lineup
from gim_sfm.types import Features

SAMPLED_PHOTOS = 4
"""Photos extracted and matched to measure the speed; the first one only warms up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        photos: Readable photos.
        broken: What is wrong with each of the others, by name.
        cameras: Cameras that they share.
        matcher: Its name, and that of the second one.
        method: How pairs would be chosen, and why.
        pairs: Pairs that would be matched, at most.
        extraction_seconds: Estimated, for all photos.
        matching_seconds: Estimated, for all pairs.
    """

    photos: int
    broken: Mapping[str, str]
    cameras: int
    matcher: str
    method: str
    pairs: int
    extraction_seconds: float
    matching_seconds: float

    def __str__(self) -> str:
        return "\n".join(
            [
                f"Photos      {self.photos} readable, {self.cameras} cameras",
                *(f"Broken      {reason}" for reason in self.broken.values()),
                f"Matcher     {self.matcher}",
                f"Pairs       {self.method}: at most {self.pairs}",
                f"Extraction  about {_duration(self.extraction_seconds)}",
                f"Matching    about {_duration(self.matching_seconds)}",
                "Mapping comes on top; nothing was written.",
            ]
        )


def read_headers(folder: ImageFolder) -> tuple[dict[str, PhotoHeader], dict[str, str]]:
    """Reads what the photo files say of themselves; the second result says what is wrong with broken ones."""
    headers, broken = {}, {}
    for name in folder.names:
        try:
            headers[name] = read_header(folder.path(name))
        except InputError as error:
            broken[name] = error.message
    return headers, broken


def plan_pairs(settings: PairingSettings, headers: Mapping[str, PhotoHeader]) -> tuple[str, int]:
    """The method that would choose the pairs, with its reason, and how many there would be at most."""
    names, method, reason = list(headers), settings.pairs, "as asked"
    if method == "auto":
        picked = pair_choice.choose(names, {name: header.size for name, header in headers.items()})
        method, reason = picked.method, picked.reason
    count = len(names)
    everything = count * (count - 1) // 2
    if method == "file" and settings.pairs_file is not None:
        return f"{method} ({reason})", len(from_file(settings.pairs_file, names))
    per_photo = {"exhaustive": count, "sequential": 2 * settings.overlap + 5}.get(method, settings.neighbours)
    return f"{method} ({reason})", min(everything, count * per_photo)


def measure_speed(lineup: Lineup, folder: ImageFolder, names: Sequence[str]) -> tuple[float, float]:
    """Seconds a photo takes to extract and a pair to match, measured on the first few."""
    matcher, features, own = lineup.matcher, list[Features](), list[Features]()
    few = names[:SAMPLED_PHOTOS]

    def extract(name: str) -> None:
        features.extend(lineup.detector.extract([read_photo(folder.path(name), longest=lineup.detected)]))
        if isinstance(matcher, SemiDenseMatcher):
            own.extend(matcher.detector.extract([read_photo(folder.path(name), longest=lineup.longest)]))

    def match(pair: tuple[Any, Any]) -> object:
        if isinstance(matcher, SparseMatcher):
            return matcher.matcher.match([pair])
        return matcher.matcher.correspond([pair])

    each = _seconds_each(extract, few)
    if isinstance(matcher, DenseMatcher | WarpMatcher):
        photos = [read_photo(folder.path(name), longest=lineup.decoded) for name in few]
        return each, _seconds_each(match, list(pairwise(photos)))
    return each, _seconds_each(match, list(pairwise(own or features)))


def _seconds_each(work: Callable[..., object], items: Sequence[object]) -> float:
    """Mean seconds of one item; the first is not counted, unless it is the only one."""
    marks = [time.perf_counter()]
    for item in items:
        work(item)
        marks.append(time.perf_counter())
    counted = marks[1:] if len(items) > 1 else marks
    return (counted[-1] - counted[0]) / max(1, len(counted) - 1)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
