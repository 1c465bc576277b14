"""Which way of choosing pairs suits a collection, for those who leave it to us."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import numpy as np

from gim_sfm.cascade import ALL_PAIRS_UP_TO, CANDIDATES

EXHAUSTIVE_UP_TO = 30
"""Photos matched each with each: 435 pairs are a minute or two on two cores, and none can be missed."""

_FRAME = re.compile(
    r"(?P<prefix>|(?:[Ff]rame|[Ii]mage|img|video|vid|out|output|rgb|colou?r|left|right)[-_ ]?)[0-9]+"
)
"""What programs call video frames. Cameras call photos otherwise (IMG_0123, DSC00123, P1020304)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A way of choosing pairs, and why."""

    method: Literal["exhaustive", "cascade", "sequential"]
    reason: str


def choose(names: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> Choice:
    """Picks a method by the number of photos and by whether they are the frames of a video.

    Only large collections are taken for videos: of fewer photos all pairs can be compared, which finds
    neighbouring frames and loops just as well, and needs no guess.

    Args:
        names: All photos.
        sizes: (width, height) of each photo.
    """
    count = len(names)
    if count <= EXHAUSTIVE_UP_TO:
        return Choice(
            "exhaustive", f"{count} photos are few enough (up to {EXHAUSTIVE_UP_TO}) to match all pairs"
        )
    if count <= ALL_PAIRS_UP_TO:
        return Choice(
            "cascade",
            f"{count} photos: all pairs are compared cheaply, the promising ones are matched in full",
        )
    if _are_frames(names, sizes):
        return Choice(
            "sequential",
            f"{count} photos of one size, numbered evenly in each folder, as the frames of a video are; "
            "if they are not, choose cascade",
        )
    return Choice(
        "cascade",
        f"{count} photos: each is compared cheaply with the {CANDIDATES} most similar, the promising pairs "
        "are matched in full",
    )


def _are_frames(names: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> bool:
    folders: dict[str, list[str]] = {}
    for name in names:
        folders.setdefault(str(PurePosixPath(name).parent), []).append(name)
    return all(_is_one_video(members, sizes) for members in folders.values())


def _is_one_video(names: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> bool:
    """Whether names have one prefix and numbers at equal steps, and the photos one size."""
    stems = [PurePosixPath(name).stem for name in names]
    parsed = [parts for stem in stems if (parts := _FRAME.fullmatch(stem))]
    numbers = np.sort([int(parts[0].removeprefix(parts["prefix"])) for parts in parsed])
    return (
        len(parsed) == len(names)
        and len({parts["prefix"] for parts in parsed}) == 1
        and len({sizes[name] for name in names}) == 1
        and len(set(np.diff(numbers).tolist())) <= 1
    )
