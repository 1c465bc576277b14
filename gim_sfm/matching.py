"""Photos and pairs into stores: extraction once per photo, matching once per pair, resumable at any moment.

The network never waits for the disk: photos and features are read ahead in one thread and results are written
in another. What an earlier run has stored, for the same photos, is not computed again.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from gim_sfm.carrying import Anchored, Courier, Source
from gim_sfm.errors import InputError
from gim_sfm.images import (
    ImageFolder,
    Signature,
    keep_unmasked,
    mask_path,
    masks_missing,
    read_mask,
    read_signed_photo,
    signature,
)
from gim_sfm.matchers.batches import InBatches
from gim_sfm.matchers.contract import (
    DenseMatcher,
    Detector,
    Matcher,
    SemiDenseMatcher,
    SparseMatcher,
    WarpMatcher,
)
from gim_sfm.progress import stage
from gim_sfm.store import FeatureStore, MatchStore, as_stored
from gim_sfm.threads import ahead
from gim_sfm.types import Correspondences, Features, Matches, Pair, Photo

Item = TypeVar("Item")
Result = Matches | Correspondences
Compute = Callable[[Sequence[tuple[Any, Any]]], Sequence[Any]]

_FEATURES_PER_BLOCK, _PHOTOS_PER_BLOCK = 64, 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExtractionOutcome:
    """What extraction did.

    Attributes:
        extracted: Photos whose features were computed now.
        kept: Photos whose features an earlier run had stored.
        broken: Photos that could not be read, with the reason.
        unmasked: Photos without a mask, where masks were asked for.
        seconds_in_network: Time spent inside the detector.
    """

    extracted: int
    kept: int
    broken: Mapping[str, str]
    unmasked: tuple[str, ...]
    seconds_in_network: float


@dataclass(frozen=True, slots=True)
class MatchingOutcome:
    """What matching did.

    Attributes:
        matched: Pairs matched now.
        kept: Pairs that an earlier run had stored.
        broken: Photos that could not be read or have no features, with the reason; their pairs are left out.
        seconds_in_network: Time spent inside the matcher.
    """

    matched: int
    kept: int
    broken: Mapping[str, str]
    seconds_in_network: float


def extract_features(
    folder: ImageFolder,
    names: Sequence[str],
    detector: Detector,
    store: FeatureStore,
    *,
    longest: int | None = None,
    masks: Path | None = None,
    batch: int = 1,
    strict: bool = False,
) -> ExtractionOutcome:
    """Computes and stores the features of every photo that has none, or that has changed since.

    Args:
        folder: The photos.
        names: Which of them.
        detector: Finds and describes keypoints.
        store: Takes the features; published at the end.
        longest: Decode JPEG photos at the smallest scale whose longest side still has this many pixels.
        masks: Folder of masks in COLMAP's naming; keypoints on black are dropped. A changed mask counts as a
            changed photo.
        batch: Photos a call of the detector, fewer where memory does not suffice.
        strict: Raise on the first photo that cannot be read instead of leaving it out.

    Raises:
        InputError: A mask does not fit its photo; with `strict`, a photo cannot be read.
        OutputError: Features could not be written; those written before are kept.
    """
    unmasked = _without_mask(masks, names)
    todo = [name for name in names if not _is_current(folder, name, masks, store)]
    broken: dict[str, str] = {}
    extract = InBatches(detector.extract, batch)
    watch, depth = _Stopwatch(), 2 * max(batch, _readers())
    loading = ahead(lambda name: _load(folder, name, longest, masks), todo, _readers(), depth)
    with (
        stage("Extracting features", len(names), "photo", done=len(names) - len(todo)) as advance,
        closing(loading),
    ):
        for loaded in _chunks(loading, batch):
            whole = _whole(loaded, broken, strict)
            with watch:
                found = extract([item.photo for item in whole])
            for item, features in zip(whole, found, strict=True):
                store.write(item.name, item.unmasked(features), item.signed, item.mask_signed)
            advance(len(loaded))
    store.publish()
    kept = len(names) - len(todo)
    return ExtractionOutcome(len(todo) - len(broken), kept, broken, unmasked, watch.seconds)


def match_pairs(
    pairs: Sequence[Pair],
    matcher: Matcher | Courier,
    source: Source,
    store: MatchStore,
    *,
    batch: int = 1,
    strict: bool = False,
    on_pair: Callable[[Pair, Result], None] = lambda _pair, _result: None,
) -> MatchingOutcome:
    """Matches and stores every pair that is not stored yet, or whose photos have changed since.

    Pairs are taken block by block: of any number of photos only a bounded number is held in memory, and
    each is read few times. A result does not depend on that order, nor on what was stored before.

    Args:
        pairs: The pairs, each once.
        matcher: Of any kind, or a `Courier`.
        source: The `FeatureStore`; a `PhotoSource` for a dense matcher, an `AnchoredSource` for a `Courier`.
        store: Takes the results; published at the end.
        batch: Pairs a call of the matcher, fewer where memory does not suffice.
        strict: Raise on the first photo that cannot be read instead of leaving its pairs out.
        on_pair: Called in this thread with every pair and its result as stored; first those already stored.

    Raises:
        InputError: With `strict`, a photo cannot be read or has no features.
        OutputError: Results could not be written; those written before are kept.
    """
    broken: dict[str, str] = {}
    contents = _contents(pairs, source, broken, strict)
    usable = {pair: (contents[pair[0]], contents[pair[1]]) for pair in pairs if contents.keys() >= set(pair)}
    todo = [pair for pair, made_from in usable.items() if not store.is_current(pair, made_from)]
    _replay(usable.keys(), set(todo), store, on_pair)
    plan, watch, matched = _plan(matcher, batch), _Stopwatch(), 0
    read = lru_cache(2 * plan.block + 1)(source.read)
    loading = ahead(lambda pair: _load_pair(pair, read), in_blocks(todo, plan.block), 1, 2 * batch)
    with stage("Matching", len(usable), "pair", done=len(usable) - len(todo)) as advance, closing(loading):
        for loaded in _chunks(loading, batch):
            whole = _whole(loaded, broken, strict)
            found = _match(plan, [item.inputs for item in whole], watch)
            for item, result in zip(whole, map(as_stored, found), strict=True):
                store.write(item.pair, result, usable[item.pair], len(item.inputs[0]) if plan.sparse else 0)
                on_pair(item.pair, result)
            matched += len(whole)
            advance(len(loaded))
    store.publish()
    return MatchingOutcome(matched, len(usable) - len(todo), broken, watch.seconds)


def in_blocks(pairs: Sequence[Pair], block: int) -> list[Pair]:
    """Orders pairs so that any stretch of them touches few photos.

    Photos are cut into blocks of this many by name; the pairs between two blocks come together, those of one
    first photo in a row. Going through them takes each photo into a memory of two blocks once per pair of
    blocks.
    """
    names = sorted({name for pair in pairs for name in pair})
    place = {name: position for position, name in enumerate(names)}

    def order(pair: Pair) -> tuple[int, int, int, int]:
        first, second = place[pair[0]], place[pair[1]]
        return first // block, second // block, first, second

    return sorted(pairs, key=order)


class _Stopwatch:
    """Adds up the time spent in its with blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds += time.perf_counter() - self._began


