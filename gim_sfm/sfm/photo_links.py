"""Photos of several folders made one: a folder of links beside the model."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from gim_sfm.errors import OutputError
from gim_sfm.sfm.maps import IMAGES

GATHERED = "gathered_images"
"""Folder of links to photos from several places; `images` leads to it."""


def gather_photos(out: Path, sources: Mapping[str, Path]) -> Path:
    """Puts links to photos under OUT, named as the model names them.

    Links that are there already and lead elsewhere are laid anew; others stay.

    Args:
        out: Folder of the map.
        sources: Where each photo lies, by its name.

    Returns:
        The folder of the links.

    Raises:
        OutputError: A link cannot be made, or files are in its way.
    """
    folder = out / GATHERED
    for name, source in sorted(sources.items()):
        _lay(folder / name, source.resolve())
    return folder


def show_gathered(out: Path) -> None:
    """Lets OUT/images lead to the gathered photos.

    Raises:
        OutputError: The link cannot be made.
    """
    images = out / IMAGES
    if not (images.is_symlink() and images.resolve() == (out / GATHERED).resolve()):
        _lay(images, Path(GATHERED))


def gathered_names(out: Path) -> set[str]:
    """Names of the photos that are gathered."""
    folder = out / GATHERED
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}


def drop_gathered(out: Path, names: Iterable[str]) -> None:
    """Takes links away again."""
    for name in names:
        link = out / GATHERED / name
        if link.is_symlink():
            link.unlink()


def source_roots(home: Path, names: Iterable[str]) -> list[Path]:
    """Folders that the names of linked photos refer to, most photos first; none where they are no links."""
    counts: Counter[Path] = Counter()
    for name in names:
        link = home / name
        if link.is_symlink():
            with suppress(OSError):
                target, depth = link.resolve(), len(Path(name).parts)
                if target.parts[-depth:] == Path(name).parts:
                    counts[target.parents[depth - 1]] += 1
    return [root for root, _ in counts.most_common()]


def _lay(link: Path, target: Path) -> None:
    """Makes a link, in the place of an older one, in one step."""
    if link.is_symlink() and link.readlink() == target:
        return
    if link.exists() and not link.is_symlink():
        raise OutputError(f"{link} is in the way of a link to {target}.", remedy="Move it elsewhere.")
    fresh = link.with_name(f".{link.name}.tmp")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
    except OSError as error:
        raise OutputError(
            f"{link} cannot be made a link to a photo: {error.strerror}.",
            remedy="Name an output folder on a disk that has links.",
        ) from error
