"""Extraction and matching: resumed, masked, in bounded memory, and with the same result in any order."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gim_sfm import matching, threads
from gim_sfm.carrying import PhotoSource
from gim_sfm.errors import InputError
from gim_sfm.images import ImageFolder, read_photo
from gim_sfm.matchers.contract import DenseMatcher, SemiDenseMatcher, SparseMatcher
from gim_sfm.matching import extract_features, in_blocks, match_pairs
from gim_sfm.store import FeatureStore, MatchStore
from gim_sfm.types import Correspondences, Features, Matches, Photo


class Corners:
    """A detector in numpy: a grid of points described by the pixels there."""

    def __init__(self) -> None:
        self.seen: list[Photo] = []
        self.batches: list[int] = []

    def extract(self, photos: Sequence[Photo]) -> list[Features]:
        self.seen += photos
        self.batches.append(len(photos))
        return [self.features(photo) for photo in photos]

    def features(self, photo: Photo) -> Features:
        height, width = photo.pixels.shape[:2]
        y, x = (axis.ravel() for axis in np.mgrid[:height:4, :width:4])
        points = np.stack([x, y], 1).astype(np.float32)
        flat = np.full(len(points), 1, np.float32)
        return Features(points, flat, photo.pixels[y, x].astype(np.float16), flat, photo.size)


class Nearest:
    """A matcher in numpy: equal descriptors match, by index or by position."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def match(self, pairs: Sequence[tuple[Features, Features]]) -> list[Matches]:
        self.batches.append(len(pairs))
        return [self.nearest(*pair) for pair in pairs]

    def correspond(self, pairs: Sequence[tuple]) -> list[Correspondences]:
        self.batches.append(len(pairs))
        described = [[Corners().features(x) if isinstance(x, Photo) else x for x in pair] for pair in pairs]
        found = [self.nearest(*pair) for pair in described]
        return [
            Correspondences(a.keypoints[m.indices[:, 0]], b.keypoints[m.indices[:, 1]], m.scores)
            for (a, b), m in zip(described, found, strict=True)
        ]

    def nearest(self, first: Features, second: Features) -> Matches:
        distance = np.abs(first.descriptors[:, None].astype(float) - second.descriptors[None]).sum(2)
        nearest = distance.argmin(1)
        rows = np.random.default_rng(0).permutation(len(first))
        scores = (1 / (1 + distance[rows, nearest[rows]])).astype(np.float32)
        return Matches(np.stack([rows, nearest[rows]], 1).astype(np.int32), scores)


@pytest.fixture
def folder(tmp_path) -> ImageFolder:
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png", "sub/d.png", "sub/e.png"):
        paint(root / name, generator)
    return ImageFolder.scan(root)


def paint(path: Path, generator: np.random.Generator) -> None:
    Image.fromarray(generator.integers(0, 256, (16, 24, 3), np.uint8)).save(path)


def features_at(path: Path) -> FeatureStore:
    return FeatureStore.open(path / "features.h5", "f0", {})


def matches_at(path: Path) -> MatchStore:
    return MatchStore.open(path / "matches.h5", "m0", {})


def pairs_of(folder: ImageFolder) -> list[tuple[str, str]]:
    return [(a, b) for i, a in enumerate(folder.names) for b in folder.names[i + 1 :]]


def assert_equal(found: object, expected: object) -> None:
    assert type(found) is type(expected)
    for name in expected.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


# Extraction


@pytest.mark.parametrize("batch", [1, 2, 3, 9])
def test_every_photo_is_extracted_once(folder, tmp_path, batch):
    detector = Corners()
    with features_at(tmp_path) as store:
        outcome = extract_features(folder, folder.names, detector, store, batch=batch)
        assert (outcome.extracted, outcome.kept, outcome.broken, outcome.unmasked) == (5, 0, {}, ())
        assert outcome.seconds_in_network > 0
        assert len(detector.seen) == 5
        assert max(detector.batches) == min(batch, 5)
        for name in folder.names:
            photo = read_photo(folder.path(name))
            assert_equal(store.read(name), detector.features(photo))
    with features_at(tmp_path) as store:
        again = extract_features(folder, folder.names, detector, store, batch=batch)
    assert (again.extracted, again.kept, len(detector.seen)) == (0, 5, 5)
    assert again.seconds_in_network == 0


def test_new_and_replaced_photos_alone_are_extracted(folder, tmp_path):
    detector = Corners()
    with features_at(tmp_path) as store:
        extract_features(folder, folder.names, detector, store)
    paint(folder.path("b.png"), np.random.default_rng(9))
    paint(folder.path("new.png"), np.random.default_rng(8))
    folder.path("c.png").unlink()
    folder, detector = ImageFolder.scan(folder.root), Corners()
    with features_at(tmp_path) as store:
        outcome = extract_features(folder, folder.names, detector, store)
        assert (outcome.extracted, outcome.kept) == (2, 3)
        assert_equal(store.read("b.png"), detector.features(read_photo(folder.path("b.png"))))


