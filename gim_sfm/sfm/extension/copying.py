"""A map copied whole, so that the copy can grow while the map stays as it is."""

import json
import shutil
from pathlib import Path

from gim_sfm.archive import exclusive
from gim_sfm.errors import OutputError
from gim_sfm.files import replacing_folder, write_text
from gim_sfm.sfm.adoption import ADOPTED, RECORD
from gim_sfm.sfm.mapping import PROVENANCE
from gim_sfm.sfm.maps import (
    DATABASE,
    EXTENSION,
    IMAGES,
    RECIPE,
    SPARSE,
    Map,
    content_of,
    is_map,
    link_photos,
    open_map,
    read_provenance,
)
from gim_sfm.sfm.photo_links import GATHERED, gather_photos, show_gathered
from gim_sfm.sfm.placing import refuse_overlap

ORIGIN = "copied_from.json"
"""Says which state of which map a map is a copy of."""

FOLDERS = (SPARSE, ADOPTED)
FILES = (DATABASE, "database.json", "pairs.txt", RECORD, "*.h5", "*.h5.journal")


def copy_map(source: Map, out: Path) -> Map:
    """Copies a map, unless `out` is its copy already.

    Files are copied, not linked: programs that write into one of them must not reach the other.

    Args:
        source: The map.
        out: Folder of the copy.

    Raises:
        OutputError: `out` holds something else, or a copy of another state of the map, or cannot be written.
    """
    state = {"map": str(source.folder), "state": content_of(source)}
    origin = out / ORIGIN
    if origin.exists() and json.loads(origin.read_text(encoding="utf-8")) == state and is_map(out):
        return open_map(out, None if (out / IMAGES).exists() else source.photos)
    refuse_overlap(out, source.folder)
    if out.exists() and any(out.iterdir()):
        raise OutputError(
            f"{out} holds something else than a copy of {source.folder} as it is now.",
            remedy="Name another folder for the larger map.",
        )
    try:
        with exclusive(source.folder), replacing_folder(out) as temporary:
            _copy(source, temporary, out)
            write_text(temporary / ORIGIN, json.dumps(state))
    except OSError as error:
        raise OutputError(
            f"{source.folder} cannot be copied to {out}: {error.strerror}.",
            remedy="Free space, or name another folder.",
        ) from error
    return open_map(out)


def _copy(source: Map, temporary: Path, out: Path) -> None:
    for name in FOLDERS:
        if (source.folder / name).exists():
            shutil.copytree(source.folder / name, temporary / name)
    for pattern in FILES:
        for path in source.folder.glob(pattern):
            shutil.copyfile(path, temporary / path.name)
    _forget_growth(temporary)
    source.recipe.with_settings(_moved_poses(source, out)).write(temporary / RECIPE)
    if source.photos.resolve() == (source.folder / GATHERED).resolve():
        names = (image.name for image in source.model.images.values())
        gather_photos(temporary, {name: source.photos / name for name in names})
        show_gathered(temporary)
    else:
        link_photos(temporary, source.photos)


def _forget_growth(root: Path) -> None:
    """Word of an earlier extension leads to former models, which are not copied."""
    record = read_provenance(root)
    if record.pop(EXTENSION, None) is not None:
        write_text(root / SPARSE / PROVENANCE, json.dumps(record, indent=1))


def _moved_poses(source: Map, out: Path) -> dict[str, Path]:
    """Settings that lead into the map lead into its copy."""
    settings = {"poses": source.recipe.mapping.poses, "pairs_model": source.recipe.pairing.pairs_model}
    inside = source.folder / ADOPTED
    return {
        key: out.resolve() / ADOPTED / path.name
        for key, path in settings.items()
        if path is not None and path.resolve().parent == inside.resolve()
    }
