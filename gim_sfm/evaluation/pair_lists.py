"""Lists of posed pairs, one a line, as SuperGlue published them for ScanNet, YFCC and MegaDepth.

A line holds name0 name1 rotation0 rotation1 K0 (3x3) K1 (3x3) T_0to1 (4x4), row by row: 38 tokens, or 36
without the two rotations. Those count quarter turns that would show a photo upright; photos are matched as
they are stored, which is what K0, K1 and T_0to1 refer to, so they change nothing.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import PairSet, PosedPair, Skipped
from gim_sfm.evaluation.truths import read_intrinsics, read_pose

TOKENS = {38: 4, 36: 2}
"""Where K0 begins, by the number of tokens of a line."""

_REMEDY = "A line is: name0 name1 [rotation0 rotation1] K0(9) K1(9) T_0to1(16)."

log = logging.getLogger(__name__)


def read_pair_list(path: Path, images: Path, *, strict: bool = False) -> PairSet[PosedPair]:
    """Reads a list of posed pairs.

    Args:
        path: Text file of one pair a line; empty lines and lines that begin with # are passed over.
        images: Folder that the names are relative to.
        strict: Refuse the first line that cannot be used instead of skipping it.

    Returns:
        The pairs; lines that cannot be used, or repeat a pair, are named in `skipped`.

    Raises:
        InputError: The list cannot be read or holds no usable line; with `strict`, any line is bad.
    """
    name = "_".join(path.stem.split())
    reader = _Reader(name, images)
    pairs: dict[str, PosedPair] = {}
    skipped: list[Skipped] = []
    for source, tokens in _lines(path):
        try:
            pair = reader.read(tokens)
            if pair.identifier in pairs:
                raise ValueError(f"it repeats the pair {pair.images[0]} {pair.images[1]}")
            pairs[pair.identifier] = pair
        except ValueError as error:
            if strict:
                raise InputError(
                    f"{source}: {error}.", remedy=f"Mend or remove that line. {_REMEDY}"
                ) from error
            skipped.append(Skipped(source, str(error)))
    if not pairs:
        raise _nothing_usable(path, skipped)
    if reader.turned:
        log.warning(
            "%s: %d pairs name a rotation; photos are matched as they are stored.", path, reader.turned
        )
    ordered = tuple(pairs[identifier] for identifier in sorted(pairs))
    return PairSet(name=name, root=images, pairs=ordered, skipped=tuple(skipped))


@dataclass(slots=True)
class _Reader:
    """Reads the lines of one list.

    Attributes:
        scene: What identifiers begin with.
        images: Folder of the images.
        turned: How many usable lines named a rotation.
    """

    scene: str
    images: Path
    turned: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def read(self, tokens: list[str]) -> PosedPair:
        """One pair; ValueError says why it cannot be used."""
        if len(tokens) not in TOKENS:
            raise ValueError(f"it holds {len(tokens)} tokens, neither {' nor '.join(map(str, TOKENS))}")
        start = TOKENS[len(tokens)]
        turns = sum(_quarter_turns(token) for token in tokens[2:start])
        first, second = tokens[:2]
        for name in (first, second):
            self._require_image(name)
        pair = PosedPair(
            identifier=f"{self.scene}#{first}#{second}",
            images=(first, second),
            overlaps=(float("nan"), float("nan")),
            intrinsics=(
                read_intrinsics(tokens[start : start + 9]),
                read_intrinsics(tokens[start + 9 : start + 18]),
            ),
            second_from_first=read_pose(tokens[start + 18 :]),
        )
        self.turned += turns > 0
        return pair

    def _require_image(self, name: str) -> None:
        if name not in self._seen:
            self._seen[name] = self._what_is_wrong_with(name)
        if self._seen[name]:
            raise ValueError(self._seen[name])

    def _what_is_wrong_with(self, name: str) -> str:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"its image {name} lies outside of the image folder"
        return "" if (self.images / name).is_file() else f"its image {name} is not in {self.images}"


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    """Where each pair stands, and its tokens."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"The pair list {path} cannot be read: {error.strerror}.", remedy=_REMEDY) from error
    numbered = ((f"{path}:{number}", line.split()) for number, line in enumerate(lines, start=1))
    return [(source, tokens) for source, tokens in numbered if tokens and not tokens[0].startswith("#")]


def _quarter_turns(token: str) -> int:
    try:
        return int(float(token)) % 4
    except (ValueError, OverflowError):
        raise ValueError(f"{token[:40]!r} is not a number of quarter turns") from None


def _nothing_usable(path: Path, skipped: list[Skipped]) -> InputError:
    reasons = "; ".join(f"{each.source}: {each.reason}" for each in skipped[:3]) or "it is empty"
    return InputError(f"{path} holds no pair that can be used: {reasons}.", remedy=_REMEDY)