@dataclass(frozen=True, slots=True)
class _Failed:
    name: str
    error: InputError


@dataclass(frozen=True, slots=True)
class _LoadedPhoto:
    name: str
    photo: Photo
    signed: Signature
    mask: np.ndarray | None
    mask_signed: Signature | None

    def unmasked(self, features: Features) -> Features:
        return (
            features if self.mask is None else features.select(keep_unmasked(features.keypoints, self.mask))
        )


@dataclass(frozen=True, slots=True)
class _LoadedPair:
    pair: Pair
    inputs: tuple[Any, Any]


def _as_found(_inputs: Any, found: Result) -> Result:
    return found


@dataclass(frozen=True, slots=True)
class _Plan:
    compute: Compute
    nothing: Result
    block: int
    sparse: bool = False
    finish: Callable[[tuple[Any, Any], Any], Result] = _as_found


_NO_POINTS, _NO_SCORES = np.empty((0, 2), np.float32), np.empty(0, np.float32)
_NO_MATCHES = Matches(np.empty((0, 2), np.int32), _NO_SCORES)
_NO_CORRESPONDENCES = Correspondences(_NO_POINTS, _NO_POINTS, _NO_SCORES)


def _plan(matcher: Matcher | Courier, batch: int) -> _Plan:
    match matcher:
        case SparseMatcher():
            compute: Compute = matcher.matcher.match
            return _Plan(InBatches(compute, batch), _NO_MATCHES, _FEATURES_PER_BLOCK, sparse=True)
        case SemiDenseMatcher():
            compute = matcher.matcher.correspond
            return _Plan(InBatches(compute, batch), _NO_CORRESPONDENCES, _FEATURES_PER_BLOCK)
        case DenseMatcher() | WarpMatcher():
            compute = matcher.matcher.correspond
            return _Plan(InBatches(compute, batch), _NO_CORRESPONDENCES, _PHOTOS_PER_BLOCK)
        case Courier():
            look: Compute = InBatches(matcher.look, batch)
            return _Plan(look, _NO_CORRESPONDENCES, _PHOTOS_PER_BLOCK, finish=matcher.carry)