def test_broken_photos_are_left_out_and_named(folder, tmp_path, caplog):
    folder.path("b.png").write_bytes(b"")
    folder.path("sub/d.png").write_bytes(folder.path("sub/d.png").read_bytes()[:200])
    with caplog.at_level(logging.WARNING), features_at(tmp_path) as store:
        outcome = extract_features(folder, folder.names, Corners(), store, batch=2)
        assert set(store.names()) == {"a.png", "c.png", "sub/e.png"}
    assert outcome.extracted == 3
    assert set(outcome.broken) == {"b.png", "sub/d.png"}
    assert "0 bytes" in outcome.broken["b.png"]
    assert "b.png is left out" in caplog.text


def test_strict_refuses_broken_photos_and_keeps_the_rest(folder, tmp_path):
    folder.path("sub/d.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"d\.png"), features_at(tmp_path) as store:
        extract_features(folder, folder.names, Corners(), store, strict=True)
    with features_at(tmp_path) as store:
        assert set(store.names()) == {"a.png", "b.png", "c.png"}


def test_masked_keypoints_are_dropped(folder, tmp_path, caplog):
    masks = tmp_path / "masks"
    (masks / "sub").mkdir(parents=True)
    mask = np.zeros((16, 24), np.uint8)
    mask[:, 12:] = 255
    Image.fromarray(mask).save(masks / "sub" / "d.png.png")
    with caplog.at_level(logging.WARNING), features_at(tmp_path) as store:
        outcome = extract_features(folder, folder.names, Corners(), store, masks=masks)
        assert store.read("sub/d.png").keypoints[:, 0].min() == 12
        assert len(store.read("sub/d.png")) == 12
        assert len(store.read("a.png")) == 24
    assert outcome.unmasked == ("a.png", "b.png", "c.png", "sub/e.png")
    assert caplog.text.count("have no mask") == 1
    with features_at(tmp_path) as store:
        assert extract_features(folder, folder.names, Corners(), store, masks=masks).kept == 5
    with features_at(tmp_path) as store:
        assert extract_features(folder, folder.names, Corners(), store).extracted == 1


def test_a_mask_of_another_size_stops(folder, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "masks" / "c.png.png")
    with pytest.raises(InputError, match=r"c\.png\.png has 5 x 5"), features_at(tmp_path) as store:
        extract_features(folder, folder.names, Corners(), store, masks=tmp_path / "masks")


def test_a_stop_in_the_middle_keeps_what_was_extracted(folder, tmp_path):
    class Stopped(Corners):
        def extract(self, photos: Sequence[Photo]) -> list[Features]:
            if len(self.seen) == 3:
                raise KeyboardInterrupt
            return super().extract(photos)

    with pytest.raises(KeyboardInterrupt), features_at(tmp_path) as store:
        extract_features(folder, folder.names, Stopped(), store)
    with features_at(tmp_path) as store:
        assert extract_features(folder, folder.names, Corners(), store).kept == 3


# Matching


def test_the_result_does_not_depend_on_order_batch_or_resume(folder, tmp_path):
    pairs = pairs_of(folder)
    with features_at(tmp_path) as features:
        extract_features(folder, folder.names, Corners(), features)
        expected = {}
        with matches_at(tmp_path / "whole") as store:
            matcher = SparseMatcher(Corners(), Nearest())
            outcome = match_pairs(pairs, matcher, features, store, on_pair=expected.__setitem__)
        assert (outcome.matched, outcome.kept, outcome.broken) == (10, 0, {})
        assert outcome.seconds_in_network > 0
        assert set(expected) == set(pairs)
        found = {}
        for part in (pairs[6:], pairs[:3], pairs):
            with matches_at(tmp_path / "parts") as store:
                matcher = SparseMatcher(Corners(), Nearest())
                outcome = match_pairs(part, matcher, features, store, batch=3, on_pair=found.__setitem__)
        assert (outcome.matched, outcome.kept, sum(matcher.matcher.batches)) == (3, 7, 3)
        with matches_at(tmp_path / "parts") as store:
            for pair in pairs:
                assert_equal(found[pair], expected[pair])
                assert_equal(store.read(pair), expected[pair])
                assert (np.diff(expected[pair].indices[:, 0]) > 0).all()


def test_pairs_of_replaced_photos_are_matched_again(folder, tmp_path):
    pairs = pairs_of(folder)
    for expected in (10, 0, 4):
        if expected == 4:
            paint(folder.path("c.png"), np.random.default_rng(7))
        with features_at(tmp_path) as features, matches_at(tmp_path) as store:
            extract_features(folder, folder.names, Corners(), features)
            outcome = match_pairs(pairs, SparseMatcher(Corners(), Nearest()), features, store)
            assert outcome.matched == expected
            fresh = Nearest().nearest(features.read("a.png"), features.read("c.png"))
            assert_equal(store.read(("a.png", "c.png")), matching.as_stored(fresh))


@pytest.mark.parametrize("kind", ["semi-dense", "dense"])
def test_positions_are_stored_for_the_other_kinds(folder, tmp_path, kind):
    pairs = pairs_of(folder)
    matcher = SemiDenseMatcher(Corners(), Nearest()) if kind == "semi-dense" else DenseMatcher(Nearest())
    with features_at(tmp_path) as features, matches_at(tmp_path) as store:
        extract_features(folder, folder.names, Corners(), features)
        source = features if kind == "semi-dense" else PhotoSource(folder)
        assert match_pairs(pairs, matcher, source, store, batch=2).matched == 10
        inputs = [source.read("a.png"), source.read("sub/d.png")]
        assert_equal(store.read(("a.png", "sub/d.png")), Nearest().correspond([inputs])[0])
        assert match_pairs(pairs, matcher, source, store).kept == 10


def test_a_broken_photo_costs_a_dense_matcher_its_pairs_only(folder, tmp_path):
    folder.path("b.png").write_bytes(folder.path("b.png").read_bytes()[:300])
    folder.path("c.png").unlink()
    with matches_at(tmp_path) as store:
        outcome = match_pairs(pairs_of(folder), DenseMatcher(Nearest()), PhotoSource(folder), store)
        assert (outcome.matched, set(outcome.broken), len(store)) == (3, {"b.png", "c.png"}, 3)
        with pytest.raises(InputError, match=r"[bc]\.png"):
            match_pairs(pairs_of(folder), DenseMatcher(Nearest()), PhotoSource(folder), store, strict=True)


def test_pairs_without_features_are_left_out(folder, tmp_path):
    with features_at(tmp_path) as features, matches_at(tmp_path) as store:
        extract_features(folder, ["a.png", "b.png"], Corners(), features)
        outcome = match_pairs(pairs_of(folder), SparseMatcher(Corners(), Nearest()), features, store)
    assert outcome.matched == 1
    assert set(outcome.broken) == {"c.png", "sub/d.png", "sub/e.png"}


@pytest.mark.parametrize("kind", [SparseMatcher, SemiDenseMatcher])
def test_photos_without_keypoints_never_reach_the_network(folder, tmp_path, kind):
    class Blind(Corners):
        def features(self, photo: Photo) -> Features:
            whole = super().features(photo)
            return whole.select(np.zeros(len(whole), bool)) if len(self.seen) == 2 else whole

    results, nearest = {}, Nearest()
    with features_at(tmp_path) as features, matches_at(tmp_path) as store:
        extract_features(folder, folder.names, Blind(), features)
        match_pairs(
            pairs_of(folder), kind(Corners(), nearest), features, store, batch=4, on_pair=results.__setitem__
        )
        assert sum(nearest.batches) == 6
        assert {pair for pair, result in results.items() if len(result) == 0} == {
            pair for pair in pairs_of(folder) if "b.png" in pair
        }
        assert len(store.read(("a.png", "b.png"))) == 0


@given(st.integers(2, 40), st.integers(1, 8), st.randoms())
def test_blocks_hold_each_pair_once_and_few_photos(photos, block, chance):
    names = [f"{number:02}.jpg" for number in range(photos)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    chance.shuffle(pairs)
    ordered = in_blocks(pairs, block)
    assert sorted(ordered) == sorted(pairs)
    reads, held = 0, []
    for name in (name for pair in ordered for name in pair):
        reads += name not in held
        held = [name, *(other for other in held if other != name)][: 2 * block + 1]
    blocks = -(-photos // block)
    assert reads <= photos * (blocks + 1)
    if photos <= 2 * block:
        assert reads == photos


def test_features_are_read_few_times(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(matching, "_FEATURES_PER_BLOCK", 3)
    with features_at(tmp_path) as features, matches_at(tmp_path) as store:
        extract_features(folder, folder.names, Corners(), features)
        reads: list[str] = []

        class Counted:
            content = staticmethod(features.content)

            @staticmethod
            def read(name: str) -> Features:
                reads.append(name)
                return features.read(name)

        match_pairs(pairs_of(folder), SparseMatcher(Corners(), Nearest()), Counted(), store)
    assert sorted(reads) == sorted(folder.names)


# Reading ahead


def test_reading_ahead_keeps_order_and_bounds():
    loaded: list[int] = []

    def load(number: int) -> int:
        loaded.append(number)
        return number * number

    ahead = threads.ahead(load, range(50), 2, 4)
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert len(loaded) <= 6
    ahead.close()
    assert len(loaded) <= 6
    assert list(threads.ahead(load, range(9), 3, 2)) == [number**2 for number in range(9)]


def test_reading_ahead_passes_errors_on():
    def load(number: int) -> float:
        return 1 / (2 - number)

    ahead = threads.ahead(load, range(5), 1, 1)
    with pytest.raises(ZeroDivisionError):
        list(ahead)


def test_photos_are_read_no_larger_than_needed(tmp_path):
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "a.jpg")
    folder, detector = ImageFolder.scan(tmp_path), Corners()
    with features_at(tmp_path / "out") as store:
        extract_features(folder, folder.names, detector, store, longest=40)
    assert replace(detector.seen[0], pixels=None) == Photo(None, (96, 64), 2)
