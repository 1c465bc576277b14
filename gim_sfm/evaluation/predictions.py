"""What a matcher finds in the pairs of a set, on disk: matched once, scored as often as one likes.

The matches of every pair lie in matches.h5, in hloc's layout for dense matches whatever the matcher. Features
are found once an image and kept in features.h5 until all pairs are matched.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gim_sfm.carrying import PhotoSource, Source
from gim_sfm.errors import InputError
from gim_sfm.evaluation.benchmark import PairSet
from gim_sfm.evaluation.contender import Contender
from gim_sfm.files import write_text
from gim_sfm.images import ImageFolder, Signature, is_unchanged, signature
from gim_sfm.matchers.contract import FeatureMatcher, FeaturePair, Matcher, SemiDenseMatcher, SparseMatcher
from gim_sfm.matching import MatchingOutcome, extract_features, match_pairs
from gim_sfm.recipe import digest
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Pair


@dataclass(frozen=True, slots=True)
class Predictions:
    """The matches of a set.

    Attributes:
        store: Where they lie.
        broken: Images that could not be read, with the reason.
        matched: Pairs matched now, not in an earlier run.
        seconds: Time of matching now, with reading and writing, without loading the network.
        seconds_in_network: Part of it inside the networks.
        content: Digest of the images and of what matched them.
    """

    store: MatchStore
    broken: Mapping[str, str]
    matched: int
    seconds: float
    seconds_in_network: float
    content: str

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
        folder: For matches.h5, and features.h5 on the way.

    Raises:
        OutputError: The folder cannot be written, or another run uses it.
        WeightsError: The matcher's weights cannot be had.
    """
    pairs = list(dict.fromkeys(pair.images for pair in pair_set.pairs))
    images = ImageFolder.of(pair_set.root, {name for pair in pairs for name in pair})
    longest = contender.longest(pair_set)
    key = contender.key(longest)
    with MatchStore.open(folder / "matches.h5", digest(key), key) as store:
        contents, broken = _contents(images, folder / "images.json")
        whole = [pair for pair in pairs if contents.keys() >= set(pair)]
        todo = [pair for pair in whole if not store.is_current(pair, (contents[pair[0]], contents[pair[1]]))]
        task = _Task(contender, longest, images, contents, folder / "features")
        seconds = task.match(todo, store, broken) if todo else (0.0, 0.0)
        shutil.rmtree(task.scratch, ignore_errors=True)
        yield Predictions(store, broken, len(todo), *seconds, digest(key, contents))


@dataclass(frozen=True, slots=True)
class PositionMatcher:
    """Matches features, and tells positions instead of indices: features need not outlast the matching.

    Attributes:
        matcher: Gives the indices.
    """

    matcher: FeatureMatcher

    def correspond(self, pairs: Sequence[FeaturePair]) -> list[Correspondences]:
        """Matched positions of each pair, in file pixels."""
        found = self.matcher.match(pairs)
        return [
            Correspondences(
                first.keypoints[matches.indices[:, 0]],
                second.keypoints[matches.indices[:, 1]],
                matches.scores,
            )
            for (first, second), matches in zip(pairs, found, strict=True)
        ]


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
        matcher = self.contender.load(self.longest)
        began = time.perf_counter()
        inside = self._match(matcher, todo, store, broken)
        return time.perf_counter() - began, inside

    def _match(
        self, matcher: Matcher, todo: Sequence[Pair], store: MatchStore, broken: dict[str, str]
    ) -> float:
        if isinstance(matcher, SparseMatcher):
            matcher = SemiDenseMatcher(matcher.detector, PositionMatcher(matcher.matcher))
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
        self, todo: Sequence[Pair], matcher: Matcher, source: Source, store: MatchStore
    ) -> MatchingOutcome:
        by_image = _ByImage(source, self.contents)
        return match_pairs(todo, matcher, by_image, store, batch=self.contender.batch)

    @property
    def _decoded(self) -> int:
        return round(self.longest * self.contender.row.finest)


def _contents(images: ImageFolder, book: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Digest of every image, and why some have none; those unchanged since they were noted are not read."""
    known = _noted(book)
    signed: dict[str, Signature] = {}
    broken = {}
    for name in images.names:
        path = images.path(name)
        try:
            unchanged = name in known and is_unchanged(path, known[name])
            signed[name] = known[name] if unchanged else signature(path)
        except InputError as error:
            broken[name] = error.message
    if signed != known:
        write_text(book, json.dumps({name: asdict(each) for name, each in signed.items()}))
    return {name: each.digest for name, each in signed.items()}, broken


def _noted(book: Path) -> dict[str, Signature]:
    if not book.exists():
        return {}
    return {name: Signature(**entry) for name, entry in json.loads(book.read_text()).items()}
