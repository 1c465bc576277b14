"""Names that hloc's text and match files cannot hold, found before hours are spent on them."""

from collections.abc import Iterable
from pathlib import Path

from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder


def require_usable_names(folder: Path, names: Iterable[str]) -> None:
    """Refuses photos that hloc would crash on or mix up.

    Args:
        folder: Where the photos are, for the message.
        names: Their names.

    Raises:
        InputError: A name has a blank in it, which hloc's pair lists cannot carry; or two names differ in '/'
            and '-' only, which its match files cannot tell apart.
    """
    distinct = sorted(set(names))
    for name in distinct:
        if len(name.split()) != 1:
            raise InputError(
                f"{folder / name} has a blank in its name, which hloc's pair lists cannot carry.",
                remedy="Rename the file.",
            )
    ImageFolder.of(folder, distinct)


def read_pair_names(path: Path) -> set[str]:
    """The photos that a pair list of hloc names.

    Raises:
        InputError: There is no such file, or a line does not hold two words.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(
            f"The pair list {path} cannot be read: {error.strerror}.", remedy="Check the path."
        ) from error
    names = set[str]()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if len(words) not in (0, 2):
            raise InputError(
                f"{path}, line {number}: {line!r} has {len(words)} words, not two names.",
                remedy="Write one pair a line; rename photos with a blank in their name.",
            )
        names.update(words)
    return names
