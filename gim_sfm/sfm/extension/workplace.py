"""Where an extension is made: beside the map, which it replaces part by part when it is complete.

A killed extension leaves the map as it was, or its database grown already, which the model does not mind;
the draft tells the next run where to go on.
"""

import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycolmap

from gim_sfm.files import replacing, write_text
from gim_sfm.recipe import digest
from gim_sfm.sfm.extension.growth import DATABASE
from gim_sfm.sfm.mapping import PROVENANCE, publish, replacing_folder
from gim_sfm.sfm.maps import FEATURES, RECIPE

logger = logging.getLogger(__name__)

DRAFT = "extension"
STATE = "state.json"
FORMER = "former"
"""Models that were replaced by larger ones, numbered from 1."""

SPARSE = "sparse"


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

    def keep_former(self) -> Path:
        """Copies the models as they are now, once, and tells where."""
        state = json.loads((self.draft / STATE).read_text(encoding="utf-8"))
        kept = self.root / FORMER / str(state["number"])
        if not kept.exists():
            with replacing_folder(kept) as temporary:
                shutil.copytree(self.root / SPARSE, temporary, dirs_exist_ok=True)
        return kept

    def replace(
        self,
        models: Sequence[pycolmap.Reconstruction],
        photos: Path,
        record: Mapping[str, Any],
        newcomers: Collection[str],
    ) -> None:
        """Replaces database and models; last come the models, with the record of what was done."""
        for path in (self.base, self.base.with_suffix(".json")):
            with replacing(path) as temporary:
                shutil.copyfile(self.draft / path.name, temporary)
        publish(models, photos, self.root / SPARSE, record, coloured_by=newcomers)
        self.clear()

    def clear(self) -> None:
        """Throws the draft away."""
        shutil.rmtree(self.draft, ignore_errors=True)


def open_workplace(root: Path) -> Workplace:
    """Begins an extension, or goes on with one that was cut off."""
    state_path, after = root / DRAFT / STATE, digest(read_record(root))
    state = json.loads(state_path.read_text(encoding="utf-8")) if state_path.exists() else {}
    if state.get("after") != after:
        shutil.rmtree(root / DRAFT, ignore_errors=True)
        (root / DRAFT).mkdir()
        state = {"after": after, "known": _photos(root / DATABASE), "number": _next_number(root / FORMER)}
        write_text(state_path, json.dumps(state))
    return Workplace(root, frozenset(state["known"]))


def read_record(root: Path) -> dict[str, Any]:
    """What the models of a map came from."""
    path = root / SPARSE / PROVENANCE
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def mend(folder: Path) -> None:
    """Puts models back that a kill caught in the instant between two renames."""
    for root in (folder, *folder.resolve().parents[:2]):
        put_aside = root / f".{SPARSE}.old"
        is_map = (root / RECIPE).exists() and (root / FEATURES).exists()
        if is_map and put_aside.exists() and not (root / SPARSE).exists():
            put_aside.rename(root / SPARSE)
            logger.info("%s was put back; the last run was cut off while replacing it.", root / SPARSE)


def _photos(database: Path) -> list[str]:
    with pycolmap.Database.open(database) as opened:
        return sorted(image.name for image in opened.read_all_images())


def _next_number(folder: Path) -> int:
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    return max(numbers, default=0) + 1
