"""Places of a drive described and pairs of them registered, once each however often the run is killed."""

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Float64

from gim_sfm.bev.drives.drive import Drive
from gim_sfm.bev.loops.information import Information, about_origin, measure_information
from gim_sfm.bev.loops.place_recognition import Descriptor, describe_place
from gim_sfm.bev.preparation import Prepared
from gim_sfm.bev.registration import REACHES, register_prepared
from gim_sfm.bev.view_matching import ViewMatcher
from gim_sfm.errors import InputError, RegistrationError
from gim_sfm.journal import Journal, Record
from gim_sfm.recipe import digest

log = logging.getLogger(__name__)

VERSION = 2
"""Raised when the same scans and settings would give another answer than before."""

MOST_PREPARED = 48
"""Places held ready at a time; a scan of 100 000 points takes some 10 megabytes."""

Transform = Float64[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Two places that were registered.

    Attributes:
        source: Number of one.
        target: Number of the other.
        target_from_source: 4x4, rigid.
        information: Of it, as in `gim_sfm.bev.loops.information`.
        overlap: As in `Registration`, and so are the others.
        consistent: See there.
        rmse: See there.
        confidence: See there.
    """

    source: int
    target: int
    target_from_source: Transform
    information: Information
    overlap: float
    consistent: float
    rmse: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Two places that were not, and why."""

    source: int
    target: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """What is to be known of a place before it is compared.

    Attributes:
        descriptor: What it looks like; of length 0 where it cannot be used.
        station: Where it was taken from, in its frame; not numbers where it cannot be used.
        left_out: Why scans are not in it, by file name.
        reason: Why it cannot be used, or nothing.
    """

    descriptor: Descriptor
    station: Float64[np.ndarray, "3"]
    left_out: Mapping[str, str]
    reason: str


class Judge:
    """Describes the places of a drive and registers pairs of them; use it in a with block.

    Args:
        drive: The places.
        journal: File that keeps what was found. What is in it counts while the scans and settings are the
            same, and is left alone where they are not.
        matcher: For the top views.
        key: What the matcher is, by values.
    """

    def __init__(
        self,
        drive: Drive,
        journal: Path,
        matcher: ViewMatcher,
        *,
        key: object,
    ) -> None:
        self._drive, self._matcher = drive, matcher
        self._signatures = [digest(VERSION, drive.sign(place)) for place in range(len(drive.places))]
        self._key = digest(key, list(matcher.channels), matcher.turns)
        self._prepared: OrderedDict[int, Prepared] = OrderedDict()
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(journal)
        self._known = {entry.key: entry.offset for entry in self._journal.entries}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()

    def describe(self, place: int) -> Described:
        """What a place looks like, or why it cannot be used."""
        key = f"place {self._signatures[place]}"
        if key not in self._known:
            self._note(self._describe(key, place))
        record = self._journal.read(self._known[key])
        return Described(
            np.asarray(record.arrays["descriptor"]),
            np.asarray(record.arrays["station"]),
            *json.loads(record.facts),
        )

    def judge(self, source: int, target: int) -> Link | Refusal:
        """Registers two places that can be used, or tells why not."""
        key = f"pair {self._signatures[source]} {self._signatures[target]} {self._key}"
        if key not in self._known:
            self._note(self._register(key, source, target))
        record = self._journal.read(self._known[key])
        if not record.arrays:
            return Refusal(source, target, record.facts)
        moved, information = record.arrays["target_from_source"], record.arrays["information"]
        return Link(source, target, moved, information, *json.loads(record.facts))

    def _note(self, record: Record) -> None:
        self._known[record.key] = self._journal.append(record)

    def _describe(self, key: str, place: int) -> Record:
        drive, left_out = self._drive, dict[str, str]()
        try:
            loaded = drive.load(place)
            left_out = {drive.scans[scan].name: reason for scan, reason in loaded.left_out.items()}
            station = drive.find_station(loaded.cloud)
            described = describe_place(loaded.cloud, drive.level(loaded.cloud), drive.extent, station)
        except InputError as error:
            log.warning("%s is left out: %s", drive.name(place), error.message)
            nothing = {"descriptor": np.empty(0, np.float32), "station": np.full(3, np.nan)}
            return Record(key, json.dumps([left_out, error.message]), nothing)
        return Record(key, json.dumps([left_out, ""]), {"descriptor": described, "station": station})

    def _register(self, key: str, source: int, target: int) -> Record:
        one, other = self._prepare(source), self._prepare(target)
        try:
            found = register_prepared(one, other, self._matcher)
        except RegistrationError as error:
            return Record(key, error.message, {})
        relative = found.target_from_source.copy()
        relative[:3, 3] += relative[:3, :3] @ one.cloud.origin - other.cloud.origin
        information = measure_information(
            one.thinned,
            other.thinned,
            relative,
            within=REACHES[-1] * self._drive.voxel,
            voxel=self._drive.voxel,
            extent=self._drive.extent,
        )
        arrays = {
            "target_from_source": found.target_from_source,
            "information": about_origin(information, one.cloud.origin),
        }
        figures = [found.overlap, found.consistent, found.rmse, found.confidence]
        return Record(key, json.dumps([float(figure) for figure in figures]), arrays)

    def _prepare(self, place: int) -> Prepared:
        prepared = self._prepared.pop(place, None) or self._drive.prepare(place, self._matcher.channels)
        self._prepared[place] = prepared
        while len(self._prepared) > MOST_PREPARED:
            self._prepared.popitem(last=False)
        return prepared
