"""Global descriptors learnt from the collection itself."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gim_sfm import pairs, retrieval
from gim_sfm.errors import InputError
from gim_sfm.retrieval import Vlad, describe_collection
from gim_sfm.types import Features


def features(descriptors: np.ndarray) -> Features:
    count = len(descriptors)
    return Features(
        keypoints=np.zeros((count, 2), np.float32),
        scores=np.ones(count, np.float32),
        descriptors=descriptors.astype(np.float16),
        scales=np.ones(count, np.float32),
        size=(640, 480),
    )


def drawn_scenes(scenes: int, photos: int, seed: int = 0, points: int = 150) -> list[Features]:
    """Each scene has its own local structures; a photo sees half of them, disturbed, among foreign ones."""
    random = np.random.default_rng(seed)
    structures = random.normal(size=(scenes, points, 32))
    return [
        features(
            np.concatenate(
                [
                    structures[scene, random.permutation(points)[: points // 2]]
                    + 0.3 * random.normal(size=(points // 2, 32)),
                    random.normal(size=(points // 2, 32)),
                ]
            )
        )
        for scene in range(scenes)
        for _ in range(photos)
    ]


def test_photos_of_one_scene_find_each_other() -> None:
    photos = drawn_scenes(scenes=6, photos=5)
    names = [f"{scene}/{photo}" for scene in range(6) for photo in range(5)]
    found = pairs.retrieval(
        names,
        describe_collection(names, dict(zip(names, photos, strict=True)).__getitem__, words=16),
        neighbours=4,
    )
    same = [first[0] == second[0] for first, second in found]
    assert sum(same) >= 0.9 * 6 * 10, "pairs of one scene that were found"
    assert np.mean(same) > 0.8, "share of the found pairs that are of one scene"


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 60), words=st.integers(1, 70), seed=st.integers(0, 1000))
def test_descriptors_have_unit_length_and_do_not_depend_on_the_order(
    count: int, words: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    photo = features(random.normal(size=(count, 8)))
    vlad = Vlad.fit([features(random.normal(size=(50, 8)))], words=words, seed=seed)
    described = vlad.describe(photo)
    assert described.shape == (min(words, 50) * 8,) and described.dtype == np.float32
    assert np.linalg.norm(described) == pytest.approx(1.0 if count else 0.0, abs=1e-5)
    np.testing.assert_allclose(vlad.describe(photo.select(random.permutation(count))), described, atol=2e-2)


def test_the_same_seed_gives_the_same_codebook() -> None:
    photos = drawn_scenes(2, 3)
    words = [Vlad.fit(photos, words=8, seed=seed).words for seed in (1, 1, 2)]
    np.testing.assert_array_equal(words[0], words[1])
    assert not np.allclose(words[0], words[2])


def test_k_means_finds_clusters_that_are_there() -> None:
    random = np.random.default_rng(0)
    centres = np.eye(6, dtype=np.float32)
    sample = features(np.repeat(centres, 50, axis=0) + 0.01 * random.normal(size=(300, 6)))
    spread = min(
        np.linalg.norm(Vlad.fit([sample], words=12, seed=seed).words[:, None] - centres, axis=2)
        .min(axis=0)
        .max()
        for seed in range(3)
    )
    assert spread < 0.05


def test_photos_are_read_one_at_a_time_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_SAMPLE", 500)
    largest = 0
    original = retrieval._cluster

    def spy(sample: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        nonlocal largest
        largest = len(sample)
        return original(sample, count, random)

    def stream() -> Iterator[Features]:
        yield from drawn_scenes(scenes=10, photos=4)

    monkeypatch.setattr(retrieval, "_cluster", spy)
    Vlad.fit(stream(), words=4)
    assert 250 < largest <= 500


def test_photos_without_features_resemble_nothing() -> None:
    photos = drawn_scenes(1, 3)
    vlad = Vlad.fit(photos, words=4)
    assert not vlad.describe(features(np.empty((0, 32)))).any()
    with pytest.raises(InputError, match="No photo has features"):
        Vlad.fit([features(np.empty((0, 32)))])
    with pytest.raises(InputError, match="No photo has features"):
        Vlad.fit([])
