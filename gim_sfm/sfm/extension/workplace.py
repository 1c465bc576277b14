"""Where an extension is made: beside the map, which it replaces part by part when it is complete.

A killed extension leaves the map as it was, or with its larger database already, which the next one takes
back; the draft tells it where to go on.
"""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.files import write_text
from gim_sfm.recipe import digest
from gim_sfm.sfm.mapping import publish
from gim_sfm.sfm.maps import DATABASE, SPARSE, read_provenance

DRAFT = "extension"
STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Workplace:
    """A map and the draft of its extension.

    Attributes:
        root: Folder of the map.
        known: Photos that were in its database before this extension began.
    """

    root: Path
    known: frozenset[str]

    @property
    def draft(self) -> Path:
        """Folder of the draft."""
        return self.root / DRAFT

    @property
    def base(self) -> Path:
        """The map's database."""
        return self.root / DATABASE

    @property
    def grown(self) -> Path:
        """The draft's database."""
        return self.draft / DATABASE

    def replace(
        self,
        models: Sequence[pycolmap.Reconstruction],
        photos: Path,
        record: Mapping[str, Any],
        newcomers: Collection[str],
    ) -> None:
        """Replaces database and models; last come the models, with the record of what was done."""
        for path in _database_files(self.root):
            path.rename(_put_aside(path))
            (self.draft / path.name).rename(path)
        publish(models, photos, self.root / SPARSE, record, coloured_by=newcomers)
        shutil.rmtree(self.draft, ignore_errors=True)

    def clear(self) -> None:
        """Throws the draft away."""
        _put_back(self.root)
        shutil.rmtree(self.draft, ignore_errors=True)


def open_workplace(root: Path) -> Workplace:
    """Begins an extension, or goes on with one that was cut off."""
    state_path, after = root / DRAFT / STATE, digest(read_provenance(root))
    state = json.loads(state_path.read_text(encoding="utf-8")) if state_path.exists() else {}
    if state.get("after") == after:
        _put_back(root)
    else:
        shutil.rmtree(root / DRAFT, ignore_errors=True)
        (root / DRAFT).mkdir()
        state = {"after": after, "known": _photos(root / DATABASE)}
        write_text(state_path, json.dumps(state))
    return Workplace(root, frozenset(state["known"]))


def _database_files(root: Path) -> tuple[Path, Path]:
    return root / DATABASE, (root / DATABASE).with_suffix(".json")


def _put_aside(path: Path) -> Path:
    """Where a file of the map's database is while the models made from it are not replaced yet."""
    return path.parent / DRAFT / f"former_{path.name}"


def _put_back(root: Path) -> None:
    """Takes back the larger database of a run that was cut off before its models were in place."""
    for path in _database_files(root):
        if _put_aside(path).exists():
            if path.exists():
                path.rename(root / DRAFT / path.name)
            _put_aside(path).rename(path)


def _photos(database: Path) -> list[str]:
    with pycolmap.Database.open(database) as opened:
        return sorted(image.name for image in opened.read_all_images())
