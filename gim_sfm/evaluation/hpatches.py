"""HPatches: sequences of six photos of a plane, or from one place, and the homographies between them.

Each folder holds images 1 to 6 and files H_1_2 to H_1_6 with the nine numbers that send pixels of image 1
to those of image k (Balntas et al., CVPR 2017).
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import HomographyPair, PairSet, Skipped
from gim_sfm.evaluation.truths import read_homography
from gim_sfm.images import SUFFIXES, read_header

KINDS = {"i_": "HPatches-i", "v_": "HPatches-v"}
"""Sets by the beginning of a sequence's name: the light changes, or the viewpoint."""

PUBLISHED = {"HPatches-i": 57, "HPatches-v": 59}
"""Number of sequences, each of five pairs."""

LARGE = {
    "HPatches-i": ("i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding"),
    "HPatches-v": ("v_artisans", "v_astronautis", "v_talent"),
}
"""Sequences whose photos are so large that the literature leaves them out (D2-Net, CVPR 2019)."""

OTHER_IMAGES = range(2, 7)

log = logging.getLogger(__name__)


def read_hpatches(
    root: Path, *, strict: bool = False, skip_large: bool = True
) -> list[PairSet[HomographyPair]]:
    """Reads the sequences: those under changing light and those under changing viewpoint, a set each.

    Args:
        root: Folder of the sequences' folders.
        strict: Refuse the first pair that cannot be used instead of skipping it.
        skip_large: Leave out the eight sequences that the literature leaves out.

    Returns:
        HPatches-i and HPatches-v, as far as there are any; folders of other names in HPatches-other.

    Raises:
        InputError: There is no sequence or no usable pair; with `strict`, any pair is bad.
    """
    sets: dict[str, list[Path]] = {name: [] for name in (*KINDS.values(), "HPatches-other")}
    for folder in _sequences(root, skip_large):
        sets[KINDS.get(folder.name[:2], "HPatches-other")].append(folder)
    return [_read_set(name, root, folders, strict, skip_large) for name, folders in sets.items() if folders]


def _sequences(root: Path, skip_large: bool) -> list[Path]:
    large = {name for names in LARGE.values() for name in names} if skip_large else set()
    found = sorted(path for path in root.glob("*/") if any(path.glob("H_1_*")))
    kept = [folder for folder in found if folder.name not in large]
    if not kept:
        raise InputError(
            f"{root} holds no sequence of HPatches.",
            remedy="Give the folder that holds i_ajuntament, v_abstract and so on.",
        )
    if len(kept) < len(found):
        left_out = ", ".join(folder.name for folder in found if folder.name in large)
        log.info("Left out for their size, as in the literature: %s.", left_out)
    return kept


def _read_set(
    name: str, root: Path, folders: Sequence[Path], strict: bool, skip_large: bool
) -> PairSet[HomographyPair]:
    pairs: list[HomographyPair] = []
    skipped: list[Skipped] = []
    for source in (folder / f"H_1_{number}" for folder in folders for number in _numbers(folder)):
        try:
            pairs.append(_read_pair(source))
        except ValueError as error:
            if strict:
                raise InputError(
                    f"{source}: {error}.", remedy="Mend that sequence or take it away."
                ) from error
            skipped.append(Skipped(str(source), str(error)))
    if not pairs:
        reasons = "; ".join(f"{each.source}: {each.reason}" for each in skipped[:3])
        raise InputError(f"{root} holds no usable pair of {name}: {reasons}.", remedy="Mend the sequences.")
    sequences = PUBLISHED.get(name, 0) - len(LARGE.get(name, ()) if skip_large else ())
    return PairSet(
        name=name,
        root=root,
        pairs=tuple(sorted(pairs, key=lambda pair: pair.identifier)),
        skipped=tuple(skipped),
        published=len(OTHER_IMAGES) * sequences if name in PUBLISHED else None,
    )


def _numbers(folder: Path) -> list[int]:
    """The images beside the first that a file speaks of."""
    names = {path.name if path.name.startswith("H_1_") else path.stem for path in folder.iterdir()}
    return [number for number in OTHER_IMAGES if names & {f"H_1_{number}", str(number)}]


def _read_pair(source: Path) -> HomographyPair:
    """The pair of a homography's file; ValueError says why it cannot be used."""
    folder, number = source.parent, source.name.removeprefix("H_1_")
    try:
        tokens = source.read_text(encoding="utf-8", errors="replace").split()
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from error
    homography = read_homography(tokens)
    first, second = _image(folder, "1"), _image(folder, number)
    return HomographyPair(
        identifier=f"{folder.name}#{first.name}#{second.name}",
        images=(f"{folder.name}/{first.name}", f"{folder.name}/{second.name}"),
        sizes=(_size(first), _size(second)),
        second_from_first=homography,
    )


def _image(folder: Path, stem: str) -> Path:
    found = sorted(path for path in folder.glob(f"{stem}.*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"image {stem} is not there")
    return found[0]


def _size(image: Path) -> tuple[int, int]:
    try:
        return read_header(image).size
    except InputError as error:
        raise ValueError(error.message) from error
