"""The registry: every matcher this package has, by name, and how to load one.

Importing this module loads no network library, so that matchers can be listed without one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gim_sfm.errors import SettingsError, WeightsError
from gim_sfm.matchers.weights import (
    WEIGHTS,
    WeightFile,
    checksum,
    load_state_dict,
    obtain,
    remedy,
    replaced_by,
    search,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gim_sfm.matchers.contract import Matcher

Kind = Literal["sparse", "semi-dense", "dense"]
DEFAULT = "aliked-lightglue"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a matcher is built with.

    Attributes:
        weights: Parameters of each network, by the id of its weight file.
        device: Where to compute.
        precision: Number format of the networks.
        max_keypoints: Most keypoints of a photo.
        image_size: Longest side in pixels of what the detector sees.
    """

    weights: Mapping[str, "dict[str, Tensor]"]
    device: "torch.device"
    precision: "torch.dtype"
    max_keypoints: int
    image_size: int


@dataclass(frozen=True, slots=True)
class MatcherRow:
    """One matcher of the table.

    Attributes:
        name: What it is called in commands and recipes.
        kind: Whether it matches keypoints, moves them while matching, or sees both photos at once.
        summary: What it is good for, in one line.
        licence: Terms of its code and weights together.
        weights: Ids of its weight files.
        image_size: Default longest side in pixels of what the detector sees.
        max_keypoints: Default number of keypoints of a photo.
        build: Makes the matcher; imports its networks only then.
    """

    name: str
    kind: Kind
    summary: str
    licence: str
    weights: tuple[str, ...]
    image_size: int
    max_keypoints: int
    build: "Callable[[Setup], Matcher]"


@dataclass(frozen=True, slots=True)
class WeightStatus:
    """Whether one of a matcher's weight files is at hand.

    Attributes:
        id: The weight file's id.
        path: Where it is; None where it is not on this machine.
        told: For people: where it is, or what to do to get it.
    """

    id: str
    path: Path | None
    told: str


def _aliked_lightglue(setup: Setup) -> "Matcher":
    from gim_sfm.matchers.aliked import AlikedDetector
    from gim_sfm.matchers.contract import SparseMatcher
    from gim_sfm.matchers.lightglue import LightGlueMatcher

    return SparseMatcher(
        AlikedDetector(
            setup.weights["aliked-n16"],
            device=setup.device,
            precision=setup.precision,
            max_keypoints=setup.max_keypoints,
            image_size=setup.image_size,
        ),
        LightGlueMatcher(setup.weights["aliked-lightglue"], device=setup.device, precision=setup.precision),
    )


def _disk_lightglue(setup: Setup) -> "Matcher":
    from gim_sfm.matchers.contract import SparseMatcher
    from gim_sfm.matchers.disk import DiskDetector
    from gim_sfm.matchers.lightglue import LightGlueMatcher

    return SparseMatcher(
        DiskDetector(
            setup.weights["disk"],
            device=setup.device,
            precision=setup.precision,
            max_keypoints=setup.max_keypoints,
            image_size=setup.image_size,
        ),
        LightGlueMatcher(setup.weights["disk-lightglue"], device=setup.device, precision=setup.precision),
    )


def _xfeat_lighterglue(setup: Setup) -> "Matcher":
    from gim_sfm.matchers.contract import SparseMatcher
    from gim_sfm.matchers.lightglue import LIGHTERGLUE, LightGlueMatcher
    from gim_sfm.matchers.xfeat import XFeatDetector

    return SparseMatcher(
        XFeatDetector(
            setup.weights["xfeat"],
            device=setup.device,
            precision=setup.precision,
            max_keypoints=setup.max_keypoints,
            image_size=setup.image_size,
        ),
        LightGlueMatcher(
            setup.weights["xfeat-lighterglue"],
            device=setup.device,
            precision=setup.precision,
            architecture=LIGHTERGLUE,
        ),
    )


def _xfeat_star(setup: Setup) -> "Matcher":
    from gim_sfm.matchers.contract import SemiDenseMatcher
    from gim_sfm.matchers.xfeat import XFeatStarDetector, XFeatStarMatcher

    return SemiDenseMatcher(
        XFeatStarDetector(
            setup.weights["xfeat"],
            device=setup.device,
            precision=setup.precision,
            max_keypoints=setup.max_keypoints,
            image_size=setup.image_size,
        ),
        XFeatStarMatcher(setup.weights["xfeat"], device=setup.device, precision=setup.precision),
    )


def _root_sift(setup: Setup) -> "Matcher":
    from gim_sfm.matchers.contract import SparseMatcher
    from gim_sfm.matchers.sift import NearestNeighbourMatcher, RootSiftDetector

    return SparseMatcher(
        RootSiftDetector(max_keypoints=setup.max_keypoints, image_size=setup.image_size),
        NearestNeighbourMatcher(device=setup.device),
    )


