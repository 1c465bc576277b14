"""Pair lists as text: hloc's `name0 name1` per line, extended to names with blanks."""

import difflib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from gim_sfm.errors import InputError, OutputError
from gim_sfm.files import replacing
from gim_sfm.pairs import union
from gim_sfm.types import Pair

logger = logging.getLogger(__name__)

_QUOTED = re.compile(r'\s*(?:"(?P<first>[^"]+)"|(?P<bare>\S+))\s+(?:"(?P<second>[^"]+)"|(?P<tail>\S+))\s*')


def from_file(path: Path, names: Sequence[str]) -> list[Pair]:
    """Reads a pair list.

    A line holds two names parted by a tab or blanks; quotation marks round a name are understood. Names with
    blanks need neither, as long as only one way to cut the line gives two known names. Blank lines and lines
    that begin with # are skipped, repeated and reversed pairs count once, a photo with itself does not count.

    Args:
        path: Text file in UTF-8.
        names: The photos that exist; the order of the result follows them.

    Raises:
        InputError: The file cannot be read, a line does not name two photos, or there is no pair at all.
    """
    known = frozenset(names)
    lines = enumerate(_read(path).split("\n"), start=1)
    found = [_parse(line.rstrip("\r"), known, f"{path}, line {number}") for number, line in lines]
    pairs = union(names, (pair for pair in found if pair is not None))
    if not pairs:
        raise InputError(f"{path} names no pair of photos.", remedy="write one pair a line: name0 name1")
    return pairs


def read_partners(path: Path, queries: Sequence[str], photos: Sequence[str]) -> dict[str, list[str]]:
    """Reads which photos each query shall be compared with: `query photo` a line, in this order.

    Written as for `from_file`. Such lists are often made for more queries than there are, and before it is
    known which photos a model has: lines that name others are passed over, which a warning tells.

    Args:
        path: Text file in UTF-8.
        queries: The queries.
        photos: The photos; a query may be called like one of them.

    Returns:
        Photos by query, in the order of the list; an empty list for a query that it does not name.

    Raises:
        InputError: The file cannot be read, a line can be read in two ways, or none names two of them.
    """
    partners: dict[str, list[str]] = {query: [] for query in queries}
    firsts, seconds = frozenset(queries), frozenset(photos)
    strange = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        found = _read_cut(line.rstrip("\r"), lambda pair: pair[0] in firsts and pair[1] in seconds, where)
        if found is not None and found[1] not in partners[found[0]]:
            partners[found[0]].append(found[1])
        if found is None and line.strip() and not line.lstrip().startswith("#"):
            strange.append(where)
    if not any(partners.values()):
        raise InputError(
            f"{path} names no query together with a photo of the model.",
            remedy="Write one pair a line, query photo, with names as they are relative to their folders.",
        )
    if strange:
        logger.warning("%d lines name no query or no photo of the model, first %s", len(strange), strange[0])
    return partners


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Writes a pair list in one step: blanks part the names as in hloc, or tabs if any name has a blank.

    Raises:
        OutputError: The file cannot be written.
        InputError: A name has a line break in it.
    """
    pairs = list(pairs)
    for name in (name for pair in pairs for name in pair if "\n" in name or "\r" in name):
        raise InputError(f"The photo name {name!r} has a line break in it.", remedy="rename the photo")
    separator = "\t" if any(mark.isspace() for pair in pairs for name in pair for mark in name) else " "
    text = "".join(f"{first}{separator}{second}\n" for first, second in pairs)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}.", remedy="free space or name another output folder"
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(
            f"The pair list {path} cannot be read: {error.strerror}.",
            remedy="check the path and its permissions",
        ) from error


def _parse(line: str, known: frozenset[str], where: str) -> Pair | None:
    """The pair that a line names; none if it names none on purpose."""
    if not line.strip():
        return None
    found = _read_cut(line, known.issuperset, where)
    if found is not None or line.lstrip().startswith("#"):
        return found
    raise _unreadable(line, known, where)


def _read_cut(line: str, is_pair: Callable[[Pair], bool], where: str) -> Pair | None:
    """The pair that a line names, by the first way of writing that gives one; none if no way does."""
    for readings in (_cut_at_tab(line), _cut_anywhere(line), _cut_by_quotes(line)):
        possible = sorted({pair for pair in readings if is_pair(pair)})
        if len(possible) == 1:
            return possible[0]
        if possible:
            raise InputError(
                f"{where}: {line!r} can be read in {len(possible)} ways, as {possible[0]} or {possible[1]}.",
                remedy="put a tab between the two names",
            )
    return None


def _cut_at_tab(line: str) -> Iterator[Pair]:
    parts = line.split("\t")
    if len(parts) == 2:
        yield parts[0], parts[1]


def _cut_anywhere(line: str) -> Iterator[Pair]:
    for gap in re.finditer(r"\s", line):
        yield line[: gap.start()], line[gap.end() :]
    text = line.strip()
    for gap in re.finditer(r"\s+", text):
        yield text[: gap.start()], text[gap.end() :]


def _cut_by_quotes(line: str) -> Iterator[Pair]:
    if parts := _QUOTED.fullmatch(line):
        yield parts["first"] or parts["bare"], parts["second"] or parts["tail"]


def _unreadable(line: str, known: frozenset[str], where: str) -> InputError:
    parts = next((pair for cut in (_cut_at_tab, _cut_by_quotes) for pair in cut(line)), tuple(line.split()))
    unknown = [part for part in parts if part not in known]
    if len(parts) != 2 and len(unknown) != 1:
        return InputError(
            f"{where}: {line!r} does not name two of the photos.", remedy="write one pair a line: name0 name1"
        )
    near = difflib.get_close_matches(unknown[0], known, n=1)
    return InputError(
        f"{where}: there is no photo {unknown[0]!r}." + "".join(f" Is {name!r} meant?" for name in near),
        remedy="names are paths relative to the folder of photos, with / between folders",
    )
