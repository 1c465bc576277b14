"""Which photos of a folder are new to a map, how the map calls them, and where they lie."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder
from gim_sfm.sfm.photo_links import source_roots


@dataclass(frozen=True, slots=True)
class Offered:
    """The photos of a folder under the names that a map has for them, or would have.

    Attributes:
        sources: Where each lies.
        at_home: Whether all of them lie where the map's own photos do.
    """

    sources: Mapping[str, Path]
    at_home: bool


def find_offered(photos: Path, home: Path, known: Collection[str], out: Path) -> Offered:
    """Names the photos of a folder.

    The folder may be the one that the map's names refer to, or lie within it: then its photos are named from
    there. The names of photos from elsewhere are relative to their folder.

    Args:
        photos: The folder.
        home: Folder of the map's photos.
        known: Names that the map has.
        out: Folder of the map; what lies in it is passed over.

    Raises:
        InputError: There is no photo.
    """
    scanned = ImageFolder.scan(photos)
    folder = photos.resolve()
    sources = {name: folder / name for name in scanned.names}
    if out.resolve().is_relative_to(folder):
        sources = {name: path for name, path in sources.items() if not path.is_relative_to(out.resolve())}
    root = next((root for root in _roots(home, known) if folder.is_relative_to(root)), folder)
    prefix = PurePosixPath(folder.relative_to(root).as_posix())
    named = {(prefix / name).as_posix(): path for name, path in sources.items()}
    return Offered(named, at_home=root == home.resolve())


def _roots(home: Path, known: Collection[str]) -> Sequence[Path]:
    """Folders that names of the map refer to: that of its photos, or those that its links lead to."""
    return [home.resolve(), *source_roots(home, known)]


def choose_newcomers(
    offered: Offered, home: Path, known: Collection[str], is_same: Callable[[str, Path], bool]
) -> dict[str, Path]:
    """The photos that the map does not know, and where they lie.

    Args:
        offered: The photos there are.
        home: Folder of the map's photos.
        known: Names that the map has.
        is_same: Whether the photo of that name was made from this very file.

    Raises:
        InputError: A photo has the name of another one of the map.
    """
    both = [name for name in offered.sources if name in known]
    for name in both:
        if not is_same(name, offered.sources[name]):
            raise _other_content(name, offered.sources[name], home / name)
    own = {(home / name).resolve() for name in known}  # by another name, from a folder further up, too
    fresh = {
        name: path
        for name, path in offered.sources.items()
        if name not in known and path.resolve() not in own
    }
    ImageFolder.of(home, [*known, *fresh])  # refuses names that files of matches cannot tell apart
    return fresh


def _other_content(name: str, offered: Path, own: Path) -> InputError:
    if own.exists() and own.samefile(offered):
        return InputError(
            f"{own}, or its mask, has changed since it came into the map.",
            remedy="Put the former file back and the new photo under another name, or run reconstruct again.",
        )
    return InputError(
        f"{offered} and {own.resolve()} are different photos, but both would be {name} in the map.",
        remedy="Put the new photos into a subfolder of the folder that you name, e.g. "
        f"{offered.parent / 'second' / offered.name}.",
    )
