"""What a matcher finds in the pairs of a set, on disk: matched once, scored as often as one likes.

The matches of every pair lie in matches.h5, in hloc's layout for dense matches whatever the matcher. Features
are found once an image and kept in features.h5 until all pairs are matched.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from gim_sfm.archive import exclusive
from gim_sfm.carrying import PhotoSource, Source
from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import PairSet
from gim_sfm.evaluation.contender import Contender
from gim_sfm.files import write_text
from gim_sfm.images import ImageFolder, Signature, is_unchanged, read_header, signature
from gim_sfm.matchers.contract import SemiDenseMatcher
from gim_sfm.matchers.positions import PositionTeller, telling_positions
from gim_sfm.matching import MatchingOutcome, extract_features, match_pairs
from gim_sfm.progress import stage
from gim_sfm.recipe import digest
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Pair


@dataclass(frozen=True, slots=True)
class Predictions:
    """The matches of a set.

    Attributes:
        folder: Where they lie.
        store: They themselves.
        made_by: Digest of what matched them.
        contents: Digest of each image.
        broken: Images that could not be read, with the reason.
        longest: Longest side in pixels at which the network saw the images.
        matched: Pairs matched now, not in an earlier run.
        seconds: Time of matching now, with reading and writing, without loading the network.
        seconds_in_network: Part of it inside the networks.
    """

    folder: Path
    store: MatchStore
    made_by: str
    contents: Mapping[str, str]
    broken: Mapping[str, str]
    longest: int
    matched: int
    seconds: float
    seconds_in_network: float

    def read(self, pair: Pair) -> Correspondences:
        """The matches of a pair, in file pixels."""
        found = self.store.read(pair)
        assert isinstance(found, Correspondences)
        return found


@contextmanager
def predict(contender: Contender, pair_set: PairSet[Any], folder: Path) -> Iterator[Predictions]:
    """Matches the pairs of a set that are not matched yet, and gives what there is.

    Killed at any moment, it goes on where it stopped. An image that has changed is matched anew.

    Args:
        contender: The matcher.
        pair_set: The pairs.
        folder: For matches.h5, and features on the way.

    Raises:
        OutputError: The folder cannot be written, or another run uses it.
        WeightsError: The matcher's weights cannot be had.
    """
    pairs = list(dict.fromkeys(pair.images for pair in pair_set.pairs))
    images = ImageFolder.of(pair_set.root, {name for pair in pairs for name in pair})
    with exclusive(folder):
        began = time.perf_counter()
        book, broken = _look_at(images, folder / "images.json")
        looked = time.perf_counter() - began
        longest = contender.longest(pair_set, max((max(each.size) for each in book.values()), default=1))
        key = contender.key(longest)
        contents = {name: each.signed.digest for name, each in book.items()}
        whole = [pair for pair in pairs if contents.keys() >= set(pair)]
        with MatchStore.open(folder / "matches.h5", digest(key), key) as store:
            made_from = {pair: (contents[pair[0]], contents[pair[1]]) for pair in whole}
            todo = [pair for pair in whole if not store.is_current(pair, made_from[pair])]
            task = _Task(contender, longest, images, contents, folder / "features")
            seconds, inside = task.match(todo, store, broken) if todo else (0.0, 0.0)
            shutil.rmtree(task.scratch, ignore_errors=True)
            yield Predictions(
                folder, store, digest(key), contents, broken, longest, len(todo), looked + seconds, inside
            )


@dataclass(frozen=True, slots=True)
class _ByImage:
    """A source whose contents go by the images alone; what is made of them may come and go."""

    source: Source
    contents: Mapping[str, str]

    def read(self, name: str) -> Any:
        return self.source.read(name)

    def content(self, name: str) -> str:
        return self.contents[name]


@dataclass(frozen=True, slots=True)
class _Task:
    """Matching a set.

    Attributes:
        contender: The matcher.
        longest: Longest side in pixels at which it sees the images.
        images: The images.
        contents: Digests of those that can be read.
        scratch: Folder for features on the way.
    """

    contender: Contender
    longest: int
    images: ImageFolder
    contents: Mapping[str, str]
    scratch: Path

    def match(self, todo: Sequence[Pair], store: MatchStore, broken: dict[str, str]) -> tuple[float, float]:
        """Matches these pairs and notes images that cannot be decoded; seconds in all, and in networks."""
        matcher = telling_positions(self.contender.load(self.longest))
        began = time.perf_counter()
        inside = self._match(matcher, todo, store, broken)
        return time.perf_counter() - began, inside

    def _match(
        self, matcher: PositionTeller, todo: Sequence[Pair], store: MatchStore, broken: dict[str, str]
    ) -> float:
        if isinstance(matcher, SemiDenseMatcher):
            return self._match_features(todo, matcher, store, broken)
        outcome = self._match_pairs(todo, matcher, PhotoSource(self.images, self._decoded), store)
        broken.update(outcome.broken)
        return outcome.seconds_in_network

    def _match_features(
        self, todo: Sequence[Pair], matcher: SemiDenseMatcher, store: MatchStore, broken: dict[str, str]
    ) -> float:
        key = self.contender.key(self.longest)
        names = sorted({name for pair in todo for name in pair})
        with FeatureStore.open(self.scratch / "features.h5", digest(key), key) as features:
            found = extract_features(
                self.images,
                names,
                matcher.detector,
                features,
                longest=self._decoded,
                batch=self.contender.batch,
            )
            broken.update(found.broken)
            whole = [pair for pair in todo if not broken.keys() & set(pair)]
            outcome = self._match_pairs(whole, matcher, features, store)
        return found.seconds_in_network + outcome.seconds_in_network

    def _match_pairs(
        self, todo: Sequence[Pair], matcher: PositionTeller, source: Source, store: MatchStore
    ) -> MatchingOutcome:
        by_image = _ByImage(source, self.contents)
        return match_pairs(todo, matcher, by_image, store, batch=self.contender.batch)

    @property
    def _decoded(self) -> int:
        return round(self.longest * self.contender.row.finest)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of an image file.

    Attributes:
        signed: What it was when it was read.
        size: (width, height).
    """

    signed: Signature
    size: tuple[int, int]


def _look_at(images: ImageFolder, book: Path) -> tuple[dict[str, _Seen], dict[str, str]]:
    """What every image is, and why some cannot be used; what has not changed since noted is not read."""
    known, seen, broken = _noted(book), dict[str, _Seen](), dict[str, str]()
    with stage("Looking at images", len(images.names), "image") as advance:
        for name in images.names:
            path = images.path(name)
            try:
                unchanged = name in known and is_unchanged(path, known[name].signed)
                seen[name] = known[name] if unchanged else _Seen(signature(path), read_header(path).size)
            except InputError as error:
                broken[name] = error.message
            advance(1)
    if seen != known:
        rows = {name: [*astuple(each.signed), *each.size] for name, each in seen.items()}
        write_text(book, json.dumps(rows))
    return seen, broken


def _noted(book: Path) -> dict[str, _Seen]:
    """What an earlier run noted; nothing where that cannot be read, for it can be seen again."""
    try:
        rows = json.loads(book.read_text(encoding="utf-8"))
        return {name: _Seen(Signature(*row[:3]), (row[3], row[4])) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return {}