MATCHERS: dict[str, MatcherRow] = {
    row.name: row
    for row in (
        MatcherRow(
            name=DEFAULT,
            kind="sparse",
            summary="Few, precise matches that hold under strong changes of view and light.",
            licence="BSD-3-Clause (ALIKED), Apache-2.0 (LightGlue)",
            weights=("aliked-n16", "aliked-lightglue"),
            image_size=1024,
            max_keypoints=2048,
            build=_aliked_lightglue,
        ),
        MatcherRow(
            name="disk-lightglue",
            kind="sparse",
            summary="Many evenly spread keypoints; strong on buildings, slower than ALIKED.",
            licence="Apache-2.0",
            weights=("disk", "disk-lightglue"),
            image_size=1024,
            max_keypoints=2048,
            build=_disk_lightglue,
        ),
        MatcherRow(
            name="xfeat-lighterglue",
            kind="sparse",
            summary="The fastest on a processor without GPU; for easy to moderate changes of view.",
            licence="Apache-2.0",
            weights=("xfeat", "xfeat-lighterglue"),
            image_size=1280,
            max_keypoints=2048,
            build=_xfeat_lighterglue,
        ),
        MatcherRow(
            name="xfeat-star",
            kind="semi-dense",
            summary="Thousands of matches also on weak texture, refined pair by pair.",
            licence="Apache-2.0",
            weights=("xfeat",),
            image_size=1280,
            max_keypoints=4096,
            build=_xfeat_star,
        ),
        MatcherRow(
            name="root-sift",
            kind="sparse",
            summary="No network and no weights: the classical baseline, precise on well textured photos.",
            licence="Apache-2.0 (OpenCV)",
            weights=(),
            image_size=1600,
            max_keypoints=8192,
            build=_root_sift,
        ),
    )
}
"""Every matcher, by name."""


def find(name: str) -> MatcherRow:
    """The row of a matcher.

    Raises:
        SettingsError: There is none of this name; tells the nearest one.
    """
    if name in MATCHERS:
        return MATCHERS[name]
    near = get_close_matches(name.lower().replace("_", "-").replace("+", "-"), MATCHERS, n=1, cutoff=0.4)
    asked = f"Did you mean {near[0]}? " if near else ""
    raise SettingsError(f"There is no matcher {name!r}.", remedy=f"{asked}There are: {', '.join(MATCHERS)}.")


def load(
    name: str,
    *,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    max_keypoints: int | None = None,
    image_size: int | None = None,
) -> "Matcher":
    """Loads a matcher, fetching its weights where they are not on this machine.

    Args:
        name: A name of `MATCHERS`.
        weights: A folder with weight files, or one file that stands in for one of the matcher's own.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `mps`.
        precision: `auto` (the fastest that is accurate on the device), `float32`, `bfloat16` or `float16`.
        max_keypoints: Most keypoints of a photo; None for the matcher's default.
        image_size: Longest side in pixels of what the detector sees; None for the matcher's default.

    Raises:
        SettingsError: There is no such matcher, device or precision.
        WeightsError: The weights cannot be had, are damaged, or belong to another network.
    """
    from gim_sfm.matchers.precision import resolve_precision

    row = find(name)
    at = resolve_device(device)
    number_format = resolve_precision(precision, at)
    paths = {id: obtain(file, folder) for id, file, folder in _sources(row, weights)}
    with _weights_that_fit(paths):
        setup = Setup(
            weights={id: load_state_dict(path) for id, path in paths.items()},
            device=at,
            precision=number_format,
            max_keypoints=max_keypoints or row.max_keypoints,
            image_size=image_size or row.image_size,
        )
        return row.build(setup)


def resolve_device(name: str) -> "torch.device":
    """The device of a setting: `auto` takes a GPU where torch finds one.

    Raises:
        SettingsError: The device is unknown, or not in this machine.
    """
    import torch

    present: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return torch.device(next(device for device, is_there in present.items() if is_there()))
    if name not in present:
        raise SettingsError(f"Unknown device {name!r}.", remedy="Use one of auto, cpu, cuda, mps.")
    if not present[name]():
        raise SettingsError(
            f"The device {name} was asked for, but this machine's torch ({torch.__version__}) finds none.",
            remedy="Use --device auto or cpu; for a GPU, install its driver and a torch built for it.",
        )
    return torch.device(name)


def describe(name: str, weights: Path | None = None) -> list[WeightStatus]:
    """Where each of a matcher's weight files is, or what to do to get it; fetches nothing.

    Raises:
        SettingsError: There is no such matcher.
        WeightsError: The folder or file named by the user does not fit.
    """
    return [_status(file, folder) for _, file, folder in _sources(find(name), weights)]


def weights_digest(name: str, weights: Path | None = None) -> str:
    """A string that changes when the matcher's weights change; fetches what is missing.

    Args:
        name: A name of `MATCHERS`.
        weights: As in `load`.
    """
    sums = [f"{id}:{checksum(obtain(file, folder))}" for id, file, folder in _sources(find(name), weights)]
    return sha256(" ".join(sums).encode()).hexdigest()


def _sources(row: MatcherRow, weights: Path | None) -> list[tuple[str, WeightFile, Path | None]]:
    """Each weight file of a matcher, and where the user wants it looked for first."""
    files = [WEIGHTS[id] for id in row.weights]
    if weights is None or not weights.is_file() or not files:
        return [(file.id, file, weights) for file in files]
    replaced = replaced_by(weights, files)
    return [(file.id, file, weights if file is replaced else None) for file in files]


def _status(file: WeightFile, folder: Path | None) -> WeightStatus:
    found = search(file, folder)
    if found is None:
        return WeightStatus(file.id, None, f"fetched on first use; or: {remedy(file)}")
    return WeightStatus(file.id, found.path, f"{found.path} ({found.origin})")


@contextmanager
def _weights_that_fit(paths: Mapping[str, Path]) -> Iterator[None]:
    """Turns torch's complaint about parameters that are missing, unexpected or mis-shaped into ours."""
    try:
        yield
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        files = ", ".join(str(path) for path in paths.values())
        raise WeightsError(
            f"Weights of another network (read from {files}). {error}",
            remedy="Name weights that were made for this matcher, or leave --weights out.",
        ) from error