def _match(plan: _Plan, inputs: Sequence[tuple[Any, Any]], watch: "_Stopwatch") -> list[Result]:
    """Results of each pair; a pair with a photo without keypoints has none, and no network need see it."""
    filled = [not any(_is_empty(item) for item in pair) for pair in inputs]
    chosen = [pair for pair, full in zip(inputs, filled, strict=True) if full]
    with watch:
        found = plan.compute(chosen)
    finished = iter([plan.finish(pair, each) for pair, each in zip(chosen, found, strict=True)])
    return [next(finished) if full else plan.nothing for full in filled]


def _is_empty(item: Any) -> bool:
    seen = item.seen if isinstance(item, Anchored) else item
    return isinstance(seen, Features) and len(seen) == 0


def _load_pair(pair: Pair, read: Callable[[str], Any]) -> _LoadedPair | _Failed:
    inputs = []
    for name in pair:
        try:
            inputs.append(read(name))
        except InputError as error:
            return _Failed(name, error)
    return _LoadedPair(pair, (inputs[0], inputs[1]))


def _contents(pairs: Sequence[Pair], source: Source, broken: dict[str, str], strict: bool) -> dict[str, str]:
    contents = {}
    for name in sorted({name for pair in pairs for name in pair}):
        try:
            contents[name] = source.content(name)
        except InputError as error:
            _note(_Failed(name, error), broken, strict)
    return contents


def _replay(
    pairs: Iterable[Pair], fresh: set[Pair], store: MatchStore, on_pair: Callable[[Pair, Result], None]
) -> None:
    for pair in pairs:
        if pair not in fresh:
            on_pair(pair, store.read(pair))


def _is_current(folder: ImageFolder, name: str, masks: Path | None, store: FeatureStore) -> bool:
    try:
        return store.is_current(name, folder.path(name), masks and mask_path(masks, name))
    except InputError:
        return False  # loading meets the same error and names it


def _load(folder: ImageFolder, name: str, longest: int | None, masks: Path | None) -> _LoadedPhoto | _Failed:
    try:
        photo, signed = read_signed_photo(folder.path(name), longest=longest)
    except InputError as error:
        return _Failed(name, error)
    mask = masks and mask_path(masks, name)
    if not mask or not mask.exists():
        return _LoadedPhoto(name, photo, signed, None, None)
    return _LoadedPhoto(name, photo, signed, read_mask(mask, photo.size), signature(mask))


def _without_mask(masks: Path | None, names: Sequence[str]) -> tuple[str, ...]:
    missing = masks_missing(masks, names) if masks else ()
    if missing:
        log.warning("%d photos have no mask and are used whole: %s", len(missing), ", ".join(missing[:5]))
    return missing


def _whole(items: Iterable[Item | _Failed], broken: dict[str, str], strict: bool) -> list[Item]:
    """What could be loaded; notes the rest under `broken`, or raises if strict."""
    whole: list[Item] = []
    for item in items:
        if isinstance(item, _Failed):
            _note(item, broken, strict)
        else:
            whole.append(item)
    return whole


def _note(failed: _Failed, broken: dict[str, str], strict: bool) -> None:
    if strict:
        raise failed.error
    if failed.name not in broken:
        log.warning("%s is left out: %s", failed.name, failed.error.message)
    broken[failed.name] = failed.error.message


def _readers() -> int:
    return max(1, min(8, (os.cpu_count() or 1) // 2))


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while chunk := list(islice(remaining, size)):
        yield chunk
