"""ZEB's folders: a flat folder a set, of PNG images and one line of text a pair.

A pair file is named `<scene><separator><name0><separator><name1>.txt` and holds 38 tokens: two image names,
two overlaps, K0 and K1 (3x3, pixels of the stored image) and T_0to1 (4x4), row by row. The image of a name
lies in `<scene><separator><name without suffix>.png`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gim_sfm.errors import InputError, SettingsError
from gim_sfm.evaluation.benchmark import PairSet, PosedPair, Skipped
from gim_sfm.evaluation.truths import read_intrinsics, read_pose
from gim_sfm.evaluation.zeb_sets import ZEB_SETS, ZebSet, image_stem
from gim_sfm.recipe import nearest

TOKENS = 38
_SEPARATORS = ("-", "_")

log = logging.getLogger(__name__)


def read_zeb(root: Path, sets: Sequence[str] = (), *, strict: bool = False) -> list[PairSet[PosedPair]]:
    """Reads sets in ZEB's layout: the twelve published ones, or any others.

    Args:
        root: Folder of the sets' folders, or one of these.
        sets: Short names (KIT), names in result files (KITTI) or folders (kitti); none for all there are.
        strict: Refuse the first pair that cannot be used instead of skipping it.

    Returns:
        The sets in ZEB's order, others after them by name; pairs that cannot be used are named in `skipped`.

    Raises:
        SettingsError: A set is asked for that nobody knows.
        InputError: A folder is missing or holds no pair that can be used; with `strict`, any pair is bad.
    """
    found = _folders(root)
    if sets:
        found = list({_asked(name, root, found) for name in sets})
    else:
        _tell_missing(found)
    pair_sets = [_read_set(folder, strict) for folder in sorted(found, key=_rank)]
    _require_distinct(pair_sets)
    return pair_sets


def _require_distinct(pair_sets: Sequence[PairSet[PosedPair]]) -> None:
    roots: dict[str, Path] = {}
    for pair_set in pair_sets:
        other = roots.setdefault(pair_set.name, pair_set.root)
        if other != pair_set.root:
            raise InputError(
                f"{other} and {pair_set.root} would both be called {pair_set.name} in the results.",
                remedy="Rename one of the folders.",
            )


def _folders(root: Path) -> list[Path]:
    """Folders of sets under the root; the root alone if it is one itself."""
    if not root.is_dir():
        raise InputError(f"There is no folder {root}.", remedy="Give the folder that holds ZEB's sets.")
    found = [path for path in root.iterdir() if _is_set(path)] or [path for path in [root] if _is_set(path)]
    if not found:
        raise InputError(
            f"{root} holds no set in ZEB's layout.",
            remedy="Give the folder that holds the sets (gl3d, kitti, ...), each with images and pair files.",
        )
    return found


def _is_set(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*.txt")) and any(folder.glob("*.png"))


def _known(folder: Path) -> ZebSet | None:
    return next((row for row in ZEB_SETS if row.folder == folder.name.lower()), None)


def _rank(folder: Path) -> tuple[int, str]:
    row = _known(folder)
    return (ZEB_SETS.index(row) if row else len(ZEB_SETS), folder.name)


def _asked(name: str, root: Path, found: Sequence[Path]) -> Path:
    wanted = name.lower()
    row = next((row for row in ZEB_SETS if wanted in (row.short.lower(), row.name.lower(), row.folder)), None)
    folder = row.folder if row else wanted
    for path in found:
        if path.name.lower() == folder:
            return path
    if row:
        raise InputError(
            f"The set {row.name} is not there: {root} has no folder {row.folder} with pair files and images.",
            remedy=f"Leave it out of --sets, or put it there. There are: {_listed(found)}.",
        )
    known = [*(row.short for row in ZEB_SETS), *(path.name for path in found)]
    raise SettingsError(
        f"There is no set {name!r}.{nearest(name, known)}",
        remedy=f"In {root} there are: {_listed(found)}; ZEB has {', '.join(row.short for row in ZEB_SETS)}.",
    )


def _listed(found: Sequence[Path]) -> str:
    return ", ".join(path.name for path in sorted(found))


def _tell_missing(folders: Sequence[Path]) -> None:
    present = {row.short for row in map(_known, folders) if row}
    missing = [row.name for row in ZEB_SETS if row.short not in present]
    if present and missing:
        log.warning("%d of ZEB's twelve sets are not there: %s.", len(missing), ", ".join(missing))


def _read_set(folder: Path, strict: bool) -> PairSet[PosedPair]:
    row = _known(folder)
    reader = _Reader(row, frozenset(path.name for path in folder.iterdir()))
    pairs: dict[str, PosedPair] = {}
    skipped: list[Skipped] = []
    for path in sorted(folder.glob("*.txt")):
        try:
            pair = reader.read(path)
            if pair.identifier in pairs:
                raise ValueError(f"it is the pair {pair.identifier} once more")
            pairs[pair.identifier] = pair
        except (ValueError, OSError) as error:
            if strict:
                raise InputError(f"{path}: {error}.", remedy="Mend or remove that pair file.") from error
            skipped.append(Skipped(str(path), str(error)))
    if not pairs:
        raise InputError(
            f"{folder} holds no pair that can be used; {skipped[0].source}: {skipped[0].reason}.",
            remedy="A pair file is one line: name0 name1 overlap0 overlap1 K0(9) K1(9) T_0to1(16).",
        )
    return PairSet(
        name=row.name if row else "_".join(folder.resolve().name.split()),
        root=folder,
        pairs=tuple(pairs[identifier] for identifier in sorted(pairs)),
        skipped=tuple(skipped),
        image_size=row.image_size if row else None,
        published=row.pairs if row else None,
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the pair files of one set.

    Attributes:
        row: The published set, if it is one.
        files: Names of all files in the folder.
    """

    row: ZebSet | None
    files: frozenset[str]

    def read(self, path: Path) -> PosedPair:
        """One pair; ValueError says why it cannot be used."""
        tokens = path.read_text(encoding="utf-8", errors="replace").split()
        if len(tokens) != TOKENS:
            raise ValueError(f"it holds {len(tokens)} tokens, not {TOKENS}")
        first, second = tokens[:2]
        scene, separator = self._scene(path.stem, image_stem(first), image_stem(second))
        images = tuple(f"{scene}{separator}{image_stem(name)}.png" for name in (first, second))
        for name in images:
            if name not in self.files:
                raise ValueError(f"its image {name} is not there")
        return PosedPair(
            identifier=self._identifier(scene, first, second),
            images=(images[0], images[1]),
            overlaps=(float(tokens[2]), float(tokens[3])),
            intrinsics=(read_intrinsics(tokens[4:13]), read_intrinsics(tokens[13:22])),
            second_from_first=read_pose(tokens[22:]),
        )

    def _scene(self, stem: str, first: str, second: str) -> tuple[str, str]:
        """The scene and the separator of a pair file; GIM's own code goes by the first separator only."""
        if self.row:
            return stem.split(self.row.separator, maxsplit=1)[0], self.row.separator
        for separator in _SEPARATORS:
            ending = f"{separator}{first}{separator}{second}"
            if stem.endswith(ending) and stem != ending:
                return stem.removesuffix(ending), separator
        raise ValueError(f"it is not named <scene><separator>{first}<separator>{second}.txt")

    def _identifier(self, scene: str, first: str, second: str) -> str:
        if self.row:
            return self.row.identifier(scene, first, second)
        return f"{scene}#{first}#{second}"
