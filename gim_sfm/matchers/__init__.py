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
from gim_sfm.matchers import building
from gim_sfm.matchers.building import VISMATCH, Setup
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

    from gim_sfm.matchers.contract import Matcher

Kind = Literal["sparse", "semi-dense", "dense"]
Joining = Literal["anchored", "merged", "quantised", "coarse-grid"]
"""How matched positions that differ from pair to pair become keypoints; see `gim_sfm.sfm.tracks`."""

DEFAULT = "aliked-lightglue"
GIM_TERMS = "GIM's weights: research use only"


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
        joining: Default way from its matches to tracks; None where they join keypoints already.
        anchors: Matcher whose keypoints serve where its own do not repeat, or it has none.
        grid: Pixels to a cell of the grid that the network matches on, where it does.
        finest: Longest side of what the network sees at last, in image sizes.
        any_turn: Whether it does not mind how the two photos are turned against each other.
        subpixel: Whether its keypoints are as precise as refinement would make them.
        version: Of what computes, where that is another package.
        batch: Photos or pairs that a GPU takes at once.
    """

    name: str
    kind: Kind
    summary: str
    licence: str
    weights: tuple[str, ...]
    image_size: int
    max_keypoints: int
    build: "Callable[[Setup], Matcher]"
    joining: Joining | None = None
    anchors: str = DEFAULT
    grid: int = 0
    finest: float = 1.0
    any_turn: bool = False
    subpixel: bool = False
    version: str = ""
    batch: int = 8


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
            build=building.aliked_lightglue,
        ),
        MatcherRow(
            name="disk-lightglue",
            kind="sparse",
            summary="Many evenly spread keypoints; strong on buildings, slower than ALIKED.",
            licence="Apache-2.0",
            weights=("disk", "disk-lightglue"),
            image_size=1024,
            max_keypoints=2048,
            build=building.disk_lightglue,
        ),
        MatcherRow(
            name="xfeat-lighterglue",
            kind="sparse",
            summary="The fastest on a processor without GPU; for easy to moderate changes of view.",
            licence="Apache-2.0",
            weights=("xfeat", "xfeat-lighterglue"),
            image_size=1280,
            max_keypoints=2048,
            build=building.xfeat_lighterglue,
        ),
        MatcherRow(
            name="xfeat-star",
            kind="semi-dense",
            summary="Thousands of matches also on weak texture, refined pair by pair.",
            licence="Apache-2.0",
            weights=("xfeat",),
            image_size=1280,
            max_keypoints=4096,
            build=building.xfeat_star,
            joining="anchored",
            anchors="xfeat-lighterglue",
        ),
        MatcherRow(
            name="root-sift",
            kind="sparse",
            summary="No network and no weights: the classical baseline, precise on well textured photos.",
            licence="Apache-2.0 (OpenCV)",
            weights=(),
            image_size=1600,
            max_keypoints=8192,
            build=building.root_sift,
            any_turn=True,
            subpixel=True,
        ),
        MatcherRow(
            name="gim-lightglue",
            kind="sparse",
            summary="SuperPoint and LightGlue trained by GIM on internet videos; generalises furthest.",
            licence=f"{GIM_TERMS}; SuperPoint: Magic Leap, non-commercial",
            weights=("gim-lightglue",),
            image_size=1024,
            max_keypoints=2048,
            build=building.gim_lightglue,
            any_turn=True,
        ),
        MatcherRow(
            name="superpoint-lightglue",
            kind="sparse",
            summary="The usual learned pair of the field, for comparison.",
            licence="SuperPoint: Magic Leap, non-commercial; Apache-2.0 (LightGlue)",
            weights=("superpoint", "superpoint-lightglue"),
            image_size=1024,
            max_keypoints=2048,
            build=building.superpoint_lightglue,
        ),
        MatcherRow(
            name="gim-loftr",
            kind="dense",
            summary="LoFTR trained by GIM: matches without keypoints, on weak texture, too.",
            licence=GIM_TERMS,
            weights=("gim-loftr",),
            image_size=1024,
            max_keypoints=4096,
            build=building.gim_loftr,
            any_turn=True,
            joining="coarse-grid",
            grid=8,
            batch=2,
        ),
        MatcherRow(
            name="loftr",
            kind="dense",
            summary="LoFTR as published for outdoor scenes.",
            licence="Apache-2.0",
            weights=("loftr-outdoor",),
            image_size=1024,
            max_keypoints=4096,
            build=building.loftr,
            joining="coarse-grid",
            grid=8,
            batch=2,
        ),
        MatcherRow(
            name="gim-dkm",
            kind="dense",
            summary="DKM trained by GIM: a place for every pixel; for the hardest pairs, wants a GPU.",
            licence=GIM_TERMS,
            weights=("gim-dkm",),
            image_size=896,
            max_keypoints=4096,
            build=building.gim_dkm,
            any_turn=True,
            joining="anchored",
            finest=12 / 7,
            batch=2,
        ),
        MatcherRow(
            name="dkm",
            kind="dense",
            summary="DKM as published for outdoor scenes.",
            licence="MIT",
            weights=("dkm-outdoor",),
            image_size=720,
            max_keypoints=4096,
            build=building.dkm,
            joining="anchored",
            finest=2.0,
            batch=2,
        ),
        MatcherRow(
            name="gim-roma",
            kind="dense",
            summary="RoMa trained by GIM: the most robust and the slowest; needs the extra [roma].",
            licence=f"{GIM_TERMS}; Apache-2.0 (DINOv2)",
            weights=("gim-roma", "dinov2-vitl14"),
            image_size=672,
            max_keypoints=4096,
            build=building.gim_roma,
            any_turn=True,
            joining="anchored",
            finest=2.0,
            batch=2,
        ),
        MatcherRow(
            name="roma",
            kind="dense",
            summary="RoMa as published for outdoor scenes; needs the extra [roma].",
            licence="MIT; Apache-2.0 (DINOv2)",
            weights=("roma-outdoor", "dinov2-vitl14"),
            image_size=560,
            max_keypoints=4096,
            build=building.roma,
            joining="anchored",
            finest=2.0,
            batch=2,
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
    if name.startswith(VISMATCH):
        from gim_sfm.matchers import vismatch

        return vismatch.row(name.removeprefix(VISMATCH))
    near = get_close_matches(name.lower().replace("_", "-").replace("+", "-"), MATCHERS, n=1, cutoff=0.4)
    asked = f"Did you mean {near[0]}? " if near else ""
    raise SettingsError(
        f"There is no matcher {name!r}.",
        remedy=f"{asked}There are: {', '.join(MATCHERS)}, and {VISMATCH}NAME for those of vismatch.",
    )


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
        name: A name of `MATCHERS`, or `vismatch:` and a name of that package.
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
    row = find(name)
    sums = [f"{id}:{checksum(obtain(file, folder))}" for id, file, folder in _sources(row, weights)]
    return sha256(" ".join([*sums, *filter(None, [row.version])]).encode()).hexdigest()


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
